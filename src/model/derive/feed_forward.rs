//! The inner size of a feed forward that is given by a factor and a multiple.

use serde_json::{Map, Number, Value};

/// The inner size, if the keys that it follows from are there: two thirds of four times the hidden size,
/// times `ffn_dim_multiplier`, rounded up to a multiple of `multiple_of`.
pub(super) fn inner_size(config: &Map<String, Value>) -> Option<u64> {
    let hidden = config.get("hidden_size")?.as_u64()?.checked_mul(4)?;
    let multiple = config.get("multiple_of")?.as_u64().filter(|n| *n > 0)?;
    let factor = config.get("ffn_dim_multiplier").and_then(Value::as_number);
    let scaled = match factor.and_then(Number::as_f64) {
        Some(factor) => whole((factor + 0.01) * to_float(hidden)?)?,
        None => hidden,
    };
    let inner = scaled.checked_mul(2)? / 3;
    inner.div_ceil(multiple).checked_mul(multiple)
}

fn to_float(value: u64) -> Option<f64> {
    u32::try_from(value).ok().map(f64::from)
}

/// The whole number below `value`.
fn whole(value: f64) -> Option<u64> {
    let text = format!("{:.0}", value.floor());
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_sizes_of_published_models() {
        for (config, size) in [
            (
                serde_json::json!({"hidden_size": 4096, "multiple_of": 256}),
                11008,
            ),
            (
                serde_json::json!({"hidden_size": 5120, "multiple_of": 256}),
                13824,
            ),
            (
                serde_json::json!({"hidden_size": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3}),
                28672,
            ),
        ] {
            assert_eq!(inner_size(config.as_object().unwrap()), Some(size));
        }
    }
}
