//! The headers of a source's files: each read by one process, equal ones understood and sent once.

use crate::catalog::{Catalog, Entry, FileSchema, ShardFile};
use crate::exchange::{World, agree, all_gather, decode, encode};
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::Reach;
use crate::source::listed::{Listed, Listing};
use crate::store::Format;
use crate::store::io::ReadFile;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

/// A schema in its wire form, after the name of its file's format.
type SchemaWire = (String, Vec<Entry>, BTreeMap<String, String>, u64);

/// Reads every header once; gives all processes the catalog, and the format of its first file.
/// Collective.
pub(super) fn read_headers(
    world: &World,
    reach: &Reach,
    base: &Path,
    merged: &Listing,
) -> Result<(Catalog, Format)> {
    let mine = agree(world, read_own_headers(reach, base, merged))?;
    let summary: Vec<(u32, u32, u64)> = mine
        .iter()
        .map(|(rank, file, hash, _)| (*rank, *file, *hash))
        .collect();
    let summaries = all_gather(world, &summary)?;
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
    let mut schemas: BTreeMap<u64, (Format, Arc<FileSchema>)> = BTreeMap::new();
    for (hash, body) in all_gather(world, &bodies)?.into_iter().flatten() {
        let schema = decode::<SchemaWire>(&body).and_then(|(name, entries, metadata, size)| {
            let schema = FileSchema::new(entries, metadata, vec![], size)?;
            Ok((Format::called(&name).unwrap_or_default(), Arc::new(schema)))
        });
        schemas.insert(hash, agree(world, schema)?);
    }
    let mut catalog = Catalog::default();
    let mut first = None;
    for (rank, files) in &merged.ranks {
        let mut shards = Vec::new();
        for (number, Listed { path, .. }) in files.iter().enumerate() {
            let key = (*rank, u32::try_from(number).unwrap_or(u32::MAX));
            let (format, schema) = hash_of
                .get(&key)
                .and_then(|hash| schemas.get(hash))
                .ok_or_else(|| {
                    Fault::new(Kind::Internal, "no process has read its header").file(path.as_str())
                })?;
            first.get_or_insert(*format);
            shards.push(ShardFile {
                path: path.clone(),
                schema: schema.clone(),
            });
        }
        catalog.ranks.insert(*rank, shards);
    }
    Ok((catalog, first.unwrap_or_default()))
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
            let format = Format::recognise(&file).map_err(|fault| fault.rank(*rank))?;
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
    let name = format.name().to_owned();
    let wire: SchemaWire = (name, schema.entries, schema.metadata, schema.size);
    let body = encode(&wire)?;
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    Ok((hasher.finish(), Arc::new(body)))
}
