//! Every open, read, write, rename and sync of the program.
//!
//! Each call names its file in the error, and passes a gate (`gate.rs`) at which tests can fail it.

use crate::fault::{Fault, Kind, Result};
use crate::store::gate::{Hiccup, Wary, gate};
use rustix::fs::Advice;
use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of the smallest page.
const PAGE_BYTES: u64 = 4 << 10;

fn named<T>(action: &str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Fault::io(action, &error).file(path.display().to_string()))
}

/// A file open for reading at any offset.
#[derive(Debug)]
pub struct ReadFile {
    file: File,
    path: PathBuf,
    size: u64,
    identity: u64,
}

impl ReadFile {
    /// Opens `path`, which must be a regular file.
    ///
    /// # Errors
    /// [`Kind::Io`] with the file's name.
    pub fn open(path: &Path) -> Result<Self> {
        named("can't open", path, gate())?;
        let file = named("can't open", path, File::open(path))?;
        let metadata = named("can't read its size", path, file.metadata())?;
        if !metadata.is_file() {
            let fault = Fault::new(Kind::Io, "is not a regular file");
            return Err(fault.file(path.display().to_string()));
        }
        let mut hasher = DefaultHasher::new();
        (metadata.ino(), metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
        Ok(ReadFile {
            file,
            path: path.to_path_buf(),
            size: metadata.len(),
            identity: hasher.finish(),
        })
    }

    /// The same on all nodes that see this file on storage that they share, another for its copies:
    /// a hash of the inode's number and the time of its last change.
    #[must_use]
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// Size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes now.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn size_now(&self) -> Result<u64> {
        let metadata = named("can't read its size", &self.path, self.file.metadata())?;
        Ok(metadata.len())
    }

    /// Lets the system drop the pages of bytes `range`, which are not needed again. It may not.
    pub fn forget(&self, range: std::ops::Range<u64>) {
        let begin = range.start / PAGE_BYTES * PAGE_BYTES;
        let end = range.end.next_multiple_of(PAGE_BYTES);
        let length = std::num::NonZeroU64::new(end - begin);
        if let Err(error) = rustix::fs::fadvise(&self.file, begin, length, Advice::DontNeed) {
            tracing::debug!("{}: pages are not dropped: {error}", self.path.display());
        }
    }

    /// The open file itself, for mapping.
    #[must_use]
    pub fn inner(&self) -> &File {
        &self.file
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Kind::Io`]; a file that ends early is an error too ("has shrunk").
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let hiccup = named("can't read", &self.path, gate())?;
        let file = Wary::new(&self.file, hiccup);
        file.read_exact_at(buffer, offset).map_err(|error| {
            let fault = if error.kind() == io::ErrorKind::UnexpectedEof {
                let message = format!(
                    "ends before byte {}; it has shrunk since it was opened",
                    offset + buffer.len() as u64
                );
                Fault::new(Kind::Io, message)
            } else {
                Fault::io("can't read", &error)
            };
            fault.file(self.path.display().to_string())
        })
    }

    /// The whole file, if it is no longer than `limit_bytes`.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it is longer, [`Kind::Io`].
    pub fn read_all(&self, limit_bytes: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(self.size)
            .ok()
            .filter(|_| self.size <= limit_bytes);
        let Some(length) = length else {
            let message = format!(
                "is {} bytes long, at most {limit_bytes} are read",
                self.size
            );
            return Err(Fault::new(Kind::Corrupt, message).file(self.path.display().to_string()));
        };
        let mut bytes = vec![0; length];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// A file being written at any offset.
#[derive(Debug)]
pub struct WriteFile {
    file: File,
    path: PathBuf,
}

impl WriteFile {
    /// Creates `path`, which must not exist, and reserves `size` bytes for it.
    ///
    /// # Errors
    /// [`Kind::NoSpace`] if the disk hasn't room for it, [`Kind::Io`].
    pub fn create(path: &Path, size: u64) -> Result<Self> {
        named("can't create", path, gate())?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path);
        let file = named("can't create", path, file)?;
        if size > 0 {
            let hiccup = Cell::new(named("can't reserve space", path, gate())?);
            let flags = rustix::fs::FallocateFlags::empty();
            // Unlike the standard library's calls this one isn't repeated when a signal ends it.
            let reserved = rustix::io::retry_on_intr(|| {
                if hiccup.replace(Hiccup::None) == Hiccup::Interrupted {
                    return Err(rustix::io::Errno::INTR);
                }
                if in_memory(&file) {
                    // Reserving there means clearing pages that are then written again.
                    return Err(rustix::io::Errno::OPNOTSUPP);
                }
                rustix::fs::fallocate(&file, flags, 0, size)
            });
            match reserved {
                Ok(()) => {}
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    named("can't set its size", path, file.set_len(size))?;
                }
                Err(errno) => {
                    named(
                        &format!("can't reserve {size} bytes"),
                        path,
                        Err(errno.into()),
                    )?;
                }
            }
        }
        Ok(WriteFile {
            file,
            path: path.to_path_buf(),
        })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file that some process has created, for writing.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        named("can't open for writing", path, gate())?;
        let file = named(
            "can't open for writing",
            path,
            OpenOptions::new().write(true).open(path),
        )?;
        Ok(WriteFile {
            file,
            path: path.to_path_buf(),
        })
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// [`Kind::NoSpace`], [`Kind::Io`].
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let action = "can't write";
        let hiccup = named(action, &self.path, gate())?;
        let file = Wary::new(&self.file, hiccup);
        named(action, &self.path, file.write_all_at(bytes, offset))
    }

    /// Waits until the bytes are on the disk.
    ///
    /// # Errors
    /// [`Kind::Io`]: the bytes may be lost.
    pub fn sync(&self) -> Result<()> {
        named("can't flush", &self.path, gate())?;
        named("can't flush", &self.path, self.file.sync_all())
    }
}

/// Whether a file's bytes live in memory only (tmpfs, ramfs).
fn in_memory(file: &File) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    let kind = rustix::fs::fstatfs(file)
        .ok()
        .and_then(|stat| u64::try_from(stat.f_type).ok());
    matches!(kind, Some(TMPFS_MAGIC | RAMFS_MAGIC))
}

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
    named("can't look at", path, gate())?;
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Standing::Nothing),
        Err(error) => named("can't look at", path, Err(error)),
        Ok(metadata) if metadata.is_dir() => {
            let first = named("can't list", path, fs::read_dir(path))?.next();
            Ok(if first.is_none() {
                Standing::EmptyDirectory
            } else {
                Standing::Directory
            })
        }
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
    for entry in named("can't list", path, fs::read_dir(path))? {
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

/// Bytes free for us on the file system of `path`.
///
/// # Errors
/// [`Kind::Io`].
pub fn free_bytes(path: &Path) -> Result<u64> {
    named("can't ask for free space", path, gate())?;
    let stat = rustix::fs::statvfs(path).map_err(io::Error::from);
    let stat = named("can't ask for free space", path, stat)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// `path` with every link resolved.
///
/// # Errors
/// [`Kind::Io`].
pub fn resolve(path: &Path) -> Result<PathBuf> {
    named("can't resolve", path, gate())?;
    named("can't resolve", path, fs::canonicalize(path))
}

/// Writes a small file anew, flushed if `flush`.
///
/// # Errors
/// [`Kind::NoSpace`], [`Kind::Io`].
pub fn write_small(path: &Path, bytes: &[u8], flush: bool) -> Result<()> {
    let file = WriteFile::create(path, 0)?;
    file.write_at(bytes, 0)?;
    if flush { file.sync() } else { Ok(()) }
}

/// A small text file of the system's (`/proc`), whose size isn't known before it is read.
///
/// # Errors
/// [`Kind::Io`].
pub fn read_text(path: &str) -> Result<String> {
    named("can't read", Path::new(path), fs::read_to_string(path))
}

/// Bytes of this machine's memory.
#[must_use]
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Largest resident memory that this process has had, in bytes; 0 where the system doesn't tell.
#[must_use]
pub fn peak_memory_bytes() -> u64 {
    let status = read_text("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .map(str::trim);
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
