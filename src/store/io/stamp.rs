//! What tells a file from another one at the same path, and from itself with other bytes.

use super::gate::gate;
use super::named::named;
use crate::fault::Result;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file as it stood at one moment: two that are equal are of the same file with the same bytes, as
/// far as its file system can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    /// Size in bytes.
    size: i64,
    /// Time of the last write, in nanoseconds.
    modified: i128,
    /// Time of the last change of the file or its name, in nanoseconds.
    changed: i128,
    /// Names that it has.
    names: i128,
}

impl Stamp {
    /// The file at `path`, through links; none if nothing is there. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn of(path: &Path) -> Result<Option<Stamp>> {
        named("can't look at", path, gate())?;
        let found = match rustix::fs::stat(path) {
            Ok(found) => found,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return named("can't look at", path, Err(errno.into())),
        };
        let time = (found.st_mtime, i128::from(found.st_mtime_nsec));
        let change = (found.st_ctime, i128::from(found.st_ctime_nsec));
        Ok(Some(Stamp {
            device: found.st_dev,
            inode: found.st_ino,
            size: found.st_size,
            modified: nanoseconds(time),
            changed: nanoseconds(change),
            names: i128::from(found.st_nlink),
        }))
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.size).unwrap_or_default()
    }

    /// Time of the last write, in nanoseconds since 1970.
    #[must_use]
    pub fn written_nanos(&self) -> i64 {
        i64::try_from(self.modified).unwrap_or(i64::MAX)
    }

    /// Whether the file was neither written nor changed in any other way after that of `other` was. Of one with
    /// several names its time of writing alone tells: each name that it gets is a change.
    #[must_use]
    pub fn is_no_later_than(&self, other: &Stamp) -> bool {
        self.modified <= other.modified && (self.changed <= other.changed || self.names > 1)
    }

    /// What stays while nobody writes the file: size, time of the last write and, if `changes` count and the file has
    /// no other name, time of the last change. Each name that a file gets is a change.
    #[must_use]
    pub fn lasting(&self, changes: bool) -> (i64, i128, Option<i128>) {
        let changed = (changes && self.names == 1).then_some(self.changed);
        (self.size, self.modified, changed)
    }
}

impl From<&Metadata> for Stamp {
    fn from(found: &Metadata) -> Stamp {
        Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: i64::try_from(found.size()).unwrap_or(i64::MAX),
            modified: nanoseconds((found.mtime(), i128::from(found.mtime_nsec()))),
            changed: nanoseconds((found.ctime(), i128::from(found.ctime_nsec()))),
            names: i128::from(found.nlink()),
        }
    }
}

fn nanoseconds((seconds, rest): (i64, i128)) -> i128 {
    i128::from(seconds) * 1_000_000_000 + rest
}
