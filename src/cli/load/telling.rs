//! What `load` tells: people, programs, and the trainer by its configuration.

use crate::cli::command::Told;
use crate::cli::load::sight::Sight;
use crate::cli::output::{check_output, try_output};
use crate::config::based::{BASE, Layered, bases};
use crate::config::edit::{quoted, set_keys};
use crate::config::train_yaml::{Action, TrainConfig, YAML_BYTES_MAX};
use crate::exchange::agree;
use crate::fault::plain::Text;
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::Outcome;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::single::write_single;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What was found, decided and done.
pub(super) struct Telling {
    pub(super) action: Action,
    /// For people: what was found and decided.
    pub(super) notes: Vec<String>,
    /// What the trainer's configuration must say.
    pub(super) keys: Map<String, Value>,
    /// Where a resumed job goes on.
    pub(super) resume: Option<Value>,
    /// What the job did, if there was one.
    pub(super) outcome: Option<Outcome>,
    /// Whether nothing was to be written.
    pub(super) dry_run: bool,
}

impl Telling {
    /// Nothing yet, but what is to be done.
    pub(super) fn new(action: Action) -> Telling {
        Telling {
            action,
            notes: Vec::new(),
            keys: Map::new(),
            resume: None,
            outcome: None,
            dry_run: false,
        }
    }

    /// The same with a note.
    pub(super) fn noted(mut self, note: impl Into<String>) -> Telling {
        self.notes.push(note.into());
        self
    }

    /// What the configuration's key `key` must be.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.keys.insert(key.into(), value.into());
    }

    /// The keys as YAML.
    fn yaml(&self) -> Vec<(&str, String)> {
        let pairs = self.keys.iter();
        pairs
            .map(|(key, value)| (key.as_str(), scalar(value)))
            .collect()
    }

    /// Writes the configuration with these keys set to `path`. Collective.
    pub(super) fn write_config(
        &self,
        sight: &Sight<'_>,
        config: &Layered,
        path: &Path,
    ) -> Result<()> {
        let text = with_keys(config, path, &self.yaml())?;
        let written = if sight.world.process() == 0 {
            write_single(path, text.as_bytes())
        } else {
            Ok(())
        };
        agree(sight.world, written)
    }

    /// For people. Local.
    fn text(&self) -> Text {
        let dry = if self.dry_run {
            " (dry run: nothing is written)"
        } else {
            ""
        };
        let mut told = Text::new(format_args!("load: {}{dry}", self.action));
        for note in &self.notes {
            told.line(format_args!("  note       {note}"));
        }
        if let Some(outcome) = &self.outcome {
            let (would, time) = if self.dry_run {
                ("would write", String::new())
            } else {
                (
                    "written    ",
                    format!(", in {:.3} s", outcome.seconds.total),
                )
            };
            let files = match outcome.files.len() {
                0 => String::new(),
                files => format!("{}, ", counted(files as u64, "file")),
            };
            let bytes = outcome.bytes.written;
            told.line(format_args!("  {would} {files}{bytes} bytes{time}"));
        }
        if self.dry_run && !self.keys.is_empty() {
            told.line("  the configuration would say:");
        }
        for (key, value) in &self.yaml() {
            told.line(format_args!("{key}: {value}"));
        }
        told
    }

    /// All of it. Local.
    pub(super) fn told(self, sight: &Sight<'_>) -> Result<Told> {
        let text = self.text();
        let outcome = self.outcome.unwrap_or_else(|| Outcome {
            schema: 1,
            command: "load".into(),
            ok: true,
            processes: sight.world.size(),
            nodes: u32::try_from(sight.topology.nodes.len()).unwrap_or(u32::MAX),
            ..Outcome::default()
        });
        let mut fields = serde_json::to_value(&outcome)
            .map_err(|error| Fault::new(Kind::Internal, format!("can't write JSON: {error}")))?;
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("action".into(), json!(self.action.name()));
            fields.insert("config".into(), Value::Object(self.keys));
            fields.insert("notes".into(), json!(self.notes));
            if let Some(resume) = self.resume {
                fields.insert("resume".into(), resume);
            }
        }
        Ok(Told::data(fields, text))
    }
}

/// Whether the configuration with its keys set can be written to `path`, asked before any work.
/// Collective.
///
/// # Errors
/// The same on every process: [`Kind::Exists`] for a directory and for a file that is no training configuration,
/// [`Kind::Io`], [`Kind::Config`].
pub(super) fn check_writable(
    sight: &Sight<'_>,
    config: &Layered,
    read: &[(&'static str, &Path)],
    path: &Path,
) -> Result<()> {
    let tried = if sight.world.process() == 0 {
        let keys = [
            ("load_checkpoint", quoted("")),
            ("use_parallel", "True".to_owned()),
        ];
        check_output(path, true, read)
            .and_then(|()| replaceable(path))
            .and_then(|()| with_keys(config, path, &keys))
            .and_then(|_| try_output(path))
    } else {
        Ok(())
    };
    agree(sight.world, tried)
}

/// The configuration's text with these keys, as it is to stand at `path`.
fn with_keys(config: &Layered, path: &Path, keys: &[(&str, String)]) -> Result<String> {
    let mut keys = keys.to_vec();
    let here = Path::new(&config.name).parent();
    if !config.bases.is_empty() && path.parent() != here {
        // What it is laid over is named from its own directory.
        let directory = io::resolve(io::room(Path::new(&config.name)))?;
        let names = bases(&config.text)?;
        let names: Vec<String> = names
            .iter()
            .map(|name| quoted(&directory.join(name).display().to_string()))
            .collect();
        keys.push((BASE, format!("[{}]", names.join(", "))));
    }
    // A key that is spelt unusually would now be there twice: that is no YAML then.
    let text = set_keys(&config.text, &keys);
    TrainConfig::parse(&text).map_err(|fault| {
        let fault = fault.file(&*config.name);
        fault.hint(
            "its keys can't be set, as they aren't each on a line of its own: without --write-config they are printed, \
             to be set by hand",
        )
    })?;
    Ok(text)
}

/// A value as a YAML scalar.
fn scalar(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// Whether what stands at `path` is a training configuration, or nothing. Local.
fn replaceable(path: &Path) -> Result<()> {
    if io::standing(path)? != Standing::File {
        return Ok(());
    }
    let read = |path: &Path| ReadFile::open(path)?.read_all(YAML_BYTES_MAX);
    let layered = Layered::read(path, &read);
    let known = layered.and_then(|layered| layered.config()?.check_any());
    known.map_err(|_| {
        Fault::new(
            Kind::Exists,
            "is no training configuration, and would be lost",
        )
        .file(path.display().to_string())
        .hint("give another name, or move it away")
    })
}
