//! What the source holds and who sees it, agreed by all processes.
//!
//! One process a node lists what it sees; each file's header is read by one process; schemas that are
//! equal, as those of a stage's ranks are, travel once.

use crate::catalog::{Catalog, Entry, FileSchema, ShardFile};
use crate::engine::iteration::{self, SourceIteration};
use crate::engine::listing::{Listed, Listing, common, list, list_files, merge, number};
use crate::exchange::{Topology, World, agree, all_gather_bytes, decode, encode};
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::{ExchangeMode, Reach};
use crate::store::Format;
use crate::store::io::ReadFile;
use crate::strategy::Strategy;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A source as all processes know it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The directory that the catalog's paths are in.
    pub base: PathBuf,
    /// What lies where.
    pub catalog: Catalog,
    /// Who sees it.
    pub reach: Reach,
    /// Format of its files.
    pub format: Format,
    /// The layouts that it tells itself, with where it stands: a checkpoint 2.0.
    pub iteration: Option<SourceIteration>,
}

impl Source {
    /// Gives a fault of the plan, which knows files by their path inside the source, the path that
    /// the user knows.
    #[must_use]
    pub fn place(&self, mut fault: Fault) -> Fault {
        let file = fault
            .file
            .take()
            .map_or_else(|| self.base.clone(), |file| self.base.join(file));
        fault.file(file.display().to_string())
    }

    /// The strategy to read it by: its own, if it tells one, which `given` must agree with. Local.
    ///
    /// # Errors
    /// [`Kind::Strategy`] naming a tensor.
    pub fn strategy(&self, given: Option<Strategy>) -> Result<Option<Strategy>> {
        let own = self
            .iteration
            .as_ref()
            .and_then(|iteration| iteration.strategy.as_ref());
        match (own, given) {
            (None, given) => Ok(given),
            (Some(own), None) => Ok(Some(own.clone())),
            (Some(own), Some(given)) => {
                iteration::check_same(own, &given).map_err(|fault| self.place(fault))?;
                Ok(Some(own.clone()))
            }
        }
    }
}

/// Finds the source at `path`. Collective.
///
/// # Errors
/// The same on every process: [`Kind::MissingShard`] if nobody sees weights there,
/// [`Kind::Ambiguous`], [`Kind::Corrupt`], [`Kind::Differs`] if two nodes disagree about a file.
pub fn discover(
    world: &World,
    topology: &Topology,
    path: &Path,
    suffix: Option<&str>,
    mode: ExchangeMode,
) -> Result<Source> {
    let listings = gather(world, topology, || list(path, suffix))?;
    assemble(world, topology, path, mode, &listings)
}

/// Finds every weight file of `format` below `path`, each as a rank of its own. Collective.
///
/// # Errors
/// As [`discover`].
pub fn discover_files(
    world: &World,
    topology: &Topology,
    path: &Path,
    format: Format,
    contains: Option<&str>,
    mode: ExchangeMode,
) -> Result<Source> {
    let mut listings = gather(world, topology, || list_files(path, format, contains))?;
    agree(world, number(&mut listings, path, format))?;
    assemble(world, topology, path, mode, &listings)
}

/// What each node sees. Collective.
fn gather(
    world: &World,
    topology: &Topology,
    list: impl FnOnce() -> Result<Listing>,
) -> Result<Vec<Listing>> {
    let mine = if topology.leads(world.process()) {
        list()
    } else {
        Ok(Listing::default())
    };
    let mine = agree(world, mine)?;
    let mut listings: Vec<Listing> = allgather(world, &mine)?;
    let members = topology.nodes.iter();
    let first = members.map(|members| std::mem::take(&mut listings[members[0] as usize]));
    Ok(first.collect())
}

/// Puts what the nodes see together. Collective.
fn assemble(
    world: &World,
    topology: &Topology,
    path: &Path,
    mode: ExchangeMode,
    listings: &[Listing],
) -> Result<Source> {
    let merged = agree(world, merge(listings, topology, path))?;
    let base = if merged.single_file {
        path.parent().unwrap_or(Path::new("")).to_path_buf()
    } else {
        path.to_path_buf()
    };
    let seen = listings
        .iter()
        .map(|node| Arc::new(node.ranks.keys().copied().collect()))
        .collect();
    let source_ranks = merged.ranks.keys().next_back().map_or(1, |last| last + 1);
    let nodes = topology.nodes.clone();
    let reach = Reach::new(world.process(), nodes, seen, source_ranks, mode);
    let reach = reach.with_common(common(listings));
    let all: BTreeSet<u32> = merged.ranks.keys().copied().collect();
    if mode == ExchangeMode::Direct
        && let Some(node) = reach.seen.iter().position(|seen| **seen != all)
    {
        let message = format!("node {node} doesn't see all source ranks");
        return Err(Fault::new(Kind::MissingShard, message)
            .file(path.display().to_string())
            .hint(
                "--exchange direct needs shared storage; --exchange auto sends what isn't seen",
            ));
    }
    let catalog = read_headers(world, &reach, &base, &merged)?;
    let iteration = iteration::read(world, &base, &merged)?;
    let first = merged.ranks.values().flatten().next();
    let format = first
        .and_then(|file| Format::of(&file.path))
        .unwrap_or_default();
    Ok(Source {
        base,
        catalog,
        reach,
        format,
        iteration,
    })
}

pub(super) fn allgather<T: Serialize + serde::de::DeserializeOwned>(
    world: &World,
    mine: &T,
) -> Result<Vec<T>> {
    let bytes = agree(world, encode(mine))?;
    let all = all_gather_bytes(world, &bytes)?;
    agree(world, all.iter().map(|bytes| decode(bytes)).collect())
}

/// A schema in its wire form.
type SchemaWire = (Vec<Entry>, BTreeMap<String, String>, u64);

/// Reads every header once and gives all processes the catalog. Collective.
fn read_headers(world: &World, reach: &Reach, base: &Path, merged: &Listing) -> Result<Catalog> {
    let mine = agree(world, read_own_headers(reach, base, merged))?;
    let summary: Vec<(u32, u32, u64)> = mine
        .iter()
        .map(|(rank, file, hash, _)| (*rank, *file, *hash))
        .collect();
    let summaries = allgather(world, &summary)?;
    // Each distinct schema is sent by the process that has the lowest rank of it.
    let mut sender: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    let mut hash_of: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for (rank, file, hash) in summaries.into_iter().flatten() {
        hash_of.insert((rank, file), hash);
        let first = sender.entry(hash).or_insert((rank, file));
        *first = (*first).min((rank, file));
    }
    let bodies: Vec<(u64, Arc<Vec<u8>>)> = mine
        .into_iter()
        .filter(|(rank, file, hash, _)| sender.get(hash) == Some(&(*rank, *file)))
        .map(|(_, _, hash, body)| (hash, body))
        .collect();
    let mut schemas: BTreeMap<u64, Arc<FileSchema>> = BTreeMap::new();
    for (hash, body) in allgather(world, &bodies)?.into_iter().flatten() {
        let schema = decode::<SchemaWire>(&body)
            .and_then(|(entries, metadata, size)| FileSchema::new(entries, metadata, vec![], size));
        schemas.insert(hash, Arc::new(agree(world, schema)?));
    }
    let mut catalog = Catalog::default();
    for (rank, files) in &merged.ranks {
        let mut shards = Vec::new();
        for (number, Listed { path, .. }) in files.iter().enumerate() {
            let key = (*rank, u32::try_from(number).unwrap_or(u32::MAX));
            let schema = hash_of
                .get(&key)
                .and_then(|hash| schemas.get(hash))
                .ok_or_else(|| {
                    Fault::new(Kind::Internal, "no process has read its header").file(path.as_str())
                })?;
            shards.push(ShardFile {
                path: path.clone(),
                schema: schema.clone(),
            });
        }
        catalog.ranks.insert(*rank, shards);
    }
    Ok(catalog)
}

/// Headers kept to be compared with: a checkpoint that is not de-duplicated has one a stage.
const HEADERS_MAX: usize = 64;

/// Rank, file number, hash and wire form of a schema.
type OwnSchema = (u32, u32, u64, Arc<Vec<u8>>);

/// Hash and wire form of a schema.
type Understood = (u64, Arc<Vec<u8>>);

/// Reads the headers of the files that fall to this process: those of the ranks that its node is the
/// first to see, dealt over the node's processes. Equal headers are understood once. Local.
fn read_own_headers(reach: &Reach, base: &Path, merged: &Listing) -> Result<Vec<OwnSchema>> {
    let mut own = Vec::new();
    let mut known: HashMap<(Vec<u8>, u64), Understood> = HashMap::new();
    for (rank, files) in &merged.ranks {
        let Some(node) = reach.homes(*rank).first() else {
            continue;
        };
        for (number, Listed { path, size, .. }) in files.iter().enumerate() {
            let members = &reach.nodes[*node as usize];
            if members[(*rank as usize + number) % members.len()] != reach.process {
                continue;
            }
            let file = ReadFile::open(&base.join(path))?;
            if file.size() != *size {
                let fault = Fault::new(Kind::Io, "changes while it is read");
                return Err(fault.file(file.path().display().to_string()));
            }
            let format = Format::of(path).unwrap_or_default();
            let header = format.header(&file).map_err(|fault| fault.rank(*rank))?;
            let key = header.map(|header| (header, *size));
            let schema = match key.as_ref().and_then(|key| known.get(key)) {
                Some((hash, body)) => (*hash, Arc::clone(body)),
                None => understand(format, &file).map_err(|fault| fault.rank(*rank))?,
            };
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            own.push((*rank, number, schema.0, Arc::clone(&schema.1)));
            if let Some(key) = key.filter(|_| known.len() < HEADERS_MAX) {
                known.entry(key).or_insert(schema);
            }
        }
    }
    Ok(own)
}

/// The hash and wire form of a file's schema. Local.
fn understand(format: Format, file: &ReadFile) -> Result<Understood> {
    let schema = format.read(file)?;
    let wire: SchemaWire = (schema.entries, schema.metadata, schema.size);
    let body = encode(&wire)?;
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    Ok((hasher.finish(), Arc::new(body)))
}
