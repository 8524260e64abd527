//! Cuts the power of a run, again and again: `power_check ROOM KIND COUNT SEED DESTINATION JOB… -- LAUNCHER…`.
//!
//! The run, LAUNCHER with what JOB says, works in ROOM/work (`@work`) on what lies in ROOM/in (`@in`), and keeps a
//! record of its calls. COUNT different states that a disk may be in after a cut are made of it in ROOM/again. In
//! each of them the old contents of DESTINATION must stand there or the new ones, whole; and the next run must end
//! with the new ones. KIND is
//!
//! * `job`, `place` (`--in-place`): the same job again, with or without `--resume`;
//! * `loose`: the same of one that flushes nothing: it may lose what it has written, but not unnoticed;
//! * `prune`: of a directory of checkpoints; the newest complete one is never lost;
//! * `save`: a training that saves (`monitor_check`); a checkpoint that all ranks have recorded is never lost.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

#[path = "../power/cut.rs"]
mod cut;
#[path = "../power/dice.rs"]
mod dice;
#[path = "../power/disk.rs"]
mod disk;
#[path = "../power/next.rs"]
mod next;
#[path = "../power/place.rs"]
mod place;

use cut::Cuts;
use dice::Dice;
use disk::Disk;
use next::Next;
use shardloom::World;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime};

/// Failures that are shown.
const SHOWN: usize = 5;
/// States that are drawn for one that is new, before it is taken that there are no more.
const DRAWS: usize = 60;

/// What is asked for.
pub struct Asked {
    pub room: PathBuf,
    pub kind: String,
    pub count: usize,
    pub seed: u64,
    pub destination: PathBuf,
    pub job: Vec<String>,
    pub launcher: Vec<String>,
    /// The environment before MPI has changed it.
    pub environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
}

impl Asked {
    fn read() -> Asked {
        let all: Vec<String> = std::env::args().skip(1).collect();
        let split = all
            .iter()
            .position(|word| word == "--")
            .expect("-- LAUNCHER");
        let [room, kind, count, seed, destination, job @ ..] = &all[..split] else {
            panic!("ROOM KIND COUNT SEED DESTINATION JOB…")
        };
        Asked {
            room: room.into(),
            kind: kind.clone(),
            count: count.parse().expect("COUNT"),
            seed: seed.parse().expect("SEED"),
            destination: destination.into(),
            job: job.to_vec(),
            launcher: all[split + 1..].to_vec(),
            environment: std::env::vars_os().collect(),
        }
    }

    /// The job's words, where `work` is the disk.
    pub fn words(&self, work: &Path) -> Vec<String> {
        let inputs = self.room.join("in").display().to_string();
        let work = work.display().to_string();
        let word = |word: &String| word.replace("@work", &work).replace("@in", &inputs);
        self.job.iter().map(word).collect()
    }

    /// Runs the job by its launcher on the disk `work`; its record goes to `record`.
    pub fn launch(&self, work: &Path, record: Option<&Path>) -> bool {
        let mut command = Command::new(&self.launcher[0]);
        command.env_clear().envs(self.environment.iter().cloned());
        command.args(&self.launcher[1..]).args(self.words(work));
        if let Some(record) = record {
            // What is found afterwards is another start of the machine.
            command.env("SHARDLOOM_IO_TRACE", record);
            command.env("SHARDLOOM_BOOT", "the start before");
        }
        let output = command.output().expect("it starts");
        if !output.status.success() {
            println!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success()
    }
}

fn main() -> ExitCode {
    let asked = Asked::read();
    let (work, record) = (asked.room.join("work"), asked.room.join("record"));
    let begun = SystemTime::now();
    let mut disk = Disk::of(&work);
    let old = place::image(&work.join(&asked.destination));
    assert!(asked.launch(&work, Some(&record)), "the run itself fails");
    disk.read(&std::fs::read_to_string(&record).expect("a record"));
    let (told, found) = (place::expected(&disk), place::image(&work).expect("a disk"));
    let names = |image: &place::Image| image.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&told),
        names(&found),
        "the record is not of all calls"
    );
    for (path, bytes) in &found {
        assert!(told[path] == *bytes, "{}: not as recorded", path.display());
    }
    let new = place::image(&work.join(&asked.destination)).expect("a result");
    let without = std::env::var("SHARDLOOM_CUTS_WITHOUT").ok();
    let without = without.map(|text| text.parse().expect("a flush's number"));
    let cuts = Cuts::of(&disk, without);
    println!("{} steps, {} flushes", disk.steps.len(), cuts.flushes());
    let world = World::start().expect("MPI");
    let failed = cut_all(
        &asked,
        &cuts,
        &Next {
            asked: &asked,
            world: &world,
            old,
            new,
        },
        begun,
    );
    world.finish().expect("MPI ends");
    ExitCode::from(u8::from(failed > 0))
}

/// Gives how many states were wrong.
fn cut_all(asked: &Asked, cuts: &Cuts<'_>, next: &Next<'_>, begun: SystemTime) -> usize {
    let again = asked.room.join("again");
    let mut dice = Dice::new(asked.seed);
    let (mut seen, mut draws, mut failed) = (HashSet::new(), 0, 0);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let start = Instant::now();
    while seen.len() < asked.count && draws < asked.count * DRAWS {
        draws += 1;
        let state = cuts.draw(&mut dice);
        if !seen.insert(state.hash(cuts.disk)) {
            continue;
        }
        let _ = std::fs::remove_dir_all(&again);
        place::place(&state, cuts.disk, begun, &again);
        let one = Instant::now();
        let looked = next.look(cuts, &state, &again, &mut dice);
        let slow = one.elapsed().as_secs() >= 5;
        let looked = match slow {
            true => Err(format!("took {:?}", one.elapsed())),
            false => looked,
        };
        match looked {
            Ok(words) => words
                .into_iter()
                .for_each(|word| *counts.entry(word).or_default() += 1),
            Err(why) => {
                failed += 1;
                if failed <= SHOWN {
                    println!(
                        "state {draws}, cut at {}, {:?}: {why}",
                        state.cut, state.rules
                    );
                    let kept = asked.room.join(format!("failed-{failed}"));
                    place::place(&state, cuts.disk, begun, &kept);
                    let from = state.cut.saturating_sub(3);
                    let last = &cuts.disk.steps[from..state.cut];
                    last.iter().for_each(|told| println!("    {}", brief(told)));
                }
            }
        }
    }
    println!(
        "{} {}: {} states of {draws} drawn, seed {}, {failed} bad, in {:?}: {counts:?}",
        asked.kind,
        asked.job.join(" "),
        seen.len(),
        asked.seed,
        start.elapsed()
    );
    failed
}

fn brief(told: &disk::Told) -> String {
    let text = match &told.step {
        disk::Step::Names(changes) => {
            let change = |(directory, name, node): &(usize, Vec<u8>, Option<usize>)| {
                format!("{directory}/{} -> {node:?}", String::from_utf8_lossy(name))
            };
            changes.iter().map(change).collect::<Vec<_>>().join(", ")
        }
        disk::Step::Size(node, size) => format!("size of {node}: {size}"),
        disk::Step::Write(node, offset, bytes) => {
            format!("write to {node} at {offset}: {} bytes", bytes.len())
        }
        disk::Step::Begin(node, _) => format!("begin to flush {node}"),
        disk::Step::End(number) => format!("end of flush {number}"),
    };
    format!("process {}: {text}", told.process)
}
