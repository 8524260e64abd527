//! What a plan comes to, in figures.

use crate::fault::Result;
use crate::plan::reach::{Reach, Served};
use crate::plan::slab::Slab;
use crate::plan::value::{operand_transfers, patches};
use crate::plan::work::Work;
use crate::tensor::strided::StridedCopy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// What a plan comes to, for one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Number of strided copies.
    pub transfers: u64,
    /// Source bytes that this process needs, each counted once a cell it goes to.
    pub needed_bytes: u64,
    /// Of those, what other processes read and send.
    pub received_bytes: u64,
    /// The processes that read something for this one, itself too, and how much: of what nodes read in turn
    /// for each other, its part of what is read once.
    pub readers: BTreeMap<u32, u64>,
    /// Least bytes that must come from other nodes.
    pub received_bytes_lower_bound: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// The processes that send something, and about how much (slabs may take turns).
    pub senders: BTreeMap<u32, u64>,
}

impl Survey {
    /// Bytes that are read from files for this process, by whoever does.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.readers.values().sum()
    }

    /// Counts bytes that `served` brings to `slab`, and to so many like it.
    fn need(&mut self, reach: &Reach, slab: &Slab<'_>, served: Served, bytes: u64, alike: u64) {
        // What lies on its own disks, or comes from there, is read for it alone.
        let turns = slab.turns.as_ref().filter(|_| served.in_turn);
        let read = alike * turns.map_or(bytes, |turns| turns.read_bytes(bytes));
        let bytes = alike * bytes;
        self.needed_bytes += bytes;
        *self.readers.entry(served.process).or_default() += read;
        if served.process != reach.process {
            self.received_bytes += bytes;
            *self.senders.entry(served.process).or_default() += bytes;
        }
    }
}

impl std::iter::Sum for Survey {
    fn sum<I: Iterator<Item = Survey>>(surveys: I) -> Survey {
        let mut sum = Survey::default();
        for survey in surveys {
            sum.transfers += survey.transfers;
            sum.needed_bytes += survey.needed_bytes;
            sum.received_bytes += survey.received_bytes;
            for (reader, bytes) in survey.readers {
                *sum.readers.entry(reader).or_default() += bytes;
            }
            sum.received_bytes_lower_bound += survey.received_bytes_lower_bound;
            sum.written_bytes += survey.written_bytes;
            for (sender, bytes) in survey.senders {
                *sum.senders.entry(sender).or_default() += bytes;
            }
        }
        sum
    }
}

/// Walks through a process's share without moving a byte.
///
/// # Errors
/// [`crate::fault::Kind::MissingShard`] if a shard is needed that nobody sees.
pub fn survey(work: &Work<'_>) -> Result<Survey> {
    survey_alike(work, &[])
}

/// The same where each of the work's tensors stands for so many like it, itself too; for one where nothing is said.
///
/// # Errors
/// As [`survey`].
pub fn survey_alike(work: &Work<'_>, alike: &[u64]) -> Result<Survey> {
    let reach = work.reach;
    let mut survey = Survey::default();
    let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
    let mut clipped = Vec::new();
    work.for_each_span(|span| {
        let alike = alike.get(span.id.tensor as usize).copied().unwrap_or(1);
        survey.written_bytes += alike * span.written_bytes();
        for filled in span.filled() {
            seen.clear();
            let mut unseen = 0;
            let Range { start, end } = filled.window;
            for transfer in filled.transfers {
                clipped.clear();
                transfer.copy.clip(start, end, &mut clipped);
                if clipped.is_empty() {
                    continue;
                }
                let bytes: u64 = clipped.iter().map(StridedCopy::bytes).sum();
                survey.transfers += alike * clipped.len() as u64;
                let served = span.serve(reach, filled.share, transfer)?;
                survey.need(reach, &span, served, bytes, alike);
                if reach.all_see_all() {
                    continue;
                }
                if work.site.everybody {
                    let homes = transfer
                        .candidates
                        .iter()
                        .flat_map(|place| reach.homes(place.rank));
                    let nodes: std::collections::BTreeSet<u32> = homes.copied().collect();
                    for node in nodes {
                        *seen.entry(node).or_default() += bytes;
                    }
                    unseen += bytes;
                } else if !transfer.candidates.iter().any(|p| reach.sees(p.rank)) {
                    unseen += bytes;
                }
            }
            // A shared destination could be built on the node that sees most of it.
            survey.received_bytes_lower_bound +=
                alike * (unseen - seen.values().max().copied().unwrap_or_default());
        }
        for cell in span.cells.iter() {
            let patches = patches(span.plan, &cell.cell, span.begin..span.end)?;
            for transfer in operand_transfers(&patches, span.source)? {
                let bytes = transfer.copy.bytes();
                survey.transfers += alike;
                let served = span.serve(reach, cell.share, &transfer)?;
                survey.need(reach, &span, served, bytes, alike);
            }
        }
        Ok(())
    })?;
    Ok(survey)
}
