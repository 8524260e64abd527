//! What DeepSpeed saves: a ZeRO checkpoint, in which weights of float32 and the optimizer's moments are flat
//! parts over the ranks, and a universal checkpoint, with a directory of files for each weight.

mod due;
mod entries;
mod model;
mod names;
mod optimizer;
mod universal;
mod zero;

pub(super) use universal::Universal;
pub(super) use zero::Zero;
