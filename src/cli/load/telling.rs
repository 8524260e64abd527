//! What `load` tells: people, programs, and the trainer by its configuration.

use crate::cli::command::Told;
use crate::cli::load::sight::Sight;
use crate::cli::output::write_output;
use crate::config::edit::{quoted, set_keys};
use crate::config::train_yaml::{Action, TrainConfig};
use crate::exchange::agree;
use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::Outcome;
use serde_json::{Map, Value, json};
use std::fmt::Write;
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

    /// Writes `config`, the configuration with these keys set, to `path`. Collective.
    pub(super) fn write_config(&self, sight: &Sight<'_>, config: &str, path: &Path) -> Result<()> {
        // A key that is spelt unusually would now be there twice: that is no YAML then.
        let text = set_keys(config, &self.yaml());
        TrainConfig::parse(&text)?;
        let written = if sight.world.process() == 0 {
            write_output(path, text.as_bytes())
        } else {
            Ok(())
        };
        agree(sight.world, written)
    }

    /// For people. Local.
    fn text(&self) -> String {
        let mut told = format!("load: {}", self.action.name());
        for note in &self.notes {
            let _ = write!(told, "\n  note       {note}");
        }
        if let Some(outcome) = &self.outcome {
            let _ = write!(
                told,
                "\n  written    {} files, {} bytes, in {:.3} s",
                outcome.files.len(),
                outcome.bytes.written,
                outcome.seconds.total
            );
        }
        for (key, value) in &self.yaml() {
            let _ = write!(told, "\n{key}: {value}");
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

/// A value as a YAML scalar.
fn scalar(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}
