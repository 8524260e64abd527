//! The work of a process, and with what it is done.

use crate::exchange::{Progress, World};
use crate::fault::{Fault, Kind, Result};
use crate::plan::machine::Machine;
use crate::plan::reach::ExchangeMode;
use crate::plan::survey::{Survey, survey as walk};
use crate::plan::work::{Site, Work};
use crate::transport::fill::{IoMode, Readers};
use crate::transport::sink::Sink;
use crate::transport::threads::{scope, spawn};
use crate::transport::witness::Witness;
use std::collections::BTreeMap;

/// Told how many bytes are written, of how many in all.
pub type Observer<'a> = dyn FnMut(u64, u64) + 'a;

/// How bytes are moved, whatever the job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Moving {
    /// Most memory for buffers, in bytes a process.
    pub memory_bytes: u64,
    /// How slices travel.
    pub exchange: ExchangeMode,
    /// Worker threads a process; 0 means the cores divided by the processes of the node.
    pub threads: usize,
    /// How source files are read.
    pub io: IoMode,
    /// What the nodes can do, to choose by how slices travel.
    pub machine: Machine,
}

impl Default for Moving {
    fn default() -> Self {
        Moving {
            memory_bytes: 1 << 30,
            exchange: ExchangeMode::Auto,
            threads: 0,
            io: IoMode::default(),
            machine: Machine::default(),
        }
    }
}

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
    /// Who sees it, if anybody does.
    pub witness: Option<&'a dyn Witness>,
    /// Worker threads.
    pub threads: usize,
    /// Most memory to use for buffers.
    pub memory_bytes: u64,
    /// Bytes that all processes write together, for telling progress.
    pub total_bytes: u64,
}

/// What was moved, counted while it happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// Bytes sent to other processes.
    pub sent_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Rounds of the exchange.
    pub rounds: u64,
    /// Written elements that were finite and became infinite, by tensor; each file's counts.
    pub overflown: BTreeMap<String, u64>,
}

/// Walks through a process's work without moving a byte, with threads. Local.
///
/// # Errors
/// [`Kind::MissingShard`] if a shard is needed that nobody sees.
pub fn survey(work: &Work<'_>, threads: usize) -> Result<Survey> {
    let threads = u32::try_from(threads).unwrap_or(1).max(1);
    let sites = (0..threads).map(|thread| work.site.of_thread(thread, threads));
    let sites: Vec<Site> = sites.collect();
    scope(|scope| {
        let walks = sites.iter().map(|site| {
            let work = Work { site, ..*work };
            // Where the system gives no more threads this one does their part.
            spawn(scope, move || walk(&work)).map_err(|_| walk(&work))
        });
        let walks: Vec<_> = walks.collect();
        let gone = |_| Err(Fault::new(Kind::Internal, "a planning thread is gone"));
        let joined = walks.into_iter().map(|walk| match walk {
            Ok(thread) => thread.join().unwrap_or_else(gone),
            Err(walked) => walked,
        });
        joined.sum()
    })
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
