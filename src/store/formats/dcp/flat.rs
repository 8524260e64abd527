//! Tensors that are cut twice: into blocks, as ranks have them, and the elements of each block, in their order, into
//! runs. Megatron-Core before 0.16 saves an optimizer's states so: in the file such a tensor has a dimension for each
//! of its own, which counts blocks, and a last one for a block's elements.

use super::states::due;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle::{Pickle, Value};
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use crate::tensor::window::boxes;
use std::collections::HashMap;
use std::ops::Range;

/// Where something lies: a file, and its bytes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lies {
    pub(super) file: String,
    pub(super) bytes: Range<u64>,
    /// Which of the elements there, if not all.
    pub(super) run: Option<Run>,
}

/// What tells of a tensor that it is cut so, by its own shape.
const WHOLE: &str = "nd_reformulated_orig_global_shape";

/// Some elements of an archive's tensor, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The shape of all that the archive has.
    pub(super) shape: Shape,
    /// The number of the first one.
    pub(super) first: u64,
}

/// The own shapes of tensors that are cut so, by name, as `told` of each tensor.
///
/// # Errors
/// [`Kind::Corrupt`] for a shape that is none.
pub(super) fn shapes<'a>(
    pickle: &Pickle<'a>,
    told: Option<Value>,
) -> Result<HashMap<&'a str, Shape>> {
    let items = told.and_then(|told| pickle.items(told));
    let mut shapes = HashMap::new();
    for pair in items.unwrap_or_default().chunks_exact(2) {
        if let (Some(name), Some(shape)) = (pickle.text(pair[0]), pickle.get(pair[1], WHOLE)) {
            let shape = due(pickle.counts(shape), WHOLE).map_err(|fault| fault.tensor(name))?;
            shapes.insert(name, Shape(shape));
        }
    }
    Ok(shapes)
}

/// What `chunks` of a tensor that is saved in shape `saved` are of the tensor itself, which is `whole`.
///
/// # Errors
/// [`Kind::Corrupt`] if they are no runs of blocks of it, [`Kind::Shape`].
pub(super) fn pieces(
    whole: &Shape,
    saved: &Shape,
    chunks: &[(Region, Lies)],
) -> Result<Vec<(Region, Lies)>> {
    let odd = |what: String| {
        Fault::new(
            Kind::Corrupt,
            format!("is {whole}, and saved as {saved}: {what}"),
        )
    };
    let none = || odd("these are no blocks of it".into());
    let (count, grid) = saved.0.split_last().ok_or_else(none)?;
    let sides = whole.0.iter().zip(grid);
    let sides = sides.map(|(size, blocks)| {
        let side = size.checked_div(*blocks);
        side.filter(|side| side * blocks == *size)
    });
    let block: Vec<u64> = sides.collect::<Option<_>>().ok_or_else(none)?;
    if grid.len() != whole.0.len() || Shape(block.clone()).elements()? != *count {
        return Err(none());
    }
    let strides = Shape(block.clone()).strides();
    let mut pieces = Vec::new();
    for (chunk, lies) in chunks {
        let ((begin, at), (length, blocks)) =
            match (chunk.offset.split_last(), chunk.shape.0.split_last()) {
                (Some(offset), Some(shape)) => (offset, shape),
                _ => return Err(none()),
            };
        if blocks.iter().any(|blocks| *blocks != 1) {
            return Err(odd(format!(
                "its chunk at {:?} is of several",
                chunk.offset
            )));
        }
        for part in boxes(&block, *begin..begin + length) {
            let inside = part.offset.iter().zip(&strides);
            let first: u64 = inside.map(|(offset, stride)| offset * stride).sum();
            let corners = part.offset.iter().zip(at).zip(&block);
            let region = Region {
                offset: corners
                    .map(|((offset, number), side)| number * side + offset)
                    .collect(),
                shape: part.shape,
            };
            let run = Run {
                shape: chunk.shape.clone(),
                first: first - begin,
            };
            let lies = Lies {
                run: Some(run),
                ..lies.clone()
            };
            pieces.push((region, lies));
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunk: which block, and which of its elements.
    fn chunk(at: &[u64], begin: u64, length: u64) -> (Region, Lies) {
        let offset = at.iter().copied().chain([begin]).collect();
        let shape = at.iter().map(|_| 1).chain([length]).collect();
        let region = Region {
            offset,
            shape: Shape(shape),
        };
        let lies = Lies {
            file: "a".into(),
            bytes: 0..9,
            run: None,
        };
        (region, lies)
    }

    #[test]
    fn runs_of_blocks_are_pieces_of_the_whole() {
        // Two blocks of three rows of four; the second's elements from the middle of its first row on.
        let (whole, saved) = (Shape(vec![6, 4]), Shape(vec![2, 1, 12]));
        let made = pieces(&whole, &saved, &[chunk(&[1, 0], 2, 10)]).unwrap();
        let told: Vec<_> = made
            .iter()
            .map(|(region, lies)| {
                let run = lies.run.as_ref().unwrap();
                assert_eq!(run.shape.0, [1, 1, 10]);
                (region.offset.clone(), region.shape.0.clone(), run.first)
            })
            .collect();
        assert_eq!(
            told,
            [(vec![4, 0], vec![2, 4], 2), (vec![3, 2], vec![1, 2], 0)]
        );
    }

    #[test]
    fn what_is_no_run_of_a_block_is_refused() {
        let whole = Shape(vec![6, 4]);
        let refused = |saved: &[u64], chunk: (Region, Lies), words: &str| {
            let fault = pieces(&whole, &Shape(saved.to_vec()), &[chunk]).unwrap_err();
            assert!(fault.message.contains(words), "{words}: {fault:?}");
        };
        let usual = || chunk(&[1, 0], 2, 10);
        refused(&[4, 1, 6], usual(), "no blocks");
        refused(&[2, 1, 11], usual(), "no blocks");
        refused(&[2, 12], usual(), "no blocks");
        refused(&[0, 1, 24], usual(), "no blocks");
        refused(&[], usual(), "no blocks");
        let mut several = usual();
        several.0.shape.0[0] = 2;
        refused(&[2, 1, 12], several, "of several");
    }
}
