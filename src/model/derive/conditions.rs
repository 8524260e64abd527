//! Whether a table's condition holds for a job.

use crate::model::expression::Numbers;
use serde_json::Value;

/// Whether all of the conditions hold that `&` joins: `key`, `!key` or `key=word`. An empty text holds.
pub(super) fn hold(numbers: &Numbers, text: &str) -> bool {
    let mut terms = text.split('&').map(str::trim).filter(|t| !t.is_empty());
    terms.all(|term| match term.split_once('=') {
        Some((key, word)) => match numbers.raw(key) {
            Some(Value::String(text)) => text == word,
            Some(Value::Bool(set)) => word == if *set { "true" } else { "false" },
            _ => false,
        },
        None => match term.strip_prefix('!') {
            Some(key) => !is_set(numbers, key),
            None => is_set(numbers, term),
        },
    })
}

/// Whether a key is true, not 0 and not empty.
fn is_set(numbers: &Numbers, key: &str) -> bool {
    match numbers.raw(key) {
        Some(Value::Object(map)) => !map.is_empty(),
        _ => numbers.holds(key),
    }
}
