//! An index of full weights against the files that it lists.

use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::HYPER_STEM;
use crate::store::{full_dir, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Names told of many.
const TOLD: usize = 3;

/// What an index and the files that it lists disagree about, and how that is settled.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Settled {
    /// Tensors that are read from another file: the file's number, and the tensor.
    pub(super) left: Vec<(u32, String)>,
    /// What is said of it.
    pub(super) notes: Vec<String>,
}

/// What is to be said of an index and of the tensors that its files have: where they disagree. Local.
pub(crate) fn index_notes(index: &Path, files: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let named = files.iter().map(|(file, tensors)| {
        let tensors = tensors.iter().map(String::as_str);
        (file.as_str(), tensors.collect())
    });
    match settle(index, named) {
        Ok(settled) => settled.notes,
        Err(fault) => vec![fault.to_string()],
    }
}

/// Compares the index at `path` with what the `files` have (each its path and tensors). Local.
///
/// # Errors
/// [`Kind::MissingShard`] for a tensor that no file has, [`Kind::Ambiguous`] for one that is in several
/// files and not in the one that the index says.
pub(super) fn settle<'a>(
    path: &Path,
    files: impl Iterator<Item = (&'a str, Vec<&'a str>)>,
) -> Result<Settled> {
    let bytes = json::bytes(path, full_dir::MAP_BYTES_MAX)?;
    let at = |fault: Fault| fault.file(path.display().to_string());
    let index = full_dir::parse_map(&bytes).map_err(at)?;
    let mut paths = Vec::new();
    let mut places: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (number, (path, tensors)) in (0u32..).zip(files) {
        paths.push(path);
        for tensor in tensors {
            places.entry(tensor).or_default().push(number);
        }
    }
    let path_of = |number: u32| paths.get(number as usize).copied().unwrap_or_default();
    let mut settled = Settled::default();
    let (mut elsewhere, mut overlaid) = (Vec::new(), Vec::new());
    for (tensor, file) in &index {
        match places.remove(tensor.as_str()).unwrap_or_default()[..] {
            [] => {
                let message = format!("says that it is in {file}, which doesn't have it");
                let fault = Fault::new(Kind::MissingShard, message).tensor(tensor.as_str());
                return Err(at(fault.hint(
                    "are index and files of one save? --weights 'GLOB' reads files without an index",
                )));
            }
            [number] if path_of(number) == file => {}
            [_] => elsewhere.push(tensor.as_str()),
            ref numbers => {
                let (chosen, others): (Vec<u32>, Vec<u32>) =
                    numbers.iter().partition(|number| path_of(**number) == file);
                if chosen.is_empty() {
                    let message = format!("says that it is in {file}; several other files have it");
                    let fault = Fault::new(Kind::Ambiguous, message).tensor(tensor.as_str());
                    return Err(at(fault.hint("are index and files of one save?")));
                }
                overlaid.push(tensor.as_str());
                let left = others.into_iter().map(|number| (number, tensor.clone()));
                settled.left.extend(left);
            }
        }
    }
    // What the job counts is no part of the model.
    let hyper = |number: &u32| path_of(*number).starts_with(HYPER_STEM);
    places.retain(|_, numbers| !numbers.iter().any(hyper));
    let unnamed: Vec<&str> = places.into_keys().collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let told = [
        (&elsewhere, "in another file than", "says, and read there"),
        (
            &overlaid,
            "in several files, and read from the one that",
            "says",
        ),
        (&unnamed, "not in", "and taken all the same"),
    ];
    for (tensors, how, end) in told.iter().filter(|(tensors, ..)| !tensors.is_empty()) {
        let count = counted(tensors.len() as u64, "tensor");
        let verb = if tensors.len() == 1 { "is" } else { "are" };
        let note = format!(
            "{count} ({}) {verb} {how} {name} {end}",
            first(tensors, TOLD)
        );
        settled.notes.push(note);
    }
    Ok(settled)
}
