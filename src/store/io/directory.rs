//! What changes the names in a directory.

use crate::fault::{Fault, Kind, Result};
use crate::store::io::gate::{able, gate, is_lack};
use crate::store::io::late::patiently;
use crate::store::io::named::named;
use crate::store::io::trace;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A directory that stays the same one, whatever its name is given to later.
#[derive(Debug)]
pub struct Directory {
    pub(super) handle: File,
    pub(super) path: PathBuf,
}

impl Directory {
    /// Takes hold of the directory at `path`.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn open(path: &Path) -> Result<Directory> {
        let handle = named("can't open", path, File::open(path))?;
        trace::opened(&handle);
        let path = path.to_path_buf();
        Ok(Directory { handle, path })
    }
}

/// Makes a link at `link` that leads to `target`, which need not be there.
///
/// # Errors
/// [`Kind::Io`].
pub fn link_softly(target: &Path, link: &Path) -> Result<()> {
    named("can't link", link, gate())?;
    named("can't link", link, std::os::unix::fs::symlink(target, link))?;
    trace::linked_softly(target, link);
    Ok(())
}

/// Gives a file a second name, which must not exist; where it can have none, a copy of that name, flushed.
///
/// # Errors
/// [`Kind::Io`].
pub fn link(from: &Path, to: &Path) -> Result<()> {
    named("can't link", from, gate())?;
    let action = format!("can't link it to {}", to.display());
    let linked = able("link").map_err(io::Error::from);
    match linked.and_then(|()| fs::hard_link(from, to)) {
        Err(error) if has_no_links(&error) => {
            named("can't copy", from, gate())?;
            named("can't copy", from, fs::copy(from, to).map(|_| ()))?;
            trace::copied(to);
            flush(to)
        }
        linked => {
            named(&action, from, linked)?;
            trace::linked(to);
            Ok(())
        }
    }
}

/// Makes a file `to`, which must not exist, of the bytes of `from`: they share these until one is written,
/// where the file system can; else it is the same file under a second name; else a copy, without the
/// permissions `denied`. Its bytes are flushed if it `flushes`.
///
/// # Errors
/// [`Kind::NoSpace`], [`Kind::Io`].
pub fn share(from: &Path, to: &Path, denied: u32, flushes: bool) -> Result<()> {
    if !cloned(from, to, denied)? {
        link(from, to)?;
    }
    if flushes { flush(to) } else { Ok(()) }
}

/// Waits until the bytes of the file at `path` are on the disk.
fn flush(path: &Path) -> Result<()> {
    named("can't flush", path, gate())?;
    let file = named("can't flush", path, File::open(path))?;
    trace::opened(&file);
    let flushed = trace::flushed(&file, || file.sync_all());
    named("can't flush", path, flushed)
}

/// Whether `to` could be made a file of its own that shares the bytes of `from`.
fn cloned(from: &Path, to: &Path, denied: u32) -> Result<bool> {
    named("can't create", to, gate())?;
    let source = named("can't open", from, File::open(from))?;
    trace::opened(&source);
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o666 & !denied);
    let file = named("can't create", to, options.open(to))?;
    trace::created(to, &file);
    let cloned = able("clone").and_then(|()| rustix::fs::ioctl_ficlone(&file, &source));
    if cloned.is_err() {
        // Whatever the reason: there are other ways.
        named("can't remove", to, fs::remove_file(to))?;
        trace::gone(to);
    } else {
        trace::copied(to);
    }
    Ok(cloned.is_ok())
}

fn has_no_links(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| is_lack(errno) || matches!(errno, Errno::XDEV | Errno::MLINK))
}

/// Makes a directory and those above it, with the permissions that `mkdir` gives.
///
/// # Errors
/// [`Kind::Io`].
pub fn make_directory(path: &Path) -> Result<()> {
    named("can't make the directory", path, gate())?;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o777)
        .create(path);
    let made = match made {
        // Another node may have made it, and this one not see it yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => patiently(|| {
            let standing = fs::symlink_metadata(path)?;
            if standing.is_dir() {
                Ok(())
            } else {
                Err(error_of(&error))
            }
        }),
        made => made,
    };
    named("can't make the directory", path, made)?;
    trace::directories(path);
    Ok(())
}

/// Makes a directory and those above it, as [`make_directory`], and waits until the names of those that it has
/// made are on the disk.
///
/// # Errors
/// [`Kind::Io`].
pub fn make_directory_for_good(path: &Path) -> Result<()> {
    let stands = |path: &&Path| path.as_os_str().is_empty() || fs::metadata(path).is_ok();
    let above = path.ancestors();
    let missing: Vec<&Path> = above.take_while(|path| !stands(path)).collect();
    make_directory(path)?;
    for made in missing.into_iter().rev() {
        match made.parent() {
            Some(room) if !room.as_os_str().is_empty() => sync_directory(room)?,
            _ => sync_directory(Path::new("."))?,
        }
    }
    Ok(())
}

fn error_of(error: &io::Error) -> io::Error {
    let number = error.raw_os_error();
    number.map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Removes a directory and all below it; nothing there is fine.
///
/// # Errors
/// [`Kind::Io`].
pub fn remove_directory(path: &Path) -> Result<()> {
    named("can't remove", path, gate())?;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => {
            named("can't remove", path, other)?;
            trace::gone(path);
            Ok(())
        }
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
        other => {
            named("can't remove", path, other)?;
            trace::gone(path);
            Ok(())
        }
    }
}

/// Renames `from` to `to`, which must not exist or be an empty directory.
///
/// # Errors
/// [`Kind::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    named("can't rename", from, gate())?;
    let renamed = able("rename").map_err(io::Error::from);
    named(
        &format!("can't rename it to {}", to.display()),
        from,
        renamed.and_then(|()| fs::rename(from, to)),
    )?;
    trace::renamed(from, to);
    Ok(())
}

/// Swaps two paths in one step.
///
/// # Errors
/// [`Kind::Unsupported`] where the file system can't, [`Kind::Io`].
pub fn exchange(one: &Path, other: &Path) -> Result<()> {
    named("can't swap", one, gate())?;
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let here = rustix::fs::CWD;
    let swap = || rustix::fs::renameat_with(here, one, here, other, flags);
    match able("swap").and_then(|()| swap()) {
        Ok(()) => {
            trace::swapped(one, other);
            Ok(())
        }
        Err(errno) if is_lack(errno) => {
            let message = format!("can't be swapped with {} in one step here", other.display());
            Err(Fault::new(Kind::Unsupported, message).file(one.display().to_string()))
        }
        Err(errno) => named("can't swap", one, Err(errno.into())),
    }
}

/// Waits until the entries of a directory are on the disk, where directories can be waited for.
///
/// # Errors
/// [`Kind::Io`].
pub fn sync_directory(path: &Path) -> Result<()> {
    named("can't flush", path, gate())?;
    let directory = named("can't open", path, patiently(|| File::open(path)))?;
    trace::opened(&directory);
    let sync = || able("sync_directory").and_then(|()| rustix::fs::fsync(&directory));
    match trace::flushed(&directory, || rustix::io::retry_on_intr(sync)) {
        Err(errno) if is_lack(errno) || errno == Errno::BADF => {
            tracing::debug!("{}: is not flushed: {errno}", path.display());
            Ok(())
        }
        synced => named("can't flush", path, synced.map_err(io::Error::from)),
    }
}
