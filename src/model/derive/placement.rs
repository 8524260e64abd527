//! A job's network, and the mesh and the tensor map that it gives a tensor, before the optimizer shard.

use super::job::Job;
use super::network::{Network, Parameter};
use crate::model::choices::Scheme;
use crate::model::training::Cut;

/// A device matrix, and for each dimension the axes that cut it, numbered from the right; -1: none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Placement {
    pub(super) mesh: Vec<u64>,
    pub(super) map: Vec<Vec<i64>>,
}

/// The network that a job trains.
pub(super) fn network(job: &Job) -> Network<'_> {
    Network {
        family: &job.family,
        training: &job.training,
        numbers: &job.numbers,
        as_model: job.as_model,
    }
}

/// Where a tensor goes.
pub(super) fn place(job: &Job, parameter: &Parameter) -> Placement {
    match job.scheme {
        Scheme::Mcore => mcore(job, parameter),
        Scheme::Legacy => legacy(job, parameter),
    }
}

/// A map of `dimensions`, of which `dimension` is cut by `axis`.
fn cut(dimensions: usize, dimension: usize, axis: i64) -> Vec<Vec<i64>> {
    let mut map = vec![vec![-1]; dimensions];
    if let Some(axes) = map.get_mut(dimension) {
        *axes = vec![axis];
    }
    map
}

/// Meshes with all their axes, those of size 1 too.
fn mcore(job: &Job, parameter: &Parameter) -> Placement {
    let mesh = &job.mesh;
    let dimensions = parameter.shape.len();
    let whole = vec![vec![-1]; dimensions];
    let main = vec![mesh.data, mesh.context, mesh.tensor];
    let experts = vec![mesh.ranks_per_stage() / mesh.expert, mesh.expert];
    let (mesh, map) = match parameter.cut {
        Cut::Column | Cut::Head | Cut::HeadByAll => (main, cut(dimensions, 0, 0)),
        Cut::Row => (main, cut(dimensions, 1, 0)),
        Cut::Embedding if mesh.tensor > 1 => (main, cut(dimensions, 0, 0)),
        Cut::Embedding | Cut::Whole | Cut::Norm | Cut::LastNorm => (main, whole),
        Cut::Router => (experts, whole),
        Cut::Expert => (experts, cut(dimensions, 0, 0)),
        Cut::Balance => (vec![mesh.ranks_per_stage()], whole),
    };
    Placement { mesh, map }
}

/// Meshes as the operators make them: axes of size 1 drop out.
fn legacy(job: &Job, parameter: &Parameter) -> Placement {
    let mesh = &job.mesh;
    let dimensions = parameter.shape.len();
    let whole = vec![vec![-1]; dimensions];
    let rows = parameter.shape.first().copied().unwrap_or(1);
    let layers = vec![mesh.data * mesh.context, mesh.tensor];
    if let Some(cubic) = &job.cubic {
        let axes = vec![mesh.data, mesh.context, cubic.z, cubic.x, cubic.y];
        let map = match parameter.cut {
            Cut::Column => Some(vec![vec![0], vec![1, 2]]),
            Cut::Row => Some(vec![vec![1], vec![0, 2]]),
            Cut::Norm => Some(vec![vec![1]]),
            _ => None,
        };
        if let Some(map) = map {
            return Placement { mesh: axes, map };
        }
    }
    let every = vec![mesh.data, mesh.context, mesh.tensor];
    let vocabulary = mesh.tensor * mesh.context;
    let stage = mesh.ranks_per_stage();
    let (mesh, map) = match parameter.cut {
        Cut::Column => (layers, cut(dimensions, 0, 0)),
        Cut::Row => (layers, cut(dimensions, 1, 0)),
        Cut::Head if !job.vocabulary_whole && rows.is_multiple_of(mesh.tensor) => {
            (layers, cut(dimensions, 0, 0))
        }
        Cut::HeadByAll if !job.vocabulary_whole && rows.is_multiple_of(stage) => {
            (vec![stage], cut(dimensions, 0, 0))
        }
        // Otherwise sequence parallel cuts it as the layers.
        Cut::HeadByAll if job.sequence => (layers, cut(dimensions, 0, 0)),
        Cut::Head | Cut::HeadByAll => (layers, whole),
        Cut::Embedding if !job.vocabulary_whole && rows.is_multiple_of(vocabulary) => {
            (vec![mesh.data, vocabulary], cut(dimensions, 0, 0))
        }
        Cut::Norm => (vec![mesh.data, vocabulary], whole),
        _ => (every, whole),
    };
    narrowed(&mesh, &map)
}

/// The same without axes of size 1; what such an axis cut isn't cut.
pub(super) fn narrowed(mesh: &[u64], map: &[Vec<i64>]) -> Placement {
    let wide: Vec<usize> = (0..mesh.len()).filter(|axis| mesh[*axis] > 1).collect();
    let renumbered = |number: &i64| {
        let from_right = usize::try_from(*number).ok()?;
        let axis = mesh.len().checked_sub(1 + from_right)?;
        let place = wide.iter().position(|wide| *wide == axis)?;
        i64::try_from(wide.len() - 1 - place).ok()
    };
    let map = map.iter().map(|axes| {
        let axes: Vec<i64> = axes.iter().filter_map(renumbered).collect();
        if axes.is_empty() { vec![-1] } else { axes }
    });
    let sizes: Vec<u64> = wide.iter().map(|axis| mesh[*axis]).collect();
    Placement {
        mesh: if sizes.is_empty() { vec![1] } else { sizes },
        map: map.collect(),
    }
}
