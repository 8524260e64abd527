//! `--lora`: an adapter to merge into the weights on their way.

use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::model;
use crate::plan::lora::Meaning;
use crate::source::adapter::{CONFIG, WEIGHTS, meaning};
use crate::source::derived::{Derived, Lora};
use crate::source::nothing::absent;
use crate::source::one_set;
use crate::store::Format;
use crate::store::cache::refuse_cache;
use crate::store::io::{self, ReadFile, Standing};
use crate::store::json;
use clap::Args;
use std::path::{Path, PathBuf};

/// What PEFT wrote before there was safetensors.
const PICKLED: &str = "adapter_model.bin";

/// Which adapter, and how much of it.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoraArgs {
    /// Merge this adapter: a directory with adapter_model.safetensors and adapter_config.json, or one
    /// file. Its names must be those of the source's weights, and every node must see it.
    #[arg(long, value_name = "DIR")]
    pub(crate) lora: Option<PathBuf>,
    /// What B * A is multiplied by [default: lora_alpha / r of adapter_config.json]. Without --lora,
    /// merges the pairs that lie among the source's own tensors.
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    pub(crate) lora_scaling: Option<f64>,
}

/// Whether head and embedding are one, as config.json says.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct UntieArgs {
    /// Give a model whose tie_word_embeddings is true a head of its own: that in the files, or else a copy of the
    /// embedding. An adapter then changes each for itself.
    #[arg(long)]
    pub(crate) untie: bool,
}

impl LoraArgs {
    /// What the adapter, if one is asked for, makes of the source's tensors.
    ///
    /// # Errors
    /// [`Kind::Usage`] if nothing says how much of it, [`Kind::MissingShard`] and
    /// [`Kind::Ambiguous`] if its file can't be told, [`Kind::Unsupported`] for kinds of adapters
    /// that are no plain pairs.
    pub(crate) fn derived(&self) -> Result<Derived> {
        Ok(Derived {
            lora: self.adapter()?,
            ..Derived::default()
        })
    }

    /// The adapter to merge, if one is asked for.
    fn adapter(&self) -> Result<Option<Lora>> {
        if let Some(scaling) = self
            .lora_scaling
            .filter(|factor| factor.is_nan() || factor.abs() > f64::from(f32::MAX))
        {
            let message = format!("--lora-scaling {scaling} is no number to multiply by");
            return Err(Fault::new(Kind::Usage, message));
        }
        let Some(path) = &self.lora else {
            let meaning = self.lora_scaling.map(Meaning::plain);
            return Ok(meaning.map(|meaning| Lora {
                file: None,
                given: None,
                meaning,
            }));
        };
        refuse_model(path)?;
        let (directory, file) = match io::standing(path)? {
            Standing::Nothing => return Err(absent(path)),
            Standing::Directory | Standing::EmptyDirectory => (path.as_path(), weights_in(path)?),
            _ => {
                // What is no file is called that first.
                ReadFile::glance(path)?;
                (path.parent().unwrap_or(Path::new("")), path.clone())
            }
        };
        refuse_part(&file)?;
        let config = directory.join(CONFIG);
        json::refuse_dangling(&config)?;
        let described = io::size(&config)?.is_some();
        // The flag changes the factor, not what the file says else.
        let meaning = match self.lora_scaling {
            fixed if described => meaning(&config, fixed)?,
            Some(fixed) => Meaning::plain(fixed),
            None => {
                let message = format!("has no {CONFIG} beside it");
                return Err(Fault::new(Kind::Usage, message)
                    .file(file.display().to_string())
                    .hint("--lora-scaling FACTOR says what B * A is multiplied by"));
            }
        };
        Ok(Some(Lora {
            file: Some(file),
            given: Some(path.clone()),
            meaning: Meaning {
                apart: model::experts_apart()?,
                ..meaning
            },
        }))
    }
}

/// Refuses a model where an adapter is asked for.
fn refuse_model(directory: &Path) -> Result<()> {
    if io::standing(directory)? != Standing::Directory {
        return Ok(());
    }
    if io::standing(&directory.join(CONFIG))? == Standing::Nothing {
        refuse_cache(directory)?;
    }
    let has = |name: &str| io::standing(&directory.join(name)).map(|found| found == Standing::File);
    if !has(model::CONFIG)? || has(CONFIG)? || has(WEIGHTS)? {
        return Ok(());
    }
    let message = format!(
        "--lora: it is a model, with {} and without {CONFIG}",
        model::CONFIG
    );
    let fault = Fault::new(Kind::Usage, message).file(directory.display().to_string());
    Err(fault.hint(below(directory)?.unwrap_or_else(whole)))
}

/// What an adapter's directory has.
fn whole() -> String {
    format!("an adapter's directory has {CONFIG} and {WEIGHTS}")
}

/// Which directories in this one are adapters, as PEFT saves those that have a name, and a trainer its steps; none: none.
fn below(directory: &Path) -> Result<Option<String>> {
    let mut adapters = Vec::new();
    for (name, is_directory) in io::list(directory)? {
        let inside = directory.join(&name);
        if is_directory && io::standing(&inside.join(CONFIG))? == Standing::File {
            adapters.push(inside.display().to_string());
        }
    }
    Ok((!adapters.is_empty()).then(|| match &adapters[..] {
        [one] => format!("an adapter is in {one}: give that"),
        _ => format!("adapters are in {}: give one of them", first(&adapters, 3)),
    }))
}

/// Refuses a file that is one of several, which have parts of an adapter each.
fn refuse_part(file: &Path) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let Some(set) = one_set(std::iter::once(&*name)) else {
        return Ok(());
    };
    let message = "is one of several files, and an adapter is read from one";
    let fault = Fault::new(Kind::Unsupported, message).file(file.display().to_string());
    let directory = file.parent().unwrap_or(Path::new(".")).display();
    Err(fault.hint(format!(
        "`shardloom unify --src {directory} --weights '{set}' --dst DIR` makes one of them: copy {CONFIG} to DIR, and \
         give that"
    )))
}

/// The weights of an adapter's directory.
fn weights_in(directory: &Path) -> Result<PathBuf> {
    let names = io::list(directory)?.into_iter();
    let mut names: Vec<String> = names
        .filter(|(name, is_directory)| !is_directory && Format::of(name).is_some())
        .map(|(name, _)| name)
        .collect();
    if names.iter().any(|name| name == WEIGHTS) {
        return Ok(directory.join(WEIGHTS));
    }
    let at = directory.display().to_string();
    match (names.pop(), names.pop()) {
        (Some(name), None) => Ok(directory.join(name)),
        (Some(one), Some(_)) if one_set(std::iter::once(one.as_str())).is_some() => {
            Ok(directory.join(one))
        }
        (Some(one), Some(other)) => {
            let message = format!("has '{other}' and '{one}': which is the adapter?");
            Err(Fault::new(Kind::Ambiguous, message)
                .file(at)
                .hint("give the file"))
        }
        (None, _) => {
            let pickled = directory.join(PICKLED);
            if io::standing(&pickled)? == Standing::File {
                return Ok(pickled);
            }
            let fault = Fault::new(Kind::MissingShard, format!("has no {WEIGHTS}")).file(at);
            Err(fault.hint(below(directory)?.unwrap_or_else(whole)))
        }
    }
}
