//! What a source has beside tensors: said once, for it stays behind where only tensors are written.

use crate::catalog::Catalog;
use crate::fault::plain::{counted, first};
use std::collections::BTreeSet;

/// Names told of many.
const TOLD: usize = 3;

/// What is to be said of values that are no tensors.
pub(super) fn left(catalog: &Catalog) -> Option<String> {
    let schemas = catalog.distinct_schemas();
    let names = schemas.flat_map(|(_, schema)| schema.held.values.keys());
    let names: Vec<&String> = names.collect::<BTreeSet<_>>().into_iter().collect();
    if names.is_empty() {
        return None;
    }
    let (what, verb) = match names.len() {
        1 => ("is no tensor", "stays"),
        _ => ("are no tensors", "stay"),
    };
    Some(format!(
        "{} ({}) {what} and {verb} behind; inspect shows what is there",
        counted(names.len() as u64, "value"),
        first(&names, TOLD)
    ))
}
