//! What is in files, from their headers. Local: one process, no MPI.

use crate::catalog::{Catalog, Entry, FileSchema, ShardFile};
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::job::composed::Composed;
use crate::job::inspected::{Contents, Inspected, InspectedFile, InspectedLayout, InspectedTensor};
use crate::plan::simulate::Shapes;
use crate::source::complete;
use crate::source::flat;
use crate::source::fragment::refuse_part;
use crate::source::meta::Name;
use crate::source::nothing;
use crate::source::older;
use crate::source::pattern::base;
use crate::source::{
    Inner, Listed, Listing, chosen, index_notes, laid_by_listing, list, list_files, one_set, place,
    structure, told,
};
use crate::source::{Offered, Weights, check_counts, counts_of, saved_names};
use crate::store::Format;
use crate::store::io::{self, ReadFile};
use crate::store::whole::{ranges, spelled};
use crate::strategy::Strategy;
use crate::strategy::name::matches;
use crate::tensor::dtype::Dtype;
use crate::tensor::figures::Figures;
use crate::tensor::region::Region;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// The tensors of full weights, which are no part of more: names, element types and full shapes. Local.
///
/// # Errors
/// As `discover`; [`Kind::Usage`] for distributed weights; [`Kind::MissingShard`] for a part of more.
pub fn full_tensors(path: &Path) -> Result<Shapes> {
    let inspected = inspect(path, None, None, Wanted::default())?;
    if inspected.ranks > 1 {
        let fault = Fault::new(Kind::Usage, "is distributed; full weights are needed here");
        return Err(fault.file(path.display().to_string()));
    }
    let contents = &inspected.contents;
    if contents.told.is_none() {
        refuse_part(&contents.base, &contents.catalog, contents.indexed, true)?;
    }
    let tensors = inspected.files.into_iter().flat_map(|file| file.tensors);
    tensors
        .map(|tensor| {
            let dtype = Dtype::from_safetensors(tensor.dtype)?;
            Ok((tensor.name.into(), dtype, tensor.shape))
        })
        .collect()
}

/// The tensors of rank directories that are cut by `strategy`: names and full shapes; those that it
/// doesn't know as they are. Local.
///
/// # Errors
/// As [`inspect`], [`Kind::Strategy`] for ranks that it hasn't, [`Kind::MissingShard`] for ranks that aren't there.
pub fn cut_tensors(path: &Path, strategy: &Strategy) -> Result<Vec<(String, Vec<u64>)>> {
    let inspected = inspect(path, None, None, Wanted::default())?;
    let mut tensors = BTreeMap::new();
    for file in inspected.files {
        if file.rank >= strategy.ranks() {
            let message = format!(
                "the strategy is of {}",
                counted(strategy.ranks().into(), "rank")
            );
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
    let contents = inspected.contents;
    if contents.told.is_none() {
        complete::check(&contents.catalog, strategy, |_| true)
            .map_err(|fault| place(&contents.base, fault))?;
    }
    Ok(tensors.into_iter().collect())
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
    match chosen(path, suffix, weights) {
        Err(fault) if fault.kind == Kind::Ambiguous => {
            if let Some((pattern, note)) = of_ranks(path, suffix) {
                let path = path.join(pattern);
                let mut inspected = look(&path, chosen(&path, None, weights)?, wanted)?;
                inspected.notes.push(note);
                return Ok(inspected);
            }
            look(path, without_map(path).ok_or(fault)?, wanted)
        }
        listing => look(path, listing?, wanted),
    }
}

/// What to say where the step that is shown of `path`, which nobody chose, lacks what a step before it has. Local.
#[must_use]
pub fn lacks_of_older(path: &Path, newest: &Inspected) -> Option<String> {
    let shown = newest.files.first().filter(|_| !newest.contents.narrowed)?;
    let (own, _) = Name::parse(shown.path.rsplit('/').next()?)?;
    let own = own.suffix();
    let steps: Vec<&str> = newest
        .steps
        .iter()
        .flatten()
        .map(|(suffix, _)| &**suffix)
        .collect();
    let place = steps.iter().position(|suffix| **suffix == own)?;
    steps[..place]
        .iter()
        .rev()
        .take(older::LOOKED_AT)
        .find_map(|suffix| {
            let listing = chosen(path, Some(suffix), None).ok()?;
            // What is damaged tells nothing.
            let before = look(path, listing, Wanted::default()).ok()?.contents;
            let catalogs = [&newest.contents.catalog, &before.catalog];
            let fault = older::refuse_lacking([&own, suffix], catalogs, |_| true).err()?;
            Some(unread(&fault.message))
        })
}

/// The same of the files listed at `path`.
fn look(path: &Path, listing: Listing, wanted: Wanted<'_>) -> Result<Inspected> {
    if listing.ranks.is_empty() {
        nothing::refuse(path)?;
        let fault = Fault::new(Kind::MissingShard, "holds no weight files");
        return Err(fault.file(path.display().to_string()));
    }
    let base = &*match listing.single_file {
        true => base(path),
        false => path.to_path_buf(),
    };
    // Whose files parts of full weights lie in says nothing of them.
    let in_parts = |inner: &Inner| inner.format.tells_structure();
    let in_parts = listing.inner.as_ref().is_some_and(in_parts);
    let mut inspected = Inspected {
        ranks: if in_parts { 1 } else { listing.ranks.len() },
        tensor_bytes: 0,
        steps: steps(&listing.offered),
        layout: laid_by_listing(base, &listing)?.map(|laid| InspectedLayout::of(&laid)),
        notes: listing.notes.clone(),
        files: Vec::new(),
        contents: Contents {
            base: base.to_path_buf(),
            told: listing.inner.as_ref().map(|inner| inner.format.called()),
            indexed: listing.index.is_some(),
            narrowed: wanted.rank.is_some() || wanted.parameter.is_some(),
            ..Contents::default()
        },
    };
    let mut ranks: BTreeMap<u32, Vec<ShardFile>> = BTreeMap::new();
    let mut composed = Composed::new(in_parts);
    inspected.notes.extend(lacking(base, &listing)?);
    let told = told(base, &listing)?;
    let mut counts = Vec::new();
    for (rank, files) in &listing.ranks {
        if wanted.rank.is_some_and(|wanted| wanted != *rank) {
            continue;
        }
        for Listed { path: name, .. } in files {
            let file = ReadFile::open(&base.join(name))?;
            let schema = structure(told.as_ref(), &listing, name, &file)?;
            let schema = schema.map_or_else(|| Format::recognise(&file)?.read(&file), Ok)?;
            if listing.inner.is_none() {
                counts.push((*rank, counts_of(&file, &schema)?));
            }
            let mut parts = |tensor, region| composed.take(*rank, tensor, region);
            let tensors = tensors(&file, &schema, wanted, &mut parts)?;
            inspected.tensor_bytes += tensors.iter().map(|tensor| tensor.bytes).sum::<u64>();
            let written = wanted.places.then(|| file.stamp().written_nanos());
            let file = ShardFile {
                path: name.clone(),
                schema: Arc::new(schema),
            };
            inspected.files.push(shown(*rank, &file, written, tensors));
            ranks.entry(*rank).or_default().push(file);
        }
    }
    let differs = check_counts(base, &counts).err();
    inspected
        .notes
        .extend(differs.map(|fault| unread(&fault.message)));
    if let Some(index) = listing.index.as_ref().filter(|_| !ranks.is_empty()) {
        let names = ranks.values().flatten().map(names_in).collect();
        let notes = index_notes(&base.join(index), &names);
        inspected.notes.extend(notes);
    }
    inspected.contents.catalog = Catalog::of(ranks);
    composed.settle(&mut inspected)?;
    check_wanted(path, &listing, wanted, &inspected)?;
    Ok(inspected)
}

/// What to say of a checkpoint that tells its own layout, and lacks what a job needs.
fn lacking(base: &Path, listing: &Listing) -> Result<Option<String>> {
    let inner = listing.inner.as_ref();
    // What tells the files' structure is read anyway.
    let Some(inner) = inner.filter(|inner| !inner.format.tells_structure()) else {
        return Ok(None);
    };
    let glimpse = inner.format.glimpse(&base.join(&inner.directory))?;
    Ok(glimpse.why.map(|why| unread(&why)))
}

/// What is said of weights that no job reads.
fn unread(why: &str) -> String {
    format!("{why}: no job reads it so")
}

/// A file and the names of its tensors.
fn names_in(file: &ShardFile) -> (String, Vec<String>) {
    let names = file.schema.entries.iter();
    let names = names.map(|entry| entry.name.to_string());
    (file.path.clone(), names.collect())
}

/// A file of `rank` with these `tensors`, `written` at this time.
fn shown(
    rank: u32,
    file: &ShardFile,
    written: Option<i64>,
    tensors: Vec<InspectedTensor>,
) -> InspectedFile {
    let metadata = file.schema.metadata.iter().chain(&file.schema.held.values);
    InspectedFile {
        path: file.path.clone(),
        rank,
        bytes: file.schema.size,
        written,
        metadata: metadata
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        tensors,
    }
}

/// Files of full weights, which can be shown without a map of them; of ranks' files one is meant. Local.
fn without_map(path: &Path) -> Option<Listing> {
    let all = list_files(path, None, None).ok()?;
    let mut files = all.ranks.values().flatten();
    let full = files.all(|file| !file.path.contains('/'));
    full.then(|| as_one(all))
}

/// The files of ranks that lie together at `path`, as a pattern, and what is to be said of it: those of one step.
fn of_ranks(path: &Path, suffix: Option<&str>) -> Option<(String, String)> {
    let inside = io::list(path).ok()?;
    let files = inside.iter().filter(|(_, folder)| !folder);
    let weights = Format::weights(files.map(|(file, _)| file.as_str()));
    let all = flat::patterns(weights.into_iter());
    let meant = |suffix_there: &str| suffix.is_none_or(|suffix| suffix_there == suffix);
    let found = all.iter().position(|(_, suffix)| meant(suffix));
    let (pattern, _) = &all[found.filter(|_| inside.len() > 1)?];
    let others = all.iter().filter(|(other, _)| other != pattern);
    let others: Vec<&str> = others.map(|(_, suffix)| &**suffix).collect();
    let whole = path.join(pattern);
    let mut note = format!(
        "as ranks' files: '{}' takes them where they are read",
        whole.display()
    );
    if !others.is_empty() {
        note.push_str(&format!("; other steps here: {}", others.join(", ")));
    }
    Some((pattern.clone(), note))
}

/// Files that are one set by their names are those of one model, and no ranks'.
fn as_one(mut listing: Listing) -> Listing {
    let files = listing.ranks.values().flatten();
    if let Some(glob) = one_set(files.map(|file| file.path.as_str())) {
        let files = std::mem::take(&mut listing.ranks).into_values().flatten();
        listing.ranks.insert(0, files.collect());
        let note = format!(
            "no index lists these files: --weights '{glob}' takes them where they are read"
        );
        listing.notes.push(note);
    }
    listing
}

/// The steps that rank directories at `path` have, and the ranks that have each; nothing for anything
/// else. Local.
#[must_use]
pub fn steps_at(path: &Path) -> Vec<(String, String)> {
    let listing = list(path, None, &Weights::Told).ok();
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
    /// Whether it is told where in the files they lie.
    pub places: bool,
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
        return at(Fault::new(Kind::Usage, message).hint("--rank takes one of these"));
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
    for saved in saved_names(offered) {
        steps.entry(saved.name).or_default().insert(saved.rank);
    }
    let told = steps
        .into_iter()
        .map(|(name, having)| (name.suffix(), spelled(&ranges(having))));
    let told: Vec<_> = told.collect();
    (!told.is_empty()).then_some(told)
}

/// Bytes of a tensor that are read at once; a multiple of every element's.
const PIECE_BYTES: u64 = 1 << 20;

/// The tensors of a file that are wanted; `parts` takes those in parts, of which what there is to say stands
/// where the first of them is.
fn tensors(
    file: &ReadFile,
    schema: &FileSchema,
    wanted: Wanted<'_>,
    parts: &mut impl FnMut(InspectedTensor, Region) -> Option<InspectedTensor>,
) -> Result<Vec<InspectedTensor>> {
    let mut shown = Vec::new();
    for (position, entry) in schema.entries.iter().enumerate() {
        let part = schema.held.part(position);
        let name = part.map_or(&entry.name, |part| &part.of);
        if wanted.parameter.is_some_and(|glob| !matches(glob, name)) {
            continue;
        }
        // The elements of what lies with gaps or repeats are not those of its bytes.
        let dense = entry.shape.bytes(entry.dtype)? == entry.bytes()
            && part.is_none_or(|part| is_dense(entry, &part.strides));
        let figures = if wanted.figures && dense {
            figures(file, entry)?
        } else {
            None
        };
        // Of a part, and of what lies in another order, ranges alone say too little.
        let places = wanted.places && dense && part.is_none();
        let segments = entry.segments.iter().map(|range| (range.start, range.end));
        let tensor = InspectedTensor {
            name: name.to_string(),
            dtype: entry.dtype.safetensors_name(),
            shape: part.map_or(&entry.shape, |part| &part.full).clone(),
            bytes: part
                .map_or(&entry.shape, |part| &part.full)
                .bytes(entry.dtype)?,
            places: places.then(|| segments.collect()),
            figures,
        };
        match part {
            None => shown.push(tensor),
            Some(part) => {
                let region = Region {
                    offset: part.offset.clone(),
                    shape: entry.shape.clone(),
                };
                shown.extend(parts(tensor, region));
            }
        }
    }
    Ok(shown)
}

/// Whether each element of an entry with these strides in bytes lies by itself.
fn is_dense(entry: &Entry, strides: &[u64]) -> bool {
    let steps = strides.iter().zip(&entry.shape.0);
    let mut steps: Vec<(u64, u64)> = steps.map(|(step, size)| (*step, *size)).collect();
    steps.retain(|(_, size)| *size != 1);
    steps.sort_unstable();
    let mut next = u64::from(entry.dtype.bits() / 8);
    steps.into_iter().all(|(step, size)| {
        let follows = step == next;
        next = next.saturating_mul(size);
        follows
    })
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
