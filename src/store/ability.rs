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
    in_trial(directory, |trial| {
        try_rename(trial)?;
        try_any_order(trial)
    })
}

/// Removes what a trial in `directory` has left, or what is back of it after a loss of power. Local.
///
/// # Errors
/// [`Kind::Io`].
pub fn clear(directory: &Path) -> Result<()> {
    io::remove_directory(&directory.join(TRIAL))
}

/// Tries in `directory` each thing that putting results in place makes use of, without or with a way
/// round it: what it is, the way round, and why it can't be done. Local.
///
/// # Errors
/// [`Kind::Io`] if nothing can be written there.
pub fn each(directory: &Path) -> Result<Vec<Ability>> {
    type Try = fn(&Path) -> Result<()>;
    let table: [(&str, Option<&str>, Try); 6] = [
        ("rename directories", None, try_rename),
        ("write a file's bytes in any order", None, try_any_order),
        (
            "swap directories",
            Some("the old one is moved aside, and a record lets the next run finish"),
            try_swap,
        ),
        (
            "give a file a second name",
            Some("files are copied, and locks are made by creating a file"),
            try_link,
        ),
        (
            "make a file that only one of several can make",
            None,
            try_claim,
        ),
        (
            "flush a directory",
            Some("after a loss of power the newest names may be missing"),
            io::sync_directory,
        ),
    ];
    in_trial(directory, |trial| {
        let tried = table.into_iter().enumerate().map(|(index, row)| {
            let (what, way_round, attempt) = row;
            let room = trial.join(index.to_string());
            let lacking = io::make_directory(&room).and_then(|()| attempt(&room));
            Ability {
                what,
                way_round,
                lacking: lacking.err().map(|fault| fault.message),
            }
        });
        Ok(tried.collect())
    })
}

/// One thing that a file system may be able to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ability {
    /// What it does.
    pub what: &'static str,
    /// What is done where it can't; none where nothing helps.
    pub way_round: Option<&'static str>,
    /// Why it can't.
    pub lacking: Option<String>,
}

/// Gives `attempt` a directory of its own in `directory`, which goes afterwards.
fn in_trial<T>(directory: &Path, attempt: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let trial = directory.join(TRIAL);
    let tried = attempt(&trial);
    let removed = io::remove_directory(&trial);
    tried.and_then(|tried| removed.map(|()| tried))
}

fn try_rename(trial: &Path) -> Result<()> {
    let before = trial.join("before");
    io::make_directory(&before)?;
    io::rename(&before, &trial.join("after")).map_err(|fault| lacks(fault, "rename directories"))
}

fn try_any_order(trial: &Path) -> Result<()> {
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

fn try_swap(trial: &Path) -> Result<()> {
    let (one, other) = (trial.join("one"), trial.join("other"));
    io::make_directory(&one)?;
    io::make_directory(&other)?;
    io::exchange(&one, &other)
}

fn try_link(trial: &Path) -> Result<()> {
    let first = trial.join("first");
    io::write_small(&first, b"1", false)?;
    io::link(&first, &trial.join("second"))
}

fn try_claim(trial: &Path) -> Result<()> {
    let mine = trial.join("mine");
    io::write_small(&mine, b"1", false)?;
    let won = io::claim(&mine, &trial.join("name"), b"1")?;
    let twice = io::claim(&mine, &trial.join("name"), b"1")?;
    if won && !twice {
        return Ok(());
    }
    Err(Fault::new(Kind::Unsupported, "two could make it"))
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
