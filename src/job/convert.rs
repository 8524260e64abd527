//! convert: every file as it is, in another format.
//!
//! Source and destination have a rank for each file: all tensors are private.

use crate::catalog::{Catalog, Entry, Place, ShardFile, SmallFile};
use crate::fault::{Fault, Kind, Result};
use crate::job::laid::renamed;
use crate::job::metadata::{format_of, noted};
use crate::job::planned::Planned;
use crate::job::spec::Convert;
use crate::layout::Layout;
use crate::plan::arrange::Naming;
use crate::plan::build::{Made, plan_tensor};
use crate::plan::full::maps;
use crate::plan::inventory::whole_tensor;
use crate::plan::names::{check_count, check_each, followed};
use crate::plan::{Patch, SourceTensor, of_patches};
use crate::source::meta::{META, META_BYTES_MAX, Meta};
use crate::source::{Opened, Source, left};
use crate::store::ckpt;
use crate::store::full_dir::TORCH_MAP;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::{Directory, rank_dir};
use crate::tensor::dtype::Dtype;
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Lays out a file for each source file of `ranks`: same tensors, other format.
pub(super) fn plan(conversion: &Convert, opened: &Opened, ranks: &[u32]) -> Result<Planned> {
    let (source, laid) = (&opened.source, opened.laid.as_ref());
    let (mut catalog, mut plans, told) = (Catalog::default(), Vec::new(), noted(&opened.metadata));
    let conversion = &mapped(conversion, opened).map_err(|fault| source.place(fault))?;
    let names = source.catalog.distinct_schemas();
    let names = names.flat_map(|(_, schema)| schema.entries.iter().map(|entry| &*entry.name));
    let format = format_of(names.map(|name| match conversion.name_map.get(name) {
        Some(written) => written.as_str(),
        None => name,
    }));
    let mut made: BTreeMap<String, &str> = BTreeMap::new();
    let mut index = Index::default();
    for (rank, files) in &source.catalog.ranks {
        let [file] = &files[..] else { continue };
        let named = |fault: Fault| fault.file(source.base.join(&file.path).display().to_string());
        let mut listing = Vec::new();
        for (position, entry) in (0u32..).zip(&file.schema.entries) {
            let name = conversion.name_map.get(&*entry.name);
            let name = name.map_or_else(|| entry.name.clone(), |name| Arc::from(name.as_str()));
            let tensor = alone(file, *rank, position, entry).map_err(named)?;
            let tensor = Arc::new(tensor);
            let layout = Arc::new(Layout::whole(entry.shape.0.len()));
            plans.push(
                plan_tensor(&name, &Made::of(&tensor.name, &tensor)?, *rank, layout)
                    .map_err(named)?,
            );
            listing.push((name, entry.dtype, entry.shape.clone()));
        }
        let stem = file.path.rsplit_once('.');
        let stem = stem.map_or(file.path.as_str(), |(stem, _)| stem);
        let path = format!("{stem}.{}", conversion.format.extension());
        if let Some(other) = made.insert(path.clone(), &file.path) {
            let message = format!("{other} would be {path} too");
            return Err(named(Fault::new(Kind::Ambiguous, message))
                .hint("convert one of them with --file-name-contains"));
        }
        if is_indexed(source, &file.path) {
            index.add(&path, &listing).map_err(named)?;
        }
        if ranks.binary_search(rank).is_err() {
            continue;
        }
        let metadata = metadata(conversion, file, format, &told).map_err(named)?;
        let schema = conversion.format.design(&listing, &metadata);
        let schema = Arc::new(schema.map_err(named)?);
        let file = ShardFile { path, schema };
        catalog.ranks.insert(*rank, vec![file]);
    }
    let texts = source.index.as_deref().map(|name| index.texts(name));
    let mut extras = texts.transpose()?.unwrap_or_default();
    extras.extend(records(source, &made, ranks)?);
    Ok(Planned {
        extras,
        told,
        tensors: plans.len() as u64,
        common: plans.len(),
        plans,
        catalog,
        laid: laid.and_then(|laid| renamed(laid.strategy.as_ref()?, &conversion.name_map)),
        depends_on: format!(
            "{:?} {:?} {}",
            conversion.format, conversion.name_map, conversion.crc
        ),
        trailers: conversion.crc,
        notes: left(&source.values).into_iter().collect(),
        by_file: true,
        ..Planned::default()
    })
}

/// Whether the index is to list what becomes of the source's file at `path`. Another form of the same weights, or an
/// adapter, is in no index, and stays so.
fn is_indexed(source: &Source, path: &str) -> bool {
    let listed = source.indexed.is_empty() || source.indexed.contains(path);
    source.index.is_some() && !path.contains('/') && listed
}

/// What ranks resume from, by their `meta.json`, under the names that these files get: `made` is the new path and the old
/// one of each.
///
/// # Errors
/// [`Kind::Io`].
fn records(
    source: &Source,
    made: &BTreeMap<String, &str>,
    ranks: &[u32],
) -> Result<Vec<SmallFile>> {
    let own = |(rank, files): (&u32, &Vec<ShardFile>)| {
        let own = ranks.binary_search(rank).is_ok();
        files
            .iter()
            .map(|file| file.path.clone())
            .filter(move |_| own)
            .collect::<Vec<_>>()
    };
    let own: BTreeSet<String> = source.catalog.ranks.iter().flat_map(own).collect();
    let rooms = own.iter().filter_map(|path| path.rsplit_once('/'));
    let rooms: BTreeSet<&str> = rooms.map(|(room, _)| room).collect();
    let mut records = Vec::new();
    for room in rooms
        .into_iter()
        .filter(|room| rank_dir::rank_of(room).is_some())
    {
        let inside = format!("{room}/{META}");
        let path = source.base.join(&inside);
        if io::standing(&path)? != Standing::File {
            continue;
        }
        let bytes = ReadFile::open(&path)?.read_all(META_BYTES_MAX)?;
        // What a trainer passes over says nothing.
        let Some((meta, _)) = Meta::parse(&bytes) else {
            continue;
        };
        let named = format!("{room}/{}", meta.last_ckpt_file);
        let new = made.iter().find(|(_, old)| **old == named);
        if let Some(name) = new.and_then(|(path, _)| path.rsplit('/').next()) {
            let last_ckpt_file = name.to_owned();
            let record = Meta {
                last_ckpt_file,
                ..meta
            };
            records.push(SmallFile::new(inside, record.bytes()?));
        }
    }
    Ok(records)
}

/// Refuses files of a checkpoint that tells its own layout: they have parts of tensors, and in another format nothing
/// would say so.
pub(super) fn all_of_whole_tensors(catalog: &Catalog) -> Result<()> {
    for file in catalog.ranks.values().flatten() {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let part = |format: &Directory| format.is_part(name, &file.schema);
        if let Some(format) = Directory::all().find(part) {
            let message = format!(
                "is a part of {}: it has parts of tensors, and no weights for itself",
                format.called()
            );
            let fault = Fault::new(Kind::Unsupported, message).file(file.path.as_str());
            return Err(fault.hint(
                "unify, reshard, diff and others read its directory: `unify` makes full weights of it",
            ));
        }
    }
    Ok(())
}

/// Which tensor is in which of the files that full weights are converted to.
#[derive(Default)]
struct Index {
    map: serde_json::Map<String, serde_json::Value>,
    bytes: u64,
}

impl Index {
    /// Takes up what is in the file at `path`.
    ///
    /// # Errors
    /// [`Kind::Ambiguous`] naming a tensor that another file has, too.
    fn add(&mut self, path: &str, listing: &[(Arc<str>, Dtype, Shape)]) -> Result<()> {
        for (name, dtype, shape) in listing {
            self.bytes += shape.bytes(*dtype)?;
            if let Some(other) = self.map.insert(name.to_string(), path.into()) {
                let message = format!("{other} would have it, too");
                return Err(Fault::new(Kind::Ambiguous, message)
                    .tensor(&**name)
                    .hint("unify takes the one that the index says"));
            }
        }
        Ok(())
    }

    /// The index beside the files; `name` is that of the source.
    fn texts(self, name: &str) -> Result<Vec<SmallFile>> {
        let naming = match name {
            TORCH_MAP => Naming::HfOnly,
            _ => Naming::Mindspore,
        };
        match self.map.is_empty() {
            true => Ok(Vec::new()),
            false => maps(naming, self.map, self.bytes),
        }
    }
}

/// The tensor that is an entry of a file, however it lies there.
fn alone(file: &ShardFile, rank: u32, position: u32, entry: &Entry) -> Result<SourceTensor> {
    let Some(part) = file.schema.held.parts.get(&position) else {
        return whole_tensor(entry, rank);
    };
    let patch = Patch {
        region: Region::whole(&entry.shape),
        strides: part.strides.clone(),
        first: 0,
        place: Place {
            rank,
            file: 0,
            entry: position,
        },
    };
    of_patches(
        &entry.name,
        entry.dtype,
        entry.shape.clone(),
        vec![patch],
        rank,
    )
}

/// `conversion` with what its map means for the states of the tensors that it has.
///
/// # Errors
/// [`Kind::UnknownTensor`] for a name that no file has; as [`check_count`].
fn mapped(conversion: &Convert, opened: &Opened) -> Result<Convert> {
    if conversion.name_map.is_empty() {
        return Ok(conversion.clone());
    }
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for (_, schema) in opened.source.catalog.distinct_schemas() {
        for entry in &schema.entries {
            known.insert(&entry.name);
            if let Some(written) = conversion.name_map.get(&*entry.name) {
                check_count(&entry.name, written, &entry.shape)?;
            }
        }
        known.extend(schema.metadata.keys().map(String::as_str));
    }
    let names = conversion.name_map.keys().map(String::as_str);
    let has = |name: &str| known.contains(name);
    check_each(names, has, "source", || known.iter().copied())?;
    Ok(Convert {
        name_map: followed(&conversion.name_map, |name, _| has(name)),
        ..conversion.clone()
    })
}

/// What the other format can carry of a file's metadata: marks of packed types and texts; whose loaders know its names,
/// and what is `told` of how tensors lie, where it says that.
fn metadata(
    conversion: &Convert,
    file: &ShardFile,
    format: &str,
    told: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let kept = file
        .schema
        .metadata
        .iter()
        .filter(|(key, value)| *value == "Int4" || key.starts_with(ckpt::TEXT_PREFIX));
    let mut metadata: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in kept {
        let name = conversion.name_map.get(key).unwrap_or(key);
        if metadata.insert(name.clone(), value.clone()).is_some() {
            let message = "two texts would be written under this name";
            return Err(Fault::new(Kind::Ambiguous, message).tensor(name.as_str()));
        }
    }
    metadata.extend(conversion.format.marks());
    if conversion.format.keeps_metadata() {
        metadata.extend(told.clone());
    }
    if let Some(marked) = metadata.get_mut("format") {
        *marked = format.to_owned();
    }
    Ok(metadata)
}
