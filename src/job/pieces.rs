//! Whether source tensors that were read in pieces are what the source's manifest says.

use crate::exchange::{World, exchange_values};
use crate::fault::Result;
use crate::tensor::digest::{checksum, finish};
use crate::transport::{Sums, Traced};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What a process has read of a tensor: name, first rank that it goes to, its bytes, those read, their
/// residue.
type Share = (Arc<str>, u32, u64, u64, u64);

/// The tensors that were read as a whole, and have other digests than those that are `known`: each
/// process finds some. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn damaged(
    world: &World,
    traced: &Traced,
    sums: &Sums,
    known: impl Fn(&str) -> Option<u64>,
) -> Result<BTreeSet<Arc<str>>> {
    let wholes = (0u32..).zip(&traced.wholes);
    let shares = wholes.filter_map(|(number, whole)| {
        let (bytes, residue) = *sums.get(&number)?;
        let name = whole.name.clone();
        let share: Share = (name, whole.first_rank, whole.bytes, bytes, residue);
        Some((referee(world, &whole.name), share))
    });
    let shares = exchange_values(world, Ok(shares.collect()))?;
    let mut read: HashMap<(Arc<str>, u32, u64), (u64, u64)> = HashMap::new();
    for (name, first_rank, whole, bytes, residue) in shares {
        let sum = read.entry((name, first_rank, whole)).or_default();
        *sum = (sum.0 + bytes, sum.1 ^ residue);
    }
    let whole = read
        .into_iter()
        .filter(|((_, _, whole), (bytes, _))| whole == bytes);
    let damaged = whole.filter(|((name, _, whole), (_, residue))| {
        known(name).is_some_and(|old| old != finish(*residue, *whole))
    });
    Ok(damaged.map(|((name, _, _), _)| name).collect())
}

/// The process that puts together what all have read of a tensor.
pub(super) fn referee(world: &World, name: &str) -> u32 {
    let number = checksum(name.as_bytes()) % u64::from(world.size());
    u32::try_from(number).unwrap_or_default()
}
