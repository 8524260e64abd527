//! What is in files, from their headers. Local: one process, no MPI.

use crate::catalog::{Entry, FileSchema};
use crate::fault::{Fault, Kind, Result};
use crate::source::Offered;
use crate::source::meta::Name;
use crate::source::nothing;
use crate::source::{Listed, Listing, chosen, index_notes, list, list_files, structure, told};
use crate::store::Format;
use crate::store::io::ReadFile;
use crate::store::whole::{ranges, spelled};
use crate::strategy::Strategy;
use crate::strategy::name::matches;
use crate::tensor::figures::Figures;
use crate::tensor::shape::Shape;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The tensors of full weights: names and full shapes. Local.
///
/// # Errors
/// As `discover`.
pub fn full_tensors(path: &Path) -> Result<Vec<(String, Vec<u64>)>> {
    let inspected = inspect(path, None, None, Wanted::default())?;
    if inspected.ranks > 1 {
        let fault = Fault::new(Kind::Usage, "is distributed; full weights are needed here");
        return Err(fault.file(path.display().to_string()));
    }
    let tensors = inspected.files.into_iter().flat_map(|file| file.tensors);
    Ok(tensors
        .map(|tensor| (tensor.name, tensor.shape.0))
        .collect())
}

/// The tensors of rank directories that are cut by `strategy`: names and full shapes; those that it
/// doesn't know as they are. Local.
///
/// # Errors
/// As [`inspect`], [`Kind::Strategy`] for ranks that it hasn't.
pub fn cut_tensors(path: &Path, strategy: &Strategy) -> Result<Vec<(String, Vec<u64>)>> {
    let inspected = inspect(path, None, None, Wanted::default())?;
    let mut tensors = BTreeMap::new();
    for file in inspected.files {
        if file.rank >= strategy.ranks() {
            let message = format!("the strategy is of {} ranks", strategy.ranks());
            let fault = Fault::new(Kind::Strategy, message).rank(file.rank);
            return Err(fault.file(path.join(&file.path).display().to_string()));
        }
        let stage = file.rank / strategy.ranks_per_stage().max(1);
        for tensor in file.tensors {
            let layout = strategy.layout_in(&tensor.name, stage);
            let parts = layout.map(|found| found.layout.parts()).unwrap_or_default();
            let parts = parts.into_iter().chain(std::iter::repeat(1));
            let sizes = tensor.shape.0.iter().zip(parts);
            let full = sizes
                .map(|(size, parts)| size.saturating_mul(parts))
                .collect();
            tensors.entry(tensor.name).or_insert(full);
        }
    }
    Ok(tensors.into_iter().collect())
}

/// A file as `inspect` shows it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
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
#[non_exhaustive]
pub struct InspectedTensor {
    /// Its name.
    pub name: String,
    /// Its element type, as safetensors spells it.
    pub dtype: &'static str,
    /// Its shape in this file.
    pub shape: Shape,
    /// Its bytes.
    pub bytes: u64,
    /// What its elements come to, where that was asked for and they are numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
}

/// What is at a path.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Inspected {
    /// Number of ranks.
    pub ranks: usize,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// In rank directories: the checkpoints that there are, by the ending of their names, and the ranks
    /// that have each, as ranges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<(String, String)>>,
    /// What is to be said of the files that were chosen, and of what their index says of them.
    pub notes: Vec<String>,
    /// The files.
    pub files: Vec<InspectedFile>,
}

/// Reads the headers of the files at `path` that a job with this `--file-suffix` would read. Local.
///
/// # Errors
/// [`Kind::Corrupt`], [`Kind::MissingShard`] and others, as `discover`.
pub fn inspect(
    path: &Path,
    suffix: Option<&str>,
    weights: Option<&str>,
    wanted: Wanted<'_>,
) -> Result<Inspected> {
    let listing = listed(path, suffix, weights)?;
    if listing.ranks.is_empty() {
        nothing::refuse(path)?;
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
        steps: steps(&listing.offered),
        notes: listing.notes.clone(),
        files: Vec::new(),
    };
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let told = told(base, &listing)?;
    for (rank, files) in &listing.ranks {
        if wanted.rank.is_some_and(|wanted| wanted != *rank) {
            continue;
        }
        for Listed { path: name, .. } in files {
            let file = ReadFile::open(&base.join(name))?;
            let schema = match structure(told.as_ref(), &listing, name, &file)? {
                Some(schema) => schema,
                None => Format::recognise(&file)?.read(&file)?,
            };
            let tensors = tensors(&file, &schema, wanted)?;
            if listing.index.is_some() {
                let own = schema.entries.iter().map(|entry| entry.name.to_string());
                names.insert(name.clone(), own.collect());
            }
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
    if let Some(index) = listing.index.as_ref().filter(|_| !names.is_empty()) {
        inspected
            .notes
            .extend(index_notes(&base.join(index), &names));
    }
    check_wanted(path, &listing, wanted, &inspected)?;
    Ok(inspected)
}

/// The files to look at. Local.
fn listed(path: &Path, suffix: Option<&str>, weights: Option<&str>) -> Result<Listing> {
    match chosen(path, suffix, weights) {
        Err(fault) if fault.kind == Kind::Ambiguous => {
            // Files of full weights can be shown without a map of them; of ranks' files one is meant.
            let all = list_files(path, None, None);
            let full = |all: &Listing| {
                all.ranks
                    .values()
                    .flatten()
                    .all(|file| !file.path.contains('/'))
            };
            all.ok().filter(full).ok_or(fault)
        }
        other => other,
    }
}

/// The steps that rank directories at `path` have, and the ranks that have each; nothing for anything
/// else. Local.
#[must_use]
pub fn steps_at(path: &Path) -> Vec<(String, String)> {
    let listing = list(path, None, None).ok();
    let told = listing.and_then(|listing| steps(&listing.offered));
    told.unwrap_or_default()
}

/// Which part of what is there is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Tensors whose names match.
    pub parameter: Option<&'a str>,
    /// Of this rank alone.
    pub rank: Option<u32>,
    /// Whether their elements are read.
    pub figures: bool,
}

/// Refuses a part that isn't there.
fn check_wanted(
    path: &Path,
    listing: &Listing,
    wanted: Wanted<'_>,
    inspected: &Inspected,
) -> Result<()> {
    let at = |fault: Fault| Err(fault.file(path.display().to_string()));
    if let Some(rank) = wanted.rank.filter(|rank| !listing.ranks.contains_key(rank)) {
        let ranks = spelled(&ranges(listing.ranks.keys().copied()));
        let message = format!("has nothing of rank {rank}; there are ranks {ranks}");
        return at(Fault::new(Kind::Usage, message));
    }
    if let Some(glob) = wanted.parameter
        && inspected.files.iter().all(|file| file.tensors.is_empty())
    {
        let fault = Fault::new(Kind::UnknownTensor, format!("no tensor matches '{glob}'"));
        return at(fault.hint("`*` stands for any text, `?` for one character: '*.wq.weight'"));
    }
    Ok(())
}

/// The checkpoints in rank directories, and who has them. None if names tell of none.
fn steps(offered: &Offered) -> Option<Vec<(String, String)>> {
    let mut steps: BTreeMap<Name, BTreeSet<u32>> = BTreeMap::new();
    for (rank, files) in offered {
        let names = files.iter().filter_map(|file| file.rsplit('/').next());
        for (name, _) in names.filter_map(Name::parse) {
            steps.entry(name).or_default().insert(*rank);
        }
    }
    let told = steps
        .into_iter()
        .map(|(name, having)| (name.suffix(), spelled(&ranges(having))));
    let told: Vec<_> = told.collect();
    (!told.is_empty()).then_some(told)
}

/// Bytes of a tensor that are read at once; a multiple of every element's.
const PIECE_BYTES: u64 = 1 << 20;

/// The tensors of a file that are wanted.
fn tensors(
    file: &ReadFile,
    schema: &FileSchema,
    wanted: Wanted<'_>,
) -> Result<Vec<InspectedTensor>> {
    let matching = |entry: &&Entry| {
        let glob = wanted.parameter;
        glob.is_none_or(|glob| matches(glob, &entry.name))
    };
    let entries = schema.entries.iter().filter(matching);
    let shown = entries.map(|entry| {
        let figures = if wanted.figures {
            figures(file, entry)?
        } else {
            None
        };
        Ok(InspectedTensor {
            name: entry.name.to_string(),
            dtype: entry.dtype.safetensors_name(),
            shape: entry.shape.clone(),
            bytes: entry.bytes(),
            figures,
        })
    });
    shown.collect()
}

/// What a tensor's elements come to, a piece at a time; none if they aren't numbers.
fn figures(file: &ReadFile, entry: &Entry) -> Result<Option<Figures>> {
    let mut figures = Figures::default();
    let mut numbers = true;
    let mut begin = 0;
    while numbers && begin < entry.bytes() {
        let end = entry.bytes().min(begin + PIECE_BYTES);
        let mut piece = vec![0; usize::try_from(end - begin).unwrap_or_default()];
        entry.locate(begin..end, |offset, range| {
            let at = |place: u64| usize::try_from(place - begin).unwrap_or_default();
            let part = piece.get_mut(at(range.start)..at(range.end));
            file.read_at(part.unwrap_or_default(), offset)
        })?;
        numbers = figures.take(entry.dtype, &piece);
        begin = end;
    }
    Ok(numbers.then_some(figures))
}
