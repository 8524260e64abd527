//! reshard --in-place: the new layout's files take the place of the source, by one swap of
//! directories. What else is in the source's directory is carried along.

use crate::catalog::{Catalog, ShardFile, SmallFile};
use crate::destination::common_name::common_name;
use crate::destination::place::Destination;
use crate::destination::resume::{survived, survives};
use crate::exchange::{World, agree, all_gather};
use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::plan::arrange::Files;
use crate::plan::reach::Reach;
use crate::store::formats::is_strategy;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::{self, Manifest};
use crate::store::replaceable::Replace;
use crate::store::{Format, rank_dir};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where a trainer notes which file of a rank's directory is the last.
const META: &str = "meta.json";
/// The key of that file's name.
const LAST_FILE: &str = "last_ckpt_file";
/// Largest such note that is read.
const META_BYTES_MAX: u64 = 1 << 20;

/// The source that the destination takes the place of.
#[derive(Clone, Copy)]
pub(crate) struct Replaced<'a> {
    /// Its directory.
    pub(crate) base: &'a Path,
    /// What lies in it.
    pub(crate) catalog: &'a Catalog,
    /// Who sees it.
    pub(crate) reach: &'a Reach,
    /// What `--file-suffix` takes to mean the step that the file of this path is of.
    pub(crate) suffix: fn(&str) -> Option<String>,
}

impl Replaced<'_> {
    fn place(&self, fault: Fault) -> Fault {
        fault.file(self.base.display().to_string())
    }
}

/// What alone can be replaced.
const OF_RANKS: &str = "--in-place is for directories rank_0, rank_1 …";

/// Refuses one file, or what `is_pattern` of files, as the source that is replaced. Local.
///
/// # Errors
/// [`Kind::Usage`], [`Kind::Io`].
pub(crate) fn refuse_file(path: &Path, is_pattern: bool) -> Result<()> {
    let hint = if is_pattern {
        "give the directory that these are in; --dst DIR writes what a pattern names into another one"
    } else if io::standing(path)? == Standing::File {
        "--dst DIR writes what one file has into another directory"
    } else {
        return Ok(());
    };
    let fault = Fault::new(Kind::Usage, OF_RANKS).file(path.display().to_string());
    Err(fault.hint(hint))
}

/// How the files of the source are called: its names with the rank taken out. Local.
///
/// # Errors
/// [`Kind::Usage`] if it isn't rank directories, [`Kind::Ambiguous`] if the ranks' names have
/// nothing in common.
pub(crate) fn files(base: &Path, catalog: &Catalog, remove_redundancy: bool) -> Result<Files> {
    let of_ranks = |(rank, files): (&u32, &Vec<ShardFile>)| {
        let directory = format!("rank_{rank}/");
        files
            .first()
            .is_some_and(|file| file.path.starts_with(&directory))
    };
    let fault = if !catalog.ranks.iter().all(of_ranks) {
        Fault::new(Kind::Usage, OF_RANKS)
    } else if let Some(name) = common_name(catalog) {
        return Ok(Files::Ranks {
            name,
            remove_redundancy,
        });
    } else {
        let message = "the ranks' files have no common pattern of names";
        Fault::new(Kind::Ambiguous, message)
    };
    Err(fault.file(base.display().to_string()))
}

/// Finds the swap made already, on some nodes at least: an earlier run was killed between the swaps of
/// several nodes, or this is not the first run. Makes the swaps that lack, and gives the manifest that
/// this process's directory then has. Collective.
///
/// A directory counts as the result of this `request` if its manifest says so and no weight file has
/// changed since.
///
/// # Errors
/// [`Kind::Io`].
pub(crate) fn finished(
    world: &World,
    destination: &Destination,
    request: u64,
    flush: bool,
) -> Result<Option<Manifest>> {
    let survives = survives(destination, flush);
    let survives = survived(&survives);
    let ours = |directory: &Path| result_of(directory, request, &survives);
    let staging = &destination.staging;
    let found = if destination.leads {
        let recovered = staging.recover();
        recovered
            .and_then(|()| ours(staging.destination()))
            .and_then(|placed| Ok((placed, ours(staging.partial())?)))
    } else {
        Ok((None, None))
    };
    let (placed, staged) = agree(world, found)?;
    let job = |manifest: &Option<Manifest>| manifest.as_ref().map(|manifest| manifest.job.0);
    let mine = (destination.leads, job(&placed), job(&staged));
    let all: Vec<(bool, Option<u64>, Option<u64>)> = all_gather(world, &mine)?;
    let Some(done) = all.iter().find_map(|(_, placed, _)| *placed) else {
        return Ok(None);
    };
    let ready = |(leads, placed, staged): &(bool, Option<u64>, Option<u64>)| {
        !leads || *placed == Some(done) || *staged == Some(done)
    };
    if !all.iter().all(ready) {
        return Ok(None);
    }
    let swapped = if job(&placed) == Some(done) || !destination.leads {
        destination.discard_replaced()
    } else {
        let owned = destination.staging.own();
        owned.and_then(|()| destination.publish(Replace::Source, flush))
    };
    agree(world, swapped)?;
    let manifest = placed.or(staged).unwrap_or_default();
    Ok(Some(manifest))
}

/// The manifest of `directory`, if it is the unchanged result of `request`. Local.
fn result_of(directory: &Path, request: u64, survives: &[String]) -> Result<Option<Manifest>> {
    // One that is damaged is no result.
    let Some(manifest) = Manifest::read_sound(directory)? else {
        return Ok(None);
    };
    let asked = manifest.whole.as_ref().map(|whole| whole.request.0);
    let ours = asked == Some(request)
        && !has_others(&manifest, directory)?
        && manifest.stands_unchanged(directory)?
        && manifest.is_sure(directory, survives)?;
    Ok(ours.then_some(manifest))
}

/// Whether ranks have files of weights that `manifest` doesn't list, as a job makes that goes on. Local.
fn has_others(manifest: &Manifest, directory: &Path) -> Result<bool> {
    let of_rank = |path: &str| rank_dir::rank_in(path).is_some() && Format::of(path).is_some();
    Ok(!manifest.others(directory, of_rank)?.is_empty())
}

/// What goes into the new directory besides weights.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Files linked from the old one, by path inside.
    pub(crate) links: Vec<String>,
    /// Files written anew.
    pub(crate) extras: Vec<SmallFile>,
    /// All files that were there, sorted, on the process that leads its directory.
    present: Option<Vec<String>>,
}

impl Carried {
    /// Checks that no file has come to the source's directory `base` since, which would be lost. Collective.
    ///
    /// # Errors
    /// [`Kind::Exists`] naming the first.
    pub(crate) fn check_all(&self, world: &World, base: &Path) -> Result<()> {
        agree(world, self.check_own(base))
    }

    fn check_own(&self, base: &Path) -> Result<()> {
        let Some(present) = &self.present else {
            return Ok(());
        };
        let is_new = |path: &&String| present.binary_search(path).is_err();
        match files_in(base)?.iter().find(is_new) {
            None => Ok(()),
            Some(new) => {
                let message = format!("{new} has come while it was read, and would be lost");
                let fault = Fault::new(Kind::Exists, message).file(base.display().to_string());
                Err(fault.hint("nothing was changed; run again when nobody else writes there"))
            }
        }
    }
}

/// The files in `base`, if it is a directory. Local.
fn files_in(base: &Path) -> Result<Vec<String>> {
    match io::standing(base)? {
        Standing::Directory => io::list_files(base),
        _ => Ok(Vec::new()),
    }
}

/// Checks that the source can be replaced, and finds what has to be carried along. Collective.
///
/// # Errors
/// [`Kind::NoSpace`], [`Kind::Unsupported`] for a mount point and for links,
/// [`Kind::Ambiguous`] for several steps.
pub(crate) fn carry(
    world: &World,
    source: &Replaced<'_>,
    destination: &Destination,
    (catalog, texts): (&Catalog, &[SmallFile]),
) -> Result<Carried> {
    if source
        .catalog
        .paths()
        .iter()
        .any(|path| rank_dir::rank_in(path).is_none())
    {
        let fault = source.place(Fault::new(Kind::Usage, OF_RANKS));
        return Err(fault.hint("--dst DIR writes into another directory"));
    }
    let stranded = all_gather(world, &destination.leads)?;
    let reach = &source.reach;
    for (node, seen) in reach.seen.iter().enumerate() {
        let leads = |process: &u32| stranded.get(*process as usize) == Some(&true);
        let led = reach.nodes[node].iter().any(leads);
        if !led && !destination.shared && !seen.is_empty() {
            let message = format!("node {node} has source files and gets none of the new ranks");
            let fault = Fault::new(Kind::Unsupported, message);
            return Err(source
                .place(fault)
                .hint("give another directory with --dst"));
        }
    }
    let room = if destination.leads {
        check_room(destination, catalog)
    } else {
        Ok(())
    };
    agree(world, room)?;
    let own = agree(world, own_notes(source))?;
    let notes: BTreeMap<u32, String> = all_gather(world, &own)?.into_iter().flatten().collect();
    let carried = if destination.leads {
        find(source, &notes, (catalog, texts))
    } else {
        Ok(Carried::default())
    };
    let carried = agree(world, carried)?;
    if !carried.links.is_empty() {
        tracing::warn!(
            "{} carried along as they are ({})",
            counted(carried.links.len() as u64, "other file"),
            first(&carried.links, 1)
        );
    }
    Ok(carried)
}

/// The old files stay until the new ones are complete: there must be room for both. Local.
fn check_room(destination: &Destination, catalog: &Catalog) -> Result<()> {
    let staging = &destination.staging;
    if staging.is_inside() {
        let message = "is a mount point, which can't be replaced in one step";
        let fault = Fault::new(Kind::Unsupported, message);
        return Err(fault
            .file(staging.destination().display().to_string())
            .hint("write into another directory: --dst NEW instead of --in-place"));
    }
    let needed = catalog.bytes();
    let free = io::free_bytes(staging.parent())?;
    if needed <= free {
        return Ok(());
    }
    let message = format!("the new files need {needed} bytes beside the old ones, {free} are free");
    Err(Fault::new(Kind::NoSpace, message).file(staging.parent().display().to_string()))
}

/// The notes of the ranks that this process owns which name the file that is read. Local.
fn own_notes(source: &Replaced<'_>) -> Result<Vec<(u32, String)>> {
    let mut notes = Vec::new();
    for (rank, files) in &source.catalog.ranks {
        if source.reach.owner(*rank) != Some(source.reach.process) {
            continue;
        }
        let path = source.base.join(format!("rank_{rank}")).join(META);
        if io::size(&path)?.is_none() {
            continue;
        }
        let text = ReadFile::open(&path)?.read_all(META_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let last = last_file(&text).map(|name| format!("rank_{rank}/{name}"));
        if last.is_some_and(|last| files.iter().any(|file| file.path == last)) {
            notes.push((*rank, text));
        }
    }
    Ok(notes)
}

fn last_file(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(value.get(LAST_FILE)?.as_str()?.to_owned())
}

/// What the leader of a directory carries along. Local.
fn find(
    source: &Replaced<'_>,
    notes: &BTreeMap<u32, String>,
    (catalog, texts): (&Catalog, &[SmallFile]),
) -> Result<Carried> {
    let mut carried = Carried::default();
    let in_room = |(rank, files): (&u32, &Vec<ShardFile>)| {
        let room = format!("rank_{rank}/");
        files.iter().all(|file| file.path.starts_with(&room))
    };
    // A directory that tells its own layout has no such notes.
    let in_rooms = catalog.ranks.iter().all(in_room);
    for (rank, files) in catalog.ranks.iter().filter(|_| in_rooms) {
        let from = rank % source.reach.source_ranks.max(1);
        let (Some(text), Some(file)) = (notes.get(&from), files.first()) else {
            continue;
        };
        let Ok(mut value) = serde_json::from_str::<serde_json::Value>(text) else {
            continue;
        };
        if let Some(name) = Path::new(&file.path).file_name() {
            value[LAST_FILE] = name.to_string_lossy().into_owned().into();
        }
        let path = format!("rank_{rank}/{META}");
        let bytes = value.to_string().into_bytes();
        carried.extras.push(SmallFile::new(path, bytes));
    }
    let mut gone: BTreeSet<String> = [manifest::NAME.to_owned()].into();
    let read = source.catalog.ranks.values().flatten();
    gone.extend(read.map(|file| file.path.clone()));
    gone.extend(notes.keys().map(|rank| format!("rank_{rank}/{META}")));
    gone.extend(carried.extras.iter().map(|file| file.path.clone()));
    let written = catalog.ranks.values().flatten();
    let written = written.map(|file| file.path.as_str());
    let texts = texts.iter().map(|text| text.path.as_str());
    let written: BTreeSet<&str> = written.chain(texts).collect();
    // A node may get ranks that had none before.
    let present = files_in(source.base)?;
    for path in &present {
        if written.contains(path.as_str()) && !gone.contains(path) {
            let message = format!("{path} isn't read and would be replaced");
            return Err(source.place(Fault::new(Kind::Exists, message)));
        }
        if gone.contains(path) {
            check_own(source, path)?;
            continue;
        }
        check_entry(source, path)?;
        if !in_rooms && !path.contains('/') && Format::may_be_weights(path) {
            let message = format!(
                "{path} would lie beside what is written: nobody could tell which is meant"
            );
            let fault = source.place(Fault::new(Kind::Ambiguous, message));
            return Err(fault.hint(
                "move it away, or write into another directory: --dst NEW instead of --in-place",
            ));
        }
        carried.links.push(path.clone());
    }
    carried.present = Some(present);
    Ok(carried)
}

/// Checks that `path`, whose place is taken, is a file of this directory and no link. Local.
fn check_own(source: &Replaced<'_>, path: &str) -> Result<()> {
    if io::link_target(&source.base.join(path))?.is_none() {
        return Ok(());
    }
    Err(linked(source, path))
}

fn linked(source: &Replaced<'_>, path: &str) -> Fault {
    let message = format!("{path} is a link, behind which the old weights would stay");
    source
        .place(Fault::new(Kind::Unsupported, message))
        .hint("write into another directory: --dst NEW instead of --in-place")
}

/// Checks that `path`, which isn't read, can be carried along. Local.
fn check_entry(source: &Replaced<'_>, path: &str) -> Result<()> {
    if rank_dir::rank_of(path).is_some() {
        return Err(linked(source, path));
    }
    let whole = source.base.join(path);
    if io::link_target(&whole)?.is_none() && io::size(&whole)?.is_none() {
        // A pipe or a device, which this names, is nothing that can be carried along.
        ReadFile::open(&whole)?;
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if !path.starts_with("rank_") || Format::of(path).is_none() || is_strategy(name) {
        return Ok(());
    }
    let message = format!(
        "{path} is another step, or another part, than is read; \
         one layout can't hold both it and the ranks that are written"
    );
    let read = source.catalog.ranks.values().flatten().next();
    let suffixes = [read.map(|file| file.path.as_str()), Some(path)].map(|path| {
        let suffix = path.and_then(source.suffix)?;
        Some(format!("--file-suffix {suffix}"))
    });
    let hint = match suffixes {
        [Some(one), Some(other)] if one != other => {
            format!("reshard {one} --dst NEW, or {other}, writes one step into another directory")
        }
        _ => "reshard --dst NEW writes what is read into another directory".to_owned(),
    };
    Err(source
        .place(Fault::new(Kind::Ambiguous, message))
        .hint(hint))
}
