//! How far a run is, told while it lasts: to people, or to scripts.

use crate::course;
use crate::fault::plain;
use crate::report::text;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a script hears.
const EVERY: Duration = Duration::from_secs(1);

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not at all.
    Never,
    /// On long work: on a terminal one line that renews itself, else a line every ten seconds.
    Auto,
    /// A JSON object a second, and one at the end.
    Json,
}

/// What is shown of a run's progress.
#[derive(Clone, Copy, Debug)]
pub struct Shows {
    /// How.
    pub progress: Progress,
    /// Whether people hear how fast bytes are moved; not of what measures that itself.
    pub rates: bool,
}

impl Shows {
    /// Nothing for people, where it is `quiet`.
    #[must_use]
    pub fn unless(mut self, quiet: bool) -> Shows {
        if quiet && self.progress == Progress::Auto {
            self.progress = Progress::Never;
        }
        self
    }
}

/// A teller of progress.
pub struct Teller {
    people: Box<dyn FnMut(u64, u64)>,
    script: Option<Script>,
}

/// The thread that speaks to scripts.
struct Script {
    command: &'static str,
    begun: Instant,
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Teller {
    /// One that tells of `command` so.
    #[must_use]
    pub fn start(command: &'static str, shows: Shows) -> Teller {
        let Shows { progress, rates } = shows;
        let people = people(progress == Progress::Auto, rates);
        let script = (progress == Progress::Json)
            .then(|| Script::start(command))
            .flatten();
        Teller { people, script }
    }

    /// So many bytes are moved, of so many.
    pub fn moved(&mut self, done: u64, total: u64) {
        (self.people)(done, total);
    }

    /// The run ends, well or not.
    pub fn end(self, ok: bool) {
        if let Some(script) = self.script {
            script.end(ok);
        }
    }
}

impl Script {
    fn start(command: &'static str) -> Option<Script> {
        let begun = Instant::now();
        let (end, ended) = channel();
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || {
                while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    say(command, begun, None);
                }
            });
        // Without a thread there is the last line still.
        let thread = thread
            .or_else(|_| std::thread::Builder::new().spawn(|| {}))
            .ok()?;
        Some(Script {
            command,
            begun,
            end,
            thread,
        })
    }

    fn end(self, ok: bool) {
        let _ = self.end.send(());
        let _ = self.thread.join();
        say(self.command, self.begun, Some(ok));
    }
}

/// One line, in one write; nobody is left to tell where stderr is closed.
fn say(command: &str, begun: Instant, ended: Option<bool>) {
    let course = course::now();
    // What comes after the bytes were moved counts none; the last line is of all of the run.
    let (done, total) = match ended {
        Some(_) => course.counted,
        None => course.bytes,
    };
    let mut line = json!({
        "schema": 1, "progress": true, "run": course::run(), "command": command,
        "phase": course.phase, "done_bytes": done, "total_bytes": total,
        "seconds": begun.elapsed().as_millis() as f64 / 1e3, "last": ended.is_some(),
    });
    if let (Some(ok), Some(object)) = (ended, line.as_object_mut()) {
        object.insert("ok".to_owned(), json!(ok));
    }
    let line = format!("{}\n", plain::json(&line.to_string()));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Nothing is said before a second has passed, and how fast it goes only with `rates`.
fn people(shown: bool, rates: bool) -> Box<dyn FnMut(u64, u64)> {
    if !shown {
        return Box::new(|_, _| {});
    }
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal {
        Duration::from_millis(200)
    } else {
        Duration::from_secs(10)
    };
    let start = Instant::now();
    let mut last = start;
    let mut visible = false;
    Box::new(move |done, total| {
        let now = Instant::now();
        let finished = done >= total;
        let first = now - start >= Duration::from_secs(1) && (visible || terminal);
        if visible && finished && terminal {
            let _ = writeln!(std::io::stderr());
            visible = false;
        } else if !finished && now - last >= every && (first || !terminal) {
            last = now;
            visible = true;
            let text = if rates {
                text::progress(done, total, start.elapsed())
            } else {
                text::measuring(course::now().phase, done, total)
            };
            let end = if terminal { "\r" } else { "\n" };
            let _ = write!(std::io::stderr(), "{text}{end}");
        }
    })
}
