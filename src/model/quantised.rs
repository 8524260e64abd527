//! What a config.json says of weights in 8 bits.

use super::expression::Numbers;
use crate::fault::{Fault, Kind, Result};
use serde_json::Value;

/// Key of config.json that says how weights are quantised.
pub const QUANTISED: &str = "quantization_config";
/// The one method whose weights can be read: 8-bit floats with a scale a block.
pub(super) const METHOD: &str = "fp8";
/// The key that says what a block is: `[rows, columns]`.
pub(super) const BLOCK: &str = "weight_block_size";

/// Rows and columns of the blocks that share a scale, if config.json speaks of any.
///
/// # Errors
/// [`Kind::Unsupported`] for another way to quantise, [`Kind::Corrupt`] if blocks are no two numbers.
pub fn quantised_block(numbers: &Numbers) -> Result<Option<[u64; 2]>> {
    let Some(config) = numbers.raw(QUANTISED).filter(|config| !config.is_null()) else {
        return Ok(None);
    };
    let method = config.get("quant_method").and_then(Value::as_str);
    if method.is_none_or(|method| method != METHOD) {
        let method = method.unwrap_or("something unnamed");
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
