//! Who sees which source shards, and who serves a piece.

use crate::plan::turns::Turns;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How slices get from their holders to those who write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
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
    /// The source ranks whose files are the same ones on all nodes that see them: on storage that
    /// these share, where it is not free to read them on each.
    common: Arc<BTreeSet<u32>>,
    /// The nodes that see each source rank, ascending.
    homes: HashMap<u32, Arc<Vec<u32>>>,
    /// Whether all nodes see the same ranks.
    alike: bool,
}

/// Which of those that need the same cell this process is, so that they turn to different replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its place among them.
    pub index: u64,
    /// How many they are.
    pub of: u64,
}

/// The process of `processes` that has the same place as `rank` among `ranks`.
#[must_use]
pub fn equal_share(rank: u32, ranks: u32, processes: u32) -> u32 {
    let home = u64::from(rank) * u64::from(processes) / u64::from(ranks.max(1));
    u32::try_from(home).unwrap_or(u32::MAX)
}

/// Who serves a piece: a rank's shard, read by a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which of the candidates.
    pub candidate: usize,
    /// The process that reads it.
    pub process: u32,
    /// Whether it is read once for all nodes that need it, whose turn it is.
    pub in_turn: bool,
}

impl Reach {
    /// What process `process` of these `nodes` can reach, where node n sees the source ranks `seen[n]`.
    #[must_use]
    pub fn new(
        process: u32,
        nodes: Vec<Vec<u32>>,
        seen: Vec<Arc<BTreeSet<u32>>>,
        source_ranks: u32,
        mode: ExchangeMode,
    ) -> Self {
        let processes = nodes.iter().map(Vec::len).sum();
        let mut node_of = vec![0; processes];
        for (node, members) in (0..).zip(&nodes) {
            for member in members {
                node_of[*member as usize] = node;
            }
        }
        // Nodes that share storage see equal sets: one entry for all of them.
        let mut groups: Vec<(&Arc<BTreeSet<u32>>, Vec<u32>)> = Vec::new();
        let mut known: HashMap<(usize, Option<u32>), Vec<usize>> = HashMap::new();
        for (node, ranks) in (0..).zip(&seen) {
            let alike = known
                .entry((ranks.len(), ranks.first().copied()))
                .or_default();
            let same = |group: &&usize| {
                let other = groups[**group].0;
                Arc::ptr_eq(other, ranks) || other == ranks
            };
            match alike.iter().find(same) {
                Some(group) => groups[*group].1.push(node),
                None => {
                    alike.push(groups.len());
                    groups.push((ranks, vec![node]));
                }
            }
        }
        let alike = groups.len() <= 1;
        let mut homes: HashMap<u32, Arc<Vec<u32>>> = HashMap::new();
        for (ranks, nodes) in groups {
            let nodes = Arc::new(nodes);
            for rank in ranks.iter() {
                let here = homes.entry(*rank).or_insert_with(|| nodes.clone());
                if !Arc::ptr_eq(here, &nodes) {
                    let mut all: Vec<u32> = here.iter().chain(nodes.iter()).copied().collect();
                    all.sort_unstable();
                    *here = Arc::new(all);
                }
            }
        }
        Reach {
            process,
            node_of,
            nodes,
            seen,
            source_ranks,
            mode,
            common: Arc::default(),
            homes,
            alike,
        }
    }

    /// The same where the files of the source ranks `common` are on storage that all nodes share that
    /// see them; those of others are copies on each node's own.
    #[must_use]
    pub fn with_common(self, common: BTreeSet<u32>) -> Self {
        let common = Arc::new(common);
        Reach { common, ..self }
    }

    /// The source ranks whose files are on storage that all nodes share that see them.
    #[must_use]
    pub fn common(&self) -> &BTreeSet<u32> {
        &self.common
    }

    /// A world of one process that sees everything.
    #[must_use]
    pub fn alone(ranks: impl Iterator<Item = u32>) -> Self {
        let seen: BTreeSet<u32> = ranks.collect();
        let source_ranks = seen.last().map_or(1, |last| last + 1);
        let mode = ExchangeMode::Auto;
        Reach::new(0, vec![vec![0]], vec![Arc::new(seen)], source_ranks, mode)
    }

    /// The nodes that see the files of source rank `rank`, ascending.
    #[must_use]
    pub fn homes(&self, rank: u32) -> &[u32] {
        self.homes.get(&rank).map_or(&[], |nodes| nodes.as_slice())
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
        self.alike
    }

    /// The process that reads source rank `rank` for the others: the one with the same share of the
    /// ranks if it sees it, else one of a node that does.
    #[must_use]
    pub fn owner(&self, rank: u32) -> Option<u32> {
        let processes = u32::try_from(self.node_of.len()).ok()?;
        let natural = equal_share(rank, self.source_ranks, processes).min(processes - 1);
        if self.seen[self.node_of[natural as usize] as usize].contains(&rank) {
            return Some(natural);
        }
        let node = *self.homes(rank).first()?;
        let members = &self.nodes[node as usize];
        Some(members[rank as usize % members.len()])
    }

    /// The process that reads source rank `rank` on `node`, which sees it: always the same one if
    /// there is a rank for each, so that few processes talk to each other; else they take turns.
    fn reader(&self, node: u32, rank: u32, salt: u64) -> Option<u32> {
        let members = &self.nodes[node as usize];
        if self.seen[node as usize].len() < members.len() {
            return Some(members[turn(members.len(), salt)?]);
        }
        match self.owner(rank) {
            Some(owner) if self.node_of[owner as usize] == node => Some(owner),
            _ => Some(members[rank as usize % members.len()]),
        }
    }

    /// The process of `node` that has the place there that this one has on its own node.
    fn counterpart(&self, node: u32) -> Option<u32> {
        let own = &self.nodes[self.node() as usize];
        let place = own.iter().position(|member| *member == self.process)?;
        let members = &self.nodes[node as usize];
        members.get(place * members.len() / own.len()).copied()
    }

    /// The process that reads one of the `candidates` for all nodes of `turns`: that of the node
    /// whose turn it is, of those that see it.
    fn in_turn(&self, candidates: &[u32], turns: &Turns, salt: u64) -> Option<Served> {
        let candidate = candidates
            .iter()
            .position(|rank| self.common.contains(rank))?;
        let rank = candidates[candidate];
        let sees = |node: &&u32| self.seen[**node as usize].contains(&rank);
        let readers: Vec<u32> = turns.nodes.iter().filter(sees).copied().collect();
        let node = readers[turn(readers.len(), salt)?];
        let process = if node == self.node() {
            self.process
        } else {
            self.counterpart(node)?
        };
        Some(Served {
            candidate,
            process,
            in_turn: true,
        })
    }

    /// Chooses which of the `candidates` (ranks that hold the same cell) serves this process, and
    /// which process reads it. What lies on the own node's disks is read there; then whoever's turn
    /// it is, if nodes take `turns`; then own process, then own node, then one of all replicas: the
    /// one with the same place among them as this process has among those that need the cell, or,
    /// where a `share` can't be told, in turns by `salt`.
    #[must_use]
    pub fn serve(
        &self,
        candidates: impl Iterator<Item = u32>,
        salt: u64,
        share: Option<Share>,
        turns: Option<&Turns>,
    ) -> Option<Served> {
        let candidates: Vec<u32> = candidates.collect();
        if self.mode == ExchangeMode::Collective {
            let owned = |rank: &u32| self.owner(*rank) == Some(self.process);
            let candidate = candidates.iter().position(owned);
            let candidate = candidate.or_else(|| turn(candidates.len(), salt))?;
            return Some(Served {
                candidate,
                process: self.owner(candidates[candidate])?,
                in_turn: false,
            });
        }
        let own = |rank: &u32| self.sees(*rank) && !self.common.contains(rank);
        let own = candidates.iter().position(own);
        let seen = own.or_else(|| candidates.iter().position(|rank| self.sees(*rank)));
        if let Some(turns) = turns
            && own.is_none()
            && let Some(served) = self.in_turn(&candidates, turns, salt)
        {
            return Some(served);
        }
        if let Some(candidate) = seen {
            return Some(Served {
                candidate,
                process: self.process,
                in_turn: false,
            });
        }
        if self.mode == ExchangeMode::Direct {
            return None;
        }
        let places: usize = candidates.iter().map(|rank| self.homes(*rank).len()).sum();
        let mut place = match share {
            Some(share) => proportion(places, share)?,
            None => turn(places, salt)?,
        };
        for (candidate, rank) in candidates.iter().enumerate() {
            let homes = self.homes(*rank);
            if let Some(node) = homes.get(place) {
                return Some(Served {
                    candidate,
                    process: self.reader(*node, *rank, salt / places as u64)?,
                    in_turn: false,
                });
            }
            place -= homes.len();
        }
        None
    }
}

/// The place among `length` that corresponds to `share`.
fn proportion(length: usize, share: Share) -> Option<usize> {
    let place = (share.index * length as u64).checked_div(share.of)?;
    usize::try_from(place).ok().filter(|place| *place < length)
}

fn turn(length: usize, salt: u64) -> Option<usize> {
    usize::try_from(salt.checked_rem(length as u64)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes of two processes, each seeing two of four ranks.
    fn two_nodes(process: u32, mode: ExchangeMode) -> Reach {
        let seen = vec![Arc::new([0, 1].into()), Arc::new([2, 3].into())];
        Reach::new(process, vec![vec![0, 1], vec![2, 3]], seen, 4, mode)
    }

    #[test]
    fn reads_its_own_node_and_asks_the_other() {
        let reach = two_nodes(1, ExchangeMode::Auto);
        assert_eq!(
            reach.serve([3, 0].into_iter(), 5, None, None),
            Some(Served {
                candidate: 1,
                process: 1,
                in_turn: false
            })
        );
        let asked: BTreeSet<u32> = (0..4)
            .map(|salt| {
                reach
                    .serve([2, 3].into_iter(), salt, None, None)
                    .unwrap()
                    .process
            })
            .collect();
        assert_eq!(asked, [2, 3].into());
        assert_eq!(
            two_nodes(1, ExchangeMode::Direct).serve([2].into_iter(), 0, None, None),
            None
        );
    }

    #[test]
    fn those_that_need_the_same_turn_to_different_replicas() {
        let seen = vec![
            Arc::new(BTreeSet::new()),
            Arc::new([0].into()),
            Arc::new([1].into()),
        ];
        let nodes = vec![vec![0], vec![1], vec![2]];
        let reach = Reach::new(0, nodes, seen, 2, ExchangeMode::Auto);
        let asked = |index| {
            let share = Share { index, of: 4 };
            let served = reach
                .serve([0, 1].into_iter(), 7, Some(share), None)
                .unwrap();
            (served.candidate, served.process)
        };
        assert_eq!([0, 1, 2, 3].map(asked), [(0, 1), (0, 1), (1, 2), (1, 2)]);
        assert_eq!((reach.homes(1), reach.homes(5)), (&[2][..], &[][..]));
        assert!(!reach.all_see_all());
    }

    #[test]
    fn nodes_read_in_turn_what_they_share() {
        let turns = Turns {
            nodes: vec![0, 1],
            wanted: 1,
            needed: 2,
        };
        let all: Arc<BTreeSet<u32>> = Arc::new([0, 1].into());
        let nodes = || vec![vec![0, 1], vec![2, 3], vec![4]];
        let seen = vec![all.clone(), all, Arc::default()];
        let served = |process, common: &[u32], salt| {
            let reach = Reach::new(process, nodes(), seen.clone(), 2, ExchangeMode::Auto);
            let reach = reach.with_common(common.iter().copied().collect());
            let served = reach.serve([0, 1].into_iter(), salt, None, Some(&turns));
            served.map(|served| (served.candidate, served.process, served.in_turn))
        };
        // All turn to the same node; there it is the process with the same place.
        assert_eq!(
            [0, 1, 2, 3].map(|p| served(p, &[0, 1], 6)),
            [0, 1, 0, 1].map(|p| Some((0, p, true)))
        );
        assert_eq!(
            [0, 1, 2, 3].map(|p| served(p, &[0, 1], 7)),
            [2, 3, 2, 3].map(|p| Some((0, p, true)))
        );
        // A copy on a node's own disks is nobody's business.
        assert_eq!(served(1, &[0], 7), Some((1, 1, false)));
        // Who doesn't see it asks those that do.
        assert_eq!(served(4, &[0, 1], 7), Some((0, 2, true)));
    }

    #[test]
    fn every_rank_has_one_owner_that_sees_it() {
        let reach = two_nodes(0, ExchangeMode::Collective);
        let owners: Vec<_> = (0..4).map(|rank| reach.owner(rank)).collect();
        assert_eq!(owners, [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(reach.owner(9), None);
    }
}
