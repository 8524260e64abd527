//! What a cluster's nodes can do, as its user describes it.

use crate::fault::{Fault, Kind, Result};
use serde::{Deserialize, Serialize};

/// What a node can do, in 10^9 bytes a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    /// Read by a node, from its disks or from storage that nodes share.
    pub disk_read_gbps: f64,
    /// Written by a node, to its disks or to storage that nodes share.
    pub disk_write_gbps: f64,
    /// Read from storage that nodes share by all of them together.
    pub shared_read_gbps: f64,
    /// Written to storage that nodes share by all of them together.
    pub shared_write_gbps: f64,
    /// Through a node's network, each way.
    pub network_gbps: f64,
    /// Processes of a node, unless the command line says.
    pub ranks_per_node: u32,
    /// What a round costs whatever it carries, in millionths of a second.
    pub latency_us: f64,
}

/// What a bench has found out about one.
#[derive(Deserialize)]
struct Measured {
    machine: Machine,
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            disk_read_gbps: 6.0,
            disk_write_gbps: 3.0,
            shared_read_gbps: 10.0,
            shared_write_gbps: 5.0,
            network_gbps: 25.0,
            ranks_per_node: 8,
            latency_us: 50.0,
        }
    }
}

impl Machine {
    /// Reads a description: a JSON object of these fields, all of which may be left out, or a result
    /// of `bench`, which has one inside.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for what is no such description or has a rate of 0.
    pub fn parse(text: &[u8]) -> Result<Machine> {
        let corrupt = |message: String| Fault::new(Kind::Corrupt, message);
        let bad = |error: serde_json::Error| {
            corrupt(format!("is no description of a machine: {error}")).hint(
                "`shardloom simulate --help` shows one, `shardloom bench --help` measures one",
            )
        };
        let result: serde_json::Result<Measured> = serde_json::from_slice(text);
        let machine: Machine = match result {
            Ok(result) => result.machine,
            Err(_) => serde_json::from_slice(text).map_err(bad)?,
        };
        let rates = [
            machine.disk_read_gbps,
            machine.disk_write_gbps,
            machine.shared_read_gbps,
            machine.shared_write_gbps,
            machine.network_gbps,
        ];
        if rates.iter().all(|rate| *rate > 0.0) && machine.latency_us >= 0.0 {
            Ok(machine)
        } else {
            Err(corrupt("a rate must be more than 0".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_of_a_bench_describes_a_machine() {
        let text =
            br#"{"schema": 1, "rows": [], "machine": {"network_gbps": 3.5, "ranks_per_node": 2}}"#;
        let machine = Machine::parse(text).unwrap();
        assert_eq!((machine.network_gbps, machine.ranks_per_node), (3.5, 2));
        assert_eq!(
            Machine::parse(br#"{"network_gbps": 3.5, "ranks_per_node": 2}"#).unwrap(),
            machine
        );
        assert!(Machine::parse(br#"{"machine": {"network_gbps": 0}}"#).is_err());
        assert!(Machine::parse(br#"{"speed": 3}"#).is_err());
    }
}
