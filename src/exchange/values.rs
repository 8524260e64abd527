//! Values of any type, gathered from all processes.

use crate::exchange::agree::agree;
use crate::exchange::control::all_gather_bytes;
use crate::exchange::wire::{decode, encode};
use crate::exchange::world::World;
use crate::fault::Result;
use serde::{Serialize, de::DeserializeOwned};

/// *Collective.* What each process gives, by process, on every process. Mind the memory: all of it
/// is everywhere.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub fn all_gather<T: Serialize + DeserializeOwned>(world: &World, mine: &T) -> Result<Vec<T>> {
    let bytes = agree(world, encode(mine))?;
    let all = all_gather_bytes(world, &bytes)?;
    agree(world, all.iter().map(|bytes| decode(bytes)).collect())
}
