//! Checkpoint 2.0 as a row of the table.

use crate::catalog::{FileSchema, SmallFile};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::checkpoint2::arrange::{arrange, check_stages, texts};
use crate::store::formats::checkpoint2::counts::{self, COMMON_BYTES_MAX};
use crate::store::formats::checkpoint2::names::{
    ADAPTER, ADAPTER_BYTES_MAX, COMMON, METADATA, METADATA_BYTES_MAX, cards, directory, is_one,
    is_written, iteration,
};
use crate::store::formats::checkpoint2::read::{Metadata, parse};
use crate::store::formats::directory::{
    DirectoryFormat, Glimpse, Names, Own, RankFiles, TRACKER, Text, each, has, tracked,
};
use crate::store::formats::handle::Format;
use crate::store::formats::laid::{DirectoryAsked, DirectoryFile, Laid};
use crate::store::formats::progress::{COUNT_NAMES, Progress};
use crate::store::io::{self, ReadFile, Standing};
use std::path::Path;
use std::sync::Arc;

/// The optimizer's count.
const GLOBAL_STEP: &str = "global_step";

/// Checkpoint 2.0.
pub struct Checkpoint2;

impl DirectoryFormat for Checkpoint2 {
    fn name(&self) -> &'static str {
        "checkpoint2"
    }

    fn called(&self) -> &'static str {
        "a checkpoint 2.0"
    }

    fn about(&self) -> &'static str {
        "Checkpoint 2.0: an iteration's directory of safetensors, with its layout in metadata.json"
    }

    fn recognise(
        &self,
        path: &Path,
        names: &Names,
        number: Option<&str>,
    ) -> Result<Option<String>> {
        if has(names, METADATA, false) {
            let metadata = read_metadata(&path.join(METADATA))?;
            return Ok(metadata.map(|_| String::new()));
        }
        if !names.iter().any(|(name, folder)| *folder && is_one(name)) {
            let name = path.file_name().map(|name| name.to_string_lossy());
            let single = name.is_some_and(|name| is_one(&name));
            return Ok(single.then(String::new));
        }
        meant(path, names, number).map(Some)
    }

    fn numbers(&self, names: &Names) -> Vec<u64> {
        let numbers = names
            .iter()
            .filter(|(name, folder)| *folder && name.starts_with("iteration_"))
            .filter_map(|(name, _)| iteration(name).filter(|number| directory(*number) == *name));
        numbers.collect()
    }

    fn directory(&self, number: u64) -> String {
        directory(number)
    }

    fn last(&self, base: &Path) -> Result<(Option<u64>, &'static str)> {
        let told = tracked(base)?;
        Ok((told.and_then(|text| iteration(&text)), TRACKER))
    }

    fn list(&self, place: &Path) -> Result<RankFiles> {
        let metadata = place.join(METADATA);
        if io::standing(&metadata)? == Standing::File {
            let metadata = read_metadata(&metadata)?;
            return Ok(metadata.map(|metadata| metadata.files).unwrap_or_default());
        }
        let mut files = RankFiles::new();
        for (file, folder) in io::list(place)? {
            if !folder && Format::of(&file) == Some(self.files()) {
                files.entry(0).or_default().insert(file);
            }
        }
        Ok(files)
    }

    fn glimpse(&self, place: &Path) -> Result<Glimpse> {
        let read = |name: &str| {
            let file = ReadFile::open(&place.join(name)).ok()?;
            file.read_all(METADATA_BYTES_MAX).ok()
        };
        let progress = read(COMMON).and_then(|bytes| counts::parse(&bytes).ok());
        let mut glimpse = Glimpse {
            progress: progress.unwrap_or_default(),
            ..Glimpse::default()
        };
        if let Some(metadata) = read(METADATA).and_then(|bytes| parse(&bytes).ok().flatten()) {
            glimpse.files = each(metadata.files);
            let counted = io::standing(&place.join(COMMON))? == Standing::File;
            glimpse.why = (!counted).then(|| format!("{COMMON} is missing"));
            return Ok(glimpse);
        }
        let names = io::list(place)?.into_iter();
        let weights = names.filter(|(name, folder)| !folder && Format::of(name).is_some());
        glimpse.files = weights.map(|(name, _)| (0, name)).collect();
        let several = |(_, file): &(u32, String)| cards(file).is_some_and(|cards| cards > 1);
        if glimpse.files.iter().any(several) {
            glimpse.why = Some(format!("{METADATA} is missing"));
        }
        Ok(glimpse)
    }

    fn texts(&self) -> &'static [Text] {
        &[
            (METADATA, METADATA_BYTES_MAX),
            (COMMON, COMMON_BYTES_MAX),
            (ADAPTER, ADAPTER_BYTES_MAX),
        ]
    }

    fn read(&self, texts: &[Option<Vec<u8>>]) -> Result<Own> {
        let text = |number: usize| texts.get(number).and_then(Option::as_deref);
        let metadata = text(0).map(parse).transpose();
        let metadata = metadata.map_err(|fault| fault.file(METADATA))?.flatten();
        let progress = text(1).map(counts::parse).transpose()?;
        if metadata.is_some() && progress.is_none() {
            return Err(counts::missing());
        }
        // One card's has no metadata; only the trainer of dynamic graphs counts samples.
        let adapter = text(2).map(|text| (ADAPTER, text.to_vec()));
        let counted = progress
            .as_ref()
            .is_some_and(|told: &Progress| told.consumed_samples.is_some());
        let dynamic = metadata.as_ref().is_some_and(|told| told.dynamic)
            || metadata.is_none() && (counted || adapter.is_some());
        let told = metadata.map(|told| (told.strategy, (told.files, told.counted)));
        let (strategy, lists) = told.unzip();
        let (files, counted) = lists.unzip();
        Ok(Own {
            dynamic,
            adapter,
            strategy,
            counted,
            progress: progress.unwrap_or_default(),
            files,
            ..Own::default()
        })
    }

    /// The trainer writes `metadata.json` after the files of several cards.
    fn check_unlisted(&self, files: &[&str]) -> Result<()> {
        let mut several = files
            .iter()
            .filter_map(|file| Some((cards(file).filter(|cards| *cards > 1)?, file)));
        let Some((cards, file)) = several.next() else {
            return Ok(());
        };
        let message =
            format!("is missing, and {file} is one of {cards} files: the save was interrupted");
        Err(Fault::new(Kind::MissingShard, message)
            .file(METADATA)
            .hint("`shardloom checkpoints list` shows which iterations are complete"))
    }

    fn is_part(&self, name: &str, _: &FileSchema) -> bool {
        cards(name).is_some_and(|cards| cards > 1)
    }

    fn files(&self) -> Format {
        Format::SAFETENSORS
    }

    fn apart(&self) -> &'static [&'static str] {
        &COUNT_NAMES
    }

    fn drops(&self, asked: &DirectoryAsked, name: &str) -> bool {
        // In dynamic graphs the optimizer's count is a tensor, too.
        self.apart().contains(&name) && !(asked.dynamic && name == GLOBAL_STEP)
    }

    fn design<'a>(&self, asked: &DirectoryAsked, laid: &'a Laid) -> Result<Vec<DirectoryFile<'a>>> {
        check_stages(laid)?;
        Ok(arrange(asked, laid))
    }

    fn finish(
        &self,
        asked: &DirectoryAsked,
        files: &[(DirectoryFile<'_>, Arc<FileSchema>)],
    ) -> Result<Vec<SmallFile>> {
        texts(asked, files.iter().map(|(file, _)| file))
    }

    fn holds(&self, path: &str) -> bool {
        let Some((room, name)) = path.split_once('/') else {
            return path == TRACKER || path == ADAPTER;
        };
        let own = [METADATA, COMMON, ADAPTER].contains(&name)
            || (is_written(name) && !name.contains('/'));
        own && iteration(room).is_some_and(|number| directory(number) == room)
    }
}

fn read_metadata(path: &Path) -> Result<Option<Metadata>> {
    let bytes = ReadFile::open(path)?.read_all(METADATA_BYTES_MAX)?;
    parse(&bytes).map_err(|fault| fault.file(path.display().to_string()))
}

/// Which of several iterations is meant: its directory, with a `/`.
fn meant(path: &Path, names: &Names, number: Option<&str>) -> Result<String> {
    let missing = |message: &str| {
        let fault = Fault::new(Kind::MissingShard, message);
        let fault = fault.file(path.join(TRACKER).display().to_string());
        let ended = |number: &u64| {
            let metadata = path.join(directory(*number)).join(METADATA);
            matches!(io::size(&metadata), Ok(Some(_)))
        };
        let numbers = Checkpoint2.numbers(names).into_iter();
        match numbers.filter(ended).max() {
            Some(newest) => fault.hint(format!(
                "give the directory of an iteration itself; or its number: --file-suffix {newest} takes the newest whose save has ended"
            )),
            None => fault,
        }
    };
    let number = match number {
        Some(text) => {
            iteration(text).ok_or_else(|| missing("the suffix is no iteration's number"))?
        }
        None if has(names, TRACKER, false) => {
            let text = ReadFile::open(&path.join(TRACKER))?.read_all(64)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            iteration(&text).ok_or_else(|| missing("is no iteration's number"))?
        }
        None => return Err(missing("no iteration was completed: this file is missing")),
    };
    if !has(names, &directory(number), true) {
        return Err(missing(&format!("there is no {}", directory(number))));
    }
    Ok(format!("{}/", directory(number)))
}
