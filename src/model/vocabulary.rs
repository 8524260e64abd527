//! Tensors with a row for each word of the vocabulary, of which trainings have more than a model: rows
//! are cut, or zeros put after them.

use super::link::Tensor;
use crate::fault::plain::counted;
use crate::plan::inventory::Inventory;
use crate::view::MadeOf;

/// The rows that are asked for, and what comes of it.
#[derive(Debug)]
pub(super) struct Vocabulary {
    rows: Option<u64>,
    cut: Vec<String>,
    filled: Vec<String>,
}

impl Vocabulary {
    /// So many rows; none: as many as config.json says, which the files must have.
    pub(super) fn new(rows: Option<u64>) -> Vocabulary {
        Vocabulary {
            rows,
            cut: Vec::new(),
            filled: Vec::new(),
        }
    }

    /// Whether the tensor called `name` may have any number of rows, and is like `wanted` else.
    pub(super) fn takes(&self, inventory: &Inventory, wanted: &Tensor, name: &str) -> bool {
        let found = inventory.tensors.get(name);
        let like = found.is_some_and(|found| {
            let (found, wanted) = (&found.shape.0, &wanted.shape.0);
            found.len() == wanted.len()
                && found.get(1..) == wanted.get(1..)
                && found.first() != Some(&0)
        });
        self.rows.is_some() && wanted.vocabulary && like
    }

    /// Gives a tensor that is made of one other the rows that are asked for.
    pub(super) fn fit(&mut self, made: &mut MadeOf, inventory: &Inventory, name: &str) {
        let [piece] = &mut made.pieces[..] else {
            return;
        };
        let found = inventory.tensors.get(&piece.source);
        let there = found.and_then(|found| found.shape.0.first().copied());
        let (Some(rows), Some(there), Some(due), Some(domain)) = (
            self.rows,
            there,
            made.shape.0.first_mut(),
            piece.domain.first_mut(),
        ) else {
            return;
        };
        *due = rows;
        *domain = rows.min(there);
        let told = || format!("{name} from {there} to {}", counted(rows, "row"));
        if there > rows {
            self.cut.push(told());
        } else if there < rows {
            made.zeros_from = Some(there);
            self.filled.push(told());
        }
    }

    /// What is to be said of it.
    pub(super) fn notes(self) -> Vec<String> {
        let told = |list: &[String], how: &str| {
            (!list.is_empty()).then(|| format!("{how}: {}", list.join(", ")))
        };
        let notes = [
            told(&self.cut, "cut"),
            told(&self.filled, "filled with zeros"),
        ];
        notes.into_iter().flatten().collect()
    }
}
