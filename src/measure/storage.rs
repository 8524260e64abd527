//! Writing, flushing and reading files, as the sink and the readers do it, and what a commit needs of a
//! file system.

use crate::course;
use crate::exchange::{Operation, Topology, World, agree, all_reduce, barrier};
use crate::fault::Result;
use crate::fault::memory::zeroed;
use crate::measure::bench::{Measured, Repeat, Row, Unmeasured, all_wrong};
use crate::measure::contents::{Wrong, byte};
use crate::measure::metadata::metadata;
use crate::measure::sampling::{is_over, timed};
use crate::store::io::{self, ReadFile, Standing, WriteFile};
use crate::transport::Observer;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Sizes of a call.
const CALLS: [usize; 3] = [256 << 10, 1 << 20, 4 << 20];

/// What a read past the page cache is a multiple of, in bytes.
const BLOCK: usize = 4096;
/// How often is looked whether a page was dropped.
const LOOKS: u64 = 8;
/// Of so many pages that were to be dropped at most one is in memory still where reading is cold.
const KEPT_MOST: u64 = 10;
/// Reading what was dropped from memory.
const COLD: &str = "read cold";
/// Reading past the page cache.
const DIRECT: &str = "read direct";

/// What one file's life took.
#[derive(Clone, Default)]
struct Lives {
    write: Vec<Duration>,
    flushed: Vec<Duration>,
    cached: Vec<Duration>,
    cold: Vec<Duration>,
    /// Past the page cache; none where the file system reads so, or nothing is that large.
    direct: Vec<Duration>,
    /// How many looks found a page in the cache that was to be dropped, of how many.
    kept: (u32, u32),
    wrong: Option<Wrong>,
}

/// Each process writes `bytes` into `directory`, flushes them, and reads them from the page cache and
/// after the system was asked to drop them: in a file of its own, and in its part of one file. Then what
/// can be done with small files. Rates are of all processes together. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Io`], [`crate::fault::Kind::NoSpace`].
pub fn storage(
    world: &World,
    repeat: Repeat,
    directory: &Path,
    bytes: u64,
    observer: &mut Observer<'_>,
) -> Result<Measured> {
    course::phase("measuring files");
    let topology = Topology::discover(world)?;
    let mut rows = Vec::new();
    let mut kept = [0, 0];
    let common = Sharers::of(world, &topology, directory)?;
    let kinds = [None, Some(&common)];
    let each = bytes * u64::from(world.size());
    let rounds = u64::from(repeat.warmup + repeat.iterations);
    let whole = rounds * (kinds.len() * CALLS.len()) as u64 * each;
    let mut done = 0;
    for sharers in kinds {
        for call in CALLS {
            let mut tell = |round: u32| observer(done + u64::from(round) * each, whole);
            let what = (bytes, call, sharers);
            let (still, looks) = one(world, repeat, directory, what, &mut rows, &mut tell)?;
            done += rounds * each;
            observer(done, whole);
            kept = [kept[0] + u64::from(still), kept[1] + u64::from(looks)];
        }
    }
    all_reduce(world, &mut kept, Operation::Sum)?;
    if topology.nodes.len() > 1 {
        let members = topology.nodes.first().cloned().unwrap_or_default();
        let part = world.part(members.contains(&world.process()))?;
        let done = match &part {
            Some(part) => {
                let what = (bytes, CALLS[1], None);
                one(part, repeat, directory, what, &mut rows, &mut |_| {})
            }
            None => Ok((0, 0)),
        };
        agree(world, done)?;
        part.map_or(Ok(()), World::finish)?;
    }
    // What the file system hasn't dropped from memory tells nothing of its disks.
    let cached = kept[0] * KEPT_MOST > kept[1];
    for row in rows
        .iter_mut()
        .filter(|row: &&mut Row| row.operation == COLD)
    {
        row.cached = cached;
    }
    rows.sort_by_key(|row: &Row| (row.operation.clone(), row.variant.clone(), row.bytes));
    let (of_metadata, notes) = metadata(world, repeat, directory)?;
    rows.extend(of_metadata);
    let mut measured = Measured::new("storage", world, &topology, rows, None);
    measured.verdict.extend(notes);
    measured.verdict.extend(coldness(kept));
    if !measured.rows.iter().any(|row| row.operation == DIRECT) {
        measured.unmeasured.push(Unmeasured {
            operation: DIRECT.to_owned(),
            why: "the file system reads nothing past the page cache (O_DIRECT)".to_owned(),
        });
    }
    Ok(measured)
}

/// Those who can write one file.
struct Sharers {
    /// The process's place among them.
    place: u64,
    count: u64,
    variant: &'static str,
}

impl Sharers {
    /// All, or, where `directory` lies on the nodes' own disks, the processes of a node. Collective.
    fn of(world: &World, topology: &Topology, directory: &Path) -> Result<Sharers> {
        let path = directory.join("shardloom-bench-shared");
        let _scratch = course::tries_with(&path);
        let made = match world.process() {
            0 => io::write_small(&path, b"", false),
            _ => Ok(()),
        };
        agree(world, made)?;
        let standing = agree(world, io::standing(&path))?;
        let mut seen = [u64::from(standing == Standing::File)];
        all_reduce(world, &mut seen, Operation::Min)?;
        let removed = match world.process() {
            0 => io::remove(&path),
            _ => Ok(()),
        };
        agree(world, removed)?;
        if seen[0] > 0 {
            return Ok(Sharers {
                place: u64::from(world.process()),
                count: u64::from(world.size()),
                variant: "one file",
            });
        }
        let node = topology.node_of.get(world.process() as usize);
        let members = node.and_then(|node| topology.nodes.get(*node as usize));
        let members = members.map_or(&[][..], Vec::as_slice);
        let place = members.iter().position(|other| *other == world.process());
        Ok(Sharers {
            place: place.unwrap_or_default() as u64,
            count: members.len().max(1) as u64,
            variant: "one file a node",
        })
    }
}

/// Files of `bytes` a process by calls of `call` bytes, of its own or one of the `sharers`; `tell` is told how often it
/// was done. Collective.
fn one(
    world: &World,
    repeat: Repeat,
    directory: &Path,
    (bytes, call, sharers): (u64, usize, Option<&Sharers>),
    rows: &mut Vec<Row>,
    tell: &mut dyn FnMut(u32),
) -> Result<(u32, u32)> {
    let name = match sharers {
        Some(_) => "shardloom-bench-shared".to_owned(),
        None => format!("shardloom-bench-{}", world.process()),
    };
    let (place, count) = sharers.map_or((0, 1), |sharers| (sharers.place, sharers.count));
    let file = Part {
        path: directory.join(name),
        begin: bytes * place,
        whole: bytes * count,
        bytes,
        creates: place == 0,
    };
    let _scratch = course::tries_with(&file.path);
    let pattern: Vec<u8> = (0..call).map(|i| byte(world.process(), 0, i)).collect();
    let mut lives = Lives::default();
    let begun = Instant::now();
    for round in 0..repeat.warmup + repeat.iterations {
        if round <= repeat.warmup {
            lives = Lives::default();
        }
        let lived = file.live(world, &pattern, &mut lives);
        barrier(world)?;
        let removed = match file.creates {
            true => io::remove(&file.path),
            false => Ok(()),
        };
        agree(world, lived.and(removed))?;
        tell(round + 1);
        if is_over(world, begun, repeat.time)? && round >= repeat.warmup {
            break;
        }
    }
    let all = bytes * u64::from(world.size());
    let (wrong_bytes, wrong) = all_wrong(world, lives.wrong.as_ref())?;
    for (operation, times) in [
        ("write", &lives.write),
        ("write and flush", &lives.flushed),
        ("read cached", &lives.cached),
        (COLD, &lives.cold),
        (DIRECT, &lives.direct),
    ] {
        let mut all_have = [u64::from(times.is_empty())];
        all_reduce(world, &mut all_have, Operation::Max)?;
        if all_have[0] > 0 {
            continue;
        }
        let mut row = Row::new(operation, call as u64, timed(world, times)?, all, 1.0);
        let variant = sharers.map_or("a file each", |sharers| sharers.variant);
        row.variant = Some(variant.to_owned());
        row.processes = world.size();
        row.stored = true;
        (row.wrong_bytes, row.wrong) = (wrong_bytes, wrong.clone());
        rows.push(row);
    }
    Ok(lives.kept)
}

/// What reading cold was, in words, by how many looks found a page that was to be dropped, of how many.
fn coldness([kept, looks]: [u64; 2]) -> Option<String> {
    match (kept, looks) {
        (_, 0) => None,
        (0, _) => Some("read cold: from what the system had dropped from memory".to_owned()),
        _ => Some(format!(
            "read cold: {} of 100 pages were still in memory, the file system drops none when asked; \
             `{DIRECT}` reads past it",
            kept * 100 / looks
        )),
    }
}

/// What a process writes, in a file of its own or of all.
struct Part {
    path: PathBuf,
    begin: u64,
    bytes: u64,
    whole: u64,
    /// Whether this process makes and removes the file.
    creates: bool,
}

impl Part {
    /// Writes, flushes and reads it by calls of the pattern's size. Collective; faults of one process
    /// are for the caller to agree on.
    fn live(&self, world: &World, pattern: &[u8], lives: &mut Lives) -> Result<()> {
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
        self.look(&file, lives);
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

    /// Whether pages are still in memory, by a few looks.
    fn look(&self, file: &ReadFile, lives: &mut Lives) {
        for eighth in 0..LOOKS {
            if let Some(kept) = file.is_cached(self.begin + self.bytes * eighth / LOOKS) {
                lives.kept.0 += u32::from(kept);
                lives.kept.1 += 1;
            }
        }
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
