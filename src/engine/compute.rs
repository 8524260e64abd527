//! Computing a window: its stored elements and its operands become the elements to write.

use crate::fault::{Fault, Kind, Result};
use crate::plan::TensorPlan;
use crate::plan::value::{Operand, Patch, Step};
use crate::tensor::arithmetic::{Product, add_product, narrow, scale_blocks, widen};

/// A worker's buffers for computing, used again and again.
#[derive(Default)]
pub(super) struct Computer {
    values: Vec<f32>,
    left: Vec<f32>,
    right: Vec<f32>,
    sums: Vec<f32>,
}

impl Computer {
    /// Takes the window `tile` of `plan`, as stored, through `patches`, whose operands are in
    /// `operands`; puts the result, as written, into `out`. Local.
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
    ) -> Result<()> {
        if !widen(plan.dtype, tile, &mut self.values) {
            let message = format!("{} is no type to compute with", plan.dtype);
            return Err(Fault::new(Kind::Dtype, message).tensor(&*plan.name));
        }
        for patch in patches {
            let done = match (patch.step, &patch.operands[..]) {
                (Step::Scale { block, .. }, [scales]) => {
                    load(scales, operands, &mut self.left)?;
                    let columns = scales.region.shape.0.last().copied().unwrap_or_default();
                    scale_blocks(&mut self.values, &patch.at, *block, &self.left, columns)
                }
                (Step::Add { factor, .. }, [a, b]) => {
                    load(a, operands, &mut self.left)?;
                    load(b, operands, &mut self.right)?;
                    let product = Product {
                        a: &self.left,
                        b: &self.right,
                        rank: a.region.shape.0.first().copied().unwrap_or_default(),
                        factor: *factor,
                    };
                    add_product(&mut self.values, &patch.at, &product, &mut self.sums)
                }
                _ => false,
            };
            if !done {
                let message = "a computation reaches outside its window";
                return Err(Fault::new(Kind::Internal, message).tensor(&*plan.name));
            }
        }
        if narrow(&self.values, plan.written, out) {
            return Ok(());
        }
        let message = format!("{} is no type to compute", plan.written);
        Err(Fault::new(Kind::Dtype, message).tensor(&*plan.name))
    }
}

/// An operand as numbers.
fn load(operand: &Operand<'_>, bytes: &[u8], out: &mut Vec<f32>) -> Result<()> {
    let range = operand.bytes();
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let taken = bytes
        .get(index(range.start)..index(range.end))
        .is_some_and(|bytes| widen(operand.tensor.dtype, bytes, out));
    if taken {
        return Ok(());
    }
    let message = format!("{} operand is out of reach", operand.tensor.dtype);
    Err(Fault::new(Kind::Internal, message).tensor(&*operand.tensor.name))
}
