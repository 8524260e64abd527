//! `shardloom load`: the weights that a training configuration asks for, ready for the trainer.

mod chosen;
mod configured;
mod sight;
mod strategies;
mod telling;

use crate::cli::command::{Command, Prepared, Told};
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::reading::{CheckArgs, WeightsArgs};
use crate::cli::flags::strategy::ModelArgs;
use crate::cli::flags::writing::{CutArgs, WriteArgs};
use crate::config::train_yaml::{Action, Asked, Shape, TrainConfig};
use crate::exchange::{Topology, World};
use crate::fault::{Fault, Kind, Result};
use crate::front::Deriving;
use crate::job::{Goal, Job, Write, run as run_job};
use crate::model::refuse_lacking;
use crate::plan::build::{Leftovers, Select};
use crate::plan::reach::ExchangeMode;
use crate::source::derived::Derived;
use crate::source::strategy_files::read_strategy;
use crate::source::{Reading, Weights, open};
use crate::store::formats::laid::DirectoryAsked;
use crate::strategy::show::diff;
use crate::strategy::{Strategy, StrategyInput};
use crate::transport::Observer;
use chosen::Chosen;
use clap::Args;
use configured::{LaunchArgs, read_config};
use sight::Sight;
use std::path::{Path, PathBuf};
use telling::Telling;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom load --config train.yaml --write-config ready.yaml
  mpirun -n 8 shardloom load --config train.yaml --dst ready --dst-strategy strategy
  shardloom load --config train.yaml --dry-run";

/// Directory of the output that is written where nothing else is said.
const DESTINATION: &str = "shardloom_checkpoint";

/// Get the weights ready that a training configuration asks for.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
#[command(mut_arg("dst_strategy", |arg| {
    arg.help(
        "The job's strategy [default: strategy/ or merged_strategy/dst_strategy.ckpt in output_dir, or else \
         derived from the configuration]",
    )
}))]
pub(crate) struct Load {
    /// The trainer's YAML file.
    #[arg(long, value_name = "TRAIN.yaml")]
    config: PathBuf,
    /// Write the configuration with the keys set that the trainer then needs; all else stays.
    #[arg(long, value_name = "OUT.yaml")]
    write_config: Option<PathBuf>,
    /// Directory to write [default: shardloom_checkpoint in the configuration's output_dir].
    #[arg(long)]
    dst: Option<PathBuf>,
    #[command(flatten)]
    launch: LaunchArgs,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    cut: CutArgs,
    #[command(flatten)]
    network: ModelArgs,
    #[command(flatten)]
    moving: MoveArgs,
    #[command(flatten)]
    checks: CheckArgs,
    #[command(flatten)]
    writing: WriteArgs,
}

impl Command for Load {
    const IS_JOB: bool = true;

    fn prepare(self) -> Result<Prepared> {
        let moving = self.moving.clone();
        Ok(Prepared::shown(&moving, move |world, observer| {
            self.run(world, observer)
        }))
    }
}

impl Load {
    /// Runs it. Collective.
    fn run(&self, world: &World, observer: &mut Observer<'_>) -> Result<Told> {
        let layered = read_config(world, &self.config)?;
        let named = |fault: Fault| fault.file(self.config.display().to_string());
        let sight = Sight {
            world,
            topology: Topology::discover(world)?,
        };
        let config = layered.config()?;
        config.check_any().map_err(named)?;
        let config = self.launch.over(config)?;
        self.refuse_format(&config).map_err(named)?;
        let asked = config.source().map_err(named)?;
        let written = self.write_config.as_deref();
        let default = || config.output().join(DESTINATION);
        let destination = self.dst.clone().unwrap_or_else(default);
        if let Some(path) = written {
            let mut read = vec![
                ("configuration", self.config.as_path()),
                ("directory of the weights that are written", &destination),
            ];
            read.extend(asked.iter().map(|asked| ("source", asked.path.as_path())));
            let bases = layered.paths();
            read.extend(bases.iter().map(|path| ("base_config", path.as_path())));
            telling::check_writable(&sight, &layered, &read, path)?;
        }
        let mut telling = match asked {
            None => Telling::new(Action::None)
                .noted("no weights are asked for: the trainer starts from random ones"),
            Some(asked) => self.ready(&sight, (&config, &destination), &asked, observer)?,
        };
        telling.dry_run = self.writing.dry_run;
        let launched = self.launch.keys();
        if !launched.is_empty() {
            for (key, value) in launched {
                telling.keys.entry(key).or_insert(value);
            }
            telling.notes.push(
                "leave these flags out of the launcher's command: they would win over the keys below"
                    .into(),
            );
        }
        if let Some(path) = written.filter(|_| !self.writing.dry_run) {
            telling.write_config(&sight, &layered, path)?;
        }
        telling.told(&sight)
    }

    /// Refuses to write what the configuration's trainer doesn't read. Local.
    fn refuse_format(&self, config: &TrainConfig) -> Result<()> {
        let Some(format) = self.writing.directory() else {
            return Ok(());
        };
        if config.modern() && format.name() == "checkpoint2" {
            return Ok(());
        }
        let message = format!(
            "its trainer doesn't read {}: --format {}",
            format.called(),
            format.name()
        );
        Err(Fault::new(Kind::Config, message)
            .hint("--format safetensors or ckpt; `shardloom reshard` writes all of them"))
    }

    /// Gets the weights at `source` ready, at `destination`. Collective.
    fn ready(
        &self,
        sight: &Sight<'_>,
        (config, destination): (&TrainConfig, &Path),
        asked: &Asked,
        observer: &mut Observer<'_>,
    ) -> Result<Telling> {
        let source = asked.path.as_path();
        let format = config.load_ckpt_format.as_deref().unwrap_or("safetensors");
        let (at, key) = (source.display(), asked.key);
        let given = self.launch.given(key, &self.config);
        let named = |fault: Fault| fault.file(format!("{at} ({given})"));
        let Some(shape) = sight.shape(asked, format).map_err(named)? else {
            return Ok(Telling::new(Action::None).noted(format!(
                "{key} has no .{format} weights: the trainer starts from random ones"
            )));
        };
        let action = self.meant(config.action(asked, &shape).map_err(named)?, &shape);
        let (chosen, strategy) = match action {
            Action::None | Action::Import => {
                self.weights.refuse_unread().map_err(named)?;
                return left(sight, config, asked, &shape, action).map_err(named);
            }
            Action::Split => (Chosen::full(sight, config, source)?, None),
            Action::Reshard if shape == Shape::Iteration => {
                (Chosen::iteration(config, source)?, None)
            }
            Action::Reshard => {
                let chosen = Chosen::ranked(sight, config, source, &shape)?;
                let found = strategies::of_source(sight, config, source, (&shape, &chosen))?;
                (chosen, Some(found))
            }
        };
        let beside = strategy.as_ref().and_then(|found| found.beside.as_deref());
        let path = self.strategy(sight, config, source, beside)?;
        let laid = strategy.as_ref().is_some_and(|found| found.laid);
        let strategy = strategy.map(|found| StrategyInput::from(found.path));
        let read = |input: Option<&StrategyInput>| {
            read_strategy(sight.world, &sight.topology, input).map(|(strategy, _)| strategy)
        };
        let wanted = read(Some(&path))?;
        strategies::check_mesh(config, wanted.as_ref(), path.typed())?;
        let own = read(strategy.as_ref())?;
        // Of what has the layout already the trainer may take another step.
        if chosen.is_taken() && has_layout((own.as_ref(), laid), wanted.as_ref()) {
            let unread = self.weights.refuse_unread();
            return unread.map_err(named).map(|()| same(config, &chosen));
        }
        let mut telling = found(Telling::new(action), config, &chosen);
        telling.notes.extend(strategies::note(&path));
        // What its manifest keeps the job finds itself.
        let strategy = strategy.filter(|_| !laid);
        let job = self.job(action, &chosen, strategy, path, destination.to_owned())?;
        let outcome = run_job(sight.world, &job, observer)?;
        telling.notes.extend(outcome.notes.iter().cloned());
        let ckpt = outcome.files.iter().any(|file| file.ends_with(".ckpt"));
        let format = if ckpt { "ckpt" } else { "safetensors" };
        telling.set("load_checkpoint", destination.display().to_string());
        telling.set("load_ckpt_format", format);
        telling.set("auto_trans_ckpt", false);
        telling.set("src_strategy_path_or_dir", "");
        telling.set("use_parallel", true);
        telling.set("remove_redundancy", false);
        if config.resumes() {
            telling.set("resume_training", true);
        }
        telling.outcome = Some(outcome);
        Ok(telling)
    }

    /// What is done where `--weights` may choose full weights beside the ranks'.
    fn meant(&self, action: Action, shape: &Shape) -> Action {
        let chosen = *shape == Shape::Ranks && self.weights.weights.is_some();
        match action {
            Action::Reshard if chosen => Action::Split,
            action => action,
        }
    }

    /// The strategy of the job: as given, as it lies in the output, or derived. Collective.
    fn strategy(
        &self,
        sight: &Sight<'_>,
        config: &TrainConfig,
        weights: &Path,
        source: Option<&Path>,
    ) -> Result<StrategyInput> {
        let deriving = Deriving {
            use_parallel: self.launch.use_parallel,
            ..self.network.deriving(weights, None)
        };
        let mut given = self.cut.dst_strategy.clone();
        deriving.make(sight.world, &mut given)?;
        if let Some(given) = given {
            return Ok(given);
        }
        match strategies::of_job(sight, config, source)? {
            Some(path) => Ok(path.into()),
            None => strategies::derived(sight, config, &self.config, &deriving),
        }
    }

    /// The job that brings the weights into the layout of `strategy`.
    fn job(
        &self,
        action: Action,
        chosen: &Chosen,
        source_strategy: Option<StrategyInput>,
        strategy: StrategyInput,
        destination: PathBuf,
    ) -> Result<Job> {
        let leftovers = if action == Action::Split {
            Leftovers::Split(self.checks.unmatched.unmatched)
        } else {
            Leftovers::Reshard(self.checks.unmatched.unmatched)
        };
        let reading = Reading {
            weights: self.weights.meant(Weights::Told),
            ..Reading::checkpoint(
                chosen.directory.clone(),
                source_strategy,
                chosen.suffix.clone(),
            )
        };
        Ok(Job {
            command: "load",
            reading: self.checks.reading(reading, Derived::default()),
            goal: Goal::Write(Box::new(Write {
                select: Select::default(),
                leftovers,
                files: self
                    .writing
                    .files(chosen.files(), DirectoryAsked::default()),
                format: self.writing.files_format(),
                view: None,
                extras: Vec::new(),
                step: None,
                writing: self
                    .writing
                    .writing(destination, Some(strategy))
                    .keeping([&self.config]),
            })),
            moving: self.writing.moving(&self.moving)?,
            dry_run: self.writing.dry_run,
        })
    }
}

/// Weights that the trainer takes as they are. Collective.
fn left(
    sight: &Sight<'_>,
    config: &TrainConfig,
    asked: &Asked,
    shape: &Shape,
    action: Action,
) -> Result<Telling> {
    let telling = Telling::new(action);
    if *shape == Shape::Ranks {
        let chosen = Chosen::ranked(sight, config, &asked.path, shape)?;
        chosen.check_ranks(config, asked)?;
        chosen.check_taken()?;
        let own = chosen.own_files();
        return Ok(match chosen.is_taken() {
            true => found(telling, config, &chosen).noted(own),
            false => telling.noted(own),
        });
    }
    if action == Action::Import {
        let reading = Reading::checkpoint(asked.path.clone(), None, None);
        let (mode, all) = (ExchangeMode::default(), |_: &str| true);
        let opened = open(sight.world, &sight.topology, &reading, None, mode, all);
        let opened = opened.map_err(without_choice)?;
        // All processes know the same of it.
        refuse_lacking(&asked.path, &opened.inventory)?;
    }
    Ok(telling.noted(match (action, shape) {
        (Action::Import, _) => "Hugging Face weights: the trainer maps their names itself",
        (_, Shape::Iteration) => "a checkpoint 2.0: the trainer brings it into its layout itself",
        _ if config.modern() => "full weights: the trainer cuts them itself",
        _ => "full weights on one device: the trainer loads them as they are",
    }))
}

/// Says what to do where the trainer reads all that is there, and `--weights` chooses nothing.
fn without_choice(fault: Fault) -> Fault {
    match &fault.hint {
        Some(hint) if hint.contains("--weights") => Fault {
            hint: Some(
                "the trainer reads this directory itself: move the files that aren't meant elsewhere".into(),
            ),
            ..fault
        },
        _ => fault,
    }
}

/// Whether what is there, with `own` layout, kept by a manifest or not, has the one that is `wanted`. Local.
fn has_layout((own, laid): (Option<&Strategy>, bool), wanted: Option<&Strategy>) -> bool {
    match (own, wanted) {
        // A manifest keeps the layout of what is there; a job's strategy may know of more.
        (Some(own), Some(wanted)) if laid => diff(own, wanted).is_part(),
        (own, wanted) => own.is_some() && own == wanted,
    }
}

/// Weights that have the job's layout already. Local.
fn same(config: &TrainConfig, chosen: &Chosen) -> Telling {
    let mut telling = found(Telling::new(Action::None), config, chosen)
        .noted("the weights have the job's layout already: nothing to do");
    telling.set("load_checkpoint", chosen.directory.display().to_string());
    telling.set("auto_trans_ckpt", false);
    telling.set("src_strategy_path_or_dir", "");
    telling
}

/// Notes which checkpoint it is, and where a resumed job goes on. Local.
fn found(mut telling: Telling, config: &TrainConfig, chosen: &Chosen) -> Telling {
    telling.notes.extend(chosen.note());
    if let Some((step, initial)) = chosen.steps(config)
        && initial != step
    {
        telling.notes.push(format!(
            "the global batch changes: step {step} is step {initial} of the new job, as the trainer works it out"
        ));
    }
    telling.resume = chosen.resume(config);
    telling
}
