//! Where a path leads once every link is followed, also if nothing stands there yet.

use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, Standing};
use std::path::{Path, PathBuf};

/// Most links that lead to links.
const LINKS_MAX: u32 = 40;

/// `path` with every link resolved; of one that doesn't exist, what does exist of it. A dangling link
/// is followed: `latest -> run7` leads to `run7`, whether that is there or not. Local.
///
/// # Errors
/// [`Kind::Usage`] for an empty path, or one that ends in `..` where nothing stands; [`Kind::Io`].
pub fn resolved(path: &Path) -> Result<PathBuf> {
    follow(path, 0)
}

/// Whether `inner`, which is resolved, is `outer` or lies in it: by its path, or, where a file system is mounted at
/// several places, by the numbers of the directories above it. Local.
#[must_use]
pub fn lies_in(inner: &Path, outer: &Path) -> bool {
    if inner.starts_with(outer) {
        return true;
    }
    let number = io::number(outer);
    number.is_some() && inner.ancestors().any(|above| io::number(above) == number)
}

fn follow(path: &Path, links: u32) -> Result<PathBuf> {
    let fault = |message: &str| {
        let fault = Fault::new(Kind::Usage, message);
        fault.file(path.display().to_string())
    };
    if path.as_os_str().is_empty() {
        return Err(Fault::new(Kind::Usage, "an empty path names no directory")
            .hint("give the name of a new directory"));
    }
    if io::glance(path)? != Standing::Nothing {
        return io::resolve(path);
    }
    if links > LINKS_MAX {
        return Err(fault("leads through too many links"));
    }
    let Some(name) = path.file_name() else {
        return Err(fault("is no place for a new directory"));
    };
    let parent = io::room(path);
    match io::link_target(&parent.join(name))? {
        Some(target) => follow(&parent.join(target), links + 1),
        None => Ok(follow(parent, links)?.join(name)),
    }
}
