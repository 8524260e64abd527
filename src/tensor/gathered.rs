//! What the bytes of a copy contribute to the residue of the tensor that they are read from, though
//! they lie in another tensor's order.

use crate::fault::memory::grow;
use crate::fault::{Fault, Kind, Result};
use crate::tensor::copy;
use crate::tensor::digest::{Joiner, Runs};
use crate::tensor::strided::{Loop, StridedCopy};
use std::cmp::Reverse;

/// The contribution of what `copy` has brought into `tile` to the residue of its source, of so many
/// bytes, whose offsets count from the whole tensor. Uses `buffer` where the order is another.
///
/// # Errors
/// [`Kind::Internal`] if the copy reaches outside the tile, [`Kind::Memory`].
pub fn contribution(
    joiner: &mut Joiner,
    copy: &StridedCopy,
    tile: &[u8],
    tensor_bytes: u64,
    buffer: &mut Vec<u8>,
) -> Result<u64> {
    let mut loops = copy.loops.clone();
    loops.sort_by_key(|l| Reverse(l.source_stride));
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut dense = true;
    let mut bytes = copy.run_bytes;
    let mut turned = Vec::with_capacity(loops.len());
    for l in loops.iter().rev() {
        dense &= l.destination_stride == bytes;
        turned.push(Loop {
            count: l.count,
            source_stride: l.destination_stride,
            destination_stride: bytes,
        });
        bytes *= l.count;
    }
    let begin = size(copy.destination);
    let ordered = if dense {
        tile.get(begin..begin.saturating_add(size(bytes)))
    } else {
        grow(buffer, size(bytes))?;
        let out = &mut buffer[..size(bytes)];
        let back = StridedCopy::new(copy.destination, 0, copy.run_bytes, turned);
        copy::run(&back, tile, out).then_some(&*out)
    };
    let ordered =
        ordered.ok_or_else(|| Fault::new(Kind::Internal, "a part lies outside its window"))?;
    let outside = loops.iter().rev().map(|l| (l.count, l.source_stride));
    let runs = Runs::of(copy.source, copy.run_bytes, outside, tensor_bytes);
    Ok(joiner.window(&runs, 0, ordered).tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::digest::finish;
    use crate::tensor::region::Region;
    use crate::tensor::shape::Shape;
    use crate::view::{AxisMap, Piece};

    fn axis(offset: u64, step: u64, axis: usize) -> AxisMap {
        AxisMap::Affine { offset, step, axis }
    }

    /// Carries `pieces` of a tensor of `shape` into one of `into`, window by window, and compares what
    /// they come to with the CRC of the whole.
    fn come_together(shape: &[u64], into: &[u64], pieces: &[Piece], window: u64) {
        let (shape, into) = (Shape(shape.to_vec()), Shape(into.to_vec()));
        let bytes = shape.0.iter().product::<u64>() * 2;
        let tensor: Vec<u8> = (0..bytes)
            .map(|at| (at * 31 + at / 7).to_le_bytes()[0])
            .collect();
        let (mut joiner, mut buffer, mut sum) = (Joiner::default(), Vec::new(), 0);
        let end = into.0.iter().product::<u64>() * 2;
        for begin in (0..end).step_by(usize::try_from(window).unwrap()) {
            let mut tile = vec![0; usize::try_from(window.min(end - begin)).unwrap()];
            for piece in pieces {
                let (from, to) = (Region::whole(&shape), Region::whole(&into));
                let copy = piece.lower(&piece.ranges(), &from, &to, 2);
                let mut parts = Vec::new();
                copy.clip(begin, begin + tile.len() as u64, &mut parts);
                for mut part in parts {
                    part.destination -= begin;
                    assert!(copy::run(&part, &tensor, &mut tile));
                    sum ^= contribution(&mut joiner, &part, &tile, bytes, &mut buffer).unwrap();
                }
            }
        }
        assert_eq!(finish(sum, bytes), crc_fast::crc64_nvme(&tensor));
    }

    #[test]
    fn parts_in_another_order_give_the_whole() {
        let part = |domain: [u64; 2], source: [AxisMap; 2], destination: [AxisMap; 2]| Piece {
            source: "w".into(),
            domain: domain.to_vec(),
            source_map: source.to_vec(),
            destination_map: destination.to_vec(),
        };
        let all = [axis(0, 1, 0), axis(0, 1, 1)];
        let transposed = part([40, 24], all, [axis(0, 1, 1), axis(0, 1, 0)]);
        let every_second = part([40, 24], all, [axis(1, 2, 0), axis(0, 1, 1)]);
        let columns = |first: u64, at: u64| {
            part(
                [40, 12],
                [axis(0, 1, 0), axis(first, 1, 1)],
                [axis(at, 1, 0), axis(0, 1, 1)],
            )
        };
        for window in [2, 38, 500, 4000] {
            come_together(
                &[40, 24],
                &[24, 40],
                std::slice::from_ref(&transposed),
                window,
            );
            come_together(
                &[40, 24],
                &[80, 24],
                std::slice::from_ref(&every_second),
                window,
            );
            come_together(
                &[40, 24],
                &[80, 12],
                &[columns(12, 0), columns(0, 40)],
                window,
            );
        }
    }
}
