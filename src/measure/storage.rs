//! Writing, flushing and reading files, as the sink and the readers do it, and what a commit needs of a
//! file system.

use crate::course;
use crate::exchange::{Operation, Topology, World, agree, all_gather, all_reduce, barrier};
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::measure::bench::{Measured, Repeat, Row, Unmeasured};
use crate::measure::coldness::Kept;
use crate::measure::contents::byte;
use crate::measure::lives::{COLD, DIRECT, Lived, Lives, Part};
use crate::measure::metadata::metadata;
use crate::measure::sampling::is_over;
use crate::store::io::{self, Standing};
use crate::transport::Observer;
use std::path::Path;
use std::time::{Duration, Instant};

/// Sizes of a call; the first is measured however little time there is.
const CALLS: [usize; 3] = [1 << 20, 4 << 20, 256 << 10];

/// One file of all processes, where all see the same directory.
pub(super) const ONE_FILE: &str = "one file";
/// What to do where there is too little room.
pub(super) const ROOM: &str = "a smaller --bytes, or a --dir that has room";
/// A file of each process.
const EACH: &str = "a file each";

/// How many bytes each process's file has, and how many small files each makes.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// Bytes of the large file.
    pub bytes: u64,
    /// Small files.
    pub count: u32,
    /// How long it may take altogether: what there is no time for then is told.
    pub budget: Option<Duration>,
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
    let topology = Topology::discover(world)?;
    let mut found = Found {
        begun: Instant::now(),
        kept: Kept::default(),
        rows: Vec::new(),
        unmeasured: Vec::new(),
    };
    let asked = (repeat, directory, files);
    found.together(world, &topology, asked, observer)?;
    found.alone(world, &topology, asked)?;
    let Found {
        kept,
        mut rows,
        unmeasured,
        ..
    } = found;
    // What the file system hasn't dropped from memory tells nothing of its disks.
    for row in rows.iter_mut().filter(|row| row.operation == COLD) {
        row.cached = kept.is_much();
    }
    rows.sort_by_key(|row| {
        let (node, variant) = (row.node.clone(), row.variant.clone());
        (row.operation.clone(), node, variant, row.bytes)
    });
    let (of_metadata, notes) = metadata(world, repeat, directory, files.count)?;
    rows.extend(of_metadata);
    let mut measured = Measured::new("storage", world, &topology, rows, None);
    measured.verdict.extend(notes);
    let past = format!("`{DIRECT}` reads past it");
    measured.verdict.push(kept.told(COLD, &past));
    measured.unmeasured.extend(unmeasured);
    if !measured.rows.iter().any(|row| row.operation == DIRECT) {
        measured.unmeasured.push(Unmeasured {
            operation: DIRECT.to_owned(),
            why: "the file system reads nothing past the page cache (O_DIRECT)".to_owned(),
        });
    }
    Ok(measured)
}

/// What is measured with files: how often, where, and with which.
type Asked<'a> = (Repeat, &'a Path, Files);

/// What was found out so far.
struct Found {
    begun: Instant,
    kept: Kept,
    rows: Vec<Row>,
    unmeasured: Vec<Unmeasured>,
}

impl Found {
    /// All processes at once, by each size of a call. Collective.
    fn together(
        &mut self,
        world: &World,
        topology: &Topology,
        (repeat, directory, files): Asked<'_>,
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        let common = Sharers::of(world, topology, directory)?;
        agree(world, common.have_room(directory, files.bytes))?;
        let kinds = [None, Some(&common)];
        let each = files.bytes * u64::from(world.size());
        let rounds = u64::from(repeat.warmup + repeat.iterations);
        let whole = rounds * (kinds.len() * CALLS.len()) as u64 * each;
        let mut done = 0;
        for call in CALLS {
            for sharers in kinds {
                let variant = sharers.map_or(EACH, |sharers| sharers.variant);
                let name = format!("{variant}, by calls of {call} bytes");
                if self.is_late(world, files, &name)? {
                    continue;
                }
                let mut tell = |round: u32| observer(done + u64::from(round) * each, whole);
                let what = (files.bytes, call, sharers);
                let lived = one(world, repeat, directory, what, &mut tell)?;
                done += rounds * each;
                observer(done, whole);
                self.kept = self.kept.and(lived.kept);
                self.rows.extend(lived.rows(None));
            }
        }
        Ok(())
    }

    /// Of several nodes each alone. Collective.
    fn alone(
        &mut self,
        world: &World,
        topology: &Topology,
        (repeat, directory, files): Asked<'_>,
    ) -> Result<()> {
        if topology.nodes.len() < 2 {
            return Ok(());
        }
        for node in 0..topology.nodes.len() {
            let name = format!("{} alone", name(topology, node));
            if self.is_late(world, files, &name)? {
                continue;
            }
            let what = (files.bytes, CALLS[0], None);
            let rows = of_node(world, topology, node, (repeat, directory), what)?;
            self.rows.extend(rows);
        }
        Ok(())
    }

    /// Whether the time is over, though something was measured: then `what` is left out. Collective.
    fn is_late(&mut self, world: &World, files: Files, what: &str) -> Result<bool> {
        let late = match files.budget {
            Some(budget) => is_over(world, self.begun, budget)? && !self.rows.is_empty(),
            None => false,
        };
        if late {
            self.unmeasured.push(Unmeasured {
                operation: format!("write and read ({what})"),
                why: "no time is left".to_owned(),
            });
        }
        Ok(late)
    }
}

/// What a node is called among the others.
fn name(topology: &Topology, node: usize) -> String {
    let host = &topology.hostnames[node];
    let namesakes = topology.hostnames.iter().filter(|name| *name == host);
    match namesakes.count() {
        1 => host.clone(),
        _ => format!("node {node}"),
    }
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
    let name = name(topology, node);
    Ok(lived.map_or_else(Vec::new, |lived| lived.rows(Some(&name))))
}

/// Those who can write one file, and have its disk in common.
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

impl Sharers {
    /// Whether their files have room, before one is written. Local.
    fn have_room(&self, directory: &Path, bytes: u64) -> Result<()> {
        let needed = bytes.saturating_mul(self.count);
        let free = io::free_bytes(directory)?;
        if needed <= free {
            return Ok(());
        }
        let processes = counted(self.count, "process");
        let message = format!("files of {processes} need {needed} bytes, {free} are free there");
        let fault = Fault::new(Kind::NoSpace, message).file(directory.display().to_string());
        Err(fault.hint(ROOM))
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
    let variant = sharers.map_or(EACH, |sharers| sharers.variant);
    lives.lived(world, call as u64, bytes, variant)
}
