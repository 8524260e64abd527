//! One process of thousands: what finding a checkpoint and planning costs it. It is real, and its files are; the others
//! are imagined, and tell what each of them would tell of what falls to it.

use super::deepseek::{self, Parallel};
use super::room::{go_to, room};
use crate::destination::Writing;
use crate::exchange::in_memory::{imagine, imagining};
use crate::exchange::{World, decode, encode};
use crate::host::cluster::ill::Ills;
use crate::host::cluster::{End, Setting, run};
use crate::job::{self, Goal, Job, Write};
use crate::plan::arrange::{Files, RankName};
use crate::plan::build::{Leftovers, Unmatched};
use crate::source::Reading;
use crate::store::Format;
use crate::store::io::{ReadFile, peak_memory_bytes};
use crate::strategy::Strategy;
use std::any::type_name;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

const RANKS: u32 = 16_384;
const STAGES: u32 = 16;
/// Processes of a node.
const A_NODE: u32 = 8;
/// Says on how many nodes a test that was started again for itself is to try.
const NODES: &str = "SHARDLOOM_IMAGINED_NODES";

/// What each file of a stage says.
#[derive(Clone)]
struct Stage {
    hash: u64,
    schema: Vec<u8>,
    bytes: u64,
}

/// A checkpoint of thousands of ranks on storage that all nodes share.
#[derive(Clone)]
struct Saved {
    stages: Vec<Stage>,
    /// All ranks, in the order of their directories' names.
    named: Vec<u32>,
    nodes: u32,
}

fn file(rank: u32) -> String {
    format!("rank_{rank}/net.safetensors")
}

impl Saved {
    /// Makes its files, which have holes where weights would be, and strategies beside them.
    fn make(root: &Path, nodes: u32) -> Saved {
        let (pp, dp) = (STAGES, u64::from(RANKS / STAGES / 8));
        let source = deepseek::strategy(Parallel {
            pp,
            dp,
            tp: 8,
            ep: 256,
        });
        let destination = deepseek::strategy(Parallel {
            pp: 8,
            dp: 256,
            tp: 4,
            ep: 128,
        });
        for (name, strategy) in [("from.ckpt", &source), ("to.ckpt", &destination)] {
            std::fs::write(root.join(name), strategy.to_protobuf().unwrap()).unwrap();
        }
        let stages = (0..STAGES).map(|stage| Stage::make(root, stage, &source));
        let mut named: Vec<u32> = (0..RANKS).collect();
        named.sort_by_key(|rank| file(*rank).replace('/', "\0"));
        Saved {
            stages: stages.collect(),
            named,
            nodes,
        }
    }

    /// What process `other` tells where process 0 tells `mine`, of this type.
    fn told(&self, of: &str, other: u32, mine: &[u8]) -> Option<Vec<u8>> {
        let leads = other.is_multiple_of(A_NODE);
        let processes = self.nodes * A_NODE;
        // Ranks are looked at in turns.
        let ranks = (other..RANKS).step_by(processes as usize);
        let told = if of == "bytes" {
            if let Ok((_, _, version)) = decode::<(u32, Option<String>, String)>(mine) {
                let leader = other - other % A_NODE;
                encode(&(leader, leads.then(|| format!("node-{leader}")), version))
            } else if decode::<Vec<(u64, Vec<u8>)>>(mine).is_ok_and(|files| !files.is_empty()) {
                encode(&Vec::<(u64, Vec<u8>)>::new())
            } else {
                return None;
            }
        } else if of == type_name::<Option<u64>>()
            || of == type_name::<Option<Vec<Option<(u64, u64)>>>>()
        {
            match leads {
                true => return None,
                false => encode(&None::<u64>),
            }
        } else if of.contains("Begun")
            || of.contains("PathBuf")
            || of == type_name::<Option<Vec<(String, u64)>>>()
        {
            encode(&None::<u64>)
        } else if of == type_name::<Vec<(u32, Vec<String>)>>() {
            // These are numbers of directories, in the order of their names.
            let own = ranks.map(|number| (number, vec![file(self.named[number as usize])]));
            encode(&own.collect::<Vec<_>>())
        } else if of.ends_with("listed::Listed)>") {
            let seen = |rank| (rank, file(rank), self.stage(rank).bytes, u64::from(rank));
            encode(&ranks.map(seen).collect::<Vec<_>>())
        } else if of == type_name::<Vec<(u32, u32, u64, [Option<u64>; 3])>>() {
            encode(&self.headers(other))
        } else if of == type_name::<Vec<(u64, std::sync::Arc<Vec<u8>>)>>() {
            self.knows(mine);
            let first = |number: &u32| self.reader(number * (RANKS / STAGES)) == other;
            let sent = (0..STAGES)
                .filter(first)
                .map(|number| &self.stages[number as usize]);
            encode(
                &sent
                    .map(|stage| (stage.hash, &stage.schema))
                    .collect::<Vec<_>>(),
            )
        } else {
            return None;
        };
        Some(told.unwrap())
    }

    /// Checks that the headers that process 0 has read are those of the stages.
    fn knows(&self, mine: &[u8]) {
        let read: Vec<(u64, Vec<u8>)> = decode(mine).unwrap();
        for (hash, schema) in read {
            let stage = self.stages.iter().find(|stage| stage.schema == schema);
            assert_eq!(stage.map(|stage| stage.hash), Some(hash), "another header");
        }
    }

    fn stage(&self, rank: u32) -> &Stage {
        &self.stages[(rank / (RANKS / STAGES)) as usize]
    }

    /// The process that reads the header of a rank's file: nodes take turns, and so do a node's processes.
    fn reader(&self, rank: u32) -> u32 {
        rank % self.nodes * A_NODE + rank / self.nodes % A_NODE
    }

    /// Rank, file and header of what process `other` reads, and the counts that it has: none.
    fn headers(&self, other: u32) -> Vec<(u32, u32, u64, [Option<u64>; 3])> {
        let (node, place) = (other / A_NODE, other % A_NODE);
        let ranks = (node + place * self.nodes..RANKS).step_by((self.nodes * A_NODE) as usize);
        ranks
            .map(|rank| (rank, 0, self.stage(rank).hash, [None; 3]))
            .collect()
    }
}

impl Stage {
    fn make(root: &Path, stage: u32, strategy: &Strategy) -> Stage {
        let mut tensors = Vec::new();
        for (name, dtype, mut shape) in deepseek::shapes() {
            let mut layouts = strategy.layouts(&name).iter();
            if let Some(of_stage) = layouts.find(|layout| layout.stage == stage) {
                let sizes = shape.0.iter_mut().zip(of_stage.layout.parts());
                sizes.for_each(|(size, parts)| *size /= parts);
                tensors.push((name, dtype, shape));
            }
        }
        let format = Format::SAFETENSORS;
        let designed = format.design(&tensors, &BTreeMap::new()).unwrap();
        let ranks = RANKS / STAGES;
        let path = |rank: u32| root.join("src").join(file(stage * ranks + rank));
        for rank in 0..ranks {
            std::fs::create_dir_all(path(rank).parent().unwrap()).unwrap();
            if rank > 0 {
                std::fs::hard_link(path(0), path(rank)).unwrap();
                continue;
            }
            let mut bytes = Vec::new();
            for (offset, literal) in &designed.literals {
                bytes.resize(usize::try_from(*offset).unwrap(), 0);
                bytes.extend_from_slice(literal);
            }
            std::fs::write(path(0), bytes).unwrap();
            let open = std::fs::OpenOptions::new().write(true).open(path(0));
            open.unwrap().set_len(designed.size).unwrap();
        }
        let read = format.read(&ReadFile::open(&path(0)).unwrap()).unwrap();
        let named = (
            format.name(),
            read.entries,
            read.metadata,
            read.size,
            read.held,
        );
        let schema = encode(&named).unwrap();
        let mut hasher = DefaultHasher::new();
        schema.hash(&mut hasher);
        Stage {
            hash: hasher.finish(),
            schema,
            bytes: designed.size,
        }
    }
}

/// The processor's time of all of this process, to a hundredth of a second.
fn process_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = text.rsplit(')').next().unwrap().split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Finds and plans as process 0 of all; gives the processor's time that this took, and the transfers of all.
fn plan(root: &Path, saved: &Saved) -> (Duration, u64) {
    let processes = saved.nodes * A_NODE;
    let setting = Setting {
        seed: 0,
        nodes: (0..processes).map(|process| process / A_NODE).collect(),
        alone: Some(0),
        ills: Ills::Listed(Vec::new()),
        calm: true,
        bug: None,
        schedule: None,
    };
    let mut writing = Writing::into("out");
    writing.strategy = Some("to.ckpt".into());
    let ranks = Files::Ranks {
        name: RankName::new("net", false),
        remove_redundancy: false,
    };
    let write = Write::new(Leftovers::Reshard(Unmatched::Fail), ranks, writing);
    let reading = Reading::checkpoint("src".into(), Some("from.ckpt".into()), None);
    let mut job = Job::new("reshard", reading, Goal::Write(Box::new(write)));
    job.dry_run = true;
    job.moving.threads = 1;
    let mut run = run(
        &setting,
        |_| {
            go_to(root);
            let others = saved.clone();
            imagine(Box::new(move |of, other, mine| {
                others.told(of, other, mine)
            }));
        },
        || {
            let begun = (process_time(), imagining());
            let world = World::start()?;
            let outcome = job::run(&world, &job, &mut |_, _| {});
            world.finish()?;
            let spent = (process_time() - begun.0).saturating_sub(imagining() - begun.1);
            outcome.map(|outcome| (spent, outcome.plan.map_or(0, |plan| plan.transfers)))
        },
    );
    match run.ends.pop() {
        Some(End::Done(Ok(planned))) if run.findings.is_empty() => planned,
        other => panic!("{other:?} {:?}", run.findings),
    }
}

/// What a process of its own comes to on so many nodes: the processor's time in seconds, and bytes of memory.
fn measured(nodes: u32) -> (f64, f64) {
    let test = "virtual_cluster::thousands::one_process_of_thousands_finds_and_plans_with_little";
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let command = command
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(NODES, nodes.to_string());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = text
        .lines()
        .find_map(|line| line.split_once("measured "))
        .map(|(_, told)| told);
    let Some(told) = told.filter(|_| output.status.success()) else {
        panic!("{text}{}", String::from_utf8_lossy(&output.stderr));
    };
    let numbers: Vec<f64> = told.split(' ').map(|word| word.parse().unwrap()).collect();
    println!(
        "{nodes} nodes, {} processes: {:.2} s, {:.1} MB",
        nodes * A_NODE,
        numbers[0],
        numbers[1] / 1e6
    );
    (numbers[0], numbers[1])
}

#[test]
#[ignore = "slow unless optimised: cargo test --release --lib -- --ignored thousands"]
fn one_process_of_thousands_finds_and_plans_with_little() {
    if let Ok(nodes) = std::env::var(NODES) {
        let room = room();
        let root: PathBuf = room.path().to_path_buf();
        let saved = Saved::make(&root, nodes.parse().unwrap());
        let (spent, transfers) = plan(&root, &saved);
        assert!(transfers > 0);
        println!("measured {} {}", spent.as_secs_f64(), peak_memory_bytes());
        return;
    }
    let [(_, one), (_, some), (seconds, bytes)] = [1, 32, 2048].map(measured);
    assert!(bytes < 256e6, "{bytes} bytes of memory");
    assert!(
        some < one * 1.1,
        "{some} bytes of memory on 32 nodes, {one} on one"
    );
    // The aim is 2 s where the program is optimised.
    let most = if cfg!(debug_assertions) { 40.0 } else { 2.0 };
    assert!(seconds < most, "{seconds} s of the processor");
}
