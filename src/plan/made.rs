//! A tensor to be written, and the source tensors that it is made of.

use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::plan::inventory::Inventory;
use crate::plan::names;
use crate::plan::select::{Leftovers, Select};
use crate::plan::source_tensor::SourceTensor;
use crate::plan::spread::Spread;
use crate::plan::state::is_accumulator;
use crate::plan::tensor_plan::TensorPlan;
use crate::tensor::cast::{is_cast_from, is_castable};
use crate::tensor::dtype::Dtype;
use crate::tensor::quantise::Form;
use crate::tensor::shape::Shape;
use crate::view::{Cut, MadeOf, Piece};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A tensor to be written, and the source tensors that it is made of.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its full shape, in elements.
    pub(super) shape: Shape,
    /// The element type of its sources.
    dtype: Dtype,
    /// The element type it is written in.
    written: Dtype,
    /// What of its elements is written.
    form: Form,
    /// How dimension 0 may be cut.
    cut: Cut,
    /// Together they cover it exactly once.
    pieces: Vec<(Piece, Arc<SourceTensor>)>,
    /// The first row of those, at its end, that are zeros.
    zeros_from: Option<u64>,
}

impl Made {
    /// How many dimensions it has.
    pub(super) fn dimensions(&self) -> usize {
        self.shape.0.len()
    }

    /// A tensor made of one other, called `name` in the source, unchanged.
    ///
    /// # Errors
    /// [`Kind::Shape`] if rows of a packed type don't fill whole bytes.
    pub fn of(name: &Arc<str>, tensor: &Arc<SourceTensor>) -> Result<Made> {
        let (bytes, _) = tensor.shape.in_bytes(tensor.dtype)?;
        Ok(Made {
            shape: tensor.shape.clone(),
            dtype: tensor.dtype,
            written: tensor.value_dtype(),
            form: Form::Elements,
            cut: Cut::Anywhere,
            pieces: vec![(Piece::identity(name.clone(), &bytes), tensor.clone())],
            zeros_from: None,
        })
    }

    /// Finds the sources of a view's tensor.
    ///
    /// # Errors
    /// [`Kind::UnknownTensor`] if there is no such source, [`Kind::Dtype`] if their types differ or
    /// can't be cast, [`Kind::Shape`] if a piece reaches outside its source.
    fn from_view(made: &MadeOf, inventory: &Inventory) -> Result<Made> {
        let mut pieces: Vec<(Piece, Arc<SourceTensor>)> = Vec::with_capacity(made.pieces.len());
        for piece in &made.pieces {
            let Some(tensor) = inventory.tensors.get(&piece.source) else {
                let message = format!("is made of '{}', which the source hasn't", piece.source);
                return Err(Fault::new(Kind::UnknownTensor, message));
            };
            if let Some((_, first)) = pieces.first()
                && (first.dtype, first.value_dtype()) != (tensor.dtype, tensor.value_dtype())
            {
                let message = format!(
                    "is made of '{}' in {} and '{}' in {}",
                    first.name, first.dtype, tensor.name, tensor.dtype
                );
                return Err(Fault::new(Kind::Dtype, message).hint(
                    "tensors of several types can't be one: --qkv, --ffn, --experts and --mla separate keep apart what is \
                     joined here; `shardloom to hf --dtype TYPE` writes a model in one type first",
                ));
            }
            let whole = tensor.dtype.bits().is_multiple_of(8);
            if !whole || !reaches_inside(piece, &tensor.shape) {
                let message = format!(
                    "a part of '{}' is outside its {}",
                    tensor.name, tensor.shape
                );
                return Err(Fault::new(Kind::Shape, message));
            }
            pieces.push((piece.clone(), tensor.clone()));
        }
        let Some((_, first)) = pieces.first() else {
            return Err(Fault::new(Kind::Internal, "is made of nothing"));
        };
        let value = first.value_dtype();
        let (dtype, asked) = (first.dtype, made.dtype.unwrap_or(value));
        let written = made.form.dtype().unwrap_or(asked);
        let (form, dimensions) = (made.form, made.shape.0.len());
        if form != Form::Elements && !(is_castable(value) && dimensions == 2) {
            let message = format!("{value}{} can't be written in 8 bits", made.shape);
            return Err(Fault::new(Kind::Dtype, message));
        }
        if form == Form::Elements
            && written != value
            && !(is_cast_from(value) && is_castable(written))
        {
            let message = format!("{value} can't be cast to {written}");
            return Err(Fault::new(Kind::Dtype, message));
        }
        Ok(Made {
            shape: made.shape.clone(),
            dtype,
            written,
            form,
            cut: made.cut,
            pieces,
            zeros_from: made.zeros_from,
        })
    }

    /// Checks that a layout keeps together what must stay together.
    ///
    /// # Errors
    /// [`Kind::Shape`].
    pub(super) fn check_cut(&self, layout: &Layout) -> Result<()> {
        if self.form != Form::Elements && layout.is_cut() {
            let message = "in 8 bits it can only be written as a whole";
            return Err(Fault::new(Kind::Unsupported, message));
        }
        let (Some(rows), Some(parts)) = (self.shape.0.first(), layout.parts().first().copied())
        else {
            return Ok(());
        };
        let parts = (parts / layout.optimizer_pieces().max(1)).max(1);
        let (fits, group) = match self.cut {
            Cut::Anywhere => return Ok(()),
            Cut::Groups(group) => ((rows / parts).is_multiple_of(group.max(1)), group),
            Cut::Exactly(group) => (rows / parts == group, group),
        };
        if parts == 1 || fits {
            return Ok(());
        }
        let message = format!(
            "the strategy cuts its {rows} rows in {parts}; it is fused in groups of {group} rows"
        );
        Err(Fault::new(Kind::Shape, message).hint(
            "a rank must have whole groups: --tp must be what the strategy cuts in, and key-value \
             heads too few for that need --qkv contiguous or separate",
        ))
    }

    /// The names of its sources.
    pub(super) fn sources(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.pieces.iter().map(|(piece, _)| piece.source.clone())
    }
}

fn reaches_inside(piece: &Piece, shape: &Shape) -> bool {
    if piece.source_map.len() != shape.0.len() {
        return false;
    }
    if piece.domain.contains(&0) {
        return true;
    }
    let image = Piece::image(&piece.ranges(), &piece.source_map);
    let dims = image.offset.iter().zip(&image.shape.0).zip(&shape.0);
    dims.into_iter()
        .all(|((offset, extent), dim)| offset + extent <= *dim)
}

/// The tensors to write by name: those of the view, or each of the source as itself.
pub(super) fn made(
    inventory: &Inventory,
    select: &Select,
    leftovers: Leftovers,
) -> Result<BTreeMap<Arc<str>, Made>> {
    let mut all = BTreeMap::new();
    if let Some(view) = &select.view {
        for (name, parts) in view {
            let made = Made::from_view(parts, inventory).map_err(|fault| fault.tensor(&**name))?;
            all.insert(name.clone(), made);
        }
        return Ok(all);
    }
    let of = |name: &Arc<str>, tensor: &Arc<SourceTensor>| {
        Made::of(name, tensor).map_err(|fault| fault.tensor(&**name))
    };
    let kept = inventory.tensors.iter();
    for (name, tensor) in kept.filter(|(name, _)| select.keeps(name)) {
        // MindSpore's unify leaves these out of the merge (docs/formats.md).
        if matches!(leftovers, Leftovers::Unify(_)) && is_accumulator(name) {
            continue;
        }
        let written = select.written_name(name);
        if let Some(other) = all.insert(written.clone(), of(name, tensor)?) {
            return Err(names::collision(&written, other.sources(), name));
        }
    }
    for (written, read) in &select.read {
        // A name of the source may be given to another tensor if its own gets another one.
        let own = inventory.tensors.get_key_value(written.as_str());
        if let Some((own, _)) = own.filter(|_| written != read && !names::is_read(select, written))
        {
            return Err(names::collision(written, [own.clone()].into_iter(), read));
        }
        if let Some((name, tensor)) = inventory.tensors.get_key_value(read.as_str()) {
            all.insert(written.as_str().into(), of(name, tensor)?);
        }
    }
    Ok(all)
}

/// A tensor made of others, by `layout` on the ranks from `first_rank` on.
///
/// # Errors
/// [`Kind::Shape`] if the layout doesn't fit.
pub fn plan_tensor(
    name: &Arc<str>,
    made: &Made,
    first_rank: u32,
    layout: Arc<Layout>,
) -> Result<TensorPlan> {
    let (_, element_bytes) = made
        .shape
        .in_bytes(made.dtype)
        .map_err(|fault| fault.tensor(&**name))?;
    let destination = Spread::new(first_rank, layout, &made.shape, made.dtype)
        .map_err(|fault| fault.tensor(&**name))?;
    Ok(TensorPlan {
        name: name.clone(),
        dtype: made.dtype,
        written: made.written,
        form: made.form,
        element_bytes,
        destination,
        pieces: made.pieces.clone(),
        zeros_from: made.zeros_from,
    })
}
