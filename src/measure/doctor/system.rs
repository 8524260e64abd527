//! What the system says of itself, in a form that a test can fill with other words.

use crate::exchange::{Topology, World};
use crate::store::io;
use std::path::Path;
use std::time::SystemTime;

/// Limits by their letter: what is limited, soft, hard; none is no limit.
pub(super) type Limits = Vec<(char, &'static str, Option<u64>, Option<u64>)>;

/// Answers by name.
type Asked = Box<dyn Fn(&str) -> Option<String>>;

/// What the system tells a process.
pub(super) struct Machine {
    /// The value of an environment variable.
    pub(super) variable: Asked,
    /// What a small text file holds (`/proc`, `/sys`).
    pub(super) text: Asked,
    /// This process's limits.
    pub(super) limits: Limits,
    /// Bytes of memory.
    pub(super) memory: u64,
    /// Bytes free in `/dev/shm`; none if it isn't there.
    pub(super) shared_memory: Option<u64>,
    /// Cores that this process may run on.
    pub(super) cores: u64,
    /// Whether it runs as root.
    pub(super) root: bool,
    /// Network cards that can reach another node's memory, as InfiniBand's.
    pub(super) cards: Vec<String>,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Machine {
    /// This machine.
    pub(super) fn here() -> Machine {
        Machine {
            variable: Box::new(|name| std::env::var(name).ok()),
            text: Box::new(|path| io::read_text(path).ok()),
            limits: io::limits(),
            memory: io::memory_bytes(),
            shared_memory: io::free_bytes(Path::new("/dev/shm")).ok(),
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            root: io::is_root(),
            cards: cards(),
            now: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |now| now.as_secs()),
        }
    }

    /// Whether a variable is set.
    pub(super) fn has(&self, name: &str) -> bool {
        (self.variable)(name).is_some()
    }

    /// A number that a variable holds.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        (self.variable)(name)?.trim().parse().ok()
    }

    /// A machine where all is as it should be, for tests.
    #[cfg(test)]
    pub(super) fn sound() -> Machine {
        let cores = "Cpus_allowed_list:\t0-7\n";
        Machine {
            variable: Box::new(|_| None),
            text: Box::new(move |path| (path == "/proc/self/status").then(|| cores.to_owned())),
            limits: vec![('n', "open files", Some(1 << 20), Some(1 << 20))],
            memory: 64 << 30,
            shared_memory: Some(32 << 30),
            cores: 8,
            root: false,
            cards: Vec::new(),
            now: 1_000_000,
        }
    }
}

fn cards() -> Vec<String> {
    let listed = io::list(Path::new("/sys/class/infiniband"));
    let names = listed.unwrap_or_default().into_iter();
    names.map(|(name, _)| name).collect()
}

/// Where this process sits.
pub(super) struct Seat {
    /// Its node's name.
    pub(super) node: String,
    /// Processes on its node.
    pub(super) neighbours: u64,
    /// Processes in all.
    pub(super) processes: u64,
    /// Nodes in all.
    pub(super) nodes: u64,
    /// The MPI library.
    pub(super) library: String,
    /// The way between processes that it is built for, where it says so.
    pub(super) device: Option<String>,
}

impl Seat {
    /// That of this process. Local.
    pub(super) fn of(world: &World, topology: &Topology) -> Seat {
        let node = topology
            .node_of
            .get(world.process() as usize)
            .map_or(0, |node| *node as usize);
        Seat {
            node: topology.hostnames.get(node).cloned().unwrap_or_default(),
            neighbours: topology.nodes.get(node).map_or(1, |all| all.len() as u64),
            processes: u64::from(world.size()),
            nodes: topology.nodes.len() as u64,
            library: World::library(),
            device: World::device(),
        }
    }

    /// A process of two on one node, for tests.
    #[cfg(test)]
    pub(super) fn pair() -> Seat {
        Seat {
            node: "a".to_owned(),
            neighbours: 2,
            processes: 2,
            nodes: 1,
            library: "Open MPI v4.1.4".to_owned(),
            device: None,
        }
    }
}
