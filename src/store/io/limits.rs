//! What the system lets this process have: open files, and the size of a file.

use crate::fault::{Fault, Kind, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::Path;

/// Descriptors for MPI, standard streams and files that are open for a moment.
const OTHERS: u64 = 48;
/// Groups that keep files open at a time: read, written, created.
const GROUPS: u64 = 3;
/// Most files that a group keeps open.
const OPEN_MAX: u64 = 512;
/// Fewest open files that a process can work with.
const LEAST: u64 = OTHERS + 2 * GROUPS;

/// Raises the limit of open files as far as this user may. To be called once, at the start.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Some systems say that there is no limit and refuse it: what there was stays.
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!("the limit of open files stays {:?}: {error}", limit.current);
    }
}

fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Files that each of the readers, the writers and the creators may keep open.
#[must_use]
pub fn kept_open() -> usize {
    let share = open_files().saturating_sub(OTHERS) / GROUPS;
    usize::try_from(share.clamp(2, OPEN_MAX)).unwrap_or(2)
}

/// Checks that this process may have as many files open as it can't do without.
///
/// # Errors
/// [`Kind::Io`].
pub fn check_open_files() -> Result<()> {
    let limit = open_files();
    if limit >= LEAST {
        return Ok(());
    }
    let message = format!("at most {limit} files may be open, {LEAST} are needed");
    Err(Fault::new(Kind::Io, message).hint(format!("ulimit -n {}", OPEN_MAX * GROUPS + OTHERS)))
}

/// Checks that a file may be `bytes` long. Beyond the limit the system would end the process.
///
/// # Errors
/// [`Kind::NoSpace`].
pub(super) fn check_size(path: &Path, bytes: u64) -> Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if bytes > limit => {
            let message =
                format!("needs {bytes} bytes, the limit of a file's size (ulimit -f) is {limit}");
            Err(Fault::new(Kind::NoSpace, message)
                .file(path.display().to_string())
                .hint("ulimit -f unlimited, or smaller files: --max-shard-size"))
        }
        _ => Ok(()),
    }
}
