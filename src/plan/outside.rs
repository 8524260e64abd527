//! Tensors that lie with ranks of another stage than the strategy says.

use crate::catalog::{Catalog, FileSchema};
use crate::fault::{Fault, Kind, Result};
use crate::strategy::Strategy;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The stages whose ranks have files of one structure, each with its first such rank.
type Stages = BTreeMap<u32, u32>;

/// Checks that no rank has a tensor that the strategy gives only to stages of other ranks: what it has may be a part
/// that would be lost. What a trainer counts in single elements, every rank may have.
///
/// # Errors
/// [`Kind::Strategy`] naming the rank and the tensor.
pub(super) fn check(catalog: &Catalog, strategy: &Strategy) -> Result<()> {
    if strategy.stages() < 2 {
        return Ok(());
    }
    let mut stages: HashMap<*const FileSchema, Stages> = HashMap::new();
    for (rank, files) in &catalog.ranks {
        for file in files {
            let of_schema = stages.entry(Arc::as_ptr(&file.schema)).or_default();
            let stage = rank / strategy.ranks_per_stage();
            of_schema.entry(stage).or_insert(*rank);
        }
    }
    let entries = || {
        catalog.distinct_schemas().flat_map(|(_, schema)| {
            let stages = &stages[&Arc::as_ptr(schema)];
            schema.entries.iter().map(move |entry| (entry, stages))
        })
    };
    let gives = |name: &str, stage: u32| strategy.layout_in(name, stage).is_some();
    let at_home: HashSet<&str> = entries()
        .filter(|(entry, stages)| stages.keys().any(|stage| gives(&entry.name, *stage)))
        .map(|(entry, _)| &*entry.name)
        .collect();
    for (entry, stages) in entries() {
        let name = &*entry.name;
        let counts = entry.shape.0.iter().all(|size| *size == 1) && at_home.contains(name);
        let Some(home) = strategy.layouts(name).first().filter(|_| !counts) else {
            continue;
        };
        if let Some((_, rank)) = stages.iter().find(|(stage, _)| !gives(name, **stage)) {
            let first = home.stage * strategy.ranks_per_stage();
            let ranks = match strategy.ranks_per_stage() {
                1 => format!("rank {first}"),
                more => format!("ranks {first}-{}", first + more - 1),
            };
            let message = format!(
                "rank {rank} has it, and the source strategy gives it to {ranks} only (stage {})",
                home.stage
            );
            let fault = Fault::new(Kind::Strategy, message).rank(*rank);
            return Err(fault
                .tensor(name)
                .hint("is it the strategy of the job that saved these files?"));
        }
    }
    Ok(())
}
