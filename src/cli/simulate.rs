//! `shardloom simulate`: a plan without data. One process, no MPI.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::moving::{ProgressArgs, RoundArgs};
use crate::cli::flags::planned::{MODEL, SidesArgs};
use crate::cli::flags::report::ReportArgs;
use crate::cli::output::try_replacing;
use crate::course;
use crate::fault::Result;
use crate::layout::RANKS_MAX;
use crate::measure::simulate::{Question, plan_telling, read_machine};
use crate::model::derive::layouts;
use crate::plan::simulate::Storage;
use crate::report::{Report, Teller, said_page, save_picture};
use crate::source::strategy_files::read_alone;
use crate::strategy::{Strategy, StrategyInput};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use table::table;

mod table;

const EXAMPLES: &str = "\
Examples:
  shardloom simulate --src-strategy strategy --dst-strategy new --shapes shapes.json --svg plan.svg
  shardloom simulate --from dp=2,tp=4 --to dp=4,tp=2 --model Qwen3-8B
  shardloom simulate --devices 64 --model Qwen3-8B --storage shared";

const STORAGES: &[Choice<Storage>] = &[
    (
        "local",
        Storage::Local,
        "On each node's own disks: shards lie where their ranks are",
    ),
    (
        "shared",
        Storage::Shared,
        "On a file system that all nodes share",
    ),
    (
        "shared-source",
        Storage::SharedSource,
        "The source on a file system that all nodes share, the destination on each node's own disks",
    ),
    (
        "shared-destination",
        Storage::SharedDestination,
        "The source on each node's own disks, the destination on a file system that all nodes share",
    ),
];

/// Plan and cost of a reshard for thousands of ranks, from strategies and shapes alone.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
#[command(
    mut_arg("src_strategy", |arg| arg.visible_alias("from")),
    mut_arg("dst_strategy", |arg| arg.visible_alias("to")),
    mut_arg("model", |arg| arg.help(MODEL))
)]
pub(crate) struct Simulate {
    #[command(flatten)]
    sides: SidesArgs,
    /// Full shapes: JSON {name: {"dtype": "BF16", "shape": [4, 4]}}, or full weights.
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    shapes: Option<PathBuf>,
    /// Every layout that so many devices can have of --model, in place of --dst-strategy.
    #[arg(long, value_name = "N", requires = "model", conflicts_with_all = ["dst_strategy", "process", "svg", "report_tensor"],
          value_parser = clap::value_parser!(u64).range(1..=65536))]
    devices: Option<u64>,
    /// Count what the optimizer (AdamW) saves, too: two numbers in float32 for each of a trained weight.
    #[arg(long, requires = "model", conflicts_with = "shapes")]
    states: bool,
    /// Only this process's plan.
    #[arg(long, value_name = "P")]
    process: Option<u32>,
    /// Number of processes [default: one for each destination rank].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(RANKS_MAX)))]
    processes: Option<u32>,
    /// Processes of a node [default: the machine's, or 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(RANKS_MAX)))]
    ranks_per_node: Option<u32>,
    /// Where source and destination are.
    #[arg(long, default_value = "local", value_parser = choice(STORAGES))]
    storage: Storage,
    #[command(flatten)]
    rounds: RoundArgs,
    /// What a node can do: JSON with disk_read_gbps, disk_write_gbps, network_gbps, shared_read_gbps
    /// and shared_write_gbps (10^9 bytes a second), ranks_per_node and latency_us.
    #[arg(long, value_name = "JSON")]
    machine: Option<PathBuf>,
    /// Draw each process's bytes.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    report: ReportArgs,
    /// The tensor that the report shows first [default: the largest of those that are cut anew].
    #[arg(long, value_name = "NAME", requires = "report")]
    report_tensor: Option<String>,
}

impl Command for Simulate {
    fn prepare(self) -> Result<Prepared> {
        Ok(Prepared::alone(move |report| self.run(report)))
    }
}

impl Simulate {
    /// What is asked.
    fn question(&self, place: &Path) -> Result<Question> {
        Ok(Question {
            process: self.process,
            processes: self.processes,
            ranks_per_node: self.ranks_per_node,
            storage: self.storage,
            exchange: self.rounds.exchange,
            memory_bytes: self.rounds.memory,
            machine: read_machine(self.machine.as_deref())?,
            ..Question::new(place)
        })
    }

    /// Plans and tells.
    fn run(self, report: &Report) -> Result<bool> {
        let start = Instant::now();
        let asked = self.report.showing(self.report_tensor.as_ref());
        asked.try_file()?;
        let place = self.shapes.clone().unwrap_or_default();
        let question = self.question(&place)?;
        let shapes = self.sides.shapes(self.shapes.as_deref(), self.states)?;
        let deriving = self.sides.network.deriving(&place);
        let (source, destination) = (self.sides.src_strategy, self.sides.cut.dst_strategy);
        let read = |side: Option<StrategyInput>| -> Result<Option<Strategy>> {
            let made = side.map(|side| deriving.make_alone(side)).transpose()?;
            made.as_ref().map(read_alone).transpose()
        };
        let seen = self.sides.network.seen();
        let model = self.sides.network.model.model.as_deref();
        let svg = self.svg.as_deref();
        svg.map_or(Ok(()), |svg| try_replacing(svg, "<svg"))?;
        let source = read(source)?;
        let shows = self.progress.shows().unless(report.quiet);
        let mut teller = Teller::start(report.command, shows);
        let planned: u64 = shapes.iter().filter_map(bytes_of).sum();
        course::phase("planning");
        let mut tell = |done: u64, of: u64| {
            // What is planned for is counted in the weights' bytes.
            let done = planned / of.max(1) * done;
            course::moved(done, planned);
            teller.moved(done, planned);
        };
        if let (Some(devices), Some(model)) = (self.devices, model) {
            let all = layouts(devices, &seen, model)?;
            let made = table(
                &question,
                &shapes,
                source.as_ref(),
                (&all, self.states),
                &mut tell,
            );
            teller.end(made.is_ok());
            let (fields, text) = made?;
            asked.save(&said_page(report.command, text.as_str()))?;
            report.data(&fields, &text)?;
            return Ok(!all.is_empty());
        }
        asked.measure();
        let destination = read(destination)?;
        let discover = start.elapsed().as_secs_f64();
        let simulated = plan_telling(&question, &shapes, source.as_ref(), destination, &mut tell);
        teller.end(simulated.is_ok());
        let mut simulated = simulated?;
        simulated.seconds.discover = discover;
        simulated.seconds.total = start.elapsed().as_secs_f64();
        if let Some(path) = &self.svg {
            save_picture(path, &Report::simulated_picture(&simulated))?;
        }
        if asked.report.is_some() {
            asked.save(&Report::simulated_page(&simulated))?;
        }
        report.simulated(&simulated)?;
        Ok(true)
    }
}

/// Bytes of a tensor.
fn bytes_of((_, dtype, shape): &(Arc<str>, Dtype, Shape)) -> Option<u64> {
    shape.bytes(*dtype).ok()
}
