//! A model as the files of its directory describe it.

use super::bounds::check_size;
use crate::fault::{Fault, Kind, Result};
use crate::model::detect::find_family;
use crate::model::expression::Numbers;
use crate::model::family::Family;
use crate::store::io::ReadFile;
use serde_json::{Map, Value};
use std::path::Path;

/// Largest of the small files of a model: tokenizers have tens of MB.
pub(super) const SMALL_BYTES_MAX: u64 = 128 << 20;
/// The file that describes a model.
pub const CONFIG: &str = "config.json";

/// The table and the numbers of the model that `directory` describes: those of `table`, or of the
/// family called `name` (`auto`: what its config.json says). Local.
///
/// # Errors
/// [`Kind::Io`] and [`Kind::Corrupt`] for a config.json that can't be read, [`Kind::Unsupported`]
/// and [`Kind::Usage`] for a family that isn't known.
pub fn described(directory: &Path, name: &str, table: Option<Family>) -> Result<(Family, Numbers)> {
    let path = directory.join(CONFIG);
    let bytes = ReadFile::open(&path)?.read_all(SMALL_BYTES_MAX)?;
    let config: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|error| {
        let fault = Fault::new(Kind::Corrupt, format!("is no JSON object: {error}"));
        fault.file(path.display().to_string())
    })?;
    let family = match table {
        Some(table) => table,
        None => find_family(name, &config).map_err(|fault| match fault.kind {
            Kind::Usage => fault,
            _ => fault.file(path.display().to_string()),
        })?,
    };
    let numbers = Numbers::new(&family.numbers, &config);
    check_size(&family, &numbers).map_err(|fault| fault.file(path.display().to_string()))?;
    Ok((family, numbers))
}
