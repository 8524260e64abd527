//! The files of `--name-map`: names to names, or a family's table, as JSON or YAML.

use crate::config::based::is_yaml;
use crate::fault::{Fault, Kind, Result};
use crate::model::Family;
use crate::store::full_dir::MAP_BYTES_MAX;
use crate::store::json;
use crate::store::once::Once;
use serde_saphyr::DuplicateKeyPolicy;
use std::collections::BTreeMap;
use std::path::Path;

/// What to do about a map that can't be read.
const MEND: &str = "mend it in an editor: one line for each name, `name: new name`";

/// Reads a map of names: a flat object of texts. No map is an empty one.
///
/// # Errors
/// [`Kind::Corrupt`] if it isn't that, or gives two names the same one, or none; [`Kind::Io`].
pub(crate) fn name_map(path: Option<&Path>) -> Result<BTreeMap<String, String>> {
    let Some(path) = path else {
        return Ok(BTreeMap::new());
    };
    let corrupt =
        |message: String| Fault::new(Kind::Corrupt, message).file(path.display().to_string());
    let bytes = json::bytes(path, MAP_BYTES_MAX)?;
    let map: std::result::Result<Once<String>, String> = match is_yaml(path) {
        true => {
            let options =
                serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
            serde_saphyr::from_slice_with_options(&bytes, options).map_err(|error| {
                format!("is no YAML map of names to names: {}", first_line(&error))
            })
        }
        false => serde_json::from_slice(&bytes)
            .map_err(|error| format!("is no JSON map of names to names: {error}")),
    };
    let Once(map) = map.map_err(|message| corrupt(message).hint(MEND))?;
    let mut seen = BTreeMap::new();
    for (from, to) in &map {
        if to.is_empty() {
            return Err(corrupt(format!("gives '{from}' a name without letters")).hint(MEND));
        }
        if let Some(other) = seen.insert(to, from) {
            let message = format!("gives '{other}' and '{from}' the same name '{to}'");
            return Err(corrupt(message).hint(MEND));
        }
    }
    Ok(map)
}

/// Reads a family's table.
///
/// # Errors
/// [`Kind::Corrupt`] if it isn't of the form; [`Kind::Io`].
pub(crate) fn family_table(path: &Path) -> Result<Family> {
    let bytes = json::bytes(path, MAP_BYTES_MAX)?;
    let family = if is_yaml(path) {
        serde_saphyr::from_slice(&bytes)
            .map_err(|error| Family::not_of_the_form(first_line(&error)))
    } else {
        Family::parse(&bytes)
    };
    family.map_err(|fault| fault.file(path.display().to_string()))
}

/// An error's text without the picture of its place that follows.
fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("not readable").to_owned()
}
