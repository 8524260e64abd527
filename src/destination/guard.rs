//! One run at a destination, agreed on by all processes.

use crate::course;
use crate::destination::place::Destination;
use crate::exchange::{World, agree};
use crate::fault::Result;
use crate::store::commit::Staging;
use crate::store::lock::beside;
use std::path::Path;

impl Destination {
    /// Takes the lock of each directory that is written, for as long as this value lives. Collective.
    ///
    /// # Errors
    /// The same on every process: [`crate::fault::Kind::Busy`] if another run writes there.
    pub(crate) fn hold(&mut self, world: &World, command: &str) -> Result<()> {
        let taken = if self.leads {
            self.staging.lock(command, world.hostname())
        } else {
            Ok(())
        };
        agree(world, taken)?;
        let destination = self.staging.destination();
        course::writes(destination, &beside(destination));
        Ok(())
    }
}

/// The lock of a directory, on the process that has it: until it is dropped no job writes there.
#[derive(Debug)]
pub struct Held {
    _staging: Option<Staging>,
}

/// Takes the lock of the directory at `path` for a command that changes what is in it. Collective.
///
/// # Errors
/// The same on every process: [`crate::fault::Kind::Busy`] if another run writes there,
/// [`crate::fault::Kind::Io`].
pub fn hold(world: &World, path: &Path, command: &str) -> Result<Held> {
    let taken = if world.process() == 0 {
        Staging::new(path).and_then(|mut staging| {
            staging.lock(command, world.hostname())?;
            Ok(Some(staging))
        })
    } else {
        Ok(None)
    };
    let staging = agree(world, taken)?;
    Ok(Held { _staging: staging })
}
