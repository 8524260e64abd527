//! Writing, flushing and reading files, as the sink and the readers do it, and what a commit needs of a
//! file system.

use crate::exchange::{Topology, World, agree, barrier};
use crate::fault::Result;
use crate::measure::bench::{Measured, Repeat, Row, all_wrong};
use crate::measure::contents::{Wrong, byte};
use crate::measure::found::machine;
use crate::measure::metadata::metadata;
use crate::measure::sampling::timed;
use crate::store::io::{self, ReadFile, WriteFile};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Sizes of a call.
const CALLS: [usize; 3] = [256 << 10, 1 << 20, 4 << 20];

/// What one file's life took.
#[derive(Clone, Default)]
struct Lives {
    write: Vec<Duration>,
    flushed: Vec<Duration>,
    cached: Vec<Duration>,
    cold: Vec<Duration>,
    wrong: Option<Wrong>,
}

/// Each process writes `bytes` into `directory`, flushes them, and reads them from the page cache and
/// after the system was asked to drop them: in a file of its own, and in its part of one file. Then what
/// can be done with small files. Rates are of all processes together. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Io`], [`crate::fault::Kind::NoSpace`].
pub fn storage(world: &World, repeat: Repeat, directory: &Path, bytes: u64) -> Result<Measured> {
    let topology = Topology::discover(world)?;
    let mut rows = Vec::new();
    for shared in [false, true] {
        for call in CALLS {
            one(world, repeat, directory, (bytes, call, shared), &mut rows)?;
        }
    }
    if topology.nodes.len() > 1 {
        let members = topology.nodes.first().cloned().unwrap_or_default();
        let part = world.part(members.contains(&world.process()))?;
        let done = match &part {
            Some(part) => one(part, repeat, directory, (bytes, CALLS[1], false), &mut rows),
            None => Ok(()),
        };
        agree(world, done)?;
        part.map_or(Ok(()), World::finish)?;
    }
    rows.sort_by_key(|row: &Row| (row.operation.clone(), row.variant.clone(), row.bytes));
    let (of_metadata, notes) = metadata(world, repeat, directory)?;
    rows.extend(of_metadata);
    let mut measured = Measured::new("storage", world, &topology, rows);
    measured.verdict.extend(notes);
    measured.machine = machine(&measured.rows, None, &topology);
    Ok(measured)
}

/// Files of `bytes` a process by calls of `call` bytes, of its own or `shared`. Collective.
fn one(
    world: &World,
    repeat: Repeat,
    directory: &Path,
    (bytes, call, shared): (u64, usize, bool),
    rows: &mut Vec<Row>,
) -> Result<()> {
    let name = match shared {
        true => "shardloom-bench-shared".to_owned(),
        false => format!("shardloom-bench-{}", world.process()),
    };
    let file = Part {
        path: directory.join(name),
        begin: if shared {
            bytes * u64::from(world.process())
        } else {
            0
        },
        whole: if shared {
            bytes * u64::from(world.size())
        } else {
            bytes
        },
        bytes,
        shared,
    };
    let pattern: Vec<u8> = (0..call).map(|i| byte(world.process(), 0, i)).collect();
    let mut lives = Lives::default();
    let begun = Instant::now();
    for round in 0..repeat.warmup + repeat.iterations {
        if round <= repeat.warmup {
            lives = Lives::default();
        }
        let lived = file.live(world, &pattern, &mut lives);
        barrier(world)?;
        let removed = match shared && world.process() > 0 {
            true => Ok(()),
            false => io::remove(&file.path),
        };
        agree(world, lived.and(removed))?;
        let mut over = [u64::from(begun.elapsed() >= repeat.time)];
        crate::exchange::all_reduce(world, &mut over, crate::exchange::Operation::Max)?;
        if over[0] > 0 && round >= repeat.warmup {
            break;
        }
    }
    let all = bytes * u64::from(world.size());
    let (wrong_bytes, wrong) = all_wrong(world, lives.wrong.as_ref())?;
    for (operation, times) in [
        ("write", &lives.write),
        ("write and flush", &lives.flushed),
        ("read cached", &lives.cached),
        ("read cold", &lives.cold),
    ] {
        let mut row = Row::new(operation, call as u64, timed(world, times)?, all, 1.0);
        row.variant = Some(if shared { "one file" } else { "a file each" }.to_owned());
        row.processes = world.size();
        (row.wrong_bytes, row.wrong) = (wrong_bytes, wrong.clone());
        rows.push(row);
    }
    Ok(())
}

/// What a process writes, in a file of its own or of all.
struct Part {
    path: PathBuf,
    begin: u64,
    bytes: u64,
    whole: u64,
    shared: bool,
}

impl Part {
    /// Writes, flushes and reads it by calls of the pattern's size. Collective; faults of one process
    /// are for the caller to agree on.
    fn live(&self, world: &World, pattern: &[u8], lives: &mut Lives) -> Result<()> {
        let created = match self.shared && world.process() > 0 {
            true => Ok(()),
            false => io::remove(&self.path),
        };
        agree(world, created)?;
        let start = Instant::now();
        let created = match self.shared && world.process() > 0 {
            true => Ok(None),
            false => WriteFile::create(&self.path, self.whole).map(Some),
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
        let cold = self.read(&file, pattern, lives);
        let cold = agree(world, cold)?;
        file.forget(0..self.whole);
        lives.cached.push(cached);
        lives.cold.push(cold);
        if let Some(wrong) = &mut lives.wrong {
            wrong.receiver = world.process();
        }
        Ok(())
    }

    fn read(&self, file: &ReadFile, pattern: &[u8], lives: &mut Lives) -> Result<Duration> {
        let mut buffer = vec![0; pattern.len()];
        let mut spent = Duration::ZERO;
        each_call(pattern.len(), self.bytes, |at, length| {
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
