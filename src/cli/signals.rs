//! What a signal does: the run ends at once and says what is left, or says where it is and goes on.
//!
//! A thread waits for signals; nothing happens in a handler. It doesn't speak to other processes: the
//! launcher gives a signal to all of them, or ends the others when one has ended.

use crate::course::{self, Course, Leaves};
use crate::fault::{Fault, Kind, Result, plain};
use crate::report::{Report, note};
use crate::store::io::Standing;
use crate::store::{io, lock};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Display, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the end waits for a result that is being put in place.
const PLACING: Duration = Duration::from_millis(1200);
/// How often what is to go is removed, what the run makes meanwhile too, and how long it is waited between.
const CLEARED: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(10);
/// Paths that are named in a line.
const NAMED_MAX: usize = 3;
/// How long a process waits for another to say what is left.
const OTHERS: Duration = Duration::from_millis(600);

/// Begins to hear signals, on `process`, the first of which tells of the end as `report` has it. Those that are ignored
/// stay so, as `nohup` wants it.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub(super) fn hear(process: u32, report: Report) -> Result<()> {
    let ignored = ignored();
    let ends = [SIGINT, SIGTERM, SIGHUP];
    let heard = ends.into_iter().filter(|signal| !ignored(*signal));
    let failed = |error: std::io::Error| {
        Fault::io("can't start a thread that waits for signals", &error).hint(
            "`ulimit -u`, `ulimit -v` and a container's limits say how many threads there may be",
        )
    };
    let mut signals = Signals::new(heard.chain([SIGUSR1])).map_err(failed)?;
    let start = Instant::now();
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let spawned = thread.spawn(move || {
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                if process == 0 {
                    say(&whereabouts(&course::now(), start.elapsed()));
                }
            } else {
                end(process, signal, &report);
            }
        }
    });
    spawned.map(|_| ()).map_err(failed)
}

/// Lets a write beyond the limit of a file's size (`ulimit -f`) be an error: by itself its signal ends the
/// process. Local.
pub(super) fn outlive_long_files() {
    if let Err(error) = signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        tracing::debug!("a file that becomes too long will end this process: {error}");
    }
}

/// Which signals this process was started to ignore.
fn ignored() -> impl Fn(i32) -> bool {
    let status = io::read_text("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    let mask = mask.unwrap_or(0);
    move |signal| mask >> (signal - 1) & 1 == 1
}

/// Ends this process.
fn end(process: u32, signal: i32, report: &Report) {
    // What is held keeps the result from being put in place behind these words.
    let (course, _placing) = course::settled(PLACING);
    let name = match signal {
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        _ => "SIGHUP",
    };
    // Nothing is begun behind these words either.
    course::ends();
    if process == 0 {
        let left = match course.scratch.is_empty() {
            true => left(&course),
            false => left_of_trials(&course),
        };
        let told = format!("ended by {name}: {left}");
        say(&told);
        if !course.told {
            report.fault_object_at_once(&Fault::new(Kind::Ended, told));
        }
    }
    if !course.scratch.is_empty() {
        clear(&course);
    } else if process != 0 && alone_knows(&course) {
        let left = left(&course);
        say(&format!("process {process} was ended by {name}: {left}"));
    }
    lock::release_all();
    signal_hook::low_level::exit(128 + signal);
}

/// Of a run that only tries or measures something. It is said before it is done: a launcher that is told to end may
/// leave a process some milliseconds only.
fn left_of_trials(course: &Course) -> String {
    let paths = course.scratch.iter().map(|path| path.display().to_string());
    let paths = plain::first(&paths.collect::<Vec<_>>(), NAMED_MAX);
    format!("nothing was measured to the end; what it was measured with is removed: {paths}")
}

/// Removes what a run tries or measures something with: it is of no use any more.
fn clear(course: &Course) {
    // What is just being made may stand in the way of the first time.
    for _ in 0..CLEARED {
        let removed = course.scratch.iter().map(|path| match io::standing(path) {
            Ok(Standing::Directory | Standing::EmptyDirectory) => io::remove_directory(path),
            _ => io::remove(path),
        });
        // Every one is tried.
        let left = removed.filter(Result::is_err).count();
        std::thread::sleep(BETWEEN);
        let stands = |path: &PathBuf| io::standing(path).ok() != Some(Standing::Nothing);
        if left == 0 && !course.scratch.iter().any(stands) {
            return;
        }
    }
    let stands = |path: &&PathBuf| io::standing(path).ok() != Some(Standing::Nothing);
    for path in course.scratch.iter().filter(stands) {
        say(&format!("{} is left: remove it", path.display()));
    }
}

/// Whether no other process has heard of the end: one that has removes the lock.
fn alone_knows(course: &Course) -> bool {
    let Some(path) = &course.lock else {
        return false;
    };
    let begun = Instant::now();
    while begun.elapsed() < OTHERS {
        if !lock::stands(path) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// What is left of a run that ends.
fn left(course: &Course) -> String {
    let Some(destination) = &course.destination else {
        return "nothing was written".to_owned();
    };
    let destination = destination.display();
    match &course.leaves {
        Leaves::Nothing => unchanged(&destination),
        Leaves::Staged(partial) if io::standing(partial).ok() == Some(Standing::Nothing) => {
            unchanged(&destination)
        }
        Leaves::Staged(partial) => format!(
            "nothing at {destination} changed; what was written so far is in {}: run again with \
             --resume to go on, or remove it",
            partial.display()
        ),
        Leaves::Unknown => {
            format!("{destination} is as it was or complete; the same command with --resume tells")
        }
        Leaves::Placed(None) => format!("the result is in place at {destination}"),
        Leaves::Placed(Some(replaced)) => format!(
            "the result is in place at {destination}; what it replaced is left in {}: remove it",
            replaced.display()
        ),
    }
}

/// Of a run that has made nothing yet.
fn unchanged(destination: &Display<'_>) -> String {
    format!("nothing at {destination} changed, and nothing is left")
}

/// Where a run is.
fn whereabouts(course: &Course, elapsed: Duration) -> String {
    let mut text = format!("{} s: {}", elapsed.as_secs(), course.phase);
    let (done, total) = course.bytes;
    if total > 0 {
        let percent = u128::from(done) * 100 / u128::from(total);
        let _ = write!(text, ", {done} of {total} bytes ({percent} %)");
    }
    if let Some(destination) = &course.destination {
        let _ = write!(text, ", for {}", destination.display());
    }
    text
}

/// One line, in one write.
fn say(text: &str) {
    note(text);
    let line = format!("shardloom: {}\n", plain::line(text));
    let _ = std::io::stderr().write_all(line.as_bytes());
}
