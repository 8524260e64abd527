//! `shardloom batch`: many jobs in one start, each of which may fail by itself.

use crate::cli::batch_jobs::{self, Asked, Job, Step};
use crate::cli::command::{Command, Parse, Prepared, Told};
use crate::cli::fitted::fitted;
use crate::cli::flags::moving::ProgressArgs;
use crate::cli::flags::report::ReportArgs;
use crate::cli::reported::reported;
use crate::course::{self, Leaves};
use crate::exchange::{Operation, Topology, World, agree, all_reduce};
use crate::fault::plain::{Text, counted};
use crate::fault::{Fault, Kind, Result};
use crate::report::Report;
use crate::source::survey::survey;
use crate::store::hidden::{PARTIAL, hidden};
use crate::store::io;
use crate::store::manifest;
use crate::transport::Observer;
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
Examples:
  mpirun -n 8 shardloom batch --steps all unify --src ckpt --src-strategy strategy --dst full
  mpirun -n 8 shardloom batch --steps 1_20,1_40 --src ckpt --src-strategy strategy --dst full
  mpirun -n 8 shardloom batch jobs.txt";

/// The flag by which a job is planned and not done.
const DRY_RUN: &str = "dry_run";
/// What the newest result is called, beside all of them.
const LATEST: &str = "latest";

/// Do many jobs, one after the other, in one start: those of a file, or one for every step of a run.
///
/// A job that fails doesn't stop the others; the exit code is 1 then. What is done already, of the same
/// files in the same way, is left as it is, and what a killed run has begun is taken up. For each job a
/// line is printed, with --json an object, and a last one for all.
///
/// With --steps the job is typed as it would be by itself, without --file-suffix, and --dst is where
/// the results go: one directory for each step, called as its suffix, and at last a link called latest,
/// which leads to the newest. Without a command it is reshard where there is a --dst-strategy, else unify.
///
/// In a file each line is a job as it would be typed; empty lines, and what follows a #, don't count.
#[derive(Clone, Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Batch {
    /// The steps: all, or their suffixes.
    #[arg(long, value_name = "all|STEP,…", value_delimiter = ',')]
    steps: Vec<String>,
    #[command(flatten)]
    progress: ProgressArgs,
    /// A file of jobs, or, with --steps, the job.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "FILE|JOB"
    )]
    words: Vec<String>,
}

impl Batch {
    /// Takes what was typed behind the job, and is meant of all: whether JSON, and whether nothing is to be said.
    pub(super) fn hoist(&mut self) -> (bool, bool) {
        let mut take = |flags: &[&str]| {
            let before = self.words.len();
            self.words.retain(|word| !flags.contains(&word.as_str()));
            self.words.len() < before
        };
        (take(&["--json"]), take(&["-q", "--quiet"]))
    }
}

impl Command for Batch {
    fn prepare(self) -> Result<Prepared> {
        Ok(Prepared::Many(Box::new(move |parse, report| {
            let asked = if self.steps.is_empty() {
                batch_jobs::listed(&self.words, parse)?
            } else {
                batch_jobs::of_steps(&self.steps, &self.words, parse)?
            };
            let none = ReportArgs::default();
            Ok(Prepared::told(
                &self.progress,
                none,
                move |world, observer| all(world, asked, parse, &report, observer),
            ))
        })))
    }
}

/// What has become of the jobs so far.
struct Done {
    begun: Instant,
    of: usize,
    done: u64,
    unchanged: u64,
    planned: u64,
    failed: u64,
}

/// Does all of them. Collective.
fn all(
    world: &World,
    asked: Asked,
    parse: Parse,
    report: &Report,
    observer: &mut Observer<'_>,
) -> Result<Told> {
    let (jobs, out) = match asked.steps {
        None => (asked.jobs, None),
        Some(steps) => {
            let topology = Topology::discover(world)?;
            let survey = survey(world, &topology, &steps.source, None, true)?;
            let found = batch_jobs::steps(&survey.checkpoints);
            let jobs = steps.jobs(&found)?;
            (jobs, Some((steps.destination, found, topology)))
        }
    };
    let mut done = Done {
        begun: Instant::now(),
        of: jobs.len(),
        done: 0,
        unchanged: 0,
        planned: 0,
        failed: 0,
    };
    for (number, job) in (1u64..).zip(jobs) {
        let begun = Instant::now();
        let ended = match &job.why {
            Some(why) => Err(Fault::new(
                Kind::MissingShard,
                format!("{}: {why}", job.label),
            )),
            None => one(world, &job, parse, observer),
        };
        // What can't be agreed on ends all.
        if let Err(fault) = &ended
            && fault.kind == Kind::Mpi
        {
            return Err(fault.clone());
        }
        course::leaves(Leaves::Nothing);
        let state = done.count(&ended);
        if world.process() == 0 {
            let (line, text) = line(number, done.of, &job, state, &ended, begun.elapsed());
            told(report, &line, &text)?;
        }
    }
    course::phase("publishing the newest");
    let latest = match out.filter(|_| done.planned == 0) {
        Some((out, found, topology)) => newest(world, &out, found)?.map(|newest| {
            let published = newest.alone();
            let published =
                published.and_then(|()| publish(world, &topology, &out, &newest.suffix));
            (newest.suffix, published)
        }),
        None => None,
    };
    Ok(done.told(latest))
}

/// What is said of a job that has ended.
fn line(
    number: u64,
    of: usize,
    job: &Job,
    state: &str,
    ended: &Result<Ended>,
    time: Duration,
) -> (Value, Text) {
    let destination = job
        .destination
        .as_ref()
        .map(|path| path.display().to_string());
    let mut line = json!({
        "job": number, "jobs": of, "name": job.label, "suffix": job.suffix, "state": state,
        "ok": ended.is_ok(), "destination": destination, "seconds": time.as_secs_f64(),
    });
    let mut text = Text::new(format_args!("{number}/{of}  {state:<9}  {}", job.label));
    match ended {
        Ok(ended) => line["bytes"] = json!({ "written": ended.written, "reused": ended.reused }),
        Err(fault) => {
            line["error"] = serde_json::to_value(fault).unwrap_or_default();
            text.line(format_args!("  error: {fault}"));
            if let Some(hint) = &fault.hint {
                text.line(format_args!("  hint: {hint}"));
            }
        }
    }
    (line, text)
}

/// Prints a line, unless it is for people and they want none.
fn told(report: &Report, line: &Value, text: &Text) -> Result<()> {
    match report.quiet && !report.json {
        true => Ok(()),
        false => report.data(line, text),
    }
}

/// What a job has come to.
struct Ended {
    unchanged: bool,
    /// Nothing was written: `--dry-run`.
    planned: bool,
    written: u64,
    reused: u64,
}

/// Does a job. Collective.
fn one(world: &World, job: &Job, parse: Parse, observer: &mut Observer<'_>) -> Result<Ended> {
    let words = &job.words;
    // Only an earlier result of the same job is replaced, and only if it is of other files.
    let mut there = [u64::from(
        job.destination.as_deref().is_some_and(has_manifest),
    )];
    all_reduce(world, &mut there, Operation::Max)?;
    let there = there[0] == 1;
    let first = attempt(world, words, &["--resume", "--again"], parse, observer);
    // What is begun of something else can't be taken up.
    let ended = match first {
        Err(fault) if fault.kind == Kind::Exists => {
            attempt(world, words, &["--again"], parse, observer)
        }
        ended => ended,
    };
    let job = parse(words);
    let told = ended.map_err(|fault| match &job {
        Ok(job) => fitted(&(job.line)(), job.name, fault),
        Err(_) => fault,
    })?;
    let planned = job.is_ok_and(|job| job.is_given(DRY_RUN));
    let bytes = told.outcome.as_ref().map(|outcome| outcome.bytes.clone());
    let bytes = bytes.unwrap_or_default();
    if !told.ok {
        return Err(Fault::new(
            Kind::Differs,
            "what was compared differs, or is damaged",
        ));
    }
    Ok(Ended {
        unchanged: there && bytes.written == 0 && !planned,
        planned,
        written: bytes.written,
        reused: bytes.reused,
    })
}

/// Runs a job with these flags, as far as it knows them. Collective.
fn attempt(
    world: &World,
    words: &[String],
    flags: &[&str],
    parse: Parse,
    observer: &mut Observer<'_>,
) -> Result<Told> {
    let prepared = parse(words).and_then(|job| {
        let known: Vec<&&str> = flags.iter().filter(|flag| job.takes(flag)).collect();
        let with = words
            .iter()
            .cloned()
            .chain(known.into_iter().map(|flag| (*flag).to_owned()));
        parse(&with.collect::<Vec<_>>())?.prepare()
    });
    // What one process can't prepare none begins.
    let (prepared, told) = match prepared {
        Ok(prepared) => (Some(prepared), Ok(())),
        Err(fault) => (None, Err(fault)),
    };
    agree(world, told)?;
    match prepared {
        Some(Prepared::Together { work, report, .. }) => {
            reported(world, "batch", &report, work, observer)
        }
        _ => Err(Fault::new(Kind::Usage, "is no job for all processes")),
    }
}

fn has_manifest(destination: &Path) -> bool {
    io::size(&destination.join(manifest::NAME)).is_ok_and(|size| size.is_some())
}

impl Done {
    /// Counts a job that has ended.
    fn count(&mut self, ended: &Result<Ended>) -> &'static str {
        match ended {
            Ok(ended) if ended.unchanged => {
                self.unchanged += 1;
                "unchanged"
            }
            Ok(ended) if ended.planned => {
                self.planned += 1;
                "planned"
            }
            Ok(_) => {
                self.done += 1;
                "done"
            }
            Err(_) => {
                self.failed += 1;
                "failed"
            }
        }
    }

    /// What is said at last.
    fn told(self, latest: Option<(String, Result<()>)>) -> Told {
        let published = latest
            .as_ref()
            .is_none_or(|(_, published)| published.is_ok());
        let ok = self.failed == 0 && published;
        Told::new(ok, move |report| {
            let newest = latest.as_ref().filter(|(_, published)| published.is_ok());
            let newest = newest.map(|(newest, _)| newest.clone());
            let fields = json!({
                "jobs": self.of, "done": self.done, "unchanged": self.unchanged, "planned": self.planned, "failed": self.failed,
                "latest": newest, "ok": ok, "seconds": self.begun.elapsed().as_secs_f64(),
            });
            let jobs = counted(self.of as u64, "job");
            let (done, unchanged, failed) = (self.done, self.unchanged, self.failed);
            let done = match self.planned {
                0 => format!("{done} done, {unchanged} unchanged"),
                planned => format!("{planned} planned, {done} done"),
            };
            let mut text = Text::new(format_args!("{jobs}: {done}, {failed} failed"));
            match latest {
                Some((newest, Ok(()))) => text.line(format_args!("{LATEST} is {newest}")),
                Some((_, Err(fault))) => {
                    text.line(format_args!("{LATEST} stays as it was: {fault}"))
                }
                None => {}
            }
            told(report, &fields, &text)
        })
    }
}

/// The newest result.
struct Newest {
    suffix: String,
    /// Another job's, of the same step.
    beside: Option<String>,
}

impl Newest {
    /// It alone is the newest.
    fn alone(&self) -> Result<()> {
        let Some(beside) = &self.beside else {
            return Ok(());
        };
        let message = format!("{} and {beside} are of the same step", self.suffix);
        Err(Fault::new(Kind::Ambiguous, message).hint("say which are meant with --steps"))
    }
}

/// The newest of these steps, which are in order, whose result is there, whoever has made it. Collective.
fn newest(world: &World, out: &Path, found: Vec<Step>) -> Result<Option<Newest>> {
    let there = found
        .iter()
        .map(|step| u64::from(has_manifest(&out.join(&step.suffix))));
    let mut there: Vec<u64> = there.collect();
    all_reduce(world, &mut there, Operation::Max)?;
    let found = found.into_iter().zip(there).rev();
    let mut found = found.filter_map(|(step, there)| (there == 1).then_some(step));
    let Some(newest) = found.next() else {
        return Ok(None);
    };
    let beside = found.next().filter(|step| step.place == newest.place);
    Ok(Some(Newest {
        suffix: newest.suffix,
        beside: beside.map(|step| step.suffix),
    }))
}

/// Lets `latest` lead to the newest step, in one step, on every node. Collective.
fn publish(world: &World, topology: &Topology, out: &Path, newest: &str) -> Result<()> {
    let has = |out: &Path| Ok(io::standing(&out.join(newest))? != io::Standing::Nothing);
    let linked = match topology.leads(world.process()) {
        true => has(out).and_then(|has| if has { link(out, newest) } else { Ok(()) }),
        false => Ok(()),
    };
    agree(world, linked)
}

/// How often the link is made while other runs, or nodes, make it too.
const ATTEMPTS: u32 = 100;

fn link(out: &Path, newest: &str) -> Result<()> {
    let place = out.join(LATEST);
    let partial = hidden(&place, PARTIAL);
    let mut made = Ok(());
    for _ in 0..ATTEMPTS {
        // What a killed run has left has the same name.
        io::remove(&partial)?;
        let leads_to = io::link_target(&place)?;
        if leads_to.is_none() && io::standing(&place)? != io::Standing::Nothing {
            let fault = Fault::new(Kind::Exists, "exists, and is no link");
            return Err(fault.file(place.display().to_string()).hint("move it away"));
        }
        if leads_to.as_deref() == Some(Path::new(newest)) {
            return Ok(());
        }
        // Ours leads to a result beside it.
        if leads_to
            .as_ref()
            .is_some_and(|to| to.components().count() > 1 || to.is_absolute())
        {
            let fault = Fault::new(Kind::Exists, "is a link that leads elsewhere");
            return Err(fault.file(place.display().to_string()).hint("move it away"));
        }
        made = io::link_softly(Path::new(newest), &partial)
            .and_then(|()| io::rename(&partial, &place));
        if made.is_ok() {
            return io::sync_directory(out);
        }
    }
    let _ = io::remove(&partial);
    made
}
