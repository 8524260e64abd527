//! Import and export: a mapping against what is in the files, as a view.

use super::choices::{Choices, spelled};
use super::companions::{Companions, config_for, most};
use super::described::CONFIG;
use super::detect::{Given, choices_of};
use super::expression::Numbers;
use super::family::Family;
use super::heads;
use super::link::{AllExperts, Link, Tensor};
use super::mapping::Mapping;
use super::quantise::{self, Quantise};
use super::refusals::{
    absent, check_named, check_shape, head_for, other, refuse_adapted, refuse_other_names,
    refuse_quantised, tied, unknown, unmade,
};
use super::strangers::{missing_tensor, refuse_extra, refuse_mindspore};
use super::tied::{copies, head_of_embedding};
use super::vocabulary::Vocabulary;
use super::wrapped::{refuse_wrapped, refuse_wrapped_network};
use crate::catalog::SmallFile;
use crate::fault::{Fault, Kind, Result};
use crate::job::Viewed;
use crate::plan::inventory::{Inventory, JOB_SCALARS};
use crate::tensor::cast::is_castable;
use crate::tensor::dtype::Dtype;
use crate::view::{MadeOf, Piece, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// Beginnings of the names of a training job's own state, beside [`JOB_SCALARS`].
const STATES: [&str; 12] = [
    "accu_grads",
    "fi_parameter",
    "global_step",
    "epoch_num",
    "step_num",
    "loss_scale",
    "global_batch_size",
    "afactor_step",
    "muon_m.placeholder.",
    "adam_m.placeholder.",
    "adam_v.placeholder.",
    "weight_decay",
];

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

/// MindSpore weights to Hugging Face weights.
#[derive(Clone, Debug)]
pub struct Export {
    /// The family's table.
    pub family: Family,
    /// The model's numbers.
    pub numbers: Numbers,
    /// What is known of the MindSpore side beside its files.
    pub given: Given,
    /// The element type of float tensors written; none: as they are.
    pub dtype: Option<Dtype>,
    /// Leave out what lacks a source.
    pub allow_missing: bool,
    /// Leave out what the table doesn't know.
    pub allow_extra: bool,
    /// Rows to write of what has a row for each word; none: as config.json says.
    pub vocabulary_rows: Option<u64>,
    /// The small files that go along.
    pub companions: Companions,
    /// Which weights are written in 8 bits; none: none.
    pub quantise: Option<Quantise>,
    /// The head is one of its own, other than config.json says, which is to say so.
    pub untied: bool,
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
fn enter(table: &mut Table, name: &Arc<str>, made: MadeOf) -> Result<()> {
    if table.insert(name.clone(), made).is_none() {
        return Ok(());
    }
    let message = "the family's table makes two tensors of this name";
    Err(Fault::new(Kind::Ambiguous, message).tensor(&**name))
}

/// The type that a tensor made of `source` is written in.
fn written(asked: Option<Dtype>, link: &Link, source: Dtype) -> Option<Dtype> {
    asked.filter(|_| !link.keeps_dtype && is_castable(source))
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
                    dtype: source.and_then(|s| written(self.dtype, link, s.value_dtype())),
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
    fn fused(
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
        let linked = mapping.links.iter().flat_map(|link| &link.hf);
        let names = linked.flat_map(|tensor| std::iter::once(&tensor.name).chain(&tensor.also));
        let mut known: BTreeSet<&str> = names.map(|name| &**name).collect();
        known.extend(mapping.only_hf.iter().map(|(name, _)| &**name));
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
        refuse_extra(inventory, mapping, &known, |_| false, family, &self.numbers)
    }
}

impl Export {
    /// The view of the source `inventory`, whose files say `metadata`.
    ///
    /// # Errors
    /// As [`Import::view`]; [`Kind::Ambiguous`] if nothing tells how fused tensors are laid out.
    pub fn view(
        &self,
        inventory: &Inventory,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Viewed> {
        let viewed = self.made(inventory, metadata);
        if viewed.is_err() {
            refuse_wrapped_network(inventory, &self.family, &self.numbers)?;
        }
        viewed
    }

    fn made(&self, inventory: &Inventory, metadata: &BTreeMap<String, String>) -> Result<Viewed> {
        let (family, numbers) = (&self.family, &self.numbers);
        heads::check(numbers, metadata)?;
        let choices = choices_of(family, numbers, inventory, metadata, &self.given)?;
        let present = |_: &str, ms: &str| any_starts(inventory, ms);
        let mapping = Mapping::new(family, numbers, &choices, &present)?;
        check_named(family, &mapping, choices.names)?;
        refuse_other_names(inventory, family, choices.names)?;
        let head = head_of_embedding(inventory, &mapping, numbers).filter(|_| !self.allow_extra);
        self.check_extra(inventory, &mapping, head.as_ref().map(|(head, _)| &**head))?;
        let mut vocabulary = Vocabulary::new(self.vocabulary_rows);
        let (mut table, mut lacking) = (Table::new(), Vec::new());
        let lacks = |name: &str| missing_tensor(inventory, &mapping, name, &family.family, numbers);
        for link in &mapping.links {
            let names: Vec<Option<Arc<str>>> = link
                .ms
                .iter()
                .map(|tensor| found(inventory, tensor))
                .collect();
            let Some(names) = names.iter().cloned().collect::<Option<Vec<_>>>() else {
                if self.allow_missing {
                    lacking.extend(link.hf.iter().map(|tensor| &*tensor.name));
                    continue;
                }
                let absent = names.iter().position(Option::is_none).unwrap_or_default();
                let name = &link.ms[absent].name;
                return Err(lacks(name));
            };
            let of_rows = link.hf.iter().any(|tensor| tensor.vocabulary);
            for (tensor, name) in link.ms.iter().zip(&names) {
                let asked = Tensor {
                    vocabulary: of_rows,
                    ..tensor.clone()
                };
                if !vocabulary.takes(inventory, &asked, name) {
                    check_shape(inventory, &asked, name)?;
                }
            }
            let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); link.hf.len()];
            for bond in link.bonds.iter().filter(|bond| !bond.again) {
                pieces[bond.hf].push(bond.export(&names[bond.ms]));
            }
            for (tensor, pieces) in link.hf.iter().zip(pieces) {
                let source = pieces
                    .first()
                    .and_then(|p| inventory.tensors.get(&p.source));
                let mut made = MadeOf {
                    dtype: source.and_then(|s| written(self.dtype, link, s.value_dtype())),
                    ..MadeOf::new(tensor.shape.clone(), pieces)
                };
                if of_rows {
                    vocabulary.fit(&mut made, inventory, &tensor.name);
                }
                enter(&mut table, &tensor.name, made)?;
            }
        }
        for (name, of) in &mapping.only_hf {
            if let Some(made) = of.as_ref().and_then(|of| table.get(of)).cloned() {
                enter(&mut table, name, made)?;
            }
        }
        let mut viewed = self.viewed(table, inventory, vocabulary)?;
        viewed.notes.extend(unmade(&lacking));
        viewed.copies.extend(head);
        Ok(viewed)
    }

    /// What is made, with a config.json that says so.
    fn viewed(
        &self,
        mut table: Table,
        inventory: &Inventory,
        vocabulary: Vocabulary,
    ) -> Result<Viewed> {
        let dtype = most(&table, inventory);
        let kept = self.quantise.as_ref().map(|q| q.apply(&mut table));
        let quantised = kept.transpose()?.map(|kept| quantise::described(&kept));
        let (config, rows) = (self.companions.config(), self.vocabulary_rows);
        let config = config
            .and_then(|bytes| config_for(bytes, dtype, rows, quantised.as_ref(), self.untied));
        let extras = config.map(|bytes| SmallFile::new(CONFIG, bytes));
        let notes = self.companions.note().into_iter();
        Ok(Viewed {
            table,
            metadata: BTreeMap::from([("format".to_owned(), "pt".to_owned())]),
            extras: extras.into_iter().collect(),
            notes: notes.chain(vocabulary.notes()).collect(),
            copies: Vec::new(),
        })
    }

    fn check_extra(
        &self,
        inventory: &Inventory,
        mapping: &Mapping,
        copy: Option<&str>,
    ) -> Result<()> {
        if self.allow_extra {
            return Ok(());
        }
        let mut known: BTreeSet<&str> = copy.into_iter().collect();
        for tensor in mapping.links.iter().flat_map(|link| &link.ms) {
            known.insert(&tensor.name);
            known.extend(tensor.also.iter().map(|name| &**name));
        }
        let state = |name: &str| is_state(name, &known);
        refuse_extra(
            inventory,
            mapping,
            &known,
            state,
            &self.family.family,
            &self.numbers,
        )
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
fn missing<'a>(
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
fn there(inventory: &Inventory, mapping: &Mapping, tensor: &Tensor) -> Option<Arc<str>> {
    let head = || head_for(inventory, mapping, tensor).cloned();
    found(inventory, tensor).or_else(head)
}

/// The name by which a tensor is there.
pub(super) fn found(inventory: &Inventory, tensor: &Tensor) -> Option<Arc<str>> {
    let mut names = std::iter::once(&tensor.name).chain(&tensor.also);
    let found = names.find(|name| inventory.tensors.contains_key(*name));
    found.cloned()
}

/// Whether a name is that of an optimizer's state or of a hyper parameter: a known name after a
/// beginning that ends in a dot or underline, or one of the job's own.
fn is_state(name: &str, known: &BTreeSet<&str>) -> bool {
    let ends = name.match_indices(['.', '_']);
    let mut ends = ends.map(|(at, _)| &name[at + 1..]);
    ends.any(|end| known.contains(end))
        || STATES
            .iter()
            .chain(&JOB_SCALARS)
            .any(|state| name.starts_with(state))
}
