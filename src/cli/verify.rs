//! `shardloom verify`: files against the manifest that was written with them.

use crate::cli::command::{Command, Prepared, Told};
use crate::fault::Result;
use crate::job::verify::{Verification, verify};
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom verify out
  shardloom verify out --against full";

/// Check a directory's files against the manifest that was written with them.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Verify {
    /// A directory with a manifest (shardloom.json).
    directory: PathBuf,
    /// Compare the tensors with those of this directory, in whatever layout, by the digests of both
    /// manifests alone.
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
}

impl Command for Verify {
    fn prepare(self) -> Result<Prepared> {
        let verification = Verification {
            directory: self.directory,
            against: self.against,
        };
        Ok(Prepared::together(move |world| {
            verify(world, &verification).map(Told::outcome)
        }))
    }
}
