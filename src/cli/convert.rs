//! `shardloom convert`: each file as it is, in another format.

use crate::cli::command::{Command, Prepared};
use crate::cli::flags::choice::{Choice, choice};
use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::reading::{NameMapArgs, VerifyArgs};
use crate::cli::flags::writing::{CommitArgs, DestinationArgs};
use crate::fault::{Fault, Kind, Result};
use crate::job::{self, Goal, Job};
use crate::source::{Reading, Which};
use crate::store::Format;
use clap::Args;
use std::path::PathBuf;
use std::sync::LazyLock;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom convert ckpt --dst out --to safetensors
  shardloom convert net.safetensors --dst out --to ckpt --crc";

static FORMATS: LazyLock<Vec<Choice<Format>>> = LazyLock::new(|| {
    let written = Format::written();
    let shown = |format: Format| (format.name(), format, format.about());
    written.map(shown).collect()
});

/// Each file as it is, in another format.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Convert {
    /// A file, a tree of rank directories, or a directory of full weights.
    src: PathBuf,
    #[command(flatten)]
    destination: DestinationArgs,
    /// Format to write.
    #[arg(long, value_parser = choice(&FORMATS))]
    to: Format,
    #[command(flatten)]
    names: NameMapArgs,
    /// Convert only files whose names contain this text.
    #[arg(long, value_name = "TEXT")]
    file_name_contains: Option<String>,
    /// Check the CRC of .ckpt sources that carry one.
    #[arg(long)]
    check_crc: bool,
    /// Append a CRC to .ckpt files written.
    #[arg(long)]
    crc: bool,
    #[command(flatten)]
    moving: MoveArgs,
    #[command(flatten)]
    verify: VerifyArgs,
    #[command(flatten)]
    commit: CommitArgs,
}

impl Command for Convert {
    const IS_JOB: bool = true;

    fn prepare(self) -> Result<Prepared> {
        if self.crc && !self.to.has_checksum() {
            let message = "--crc is for .ckpt files: --to ckpt";
            return Err(Fault::new(Kind::Usage, message));
        }
        let job = Job {
            command: "convert",
            reading: Reading {
                path: self.src,
                which: Which::Every {
                    to: self.to,
                    contains: self.file_name_contains,
                    check_crc: self.check_crc,
                },
                verify: self.verify.verify,
                ..Reading::default()
            },
            goal: Goal::Convert(Box::new(job::Convert {
                format: self.to,
                name_map: self.names.read()?,
                crc: self.crc,
                writing: self
                    .commit
                    .writing(self.destination.dst)
                    .keeping(&self.names.name_map),
            })),
            moving: self.moving.moving(None)?,
            dry_run: false,
        };
        Prepared::job(&self.moving, job)
    }
}
