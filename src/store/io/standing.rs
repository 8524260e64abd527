//! What stands at a path, seen without opening it.

use crate::fault::{Fault, Kind, Result};
use crate::store::io::gate::gate;
use crate::store::io::named::named;
use crate::store::io::trace;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Nothing,
    /// A directory without entries.
    EmptyDirectory,
    /// A directory with entries.
    Directory,
    /// Anything else.
    File,
}

/// Looks what stands at `path`, through symbolic links.
///
/// # Errors
/// [`Kind::Io`].
pub fn standing(path: &Path) -> Result<Standing> {
    let standing = glance(path)?;
    if standing != Standing::Directory {
        return Ok(standing);
    }
    let first = named("can't list", path, fs::read_dir(path))?.next();
    trace::listed(path);
    Ok(match first {
        None => Standing::EmptyDirectory,
        Some(_) => Standing::Directory,
    })
}

/// The same without looking into a directory: any is a [`Standing::Directory`].
///
/// # Errors
/// [`Kind::Io`].
pub fn glance(path: &Path) -> Result<Standing> {
    named("can't look at", path, gate())?;
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Standing::Nothing),
        Err(error) => named("can't look at", path, Err(error)),
        Ok(metadata) if metadata.is_dir() => Ok(Standing::Directory),
        Ok(_) => Ok(Standing::File),
    }
}

/// Size of the regular file at `path`, if there is one.
///
/// # Errors
/// [`Kind::Io`].
pub fn size(path: &Path) -> Result<Option<u64>> {
    Ok(stamp(path)?.map(|(size, _)| size))
}

/// Size and time of the last change, in nanoseconds, of the regular file at `path`, if there is one.
///
/// # Errors
/// [`Kind::Io`].
pub fn stamp(path: &Path) -> Result<Option<(u64, i128)>> {
    named("can't look at", path, gate())?;
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => named("can't look at", path, Err(error)),
        Ok(metadata) => {
            let time = i128::from(metadata.mtime()) * 1_000_000_000;
            let stamp = (metadata.len(), time + i128::from(metadata.mtime_nsec()));
            Ok(metadata.is_file().then_some(stamp))
        }
    }
}

/// The names in a directory, sorted, each with whether it is a directory (through links).
///
/// # Errors
/// [`Kind::Io`]; names that are no UTF-8 are refused.
pub fn list(path: &Path) -> Result<Vec<(String, bool)>> {
    named("can't list", path, gate())?;
    let mut names = Vec::new();
    let entries = named("can't list", path, fs::read_dir(path))?;
    trace::listed(path);
    for entry in entries {
        let entry = named("can't list", path, entry)?;
        let Ok(name) = entry.file_name().into_string() else {
            let message = format!(
                "has a name that is no UTF-8: {}",
                entry.file_name().display()
            );
            return Err(Fault::new(Kind::Io, message).file(path.display().to_string()));
        };
        // A dangling link is listed as a file; opening it will tell.
        let directory = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        names.push((name, directory));
    }
    names.sort();
    Ok(names)
}

/// The paths of what lies in directory `path` under names that begin so, sorted. Nothing else is looked at, and
/// no directory has none.
///
/// # Errors
/// [`Kind::Io`].
pub fn list_beginning(path: &Path, beginning: &OsStr) -> Result<Vec<PathBuf>> {
    named("can't list", path, gate())?;
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => named("can't list", path, entries)?,
    };
    trace::listed(path);
    let mut found = Vec::new();
    for entry in entries {
        let entry = named("can't list", path, entry)?;
        let name = entry.file_name();
        if name.as_bytes().starts_with(beginning.as_bytes()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The paths of all that is no directory below `path`, sorted; links are not followed.
///
/// # Errors
/// As [`list`].
pub fn list_files(path: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut left = vec![String::new()];
    while let Some(inside) = left.pop() {
        for (name, _) in list(&path.join(&inside))? {
            let name = if inside.is_empty() {
                name
            } else {
                format!("{inside}/{name}")
            };
            let full = path.join(&name);
            let metadata = named("can't look at", &full, fs::symlink_metadata(&full))?;
            if metadata.is_dir() {
                left.push(name);
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `path` with every link resolved.
///
/// # Errors
/// [`Kind::Io`].
pub fn resolve(path: &Path) -> Result<PathBuf> {
    named("can't resolve", path, gate())?;
    named("can't resolve", path, fs::canonicalize(path))
}

/// The numbers of what stands at `path`, of its file system and there, by which it is known under every name; none if
/// nothing does, or if it can't be told.
pub fn number(path: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::stat(path).ok()?;
    Some((found.st_dev, found.st_ino))
}

/// Where the link at `path` leads; none if no link is there.
///
/// # Errors
/// [`Kind::Io`].
pub fn link_target(path: &Path) -> Result<Option<PathBuf>> {
    named("can't look at", path, gate())?;
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(None)
        }
        Err(error) => named("can't look at", path, Err(error)),
    }
}
