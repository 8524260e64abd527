//! What Git keeps in place of a large file.

use crate::fault::Kind;
use crate::store::formats::row::{Foreign, Start, never};

/// A pointer of Git LFS, left by a clone without it.
pub(in crate::store::formats) static GIT_LFS: Foreign = Foreign {
    name: "Git LFS pointers",
    kind: Kind::Corrupt,
    file: told,
    directory: never,
    hint: "run `git lfs pull` where it was cloned, or download the file itself",
};

fn told(start: &Start<'_>) -> Option<String> {
    let text = start.text()?;
    text.strip_prefix("version https://git-lfs.github.com/spec/")?;
    let size = text.lines().find_map(|line| line.strip_prefix("size "));
    let size = size.and_then(|digits| digits.trim().parse::<u64>().ok());
    let size = size.map_or("the file".to_owned(), |size| format!("{size} bytes"));
    Some(format!(
        "is a Git LFS pointer: a text that stands for {size}"
    ))
}
