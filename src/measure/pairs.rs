//! Every node with every other: in rounds in which each sends to the one so many places after it, so that
//! all links are loaded at once.

use crate::exchange::{
    DataRound, Library, Operation, Packed, Topology, Traffic, World, agree, all_gather, all_reduce,
    decode, encode, exchange_bytes,
};
use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::measure::contents::append;
use crate::measure::sampling::rate;
use crate::store::io::read_text;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// Messages of a process in flight.
const WINDOW: u32 = 4;
/// Most bytes of one.
const BYTES_MAX: u64 = 4 << 20;
/// How often at least each round is done; of the times the lower quarter counts, for what is slow now and
/// then is no link's fault.
const TIMES_LEAST: u32 = 5;
/// How often what seems slow is measured again: a slow link stays slow.
const AGAIN: u32 = 3;
/// Most times.
const TIMES_MAX: u32 = 400;
/// What is slower than this share of the usual is told.
const SLOW: f64 = 0.6;
/// A node whose every path is slower than this share of the usual is told of in place of its paths.
const SLOWISH: f64 = 0.75;
/// With fewer nodes than this, one slow node makes half of all paths slow.
const FEW: usize = 6;

/// Rates between nodes, or between processes where there is one node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pairs {
    /// Whether they are processes of one node.
    pub processes: bool,
    /// Their names.
    pub names: Vec<String>,
    /// Bytes of a message.
    pub bytes: u64,
    /// 10^9 bytes a second from each (row) to each (column); none to itself.
    pub gbps: Vec<Vec<Option<f64>>>,
    /// What is usual.
    pub usual_gbps: f64,
    /// What is slow, in words; nothing where processes share cores.
    pub outliers: Vec<String>,
    /// Whether there are fewer cores than processes somewhere: they wait for each other there, and what is
    /// slow is no link's fault.
    #[serde(default)]
    pub shares_cores: bool,
}

/// Measures it; none on other processes than the first, or if there are no two. Collective.
///
/// # Errors
/// [`Kind::Memory`], [`Kind::Mpi`].
pub fn pairs(
    world: &World,
    topology: &Topology,
    bytes: u64,
    time: Duration,
) -> Result<Option<Pairs>> {
    let one_node = topology.nodes.len() < 2;
    let groups: Vec<Vec<u32>> = if one_node {
        (0..world.size()).map(|process| vec![process]).collect()
    } else {
        topology.nodes.clone()
    };
    if groups.len() < 2 {
        return Ok(None);
    }
    let bytes = bytes.clamp(1, BYTES_MAX);
    let all = 0..groups.len();
    let names: Vec<String> = match one_node {
        true => all.map(|process| format!("process {process}")).collect(),
        false => topology.hostnames.clone(),
    };
    let mut found = Pairs {
        processes: one_node,
        names,
        bytes,
        shares_cores: shares_cores(&all_gather(world, &Seat::of(world))?),
        ..Pairs::default()
    };
    for _ in 0..=AGAIN {
        let mine = sweep(world, &groups, bytes, time / 2)?;
        found.add(rates(world, &groups, &mine, bytes)?);
        let mut again = [u64::from(!found.outliers.is_empty())];
        all_reduce(world, &mut again, Operation::Max)?;
        if again[0] == 0 {
            break;
        }
    }
    Ok(Some(found).filter(|_| world.process() == 0))
}

impl Pairs {
    /// Takes in what was measured once more: the faster counts.
    fn add(&mut self, swept: Vec<Vec<Option<f64>>>) {
        self.gbps.resize(swept.len(), Vec::new());
        for (row, swept) in self.gbps.iter_mut().zip(swept) {
            row.resize(swept.len(), None);
            for (rate, swept) in row.iter_mut().zip(swept) {
                let faster = rate.unwrap_or(0.0).max(swept.unwrap_or(0.0));
                *rate = swept.map(|_| faster);
            }
        }
        (self.usual_gbps, self.outliers) = outliers(&self.names, &self.gbps);
        if self.shares_cores {
            self.outliers.clear();
        }
    }

    /// Whether a path of this rate is slow; none is where processes share cores.
    #[must_use]
    pub fn is_slow(&self, rate: f64) -> bool {
        !self.shares_cores && rate < SLOW * self.usual_gbps
    }

    /// Every path: from whom, to whom, and its rate.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&str, &str, f64)> {
        let rows = self.names.iter().zip(&self.gbps);
        rows.flat_map(|(from, row)| {
            let cells = self.names.iter().zip(row);
            cells.filter_map(|(to, rate)| Some((from.as_str(), to.as_str(), (*rate)?)))
        })
    }

    /// The rate of the path between two of these names.
    pub(super) fn rate(&self, from: &str, to: &str) -> Option<f64> {
        let place = |name: &str| self.names.iter().position(|known| known == name);
        *self.gbps.get(place(from)?)?.get(place(to)?)?
    }

    /// What is slow, or why that can't be told.
    pub(super) fn told(&self) -> Vec<String> {
        match self.shares_cores {
            true => vec![
                "there are fewer cores than processes: which link is slow can't be told".to_owned(),
            ],
            false => self.outliers.clone(),
        }
    }
}

/// Where a process runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Seat {
    /// Its machine's name.
    host: String,
    /// The cores that it may run on, as the system lists them.
    cores: String,
    /// How many of them it may use, a container's limit included.
    usable: u64,
}

impl Seat {
    fn of(world: &World) -> Seat {
        let status = read_text("/proc/self/status").unwrap_or_default();
        let mut lines = status.lines();
        let cores = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Seat {
            host: world.hostname().to_owned(),
            cores: cores.unwrap_or_default().trim().to_owned(),
            usable: available_parallelism().map_or(1, |usable| usable.get() as u64),
        }
    }
}

/// Whether a host has fewer cores than processes. Processes with equal lists of cores have them in common.
fn shares_cores(seats: &[Seat]) -> bool {
    let mut hosts: BTreeMap<&str, (u64, BTreeMap<&str, u64>)> = BTreeMap::new();
    for seat in seats {
        let host = hosts.entry(&seat.host).or_default();
        host.0 += 1;
        let usable = host.1.entry(&seat.cores).or_insert(seat.usable);
        *usable = seat.usable.min(*usable);
    }
    let crowded =
        |(processes, cores): &(u64, BTreeMap<&str, u64>)| *processes > cores.values().sum();
    hosts.values().any(crowded)
}

/// Rates from each group to each by the seconds of all processes; nothing on other processes than the
/// first. Collective.
fn rates(
    world: &World,
    groups: &[Vec<u32>],
    mine: &[f64],
    bytes: u64,
) -> Result<Vec<Vec<Option<f64>>>> {
    let message = agree(world, encode(&mine))?;
    let mut times = Vec::new();
    for (_, message) in exchange_bytes(world, vec![(0, message)])? {
        times.push(decode::<Vec<f64>>(&message)?);
    }
    if world.process() > 0 {
        return Ok(Vec::new());
    }
    let width = groups.iter().map(Vec::len).min().unwrap_or(1);
    let moved = bytes * u64::from(WINDOW) * width as u64;
    let cell = |from: usize, to: usize| {
        let slowest = groups.get(to)?.iter().take(width).map(|process| {
            let own = times.get(*process as usize);
            own.and_then(|own| own.get(from)).copied().unwrap_or(0.0)
        });
        (from != to).then(|| rate(moved, slowest.fold(0.0, f64::max)))
    };
    let all = 0..groups.len();
    Ok(all
        .clone()
        .map(|from| all.clone().map(|to| cell(from, to)).collect())
        .collect())
}

/// Seconds in which this process receives from each group, of a quick time; 0 where it doesn't. Collective.
fn sweep(world: &World, groups: &[Vec<u32>], bytes: u64, time: Duration) -> Result<Vec<f64>> {
    let me = world.process();
    let width = groups.iter().map(Vec::len).min().unwrap_or(1);
    let place = groups.iter().enumerate().find_map(|(group, members)| {
        let place = members.iter().take(width).position(|member| *member == me);
        place.map(|place| (group, place))
    });
    let length = usize::try_from(bytes).unwrap_or_default();
    let (mut sends, mut receives) = (Vec::new(), Vec::new());
    let mut made = Ok(());
    for key in 0..WINDOW {
        let mut send = Vec::new();
        let filled = append(&mut send, me, key, length).and_then(|()| zeroed(length));
        match filled {
            Ok(receive) => receives.push(receive),
            Err(fault) => made = Err(fault),
        }
        sends.push(send);
    }
    agree(world, made)?;
    let library = Library::of(world);
    let mut times = vec![Vec::new(); groups.len()];
    let begun = Instant::now();
    for turn in 0..TIMES_MAX {
        for distance in 1..groups.len() {
            library.barrier()?;
            let Some((group, place)) = place else {
                continue;
            };
            let to = (group + distance) % groups.len();
            let from = (group + groups.len() - distance) % groups.len();
            let partners = [groups[to][place], groups[from][place]];
            let spent = carry(world, partners, &mut sends, &mut receives);
            let spent = spent.map_err(|fault| Fault {
                kind: Kind::Mpi,
                ..fault
            })?;
            if turn > 0 {
                times[from].push(spent.as_secs_f64());
            }
        }
        let mut late = [u64::from(begun.elapsed() >= time)];
        all_reduce(world, &mut late, Operation::Max)?;
        if turn >= TIMES_LEAST && late[0] > 0 {
            break;
        }
    }
    Ok(times.into_iter().map(|times| part(times, 4)).collect())
}

/// All messages to one process and from another; how long it took until all had come. Where they are sent
/// to may take longer: that is its own to tell.
fn carry(
    world: &World,
    [to, from]: [u32; 2],
    sends: &mut Vec<Vec<u8>>,
    receives: &mut Vec<Vec<u8>>,
) -> Result<Duration> {
    let packed = |process: u32, bytes: Vec<u8>| {
        let mut counts = vec![0; world.size() as usize];
        if let Some(count) = counts.get_mut(process as usize) {
            *count = u32::try_from(bytes.len()).unwrap_or_default();
        }
        Packed { bytes, counts }
    };
    let start = Instant::now();
    let (mut coming, mut going) = (Vec::new(), Vec::new());
    for receive in receives.drain(..) {
        let (nothing, receive) = (packed(to, Vec::new()), packed(from, receive));
        coming.push(DataRound::start(world, Traffic::Sparse, nothing, receive)?);
    }
    for send in sends.drain(..) {
        let (send, nothing) = (packed(to, send), packed(from, Vec::new()));
        going.push(DataRound::start(world, Traffic::Sparse, send, nothing)?);
    }
    for flight in coming {
        receives.push(flight.wait()?.1.bytes);
    }
    let spent = start.elapsed();
    for flight in going {
        sends.push(flight.wait()?.0.bytes);
    }
    Ok(spent)
}

/// The usual rate, and what is far below it.
fn outliers(names: &[String], gbps: &[Vec<Option<f64>>]) -> (f64, Vec<String>) {
    let mut all: Vec<f64> = gbps.iter().flatten().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let place = if names.len() < FEW {
        (all.len().saturating_sub(1) * 4).div_ceil(5)
    } else {
        all.len() / 2
    };
    let usual = all.get(place).copied().unwrap_or_default();
    if usual <= 0.0 {
        return (usual, Vec::new());
    }
    let sends = |node: usize| -> Vec<f64> { gbps[node].iter().flatten().copied().collect() };
    let receives = |node: usize| -> Vec<f64> { gbps.iter().filter_map(|row| row[node]).collect() };
    // Of two nothing can be told of a node.
    let slow = |rates: Vec<f64>| {
        let median = Some(middle(rates.clone()) / usual);
        let all = rates.iter().all(|rate| *rate < SLOWISH * usual);
        median.filter(|share| names.len() > 2 && all && *share < SLOW)
    };
    let nodes = 0..names.len();
    let sending: Vec<Option<f64>> = nodes.clone().map(|node| slow(sends(node))).collect();
    let receiving: Vec<Option<f64>> = nodes.clone().map(|node| slow(receives(node))).collect();
    let mut told = Vec::new();
    for (node, name) in names.iter().enumerate() {
        match (sending[node], receiving[node]) {
            (Some(sent), Some(received)) => told.push(format!(
                "{name} sends at {sent:.2} and receives at {received:.2} of the usual, to and from everyone: its link"
            )),
            (Some(sent), None) => told.push(format!(
                "{name} sends at {sent:.2} of the usual to everyone: its link"
            )),
            (None, Some(received)) => told.push(format!(
                "{name} receives at {received:.2} of the usual from everyone: its link"
            )),
            (None, None) => {}
        }
    }
    for (from, row) in gbps.iter().enumerate() {
        for (to, rate) in row.iter().enumerate() {
            let known = sending[from].is_some() || receiving[to].is_some();
            if let Some(rate) = rate.filter(|rate| !known && *rate < SLOW * usual) {
                let (from, to, share) = (&names[from], &names[to], rate / usual);
                told.push(format!(
                    "{from} to {to} at {share:.2} of the usual: that path"
                ));
            }
        }
    }
    (usual, told)
}

fn middle(rates: Vec<f64>) -> f64 {
    part(rates, 2)
}

/// What one of `parts` of these is below.
fn part(mut values: Vec<f64>, parts: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values
        .get(values.len() / parts)
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rates between nodes, a tenth up and down, some of them times a factor.
    fn told(nodes: usize, factor: impl Fn(usize, usize) -> f64) -> Vec<String> {
        let names: Vec<String> = (0..nodes).map(|node| format!("node-{node}")).collect();
        let shake = |from: usize, to: usize| 1.0 + [0.1, -0.1, 0.02, 0.0][(from * 7 + to * 3) % 4];
        let row = |from: usize| {
            let cell = |to| (from != to).then(|| 10.0 * shake(from, to) * factor(from, to));
            (0..nodes).map(cell).collect()
        };
        outliers(&names, &(0..nodes).map(row).collect::<Vec<_>>()).1
    }

    #[test]
    fn processes_that_share_cores_are_no_slow_links() {
        let seat = |host: &str, cores: &str, usable| Seat {
            host: host.into(),
            cores: cores.into(),
            usable,
        };
        let bound = [seat("a", "0", 1), seat("a", "1", 1)];
        assert!(!shares_cores(&bound));
        assert!(shares_cores(&[&bound[..], &bound[..1]].concat()));
        let free = [seat("a", "0-1", 2), seat("a", "0-1", 2)];
        assert!(!shares_cores(&[&free[..], &[seat("b", "0-1", 2)]].concat()));
        assert!(shares_cores(&[&free[..], &free[..1]].concat()));
        let swept = || vec![vec![None, Some(1.0)], vec![Some(0.2), None]];
        for shares_cores in [false, true] {
            let mut pairs = Pairs {
                names: vec!["process 0".into(), "process 1".into()],
                shares_cores,
                ..Pairs::default()
            };
            pairs.add(swept());
            assert_eq!(pairs.outliers.is_empty(), shares_cores);
            let blamed = pairs.told().iter().any(|line| line.contains("that path"));
            assert_eq!(blamed, !shares_cores, "{:?}", pairs.told());
        }
    }

    #[test]
    fn names_a_slow_node_or_a_slow_path_and_nothing_else() {
        for nodes in [3, 4, 8, 17] {
            assert!(told(nodes, |_, _| 1.0).is_empty());
            let host = told(
                nodes,
                |from, to| if from == 2 || to == 2 { 0.4 } else { 1.0 },
            );
            assert_eq!(host.len(), 1, "{host:?}");
            assert!(host[0].starts_with("node-2 sends at 0."), "{host:?}");
            let link = told(nodes, |_, to| if to == 1 { 0.4 } else { 1.0 });
            assert_eq!(link.len(), 1, "{link:?}");
            assert!(link[0].starts_with("node-1 receives at 0."), "{link:?}");
            let path = told(
                nodes,
                |from, to| if (from, to) == (0, 2) { 0.5 } else { 1.0 },
            );
            assert_eq!(path.len(), 1, "{path:?}");
            assert!(path[0].starts_with("node-0 to node-2 at 0."), "{path:?}");
        }
        assert!(told(2, |_, _| 1.0).is_empty());
        assert!(told(2, |from, _| [1.0, 0.3][from])[0].starts_with("node-1 to node-0"));
    }
}
