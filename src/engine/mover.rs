//! Moves the bytes of a process's share.
//!
//! Where every process sees all it needs, each works through its slabs by itself. Otherwise the world
//! goes in [`rounds`](super::rounds).

use crate::engine::fill::Readers;
use crate::engine::ledger::Ledger;
use crate::engine::parts::{Builder, cut_parts};
use crate::engine::rounds::Exchange;
use crate::engine::sink::Sink;
use crate::exchange::{Alarm, Progress, World, agree};
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::Reach;
use crate::plan::survey::{Survey, survey};
use crate::plan::work::{Slab, Work};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Slabs planned ahead.
pub(super) const AHEAD: usize = 64;

/// Told how many bytes are written, of how many in all.
pub type Observer<'a> = dyn FnMut(u64, u64) + 'a;

/// Everything that moving needs.
pub struct Mover<'a> {
    /// All processes.
    pub world: &'a World,
    /// This process's share.
    pub work: Work<'a>,
    /// Who serves what.
    pub reach: &'a Reach,
    /// Where bytes come from.
    pub readers: &'a Readers<'a>,
    /// Where they go.
    pub sink: &'a dyn Sink,
    /// Where what is done is entered, if it is.
    pub ledger: Option<&'a Ledger<'a>>,
    /// Worker threads.
    pub threads: usize,
    /// Most memory to use for buffers.
    pub memory_bytes: u64,
    /// Bytes that all processes write together, for telling progress.
    pub total_bytes: u64,
}

/// What was moved, counted while it happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes sent to other processes.
    pub sent_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Rounds of the exchange.
    pub rounds: u64,
}

impl<'a> Mover<'a> {
    /// Walks through this process's share without moving a byte. Local.
    ///
    /// # Errors
    /// [`Kind::MissingShard`] if a shard is needed that nobody sees.
    pub fn survey(&self) -> Result<Survey> {
        survey(&self.work, self.reach)
    }

    /// Moves everything. Collective; `exchange` says, the same on all processes, whether anything
    /// has to be sent.
    ///
    /// # Errors
    /// The same on every process.
    pub fn run(&self, exchange: Option<Exchange>, observer: &mut Observer<'_>) -> Result<Moved> {
        let mut progress = Progress::start(self.world);
        let alarm = Alarm::of(self.world);
        let result = match exchange {
            None if self.threads > 1 => self.direct_threaded(&alarm, &mut progress, observer),
            None => self.direct(&alarm, &mut progress, observer),
            Some(exchange) => self.in_rounds(exchange, &mut progress, observer),
        };
        let result = result.and_then(|moved| self.sink.finish().map(|()| moved));
        if exchange.is_none() && result.is_err() {
            alarm.raise();
        }
        let moved = agree(self.world, result)?;
        observer(progress.finish()?, 0);
        Ok(moved)
    }

    fn direct(
        &self,
        alarm: &Alarm<'_>,
        progress: &mut Progress<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<Moved> {
        let mut moved = Moved::default();
        let mut builder = Builder::new(self.readers, self.sink, self.ledger);
        self.work.for_each_slab(|slab| {
            alarm.check()?;
            builder.build(&slab, &cut_parts(self.reach, &slab)?, None)?;
            moved.written_bytes += slab.written_bytes();
            tell(progress, moved.written_bytes, self.total_bytes, observer)
        })?;
        Ok(moved)
    }

    fn direct_threaded(
        &self,
        alarm: &Alarm<'_>,
        progress: &mut Progress<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<Moved> {
        let mut moved = Moved::default();
        let (send, receive) = sync_channel::<Slab<'a>>(AHEAD);
        let receive = Mutex::new(receive);
        let failed: Mutex<Option<Fault>> = Mutex::new(None);
        let shared = Shared {
            reach: self.reach,
            readers: self.readers,
            sink: self.sink,
            ledger: self.ledger,
        };
        let planned = std::thread::scope(|scope| {
            for _ in 0..self.threads {
                let (receive, failed) = (&receive, &failed);
                scope.spawn(move || {
                    if let Err(fault) = shared.drain(receive) {
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(fault);
                    }
                });
            }
            let stopped = || {
                failed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .is_some()
            };
            let planned = self.work.for_each_slab(|slab| {
                alarm.check()?;
                let bytes = slab.written_bytes();
                if stopped() || send.send(slab).is_err() {
                    return Err(Fault::new(Kind::Peer, "a worker thread has failed"));
                }
                moved.written_bytes += bytes;
                tell(progress, moved.written_bytes, self.total_bytes, observer)
            });
            drop(send);
            planned
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => Err(fault),
            None => planned.map(|()| moved),
        }
    }
}

/// What worker threads share: no MPI.
#[derive(Clone, Copy)]
struct Shared<'a> {
    reach: &'a Reach,
    readers: &'a Readers<'a>,
    sink: &'a dyn Sink,
    ledger: Option<&'a Ledger<'a>>,
}

impl Shared<'_> {
    fn drain(&self, slabs: &Mutex<Receiver<Slab<'_>>>) -> Result<()> {
        let mut builder = Builder::new(self.readers, self.sink, self.ledger);
        loop {
            let next = slabs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(slab) = next else { return Ok(()) };
            builder.build(&slab, &cut_parts(self.reach, &slab)?, None)?;
        }
    }
}

/// Reports progress and lets the observer know. Local.
pub(super) fn tell(
    progress: &mut Progress<'_>,
    done: u64,
    total: u64,
    observer: &mut Observer<'_>,
) -> Result<()> {
    progress.report(done)?;
    observer(progress.total()?, total);
    Ok(())
}
