//! Where and how a job writes.

use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::moving::MoveArgs;
use crate::destination::{Placement, Writing};
use crate::fault::Result;
use crate::plan::arrange::Files;
use crate::plan::iteration::Iteration;
use crate::store::Format;
use crate::transport::Moving;
use clap::Args;
use std::path::PathBuf;
use std::sync::LazyLock;

const PLACEMENTS: &[Choice<Placement>] = &[
    (
        "auto",
        Placement::Auto,
        "All processes that see a destination share its work by bytes",
    ),
    (
        "identity",
        Placement::Identity,
        "Destination rank r of N is built by process floor(r * P / N) alone",
    ),
];
static FORMATS: LazyLock<Vec<Choice<WrittenFormat>>> = LazyLock::new(|| {
    let files = Format::written();
    let shown = |format: Format| (format.name(), WrittenFormat::Files(format), format.about());
    let mut formats: Vec<_> = files.map(shown).collect();
    formats.push((
        "checkpoint2",
        WrittenFormat::Checkpoint2,
        "Checkpoint 2.0: an iteration's directory of safetensors, with its layout in metadata.json",
    ));
    formats
});
const SYNCS: &[Choice<SyncMode>] = &[
    (
        "commit",
        SyncMode::Commit,
        "Before the result becomes visible",
    ),
    ("none", SyncMode::None, "Not at all"),
];

/// Where a job writes.
#[derive(Clone, Debug, Args)]
pub(crate) struct DestinationArgs {
    /// Directory to write.
    #[arg(long)]
    pub(crate) dst: PathBuf,
}

/// How what is written is cut.
#[derive(Clone, Debug, Args)]
pub(crate) struct CutArgs {
    /// Strategy of the destination [default: full weights].
    #[arg(long)]
    pub(crate) dst_strategy: Option<PathBuf>,
}

/// How many copies are written.
#[derive(Clone, Debug, Args)]
pub(crate) struct RedundancyArgs {
    /// Write one copy of each shard, by MindSpore's rule.
    #[arg(long)]
    pub(crate) remove_redundancy: bool,
}

/// How the new takes its place.
#[derive(Clone, Debug, Args)]
pub(crate) struct CommitArgs {
    /// Replace what stands at the destination, in one step, when the new is complete.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Take up what an interrupted run of the same job has left.
    #[arg(long)]
    pub(crate) resume: bool,
    /// When to wait for the disk.
    #[arg(long, default_value = "commit", value_parser = choice(SYNCS))]
    pub(crate) sync: SyncMode,
}

/// How a job writes.
#[derive(Clone, Debug, Args)]
pub(crate) struct WriteArgs {
    /// Print the plan and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Which process builds what.
    #[arg(long, default_value = "auto", value_parser = choice(PLACEMENTS))]
    pub(crate) placement: Placement,
    /// What the nodes can do, as for simulate: whether each of them reads what several need from
    /// storage that they share, or they read in turn and send it, follows from it.
    #[arg(long, value_name = "JSON")]
    pub(crate) machine: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) commit: CommitArgs,
    /// Format of the files written [default: that of the source's files, in rank directories].
    #[arg(long, value_parser = choice(&FORMATS))]
    pub(crate) format: Option<WrittenFormat>,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrittenFormat {
    /// Files of a format, as the command arranges them.
    Files(Format),
    Checkpoint2,
}

/// When to wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncMode {
    Commit,
    None,
}

impl CommitArgs {
    /// Writing into `path`.
    pub(crate) fn writing(&self, path: PathBuf) -> Writing {
        Writing {
            path,
            overwrite: self.overwrite,
            resume: self.resume,
            unflushed: self.sync == SyncMode::None,
            ..Writing::default()
        }
    }
}

impl WriteArgs {
    /// How bytes are moved.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Corrupt`] if the machine's description is none.
    pub(crate) fn moving(&self, moving: &MoveArgs) -> Result<Moving> {
        moving.moving(self.machine.as_deref())
    }

    /// Writing into `path`, cut by `strategy`.
    pub(crate) fn writing(&self, path: PathBuf, strategy: Option<PathBuf>) -> Writing {
        Writing {
            strategy,
            placement: self.placement,
            ..self.commit.writing(path)
        }
    }

    /// The format of each file, if one is asked for.
    pub(crate) fn files_format(&self) -> Option<Format> {
        self.format.map(|format| match format {
            WrittenFormat::Files(format) => format,
            WrittenFormat::Checkpoint2 => Format::SAFETENSORS,
        })
    }

    /// The arrangement to write: `files`, or `iteration` if a checkpoint 2.0 is asked for.
    pub(crate) fn files(&self, files: Files, iteration: Iteration) -> Files {
        if self.format == Some(WrittenFormat::Checkpoint2) {
            Files::Iteration(iteration)
        } else {
            files
        }
    }
}
