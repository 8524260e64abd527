//! A layout as `metadata.json` has it: a device matrix and a tensor map, without an optimizer shard.

use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use serde_json::{Value, json};

/// Number of the cell that local rank `rank` holds, cells counted row by row.
#[must_use]
pub fn ordinal_of(layout: &Layout, rank: u32) -> u64 {
    let cells = layout.cell(rank).into_iter().zip(layout.parts());
    cells.fold(0, |ordinal, (cell, parts)| ordinal * parts + cell)
}

/// Reads a layout by position: device matrix, tensor map, (interleaved), (names), rank list.
pub(super) fn read_layout(value: &Value, shape: &[u64]) -> Result<(u32, Layout)> {
    let bad = |what: &str| {
        Fault::new(
            Kind::Strategy,
            format!("{what} of its layout can't be read"),
        )
    };
    let fields: Vec<&Value> = match value {
        Value::Object(map) => map.values().collect(),
        Value::Array(list) => list.iter().collect(),
        _ => return Err(bad("the form")),
    };
    let numbers = |value: &Value| -> Option<Vec<i64>> {
        value.as_array()?.iter().map(Value::as_i64).collect()
    };
    let mesh = fields.first().and_then(|mesh| numbers(mesh));
    let mesh: Option<Vec<u64>> =
        mesh.and_then(|mesh| mesh.into_iter().map(|n| u64::try_from(n).ok()).collect());
    let mesh = mesh.ok_or_else(|| bad("the device matrix"))?;
    let entry = |value: &Value| match value {
        Value::Array(_) => numbers(value),
        _ => Some(vec![value.as_i64()?]),
    };
    let map = fields.get(1).and_then(|map| map.as_array());
    let map: Option<Vec<Vec<i64>>> = map.and_then(|map| map.iter().map(entry).collect());
    let mut map = map.ok_or_else(|| bad("the tensor map"))?;
    if map.is_empty() && !shape.is_empty() {
        map = vec![vec![-1]; shape.len()];
    }
    if fields.get(2).and_then(|value| value.as_bool()) == Some(true) {
        return Err(Fault::new(Kind::Unsupported, "its layout is interleaved"));
    }
    let ranks = fields
        .get(4)
        .and_then(|ranks| numbers(ranks))
        .unwrap_or_default();
    let first = ranks.first().copied().unwrap_or(0);
    let contiguous = (first..)
        .zip(&ranks)
        .all(|(expected, rank)| expected == *rank);
    let first = u32::try_from(first).ok().filter(|_| contiguous);
    let first = first.ok_or_else(|| bad("the rank list (not one run of ranks)"))?;
    Ok((first, Layout::new(&mesh, &map, None)?))
}

/// Writes a layout over the ranks from `first_rank` on, as MindSpore does.
///
/// # Errors
/// As [`fold`].
pub(super) fn write_layout(layout: &Layout, first_rank: u32) -> Result<Value> {
    let (mesh, map) = fold(layout)?;
    let map: Vec<Value> = map
        .iter()
        .map(|axes| match axes[..] {
            [] => json!(-1),
            [axis] => json!(axis),
            _ => json!(axes),
        })
        .collect();
    let names: Vec<String> = ('a'..='z').take(mesh.len()).map(String::from).collect();
    let ranks: Vec<u32> = (first_rank..first_rank + layout.ranks()).collect();
    Ok(json!({
        "device_matrix": mesh, "tensor_map": map, "interleaved_parallel": false,
        "alias_name": names, "rank_list": ranks,
    }))
}

/// A mesh and a tensor map, axes numbered from the right.
type Plain = (Vec<u64>, Vec<Vec<usize>>);

/// The same layout without an optimizer shard: its pieces become a further cut of dimension 0, by the
/// innermost mesh axes that cut nothing. An axis of which only a part is needed becomes two.
///
/// # Errors
/// [`Kind::Unsupported`] if an axis can't be cut so.
pub fn fold(layout: &Layout) -> Result<Plain> {
    let mut mesh: Vec<u64> = layout.mesh().to_vec();
    let mut map: Vec<Vec<usize>> = layout.map().to_vec();
    if layout.optimizer_pieces() > 1 {
        let mut left = layout.replicas();
        let mut added = Vec::new();
        let mut axis = 0;
        while axis < mesh.len() {
            if map.iter().flatten().any(|used| *used == axis) || mesh[axis] == 1 {
            } else if left.is_multiple_of(mesh[axis]) {
                left /= mesh[axis];
            } else if left == 1 {
                added.push(axis);
            } else if mesh[axis].is_multiple_of(left) {
                // Outer part: replicas. Inner part: pieces.
                let inner = mesh[axis] / left;
                mesh[axis] = left;
                mesh.insert(axis + 1, inner);
                for used in map.iter_mut().flatten().chain(&mut added) {
                    *used += usize::from(*used > axis);
                }
                left = 1;
            } else {
                let message = "the optimizer shard cuts a mesh axis unevenly, which a checkpoint 2.0 can't say";
                return Err(Fault::new(Kind::Unsupported, message));
            }
            axis += 1;
        }
        if let Some(first) = map.first_mut() {
            first.extend(added);
        }
    }
    let last = mesh.len() - 1;
    let numbers = map
        .iter()
        .map(|axes| axes.iter().map(|axis| last - axis).collect());
    Ok((mesh, numbers.collect()))
}
