//! What changes the names in a directory.

use crate::fault::{Fault, Kind, Result};
use crate::store::io::gate::gate;
use crate::store::io::named::named;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Gives a file a second name, which must not exist.
///
/// # Errors
/// [`Kind::Io`].
pub fn link(from: &Path, to: &Path) -> Result<()> {
    named("can't link", from, gate())?;
    let action = format!("can't link it to {}", to.display());
    named(&action, from, fs::hard_link(from, to))
}

/// Makes a directory and those above it.
///
/// # Errors
/// [`Kind::Io`].
pub fn make_directory(path: &Path) -> Result<()> {
    named("can't make the directory", path, gate())?;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path);
    named("can't make the directory", path, made)
}

/// Removes a directory and all below it; nothing there is fine.
///
/// # Errors
/// [`Kind::Io`].
pub fn remove_directory(path: &Path) -> Result<()> {
    named("can't remove", path, gate())?;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => named("can't remove", path, other),
    }
}

/// Removes an empty directory or a file; nothing there is fine.
///
/// # Errors
/// [`Kind::Io`].
pub fn remove(path: &Path) -> Result<()> {
    named("can't remove", path, gate())?;
    let directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    match if directory {
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    } {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => named("can't remove", path, other),
    }
}

/// Renames `from` to `to`, which must not exist or be an empty directory.
///
/// # Errors
/// [`Kind::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    named("can't rename", from, gate())?;
    named(
        &format!("can't rename it to {}", to.display()),
        from,
        fs::rename(from, to),
    )
}

/// Swaps two paths in one step.
///
/// # Errors
/// [`Kind::Unsupported`] where the file system can't, [`Kind::Io`].
pub fn exchange(one: &Path, other: &Path) -> Result<()> {
    named("can't swap", one, gate())?;
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let here = rustix::fs::CWD;
    match rustix::fs::renameat_with(here, one, here, other, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::BUSY) => {
            let message = format!("can't be swapped with {} in one step here", other.display());
            Err(Fault::new(Kind::Unsupported, message).file(one.display().to_string()))
        }
        Err(errno) => named("can't swap", one, Err(errno.into())),
    }
}

/// Waits until the entries of a directory are on the disk.
///
/// # Errors
/// [`Kind::Io`].
pub fn sync_directory(path: &Path) -> Result<()> {
    named("can't flush", path, gate())?;
    let directory = named("can't open", path, File::open(path))?;
    named("can't flush", path, directory.sync_all())
}
