//! Symbolic links that a copy has turned into texts.

use crate::fault::Kind;
use crate::store::formats::row::{Entries, Foreign, Start};

/// A small file that holds the path of another one, or a file where a rank's directory is meant.
pub(in crate::store::formats) static LINK: Foreign = Foreign {
    name: "links into a cache",
    kind: Kind::Corrupt,
    file: |start| {
        let target = target(start)?;
        Some(format!("is a link that a copy made a text: {target}"))
    },
    directory: |entries| {
        let rank = lost(entries)?;
        Some(format!("{rank} is a file where a directory is meant"))
    },
    hint: "copy it again with what its links point to: cp -rL, rsync -aL, tar -h",
};

/// The path that is all of a file's text.
fn target<'a>(start: &Start<'a>) -> Option<&'a str> {
    let text = std::str::from_utf8(start.bytes).ok()?;
    let path = text.trim_end_matches(['\n', '\0']);
    let whole = start.size == start.bytes.len() as u64;
    let begins = ["../", "./", "/"]
        .iter()
        .any(|begin| path.starts_with(begin));
    let one = !path.contains(|c: char| c.is_whitespace() || c.is_control());
    let named = !path.starts_with("//") && !path.ends_with('/');
    (whole && begins && one && named).then_some(path)
}

/// A file called as a rank's directory.
fn lost(entries: &Entries) -> Option<&str> {
    entries.find(|name| {
        let number = name.strip_prefix("rank_");
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    })
}
