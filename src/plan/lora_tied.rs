//! A head that is the embedding, too: a head of its own for it, and pairs that an adapter has for both.

use crate::catalog::{Entry, FileSchema};
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::lora::{BELOW_PAIR, Meaning, Taken, part_of, plain};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What embeddings are called.
const EMBEDDINGS: [&str; 4] = ["embed_tokens", "tok_embeddings", "word_embeddings", "wte"];
/// What heads are called.
const HEADS: [&str; 2] = ["lm_head", "output_layer"];
/// What ends the name of a weight.
const WEIGHT: &str = ".weight";
/// The place of a weight beside those of A and B.
const WHOLE: usize = 2;

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
    let mut names = inventory.tensors.keys();
    if meaning.tied || names.any(|name| is_head(name)) {
        return Ok(());
    }
    let anew = |name: &&String| {
        let tensor = inventory.tensors.get(name.as_str());
        is_weight_of(name, &EMBEDDINGS) && tensor.is_some_and(|new| !new.name.contains(BELOW_PAIR))
    };
    let Some(embedding) = taken.replaced.iter().find(anew) else {
        return Ok(());
    };
    let message = "the adapter brings it anew, and the source has no head: if the two are one, the head stayed as it was in the training";
    let fault = Fault::new(Kind::Ambiguous, message).tensor(embedding.as_str());
    Err(fault
        .hint("`shardloom import --untie` tells by the model's config.json, and writes that head"))
}

/// Whether this is the name of a head's weight.
#[must_use]
pub fn is_head(name: &str) -> bool {
    is_weight_of(name, &HEADS)
}

/// Whether this is the name of something of an embedding.
#[must_use]
pub fn is_of_embedding(name: &str) -> bool {
    name.split('.').any(|part| EMBEDDINGS.contains(&part))
}

fn is_weight_of(name: &str, modules: &[&str]) -> bool {
    let module = name.strip_suffix(WEIGHT);
    module.is_some_and(|module| is_one_of(module, modules))
}

fn is_one_of(module: &str, modules: &[&str]) -> bool {
    modules.contains(&module.rsplit('.').next().unwrap_or_default())
}

/// A tensor that an adapter has for a head, with that of the same for an embedding.
#[derive(Clone, Copy, Debug)]
pub struct Both<'a> {
    /// The head's.
    pub head: &'a Entry,
    /// The embedding's.
    pub embedding: &'a Entry,
    /// How they lie where the two are one.
    pub turned: Turned,
}

/// How a head's tensor lies beside that of the embedding that is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// Alike: the weight itself.
    No,
    /// Transposed, and it is the wide one: A, as B of the embedding.
    Wide,
    /// Transposed, and it is the tall one: B, as A of the embedding.
    Tall,
}

/// What the adapter's file `schema` has for a head, each with what it has for an embedding in the same place; none if it
/// has nothing for a head, or has not the same for both.
#[must_use]
pub fn for_both(schema: &FileSchema) -> Option<Vec<Both<'_>>> {
    // A, B and the weight itself, which may lie there twice: below a pair, and alone.
    let mut embedding: BTreeMap<(usize, bool), &Entry> = BTreeMap::new();
    let mut heads = Vec::new();
    for entry in &schema.entries {
        let below = entry.name.contains(BELOW_PAIR);
        let name = plain(&entry.name);
        let (module, place) = match part_of(&entry.name) {
            Some(part) => (part.module, part.which),
            None => (name.strip_suffix(WEIGHT).unwrap_or_default(), WHOLE),
        };
        if is_one_of(module, &HEADS) {
            heads.push(((place, below), entry));
        } else if is_one_of(module, &EMBEDDINGS)
            && embedding.insert((place, below), entry).is_some()
        {
            return None;
        }
    }
    let both = heads.iter().map(|((place, below), head)| {
        let (turned, other) = match place {
            0 => (Turned::Wide, 1),
            1 => (Turned::Tall, 0),
            other => (Turned::No, *other),
        };
        let embedding = embedding.get(&(other, *below))?;
        Some(Both {
            head,
            embedding,
            turned,
        })
    });
    let both: Option<Vec<Both<'_>>> = both.collect();
    both.filter(|both| !both.is_empty() && both.len() == embedding.len())
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
