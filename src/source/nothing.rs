//! What is said of a path where no weights are found: what is there in their place, and what was meant.

use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result, nearest};
use crate::source::around::around_number;
use crate::source::directory;
use crate::store::cache::refuse_cache;
use crate::store::formats::refuse_directory;
use crate::store::full_dir::CONFIG;
use crate::store::io::{self, Standing};
use crate::store::{Format, rank_dir};
use std::path::Path;

/// Refuses `path` with what is there instead of weights; nothing is said where that isn't known. Local.
///
/// # Errors
/// [`Kind::MissingShard`], and as [`refuse_directory`].
pub(crate) fn refuse(path: &Path) -> Result<()> {
    match io::standing(path)? {
        Standing::Nothing => Err(absent(path)),
        Standing::EmptyDirectory => Err(fault(path, "is an empty directory".into())),
        Standing::File => Ok(()),
        Standing::Directory => {
            refuse_directory(path)?;
            refuse_cache(path)?;
            let names = io::list(path)?;
            looks_like_ranks(path, &names)
                .or(parent(path, &names)?)
                .or_else(|| strategies(path, &names))
                .map_or(Ok(()), Err)
        }
    }
}

fn fault(path: &Path, message: String) -> Fault {
    Fault::new(Kind::MissingShard, message).file(path.display().to_string())
}

/// What is said of a directory in which ranks' directories were looked for, below it in `base`, and none is. Local.
///
/// # Errors
/// What can be said of what is there in their place; [`Kind::Io`].
pub(super) fn without_ranks(directory: &Path, base: &Path) -> Result<Fault> {
    if io::standing(directory)? == Standing::Nothing {
        return Err(absent(directory));
    }
    directory::refuse_single(base)?;
    refuse_directory(directory)?;
    if let Some(fault) = looks_like_ranks(directory, &io::list(directory)?) {
        return Err(fault);
    }
    let fault = fault(directory, "no process finds rank directories here".into());
    let own = directory.file_name().and_then(|name| name.to_str());
    if own.and_then(rank_dir::rank_of).is_none() {
        return Ok(fault.hint(
            "expected rank_<n>/ directories with <prefix>_rank_<n>-<epoch>_<step>.safetensors",
        ));
    }
    let above = io::room(directory).display();
    Ok(fault.hint(format!("this is one rank's: give {above}")))
}

/// Nothing is there: what has nearly that name, or what it may be in place of a path. Local.
pub(crate) fn absent(path: &Path) -> Fault {
    let fault = fault(path, "doesn't exist".into());
    let text = path.to_string_lossy();
    if text.starts_with("~/") {
        return fault.hint("`~` in quotes is no home directory: leave the quotes out");
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let names = io::list(above.unwrap_or(Path::new("."))).unwrap_or_default();
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    // A third of the name must be right from its beginning, or else it is a guess.
    let begins = |name: &str| {
        let same = name.chars().zip(own.chars()).take_while(|(a, b)| a == b);
        3 * same.count() >= own.chars().count()
    };
    let names_near = names.iter().map(|(name, _)| name.as_str());
    if let Some(near) = nearest(&own, names_near.filter(|name| begins(name))).first() {
        let near = above.map_or_else(|| near.into(), |above| above.join(near));
        return fault.hint(format!("did you mean {}?", near.display()));
    }
    let parts = path.components().count();
    if parts == 2 && path.is_relative() && names.is_empty() {
        return fault.hint(
            "a path is wanted: the name of a model on a hub isn't one, and nothing is downloaded",
        );
    }
    fault.hint("a relative path is one from the directory that the program is started in")
}

/// Directories called `rank0` or `rank-0`.
pub(super) fn looks_like_ranks(path: &Path, names: &[(String, bool)]) -> Option<Fault> {
    let number = |name: &str| {
        let rest = name.strip_prefix("rank").or(name.strip_prefix("device"))?;
        let digits = rest.trim_start_matches(['-', '.', '_', '=']);
        digits.parse::<u32>().ok()
    };
    let mut ranks = names.iter().filter(|(_, directory)| *directory);
    let (name, number) = ranks.find_map(|(name, _)| {
        let number = number(name)?;
        (rank_dir::rank_of(name).is_none()).then_some((name, number))
    })?;
    let message = format!("has no rank_{number}, and {name}, which looks like one");
    Some(fault(path, message).hint(format!(
        "the directories of ranks are called rank_0, rank_1, …: rename {name} and the others"
    )))
}

/// A directory whose directories have the weights.
fn parent(path: &Path, names: &[(String, bool)]) -> Result<Option<Fault>> {
    let (mut found, mut checkpoints) = (Vec::new(), false);
    for (name, _) in names
        .iter()
        .filter(|(name, directory)| *directory && !name.starts_with('.'))
    {
        let inside = io::list(&path.join(name))?;
        // What has ranks itself, or a model's description, is none.
        checkpoints |= inside.iter().any(|(name, directory)| match directory {
            true => rank_dir::rank_of(name).is_some(),
            false => name == CONFIG,
        });
        let has = inside.iter().any(|(name, directory)| match directory {
            true => rank_dir::rank_of(name).is_some(),
            false => Format::may_be_weights(name) && Format::of(name).is_some(),
        });
        let tells = || {
            matches!(
                directory::find(&path.join(name), &inside, None),
                Ok(Some(_))
            )
        };
        if has || tells() {
            if rank_dir::rank_of(name).is_some() {
                return Ok(None);
            }
            found.push(name.as_str());
        }
    }
    if !checkpoints && are_numbered(&found) {
        let message = format!(
            "has no rank_0, and {}, which look like ranks",
            first(&found, TOLD)
        );
        return Ok(Some(fault(path, message).hint(
            "the directories of ranks are called rank_0, rank_1, …: rename these, and give --src-strategy",
        )));
    }
    let paths: Vec<String> = found
        .iter()
        .map(|name| path.join(name).display().to_string())
        .collect();
    Ok(match &paths[..] {
        [] => None,
        [one] => {
            let message = format!("has no weights itself, {} in it has", found[0]);
            Some(fault(path, message).hint(format!("did you mean {one}?")))
        }
        all => {
            let message = format!("has no weights itself, {} in it have", first(&found, TOLD));
            Some(fault(path, message).hint(format!("did you mean one of {}?", first(all, TOLD))))
        }
    })
}

/// Most names that are told.
const TOLD: usize = 4;

/// Whether names differ in a number alone, of which each from the first one, 0 or 1, is there: ranks, and no steps.
/// Where it is one name, it says so in a word.
fn are_numbered(names: &[&str]) -> bool {
    let split = names.iter().map(|name| around_number(name));
    let Some(mut all) = split.collect::<Option<Vec<_>>>() else {
        return false;
    };
    all.sort_unstable();
    let Some(((around, lowest), rest)) = all.split_first() else {
        return false;
    };
    let follow = rest.iter().zip(lowest + 1..);
    let follow = follow.filter(|((other, number), due)| other == around && number == due);
    *lowest <= 1
        && follow.count() == rest.len()
        && (!rest.is_empty() || around.0.to_ascii_lowercase().contains("rank"))
}

/// A directory of strategies.
fn strategies(path: &Path, names: &[(String, bool)]) -> Option<Fault> {
    let (name, _) = names.iter().find(|(name, directory)| {
        !directory
            && name.contains("strategy")
            && (name.ends_with(".json") || name.ends_with(".ckpt"))
    })?;
    Some(
        fault(path, format!("has strategies, as {name}, and no weights"))
            .hint("are the weights and their strategy swapped?"),
    )
}

/// Refuses `path` as a strategy if it has weights. Local.
///
/// # Errors
/// [`Kind::Strategy`] if it has; [`Kind::Io`].
pub(super) fn refuse_weights(path: &Path) -> Result<()> {
    let weights = match io::standing(path)? {
        Standing::File => path
            .extension()
            .is_some_and(|e| e == "safetensors")
            .then(String::new),
        Standing::Directory => {
            let names = io::list(path)?;
            let found = names.into_iter().find(|(name, directory)| {
                name.ends_with(".safetensors") || *directory && rank_dir::rank_of(name).is_some()
            });
            found.map(|(name, _)| format!(", as {name}"))
        }
        _ => None,
    };
    let Some(weights) = weights else {
        return Ok(());
    };
    let fault = Fault::new(
        Kind::Strategy,
        format!("has weights{weights}, and no strategy"),
    );
    Err(fault
        .file(path.display().to_string())
        .hint("are the weights and their strategy swapped? A strategy is a .ckpt or .json file, or a directory of them"))
}

/// Says of a missing rank's directory that it lies beside what was given, or that it is there and leads nowhere or has
/// nothing in it. Local.
pub(super) fn linked_nowhere(base: &Path, fault: Fault) -> Fault {
    let Some(rank) = fault.rank else {
        return fault;
    };
    let room = format!("rank_{rank}");
    let own = base
        .file_name()
        .and_then(|name| rank_dir::rank_of(name.to_str()?));
    let above = io::room(base);
    if own.is_some() && matches!(io::standing(&above.join(&room)), Ok(Standing::Directory)) {
        return Fault {
            file: None,
            hint: Some(format!(
                "{} is one rank's directory: give {}, which has all of them",
                base.display(),
                above.display()
            )),
            ..fault
        };
    }
    let directory = base.join(&room);
    let why = match (io::link_target(&directory), io::standing(&directory)) {
        (Ok(Some(target)), Ok(Standing::Nothing)) => to_nothing(&target),
        (_, Ok(Standing::EmptyDirectory)) => {
            "has no files: was the copy or the save broken off?".into()
        }
        _ => return fault,
    };
    Fault {
        hint: Some(format!("{} {why}", directory.display())),
        ..fault
    }
}

fn to_nothing(target: &Path) -> String {
    format!("is a link to {}, where nothing is", target.display())
}

/// Refuses a rank's directory that is a link to where nothing is: what lies there is unknown, and counts. Local.
///
/// # Errors
/// [`Kind::Io`] naming both.
pub(super) fn refuse_nowhere(room: &Path) -> Result<()> {
    let Some(target) = io::link_target(room)? else {
        return Ok(());
    };
    Err(Fault::new(Kind::Io, to_nothing(&target))
        .file(room.display().to_string())
        .hint("is its disk mounted? Remove the link if that rank is an older job's"))
}
