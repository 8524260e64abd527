//! What an operation between processes is: what goes from whom to whom, how it is done, by which factor
//! the links carry more or less than the caller sees.

use crate::exchange::{Counts, Library, Packed, World, agree};
use crate::fault::memory::{grow, room};
use crate::fault::{Fault, Kind, Result};
use crate::measure::contents::{Wrong, append, differing, sum, word};
use std::time::Duration;

/// A place among the processes that take part, and what is asked of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// This process.
    pub(super) me: u32,
    /// How many there are.
    pub(super) all: u32,
    /// The size asked for.
    pub(super) bytes: u64,
    /// Messages in flight.
    pub(super) window: u32,
}

impl Place {
    /// An equal part of the size for each process; not nothing.
    pub(super) fn part(&self) -> u64 {
        (self.bytes / u64::from(self.all)).max(1)
    }

    /// The same in numbers of eight bytes.
    pub(super) fn words(&self) -> u64 {
        (self.bytes / 8 / u64::from(self.all)).max(1)
    }
}

/// Bytes to or from a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The other process.
    pub(super) peer: u32,
    /// What tells this part from others of the same sender; the same on both sides.
    pub(super) key: u32,
    /// Its length.
    pub(super) bytes: u64,
}

/// What one round of an operation brings from and to this process.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    pub(super) send: Vec<Part>,
    pub(super) receive: Vec<Part>,
    /// Numbers to sum.
    pub(super) words: u64,
    /// The first of the sums that this process gets, and how many.
    pub(super) sums: (u64, u64),
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The primitives that jobs use.
    Shardloom,
    /// The MPI library's own call.
    Library,
}

impl By {
    pub(super) fn name(self) -> &'static str {
        match self {
            By::Shardloom => "shardloom",
            By::Library => "library",
        }
    }
}

/// Does an operation once. Collective.
pub(super) type Call = fn(&World, &mut Buffers) -> Result<()>;

/// An operation between processes.
pub(super) struct Operation {
    /// Its name in results.
    pub(super) name: &'static str,
    /// What tells it from others of the same name.
    pub(super) variant: Option<&'static str>,
    /// Whether it is between two processes, the first and the last.
    pub(super) pair: bool,
    /// How many processes it needs.
    pub(super) least: u32,
    /// Whether it has a size.
    pub(super) sized: bool,
    /// Whether it is done again and again without a pause.
    pub(super) unpaused: bool,
    /// What it really carries, of the size asked for.
    pub(super) carries: fn(&Place) -> u64,
    /// Messages that one time is divided by.
    pub(super) messages: fn(&Place) -> u32,
    /// Bus bandwidth over algorithm bandwidth.
    pub(super) factor: fn(&Place) -> f64,
    /// What goes from whom to whom.
    pub(super) lanes: fn(&Place) -> Vec<Lane>,
    /// By the primitives that jobs use.
    pub(super) shardloom: Option<Call>,
    /// By the MPI library.
    pub(super) library: Option<Call>,
}

/// Memory of one operation at one size, and what is to be in it.
pub(super) struct Buffers {
    pub(super) place: Place,
    pub(super) lanes: Vec<Lane>,
    /// What is sent and received in each lane.
    pub(super) rounds: Vec<(Packed, Packed)>,
    /// Where it begins in the bytes of the only lane of the library's calls; 0 in all others.
    begin: (usize, usize),
    /// What has come in pieces of their own.
    pub(super) gathered: Vec<Vec<u8>>,
    /// Parts for the library's calls, of the first lane.
    pub(super) counts: Option<Counts>,
    pub(super) words: Vec<u64>,
    pub(super) sums: Vec<u64>,
    /// How long to work while bytes travel.
    pub(super) work: Duration,
    /// Whether a byte that has come is made wrong.
    pub(super) planted: bool,
    wrong: Option<Wrong>,
}

impl Buffers {
    /// Buffers for `lanes`, filled. The library's calls have one lane. Collective.
    ///
    /// # Errors
    /// [`Kind::Memory`] if the system refuses it.
    pub(super) fn new(
        world: &World,
        operation: &Operation,
        place: Place,
        by: By,
    ) -> Result<Buffers> {
        let mut lanes = (operation.lanes)(&place);
        if by == By::Library {
            let joined = lanes.into_iter().reduce(|mut all, lane| {
                all.send.extend(lane.send);
                all.receive.extend(lane.receive);
                all
            });
            lanes = joined.into_iter().collect();
        }
        agree(world, Buffers::filled(place, lanes, by))
    }

    fn filled(place: Place, lanes: Vec<Lane>, by: By) -> Result<Buffers> {
        let mut rounds = Vec::with_capacity(lanes.len());
        let mut begin = (0, 0);
        let (mut words, mut sums) = (Vec::new(), Vec::new());
        for lane in &lanes {
            let mut send = Packed {
                counts: counts(&lane.send, place.all)?,
                bytes: Vec::new(),
            };
            let length = |parts: &[Part]| narrow(parts.iter().map(|part| part.bytes).sum());
            let mut receive = Packed {
                counts: counts(&lane.receive, place.all)?,
                bytes: Vec::new(),
            };
            if by == By::Library {
                begin.0 = at_a_page(&mut send.bytes, length(&lane.send)?)?;
                begin.1 = at_a_page(&mut receive.bytes, length(&lane.receive)?)?;
            }
            for part in &lane.send {
                append(&mut send.bytes, place.me, part.key, narrow(part.bytes)?)?;
            }
            grow(&mut receive.bytes, begin.1 + length(&lane.receive)?)?;
            rounds.push((send, receive));
            grow(&mut words, narrow(lane.words)?)?;
            grow(&mut sums, narrow(lane.sums.1)?)?;
        }
        for (index, value) in words.iter_mut().enumerate() {
            *value = word(place.me, index);
        }
        let first = rounds.first();
        let counts = first.map(|(send, receive)| Counts::new(&send.counts, &receive.counts));
        let mut buffers = Buffers {
            place,
            lanes,
            rounds,
            begin,
            gathered: Vec::new(),
            counts: counts.transpose()?,
            words,
            sums,
            work: Duration::ZERO,
            planted: false,
            wrong: None,
        };
        buffers.forget();
        Ok(buffers)
    }

    /// What is sent and received in the only lane.
    ///
    /// # Errors
    /// [`Kind::Internal`] if there is none.
    pub(super) fn only(&mut self) -> Result<(&mut [u8], &mut [u8])> {
        let (send, receive) = self.rounds.first_mut().ok_or_else(no_lane)?;
        let (from, to) = self.begin;
        Ok((&mut send.bytes[from..], &mut receive.bytes[to..]))
    }

    /// The library's calls and parts, and the buffers of the only lane.
    ///
    /// # Errors
    /// [`Kind::Internal`] if there are none.
    pub(super) fn parts(&mut self) -> Result<(&[u8], &mut [u8], &Counts)> {
        let round = self.rounds.first_mut().zip(self.counts.as_ref());
        let ((send, receive), counts) = round.ok_or_else(no_lane)?;
        let (from, to) = self.begin;
        Ok((&send.bytes[from..], &mut receive.bytes[to..], counts))
    }

    /// Looks at what has come, and makes all of it wrong, so that nothing old is taken for new.
    pub(super) fn check(&mut self) {
        if self.planted {
            self.plant();
        }
        let mut wrong = self.wrong_parts();
        let all = self.place.all;
        for lane in self.lanes.iter().filter(|lane| lane.sums.1 > 0) {
            let mut indices = (narrow(lane.sums.0).unwrap_or_default()..).zip(&self.sums);
            let differs = |(index, have): &(usize, &u64)| **have != sum(all, *index);
            if let Some((index, _)) = indices.find(differs) {
                let more = indices.filter(differs).count() as u64;
                wrong = wrong.or(Some(Wrong {
                    sender: None,
                    receiver: self.place.me,
                    index: index as u64,
                    count: (more + 1) * 8,
                }));
            }
        }
        self.wrong = self.wrong.take().or(wrong);
        self.forget();
    }

    fn wrong_parts(&self) -> Option<Wrong> {
        let mut found: Option<Wrong> = None;
        let mut look = |part: &[u8], expected: &Part| {
            let (count, index) = differing(part, expected.peer, expected.key);
            let missing = expected.bytes.abs_diff(part.len() as u64);
            if count + missing > 0 {
                let wrong = found.get_or_insert(Wrong {
                    sender: Some(expected.peer),
                    receiver: self.place.me,
                    index,
                    count: 0,
                });
                wrong.count += count + missing;
            }
        };
        for (lane, (_, receive)) in self.lanes.iter().zip(&self.rounds) {
            let mut rest = &receive.bytes[self.begin.1..];
            for (number, part) in lane.receive.iter().enumerate() {
                if let Some(piece) = self.gathered.get(number) {
                    look(piece, part);
                    continue;
                }
                let length = narrow(part.bytes).unwrap_or_default().min(rest.len());
                let (piece, after) = rest.split_at(length);
                look(piece, part);
                rest = after;
            }
        }
        found
    }

    /// What was found wrong.
    pub(super) fn wrong(&self) -> Option<&Wrong> {
        self.wrong.as_ref()
    }

    /// Makes one byte wrong that has come, as a broken link would.
    fn plant(&mut self) {
        if let Some(value) = self.sums.first_mut() {
            *value ^= 1;
        }
        let received = self
            .rounds
            .iter_mut()
            .map(|(_, receive)| &mut receive.bytes);
        let first = self.gathered.iter_mut().chain(received);
        let mut first = first.filter_map(|bytes| bytes.last_mut());
        if let Some(value) = first.next() {
            *value ^= 1;
        }
    }

    /// Makes what has come wrong.
    fn forget(&mut self) {
        let place = self.place;
        for (lane, (_, receive)) in self.lanes.iter().zip(&mut self.rounds) {
            let mut rest = &mut receive.bytes[self.begin.1..];
            for part in &lane.receive {
                let length = narrow(part.bytes).unwrap_or_default().min(rest.len());
                let (piece, after) = rest.split_at_mut(length);
                // What an own part would look like, were it another process's.
                piece.fill(super::contents::byte(part.peer, part.key, 0) ^ 0x80);
                rest = after;
            }
        }
        self.sums.fill(u64::from(place.all));
        self.gathered.clear();
    }
}

/// Where a page begins in `bytes`, which get room for `length` from there on. Where two buffers lie a few bytes apart in
/// their pages, as an allocator puts them, a library's copies between them take several times as long.
///
/// # Errors
/// [`Kind::Memory`].
fn at_a_page(bytes: &mut Vec<u8>, length: usize) -> Result<usize> {
    const PAGE: usize = 4096;
    room(bytes, length.saturating_add(PAGE))?;
    let begin = bytes.as_ptr().align_offset(PAGE);
    grow(bytes, begin)?;
    Ok(begin)
}

/// Whether `memory` bytes of a machine are enough for an operation's buffers in `neighbours` processes, or as many of
/// them as take part. Local.
///
/// # Errors
/// [`Kind::Memory`].
pub(super) fn fits(
    operation: &Operation,
    place: &Place,
    neighbours: u64,
    memory: u64,
) -> Result<()> {
    let lanes = (operation.lanes)(place);
    let parts = lanes
        .iter()
        .flat_map(|lane| lane.send.iter().chain(&lane.receive));
    let words: u64 = lanes.iter().map(|lane| lane.words + lane.sums.1).sum();
    let bytes = parts.map(|part| part.bytes).sum::<u64>() + 8 * words;
    let neighbours = neighbours.min(place.all.into());
    if bytes.saturating_mul(neighbours) <= memory / 10 * 8 {
        return Ok(());
    }
    let message = format!(
        "{}: messages of {} bytes need {bytes} bytes of memory in each of {neighbours} processes; a \
         node has {memory}, which others use, too",
        operation.name, place.bytes
    );
    Err(Fault::new(Kind::Memory, message)
        .hint("a smaller --max-size, or fewer processes on a node"))
}

/// What a call needs of each process.
fn counts(parts: &[Part], all: u32) -> Result<Vec<u32>> {
    let mut counts = vec![0_u32; narrow(u64::from(all))?];
    for part in parts {
        let place = counts.get_mut(narrow(u64::from(part.peer))?);
        let place = place.ok_or_else(no_lane)?;
        let more = u32::try_from(part.bytes).ok();
        let sum = more.and_then(|more| place.checked_add(more));
        *place = sum.ok_or_else(too_large)?;
    }
    Ok(counts)
}

pub(super) fn narrow(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| too_large())
}

fn too_large() -> Fault {
    Fault::new(Kind::Usage, "messages of this size are too large").hint("a smaller --max-size")
}

fn no_lane() -> Fault {
    Fault::new(Kind::Internal, "an operation has nothing to carry")
}

/// The library's calls. Local.
pub(super) fn library(world: &World) -> Library<'_> {
    Library::of(world)
}
