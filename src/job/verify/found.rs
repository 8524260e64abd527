//! The manifest that a node finds.

use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::BadFile;
use crate::source::nothing::absent;
use crate::source::pattern::is_one as is_pattern;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::{self, Manifest};
use std::path::{Path, PathBuf};

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
        return Ok(Found::Nothing);
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
    if let Some(above) = above(directory) {
        let message = "has no manifest of its own: it is a part of what another verifies";
        return Fault::new(Kind::Unsupported, message)
            .file(directory.display().to_string())
            .hint(format!("give {}, whose manifest has it", above.display()));
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

/// The directory above, at most two steps up, whose manifest has files in `path`, or that file. Local.
fn above(path: &Path) -> Option<PathBuf> {
    let path = io::resolve(path).ok()?;
    let above = path.ancestors().skip(1).take(2).find(|above| {
        let inside = path.strip_prefix(above).unwrap_or(&path);
        let manifest = Manifest::read(above).ok().flatten();
        let mut files = manifest.iter().flat_map(|manifest| &manifest.files);
        files.any(|file| Path::new(&file.path).starts_with(inside))
    });
    above.map(Path::to_path_buf)
}
