//! Messages between the members of a communicator.

use crate::host::cluster::desk::Desk;
use std::collections::BTreeMap;

/// Member it is for, member it is from, tag.
pub(super) type Key = (usize, usize, i32);

/// All lines of a communicator.
#[derive(Default)]
pub(super) struct Post {
    lines: BTreeMap<Key, Line>,
}

/// Messages of one pair and tag: the n-th receive gets the n-th of them.
#[derive(Default)]
struct Line {
    letters: BTreeMap<u64, (u64, Vec<u8>)>,
    sent: u64,
    asked: u64,
    /// When the last one arrives: none arrives before it that was sent later.
    last: u64,
    /// Number → when it arrives, of those that a send waits for.
    arrivals: BTreeMap<u64, u64>,
}

impl Post {
    /// Sends; gives the message's number. The process `to` hears of it when it arrives.
    pub(super) fn send(&mut self, key: Key, bytes: Vec<u8>, to: usize, desk: &mut Desk<'_>) -> u64 {
        let line = self.lines.entry(key).or_default();
        let arrives = desk.arrival().max(line.last);
        line.last = arrives;
        let number = line.sent;
        line.sent += 1;
        line.letters.insert(number, (arrives, bytes));
        line.arrivals.insert(number, arrives);
        desk.wake_at(to, arrives);
        desk.wake_at(desk.process, arrives);
        number
    }

    /// Begins to receive; gives the number of the message meant. The process `from` hears of it.
    pub(super) fn ask(&mut self, key: Key, from: usize, desk: &mut Desk<'_>) -> u64 {
        let line = self.lines.entry(key).or_default();
        let number = line.asked;
        line.asked += 1;
        desk.wake_at(from, desk.now());
        number
    }

    /// Whether a message has arrived where it is received.
    pub(super) fn is_met(&mut self, key: Key, number: u64, desk: &Desk<'_>) -> bool {
        let line = self.lines.entry(key).or_default();
        let arrived = line
            .arrivals
            .get(&number)
            .is_none_or(|arrives| *arrives <= desk.now());
        let met = line.asked > number && arrived;
        if met {
            line.arrivals.remove(&number);
        }
        met
    }

    /// A message, if it has arrived.
    pub(super) fn take(&mut self, key: Key, number: u64, desk: &Desk<'_>) -> Option<Vec<u8>> {
        let line = self.lines.get_mut(&key)?;
        let (arrives, _) = line.letters.get(&number)?;
        if *arrives > desk.now() {
            return None;
        }
        line.letters.remove(&number).map(|(_, bytes)| bytes)
    }

    /// A message that has arrived and isn't being received: the member it is from, and its length.
    pub(super) fn look(&self, to: usize, tag: i32, desk: &mut Desk<'_>) -> Option<(usize, usize)> {
        let now = desk.now();
        let mut found = Vec::new();
        for ((other, from, tagged), line) in &self.lines {
            if (*other, *tagged) != (to, tag) {
                continue;
            }
            let next = line.letters.get(&line.asked);
            if let Some((_, bytes)) = next.filter(|(arrives, _)| *arrives <= now) {
                found.push((*from, bytes.len()));
            }
        }
        match (found.len(), desk.is_calm()) {
            (0, _) => None,
            (_, true) => Some(found[0]),
            (count, false) => Some(found[desk.draw().index(count)]),
        }
    }

    /// What nobody has received, or sent.
    pub(super) fn left(&self) -> Option<String> {
        self.lines.iter().find_map(|((to, from, tag), line)| {
            (line.sent != line.asked || !line.letters.is_empty()).then(|| {
                let (sent, asked) = (line.sent, line.asked);
                format!("tag {tag} from {from} to {to}: {sent} messages, {asked} receives")
            })
        })
    }
}
