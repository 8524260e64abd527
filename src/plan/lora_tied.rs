//! A head that is the embedding, too: a head of its own for it, and pairs that an adapter has for both.

use crate::catalog::{Entry, FileSchema};
use crate::plan::inventory::Inventory;
use crate::plan::lora::part_of;
use std::sync::Arc;

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
