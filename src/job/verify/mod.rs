//! verify: files against the manifest that was written with them, and two checkpoints by their
//! tensors' digests.

pub(super) mod checked;
mod compare;
pub(super) mod found;
mod own_sums;
pub(super) mod reader;
mod share;
mod subset;

use crate::course;
use crate::course::pace::{Doing, doing};
use crate::exchange::{Topology, World};
use crate::fault::Result;
use crate::job::account::{Part, account};
use crate::job::outcome::Outcome;
use crate::job::tally;
use crate::transport::Observer;
use checked::check;
use compare::compare;
use own_sums::own_sums;
use std::path::PathBuf;

pub use reader::find_bad;
pub(super) use reader::{bad_shards, check_header};
pub use subset::Subset;

/// What to verify.
#[derive(Clone, Debug)]
pub struct Verification {
    /// A directory with a manifest.
    pub directory: PathBuf,
    /// Another, which must have the same tensors, in whatever layout.
    pub against: Option<PathBuf>,
    /// A part of the files; none: all. Not used for the comparison with another.
    pub subset: Option<Subset>,
}

/// What is said where there is no manifest.
const NO_MANIFEST: &str = "there is no manifest: each file was compared with the checksums that it carries of itself; whether any are \
                           missing is known only where the others tell of them";

/// Verifies a directory; `observer` hears how many bytes are read, of how many. Collective.
///
/// # Errors
/// The same on every process, if there is no manifest; what is found wrong is no error.
pub fn verify(
    world: &World,
    verification: &Verification,
    observer: &mut Observer<'_>,
) -> Result<Outcome> {
    course::phase("checking files");
    let start = std::time::Instant::now();
    let topology = Topology::discover(world)?;
    let mut outcome = tally::outcome(world, &topology, "verify");
    let directory = &verification.directory;
    let mut part = Part::default();
    let own = match (&verification.against, verification.subset) {
        (None, None) => own_sums(world, &topology, directory)?,
        _ => None,
    };
    let (checked, bad) = if let Some(against) = &verification.against {
        compare(world, &topology, directory, against)?
    } else if let Some(told) = own {
        outcome.bytes.read = told.read;
        outcome.notes.push(NO_MANIFEST.to_owned());
        (told.checked, told.bad)
    } else {
        let mut checked = check(world, directory, verification.subset, None, observer)?;
        let mut bad = Vec::new();
        for number in checked.own() {
            if let Some(file) = checked.manifest.files.get(number) {
                let _reading = doing(Doing::Read);
                bad.extend(find_bad(directory, &checked.manifest, file));
                checked.read += file.bytes;
            }
        }
        part.read = checked.read;
        let told = checked.told(world, &topology, bad)?;
        outcome.bytes.read = told.read;
        (told.checked, told.bad)
    };
    outcome.ok = bad.is_empty();
    outcome.checked = Some(checked);
    let subset = verification
        .subset
        .filter(|_| verification.against.is_none());
    outcome.subset = subset.map(|subset| subset.to_string());
    outcome.bad = Some(bad);
    outcome.seconds.total = start.elapsed().as_secs_f64();
    outcome.account = account(world, &topology, &part)?;
    Ok(outcome)
}
