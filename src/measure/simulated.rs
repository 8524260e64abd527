//! What a simulation finds.

use crate::job::account::Account;
use crate::plan::machine::Machine;
use serde::Serialize;
use std::collections::BTreeMap;

/// Bytes, over the processes that were planned for.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Bytes {
    /// Read from files for them, by whoever does; of one process alone what it reads itself, about.
    pub read: u64,
    /// Source bytes needed, each counted once a cell.
    pub read_unique: u64,
    /// Sent between processes; with one process, about.
    pub sent: u64,
    /// Least that must be sent between nodes.
    pub sent_lower_bound: u64,
    /// Received by the processes.
    pub received: u64,
    /// Of those, from the same node.
    pub received_same_node: u64,
    /// And from other nodes.
    pub received_other_nodes: u64,
    /// Written to files.
    pub written: u64,
    /// Always 0: nothing is there.
    pub reused: u64,
}

/// Seconds spent here, and what they were spent on.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Seconds {
    /// From start to end.
    pub total: f64,
    /// Reading strategies and shapes.
    pub discover: f64,
    /// The longest that one process's plan took, whatever processes share of it included.
    pub plan: f64,
}

/// The plan in figures.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// Strided copies.
    pub transfers: u64,
    /// Rounds of the exchange: those of the process with most.
    pub rounds: u64,
    /// What the slowest node takes on the machine, and the rounds' latency.
    pub seconds_estimated: f64,
}

/// One process's plan.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ProcessPlan {
    /// The process.
    pub process: u32,
    /// Bytes that it reads from files, for itself and for others that are planned for; of one process alone,
    /// about what it reads for all others.
    pub read: u64,
    /// What others read for it.
    pub received: u64,
    /// What it writes.
    pub written: u64,
    /// How many processes send it something.
    pub partners: u64,
    /// Strided copies.
    pub transfers: u64,
    /// Rounds it needs.
    pub rounds: u64,
    /// Seconds that its plan took to make.
    pub plan_seconds: f64,
}

/// The bytes of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The process.
    pub process: u32,
    /// What it reads from files.
    pub read: u64,
    /// What others read for it.
    pub received: u64,
    /// What it writes.
    pub written: u64,
}

/// The answer.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Simulated {
    /// Processes of the cluster.
    pub processes: u32,
    /// Its nodes.
    pub nodes: u32,
    /// Ranks of the source.
    pub source_ranks: u32,
    /// Ranks of the destination.
    pub destination_ranks: u32,
    /// Tensors with a layout.
    pub tensors: u64,
    /// Processes that were planned for: sums are over these.
    pub processes_planned: u32,
    /// Bytes.
    pub bytes: Bytes,
    /// Largest resident memory of this process, in bytes: files read and plans made.
    pub memory_peak_bytes_max: u64,
    /// Most bytes that a process reads, receives and writes, over the mean.
    pub balance_max_over_mean: f64,
    /// Most partners of a process.
    pub partners_max: u64,
    /// Seconds.
    pub seconds: Seconds,
    /// The plan.
    pub plan: Plan,
    /// The plan by process; at most 64.
    pub per_process: Vec<ProcessPlan>,
    /// What a report tells beside it, if one is asked for.
    #[serde(skip)]
    pub account: Option<Box<Account>>,
    /// The bytes of every process that was planned for, for a picture.
    #[serde(skip)]
    pub loads: Vec<Load>,
    /// Bytes from node to node, those within a node too, for a picture.
    #[serde(skip)]
    pub between: BTreeMap<(u32, u32), u64>,
    /// What a node was taken to do.
    pub machine: Option<Machine>,
}
