//! `shardloom config`: what holds where a flag isn't given, and who says so.

use crate::cli::command::{Command, Prepared};
use crate::cli::settings::{KEYS, Origin, Settings};
use crate::fault::Result;
use crate::fault::plain::Text;
use crate::report::Report;
use clap::Args;
use serde_json::{Map, json};

const EXAMPLES: &str = "\
Examples:
  shardloom config
  shardloom config --json
  shardloom config --memory 4GiB";

/// Show what holds for memory, threads, machine and MPI, and where it is set.
///
/// A flag goes before the environment (SHARDLOOM_MEMORY, SHARDLOOM_THREADS, SHARDLOOM_MACHINE,
/// SHARDLOOM_MPI), that before the file, and the file before what the program has by itself. The file
/// is the one that SHARDLOOM_CONFIG names, else shardloom.toml in $XDG_CONFIG_HOME or ~/.config.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Config {
    /// As another command would be given it.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// As another command would be given it.
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// As another command would be given it.
    #[arg(long, value_name = "JSON")]
    machine: Option<String>,
    /// As another command would be given it.
    #[arg(long, value_name = "MPI")]
    mpi: Option<String>,
}

impl Command for Config {
    fn prepare(self) -> Result<Prepared> {
        let mut settings = Settings::read()?;
        for (name, value) in [
            ("memory", self.memory),
            ("threads", self.threads),
            ("machine", self.machine),
            ("mpi", self.mpi),
        ] {
            if let Some(value) = value {
                settings.set(name, value, Origin::Flag(name))?;
            }
        }
        Ok(Prepared::alone(move |report| show(&settings, report)))
    }
}

fn show(settings: &Settings, report: &Report) -> Result<bool> {
    let file = settings
        .file
        .as_ref()
        .map(|path| path.display().to_string());
    let state = match (&file, settings.file_read) {
        (None, _) => "no file is read".to_owned(),
        (Some(file), true) => format!("file: {file}"),
        (Some(file), false) => format!("file: {file}, which isn't there"),
    };
    let mut text = Text::default();
    let mut rows = Map::new();
    for key in KEYS {
        let (value, from) = match settings.values.get(key.name) {
            Some((value, from)) => (Some(value.as_str()), from.clone()),
            None => (key.default, Origin::Default),
        };
        let shown = value.unwrap_or("not set");
        text.line(format_args!("{:<8} {shown:<12} {from}", key.name));
        let row = json!({ "value": value, "from": from.word(), "where": from.place() });
        rows.insert(key.name.to_owned(), row);
    }
    text.line(state);
    let fields = json!({ "file": file, "file_read": settings.file_read, "settings": rows });
    report.data(&fields, &text)?;
    Ok(true)
}
