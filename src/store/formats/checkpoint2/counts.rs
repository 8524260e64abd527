//! `common.json`: where a job stands.

use crate::fault::{Fault, Kind, Result};
use crate::store::formats::checkpoint2::names::COMMON;
use crate::store::formats::progress::Progress;
use crate::store::json;
use crate::tensor::number::whole;
use serde::Serialize;
use serde_json::{Map, Value};

/// Longest `common.json` that is read, in bytes.
pub(super) const COMMON_BYTES_MAX: u64 = 1 << 20;

/// Reads it.
///
/// # Errors
/// [`Kind::Corrupt`], naming the file.
pub(super) fn parse(bytes: &[u8]) -> Result<Progress> {
    let bytes = json::without_mark(bytes.to_vec());
    let corrupt = |message: String| Fault::new(Kind::Corrupt, message).file(COMMON);
    let told: Map<String, Value> =
        serde_json::from_slice(&bytes).map_err(|error| {
            match json::parse::<Map<String, Value>>(&bytes) {
                Ok(_) => corrupt("has NaN or Infinity: no job goes on from such a count".into())
                    .hint("write the number that is meant, or null, where its counts aren't known"),
                Err(_) => corrupt(format!("can't be read: {error}")),
            }
        })?;
    let count = |name: &str| match number(told.get(name)) {
        None => Ok(None),
        Some(value) => value
            .as_u64()
            .or_else(|| whole(value.as_f64()?))
            .map_or_else(
                || Err(no_count(corrupt, name, value, "a whole number")),
                |value| Ok(Some(value)),
            ),
    };
    let scale = number(told.get("loss_scale")).map(|value| {
        let scale = value.as_f64();
        scale.ok_or_else(|| no_count(corrupt, "loss_scale", value, "a number"))
    });
    Ok(Progress {
        epoch_num: count("epoch_num")?,
        step_num: count("step_num")?,
        global_step: count("global_step")?,
        loss_scale: scale.transpose()?,
        global_batch_size: count("global_batch_size")?,
        consumed_samples: count("consumed_samples")?,
        ckpt_status: count("ckpt_status")?,
    })
}

/// What is given as a number, or as a list of just one, as a tensor becomes one in Python; none for null.
fn number(value: Option<&Value>) -> Option<&Value> {
    match value? {
        Value::Null => None,
        Value::Array(list) if list.len() == 1 => number(list.first()),
        value => Some(value),
    }
}

/// The fault of a count that is none.
fn no_count(corrupt: impl Fn(String) -> Fault, name: &str, value: &Value, what: &str) -> Fault {
    let fault = corrupt(format!("'{name}' is {value}, and has to be {what} or null"));
    fault.hint("mend it in an editor, or copy the file again")
}

/// That it isn't beside the text that tells the layout: a trainer writes both, and goes on from neither alone.
pub(super) fn missing() -> Fault {
    let message = "is missing, which says where the job stands: its step, epoch and loss scale";
    Fault::new(Kind::MissingShard, message).file(COMMON).hint(
        "copy it along; if it is lost, write what is known, of iteration N: {\"step_num\": N, \"global_step\": N}",
    )
}

/// Its text, as the trainer indents it.
///
/// # Errors
/// [`Kind::Internal`].
pub(super) fn text(progress: &Progress) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
    let written = progress.serialize(&mut writer);
    written.map_err(|error| Fault::new(Kind::Internal, format!("{COMMON}: {error}")))?;
    Ok(text)
}
