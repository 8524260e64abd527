//! Checkpoint 2.0 as a source, and what it needs to know to be a destination.

use crate::exchange::{World, agree, all_gather_bytes, broadcast_bytes};
use crate::fault::{Fault, Kind, Result};
use crate::source::found::SourceIteration;
use crate::source::listed::{Listed, Listing};
use crate::store::Format;
use crate::store::checkpoint2::{
    COMMON, Common, METADATA, METADATA_BYTES_MAX, TRACKER, directory, iteration, parse,
};
use crate::store::io::{self, ReadFile, Standing};
use std::path::Path;

/// Longest `common.json` that is read, in bytes.
const COMMON_BYTES_MAX: u64 = 1 << 20;

/// Whether `path`, with these entries, is a checkpoint 2.0, or has several: then the last complete
/// one, or the one that `suffix` numbers. Gives the directory inside `path`. Local.
pub(super) fn find(
    path: &Path,
    names: &[(String, bool)],
    suffix: Option<&str>,
) -> Result<Option<String>> {
    let has = |wanted: &str, folder: bool| {
        names
            .iter()
            .any(|(name, directory)| name == wanted && *directory == folder)
    };
    if has(METADATA, false) {
        let bytes = ReadFile::open(&path.join(METADATA))?.read_all(METADATA_BYTES_MAX)?;
        let parsed = parse(&bytes);
        let parsed =
            parsed.map_err(|fault| fault.file(path.join(METADATA).display().to_string()))?;
        return Ok(parsed.map(|_| String::new()));
    }
    let iterations = names.iter().any(|(name, directory)| {
        *directory && name.starts_with("iteration_") && iteration(name).is_some()
    });
    if !iterations {
        let single = path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("iteration_") && iteration(&name).is_some()
        });
        return Ok(single.then(String::new));
    }
    let missing = |message: &str| {
        Fault::new(Kind::MissingShard, message)
            .file(path.join(TRACKER).display().to_string())
            .hint("give the directory of the iteration itself, or its number with --file-suffix")
    };
    let number = match suffix {
        Some(suffix) => {
            iteration(suffix).ok_or_else(|| missing("the suffix is no iteration's number"))?
        }
        None if has(TRACKER, false) => {
            let text = ReadFile::open(&path.join(TRACKER))?.read_all(64)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            iteration(&text).ok_or_else(|| missing("is no iteration's number"))?
        }
        None => return Err(missing("no iteration was completed: this file is missing")),
    };
    if !has(&directory(number), true) {
        return Err(missing(&format!("there is no {}", directory(number))));
    }
    Ok(Some(format!("{}/", directory(number))))
}

/// Lists the files of the checkpoint in `inner` that this node sees. Local.
pub(super) fn list(path: &Path, inner: String) -> Result<Listing> {
    let base = path.join(&inner);
    let mut listing = Listing::default();
    let metadata = base.join(METADATA);
    if io::standing(&metadata)? == Standing::File {
        let bytes = ReadFile::open(&metadata)?.read_all(METADATA_BYTES_MAX)?;
        let parsed = parse(&bytes).map_err(|fault| fault.file(metadata.display().to_string()))?;
        for (rank, files) in parsed.map(|metadata| metadata.files).unwrap_or_default() {
            for file in files {
                if io::standing(&base.join(&file))? == Standing::File {
                    let file = Listed::new(path, format!("{inner}{file}"))?;
                    listing.ranks.entry(rank).or_default().push(file);
                }
            }
        }
    } else {
        for (file, folder) in io::list(&base)? {
            if !folder && Format::of(&file) == Some(Format::SAFETENSORS) {
                let file = Listed::new(path, format!("{inner}{file}"))?;
                listing.ranks.entry(0).or_default().push(file);
            }
        }
    }
    listing.inner = Some(inner);
    Ok(listing)
}

/// Checks that files that no `metadata.json` describes are one card's: the trainer writes it after the
/// files of several. Local.
///
/// # Errors
/// [`Kind::MissingShard`] naming the first of several cards' files.
pub(super) fn check_alone(base: &Path, listing: &Listing) -> Result<()> {
    let mut files = listing.ranks.values().flatten();
    let several = files.find(|file| cards(&file.path).is_some_and(|cards| cards > 1));
    let (Some(file), Some(inner)) = (several, &listing.inner) else {
        return Ok(());
    };
    let message = format!(
        "is missing, and {} is one of {} files: the save was interrupted",
        file.path,
        cards(&file.path).unwrap_or_default()
    );
    Err(Fault::new(Kind::MissingShard, message)
        .file(base.join(inner).join(METADATA).display().to_string())
        .hint("`shardloom checkpoints list` shows which iterations are complete"))
}

/// The number of files of its kind, which the name of a checkpoint 2.0's file says.
pub(super) fn cards(path: &str) -> Option<u64> {
    let mut parts = path.strip_suffix(".safetensors")?.rsplit('-');
    let (count, index) = (parts.next()?, parts.next()?);
    let number = |text: &str| {
        let ok = text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_digit());
        ok.then(|| text.parse().ok())?
    };
    let _: u64 = number(index)?;
    number(count)
}

/// What the checkpoint in `listing` tells of itself; `None` for another kind. Collective.
///
/// # Errors
/// The same on every process: [`Kind::MissingShard`] if it names a file that nobody sees.
pub(super) fn read(
    world: &World,
    base: &Path,
    listing: &Listing,
) -> Result<Option<SourceIteration>> {
    let Some(inner) = &listing.inner else {
        return Ok(None);
    };
    let place = base.join(inner);
    let metadata = shared_file(world, &place.join(METADATA), METADATA_BYTES_MAX)?;
    let common = shared_file(world, &place.join(COMMON), COMMON_BYTES_MAX)?;
    let read = || {
        let metadata = metadata.as_deref().map(parse).transpose()?.flatten();
        if metadata.is_none() {
            check_alone(base, listing)?;
        }
        if let Some(metadata) = &metadata {
            for (rank, file) in metadata
                .files
                .iter()
                .flat_map(|(r, files)| files.iter().map(move |f| (r, f)))
            {
                let path = format!("{inner}{file}");
                let here = listing
                    .ranks
                    .get(rank)
                    .is_some_and(|files| files.iter().any(|file| file.path == path));
                if !here {
                    return Err(Fault::new(
                        Kind::MissingShard,
                        "metadata.json names this file; no process finds it",
                    )
                    .rank(*rank)
                    .file(place.join(file).display().to_string()));
                }
            }
        }
        let common = common
            .as_deref()
            .map(serde_json::from_slice::<Common>)
            .transpose();
        let common = common.map_err(|error| {
            Fault::new(Kind::Corrupt, format!("can't be read: {error}"))
                .file(place.join(COMMON).display().to_string())
        })?;
        Ok(SourceIteration {
            strategy: metadata.map(|metadata| metadata.strategy),
            common: common.unwrap_or_default(),
        })
    };
    agree(world, read()).map(Some)
}

/// A file that some process sees, on all. Collective.
fn shared_file(world: &World, path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
    let seen = agree(world, io::standing(path))? == Standing::File;
    let all = all_gather_bytes(world, &[u8::from(seen)])?;
    let Some(first) = all.iter().position(|seen| seen == &[1]) else {
        return Ok(None);
    };
    let first = u32::try_from(first).unwrap_or(u32::MAX);
    let bytes = if world.process() == first {
        ReadFile::open(path).and_then(|file| file.read_all(limit_bytes))
    } else {
        Ok(Vec::new())
    };
    broadcast_bytes(world, first, agree(world, bytes)?).map(Some)
}
