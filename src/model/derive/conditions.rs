//! Whether a table's condition holds for a job.

use crate::model::expression::Numbers;
use serde_json::Value;

/// Whether all of the conditions hold that `&` joins: `key`, `key=word`, or either with `!` before it, which must not
/// hold. An empty text holds.
pub(super) fn hold(numbers: &Numbers, text: &str) -> bool {
    let mut terms = text.split('&').map(str::trim).filter(|t| !t.is_empty());
    terms.all(|term| match term.strip_prefix('!') {
        Some(term) => !holds(numbers, term),
        None => holds(numbers, term),
    })
}

fn holds(numbers: &Numbers, term: &str) -> bool {
    let Some((key, word)) = term.split_once('=') else {
        return is_set(numbers, term);
    };
    match numbers.raw(key) {
        Some(Value::String(text)) => text == word,
        Some(Value::Bool(set)) => set.to_string() == word,
        Some(Value::Number(number)) => number.to_string() == word,
        _ => false,
    }
}

/// Whether a key is true, not 0 and not empty.
fn is_set(numbers: &Numbers, key: &str) -> bool {
    match numbers.raw(key) {
        Some(Value::Object(map)) => !map.is_empty(),
        _ => numbers.holds(key),
    }
}
