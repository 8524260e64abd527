//! What the files and directories are called.

use crate::store::formats::directory::{Names, TRACKER, has};

/// The file that tells the layout.
pub const METADATA: &str = "metadata.json";

/// The file that tells where the job stands.
pub const COMMON: &str = "common.json";

/// The file in which the trainer of dynamic graphs tells of an adapter.
pub(super) const ADAPTER: &str = "mindformers_adapter_config.json";

/// Longest such file that is read, in bytes.
pub(super) const ADAPTER_BYTES_MAX: u64 = 1 << 20;

/// Longest `metadata.json` that is read, in bytes.
pub const METADATA_BYTES_MAX: u64 = 1 << 30;

/// Whether a directory with these entries is an iteration, or holds several, by names alone.
#[must_use]
pub fn is_or_holds_one(names: &Names) -> bool {
    // One card's iteration has no metadata.
    let told = [METADATA, COMMON, TRACKER];
    let told = told.iter().any(|name| has(names, name, false));
    told || names.iter().any(|(name, folder)| *folder && is_one(name))
}

/// Whether a directory of this name is an iteration.
pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("iteration_") && iteration(name).is_some()
}

/// Directory of iteration `number`.
#[must_use]
pub fn directory(number: u64) -> String {
    format!("iteration_{number:08}")
}

/// The iteration that a directory's name or the tracker's text stands for.
#[must_use]
pub fn iteration(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("iteration_").unwrap_or(text).trim();
    let ok = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    ok.then(|| digits.parse().ok())?
}

/// The number of files of its kind, which a file's name says.
#[must_use]
pub(super) fn cards(path: &str) -> Option<u64> {
    let mut parts = path.strip_suffix(".safetensors")?.rsplit('-');
    let (count, index) = (parts.next()?, parts.next()?);
    let number = |text: &str| {
        let ok = text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_digit());
        ok.then(|| text.parse().ok())?
    };
    let _: u64 = number(index)?;
    number(count)
}

/// Whether the trainer calls a file so: `llm-model-0000000-0000004.safetensors`.
#[must_use]
pub(super) fn is_written(name: &str) -> bool {
    let stem = name.rsplitn(3, '-').nth(2).unwrap_or_default();
    let kind = stem.rsplit('-').next().unwrap_or_default();
    cards(name).is_some() && ["model", "opt"].contains(&kind)
}
