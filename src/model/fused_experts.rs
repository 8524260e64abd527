//! Experts that lie in one tensor at Hugging Face, as transformers 5 keeps them:
//! `…experts.gate_up_proj` `[experts, 2 * rows, columns]`, gate before up, and `…experts.down_proj`
//! `[experts, rows, columns]`, in the place of a tensor for each expert.

use super::link::Tensor;
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::tensor::shape::Shape;
use crate::view::{AxisMap, Piece};
use std::sync::Arc;

/// What an expert's matrix is called, the tensor that has it for all experts, how many lie below each
/// other in that, and which of them it is.
const PLACES: [(&str, &str, u64, u64); 3] = [
    ("gate_proj", "gate_up_proj", 2, 0),
    ("up_proj", "gate_up_proj", 2, 1),
    ("down_proj", "down_proj", 1, 0),
];

/// Where an expert's matrix lies in a tensor of all experts.
#[derive(Clone, Debug)]
pub(super) struct Fused {
    /// That tensor's name.
    pub(super) name: Arc<str>,
    expert: u64,
    row: u64,
}

impl Fused {
    /// Finds an expert's matrix among the tensors of all experts, if it has none of its own.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the tensor of all experts isn't as it should be for `experts`.
    pub(super) fn find(
        inventory: &Inventory,
        wanted: &Tensor,
        experts: u64,
    ) -> Result<Option<Fused>> {
        if inventory.tensors.contains_key(&wanted.name) {
            return Ok(None);
        }
        let Some((room, rest)) = wanted.name.split_once(".experts.") else {
            return Ok(None);
        };
        let mut words = rest.split('.');
        let expert = words.next().and_then(|word| word.parse::<u64>().ok());
        let matrix = words.next().unwrap_or_default();
        let place = PLACES.iter().find(|(name, ..)| *name == matrix);
        let (Some(expert), Some((_, fused, count, part)), [rows, columns]) =
            (expert, place, &wanted.shape.0[..])
        else {
            return Ok(None);
        };
        let name = format!("{room}.experts.{fused}");
        let Some((name, found)) = inventory.tensors.get_key_value(name.as_str()) else {
            return Ok(None);
        };
        let due = Shape(vec![experts, count * rows, *columns]);
        if found.shape != due {
            let message = format!("is {}, config.json asks for {due}", found.shape);
            return Err(Fault::new(Kind::Shape, message).tensor(&**name).hint(
                "experts in one tensor are read as [experts, rows, columns], gate before up",
            ));
        }
        Ok(Some(Fused {
            name: name.clone(),
            expert,
            row: part * rows,
        }))
    }

    /// A piece of the expert's own matrix, as one of the tensor of all experts.
    pub(super) fn piece(&self, piece: Piece) -> Piece {
        let mut source_map = vec![AxisMap::Constant(self.expert)];
        source_map.extend(piece.source_map.iter().enumerate().map(|(number, map)| {
            let shift = if number == 0 { self.row } else { 0 };
            match *map {
                AxisMap::Constant(index) => AxisMap::Constant(index + shift),
                AxisMap::Affine { offset, step, axis } => AxisMap::Affine {
                    offset: offset + shift,
                    step,
                    axis,
                },
            }
        }));
        Piece {
            source: self.name.clone(),
            source_map,
            ..piece
        }
    }
}
