//! A shard row after row, as its tensor says, however it lies in its file.

use crate::catalog::{Catalog, Place};
use crate::fault::Result;
use crate::tensor::strided::StridedCopy;
use crate::transport::Filler;

/// Lays the shard at `place` out row after row.
pub(super) fn in_rows(catalog: &Catalog, place: Place) -> StridedCopy {
    let entry = catalog.entry(place);
    let held = &catalog.file(place).schema.held;
    match held.part(place.entry as usize) {
        Some(part) => {
            let width = u64::from(entry.dtype.bits() / 8);
            StridedCopy::in_rows(0, &entry.shape.0, &part.strides, width)
        }
        None => StridedCopy::new(0, 0, entry.bytes(), Vec::new()),
    }
}

/// Fills `bytes` with those from `begin` on of what `copy` lays out of the shard at `place`. Local.
///
/// # Errors
/// [`crate::fault::Kind::Io`] naming file and tensor.
pub(super) fn read(
    filler: &mut Filler<'_>,
    copy: &StridedCopy,
    place: Place,
    begin: u64,
    bytes: &mut [u8],
) -> Result<()> {
    let mut parts = Vec::new();
    copy.clip(begin, begin + bytes.len() as u64, &mut parts);
    for mut part in parts {
        part.destination -= begin;
        match part.loops.is_empty() {
            true => filler.fill_by_runs(&part, place, bytes)?,
            false => filler.fill(&part, place, bytes, 1)?,
        }
    }
    Ok(())
}
