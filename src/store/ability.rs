//! What a file system can do, asked before the first byte of weights is written to it.

use crate::fault::{Fault, Kind, Result};
use crate::store::io::{self, WriteFile};
use std::path::Path;

/// The directory in which it is tried.
const TRIAL: &str = ".shardloom-trial";
/// Where the first byte of a trial file is written; others follow before it.
const LATER: u64 = 4096;

/// Tries in `directory` what can't be done without: to rename a directory, and to write a file's bytes
/// in any order. What there is a way round (swapping, reserving, second names) is not asked. Local.
///
/// # Errors
/// [`Kind::Unsupported`] saying what can't be done, [`Kind::Io`].
pub fn check(directory: &Path) -> Result<()> {
    let trial = directory.join(TRIAL);
    let tried = try_all(&trial);
    let removed = io::remove_directory(&trial);
    tried.and(removed)
}

fn try_all(trial: &Path) -> Result<()> {
    let before = trial.join("before");
    io::make_directory(&before)?;
    io::rename(&before, &trial.join("after"))
        .map_err(|fault| lacks(fault, "rename directories"))?;
    let path = trial.join("file");
    let file = WriteFile::create(&path, 0)?;
    let written = file.write_at(b"2", LATER);
    let written = written.and_then(|()| file.write_at(b"1", 0));
    written.map_err(|fault| lacks(fault, "write a file's bytes in any order"))?;
    if io::size(&path)? != Some(LATER + 1) {
        let fault = Fault::new(Kind::Io, "it has another size than was written");
        return Err(lacks(fault, "write a file's bytes in any order"));
    }
    Ok(())
}

fn lacks(fault: Fault, what: &str) -> Fault {
    // A full disk, or a broken one, lacks nothing else.
    if fault.kind == Kind::NoSpace || fault.message.contains("Input/output") {
        return fault;
    }
    let message = format!("this file system can't {what}: {}", fault.message);
    let file = fault.file.unwrap_or_default();
    Fault::new(Kind::Unsupported, message)
        .file(file)
        .hint("write to another file system, and copy the result")
}
