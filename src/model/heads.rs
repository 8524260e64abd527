//! The head counts that fused and permuted tensors were made for: recorded on import, compared on
//! export. Other counts of the same product give the same shapes, and other rows.

use super::expression::Numbers;
use crate::fault::{Fault, Kind, Result};
use crate::job::metadata::OWN_KEYS;
use std::collections::BTreeMap;

/// The numbers of a family's table that say how rows are grouped.
const GROUPING: [&str; 6] = ["heads", "kv_heads", "head_dim", "nope", "rope", "value"];

fn key(name: &str) -> String {
    format!("{OWN_KEYS}{name}")
}

/// The metadata that records them, as far as a model has them.
pub(super) fn metadata(numbers: &Numbers) -> BTreeMap<String, String> {
    let known = GROUPING.iter().filter_map(|name| {
        let value = numbers.value(name).ok()?;
        Some((key(name), value.to_string()))
    });
    known.collect()
}

/// Compares what files record with a model's numbers.
///
/// # Errors
/// [`Kind::Differs`], [`Kind::Corrupt`] for a value that is never written.
pub(super) fn check(numbers: &Numbers, metadata: &BTreeMap<String, String>) -> Result<()> {
    for name in GROUPING {
        let Some(text) = metadata.get(&key(name)) else {
            continue;
        };
        let recorded: u64 = text.parse().map_err(|_| {
            let message = format!("metadata '{}' is '{text}', no whole number", key(name));
            Fault::new(Kind::Corrupt, message)
        })?;
        let Ok(asked) = numbers.value(name) else {
            continue;
        };
        if asked != recorded {
            let message = format!(
                "the weights were made for {name} = {recorded}, as their metadata '{}' says; config.json \
                 gives {asked}, with which their rows would be taken in another order",
                key(name)
            );
            return Err(Fault::new(Kind::Differs, message)
                .hint("--hf-config: the config.json of the model that was imported"));
        }
    }
    Ok(())
}
