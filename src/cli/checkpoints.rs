//! `shardloom checkpoints …`: which there are, which one is resumed from, which may go.

use crate::checkpoint::{Checkpoint, Survey, latest::latest, rotation, survey};
use crate::cli::Told;
use crate::cli::args::{CheckpointsArgs, CheckpointsCommand};
use crate::exchange::{Topology, World};
use crate::fault::Result;
use serde_json::{Value, json};
use std::fmt::Write;

/// Runs it. Collective.
pub(super) fn run(world: &World, command: &CheckpointsCommand) -> Result<Told> {
    let topology = Topology::discover(world)?;
    let look =
        |args: &CheckpointsArgs| survey(world, &topology, &args.dir, args.ranks, !args.names_only);
    match command {
        CheckpointsCommand::List { which } => Ok(list(&look(which)?)),
        CheckpointsCommand::Latest { which } => {
            let survey = look(which)?;
            let latest = latest(&survey)?;
            let mut fields = shown(latest);
            if let Some(fields) = fields.as_object_mut() {
                fields.insert("files".into(), json!(latest.files));
                fields.insert(
                    "directory".into(),
                    json!(survey.directory.display().to_string()),
                );
            }
            let mut text = line(latest);
            for file in &latest.files {
                let _ = write!(text, "\n  {}", survey.directory.join(file).display());
            }
            Ok(Told::Data { fields, text })
        }
        CheckpointsCommand::Prune {
            which,
            keep,
            dry_run,
        } => {
            let survey = look(which)?;
            let keep = usize::try_from(*keep).unwrap_or(usize::MAX);
            let removed = rotation::expendable(&survey, keep);
            let companions = rotation::companions(world, &topology, &survey, &removed)?;
            if !dry_run {
                rotation::remove(world, &topology, &survey, &removed, &companions)?;
            }
            let kept = |checkpoint: &&Checkpoint| {
                !removed
                    .iter()
                    .any(|removed| removed.name == checkpoint.name)
            };
            let kept: Vec<&Checkpoint> = survey.checkpoints.iter().filter(kept).collect();
            let bytes: u64 = removed.iter().map(|checkpoint| checkpoint.bytes).sum();
            let bytes = bytes + companions.values().sum::<u64>();
            let files = removed.iter().flat_map(|removed| &removed.files);
            let files: Vec<&String> = files.chain(companions.keys()).collect();
            let word = if *dry_run {
                "would be removed"
            } else {
                "removed"
            };
            let mut text = format!(
                "{} checkpoints {word} ({bytes} bytes), {} stay",
                removed.len(),
                kept.len()
            );
            for checkpoint in &removed {
                let _ = write!(text, "\n  {word} {}", line(checkpoint));
            }
            if !companions.is_empty() {
                let count = companions.len();
                let _ = write!(text, "\n  {word} {count} files with their weights alone");
            }
            let fields = json!({
                "dry_run": dry_run,
                "removed": removed.iter().map(|c| shown(c)).collect::<Vec<_>>(),
                "kept": kept.iter().map(|c| shown(c)).collect::<Vec<_>>(),
                "files": files,
                "bytes": { "removed": bytes },
            });
            Ok(Told::Data { fields, text })
        }
    }
}

fn list(survey: &Survey) -> Told {
    let checkpoints: Vec<Value> = survey.checkpoints.iter().map(shown).collect();
    let resumed = latest(survey).ok();
    let mut text = format!(
        "{} checkpoints of {} ranks in {}",
        survey.checkpoints.len(),
        survey.ranks,
        survey.directory.display()
    );
    for checkpoint in &survey.checkpoints {
        let mark = if resumed.is_some_and(|latest| latest.name == checkpoint.name) {
            "  <- resumed from"
        } else {
            ""
        };
        let _ = write!(text, "\n  {}{mark}", line(checkpoint));
    }
    let fields = json!({
        "checkpoints": checkpoints,
        "latest": resumed.map(|checkpoint| checkpoint.name.suffix()),
        "ranks": survey.ranks,
        "directory": survey.directory.display().to_string(),
    });
    Told::Data { fields, text }
}

fn shown(checkpoint: &Checkpoint) -> Value {
    json!({
        "step": checkpoint.step,
        "epoch": checkpoint.name.epoch,
        "suffix": checkpoint.name.suffix(),
        "prefix": checkpoint.name.prefix,
        "ranks": checkpoint.ranks.len(),
        "complete": checkpoint.complete(),
        "bytes": checkpoint.bytes,
        "why": checkpoint.why,
        "layout": { "ranks": checkpoint.ranks.len(), "remove_redundancy": checkpoint.redundancy_removed },
    })
}

fn line(checkpoint: &Checkpoint) -> String {
    let state = checkpoint.why.as_deref().unwrap_or("complete");
    format!(
        "{}: step {}, epoch {}, {} bytes on {} ranks, {state}",
        checkpoint.name.suffix(),
        checkpoint.step,
        checkpoint.name.epoch,
        checkpoint.bytes,
        checkpoint.ranks.len()
    )
}
