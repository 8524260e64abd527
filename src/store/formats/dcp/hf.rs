//! PyTorch's distributed checkpoints in Hugging Face's form: safetensors files with parts of tensors.

use super::ranks::by_rank;
use super::write::{arrange, offset};
use crate::catalog::{FileSchema, Held, Part, SmallFile};
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::directory::{DirectoryFormat, Names, Own, RankFiles, Text};
use crate::store::formats::handle::Format;
use crate::store::formats::laid::{DirectoryAsked, DirectoryFile, Laid};
use crate::store::io::{self, ReadFile};
use crate::tensor::shape::Shape;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What tells where parts lie.
const SHARDING: &str = "DCP_SHARDING_INFO";

/// The version of that.
const VERSION: &str = "DCP_VERSION";

/// How the name of the first rank's file begins.
const FIRST: &str = "shard-00001-";

/// Such a checkpoint.
pub(in crate::store::formats) struct HuggingFace;

#[derive(Deserialize)]
struct Saved {
    saved_offsets: Vec<u64>,
}

/// Whether a file of this name is a part: `shard-00001-model-00001-of-00001.safetensors`.
fn is_part(name: &str) -> bool {
    name.starts_with("shard-") && name.contains("-model-") && name.ends_with(".safetensors")
}

/// Whether a file that has this `told` has whole tensors for itself: what is saved by one process, or consolidated, has
/// the name of Hugging Face's own files, and all offsets are 0.
fn is_whole(name: &str, told: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    let places: BTreeMap<String, Saved> = serde_json::from_str(told).unwrap_or_default();
    let begins = places.values().flat_map(|saved| &saved.saved_offsets);
    name.starts_with("model-") && !places.is_empty() && begins.into_iter().all(|begin| *begin == 0)
}

impl DirectoryFormat for HuggingFace {
    fn name(&self) -> &'static str {
        "dcp-hf"
    }

    fn called(&self) -> &'static str {
        "a PyTorch distributed checkpoint in Hugging Face's form"
    }

    fn about(&self) -> &'static str {
        "the same in Hugging Face's form: shard-<rank>-model-….safetensors with parts of tensors"
    }

    fn recognise(&self, path: &Path, names: &Names, _: Option<&str>) -> Result<Option<String>> {
        let mut files = names.iter().filter(|(_, folder)| !folder);
        let Some((first, _)) = files.find(|(name, _)| is_part(name)) else {
            return Ok(None);
        };
        // A damaged one is told as such when it is read.
        let file = ReadFile::open(&path.join(first))?;
        let told = Format::SAFETENSORS.read(&file);
        let parts = told.is_ok_and(|schema| schema.metadata.contains_key(SHARDING));
        Ok(parts.then(String::new))
    }

    fn last(&self, _: &Path) -> Result<(Option<u64>, &'static str)> {
        Ok((None, ""))
    }

    fn list(&self, place: &Path) -> Result<RankFiles> {
        let names = io::list(place)?.into_iter();
        let parts = names.filter(|(name, folder)| !folder && is_part(name));
        Ok(by_rank(parts.map(|(name, _)| name)))
    }

    fn texts(&self) -> &'static [Text] {
        &[]
    }

    fn read(&self, _: &[Option<Vec<u8>>]) -> Result<Own> {
        Ok(Own::default())
    }

    fn tells_structure(&self) -> bool {
        true
    }

    fn structure(&self, _: &Own, _: &str, file: &ReadFile) -> Result<Option<FileSchema>> {
        let named = |fault: Fault| fault.file(file.path().display().to_string());
        let schema = Format::SAFETENSORS.read(file)?;
        parts(schema).map(Some).map_err(named)
    }

    fn check_unlisted(&self, files: &[&str]) -> Result<()> {
        // Others may have had nothing to write; the first has.
        match files.iter().any(|file| file.starts_with(FIRST)) {
            true => Ok(()),
            false => {
                let others = counted(files.len() as u64, "other part");
                let message = format!("has no {FIRST}…, and {others}");
                Err(Fault::new(Kind::MissingShard, message)
                    .hint("copy all of the directory: each file has parts of tensors"))
            }
        }
    }

    fn tells_files(&self) -> bool {
        false
    }

    fn own_keys(&self) -> &'static [&'static str] {
        &[SHARDING, VERSION]
    }

    fn is_part(&self, name: &str, schema: &FileSchema) -> bool {
        let told = schema.metadata.get(SHARDING);
        told.is_some_and(|told| !is_whole(name, told))
    }

    fn files(&self) -> Format {
        Format::SAFETENSORS
    }

    fn design<'a>(&self, _: &DirectoryAsked, laid: &'a Laid) -> Result<Vec<DirectoryFile<'a>>> {
        let files = arrange(laid).into_iter().map(|file| {
            let places = file.tensors.iter().map(|tensor| {
                let place = json!({ "saved_offsets": offset(tensor, file.rank) });
                (tensor.name.to_string(), place)
            });
            let places = Value::Object(places.collect());
            let metadata = [
                (SHARDING, places.to_string()),
                (VERSION, "1.0".into()),
                ("format", "pt".into()),
            ];
            let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
            DirectoryFile {
                path: format!(
                    "shard-{:05}-model-00001-of-00001.safetensors",
                    file.rank + 1
                ),
                metadata: metadata.into(),
                ..file
            }
        });
        Ok(files.collect())
    }

    fn finish(
        &self,
        _: &DirectoryAsked,
        _: &[(DirectoryFile<'_>, Arc<FileSchema>)],
    ) -> Result<Vec<SmallFile>> {
        Ok(Vec::new())
    }

    fn holds(&self, path: &str) -> bool {
        let number =
            |text: &&str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        let words: Vec<&str> = path.trim_end_matches(".safetensors").split('-').collect();
        let numbers = words.iter().filter(|word| number(word)).count();
        is_part(path) && words.len() == 6 && numbers == 3 && words[4] == "of"
    }
}

/// The entries of a file as parts of tensors, whose full shapes all files tell together.
fn parts(mut schema: FileSchema) -> Result<FileSchema> {
    let corrupt = |message: String| Fault::new(Kind::Corrupt, message);
    let text = schema
        .metadata
        .remove(SHARDING)
        .unwrap_or_else(|| "{}".into());
    let told: BTreeMap<String, Saved> = serde_json::from_str(&text)
        .map_err(|error| corrupt(format!("{SHARDING} in its header is wrong: {error}")))?;
    let mut held = Held::default();
    for (number, entry) in (0u32..).zip(&schema.entries) {
        let Some(Saved { saved_offsets }) = told.get(&*entry.name) else {
            continue;
        };
        let ends = entry.shape.0.iter().zip(saved_offsets);
        let full: Option<Vec<u64>> = ends.map(|(size, begin)| size.checked_add(*begin)).collect();
        let full = full.filter(|_| saved_offsets.len() == entry.shape.0.len());
        let odd = || {
            corrupt(format!("{SHARDING} has odd offsets {saved_offsets:?}")).tensor(&*entry.name)
        };
        let full = Shape(full.ok_or_else(odd)?);
        full.bytes(entry.dtype)?;
        let width = u64::from(entry.dtype.bits() / 8);
        let strides = entry
            .shape
            .strides()
            .iter()
            .map(|stride| stride * width)
            .collect();
        let part = Part {
            of: entry.name.clone(),
            full,
            offset: saved_offsets.clone(),
            strides,
        };
        held.parts.insert(number, part);
    }
    if let Some(name) = told.keys().find(|name| schema.get(name).is_none()) {
        let message = format!("{SHARDING} tells of a tensor that the file hasn't");
        return Err(corrupt(message).tensor(name.as_str()));
    }
    schema.holding(held)
}
