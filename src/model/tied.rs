//! A head that is the embedding, too.

use super::expression::Numbers;
use super::link::Link;
use super::mapping::Mapping;
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::lora_tied::{Tied, is_head};
use crate::plan::{SourceTensor, Spread};
use std::sync::Arc;

/// Key of config.json that says that the head is the embedding.
pub const TIED: &str = "tie_word_embeddings";

/// What head and embedding are called where `mapping` has one for both; the head is to be one of its own if `parted`.
#[must_use]
pub fn tied(mapping: &Mapping, parted: bool) -> Option<Tied> {
    Some(Tied {
        head: head(mapping)?.clone(),
        embedding: embedding(mapping)?.clone(),
        parted,
    })
}

/// The numbers of the same model with a head of its own.
///
/// # Errors
/// [`Kind::Usage`] if it has one.
pub fn untied(numbers: &Numbers) -> Result<Numbers> {
    if !numbers.holds(TIED) {
        let message =
            format!("--untie: {TIED} of config.json isn't true: the head is one of its own");
        return Err(Fault::new(Kind::Usage, message).hint("leave --untie out"));
    }
    Ok(numbers.clone().with(TIED, false))
}

/// The head that only the Hugging Face side has.
pub(super) fn head(mapping: &Mapping) -> Option<&Arc<str>> {
    let mut names = mapping.only_hf.iter().map(|(name, _)| name);
    names.find(|name| is_head(name))
}

/// The embedding at Hugging Face.
pub(super) fn embedding(mapping: &Mapping) -> Option<&Arc<str>> {
    words(mapping).map(|(_, name)| name)
}

/// What makes the embedding, and how it is called at Hugging Face.
fn words(mapping: &Mapping) -> Option<(&Link, &Arc<str>)> {
    let links = mapping.links.iter();
    let mut tensors = links.flat_map(|link| link.hf.iter().map(move |tensor| (link, tensor)));
    let found = tensors.find(|(_, tensor)| tensor.vocabulary && !is_head(&tensor.name));
    found.map(|(link, tensor)| (link, &tensor.name))
}

/// The tensors that are left out as copies of others, with those. What an adapter brings in place of the other is no
/// longer what they are copies of.
pub(super) fn copies(inventory: &Inventory, mapping: &Mapping) -> Vec<(Arc<str>, Arc<str>)> {
    // A head that isn't there to be written is the embedding: the other with a row for each word.
    let tied = |name: &Arc<str>| embedding(mapping).filter(|_| is_head(name));
    let pairs = mapping.only_hf.iter();
    let pairs = pairs.filter_map(|(name, of)| Some((name, of.as_ref().or_else(|| tied(name))?)));
    let alike = |(name, of): &(&Arc<str>, &Arc<str>)| {
        let tensors = (inventory.tensors.get(*name), inventory.tensors.get(*of));
        let (Some(copy), Some(original)) = tensors else {
            return false;
        };
        let remade = is_replaced(inventory, original) && !is_replaced(inventory, copy);
        stored(copy) && stored(original) && !remade
    };
    pairs
        .filter(alike)
        .map(|(name, of)| (name.clone(), of.clone()))
        .collect()
}

/// A head at MindSpore that is the embedding by config.json, with that: it is left out as a copy of it.
pub(super) fn head_of_embedding(
    inventory: &Inventory,
    mapping: &Mapping,
    numbers: &Numbers,
) -> Option<(Arc<str>, Arc<str>)> {
    if !numbers.holds(TIED) {
        return None;
    }
    let embedding = words(mapping)?.0.ms.first()?;
    let mut names = std::iter::once(&embedding.name).chain(&embedding.also);
    let (embedding, one) = names.find_map(|name| inventory.tensors.get_key_value(name))?;
    let known = |name: &Arc<str>| {
        let mut made = mapping.links.iter().flat_map(|link| &link.ms);
        made.any(|tensor| tensor.name == *name || tensor.also.contains(name))
    };
    let mut tensors = inventory.tensors.iter();
    let (head, other) = tensors.find(|(name, _)| is_head(name) && !known(name))?;
    (stored(one) && stored(other)).then(|| (head.clone(), embedding.clone()))
}

/// Whether it is what the files hold.
fn stored(tensor: &SourceTensor) -> bool {
    let value = tensor.value.as_deref();
    value.is_none_or(|value| value.steps.is_empty())
}

/// Whether another file's tensor, as one that was trained in full, is in its place.
pub(super) fn is_replaced(inventory: &Inventory, tensor: &SourceTensor) -> bool {
    let own = |spread: &Spread| spread.first_rank < inventory.ranks.max(1);
    !tensor.spreads.iter().all(own)
}
