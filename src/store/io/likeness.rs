//! Whether two nodes may mean the same directory by a path.

use crate::fault::Result;
use crate::store::io::gate::gate;
use crate::store::io::named::named;
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags};
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;

/// File systems that may give a file another number on each node.
const FUSE_MAGIC: u64 = 0x6573_5546;

/// What nodes that share a directory see alike of it. Directories on disks of their own seldom have
/// all of it in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Likeness {
    /// Its number; none where each node may have another.
    inode: Option<u64>,
    /// When it was made, in seconds and nanoseconds, where that is known.
    born: Option<(i64, u32)>,
}

impl Likeness {
    /// Whether both may be of one directory.
    #[must_use]
    pub fn may_be(&self, other: &Likeness) -> bool {
        fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        agree(self.inode, other.inode) && agree(self.born, other.born)
    }
}

/// What tells the directory at `path` from others.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn likeness(path: &Path) -> Result<Likeness> {
    // Without the call nothing is known, and it may be any.
    let Some(found) = look(path, StatxFlags::INO | StatxFlags::BTIME)? else {
        return Ok(Likeness::default());
    };
    let born = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(Likeness {
        inode: Some(found.stx_ino),
        born: born.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec)),
    })
}

/// A number that all nodes have alike that see the same directory or file at `path` on storage that they
/// share, and that others can hardly have; none if nothing is there, or if it can't be told.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn identity(path: &Path) -> Result<Option<u64>> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME | StatxFlags::CTIME | StatxFlags::MTIME;
    Ok(look(path, wanted)?.map(|found| {
        let mut hasher = DefaultHasher::new();
        found.stx_ino.hash(&mut hasher);
        for time in [found.stx_btime, found.stx_ctime, found.stx_mtime] {
            (time.tv_sec, time.tv_nsec).hash(&mut hasher);
        }
        hasher.finish()
    }))
}

/// What the system tells of `path`, if it does, and it is the same on all nodes.
fn look(path: &Path, wanted: StatxFlags) -> Result<Option<Statx>> {
    named("can't look at", path, gate())?;
    let Ok(found) = rustix::fs::statx(CWD, path, AtFlags::empty(), wanted) else {
        return Ok(None);
    };
    let kind = rustix::fs::statfs(path).map_err(io::Error::from);
    let kind = named("can't look at", path, kind)?.f_type;
    let fuse = u64::try_from(kind).is_ok_and(|kind| kind == FUSE_MAGIC);
    Ok((!fuse).then_some(found))
}
