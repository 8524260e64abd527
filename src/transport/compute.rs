//! Computing a window: its stored elements and its operands become the elements to write.

use crate::fault::{Fault, Kind, Result};
use crate::plan::TensorPlan;
use crate::plan::value::{Operand, Patch, Step};
use crate::tensor::arithmetic::{Product, Rectangle, add_product, scale_blocks};
use crate::tensor::cast::{narrow, widen};
use crate::tensor::quantise::{Form, quantise};
use crate::tensor::region::Region;
use std::sync::Arc;

/// A worker's buffers for computing, used again and again.
#[derive(Default)]
pub(super) struct Computer {
    values: Vec<f32>,
    left: Loaded,
    right: Loaded,
    turned: [Vec<f32>; 2],
}

impl Computer {
    /// Takes the window `tile` of `plan`, as stored, through `patches`, whose operands are in
    /// `operands`; puts the result, as written, into `out`. Gives how many elements were infinite before
    /// they got the type written. Local.
    ///
    /// # Errors
    /// [`Kind::Internal`] if a patch reaches outside, [`Kind::Dtype`] for elements that can't be
    /// computed with.
    pub(super) fn compute(
        &mut self,
        plan: &TensorPlan,
        patches: &[Patch<'_>],
        tile: &[u8],
        operands: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<u64> {
        if !widen(plan.dtype, tile, &mut self.values) {
            let message = format!("{} is no type to compute with", plan.dtype);
            return Err(Fault::new(Kind::Dtype, message).tensor(&*plan.name));
        }
        for patch in patches {
            let done = match (patch.step, &patch.operands[..]) {
                (Step::Scale { block, .. }, [scales]) => {
                    self.left.load(scales, operands)?;
                    let columns = scales.region.shape.0.last().copied().unwrap_or_default();
                    scale_blocks(
                        &mut self.values,
                        &patch.at,
                        *block,
                        &self.left.values,
                        columns,
                    )
                }
                (
                    Step::Add {
                        factor, transposed, ..
                    }
                    | Step::AddEach {
                        factor, transposed, ..
                    },
                    [a, b],
                ) => self.add(&patch.at, [a, b], operands, (*factor, *transposed))?,
                _ => false,
            };
            if !done {
                let message = "a computation reaches outside its window";
                return Err(Fault::new(Kind::Internal, message).tensor(&*plan.name));
            }
        }
        let columns = plan.destination.grid.full_shape().0.last().copied();
        let done = match plan.form {
            Form::Elements => narrow(&self.values, plan.written, out),
            form => quantise(&self.values, columns.unwrap_or_default(), form, out),
        };
        if done {
            let infinite = |count, value: &f32| count + u64::from(value.is_infinite());
            return Ok(self.values.iter().fold(0, infinite));
        }
        let message = format!("{} is no type to compute", plan.written);
        Err(Fault::new(Kind::Dtype, message).tensor(&*plan.name))
    }

    /// Adds the product of two operands to a part of the window; whether that lies in it.
    fn add(
        &mut self,
        at: &Rectangle,
        [a, b]: [&Operand<'_>; 2],
        operands: &[u8],
        (factor, transposed): (f32, bool),
    ) -> Result<bool> {
        self.left.load(a, operands)?;
        self.right.load(b, operands)?;
        let rank = a.region.shape.0.first().copied().unwrap_or_default();
        let (mut a, mut b) = (&self.left.values, &self.right.values);
        if transposed {
            // The transposed of B * A is A's, times B's.
            let [left, right] = &mut self.turned;
            turn(b, rank, left);
            turn(a, a.len() as u64 / rank.max(1), right);
            (a, b) = (left, right);
        }
        let product = Product { a, b, rank, factor };
        Ok(add_product(&mut self.values, at, &product))
    }
}

/// Puts the transposed of a matrix with so many columns into `out`.
fn turn(values: &[f32], columns: u64, out: &mut Vec<f32>) {
    out.clear();
    let columns = usize::try_from(columns).unwrap_or(usize::MAX);
    for column in 0..columns.min(values.len()) {
        out.extend(values[column..].iter().step_by(columns));
    }
}

/// An operand as numbers.
#[derive(Default)]
struct Loaded {
    of: Option<(Arc<str>, Region)>,
    values: Vec<f32>,
}

impl Loaded {
    /// Widens an operand, unless it is the one that the window before had: windows of whole rows share
    /// the columns of A.
    fn load(&mut self, operand: &Operand<'_>, bytes: &[u8]) -> Result<()> {
        let name = &operand.tensor.name;
        let known = |(of, region): &(Arc<str>, Region)| of == name && region == &operand.region;
        if self.of.as_ref().is_some_and(known) {
            return Ok(());
        }
        let range = operand.bytes();
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let taken = bytes
            .get(index(range.start)..index(range.end))
            .is_some_and(|bytes| widen(operand.tensor.dtype, bytes, &mut self.values));
        if taken {
            self.of = Some((name.clone(), operand.region.clone()));
            return Ok(());
        }
        self.of = None;
        let message = format!("{} operand is out of reach", operand.tensor.dtype);
        Err(Fault::new(Kind::Internal, message).tensor(&**name))
    }
}
