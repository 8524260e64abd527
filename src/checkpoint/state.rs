//! What a training loop gives to be saved.

use crate::checkpoint::background::Bytes;
use crate::checkpoint::monitor_config::{MonitorConfig, Number};
use crate::fault::{Fault, Result};
use crate::store::formats::stored;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A tensor of this rank's state.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StateTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub dtype: Dtype,
    /// Shape of this rank's shard, in elements.
    pub shape: &'a [u64],
    /// The shard's bytes, row-major, little-endian.
    pub bytes: &'a [u8],
    /// Whether it is a weight; else the optimizer's.
    pub weight: bool,
    /// Whether it is a weight that is trained; else frozen.
    pub trainable: bool,
}

impl<'a> StateTensor<'a> {
    /// A weight that is trained: this rank's shard of `name`, of `shape` in elements.
    #[must_use]
    pub fn new(name: &'a str, dtype: Dtype, shape: &'a [u64], bytes: &'a [u8]) -> Self {
        StateTensor {
            name,
            dtype,
            shape,
            bytes,
            weight: true,
            trainable: true,
        }
    }

    /// The same as a part of the optimizer's state.
    #[must_use]
    pub fn of_optimizer(self) -> Self {
        StateTensor {
            weight: false,
            trainable: false,
            ..self
        }
    }

    /// The same as a weight that isn't trained.
    #[must_use]
    pub fn frozen(self) -> Self {
        StateTensor {
            trainable: false,
            ..self
        }
    }
}

/// This rank's state after a step.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct State<'a> {
    /// All tensors of this rank.
    pub tensors: &'a [StateTensor<'a>],
    /// Epoch, from 1.
    pub epoch: u64,
    /// Step within the epoch, from 1.
    pub step_in_epoch: u64,
    /// Steps over all runs.
    pub step: u64,
    /// The optimizer's own count.
    pub global_step: u64,
    /// Loss scale.
    pub loss_scale: f32,
}

impl<'a> State<'a> {
    /// The state after `step` steps over all runs, all of them in the first epoch, at a loss scale of 1.
    #[must_use]
    pub fn new(tensors: &'a [StateTensor<'a>], step: u64) -> Self {
        State {
            tensors,
            epoch: 1,
            step_in_epoch: step,
            step,
            global_step: step,
            loss_scale: 1.0,
        }
    }

    /// The same in another epoch, after `step_in_epoch` of its steps; both count from 1.
    #[must_use]
    pub fn in_epoch(self, epoch: u64, step_in_epoch: u64) -> Self {
        State {
            epoch,
            step_in_epoch,
            ..self
        }
    }
}

impl State<'_> {
    /// Where the run stands, as the trainer appends it, and what `append_info` adds.
    pub(super) fn scalars(&self, config: &MonitorConfig) -> Result<Vec<Scalar>> {
        let count = |name: &str, dims: Vec<u64>, value: u64| {
            let (dtype, bytes) = stored(name, value)?;
            Ok::<_, Fault>((name.to_owned(), dtype, dims, bytes))
        };
        let real = |name: &str, value: f32| {
            let bytes = value.to_le_bytes().to_vec();
            (name.to_owned(), Dtype::F32, vec![], bytes)
        };
        let mut scalars = vec![
            count("epoch_num", vec![], self.epoch)?,
            count("step_num", vec![], self.step)?,
            count("global_step", vec![1], self.global_step)?,
            real("loss_scale", self.loss_scale),
        ];
        if let Some(batch) = config.global_batch_size {
            scalars.push(count("global_batch_size", vec![], batch)?);
        }
        for (name, number) in config.appended() {
            scalars.push(match number {
                Number::Real(value) => real(name, value),
                Number::Truth(truth) => {
                    (name.to_owned(), Dtype::Bool, vec![], vec![u8::from(truth)])
                }
                Number::Whole(value) => {
                    let bytes = value.to_le_bytes().to_vec();
                    (name.to_owned(), Dtype::I64, vec![], bytes)
                }
            });
        }
        Ok(scalars)
    }
}

/// A tensor of one element: name, type, dimensions, bytes.
pub(super) type Scalar = (String, Dtype, Vec<u64>, Vec<u8>);

/// What goes into a file.
pub(super) type Contents<'a> = BTreeMap<Arc<str>, Content<'a>>;

/// A tensor's type, shape and bytes.
pub(super) type Content<'a> = (Dtype, Shape, Bytes<'a>);

pub(super) fn content<'a>(tensor: &StateTensor<'a>) -> (Arc<str>, Content<'a>) {
    let shape = Shape(tensor.shape.to_vec());
    (
        tensor.name.into(),
        (tensor.dtype, shape, Bytes::Borrowed(tensor.bytes)),
    )
}
