//! Whether all processes mean the same job.
//!
//! Each reads by itself what a command names beside weights and strategies: name maps, models' and adapters'
//! configurations. On nodes with disks of their own these are files of their own.

use crate::exchange::{Topology, World, all_gather};
use crate::fault::{Fault, Kind, Result};
use crate::plan::TensorPlan;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Checks it by the plans that all make, and by `more` that the result depends on. Collective.
///
/// # Errors
/// [`Kind::Differs`] naming two processes and their nodes, the same on every process.
pub(super) fn check(
    world: &World,
    topology: &Topology,
    plans: &[TensorPlan],
    more: &str,
) -> Result<()> {
    let all: Vec<u64> = all_gather(world, &number(plans, more))?;
    let Some(other) = all.iter().position(|number| *number != all[0]) else {
        return Ok(());
    };
    let host = |process: usize| {
        let node = topology.node_of.get(process).map(|node| *node as usize);
        let name = node.and_then(|node| topology.hostnames.get(node));
        name.map_or("?", String::as_str)
    };
    let (one, two) = (host(0), host(other));
    let message = format!("processes 0 on {one} and {other} on {two} would do different things");
    Err(Fault::new(Kind::Differs, message).hint(HINT))
}

/// What to do about it.
const HINT: &str = "is a file that the command names another one there: a name map, config.json, the trainer's YAML file, \
                    an adapter's configuration? Give all nodes the same, and all processes the same command";

fn number(plans: &[TensorPlan], more: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    more.hash(&mut hasher);
    for plan in plans {
        (&plan.name, plan.written, plan.form, plan.zeros_from).hash(&mut hasher);
        for (piece, _) in &plan.pieces {
            piece.hash(&mut hasher);
        }
    }
    hasher.finish()
}
