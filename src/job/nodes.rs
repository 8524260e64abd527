//! Whether nodes that each have a copy of the same file have the same in it.
//!
//! Each reads its own copy, so a result would be put together from several.

use crate::catalog::Place;
use crate::exchange::{Topology, World, all_gather_agreed, exchange_values};
use crate::fault::{Fault, Kind, Result};
use crate::job::values::Files;
use crate::source::{Source, Verify};
use crate::transport::{IoMode, Readers};
use std::collections::HashMap;

/// What a node has at a place: that, the node, and a value of its bytes.
type Evidence = (Place, u32, u64);

/// Whether nodes have copies of their own of what others have, too. Local: the same on every process.
pub(super) fn have_copies(source: &Source) -> bool {
    copied(source, 0).next().is_some()
}

/// Compares those of the ranks from `first_rank` on: a sample of each tensor, or all of it. Collective.
///
/// # Errors
/// [`Kind::Differs`] naming file, tensor and two nodes, the same on every process; as reading them.
pub(super) fn check(
    world: &World,
    topology: &Topology,
    source: &Source,
    verify: Verify,
    first_rank: u32,
) -> Result<()> {
    if verify == Verify::None || copied(source, first_rank).next().is_none() {
        return Ok(());
    }
    let evidence = exchange_values(world, own(source, verify, first_rank))?;
    let mut first: HashMap<Place, (u32, u64)> = HashMap::new();
    let mut found: Option<(Place, [u32; 2])> = None;
    for (place, node, value) in evidence {
        let (other, known) = *first.entry(place).or_insert((node, value));
        if known != value {
            let nodes = [other.min(node), other.max(node)];
            found = found.into_iter().chain([(place, nodes)]).min();
        }
    }
    let all = all_gather_agreed(world, Ok(found))?;
    let Some((place, nodes)) = all.into_iter().flatten().min() else {
        return Ok(());
    };
    let [one, other] = nodes.map(|node| {
        let name = topology.hostnames.get(node as usize);
        name.map_or("?", String::as_str)
    });
    let file = source.base.join(&source.catalog.file(place).path);
    let message = format!("nodes {one} and {other} have copies of it with different bytes");
    Err(Fault::new(Kind::Differs, message)
        .file(file.display().to_string())
        .tensor(&*source.catalog.entry(place).name)
        .hint(HINT))
}

/// What to do about them.
const HINT: &str = "give each node the same files, or each rank's to one node alone; --verify none takes what each \
                    process reads";

/// The ranks from `first_rank` on of which several nodes each have a copy of their own.
fn copied(source: &Source, first_rank: u32) -> impl Iterator<Item = u32> {
    let reach = &source.reach;
    let ranks = source.catalog.ranks.range(first_rank..);
    let ranks = ranks.map(|(rank, _)| *rank);
    ranks.filter(|rank| reach.homes(*rank).len() > 1 && !reach.common().contains(rank))
}

/// What falls to this process of its node's copies, for whoever compares it. Local.
fn own(source: &Source, verify: Verify, first_rank: u32) -> Result<Vec<(u32, Evidence)>> {
    let reach = &source.reach;
    let members = &reach.nodes[reach.node() as usize];
    let readers = Readers::new(&source.base, &source.catalog, IoMode::Auto);
    let mut files = Files::new(source, &readers, verify == Verify::All);
    let mut found = Vec::new();
    for rank in copied(source, first_rank).filter(|rank| reach.sees(*rank)) {
        let shards = source.catalog.ranks.get(&rank);
        for (file, shard) in (0u32..).zip(shards.into_iter().flatten()) {
            for (entry, _) in (0u32..).zip(&shard.schema.entries) {
                let place = Place { rank, file, entry };
                // Neighbours in a file stay with one process: it has that open.
                let turn = (rank + file + entry / IN_TURN) as usize;
                if members[turn % members.len()] == reach.process {
                    let value = files.value(place, u64::from(entry))?;
                    let referee = turn % reach.node_of.len();
                    let referee = u32::try_from(referee).unwrap_or_default();
                    found.push((referee, (place, reach.node(), value)));
                }
            }
        }
    }
    Ok(found)
}

/// Tensors that one process of a node reads, before it is another's turn.
const IN_TURN: u32 = 16;
