//! A job as a page: what was done, what it moved, who did what when, what went where, how tensors lie
//! before and after, which files there are, what differs.

use crate::course;
use crate::fault::Fault;
use crate::fault::plain::counted;
use crate::job::account::{Account, Share};
use crate::job::outcome::Outcome;
use crate::plan::sketch::{Side, Sketch};
use crate::report::drawn;
use crate::report::layers::layers;
use crate::report::sheet::{Sheet, Table, key};
use crate::report::svg::escape;
use crate::report::text::bytes;

/// Processes that have a row each in a time line.
const TIMED_MAX: usize = 128;
/// Processes that have bars each.
const BARRED_MAX: usize = 64;
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
    let mut table = Table::new(&["bytes", "", "exactly"]);
    for (name, count) in rows {
        table.row([name.to_owned(), bytes(count), count.to_string()]);
    }
    let drawn: Vec<(String, Vec<u64>)> = rows
        .iter()
        .map(|(name, count)| ((*name).to_owned(), vec![*count]))
        .collect();
    sheet.section("Bytes");
    let picture = drawn::bars("bytes by what became of them", &drawn, bytes);
    sheet.figure("Bytes of all processes together", &picture, &table);
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

/// The processes that have a row each, and what is said where these are not all.
fn drawn_of(shares: &[Share], most: usize) -> (Vec<&Share>, String) {
    let step = shares.len().div_ceil(most).max(1);
    let some = if step > 1 {
        format!(", one of {step} of {}", shares.len())
    } else {
        String::new()
    };
    (shares.iter().step_by(step).collect(), some)
}

/// Time and bytes of each process.
pub(super) fn processes(sheet: &mut Sheet, account: &Account) {
    let shares = &account.shares;
    let sums = |share: &Share| share.read + share.received + share.written;
    if shares
        .iter()
        .any(|share| share.paced.seconds().iter().any(|time| *time > 0.0))
    {
        time(sheet, shares);
    }
    if shares.iter().any(|share| sums(share) > 0) {
        balance(sheet, shares);
    }
}

/// What each process did when.
fn time(sheet: &mut Sheet, shares: &[Share]) {
    let (drawn, some) = drawn_of(shares, TIMED_MAX);
    let mut table = Table::new(&[
        "process",
        "reading, s",
        "exchanging, s",
        "writing, s",
        "until, s",
    ]);
    for share in shares {
        let [read, exchange, write] = share.paced.seconds();
        let end = seconds(share.paced.end_us);
        let times = [read, exchange, write, end].map(|time| format!("{time:.3}"));
        table.row([share.process.to_string()].into_iter().chain(times));
    }
    sheet.section("Time of each process");
    sheet.markup(&key(&[
        ("c0", "reading"),
        ("c1", "exchanging"),
        ("c2", "writing"),
    ]));
    let paced: Vec<_> = drawn
        .iter()
        .map(|share| (share.process, &share.paced))
        .collect();
    let caption = format!(
        "From left to right what each process did{some}; the height is the share of its threads that did it"
    );
    sheet.figure(&caption, &drawn::time_line(&paced, busiest(&drawn)), &table);
}

/// How bytes are shared out.
fn balance(sheet: &mut Sheet, shares: &[Share]) {
    let (drawn, some) = drawn_of(shares, BARRED_MAX);
    let most = shares.iter().map(|share| share.written).max().unwrap_or(0);
    let sum: u64 = shares.iter().map(|share| share.written).sum();
    let mut table = Table::new(&["process", "reads", "receives", "writes"]);
    for share in shares {
        let counts = [share.read, share.received, share.written].map(bytes);
        table.row([share.process.to_string()].into_iter().chain(counts));
    }
    let rows: Vec<(String, Vec<u64>)> = drawn
        .iter()
        .map(|share| {
            (
                share.process.to_string(),
                vec![share.read, share.received, share.written],
            )
        })
        .collect();
    sheet.section("Balance");
    if most > 0 {
        let mean = sum / shares.len().max(1) as u64;
        sheet.say(&format!(
            "A process writes {} at most, and {} on average.",
            bytes(most),
            bytes(mean)
        ));
    }
    sheet.markup(&key(&[
        ("c0", "reads"),
        ("c1", "receives"),
        ("c2", "writes"),
    ]));
    let caption = format!("Bytes of each process{some}");
    sheet.figure(
        &caption,
        &drawn::bars("bytes of each process", &rows, bytes),
        &table,
    );
}

/// Threads at work at once, of the process and at the time that had most.
fn busiest(shares: &[&Share]) -> f64 {
    let bins = shares.iter().flat_map(|share| {
        let width = share.paced.width_us.max(1);
        share
            .paced
            .bins
            .iter()
            .map(move |bin| bin.iter().sum::<u64>().div_ceil(width))
    });
    f64::from(u32::try_from(bins.max().unwrap_or(1)).unwrap_or(u32::MAX)).max(1.0)
}

/// What was sent between nodes, or processes.
pub(super) fn traffic(sheet: &mut Sheet, account: &Account) {
    let traffic = &account.traffic;
    let kind = if traffic.by_node { "node" } else { "process" };
    sheet.section("Who sent what to whom");
    let Some(picture) = drawn::heat(traffic) else {
        sheet.say("Nothing was sent: each process read itself what it needed.");
        return;
    };
    let mut table = Table::new(&["from", "to", "bytes", "exactly"]);
    for ((from, to), count) in &traffic.bytes {
        let name = |place: &u32| {
            let name = usize::try_from(*place)
                .ok()
                .and_then(|place| traffic.names.get(place));
            name.cloned().unwrap_or_default()
        };
        table.row([name(from), name(to), bytes(*count), count.to_string()]);
    }
    let caption =
        format!("Bytes from the {kind} of a row to the {kind} of a column; the more, the stronger");
    sheet.figure(&caption, &picture, &table);
}

/// Tensors before and after.
pub(super) fn tensors(sheet: &mut Sheet, sketches: &[Sketch]) {
    if sketches.is_empty() {
        return;
    }
    sheet.section("Tensors before and after");
    sheet.say("One of each kind of cut. A part has the colour of the first rank that holds it, and the numbers of its ranks.");
    for (number, sketch) in sketches.iter().enumerate() {
        let open = if number == 0 { " open" } else { "" };
        let name = escape(&sketch.after.name);
        let shape = drawn::shape(&sketch.after.shape);
        sheet.markup(&format!(
            "<details{open}><summary>{name}, {} {shape}</summary>\n<div class=\"pair\">\n",
            sketch.dtype
        ));
        for before in &sketch.before {
            side(sheet, "before", before);
        }
        side(sheet, "after", &sketch.after);
        sheet.markup("</div></details>\n");
    }
}

fn side(sheet: &mut Sheet, when: &str, side: &Side) {
    let mut table = Table::new(&["part", "ranks"]);
    for held in &side.held {
        table.row([
            drawn::place(&held.offset, &held.shape),
            drawn::ranks(&held.ranks, held.holders),
        ]);
    }
    if !side.complete {
        table.row(["…", "and more parts"]);
    }
    let parts: u64 = side.parts.iter().product();
    let caption = format!("{when}: {}, in {}", side.name, counted(parts, "part"));
    sheet.figure(&caption, &drawn::tensor(side), &table);
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

#[allow(clippy::cast_precision_loss, reason = "a time in a picture")]
fn seconds(millionths: u64) -> f64 {
    millionths as f64 / 1e6
}
