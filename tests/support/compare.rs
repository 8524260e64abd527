//! Compares what a run wrote, and how it ended, with what was expected.

use super::expect::{Expect, File, read};
use crate::support::Run;
use crate::support::ckpt;
use crate::support::fixtures::{Step, listing};
use crate::support::oracle::Strategy;
use crate::support::tensors::{self, Tensors};
use crate::support::wire;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Compares how a run ended and what it wrote with what was expected.
pub(crate) fn compare(
    step: &Step,
    expect: &Expect,
    run: &Run,
    destination: &Path,
) -> Result<(), String> {
    let parent = destination.parent().ok_or("no parent")?;
    if let Expect::Error(mentions) = expect {
        return compare_error(mentions, run, parent);
    }
    if !run.status.success() {
        return Err(format!("it ended with {}", run.status));
    }
    let entries = std::fs::read_dir(parent).map_err(|error| error.to_string())?;
    if entries.count() != 1 {
        return Err("something was left beside the destination".to_owned());
    }
    match expect {
        Expect::Files(files) => compare_files(step, files, destination),
        Expect::Full { files, size_scale } => compare_full(files, *size_scale, destination),
        Expect::Strategy(path) => compare_strategies(path, destination),
        Expect::Error(_) | Expect::Skip(_) => Ok(()),
    }
}

fn compare_error(mentions: &[String], run: &Run, parent: &Path) -> Result<(), String> {
    if !matches!(run.status.code(), Some(1 | 2)) {
        return Err(format!("should end with 1 or 2, not {}", run.status));
    }
    let written = listing(parent);
    if !written.is_empty() || std::fs::read_dir(parent).is_ok_and(|mut e| e.next().is_some()) {
        return Err(format!("an error left something behind: {written:?}"));
    }
    let lines: Vec<&str> = run
        .stderr
        .lines()
        .filter(|l| l.starts_with("error:"))
        .collect();
    let [line] = lines.as_slice() else {
        return Err(format!("{} lines start with \"error:\"", lines.len()));
    };
    if !mentions.iter().any(|word| mentioned(line, word)) {
        return Err(format!("the error names none of {mentions:?}"));
    }
    Ok(())
}

/// Whether `word` is in `text` as a word of its own.
fn mentioned(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(inside) && !text[at + word.len()..].starts_with(inside)
    })
}

/// The files written, but those that are ours alone.
fn written(destination: &Path) -> BTreeSet<PathBuf> {
    let ours = ["shardloom.json", "model.safetensors.index.json"];
    let files = listing(destination).into_iter();
    files
        .filter(|file| !ours.iter().any(|name| file.ends_with(name)))
        .collect()
}

fn same_names(expected: &BTreeSet<PathBuf>, found: &BTreeSet<PathBuf>) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    Err(format!(
        "missing files {:?}, files too many {:?}",
        expected.difference(found).collect::<Vec<_>>(),
        found.difference(expected).collect::<Vec<_>>()
    ))
}

fn compare_files(
    step: &Step,
    files: &BTreeMap<PathBuf, File>,
    destination: &Path,
) -> Result<(), String> {
    let mut found = written(destination);
    if let Some(rank) = step.args.get("rank_id").and_then(Value::as_u64) {
        found.retain(|file| file.starts_with(format!("rank_{rank}")));
    }
    same_names(&files.keys().cloned().collect(), &found)?;
    for (name, expected) in files {
        let found = read(&destination.join(name))?;
        let ordered = step.op == "convert";
        compare_file(expected, &found, ordered)
            .map_err(|error| format!("{}: {error}", name.display()))?;
    }
    Ok(())
}

/// Compares one file; the records of a `.ckpt` have an order only where `ordered`.
fn compare_file(expected: &File, found: &File, ordered: bool) -> Result<(), String> {
    match (expected, found) {
        (File::Safetensors(expected), File::Safetensors(found)) => {
            tensors::compare(&expected.tensors, &found.tensors)?;
            let (want, have) = (&expected.metadata, &found.metadata);
            if want != have {
                return Err(format!("metadata {have:?}, expected {want:?}"));
            }
        }
        (File::Ckpt(expected), File::Ckpt(found)) => {
            let names = |records: &[ckpt::Record]| -> Vec<String> {
                records.iter().map(|record| record.name.clone()).collect()
            };
            let (mut want, mut have) = (expected.clone(), found.clone());
            if !ordered {
                want.sort_by(|a, b| a.name.cmp(&b.name));
                have.sort_by(|a, b| a.name.cmp(&b.name));
            }
            if names(&want) != names(&have) {
                let (want, have) = (names(&want), names(&have));
                return Err(format!("records {have:?}, expected {want:?}"));
            }
            if let Some((want, have)) = want.iter().zip(&have).find(|(want, have)| want != have) {
                return Err(format!("{have:?}, expected {want:?}"));
            }
        }
        (expected, found) if expected == found => {}
        (_, found) => return Err(format!("unexpectedly {found:?}")),
    }
    Ok(())
}

fn compare_full(
    files: &BTreeMap<PathBuf, File>,
    size_scale: u64,
    destination: &Path,
) -> Result<(), String> {
    same_names(&files.keys().cloned().collect(), &written(destination))?;
    let is_part = |name: &&PathBuf| name.to_string_lossy().starts_with("part");
    let (mut want, mut have) = (Tensors::new(), Tensors::new());
    let mut places = BTreeMap::new();
    for name in files.keys().filter(is_part) {
        let path = destination.join(name);
        let (File::Safetensors(expected), found) = (&files[name], tensors::read(&path)?) else {
            return Err(format!("{}: not a part", name.display()));
        };
        if expected.metadata != found.metadata {
            let (want, have) = (&expected.metadata, &found.metadata);
            return Err(format!(
                "{}: metadata {have:?}, expected {want:?}",
                name.display()
            ));
        }
        let sizes = |tensors: &Tensors| {
            let mut sizes: Vec<usize> = tensors.values().map(|t| t.data.len()).collect();
            sizes.sort_unstable();
            sizes
        };
        let (want_sizes, have_sizes) = (sizes(&expected.tensors), sizes(&found.tensors));
        if want_sizes != have_sizes {
            return Err(format!(
                "{}: sizes {have_sizes:?}, expected {want_sizes:?}",
                name.display()
            ));
        }
        for tensor in found.tensors.keys() {
            let file = name.to_string_lossy().into_owned();
            if places.insert(tensor.clone(), Value::String(file)).is_some() {
                return Err(format!("{tensor} is in two parts"));
            }
        }
        want.extend(expected.tensors.clone());
        have.extend(found.tensors);
    }
    tensors::compare(&want, &have)?;
    for name in files.keys().filter(|name| !is_part(name)) {
        let (expected, found) = (&files[name], read(&destination.join(name))?);
        if let (File::Json(expected), File::Json(found)) = (expected, &found) {
            let total = |map: &Value| map["metadata"]["total_size"].as_u64();
            let (want, have) = (total(expected).map(|n| n / size_scale), total(found));
            if want != have || want.is_none() {
                return Err(format!("total_size {have:?}, expected {want:?}"));
            }
            let map = found["weight_map"].as_object().ok_or("no weight_map")?;
            let map: BTreeMap<_, _> = map.clone().into_iter().collect();
            if map != places {
                return Err(format!("weight_map {map:?}, the parts have {places:?}"));
            }
        } else {
            compare_file(expected, &found, false)
                .map_err(|error| format!("{}: {error}", name.display()))?;
        }
    }
    Ok(())
}

/// Compares merged strategies: the same stages, parameters and layouts, and the same operators.
fn compare_strategies(expected: &Path, found: &Path) -> Result<(), String> {
    let items = |path: &Path| -> Result<_, String> {
        let mut items = Strategy::read(path)?.items;
        items.sort();
        Ok(items)
    };
    if expected.ends_with("pb_named.json") {
        // The inputs choose the form, not the output's name: it holds protobuf.
        let renamed = found.with_extension("ckpt");
        std::fs::copy(found, &renamed).map_err(|error| error.to_string())?;
        let same = expected.with_file_name("pb.ckpt");
        let (want, have) = (items(&same)?, items(&renamed)?);
        return (want == have)
            .then_some(())
            .ok_or(format!("{have:?}, expected {want:?}"));
    }
    let (want, have) = (items(expected)?, items(found)?);
    if want != have {
        return Err(format!("{have:?}, expected {want:?}"));
    }
    let bytes = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
    let (want, have) = (bytes(expected)?, bytes(found)?);
    if expected.extension().is_some_and(|e| e == "json") {
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes);
        let (want, have) = (parse(&want), parse(&have));
        return match (want, have) {
            (Ok(want), Ok(have)) if want == have => Ok(()),
            _ => Err("the JSON objects differ".to_owned()),
        };
    }
    let operators = |bytes: &[u8]| -> Result<Vec<Vec<u8>>, String> {
        let fields = wire::fields(bytes)?.into_iter();
        let operators = fields.filter(|(number, _)| *number == 2);
        let mut operators: Vec<_> = operators
            .map(|(_, value)| value.bytes().map(<[u8]>::to_vec))
            .collect::<Result<_, _>>()?;
        operators.sort();
        Ok(operators)
    };
    if operators(&want)? != operators(&have)? {
        return Err("the operators differ".to_owned());
    }
    Ok(())
}
