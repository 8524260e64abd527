//! The calls of the exchange, at the board of a cluster.

use super::board::{Board, Given, Group};
use super::flight::{Flight, Look};
use super::imagined::is_alone;
use crate::exchange::message::Message;
use crate::exchange::operation::Operation;
use crate::exchange::parts::{Parted, Parts, buffer};
use crate::exchange::pause::Patience;
use crate::fault::{Fault, Kind, Result};
use crate::host::cluster;
use crate::host::cluster::desk::{Desk, at_board};
use std::ops::Range;

/// A communicator, by its number on the board.
#[derive(Clone, Copy)]
pub(in crate::exchange) struct Communicator {
    number: usize,
}

fn broken(message: &str) -> Fault {
    Fault::new(Kind::Mpi, message)
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Communicator {
    /// All processes.
    pub(super) fn world() -> Self {
        Communicator { number: 0 }
    }

    /// Does something with this communicator, as a member of it.
    fn at<T>(self, act: impl FnOnce(&mut Group, usize, &mut Desk<'_>) -> T) -> Result<T> {
        at_board(|board: &mut Board, desk| {
            let group = board.group(self.number, desk);
            let me = group.member(desk.process);
            act(group, me, desk)
        })
        .ok_or_else(|| broken("no cluster"))
    }

    /// A collective that gives `given`, and is read by `read` when it is complete here. Who needs the parts of
    /// whom is what `needs` says of this member; a root may wait for the others or not.
    fn meet<B: 'static>(
        self,
        what: String,
        (bytes, lengths): (Vec<u8>, Vec<usize>),
        needs: impl FnOnce(usize, usize) -> bool,
        buffers: B,
        read: impl FnOnce(&mut super::board::Meeting, usize, &mut B, &mut Desk<'_>) -> Result<()>
        + 'static,
        root: Option<usize>,
    ) -> Result<Flight<B>> {
        cluster::at_exchange();
        let number = self.at(|group, me, desk| {
            let mut all = needs(me, group.members.len());
            if root == Some(me) {
                all = !desk.is_calm() && desk.draw().one_in(2);
            }
            let needed = |member| all || root == Some(member);
            let needs = (0..group.members.len()).map(needed).collect();
            group.enter(
                what,
                Given {
                    bytes: bytes.into(),
                    lengths: lengths.into(),
                    needs,
                },
                desk,
            )
        })?;
        let mut read = Some(read);
        let look: Look<B> = Box::new(move |buffers, board, desk| {
            let group = board.group(self.number, desk);
            let taken = group.take(number, desk, |meeting, me, desk| {
                read.take()
                    .map_or(Ok(()), |read| read(meeting, me, buffers, desk))
            });
            taken.transpose().map(|taken| taken.is_some())
        });
        Ok(Flight::new(buffers, vec![look]))
    }

    /// The same processes again.
    pub(in crate::exchange) fn duplicate(self) -> Result<Self> {
        self.divide("duplicate", 0)
    }

    /// The processes that share memory with this one.
    pub(in crate::exchange) fn split_by_node(self, _: u32) -> Result<Self> {
        let node = self.at(|_, _, desk| desk.nodes()[desk.process])?;
        self.divide("split by node", index(node))
    }

    /// Those that say the same.
    pub(in crate::exchange) fn split(self, inside: bool, _: u32) -> Result<Self> {
        self.divide("split", usize::from(inside))
    }

    fn divide(self, what: &str, side: usize) -> Result<Self> {
        let given = (Vec::new(), vec![side]);
        let flight = self.meet(
            what.to_owned(),
            given,
            |_, _| true,
            Vec::new(),
            move |meeting, _, sides: &mut Vec<usize>, _| {
                let all = meeting.given.iter().flatten();
                sides.extend(all.map(|given| given.lengths[0]));
                Ok(())
            },
            None,
        )?;
        let sides = flight.wait(Patience::Long)?;
        let number = at_board(|board: &mut Board, desk| {
            let group = board.group(self.number, desk);
            let turn = group.begun[group.member(desk.process)];
            let members = group.members.iter().zip(&sides);
            let members = members
                .filter(|(_, other)| **other == side)
                .map(|(member, _)| *member);
            let members: Vec<usize> = members.collect();
            board.made((self.number, turn, side), members)
        });
        number
            .map(|number| Communicator { number })
            .ok_or_else(|| broken("no cluster"))
    }

    /// Frees it.
    pub(in crate::exchange) fn free(self) -> Result<()> {
        at_board(|board: &mut Board, desk| {
            board.group(self.number, desk).freed += 1;
            if self.number == 0 {
                board.close(desk);
            }
        });
        Ok(())
    }

    /// This process's number in it, and how many there are.
    pub(in crate::exchange) fn place(self) -> Result<(u32, u32)> {
        let (me, size) = self.at(|group, me, _| (me, group.members.len()))?;
        let narrow = |value| u32::try_from(value).map_err(|_| broken("too many processes"));
        Ok((narrow(me)?, narrow(size)?))
    }

    /// Ends all.
    pub(in crate::exchange) fn abort_all(code: i32) -> ! {
        cluster::abort(&format!("with code {code}"))
    }

    /// *Collective.* Complete when all have come.
    pub(in crate::exchange) fn barrier(self) -> Result<Flight<()>> {
        let nothing = (Vec::new(), Vec::new());
        self.meet(
            "barrier".into(),
            nothing,
            |_, _| true,
            (),
            |_, _, (), _| Ok(()),
            None,
        )
    }

    /// *Collective.* Bytes `range` of the root's.
    pub(in crate::exchange) fn broadcast(
        self,
        root: u32,
        bytes: Vec<u8>,
        range: Range<usize>,
    ) -> Result<Flight<Vec<u8>>> {
        let what = format!("broadcast {range:?} from {root}");
        let (root, part) = (
            index(root),
            bytes.get(range.clone()).unwrap_or_default().to_vec(),
        );
        self.meet(
            what,
            (part, Vec::new()),
            |_, _| false,
            bytes,
            move |meeting, me, bytes: &mut Vec<u8>, _| {
                let given = meeting.given[root].as_ref().filter(|_| me != root);
                if let (Some(given), Some(part)) = (given, bytes.get_mut(range)) {
                    part.copy_from_slice(&given.bytes);
                }
                Ok(())
            },
            Some(root),
        )
    }

    /// *Collective.* What `operation` makes of all.
    pub(in crate::exchange) fn all_reduce(
        self,
        values: Vec<u64>,
        operation: Operation,
    ) -> Result<Flight<(Vec<u64>, Vec<u64>)>> {
        let what = format!("all-reduce {operation:?} of {}", values.len());
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let result = values.clone();
        self.meet(
            what,
            (bytes, Vec::new()),
            |_, _| true,
            (values, result),
            move |meeting, me, buffers: &mut (Vec<u64>, Vec<u64>), _| {
                for (member, given) in meeting.given.iter().enumerate() {
                    let Some(given) = given.as_ref().filter(|_| member != me) else {
                        continue;
                    };
                    let others = given
                        .bytes
                        .chunks_exact(8)
                        .map(|word| word.try_into().map_or(0, u64::from_le_bytes));
                    for (value, other) in buffers.1.iter_mut().zip(others) {
                        *value = match operation {
                            Operation::Sum => value.wrapping_add(other),
                            Operation::Max => (*value).max(other),
                            Operation::Min => (*value).min(other),
                            Operation::Xor => *value ^ other,
                        };
                    }
                }
                Ok(())
            },
            None,
        )
    }

    /// *Collective.* The bytes of all, as `parts` tells.
    pub(in crate::exchange) fn all_gather(
        self,
        bytes: Vec<u8>,
        parts: Parts,
    ) -> Result<Flight<(Vec<u8>, Parted)>> {
        let what = format!("all-gather of {}", parts.total);
        let result = Parted::new(buffer(parts.total)?, parts)?;
        self.meet(
            what,
            (bytes.clone(), Vec::new()),
            |_, _| true,
            (bytes, result),
            |meeting, _, buffers: &mut (Vec<u8>, Parted), desk| {
                for (member, given) in meeting.given.iter().enumerate() {
                    let range = buffers.1.parts.range(member)?;
                    let given = given.as_ref().map_or(&[][..], |given| &given.bytes);
                    put(&mut buffers.1.bytes[range], given, member, desk)?;
                }
                Ok(())
            },
            None,
        )
    }

    /// *Collective.* Part p of the first buffer to process p, and from it part p of the second.
    pub(in crate::exchange) fn all_to_all(
        self,
        send: Parted,
        receive: Parted,
    ) -> Result<Flight<[Parted; 2]>> {
        let size = send.parts.counts.len();
        let lengths = (0..size).map(|p| send.parts.range(p).map(|range| range.len()));
        let lengths = lengths.collect::<Result<Vec<_>>>()?;
        self.meet(
            "all-to-all".into(),
            (send.bytes.clone(), lengths),
            |_, _| true,
            [send, receive],
            |meeting, me, buffers: &mut [Parted; 2], desk| {
                for (member, given) in meeting.given.iter().enumerate() {
                    let Some(given) = given else { continue };
                    let begin: usize = given.lengths[..me].iter().sum();
                    let part = &given.bytes[begin..begin + given.lengths[me]];
                    let range = buffers[1].parts.range(member)?;
                    put(&mut buffers[1].bytes[range], part, member, desk)?;
                }
                Ok(())
            },
            None,
        )
    }

    /// *Local.* The same, by messages.
    pub(in crate::exchange) fn pairwise(
        self,
        process: u32,
        send: Parted,
        mut receive: Parted,
        tag: i32,
    ) -> Result<Flight<[Parted; 2]>> {
        cluster::at_exchange();
        let me = index(process);
        let (mine, kept) = (send.parts.range(me)?, receive.parts.range(me)?);
        if mine.len() != kept.len() {
            return Err(Fault::new(
                Kind::Internal,
                "a part is not as long as it should be",
            ));
        }
        receive.bytes[kept].copy_from_slice(&send.bytes[mine]);
        let mut looks: Vec<Look<[Parted; 2]>> = Vec::new();
        for (other, range) in receive.parts.others(me)? {
            let mut look = self.begin_receive(other, tag)?;
            looks.push(Box::new(move |buffers, board, desk| {
                let Some(bytes) = look(board, desk) else {
                    return Ok(false);
                };
                put(&mut buffers[1].bytes[range.clone()], &bytes, other, desk)?;
                Ok(true)
            }));
        }
        for (other, range) in send.parts.others(me)? {
            let mut look = self.begin_send(other, tag, send.bytes[range].to_vec(), false)?;
            looks.push(Box::new(move |_, board, desk| Ok(look(board, desk))));
        }
        Ok(Flight::new([send, receive], looks))
    }

    /// Sends; what is given tells whether that is complete.
    fn begin_send(
        self,
        to: usize,
        tag: i32,
        bytes: Vec<u8>,
        until_received: bool,
    ) -> Result<impl FnMut(&mut Board, &mut Desk<'_>) -> bool + 'static> {
        let (key, number, waits) = self.at(|group, me, desk| {
            let (key, process) = ((to, me, tag), group.members[to]);
            if is_alone() && to != me {
                return (key, 0, false);
            }
            let waits = until_received || (!desk.is_calm() && desk.draw().one_in(2));
            (key, group.post.send(key, bytes, process, desk), waits)
        })?;
        Ok(move |board: &mut Board, desk: &mut Desk<'_>| {
            !waits
                || board
                    .group(self.number, desk)
                    .post
                    .is_met(key, number, desk)
        })
    }

    /// Receives; what is given gives the bytes when they are there.
    fn begin_receive(
        self,
        from: usize,
        tag: i32,
    ) -> Result<impl FnMut(&mut Board, &mut Desk<'_>) -> Option<Vec<u8>> + 'static> {
        let (key, number) = self.at(|group, me, desk| {
            let (key, process) = ((me, from, tag), group.members[from]);
            (key, group.post.ask(key, process, desk))
        })?;
        Ok(move |board: &mut Board, desk: &mut Desk<'_>| {
            board.group(self.number, desk).post.take(key, number, desk)
        })
    }

    /// *Local.* Sends to one process.
    pub(in crate::exchange) fn send(
        self,
        destination: u32,
        tag: i32,
        bytes: Vec<u8>,
        until_received: bool,
    ) -> Result<Flight<Vec<u8>>> {
        cluster::at_exchange();
        let mut look = self.begin_send(index(destination), tag, bytes.clone(), until_received)?;
        let look: Look<Vec<u8>> = Box::new(move |_, board, desk| Ok(look(board, desk)));
        Ok(Flight::new(bytes, vec![look]))
    }

    /// *Local.* Whether a message has arrived: its source and length.
    pub(in crate::exchange) fn probe(self, tag: i32) -> Result<Option<(u32, usize)>> {
        cluster::at_exchange();
        let found = self.at(|group, me, desk| group.post.look(me, tag, desk))?;
        Ok(found.map(|(from, length)| (u32::try_from(from).unwrap_or(u32::MAX), length)))
    }

    /// *Local.* Starts to receive.
    pub(in crate::exchange) fn receive(
        self,
        source: u32,
        tag: i32,
        length: usize,
    ) -> Result<Flight<Vec<u8>>> {
        cluster::at_exchange();
        let from = index(source);
        let mut look = self.begin_receive(from, tag)?;
        let look: Look<Vec<u8>> = Box::new(move |buffer, board, desk| {
            let Some(bytes) = look(board, desk) else {
                return Ok(false);
            };
            put(buffer, &bytes, from, desk)?;
            Ok(true)
        });
        Ok(Flight::new(buffer(length)?, vec![look]))
    }

    /// *Local.* Receives what has arrived, if anything.
    pub(in crate::exchange) fn receive_any(self, tag: i32) -> Result<Option<Message>> {
        let Some((source, length)) = self.probe(tag)? else {
            return Ok(None);
        };
        let bytes = self.receive(source, tag, length)?.wait(Patience::Short)?;
        Ok(Some(Message { source, bytes }))
    }
}

/// Puts what has come to where it belongs; it must be as long.
fn put(to: &mut [u8], bytes: &[u8], from: usize, desk: &mut Desk<'_>) -> Result<()> {
    if to.len() == bytes.len() {
        to.copy_from_slice(bytes);
        return Ok(());
    }
    let (have, need) = (bytes.len(), to.len());
    let message = format!("process {from} sent {have} bytes, {need} were expected");
    desk.find(format!("process {}: {message}", desk.process));
    Err(Fault::new(Kind::Internal, message))
}
