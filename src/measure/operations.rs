//! The operations between processes that are measured: one row each.
//!
//! Bandwidths are counted as nccl-tests do: a size is what a process holds before or after, whichever
//! is more, and the factor says how much of it a link carries.

use crate::measure::calls::{native, shardloom};
use crate::measure::operation::{Lane, Operation, Part, Place};

/// Most bytes in flight of one process; larger messages are fewer.
const FLIGHT_BYTES_MAX: u64 = 32 << 20;
/// The word that says that all has come.
const WORD_BYTES: u64 = 4;

/// What is left to say where an operation is like most.
const USUAL: Operation = Operation {
    name: "",
    variant: None,
    pair: false,
    least: 1,
    sized: true,
    unpaused: false,
    carries: |place| place.bytes,
    messages: |_| 1,
    factor: |_| 1.0,
    lanes: |_| Vec::new(),
    shardloom: None,
    library: None,
};

/// What is left to say of an all-to-all.
const EXCHANGE: Operation = Operation {
    carries: whole_parts,
    factor: leaving,
    lanes: to_all,
    shardloom: Some(shardloom::dense),
    library: Some(native::all_to_all_v),
    ..USUAL
};

/// What is left to say where each process has another share.
const UNEVEN: Operation = Operation {
    variant: Some("skewed"),
    carries: |place| shares(place).sum(),
    factor: |place| others(place, 0),
    ..USUAL
};

/// All of them.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "latency",
        pair: true,
        least: 2,
        unpaused: true,
        messages: |_| 2,
        lanes: there_and_back,
        shardloom: Some(shardloom::in_turn),
        library: Some(native::ping_pong),
        ..USUAL
    },
    Operation {
        name: "one_way",
        pair: true,
        least: 2,
        messages: window,
        lanes: one_way,
        shardloom: Some(shardloom::one_way),
        library: Some(native::one_way),
        ..USUAL
    },
    Operation {
        name: "both_ways",
        pair: true,
        least: 2,
        messages: window,
        factor: |_| 2.0,
        lanes: both_ways,
        shardloom: Some(shardloom::at_once),
        library: Some(native::both_ways),
        ..USUAL
    },
    Operation {
        name: "many_pairs",
        least: 2,
        messages: window,
        factor: |place| f64::from(place.all / 2),
        lanes: one_way,
        shardloom: Some(shardloom::one_way),
        library: Some(native::one_way),
        ..USUAL
    },
    Operation {
        name: "broadcast",
        lanes: |place| from_first(place, None),
        shardloom: Some(shardloom::broadcast),
        library: Some(native::broadcast),
        ..USUAL
    },
    Operation {
        name: "scatter",
        carries: whole_parts,
        factor: leaving,
        lanes: |place| from_first(place, Some(equal)),
        shardloom: Some(shardloom::at_once),
        library: Some(native::scatter),
        ..USUAL
    },
    Operation {
        name: "scatter_v",
        lanes: |place| from_first(place, Some(share)),
        shardloom: Some(shardloom::at_once),
        library: Some(native::scatter_v),
        ..UNEVEN
    },
    Operation {
        name: "gather",
        carries: whole_parts,
        factor: leaving,
        lanes: |place| to_first(place, equal),
        shardloom: Some(shardloom::at_once),
        library: Some(native::gather),
        ..USUAL
    },
    Operation {
        name: "gather_v",
        lanes: |place| to_first(place, share),
        shardloom: Some(shardloom::at_once),
        library: Some(native::gather_v),
        ..UNEVEN
    },
    Operation {
        name: "all_gather",
        carries: whole_parts,
        factor: leaving,
        lanes: |place| from_all(place, equal),
        shardloom: Some(shardloom::all_gather),
        library: Some(native::all_gather),
        ..USUAL
    },
    Operation {
        name: "all_gather_v",
        lanes: |place| from_all(place, share),
        shardloom: Some(shardloom::all_gather),
        library: Some(native::all_gather_v),
        // The last gets most.
        factor: |place| others(place, place.all - 1),
        ..UNEVEN
    },
    Operation {
        name: "all_reduce",
        carries: |place| 8 * (place.bytes / 8).max(1),
        factor: |place| 2.0 * leaving(place),
        lanes: |place| sums(place, false),
        shardloom: Some(shardloom::reduce),
        library: Some(native::all_reduce),
        ..USUAL
    },
    Operation {
        name: "reduce_scatter",
        carries: |place| 8 * place.words() * u64::from(place.all),
        factor: leaving,
        lanes: |place| sums(place, true),
        library: Some(native::reduce_scatter),
        ..USUAL
    },
    Operation {
        name: "all_to_all",
        library: Some(native::all_to_all),
        ..EXCHANGE
    },
    Operation {
        name: "all_to_all_v",
        variant: Some("even"),
        ..EXCHANGE
    },
    Operation {
        name: "all_to_all_v",
        variant: Some("skewed"),
        least: 2,
        carries: |place| carried(&skewed(place)),
        factor: |place| share_leaving(place, &skewed(place)),
        lanes: skewed,
        ..EXCHANGE
    },
    Operation {
        name: "all_to_all_v",
        variant: Some("sparse"),
        least: 2,
        carries: |place| carried(&sparse(place)),
        factor: |place| share_leaving(place, &sparse(place)),
        lanes: sparse,
        shardloom: Some(shardloom::at_once),
        ..EXCHANGE
    },
    Operation {
        name: "barrier",
        sized: false,
        unpaused: true,
        shardloom: Some(shardloom::barrier),
        library: Some(native::barrier),
        ..USUAL
    },
    Operation {
        name: "overlap",
        shardloom: Some(shardloom::overlapped),
        library: Some(native::overlapped),
        ..EXCHANGE
    },
];

/// The share of a size that leaves its process, or comes from others.
fn leaving(place: &Place) -> f64 {
    f64::from(place.all - 1) / f64::from(place.all)
}

/// The share of an uneven size that is not this process's.
#[allow(clippy::cast_precision_loss, reason = "a share of bytes")]
fn others(place: &Place, process: u32) -> f64 {
    let whole: u64 = shares(place).sum();
    1.0 - share(place, process) as f64 / whole.max(1) as f64
}

fn whole_parts(place: &Place) -> u64 {
    place.part() * u64::from(place.all)
}

/// Messages in flight.
fn window(place: &Place) -> u32 {
    let most = FLIGHT_BYTES_MAX / place.bytes.max(1);
    u32::try_from(most).map_or(place.window, |most| place.window.min(most.max(1)))
}

fn part(peer: u32, key: u32, bytes: u64) -> Part {
    Part { peer, key, bytes }
}

fn there_and_back(place: &Place) -> Vec<Lane> {
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
fn one_way(place: &Place) -> Vec<Lane> {
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

fn both_ways(place: &Place) -> Vec<Lane> {
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

fn equal(place: &Place, _: u32) -> u64 {
    place.part()
}

/// Half of the size for process 0, a quarter for the next, and so on; something for each.
fn share(place: &Place, process: u32) -> u64 {
    (place.bytes >> (process + 1).min(63)).max(1)
}

fn shares(place: &Place) -> impl Iterator<Item = u64> {
    (0..place.all).map(|process| share(place, process))
}

/// From process 0 to all: the same, or a share each.
fn from_first(place: &Place, share: Option<Share>) -> Vec<Lane> {
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

fn to_first(place: &Place, share: Share) -> Vec<Lane> {
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

fn from_all(place: &Place, share: Share) -> Vec<Lane> {
    let shares = (0..place.all).map(|from| part(from, 0, share(place, from)));
    vec![Lane {
        send: vec![part(place.me, 0, share(place, place.me))],
        receive: shares.collect(),
        ..Lane::default()
    }]
}

fn sums(place: &Place, scattered: bool) -> Vec<Lane> {
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
fn to_all(place: &Place) -> Vec<Lane> {
    around(place, |_| place.part())
}

/// Half to the next process, a quarter to the one after it, and so on.
fn skewed(place: &Place) -> Vec<Lane> {
    around(place, |distance| match distance {
        0 => 0,
        _ => place.bytes >> distance.min(63),
    })
}

/// Half to each of the next two; of two processes, all to the other.
fn sparse(place: &Place) -> Vec<Lane> {
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
fn carried(lanes: &[Lane]) -> u64 {
    let parts = lanes.iter().flat_map(|lane| &lane.send);
    parts.map(|part| part.bytes).sum()
}

#[allow(clippy::cast_precision_loss, reason = "a share of bytes")]
fn share_leaving(place: &Place, lanes: &[Lane]) -> f64 {
    let parts = lanes.iter().flat_map(|lane| &lane.send);
    let others = parts.filter(|part| part.peer != place.me);
    let bytes: u64 = others.map(|part| part.bytes).sum();
    bytes as f64 / carried(lanes).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// What each sends to each under each key, and what each receives.
    #[test]
    fn what_is_sent_is_what_is_received() {
        for operation in OPERATIONS {
            for all in [2, 3, 4, 7] {
                if operation.pair && all > 2 {
                    continue;
                }
                let (mut sent, mut received) = (BTreeMap::new(), BTreeMap::new());
                for me in 0..all {
                    let place = Place {
                        me,
                        all,
                        bytes: 4096,
                        window: 3,
                    };
                    for lane in (operation.lanes)(&place) {
                        for part in lane.send {
                            *sent.entry((me, part.key)).or_insert(0) += part.bytes;
                        }
                        for part in lane.receive {
                            let most = received.entry((part.peer, part.key)).or_insert(0);
                            *most = part.bytes.max(*most);
                        }
                    }
                }
                let (name, variant) = (operation.name, operation.variant);
                assert_eq!(sent, received, "{name} {variant:?} of {all}");
            }
        }
    }

    #[test]
    fn bus_bandwidth_has_the_usual_factors() {
        let place = Place {
            me: 0,
            all: 4,
            bytes: 4096,
            window: 3,
        };
        let factor = |name: &str| {
            let operation = OPERATIONS.iter().find(|o| o.name == name).unwrap();
            (operation.factor)(&place)
        };
        for (name, expected) in [
            ("latency", 1.0),
            ("one_way", 1.0),
            ("both_ways", 2.0),
            ("many_pairs", 2.0),
            ("broadcast", 1.0),
            ("scatter", 0.75),
            ("gather", 0.75),
            ("all_gather", 0.75),
            ("all_reduce", 1.5),
            ("reduce_scatter", 0.75),
            ("all_to_all", 0.75),
            ("all_to_all_v", 0.75),
            ("overlap", 0.75),
        ] {
            assert!((factor(name) - expected).abs() < 1e-12, "{name}");
        }
    }
}
