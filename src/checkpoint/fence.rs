//! What may be removed: files of the surveyed tree itself, not what a link in it leads to.

use crate::fault::{Fault, Kind, Result};
use crate::source::saved::Survey;
use crate::store::io::{self, Standing};
use std::collections::BTreeSet;
use std::path::Path;

/// Checks that the directories of `files`, paths inside the surveyed directory, are its own or stand
/// beside it, through no link. Local.
///
/// # Errors
/// [`Kind::Unsupported`] naming the first that a link leads out of; [`Kind::Io`].
pub(super) fn check<'a>(survey: &Survey, files: impl Iterator<Item = &'a String>) -> Result<()> {
    let rooms: BTreeSet<&Path> = files.filter_map(|file| Path::new(file).parent()).collect();
    let base = match io::standing(&survey.directory)? {
        Standing::Nothing => return Ok(()),
        _ => io::resolve(&survey.directory)?,
    };
    for room in rooms {
        let path = survey.directory.join(room);
        if io::standing(&path)? == Standing::Nothing {
            continue;
        }
        let expected = match room.strip_prefix("..") {
            Ok(beside) => base.parent().unwrap_or(&base).join(beside),
            Err(_) => base.join(room),
        };
        let found = io::resolve(&path)?;
        if found != expected {
            let message = format!(
                "is reached through a link, from {}: nothing is removed",
                path.display()
            );
            return Err(Fault::new(Kind::Unsupported, message)
                .file(found.display().to_string())
                .hint(
                    "prune follows no link out of its directory; remove the link, or prune there",
                ));
        }
    }
    Ok(())
}
