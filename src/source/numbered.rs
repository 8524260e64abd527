//! The checkpoints by number of a directory that tells their layouts: which there are, and which are
//! complete.

use crate::fault::Result;
use crate::plan::state::is_state;
use crate::source::directory;
use crate::source::listed::Inner;
use crate::source::meta::Name;
use crate::source::saved::{Checkpoint, Survey};
use crate::store::io::{self, ReadFile, Standing};
use crate::store::{Directory, Format};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How the names begin of what other trainers' optimizers keep.
const OPTIMIZER: &str = "optimizer.";

/// A checkpoint as a node sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Numbered {
    format: Directory,
    number: u64,
    epoch: Option<u64>,
    batch: Option<u64>,
    /// Rank and file.
    files: Vec<(u32, String)>,
    bytes: u64,
    modified: i128,
    states: bool,
    why: Option<String>,
    committed: bool,
}

/// Looks through those in `base`, whose entries are `names`. Local.
pub(super) fn look(base: &Path, names: &[(String, bool)], headers: bool) -> Result<Vec<Numbered>> {
    let mut seen = Vec::new();
    for format in Directory::all() {
        let last = format.last(base)?;
        for number in format.numbers(names) {
            let place = base.join(format.directory(number));
            if of(&place, number)? == Some(format) {
                seen.push(look_at(base, format, number, last, headers)?);
            }
        }
    }
    Ok(seen)
}

/// Which of the formats that call the directory of checkpoint `number` as `place` is called has it: the one that
/// knows it by what is in it, or else the first. Local.
fn of(place: &Path, number: u64) -> Result<Option<Directory>> {
    let name = place.file_name().unwrap_or_default();
    let inside = io::list(place)?;
    let called = Directory::all().filter(|format| *format.directory(number) == *name);
    let called: Vec<Directory> = called.collect();
    let knows = |format: &Directory| {
        let known = format.recognise(place, &inside, None);
        known.is_ok_and(|directory| directory.is_some_and(|inside| inside.is_empty()))
    };
    let found = called.iter().find(|format| knows(format));
    Ok(found.or(called.first()).copied())
}

/// Looks at one; `last` is the last complete one, and the file that tells it. Local.
fn look_at(
    base: &Path,
    format: Directory,
    number: u64,
    (last, told_by): (Option<u64>, &str),
    headers: bool,
) -> Result<Numbered> {
    let inside = format!("{}/", format.directory(number));
    let place = base.join(&inside);
    let glimpse = format.glimpse(&place)?;
    let mut seen = Numbered {
        format,
        number,
        epoch: glimpse.progress.epoch_num,
        batch: glimpse.progress.global_batch_size,
        files: glimpse.files,
        bytes: 0,
        modified: 0,
        states: false,
        why: glimpse.why,
        committed: last == Some(number),
    };
    if seen.files.is_empty() {
        seen.why.get_or_insert_with(|| "it has no files".into());
    }
    // What can't be told has been said by the glimpse.
    let directory = inside.clone();
    let listing = directory::list(base, Inner { format, directory }).unwrap_or_default();
    let told = directory::told(base, &listing).unwrap_or_default();
    // Whether it has states of an optimizer.
    let read = |file: &str, open: &ReadFile| {
        let path = format!("{inside}{file}");
        let schema = match directory::structure(told.as_ref(), &listing, &path, open)? {
            Some(schema) => schema,
            None if format.tells_structure() => return Ok(false),
            None => Format::recognise(open)?.read(open)?,
        };
        let mut names = schema.entries.iter().map(|entry| &entry.name);
        Ok(names.any(|name| is_state(name) || name.starts_with(OPTIMIZER)))
    };
    for (rank, file) in &seen.files {
        let path = place.join(file);
        if io::standing(&path)? != Standing::File {
            seen.why
                .get_or_insert_with(|| format!("rank {rank}: {file} is missing"));
            continue;
        }
        let (bytes, modified) = io::stamp(&path)?.unwrap_or_default();
        seen.bytes += bytes;
        seen.modified = seen.modified.max(modified);
        if headers && seen.why.is_none() {
            match ReadFile::open(&path).and_then(|open| read(file, &open)) {
                Ok(states) => seen.states |= states,
                Err(fault) => {
                    let tensor = fault.tensor.map(|tensor| format!("{tensor}: "));
                    let tensor = tensor.unwrap_or_default();
                    let why = format!("rank {rank}: {file}: {tensor}{}", fault.message);
                    seen.why = Some(why);
                }
            }
        }
    }
    if last.is_none_or(|last| number > last) {
        seen.why
            .get_or_insert_with(|| format!("{told_by} doesn't name it yet"));
    }
    Ok(seen)
}

/// The survey of such a directory. The last committed iteration takes the part of the
/// ranks' records.
pub(super) fn survey(base: &Path, seen: &[Numbered]) -> Survey {
    let name = |seen: &Numbered| Name {
        repeat: None,
        epoch: seen.epoch.unwrap_or(seen.number),
        step: seen.number,
        prefix: String::new(),
        ranked: false,
        iteration: true,
        extension: seen.format.files().extension().into(),
    };
    let mut survey = Survey {
        directory: base.to_path_buf(),
        ..Survey::default()
    };
    for iteration in seen {
        let mut ranks: Vec<u32> = iteration.files.iter().map(|(rank, _)| *rank).collect();
        ranks.dedup();
        survey.ranks = survey.ranks.max(ranks.last().map_or(0, |last| last + 1));
        if iteration.committed {
            survey.metas.insert(0, name(iteration));
        }
        let place = iteration.format.directory(iteration.number);
        survey.checkpoints.push(Checkpoint {
            name: name(iteration),
            step: iteration.number,
            epoch: iteration.epoch,
            ranks,
            states: iteration.states,
            why: iteration.why.clone(),
            bytes: iteration.bytes,
            files: iteration
                .files
                .iter()
                .map(|(_, file)| format!("{place}/{file}"))
                .collect(),
            redundancy_removed: None,
            global_batch_size: iteration.batch,
            modified: iteration.modified,
            times: Vec::new(),
            directory: Some(place),
        });
    }
    survey.checkpoints.sort_by(|a, b| a.name.cmp(&b.name));
    survey
}
