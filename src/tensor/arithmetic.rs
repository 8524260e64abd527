//! Arithmetic on the elements of a window, all of it in `f32`: the hot loops of computed tensors.

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
                    let expected = 1.0
                        + 0.5
                            * of_rank
                            * [1.0_f32, 10.0, 100.0, 1000.0][usize::try_from(j).unwrap()];
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
