//! Matrices in 8 bits with a scale a block: the hot loops that make both of numbers.

use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;

/// The largest number of an `F8_E4M3`.
const LARGEST: f32 = 448.0;

/// Rows and columns that share a scale; those at the end of a matrix may be fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// Rows, above 0.
    pub rows: u64,
    /// Columns, above 0.
    pub columns: u64,
}

/// What of a tensor's elements is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// The elements.
    #[default]
    Elements,
    /// Of a matrix, each element divided by the scale of its block, as `F8_E4M3`.
    Quantised(Block),
    /// Of a matrix, the scales of its blocks, as `F32`.
    Scales(Block),
}

impl Form {
    /// The blocks, if it has any.
    #[must_use]
    pub fn block(self) -> Option<Block> {
        match self {
            Form::Elements => None,
            Form::Quantised(block) | Form::Scales(block) => Some(block),
        }
    }

    /// The element type that it has; none: any.
    #[must_use]
    pub fn dtype(self) -> Option<Dtype> {
        match self {
            Form::Elements => None,
            Form::Quantised(_) => Some(Dtype::F8_E4M3),
            Form::Scales(_) => Some(Dtype::F32),
        }
    }

    /// The shape that it has, of elements in `shape`.
    #[must_use]
    pub fn shape(self, shape: &Shape) -> Shape {
        match (self, &shape.0[..]) {
            (Form::Scales(block), [rows, columns]) => Shape(vec![
                rows.div_ceil(block.rows.max(1)),
                columns.div_ceil(block.columns.max(1)),
            ]),
            _ => shape.clone(),
        }
    }
}

/// Puts what `form` has of whole rows of a matrix with so many `columns` into `out`, in place of what it
/// held. The first row begins a block.
///
/// A scale is the largest absolute number of its block divided by 448; 1 where that is zero. An element
/// is divided by it and rounded to nearest, ties to even. All of it is in `f32`, one rounding a step. A
/// block that has a NaN becomes NaNs, and so do the infinities of one.
///
/// Returns false, with `out` empty, if these are no whole rows or `form` has no blocks.
#[must_use]
pub fn quantise(values: &[f32], columns: u64, form: Form, out: &mut Vec<u8>) -> bool {
    out.clear();
    let sizes = form
        .block()
        .map(|block| [block.rows, block.columns, columns].map(usize::try_from));
    let Some([Ok(tall), Ok(wide), Ok(columns)]) = sizes else {
        return false;
    };
    let whole = columns > 0 && values.len().is_multiple_of(columns);
    if !whole || tall == 0 || wide == 0 {
        return false;
    }
    let mut scales = Vec::new();
    for band in values.chunks(tall.saturating_mul(columns)) {
        scales_of(band, columns, wide, &mut scales);
        if let Form::Scales(_) = form {
            out.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
            continue;
        }
        for row in band.chunks_exact(columns) {
            for (part, scale) in row.chunks(wide).zip(&scales) {
                out.extend(part.iter().map(|value| to_e4m3(value / scale)));
            }
        }
    }
    true
}

/// The scales of one row of blocks.
fn scales_of(band: &[f32], columns: usize, wide: usize, scales: &mut Vec<f32>) {
    // The bits of numbers without a sign are ordered as the numbers are, and NaNs come last.
    let mut largest = vec![0u32; columns.div_ceil(wide)];
    for row in band.chunks_exact(columns) {
        for (part, largest) in row.chunks(wide).zip(&mut largest) {
            let bits = part.iter().map(|value| value.to_bits() & 0x7fff_ffff);
            *largest = bits.fold(*largest, u32::max);
        }
    }
    scales.clear();
    scales.extend(largest.into_iter().map(|bits| {
        let scale = f32::from_bits(bits) / LARGEST;
        if scale == 0.0 { 1.0 } else { scale }
    }));
}

/// The 8-bit float of 4 exponent bits, 3 mantissa bits and no infinity (OCP 8-bit floating point, E4M3)
/// nearest to a number, of two the even one; the largest for those above, NaN for none.
fn to_e4m3(value: f32) -> u8 {
    /// 2^14, whose last place is the smallest number: adding it rounds as that does.
    const SUBNORMAL: u32 = 141 << 23;
    let bits = value.to_bits();
    let size = bits & 0x7fff_ffff;
    let rounded = if size > 0x7f80_0000 {
        0x7f
    } else if size < 121 << 23 {
        (f32::from_bits(size) + f32::from_bits(SUBNORMAL)).to_bits() - SUBNORMAL
    } else {
        // The exponent's bias is 7 in place of 127; half of the last place, and a bit less if it is even.
        let size = size.min(LARGEST.to_bits());
        (size - (120 << 23) + 0x7_ffff + (size >> 20 & 1)) >> 20
    };
    let [low, ..] = rounded.to_le_bytes();
    let [.., high] = bits.to_le_bytes();
    low | high & 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::cast::widen;

    #[test]
    fn rounds_to_the_nearest_of_all_numbers() {
        let all: Vec<u8> = (0..0x7f).collect();
        let mut wide = Vec::new();
        assert!(widen(Dtype::F8_E4M3, &all, &mut wide));
        for (bits, pair) in (0u8..).zip(wide.windows(2)) {
            let [low, high] = [pair[0], pair[1]];
            let middle = (low + high) / 2.0;
            let even = bits + (bits & 1);
            let below = f32::from_bits(middle.to_bits() - 1);
            let above = f32::from_bits(middle.to_bits() + 1);
            for (value, due) in [
                (low, bits),
                (below, bits),
                (middle, even),
                (above, bits + 1),
            ] {
                assert_eq!(to_e4m3(value), due, "{value}");
                assert_eq!(to_e4m3(-value), due | 0x80, "-{value}");
            }
        }
        assert_eq!(to_e4m3(449.0), 0x7e);
        assert_eq!(to_e4m3(-f32::INFINITY), 0xfe);
        assert_eq!(to_e4m3(f32::NAN) & 0x7f, 0x7f);
    }

    #[test]
    fn blocks_of_zeros_have_scale_one() {
        let form = |rows, columns| Block { rows, columns };
        let values = [0.0, -0.0, 3.0, 0.0, 0.0, 1.0];
        let mut out = Vec::new();
        assert!(quantise(&values, 3, Form::Scales(form(2, 2)), &mut out));
        let scales: Vec<f32> = [1.0, 3.0 / 448.0].into();
        let due: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
        assert_eq!(out, due);
        assert!(quantise(&values, 3, Form::Quantised(form(2, 2)), &mut out));
        assert_eq!(out, [0, 0x80, 0x7e, 0, 0, to_e4m3(1.0 / (3.0f32 / 448.0))]);
        assert!(!quantise(&values, 4, Form::Quantised(form(2, 2)), &mut out) && out.is_empty());
        assert!(!quantise(&values, 3, Form::Elements, &mut out));
    }
}
