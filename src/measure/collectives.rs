//! Bytes between the processes: every operation, at every size, by the primitives that jobs use and by
//! the MPI library's own calls.

use crate::course;
use crate::exchange::{Operation as Joined, Topology, World, agree, all_reduce, barrier};
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::measure::bench::{Measured, Repeat, Row, Unmeasured, all_wrong};
use crate::measure::doctor::memory::usable_bytes;
use crate::measure::operation::{Buffers, By, Call, Operation, Place, fits};
use crate::measure::operations::OPERATIONS;
use crate::measure::pairs::{Pairs, pairs};
use crate::measure::sampling::{Exercise, Timing, sample};
use crate::transport::Observer;
use std::time::{Duration, Instant};

/// Most bytes of a size: rounds carry less than 2^31.
pub const BYTES_MAX: u64 = 1 << 30;
/// The size after nothing.
const BYTES_FIRST: u64 = 8;

/// All pairs are measured as long as so many rows; of a budget, at most this share and so long.
const PAIRS_ROWS: u32 = 20;
const PAIRS_SHARE: u32 = 6;
const PAIRS_TIME: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Question {
    /// The smallest size.
    pub bytes_min: u64,
    /// The largest.
    pub bytes_max: u64,
    /// Each size is so many times the one before.
    pub factor: u64,
    /// Messages in flight.
    pub window: u32,
    /// How often.
    pub repeat: Repeat,
    /// Only these operations; none means all.
    pub operations: Vec<String>,
    /// Whether also over 2, 4, 8 … processes.
    pub scaling: bool,
    /// Whether also every node with every other.
    pub pairs: bool,
    /// How long it may take altogether.
    pub budget: Option<Duration>,
    /// The operation of which a byte is made wrong, for trying the check.
    pub planted: Option<String>,
}

impl Question {
    /// All operations from nothing to `bytes_max`, each size `factor` times the one before.
    #[must_use]
    pub fn new(bytes_max: u64, repeat: Repeat) -> Question {
        Question {
            bytes_min: 0,
            bytes_max,
            factor: 4,
            window: 64,
            repeat,
            operations: Vec::new(),
            scaling: false,
            pairs: false,
            budget: None,
            planted: None,
        }
    }

    /// Sizes in the order in which they are measured: where time is short the least and the most tell more
    /// than what is between them.
    fn sizes(&self) -> Vec<u64> {
        let (mut sizes, mut bytes) = (Vec::new(), self.bytes_min);
        while bytes <= self.bytes_max.min(BYTES_MAX) {
            sizes.push(bytes);
            bytes = match bytes {
                0 => BYTES_FIRST,
                _ => bytes.saturating_mul(self.factor.max(2)),
            };
        }
        if self.budget.is_some() && sizes.len() > 2 {
            let least = usize::from(sizes[0] == 0) + 1;
            sizes[least..].rotate_right(1);
        }
        sizes
    }

    fn asks_for(&self, operation: &Operation) -> bool {
        self.operations.is_empty() || self.operations.iter().any(|name| name == operation.name)
    }

    /// How many processes, the most last.
    pub(super) fn levels(&self, all: u32) -> Vec<u32> {
        let mut levels = Vec::new();
        if self.scaling {
            let powers = std::iter::successors(Some(2_u32), |level| level.checked_mul(2));
            levels.extend(powers.take_while(|level| *level < all));
        }
        levels.push(all);
        levels
    }
}

/// The names of all operations.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
    names.dedup();
    names
}

/// Measures what is asked for. Wrong bytes are told in the rows. Collective.
///
/// # Errors
/// [`Kind::Memory`] for a size that this machine has no memory for, [`Kind::Mpi`].
pub fn collectives(
    world: &World,
    question: &Question,
    observer: &mut Observer<'_>,
) -> Result<Measured> {
    course::phase("measuring messages");
    let topology = Topology::discover(world)?;
    let mut run = Run {
        world,
        question,
        neighbours: busiest(&topology),
        begun: Instant::now(),
        turns: (0, 1),
        told: (0, 0),
        observer,
        rows: Vec::new(),
        unmeasured: Vec::new(),
    };
    let asked = OPERATIONS.iter().filter(|row| question.asks_for(row));
    agree(world, run.have_room(asked.clone()))?;
    let (couples, others): (Vec<_>, Vec<_>) = asked.partition(|operation| operation.pair);
    let levels = question.levels(world.size());
    let turns = couples.len() + others.len() * levels.len();
    run.turns.1 = u32::try_from(turns).unwrap_or(u32::MAX);
    run.told.1 = turns as u64 * question.sizes().iter().sum::<u64>();
    if world.size() < 2 {
        run.leave_out(&couples, "needs two processes");
    } else {
        let last = world.size() - 1;
        run.among(&couples, |process| process == 0 || process == last)?;
    }
    for level in levels {
        let (able, unable): (Vec<_>, Vec<_>) = others
            .iter()
            .partition(|operation| level >= operation.least);
        run.leave_out(&unable, "needs two processes");
        run.among(&able, |process| process < level)?;
    }
    let Run {
        mut rows,
        unmeasured,
        told: (_, whole),
        ..
    } = run;
    observer(whole, whole);
    let place = |row: &Row| {
        let same = |operation: &Operation| operation.name == row.operation;
        OPERATIONS.iter().position(same)
    };
    rows.sort_by_key(|row| (place(row), row.variant.clone(), row.processes, row.bytes));
    let pairs = every_pair(world, &topology, question)?;
    let mut measured = Measured::new("collectives", world, &topology, rows, pairs);
    measured.unmeasured.splice(0..0, unmeasured);
    let told = measured.pairs.iter().flat_map(Pairs::told);
    let told: Vec<String> = told.collect();
    measured.verdict.extend(told);
    if question.pairs && world.size() < 2 {
        measured.unmeasured.push(Unmeasured {
            operation: "pairs".to_owned(),
            why: "needs two processes".to_owned(),
        });
    }
    Ok(measured)
}

/// Every node with every other, if that is asked for and there are several. Collective.
///
/// # Errors
/// As [`pairs`].
fn every_pair(world: &World, topology: &Topology, question: &Question) -> Result<Option<Pairs>> {
    if !question.pairs {
        return Ok(None);
    }
    course::phase("measuring pairs");
    let time = match question.budget {
        Some(budget) => PAIRS_TIME.min(budget / PAIRS_SHARE),
        None => question.repeat.time * PAIRS_ROWS,
    };
    pairs(world, topology, question.bytes_max, time)
}

/// Most processes of a node.
pub(super) fn busiest(topology: &Topology) -> u64 {
    let most = topology.nodes.iter().map(Vec::len).max();
    most.unwrap_or(1) as u64
}

struct Run<'a, 'o> {
    world: &'a World,
    question: &'a Question,
    neighbours: u64,
    begun: Instant,
    /// Operations begun, of how many, each counted once a number of processes.
    turns: (u32, u32),
    /// Sizes measured, of which all together, in bytes.
    told: (u64, u64),
    observer: &'a mut Observer<'o>,
    rows: Vec<Row>,
    unmeasured: Vec<Unmeasured>,
}

impl Run<'_, '_> {
    /// Whether there is memory for the largest size of each operation, before anything is measured. Local.
    fn have_room<'a>(&self, operations: impl Iterator<Item = &'a Operation>) -> Result<()> {
        let bytes = self.question.sizes().into_iter().max().unwrap_or_default();
        let memory = usable_bytes();
        for operation in operations.filter(|operation| operation.least <= self.world.size()) {
            let all = match operation.pair {
                true => 2,
                false => self.world.size(),
            };
            let place = Place {
                me: self.world.process().min(all - 1),
                all,
                bytes,
                window: self.question.window,
            };
            fits(operation, &place, self.neighbours, memory)?;
        }
        Ok(())
    }

    /// Measures operations among the processes that are `inside`, process 0 always. Collective.
    fn among(&mut self, operations: &[&Operation], inside: impl Fn(u32) -> bool) -> Result<()> {
        if operations.is_empty() {
            return Ok(());
        }
        if (0..self.world.size()).all(&inside) {
            return self.all(self.world, operations);
        }
        let part = self.world.part(inside(self.world.process()))?;
        let done = match &part {
            Some(part) => self.all(part, operations),
            None => Ok(()),
        };
        agree(self.world, done)?;
        part.map_or(Ok(()), World::finish)?;
        barrier(self.world)
    }

    fn all(&mut self, world: &World, operations: &[&Operation]) -> Result<()> {
        for operation in operations {
            self.turns.0 += 1;
            let sizes = match operation.sized {
                true => self.question.sizes(),
                false => vec![0],
            };
            // Some of each operation is measured, however late it is.
            let (mut begun, mut told) = (false, self.told.0);
            for (done, &bytes) in sizes.iter().enumerate() {
                if bytes == 0 && operation.sized && !operation.unpaused {
                    continue;
                }
                if begun && self.has_no_time(world)? {
                    let rest = counted((sizes.len() - done) as u64, "size");
                    let why = format!("no time is left for {rest}, from {bytes} bytes on");
                    self.leave_out(&[operation], &why);
                    break;
                }
                let calls = [
                    (By::Shardloom, operation.shardloom),
                    (By::Library, operation.library),
                ];
                for (by, call) in calls {
                    let Some(call) = call else { continue };
                    if bytes == 0 && operation.sized && by == By::Shardloom {
                        // Jobs send no empty messages.
                        continue;
                    }
                    let row = self.one(world, operation, bytes, by, call)?;
                    self.rows.push(row);
                    begun = true;
                }
                told += bytes;
                (self.observer)(told, self.told.1);
            }
            let all = self.question.sizes().iter().sum::<u64>();
            self.told.0 = self.told.1.min(self.told.0 + all);
            (self.observer)(self.told.0, self.told.1);
        }
        Ok(())
    }

    /// Whether this operation's share of the budget is used up. Collective.
    fn has_no_time(&self, world: &World) -> Result<bool> {
        let Some(budget) = self.question.budget else {
            return Ok(false);
        };
        let (turn, turns) = self.turns;
        let share = budget * turn / turns.max(1);
        let mut over = [u64::from(self.begun.elapsed() >= share)];
        all_reduce(world, &mut over, Joined::Max)?;
        Ok(over[0] > 0)
    }

    fn one(
        &self,
        world: &World,
        operation: &Operation,
        bytes: u64,
        by: By,
        call: Call,
    ) -> Result<Row> {
        let place = Place {
            me: world.process(),
            all: world.size(),
            bytes,
            window: self.question.window,
        };
        let mut buffers = Buffers::new(world, operation, place, by)?;
        let planted = self.question.planted.as_deref() == Some(operation.name);
        buffers.planted = planted && place.me == place.all - 1;
        let mut called = Called {
            world,
            call,
            buffers,
        };
        let repeat = self.question.repeat;
        let overlaps = operation.name == "overlap";
        let pure = match overlaps {
            true => {
                let few = Repeat {
                    iterations: repeat.iterations.min(5),
                    ..repeat
                };
                sample(world, few, false, &mut called)?
            }
            false => Timing::default(),
        };
        called.buffers.work = Duration::from_secs_f64(pure.seconds.median.max(0.0));
        let mut timing = sample(world, repeat, operation.unpaused, &mut called)?;
        let messages = (operation.messages)(&place);
        timing.seconds = timing.seconds.scaled(1.0 / f64::from(messages));
        timing.processes = timing.processes.scaled(1.0 / f64::from(messages));
        let factor = (operation.factor)(&place);
        let carried = if operation.sized {
            (operation.carries)(&place)
        } else {
            0
        };
        let mut row = Row::new(operation.name, bytes, timing, carried, factor);
        row.variant = operation.variant.map(str::to_owned);
        row.by = by.name();
        row.processes = place.all;
        row.bus_gbps = row.bus_gbps.filter(|_| place.all > 1);
        if operation.name == "many_pairs" && timing.seconds.median > 0.0 {
            row.messages_per_second = Some(factor / timing.seconds.median);
        }
        if overlaps && pure.seconds.median > 0.0 {
            let seen = timing.seconds.median - pure.seconds.median;
            let hidden = 1.0 - seen / pure.seconds.median;
            row.overlap_percent = Some(100.0 * hidden.clamp(0.0, 1.0));
        }
        (row.wrong_bytes, row.wrong) = all_wrong(world, called.buffers.wrong())?;
        if let Some(wrong) = row.wrong.as_mut().filter(|_| operation.pair) {
            // Two of many: the second is the last.
            let last = self.world.size() - 1;
            wrong.receiver = wrong.receiver.min(1) * last;
            wrong.sender = wrong.sender.map(|sender| sender.min(1) * last);
        }
        Ok(row)
    }

    fn leave_out(&mut self, operations: &[&Operation], why: &str) {
        for operation in operations {
            let known = |left: &Unmeasured| left.operation == operation.name && left.why == why;
            if !self.unmeasured.iter().any(known) {
                self.unmeasured.push(Unmeasured {
                    operation: operation.name.to_owned(),
                    why: why.to_owned(),
                });
            }
        }
    }
}

/// An operation with its memory.
struct Called<'w> {
    world: &'w World,
    call: Call,
    buffers: Buffers,
}

impl Exercise for Called<'_> {
    fn once(&mut self) -> Result<()> {
        (self.call)(self.world, &mut self.buffers).map_err(beyond_agreement)
    }

    fn check(&mut self) -> Result<()> {
        self.buffers.check();
        Ok(())
    }
}

/// A process that can't go on in the middle leaves the others there: only the end of all helps.
fn beyond_agreement(fault: Fault) -> Fault {
    Fault {
        kind: Kind::Mpi,
        ..fault
    }
}
