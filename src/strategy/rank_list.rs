//! Which source ranks a destination rank needs.

use super::layouts::Strategy;
use super::stage_layout::StageLayout;
use crate::layout::Layout;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// The global source ranks whose files are needed to build destination `rank`.
///
/// `None` means full weights, held by rank 0. Only tensors of both strategies count. Of the holders
/// of a source cell one is taken: the same replica, counted from 0, as the source rank of the same
/// local number is (so that rank itself, if it holds the cell). This may be fewer ranks than
/// MindSpore 2.10's `rank_list_for_transform` lists: it adds all members of the groups that it
/// would gather over.
///
/// Example: a weight in 4 parts of columns (ranks 0 to 3) that becomes 2 parts: rank 1 needs 2, 3.
#[must_use]
pub fn needed_ranks(
    rank: u32,
    source: Option<&Strategy>,
    destination: Option<&Strategy>,
) -> BTreeSet<u32> {
    let Some(source) = source else {
        return BTreeSet::from([0]);
    };
    let ranks = destination.map_or(1, Strategy::ranks_per_stage);
    let (stage, local) = (rank / ranks, rank % ranks);
    let mut needed = BTreeSet::new();
    let mut done: HashSet<(u32, *const Layout, *const Layout)> = HashSet::new();
    for name in source.names() {
        let Some(held) = source.layouts(name).first() else {
            continue;
        };
        let (wanted, key) = match destination {
            None => {
                let whole = Layout::whole(held.layout.dimensions());
                (Arc::new(whole), std::ptr::null())
            }
            Some(destination) => match destination.layout_in(name, stage) {
                Some(wanted) => (Arc::clone(&wanted.layout), Arc::as_ptr(&wanted.layout)),
                None => continue,
            },
        };
        if !done.insert((held.stage, Arc::as_ptr(&held.layout), key)) {
            continue;
        }
        let first = held.stage * source.ranks_per_stage();
        let own = local % source.ranks_per_stage();
        let replica = held
            .layout
            .holders(&held.layout.cell(own))
            .position(|holder| holder == own)
            .unwrap_or(0);
        for cell in cells_that_meet(held, &wanted, local) {
            let holder = held.layout.holders(&cell).nth(replica);
            needed.extend(holder.map(|holder| first + holder));
        }
    }
    needed
}

/// The source cells that meet the destination cell of `local`, by the fractions of even cuts. All
/// of them if the numbers of dimensions differ (JSON's flattened maps, whose shape isn't known).
fn cells_that_meet(source: &StageLayout, destination: &Layout, local: u32) -> Vec<Vec<u64>> {
    let parts = source.layout.parts();
    let ranges: Vec<_> = if parts.len() == destination.dimensions() {
        let cell = destination.cell(local);
        let cuts = destination.parts();
        (0..parts.len())
            .map(|d| {
                let first = cell[d] * parts[d] / cuts[d];
                first..((cell[d] + 1) * parts[d]).div_ceil(cuts[d])
            })
            .collect()
    } else {
        parts.iter().map(|parts| 0..*parts).collect()
    };
    let mut cells = vec![Vec::new()];
    for range in ranges {
        cells = cells
            .into_iter()
            .flat_map(|cell: Vec<u64>| {
                range.clone().map(move |number| {
                    let mut longer = cell.clone();
                    longer.push(number);
                    longer
                })
            })
            .collect();
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strategy(mesh: &[u64], map: &[i64]) -> Strategy {
        let map: Vec<Vec<i64>> = map.iter().map(|axis| vec![*axis]).collect();
        let layout = Layout::new(mesh, &map, None).unwrap();
        let ranks = layout.ranks();
        Strategy::from_layouts(1, ranks, [("w".into(), StageLayout::new(0, layout))]).unwrap()
    }

    fn needed(rank: u32, source: &Strategy, destination: Option<&Strategy>) -> Vec<u32> {
        needed_ranks(rank, Some(source), destination)
            .into_iter()
            .collect()
    }

    #[test]
    fn uneven_counts_meet_by_fractions() {
        let (four, two, six) = (
            strategy(&[4], &[-1, 0]),
            strategy(&[2], &[-1, 0]),
            strategy(&[6], &[-1, 0]),
        );
        assert_eq!(needed(1, &four, Some(&two)), [2, 3]);
        assert_eq!(needed(1, &four, Some(&six)), [0, 1]);
        assert_eq!(needed(0, &six, None), [0, 1, 2, 3, 4, 5]);
        assert_eq!(needed_ranks(3, None, Some(&six)), BTreeSet::from([0]));
    }

    #[test]
    fn own_replica_comes_first() {
        let source = strategy(&[2, 2], &[0]);
        assert_eq!(needed(3, &source, Some(&source)), [3]);
        assert_eq!(needed(0, &source, None), [0, 1]);
    }
}
