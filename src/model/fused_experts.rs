//! Experts that lie in one tensor at Hugging Face, as transformers 5 keeps them: `[experts, rows, columns]`, in the
//! place of a tensor for each expert. A family's table names it, and what lies below each other in it.

use super::family::{Family, Rule};
use super::link::{AllExperts, Tensor};
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::Inventory;
use crate::plan::lora::Apart;
use crate::tensor::shape::Shape;
use crate::view::{AxisMap, Piece};

/// Says of the matrices of an expert that they may lie below each other in the tensor `name` of all experts.
pub(super) fn lie_within(matrices: &mut [Tensor], name: &str) {
    let rows = |tensor: &Tensor| tensor.shape.0.first().copied().unwrap_or_default();
    let height = matrices.iter().map(rows).fold(0, u64::saturating_add);
    let mut row = 0u64;
    for tensor in matrices {
        tensor.within = Some(AllExperts {
            name: name.into(),
            expert: 0,
            row,
            height,
        });
        row = row.saturating_add(rows(tensor));
    }
}

/// The parameters of all experts that models of any family may have, and how they lie expert by expert.
///
/// # Errors
/// Never: a test reads all tables.
pub fn experts_apart() -> Result<Vec<Apart>> {
    let families = Family::built_in()?;
    let rules = families.iter().flat_map(|family| &family.tensors);
    let apart = |rule: &Rule| {
        let names = rule.hf.list().iter();
        let names = names.map(|name| name.split(" [").next().unwrap_or(name).to_owned());
        Some(Apart {
            parameter: rule.hf_all.clone()?,
            matrices: names.collect(),
        })
    };
    let mut all: Vec<Apart> = Vec::new();
    for apart in rules.filter_map(apart) {
        if !all.contains(&apart) {
            all.push(apart);
        }
    }
    Ok(all)
}

impl AllExperts {
    /// The same of this expert.
    pub(super) fn of(self, expert: u64) -> AllExperts {
        AllExperts { expert, ..self }
    }

    /// Where an expert's matrix lies among those of all experts, if it has no tensor of its own.
    ///
    /// # Errors
    /// [`Kind::Shape`] if the tensor of all experts isn't as it should be for `experts`.
    pub(super) fn find(
        inventory: &Inventory,
        wanted: &Tensor,
        experts: u64,
    ) -> Result<Option<AllExperts>> {
        let (Some(all), [_, columns]) = (&wanted.within, &wanted.shape.0[..]) else {
            return Ok(None);
        };
        let Some(found) = inventory.tensors.get(&all.name) else {
            return Ok(None);
        };
        if inventory.tensors.contains_key(&wanted.name) {
            let message = format!(
                "the experts are there twice: in this tensor of all, and each in its own, as {}",
                wanted.name
            );
            let fault = Fault::new(Kind::Ambiguous, message).tensor(&*all.name);
            return Err(fault.hint(
                "are files of two saves together? --weights 'GLOB' says which ones are meant; `shardloom unify \
                 --filter-out-param-prefix P` leaves the others out",
            ));
        }
        let due = Shape(vec![experts, all.height, *columns]);
        if found.shape != due {
            let message = format!("is {}, config.json asks for {due}", found.shape);
            return Err(Fault::new(Kind::Shape, message).tensor(&*all.name).hint(
                "experts in one tensor are read as [experts, rows, columns], gate before up",
            ));
        }
        Ok(Some(all.clone()))
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
