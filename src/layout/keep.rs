//! Which replica stays when redundancy is removed.

use super::Layout;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Which rank of a stage keeps which tensor when redundancy is removed.
///
/// The rule of MindSpore 2.10's `remove_param_redundancy`: the tensors of one redundancy group,
/// names ascending, are dealt round-robin to the group's ranks, ascending. So tensors `a`, `b`, `c`
/// that ranks 0 and 2 hold stay on 0, 2 and 0. Groups are those of [`Layout::holders`], right also
/// where MindSpore's own are not (docs/wrong-results.md).
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// Number of the layout and position among all names, by name.
    tensors: BTreeMap<Arc<str>, (usize, usize)>,
    layouts: Vec<Distinct>,
}

#[derive(Clone, Debug)]
struct Distinct {
    layout: Arc<Layout>,
    /// Positions of the names with this layout, ascending.
    positions: Vec<usize>,
}

impl Keep {
    /// Takes all tensors of one stage, in any order, each name once.
    pub fn new<N: Into<Arc<str>>>(tensors: impl IntoIterator<Item = (N, Arc<Layout>)>) -> Self {
        let sorted: BTreeMap<Arc<str>, Arc<Layout>> = tensors
            .into_iter()
            .map(|(name, layout)| (name.into(), layout))
            .collect();
        let mut keep = Keep::default();
        let mut known: HashMap<Arc<Layout>, usize> = HashMap::new();
        for (position, (name, layout)) in sorted.into_iter().enumerate() {
            let number = *known.entry(Arc::clone(&layout)).or_insert_with(|| {
                keep.layouts.push(Distinct {
                    layout,
                    positions: Vec::new(),
                });
                keep.layouts.len() - 1
            });
            keep.layouts[number].positions.push(position);
            keep.tensors.insert(name, (number, position));
        }
        keep
    }

    /// The local rank that keeps the cell of `name` that `local_rank` holds; `local_rank` itself
    /// for a name that has no layout, as every rank keeps that.
    #[must_use]
    pub fn keeper(&self, name: &str, local_rank: u32) -> u32 {
        let Some((number, position)) = self.tensors.get(name) else {
            return local_rank;
        };
        let group = self.layouts[*number].group(local_rank);
        let earlier: usize = self
            .layouts
            .iter()
            .filter(|other| other.has_group(local_rank, &group))
            .map(|other| other.positions.partition_point(|p| p < position))
            .sum();
        group[earlier % group.len()]
    }

    /// Whether `local_rank` keeps its shard of `name`.
    #[must_use]
    pub fn keeps(&self, name: &str, local_rank: u32) -> bool {
        self.keeper(name, local_rank) == local_rank
    }

    /// The names that `local_rank` keeps, ascending: [`Keep::keeps`] for all names in one pass.
    #[must_use]
    pub fn kept_by(&self, local_rank: u32) -> Vec<Arc<str>> {
        let mut dealt: HashMap<Vec<u32>, usize> = HashMap::new();
        let mut counters = Vec::new();
        let numbers: Vec<(usize, usize)> = self
            .layouts
            .iter()
            .map(|distinct| {
                let group = distinct.group(local_rank);
                let own = group.iter().position(|rank| *rank == local_rank);
                let next = dealt.len();
                let place = own.unwrap_or(usize::MAX);
                let size = group.len();
                let counter = *dealt.entry(group).or_insert(next);
                if counter == counters.len() {
                    counters.push((0, size));
                }
                (counter, place)
            })
            .collect();
        let mut kept = Vec::new();
        for (name, (number, _)) in &self.tensors {
            let (counter, place) = numbers[*number];
            let (count, size) = &mut counters[counter];
            if *count % *size == place {
                kept.push(Arc::clone(name));
            }
            *count += 1;
        }
        kept
    }
}

impl Distinct {
    fn group(&self, rank: u32) -> Vec<u32> {
        self.layout.holders(&self.layout.cell(rank)).collect()
    }

    fn has_group(&self, rank: u32, group: &[u32]) -> bool {
        let layout = &self.layout;
        layout.replicas() == group.len() as u64
            && layout.holders(&layout.cell(rank)).eq(group.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(mesh: &[u64], map: &[i64]) -> Arc<Layout> {
        let map: Vec<Vec<i64>> = map.iter().map(|axis| vec![*axis]).collect();
        Arc::new(Layout::new(mesh, &map, None).unwrap())
    }

    #[test]
    fn deals_the_names_of_a_group_round_robin() {
        let columns = layout(&[2, 2], &[-1, 0]);
        let keep = Keep::new(["c", "a", "b"].map(|name| (name, Arc::clone(&columns))));
        assert_eq!(["a", "b", "c"].map(|n| keep.keeper(n, 2)), [0, 2, 0]);
        assert_eq!(["a", "b", "c"].map(|n| keep.keeper(n, 1)), [1, 3, 1]);
        assert!(keep.keeps("unknown", 3));
    }

    #[test]
    fn groups_of_different_layouts_may_coincide() {
        let keep = Keep::new([
            ("a", layout(&[2, 2], &[-1, 0])),
            ("b", layout(&[2, 2], &[0])),
            ("c", layout(&[4], &[-1])),
            ("d", layout(&[2, 2], &[0, -1])),
        ]);
        assert_eq!(
            ["a", "b", "c", "d"].map(|n| keep.keeper(n, 0)),
            [0, 2, 0, 0]
        );
    }

    #[test]
    fn one_pass_agrees_with_single_questions() {
        let layouts = [
            layout(&[2, 2, 2], &[0, -1]),
            layout(&[2, 2, 2], &[-1, 0]),
            layout(&[2, 4], &[0]),
            layout(&[8], &[-1]),
        ];
        let names: Vec<String> = (0..40).map(|i| format!("w{i}")).collect();
        let tensors = names.iter().enumerate();
        let keep = Keep::new(tensors.map(|(i, name)| (&**name, Arc::clone(&layouts[i * 7 % 4]))));
        for rank in 0..8 {
            let kept = keep.kept_by(rank);
            let mut singly: Vec<&String> = names.iter().filter(|n| keep.keeps(n, rank)).collect();
            singly.sort();
            assert!(
                kept.iter()
                    .map(|name| &**name)
                    .eq(singly.iter().map(|n| &***n))
            );
        }
    }
}
