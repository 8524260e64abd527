//! One round of an exchange: the slabs that fit into it, and what is asked of others for them.

use crate::catalog::Place;
use crate::fault::Result;
use crate::plan::reach::Reach;
use crate::plan::work::Slab;
use crate::transport::exchange::{Exchange, ROUND_BYTES_MAX};
use crate::transport::parts::{From, Part, cut_parts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A request for bytes of a shard, in the order in which they are to be sent.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) place: Place,
    pub(super) source: u64,
    pub(super) run_bytes: u64,
    pub(super) loops: Vec<(u64, u64)>,
    pub(super) sharing: u64,
}

/// A part of the destination, and where its bytes come from.
pub(super) struct RoundSlab<'a> {
    pub(super) slab: Slab<'a>,
    pub(super) cells: Vec<Vec<Part>>,
}

/// What is built at once, and what others are asked for.
#[derive(Default)]
pub(super) struct Round<'a> {
    pub(super) slabs: Vec<RoundSlab<'a>>,
    pub(super) requests: BTreeMap<u32, Vec<Request>>,
    pub(super) incoming: BTreeMap<u32, u64>,
}

/// Slabs that are gathered into rounds.
pub(super) struct Gathering<'a> {
    reach: &'a Reach,
    exchange: Exchange,
    pending: Option<RoundSlab<'a>>,
}

impl<'a> Gathering<'a> {
    /// Rounds of `exchange`.
    pub(super) fn new(reach: &'a Reach, exchange: Exchange) -> Self {
        Gathering {
            reach,
            exchange,
            pending: None,
        }
    }

    /// The slabs of the next round: as many as fit, one at least.
    ///
    /// # Errors
    /// [`crate::fault::Kind::MissingShard`].
    pub(super) fn next(&mut self, slabs: impl Fn() -> Option<Slab<'a>>) -> Result<Round<'a>> {
        let mut round = Round::default();
        let mut built = 0;
        loop {
            let next = match self.pending.take() {
                Some(next) => next,
                None => {
                    let Some(slab) = slabs() else { break };
                    let cells = cut_parts(self.reach, &slab, true)?;
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
            let all = round.incoming.values().sum::<u64>();
            let full = built > 2 * ROUND_BYTES_MAX || all >= self.exchange.round_bytes;
            if !round.slabs.is_empty() && (full || !asked.iter().all(fits)) {
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
            let sharing = slab.sharing();
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
