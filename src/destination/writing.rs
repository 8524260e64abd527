//! How a job writes.

use crate::destination::place::Placement;
use std::path::PathBuf;

/// Where a job writes, and how.
#[derive(Clone, Debug, Default)]
pub struct Writing {
    /// The directory to write.
    pub path: PathBuf,
    /// The strategy to cut by; none means full weights.
    pub strategy: Option<PathBuf>,
    /// Which process builds what.
    pub placement: Placement,
    /// Replace what stands at the destination.
    pub overwrite: bool,
    /// Take up what an interrupted run of the same job has left.
    pub resume: bool,
    /// Replace the source: its directory is the destination.
    pub in_place: bool,
    /// Don't wait for the disk before the result becomes visible.
    pub unflushed: bool,
}
