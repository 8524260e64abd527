//! MindSpore weights as Hugging Face's: a mapping against what is in the files, as a view.

use super::choices::Choices;
use super::companions::{Companions, config_for, most};
use super::derive::Seen;
use super::described::CONFIG;
use super::detect::{Given, choices_of};
use super::expression::Numbers;
use super::family::Family;
use super::heads;
use super::hub;
use super::import::{Import, any_starts, enter, found, written};
use super::link::Tensor;
use super::mapping::Mapping;
use super::quantise::{self, Quantise};
use super::refusals::{check_named, check_shape, refuse_other_names, unmade};
use super::states::is_state;
use super::strangers::{missing_tensor, refuse_extra};
use super::tied::head_of_embedding;
use super::vocabulary::Vocabulary;
use super::wrapped::refuse_wrapped_network;
use crate::catalog::SmallFile;
use crate::fault::{Fault, Kind, Result};
use crate::job::Viewed;
use crate::plan::inventory::Inventory;
use crate::tensor::dtype::Dtype;
use crate::view::{MadeOf, Piece, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    /// What an adapter has for an embedding that is the head, too, is for both.
    pub as_one: bool,
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
        let names = inventory.tensors.keys().map(|name| &**name);
        let is_foreign = Seen::of(names).names.is_none();
        if is_foreign && let Some(viewed) = self.kept(inventory)? {
            return Ok(viewed);
        }
        let viewed = self.made(inventory, metadata);
        if viewed.is_err() {
            if !is_foreign && let Some(viewed) = self.kept(inventory)? {
                return Ok(viewed);
            }
            refuse_wrapped_network(inventory, &self.family, &self.numbers)?;
        }
        viewed
    }

    /// The view of a source that has Hugging Face's names already; none of another.
    fn kept(&self, inventory: &Inventory) -> Result<Option<Viewed>> {
        let Some(kept) = hub::kept(&self.reader(), inventory)? else {
            return Ok(None);
        };
        let mut viewed = self.viewed(kept.table, inventory, kept.vocabulary)?;
        viewed.notes.extend(kept.notes);
        viewed.copies = kept.copies;
        Ok(Some(viewed))
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
                    dtype: source
                        .and_then(|s| written(self.dtype, link.keeps_dtype, s.value_dtype())),
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
        refuse_both(&table, inventory)?;
        let mut viewed = self.viewed(table, inventory, vocabulary)?;
        viewed.notes.extend(unmade(&lacking));
        viewed.copies.extend(head);
        Ok(viewed)
    }

    /// What is made, with a config.json that says so.
    pub(super) fn viewed(
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

    /// What reads Hugging Face's names of the same model.
    fn reader(&self) -> Import {
        Import {
            family: self.family.clone(),
            numbers: self.numbers.clone(),
            choices: Choices::usual(self.family.usual_names),
            dtype: self.dtype,
            allow_missing: self.allow_missing,
            allow_extra: self.allow_extra,
            vocabulary_rows: self.vocabulary_rows,
            as_one: self.as_one,
        }
    }
}

/// Refuses a source that has what is made of it under the same name, too: two models in one, of which nobody says which.
fn refuse_both(table: &Table, inventory: &Inventory) -> Result<()> {
    let other = |(name, made): &(&Arc<str>, &MadeOf)| {
        let own = made.pieces.iter().any(|piece| piece.source == **name);
        inventory.tensors.contains_key(*name) && !own
    };
    let Some((name, _)) = table.iter().find(other) else {
        return Ok(());
    };
    let message = "is there by this name, and by MindSpore's, too: which of them is meant?";
    let fault = Fault::new(Kind::Ambiguous, message).tensor(&**name);
    Err(fault.hint("--weights NAME says which file; `shardloom unify --filter-out-param-prefix` leaves some of its tensors out"))
}
