//! `base_config`: files that a configuration is laid over.
//!
//! As the trainer does it: of several base files the later one's keys replace the earlier one's whole;
//! what the file itself says is merged into that key by key, through all sections.

use crate::config::misspelt;
use crate::config::no_yaml::no_yaml;
use crate::config::train_yaml::TrainConfig;
use crate::fault::{Fault, Kind, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The key.
pub const BASE: &str = "base_config";

/// Files that lie below one another, at most.
const DEPTH_MAX: usize = 16;

/// A file of a configuration, and those that it is laid over, which come before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layered {
    /// As the user or the file above names it.
    pub name: String,
    /// Its text.
    pub text: String,
    /// What it is laid over.
    pub bases: Vec<Layered>,
}

impl Layered {
    /// The file at `path` with those that it is laid over, each beside the one that names it; `read` gives
    /// a file's bytes.
    ///
    /// # Errors
    /// [`Kind::Config`], naming the file, for what is no text, and for files that lead on and on; those of
    /// `read`.
    pub fn read(path: &Path, read: &impl Fn(&Path) -> Result<Vec<u8>>) -> Result<Layered> {
        Layered::below(path, DEPTH_MAX, read)
    }

    fn below(
        path: &Path,
        depth: usize,
        read: &impl Fn(&Path) -> Result<Vec<u8>>,
    ) -> Result<Layered> {
        let name = path.display().to_string();
        let wrong = |message: String| Fault::new(Kind::Config, message).file(&*name);
        let Some(below) = depth.checked_sub(1) else {
            return Err(wrong(format!(
                "base_config leads on and on: more than {DEPTH_MAX} files, or in a ring"
            )));
        };
        let text = String::from_utf8(read(path)?);
        let text = text.map_err(|_| wrong("is no UTF-8 text".into()))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let names = bases(&text).map_err(|fault| fault.file(&*name))?;
        let bases = names
            .iter()
            .map(|base| Layered::below(&directory.join(base), below, read));
        let bases = bases.map(|base| {
            base.map_err(|fault| match fault.kind {
                Kind::Io => Fault {
                    message: format!("{} ({BASE} of {name})", fault.message),
                    ..fault
                },
                _ => fault,
            })
        });
        Ok(Layered {
            bases: bases.collect::<Result<_>>()?,
            name,
            text,
        })
    }

    /// The files that it is laid over, as they were found.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let below = self.bases.iter().flat_map(|base| {
            let own = std::iter::once(PathBuf::from(&base.name));
            own.chain(base.paths())
        });
        below.collect()
    }

    /// The configuration that all of them come to.
    ///
    /// # Errors
    /// [`Kind::Config`], naming the file.
    pub fn config(&self) -> Result<TrainConfig> {
        self.check()?;
        if self.bases.is_empty() {
            return TrainConfig::parse(&self.text).map_err(|fault| fault.file(&*self.name));
        }
        let named = |fault: Fault| fault.file(&*self.name);
        let config: TrainConfig = serde_json::from_value(Value::Object(self.merged()?))
            .map_err(|error| named(Fault::new(Kind::Config, error.to_string())))?;
        config.check().map_err(named)?;
        Ok(config)
    }

    /// Each file by itself, so that a fault has its place.
    fn check(&self) -> Result<()> {
        self.bases.iter().try_for_each(Layered::check)?;
        TrainConfig::parse(&self.text)
            .map(|_| ())
            .map_err(|fault| fault.file(&*self.name))
    }

    /// All keys that they come to.
    ///
    /// # Errors
    /// [`Kind::Config`], naming the file, for what is no YAML.
    pub fn merged(&self) -> Result<Map<String, Value>> {
        let mut all = Map::new();
        for base in &self.bases {
            all.extend(base.merged()?);
        }
        let own = keys(&self.text).map_err(|fault| fault.file(&*self.name))?;
        over(&mut all, own);
        Ok(all)
    }
}

/// The names that a text gives as its base.
///
/// # Errors
/// [`Kind::Config`] if these are no names, or the text is no YAML.
pub fn bases(text: &str) -> Result<Vec<String>> {
    let wrong = || {
        Fault::new(
            Kind::Config,
            format!("{BASE} is no file name and no list of them"),
        )
    };
    match keys(text)?.remove(BASE) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(name)) => Ok(vec![name]),
        Some(Value::Array(names)) => names
            .into_iter()
            .map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// All keys of a text; an empty one has none.
///
/// # Errors
/// [`Kind::Config`] for what is no YAML, and as [`misspelt::refuse`].
fn keys(text: &str) -> Result<Map<String, Value>> {
    let keys: Option<Map<String, Value>> =
        serde_saphyr::from_str(text).map_err(|error| no_yaml(&error))?;
    let keys = keys.unwrap_or_default();
    misspelt::refuse(&keys)?;
    Ok(keys)
}

/// Lays `above` over `below`.
fn over(below: &mut Map<String, Value>, above: Map<String, Value>) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => over(old, new),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Whether YAML is meant, by the ending of the name.
#[must_use]
pub fn is_yaml(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending == "yaml" || ending == "yml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, bases: Vec<Layered>) -> Layered {
        Layered {
            name: "x.yaml".into(),
            text: text.into(),
            bases,
        }
    }

    #[test]
    fn lays_a_file_over_its_bases() {
        let one = file(
            "parallel_config: {data_parallel: 2, model_parallel: 4}\nload_checkpoint: /a\nuse_parallel: True\n",
            Vec::new(),
        );
        let two = file("parallel_config: {data_parallel: 8}\n", Vec::new());
        let text = "base_config: [one.yaml, two.yaml]\nparallel_config: {model_parallel: 2}\nload_checkpoint: /b\n";
        assert_eq!(bases(text).unwrap(), ["one.yaml", "two.yaml"]);
        let config = file(text, vec![one, two]).config().unwrap();
        let mesh = config.parallel_config.unwrap();
        assert_eq!(
            (mesh.data_parallel, mesh.model_parallel),
            (Some(8), Some(2))
        );
        assert_eq!(config.load_checkpoint.as_deref(), Some("/b"));
        assert_eq!(config.use_parallel, Some(true));
        assert!(bases("base_config: 3").is_err());
    }
}
