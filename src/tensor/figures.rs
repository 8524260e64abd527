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
    /// The sums of the squares of the finite ones: of tiny, usual and huge ones, each times its `SCALES`.
    #[serde(skip)]
    squares: [f64; 3],
    /// The square root of the sum of all squares.
    pub norm: f64,
}

/// What magnitudes of each size are multiplied by before they are squared, so that no square is lost or
/// infinite (J. L. Blue, "A portable Fortran program to find the Euclidean norm of a vector", 1978).
const SCALES: [f64; 3] = [TWO_600, 1.0, 1.0 / TWO_600];

const TWO_600: f64 = f64::from_bits((1023 + 600) << 52);
const TWO_500: f64 = f64::from_bits((1023 + 500) << 52);

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
                let magnitude = value.abs();
                self.largest = self.largest.max(magnitude);
                let size =
                    usize::from(magnitude >= 1.0 / TWO_500) + usize::from(magnitude > TWO_500);
                self.squares[size] += (magnitude * SCALES[size]).powi(2);
            }
        }
        self.norm = self.root();
        true
    }

    /// Adds those of another part.
    pub fn join(&mut self, other: &Figures) {
        self.elements += other.elements;
        self.nan += other.nan;
        self.infinite += other.infinite;
        self.zeros += other.zeros;
        self.largest = self.largest.max(other.largest);
        for (sum, more) in self.squares.iter_mut().zip(other.squares) {
            *sum += more;
        }
        self.norm = self.root();
    }

    /// The square root of the sum of all squares.
    fn root(&self) -> f64 {
        match self.squares {
            [_, usual, huge] if huge > 0.0 => (huge + usual / TWO_600 / TWO_600).sqrt() * TWO_600,
            [_, usual, _] if usual > 0.0 => usual.sqrt(),
            [tiny, ..] => tiny.sqrt() / TWO_600,
        }
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

    #[test]
    fn norms_of_any_size_are_finite() {
        for scale in [1e-300, 1.0, 1e300] {
            let mut figures = Figures::default();
            for value in [3.0f64, -4.0] {
                let mut part = Figures::default();
                assert!(part.take(Dtype::F64, &(value * scale).to_le_bytes()));
                figures.join(&part);
            }
            assert!((figures.norm / scale - 5.0).abs() < 1e-9, "{figures:?}");
        }
    }
}
