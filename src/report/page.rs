//! A measurement as a page.

use crate::fault::plain::counted;
use crate::measure::bench::{Measured, Row};
use crate::measure::pairs::Pairs;
use crate::report::benched::{self, size};
use crate::report::curves::{Curve, Curves};
use crate::report::pairs_map;
use crate::report::sheet::{Sheet, Table};
use crate::report::svg::escape;
use crate::report::unit::{number, real};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Whose line is whose.
const KEY: &str = "<p class=\"key\"><span><i style=\"background:var(--c0)\"></i>shardloom</span>\
                   <span><i style=\"background:var(--c1)\"></i>MPI library (dashed)</span></p>\n";

/// The page.
pub(super) fn page(measured: &Measured) -> String {
    let mut sheet = Sheet::new(&format!("bench {}", measured.bench));
    sheet.say(&format!(
        "{} on {}, {}",
        counted(measured.processes.into(), "process"),
        counted(measured.nodes.into(), "node"),
        measured.library
    ));
    if !measured.verdict.is_empty() {
        sheet.section("Verdict");
        let mut list = String::from("<ul>\n");
        for line in &measured.verdict {
            let bad = line.contains("wrong byte") || line.contains("of the usual");
            let bad = bad || line.starts_with("slower:");
            let class = if bad { " class=\"bad\"" } else { "" };
            let _ = writeln!(list, "<li{class}>{}</li>", escape(line));
        }
        list.push_str("</ul>\n");
        sheet.markup(&list);
    }
    if let Some(pairs) = &measured.pairs {
        between(&mut sheet, pairs);
    }
    pictures(&mut sheet, "By size", &curves(measured));
    pictures(&mut sheet, "By processes", &growth(measured));
    sheet.section("Rows");
    sheet.markup(&rows(measured));
    sheet.finish()
}

/// The name of each operation, in the order of the rows.
fn titles(measured: &Measured) -> Vec<String> {
    let mut titles: Vec<String> = Vec::new();
    for row in &measured.rows {
        if !titles.contains(&row.title()) {
            titles.push(row.title());
        }
    }
    titles
}

/// A section of pictures, if there are any; what they show is in the table of all rows.
fn pictures(sheet: &mut Sheet, heading: &str, drawn: &str) {
    if drawn.is_empty() {
        return;
    }
    sheet.section(heading);
    sheet.markup(&format!("{KEY}<div class=\"grids\">\n{drawn}</div>\n"));
}

/// A line for each side, of the rows that `of` gives a point for.
fn sides(measured: &Measured, of: impl Fn(&Row) -> Option<(f64, f64)>) -> Vec<Curve> {
    let sides = [("shardloom", "shardloom"), ("library", "MPI library")];
    let curves = sides.into_iter().map(|(by, name)| Curve {
        name: name.to_owned(),
        points: measured
            .rows
            .iter()
            .filter(|row| row.by == by)
            .filter_map(&of)
            .collect(),
    });
    curves.collect()
}

/// Bandwidth by size, or the time of what is small.
fn curves(measured: &Measured) -> String {
    let most = measured.processes;
    let mut drawn = String::new();
    for title in titles(measured) {
        let rows = || measured.rows.iter().filter(|row| row.title() == title);
        let sizes: BTreeSet<u64> = rows()
            .map(|row| row.bytes)
            .filter(|bytes| *bytes > 0)
            .collect();
        if sizes.len() < 2 {
            continue;
        }
        let here = rows().map(|row| row.processes).max().unwrap_or(most);
        let time = title == "latency";
        let point = |row: &Row| {
            let value = if time {
                Some(row.seconds.median)
            } else {
                row.bus_gbps
            };
            let known = row.title() == title && row.processes == here && row.bytes > 0;
            Some((real(row.bytes), value?)).filter(|_| known)
        };
        let unit = if time { "time" } else { "bus GB/s" };
        let picture = Curves {
            title: format!("{title}, {unit}"),
            curves: sides(measured, point),
            across: |bytes| size(whole(bytes)),
            up: if time { duration } else { number },
        };
        drawn.push_str(&picture.draw());
    }
    drawn
}

/// Bandwidth of the largest size over numbers of processes.
fn growth(measured: &Measured) -> String {
    let mut drawn = String::new();
    for title in titles(measured) {
        let rows = || measured.rows.iter().filter(|row| row.title() == title);
        let levels: BTreeSet<u32> = rows().map(|row| row.processes).collect();
        let largest = rows().map(|row| row.bytes).max().unwrap_or_default();
        if levels.len() < 2 {
            continue;
        }
        let time = largest == 0;
        let point = |row: &Row| {
            let value = if time {
                Some(row.seconds.median)
            } else {
                row.bus_gbps
            };
            let known = row.title() == title && row.bytes == largest;
            Some((f64::from(row.processes), value?)).filter(|_| known)
        };
        let unit = if time {
            "time".to_owned()
        } else {
            format!("{}, bus GB/s", size(largest))
        };
        let picture = Curves {
            title: format!("{title}, {unit}"),
            curves: sides(measured, point),
            across: |processes| format!("{processes:.0}"),
            up: if time { duration } else { number },
        };
        drawn.push_str(&picture.draw());
    }
    drawn
}

/// Rates between nodes, as a map and a table.
fn between(sheet: &mut Sheet, pairs: &Pairs) {
    let kind = pairs_map::kind(pairs);
    sheet.section(&format!("Between {kind}"));
    let mut head = vec!["from"];
    head.extend(pairs.names.iter().map(String::as_str));
    let mut table = Table::new(&head);
    for (from, rates) in pairs.names.iter().zip(&pairs.gbps) {
        let rates = rates.iter().map(|rate| rate.map_or(String::new(), number));
        table.row(std::iter::once(from.clone()).chain(rates));
    }
    let caption = format!(
        "GB/s from each row to each column, messages of {}, all links loaded at once",
        size(pairs.bytes)
    );
    sheet.figure(&caption, &pairs_map::map(pairs), &table);
}

/// All rows as a table.
fn rows(measured: &Measured) -> String {
    let mut out = String::from(
        "<div class=\"wide\" tabindex=\"0\"><table><tr><th>operation</th><th>by</th><th>processes</th>\
         <th>size</th><th>min</th><th>median</th><th>mean</th><th>99 %</th><th>max</th><th>GB/s</th>\
         <th>bus GB/s</th><th>wrong bytes</th></tr>\n",
    );
    for row in &measured.rows {
        let s = &row.seconds;
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
            escape(&row.title()),
            row.by,
            row.processes,
            size(row.bytes)
        );
        for value in [s.min, s.median, s.mean, s.p99, s.max] {
            let _ = write!(out, "<td>{}</td>", duration(value));
        }
        let _ = writeln!(
            out,
            "<td>{}</td><td>{}</td><td>{}</td></tr>",
            number(row.algorithm_gbps),
            row.bus_gbps.map_or("-".to_owned(), number),
            row.wrong_bytes
        );
    }
    out.push_str("</table></div>\n");
    for left in &measured.unmeasured {
        let (operation, why) = (escape(&left.operation), escape(&left.why));
        let _ = writeln!(out, "<p>Not measured: {operation}: {why}</p>");
    }
    if let Some(traveled) = &measured.bytes {
        let text = benched::exchanged(traveled, measured.rows.first());
        let text = text.as_str();
        let _ = writeln!(out, "<pre>{}</pre>", escape(text));
    }
    out
}

fn duration(seconds: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "us")];
    let unit = units.iter().find(|(unit, _)| seconds >= *unit * 0.9995);
    let (unit, name) = unit.unwrap_or(&(1e-9, "ns"));
    format!("{} {name}", number(seconds / unit))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a power of two on an axis"
)]
fn whole(bytes: f64) -> u64 {
    bytes.round().max(0.0) as u64
}
