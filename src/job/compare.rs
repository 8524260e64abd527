//! What is compared: two checkpoints in any layouts, or the copies within one.

use crate::catalog::{Catalog, Entry, Place};
use crate::exchange::{Topology, World, agree, all_gather};
use crate::fault::{Fault, Kind, Result};
use crate::job::differing::{Found, differences};
use crate::job::outcome::{TensorDifference, TensorSide};
use crate::job::pairs::Pair;
use crate::job::unlike::Unlike;
use crate::plan::inventory::{Inventory, whole_tensor};
use crate::plan::{SourceTensor, Spread, TensorPlan};
use crate::source::Opened;
use crate::tensor::number::Difference;
use crate::tensor::quantise::Form;
use crate::transport::Moving;
use crate::view::Piece;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What of the tensors of `plans` the source `a` has several times, and not the same each time:
/// what this process finds. Collective.
///
/// # Errors
/// As [`differences`].
pub(super) fn unequal_copies(
    world: &World,
    topology: &Topology,
    a: &Opened,
    plans: &[TensorPlan],
    moving: &Moving,
) -> Result<BTreeMap<Arc<str>, Found>> {
    let mut sources: BTreeMap<&Arc<str>, &Arc<SourceTensor>> = BTreeMap::new();
    let pieces = plans.iter().flat_map(|plan| &plan.pieces);
    sources.extend(pieces.map(|(_, tensor)| (&tensor.name, tensor)));
    let several = |tensor: &SourceTensor| {
        tensor.spreads.len() > 1 || tensor.spreads.iter().any(|s| s.layout.replicas() > 1)
    };
    let copied = sources.into_values().filter(|tensor| several(tensor));
    let plans: Result<Vec<_>> = copied.map(|tensor| against(tensor, tensor)).collect();
    let plans: Vec<TensorPlan> = agree(world, plans)?.into_iter().flatten().collect();
    if plans.is_empty() {
        return Ok(BTreeMap::new());
    }
    differences(world, topology, a, a, &plans, moving, &mut |_, _| {})
}

/// Which of a side's tensors that are `named` it has several times and not the same each time, with what is
/// to be told of two such copies. Collective.
///
/// # Errors
/// As [`differences`].
pub(super) fn unlike_copies(
    world: &World,
    topology: &Topology,
    side: &Opened,
    named: impl Fn(&str) -> bool,
    moving: &Moving,
) -> Result<BTreeMap<String, String>> {
    let tensors = side.inventory.tensors.iter();
    let tensors = tensors.filter(|(name, _)| named(name));
    let plans: Result<Vec<_>> = tensors.map(|(_, tensor)| against(tensor, tensor)).collect();
    let plans: Vec<TensorPlan> = agree(world, plans)?.into_iter().flatten().collect();
    let found = unequal_copies(world, topology, side, &plans, moving)?;
    let mut told = BTreeMap::new();
    for (name, place) in places(world, found)? {
        let unlike = Unlike::to_others(world, side, &name, place)?;
        told.insert(name, unlike.told(&side.source));
    }
    Ok(told)
}

/// Compares all copies of a source's shards with the one that would be read. Collective.
///
/// # Errors
/// [`Kind::Differs`] naming tensor and file.
pub(super) fn copies(
    world: &World,
    topology: &Topology,
    opened: &Opened,
    moving: &Moving,
) -> Result<()> {
    let tensors = opened.inventory.tensors.values();
    let plans: Result<Vec<_>> = tensors.map(|t| against(t, t)).collect();
    let plans: Vec<TensorPlan> = agree(world, plans)?.into_iter().flatten().collect();
    let quiet = &mut |_, _| {};
    let found = differences(world, topology, opened, opened, &plans, moving, quiet)?;
    let found = places(world, found)?;
    let Some((name, place)) = found.into_iter().next() else {
        return Ok(());
    };
    let unlike = Unlike::to_others(world, opened, &name, place)?;
    Err(unlike.fault(&opened.source, &name))
}

/// Of each tensor the first place that any process has found unlike another copy. Collective.
fn places(world: &World, found: BTreeMap<Arc<str>, Found>) -> Result<BTreeMap<String, Place>> {
    let mine: Vec<(String, Place)> = found
        .into_iter()
        .map(|(name, found)| (name.to_string(), found.first))
        .collect();
    let mut all: BTreeMap<String, Place> = BTreeMap::new();
    for (name, place) in all_gather(world, &mine)?.into_iter().flatten() {
        let first = all.entry(name).or_insert(place);
        *first = (*first).min(place);
    }
    Ok(all)
}

/// What two sides have in common, and a row for every tensor of either.
pub(super) struct Pairing {
    pub(super) plans: Vec<TensorPlan>,
    /// The second side's tensors that are compared.
    pub(super) theirs: Vec<Arc<SourceTensor>>,
    rows: Vec<TensorDifference>,
    /// What the first side's tensors are called on the second, where it is something else.
    renamed: BTreeMap<Arc<str>, Arc<str>>,
}

impl Pairing {
    /// What the second side calls what the first one calls `name`.
    pub(super) fn theirs(&self, name: &Arc<str>) -> Arc<str> {
        self.renamed.get(name).unwrap_or(name).clone()
    }

    /// What the first side calls what the second one calls `name`, if it is something else.
    pub(super) fn ours(&self, name: &str) -> Option<&str> {
        let mut renamed = self.renamed.iter();
        let found = renamed.find(|(_, theirs)| &***theirs == name);
        found.map(|(ours, _)| &**ours)
    }

    /// The rows, with what was found different.
    pub(super) fn rows(self, found: &BTreeMap<String, Difference>) -> Vec<TensorDifference> {
        let mut rows = self.rows;
        for row in &mut rows {
            let name = row.name_in_b.as_ref().unwrap_or(&row.name);
            if row.state != "equal" {
                continue;
            }
            if let Some(difference) = found.get(name.as_str()) {
                row.state = "differs";
                row.elements_differing = difference.elements;
                row.max_abs = difference.max_abs;
                row.max_rel = difference.max_rel;
            }
        }
        rows
    }
}

/// Pairs the tensors of two sides. Local.
///
/// # Errors
/// [`Kind::Shape`].
pub(super) fn pair(one: &Opened, other: &Opened, pairs: &[Pair]) -> Result<Pairing> {
    let (a, b) = (&one.source, &other.source);
    let (left, right) = (&one.inventory, &other.inventory);
    let mut pairing = Pairing {
        plans: Vec::new(),
        theirs: Vec::new(),
        rows: Vec::new(),
        renamed: BTreeMap::new(),
    };
    for pair in pairs {
        let ours = pair.ours.as_ref();
        let ours = ours
            .map(|name| side(left, &a.catalog, name))
            .transpose()?
            .flatten();
        let theirs = side(right, &b.catalog, &pair.theirs)?;
        let name = pair.name();
        let renamed = *name != pair.theirs && theirs.is_some();
        if renamed {
            pairing.renamed.insert(name.clone(), pair.theirs.clone());
        }
        let state = match (&ours, &theirs) {
            (Some(_), None) => "only_in_a",
            (None, _) => "only_in_b",
            (Some(ours), Some(theirs)) if ours.dtype != theirs.dtype => "dtype",
            (Some(ours), Some(theirs)) if ours.shape != theirs.shape => "shape",
            (Some(ours), Some(theirs)) => {
                pairing.plans.extend(against(ours, theirs)?);
                pairing.theirs.push(theirs.clone());
                "equal"
            }
        };
        let shown = |side: &Option<Arc<SourceTensor>>| {
            side.as_ref().map(|tensor| TensorSide {
                dtype: tensor.dtype.safetensors_name(),
                shape: tensor.shape.0.clone(),
            })
        };
        pairing.rows.push(TensorDifference {
            a: shown(&ours),
            b: shown(&theirs),
            name: name.to_string(),
            name_in_b: renamed.then(|| pair.theirs.to_string()),
            state,
            elements_differing: 0,
            max_abs: 0.0,
            max_rel: 0.0,
        });
    }
    Ok(pairing)
}

/// A tensor of one side; a private one is taken as whole on each rank that has it.
fn side(
    inventory: &Inventory,
    catalog: &Catalog,
    name: &Arc<str>,
) -> Result<Option<Arc<SourceTensor>>> {
    if let Some(tensor) = inventory.tensors.get(name) {
        return Ok(Some(tensor.clone()));
    }
    let mut joined: Option<SourceTensor> = None;
    for place in catalog
        .ranks
        .keys()
        .filter_map(|rank| catalog.find(*rank, name))
    {
        let entry: &Entry = catalog.entry(place);
        let tensor = whole_tensor(entry, place.rank)?;
        match &mut joined {
            Some(joined) if joined.shape == tensor.shape && joined.dtype == tensor.dtype => {
                joined.spreads.extend(tensor.spreads);
            }
            Some(joined) => return Err(unlike_kinds(joined, &tensor, place.rank)),
            None => joined = Some(tensor),
        }
    }
    Ok(joined.map(Arc::new))
}

fn unlike_kinds(one: &SourceTensor, other: &SourceTensor, rank: u32) -> Fault {
    let first = one.spreads.first().map_or(0, |spread| spread.first_rank);
    let message = format!(
        "its strategy doesn't know it, and rank {first} has {} {}, rank {rank} {} {}",
        one.dtype, one.shape, other.dtype, other.shape
    );
    Fault::new(Kind::Differs, message)
        .tensor(&*one.name)
        .rank(rank)
        .hint("is it the strategy that these files were saved by?")
}

/// Plans that build `theirs`, in every stage it is in, from `ours`.
fn against(ours: &Arc<SourceTensor>, theirs: &Arc<SourceTensor>) -> Result<Vec<TensorPlan>> {
    let (bytes, element_bytes) = ours.shape.in_bytes(ours.dtype)?;
    let plan = |spread: &Spread| TensorPlan {
        name: theirs.name.clone(),
        dtype: ours.dtype,
        written: ours.dtype,
        form: Form::Elements,
        element_bytes,
        destination: spread.clone(),
        pieces: vec![(Piece::identity(ours.name.clone(), &bytes), ours.clone())],
        zeros_from: None,
    };
    Ok(theirs.spreads.iter().map(plan).collect())
}

/// What to do about a head that is no copy of the embedding.
const TIED_HINT: &str = "tie_word_embeddings of config.json says so: --untie keeps both; --allow-extra leaves this one out";
/// What to do about a layer's own embedding or head that is no copy of the model's.
const FURTHER_HINT: &str = "the trainer's network has one for all, for its further-token layers too; --allow-extra \
                            leaves this one out, and what predicts further tokens is changed by that";

/// What to do about `copy`, which is none.
fn hint(copy: &str) -> &'static str {
    if copy.contains(".layers.") {
        FURTHER_HINT
    } else {
        TIED_HINT
    }
}

/// Compares source tensors that are left out as copies with what they are copies of. Collective.
///
/// # Errors
/// [`Kind::Differs`] naming both.
pub(super) fn left_out(
    world: &World,
    topology: &Topology,
    opened: &Opened,
    copies: &[(Arc<str>, Arc<str>)],
    moving: &Moving,
) -> Result<()> {
    let tensors = &opened.inventory.tensors;
    let mut plans = Vec::new();
    for (copy, of) in copies {
        let (Some(copy), Some(of)) = (tensors.get(copy), tensors.get(of)) else {
            continue;
        };
        let kinds = [copy, of].map(|tensor| format!("{} {}", tensor.dtype, tensor.shape));
        if kinds[0] != kinds[1] {
            let message = format!(
                "it is {}, and '{}', of which it should be a copy, is {}",
                kinds[0], of.name, kinds[1]
            );
            let fault = Fault::new(Kind::Differs, message).tensor(&*copy.name);
            return agree(
                world,
                Err(opened.source.place(fault.hint(hint(&copy.name)))),
            );
        }
        plans.extend(agree(world, against(of, copy))?);
    }
    if plans.is_empty() {
        return Ok(());
    }
    let found = differences(
        world,
        topology,
        opened,
        opened,
        &plans,
        moving,
        &mut |_, _| {},
    )?;
    let fault = found.into_keys().next().map(|name| {
        let of = copies
            .iter()
            .find(|(copy, _)| tensors.get(copy).is_some_and(|tensor| tensor.name == name));
        let of = of.map_or("another tensor", |(_, of)| of);
        let message =
            format!("its elements are unlike those of '{of}', of which it should be a copy");
        Fault::new(Kind::Differs, message)
            .tensor(&*name)
            .hint(hint(&name))
    });
    agree(
        world,
        fault.map_or(Ok(()), |fault| Err(opened.source.place(fault))),
    )
}

/// What all processes have found, by tensor. Collective.
///
/// # Errors
/// [`Kind::Mpi`].
pub(super) fn joined(
    world: &World,
    found: BTreeMap<Arc<str>, Found>,
) -> Result<BTreeMap<String, Difference>> {
    let found = found.into_iter();
    let mine: Vec<(String, Difference)> = found
        .map(|(name, found)| (name.to_string(), found.difference))
        .collect();
    let mut all: BTreeMap<String, Difference> = BTreeMap::new();
    for (name, difference) in all_gather(world, &mine)?.into_iter().flatten() {
        all.entry(name)
            .and_modify(|old| old.add(&difference))
            .or_insert(difference);
    }
    Ok(all)
}
