//! A directory with a strategy file for each rank: there as a whole, or not at all.

use crate::fault::{Fault, Kind, Result};
use crate::model::derive::rank_file_name;
use crate::store::commit::Staging;
use crate::store::io::{self, Standing};
use crate::store::replaceable::{Replace, entries};
use crate::strategy::Form;
use std::path::{Path, PathBuf};

/// How the names of rank files begin.
const PREFIX: &str = "ckpt_strategy_rank_";

/// Whether the directory may be written.
///
/// # Errors
/// [`Kind::Exists`] for a file, and for a directory that isn't to be overwritten, or that has other files.
pub(super) fn check_directory(output: &Path, overwrite: bool) -> Result<()> {
    let exists = |what: &str, hint: &str| {
        let fault = Fault::new(Kind::Exists, what.to_owned());
        Err(fault.file(output.display().to_string()).hint(hint))
    };
    match io::standing(output)? {
        Standing::Nothing | Standing::EmptyDirectory => Ok(()),
        Standing::File => exists("is a file", "--output takes a directory"),
        Standing::Directory if !overwrite => exists("exists", "--overwrite replaces it"),
        Standing::Directory => {
            let strange =
                |(name, directory): &(String, bool)| *directory || !name.starts_with(PREFIX);
            match entries(output)?.into_iter().find(strange) {
                Some((name, _)) => exists(
                    &format!("has '{name}', which is no strategy of a rank"),
                    "only a directory of rank strategies is replaced",
                ),
                None => Ok(()),
            }
        }
    }
}

/// Writes `files`, one a stage, for the ranks of each. The directory comes into its place as any result
/// does.
///
/// # Errors
/// [`Kind::Busy`] if another run writes there, [`Kind::Exists`], [`Kind::Io`], [`Kind::NoSpace`].
pub(super) fn write_directory(
    output: &Path,
    overwrite: bool,
    files: &[Vec<u8>],
    ranks_per_stage: u32,
    form: Form,
) -> Result<()> {
    let mut staging = Staging::new(output)?;
    staging.lock("strategy derive", &io::host_name())?;
    staging.recover()?;
    staging.prepare(0, "", 0)?;
    let placed = fill(staging.partial(), files, ranks_per_stage, form).and_then(|()| {
        io::sync_directory(staging.partial())?;
        check_directory(output, overwrite)?;
        // It holds nothing but strategies of ranks.
        staging.publish(Replace::Source, true)
    });
    if placed.is_err() {
        let _ = staging.discard();
    }
    placed
}

/// The ranks of a stage have one file under many names, where the file system can do that.
fn fill(partial: &Path, files: &[Vec<u8>], ranks_per_stage: u32, form: Form) -> Result<()> {
    let mut rank = 0u32;
    for bytes in files {
        let mut first: Option<PathBuf> = None;
        for _ in 0..ranks_per_stage {
            let path = partial.join(rank_file_name(rank, form));
            let linked = first
                .as_ref()
                .is_some_and(|first| io::link(first, &path).is_ok());
            if !linked {
                io::write_small(&path, bytes, true)?;
                first.get_or_insert(path);
            }
            rank += 1;
        }
    }
    Ok(())
}
