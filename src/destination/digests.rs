//! The digests of a result's tensors: what all processes have done of each, put together.
//!
//! All processes have the same plans of stages' tensors, so one is its number among them, and its residue one word of
//! a sum: what comes to a process grows with the tensors, and not with the processes. Plans of what single ranks get
//! are the same at one site only: there the first process puts them together, and tells of each name once.

use crate::destination::place::Destination;
use crate::exchange::{
    Operation, World, agree, all_reduce, broadcast_bytes, decode, encode, exchange_bytes,
};
use crate::fault::Result;
use crate::plan::TensorPlan;
use crate::plan::arrange::element_shape;
use crate::store::manifest::{Hex, Manifest, TensorRecord};
use crate::tensor::digest::finish;
use crate::transport::Done;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a manifest says of tensors, by name.
pub(super) type Records = BTreeMap<String, TensorRecord>;

/// The digests of all tensors: name, element type, shape, digest; and of what was read of those that
/// are changed.
#[derive(Default, Serialize, Deserialize)]
struct Joined {
    tensors: Vec<(String, String, Vec<u64>, u64)>,
    stored: Vec<(String, u64)>,
}

/// A tensor of a rank or of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Whole {
    dtype: String,
    shape: Vec<u64>,
    bytes: u64,
    residue: u64,
    /// Bytes that were read, and their residue, where other ones are written.
    stored: Option<(u64, u64)>,
}

/// Tensors of single ranks by name and rank: of a name the first rank's, and the next one's that is another.
type Private = BTreeMap<String, BTreeMap<u32, Whole>>;

/// What is put together.
pub(super) struct Of<'a> {
    /// The tensors.
    pub(super) plans: &'a [TensorPlan],
    /// So many of them, the first, are the same on every process.
    pub(super) common: usize,
    /// Ranks stand for files.
    pub(super) by_file: bool,
    /// Who makes them.
    pub(super) destination: &'a Destination,
}

/// The digests of all tensors `of` a job, and of what was read of those that are changed, on every process: as what
/// this one has `done` adds to them, or as `known` from before, to the first process that knows them. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`], on every process.
pub(super) fn all(
    world: &World,
    of: &Of<'_>,
    done: &Done,
    known: Option<&Manifest>,
) -> Result<(Records, Vec<(String, u64)>)> {
    let knows = known.map_or(u64::MAX, |_| u64::from(world.process()));
    let mut first = [knows];
    all_reduce(world, &mut first, Operation::Min)?;
    let (root, joined) = match u32::try_from(first[0]) {
        Ok(root) => (root, known.map(told)),
        Err(_) => (0, summed(world, of, done)?),
    };
    let joined = joined.filter(|_| world.process() == root);
    let bytes = agree(world, encode(&joined.unwrap_or_default()))?;
    let bytes = broadcast_bytes(world, root, bytes)?;
    let all: Joined = agree(world, decode(&bytes))?;
    let record = |(name, dtype, shape, digest)| {
        let digest = Hex(digest);
        (
            name,
            TensorRecord {
                dtype,
                shape,
                digest,
            },
        )
    };
    Ok((all.tensors.into_iter().map(record).collect(), all.stored))
}

/// What a manifest tells of them.
fn told(manifest: &Manifest) -> Joined {
    let tensors = manifest.tensors.iter();
    let tensors =
        tensors.map(|(name, t)| (name.clone(), t.dtype.clone(), t.shape.clone(), t.digest.0));
    Joined {
        tensors: tensors.collect(),
        ..Joined::default()
    }
}

/// What all have done of the tensors, on the first process. Collective.
fn summed(world: &World, of: &Of<'_>, done: &Done) -> Result<Option<Joined>> {
    let site = &of.destination.site;
    let (plans, own) = of.plans.split_at(of.common);
    // Where all are one site they have all plans in common.
    let private = match site.everybody {
        true => Private::new(),
        false => of_ranks(world, of.destination.head, own, of.common, done)?,
    };
    let residues = |mine: &BTreeMap<u32, u64>| {
        let mine = mine.iter().map(|(number, residue)| (*number, *residue));
        joined(world, plans.len(), mine, Operation::Xor)
    };
    let written = residues(&done.tensors)?;
    let mut changed = [done.stored.len() as u64];
    all_reduce(world, &mut changed, Operation::Max)?;
    let stored = match changed[0] {
        0 => None,
        _ => {
            let touched = done.stored.keys().map(|number| (*number, 1));
            Some((
                residues(&done.stored)?,
                joined(world, plans.len(), touched, Operation::Max)?,
            ))
        }
    };
    if world.process() != 0 {
        return Ok(None);
    }
    let of_plan = |(number, (plan, residue)): (usize, (&TensorPlan, u64))| {
        let stored = stored.as_ref().filter(|(_, touched)| touched[number] > 0);
        Whole::of(plan, residue, stored.map(|(residues, _)| residues[number]))
    };
    let wholes = plans.iter().zip(written).enumerate().map(of_plan);
    let named = plans
        .iter()
        .map(|plan| (plan.name.to_string(), plan.destination.first_rank));
    let private = private.into_iter().flat_map(|(name, ranks)| {
        let ranks = ranks.into_iter();
        ranks.map(move |(rank, whole)| ((name.clone(), rank), whole))
    });
    Ok(Some(join(named.zip(wholes).chain(private), of.by_file)))
}

/// What all sites have done of the tensors of single ranks, on the first process: `own` are those of this process's
/// site, numbered from `from` on, whose first process is `head`. Collective.
fn of_ranks(
    world: &World,
    head: u32,
    own: &[TensorPlan],
    from: usize,
    done: &Done,
) -> Result<Private> {
    let numbers = (from..).take(own.len());
    let numbers = numbers.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let mine = numbers.map(|number| {
        let of = |residues: &BTreeMap<u32, u64>| residues.get(&number).copied();
        (of(&done.tensors).unwrap_or_default(), of(&done.stored))
    });
    let mine: Vec<(u64, Option<u64>)> = mine.collect();
    let parts = exchange_bytes(world, vec![(head, agree(world, encode(&mine))?)])?;
    let parts = parts.iter().map(|(_, bytes)| decode(bytes));
    let parts: Vec<Vec<(u64, Option<u64>)>> = agree(world, parts.collect())?;
    let mut private = Private::new();
    if !parts.is_empty() {
        for (index, plan) in own.iter().enumerate() {
            let (residue, stored) = sum(parts.iter().filter_map(|part| part.get(index)));
            let whole = Whole::of(plan, residue, stored);
            take(
                &mut private,
                plan.name.to_string(),
                plan.destination.first_rank,
                whole,
            );
        }
    }
    let bytes = agree(world, encode(&private))?;
    let told = (!private.is_empty()).then_some((0, bytes));
    let sites = exchange_bytes(world, told.into_iter().collect())?;
    let sites = sites.iter().map(|(_, bytes)| decode(bytes));
    let sites: Vec<Private> = agree(world, sites.collect())?;
    let mut all = Private::new();
    for (name, ranks) in sites.into_iter().flatten() {
        for (rank, whole) in ranks {
            take(&mut all, name.clone(), rank, whole);
        }
    }
    Ok(all)
}

/// The residue of a tensor, of what was written and of what was read, from those of its parts.
fn sum<'a>(parts: impl Iterator<Item = &'a (u64, Option<u64>)>) -> (u64, Option<u64>) {
    let mut sum = (0, None);
    for (residue, stored) in parts {
        sum.0 ^= residue;
        if let Some(residue) = stored {
            *sum.1.get_or_insert(0) ^= residue;
        }
    }
    sum
}

/// Adds a rank's tensor, if it is needed to tell what the name has, and whether it is one.
fn take(all: &mut Private, name: String, rank: u32, whole: Whole) {
    let ranks = all.entry(name).or_default();
    ranks.insert(rank, whole);
    let mut told: BTreeMap<u32, Whole> = BTreeMap::new();
    for (rank, whole) in std::mem::take(ranks) {
        if told.len() < 2 && told.values().all(|known| *known != whole) {
            told.insert(rank, whole);
        }
    }
    *ranks = told;
}

/// What `mine` has of so many tensors, and 0 of the others, joined over all processes. Collective.
fn joined(
    world: &World,
    tensors: usize,
    mine: impl Iterator<Item = (u32, u64)>,
    operation: Operation,
) -> Result<Vec<u64>> {
    let mut all = vec![0; tensors];
    for (number, value) in mine {
        if let Some(all) = all.get_mut(number as usize) {
            *all = value;
        }
    }
    all_reduce(world, &mut all, operation)?;
    Ok(all)
}

impl Whole {
    fn of(plan: &TensorPlan, residue: u64, stored: Option<u64>) -> Whole {
        let shape = plan.destination.grid.full_shape();
        let read = shape.0.iter().product::<u64>() * plan.element_bytes;
        Whole {
            dtype: plan.written.safetensors_name().to_owned(),
            bytes: plan.written_bytes(read),
            shape: element_shape(&plan.written_shape(&shape), plan.written).0,
            residue,
            stored: stored.map(|residue| (read, residue)),
        }
    }
}

/// Joins what is of one name. A name that ranks or stages have different tensors of is left
/// out: it is several tensors.
fn join(wholes: impl Iterator<Item = ((String, u32), Whole)>, by_file: bool) -> Joined {
    let mut tensors: BTreeMap<String, BTreeMap<u32, Whole>> = BTreeMap::new();
    for ((name, first_rank), whole) in wholes {
        tensors.entry(name).or_default().insert(first_rank, whole);
    }
    let read = tensors.iter().flat_map(|(name, ranks)| {
        let stored = ranks.values().filter_map(|whole| whole.stored);
        stored.map(move |(bytes, residue)| (name.clone(), finish(residue, bytes)))
    });
    let stored = read.collect();
    let one = |(name, ranks): (String, BTreeMap<u32, Whole>)| {
        let several = by_file && ranks.len() > 1;
        let mut wholes = ranks.into_values();
        let whole = wholes.next().filter(|_| !several)?;
        let same = |other: Whole| {
            (&other.dtype, &other.shape, other.residue)
                == (&whole.dtype, &whole.shape, whole.residue)
        };
        if !wholes.all(same) {
            return None;
        }
        let digest = finish(whole.residue, whole.bytes);
        Some((name, whole.dtype, whole.shape, digest))
    };
    Joined {
        tensors: tensors.into_iter().filter_map(one).collect(),
        stored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cancel_out_where_they_are_the_same() {
        let of = |parts: &[(u64, Option<u64>)]| sum(parts.iter());
        assert_eq!(of(&[]), (0, None));
        assert_eq!(of(&[(6, None), (3, None)]), (5, None));
        assert_eq!(of(&[(6, Some(12)), (3, None), (1, Some(10))]), (4, Some(6)));
    }

    #[test]
    fn of_a_name_the_first_rank_and_the_first_other_one_are_kept() {
        let whole = |residue| Whole {
            dtype: "F32".to_owned(),
            shape: vec![2],
            bytes: 8,
            residue,
            stored: None,
        };
        let kept = |found: &[(u32, u64)]| {
            let mut all = Private::new();
            for (rank, residue) in found {
                take(&mut all, "w".to_owned(), *rank, whole(*residue));
            }
            let kept = all["w"].iter();
            kept.map(|(rank, whole)| (*rank, whole.residue))
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(&[(0, 5), (1, 5), (2, 5)]), [(0, 5)]);
        assert_eq!(kept(&[(2, 5), (0, 5)]), [(0, 5)]);
        assert_eq!(kept(&[(0, 5), (1, 6), (2, 7), (3, 6)]), [(0, 5), (1, 6)]);
        assert_eq!(kept(&[(3, 6), (1, 7), (2, 5)]), [(1, 7), (2, 5)]);
    }
}
