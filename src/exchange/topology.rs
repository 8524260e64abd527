//! Which processes share a node.

use super::agree::agree;
use super::control::{all_gather_bytes, reduce_over};
use super::operation::Operation;
use super::wire::{decode, encode};
use super::world::World;
use crate::fault::{Fault, Kind, Result};
use std::collections::BTreeMap;

/// Which processes share a node: node numbers follow the lowest process of each.
///
/// The environment variable `SHARDLOOM_NODES=N` pretends N nodes, each with a contiguous block of
/// the processes. It is for tests on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Process → its node.
    pub node_of: Vec<u32>,
    /// Node → its processes, ascending.
    pub nodes: Vec<Vec<u32>>,
    /// Node → name of its machine.
    pub hostnames: Vec<String>,
}

impl Topology {
    /// *Collective.* Asks MPI which processes share memory. Every process gets the same answer.
    ///
    /// # Errors
    /// The same on every process: [`Kind::Mpi`] if they run programs of several versions.
    pub fn discover(world: &World) -> Result<Self> {
        let pretended = agree(world, pretended_nodes())?;
        let leader = match pretended {
            Some(nodes) => leader_in_block(world.process(), world.size(), nodes),
            None => leader_in_memory(world)?,
        };
        let name = (leader == world.process()).then(|| match pretended {
            Some(_) => format!("{}#{leader}", world.hostname()),
            None => world.hostname().to_owned(),
        });
        // Kept as the text that it is in the program.
        let version = std::hint::black_box(env!("CARGO_PKG_VERSION"));
        let gathered = all_gather_bytes(world, &encode(&(leader, name, version))?)?;
        let told = gathered
            .iter()
            .map(|bytes| decode::<(u32, Option<String>, String)>(bytes))
            .collect::<Result<Vec<_>>>()?;
        let versions = told.iter().map(|(_, _, version)| version.as_str());
        one_version(&versions.collect::<Vec<_>>())?;
        let places: Vec<(u32, Option<String>)> = told
            .into_iter()
            .map(|(leader, name, _)| (leader, name))
            .collect();
        Topology::new(&places)
    }

    /// *Local.* From each process's lowest neighbour, and the host name of those who are it.
    fn new(places: &[(u32, Option<String>)]) -> Result<Self> {
        let mut groups: BTreeMap<u32, (Vec<u32>, String)> = BTreeMap::new();
        for (process, (leader, name)) in (0..).zip(places) {
            let group = groups.entry(*leader).or_default();
            group.0.push(process);
            if let Some(name) = name {
                group.1.clone_from(name);
            }
        }
        let mut node_of = vec![0; places.len()];
        let (mut nodes, mut hostnames) = (Vec::new(), Vec::new());
        for (node, (leader, (members, name))) in (0..).zip(groups) {
            if members.first() != Some(&leader) {
                let message = format!("process {leader} is not on the node it should lead");
                return Err(Fault::new(Kind::Internal, message));
            }
            for (process, place) in (0..).zip(&mut node_of) {
                if members.binary_search(&process).is_ok() {
                    *place = node;
                }
            }
            nodes.push(members);
            hostnames.push(name);
        }
        Ok(Topology {
            node_of,
            nodes,
            hostnames,
        })
    }

    /// *Local.* Whether `process` is the lowest of its node, which acts for the others where one is enough.
    #[must_use]
    pub fn leads(&self, process: u32) -> bool {
        self.nodes
            .iter()
            .any(|members| members.first() == Some(&process))
    }

    /// *Local.* Whether two processes share a node.
    #[must_use]
    pub fn share_node(&self, a: u32, b: u32) -> bool {
        let node = |process| self.node_of.get(usize::try_from(process).ok()?);
        node(a).is_some() && node(a) == node(b)
    }
}

/// *Local.* Whether all processes run one version of the program.
fn one_version(versions: &[&str]) -> Result<()> {
    let Some((first, rest)) = versions.split_first() else {
        return Ok(());
    };
    let Some((other, process)) = rest.iter().zip(1..).find(|(other, _)| *other != first) else {
        return Ok(());
    };
    let message = format!(
        "process 0 runs version {first} of this program, process {process} version {other}: {} of {} run \
         another than process 0",
        rest.iter().filter(|other| *other != first).count(),
        versions.len()
    );
    Err(Fault::new(Kind::Mpi, message).hint("put one version of it on all nodes"))
}

/// *Local.* What `SHARDLOOM_NODES` says.
fn pretended_nodes() -> Result<Option<u32>> {
    let Some(text) = std::env::var_os("SHARDLOOM_NODES") else {
        return Ok(None);
    };
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(nodes) if nodes > 0 => Ok(Some(nodes)),
        _ => Err(Fault::new(
            Kind::Usage,
            format!(
                "SHARDLOOM_NODES is {}, not a number of nodes",
                text.to_string_lossy()
            ),
        )),
    }
}

/// *Local.* First process of the block that `process` of `size` is in, of `nodes` blocks.
fn leader_in_block(process: u32, size: u32, nodes: u32) -> u32 {
    let nodes = nodes.min(size);
    let block = |process: u32| u64::from(process) * u64::from(nodes) / u64::from(size);
    (0..process)
        .rev()
        .take_while(|other| block(*other) == block(process))
        .last()
        .unwrap_or(process)
}

/// *Collective.* Lowest of the processes that share memory with this one.
fn leader_in_memory(world: &World) -> Result<u32> {
    let node = world.control.split_by_node(world.process())?;
    let mut lowest = [u64::from(world.process())];
    reduce_over(node, world.chunk_bytes_max, &mut lowest, Operation::Min)?;
    node.free()?;
    u32::try_from(lowest[0]).map_err(|_| Fault::new(Kind::Internal, "no process leads this node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_nodes_by_their_lowest_process() {
        let named = |leader, name: &str| (leader, Some(name.to_owned()));
        let places = [
            named(0, "a"),
            named(1, "b"),
            (0, None),
            (1, None),
            (1, None),
        ];
        let topology = Topology::new(&places).unwrap();
        assert_eq!(topology.node_of, [0, 1, 0, 1, 1]);
        assert_eq!(topology.nodes, [vec![0, 2], vec![1, 3, 4]]);
        assert_eq!(topology.hostnames, ["a", "b"]);
        assert!(topology.leads(0) && topology.leads(1) && !topology.leads(2));
        assert!(topology.share_node(1, 4) && !topology.share_node(0, 1));
        assert!(!topology.share_node(0, 5) && !topology.share_node(5, 6));
    }

    #[test]
    fn deals_processes_in_contiguous_blocks() {
        let leaders = |size, nodes| -> Vec<u32> {
            (0..size)
                .map(|process| leader_in_block(process, size, nodes))
                .collect()
        };
        assert_eq!(leaders(8, 2), [0, 0, 0, 0, 4, 4, 4, 4]);
        assert_eq!(leaders(5, 2), [0, 0, 0, 3, 3]);
        assert_eq!(leaders(2, 4), [0, 1]);
    }
}
