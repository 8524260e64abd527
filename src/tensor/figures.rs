//! What the elements of a tensor come to: how many are no numbers, how large they are.

use crate::tensor::dtype::Dtype;
use crate::tensor::number::number;
use serde::Serialize;

/// Figures of elements; those of parts of a tensor are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Elements looked at.
    pub elements: u64,
    /// Those that are no number.
    pub nan: u64,
    /// Those that are infinite.
    pub infinite: u64,
    /// Those that are zero.
    pub zeros: u64,
    /// The largest magnitude of the finite ones.
    pub largest: f64,
    /// The sum of the squares of the finite ones.
    #[serde(skip)]
    squares: f64,
    /// The square root of that sum.
    pub norm: f64,
}

impl Figures {
    /// Takes in whole elements; false if their type has no numbers here (8 bits and below, complex).
    pub fn take(&mut self, dtype: Dtype, bytes: &[u8]) -> bool {
        let width = (dtype.bits() as usize / 8).max(1);
        for element in bytes.chunks_exact(width) {
            let Some(value) = number(dtype, element) else {
                return false;
            };
            self.elements += 1;
            if value.is_nan() {
                self.nan += 1;
            } else if value.is_infinite() {
                self.infinite += 1;
            } else if value == 0.0 {
                self.zeros += 1;
            } else {
                self.largest = self.largest.max(value.abs());
                self.squares += value * value;
            }
        }
        self.norm = self.squares.sqrt();
        true
    }

    /// Adds those of another part.
    pub fn join(&mut self, other: &Figures) {
        self.elements += other.elements;
        self.nan += other.nan;
        self.infinite += other.infinite;
        self.zeros += other.zeros;
        self.largest = self.largest.max(other.largest);
        self.squares += other.squares;
        self.norm = self.squares.sqrt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_no_number() {
        let values = [3.0f32, -4.0, 0.0, f32::NAN, f32::INFINITY];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut figures = Figures::default();
        assert!(figures.take(Dtype::F32, &bytes[..8]));
        assert!(figures.take(Dtype::F32, &bytes[8..]));
        let Figures {
            elements,
            nan,
            infinite,
            zeros,
            largest,
            norm,
            ..
        } = figures;
        assert_eq!((elements, nan, infinite, zeros), (5, 1, 1, 1));
        assert!((largest - 4.0).abs() < 1e-9 && (norm - 5.0).abs() < 1e-9);
    }
}
