//! `common.json`: where a job stands.

use crate::fault::{Fault, Kind, Result};
use crate::store::formats::checkpoint2::names::COMMON;
use crate::store::formats::progress::Progress;
use serde::Serialize;

/// Longest `common.json` that is read, in bytes.
pub(super) const COMMON_BYTES_MAX: u64 = 1 << 20;

/// Reads it.
///
/// # Errors
/// [`Kind::Corrupt`], naming the file.
pub(super) fn parse(bytes: &[u8]) -> Result<Progress> {
    serde_json::from_slice(bytes)
        .map_err(|error| Fault::new(Kind::Corrupt, format!("can't be read: {error}")).file(COMMON))
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
