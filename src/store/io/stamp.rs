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
        }))
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
        }
    }
}

fn nanoseconds((seconds, rest): (i64, i128)) -> i128 {
    i128::from(seconds) * 1_000_000_000 + rest
}
