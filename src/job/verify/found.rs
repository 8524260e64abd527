//! The manifest that a node finds.

use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::BadFile;
use crate::source::nothing::absent;
use crate::source::pattern::is_one as is_pattern;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::{self, Manifest};
use std::path::Path;

/// What a node finds at a directory.
pub(in crate::job) enum Found {
    Nothing,
    Damaged(String),
    Manifest(Box<Manifest>),
}

/// The manifest that this process's node sees at `directory`. Local.
pub(in crate::job) fn look(directory: &Path) -> Result<Found> {
    if io::standing(directory)? == Standing::File {
        // A pipe or a device is called one.
        ReadFile::open(directory)?;
    }
    match Manifest::read(directory) {
        Ok(None) => Ok(Found::Nothing),
        Ok(Some(manifest)) => Ok(Found::Manifest(Box::new(manifest))),
        Err(fault) if fault.kind == Kind::Corrupt => Ok(Found::Damaged(fault.message)),
        Err(fault) => Err(fault),
    }
}

pub(in crate::job) fn no_manifest(directory: &Path) -> Fault {
    if is_pattern(directory) {
        let message = "is a pattern of files; a directory is verified, by its manifest";
        return Fault::new(Kind::Usage, message)
            .file(directory.display().to_string())
            .hint("`diff` compares any two checkpoints");
    }
    if io::standing(directory).ok() == Some(Standing::Nothing) {
        return absent(directory);
    }
    Fault::new(Kind::Unsupported, "has no manifest to verify it by")
        .file(directory.join(manifest::NAME).display().to_string())
        .hint("it is in what this program has written; `diff` compares any two checkpoints")
}

pub(in crate::job) fn damaged(reason: String) -> BadFile {
    of_manifest(format!(
        "{reason}; it can't be made anew from the files: take it from a copy of this directory (--repair --from COPY), or \
         compare the weights with another checkpoint (`diff`), and write them anew from what is sound"
    ))
}

/// What is said of the manifest itself.
pub(in crate::job) fn of_manifest(reason: String) -> BadFile {
    BadFile {
        file: manifest::NAME.into(),
        tensor: None,
        reason,
    }
}
