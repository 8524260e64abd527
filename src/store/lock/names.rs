//! Names beside a lock that come and go without a step that tests can fail: what they were is looked at anew.

use crate::store::io::trace;
use rustix::io::Result;
use std::path::Path;

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
