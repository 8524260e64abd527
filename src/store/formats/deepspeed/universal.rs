//! Universal checkpoints as a row of the table: a directory for each weight, and a file for each of its states.

use super::due::{MASTER, of_universal_checkpoint};
use super::names::{UNIVERSAL, of_universal};
use super::zero::{meant, read};
use crate::catalog::{Entry, FileSchema, Held};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::directory::{DirectoryFormat, Names, Own, RankFiles, Text, has};
use crate::store::formats::handle::Format;
use crate::store::formats::row::FileFormat;
use crate::store::formats::torch::TorchFile;
use crate::store::io::{self, ReadFile, Standing};
use std::collections::BTreeMap;
use std::path::Path;

/// The directory of all weights' directories.
const WEIGHTS: &str = "zero";
/// The file that names the last checkpoint.
const LATEST: &str = "latest_universal";
/// The states of a model whose weights are cut over ranks.
const STATES: &str = "zero_pp_rank_0_mp_rank_00_model_states.pt";

/// DeepSpeed's universal checkpoints.
pub(in crate::store::formats) struct Universal;

/// Whether `place` is one: some directory of a weight has its file. Local.
fn is_one(place: &Path) -> Result<bool> {
    let weights = place.join(WEIGHTS);
    if io::standing(&weights)? != Standing::Directory {
        return Ok(false);
    }
    for (name, folder) in io::list(&weights)? {
        let path = weights.join(&name).join(format!("{MASTER}.pt"));
        if folder && io::standing(&path)? == Standing::File {
            return Ok(true);
        }
    }
    Ok(false)
}

impl DirectoryFormat for Universal {
    fn name(&self) -> &'static str {
        UNIVERSAL
    }

    fn called(&self) -> &'static str {
        "a universal checkpoint of DeepSpeed"
    }

    fn about(&self) -> &'static str {
        "DeepSpeed's universal checkpoint: zero/<weight>/fp32.pt, and a file for each of its moments"
    }

    fn recognise(
        &self,
        path: &Path,
        names: &Names,
        number: Option<&str>,
    ) -> Result<Option<String>> {
        if has(names, WEIGHTS, true) && is_one(path)? {
            return Ok(Some(String::new()));
        }
        let name = meant(path, names, number, LATEST)?;
        match name {
            Some(name) if is_one(&path.join(&name))? => Ok(Some(format!("{name}/"))),
            _ => Ok(None),
        }
    }

    fn last(&self, _: &Path) -> Result<(Option<u64>, &'static str)> {
        Ok((None, LATEST))
    }

    fn list(&self, place: &Path) -> Result<RankFiles> {
        let mut files = RankFiles::new();
        let weights = place.join(WEIGHTS);
        for (name, folder) in io::list(&weights)? {
            if !folder {
                continue;
            }
            let inside = io::list(&weights.join(&name))?.into_iter();
            let inside = inside.filter(|(_, folder)| !folder);
            let paths = inside.map(|(file, _)| format!("{WEIGHTS}/{name}/{file}"));
            let paths = paths.filter(|path| of_universal(path).is_some());
            files.entry(0).or_default().extend(paths);
        }
        let own = files.entry(0).or_default();
        let due = of_universal_checkpoint(place, own)?;
        own.extend(due);
        Ok(files)
    }

    fn absent(&self, _: u32, file: &str) -> Fault {
        let Some((name, kind)) = of_universal(file) else {
            let message = "is missing: it tells which weights there are, and of which shapes";
            let fault = Fault::new(Kind::MissingShard, message);
            return fault.hint("copy it again: it lies beside the directory `zero`");
        };
        let fault = match kind {
            MASTER => {
                let message = "is missing: other files tell of this weight";
                let fault = Fault::new(Kind::MissingShard, message);
                fault.hint("copy it again, or read the checkpoint that this one was made of")
            }
            _ => {
                let message = "is missing: other weights have this state of the optimizer";
                let fault = Fault::new(Kind::MissingShard, message);
                fault.hint("copy it again, or take all states away to read the weights alone")
            }
        };
        fault.tensor(name)
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

    fn structure(&self, _: &Own, name: &str, open: &ReadFile) -> Result<Option<FileSchema>> {
        let named = |fault: Fault| fault.file(open.path().display().to_string());
        let schema = structure(name, TorchFile.read(open)?).map_err(named)?;
        shaped(name, schema, open.path()).map(Some)
    }

    fn check_unlisted(&self, _: &[&str]) -> Result<()> {
        Ok(())
    }

    fn files(&self) -> Format {
        Format::of_row(&TorchFile)
    }

    fn is_written(&self) -> bool {
        false
    }

    fn holds(&self, _: &str) -> bool {
        false
    }
}

/// The same with the shape that the model's states beside the weights tell, where the file has all elements in a row:
/// as it is made of ZeRO 3. Local.
fn shaped(path: &str, mut schema: FileSchema, place: &Path) -> Result<FileSchema> {
    let flat = |entry: &&mut Entry| entry.shape.0.len() == 1;
    let Some(entry) = schema.entries.first_mut().filter(flat) else {
        return Ok(schema);
    };
    let Some(beside) = place.ancestors().nth(3) else {
        return Ok(schema);
    };
    let model = read(&beside.join(STATES))?.unwrap_or_default();
    let name = of_universal(path).map_or("", |(name, _)| name);
    let mut shapes = model.groups.iter().flatten().chain(&model.frozen);
    if let Some((_, shape)) = shapes.find(|(known, _)| known == name)
        && shape.elements()? == entry.shape.elements()?
    {
        entry.shape = shape.clone();
    }
    Ok(schema)
}

/// The structure of the file at `path` as that of one state of a weight.
fn structure(path: &str, read: FileSchema) -> Result<FileSchema> {
    let other = || Fault::new(Kind::Corrupt, "holds no state of one weight");
    let (name, kind) = of_universal(path).ok_or_else(other)?;
    let called = match kind {
        MASTER => name.to_owned(),
        _ => format!("{kind}.{name}"),
    };
    let position = read
        .entries
        .iter()
        .position(|entry| ["param", ""].contains(&&*entry.name));
    let Some(position) = position else {
        // A number that Python keeps, as the step may be.
        let text = read.held.values.values().next();
        let values = text
            .map(|text| (called, text.clone()))
            .into_iter()
            .collect();
        let held = Held {
            values,
            ..Held::default()
        };
        return match kind {
            MASTER => Err(other()),
            _ => FileSchema::new(Vec::new(), BTreeMap::new(), Vec::new(), read.size)?.holding(held),
        };
    };
    let mut entry = read.entries[position].clone();
    entry.name = called.as_str().into();
    let mut held = Held::default();
    if let Some(part) = read.held.part(position) {
        let mut part = part.clone();
        part.of = entry.name.clone();
        held.parts.insert(0, part);
    }
    FileSchema::new(vec![entry], BTreeMap::new(), Vec::new(), read.size)?.holding(held)
}
