//! Dropping source pages behind the read.
//!
//! A source larger than what the page cache may give it would push everything else out, to no use:
//! its first pages are gone before they could be read again. So what has been read is given back to
//! the system, a little later, for neighbours on the node that read the same rows.

use crate::catalog::Catalog;
use crate::store::io::{self, ReadFile};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes read last that stay.
const KEPT_BYTES: u64 = 64 << 20;
/// Neighbouring reads are given back together up to this many bytes.
const JOINED_BYTES: u64 = 8 << 20;
/// Files that are read in turn, about.
const FILES_IN_TURN: usize = 16;
/// Most bytes that the system keeps as one, and drops only as one.
const FOLIO_BYTES: u64 = 2 << 20;

/// What was read last, oldest first.
#[derive(Default)]
struct Recent {
    parts: VecDeque<(Arc<ReadFile>, Range<u64>)>,
    bytes: u64,
}

impl Recent {
    /// Gives back the pages of all but the last `kept_bytes`, with what lies across their beginning.
    fn forget(&mut self, kept_bytes: u64) {
        while self.bytes > kept_bytes {
            let Some((file, range)) = self.parts.pop_front() else {
                return;
            };
            self.bytes -= range.end - range.start;
            file.forget(range.start.saturating_sub(FOLIO_BYTES)..range.end);
        }
    }
}

/// Gives pages back once reading has gone on.
pub(super) struct Behind {
    recent: Option<Mutex<Recent>>,
}

impl Behind {
    /// For the files of `catalog`: pages are dropped if these are larger than half of the memory, or
    /// than what the environment variable `SHARDLOOM_CACHE_BYTES` says.
    pub(super) fn of(catalog: &Catalog) -> Self {
        let cache = std::env::var("SHARDLOOM_CACHE_BYTES")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| io::memory_bytes() / 2);
        Self::with(catalog.bytes() > cache)
    }

    fn with(drops: bool) -> Self {
        Behind {
            recent: drops.then(Mutex::default),
        }
    }

    /// Notes that bytes `range` of `file` have been read.
    pub(super) fn note(&self, file: &Arc<ReadFile>, range: Range<u64>) {
        let Some(recent) = &self.recent else { return };
        let mut recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.bytes += range.end - range.start;
        let follows = |(other, before): &&mut (Arc<ReadFile>, Range<u64>)| {
            Arc::ptr_eq(other, file)
                && before.end == range.start
                && before.end - before.start < JOINED_BYTES
        };
        let latest = recent.parts.iter_mut().rev().take(FILES_IN_TURN);
        match { latest }.find(follows) {
            Some((_, before)) => before.end = range.end,
            None => recent.parts.push_back((file.clone(), range)),
        }
        recent.forget(KEPT_BYTES);
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        if let Some(recent) = &mut self.recent {
            let recent = recent.get_mut().unwrap_or_else(PoisonError::into_inner);
            recent.forget(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    /// Bytes of a file in the page cache; `None` where that can't be told, or pages are the file.
    fn cached_bytes(path: &Path) -> Option<u64> {
        const TMPFS: rustix::fs::FsWord = 0x0102_1994;
        let kind = rustix::fs::statfs(path).ok()?.f_type;
        let fincore = Command::new("fincore")
            .args(["--bytes", "--noheadings", "--output", "RES"])
            .arg(path)
            .output()
            .ok()?;
        let text = String::from_utf8(fincore.stdout).ok()?;
        let bytes = text.trim().parse().ok()?;
        (kind != TMPFS).then_some(bytes)
    }

    #[test]
    fn gives_back_what_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("source");
        let bytes = vec![7; 4 << 20];
        std::fs::write(&path, &bytes).unwrap();
        std::fs::File::open(&path).unwrap().sync_all().unwrap();
        let read_all = |behind: &Behind| {
            let file = Arc::new(ReadFile::open(&path).unwrap());
            for offset in (0..bytes.len()).step_by(1 << 20) {
                let range = offset as u64..offset as u64 + (1 << 20);
                let mut part = vec![0; 1 << 20];
                file.read_at(&mut part, range.start).unwrap();
                behind.note(&file, range);
            }
        };
        read_all(&Behind::with(false));
        let Some(cached) = cached_bytes(&path).filter(|cached| *cached > 0) else {
            eprintln!("skipped: no fincore, or no page cache of files here");
            return;
        };
        let behind = Behind::with(true);
        read_all(&behind);
        let last = cached_bytes(&path);
        assert!(last > Some(0), "the last bytes stay a while");
        drop(behind);
        let left = cached_bytes(&path).unwrap();
        assert!(left <= cached / 4, "{left} of {cached} bytes stay");
    }
}
