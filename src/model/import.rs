//! Hugging Face weights as MindSpore's: a mapping against what is in the files, as a view.

use super::choices::{Choices, spelled};
use super::expression::Numbers;
use super::family::Family;
use super::heads;
use super::link::{AllExperts, Link, Tensor};
use super::mapping::Mapping;
use super::refusals::{
    absent, check_named, check_shape, head_for, other, refuse_adapted, refuse_quantised, tied,
    unknown, unmade,
};
use super::states::is_beside;
use super::strangers::{missing_tensor, refuse_extra, refuse_mindspore};
use super::tied::copies;
use super::vocabulary::Vocabulary;
use super::wrapped::refuse_wrapped;
use crate::fault::{Fault, Kind, Result};
use crate::job::Viewed;
use crate::plan::inventory::Inventory;
use crate::tensor::cast::is_cast_from;
use crate::tensor::dtype::Dtype;
use crate::view::{MadeOf, Piece, Table};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Hugging Face weights to MindSpore weights.
#[derive(Clone, Debug)]
pub struct Import {
    /// The family's table.
    pub family: Family,
    /// The model's numbers.
    pub numbers: Numbers,
    /// How the MindSpore side is to be.
    pub choices: Choices,
    /// The element type of float tensors written; none: as they are.
    pub dtype: Option<Dtype>,
    /// Leave out what lacks a source.
    pub allow_missing: bool,
    /// Leave out what the table doesn't know.
    pub allow_extra: bool,
    /// Rows to write of what has a row for each word; none: as config.json says.
    pub vocabulary_rows: Option<u64>,
    /// What an adapter has for an embedding that is the head, too, is for both.
    pub as_one: bool,
}

/// Whether any name in a sorted map starts so.
pub(super) fn any_starts(inventory: &Inventory, beginning: &str) -> bool {
    let mut after = inventory
        .tensors
        .range::<str, _>((Bound::Included(beginning), Bound::Unbounded));
    after
        .next()
        .is_some_and(|(name, _)| name.starts_with(beginning))
}

/// Enters a tensor into a view.
pub(super) fn enter(table: &mut Table, name: &Arc<str>, made: MadeOf) -> Result<()> {
    if table.insert(name.clone(), made).is_none() {
        return Ok(());
    }
    let message = "the family's table makes two tensors of this name";
    Err(Fault::new(Kind::Ambiguous, message).tensor(&**name))
}

/// The type that a tensor made of `source` is written in; some keep theirs.
pub(super) fn written(asked: Option<Dtype>, keeps: bool, source: Dtype) -> Option<Dtype> {
    asked.filter(|_| !keeps && is_cast_from(source))
}

impl Import {
    /// The view of the source `inventory`.
    ///
    /// # Errors
    /// [`Kind::MissingShard`] and [`Kind::UnknownTensor`] for tensors missing or unknown,
    /// [`Kind::Shape`], [`Kind::Unsupported`] for quantised weights.
    pub fn view(&self, inventory: &Inventory) -> Result<Viewed> {
        refuse_quantised(inventory)?;
        let present = |hf: &str, _: &str| any_starts(inventory, hf);
        let mapping = Mapping::new(&self.family, &self.numbers, &self.choices, &present)?;
        check_named(&self.family, &mapping, self.choices.names)?;
        let fused = self.fused(inventory, &mapping)?;
        self.check_extra(
            inventory,
            &mapping,
            fused.values().map(|fused| &*fused.name),
        )?;
        refuse_adapted(inventory, &mapping, self.as_one)?;
        let mut vocabulary = Vocabulary::new(self.vocabulary_rows);
        let (mut table, mut lacking) = (Table::new(), Vec::new());
        for link in &mapping.links {
            if let Some(name) = missing(inventory, &mapping, link, &fused, &mut vocabulary)? {
                if !self.allow_missing {
                    let family = &self.family.family;
                    return Err(missing_tensor(
                        inventory,
                        &mapping,
                        name,
                        family,
                        &self.numbers,
                    ));
                }
                lacking.extend(link.ms.iter().map(|tensor| &*tensor.name));
                continue;
            }
            let pieces = pieces(inventory, &mapping, link, &fused);
            for (tensor, pieces) in link.ms.iter().zip(pieces) {
                let source = pieces
                    .first()
                    .and_then(|p| inventory.tensors.get(&p.source));
                let mut made = MadeOf {
                    cut: tensor.cut,
                    dtype: source
                        .and_then(|s| written(self.dtype, link.keeps_dtype, s.value_dtype())),
                    ..MadeOf::new(tensor.shape.clone(), pieces)
                };
                if link.hf.iter().any(|tensor| tensor.vocabulary) {
                    vocabulary.fit(&mut made, inventory, &tensor.name);
                }
                enter(&mut table, &tensor.name, made)?;
            }
        }
        // What isn't known is left out unseen, if that was asked for.
        let copies = if self.allow_extra {
            Vec::new()
        } else {
            copies(inventory, &mapping)
        };
        let mut metadata = self.choices.metadata();
        metadata.extend(heads::metadata(&self.numbers));
        metadata.insert("format".into(), "ms".into());
        let mut notes = vocabulary.notes();
        notes.extend(tied(inventory, &mapping, self.as_one));
        notes.extend(absent(&mapping));
        notes.extend(unmade(&lacking));
        Ok(Viewed {
            table,
            metadata,
            notes,
            copies,
            ..Viewed::default()
        })
    }

    /// The experts' matrices that lie in tensors of all experts, by their own names.
    pub(super) fn fused(
        &self,
        inventory: &Inventory,
        mapping: &Mapping,
    ) -> Result<BTreeMap<Arc<str>, AllExperts>> {
        let experts = self.numbers.value("experts").unwrap_or_default();
        let mut fused = BTreeMap::new();
        for tensor in mapping.links.iter().flat_map(|link| &link.hf) {
            if let Some(found) = AllExperts::find(inventory, tensor, experts)? {
                fused.insert(tensor.name.clone(), found);
            }
        }
        Ok(fused)
    }

    fn check_extra<'a>(
        &self,
        inventory: &Inventory,
        mapping: &'a Mapping,
        fused: impl Iterator<Item = &'a str>,
    ) -> Result<()> {
        let mut known = mapping.hf_names();
        known.extend(fused);
        refuse_mindspore(inventory, &known)?;
        refuse_wrapped(inventory, &known, &self.family.family)?;
        if self.allow_extra {
            return Ok(());
        }
        let family = &self.family.family;
        if let Some(name) = mapping
            .unnamed
            .iter()
            .find(|n| inventory.tensors.contains_key(*n))
        {
            let names = spelled(self.choices.names);
            let message = format!("family {family} has no {names} name for it");
            let other = spelled(other(self.choices.names));
            return Err(unknown(name, message).hint(format!("--names {other} has one")));
        }
        refuse_extra(inventory, mapping, &known, is_beside, family, &self.numbers)
    }
}

/// What makes each MindSpore tensor of a link, of which `fused` tells the matrices in tensors of all experts.
fn pieces(
    inventory: &Inventory,
    mapping: &Mapping,
    link: &Link,
    fused: &BTreeMap<Arc<str>, AllExperts>,
) -> Vec<Vec<Piece>> {
    let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); link.ms.len()];
    for bond in &link.bonds {
        let tensor = &link.hf[bond.hf];
        let name = there(inventory, mapping, tensor);
        let piece = bond.import(name.as_ref().unwrap_or(&tensor.name));
        pieces[bond.ms].push(match fused.get(&tensor.name) {
            Some(fused) => fused.piece(piece),
            None => piece,
        });
    }
    pieces
}

/// The first tensor that a link reads and that isn't there, neither by itself nor `fused`; those that are have their shapes.
pub(super) fn missing<'a>(
    inventory: &Inventory,
    mapping: &Mapping,
    link: &'a Link,
    fused: &BTreeMap<Arc<str>, AllExperts>,
    vocabulary: &mut Vocabulary,
) -> Result<Option<&'a Arc<str>>> {
    let mut missing = None;
    for tensor in &link.hf {
        let name = there(inventory, mapping, tensor);
        let called = name.as_ref().unwrap_or(&tensor.name);
        if !vocabulary.takes(inventory, tensor, called) {
            check_shape(inventory, tensor, called)?;
        }
        if name.is_none() && !fused.contains_key(&tensor.name) {
            missing.get_or_insert(&tensor.name);
        }
    }
    Ok(missing)
}

/// The name of the tensor that one of Hugging Face's is read from.
pub(super) fn there(inventory: &Inventory, mapping: &Mapping, tensor: &Tensor) -> Option<Arc<str>> {
    let head = || head_for(inventory, mapping, tensor).cloned();
    found(inventory, tensor).or_else(head)
}

/// The name by which a tensor is there.
pub(super) fn found(inventory: &Inventory, tensor: &Tensor) -> Option<Arc<str>> {
    let mut names = std::iter::once(&tensor.name).chain(&tensor.also);
    let found = names.find(|name| inventory.tensors.contains_key(*name));
    found.cloned()
}
