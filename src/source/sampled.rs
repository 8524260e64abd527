//! The names of the tensors in one of the weight files at a path: how a checkpoint calls its tensors.

use crate::fault::Result;
use crate::source::listing::list;
use crate::store::Format;
use crate::store::io::ReadFile;
use std::path::Path;

/// The names in one of the files at `path`; none where this node sees no weights
/// that can be read. Local.
#[must_use]
pub fn some_names(path: &Path) -> Option<Vec<String>> {
    let listing = list(path, None, None).ok()?;
    let listed = listing.ranks.values().flatten().map(|file| &file.path);
    let offered = listing.offered.values().filter_map(|files| files.last());
    let first = offered.chain(listed).next()?;
    let base = match listing.single_file {
        true => path.parent().unwrap_or(Path::new("")),
        false => path,
    };
    names(&base.join(first)).ok()
}

fn names(path: &Path) -> Result<Vec<String>> {
    let file = ReadFile::open(path)?;
    let schema = Format::recognise(&file)?.read(&file)?;
    let entries = schema.entries.iter();
    Ok(entries.map(|entry| entry.name.to_string()).collect())
}
