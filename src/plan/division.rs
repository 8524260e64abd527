//! How nodes that write to one place divide its files.

use crate::plan::reach::Reach;
use crate::tensor::digest::checksum;

/// Bytes of a block: many pages of any system, so that the parts of nodes meet at few places.
const BLOCK_BYTES: u64 = 1 << 20;

/// What falls to one of several nodes that write the same files: whole blocks of them (`nodes.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// A number of all that it follows from, and of the node: another division has another one.
    pub number: u64,
    /// Whether this process is the first of its node.
    pub first: bool,
    /// Bytes of a block: what two nodes write of a file meets at multiples of it.
    pub block_bytes: u64,
}

impl Default for Division {
    fn default() -> Self {
        Division {
            number: 0,
            first: false,
            block_bytes: BLOCK_BYTES,
        }
    }
}

impl Division {
    /// The division among the nodes of `reach`; none if there is only one.
    #[must_use]
    pub fn of(reach: &Reach) -> Option<Division> {
        if reach.nodes.len() < 2 {
            return None;
        }
        let node = reach.node() as usize;
        let mut number = u64::from(reach.node());
        let mut add = |numbers: &mut dyn Iterator<Item = u32>| {
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.extend(numbers.flat_map(u32::to_le_bytes));
            number = checksum(&bytes);
        };
        for members in &reach.nodes {
            add(&mut members.iter().copied());
        }
        // Where all see all, nobody asks who sees what.
        for seen in reach.seen.iter().filter(|_| !reach.all_see_all()) {
            add(&mut seen.iter().copied());
        }
        Some(Division {
            number,
            first: reach.nodes[node].first() == Some(&reach.process),
            ..Division::default()
        })
    }
}
