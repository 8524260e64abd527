//! Whether what was to be read from disks was still in memory.

use crate::exchange::{Operation, World, agree, all_reduce, barrier};
use crate::fault::Result;
use crate::store::io::{self, ReadFile, WriteFile};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How often is looked whether a page was dropped.
const LOOKS: u64 = 8;
/// Of so many pages that were to be dropped at most one is in memory still where reading is cold.
const KEPT_MOST: u64 = 10;

/// How many looks found a page in memory that was to be dropped, of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pages: u64,
    looks: u64,
}

impl Kept {
    /// Looks at a few pages of a file's `bytes` from `begin` on. Local.
    pub(super) fn look(&mut self, file: &ReadFile, begin: u64, bytes: u64) {
        for eighth in 0..LOOKS {
            if let Some(kept) = file.is_cached(begin + bytes * eighth / LOOKS) {
                self.pages += u64::from(kept);
                self.looks += 1;
            }
        }
    }

    /// The same of those of these files that are here, of which the system is asked to drop all pages first, on
    /// every process: what isn't on the disk yet can't be dropped. Collective.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub(super) fn drop_all(&mut self, world: &World, files: &[PathBuf]) -> Result<()> {
        agree(world, files.iter().try_for_each(|path| flush(path)))?;
        let here = files.iter().filter_map(|path| opened(path)).collect();
        let here: Vec<ReadFile> = agree(world, here)?;
        for file in &here {
            file.forget(0..file.size());
        }
        // Nobody reads before all have let the pages go.
        barrier(world)?;
        self.look_at(&here);
        barrier(world)
    }

    /// The same of those of these files that are here, as they are. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub(super) fn look_at_all(&mut self, files: &[PathBuf]) -> Result<()> {
        let here = files.iter().filter_map(|path| opened(path));
        self.look_at(&here.collect::<Result<Vec<_>>>()?);
        Ok(())
    }

    fn look_at(&mut self, files: &[ReadFile]) {
        for file in files {
            self.look(file, 0, file.size());
        }
    }

    /// What all processes have found. Collective.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Mpi`].
    pub(super) fn of_all(self, world: &World) -> Result<Kept> {
        let mut sums = [self.pages, self.looks];
        all_reduce(world, &mut sums, Operation::Sum)?;
        Ok(Kept::from(sums))
    }

    /// These looks and those. Local.
    pub(super) fn and(self, other: Kept) -> Kept {
        Kept::from([self.pages + other.pages, self.looks + other.looks])
    }

    /// Whether the system has kept so much that it was memory that was read. Local.
    pub(super) fn is_much(self) -> bool {
        self.pages * KEPT_MOST > self.looks
    }

    /// Of 100 pages; none where nothing was looked at. Local.
    pub(super) fn percent(self) -> Option<u64> {
        (self.looks > 0).then(|| (self.pages * 100).div_ceil(self.looks))
    }

    /// In words, of the rows called `what`, for which all was to be dropped. Local.
    pub(super) fn told(self, what: &str, instead: &str) -> String {
        match self.percent() {
            None => format!(
                "{what}: the system was asked to drop it from memory; this file system doesn't tell whether it did; \
                 {instead}"
            ),
            Some(0) => format!("{what}: from what the system had dropped from memory"),
            Some(percent) => format!(
                "{what}: {percent} of 100 pages that were looked at were still in memory, though the system was \
                 asked to drop them; {instead}"
            ),
        }
    }
}

impl From<[u64; 2]> for Kept {
    fn from([pages, looks]: [u64; 2]) -> Kept {
        Kept { pages, looks }
    }
}

/// Waits until a file that is here is on the disk.
fn flush(path: &Path) -> Result<()> {
    match io::size(path)? {
        Some(_) => WriteFile::open(path)?.sync(),
        None => Ok(()),
    }
}

/// A file, if it is here.
fn opened(path: &Path) -> Option<Result<ReadFile>> {
    match io::size(path) {
        Ok(Some(_)) => Some(ReadFile::open(path)),
        Ok(None) => None,
        Err(fault) => Some(Err(fault)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_kept_in_memory() {
        let told = |pages, looks| Kept { pages, looks }.told("read cold", "look elsewhere");
        assert!(told(0, 0).contains("doesn't tell"));
        let dropped = told(0, 8);
        assert_eq!(
            dropped,
            "read cold: from what the system had dropped from memory"
        );
        let kept = told(1, 800);
        assert!(
            kept.contains("1 of 100 pages") && kept.ends_with("look elsewhere"),
            "{kept}"
        );
        let is_much = |pages, looks| Kept { pages, looks }.is_much();
        assert!(!is_much(0, 0) && !is_much(1, 10) && is_much(2, 10));
    }
}
