//! What weights are, and what they are cut by, where nobody says it.

use crate::cli::flags::family::spelled;
use crate::cli::strategy::recognise::candidates;
use crate::exchange::{World, agree, all_gather_agreed, broadcast_bytes, decode, encode};
use crate::fault::plain::{counted, first};
use crate::fault::{Fault, Kind, Result};
use crate::model::derive::Seen;
use crate::model::{CONFIG, Scheme, described, directory_of, has_its_names};
use crate::source::sampled::{Lies, Sampled, sample};
use crate::source::{LATEST, Weights, beside, laid_at, nothing, unnumbered};
use crate::store::io::{self, Standing};
use crate::strategy::StrategyInput;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, IsTerminal, Write as _};
use std::path::{Path, PathBuf};

/// Where a run keeps its checkpoints.
const CHECKPOINT: &str = "checkpoint";
/// How a layout is known that the job itself finds.
const BY_MANIFEST: &str = "told by its manifest";
const BESIDE: &str = "beside it";
/// Layouts told of many.
const TOLD: usize = 4;

/// What is asked of a source.
pub(super) struct Question<'a> {
    pub(super) source: &'a Path,
    /// Its strategy, as given.
    pub(super) given: Option<&'a StrategyInput>,
    pub(super) suffix: Option<&'a str>,
    /// Which files of full weights are meant.
    pub(super) weights: Option<&'a str>,
    /// The model's directory.
    pub(super) model: Option<&'a Path>,
    /// Whether a layout that is only guessed is taken.
    pub(super) yes: bool,
}

/// What it is.
pub(super) struct Recognised {
    pub(super) path: PathBuf,
    pub(super) lies: Lies,
    /// Whether it is a Hugging Face model.
    pub(super) hf: bool,
    ranks: u32,
    step: Option<String>,
    pub(super) names: Option<Scheme>,
    /// What rank directories are cut by.
    pub(super) strategy: Option<StrategyInput>,
    /// How that is known.
    how: &'static str,
    /// Whether somebody has to say yes to it.
    pub(super) unanswered: bool,
    /// Which of its tensors are in one, as names tell.
    pub(super) joined: Option<bool>,
    /// Which file of the directory is meant, where a file was given.
    pub(super) weights: Option<OsString>,
}

/// What one process sees.
#[derive(Serialize, Deserialize)]
struct Seeing {
    /// Whether the weights are in the run's directory of checkpoints below.
    below: bool,
    lies: Lies,
    ranks: u32,
    step: Option<String>,
    names: Option<Scheme>,
    joined: Option<bool>,
    config: bool,
    /// Whether its names are those that the model which is given has at Hugging Face.
    of_model: bool,
    /// Whether it is one file.
    alone: bool,
}

impl Question<'_> {
    /// What the source is. Collective.
    ///
    /// # Errors
    /// The same on every process: [`Kind::MissingShard`] if there are no weights, [`Kind::Config`] if their
    /// layout isn't known.
    pub(super) fn recognised(&self, world: &World) -> Result<Recognised> {
        let all = all_gather_agreed(world, self.look())?;
        let ranks = all.iter().flatten().map(|seen| seen.ranks).max();
        let Some(seen) = all.into_iter().flatten().next() else {
            agree(world, nothing::refuse(self.source))?;
            let fault = Fault::new(Kind::MissingShard, "no weights are found here");
            return Err(fault.file(self.source.display().to_string()));
        };
        let path = match seen.below {
            true => self.source.join(CHECKPOINT),
            false => self.source.to_path_buf(),
        };
        if seen.lies == Lies::Full && self.suffix != Some(LATEST) {
            agree(world, unnumbered(&path, self.suffix, "full weights"))?;
        }
        let hf = seen.lies == Lies::Full && seen.names.is_none() && seen.config
            || seen.of_model && seen.lies != Lies::Ranks;
        // A model is its directory, with its config.json.
        let (path, weights) = match (hf && seen.alone, path.file_name()) {
            (true, Some(name)) => (io::room(&path).to_path_buf(), Some(name.to_owned())),
            _ => (path, None),
        };
        let mut found = Recognised {
            hf,
            path,
            weights,
            lies: seen.lies,
            ranks: ranks.unwrap_or(seen.ranks),
            step: self.suffix.map(str::to_owned).or(seen.step),
            names: seen.names,
            strategy: self.given.cloned(),
            how: "given",
            unanswered: false,
            joined: seen.joined,
        };
        if found.lies == Lies::Ranks && found.strategy.is_none() {
            if let Some(manifest) = self.laid(world, &found.path)? {
                found.strategy = Some(manifest.into());
                found.how = BY_MANIFEST;
                found.hf = seen.of_model;
            } else if let Some(beside) = self.beside(world, &found.path)? {
                found.strategy = Some(beside.into());
                found.how = BESIDE;
            } else if found.ranks > 1 {
                found.strategy = Some(self.guess(world, &found.path)?.into());
                found.how = "told by the shapes of its files";
                found.unanswered = !self.yes;
            }
        }
        Ok(found)
    }

    /// What this process sees. Local.
    fn look(&self) -> Result<Option<Seeing>> {
        let inner = self.source.join(CHECKPOINT);
        let alone = io::standing(self.source)? == Standing::File;
        // A run's directory may hold other things, too; weights below are not mistaken for it.
        let below =
            !alone && io::standing(&inner)? == Standing::Directory && !self.names_what_is_here();
        let path = if below { &inner } else { self.source };
        let weights = |others| Weights::named(self.weights.map(str::to_owned), others);
        let Some(mut sampled) = sample(path, &weights(Weights::Told))? else {
            return Ok(None);
        };
        if sampled.lies == Lies::Itself
            && self.suffix.is_none()
            && let Some(model) = sample(path, &weights(Weights::Model))?
            && Seen::of(model.names.iter().map(String::as_str))
                .names
                .is_none()
        {
            sampled = model;
        }
        let Sampled {
            lies, ranks, step, ..
        } = sampled;
        let names = Seen::of(sampled.names.iter().map(String::as_str)).names;
        let has = |parts: [&str; 2]| {
            let mut names = sampled.names.iter();
            names.any(|name| parts.iter().any(|part| name.contains(part)))
        };
        let joined = has([".attention.w_qkv.", ".self_attention.linear_qkv."]);
        let separate = has([".attention.wq.", ".self_attention.linear_q."]);
        let joined = (joined || separate).then_some(joined);
        let folder = if alone { io::room(path) } else { path };
        let config = io::standing(&folder.join(CONFIG))? == Standing::File;
        let known = |model: &Path| {
            let (family, numbers) = described(directory_of(model), "auto", None)?;
            has_its_names(&family, &numbers, sampled.names.iter().map(String::as_str))
        };
        let others = names.is_none();
        let of_model = match (self.model, config) {
            (Some(model), _) if others && (!config || lies != Lies::Full) => known(model)?,
            // What its own description doesn't fit isn't of that model.
            (None, true) if others => known(folder).unwrap_or(false),
            _ => false,
        };
        Ok(Some(Seeing {
            below,
            lies,
            ranks,
            step,
            names,
            joined,
            config,
            of_model,
            alone,
        }))
    }

    /// Whether what `--weights` names lies in the source itself. Local.
    fn names_what_is_here(&self) -> bool {
        let named = |glob: &str| sample(self.source, &Weights::Named(glob.to_owned()));
        let found = self
            .weights
            .map(named)
            .and_then(|found| found.ok().flatten());
        found.is_some_and(|found| found.lies == Lies::Full)
    }

    /// The manifest that keeps the layout of what is read. Collective.
    fn laid(&self, world: &World, path: &Path) -> Result<Option<PathBuf>> {
        let all = all_gather_agreed(world, laid_at(path, self.suffix))?;
        Ok(all.into_iter().flatten().next())
    }

    /// The strategy that the run which wrote the weights has left. Collective.
    fn beside(&self, world: &World, path: &Path) -> Result<Option<PathBuf>> {
        let all = all_gather_agreed(world, beside(path))?;
        Ok(all.into_iter().flatten().next())
    }

    /// The layout that the shapes of the files tell, if that is taken. Collective.
    fn guess(&self, world: &World, path: &Path) -> Result<String> {
        let mine = match world.process() {
            0 => self.told(path).and_then(|parallel| encode(&parallel)),
            _ => Ok(Vec::new()),
        };
        let bytes = broadcast_bytes(world, 0, agree(world, mine)?)?;
        agree(world, decode(&bytes))
    }

    /// The same. Local.
    fn told(&self, path: &Path) -> Result<String> {
        let at =
            |message: String| Fault::new(Kind::Config, message).file(path.display().to_string());
        const GIVE: &str = "--src-strategy: the strategy of the job that wrote them, or its layout";
        let Some(model) = self.model else {
            let message = "there is no strategy beside these rank directories";
            return Err(at(message.into()).hint(format!(
                "{GIVE}; or --model DIR, to look for layouts that fit"
            )));
        };
        let all = candidates(path, self.suffix, model)?;
        let apart = all
            .iter()
            .filter(|candidate| candidate.fits && candidate.same_as.is_none());
        let apart: Vec<&str> = apart.map(|candidate| candidate.parallel.as_str()).collect();
        match apart[..] {
            [] => {
                let message = "there is no strategy beside these rank directories, and no layout fits their shapes";
                Err(at(message.into()).hint(GIVE))
            }
            [one] if self.yes || is_terminal() => Ok(one.to_owned()),
            [one] => {
                let message = format!(
                    "there is no strategy beside these rank directories; by their shapes they are {one}"
                );
                Err(at(message).hint("--yes takes that; or --src-strategy"))
            }
            _ => {
                let message = format!(
                    "there is no strategy beside these rank directories, and {} fit their shapes: {}",
                    counted(apart.len() as u64, "layout"),
                    first(&apart, TOLD)
                );
                Err(at(message).hint("--src-strategy: the one that it is"))
            }
        }
    }
}

/// Whether somebody at a terminal says yes. Local.
fn answered() -> Result<()> {
    let _ = write!(
        crate::report::log(),
        "Its layout is told by shapes alone. Go on? [y/N] "
    );
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if read.is_ok() && ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    let fault = Fault::new(Kind::Config, "the layout that its shapes tell isn't taken");
    Err(fault.hint("--src-strategy: the strategy of the job that wrote them, or its layout"))
}

/// Whether somebody can be asked. Local.
fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

impl Recognised {
    /// The strategy that a job must be told; none where it finds it by itself.
    pub(super) fn named_strategy(&self) -> Option<&StrategyInput> {
        self.strategy.as_ref().filter(|_| self.how != BY_MANIFEST)
    }

    /// Tells, with a fault of what doesn't fit, where a strategy is from that nobody gave.
    pub(super) fn blamed(&self, fault: Fault) -> Fault {
        use Kind::{MissingShard, Shape, Strategy, UnknownTensor};
        let found = self.strategy.as_ref().filter(|_| self.how == BESIDE);
        let Some(found) = found.map(|found| found.typed().display()) else {
            return fault;
        };
        if !matches!(fault.kind, MissingShard | Shape | Strategy | UnknownTensor) {
            return fault;
        }
        let own = "if that is another job's, --src-strategy S says its own";
        let joined = |hint: String| match hint.ends_with('?') {
            true => format!("{hint} {own}"),
            false => format!("{hint}; {own}"),
        };
        Fault {
            message: format!(
                "{} (its strategy was found beside it: {found})",
                fault.message
            ),
            hint: Some(fault.hint.map_or(own.to_owned(), joined)),
            ..fault
        }
    }

    /// Asks whether its layout, which is guessed, is meant. Collective.
    ///
    /// # Errors
    /// [`Kind::Config`] on every process, if the answer isn't yes.
    pub(super) fn ask(&self, world: &World) -> Result<()> {
        if !self.unanswered {
            return Ok(());
        }
        let mine = match world.process() {
            0 => answered(),
            _ => Ok(()),
        };
        agree(
            world,
            mine.map_err(|fault| fault.file(self.path.display().to_string())),
        )
    }

    fn kind(&self) -> &'static str {
        match (self.lies, self.hf) {
            (_, true) => "hugging_face",
            (Lies::Full, _) => "full",
            (Lies::Ranks, _) => "ranks",
            (Lies::Itself, _) => "own_layout",
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "kind": self.kind(),
            "path": self.path.display().to_string(),
            "ranks": self.ranks,
            "step": self.step,
            "names": self.names.map(spelled),
            "strategy": self.strategy.as_ref().map(ToString::to_string),
            "strategy_is": self.strategy.as_ref().map(|_| self.how),
        })
    }
}

/// For people.
impl fmt::Display for Recognised {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match (self.lies, self.hf) {
            (_, true) => write!(out, "{path}: a Hugging Face model"),
            (Lies::Full, _) => write!(out, "{path}: full weights"),
            (Lies::Itself, _) => write!(out, "{path}: weights that tell their own layout"),
            (Lies::Ranks, _) => write!(
                out,
                "{path}: weights of {}",
                counted(self.ranks.into(), "rank")
            ),
        }?;
        if let Some(step) = &self.step {
            write!(out, ", checkpoint {step}")?;
        }
        if let Some(names) = self.names {
            write!(out, ", {} names", spelled(names))?;
        }
        match &self.strategy {
            Some(strategy) => write!(out, ", cut by {strategy} ({})", self.how),
            None => Ok(()),
        }
    }
}
