//! The checkpoint that a job would resume from.

use crate::fault::{Fault, Kind, Result};
use crate::source::meta::Name;
use crate::source::position::choose::flag;
use crate::source::saved::{Checkpoint, Survey};

/// Chooses as the trainer does: the oldest position that the ranks' `meta.json` name is the limit,
/// and of that run the newest checkpoint up to there which all ranks have. So one that some rank had
/// not finished is never chosen, nor, as the survey has looked into the files, a truncated one.
///
/// Of two jobs' checkpoints of that step, or without any record of whatever steps, none is chosen, unless the records
/// are of one of them.
///
/// Where that leaves none, as when a job died soon after a restart, the next older record is the limit, and at
/// last the newest complete one of an older run is taken, which [`passed_over`] tells. Without any `meta.json`
/// it is the newest complete one by run, epoch and step.
///
/// # Errors
/// [`Kind::MissingShard`] if there is none, naming the newest and what is wrong with it; [`Kind::Ambiguous`]
/// naming two jobs' checkpoints.
pub fn latest(survey: &Survey) -> Result<&Checkpoint> {
    let mut limits: Vec<&Name> = survey.metas.values().collect();
    limits.sort_by_key(|name| (name.position(), name.repeat));
    let complete = || {
        survey
            .checkpoints
            .iter()
            .filter(|checkpoint| checkpoint.complete())
    };
    let up_to = |limit: &&Name| {
        let limit = *limit;
        complete()
            .filter(|checkpoint| checkpoint.name.same_run(limit))
            .filter(|checkpoint| checkpoint.name.position() <= limit.position())
            .max_by_key(|checkpoint| checkpoint.name.position())
    };
    let chosen = match limits.iter().map(|limit| limit.repeat).min() {
        None => complete().max_by_key(|checkpoint| &checkpoint.name),
        Some(run) => limits.iter().find_map(up_to).or_else(|| {
            let older = complete().filter(|checkpoint| checkpoint.name.repeat < run);
            older.max_by_key(|checkpoint| &checkpoint.name)
        }),
    };
    let rival = chosen.and_then(|chosen| {
        let meant =
            |name: &Name| limits.is_empty() || limits.iter().any(|limit| limit.same_run(name));
        let mut others = complete().filter(|other| other.name.prefix != chosen.name.prefix);
        // Without any record nothing says which job's is resumed, whatever the steps.
        let is_near = |name: &Name| limits.is_empty() || name.place() == chosen.name.place();
        let rival = others.find(|other| is_near(&other.name) && meant(&other.name))?;
        Some((chosen, rival))
    });
    if let Some((chosen, rival)) = rival {
        let (one, other) = (chosen.name.prefixed(), rival.name.prefixed());
        let message = match chosen.name.place() == rival.name.place() {
            true => format!("{one} and {other} are of the same step of two jobs"),
            false => {
                format!("{one} and {other} are of two jobs, and no meta.json says which is resumed")
            }
        };
        return Err(Fault::new(Kind::Ambiguous, message)
            .file(survey.directory.display().to_string())
            .hint(format!("--file-suffix {one} of a job chooses one of them")));
    }
    chosen.ok_or_else(|| {
        let newest = complete().max_by_key(|checkpoint| &checkpoint.name);
        let fault = match (limits.first(), newest) {
            (Some(limit), Some(newest)) => newer_alone(survey, limit, newest),
            _ => none_complete(survey),
        };
        fault.file(survey.directory.display().to_string())
    })
}

/// Nothing complete is as old as `limit`, the oldest that a record names; `newest` is complete.
fn newer_alone(survey: &Survey, limit: &Name, newest: &Checkpoint) -> Fault {
    let mut checkpoints = survey.checkpoints.iter();
    let named = checkpoints.find(|checkpoint| checkpoint.name == *limit);
    let why = named.map(|checkpoint| checkpoint.why.as_deref().unwrap_or_default());
    let message = format!(
        "meta.json names {}, of which {}; complete is {}, which is newer",
        limit.suffix(),
        why.unwrap_or("nothing is left"),
        newest.name.suffix()
    );
    let hint = format!("{} takes that one", flag(&newest.name.suffix()));
    Fault::new(Kind::MissingShard, message).hint(hint)
}

fn none_complete(survey: &Survey) -> Fault {
    let message = match survey.checkpoints.last() {
        None => "there is no checkpoint to resume from".to_owned(),
        Some(newest) => format!(
            "no checkpoint is complete; the newest is {}: {}",
            newest.name.suffix(),
            newest.why.as_deref().unwrap_or_default()
        ),
    };
    Fault::new(Kind::MissingShard, message).hint("`shardloom checkpoints list` shows them all")
}

/// What to tell of the choice of `chosen`: that it is of an older run than all the ranks' `meta.json` name.
#[must_use]
pub fn passed_over(survey: &Survey, chosen: &Checkpoint) -> Option<String> {
    let newest = survey
        .metas
        .values()
        .max_by_key(|name| (name.repeat, name.position()))?;
    let named = survey
        .metas
        .values()
        .any(|name| name.same_run(&chosen.name));
    (!named).then(|| {
        format!(
            "{} is of an older run: meta.json names {}, and of that run nothing is complete",
            chosen.name.suffix(),
            newest.suffix()
        )
    })
}
