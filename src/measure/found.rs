//! What rows tell of a machine, in the form that `--machine` takes.

use crate::exchange::Topology;
use crate::measure::bench::Row;
use crate::measure::pairs::Pairs;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Least bytes that a process sends in an all-to-all which tells of a network's rate.
const EXCHANGED_BYTES_MIN: u64 = 1 << 20;

/// A node's network, what a round costs, and how many processes a node has; what the rows don't tell is
/// left out.
pub(super) fn machine(
    rows: &[Row],
    pairs: Option<&Pairs>,
    topology: &Topology,
) -> BTreeMap<&'static str, Value> {
    let mut machine = BTreeMap::new();
    let most = topology.nodes.iter().map(Vec::len).max().unwrap_or(1);
    machine.insert("ranks_per_node", json!(most));
    let nodes = u32::try_from(topology.nodes.len()).unwrap_or(u32::MAX);
    let many = rows.iter().filter(|row| row.operation == "many_pairs");
    let fastest = many.map(|row| row.bus_gbps).fold(0.0, f64::max);
    // What nodes carry while all do, where that was asked for.
    let between = pairs.filter(|pairs| !pairs.processes);
    if let Some(pairs) = between.filter(|pairs| pairs.usual_gbps > 0.0) {
        machine.insert("network_gbps", json!(pairs.usual_gbps));
    } else if fastest > 0.0 {
        // Half of the nodes send to the other half.
        let senders = f64::from((nodes / 2).max(1));
        machine.insert("network_gbps", json!(fastest / senders));
    }
    let several = rows.iter().filter(|row| row.processes > 1);
    let ours = several.filter(|row| row.by == "shardloom");
    let exchanges = ours.filter(|row| row.operation == "all_to_all");
    let most = exchanges.clone().map(|row| row.processes).max();
    // What all send to all at a time may be less than what pairs do.
    let large = exchanges
        .clone()
        .filter(|row| nodes > 1 && Some(row.processes) == most && row.bytes >= EXCHANGED_BYTES_MIN);
    if let Some(row) = large.max_by_key(|row| row.bytes) {
        let away = 1.0 - 1.0 / f64::from(nodes);
        let each = f64::from(row.processes) / f64::from(nodes);
        let exchanged = row.algorithm_gbps * each * away;
        let known = machine.get("network_gbps").and_then(Value::as_f64);
        let least = known.map_or(exchanged, |known| known.min(exchanged));
        machine.insert("network_gbps", json!(least));
    }
    let smallest = exchanges
        .filter(|row| Some(row.processes) == most)
        .min_by_key(|row| row.bytes);
    if let Some(row) = smallest {
        machine.insert("latency_us", json!(row.seconds.median * 1e6));
    }
    for (operation, field) in [
        ("write and flush", "disk_write_gbps"),
        ("read cold", "disk_read_gbps"),
    ] {
        let rates = rows.iter().filter(|row| row.operation == operation);
        let fastest = rates.map(|row| row.bus_gbps).fold(0.0, f64::max);
        if fastest > 0.0 {
            machine.insert(field, json!(fastest / f64::from(nodes.max(1))));
        }
    }
    machine
}
