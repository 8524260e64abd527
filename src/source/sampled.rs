//! What a checkpoint is at first sight: its kind, and the names in one of its files.

use crate::catalog::Entry;
use crate::fault::Result;
use crate::plan::inventory::HYPER_STEM;
use crate::plan::state::MASTER;
use crate::source::directory::{structure, told};
use crate::source::listed::Listing;
use crate::source::listing::list;
use crate::source::meta::Name;
use crate::source::pattern;
use crate::source::reading::Weights;
use crate::store::full_dir::{MAP_BYTES_MAX, parse_map};
use crate::store::io::ReadFile;
use crate::store::{Format, json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// How weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lies {
    /// Rank directories.
    Ranks,
    /// A directory that tells its own layout.
    Itself,
    /// Full weights.
    Full,
}

/// A checkpoint at first sight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// How it lies.
    pub lies: Lies,
    /// How many ranks have files of their own here.
    pub ranks: u32,
    /// Of rank directories: the ending of the newest file's name in one of them, if names tell.
    pub step: Option<String>,
    /// Names of the tensors in one file; none if it can't be read.
    pub names: Vec<String>,
    /// That file's metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Names and metadata.
type Told = (Vec<String>, BTreeMap<String, String>);

/// What this node sees at `path`, of full weights the files that are meant; none where there are no weights. Local.
///
/// # Errors
/// As listing it: [`crate::fault::Kind::Io`], [`crate::fault::Kind::Ambiguous`].
pub fn sample(path: &Path, weights: &Weights) -> Result<Option<Sampled>> {
    let listing = list(path, None, weights)?;
    let listed = listing.ranks.values().flatten().map(|file| &file.path);
    let offered = listing.offered.values().filter_map(|files| files.last());
    let lies = match (listing.offered.is_empty(), &listing.inner) {
        (false, _) => Lies::Ranks,
        (true, Some(_)) => Lies::Itself,
        (true, None) if listing.ranks.len() > 1 => Lies::Ranks,
        (true, None) => Lies::Full,
    };
    let all: Vec<&String> = offered.chain(listed).collect();
    // What tells where a job stands tells no weights' names.
    let is_weights = |path: &&&String| !path.starts_with(HYPER_STEM);
    let Some(first) = all.iter().find(is_weights).or(all.first()) else {
        return Ok(None);
    };
    let base = match listing.single_file {
        true => pattern::base(path),
        false => path.to_path_buf(),
    };
    let ranks = listing.offered.len().max(listing.ranks.len());
    let (names, metadata) = names(&base, &listing, first).unwrap_or_default();
    Ok(Some(Sampled {
        lies,
        ranks: u32::try_from(ranks).unwrap_or(u32::MAX),
        step: step(listing.offered.values().next()),
        names,
        metadata,
    }))
}

/// The same; none where this node sees no weights that can be read. Local.
#[must_use]
pub fn readable(path: &Path) -> Option<Sampled> {
    let sampled = sample(path, &Weights::Told).ok()??;
    (!sampled.names.is_empty()).then_some(sampled)
}

/// The ending of the newest of a rank's files.
fn step(files: Option<&Vec<String>>) -> Option<String> {
    let names = files?.iter().filter_map(|path| path.rsplit('/').next());
    let parsed = names.filter_map(Name::parse).map(|(name, _)| name);
    let newest = parsed.max_by_key(|name| (name.repeat, name.epoch, name.step))?;
    Some(newest.suffix())
}

/// The names in a file, and its metadata.
fn names(base: &Path, listing: &Listing, first: &str) -> Result<Told> {
    let told = told(base, listing)?;
    let contents = told.iter().flat_map(|told| told.own.contents.values());
    let names: Vec<String> = contents
        .flat_map(|file| file.names().map(str::to_owned))
        .collect();
    if !names.is_empty() {
        return Ok((names, BTreeMap::new()));
    }
    let file = ReadFile::open(&base.join(first))?;
    let schema = match structure(told.as_ref(), listing, first, &file)? {
        Some(schema) => schema,
        None => Format::recognise(&file)?.read(&file)?,
    };
    let entries = schema.entries.iter().enumerate();
    let name = |(position, entry): (usize, &Entry)| {
        let part = schema.held.part(position);
        part.map_or(&entry.name, |part| &part.of).to_string()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.extend(masters(base, listing));
    Ok((names, schema.metadata.clone()))
}

/// The names of masters that an index of full weights lists, which may lie in other files than their weights.
fn masters(base: &Path, listing: &Listing) -> Vec<String> {
    let read = |index: &String| {
        let bytes = json::bytes(&base.join(index), MAP_BYTES_MAX)?;
        parse_map(&bytes)
    };
    let map = listing.index.as_ref().and_then(|index| read(index).ok());
    let names = map.unwrap_or_default().into_keys();
    names.filter(|name| name.starts_with(MASTER)).collect()
}
