//! Tensors of full weights that lie in parts: put together, and checked.

use crate::catalog::{Entry, Part, Place};
use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::plan::patch::Patch;
use crate::plan::source_tensor::SourceTensor;
use crate::plan::spread::Spread;
use crate::tensor::dtype::Dtype;
use crate::tensor::region::{Region, check_cover};
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tensors in parts, as they are found: by name, their type, shape and parts.
#[derive(Default)]
pub(super) struct Patches(BTreeMap<Arc<str>, (Dtype, Shape, Vec<Patch>)>);

impl Patches {
    /// Takes the part that `entry` is.
    ///
    /// # Errors
    /// [`Kind::Shape`] and [`Kind::Dtype`] if it is of another tensor than those before it.
    pub(super) fn take(&mut self, entry: &Entry, part: &Part, place: Place) -> Result<()> {
        let name = &part.of;
        let known = self.0.entry(name.clone());
        let (dtype, full, patches) =
            known.or_insert_with(|| (entry.dtype, part.full.clone(), Vec::new()));
        if *dtype != entry.dtype || full.0.len() != part.full.0.len() {
            let message = format!(
                "one part is of {dtype}{full}, another of {}{}",
                entry.dtype, part.full
            );
            return Err(Fault::new(Kind::Shape, message));
        }
        // Where no part tells the full shape, all of them do.
        for (size, other) in full.0.iter_mut().zip(&part.full.0) {
            *size = (*size).max(*other);
        }
        let fits = part.offset.len() == full.0.len() && entry.shape.0.len() == full.0.len();
        let inside = full.0.iter().zip(&part.offset).zip(&entry.shape.0);
        let mut inside = inside.map(|((full, offset), size)| {
            offset.checked_add(*size).is_some_and(|end| end <= *full)
        });
        if !fits || !inside.all(|inside| inside) {
            let message = format!(
                "a part of shape {} at {:?} reaches outside its {full}",
                entry.shape, part.offset
            );
            return Err(Fault::new(Kind::Corrupt, message));
        }
        if !entry.shape.0.contains(&0) {
            patches.push(Patch {
                region: Region {
                    offset: part.offset.clone(),
                    shape: entry.shape.clone(),
                },
                strides: part.strides.clone(),
                first: 0,
                place,
            });
        }
        Ok(())
    }

    /// The tensors, each checked.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for parts that overlap, [`Kind::MissingShard`] if some of a tensor is in none.
    pub(super) fn into_tensors(self) -> impl Iterator<Item = Result<SourceTensor>> {
        self.0.into_iter().map(|(name, (dtype, shape, patches))| {
            let regions: Vec<&Region> = patches.iter().map(|patch| &patch.region).collect();
            let made = check_cover(&shape, &regions)
                .and_then(|()| of_patches(&name, dtype, shape, patches, 0));
            made.map_err(|fault| fault.tensor(&*name))
        })
    }
}

/// A tensor of `rank` that lies in these parts, in whichever ranks' files, which cover it exactly once.
///
/// # Errors
/// [`Kind::Shape`] if it doesn't fill whole bytes.
pub fn of_patches(
    name: &Arc<str>,
    dtype: Dtype,
    shape: Shape,
    patches: Vec<Patch>,
    rank: u32,
) -> Result<SourceTensor> {
    let layout = Arc::new(Layout::whole(shape.0.len()));
    Ok(SourceTensor {
        name: name.clone(),
        dtype,
        spreads: vec![Spread::new(rank, layout, &shape, dtype)?],
        shape,
        patches: Some(Arc::new(patches)),
        value: None,
    })
}
