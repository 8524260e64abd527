//! The directories that a result lies in: one that all nodes share, or one on each node's own disk.

use crate::destination::place::Destination;
use crate::exchange::{World, all_gather};
use crate::fault::Result;
use crate::store::manifest::Hex;
use crate::store::whole::{RankRange, Whole, ranges};
use std::collections::BTreeMap;

/// The place of this process's directory in a result of `ranks` ranks. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn whole(
    world: &World,
    destination: &Destination,
    ranks: u32,
    request: u64,
) -> Result<Whole> {
    let request = Hex(request);
    if destination.shared {
        return Ok(Whole {
            request,
            sites: vec![ranges(0..ranks)],
            site: 0,
        });
    }
    // One process speaks for those that build the same ranks.
    let mine: Vec<RankRange> = if destination.head == world.process() {
        ranges(destination.site.ranks.iter().copied())
    } else {
        Vec::new()
    };
    let all: Vec<(u32, Vec<RankRange>)> = all_gather(world, &(destination.leader, mine))?;
    let mut by_leader: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (leader, ranges) in all {
        let ranks = ranges.into_iter().flat_map(|(begin, end)| begin..end);
        by_leader.entry(leader).or_default().extend(ranks);
    }
    by_leader.retain(|_, ranks| !ranks.is_empty());
    let site = by_leader.keys().position(|l| *l == destination.leader);
    let sites = by_leader.into_values().map(|mut ranks| {
        ranks.sort_unstable();
        ranges(ranks)
    });
    Ok(Whole {
        request,
        sites: sites.collect(),
        site: site.and_then(|site| u32::try_from(site).ok()).unwrap_or(0),
    })
}
