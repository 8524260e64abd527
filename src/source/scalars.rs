//! Tensors of one element, as numbers: where a job stands.

use crate::catalog::{Entry, FileSchema};
use crate::fault::Result;
use crate::store::io::ReadFile;
use crate::tensor::number::number;

/// A tensor of one element as a number.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub fn scalar(file: &ReadFile, schema: &FileSchema, name: &str) -> Result<Option<f64>> {
    schema
        .get(name)
        .map_or(Ok(None), |entry| value(file, entry))
}

/// The tensor at `entry` as a number, if it is of one element.
///
/// # Errors
/// [`crate::fault::Kind::Io`].
pub(super) fn value(file: &ReadFile, entry: &Entry) -> Result<Option<f64>> {
    let bits = entry.dtype.bits();
    let width = entry.bytes();
    if width != u64::from(bits / 8) || width > 8 {
        return Ok(None);
    }
    let mut bytes = [0; 8];
    let bytes = &mut bytes[..(bits / 8) as usize];
    if let [segment] = &entry.segments[..] {
        file.read_at(bytes, segment.start)?;
        return Ok(number(entry.dtype, bytes));
    }
    Ok(None)
}
