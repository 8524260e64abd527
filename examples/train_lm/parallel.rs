//! Which processes share what, and the two all-reduces of tensor parallelism with their derivatives.

use crate::Result;
use candle_core::{CpuStorage, CustomOp1, Error, Layout, Shape, Tensor};
use mpi::collective::SystemOperation;
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::{Communicator, CommunicatorCollectives};
use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    /// The processes that share each weight. Operations of the graph must be free of it, MPI is not.
    static TENSOR_PARALLEL: RefCell<Option<Rc<SimpleCommunicator>>> = const { RefCell::new(None) };
}

/// The place of this process: row `dp_index`, column `tp_index` of `dp` rows of `tp` processes.
pub(crate) struct Mesh {
    pub(crate) dp_size: u32,
    pub(crate) tp_size: u32,
    pub(crate) dp_index: u32,
    pub(crate) tp_index: u32,
    /// The processes of this column: the same part of each weight, other parts of the batch.
    pub(crate) dp: SimpleCommunicator,
}

impl Mesh {
    /// Divides the processes. Collective.
    pub(crate) fn new(dp_size: u32, tp_size: u32, process: u32) -> Result<Mesh> {
        let world = SimpleCommunicator::world();
        let (dp_index, tp_index) = (process / tp_size, process % tp_size);
        let split = |color: u32, key: u32| -> Result<SimpleCommunicator> {
            let color = Color::with_value(i32::try_from(color)?);
            let part = world.split_by_color_with_key(color, i32::try_from(key)?);
            part.ok_or_else(|| "MPI gives no group".into())
        };
        let tp = Rc::new(split(dp_index, tp_index)?);
        TENSOR_PARALLEL.with(|group| *group.borrow_mut() = Some(tp));
        Ok(Mesh {
            dp_size,
            tp_size,
            dp_index,
            tp_index,
            dp: split(tp_index, dp_index)?,
        })
    }
}

/// Gives the groups back before MPI ends.
pub(crate) fn release() {
    TENSOR_PARALLEL.with(|group| *group.borrow_mut() = None);
}

/// The mean of each process's `value`. Collective over `group`.
pub(crate) fn average(group: &SimpleCommunicator, value: f32) -> f64 {
    let mut sum = 0.0;
    group.all_reduce_into(&f64::from(value), &mut sum, SystemOperation::sum());
    sum / f64::from(group.size())
}

/// How the values of the processes that share each weight are joined.
#[derive(Clone, Copy)]
enum Join {
    Sum,
    Max,
}

/// Joins; its derivative passes on what comes, as each process sees the same result.
struct Joined(Join);

/// Gives each process the same; its derivative sums, as each has used it for its own part.
struct Given;

impl CustomOp1 for Joined {
    fn name(&self) -> &'static str {
        "joined"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let mine = contiguous(storage, layout)?;
        let mut all = vec![0_f32; mine.len()];
        let group = TENSOR_PARALLEL.with(|group| group.borrow().clone());
        let group = group.ok_or_else(|| Error::Msg("no group of processes".into()))?;
        let operation = match self.0 {
            Join::Sum => SystemOperation::sum(),
            Join::Max => SystemOperation::max(),
        };
        group.all_reduce_into(mine, &mut all[..], operation);
        Ok((CpuStorage::F32(all), layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(gradient.clone()))
    }
}

impl CustomOp1 for Given {
    fn name(&self) -> &'static str {
        "given"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let mine = contiguous(storage, layout)?.to_vec();
        Ok((CpuStorage::F32(mine), layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let sum = gradient
            .contiguous()?
            .apply_op1_no_bwd(&Joined(Join::Sum))?;
        Ok(Some(sum))
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::Msg("a tensor with gaps".into()))?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// `x`, the same on all processes that share each weight, where each goes on with its own part.
pub(crate) fn given(x: &Tensor) -> candle_core::Result<Tensor> {
    x.contiguous()?.apply_op1(Given)
}

/// The sum of what these processes have.
pub(crate) fn sum(x: &Tensor) -> candle_core::Result<Tensor> {
    x.contiguous()?.apply_op1(Joined(Join::Sum))
}

/// The largest, a constant for derivatives.
pub(crate) fn maximum(x: &Tensor) -> candle_core::Result<Tensor> {
    x.detach()
        .contiguous()?
        .apply_op1_no_bwd(&Joined(Join::Max))
}
