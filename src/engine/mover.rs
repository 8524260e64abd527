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
use crate::plan::survey::{Survey, survey};
use crate::plan::work::{Site, Work};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How often the others and the progress are looked after.
const WATCH: Duration = Duration::from_millis(50);

/// Told how many bytes are written, of how many in all.
pub type Observer<'a> = dyn FnMut(u64, u64) + 'a;

/// Everything that moving needs.
pub struct Mover<'a> {
    /// All processes.
    pub world: &'a World,
    /// This process's share.
    pub work: Work<'a>,
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
        let threads = u32::try_from(self.threads).unwrap_or(1).max(1);
        let sites = (0..threads).map(|thread| self.work.site.of_thread(thread, threads));
        let sites: Vec<Site> = sites.collect();
        std::thread::scope(|scope| {
            let walks = sites.iter().map(|site| {
                let work = Work { site, ..self.work };
                scope.spawn(move || survey(&work))
            });
            let walks: Vec<_> = walks.collect();
            let gone = |_| Err(Fault::new(Kind::Internal, "a planning thread is gone"));
            walks
                .into_iter()
                .map(|walk| walk.join().unwrap_or_else(gone))
                .sum()
        })
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

    /// Divides the work over threads; this one, which alone may speak MPI, watches them.
    fn direct(
        &self,
        alarm: &Alarm<'_>,
        progress: &mut Progress<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<Moved> {
        let shared = Shared {
            work: self.work,
            readers: self.readers,
            sink: self.sink,
            ledger: self.ledger,
            written_bytes: &AtomicU64::new(0),
            stop: &AtomicBool::new(false),
        };
        let threads = u32::try_from(self.threads).unwrap_or(1).max(1);
        let mut failed: Option<Fault> = None;
        std::thread::scope(|scope| {
            let (send, ended) = channel();
            for thread in 0..threads {
                let send = send.clone();
                // Nobody hears of the end of a thread whose listener has failed.
                scope.spawn(move || send.send(shared.walk(thread, threads)).ok());
            }
            drop(send);
            loop {
                let watched = match ended.recv_timeout(WATCH) {
                    Ok(walked) => walked,
                    Err(RecvTimeoutError::Timeout) => alarm.check().and_then(|()| {
                        let written = shared.written_bytes.load(Ordering::Relaxed);
                        tell(progress, written, self.total_bytes, observer)
                    }),
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                if let Err(fault) = watched {
                    shared.stop.store(true, Ordering::Relaxed);
                    failed.get_or_insert(fault);
                }
            }
        });
        let written_bytes = shared.written_bytes.load(Ordering::Relaxed);
        match failed {
            Some(fault) => Err(fault),
            None => tell(progress, written_bytes, self.total_bytes, observer).map(|()| Moved {
                written_bytes,
                ..Moved::default()
            }),
        }
    }
}

/// What worker threads share: no MPI.
#[derive(Clone, Copy)]
struct Shared<'a> {
    work: Work<'a>,
    readers: &'a Readers<'a>,
    sink: &'a dyn Sink,
    ledger: Option<&'a Ledger<'a>>,
    written_bytes: &'a AtomicU64,
    stop: &'a AtomicBool,
}

impl Shared<'_> {
    /// Builds a thread's share.
    fn walk(&self, thread: u32, threads: u32) -> Result<()> {
        let site = self.work.site.of_thread(thread, threads);
        let work = Work {
            site: &site,
            ..self.work
        };
        let mut builder = Builder::new(self.readers, self.sink, self.ledger);
        work.for_each_slab(|slab| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Fault::new(Kind::Peer, "another thread has failed"));
            }
            builder.build(&slab, &cut_parts(work.reach, &slab, false)?, None)?;
            self.written_bytes
                .fetch_add(slab.written_bytes(), Ordering::Relaxed);
            Ok(())
        })
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
