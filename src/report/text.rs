//! Outcomes for people.

use crate::fault::plain::{Text, counted};
use crate::job::outcome::{BadFile, Outcome};
use crate::plan::state::is_state;
use crate::report::compared;
use std::collections::BTreeSet;
use std::time::Duration;

/// A number of bytes with a decimal unit: `1.23 GB`.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            return if unit == "B" {
                format!("{count} B")
            } else {
                format!("{value:.2} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.2} PB")
}

#[allow(clippy::cast_precision_loss)]
fn rate(count: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        "-".into()
    } else {
        format!("{:.2} GB/s", count as f64 / seconds / 1e9)
    }
}

/// What a job did.
pub(super) fn outcome(outcome: &Outcome) -> Text {
    let mut out = Text::default();
    if outcome.equal.is_some() {
        return compared::difference(outcome);
    }
    if let Some(bad) = &outcome.bad {
        return verified(outcome, bad);
    }
    let done = if outcome.plan.is_some() {
        "plan only, nothing written"
    } else {
        "done"
    };
    out.line(format_args!(
        "{}: {done}; {}, {}, {}{}",
        outcome.command,
        counted(outcome.tensors, "tensor"),
        counted(outcome.files.len() as u64, "file"),
        counted(outcome.processes.into(), "process"),
        nodes(outcome)
    ));
    sources(&mut out, outcome);
    moved(&mut out, outcome);
    planned(&mut out, outcome);
    let s = &outcome.seconds;
    out.line(format_args!("  seconds    {:.3} = discover {:.3} + plan {:.3} + create {:.3} + move {:.3} ({}) + commit {:.3}",
        s.total,
        s.discover,
        s.plan,
        s.write,
        s.exchange,
        rate(outcome.bytes.written, s.exchange),
        s.commit));
    out.line(format_args!(
        "  memory     {} at most in a process",
        bytes(outcome.memory_peak_bytes_max)
    ));
    notes(&mut out, outcome);
    out
}

/// On how many nodes, if on several.
fn nodes(outcome: &Outcome) -> String {
    match outcome.nodes {
        0 | 1 => String::new(),
        nodes => format!(" on {}", counted(nodes.into(), "node")),
    }
}

/// How uneven shares of what is written are, where that is to be seen: ` (one process 1.20 times the mean)`.
pub(super) fn uneven(max_over_mean: f64) -> String {
    if max_over_mean >= 1.005 {
        format!(" (one process {max_over_mean:.2} times the mean)")
    } else {
        String::new()
    }
}

/// What must cross nodes at least, where something must.
pub(super) fn crossing(nodes: u32, least: u64) -> String {
    if nodes > 1 && least > 0 {
        format!(" (at least {} must cross nodes)", bytes(least))
    } else {
        String::new()
    }
}

/// The bytes, by what became of them.
fn moved(out: &mut Text, outcome: &Outcome) {
    let b = &outcome.bytes;
    out.line(format_args!(
        "  read       {} ({} needed)",
        bytes(b.read),
        bytes(b.read_unique)
    ));
    let crossing = crossing(outcome.nodes, b.sent_lower_bound);
    let uneven = uneven(outcome.balance_max_over_mean);
    out.line(format_args!("  exchanged  {}{crossing}", bytes(b.sent)));
    out.line(format_args!("  written    {}{uneven}", bytes(b.written)));
    if b.reused > 0 {
        out.line(format_args!("  reused     {}", bytes(b.reused)));
    }
}

/// The plan, of a dry run.
fn planned(out: &mut Text, outcome: &Outcome) {
    if let Some(plan) = &outcome.plan {
        out.line(format_args!(
            "  plan       {}, {}; about {:.2} s on this machine",
            counted(plan.transfers, "copy").replace("copys", "copies"),
            counted(plan.rounds, "round"),
            plan.seconds_estimated
        ));
        for p in &outcome.per_process {
            out.line(format_args!(
                "  process {:<4} reads {}, receives {}, writes {}",
                p.process,
                bytes(p.read),
                bytes(p.received),
                bytes(p.written)
            ));
        }
    }
}

/// Names that have no part in it.
fn notes(out: &mut Text, outcome: &Outcome) {
    for (side, names) in &outcome.names_without_data {
        let mut weights = names.iter().filter(|name| !is_state(name));
        if let Some(first) = weights.next().or(names.first()) {
            out.line(format_args!(
                "  note       {} of the {side} strategy without data ({}{})",
                counted(names.len() as u64, "name"),
                first,
                if names.len() > 1 { " …" } else { "" }
            ));
        }
    }
    if let Some(first) = outcome.names_dropped.first() {
        out.line(match outcome.names_dropped.len() {
            1 => format!("  note       1 tensor was left out ({first})"),
            count => format!("  note       {count} tensors were left out ({first} …)"),
        });
    }
    for note in &outcome.notes {
        out.line(format_args!("  note       {}", note));
    }
}

fn sources(out: &mut Text, outcome: &Outcome) {
    for file in outcome.source_files.iter().take(8) {
        out.line(format_args!("  source     {}", file));
    }
    if outcome.source_files.len() > 8 {
        out.line(format_args!(
            "  source     … {} files in all",
            outcome.source_files.len()
        ));
    }
}

fn verified(outcome: &Outcome, bad: &[BadFile]) -> Text {
    let mut out = Text::default();
    for entry in bad {
        let tensor = entry.tensor.as_ref();
        let tensor = tensor.map_or(String::new(), |tensor| format!("{tensor}: "));
        let told = format!("{}: {tensor}{}", entry.file, entry.reason);
        out.line(told);
    }
    for entry in outcome.repaired.iter().flatten() {
        let what = entry.tensor.as_deref().map_or_else(
            || "repaired".to_owned(),
            |tensor| format!("{tensor}: repaired"),
        );
        let told = format!("{}: {what} from {}", entry.file, entry.from);
        out.line(told);
    }
    let checked = outcome.checked.unwrap_or(0);
    let verdict = if bad.is_empty() { "good" } else { "bad" };
    let what = match (checked, outcome.bytes.read) {
        (0, 0) => "nothing could be compared".to_owned(),
        (_, 0) => {
            let tensors = counted(checked, "tensor");
            format!("{tensors} compared by the digests in the manifests; no weights were read")
        }
        (_, read) => format!("{}, {} read", counted(checked, "file"), bytes(read)),
    };
    let complaints = counted(bad.len() as u64, "complaint");
    out.line(format_args!("{verdict}: {what}, {complaints}"));
    if let Some(subset) = &outcome.subset {
        out.add(format_args!(" (part {subset} of the files)"));
    }
    if let Some(repaired) = &outcome.repaired {
        let files: BTreeSet<&str> = repaired.iter().map(|entry| entry.file.as_str()).collect();
        out.add(format_args!(
            ", {} repaired",
            counted(files.len() as u64, "file")
        ));
    }
    notes(&mut out, outcome);
    out
}

/// A line of progress of what measures: how fast that is, is no progress's to say.
#[allow(clippy::cast_precision_loss)]
pub(super) fn measuring(phase: &str, done: u64, total: u64) -> String {
    let percent = 100.0 * done as f64 / total.max(1) as f64;
    format!("{phase}: {percent:.0} %   ")
}

/// A line of progress.
#[allow(clippy::cast_precision_loss)]
pub(super) fn progress(done: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let left = if done > 0 {
        seconds * (total.saturating_sub(done)) as f64 / done as f64
    } else {
        0.0
    };
    format!(
        "{} of {} ({:.0} %), {}, {left:.0} s left   ",
        bytes(done),
        bytes(total),
        100.0 * done as f64 / total.max(1) as f64,
        rate(done, seconds)
    )
}
