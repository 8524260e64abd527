//! Parts of a source tensor that are no cells of a layout: rectangles of any size, each in a file, with
//! any strides.

use crate::catalog::{Catalog, Place};
use crate::tensor::region::Region;
use crate::tensor::strided::StridedCopy;
use crate::view::{Lying, Piece, Ranges};

/// A rectangle of a tensor, and where it lies.
#[derive(Clone, Debug)]
pub struct Patch {
    /// The rectangle, in elements.
    pub region: Region,
    /// Bytes between neighbours along each dimension.
    pub strides: Vec<u64>,
    /// Where its first element is in the entry's bytes.
    pub first: u64,
    /// The entry.
    pub place: Place,
}

/// Gives `add` the copies that bring `ranges` of a piece from the parts of its source.
pub(super) fn meet(
    element_bytes: u64,
    piece: &Piece,
    patches: &[Patch],
    ranges: &Ranges,
    region: &Region,
    mut add: impl FnMut(StridedCopy, Place),
) {
    for patch in patches {
        let Some(ranges) = Piece::cut(ranges, &piece.source_map, &patch.region) else {
            continue;
        };
        let from = Lying {
            offset: &patch.region.offset,
            strides: &patch.strides,
        };
        let mut copy = piece.lower_from(&ranges, &from, region, element_bytes);
        copy.source += patch.first;
        add(copy, patch.place);
    }
}

/// The strides of an entry that doesn't lie row after row, though it is all that its rank has.
pub(super) fn strides(source: &Catalog, place: Place) -> Option<&[u64]> {
    let held = &source.file(place).schema.held;
    held.parts.get(&place.entry).map(|part| &*part.strides)
}
