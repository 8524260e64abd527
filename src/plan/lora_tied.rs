//! A head that is the embedding, too: a head of its own for it, and pairs that an adapter has for both.

use crate::catalog::{Entry, FileSchema};
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::lora::{Meaning, Taken, part_of};
use std::sync::Arc;

/// What embeddings are called.
const EMBEDDINGS: [&str; 4] = ["embed_tokens", "tok_embeddings", "word_embeddings", "wte"];
/// What heads are called.
const HEADS: [&str; 2] = ["lm_head", "output_layer"];
/// What PEFT puts into the name of a weight that a pair belongs to.
pub const BELOW_PAIR: &str = ".base_layer.";
/// What ends the name of a weight.
const WEIGHT: &str = ".weight";

/// A model whose head is its embedding, too: what both are called.
#[derive(Clone, Debug, Hash)]
pub struct Tied {
    /// The head.
    pub head: Arc<str>,
    /// The embedding.
    pub embedding: Arc<str>,
    /// The head is to be one of its own.
    pub parted: bool,
}

/// Refuses an adapter that has brought an embedding anew into weights without a head, where nothing tells whether that
/// is the embedding, too: PEFT's merge leaves such a head as it was.
///
/// # Errors
/// [`Kind::Ambiguous`] naming the embedding.
pub fn refuse_untold(inventory: &Inventory, meaning: &Meaning, taken: &Taken) -> Result<()> {
    let one_of = |name: &str, modules: &[&str]| {
        let module = name.strip_suffix(WEIGHT).unwrap_or_default();
        modules.contains(&module.rsplit('.').next().unwrap_or_default())
    };
    let mut names = inventory.tensors.keys();
    if meaning.tied || names.any(|name| one_of(name, &HEADS)) {
        return Ok(());
    }
    let anew = |name: &&String| {
        let tensor = inventory.tensors.get(name.as_str());
        one_of(name, &EMBEDDINGS) && tensor.is_some_and(|new| !new.name.contains(BELOW_PAIR))
    };
    let Some(embedding) = taken.replaced.iter().find(anew) else {
        return Ok(());
    };
    let message = "the adapter brings it anew, and the source has no head: if the two are one, the head stayed as it was in the training";
    let fault = Fault::new(Kind::Ambiguous, message).tensor(embedding.as_str());
    Err(fault
        .hint("`shardloom import --untie` tells by the model's config.json, and writes that head"))
}

/// A and B of an adapter's pair, as they lie in its file.
pub type Stored<'a> = [&'a Entry; 2];

impl Tied {
    /// Gives the head, if it is to be one of its own and isn't there, what the embedding has; or the other way round.
    pub fn part(&self, inventory: &mut Inventory) {
        let tensors = &mut inventory.tensors;
        for (one, other) in [(&self.head, &self.embedding), (&self.embedding, &self.head)] {
            let copy = tensors.get(other).filter(|_| self.parted).cloned();
            if let Some(copy) = copy {
                tensors.entry(one.clone()).or_insert(copy);
            }
        }
    }

    /// The pairs that the adapter's file `schema` has for the head and for the embedding.
    #[must_use]
    pub fn pairs<'a>(&self, schema: &'a FileSchema) -> [Option<Stored<'a>>; 2] {
        [&self.head, &self.embedding].map(|name| pair(schema, name))
    }
}

/// The pair of the weight called `name`.
fn pair<'a>(schema: &'a FileSchema, name: &str) -> Option<Stored<'a>> {
    let module = name.strip_suffix(WEIGHT)?;
    let part = |which| {
        let mut entries = schema.entries.iter();
        entries.find(|entry| {
            let part = part_of(&entry.name);
            part.is_some_and(|part| part.which == which && part.module == module)
        })
    };
    Some([part(0)?, part(1)?])
}
