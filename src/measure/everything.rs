//! All that can be measured, in a bounded time, with a verdict.

use crate::exchange::{Operation, Topology, World, all_reduce};
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::measure::bench::{Measured, Repeat, Row, Unmeasured};
use crate::measure::collectives::{Question, busiest, collectives};
use crate::measure::found::{MESSAGE_BYTES_MIN, fastest};
use crate::measure::reshard::reshard;
use crate::measure::sampling::is_over;
use crate::measure::storage::{self, Files, storage};
use crate::transport::Observer;
use std::path::Path;
use std::time::{Duration, Instant};

/// Sizes between processes.
const BYTES_MAX: u64 = 8 << 20;
const FACTOR: u64 = 16;
/// Rows of them, about.
const ROWS: u32 = 200;
/// A row is measured at most so long, and at least.
const ROW_TIME: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(500));
/// Kinds of files and calls, and their life.
const FILES: u32 = 6;
/// Bytes of a file for each second of the budget, and the most.
const FILE_BYTES: (u64, u64) = (1 << 20, 128 << 20);
/// Most bytes of the files of a node's processes, and of all.
const FILES_BYTES_MAX: (u64, u64) = (4 << 30, 64 << 30);
/// Where the slowest is this many times the median, something else runs.
const NOISY: f64 = 20.0;

/// Measures everything in about `budget`: with files in `directory`, and in what is left of the time between
/// processes. What there is no time for, and no place, is told. Collective.
///
/// # Errors
/// [`Kind::Memory`], [`Kind::Mpi`].
pub fn everything(
    world: &World,
    directory: &Path,
    budget: Duration,
    observer: &mut Observer<'_>,
) -> Result<Measured> {
    let begun = Instant::now();
    let mut question = Question::new(BYTES_MAX, Repeat::new(1000, 1, budget));
    (question.scaling, question.pairs, question.factor) = (true, true, FACTOR);
    let levels = u32::try_from(question.levels(world.size()).len()).unwrap_or(u32::MAX);
    let row = (budget / 3 / ROWS / levels).clamp(ROW_TIME.0, ROW_TIME.1);
    question.repeat.time = row;
    let bytes = file_bytes(budget, &Topology::discover(world)?);
    let files = Repeat::new(3, 0, budget / 4 / FILES);
    let large = Files {
        bytes,
        count: storage::FILES,
        budget: Some(budget / 3),
    };
    // Files first: how long they take depends on the disks, what is between processes stops when it is told.
    let stored = Some(storage(world, files, directory, large, observer));
    let resharded = match is_over(world, begun, budget / 2)? {
        true => None,
        false => {
            let few = Repeat::new(2, 1, row);
            Some(reshard(world, few, directory, bytes, observer))
        }
    };
    question.budget = Some(left(world, begun, budget)?);
    let mut all = collectives(world, &question, observer)?;
    all.bench = "all";
    let mut told = verdict(&all);
    all.add("storage", stored, &mut told)?;
    all.add("reshard", resharded, &mut told)?;
    told.push(match all.rows.iter().any(|row| row.wrong_bytes > 0) {
        true => "some bytes are not what was sent".to_owned(),
        false => "every byte is what was sent".to_owned(),
    });
    all.verdict.splice(0..0, told);
    all.seconds = Some(begun.elapsed().as_secs_f64());
    Ok(all)
}

/// Bytes of each process's file: what disks can write in the time, and not too many for those that share them. Local.
fn file_bytes(budget: Duration, topology: &Topology) -> u64 {
    let per_second = FILE_BYTES.0.saturating_mul(budget.as_secs().max(1));
    let of_node = FILES_BYTES_MAX.0 / busiest(topology);
    let of_all = FILES_BYTES_MAX.1 / topology.node_of.len().max(1) as u64;
    per_second.min(FILE_BYTES.1).min(of_node).min(of_all)
}

/// What is left of the time for what is measured between processes, and pairs of nodes after that. Collective.
fn left(world: &World, begun: Instant, budget: Duration) -> Result<Duration> {
    let left = budget.saturating_sub(begun.elapsed()) * 3 / 4;
    let mut least = [u64::try_from(left.as_millis()).unwrap_or(u64::MAX)];
    all_reduce(world, &mut least, Operation::Min)?;
    Ok(Duration::from_millis(least[0]))
}

impl Measured {
    /// Adds what another bench has measured; a fault that all have is told. Local.
    fn add(
        &mut self,
        bench: &str,
        other: Option<Result<Measured>>,
        told: &mut Vec<String>,
    ) -> Result<()> {
        let why = match other {
            Some(Ok(other)) => {
                told.extend(verdict(&other));
                self.ok &= other.ok;
                self.rows.extend(other.rows);
                self.verdict.extend(other.verdict);
                self.machine.extend(other.machine);
                self.unmeasured.extend(other.unmeasured);
                return Ok(());
            }
            // A disk that is full or can't be written to says nothing of the rest.
            Some(Err(fault)) if fault.kind != Kind::Mpi => reason(&fault),
            Some(Err(fault)) => return Err(fault),
            None => "no time is left".to_owned(),
        };
        let operation = bench.to_owned();
        self.unmeasured.push(Unmeasured { operation, why });
        Ok(())
    }
}

fn reason(fault: &Fault) -> String {
    match &fault.file {
        Some(file) => format!("{file}: {}", fault.message),
        None => fault.message.clone(),
    }
}

/// What the rows come to, in words.
fn verdict(measured: &Measured) -> Vec<String> {
    let rows = &measured.rows;
    let mut told = Vec::new();
    let of = |operation: &'static str, by: &'static str| {
        rows.iter()
            .filter(move |row| row.operation == operation && row.by == by)
    };
    if let Some(row) = of("latency", "library").min_by_key(|row| row.bytes) {
        let latency = row.seconds.median * 1e6;
        told.push(format!(
            "a message takes {latency:.1} us between the first process and the last"
        ));
    }
    for (operation, words) in [
        ("one_way", "one way between the first process and the last"),
        ("many_pairs", "by as many pairs as there are, together"),
        ("all_to_all", "by each process in an all-to-all"),
        ("write and flush", "written and flushed by all"),
        ("read cold", "read by all from what was dropped from memory"),
    ] {
        if let Ok(Some(fastest)) = fastest(rows, operation, measured.nodes) {
            let fastest = match fastest < 0.1 {
                true => format!("{:.2} MB/s", fastest * 1e3),
                false => format!("{fastest:.2} GB/s"),
            };
            told.push(format!("{fastest} {words}"));
        }
    }
    let largest = |by| {
        let rows = of("all_to_all", by).filter(|row| row.processes == measured.processes);
        let rows = rows.filter(|row| row.bytes >= MESSAGE_BYTES_MIN);
        rows.max_by_key(|row| row.bytes)
    };
    if let (Some(ours), Some(theirs)) = (largest("shardloom"), largest("library")) {
        let times = ours.seconds.median / theirs.seconds.median.max(f64::MIN_POSITIVE);
        told.push(format!(
            "the largest all-to-all takes {times:.2} times as long as by the MPI library alone"
        ));
    }
    for row in rows.iter().filter(|row| row.ratio_to_copy.is_some()) {
        let ratio = row.ratio_to_copy.unwrap_or_default();
        told.push(format!("{}: {ratio:.2} of plain copying", row.title()));
    }
    let noisy = |row: &&Row| row.seconds.p99 > NOISY * row.seconds.median;
    let noisy = rows.iter().filter(noisy).count();
    if noisy * 10 > rows.len() {
        told.push(format!(
            "{} of {} now and then take {NOISY} times their median: something else runs on these cores",
            noisy,
            counted(rows.len() as u64, "row")
        ));
    }
    match &measured.pairs {
        Some(pairs) if pairs.outliers.is_empty() && !pairs.shares_cores => {
            told.push("no node and no path between two is slow".to_owned());
        }
        _ => {}
    }
    told
}
