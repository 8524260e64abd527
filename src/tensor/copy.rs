//! The hot loops: free functions on slices.

use crate::tensor::strided::{Loop, StridedCopy};

/// Runs `copy` from `source` to `destination`; its offsets count from the slices' beginnings.
///
/// Returns false, having copied nothing, if the copy reaches outside either slice.
#[must_use]
pub fn run(copy: &StridedCopy, source: &[u8], destination: &mut [u8]) -> bool {
    run_from(copy, copy.source, source, destination)
}

/// As [`run`], but the copy's first source byte is byte `first` of `source`.
#[must_use]
pub fn run_from(copy: &StridedCopy, first: u64, source: &[u8], destination: &mut [u8]) -> bool {
    let index = |value: u64| usize::try_from(value).ok();
    let end = |first: u64, span: u64| first.checked_add(span).and_then(index);
    let fits = end(first, copy.source_span()).is_some_and(|end| end <= source.len())
        && end(copy.destination, copy.destination_span())
            .is_some_and(|end| end <= destination.len());
    let (Some(s), Some(d), Some(run), true) = (
        index(first),
        index(copy.destination),
        index(copy.run_bytes),
        fits,
    ) else {
        return false;
    };
    let (source, destination) = (&source[s..], &mut destination[d..]);
    match copy.loops[..] {
        [] => destination[..run].copy_from_slice(&source[..run]),
        [one] => {
            let Some(step) = Step::new(&one) else {
                return false;
            };
            rows(&step, run, source, destination);
        }
        _ => {
            let loops: Option<Vec<Step>> = copy.loops.iter().map(Step::new).collect();
            let Some(loops) = loops else { return false };
            nest(&loops, run, source, destination);
        }
    }
    true
}

/// A loop in the machine's own integers.
struct Step {
    count: usize,
    source: usize,
    destination: usize,
}

impl Step {
    fn new(l: &Loop) -> Option<Step> {
        Some(Step {
            count: usize::try_from(l.count).ok()?,
            source: usize::try_from(l.source_stride).ok()?,
            destination: usize::try_from(l.destination_stride).ok()?,
        })
    }
}

fn nest(loops: &[Step], run: usize, source: &[u8], destination: &mut [u8]) {
    match loops {
        [] => destination[..run].copy_from_slice(&source[..run]),
        [one] => rows(one, run, source, destination),
        [outer, inner] if run <= 8 => plane(outer, inner, run, source, destination),
        [outer, rest @ ..] => {
            for i in 0..outer.count {
                let (s, d) = (i * outer.source, i * outer.destination);
                nest(rest, run, &source[s..], &mut destination[d..]);
            }
        }
    }
}

fn rows(step: &Step, run: usize, source: &[u8], destination: &mut [u8]) {
    match run {
        1 => elements::<1>(step, source, destination),
        2 => elements::<2>(step, source, destination),
        4 => elements::<4>(step, source, destination),
        8 => elements::<8>(step, source, destination),
        16 => elements::<16>(step, source, destination),
        _ => {
            for i in 0..step.count {
                let (s, d) = (i * step.source, i * step.destination);
                destination[d..d + run].copy_from_slice(&source[s..s + run]);
            }
        }
    }
}

fn elements<const N: usize>(step: &Step, source: &[u8], destination: &mut [u8]) {
    for i in 0..step.count {
        let (s, d) = (i * step.source, i * step.destination);
        destination[d..d + N].copy_from_slice(&source[s..s + N]);
    }
}

/// Two loops around single elements (a transpose, usually), in blocks that stay in the first cache.
fn plane(outer: &Step, inner: &Step, run: usize, source: &[u8], destination: &mut [u8]) {
    const BLOCK: usize = 32;
    for i in (0..outer.count).step_by(BLOCK) {
        for j in (0..inner.count).step_by(BLOCK) {
            let block = Step {
                count: BLOCK.min(inner.count - j),
                ..*inner
            };
            for i in i..(i + BLOCK).min(outer.count) {
                let s = i * outer.source + j * inner.source;
                let d = i * outer.destination + j * inner.destination;
                rows(&block, run, &source[s..], &mut destination[d..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation)]

    use super::*;

    #[test]
    fn transposes_elements_of_every_width() {
        for width in [1u64, 2, 3, 4, 8, 16] {
            let (rows, columns) = (37u64, 70u64);
            let loops = vec![
                Loop {
                    count: rows,
                    source_stride: columns * width,
                    destination_stride: width,
                },
                Loop {
                    count: columns,
                    source_stride: width,
                    destination_stride: rows * width,
                },
            ];
            let copy = StridedCopy::new(0, 0, width, loops);
            let source: Vec<u8> = (0..rows * columns * width)
                .map(|i| (i * 7 % 251) as u8)
                .collect();
            let mut destination = vec![0; source.len()];
            assert!(run(&copy, &source, &mut destination));
            for row in 0..rows {
                for column in 0..columns {
                    for byte in 0..width {
                        let s = (row * columns + column) * width + byte;
                        let d = (column * rows + row) * width + byte;
                        let at = |index: u64| usize::try_from(index).unwrap();
                        assert_eq!(destination[at(d)], source[at(s)]);
                    }
                }
            }
        }
    }

    #[test]
    fn refuses_to_reach_outside() {
        let copy = StridedCopy::new(2, 0, 4, vec![]);
        assert!(!run(&copy, &[0; 5], &mut [0; 4]));
        assert!(!run(&copy, &[0; 6], &mut [0; 3]));
        assert!(run(&copy, &[0; 6], &mut [0; 4]));
    }
}
