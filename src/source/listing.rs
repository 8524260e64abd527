//! Which weight files a node sees at a path, and which of them are meant.

use crate::exchange::{World, all_gather};
use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::source::aside::{TOLD, left};
use crate::source::contents::beside;
use crate::source::directory;
use crate::source::flat;
use crate::source::full::list_full;
use crate::source::listed::{Inner, Listed, Listing};
use crate::source::meta::weights_of_ranks;
use crate::source::pattern;
use crate::source::reading::Weights;
use crate::store::full_dir::CONFIG;
use crate::store::io::{self, Standing};
use crate::store::{Format, rank_dir};
use crate::strategy::name::matches;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A rank's directory: its rank and its name.
pub(crate) type Room = (u32, String);

/// What is seen of a path at first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// What there is to say already.
    pub(crate) listing: Listing,
    /// The rank directories that are to be looked into.
    pub(crate) rooms: Vec<Room>,
}

impl From<Listing> for Begun {
    fn from(listing: Listing) -> Begun {
        let rooms = Vec::new();
        Begun { listing, rooms }
    }
}

/// Lists what this process sees at `path`; what rank directories have is only offered; of full weights
/// those that are meant. Local.
pub(crate) fn list(path: &Path, suffix: Option<&str>, weights: &Weights) -> Result<Listing> {
    let Begun { mut listing, rooms } = begin(path, suffix, weights)?;
    let wanted = weights.glob();
    for room in &rooms {
        put(&mut listing, path, room, look_into(path, room)?)?;
    }
    if listing.offered.is_empty() && !rooms.is_empty() {
        return full(path, wanted);
    }
    if !listing.offered.is_empty() {
        refuse_choice(path, wanted)?;
    }
    Ok(listing)
}

/// Refuses `--weights` for rank directories. Local.
///
/// # Errors
/// [`Kind::Usage`], the same wherever it is asked.
pub(crate) fn refuse_choice(path: &Path, wanted: Option<&str>) -> Result<()> {
    let Some(glob) = wanted else { return Ok(()) };
    let fault = no_choice(path, glob, "rank directories");
    let names = io::list(path).unwrap_or_default();
    Err(match &beside(path, &names, |_| false)[..] {
        [] => fault.hint("--file-suffix chooses among several files of a rank"),
        beside => fault.hint(format!("beside them lies {}", first(beside, TOLD))),
    })
}

/// The fault of `--weights` where there is nothing for it to choose from.
fn no_choice(path: &Path, glob: &str, what: &str) -> Fault {
    let message =
        format!("--weights '{glob}' chooses among the files of full weights; this is {what}");
    Fault::new(Kind::Usage, message).file(path.display().to_string())
}

/// Refuses to choose by a number where nothing has one. Local.
pub(crate) fn unnumbered(path: &Path, suffix: Option<&str>, what: &str) -> Result<()> {
    let Some(suffix) = suffix else {
        return Ok(());
    };
    let message = format!("--file-suffix {suffix}: this is {what}, which has no number");
    let fault = Fault::new(Kind::Usage, message).file(path.display().to_string());
    Err(fault.hint("leave it out; it chooses among the files of rank directories"))
}

/// Whether what lies at `path` may be one of several by their numbers, as any process sees it: full weights and one file
/// are not. Collective.
///
/// # Errors
/// [`Kind::Mpi`].
pub(crate) fn may_be_numbered(world: &World, path: &Path) -> Result<bool> {
    let seen = all_gather(world, &has_numbers(path).unwrap_or(None))?;
    Ok(seen.contains(&Some(true)) || !seen.contains(&Some(false)))
}

/// The same as this process sees it; none where nothing is. Local.
fn has_numbers(path: &Path) -> Result<Option<bool>> {
    match io::glance(path)? {
        Standing::Nothing => return Ok(pattern::is_one(path).then_some(false)),
        Standing::File => return Ok(Some(false)),
        Standing::Directory | Standing::EmptyDirectory => {}
    }
    let names = io::list(path)?;
    if let Some(inner) = directory::find(path, &names, None)? {
        return Ok(Some(inner.format.is_numbered()));
    }
    let room = |(name, folder): &(String, bool)| *folder && rank_dir::rank_of(name).is_some();
    Ok(Some(
        names.iter().any(room) || flat::steps(path, &names, true).is_some(),
    ))
}

/// Whether there are files of full weights at `path` that match `glob`, as any process sees it. Collective.
///
/// # Errors
/// [`Kind::Mpi`].
pub(crate) fn may_match(world: &World, path: &Path, glob: &str) -> Result<bool> {
    let seen = || -> Result<Option<bool>> {
        let own = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(match io::glance(path)? {
            Standing::Nothing => None,
            Standing::File => Some(matches(glob, &own)),
            Standing::Directory | Standing::EmptyDirectory => {
                let names = io::list(path)?;
                let own = directory::find(path, &names, None)?;
                let own = own.map(|inner| inner.has_file(path, |file| matches(glob, file)));
                Some(named(&names, glob) || own.transpose()?.unwrap_or_default())
            }
        })
    };
    let seen = all_gather(world, &seen().unwrap_or(None))?;
    Ok(seen.contains(&Some(true)) || !seen.contains(&Some(false)))
}

/// Lists full weights. Local.
pub(crate) fn full(path: &Path, wanted: Option<&str>) -> Result<Listing> {
    let mut listing = Listing::default();
    list_full(path, &io::list(path)?, wanted, &mut listing)?;
    Ok(listing)
}

/// The same without looking into rank directories. Local.
pub(crate) fn begin(path: &Path, suffix: Option<&str>, weights: &Weights) -> Result<Begun> {
    let wanted = weights.glob();
    if let Some(listing) = pattern::list(path)? {
        let what = "a pattern of ranks' files";
        unnumbered(path, suffix, what)?;
        let chosen = wanted.map(|glob| no_choice(path, glob, what));
        return chosen.map_or(Ok(listing.into()), Err);
    }
    let mut listing = Listing::default();
    match io::glance(path)? {
        Standing::Nothing => return Ok(listing.into()),
        Standing::File => {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let base = path.parent().unwrap_or(Path::new(""));
            let named = name.as_deref().unwrap_or_default();
            unnumbered(path, suffix, "one file")?;
            if let Some(glob) = wanted.filter(|glob| !matches(glob, named)) {
                return Err(no_choice(path, glob, "one file of another name").hint("leave it out"));
            }
            listing.single_file = true;
            let file = Listed::new(base, name.unwrap_or_default())?;
            listing.ranks.insert(0, vec![file]);
            return Ok(listing.into());
        }
        Standing::Directory | Standing::EmptyDirectory => {}
    }
    let names = io::list(path)?;
    if names.is_empty() {
        return Ok(listing.into());
    }
    if let Some(inner) = directory::find(path, &names, suffix)? {
        if *weights == Weights::Model && suffix.is_none() && is_model(path, &names, &inner) {
            let mut listing = full(path, None)?;
            let (place, called) = (&inner.directory, inner.format.called());
            let note =
                format!("{place}, {called}, is left aside: the model's own weights are taken");
            listing.notes.push(note);
            return Ok(listing.into());
        }
        return by_itself(path, &names, inner, suffix, wanted).map(Begun::from);
    }
    let rooms = names.iter().filter(|(_, directory)| *directory);
    let mut rooms: Vec<Room> = rooms
        .filter_map(|(name, _)| Some((rank_dir::rank_of(name)?, name.clone())))
        .collect();
    if wanted.is_some_and(|glob| named(&names, glob)) {
        rooms.clear();
    } else if !rooms.is_empty() {
        let beside = beside(path, &names, |_| false);
        let note = (!beside.is_empty()).then(|| left(&beside, "rank directories are", true));
        listing.notes.extend(note);
    }
    if rooms.is_empty() && wanted.is_none() {
        let steps = flat::steps(path, &names, suffix.is_some()).map(|files| (0, files));
        listing.offered.extend(steps);
    }
    if rooms.is_empty() && listing.offered.is_empty() {
        list_full(path, &names, wanted, &mut listing)?;
        if !listing.ranks.is_empty() {
            unnumbered(path, suffix, "full weights")?;
        }
    }
    Ok(Begun { listing, rooms })
}

/// Whether `names`, of the directory `path`, are those of a model with its description, beside which a trainer keeps the
/// checkpoint `inner` in a directory of its own.
fn is_model(path: &Path, names: &[(String, bool)], inner: &Inner) -> bool {
    let described = |(name, folder): &(String, bool)| name == CONFIG && !folder;
    let below = !inner.directory.is_empty();
    below && names.iter().any(described) && !beside(path, names, |_| false).is_empty()
}

/// Whether a file of weights among `names` is called so.
fn named(names: &[(String, bool)], glob: &str) -> bool {
    let files = names.iter().filter(|(_, folder)| !folder);
    let mut files = files.map(|(name, _)| name.as_str());
    files.any(|name| matches(glob, name) && Format::may_be_weights(name))
}

/// Lists the checkpoint in `path`, which has these `names`, that tells its own layout; or the full weights beside it that
/// are `wanted`. Local.
fn by_itself(
    path: &Path,
    names: &[(String, bool)],
    inner: Inner,
    suffix: Option<&str>,
    wanted: Option<&str>,
) -> Result<Listing> {
    let format = inner.format;
    let room = path.file_name().unwrap_or_default().to_string_lossy();
    let here = inner.directory.is_empty();
    let mut listing = directory::list(path, inner)?;
    let listed = |name: &str| {
        let mut files = listing.ranks.values().flatten();
        files.any(|file| file.path == name)
    };
    let own =
        |name: &str| listed(name) || format.holds(name) || format.holds(&format!("{room}/{name}"));
    let beside = beside(path, names, own);
    let mut names_own = listing.ranks.values().flatten().map(|file| &*file.path);
    let own_wanted = wanted.is_some_and(|glob| names_own.all(|file| matches(glob, file)));
    if let Some(glob) = wanted.filter(|_| !own_wanted) {
        if beside.iter().any(|name| matches(glob, name)) || named(names, glob) && !here {
            unnumbered(path, suffix, "full weights")?;
            return full(path, wanted);
        }
        let fault = no_choice(path, glob, "a directory that names its files");
        return Err(fault.hint("leave it out; --file-suffix chooses among several checkpoints"));
    }
    let number = |suffix: &str| room.ends_with(suffix);
    if here && format.numbers(names).is_empty() && !suffix.is_some_and(number) {
        unnumbered(path, suffix, format.called())?;
    }
    refuse_ranks_beside(path, names, &listing)?;
    if let ([first, ..], None) = (&beside[..], wanted) {
        if here {
            let message = format!(
                "has {} and full weights beside it ({first})",
                format.called()
            );
            let fault = Fault::new(Kind::Ambiguous, message).file(path.display().to_string());
            let which = if beside.len() == 1 { first } else { "GLOB" };
            let own = listing.ranks.values().flatten().next();
            let own = own.map_or("GLOB".to_owned(), |file| {
                let digit = file.path.find(|c: char| c.is_ascii_digit());
                format!("{}*", &file.path[..digit.unwrap_or(file.path.len())])
            });
            return Err(fault.hint(format!(
                "--weights {which} takes these, --weights '{own}' the other"
            )));
        }
        let taken = format!("{} is", format.called());
        listing.notes.push(left(&beside, &taken, true));
    }
    Ok(listing)
}

/// Refuses rank directories beside a checkpoint that tells its own layout: which of them is meant isn't known. Local.
///
/// # Errors
/// [`Kind::Ambiguous`] naming both.
fn refuse_ranks_beside(path: &Path, names: &[(String, bool)], listing: &Listing) -> Result<()> {
    let Some(inner) = &listing.inner else {
        return Ok(());
    };
    let of_it = |room: &str| {
        let mut files = listing.ranks.values().flatten();
        files.any(|file| file.path.split('/').next() == Some(room))
    };
    let folders = names.iter().filter(|(_, folder)| *folder);
    let rooms = folders.filter_map(|(name, _)| Some((rank_dir::rank_of(name)?, name.clone())));
    for room in rooms.filter(|(_, name)| !of_it(name)) {
        if let Some(file) = look_into(path, &room)?.first() {
            return Err(both(path, inner, (room.0, file)));
        }
    }
    Ok(())
}

/// The fault of a directory that has a checkpoint that tells its own layout, and the `file` of a rank beside it.
fn both(path: &Path, inner: &Inner, (rank, file): (u32, &str)) -> Fault {
    let (called, place) = (inner.format.called(), inner.directory.trim_end_matches('/'));
    let message = format!("has {called} and files of ranks beside it ({file})");
    let fault = Fault::new(Kind::Ambiguous, message).file(path.display().to_string());
    let own = format!("rank_{rank}");
    let pattern = path.join(file.replace(&own, "rank_{rank}"));
    let ranks = format!("'{}' takes those of the ranks", pattern.display());
    fault.hint(match place.is_empty() {
        true => format!("move one of them into a directory of its own; {ranks}"),
        false => format!("give {} for the one; {ranks}", path.join(place).display()),
    })
}

/// The paths of the weight files in a rank's directory. Local.
pub(crate) fn look_into(path: &Path, (_, name): &Room) -> Result<Vec<String>> {
    let inside = io::list(&path.join(name))?;
    let files = inside.iter().filter(|(_, directory)| !directory);
    let weights = weights_of_ranks(files.map(|(file, _)| file.as_str())).into_iter();
    Ok(weights.map(|file| format!("{name}/{file}")).collect())
}

/// Puts what a rank's directory has into the listing.
///
/// # Errors
/// [`Kind::Ambiguous`] if another one is the same rank's.
pub(crate) fn put(
    listing: &mut Listing,
    path: &Path,
    (rank, name): &Room,
    weights: Vec<String>,
) -> Result<()> {
    if weights.is_empty() {
        return Ok(());
    }
    match listing.offered.insert(*rank, weights) {
        None => Ok(()),
        Some(other) => {
            let other = other[0].split('/').next().unwrap_or_default();
            let message = format!("{name} and {other} are the same rank");
            Err(Fault::new(Kind::Ambiguous, message).file(path.display().to_string()))
        }
    }
}
