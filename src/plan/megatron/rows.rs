//! How the rows of gates and ups lie in one tensor, and experts in one.

use crate::fault::{Fault, Kind, Result};
use crate::tensor::shape::Shape;
use crate::view::{AxisMap, Piece};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How gates and ups lie in one tensor of MindSpore's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// A row of each in turns.
    Interleaved,
    /// In each of so many shards all gates, then all ups.
    Contiguous(u64),
}

impl Rows {
    /// As files record it under keys that begin with `own`; none: as MindSpore's networks usually have it.
    #[must_use]
    pub fn recorded(metadata: &BTreeMap<String, String>, own: &str) -> Rows {
        let told = |key: &str| metadata.get(&format!("{own}{key}")).map(String::as_str);
        match told("ffn") {
            Some("contiguous") => {
                let tp = told("tp").and_then(|text| text.parse::<u64>().ok());
                Rows::Contiguous(tp.unwrap_or(1).max(1))
            }
            _ => Rows::Interleaved,
        }
    }

    /// The pieces that put a tensor of `shape`, which lies so, with all its gates before all its ups.
    ///
    /// # Errors
    /// [`Kind::Shape`] if its rows don't come to that.
    pub(super) fn gates_first(self, source: &Arc<str>, shape: &Shape) -> Result<Vec<Piece>> {
        let (rows, rest) = shape.0.split_first().unwrap_or((&0, &[]));
        let shards = match self {
            Rows::Interleaved => 1,
            Rows::Contiguous(tp) => tp,
        };
        if !rows.is_multiple_of(2 * shards) {
            let message = format!("its {rows} rows are no gates and ups of {shards} shards");
            return Err(Fault::new(Kind::Shape, message).tensor(&**source));
        }
        let half = rows / 2;
        let each = half / shards;
        let piece = |count: u64, (from, step): (u64, u64), to: u64| {
            let mut domain = vec![count];
            domain.extend_from_slice(rest);
            let map = |offset, step| {
                let affine = |(axis, _)| AxisMap::Affine {
                    offset: if axis == 0 { offset } else { 0 },
                    step: if axis == 0 { step } else { 1 },
                    axis,
                };
                domain.iter().enumerate().map(affine).collect::<Vec<_>>()
            };
            Piece {
                source: source.clone(),
                source_map: map(from, step),
                destination_map: map(to, 1),
                domain: domain.clone(),
            }
        };
        let mut pieces = Vec::new();
        for shard in 0..shards {
            for (number, part) in [(0, 0), (1, half)] {
                let from = match self {
                    Rows::Interleaved => (number, 2),
                    Rows::Contiguous(_) => ((2 * shard + number) * each, 1),
                };
                pieces.push(piece(each, from, part + shard * each));
            }
        }
        Ok(pieces)
    }
}

/// How the experts of a layer lie in one tensor, each transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Experts {
    /// How many.
    pub(super) count: u64,
    /// Rows and columns of an expert's own matrix.
    pub(super) own: [u64; 2],
    /// Whether they have a dimension of their own, and don't just lie below each other.
    pub(super) stand: bool,
}

impl Experts {
    /// `count` experts in a tensor of `shape`; none if they don't fit.
    pub(super) fn of(count: u64, shape: &Shape) -> Option<Experts> {
        let (own, stand) = match shape.0[..] {
            [all, columns] if count > 0 && all.is_multiple_of(count) => {
                ([columns, all / count], false)
            }
            [experts, rows, columns] if experts == count => ([columns, rows], true),
            _ => return None,
        };
        Some(Experts { count, own, stand })
    }

    /// The shape of all in one.
    pub(super) fn shape(&self) -> Shape {
        let [rows, columns] = self.own;
        match self.stand {
            true => Shape(vec![self.count, columns, rows]),
            false => Shape(vec![self.count * columns, rows]),
        }
    }

    /// The piece that makes an expert's own matrix of the tensor `source` that has all.
    pub(super) fn piece(&self, source: &Arc<str>, expert: u64) -> Piece {
        let along = |offset, axis| AxisMap::Affine {
            offset,
            step: 1,
            axis,
        };
        let source_map = match self.stand {
            true => vec![AxisMap::Constant(expert), along(0, 1), along(0, 0)],
            false => vec![along(expert * self.own[1], 1), along(0, 0)],
        };
        Piece {
            source: source.clone(),
            domain: self.own.to_vec(),
            source_map,
            destination_map: vec![along(0, 0), along(0, 1)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The row of the source that each row is made of.
    fn order(rows: Rows, count: u64) -> Vec<u64> {
        let pieces = rows
            .gates_first(&"w".into(), &Shape(vec![count, 3]))
            .unwrap();
        let mut order = vec![u64::MAX; usize::try_from(count).unwrap()];
        for piece in pieces {
            let at = |map: &AxisMap, i: u64| match *map {
                AxisMap::Affine { offset, step, .. } => offset + step * i,
                AxisMap::Constant(index) => index,
            };
            for i in 0..piece.domain[0] {
                let to = usize::try_from(at(&piece.destination_map[0], i)).unwrap();
                order[to] = at(&piece.source_map[0], i);
            }
        }
        order
    }

    #[test]
    fn all_gates_come_before_all_ups() {
        assert_eq!(order(Rows::Interleaved, 6), [0, 2, 4, 1, 3, 5]);
        assert_eq!(order(Rows::Contiguous(1), 6), [0, 1, 2, 3, 4, 5]);
        assert_eq!(order(Rows::Contiguous(2), 8), [0, 1, 4, 5, 2, 3, 6, 7]);
        let odd = Rows::Contiguous(2).gates_first(&"w".into(), &Shape(vec![6]));
        assert_eq!(odd.map_err(|fault| fault.kind), Err(Kind::Shape));
    }
}
