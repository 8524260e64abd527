//! Writing, flushing and reading files, as the sink and the readers do it.

use crate::exchange::{World, agree};
use crate::fault::Result;
use crate::measure::bench::{Measured, Repeat, all_right, byte, row, spread};
use crate::store::io::{self, ReadFile, WriteFile};
use std::path::Path;
use std::time::{Duration, Instant};

/// Sizes of a call.
const CALLS: [usize; 3] = [256 << 10, 1 << 20, 4 << 20];

/// What one file's life took.
#[derive(Clone, Copy, Default)]
struct Spent {
    write: Duration,
    flush: Duration,
    read: Duration,
    wrong: u64,
}

/// Each process writes a file of `bytes` in `directory`, flushes it, and reads it from the page cache,
/// by calls of several sizes. Rates are of all processes together. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Io`], [`crate::fault::Kind::NoSpace`], [`crate::fault::Kind::Differs`].
pub fn storage(world: &World, repeat: Repeat, directory: &Path, bytes: u64) -> Result<Measured> {
    let path = directory.join(format!("shardloom-bench-{}", world.process()));
    let mut rows = Vec::new();
    let all = bytes * u64::from(world.size());
    for call in CALLS {
        let pattern: Vec<u8> = (0..call).map(|i| byte(world.process(), 0, i)).collect();
        let mut sum = Spent::default();
        for round in 0..repeat.warmup + repeat.iterations {
            crate::exchange::barrier(world)?;
            let once = one_life(&path, &pattern, bytes);
            let removed = io::remove(&path);
            let once = agree(world, once.and_then(|once| removed.map(|()| once)))?;
            sum.wrong += once.wrong;
            if round >= repeat.warmup {
                sum.write += once.write;
                sum.flush += once.flush;
                sum.read += once.read;
            }
        }
        let times = repeat.iterations.max(1);
        for (name, spent) in [
            ("write", sum.write),
            ("write and flush", sum.write + sum.flush),
            ("read cached", sum.read),
        ] {
            let seconds = spread(world, spent / times)?;
            rows.push(row(name.into(), call as u64, all, 1.0, seconds));
        }
        all_right(world, "read cached", sum.wrong)?;
    }
    rows.sort_by(|a, b| a.operation.cmp(&b.operation).then(a.bytes.cmp(&b.bytes)));
    Ok(Measured::new("storage", world, repeat, rows))
}

/// Writes, flushes and reads a file by calls of the pattern's size.
fn one_life(path: &Path, pattern: &[u8], bytes: u64) -> Result<Spent> {
    io::remove(path)?;
    let mut spent = Spent::default();
    let start = Instant::now();
    let file = WriteFile::create(path, bytes)?;
    each_call(pattern.len(), bytes, |at, length| {
        file.write_at(&pattern[..length], at)
    })?;
    spent.write = start.elapsed();
    let start = Instant::now();
    file.sync()?;
    spent.flush = start.elapsed();
    let file = ReadFile::open(path)?;
    let mut buffer = vec![0; pattern.len()];
    each_call(pattern.len(), bytes, |at, length| {
        let start = Instant::now();
        file.read_at(&mut buffer[..length], at)?;
        spent.read += start.elapsed();
        spent.wrong += u64::from(buffer[..length] != pattern[..length]);
        Ok(())
    })?;
    Ok(spent)
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
