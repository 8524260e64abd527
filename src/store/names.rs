//! Names of tensors: which can be written.

use crate::fault::{Fault, Kind, Result};
use std::collections::HashSet;

/// The key of a safetensors header that is no tensor.
pub const RESERVED: &str = "__metadata__";

fn reserved() -> Fault {
    let message = "can't be a tensor's name: safetensors files keep their metadata under it";
    Fault::new(Kind::Unsupported, message)
        .tensor(RESERVED)
        .hint("--name-map gives a tensor another name")
}

/// Checks the names that are to be written into one place.
///
/// # Errors
/// [`Kind::Ambiguous`] for one that two tensors have, [`Kind::Unsupported`] for one that no tensor can
/// have.
pub fn check<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        if name == RESERVED {
            return Err(reserved());
        }
        if !seen.insert(name) {
            let message = "two tensors would be written under this name";
            return Err(Fault::new(Kind::Ambiguous, message)
                .tensor(name)
                .hint("does --name-map give a tensor the name of another one?"));
        }
    }
    Ok(())
}
