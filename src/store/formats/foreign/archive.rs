//! Archives and compressed files.

use crate::fault::Kind;
use crate::store::formats::row::{Foreign, Start, never};

/// Where a tar file says so.
const TAR_AT: usize = 257;

/// A file that is to be unpacked.
pub(in crate::store::formats) static ARCHIVE: Foreign = Foreign {
    name: "archives",
    kind: Kind::Unsupported,
    file,
    directory: never,
    hint: "unpack it, and give what was in it",
};

fn file(start: &Start<'_>) -> Option<String> {
    let magics: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "compressed by gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
        (b"\xfd7zXZ\0", "compressed by xz"),
        (b"BZh", "compressed by bzip2"),
        (b"PK\x03\x04", "a zip archive"),
    ];
    let known = magics.iter().find(|(magic, _)| start.with(magic));
    let tar = start
        .bytes
        .get(TAR_AT..)
        .is_some_and(|rest| rest.starts_with(b"ustar"));
    let what = known
        .map(|(_, what)| *what)
        .or(tar.then_some("a tar archive"))?;
    Some(format!("is {what}"))
}
