//! What a process would receive in each round of an exchange, without receiving it.

use crate::exchange::encode;
use crate::fault::{Fault, Kind, Result};
use crate::plan::work::{Slab, Work};
use crate::transport::exchange::Exchange;
use crate::transport::round::Gathering;
use crate::transport::rounds::AHEAD;
use crate::transport::threads::{scope, spawn, sync_channel};

/// What is asked of one process in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The process.
    pub process: u32,
    /// Bytes of the message that asks.
    pub request_bytes: u64,
    /// Bytes asked for.
    pub bytes: u64,
}

/// What this process asks of others, round by round, as [`Mover`](super::Mover) would. Local.
///
/// # Errors
/// [`Kind::MissingShard`] if a shard is needed that nobody sees; [`Kind::Io`] if the system starts no thread.
pub fn traffic(work: &Work<'_>, exchange: Exchange) -> Result<Vec<Vec<Asked>>> {
    scope(|scope| {
        let (send, slabs) = sync_channel::<Slab<'_>>(AHEAD);
        let planner = spawn(scope, move || {
            work.for_each_slab(|slab| {
                let ended = |_| Fault::new(Kind::Peer, "the rounds have ended");
                send.send(slab).map_err(ended)
            })
        })?;
        let rounds = gather(work, exchange, || slabs.recv().ok());
        drop(slabs);
        match planner.join() {
            Ok(Err(fault)) if fault.kind != Kind::Peer => Err(fault),
            _ => rounds,
        }
    })
}

fn gather<'a>(
    work: &Work<'a>,
    exchange: Exchange,
    slabs: impl Fn() -> Option<Slab<'a>>,
) -> Result<Vec<Vec<Asked>>> {
    let mut gathering = Gathering::new(work.reach, exchange);
    let mut rounds = Vec::new();
    loop {
        let round = gathering.next(&slabs)?;
        if round.slabs.is_empty() {
            return Ok(rounds);
        }
        let asked = round.incoming.iter().map(|(process, bytes)| {
            let requests = round.requests.get(process);
            let message = requests.map(encode).transpose()?;
            Ok(Asked {
                process: *process,
                request_bytes: message.map_or(0, |message| message.len() as u64),
                bytes: *bytes,
            })
        });
        rounds.push(asked.collect::<Result<_>>()?);
    }
}
