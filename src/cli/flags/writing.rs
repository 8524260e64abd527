//! Where and how a job writes.

use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::strategy::strategy;
use crate::destination::{Placement, Writing};
use crate::fault::Result;
use crate::plan::arrange::Files;
use crate::store::formats::laid::DirectoryAsked;
use crate::store::{Directory, Format};
use crate::strategy::StrategyInput;
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
    let files = files.map(|of| (of.name(), WrittenFormat::Files(of), of.about()));
    let all = Directory::all().filter(|of| of.is_written());
    let all = all.map(|of| (of.name(), WrittenFormat::Directory(of), of.about()));
    files.chain(all).collect()
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
    /// Strategy of the destination: files, a layout (dp=2,tp=4) or a trainer's YAML file [default: full weights].
    #[arg(long, value_name = "S", value_parser = strategy())]
    pub(crate) dst_strategy: Option<StrategyInput>,
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
    /// Replace the unchanged result that an earlier run of the same job has left, which said so too.
    #[arg(long, hide = true)]
    pub(crate) again: bool,
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
    /// A directory that tells its own layout.
    Directory(Directory),
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
            again: self.again,
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
    pub(crate) fn writing(&self, path: PathBuf, strategy: Option<StrategyInput>) -> Writing {
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
            WrittenFormat::Directory(format) => format.files(),
        })
    }

    /// The word of the format, if one is asked for.
    pub(crate) fn format_word(&self) -> Option<&'static str> {
        self.format.map(|format| match format {
            WrittenFormat::Files(format) => format.name(),
            WrittenFormat::Directory(format) => format.name(),
        })
    }

    /// The format, if it is one of directories that tell their own layout.
    pub(crate) fn directory(&self) -> Option<Directory> {
        match self.format {
            Some(WrittenFormat::Directory(format)) => Some(format),
            _ => None,
        }
    }

    /// The arrangement to write: `files`, or what is `asked` of a directory, if one is to be written that
    /// tells its own layout.
    pub(crate) fn files(&self, files: Files, asked: DirectoryAsked) -> Files {
        match self.directory() {
            Some(format) => Files::Directory { format, asked },
            None => files,
        }
    }
}
