//! Which weight files a node sees at a path, and which of them are meant.

use crate::exchange::Topology;
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::HYPER_STEM;
use crate::source::iteration;
use crate::source::listed::{Listed, Listing};
use crate::store::io::{self, ReadFile, Standing};
use crate::store::{Format, full_dir, rank_dir};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lists what this node sees at `path`; what rank directories have is only offered. Local.
pub(crate) fn list(path: &Path, suffix: Option<&str>) -> Result<Listing> {
    let mut listing = Listing::default();
    match io::standing(path)? {
        Standing::Nothing | Standing::EmptyDirectory => return Ok(listing),
        Standing::File => {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let base = path.parent().unwrap_or(Path::new(""));
            listing.single_file = true;
            let file = Listed::new(base, name.unwrap_or_default())?;
            listing.ranks.insert(0, vec![file]);
            return Ok(listing);
        }
        Standing::Directory => {}
    }
    let names = io::list(path)?;
    if let Some(inner) = iteration::find(path, &names, suffix)? {
        return iteration::list(path, inner);
    }
    for (name, directory) in &names {
        let Some(rank) = rank_dir::rank_of(name).filter(|_| *directory) else {
            continue;
        };
        let inside = io::list(&path.join(name))?.into_iter();
        let weights: Vec<String> = inside
            .filter(|(name, directory)| !directory && Format::of(name).is_some())
            .map(|(file, _)| format!("{name}/{file}"))
            .collect();
        if weights.is_empty() {
            continue;
        }
        if let Some(other) = listing.offered.insert(rank, weights) {
            let other = other[0].split('/').next().unwrap_or_default();
            let message = format!("{name} and {other} are the same rank");
            return Err(Fault::new(Kind::Ambiguous, message).file(path.display().to_string()));
        }
    }
    if listing.offered.is_empty() {
        list_full(path, &names, &mut listing)?;
    }
    Ok(listing)
}

pub(super) fn both_formats(path: &Path) -> Fault {
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
        let real = io::resolve(&full)?;
        if !real.starts_with(&base) && !blobs(&base).is_some_and(|blobs| real.starts_with(blobs)) {
            let fault = Fault::new(Kind::Corrupt, "is a link to a file outside the directory");
            return Err(fault.file(full.display().to_string()));
        }
        listed.push(Listed::new(path, file)?);
    }
    if !listed.is_empty() {
        listing.ranks.insert(0, listed);
    }
    Ok(())
}

/// Where the Hugging Face cache keeps the files that a snapshot links to: `MODEL/blobs` beside
/// `MODEL/snapshots/REVISION`.
fn blobs(snapshot: &Path) -> Option<PathBuf> {
    let snapshots = snapshot.parent()?;
    let is_cache = snapshots.file_name()? == "snapshots";
    is_cache.then(|| snapshots.parent().map(|model| model.join("blobs")))?
}

/// Puts the nodes' listings together.
pub(crate) fn merge(per_node: &[Listing], topology: &Topology, path: &Path) -> Result<Listing> {
    let mut merged = Listing::default();
    let mut first_on: BTreeMap<u32, usize> = BTreeMap::new();
    for (node, listing) in per_node.iter().enumerate() {
        merged.single_file |= listing.single_file;
        if merged.inner.is_none() {
            merged.inner.clone_from(&listing.inner);
        }
        for (rank, files) in &listing.ranks {
            match merged.ranks.get(rank) {
                None => {
                    merged.ranks.insert(*rank, files.clone());
                    first_on.insert(*rank, node);
                }
                Some(other)
                    if other.len() == files.len()
                        && other.iter().zip(files).all(|(a, b)| a.is_like(b)) => {}
                Some(other) => {
                    let message = format!(
                        "rank {rank} is {} ({} bytes) on {}, {} ({} bytes) on {}",
                        other[0].path,
                        other[0].size,
                        topology.hostnames[first_on[rank]],
                        files[0].path,
                        files[0].size,
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

/// The ranks whose files several nodes see, and all of these the same ones.
pub(crate) fn common(per_node: &[Listing]) -> BTreeSet<u32> {
    let mut seen: BTreeMap<u32, (&Vec<Listed>, u32)> = BTreeMap::new();
    let mut copied = BTreeSet::new();
    for (rank, files) in per_node.iter().flat_map(|node| &node.ranks) {
        let (first, times) = seen.entry(*rank).or_insert((files, 0));
        *times += 1;
        if *first != files {
            copied.insert(*rank);
        }
    }
    seen.retain(|rank, (_, times)| *times > 1 && !copied.contains(rank));
    seen.into_keys().collect()
}
