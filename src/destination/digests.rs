//! The digests of a result's tensors: what all processes have done of each, put together.
//!
//! All processes have the same plans, so a tensor is its number among them, and its residue one word of a sum: what
//! comes to a process grows with the tensors, and not with the processes.

use crate::exchange::{Operation, World, agree, all_reduce, broadcast_bytes, decode, encode};
use crate::fault::Result;
use crate::plan::TensorPlan;
use crate::plan::arrange::element_shape;
use crate::store::manifest::{Hex, Manifest, TensorRecord};
use crate::tensor::digest::finish;
use crate::transport::Done;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

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
struct Whole {
    dtype: &'static str,
    shape: Vec<u64>,
    bytes: u64,
    residue: u64,
    /// Bytes that were read, and their residue, where other ones are written.
    stored: Option<(u64, u64)>,
}

/// The digests of all tensors of `plans`, and of what was read of those that are changed, on every process: as what
/// this one has `done` adds to them, or as `known` from before, to the first process that knows them. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`], on every process.
pub(super) fn all(
    world: &World,
    plans: &[TensorPlan],
    done: &Done,
    known: Option<&Manifest>,
    by_file: bool,
) -> Result<(Records, Vec<(String, u64)>)> {
    let knows = known.map_or(u64::MAX, |_| u64::from(world.process()));
    let mut first = [knows];
    all_reduce(world, &mut first, Operation::Min)?;
    let (root, joined) = match u32::try_from(first[0]) {
        Ok(root) => (root, known.map(told)),
        Err(_) => (0, summed(world, plans, done, by_file)?),
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
fn summed(
    world: &World,
    plans: &[TensorPlan],
    done: &Done,
    by_file: bool,
) -> Result<Option<Joined>> {
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
        .map(|plan| (&*plan.name, plan.destination.first_rank));
    Ok(Some(join(named.zip(wholes), by_file)))
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
            dtype: plan.written.safetensors_name(),
            bytes: plan.written_bytes(read),
            shape: element_shape(&plan.written_shape(&shape), plan.written).0,
            residue,
            stored: stored.map(|residue| (read, residue)),
        }
    }

    /// Adds what is the same tensor's.
    fn add(&mut self, other: &Whole) {
        self.residue ^= other.residue;
        if let Some((bytes, residue)) = other.stored {
            self.stored.get_or_insert((bytes, 0)).1 ^= residue;
        }
    }
}

/// Joins what is of one name and first rank. A name that ranks or stages have different tensors of is left
/// out: it is several tensors.
fn join<'a>(wholes: impl Iterator<Item = ((&'a str, u32), Whole)>, by_file: bool) -> Joined {
    let mut tensors: BTreeMap<&str, BTreeMap<u32, Whole>> = BTreeMap::new();
    for ((name, first_rank), whole) in wholes {
        match tensors.entry(name).or_default().entry(first_rank) {
            Entry::Occupied(mut entry) => entry.get_mut().add(&whole),
            Entry::Vacant(entry) => {
                entry.insert(whole);
            }
        }
    }
    let read = tensors.iter().flat_map(|(name, ranks)| {
        let stored = ranks.values().filter_map(|whole| whole.stored);
        stored.map(move |(bytes, residue)| ((*name).to_owned(), finish(residue, bytes)))
    });
    let stored = read.collect();
    let one = |(name, ranks): (&str, BTreeMap<u32, Whole>)| {
        let several = by_file && ranks.len() > 1;
        let mut wholes = ranks.into_values();
        let whole = wholes.next().filter(|_| !several)?;
        let same = |other: Whole| {
            (other.dtype, &other.shape, other.residue) == (whole.dtype, &whole.shape, whole.residue)
        };
        if !wholes.all(same) {
            return None;
        }
        let digest = finish(whole.residue, whole.bytes);
        Some((name.to_owned(), whole.dtype.to_owned(), whole.shape, digest))
    };
    Joined {
        tensors: tensors.into_iter().filter_map(one).collect(),
        stored,
    }
}
