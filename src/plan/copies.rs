//! Which copies of a source's shards are compared with which, and where: a sample of each tensor.
//!
//! Of every tensor a few cells, in turn from tensor to tensor, and of each of them the first holder
//! and another, far from it; so over the tensors every holder is compared with the first. Where there
//! are few copies in all, each is compared.

use crate::catalog::{Catalog, Place};
use crate::plan::inventory::Inventory;
use crate::plan::{SourceTensor, Spread};
use std::ops::Range;

/// Cells of one tensor that are sampled.
const CELLS_MAX: u64 = 2;
/// Where there are no more copies than this, all are compared.
const COPIES_FEW: u64 = 256;
/// Shards of at most this many bytes are compared whole.
const BYTES_WHOLE: u64 = 4 << 10;
/// Places of a larger one that are compared.
const PLACES: u64 = 2;
/// Bytes of each of them.
const PLACE_BYTES: u64 = 2 << 10;

/// Copies of one shard that are to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which of the groups it is.
    pub number: u64,
    /// The tensor, by its place in the inventory.
    pub tensor: usize,
    /// The copies: the first holder's, then others'.
    pub copies: Vec<Place>,
}

/// The copies to compare. The same on every process.
#[must_use]
pub fn groups(inventory: &Inventory, catalog: &Catalog) -> Vec<Group> {
    let copies: u64 = inventory.tensors.values().map(|t| copies_of(t)).sum();
    let few = copies <= COPIES_FEW;
    let mut groups = Vec::new();
    for (turn, tensor) in inventory.tensors.values().enumerate() {
        for spreads in alike(&tensor.spreads) {
            let parts = spreads[0].grid.parts();
            let cells: u64 = parts.iter().product();
            let taken = if few { cells } else { cells.min(CELLS_MAX) };
            for step in 0..taken {
                let visit = turn as u64 * CELLS_MAX + step;
                let number = if few { step } else { visit % cells };
                let cell = cell(number, parts);
                let holders = spreads.iter().flat_map(|spread| spread.holders(&cell));
                let copies = choose(holders, few, visit / cells, |rank| {
                    catalog.find(rank, &tensor.name)
                });
                if copies.len() > 1 {
                    groups.push(Group {
                        number: groups.len() as u64,
                        tensor: turn,
                        copies,
                    });
                }
            }
        }
    }
    groups
}

/// Copies beyond the first, as the layouts have them.
fn copies_of(tensor: &SourceTensor) -> u64 {
    let shards: u64 = tensor
        .spreads
        .iter()
        .map(|spread| u64::from(spread.layout.ranks()))
        .sum();
    let cells = tensor
        .spreads
        .iter()
        .map(|s| s.grid.parts().iter().product::<u64>());
    shards.saturating_sub(cells.max().unwrap_or(0))
}

/// The stages of a tensor, those together that cut it in the same parts.
fn alike(spreads: &[Spread]) -> Vec<Vec<&Spread>> {
    let mut alike: Vec<Vec<&Spread>> = Vec::new();
    for spread in spreads {
        match alike
            .iter_mut()
            .find(|a| a[0].grid.parts() == spread.grid.parts())
        {
            Some(group) => group.push(spread),
            None => alike.push(vec![spread]),
        }
    }
    alike
}

/// Cell `number` of a grid of these parts, in row-major order.
fn cell(number: u64, parts: &[u64]) -> Vec<u64> {
    let mut rest = number;
    let mut cell: Vec<u64> = parts
        .iter()
        .rev()
        .map(|parts| {
            let index = rest % (*parts).max(1);
            rest /= (*parts).max(1);
            index
        })
        .collect();
    cell.reverse();
    cell
}

/// Of those that have it, the first and another, by `turn`; or all.
fn choose(
    holders: impl Iterator<Item = u32>,
    all: bool,
    turn: u64,
    find: impl Fn(u32) -> Option<Place>,
) -> Vec<Place> {
    if all {
        return holders.filter_map(find).collect();
    }
    let holders: Vec<u32> = holders.collect();
    let Some(first) = holders.iter().position(|rank| find(*rank).is_some()) else {
        return Vec::new();
    };
    let rest = &holders[first + 1..];
    let far = (rest.len() as u64 / 2 + turn).checked_rem(rest.len() as u64);
    let far = far.and_then(|far| usize::try_from(far).ok()).unwrap_or(0);
    let other = rest[far..]
        .iter()
        .chain(&rest[..far])
        .find_map(|rank| find(*rank));
    find(holders[first]).into_iter().chain(other).collect()
}

/// The bytes of a shard of `bytes` bytes that are compared: the same of every copy.
#[must_use]
pub fn ranges(salt: u64, bytes: u64) -> Vec<Range<u64>> {
    if bytes <= BYTES_WHOLE {
        return std::iter::once(0..bytes).collect();
    }
    let stretch = bytes / PLACES;
    let place = |number: u64| {
        // Knuth's multiplicative hash: places of different tensors have nothing in common.
        let mixed = (salt + number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        let begin = number * stretch + mixed % (stretch - PLACE_BYTES + 1).max(1);
        begin..begin + PLACE_BYTES
    };
    (0..PLACES).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_inside_and_differ_by_tensor() {
        for bytes in [0, 1, 4096, 4097, 5000, 1 << 20, 3 << 40] {
            for salt in 0..50 {
                let ranges = ranges(salt, bytes);
                let read: u64 = ranges.iter().map(|range| range.end - range.start).sum();
                assert_eq!(read, bytes.min(BYTES_WHOLE));
                assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
                assert!(ranges.last().unwrap().end <= bytes);
            }
        }
        assert_ne!(ranges(1, 1 << 30), ranges(2, 1 << 30));
    }

    // proves P25
    #[test]
    fn every_holder_is_compared_with_the_first_in_turn() {
        let find = |rank: u32| {
            (rank != 3).then_some(Place {
                rank,
                file: 0,
                entry: 0,
            })
        };
        let pairs = (0..7).map(|turn| choose(0..8, false, turn, find));
        let mut others: Vec<u32> = pairs.map(|pair| pair[1].rank).collect();
        others.sort_unstable();
        others.dedup();
        assert_eq!(others, [1, 2, 4, 5, 6, 7]);
        assert_eq!(choose(0..8, true, 0, find).len(), 7);
        assert_eq!(choose(3..4, false, 0, find), []);
        assert_eq!(cell(5, &[2, 3]), [1, 2]);
    }
}
