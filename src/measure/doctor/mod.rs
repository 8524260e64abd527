//! What of this machine, this MPI and these places a job would meet, before it meets it.
//!
//! Each process looks at what it can see; equal findings of several nodes are told once. A check is a
//! function of what the system says (`system::Machine`), so that each can be tried with the words of others.

mod finding;
mod groups;
mod launch;
mod limits;
pub(super) mod memory;
mod places;
mod processes;
mod system;
mod ways;

pub use finding::{Examined, Finding, State};

use crate::course;
use crate::exchange::{Topology, World, all_gather};
use crate::fault::Result;
use finding::merged;
use std::path::PathBuf;
use system::{Machine, Seat};

/// Looks at everything that a job depends on, on every node, and at the file systems of `paths`.
/// Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`]. What is wrong with the machine is a finding.
pub fn examine(world: &World, paths: &[PathBuf]) -> Result<Examined> {
    course::phase("looking at the nodes");
    let topology = Topology::discover(world)?;
    let seat = Seat::of(world, &topology);
    let machine = Machine::here();
    let mut mine = Vec::new();
    // What is the same for all processes of a node is told by one.
    if topology.leads(world.process()) {
        mine.extend(processes::checks(&machine, &seat));
        mine.extend(ways::checks(&machine, &seat).map(|finding| finding.on(&seat.node)));
        mine.extend(limits::checks(&machine, &seat));
        mine.extend(memory::checks(&machine, &seat));
        mine.extend(launch::checks(&machine, &seat));
    }
    mine.extend(launch::binding(&machine, &seat));
    course::phase("trying file systems");
    let contained = launch::in_container(&machine);
    mine.extend(places::look(paths, &topology, world, contained));
    let mut all = all_gather(world, &mine)?;
    all.push(processes::alike(world, &topology)?);
    all.push(processes::clocks(world, &topology)?);
    all.push(places::shared(world, &topology, paths));
    Ok(Examined::new(world, &topology, merged(all)))
}
