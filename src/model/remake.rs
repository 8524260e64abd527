//! One MindSpore form of a model as another: other names, fused otherwise, with the state of its training.
//!
//! A tensor of the new form is made of Hugging Face tensors, and these of the old form's; the view is
//! both, one after the other. A state of the optimizer is of the shape of its weight, so it is made as
//! that is.

use super::choices::{Choices, Partial};
use super::detect::{Given, choices_of, names_of};
use super::expression::Numbers;
use super::family::Family;
use super::heads;
use super::import::{any_starts, found};
use super::link::Tensor;
use super::mapping::Mapping;
use super::refusals::{check_named, check_shape};
use super::strangers::missing_tensor;
use crate::fault::{Fault, Kind, Result};
use crate::job::Viewed;
use crate::job::metadata::OWN_KEYS;
use crate::plan::inventory::Inventory;
use crate::plan::lora::weight_of_pair;
use crate::tensor::shape::Shape;
use crate::view::{MadeOf, Piece, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// What to say where the files don't tell the form there is.
const SOURCE_FORM: &str =
    "--src-qkv, --src-ffn and, of contiguous ones, --src-tp say how, as the training job has them";

/// MindSpore weights, and their training's state, to another form of the same.
#[derive(Clone, Debug)]
pub struct Remake {
    /// The family's table.
    pub family: Family,
    /// The model's numbers.
    pub numbers: Numbers,
    /// What is known of the form there is beside its files.
    pub given: Given,
    /// The form that is wanted; what isn't said is as it is.
    pub wanted: Partial,
}

/// Hugging Face tensors, each with the pieces of the old form that make it.
type Middle = BTreeMap<Arc<str>, Vec<Piece>>;

impl Remake {
    /// The view of the source `inventory`, whose files say `metadata`.
    ///
    /// # Errors
    /// [`Kind::MissingShard`] for tensors, or states of some of those that one is made of, that are
    /// missing; [`Kind::Shape`]; [`Kind::Ambiguous`] if nothing tells the form there is.
    pub fn view(
        &self,
        inventory: &Inventory,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Viewed> {
        let (family, numbers) = (&self.family, &self.numbers);
        let mut told = metadata.clone();
        told.retain(|key, _| key.starts_with(OWN_KEYS) || key == "format");
        if self.is_there(inventory)? {
            let mut table = Table::new();
            carry(&mut table, inventory, &BTreeSet::new())?;
            return Ok(viewed(table, told));
        }
        heads::check(numbers, metadata)?;
        let old = self.old_form(inventory, metadata)?;
        let new = self.new_form(&old);
        let mine = |_: &str, ms: &str| any_starts(inventory, ms);
        let from = Mapping::new(family, numbers, &old, &mine)?;
        let there: BTreeSet<Arc<str>> = from
            .links
            .iter()
            .flat_map(|l| &l.hf)
            .map(|t| t.name.clone())
            .collect();
        let same = |hf: &str, _: &str| {
            let mut after = there.range::<str, _>((Bound::Included(hf), Bound::Unbounded));
            after.next().is_some_and(|name| name.starts_with(hf))
        };
        let to = Mapping::new(family, numbers, &new, &same)?;
        check_named(family, &from, old.names)?;
        check_named(family, &to, new.names)?;
        let lacks = |name: &str| missing_tensor(inventory, &from, name, &family.family, numbers);
        let (middle, known) = self.middle(inventory, &from)?;
        refuse_private(inventory, &known)?;
        let prefixes = states(inventory, &known);
        let mut table = Table::new();
        let mut used = BTreeSet::new();
        for link in &to.links {
            let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); link.ms.len()];
            for bond in &link.bonds {
                let name = &link.hf[bond.hf].name;
                let Some(before) = middle.get(name) else {
                    return Err(lacks(name));
                };
                let after = bond.import(name);
                pieces[bond.ms].extend(before.iter().filter_map(|before| after.after(before)));
            }
            if let ([hf], [tensor]) = (&link.hf[..], &link.ms[..])
                && let Some([whole]) = middle.get(&hf.name).map(Vec::as_slice)
                && hf.vocabulary
            {
                // As many rows as there are.
                let tensor = Tensor {
                    shape: Shape(whole.domain.clone()),
                    ..tensor.clone()
                };
                let pieces = std::slice::from_ref(whole);
                enter_all(&mut table, inventory, &tensor, pieces, &prefixes, &mut used)?;
                continue;
            }
            for (tensor, pieces) in link.ms.iter().zip(pieces) {
                enter_all(&mut table, inventory, tensor, &pieces, &prefixes, &mut used)?;
            }
        }
        used.extend(known);
        carry(&mut table, inventory, &used)?;
        told.extend(new.metadata());
        told.extend(heads::metadata(numbers));
        Ok(viewed(table, told))
    }

    /// Whether only names are wanted, and these are the names there are.
    fn is_there(&self, inventory: &Inventory) -> Result<bool> {
        let names = Partial {
            names: self.wanted.names,
            ..Partial::default()
        };
        let there = names_of(&self.family, &self.numbers, inventory)?;
        Ok(self.wanted == names && names.names == Some(there))
    }

    /// The form there is.
    fn old_form(
        &self,
        inventory: &Inventory,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Choices> {
        let old = choices_of(
            &self.family,
            &self.numbers,
            inventory,
            metadata,
            &self.given,
        );
        old.map_err(|fault| match fault.kind {
            Kind::Ambiguous => Fault {
                hint: Some(SOURCE_FORM.to_owned()),
                ..fault
            },
            _ => fault,
        })
    }

    /// The form that is wanted, where the form there is is `old`.
    fn new_form(&self, old: &Choices) -> Choices {
        let as_it_is = Partial {
            names: Some(old.names),
            qkv: Some(old.qkv),
            ffn: Some(old.ffn),
            experts: Some(old.experts),
            mla: Some(old.mla),
            tp: Some(old.tp),
        };
        let renamed = self.wanted.names.is_some_and(|names| names != old.names);
        if renamed {
            // Other names have a usual form of their own.
            return self.wanted.complete(old.names);
        }
        self.wanted.or(as_it_is).complete(old.names)
    }

    /// What makes each Hugging Face tensor, and the names of what they are made of.
    fn middle(
        &self,
        inventory: &Inventory,
        from: &Mapping,
    ) -> Result<(Middle, BTreeSet<Arc<str>>)> {
        let (mut middle, mut known) = (Middle::new(), BTreeSet::new());
        for link in &from.links {
            let mut names = Vec::new();
            for tensor in &link.ms {
                let Some(name) = found(inventory, tensor) else {
                    let family = &self.family.family;
                    return Err(missing_tensor(
                        inventory,
                        from,
                        &tensor.name,
                        family,
                        &self.numbers,
                    ));
                };
                let shape = inventory.tensors.get(&name).map(|tensor| &tensor.shape);
                if let ([hf], Some(shape)) = (&link.hf[..], shape)
                    && hf.vocabulary
                    && shape.0.get(1..) == tensor.shape.0.get(1..)
                {
                    let whole = Piece::identity(name.clone(), shape);
                    middle.insert(hf.name.clone(), vec![whole]);
                } else {
                    check_shape(inventory, tensor, &name)?;
                }
                names.push(name);
            }
            known.extend(names.iter().cloned());
            if link.hf.iter().any(|hf| middle.contains_key(&hf.name)) {
                continue;
            }
            for bond in link.bonds.iter().filter(|bond| !bond.again) {
                let made = middle.entry(link.hf[bond.hf].name.clone()).or_default();
                made.push(bond.export(&names[bond.ms]));
            }
        }
        Ok((middle, known))
    }
}

/// What the name of a state of one of the `known` begins with, as `adam_m.` of `adam_m.NAME`.
fn state_of<'a>(name: &'a str, known: &BTreeSet<Arc<str>>) -> Option<&'a str> {
    let mut dots = name.match_indices('.');
    let (dot, _) = dots.find(|(at, _)| known.contains(&name[at + 1..]))?;
    Some(&name[..=dot])
}

/// Beginnings of the names of states: `adam_m.` of `adam_m.NAME`.
fn states(inventory: &Inventory, known: &BTreeSet<Arc<str>>) -> BTreeSet<String> {
    let state = |name: &Arc<str>| {
        if known.contains(name) {
            return None;
        }
        state_of(name, known).map(str::to_owned)
    };
    inventory.tensors.keys().filter_map(state).collect()
}

/// Refuses states of the tensors that are `known` which no strategy describes: how they lie isn't known, so they can't
/// be made anew as these are.
///
/// # Errors
/// [`Kind::UnknownTensor`] naming one.
fn refuse_private(inventory: &Inventory, known: &BTreeSet<Arc<str>>) -> Result<()> {
    let mut names = inventory.private.iter();
    let found = names.find_map(|name| Some((name, state_of(name, known)?)));
    let Some((state, prefix)) = found else {
        return Ok(());
    };
    let message =
        "is a state of a tensor that gets another form, and the source's strategy doesn't know it";
    let fault = Fault::new(Kind::UnknownTensor, message).tensor(&**state);
    Err(fault.hint(format!(
        "give the strategy that its job was cut by; or --filter-out-param-prefix {prefix} leaves such states out"
    )))
}

/// Enters a tensor made of `pieces`, and each of its states, made so of the states of these.
fn enter_all(
    table: &mut Table,
    inventory: &Inventory,
    tensor: &Tensor,
    pieces: &[Piece],
    prefixes: &BTreeSet<String>,
    used: &mut BTreeSet<Arc<str>>,
) -> Result<()> {
    for prefix in prefixes.iter().map(String::as_str).chain([""]) {
        let mut made = Vec::with_capacity(pieces.len());
        let (mut missing, mut shapes) = (None, Ok(()));
        for piece in pieces {
            let source: Arc<str> = format!("{prefix}{}", piece.source).into();
            let weight = inventory.tensors.get(&piece.source).map(|t| &t.shape);
            match inventory.tensors.get(&source) {
                None => missing = Some(source),
                Some(state) if Some(&state.shape) != weight => {
                    let message = format!("is {}, and not of the shape of its weight", state.shape);
                    shapes = Err(Fault::new(Kind::Shape, message).tensor(&*source));
                }
                Some(_) => made.push(Piece {
                    source,
                    ..piece.clone()
                }),
            }
        }
        if made.is_empty() && missing.is_some() {
            continue;
        }
        shapes?;
        let name: Arc<str> = format!("{prefix}{}", tensor.name).into();
        if let Some(missing) = missing {
            let message = format!("is missing, and '{name}' would be made of it and of others");
            return Err(Fault::new(Kind::MissingShard, message).tensor(&*missing));
        }
        used.extend(made.iter().map(|piece| piece.source.clone()));
        let made = MadeOf {
            cut: tensor.cut,
            ..MadeOf::new(tensor.shape.clone(), made)
        };
        enter(table, &name, made)?;
    }
    Ok(())
}

fn viewed(table: Table, metadata: BTreeMap<String, String>) -> Viewed {
    Viewed {
        table,
        metadata,
        ..Viewed::default()
    }
}

/// Refuses pairs of an adapter whose weight isn't written under its name any more: nobody could merge them.
fn refuse_orphans(table: &Table, inventory: &Inventory, used: &BTreeSet<Arc<str>>) -> Result<()> {
    let names = inventory.tensors.keys().chain(&inventory.private);
    for name in names.filter(|name| !used.contains(*name)) {
        let Some(weight) = weight_of_pair(name) else {
            continue;
        };
        if used.contains(&*weight) && !table.contains_key(&*weight) {
            let message = format!(
                "is for '{weight}', which gets another name, or is put into one with others"
            );
            return Err(Fault::new(Kind::Unsupported, message)
                .tensor(&**name)
                .hint("--lora-scaling FACTOR merges such pairs on the way"));
        }
    }
    Ok(())
}

/// Enters what isn't used, as it is.
///
/// # Errors
/// As [`refuse_orphans`]; [`Kind::Ambiguous`] for two tensors of one name.
fn carry(table: &mut Table, inventory: &Inventory, used: &BTreeSet<Arc<str>>) -> Result<()> {
    refuse_orphans(table, inventory, used)?;
    let others = inventory
        .tensors
        .iter()
        .filter(|(name, _)| !used.contains(*name));
    for (name, tensor) in others {
        let whole = vec![Piece::identity(name.clone(), &tensor.shape)];
        enter(table, name, MadeOf::new(tensor.shape.clone(), whole))?;
    }
    Ok(())
}

fn enter(table: &mut Table, name: &Arc<str>, made: MadeOf) -> Result<()> {
    if table.insert(name.clone(), made).is_none() {
        return Ok(());
    }
    let message = "two tensors would be written under this name";
    Err(Fault::new(Kind::Ambiguous, message).tensor(&**name))
}
