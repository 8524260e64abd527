//! Writing, flushing and reading files, as the sink and the readers do it, and what a commit needs of a
//! file system.

use crate::course;
use crate::exchange::{Operation, Topology, World, agree, all_gather, all_reduce, barrier};
use crate::fault::Result;
use crate::measure::bench::{Measured, Repeat, Row, Unmeasured};
use crate::measure::contents::byte;
use crate::measure::lives::{COLD, DIRECT, Lived, Lives, Part};
use crate::measure::metadata::metadata;
use crate::measure::sampling::is_over;
use crate::store::io::{self, Standing};
use crate::transport::Observer;
use std::path::Path;
use std::time::Instant;

/// Sizes of a call.
const CALLS: [usize; 3] = [256 << 10, 1 << 20, 4 << 20];

/// Of so many pages that were to be dropped at most one is in memory still where reading is cold.
const KEPT_MOST: u64 = 10;
/// One file of all processes, where all see the same directory.
pub(super) const ONE_FILE: &str = "one file";

/// How many bytes each process's file has, and how many small files each makes.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// Bytes of the large file.
    pub bytes: u64,
    /// Small files.
    pub count: u32,
}

/// Small files of each process where nothing else is said.
pub const FILES: u32 = 64;

/// Each process writes a file of so many bytes into `directory`, flushes it, and reads it from the page cache and
/// after the system was asked to drop it: in a file of its own, and in its part of one file; of several nodes each
/// alone, too. Then what can be done with small files. Rates are of all processes together. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Io`], [`crate::fault::Kind::NoSpace`].
pub fn storage(
    world: &World,
    repeat: Repeat,
    directory: &Path,
    files: Files,
    observer: &mut Observer<'_>,
) -> Result<Measured> {
    course::phase("measuring files");
    let bytes = files.bytes;
    let topology = Topology::discover(world)?;
    let mut rows = Vec::new();
    let mut kept = (0, 0);
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
            let lived = one(world, repeat, directory, what, &mut tell)?;
            done += rounds * each;
            observer(done, whole);
            kept = (kept.0 + lived.kept.0, kept.1 + lived.kept.1);
            rows.extend(lived.rows(None));
        }
    }
    if topology.nodes.len() > 1 {
        for node in 0..topology.nodes.len() {
            let what = (bytes, CALLS[1], None);
            rows.extend(of_node(world, &topology, node, (repeat, directory), what)?);
        }
    }
    // What the file system hasn't dropped from memory tells nothing of its disks.
    let cached = kept.0 * KEPT_MOST > kept.1;
    for row in rows
        .iter_mut()
        .filter(|row: &&mut Row| row.operation == COLD)
    {
        row.cached = cached;
    }
    rows.sort_by_key(|row: &Row| {
        let (node, variant) = (row.node.clone(), row.variant.clone());
        (row.operation.clone(), node, variant, row.bytes)
    });
    let (of_metadata, notes) = metadata(world, repeat, directory, files.count)?;
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

/// The same by the processes of one node, while the others wait. Collective.
fn of_node(
    world: &World,
    topology: &Topology,
    node: usize,
    (repeat, directory): (Repeat, &Path),
    what: (u64, usize, Option<&Sharers>),
) -> Result<Vec<Row>> {
    let part = world.part(topology.nodes[node].contains(&world.process()))?;
    let mine = match &part {
        Some(part) => one(part, repeat, directory, what, &mut |_| {}).map(Some),
        None => Ok(None),
    };
    let mine = agree(world, mine)?;
    part.map_or(Ok(()), World::finish)?;
    let lived = all_gather(world, &mine)?.into_iter().flatten().next();
    let host = &topology.hostnames[node];
    let namesakes = topology.hostnames.iter().filter(|name| *name == host);
    let name = match namesakes.count() {
        1 => host.clone(),
        _ => format!("node {node}"),
    };
    Ok(lived.map_or_else(Vec::new, |lived| lived.rows(Some(&name))))
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
                variant: ONE_FILE,
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
    tell: &mut dyn FnMut(u32),
) -> Result<Lived> {
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
    let variant = sharers.map_or("a file each", |sharers| sharers.variant);
    lives.lived(world, call as u64, bytes, variant)
}

/// What reading cold was, in words, by how many looks found a page that was to be dropped, of how many.
fn coldness((kept, looks): (u64, u64)) -> Option<String> {
    match (kept, looks) {
        (_, 0) => None,
        (0, _) => Some("read cold: from what the system had dropped from memory".to_owned()),
        _ => Some(format!(
            "read cold: {} of 100 pages that were looked at were still in memory, though the system was asked to \
             drop them; `{DIRECT}` reads past it",
            kept * 100 / looks
        )),
    }
}
