//! Whether what is written several times is the same everywhere.
//!
//! A tensor's digest counts one of each part's copies. Where nodes read sources of their own, what is written
//! on another node has been read from other files.

use crate::catalog::Catalog;
use crate::destination::Shown;
use crate::exchange::{World, all_gather, exchange_values};
use crate::fault::{Fault, Kind, Result};
use crate::plan::TensorPlan;
use crate::tensor::digest::residue;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What a directory has of one part of a tensor: the plan, a value of the part, a rank and its CRC.
type Copy = (u32, u64, u32, u64);

/// The plans of which two ranks were written differently, and those, in order: the same on every process.
/// Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn unlike(
    world: &World,
    plans: &[TensorPlan],
    catalog: &Catalog,
    shown: &Shown<'_>,
) -> Result<Vec<(u32, [u32; 2])>> {
    let mine = written(plans, catalog, shown);
    let processes = u64::from(world.size());
    let referred = mine.into_iter().map(|copy| {
        let referee = copy.1.wrapping_add(u64::from(copy.0)) % processes;
        (u32::try_from(referee).unwrap_or_default(), copy)
    });
    let mut copies: Vec<Copy> = exchange_values(world, Ok(referred.collect()))?;
    copies.sort_unstable();
    let mut first: HashMap<(u32, u64), (u32, u64)> = HashMap::new();
    let mut found: BTreeMap<u32, [u32; 2]> = BTreeMap::new();
    for (plan, part, rank, crc) in copies {
        let (known, other) = *first.entry((plan, part)).or_insert((rank, crc));
        if other != crc {
            found.entry(plan).or_insert([known, rank]);
        }
    }
    let all = all_gather(world, &found)?;
    let mut all: Vec<_> = all.into_iter().flatten().collect();
    all.sort_unstable();
    all.dedup_by_key(|(plan, _)| *plan);
    Ok(all)
}

/// The tensors of the source that those plans read of which `told` says something.
///
/// # Errors
/// [`Kind::Differs`] naming a tensor of which nothing else could tell, and the ranks.
pub(super) fn sources(
    plans: &[TensorPlan],
    unlike: &[(u32, [u32; 2])],
    told: &dyn Fn(&str) -> bool,
) -> Result<BTreeSet<Arc<str>>> {
    let mut all = BTreeSet::new();
    for (number, [one, other]) in unlike {
        let plan = &plans[*number as usize];
        let names = plan.pieces.iter().map(|(_, tensor)| &tensor.name);
        let names: Vec<&Arc<str>> = names.filter(|name| told(name)).collect();
        if names.is_empty() {
            let message =
                format!("ranks {one} and {other} would get different bytes of the same part");
            return Err(Fault::new(Kind::Differs, message)
                .tensor(&*plan.name)
                .hint(HINT));
        }
        all.extend(names.into_iter().cloned());
    }
    Ok(all)
}

/// What to do about them.
const HINT: &str = "they were read on different nodes, and nothing was put in place: is --src the same on each node? \
                    --verify none takes what each has";

/// Of each part with several holders, what was written of it in the directory that this process leads: of
/// those that are alike, one. Local.
fn written(plans: &[TensorPlan], catalog: &Catalog, shown: &Shown<'_>) -> Vec<Copy> {
    let mut named: HashMap<&str, Vec<u32>> = HashMap::new();
    for (plan, number) in plans.iter().zip(0u32..) {
        if plan.destination.layout.replicas() > 1 {
            named.entry(&plan.name).or_default().push(number);
        }
    }
    let mut ranks: HashMap<&str, u32> = HashMap::new();
    if !named.is_empty() && !shown.files.is_empty() {
        for (rank, files) in &catalog.ranks {
            ranks.extend(files.iter().map(|file| (&*file.path, *rank)));
        }
    }
    let mut copies: BTreeMap<(u32, u64, u64), u32> = BTreeMap::new();
    for (structures, files) in shown.files {
        for file in files {
            let placed = file.structure.and_then(|number| structures.get(number));
            let Some((rank, placed)) = ranks.get(&*file.path).zip(placed) else {
                continue;
            };
            for ((name, _), crc) in placed.iter().zip(&file.shards) {
                let numbers = named.get(&**name).into_iter().flatten();
                for number in numbers {
                    let spread = &plans[*number as usize].destination;
                    if !spread.ranks().contains(rank) {
                        continue;
                    }
                    let cell = spread.layout.cell(rank - spread.first_rank);
                    let cell: Vec<u8> = cell.iter().flat_map(|at| at.to_le_bytes()).collect();
                    let held = copies.entry((*number, residue(&cell), crc.0));
                    held.or_insert(*rank);
                }
            }
        }
    }
    let copy = |((plan, part, crc), rank)| (plan, part, rank, crc);
    copies.into_iter().map(copy).collect()
}
