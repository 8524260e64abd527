//! What goes from whom to whom in each operation between processes.

use crate::measure::operation::{Lane, Part, Place};

/// Most bytes in flight of one process; larger messages are fewer.
const FLIGHT_BYTES_MAX: u64 = 32 << 20;
/// The word that says that all has come.
const WORD_BYTES: u64 = 4;

/// The share of a size that leaves its process, or comes from others.
pub(super) fn leaving(place: &Place) -> f64 {
    f64::from(place.all - 1) / f64::from(place.all)
}

/// The share of an uneven size that is not this process's.
#[allow(clippy::cast_precision_loss, reason = "a share of bytes")]
pub(super) fn others(place: &Place, process: u32) -> f64 {
    let whole: u64 = shares(place).sum();
    1.0 - share(place, process) as f64 / whole.max(1) as f64
}

pub(super) fn whole_parts(place: &Place) -> u64 {
    place.part() * u64::from(place.all)
}

/// Messages in flight.
pub(super) fn window(place: &Place) -> u32 {
    let most = FLIGHT_BYTES_MAX / place.bytes.max(1);
    u32::try_from(most).map_or(place.window, |most| place.window.min(most.max(1)))
}

fn part(peer: u32, key: u32, bytes: u64) -> Part {
    Part { peer, key, bytes }
}

pub(super) fn there_and_back(place: &Place) -> Vec<Lane> {
    let other = part(place.all - 1 - place.me, 0, place.bytes);
    let sends = Lane {
        send: vec![other],
        ..Lane::default()
    };
    let receives = Lane {
        receive: vec![other],
        ..Lane::default()
    };
    if place.me == 0 {
        vec![sends, receives]
    } else {
        vec![receives, sends]
    }
}

/// Process i of the first half sends to process i of the second; a last one without a partner rests.
pub(super) fn one_way(place: &Place) -> Vec<Lane> {
    let half = place.all / 2;
    let (sends, peer) = match place.me {
        me if me < half => (true, me + half),
        me if me < 2 * half => (false, me - half),
        _ => return Vec::new(),
    };
    let lane = |send: bool, part: Part| match send {
        true => Lane {
            send: vec![part],
            ..Lane::default()
        },
        false => Lane {
            receive: vec![part],
            ..Lane::default()
        },
    };
    let messages = window(place);
    let mut lanes: Vec<Lane> = (0..messages)
        .map(|key| lane(sends, part(peer, key, place.bytes)))
        .collect();
    lanes.push(lane(!sends, part(peer, messages, WORD_BYTES)));
    lanes
}

pub(super) fn both_ways(place: &Place) -> Vec<Lane> {
    let peer = place.all - 1 - place.me;
    let messages = (0..window(place)).map(|key| part(peer, key, place.bytes));
    messages
        .map(|part| Lane {
            send: vec![part],
            receive: vec![part],
            ..Lane::default()
        })
        .collect()
}

/// How much of a size is a process's.
type Share = fn(&Place, u32) -> u64;

pub(super) fn equal(place: &Place, _: u32) -> u64 {
    place.part()
}

/// Half of the size for process 0, a quarter for the next, and so on; something for each.
pub(super) fn share(place: &Place, process: u32) -> u64 {
    (place.bytes >> (process + 1).min(63)).max(1)
}

pub(super) fn shares(place: &Place) -> impl Iterator<Item = u64> {
    (0..place.all).map(|process| share(place, process))
}

/// From process 0 to all: the same, or a share each.
pub(super) fn from_first(place: &Place, share: Option<Share>) -> Vec<Lane> {
    let mut lane = Lane::default();
    match share {
        None if place.me == 0 => lane.send = vec![part(0, 0, place.bytes)],
        None => lane.receive = vec![part(0, 0, place.bytes)],
        Some(share) => {
            if place.me == 0 {
                let shares = (0..place.all).map(|to| part(to, to, share(place, to)));
                lane.send = shares.collect();
            }
            lane.receive = vec![part(0, place.me, share(place, place.me))];
        }
    }
    vec![lane]
}

pub(super) fn to_first(place: &Place, share: Share) -> Vec<Lane> {
    let mut lane = Lane {
        send: vec![part(0, 0, share(place, place.me))],
        ..Lane::default()
    };
    if place.me == 0 {
        let shares = (0..place.all).map(|from| part(from, 0, share(place, from)));
        lane.receive = shares.collect();
    }
    vec![lane]
}

pub(super) fn from_all(place: &Place, share: Share) -> Vec<Lane> {
    let shares = (0..place.all).map(|from| part(from, 0, share(place, from)));
    vec![Lane {
        send: vec![part(place.me, 0, share(place, place.me))],
        receive: shares.collect(),
        ..Lane::default()
    }]
}

pub(super) fn sums(place: &Place, scattered: bool) -> Vec<Lane> {
    let (words, sums) = if scattered {
        let each = place.words();
        let first = each * u64::from(place.me);
        (each * u64::from(place.all), (first, each))
    } else {
        let words = (place.bytes / 8).max(1);
        (words, (0, words))
    };
    vec![Lane {
        words,
        sums,
        ..Lane::default()
    }]
}

/// A part to each and from each.
pub(super) fn to_all(place: &Place) -> Vec<Lane> {
    around(place, |_| place.part())
}

/// Half to the next process, a quarter to the one after it, and so on.
pub(super) fn skewed(place: &Place) -> Vec<Lane> {
    around(place, |distance| match distance {
        0 => 0,
        _ => place.bytes >> distance.min(63),
    })
}

/// Half to each of the next two; of two processes, all to the other.
pub(super) fn sparse(place: &Place) -> Vec<Lane> {
    let neighbours = place.all.saturating_sub(1).min(2);
    around(place, |distance| match distance {
        1..=2 if distance <= neighbours => (place.bytes / u64::from(neighbours)).max(1),
        _ => 0,
    })
}

/// What each process sends to the one that many places after it.
fn around(place: &Place, bytes: impl Fn(u32) -> u64) -> Vec<Lane> {
    let (me, all) = (place.me, place.all);
    let distance = |from: u32, to: u32| (to + all - from) % all;
    let parts = |from: bool| {
        let each = (0..all).map(|peer| {
            let (key, distance) = if from {
                (me, distance(peer, me))
            } else {
                (peer, distance(me, peer))
            };
            part(peer, key, bytes(distance))
        });
        each.filter(|part| part.bytes > 0).collect()
    };
    vec![Lane {
        send: parts(false),
        receive: parts(true),
        ..Lane::default()
    }]
}

/// What a process sends.
pub(super) fn carried(lanes: &[Lane]) -> u64 {
    let parts = lanes.iter().flat_map(|lane| &lane.send);
    parts.map(|part| part.bytes).sum()
}

#[allow(clippy::cast_precision_loss, reason = "a share of bytes")]
pub(super) fn share_leaving(place: &Place, lanes: &[Lane]) -> f64 {
    let parts = lanes.iter().flat_map(|lane| &lane.send);
    let others = parts.filter(|part| part.peer != place.me);
    let bytes: u64 = others.map(|part| part.bytes).sum();
    bytes as f64 / carried(lanes).max(1) as f64
}
