//! The copy nest: a strided copy between two byte ranges, built, merged and clipped.

/// One loop of a strided copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loop {
    /// How many times.
    pub count: u64,
    /// Bytes between two steps on the source side.
    pub source_stride: u64,
    /// Bytes between two steps on the destination side.
    pub destination_stride: u64,
}

/// A nest of loops around a contiguous run: what a transfer is in bytes.
///
/// Loops are sorted outermost first by their destination stride, adjacent ones merged, so `run_bytes`
/// is the longest run contiguous on both sides. A step of a loop never overlaps the next one on the
/// destination side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StridedCopy {
    /// First byte on the source side.
    pub source: u64,
    /// First byte on the destination side.
    pub destination: u64,
    /// Length of a contiguous run.
    pub run_bytes: u64,
    /// The loops around it, outermost first.
    pub loops: Vec<Loop>,
}

impl StridedCopy {
    /// Builds and merges the nest for elements of `element_bytes` visited by `loops` in any order.
    #[must_use]
    pub fn new(source: u64, destination: u64, element_bytes: u64, mut loops: Vec<Loop>) -> Self {
        loops.retain(|l| l.count != 1);
        loops.sort_by_key(|l| std::cmp::Reverse(l.destination_stride));
        let mut run_bytes = element_bytes;
        while let Some(last) = loops.last()
            && last.source_stride == run_bytes
            && last.destination_stride == run_bytes
        {
            run_bytes *= last.count;
            loops.pop();
        }
        let mut merged: Vec<Loop> = Vec::with_capacity(loops.len());
        for inner in loops {
            match merged.last_mut() {
                Some(outer)
                    if outer.source_stride == inner.source_stride * inner.count
                        && outer.destination_stride == inner.destination_stride * inner.count =>
                {
                    *outer = Loop {
                        count: outer.count * inner.count,
                        ..inner
                    };
                }
                _ => merged.push(inner),
            }
        }
        StridedCopy {
            source,
            destination,
            run_bytes,
            loops: merged,
        }
    }

    /// The copy that lays out a rectangle of `shape` row after row from where its elements lie `strides` bytes
    /// apart along each dimension, the first one at `source`.
    #[must_use]
    pub fn in_rows(source: u64, shape: &[u64], strides: &[u64], element_bytes: u64) -> Self {
        let mut row = element_bytes;
        let mut loops = Vec::with_capacity(shape.len());
        for (count, stride) in shape.iter().zip(strides).rev() {
            loops.push(Loop {
                count: *count,
                source_stride: *stride,
                destination_stride: row,
            });
            row *= count;
        }
        StridedCopy::new(source, 0, element_bytes, loops)
    }

    /// Bytes copied.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.loops.iter().map(|l| l.count).product::<u64>() * self.run_bytes
    }

    /// Distance from the first to one past the last byte touched on the source side.
    #[must_use]
    pub fn source_span(&self) -> u64 {
        self.loops
            .iter()
            .map(|l| (l.count - 1) * l.source_stride)
            .sum::<u64>()
            + self.run_bytes
    }

    /// Distance from the first to one past the last byte touched on the destination side.
    #[must_use]
    pub fn destination_span(&self) -> u64 {
        span(&self.loops, self.run_bytes)
    }

    /// Whether `other` reads the same bytes in the same order.
    #[must_use]
    pub fn reads_same(&self, other: &StridedCopy) -> bool {
        let step = |l: &Loop| (l.count, l.source_stride);
        self.source == other.source
            && self.run_bytes == other.run_bytes
            && self.loops.iter().map(step).eq(other.loops.iter().map(step))
    }

    /// Appends to `out` the parts of the copy whose destination bytes lie in `begin..end`.
    pub fn clip(&self, begin: u64, end: u64, out: &mut Vec<StridedCopy>) {
        self.clip_from(0, self.source, self.destination, begin..end, out);
    }

    fn clip_from(
        &self,
        depth: usize,
        source: u64,
        destination: u64,
        window: std::ops::Range<u64>,
        out: &mut Vec<StridedCopy>,
    ) {
        let loops = &self.loops[depth..];
        let extent = span(loops, self.run_bytes);
        if destination >= window.end || destination + extent <= window.start {
            return;
        }
        if window.start <= destination && destination + extent <= window.end {
            out.push(StridedCopy {
                source,
                destination,
                run_bytes: self.run_bytes,
                loops: loops.to_vec(),
            });
            return;
        }
        let Some((first, rest)) = loops.split_first() else {
            let begin = window.start.max(destination);
            let end = window.end.min(destination + self.run_bytes);
            out.push(StridedCopy {
                source: source + (begin - destination),
                destination: begin,
                run_bytes: end - begin,
                loops: Vec::new(),
            });
            return;
        };
        let step = first.destination_stride;
        let inner = span(rest, self.run_bytes);
        // Steps `full` lie wholly inside the window, one step on either side may be cut by it.
        let below = window.start.saturating_sub(destination);
        let first_met = if below < inner {
            0
        } else {
            (below - inner) / step + 1
        };
        let first_full = below.div_ceil(step);
        let room = window.end - destination;
        let met_end = room.div_ceil(step).min(first.count);
        let full_end = if room < inner {
            0
        } else {
            ((room - inner) / step + 1).min(first.count)
        };
        let at = |i: u64| (source + i * first.source_stride, destination + i * step);
        for i in first_met..first_full.min(met_end) {
            let (source, destination) = at(i);
            self.clip_from(depth + 1, source, destination, window.clone(), out);
        }
        if first_full < full_end {
            let (source, destination) = at(first_full);
            let count = full_end - first_full;
            out.push(self.steps(source, destination, loops, count));
        }
        for i in first_full.max(full_end)..met_end {
            let (source, destination) = at(i);
            self.clip_from(depth + 1, source, destination, window.clone(), out);
        }
    }

    /// `count` steps of the first of `loops`, whole, from these offsets on.
    fn steps(&self, source: u64, destination: u64, loops: &[Loop], count: u64) -> StridedCopy {
        let mut loops = loops.to_vec();
        if count == 1 {
            loops.remove(0);
        } else {
            loops[0].count = count;
        }
        StridedCopy {
            source,
            destination,
            run_bytes: self.run_bytes,
            loops,
        }
    }

    /// The same copy written densely, run after run, from destination byte `at` on.
    #[must_use]
    pub fn packed(&self, at: u64) -> StridedCopy {
        let mut copy = StridedCopy {
            destination: at,
            ..self.clone()
        };
        let mut stride = self.run_bytes;
        for l in copy.loops.iter_mut().rev() {
            l.destination_stride = stride;
            stride *= l.count;
        }
        copy
    }

    /// The same copy read from a dense packing that begins at source byte `at`.
    #[must_use]
    pub fn unpacked(&self, at: u64) -> StridedCopy {
        let mut copy = StridedCopy {
            source: at,
            ..self.clone()
        };
        let mut stride = self.run_bytes;
        for l in copy.loops.iter_mut().rev() {
            l.source_stride = stride;
            stride *= l.count;
        }
        copy
    }
}

fn span(loops: &[Loop], run_bytes: u64) -> u64 {
    loops
        .iter()
        .map(|l| (l.count - 1) * l.destination_stride)
        .sum::<u64>()
        + run_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every (source, destination) byte pair of a copy, by the plainest loops there are.
    fn pairs(copy: &StridedCopy) -> Vec<(u64, u64)> {
        let mut starts = vec![(copy.source, copy.destination)];
        for l in &copy.loops {
            starts = starts
                .iter()
                .flat_map(|(s, d)| {
                    (0..l.count)
                        .map(move |i| (s + i * l.source_stride, d + i * l.destination_stride))
                })
                .collect();
        }
        let runs = starts
            .iter()
            .flat_map(|(s, d)| (0..copy.run_bytes).map(move |i| (s + i, d + i)));
        runs.collect()
    }

    fn nest() -> impl proptest::strategy::Strategy<Value = StridedCopy> {
        let dims = proptest::collection::vec((1u64..4, 0u64..3, 0u64..3), 0..4);
        (dims, 1u64..5, 0u64..9, 0u64..9).prop_map(|(dims, element, source, destination)| {
            let (mut s, mut d, mut loops) = (element, element, Vec::new());
            for (count, gap_source, gap_destination) in dims {
                s += gap_source;
                d += gap_destination;
                loops.push(Loop {
                    count,
                    source_stride: s,
                    destination_stride: d,
                });
                s *= count;
                d *= count;
            }
            StridedCopy::new(source, destination, element, loops)
        })
    }

    proptest! {
        #[test]
        fn clipped_parts_are_the_bytes_in_the_window(copy in nest(), begin in 0u64..80, len in 1u64..60) {
            let mut parts = Vec::new();
            copy.clip(begin, begin + len, &mut parts);
            let mut found: Vec<_> = parts.iter().flat_map(pairs).collect();
            let mut wanted = pairs(&copy);
            wanted.retain(|(_, d)| (begin..begin + len).contains(d));
            found.sort_unstable();
            wanted.sort_unstable();
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn packing_and_unpacking_meet(copy in nest()) {
            prop_assert_eq!(pairs(&copy).len() as u64, copy.bytes());
            let via = pairs(&copy.packed(7));
            let back = pairs(&copy.unpacked(7));
            for ((pair, (s, middle)), (again, d)) in pairs(&copy).iter().zip(via).zip(back) {
                prop_assert_eq!((*pair, middle), ((s, d), again));
            }
        }
    }
}
