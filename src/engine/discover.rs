//! What the source holds and who sees it, agreed by all processes.
//!
//! One process a node lists what it sees; each file's header is read by one process; schemas that are
//! equal, as those of a stage's ranks are, travel once.

use crate::catalog::{Catalog, Entry, FileSchema, ShardFile};
use crate::engine::convert::nothing;
use crate::exchange::{Topology, World, agree, all_gather_bytes, broadcast_bytes, decode, encode};
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::HYPER_STEM;
use crate::plan::reach::{ExchangeMode, Reach};
use crate::store::io::{self, ReadFile, Standing};
use crate::store::{Format, full_dir, rank_dir};
use crate::strategy::{Strategy, StrategyFile};
use crate::tensor::shape::Shape;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
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
}

/// What one node sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Listing {
    /// The path is one file; its name is the only one listed.
    single_file: bool,
    /// For each rank its files: path inside the base, size in bytes.
    ranks: BTreeMap<u32, Vec<(String, u64)>>,
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
    assemble(world, topology, path, mode, || list(path, suffix))
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
    assemble(world, topology, path, mode, || {
        list_files(path, format, contains)
    })
}

/// Puts what the nodes see together. Collective.
fn assemble(
    world: &World,
    topology: &Topology,
    path: &Path,
    mode: ExchangeMode,
    list: impl FnOnce() -> Result<Listing>,
) -> Result<Source> {
    let leads = topology
        .nodes
        .iter()
        .any(|members| members[0] == world.process());
    let mine = if leads {
        list()
    } else {
        Ok(Listing::default())
    };
    let mine = agree(world, mine)?;
    let listings: Vec<Listing> = allgather(world, &mine)?;
    let per_node: Vec<&Listing> = topology
        .nodes
        .iter()
        .map(|members| &listings[members[0] as usize])
        .collect();
    let merged = agree(world, merge(&per_node, topology, path))?;
    let base = if merged.single_file {
        path.parent().unwrap_or(Path::new("")).to_path_buf()
    } else {
        path.to_path_buf()
    };
    let reach = Reach {
        process: world.process(),
        node_of: topology.node_of.clone(),
        nodes: topology.nodes.clone(),
        source_ranks: merged.ranks.keys().next_back().map_or(1, |last| last + 1),
        seen: per_node
            .iter()
            .map(|node| Arc::new(node.ranks.keys().copied().collect()))
            .collect(),
        mode,
    };
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
    let first = merged.ranks.values().flatten().next();
    let format = first
        .and_then(|(path, _)| Format::of(path))
        .unwrap_or_default();
    Ok(Source {
        base,
        catalog,
        reach,
        format,
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

/// Lists what this node sees at `path`. Local.
fn list(path: &Path, suffix: Option<&str>) -> Result<Listing> {
    let mut listing = Listing::default();
    match io::standing(path)? {
        Standing::Nothing | Standing::EmptyDirectory => return Ok(listing),
        Standing::File => {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let size = ReadFile::open(path)?.size();
            listing.single_file = true;
            listing
                .ranks
                .insert(0, vec![(name.unwrap_or_default(), size)]);
            return Ok(listing);
        }
        Standing::Directory => {}
    }
    let names = io::list(path)?;
    let mut formats = BTreeSet::new();
    for (name, directory) in &names {
        let Some(rank) = rank_dir::rank_of(name).filter(|_| *directory) else {
            continue;
        };
        let inside = io::list(&path.join(name))?;
        let weights: Vec<&str> = inside
            .iter()
            .filter(|(name, directory)| !directory && Format::of(name).is_some())
            .map(|(name, _)| name.as_str())
            .collect();
        formats.extend(
            weights
                .iter()
                .filter_map(|name| Format::of(name))
                .map(Format::extension),
        );
        if formats.len() > 1 {
            return Err(both_formats(path));
        }
        if weights.is_empty() {
            continue;
        }
        let chosen =
            rank_dir::choose(rank, &weights, suffix).map_err(|fault| rebase(fault, path))?;
        let file = format!("{name}/{chosen}");
        let size = ReadFile::open(&path.join(&file))?.size();
        if let Some(other) = listing.ranks.insert(rank, vec![(file, size)]) {
            let message = format!("{name} and {} are the same rank", other[0].0);
            return Err(Fault::new(Kind::Ambiguous, message).file(path.display().to_string()));
        }
    }
    if listing.ranks.is_empty() {
        list_full(path, &names, &mut listing)?;
    }
    Ok(listing)
}

/// Lists every file of `format`: one, those in rank directories, or those of a full directory. Local.
fn list_files(path: &Path, format: Format, contains: Option<&str>) -> Result<Listing> {
    let wanted = |name: &str| {
        Format::of(name) == Some(format) && contains.is_none_or(|text| name.contains(text))
    };
    let mut listing = Listing::default();
    let mut files = Vec::new();
    match io::standing(path)? {
        Standing::Nothing => return Ok(listing),
        Standing::File => {
            listing.single_file = true;
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            files.extend(name.filter(|name| wanted(name)));
        }
        Standing::Directory | Standing::EmptyDirectory => {
            for (name, directory) in io::list(path)? {
                if !directory && wanted(&name) {
                    files.push(name);
                } else if directory && name.starts_with("rank") {
                    let inside = io::list(&path.join(&name))?;
                    let inside = inside
                        .iter()
                        .filter(|(n, directory)| !directory && wanted(n));
                    files.extend(inside.map(|(inner, _)| format!("{name}/{inner}")));
                }
            }
        }
    }
    if files.is_empty() {
        return Err(nothing(path, format));
    }
    let base = if listing.single_file {
        path.parent().unwrap_or(Path::new(""))
    } else {
        path
    };
    for (rank, file) in (0u32..).zip(files) {
        let size = ReadFile::open(&base.join(&file))?.size();
        listing.ranks.insert(rank, vec![(file, size)]);
    }
    Ok(listing)
}

fn rebase(mut fault: Fault, base: &Path) -> Fault {
    fault.file = fault.file.map(|file| base.join(file).display().to_string());
    fault
}

fn both_formats(path: &Path) -> Fault {
    Fault::new(Kind::Ambiguous, "has both .ckpt and .safetensors files")
        .file(path.display().to_string())
        .hint("keep one format in the directory, or give a single file")
}

/// Lists a directory of full weights: its only file, or those that its map names.
fn list_full(path: &Path, names: &[(String, bool)], listing: &mut Listing) -> Result<()> {
    let present = |name: &str| names.iter().any(|(n, directory)| n == name && !directory);
    let weights: Vec<&str> = names
        .iter()
        .filter(|(name, directory)| !directory && Format::of(name).is_some())
        .map(|(name, _)| name.as_str())
        .collect();
    let mut files: BTreeSet<String> = BTreeSet::new();
    if let Some(map) = full_dir::MAPS.iter().find(|map| present(map)) {
        let map_path = path.join(map);
        let text = ReadFile::open(&map_path)?.read_all(full_dir::MAP_BYTES_MAX)?;
        let map = full_dir::parse_map(&text)
            .map_err(|fault| fault.file(map_path.display().to_string()))?;
        files.extend(map.into_values());
        files.extend(
            weights
                .iter()
                .filter(|n| n.starts_with(HYPER_STEM))
                .map(|n| (*n).to_owned()),
        );
    } else {
        let without_hyper: Vec<&&str> = weights
            .iter()
            .filter(|name| !name.starts_with(HYPER_STEM))
            .collect();
        if without_hyper.len() > 1 {
            let message = format!(
                "has {} weight files and no map of them",
                without_hyper.len()
            );
            return Err(Fault::new(Kind::Ambiguous, message)
                .file(path.display().to_string())
                .hint(
                    "several files of full weights need param_name_map.json or \
                 model.safetensors.index.json beside them",
                ));
        }
        files.extend(weights.iter().map(|name| (*name).to_owned()));
    }
    let formats: BTreeSet<_> = files
        .iter()
        .filter_map(|f| Format::of(f))
        .map(Format::extension)
        .collect();
    if formats.len() > 1 {
        return Err(both_formats(path));
    }
    let base = io::resolve(path)?;
    let mut listed = Vec::new();
    for file in files {
        let full = path.join(&file);
        if !io::resolve(&full)?.starts_with(&base) {
            let fault = Fault::new(Kind::Corrupt, "is a link to a file outside the directory");
            return Err(fault.file(full.display().to_string()));
        }
        let size = ReadFile::open(&full)?.size();
        listed.push((file, size));
    }
    if !listed.is_empty() {
        listing.ranks.insert(0, listed);
    }
    Ok(())
}

/// Puts the nodes' listings together.
fn merge(per_node: &[&Listing], topology: &Topology, path: &Path) -> Result<Listing> {
    let mut merged = Listing::default();
    let mut first_on: BTreeMap<u32, usize> = BTreeMap::new();
    for (node, listing) in per_node.iter().enumerate() {
        merged.single_file |= listing.single_file;
        for (rank, files) in &listing.ranks {
            match merged.ranks.get(rank) {
                None => {
                    merged.ranks.insert(*rank, files.clone());
                    first_on.insert(*rank, node);
                }
                Some(other) if other == files => {}
                Some(other) => {
                    let message = format!(
                        "rank {rank} is {} ({} bytes) on {}, {} ({} bytes) on {}",
                        other[0].0,
                        other[0].1,
                        topology.hostnames[first_on[rank]],
                        files[0].0,
                        files[0].1,
                        topology.hostnames[node]
                    );
                    let fault = Fault::new(Kind::Differs, message).rank(*rank);
                    return Err(fault.file(path.display().to_string()));
                }
            }
        }
    }
    if merged.ranks.is_empty() {
        return Err(Fault::new(Kind::MissingShard, "no process finds weight files here")
            .file(path.display().to_string())
            .hint("expected rank_<n>/ directories, full weights, or one .safetensors or .ckpt file"));
    }
    Ok(merged)
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
    let bodies: Vec<(u64, Vec<u8>)> = mine
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
        for (number, (path, _)) in files.iter().enumerate() {
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

/// Rank, file number, hash and wire form of a schema.
type OwnSchema = (u32, u32, u64, Vec<u8>);

/// Reads the headers of the files that fall to this process: those of the ranks that its node is the
/// first to see, dealt over the node's processes. Local.
fn read_own_headers(reach: &Reach, base: &Path, merged: &Listing) -> Result<Vec<OwnSchema>> {
    let mut own = Vec::new();
    for (rank, files) in &merged.ranks {
        let Some(node) = reach.seen.iter().position(|seen| seen.contains(rank)) else {
            continue;
        };
        for (number, (path, size)) in files.iter().enumerate() {
            let members = &reach.nodes[node];
            if members[(*rank as usize + number) % members.len()] != reach.process {
                continue;
            }
            let file = ReadFile::open(&base.join(path))?;
            if file.size() != *size {
                let fault = Fault::new(Kind::Io, "changes while it is read");
                return Err(fault.file(file.path().display().to_string()));
            }
            let format = Format::of(path).unwrap_or_default();
            let schema = format.read(&file).map_err(|fault| fault.rank(*rank))?;
            let wire: SchemaWire = (schema.entries, schema.metadata, schema.size);
            let body = encode(&wire)?;
            let mut hasher = DefaultHasher::new();
            body.hash(&mut hasher);
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            own.push((*rank, number, hasher.finish(), body));
        }
    }
    Ok(own)
}

/// What a node sees of a strategy: nothing, or files with their bytes.
type StrategyBytes = Option<Vec<(String, Vec<u8>)>>;

/// Largest strategy file that is read.
const STRATEGY_BYTES_MAX: u64 = 1 << 30;

/// Reads a strategy (file or directory) that at least one node sees, on every process. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Strategy`], [`Kind::Differs`] if two nodes see different ones.
pub fn read_strategy(
    world: &World,
    topology: &Topology,
    path: Option<&Path>,
) -> Result<Option<Strategy>> {
    let Some(path) = path else { return Ok(None) };
    let leads = topology
        .nodes
        .iter()
        .any(|members| members[0] == world.process());
    let mine = agree(
        world,
        if leads {
            strategy_bytes(path)
        } else {
            Ok(None)
        },
    )?;
    let hash = mine.as_ref().map(|files| {
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        hasher.finish()
    });
    let hashes: Vec<Option<u64>> = allgather(world, &hash)?;
    let mut seeing = (0u32..)
        .zip(&hashes)
        .filter_map(|(process, hash)| Some((process, (*hash)?)));
    let Some((first, hash)) = seeing.next() else {
        let fault = Fault::new(Kind::Strategy, "no process finds this strategy");
        return Err(fault.file(path.display().to_string()));
    };
    if let Some((other, _)) = seeing.find(|(_, other)| *other != hash) {
        let message = format!("processes {first} and {other} see different strategies here");
        return Err(Fault::new(Kind::Differs, message).file(path.display().to_string()));
    }
    let bytes = match mine {
        Some(files) if world.process() == first => encode(&files),
        _ => Ok(Vec::new()),
    };
    let bytes = broadcast_bytes(world, first, agree(world, bytes)?)?;
    let read = decode::<Vec<(String, Vec<u8>)>>(&bytes).and_then(|files| {
        let files: Vec<StrategyFile<'_>> = files
            .iter()
            .map(|(name, bytes)| StrategyFile { name, bytes })
            .collect();
        Strategy::read(&files)
    });
    agree(
        world,
        read.map_err(|fault| fault.file(path.display().to_string())),
    )
    .map(Some)
}

/// The bytes of a strategy file, or of those of a directory. Local.
///
/// # Errors
/// [`Kind::Io`], [`Kind::Strategy`] for a directory without strategy files.
pub fn strategy_bytes(path: &Path) -> Result<StrategyBytes> {
    let read = |path: &Path| {
        let bytes = ReadFile::open(path)?.read_all(STRATEGY_BYTES_MAX)?;
        Ok((path.display().to_string(), bytes))
    };
    match io::standing(path)? {
        Standing::Nothing => Ok(None),
        Standing::File => Ok(Some(vec![read(path)?])),
        Standing::Directory | Standing::EmptyDirectory => {
            let names = io::list(path)?;
            let files: Vec<PathBuf> = names
                .iter()
                .filter(|(name, directory)| {
                    !directory && (name.ends_with(".ckpt") || name.ends_with(".json"))
                })
                .map(|(name, _)| path.join(name))
                .collect();
            if files.is_empty() {
                let fault = Fault::new(Kind::Strategy, "has no strategy files (.ckpt or .json)");
                return Err(fault.file(path.display().to_string()));
            }
            files
                .iter()
                .map(|file| read(file))
                .collect::<Result<_>>()
                .map(Some)
        }
    }
}

/// The tensors of full weights: names and full shapes. Local.
///
/// # Errors
/// As [`discover`].
pub fn full_tensors(path: &Path) -> Result<Vec<(String, Vec<u64>)>> {
    let inspected = inspect(path)?;
    if inspected.ranks > 1 {
        let fault = Fault::new(Kind::Usage, "is distributed; full weights are needed here");
        return Err(fault.file(path.display().to_string()));
    }
    let tensors = inspected.files.into_iter().flat_map(|file| file.tensors);
    Ok(tensors
        .map(|tensor| (tensor.name, tensor.shape.0))
        .collect())
}

/// A file as `inspect` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedFile {
    /// Its path inside what was inspected.
    pub path: String,
    /// The rank it belongs to.
    pub rank: u32,
    /// Its size.
    pub bytes: u64,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
    /// Its tensors, in file order.
    pub tensors: Vec<InspectedTensor>,
}

/// A tensor as `inspect` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedTensor {
    /// Its name.
    pub name: String,
    /// Its element type, as safetensors spells it.
    pub dtype: &'static str,
    /// Its shape in this file.
    pub shape: Shape,
    /// Its bytes.
    pub bytes: u64,
}

/// What is at a path.
#[derive(Clone, Debug, Serialize)]
pub struct Inspected {
    /// Number of ranks.
    pub ranks: usize,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// The files.
    pub files: Vec<InspectedFile>,
}

/// Reads the headers of all files at `path`. Local.
///
/// # Errors
/// [`Kind::Corrupt`], [`Kind::MissingShard`] and others, as [`discover`].
pub fn inspect(path: &Path) -> Result<Inspected> {
    let listing = match list(path, None) {
        Err(fault) if fault.kind == Kind::Ambiguous => {
            list_files(path, Format::Safetensors, None).map_err(|_| fault)?
        }
        other => other?,
    };
    if listing.ranks.is_empty() {
        let fault = Fault::new(Kind::MissingShard, "holds no weight files");
        return Err(fault.file(path.display().to_string()));
    }
    let base = if listing.single_file {
        path.parent().unwrap_or(Path::new(""))
    } else {
        path
    };
    let mut inspected = Inspected {
        ranks: listing.ranks.len(),
        tensor_bytes: 0,
        files: Vec::new(),
    };
    for (rank, files) in &listing.ranks {
        for (name, _) in files {
            let file = ReadFile::open(&base.join(name))?;
            let schema = Format::of(name).unwrap_or_default().read(&file)?;
            let tensors: Vec<InspectedTensor> = schema.entries.iter().map(tensor_shown).collect();
            inspected.tensor_bytes += tensors.iter().map(|tensor| tensor.bytes).sum::<u64>();
            inspected.files.push(InspectedFile {
                path: name.clone(),
                rank: *rank,
                bytes: schema.size,
                metadata: schema.metadata,
                tensors,
            });
        }
    }
    Ok(inspected)
}

fn tensor_shown(entry: &Entry) -> InspectedTensor {
    InspectedTensor {
        name: entry.name.to_string(),
        dtype: entry.dtype.safetensors_name(),
        shape: entry.shape.clone(),
        bytes: entry.bytes(),
    }
}
