//! How the rounds of an exchange go.

use crate::exchange::{Operation, Traffic, World, all_reduce};
use crate::fault::Result;
use crate::plan::survey::Survey;

/// Largest part of the memory budget that one buffer of a round takes, and its upper limit: rounds
/// that stay in the last-level cache are faster than larger ones.
pub(super) const ROUND_BYTES_MAX: u64 = 32 << 20;
/// Least bytes that a pair of processes may exchange in a round.
const PAIR_BYTES_MIN: u64 = 256 << 10;
/// Rounds that an exchange has, unless they would be smaller than that of each pair: one is written while the
/// next travels.
const ROUNDS_WANTED: u64 = 8;

/// How the rounds of an exchange go: the same on every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Whether most processes talk to most.
    pub traffic: Traffic,
    /// Most bytes that a process asks of another in a round.
    pub pair_bytes: u64,
    /// Most bytes that a process asks of all others in a round.
    pub round_bytes: u64,
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
        for sender in survey.senders.keys() {
            asked[*sender as usize] = 1;
        }
        all_reduce(world, &mut asked, Operation::Sum)?;
        let partners = asked.into_iter().max().unwrap_or(1).max(senders);
        Ok(Some(Exchange::of(
            world.size(),
            partners,
            received,
            memory_bytes,
        )))
    }

    /// What suits a world of `processes` where nobody has more than `partners` or receives more bytes than
    /// `received`. Local.
    #[must_use]
    pub fn of(processes: u32, partners: u64, received: u64, memory_bytes: u64) -> Exchange {
        let partners = partners.max(1);
        let round = (memory_bytes / 4).min(ROUND_BYTES_MAX);
        // Whoever sends has a buffer for all that ask it; who receives may ask one alone.
        let pair_bytes = (round / partners).max(PAIR_BYTES_MIN);
        let least = PAIR_BYTES_MIN.saturating_mul(partners);
        let wanted = received.div_ceil(ROUNDS_WANTED).max(least);
        let dense = 2 * partners >= u64::from(processes);
        Exchange {
            traffic: if dense {
                Traffic::Dense
            } else {
                Traffic::Sparse
            },
            pair_bytes,
            round_bytes: wanted.min(pair_bytes.saturating_mul(partners)),
        }
    }

    /// The rounds that a process with this survey needs, about. Local.
    #[must_use]
    pub fn rounds(&self, survey: &Survey) -> u64 {
        let senders = (survey.senders.len() as u64).max(1);
        let round = self.pair_bytes.saturating_mul(senders);
        survey.received_bytes.div_ceil(round.min(self.round_bytes))
    }
}
