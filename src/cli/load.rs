//! `shardloom load`: the weights that a training configuration asks for, ready for the trainer.

use crate::checkpoint::latest::latest;
use crate::checkpoint::meta::Name;
use crate::checkpoint::survey::{Scalars, hyper_parameters, survey};
use crate::cli::Told;
use crate::cli::args::{LoadArgs, WrittenFormat};
use crate::cli::jobs::written;
use crate::cli::strategy::write_output;
use crate::config::edit::{quoted, set_keys};
use crate::config::train_yaml::{Action, Resume, Shape, TrainConfig, YAML_BYTES_MAX, scaled_steps};
use crate::exchange::{Topology, World, agree, all_gather_bytes, broadcast_bytes, decode, encode};
use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::Outcome;
use crate::job::{Goal, Job, Write, run as run_job};
use crate::plan::arrange::{Files, RankName};
use crate::plan::build::{Leftovers, Select};
use crate::source::Reading;
use crate::source::derived::Derived;
use crate::source::strategy_files::read_strategy;
use crate::store::io::{self, ReadFile, Standing};
use crate::strategy::Strategy;
use crate::transport::Observer;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Directory of the output that is written where nothing else is said.
const DESTINATION: &str = "shardloom_checkpoint";

/// What is known on the way from the configuration to the job.
struct Load<'a> {
    world: &'a World,
    topology: Topology,
    args: &'a LoadArgs,
    config: TrainConfig,
    /// For people: what was found and decided.
    notes: Vec<String>,
}

/// A checkpoint's place and where it stands in its job.
struct Chosen {
    directory: PathBuf,
    suffix: Option<String>,
    name: Option<Name>,
    scalars: Scalars,
}

/// Runs it. Collective.
pub(super) fn run(world: &World, args: &LoadArgs, observer: &mut Observer<'_>) -> Result<Told> {
    let text = read_config(world, &args.config)?;
    let named = |fault: Fault| fault.file(args.config.display().to_string());
    let mut load = Load {
        world,
        topology: Topology::discover(world)?,
        args,
        config: TrainConfig::parse(&text).map_err(named)?,
        notes: Vec::new(),
    };
    let Some(source) = load.config.source().map_err(named)? else {
        load.notes
            .push("no weights are asked for: the trainer starts from random ones".into());
        return load.tell(Action::None, Map::new(), None, &text);
    };
    let shape = load.shape(&source)?;
    let action = load
        .config
        .action(&shape)
        .map_err(|fault| named(fault).hint(format!("load_checkpoint: {}", source.display())))?;
    match action {
        Action::None | Action::Import => load.leave(&source, &shape, action, &text),
        Action::Split => {
            let chosen = load.full(&source)?;
            load.job(action, chosen, None, &text, observer)
        }
        Action::Reshard if shape == Shape::Iteration => {
            let chosen = load.iteration(&source)?;
            load.job(action, chosen, None, &text, observer)
        }
        Action::Reshard => {
            let chosen = load.choose(&source, &shape)?;
            let strategy = load.source_strategy(&source, &shape)?;
            load.job(action, chosen, Some(strategy), &text, observer)
        }
    }
}

/// The configuration as process 0 reads it. Collective.
fn read_config(world: &World, path: &Path) -> Result<String> {
    let bytes = if world.process() == 0 {
        ReadFile::open(path).and_then(|file| file.read_all(YAML_BYTES_MAX))
    } else {
        Ok(Vec::new())
    };
    let bytes = broadcast_bytes(world, 0, agree(world, bytes)?)?;
    String::from_utf8(bytes)
        .map_err(|_| Fault::new(Kind::Config, "is no UTF-8 text").file(path.display().to_string()))
}

impl Load<'_> {
    /// What the first node that sees something at `path` finds there. Collective.
    fn shape(&self, path: &Path) -> Result<Shape> {
        let leads = self.topology.leads(self.world.process());
        let format = self
            .config
            .load_ckpt_format
            .as_deref()
            .unwrap_or("safetensors");
        let mine = if leads { look(path, format) } else { Ok(None) };
        let mine = agree(self.world, mine)?;
        let bytes = agree(self.world, encode(&mine.map(code)))?;
        let all = all_gather_bytes(self.world, &bytes)?;
        let all: Result<Vec<Option<u8>>> = all.iter().map(|bytes| decode(bytes)).collect();
        let found = agree(self.world, all)?.into_iter().flatten().min();
        found.map(shape_of).ok_or_else(|| {
            Fault::new(
                Kind::Config,
                format!("load_checkpoint has no .{format} weights, or doesn't exist"),
            )
            .file(path.display().to_string())
            .hint("expected a file, a directory of full weights, or one with rank_<n>/ directories")
        })
    }

    /// Whether some node sees something at `path`. Collective.
    fn anywhere(&self, path: &Path) -> Result<bool> {
        let standing = agree(self.world, io::standing(path))?;
        let seen = !matches!(standing, Standing::Nothing | Standing::EmptyDirectory);
        let all = all_gather_bytes(self.world, &[u8::from(seen)])?;
        Ok(all.iter().any(|seen| seen == &[1]))
    }

    /// The checkpoint in a directory of rank directories. Collective.
    fn choose(&mut self, source: &Path, shape: &Shape) -> Result<Chosen> {
        let directory = match shape {
            Shape::RankFile => source
                .parent()
                .and_then(Path::parent)
                .unwrap_or(Path::new(".")),
            _ => source,
        };
        let survey = survey(self.world, &self.topology, directory, None, true)?;
        let wanted = match (&self.config.resume_training, shape) {
            (_, Shape::RankFile) => source
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
            (Some(Resume::File(file)), _) => Some(with_extension(file, &self.config)),
            _ => None,
        };
        let chosen = match wanted {
            Some(file) => {
                let Some((name, _)) = Name::parse(&file) else {
                    let message = format!("'{file}' is no <prefix>_rank_<n>-<epoch>_<step>");
                    return Err(
                        Fault::new(Kind::Config, message).file(directory.display().to_string())
                    );
                };
                let found = survey
                    .checkpoints
                    .iter()
                    .find(|checkpoint| checkpoint.name == name);
                let why = found.map_or(Some("no rank has it"), |found| found.why.as_deref());
                if let Some(why) = why {
                    let message = format!("checkpoint {} can't be used: {why}", name.suffix());
                    return Err(Fault::new(Kind::MissingShard, message)
                        .file(directory.display().to_string()));
                }
                found
            }
            None if survey.checkpoints.is_empty() => None,
            None => Some(latest(&survey)?),
        };
        if let Some(chosen) = chosen {
            self.notes.push(format!(
                "checkpoint {} (step {})",
                chosen.name.suffix(),
                chosen.step
            ));
        }
        Ok(Chosen {
            directory: survey.directory.clone(),
            suffix: chosen.map(|checkpoint| checkpoint.name.suffix()),
            name: chosen.map(|checkpoint| checkpoint.name.clone()),
            scalars: Scalars {
                step: chosen.map(|checkpoint| checkpoint.step),
                epoch: chosen.map(|checkpoint| checkpoint.name.epoch),
                batch: chosen.and_then(|checkpoint| checkpoint.global_batch_size),
            },
        })
    }

    /// A checkpoint 2.0, which tells its own layout. Local.
    fn iteration(&self, source: &Path) -> Result<Chosen> {
        let stays = self.args.writing.format == Some(WrittenFormat::Checkpoint2);
        if self.config.resumes() && !stays {
            return Err(Fault::new(
                Kind::Config,
                "a checkpoint 2.0 is resumed from by a trainer of checkpoint 2.0 alone",
            )
            .file(source.display().to_string())
            .hint(
                "--format checkpoint2 writes one; without resume_training its weights go anywhere",
            ));
        }
        Ok(Chosen {
            directory: source.to_path_buf(),
            suffix: None,
            name: None,
            scalars: Scalars::default(),
        })
    }

    /// Full weights; with the state that a resumed job needs. Collective.
    fn full(&self, source: &Path) -> Result<Chosen> {
        let scalars = hyper_parameters(self.world, source)?;
        if self.config.resumes() && scalars.is_none() {
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
        })
    }

    /// Where the trainer that wrote the weights left their strategy. Collective.
    fn source_strategy(&self, source: &Path, shape: &Shape) -> Result<PathBuf> {
        let given = self
            .config
            .src_strategy_path_or_dir
            .as_deref()
            .unwrap_or_default();
        if !given.is_empty() {
            return Ok(PathBuf::from(given));
        }
        let up = if *shape == Shape::RankFile { 3 } else { 1 };
        let beside = (0..up)
            .try_fold(source, |path, _| path.parent())
            .unwrap_or(Path::new(""));
        let beside = beside.join("strategy");
        if self.anywhere(&beside)? {
            return Ok(beside);
        }
        Err(Fault::new(
            Kind::Config,
            "src_strategy_path_or_dir is empty and there is no strategy beside load_checkpoint",
        )
        .file(beside.display().to_string())
        .hint("set src_strategy_path_or_dir to the strategy of the job that wrote the weights"))
    }

    /// The strategy of the job that is to be started. Collective.
    fn strategy(&self, source: Option<&Path>) -> Result<PathBuf> {
        if let Some(given) = &self.args.dst_strategy {
            return Ok(given.clone());
        }
        let output = self.config.output();
        let (own, merged) = (
            output.join("strategy"),
            output.join("merged_strategy/dst_strategy.ckpt"),
        );
        // Where the weights were written by an earlier run into the same output, its strategy is
        // the source's.
        let own_first = source != Some(own.as_path());
        let order = if own_first {
            [&own, &merged]
        } else {
            [&merged, &own]
        };
        for candidate in order {
            if self.anywhere(candidate)? {
                return Ok(candidate.clone());
            }
        }
        Err(
            Fault::new(Kind::Config, "the job's strategy isn't there yet")
                .file(own.display().to_string())
                .hint("run the trainer once with only_save_strategy: True, or give --dst-strategy"),
        )
    }

    /// Weights that the trainer takes as they are.
    fn leave(mut self, source: &Path, shape: &Shape, action: Action, text: &str) -> Result<Told> {
        let mut resume = None;
        if *shape == Shape::Ranks {
            let chosen = self.choose(source, shape)?;
            resume = self.resume(&chosen);
            self.notes
                .push("each rank loads its own file: auto_trans_ckpt is False".into());
        } else if action == Action::Import {
            self.notes
                .push("Hugging Face weights: the trainer maps their names itself".into());
        } else {
            self.notes
                .push("full weights on one device: the trainer loads them as they are".into());
        }
        self.tell(action, Map::new(), resume, text)
    }

    /// Brings the weights into the job's layout, unless they have it already. Collective.
    fn job(
        mut self,
        action: Action,
        chosen: Chosen,
        source_strategy: Option<PathBuf>,
        text: &str,
        observer: &mut Observer<'_>,
    ) -> Result<Told> {
        let path = self.strategy(source_strategy.as_deref())?;
        let read = |path: Option<&Path>| {
            read_strategy(self.world, &self.topology, path).map(|(strategy, _)| strategy)
        };
        let strategy = read(Some(&path))?;
        self.check_ranks(strategy.as_ref(), &path)?;
        let same = source_strategy.is_some() && read(source_strategy.as_deref())? == strategy;
        let resume = self.resume(&chosen);
        let mut keys = Map::new();
        if same {
            self.notes
                .push("the weights have the job's layout already: nothing to do".into());
            keys.insert(
                "load_checkpoint".into(),
                json!(chosen.directory.display().to_string()),
            );
            keys.insert("auto_trans_ckpt".into(), json!(false));
            keys.insert("src_strategy_path_or_dir".into(), json!(""));
            return self.tell(Action::None, keys, resume, text);
        }
        let default = || self.config.output().join(DESTINATION);
        let destination = self.args.dst.clone().unwrap_or_else(default);
        let leftovers = if action == Action::Split {
            Leftovers::Split
        } else {
            Leftovers::Reshard(self.args.unmatched)
        };
        let job = Job {
            command: "load",
            reading: Reading {
                derived: Derived::default(),
                verify: self.args.writing.verify,
                ..Reading::checkpoint(
                    chosen.directory.clone(),
                    source_strategy,
                    chosen.suffix.clone(),
                )
            },
            goal: Goal::Write(Box::new(Write {
                select: Select::default(),
                leftovers,
                files: written(&self.args.writing, false, None, files(&chosen)),
                format: self.args.writing.format.map(WrittenFormat::of_files),
                view: None,
                extras: Vec::new(),
                writing: self.args.writing.writing(destination.clone(), Some(path)),
            })),
            moving: self.args.writing.moving(&self.args.moving)?,
            dry_run: self.args.writing.dry_run,
        };
        let outcome = run_job(self.world, &job, observer)?;
        keys.insert(
            "load_checkpoint".into(),
            json!(destination.display().to_string()),
        );
        let ckpt = outcome.files.iter().any(|file| file.ends_with(".ckpt"));
        keys.insert(
            "load_ckpt_format".into(),
            json!(if ckpt { "ckpt" } else { "safetensors" }),
        );
        keys.insert("auto_trans_ckpt".into(), json!(false));
        keys.insert("src_strategy_path_or_dir".into(), json!(""));
        keys.insert("use_parallel".into(), json!(true));
        keys.insert("remove_redundancy".into(), json!(false));
        if self.config.resumes() {
            keys.insert("resume_training".into(), json!(true));
        }
        self.finish(action, keys, resume, text, Some(outcome))
    }

    fn check_ranks(&self, strategy: Option<&Strategy>, path: &Path) -> Result<()> {
        let (Some(strategy), Some(ranks)) = (strategy, self.config.ranks()) else {
            return Ok(());
        };
        if ranks <= 1 || u64::from(strategy.ranks()) == ranks {
            return Ok(());
        }
        let message = format!(
            "is for {} ranks, parallel_config asks for {ranks}",
            strategy.ranks()
        );
        Err(Fault::new(Kind::Config, message)
            .file(path.display().to_string())
            .hint("is it an earlier job's? Run the trainer once with only_save_strategy: True"))
    }

    /// Where a resumed job goes on.
    fn resume(&mut self, chosen: &Chosen) -> Option<Value> {
        let step = chosen.scalars.step.filter(|_| self.config.resumes())?;
        let new = self.config.global_batch_size();
        let saved = chosen.scalars.batch;
        let initial = match (saved, new) {
            (Some(saved), Some(new)) => scaled_steps(step, saved, new),
            _ => step,
        };
        if initial != step {
            self.notes.push(format!(
                "the global batch changes: step {step} is step {initial} of the new job, as the trainer works it out"
            ));
        }
        Some(json!({
            "step": step, "epoch": chosen.scalars.epoch, "initial_step": initial,
            "global_batch_size": { "saved": saved, "new": new },
        }))
    }

    fn tell(
        self,
        action: Action,
        keys: Map<String, Value>,
        resume: Option<Value>,
        text: &str,
    ) -> Result<Told> {
        self.finish(action, keys, resume, text, None)
    }

    /// Writes the configuration, if that is asked for, and puts the result together. Collective.
    fn finish(
        self,
        action: Action,
        keys: Map<String, Value>,
        resume: Option<Value>,
        text: &str,
        outcome: Option<Outcome>,
    ) -> Result<Told> {
        let yaml: Vec<(&str, String)> = keys
            .iter()
            .map(|(key, value)| (key.as_str(), scalar(value)))
            .collect();
        if let Some(path) = self
            .args
            .write_config
            .as_ref()
            .filter(|_| !self.args.writing.dry_run)
        {
            // A key that is spelt unusually would now be there twice: that is no YAML then.
            let text = set_keys(text, &yaml);
            TrainConfig::parse(&text)?;
            let written = if self.world.process() == 0 {
                write_output(path, text.as_bytes())
            } else {
                Ok(())
            };
            agree(self.world, written)?;
        }
        let mut told = format!("load: {}", action.name());
        for note in &self.notes {
            told.push_str(&format!("\n  note       {note}"));
        }
        if let Some(outcome) = &outcome {
            told.push_str(&format!(
                "\n  written    {} files, {} bytes, in {:.3} s",
                outcome.files.len(),
                outcome.bytes.written,
                outcome.seconds.total
            ));
        }
        for (key, value) in &yaml {
            told.push_str(&format!("\n{key}: {value}"));
        }
        let outcome = outcome.unwrap_or_else(|| Outcome {
            schema: 1,
            command: "load".into(),
            ok: true,
            processes: self.world.size(),
            nodes: u32::try_from(self.topology.nodes.len()).unwrap_or(u32::MAX),
            ..Outcome::default()
        });
        let mut fields = serde_json::to_value(&outcome)
            .map_err(|error| Fault::new(Kind::Internal, format!("can't write JSON: {error}")))?;
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("action".into(), json!(action.name()));
            fields.insert("config".into(), Value::Object(keys));
            fields.insert("notes".into(), json!(self.notes));
            if let Some(resume) = resume {
                fields.insert("resume".into(), resume);
            }
        }
        Ok(Told::Data { fields, text: told })
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

/// The files to write: named as the source's are, so that the trainer can resume from them.
fn files(chosen: &Chosen) -> Files {
    match &chosen.name {
        Some(name) if name.ranked => {
            let repeat = name
                .repeat
                .map_or(String::new(), |repeat| format!("_{repeat}"));
            Files::Resume {
                prefix: name.prefix.clone(),
                ending: format!("{repeat}-{}_{}", name.epoch, name.step),
                position: name.position(),
            }
        }
        _ => Files::Ranks {
            name: RankName::new("net", false),
            remove_redundancy: false,
        },
    }
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

/// What this node finds at `path`; `None` for nothing that could be loaded. Local.
fn look(path: &Path, format: &str) -> Result<Option<Shape>> {
    match io::standing(path)? {
        Standing::Nothing | Standing::EmptyDirectory => return Ok(None),
        Standing::File => {
            let parent = path.parent().and_then(Path::file_name);
            let ranked = parent.is_some_and(|name| name.to_string_lossy().starts_with("rank_"));
            return Ok(Some(if ranked { Shape::RankFile } else { Shape::File }));
        }
        Standing::Directory => {}
    }
    let names = io::list(path)?;
    let has = |wanted: &str| {
        names
            .iter()
            .any(|(name, directory)| name == wanted && !directory)
    };
    if names.iter().any(|(name, _)| name.starts_with("rank_")) {
        return Ok(Some(Shape::Ranks));
    }
    if has("metadata.json") || has("latest_checkpointed_iteration.txt") {
        return Ok(Some(Shape::Iteration));
    }
    let map = has("param_name_map.json");
    if !map && (has("model.safetensors.index.json") || has("config.json")) {
        return Ok(Some(Shape::HuggingFace));
    }
    let any = names
        .iter()
        .any(|(name, directory)| !directory && name.ends_with(&format!(".{format}")));
    Ok(any.then_some(Shape::Complete))
}

const SHAPES: [Shape; 6] = [
    Shape::Ranks,
    Shape::RankFile,
    Shape::Iteration,
    Shape::HuggingFace,
    Shape::Complete,
    Shape::File,
];

fn code(shape: Shape) -> u8 {
    let place = SHAPES.iter().position(|known| *known == shape);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

fn shape_of(code: u8) -> Shape {
    SHAPES
        .get(usize::from(code))
        .cloned()
        .unwrap_or(Shape::File)
}
