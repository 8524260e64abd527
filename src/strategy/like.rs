//! A strategy for another mesh, cut as an older one.

use super::axes::{EXPERT, USUAL, lies_on_experts_mesh, named};
use super::derive::{Mesh, innermost_step};
use super::ends::{Stages, is_first};
use super::layouts::Strategy;
use super::stage_layout::StageLayout;
use crate::fault::{Fault, Kind, Result};
use crate::layout::{Layout, OptimizerShard};
use std::sync::Arc;

fn usage(message: String) -> Fault {
    Fault::new(Kind::Usage, message)
}

/// The strategy on `mesh` in which each axis cuts what the axis in its place cuts in `old`.
///
/// The axes of `mesh` stand for those of `old`'s mesh in their order; ones of size 1 there need none. Where
/// experts lie on a mesh of their own, `ep` of `mesh` is theirs; left out, they are cut as before. A
/// tensor with an optimizer shard over all its replicas has one again, any other keeps its pieces. With
/// another number of stages layers (the first number between dots of a name) are spread evenly, and
/// what is no layer stays at the end that it is at, and goes where its name says from one stage.
///
/// # Errors
/// [`Kind::Usage`] if other tensors are cut on several meshes, another number of axes is given, or the ranks of a
/// stage can't share the experts;
/// [`Kind::Shape`], naming the tensor, where `old` tells shapes (JSON) that can't be cut so.
pub fn like(old: &Strategy, mesh: &Mesh) -> Result<Strategy> {
    let meshes = Meshes::between(old, mesh)?;
    let stages = mesh.stages();
    let dealt = match stages == old.stages() {
        true => None,
        false => Some(Stages::new(stages, old.names().map(|name| &**name))?),
    };
    let mut made: Vec<(Arc<str>, StageLayout)> = Vec::new();
    for (name, held) in old.iter() {
        let axes = meshes.of(name, held);
        let layout = axes.layout(held).map_err(|fault| fault.tensor(&**name))?;
        // A tied embedding is on two stages: where it was says more than its name.
        let begins = || match old.stages() {
            1 => is_first(name).unwrap_or(false),
            _ => held.stage == 0,
        };
        let dealt = dealt.as_ref().map(|dealt| dealt.of(name, begins));
        let stage = dealt.unwrap_or(held.stage);
        let known = |(other, it): &(Arc<str>, StageLayout)| other == name && it.stage == stage;
        // A tensor that two stages had is there once if these have become one.
        if made.last().is_none_or(|last| !known(last)) {
            made.push((Arc::clone(name), StageLayout::new(stage, layout)));
        }
    }
    let ranks =
        u32::try_from(meshes.main.ranks()).map_err(|_| usage("--mesh is too large".into()))?;
    Strategy::from_layouts(stages, ranks, made)
}

/// The mesh of most tensors, and that of experts where they have one of their own.
struct Meshes {
    main: Axes,
    experts: Option<Axes>,
}

impl Meshes {
    fn between(old: &Strategy, mesh: &Mesh) -> Result<Meshes> {
        let experts = old.iter().find(|(name, held)| has_experts_mesh(name, held));
        let Some((_, held)) = experts else {
            let main = Axes::between(old, mesh)?;
            return Ok(Meshes {
                main,
                experts: None,
            });
        };
        let main = Axes::between(old, &mesh.without(EXPERT))?;
        let before = held.layout.mesh().last().copied().unwrap_or(1);
        let (ranks, parts) = (main.ranks(), mesh.size(EXPERT).unwrap_or(before));
        if !ranks.is_multiple_of(parts) {
            let message = format!("{EXPERT}={parts} doesn't divide the {ranks} ranks of a stage");
            return Err(usage(message).hint(format!(
                "{EXPERT} of --mesh says how many share the experts"
            )));
        }
        let experts = Axes {
            new: vec![ranks / parts, parts],
            numbers: vec![Some(1), Some(0)],
        };
        Ok(Meshes {
            main,
            experts: Some(experts),
        })
    }

    /// The axes of this tensor.
    fn of(&self, name: &str, held: &StageLayout) -> &Axes {
        let experts = self.experts.as_ref();
        experts
            .filter(|_| has_experts_mesh(name, held))
            .unwrap_or(&self.main)
    }
}

/// Whether the tensor lies on the mesh of experts.
fn has_experts_mesh(name: &str, held: &StageLayout) -> bool {
    lies_on_experts_mesh(name, held.layout.mesh())
}

/// Which axis of the new mesh stands for which of the old one.
struct Axes {
    new: Vec<u64>,
    /// For each axis of the old mesh, from the left, the number from the right of the new one.
    numbers: Vec<Option<i64>>,
}

impl Axes {
    /// Those of the tensors of `old` that don't lie on the mesh of experts.
    fn between(old: &Strategy, mesh: &Mesh) -> Result<Axes> {
        let new = mesh.device_matrix();
        let cut = old.iter().filter(|(name, held)| {
            let map = held.layout.map();
            map.iter().any(|axes| !axes.is_empty()) && !has_experts_mesh(name, held)
        });
        let mut cut = cut.map(|(name, held)| (name, held.layout.mesh(), &held.layout));
        let Some((first, own, layout)) = cut.next() else {
            return Ok(Axes {
                new,
                numbers: Vec::new(),
            });
        };
        if let Some((other, mesh, _)) = cut.find(|(_, mesh, _)| *mesh != own) {
            let message = format!(
                "'{other}' is cut on the mesh {mesh:?}, but '{first}' on {own:?}: --mesh names one"
            );
            return Err(usage(message).hint("`shardloom strategy derive` knows such models"));
        }
        let wide: Vec<usize> = (0..own.len()).filter(|axis| own[*axis] > 1).collect();
        let places: Vec<usize> = match new.len() {
            count if count == own.len() => (0..own.len()).collect(),
            count if count == wide.len() => wide,
            count => {
                let message = format!(
                    "--mesh has {count} axes beside pp, and the old mesh {own:?} has {}",
                    own.len()
                );
                return Err(usage(message)
                    .hint("give a size for each of the old mesh's axes, in their order"));
            }
        };
        let called = named(first, own, &layout.axis_numbers());
        let other = mesh.names().zip(&places).find(|(name, axis)| {
            let stands_for = &*called[**axis];
            USUAL.contains(name) && USUAL.contains(&stands_for) && *name != stands_for
        });
        if let Some((name, axis)) = other {
            let message = format!(
                "--mesh has '{name}' where the old mesh, {own:?}, has '{}'",
                called[*axis]
            );
            let order: Vec<String> = called.iter().map(|name| format!("{name}=…")).collect();
            return Err(usage(message).hint(format!("give --mesh {}", order.join(","))));
        }
        let mut numbers = vec![None; own.len()];
        for (place, axis) in places.iter().enumerate() {
            numbers[*axis] = i64::try_from(new.len() - 1 - place).ok();
        }
        Ok(Axes { new, numbers })
    }

    /// Ranks of a stage.
    fn ranks(&self) -> u64 {
        self.new.iter().product()
    }

    fn layout(&self, held: &StageLayout) -> Result<Layout> {
        let old = &held.layout;
        let map = old.map().iter().map(|axes| {
            let axes: Vec<i64> = axes.iter().filter_map(|axis| self.numbers[*axis]).collect();
            if axes.is_empty() { vec![-1] } else { axes }
        });
        let map: Vec<Vec<i64>> = map.collect();
        let whole = Layout::new(&self.new, &map, None)?;
        let shard = old.optimizer().and_then(|shard| {
            let before = Layout::new(old.mesh(), &old.axis_numbers(), None).ok()?;
            let all = shard.size == -1 || u64::try_from(shard.size) == Ok(before.replicas());
            let pieces = if all {
                whole.replicas()
            } else {
                u64::try_from(shard.size).ok()?
            };
            let size = i64::try_from(pieces).ok().filter(|size| *size > 1)?;
            let step = innermost_step(&whole)?;
            Some(OptimizerShard { step, size })
        });
        let layout = match shard {
            Some(shard) => Layout::new(&self.new, &map, Some(shard))?,
            None => whole,
        };
        for (dimension, (size, parts)) in held
            .expanded_shape
            .iter()
            .flatten()
            .zip(layout.parts())
            .enumerate()
        {
            if !size.is_multiple_of(parts) {
                let message = format!(
                    "dimension {dimension}, of {size}, can't be cut into {parts} equal parts"
                );
                return Err(Fault::new(Kind::Shape, message));
            }
        }
        Ok(layout)
    }
}
