//! The checkpoint that a job would resume from.

use crate::checkpoint::survey::{Checkpoint, Survey};
use crate::fault::{Fault, Kind, Result};

/// Chooses as the trainer does: the oldest position that the ranks' `meta.json` name is the limit,
/// and of that run the newest checkpoint up to there which all ranks have. So one that some rank had
/// not finished is never chosen, nor, as the survey has looked into the files, a truncated one.
///
/// Without any `meta.json` it is the complete checkpoint that was written last.
///
/// # Errors
/// [`Kind::MissingShard`] if there is none, naming the newest and what is wrong with it.
pub fn latest(survey: &Survey) -> Result<&Checkpoint> {
    let limit = survey
        .metas
        .values()
        .min_by_key(|name| (name.position(), name.repeat));
    let allowed = |checkpoint: &&Checkpoint| {
        limit.is_none_or(|limit| {
            checkpoint.name.same_run(limit) && checkpoint.name.position() <= limit.position()
        })
    };
    let candidates = || survey.checkpoints.iter().filter(allowed);
    let complete = candidates().filter(|checkpoint| checkpoint.complete());
    let chosen = match limit {
        Some(_) => complete.max_by_key(|checkpoint| checkpoint.name.position()),
        None => complete.max_by_key(|checkpoint| (checkpoint.modified, checkpoint.name.clone())),
    };
    chosen.ok_or_else(|| {
        let newest = candidates().max_by_key(|checkpoint| checkpoint.name.clone());
        let message = match newest {
            None => "there is no checkpoint to resume from".to_owned(),
            Some(newest) => format!(
                "no checkpoint is complete; the newest is {}: {}",
                newest.name.suffix(),
                newest.why.as_deref().unwrap_or_default()
            ),
        };
        Fault::new(Kind::MissingShard, message)
            .file(survey.directory.display().to_string())
            .hint("`shardloom checkpoints list` shows them all")
    })
}
