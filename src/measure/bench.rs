//! What a measurement is: rows of times and rates.

use crate::exchange::{World, all_gather};
use crate::fault::Result;
use crate::fault::plain::counted;
use crate::measure::contents::Wrong;
use crate::measure::pairs::Pairs;
use crate::measure::sampling::{Seconds, Timing, rate};
use serde::Serialize;
use std::collections::BTreeMap;

pub use crate::measure::contents::Wrong as WrongByte;
pub use crate::measure::sampling::Repeat;

/// Times and rates of one operation at one size.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// What was done.
    pub operation: String,
    /// What tells it from others of the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The node that did it alone, while the others waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Who did it: `shardloom`, by the primitives that jobs use, or `library`, by the MPI library's own
    /// call.
    pub by: &'static str,
    /// Bytes of a call or message.
    pub bytes: u64,
    /// Processes that took part.
    pub processes: u32,
    /// How often it was measured.
    pub iterations: u32,
    /// Seconds over the iterations, each as long as its slowest process took.
    pub seconds: Seconds,
    /// Seconds over the processes, each with its mean.
    pub processes_seconds: Seconds,
    /// 10^9 bytes a second as the caller sees them, at the median.
    pub algorithm_gbps: f64,
    /// 10^9 bytes a second that really travel, or go to and from files; none between processes where there
    /// is one, as nothing travels.
    pub bus_gbps: Option<f64>,
    /// Bytes that all processes move in one time.
    #[serde(skip)]
    pub moved_bytes: u64,
    /// Whether they go to files or come from there.
    #[serde(skip)]
    pub stored: bool,
    /// Whether they come from memory, though they were to come from disks.
    #[serde(skip)]
    pub cached: bool,
    /// Messages a second, of all processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<f64>,
    /// Files a second, of all processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations_per_second: Option<f64>,
    /// How much of the exchange is hidden behind work, in hundredths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap_percent: Option<f64>,
    /// For a reshard: its rate over that of plain copying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_copy: Option<f64>,
    /// Bytes that were not what was sent.
    pub wrong_bytes: u64,
    /// The first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<Wrong>,
}

impl Row {
    /// A row that says how long something took, and the rate of `moved` bytes, of which `travel` times
    /// as much really travels.
    pub(super) fn new(operation: &str, bytes: u64, timing: Timing, moved: u64, travel: f64) -> Row {
        let algorithm_gbps = rate(moved, timing.seconds.median);
        Row {
            operation: operation.to_owned(),
            by: "shardloom",
            bytes,
            iterations: timing.iterations,
            seconds: timing.seconds,
            processes_seconds: timing.processes,
            algorithm_gbps,
            bus_gbps: Some(algorithm_gbps * travel),
            moved_bytes: moved,
            ..Row::default()
        }
    }

    /// The operation's name and variant, and the node that did it alone.
    #[must_use]
    pub fn title(&self) -> String {
        let node = self.node.as_ref().map(|node| format!("{node} alone"));
        let more: Vec<String> = self.variant.iter().cloned().chain(node).collect();
        match more.is_empty() {
            true => self.operation.clone(),
            false => format!("{} ({})", self.operation, more.join(", ")),
        }
    }

    /// All that tells it from other rows, in words.
    #[must_use]
    pub fn label(&self) -> String {
        let size = match self.bytes {
            0 => String::new(),
            bytes => format!(" of {bytes} bytes"),
        };
        let by = match self.by {
            "library" => " by the MPI library",
            _ => "",
        };
        let processes = counted(self.processes.into(), "process");
        format!("{}{size}{by}, {processes}", self.title())
    }

    /// What is wrong, in words.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let wrong = self.wrong.as_ref()?;
        let from = match wrong.sender {
            Some(sender) => format!("in what process {sender} has sent it"),
            None if self.operation.starts_with("read") => "in its file".to_owned(),
            None => "in sums".to_owned(),
        };
        Some(format!(
            "{}: {}; process {} has the first {from}, at {}",
            self.label(),
            counted(self.wrong_bytes, "wrong byte"),
            wrong.receiver,
            wrong.index
        ))
    }
}

/// What could not be measured, and why.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Unmeasured {
    /// The operation.
    pub operation: String,
    /// Why.
    pub why: String,
}

/// What travels.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Traveled {
    /// Bytes that leave their process, all together.
    pub sent: u64,
    /// Least that must be sent between nodes.
    pub sent_lower_bound: u64,
    /// What the busiest process sends or receives.
    pub busiest_process: u64,
    /// Rounds.
    pub rounds: u64,
    /// Most partners of a process.
    pub partners_max: u64,
    /// Nodes of the plan.
    pub nodes: u32,
    /// Seconds that the busiest process's bytes need at the rate of a pair among many.
    pub seconds_lower_bound: f64,
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Measured {
    /// Whether all contents were right, and nothing was slower than it may be.
    pub ok: bool,
    /// Which bench.
    pub bench: &'static str,
    /// Processes that took part.
    pub processes: u32,
    /// Nodes they are on.
    pub nodes: u32,
    /// The MPI library.
    pub library: String,
    /// What it was told of this program's threads: `single` or `funneled`.
    pub mpi_threads: &'static str,
    /// The rows.
    pub rows: Vec<Row>,
    /// Rates between nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<Pairs>,
    /// Seconds of all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// For an exchange: what travels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Traveled>,
    /// What could not be measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unmeasured: Vec<Unmeasured>,
    /// Rows that are slower than in an earlier result.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slower: Vec<String>,
    /// Rows that were compared with an earlier result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared: Option<u64>,
    /// Rows of an earlier result that none was compared with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<String>,
    /// What is wrong, slow or worth knowing, in words.
    pub verdict: Vec<String>,
    /// What was found out about a node, in the form that `--machine` takes.
    pub machine: BTreeMap<&'static str, serde_json::Value>,
}

/// The wrong bytes of all processes together, and the first process's. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn all_wrong(world: &World, mine: Option<&Wrong>) -> Result<(u64, Option<Wrong>)> {
    let mut count = [mine.map_or(0, |wrong| wrong.count)];
    crate::exchange::all_reduce(world, &mut count, crate::exchange::Operation::Sum)?;
    if count[0] == 0 {
        return Ok((0, None));
    }
    let all = all_gather(world, &mine.cloned())?;
    Ok((count[0], all.into_iter().flatten().next()))
}
