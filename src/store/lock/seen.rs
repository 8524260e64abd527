//! A lock's file as it is.

use super::holder::{Holder, Life};
use crate::fault::{Fault, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;
use std::time::Duration;

/// Longest lock that is read.
const BYTES_MAX: usize = 4096;

/// A lock as it was when it was looked at.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) bytes: Vec<u8>,
    pub(super) holder: Option<Holder>,
    /// Time of its last change, in seconds and nanoseconds.
    pub(super) beat: (i64, i128),
}

impl Seen {
    /// What stands at `path`; none if nothing does.
    pub(super) fn at(path: &Path) -> Result<Option<Seen>> {
        // A file that is opened is looked up anew, also over a network.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::STALE) => return Ok(None),
            Err(errno) => return Err(failed("can't open", path, errno.into())),
        };
        let read = || -> rustix::io::Result<Seen> {
            let stat = rustix::fs::fstat(&file)?;
            let mut bytes = vec![0; BYTES_MAX];
            let mut length = 0;
            while length < BYTES_MAX {
                match rustix::io::read(&file, &mut bytes[length..])? {
                    0 => break,
                    more => length += more,
                }
            }
            bytes.truncate(length);
            Ok(Seen {
                holder: Holder::of_bytes(&bytes),
                bytes,
                beat: (stat.st_mtime, i128::from(stat.st_mtime_nsec)),
            })
        };
        match read() {
            Ok(seen) => Ok(Some(seen)),
            Err(Errno::STALE) => Ok(None),
            Err(errno) => Err(failed("can't read", path, errno.into())),
        }
    }

    /// Whether its process lives, where that can be told.
    pub(super) fn life(&self, asks: &Holder) -> Option<Life> {
        self.holder.as_ref().and_then(|holder| holder.life(asks))
    }

    /// A name for it.
    pub(super) fn key(&self) -> String {
        match &self.holder {
            Some(holder) => holder.token.clone(),
            None => format!("{:016x}", crate::tensor::digest::checksum(&self.bytes)),
        }
    }

    pub(super) fn who(&self) -> String {
        let who = match &self.holder {
            Some(holder) => holder.to_string(),
            None => "nobody knows who".to_owned(),
        };
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let beat = u64::try_from(self.beat.0).map(Duration::from_secs);
        let nanos = u64::try_from(self.beat.1).unwrap_or_default();
        let beat = beat.unwrap_or_default() + Duration::from_nanos(nanos);
        let age = now.saturating_sub(beat).as_secs();
        format!("{who}; its last sign of life is {age} s old")
    }
}

fn failed(action: &str, path: &Path, error: std::io::Error) -> Fault {
    Fault::io(action, &error).file(path.display().to_string())
}
