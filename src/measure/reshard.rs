//! A real reshard of generated weights, against plain copying of as many bytes.

use crate::course;
use crate::destination::Writing;
use crate::exchange::{Topology, World, agree, all_gather_agreed, barrier};
use crate::fault::{Fault, Kind, Result};
use crate::job::{Goal, Job, Write, run};
use crate::layout::Layout;
use crate::measure::bench::{Measured, Repeat, Row};
use crate::measure::coldness::Kept;
use crate::measure::contents::byte;
use crate::measure::lives::each_call;
use crate::measure::sampling::{is_over, rate, timed};
use crate::measure::storage::ROOM;
use crate::plan::arrange::{Files, RankName};
use crate::plan::build::{Leftovers, Unmatched};
use crate::source::Reading;
use crate::store::Format;
use crate::store::io::{self, ReadFile, WriteFile};
use crate::strategy::{StageLayout, Strategy};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use crate::transport::{Moving, Observer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the weights lie, before and after.
const SOURCE: &str = "source";
const DESTINATION: &str = "destination";
const SOURCE_RANKS: u32 = 8;
const DESTINATION_RANKS: u32 = 4;
/// Tensors of the weights.
const TENSORS: u64 = 8;
/// Elements of a row, unless the weights are too small for that.
const COLUMNS: u64 = 4096;
/// Bytes of a call while copying and generating.
const CALL: usize = 1 << 20;

/// What tells rows of a cold source from others.
const COLD: &str = "off cache";

/// Reshards weights of about `bytes` from eight to four ranks, cut by columns and cut by rows, through
/// a job, and copies as many bytes in the same rounds. What is written isn't flushed; what is read is in memory, unless
/// the system is asked to drop it before each time: whether it did is told. Collective.
///
/// # Errors
/// Those of a job.
pub fn reshard(
    world: &World,
    repeat: Repeat,
    directory: &Path,
    bytes: u64,
    observer: &mut Observer<'_>,
) -> Result<Measured> {
    let room = directory.join("shardloom-bench-reshard");
    let _scratch = course::tries_with(&room);
    let topology = Topology::discover(world)?;
    let (mut rows, mut kept) = (Vec::new(), Kept::default());
    let rounds = u64::from(repeat.warmup + repeat.iterations);
    for (number, (name, dimension)) in (0..).zip([("columns", 1), ("rows", 0)]) {
        let mut tell = |round: u64| {
            course::phase("measuring a reshard");
            observer((number * rounds + round) * bytes, 2 * rounds * bytes);
        };
        let what = (bytes, dimension);
        let result = one(world, &topology, repeat, &room, what, &mut tell);
        tell(rounds);
        barrier(world)?;
        let removed = remove(world, &topology, &room);
        let done = result.map_err(|fault| match fault.kind {
            Kind::NoSpace => fault.hint(ROOM),
            _ => fault,
        })?;
        removed?;
        kept = kept.and(done.kept.of_all(world)?);
        let (moved, copying) = (done.moved, timed(world, &done.copying)?);
        let seconds = timed(world, &done.resharding)?;
        let title = format!("reshard by {name}");
        let mut resharding = Row::new(&title, moved, seconds, moved, 1.0);
        let copying = Row::new(&format!("copy ({name})"), moved, copying, moved, 1.0);
        let plain = rate(moved, copying.seconds.median);
        resharding.ratio_to_copy = Some(resharding.algorithm_gbps / plain.max(f64::MIN_POSITIVE));
        rows.extend([resharding, copying]);
    }
    for row in &mut rows {
        row.processes = world.size();
        row.variant = repeat.off_cache.then(|| COLD.to_owned());
    }
    let mut measured = Measured::new("reshard", world, &topology, rows, None);
    measured.verdict.push(source(repeat, kept));
    Ok(measured)
}

/// Where the bytes came from, in words.
fn source(repeat: Repeat, kept: Kept) -> String {
    if repeat.off_cache {
        let instead = "their times may be memory's";
        return kept.told("what reshard and copy read", instead);
    }
    let pages = match kept.percent() {
        Some(percent) => format!("{percent} of 100 of its pages were in memory"),
        None => "its pages may be in memory".to_owned(),
    };
    format!(
        "what reshard and copy read was just written: {pages}; --off-cache has the system drop them"
    )
}

/// What the iterations of both took, in the same rounds.
#[derive(Default)]
struct Rounds {
    /// Bytes written in each.
    moved: u64,
    resharding: Vec<Duration>,
    copying: Vec<Duration>,
    kept: Kept,
}

/// Removes a directory on every node's disks, or those that they share. Collective.
fn remove(world: &World, topology: &Topology, path: &Path) -> Result<()> {
    let first = match world.process() {
        0 => io::remove_directory(path),
        _ => Ok(()),
    };
    agree(world, first)?;
    let others = match topology.leads(world.process()) {
        true => io::remove_directory(path),
        false => Ok(()),
    };
    agree(world, others)
}

/// Both, as often as is asked for; `tell` is told how many are done. Collective.
fn one(
    world: &World,
    topology: &Topology,
    repeat: Repeat,
    room: &Path,
    (bytes, dimension): (u64, usize),
    tell: &mut dyn FnMut(u64),
) -> Result<Rounds> {
    let source = Weights::new(bytes, SOURCE_RANKS, dimension)?;
    let destination = Weights::new(bytes, DESTINATION_RANKS, dimension)?;
    remove(world, topology, room)?;
    let prepared = match world.process() {
        0 => prepare(room, &source, &destination),
        _ => Ok(()),
    };
    agree(world, prepared)?;
    agree(world, source.write(&room.join(SOURCE), world))?;
    let job = job(room);
    let mut done = Rounds::default();
    let begun = Instant::now();
    for round in 0..repeat.warmup + repeat.iterations {
        let files = source.files(&room.join(SOURCE));
        match repeat.off_cache {
            true => done.kept.drop_all(world, &files)?,
            false => agree(world, done.kept.look_at_all(&files))?,
        }
        barrier(world)?;
        let start = Instant::now();
        done.moved = run(world, &job, &mut |_, _| {})?.bytes.written;
        barrier(world)?;
        let resharded = start.elapsed();
        if repeat.off_cache {
            done.kept
                .drop_all(world, &destination.files(&room.join(DESTINATION)))?;
        }
        let copied = copy(world, topology, room, &destination)?;
        if round >= repeat.warmup {
            done.resharding.push(resharded);
            done.copying.push(copied);
        }
        tell(u64::from(round) + 1);
        if is_over(world, begun, repeat.time)? && round >= repeat.warmup {
            break;
        }
    }
    Ok(done)
}

fn prepare(room: &Path, source: &Weights, destination: &Weights) -> Result<()> {
    io::make_directory(room)?;
    io::write_small(&room.join("source.ckpt"), &source.strategy()?, false)?;
    io::write_small(
        &room.join("destination.ckpt"),
        &destination.strategy()?,
        false,
    )
}

fn job(room: &Path) -> Job {
    let strategy = room.join("source.ckpt");
    let files = Files::Ranks {
        name: RankName::new("net", true),
        remove_redundancy: false,
    };
    let writing = Writing {
        strategy: Some(room.join("destination.ckpt").into()),
        overwrite: true,
        unflushed: true,
        ..Writing::into(room.join(DESTINATION))
    };
    let write = Write::new(Leftovers::Reshard(Unmatched::Fail), files, writing);
    let reading = Reading::checkpoint(room.join(SOURCE), Some(strategy.into()), None);
    Job {
        moving: Moving {
            threads: 1,
            ..Moving::default()
        },
        ..Job::new("bench", reading, Goal::Write(Box::new(write)))
    }
}

/// Copies the destination's files to new ones of their full length, each of the processes that see one an
/// equal range of it. Removing the copies doesn't count. Collective.
fn copy(world: &World, topology: &Topology, room: &Path, weights: &Weights) -> Result<Duration> {
    let copies = room.join("copies");
    let destination = room.join(DESTINATION);
    let file = |rank: u32| Weights::file(&destination, rank);
    let copy = |rank: u32| copies.join(rank.to_string());
    remove(world, topology, &copies)?;
    agree(world, io::make_directory(&copies))?;
    let seen = (0..weights.ranks).map(|rank| io::size(&file(rank)).map(|size| size.is_some()));
    let seen: Vec<Vec<bool>> = all_gather_agreed(world, seen.collect())?;
    // Of each file, this process's place among those that see it, and how many they are.
    let own: Vec<(u32, u64, u64)> = (0..weights.ranks)
        .filter_map(|rank| {
            let sees = |seen: &Vec<bool>| seen.get(rank as usize) == Some(&true);
            seen.get(world.process() as usize)
                .filter(|seen| sees(seen))?;
            let before = seen.iter().take(world.process() as usize);
            let place = before.filter(|seen| sees(seen)).count() as u64;
            let all = seen.iter().filter(|seen| sees(seen)).count() as u64;
            Some((rank, place, all))
        })
        .collect();
    barrier(world)?;
    let start = Instant::now();
    let first = own
        .iter()
        .filter(|(rank, place, all)| u64::from(*rank) % all == *place);
    let created = first.map(|(rank, ..)| {
        let rank = *rank;
        let size = ReadFile::open(&file(rank))?.size();
        WriteFile::create(&copy(rank), size).map(|_| ())
    });
    agree(world, created.collect::<Result<()>>())?;
    let mut buffer = vec![0; CALL];
    let copied = own.iter().map(|(rank, place, all)| {
        let source = ReadFile::open(&file(*rank))?;
        let target = WriteFile::open(&copy(*rank))?;
        let bound = |place: u64| source.size() * place / all;
        let (begin, end) = (bound(*place), bound(place + 1));
        each_call(CALL, end - begin, |at, length| {
            source.read_at(&mut buffer[..length], begin + at)?;
            target.write_at(&buffer[..length], begin + at)
        })
    });
    agree(world, copied.collect::<Result<()>>())?;
    barrier(world)?;
    Ok(start.elapsed())
}

/// Generated weights on some ranks.
struct Weights {
    ranks: u32,
    layout: Layout,
    cell: Shape,
}

impl Weights {
    fn new(bytes: u64, ranks: u32, dimension: usize) -> Result<Weights> {
        let elements = bytes / TENSORS / 2;
        let columns = if elements >= COLUMNS * 8 { COLUMNS } else { 64 };
        let rows = (elements / columns / 8 * 8).max(8);
        let mut map = vec![vec![-1]; 2];
        let mut cell = Shape(vec![rows, columns]);
        match (map.get_mut(dimension), cell.0.get_mut(dimension)) {
            (Some(axes), Some(size)) => {
                *axes = vec![0];
                *size /= u64::from(ranks);
            }
            _ => return Err(Fault::new(Kind::Internal, "weights have two dimensions")),
        }
        Ok(Weights {
            ranks,
            layout: Layout::new(&[u64::from(ranks)], &map, None)?,
            cell,
        })
    }

    fn names() -> impl Iterator<Item = Arc<str>> {
        (0..TENSORS).map(|number| format!("layers.{number}.weight").into())
    }

    fn strategy(&self) -> Result<Vec<u8>> {
        let layouts = Weights::names().map(|n| (n, StageLayout::new(0, self.layout.clone())));
        Strategy::from_layouts(1, self.ranks, layouts)?.to_protobuf()
    }

    /// A rank's file below `base`.
    fn file(base: &Path, rank: u32) -> PathBuf {
        base.join(format!("rank_{rank}/net{rank}.safetensors"))
    }

    fn files(&self, base: &Path) -> Vec<PathBuf> {
        let ranks = 0..self.ranks;
        ranks.map(|rank| Weights::file(base, rank)).collect()
    }

    /// Writes the files of this process's ranks.
    fn write(&self, base: &Path, world: &World) -> Result<()> {
        let listing: Vec<_> = Weights::names()
            .map(|name| (name, Dtype::BF16, self.cell.clone()))
            .collect();
        let metadata = BTreeMap::from([("format".to_owned(), "ms".to_owned())]);
        let schema = Format::SAFETENSORS.design(&listing, &metadata)?;
        for rank in (0..self.ranks).filter(|rank| rank % world.size() == world.process()) {
            let path = Weights::file(base, rank);
            path.parent().map_or(Ok(()), io::make_directory)?;
            let file = WriteFile::create(&path, schema.size)?;
            let pattern: Vec<u8> = (0..CALL).map(|index| byte(rank, 1, index)).collect();
            each_call(CALL, schema.size, |at, length| {
                file.write_at(&pattern[..length], at)
            })?;
            for (at, literal) in &schema.literals {
                file.write_at(literal, *at)?;
            }
        }
        Ok(())
    }
}
