//! Values of any type, gathered from all processes or brought to some.

use crate::exchange::agree::agree;
use crate::exchange::control::{all_gather_bytes, exchange_bytes};
use crate::exchange::wire::{decode, encode};
use crate::exchange::world::World;
use crate::fault::Result;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

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

/// *Collective.* Brings each value to the process that stands before it; gives those for this one, by
/// sender.
///
/// # Errors
/// The same on every process: that of a process whose values failed, [`crate::fault::Kind::Mpi`].
pub fn exchange_values<T: Serialize + DeserializeOwned>(
    world: &World,
    mine: Result<Vec<(u32, T)>>,
) -> Result<Vec<T>> {
    let encoded = mine.and_then(|mine| {
        let mut values: BTreeMap<u32, Vec<T>> = BTreeMap::new();
        for (to, value) in mine {
            values.entry(to).or_default().push(value);
        }
        let encoded = values.iter().map(|(to, values)| Ok((*to, encode(values)?)));
        encoded.collect::<Result<Vec<_>>>()
    });
    let messages = exchange_bytes(world, agree(world, encoded)?)?;
    let decoded = messages.iter().map(|(_, bytes)| decode::<Vec<T>>(bytes));
    let decoded = agree(world, decoded.collect::<Result<Vec<_>>>())?;
    Ok(decoded.into_iter().flatten().collect())
}
