//! Of a job's page what is told by process and by tensor: who did what when, what went where, and how
//! tensors lie before and after.

use crate::fault::plain::counted;
use crate::job::account::{Account, Share};
use crate::plan::sketch::{Side, Sketch};
use crate::report::drawn;
use crate::report::sheet::{Sheet, Table, key};
use crate::report::svg::escape;
use crate::report::text::bytes;

/// Processes that have a row each in a time line.
const TIMED_MAX: usize = 128;
/// Processes that have bars each.
const BARRED_MAX: usize = 64;

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

/// Bytes by what they are, as bars and as a table.
pub(super) fn counts(sheet: &mut Sheet, title: &str, caption: &str, rows: &[(&str, u64)]) {
    let mut table = Table::new(&["bytes", "", "exactly"]);
    let mut drawn: Vec<(String, Vec<u64>)> = Vec::with_capacity(rows.len());
    for (name, count) in rows {
        table.row([(*name).to_owned(), bytes(*count), count.to_string()]);
        drawn.push(((*name).to_owned(), vec![*count]));
    }
    sheet.section("Bytes");
    sheet.figure(caption, &drawn::bars(title, &drawn, bytes), &table);
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

#[allow(clippy::cast_precision_loss, reason = "a time in a picture")]
pub(super) fn seconds(millionths: u64) -> f64 {
    millionths as f64 / 1e6
}
