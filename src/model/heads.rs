//! The head counts that fused and permuted tensors were made for: recorded on import, compared on
//! export. Other counts of the same product give the same shapes, and other rows.

use super::described::{CONFIG, described};
use super::expression::Numbers;
use crate::fault::{Fault, Kind, Result};
use crate::job::metadata::OWN_KEYS;
use std::collections::BTreeMap;
use std::path::Path;

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

/// Compares the model at `model` (its directory, or its config.json) with what the weights that it is to lay out were
/// made for: what files record, and the config.json `beside` them. A model that isn't understood is told of elsewhere.
/// Local.
///
/// # Errors
/// As [`check`], naming the file.
pub(crate) fn check_heads(
    model: &Path,
    recorded: &BTreeMap<String, String>,
    beside: Option<&Path>,
) -> Result<()> {
    let Some(numbers) = numbers(model) else {
        return Ok(());
    };
    let at = |fault: Fault| fault.file(model.display().to_string());
    check(&numbers, recorded).map_err(|fault| {
        at(Fault {
            hint: None,
            ..fault
        })
        .hint(OWN)
    })?;
    let Some((beside, others)) = beside.and_then(|beside| Some((beside, self::numbers(beside)?)))
    else {
        return Ok(());
    };
    for name in GROUPING {
        let (Ok(own), Ok(other)) = (numbers.value(name), others.value(name)) else {
            continue;
        };
        if own != other {
            let message = format!(
                "gives {name} = {own}, and {} beside the weights {other}, with which their rows lie in another order",
                beside.display()
            );
            return Err(at(Fault::new(Kind::Differs, message)).hint(OWN));
        }
    }
    Ok(())
}

/// What to do about another model's description.
const OWN: &str = "--model: the config.json of the model whose weights these are";

/// The numbers of the model at `model`.
fn numbers(model: &Path) -> Option<Numbers> {
    let directory = match model.ends_with(CONFIG) {
        true => model.parent()?,
        false => model,
    };
    described(directory, "auto", None)
        .ok()
        .map(|(_, numbers)| numbers)
}
