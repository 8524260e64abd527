//! Rows that lie equally far apart, folded into one row which has the residue of them all.
//!
//! Rows of a tensor of which a cell has only some columns are too short for a CRC of each to pay: its
//! last step, from 16 bytes to 8, costs more than the bytes. So that step waits for the last row.
//! A lane of 16 bytes is a polynomial `far * x^64 + near` that needn't be reduced; the lanes of the
//! rows so far, times x^(8 distance), and those of the next row, XORed, stand for both.
//!
//! ```text
//! row 0   a b c        sum = a b c
//! row 1   d e f        sum = a k ^ d   b k ^ e   c k ^ f        k = x^(8 distance)
//! ```

#![allow(unsafe_code)]

use std::slice::ChunksExact;

/// Bytes of a lane.
const LANE_BYTES: usize = 16;

/// A polynomial, the highest power first.
pub(super) type Lane = [u8; LANE_BYTES];

/// Multiplication of lanes by the power of x that lies between two rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fold {
    /// x^(8 distance + 63), for the first eight bytes of a lane: a product of two numbers of which
    /// the highest bit is x^0 comes out one power too high.
    pub(super) far: u64,
    /// x^(8 distance - 1), for the last eight.
    pub(super) near: u64,
}

impl Fold {
    /// One row, in bytes, that has the residue of all `rows` of `row_bytes` each, which follow each
    /// other in `rows` and lie equally far apart in the tensor. It is made in `lanes`. `None` where
    /// the machine doesn't multiply polynomials.
    pub(super) fn rows<'a>(
        self,
        rows: &[u8],
        row_bytes: usize,
        lanes: &'a mut Vec<Lane>,
    ) -> Option<&'a [u8]> {
        lanes.clear();
        lanes.resize(row_bytes.div_ceil(LANE_BYTES), [0; LANE_BYTES]);
        self.add_all(rows.chunks_exact(row_bytes), lanes)?;
        Some(lanes.as_flattened())
    }

    #[cfg(target_arch = "x86_64")]
    fn add_all(self, rows: ChunksExact<'_, u8>, lanes: &mut [Lane]) -> Option<()> {
        if !is_x86_feature_detected!("pclmulqdq") {
            return None;
        }
        let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("vpclmulqdq");
        for row in rows {
            // Safety: the machine has been asked for the instructions.
            unsafe {
                if wide {
                    x86_64::add_wide(self, row, lanes);
                } else {
                    x86_64::add(self, row, lanes);
                }
            }
        }
        Some(())
    }

    #[cfg(target_arch = "aarch64")]
    fn add_all(self, rows: ChunksExact<'_, u8>, lanes: &mut [Lane]) -> Option<()> {
        if !std::arch::is_aarch64_feature_detected!("aes") {
            return None;
        }
        for row in rows {
            // Safety: the machine has been asked for the instructions.
            unsafe { aarch64::add(self, row, lanes) };
        }
        Some(())
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn add_all(self, _: ChunksExact<'_, u8>, _: &mut [Lane]) -> Option<()> {
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{Fold, LANE_BYTES, Lane};
    use std::arch::x86_64::{
        __m128i, __m512i, _mm_clmulepi64_si128, _mm_loadu_si128, _mm_set_epi64x, _mm_storeu_si128,
        _mm_xor_si128, _mm512_broadcast_i32x4, _mm512_clmulepi64_epi128, _mm512_loadu_si512,
        _mm512_storeu_si512, _mm512_ternarylogic_epi64,
    };

    /// Lanes that the wide instruction takes at once.
    const WIDE: usize = 4;
    /// The exclusive or of three, as a truth table.
    const XOR3: i32 = 0x96;

    #[target_feature(enable = "pclmulqdq")]
    fn factor(fold: Fold) -> __m128i {
        _mm_set_epi64x(fold.near.cast_signed(), fold.far.cast_signed())
    }

    /// Folds `lanes`, and adds a row to them; both end with the same byte.
    #[target_feature(enable = "pclmulqdq")]
    pub(super) fn add(fold: Fold, row: &[u8], lanes: &mut [Lane]) {
        let factor = factor(fold);
        let (first, whole) = row.as_rchunks::<LANE_BYTES>();
        let (before, lanes) = lanes.split_at_mut(lanes.len() - whole.len());
        if let Some(lane) = before.first_mut() {
            let mut bytes = [0; LANE_BYTES];
            bytes[LANE_BYTES - first.len()..].copy_from_slice(first);
            step(factor, lane, &bytes);
        }
        for (lane, bytes) in lanes.iter_mut().zip(whole) {
            step(factor, lane, bytes);
        }
    }

    /// As [`add`], four lanes at a time from the end.
    #[target_feature(enable = "pclmulqdq,avx512f,vpclmulqdq")]
    pub(super) fn add_wide(fold: Fold, row: &[u8], lanes: &mut [Lane]) {
        let factor = _mm512_broadcast_i32x4(factor(fold));
        let (first, wide) = row.as_rchunks::<{ WIDE * LANE_BYTES }>();
        let (before, lanes) = lanes.split_at_mut(lanes.len() - wide.len() * WIDE);
        add(fold, first, before);
        let (lanes, _) = lanes.as_chunks_mut::<WIDE>();
        for (lanes, bytes) in lanes.iter_mut().zip(wide) {
            step_wide(factor, lanes, bytes);
        }
    }

    #[target_feature(enable = "pclmulqdq")]
    fn step(factor: __m128i, lane: &mut Lane, bytes: &Lane) {
        let lane: *mut __m128i = (&raw mut *lane).cast();
        // Safety: both have as many bytes as are taken; no alignment is asked for.
        let (sum, row) = unsafe {
            (
                _mm_loadu_si128(lane),
                _mm_loadu_si128(bytes.as_ptr().cast()),
            )
        };
        let far = _mm_clmulepi64_si128::<0x00>(sum, factor);
        let near = _mm_clmulepi64_si128::<0x11>(sum, factor);
        let sum = _mm_xor_si128(_mm_xor_si128(far, near), row);
        // Safety: as above.
        unsafe { _mm_storeu_si128(lane, sum) };
    }

    #[target_feature(enable = "avx512f,vpclmulqdq")]
    fn step_wide(factor: __m512i, lanes: &mut [Lane; WIDE], bytes: &[u8; WIDE * LANE_BYTES]) {
        let lanes: *mut __m512i = (&raw mut *lanes).cast();
        // Safety: both have as many bytes as are taken; no alignment is asked for.
        let (sum, row) = unsafe {
            (
                _mm512_loadu_si512(lanes),
                _mm512_loadu_si512(bytes.as_ptr().cast()),
            )
        };
        let far = _mm512_clmulepi64_epi128::<0x00>(sum, factor);
        let near = _mm512_clmulepi64_epi128::<0x11>(sum, factor);
        let sum = _mm512_ternarylogic_epi64::<XOR3>(far, near, row);
        // Safety: as above.
        unsafe { _mm512_storeu_si512(lanes, sum) };
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{Fold, LANE_BYTES, Lane};
    use std::arch::aarch64::vmull_p64;

    /// Folds `lanes`, and adds a row to them; both end with the same byte.
    #[target_feature(enable = "neon,aes")]
    pub(super) fn add(fold: Fold, row: &[u8], lanes: &mut [Lane]) {
        let (first, whole) = row.as_rchunks::<LANE_BYTES>();
        let (before, lanes) = lanes.split_at_mut(lanes.len() - whole.len());
        if let Some(lane) = before.first_mut() {
            let mut bytes = [0; LANE_BYTES];
            bytes[LANE_BYTES - first.len()..].copy_from_slice(first);
            step(fold, lane, &bytes);
        }
        for (lane, bytes) in lanes.iter_mut().zip(whole) {
            step(fold, lane, bytes);
        }
    }

    #[target_feature(enable = "neon,aes")]
    fn step(fold: Fold, lane: &mut Lane, bytes: &Lane) {
        let sum = u128::from_le_bytes(*lane);
        #[allow(clippy::cast_possible_truncation, reason = "each half for itself")]
        let (far, near) = (sum as u64, (sum >> 64) as u64);
        let sum = vmull_p64(far, fold.far) ^ vmull_p64(near, fold.near);
        *lane = (sum ^ u128::from_le_bytes(*bytes)).to_le_bytes();
    }
}

#[cfg(test)]
mod plain {
    use super::*;

    /// A product of polynomials, bit by bit.
    fn product(a: u64, b: u64) -> u128 {
        let bits = (0..64).filter(|bit| b >> bit & 1 == 1);
        bits.fold(0, |sum, bit| sum ^ u128::from(a) << bit)
    }

    fn add(fold: Fold, row: &[u8], lanes: &mut [Lane]) {
        let mut bytes = vec![0; lanes.len() * LANE_BYTES - row.len()];
        bytes.extend(row);
        for (lane, bytes) in lanes.iter_mut().zip(bytes.as_chunks::<LANE_BYTES>().0) {
            let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| lane[at + byte]));
            let sum = product(half(0), fold.far) ^ product(half(8), fold.near);
            *lane = (sum ^ u128::from_le_bytes(*bytes)).to_le_bytes();
        }
    }

    #[test]
    fn this_machine_folds_as_the_plain_way_does() {
        let fold = Fold {
            far: 0x0123_4567_89ab_cdef,
            near: 0xfedc_ba98_7654_3210,
        };
        for row_bytes in (1..100usize).chain([260, 1216]) {
            let rows: Vec<u8> = (0..row_bytes * 4)
                .map(|at| (at * 131 % 251).to_le_bytes()[0])
                .collect();
            let mut lanes = Vec::new();
            let Some(found) = fold.rows(&rows, row_bytes, &mut lanes) else {
                eprintln!("skipped: this machine multiplies no polynomials");
                return;
            };
            let mut wanted = vec![[0; LANE_BYTES]; row_bytes.div_ceil(LANE_BYTES)];
            for row in rows.chunks_exact(row_bytes) {
                add(fold, row, &mut wanted);
            }
            assert_eq!(found, wanted.as_flattened(), "{row_bytes} bytes a row");
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn wide_and_narrow_steps_agree() {
        let wide = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("vpclmulqdq");
        if !wide {
            eprintln!("skipped: this machine has no wide multiplication");
            return;
        }
        let fold = Fold {
            far: 0x0123_4567_89ab_cdef,
            near: 0xfedc_ba98_7654_3210,
        };
        for row_bytes in (1..200usize).chain([1216, 4095]) {
            let rows: Vec<u8> = (0..row_bytes * 5)
                .map(|at| (at * 131 % 251).to_le_bytes()[0])
                .collect();
            let mut lanes = [(); 2].map(|()| vec![[0; LANE_BYTES]; row_bytes.div_ceil(LANE_BYTES)]);
            for row in rows.chunks_exact(row_bytes) {
                // Safety: the machine has been asked for the instructions.
                unsafe {
                    x86_64::add(fold, row, &mut lanes[0]);
                    x86_64::add_wide(fold, row, &mut lanes[1]);
                }
            }
            assert_eq!(lanes[0], lanes[1], "{row_bytes} bytes a row");
        }
    }
}
