//! `shardloom strategy …`: one process, no MPI.

use crate::cli::args::StrategyCommand;
use crate::fault::{Fault, Kind, Result};
use crate::job::inspect::full_tensors;
use crate::report::Report;
use crate::source::strategy_files::strategy_bytes;
use crate::store::io::{self, Standing};
use crate::strategy::derive::{Mesh, Rule, derive};
use crate::strategy::merge::merge;
use crate::strategy::{Form, Strategy, StrategyFile, show};
use std::path::{Path, PathBuf};

/// Runs it; gives whether all is well (for diff: nothing differs).
pub(super) fn run(command: &StrategyCommand, report: &Report) -> Result<bool> {
    match command {
        StrategyCommand::Merge {
            sources,
            output,
            overwrite,
        } => {
            check_output(output, *overwrite)?;
            let files = read_all(sources)?;
            let merged = merge(&views(&files))?;
            if merged.form != Form::of(&output.display().to_string()) {
                tracing::warn!(
                    "{}: is written in the form of the files merged, which its name doesn't tell; \
                     programs go by the name",
                    output.display()
                );
            }
            write_output(output, &merged.bytes)?;
            report.strategy_written(output, merged.stages, files.len() as u64)?;
            Ok(true)
        }
        StrategyCommand::Show {
            file,
            param,
            rank,
            shape,
        } => {
            let strategy = read(file)?;
            let shown = show::show(&strategy, param.as_deref(), *rank, shape.as_deref())?;
            report.data(&shown, &shown.to_string())?;
            Ok(true)
        }
        StrategyCommand::Diff { a, b } => {
            let differences = show::diff(&read(a)?, &read(b)?);
            report.data(&differences, &differences.to_string())?;
            Ok(differences.is_empty())
        }
        StrategyCommand::New {
            mesh,
            rules,
            optimizer_shard,
            weights,
            output,
            overwrite,
        } => {
            check_output(output, *overwrite)?;
            let mesh = Mesh::parse(mesh)?;
            let rules = rules
                .iter()
                .map(|rule| Rule::parse(rule))
                .collect::<Result<Vec<_>>>()?;
            let tensors = full_tensors(weights)?;
            let derived = derive(&mesh, &rules, *optimizer_shard, &tensors)?;
            for rule in &derived.unused_rules {
                tracing::warn!("no tensor matches the rule '{rule}'");
            }
            write_output(output, &derived.bytes)?;
            report.strategy_written(output, derived.strategy.stages(), 0)?;
            Ok(true)
        }
    }
}

fn read_all(sources: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for source in sources {
        match strategy_bytes(source)? {
            Some(found) => files.extend(found),
            None => {
                let fault = Fault::new(Kind::Strategy, "doesn't exist");
                return Err(fault.file(source.display().to_string()));
            }
        }
    }
    Ok(files)
}

fn views(files: &[(String, Vec<u8>)]) -> Vec<StrategyFile<'_>> {
    files
        .iter()
        .map(|(name, bytes)| StrategyFile { name, bytes })
        .collect()
}

fn read(path: &Path) -> Result<Strategy> {
    let files = read_all(&[path.to_path_buf()])?;
    Strategy::read(&views(&files)).map_err(|fault| fault.file(path.display().to_string()))
}

fn check_output(output: &Path, overwrite: bool) -> Result<()> {
    match io::standing(output)? {
        Standing::Nothing => Ok(()),
        Standing::File if overwrite => Ok(()),
        Standing::File => Err(Fault::new(Kind::Exists, "exists")
            .file(output.display().to_string())
            .hint("--overwrite replaces it")),
        Standing::Directory | Standing::EmptyDirectory => {
            Err(Fault::new(Kind::Exists, "is a directory").file(output.display().to_string()))
        }
    }
}

/// Writes the file beside its place and renames it there.
pub(super) fn write_output(output: &Path, bytes: &[u8]) -> Result<()> {
    let Some(name) = output.file_name() else {
        let fault = Fault::new(Kind::Usage, "is no file name");
        return Err(fault.file(output.display().to_string()));
    };
    if let Some(parent) = output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        io::make_directory(parent)?;
    }
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".shardloom-partial");
    let partial = output.with_file_name(hidden);
    io::remove(&partial)?;
    io::write_small(&partial, bytes, true)?;
    io::rename(&partial, output)
}
