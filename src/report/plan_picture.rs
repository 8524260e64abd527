//! The picture of a plan: the bytes of all processes, and who sends to whom by node.

use crate::measure::simulate::{Load, Simulated};
use crate::report::svg::{escape, float};
use crate::report::unit::{Unit, real, short, written};
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = 24.0;
/// Top and bottom of the processes' part, inside its axes.
const TOP: f64 = 76.0;
const BOTTOM: f64 = 360.0;
/// Where the nodes' part begins, and the side of its square.
const NODES_TOP: f64 = 500.0;
const SIDE: f64 = 420.0;
/// Most processes that have a bar each; of more there is an area.
const BARS_MAX: usize = 64;
/// Points of an area.
const POINTS_MAX: usize = 480;
/// Rows and columns of the nodes' part; of more nodes, neighbours share one.
const FIELDS_MAX: u32 = 48;
/// Most rows whose fields have their numbers written in.
const NUMBERED_MAX: u32 = 10;
/// Most marks on an axis.
const MARKS_MAX: usize = 16;
/// What is drawn of each process, from the axis up, and its colour.
const SERIES: [(&str, &str); 3] = [
    ("read", "#3266ad"),
    ("received", "#d9822b"),
    ("written", "#3a9d5d"),
];

/// The picture.
pub(super) fn drawn(simulated: &Simulated) -> String {
    let mut loads = simulated.loads.clone();
    loads.sort_by_key(|load| (std::cmp::Reverse(sum(load)), load.process));
    let fields = Fields::of(simulated);
    let height = if fields.is_some() {
        NODES_TOP + SIDE + 20.0
    } else {
        BOTTOM + 90.0
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let planned = match simulated.processes_planned < simulated.processes {
        true => format!(
            "{} of {} processes",
            simulated.processes_planned, simulated.processes
        ),
        false => format!("{} processes", simulated.processes),
    };
    let ranks = format!(
        "{} to {} ranks",
        simulated.source_ranks, simulated.destination_ranks
    );
    text(
        &mut out,
        (LEFT, 24.0),
        "start",
        16,
        &format!("{ranks}: bytes of {planned}"),
    );
    processes(&mut out, &loads);
    match fields {
        Some(fields) => fields.draw(&mut out),
        None if simulated.nodes > 1 => {
            let told = "nothing travels between processes: each reads its own";
            text(&mut out, (LEFT, BOTTOM + 74.0), "start", 12, told);
        }
        None => {}
    }
    out.push_str("</svg>\n");
    out
}

fn sum(load: &Load) -> u64 {
    load.read + load.received + load.written
}

/// A bar for each process, or an area over all, the parts on top of each other.
fn processes(out: &mut String, loads: &[Load]) {
    let top = loads.iter().map(sum).max().unwrap_or_default();
    let unit = Unit::of(top);
    let ceiling = unit.ceiling(top);
    for tick in 0..=4u8 {
        let share = f64::from(tick) / 4.0;
        let y = BOTTOM - share * (BOTTOM - TOP);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#d0d0d0\"/>",
            WIDTH - RIGHT
        );
        text(
            out,
            (LEFT - 6.0, y + 4.0),
            "end",
            12,
            &short(ceiling * share),
        );
    }
    let middle = f64::midpoint(TOP, BOTTOM);
    let _ = writeln!(
        out,
        "<text transform=\"translate(20 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{} of a process</text>",
        unit.name
    );
    for (number, (name, colour)) in SERIES.iter().enumerate() {
        let x = LEFT + 120.0 * float(number);
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"40\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
        );
        text(out, (x + 17.0, 50.0), "start", 12, name);
    }
    let scale = (BOTTOM - TOP) / (ceiling * unit.bytes);
    if loads.len() <= BARS_MAX {
        bars(out, loads, scale);
    } else {
        area(out, loads, scale);
    }
    let axis = match loads.len() {
        0..=BARS_MAX => "process, most bytes first",
        _ => "processes in the order of their bytes, most first",
    };
    text(
        out,
        (f64::midpoint(LEFT, WIDTH - RIGHT), BOTTOM + 44.0),
        "middle",
        12,
        axis,
    );
}

fn bars(out: &mut String, loads: &[Load], scale: f64) {
    let step = (WIDTH - LEFT - RIGHT) / float(loads.len().max(1));
    let every = loads.len().div_ceil(MARKS_MAX).max(1);
    for (place, load) in loads.iter().enumerate() {
        let x = LEFT + step * (float(place) + 0.1);
        let mut y = BOTTOM;
        for ((name, colour), bytes) in SERIES.iter().zip(parts(load)) {
            let height = real(bytes) * scale;
            y -= height;
            let _ = writeln!(
                out,
                "<rect class=\"process\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{height:.1}\" \
                 fill=\"{colour}\"><title>process {}: {} {name}</title></rect>",
                step * 0.8,
                load.process,
                written(bytes)
            );
        }
        if place.is_multiple_of(every) {
            let at = (LEFT + step * (float(place) + 0.5), BOTTOM + 18.0);
            text(out, at, "middle", 12, &load.process.to_string());
        }
    }
}

fn area(out: &mut String, loads: &[Load], scale: f64) {
    let step = loads.len().div_ceil(POINTS_MAX).max(1);
    let mut places: Vec<usize> = (0..loads.len()).step_by(step).collect();
    places.push(loads.len() - 1);
    let last = float(loads.len().max(2) - 1);
    let x = |place: usize| LEFT + (WIDTH - LEFT - RIGHT) * float(place) / last;
    let height = |place: usize, parts_of: usize| {
        let bytes: u64 = parts(&loads[place])[..parts_of].iter().sum();
        BOTTOM - real(bytes) * scale
    };
    for (number, (name, colour)) in SERIES.iter().enumerate() {
        let upper = places
            .iter()
            .map(|place| (x(*place), height(*place, number + 1)));
        let lower = places
            .iter()
            .rev()
            .map(|place| (x(*place), height(*place, number)));
        let points: Vec<String> = upper
            .chain(lower)
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            out,
            "<polygon class=\"processes\" points=\"{}\" fill=\"{colour}\"><title>{name}</title></polygon>",
            points.join(" ")
        );
    }
    for tick in 0..=4usize {
        let place = (loads.len() - 1) * tick / 4;
        text(
            out,
            (x(place), BOTTOM + 18.0),
            "middle",
            12,
            &(place + 1).to_string(),
        );
    }
}

fn parts(load: &Load) -> [u64; 3] {
    [load.read, load.received, load.written]
}

/// What travels from node to node, by rows and columns of so many nodes each.
struct Fields {
    nodes: u32,
    /// Nodes of a row.
    width: u32,
    bytes: BTreeMap<(u32, u32), u64>,
}

impl Fields {
    /// None where nothing travels, or there is one node only.
    fn of(simulated: &Simulated) -> Option<Fields> {
        let nodes = simulated.nodes;
        let width = nodes.div_ceil(FIELDS_MAX).max(1);
        let mut bytes = BTreeMap::new();
        for ((from, to), sent) in &simulated.between {
            *bytes.entry((from / width, to / width)).or_insert(0) += sent;
        }
        (nodes > 1 && !bytes.is_empty()).then_some(Fields {
            nodes,
            width,
            bytes,
        })
    }

    fn draw(&self, out: &mut String) {
        let rows = self.nodes.div_ceil(self.width);
        let side = SIDE / f64::from(rows);
        let most = self.bytes.values().copied().max().unwrap_or_default();
        let title = match self.width {
            1 => {
                "bytes from node to node (on the diagonal: between processes of a node)".to_owned()
            }
            width => format!("bytes from node to node, {width} neighbours in a field"),
        };
        text(out, (LEFT, NODES_TOP - 56.0), "start", 16, &title);
        for row in 0..rows {
            for column in 0..rows {
                let bytes = self.bytes.get(&(row, column)).copied().unwrap_or_default();
                self.field(out, (row, column), side, bytes, most);
            }
        }
        let every = rows.div_ceil(16).max(1);
        let step = usize::try_from(every).unwrap_or(1);
        for node in (0..rows).step_by(step) {
            let middle = side * (f64::from(node) + 0.5);
            let name = self.name(node);
            // Across there is room for the first of several only.
            let first = (node * self.width).to_string();
            text(out, (LEFT + middle, NODES_TOP - 8.0), "middle", 12, &first);
            text(
                out,
                (LEFT - 8.0, NODES_TOP + middle + 4.0),
                "end",
                12,
                &name,
            );
        }
        text(
            out,
            (LEFT + SIDE / 2.0, NODES_TOP - 28.0),
            "middle",
            12,
            "to node",
        );
        let _ = writeln!(
            out,
            "<text transform=\"translate(20 {:.1}) rotate(-90)\" text-anchor=\"middle\">from node</text>",
            NODES_TOP + SIDE / 2.0
        );
        self.scale(out, most);
    }

    fn field(&self, out: &mut String, (row, column): (u32, u32), side: f64, bytes: u64, most: u64) {
        let share = real(bytes) / real(most.max(1));
        let (x, y) = (
            LEFT + side * f64::from(column),
            NODES_TOP + side * f64::from(row),
        );
        let _ = writeln!(
            out,
            "<rect class=\"field\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" fill=\"{}\" \
             stroke=\"#e4e4e4\"><title>{} to {}: {}</title></rect>",
            colour(share),
            self.name(row),
            self.name(column),
            written(bytes)
        );
        if self.nodes.div_ceil(self.width) <= NUMBERED_MAX && bytes > 0 {
            let ink = if share > 0.6 { "#ffffff" } else { "#202020" };
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\" fill=\"{ink}\">{}</text>",
                x + side / 2.0,
                y + side / 2.0 + 4.0,
                written(bytes)
            );
        }
    }

    /// The colours, and what they stand for.
    fn scale(&self, out: &mut String, most: u64) {
        let x = LEFT + SIDE + 40.0;
        for step in 0..=20u8 {
            let share = f64::from(step) / 20.0;
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"18\" height=\"10.5\" fill=\"{}\"/>",
                NODES_TOP + 200.0 - 10.0 * f64::from(step),
                colour(share)
            );
        }
        text(
            out,
            (x + 26.0, NODES_TOP + 10.0),
            "start",
            12,
            &written(most),
        );
        text(out, (x + 26.0, NODES_TOP + 210.0), "start", 12, "0");
    }

    fn name(&self, row: u32) -> String {
        let first = row * self.width;
        let last = (first + self.width).min(self.nodes) - 1;
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    }
}

/// From white to blue.
fn colour(share: f64) -> String {
    let mixed = |from: f64, to: f64| from + (to - from) * share;
    format!(
        "rgb({:.0},{:.0},{:.0})",
        mixed(255.0, 36.0),
        mixed(255.0, 78.0),
        mixed(255.0, 148.0)
    )
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, size: u8, words: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{}</text>",
        escape(words)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulated(processes: u32, nodes: u32) -> Simulated {
        let mut simulated = Simulated::default();
        (
            simulated.processes,
            simulated.processes_planned,
            simulated.nodes,
        ) = (processes, processes, nodes);
        simulated.loads = (0..processes)
            .map(|process| Load {
                process,
                read: u64::from(process) * 1_000_000,
                received: 500,
                written: 2_000_000,
            })
            .collect();
        simulated.between = (0..nodes)
            .map(|node| ((node, (node + 1) % nodes), 3_000_000))
            .collect();
        simulated
    }

    #[test]
    fn all_processes_are_drawn_and_who_sends_to_whom() {
        let few = drawn(&simulated(8, 4));
        assert_eq!(few.matches("class=\"process\"").count(), 24);
        assert_eq!(few.matches("class=\"field\"").count(), 16);
        for words in [
            "MB of a process",
            "process, most bytes first",
            "from node",
            "to node",
            ">3 MB<",
        ] {
            assert!(few.contains(words), "{words}: {few}");
        }
        let most = few.find("process 7: ").zip(few.find("process 0: "));
        assert!(most.is_some_and(|(seven, zero)| seven < zero), "{few}");
        let many = drawn(&simulated(2000, 250));
        assert_eq!(many.matches("class=\"processes\"").count(), 3);
        assert!(many.contains(">2000<") && many.contains("neighbours in a field"));
        assert!(many.matches("class=\"field\"").count() <= 48 * 48 && !many.contains("NaN"));
        let one = drawn(&simulated(4, 1));
        assert!(!one.contains("to node"), "{one}");
    }
}
