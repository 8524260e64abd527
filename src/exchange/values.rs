//! Values of any type, gathered from all processes or brought to some.

use crate::exchange::agree::agree;
use crate::exchange::control::{all_gather_bytes, exchange_bytes};
use crate::exchange::wire::{decode, encode};
use crate::exchange::world::World;
use crate::fault::{Fault, Kind, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// *Collective.* What each process gives, by process, on every process. Mind the memory: all of it
/// is everywhere.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub fn all_gather<T: Serialize + DeserializeOwned>(world: &World, mine: &T) -> Result<Vec<T>> {
    gather(world, encode(mine))
}

/// *Collective.* As [`agree`], and then [`all_gather`], with one message for both while nobody fails. Not
/// where an alarm may have been raised since all last agreed.
///
/// # Errors
/// As [`agree`].
pub fn all_gather_agreed<T>(world: &World, mine: Result<T>) -> Result<Vec<T>>
where
    T: Serialize + DeserializeOwned,
{
    gather(world, mine.and_then(|mine| encode(&mine)))
}

/// The first byte of a message: whether it is one.
const GOOD: u8 = 1;

/// Values of what each process has encoded.
fn gather<T: DeserializeOwned>(world: &World, mine: Result<Vec<u8>>) -> Result<Vec<T>> {
    let message = match &mine {
        Ok(bytes) => [&[GOOD], &bytes[..]].concat(),
        Err(_) => Vec::new(),
    };
    #[cfg(test)]
    crate::exchange::in_memory::speak_of::<T>();
    let all = all_gather_bytes(world, &message)?;
    if all.iter().any(Vec::is_empty) {
        // All see that some have failed.
        agree(world, mine)?;
        let message = "a process has failed and doesn't say how";
        return Err(Fault::new(Kind::Internal, message));
    }
    // The same bytes everywhere: what can't be read here can't be read elsewhere.
    all.iter().map(|bytes| decode(&bytes[1..])).collect()
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
