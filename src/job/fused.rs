//! Fused rows that are for one tensor-parallel size.

use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::plan::arrange::Files;
use crate::plan::build::Build;
use std::collections::BTreeMap;

/// What files say of that size.
const SIZE: &str = "shardloom.tp";
/// What they say of how rows are fused, and the modules of which.
const FUSED: [(&str, [&str; 3]); 2] = [
    ("shardloom.qkv", ["linear_qkv", "w_qkv", "query_key_value"]),
    (
        "shardloom.ffn",
        ["linear_fc1", "w_gate_hidden", "dense_h_to_4h"],
    ),
];
/// The word for rows of which each rank has its part one after the other.
const CONTIGUOUS: &str = "contiguous";

/// Refuses to cut tensors anew into other parts than their rows are fused for, by the `metadata` that is written. Full weights
/// say what they are for; what a view fuses is for one size, too. Local.
///
/// # Errors
/// [`Kind::Strategy`] naming the tensor.
pub(super) fn refuse(
    files: &Files,
    (metadata, is_view): (&BTreeMap<String, String>, bool),
    build: &Build,
) -> Result<()> {
    let size = metadata.get(SIZE).and_then(|size| size.parse::<u64>().ok());
    let Some(size) = size else { return Ok(()) };
    let whole = matches!(files, Files::Full { .. });
    // A directory that tells its layout has whole tensors, however it is cut.
    if whole || is_view && matches!(files, Files::Directory { .. }) {
        return Ok(());
    }
    let contiguous =
        |(key, _): &&(&str, _)| metadata.get(*key).is_some_and(|way| way == CONTIGUOUS);
    let modules: Vec<&str> = FUSED
        .iter()
        .filter(contiguous)
        .flat_map(|(_, names)| *names)
        .collect();
    let fused = |name: &str| {
        // Experts of the mixture are cut otherwise.
        !name.contains(".experts.") && name.split('.').any(|part| modules.contains(&part))
    };
    for plan in build
        .stages
        .iter()
        .flatten()
        .filter(|plan| fused(&plan.name))
    {
        let parts = parts_of(&plan.destination.layout);
        let source = plan
            .pieces
            .first()
            .and_then(|(_, tensor)| tensor.spreads.first());
        // A view is made of full weights.
        let source = source.filter(|_| !is_view);
        let as_before = source.map_or(1, |spread| parts_of(&spread.layout)) == parts;
        // What a rank has whole are its own rows; a directory that tells its layout says what they are for.
        let of_ranks = !matches!(files, Files::Directory { .. });
        if parts != size && !(as_before && (parts > 1 || !of_ranks)) {
            let message = format!(
                "its rows are fused for a tensor-parallel size of {size}, and it would be cut into {parts}: no rank would \
                 have the rows that are its own"
            );
            let fault = Fault::new(Kind::Strategy, message).tensor(&*plan.name);
            if is_view {
                return Err(fault.hint(format!(
                    "--tp {parts}, if all that is fused is cut so; interleaved rows (--qkv, --ffn) go with any cut"
                )));
            }
            return Err(fault.hint(format!(
                "`shardloom reshard --qkv contiguous --ffn contiguous --tp {parts} --model DIR` fuses them anew for that"
            )));
        }
    }
    Ok(())
}

/// Into how many parts a mesh cuts a tensor's rows.
fn parts_of(layout: &Layout) -> u64 {
    let axes = layout.map().first().into_iter().flatten();
    axes.map(|axis| layout.mesh()[*axis]).product()
}
