//! Errors of system calls, with the file's name.

use crate::fault::{Fault, Result};
use std::io;
use std::path::Path;

/// `result`, its error as ours: what was tried (`action`), and with which file.
pub(super) fn named<T>(action: &str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Fault::io(action, &error).file(path.display().to_string()))
}
