//! What a file is to have in it: name, element type and shape of each tensor.

use crate::catalog::FileSchema;
use crate::fault::Result;
use crate::plan::tensor_plan::TensorPlan;
use crate::store::Format;
use crate::store::formats::Count;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name, element type and shape (in elements) of each tensor of a file.
pub(super) type Listing = Vec<(Arc<str>, Dtype, Shape)>;

/// Lays out a file for the tensors of `listing` and those of `counts` that it hasn't. The bytes of these
/// are part of the layout.
pub(super) fn with_counts(
    mut listing: Listing,
    counts: &[Count],
    format: Format,
    metadata: &BTreeMap<String, String>,
) -> Result<FileSchema> {
    let known = |listing: &Listing, count: &&Count| !listing.iter().any(|l| *l.0 == *count.name);
    let counts: Vec<&Count> = counts.iter().filter(|c| known(&listing, c)).collect();
    let added = counts
        .iter()
        .map(|c| (c.name.into(), c.dtype, c.shape.clone()));
    listing.extend(added);
    let schema = format.design(&listing, metadata)?;
    Ok(filled(schema, counts))
}

/// `schema` with the bytes of `counts`, of those that it has.
pub(super) fn filled<'a>(
    mut schema: FileSchema,
    counts: impl IntoIterator<Item = &'a Count>,
) -> FileSchema {
    for count in counts {
        let begin = schema.get(count.name).and_then(|e| e.segments.first());
        if let Some(begin) = begin.map(|segment| segment.start) {
            schema.literals.push((begin, count.bytes.clone()));
        }
    }
    schema
}

/// Name, dtype and cell shape (in elements) of a tensor to be written.
pub(super) fn listed(plan: &TensorPlan) -> Result<(Arc<str>, Dtype, Shape)> {
    Ok((
        plan.name.clone(),
        plan.written,
        element_shape(
            &plan.written_shape(plan.destination.grid.cell_shape()),
            plan.written,
        ),
    ))
}

/// A shape of a plan in elements: packed types are counted in bytes inside.
#[must_use]
pub fn element_shape(shape: &Shape, dtype: Dtype) -> Shape {
    let mut shape = shape.clone();
    if !dtype.bits().is_multiple_of(8)
        && let Some(last) = shape.0.last_mut()
    {
        *last = *last * 8 / u64::from(dtype.bits());
    }
    shape
}
