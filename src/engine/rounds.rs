//! Moves the bytes: reads, packs, exchanges and writes.
//!
//! Where every process sees all it needs, each works through its slabs by itself. Otherwise the world
//! goes in rounds that fit the memory: while round k travels, round k - 1 is unpacked and written.

use crate::catalog::Place;
use crate::engine::fill::{Filler, Readers};
use crate::engine::sink::Sink;
use crate::exchange::{
    Alarm, DataRound, Operation, Packed, Progress, Traffic, World, agree, all_reduce, decode,
    encode, exchange_bytes,
};
use crate::fault::{Fault, Kind, Result};
use crate::plan::reach::Reach;
use crate::plan::work::{Slab, Work};
use crate::tensor::copy;
use crate::tensor::strided::{Loop, StridedCopy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Largest part of the memory budget that one buffer of a round takes, and its upper limit: rounds
/// that stay in the last-level cache are faster than larger ones.
const ROUND_BYTES_MAX: u64 = 32 << 20;
/// Least bytes that a pair of processes may exchange in a round.
const PAIR_BYTES_MIN: u64 = 256 << 10;
/// Slabs planned ahead.
const AHEAD: usize = 64;

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
    /// Worker threads.
    pub threads: usize,
    /// Most memory to use for buffers.
    pub memory_bytes: u64,
    /// Bytes that all processes write together, for telling progress.
    pub total_bytes: u64,
}

/// What a plan comes to, for one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Number of strided copies.
    pub transfers: u64,
    /// Source bytes that this process needs, each counted once a cell it goes to.
    pub needed_bytes: u64,
    /// Of those, what other processes read and send.
    pub received_bytes: u64,
    /// Least bytes that must come from other nodes.
    pub received_bytes_lower_bound: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// The processes that send something.
    pub senders: Vec<u32>,
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

/// Where a part of a cell's window comes from.
enum From {
    Here(Place),
    Process { process: u32, place: Place, at: u64 },
}

struct Part {
    copy: StridedCopy,
    from: From,
}

/// A request for bytes of a shard, in the order in which they are to be sent.
#[derive(Serialize, Deserialize)]
struct Request {
    place: Place,
    source: u64,
    run_bytes: u64,
    loops: Vec<(u64, u64)>,
    sharing: u64,
}

struct RoundSlab<'a> {
    slab: Slab<'a>,
    cells: Vec<Vec<Part>>,
}

#[derive(Default)]
struct Round<'a> {
    slabs: Vec<RoundSlab<'a>>,
    requests: BTreeMap<u32, Vec<Request>>,
    incoming: BTreeMap<u32, u64>,
}

impl<'a> Mover<'a> {
    /// Walks through this process's share without moving a byte. Local.
    ///
    /// # Errors
    /// [`Kind::MissingShard`] if a shard is needed that nobody sees.
    pub fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        let mut senders = std::collections::BTreeSet::new();
        let per_node = self.reach.seen.len();
        self.work.for_each_slab(|slab| {
            survey.written_bytes += slab.written_bytes();
            for (cell, parts) in cut_parts(self.reach, &slab)?.iter().enumerate() {
                let mut unseen = vec![0; per_node];
                for part in parts {
                    survey.transfers += 1;
                    survey.needed_bytes += part.copy.bytes();
                    if let From::Process { process, .. } = part.from {
                        survey.received_bytes += part.copy.bytes();
                        senders.insert(process);
                    }
                }
                self.count_unseen(&slab, cell, &mut unseen);
                let everywhere = self.work.site.processes as usize == self.reach.node_of.len();
                let own = unseen[self.reach.node() as usize];
                survey.received_bytes_lower_bound += if everywhere {
                    unseen.iter().min().copied().unwrap_or(0)
                } else {
                    own
                };
            }
            Ok(())
        })?;
        survey.senders = senders.into_iter().collect();
        Ok(survey)
    }

    /// Adds to `unseen` for each node the bytes of a cell's window that no shard it sees has.
    fn count_unseen(&self, slab: &Slab<'a>, cell: usize, unseen: &mut [u64]) {
        if self.reach.all_see_all() {
            return;
        }
        let mut clipped = Vec::new();
        for transfer in &slab.cells[cell].transfers {
            clipped.clear();
            transfer.copy.clip(slab.begin, slab.end, &mut clipped);
            let bytes: u64 = clipped.iter().map(StridedCopy::bytes).sum();
            for (node, unseen) in unseen.iter_mut().enumerate() {
                if !transfer
                    .candidates
                    .iter()
                    .any(|p| self.reach.seen[node].contains(&p.rank))
                {
                    *unseen += bytes;
                }
            }
        }
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
        let mut builder = Builder::new(self);
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
}

impl Shared<'_> {
    fn drain(&self, slabs: &Mutex<Receiver<Slab<'_>>>) -> Result<()> {
        let mut builder = Builder {
            filler: Filler::new(self.readers),
            sink: self.sink,
            tile: vec![],
        };
        loop {
            let next = slabs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(slab) = next else { return Ok(()) };
            builder.build(&slab, &cut_parts(self.reach, &slab)?, None)?;
        }
    }
}

fn tell(
    progress: &mut Progress<'_>,
    done: u64,
    total: u64,
    observer: &mut Observer<'_>,
) -> Result<()> {
    progress.report(done)?;
    observer(progress.total()?, total);
    Ok(())
}

/// Cuts the transfers of each cell to the slab's window and chooses who serves each part.
fn cut_parts(reach: &Reach, slab: &Slab<'_>) -> Result<Vec<Vec<Part>>> {
    let mut clipped = Vec::new();
    let mut cells = Vec::with_capacity(slab.cells.len());
    for cell in slab.cells.iter() {
        let mut parts = Vec::new();
        let mut covered = 0;
        for transfer in &cell.transfers {
            clipped.clear();
            transfer.copy.clip(slab.begin, slab.end, &mut clipped);
            if clipped.is_empty() {
                continue;
            }
            let ranks = transfer.candidates.iter().map(|place| place.rank);
            let served = reach.serve(ranks, slab.salt).ok_or_else(|| {
                let rank = transfer.candidates[0].rank;
                Fault::new(Kind::MissingShard, "no process sees this shard")
                    .tensor(&*slab.plan.name)
                    .rank(rank)
                    .file(format!("rank_{rank}"))
            })?;
            let place = transfer.candidates[served.candidate];
            for mut copy in clipped.drain(..) {
                copy.destination -= slab.begin;
                covered += copy.bytes();
                let from = if served.process == reach.process {
                    From::Here(place)
                } else {
                    From::Process {
                        process: served.process,
                        place,
                        at: 0,
                    }
                };
                parts.push(Part { copy, from });
            }
        }
        if covered != slab.window() {
            let message = format!("a window of {} bytes gets {covered}", slab.window());
            return Err(Fault::new(Kind::Internal, message).tensor(&*slab.plan.name));
        }
        cells.push(parts);
    }
    Ok(cells)
}

/// Builds windows of cells and hands them to the sink.
struct Builder<'a> {
    filler: Filler<'a>,
    sink: &'a dyn Sink,
    tile: Vec<u8>,
}

impl<'a> Builder<'a> {
    fn new(mover: &Mover<'a>) -> Self {
        Builder {
            filler: Filler::new(mover.readers),
            sink: mover.sink,
            tile: Vec::new(),
        }
    }

    /// Builds each cell's window once and writes it to each of its targets.
    fn build(
        &mut self,
        slab: &Slab<'_>,
        cells: &[Vec<Part>],
        received: Option<&Packed>,
    ) -> Result<()> {
        let window = usize::try_from(slab.window())
            .map_err(|_| Fault::new(Kind::Internal, "a window is too large"))?;
        if self.tile.len() < window {
            self.tile.resize(window, 0);
        }
        let tile = &mut self.tile[..window];
        for (cell, parts) in slab.cells.iter().zip(cells) {
            for part in parts {
                match part.from {
                    From::Here(place) => {
                        self.filler
                            .fill(&part.copy, place, tile, slab.cells.len() as u64)?;
                    }
                    From::Process { at, .. } => {
                        let copied = received
                            .is_some_and(|r| copy::run(&part.copy.unpacked(at), &r.bytes, tile));
                        if !copied {
                            let message = "a part was not received as asked for";
                            return Err(
                                Fault::new(Kind::Internal, message).tensor(&*slab.plan.name)
                            );
                        }
                    }
                }
            }
            for target in &cell.targets {
                self.sink.put(*target, slab.begin, tile)?;
            }
        }
        Ok(())
    }
}

/// How the rounds of an exchange go: the same on every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Whether most processes talk to most.
    pub traffic: Traffic,
    /// Most bytes that a process asks of another in a round.
    pub pair_bytes: u64,
}

impl Exchange {
    /// What suits these surveys, or none if nothing is sent. Collective.
    ///
    /// # Errors
    /// [`Kind::Mpi`].
    pub fn choose(world: &World, survey: &Survey, memory_bytes: u64) -> Result<Option<Exchange>> {
        let mut largest = [survey.received_bytes, survey.senders.len() as u64];
        all_reduce(world, &mut largest, Operation::Max)?;
        let [received, senders] = largest;
        if received == 0 {
            return Ok(None);
        }
        let mut asked = vec![0; world.size() as usize];
        for sender in &survey.senders {
            asked[*sender as usize] = 1;
        }
        all_reduce(world, &mut asked, Operation::Sum)?;
        let partners = asked.into_iter().max().unwrap_or(1).max(senders);
        let round = (memory_bytes / 4).min(ROUND_BYTES_MAX);
        let dense = 2 * partners >= u64::from(world.size());
        Ok(Some(Exchange {
            traffic: if dense {
                Traffic::Dense
            } else {
                Traffic::Sparse
            },
            pair_bytes: (round / partners).max(PAIR_BYTES_MIN),
        }))
    }
}

impl<'a> Mover<'a> {
    /// Every process goes through the same number of rounds. Collective.
    fn in_rounds(
        &self,
        exchange: Exchange,
        progress: &mut Progress<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<Moved> {
        let (send, slabs) = sync_channel::<Slab<'a>>(AHEAD);
        let work = self.work;
        std::thread::scope(|scope| {
            let planner = scope.spawn(move || {
                work.for_each_slab(|slab| {
                    send.send(slab)
                        .map_err(|_| Fault::new(Kind::Peer, "the rounds have ended"))
                })
            });
            let mut rounds = Rounds {
                mover: self,
                exchange,
                slabs,
                pending: None,
                builder: Builder::new(self),
                packer: Filler::new(self.readers),
                moved: Moved::default(),
            };
            let result = rounds.all(progress, observer);
            let moved = rounds.moved.clone();
            drop(rounds);
            match planner.join() {
                Ok(Err(fault)) if fault.kind != Kind::Peer => Err(fault),
                _ => result.map(|()| moved),
            }
        })
    }
}

struct Rounds<'m, 'a> {
    mover: &'m Mover<'a>,
    exchange: Exchange,
    slabs: Receiver<Slab<'a>>,
    pending: Option<RoundSlab<'a>>,
    builder: Builder<'a>,
    packer: Filler<'a>,
    moved: Moved,
}

impl<'a> Rounds<'_, 'a> {
    fn all(&mut self, progress: &mut Progress<'_>, observer: &mut Observer<'_>) -> Result<()> {
        let world = self.mover.world;
        let mut before: Option<(Round<'a>, Packed)> = None;
        let mut buffers = (Vec::new(), Vec::new());
        loop {
            let gathered = self.gather();
            let round = agree(world, gathered)?;
            let mut more = [u64::from(!round.slabs.is_empty())];
            all_reduce(world, &mut more, Operation::Max)?;
            if more[0] == 0 {
                let finished = match &before {
                    Some((round, received)) => self.finish(round, received, &mut || Ok(())),
                    None => Ok(()),
                };
                agree(world, finished)?;
                return tell(
                    progress,
                    self.moved.written_bytes,
                    self.mover.total_bytes,
                    observer,
                );
            }
            self.moved.rounds += 1;
            let outgoing = round
                .requests
                .iter()
                .map(|(process, requests)| Ok((*process, encode(requests)?)));
            let outgoing = agree(world, outgoing.collect::<Result<Vec<_>>>())?;
            let asked = exchange_bytes(world, outgoing)?;
            let packed = self.pack(&asked, std::mem::take(&mut buffers.0));
            let packed = agree(world, packed)?;
            let receive = self.receive_buffer(&round, std::mem::take(&mut buffers.1))?;
            let mut flight = DataRound::start(world, self.exchange.traffic, packed, receive)?;
            let finished = match &before {
                Some((round, received)) => {
                    self.finish(round, received, &mut || flight.test().map(|_| ()))
                }
                None => Ok(()),
            };
            let (sent, received) = flight.wait()?;
            agree(world, finished)?;
            buffers.0 = sent.bytes;
            if let Some((_, old)) = before.replace((round, received)) {
                buffers.1 = old.bytes;
            }
            tell(
                progress,
                self.moved.written_bytes,
                self.mover.total_bytes,
                observer,
            )?;
        }
    }

    /// The slabs of the next round: as many as fit, one at least.
    fn gather(&mut self) -> Result<Round<'a>> {
        let mut round = Round::default();
        let mut built = 0;
        loop {
            let next = match self.pending.take() {
                Some(next) => next,
                None => {
                    let Ok(slab) = self.slabs.recv() else { break };
                    let cells = cut_parts(self.mover.reach, &slab)?;
                    RoundSlab { slab, cells }
                }
            };
            let mut asked: BTreeMap<u32, u64> = BTreeMap::new();
            for part in next.cells.iter().flatten() {
                if let From::Process { process, .. } = part.from {
                    *asked.entry(process).or_default() += part.copy.bytes();
                }
            }
            built += next.slab.built_bytes();
            let fits = |(process, bytes): (&u32, &u64)| {
                round.incoming.get(process).unwrap_or(&0) + bytes <= self.exchange.pair_bytes
            };
            if !round.slabs.is_empty() && (built > 2 * ROUND_BYTES_MAX || !asked.iter().all(fits)) {
                self.pending = Some(next);
                break;
            }
            for (process, bytes) in asked {
                *round.incoming.entry(process).or_default() += bytes;
            }
            round.slabs.push(next);
        }
        round.ask();
        Ok(round)
    }

    fn receive_buffer(&self, round: &Round<'_>, mut bytes: Vec<u8>) -> Result<Packed> {
        let mut counts = vec![0; self.mover.world.size() as usize];
        for (process, length) in &round.incoming {
            counts[*process as usize] = narrow(*length)?;
        }
        let total = counts.iter().map(|count| *count as usize).sum();
        if bytes.len() < total {
            bytes.resize(total, 0);
        }
        Ok(Packed { bytes, counts })
    }

    /// Reads what others have asked for, in the order asked.
    fn pack(&mut self, asked: &[(u32, Vec<u8>)], mut bytes: Vec<u8>) -> Result<Packed> {
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
                all.push((copy, request.place, request.sharing));
            }
            counts[*process as usize] = narrow(at - begin)?;
        }
        let total = usize::try_from(at).unwrap_or(usize::MAX);
        if bytes.len() < total {
            bytes.resize(total, 0);
        }
        for (copy, place, sharing) in all {
            self.packer.fill(&copy, place, &mut bytes, sharing)?;
        }
        self.moved.sent_bytes += at;
        Ok(Packed { bytes, counts })
    }

    /// Unpacks and writes a round whose bytes have come. Calls `poll` between slabs.
    fn finish(
        &mut self,
        round: &Round<'a>,
        received: &Packed,
        poll: &mut impl FnMut() -> Result<()>,
    ) -> Result<()> {
        for RoundSlab { slab, cells } in &round.slabs {
            poll()?;
            self.builder.build(slab, cells, Some(received))?;
            self.moved.written_bytes += slab.written_bytes();
        }
        Ok(())
    }
}

impl Round<'_> {
    /// Lists what is asked of each process, and notes where in what is received each part will be.
    fn ask(&mut self) {
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        let mut begin = 0;
        for (process, bytes) in &self.incoming {
            next.insert(*process, begin);
            begin += bytes;
        }
        for RoundSlab { slab, cells } in &mut self.slabs {
            let sharing = slab.cells.len() as u64;
            for part in cells.iter_mut().flatten() {
                let From::Process { process, place, at } = &mut part.from else {
                    continue;
                };
                let position = next.entry(*process).or_default();
                *at = *position;
                *position += part.copy.bytes();
                let loops = part.copy.loops.iter().map(|l| (l.count, l.source_stride));
                self.requests.entry(*process).or_default().push(Request {
                    place: *place,
                    source: part.copy.source,
                    run_bytes: part.copy.run_bytes,
                    loops: loops.collect(),
                    sharing,
                });
            }
        }
    }
}

fn narrow(bytes: u64) -> Result<u32> {
    u32::try_from(bytes).map_err(|_| Fault::new(Kind::Internal, "a round is too large"))
}
