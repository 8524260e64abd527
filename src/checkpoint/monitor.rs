//! Saves checkpoints from inside a training loop under MPI, one file a rank.
//!
//! A checkpoint counts when all ranks have completed it: they agree on that right after the write, or,
//! with `async_save`, at the first step that finds all ranks' threads at their end. Only then does a rank's `meta.json` name it, and
//! only when all ranks' name it may an older one go. So a job that dies at any moment can be resumed from
//! a checkpoint that all ranks have.
//!
//! With `async_save` the training waits for two things: that the thread which writes the checkpoint before
//! has ended, and one copy of the state, into memory that was in use for the last copy. All file I/O is
//! on that thread, records and removals of older checkpoints too.

use crate::checkpoint::background::{Background, Buffers, Chores, Draft};
use crate::checkpoint::guarded::Guarded;
use crate::checkpoint::merging::merge;
pub use crate::checkpoint::monitor_config::{Appended, MonitorConfig, Number};
use crate::checkpoint::retention::Retention;
use crate::checkpoint::shelf::Shelf;
pub use crate::checkpoint::state::{State, StateTensor};
use crate::destination::allowed;
use crate::exchange::{Operation, Topology, World, agree, all_reduce, broadcast_bytes};
use crate::fault::{Fault, Kind, Result};
use crate::source::meta::{META, Meta, Name};
use crate::source::strategy_files::read_strategy;
use crate::store::io::{self, Standing};
use crate::strategy::StrategyInput;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Saves checkpoints of a run. One process a rank; all functions are collective.
#[derive(Debug)]
pub struct CheckpointMonitor {
    config: MonitorConfig,
    shelf: Shelf,
    guarded: Guarded,
    repeat: Option<u64>,
    strategy_path: Option<PathBuf>,
    /// What a thread is doing: writing a checkpoint, or only chores.
    pending: Option<(Option<Name>, Background)>,
    buffers: Buffers,
    retention: Retention,
    /// The last complete checkpoint, and whether all ranks have recorded it.
    last: Option<(Name, bool)>,
    /// Those that may go when the last complete one is recorded.
    replaced: Vec<Name>,
    /// Those that may go now.
    expired: Vec<Name>,
    started: Instant,
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
        let root = config.directory.clone();
        let root = root.unwrap_or_else(|| output.to_path_buf());
        let directory = root.join("checkpoint");
        let reads: Vec<_> = strategy
            .iter()
            .map(|path| ("run's strategy", *path))
            .collect();
        agree(world, allowed::check(&directory, &reads, false))?;
        let topology = Topology::discover(world)?;
        let (read, _) =
            read_strategy(world, &topology, strategy.map(StrategyInput::from).as_ref())?;
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
        let read = read.filter(|_| config.remove_redundancy);
        let shelf = Shelf::new(&config, root, rank, read.as_ref());
        let guarded = Guarded::new(world, &topology, &directory)?;
        let mut monitor = CheckpointMonitor {
            shelf,
            guarded,
            repeat: None,
            strategy_path: strategy.map(Path::to_path_buf),
            pending: None,
            buffers: Buffers::default(),
            retention: Retention::new(
                config.keep_checkpoint_max,
                Duration::from_secs(config.keep_checkpoint_per_n_minutes.saturating_mul(60)),
            ),
            last: None,
            replaced: Vec::new(),
            expired: Vec::new(),
            started: Instant::now(),
            steps: 0,
            saved_step: None,
            saved_at: Instant::now(),
            config,
        };
        monitor.repeat = monitor.next_repeat(world)?;
        Ok(monitor)
    }

    /// The number that keeps this run's files apart from an earlier one's: as the trainer, one more
    /// than the largest there is on any rank; none in a fresh directory. Collective.
    fn next_repeat(&self, world: &World) -> Result<Option<u64>> {
        let directory = self.shelf.directory("checkpoint");
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

    fn name(&self, state: &State<'_>) -> Name {
        Name {
            repeat: self.repeat,
            epoch: state.epoch,
            step: state.step_in_epoch,
            prefix: self.config.prefix.clone(),
            ranked: true,
            iteration: false,
            extension: "safetensors".into(),
        }
    }

    /// With `async_save`, takes and touches the memory for copies of `state`, so that the first save waits
    /// no longer than the others. To be called before the first step; it saves nothing. Local.
    ///
    /// # Errors
    /// As the first part of [`CheckpointMonitor::save`], for a state that can't be described.
    pub fn prepare(&mut self, state: &State<'_>) -> Result<()> {
        if self.config.async_save {
            let drafts = self.shelf.drafts(&self.name(state), state)?;
            let copies = self.buffers.copy(drafts)?;
            self.buffers.reclaim(copies);
        }
        Ok(())
    }

    /// Tells that a step is done; gives whether it is time to save. With `async_save` it also looks whether
    /// all ranks have completed the checkpoint before, and has it recorded then. Collective.
    ///
    /// # Errors
    /// The same on every process: what kept a rank from completing the checkpoint before. It doesn't
    /// count then and is removed; the run may go on.
    pub fn due(&mut self, world: &World) -> Result<bool> {
        self.steps += 1;
        self.look_after(world)?;
        if self.config.save_checkpoint_steps > 0 {
            return Ok(self.steps.is_multiple_of(self.config.save_checkpoint_steps));
        }
        let since = Duration::from_secs(self.config.save_checkpoint_seconds);
        let mine = vec![u8::from(self.saved_at.elapsed() >= since)];
        Ok(broadcast_bytes(world, 0, mine)? == [1])
    }

    /// Tells that a step is done; saves if it is time to. Gives whether it did. Collective.
    ///
    /// # Errors
    /// The same on every process, as [`CheckpointMonitor::save`].
    pub fn step<'a>(&mut self, world: &World, state: impl FnOnce() -> State<'a>) -> Result<bool> {
        let due = self.due(world)?;
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
        let gathered = self.gather_in(world);
        self.saved_at = Instant::now();
        if let Err(busy) = self.guarded.take(world) {
            return gathered.and(Err(busy));
        }
        let saved = self.write(world, state, gathered);
        self.release();
        saved
    }

    /// Gives the lock back, if nothing is being written for any rank. Local, the same on all.
    fn release(&mut self) {
        if self.pending.is_none() {
            self.guarded.release();
        }
    }

    /// Writes `state` when what was being written is `gathered` in. Collective.
    fn write(&mut self, world: &World, state: &State<'_>, gathered: Result<()>) -> Result<()> {
        let name = self.name(state);
        self.saved_step = Some(state.step);
        let prepared = self
            .shelf
            .drafts(&name, state)
            .and_then(|drafts| Ok((drafts, self.chores()?)));
        if self.config.async_save {
            let copied =
                prepared.and_then(|(drafts, chores)| Ok((self.buffers.copy(drafts)?, chores)));
            let (copies, chores) = agree(world, copied)?;
            self.pending = Some((Some(name), Background::start(chores, copies)));
            return gathered;
        }
        let (drafts, _) = agree(world, prepared)?;
        gathered?;
        let written = drafts.iter().try_for_each(Draft::write);
        self.agree_on(world, &name, written)?;
        self.take_up(world, name)?;
        self.record(world)
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

    /// Ends the saving of a training that ends by an error: waits until all is written, and with
    /// `exception_save` saves `state` unless it was saved. Gives whether it stands. Collective.
    ///
    /// All processes must know of the error, through [`agree`] for one, and `state` be that of the last
    /// step which all have completed. A process that has died can't take part: then the last
    /// checkpoint that was saved is what there is.
    ///
    /// # Errors
    /// As [`CheckpointMonitor::save`].
    pub fn fail(mut self, world: &World, state: &State<'_>) -> Result<bool> {
        if self.config.exception_save && self.saved_step != Some(state.step) {
            self.save(world, state)?;
        }
        self.settle(world)?;
        Ok(self.saved_step == Some(state.step))
    }

    /// Whether nothing is being written for this rank. Local.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.pending
            .as_ref()
            .is_none_or(|(_, background)| background.ended())
    }

    /// Waits for the checkpoint that is being written, if any, agrees on it, and records it. Collective.
    ///
    /// # Errors
    /// The same on every process: what kept a rank from completing it.
    pub fn settle(&mut self, world: &World) -> Result<()> {
        let gathered = self.gather_in(world);
        let recorded = match self.has_to_record() {
            true => self.guarded.take(world).and_then(|()| self.record(world)),
            false => Ok(()),
        };
        self.release();
        recorded.and(gathered)
    }

    /// Waits for the checkpoint that is being written, if any, and agrees on it. Collective.
    fn gather_in(&mut self, world: &World) -> Result<()> {
        let Some((name, background)) = self.pending.take() else {
            return Ok(());
        };
        let written = background.wait(&mut self.buffers);
        let Some(name) = name else {
            agree(world, written)?;
            self.recorded();
            return Ok(());
        };
        self.agree_on(world, &name, written)?;
        // The thread did its chores before it wrote.
        self.recorded();
        self.take_up(world, name)
    }

    /// Gathers in what all ranks' threads have completed, and lets them do what follows from it. Collective.
    fn look_after(&mut self, world: &World) -> Result<()> {
        if self.pending.is_none() {
            return Ok(());
        }
        let mut ended = [u64::from(self.idle())];
        all_reduce(world, &mut ended, Operation::Min)?;
        if ended == [0] {
            return Ok(());
        }
        let gathered = self.gather_in(world);
        let chores = match gathered.is_ok() && self.has_to_record() {
            true => agree(world, self.chores()).map(Some),
            false => gathered.map(|()| None),
        };
        let begun = chores.map(|chores| {
            let chores = chores.map(|chores| (None, Background::start(chores, Vec::new())));
            self.pending = chores;
        });
        self.release();
        begun
    }

    /// Whether the last complete checkpoint is not recorded yet, or older ones are to go: the same on all.
    fn has_to_record(&self) -> bool {
        matches!(&self.last, Some((_, false))) || !self.expired.is_empty()
    }

    /// Agrees whether `name` is complete. Collective.
    fn agree_on(&self, world: &World, name: &Name, written: Result<()>) -> Result<()> {
        agree(world, written).inspect_err(|_| {
            // Nobody can use it: what some ranks have of it only confuses.
            if let Err(also) = self.shelf.removal(std::slice::from_ref(name)).run() {
                tracing::warn!("{also}");
            }
        })
    }

    /// Takes `name` up as the last complete one. Collective.
    fn take_up(&mut self, world: &World, name: Name) -> Result<()> {
        let mut at = self.started.elapsed();
        if self.retention.by_time() {
            let mine = at.as_secs().to_le_bytes().to_vec();
            let agreed = broadcast_bytes(world, 0, mine)?;
            at = Duration::from_secs(agreed.try_into().map_or(0, u64::from_le_bytes));
        }
        self.replaced.extend(self.retention.add(name.clone(), at));
        self.last = Some((name, false));
        match &self.last {
            Some((name, _)) if self.config.integrated_save => {
                let strategy = self.strategy_path.clone();
                merge(world, &self.shelf, strategy, name)
            }
            _ => Ok(()),
        }
    }

    /// What is to be done for the last complete checkpoint. Local.
    fn chores(&self) -> Result<Chores> {
        let mut chores = self.shelf.removal(&self.expired);
        if let Some((name, false)) = &self.last {
            let path = self.shelf.directory("checkpoint").join(META);
            let meta = Meta::of(name, self.shelf.rank()).bytes()?;
            chores.replaced.push((path, meta));
        }
        Ok(chores)
    }

    /// Notes that all ranks have done their [`CheckpointMonitor::chores`].
    fn recorded(&mut self) {
        if let Some((_, recorded)) = &mut self.last {
            *recorded = true;
        }
        self.expired.clear();
        self.expired.append(&mut self.replaced);
    }

    /// Records the last complete checkpoint, and lets those go that it replaces. Collective.
    fn record(&mut self, world: &World) -> Result<()> {
        if let Some((_, false)) = &self.last {
            let chores = agree(world, self.chores())?;
            agree(world, chores.run())?;
            self.recorded();
        }
        if !self.expired.is_empty() {
            agree(world, self.shelf.removal(&self.expired).run())?;
            self.expired.clear();
        }
        Ok(())
    }
}
