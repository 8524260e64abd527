//! What is in the files of a distributed checkpoint: entries by file, and what each chunk's archive says.

use super::content::Content;
use super::flat::Run;
use super::metadata::Metadata;
use crate::catalog::{Entry, FileSchema, Held, Part};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::directory::Own;
use crate::store::formats::pickle;
use crate::store::formats::torch::{Saved, Shown, shown, tensor};
use crate::store::io::ReadFile;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What stands between a tensor's name and where the chunk of it begins.
const CHUNK: char = '\u{1f}';
/// Longest value that is looked into.
const VALUE_BYTES_MAX: u64 = 1 << 20;
/// Longest text of a value that is shown.
const SHOWN_BYTES_MAX: usize = 4096;

/// By file what is in it.
pub(super) fn by_file(metadata: Metadata) -> BTreeMap<String, Content> {
    let mut files: BTreeMap<String, Content> = BTreeMap::new();
    for (name, tensor) in metadata.tensors {
        let name: Arc<str> = name.into();
        let several = tensor.chunks.len() > 1;
        for (region, lies) in tensor.chunks {
            let content = files.entry(lies.file).or_default();
            let number = u32::try_from(content.entries.len()).unwrap_or(u32::MAX);
            let mut own = name.clone();
            if several {
                let at: Vec<String> = region.offset.iter().map(u64::to_string).collect();
                own = format!("{name}{CHUNK}{}", at.join(".")).into();
                let part = Part {
                    of: name.clone(),
                    full: tensor.shape.clone(),
                    offset: region.offset,
                    strides: Vec::new(),
                };
                content.parts.insert(number, part);
            }
            content.runs.extend(lies.run.map(|run| (number, run)));
            content.entries.push(Entry {
                name: own,
                dtype: tensor.dtype,
                shape: region.shape,
                segments: vec![lies.bytes],
            });
        }
    }
    for (name, lies) in metadata.values {
        let content = files.entry(lies.file).or_default();
        content.values.push((name, lies.bytes));
    }
    files
}

/// The structure of `file`, called `name` inside the checkpoint. Local.
///
/// # Errors
/// [`Kind::Corrupt`] if a chunk is something else than is said of it, [`Kind::Io`].
pub(super) fn structure(own: &Own, name: &str, file: &ReadFile) -> Result<FileSchema> {
    let content = own.contents.get(name).cloned().unwrap_or_default();
    let (mut entries, mut held) = (content.entries, Held::default());
    for (number, entry) in (0u32..).zip(&mut entries) {
        let mut part = content.parts.get(&number).cloned();
        let tensor = part.as_ref().map_or(&entry.name, |part| &part.of).clone();
        let at = |fault: Fault| fault.tensor(&*tensor);
        let strides = settle(entry, content.runs.get(&number), file).map_err(at)?;
        match (&mut part, strides) {
            (None, None) => {}
            (None, Some(strides)) => {
                part = Some(Part::whole(tensor.clone(), entry.shape.clone(), strides));
            }
            (Some(part), strides) => {
                let width = u64::from(entry.dtype.bits() / 8);
                let usual = || {
                    entry
                        .shape
                        .strides()
                        .iter()
                        .map(|stride| stride * width)
                        .collect()
                };
                part.strides = strides.unwrap_or_else(usual);
            }
        }
        held.parts.extend(part.map(|part| (number, part)));
    }
    for (name, range) in content.values {
        let told = value(file, range);
        held.values.insert(name, told);
    }
    let schema = FileSchema::new(entries, BTreeMap::new(), Vec::new(), file.size())?;
    schema.holding(held)
}

/// Puts the bytes of the tensor in an entry's archive, or of that `run` of it, into the place of the archive's;
/// gives its strides in bytes, if it doesn't lie row after row.
fn settle(entry: &mut Entry, run: Option<&Run>, file: &ReadFile) -> Result<Option<Vec<u64>>> {
    let range = entry.segments.first().cloned().unwrap_or_default();
    if range.end > file.size() {
        let message = format!(
            "is at bytes {} to {}, the file has {} (truncated?)",
            range.start,
            range.end,
            file.size()
        );
        return Err(Fault::new(Kind::Corrupt, message));
    }
    let saved = Saved::open(file, range)?;
    let pickle = pickle::read(&saved.pickle)?;
    let none = || Fault::new(Kind::Corrupt, "its archive has no tensor");
    let stored = tensor(&pickle, pickle.root())?.ok_or_else(none)?;
    // One piece without elements stands for all of them.
    let empty = stored.shape.0.contains(&0) && entry.shape.0.contains(&0);
    let due = run.map_or(&entry.shape, |run| &run.shape);
    if stored.dtype != entry.dtype || (stored.shape != *due && !empty) {
        let message = format!(
            ".metadata says {}{due}, its archive has {}{}",
            entry.dtype, stored.dtype, stored.shape
        );
        return Err(Fault::new(Kind::Corrupt, message));
    }
    if due.bytes(entry.dtype)? < stored.window.end - stored.window.start {
        return Err(Fault::new(Kind::Corrupt, "its archive is smaller than it"));
    }
    let mut window = saved.window(&stored)?;
    if let Some(run) = run {
        if stored.strides.is_some() {
            let message = "is a run of elements that don't lie one after the other";
            return Err(Fault::new(Kind::Corrupt, message));
        }
        window.start += run.first * u64::from(entry.dtype.bits() / 8);
        window.end = window.start + entry.bytes();
    }
    entry.segments = vec![window];
    saved.sound()?;
    Ok(stored.strides)
}

/// A value as text: as JSON if it is plain, else what it is.
fn value(file: &ReadFile, range: Range<u64>) -> String {
    let length = range.end.saturating_sub(range.start);
    let other = format!("<{length} bytes>");
    if length > VALUE_BYTES_MAX || range.end > file.size() {
        return other;
    }
    let told = (|| -> Result<String> {
        let saved = Saved::open(file, range)?;
        let pickle = pickle::read(&saved.pickle)?;
        Ok(match shown(&pickle, pickle.root(), 0)? {
            Shown::Plain(json) => json.to_string(),
            Shown::Kind(kind) => format!("<{kind}>"),
        })
    })();
    // What can't be read is carried all the same.
    let told = told.unwrap_or(other);
    match told.char_indices().nth(SHOWN_BYTES_MAX) {
        Some((end, _)) => format!("{}…", &told[..end]),
        None => told,
    }
}
