//! `common.json`: where a job stands.

use crate::fault::{Fault, Kind, Result};
use crate::store::checkpoint2::names::COMMON;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use serde::{Deserialize, Serialize};

/// Names that a checkpoint 1.0 keeps as tensors and 2.0 keeps in `common.json`.
pub const COMMON_NAMES: [&str; 5] = [
    "epoch_num",
    "step_num",
    "global_step",
    "loss_scale",
    "global_batch_size",
];

/// Where a job stands: `common.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Common {
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

/// A count as a checkpoint 1.0 has it: a tensor of one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// One of [`COMMON_NAMES`].
    pub name: &'static str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Shape,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Common {
    /// What a checkpoint 1.0 has of it, in each rank's file; what isn't known is left out.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a count beyond 32 bits.
    pub fn counts(&self) -> Result<Vec<Count>> {
        let scalar = || Shape(Vec::new());
        let whole = |name: &'static str, shape: Shape, value: Option<u64>| {
            value.map(|value| match i32::try_from(value) {
                Ok(value) => Ok(Count {
                    name,
                    dtype: Dtype::I32,
                    shape,
                    bytes: value.to_le_bytes().to_vec(),
                }),
                Err(_) => {
                    let message = format!("{COMMON}: {value} is too large a count");
                    Err(Fault::new(Kind::Unsupported, message).tensor(name))
                }
            })
        };
        let counts = [
            whole("epoch_num", scalar(), self.epoch_num),
            whole("step_num", scalar(), self.step_num),
            whole("global_step", Shape(vec![1]), self.global_step),
            whole("global_batch_size", scalar(), self.global_batch_size),
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

    /// Its JSON, as the trainer indents it.
    ///
    /// # Errors
    /// [`Kind::Internal`].
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
        let written = self.serialize(&mut writer);
        written.map_err(|error| Fault::new(Kind::Internal, format!("{COMMON}: {error}")))?;
        Ok(text)
    }
}
