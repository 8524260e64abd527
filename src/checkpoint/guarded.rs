//! One run at a time saves into a directory: its lock is held while a checkpoint is written, recorded, or
//! older ones are removed.

use crate::destination::{Guard, Held};
use crate::exchange::{Topology, World};
use crate::fault::Result;
use std::path::Path;

/// What a monitor writes to, and the lock of it, if it is held.
#[derive(Debug)]
pub(super) struct Guarded {
    guard: Guard,
    held: Option<Held>,
}

impl Guarded {
    /// The rank directories at `directory`, which need not stand. Collective.
    ///
    /// # Errors
    /// The same on every process: [`crate::fault::Kind::Io`].
    pub(super) fn new(world: &World, topology: &Topology, directory: &Path) -> Result<Guarded> {
        Ok(Guarded {
            guard: Guard::of(world, topology, directory)?,
            held: None,
        })
    }

    /// Takes the lock, unless it is held. Collective.
    ///
    /// # Errors
    /// The same on every process: [`crate::fault::Kind::Busy`] if another run writes there.
    pub(super) fn take(&mut self, world: &World) -> Result<()> {
        if self.held.is_none() {
            self.held = Some(self.guard.hold(world, "the saving of a training")?);
        }
        Ok(())
    }

    /// Gives the lock back. To be called when no process of the run writes any more. Local.
    pub(super) fn release(&mut self) {
        self.held = None;
    }
}
