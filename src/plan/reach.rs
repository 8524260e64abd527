//! Who sees which source shards, and who serves a piece.

use clap::ValueEnum;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How slices get from their holders to those who write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum ExchangeMode {
    /// Read what is visible, send the rest.
    #[default]
    Auto,
    /// Every shard has one owner; whatever another process needs is sent through MPI.
    Collective,
    /// Never send: all shards must be visible to all.
    Direct,
}

/// Which nodes there are, and which source ranks each of them sees. The same on every process but
/// for `process`.
#[derive(Clone, Debug)]
pub struct Reach {
    /// This process.
    pub process: u32,
    /// Number of the node of each process.
    pub node_of: Vec<u32>,
    /// The processes of each node.
    pub nodes: Vec<Vec<u32>>,
    /// The source ranks that each node sees.
    pub seen: Vec<Arc<BTreeSet<u32>>>,
    /// Number of source ranks.
    pub source_ranks: u32,
    /// How slices travel.
    pub mode: ExchangeMode,
}

/// Who serves a piece: a rank's shard, read by a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which of the candidates.
    pub candidate: usize,
    /// The process that reads it.
    pub process: u32,
}

impl Reach {
    /// A world of one process that sees everything.
    #[must_use]
    pub fn alone(ranks: impl Iterator<Item = u32>) -> Self {
        let seen: BTreeSet<u32> = ranks.collect();
        Reach {
            process: 0,
            node_of: vec![0],
            nodes: vec![vec![0]],
            source_ranks: seen.last().map_or(1, |last| last + 1),
            seen: vec![Arc::new(seen)],
            mode: ExchangeMode::Auto,
        }
    }

    /// This process's node.
    #[must_use]
    pub fn node(&self) -> u32 {
        self.node_of[self.process as usize]
    }

    /// Whether this process sees the files of source rank `rank`.
    #[must_use]
    pub fn sees(&self, rank: u32) -> bool {
        self.seen[self.node() as usize].contains(&rank)
    }

    /// Whether every process sees every source rank's files, so that nothing need be sent.
    #[must_use]
    pub fn all_see_all(&self) -> bool {
        self.seen.windows(2).all(|pair| pair[0] == pair[1])
    }

    /// The process that reads source rank `rank` for the others: the one with the same share of the
    /// ranks if it sees it, else one of a node that does.
    #[must_use]
    pub fn owner(&self, rank: u32) -> Option<u32> {
        let processes = self.node_of.len() as u64;
        let share = u64::from(rank) * processes / u64::from(self.source_ranks.max(1));
        let natural = u32::try_from(share.min(processes - 1)).ok()?;
        if self.seen[self.node_of[natural as usize] as usize].contains(&rank) {
            return Some(natural);
        }
        let node = self.seen.iter().position(|seen| seen.contains(&rank))?;
        let members = &self.nodes[node];
        Some(members[rank as usize % members.len()])
    }

    /// Chooses which of the `candidates` (ranks that hold the same cell) serves this process, and
    /// which process reads it. Own process, then own node, then spread by `salt` over all replicas.
    #[must_use]
    pub fn serve(&self, candidates: impl Iterator<Item = u32>, salt: u64) -> Option<Served> {
        let candidates: Vec<u32> = candidates.collect();
        if self.mode == ExchangeMode::Collective {
            let owned = |rank: &u32| self.owner(*rank) == Some(self.process);
            let candidate = candidates.iter().position(owned);
            let candidate = candidate.or_else(|| turn(candidates.len(), salt))?;
            return Some(Served {
                candidate,
                process: self.owner(candidates[candidate])?,
            });
        }
        if let Some(candidate) = candidates.iter().position(|rank| self.sees(*rank)) {
            return Some(Served {
                candidate,
                process: self.process,
            });
        }
        if self.mode == ExchangeMode::Direct {
            return None;
        }
        let places: Vec<(usize, usize)> = candidates
            .iter()
            .enumerate()
            .flat_map(|(c, rank)| {
                let nodes = self.seen.iter().enumerate();
                nodes
                    .filter(|(_, seen)| seen.contains(rank))
                    .map(move |(node, _)| (c, node))
            })
            .collect();
        let (candidate, node) = places[turn(places.len(), salt)?];
        let members = &self.nodes[node];
        let member = turn(members.len(), salt / places.len() as u64)?;
        Some(Served {
            candidate,
            process: members[member],
        })
    }
}

fn turn(length: usize, salt: u64) -> Option<usize> {
    usize::try_from(salt.checked_rem(length as u64)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes of two processes, each seeing two of four ranks.
    fn two_nodes(process: u32, mode: ExchangeMode) -> Reach {
        Reach {
            process,
            node_of: vec![0, 0, 1, 1],
            nodes: vec![vec![0, 1], vec![2, 3]],
            seen: vec![Arc::new([0, 1].into()), Arc::new([2, 3].into())],
            source_ranks: 4,
            mode,
        }
    }

    #[test]
    fn reads_its_own_node_and_asks_the_other() {
        let reach = two_nodes(1, ExchangeMode::Auto);
        assert_eq!(
            reach.serve([3, 0].into_iter(), 5),
            Some(Served {
                candidate: 1,
                process: 1
            })
        );
        let asked: BTreeSet<u32> = (0..4)
            .map(|salt| reach.serve([2, 3].into_iter(), salt).unwrap().process)
            .collect();
        assert_eq!(asked, [2, 3].into());
        assert_eq!(
            two_nodes(1, ExchangeMode::Direct).serve([2].into_iter(), 0),
            None
        );
    }

    #[test]
    fn every_rank_has_one_owner_that_sees_it() {
        let reach = two_nodes(0, ExchangeMode::Collective);
        let owners: Vec<_> = (0..4).map(|rank| reach.owner(rank)).collect();
        assert_eq!(owners, [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(reach.owner(9), None);
    }
}
