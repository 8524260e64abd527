//! `shardloom inspect`: what is in a file or directory. One process, no MPI.

use crate::cli::args::InspectArgs;
use crate::cli::model::names_of;
use crate::fault::{Fault, Kind, Result};
use crate::job::inspect::{Inspected, inspect};
use crate::report::Report;
use crate::source::strategy_files::strategy_bytes;
use crate::store::Format;
use crate::store::io::{self, Standing};
use crate::strategy::{Strategy, StrategyFile, show};
use std::path::Path;

/// Prints what is at the path.
pub(super) fn run(args: &InspectArgs, report: &Report) -> Result<bool> {
    let path = &args.path;
    if let Some(names) = args.names {
        let shown = names_of(path, names, &args.family)?;
        report.data(&shown, &shown.to_string())?;
        return Ok(true);
    }
    if args.family.is_given() {
        let message = "the choices of a family are for --names";
        return Err(Fault::new(Kind::Usage, message));
    }
    if io::standing(path)? == Standing::Nothing {
        return Err(Fault::new(Kind::Io, "doesn't exist").file(path.display().to_string()));
    }
    match inspect(path) {
        Ok(inspected) => {
            report.data(&inspected, &text(&inspected))?;
            Ok(true)
        }
        // A .ckpt file may be weights or a strategy; tell of the format that fits better.
        Err(fault) => match strategy(path) {
            Some(shown) => {
                report.data(&shown, &shown.to_string())?;
                Ok(true)
            }
            None => Err(fault),
        },
    }
}

fn strategy(path: &Path) -> Option<show::Shown> {
    if Format::of(&path.display().to_string()) == Some(Format::Safetensors) {
        return None;
    }
    let files = strategy_bytes(path).ok()??;
    let files: Vec<StrategyFile<'_>> = files
        .iter()
        .map(|(name, bytes)| StrategyFile { name, bytes })
        .collect();
    let strategy = Strategy::read(&files).ok()?;
    show::show(&strategy, None, None, None).ok()
}

fn text(inspected: &Inspected) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for file in &inspected.files {
        let _ = writeln!(
            out,
            "{}  {} bytes, {} tensors",
            file.path,
            file.bytes,
            file.tensors.len()
        );
        for (key, value) in &file.metadata {
            let _ = writeln!(out, "  {key}: {value}");
        }
        let width = file
            .tensors
            .iter()
            .map(|t| t.name.chars().count())
            .max()
            .unwrap_or(0)
            .min(72);
        for tensor in &file.tensors {
            let _ = writeln!(
                out,
                "  {:width$}  {:5} {}",
                tensor.name, tensor.dtype, tensor.shape
            );
        }
    }
    let _ = write!(
        out,
        "{} files, {} ranks, {} tensors, {} bytes of tensors",
        inspected.files.len(),
        inspected.ranks,
        inspected
            .files
            .iter()
            .map(|f| f.tensors.len())
            .sum::<usize>(),
        inspected.tensor_bytes
    );
    out
}
