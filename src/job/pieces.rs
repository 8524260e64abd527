//! Whether source tensors that were read in pieces are what the source's manifest says.

use crate::exchange::{Operation, Topology, World, all_gather, all_reduce, exchange_values};
use crate::fault::Result;
use crate::job::rest::{self, Part};
use crate::plan::SourceTensor;
use crate::source::{Opened, Verify};
use crate::tensor::digest::{checksum, finish};
use crate::tensor::region::Region;
use crate::transport::{Moving, Sums, Traced};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// What a process has read of a tensor: name, first rank that it goes to, its bytes, those read, their
/// residue.
type Share = (Arc<str>, u32, u64, u64, u64);

/// What nobody has read of a tensor: name, first rank that the others go to, and of a dimension the
/// indices.
type Rest = (Arc<str>, u32, Indices);

/// Of a dimension, some of its indices.
type Indices = (u64, Vec<Range<u64>>);

/// What is left of a tensor is read for its digest alone where it is one of so many parts at most.
const REST_SHARE: u64 = 16;

/// Tensors of which it can't be told what was read, or of which more is left, are read once more where they come to
/// one of so many parts of what was read at most, or to so many bytes.
const AGAIN_SHARE: u64 = 64;
/// See [`AGAIN_SHARE`].
const AGAIN_BYTES: u64 = 8 << 20;

/// With what a source is proved.
#[derive(Clone, Copy)]
pub(super) struct Proving<'a> {
    pub(super) world: &'a World,
    pub(super) topology: &'a Topology,
    pub(super) opened: &'a Opened,
    pub(super) moving: &'a Moving,
    pub(super) verify: Verify,
}

impl Proving<'_> {
    /// Of how many parts of a tensor one may be left.
    pub(super) fn share(&self) -> u64 {
        match self.verify {
            Verify::All => 1,
            _ => REST_SHARE,
        }
    }

    /// The tensors that were read as a whole, and have other digests than those that are `known`: each
    /// process finds some. What nobody has read is read here: a small rest, and whole tensors that come to
    /// little; any if all is to be verified. Collective.
    ///
    /// # Errors
    /// The same on every process: [`crate::fault::Kind::Mpi`], or as reading.
    pub(super) fn damaged(
        &self,
        traced: &Traced,
        sums: &Sums,
        known: impl Fn(&str) -> Option<u64>,
    ) -> Result<BTreeSet<Arc<str>>> {
        let tensors = &self.opened.inventory.tensors;
        let mut shares = self.shares(traced, sums);
        let rests = self.rests(traced)?;
        if !rests.is_empty() {
            shares.extend(self.read(&rests)?);
        }
        let mut total = [sums.values().map(|(bytes, _)| *bytes).sum::<u64>()];
        all_reduce(self.world, &mut total, Operation::Sum)?;
        let read = joined(exchange_values(self.world, Ok(shares))?);
        let mut damaged = differing(&read, &known);
        let partly = read
            .iter()
            .filter(|((_, _, whole), (bytes, _))| whole != bytes);
        let partly = partly.map(|((name, _, _), _)| name.clone());
        let untold: Vec<Arc<str>> = partly.chain(traced.untold.iter().cloned()).collect();
        let untold = all_gather(self.world, &untold)?.into_iter().flatten();
        let untold: BTreeSet<Arc<str>> = untold.collect();
        let mut wholes: Vec<(u64, Part)> = Vec::new();
        for tensor in untold.iter().filter_map(|name| tensors.get(name)) {
            let Ok((shape, element_bytes)) = tensor.shape.in_bytes(tensor.dtype) else {
                continue;
            };
            let bytes = shape.0.iter().product::<u64>() * element_bytes;
            let part = Part {
                tensor: Arc::clone(tensor),
                first_rank: 0,
                regions: vec![Region::whole(&shape)],
            };
            wholes.push((bytes, part));
        }
        let parts = self.within(wholes, total[0]);
        if !parts.is_empty() {
            let shares = self.read(&parts)?;
            let read = joined(exchange_values(self.world, Ok(shares))?);
            damaged.extend(differing(&read, &known));
        }
        Ok(damaged)
    }

    /// Those that are read once more as a whole, where so much was read: any if all is to be verified, else the
    /// smallest ones that come to little. The same on all processes.
    fn within(&self, mut wholes: Vec<(u64, Part)>, read: u64) -> Vec<Part> {
        let most = match self.verify {
            Verify::All => u64::MAX,
            _ => (read / AGAIN_SHARE).max(AGAIN_BYTES),
        };
        wholes.sort_by(|(one, a), (other, b)| (one, &a.tensor.name).cmp(&(other, &b.tensor.name)));
        let mut sum = 0u64;
        let few = wholes.into_iter().take_while(|(bytes, _)| {
            sum = sum.saturating_add(*bytes);
            sum <= most
        });
        few.map(|(_, part)| part).collect()
    }

    /// What this process has read, and whom it tells.
    fn shares(&self, traced: &Traced, sums: &Sums) -> Vec<(u32, Share)> {
        let wholes = (0u32..).zip(&traced.wholes);
        let shares = wholes.filter_map(|(number, whole)| {
            let (bytes, residue) = *sums.get(&number)?;
            let name = whole.name.clone();
            let share: Share = (name, whole.first_rank, whole.bytes, bytes, residue);
            Some((referee(self.world, &whole.name), share))
        });
        shares.collect()
    }

    /// What no process reads of the tensors: the same on all. Collective.
    fn rests(&self, traced: &Traced) -> Result<Vec<Part>> {
        let wholes = traced.wholes.iter();
        let parted = wholes.filter(|whole| !whole.rest.1.is_empty());
        let mine = parted.map(|whole| {
            let (dimension, ranges) = &whole.rest;
            let rest = (*dimension as u64, ranges.clone());
            (whole.name.clone(), whole.first_rank, rest)
        });
        let mine: Vec<Rest> = mine.collect();
        let all = all_gather(self.world, &mine)?.into_iter().flatten();
        let once: BTreeMap<(Arc<str>, u32), Indices> = all
            .map(|(name, first_rank, rest)| ((name, first_rank), rest))
            .collect();
        let parts = once.iter().filter_map(|((name, first_rank), rest)| {
            let tensor = self.opened.inventory.tensors.get(name)?;
            Some(Part {
                tensor: Arc::clone(tensor),
                first_rank: *first_rank,
                regions: regions(tensor, rest)?,
            })
        });
        Ok(parts.collect())
    }

    /// Reads `parts` for their digests, and says what this process has read. Collective.
    fn read(&self, parts: &[Part]) -> Result<Vec<(u32, Share)>> {
        let source = &self.opened.source;
        let (traced, sums) = rest::read(self.world, self.topology, source, parts, self.moving)?;
        Ok(self.shares(&traced, &sums))
    }
}

/// The regions of `tensor` with some indices of a dimension.
fn regions(tensor: &SourceTensor, (dimension, ranges): &Indices) -> Option<Vec<Region>> {
    let (shape, _) = tensor.shape.in_bytes(tensor.dtype).ok()?;
    let dimension = usize::try_from(*dimension).ok()?;
    let region = |range: &Range<u64>| {
        let mut region = Region::whole(&shape);
        *region.offset.get_mut(dimension)? = range.start;
        *region.shape.0.get_mut(dimension)? = range.end - range.start;
        Some(region)
    };
    ranges.iter().map(region).collect()
}

/// Of a tensor for the ranks from one on, of so many bytes: those that were read, and their residue.
type Read = HashMap<(Arc<str>, u32, u64), (u64, u64)>;

/// Puts together what all have read.
fn joined(shares: Vec<Share>) -> Read {
    let mut read = Read::new();
    for (name, first_rank, whole, bytes, residue) in shares {
        let sum = read.entry((name, first_rank, whole)).or_default();
        *sum = (sum.0 + bytes, sum.1 ^ residue);
    }
    read
}

/// Those that were read as a whole, and are not as they were.
fn differing(read: &Read, known: impl Fn(&str) -> Option<u64>) -> BTreeSet<Arc<str>> {
    let whole = read
        .iter()
        .filter(|((_, _, whole), (bytes, _))| whole == bytes);
    let damaged = whole.filter(|((name, _, whole), (_, residue))| {
        known(name).is_some_and(|old| old != finish(*residue, *whole))
    });
    damaged.map(|((name, _, _), _)| name.clone()).collect()
}

/// The process that puts together what all have read of a tensor.
fn referee(world: &World, name: &str) -> u32 {
    let number = checksum(name.as_bytes()) % u64::from(world.size());
    u32::try_from(number).unwrap_or_default()
}
