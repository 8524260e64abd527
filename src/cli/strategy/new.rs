//! `shardloom strategy new`: a strategy from a mesh and rules, or like an old one.

use crate::cli::flags::choice::choice;
use crate::cli::flags::family::SCHEMES;
use crate::cli::flags::strategy::strategy;
use crate::cli::output::check_strategy;
use crate::fault::{Fault, Kind, Result};
use crate::front::Deriving;
use crate::job::inspect::cut_tensors;
use crate::measure::shapes::read_shapes;
use crate::model::Scheme;
use crate::model::derive::{Seen, derive, usual};
use crate::plan::inventory::is_count;
use crate::report::Report;
use crate::source::strategy_files::read_alone;
use crate::store::single::write_single;
use crate::strategy::derive::{Counts, Mesh, Rule};
use crate::strategy::like::like;
use crate::strategy::{self, Form, Strategy, StrategyInput};
use clap::{ArgGroup, Args};
use std::path::PathBuf;

/// What it is made of, and where it goes.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("of").args(["weights", "model", "like"]).required(true).multiple(true))]
pub(super) struct NewArgs {
    /// Mesh axes, slowest first; pp means pipeline stages: dp=2,tp=4,pp=2.
    #[arg(long)]
    mesh: String,
    /// An axis or - for each dimension of the tensors that match: '*.weight=tp,-'.
    #[arg(long = "rule", value_name = "GLOB=AXES")]
    rules: Vec<String>,
    /// Cut dimension 0 once more over this many replicas; -1: all.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    optimizer_shard: Option<i64>,
    /// Weights that the strategy is for: full ones, rank directories with their --strategy, or a JSON file
    /// of shapes, {"name": {"dtype": "BF16", "shape": [4, 4]}}, as a safetensors header is.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Of rank directories: their strategy, files, a layout (dp=2,tp=4) or a trainer's YAML file.
    #[arg(long, value_name = "S", requires = "weights", value_parser = strategy())]
    strategy: Option<StrategyInput>,
    /// In place of weights: the model that they will be of, its directory or its config.json; with --like, that
    /// of a layout.
    #[arg(long, value_name = "DIR", conflicts_with = "weights")]
    model: Option<PathBuf>,
    /// Names of the model's tensors [default: those of the family's usual job].
    #[arg(long, requires = "model", value_parser = choice(SCHEMES))]
    names: Option<Scheme>,
    /// In place of rules and weights: a strategy whose axes, in their order, cut what those of the
    /// mesh are to cut: files, a layout (dp=2,tp=4, with --model) or a trainer's YAML file.
    #[arg(long, value_name = "OLD", value_parser = strategy(), conflicts_with_all = ["rules", "optimizer_shard", "weights"])]
    like: Option<StrategyInput>,
    /// File to write: JSON if its name ends so, else protobuf.
    #[arg(long)]
    output: PathBuf,
    /// Replace the output if it exists.
    #[arg(long)]
    overwrite: bool,
}

/// What was made.
struct Made {
    bytes: Vec<u8>,
    strategy: Strategy,
    /// What rules cut.
    counts: Counts,
}

impl NewArgs {
    /// Makes and writes it.
    pub(super) fn run(&self, report: &Report) -> Result<()> {
        let given = [
            ("weights", self.weights.as_deref()),
            ("model", self.model.as_deref()),
            ("strategy", self.like.as_ref().and_then(StrategyInput::path)),
            (
                "strategy",
                self.strategy.as_ref().and_then(StrategyInput::path),
            ),
        ];
        let inputs = given
            .into_iter()
            .filter_map(|(what, path)| Some((what, path?)));
        check_strategy(&self.output, self.overwrite, &inputs.collect::<Vec<_>>())?;
        let mesh = Mesh::parse(&self.mesh)?;
        let made = match &self.like {
            Some(old) => self.cut_like(old, &mesh)?,
            None => self.cut_by_rules(&mesh)?,
        };
        write_single(&self.output, &made.bytes)?;
        report.strategy_made(&self.output, &made.strategy, &made.counts)
    }

    fn form(&self) -> Form {
        Form::of(&self.output.display().to_string())
    }

    fn cut_by_rules(&self, mesh: &Mesh) -> Result<Made> {
        let rules = self.rules.iter().map(|rule| Rule::parse(rule));
        let rules = rules.collect::<Result<Vec<_>>>()?;
        let tensors = self.tensors()?;
        let mut derived = strategy::derive::derive(mesh, &rules, self.optimizer_shard, &tensors)?;
        if self.weights.is_some() {
            derived.strategy.tell_shapes(&tensors);
        }
        let bytes = match self.form() {
            Form::Json => derived.strategy.to_json()?,
            Form::Protobuf => derived.bytes,
        };
        Ok(Made {
            bytes,
            strategy: derived.strategy,
            counts: derived.counts,
        })
    }

    fn cut_like(&self, old: &StrategyInput, mesh: &Mesh) -> Result<Made> {
        let named = |fault: Fault| fault.file(old.to_string());
        let deriving = Deriving {
            model: self.model.clone(),
            names: self.names,
            ..Deriving::default()
        };
        deriving.check([&Some(old.clone())])?;
        let old = read_alone(&deriving.make_alone(old.clone())?)?;
        let made = like(&old, mesh).map_err(named)?;
        let bytes = match self.form() {
            Form::Json => made.to_json()?,
            Form::Protobuf => made.to_protobuf()?,
        };
        Ok(Made {
            bytes,
            strategy: made,
            counts: Counts::default(),
        })
    }

    /// Names and full shapes of the tensors that it is for.
    fn tensors(&self) -> Result<Vec<(String, Vec<u64>)>> {
        match (&self.weights, &self.model) {
            (Some(weights), _) => match &self.strategy {
                Some(input) => {
                    let deriving = Deriving {
                        sources: vec![weights.clone()],
                        ..Deriving::default()
                    };
                    cut_tensors(weights, &read_alone(&deriving.make_alone(input.clone())?)?)
                }
                None => {
                    let shapes = read_shapes(weights).map_err(|fault| match fault.kind {
                        Kind::Usage => fault.hint("--strategy S says how it is cut"),
                        _ => fault,
                    })?;
                    // Every rank has what tells where the job stands.
                    let named = shapes.into_iter();
                    let named = named.filter(|(name, _, shape)| !is_count(name, shape));
                    Ok(named
                        .map(|(name, _, shape)| (name.to_string(), shape.0))
                        .collect())
                }
            },
            (None, Some(model)) => {
                let seen = Seen {
                    names: self.names,
                    ..Seen::default()
                };
                let whole = derive(&usual("dp=1", &seen, model)?)?;
                Ok(whole.held(0).into_iter().collect())
            }
            (None, None) => Err(Fault::new(Kind::Usage, "give --weights, --model or --like")),
        }
    }
}
