//! A map of the rates between nodes: the slower a path, the redder its square.

use crate::measure::pairs::Pairs;
use crate::report::sheet::quoted;
use crate::report::svg::escape;
use crate::report::unit::{number, real};
use std::fmt::Write;

/// Most squares along a side; of more nodes, neighbours share one, and the slowest of their paths is its colour.
const SQUARES_MAX: usize = 64;
/// Room for the names of rows and columns, and of all squares.
const LEFT: f64 = 150.0;
const TOP: f64 = 24.0;
const SIDE: f64 = 640.0;
/// A square's side at most, and at least where it has a number; a letter's width.
const SQUARE_MAX: f64 = 72.0;
const SQUARE_WORDS: f64 = 34.0;
const LETTER: f64 = 6.4;
/// Letters of a name.
const NAME_MAX: usize = 20;
/// Below the map: shares of the usual rate, in their colours.
const KEY: [f64; 5] = [0.2, 0.4, 0.6, 0.8, 1.0];
const KEY_HEIGHT: f64 = 44.0;

/// Paths between neighbouring nodes that share a square.
#[derive(Clone, Copy)]
struct Square {
    from: usize,
    to: usize,
    rate: f64,
}

/// The map; a square's title names its path.
pub(super) fn map(pairs: &Pairs) -> String {
    let count = pairs.names.len().max(1);
    let joined = count.div_ceil(SQUARES_MAX);
    let side = count.div_ceil(joined);
    let w = (SIDE / real(side as u64)).min(SQUARE_MAX);
    let (width, bottom) = (LEFT + SIDE + 8.0, TOP + w * real(side as u64));
    let height = bottom + KEY_HEIGHT;
    let mut out = format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" style=\"max-width:{width:.0}px\" role=\"img\" \
         aria-label=\"rates between {count} {}\">\n",
        kind(pairs)
    );
    out.push_str(&names(pairs, joined, w));
    for square in squares(pairs, joined) {
        let place = |node: usize| w * real((node / joined) as u64);
        let (x, y) = (LEFT + place(square.to), TOP + place(square.from));
        let share = square.rate / pairs.usual_gbps.max(f64::MIN_POSITIVE);
        let class = if pairs.is_slow(square.rate) {
            "slow"
        } else {
            "edge"
        };
        let _ = write!(
            out,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{w:.1}\" \
             style=\"fill:{}\"><title>{} to {}: {} GB/s, {share:.2} of the usual</title></rect>",
            colour(share),
            quoted(&pairs.names[square.from]),
            quoted(&pairs.names[square.to]),
            number(square.rate)
        );
        if w >= SQUARE_WORDS {
            let (x, y) = (x + w / 2.0, y + w / 2.0 + 4.0);
            let rate = number(square.rate);
            let _ = write!(
                out,
                "<text class=\"dark\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{rate}</text>"
            );
        }
        out.push('\n');
    }
    out.push_str(&key(pairs, bottom, joined));
    out.push_str("</svg>\n");
    out
}

/// What the names are of.
pub(super) fn kind(pairs: &Pairs) -> &'static str {
    match pairs.processes {
        true => "processes",
        false => "nodes",
    }
}

/// The slowest path of each square.
fn squares(pairs: &Pairs, joined: usize) -> Vec<Square> {
    let side = pairs.names.len().div_ceil(joined);
    let mut slowest: Vec<Option<Square>> = vec![None; side * side];
    for (from, row) in pairs.gbps.iter().enumerate() {
        for (to, rate) in row.iter().enumerate() {
            let Some(rate) = *rate else { continue };
            let place = from / joined * side + to / joined;
            let Some(known) = slowest.get_mut(place) else {
                continue;
            };
            if known.is_none_or(|known| rate < known.rate) {
                *known = Some(Square { from, to, rate });
            }
        }
    }
    slowest.into_iter().flatten().collect()
}

/// The names of rows, and of columns where they fit; else their numbers.
fn names(pairs: &Pairs, joined: usize, w: f64) -> String {
    let short = |name: &String| -> String { name.chars().take(NAME_MAX).collect() };
    let longest = pairs.names.iter().map(|name| short(name).len()).max();
    let fit = real(longest.unwrap_or_default() as u64) * LETTER <= w;
    // A name needs a line's height, and a number its digits' width.
    let every = (14.0 / w).ceil().max(1.0);
    let mut out = String::new();
    for (number, name) in pairs.names.iter().step_by(joined).enumerate() {
        if real(number as u64) % every > 0.0 {
            continue;
        }
        let middle = w * (real(number as u64) + 0.5);
        let first = number * joined;
        let (row, column) = match (fit, pairs.processes) {
            (true, _) => (short(name), short(name)),
            (false, true) => (short(name), first.to_string()),
            (false, false) => (format!("{} {first}", short(name)), first.to_string()),
        };
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            LEFT - 6.0,
            TOP + middle + 4.0,
            escape(&row),
            LEFT + middle,
            TOP - 8.0,
            escape(&column)
        );
    }
    out
}

/// What the colours mean.
fn key(pairs: &Pairs, bottom: f64, joined: usize) -> String {
    let mut out = String::new();
    let y = bottom + 14.0;
    for (number, share) in KEY.iter().enumerate() {
        let x = LEFT + 62.0 * real(number as u64);
        let _ = writeln!(
            out,
            "<rect class=\"edge\" x=\"{x:.0}\" y=\"{y:.0}\" width=\"18\" height=\"14\" style=\"fill:{}\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\">{share}</text>",
            colour(*share),
            x + 23.0,
            y + 11.0
        );
    }
    let more = match joined {
        1 => String::new(),
        _ => format!(
            "; a square is the slowest path of {joined} x {joined} {}",
            kind(pairs)
        ),
    };
    let edge = match pairs.shares_cores {
        true => "",
        false => "; what is slow has an edge",
    };
    let x = LEFT + 62.0 * real(KEY.len() as u64);
    let _ = writeln!(
        out,
        "<text x=\"{x:.0}\" y=\"{:.0}\">of the usual {} GB/s{edge}{more}</text>",
        y + 11.0,
        number(pairs.usual_gbps)
    );
    out
}

/// Red for nothing, green for the usual and more.
fn colour(share: f64) -> String {
    let share = share.clamp(0.0, 1.0);
    format!("hsl({:.0} 65% 68%)", 130.0 * share * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(count: usize) -> Pairs {
        let rate = |from: usize, to: usize| match (from, to) {
            (from, to) if from == to => None,
            (1, 2) => Some(0.25),
            _ => Some(1.0),
        };
        let row = |from: usize| (0..count).map(|to| rate(from, to)).collect();
        Pairs {
            names: (0..count).map(|node| format!("node<{node}")).collect(),
            gbps: (0..count).map(row).collect(),
            usual_gbps: 1.0,
            ..Pairs::default()
        }
    }

    #[test]
    fn every_path_has_a_square_and_a_slow_one_an_edge() {
        for count in [2, 4, 16, 64] {
            let drawn = map(&pairs(count));
            let paths = drawn.matches("<title>").count();
            assert_eq!(paths, count * (count - 1), "{count}");
            assert_eq!(
                drawn.matches("class=\"slow\"").count(),
                usize::from(count > 2)
            );
            assert!(
                drawn.contains("node&lt;1") && !drawn.contains("NaN"),
                "{drawn}"
            );
        }
    }

    #[test]
    fn of_many_nodes_the_slowest_path_of_a_square_is_shown() {
        let drawn = map(&pairs(200));
        assert!(drawn.matches("<title>").count() <= SQUARES_MAX * SQUARES_MAX);
        let slow = "node&lt;1 to node&lt;2: 0.25 GB/s, 0.25 of the usual";
        assert!(drawn.contains(slow) && drawn.contains("slowest path of 4 x 4"));
    }
}
