//! Names beside a lock that come and go without a step that tests can fail: what they were is looked at anew.

use crate::store::io::{room, trace};
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Result;
use std::path::{Path, PathBuf};

/// Removes a file.
pub(super) fn unlink(path: &Path) {
    if rustix::fs::unlink(path).is_ok() {
        trace::gone(path);
    }
}

/// Removes a directory, if it is empty.
pub(super) fn rmdir(path: &Path) {
    if rustix::fs::rmdir(path).is_ok() {
        trace::gone(path);
    }
}

/// Gives a file another name.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    rustix::fs::rename(from, to)?;
    trace::renamed(from, to);
    Ok(())
}

/// Gives a file one name more.
pub(super) fn link(from: &Path, to: &Path) {
    if rustix::fs::link(from, to).is_ok() {
        trace::linked(to);
    }
}

/// The files beside `lock` that runs make while they take it: its name, a dash, and words or hexadecimal numbers
/// with dashes between. None where the directory can't be read.
pub(super) fn beside(lock: &Path) -> Vec<PathBuf> {
    let directory = room(lock);
    let of_this = |name: &str| {
        let name = lock
            .file_name()
            .and_then(|lock| name.strip_prefix(lock.to_str()?));
        let parts = name.and_then(|rest| rest.strip_prefix('-'));
        parts.is_some_and(|parts| {
            parts
                .split('-')
                .all(|part| part == "heir" || part.chars().all(|c| c.is_ascii_hexdigit()))
        })
    };
    let open = rustix::fs::open(
        directory,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let Ok(entries) = open.and_then(Dir::new) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()));
    let names = names.filter(|name| of_this(name));
    names.map(|name| lock.with_file_name(name)).collect()
}
