//! Grids of scales that are larger than their weights need: some writers fill them up.
//!
//! What is larger may also be meant for smaller blocks than it is read with, which would give other numbers.
//! So a dimension of all grids must be filled up by one rule: by so many, or to a multiple of a power of two.

/// A power of two up to which grids are filled.
const MULTIPLE_MAX: u64 = 128;

/// Of a dimension of each grid: how long the weight is there, and how many scales there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Lengths(Vec<(u64, u64)>);

impl Lengths {
    /// Enters a weight that is `length` long and has `scales`.
    pub(super) fn put(&mut self, length: u64, scales: u64) {
        self.0.push((length, scales));
    }

    /// The rule by which all grids have a scale for each `block`, or more; none if there is none.
    pub(super) fn rule(&self, block: u64) -> Option<Rule> {
        let block = block.max(1);
        let fits = |rule: Rule| {
            let mut all = self.0.iter();
            all.all(|&(length, scales)| rule.takes(length.div_ceil(block), scales))
        };
        if fits(Rule::Exact) {
            return Some(Rule::Exact);
        }
        let halves = std::iter::successors(Some(block / 2), |half| Some(half / 2));
        let mut halves = halves.take_while(|half| *half > 0);
        if halves.any(|half| self.0.iter().all(|(length, n)| length.div_ceil(half) == *n)) {
            return None;
        }
        let more = self
            .0
            .iter()
            .map(|(length, n)| n.saturating_sub(length.div_ceil(block)));
        let multiples = std::iter::successors(Some(2), |m| Some(m * 2));
        let multiples = multiples.take_while(|m| *m <= MULTIPLE_MAX);
        let mut rules = multiples
            .map(Rule::Multiple)
            .chain(more.max().map(Rule::More));
        rules.find(|rule| fits(*rule))
    }
}

/// How many scales a grid has where `n` are needed; or just `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Exact,
    Multiple(u64),
    More(u64),
}

impl Rule {
    /// Whether a grid of `found` is one where `due` are needed.
    pub(super) fn takes(self, due: u64, found: u64) -> bool {
        let filled = match self {
            Rule::Exact => Some(due),
            Rule::Multiple(of) => due.checked_next_multiple_of(of),
            Rule::More(by) => due.checked_add(by),
        };
        found == due || Some(found) == filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_filled_up_by_one_rule_or_are_for_other_blocks() {
        let of = |pairs: &[(u64, u64)]| Lengths(pairs.to_vec());
        for (pairs, block, rule) in [
            (&[(256, 2), (576, 5)][..], 128, Some(Rule::Exact)),
            (&[(256, 2), (576, 6)], 128, Some(Rule::Multiple(2))),
            (&[(256, 8), (576, 8)], 128, Some(Rule::Multiple(8))),
            (&[(256, 3), (576, 6), (64, 1)], 128, Some(Rule::More(1))),
            // Blocks of 64; of 3; too few.
            (&[(256, 4), (576, 9)], 128, None),
            (&[(16, 6), (12, 4), (24, 8), (8, 3)], 4, None),
            (&[(256, 2), (576, 4)], 128, None),
        ] {
            assert_eq!(of(pairs).rule(block), rule, "{pairs:?}");
        }
    }
}
