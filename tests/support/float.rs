//! Matrices of numbers, and the types they are stored in, element by element.

use crate::support::tensors::Tensor;

/// A matrix of `f32`, rows first.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) shape: [usize; 2],
    elements: Vec<f32>,
}

impl Matrix {
    pub(crate) fn new(shape: [usize; 2], elements: Vec<f32>) -> Matrix {
        assert_eq!(elements.len(), shape[0] * shape[1]);
        Matrix { shape, elements }
    }

    /// The matrix of these elements by row and column.
    pub(crate) fn by(shape: [usize; 2], element: impl Fn(usize, usize) -> f32) -> Matrix {
        let places = (0..shape[0]).flat_map(|i| (0..shape[1]).map(move |j| (i, j)));
        Matrix::new(shape, places.map(|(i, j)| element(i, j)).collect())
    }

    /// The numbers of a stored tensor; one of a single dimension is one row.
    pub(crate) fn of(tensor: &Tensor) -> Matrix {
        let shape = match tensor.shape[..] {
            [rows, columns] => [rows, columns],
            [columns] => [1, columns],
            _ => panic!("{tensor:?} is no matrix"),
        };
        let elements = tensor.data.chunks(tensor.element_bytes());
        let elements = elements.map(|bytes| match (tensor.dtype.as_str(), bytes) {
            ("F32", [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
            ("BF16", [a, b]) => f32::from_le_bytes([0, 0, *a, *b]),
            ("F16", [a, b]) => half::f16::from_le_bytes([*a, *b]).to_f32(),
            ("F8_E4M3", [bits]) => eight(*bits),
            _ => panic!("{tensor:?} is no float"),
        });
        Matrix::new(shape, elements.collect())
    }

    pub(crate) fn at(&self, i: usize, j: usize) -> f32 {
        self.elements[i * self.shape[1] + j]
    }

    /// Stored as `dtype`.
    pub(crate) fn to(&self, dtype: &str) -> Tensor {
        let bytes = |value: &f32| match dtype {
            "F32" => value.to_le_bytes().to_vec(),
            "BF16" => brain(*value).to_le_bytes().to_vec(),
            "F16" => half::f16::from_f32(*value).to_le_bytes().to_vec(),
            _ => panic!("{dtype} isn't stored here"),
        };
        Tensor {
            dtype: dtype.to_owned(),
            shape: if self.shape[0] == 1 {
                vec![self.shape[1]]
            } else {
                self.shape.to_vec()
            },
            data: self.elements.iter().flat_map(bytes).collect(),
        }
    }
}

/// The upper half of a number's bits, rounded to nearest, ties to even.
fn brain(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits + 0x7fff + (bits >> 16 & 1);
    u16::try_from(rounded >> 16).unwrap_or_else(|_| panic!("{value}"))
}

/// Sign, four bits of exponent, three of mantissa.
fn eight(bits: u8) -> f32 {
    let magnitude = match bits & 0x7f {
        0x7f => panic!("not a number"),
        small @ 0..8 => f32::from(small) * 2f32.powi(-9),
        large => f32::from(8 + large % 8) * 2f32.powi(i32::from(large / 8) - 10),
    };
    magnitude * if bits < 128 { 1.0 } else { -1.0 }
}

/// The nearest `f32`.
#[allow(
    clippy::cast_possible_truncation,
    reason = "rounding is what is wanted"
)]
pub(crate) fn nearest(value: f64) -> f32 {
    value as f32
}

/// So many bytes that follow from the seed, which moves on.
pub(crate) fn noise(seed: &mut u32, count: usize) -> impl Iterator<Item = u8> {
    std::iter::repeat_with(move || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 17;
        *seed ^= *seed << 5;
        seed.to_le_bytes()[1]
    })
    .take(count)
}
