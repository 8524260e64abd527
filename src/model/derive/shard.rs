//! The optimizer shard of a tensor.

use super::job::{Job, ShardRule};
use super::network::Parameter;
use crate::fault::Result;
use crate::layout::{Layout, OptimizerShard};
use crate::model::choices::Scheme;
use crate::model::training::Cut;

/// What MindSpore writes of a tensor's optimizer shard; none where the tensor stays as `layout` has it.
///
/// # Errors
/// None but those of [`Layout::new`], which made `layout`.
pub(super) fn shard(
    job: &Job,
    parameter: &Parameter,
    layout: &Layout,
) -> Result<Option<OptimizerShard>> {
    let Some(rule) = &job.shard else {
        return Ok(None);
    };
    if !rule.is_written || !enters(job, rule, parameter) {
        return Ok(None);
    }
    let parts = layout.parts();
    let pieces: u64 = parts.iter().product();
    let replicas = u64::from(layout.ranks()) / pieces;
    let size = match u64::try_from(rule.size) {
        Ok(size) => size.min(replicas),
        Err(_) => replicas,
    };
    let rows = parameter.shape.first().zip(parts.first());
    let divides = rows.is_some_and(|(rows, cut)| rows.is_multiple_of(cut * size));
    if size <= 1 || !divides || !replicas.is_multiple_of(size) {
        return Ok(None);
    }
    let last = usize::try_from(size - 1).unwrap_or(usize::MAX);
    let cell = layout.cell(0);
    let step = layout.holders(&cell).nth(last).map(u64::from);
    let step = step.map_or(1, |rank| rank / (size - 1));
    Ok(Some(OptimizerShard {
        step: i64::try_from(step).unwrap_or(i64::MAX),
        size: if rule.size == -1 {
            -1
        } else {
            i64::try_from(size).unwrap_or(i64::MAX)
        },
    }))
}

/// Whether the optimizer may cut a tensor at all.
fn enters(job: &Job, rule: &ShardRule, parameter: &Parameter) -> bool {
    let left_out = match (job.scheme, parameter.cut) {
        (Scheme::Mcore, _) => job.optimizer.is_muon() && parameter.muon_keeps_whole,
        (Scheme::Legacy, Cut::Norm | Cut::LastNorm) => true,
        (Scheme::Legacy, Cut::Embedding) => !job.embedding_shard,
        (Scheme::Legacy, _) => parameter.shape.len() == 1,
    };
    let elements: u64 = parameter
        .shape
        .iter()
        .fold(1, |all, n| all.saturating_mul(*n));
    let bytes = elements.saturating_mul(job.element_bytes);
    parameter.trained && !left_out && bytes >= rule.threshold_bytes
}
