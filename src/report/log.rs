//! The file that a run's messages go to, whatever is said on the terminal.
//!
//! A line is the time, the run's id, the process, and the message. Processes add to one file at once;
//! each line is one write.

use crate::course;
use crate::fault::{Result, plain};
use crate::store::io::AppendFile;
use crate::store::lock::date;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

/// What the run's id follows in a line.
const RUN: &str = " run ";

static LOG: OnceLock<AppendFile> = OnceLock::new();
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Whether process and run are known to be those of all lines.
static SETTLED: AtomicBool = AtomicBool::new(false);
static WAITING: Mutex<Vec<(SystemTime, String)>> = Mutex::new(Vec::new());
static FULL: AtomicBool = AtomicBool::new(false);

/// Opens the file; lines are added to what an earlier run has left there. Local.
///
/// # Errors
/// [`crate::fault::Kind::Exists`] if something else stands there, [`crate::fault::Kind::Io`].
pub fn open_log(path: &Path) -> Result<()> {
    let ours = |first: &[u8]| {
        let text = String::from_utf8_lossy(first);
        text.starts_with("20") && text.contains(RUN)
    };
    let opened = AppendFile::open(path, ours);
    let file = opened
        .map_err(|fault| fault.hint("--log takes a new file, or the log of an earlier run"))?;
    let _ = LOG.set(file);
    course::logs(path);
    Ok(())
}

/// Whether there is one.
#[must_use]
pub fn is_logged() -> bool {
    LOG.get().is_some()
}

/// Whose lines these are, now that the run has its id. What was added before is written.
pub fn log_process(process: u32) {
    PROCESS.store(process, Ordering::Relaxed);
    SETTLED.store(true, Ordering::Relaxed);
    let waiting = std::mem::take(&mut *WAITING.lock().unwrap_or_else(PoisonError::into_inner));
    for (time, text) in waiting {
        write(time, &text);
    }
}

/// Whether process and run are known.
#[must_use]
pub fn is_log_settled() -> bool {
    SETTLED.load(Ordering::Relaxed)
}

/// Adds lines, as they are shown to people, as soon as process and run are known.
pub fn note(text: &str) {
    let now = SystemTime::now();
    if !is_logged() {
        return;
    }
    if is_log_settled() {
        return write(now, text);
    }
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.push((now, text.to_owned()));
}

fn write(time: SystemTime, text: &str) {
    let Some(file) = LOG.get() else { return };
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let date = date(since.as_secs());
    let date = date.trim_end_matches(" UTC").replace(' ', "T");
    let (millis, process) = (since.subsec_millis(), PROCESS.load(Ordering::Relaxed));
    let mut lines = String::new();
    for line in text.trim_end().lines() {
        let line = plain::line(line);
        let head = format!("{date}.{millis:03}Z{RUN}{}", course::run());
        lines.push_str(&format!("{head} process {process}: {line}\n"));
    }
    if file.add(lines.as_bytes()).is_err() && !FULL.swap(true, Ordering::Relaxed) {
        let _ = io::stderr().write_all(b"warning: no more can be written to the log\n");
    }
}

/// A writer of such lines.
#[derive(Clone, Copy, Debug)]
pub struct Notes;

impl Write for Notes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        note(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
