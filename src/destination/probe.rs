//! Whether nodes share the place of the destination.
//!
//! Process 0 puts a file of a random name there, and a process of each node looks for it. Storage that
//! nodes share over a network may show a new file late; so a node whose directory may be the same
//! looks again for [`PATIENCE`]. If not all see it, each node puts one, to find out which of them share.

use crate::exchange::{
    Topology, World, agree, all_gather, broadcast_bytes, decode, encode, exchange_bytes,
};
use crate::fault::{Fault, Kind, Result};
use crate::host::clock;
use crate::host::identity::{is_late, random};
use crate::store::io::{self, Standing};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a node looks for the file of another, where its directory looks the same.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between the first two looks; doubled from look to look.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What process 0 has put where.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Token {
    /// Name of the file.
    name: String,
    /// What tells its directory from others.
    directory: io::Likeness,
}

/// Which nodes share the place of the destination.
#[derive(Clone, Debug)]
pub(super) struct Storages {
    /// Of each node, the first node that has the same.
    first: Vec<u32>,
}

impl Storages {
    /// Asks the nodes about the destination at `path`. Collective.
    ///
    /// # Errors
    /// The same on every process: [`Kind::Io`].
    pub(super) fn find(world: &World, topology: &Topology, path: &Path) -> Result<Storages> {
        let nodes = topology.nodes.len();
        if nodes == 1 || probe(world, topology, path)? {
            return Ok(Storages {
                first: vec![0; nodes],
            });
        }
        let first = each(world, topology, path)?;
        Ok(Storages { first })
    }

    /// Whether all nodes share it.
    pub(super) fn shared(&self) -> bool {
        self.first.iter().all(|first| *first == 0)
    }

    /// The node that stands for all that have what `node` has.
    pub(super) fn first(&self, node: u32) -> u32 {
        self.first.get(node as usize).copied().unwrap_or(node)
    }

    /// The first process of the node that stands for all that have what the node of `process` has.
    pub(super) fn leader(&self, topology: &Topology, process: u32) -> u32 {
        let first = self.first(topology.node_of[process as usize]);
        topology.nodes[first as usize][0]
    }

    /// Who writes to the storage that the node of `process` has: itself, if that node stands for all.
    pub(super) fn writer(&self, topology: &Topology, process: u32) -> u32 {
        let node = topology.node_of[process as usize];
        if self.first(node) == node {
            return process;
        }
        self.leader(topology, process)
    }

    /// Whether no other node has the storage that the node of `process` has.
    pub(super) fn of_one_node(&self, topology: &Topology, process: u32) -> bool {
        let own = self.first(topology.node_of[process as usize]);
        self.first.iter().filter(|first| **first == own).count() == 1
    }

    /// Whether two processes have the same storage.
    pub(super) fn same(&self, topology: &Topology, one: u32, other: u32) -> bool {
        let first = |process: u32| self.first(topology.node_of[process as usize]);
        first(one) == first(other)
    }
}

/// Of each node, the first node that has the same storage for the destination at `path`. Collective.
///
/// # Errors
/// The same on every process: [`Kind::Io`].
pub(crate) fn sharing(world: &World, topology: &Topology, path: &Path) -> Result<Vec<u32>> {
    Storages::find(world, topology, path).map(|storages| storages.first)
}

/// Of each node, the first one whose file it sees. Collective.
fn each(world: &World, topology: &Topology, path: &Path) -> Result<Vec<u32>> {
    let leads = topology.leads(world.process());
    let put = leads.then(|| put(path)).transpose();
    let (mine, failed) = match put {
        Ok(mine) => (mine, Ok(())),
        Err(fault) => (None, Err(fault)),
    };
    let found = agree(world, failed).and_then(|()| {
        let token = mine.as_ref().map(|(_, token)| token.clone());
        let tokens: Vec<Token> = all_gather(world, &token)?.into_iter().flatten().collect();
        let node = topology.node_of[world.process() as usize];
        let before = tokens.iter().take(node as usize);
        let first = before.zip(0u32..).find(|(token, _)| sees(path, token));
        let first = first.map_or(node, |(_, node)| node);
        let all = all_gather(world, &leads.then_some(first))?;
        Ok(all.into_iter().flatten().collect())
    });
    let removed = mine.map_or(Ok(()), |(file, _)| io::remove(&file));
    let found = found?;
    agree(world, removed)?;
    Ok(found)
}

/// Whether all nodes see what process 0 puts at the destination. Collective.
fn probe(world: &World, topology: &Topology, path: &Path) -> Result<bool> {
    let put = if world.process() == 0 {
        put(path)
    } else {
        Ok((PathBuf::new(), Token::default()))
    };
    let (file, token) = agree(world, put)?;
    let sent = agree(world, encode(&token))?;
    let token = agree(world, decode(&broadcast_bytes(world, 0, sent)?))?;
    let seen = !topology.leads(world.process()) || sees(path, &token);
    let answers = exchange_bytes(world, vec![(0, vec![u8::from(seen)])])?;
    let all = answers.iter().all(|(_, answer)| answer == &[1]);
    let removed = if world.process() == 0 {
        io::remove(&file)
    } else {
        Ok(())
    };
    agree(world, removed)?;
    Ok(broadcast_bytes(world, 0, vec![u8::from(all)])? == [1])
}

/// Whether the token is seen here, soon or after some looks. Local.
fn sees(path: &Path, token: &Token) -> bool {
    let Ok(directory) = standing_directory(path) else {
        return false;
    };
    let file = directory.join(&token.name);
    let here = |file: &Path| {
        let stands = |standing| standing == Standing::File && !is_late();
        io::glance(file).is_ok_and(stands)
    };
    let listed = || {
        // A list is asked for anew where a single name may be remembered as absent.
        let names = io::list(&directory).unwrap_or_default();
        names
            .iter()
            .any(|(name, _)| *name == token.name && !is_late())
    };
    if here(&file) || listed() {
        return true;
    }
    let alike = io::likeness(&directory).is_ok_and(|own| own.may_be(&token.directory));
    let (begin, mut pause) = (clock::now(), PAUSE);
    while alike && clock::since(begin) < PATIENCE {
        clock::sleep(pause);
        if here(&file) || listed() {
            return true;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
    false
}

/// The nearest directory above what is staged for `path` that exists: of a mount point itself.
pub(crate) fn standing_directory(path: &Path) -> Result<PathBuf> {
    if io::glance(path)? != Standing::Nothing && io::is_mount(path)? {
        return Ok(path.to_path_buf());
    }
    let mut directory = path.parent().unwrap_or(Path::new(""));
    loop {
        let here = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        match io::glance(here)? {
            Standing::Directory | Standing::EmptyDirectory => return Ok(here.to_path_buf()),
            Standing::File => {
                let fault = Fault::new(Kind::Io, "is no directory");
                return Err(fault.file(here.display().to_string()));
            }
            Standing::Nothing => directory = directory.parent().unwrap_or(Path::new("")),
        }
    }
}

fn put(path: &Path) -> Result<(PathBuf, Token)> {
    let directory = standing_directory(path)?;
    // No name comes twice.
    let token = Token {
        name: format!(".shardloom-probe-{:016x}{:016x}", random(), random()),
        directory: io::likeness(&directory)?,
    };
    let file = directory.join(&token.name);
    io::write_small(&file, b"shardloom asks who sees this", false)?;
    Ok((file, token))
}
