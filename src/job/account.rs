//! What a report tells of a job beside its outcome: who did what when, what went where, and how
//! tensors lie before and after.

use crate::course::pace::{self, Paced};
use crate::exchange::{Topology, World, agree, decode, encode, exchange_bytes};
use crate::fault::Result;
use crate::plan::TensorPlan;
use crate::plan::sketch::{Sketch, sketches};
use crate::plan::survey::Survey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Tensors that are drawn.
const SKETCHES: usize = 6;
/// Processes whose pairs are told of, where there is one node.
const PAIRED_MAX: u32 = 64;

/// What a process did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Share {
    /// The process.
    pub process: u32,
    /// Bytes that it read.
    pub read: u64,
    /// Bytes that it got from others.
    pub received: u64,
    /// Bytes that it wrote.
    pub written: u64,
    /// What its time went into.
    pub paced: Paced,
    /// From whom it got how much.
    senders: BTreeMap<u32, u64>,
}

/// Bytes between places.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// What the places are: nodes, or processes.
    pub by_node: bool,
    /// Their names.
    pub names: Vec<String>,
    /// From, to, and how many bytes.
    pub bytes: BTreeMap<(u32, u32), u64>,
}

/// What a report tells of a job beside its outcome.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Account {
    /// The processes, in order.
    pub shares: Vec<Share>,
    /// What they sent each other.
    pub traffic: Traffic,
    /// Tensors before and after, the first chosen one first.
    pub sketches: Vec<Sketch>,
}

/// What this process adds to it.
#[derive(Clone, Copy, Default)]
pub(super) struct Part<'a> {
    pub(super) survey: Option<&'a Survey>,
    pub(super) plans: &'a [TensorPlan],
    pub(super) read: u64,
    pub(super) written: u64,
}

/// Collects it on process 0, if anything is measured (on all processes, or none). Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn account(
    world: &World,
    topology: &Topology,
    part: &Part<'_>,
) -> Result<Option<Box<Account>>> {
    if !pace::is_on() {
        return Ok(None);
    }
    let mine = Share {
        process: world.process(),
        read: part.read,
        received: part.survey.map_or(0, |survey| survey.received_bytes),
        written: part.written,
        paced: pace::now(),
        senders: part
            .survey
            .map(|survey| survey.senders.clone())
            .unwrap_or_default(),
    };
    let mine = agree(world, encode(&mine))?;
    let told = exchange_bytes(world, vec![(0, mine)])?;
    let shares = told.iter().map(|(_, bytes)| decode::<Share>(bytes));
    let mut shares = agree(world, shares.collect::<Result<Vec<_>>>())?;
    if world.process() != 0 {
        return Ok(Some(Box::default()));
    }
    shares.sort_by_key(|share| share.process);
    let chosen = pace::chosen();
    Ok(Some(Box::new(Account {
        traffic: traffic(&shares, &topology.node_of, topology.hostnames.clone()),
        shares,
        sketches: sketches(part.plans, chosen.as_deref(), SKETCHES),
    })))
}

impl Account {
    /// Tensors alone. Local.
    #[must_use]
    pub fn drawn(plans: &[TensorPlan]) -> Account {
        let chosen = pace::chosen();
        Account {
            sketches: sketches(plans, chosen.as_deref(), SKETCHES),
            ..Account::default()
        }
    }

    /// Adds what processes would do: of each its number, its part of a plan, and the bytes that it reads. Local.
    pub fn plan<'a>(
        &mut self,
        parts: impl Iterator<Item = (u32, &'a Survey, u64)>,
        node_of: &[u32],
        nodes: usize,
    ) {
        let share = |(process, survey, read): (u32, &Survey, u64)| Share {
            process,
            read,
            received: survey.received_bytes,
            written: survey.written_bytes,
            paced: Paced::default(),
            senders: survey.senders.clone(),
        };
        self.shares = parts.map(share).collect();
        let names = (0..nodes).map(|node| format!("node {node}"));
        self.traffic = traffic(&self.shares, node_of, names.collect());
    }
}

/// By nodes, or where there is one by its processes.
fn traffic(shares: &[Share], node_of: &[u32], nodes: Vec<String>) -> Traffic {
    let by_node = nodes.len() > 1 || shares.len() as u64 > PAIRED_MAX.into();
    let place = |process: u32| {
        let index = usize::try_from(process).unwrap_or_default();
        match by_node {
            true => node_of.get(index).copied().unwrap_or_default(),
            false => process,
        }
    };
    let names = match by_node {
        true => nodes,
        false => shares
            .iter()
            .map(|share| share.process.to_string())
            .collect(),
    };
    let mut bytes: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for share in shares {
        for (sender, count) in &share.senders {
            *bytes
                .entry((place(*sender), place(share.process)))
                .or_default() += count;
        }
    }
    Traffic {
        by_node,
        names,
        bytes,
    }
}
