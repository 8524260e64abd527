//! Whether source tensors that were read in pieces are what the source's manifest says.

use crate::exchange::{World, agree, decode, encode, exchange_bytes};
use crate::fault::Result;
use crate::tensor::digest::{checksum, finish};
use crate::transport::{Sums, Traced};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    let processes = u64::from(world.size());
    let mut reports: BTreeMap<u32, Vec<Share>> = BTreeMap::new();
    for (whole, (bytes, residue)) in (0u32..)
        .zip(&traced.wholes)
        .filter_map(|(number, whole)| Some((whole, *sums.get(&number)?)))
    {
        let referee = checksum(whole.name.as_bytes()) % processes;
        let reports = reports.entry(u32::try_from(referee).unwrap_or_default());
        let share = (
            whole.name.clone(),
            whole.first_rank,
            whole.bytes,
            bytes,
            residue,
        );
        reports.or_default().push(share);
    }
    let encoded = reports
        .iter()
        .map(|(to, report)| Ok((*to, encode(report)?)));
    let encoded = encoded.collect::<Result<Vec<_>>>();
    let messages = exchange_bytes(world, agree(world, encoded)?)?;
    let shares = messages
        .iter()
        .map(|(_, bytes)| decode::<Vec<Share>>(bytes));
    let shares = agree(world, shares.collect::<Result<Vec<_>>>())?;
    let mut read: HashMap<(Arc<str>, u32, u64), (u64, u64)> = HashMap::new();
    for (name, first_rank, whole, bytes, residue) in shares.into_iter().flatten() {
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
