//! Rounds of an exchange with made-up bytes, as often as they are asked for.

use crate::exchange::{
    Counts, DataRound, Library, Operation, Packed, Traffic, World, agree, all_reduce,
    exchange_bytes,
};
use crate::fault::memory::{grow, room};
use crate::fault::{Fault, Kind, Result};
use crate::measure::contents::{Wrong, append, differing};
use crate::measure::operation::By;
use crate::measure::sampling::Exercise;
use crate::transport::Asked;

/// One round of this process: what it asks for, and what is asked of it.
#[derive(Default)]
struct Round {
    asks: Vec<Asked>,
    /// Bytes to each process that there are any for, and from each.
    sends: Vec<(u32, u32)>,
    receives: Vec<(u32, u32)>,
}

/// The rounds of a plan, as many on all processes.
pub(super) struct Replay<'w> {
    world: &'w World,
    traffic: Traffic,
    rounds: Vec<Round>,
    send: Vec<u8>,
    receive: Vec<u8>,
    /// Who carries the bytes.
    pub(super) by: By,
    /// What was not right when it was last looked at.
    pub(super) wrong: Option<Wrong>,
}

impl<'w> Replay<'w> {
    /// Learns what each process sends in each round, and makes buffers for the largest. Collective.
    ///
    /// # Errors
    /// [`Kind::Memory`], [`Kind::Mpi`].
    pub(super) fn new(world: &'w World, traffic: Traffic, asks: Vec<Vec<Asked>>) -> Result<Self> {
        let mut count = [asks.len() as u64];
        all_reduce(world, &mut count, Operation::Max)?;
        let mut replay = Replay {
            world,
            traffic,
            rounds: Vec::new(),
            send: Vec::new(),
            receive: Vec::new(),
            by: By::Shardloom,
            wrong: None,
        };
        let mut asks = asks.into_iter();
        for _ in 0..count[0] {
            let asks = asks.next().unwrap_or_default();
            let messages = asks.iter().map(|asked| {
                let bytes = asked.bytes.to_le_bytes();
                (asked.process, bytes.to_vec())
            });
            let asked = exchange_bytes(world, messages.collect())?;
            let (mut sends, mut receives) = (Vec::new(), Vec::new());
            for (process, message) in asked {
                let bytes = message.try_into().unwrap_or_default();
                sends.push((process, u64::from_le_bytes(bytes)));
            }
            receives.extend(asks.iter().map(|asked| (asked.process, asked.bytes)));
            let both = narrow(&sends).and_then(|sends| Ok((sends, narrow(&receives)?)));
            let (sends, receives) = agree(world, both)?;
            replay.rounds.push(Round {
                asks,
                sends,
                receives,
            });
        }
        let send = replay.rounds.iter().map(|round| total(&round.sends)).max();
        let receive = replay
            .rounds
            .iter()
            .map(|round| total(&round.receives))
            .max();
        let made = grow(&mut replay.send, send.unwrap_or(0));
        let made = made.and_then(|()| grow(&mut replay.receive, receive.unwrap_or(0)));
        agree(world, made)?;
        Ok(replay)
    }

    /// Bytes that leave their process, all together, and most that one sends or receives. Collective.
    ///
    /// # Errors
    /// [`Kind::Mpi`].
    pub(super) fn bytes(&self) -> Result<(u64, u64)> {
        let me = self.world.process();
        let others = |parts: &[(u32, u32)]| -> u64 {
            let others = parts.iter().filter(|(process, _)| *process != me);
            others.map(|(_, bytes)| u64::from(*bytes)).sum()
        };
        let sent: u64 = self.rounds.iter().map(|round| others(&round.sends)).sum();
        let received = self.rounds.iter().map(|round| others(&round.receives));
        let mut sum = [sent];
        let mut most = [sent.max(received.sum())];
        all_reduce(self.world, &mut sum, Operation::Sum)?;
        all_reduce(self.world, &mut most, Operation::Max)?;
        Ok((sum[0], most[0]))
    }

    /// Goes through all rounds once with new contents, and looks at what comes. Collective.
    ///
    /// # Errors
    /// [`Kind::Mpi`].
    pub(super) fn look(&mut self) -> Result<()> {
        let me = self.world.process();
        self.wrong = None;
        for number in 0..self.rounds.len() {
            let round = std::mem::take(&mut self.rounds[number]);
            let key = |process: u32| process.wrapping_add(u32::try_from(number).unwrap_or(0));
            self.send.clear();
            let filled = round
                .sends
                .iter()
                .try_for_each(|(to, bytes)| append(&mut self.send, me, key(*to), *bytes as usize));
            agree(self.world, filled)?;
            self.receive.fill(0);
            self.carry(&round)?;
            let mut rest = self.receive.as_slice();
            for (from, bytes) in &round.receives {
                let (part, after) = rest.split_at((*bytes as usize).min(rest.len()));
                let (count, index) = differing(part, *from, key(me));
                if count > 0 {
                    let wrong = self.wrong.get_or_insert(Wrong {
                        sender: Some(*from),
                        receiver: me,
                        index,
                        count: 0,
                    });
                    wrong.count += count;
                }
                rest = after;
            }
            self.rounds[number] = round;
        }
        let longest = self.rounds.iter().map(|round| total(&round.sends)).max();
        let grown = room(&mut self.send, longest.unwrap_or(0));
        agree(self.world, grown)?;
        self.send.resize(longest.unwrap_or(0), 1);
        Ok(())
    }

    /// One round: asking, and what is asked for. Collective.
    fn carry(&mut self, round: &Round) -> Result<()> {
        let all = self.world.size() as usize;
        let counts = |parts: &[(u32, u32)]| {
            let mut counts = vec![0; all];
            for (process, bytes) in parts {
                if let Some(count) = counts.get_mut(*process as usize) {
                    *count = *bytes;
                }
            }
            counts
        };
        let (sends, receives) = (counts(&round.sends), counts(&round.receives));
        if self.by == By::Library {
            let counts = Counts::new(&sends, &receives)?;
            let library = Library::of(self.world);
            return library.all_to_all_v(&self.send, &mut self.receive, &counts);
        }
        let messages = round.asks.iter().map(|asked| {
            let length = usize::try_from(asked.request_bytes).unwrap_or_default();
            (asked.process, vec![0; length])
        });
        exchange_bytes(self.world, messages.collect())?;
        let send = Packed {
            bytes: std::mem::take(&mut self.send),
            counts: sends,
        };
        let receive = Packed {
            bytes: std::mem::take(&mut self.receive),
            counts: receives,
        };
        let round = DataRound::start(self.world, self.traffic, send, receive)?;
        let (sent, received) = round.wait()?;
        (self.send, self.receive) = (sent.bytes, received.bytes);
        Ok(())
    }
}

impl Exercise for Replay<'_> {
    fn once(&mut self) -> Result<()> {
        for number in 0..self.rounds.len() {
            let round = std::mem::take(&mut self.rounds[number]);
            let carried = self.carry(&round);
            self.rounds[number] = round;
            // A process that can't go on leaves the others in a round: only the end of all helps.
            carried.map_err(|fault| Fault {
                kind: Kind::Mpi,
                ..fault
            })?;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        Ok(())
    }
}

fn total(parts: &[(u32, u32)]) -> usize {
    parts.iter().map(|(_, bytes)| *bytes as usize).sum()
}

fn narrow(parts: &[(u32, u64)]) -> Result<Vec<(u32, u32)>> {
    let narrowed = parts.iter().map(|(process, bytes)| {
        let bytes = u32::try_from(*bytes);
        let bytes = bytes.map_err(|_| Fault::new(Kind::Internal, "a round is too large"))?;
        Ok((*process, bytes))
    });
    narrowed.collect()
}
