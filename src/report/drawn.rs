//! Pictures of a job: tensors cut up, time by process, bars, and what went from where to where.

use crate::course::pace::Paced;
use crate::job::account::Traffic;
use crate::plan::sketch::Side;
use crate::report::sheet::quoted;
use crate::report::svg::escape;
use crate::report::text::bytes;
use crate::report::unit::real;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Columns of a time line.
const COLUMNS: usize = 120;
/// Most places along a side that are told apart; of more, neighbours share a square.
const SQUARES_MAX: u64 = 64;
/// Most rows or columns of parts that are drawn; more are drawn as fewer.
const PARTS_MAX: u64 = 64;

/// A tensor's parts, each in the colour of the first rank that holds it.
pub(super) fn tensor(side: &Side) -> String {
    let (rows, columns) = flat(&side.parts);
    let (drawn_rows, drawn_columns) = (rows.min(PARTS_MAX), columns.min(PARTS_MAX));
    let (width, height) = (440.0, 220.0);
    let (w, h) = (width / real(drawn_columns), height / real(drawn_rows));
    let label = format!("{} cut into {} parts", side.name, rows * columns);
    let mut out = head(width, height + 20.0, &label);
    for row in 0..drawn_rows {
        for column in 0..drawn_columns {
            let number = (row * rows / drawn_rows) * columns + column * columns / drawn_columns;
            let held = usize::try_from(number)
                .ok()
                .and_then(|number| side.held.get(number));
            let Some(held) = held else { continue };
            let (x, y) = (real(column) * w, real(row) * h);
            let first = held.ranks.first().copied().unwrap_or_default();
            let who = ranks(&held.ranks, held.holders);
            let _ = write!(
                out,
                "<rect class=\"edge\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" fill=\"hsl({} 52% 62%)\"><title>{}: {who}</title></rect>",
                hue(first),
                place(&held.offset, &held.shape)
            );
            if w > 34.0 && h > 13.0 {
                let short = if who.len() > 18 || 6.2 * real(who.len() as u64) > w {
                    format!("{first}…")
                } else {
                    who.clone()
                };
                let _ = write!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" style=\"fill:#10161c\">{short}</text>",
                    x + w / 2.0,
                    y + h / 2.0 + 4.0
                );
            }
        }
    }
    let less = if drawn_rows < rows || drawn_columns < columns {
        format!(" ({rows} x {columns} parts, drawn as {drawn_rows} x {drawn_columns})")
    } else {
        String::new()
    };
    let _ = writeln!(
        out,
        "<text x=\"0\" y=\"{:.1}\">{}{less}</text></svg>",
        height + 15.0,
        escape(&shape(&side.shape))
    );
    out
}

/// All dimensions but the last as rows.
fn flat(parts: &[u64]) -> (u64, u64) {
    match parts.split_last() {
        None => (1, 1),
        Some((last, [])) => (*last, 1),
        Some((last, before)) => (before.iter().product(), *last),
    }
}

/// Neighbouring ranks get colours far apart.
fn hue(rank: u32) -> u32 {
    (u64::from(rank) * 137 % 360).try_into().unwrap_or_default()
}

/// `0-3, 8` and how many more.
pub(super) fn ranks(known: &[u32], holders: usize) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < known.len() {
        let mut end = at;
        while end + 1 < known.len() && known[end + 1] == known[end] + 1 {
            end += 1;
        }
        let comma = if out.is_empty() { "" } else { ", " };
        let _ = match end - at {
            0 => write!(out, "{comma}{}", known[at]),
            _ => write!(out, "{comma}{}-{}", known[at], known[end]),
        };
        at = end + 1;
    }
    match holders.saturating_sub(known.len()) {
        0 => out,
        more => format!("{out} and {more} more"),
    }
}

/// `[0..4, 8..16]`.
pub(super) fn place(offset: &[u64], shape: &[u64]) -> String {
    let ranges = offset.iter().zip(shape);
    let ranges: Vec<String> = ranges
        .map(|(from, count)| format!("{from}..{}", from + count))
        .collect();
    format!("[{}]", ranges.join(", "))
}

pub(super) fn shape(shape: &[u64]) -> String {
    let sizes: Vec<String> = shape.iter().map(u64::to_string).collect();
    match sizes.is_empty() {
        true => "a single number".to_owned(),
        false => sizes.join(" x "),
    }
}

/// A row a process: how much of its time went where, from left to right.
pub(super) fn time_line(shares: &[(u32, &Paced)], threads: f64) -> String {
    let end = shares
        .iter()
        .map(|(_, paced)| paced.end_us)
        .max()
        .unwrap_or(1)
        .max(1);
    let (width, left) = (1000.0, 44.0);
    let row = (640.0 / real(shares.len() as u64)).clamp(3.0, 26.0);
    let height = row * real(shares.len() as u64);
    let label = format!(
        "what {} processes did in {:.3} s",
        shares.len(),
        real(end) / 1e6
    );
    let mut out = head(width, height + 22.0, &label);
    for (number, (process, paced)) in shares.iter().enumerate() {
        let y = real(number as u64) * row;
        if row >= 9.0 || number.is_multiple_of(16) {
            let _ = write!(
                out,
                "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{process}</text>",
                left - 6.0,
                y + row / 2.0 + 4.0
            );
        }
        let column_us = real(end) / real(COLUMNS as u64);
        for (column, shares) in columns(paced, end).iter().enumerate() {
            let x = left + (width - left) * real(column as u64) / real(COLUMNS as u64);
            let w = (width - left) / real(COLUMNS as u64);
            let mut bottom = y + row - 1.0;
            for (kind, us) in shares.iter().enumerate() {
                let share = (us / (column_us * threads)).min(1.0);
                let h = share * (row - 1.0);
                if h < 0.05 {
                    continue;
                }
                bottom -= h;
                let _ = write!(
                    out,
                    "<rect class=\"c{kind}\" x=\"{x:.1}\" y=\"{:.2}\" width=\"{w:.1}\" height=\"{h:.2}\"/>",
                    bottom.max(y)
                );
            }
        }
    }
    for mark in 0..=4u64 {
        let x = left + (width - left) * real(mark) / 4.0;
        let seconds = real(end) / 1e6 * real(mark) / 4.0;
        let anchor = if mark == 4 { "end" } else { "middle" };
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{height:.1}\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{seconds:.3} s</text>",
            height + 15.0
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Microseconds of each kind by column.
fn columns(paced: &Paced, end: u64) -> Vec<[f64; 3]> {
    let mut columns = vec![[0.0; 3]; COLUMNS];
    let width = real(end) / real(COLUMNS as u64);
    for (number, bin) in (0u64..).zip(&paced.bins) {
        let (from, to) = (number * paced.width_us, (number + 1) * paced.width_us);
        for (column, sums) in (0u64..).zip(&mut columns) {
            let (begin, finish) = (real(column) * width, real(column + 1) * width);
            let shared = (real(to).min(finish) - real(from).max(begin)).max(0.0);
            for (sum, us) in sums.iter_mut().zip(bin) {
                *sum += real(*us) * shared / real(paced.width_us.max(1));
            }
        }
    }
    columns
}

/// Horizontal bars: a name, and a value for each series.
pub(super) fn bars(label: &str, rows: &[(String, Vec<u64>)], shown: fn(u64) -> String) -> String {
    let most = rows
        .iter()
        .flat_map(|(_, values)| values)
        .copied()
        .max()
        .unwrap_or(0)
        .max(1);
    let series = rows
        .iter()
        .map(|(_, values)| values.len())
        .max()
        .unwrap_or(1)
        .max(1);
    let (width, left, right) = (1000.0, 170.0, 90.0);
    let bar = match rows.len() * series {
        0..=40 => 15.0,
        41..=120 => 7.0,
        _ => 3.0,
    };
    let row = bar * real(series as u64) + if bar > 4.0 { 4.0 } else { 1.0 };
    let mut out = head(width, row * real(rows.len() as u64), label);
    let every = if row >= 12.0 { 1 } else { 16 };
    for (number, (name, values)) in rows.iter().enumerate() {
        let y = real(number as u64) * row;
        if number.is_multiple_of(every) {
            let _ = write!(
                out,
                "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                y + (row / 2.0 + 3.0).min(12.0),
                escape(name)
            );
        }
        for (kind, value) in values.iter().enumerate() {
            let w = (width - left - right) * real(*value) / real(most);
            let y = y + bar * real(kind as u64);
            let class = kind.min(4);
            let _ = write!(
                out,
                "<rect class=\"c{class}\" x=\"{left}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{:.1}\"><title>{}: {}</title></rect>",
                bar - 1.0,
                quoted(name),
                shown(*value)
            );
            if bar > 10.0 {
                let _ = write!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    left + w + 5.0,
                    y + bar - 4.0,
                    shown(*value)
                );
            }
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Who sent how much to whom: the more, the stronger. `None` if nothing was sent.
pub(super) fn heat(traffic: &Traffic) -> Option<String> {
    let most = traffic
        .bytes
        .values()
        .copied()
        .max()
        .filter(|most| *most > 0)?;
    let count = traffic.names.len().max(1) as u64;
    let joined = count.div_ceil(SQUARES_MAX);
    let squares = count.div_ceil(joined);
    let mut sums: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for ((from, to), bytes) in &traffic.bytes {
        let key = (u64::from(*from) / joined, u64::from(*to) / joined);
        *sums.entry(key).or_default() += bytes;
    }
    let most = sums.values().copied().max().unwrap_or(most);
    let (left, top, side) = (120.0, 26.0, 560.0);
    let w = (side / real(squares)).min(44.0);
    let kind = if traffic.by_node {
        "nodes"
    } else {
        "processes"
    };
    let label = format!("bytes sent between {count} {kind}");
    let mut out = head(
        left + w * real(squares) + 20.0,
        top + w * real(squares) + 8.0,
        &label,
    );
    let named = |number: u64| {
        let index = usize::try_from(number * joined).unwrap_or_default();
        traffic.names.get(index).map_or("", String::as_str)
    };
    let every = squares.div_ceil(24).max(1);
    for number in 0..squares {
        let middle = w * (real(number) + 0.5);
        if number % every == 0 {
            let name: String = named(number).chars().take(16).collect();
            let _ = write!(
                out,
                "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
                left - 6.0,
                top + middle + 4.0,
                escape(&name),
                left + middle,
                top - 8.0,
                number * joined
            );
        }
    }
    let edge = if w < 10.0 { "" } else { " class=\"edge\"" };
    for ((from, to), sum) in &sums {
        let (x, y) = (left + w * real(*to), top + w * real(*from));
        let share = real(*sum) / real(most);
        let _ = write!(
            out,
            "<rect{edge} x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{w:.1}\" style=\"fill:rgba(var(--heat),{:.3})\"><title>{} to {}: {}</title></rect>",
            0.12 + 0.88 * share,
            quoted(named(*from)),
            quoted(named(*to)),
            bytes(*sum)
        );
    }
    out.push_str("</svg>\n");
    Some(out)
}

fn head(width: f64, height: f64, label: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width:.0} {:.0}\" style=\"max-width:{width:.0}px\" role=\"img\" aria-label=\"{}\">\n",
        height.max(20.0),
        quoted(label)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sketch::Held;

    #[test]
    fn names_ranks_and_places() {
        assert_eq!(ranks(&[0, 1, 2, 5], 6), "0-2, 5 and 2 more");
        assert_eq!(place(&[0, 8], &[4, 8]), "[0..4, 8..16]");
        assert_eq!(
            (flat(&[]), flat(&[3]), flat(&[2, 3, 4])),
            ((1, 1), (3, 1), (6, 4))
        );
    }

    #[test]
    fn draws_thousands_as_few() {
        let held = (0..4096u32).map(|rank| Held {
            offset: vec![u64::from(rank)],
            shape: vec![1],
            ranks: vec![rank],
            holders: 1,
        });
        let side = Side {
            name: "w<".into(),
            shape: vec![4096],
            parts: vec![4096],
            held: held.collect(),
            complete: true,
        };
        let picture = tensor(&side);
        assert!(picture.matches("<rect").count() <= 64 && picture.contains("w&lt;"));
        let bytes = (0..1024)
            .map(|process| ((process, 1023 - process), 7))
            .collect();
        let names = (0..1024).map(|name: u32| name.to_string()).collect();
        let picture = heat(&Traffic {
            by_node: true,
            names,
            bytes,
        });
        assert!(picture.is_some_and(|picture| picture.matches("<rect").count() <= 256));
        assert!(heat(&Traffic::default()).is_none());
        let paced = Paced {
            width_us: 500,
            bins: vec![[500, 0, 0], [0, 250, 250]],
            phases: Vec::new(),
            end_us: 1000,
        };
        let line = time_line(&[(0, &paced)], 1.0);
        assert!(
            line.contains("class=\"c0\"") && line.contains("class=\"c2\"") && !line.contains("NaN")
        );
    }
}
