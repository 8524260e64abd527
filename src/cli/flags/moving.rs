//! How a job moves bytes.

use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::report::ReportArgs;
use crate::cli::flags::size::parse_size;
use crate::fault::Result;
use crate::measure::simulate::read_machine;
use crate::plan::reach::ExchangeMode;
use crate::report::{Progress, Shows};
use crate::transport::{IoMode, Moving, check_threads};
use clap::Args;
use std::path::Path;

const EXCHANGES: &[Choice<ExchangeMode>] = &[
    (
        "auto",
        ExchangeMode::Auto,
        "Read what is visible, send the rest",
    ),
    (
        "collective",
        ExchangeMode::Collective,
        "Every shard has one owner; whatever another process needs is sent through MPI",
    ),
    (
        "direct",
        ExchangeMode::Direct,
        "Never send: all shards must be visible to all",
    ),
];
const IO_MODES: &[Choice<IoMode>] = &[
    (
        "auto",
        IoMode::Auto,
        "What was measured to be best: `pread`",
    ),
    ("mmap", IoMode::Mmap, "Memory maps"),
    ("pread", IoMode::Pread, "System calls"),
];
const PROGRESS: &[Choice<Progress>] = &[
    (
        "auto",
        Progress::Auto,
        "On long work: a line that renews itself on a terminal, else plain lines",
    ),
    ("never", Progress::Never, "Never"),
    (
        "json",
        Progress::Json,
        "For scripts: a JSON object a second on stderr, and one at the end",
    ),
];

/// What holds for `--memory` where nothing is said.
pub(crate) const MEMORY: &str = "1GiB";
/// What holds for `--threads`.
pub(crate) const THREADS: &str = "0";

/// What a plan of rounds depends on.
#[derive(Clone, Debug, Args)]
pub(crate) struct RoundArgs {
    /// Most memory for buffers, for each process (kB, MB, GB are decimal; KiB, MiB, GiB binary).
    #[arg(long, value_name = "SIZE", default_value = MEMORY, value_parser = parse_size)]
    pub(crate) memory: u64,
    /// How slices travel between processes.
    #[arg(long, default_value = "auto", value_parser = choice(EXCHANGES))]
    pub(crate) exchange: ExchangeMode,
}

/// How progress is shown.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProgressArgs {
    /// Show progress.
    #[arg(long, default_value = "auto", value_parser = choice(PROGRESS))]
    pub(crate) progress: Progress,
}

impl ProgressArgs {
    /// What is shown.
    pub(crate) fn shows(&self) -> Shows {
        Shows {
            progress: self.progress,
            rates: true,
        }
    }
}

/// How a job moves bytes.
#[derive(Clone, Debug, Args)]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    pub(crate) rounds: RoundArgs,
    /// Worker threads of each process (0: the node's cores divided by its processes).
    #[arg(long, value_name = "N", default_value = THREADS)]
    pub(crate) threads: usize,
    /// How source files are read.
    #[arg(long, default_value = "auto", value_parser = choice(IO_MODES))]
    pub(crate) io: IoMode,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    /// The tensor that the report shows first [default: the largest of those that are cut anew].
    #[arg(long, value_name = "NAME", requires = "report")]
    report_tensor: Option<String>,
}

impl MoveArgs {
    /// The report that is asked for.
    pub(crate) fn reporting(&self) -> ReportArgs {
        self.report.showing(self.report_tensor.as_ref())
    }

    /// How bytes are moved, by `machine` if one is described.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Corrupt`] if the machine's description is none.
    pub(crate) fn moving(&self, machine: Option<&Path>) -> Result<Moving> {
        check_threads(self.threads)?;
        Ok(Moving {
            memory_bytes: self.rounds.memory,
            exchange: self.rounds.exchange,
            threads: self.threads,
            io: self.io,
            machine: read_machine(machine)?,
        })
    }
}
