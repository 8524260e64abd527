//! A distributed checkpoint that is written: which rank writes what, and `.metadata`.

use super::archive::around;
use super::emit::Emit;
use super::states::{FILES, METADATA as MODULE};
use crate::catalog::{Entry, FileSchema};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::laid::{DirectoryFile, Laid, LaidTensor};
use crate::store::formats::torch::names_of;
use crate::store::formats::values::{PathPart, Values};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Lays out a file for `tensors`: an archive each, one behind the other.
///
/// # Errors
/// [`Kind::Dtype`] for a type that torch doesn't know, [`Kind::Shape`].
pub(super) fn design(
    tensors: &[(Arc<str>, Dtype, Shape)],
    metadata: &BTreeMap<String, String>,
) -> Result<FileSchema> {
    let mut sorted: Vec<&(Arc<str>, Dtype, Shape)> = tensors.iter().collect();
    sorted.sort_by(|a, b| (a.1.file_order(), &a.0).cmp(&(b.1.file_order(), &b.0)));
    let (mut entries, mut literals, mut at) = (Vec::new(), Vec::new(), 0u64);
    for (name, dtype, shape) in sorted {
        let around = around(*dtype, shape).map_err(|fault| fault.tensor(&**name))?;
        let begin = at + around.before.len() as u64;
        let end = begin.checked_add(shape.bytes(*dtype)?);
        let after = around.after.len() as u64;
        let large = || Fault::new(Kind::Shape, "the file would be too large").tensor(&**name);
        let end = end
            .filter(|end| end.checked_add(after).is_some())
            .ok_or_else(large)?;
        literals.push((at, around.before));
        literals.push((end, around.after));
        entries.push(Entry {
            name: name.clone(),
            dtype: *dtype,
            shape: shape.clone(),
            segments: std::iter::once(begin..end).collect(),
        });
        at = end + after;
    }
    FileSchema::new(entries, metadata.clone(), literals, at)
}

/// The files of all ranks: each cell of a tensor is in that of the first of its holders.
pub(in crate::store::formats) fn arrange(laid: &Laid) -> Vec<DirectoryFile<'_>> {
    let mut files: BTreeMap<u32, Vec<&LaidTensor>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for tensor in laid.stages.iter().flatten() {
        if !known.insert(&*tensor.name) {
            continue;
        }
        let Some(layout) = &tensor.layout else {
            files.entry(tensor.first_rank).or_default().push(tensor);
            continue;
        };
        for rank in 0..layout.ranks() {
            if layout.holders(&layout.cell(rank)).next() == Some(rank) {
                let file = files.entry(tensor.first_rank + rank);
                file.or_default().push(tensor);
            }
        }
    }
    for (rank, tensors) in &laid.private {
        for tensor in tensors {
            if known.insert(&*tensor.name) {
                files.entry(*rank).or_default().push(tensor);
            }
        }
    }
    let file = |(rank, tensors)| DirectoryFile {
        rank,
        path: format!("__{rank}_0.distcp"),
        tensors,
        metadata: BTreeMap::new(),
    };
    files.into_iter().map(file).collect()
}

/// A chunk of a tensor: its offsets, its sizes, its file, and the bytes of its archive.
type Chunk<'a> = (Vec<u64>, &'a Shape, &'a str, Range<u64>);

/// The file of what is no tensor.
pub(in crate::store::formats) const VALUES: &str = "__0_1.distcp";

/// The values' archives in one, and where each is.
pub(in crate::store::formats) fn one_behind_another(values: &Values) -> (Vec<u8>, Vec<Range<u64>>) {
    let (mut all, mut places) = (Vec::new(), Vec::new());
    for archive in values.archives.values() {
        let begin = all.len() as u64;
        all.extend_from_slice(archive);
        places.push(begin..all.len() as u64);
    }
    (all, places)
}

/// `.metadata`, with values at these places of [`VALUES`], and with the `paths` that names were made of, which torch's
/// own planner wants.
///
/// # Errors
/// [`Kind::Dtype`], [`Kind::Unsupported`]; [`Kind::Ambiguous`] for a value that is called as a tensor.
pub(in crate::store::formats) fn metadata(
    files: &[(DirectoryFile<'_>, Arc<FileSchema>)],
    values: &Values,
    places: &[Range<u64>],
    paths: bool,
) -> Result<Vec<u8>> {
    let mut tensors: BTreeMap<&str, (&LaidTensor, Vec<Chunk<'_>>)> = BTreeMap::new();
    for (file, schema) in files {
        for tensor in &file.tensors {
            let chunk = chunk(tensor, file, schema).map_err(|fault| fault.tensor(&*tensor.name))?;
            let known = tensors
                .entry(&tensor.name)
                .or_insert_with(|| (tensor, Vec::new()));
            // Pieces without elements begin where others do: one of them tells it all.
            let begun = || known.1.iter().any(|(offset, ..)| *offset == chunk.0);
            if chunk.1.0.contains(&0) && begun() {
                continue;
            }
            known.1.push(chunk);
        }
    }
    let both = values
        .archives
        .keys()
        .find(|name| tensors.contains_key(name.as_str()));
    if let Some(name) = both {
        let fault = Fault::new(Kind::Ambiguous, "a tensor and a value have this name");
        return Err(fault.tensor(name.as_str()));
    }
    let mut emit = Emit::new();
    emit.object(MODULE, "Metadata")
        .raw(b"}(")
        .text("state_dict_metadata")?
        .raw(b"}(");
    for name in values.archives.keys() {
        emit.text(name)?.object(MODULE, "BytesStorageMetadata");
    }
    for (name, (tensor, chunks)) in &tensors {
        emit.text(name)?;
        described(&mut emit, tensor, chunks).map_err(|fault| fault.tensor(*name))?;
    }
    emit.raw(b"u").text("planner_data")?;
    if paths {
        emit.raw(b"}(");
        let names = values.archives.keys().map(String::as_str);
        for name in names.chain(tensors.keys().copied()) {
            path(emit.text(name)?, name, values)?;
        }
        emit.raw(b"u");
    } else {
        emit.raw(b"N");
    }
    emit.text("storage_data")?.raw(b"}(");
    for (name, bytes) in values.archives.keys().zip(places) {
        index(&mut emit, name, None)?;
        lies(&mut emit, VALUES, bytes)?;
    }
    for (name, (_, chunks)) in &tensors {
        for (number, (offset, _, file, bytes)) in (0u64..).zip(chunks) {
            index(&mut emit, name, Some((offset, number)))?;
            lies(&mut emit, file, bytes)?;
        }
    }
    emit.raw(b"u").text("storage_meta")?.raw(b"N");
    emit.text("version")?.text("1.0.0")?.raw(b"ub");
    Ok(emit.finished())
}

/// The path that a flat name was made of.
fn path(emit: &mut Emit, name: &str, values: &Values) -> Result<()> {
    emit.raw(b"(");
    match values.paths.get(name) {
        None => {
            emit.text(name)?;
        }
        Some(parts) => {
            for part in parts {
                match part {
                    PathPart::Key(key) => emit.text(key)?,
                    PathPart::Place(place) => emit.count(*place),
                };
            }
        }
    }
    emit.raw(b"t");
    Ok(())
}

/// What a chunk is known by, or without one a value.
fn index(emit: &mut Emit, name: &str, chunk: Option<(&[u64], u64)>) -> Result<()> {
    emit.object(MODULE, "MetadataIndex").raw(b"}(");
    emit.text("fqn")?.text(name)?.text("offset")?;
    match chunk {
        None => emit.raw(b"N").text("index")?.raw(b"N"),
        Some((offset, number)) => emit.size(offset).text("index")?.count(number),
    };
    emit.raw(b"ub");
    Ok(())
}

/// Where it lies.
fn lies(emit: &mut Emit, file: &str, bytes: &Range<u64>) -> Result<()> {
    emit.object(FILES, "_StorageInfo").raw(b"}(");
    emit.text("relative_path")?.text(file)?;
    emit.text("offset")?.count(bytes.start).text("length")?;
    emit.count(bytes.end - bytes.start).raw(b"ub");
    Ok(())
}

/// Where a rank's part of a tensor is, in the tensor and in the file.
fn chunk<'a>(
    tensor: &'a LaidTensor,
    file: &'a DirectoryFile<'_>,
    schema: &FileSchema,
) -> Result<Chunk<'a>> {
    let none = || Fault::new(Kind::Internal, "isn't in the file that it is laid out in");
    let entry = schema.get(&tensor.name).ok_or_else(none)?;
    let data = entry.segments.first().cloned().ok_or_else(none)?;
    let around = around(entry.dtype, &entry.shape)?;
    let bytes = data.start - around.before.len() as u64..data.end + around.after.len() as u64;
    let name = file.path.rsplit('/').next().unwrap_or_default();
    Ok((offset(tensor, file.rank), &tensor.cell, name, bytes))
}

/// Where the part of a tensor that `rank` has begins.
pub(super) fn offset(tensor: &LaidTensor, rank: u32) -> Vec<u64> {
    let Some(layout) = &tensor.layout else {
        return vec![0; tensor.cell.0.len()];
    };
    let cell = layout.cell(rank - tensor.first_rank);
    let places = cell.iter().zip(&tensor.cell.0);
    places.map(|(number, size)| number * size).collect()
}

/// Type, shape and chunks of a tensor.
fn described(emit: &mut Emit, tensor: &LaidTensor, chunks: &[Chunk<'_>]) -> Result<()> {
    let unknown = || Fault::new(Kind::Dtype, format!("PyTorch has no {}", tensor.written));
    let (dtype, _) = names_of(tensor.written).ok_or_else(unknown)?;
    emit.object(MODULE, "TensorStorageMetadata")
        .raw(b"}(")
        .text("properties")?;
    emit.object(MODULE, "TensorProperties")
        .raw(b"(")
        .global("torch", dtype);
    emit.global("torch.serialization", "_get_layout")
        .text("torch.strided")?
        .raw(b"\x85R\x89");
    emit.global(MODULE, "_MEM_FORMAT_ENCODING")
        .raw(b"K\0\x85R\x89tb");
    emit.text("size")?
        .size(&tensor.shape())
        .text("chunks")?
        .raw(b"](");
    for (offset, sizes, ..) in chunks {
        emit.object(MODULE, "ChunkStorageMetadata")
            .raw(b"}(")
            .text("offsets")?
            .size(offset);
        emit.text("sizes")?.size(&sizes.0).raw(b"ub");
    }
    emit.raw(b"eub");
    Ok(())
}
