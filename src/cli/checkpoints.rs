//! `shardloom checkpoints …`: which there are, which one is resumed from, which may go.

use crate::checkpoint::{led, rotation};
use crate::cli::command::{Command, Prepared, Told};
use crate::cli::flags::moving::ProgressArgs;
use crate::cli::flags::report::ReportArgs;
use crate::course;
use crate::destination::hold;
use crate::exchange::{Topology, World};
use crate::fault::Result;
use crate::fault::plain::Text;
use crate::fault::plain::counted;
use crate::source::expected::expected_ranks;
use crate::source::latest::{latest, passed_over};
use crate::source::saved::{Checkpoint, Survey};
use crate::source::survey::survey;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  shardloom checkpoints list output
  mpirun -n 8 shardloom checkpoints latest output --ranks 8
  shardloom checkpoints prune output --keep 2 --dry-run";

/// List a job's checkpoints, find the one to resume from, remove old ones.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Checkpoints {
    #[command(subcommand)]
    question: Question,
}

impl Question {
    /// Which checkpoints are looked at.
    fn which(&self) -> &WhichArgs {
        match self {
            Question::List { which }
            | Question::Latest { which }
            | Question::Prune { which, .. } => which,
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, Subcommand)]
enum Question {
    /// All checkpoints, oldest first: step, size, and whether all ranks have them.
    #[command(before_help = "\
Examples:
  shardloom checkpoints list output
  mpirun -n 8 shardloom checkpoints list output --json")]
    List {
        #[command(flatten)]
        which: WhichArgs,
    },
    /// The checkpoint that a job would resume from.
    #[command(before_help = "\
Examples:
  shardloom checkpoints latest output
  mpirun -n 8 shardloom checkpoints latest output --ranks 8")]
    Latest {
        #[command(flatten)]
        which: WhichArgs,
    },
    /// Remove old checkpoints; the last complete one always stays.
    #[command(before_help = "\
Examples:
  shardloom checkpoints prune output --keep 2 --dry-run
  shardloom checkpoints prune output --keep 2")]
    Prune {
        #[command(flatten)]
        which: WhichArgs,
        /// How many complete checkpoints to keep, at least 1.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: u32,
        /// Say what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which checkpoints are looked at, and how closely.
#[derive(Clone, Debug, Args)]
struct WhichArgs {
    /// The directory with the job's rank directories, or its output directory.
    dir: PathBuf,
    /// How many ranks the job has [default: as many as the highest rank directory tells].
    #[arg(long, value_name = "N")]
    ranks: Option<u32>,
    /// Go by the files' names alone, as the trainer does; don't look whether they are truncated.
    #[arg(long)]
    names_only: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl Command for Checkpoints {
    fn prepare(self) -> Result<Prepared> {
        let (progress, none) = (
            self.question.which().progress.clone(),
            ReportArgs::default(),
        );
        Ok(Prepared::told(&progress, none, move |world, _| {
            self.question.answer(world)
        }))
    }
}

impl Question {
    /// Answers it. Collective.
    fn answer(&self, world: &World) -> Result<Told> {
        let topology = Topology::discover(world)?;
        match self {
            Question::List { which } => {
                let seen = which.look(world, &topology, !which.names_only)?;
                Ok(list(&seen.survey, seen.note()))
            }
            Question::Latest { which } => {
                let seen = which.look(world, &topology, !which.names_only)?;
                newest(&seen.survey, seen.note())
            }
            Question::Prune {
                which,
                keep,
                dry_run,
            } => {
                // What stays must load, so the files are looked into in any case.
                let mut seen = which.look(world, &topology, true)?;
                let mut held = None;
                if !dry_run {
                    // What was seen before nobody else could write is seen anew.
                    held = Some(hold(
                        world,
                        &topology,
                        &seen.survey.directory,
                        "checkpoints prune",
                    )?);
                    seen = which.look(world, &topology, true)?;
                }
                let survey = &seen.survey;
                let keep = usize::try_from(*keep).unwrap_or(usize::MAX);
                let led = led::led(world, &topology, survey)?;
                let beside = |old: &Checkpoint| rotation::beside(survey, old);
                let removed = rotation::expendable(survey, keep);
                let (removed, stays) = led::unled(removed, &led, beside);
                let companions = rotation::companions(world, &topology, survey, &removed)?;
                rotation::check(world, &topology, survey, &removed, &companions)?;
                if !dry_run {
                    course::phase("removing checkpoints");
                    rotation::remove(world, &topology, survey, &removed, &companions)?;
                }
                drop(held);
                let notes: Vec<String> = stays.into_iter().chain(seen.note()).collect();
                let note = (!notes.is_empty()).then(|| notes.join("; "));
                Ok(pruned(survey, &removed, &companions, note, *dry_run))
            }
        }
    }
}

/// The checkpoints of a directory, and what tells of more ranks than are there.
struct Seen {
    survey: Survey,
    told: Option<(u32, String)>,
}

impl Seen {
    /// What is said of it.
    fn note(&self) -> Option<String> {
        let (ranks, by) = self.told.as_ref()?;
        Some(format!(
            "{by} tells of {ranks} ranks, and not all are here: what lacks any isn't complete; if the job has \
             fewer ranks now, say how many with --ranks"
        ))
    }
}

impl WhichArgs {
    /// Looks at the checkpoints, and into their files if `inside`; of all the ranks that what lies beside
    /// them tells of. Collective.
    fn look(&self, world: &World, topology: &Topology, inside: bool) -> Result<Seen> {
        course::phase("looking at the checkpoints");
        let look = |ranks| survey(world, topology, &self.dir, ranks, inside);
        let survey = look(self.ranks)?;
        let told = match self.ranks {
            None => expected_ranks(world, topology, &survey.directory)?,
            Some(_) => None,
        };
        match told.filter(|(ranks, _)| *ranks > survey.ranks) {
            None => Ok(Seen { survey, told: None }),
            Some(told) => Ok(Seen {
                survey: look(Some(told.0))?,
                told: Some(told),
            }),
        }
    }
}

/// The checkpoint that is resumed from.
fn newest(survey: &Survey, more: Option<String>) -> Result<Told> {
    let latest = latest(survey).map_err(|mut fault| {
        fault.hint = more.clone().or(fault.hint);
        fault
    })?;
    let mut fields = shown(latest);
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("files".into(), json!(latest.files));
        fields.insert(
            "directory".into(),
            json!(survey.directory.display().to_string()),
        );
    }
    let mut text = Text::new(line(latest));
    let passed = passed_over(survey, latest);
    let notes: Vec<String> = passed.into_iter().chain(more).collect();
    if !notes.is_empty() {
        let note = notes.join("; ");
        text.line(format_args!("  {note}"));
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("note".into(), json!(note));
        }
    }
    for file in &latest.files {
        text.line(format_args!("  {}", survey.directory.join(file).display()));
    }
    Ok(Told::data(fields, text))
}

/// What went, or would go.
fn pruned(
    survey: &Survey,
    removed: &[&Checkpoint],
    companions: &BTreeMap<String, u64>,
    note: Option<String>,
    dry_run: bool,
) -> Told {
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
    let word = if dry_run {
        "would be removed"
    } else {
        "removed"
    };
    let mut text = Text::new(format_args!(
        "{} {word} ({bytes} bytes), {} stay",
        counted(removed.len() as u64, "checkpoint"),
        kept.len()
    ));
    for checkpoint in removed {
        text.line(format_args!("  {word} {}", line(checkpoint)));
    }
    if !companions.is_empty() {
        let files = counted(companions.len() as u64, "file");
        text.line(format_args!("  {word} {files} with their weights alone"));
    }
    if let Some(note) = &note {
        text.line(format_args!("  {note}"));
    }
    let fields = json!({
        "note": note,
        "dry_run": dry_run,
        "removed": removed.iter().map(|c| shown(c)).collect::<Vec<_>>(),
        "kept": kept.iter().map(|c| shown(c)).collect::<Vec<_>>(),
        "files": files,
        "bytes": { "removed": bytes },
    });
    Told::data(fields, text)
}

fn list(survey: &Survey, note: Option<String>) -> Told {
    let checkpoints: Vec<Value> = survey.checkpoints.iter().map(shown).collect();
    let resumed = latest(survey).ok();
    let mut text = Text::new(format_args!(
        "{} of {} in {}",
        counted(survey.checkpoints.len() as u64, "checkpoint"),
        counted(survey.ranks.into(), "rank"),
        survey.directory.display()
    ));
    for checkpoint in &survey.checkpoints {
        let mark = if resumed.is_some_and(|latest| latest.name == checkpoint.name) {
            "  <- resumed from"
        } else {
            ""
        };
        let others = survey.checkpoints.iter();
        let mut others = others.filter(|other| other.name.prefix != checkpoint.name.prefix);
        let of = match others.next().is_some() {
            true => format!("{} ", checkpoint.name.prefix),
            false => String::new(),
        };
        text.line(format_args!("  {of}{}{mark}", line(checkpoint)));
    }
    let fields = json!({
        "checkpoints": checkpoints,
        "latest": resumed.map(|checkpoint| checkpoint.name.suffix()),
        "ranks": survey.ranks,
        "directory": survey.directory.display().to_string(),
        "note": note,
    });
    if let Some(note) = &note {
        text.line(format_args!("  {note}"));
    }
    Told::data(fields, text)
}

fn shown(checkpoint: &Checkpoint) -> Value {
    json!({
        "step": checkpoint.step,
        "epoch": checkpoint.epoch,
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
    let epoch = checkpoint.epoch.map(|epoch| format!("epoch {epoch}, "));
    format!(
        "{}: step {}, {}{} bytes on {}, {state}",
        checkpoint.name.suffix(),
        checkpoint.step,
        epoch.unwrap_or_default(),
        checkpoint.bytes,
        counted(checkpoint.ranks.len() as u64, "rank")
    )
}
