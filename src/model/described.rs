//! A model as the files of its directory describe it.

use super::bounds::check_size;
use crate::fault::{Fault, Kind, Result};
use crate::model::detect::find_family;
use crate::model::expression::Numbers;
use crate::model::family::Family;
use crate::store::cache::refuse_cache;
use crate::store::io::{self, Standing};
use crate::store::json;
use crate::store::rank_dir::rank_of;
use serde_json::{Map, Value};
use std::path::Path;

/// Largest of the small files of a model: tokenizers have tens of MB.
pub(super) const SMALL_BYTES_MAX: u64 = 128 << 20;
pub use crate::store::full_dir::CONFIG;

/// The directory of a model that is given by it, or by its config.json.
#[must_use]
pub fn directory_of(model: &Path) -> &Path {
    match model.parent() {
        Some(parent) if model.ends_with(CONFIG) => match parent.as_os_str().is_empty() {
            true => Path::new("."),
            false => parent,
        },
        _ => model,
    }
}

/// The table and the numbers of the model that `directory` describes: those of `table`, or of the
/// family called `name` (`auto`: what its config.json says). Local.
///
/// # Errors
/// [`Kind::Io`] and [`Kind::Corrupt`] for a config.json that can't be read, [`Kind::Unsupported`]
/// and [`Kind::Usage`] for a family that isn't known.
pub fn described(directory: &Path, name: &str, table: Option<Family>) -> Result<(Family, Numbers)> {
    let path = directory.join(CONFIG);
    refuse_no_model(directory)?;
    let config: Map<String, Value> = json::read(&path, SMALL_BYTES_MAX, "JSON object")?;
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

/// Refuses a path that is no model's directory, saying which is meant.
fn refuse_no_model(directory: &Path) -> Result<()> {
    let fault =
        |kind, message: &str| Err(Fault::new(kind, message).file(directory.display().to_string()));
    match io::standing(directory)? {
        Standing::Nothing => {
            let text = directory.display().to_string();
            let home = text.starts_with('~');
            fault(Kind::Io, "there is no such directory").map_err(|fault| {
                fault.hint(match home {
                    true => "the shell puts your home in the place of ~ only where it isn't quoted",
                    false => {
                        "nothing is downloaded: give the directory that a model was downloaded to"
                    }
                })
            })
        }
        Standing::File => {
            fault(Kind::Io, "is a file; the directory of a model is meant").map_err(|fault| {
                let parent = directory
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.map_or(".".into(), |parent| parent.display().to_string());
                let is_text = directory.extension().is_some_and(|ending| ending == "json");
                fault.hint(match is_text {
                    true => format!("give a directory that has it as {CONFIG}"),
                    false => {
                        format!("give the directory that has the model's config.json, as {parent}")
                    }
                })
            })
        }
        Standing::EmptyDirectory => fault(Kind::MissingShard, "is an empty directory"),
        Standing::Directory if io::standing(&directory.join(CONFIG))? == Standing::Nothing => {
            json::refuse_dangling(&directory.join(CONFIG))?;
            refuse_cache(directory)?;
            fault(Kind::MissingShard, "has no config.json")
                .map_err(|fault| fault.hint(otherwise(directory)))
        }
        Standing::Directory => Ok(()),
    }
}

/// What a directory without a config.json may be.
fn otherwise(directory: &Path) -> &'static str {
    let names = io::list(directory).unwrap_or_default();
    let has = |test: &dyn Fn(&str) -> bool| names.iter().any(|(name, _)| test(name));
    if has(&|name| rank_of(name).is_some()) {
        return "it has directories of ranks, which reshard, unify and export take with --src-strategy";
    }
    if has(&|name| name == "adapter_config.json") {
        return "it is an adapter: give the model that it was trained for, and this with --lora";
    }
    if has(&|name| name.contains("strategy")) {
        return "it has strategies: a Hugging Face model's directory is meant, with its config.json";
    }
    "is it a Hugging Face model's directory? Where one was renamed or merged, copy the config.json of its model there"
}
