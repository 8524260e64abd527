//! Full shapes of tensors, from a file.

use crate::fault::{Fault, Kind, Result};
use crate::job::inspect::full_tensors;
use crate::plan::simulate::Shapes;
use crate::store::io::ReadFile;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest file of shapes that is read.
pub(super) const SHAPES_BYTES_MAX: u64 = 1 << 30;

/// Reads full shapes: a JSON file `{name: {"dtype": "BF16", "shape": [4, 4]}}` (a safetensors header
/// is one), a safetensors file, or a directory of full weights.
///
/// # Errors
/// [`Kind::Corrupt`]; as [`full_tensors`].
pub fn read_shapes(path: &Path) -> Result<Shapes> {
    let named = |fault: Fault| fault.file(path.display().to_string());
    if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        let text = ReadFile::open(path)?.read_all(SHAPES_BYTES_MAX)?;
        return parse_shapes(&text).map_err(named);
    }
    full_tensors(path)
}

#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<u64>,
}

fn parse_shapes(text: &[u8]) -> Result<Shapes> {
    let bad = |error: serde_json::Error| {
        Fault::new(Kind::Corrupt, format!("is no JSON map of shapes: {error}"))
    };
    let values: BTreeMap<String, serde_json::Value> = serde_json::from_slice(text).map_err(bad)?;
    let mut shapes = Shapes::new();
    for (name, value) in values {
        if name == "__metadata__" {
            continue;
        }
        let described: Described = serde_json::from_value(value).map_err(|_| {
            let message = "has no dtype and shape: is it a JSON map of shapes, as a safetensors header is?";
            let fault = Fault::new(Kind::Corrupt, message).tensor(&*name);
            fault.hint("{\"name\": {\"dtype\": \"BF16\", \"shape\": [4, 4]}} is one; --model takes a model's config.json")
        })?;
        let dtype =
            Dtype::from_safetensors(&described.dtype).map_err(|fault| fault.tensor(&*name))?;
        let shape = Shape(described.shape);
        shape.bytes(dtype).map_err(|fault| fault.tensor(&*name))?;
        shapes.push((name.into(), dtype, shape));
    }
    Ok(shapes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_shapes_from_a_safetensors_header() {
        let text = br#"{"__metadata__": {"format": "pt"},
            "w": {"dtype": "BF16", "shape": [4, 2], "data_offsets": [0, 16]}}"#;
        let shapes = parse_shapes(text).unwrap();
        assert_eq!(shapes, [("w".into(), Dtype::BF16, Shape(vec![4, 2]))]);
        for bad in [
            &br#"[1]"#[..],
            br#"{"w": 3}"#,
            br#"{"w": {"dtype": "Q9", "shape": [1]}}"#,
            br#"{"w": {"dtype": "F32", "shape": [9223372036854775807, 9]}}"#,
        ] {
            assert!(parse_shapes(bad).is_err());
        }
    }
}
