//! Weights that have Hugging Face's names already: those of a training job with PyTorch, as FSDP and DeepSpeed save
//! them.

use super::choices::Choices;
use super::expression::Numbers;
use super::family::Family;
use super::import::{Import, any_starts, found, missing, there, written};
use super::link::{AllExperts, Tensor};
use super::mapping::Mapping;
use super::refusals::{self, absent, refuse_adapted, refuse_quantised, unmade};
use super::states::{ends, is_beside, of};
use super::strangers::{missing_tensor, refuse_extra};
use super::tied::{self, copies};
use super::vocabulary::Vocabulary;
use super::wrapped::{refuse_unmerged, refuse_wrapped};
use crate::fault::Result;
use crate::plan::inventory::Inventory;
use crate::plan::lora_tied::Tied;
use crate::tensor::shape::Shape;
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
    // A job may have them under a name of its own.
    let is_known = |name: &str| known.contains(name) || ends(name).any(|end| known.contains(end));
    let mut tensors = names.map(of);
    let other = |name: &str| ours.contains(name) && !known.contains(name);
    Ok(tensors.clone().any(is_known) && !tensors.any(other))
}

/// What head and embedding of this model are called where they are one; the head is to be one of its own if `parted`. None
/// for another model, and for one that its table doesn't fit: whoever reads it tells why.
#[must_use]
pub fn tied_in(family: &Family, numbers: &Numbers, parted: bool) -> Option<Tied> {
    let mapping = Mapping::new(family, numbers, &usual(family), &|_, _| true).ok()?;
    tied::tied(&mapping, parted)
}

/// The choices of the family's usual job: what Hugging Face's side is called doesn't depend on them.
fn usual(family: &Family) -> Choices {
    Choices::usual(family.usual_names)
}

/// All names that the Hugging Face side may have.
fn known(mapping: &Mapping) -> BTreeSet<&str> {
    let mut known = mapping.hf_names();
    known.extend(mapping.unnamed.iter().map(|name| &**name));
    known
}

/// What a model has of a source with its names.
pub(super) struct Kept {
    /// Each tensor as it is.
    pub(super) table: Table,
    pub(super) vocabulary: Vocabulary,
    /// What is to be said of it.
    pub(super) notes: Vec<String>,
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
    if !has_its(reader, inventory, &mapping, &fused)? {
        return Ok(None);
    }
    // What isn't known is left out unseen, if that was asked for.
    let mut copies = match reader.allow_extra {
        true => Vec::new(),
        false => copies(inventory, &mapping),
    };
    let (mut table, mut vocabulary) = (Table::new(), Vocabulary::new(reader.vocabulary_rows));
    let mut lacking: Vec<&str> = Vec::new();
    for link in &mapping.links {
        if let Some(name) = missing(inventory, &mapping, link, &fused, &mut vocabulary)?
            && !reader.allow_missing
        {
            let family = &family.family;
            return Err(missing_tensor(inventory, &mapping, name, family, numbers));
        }
        for tensor in &link.hf {
            let Some((name, piece)) = kept_of(inventory, &mapping, tensor, &fused) else {
                lacking.push(&tensor.name);
                continue;
            };
            let source = inventory.tensors.get(&piece.source);
            let mut made = MadeOf {
                dtype: source
                    .and_then(|s| written(reader.dtype, link.keeps_dtype, s.value_dtype())),
                ..MadeOf::new(Shape(piece.domain.clone()), vec![piece])
            };
            if tensor.vocabulary {
                vocabulary.fit(&mut made, inventory, &name);
            }
            table.insert(name, made);
        }
    }
    for name in &mapping.unnamed {
        if let Some(tensor) = inventory.tensors.get(name) {
            let piece = Piece::identity(name.clone(), &tensor.shape);
            let made = MadeOf::new(tensor.shape.clone(), vec![piece]);
            table.insert(name.clone(), made);
        }
    }
    put_copies(inventory, &mapping, &mut table, &mut copies);
    let notes = [
        refusals::tied(inventory, &mapping, reader.as_one),
        absent(&mapping),
        unmade(&lacking),
    ];
    let notes = notes.into_iter().flatten().collect();
    Ok(Some(Kept {
        table,
        vocabulary,
        notes,
        copies,
    }))
}

/// Whether `inventory` has the names of the model that `reader` reads, and nothing else but what a training job keeps.
///
/// # Errors
/// As [`kept`].
fn has_its(
    reader: &Import,
    inventory: &Inventory,
    mapping: &Mapping,
    fused: &BTreeMap<Arc<str>, AllExperts>,
) -> Result<bool> {
    let (family, numbers) = (&reader.family, &reader.numbers);
    let mut known = known(mapping);
    known.extend(fused.values().map(|fused| &*fused.name));
    let names = inventory.tensors.keys().map(|name| &**name);
    let theirs: Vec<&str> = names.filter(|name| !is_beside(name)).collect();
    let right = theirs.iter().filter(|name| known.contains(**name)).count();
    // All of it may lie beside another copy, as a moving average is.
    let is_there = |tensor: &Tensor| {
        there(inventory, mapping, tensor).is_some() || fused.contains_key(&tensor.name)
    };
    let whole = || mapping.links.iter().flat_map(|link| &link.hf).all(is_there);
    if right > 0 {
        refuse_unmerged(inventory)?;
    }
    if 2 * right <= theirs.len() && !whole() {
        refuse_wrapped(inventory, &known, &family.family)?;
        return Ok(false);
    }
    refuse_quantised(inventory)?;
    if !reader.allow_extra {
        refuse_extra(
            inventory,
            mapping,
            &known,
            is_beside,
            &family.family,
            numbers,
        )?;
    }
    refuse_adapted(inventory, mapping, reader.as_one)?;
    Ok(true)
}

/// Enters what is a copy of another tensor, of those in `copies` its own elements.
fn put_copies(
    inventory: &Inventory,
    mapping: &Mapping,
    table: &mut Table,
    copies: &mut Vec<(Arc<str>, Arc<str>)>,
) {
    for (name, of) in &mapping.only_hf {
        let Some(mut made) = of.as_ref().and_then(|of| table.get(of)).cloned() else {
            continue;
        };
        // Its own elements, where it is there.
        if let (Some(own), [piece]) = (inventory.tensors.get(name), &mut made.pieces[..])
            && own.shape == Shape(piece.domain.clone())
        {
            piece.source = name.clone();
            copies.retain(|(copy, _)| copy != name);
        }
        table.insert(name.clone(), made);
    }
}

/// What a tensor of the model is called in what is written, and what it is of the source: it itself, the head in the place of an
/// embedding that isn't there, or its part of one of all experts. None if it isn't there.
fn kept_of(
    inventory: &Inventory,
    mapping: &Mapping,
    tensor: &Tensor,
    fused: &BTreeMap<Arc<str>, AllExperts>,
) -> Option<(Arc<str>, Piece)> {
    if let Some(name) = there(inventory, mapping, tensor) {
        let own = found(inventory, tensor).unwrap_or_else(|| tensor.name.clone());
        let shape = &inventory.tensors.get(&name)?.shape;
        return Some((own, Piece::identity(name, shape)));
    }
    let piece = Piece::identity(tensor.name.clone(), &tensor.shape);
    let part = fused.get(&tensor.name)?.piece(piece);
    Some((tensor.name.clone(), part))
}
