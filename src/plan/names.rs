//! Maps of names: each of their names is meant, so one that fits nothing is an error.

use crate::fault::{Fault, Kind, Result, nearest};
use crate::plan::inventory::Inventory;
use crate::plan::select::Select;
use crate::strategy::Strategy;
use std::sync::Arc;

/// Checks that every name that `select` maps is one of the source, and every name that it asks for one
/// of the destination.
///
/// # Errors
/// [`Kind::UnknownTensor`] naming the first that isn't.
pub fn check_map(
    select: &Select,
    inventory: &Inventory,
    destination: Option<&Strategy>,
) -> Result<()> {
    let names = || {
        let cut = inventory.tensors.keys().map(|name| &**name);
        cut.chain(inventory.private.iter().map(|name| &**name))
    };
    let known = |name: &str| {
        inventory.tensors.contains_key(name) || inventory.private.iter().any(|own| &**own == name)
    };
    let read = select.written.keys().chain(select.read.values());
    check_each(read.map(String::as_str), known, "source", names)?;
    if let Some(strategy) = destination {
        let asked = select.read.keys().map(String::as_str);
        let known = |name: &str| !strategy.layouts(name).is_empty();
        let names = || strategy.names().map(|name| &**name);
        check_each(asked, known, "destination's strategy", names)?;
    }
    Ok(())
}

/// Checks that each of the `mapped` names is known to a side.
///
/// # Errors
/// [`Kind::UnknownTensor`] naming the first that isn't, and the nearest that are.
pub fn check_each<'a, 'n, Names: Iterator<Item = &'n str>>(
    mapped: impl Iterator<Item = &'a str>,
    known: impl Fn(&str) -> bool,
    side: &str,
    names: impl Fn() -> Names,
) -> Result<()> {
    let mut unknown = mapped.filter(|name| !known(name));
    let Some(first) = unknown.next() else {
        return Ok(());
    };
    let others = match unknown.count() {
        0 => String::new(),
        count => format!(" (nor {count} others of it)"),
    };
    let message = format!("--name-map has it, the {side} hasn't{others}");
    let near = nearest(first, names()).join(", ");
    let fault = Fault::new(Kind::UnknownTensor, message).tensor(first);
    Err(if near.is_empty() {
        fault.hint("take it out of the map")
    } else {
        fault.hint(format!("nearest there: {near}"))
    })
}

/// Whether a map reads the tensor `name`, under whatever name it is then written.
pub(super) fn is_read(select: &Select, name: &str) -> bool {
    select.read.values().any(|read| read == name)
}

/// The fault of two tensors that would get one name: what has it is made of `one`.
pub(super) fn collision(
    written: &str,
    mut one: impl Iterator<Item = Arc<str>>,
    other: &str,
) -> Fault {
    let one = one.next().unwrap_or_default();
    let message = format!("both '{one}' and '{other}' would be written under this name");
    Fault::new(Kind::Ambiguous, message)
        .tensor(written)
        .hint("--name-map must give each tensor a name of its own")
}
