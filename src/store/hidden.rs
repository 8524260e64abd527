//! Names of what belongs to a file or directory and lies beside it, hidden.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// How the name ends of what isn't in its place yet.
pub const PARTIAL: &str = ".shardloom-partial";

/// `.NAME` with this ending, beside `path`, which is called NAME.
#[must_use]
pub fn hidden(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(ending);
    path.with_file_name(name)
}
