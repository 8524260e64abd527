//! Saves checkpoints from inside a training loop under MPI, one file a rank.
//!
//! A checkpoint counts when all ranks have completed it: they agree on that right after the write, or,
//! with `async_save`, at the next save or at the end. Only then does a rank's `meta.json` name it, and
//! only then may an older one go. So a job that dies at any moment can be resumed from a checkpoint that
//! all ranks have.

use crate::checkpoint::background::{Background, Draft, replace};
use crate::checkpoint::meta::{META, Meta, Name};
use crate::engine::derived::Derived;
use crate::engine::fill::IoMode;
use crate::engine::job::{Job, Options, run};
use crate::engine::place::Placement;
use crate::engine::strategy_files::read_strategy;
use crate::exchange::{Operation, Topology, World, agree, all_reduce, broadcast_bytes};
use crate::fault::{Fault, Kind, Result};
use crate::layout::keep::Keep;
use crate::plan::arrange::{Files, Naming};
use crate::plan::build::{Leftovers, Select};
use crate::plan::reach::ExchangeMode;
use crate::store::io::{self, Standing};
use crate::store::safetensors;
use crate::strategy::Strategy;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most bytes of tensors in a file of merged weights.
const MERGED_FILE_BYTES_MAX: u64 = 5_000_000_000;
/// Most memory for merging, in bytes a process.
const MERGING_BYTES_MAX: u64 = 1 << 30;

/// What a `CheckpointMonitor` entry of a trainer's YAML says. Unknown keys are an error.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorConfig {
    /// The entry's type, `CheckpointMonitor`.
    pub r#type: String,
    /// Beginning of the files' names; `_rank_R` follows.
    pub prefix: String,
    /// Root of the written directories; none: the run's output directory.
    pub directory: Option<PathBuf>,
    /// Save every so many steps; 0: by time.
    pub save_checkpoint_steps: u64,
    /// Save every so many seconds, as process 0's clock tells, if not by steps.
    pub save_checkpoint_seconds: u64,
    /// How many complete checkpoints of this run stay; 0: all.
    pub keep_checkpoint_max: usize,
    /// Also write full weights of every checkpoint, below `checkpoint_integrated/`.
    pub integrated_save: bool,
    /// Also write the weights alone, below `checkpoint_network/`.
    pub save_network_params: bool,
    /// Copy the state and write it behind the training.
    pub async_save: bool,
    /// Samples of a step, for resuming with another size.
    pub global_batch_size: Option<u64>,
    /// `safetensors`.
    pub checkpoint_format: String,
    /// Write one copy only of each shard.
    pub remove_redundancy: bool,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        MonitorConfig {
            r#type: "CheckpointMonitor".into(),
            prefix: "CKP".into(),
            directory: None,
            save_checkpoint_steps: 1,
            save_checkpoint_seconds: 0,
            keep_checkpoint_max: 5,
            integrated_save: false,
            save_network_params: false,
            async_save: false,
            global_batch_size: None,
            checkpoint_format: "safetensors".into(),
            remove_redundancy: false,
        }
    }
}

impl MonitorConfig {
    /// Reads the entry's YAML.
    ///
    /// # Errors
    /// [`Kind::Config`] for an unknown key, a wrong type, or a value that can't be served.
    pub fn parse(text: &str) -> Result<MonitorConfig> {
        let config: MonitorConfig = serde_saphyr::from_str(text).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().map(str::trim).find(|line| !line.is_empty());
            Fault::new(Kind::Config, line.unwrap_or("is no YAML").to_owned())
        })?;
        config.check().map(|()| config)
    }

    /// Checks what the types can't.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn check(&self) -> Result<()> {
        let wrong = |message: &str| Err(Fault::new(Kind::Config, message));
        if self.prefix.contains('/') {
            return wrong("prefix is part of a file name, without '/'");
        }
        if self.checkpoint_format != "safetensors" {
            return wrong("checkpoint_format must be 'safetensors'");
        }
        if self.save_checkpoint_steps == 0 && self.save_checkpoint_seconds == 0 {
            return wrong("save_checkpoint_steps and save_checkpoint_seconds are both 0");
        }
        Ok(())
    }
}

/// A tensor of this rank's state.
#[derive(Clone, Copy, Debug)]
pub struct StateTensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type.
    pub dtype: Dtype,
    /// Shape of this rank's shard, in elements.
    pub shape: &'a [u64],
    /// The shard's bytes, row-major, little-endian.
    pub bytes: &'a [u8],
    /// Whether it is a weight; else the optimizer's.
    pub weight: bool,
}

/// This rank's state after a step.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// All tensors of this rank.
    pub tensors: &'a [StateTensor<'a>],
    /// Epoch, from 1.
    pub epoch: u64,
    /// Step within the epoch, from 1.
    pub step_in_epoch: u64,
    /// Steps over all runs.
    pub step: u64,
    /// The optimizer's own count.
    pub global_step: u64,
    /// Loss scale.
    pub loss_scale: f32,
}

/// Saves checkpoints of a run. One process a rank; all functions are collective.
#[derive(Debug)]
pub struct CheckpointMonitor {
    config: MonitorConfig,
    root: PathBuf,
    rank: u32,
    repeat: Option<u64>,
    strategy_path: Option<PathBuf>,
    keep: Option<Keep>,
    first_rank: u32,
    /// The checkpoint that a thread is writing.
    pending: Option<(Name, Background)>,
    /// Complete ones of this run, oldest first.
    complete: VecDeque<Name>,
    steps: u64,
    saved_step: Option<u64>,
    saved_at: Instant,
}

impl CheckpointMonitor {
    /// A monitor of a run that writes below `output`. `strategy` is needed for `remove_redundancy` and
    /// `integrated_save`: the file or directory that says how this run's tensors are cut. Collective.
    ///
    /// # Errors
    /// The same on every process: [`Kind::Config`], [`Kind::Strategy`], [`Kind::Io`].
    pub fn new(
        world: &World,
        config: MonitorConfig,
        output: &Path,
        strategy: Option<&Path>,
    ) -> Result<CheckpointMonitor> {
        agree(world, config.check())?;
        if strategy.is_none()
            && (config.remove_redundancy || config.integrated_save && world.size() > 1)
        {
            let message = "remove_redundancy and integrated_save need the run's strategy";
            return Err(Fault::new(Kind::Config, message));
        }
        let topology = Topology::discover(world)?;
        let (read, _) = read_strategy(world, &topology, strategy)?;
        let rank = world.process();
        if let Some(read) = &read
            && read.ranks() != world.size()
        {
            let message = format!(
                "the strategy is for {} ranks, the run has {}",
                read.ranks(),
                world.size()
            );
            return Err(Fault::new(Kind::Strategy, message));
        }
        let mut monitor = CheckpointMonitor {
            root: config
                .directory
                .clone()
                .unwrap_or_else(|| output.to_path_buf()),
            first_rank: 0,
            keep: None,
            rank,
            repeat: None,
            strategy_path: strategy.map(Path::to_path_buf),
            pending: None,
            complete: VecDeque::new(),
            steps: 0,
            saved_step: None,
            saved_at: Instant::now(),
            config,
        };
        if let Some(read) = read.filter(|_| monitor.config.remove_redundancy) {
            monitor.keep_one(&read);
        }
        monitor.repeat = monitor.next_repeat(world)?;
        Ok(monitor)
    }

    fn keep_one(&mut self, strategy: &Strategy) {
        let stage = self.rank / strategy.ranks_per_stage();
        self.first_rank = stage * strategy.ranks_per_stage();
        let here = strategy.iter().filter(|(_, layout)| layout.stage == stage);
        self.keep = Some(Keep::new(
            here.map(|(name, layout)| (name.clone(), layout.layout.clone())),
        ));
    }

    /// The number that keeps this run's files apart from an earlier one's: as the trainer, one more
    /// than the largest there is on any rank; none in a fresh directory. Collective.
    fn next_repeat(&self, world: &World) -> Result<Option<u64>> {
        let directory = self.directory("checkpoint");
        let look = || -> Result<u64> {
            if !matches!(io::standing(&directory)?, Standing::Directory) {
                return Ok(0);
            }
            let names = io::list(&directory)?;
            let ours = names.iter().filter_map(|(name, _)| Name::parse(name));
            let ours = ours.filter(|(name, _)| name.prefix == self.config.prefix);
            Ok(ours
                .map(|(name, _)| name.repeat.unwrap_or(0) + 1)
                .max()
                .unwrap_or(0))
        };
        let mut next = [agree(world, look())?];
        all_reduce(world, &mut next, Operation::Max)?;
        Ok((next[0] > 0).then_some(next[0]))
    }

    fn directory(&self, kind: &str) -> PathBuf {
        self.root.join(kind).join(format!("rank_{}", self.rank))
    }

    /// Tells that a step is done; saves if it is time to. Gives whether it did. Collective.
    ///
    /// # Errors
    /// The same on every process, as [`CheckpointMonitor::save`].
    pub fn step<'a>(&mut self, world: &World, state: impl FnOnce() -> State<'a>) -> Result<bool> {
        self.steps += 1;
        let due = if self.config.save_checkpoint_steps > 0 {
            self.steps.is_multiple_of(self.config.save_checkpoint_steps)
        } else {
            let since = Duration::from_secs(self.config.save_checkpoint_seconds);
            let mine = vec![u8::from(self.saved_at.elapsed() >= since)];
            broadcast_bytes(world, 0, mine)? == [1]
        };
        if due {
            self.save(world, &state())?;
        }
        Ok(due)
    }

    /// Saves `state`, and settles what was being written. With `async_save` the state is copied and
    /// the caller goes on at once. Collective.
    ///
    /// # Errors
    /// The same on every process: what kept a rank from completing this checkpoint, or the one before
    /// with `async_save`. That one doesn't count then and is removed; the run may go on.
    pub fn save(&mut self, world: &World, state: &State<'_>) -> Result<()> {
        let settled = self.settle(world);
        let name = Name {
            repeat: self.repeat,
            epoch: state.epoch,
            step: state.step_in_epoch,
            prefix: self.config.prefix.clone(),
            ranked: true,
            iteration: false,
            extension: "safetensors".into(),
        };
        self.saved_step = Some(state.step);
        self.saved_at = Instant::now();
        let drafts = agree(world, self.drafts(&name, state))?;
        if self.config.async_save {
            let owned = drafts.into_iter().map(Draft::into_owned).collect();
            self.pending = Some((name, Background::start(owned)));
            return settled;
        }
        settled?;
        let written = drafts.iter().try_for_each(Draft::write);
        self.conclude(world, name, written)
    }

    /// Saves a last time, unless this very step was saved, and waits until all is written. Collective.
    ///
    /// # Errors
    /// As [`CheckpointMonitor::save`].
    pub fn finish(mut self, world: &World, state: &State<'_>) -> Result<()> {
        if self.saved_step != Some(state.step) {
            self.save(world, state)?;
        }
        self.settle(world)
    }

    /// Waits for the checkpoint that is being written, if any, and agrees on it. Collective.
    ///
    /// # Errors
    /// The same on every process: what kept a rank from completing it.
    pub fn settle(&mut self, world: &World) -> Result<()> {
        let Some((name, background)) = self.pending.take() else {
            return Ok(());
        };
        let written = background.wait();
        self.conclude(world, name, written)
    }

    /// Agrees whether `name` is complete; then records it and lets older ones go. Collective.
    fn conclude(&mut self, world: &World, name: Name, written: Result<()>) -> Result<()> {
        if let Err(fault) = agree(world, written) {
            // Nobody can use it: what some ranks have of it only confuses.
            if let Err(also) = self.remove(&name) {
                tracing::warn!("{also}");
            }
            return Err(fault);
        }
        let meta = Meta::of(&name, self.rank).bytes();
        let path = self.directory("checkpoint").join(META);
        agree(world, meta.and_then(|bytes| replace(&path, &bytes)))?;
        if self.config.integrated_save {
            self.merge(world, &name)?;
        }
        self.complete.push_back(name);
        let mut removed = Ok(());
        while self.config.keep_checkpoint_max > 0
            && self.complete.len() > self.config.keep_checkpoint_max
        {
            if let Some(oldest) = self.complete.pop_front() {
                removed = removed.and_then(|()| self.remove(&oldest));
            }
        }
        agree(world, removed)
    }

    /// Removes this rank's files of a checkpoint. Local.
    fn remove(&self, name: &Name) -> Result<()> {
        io::remove(&self.directory("checkpoint").join(name.file(self.rank)))?;
        io::remove(
            &self
                .directory("checkpoint_network")
                .join(self.network_file(name)),
        )?;
        if self.config.integrated_save && self.rank == 0 {
            io::remove_directory(&self.merged(name))?;
        }
        Ok(())
    }

    fn network_file(&self, name: &Name) -> String {
        let repeat = name
            .repeat
            .map_or(String::new(), |repeat| format!("_{repeat}"));
        let Name {
            prefix,
            epoch,
            step,
            ..
        } = name;
        format!(
            "{prefix}_rank_{}{repeat}-network-{epoch}_{step}.safetensors",
            self.rank
        )
    }

    fn merged(&self, name: &Name) -> PathBuf {
        let repeat = name
            .repeat
            .map_or(String::new(), |repeat| format!("_{repeat}"));
        let file = format!("{}{repeat}-{}_{}", name.prefix, name.epoch, name.step);
        self.root.join("checkpoint_integrated").join(file)
    }

    /// Full weights of a complete checkpoint, by the engine. Collective.
    fn merge(&self, world: &World, name: &Name) -> Result<()> {
        let job = Job {
            command: "unify",
            source: self.root.join("checkpoint"),
            source_strategy: self.strategy_path.clone(),
            file_suffix: Some(name.suffix()),
            destination: self.merged(name),
            destination_strategy: None,
            select: Select::default(),
            leftovers: Leftovers::Unify,
            files: Files::Full {
                naming: Naming::Hf,
                file_bytes_max: MERGED_FILE_BYTES_MAX,
            },
            format: None,
            options: Options {
                memory_bytes: MERGING_BYTES_MAX,
                exchange: ExchangeMode::Auto,
                threads: 1,
                dry_run: false,
                io: IoMode::default(),
                placement: Placement::Auto,
                overwrite: true,
                verify: false,
                flush: true,
                in_place: false,
                resume: false,
            },
            derived: Derived::default(),
            view: None,
            extras: Vec::new(),
        };
        run(world, &job, &mut |_, _| {}).map(|_| ())
    }

    /// The files of a checkpoint on this rank. Local.
    fn drafts<'a>(&self, name: &Name, state: &State<'a>) -> Result<Vec<Draft<'a>>> {
        let kept = |tensor: &&StateTensor<'a>| {
            let local = self.rank - self.first_rank;
            self.keep
                .as_ref()
                .is_none_or(|keep| keep.keeps(tensor.name, local))
        };
        let tensors = || state.tensors.iter().filter(kept);
        let mut contents: Contents<'a> = tensors().map(content).collect();
        for (name, dtype, dims, bytes) in self.scalars(state)? {
            contents.insert(name.into(), (dtype, Shape(dims), Cow::Owned(bytes)));
        }
        let directory = self.directory("checkpoint");
        let mut drafts = vec![self.draft(directory.join(name.file(self.rank)), contents)?];
        if self.config.save_network_params {
            let weights = tensors()
                .filter(|tensor| tensor.weight)
                .map(content)
                .collect();
            let path = self
                .directory("checkpoint_network")
                .join(self.network_file(name));
            drafts.push(self.draft(path, weights)?);
        }
        Ok(drafts)
    }

    fn draft<'a>(&self, path: PathBuf, mut contents: Contents<'a>) -> Result<Draft<'a>> {
        let listing: Vec<_> = contents
            .iter()
            .map(|(name, (dtype, shape, _))| (name.clone(), *dtype, shape.clone()))
            .collect();
        let removed = if self.config.remove_redundancy {
            "True"
        } else {
            "False"
        };
        let metadata = BTreeMap::from([
            ("format".to_owned(), "ms".to_owned()),
            ("remove_redundancy".to_owned(), removed.to_owned()),
        ]);
        let schema = Arc::new(safetensors::design(&listing, &metadata)?);
        let bytes = schema.entries.iter().map(|entry| {
            contents
                .remove(&entry.name)
                .map_or(Cow::Borrowed(&[][..]), |(_, _, bytes)| bytes)
        });
        Ok(Draft {
            path,
            bytes: bytes.collect(),
            schema: Arc::clone(&schema),
        })
    }

    /// Where the run stands, as the trainer appends it.
    fn scalars(&self, state: &State<'_>) -> Result<Vec<Scalar>> {
        let count = |name: &'static str, dims: Vec<u64>, value: u64| {
            let value = i32::try_from(value).map_err(|_| {
                Fault::new(Kind::Unsupported, format!("{value} is too large a count")).tensor(name)
            })?;
            Ok((name, Dtype::I32, dims, value.to_le_bytes().to_vec()))
        };
        let mut scalars = vec![
            count("epoch_num", vec![], state.epoch)?,
            count("step_num", vec![], state.step)?,
            count("global_step", vec![1], state.global_step)?,
            (
                "loss_scale",
                Dtype::F32,
                vec![],
                state.loss_scale.to_le_bytes().to_vec(),
            ),
        ];
        if let Some(batch) = self.config.global_batch_size {
            scalars.push(count("global_batch_size", vec![], batch)?);
        }
        Ok(scalars)
    }
}

/// A tensor of one element: name, type, dimensions, bytes.
type Scalar = (&'static str, Dtype, Vec<u64>, Vec<u8>);

/// What goes into a file.
type Contents<'a> = BTreeMap<Arc<str>, Content<'a>>;

/// A tensor's type, shape and bytes.
type Content<'a> = (Dtype, Shape, Cow<'a, [u8]>);

fn content<'a>(tensor: &StateTensor<'a>) -> (Arc<str>, Content<'a>) {
    let shape = Shape(tensor.shape.to_vec());
    (
        tensor.name.into(),
        (tensor.dtype, shape, Cow::Borrowed(tensor.bytes)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_strict_about_its_keys() {
        let good =
            "type: CheckpointMonitor\nprefix: m\nsave_checkpoint_steps: 10\nasync_save: True";
        let config = MonitorConfig::parse(good).unwrap();
        assert!(config.async_save && config.keep_checkpoint_max == 5 && config.prefix == "m");
        for bad in [
            "prefixx: m",
            "prefix: a/b",
            "checkpoint_format: ckpt",
            "save_checkpoint_steps: 0",
            "keep_checkpoint_max: -1",
            "async_save: 3",
        ] {
            assert_eq!(
                MonitorConfig::parse(bad).unwrap_err().kind,
                Kind::Config,
                "{bad}"
            );
        }
    }
}
