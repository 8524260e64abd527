//! A small file by itself: there in one step, and by one run at a time.

use crate::fault::{Fault, Kind, Result};
use crate::store::hidden::{PARTIAL, hidden};
use crate::store::io::{self, Standing};
use crate::store::lock::{Lock, beside};
use std::path::Path;

/// Writes `bytes` beside `path` and renames that there; directories above are made. What a run has left beside it
/// that died meanwhile is gone then. Local.
///
/// # Errors
/// [`Kind::Usage`] if it has no name, [`Kind::Busy`] while another run writes it, [`Kind::Io`].
pub fn write_single(path: &Path, bytes: &[u8]) -> Result<()> {
    alone(path, |partial| {
        let written = io::write_small(partial, bytes, true);
        written.and_then(|()| io::rename(partial, path))
    })
}

/// Whether [`write_single`] could write at `path`: a file is made in its directory, and goes again. Local.
///
/// # Errors
/// As [`write_single`].
pub fn try_single(path: &Path) -> Result<()> {
    alone(path, |partial| {
        io::write_small(partial, b"", false)?;
        io::remove(partial)
    })
}

/// Does `work` with the place of the file before it has its name, which nobody else uses meanwhile.
fn alone(path: &Path, work: impl Fn(&Path) -> Result<()>) -> Result<()> {
    if path.file_name().is_none() {
        let fault = Fault::new(Kind::Usage, "is no file name");
        return Err(fault.file(path.display().to_string()));
    }
    let partial = hidden(path, PARTIAL);
    let command = "a command that makes this file";
    let lock = Lock::take(&beside(path), command, &io::host_name(), &|_| Ok(()));
    // The user knows the file, not what is hidden beside it.
    let _lock = lock.map_err(|mut fault| {
        fault.file = Some(path.display().to_string());
        fault
    })?;
    if io::standing(&partial)? == Standing::File {
        io::remove(&partial)?;
    }
    let done = work(&partial);
    if done.is_err() {
        let _ = io::remove(&partial);
    }
    done
}
