//! Differences of two checkpoints, by layer.

use crate::job::outcome::Outcome;
use std::collections::BTreeMap;

/// A layer's tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Layer {
    pub(super) tensors: u64,
    /// Those that aren't equal.
    pub(super) unequal: u64,
    /// Largest distance of two elements.
    pub(super) most: f64,
}

/// The layers by name, as they follow each other: what stands before the first number in a tensor's name, and that.
pub(super) fn layers(outcome: &Outcome) -> Vec<(String, Layer)> {
    let mut layers: BTreeMap<(String, u64), Layer> = BTreeMap::new();
    for row in &outcome.differences {
        let mut before = Vec::new();
        let mut number = None;
        for part in row.name.split('.') {
            number = part.parse::<u64>().ok();
            if number.is_some() {
                break;
            }
            before.push(part);
        }
        let Some(number) = number else { continue };
        let layer = layers.entry((before.join("."), number)).or_default();
        layer.tensors += 1;
        if row.state != "equal" {
            layer.unequal += 1;
            layer.most = layer.most.max(row.max_abs);
        }
    }
    let named = layers
        .into_iter()
        .map(|((name, number), layer)| (format!("{name}.{number}"), layer));
    named.collect()
}
