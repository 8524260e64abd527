//! A file a rank, each in a directory of its own.

use crate::catalog::{FileSchema, ShardFile};
use crate::fault::Result;
use crate::layout::keep::Keep;
use crate::plan::arranged::Arranged;
use crate::plan::build::Build;
use crate::plan::kept::Kept;
use crate::plan::listing::{Listing, listed, with_counts};
use crate::store::Format;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Lays out the files of `ranks`, each called `file_name` of its rank.
///
/// # Errors
/// [`crate::fault::Kind::Dtype`] if the format doesn't know a tensor's type.
pub(super) fn by_rank(
    build: &Build,
    remove_redundancy: bool,
    format: Format,
    metadata: &BTreeMap<String, String>,
    ranks: &[u32],
    file_name: impl Fn(u32) -> String,
) -> Result<Arranged> {
    let keeps: Vec<Option<Keep>> = build
        .stages
        .iter()
        .map(|plans| {
            remove_redundancy.then(|| {
                Keep::new(
                    plans
                        .iter()
                        .map(|p| (p.name.clone(), p.destination.layout.clone())),
                )
            })
        })
        .collect();
    let mut arranged = Arranged::default();
    // Ranks of a stage with the same private tensors have files of the same structure.
    let mut designed: HashMap<(usize, Listing), Arc<FileSchema>> = HashMap::new();
    for &rank in ranks {
        let stage = (rank / build.ranks_per_stage.max(1)) as usize;
        let local = rank % build.ranks_per_stage.max(1);
        let private: Listing = build
            .private
            .get(&rank)
            .into_iter()
            .flatten()
            .map(listed)
            .collect::<Result<_>>()?;
        let keep = keeps.get(stage).and_then(Option::as_ref);
        let key = (stage, private);
        let schema = match designed.get(&key).filter(|_| keep.is_none()) {
            Some(schema) => schema.clone(),
            None => {
                let mut listing = key.1.clone();
                for plan in build.stages.get(stage).into_iter().flatten() {
                    if keep.is_none_or(|keep| keep.keeps(&plan.name, local)) {
                        listing.push(listed(plan)?);
                    }
                }
                let schema = with_counts(listing, &build.counts, format, metadata);
                let schema = Arc::new(schema.map_err(|fault| fault.rank(rank))?);
                designed.insert(key, schema.clone());
                schema
            }
        };
        arranged.catalog.ranks.insert(
            rank,
            vec![ShardFile {
                path: file_name(rank),
                schema,
            }],
        );
    }
    arranged.kept = Kept {
        stages: keeps,
        ranks_per_stage: build.ranks_per_stage,
        ..Kept::default()
    };
    Ok(arranged)
}
