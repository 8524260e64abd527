//! All schedules of small jobs that depart from the plain one so many times at most: whoever goes on does so until it
//! waits, then comes the first that can; a departure lets another come on there.
//!
//! `SHARDLOOM_DEPARTURES=N` allows so many, `SHARDLOOM_MODEL=M` takes one model; 99 are all there are.

use super::case::{Case, Doing};
use super::judge::judge_clean;
use super::room::{Image, Nodes, go_to, image, room};
use super::tried::on;
use super::{number, on_all_processors};
use crate::checkpoint::monitor::{CheckpointMonitor, MonitorConfig, State, StateTensor};
use crate::exchange::World;
use crate::fault::Result;
use crate::host::cluster::ill::Ills;
use crate::host::cluster::{End, Schedule, Setting, run};
use crate::host::threads::{channel, scope, spawn};
use crate::source::Verify;
use crate::tensor::dtype::Dtype;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Departures from the plain schedule: choice → which of those that could go on did.
type Departures = BTreeMap<usize, usize>;

/// A job of which the schedules are tried.
struct Model {
    name: &'static str,
    case: Case,
    /// Worker threads of a process.
    threads: usize,
    /// Whether processes come between each other at every call, or only where a thread waits or wakes another.
    at_calls: bool,
    /// Most departures in an ordinary run of the tests.
    departures: usize,
}

fn model(name: &'static str, doing: Doing, processes: u32, collective: bool) -> Model {
    Model {
        name,
        case: Case {
            doing,
            model: 0,
            processes,
            nodes: processes,
            own_disks: false,
            collective,
            flush: false,
            verify: Verify::None,
            rot: None,
            ills: Ills::Listed(Vec::new()),
        },
        threads: 2,
        at_calls: false,
        departures: 1,
    }
}

/// A calm cluster that goes by this schedule.
fn setting(nodes: Vec<u32>, departures: &Departures, at_calls: bool) -> Setting {
    Setting {
        seed: 0,
        nodes,
        alone: None,
        ills: Ills::Listed(Vec::new()),
        calm: true,
        bug: None,
        schedule: Some(Schedule {
            departures: departures.clone(),
            at_calls,
        }),
    }
}

/// Runs the model by this schedule: how many could go on at each choice, and what is wrong.
fn follow(model: &Model, departures: &Departures) -> (Vec<usize>, Vec<String>) {
    let nodes = Nodes::make(&model.case);
    let setting = setting(model.case.node_of(), departures, model.at_calls);
    let mut job = model.case.job(false);
    job.moving.threads = model.threads;
    let run = on(&model.case, &nodes, &job, &setting);
    let bad = judge_clean(&model.case, &nodes, &run);
    (run.choices, bad)
}

/// What came of all schedules of a model.
#[derive(Debug, Default)]
struct Explored {
    schedules: u64,
    /// Most choices of one.
    choices: usize,
    bad: Vec<String>,
}

/// Follows all schedules of at most so many departures; `follow` gives how many could go on at each choice, and what is
/// wrong.
fn explore(
    follow: impl Fn(&Departures) -> (Vec<usize>, Vec<String>) + Sync,
    most: usize,
) -> Explored {
    let left = Mutex::new(vec![Departures::new()]);
    let busy = AtomicU64::new(0);
    let found = Mutex::new(Explored::default());
    let take = || {
        let mut left = left.lock().unwrap();
        let next = left.pop();
        busy.fetch_add(u64::from(next.is_some()), Ordering::SeqCst);
        next
    };
    let work = || {
        loop {
            let Some(departures) = take() else {
                if busy.load(Ordering::SeqCst) == 0 {
                    break;
                }
                std::thread::yield_now();
                continue;
            };
            let (choices, bad) = follow(&departures);
            let from = departures.last_key_value().map_or(0, |(last, _)| last + 1);
            if departures.len() < most {
                let further = (from..choices.len())
                    .flat_map(|at| (1..choices[at]).map(move |other| (at, other)));
                let further = further.map(|departure| {
                    let mut departures = departures.clone();
                    departures.extend([departure]);
                    departures
                });
                left.lock().unwrap().extend(further);
            }
            busy.fetch_sub(1, Ordering::SeqCst);
            let mut found = found.lock().unwrap();
            found.schedules += 1;
            found.choices = found.choices.max(choices.len());
            if let (Some(bad), true) = (bad.first(), found.bad.len() < 3) {
                found.bad.push(format!("{departures:?}: {bad}"));
            }
        }
    };
    on_all_processors(work);
    found.into_inner().unwrap()
}

#[test]
fn every_schedule_of_small_jobs_gives_the_same() {
    let threads = [
        Model {
            threads: 1,
            departures: 99,
            ..model("one thread beside another", Doing::Reshard, 1, false)
        },
        Model {
            departures: 2,
            ..model("threads of one process", Doing::Reshard, 1, false)
        },
        model("rounds of two processes", Doing::Reshard, 2, true),
        model("a full model by two processes", Doing::Unify, 2, true),
    ];
    let calls = [
        model("calls of two nodes, in place", Doing::InPlace, 2, false),
        model("calls of two nodes, by rounds", Doing::Overwrite, 2, true),
    ];
    let calls = calls.map(|model| Model {
        threads: 1,
        at_calls: true,
        ..model
    });
    let chosen = number("SHARDLOOM_MODEL");
    let models = threads.into_iter().chain(calls).zip(0..);
    let models = models.filter(|(_, number)| chosen.is_none_or(|chosen| chosen == *number));
    let mut bad = Vec::new();
    for (model, _) in models {
        let most = number("SHARDLOOM_DEPARTURES").map_or(model.departures, |most| most as usize);
        let begun = Instant::now();
        let found = explore(|departures| follow(&model, departures), most);
        println!(
            "{}: {} schedules of at most {most} departures at up to {} choices, in {:.1} s",
            model.name,
            found.schedules,
            found.choices,
            begun.elapsed().as_secs_f64()
        );
        assert!(
            found.choices > 0,
            "{}: nobody could come between",
            model.name
        );
        bad.extend(
            found
                .bad
                .into_iter()
                .map(|bad| format!("{}: {bad}", model.name)),
        );
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// Two threads that each read a number, wake whoever waits, and write the next one.
fn count_by_two(departures: &Departures) -> (Vec<usize>, Vec<String>) {
    let setting = setting(vec![0], departures, false);
    let run = run(
        &setting,
        |_| (),
        || {
            let number = AtomicU64::new(0);
            scope(|threads| {
                for _ in 0..2 {
                    let (to, _from) = channel::<()>();
                    let number = &number;
                    let count = move || {
                        let read = number.load(Ordering::SeqCst);
                        drop(to);
                        number.store(read + 1, Ordering::SeqCst);
                    };
                    spawn(threads, count).expect("a thread");
                }
            });
            number.into_inner()
        },
    );
    let lost = !matches!(run.ends[..], [End::Done(2)]);
    (
        run.choices,
        lost.then(|| format!("{:?}", run.ends))
            .into_iter()
            .collect(),
    )
}

#[test]
fn a_schedule_that_loses_a_count_is_found() {
    let plain = explore(count_by_two, 0);
    assert_eq!((plain.schedules, plain.bad.len()), (1, 0), "{plain:?}");
    let found = explore(count_by_two, 1);
    assert!(
        found.bad.iter().any(|bad| bad.contains("Done(1)")),
        "{found:?}"
    );
}

/// What a training leaves that saves both of its steps behind them, and keeps one checkpoint: each rank's files.
fn train(root: &Path, departures: &Departures) -> (Vec<usize>, Vec<String>, Image) {
    let config = "{prefix: net, save_checkpoint_steps: 1, keep_checkpoint_max: 1, async_save: True, \
                  save_network_params: True}";
    let work = || -> Result<()> {
        let world = World::start()?;
        let config = MonitorConfig::parse(config)?;
        let mut monitor = CheckpointMonitor::new(&world, config, Path::new("run"), None)?;
        for step in 1..=2_u8 {
            let bytes = [step; 64];
            let tensor = [StateTensor::new("w", Dtype::F32, &[16], &bytes)];
            monitor.step(&world, || State::new(&tensor, step.into()))?;
        }
        let bytes = [2; 64];
        let tensor = [StateTensor::new("w", Dtype::F32, &[16], &bytes)];
        monitor.finish(&world, &State::new(&tensor, 2))?;
        world.finish()
    };
    let setting = setting(vec![0, 1], departures, false);
    let run = run(&setting, |_| go_to(root), work);
    let mut bad = run.findings;
    let failed = run
        .ends
        .iter()
        .filter(|end| !matches!(end, End::Done(Ok(()))));
    bad.extend(failed.map(|end| format!("{end:?}")));
    (run.choices, bad, image(&root.join("run")))
}

#[test]
fn every_schedule_of_a_training_that_saves_leaves_the_same() {
    let first = room();
    let (_, bad, plain) = train(first.path(), &Departures::new());
    assert!(bad.is_empty(), "{bad:?}");
    let weights = plain
        .keys()
        .filter(|path| path.extension() == Some("safetensors".as_ref()));
    assert_eq!(
        weights.count(),
        4,
        "two ranks, with and without a state: {:?}",
        plain.keys()
    );
    let follow = |departures: &Departures| {
        let other = room();
        let (choices, mut bad, left) = train(other.path(), departures);
        if left != plain {
            bad.push(format!("leaves {:?}", left.keys()));
        }
        (choices, bad)
    };
    let most = number("SHARDLOOM_DEPARTURES").map_or(2, |most| most as usize);
    let found = explore(follow, most);
    println!("a training: {found:?}, at most {most} departures");
    assert!(found.bad.is_empty() && found.choices > 10, "{found:?}");
}
