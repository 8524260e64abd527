//! Import and export: a mapping against what is in the files, as a view.

use super::choices::{Choices, Scheme, spelled};
use super::detect::{Given, choices_of};
use super::expression::Numbers;
use super::family::Family;
use super::heads;
use super::link::{Link, Tensor};
use super::mapping::Mapping;
use super::quantised::QUANTISED;
use crate::fault::{Fault, Kind, Result, nearest};
use crate::job::Viewed;
use crate::plan::dequantise::{SCALES, is_scaled};
use crate::plan::inventory::Inventory;
use crate::plan::value::{Step, Value};
use crate::tensor::cast::is_castable;
use crate::tensor::dtype::Dtype;
use crate::view::{Cut, MadeOf, Piece, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// Beginnings of the names of a training job's own state.
const STATES: [&str; 18] = [
    "accu_grads",
    "fi_parameter",
    "global_step",
    "learning_rate",
    "beta1_power",
    "beta2_power",
    "current_iterator_step",
    "last_overflow_iterator_step",
    "scale_sense",
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
}

fn unknown(name: &str, message: String) -> Fault {
    Fault::new(Kind::UnknownTensor, message).tensor(name)
}

/// Whether any name in a sorted map starts so.
fn any_starts(inventory: &Inventory, beginning: &str) -> bool {
    let mut after = inventory
        .tensors
        .range::<str, _>((Bound::Included(beginning), Bound::Unbounded));
    after
        .next()
        .is_some_and(|(name, _)| name.starts_with(beginning))
}

fn check_named(family: &Family, mapping: &Mapping, names: Scheme) -> Result<()> {
    if mapping.links.is_empty() {
        let message = format!("family {} has no {} names", family.family, spelled(names));
        return Err(Fault::new(Kind::Unsupported, message).hint("give the other --names"));
    }
    Ok(())
}

fn check_shape(inventory: &Inventory, wanted: &Tensor, name: &str) -> Result<()> {
    match inventory.tensors.get(name) {
        Some(found) if found.shape != wanted.shape => {
            let message = format!("is {}, config.json asks for {}", found.shape, wanted.shape);
            Err(Fault::new(Kind::Shape, message).tensor(name).hint(
                "is it this model's config.json, and do --qkv, --ffn, --experts and --tp fit?",
            ))
        }
        _ => Ok(()),
    }
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
        self.check_extra(inventory, &mapping)?;
        refuse_adapted(inventory, &mapping)?;
        let mut table = Table::new();
        for link in &mapping.links {
            let mut missing = None;
            for tensor in &link.hf {
                check_shape(inventory, tensor, &tensor.name)?;
                if !inventory.tensors.contains_key(&tensor.name) {
                    missing.get_or_insert(&tensor.name);
                }
            }
            match missing {
                None => {}
                Some(_) if self.allow_missing => continue,
                Some(name) => return Err(missing_tensor(inventory, name, &self.family.family)),
            }
            let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); link.ms.len()];
            for bond in &link.bonds {
                pieces[bond.ms].push(bond.import(&link.hf[bond.hf].name));
            }
            for (tensor, pieces) in link.ms.iter().zip(pieces) {
                let source = pieces
                    .first()
                    .and_then(|p| inventory.tensors.get(&p.source));
                let made = MadeOf {
                    shape: tensor.shape.clone(),
                    cut: tensor.cut,
                    dtype: source.and_then(|s| written(self.dtype, link, s.value_dtype())),
                    pieces,
                };
                enter(&mut table, &tensor.name, made)?;
            }
        }
        let mut metadata = self.choices.metadata();
        metadata.extend(heads::metadata(&self.numbers));
        metadata.insert("format".into(), "ms".into());
        Ok(Viewed {
            table,
            metadata,
            ..Viewed::default()
        })
    }

    fn check_extra(&self, inventory: &Inventory, mapping: &Mapping) -> Result<()> {
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
            return Err(unknown(name, message).hint("--allow-extra leaves it out"));
        }
        let linked = mapping.links.iter().flat_map(|link| &link.hf);
        let mut known: BTreeSet<&str> = linked.map(|tensor| &*tensor.name).collect();
        known.extend(mapping.only_hf.iter().map(|(name, _)| &**name));
        let mut extra = inventory
            .tensors
            .keys()
            .filter(|name| !known.contains(&***name));
        let Some(first) = extra.next() else {
            return Ok(());
        };
        Err(extra_tensor(
            first,
            extra.count(),
            family,
            known.into_iter(),
        ))
    }
}

/// Refuses an adapter for a tensor that isn't written, as it is a copy of another by config.json.
fn refuse_adapted(inventory: &Inventory, mapping: &Mapping) -> Result<()> {
    for (name, of) in &mapping.only_hf {
        let Some(tensor) = inventory.tensors.get(name) else {
            continue;
        };
        let merged = |value: &Value| value.steps.iter().any(|s| matches!(s, Step::Add { .. }));
        if tensor.name == *name && !tensor.value.as_deref().is_some_and(merged) {
            continue;
        }
        let of = of.as_deref().unwrap_or("the embedding");
        let message = format!(
            "the adapter changes it, but by tie_word_embeddings of config.json it is '{of}', so that the \
             change would be lost"
        );
        return Err(Fault::new(Kind::Unsupported, message)
            .tensor(&**name)
            .hint("set tie_word_embeddings to false, for a model with a head of its own"));
    }
    Ok(())
}

/// Refuses what is still in 8 bits once scales have been seen to.
fn refuse_quantised(inventory: &Inventory) -> Result<()> {
    let quantised = inventory
        .tensors
        .values()
        .find(|tensor| tensor.name.ends_with(SCALES) || is_scaled(tensor.value_dtype()));
    let Some(tensor) = quantised else {
        return Ok(());
    };
    let message = format!(
        "is {}: weights in 8 bits need scales, and a {QUANTISED} in config.json that says of what",
        tensor.dtype
    );
    Err(Fault::new(Kind::Unsupported, message)
        .tensor(&*tensor.name)
        .hint("is it this model's config.json, and are all of its files there?"))
}

fn missing_tensor(inventory: &Inventory, name: &str, family: &str) -> Fault {
    let message = format!("family {family} with this config.json has it, the files don't");
    let fault = Fault::new(Kind::MissingShard, message).tensor(name);
    if inventory.private.contains(name) {
        return fault.hint("the files have it, but the source strategy doesn't describe it");
    }
    let near = nearest(name, inventory.tensors.keys().map(|name| &**name)).join(", ");
    let near = if near.is_empty() {
        near
    } else {
        format!("nearest in the files: {near}; ")
    };
    fault.hint(format!(
        "{near}--allow-missing leaves out what is made of it"
    ))
}

fn extra_tensor<'a>(
    name: &str,
    others: usize,
    family: &str,
    known: impl Iterator<Item = &'a str>,
) -> Fault {
    let others = if others > 0 {
        format!(" (nor {others} others)")
    } else {
        String::new()
    };
    let near = nearest(name, known).join(", ");
    let near = if near.is_empty() {
        near
    } else {
        format!("nearest that it knows: {near}; ")
    };
    let message = format!("family {family} with this config.json doesn't know it{others}");
    unknown(name, message).hint(format!("{near}--allow-extra leaves it out"))
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
        let (family, numbers) = (&self.family, &self.numbers);
        heads::check(numbers, metadata)?;
        let choices = choices_of(family, numbers, inventory, metadata, &self.given)?;
        let present = |_: &str, ms: &str| any_starts(inventory, ms);
        let mapping = Mapping::new(family, numbers, &choices, &present)?;
        check_named(family, &mapping, choices.names)?;
        self.check_extra(inventory, &mapping)?;
        let mut table = Table::new();
        for link in &mapping.links {
            let found = |tensor: &Tensor| {
                let mut names = std::iter::once(&tensor.name).chain(&tensor.also);
                names
                    .find(|name| inventory.tensors.contains_key(*name))
                    .cloned()
            };
            let names: Vec<Option<Arc<str>>> = link.ms.iter().map(found).collect();
            let Some(names) = names.iter().cloned().collect::<Option<Vec<_>>>() else {
                if self.allow_missing {
                    continue;
                }
                let absent = names.iter().position(Option::is_none).unwrap_or_default();
                let name = &link.ms[absent].name;
                return Err(missing_tensor(inventory, name, &family.family));
            };
            for (tensor, name) in link.ms.iter().zip(&names) {
                check_shape(inventory, tensor, name)?;
            }
            let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); link.hf.len()];
            for bond in link.bonds.iter().filter(|bond| !bond.again) {
                pieces[bond.hf].push(bond.export(&names[bond.ms]));
            }
            for (tensor, pieces) in link.hf.iter().zip(pieces) {
                let source = pieces
                    .first()
                    .and_then(|p| inventory.tensors.get(&p.source));
                let made = MadeOf {
                    shape: tensor.shape.clone(),
                    cut: Cut::Anywhere,
                    dtype: source.and_then(|s| written(self.dtype, link, s.value_dtype())),
                    pieces,
                };
                enter(&mut table, &tensor.name, made)?;
            }
        }
        for (name, of) in &mapping.only_hf {
            if let Some(made) = of.as_ref().and_then(|of| table.get(of)).cloned() {
                enter(&mut table, name, made)?;
            }
        }
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        Ok(Viewed {
            table,
            metadata,
            ..Viewed::default()
        })
    }

    fn check_extra(&self, inventory: &Inventory, mapping: &Mapping) -> Result<()> {
        if self.allow_extra {
            return Ok(());
        }
        let mut known: BTreeSet<&str> = BTreeSet::new();
        for tensor in mapping.links.iter().flat_map(|link| &link.ms) {
            known.insert(&tensor.name);
            known.extend(tensor.also.iter().map(|name| &**name));
        }
        let mut extra = inventory
            .tensors
            .keys()
            .filter(|name| !known.contains(&***name) && !is_state(name, &known));
        let Some(first) = extra.next() else {
            return Ok(());
        };
        let family = &self.family.family;
        Err(extra_tensor(
            first,
            extra.count(),
            family,
            known.into_iter(),
        ))
    }
}

/// Whether a name is that of an optimizer's state or of a hyper parameter: a known name after a
/// beginning that ends in a dot or underline, or one of the job's own.
fn is_state(name: &str, known: &BTreeSet<&str>) -> bool {
    let ends = name.match_indices(['.', '_']);
    let mut ends = ends.map(|(at, _)| &name[at + 1..]);
    ends.any(|end| known.contains(end)) || STATES.iter().any(|state| name.starts_with(state))
}
