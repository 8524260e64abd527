//! Which checkpoint is loaded, and where it stands in its job.

use crate::cli::load::sight::Sight;
use crate::config::train_yaml::{Asked, Resume, Shape, TrainConfig, scaled_steps};
use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::plan::arrange::{Files, RankName};
use crate::source::hyper_parameters::{Scalars, hyper_parameters};
use crate::source::latest::{latest, passed_over};
use crate::source::meta::Name;
use crate::source::named_ranks;
use crate::source::saved::{Checkpoint, Survey};
use crate::source::survey::survey;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A checkpoint's place and where it stands in its job.
pub(super) struct Chosen {
    pub(super) directory: PathBuf,
    pub(super) suffix: Option<String>,
    name: Option<Name>,
    scalars: Scalars,
    /// How many ranks saved it, where rank directories tell.
    ranks: Option<u32>,
    /// What the trainer takes of ranks' files by itself, on which ranks, and why that can't be used.
    taken: BTreeMap<Name, (Vec<u32>, Option<String>)>,
}

impl Chosen {
    /// The checkpoint in a directory of rank directories. Collective.
    pub(super) fn ranked(
        sight: &Sight<'_>,
        config: &TrainConfig,
        source: &Path,
        shape: &Shape,
    ) -> Result<Chosen> {
        let directory = match shape {
            Shape::RankFile => source
                .parent()
                .and_then(Path::parent)
                .unwrap_or(Path::new(".")),
            _ => source,
        };
        let survey = survey(sight.world, &sight.topology, directory, None, true)?;
        let wanted = match (&config.resume_training, shape) {
            (_, Shape::RankFile) => source
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
            (Some(Resume::File(file)), _) => Some(with_extension(file, config)),
            _ => None,
        };
        let chosen = match wanted {
            Some(file) => Some(named(&survey, &file)?),
            None if survey.checkpoints.is_empty() => None,
            None => {
                let found = latest(&survey)?;
                let note = passed_over(&survey, found).filter(|_| sight.world.process() == 0);
                if let Some(note) = note {
                    tracing::warn!("{}: {note}", survey.directory.display());
                }
                Some(found)
            }
        };
        let told = matches!(config.resume_training, Some(Resume::File(_)));
        Ok(Chosen {
            taken: match chosen.filter(|_| told) {
                Some(chosen) => BTreeMap::from([(chosen.name.clone(), (Vec::new(), None))]),
                None => taken(&survey, config.resumes()),
            },
            directory: survey.directory.clone(),
            suffix: chosen.map(|checkpoint| checkpoint.name.suffix()),
            name: chosen.map(|checkpoint| checkpoint.name.clone()),
            scalars: Scalars {
                step: chosen.map(|checkpoint| checkpoint.step),
                epoch: chosen.and_then(|checkpoint| checkpoint.epoch),
                batch: chosen.and_then(|checkpoint| checkpoint.global_batch_size),
            },
            ranks: Some(survey.ranks),
        })
    }

    /// A checkpoint 2.0, which tells its own layout. Local.
    pub(super) fn iteration(config: &TrainConfig, source: &Path) -> Result<Chosen> {
        if config.resumes() {
            return Err(Fault::new(
                Kind::Config,
                "a checkpoint 2.0 is resumed from by a trainer of checkpoint 2.0 alone",
            )
            .file(source.display().to_string())
            .hint(
                "use_legacy_format: False makes it one; without resume_training its weights go anywhere",
            ));
        }
        Ok(Chosen {
            directory: source.to_path_buf(),
            suffix: None,
            name: None,
            scalars: Scalars::default(),
            ranks: None,
            taken: BTreeMap::new(),
        })
    }

    /// Full weights; with the state that a resumed job needs. Collective.
    pub(super) fn full(sight: &Sight<'_>, config: &TrainConfig, source: &Path) -> Result<Chosen> {
        let scalars = hyper_parameters(sight.world, source)?;
        if config.resumes() && scalars.is_none() {
            return Err(Fault::new(
                Kind::Config,
                "resume_training is set and these weights have no hyper_param.safetensors",
            )
            .file(source.display().to_string())
            .hint(
                "`shardloom unify` writes it, from checkpoints that hold the optimizer's state",
            ));
        }
        let scalars = scalars.unwrap_or_default();
        let name = scalars.epoch.zip(scalars.step).map(|(epoch, step)| Name {
            repeat: None,
            epoch,
            step,
            prefix: "shardloom".into(),
            ranked: true,
            iteration: false,
            extension: "safetensors".into(),
        });
        Ok(Chosen {
            directory: source.to_path_buf(),
            suffix: None,
            name,
            scalars,
            ranks: None,
            taken: BTreeMap::new(),
        })
    }

    /// Refuses weights that another number of ranks saved than will load them as they are. Local.
    ///
    /// # Errors
    /// [`Kind::Config`], naming both.
    pub(super) fn check_ranks(&self, config: &TrainConfig, asked: &Asked) -> Result<()> {
        let (Some(saved), Some(job)) = (self.ranks, config.ranks()) else {
            return Ok(());
        };
        if u64::from(saved) == job {
            return Ok(());
        }
        let message = format!(
            "{} has the weights of {saved} {}, parallel_config asks for {job}, and auto_trans_ckpt is \
             False: each rank would load a file of another layout",
            asked.key,
            if saved == 1 { "rank" } else { "ranks" }
        );
        Err(Fault::new(Kind::Config, message)
            .hint("auto_trans_ckpt: True brings them into the job's layout"))
    }

    /// Whether it is what the trainer takes by itself. Local.
    pub(super) fn is_taken(&self) -> bool {
        self.taken.keys().eq(&self.name)
    }

    /// Refuses ranks' files of which the trainer would take several steps, or one that can't be used. Local.
    ///
    /// # Errors
    /// [`Kind::Config`], naming them.
    pub(super) fn check_taken(&self) -> Result<()> {
        let newest = self.taken.iter().rev();
        let mut unfit = newest.clone();
        let unfit = unfit.find_map(|(name, (_, why))| Some((name, why.as_ref()?)));
        let told = match (self.taken.len(), unfit) {
            (0 | 1, None) => return Ok(()),
            (0 | 1, Some((name, why))) => format!("{}, which can't be used: {why}", name.suffix()),
            _ => {
                let told = newest.map(|(name, (ranks, _))| {
                    format!("{} on {}", name.suffix(), named_ranks(ranks))
                });
                told.collect::<Vec<_>>().join("; ")
            }
        };
        let message = format!(
            "auto_trans_ckpt is False, and of these directories the trainer would take {told}"
        );
        let suffix = self.suffix.as_deref().unwrap_or_default();
        Err(Fault::new(Kind::Config, message).hint(format!(
            "auto_trans_ckpt: True writes {suffix}, which all ranks have, into a directory of its own"
        )))
    }

    /// For people: what each rank loads of its own.
    pub(super) fn own_files(&self) -> String {
        let told = "each rank loads its own file: auto_trans_ckpt is False";
        match self.taken.first_key_value() {
            Some((last, _)) if !self.is_taken() => {
                format!(
                    "{told}; it is that which was written last, {}",
                    last.suffix()
                )
            }
            _ => told.to_owned(),
        }
    }

    /// For people: which it is, where there were several.
    pub(super) fn note(&self) -> Option<String> {
        let step = self.scalars.step?;
        let suffix = self.suffix.as_ref()?;
        Some(format!("checkpoint {suffix} (step {step})"))
    }

    /// Where a resumed job goes on: the step that was saved, and the new job's.
    pub(super) fn steps(&self, config: &TrainConfig) -> Option<(u64, u64)> {
        let step = self.scalars.step.filter(|_| config.resumes())?;
        let initial = match (self.scalars.batch, config.global_batch_size()) {
            (Some(saved), Some(new)) => scaled_steps(step, saved, new),
            _ => step,
        };
        Some((step, initial))
    }

    /// The same for programs.
    pub(super) fn resume(&self, config: &TrainConfig) -> Option<Value> {
        let (step, initial) = self.steps(config)?;
        Some(json!({
            "step": step, "epoch": self.scalars.epoch, "initial_step": initial,
            "global_batch_size": {
                "saved": self.scalars.batch, "new": config.global_batch_size(),
            },
        }))
    }

    /// The files to write: named as the source's are, so that the trainer can resume from them.
    pub(super) fn files(&self) -> Files {
        match &self.name {
            Some(name) if name.ranked => name.files(false),
            _ => Files::Ranks {
                name: RankName::new("net", false),
                remove_redundancy: false,
            },
        }
    }
}

/// What a trainer takes of a directory by itself: where it resumes, what the ranks' `meta.json` and the files' names tell,
/// whatever is in them; else, and without any `meta.json`, of each rank what was written last.
fn taken(survey: &Survey, resumes: bool) -> BTreeMap<Name, (Vec<u32>, Option<String>)> {
    let mut taken: BTreeMap<Name, (Vec<u32>, Option<String>)> = BTreeMap::new();
    let mut take = |checkpoint: &Checkpoint, rank: Option<u32>| {
        let (ranks, why) = taken.entry(checkpoint.name.clone()).or_default();
        ranks.extend(rank);
        why.clone_from(&checkpoint.why);
    };
    if resumes && !survey.metas.is_empty() {
        let by_names = survey.by_names();
        let chosen = latest(&by_names).ok().map(|chosen| &chosen.name);
        let mut own = survey.checkpoints.iter();
        if let Some(chosen) = own.find(|own| Some(&own.name) == chosen) {
            take(chosen, None);
        }
    } else {
        for (rank, checkpoint) in survey.last_written() {
            take(checkpoint, Some(rank));
        }
    }
    taken
}

/// Checkpoints named of many.
const WHOLE_TOLD: usize = 5;

/// The checkpoint that a file of this name belongs to, which must be complete.
fn named<'a>(survey: &'a Survey, file: &str) -> Result<&'a Checkpoint> {
    let at = survey.directory.display().to_string();
    let Some((name, _)) = Name::parse(file) else {
        let message = format!("'{file}' is no <prefix>_rank_<n>-<epoch>_<step>");
        return Err(Fault::new(Kind::Config, message).file(at));
    };
    let found = survey
        .checkpoints
        .iter()
        .find(|checkpoint| checkpoint.name == name);
    let why = match found {
        None => "no rank has it",
        Some(found) => match &found.why {
            None => return Ok(found),
            Some(why) => why,
        },
    };
    let message = format!("checkpoint {} can't be used: {why}", name.suffix());
    let fault = Fault::new(Kind::MissingShard, message).file(at);
    let whole = survey.checkpoints.iter().filter(|other| other.complete());
    let whole: Vec<String> = whole.map(|other| other.name.suffix()).collect();
    Err(match &whole[..] {
        [] => fault.hint("none there is whole: `shardloom checkpoints list` shows what lacks"),
        whole => fault.hint(format!("whole are {}", first(whole, WHOLE_TOLD))),
    })
}

fn with_extension(file: &str, config: &TrainConfig) -> String {
    let format = config.load_ckpt_format.as_deref().unwrap_or("safetensors");
    let file = file.rsplit('/').next().unwrap_or(file);
    if file.ends_with(&format!(".{format}")) {
        file.to_owned()
    } else {
        format!("{file}.{format}")
    }
}
