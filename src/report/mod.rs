//! Outcomes as text and JSON. The only room that prints; stdout is the result, stderr the story.
//!
//! *Absent on purpose*: decisions about the work: nothing here changes what a command does.

use crate::course;
use crate::fault::plain::{self, Text};
use crate::fault::{Fault, Result, memory};
use crate::job::inspected::Inspected;
use crate::job::outcome::Outcome;
use crate::job::overview::Overview;
use crate::measure::bench::Measured;
use crate::measure::simulate::Simulated;
use crate::store::io;
use crate::store::single::write_single;
use crate::strategy::Strategy;
use crate::strategy::derive::Counts;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

mod benched;
mod compared;
mod curves;
mod drawn;
mod inspected;
mod job_page;
mod json;
mod layers;
mod log;
mod measured;
mod page;
mod pairs_map;
mod plan_picture;
mod progress;
mod shares;
mod sheet;
mod sim_page;
mod svg;
mod text;
pub(crate) mod unit;

pub use inspected::Shown;
pub use log::{Notes, is_log_settled, is_logged, log_process, note, open_log};
pub use progress::{Progress, Shows, Teller};

/// Columns of a terminal that doesn't say how many it has.
const COLUMNS: usize = 120;

/// How a command tells what it did.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// One JSON object on stdout, in place of text.
    pub json: bool,
    /// Nothing but errors.
    pub quiet: bool,
    /// The command.
    pub command: &'static str,
}

impl Report {
    /// Prints what a job did.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`] if stdout can't be written; a closed pipe is a quiet end.
    pub fn outcome(&self, outcome: &Outcome) -> Result<()> {
        if self.json {
            return object(&json::outcome(outcome)?);
        }
        if self.quiet {
            Ok(())
        } else {
            print(&text::outcome(outcome))
        }
    }

    /// The same as a page.
    #[must_use]
    pub fn outcome_page(outcome: &Outcome) -> String {
        job_page::page(outcome)
    }

    /// Prints other results.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn data(&self, data: &impl Serialize, text: &Text) -> Result<()> {
        if self.json {
            return object(&json::data(self.command, data)?);
        }
        print(text)
    }

    /// Prints what is in files.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn inspected(&self, inspected: &Inspected, shown: Shown) -> Result<()> {
        let overview = Overview::of(inspected);
        let mut data = serde_json::json!({
            "ranks": inspected.ranks, "tensor_bytes": inspected.tensor_bytes,
            "steps": inspected.steps, "notes": inspected.notes, "files": inspected.files, "overview": overview,
        });
        if let (Some(layout), Some(fields)) = (&inspected.layout, data.as_object_mut()) {
            fields.insert("layout".into(), serde_json::json!(layout));
        }
        let told = std::env::var("COLUMNS").ok();
        let told = told.and_then(|text| text.parse().ok());
        let columns = told.or_else(io::terminal_columns);
        let terminal = std::io::stdout().is_terminal();
        let shown = Shown {
            columns: terminal.then(|| columns.unwrap_or(COLUMNS)),
            ..shown
        };
        let text = inspected::inspected(inspected, &overview, shown);
        self.data(&data, &text)
    }

    /// Prints which steps ranks have, where it can't be told which are meant: nothing, but for people.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn steps(&self, steps: &[(String, String)]) -> Result<()> {
        if self.json || steps.is_empty() {
            return Ok(());
        }
        let mut text = Text::new("rank directories, of several steps");
        for (step, ranks) in steps {
            let ranks = inspected::ranked(ranks);
            text.line(format_args!("  step       {step} on {ranks}"));
        }
        print(&text)
    }

    /// Prints what a simulation found.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn simulated(&self, simulated: &Simulated) -> Result<()> {
        if self.quiet && !self.json {
            return Ok(());
        }
        self.data(simulated, &measured::simulated(simulated))
    }

    /// The same as a page.
    #[must_use]
    pub fn simulated_page(simulated: &Simulated) -> String {
        sim_page::page(simulated)
    }

    /// The same as a picture (SVG).
    #[must_use]
    pub fn simulated_picture(simulated: &Simulated) -> String {
        plan_picture::drawn(simulated)
    }

    /// Prints what a bench measured.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn measured(&self, measured: &Measured) -> Result<()> {
        if self.quiet && !self.json {
            return Ok(());
        }
        self.data(measured, &benched::measured(measured))
    }

    /// The same as a picture (SVG).
    #[must_use]
    pub fn measured_picture(measured: &Measured) -> String {
        benched::picture(measured)
    }

    /// The same as values separated by commas.
    #[must_use]
    pub fn measured_table(measured: &Measured) -> String {
        benched::table(measured)
    }

    /// The same as a page with tables and pictures.
    #[must_use]
    pub fn measured_page(measured: &Measured) -> String {
        page::page(measured)
    }

    /// Says that a strategy file was written.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn strategy_written(&self, output: &Path, stages: u32, files: u64) -> Result<()> {
        let output = output.display().to_string();
        let data = serde_json::json!({ "files": [output], "stages": stages, "read": files });
        if self.quiet && !self.json {
            return Ok(());
        }
        let stages = plain::counted(stages.into(), "stage");
        self.data(&data, &Text::new(format_args!("{output}: {stages}")))
    }

    /// Says that a strategy was made by rules, and how many tensors each has cut.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub fn strategy_made(&self, output: &Path, strategy: &Strategy, counts: &Counts) -> Result<()> {
        let output = output.display().to_string();
        let rows = counts
            .rules
            .iter()
            .map(|(rule, count)| serde_json::json!({"rule": rule, "tensors": count}));
        let data = serde_json::json!({
            "files": [output], "stages": strategy.stages(), "ranks": strategy.ranks(), "read": 0,
            "rules": rows.collect::<Vec<_>>(),
        });
        if self.quiet && !self.json {
            return Ok(());
        }
        let mut text = Text::new(format_args!(
            "{output}: {}, {}",
            plain::counted(strategy.stages().into(), "stage"),
            plain::counted(strategy.ranks().into(), "rank")
        ));
        for (rule, count) in &counts.rules {
            let tensors = plain::counted(*count, "tensor");
            text.line(format_args!("  {rule}: {tensors}"));
        }
        let rest = [
            (counts.sharded, "cut by the optimizer shard alone"),
            (counts.whole, "held whole by every rank of a stage"),
        ];
        for (count, how) in rest.iter().filter(|(count, _)| *count > 0) {
            let tensors = plain::counted(*count, "tensor");
            text.line(format_args!("  no rule: {tensors}, {how}"));
        }
        self.data(&data, &text)
    }

    /// Tells of an error, and how many other processes failed too.
    pub fn fault(&self, fault: &Fault, others: u32) {
        // Nobody is left to tell if stderr is closed.
        let told = error(fault, others);
        let _ = std::io::stderr().write_all(identified(&told).as_bytes());
        note(&told);
        self.fault_object(fault);
    }

    /// Prints the object of an error, if one was asked for, and nothing else of it.
    pub fn fault_object(&self, fault: &Fault) {
        if self.json {
            let _ = json::fault(self.command, fault).and_then(|text| object(&text));
        }
    }

    /// The same of a run that is ended in the middle: whoever else is writing isn't waited for, nor a pipe that is full.
    pub fn fault_object_at_once(&self, fault: &Fault) {
        let told = json::fault(self.command, fault).ok();
        let Some(text) = told.filter(|_| self.json) else {
            return;
        };
        let stdout = std::io::stdout();
        let mut takes = [PollFd::new(&stdout, PollFlags::OUT)];
        if matches!(poll(&mut takes, Some(&Timespec::default())), Ok(1)) {
            let line = format!("{}\n", plain::json(&text));
            let _ = rustix::io::write(stdout.as_fd(), line.as_bytes());
        }
    }

    /// Prepares what `process` says where the system gives it no more memory.
    pub fn prepare(&self, process: Option<(u32, &str)>) {
        let placed = |fault: &Fault| Fault {
            process: process.map(|(process, _)| process),
            node: process.map(|(_, node)| node.to_owned()),
            ..fault.clone()
        };
        memory::prepare(
            |fault| identified(&error(&placed(fault), 0)),
            |fault| {
                let told = json::fault(self.command, &placed(fault)).ok();
                told.filter(|_| self.json)
                    .map(|text| format!("{}\n", plain::json(&text)))
            },
        );
    }
}

/// An error as lines of text, with how many other processes failed too.
fn error(fault: &Fault, others: u32) -> String {
    let mut text = format!("error: {}", plain::line(&fault.to_string()));
    if others > 0 {
        let others = plain::counted(others.into(), "other process");
        text.push_str(&format!(" (and {others} failed)"));
    }
    if let Some(hint) = &fault.hint {
        text.push_str(&format!("\n  hint: {}", plain::line(hint)));
    }
    text.push('\n');
    text
}

/// The same with the run's id, by which its log and other processes' words are found.
fn identified(error: &str) -> String {
    match course::run() {
        id if id.is_empty() => error.to_owned(),
        id => format!("{error}  run: {id}\n"),
    }
}

/// The page of a command that said this.
#[must_use]
pub fn said_page(command: &str, text: &str) -> String {
    job_page::said(command, text)
}

/// The page of a command that failed.
#[must_use]
pub fn failed_page(command: &str, fault: &Fault) -> String {
    job_page::failed(command, fault)
}

/// Whether text begins as a page of ours does.
#[must_use]
pub fn is_report(text: &str) -> bool {
    sheet::is_sheet(text)
}

/// Writes a picture, in place of an earlier one.
///
/// # Errors
/// As [`write_single`].
pub fn save_picture(path: &Path, picture: &str) -> Result<()> {
    write_single(path, picture.as_bytes())
}

/// Where a log goes.
#[must_use]
pub fn log() -> plain::Log<std::io::Stderr> {
    plain::Log(std::io::stderr())
}

/// Prints a JSON object on stdout.
fn object(text: &str) -> Result<()> {
    written(&plain::json(text))
}

/// Prints a result for people on stdout.
fn print(text: &Text) -> Result<()> {
    written(text.as_str())
}

/// Writes what is safe to stdout; a closed pipe is no error.
fn written(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Fault::io("can't write the result", &error))
        }
        _ => Ok(()),
    }
}
