//! The files of a destination while they are being filled.

use crate::catalog::Catalog;
use crate::destination::place::Destination;
use crate::destination::resume::{Resumed, State, Wanted, take_up};
use crate::exchange::{World, agree};
use crate::fault::Result;
use crate::host::bug::Bug;
use crate::host::planted::planted;
use crate::plan::work::Skip;
use crate::store::io::WriteFile;

/// Files that are created in full size, and what an earlier run has left in them.
pub(crate) struct Staged {
    /// Those that fall to this process.
    pub(super) created: Vec<WriteFile>,
    /// What need not be done again.
    pub(super) resumed: Resumed,
}

impl Staged {
    /// Creates the files of `catalog`, or takes up those that an earlier run has left. Collective.
    ///
    /// # Errors
    /// The same on every process.
    pub(crate) fn create(
        world: &World,
        destination: &Destination,
        catalog: &Catalog,
        wanted: &Wanted,
    ) -> Result<Staged> {
        let resumed = take_up(world, destination, catalog, wanted)?;
        let mut staged = Staged {
            created: Vec::new(),
            resumed,
        };
        let created = if staged.is_complete() {
            Ok(Vec::new())
        } else {
            destination.create(catalog)
        };
        if planted(Bug::EarlyReturn)
            && let Err(fault) = &created
        {
            return Err(fault.clone());
        }
        let created = agree(world, created);
        staged.created = destination.or_discard(wanted.resume, created)?;
        Ok(staged)
    }

    /// What need not be moved again.
    pub(crate) fn skip(&self) -> &Skip {
        &self.resumed.skip
    }

    /// Whether an earlier run has moved everything.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.resumed.state, State::Staged | State::Placed)
    }
}
