//! What a directory is of a whole result: which request it answers, and who has the rest.

use crate::store::hex::Hex;
use serde::{Deserialize, Serialize};

/// Ranks from the first of a pair up to its second, which is not one of them.
pub type RankRange = (u32, u32);

/// The place of a directory in a result that may lie on several nodes' own disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// Fingerprint of what was asked for, whatever the source: two runs with the same one make the
    /// same of the same source.
    pub request: Hex,
    /// The ranks of each directory that the result lies in.
    pub sites: Vec<Vec<RankRange>>,
    /// Which of them this is.
    pub site: u32,
}

/// Ascending ranks as ranges.
#[must_use]
pub fn ranges(ranks: impl IntoIterator<Item = u32>) -> Vec<RankRange> {
    let mut ranges: Vec<RankRange> = Vec::new();
    for rank in ranks {
        match ranges.last_mut() {
            Some(last) if last.1 == rank => last.1 += 1,
            _ => ranges.push((rank, rank.saturating_add(1))),
        }
    }
    ranges
}

/// The same for people: `0-3, 7`.
#[must_use]
pub fn spelled(ranges: &[RankRange]) -> String {
    let one = |(begin, end): &RankRange| match end.saturating_sub(*begin) {
        0 | 1 => begin.to_string(),
        _ => format!("{begin}-{}", end - 1),
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_ranks_as_ranges() {
        assert_eq!(spelled(&ranges([0, 1, 2, 7, 9, 10])), "0-2, 7, 9-10");
        assert_eq!(spelled(&ranges([])), "");
    }
}
