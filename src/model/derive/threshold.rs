//! The size from which on tensors have an optimizer shard, from what is seen of their parts.

use super::derived::{Derived, part};
use std::collections::BTreeSet;

/// Bytes of a KB, as the trainer counts them.
const KILOBYTE: u64 = 1024;

/// The smallest threshold, in KB, with which the tensors that `held` tells are cut as they are: `all` is the
/// layout with threshold 0, `held` gives a stage's tensor's shape, `element_bytes` is that of a weight. None:
/// there is no such threshold, or nothing is cut.
pub(super) fn threshold_kb<'a>(
    all: &Derived,
    names: &BTreeSet<&str>,
    held: impl Fn(u32, &str) -> Option<&'a Vec<u64>>,
    element_bytes: u64,
) -> Option<u64> {
    let (mut cut, mut whole) = (None::<u64>, None::<u64>);
    for (stage, entries) in (0u32..).zip(&all.stages) {
        let shards = entries.iter().filter(|entry| names.contains(&*entry.name));
        for entry in shards {
            let pieces = entry.layout.optimizer_pieces();
            let Some(shape) = held(stage, &entry.name).filter(|_| pieces > 1) else {
                continue;
            };
            let elements = entry.shape.iter().fold(1, |n: u64, d| n.saturating_mul(*d));
            let bytes = elements.saturating_mul(element_bytes);
            let mut given = part(&entry.shape, &entry.layout);
            if *shape == given {
                cut = Some(cut.map_or(bytes, |least| least.min(bytes)));
                continue;
            }
            if let Some(rows) = given.first_mut() {
                *rows = rows.saturating_mul(pieces);
            }
            if *shape != given {
                return None;
            }
            whole = Some(whole.map_or(bytes, |most| most.max(bytes)));
        }
    }
    let least = whole.map_or(0, |bytes| bytes / KILOBYTE + 1);
    (least.saturating_mul(KILOBYTE) <= cut?).then_some(least)
}
