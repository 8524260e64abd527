//! The metadata of the files that a job writes.

use crate::plan::arrange::Files;
use std::collections::BTreeMap;

/// Beginning of the keys that tell how tensors were made of others.
pub const OWN_KEYS: &str = "shardloom.";

/// The files' metadata as MindSpore writes it: unify carries the source's along (docs/formats.md). Our
/// own keys always go along.
pub(super) fn metadata(
    files: &Files,
    source: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut metadata = source.clone();
    if !matches!(files, Files::Full { .. }) {
        metadata.retain(|key, _| key.starts_with(OWN_KEYS));
    } else {
        if let Some(value) = metadata.get_mut("remove_redundancy") {
            *value = "False".into();
        }
    }
    metadata.insert("format".into(), "ms".into());
    metadata
}
