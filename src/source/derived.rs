//! Sources whose tensors are not what is stored: scaled blocks, adapters to be merged.
//!
//! An adapter's file becomes a file of one more rank of the source, which every node sees. So its
//! parts are read and sent as those of any shard.

use crate::catalog::{Catalog, Entry, ShardFile};
use crate::exchange::{Operation, World, agree, all_reduce, encode};
use crate::fault::{Fault, Kind, Result};
use crate::plan::SourceTensor;
use crate::plan::affix::Affixes;
use crate::plan::dequantise::dequantise;
use crate::plan::inventory::{Inventory, whole_tensor};
use crate::plan::lora::{Meaning, Named, merge};
use crate::plan::lora_lacks::check;
use crate::plan::lora_masters::leave_masters;
use crate::plan::lora_own::take_own_pairs;
use crate::plan::lora_tied::{Tied, is_head, is_of_embedding, refuse_untold};
use crate::plan::reach::Reach;
use crate::source::found::Source;
use crate::source::tied_pairs::{joined, one_for_both};
use crate::store::Format;
use crate::store::io::ReadFile;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

/// What the tensors of a source are beside what is stored. Nothing: just that.
#[derive(Clone, Debug, Default)]
pub struct Derived {
    /// Rows and columns that share a scale, of weights stored in 8 bits.
    pub block: Option<[u64; 2]>,
    /// An adapter to merge.
    pub lora: Option<Lora>,
    /// Beginnings of names taken away and given.
    pub affixes: Affixes,
    /// A head that is the embedding, too.
    pub tied: Option<Tied>,
}

/// An adapter.
#[derive(Clone, Debug)]
pub struct Lora {
    /// Its file, which every node sees; none: it lies among the source's own tensors.
    pub file: Option<PathBuf>,
    /// What was given: the file or its directory.
    pub given: Option<PathBuf>,
    /// What its pairs mean.
    pub meaning: Meaning,
}

/// An adapter's file as a part of the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    /// The rank that it is of.
    rank: u32,
    /// What it has for the embedding it has for the head, too.
    as_one: bool,
}

/// Whether a source has a head of its own.
fn has_head(catalog: &Catalog) -> bool {
    let mut schemas = catalog.distinct_schemas();
    let is_head = |entry: &Entry| is_head(&entry.name);
    schemas.any(|(_, schema)| schema.entries.iter().any(is_head))
}

impl Derived {
    /// Whether what the adapter has for an embedding that is the head, too, is for both.
    #[must_use]
    pub fn as_one(&self) -> bool {
        self.lora.as_ref().is_some_and(|lora| lora.meaning.tied)
    }

    /// A head that is the embedding, too, of a source that has the model's names: one that calls its embedding otherwise
    /// is another network's.
    fn tied(&self, catalog: &Catalog) -> Option<&Tied> {
        let tied = self.tied.as_ref()?;
        let schemas = catalog.distinct_schemas();
        let entries = schemas.flat_map(|(_, schema)| &schema.entries);
        let names = entries.map(|entry| &*entry.name);
        let mut embeddings = names.filter(|name| is_of_embedding(name)).peekable();
        let own =
            embeddings.peek().is_none() || embeddings.any(|name| name.ends_with(&*tied.embedding));
        own.then_some(tied)
    }

    /// Makes the adapter's file, if there is one, a part of `source`. Collective.
    ///
    /// # Errors
    /// [`Kind::Io`] if a process doesn't see it, [`Kind::Corrupt`], [`Kind::Differs`] if it isn't the
    /// same for all.
    pub(super) fn join(&self, world: &World, source: &mut Source) -> Result<Option<Beside>> {
        let Some(path) = self.lora.as_ref().and_then(|lora| lora.file.as_ref()) else {
            return Ok(None);
        };
        let leads = source.reach.nodes[source.reach.node() as usize].first();
        let watches = leads == Some(&source.reach.process);
        let mut still = source.still.clone();
        let has_head = has_head(&source.catalog);
        let own_tied = self.tied(&source.catalog);
        let mut as_one = false;
        let mut read = || {
            let path = std::path::absolute(path).map_err(|error| {
                Fault::new(Kind::Io, error.to_string()).file(path.display().to_string())
            })?;
            if watches {
                still.also(&path)?;
            }
            let file = ReadFile::open(&path)?;
            let name = path.display().to_string();
            let mut schema = Format::recognise(&file)?.read(&file)?;
            if let Some(tied) = own_tied {
                schema = joined(&file, schema, tied).map_err(|fault| fault.file(&*name))?;
            } else if !has_head && let Some(alone) = one_for_both(&file, &schema)? {
                (schema, as_one) = (alone, true);
            }
            let mut hasher = DefaultHasher::new();
            (encode(&schema.entries)?, schema.size).hash(&mut hasher);
            Ok((name, schema, hasher.finish()))
        };
        let (path, schema, hash) = agree(world, read())?;
        source.still = still;
        let (mut least, mut largest) = ([hash], [hash]);
        all_reduce(world, &mut least, Operation::Min)?;
        all_reduce(world, &mut largest, Operation::Max)?;
        if least != largest {
            let fault = Fault::new(Kind::Differs, "isn't the same on all nodes");
            return Err(fault.file(path));
        }
        let old = &source.reach;
        let rank = old.source_ranks;
        let seen = old.seen.iter().map(|ranks| {
            let ranks: BTreeSet<u32> = ranks.iter().copied().chain([rank]).collect();
            Arc::new(ranks)
        });
        let (nodes, seen) = (old.nodes.clone(), seen.collect());
        let reach = Reach::new(old.process, nodes, seen, rank + 1, old.mode);
        source.reach = reach.with_common(old.common().clone());
        let schema = Arc::new(schema);
        let file = ShardFile { path, schema };
        source.catalog.ranks.insert(rank, vec![file]);
        Ok(Some(Beside { rank, as_one }))
    }

    /// Puts what is computed in the place of what is stored; gives what is to be said. Local.
    ///
    /// # Errors
    /// As [`dequantise`], [`merge`] and [`check`].
    pub(super) fn apply(
        &self,
        inventory: &mut Inventory,
        source: &Source,
        beside: Option<Beside>,
    ) -> Result<Vec<String>> {
        let unchanged = self.affixes.apply(inventory)?;
        let block = self.block.map(|block| dequantise(inventory, block));
        let mut notes = block.transpose()?.unwrap_or_default();
        notes.extend(unchanged);
        let tied = self.tied(&source.catalog);
        if let Some(tied) = tied {
            tied.part(inventory);
        }
        let Some(lora) = &self.lora else {
            return Ok(notes);
        };
        let Some(Beside { rank, as_one }) = beside else {
            let catalog = &source.catalog;
            let own = take_own_pairs(inventory, catalog)?;
            let taken = merge(inventory, catalog, &own, &lora.meaning)?;
            notes.extend(leave_masters(inventory, &taken));
            return Ok(notes);
        };
        let one = tied.is_some_and(|tied| !tied.parted);
        let meaning = Meaning {
            tied: lora.meaning.tied || as_one || one,
            ..lora.meaning.clone()
        };
        let files = source.catalog.ranks.get(&rank).into_iter().flatten();
        for file in files {
            let entries = file.schema.entries.iter();
            let named = |tensor: SourceTensor| (tensor.name.clone(), Arc::new(tensor));
            let tensors = entries.map(|entry| whole_tensor(entry, rank).map(named));
            let adapter: Result<Vec<Named>> = tensors.collect();
            let taken = adapter
                .and_then(|adapter| merge(inventory, &source.catalog, &adapter, &meaning))
                .and_then(|taken| {
                    let gaps = check(inventory, &meaning, &taken, tied)?;
                    if tied.is_none() {
                        refuse_untold(inventory, &meaning, &taken)?;
                    }
                    Ok((taken, gaps))
                });
            let (taken, gaps) = taken.map_err(|fault| fault.file(file.path.as_str()))?;
            notes.extend(gaps);
            notes.extend(leave_masters(inventory, &taken));
        }
        Ok(notes)
    }
}
