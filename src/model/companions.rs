//! The small files that go along with a model's weights.

use crate::fault::Result;
use crate::model::described::{CONFIG, SMALL_BYTES_MAX};
use crate::model::quantised::QUANTISED;
use crate::store::io::{self, ReadFile};
use crate::tensor::dtype::Dtype;
use serde_json::{Map, Value};
use std::path::Path;

/// Their endings.
const SMALL: [&str; 6] = ["json", "model", "txt", "jinja", "tiktoken", "py"];

/// config.json, tokenizer and the like of the model in `directory`, as path and contents; a
/// config.json that names an element type is told the new one, and one that speaks of quantised
/// weights that these are not. Local.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn companions(directory: &Path, cast: Option<Dtype>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for (name, is_directory) in io::list(directory)? {
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let is_map = name.ends_with(".index.json") || name == "param_name_map.json";
        if is_directory || is_map || !SMALL.contains(&ending) {
            continue;
        }
        let mut bytes = ReadFile::open(&directory.join(&name))?.read_all(SMALL_BYTES_MAX)?;
        if name == CONFIG
            && let Ok(mut config) = serde_json::from_slice::<Map<String, Value>>(&bytes)
        {
            let mut changed = config.remove(QUANTISED).is_some();
            for key in ["torch_dtype", "dtype"] {
                if let (Some(value), Some(name)) = (config.get_mut(key), cast.and_then(torch_name))
                {
                    *value = name.into();
                    changed = true;
                }
            }
            if changed {
                bytes = serde_json::to_vec_pretty(&config).unwrap_or(bytes);
            }
        }
        files.push((name, bytes));
    }
    Ok(files)
}

/// How a config.json calls a type that weights are cast to.
fn torch_name(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::BF16 => Some("bfloat16"),
        Dtype::F16 => Some("float16"),
        Dtype::F32 => Some("float32"),
        _ => None,
    }
}
