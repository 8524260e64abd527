//! Distributed checkpoints as rows of the table.

use super::chunks::{by_file, structure};
use super::metadata::{Metadata, parse};
use super::ranks::by_rank;
use super::write::{VALUES, arrange, metadata, one_behind_another};
use crate::catalog::{FileSchema, SmallFile};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::dcp::row::Distcp;
use crate::store::formats::directory::{
    DirectoryFormat, Glimpse, Names, Own, RankFiles, Text, each, has,
};
use crate::store::formats::handle::Format;
use crate::store::formats::laid::{DirectoryAsked, DirectoryFile, Laid};
use crate::store::io::{self, ReadFile, Standing};
use std::path::Path;
use std::sync::Arc;

/// The file that tells of all.
pub(in crate::store::formats) const METADATA: &str = ".metadata";
/// The first byte of a pickle.
const PICKLE: u8 = 0x80;
/// Longest one that is read.
pub(in crate::store::formats) const METADATA_BYTES_MAX: u64 = 512 << 20;

/// PyTorch's.
pub(in crate::store::formats) struct Dcp;

/// The files that `.metadata` in `place` names; without it those that are there, as on a node that has only
/// what its own ranks wrote.
fn list(place: &Path) -> Result<RankFiles> {
    let path = place.join(METADATA);
    if io::standing(&path)? != Standing::File {
        let names = io::list(place)?.into_iter();
        let files = names.filter(|(name, folder)| !folder && is_file(name));
        return Ok(by_rank(files.map(|(name, _)| name)));
    }
    let at = |fault: Fault| fault.file(path.display().to_string());
    let bytes = ReadFile::open(&path)?.read_all(METADATA_BYTES_MAX)?;
    let files = by_file(parsed(&bytes).map_err(at)?);
    Ok(by_rank(files.into_keys()))
}

/// Whether a file of this name has chunks.
fn is_file(name: &str) -> bool {
    name.ends_with(".distcp")
}

/// What `.metadata` tells, if it is one.
fn parsed(bytes: &[u8]) -> Result<Metadata> {
    if bytes.first() != Some(&PICKLE) {
        let message = "is no pickle: this PyTorch distributed checkpoint (torch.distributed) has no whole .metadata";
        let fault = Fault::new(Kind::Corrupt, message);
        return Err(fault.hint("take .metadata from a copy; without it the files can't be read"));
    }
    parse(bytes)
}

fn read(texts: &[Option<Vec<u8>>]) -> Result<Own> {
    let Some(Some(bytes)) = texts.first() else {
        return Err(interrupted());
    };
    let mut metadata = parsed(bytes).map_err(|fault| fault.file(METADATA))?;
    let paths = std::mem::take(&mut metadata.paths);
    let contents = by_file(metadata);
    let files = by_rank(contents.keys().cloned());
    Ok(Own {
        files: Some(files),
        contents,
        paths,
        ..Own::default()
    })
}

fn glimpse(place: &Path) -> Result<Glimpse> {
    let mut glimpse = Glimpse::default();
    if io::standing(&place.join(METADATA))? != Standing::File {
        glimpse.why = Some(format!("{METADATA} is missing"));
        return Ok(glimpse);
    }
    match list(place) {
        Ok(files) => glimpse.files = each(files),
        Err(fault) => glimpse.why = Some(format!("{METADATA} {}", fault.message)),
    }
    Ok(glimpse)
}

/// There is no `.metadata`.
pub(super) fn interrupted() -> Fault {
    let fault = Fault::new(Kind::MissingShard, "is missing: the save was interrupted");
    let fault = fault.hint("give the directory that has it and all files");
    fault.file(METADATA)
}

const TEXTS: &[Text] = &[(METADATA, METADATA_BYTES_MAX)];

impl DirectoryFormat for Dcp {
    fn name(&self) -> &'static str {
        "dcp"
    }

    fn called(&self) -> &'static str {
        "a PyTorch distributed checkpoint"
    }

    fn about(&self) -> &'static str {
        "PyTorch's distributed checkpoint: .metadata, and chunks in .distcp files"
    }

    fn recognise(&self, path: &Path, names: &Names, _: Option<&str>) -> Result<Option<String>> {
        // A node may have its own ranks' files alone; beside them `.metadata` may be damaged, which is told when
        // it is read.
        let mut files = names.iter().filter(|(_, folder)| !folder);
        if files.any(|(name, _)| is_file(name)) {
            return Ok(Some(String::new()));
        }
        if !has(names, METADATA, false) {
            return Ok(None);
        }
        let mut first = [0];
        let file = ReadFile::open(&path.join(METADATA))?;
        let pickled = file.size() > 0 && file.read_at(&mut first, 0).is_ok() && first == [PICKLE];
        Ok(pickled.then(String::new))
    }

    fn last(&self, _: &Path) -> Result<(Option<u64>, &'static str)> {
        Ok((None, METADATA))
    }

    fn list(&self, place: &Path) -> Result<RankFiles> {
        list(place)
    }

    fn glimpse(&self, place: &Path) -> Result<Glimpse> {
        glimpse(place)
    }

    fn texts(&self) -> &'static [Text] {
        TEXTS
    }

    fn read(&self, texts: &[Option<Vec<u8>>]) -> Result<Own> {
        read(texts)
    }

    fn structure(&self, own: &Own, name: &str, file: &ReadFile) -> Result<Option<FileSchema>> {
        let named = |fault: Fault| fault.file(file.path().display().to_string());
        structure(own, name, file).map(Some).map_err(named)
    }

    fn check_unlisted(&self, _: &[&str]) -> Result<()> {
        Err(interrupted())
    }

    fn files(&self) -> Format {
        Format::of_row(&Distcp)
    }

    fn design<'a>(&self, _: &DirectoryAsked, laid: &'a Laid) -> Result<Vec<DirectoryFile<'a>>> {
        Ok(arrange(laid))
    }

    fn finish(
        &self,
        asked: &DirectoryAsked,
        files: &[(DirectoryFile<'_>, Arc<FileSchema>)],
    ) -> Result<Vec<SmallFile>> {
        let (bytes, places) = one_behind_another(&asked.values);
        let text = metadata(files, &asked.values, &places, true)?;
        let mut texts = vec![SmallFile::new(METADATA, text)];
        if !bytes.is_empty() {
            texts.push(SmallFile::new(VALUES, bytes));
        }
        Ok(texts)
    }

    fn keeps_values(&self) -> bool {
        true
    }

    fn holds(&self, path: &str) -> bool {
        !path.contains('/') && (path == METADATA || is_written(path))
    }
}

/// Whether PyTorch calls a file so: `__0_0.distcp`.
fn is_written(name: &str) -> bool {
    let numbers = name
        .strip_prefix("__")
        .and_then(|rest| rest.strip_suffix(".distcp"));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let two = numbers.and_then(|numbers| numbers.split_once('_'));
    two.is_some_and(|(rank, file)| number(rank) && number(file))
}
