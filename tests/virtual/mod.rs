//! Jobs on virtual clusters: the production code of every room runs as several processes on several nodes, in
//! one test, under one seed (`src/host/cluster`).
//!
//! `SHARDLOOM_SEEDS=N` tries so many seeds, `SHARDLOOM_SEED=S` one and tells of it.

#![allow(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a failure here is a failed test"
)]

mod case;
mod checked;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../support/deepseek.rs"]
mod deepseek;
mod judge;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../support/oracle.rs"]
mod oracle;
mod planted;
mod room;
mod schedules;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../support/tensors.rs"]
mod tensors;
mod thousands;
mod tried;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../support/wire.rs"]
mod wire;

use crate::host::cluster::ill::{Event, Ill};
use case::{Case, Doing};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tried::{Tried, attempt, told};

/// Seeds of an ordinary run of the tests, and how long it may take at most.
const SEEDS: u64 = 300;
const TIME: Duration = Duration::from_secs(10);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

/// What was met, how often, over all seeds.
type Met = BTreeMap<(String, &'static str), u64>;

const PHASES: [&str; 6] = [
    "starting",
    "reading what is there",
    "planning",
    "making files",
    "moving",
    "putting in place",
];

/// A table of what was met in which phase, and the pairs that were never met.
fn table(met: &Met) -> (String, Vec<String>) {
    let mut text = format!("{:>12}", "");
    for phase in PHASES {
        text += &format!("{phase:>23}");
    }
    let mut never = Vec::new();
    let ills = [
        "EINTR",
        "short",
        "EIO",
        "ENOSPC",
        "seen late",
        "lost",
        "all lost",
        "stopped",
        "slow",
        "delayed",
        "rot",
    ];
    for ill in ills {
        text += &format!("\n{ill:>12}");
        for phase in PHASES {
            let count = met.get(&(ill.to_owned(), phase)).copied().unwrap_or(0);
            text += &format!("{count:>23}");
            if count == 0 && tried::can_meet(ill, phase) {
                never.push(format!("{ill} while {phase}"));
            }
        }
    }
    (text, never)
}

/// Keeps this thread, and those that it starts, on one processor: of a cluster one thread alone goes on at a time, and
/// the turn passes sooner there.
fn stay_on(number: usize) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let mut all = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
    if let Some(processor) = all.nth(number) {
        let mut one = CpuSet::new();
        one.set(processor);
        // Without it all goes on, more slowly.
        let _ = sched_setaffinity(None, &one);
    }
}

/// Works on as many threads as there are processors, each with its own.
fn on_all_processors(work: impl Fn() + Sync) {
    let work = &work;
    std::thread::scope(|scope| {
        for thread in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(move || {
                stay_on(thread);
                work();
            });
        }
    });
}

#[test]
fn whatever_befalls_a_cluster_checkpoints_are_whole() {
    if let Some(seed) = number("SHARDLOOM_SEED") {
        let tried = attempt(seed, None, None);
        println!("{tried:#?}");
        assert!(tried.bad.is_empty(), "{}", told(seed, &tried));
        return;
    }
    let asked = number("SHARDLOOM_SEEDS");
    let seeds = asked.unwrap_or(SEEDS);
    let first = number("SHARDLOOM_SEED_FIRST").unwrap_or(1);
    let (next, begun) = (AtomicU64::new(first), Instant::now());
    let (met, failed, steps) = (
        Mutex::new(Met::new()),
        Mutex::new(Vec::new()),
        AtomicU64::new(0),
    );
    let done = AtomicU64::new(0);
    on_all_processors(|| {
        while asked.is_some() || begun.elapsed() < TIME {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let enough = failed.lock().unwrap().len() >= 3;
            if seed >= first + seeds || enough {
                break;
            }
            let Tried {
                met: here,
                bad,
                steps: more,
                ..
            } = attempt(seed, None, None);
            for (key, count) in here {
                *met.lock().unwrap().entry(key).or_default() += count;
            }
            steps.fetch_add(more, Ordering::Relaxed);
            if !bad.is_empty() {
                failed.lock().unwrap().push(seed);
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (text, never) = table(&met.into_inner().unwrap());
    let (done, steps) = (done.into_inner(), steps.into_inner());
    let seconds = begun.elapsed().as_secs_f64();
    println!("{done} seeds, {steps} calls in {seconds:.1} s\n{text}");
    let failed = failed.into_inner().unwrap();
    let told: Vec<String> = failed
        .iter()
        .map(|seed| told(*seed, &attempt(*seed, None, None)))
        .collect();
    assert!(told.is_empty(), "\n{}", told.join("\n"));
    assert!(done < 1000 || never.is_empty(), "never met: {never:?}");
}

/// The same seed twice: what came first and next, on every process.
#[test]
fn a_seed_shows_the_same_run_again() {
    for seed in 1..=20 {
        let [one, other] = [(); 2].map(|()| attempt(seed, None, None));
        assert_eq!(
            (one.trace, one.events),
            (other.trace, other.events),
            "seed {seed}"
        );
    }
}

/// Calls of a process among which all of its last phase are.
const LAST_CALLS: std::ops::Range<u64> = 340..560;

#[test]
fn a_node_that_fails_while_others_put_in_place_loses_nothing() {
    let in_place = |seed: &u64| {
        let case = Case::of(*seed);
        case.doing == Doing::InPlace && case.own_disks && (case.model, case.processes) == (0, 2)
    };
    let seed = (1..).find(in_place).expect("a seed");
    let next = AtomicU64::new(LAST_CALLS.start);
    let found = Mutex::new((0, Vec::new()));
    on_all_processors(|| {
        loop {
            let call = next.fetch_add(1, Ordering::Relaxed);
            if !LAST_CALLS.contains(&call) {
                break;
            }
            let event = Event {
                process: 1,
                call,
                ill: Ill::Failed,
                phase: "putting in place",
            };
            let tried = attempt(seed, Some((&[event], true)), None);
            let mut found = found.lock().unwrap();
            let here = tried
                .events
                .iter()
                .any(|event| event.phase == "putting in place");
            found.0 += usize::from(here);
            found.1.extend(
                tried
                    .bad
                    .into_iter()
                    .map(|bad| format!("call {call}: {bad}")),
            );
        }
    });
    let (met, bad) = found.into_inner().unwrap();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    assert!(met > 10, "{met} calls of the last phase failed only");
}
