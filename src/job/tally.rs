//! Adds up what the processes have done. What isn't said to be local is collective.

use crate::exchange::{
    Operation, Topology, World, agree, all_gather_bytes, all_reduce, decode, encode,
};
use crate::fault::Result;
use crate::fault::plain::{counted, first};
use crate::job::outcome::{Outcome, ProcessFigures, Seconds};
use crate::plan::forecast::{Nodes, Shares, reads};
use crate::plan::machine::Machine;
use crate::plan::ratio::ratio;
use crate::plan::reach::Reach;
use crate::plan::survey::Survey;
use crate::store::io::peak_memory_bytes;
use crate::transport::Exchange;
use crate::transport::Moved;
use crate::transport::Readers;
use std::collections::BTreeMap;
use std::iter;

/// Most processes that are listed.
const LISTED_MAX: usize = 64;

/// The outcome of a command before anything has happened. Local.
pub(super) fn outcome(world: &World, topology: &Topology, command: &str) -> Outcome {
    Outcome {
        schema: 1,
        command: command.into(),
        processes: world.size(),
        nodes: u32::try_from(topology.nodes.len()).unwrap_or(u32::MAX),
        ..Outcome::default()
    }
}

/// The sum of every process's `value`. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn sum(world: &World, value: u64) -> Result<u64> {
    let mut values = [value];
    all_reduce(world, &mut values, Operation::Sum)?;
    Ok(values[0])
}

/// The rounds that the exchange will take: those of the process with most to receive. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn rounds(world: &World, survey: &Survey, exchange: Option<Exchange>) -> Result<u64> {
    let mut rounds = [exchange.map_or(0, |exchange| exchange.rounds(survey))];
    all_reduce(world, &mut rounds, Operation::Max)?;
    Ok(rounds[0])
}

/// Fills in what is summed or taken from the slowest process. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn total(
    world: &World,
    outcome: &mut Outcome,
    survey: &Survey,
    moved: &Moved,
    readers: &Readers<'_>,
    seconds: &Seconds,
) -> Result<()> {
    let mut sums = [
        readers.read_bytes(),
        survey.needed_bytes,
        moved.sent_bytes,
        survey.received_bytes_lower_bound,
        moved.written_bytes,
        moved.overflown.values().sum(),
    ];
    all_reduce(world, &mut sums, Operation::Sum)?;
    let [read, needed, sent, lower_bound, written, overflown] = sums;
    outcome.bytes.read = read;
    outcome.bytes.read_unique = needed;
    outcome.bytes.sent = sent;
    outcome.bytes.sent_lower_bound = lower_bound;
    outcome.bytes.written = written;
    if overflown > 0 {
        outcome.notes.push(became_infinite(world, moved)?);
    }
    let micros = |seconds: f64| {
        u64::try_from(std::time::Duration::from_secs_f64(seconds.max(0.0)).as_micros()).unwrap_or(0)
    };
    let mut largest = [
        moved.written_bytes,
        peak_memory_bytes(),
        micros(seconds.total),
        micros(seconds.discover),
        micros(seconds.plan),
        micros(seconds.exchange),
        micros(seconds.write),
        micros(seconds.commit),
    ];
    all_reduce(world, &mut largest, Operation::Max)?;
    let second = |micros: u64| std::time::Duration::from_micros(micros).as_secs_f64();
    outcome.memory_peak_bytes_max = largest[1];
    outcome.seconds = Seconds {
        total: second(largest[2]),
        discover: second(largest[3]),
        plan: second(largest[4]),
        exchange: second(largest[5]),
        write: second(largest[6]),
        commit: second(largest[7]),
    };
    outcome.balance_max_over_mean = ratio(largest[0] * u64::from(world.size()), written);
    Ok(())
}

/// What is said of finite numbers that became infinite.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
fn became_infinite(world: &World, moved: &Moved) -> Result<String> {
    let mine = agree(world, encode(&moved.overflown))?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for bytes in all_gather_bytes(world, &mine)? {
        for (name, count) in agree(world, decode::<BTreeMap<String, u64>>(&bytes))? {
            *counts.entry(name).or_default() += count;
        }
    }
    let names: Vec<&String> = counts.keys().collect();
    let elements = counted(counts.values().sum(), "element");
    let tensors = counted(counts.len() as u64, "tensor");
    let told = first(&names, 4);
    Ok(format!(
        "{elements} of {tensors} ({told}) became infinite: too large for the type written; \
         --dtype bf16 or f32 holds them"
    ))
}

/// The plans of the first 64 processes. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn per_process(world: &World, survey: &Survey) -> Result<Vec<ProcessFigures>> {
    let listed = usize::try_from(world.size()).map_or(LISTED_MAX, |size| size.min(LISTED_MAX));
    let asked = reads(iter::once(survey));
    let mut read: Vec<u64> = (0..)
        .take(listed)
        .map(|reader| asked.get(&reader).copied().unwrap_or(0))
        .collect();
    all_reduce(world, &mut read, Operation::Sum)?;
    let own = [survey.received_bytes, survey.written_bytes];
    let mine = match usize::try_from(world.process()) {
        Ok(process) if process < listed => agree(world, encode(&own))?,
        _ => agree(world, Ok(Vec::new()))?,
    };
    let all = all_gather_bytes(world, &mine)?;
    let figures = all
        .iter()
        .zip(read)
        .zip(0..)
        .map(|((bytes, read), process)| {
            let [received, written] = decode::<[u64; 2]>(bytes)?;
            Ok(ProcessFigures {
                process,
                read,
                received,
                written,
            })
        });
    agree(world, figures.collect())
}

/// The seconds that a job would take on such a machine, where storage is shared so, in so many rounds. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn seconds(
    world: &World,
    survey: &Survey,
    reach: &Reach,
    (machine, shares, rounds): (&Machine, Shares, u64),
) -> Result<f64> {
    let mut nodes = Nodes::new(reach.nodes.len());
    nodes.add((world.process(), survey), reach, shares, (1, 1));
    let mut sums: Vec<u64> = nodes.bytes.iter().flatten().copied().collect();
    sums.extend(nodes.together);
    all_reduce(world, &mut sums, Operation::Sum)?;
    let own = nodes.bytes.iter_mut().flatten();
    for (bytes, sum) in own.chain(&mut nodes.together).zip(sums) {
        *bytes = sum;
    }
    Ok(nodes.seconds(machine, shares, rounds, 1.0))
}
