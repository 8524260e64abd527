//! Arithmetic on the elements of a window, all of it in `f32`: the hot loops of computed tensors.

use crate::tensor::dtype::Dtype;
use half::{bf16, f16};

/// One dimension of a matrix, as it lies in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// How many indices.
    pub count: u64,
    /// The first index of the matrix.
    pub first: u64,
    /// Distance between neighbouring indices of the matrix.
    pub step: u64,
    /// Distance between them in the window, in elements.
    pub stride: u64,
}

/// Rows and columns of a matrix that lie in a window, in whatever order: rows first, transposed, in
/// turns with other things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// Where in the window the first row's first column is, in elements.
    pub base: u64,
    /// The rows.
    pub rows: Lane,
    /// The columns.
    pub columns: Lane,
}

/// A lane in the machine's own integers.
#[derive(Clone, Copy)]
struct Step {
    count: usize,
    first: usize,
    step: usize,
    stride: usize,
}

impl Lane {
    /// Its first and one past its last index.
    #[must_use]
    pub fn reach(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.count.saturating_sub(1) * self.step + 1
    }

    fn machine(&self) -> Option<Step> {
        Some(Step {
            count: usize::try_from(self.count).ok()?,
            first: usize::try_from(self.first).ok()?,
            step: usize::try_from(self.step).ok()?,
            stride: usize::try_from(self.stride).ok()?,
        })
    }
}

impl Rectangle {
    /// Base, rows and columns, if all of it lies in a window of `elements`.
    fn inside(&self, elements: usize) -> Option<(usize, Step, Step)> {
        let (rows, columns) = (self.rows.machine()?, self.columns.machine()?);
        let base = usize::try_from(self.base).ok()?;
        let far = |lane: &Step| lane.count.checked_sub(1)?.checked_mul(lane.stride);
        let last = base.checked_add(far(&rows)?)?.checked_add(far(&columns)?)?;
        (last < elements).then_some((base, rows, columns))
    }
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

/// Whether [`widen`] takes elements of this type.
#[must_use]
pub fn is_widened(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F8_E4M3 | Dtype::F8_E5M2
    )
}

/// The whole elements in `bytes` as `f32`, all exact, in place of what `out` held.
///
/// Returns false, with `out` empty, for types that aren't taken.
#[must_use]
pub fn widen(dtype: Dtype, bytes: &[u8], out: &mut Vec<f32>) -> bool {
    out.clear();
    match dtype {
        Dtype::F32 => out.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
        Dtype::BF16 => {
            let wide = |b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            out.extend(bytes.as_chunks().0.iter().map(wide));
        }
        Dtype::F16 => {
            let wide = |b: &[u8; 2]| f16::from_le_bytes(*b).to_f32();
            out.extend(bytes.as_chunks().0.iter().map(wide));
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

/// `values` as elements of `dtype`, rounded to nearest, ties to even, in place of what `out` held.
///
/// Returns false, with `out` empty, for types other than `F32`, `BF16` and `F16`.
#[must_use]
pub fn narrow(values: &[f32], dtype: Dtype, out: &mut Vec<u8>) -> bool {
    match dtype {
        Dtype::F32 => put(values, out, f32::to_le_bytes),
        Dtype::BF16 => put(values, out, |value| bf16::from_f32(value).to_le_bytes()),
        Dtype::F16 => put(values, out, |value| f16::from_f32(value).to_le_bytes()),
        _ => {
            out.clear();
            return false;
        }
    }
    true
}

fn put<const N: usize>(values: &[f32], out: &mut Vec<u8>, bytes: impl Fn(f32) -> [u8; N]) {
    out.resize(values.len() * N, 0);
    for (value, place) in values.iter().zip(out.as_chunks_mut().0) {
        *place = bytes(*value);
    }
}

/// Multiplies each element of a rectangle by the scale of its block: element (row, column) by
/// `scales[row / block[0]][column / block[1]]`, where the lanes count rows and columns from the first
/// scale's block, and a row of `scales` has `scale_columns`.
///
/// Returns false, with nothing changed, if the rectangle or the scales it needs lie outside.
#[must_use]
pub fn scale_blocks(
    values: &mut [f32],
    at: &Rectangle,
    block: [u64; 2],
    scales: &[f32],
    scale_columns: u64,
) -> bool {
    let Some((base, rows, columns)) = at.inside(values.len()) else {
        return false;
    };
    let ([Ok(tall), Ok(wide)], Ok(pitch)) =
        (block.map(usize::try_from), usize::try_from(scale_columns))
    else {
        return false;
    };
    if tall == 0 || wide == 0 {
        return false;
    }
    let last = |lane: &Step, block: usize| (lane.first + (lane.count - 1) * lane.step) / block;
    let fits = last(&columns, wide) < pitch
        && (last(&rows, tall) * pitch + last(&columns, wide)) < scales.len();
    if !fits {
        return false;
    }
    // The inner loop goes along the window, whichever of the two that is.
    let (rows, columns) = ((rows, tall, pitch), (columns, wide, 1));
    let (outer, inner) = if rows.0.stride < columns.0.stride && rows.0.count > 1 {
        (columns, rows)
    } else {
        (rows, columns)
    };
    for i in 0..outer.0.count {
        let begin = base + i * outer.0.stride;
        let row = (outer.0.first + i * outer.0.step) / outer.1 * outer.2;
        let (lane, block, pitch) = inner;
        let mut done = 0;
        while done < lane.count {
            let index = lane.first + done * lane.step;
            // How many more of the lane lie in this block.
            let count = (block - index % block)
                .div_ceil(lane.step.max(1))
                .min(lane.count - done);
            let scale = scales[row + index / block * pitch];
            let from = begin + done * lane.stride;
            let run = &mut values[from..from + (count - 1) * lane.stride + 1];
            if lane.stride <= 1 {
                run.iter_mut().for_each(|value| *value *= scale);
            } else {
                let run = run.iter_mut().step_by(lane.stride);
                run.for_each(|value| *value *= scale);
            }
            done += count;
        }
    }
    true
}

/// Two matrices whose product is added: `b`, `[rows, rank]`, times `a`, `[rank, columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// Rows of the first lane's reach.
    pub b: &'a [f32],
    /// Columns of the second lane's reach.
    pub a: &'a [f32],
    /// Columns of `b`, rows of `a`.
    pub rank: u64,
    /// What the product is multiplied by.
    pub factor: f32,
}

/// Adds `factor * (b * a)` to a rectangle, whose lanes begin where `b`'s rows and `a`'s columns do.
///
/// For each element the products are added up in the order of the rank, from zero; then the sum is
/// multiplied by the factor and added to the element. Each of these rounds to `f32`.
///
/// Returns false, with nothing changed, if the rectangle or a part of the matrices lies outside.
#[must_use]
pub fn add_product(values: &mut [f32], at: &Rectangle, product: &Product<'_>) -> bool {
    let Some((base, rows, columns)) = at.inside(values.len()) else {
        return false;
    };
    let reach = |lane: &Step| (lane.count - 1) * lane.step + 1;
    let (Ok(rank), tall, wide) = (usize::try_from(product.rank), reach(&rows), reach(&columns))
    else {
        return false;
    };
    if product.b.len() != tall * rank || product.a.len() != wide * rank {
        return false;
    }
    // A block of columns stays in the first cache while all rows go by.
    let mut sums = [0.0; COLUMNS];
    for from in (0..columns.count).step_by(COLUMNS) {
        let sums = &mut sums[..COLUMNS.min(columns.count - from)];
        for i in 0..rows.count {
            let factors = &product.b[i * rows.step * rank..][..rank];
            let first = from * columns.step;
            let row = |k: usize| &product.a[k * wide + first..(k + 1) * wide];
            sums.fill(0.0);
            if columns.step == 1 {
                add_rows(sums, factors, row);
            } else {
                for (k, factor) in factors.iter().enumerate() {
                    let row = row(k).iter().step_by(columns.step);
                    for (sum, value) in sums.iter_mut().zip(row) {
                        *sum += factor * value;
                    }
                }
            }
            let begin = base + i * rows.stride + from * columns.stride;
            let run = &mut values[begin..begin + (sums.len() - 1) * columns.stride + 1];
            if columns.stride <= 1 {
                for (value, sum) in run.iter_mut().zip(&*sums) {
                    *value += product.factor * sum;
                }
            } else {
                for (value, sum) in run.iter_mut().step_by(columns.stride).zip(&*sums) {
                    *value += product.factor * sum;
                }
            }
        }
    }
    true
}

/// Columns whose sums are made together.
const COLUMNS: usize = 256;

/// Adds to each sum the products of `factors` and its column of the rows, in their order; four rows
/// a pass.
fn add_rows<'a>(sums: &mut [f32], factors: &[f32], row: impl Fn(usize) -> &'a [f32]) {
    let (fours, rest) = factors.as_chunks::<4>();
    for (four, [a, b, c, d]) in fours.iter().enumerate() {
        let [ra, rb, rc, rd] = [0, 1, 2, 3].map(|k| row(4 * four + k));
        let columns = sums.iter_mut().zip(ra).zip(rb).zip(rc).zip(rd);
        for ((((sum, va), vb), vc), vd) in columns {
            *sum = *sum + a * va + b * vb + c * vc + d * vd;
        }
    }
    for (k, factor) in rest.iter().enumerate() {
        for (sum, value) in sums.iter_mut().zip(row(4 * fours.len() + k)) {
            *sum += factor * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Rows and columns of a `[7, 9]` matrix, rows first and transposed, after two other elements.
    fn rectangles() -> [Rectangle; 2] {
        let lane = |count, first, step, stride| Lane {
            count,
            first,
            step,
            stride,
        };
        let (rows, columns) = ((3, 1, 2), (4, 2, 1));
        let turned = |row_stride, column_stride| Rectangle {
            base: 2,
            rows: lane(rows.0, rows.1, rows.2, row_stride),
            columns: lane(columns.0, columns.1, columns.2, column_stride),
        };
        [turned(4, 1), turned(1, 3)]
    }

    // proves P112
    #[test]
    fn scales_each_element_by_its_block() {
        // Blocks of 2 rows and 4 columns: scales [3, 2].
        let scales = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
        for at in rectangles() {
            let mut values = vec![1.0; 14];
            assert!(scale_blocks(&mut values, &at, [2, 4], &scales, 2));
            for (i, row) in [1, 3, 5].into_iter().enumerate() {
                for (j, column) in (2..6).enumerate() {
                    let (i, j) = (i as u64, j as u64);
                    let place = at.base + i * at.rows.stride + j * at.columns.stride;
                    let value = values[usize::try_from(place).unwrap()];
                    assert_eq!(
                        value.to_bits(),
                        f32::to_bits(scales[row / 2 * 2 + column / 4])
                    );
                }
            }
            assert!(
                values[..2]
                    .iter()
                    .all(|value| value.to_bits() == 1f32.to_bits())
            );
            assert!(!scale_blocks(&mut values, &at, [2, 4], &scales[..5], 2));
            assert!(!scale_blocks(&mut values[..13], &at, [2, 4], &scales, 2));
        }
    }

    // proves P115
    #[test]
    fn adds_the_ranks_in_their_order() {
        // In another order, or with fewer roundings, the sums would differ in their last places.
        for (rank, wide, step) in [(1, 5, 1), (6, 300, 1), (9, 513, 1), (6, 260, 3)] {
            let number =
                |i: usize| 1.0 + f32::from(u16::try_from(i * 7919 % 9973).unwrap()) / 9973.0;
            let reach = (wide - 1) * step + 1;
            let a: Vec<f32> = (0..rank * reach).map(number).collect();
            let b: Vec<f32> = (0..2 * rank).map(|i| number(i + 5)).collect();
            let lane = |count: usize, step: usize, stride: usize| Lane {
                count: count as u64,
                first: 0,
                step: step as u64,
                stride: stride as u64,
            };
            let at = Rectangle {
                base: 0,
                rows: lane(2, 1, wide),
                columns: lane(wide, step, 1),
            };
            let product = Product {
                a: &a,
                b: &b,
                rank: rank as u64,
                factor: 0.3,
            };
            let mut values: Vec<f32> = (0..2 * wide).map(number).collect();
            assert!(add_product(&mut values, &at, &product));
            for (place, value) in values.iter().enumerate() {
                let (i, j) = (place / wide, place % wide);
                let mut sum = 0.0;
                for k in 0..rank {
                    sum += b[i * rank + k] * a[k * reach + j * step];
                }
                assert_eq!(value.to_bits(), (number(place) + 0.3 * sum).to_bits());
            }
        }
    }

    #[test]
    fn adds_a_product() {
        // Of the reach: rows 1..6, columns 2..6.
        let b: Vec<f32> = [1.0, 2.0, 9.0, 9.0, 3.0, 5.0, 9.0, 9.0, 7.0, 11.0].into();
        let a: Vec<f32> = [1.0, 10.0, 100.0, 1000.0, 2.0, 20.0, 200.0, 2000.0].into();
        let product = Product {
            b: &b,
            a: &a,
            rank: 2,
            factor: 0.5,
        };
        for at in rectangles() {
            let mut values = vec![1.0; 14];
            assert!(add_product(&mut values, &at, &product));
            for (i, of_rank) in [5.0, 13.0, 29.0].into_iter().enumerate() {
                for j in 0..4u64 {
                    let place = at.base + i as u64 * at.rows.stride + j * at.columns.stride;
                    let expected = 1.0 + 0.5 * of_rank * 10f32.powi(i32::try_from(j).unwrap());
                    let value = values[usize::try_from(place).unwrap()];
                    assert_eq!(value.to_bits(), expected.to_bits());
                }
            }
            let short = Product {
                a: &a[..7],
                ..product
            };
            assert!(!add_product(&mut values, &at, &short));
        }
    }
}
