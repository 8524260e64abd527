//! The reshard that is meant, where no weights are moved.

use crate::cli::flags::moving::RoundArgs;
use crate::cli::flags::strategy::{NetworkArgs, strategy};
use crate::cli::flags::writing::CutArgs;
use crate::exchange::{World, agree};
use crate::fault::Result;
use crate::front::Deriving;
use crate::measure::bench::{Measured, Repeat};
use crate::measure::simulate::read_shapes;
use crate::measure::traffic::{Reshard, exchange};
use crate::model::derive::tensors;
use crate::plan::simulate::Shapes;
use crate::strategy::StrategyInput;
use clap::Args;
use std::path::{Path, PathBuf};

/// What `--model` is for, where it takes the place of weights.
pub(crate) const MODEL: &str =
    "The model's directory, or its config.json: in place of --shapes, too";

/// The strategies of a reshard's two sides.
#[derive(Clone, Debug, Args)]
pub(crate) struct SidesArgs {
    /// Strategy of the source: files, a layout (dp=2,tp=4) or a trainer's YAML file [default: full weights].
    #[arg(long, value_name = "S", value_parser = strategy())]
    pub(crate) src_strategy: Option<StrategyInput>,
    #[command(flatten)]
    pub(crate) cut: CutArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

impl SidesArgs {
    /// The tensors: those of `shapes`, or, without it, the model's, with their optimizer's `states`. Local.
    ///
    /// # Errors
    /// Those of the files.
    pub(crate) fn shapes(&self, shapes: Option<&Path>, states: bool) -> Result<Shapes> {
        match (shapes, self.network.model.model.as_deref()) {
            (None, Some(model)) => tensors(&self.network.seen(), model, states),
            (shapes, _) => read_shapes(shapes.unwrap_or(Path::new(""))),
        }
    }
}

/// A reshard of tensors of which only the shapes are known.
#[derive(Clone, Debug, Args)]
#[command(mut_arg("model", |arg| arg.help(MODEL)))]
pub(crate) struct PlannedArgs {
    #[command(flatten)]
    sides: SidesArgs,
    /// Full shapes: JSON {name: {"dtype": "BF16", "shape": [4, 4]}}, or full weights.
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    shapes: Option<PathBuf>,
    /// Processes that are taken for a node's [default: those that share one].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ranks_per_node: Option<u32>,
    #[command(flatten)]
    rounds: RoundArgs,
}

impl PlannedArgs {
    /// Whether strategies can be had. Local.
    pub(crate) fn check(&self) -> Result<()> {
        let deriving = self.deriving();
        deriving.check([&self.sides.src_strategy, &self.sides.cut.dst_strategy])
    }

    fn deriving(&self) -> Deriving {
        let place = self.shapes.as_deref().unwrap_or(Path::new(""));
        self.sides.network.deriving(place)
    }

    /// Sends what it would send. Collective.
    pub(crate) fn measure(&self, world: &World, repeat: Repeat) -> Result<Measured> {
        let deriving = self.deriving();
        let mut reshard = Reshard::new(self.rounds.exchange, self.rounds.memory);
        reshard.source.clone_from(&self.sides.src_strategy);
        reshard.destination.clone_from(&self.sides.cut.dst_strategy);
        reshard.ranks_per_node = self.ranks_per_node;
        deriving.make(world, &mut reshard.source)?;
        deriving.make(world, &mut reshard.destination)?;
        let shapes = agree(world, self.sides.shapes(self.shapes.as_deref(), false))?;
        exchange(world, repeat, &reshard, &shapes)
    }
}
