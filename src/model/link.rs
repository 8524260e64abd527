//! Tensors of both sides that are made of each other.

use super::family::Make;
use super::fuse::Joint;
use crate::fault::{Fault, Kind, Result};
use crate::tensor::shape::Shape;
use crate::view::{AxisMap, Cut, Piece};
use std::sync::Arc;

/// A tensor of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: Arc<str>,
    /// Its full shape.
    pub shape: Shape,
    /// How dimension 0 may be cut.
    pub cut: Cut,
    /// Other names that are accepted when read.
    pub also: Vec<Arc<str>>,
    /// It has a row for each word of the vocabulary.
    pub vocabulary: bool,
    /// The tensor of all experts that it may lie in.
    pub within: Option<AllExperts>,
}

/// Where an expert's matrix lies in a tensor of all experts, `[experts, height, columns]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllExperts {
    /// That tensor's name.
    pub name: Arc<str>,
    /// The expert.
    pub expert: u64,
    /// The first of its rows.
    pub row: u64,
    /// The rows that an expert has in it.
    pub height: u64,
}

impl Tensor {
    /// The size of dimension 0.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for a tensor without dimensions.
    pub(super) fn rows(&self) -> Result<u64> {
        let rows = self.shape.0.first().copied();
        rows.ok_or_else(|| {
            Fault::new(Kind::Corrupt, "the table gives no shape").tensor(&*self.name)
        })
    }

    /// The same; if it is to stand, with a dimension for the experts that lie below each other in it.
    pub(super) fn standing(&self, stands: bool, experts: u64) -> Tensor {
        let shape = match self.shape.0[..] {
            [rows, columns] if stands => Shape(vec![experts, rows / experts.max(1), columns]),
            _ => self.shape.clone(),
        };
        Tensor {
            shape,
            ..self.clone()
        }
    }
}

/// Lets the only one of the tensors have these other names.
pub(super) fn accept(tensors: &mut [Tensor], names: &[String], spell: impl Fn(&str) -> String) {
    if let [tensor] = tensors {
        tensor.also = names.iter().map(|name| spell(name).into()).collect();
    }
}

/// A piece between two tensors of a link, to be read in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    /// Which of the Hugging Face tensors.
    pub hf: usize,
    /// Which of the MindSpore tensors.
    pub ms: usize,
    pub(super) domain: Vec<u64>,
    pub(super) hf_map: Vec<AxisMap>,
    pub(super) ms_map: Vec<AxisMap>,
    /// A repetition: not needed to make the Hugging Face tensor.
    pub again: bool,
}

impl Bond {
    /// A joint of Hugging Face parts in the MindSpore tensor number `ms`.
    pub(super) fn joining(joint: Joint, ms: usize) -> Bond {
        Bond {
            hf: joint.part,
            ms,
            domain: joint.domain,
            hf_map: joint.part_map,
            ms_map: joint.joined_map,
            again: joint.again,
        }
    }

    /// The same where the Hugging Face tensor lies from row `row` on in the only one there is.
    pub(super) fn below(mut self, row: u64, ms: usize) -> Bond {
        self.hf = 0;
        self.ms += ms;
        if let Some(AxisMap::Affine { offset, .. }) = self.hf_map.first_mut() {
            *offset += row;
        }
        self
    }

    /// The piece that makes a part of the MindSpore tensor of the Hugging Face tensor `source`.
    #[must_use]
    pub fn import(&self, source: &Arc<str>) -> Piece {
        Piece {
            source: source.clone(),
            domain: self.domain.clone(),
            source_map: self.hf_map.clone(),
            destination_map: self.ms_map.clone(),
        }
    }

    /// The piece that makes a part of the Hugging Face tensor of the MindSpore tensor `source`.
    #[must_use]
    pub fn export(&self, source: &Arc<str>) -> Piece {
        self.import(source).invert(source.clone())
    }
}

/// Tensors that are made of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// How, if it is more than a name.
    pub make: Option<Make>,
    /// The Hugging Face side.
    pub hf: Vec<Tensor>,
    /// How many parts of these it is about: more than tensors where one has several below each other.
    pub parts: usize,
    /// The MindSpore side.
    pub ms: Vec<Tensor>,
    /// The pieces.
    pub bonds: Vec<Bond>,
    /// Whether `--dtype` leaves them alone.
    pub keeps_dtype: bool,
}
