//! Where a job stands: counts that some formats keep as tensors, and others apart from these.

use crate::fault::{Fault, Kind, Result};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use serde::{Deserialize, Serialize};

/// Names of the tensors that a trainer keeps its counts in.
pub const COUNT_NAMES: [&str; 6] = [
    "epoch_num",
    "step_num",
    "global_step",
    "loss_scale",
    "global_batch_size",
    "consumed_samples",
];

/// Where a job stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Epoch, or sink.
    pub epoch_num: Option<u64>,
    /// Total steps: the iteration's number.
    pub step_num: Option<u64>,
    /// The optimizer's own count.
    pub global_step: Option<u64>,
    /// Loss scale.
    pub loss_scale: Option<f64>,
    /// Samples of a step.
    pub global_batch_size: Option<u64>,
    /// Samples seen, where the job counts them.
    pub consumed_samples: Option<u64>,
    /// 0 if the checkpoint was found healthy, 1 if not.
    pub ckpt_status: Option<u64>,
}

/// A count as a tensor of one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// One of [`COUNT_NAMES`].
    pub name: &'static str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Shape,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A count as the trainer stores it: of its own numbers all are 64 bits wide, but `global_step`, a
/// parameter of 32 as long as these hold it.
///
/// # Errors
/// [`Kind::Unsupported`] for a count beyond 63 bits.
pub fn stored(name: &str, value: u64) -> Result<(Dtype, Vec<u8>)> {
    if let (true, Ok(narrow)) = (name == "global_step", i32::try_from(value)) {
        return Ok((Dtype::I32, narrow.to_le_bytes().to_vec()));
    }
    let wide = i64::try_from(value).map_err(|_| {
        Fault::new(Kind::Unsupported, format!("{value} is too large a count")).tensor(name)
    })?;
    Ok((Dtype::I64, wide.to_le_bytes().to_vec()))
}

impl Progress {
    /// Where a job stands at this epoch and step, as far as they tell it: the count of all steps is that of the
    /// first epoch's step. None in a later one.
    #[must_use]
    pub fn at((epoch, step): (u64, u64)) -> Option<Progress> {
        (epoch == 1).then(|| Progress {
            epoch_num: Some(epoch),
            step_num: Some(step),
            global_step: Some(step),
            ..Progress::default()
        })
    }

    /// This, and what `other` knows where it doesn't say.
    #[must_use]
    pub fn or(self, other: Progress) -> Progress {
        Progress {
            epoch_num: self.epoch_num.or(other.epoch_num),
            step_num: self.step_num.or(other.step_num),
            global_step: self.global_step.or(other.global_step),
            loss_scale: self.loss_scale.or(other.loss_scale),
            global_batch_size: self.global_batch_size.or(other.global_batch_size),
            consumed_samples: self.consumed_samples.or(other.consumed_samples),
            ckpt_status: self.ckpt_status.or(other.ckpt_status),
        }
    }

    /// What rank directories have of it, in each rank's file; what isn't known is left out.
    ///
    /// # Errors
    /// As [`stored`].
    pub fn counts(&self) -> Result<Vec<Count>> {
        let scalar = || Shape(Vec::new());
        let whole = |name: &'static str, shape: Shape, value: Option<u64>| {
            value.map(|value| {
                let (dtype, bytes) = stored(name, value)?;
                Ok(Count {
                    name,
                    dtype,
                    shape,
                    bytes,
                })
            })
        };
        let counts = [
            whole("epoch_num", scalar(), self.epoch_num),
            whole("step_num", scalar(), self.step_num),
            whole("global_step", Shape(vec![1]), self.global_step),
            whole("global_batch_size", scalar(), self.global_batch_size),
            whole("consumed_samples", scalar(), self.consumed_samples),
        ];
        let mut counts: Vec<Count> = counts.into_iter().flatten().collect::<Result<_>>()?;
        if let Some(scale) = self.loss_scale {
            // Nearest, as the trainer keeps it; a text carries any float.
            let scale: f32 = scale.to_string().parse().unwrap_or(f32::NAN);
            counts.push(Count {
                name: "loss_scale",
                dtype: Dtype::F32,
                shape: scalar(),
                bytes: scale.to_le_bytes().to_vec(),
            });
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_beyond_32_bits_are_stored() {
        let large = 5_000_000_000_u64;
        let wide = (Dtype::I64, large.to_le_bytes().to_vec());
        for name in ["epoch_num", "step_num", "global_step", "global_batch_size"] {
            assert_eq!(stored(name, large).unwrap(), wide, "{name}");
        }
        assert_eq!(stored("step_num", 7).unwrap().0, Dtype::I64);
        assert_eq!(stored("global_step", 7).unwrap().0, Dtype::I32);
        let fault = stored("step_num", u64::MAX).unwrap_err();
        assert_eq!(
            (fault.kind, fault.tensor.as_deref()),
            (Kind::Unsupported, Some("step_num"))
        );
    }
}
