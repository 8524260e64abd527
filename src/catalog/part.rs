//! Entries that aren't a whole tensor, row after row: parts of one, and what lies with other strides.

use crate::tensor::shape::Shape;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where an entry belongs, and how its bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The tensor that it is a part of.
    pub of: Arc<str>,
    /// The full shape of that, in elements.
    pub full: Shape,
    /// Where the part begins in it, in elements.
    pub offset: Vec<u64>,
    /// Bytes between neighbours along each dimension, in the entry's bytes.
    pub strides: Vec<u64>,
}

impl Part {
    /// All of a tensor of shape `full`, with these strides in bytes.
    #[must_use]
    pub fn whole(of: Arc<str>, full: Shape, strides: Vec<u64>) -> Part {
        Part {
            of,
            offset: vec![0; full.0.len()],
            full,
            strides,
        }
    }
}

/// What a file holds beside plain tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The entries that are parts, by their position.
    pub parts: BTreeMap<u32, Part>,
    /// What is no tensor, as text, by name.
    pub values: BTreeMap<String, String>,
    /// What all files that tell it must tell alike, by what it is: a count, or the bytes of which they have a copy each.
    pub agreed: BTreeMap<String, String>,
}

impl Held {
    /// The part that the entry at `position` is, if it is one.
    #[must_use]
    pub fn part(&self, position: usize) -> Option<&Part> {
        self.parts.get(&u32::try_from(position).ok()?)
    }

    /// All parts, with their positions.
    pub fn positions(&self) -> impl Iterator<Item = (usize, &Part)> {
        let parts = self.parts.iter();
        parts.filter_map(|(position, part)| Some((usize::try_from(*position).ok()?, part)))
    }

    /// Whether the entry at `position` is a part of `tensor`.
    #[must_use]
    pub fn is_of(&self, position: usize, tensor: &str) -> bool {
        self.part(position).is_some_and(|part| &*part.of == tensor)
    }
}
