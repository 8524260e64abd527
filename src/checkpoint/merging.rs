//! Full weights of a complete checkpoint, beside it.

use crate::checkpoint::shelf::Shelf;
use crate::destination::Writing;
use crate::exchange::World;
use crate::fault::Result;
use crate::job::{Goal, Job, Write, run};
use crate::plan::arrange::FULL_FILE_BYTES_MAX;
use crate::plan::arrange::{Files, Naming};
use crate::plan::build::{Leftovers, Unmatched};
use crate::source::Reading;
use crate::source::meta::Name;
use crate::strategy::StrategyInput;
use crate::transport::Moving;
use std::path::PathBuf;

/// Most memory for merging, in bytes a process.
const MERGING_BYTES_MAX: u64 = 1 << 30;

/// Merges checkpoint `name` of the ranks below the shelf's root. Collective.
///
/// # Errors
/// The same on every process: those of a job that unifies.
pub(super) fn merge(
    world: &World,
    shelf: &Shelf,
    strategy: Option<PathBuf>,
    name: &Name,
) -> Result<()> {
    let directory = shelf.root().join("checkpoint");
    let suffix = Some(name.suffix());
    let files = Files::Full {
        naming: Naming::Hf,
        file_bytes_max: FULL_FILE_BYTES_MAX,
    };
    let writing = Writing {
        overwrite: true,
        ..Writing::into(shelf.merged(name))
    };
    let write = Write::new(Leftovers::Unify(Unmatched::Fail), files, writing);
    let reading = Reading::checkpoint(directory, strategy.map(StrategyInput::from), suffix);
    let job = Job {
        moving: Moving {
            memory_bytes: MERGING_BYTES_MAX,
            threads: 1,
            ..Moving::default()
        },
        ..Job::new("unify", reading, Goal::Write(Box::new(write)))
    };
    run(world, &job, &mut |_, _| {}).map(|_| ())
}
