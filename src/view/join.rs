//! Pieces one after the other: what makes a tensor of another, which is made of a third.

use super::{AxisMap, Piece};

/// Indices `first + step * i`, `i` below `count`; `axis` is the domain axis that `i` counts, if any.
#[derive(Clone, Copy)]
struct Steps {
    first: u64,
    step: u64,
    count: u64,
    axis: Option<usize>,
}

impl Steps {
    fn of(map: AxisMap, domain: &[u64]) -> Option<Steps> {
        Some(match map {
            AxisMap::Constant(first) => Steps {
                first,
                step: 1,
                count: 1,
                axis: None,
            },
            AxisMap::Affine { offset, step, axis } => Steps {
                first: offset,
                step: step.max(1),
                count: *domain.get(axis)?,
                axis: Some(axis),
            },
        })
    }

    /// The index of `value`, if it is one of these.
    fn place(&self, value: u64) -> Option<u64> {
        let distance = value.checked_sub(self.first)?;
        let place = distance / self.step;
        (distance.is_multiple_of(self.step) && place < self.count).then_some(place)
    }

    /// What both have: how many, and for each of them its first index and the distance to the next.
    fn meet(&self, other: &Steps) -> Option<(u64, [(u64, u64); 2])> {
        let last = |s: &Steps| Some(s.first + s.count.checked_sub(1)? * s.step);
        let end = last(self)?.min(last(other)?);
        // Within so many of the one's steps the other's come round again.
        let mut next = self.first;
        if other.first > next {
            next += (other.first - next).div_ceil(self.step) * self.step;
        }
        let mut tries = 0;
        while next <= end && other.place(next).is_none() {
            next += self.step;
            tries += 1;
            if tries > other.step {
                return None;
            }
        }
        let places = [self.place(next)?, other.place(next)?];
        let together = self.step / gcd(self.step, other.step) * other.step;
        let count = (end.checked_sub(next)?) / together + 1;
        let [mine, theirs] = [together / self.step, together / other.step];
        Some((count, [(places[0], mine), (places[1], theirs)]))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Piece {
    /// The part of `self` whose source elements `before` makes, as a piece of what that is made of; none
    /// if it makes none of them. `before` makes a part of what `self` has as its source.
    #[must_use]
    pub fn after(&self, before: &Piece) -> Option<Piece> {
        if self.source_map.len() != before.destination_map.len() {
            return None;
        }
        let mut domain = Vec::new();
        // Of each axis of the one and the other: the first index, the step, and the new axis.
        let mut first = vec![None; before.domain.len()];
        let mut second = vec![None; self.domain.len()];
        for (axis, (one, other)) in before
            .destination_map
            .iter()
            .zip(&self.source_map)
            .enumerate()
        {
            let one = Steps::of(*one, &before.domain)?;
            let other = Steps::of(*other, &self.domain)?;
            let (count, [mine, theirs]) = one.meet(&other)?;
            domain.push(count);
            if let Some(place) = one.axis.and_then(|axis| first.get_mut(axis)) {
                *place = Some((mine.0, mine.1, axis));
            }
            if let Some(place) = other.axis.and_then(|axis| second.get_mut(axis)) {
                *place = Some((theirs.0, theirs.1, axis));
            }
        }
        Some(Piece {
            source: before.source.clone(),
            domain,
            source_map: through(&before.source_map, &first)?,
            destination_map: through(&self.destination_map, &second)?,
        })
    }
}

/// A map whose axes are counted along others: from a first index on, in steps.
fn through(map: &[AxisMap], axes: &[Option<(u64, u64, usize)>]) -> Option<Vec<AxisMap>> {
    let of = |map: &AxisMap| match *map {
        AxisMap::Constant(index) => Some(AxisMap::Constant(index)),
        AxisMap::Affine { offset, step, axis } => {
            let (begin, every, axis) = (*axes.get(axis)?)?;
            Some(AxisMap::Affine {
                offset: offset + step * begin,
                step: step * every,
                axis,
            })
        }
    };
    map.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(offset: u64, step: u64, axis: usize) -> AxisMap {
        AxisMap::Affine { offset, step, axis }
    }

    /// Which element of the source each of the destination's is.
    fn pairs(piece: &Piece) -> Vec<(u64, u64)> {
        let at = |map: &AxisMap, i: u64| match map {
            AxisMap::Constant(index) => *index,
            AxisMap::Affine { offset, step, .. } => offset + step * i,
        };
        let all = 0..piece.domain[0];
        let mut all: Vec<_> = all
            .map(|i| {
                (
                    at(&piece.destination_map[0], i),
                    at(&piece.source_map[0], i),
                )
            })
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn one_after_the_other_is_both() {
        let piece = |count: u64, from: (u64, u64), to: (u64, u64)| Piece {
            source: "w".into(),
            domain: vec![count],
            source_map: vec![rows(from.0, from.1, 0)],
            destination_map: vec![rows(to.0, to.1, 0)],
        };
        for step in 1..4 {
            for every in 1..4 {
                for (first, begin) in [(0, 0), (2, 5), (5, 1)] {
                    let before = piece(9, (3, 1), (first, step));
                    let after = piece(8, (begin, every), (1, 2));
                    let mut due = Vec::new();
                    for (to, middle) in pairs(&after) {
                        let made = pairs(&before);
                        let made = made.iter().find(|(place, _)| *place == middle);
                        due.extend(made.map(|(_, from)| (to, *from)));
                    }
                    let found = after.after(&before).map_or(Vec::new(), |p| pairs(&p));
                    assert_eq!(found, due, "{step} {every} {first} {begin}");
                }
            }
        }
    }
}
