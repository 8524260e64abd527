//! `shardloom generate`: what other programs want of the command line: manual pages, completions.

use crate::cli::command::{Command, Prepared};
use crate::cli::output::check_output;
use crate::fault::plain::Text;
use crate::fault::{Fault, Kind, Result};
use crate::report::Report;
use crate::store::single::write_single;
use clap::{Args, Subcommand};
use clap_complete::Shell;
use serde_json::json;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  shardloom generate completions bash --output shardloom.bash
  shardloom generate man --output man1";

/// Write manual pages, or completions for a shell.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Generate {
    #[command(subcommand)]
    what: What,
}

/// What is written.
#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Manual pages: one for each command into a directory, or the program's own on stdout.
    #[command(before_help = "\
Examples:
  shardloom generate man --output man1
  shardloom generate man")]
    Man {
        /// Directory to write [default: the program's page on stdout].
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Replace pages that are there.
        #[arg(long)]
        overwrite: bool,
    },
    /// Completions for bash, zsh, fish, elvish or PowerShell.
    #[command(before_help = "\
Examples:
  shardloom generate completions bash --output shardloom.bash
  shardloom generate completions fish")]
    Completions {
        /// The shell.
        shell: Shell,
        /// File to write [default: stdout].
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace the file.
        #[arg(long)]
        overwrite: bool,
    },
}

impl Command for Generate {
    fn prepare(self) -> Result<Prepared> {
        Ok(Prepared::Described(Box::new(move |mut command, report| {
            match &self.what {
                What::Man { output, overwrite } => {
                    pages(report, command, output.as_deref(), *overwrite)
                }
                What::Completions {
                    shell,
                    output,
                    overwrite,
                } => {
                    let mut bytes = Vec::new();
                    clap_complete::generate(*shell, &mut command, "shardloom", &mut bytes);
                    given(report, output.as_deref(), *overwrite, &bytes)
                }
            }
            .map(|()| true)
        })))
    }
}

/// Writes `bytes` to a file, or as the result.
fn given(report: &Report, output: Option<&Path>, overwrite: bool, bytes: &[u8]) -> Result<()> {
    match output {
        None => {
            let text = String::from_utf8_lossy(bytes);
            let mut told = Text::default();
            let shown = text.replace('\t', "    ");
            shown.trim_end().lines().for_each(|line| told.line(line));
            report.data(&json!({ "text": text }), &told)
        }
        Some(output) => {
            check_output(output, overwrite, &[])?;
            write_single(output, bytes)?;
            told(report, &[output.display().to_string()])
        }
    }
}

/// The program's page, or a page for each command in a directory.
fn pages(
    report: &Report,
    mut command: clap::Command,
    output: Option<&Path>,
    overwrite: bool,
) -> Result<()> {
    command.build();
    let Some(directory) = output else {
        return given(report, None, overwrite, &page(&command, "shardloom")?);
    };
    let mut pages = Vec::new();
    all_pages(&command, "shardloom", &mut pages)?;
    for (name, _) in &pages {
        check_output(&directory.join(name), overwrite, &[])?;
    }
    let mut files = Vec::new();
    for (name, bytes) in pages {
        let path = directory.join(name);
        write_single(&path, &bytes)?;
        files.push(path.display().to_string());
    }
    told(report, &files)
}

fn told(report: &Report, files: &[String]) -> Result<()> {
    let mut text = Text::default();
    for file in files {
        text.line(file);
    }
    report.data(&json!({ "files": files }), &text)
}

/// The page of a command and of those in it: the file's name, and its text.
pub(super) fn all_pages(
    command: &clap::Command,
    name: &str,
    pages: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    pages.push((format!("{name}.1"), page(command, name)?));
    for inside in command.get_subcommands() {
        if inside.get_name() != "help" && !inside.is_hide_set() {
            all_pages(inside, &format!("{name}-{}", inside.get_name()), pages)?;
        }
    }
    Ok(())
}

/// A command's page; its examples are what clap has before the help.
fn page(command: &clap::Command, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut shown = command.clone();
    if let Some(examples) = command.get_before_help() {
        shown = shown.after_help(examples.clone());
    }
    let made = clap_mangen::Man::new(shown).title(name).render(&mut bytes);
    made.map_err(|error| Fault::new(Kind::Internal, format!("no page for {name}: {error}")))?;
    Ok(bytes)
}
