//! What may be replaced: an earlier result of this program's, or a trainer's checkpoint.

use crate::fault::{Fault, Kind, Result};
use crate::store::Directory;
use crate::store::formats::is_strategy;
use crate::store::io;
use crate::store::manifest::{self, Hex, Manifest};
use crate::store::{Format, rank_dir};
use std::collections::HashSet;
use std::path::Path;

/// What a job may replace at its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nothing: nothing may stand there.
    Nothing,
    /// A result of this program's, or a trainer's rank directories.
    Results,
    /// The result of the job with this fingerprint, of what it is asked to do and of what, as its manifest says; of
    /// files that nobody has changed since.
    Earlier(u64),
    /// The source, of which all that isn't weights is carried along.
    Source,
}

/// How the names of what a job keeps inside a directory begin.
const OURS: &str = ".shardloom-";
/// What the root of a file system may hold besides.
const LOST: &str = "lost+found";
/// How the names begin of what trainers put into an iteration beside its weights.
const NOTES: [&str; 7] = [
    "run_config.yaml",
    "train_state.pt",
    "train_dataloader_",
    "tokenizer/",
    "modelopt_",
    "context/",
    "layer_",
];
/// Names of files that are told of, at most.
const NAMED_MAX: usize = 3;

/// Checks that all that stands in `directory` is known to be of an earlier run: its manifest lists it,
/// or, where there is none, it is what a trainer keeps in rank directories, or as a checkpoint 2.0. Local.
///
/// # Errors
/// [`Kind::Exists`] naming the first files that are something else, and how many they are;
/// [`Kind::Io`].
pub fn check(directory: &Path) -> Result<()> {
    let mut listed: HashSet<String> = HashSet::new();
    // One that is damaged lists nothing, and is itself no result.
    if let Some(manifest) = Manifest::read_sound(directory)? {
        listed.insert(manifest::NAME.to_owned());
        listed.extend(manifest.files.into_iter().map(|file| file.path));
    }
    let mut strangers: Vec<String> = Vec::new();
    for (name, is_directory) in entries(directory)? {
        let path = directory.join(&name);
        if is_directory && io::link_target(&path)?.is_none() {
            let inside = io::list_files(&path)?;
            strangers.extend(inside.into_iter().map(|file| format!("{name}/{file}")));
        } else {
            strangers.push(name);
        }
    }
    strangers.retain(|path| !listed.contains(path) && !is_note(path));
    if listed.is_empty() {
        strangers = unlike(strangers);
    }
    let Some(first) = strangers.get(..NAMED_MAX.min(strangers.len())) else {
        return Ok(());
    };
    if first.is_empty() {
        return Ok(());
    }
    let more = if strangers.len() > first.len() {
        ", …"
    } else {
        ""
    };
    let message = format!(
        "holds {} that no earlier run has written: {}{more}",
        files(strangers.len()),
        first.join(", ")
    );
    Err(Fault::new(Kind::Exists, message)
        .file(directory.display().to_string())
        .hint(
            "--overwrite replaces only earlier results, and of a trainer rank directories, iterations or a distributed \
             checkpoint with nothing else; move the files away, or give another directory",
        ))
}

/// Checks that `directory` is what an earlier run of the job with the fingerprint `origin` has left, and nothing else.
/// Local.
///
/// # Errors
/// [`Kind::Exists`] for another job's result, naming the first file that has changed since it was written, and as
/// [`check`]; [`Kind::Io`].
pub fn check_earlier(directory: &Path, origin: u64) -> Result<()> {
    let exists =
        |message: String| Fault::new(Kind::Exists, message).file(directory.display().to_string());
    let hint = "give another directory; --overwrite replaces it, in one step, when the new one is complete";
    let Some(manifest) = Manifest::read_sound(directory)? else {
        return Err(exists("exists and is not empty".into()).hint(hint));
    };
    if manifest.origin != Some(Hex(origin)) {
        let message = format!(
            "exists, and is the result of another job ({})",
            manifest.command
        );
        return Err(exists(message).hint(hint));
    }
    if let Some(file) = manifest.first_changed(directory)? {
        let message = format!("is the result of an earlier run, and {file} has changed since");
        return Err(exists(message).hint(format!(
            "move {file} away to keep it; --overwrite replaces it"
        )));
    }
    check(directory)
}

/// Of `files` those that a trainer doesn't keep together with the others: it keeps rank directories, or what one format
/// of directories has.
fn unlike(files: Vec<String>) -> Vec<String> {
    let told = Directory::all().map(|format| {
        let others = files.iter().filter(move |file| !format.holds(file));
        others.cloned().collect::<Vec<_>>()
    });
    let ranks = files.iter().filter(|file| !is_weights(file));
    let ranks = ranks.cloned().collect();
    let fewest = told.chain([ranks]).min_by_key(Vec::len);
    fewest.unwrap_or_default()
}

fn files(count: usize) -> String {
    match count {
        1 => "a file".to_owned(),
        count => format!("{count} files"),
    }
}

/// Checks that the checkpoint in `base`/`inside`, which tells its own layout, has nothing that isn't its own. Local.
///
/// # Errors
/// [`Kind::Exists`] naming the first files that are something else, and how many they are; [`Kind::Io`].
pub fn check_own(base: &Path, inside: &str) -> Result<()> {
    let place = base.join(inside);
    let names = io::list(&place)?;
    let mut own: HashSet<String> = HashSet::new();
    for format in Directory::all() {
        if matches!(format.recognise(&place, &names, None), Ok(Some(_))) {
            let listed = format.list(&place).unwrap_or_default();
            own.extend(listed.into_values().flatten());
            own.extend(format.texts().iter().map(|(name, _)| (*name).to_owned()));
        }
    }
    let mut strangers = io::list_files(&place)?;
    let beside = |file: &str| {
        let name = file.rsplit('/').next().unwrap_or_default();
        name.starts_with('.')
            || name.ends_with(".lock")
            || NOTES.iter().any(|note| file.starts_with(note))
    };
    strangers.retain(|file| {
        !own.contains(file) && !is_told(&format!("{inside}/{file}")) && !beside(file)
    });
    let Some(first) = strangers.first() else {
        return Ok(());
    };
    let message = format!(
        "holds {} that no trainer has written into it: {first}{}",
        files(strangers.len()),
        if strangers.len() > 1 { ", …" } else { "" }
    );
    Err(Fault::new(Kind::Exists, message)
        .file(place.display().to_string())
        .hint("what is removed goes with all that lies in it: move the files away first"))
}

/// Checks that this user may remove all that lies in `directory`, which is to be replaced. Local.
///
/// # Errors
/// [`Kind::Io`] naming the first directory of which that isn't so.
pub fn check_removable(directory: &Path) -> Result<()> {
    let inside = io::list(directory)?;
    if !inside.is_empty() && !io::may_change(directory) {
        let message = "is to be replaced, and this user may not remove what lies in it";
        return Err(Fault::new(Kind::Io, message)
            .file(directory.display().to_string())
            .hint("give another directory, or run as the one whom these files belong to"));
    }
    let directories = inside.into_iter().filter(|(_, is_directory)| *is_directory);
    directories
        .map(|(name, _)| directory.join(name))
        .filter(|path| matches!(io::link_target(path), Ok(None)))
        .try_for_each(|path| check_removable(&path))
}

/// What lies in `directory`, each with whether it is a directory, but for what a job itself keeps there
/// (`.shardloom-…`) and the `lost+found` of a file system. Local.
///
/// # Errors
/// [`Kind::Io`].
pub fn entries(directory: &Path) -> Result<Vec<(String, bool)>> {
    let mut entries = io::list(directory)?;
    entries.retain(|(name, _)| !name.starts_with(OURS) && name != LOST);
    Ok(entries)
}

/// Splits `rank_3/name` into the parts of a file in a rank's directory.
fn in_rank(path: &str) -> Option<&str> {
    let (directory, name) = path.split_once('/')?;
    let direct = rank_dir::rank_of(directory).is_some() && !name.contains('/');
    direct.then_some(name)
}

/// Weights that a trainer keeps.
fn is_weights(path: &str) -> bool {
    in_rank(path).is_some_and(|name| Format::of(name).is_some() && !is_strategy(name))
}

/// What a trainer keeps in a directory that tells its own layout.
fn is_told(path: &str) -> bool {
    Directory::all().any(|format| format.holds(path))
}

/// What a trainer notes beside them.
fn is_note(path: &str) -> bool {
    let mark = path.strip_prefix("transform_");
    let mark = mark.and_then(|rest| rest.strip_suffix(".txt"));
    in_rank(path).is_some_and(|name| name == "meta.json" || name.ends_with(".lock"))
        || mark.is_some_and(|mark| {
            let rank = mark
                .strip_prefix("succeed_")
                .or_else(|| mark.strip_prefix("failed_"));
            rank.and_then(rank_dir::rank_of).is_some()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_a_trainer_keeps() {
        for path in ["rank_0/a-1_2.ckpt", "rank_17/net.safetensors"] {
            assert!(is_weights(path), "{path}");
        }
        for path in [
            "latest_checkpointed_iteration.txt",
            "iteration_00000040/metadata.json",
            "iteration_00000040/common.json",
            "iteration_00000040/opt-0000003-0000004.safetensors",
        ] {
            assert!(is_told(path), "{path}");
        }
        for path in [
            "rank_0/meta.json",
            "rank_3/.lock",
            "transform_succeed_rank_3.txt",
        ] {
            assert!(is_note(path), "{path}");
        }
        for path in [
            "model.safetensors",
            "rank_x/a.ckpt",
            "rank_0/old/a.ckpt",
            "rank_0/notes.txt",
            "rank_0/ckpt_strategy_rank_0.ckpt",
            "meta.json",
            "strategy/ckpt_strategy_rank_0.ckpt",
            "iteration_00000040/notes.txt",
            "iteration_x/metadata.json",
            "iteration_00000040/old/model-0000000-0000004.safetensors",
        ] {
            let kept = is_weights(path) || is_note(path) || is_told(path);
            assert!(!kept, "{path}");
        }
    }
}
