//! The nodes to plan for, where that isn't all of them.

use crate::strategy::Strategy;

/// Most processes whose plans are all made; of more, a sample is.
const EXACT_PROCESSES_MAX: u32 = 4096;

/// Nodes of a sample.
const SAMPLE_NODES: usize = 64;

/// The nodes to plan for: all, or some of them at equal distances, each for itself.
pub(super) fn sample(nodes: &[Vec<u32>], processes: u32) -> Vec<(Vec<u32>, u64)> {
    let step = if processes <= EXACT_PROCESSES_MAX {
        1
    } else {
        nodes.len().div_ceil(SAMPLE_NODES)
    };
    let chosen = nodes.iter().step_by(step).cloned();
    chosen.map(|members| (members, 1)).collect()
}

/// About `most` nodes to plan for, and how many each stands for: the first, which may be the only one that has
/// the source, for itself, and of those of each stage of `destination` some at equal distances.
pub(super) fn standing_for(
    nodes: &[Vec<u32>],
    destination: Option<&Strategy>,
    most: usize,
) -> Vec<(Vec<u32>, u64)> {
    let stages = destination.map_or(1, |strategy| strategy.stages() as usize);
    let mut chosen = Vec::new();
    let (first, others) = nodes.split_at(1.min(nodes.len()));
    chosen.extend(first.iter().map(|members| (members.clone(), 1)));
    // The nodes of a stage follow each other.
    for stage in 0..stages {
        let bound = |stage: usize| (stage * nodes.len() / stages).max(1) - 1;
        let own = others.get(bound(stage)..bound(stage + 1));
        let own = own.unwrap_or_default();
        let count = (most / stages).max(1).min(own.len());
        for number in 0..count {
            let part = number * own.len() / count..(number + 1) * own.len() / count;
            let middle = (part.start + part.end) / 2;
            let members = own.get(middle).cloned().unwrap_or_default();
            chosen.push((members, part.len() as u64));
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_thousands_some_nodes_are_planned_for() {
        let nodes: Vec<Vec<u32>> = (0..1025).map(|node| vec![node * 8, node * 8 + 1]).collect();
        assert_eq!(sample(&nodes, EXACT_PROCESSES_MAX).len(), 1025);
        let chosen = sample(&nodes, EXACT_PROCESSES_MAX + 1);
        let first: Vec<u32> = chosen.iter().map(|(members, _)| members[0]).collect();
        assert!(first.len() <= SAMPLE_NODES && first[..2] == [0, 17 * 8]);
    }

    #[test]
    fn nodes_stand_for_all() {
        for (count, most) in [(1, 16), (5, 16), (16, 16), (128, 16), (129, 7), (40, 1)] {
            let nodes: Vec<Vec<u32>> = (0..count).map(|node| vec![node]).collect();
            let chosen = standing_for(&nodes, None, most);
            let all: u64 = chosen.iter().map(|(_, weight)| weight).sum();
            assert_eq!(all, u64::from(count));
            assert!(chosen.len() <= most + 1 && chosen[0] == (vec![0], 1));
        }
    }
}
