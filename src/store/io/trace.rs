//! A record of every call that changes files, for tests that ask what a loss of power may leave, and of every file
//! that is opened and every directory that is listed, for those that count them (`SHARDLOOM_IO_TRACE=FILE`).
//!
//! All processes add lines to one file: a call when it has gone well, a flush when it begins and when it has
//! ended. A line is the process's number, what was done, and to what: files and directories by device and
//! inode, names and bytes in hexadecimal digits.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The record, and this process's number.
static RECORD: OnceLock<Option<(File, String)>> = OnceLock::new();
static FLUSHES: AtomicU64 = AtomicU64::new(0);

fn record() -> Option<&'static (File, String)> {
    let open = || {
        let path = std::env::var_os("SHARDLOOM_IO_TRACE")?;
        let file = OpenOptions::new().append(true).create(true).open(path);
        let process = std::env::var("OMPI_COMM_WORLD_RANK");
        Some((file.ok()?, process.unwrap_or_else(|_| "0".to_owned())))
    };
    RECORD.get_or_init(open).as_ref()
}

/// Adds a line, if a record is kept; what can't be told leaves the record short, which its reader notices.
fn note(line: impl FnOnce() -> io::Result<String>) {
    if let Some((file, process)) = record()
        && let Ok(line) = line()
    {
        let mut file = file;
        let _ = file.write_all(format!("{process} {line}\n").as_bytes());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn node(found: &fs::Metadata) -> String {
    format!("{}:{}", found.dev(), found.ino())
}

fn node_of(file: &File) -> io::Result<String> {
    Ok(node(&file.metadata()?))
}

/// A name: the directory that it is in, and the name itself.
fn entry(path: &Path) -> io::Result<String> {
    let parent = super::room(path);
    let name = path.file_name().unwrap_or_default();
    let parent = node(&fs::metadata(parent)?);
    Ok(format!("{parent} {}", hex(name.as_bytes())))
}

/// A file or a directory that was opened: one that is made as well is told as [`created`] only.
pub(super) fn opened(file: &File) {
    note(|| Ok(format!("open {}", node_of(file)?)));
}

/// A directory whose names were asked for.
pub(super) fn listed(path: &Path) {
    note(|| Ok(format!("list {}", node(&fs::metadata(path)?))));
}

/// A file that was made at `path`.
pub(super) fn created(path: &Path, file: &File) {
    note(|| Ok(format!("create {} {}", node_of(file)?, entry(path)?)));
}

/// A file's size that was set.
pub(super) fn sized(file: &File, bytes: u64) {
    note(|| Ok(format!("size {} {bytes}", node_of(file)?)));
}

/// Bytes that were written.
pub(super) fn written(file: &File, offset: u64, bytes: &[u8]) {
    note(|| Ok(format!("write {} {offset} {}", node_of(file)?, hex(bytes))));
}

/// A file that was made at `path` with all that stands in it.
pub(super) fn copied(path: &Path) {
    note(|| {
        let (file, bytes) = (File::open(path)?, fs::read(path)?);
        created(path, &file);
        Ok(format!("write {} 0 {}", node_of(&file)?, hex(&bytes)))
    });
}

/// Flushes `file`, or a directory that is open.
pub(super) fn flushed<E>(file: &File, flush: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    if record().is_none() {
        return flush();
    }
    let number = FLUSHES.fetch_add(1, Ordering::Relaxed);
    let told = |word: &str| {
        let process = std::process::id();
        note(|| Ok(format!("{word} {} {process}.{number}", node_of(file)?)));
    };
    told("begin");
    flush()?;
    told("end");
    Ok(())
}

/// Another name of a file.
pub(in crate::store) fn linked(path: &Path) {
    note(|| {
        let found = node(&fs::symlink_metadata(path)?);
        Ok(format!("link {found} {}", entry(path)?))
    });
}

/// A link that leads to `target`.
pub(super) fn linked_softly(target: &Path, path: &Path) {
    note(|| {
        let found = node(&fs::symlink_metadata(path)?);
        let target = hex(target.as_os_str().as_bytes());
        Ok(format!("soft {found} {} {target}", entry(path)?))
    });
}

/// Directories down to `path`, of which some were made.
pub(super) fn directories(path: &Path) {
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.retain(|path| path.file_name().is_some());
    for path in above.into_iter().rev() {
        note(|| {
            let found = node(&fs::metadata(path)?);
            Ok(format!("mkdir {found} {}", entry(path)?))
        });
    }
}

/// A name that is gone, with all that it led to.
pub(in crate::store) fn gone(path: &Path) {
    note(|| Ok(format!("gone {}", entry(path)?)));
}

/// Another name for what was at `from`.
pub(in crate::store) fn renamed(from: &Path, to: &Path) {
    note(|| Ok(format!("rename {} {}", entry(from)?, entry(to)?)));
}

/// Two names that were swapped.
pub(super) fn swapped(one: &Path, other: &Path) {
    note(|| Ok(format!("swap {} {}", entry(one)?, entry(other)?)));
}

/// Permissions, an owner or attributes that were set.
pub(super) fn changed_mode(path: &Path) {
    note(|| {
        let found = fs::metadata(path)?;
        Ok(format!("mode {} {:o}", node(&found), found.mode()))
    });
}
