//! A job as files describe it.

use super::job::Job;
use super::seen::{JOINED, LATENT, Seen};
use super::sizes::{Sizes, as_typed};
use crate::config::based::Layered;
use crate::config::job_yaml::JobConfig;
use crate::config::train_yaml::YAML_BYTES_MAX;
use crate::fault::{Fault, Kind, Result};
use crate::model::choices::{Fusion, Scheme};
use crate::model::described::{CONFIG, SMALL_BYTES_MAX};
use crate::model::family::Family;
use crate::store::cache::refuse_cache;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::json;
use crate::tensor::dtype::Dtype;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The job of the trainer's configuration in `yaml`; `model` is the model's directory or config.json, in
/// place of the `pretrained_model_dir` there. Local.
///
/// # Errors
/// [`Kind::Config`], naming the file; [`Kind::Io`].
pub fn configured(yaml: &Path, model: Option<&Path>) -> Result<Job> {
    launched(yaml, model, None)
}

/// The same with what its launcher is given in place of `use_parallel`. Local.
///
/// # Errors
/// As [`configured`].
pub fn launched(yaml: &Path, model: Option<&Path>, use_parallel: Option<bool>) -> Result<Job> {
    let name = yaml.display().to_string();
    let read = |path: &Path| ReadFile::open(path)?.read_all(YAML_BYTES_MAX);
    let keys = Layered::read(yaml, &read)?.merged()?;
    let mut config = JobConfig::of(&keys).map_err(|fault| fault.file(&*name))?;
    config.use_parallel = use_parallel.or(config.use_parallel);
    let model = match model {
        Some(path) => model_config(path)?.1,
        None => match beside(yaml, &config)? {
            Some(path) => model_config(&path)?.1,
            None => Map::new(),
        },
    };
    let job = Job::configured(&config, &model);
    job.map(|job| Job {
        origin: name.clone(),
        ..job
    })
    .map_err(|fault| fault.file(name))
}

/// The usual job with `parallel` (`dp=2,tp=4,pp=2`) and the names `seen` (none: those of the family's usual
/// job) of the model in `model`. Local.
///
/// # Errors
/// [`Kind::Usage`] for `parallel`, and as [`configured`].
pub fn usual(parallel: &str, seen: &Seen, model: &Path) -> Result<Job> {
    Described::read(model)?.job(&Sizes::parse(parallel)?, seen)
}

/// A model's configuration, read once for many layouts.
pub(super) struct Described {
    name: String,
    config: Map<String, Value>,
}

impl Described {
    /// That of the model in `model`. Local.
    pub(super) fn read(model: &Path) -> Result<Described> {
        let (path, config) = model_config(model)?;
        Ok(Described {
            name: path.display().to_string(),
            config,
        })
    }

    /// As [`usual`].
    pub(super) fn job(&self, sizes: &Sizes, seen: &Seen) -> Result<Job> {
        let job = Job::usual(seen, sizes, &self.config);
        job.map(|job| Job {
            origin: self.name.clone(),
            ..job
        })
        .map_err(|fault| as_typed(fault).file(self.name.clone()))
    }
}

/// How a training network has its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Formed {
    /// Whose names.
    pub names: Scheme,
    /// Query, key and value.
    pub qkv: Fusion,
    /// Gate and up.
    pub ffn: Fusion,
    /// The key that says something of query, key and value which depends on more than it.
    pub unclear: Option<&'static str>,
    /// Whether it is how networks of these names usually have them.
    pub is_usual: bool,
}

/// How the network of a trainer's configuration has its tensors. Local.
///
/// # Errors
/// As [`configured`].
pub fn formed(yaml: &Path) -> Result<Formed> {
    let read = |path: &Path| ReadFile::open(path)?.read_all(YAML_BYTES_MAX);
    let keys = Layered::read(yaml, &read)?.merged()?;
    let config = JobConfig::of(&keys).map_err(|fault| fault.file(yaml.display().to_string()))?;
    let own = &config.model.model_config;
    let says = |key: &str, otherwise: bool| {
        let value = own.get(key).and_then(Value::as_bool);
        value.unwrap_or(otherwise)
    };
    if config.use_legacy.unwrap_or(true) {
        let (fusion, joined) = match says(JOINED, false) {
            true => (Fusion::Interleaved, true),
            false => (Fusion::Separate, false),
        };
        return Ok(Formed {
            names: Scheme::Legacy,
            qkv: fusion,
            ffn: fusion,
            unclear: None,
            is_usual: !joined,
        });
    }
    let contiguous = "use_contiguous_weight_layout_attention";
    let unclear = says(contiguous, false).then_some(contiguous);
    let interleaved = says("use_interleaved_weight_layout_mlp", true);
    Ok(Formed {
        names: Scheme::Mcore,
        qkv: match unclear {
            Some(_) => Fusion::Contiguous,
            None => Fusion::Interleaved,
        },
        ffn: match interleaved {
            true => Fusion::Interleaved,
            false => Fusion::Contiguous,
        },
        unclear,
        is_usual: unclear.is_none() && interleaved,
    })
}

/// Whether the network of the trainer's configuration has latent projections in one: as it says, or as a network
/// of `family` has them by itself. Local.
///
/// # Errors
/// As [`configured`].
pub fn latent(yaml: &Path, family: &Family) -> Result<bool> {
    let read = |path: &Path| ReadFile::open(path)?.read_all(YAML_BYTES_MAX);
    let keys = Layered::read(yaml, &read)?.merged()?;
    let config = JobConfig::of(&keys).map_err(|fault| fault.file(yaml.display().to_string()))?;
    let own = config.model.model_config.get(LATENT);
    let training = family.training.as_ref();
    let value = own.or_else(|| training?.defaults.get(LATENT));
    let joined = value.and_then(Value::as_bool).unwrap_or(false);
    Ok(joined && !config.use_legacy.unwrap_or(true))
}

/// The type of a model's weights as its config.json tells; bfloat16 if it doesn't.
pub(super) fn element_type(model: &Path) -> Result<Dtype> {
    let (_, config) = model_config(model)?;
    let told = ["torch_dtype", "dtype"]
        .iter()
        .find_map(|key| config.get(*key)?.as_str());
    Ok(match told {
        Some("float32") => Dtype::F32,
        Some("float16") => Dtype::F16,
        _ => Dtype::BF16,
    })
}

/// The config.json that the trainer's configuration names: from where the trainer is started, or from
/// where its configuration lies.
fn beside(yaml: &Path, config: &JobConfig) -> Result<Option<PathBuf>> {
    let given = config.pretrained_model_dir.as_deref().unwrap_or_default();
    if given.is_empty() {
        return Ok(None);
    }
    let folder = yaml.parent().unwrap_or(Path::new(""));
    for path in [PathBuf::from(given), folder.join(given)] {
        let file = path.join(CONFIG);
        if io::standing(&file)? == Standing::File {
            return Ok(Some(file));
        }
    }
    // All that is needed may stand in the configuration itself.
    let own = &config.model.model_config;
    let named = config.model.arch.class.is_some()
        || ["model_type", "architectures"]
            .iter()
            .any(|key| own.contains_key(*key));
    if named && own.contains_key("hidden_size") {
        return Ok(None);
    }
    let fault = Fault::new(
        Kind::Config,
        format!("pretrained_model_dir is '{given}', where no config.json is"),
    );
    Err(fault
        .file(yaml.display().to_string())
        .hint("--model: the model's directory, or its config.json"))
}

/// The config.json in a directory, or a file of any name.
fn model_config(path: &Path) -> Result<(PathBuf, Map<String, Value>)> {
    if io::standing(path)? == Standing::Directory
        && io::standing(&path.join(CONFIG))? == Standing::Nothing
    {
        refuse_cache(path)?;
    }
    let path = match io::standing(path)? {
        Standing::Directory | Standing::EmptyDirectory => path.join(CONFIG),
        Standing::File | Standing::Nothing => path.to_path_buf(),
    };
    match json::parse(&json::bytes(&path, SMALL_BYTES_MAX)?) {
        Ok(config) => Ok((path, config)),
        Err(error) => {
            let fault = Fault::new(Kind::Config, format!("is no JSON object: {error}"));
            Err(fault.file(path.display().to_string()))
        }
    }
}
