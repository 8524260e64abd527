//! Which blocks of a site's files a node writes, where several nodes write the same ones.
//!
//! What two nodes write to one page of a network file system may be lost: each keeps the whole page, and
//! sends it back with what the other has written missing. So all of a block of a file falls to one node.

use crate::catalog::{Catalog, Entry, FileSchema, Place};
use crate::plan::dequantise::SCALES;
use crate::plan::ratio::portion;
use crate::plan::work::Work;
use crate::tensor::dtype::Dtype;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;

/// What falls to this node, and its lanes: its processes, or their threads.
pub(super) struct Nodes {
    /// Of the bytes of the site's files, laid end to end: a block whose first byte is in it is this
    /// node's, unless nodes see different sources.
    share: Range<u64>,
    block_bytes: u64,
    /// Place of this process, or thread, among those of its node.
    lane: u64,
    lanes: u64,
    /// Whether files of a structure can be cut into blocks, by its address.
    cut: RefCell<HashMap<usize, bool>>,
    /// The answer that was given last.
    cut_last: Cell<(usize, bool)>,
    /// Whose the last block is that was asked for, by rank and file.
    last: RefCell<HashMap<(u32, u32), (u64, bool)>>,
}

/// A place that a unit is written to.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) place: Place,
    /// Where its file begins among the site's bytes.
    pub(super) file: u64,
    /// Where the tensor begins in the file.
    pub(super) begin: u64,
    /// Its bytes there.
    pub(super) bytes: u64,
    /// Bytes of the file's blocks; none if it is one.
    pub(super) block_bytes: Option<u64>,
}

impl Target {
    /// The block of the file that byte `at` of the tensor is in.
    fn block(&self, at: u64) -> u64 {
        match self.block_bytes {
            Some(bytes) => (self.begin + at) / bytes,
            None => 0,
        }
    }

    /// First byte, among the site's, of the block that byte `at` of the tensor is in.
    fn position(&self, at: u64) -> u64 {
        self.file + self.block(at) * self.block_bytes.unwrap_or_default()
    }

    /// The last byte.
    fn last(&self) -> u64 {
        self.bytes.saturating_sub(1)
    }
}

impl Nodes {
    /// None if one node alone writes these files. `total` are the bytes of the site's files.
    pub(super) fn of(work: &Work<'_>, total: u64) -> Option<Self> {
        let (reach, site) = (work.reach, work.site);
        let block_bytes = site.division?.block_bytes;
        let processes = reach.node_of.len() as u64;
        let threads = u64::from(site.processes) / processes.max(1);
        let node = reach.node() as usize;
        let members = reach.nodes.get(node)?;
        let place = members.iter().position(|m| *m == reach.process)? as u64;
        let before: usize = reach.nodes[..node].iter().map(Vec::len).sum();
        let bound = |process: u64| portion(total, process, processes);
        let before = before as u64;
        let here = members.len() as u64;
        Some(Nodes {
            share: bound(before)..bound(before + here),
            block_bytes,
            lane: place * threads + u64::from(site.index) % threads.max(1),
            lanes: here * threads,
            cut: RefCell::default(),
            cut_last: Cell::default(),
            last: RefCell::default(),
        })
    }

    /// The bytes of the site's files that fall to this node.
    pub(super) fn share(&self) -> &Range<u64> {
        &self.share
    }

    /// The tensor at `place`, in a file that begins at byte `file` of the site's.
    pub(super) fn target(&self, destination: &Catalog, place: Place, file: u64) -> Target {
        let schema = &destination.file(place).schema;
        let entry = &schema.entries[place.entry as usize];
        let address = std::ptr::from_ref::<FileSchema>(schema).addr();
        let cut = match self.cut_last.get() {
            (last, cut) if last == address => cut,
            _ => {
                let mut known = self.cut.borrow_mut();
                let cut = known.entry(address);
                *cut.or_insert_with(|| can_be_cut(schema, self.block_bytes))
            }
        };
        self.cut_last.set((address, cut));
        Target {
            place,
            file,
            begin: entry.segments.first().map_or(0, |segment| segment.start),
            bytes: entry.bytes(),
            block_bytes: cut.then_some(self.block_bytes),
        }
    }

    /// Whether any block of `target` is this node's by its place.
    pub(super) fn meets(&self, target: &Target) -> bool {
        let last = target.position(target.last());
        target.position(0) < self.share.end && last >= self.share.start
    }

    /// Whether all blocks of `target` are this node's by their place.
    pub(super) fn has_all(&self, target: &Target) -> bool {
        self.has(target, 0) && self.has(target, target.last())
    }

    /// Whether the block that byte `at` of `target` is in is this node's by its place.
    pub(super) fn has(&self, target: &Target, at: u64) -> bool {
        self.share.contains(&target.position(at))
    }

    /// The same where a block is whose its first bytes are: `choose` is asked once a block. To be
    /// asked of all windows of the site, in order.
    pub(super) fn takes(&self, target: &Target, at: u64, choose: impl FnOnce() -> bool) -> bool {
        let block = target.block(at);
        let mut known = self.last.borrow_mut();
        let last = known.get(&(target.place.rank, target.place.file));
        if let Some((_, ours)) = last.filter(|(number, _)| *number == block) {
            return *ours;
        }
        let ours = choose();
        known.insert((target.place.rank, target.place.file), (block, ours));
        ours
    }

    /// Leaves all blocks of `targets` to other nodes; false, and nothing is done, if one of them has
    /// begun here.
    pub(super) fn leave(&self, targets: &[Target]) -> bool {
        let mut known = self.last.borrow_mut();
        let begun = |target: &Target| {
            let last = known.get(&(target.place.rank, target.place.file));
            last.is_some_and(|(number, ours)| *ours && *number == target.block(0))
        };
        if targets.iter().any(begun) {
            return false;
        }
        for target in targets {
            let file = (target.place.rank, target.place.file);
            known.insert(file, (target.block(target.last()), false));
        }
        true
    }

    /// Whether what lies at byte `position` of the site's falls to this lane of the node.
    pub(super) fn lane_has(&self, position: u64) -> bool {
        let length = self.share.end.saturating_sub(self.share.start).max(1);
        let inside = position.saturating_sub(self.share.start).min(length - 1);
        portion(self.lanes, inside, length) == self.lane
    }
}

/// Whether a block never ends within an element, nor a tensor lies in parts, and tensors lie in the order
/// in which they are planned.
fn can_be_cut(schema: &FileSchema, block_bytes: u64) -> bool {
    let key = |entry: &Entry| (entry.dtype.file_order(), entry.name.clone());
    let entries = &schema.entries;
    let mut neighbours = entries.iter().zip(entries.iter().skip(1));
    let in_order = neighbours.all(|(one, next)| key(one) < key(next));
    // Rows of blocks with a scale each end anywhere.
    let banded = entries.iter().any(|entry| {
        entry.dtype == Dtype::F8_E4M3 && schema.get(&format!("{}{SCALES}", entry.name)).is_some()
    });
    !banded
        && entries.iter().all(|entry| {
            let element = u64::from(entry.dtype.bits() / 8).max(1);
            let [segment] = &entry.segments[..] else {
                return false;
            };
            segment.start.is_multiple_of(element) && block_bytes.is_multiple_of(element)
        })
        && in_order
}
