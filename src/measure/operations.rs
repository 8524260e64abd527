//! The operations between processes that are measured: one row each.
//!
//! Bandwidths are counted as nccl-tests do: a size is what a process holds before or after, whichever
//! is more, and the factor says how much of it a link carries.

use crate::measure::calls::{native, shardloom};
use crate::measure::lanes::{
    both_ways, carried, equal, from_all, from_first, leaving, one_way, others, share,
    share_leaving, shares, skewed, sparse, sums, there_and_back, to_all, to_first, whole_parts,
    window,
};
use crate::measure::operation::Operation;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::operation::Place;
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
