//! Every file of weights at a path, each for itself.

use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::source::aside::left_aside;
use crate::source::contents::torch_beside;
use crate::source::directory::refuse_parts;
use crate::source::full::indexed;
use crate::source::listed::{Listed, Listing};
use crate::source::meta::weights_of_ranks;
use crate::source::nothing;
use crate::source::pattern;
use crate::source::sets;
use crate::store::Format;
use crate::store::full_dir::MAPS;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::manifest::{self, Manifest};
use crate::store::rank_dir::rank_of;
use crate::store::whole::{ranges, spelled};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What to do where some of a directory's files are missing.
const ALL_OF_IT: &str = "copy all of the directory; --file-name-contains chooses some of its files";

/// Lists files of weights: one, those in rank directories, or those of a full directory; only those
/// whose names contain `contains`. Files that are in format `to` already are counted and left out.
/// Each stands for a rank, to be [`number`]ed. Local.
///
/// # Errors
/// [`Kind::Unsupported`] for a directory that is one checkpoint by what lies in it, whose files are parts of that; as
/// [`Format::recognise`], for a file whose name doesn't speak of format `to`.
pub(crate) fn list_files(
    path: &Path,
    to: Option<Format>,
    contains: Option<&str>,
) -> Result<Listing> {
    let mut listing = Listing::default();
    if !pattern::is_one(path) {
        refuse_parts(path, contains)?;
    }
    let names = names(path, contains, &mut listing)?;
    let base = match listing.single_file {
        true => &pattern::base(path),
        false => path,
    };
    let (mut files, mut unread) = (Vec::new(), None);
    for name in names {
        let format = match to {
            None => None,
            Some(_) => match Format::recognise(&ReadFile::open(&base.join(&name))?) {
                Ok(format) => Some(format),
                // Whatever it is, nobody asks for it.
                Err(fault) if !listing.single_file && Format::of(&name) == to => {
                    unread.get_or_insert(fault);
                    continue;
                }
                Err(fault) => return Err(fault),
            },
        };
        if format.is_some() && format == to {
            listing.left += 1;
        } else {
            files.push(Listed::new(base, name)?);
        }
    }
    match unread {
        Some(fault) if files.is_empty() && listing.left == 0 => return Err(fault),
        _ => {}
    }
    if let (true, Some(to)) = (listing.left > 0 && !files.is_empty(), to) {
        let left = counted(listing.left as u64, "file");
        let verb = if listing.left == 1 { "is" } else { "are" };
        let note = format!("{left} that {verb} {} already {verb} left out", to.name());
        listing.notes.push(note);
    }
    let files = files.into_iter().map(|file| vec![file]);
    listing.ranks = (0u32..).zip(files).collect();
    Ok(listing)
}

/// The names of the files, inside `path`; says in `listing` whether it is one file.
fn names(path: &Path, contains: Option<&str>, listing: &mut Listing) -> Result<Vec<String>> {
    let wanted = |name: &str| contains.is_none_or(|text| name.contains(text));
    if let Some(found) = pattern::list(path)? {
        listing.single_file = true;
        let files = found.ranks.into_values().flatten();
        let names = files.map(|file| file.path).filter(|name| wanted(name));
        return Ok(names.collect());
    }
    let mut names = Vec::new();
    match io::standing(path)? {
        Standing::Nothing => {}
        Standing::File => {
            listing.single_file = true;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            names.extend(Some(name.into_owned()).filter(|name| wanted(name)));
        }
        Standing::Directory | Standing::EmptyDirectory => {
            let inside = io::list(path)?;
            let here = |map: &&&str| inside.iter().any(|(name, room)| name == **map && !room);
            if contains.is_none() {
                listing.indexed = indexed(path, &inside)?;
                refuse_unlike_manifest(path)?;
            }
            let index = MAPS.iter().find(here).map(|map| (*map).to_owned());
            let own = owned(Format::weights(wanted_files(&inside, contains)));
            if contains.is_none() {
                if index.is_none() {
                    refuse_lacking(path, &own)?;
                }
                // Of some of the files it would say that they are all.
                listing.index = index;
                listing.notes.extend(torch_aside(path, &inside, &own));
            }
            names.extend(own);
            let rooms = inside.iter().filter(|(_, directory)| *directory);
            for (room, _) in rooms.filter(|(name, _)| name.starts_with("rank")) {
                let inside = io::list(&path.join(room))?;
                let no_file = |(name, room): &&(String, bool)| *room && Format::of(name).is_some();
                if let Some((name, _)) = inside.iter().find(no_file) {
                    let place = path.join(room).join(name).display().to_string();
                    let fault =
                        Fault::new(Kind::Unsupported, "is a directory, and no file of weights");
                    return Err(fault
                        .file(place)
                        .hint("move it away, or put the file in its place"));
                }
                let files = owned(weights_of_ranks(wanted_files(&inside, contains)));
                if contains.is_none() {
                    refuse_lacking(&path.join(room), &files)?;
                }
                let files = files.into_iter().map(|file| format!("{room}/{file}"));
                let files: Vec<_> = files.collect();
                if let (Some(rank), false) = (rank_of(room), files.is_empty()) {
                    listing.offered.insert(rank, files.clone());
                }
                names.extend(files);
            }
        }
    }
    Ok(names)
}

/// The files among the names in a directory whose names contain `contains`.
fn wanted_files<'a>(
    inside: &'a [(String, bool)],
    contains: Option<&'a str>,
) -> impl Iterator<Item = &'a str> + Clone {
    let files = inside.iter().filter(|(_, directory)| !directory);
    let files = files.map(|(file, _)| file.as_str());
    files.filter(move |name| contains.is_none_or(|text| name.contains(text)))
}

fn owned(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// What is said of files in PyTorch's form beside `own` ones, which aren't taken.
fn torch_aside(path: &Path, inside: &[(String, bool)], own: &[String]) -> Option<String> {
    let aside = torch_beside(path, inside);
    let taken: BTreeSet<String> = own.iter().cloned().collect();
    (!taken.is_empty() && !aside.is_empty()).then(|| left_aside(&taken, &aside, false))
}

/// Refuses a directory with these `files` if they are a part of a set. Local.
fn refuse_lacking(path: &Path, files: &[String]) -> Result<()> {
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    sets::refuse_part(path, &files, files.iter().copied()).map_err(|fault| fault.hint(ALL_OF_IT))
}

/// Refuses a directory that lacks weights which its own manifest lists. Local.
fn refuse_unlike_manifest(path: &Path) -> Result<()> {
    let Some(manifest) = Manifest::read_sound(path)? else {
        return Ok(());
    };
    let listed = manifest.files.iter().map(|file| &file.path);
    for file in listed.filter(|file| Format::of(file).is_some()) {
        if io::standing(&path.join(file))? != Standing::File {
            let message = format!("lists {file}, which isn't there");
            let place = path.join(manifest::NAME).display().to_string();
            return Err(Fault::new(Kind::MissingShard, message)
                .file(place)
                .hint(ALL_OF_IT));
        }
    }
    Ok(())
}

/// Refuses rank directories of which some between others are on no node. A node's own, apart from the others',
/// are whole ones. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the ranks.
pub(crate) fn refuse_gaps<'a>(
    listings: impl Iterator<Item = &'a Listing>,
    path: &Path,
) -> Result<()> {
    let here: BTreeSet<u32> = listings.flat_map(|l| l.offered.keys().copied()).collect();
    let runs = ranges(here);
    let gaps: Vec<_> = runs.windows(2).map(|two| (two[0].1, two[1].0)).collect();
    let Some((rank, _)) = gaps.first() else {
        return Ok(());
    };
    let message = format!("lacks rank directories between others: {}", spelled(&gaps));
    Err(Fault::new(Kind::MissingShard, message)
        .rank(*rank)
        .file(path.display().to_string())
        .hint(
            "bring all ranks' directories together; --file-name-contains chooses some of the files",
        ))
}

/// Numbers files that stand for ranks the same on all nodes: by path. Says so if there is none.
///
/// # Errors
/// [`Kind::MissingShard`], also if all are in format `to` already; what
/// [`nothing::refuse`] says.
pub(crate) fn number(listings: Vec<&mut Listing>, path: &Path, to: Format) -> Result<()> {
    let files = listings.iter().flat_map(|l| l.ranks.values().flatten());
    let paths: BTreeSet<String> = files.map(|file| file.path.clone()).collect();
    if paths.is_empty() {
        let named = |fault: Fault| Err(fault.file(path.display().to_string()));
        if listings.iter().any(|listing| listing.left > 0) {
            let message = format!(
                "has nothing to convert: all its weight files are {} already",
                to.name()
            );
            let fault = Fault::new(Kind::MissingShard, message);
            let names = io::list(path).unwrap_or_default();
            return named(match torch_beside(path, &names).first() {
                Some(aside) => {
                    fault.hint(format!("--file-name-contains {aside} converts that file"))
                }
                None => fault.hint("give another format with --to"),
            });
        }
        nothing::refuse(path)?;
        return named(Fault::new(
            Kind::MissingShard,
            "has no weight files to convert",
        ));
    }
    let numbers: BTreeMap<String, u32> = paths.into_iter().zip(0..).collect();
    for listing in listings {
        let files = std::mem::take(&mut listing.ranks).into_values().flatten();
        listing.ranks = files
            .filter_map(|file| Some((*numbers.get(&file.path)?, vec![file])))
            .collect();
    }
    Ok(())
}
