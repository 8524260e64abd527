//! What happens to a file that is measured, from its first byte to its last, and what of it all processes have found.

use crate::exchange::{Operation, World, agree, all_reduce};
use crate::fault::Result;
use crate::fault::memory::zeroed;
use crate::measure::bench::{Row, all_wrong};
use crate::measure::coldness::Kept;
use crate::measure::contents::Wrong;
use crate::measure::sampling::{Timing, timed};
use crate::store::io::{self, ReadFile, WriteFile};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a read past the page cache is a multiple of, in bytes.
const BLOCK: usize = 4096;
/// Reading what was dropped from memory.
pub(super) const COLD: &str = "read cold";
/// Reading past the page cache.
pub(super) const DIRECT: &str = "read direct";

/// What one file's life took.
#[derive(Clone, Default)]
pub(super) struct Lives {
    write: Vec<Duration>,
    flushed: Vec<Duration>,
    cached: Vec<Duration>,
    cold: Vec<Duration>,
    /// Past the page cache; none where the file system reads so, or nothing is that large.
    direct: Vec<Duration>,
    kept: Kept,
    wrong: Option<Wrong>,
}

impl Lives {
    /// What all processes have measured. Collective.
    pub(super) fn lived(
        &self,
        world: &World,
        call: u64,
        bytes: u64,
        variant: &str,
    ) -> Result<Lived> {
        let wrong = all_wrong(world, self.wrong.as_ref())?;
        let kept = self.kept.of_all(world)?;
        let mut all_times = Vec::new();
        for (operation, times) in [
            ("write", &self.write),
            ("write and flush", &self.flushed),
            ("read cached", &self.cached),
            (COLD, &self.cold),
            (DIRECT, &self.direct),
        ] {
            let mut all_have = [u64::from(times.is_empty())];
            all_reduce(world, &mut all_have, Operation::Max)?;
            if all_have[0] == 0 {
                all_times.push((operation.to_owned(), timed(world, times)?));
            }
        }
        Ok(Lived {
            call,
            all: bytes * u64::from(world.size()),
            processes: world.size(),
            variant: variant.to_owned(),
            times: all_times,
            kept,
            wrong,
        })
    }
}

/// What was measured of files: the same on all processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lived {
    call: u64,
    /// Bytes of all processes.
    all: u64,
    processes: u32,
    variant: String,
    times: Vec<(String, Timing)>,
    pub(super) kept: Kept,
    wrong: (u64, Option<Wrong>),
}

impl Lived {
    /// A row each operation, of one node alone if one is named.
    pub(super) fn rows(self, node: Option<&str>) -> Vec<Row> {
        let rows = self.times.iter().map(|(operation, timing)| {
            let mut row = Row::new(operation, self.call, *timing, self.all, 1.0);
            row.variant = Some(self.variant.clone());
            row.node = node.map(str::to_owned);
            row.processes = self.processes;
            row.stored = true;
            (row.wrong_bytes, row.wrong) = self.wrong.clone();
            row
        });
        rows.collect()
    }
}

/// What a process writes, in a file of its own or of all.
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) begin: u64,
    pub(super) bytes: u64,
    pub(super) whole: u64,
    /// Whether this process makes and removes the file.
    pub(super) creates: bool,
}

impl Part {
    /// Writes, flushes and reads it by calls of the pattern's size. Collective; faults of one process
    /// are for the caller to agree on.
    pub(super) fn live(&self, world: &World, pattern: &[u8], lives: &mut Lives) -> Result<()> {
        let created = match self.creates {
            true => io::remove(&self.path),
            false => Ok(()),
        };
        agree(world, created)?;
        let start = Instant::now();
        let created = match self.creates {
            true => WriteFile::create(&self.path, self.whole).map(Some),
            false => Ok(None),
        };
        let file = match agree(world, created)? {
            Some(file) => Ok(file),
            None => WriteFile::open(&self.path),
        };
        let written = file.and_then(|file| {
            each_call(pattern.len(), self.bytes, |at, length| {
                file.write_at(&pattern[..length], self.begin + at)
            })?;
            Ok((start.elapsed(), file))
        });
        let (write, file) = agree(world, written)?;
        let flushing = Instant::now();
        agree(world, file.sync())?;
        lives.write.push(write);
        lives.flushed.push(write + flushing.elapsed());
        let file = agree(world, ReadFile::open(&self.path))?;
        let cached = self.read(&file, pattern, lives);
        file.forget(0..self.whole);
        // Nobody reads before all have let the pages go.
        let cached = agree(world, cached)?;
        lives.kept.look(&file, self.begin, self.bytes);
        let cold = self.read(&file, pattern, lives);
        let cold = agree(world, cold)?;
        file.forget(0..self.whole);
        let direct = self.read_direct(pattern, lives);
        lives.direct.extend(agree(world, direct)?);
        lives.cached.push(cached);
        lives.cold.push(cold);
        if let Some(wrong) = &mut lives.wrong {
            wrong.receiver = world.process();
        }
        Ok(())
    }

    fn read(&self, file: &ReadFile, pattern: &[u8], lives: &mut Lives) -> Result<Duration> {
        let mut buffer = zeroed(pattern.len())?;
        self.read_into(&mut buffer, file, self.bytes, pattern, lives)
    }

    /// The whole blocks past the page cache, where that can be done.
    fn read_direct(&self, pattern: &[u8], lives: &mut Lives) -> Result<Option<Duration>> {
        let bytes = self.bytes / BLOCK as u64 * BLOCK as u64;
        if !self.begin.is_multiple_of(BLOCK as u64) || bytes == 0 {
            return Ok(None);
        }
        let Some(file) = ReadFile::open_direct(&self.path)? else {
            return Ok(None);
        };
        let mut buffer = zeroed(pattern.len() + BLOCK)?;
        let begin = buffer.as_ptr().align_offset(BLOCK);
        let Some(buffer) = buffer.get_mut(begin..begin + pattern.len()) else {
            return Ok(None);
        };
        self.read_into(buffer, &file, bytes, pattern, lives)
            .map(Some)
    }

    fn read_into(
        &self,
        buffer: &mut [u8],
        file: &ReadFile,
        bytes: u64,
        pattern: &[u8],
        lives: &mut Lives,
    ) -> Result<Duration> {
        let mut spent = Duration::ZERO;
        each_call(pattern.len(), bytes, |at, length| {
            let start = Instant::now();
            file.read_at(&mut buffer[..length], self.begin + at)?;
            spent += start.elapsed();
            if buffer[..length] != pattern[..length] {
                let mut pairs = buffer[..length].iter().zip(pattern);
                let index = pairs.position(|(have, right)| have != right);
                let more = pairs.filter(|(have, right)| have != right).count() as u64;
                let index = at + index.unwrap_or_default() as u64;
                let wrong = Wrong {
                    index,
                    ..Wrong::default()
                };
                lives.wrong.get_or_insert(wrong).count += more + 1;
            }
            Ok(())
        })?;
        Ok(spent)
    }
}

/// Calls `visit(offset, length)` for each piece of `bytes`.
pub(super) fn each_call(
    call: usize,
    bytes: u64,
    mut visit: impl FnMut(u64, usize) -> Result<()>,
) -> Result<()> {
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(bytes - at).map_or(call, |left| left.min(call));
        visit(at, length)?;
        at += length as u64;
    }
    Ok(())
}
