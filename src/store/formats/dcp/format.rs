//! Distributed checkpoints as rows of the table.

use super::chunks::{by_file, structure};
use super::metadata::parse;
use super::ranks::by_rank;
use super::write::{VALUES, arrange, metadata, one_behind_another};
use crate::catalog::FileSchema;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::dcp::row::Distcp;
use crate::store::formats::directory::{
    DirectoryFormat, Glimpse, Names, Own, RankFiles, TRACKER, Text, each, has, tracked,
};
use crate::store::formats::handle::Format;
use crate::store::formats::laid::{DirectoryAsked, DirectoryFile, Laid};
use crate::store::io::{self, ReadFile, Standing};
use std::path::Path;
use std::sync::Arc;

/// The file that tells of all.
const METADATA: &str = ".metadata";
/// The first byte of a pickle.
const PICKLE: u8 = 0x80;
/// Longest one that is read.
const METADATA_BYTES_MAX: u64 = 512 << 20;
/// The file in which Megatron says how it saves, and the most bytes of it that are read.
const KIND: &str = "metadata.json";
const KIND_BYTES_MAX: u64 = 64 << 10;

/// PyTorch's.
pub(in crate::store::formats) struct Dcp;

/// Megatron-Core's: directories of iterations, each of them PyTorch's.
pub(in crate::store::formats) struct Megatron;

/// The number of an iteration's directory.
fn iteration(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("iter_")?;
    let ok = digits.len() >= 7 && digits.bytes().all(|byte| byte.is_ascii_digit());
    ok.then(|| digits.parse().ok())?
}

/// Whether a directory with `.metadata` is an iteration of Megatron's: it says so in another file.
fn is_megatron(path: &Path, names: &Names) -> Result<bool> {
    if !has(names, KIND, false) {
        return Ok(false);
    }
    let text = ReadFile::open(&path.join(KIND))?.read_all(KIND_BYTES_MAX);
    Ok(text.is_ok_and(|text| String::from_utf8_lossy(&text).contains("torch_dist")))
}

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
    let files = by_file(parse(&bytes).map_err(at)?);
    Ok(by_rank(files.into_keys()))
}

/// Whether a file of this name has chunks.
fn is_file(name: &str) -> bool {
    name.ends_with(".distcp")
}

fn read(texts: &[Option<Vec<u8>>]) -> Result<Own> {
    let Some(Some(bytes)) = texts.first() else {
        let fault = Fault::new(Kind::MissingShard, "is missing: the save was interrupted");
        return Err(fault.file(METADATA));
    };
    let mut metadata = parse(bytes).map_err(|fault| fault.file(METADATA))?;
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

fn unlisted() -> Result<()> {
    let fault = Fault::new(Kind::MissingShard, "is missing: the save was interrupted");
    Err(fault.file(METADATA))
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
        if !has(names, METADATA, false) {
            // What a node has of it that has its own ranks' files alone.
            let mut files = names.iter().filter(|(_, folder)| !folder);
            return Ok(files.any(|(name, _)| is_file(name)).then(String::new));
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
        unlisted()
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
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let (bytes, places) = one_behind_another(&asked.values);
        let text = metadata(files, &asked.values, &places)?;
        let mut texts = vec![(METADATA.to_owned(), text)];
        if !bytes.is_empty() {
            texts.push((VALUES.to_owned(), bytes));
        }
        Ok(texts)
    }

    fn keeps_values(&self) -> bool {
        true
    }

    fn holds(&self, path: &str) -> bool {
        !path.contains('/') && (path == METADATA || path.ends_with(".distcp"))
    }
}

impl DirectoryFormat for Megatron {
    fn name(&self) -> &'static str {
        "megatron"
    }

    fn called(&self) -> &'static str {
        "a Megatron-Core checkpoint"
    }

    fn about(&self) -> &'static str {
        "Megatron-Core's torch_dist: directories of iterations, each a PyTorch distributed checkpoint"
    }

    fn recognise(
        &self,
        path: &Path,
        names: &Names,
        number: Option<&str>,
    ) -> Result<Option<String>> {
        if has(names, METADATA, false) {
            return Ok(is_megatron(path, names)?.then(String::new));
        }
        if !names
            .iter()
            .any(|(name, folder)| *folder && iteration(name).is_some())
        {
            return Ok(None);
        }
        let numbers = self.numbers(names);
        let place = |number: u64| path.join(self.directory(number)).join(METADATA);
        let mut there = Vec::new();
        for number in &numbers {
            if io::standing(&place(*number))? == Standing::File {
                there.push(*number);
            }
        }
        if there.is_empty() {
            return Ok(None);
        }
        let missing = |message: String| {
            Fault::new(Kind::MissingShard, message)
                .file(path.join(TRACKER).display().to_string())
                .hint(
                    "give the directory of the iteration itself, or its number with --file-suffix",
                )
        };
        let meant = match number {
            Some(text) => {
                let digits = text.strip_prefix("iter_").unwrap_or(text);
                let number = digits.parse::<u64>().ok();
                number.ok_or_else(|| missing("the suffix is no iteration's number".into()))?
            }
            None => {
                let last = self.last(path)?.0;
                last.ok_or_else(|| missing("tells no iteration's number".into()))?
            }
        };
        if !there.contains(&meant) {
            return Err(missing(format!(
                "there is no whole {}",
                self.directory(meant)
            )));
        }
        Ok(Some(format!("{}/", self.directory(meant))))
    }

    fn numbers(&self, names: &Names) -> Vec<u64> {
        let folders = names.iter().filter(|(_, folder)| *folder);
        let numbers = folders.filter_map(|(name, _)| iteration(name));
        numbers
            .filter(|number| has(names, &self.directory(*number), true))
            .collect()
    }

    fn directory(&self, number: u64) -> String {
        format!("iter_{number:07}")
    }

    fn last(&self, base: &Path) -> Result<(Option<u64>, &'static str)> {
        let told = tracked(base)?;
        Ok((told.and_then(|text| text.trim().parse().ok()), TRACKER))
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
        Dcp.structure(own, name, file)
    }

    fn check_unlisted(&self, _: &[&str]) -> Result<()> {
        unlisted()
    }

    fn files(&self) -> Format {
        Format::of_row(&Distcp)
    }

    fn keeps_values(&self) -> bool {
        true
    }

    fn is_written(&self) -> bool {
        false
    }

    fn holds(&self, path: &str) -> bool {
        let Some((room, name)) = path.split_once('/') else {
            return path == TRACKER;
        };
        iteration(room).is_some() && (Dcp.holds(name) || name == KIND)
    }
}
