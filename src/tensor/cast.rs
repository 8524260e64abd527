//! Conversion kernels between float types.
//!
//! Widening is exact. Narrowing rounds to nearest, ties to even; what is too large becomes infinite,
//! and a NaN stays a NaN. All pairs go through `f32`, which holds every `f16` and `bf16` exactly, so
//! there is one rounding.

use crate::tensor::dtype::Dtype;
use half::{bf16, f16};

/// Whether elements of this type can be cast, and be cast to.
#[must_use]
pub fn is_castable(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32)
}

/// Casts the whole elements in `source` and puts the result into `out`, replacing what it held.
///
/// Returns false, with `out` empty, for types that can't be cast.
#[must_use]
pub fn cast(from: Dtype, to: Dtype, source: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    match from {
        Dtype::F16 => narrow(to, source, |b| f16::from_le_bytes(b).to_f32(), out),
        // The upper half of an f32, a NaN's bits too, as torch has it.
        Dtype::BF16 => narrow(
            to,
            source,
            |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16),
            out,
        ),
        Dtype::F32 => narrow(to, source, f32::from_le_bytes, out),
        _ => false,
    }
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
        _ => 0,
    }
}

/// Whether numbers of the first type can be too large for the second.
#[must_use]
pub fn can_overflow(from: Dtype, to: Dtype) -> bool {
    from != to && matches!(to, Dtype::F16 | Dtype::BF16)
}

fn narrow<const N: usize>(
    to: Dtype,
    source: &[u8],
    read: impl Fn([u8; N]) -> f32,
    out: &mut Vec<u8>,
) -> bool {
    match to {
        Dtype::F16 => each(source, read, |v| f16::from_f32(v).to_le_bytes(), out),
        Dtype::BF16 => each(source, read, |v| bf16::from_f32(v).to_le_bytes(), out),
        Dtype::F32 => each(source, read, f32::to_le_bytes, out),
        _ => return false,
    }
    true
}

fn each<const N: usize, const M: usize>(
    source: &[u8],
    read: impl Fn([u8; N]) -> f32,
    write: impl Fn(f32) -> [u8; M],
    out: &mut Vec<u8>,
) {
    let elements = source.as_chunks::<N>().0;
    out.resize(elements.len() * M, 0);
    for (element, place) in elements.iter().zip(out.as_chunks_mut::<M>().0) {
        *place = write(read(*element));
    }
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
    fn refuses_what_is_no_float() {
        let mut out = vec![1];
        assert!(!cast(Dtype::I32, Dtype::F32, &[0; 4], &mut out) && out.is_empty());
        assert!(!cast(Dtype::F32, Dtype::I32, &[0; 4], &mut out));
    }
}
