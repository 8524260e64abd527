//! `shardloom to TARGET`: what is there is recognised, and the command that brings it there is run.

use crate::cli::command::{Command, Prepared, Told};
use crate::cli::export::Export;
use crate::cli::flags::affix::AffixArgs;
use crate::cli::flags::carried::Carried;
use crate::cli::flags::family::{FUSIONS, LATENTS, spelled};
use crate::cli::flags::lora::{LoraArgs, UntieArgs};
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::quantise::QuantiseArgs;
use crate::cli::flags::reading::{CheckArgs, WeightsArgs};
use crate::cli::flags::remake::{RemakeArgs, word};
use crate::cli::flags::strategy::{NetworkArgs, strategy};
use crate::cli::flags::tensors::TensorArgs;
use crate::cli::flags::writing::WriteArgs;
use crate::cli::import::Import;
use crate::cli::recognised::{Question, Recognised};
use crate::cli::reshard::Reshard;
use crate::cli::split::Split;
use crate::config::based::is_yaml;
use crate::course::pace;
use crate::exchange::{World, agree};
use crate::fault::plain::{Text, counted};
use crate::fault::{Fault, Kind, Result};
use crate::front::Deriving;
use crate::job::{Foretold, Goal, Job, run_told};
use crate::model::derive::{Formed, Seen, formed, latent};
use crate::model::{Fusion, Latent, Scheme, described, directory_of};
use crate::report::{self, Report};
use crate::source::sampled::Lies;
use crate::source::strategy_files::read_alone;
use crate::source::{Weights, Which};
use crate::strategy::StrategyInput;
use crate::transport::Observer;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, FromArgMatches};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom to train.yaml --src Qwen3-8B --dst ready
  mpirun -n 8 shardloom to dp=1,tp=2 --src output/checkpoint --dst serve --model Qwen3-8B
  shardloom to hf --src output/checkpoint --dst hf --model Qwen3-8B";

/// The target that is a Hugging Face model.
const HF: &str = "hf";

/// What the command takes that does it.
#[derive(Clone, Debug, Args)]
#[allow(dead_code, reason = "only what was typed of them is handed on")]
struct HandedOn {
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    affixes: AffixArgs,
    #[command(flatten)]
    checks: CheckArgs,
    #[command(flatten)]
    tensors: TensorArgs,
    #[command(flatten)]
    lora: LoraArgs,
    #[command(flatten)]
    tied: UntieArgs,
    #[command(flatten)]
    quantise: QuantiseArgs,
}

/// Bring weights of any kind to where they are wanted: a job's layout, or a Hugging Face model.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct To {
    /// A trainer's YAML file, a layout (dp=1,tp=2), a strategy file, or hf.
    #[arg(value_parser = strategy())]
    target: StrategyInput,
    /// Weights of any kind: a Hugging Face model, full weights or one file of them, rank directories, a
    /// checkpoint that tells its own layout.
    #[arg(long)]
    src: PathBuf,
    /// Strategy of the source, if it has one that isn't found beside it.
    #[arg(long, value_name = "S", value_parser = strategy())]
    src_strategy: Option<StrategyInput>,
    /// Which of several files in a rank directory: epoch_step, step, task-epoch_step, or latest.
    #[arg(long)]
    file_suffix: Option<String>,
    /// Directory to write.
    #[arg(long)]
    dst: PathBuf,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    form: RemakeArgs,
    /// Take the layout that the shapes of the source's files tell, where no strategy does.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    handed: Carried<HandedOn>,
    #[command(flatten)]
    moving: MoveArgs,
    #[command(flatten)]
    writing: WriteArgs,
}

impl Command for To {
    const IS_JOB: bool = true;

    fn prepare(self) -> Result<Prepared> {
        let moving = self.moving.clone();
        let paths = [
            ("source", self.src.as_path()),
            ("destination", self.dst.as_path()),
        ];
        moving.report.check_paths(&paths.map(Some))?;
        Ok(Prepared::shown(&moving, move |world, observer| {
            self.run(world, observer)
        }))
    }
}

impl To {
    /// Runs it. Collective.
    fn run(&self, world: &World, observer: &mut Observer<'_>) -> Result<Told> {
        let deriving = self.network.deriving(&self.src);
        let question = Question {
            source: &self.src,
            given: self.src_strategy.as_ref(),
            suffix: self.file_suffix.as_deref(),
            weights: self.handed.value("--weights"),
            model: self.network.model.model.as_deref(),
            yes: self.yes,
        };
        let found = question.recognised(world)?;
        let done = self.bring(world, &found, deriving, observer);
        done.map_err(|fault| found.blamed(fault))
    }

    /// Runs it on what was `found`. Collective.
    fn bring(
        &self,
        world: &World,
        found: &Recognised,
        deriving: Deriving,
        observer: &mut Observer<'_>,
    ) -> Result<Told> {
        let is_hf = self.target.typed() == Path::new(HF);
        let mut target = (!is_hf).then(|| self.target.clone());
        // Of weights by other names than the job's the names tell what the flags don't.
        if found.hf {
            deriving.make(world, &mut target)?;
        }
        let (deriving, mut job) = agree(world, self.job(found, target.as_ref()))?;
        if found.hf && job.reading.weights == Weights::Told {
            job.reading.weights = Weights::Model;
        }
        if found.hf && found.lies != Lies::Full {
            job.reading.which = Which::Checkpoint(self.file_suffix.clone());
        }
        deriving.fill(world, &mut job)?;
        job.moving = self.writing.moving(&self.moving)?;
        self.put(&mut job, target);
        job.dry_run = self.writing.dry_run;
        let command = job.command;
        let mut told = |foretold: Foretold| {
            let plan = format!(
                "{command}: {} to read, {} to write",
                counted(foretold.read, "byte"),
                counted(foretold.written, "byte")
            );
            if world.process() == 0 && tracing::enabled!(tracing::Level::WARN) {
                // Nobody need read it.
                let _ = writeln!(report::log(), "{found}\n{plan}");
            }
            found.ask(world)
        };
        let mut outcome = run_told(world, &job, observer, Some(&mut told))?;
        let mut recognised = found.json();
        if let Some(fields) = recognised.as_object_mut() {
            fields.insert("job".into(), job.command.into());
        }
        outcome.command = "to".into();
        let page = pace::is_on().then(|| Report::outcome_page(&outcome));
        let told = Told::new(outcome.ok, move |report| {
            if !report.json {
                return report.outcome(&outcome);
            }
            let mut fields = serde_json::to_value(&outcome).map_err(|error| {
                Fault::new(Kind::Internal, format!("can't write JSON: {error}"))
            })?;
            if let Some(fields) = fields.as_object_mut() {
                fields.insert("recognised".into(), recognised);
            }
            report.data(&fields, &Text::new(""))
        });
        Ok(match page {
            Some(page) => told.with_page(page),
            None => told,
        })
    }

    /// How the result is written, and what it is cut by.
    fn put(&self, job: &mut Job, target: Option<StrategyInput>) {
        if let Goal::Write(write) = &mut job.goal {
            let writing = &mut write.writing;
            let asked = self.writing.writing(self.dst.clone(), None);
            writing.overwrite = asked.overwrite;
            writing.again = asked.again;
            writing.resume = asked.resume;
            writing.unflushed = asked.unflushed;
            writing.placement = asked.placement;
            if target
                .as_ref()
                .is_some_and(|target| target.path().is_none())
            {
                writing.strategy = target;
            }
        }
    }

    /// The job of the command that does it. Local.
    fn job(&self, found: &Recognised, target: Option<&StrategyInput>) -> Result<(Deriving, Job)> {
        let mut words: Vec<OsString> = vec!["--dst".into(), self.dst.clone().into()];
        let mut add = |flag: &str, value: Option<OsString>| {
            if let Some(value) = value {
                words.extend([OsString::from(flag), value]);
            }
        };
        let model = self.network.model.model.clone();
        let source = match (found.hf, target) {
            (true, Some(_)) => "--hf",
            _ => "--src",
        };
        add(source, Some(found.path.clone().into()));
        let asked = self.handed.has("--weights");
        add("--weights", found.weights.clone().filter(|_| !asked));
        add("--format", self.writing.format_word().map(Into::into));
        add("--model", model.clone().map(Into::into));
        if found.lies == Lies::Ranks {
            let strategy = found.named_strategy();
            add(
                "--src-strategy",
                strategy.map(|strategy| strategy.typed().into()),
            );
        }
        if found.lies != Lies::Full && source == "--src" {
            add("--file-suffix", self.file_suffix.clone().map(Into::into));
        }
        if let Some(target) = target {
            add("--dst-strategy", Some(target.typed().into()));
            let formed = target_form(target)?;
            let given = self.network.names;
            let remade = !found.hf && self.is_remade(found, formed.as_ref());
            let names = match formed {
                Some(formed) if found.hf || remade => Some(formed.names),
                None if found.hf => names_of(target)?,
                _ => None,
            };
            add("--names", given.or(names).map(spelled).map(OsString::from));
            if found.hf || remade {
                for (flag, word) in self.form_words(found, target, formed.as_ref())? {
                    add(flag, Some(word.into()));
                }
            }
            words.extend(self.handed.words());
            let merged = self.handed.has("--lora") || self.handed.has("--lora-scaling");
            return match (found.hf, found.lies) {
                (true, _) => parsed::<Import>("import", words)?.job(),
                (false, Lies::Full) if !remade && !merged => parsed::<Split>("split", words)?.job(),
                _ => parsed::<Reshard>("reshard", words)?.job(),
            };
        }
        let own = found.hf.then(|| found.path.clone());
        let Some(model) = model.or(own) else {
            let message = "a Hugging Face model needs its config.json and its tokenizer's files";
            return Err(
                Fault::new(Kind::Config, message).hint("--model DIR: the model's directory")
            );
        };
        let names = self.network.names.map(spelled).map(OsString::from);
        add("--names", names);
        for (flag, word) in self.form.words_read() {
            add(flag, Some(word.into()));
        }
        add("--hf-config", Some(model.into()));
        words.extend(self.handed.words());
        parsed::<Export>("export", words)?.job()
    }

    /// Whether the target's network has other names, or other tensors in one, than weights of MindSpore.
    fn is_remade(&self, found: &Recognised, formed: Option<&Formed>) -> bool {
        let differs = formed.is_some_and(|formed| {
            let joined = formed.qkv != Fusion::Separate;
            let renamed = found.names.is_some_and(|names| names != formed.names);
            renamed || !formed.is_usual || found.joined.is_some_and(|found| found != joined)
        });
        differs || !self.form.words(true).is_empty()
    }

    /// The flags for the form of the target's network: as given, else as its configuration has it.
    fn form_words(
        &self,
        found: &Recognised,
        target: &StrategyInput,
        formed: Option<&Formed>,
    ) -> Result<Vec<(&'static str, String)>> {
        let mut words = self.form.words(!found.hf);
        let model = self.network.model.model.as_deref();
        let Some(formed) = formed else {
            return Ok(words);
        };
        let at = |fault: Fault| fault.file(target.typed().display().to_string());
        let Some(model) = model.or(found.hf.then_some(&*found.path)) else {
            let message = "its network has other names than the source, or other tensors in one";
            return Err(
                at(Fault::new(Kind::Config, message)).hint("--model DIR: the model's directory")
            );
        };
        let is_given =
            |words: &[(&str, String)], flag: &str| words.iter().any(|(known, _)| *known == flag);
        if let Some(key) = formed.unclear.filter(|_| !is_given(&words, "--qkv")) {
            let message = format!(
                "{key}: how query, key and value lie then depends on the job's tensor parallel size"
            );
            return Err(at(Fault::new(Kind::Config, message))
                .hint("--qkv contiguous --tp N, of the job; or --tp 1 if they are whole one after the other"));
        }
        let mut add = |flag: &'static str, word: String| {
            if !is_given(&words, flag) {
                words.push((flag, word));
            }
        };
        let (family, _) = described(directory_of(model), "auto", None)?;
        if formed.ffn == Fusion::Contiguous {
            add("--tp", "1".into());
        }
        add("--qkv", word(FUSIONS, &formed.qkv));
        add("--ffn", word(FUSIONS, &formed.ffn));
        if formed.names == Scheme::Mcore && latent(target.typed(), &family)? {
            add("--mla", word(LATENTS, &Latent::Joined));
        }
        Ok(words)
    }
}

/// How the network of a trainer's configuration has its tensors; none for another target. Local.
fn target_form(target: &StrategyInput) -> Result<Option<Formed>> {
    let path = target.typed();
    is_yaml(path).then(|| formed(path)).transpose()
}

/// The arguments of `command`.
fn parsed<A: Args + FromArgMatches>(command: &str, words: Vec<OsString>) -> Result<A> {
    let line = A::augment_args(clap::Command::new("to")).no_binary_name(true);
    let read = line.try_get_matches_from(words);
    read.and_then(|matches| A::from_arg_matches(&matches))
        .map_err(|error| {
            if let (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) =
                (error.kind(), error.get(ContextKind::InvalidArg))
            {
                let message = format!("{flag}: `shardloom {command}` does this, which hasn't it");
                return Fault::new(Kind::Usage, message);
            }
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            let message = first.strip_prefix("error: ").unwrap_or(first);
            Fault::new(Kind::Usage, message)
        })
}

/// The names that a strategy has which was derived; none for one in files. Local.
fn names_of(strategy: &StrategyInput) -> Result<Option<Scheme>> {
    if strategy.path().is_some() {
        return Ok(None);
    }
    let read = read_alone(strategy)?;
    Ok(Seen::of(read.names().map(|name| &**name)).names)
}
