//! The layout-independent digest: CRC-64 of a tensor's row-major bytes, from parts in any order.
//!
//! A CRC is linear. Let the *residue* of some bytes be their CRC without its usual start and end
//! values: bytes times a power of x, modulo the polynomial. A run that ends `d` bytes before the end
//! of a tensor contributes `residue(run) * x^(8 d)`, and the contributions of all runs, XORed, are
//! the residue of the tensor; [`finish`] makes the CRC of it. The same gives the CRC of a file from
//! its pieces.
//!
//! ```text
//! tensor   a b c d e f      residue(abcdef) = residue(ab) x^32  ^  residue(cd) x^16  ^  residue(ef)
//! ```

use crate::tensor::fold::{Fold, Lane};
use crate::tensor::region::Region;
use crate::tensor::residue::{ONE, Table, multiply, power};
use crate::tensor::shape::Shape;

pub use crate::tensor::residue::{checksum, finish, residue, residue_of_crc, shift};

/// Uses of a distance after which a table for it pays.
const USES_FOR_TABLE: u32 = 16;

/// Distances remembered.
const FACTORS: usize = 16;

/// Runs shorter than this are folded, and the residue of a window is made from its bytes, not joined
/// from those of its runs.
const RUN_BYTES_JOINED: u64 = 4 << 10;

/// Fewer runs than this are not folded.
const RUNS_FOLDED: u64 = 4;

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

struct Factor {
    bytes: u64,
    power: u64,
    uses: u32,
    table: Option<Box<Table>>,
}

/// Joins residues; remembers the distances that recur.
#[derive(Default)]
pub struct Joiner {
    factors: Vec<Factor>,
    next: usize,
    fold: Option<(u64, Fold)>,
    lanes: Vec<Lane>,
}

/// What the bytes of a cell's window contribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contribution {
    /// To the residue of the tensor.
    pub tensor: u64,
    /// The residue of the window by itself.
    pub window: u64,
}

/// Where a cell lies in its tensor, by runs that are contiguous in both.
#[derive(Clone, Debug)]
pub struct Runs {
    /// Offset of the first run.
    first: u64,
    /// Bytes of a run.
    run_bytes: u64,
    /// Count and stride in bytes of the dimensions outside a run, innermost first.
    loops: Vec<(u64, u64)>,
    /// Bytes of the tensor.
    tensor_bytes: u64,
}

impl Runs {
    /// The runs of `region` in a tensor of `shape` elements of `element_bytes`.
    #[must_use]
    pub fn new(shape: &Shape, element_bytes: u64, region: &Region) -> Runs {
        let strides = shape.strides();
        let mut runs = Runs {
            first: 0,
            run_bytes: element_bytes,
            loops: Vec::new(),
            tensor_bytes: shape.0.iter().product::<u64>() * element_bytes,
        };
        let mut contiguous = true;
        for d in (0..shape.0.len()).rev() {
            let stride = strides[d] * element_bytes;
            runs.first += region.offset[d] * stride;
            if contiguous {
                runs.run_bytes *= region.shape.0[d];
            } else if region.shape.0[d] != 1 {
                runs.loops.push((region.shape.0[d], stride));
            }
            contiguous &= region.shape.0[d] == shape.0[d];
        }
        runs
    }

    /// Runs of `run_bytes` from byte `first` on of a tensor of so many bytes, repeated by `loops` of
    /// count and stride, innermost first; none overlaps another.
    #[must_use]
    pub fn of(
        first: u64,
        run_bytes: u64,
        loops: impl Iterator<Item = (u64, u64)>,
        tensor_bytes: u64,
    ) -> Runs {
        let mut runs = Runs {
            first,
            run_bytes,
            loops: Vec::new(),
            tensor_bytes,
        };
        for (count, stride) in loops {
            if runs.loops.is_empty() && stride == runs.run_bytes {
                runs.run_bytes *= count;
            } else {
                runs.loops.push((count, stride));
            }
        }
        runs
    }

    /// Offset in the tensor of run number `run`.
    fn offset(&self, mut run: u64) -> u64 {
        let mut offset = self.first;
        for (count, stride) in &self.loops {
            offset += run % count * stride;
            run /= count;
        }
        offset
    }

    /// How many runs from number `run` on are equally far apart, and how far.
    fn even(&self, run: u64) -> (u64, u64) {
        match self.loops.first() {
            Some((count, stride)) => (count - run % count, *stride),
            None => (1, self.run_bytes),
        }
    }
}

impl Joiner {
    /// As [`shift`], faster for distances that recur.
    pub fn shift(&mut self, residue: u64, bytes: u64) -> u64 {
        if residue == 0 || bytes == 0 {
            return residue;
        }
        let found = self.factors.iter().position(|f| f.bytes == bytes);
        let at = found.unwrap_or_else(|| self.remember(bytes));
        let factor = &mut self.factors[at];
        if let Some(table) = &factor.table {
            return table.times(residue);
        }
        factor.uses += 1;
        if factor.uses >= USES_FOR_TABLE {
            factor.table = Some(Table::new(factor.power));
        }
        multiply(residue, factor.power)
    }

    fn remember(&mut self, bytes: u64) -> usize {
        let factor = Factor {
            bytes,
            power: power(bytes),
            uses: 0,
            table: None,
        };
        if self.factors.len() < FACTORS {
            self.factors.push(factor);
            return self.factors.len() - 1;
        }
        self.next = (self.next + 1) % FACTORS;
        self.factors[self.next] = factor;
        self.next
    }

    /// The residue of `rows`, `stride` apart in their tensor, with nothing between them.
    fn fold(&mut self, rows: &[u8], row_bytes: u64, stride: u64) -> Option<u64> {
        let fold = match self.fold {
            Some((known, fold)) if known == stride => fold,
            _ => {
                let [far, near] =
                    [stride + 7, stride - 1].map(|bytes| multiply(power(bytes), ONE >> 7));
                self.fold.insert((stride, Fold { far, near })).1
            }
        };
        let row = fold.rows(rows, size(row_bytes), &mut self.lanes)?;
        Some(residue(row))
    }

    /// What bytes `begin..` of the cell at `runs`, given in `window`, contribute.
    pub fn window(&mut self, runs: &Runs, begin: u64, window: &[u8]) -> Contribution {
        if window.is_empty() || runs.run_bytes == 0 {
            return Contribution::default();
        }
        let joined = runs.run_bytes >= RUN_BYTES_JOINED;
        let mut found = Contribution::default();
        let mut run = begin / runs.run_bytes;
        let mut inside = begin % runs.run_bytes;
        let mut end = 0;
        let mut left = window;
        while !left.is_empty() {
            let offset = runs.offset(run) + inside;
            let (even, stride) = runs.even(run);
            let even = even.min(left.len() as u64 / runs.run_bytes);
            let folded = (!joined && inside == 0 && even >= RUNS_FOLDED)
                .then(|| self.fold(&left[..size(even * runs.run_bytes)], runs.run_bytes, stride))
                .flatten();
            let (part, taken, length) = if let Some(part) = folded {
                run += even;
                (
                    part,
                    even * runs.run_bytes,
                    (even - 1) * stride + runs.run_bytes,
                )
            } else {
                let length = (runs.run_bytes - inside).min(left.len() as u64);
                run += 1;
                (residue(&left[..size(length)]), length, length)
            };
            found.tensor = self.shift(found.tensor, offset + length - end) ^ part;
            if joined {
                found.window = self.shift(found.window, length) ^ part;
            }
            end = offset + length;
            left = &left[size(taken)..];
            inside = 0;
        }
        if !joined {
            found.window = residue(window);
        }
        found.tensor = shift(found.tensor, runs.tensor_bytes - end);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::residue::short_residue;
    use proptest::prelude::*;

    fn bytes_of(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn is_the_crc_that_others_compute() {
        assert_eq!(checksum(b"123456789"), 0xae8b_1486_0a79_9888);
        assert_eq!(checksum(b""), 0);
        let bytes = bytes_of(100_000, 7);
        assert_eq!(checksum(&bytes), crc_fast::crc64_nvme(&bytes));
        let length = bytes.len() as u64;
        assert_eq!(residue_of_crc(checksum(&bytes), length), residue(&bytes));
    }

    #[test]
    fn few_bytes_have_the_same_residue_by_table() {
        let bytes = bytes_of(200, 11);
        for length in 0..bytes.len() {
            let bytes = &bytes[..length];
            let length = length as u64;
            assert_eq!(
                finish(short_residue(bytes), length),
                crc_fast::crc64_nvme(bytes)
            );
            assert_eq!(finish(residue(bytes), length), crc_fast::crc64_nvme(bytes));
        }
    }

    #[test]
    fn powers_add_up_in_the_exponent() {
        for (a, b) in [(0, 1), (255, 1), (1000, 65_000), (1 << 40, (1 << 33) + 5)] {
            assert_eq!(multiply(power(a), power(b)), power(a + b));
            assert_eq!(Table::new(power(a)).times(power(b)), power(a + b));
        }
    }

    #[test]
    fn distances_that_recur_shift_as_far_as_others() {
        let mut joiner = Joiner::default();
        let one = residue(b"shardloom");
        // More distances than are remembered, and each often enough for a table.
        for bytes in (1..=3 * FACTORS as u64).cycle().take(400) {
            assert_eq!(joiner.shift(one, bytes), shift(one, bytes), "{bytes}");
        }
        assert_eq!(joiner.factors.len(), FACTORS);
        for bytes in [7, 9].repeat(2 * USES_FOR_TABLE as usize) {
            assert_eq!(joiner.shift(one, bytes), shift(one, bytes), "{bytes}");
        }
    }

    fn dims(
        cells: std::ops::Range<u64>,
    ) -> impl proptest::strategy::Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((cells, 1u64..4), 1..4)
    }

    /// Makes the CRC of a tensor of random bytes from the windows of all cells, and compares it with
    /// that of the whole. `dims` are the extent of a cell and the number of cells.
    fn parts_give_the_whole(dims: &[(u64, u64)], element: u64, window: usize, seed: u64) {
        let shape = Shape(dims.iter().map(|(cell, parts)| cell * parts).collect());
        let length = shape.0.iter().product::<u64>() * element;
        let tensor = bytes_of(usize::try_from(length).unwrap(), seed);
        let mut joiner = Joiner::default();
        let mut contributions = Vec::new();
        let cells = dims.iter().map(|(_, parts)| parts).product::<u64>();
        for number in 0..cells {
            let mut rest = number;
            let mut offset = vec![0; dims.len()];
            for (d, (cell, parts)) in dims.iter().enumerate() {
                offset[d] = rest % parts * cell;
                rest /= parts;
            }
            let cell = Shape(dims.iter().map(|(cell, _)| *cell).collect());
            let strides = shape.strides();
            let mut bytes = Vec::new();
            for at in 0..cell.0.iter().product::<u64>() {
                let inner = cell.strides();
                let from: u64 = (0..dims.len())
                    .map(|d| (offset[d] + at / inner[d] % cell.0[d]) * strides[d])
                    .sum();
                let from = usize::try_from(from * element).unwrap();
                bytes.extend(&tensor[from..from + usize::try_from(element).unwrap()]);
            }
            let runs = Runs::new(
                &shape,
                element,
                &Region {
                    offset,
                    shape: cell,
                },
            );
            for (part, chunk) in bytes.chunks(window).enumerate() {
                let begin = (part * window) as u64;
                let found = joiner.window(&runs, begin, chunk);
                assert_eq!(found.window, residue(chunk));
                contributions.push(found.tensor);
            }
        }
        let middle = usize::try_from(seed % 7).unwrap() % contributions.len();
        contributions.rotate_left(middle);
        let sum = contributions.iter().fold(0, |sum, part| sum ^ part);
        assert_eq!(finish(sum, length), crc_fast::crc64_nvme(&tensor));
    }

    #[test]
    fn four_rows_are_folded() {
        parts_give_the_whole(&[(4, 1), (1, 2)], 2, 8, 0);
    }

    proptest! {
        /// Any grid of cells, any windows of each, in any order.
        #[test]
        fn parts_in_any_order_give_the_whole(
            dims in dims(1..9), element in 1u64..130, window in 1usize..3000, seed in any::<u64>()
        ) {
            parts_give_the_whole(&dims, element, window, seed);
        }

        /// The same of runs on both sides of the length from which they are not folded.
        #[test]
        fn parts_of_long_runs_give_the_whole(
            dims in dims(1..6), element in 500u64..1100, window in 1usize..30_000, seed in any::<u64>()
        ) {
            parts_give_the_whole(&dims, element, window, seed);
        }
    }
}
