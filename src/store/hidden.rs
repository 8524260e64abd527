//! Names of what belongs to a file or directory and lies beside it, hidden.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// How the name ends of what isn't in its place yet.
pub const PARTIAL: &str = ".shardloom-partial";
/// How the name ends of what was replaced.
pub const OLD: &str = ".shardloom-old";
/// How the name of a lock ends.
pub const LOCK: &str = ".shardloom-lock";

/// `.NAME` with this ending, beside `path`, which is called NAME.
#[must_use]
pub fn hidden(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(ending);
    path.with_file_name(name)
}

/// Whether `path` is, or lies in, what a run leaves beside its destination, and the next one there removes.
#[must_use]
pub fn is_left(path: &Path) -> bool {
    let names = path.iter().map(|name| name.to_string_lossy());
    let left = |name: &str| {
        name.starts_with('.') && [PARTIAL, OLD, LOCK].iter().any(|end| name.ends_with(end))
    };
    names.into_iter().any(|name| left(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_runs_leave() {
        for path in [
            "/a/.b.shardloom-partial",
            ".b.shardloom-old/c",
            "/.b.shardloom-lock",
        ] {
            assert!(is_left(Path::new(path)), "{path}");
        }
        for path in [
            "/a/b.shardloom-partial",
            "/a/.b.shardloom-repair",
            "/.hidden/a",
        ] {
            assert!(!is_left(Path::new(path)), "{path}");
        }
    }
}
