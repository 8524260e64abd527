//! What happened: data only, the same for every job.

use crate::job::account::Account;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes moved, over all processes.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Bytes {
    /// Read from files.
    pub read: u64,
    /// Source bytes needed, each counted once.
    pub read_unique: u64,
    /// Sent between processes.
    pub sent: u64,
    /// Least that could have been sent between nodes.
    pub sent_lower_bound: u64,
    /// Written to files.
    pub written: u64,
    /// Found complete from an earlier run.
    pub reused: u64,
}

/// Seconds by phase: the longest of any process.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Seconds {
    /// From start to end.
    pub total: f64,
    /// Looking what is where.
    pub discover: f64,
    /// Planning.
    pub plan: f64,
    /// Reading, exchanging and writing.
    pub exchange: f64,
    /// Creating the files.
    pub write: f64,
    /// Flushing and putting in place.
    pub commit: f64,
}

/// A plan in figures.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct PlanFigures {
    /// Strided copies.
    pub transfers: u64,
    /// Rounds of the exchange.
    pub rounds: u64,
    /// What the slowest node takes on the machine, and the rounds' latency.
    pub seconds_estimated: f64,
}

/// One process's part of a plan.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ProcessFigures {
    /// The process.
    pub process: u32,
    /// Bytes that it reads from files, for itself and for others.
    pub read: u64,
    /// Bytes it gets from others.
    pub received: u64,
    /// Bytes it writes.
    pub written: u64,
}

/// How a tensor of two checkpoints compares.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TensorDifference {
    /// Its name.
    pub name: String,
    /// What B calls it, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_in_b: Option<String>,
    /// `equal`, `differs`, `only_in_a`, `only_in_b`, `shape` or `dtype`.
    pub state: &'static str,
    /// Elements that differ.
    pub elements_differing: u64,
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Largest difference relative to A's element.
    pub max_rel: f64,
    /// What A has under this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<TensorSide>,
    /// What B has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<TensorSide>,
}

/// A tensor on one side of a comparison.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TensorSide {
    /// Its element type, as safetensors spells it.
    pub dtype: &'static str,
    /// Its full shape.
    pub shape: Vec<u64>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BadFile {
    /// Path inside the directory.
    pub file: String,
    /// The tensor, where it is one.
    pub tensor: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

/// A damaged part of a file that was made anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Repaired {
    /// Path inside the directory.
    pub file: String,
    /// The tensor; none for the bytes outside of tensors, or a file without any.
    pub tensor: Option<String>,
    /// The file it was taken from: inside the directory, or with the path of the other one.
    pub from: String,
}

/// What a job did.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// Version of this record.
    pub schema: u32,
    /// The command.
    pub command: String,
    /// Whether it did what was asked.
    pub ok: bool,
    /// Processes of the run.
    pub processes: u32,
    /// Nodes they were on.
    pub nodes: u32,
    /// Tensors written (each counted once, whatever its shards).
    pub tensors: u64,
    /// Files written, inside the destination.
    pub files: Vec<String>,
    /// Source files chosen, inside the source.
    pub source_files: Vec<String>,
    /// Bytes moved.
    pub bytes: Bytes,
    /// Largest resident memory of a process, in bytes.
    pub memory_peak_bytes_max: u64,
    /// Most bytes that a process wrote, over the mean.
    pub balance_max_over_mean: f64,
    /// Seconds by phase.
    pub seconds: Seconds,
    /// Names in a strategy that the files have no data for, by strategy (`source`, `destination`).
    pub names_without_data: BTreeMap<&'static str, Vec<String>>,
    /// Tensors of the source that were left out.
    pub names_dropped: Vec<String>,
    /// What else is to be known of what was read and made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How what the source has several times was compared: `none`, `manifest`, `sample` or `all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_compared: Option<&'static str>,
    /// The plan, for a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanFigures>,
    /// The plan by process, for a dry run; at most 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub per_process: Vec<ProcessFigures>,
    /// For diff: how far elements may be apart and be taken for equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// For diff: how many tensors are told of in the text.
    #[serde(skip)]
    pub lines_max: Option<usize>,
    /// For diff: whether nothing differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equal: Option<bool>,
    /// For diff: the tensors.
    #[serde(rename = "tensor_differences", skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<TensorDifference>,
    /// For verify: files checked, or tensors compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<u64>,
    /// For verify: the part of the files that was checked, as "2/5"; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// For verify: what is wrong; of a repair, what remains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad: Option<Vec<BadFile>>,
    /// What a report tells beside it, on process 0, if one is asked for.
    #[serde(skip)]
    pub account: Option<Box<Account>>,
    /// For a repair: what was made anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Vec<Repaired>>,
}

impl TensorSide {
    /// Whether a distance of its elements is known.
    fn is_measured(&self) -> bool {
        const OTHERS: [&str; 13] = [
            "F16", "BF16", "F32", "F64", "C64", "I8", "I16", "I32", "I64", "U8", "U16", "U32",
            "U64",
        ];
        OTHERS.contains(&self.dtype) || self.dtype.starts_with("F8_")
    }
}

impl Outcome {
    /// Takes tensors whose elements are no further apart than `tolerance` for equal enough: all is well
    /// then, though the rows still say what differs.
    pub(crate) fn within(&mut self, tolerance: Option<f64>) {
        self.tolerance = tolerance;
        let Some(most) = tolerance else { return };
        self.ok = self.differences.iter().all(|row| match row.state {
            "equal" => true,
            // Types that are not compared as numbers tell no distance.
            "differs" => row.max_abs <= most && row.a.as_ref().is_some_and(TensorSide::is_measured),
            _ => false,
        });
    }
}
