//! Measurements for people, and as tables for programs.

use crate::fault::plain::{Text, counted};
use crate::measure::bench::{Measured, Row, Traveled};
use crate::measure::pairs::Pairs;
use crate::report::svg::{Chart, Style};
use crate::report::text::bytes;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Most rows of a matrix in a text.
const MATRIX_MAX: usize = 12;

/// What a bench measured: the program's own primitives, and beside them the MPI library's calls.
pub(super) fn measured(measured: &Measured) -> Text {
    let mut out = Text::new(format_args!(
        "bench {}: {} on {}, {}",
        measured.bench,
        counted(measured.processes.into(), "process"),
        counted(measured.nodes.into(), "node"),
        measured.library
    ));
    let width = measured.rows.iter().map(|row| row.title().len()).max();
    let width = width.unwrap_or_default().max(9);
    out.line(format_args!(
        "  {:width$} {:>5} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "operation",
        "procs",
        "size",
        "min us",
        "median us",
        "mean us",
        "p99 us",
        "max us",
        "GB/s",
        "bus GB/s"
    ));
    for row in &measured.rows {
        // A library's row stands beside the program's own, where there is one.
        if row.by == "library" && twin(measured, row).is_some() {
            continue;
        }
        out.line(format_args!(
            "  {:width$} {:>5} {:>8} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {:>8.3} {:>8}",
            row.title(),
            row.processes,
            size_of(row),
            row.seconds.min * 1e6,
            row.seconds.median * 1e6,
            row.seconds.mean * 1e6,
            row.seconds.p99 * 1e6,
            row.seconds.max * 1e6,
            row.algorithm_gbps,
            row.bus_gbps
                .map_or("-".to_owned(), |rate| format!("{rate:.3}"))
        ));
        out.add(beside(measured, row));
    }
    if let Some(pairs) = &measured.pairs {
        out.append(&matrix(pairs));
    }
    if let Some(traveled) = &measured.bytes {
        out.append(&exchanged(traveled, measured.rows.first()));
    }
    for left in &measured.unmeasured {
        out.line(format_args!(
            "  not measured: {}: {}",
            left.operation, left.why
        ));
    }
    if let Some(compared) = measured.compared {
        let rows = counted(compared, "row");
        let slower = measured.slower.len();
        out.line(format_args!(
            "  {rows} compared with the earlier result, {slower} slower"
        ));
    }
    for line in &measured.verdict {
        out.line(format_args!("  {line}"));
    }
    out
}

/// The size of a call or message, where there is one.
fn size_of(row: &Row) -> String {
    match (row.bytes, row.operation.as_str()) {
        (0, operation) if operation != "latency" => String::new(),
        (bytes, _) => size(bytes),
    }
}

/// A size as messages have it: in powers of two where it is a multiple of one.
pub(super) fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} B"),
    }
}

/// Rates between nodes: a row for each that sends, a column for each that receives.
fn matrix(pairs: &Pairs) -> Text {
    let mut out = Text::new(format_args!(
        "  GB/s from each row to each column, all at once; {:.3} is usual",
        pairs.usual_gbps
    ));
    if pairs.names.len() > MATRIX_MAX {
        out.line(format_args!(
            "  (the matrix of {} is in --json and --html)",
            pairs.names.len()
        ));
        return out;
    }
    let width = pairs
        .names
        .iter()
        .map(String::len)
        .max()
        .unwrap_or_default();
    for (name, row) in pairs.names.iter().zip(&pairs.gbps) {
        out.line(format_args!("  {name:width$}"));
        for rate in row {
            let cell = rate.map_or("-".to_owned(), |rate| format!("{rate:.3}"));
            out.add(format_args!(" {cell:>8}"));
        }
    }
    out
}

/// What an exchange carries, and how near it comes to what the links do.
pub(super) fn exchanged(traveled: &Traveled, row: Option<&Row>) -> Text {
    let t = traveled;
    let mut out = Text::new(format_args!(
        "  {} sent (at least {} between {}), {} by the busiest process, in {} with at most {}",
        bytes(t.sent),
        bytes(t.sent_lower_bound),
        counted(t.nodes.into(), "node"),
        bytes(t.busiest_process),
        counted(t.rounds, "round"),
        counted(t.partners_max, "partner")
    ));
    if let Some(row) = row.filter(|_| t.seconds_lower_bound > 0.0) {
        out.line(format_args!("  links that are all in use would carry the busiest process's bytes in {:.6} s: it took {:.2} times as long",
            t.seconds_lower_bound,
            row.seconds.median / t.seconds_lower_bound));
    }
    out
}

/// The row of the other side: the same, done by the program or by the MPI library.
fn twin<'a>(measured: &'a Measured, row: &Row) -> Option<&'a Row> {
    let place = |row: &'a Row| (&row.operation, &row.variant, row.bytes, row.processes);
    let mine = (&row.operation, &row.variant, row.bytes, row.processes);
    let mut rows = measured.rows.iter();
    rows.find(|other| other.by != row.by && place(other) == mine)
}

fn beside(measured: &Measured, row: &Row) -> String {
    let mut out = String::new();
    if row.by == "library" {
        out.push_str("  by the MPI library");
    } else if let Some(library) = twin(measured, row) {
        let times = row.seconds.median / library.seconds.median.max(f64::MIN_POSITIVE);
        let median = library.seconds.median * 1e6;
        let _ = write!(out, "  MPI library {median:.2} us (x{times:.2})");
    }
    if let Some(rate) = row.messages_per_second {
        let _ = write!(out, "  {rate:.0} messages/s");
    }
    if let Some(rate) = row.operations_per_second {
        let _ = write!(out, "  {rate:.0}/s");
    }
    if let Some(percent) = row.overlap_percent {
        let _ = write!(out, "  {percent:.0} % overlapped");
    }
    if let Some(ratio) = row.ratio_to_copy {
        let _ = write!(out, "  {ratio:.2} of copying");
    }
    if row.wrong_bytes > 0 {
        let _ = write!(out, "  {}", counted(row.wrong_bytes, "wrong byte"));
    }
    out
}

/// Rates by size.
pub(super) fn picture(measured: &Measured) -> String {
    let own = || measured.rows.iter().filter(|row| row.by != "library");
    let mut operations: Vec<String> = own().map(Row::title).collect();
    operations.dedup();
    let sizes: BTreeSet<u64> = own().map(|row| row.bytes).collect();
    let series = operations.iter().map(|operation| {
        let values = sizes.iter().map(|bytes| {
            let mut rows = own();
            rows.find(|row| row.title() == *operation && row.bytes == *bytes)
                .and_then(|row| row.bus_gbps)
        });
        (operation.clone(), values.collect())
    });
    Chart {
        title: format!(
            "bench {}: {}",
            measured.bench,
            counted(measured.processes.into(), "process")
        ),
        unit: "GB/s",
        style: if sizes.len() > 3 {
            Style::Lines
        } else {
            Style::Bars
        },
        labels: sizes.iter().map(|size| self::size(*size)).collect(),
        series: series.collect(),
    }
    .draw()
}

/// Rows of values separated by commas, the first their names.
pub(super) fn table(measured: &Measured) -> String {
    let mut out = String::from(
        "operation,variant,node,by,bytes,processes,iterations,seconds_min,seconds_median,seconds_mean,\
         seconds_p99,seconds_max,processes_seconds_min,processes_seconds_median,processes_seconds_mean,\
         processes_seconds_p99,processes_seconds_max,algorithm_gbps,bus_gbps,wrong_bytes,messages_per_second,\
         operations_per_second,overlap_percent,ratio_to_copy\n",
    );
    for row in &measured.rows {
        let (s, p) = (&row.seconds, &row.processes_seconds);
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            quoted(&row.operation),
            quoted(row.variant.as_deref().unwrap_or_default()),
            quoted(row.node.as_deref().unwrap_or_default()),
            row.by,
            row.bytes,
            row.processes,
            row.iterations,
            s.min,
            s.median,
            s.mean,
            s.p99,
            s.max,
            p.min,
            p.median,
            p.mean,
            p.p99,
            p.max,
            row.algorithm_gbps,
            cell(row.bus_gbps),
            row.wrong_bytes,
            cell(row.messages_per_second),
            cell(row.operations_per_second),
            cell(row.overlap_percent),
            cell(row.ratio_to_copy)
        );
    }
    out
}

/// Nothing where there is no number.
fn cell(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
