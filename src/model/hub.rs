//! Weights that have Hugging Face's names already: those of a training job with PyTorch, as FSDP and DeepSpeed save
//! them.

use super::choices::Choices;
use super::expression::Numbers;
use super::family::Family;
use super::import::{Import, any_starts, missing, written};
use super::link::Tensor;
use super::mapping::Mapping;
use super::refusals::{refuse_adapted, refuse_quantised, unmade};
use super::states::{is_optimizers, is_state, of};
use super::strangers::{missing_tensor, refuse_extra};
use super::tied::copies;
use super::vocabulary::Vocabulary;
use super::wrapped::refuse_wrapped;
use crate::fault::Result;
use crate::plan::inventory::Inventory;
use crate::view::{MadeOf, Piece, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whether any of `names`, or what it is a state of, is called so in this model at Hugging Face, and none as it is at
/// MindSpore alone. Local.
///
/// # Errors
/// As [`Mapping::new`].
pub fn has_its_names<'a>(
    family: &Family,
    numbers: &Numbers,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<bool> {
    let mapping = Mapping::new(family, numbers, &usual(family), &|_, _| true)?;
    let known = known(&mapping);
    let ours = mapping.links.iter().flat_map(|link| &link.ms);
    let ours: BTreeSet<&str> = ours.map(|tensor| &*tensor.name).collect();
    let mut tensors = names.map(of);
    let other = |name: &str| ours.contains(name) && !known.contains(name);
    Ok(tensors.clone().any(|name| known.contains(name)) && !tensors.any(other))
}

/// The choices of the family's usual job: what Hugging Face's side is called doesn't depend on them.
fn usual(family: &Family) -> Choices {
    Choices::usual(family.usual_names)
}

/// All names that the Hugging Face side may have.
fn known(mapping: &Mapping) -> BTreeSet<&str> {
    let linked = mapping.links.iter().flat_map(|link| &link.hf);
    let names = linked.flat_map(|tensor| std::iter::once(&tensor.name).chain(&tensor.also));
    let others = mapping.only_hf.iter().map(|(name, _)| name);
    let all = names.chain(others).chain(&mapping.unnamed);
    all.map(|name| &**name).collect()
}

/// What a model has of a source with its names.
pub(super) struct Kept {
    /// Each tensor as it is.
    pub(super) table: Table,
    pub(super) vocabulary: Vocabulary,
    /// What is to be said of those that lack.
    pub(super) note: Option<String>,
    /// Tensors that are left out as copies of others, with those.
    pub(super) copies: Vec<(Arc<str>, Arc<str>)>,
}

/// What is kept of a source that has Hugging Face's names, of which `reader` reads the model: an optimizer's states are left
/// out. None for another source.
///
/// # Errors
/// As [`Import::view`].
pub(super) fn kept(reader: &Import, inventory: &Inventory) -> Result<Option<Kept>> {
    let (family, numbers) = (&reader.family, &reader.numbers);
    let present = |hf: &str, _: &str| any_starts(inventory, hf);
    let mapping = Mapping::new(family, numbers, &usual(family), &present)?;
    let fused = reader.fused(inventory, &mapping)?;
    let mut known = known(&mapping);
    known.extend(fused.values().map(|fused| &*fused.name));
    let names = || inventory.tensors.keys().map(|name| &**name);
    let theirs = |name: &&str| !is_state(name, &known) && !is_optimizers(name, &known);
    let right = names().filter(|name| known.contains(name)).count();
    if 2 * right <= names().filter(theirs).count().max(1) {
        refuse_wrapped(inventory, &known, &family.family)?;
        return Ok(None);
    }
    refuse_quantised(inventory)?;
    if !reader.allow_extra {
        let state = |name: &str| !theirs(&name);
        refuse_extra(inventory, &mapping, &known, state, &family.family, numbers)?;
    }
    refuse_adapted(inventory, &mapping, false)?;
    let copies = copies(inventory, &mapping);
    let (mut table, mut vocabulary) = (Table::new(), Vocabulary::new(reader.vocabulary_rows));
    let mut lacking: Vec<&str> = Vec::new();
    let mut told: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for link in &mapping.links {
        if let Some(name) = missing(inventory, &mapping, link, &fused, &mut vocabulary)? {
            if !reader.allow_missing {
                return Err(missing_tensor(
                    inventory,
                    &mapping,
                    name,
                    &family.family,
                    numbers,
                ));
            }
            lacking.push(name);
        }
        for tensor in &link.hf {
            let named = names_of(tensor).chain(fused.get(&tensor.name).map(|all| &all.name));
            told.extend(named.map(|name| (&**name, (link.keeps_dtype, tensor.vocabulary))));
        }
    }
    for (name, tensor) in &inventory.tensors {
        let left_out = copies.iter().any(|(copy, _)| copy == name);
        if !known.contains(&**name) || left_out {
            continue;
        }
        let (keeps, of_rows) = told.get(&**name).copied().unwrap_or_default();
        let piece = Piece::identity(name.clone(), &tensor.shape);
        let mut made = MadeOf {
            dtype: written(reader.dtype, keeps, tensor.value_dtype()),
            ..MadeOf::new(tensor.shape.clone(), vec![piece])
        };
        if of_rows {
            vocabulary.fit(&mut made, inventory, name);
        }
        table.insert(name.clone(), made);
    }
    Ok(Some(Kept {
        table,
        vocabulary,
        note: unmade(&lacking),
        copies,
    }))
}

/// The names that a tensor may have.
fn names_of(tensor: &Tensor) -> impl Iterator<Item = &Arc<str>> {
    std::iter::once(&tensor.name).chain(&tensor.also)
}
