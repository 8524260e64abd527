//! Elements as numbers, for comparing.

use crate::tensor::dtype::Dtype;
use serde::{Deserialize, Serialize};

/// How far two tensors' elements are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Elements whose bytes differ.
    pub elements: u64,
    /// Largest absolute difference; infinite where one side is no number.
    pub max_abs: f64,
    /// Largest difference relative to the first side's element.
    pub max_rel: f64,
}

impl Difference {
    /// Takes in another part of the same tensor.
    pub fn add(&mut self, other: &Difference) {
        self.elements += other.elements;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.max_rel = self.max_rel.max(other.max_rel);
    }
}

/// Compares two equally long buffers of whole elements. Types without numbers here (8 bits and below,
/// complex) are counted only.
#[must_use]
pub fn compare(dtype: Dtype, a: &[u8], b: &[u8]) -> Difference {
    let width = (dtype.bits() as usize / 8).max(1);
    let mut difference = Difference::default();
    for (x, y) in a.chunks(width).zip(b.chunks(width)) {
        if x == y {
            continue;
        }
        difference.elements += 1;
        let (Some(x), Some(y)) = (number(dtype, x), number(dtype, y)) else {
            continue;
        };
        let apart = (x - y).abs();
        let apart = if apart.is_nan() { f64::INFINITY } else { apart };
        difference.max_abs = difference.max_abs.max(apart);
        let relative = if apart == 0.0 { 0.0 } else { apart / x.abs() };
        difference.max_rel = difference.max_rel.max(relative);
    }
    difference
}

#[allow(clippy::cast_precision_loss)]
/// An element as a number, where its type has them here.
#[must_use]
pub fn number(dtype: Dtype, bytes: &[u8]) -> Option<f64> {
    Some(match dtype {
        Dtype::F16 => half::f16::from_le_bytes(bytes.try_into().ok()?).to_f64(),
        Dtype::BF16 => half::bf16::from_le_bytes(bytes.try_into().ok()?).to_f64(),
        Dtype::F32 => f32::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::F64 => f64::from_le_bytes(bytes.try_into().ok()?),
        Dtype::I8 => i8::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::U8 | Dtype::Bool => u8::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::I16 => i16::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::U16 => u16::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::I32 => i32::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::U32 => u32::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::I64 => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
        Dtype::U64 => u64::from_le_bytes(bytes.try_into().ok()?) as f64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_the_largest_difference() {
        let bytes = |values: &[f32]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let d = compare(
            Dtype::F32,
            &bytes(&[1.0, 2.0, 4.0]),
            &bytes(&[1.0, 2.5, 3.0]),
        );
        assert_eq!(
            d,
            Difference {
                elements: 2,
                max_abs: 1.0,
                max_rel: 0.25
            }
        );
        let nan = compare(Dtype::F32, &bytes(&[f32::NAN]), &bytes(&[1.0]));
        assert_eq!((nan.elements, nan.max_abs), (1, f64::INFINITY));
    }
}
