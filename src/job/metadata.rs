//! The metadata of the files that a job writes.

use crate::plan::arrange::Files;
pub use crate::source::OWN_KEYS;
use std::collections::BTreeMap;

/// Tensors that only a model with Hugging Face's names has.
const HUGGING_FACE: [&str; 2] = [
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
];

/// The `format` of files with tensors of these names: whose loaders know them.
pub(super) fn format_of<'a>(mut names: impl Iterator<Item = &'a str>) -> &'static str {
    match names.any(|name| HUGGING_FACE.contains(&name)) {
        true => "pt",
        false => "ms",
    }
}

/// The files' metadata as MindSpore writes it: unify carries the source's along (docs/formats.md). Our
/// own keys always go along.
pub(super) fn metadata(
    files: &Files,
    source: &BTreeMap<String, String>,
    format: &str,
) -> BTreeMap<String, String> {
    let mut metadata = source.clone();
    if !matches!(files, Files::Full { .. }) {
        metadata.retain(|key, _| key.starts_with(OWN_KEYS));
    } else {
        if let Some(value) = metadata.get_mut("remove_redundancy") {
            *value = "False".into();
        }
    }
    metadata.insert("format".into(), format.into());
    metadata
}

/// What of it this program has noted.
pub(super) fn noted(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = metadata.iter().filter(|(key, _)| key.starts_with(OWN_KEYS));
    own.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
