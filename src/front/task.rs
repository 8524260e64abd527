//! A job, put together step by step.

use crate::destination::Writing;
use crate::exchange::World;
use crate::fault::{Fault, Kind, Result};
use crate::front::deriving::Deriving;
use crate::job::verify::Verification;
use crate::job::{self, Comparing, Convert, Goal, Job, Outcome, Write};
use crate::plan::arrange::FULL_FILE_BYTES_MAX;
use crate::plan::arrange::{Files, Naming, RankName};
use crate::plan::build::{Leftovers, Unmatched};
use crate::source::{Reading, Which};
use crate::store::Format;
use crate::strategy::StrategyInput;
use crate::tensor::dtype::Dtype;
use crate::transport::Buffer;
use std::path::PathBuf;

/// A job that is being put together: made by [`reshard`] and its like, started by [`Task::run`].
#[derive(Clone, Debug)]
#[must_use = "a task does nothing until it is run"]
pub struct Task {
    job: Job,
    /// What strategies are derived from that don't lie in files.
    model: Option<PathBuf>,
}

/// A shard that a rank will have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shard {
    /// Name of the tensor.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// The shard's shape, in elements: `[rows, columns]` …
    pub shape: Vec<u64>,
    /// Its length in bytes.
    pub bytes: u64,
}

fn write(
    command: &'static str,
    source: PathBuf,
    destination: PathBuf,
    leftovers: Leftovers,
    files: Files,
) -> Task {
    Task::new(
        command,
        Reading::checkpoint(source, None, None),
        Goal::Write(Box::new(Write::new(
            leftovers,
            files,
            Writing::into(destination),
        ))),
    )
}

fn rank_files(numbered: bool) -> Files {
    Files::Ranks {
        name: RankName::new("net", numbered),
        remove_redundancy: false,
    }
}

/// Distributed weights in another layout: `rank_R/` directories in `destination`. Files that a trainer
/// has saved keep their names, with a `meta.json` to resume from; [`Task::prefix`] gives others.
///
/// ```
/// # fn main() -> shardloom::fault::Result<()> {
/// # std::env::set_current_dir("tests/data/reshard_8_to_4").unwrap();
/// # let room = tempfile::tempdir().unwrap();
/// # let new = room.path().join("new");
/// let world = shardloom::World::start()?;
/// let outcome = shardloom::reshard("src", &new)
///     .source_strategy("strategy/src.ckpt")
///     .strategy("strategy/dst.ckpt")
///     .run(&world)?;
/// assert_eq!(outcome.tensors, 10);
/// world.finish()
/// # }
/// ```
pub fn reshard(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Task {
    let leftovers = Leftovers::Reshard(Unmatched::Fail);
    let (source, destination) = (source.into(), destination.into());
    let files = Files::AsSource(Box::new(rank_files(true)));
    write("reshard", source, destination, leftovers, files)
}

/// Distributed weights as full weights, in files of at most 5 GB with an index.
pub fn unify(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Task {
    let files = Files::Full {
        naming: Naming::Hf,
        file_bytes_max: FULL_FILE_BYTES_MAX,
    };
    let (source, destination) = (source.into(), destination.into());
    write(
        "unify",
        source,
        destination,
        Leftovers::Unify(Unmatched::Fail),
        files,
    )
}

/// Full weights cut for a layout: `rank_R/net.safetensors` in `destination`.
pub fn split(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Task {
    let (source, destination) = (source.into(), destination.into());
    write(
        "split",
        source,
        destination,
        Leftovers::Split(Unmatched::Fail),
        rank_files(false),
    )
}

/// Weights of any layout for [`Task::into_buffers`]: nothing is written.
pub fn load(source: impl Into<PathBuf>) -> Task {
    let leftovers = Leftovers::Reshard(Unmatched::Fail);
    let nowhere = PathBuf::new();
    write("load", source.into(), nowhere, leftovers, rank_files(true))
}

/// Every file of weights as it is, in the format `to`; those that are in it already are left out.
pub fn convert(source: impl Into<PathBuf>, destination: impl Into<PathBuf>, to: Format) -> Task {
    let reading = Reading {
        path: source.into(),
        which: Which::Every {
            to,
            contains: None,
            check_crc: false,
        },
        ..Reading::default()
    };
    let goal = Goal::Convert(Box::new(Convert::new(to, Writing::into(destination))));
    Task::new("convert", reading, goal)
}

/// Two checkpoints compared tensor by tensor, whatever their layouts; [`Task::strategy`] is that of
/// the second. [`Outcome::equal`] says what came out.
pub fn diff(a: impl Into<PathBuf>, b: impl Into<PathBuf>) -> Task {
    let other = Reading::checkpoint(b.into(), None, None);
    let reading = Reading::checkpoint(a.into(), None, None);
    Task::new(
        "diff",
        reading,
        Goal::Compare(Box::new(Comparing::of(other))),
    )
}

/// The files of a directory against the manifest that was written with them. Collective;
/// [`Outcome::bad`] says what is wrong.
///
/// # Errors
/// The same on every process, if there is no manifest.
pub fn verify(world: &World, directory: impl Into<PathBuf>) -> Result<Outcome> {
    let verification = Verification {
        directory: directory.into(),
        against: None,
        subset: None,
    };
    job::verify::verify(world, &verification, &mut |_, _| {})
}

impl Task {
    pub(super) fn new(command: &'static str, reading: Reading, goal: Goal) -> Task {
        Task {
            job: Job::new(command, reading, goal),
            model: None,
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Writing)) -> Self {
        match &mut self.job.goal {
            Goal::Write(write) => change(&mut write.writing),
            Goal::Convert(convert) => change(&mut convert.writing),
            Goal::Compare(_) => {}
        }
        self
    }

    /// The strategy that the source is cut by: file, merged file or directory; or what it is derived from,
    /// a layout (`dp=2,tp=4`) or a trainer's YAML file. Left out: full weights.
    pub fn source_strategy(mut self, path: impl Into<PathBuf>) -> Self {
        self.job.reading.strategy = Some(StrategyInput::from(path));
        self
    }

    /// The strategy to cut by, as [`Task::source_strategy`] takes it. Left out: full weights.
    pub fn strategy(mut self, path: impl Into<PathBuf>) -> Self {
        let path = StrategyInput::from(path);
        if let Goal::Compare(comparing) = &mut self.job.goal {
            comparing.other.strategy = Some(path);
            return self;
        }
        self.change(|writing| writing.strategy = Some(path))
    }

    /// The model's directory, or its config.json, for strategies that are derived. Left out: the one where the
    /// weights are, or that a trainer's file names.
    pub fn model(mut self, path: impl Into<PathBuf>) -> Self {
        self.model = Some(path.into());
        self
    }

    /// Which of several positions in the rank directories: `1_20`.
    pub fn file_suffix(mut self, suffix: &str) -> Self {
        self.job.reading.which = Which::Checkpoint(Some(suffix.to_owned()));
        self
    }

    /// Calls the files of ranks `{prefix}{rank}`, whatever the source's are called.
    pub fn prefix(mut self, prefix: &str) -> Self {
        if let Goal::Write(write) = &mut self.job.goal
            && !matches!(write.files, Files::Full { .. })
        {
            write.files = Files::Ranks {
                name: RankName::new(prefix, true),
                remove_redundancy: false,
            };
        }
        self
    }

    /// Leaves out tensors whose names begin so.
    pub fn without(mut self, prefix: &str) -> Self {
        if let Goal::Write(write) = &mut self.job.goal {
            write.select.filter_out_prefixes.push(prefix.to_owned());
        }
        self
    }

    /// Replaces what stands at the destination, in one step, when the new is complete.
    pub fn overwrite(self) -> Self {
        self.change(|writing| writing.overwrite = true)
    }

    /// Takes up what an interrupted run of the same job has left.
    pub fn resume(self) -> Self {
        self.change(|writing| writing.resume = true)
    }

    /// Plans only.
    pub fn dry_run(mut self) -> Self {
        self.job.dry_run = true;
        self
    }

    /// Most memory for buffers, in bytes a process (1 GiB if not said).
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.job.moving.memory_bytes = bytes;
        self
    }

    /// Worker threads a process (the node's cores divided by its processes if not said).
    pub fn threads(mut self, threads: usize) -> Self {
        self.job.moving.threads = threads;
        self
    }

    /// Runs it. Collective.
    ///
    /// # Errors
    /// The same on every process; then nothing is visible at the destination.
    pub fn run(&self, world: &World) -> Result<Outcome> {
        if self.job.command == "load" {
            let fault = Fault::new(Kind::Usage, "a task of `load` has no destination");
            return Err(fault.hint("into_buffers fills buffers; reshard writes files"));
        }
        job::run(world, &self.ready(world)?, &mut |_, _| {})
    }

    /// The job, with the strategies that are derived. Collective.
    fn ready(&self, world: &World) -> Result<Job> {
        let mut job = self.job.clone();
        let mut sources = vec![job.reading.path.clone()];
        if let Goal::Compare(comparing) = &job.goal {
            sources.push(comparing.other.path.clone());
        }
        let deriving = Deriving {
            model: self.model.clone(),
            sources,
            ..Deriving::default()
        };
        deriving.fill(world, &mut job)?;
        Ok(job)
    }

    /// The shards that destination rank `rank` will have. Collective: each process names a rank.
    ///
    /// # Errors
    /// The same on every process.
    pub fn shards(&self, world: &World, rank: u32) -> Result<Vec<Shard>> {
        let catalog = job::shards(world, &self.ready(world)?, Some(rank))?;
        let files = catalog.ranks.get(&rank).into_iter().flatten();
        let entries = files.flat_map(|file| &file.schema.entries);
        let shards = entries.map(|entry| Shard {
            name: entry.name.to_string(),
            dtype: entry.dtype,
            shape: entry.shape.0.clone(),
            bytes: entry.bytes(),
        });
        Ok(shards.collect())
    }

    /// Runs it with memory as its destination: the shards of destination rank `rank` go into
    /// `buffers`, one for each. Collective: each process names a rank; nothing is written to disk.
    ///
    /// # Errors
    /// The same on every process; buffers may have been filled in part then.
    pub fn into_buffers(
        &self,
        world: &World,
        rank: u32,
        buffers: &mut [Buffer<'_>],
    ) -> Result<Outcome> {
        let job = self.ready(world)?;
        job::fill(world, &job, Some(rank), buffers, &mut |_, _| {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trainers_names_are_kept_unless_a_prefix_is_given() {
        let files = |task: Task| match task.job.goal {
            Goal::Write(write) => Some(write.files),
            _ => None,
        };
        let kept = files(reshard("a", "b"));
        assert!(matches!(kept, Some(Files::AsSource(_))), "{kept:?}");
        let named = files(reshard("a", "b").prefix("x"));
        assert!(matches!(named, Some(Files::Ranks { .. })), "{named:?}");
    }
}
