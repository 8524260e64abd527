//! A model as the files of its directory describe it.

use super::bounds::check_size;
use crate::fault::{Fault, Kind, Result};
use crate::model::detect::find_family;
use crate::model::expression::Numbers;
use crate::model::family::Family;
use crate::store::io::{self, Standing};
use crate::store::json;
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
                fault.hint(format!(
                    "give {parent}, with --weights to say which of its files is meant"
                ))
            })
        }
        Standing::EmptyDirectory => fault(Kind::MissingShard, "is an empty directory"),
        Standing::Directory if io::standing(&directory.join(CONFIG))? == Standing::Nothing => {
            json::refuse_dangling(&directory.join(CONFIG))?;
            match snapshot(directory)? {
                Some(snapshot) => fault(
                    Kind::MissingShard,
                    "is a model's place in a cache, with a directory for each revision",
                )
                .map_err(|fault| fault.hint(format!("give {snapshot}"))),
                None => fault(Kind::MissingShard, "has no config.json")
                    .map_err(|fault| fault.hint("is it a Hugging Face model's directory?")),
            }
        }
        Standing::Directory => Ok(()),
    }
}

/// The revision to take of a model in a cache of Hugging Face's: that of `refs/main`, or the only one.
fn snapshot(directory: &Path) -> Result<Option<String>> {
    let snapshots = match directory.file_name() {
        Some(name) if name == "snapshots" => directory.to_path_buf(),
        _ => directory.join("snapshots"),
    };
    if io::standing(&snapshots)? != Standing::Directory {
        return Ok(None);
    }
    let main = snapshots
        .parent()
        .unwrap_or(Path::new(""))
        .join("refs/main");
    let named = match io::size(&main)? {
        Some(_) => String::from_utf8(json::bytes(&main, 1 << 10)?).ok(),
        None => None,
    };
    let names = io::list(&snapshots)?;
    let is_there = |wanted: &str| {
        names
            .iter()
            .any(|(name, directory)| *directory && name == wanted)
    };
    let named = named.map(|name| name.trim().to_owned());
    let found = named.filter(|name| is_there(name)).or_else(|| {
        let mut directories = names.iter().filter(|(_, directory)| *directory);
        let first = directories.next().map(|(name, _)| name.clone());
        first.filter(|_| directories.next().is_none())
    });
    Ok(found.map(|name| snapshots.join(name).display().to_string()))
}
