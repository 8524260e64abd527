//! What a config.json says of weights in 8 bits.

use super::expression::Numbers;
use crate::fault::{Fault, Kind, Result};
use serde_json::Value;

/// Key of config.json that says how weights are quantised.
pub const QUANTISED: &str = "quantization_config";
/// The same, as compressed-tensors has it.
pub(super) const COMPRESSED: &str = "compression_config";
/// The one method whose weights can be read: 8-bit floats with a scale a block.
pub(super) const METHOD: &str = "fp8";
/// The key that says what a block is: `[rows, columns]`.
pub(super) const BLOCK: &str = "weight_block_size";

/// Whether bitsandbytes' keys say that weights are quantised; none if there is none of them.
fn keyed(config: &Value) -> Option<bool> {
    let keys = ["load_in_4bit", "load_in_8bit"].into_iter();
    let told = keys.filter_map(|key| config.get(key)?.as_bool());
    told.reduce(|four, eight| four || eight)
}

/// Whether it says that nothing is quantised.
fn says_nothing(config: &Value) -> bool {
    let Some(keys) = config.as_object() else {
        return config.is_null();
    };
    let method = keys.get("quant_method").and_then(Value::as_str);
    let own = method.is_none_or(|method| method == "bitsandbytes");
    keys.is_empty() || own && keyed(config) == Some(false)
}

/// Rows and columns of the blocks that share a scale, if config.json speaks of any.
///
/// # Errors
/// [`Kind::Unsupported`] for another way to quantise, [`Kind::Corrupt`] if blocks are no two numbers.
pub fn quantised_block(numbers: &Numbers) -> Result<Option<[u64; 2]>> {
    let told = numbers.raw(QUANTISED);
    let Some(config) = told.filter(|config| !says_nothing(config)) else {
        return Ok(None);
    };
    let method = config.get("quant_method").and_then(Value::as_str);
    if method.is_none_or(|method| method != METHOD) {
        let method = method.unwrap_or(match keyed(config) {
            Some(_) => "bitsandbytes",
            None => "something unnamed",
        });
        let message = format!("{QUANTISED}: weights are quantised by {method}");
        return Err(Fault::new(Kind::Unsupported, message)
            .hint("only 'fp8', floats of 8 bits with a scale a block, can be read"));
    }
    let Some(block) = config.get(BLOCK).filter(|block| !block.is_null()) else {
        let message =
            format!("{QUANTISED}: weights of 8 bits with a scale a tensor, or a row (no {BLOCK})");
        return Err(Fault::new(Kind::Unsupported, message)
            .hint("only 'fp8', floats of 8 bits with a scale a block, can be read"));
    };
    let block = block.as_array();
    let block: Vec<u64> = block
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect();
    match block[..] {
        [rows, columns] if rows > 0 && columns > 0 => Ok(Some([rows, columns])),
        _ => {
            let message = format!("{QUANTISED}.{BLOCK} is no pair of numbers above 0");
            Err(Fault::new(Kind::Corrupt, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn tells_what_is_quantised_and_by_what() {
        let of = |config: Value| {
            let config = serde_json::json!({ QUANTISED: config });
            let config = config.as_object().cloned().unwrap_or_default();
            let block = quantised_block(&Numbers::new(&BTreeMap::new(), &config));
            block.map_err(|fault| fault.message)
        };
        for nothing in [
            serde_json::json!(null),
            serde_json::json!({}),
            serde_json::json!({"load_in_4bit": false, "load_in_8bit": false}),
            serde_json::json!({"quant_method": "bitsandbytes", "load_in_8bit": false}),
        ] {
            assert_eq!(of(nothing.clone()), Ok(None), "{nothing}");
        }
        let block = serde_json::json!({"quant_method": "fp8", "weight_block_size": [128, 64]});
        assert_eq!(of(block), Ok(Some([128, 64])));
        for (config, what) in [
            (
                serde_json::json!({"load_in_4bit": true, "load_in_8bit": false}),
                "bitsandbytes",
            ),
            (
                serde_json::json!({"quant_method": "gptq", "load_in_4bit": false}),
                "gptq",
            ),
            (serde_json::json!({"bits": 4}), "unnamed"),
        ] {
            let told = of(config).unwrap_err();
            assert!(told.contains(what), "{told}");
        }
    }
}
