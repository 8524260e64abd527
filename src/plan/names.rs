//! Maps of names: each of their names is meant, so one that fits nothing is an error.

use crate::fault::{Fault, Kind, Result, nearest};
use crate::plan::inventory::Inventory;
use crate::plan::select::Select;
use crate::plan::state::STATES;
use crate::store::formats::COUNT_NAMES;
use crate::strategy::Strategy;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Select {
    /// Its maps with what they mean for the states of the tensors that they have.
    ///
    /// # Errors
    /// As [`check_map`].
    pub(crate) fn followed(
        &self,
        inventory: &Inventory,
        destination: Option<&Strategy>,
    ) -> Result<Select> {
        check_map(self, inventory, destination)?;
        let there =
            |name: &str| inventory.tensors.contains_key(name) || inventory.private.contains(name);
        Ok(Select {
            written: followed(&self.written, |own, _| there(own)),
            read: followed(&self.read, |_, read| there(read) && !is_read(self, read)),
            ..self.clone()
        })
    }
}

/// `map` with an entry for each state of its names that it doesn't have itself and of which, by its two
/// names, there is one: a state goes where its tensor goes.
pub(crate) fn followed(
    map: &BTreeMap<String, String>,
    there: impl Fn(&str, &str) -> bool,
) -> BTreeMap<String, String> {
    let mut all = map.clone();
    for (key, value) in map {
        for state in STATES {
            let [key, value] = [key, value].map(|name| format!("{state}{name}"));
            if there(&key, &value) {
                all.entry(key).or_insert(value);
            }
        }
    }
    all
}

/// Checks that no tensor gets a name that a trainer counts under, unless it may be a count.
///
/// # Errors
/// [`Kind::Ambiguous`] naming both.
pub(crate) fn check_count(name: &str, written: &str, shape: &Shape) -> Result<()> {
    let single = shape.0.iter().all(|size| *size == 1);
    if name == written || single || !COUNT_NAMES.contains(&written) {
        return Ok(());
    }
    let message = format!(
        "--name-map gives '{name}' of {shape} this name, under which a trainer keeps a count"
    );
    Err(Fault::new(Kind::Ambiguous, message)
        .tensor(written)
        .hint("give it another name"))
}

/// Checks that every name that `select` maps is one of the source, and every name that it asks for one
/// of the destination; and that none becomes a count's.
///
/// # Errors
/// [`Kind::UnknownTensor`] naming the first that isn't; as [`check_count`].
fn check_map(select: &Select, inventory: &Inventory, destination: Option<&Strategy>) -> Result<()> {
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
    let read = select.read.iter().map(|(written, read)| (read, written));
    for (name, written) in select.written.iter().chain(read) {
        if let Some(tensor) = inventory.tensors.get(name.as_str()) {
            check_count(name, written, &tensor.shape)?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_go_where_their_tensors_go() {
        let map = [("w", "v"), ("adam_m.x", "mine")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let names = ["adam_m.w", "adam_v.w"];
        let all = followed(&map.clone().into(), |key, _| names.contains(&key));
        let all: Vec<(&str, &str)> = all.iter().map(|(key, value)| (&**key, &**value)).collect();
        let due = [
            ("adam_m.w", "adam_m.v"),
            ("adam_m.x", "mine"),
            ("adam_v.w", "adam_v.v"),
            ("w", "v"),
        ];
        assert_eq!(all, due);
        // What was said of a state itself counts.
        let said = BTreeMap::from(
            [("w", "v"), ("adam_m.w", "own")]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        assert_eq!(
            followed(&said, |key, _| names.contains(&key))["adam_m.w"],
            "own"
        );
    }
}
