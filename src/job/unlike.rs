//! Two copies that differ, told so that somebody can go on: where each is, where they differ first, what to do.

use crate::catalog::Place;
use crate::exchange::{World, all_gather_agreed};
use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::job::lying::{in_rows, read};
use crate::source::{Opened, Source};
use crate::tensor::digest::{residue, shift};
use crate::tensor::shape::Shape;
use crate::tensor::strided::StridedCopy;
use crate::transport::{Filler, IoMode, Readers};
use std::ops::Range;

/// Parts that a range is cut into to find where two copies differ.
const PARTS: u64 = 1024;

/// Holders of a shard that are compared with one that is unlike another.
const HOLDERS_MAX: usize = 64;

/// Two places that hold different bytes of what should be one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unlike {
    /// The places.
    pub(super) places: [Place; 2],
    /// The first element of the shard that differs; none if types or shapes do, or nothing does any more.
    pub(super) first: Option<u64>,
}

impl Unlike {
    /// Looks where two copies differ first. Collective, with the same places on each process.
    ///
    /// # Errors
    /// The same on every process, as reading them.
    pub(super) fn of(world: &World, source: &Source, places: [Place; 2]) -> Result<Unlike> {
        let [one, other] = places.map(|place| source.catalog.entry(place));
        let alike = (one.dtype, &one.shape) == (other.dtype, &other.shape);
        let bytes = one.shape.bytes(one.dtype).unwrap_or_default();
        let mut left = 0..if alike { bytes } else { 0 };
        let mut differs = false;
        while left.end > left.start {
            let step = (left.end - left.start).div_ceil(PARTS);
            let mine = sums(source, places, left.clone(), step);
            let all = all_gather_agreed(world, mine)?;
            let mut told: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
            for (number, sums) in all.into_iter().flatten() {
                if let Some(told) = told.get_mut(number as usize) {
                    *told = sums;
                }
            }
            let [one, other] = &told;
            let Some(part) = one.iter().zip(other).position(|(one, other)| one != other) else {
                break;
            };
            differs = true;
            let begin = left.start + part as u64 * step;
            left = begin..(begin + step).min(left.end);
            if step == 1 {
                break;
            }
        }
        let width = u64::from(one.dtype.bits()).max(1);
        let first = differs.then(|| left.start * 8 / width);
        Ok(Unlike { places, first })
    }

    /// The copy at `place` and the first other holder's that is unlike it. Collective.
    ///
    /// # Errors
    /// As [`Unlike::of`].
    pub(super) fn to_others(
        world: &World,
        opened: &Opened,
        name: &str,
        place: Place,
    ) -> Result<Unlike> {
        let source = &opened.source;
        let tensor = opened.inventory.tensors.get(name);
        let spreads = tensor.iter().flat_map(|tensor| &tensor.spreads);
        let own = spreads
            .clone()
            .find(|spread| spread.ranks().contains(&place.rank));
        let mut others: Vec<Place> = Vec::new();
        if let Some(own) = own {
            let cell = own.layout.cell(place.rank - own.first_rank);
            let alike = spreads.filter(|spread| spread.grid.parts() == own.grid.parts());
            let holders = alike.flat_map(|spread| spread.holders(&cell).collect::<Vec<_>>());
            let holders = holders.filter(|rank| *rank != place.rank);
            others.extend(holders.filter_map(|rank| source.catalog.find(rank, name)));
        }
        others.sort_unstable();
        for other in others.iter().take(HOLDERS_MAX) {
            let found = Unlike::of(world, source, ordered([*other, place]))?;
            if found.first.is_some() {
                return Ok(found);
            }
        }
        let other = others.first().copied().unwrap_or(place);
        Ok(Unlike {
            places: ordered([other, place]),
            first: None,
        })
    }

    /// Both places, and where they differ first.
    pub(super) fn told(&self, source: &Source) -> String {
        let [one, other] = self.places.map(|place| {
            let file = &source.catalog.file(place).path;
            format!("rank {} ({file})", place.rank)
        });
        let shape = &source.catalog.entry(self.places[0]).shape;
        match self.first {
            Some(first) => format!(
                "{one} and {other} hold different bytes, first at {}",
                at(shape, first)
            ),
            None => format!("{one} and {other} hold different bytes"),
        }
    }

    /// The fault of two copies of tensor `name`.
    pub(super) fn fault(&self, source: &Source, name: &str) -> Fault {
        let [_, other] = self.places;
        let path = source.base.join(&source.catalog.file(other).path);
        let told = self.told(source);
        let message = format!("{told}; the source strategy says that these are copies");
        Fault::new(Kind::Differs, message)
            .tensor(name)
            .rank(other.rank)
            .file(path.display().to_string())
            .hint(HINT)
    }
}

/// What to do about two copies that differ.
const HINT: &str = "is it the strategy that these files were saved by? If it is, one of the two is damaged: where there is a \
                    shardloom.json, `verify` says which, and `verify --repair` mends it by the other; --verify all compares \
                    every byte, --verify none reads one of each and asks no further";

fn ordered(mut places: [Place; 2]) -> [Place; 2] {
    places.sort_unstable();
    places
}

/// Element number `number` of a shard, by its indices.
fn at(shape: &Shape, number: u64) -> String {
    let strides = shape.strides();
    let index = strides.iter().zip(&shape.0);
    let index: Vec<String> = index
        .map(|(stride, size)| (number / stride.max(&1) % size.max(&1)).to_string())
        .collect();
    match &index[..] {
        [] => "its only element".to_owned(),
        index => format!("[{}]", index.join(", ")),
    }
}

/// Of each copy that this process reads for the others: sums of `range` of it in steps. Local.
fn sums(
    source: &Source,
    places: [Place; 2],
    range: Range<u64>,
    step: u64,
) -> Result<Vec<(u32, Vec<u64>)>> {
    let readers = Readers::new(&source.base, &source.catalog, IoMode::Auto);
    let mut filler = Filler::new(&readers);
    let mut found = Vec::new();
    for (number, place) in (0u32..).zip(places) {
        if source.reach.owner(place.rank) != Some(source.reach.process) {
            continue;
        }
        let copy = in_rows(&source.catalog, place);
        let mut sums = Vec::new();
        let mut begin = range.start;
        while begin < range.end {
            let end = (begin + step).min(range.end);
            sums.push(sum(&mut filler, &copy, place, begin..end)?);
            begin = end;
        }
        found.push((number, sums));
    }
    Ok(found)
}

/// Bytes read at once for a sum.
const CHUNK_BYTES: u64 = 1 << 20;

/// The residue of bytes `range` of what `copy` lays out.
fn sum(
    filler: &mut Filler<'_>,
    copy: &StridedCopy,
    place: Place,
    range: Range<u64>,
) -> Result<u64> {
    let (mut sum, mut at) = (0, range.start);
    while at < range.end {
        let length = CHUNK_BYTES.min(range.end - at);
        let mut bytes = zeroed(usize::try_from(length).unwrap_or(usize::MAX))?;
        read(filler, copy, place, at, &mut bytes)?;
        sum = shift(sum, length) ^ residue(&bytes);
        at += length;
    }
    Ok(sum)
}
