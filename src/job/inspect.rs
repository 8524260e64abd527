//! What is in files, from their headers. Local: one process, no MPI.

use crate::catalog::Entry;
use crate::fault::{Fault, Kind, Result};
use crate::source::{Listed, Listing, chosen, list_files};
use crate::store::Format;
use crate::store::formats::refuse_directory;
use crate::store::io::ReadFile;
use crate::tensor::shape::Shape;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The tensors of full weights: names and full shapes. Local.
///
/// # Errors
/// As `discover`.
pub fn full_tensors(path: &Path) -> Result<Vec<(String, Vec<u64>)>> {
    let inspected = inspect(path, None, None)?;
    if inspected.ranks > 1 {
        let fault = Fault::new(Kind::Usage, "is distributed; full weights are needed here");
        return Err(fault.file(path.display().to_string()));
    }
    let tensors = inspected.files.into_iter().flat_map(|file| file.tensors);
    Ok(tensors
        .map(|tensor| (tensor.name, tensor.shape.0))
        .collect())
}

/// A file as `inspect` shows it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InspectedFile {
    /// Its path inside what was inspected.
    pub path: String,
    /// The rank it belongs to.
    pub rank: u32,
    /// Its size.
    pub bytes: u64,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
    /// Its tensors, in file order.
    pub tensors: Vec<InspectedTensor>,
}

/// A tensor as `inspect` shows it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InspectedTensor {
    /// Its name.
    pub name: String,
    /// Its element type, as safetensors spells it.
    pub dtype: &'static str,
    /// Its shape in this file.
    pub shape: Shape,
    /// Its bytes.
    pub bytes: u64,
}

/// What is at a path.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Inspected {
    /// Number of ranks.
    pub ranks: usize,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// The files.
    pub files: Vec<InspectedFile>,
}

/// Reads the headers of the files at `path` that a job with this `--file-suffix` would read. Local.
///
/// # Errors
/// [`Kind::Corrupt`], [`Kind::MissingShard`] and others, as `discover`.
pub fn inspect(path: &Path, suffix: Option<&str>, weights: Option<&str>) -> Result<Inspected> {
    let listing = match chosen(path, suffix, weights) {
        Err(fault) if fault.kind == Kind::Ambiguous => {
            // Files of full weights can be shown without a map of them; of ranks' files one is meant.
            let all = list_files(path, None, None);
            let full = |all: &Listing| {
                all.ranks
                    .values()
                    .flatten()
                    .all(|file| !file.path.contains('/'))
            };
            all.ok().filter(full).ok_or(fault)?
        }
        other => other?,
    };
    if listing.ranks.is_empty() {
        refuse_directory(path)?;
        let fault = Fault::new(Kind::MissingShard, "holds no weight files");
        return Err(fault.file(path.display().to_string()));
    }
    let base = if listing.single_file {
        path.parent().unwrap_or(Path::new(""))
    } else {
        path
    };
    let mut inspected = Inspected {
        ranks: listing.ranks.len(),
        tensor_bytes: 0,
        files: Vec::new(),
    };
    for (rank, files) in &listing.ranks {
        for Listed { path: name, .. } in files {
            let file = ReadFile::open(&base.join(name))?;
            let schema = Format::recognise(&file)?.read(&file)?;
            let tensors: Vec<InspectedTensor> = schema.entries.iter().map(tensor_shown).collect();
            inspected.tensor_bytes += tensors.iter().map(|tensor| tensor.bytes).sum::<u64>();
            inspected.files.push(InspectedFile {
                path: name.clone(),
                rank: *rank,
                bytes: schema.size,
                metadata: schema.metadata,
                tensors,
            });
        }
    }
    Ok(inspected)
}

fn tensor_shown(entry: &Entry) -> InspectedTensor {
    InspectedTensor {
        name: entry.name.to_string(),
        dtype: entry.dtype.safetensors_name(),
        shape: entry.shape.clone(),
        bytes: entry.bytes(),
    }
}
