//! A job as a page: what was done, what it moved, who did what when, what went where, how tensors lie
//! before and after, which files there are, what differs.

use crate::course;
use crate::fault::Fault;
use crate::fault::plain::counted;
use crate::job::outcome::Outcome;
use crate::report::drawn;
use crate::report::layers::layers;
use crate::report::shares::{counts, processes, seconds, tensors, traffic};
use crate::report::sheet::{Sheet, Table};
use crate::report::svg::escape;
use crate::report::text::bytes;

/// Files that are listed.
const FILES_MAX: usize = 1000;

/// The page of what a job did.
pub(super) fn page(outcome: &Outcome) -> String {
    let mut sheet = Sheet::new(&format!("shardloom {}", outcome.command));
    sheet.say(&sentence(outcome));
    run(&mut sheet, outcome);
    if let Some(bad) = &outcome.bad {
        verified(&mut sheet, bad);
    }
    differences(&mut sheet, outcome);
    if outcome.bad.is_none() && outcome.equal.is_none() {
        moved(&mut sheet, outcome);
    }
    phases(&mut sheet, outcome);
    if let Some(account) = &outcome.account {
        processes(&mut sheet, account);
        if outcome.bad.is_none() && outcome.equal.is_none() {
            traffic(&mut sheet, account);
        }
        tensors(&mut sheet, &account.sketches);
    }
    files(&mut sheet, outcome);
    sheet.finish()
}

/// The page of a job that failed.
pub(super) fn failed(command: &str, fault: &Fault) -> String {
    let mut sheet = Sheet::new(&format!("shardloom {command}"));
    sheet.markup("<p class=\"bad\">Failed.</p>\n");
    sheet.say(&fault.to_string());
    if let Some(hint) = &fault.hint {
        sheet.say(&format!("What to do: {hint}"));
    }
    sheet.say(&format!("Run {}.", course::run()));
    sheet.finish()
}

/// The page of another command: what it said.
pub(super) fn said(command: &str, text: &str) -> String {
    let mut sheet = Sheet::new(&format!("shardloom {command}"));
    sheet.markup(&format!("<pre>{}</pre>\n", escape(text)));
    sheet.say(&format!("Run {}.", course::run()));
    sheet.finish()
}

/// What was done, in a sentence.
fn sentence(outcome: &Outcome) -> String {
    let o = outcome;
    let on = format!(
        "on {} of {}",
        counted(o.processes.into(), "process"),
        counted(o.nodes.max(1).into(), "node")
    );
    let tensors = counted(o.tensors, "tensor");
    let seconds = o.seconds.total;
    if let Some(checked) = o.checked {
        let bad = o.bad.as_ref().map_or(0, Vec::len) as u64;
        let found = match bad {
            0 => "all is as it should be".to_owned(),
            bad => format!("{} not as it should be", counted(bad, "thing")),
        };
        return format!("Checked {checked} {on}, in {seconds:.2} s: {found}.");
    }
    if o.equal.is_some() {
        let equal = o
            .differences
            .iter()
            .filter(|row| row.state == "equal")
            .count();
        let verdict = if o.ok { "equal" } else { "different" };
        return format!(
            "Compared {tensors} {on}, in {seconds:.2} s: {verdict}; {equal} equal, bit for bit."
        );
    }
    let b = &o.bytes;
    let files = counted(o.files.len() as u64, "file");
    if o.plan.is_some() {
        return format!(
            "Planned {tensors} into {files} {on}, and wrote nothing: {} would be read, {} sent and {} written.",
            bytes(b.read),
            bytes(b.sent),
            bytes(b.written)
        );
    }
    format!(
        "Brought {tensors} into {files} {on}, in {seconds:.2} s: {} read, {} sent, {} written.",
        bytes(b.read),
        bytes(b.sent),
        bytes(b.written)
    )
}

/// What is to be known of the run.
fn run(sheet: &mut Sheet, outcome: &Outcome) {
    let mut table = Table::new(&["of the run", ""]);
    table.row(["id".to_owned(), course::run()]);
    table.row(["version", env!("CARGO_PKG_VERSION")]);
    if outcome.memory_peak_bytes_max > 0 {
        let most = bytes(outcome.memory_peak_bytes_max);
        table.row(["most memory of a process".to_owned(), most]);
    }

    if let Some(plan) = &outcome.plan {
        table.row(["transfers".to_owned(), plan.transfers.to_string()]);
        table.row(["rounds".to_owned(), plan.rounds.to_string()]);
        let seconds = format!("{:.3}", plan.seconds_estimated);
        table.row(["seconds, about".to_owned(), seconds]);
    }
    if let Some(compared) = outcome.copies_compared {
        table.row(["copies compared", compared]);
    }
    sheet.table("Of the run", &table);
    for note in &outcome.notes {
        sheet.say(&format!("Note: {note}"));
    }
}

/// Bytes by what became of them.
fn moved(sheet: &mut Sheet, outcome: &Outcome) {
    let b = &outcome.bytes;
    let rows = [
        ("needed", b.read_unique),
        ("read", b.read),
        ("sent", b.sent),
        ("must cross nodes", b.sent_lower_bound),
        ("written", b.written),
        ("found complete", b.reused),
    ];
    let title = "bytes by what became of them";
    counts(sheet, title, "Bytes of all processes together", &rows);
}

/// Seconds by phase.
fn phases(sheet: &mut Sheet, outcome: &Outcome) {
    let s = &outcome.seconds;
    let rows = [
        ("looking", s.discover),
        ("planning", s.plan),
        ("making files", s.write),
        ("moving", s.exchange),
        ("putting in place", s.commit),
        ("in all", s.total),
    ];
    let known: Vec<_> = rows
        .into_iter()
        .filter(|(_, seconds)| *seconds > 0.0)
        .collect();
    if known.is_empty() {
        return;
    }
    let mut table = Table::new(&["phase", "seconds"]);
    for (name, seconds) in &known {
        table.row([(*name).to_owned(), format!("{seconds:.3}")]);
    }
    let drawn: Vec<(String, Vec<u64>)> = known
        .iter()
        .map(|(name, seconds)| ((*name).to_owned(), vec![millionths(*seconds)]))
        .collect();
    sheet.section("Seconds");
    let picture = drawn::bars("seconds by phase", &drawn, |us| {
        format!("{:.3} s", seconds(us))
    });
    sheet.figure("Seconds by phase, of the slowest process", &picture, &table);
}

/// What isn't as it should be.
fn verified(sheet: &mut Sheet, bad: &[crate::job::outcome::BadFile]) {
    if bad.is_empty() {
        return;
    }
    sheet.section("What is wrong");
    let mut table = Table::new(&["file", "tensor", "what"]);
    for one in bad {
        let tensor = one.tensor.clone().unwrap_or_default();
        table.row([one.file.clone(), tensor, one.reason.clone()]);
    }
    sheet.table("What is wrong", &table);
}

/// What differs, by layer and by tensor.
fn differences(sheet: &mut Sheet, outcome: &Outcome) {
    if outcome.equal.is_none() {
        return;
    }
    if outcome.differences.iter().all(|row| row.state == "equal") {
        return;
    }
    let layers = layers(outcome);
    if layers.len() > 1 {
        let mut table = Table::new(&["layer", "tensors", "not equal", "by at most"]);
        let mut rows = Vec::new();
        for (name, layer) in &layers {
            table.row([
                name.clone(),
                layer.tensors.to_string(),
                layer.unequal.to_string(),
                format!("{:.3e}", layer.most),
            ]);
            rows.push((name.clone(), vec![layer.unequal]));
        }
        sheet.section("Differences by layer");
        let picture = drawn::bars("tensors that differ, by layer", &rows, |count| {
            count.to_string()
        });
        sheet.figure("Tensors that aren't equal, by layer", &picture, &table);
    }
    let mut table = Table::new(&["tensor", "", "elements", "by at most", "relative"]);
    for row in outcome
        .differences
        .iter()
        .filter(|row| row.state != "equal")
    {
        table.row([
            row.name.clone(),
            row.state.replace('_', " "),
            row.elements_differing.to_string(),
            format!("{:.3e}", row.max_abs),
            format!("{:.3e}", row.max_rel),
        ]);
    }
    sheet.section("Tensors that differ");
    sheet.table("Tensors that differ", &table);
}

/// The files written, and read.
fn files(sheet: &mut Sheet, outcome: &Outcome) {
    let sides = [
        ("Files", &outcome.files),
        ("Files read", &outcome.source_files),
    ];
    for (heading, files) in sides {
        if files.is_empty() {
            continue;
        }
        let mut table = Table::new(&["file"]);
        for file in files.iter().take(FILES_MAX) {
            table.row([file]);
        }
        sheet.section(&format!("{heading} ({})", files.len()));
        sheet.markup("<details><summary>Their names</summary>\n");
        sheet.table(heading, &table);
        if files.len() > FILES_MAX {
            sheet.say(&format!("… and {} more", files.len() - FILES_MAX));
        }
        sheet.markup("</details>\n");
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time in a picture"
)]
fn millionths(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e6) as u64
}
