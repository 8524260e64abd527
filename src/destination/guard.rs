//! One run at a destination, agreed on by all processes.

use crate::course;
use crate::destination::place::Destination;
use crate::destination::probe::Storages;
use crate::exchange::{Operation, Topology, World, agree, all_reduce};
use crate::fault::Result;
use crate::store::commit::Staging;
use crate::store::io::{self, Standing};
use std::path::{Path, PathBuf};

impl Destination {
    /// Takes the lock of each directory that is written, for as long as this value lives. Collective.
    ///
    /// # Errors
    /// The same on every process: [`crate::fault::Kind::Busy`] if another run writes there.
    pub(crate) fn hold(&mut self, world: &World, command: &str) -> Result<()> {
        let staging = &mut self.staging;
        one_host_first(world, self.leads, || {
            staging.lock(command, world.hostname())
        })?;
        course::writes(self.staging.destination(), &self.staging.lock_path());
        Ok(())
    }
}

/// Where the lock of a directory is taken: once on each storage that nodes have there.
#[derive(Clone, Debug)]
pub struct Guard {
    path: PathBuf,
    /// Whether this process takes it.
    here: bool,
}

/// The lock of a directory, on the processes that have it: until it is dropped no job writes there.
#[derive(Debug)]
pub struct Held {
    _staging: Option<Staging>,
}

impl Guard {
    /// That of the directory at `path`, which need not stand. Collective.
    ///
    /// # Errors
    /// The same on every process: [`crate::fault::Kind::Io`].
    pub fn of(world: &World, topology: &Topology, path: &Path) -> Result<Guard> {
        let storages = Storages::find(world, topology, path)?;
        let process = world.process();
        let node = topology.node_of[process as usize];
        Ok(Guard {
            path: path.to_path_buf(),
            here: topology.leads(process) && storages.first(node) == node,
        })
    }

    /// Takes the lock for a command that changes what is in the directory. Collective.
    ///
    /// # Errors
    /// The same on every process: [`crate::fault::Kind::Busy`] if another run writes there,
    /// [`crate::fault::Kind::Io`].
    pub fn hold(&self, world: &World, command: &str) -> Result<Held> {
        let staging = one_host_first(world, self.here, || {
            let mut staging = Staging::new(&self.path)?;
            staging.lock(command, world.hostname())?;
            Ok(staging)
        })?;
        Ok(Held { _staging: staging })
    }
}

/// Takes the lock of the directory at `path`, on every node that has one there, for a command that changes
/// what is in it. Collective.
///
/// # Errors
/// As [`Guard::of`] and [`Guard::hold`].
pub fn hold(world: &World, topology: &Topology, path: &Path, command: &str) -> Result<Held> {
    let mut guard = Guard::of(world, topology, path)?;
    let stands = io::standing(path).map(|standing| standing != Standing::Nothing);
    guard.here &= agree(world, stands)?;
    guard.hold(world, command)
}

/// Takes the locks of one host, then those of the others; both runs agree which host that is. So of two runs that
/// begin together one gets all of them: if each began with another host, both might be refused. Collective.
fn one_host_first<T>(
    world: &World,
    takes: bool,
    mut take: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    let mine = match takes {
        true => u64::from(crc32fast::hash(world.hostname().as_bytes())),
        false => u64::MAX,
    };
    let mut first = [mine];
    all_reduce(world, &mut first, Operation::Min)?;
    let is_first = mine == first[0];
    let early = (takes && is_first).then(&mut take).transpose();
    let early = agree(world, early)?;
    let late = (takes && !is_first).then(&mut take).transpose();
    Ok(early.or(agree(world, late)?))
}
