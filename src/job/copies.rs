//! Whether what a source has several times is the same everywhere: what its strategy calls copies,
//! and what its strategy doesn't know.
//!
//! Whoever serves a rank to the others reads its files; values of what was read go to one process for
//! each group, which compares. Nothing is proportional to the world but what a process owns.

use crate::catalog::Place;
use crate::exchange::{Topology, World, all_gather, all_gather_agreed, exchange_values};
use crate::fault::Result;
use crate::job::cells;
use crate::job::compare;
use crate::job::nodes;
use crate::job::origin::Origin;
use crate::job::unlike::Unlike;
use crate::job::values::Files;
use crate::plan::copies::{Group, groups};
use crate::source::{Opened, Source, Verify};
use crate::tensor::digest::residue;
use crate::transport::{IoMode, Moving, Readers};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How copies were compared, for the outcome.
pub(super) type Compared = Option<&'static str>;

/// How the copies of `opened` are compared where no manifest counts; none if it can't have any.
pub(super) fn word(verify: Verify, opened: &Opened) -> Compared {
    let ranks = opened.inventory.ranks > 1 && !opened.inventory.tensors.is_empty();
    if !ranks && !nodes::have_copies(&opened.source) {
        return None;
    }
    Some(match verify {
        Verify::None => "none",
        Verify::Sample => "sample",
        Verify::All => "all",
    })
}

/// Compares what the strategy calls copies. Collective.
///
/// # Errors
/// [`Kind::Differs`] naming the tensor and ranks.
pub(super) fn check(
    world: &World,
    topology: &Topology,
    opened: &Opened,
    origin: &Origin,
    verify: Verify,
    moving: &Moving,
) -> Result<Compared> {
    let word = word(verify, opened);
    if word.is_none() {
        return Ok(None);
    }
    match verify {
        Verify::None => Ok(word),
        Verify::All => {
            cells::check(world, opened)?;
            nodes::check(world, topology, &opened.source, verify, 0)?;
            compare::copies(world, topology, opened, moving)?;
            Ok(word)
        }
        Verify::Sample => {
            settle(world, &opened.source, by_manifest(opened, origin))?;
            if origin.tells_all(&opened.source) {
                return Ok(Some("manifest"));
            }
            cells::check(world, opened)?;
            nodes::check(world, topology, &opened.source, verify, 0)?;
            by_sample(world, opened)?;
            Ok(word)
        }
    }
}

/// Fails with the first of the copies that processes have found unlike each other. Collective.
///
/// # Errors
/// [`Kind::Differs`] naming the tensor and both places.
fn settle(world: &World, source: &Source, found: Result<Option<Found>>) -> Result<()> {
    let all = all_gather_agreed(world, found)?;
    let Some((name, places)) = all.into_iter().flatten().min() else {
        return Ok(());
    };
    let unlike = Unlike::of(world, source, places)?;
    Err(unlike.fault(source, &name))
}

/// A tensor, and two places that should hold the same of it.
type Found = (String, [Place; 2]);

/// Compares the copies by the CRCs in the manifest of this process's node. Local.
fn by_manifest(opened: &Opened, origin: &Origin) -> Result<Option<Found>> {
    let Some(manifest) = origin.own() else {
        return Ok(None);
    };
    let (source, inventory) = (&opened.source, &opened.inventory);
    let mut crcs: HashMap<(&str, &str), u64> = HashMap::new();
    for file in &manifest.files {
        for ((name, _), crc) in manifest.placed(file).iter().zip(&file.shards) {
            crcs.insert((&file.path, name), crc.0);
        }
    }
    for (name, tensor) in &inventory.tensors {
        for spread in tensor.spreads.iter().filter(|s| s.layout.replicas() > 1) {
            let mut first: HashMap<Vec<u64>, (u64, Place)> = HashMap::new();
            for rank in spread.ranks() {
                let Some(place) = source.catalog.find(rank, name) else {
                    continue;
                };
                let path = source.catalog.file(place).path.as_str();
                let Some(crc) = crcs.get(&(path, &**name)) else {
                    continue;
                };
                let cell = spread.layout.cell(rank - spread.first_rank);
                let (known, holder) = *first.entry(cell).or_insert((*crc, place));
                if known != *crc {
                    return Ok(Some((name.to_string(), [holder, place])));
                }
            }
        }
    }
    Ok(None)
}

/// What a process has read of a copy: the group, which of its copies, and a value of its bytes.
type Evidence = (u64, u32, u64);

/// Compares a sample of each tensor's copies. Collective.
///
/// # Errors
/// [`Kind::Differs`] naming the tensor and ranks; as reading them.
pub(super) fn by_sample(world: &World, opened: &Opened) -> Result<()> {
    let (source, inventory) = (&opened.source, &opened.inventory);
    let groups = groups(inventory, &source.catalog);
    let names: Vec<&Arc<str>> = inventory.tensors.keys().collect();
    let readers = Readers::new(&source.base, &source.catalog, IoMode::Auto);
    let mut files = Files::new(source, &readers, false);
    let gathered = (|| {
        let mut reports: Vec<(u32, Evidence)> = Vec::new();
        for (place, group, copy) in own_copies(source, &groups) {
            let first = group.copies.first();
            if let Some(referee) = first.and_then(|first| source.reach.owner(first.rank)) {
                let value = files.value(place, group.number)?;
                reports.push((referee, (group.number, copy, value)));
            }
        }
        Ok(reports)
    })();
    let evidence = exchange_values(world, gathered)?;
    settle(world, source, Ok(judge(&groups, &names, evidence)))
}

/// The copies that fall to this process to read, file by file, each with its group and which of its copies it is. Local.
fn own_copies<'a>(source: &Source, groups: &'a [Group]) -> Vec<(Place, &'a Group, u32)> {
    let reach = &source.reach;
    let copies = groups.iter().flat_map(|group| {
        let copies = (0u32..).zip(&group.copies);
        copies.map(move |(copy, place)| (*place, group, copy))
    });
    let own = copies.filter(|(place, ..)| reach.owner(place.rank) == Some(reach.process));
    let mut own: Vec<(Place, &Group, u32)> = own.collect();
    // No file is opened again for its next tensor.
    own.sort_unstable_by_key(|(place, ..)| *place);
    own
}

/// Compares what was read of the copies that fall to this process. Local.
fn judge(groups: &[Group], names: &[&Arc<str>], evidence: Vec<Evidence>) -> Option<Found> {
    let mut seen: BTreeMap<u64, Vec<(u32, u64)>> = BTreeMap::new();
    for (group, copy, value) in evidence {
        seen.entry(group).or_default().push((copy, value));
    }
    for (number, mut copies) in seen {
        copies.sort_unstable();
        let group = usize::try_from(number).ok().and_then(|n| groups.get(n));
        let Some((group, (first, value))) = group.zip(copies.first().copied()) else {
            continue;
        };
        if let Some((other, _)) = copies.iter().find(|(_, other)| *other != value) {
            let place = |copy: u32| group.copies[copy as usize];
            let places = [place(first), place(*other)];
            return Some((names[group.tensor].to_string(), places));
        }
    }
    None
}

/// A tensor that the source's strategy doesn't know, and that two ranks hold differently.
#[derive(Clone, Debug)]
pub(super) struct Stranger {
    /// Its name.
    pub(super) name: Arc<str>,
    /// The ranks.
    pub(super) ranks: [u32; 2],
}

/// What a process has of a private tensor: its number, the first rank, its value, and a rank that has
/// another one.
type Having = (u64, u32, u64, Option<u32>);

/// Ranks of a process that are looked at where many tensors are unknown.
const RANKS_OF_MANY: usize = 3;
/// More tensors than this are many.
const MANY: usize = 64;

/// The tensors that the source's strategy doesn't know and that not all ranks hold alike. Collective.
///
/// # Errors
/// As reading them.
pub(super) fn strangers(world: &World, opened: &Opened) -> Result<Vec<Stranger>> {
    let names: Vec<&Arc<str>> = opened.inventory.private.iter().collect();
    if opened.inventory.ranks <= 1 || names.is_empty() {
        return Ok(Vec::new());
    }
    let processes = u64::from(world.size());
    let referred = |having: Having| {
        let referee = u32::try_from(having.0 % processes).unwrap_or_default();
        (referee, having)
    };
    let own = own_private(&opened.source, &names);
    let own = own.map(|own| own.into_iter().map(referred).collect());
    let mut havings: Vec<Having> = exchange_values(world, own)?;
    havings.sort_unstable();
    let mut first: HashMap<u64, (u32, u64)> = HashMap::new();
    let mut found: BTreeMap<u64, [u32; 2]> = BTreeMap::new();
    for (name, rank, value, other) in havings {
        let (known_rank, known) = *first.entry(name).or_insert((rank, value));
        let other = other.map(|other| [rank, other]);
        let ranks = if known == value {
            other
        } else {
            Some([known_rank, rank])
        };
        if let Some(ranks) = ranks {
            found.entry(name).or_insert(ranks);
        }
    }
    let found: Vec<(u64, [u32; 2])> = found.into_iter().collect();
    let mut all: Vec<_> = all_gather(world, &found)?.into_iter().flatten().collect();
    all.sort_unstable();
    let unlike = |(number, ranks): (u64, [u32; 2])| {
        let name = names.get(usize::try_from(number).ok()?)?;
        let name = Arc::clone(name);
        Some(Stranger { name, ranks })
    };
    Ok(all.into_iter().filter_map(unlike).collect())
}

/// What the ranks that this process serves have of the private tensors. Local.
fn own_private(source: &Source, names: &[&Arc<str>]) -> Result<Vec<Having>> {
    let reach = &source.reach;
    let ranks = source.catalog.ranks.keys().copied();
    let owned: Vec<u32> = ranks
        .filter(|r| reach.owner(*r) == Some(reach.process))
        .collect();
    let readers = Readers::new(&source.base, &source.catalog, IoMode::Auto);
    let mut files = Files::new(source, &readers, false);
    let mut havings = Vec::new();
    for (number, name) in (0u64..).zip(names) {
        let places = owned
            .iter()
            .filter_map(|rank| source.catalog.find(*rank, name));
        let mut places: Vec<Place> = places.collect();
        if names.len() > MANY && places.len() > RANKS_OF_MANY {
            let last = places.len() - 1;
            places = vec![places[0], places[last / 2], places[last]];
        }
        let mut having: Option<Having> = None;
        for place in places {
            let value = files.value(place, number)? ^ kind(source, place);
            match &mut having {
                None => having = Some((number, place.rank, value, None)),
                Some((_, _, first, other)) if *first != value => {
                    *other = Some(place.rank);
                    break;
                }
                Some(_) => {}
            }
        }
        havings.extend(having);
    }
    Ok(havings)
}

/// A value of a tensor's element type and shape.
fn kind(source: &Source, place: Place) -> u64 {
    let entry = source.catalog.entry(place);
    residue(format!("{}{}", entry.dtype, entry.shape).as_bytes())
}
