//! Directories of full weights: one file, or several with a name map beside them.

use crate::fault::{Fault, Kind, Result};
use crate::store::once::Once;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The file that describes a model of Hugging Face.
pub const CONFIG: &str = "config.json";
/// Maps that say which tensor is in which file, in the order in which they are looked for.
pub const MAPS: [&str; 3] = [
    "param_name_map.json",
    "model.safetensors.index.json",
    TORCH_MAP,
];

/// The map of PyTorch's files.
pub const TORCH_MAP: &str = "pytorch_model.bin.index.json";

/// Largest map that is read.
pub const MAP_BYTES_MAX: u64 = 256 << 20;

/// A map as Hugging Face has it.
#[derive(Deserialize)]
struct Index {
    weight_map: Option<Once<serde_json::Value>>,
}

/// Reads a map: `{"weight_map": {name: file}}` or a flat `{name: file}`.
///
/// # Errors
/// [`Kind::Corrupt`] if it isn't that, or names a file outside the directory.
pub fn parse_map(bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let corrupt = |message: String| Fault::new(Kind::Corrupt, message);
    let wrong = |error| corrupt(format!("is no JSON map of tensors to files: {error}"));
    let index: Index = serde_json::from_slice(bytes).map_err(wrong)?;
    let flat = || serde_json::from_slice(bytes).map_err(wrong);
    let Once(map) = index.weight_map.map_or_else(flat, Ok)?;
    map.iter()
        .map(|(name, file)| {
            let file = file.as_str().ok_or_else(|| {
                corrupt("the map gives no file name: is it an index, with a weight_map?".into())
                    .tensor(name.as_str())
            })?;
            let file = file.strip_prefix("./").unwrap_or(file);
            check_inside(file).map_err(|fault| fault.tensor(name.as_str()))?;
            Ok((name.clone(), file.to_owned()))
        })
        .collect()
}

/// Refuses a path that leaves its directory.
///
/// # Errors
/// [`Kind::Corrupt`].
pub fn check_inside(path: &str) -> Result<()> {
    let mut parts = std::path::Path::new(path).components();
    let inside =
        !path.is_empty() && parts.all(|part| matches!(part, std::path::Component::Normal(_)));
    if inside {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Corrupt,
        format!("the map names '{path}', which is outside the directory"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves P136
    #[test]
    fn accepts_both_forms_and_refuses_ways_out() {
        let nested = br#"{"metadata":{},"weight_map":{"a":"x.safetensors"}}"#;
        assert_eq!(parse_map(nested).unwrap()["a"], "x.safetensors");
        assert_eq!(parse_map(br#"{"a":"x"}"#).unwrap()["a"], "x");
        for bad in ["../x", "/etc/x", "a/../../x", ""] {
            let text = serde_json::json!({ "weight_map": { "a": bad } }).to_string();
            assert_eq!(
                parse_map(text.as_bytes()).unwrap_err().kind,
                Kind::Corrupt,
                "{bad}"
            );
        }
        assert!(parse_map(b"[1]").is_err());
    }
}
