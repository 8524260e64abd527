//! What the system lets this process have: open files, the size of a file, and more that `ulimit` shows.

use crate::fault::{Fault, Kind, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::Path;

/// Descriptors for MPI, standard streams and files that are open for a moment.
const OTHERS: u64 = 48;
/// Groups that keep files open at a time: read, written, created.
const GROUPS: u64 = 3;
/// Most files that a group keeps open.
const OPEN_MAX: u64 = 512;
/// Open files with which a job never closes one to open another.
pub const OPEN_FILES: u64 = OPEN_MAX * GROUPS + OTHERS;
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

/// The limits of this process as `ulimit` shows them: its letter, what is limited, the soft limit and
/// the hard one; none is no limit.
#[must_use]
pub fn limits() -> Vec<(char, &'static str, Option<u64>, Option<u64>)> {
    let table = [
        ('n', "open files", Resource::Nofile),
        ('f', "size of a file", Resource::Fsize),
        ('l', "locked memory", Resource::Memlock),
        ('s', "stack", Resource::Stack),
        ('u', "processes", Resource::Nproc),
        ('v', "address space", Resource::As),
    ];
    table
        .into_iter()
        .map(|(letter, what, resource)| {
            let limit = getrlimit(resource);
            (letter, what, limit.current, limit.maximum)
        })
        .collect()
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
    Err(Fault::new(Kind::Io, message).hint(format!("ulimit -n {OPEN_FILES}")))
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
                .hint("ulimit -f unlimited; or smaller files: --max-shard-size SIZE"))
        }
        _ => Ok(()),
    }
}
