//! A strategy where one is asked for: files, or what it is derived from.

use crate::cli::flags::choice::choice;
use crate::cli::flags::family::SCHEMES;
use crate::fault::{Fault, Result};
use crate::front::Deriving;
use crate::front::deriving::Asked;
use crate::model::Scheme;
use crate::model::derive::{Seen, Sizes};
use crate::strategy::StrategyInput;
use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use std::path::{Path, PathBuf};

/// How a strategy is read from the command line: sizes that are none are wrong usage.
pub(crate) fn strategy() -> impl TypedValueParser<Value = StrategyInput> {
    PathBufValueParser::new().try_map(|typed| -> Result<StrategyInput> {
        if let Some(Asked::Sizes(sizes)) = Asked::of(&typed) {
            let parsed = Sizes::parse(&sizes).and_then(|sizes| sizes.mesh.check());
            parsed.map_err(|fault| match &fault.hint {
                Some(hint) => Fault::new(fault.kind, format!("{} ({hint})", fault.message)),
                None => fault,
            })?;
        }
        Ok(StrategyInput::from(typed))
    })
}

/// What a strategy is derived from that doesn't lie in files.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ModelArgs {
    /// The model's directory, or its config.json: for a strategy that is given as a layout (dp=2,tp=4,pp=2)
    /// or as a trainer's YAML file [default: where the weights are, and what the YAML file says].
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
}

/// The same, and whose names, for commands that know none otherwise.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NetworkArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Names of the tensors of a strategy that is given as a layout [default: those that the weights have].
    #[arg(long, value_parser = choice(SCHEMES))]
    pub(crate) names: Option<Scheme>,
}

impl NetworkArgs {
    /// Deriving for weights in `source`.
    pub(crate) fn deriving(&self, source: &Path) -> Deriving {
        self.model.deriving(source, self.names)
    }

    /// What is known of tensors that are nowhere yet.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            names: self.names,
            ..Seen::default()
        }
    }
}

impl ModelArgs {
    /// Deriving for weights in `source`, by `names` or by those that its tensors have.
    pub(crate) fn deriving(&self, source: &Path, names: Option<Scheme>) -> Deriving {
        Deriving {
            model: self.model.clone(),
            names,
            sources: vec![source.to_path_buf()],
            ..Deriving::default()
        }
    }
}
