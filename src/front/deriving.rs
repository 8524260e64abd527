//! Strategies that don't lie in files: derived from a layout (`dp=2,tp=4`) or a trainer's configuration.

use crate::config::based::is_yaml;
use crate::exchange::{World, agree, all_gather, broadcast_bytes, decode, encode};
use crate::fault::{Fault, Kind, Result};
use crate::job::{Goal, Job};
use crate::model::derive::{Derived, Seen, Sizes, derive, launched, usual};
use crate::model::{CONFIG, Scheme, check_heads};
use crate::plan::build::Leftovers;
use crate::source::nothing;
use crate::source::pattern::is_one;
use crate::source::sampled::{Sampled, readable};
use crate::store::io::{self, Standing};
use crate::strategy::{Form, FullShape, StrategyInput};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is in the place of files.
pub(crate) enum Asked {
    /// `dp=2,tp=4`.
    Sizes(String),
    /// A trainer's configuration.
    Config(PathBuf),
}

impl Asked {
    /// None for files. Sizes are told by their first word, a configuration by its ending.
    pub(crate) fn of(typed: &Path) -> Option<Asked> {
        let text = typed.to_str();
        let sizes = text.filter(|text| Sizes::is_meant(text));
        if let Some(sizes) = sizes {
            return Some(Asked::Sizes(sizes.to_owned()));
        }
        is_yaml(typed).then(|| Asked::Config(typed.to_path_buf()))
    }
}

/// What a file would hold, and full shapes of weights that it doesn't tell.
type Made = (Vec<u8>, BTreeMap<String, FullShape>);

/// How strategies that don't lie in files are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deriving {
    /// The model's directory, or its config.json.
    pub(crate) model: Option<PathBuf>,
    /// Names of the tensors; none: as those of the sources, or else as the family's usual job has them.
    pub(crate) names: Option<Scheme>,
    /// Other names of what is written; none: the same.
    pub(crate) renamed: Option<Scheme>,
    /// Keys of a configuration that say which tensors are in one where that is written; none: as in the
    /// source.
    pub(crate) rejoined: Vec<(&'static str, bool)>,
    /// Rows that the vocabulary has where that is written; none: as the model says.
    pub(crate) vocabulary_rows: Option<u64>,
    /// Whether the job has several ranks, where its launcher says it; none: as its configuration has it.
    pub(crate) use_parallel: Option<bool>,
    /// Where the weights are.
    pub(crate) sources: Vec<PathBuf>,
}

impl Deriving {
    /// The same with one more place of weights.
    pub(crate) fn and(mut self, source: &Path) -> Deriving {
        self.sources.push(source.to_path_buf());
        self
    }

    /// [`Deriving::check`] for the sides of `job`. Local.
    ///
    /// # Errors
    /// As it.
    pub(crate) fn check_job(&self, job: &Job) -> Result<()> {
        if let Goal::Write(write) = &job.goal
            && write.view.is_some()
            && matches!(write.leftovers, Leftovers::Reshard(_))
        {
            // Another form of the model is made by it.
            return Ok(());
        }
        let other = match &job.goal {
            Goal::Compare(comparing) => Some(&comparing.other.strategy),
            goal => goal.writing().map(|writing| &writing.strategy),
        };
        self.check([&job.reading.strategy].into_iter().chain(other))
    }

    /// Makes the strategies of `job` that don't lie in files. Collective.
    ///
    /// # Errors
    /// The same on every process: [`Kind::Config`] for what can't be derived, saying what to give.
    pub(crate) fn fill(&self, world: &World, job: &mut Job) -> Result<()> {
        let mut inputs = Vec::new();
        let there = Deriving {
            renamed: None,
            rejoined: Vec::new(),
            vocabulary_rows: None,
            ..self.clone()
        };
        let mut fill = |by: &Deriving, side: &mut Option<StrategyInput>| -> Result<()> {
            let typed = side.as_ref().map(|side| side.typed().to_path_buf());
            by.make(world, side)?;
            // Files that are only read here are not to be replaced either.
            if let (Some(made), Some(typed)) = (side, typed)
                && made.path().is_none()
            {
                let config = matches!(Asked::of(&typed), Some(Asked::Config(_)));
                inputs.extend(config.then_some(typed));
                inputs.extend(self.model.clone());
            }
            Ok(())
        };
        fill(&there, &mut job.reading.strategy)?;
        match &mut job.goal {
            Goal::Compare(comparing) => fill(&there, &mut comparing.other.strategy)?,
            Goal::Write(write) => {
                fill(self, &mut write.writing.strategy)?;
                write.writing.inputs.extend(inputs);
            }
            Goal::Convert(_) => {}
        }
        Ok(())
    }

    /// Makes a strategy if it doesn't lie in files: process 0 derives it for all. Collective.
    ///
    /// # Errors
    /// As [`Deriving::fill`].
    pub(crate) fn make(&self, world: &World, input: &mut Option<StrategyInput>) -> Result<()> {
        let Some((typed, asked)) = to_derive(input.as_ref()) else {
            return Ok(());
        };
        let sampled = self.sampled();
        let mut all = all_gather(world, &self.seen(&sampled))?;
        let telling = all.iter().position(|seen| seen.names.is_some());
        let seen = all.swap_remove(telling.unwrap_or_default());
        let mine = if world.process() == 0 {
            self.derived(&typed, &asked, seen, &sampled)
        } else {
            Ok(Made::default())
        };
        let mine = mine.and_then(|made| encode(&made));
        let (bytes, shapes): Made = decode(&broadcast_bytes(world, 0, agree(world, mine)?)?)?;
        *input = Some(StrategyInput::made(typed, bytes).of_shapes(shapes.into()));
        Ok(())
    }

    /// The same for one process. Local.
    ///
    /// # Errors
    /// As [`Deriving::fill`].
    pub(crate) fn make_alone(&self, input: StrategyInput) -> Result<StrategyInput> {
        let Some((typed, asked)) = to_derive(Some(&input)) else {
            return Ok(input);
        };
        let sampled = self.sampled();
        let (bytes, shapes) = self.derived(&typed, &asked, self.seen(&sampled), &sampled)?;
        Ok(StrategyInput::made(typed, bytes).of_shapes(shapes.into()))
    }

    /// What this process sees of the sources. Local.
    fn sampled(&self) -> Vec<Sampled> {
        let found = self.sources.iter().filter_map(|source| readable(source));
        found.collect()
    }

    /// What their names tell.
    fn seen(&self, sampled: &[Sampled]) -> Seen {
        let found = sampled.iter();
        let mut found = found.map(|seen| Seen::of(seen.names.iter().map(String::as_str)));
        let seen = found.find(|seen| seen.names.is_some());
        let mut seen = seen.unwrap_or_default();
        seen.names = self.renamed.or(self.names).or(seen.names);
        seen.vocabulary_rows = self.vocabulary_rows;
        for (key, joined) in &self.rejoined {
            seen.rejoin(key, *joined);
        }
        seen
    }

    /// What the file would hold, and full shapes. Local.
    fn derived(
        &self,
        typed: &Path,
        asked: &Asked,
        seen: Seen,
        sampled: &[Sampled],
    ) -> Result<Made> {
        let given = self.given(typed)?;
        if let Some(model) = &given {
            let nothing = BTreeMap::new();
            let recorded = sampled.first().map_or(&nothing, |seen| &seen.metadata);
            check_heads(model, recorded, self.beside()?.as_deref())?;
        }
        let configured = |config: &Path, model: Option<&Path>| {
            launched(config, model, self.use_parallel).and_then(|job| derive(&job))
        };
        let derived = match (asked, given) {
            (Asked::Config(config), Some(model)) => configured(config, Some(&model)),
            (Asked::Config(config), None) => {
                let own = configured(config, None);
                match (own, self.beside()?) {
                    // What it doesn't say itself may stand where the weights are.
                    (Err(fault), Some(model)) if fault.kind == Kind::Config => {
                        configured(config, Some(&model))
                    }
                    (own, _) => own,
                }
            }
            (Asked::Sizes(sizes), given) => {
                let beside = if given.is_none() {
                    self.beside()?
                } else {
                    None
                };
                let model = given.or(beside);
                let model = model.map_or_else(|| Err(self.unknown_model(typed)?), Ok)?;
                derive(&usual(sizes, &seen, &model)?)
            }
        }?;
        for doubt in &derived.doubts {
            tracing::warn!("{}: {doubt}", typed.display());
        }
        let bytes = Derived::merged(Form::Protobuf, &derived.files(Form::Protobuf)?)?;
        Ok((bytes, derived.shapes()))
    }

    /// What `--model` gives. Local.
    fn given(&self, typed: &Path) -> Result<Option<PathBuf>> {
        if let Some(given) = &self.model
            && io::standing(given)? == Standing::Nothing
        {
            let fault = Fault::new(Kind::Config, "--model doesn't exist");
            let hint = format!("{} is derived from it", typed.display());
            return Err(fault.file(given.display().to_string()).hint(hint));
        }
        Ok(self.model.clone())
    }

    /// The config.json where the weights are. Local.
    fn beside(&self) -> Result<Option<PathBuf>> {
        for source in &self.sources {
            let folder = match io::standing(source)? {
                Standing::Directory => source.as_path(),
                _ => source.parent().unwrap_or(Path::new("")),
            };
            let config = folder.join(CONFIG);
            if io::standing(&config)? == Standing::File {
                return Ok(Some(config));
            }
        }
        Ok(None)
    }

    /// The fault of a layout of nobody knows what; or of a source that isn't there to tell. Local.
    fn unknown_model(&self, typed: &Path) -> Result<Fault> {
        for source in self.sources.iter().filter(|source| !is_one(source)) {
            if io::standing(source)? == Standing::Nothing {
                return Ok(nothing::absent(source));
            }
        }
        let message = format!(
            "{} is a layout without a model: names and shapes of its tensors aren't known",
            typed.display()
        );
        let fault = Fault::new(Kind::Config, message);
        let hint = "--model DIR: the model's directory or its config.json; or give a strategy file, or the trainer's YAML file, \
                    in its place";
        Ok(fault.hint(hint))
    }

    /// Refuses `--model` where nothing is derived. Local.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub(crate) fn check<'a>(
        &self,
        inputs: impl IntoIterator<Item = &'a Option<StrategyInput>>,
    ) -> Result<()> {
        let any = inputs
            .into_iter()
            .any(|input| to_derive(input.as_ref()).is_some());
        if self.model.is_none() || any {
            return Ok(());
        }
        let message = "--model is for a strategy that is given as a layout or as a YAML file";
        Err(Fault::new(Kind::Usage, message)
            .hint("dp=2,tp=4 or train.yaml in place of a strategy file"))
    }
}

/// What is to be derived of an input: as typed, and as understood.
fn to_derive(input: Option<&StrategyInput>) -> Option<(PathBuf, Asked)> {
    let typed = input?.path()?;
    Some((typed.to_path_buf(), Asked::of(typed)?))
}
