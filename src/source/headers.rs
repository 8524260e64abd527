//! The headers of a source's files: each read by one process, equal ones understood and sent once.

use crate::catalog::{Catalog, Entry, FileSchema, Held, ShardFile};
use crate::exchange::{World, all_gather, all_gather_agreed, decode, encode};
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::Reach;
use crate::source::directory::structure;
use crate::source::found::Told;
use crate::source::listed::{Listed, Listing};
use crate::source::step::{Counts, Spots};
use crate::source::still::{Moment, first_reader, reader_on};
use crate::store::Format;
use crate::store::io::ReadFile;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

/// A schema in its wire form, after the name of its file's format.
type SchemaWire = (String, Vec<Entry>, BTreeMap<String, String>, u64, Held);

/// What the headers of a source's files say, and the counts beside them.
pub(super) struct Headers {
    /// What lies where.
    pub(super) catalog: Catalog,
    /// Format of the first file.
    pub(super) format: Format,
    /// Where each file says that its rank stands.
    pub(super) counts: Vec<(u32, Counts)>,
    /// The files that this process has read, by path, as they stood.
    pub(super) opened: HashMap<String, Moment>,
}

/// Reads every header once, for all processes. Collective.
pub(super) fn read_headers(
    world: &World,
    reach: &Reach,
    base: &Path,
    merged: &Listing,
    told: Option<&Told>,
) -> Result<Headers> {
    let read = read_own_headers(reach, base, merged, told);
    let mut own = None;
    let summary = read.map(|read| {
        let (mine, _) = own.insert(read);
        let mine = mine.iter();
        mine.map(|own| (own.rank, own.number, own.hash, own.counts))
            .collect::<Vec<(u32, u32, u64, Counts)>>()
    });
    let summaries = all_gather_agreed(world, summary)?;
    let (mine, opened) = own.unwrap_or_default();
    // Each distinct schema is sent by the process that has the lowest rank of it.
    let mut sender: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    let mut hash_of: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    let mut counts = Vec::new();
    for (rank, file, hash, counted) in summaries.into_iter().flatten() {
        counts.push((rank, counted));
        hash_of.insert((rank, file), hash);
        let first = sender.entry(hash).or_insert((rank, file));
        *first = (*first).min((rank, file));
    }
    let bodies: Vec<(u64, Arc<Vec<u8>>)> = mine
        .into_iter()
        .filter(|own| sender.get(&own.hash) == Some(&(own.rank, own.number)))
        .map(|own| (own.hash, own.body))
        .collect();
    let bodies = all_gather(world, &bodies)?.into_iter().flatten();
    let schemas = bodies.map(|(hash, body)| {
        let (name, entries, metadata, size, held) = decode::<SchemaWire>(&body)?;
        let schema = FileSchema::new(entries, metadata, vec![], size)?.holding(held)?;
        let format = Format::called(&name).unwrap_or_default();
        Ok((hash, (format, Arc::new(schema))))
    });
    // The same bytes everywhere: what can't be understood here can't be elsewhere.
    let schemas: BTreeMap<u64, (Format, Arc<FileSchema>)> = schemas.collect::<Result<_>>()?;
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
    Ok(Headers {
        catalog,
        format: first.unwrap_or_default(),
        counts,
        opened,
    })
}

/// Headers kept to be compared with: a checkpoint that is not de-duplicated has one a stage.
const HEADERS_MAX: usize = 64;

/// What a process has read of a file: hash and wire form of its schema, and its counts.
struct OwnSchema {
    rank: u32,
    number: u32,
    hash: u64,
    body: Arc<Vec<u8>>,
    counts: Counts,
}

/// A header's bytes, and its file's size.
type Header = (Vec<u8>, u64);

/// Hash and wire form of a schema, and where its counts are.
type Understood = (u64, Arc<Vec<u8>>, Arc<Spots>);

/// What a process has read, and how the files stood then.
type Own = (Vec<OwnSchema>, HashMap<String, Moment>);

/// Reads the headers of the files that fall to this process: those whose [`first_reader`] is its
/// node, dealt over the node's processes. Equal headers are understood once. Local.
fn read_own_headers(
    reach: &Reach,
    base: &Path,
    merged: &Listing,
    told: Option<&Told>,
) -> Result<Own> {
    let mut own = Vec::new();
    let mut opened = HashMap::new();
    let mut known: HashMap<Header, Understood> = HashMap::new();
    for (rank, files) in &merged.ranks {
        for (number, Listed { path, size, .. }) in files.iter().enumerate() {
            let Some(node) = first_reader(reach, *rank, number) else {
                continue;
            };
            if reader_on(reach, node, *rank, number) != Some(reach.process) {
                continue;
            }
            let file = ReadFile::open(&base.join(path))?;
            if file.size() != *size {
                let fault = Fault::new(Kind::Io, "changes while it is read");
                return Err(fault.file(file.path().display().to_string()));
            }
            let (schema, key) =
                understood(told, merged, path, &file, &known).map_err(|fault| fault.rank(*rank))?;
            let beginning = key.as_ref().map(|(header, _)| &header[..]);
            opened.insert(path.clone(), Moment::of(&file, beginning)?);
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            own.push(OwnSchema {
                rank: *rank,
                number,
                hash: schema.0,
                body: Arc::clone(&schema.1),
                counts: schema.2.read(&file)?,
            });
            if let Some(key) = key.filter(|_| known.len() < HEADERS_MAX) {
                known.entry(key).or_insert(schema);
            }
        }
    }
    Ok((own, opened))
}

/// What is understood of a file: by what its checkpoint tells of it, or else by its header, which is
/// given too. Local.
fn understood(
    told: Option<&Told>,
    merged: &Listing,
    path: &str,
    file: &ReadFile,
    known: &HashMap<Header, Understood>,
) -> Result<(Understood, Option<Header>)> {
    if let Some(schema) = structure(told, merged, path, file)? {
        let format = told.map(|told| told.format.files());
        return Ok((understand(format.unwrap_or_default(), schema)?, None));
    }
    let format = Format::recognise(file)?;
    let header = format.header(file)?.map(|header| (header, file.size()));
    let understood = match header.as_ref().and_then(|header| known.get(header)) {
        Some(understood) => understood.clone(),
        None => understand(format, format.read(file)?)?,
    };
    Ok((understood, header))
}

/// What is understood of a file with this structure. Local.
fn understand(format: Format, schema: FileSchema) -> Result<Understood> {
    let spots = Spots::of(&schema);
    let name = format.name().to_owned();
    let wire: SchemaWire = (
        name,
        schema.entries,
        schema.metadata,
        schema.size,
        schema.held,
    );
    let body = encode(&wire)?;
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    Ok((hasher.finish(), Arc::new(body), Arc::new(spots)))
}
