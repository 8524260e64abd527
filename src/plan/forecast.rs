//! What processes that have planned would read, and how long their nodes would take: the same for a cluster
//! that doesn't exist and for a job that stops before it begins.

use crate::plan::machine::Machine;
use crate::plan::ratio::ratio;
use crate::plan::reach::Reach;
use crate::plan::survey::Survey;
use std::collections::BTreeMap;

/// What bytes a node carries: those it reads, writes, receives from other nodes and sends to them.
pub const STAGES: usize = 4;

/// Bytes that each process reads from files, for itself and for others, as far as `surveys` tell: those of all
/// processes tell all of it.
#[must_use]
pub fn reads<'a>(surveys: impl Iterator<Item = &'a Survey>) -> BTreeMap<u32, u64> {
    let mut reads = BTreeMap::new();
    for (reader, bytes) in surveys.flat_map(|survey| &survey.readers) {
        *reads.entry(*reader).or_default() += bytes;
    }
    reads
}

/// Bytes by node.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// Of each node: read, written, received, sent.
    pub bytes: Vec<[u64; STAGES]>,
    /// Read and written by all together.
    pub together: [u64; 2],
}

/// Which storage is one for all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// The source's.
    pub source: bool,
    /// The destination's.
    pub destination: bool,
}

impl Nodes {
    /// Of so many nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Nodes {
        Nodes {
            bytes: vec![[0; STAGES]; nodes],
            together: [0; 2],
        }
    }

    /// Adds the plan of `process`, `times` over; what others read for it and send it counts `weight` times more.
    pub fn add(
        &mut self,
        (process, survey): (u32, &Survey),
        reach: &Reach,
        shares: Shares,
        (times, weight): (u64, u64),
    ) {
        let node_of = |process: u32| reach.node_of[process as usize] as usize;
        let node = node_of(process);
        let mut add = |node: usize, stage: usize, bytes: u64| {
            if let Some(stages) = self.bytes.get_mut(node) {
                stages[stage] += bytes * times;
            }
        };
        for (reader, bytes) in &survey.readers {
            match shares.source {
                // Whose turn it is to read evens out.
                true => add(node, 0, *bytes),
                false if *reader == process => add(node, 0, *bytes),
                false => add(node_of(*reader), 0, bytes * weight),
            }
        }
        add(node, 1, survey.written_bytes);
        for (sender, bytes) in &survey.senders {
            let from = node_of(*sender);
            if from != node {
                add(node, 2, *bytes);
                add(from, 3, bytes * weight);
            }
        }
        self.together[0] += survey.read_bytes();
        self.together[1] += survey.written_bytes;
    }

    /// Seconds of the slowest node, and the latency of the `rounds`. In a round it reads and sends, which take
    /// turns, while the round before is written: what overlaps counts once, but for one round. Where nothing is
    /// sent, reading and writing overlap. Storage that all share is never faster than for all of them together,
    /// who are `world` times those that were added.
    #[must_use]
    pub fn seconds(&self, machine: &Machine, shares: Shares, rounds: u64, world: f64) -> f64 {
        let rates = [
            machine.disk_read_gbps,
            machine.disk_write_gbps,
            machine.network_gbps,
            machine.network_gbps,
        ];
        let seconds = |bytes: u64, rate: f64| ratio(bytes, 1) / (rate * 1e9);
        let shared = |shares: bool, bytes, rate| match shares {
            true => seconds(bytes, rate) * world,
            false => 0.0,
        };
        let [read, written] = self.together;
        let read_together = shared(shares.source, read, machine.shared_read_gbps);
        let written_together = shared(shares.destination, written, machine.shared_write_gbps);
        let slowest = self.bytes.iter().filter(|bytes| **bytes != [0; STAGES]);
        let slowest = slowest.map(|bytes| {
            let [read, written, received, sent] =
                std::array::from_fn(|stage| seconds(bytes[stage], rates[stage]));
            let (read, written) = (read.max(read_together), written.max(written_together));
            let once = if rounds > 0 { ratio(1, rounds) } else { 0.0 };
            let before = match rounds {
                0 => read,
                _ => read + received.max(sent),
            };
            before.max(written) + before.min(written) * once
        });
        slowest.fold(0.0, f64::max) + ratio(rounds, 1) * machine.latency_us / 1e6
    }
}
