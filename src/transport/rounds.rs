//! The rounds of an exchange, which fit the memory: while round k is packed and travels, worker threads
//! unpack and write round k - 1.

use crate::catalog::Place;
use crate::course::pace::{Doing, doing};
use crate::exchange::{
    DataRound, Operation, Packed, Progress, agree, all_reduce, decode, encode, exchange_bytes,
};
use crate::fault::memory::provide;
use crate::fault::{Fault, Kind, Result};
use crate::host::bug::Bug;
use crate::host::planted::planted;
use crate::plan::work::Slab;
use crate::tensor::strided::{Loop, StridedCopy};
use crate::transport::exchange::Exchange;
use crate::transport::fill::{Filler, index};
use crate::transport::mover::{Moved, Mover, Observer, tell};
use crate::transport::overflow::Overflow;
use crate::transport::parts::Builder;
use crate::transport::round::{Gathering, Request, Round, RoundSlab};
use crate::transport::threads::{
    Handle, Receiver, Scope, Sender, channel, scope, spawn, sync_channel,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Slabs planned ahead.
pub(super) const AHEAD: usize = 16;

impl<'a> Mover<'a> {
    /// Every process goes through the same number of rounds. Collective.
    pub(super) fn in_rounds(
        &self,
        exchange: Exchange,
        progress: &mut Progress<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<Moved> {
        let (send, slabs) = sync_channel::<Slab<'a>>(AHEAD);
        let work = self.work;
        let overflow = Arc::new(Overflow::default());
        scope(|scope| {
            let planner = spawn(scope, move || {
                work.for_each_slab(|slab| {
                    send.send(slab)
                        .map_err(|_| Fault::new(Kind::Peer, "the rounds have ended"))
                })
            });
            let workers = Workers::start(scope, self, &overflow);
            let (planner, refused) = match (planner, workers.refused.clone()) {
                (Ok(planner), refused) => (Some(planner), refused),
                (Err(fault), _) => (None, Some(fault)),
            };
            let mut rounds = Rounds {
                mover: self,
                exchange,
                slabs,
                gathering: Gathering::new(work.reach, exchange),
                workers,
                refused,
                packer: Filler::new(self.readers),
                moved: Moved::default(),
            };
            let result = rounds.all(progress, observer);
            let mut moved = rounds.moved.clone();
            moved.overflown = overflow.take();
            drop(rounds);
            match planner.map(Handle::join) {
                Some(Ok(Err(fault))) if fault.kind != Kind::Peer => Err(fault),
                _ => result.map(|()| moved),
            }
        })
    }
}

struct Rounds<'m, 'a> {
    mover: &'m Mover<'a>,
    exchange: Exchange,
    slabs: Receiver<Slab<'a>>,
    gathering: Gathering<'a>,
    workers: Workers<'a>,
    /// Why threads that are needed could not be started.
    refused: Option<Fault>,
    packer: Filler<'a>,
    moved: Moved,
}

impl<'a> Rounds<'_, 'a> {
    fn all(&mut self, progress: &mut Progress<'_>, observer: &mut Observer<'_>) -> Result<()> {
        let world = self.mover.world;
        let mut buffers = (Vec::new(), Vec::new());
        loop {
            let gathered = match self.refused.take() {
                Some(fault) => Err(fault),
                None => self.gathering.next(|| self.slabs.recv().ok()),
            };
            let round = agree(world, gathered)?;
            let mut more = [u64::from(!round.slabs.is_empty())];
            all_reduce(world, &mut more, Operation::Max)?;
            if more[0] == 0 || (planted(Bug::RoundsApart) && round.slabs.is_empty()) {
                self.collect()?;
                return self.tell(progress, observer);
            }
            self.moved.rounds += 1;
            let outgoing = round
                .requests
                .iter()
                .map(|(process, requests)| Ok((*process, encode(requests)?)));
            let outgoing = agree(world, outgoing.collect::<Result<Vec<_>>>())?;
            let asked = exchange_bytes(world, outgoing)?;
            let packed = self.pack(&asked, std::mem::take(&mut buffers.0));
            let receive = self.receive_buffer(&round, std::mem::take(&mut buffers.1));
            let ready = packed.and_then(|packed| Ok((packed, receive?)));
            let (packed, receive) = agree(world, ready)?;
            let exchanging = doing(Doing::Exchange);
            let flight = DataRound::start(world, self.exchange.traffic, packed, receive)
                .map_err(beyond_agreement)?;
            let (sent, received) = flight.wait()?;
            drop(exchanging);
            buffers.0 = sent.bytes;
            buffers.1 = self.collect()?;
            self.workers.hand(round, received);
            self.tell(progress, observer)?;
        }
    }

    /// Waits until the round before is written; gives back the memory of what was received. Collective.
    fn collect(&mut self) -> Result<Vec<u8>> {
        let (written, memory) = self.workers.collect();
        self.moved.written_bytes += agree(self.mover.world, written)?;
        Ok(memory)
    }

    fn tell(&self, progress: &mut Progress<'_>, observer: &mut Observer<'_>) -> Result<()> {
        let total = self.mover.total_bytes;
        tell(progress, self.moved.written_bytes, total, observer)
    }

    fn receive_buffer(&self, round: &Round<'_>, mut bytes: Vec<u8>) -> Result<Packed> {
        let mut counts = vec![0; self.mover.world.size() as usize];
        for (process, length) in &round.incoming {
            counts[*process as usize] = narrow(*length)?;
        }
        let total = counts.iter().map(|count| *count as usize).sum();
        provide(&mut bytes, total)?;
        Ok(Packed { bytes, counts })
    }

    /// Reads what others have asked for, in the order asked.
    fn pack(&mut self, asked: &[(u32, Vec<u8>)], mut bytes: Vec<u8>) -> Result<Packed> {
        let _reading = doing(Doing::Read);
        let mut counts = vec![0; self.mover.world.size() as usize];
        let mut all = Vec::new();
        let mut at = 0u64;
        for (process, message) in asked {
            let requests: Vec<Request> = decode(message)?;
            let begin = at;
            for request in requests {
                let loops = request.loops.iter().map(|(count, source_stride)| Loop {
                    count: *count,
                    source_stride: *source_stride,
                    destination_stride: 0,
                });
                let copy = StridedCopy {
                    source: request.source,
                    destination: 0,
                    run_bytes: request.run_bytes,
                    loops: loops.collect(),
                };
                let copy = copy.packed(at);
                at += copy.bytes();
                let mut place = request.place;
                if planted(Bug::AnswerOfOther) {
                    place.rank = place.rank.saturating_sub(1);
                }
                all.push((copy, place, request.sharing));
            }
            counts[*process as usize] = narrow(at - begin)?;
        }
        let total = index(at);
        provide(&mut bytes, total)?;
        // What several ask for is read once: equal requests, and windows of the same rows, follow each
        // other.
        all.sort_by_key(|(copy, place, _)| (*place, copy.source));
        let mut before: Option<&(StridedCopy, Place, u64)> = None;
        for next in &all {
            let (copy, place, sharing) = next;
            match before.filter(|(before, at, _)| at == place && before.reads_same(copy)) {
                Some((before, _, _)) => {
                    let begin = index(before.destination);
                    bytes.copy_within(begin..begin + index(copy.bytes()), index(copy.destination));
                }
                None => self.packer.fill(copy, *place, &mut bytes, *sharing)?,
            }
            before = Some(next);
        }
        let own = u64::from(counts[self.mover.world.process() as usize]);
        self.moved.sent_bytes += at - own;
        Ok(Packed { bytes, counts })
    }
}

/// A round whose bytes have come, for all workers.
struct Handed<'a> {
    round: Round<'a>,
    received: Packed,
    /// Number of the slab that is to be built next.
    next: AtomicUsize,
}

impl<'a> Handed<'a> {
    /// Builds slabs until none is left; gives the bytes written.
    fn build(&self, builder: &mut Builder<'a>) -> Result<u64> {
        let mut written = 0;
        loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(RoundSlab { slab, cells }) = self.round.slabs.get(next) else {
                return Ok(written);
            };
            builder.build(slab, cells, Some(&self.received))?;
            written += slab.written_bytes();
        }
    }
}

/// The threads that unpack and write. They end with the channels to them.
struct Workers<'a> {
    channels: Vec<Sender<Arc<Handed<'a>>>>,
    /// Why there are none.
    refused: Option<Fault>,
    ended: Receiver<Result<u64>>,
    handed: Option<Arc<Handed<'a>>>,
}

impl<'a> Workers<'a> {
    fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        mover: &Mover<'a>,
        overflow: &Arc<Overflow>,
    ) -> Self
    where
        'a: 'scope,
    {
        let (readers, sink, witness) = (mover.readers, mover.sink, mover.witness);
        let (tell, ended) = channel();
        let mut channels = Vec::new();
        let mut refused = None;
        for _ in 0..mover.threads.max(1) {
            let (send, receive) = channel::<Arc<Handed<'a>>>();
            let (tell, overflow) = (tell.clone(), Arc::clone(overflow));
            let worker = move || {
                let mut builder = Builder::new(readers, sink, witness, overflow);
                for handed in receive {
                    let written = handed.build(&mut builder);
                    // Whoever hears of it takes the memory back.
                    drop(handed);
                    if tell.send(written).is_err() {
                        break;
                    }
                }
            };
            match spawn(scope, worker) {
                Ok(_) => channels.push(send),
                // Fewer do as well; none don't.
                Err(fault) => {
                    refused = Some(fault).filter(|_| channels.is_empty());
                    break;
                }
            }
        }
        Workers {
            channels,
            refused,
            ended,
            handed: None,
        }
    }

    fn hand(&mut self, round: Round<'a>, received: Packed) {
        let handed = Arc::new(Handed {
            round,
            received,
            next: AtomicUsize::new(0),
        });
        for channel in &self.channels {
            // A worker that is gone is missed when the results are collected.
            let _ = channel.send(Arc::clone(&handed));
        }
        self.handed = Some(handed);
    }

    /// Waits for what was handed out: the bytes written, and the memory of what was received.
    fn collect(&mut self) -> (Result<u64>, Vec<u8>) {
        let Some(handed) = self.handed.take() else {
            return (Ok(0), Vec::new());
        };
        let mut total = Ok(0);
        for _ in &self.channels {
            let gone = || Err(Fault::new(Kind::Internal, "a worker thread is gone"));
            match (&mut total, self.ended.recv().unwrap_or_else(|_| gone())) {
                (Ok(total), Ok(written)) => *total += written,
                (Ok(_), Err(_)) if planted(Bug::ErrorSwallowed) => {}
                (Ok(_), Err(fault)) => total = Err(fault),
                (Err(_), _) => {}
            }
        }
        let memory = Arc::into_inner(handed).map(|handed| handed.received.bytes);
        (total, memory.unwrap_or_default())
    }
}

/// A process that can't start a round leaves the others in it: only the end of all helps.
fn beyond_agreement(fault: Fault) -> Fault {
    Fault {
        kind: Kind::Mpi,
        ..fault
    }
}

fn narrow(bytes: u64) -> Result<u32> {
    u32::try_from(bytes).map_err(|_| Fault::new(Kind::Internal, "a round is too large"))
}
