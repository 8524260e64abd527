//! Models in a cache of Hugging Face's: `models--OWNER--NAME/snapshots/REVISION`, whose files are links to `blobs`.

use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, Standing};
use crate::store::{Format, json};
use std::path::Path;

/// Beginning of the name of a model's place.
const MODEL: &str = "models--";

/// Refuses a directory that is a model's place in a cache, or a cache of models, and says which is to be given.
/// Local.
///
/// # Errors
/// [`Kind::MissingShard`]; [`Kind::Io`].
pub(crate) fn refuse_cache(directory: &Path) -> Result<()> {
    let fault = |message: &str, given: String| {
        Err(Fault::new(Kind::MissingShard, message)
            .file(directory.display().to_string())
            .hint(format!("give {given}")))
    };
    if !matches!(io::standing(directory)?, Standing::Directory) {
        return Ok(());
    }
    if let Some(snapshot) = snapshot(directory)? {
        let message = "is a model's place in a cache, with a directory for each revision";
        return fault(message, snapshot);
    }
    let names = io::list(directory)?;
    let mut models = names
        .iter()
        .filter(|(name, is_directory)| *is_directory && name.starts_with(MODEL));
    let Some((first, _)) = models.next() else {
        return Ok(());
    };
    let place = directory.join(first);
    let given = snapshot(&place)?.unwrap_or_else(|| place.display().to_string());
    let given = match models.count() {
        0 => given,
        _ => format!("one of them, as {given}"),
    };
    fault("is a cache of models", given)
}

/// What to give of a model in a cache of Hugging Face's: the revision of `refs/main`, or the only one, or one of several.
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
    let place = |name: String| snapshots.join(name).display().to_string();
    if let Some(main) = named.filter(|name| is_there(name)) {
        return Ok(Some(place(main)));
    }
    let directories = names.iter().filter(|(_, directory)| *directory);
    let directories: Vec<&String> = directories.map(|(name, _)| name).collect();
    // Some of them have small files alone.
    let has_weights = |name: &&&String| {
        let inside = io::list(&snapshots.join(name)).unwrap_or_default();
        inside.iter().any(|(file, _)| Format::of(file).is_some())
    };
    let whole = directories.iter().find(has_weights);
    let first = whole
        .or(directories.first())
        .map(|name| place((*name).clone()));
    Ok(first.map(|first| match directories.len() {
        1 => first,
        _ => format!("one of its revisions, as {first}"),
    }))
}
