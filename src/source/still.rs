//! Whether a source stands still while it is read: how its files stood at first, and how at last.
//!
//! A handle that is open keeps the old file when another takes its place, so the path is looked at
//! again, whatever way the bytes are read.

use crate::exchange::{World, agree};
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::Reach;
use crate::source::listed::Listing;
use crate::store::Format;
use crate::store::io::{self, ReadFile, Stamp};
use crate::tensor::digest::checksum;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes looked at of a file whose format has no header in one piece.
const BEGINNING_BYTES: usize = 4 << 10;

/// A file at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    stamp: Option<Stamp>,
    /// CRC of its header; none if it can't be read.
    header: Option<u64>,
}

impl Moment {
    fn now(path: &Path) -> Result<Moment> {
        let stamp = Stamp::of(path)?;
        let seen = ReadFile::open(path).and_then(|file| {
            let format = Format::recognise(&file).ok();
            let header = format.and_then(|format| format.header(&file).transpose());
            Moment::of(&file, header.transpose()?.as_deref())
        });
        Ok(Moment {
            stamp,
            header: seen.ok().and_then(|seen| seen.header),
        })
    }

    /// An open file as it stood when it was opened; its header, where its format has one in one piece.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(super) fn of(file: &ReadFile, header: Option<&[u8]>) -> Result<Moment> {
        let header = match header {
            Some(header) => checksum(header),
            None => {
                let length = usize::try_from(file.size()).unwrap_or(usize::MAX);
                let mut beginning = vec![0; length.min(BEGINNING_BYTES)];
                file.read_at(&mut beginning, 0)?;
                checksum(&beginning)
            }
        };
        Ok(Moment {
            stamp: Some(file.stamp()),
            header: Some(header),
        })
    }

    /// How the file stands now, if that is another way than at this moment. Where times can be relied on
    /// it isn't opened.
    fn other_now(&self, path: &Path) -> Result<Option<Moment>> {
        if self.stamp.is_some() && Stamp::of(path)? == self.stamp && io::is_own_disk(path)? {
            return Ok(None);
        }
        let now = Moment::now(path)?;
        Ok((now != *self).then_some(now))
    }
}

/// The files that fall to this process to watch, as they stood when they were first looked at.
#[derive(Clone, Debug, Default)]
pub struct Still {
    files: Arc<Vec<(Option<u32>, PathBuf, Moment)>>,
}

impl Still {
    /// Takes the files that fall to this process, some of which it has opened already, by path inside
    /// the base, and looks at the others: of those on storage that nodes share one node watches each,
    /// of copies on a node's own disks that node; dealt over its processes. Local.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(super) fn watch(
        reach: &Reach,
        base: &Path,
        listing: &Listing,
        mut opened: HashMap<String, Moment>,
    ) -> Result<Still> {
        let mut files = Vec::new();
        for (rank, listed) in &listing.ranks {
            for (number, file) in listed.iter().enumerate() {
                if watches(reach, *rank, number) {
                    let path = base.join(&file.path);
                    let moment = match opened.remove(&file.path) {
                        Some(moment) => moment,
                        None => Moment::now(&path)?,
                    };
                    files.push((Some(*rank), path, moment));
                }
            }
        }
        let files = Arc::new(files);
        Ok(Still { files })
    }

    /// Looks at one more file, of no rank. Local.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(crate) fn also(&mut self, path: &Path) -> Result<()> {
        let moment = Moment::now(path)?;
        Arc::make_mut(&mut self.files).push((None, path.to_path_buf(), moment));
        Ok(())
    }

    /// Whether all files still stand as they stood at first. Collective.
    ///
    /// # Errors
    /// [`Kind::Io`] naming a file that doesn't: what was read is then of two states, or of one that
    /// is gone.
    pub fn check(&self, world: &World) -> Result<()> {
        let look = || {
            for (rank, path, before) in self.files.iter() {
                let Some(now) = before.other_now(path)? else {
                    continue;
                };
                let message = match now.stamp {
                    None => "was removed while it was read",
                    Some(_) => "changed while it was read",
                };
                let fault = Fault::new(Kind::Io, message)
                    .file(path.display().to_string())
                    .hint("nothing was changed or put in place; run it again when nobody writes there");
                return Err(match rank {
                    Some(rank) => fault.rank(*rank),
                    None => fault,
                });
            }
            Ok(())
        };
        agree(world, look())
    }
}

/// Whether it falls to this process to watch file `number` of `rank`.
fn watches(reach: &Reach, rank: u32, number: usize) -> bool {
    let node = reach.node();
    let here = if reach.common().contains(&rank) {
        first_reader(reach, rank, number) == Some(node)
    } else {
        reach.sees(rank)
    };
    here && reader_on(reach, node, rank, number) == Some(reach.process)
}

/// The node that reads the header of file `number` of `rank` for all: those that share it take turns.
pub(super) fn first_reader(reach: &Reach, rank: u32, number: usize) -> Option<u32> {
    let homes = reach.homes(rank);
    if reach.common().contains(&rank) {
        let turn = rank as usize + number;
        return homes.get(turn % homes.len().max(1)).copied();
    }
    homes.first().copied()
}

/// The process that does so on `node`, whose turn it is, for file `number` of `rank`.
pub(super) fn reader_on(reach: &Reach, node: u32, rank: u32, number: usize) -> Option<u32> {
    let members = reach.nodes.get(node as usize)?;
    let mut turn = rank as usize + number;
    if reach.common().contains(&rank) {
        // One of so many falls to the node.
        turn /= reach.homes(rank).len().max(1);
    }
    members.get(turn % members.len().max(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::reach::ExchangeMode;
    use std::collections::BTreeSet;

    /// How many of 64 ranks' files, or of one rank's, fall to each of 8 processes on 4 nodes.
    fn dealt(ranks: u32, files: usize, shared: bool) -> Vec<usize> {
        let nodes: Vec<Vec<u32>> = (0..4).map(|node| vec![2 * node, 2 * node + 1]).collect();
        let all: Arc<BTreeSet<u32>> = Arc::new((0..ranks).collect());
        let reach = Reach::new(0, nodes, vec![all; 4], ranks, ExchangeMode::Auto);
        let common = if shared {
            (0..ranks).collect()
        } else {
            BTreeSet::new()
        };
        let reach = reach.with_common(common);
        let mut counts = vec![0; 8];
        for rank in 0..ranks {
            for number in 0..files {
                let node = first_reader(&reach, rank, number).unwrap();
                let process = reader_on(&reach, node, rank, number).unwrap();
                assert_eq!(reach.node_of[process as usize], node);
                counts[process as usize] += 1;
            }
        }
        counts
    }

    #[test]
    fn headers_are_read_in_turn_by_all_that_share_them() {
        assert_eq!(dealt(64, 1, true), [8; 8]);
        assert_eq!(dealt(1, 64, true), [8; 8]);
        // Copies on each node's own disk: the first node has them all.
        assert_eq!(dealt(64, 1, false), [32, 32, 0, 0, 0, 0, 0, 0]);
    }
}
