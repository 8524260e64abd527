//! Objects of a pickle whose state is a mapping of their fields.

use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle::{Node, Pickle, Value};

/// The module of the metadata's classes.
pub(super) const METADATA: &str = "torch.distributed.checkpoint.metadata";
/// The module of the file system's classes.
pub(super) const FILES: &str = "torch.distributed.checkpoint.filesystem";

/// The fields of the object that `value` is, of class `class` in `module`; of `known` ones, in that order.
///
/// # Errors
/// [`Kind::Corrupt`] if it is something else, or has a field that such an object doesn't have.
pub(super) fn fields<const N: usize>(
    pickle: &Pickle<'_>,
    value: Value,
    (module, class): (&str, &str),
    known: [&str; N],
) -> Result<[Option<Value>; N]> {
    let other =
        |what: &str| Fault::new(Kind::Corrupt, format!("has {what} where a {class} is due"));
    let Some((of, name, made)) = pickle.made(value) else {
        return Err(other("something else"));
    };
    if (of, name) != (module, class) {
        return Err(other(&format!("{of}.{name}")));
    }
    let mut found = [None; N];
    let Some(state) = made.state else {
        return Ok(found);
    };
    let Node::Dict(items) = pickle.node(state) else {
        return Err(other("another kind of state"));
    };
    for pair in items.chunks_exact(2) {
        let key = pickle.text(pair[0]).unwrap_or_default();
        let position = known.iter().position(|known| *known == key);
        let Some(position) = position else {
            let key: String = key.chars().take(60).collect();
            let message = format!(
                "has a {class} with the field '{}', which there isn't",
                key.escape_default()
            );
            return Err(Fault::new(Kind::Corrupt, message));
        };
        if found[position].replace(pair[1]).is_some() {
            return Err(Fault::new(
                Kind::Corrupt,
                format!("has a {class} with the field '{key}' twice"),
            ));
        }
    }
    Ok(found)
}

/// A field that must be there.
///
/// # Errors
/// [`Kind::Corrupt`] naming it.
pub(super) fn due<T>(field: Option<T>, name: &str) -> Result<T> {
    field.ok_or_else(|| {
        Fault::new(
            Kind::Corrupt,
            format!("lacks a {name}, or it isn't what it should be"),
        )
    })
}
