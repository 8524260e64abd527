//! What a measurement is: rows of times and rates.

use crate::exchange::{Operation, World, all_reduce, barrier};
use crate::fault::{Fault, Kind, Result};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How often something is measured.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Repeat {
    /// How often it is measured.
    pub iterations: u32,
    /// How often it is done before.
    pub warmup: u32,
}

/// Times and rates of one operation at one size.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// What was done.
    pub operation: String,
    /// Bytes of a call or message.
    pub bytes: u64,
    /// Seconds of one iteration: the mean of the fastest process,
    pub seconds_min: f64,
    /// of all,
    pub seconds_avg: f64,
    /// and of the slowest.
    pub seconds_max: f64,
    /// 10^9 bytes a second as the caller sees them.
    pub algbw_gbps: f64,
    /// 10^9 bytes a second that really travel, for each process.
    pub busbw_gbps: f64,
    /// For a reshard: its rate over that of plain copying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_copy: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Measured {
    /// Whether all contents were right.
    pub ok: bool,
    /// Which bench.
    pub bench: &'static str,
    /// Processes that took part.
    pub processes: u32,
    /// How often each row was measured.
    pub iterations: u32,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Measured {
    /// Rows of a bench that found all contents right.
    #[must_use]
    pub fn new(bench: &'static str, world: &World, repeat: Repeat, rows: Vec<Row>) -> Self {
        Measured {
            ok: true,
            bench,
            processes: world.size(),
            iterations: repeat.iterations,
            rows,
        }
    }
}

/// Does `work` as often as asked, all processes starting together; gives the mean seconds of the
/// fastest process, of all, and of the slowest. Collective.
///
/// # Errors
/// Whatever `work` returns.
pub(super) fn time(
    world: &World,
    repeat: Repeat,
    mut work: impl FnMut() -> Result<()>,
) -> Result<[f64; 3]> {
    let mut spent = Duration::ZERO;
    for round in 0..repeat.warmup + repeat.iterations {
        barrier(world)?;
        let start = Instant::now();
        work()?;
        if round >= repeat.warmup {
            spent += start.elapsed();
        }
    }
    spread(world, spent / repeat.iterations.max(1))
}

/// Least, mean and most of every process's `spent`, in seconds. Collective.
///
/// # Errors
/// [`Kind::Mpi`].
pub(super) fn spread(world: &World, spent: Duration) -> Result<[f64; 3]> {
    let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
    let mut result = [0.0; 3];
    let operations = [Operation::Min, Operation::Sum, Operation::Max];
    for (operation, seconds) in operations.into_iter().zip(&mut result) {
        let mut value = [nanos];
        all_reduce(world, &mut value, operation)?;
        *seconds = Duration::from_nanos(value[0]).as_secs_f64();
    }
    result[1] /= f64::from(world.size());
    Ok(result)
}

/// A row of `moved` bytes a process, of which `travel` times as much really moves.
pub(super) fn row(
    operation: String,
    bytes: u64,
    moved: u64,
    travel: f64,
    seconds: [f64; 3],
) -> Row {
    let algbw_gbps = rate(moved, seconds[2]);
    Row {
        operation,
        bytes,
        seconds_min: seconds[0],
        seconds_avg: seconds[1],
        seconds_max: seconds[2],
        algbw_gbps,
        busbw_gbps: algbw_gbps * travel,
        ratio_to_copy: None,
    }
}

/// 10^9 bytes a second.
#[allow(clippy::cast_precision_loss)]
pub(super) fn rate(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        bytes as f64 / seconds / 1e9
    } else {
        0.0
    }
}

/// Fails on every process if any has counted wrong bytes. Collective.
///
/// # Errors
/// [`Kind::Differs`].
pub(super) fn all_right(world: &World, operation: &str, wrong: u64) -> Result<()> {
    let mut sum = [wrong];
    all_reduce(world, &mut sum, Operation::Sum)?;
    if sum[0] == 0 {
        return Ok(());
    }
    let message = format!("{operation}: {} bytes are not what was sent", sum[0]);
    Err(Fault::new(Kind::Differs, message))
}

/// The byte that process `from` sends to `to` at `index`.
pub(super) fn byte(from: u32, to: u32, index: usize) -> u8 {
    let low = |value: u32| value.to_le_bytes()[0];
    low(from)
        .wrapping_mul(31)
        .wrapping_add(low(to).wrapping_mul(17))
        .wrapping_add(index.to_le_bytes()[0])
        .wrapping_add(index.to_le_bytes()[1].wrapping_mul(7))
}
