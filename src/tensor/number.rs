//! Elements as numbers, for comparing.

use crate::tensor::cast::{e4m3, e5m2};
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

/// A count that is stored as a number of any type.
#[must_use]
pub fn whole(value: f64) -> Option<u64> {
    // Steps beyond 2^53 would not be exact: no job gets there.
    let limit = 9_007_199_254_740_992.0;
    if !(0.0..=limit).contains(&value) || value.fract() != 0.0 {
        return None;
    }
    format!("{value:.0}").parse().ok()
}

/// Compares two equally long buffers of whole elements. Types of less than 8 bits are counted only, by bytes.
#[must_use]
pub fn compare(dtype: Dtype, a: &[u8], b: &[u8]) -> Difference {
    let width = (dtype.bits() as usize / 8).max(1);
    let mut difference = Difference::default();
    for (x, y) in a.chunks(width).zip(b.chunks(width)) {
        if x == y {
            continue;
        }
        difference.elements += 1;
        let Some((apart, size)) = apart(dtype, x, y) else {
            continue;
        };
        let relative = if apart == 0.0 { 0.0 } else { apart / size };
        let or_infinite = |value: f64| if value.is_nan() { f64::INFINITY } else { value };
        difference.max_abs = difference.max_abs.max(or_infinite(apart));
        difference.max_rel = difference.max_rel.max(or_infinite(relative));
    }
    difference
}

/// How far two elements are apart, and the size of the first.
#[allow(clippy::cast_precision_loss)]
fn apart(dtype: Dtype, x: &[u8], y: &[u8]) -> Option<(f64, f64)> {
    if dtype == Dtype::C64 {
        let part = |bytes: &[u8], at: usize| number(Dtype::F32, bytes.get(at..at + 4)?);
        let (real, imaginary) = (part(x, 0)?, part(x, 4)?);
        let apart = (real - part(y, 0)?).hypot(imaginary - part(y, 4)?);
        return Some((apart, real.hypot(imaginary)));
    }
    if matches!(dtype, Dtype::I64 | Dtype::U64) {
        let (x, y) = (integer(dtype, x)?, integer(dtype, y)?);
        return Some(((x - y).unsigned_abs() as f64, x.unsigned_abs() as f64));
    }
    let (x, y) = (number(dtype, x)?, number(dtype, y)?);
    Some(((x - y).abs(), x.abs()))
}

/// An integer of 64 bits, of which a float holds 53.
fn integer(dtype: Dtype, bytes: &[u8]) -> Option<i128> {
    let bytes = bytes.try_into().ok()?;
    Some(match dtype {
        Dtype::U64 => u64::from_le_bytes(bytes).into(),
        _ => i64::from_le_bytes(bytes).into(),
    })
}

/// An element of `exponent` and `mantissa` bits whose only special values are zero and, in the place of a
/// negative zero, no number.
fn without_infinity(bits: u8, mantissa: u32, bias: i32) -> f64 {
    let (digits, rest) = (
        f64::from(bits & ((1 << mantissa) - 1)),
        (bits & 0x7f) >> mantissa,
    );
    let part = digits / f64::from(1_u32 << mantissa);
    let size = match (bits, rest) {
        (0x80, _) => f64::NAN,
        (_, 0) => part * 2f64.powi(1 - bias),
        _ => (1.0 + part) * 2f64.powi(i32::from(rest) - bias),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

#[allow(clippy::cast_precision_loss)]
/// An element as a number, where its type has them here.
#[must_use]
pub fn number(dtype: Dtype, bytes: &[u8]) -> Option<f64> {
    Some(match dtype {
        Dtype::F8_E4M3 => e4m3(*bytes.first()?).into(),
        Dtype::F8_E5M2 => e5m2(*bytes.first()?).into(),
        Dtype::F8_E4M3FNUZ => without_infinity(*bytes.first()?, 3, 8),
        Dtype::F8_E5M2FNUZ => without_infinity(*bytes.first()?, 2, 16),
        Dtype::F8_E8M0 => match *bytes.first()? {
            0xff => f64::NAN,
            exponent => 2f64.powi(i32::from(exponent) - 127),
        },
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
        assert_eq!(nan.max_rel, f64::INFINITY);
    }

    #[test]
    fn measures_every_type_of_whole_bytes() {
        let distance = |dtype, a: &[u8], b: &[u8]| compare(dtype, a, b).max_abs;
        // 1 and 2, by hand.
        assert_eq!(distance(Dtype::F8_E4M3, &[0x38], &[0x40]), 1.0);
        assert_eq!(distance(Dtype::F8_E5M2, &[0x3c], &[0x40]), 1.0);
        assert_eq!(distance(Dtype::F8_E4M3FNUZ, &[0x40], &[0x48]), 1.0);
        assert_eq!(distance(Dtype::F8_E5M2FNUZ, &[0x40], &[0x44]), 1.0);
        assert_eq!(distance(Dtype::F8_E8M0, &[127], &[128]), 1.0);
        assert_eq!(
            distance(Dtype::F8_E4M3FNUZ, &[0x80], &[0x40]),
            f64::INFINITY
        );
        // Neighbours that are one float.
        let (large, next) = (1i64 << 53, (1i64 << 53) + 1);
        for dtype in [Dtype::I64, Dtype::U64] {
            assert_eq!(
                distance(dtype, &large.to_le_bytes(), &next.to_le_bytes()),
                1.0
            );
        }
        // The largest of each.
        assert_eq!(number(Dtype::F8_E4M3FNUZ, &[0x7f]), Some(240.0));
        assert_eq!(number(Dtype::F8_E5M2FNUZ, &[0xff]), Some(-57344.0));
        let complex = |re: f32, im: f32| [re.to_le_bytes(), im.to_le_bytes()].concat();
        let apart = compare(Dtype::C64, &complex(3.0, 4.0), &complex(0.0, 8.0));
        assert_eq!((apart.max_abs, apart.max_rel), (5.0, 1.0));
    }
}
