//! The iterations of a checkpoint 2.0 directory: which there are, and which are complete.

use crate::fault::Result;
use crate::source::iteration::cards;
use crate::source::meta::Name;
use crate::source::saved::{Checkpoint, Survey};
use crate::store::Format;
use crate::store::checkpoint2::{
    COMMON, Common, METADATA, METADATA_BYTES_MAX, TRACKER, directory, iteration, parse,
};
use crate::store::io::{self, ReadFile, Standing};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// An iteration as a node sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    number: u64,
    epoch: Option<u64>,
    batch: Option<u64>,
    /// Rank and file.
    files: Vec<(u32, String)>,
    bytes: u64,
    modified: i128,
    why: Option<String>,
    committed: bool,
}

/// Looks through the iterations in `base`, whose entries are `names`. Local.
pub(super) fn look(base: &Path, names: &[(String, bool)], headers: bool) -> Result<Vec<Seen>> {
    let tracker = tracker(base)?;
    let numbers = names
        .iter()
        .filter(|(name, folder)| *folder && name.starts_with("iteration_"))
        .filter_map(|(name, _)| iteration(name).filter(|number| directory(*number) == *name));
    numbers
        .map(|number| look_at(base, number, tracker, headers))
        .collect()
}

fn tracker(base: &Path) -> Result<Option<u64>> {
    let path = base.join(TRACKER);
    if io::standing(&path)? != Standing::File {
        return Ok(None);
    }
    let text = ReadFile::open(&path)?.read_all(64).unwrap_or_default();
    Ok(iteration(&String::from_utf8_lossy(&text)))
}

fn look_at(base: &Path, number: u64, tracker: Option<u64>, headers: bool) -> Result<Seen> {
    let place = base.join(directory(number));
    let read = |name: &str| -> Option<Vec<u8>> {
        ReadFile::open(&place.join(name))
            .ok()?
            .read_all(METADATA_BYTES_MAX)
            .ok()
    };
    let common: Common = read(COMMON)
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut seen = Seen {
        number,
        epoch: common.epoch_num,
        batch: common.global_batch_size,
        files: Vec::new(),
        bytes: 0,
        modified: 0,
        why: None,
        committed: tracker == Some(number),
    };
    let metadata = read(METADATA).and_then(|bytes| parse(&bytes).ok().flatten());
    match metadata {
        Some(metadata) => {
            for (rank, files) in metadata.files {
                seen.files
                    .extend(files.into_iter().map(|file| (rank, file)));
            }
        }
        None => {
            let names = io::list(&place)?;
            let weights = names
                .into_iter()
                .filter(|(name, folder)| !folder && Format::of(name).is_some());
            seen.files = weights.map(|(name, _)| (0, name)).collect();
            let several = |(_, file): &(u32, String)| cards(file).is_some_and(|cards| cards > 1);
            if seen.files.iter().any(several) {
                seen.why = Some(format!("{METADATA} is missing"));
            }
        }
    }
    if seen.files.is_empty() {
        seen.why = Some("it has no files".into());
    }
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
        if headers {
            let read = ReadFile::open(&path).and_then(|open| Format::recognise(&open)?.read(&open));
            if let Err(fault) = read {
                seen.why
                    .get_or_insert_with(|| format!("rank {rank}: {file}: {}", fault.message));
            }
        }
    }
    if tracker.is_none_or(|last| number > last) {
        seen.why
            .get_or_insert_with(|| format!("{TRACKER} doesn't name it yet"));
    }
    Ok(seen)
}

/// The survey of a checkpoint 2.0 directory. The last committed iteration takes the part of the
/// ranks' records.
pub(super) fn survey(base: &Path, seen: &[Seen]) -> Survey {
    let name = |seen: &Seen| Name {
        repeat: None,
        epoch: seen.epoch.unwrap_or(seen.number),
        step: seen.number,
        prefix: String::new(),
        ranked: false,
        iteration: true,
        extension: "safetensors".into(),
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
        let place = directory(iteration.number);
        survey.checkpoints.push(Checkpoint {
            name: name(iteration),
            step: iteration.number,
            ranks,
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
        });
    }
    survey.checkpoints.sort_by(|a, b| a.name.cmp(&b.name));
    survey
}
