//! How a tensor lies before and after a job, to be drawn.

use crate::plan::spread::Spread;
use crate::plan::tensor_plan::TensorPlan;
use std::collections::BTreeSet;

/// Most cells that are listed of a side.
const CELLS_MAX: u64 = 4096;
/// Most ranks that are named of a cell.
const HOLDERS_MAX: usize = 64;

/// A part of a tensor, and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// First element along each dimension.
    pub offset: Vec<u64>,
    /// Elements along each dimension.
    pub shape: Vec<u64>,
    /// The ranks that hold it, ascending; of many, the first.
    pub ranks: Vec<u32>,
    /// How many hold it.
    pub holders: usize,
}

/// A tensor on one side of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Side {
    /// Its name there.
    pub name: String,
    /// Its full shape.
    pub shape: Vec<u64>,
    /// How many parts each dimension is cut into.
    pub parts: Vec<u64>,
    /// The parts; of very many, the first.
    pub held: Vec<Held>,
    /// Whether all are listed.
    pub complete: bool,
}

/// A tensor before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sketch {
    /// Its element type, as it is written.
    pub dtype: String,
    /// What it is made of.
    pub before: Vec<Side>,
    /// What it becomes.
    pub after: Side,
}

/// Of tensors that are cut alike the largest, at most `most`, those that change first. The one called
/// `wanted` on either side leads.
#[must_use]
pub fn sketches(plans: &[TensorPlan], wanted: Option<&str>, most: usize) -> Vec<Sketch> {
    let mut order: Vec<&TensorPlan> = plans.iter().filter(|plan| !plan.is_beside()).collect();
    let is_wanted = |plan: &TensorPlan| {
        let sources = plan.pieces.iter().map(|(_, tensor)| &*tensor.name);
        wanted.is_some_and(|wanted| sources.chain([&*plan.name]).any(|name| name == wanted))
    };
    let bytes = |plan: &TensorPlan| {
        let shape = plan.destination.grid.full_shape();
        shape.0.iter().product::<u64>() * plan.element_bytes
    };
    order.sort_by_key(|plan| {
        let changes = key(plan).0 != key(plan).1;
        (!is_wanted(plan), !changes, std::cmp::Reverse(bytes(plan)))
    });
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for plan in order {
        if found.len() >= most {
            break;
        }
        if seen.insert(key(plan)) {
            found.push(sketch(plan));
        }
    }
    found
}

/// How a tensor is cut, before and after.
fn key(plan: &TensorPlan) -> (Vec<u64>, Vec<u64>, usize) {
    let first = plan
        .pieces
        .first()
        .and_then(|(_, tensor)| tensor.spreads.first());
    let before = first.map(parts).unwrap_or_default();
    (before, parts(&plan.destination), plan.pieces.len())
}

/// The cuts of each dimension, and how many ranks hold each part.
fn parts(spread: &Spread) -> Vec<u64> {
    let mut parts = spread.grid.parts().to_vec();
    parts.push(spread.layout.replicas());
    parts
}

fn sketch(plan: &TensorPlan) -> Sketch {
    let mut before = Vec::new();
    for (_, tensor) in &plan.pieces {
        if before.len() < 4
            && let Some(spread) = tensor.spreads.first()
        {
            before.push(side(&tensor.name, spread, &tensor.spreads));
        }
    }
    before.dedup();
    let all = std::slice::from_ref(&plan.destination);
    Sketch {
        dtype: plan.written.to_string(),
        before,
        after: side(&plan.name, &plan.destination, all),
    }
}

/// A side, in the first of the stages that have it.
fn side(name: &str, spread: &Spread, stages: &[Spread]) -> Side {
    let grid = &spread.grid;
    let count: u64 = grid.parts().iter().product();
    let mut held = Vec::new();
    let mut cell = vec![0; grid.parts().len()];
    for _ in 0..count.min(CELLS_MAX) {
        let region = grid.region(&cell);
        let ranks: Vec<u32> = stages
            .iter()
            .filter(|stage| stage.grid.parts() == grid.parts())
            .flat_map(|stage| stage.holders(&cell))
            .collect();
        held.push(Held {
            offset: region.offset,
            shape: region.shape.0,
            holders: ranks.len(),
            ranks: ranks.into_iter().take(HOLDERS_MAX).collect(),
        });
        for (at, parts) in cell.iter_mut().zip(grid.parts()).rev() {
            *at += 1;
            if *at < *parts {
                break;
            }
            *at = 0;
        }
    }
    Side {
        name: name.to_owned(),
        shape: grid.full_shape().0,
        parts: grid.parts().to_vec(),
        held,
        complete: count <= CELLS_MAX,
    }
}
