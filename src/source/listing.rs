//! Which weight files a node sees at a path, and which of them are meant.

use crate::exchange::Topology;
use crate::fault::{Fault, Kind, Result};
use crate::source::directory;
use crate::source::full::list_full;
use crate::source::listed::{Listed, Listing};
use crate::store::io::{self, Standing};
use crate::store::{Format, rank_dir};
use crate::strategy::name::matches;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Lists what this node sees at `path`; what rank directories have is only offered; of full weights
/// only files that match `wanted` are listed, if it is given. Local.
pub(crate) fn list(path: &Path, suffix: Option<&str>, wanted: Option<&str>) -> Result<Listing> {
    let mut listing = Listing::default();
    match io::standing(path)? {
        Standing::Nothing | Standing::EmptyDirectory => return Ok(listing),
        Standing::File => {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let base = path.parent().unwrap_or(Path::new(""));
            let named = name.as_deref().unwrap_or_default();
            if let Some(glob) = wanted.filter(|glob| !matches(glob, named)) {
                return Err(no_choice(path, glob, "one file of another name").hint("leave it out"));
            }
            listing.single_file = true;
            let file = Listed::new(base, name.unwrap_or_default())?;
            listing.ranks.insert(0, vec![file]);
            return Ok(listing);
        }
        Standing::Directory => {}
    }
    let names = io::list(path)?;
    if let Some(inner) = directory::find(path, &names, suffix)? {
        if let Some(glob) = wanted {
            let fault = no_choice(path, glob, "a checkpoint 2.0, which names its files");
            return Err(fault.hint("leave it out; --file-suffix chooses among several checkpoints"));
        }
        return directory::list(path, inner);
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
    if let Some(glob) = wanted.filter(|_| !listing.offered.is_empty()) {
        let fault = no_choice(path, glob, "rank directories");
        return Err(fault.hint("--file-suffix chooses among several files of a rank"));
    }
    if listing.offered.is_empty() {
        list_full(path, &names, wanted, &mut listing)?;
    }
    Ok(listing)
}

/// The fault of `--weights` where there is nothing for it to choose from.
fn no_choice(path: &Path, glob: &str, what: &str) -> Fault {
    let message =
        format!("--weights '{glob}' chooses among the files of full weights; this is {what}");
    Fault::new(Kind::Usage, message).file(path.display().to_string())
}

/// Puts the nodes' listings together.
pub(crate) fn merge(per_node: &[Listing], topology: &Topology, path: &Path) -> Result<Listing> {
    let mut merged = Listing::default();
    let mut first_on: BTreeMap<u32, usize> = BTreeMap::new();
    for (node, listing) in per_node.iter().enumerate() {
        merged.single_file |= listing.single_file;
        if merged.index.is_none() && !listing.ranks.is_empty() {
            merged.index.clone_from(&listing.index);
        }
        if merged.notes.is_empty() {
            merged.notes.clone_from(&listing.notes);
        }
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
