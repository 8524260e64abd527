//! Conversion kernels between float types.
//!
//! Widening is exact. Narrowing rounds to nearest, ties to even; what is too large becomes infinite,
//! and a NaN stays a NaN. All pairs go through `f32`, which holds every `f16` and `bf16` exactly, so
//! there is one rounding; of an `f64` there are two, as in torch.

use crate::tensor::dtype::Dtype;
use bytemuck::allocation::{pod_collect_to_vec, zeroed_vec};
use bytemuck::cast_slice;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Whether elements of this type can be cast, and be cast to.
#[must_use]
pub fn is_castable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32)
}

/// Whether elements of this type can be cast to those that can: doubles can, too.
#[must_use]
pub fn is_cast_from(dtype: Dtype) -> bool {
    is_castable(dtype) || dtype == Dtype::F64
}

/// Numbers lie in files as in the memory of the machines that this is for.
const _: () = assert!(cfg!(target_endian = "little"));

/// Elements that are cast at once: they stay in the first cache.
const AT_ONCE: usize = 1024;

/// Casts the whole elements in `source` and puts the result into `out`, replacing what it held.
///
/// Returns false, with `out` empty, for types that can't be cast.
#[must_use]
pub fn cast(from: Dtype, to: Dtype, source: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    if !is_cast_from(from) || !is_castable(to) {
        return false;
    }
    let [own, other] = [from, to].map(|dtype| dtype.bits() as usize / 8);
    out.reserve(source.len() / own * other);
    let mut values = Vec::with_capacity(AT_ONCE);
    let mut parts = source.chunks(AT_ONCE * own);
    parts.all(|part| widen(from, part, &mut values) && append(&values, to, out))
}

/// The whole elements in `bytes` as `f32`, all exact but those of an `f64`, in place of what `out` held.
///
/// Returns false, with `out` empty, for types that aren't taken.
#[must_use]
pub fn widen(dtype: Dtype, bytes: &[u8], out: &mut Vec<f32>) -> bool {
    out.clear();
    match dtype {
        Dtype::F32 => out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
        Dtype::F64 => out.extend(
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| single(f64::from_le_bytes(*b))),
        ),
        // The upper half of an f32, a NaN's bits too, as torch has it.
        Dtype::BF16 => {
            let wide = |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            out.extend(bytes.as_chunks().0.iter().map(wide));
        }
        Dtype::F16 => {
            let whole = bytes.len() / size_of::<f16>() * size_of::<f16>();
            let halves: Vec<f16> = pod_collect_to_vec(&bytes[..whole]);
            *out = vec![0.0; halves.len()];
            halves.convert_to_f32_slice(out);
        }
        Dtype::F8_E4M3 | Dtype::F8_E5M2 => {
            let table: [f32; 256] = std::array::from_fn(|bits| {
                let bits = u8::try_from(bits).unwrap_or_default();
                match dtype {
                    Dtype::F8_E4M3 => e4m3(bits),
                    _ => e5m2(bits),
                }
            });
            out.extend(bytes.iter().map(|bits| table[usize::from(*bits)]));
        }
        _ => return false,
    }
    true
}

/// The nearest `f32`, which is infinite for what is too large.
#[allow(clippy::cast_possible_truncation)]
fn single(value: f64) -> f32 {
    value as f32
}

/// `values` as elements of `dtype`, rounded to nearest, ties to even, in place of what `out` held.
///
/// Returns false, with `out` empty, for types other than `F32`, `BF16` and `F16`.
#[must_use]
pub fn narrow(values: &[f32], dtype: Dtype, out: &mut Vec<u8>) -> bool {
    out.clear();
    append(values, dtype, out)
}

fn append(values: &[f32], dtype: Dtype, out: &mut Vec<u8>) -> bool {
    match dtype {
        Dtype::F32 => out.extend_from_slice(cast_slice(values)),
        Dtype::BF16 => {
            let mut halves: Vec<bf16> = zeroed_vec(values.len());
            halves.convert_from_f32_slice(values);
            out.extend_from_slice(cast_slice(&halves));
        }
        Dtype::F16 => {
            let mut halves: Vec<f16> = zeroed_vec(values.len());
            halves.convert_from_f32_slice(values);
            out.extend_from_slice(cast_slice(&halves));
        }
        _ => return false,
    }
    true
}

/// The numbers that an 8-bit float of 4 exponent bits, 3 mantissa bits and no infinity stands for
/// (OCP 8-bit floating point, E4M3): all are exact in `f32`.
pub(super) fn e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 0xf), f32::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

/// Those of 5 exponent bits and 2 mantissa bits: each is the upper half of an `f16` of the same number.
pub(super) fn e5m2(bits: u8) -> f32 {
    f16::from_bits(u16::from(bits) << 8).to_f32()
}

/// How many elements of `bytes` are infinite: of a float type, 0 of any other.
#[must_use]
pub fn infinities(dtype: Dtype, bytes: &[u8]) -> u64 {
    let of_halves = |infinite: u16| {
        let halves = bytes.as_chunks().0.iter();
        halves.fold(0u64, |count, half| {
            count + u64::from(u16::from_le_bytes(*half) & 0x7fff == infinite)
        })
    };
    match dtype {
        Dtype::F16 => of_halves(0x7c00),
        Dtype::BF16 => of_halves(0x7f80),
        Dtype::F32 => bytes.as_chunks().0.iter().fold(0, |count, element| {
            count + u64::from(f32::from_le_bytes(*element).is_infinite())
        }),
        Dtype::F64 => bytes.as_chunks().0.iter().fold(0, |count, element| {
            count + u64::from(f64::from_le_bytes(*element).is_infinite())
        }),
        _ => 0,
    }
}

/// Whether numbers of the first type can be too large for the second.
#[must_use]
pub fn can_overflow(from: Dtype, to: Dtype) -> bool {
    from != to && (from == Dtype::F64 || matches!(to, Dtype::F16 | Dtype::BF16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast_one(from: Dtype, to: Dtype, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![9; 7];
        assert!(cast(from, to, bytes, &mut out));
        out
    }

    #[test]
    fn rounds_ties_to_even() {
        // 1 + 2^-8 is half way between two bf16 numbers, 1 (even) and 1 + 2^-7.
        for (bits, expected) in [
            (0x3f80_8000u32, 0x3f80u16),
            (0x3f81_8000, 0x3f82),
            (0x3f80_8001, 0x3f81),
            (0x7f7f_ffff, 0x7f80),
        ] {
            let out = cast_one(Dtype::F32, Dtype::BF16, &bits.to_le_bytes());
            assert_eq!(out, expected.to_le_bytes(), "{bits:x}");
        }
        // 2049 is half way between the f16 numbers 2048 (even) and 2050.
        for (value, expected) in [
            (2049f32, 2048f32),
            (2051.0, 2052.0),
            (65520.0, f32::INFINITY),
        ] {
            let out = cast_one(Dtype::F32, Dtype::F16, &value.to_le_bytes());
            assert_eq!(out, f16::from_f32(expected).to_le_bytes(), "{value}");
        }
    }

    #[test]
    fn every_half_survives_a_way_through_f32() {
        for bits in 0..=u16::MAX {
            for dtype in [Dtype::F16, Dtype::BF16] {
                let nan = if dtype == Dtype::F16 {
                    f16::from_bits(bits).is_nan()
                } else {
                    bf16::from_bits(bits).is_nan()
                };
                let wide = cast_one(dtype, Dtype::F32, &bits.to_le_bytes());
                let back = cast_one(Dtype::F32, dtype, &wide);
                assert!(nan || back == bits.to_le_bytes(), "{dtype} {bits:x}");
            }
        }
    }

    #[test]
    fn doubles_are_rounded_to_single_ones_first() {
        for (value, expected) in [
            (1.0 + 2f64.powi(-24), 1f32),
            (1.0 + 2f64.powi(-24) + 2f64.powi(-40), 1.0 + f32::EPSILON),
            (1e300, f32::INFINITY),
            (-0.0, -0.0),
        ] {
            let out = cast_one(Dtype::F64, Dtype::F32, &value.to_le_bytes());
            assert_eq!(out, expected.to_le_bytes(), "{value}");
        }
        assert_eq!(infinities(Dtype::F64, &f64::INFINITY.to_le_bytes()), 1);
        assert!(!cast(Dtype::F32, Dtype::F64, &[0; 4], &mut Vec::new()));
    }

    #[test]
    fn infinities_are_counted() {
        let values = [
            1.0,
            f32::INFINITY,
            -f32::INFINITY,
            f32::NAN,
            65536.0,
            -70000.0,
        ];
        let source: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(infinities(Dtype::F32, &source), 2);
        for (dtype, expected) in [(Dtype::F16, 4), (Dtype::BF16, 2)] {
            assert!(can_overflow(Dtype::F32, dtype));
            let out = cast_one(Dtype::F32, dtype, &source);
            assert_eq!(infinities(dtype, &out), expected, "{dtype}");
        }
        assert_eq!(infinities(Dtype::I32, &source), 0);
        assert!(!can_overflow(Dtype::F16, Dtype::F32));
    }

    #[test]
    fn reads_every_8_bit_float() {
        let all: Vec<u8> = (0..=255).collect();
        let mut wide = Vec::new();
        assert!(widen(Dtype::F8_E4M3, &all, &mut wide));
        // By hand: the least, the largest below one, one, the largest, and no infinity.
        for (bits, value) in [
            (0x00, 0.0),
            (0x01, 0.001_953_125),
            (0x07, 0.013_671_875),
            (0x08, 0.015_625),
            (0x37, 0.9375),
            (0x38, 1.0),
            (0x3c, 1.5),
            (0x7e, 448.0),
            (0xb8, -1.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(wide[bits].to_bits(), f32::to_bits(value), "{bits:#x}");
        }
        assert!(wide[0x7f].is_nan() && wide[0xff].is_nan());
        assert_eq!(wide.iter().filter(|value| value.is_nan()).count(), 2);
        assert!(wide[0x80] == 0.0 && wide[0x80].is_sign_negative());
        assert!(widen(Dtype::F8_E5M2, &all, &mut wide));
        for (bits, value) in [(0x3c, 1.0), (0x7b, 57344.0), (0x01, 0.000_015_258_789)] {
            assert_eq!(wide[bits].to_bits(), f32::to_bits(value), "{bits:#x}");
        }
        assert!(wide[0x7c].is_infinite());
        assert!(!widen(Dtype::I32, &all, &mut wide) && wide.is_empty());
    }

    #[test]
    fn refuses_what_is_no_float() {
        let mut out = vec![1];
        assert!(!cast(Dtype::I32, Dtype::F32, &[0; 4], &mut out) && out.is_empty());
        assert!(!cast(Dtype::F32, Dtype::I32, &[0; 4], &mut out));
    }
}
