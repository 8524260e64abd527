//! Filling a buffer from source shards: large runs are read in place, short ones through a window.

use crate::catalog::{Catalog, Place};
use crate::fault::memory::{provide, zeroed};
use crate::fault::{Fault, Kind, Result};
use crate::store::io::{ReadFile, kept_open};
use crate::tensor::copy;
use crate::tensor::strided::{Loop, StridedCopy};
use crate::transport::behind::Behind;
use crate::transport::opened::Opened;
use crate::transport::sealed::{SealedFiles, SealedReads};
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Runs of at least this many bytes are read straight to where they belong.
const RUN_BYTES_IN_PLACE: u64 = 16 << 10;
/// Bytes of source that are read at once to pick short runs from.
const WINDOW_BYTES: u64 = 1 << 20;
/// Distance between runs, shared among the cells that need the same rows, from which it is cheaper
/// to read each run by itself: a call costs as much as reading this many bytes.
const STRIDE_BYTES_ALONE: u64 = 8 << 10;
/// Reads shorter than this take what follows in the file along: small tensors lie side by side.
const READ_BYTES_SMALL: u64 = 4 << 10;
/// Least bytes read from a file at once by such reads.
const READ_AHEAD_BYTES: u64 = 32 << 10;
/// Windows kept for each file: pieces of several tensors are often needed in turn.
const WINDOWS_OF_FILE: usize = 4;
/// Bytes of windows kept by a worker.
const WINDOWS_BYTES_MAX: usize = 24 << 20;

/// How source files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum IoMode {
    /// What was measured to be best: `pread`.
    #[default]
    Auto,
    /// Memory maps.
    Mmap,
    /// System calls.
    Pread,
}

/// The source's files, opened when first needed.
pub struct Readers<'a> {
    base: &'a Path,
    catalog: &'a Catalog,
    mode: IoMode,
    open: Mutex<HashMap<(u32, u32), Opened>>,
    open_max: usize,
    behind: Behind,
    read_bytes: AtomicU64,
    sealed: Option<SealedFiles>,
}

impl<'a> Readers<'a> {
    /// Readers for the files of `catalog` in `base`.
    #[must_use]
    pub fn new(base: &'a Path, catalog: &'a Catalog, mode: IoMode) -> Self {
        let open = Mutex::new(HashMap::new());
        Readers {
            base,
            catalog,
            mode,
            open,
            open_max: kept_open(),
            behind: Behind::of(catalog),
            read_bytes: AtomicU64::new(0),
            sealed: None,
        }
    }

    /// The same, which make the CRCs of what they read of files that carry checksums of their own, if `wanted`.
    #[must_use]
    pub(crate) fn minding_seals(mut self, wanted: bool) -> Self {
        self.sealed = wanted.then(SealedFiles::default);
        self
    }

    /// What was read of such files, by rank and number.
    pub(crate) fn sealed(&self) -> Vec<((u32, u32), Arc<SealedReads>)> {
        self.sealed.as_ref().map_or_else(Vec::new, SealedFiles::all)
    }

    /// Bytes read from files so far.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    fn open(&self, place: Place) -> Result<Opened> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (place.rank, place.file);
        if let Some(file) = open.get(&key) {
            return Ok(file.clone());
        }
        let shard = self.catalog.file(place);
        let file = ReadFile::open(&self.base.join(&shard.path))?;
        if file.size() != shard.schema.size {
            let message = format!(
                "has {} bytes now, {} when its header was read",
                file.size(),
                shard.schema.size
            );
            let fault = Fault::new(Kind::Io, message)
                .rank(place.rank)
                .hint("it was changed while it was read: start again when nothing writes into it any more");
            return Err(fault.file(file.path().display().to_string()));
        }
        let sealed = self.sealed.as_ref();
        let sealed = sealed
            .map(|sealed| sealed.of(key, &file, &shard.schema.metadata))
            .transpose()?;
        let opened = Opened::new(file, self.mode == IoMode::Mmap, sealed.flatten())?;
        if open.len() >= self.open_max {
            open.clear();
        }
        open.insert(key, opened.clone());
        Ok(opened)
    }

    /// Reads bytes `range` of the file at `place` into `buffer`, which is given back.
    fn read_window(
        &self,
        place: Place,
        range: &Range<u64>,
        mut buffer: Aligned,
    ) -> Result<Aligned> {
        let length = range.end - range.start;
        self.read_bytes.fetch_add(length, Ordering::Relaxed);
        let bytes = buffer.take(index(length), Window::phase(range.start))?;
        let file = self.open(place)?;
        let read = file.read_at(bytes, range.start, &self.behind);
        let name = || &*self.catalog.entry(place).name;
        read.map_err(|fault| fault.tensor(name()).rank(place.rank))?;
        Ok(buffer)
    }

    /// Reads bytes `range` of the tensor at `place` into `buffer`.
    fn read(
        &self,
        file: &Opened,
        place: Place,
        range: Range<u64>,
        buffer: &mut [u8],
    ) -> Result<()> {
        self.read_bytes
            .fetch_add(range.end - range.start, Ordering::Relaxed);
        let entry = self.catalog.entry(place);
        let begin = range.start;
        entry
            .locate(range, |offset, part| {
                let out = &mut buffer[index(part.start - begin)..index(part.end - begin)];
                file.read_at(out, offset, &self.behind)
            })
            .map_err(|fault| fault.tensor(&*entry.name).rank(place.rank))
    }
}

pub(super) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A buffer for what comes from a file. The system copies fastest to where it need not shift: a byte
/// at offset x of a file (modulo [`ALIGNMENT`]) belongs at an address of the same rest.
#[derive(Default)]
pub(super) struct Aligned {
    bytes: Vec<u8>,
}

/// Bytes of a cache line.
const ALIGNMENT: usize = 64;

impl Aligned {
    /// `length` bytes of any content, the first one at an address with rest `phase`.
    ///
    /// # Errors
    /// [`Kind::Memory`].
    pub(super) fn take(&mut self, length: usize, phase: usize) -> Result<&mut [u8]> {
        let needed = length.saturating_add(2 * ALIGNMENT);
        provide(&mut self.bytes, needed)?;
        let begin = self.begin() + phase % ALIGNMENT;
        Ok(&mut self.bytes[begin..begin + length])
    }

    fn begin(&self) -> usize {
        // The trait's word allows that no address is found; the copy is slower then.
        self.bytes.as_ptr().align_offset(ALIGNMENT) % ALIGNMENT
    }
}

/// A part of a source file, in memory.
struct Window {
    range: Range<u64>,
    bytes: Aligned,
}

impl Window {
    /// Rest of an address where byte `offset` of a file belongs.
    fn phase(offset: u64) -> usize {
        index(offset % ALIGNMENT as u64)
    }

    fn bytes(&self) -> &[u8] {
        let begin = self.bytes.begin() + Self::phase(self.range.start);
        &self.bytes.bytes[begin..begin + index(self.range.end - self.range.start)]
    }
}

/// A worker's own windows on the source, by file.
#[derive(Default)]
struct Windows {
    files: HashMap<(u32, u32), Vec<Window>>,
    bytes: usize,
    /// Buffers of windows that were dropped.
    spare: Vec<Aligned>,
}

/// One worker's way of filling buffers.
pub struct Filler<'a> {
    readers: &'a Readers<'a>,
    windows: Windows,
}

impl<'a> Filler<'a> {
    /// A filler that reads through `readers`.
    #[must_use]
    pub fn new(readers: &'a Readers<'a>) -> Self {
        Filler {
            readers,
            windows: Windows::default(),
        }
    }

    /// The rest of the address that suits a buffer which `copy` is the first to fill.
    pub(super) fn phase(&self, copy: &StridedCopy, place: Place) -> usize {
        let entry = self.readers.catalog.entry(place);
        let first = entry.segment_of(&(copy.source..copy.source + 1));
        first.map_or(0, |(tensor, file)| {
            Window::phase((copy.source + file.start - tensor.start).wrapping_sub(copy.destination))
        })
    }

    /// Runs `copy` from the shard at `place` into `out`, where destination offsets count from `out`'s
    /// beginning. `sharing` is about how many copies read the same rows one after the other.
    ///
    /// # Errors
    /// [`Kind::Io`] naming file and tensor.
    pub fn fill(
        &mut self,
        copy: &StridedCopy,
        place: Place,
        out: &mut [u8],
        sharing: u64,
    ) -> Result<()> {
        if copy.run_bytes == 0 {
            return Ok(());
        }
        let runs = copy.bytes() / copy.run_bytes;
        let apart = copy.source_span() / runs / sharing.max(1);
        let small = copy.source_span() < READ_BYTES_SMALL;
        let alone = copy.loops.is_empty() || apart >= STRIDE_BYTES_ALONE;
        if copy.run_bytes >= RUN_BYTES_IN_PLACE || (alone && !small) {
            return self.fill_by_runs(copy, place, out);
        }
        self.fill_by_windows(copy, place, out, sharing)
    }

    /// Reads each run by itself, and nothing else.
    ///
    /// # Errors
    /// As [`Filler::fill`].
    pub fn fill_by_runs(&mut self, copy: &StridedCopy, place: Place, out: &mut [u8]) -> Result<()> {
        let file = self.readers.open(place)?;
        for_each_run(
            &copy.loops,
            copy.source,
            copy.destination,
            &mut |from, to| {
                let out = &mut out[index(to)..index(to + copy.run_bytes)];
                self.readers
                    .read(&file, place, from..from + copy.run_bytes, out)
            },
        )
    }

    /// Cuts the copy along the loop that goes furthest in the source until a part's source fits a window.
    fn fill_by_windows(
        &mut self,
        copy: &StridedCopy,
        place: Place,
        out: &mut [u8],
        sharing: u64,
    ) -> Result<()> {
        let loops = copy.loops.iter().enumerate();
        // The outermost one, of several that go as far.
        let widest = loops.rev().max_by_key(|(_, l)| l.source_stride);
        let Some((widest, outer)) = widest else {
            return self.through_window(copy, place, out);
        };
        if copy.source_span() <= WINDOW_BYTES {
            return self.through_window(copy, place, out);
        }
        let stride = outer.source_stride.max(1);
        let rest = copy.source_span() - (outer.count - 1) * outer.source_stride;
        // Steps between which nothing is needed, by any of those that share them, aren't read together.
        let step = match rest.saturating_mul(sharing) < stride / 2 {
            true => 1,
            false => (WINDOW_BYTES / stride).max(1),
        };
        let mut done = 0;
        while done < outer.count {
            let count = step.min(outer.count - done);
            let mut part = StridedCopy {
                source: copy.source + done * outer.source_stride,
                destination: copy.destination + done * outer.destination_stride,
                run_bytes: copy.run_bytes,
                loops: copy.loops.clone(),
            };
            if count > 1 {
                part.loops[widest].count = count;
                self.through_window(&part, place, out)?;
            } else {
                part.loops.remove(widest);
                self.fill_by_windows(&part, place, out, sharing)?;
            }
            done += count;
        }
        Ok(())
    }

    /// Copies from a window of whole source rows, read now unless a neighbour has read it before.
    fn through_window(&mut self, copy: &StridedCopy, place: Place, out: &mut [u8]) -> Result<()> {
        let entry = self.readers.catalog.entry(place);
        let needed = copy.source..copy.source + copy.source_span();
        let segment = entry.segment_of(&needed);
        let Some((in_tensor, in_file)) = segment else {
            // Cut over blocks of a ckpt file: read just this, block by block.
            let mut bytes = zeroed(index(needed.end - needed.start))?;
            let file = self.readers.open(place)?;
            self.readers
                .read(&file, place, needed.clone(), &mut bytes)?;
            return self.copy_out(copy, needed.start, &bytes, place, out);
        };
        let offset = |byte: u64| byte - in_tensor.start + in_file.start;
        let key = (place.rank, place.file);
        let wanted = offset(needed.start)..offset(needed.end);
        let covers = |w: &Window| w.range.start <= wanted.start && wanted.end <= w.range.end;
        let known = self
            .windows
            .files
            .get(&key)
            .and_then(|windows| windows.iter().find(|w| covers(w)));
        if let Some(window) = known {
            // The first byte of the tensor in the window's count: it may lie before the window.
            let base = (window.range.start + in_tensor.start).wrapping_sub(in_file.start);
            return self.copy_out(copy, base, window.bytes(), place, out);
        }
        let row = copy.loops.last().map_or(1, |l| l.source_stride.max(1));
        let row = if row > WINDOW_BYTES { 1 } else { row };
        let begin = (needed.start / row * row).max(in_tensor.start);
        let end = needed.end.next_multiple_of(row).min(in_tensor.end);
        let mut range = offset(begin)..offset(end);
        if range.end - range.start < READ_BYTES_SMALL {
            let size = self.readers.catalog.file(place).schema.size;
            range.end = range.end.max((range.start + READ_AHEAD_BYTES).min(size));
        }
        let bytes = self
            .readers
            .read_window(place, &range, self.windows.recycle(key))?;
        let base = (range.start + in_tensor.start).wrapping_sub(in_file.start);
        let window = Window { range, bytes };
        let copied = self.copy_out(copy, base, window.bytes(), place, out);
        self.windows.keep(key, window);
        copied
    }

    /// Copies from `bytes`, whose first one is byte `base` of the tensor (modulo 2^64: it may lie
    /// before the tensor).
    fn copy_out(
        &self,
        copy: &StridedCopy,
        base: u64,
        bytes: &[u8],
        place: Place,
        out: &mut [u8],
    ) -> Result<()> {
        if copy::run_from(copy, copy.source.wrapping_sub(base), bytes, out) {
            return Ok(());
        }
        Err(
            Fault::new(Kind::Internal, "a copy reaches outside its window")
                .tensor(&*self.readers.catalog.entry(place).name),
        )
    }
}

impl Windows {
    /// A buffer to read into: that of a window which is dropped for it, if the file has enough.
    fn recycle(&mut self, key: (u32, u32)) -> Aligned {
        if self.bytes > WINDOWS_BYTES_MAX {
            let all = self.files.drain().flat_map(|(_, windows)| windows);
            self.spare.extend(all.map(|window| window.bytes));
            self.bytes = 0;
        }
        let windows = self.files.entry(key).or_default();
        if windows.len() < WINDOWS_OF_FILE {
            return self.spare.pop().unwrap_or_default();
        }
        let old = windows.remove(0).bytes;
        self.bytes -= old.bytes.capacity();
        old
    }

    fn keep(&mut self, key: (u32, u32), window: Window) {
        self.bytes += window.bytes.bytes.capacity();
        self.files.entry(key).or_default().push(window);
    }
}

/// Calls `visit(source offset, destination offset)` for every run of a nest.
fn for_each_run(
    loops: &[Loop],
    source: u64,
    destination: u64,
    visit: &mut impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    let Some((outer, inner)) = loops.split_first() else {
        return visit(source, destination);
    };
    for i in 0..outer.count {
        let (from, to) = (
            source + i * outer.source_stride,
            destination + i * outer.destination_stride,
        );
        for_each_run(inner, from, to, visit)?;
    }
    Ok(())
}
