//! What rows tell of a machine, in the form that `--machine` takes.
//!
//! A figure needs rows of enough bytes, or, for what a round costs, of few: what was measured with others says
//! nothing of it, and the figure is left out and told of.

use crate::exchange::{Topology, World};
use crate::measure::bench::{Measured, Row, Unmeasured};
use crate::measure::pairs::Pairs;
use crate::measure::storage::ONE_FILE;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Least bytes of a message, or of what a process sends to all, that tell of a network's rate.
pub(super) const MESSAGE_BYTES_MIN: u64 = 1 << 20;
/// Least bytes that a node's processes write or read in one time, which tell of a disk's rate.
const FILES_BYTES_MIN: u64 = 16 << 20;
/// Most bytes that a process sends to all in what tells of what a round costs whatever it carries.
const EMPTY_BYTES_MAX: u64 = 4 << 10;

/// A figure; none where nothing of it was measured, or why what was doesn't tell it.
type Figure = Result<Option<f64>, String>;

impl Measured {
    /// Rows of a bench, and what they tell of the machine; it is well if no byte is wrong. Local.
    #[must_use]
    pub fn new(
        bench: &'static str,
        world: &World,
        topology: &Topology,
        rows: Vec<Row>,
        pairs: Option<Pairs>,
    ) -> Self {
        let verdict: Vec<String> = rows.iter().filter_map(Row::complaint).collect();
        let (machine, unmeasured) = machine(&rows, pairs.as_ref(), topology);
        Measured {
            ok: verdict.is_empty(),
            bench,
            processes: world.size(),
            nodes: nodes(topology),
            library: World::library(),
            mpi_threads: World::threads().name(),
            rows,
            pairs,
            verdict,
            machine,
            unmeasured,
            ..Measured::default()
        }
    }
}

/// The fastest of an operation's rows, in 10^9 bytes a second, if it was measured with enough bytes on each of `nodes`.
pub(super) fn fastest(rows: &[Row], operation: &str, nodes: u32) -> Figure {
    let of_it = || rows.iter().filter(|row| row.operation == operation);
    let Some(all) = of_it().map(|row| row.processes).max() else {
        return Ok(None);
    };
    if of_it().all(|row| row.cached) {
        return Err(format!("{operation}: what was read was still in memory"));
    }
    let (least, of) = match of_it().any(|row| row.stored) {
        true => (FILES_BYTES_MIN, "by the processes of a node"),
        false => (MESSAGE_BYTES_MIN, "in a message"),
    };
    let enough = |row: &&Row| match row.stored {
        true => row.moved_bytes / u64::from(nodes.max(1)) >= least,
        false => row.bytes >= least,
    };
    // Fewer processes need not be on all nodes.
    let large = of_it().filter(|row| row.processes == all).filter(enough);
    let rate = large.filter_map(|row| row.bus_gbps).fold(0.0, f64::max);
    if rate > 0.0 {
        return Ok(Some(rate));
    }
    let mut measured = of_it().filter_map(|row| row.bus_gbps);
    match measured.any(|rate| rate > 0.0) {
        true => Err(format!(
            "{operation} was not measured with {least} bytes {of}"
        )),
        false => Ok(None),
    }
}

fn nodes(topology: &Topology) -> u32 {
    u32::try_from(topology.nodes.len()).unwrap_or(u32::MAX)
}

/// A node's network and disks, what a round costs, and how many processes a node has; and what of it the rows
/// don't tell, though something of it was measured.
fn machine(
    rows: &[Row],
    pairs: Option<&Pairs>,
    topology: &Topology,
) -> (BTreeMap<&'static str, Value>, Vec<Unmeasured>) {
    let most = topology.nodes.iter().map(Vec::len).max().unwrap_or(1);
    let mut machine = BTreeMap::from([("ranks_per_node", json!(most))]);
    let mut unmeasured = Vec::new();
    let nodes = nodes(topology);
    // What all nodes do together with storage that they share isn't what each does.
    let shared = nodes > 1
        && rows
            .iter()
            .any(|row| row.variant.as_deref() == Some(ONE_FILE));
    let disk = |operation| match shared {
        true => Ok(alone(rows, operation)),
        false => {
            let all = fastest(rows, operation, nodes)?;
            Ok(all.map(|rate| rate / f64::from(nodes.max(1))))
        }
    };
    let together = |operation| match shared {
        true => fastest(rows, operation, nodes),
        false => Ok(None),
    };
    // Where a file system drops nothing from memory, what was read past it tells.
    let past_memory = |why| match disk("read direct") {
        Ok(Some(rate)) => Ok(Some(rate)),
        _ => Err(why),
    };
    for (field, figure) in [
        ("network_gbps", network(rows, pairs, nodes)),
        ("latency_us", latency(rows)),
        ("disk_write_gbps", disk("write and flush")),
        ("disk_read_gbps", disk("read cold").or_else(past_memory)),
        ("shared_write_gbps", together("write and flush")),
        ("shared_read_gbps", together("read cold")),
    ] {
        match figure {
            Ok(Some(value)) => {
                machine.insert(field, json!(value));
            }
            Ok(None) => {}
            Err(why) => unmeasured.push(Unmeasured {
                operation: format!("machine.{field}"),
                why,
            }),
        }
    }
    (machine, unmeasured)
}

/// The slowest node's rate of an operation that each did alone, in 10^9 bytes a second.
fn alone(rows: &[Row], operation: &str) -> Option<f64> {
    let of_it = rows.iter().filter(|row| row.operation == operation);
    let of_it =
        of_it.filter(|row| row.node.is_some() && row.moved_bytes >= FILES_BYTES_MIN && !row.cached);
    of_it.filter_map(|row| row.bus_gbps).min_by(f64::total_cmp)
}

/// All-to-alls of ours among all processes.
fn exchanges(rows: &[Row]) -> impl Iterator<Item = &Row> + Clone {
    let of_it =
        |row: &&Row| row.processes > 1 && row.by == "shardloom" && row.operation == "all_to_all";
    let ours = rows.iter().filter(of_it);
    let most = ours.clone().map(|row| row.processes).max();
    ours.filter(move |row| Some(row.processes) == most)
}

/// What a node's network carries each way, in 10^9 bytes a second.
fn network(rows: &[Row], pairs: Option<&Pairs>, nodes: u32) -> Figure {
    let many = fastest(rows, "many_pairs", nodes);
    let large = exchanges(rows).filter(|row| row.bytes >= MESSAGE_BYTES_MIN);
    let large = large.max_by_key(|row| row.bytes);
    if nodes < 2 {
        return match matches!(many, Ok(None)) && exchanges(rows).next().is_none() {
            true => Ok(None),
            false => Err("all processes are on one node: nothing goes through a network".into()),
        };
    }
    // What nodes carry while all do, where that was asked for.
    let usual = pairs.filter(|pairs| !pairs.processes && pairs.bytes >= MESSAGE_BYTES_MIN);
    let usual = usual.map(|pairs| pairs.usual_gbps);
    let between = match usual.filter(|usual| *usual > 0.0) {
        Some(usual) => Ok(Some(usual)),
        // Half of the nodes send to the other half.
        None => many.map(|many| many.map(|rate| rate / f64::from((nodes / 2).max(1)))),
    };
    // What all send to all at a time may be less than what pairs do.
    let exchanged = large.map(|row| {
        let away = 1.0 - 1.0 / f64::from(nodes);
        row.algorithm_gbps * f64::from(row.processes) / f64::from(nodes) * away
    });
    match (between, exchanged) {
        (Ok(Some(between)), Some(exchanged)) => Ok(Some(between.min(exchanged))),
        (_, Some(exchanged)) => Ok(Some(exchanged)),
        (Ok(None), None) if exchanges(rows).next().is_some() => Err(format!(
            "all_to_all was not measured with {MESSAGE_BYTES_MIN} bytes of a process"
        )),
        (between, None) => between,
    }
}

/// What a round costs whatever it carries, in millionths of a second.
fn latency(rows: &[Row]) -> Figure {
    let Some(smallest) = exchanges(rows).min_by_key(|row| row.bytes) else {
        return Ok(None);
    };
    match smallest.bytes <= EMPTY_BYTES_MAX {
        true => Ok(Some(smallest.seconds.median * 1e6)),
        false => Err(format!(
            "all_to_all was not measured with {EMPTY_BYTES_MAX} bytes of a process or fewer"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sampling::Seconds;

    fn row(operation: &str, bytes: u64, gbps: f64) -> Row {
        Row {
            operation: operation.into(),
            by: "shardloom",
            bytes,
            processes: 4,
            seconds: Seconds {
                median: 1e-5,
                ..Seconds::default()
            },
            algorithm_gbps: gbps,
            bus_gbps: Some(gbps),
            ..Row::default()
        }
    }

    fn stored(operation: &str, moved_bytes: u64, gbps: f64) -> Row {
        Row {
            stored: true,
            moved_bytes,
            ..row(operation, 1 << 20, gbps)
        }
    }

    /// What rows on so many nodes tell, and what they don't.
    fn told(rows: &[Row], pairs: Option<&Pairs>, nodes: u32) -> (Value, Vec<String>) {
        let node_of: Vec<u32> = (0..4).map(|process| process * nodes / 4).collect();
        let members = |node| (0..4).filter(|p| node_of[*p as usize] == node).collect();
        let topology = Topology {
            nodes: (0..nodes).map(members).collect(),
            hostnames: (0..nodes).map(|node| node.to_string()).collect(),
            node_of,
        };
        let (machine, unmeasured) = machine(rows, pairs, &topology);
        let unmeasured = unmeasured.into_iter().map(|left| left.operation).collect();
        (json!(machine), unmeasured)
    }

    #[test]
    fn tells_no_rate_by_rows_of_few_bytes() {
        let files = [
            stored("write and flush", 4 << 20, 1.0),
            stored("read cold", 4 << 20, 1.0),
        ];
        let few = [
            &[row("many_pairs", 8, 0.001), row("all_to_all", 8, 0.001)],
            &files[..],
        ]
        .concat();
        let slow = Pairs {
            bytes: 8,
            usual_gbps: 0.001,
            ..Pairs::default()
        };
        let (machine, left) = told(&few, Some(&slow), 2);
        assert_eq!(machine, json!({"ranks_per_node": 2, "latency_us": 10.0}));
        let rates = ["network_gbps", "disk_write_gbps", "disk_read_gbps"];
        assert_eq!(left, rates.map(|field| format!("machine.{field}")));
        let large = [
            row("many_pairs", 8, 9.0),
            row("many_pairs", 1 << 20, 3.0),
            stored("write and flush", 32 << 20, 1.0),
            stored("read cold", 64 << 20, 2.0),
        ];
        // What is still in memory tells nothing of disks.
        let cached = |mut row: Row| {
            row.cached = true;
            row
        };
        let kept = [cached(stored("read cold", 64 << 20, 9.0))];
        assert_eq!(told(&kept, None, 1).1, ["machine.disk_read_gbps"]);
        let past = [kept[0].clone(), stored("read direct", 64 << 20, 2.0)];
        assert_eq!(told(&past, None, 1).0["disk_read_gbps"], 2.0);
        let (machine, left) = told(&large, Some(&slow), 2);
        assert_eq!(machine["network_gbps"], 3.0);
        assert_eq!(machine["disk_write_gbps"], 0.5);
        assert_eq!(machine["disk_read_gbps"], 1.0);
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn storage_that_nodes_share_is_told_apart_from_what_a_node_does() {
        let of = |node: Option<&str>, operation, gbps| Row {
            node: node.map(str::to_owned),
            variant: Some(ONE_FILE.into()),
            processes: if node.is_some() { 2 } else { 4 },
            ..stored(operation, 64 << 20, gbps)
        };
        let rows = [
            of(None, "write and flush", 3.0),
            of(Some("a"), "write and flush", 2.5),
            of(Some("b"), "write and flush", 2.0),
            of(None, "read cold", 6.0),
            of(Some("a"), "read cold", 4.0),
            of(Some("b"), "read cold", 5.0),
        ];
        let (machine, left) = told(&rows, None, 2);
        assert_eq!(
            machine,
            json!({
                "ranks_per_node": 2, "disk_write_gbps": 2.0, "disk_read_gbps": 4.0,
                "shared_write_gbps": 3.0, "shared_read_gbps": 6.0
            })
        );
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn tells_no_latency_by_large_rows_and_no_network_of_one_node() {
        let large = [row("all_to_all", 1 << 20, 2.0)];
        let (machine, left) = told(&large, None, 4);
        assert_eq!(machine, json!({"ranks_per_node": 1, "network_gbps": 1.5}));
        assert_eq!(left, ["machine.latency_us"]);
        let (machine, left) = told(&[row("many_pairs", 1 << 20, 2.0)], None, 1);
        assert_eq!(machine, json!({"ranks_per_node": 4}));
        assert_eq!(left, ["machine.network_gbps"]);
        let (_, left) = told(&[row("barrier", 0, 0.0)], None, 1);
        assert!(left.is_empty(), "{left:?}");
    }
}
