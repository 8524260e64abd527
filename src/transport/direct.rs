//! Where every process sees all it needs, each works through its slabs by itself, with threads.

use crate::exchange::{Alarm, Progress};
use crate::fault::{Fault, Kind, Result};
use crate::plan::work::Work;
use crate::transport::fill::Readers;
use crate::transport::mover::{Moved, Mover, Observer, tell};
use crate::transport::overflow::Overflow;
use crate::transport::parts::{Builder, cut_parts};
use crate::transport::sink::Sink;
use crate::transport::threads::{RecvTimeoutError, channel, scope, spawn};
use crate::transport::witness::Witness;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often the others and the progress are looked after.
const WATCH: Duration = Duration::from_millis(50);

impl Mover<'_> {
    /// Divides the work over threads; this one, which alone may speak MPI, watches them.
    pub(super) fn direct(
        &self,
        alarm: &Alarm<'_>,
        progress: &mut Progress<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<Moved> {
        let shared = Shared {
            work: self.work,
            readers: self.readers,
            sink: self.sink,
            witness: self.witness,
            overflow: &Arc::default(),
            written_bytes: &AtomicU64::new(0),
            stop: &AtomicBool::new(false),
        };
        let threads = u32::try_from(self.threads).unwrap_or(1).max(1);
        let mut failed: Option<Fault> = None;
        scope(|scope| {
            let (send, ended) = channel();
            for thread in 0..threads {
                let send = send.clone();
                // Nobody hears of the end of a thread whose listener has failed.
                let walk = move || send.send(shared.walk(thread, threads)).ok();
                if let Err(fault) = spawn(scope, walk) {
                    shared.stop.store(true, Ordering::Relaxed);
                    failed = Some(fault);
                    break;
                }
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
                overflown: shared.overflow.take(),
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
    witness: Option<&'a dyn Witness>,
    overflow: &'a Arc<Overflow>,
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
        let mut builder =
            Builder::new(self.readers, self.sink, self.witness, self.overflow.clone());
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
