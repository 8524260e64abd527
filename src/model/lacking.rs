//! Whether Hugging Face weights are whole, for those who leave them as they are.

use super::import::Import;
use super::quantised::quantised_block;
use super::wrapped::READS;
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use std::path::Path;

/// Refuses the weights in `directory`, of which these are the tensors, if they lack one that their family has by
/// config.json. Of a family that isn't known, and of weights in 8 bits, nothing is said. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the tensor; [`Kind::UnknownTensor`] if all names begin otherwise than the family's.
pub fn refuse_lacking(directory: &Path, inventory: &Inventory) -> Result<()> {
    let Ok(import) = Import::usual(directory) else {
        return Ok(());
    };
    if !matches!(quantised_block(&import.numbers), Ok(None)) {
        return Ok(());
    }
    let import = Import {
        allow_extra: true,
        ..import
    };
    const RANDOM: &str = "a trainer would go on with random values in its place";
    match import.view(inventory) {
        Err(fault) if fault.kind == Kind::MissingShard => Err(Fault {
            hint: Some(format!(
                "{RANDOM}: is it this model's config.json, and are all of its files there?"
            )),
            ..fault
        }),
        // Names that begin otherwise.
        Err(fault) if fault.kind == Kind::UnknownTensor => {
            let hint = fault.hint.unwrap_or_default();
            let flags = hint.trim_end_matches(READS);
            Err(Fault {
                hint: Some(format!(
                    "{RANDOM}; `shardloom import {flags}` writes what a trainer reads"
                )),
                ..fault
            })
        }
        _ => Ok(()),
    }
}
