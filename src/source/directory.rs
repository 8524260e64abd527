//! A directory that tells its own layout, as a source.

use crate::catalog::{Catalog, FileSchema};
use crate::exchange::{World, agree, all_gather_bytes, broadcast_bytes};
use crate::fault::memory::zeroed;
use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::source::found::Told;
use crate::source::listed::{Inner, Listed, Listing};
use crate::source::ranks::named;
use crate::store::Directory;
use crate::store::formats::{Progress, Text};
use crate::store::full_dir::MAPS;
use crate::store::io::{self, ReadFile, Standing};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The checkpoint in `path`, which has these entries, that tells its own layout: that with this number,
/// or else the last complete one. Local.
///
/// # Errors
/// [`Kind::Ambiguous`] for two of different formats, each in a place of its own; as the formats.
pub(super) fn find(
    path: &Path,
    names: &[(String, bool)],
    number: Option<&str>,
) -> Result<Option<Inner>> {
    let mut formats = Directory::all();
    let found = formats.by_ref().find_map(|format| {
        let directory = format.recognise(path, names, number).transpose()?;
        Some(directory.map(|directory| Inner { format, directory }))
    });
    let Some(found) = found.transpose()? else {
        return Ok(None);
    };
    for other in formats {
        let first = || {
            // Its own tracker may be the other's.
            let numbers = other.numbers(names);
            let own = |number: &u64| format!("{}/", other.directory(*number));
            let all: Vec<String> = numbers.iter().map(own).collect();
            let first = all.first().cloned();
            first.filter(|_| number.is_none() && !all.contains(&found.directory))
        };
        let directory = match other.recognise(path, names, number) {
            Ok(directory) => directory,
            Err(_) => first(),
        };
        let other = directory.map(|directory| Inner {
            format: other,
            directory,
        });
        if let Some(other) = other.filter(|other| are_two(path, &found, other)) {
            return Err(two(path, [&found, &other]));
        }
    }
    Ok(Some(found))
}

/// Whether these are two checkpoints. Two of one place by the same text are two views of it, of which the first is the closer
/// one; so are those that share files.
fn are_two(path: &Path, one: &Inner, other: &Inner) -> bool {
    let text = |inner: &Inner| inner.format.texts().first().map(|(name, _)| *name);
    if one.directory != other.directory {
        return !one.format.shares(&*other.format);
    }
    if text(one) == text(other) {
        return false;
    }
    let files = |inner: &Inner| {
        let listed = inner.format.list(&path.join(&inner.directory));
        let files = listed.unwrap_or_default().into_values().flatten();
        files.collect::<BTreeSet<String>>()
    };
    let [one, other] = [one, other].map(files);
    !one.is_empty() && !other.is_empty() && one.is_disjoint(&other)
}

/// The fault of a directory with two checkpoints that tell their own layouts.
fn two(path: &Path, [one, other]: [&Inner; 2]) -> Fault {
    let place = |inner: &Inner| match inner.directory.trim_end_matches('/') {
        "" => "its own files".to_owned(),
        room => room.to_owned(),
    };
    let message = format!(
        "has {} ({}) and {} ({})",
        one.format.called(),
        place(one),
        other.format.called(),
        place(other)
    );
    let rooms = [one, other].map(|inner| inner.directory.trim_end_matches('/'));
    let room = rooms.into_iter().find(|room| !room.is_empty());
    let room = room.filter(|_| rooms[0] != rooms[1]);
    let give = room.map(|room| format!(", or give {}", path.join(room).display()));
    let hint = "move one of them into a directory of its own";
    Fault::new(Kind::Ambiguous, message)
        .file(path.display().to_string())
        .hint(format!("{hint}{}", give.unwrap_or_default()))
}

/// Whether what lies at `path` tells which files there ought to be: it is of a format that tells its own layout, or has
/// an index. Local.
///
/// # Errors
/// As [`find`].
pub(crate) fn tells(path: &Path) -> Result<bool> {
    if io::standing(path)? != Standing::Directory {
        return Ok(false);
    }
    let names = io::list(path)?;
    let index = |(name, folder): &(String, bool)| !folder && MAPS.contains(&&**name);
    Ok(names.iter().any(index) || find(path, &names, None)?.is_some())
}

/// Refuses a directory that tells its own layout where each file is to be read for itself: its files are parts of
/// tensors, and without what tells how they belong together they would be weights of nothing. Of files beside them,
/// which alone have what is asked for in their names, nothing is said. Local.
///
/// # Errors
/// [`Kind::Unsupported`], naming the directory; as [`find`].
pub(super) fn refuse_parts(path: &Path, contains: Option<&str>) -> Result<()> {
    let taken = |inner: &Inner| match contains {
        Some(text) => inner.has_file(path, |file| file.contains(text)),
        None => Ok(true),
    };
    refuse(
        path,
        taken,
        "its files are parts of it, and none has weights for itself",
        "unify, reshard, diff and others read the directory: `unify` makes full weights of it",
    )
}

/// Refuses a directory that is one checkpoint, which tells its own layout, and not a job's several. Local.
///
/// # Errors
/// As [`refuse_parts`].
pub(super) fn refuse_single(path: &Path) -> Result<()> {
    refuse(
        path,
        |_| Ok(true),
        "one checkpoint, and not several of a job by their numbers",
        "`inspect` shows what it has, `verify` checks it; checkpoints are listed in the directory that has a job's",
    )
}

fn refuse(
    path: &Path,
    refused: impl Fn(&Inner) -> Result<bool>,
    why: &str,
    hint: &str,
) -> Result<()> {
    if io::standing(path)? != Standing::Directory {
        return Ok(());
    }
    let Some(inner) = find(path, &io::list(path)?, None)? else {
        return Ok(());
    };
    if !refused(&inner)? {
        return Ok(());
    }
    let message = format!("is {}: {why}", inner.format.called());
    let fault = Fault::new(Kind::Unsupported, message).file(path.display().to_string());
    Err(fault.hint(hint))
}

/// Lists the files of the checkpoint in `inner` that this node sees. Local.
pub(super) fn list(path: &Path, inner: Inner) -> Result<Listing> {
    let place = path.join(&inner.directory);
    let mut listing = Listing::default();
    for (rank, files) in inner.format.list(&place)? {
        for file in files {
            let inside = format!("{}{file}", inner.directory);
            if io::standing(&place.join(&file))? == Standing::File {
                let file = Listed::new(path, inside)?;
                listing.ranks.entry(rank).or_default().push(file);
            } else {
                listing.absent.insert((rank, inside));
            }
        }
    }
    listing.inner = Some(inner);
    Ok(listing)
}

/// Checks that files that no text lists are all that there were to be. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the text, or a file that others tell of.
pub(super) fn check_unlisted(base: &Path, inner: &Inner, listing: &Listing) -> Result<()> {
    let files = listing.ranks.values().flatten();
    let files: Vec<&str> = files.map(|file| file.path.as_str()).collect();
    if let Some((rank, path)) = listing.absent.first() {
        let name = path.strip_prefix(&*inner.directory).unwrap_or(path);
        let fault = inner.format.absent(*rank, name);
        return Err(fault.file(base.join(path).display().to_string()));
    }
    let checked = inner.format.check_unlisted(&files);
    checked.map_err(|fault| inside(fault, &base.join(&inner.directory)))
}

/// Checks the same if the text that lists the files isn't there. Local.
///
/// # Errors
/// As [`check_unlisted`], [`Kind::Io`].
pub(super) fn check_alone(base: &Path, listing: &Listing) -> Result<()> {
    let Some(inner) = &listing.inner else {
        return Ok(());
    };
    let place = base.join(&inner.directory);
    match inner.format.texts().first() {
        Some((text, _)) if io::standing(&place.join(text))? == Standing::File => Ok(()),
        _ => check_unlisted(base, inner, listing),
    }
}

/// Gives a fault that names a file in `place` its path.
fn inside(mut fault: Fault, place: &Path) -> Fault {
    let file = fault.file.take().unwrap_or_default();
    fault.file(place.join(file).display().to_string())
}

/// What the checkpoint in `listing` tells of itself; `None` for another kind. Collective.
///
/// # Errors
/// The same on every process: [`Kind::MissingShard`] if it names a file that nobody sees.
pub(super) fn read(world: &World, base: &Path, listing: &Listing) -> Result<Option<Told>> {
    let Some(inner) = &listing.inner else {
        return Ok(None);
    };
    let place = base.join(&inner.directory);
    let mut texts = Vec::new();
    for (name, bytes_max) in inner.format.texts() {
        texts.push(shared_file(world, &place.join(name), *bytes_max)?);
    }
    let own = inner.format.read(&texts);
    let own = own.map_err(|fault| inside(fault, &place));
    let told = own.and_then(|own| {
        match &own.files {
            None => check_unlisted(base, inner, listing)?,
            Some(files) => {
                let files = files.iter();
                for (rank, file) in files.flat_map(|(r, files)| files.iter().map(move |f| (r, f))) {
                    check_seen(&place, inner, listing, *rank, file)?;
                }
            }
        }
        let format = inner.format;
        Ok(Told { format, own })
    });
    let mut told = agree(world, told)?;
    let files = listing.ranks.values().flatten();
    let files = files.map(|file| file.path.strip_prefix(&*inner.directory));
    let files: Vec<&str> = files.map(Option::unwrap_or_default).collect();
    if told.own.progress == Progress::default()
        && let Some((file, range)) = told.format.stand(&told.own, &files)
        && let Some(bytes) = shared_part(world, &place.join(file), &range)?
    {
        told.own.progress = told.format.stands(&bytes);
    }
    Ok(Some(told))
}

/// Takes out of `catalog` what files have of tensors that they don't count for, as their checkpoint tells; gives what
/// is to be said of it. Local.
///
/// # Errors
/// As [`FileSchema::without`].
pub(super) fn keep_counted(
    catalog: &mut Catalog,
    listing: &Listing,
    told: &Told,
) -> Result<Option<String>> {
    let (Some(counted), Some(inner)) = (&told.own.counted, &listing.inner) else {
        return Ok(None);
    };
    let known: BTreeSet<&str> = counted.values().flatten().map(|name| &**name).collect();
    // Files of one structure that lose the same keep one structure.
    let mut kept: BTreeMap<(*const FileSchema, BTreeSet<String>), Arc<FileSchema>> =
        BTreeMap::new();
    let (mut names, mut ranks) = (BTreeSet::new(), BTreeSet::new());
    for (rank, files) in &mut catalog.ranks {
        for file in files {
            let own = counted.get(
                file.path
                    .strip_prefix(&*inner.directory)
                    .unwrap_or_default(),
            );
            let is_stray =
                |name: &&str| known.contains(name) && own.is_none_or(|own| !own.contains(*name));
            let entries = file.schema.entries.iter().map(|entry| &*entry.name);
            let stray: BTreeSet<&str> = entries.filter(is_stray).collect();
            if stray.is_empty() {
                continue;
            }
            ranks.insert(*rank);
            let owned: BTreeSet<String> = stray.iter().map(|name| (*name).to_owned()).collect();
            names.extend(owned.iter().cloned());
            let key = (Arc::as_ptr(&file.schema), owned);
            let schema = match kept.get(&key) {
                Some(schema) => Arc::clone(schema),
                None => Arc::new(file.schema.without(&stray)?),
            };
            kept.insert(key, Arc::clone(&schema));
            file.schema = schema;
        }
    }
    let names: Vec<String> = names.into_iter().collect();
    let text = inner.format.texts().first().map_or("", |(name, _)| name);
    let words = match names.len() {
        0 => return Ok(None),
        1 => ["lies", "it doesn't"],
        _ => ["lie", "they don't"],
    };
    Ok(Some(format!(
        "{} {} in files of {}, too, where {} count by {text}: what these have is left aside",
        first(&names, 3),
        words[0],
        named(&ranks.into_iter().collect::<Vec<_>>()),
        words[1],
    )))
}

/// What is to be said of a checkpoint in `base` whose counts are of another step than the name of its directory
/// says. They are what a trainer goes by.
pub(super) fn other_step(base: &Path, listing: &Listing, told: &Told) -> Option<String> {
    let (format, progress) = (told.format, &told.own.progress);
    let inner = listing.inner.as_ref()?;
    let place = base.join(&inner.directory);
    let name = place.file_name()?.to_str()?;
    let number = *format.numbers(&[(name.to_owned(), true)]).first()?;
    // Some count steps, some the optimizer's, some have the last one planned in one of the two.
    let counts = [progress.step_num, progress.global_step];
    let counts: Vec<u64> = counts.into_iter().flatten().collect();
    let other = counts.first().filter(|_| !counts.contains(&number))?;
    Some(format!(
        "{name} tells of step {other} itself: was a file of another checkpoint copied into it?"
    ))
}

/// Bytes of a file that some process sees, as far as it has them, on all. Collective.
fn shared_part(world: &World, path: &Path, range: &Range<u64>) -> Result<Option<Vec<u8>>> {
    shared(world, path, || {
        let file = ReadFile::open(path)?;
        let end = range.end.min(file.size()).max(range.start);
        let length = usize::try_from(end - range.start).unwrap_or(usize::MAX);
        let mut bytes = zeroed(length)?;
        file.read_at(&mut bytes, range.start)?;
        Ok(bytes)
    })
}

/// Checks that some process sees `file` of `rank`.
fn check_seen(place: &Path, inner: &Inner, listing: &Listing, rank: u32, file: &str) -> Result<()> {
    let path = format!("{}{file}", inner.directory);
    let files = listing.ranks.get(&rank);
    if files.is_some_and(|files| files.iter().any(|file| file.path == path)) {
        return Ok(());
    }
    let text = inner.format.texts().first().map_or("", |(name, _)| name);
    let message = format!("{text} names this file; no process finds it");
    let fault = Fault::new(Kind::MissingShard, message).rank(rank);
    let fault = fault.hint(
        "copy all files of the checkpoint together, or start a process on every node that has some of them",
    );
    Err(fault.file(place.join(file).display().to_string()))
}

/// The same by what this process sees, for one that is alone; `None` too if the files tell their own
/// structure. Local.
///
/// # Errors
/// As the format's.
pub(crate) fn told(base: &Path, listing: &Listing) -> Result<Option<Told>> {
    let inner = listing.inner.as_ref();
    let Some(inner) = inner.filter(|inner| inner.format.tells_structure()) else {
        return Ok(None);
    };
    let place = base.join(&inner.directory);
    let text = |(name, bytes_max): &Text| -> Result<Option<Vec<u8>>> {
        let path = place.join(name);
        match io::standing(&path)? {
            Standing::File => ReadFile::open(&path)?.read_all(*bytes_max).map(Some),
            _ => Ok(None),
        }
    };
    let texts: Vec<_> = inner
        .format
        .texts()
        .iter()
        .map(text)
        .collect::<Result<_>>()?;
    let own = inner.format.read(&texts);
    let own = own.map_err(|fault| inside(fault, &place))?;
    let format = inner.format;
    Ok(Some(Told { format, own }))
}

/// The structure of the file at `path` in the base, where its checkpoint tells that. Local.
///
/// # Errors
/// As the format's.
pub(crate) fn structure(
    told: Option<&Told>,
    listing: &Listing,
    path: &str,
    file: &ReadFile,
) -> Result<Option<FileSchema>> {
    let (Some(Told { format, own }), Some(inner)) = (told, &listing.inner) else {
        return Ok(None);
    };
    let name = path.strip_prefix(&*inner.directory).unwrap_or(path);
    format.structure(own, name, file)
}

/// A file that some process sees, on all. Collective.
fn shared_file(world: &World, path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
    shared(world, path, || {
        ReadFile::open(path).and_then(|file| file.read_all(limit_bytes))
    })
}

/// What one process that sees the file at `path` reads of it, on all. Collective.
fn shared(
    world: &World,
    path: &Path,
    read: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<Option<Vec<u8>>> {
    let seen = agree(world, io::standing(path))? == Standing::File;
    let all = all_gather_bytes(world, &[u8::from(seen)])?;
    let Some(first) = all.iter().position(|seen| seen == &[1]) else {
        return Ok(None);
    };
    let first = u32::try_from(first).unwrap_or(u32::MAX);
    let bytes = if world.process() == first {
        read()
    } else {
        Ok(Vec::new())
    };
    broadcast_bytes(world, first, agree(world, bytes)?).map(Some)
}
