//! How a job writes.

use crate::destination::place::Placement;
use crate::store::replaceable::Replace;
use crate::strategy::StrategyInput;
use std::path::PathBuf;

/// Where a job writes, and how.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Writing {
    /// The directory to write.
    pub path: PathBuf,
    /// The strategy to cut by; none means full weights.
    pub strategy: Option<StrategyInput>,
    /// Which process builds what.
    pub placement: Placement,
    /// Replace what stands at the destination.
    pub overwrite: bool,
    /// Replace the unchanged result that an earlier run of the same job has left, which said so too.
    pub again: bool,
    /// Take up what an interrupted run of the same job has left.
    pub resume: bool,
    /// Replace the source: its directory is the destination.
    pub in_place: bool,
    /// Files that are a file of the source get its bytes without a copy, where the file system can.
    pub link: bool,
    /// Don't wait for the disk before the result becomes visible.
    pub unflushed: bool,
    /// What the command has read beside the source, its strategies and its adapter.
    pub inputs: Vec<PathBuf>,
}

impl Writing {
    /// Writing full weights into `path`, where nothing stands yet.
    #[must_use]
    pub fn into(path: impl Into<PathBuf>) -> Self {
        Writing {
            path: path.into(),
            ..Writing::default()
        }
    }

    /// The same, where the command has read `inputs` too.
    #[must_use]
    pub fn keeping<'a>(mut self, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        self.inputs.extend(inputs.into_iter().cloned());
        self
    }

    /// What it replaces of what stands at the destination, of the job that is told by `origin`: what it is asked to
    /// do, and of what.
    #[must_use]
    pub fn replaces(&self, origin: u64) -> Replace {
        match (self.in_place, self.overwrite, self.again) {
            (true, _, _) => Replace::Source,
            (false, true, _) => Replace::Results,
            (false, false, true) => Replace::Earlier(origin),
            (false, false, false) => Replace::Nothing,
        }
    }
}
