//! Megatron-Core's `torch_dist` as a row of the table.

use super::beside::values;
use super::stand;
use crate::catalog::{FileSchema, SmallFile};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::dcp::{
    Dcp, METADATA, METADATA_BYTES_MAX, VALUES, arrange, metadata, one_behind_another,
};
use crate::store::formats::directory::{
    DirectoryFormat, Glimpse, Names, Own, RankFiles, TRACKER, Text, has, tracked,
};
use crate::store::formats::handle::Format;
use crate::store::formats::laid::{DirectoryAsked, DirectoryFile, Laid};
use crate::store::formats::progress::Progress;
use crate::store::formats::values::Values;
use crate::store::io::{self, ReadFile, Standing};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The file in which Megatron says how it saves, the most bytes of it that are read, and what it says.
const KIND: &str = "metadata.json";
const KIND_BYTES_MAX: u64 = 64 << 10;
const SAYS: &[u8] = br#"{"sharded_backend": "torch_dist", "sharded_backend_version": 1}"#;
/// The directory, and what the tracker says, of weights that are of no iteration.
pub const RELEASE: &str = "release";

/// Megatron-Core's: directories of iterations, each of them PyTorch's.
pub(in crate::store::formats) struct Megatron;

/// The number of an iteration's directory.
pub(super) fn iteration(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("iter_")?;
    let ok = digits.len() >= 7 && digits.bytes().all(|byte| byte.is_ascii_digit());
    ok.then(|| digits.parse().ok())?
}

/// Which directory of `path` with these entries is meant, of those that `there` says are whole: an
/// iteration's, or that of weights of none. With a `/` at the end.
pub(super) fn meant(
    path: &Path,
    names: &Names,
    number: Option<&str>,
    there: impl Fn(&str) -> Result<bool>,
) -> Result<Option<String>> {
    let rooms = names
        .iter()
        .filter(|(name, folder)| *folder && (iteration(name).is_some() || name == RELEASE));
    let mut any = false;
    for (room, _) in rooms {
        any |= there(room)?;
    }
    if !any {
        return Ok(None);
    }
    let missing = |message: String| {
        let fault =
            Fault::new(Kind::MissingShard, message).file(path.join(TRACKER).display().to_string());
        fault.hint("give the directory of the iteration itself, or its number with --file-suffix")
    };
    let told = tracked(path)?;
    let text = number.map(str::to_owned).or(told);
    let text = text.as_deref().map(str::trim);
    let room = match text {
        Some(RELEASE) => RELEASE.to_owned(),
        Some(text) => {
            let digits = text.strip_prefix("iter_").unwrap_or(text).parse::<u64>();
            let none = |_| missing("tells no iteration's number".into());
            Megatron.directory(digits.map_err(none)?)
        }
        None => return Err(missing("tells no iteration's number".into())),
    };
    if !has(names, &room, true) || !there(&room)? {
        return Err(missing(format!("there is no whole {room}")));
    }
    Ok(Some(format!("{room}/")))
}

/// Whether a directory with `.metadata` is an iteration of Megatron's: it says so in another file.
fn is_megatron(path: &Path, names: &Names) -> Result<bool> {
    if !has(names, KIND, false) {
        return Ok(false);
    }
    let text = ReadFile::open(&path.join(KIND))?.read_all(KIND_BYTES_MAX);
    Ok(text.is_ok_and(|text| String::from_utf8_lossy(&text).contains("torch_dist")))
}

/// The directory that is written, and what the tracker says.
fn written(asked: &DirectoryAsked) -> (String, String, u64) {
    let told = asked.progress.as_ref();
    let number = told
        .and_then(|told| told.step_num.max(told.global_step))
        .unwrap_or(0);
    match number {
        0 => (RELEASE.to_owned(), RELEASE.to_owned(), 0),
        number => (Megatron.directory(number), number.to_string(), number),
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
        let there = |room: &str| {
            let metadata = path.join(room).join(METADATA);
            Ok(io::standing(&metadata)? == Standing::File)
        };
        meant(path, names, number, there)
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
        Dcp.list(place)
    }

    fn glimpse(&self, place: &Path) -> Result<Glimpse> {
        Dcp.glimpse(place)
    }

    fn texts(&self) -> &'static [Text] {
        &[
            (METADATA, METADATA_BYTES_MAX),
            (stand::FILE, stand::BYTES_MAX),
        ]
    }

    fn read(&self, texts: &[Option<Vec<u8>>]) -> Result<Own> {
        let mut own = Dcp.read(texts.get(..1).unwrap_or_default())?;
        let stands = texts.get(1).and_then(Option::as_deref).map(stand::read);
        own.progress = stands.unwrap_or_default();
        Ok(own)
    }

    fn stand(&self, own: &Own, _: &[&str]) -> Option<(String, Range<u64>)> {
        let contents = own.contents.iter();
        let mut values =
            contents.flat_map(|(file, content)| content.values().iter().map(move |v| (file, v)));
        let (file, (_, bytes)) = values.find(|(_, (name, _))| name == stand::VALUE)?;
        Some((file.clone(), bytes.clone()))
    }

    fn stands(&self, bytes: &[u8]) -> Progress {
        stand::read(bytes)
    }

    fn keeps_values(&self) -> bool {
        true
    }

    fn stacks_layers(&self) -> bool {
        true
    }

    fn structure(&self, own: &Own, name: &str, file: &ReadFile) -> Result<Option<FileSchema>> {
        Dcp.structure(own, name, file)
    }

    fn check_unlisted(&self, files: &[&str]) -> Result<()> {
        Dcp.check_unlisted(files)
    }

    fn files(&self) -> Format {
        Dcp.files()
    }

    fn design<'a>(&self, asked: &DirectoryAsked, laid: &'a Laid) -> Result<Vec<DirectoryFile<'a>>> {
        let (place, ..) = written(asked);
        let mut files = arrange(laid);
        for file in &mut files {
            file.path = format!("{place}/{}", file.path);
        }
        Ok(files)
    }

    fn finish(
        &self,
        asked: &DirectoryAsked,
        files: &[(DirectoryFile<'_>, Arc<FileSchema>)],
    ) -> Result<Vec<SmallFile>> {
        let (place, says, number) = written(asked);
        let tensors = files.iter().flat_map(|(file, _)| &file.tensors);
        let tensors: BTreeMap<&str, Vec<u64>> = tensors
            .map(|tensor| (&*tensor.name, tensor.shape()))
            .collect();
        let progress = asked.progress.clone().unwrap_or_default();
        let mut values = Values {
            archives: values(&tensors, &progress, number)?,
            ..Values::default()
        };
        // What the source has of its own counts for more.
        values.archives.extend(asked.values.archives.clone());
        let (bytes, places) = one_behind_another(&values);
        Ok(vec![
            SmallFile::new(format!("{place}/{VALUES}"), bytes),
            SmallFile::new(
                format!("{place}/{METADATA}"),
                metadata(files, &values, &places, false)?,
            ),
            SmallFile::new(format!("{place}/{KIND}"), SAYS.to_vec()),
            SmallFile::new(TRACKER, says.into_bytes()),
        ])
    }

    fn apart(&self) -> &'static [&'static str] {
        &crate::store::formats::progress::COUNT_NAMES
    }

    fn holds(&self, path: &str) -> bool {
        let Some((room, name)) = path.split_once('/') else {
            return path == TRACKER;
        };
        let own = Dcp.holds(name) || [KIND, stand::FILE].contains(&name);
        own && (iteration(room).is_some() || room == RELEASE)
    }
}
