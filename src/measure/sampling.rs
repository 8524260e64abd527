//! How something is measured: again and again, all together, until it is known well enough.

use crate::exchange::{Library, Operation, World, all_gather, all_reduce};
use crate::fault::Result;
use crate::fault::memory::zeroed;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Iterations before a small spread is believed.
const STEADY_LEAST: usize = 20;
/// Half the width of the median's interval, over the median, at which it is known.
const STEADY_WIDTH: f64 = 0.005;
/// Most iterations between two looks at the clock.
const BATCH_MAX: u32 = 64;
/// What is repeated without a pause takes about this.
const TOGETHER: Duration = Duration::from_micros(200);
/// Most repetitions without a pause.
const TOGETHER_MAX: u64 = 1000;
/// So many times more repetitions are tried next.
const TOGETHER_GROWTH: u64 = 4;
/// More than any last-level cache's share of a process.
const CACHE_BYTES: usize = 64 << 20;

/// How often something is measured.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Repeat {
    /// How often at most.
    pub iterations: u32,
    /// How often it is done before.
    pub warmup: u32,
    /// How long at most.
    pub time: Duration,
    /// Whether caches are emptied before each time.
    pub off_cache: bool,
}

impl Repeat {
    /// So often, or so long.
    #[must_use]
    pub fn new(iterations: u32, warmup: u32, time: Duration) -> Self {
        Repeat {
            iterations: iterations.max(1),
            warmup,
            time,
            off_cache: false,
        }
    }
}

/// The spread of a time, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Seconds {
    /// The shortest.
    pub min: f64,
    /// Half are longer.
    pub median: f64,
    /// The mean.
    pub mean: f64,
    /// One of a hundred is longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Seconds {
    /// The spread of these times.
    #[must_use]
    pub fn of(mut times: Vec<f64>) -> Seconds {
        times.sort_by(f64::total_cmp);
        let at = |hundredths: usize| {
            let index = (times.len().saturating_sub(1) * hundredths).div_ceil(100);
            times.get(index).copied().unwrap_or_default()
        };
        let middle = [(times.len().saturating_sub(1)) / 2, times.len() / 2];
        let middle = middle.map(|index| times.get(index).copied().unwrap_or_default());
        #[allow(clippy::cast_precision_loss, reason = "a number of iterations")]
        let count = times.len().max(1) as f64;
        Seconds {
            min: at(0),
            median: f64::midpoint(middle[0], middle[1]),
            mean: times.iter().sum::<f64>() / count,
            p99: at(99),
            max: at(100),
        }
    }

    /// Each of these times `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Seconds {
        Seconds {
            min: self.min * factor,
            median: self.median * factor,
            mean: self.mean * factor,
            p99: self.p99 * factor,
            max: self.max * factor,
        }
    }
}

/// What was measured: the same on all processes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Timing {
    /// How often.
    pub(super) iterations: u32,
    /// Over the iterations, each as long as its slowest process took.
    pub(super) seconds: Seconds,
    /// Over the processes, each with its mean.
    pub(super) processes: Seconds,
}

/// Something to measure.
pub(super) trait Exercise {
    /// Does it once. Collective.
    fn once(&mut self) -> Result<()>;

    /// Looks at what has come, and forgets it; not measured. Local.
    fn check(&mut self) -> Result<()>;
}

/// Times of the iterations of all processes, in 10^-12 seconds.
#[derive(Default)]
struct Times {
    mine: Vec<u64>,
    slowest: Vec<u64>,
}

/// Does it as often as asked, all starting together: until the number or the time is reached, or the
/// spread is small. With `unpaused`, what is short is done several times in each iteration. Collective.
///
/// # Errors
/// Whatever the exercise returns, [`crate::fault::Kind::Memory`].
pub(super) fn sample(
    world: &World,
    repeat: Repeat,
    unpaused: bool,
    exercise: &mut dyn Exercise,
) -> Result<Timing> {
    let library = Library::of(world);
    let mut cold = match repeat.off_cache {
        true => crate::exchange::agree(world, zeroed(CACHE_BYTES))?,
        false => Vec::new(),
    };
    for _ in 0..repeat.warmup {
        exercise.once()?;
    }
    let together = match unpaused && !repeat.off_cache {
        true => together(world, exercise)?,
        false => 1,
    };
    let (mut times, mut spent, mut batch) = (Times::default(), 0, 1);
    loop {
        let (begun, batch_begun) = (times.mine.len(), Instant::now());
        let most = u64::from(repeat.iterations) - begun as u64;
        for _ in 0..most.min(u64::from(batch)) {
            empty_caches(&mut cold);
            library.barrier()?;
            let start = Instant::now();
            for _ in 0..together {
                exercise.once()?;
            }
            times.mine.push(picoseconds(start.elapsed()) / together);
        }
        // What is done between two times, as emptying caches, takes of the time that a row has, too.
        let batch_spent = picoseconds(batch_begun.elapsed());
        exercise.check()?;
        let mut slowest = times.mine[begun..].to_vec();
        slowest.push(batch_spent);
        all_reduce(world, &mut slowest, Operation::Max)?;
        spent += slowest.pop().unwrap_or_default();
        times.slowest.extend(slowest);
        let enough = times.mine.len() as u64 >= u64::from(repeat.iterations);
        if enough || spent >= picoseconds(repeat.time) || steady(&times.slowest) {
            return timing(world, &times.mine, &times.slowest);
        }
        // No batch takes much longer than what is left.
        let left = picoseconds(repeat.time) - spent;
        let each = spent / times.slowest.len().max(1) as u64;
        let fits = left / each.max(1);
        let fits = u32::try_from(fits).unwrap_or(BATCH_MAX);
        batch = (batch * 2).min(BATCH_MAX).min(fits).max(1);
    }
}

/// How often it can be done in about [`TOGETHER`]. The first times are longer than others, so that it is tried more often
/// until it takes a good part of that. Collective.
fn together(world: &World, exercise: &mut dyn Exercise) -> Result<u64> {
    let mut times = 1;
    loop {
        let start = Instant::now();
        for _ in 0..times {
            exercise.once()?;
        }
        let mut spent = [picoseconds(start.elapsed()).max(1)];
        all_reduce(world, &mut spent, Operation::Max)?;
        let fits = (picoseconds(TOGETHER) * times / spent[0]).clamp(1, TOGETHER_MAX);
        if fits < TOGETHER_GROWTH * times {
            return Ok(fits);
        }
        times *= TOGETHER_GROWTH;
    }
}

/// Whether so much time has passed on any process. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn is_over(world: &World, begun: Instant, most: Duration) -> Result<bool> {
    let mut over = [u64::from(begun.elapsed() >= most)];
    all_reduce(world, &mut over, Operation::Max)?;
    Ok(over[0] > 0)
}

/// The timing of what each process has timed by itself, as often on all. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn timed(world: &World, mine: &[Duration]) -> Result<Timing> {
    let mine: Vec<u64> = mine.iter().map(|time| picoseconds(*time)).collect();
    let mut slowest = mine.clone();
    all_reduce(world, &mut slowest, Operation::Max)?;
    timing(world, &mine, &slowest)
}

fn timing(world: &World, mine: &[u64], slowest: &[u64]) -> Result<Timing> {
    let own = Seconds::of(mine.iter().map(|time| seconds(*time)).collect()).mean;
    Ok(Timing {
        iterations: u32::try_from(mine.len()).unwrap_or(u32::MAX),
        seconds: Seconds::of(slowest.iter().map(|time| seconds(*time)).collect()),
        processes: Seconds::of(all_gather(world, &own)?),
    })
}

/// Whether the median of these times is known well enough.
fn steady(times: &[u64]) -> bool {
    if times.len() < STEADY_LEAST {
        return false;
    }
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |quarters: usize| seconds(sorted[(sorted.len() - 1) * quarters / 4]);
    #[allow(clippy::cast_precision_loss, reason = "a number of iterations")]
    let count = times.len() as f64;
    let width = 1.57 * (at(3) - at(1)) / count.sqrt();
    width <= 2.0 * STEADY_WIDTH * at(2)
}

/// Takes the place of what is in the caches.
fn empty_caches(cold: &mut [u8]) {
    if let Some(first) = cold.first() {
        let value = first.wrapping_add(1);
        cold.fill(value);
        std::hint::black_box(cold);
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

fn picoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().saturating_mul(1000)).unwrap_or(u64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "a time")]
fn seconds(picoseconds: u64) -> f64 {
    picoseconds as f64 / 1e12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_spread_of_times() {
        let spread = Seconds::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((spread.min, spread.max), (1.0, 200.0));
        assert_eq!((spread.median, spread.mean), (100.5, 100.5));
        assert!((198.0..=199.0).contains(&spread.p99), "{spread:?}");
        assert_eq!(Seconds::of(vec![3.0]).p99, 3.0);
        assert_eq!(Seconds::of(Vec::new()), Seconds::default());
    }

    #[test]
    fn stops_early_for_steady_times_alone() {
        let steadily: Vec<u64> = (0..40).map(|n| 1_000_000 + n % 3).collect();
        assert!(steady(&steadily) && !steady(&steadily[..10]));
        let shaky: Vec<u64> = (0..40).map(|n| 1_000_000 * (1 + n % 5)).collect();
        assert!(!steady(&shaky));
    }
}
