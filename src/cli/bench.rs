//! `shardloom bench …`: what this machine can do.

use crate::cli::command::{Command, Prepared, Told};
use crate::cli::flags::amount::parse_time;
use crate::cli::flags::measuring::{MessageArgs, OutputArgs, PlaceArgs, RepeatArgs};
use crate::cli::flags::planned::PlannedArgs;
use crate::cli::flags::size::parse_size;
use crate::exchange::World;
use crate::fault::Result;
use crate::measure::bench::Measured;
use crate::measure::collectives::collectives;
use crate::measure::everything::everything;
use crate::measure::reshard::reshard;
use crate::measure::storage::{FILES, Files, storage};
use crate::report::Report;
use crate::transport::Observer;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom bench all --dir /scratch --budget 5min --html cluster.html
  mpirun -n 8 shardloom bench collectives --max-size 16MiB
  mpirun -n 8 shardloom bench exchange --src-strategy strategy --dst-strategy new --shapes full";

/// Most small files of a process.
const FILES_MAX: i64 = 1 << 20;

/// Measure what this machine can do, with the program's own primitives.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Bench {
    #[command(subcommand)]
    question: Question,
}

/// What is measured.
#[derive(Clone, Debug, Subcommand)]
enum Question {
    /// Messages and collectives between the processes, by size: the program's own beside the MPI
    /// library's.
    #[command(before_help = "\
Examples:
  mpirun -n 8 shardloom bench collectives --max-size 16MiB
  mpirun -n 8 shardloom bench collectives --operation all_to_all --html page.html")]
    Collectives {
        #[command(flatten)]
        messages: MessageArgs,
        #[command(flatten)]
        repeat: RepeatArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Writing, flushing and reading files by each process, by the size of a call, and small files.
    #[command(before_help = "\
Examples:
  mpirun -n 8 shardloom bench storage --dir /scratch
  shardloom bench storage --dir . --bytes 64MiB --json")]
    Storage {
        #[command(flatten)]
        place: PlaceArgs,
        /// Size of each process's file.
        #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
        bytes: u64,
        /// Small files that each process makes.
        #[arg(long, value_name = "N", default_value_t = FILES, value_parser = clap::value_parser!(u32).range(1..=FILES_MAX))]
        files: u32,
        #[command(flatten)]
        repeat: RepeatArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// What a reshard would send between these processes, with made-up bytes and no files.
    #[command(before_help = "\
Examples:
  mpirun -n 8 shardloom bench exchange --src-strategy strategy --dst-strategy new --shapes full
  mpirun -n 8 shardloom bench exchange --src-strategy tp=4 --dst-strategy tp=2 --model Qwen3-8B")]
    Exchange {
        #[command(flatten)]
        planned: Box<PlannedArgs>,
        #[command(flatten)]
        repeat: RepeatArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Everything, in a bounded time, with a verdict.
    #[command(before_help = "\
Examples:
  mpirun -n 8 shardloom bench all --dir /scratch --budget 5min --html cluster.html
  mpirun -n 8 shardloom bench all --budget 30s --json")]
    All {
        /// Existing directory to write in, for what concerns files.
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// How long it may take, about.
        #[arg(long, value_name = "TIME", default_value = "5min", value_parser = parse_time)]
        budget: Duration,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// A reshard of generated weights from 8 to 4 tensor-parallel ranks, against plain copying.
    #[command(before_help = "\
Examples:
  mpirun -n 4 shardloom bench reshard --dir /scratch --bytes 1GiB
  shardloom bench reshard --dir . --bytes 64MiB --iterations 3")]
    Reshard {
        #[command(flatten)]
        place: PlaceArgs,
        /// Size of the weights.
        #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
        bytes: u64,
        /// Have the system drop what is read from memory before each time.
        #[arg(long)]
        off_cache: bool,
        #[command(flatten)]
        repeat: RepeatArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl Command for Bench {
    fn prepare(self) -> Result<Prepared> {
        self.question.check()?;
        let asked = self.question.output().report.clone();
        let progress = self.question.output().progress.clone();
        let messages = matches!(self.question, Question::Collectives { .. });
        let measures = Prepared::told(&progress, asked, move |world, observer| {
            self.question.check_place(world)?;
            let output = self.question.output().open(world)?;
            let mut measured = self.question.measure(world, observer)?;
            output.compare(&mut measured);
            let page = Report::measured_page(&measured);
            let told = Told::new(measured.ok, move |report| {
                output.save(&measured)?;
                report.measured(&measured)
            });
            Ok(told.with_page(page))
        });
        let measures = measures.without_rates();
        Ok(if messages {
            measures.by_one_thread()
        } else {
            measures
        })
    }
}

impl Question {
    fn output(&self) -> &OutputArgs {
        match self {
            Question::Collectives { output, .. }
            | Question::Storage { output, .. }
            | Question::Exchange { output, .. }
            | Question::All { output, .. }
            | Question::Reshard { output, .. } => output,
        }
    }

    /// Whether the flags agree with each other. Local.
    fn check(&self) -> Result<()> {
        match self {
            Question::Collectives { messages, .. } => messages.check(),
            Question::Exchange { planned, .. } => planned.check(),
            _ => Ok(()),
        }
    }

    /// Whether there is a place for files. Collective.
    fn check_place(&self, world: &World) -> Result<()> {
        match self {
            Question::Storage { place, .. } | Question::Reshard { place, .. } => place.check(world),
            Question::All { dir, .. } => PlaceArgs { dir: dir.clone() }.check(world),
            _ => Ok(()),
        }
    }

    /// Measures it. Collective.
    fn measure(&self, world: &World, observer: &mut Observer<'_>) -> Result<Measured> {
        match self {
            Question::Collectives {
                messages, repeat, ..
            } => collectives(world, &messages.question(repeat.many()), observer),
            Question::Storage {
                place,
                bytes,
                files,
                repeat,
                ..
            } => {
                let (bytes, count) = (*bytes, *files);
                let files = Files {
                    bytes,
                    count,
                    budget: None,
                };
                storage(world, repeat.few(), &place.dir, files, observer)
            }
            Question::All { dir, budget, .. } => everything(world, dir, *budget, observer),
            Question::Exchange {
                planned, repeat, ..
            } => planned.measure(world, repeat.some()),
            Question::Reshard {
                place,
                bytes,
                off_cache,
                repeat,
                ..
            } => {
                let mut repeat = repeat.few();
                repeat.off_cache = *off_cache;
                reshard(world, repeat, &place.dir, *bytes, observer)
            }
        }
    }
}
