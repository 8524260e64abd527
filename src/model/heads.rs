//! The head counts that fused and permuted tensors were made for: recorded on import, compared on
//! export. Other counts of the same product give the same shapes, and other rows.

use super::described::{described, directory_of};
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

/// A number of a model that weights were not made for.
struct Other {
    name: &'static str,
    asked: u64,
    recorded: u64,
}

/// The first of a model's numbers that is another in what is `recorded`.
///
/// # Errors
/// [`Kind::Corrupt`] for a value that is never written.
fn other(numbers: &Numbers, recorded: &BTreeMap<String, String>) -> Result<Option<Other>> {
    for name in GROUPING {
        let Some(text) = recorded.get(&key(name)) else {
            continue;
        };
        let recorded: u64 = text.parse().map_err(|_| {
            let message = format!("metadata '{}' is '{text}', no whole number", key(name));
            Fault::new(Kind::Corrupt, message)
        })?;
        match numbers.value(name) {
            Ok(asked) if asked != recorded => {
                return Ok(Some(Other {
                    name,
                    asked,
                    recorded,
                }));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn differs(other: &Other) -> Fault {
    let Other {
        name,
        asked,
        recorded,
    } = other;
    let message = format!(
        "the weights were made for {name} = {recorded}, as their metadata '{}' says; config.json \
         gives {asked}, with which their rows would be taken in another order",
        key(name)
    );
    Fault::new(Kind::Differs, message)
}

/// Compares what files record with a model's numbers.
///
/// # Errors
/// [`Kind::Differs`], [`Kind::Corrupt`] for a value that is never written.
pub(super) fn check(numbers: &Numbers, metadata: &BTreeMap<String, String>) -> Result<()> {
    other(numbers, metadata)?.map_or(Ok(()), |other| {
        Err(differs(&other).hint("--hf-config: the config.json of the model that was imported"))
    })
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
    let numbers = |model: &Path| {
        let described = described(directory_of(model), "auto", None);
        described.ok().map(|(_, numbers)| numbers)
    };
    let Some(own) = numbers(model) else {
        return Ok(());
    };
    let at = |fault: Fault| fault.file(model.display().to_string()).hint(OWN);
    if let Some(other) = other(&own, recorded).map_err(at)? {
        return Err(at(differs(&other)));
    }
    let Some((beside, others)) = beside.and_then(|beside| Some((beside, numbers(beside)?))) else {
        return Ok(());
    };
    let Some(Other {
        name,
        asked,
        recorded,
    }) = other(&own, &metadata(&others))?
    else {
        return Ok(());
    };
    let message = format!(
        "gives {name} = {asked}, and {} beside the weights {recorded}, with which their rows lie in another order",
        beside.display()
    );
    Err(at(Fault::new(Kind::Differs, message)))
}

/// What to do about another model's description.
const OWN: &str = "--model: the config.json of the model whose weights these are";
