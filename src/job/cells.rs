//! Whether parts that the strategy calls different are: ranks whose files have the same bytes in all of them are
//! copies of each other, or one's file was copied over the other's; ranks with the same bytes in a tensor have it whole,
//! or cut less than the strategy says.

use crate::catalog::{Entry, Place};
use crate::exchange::{World, all_gather_agreed, exchange_values};
use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::job::lying::{in_rows, read};
use crate::plan::Spread;
use crate::plan::state::is_state;
use crate::source::Opened;
use crate::transport::{Filler, IoMode, Readers};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Tensors of a stage that are looked at in each of a rank's files: of each kind, which layers have each, the largest
/// that is cut; of those the largest, and then of the others.
const TENSORS: usize = 8;
/// Files of a rank that are looked at.
const FILES: u32 = 8;
/// Bytes from the middle of each of them.
const BYTES: u64 = 256;
/// Bytes of a tensor in which they are looked for again.
const WINDOW: u64 = 2 << 20;
/// Fewer bytes than these may be the same by chance.
const BYTES_MIN: usize = 64;

/// Which tensors are compared: the first rank of their stage, one of its ranks' files, and which of those that are looked
/// at: 0 all of them, else one, from 1.
type Compared = (u32, u32, usize);

/// What a rank has: of which tensors, a value of their bytes, its number, and a value of its cells.
type Evidence = (Compared, u64, u32, u64);

/// Parts of names of keys and values: where a model has fewer of their heads than ranks, these have the same ones.
const SHARED: [&str; 8] = [
    "wk",
    "wv",
    "k_proj",
    "v_proj",
    "linear_k",
    "linear_v",
    "linear_kv",
    "key_value",
];

/// The tensors of a stage and one of its ranks' files that are looked at, each with its cells.
type Looked<'a> = Vec<(&'a Arc<str>, &'a Spread)>;

/// Checks it by a sample of the largest tensors. Bytes that are all alike, such as zeros, tell nothing, nor do
/// those of a pattern that repeats itself. Collective.
///
/// # Errors
/// [`Kind::Differs`] naming two ranks, the same on every process; as reading them.
pub(super) fn check(world: &World, opened: &Opened) -> Result<()> {
    let processes = u64::from(world.size());
    let referred = |evidence: Evidence| {
        let referee = u32::try_from(evidence.1 % processes).unwrap_or_default();
        (referee, evidence)
    };
    let own = own(opened).map(|own| own.into_iter().map(referred).collect());
    let evidence: Vec<Evidence> = exchange_values(world, own)?;
    let all = all_gather_agreed(world, Ok(alike(evidence)))?;
    let mut pairs: BTreeMap<Compared, [u32; 2]> = BTreeMap::new();
    for (compared, pair) in all.into_iter().flatten() {
        let first = pairs.entry(compared).or_insert(pair);
        *first = (*first).min(pair);
    }
    if pairs.is_empty() {
        return Ok(());
    }
    let looked = looked(opened);
    let repeated = pairs.iter().map(|(compared, [rank, _])| {
        let here = opened.source.reach.owner(*rank) == Some(world.process());
        Ok(here && repeats(opened, *rank, tensors(&looked, *compared))?)
    });
    let repeated: Result<Vec<bool>> = repeated.collect();
    let repeated: Vec<Vec<bool>> = all_gather_agreed(world, repeated)?;
    let mut found = pairs.into_iter().enumerate();
    match found.find(|(number, _)| repeated.iter().all(|told| !told[*number])) {
        None => Ok(()),
        Some((_, (compared, pair))) => Err(fault(opened, &looked, compared, pair)),
    }
}

/// Those that are compared.
fn tensors<'l, 'a>(
    looked: &'l BTreeMap<(u32, u32), Looked<'a>>,
    (first_rank, file, number): Compared,
) -> &'l [(&'a Arc<str>, &'a Spread)] {
    let all = looked.get(&(first_rank, file)).map_or(&[][..], |all| all);
    match number.checked_sub(1) {
        None => all,
        Some(one) => all.get(one..=one).unwrap_or_default(),
    }
}

fn fault(
    opened: &Opened,
    looked: &BTreeMap<(u32, u32), Looked<'_>>,
    compared: Compared,
    [one, other]: [u32; 2],
) -> Fault {
    let (_, number, which) = compared;
    let files = opened.source.catalog.ranks.get(&other);
    let file = files.and_then(|files| files.get(number as usize).or(files.first()));
    let message = format!(
        "ranks {one} and {other} have the same bytes where the source strategy says that they have different \
         parts"
    );
    let fault = Fault::new(Kind::Differs, message).rank(other);
    let fault = match tensors(looked, compared) {
        [(name, _)] if which > 0 => fault.tensor(&***name).hint(HINT_ONE),
        _ => fault.hint(HINT),
    };
    match file {
        Some(file) => fault.file(opened.source.base.join(&file.path).display().to_string()),
        None => fault,
    }
}

/// What to do about one tensor.
const HINT_ONE: &str = "is it the strategy that these files were saved by? It cuts this tensor into more parts than there are; \
                        the vocabulary and experts are cut by settings of their own. --verify none takes them as they are";
/// What to do about them.
const HINT: &str = "is it the strategy that these files were saved by, or was one rank's file copied over \
                    another's? --verify none takes them as they are";

/// Of what is compared, two ranks of those that this process has heard of that have the same bytes and different cells.
/// Local.
fn alike(mut evidence: Vec<Evidence>) -> Vec<(Compared, [u32; 2])> {
    evidence.sort_unstable();
    let same = evidence.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1));
    let pairs = same.filter_map(|same| {
        let (compared, _, rank, cells) = same[0];
        let other = same.iter().find(|other| other.3 != cells)?;
        Some((compared, [rank, other.2]))
    });
    pairs.collect()
}

/// Whether what `rank` has of these tensors stands elsewhere in the same ones, too. Local.
fn repeats(opened: &Opened, rank: u32, tensors: &[(&Arc<str>, &Spread)]) -> Result<bool> {
    let catalog = &opened.source.catalog;
    let readers = Readers::new(&opened.source.base, catalog, IoMode::Auto);
    let mut filler = Filler::new(&readers);
    for (name, _) in tensors {
        let Some(place) = catalog.find(rank, name) else {
            continue;
        };
        let sample = sample(&mut filler, opened, place)?;
        if sample.is_empty() {
            continue;
        }
        let entry = catalog.entry(place);
        let (all, copy) = (entry.shape.bytes(entry.dtype)?, in_rows(catalog, place));
        let (begin, _) = middle(entry);
        let at = |filler: &mut Filler<'_>, from: u64, length: u64| {
            let mut bytes = zeroed(usize::try_from(length).unwrap_or(usize::MAX))?;
            read(filler, &copy, place, from, &mut bytes).map(|()| bytes)
        };
        let from = begin.saturating_sub(WINDOW / 2);
        let window = at(&mut filler, from, WINDOW.min(all - from))?;
        let found = window
            .windows(sample.len())
            .filter(|bytes| *bytes == sample);
        if found.count() > 1 {
            return Ok(true);
        }
        let length = sample.len() as u64;
        let steps = (0..u64::BITS - 1).map(|bit| begin + (1 << bit));
        for other in steps.take_while(|other| other + length <= all) {
            if other >= begin + length && at(&mut filler, other, length)? == sample {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Of each stage, by its first rank, and of each of a rank's files the tensors that are looked at: one file alone
/// may have been copied over another rank's.
fn looked(opened: &Opened) -> BTreeMap<(u32, u32), Looked<'_>> {
    let catalog = &opened.source.catalog;
    let mut all: BTreeMap<(u32, u32), Looked<'_>> = BTreeMap::new();
    for (name, tensor) in &opened.inventory.tensors {
        for spread in tensor
            .spreads
            .iter()
            .filter(|spread| spread.layout.is_cut())
        {
            let place = catalog.find(spread.first_rank, name);
            let file = place.map_or(0, |place| place.file);
            if file < FILES {
                all.entry((spread.first_rank, file))
                    .or_default()
                    .push((name, spread));
            }
        }
    }
    let size = |spread: &Spread| spread.grid.cell_shape().0.iter().product::<u64>();
    for stage in all.values_mut() {
        let weights = stage.iter().any(|(name, _)| !is_state(name));
        stage.retain(|(name, _)| !(weights && is_state(name)));
        stage.sort_by_key(|(_, spread)| Reverse(size(spread)));
        let mut kinds = BTreeSet::new();
        let first = |tensor: &&(&Arc<str>, &Spread)| kinds.insert(kind(tensor.0));
        let mut chosen: Looked<'_> = stage.iter().filter(first).take(TENSORS).copied().collect();
        let others = stage
            .iter()
            .filter(|(name, _)| chosen.iter().all(|(known, _)| known != name));
        let others: Looked<'_> = others.take(TENSORS - chosen.len()).copied().collect();
        chosen.extend(others);
        *stage = chosen;
    }
    all
}

/// A name without its numbers: what layers and experts have in common.
fn kind(name: &str) -> String {
    let parts = name.split('.');
    let parts = parts.filter(|part| !part.bytes().all(|byte| byte.is_ascii_digit()));
    parts.collect::<Vec<_>>().join(".")
}

/// Whether ranks may have the same of a tensor that is cut.
fn may_be_shared(name: &str) -> bool {
    name.split('.').any(|part| SHARED.contains(&part))
}

/// What the ranks that this process serves have. Local.
fn own(opened: &Opened) -> Result<Vec<Evidence>> {
    let source = &opened.source;
    let (catalog, reach) = (&source.catalog, &source.reach);
    let readers = Readers::new(&source.base, catalog, IoMode::Auto);
    let mut filler = Filler::new(&readers);
    let mut all = Vec::new();
    for ((first_rank, file), stage) in looked(opened) {
        let ranks = stage.iter().map(|(_, spread)| spread.ranks().end).max();
        for rank in first_rank..ranks.unwrap_or(first_rank) {
            if reach.owner(rank) != Some(reach.process) {
                continue;
            }
            let (mut bytes, mut cells) = (Vec::new(), Vec::new());
            for (number, (name, spread)) in stage.iter().enumerate() {
                let Some(place) = catalog.find(rank, name) else {
                    continue;
                };
                let sample = sample(&mut filler, opened, place)?;
                if !sample.is_empty() && spread.ranks().contains(&rank) {
                    let cell = spread.layout.cell(rank - spread.first_rank);
                    bytes.push((number, sample));
                    cells.push((number, cell));
                }
            }
            if bytes.iter().map(|(_, sample)| sample.len()).sum::<usize>() >= BYTES_MIN {
                all.push(((first_rank, file, 0), value(&bytes), rank, value(&cells)));
            }
            for ((number, sample), (_, cell)) in bytes.iter().zip(&cells) {
                if sample.len() >= BYTES_MIN && !may_be_shared(stage[*number].0) {
                    all.push((
                        (first_rank, file, number + 1),
                        value(sample),
                        rank,
                        value(cell),
                    ));
                }
            }
        }
    }
    Ok(all)
}

/// A value that is the same of equal ones, on every process.
fn value(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Where the bytes that are looked at begin in a shard, at an element, and how many they are.
fn middle(entry: &Entry) -> (u64, u64) {
    let all = entry.shape.bytes(entry.dtype).unwrap_or_default();
    let width = u64::from(entry.dtype.bits() / 8).max(1);
    let begin = (all / 2).saturating_sub(BYTES / 2) / width * width;
    (begin, BYTES.min(all - begin))
}

/// Bytes from the middle of the shard at `place`; none if its elements there are all alike.
fn sample(filler: &mut Filler<'_>, opened: &Opened, place: Place) -> Result<Vec<u8>> {
    let catalog = &opened.source.catalog;
    let entry = catalog.entry(place);
    let (begin, length) = middle(entry);
    let width = u64::from(entry.dtype.bits() / 8).max(1);
    let mut bytes = zeroed(usize::try_from(length).unwrap_or(usize::MAX))?;
    read(filler, &in_rows(catalog, place), place, begin, &mut bytes)?;
    let width = usize::try_from(width).unwrap_or(1);
    let mut elements = bytes.chunks(width);
    let first = elements.next();
    if elements.all(|element| Some(element) == first) {
        bytes.clear();
    }
    Ok(bytes)
}
