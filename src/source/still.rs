//! Whether a source stands still while it is read: how its files stood at first, and how at last.
//!
//! A handle that is open keeps the old file when another takes its place, so the path is looked at
//! again, whatever way the bytes are read.

use crate::exchange::{World, agree};
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::Reach;
use crate::source::listed::Listing;
use crate::store::Format;
use crate::store::io::{ReadFile, Stamp};
use crate::tensor::digest::checksum;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes looked at of a file whose format has no header in one piece.
const BEGINNING_BYTES: usize = 4 << 10;

/// A file at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    stamp: Option<Stamp>,
    /// CRC of its header; none if it can't be read.
    header: Option<u64>,
}

impl Moment {
    fn now(path: &Path) -> Result<Moment> {
        Ok(Moment {
            stamp: Stamp::of(path)?,
            header: header(path).ok(),
        })
    }
}

fn header(path: &Path) -> Result<u64> {
    let file = ReadFile::open(path)?;
    if let Ok(format) = Format::recognise(&file)
        && let Some(header) = format.header(&file)?
    {
        return Ok(checksum(&header));
    }
    let length = usize::try_from(file.size()).unwrap_or(usize::MAX);
    let mut beginning = vec![0; length.min(BEGINNING_BYTES)];
    file.read_at(&mut beginning, 0)?;
    Ok(checksum(&beginning))
}

/// The files that fall to this process to watch, as they stood when they were first looked at.
#[derive(Clone, Debug, Default)]
pub struct Still {
    files: Arc<Vec<(Option<u32>, PathBuf, Moment)>>,
}

impl Still {
    /// Looks at the files that fall to this process: of those on storage that nodes share one node
    /// watches each, of copies on a node's own disks that node; dealt over its processes. Local.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(super) fn watch(reach: &Reach, base: &Path, listing: &Listing) -> Result<Still> {
        let mut files = Vec::new();
        for (rank, listed) in &listing.ranks {
            for (number, file) in listed.iter().enumerate() {
                if watches(reach, *rank, number) {
                    let path = base.join(&file.path);
                    let moment = Moment::now(&path)?;
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
                let now = Moment::now(path)?;
                if now == *before {
                    continue;
                }
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
    let homes = reach.homes(rank);
    let shared = reach.common().contains(&rank);
    let node = reach.node();
    let here = if shared {
        homes.get(rank as usize % homes.len().max(1)) == Some(&node)
    } else {
        reach.sees(rank)
    };
    let members = &reach.nodes[node as usize];
    here && members.get((rank as usize + number) % members.len().max(1)) == Some(&reach.process)
}
