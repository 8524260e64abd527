//! HyperParallel's distributed checkpoints as a row of the table: `.metadata`, and files of safetensors that have
//! parts of tensors, each under a key of its own.

use super::content::Content;
use super::format::interrupted;
use super::hyper_metadata::{MODULE, parse};
use super::ranks::by_rank;
use crate::catalog::{Entry, FileSchema, Held, Part};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::directory::{DirectoryFormat, Names, Own, RankFiles, Text, has};
use crate::store::formats::handle::Format;
use crate::store::formats::row::Start;
use crate::store::io::{self, ReadFile, Standing};
use std::collections::BTreeMap;
use std::path::Path;

/// The file that tells of all, and the most bytes of it that are read.
const METADATA: &str = ".metadata";
const METADATA_BYTES_MAX: u64 = 512 << 20;

/// Such a checkpoint.
pub(in crate::store::formats) struct HyperParallel;

/// Whether a file of this name has tensors: `_rank0_.safetensors`.
fn is_file(name: &str) -> bool {
    name.starts_with("_rank") && name.ends_with("_.safetensors")
}

/// What lies in each file.
fn contents(bytes: &[u8]) -> Result<BTreeMap<String, Content>> {
    parse(bytes).map_err(|fault| fault.file(METADATA))
}

impl DirectoryFormat for HyperParallel {
    fn name(&self) -> &'static str {
        "hyper-parallel"
    }

    fn called(&self) -> &'static str {
        "a distributed checkpoint of HyperParallel"
    }

    fn about(&self) -> &'static str {
        "HyperParallel's distributed checkpoint: .metadata, and _rank<n>_.safetensors with parts of tensors"
    }

    fn recognise(&self, path: &Path, names: &Names, _: Option<&str>) -> Result<Option<String>> {
        // A node may have its own ranks' files alone; a damaged `.metadata` is told when it is read.
        let mut files = names.iter().filter(|(_, folder)| !folder);
        if files.any(|(name, _)| is_file(name)) {
            return Ok(Some(String::new()));
        }
        if !has(names, METADATA, false) {
            return Ok(None);
        }
        let file = ReadFile::open(&path.join(METADATA))?;
        let ours = Start::of(&file, |start| start.with(&[0x80]) && start.has(MODULE))?;
        Ok(ours.then(String::new))
    }

    fn last(&self, _: &Path) -> Result<(Option<u64>, &'static str)> {
        Ok((None, METADATA))
    }

    fn list(&self, place: &Path) -> Result<RankFiles> {
        let path = place.join(METADATA);
        if io::standing(&path)? != Standing::File {
            let names = io::list(place)?.into_iter();
            let files = names.filter(|(name, folder)| !folder && is_file(name));
            return Ok(by_rank(files.map(|(name, _)| name)));
        }
        let bytes = ReadFile::open(&path)?.read_all(METADATA_BYTES_MAX)?;
        let at = |fault: Fault| fault.file(path.display().to_string());
        Ok(by_rank(parse(&bytes).map_err(at)?.into_keys()))
    }

    fn texts(&self) -> &'static [Text] {
        &[(METADATA, METADATA_BYTES_MAX)]
    }

    fn read(&self, texts: &[Option<Vec<u8>>]) -> Result<Own> {
        let Some(Some(bytes)) = texts.first() else {
            return Err(interrupted());
        };
        let contents = contents(bytes)?;
        Ok(Own {
            files: Some(by_rank(contents.keys().cloned())),
            contents,
            ..Own::default()
        })
    }

    fn tells_structure(&self) -> bool {
        true
    }

    fn structure(&self, own: &Own, name: &str, file: &ReadFile) -> Result<Option<FileSchema>> {
        let named = |fault: Fault| fault.file(file.path().display().to_string());
        let read = Format::SAFETENSORS.read(file)?;
        let content = own.contents.get(name).cloned().unwrap_or_default();
        structure(content, &read).map(Some).map_err(named)
    }

    fn check_unlisted(&self, _: &[&str]) -> Result<()> {
        Err(interrupted())
    }

    fn files(&self) -> Format {
        Format::SAFETENSORS
    }

    fn is_written(&self) -> bool {
        false
    }

    fn is_part(&self, name: &str, _: &FileSchema) -> bool {
        is_file(name)
    }

    fn holds(&self, _: &str) -> bool {
        false
    }
}

/// The structure of a file: what `.metadata` says of it, at the places that its header tells.
fn structure(content: Content, read: &FileSchema) -> Result<FileSchema> {
    let (mut entries, mut held) = (Vec::new(), Held::default());
    for (number, (entry, key)) in (0u32..).zip(content.entries.into_iter().zip(&content.keys)) {
        let mut part = content.parts.get(&number).cloned();
        let tensor = part.as_ref().map_or(&entry.name, |part| &part.of).clone();
        let at = |fault: Fault| fault.tensor(&*tensor);
        let found = read.get(key).ok_or_else(|| {
            let message = format!(
                "{METADATA} says that the file has it as '{}'",
                key.escape_default()
            );
            at(Fault::new(Kind::MissingShard, message))
        })?;
        if (found.dtype, &found.shape) != (entry.dtype, &entry.shape) {
            let message = format!(
                "{METADATA} says {}{}, the file has {}{}",
                entry.dtype, entry.shape, found.dtype, found.shape
            );
            return Err(at(Fault::new(Kind::Corrupt, message)));
        }
        if let Some(part) = &mut part {
            let width = u64::from(entry.dtype.bits() / 8);
            let strides = entry.shape.strides();
            part.strides = strides.iter().map(|stride| stride * width).collect();
        }
        held.parts.extend(part.map(|part: Part| (number, part)));
        entries.push(Entry {
            segments: found.segments.clone(),
            ..entry
        });
    }
    for (name, range) in content.values {
        let bytes = range.end.saturating_sub(range.start);
        held.values.insert(name, format!("<{bytes} bytes>"));
    }
    FileSchema::new(entries, BTreeMap::new(), Vec::new(), read.size)?.holding(held)
}
