//! Every recorded MindSpore call, done by `shardloom` and compared byte for byte.
//!
//! Each step runs by itself, on 4 processes, and with the collective exchange on 2 and on 8 by turns.
//! `SHARDLOOM_GOLDEN=full` runs it on 1, 2, 4 and 8 processes with both exchanges;
//! `SHARDLOOM_GOLDEN=alone` by itself only, for a place without a launcher;
//! `SHARDLOOM_PROGRAM=FILE` tests this program, as a package has it;
//! `SHARDLOOM_GOLDEN_CASE=NAME` keeps the steps whose description contains NAME.

use crate::support::command::{alone, under_mpi};
use crate::support::compare;
use crate::support::expect;
use crate::support::{Run, fixtures, oracle, tensors};
use compare::compare;
use expect::{Expect, expectation};
use fixtures::{Step, listing, ranks, steps};
use oracle::Strategy;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use tensors::Tensors;

/// How a step is launched.
#[derive(Clone, Copy)]
struct Launch {
    /// `None`: without the launcher.
    processes: Option<u32>,
    exchange: &'static str,
}

// proves P1, P108, P109, P157
#[test]
fn reshard_unify_split_and_merge_equal_mindspore() {
    let quick = [
        vec![(None, "auto"), (Some(2), "collective")],
        vec![(Some(4), "auto")],
        vec![(None, "auto"), (Some(8), "collective")],
        vec![(Some(4), "collective")],
    ];
    let processes = [None, Some(1), Some(2), Some(4), Some(8)];
    let full = processes.map(|processes| [(processes, "auto"), (processes, "collective")]);
    let launches = if asked("full") {
        vec![full.concat()]
    } else {
        quick.to_vec()
    };
    run_all(&["reshard", "unify", "split"], &launches);
    run_all(&["merge_strategy"], &[vec![(None, "")]]);
}

// proves P157
#[test]
fn convert_equals_mindspore() {
    run_all(&["convert"], &[vec![(None, ""), (Some(2), "")]]);
}

/// The oracle of these tests, tested itself: it gives what MindSpore gives, wherever that is right.
#[test]
fn oracle_agrees_with_mindspore() {
    let (mut tensors, mut failures) = (0, Vec::new());
    for step in steps() {
        let usable = step.expected.is_some()
            && step.mindspore_output_is_wrong.is_none()
            && step.arg("choice_func").is_none()
            && step.args.get("split_dst_file").is_none()
            && !["file_choice", "multi_axis_json"].contains(&step.case.as_str());
        let process_number = step.args.get("process_num").and_then(Value::as_u64);
        if !usable || process_number == Some(2) {
            continue;
        }
        match oracle_compares(&step) {
            Ok(compared) => tensors += compared,
            Err(error) => failures.push(format!("{step}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!("{tensors} tensors agree");
    assert!(tensors > 2000, "only {tensors} tensors were compared");
}

/// Compares what the oracle makes of a step with MindSpore's output, by the names that are in a strategy.
fn oracle_compares(step: &Step) -> Result<usize, String> {
    if !["split", "reshard", "unify"].contains(&step.op.as_str()) {
        return Ok(0);
    }
    let expected = step.path(step.expected.as_deref().unwrap_or_default());
    let input = step.path(step.input.as_deref().unwrap_or_default());
    let mut whole = match &step.src_strategy {
        Some(name) => Strategy::read(&step.path(name))?.merge(&ranks(&input)?)?,
        None => ranks(&input)?.remove(&0).ok_or("no input")?,
    };
    if let Some(Value::Object(map)) = step.args.get("name_map") {
        for (name, in_file) in map {
            let tensor = whole.remove(in_file.as_str().ok_or("a name")?);
            whole.insert(name.clone(), tensor.ok_or("no such name")?);
        }
    }
    if step.op == "unify" {
        whole.retain(|name, _| !name.starts_with("accu_grads"));
        let parts = listing(&expected).into_iter();
        let mut found = Tensors::new();
        for part in parts.filter(|file| file.to_string_lossy().starts_with("part")) {
            found.extend(tensors::read(&expected.join(part))?.tensors);
        }
        tensors::compare(&whole, &found)?;
        return Ok(found.len());
    }
    let mut compared = 0;
    for (rank, found) in ranks(&expected)? {
        let shards = match &step.dst_strategy {
            Some(name) => Strategy::read(&step.path(name))?.cut(&whole, rank)?,
            None => whole.clone(),
        };
        let hyper = input.join("hyper_param.safetensors");
        let hyper = tensors::read(&hyper).map_or_else(|_| Tensors::new(), |file| file.tensors);
        for (name, shard) in shards {
            let found = found.get(&name).ok_or(format!("{rank}: no {name}"))?;
            if found != &shard && hyper.get(&name) != Some(found) {
                return Err(format!("rank {rank}: {name}: {shard:?}, not {found:?}"));
            }
            compared += 1;
        }
    }
    Ok(compared)
}

/// Whether `SHARDLOOM_GOLDEN` is this word.
fn asked(word: &str) -> bool {
    std::env::var("SHARDLOOM_GOLDEN").is_ok_and(|value| value == word)
}

/// Runs every step of these kinds under a set of launches, the sets by turns, two at a time, and fails with all that went wrong.
fn run_all(operations: &[&str], sets: &[Vec<(Option<u32>, &'static str)>]) {
    let narrow = std::env::var("SHARDLOOM_GOLDEN_CASE").unwrap_or_default();
    let wanted =
        |step: &Step| operations.contains(&step.op.as_str()) && step.to_string().contains(&narrow);
    let steps: Vec<Step> = steps().into_iter().filter(wanted).collect();
    let mut jobs = Vec::new();
    for (step, launches) in steps.iter().zip(sets.iter().cycle()) {
        match expectation(step) {
            Ok(Expect::Skip(reason)) => println!("skipped: {step}: {reason}"),
            Ok(expect) => {
                let here =
                    |(processes, _): &&(Option<u32>, _)| processes.is_none() || !asked("alone");
                for (processes, exchange) in launches.iter().filter(here) {
                    let launch = Launch {
                        processes: *processes,
                        exchange,
                    };
                    jobs.push((step, expect.clone(), launch));
                }
            }
            Err(error) => unreachable!("{step}: {error}"),
        }
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut failures = Vec::new();
        while let Some((step, expect, launch)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let attempt = || run_step(step, expect, *launch);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt))
                .unwrap_or_else(|_| Err("it hangs or can't be started".to_owned()));
            if let Err(error) = result {
                let (processes, exchange) = (launch.processes, launch.exchange);
                failures.push(format!("{step} on {processes:?} {exchange}:\n    {error}"));
            }
        }
        failures
    };
    let mut failures = std::thread::scope(|scope| {
        let threads = [scope.spawn(worker), scope.spawn(worker)];
        threads
            .map(|thread| thread.join().expect("a worker"))
            .concat()
    });
    failures.sort();
    let (count, jobs) = (failures.len(), jobs.len());
    println!("{jobs} runs of {} steps", steps.len());
    assert!(
        failures.is_empty(),
        "{count} of {jobs} runs:\n{}",
        failures.join("\n")
    );
}

/// Runs `step` into a fresh directory and compares.
fn run_step(step: &Step, expect: &Expect, launch: Launch) -> Result<(), String> {
    let room = tempfile::tempdir().map_err(|error| error.to_string())?;
    let outputs = room.path().join("outputs");
    std::fs::create_dir(&outputs).map_err(|error| error.to_string())?;
    let destination = outputs.join(destination_name(step));
    let mut args = arguments(step, room.path(), &destination)?;
    if !launch.exchange.is_empty() {
        args.extend(["--exchange".to_owned(), launch.exchange.to_owned()]);
    }
    let run = shardloom(launch.processes, &args);
    compare(step, expect, &run, &destination).map_err(|error| {
        let line = args.join(" ");
        format!(
            "{error}\n    shardloom {line}\n    {}",
            run.stderr.trim().replace('\n', "\n    ")
        )
    })
}

fn shardloom(processes: Option<u32>, args: &[String]) -> Run {
    match processes {
        Some(processes) => under_mpi(processes, args),
        None => alone(args),
    }
}

fn destination_name(step: &Step) -> &str {
    match (step.op.as_str(), &step.expected) {
        ("merge_strategy", Some(file)) => file.rsplit('/').next().unwrap_or(file),
        ("merge_strategy", None) => "merged.ckpt",
        _ => "out",
    }
}

/// The recorded call as a command line.
fn arguments(step: &Step, room: &Path, destination: &Path) -> Result<Vec<String>, String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut input = step.path(step.input.as_deref().ok_or("no input")?);
    if !input.exists() && step.input.as_deref() != Some("nodir") {
        // An empty directory, which the repository can't hold.
        input = room.join(step.input.as_deref().unwrap_or_default());
        std::fs::create_dir_all(&input).map_err(|error| error.to_string())?;
    }
    let mut args = Vec::new();
    let mut add = |items: &[&str]| args.extend(items.iter().map(|item| (*item).to_owned()));
    let (input, destination) = (text(&input), text(destination));
    match step.op.as_str() {
        "merge_strategy" => add(&["strategy", "merge", &input, "--output", &destination]),
        "convert" => {
            let to = if converts_to_ckpt(step) {
                "ckpt"
            } else {
                "safetensors"
            };
            add(&["convert", &input, "--dst", &destination, "--to", to]);
        }
        job => add(&[job, "--src", &input, "--dst", &destination]),
    }
    if let Some(strategy) = &step.src_strategy {
        add(&["--src-strategy", &text(&step.path(strategy))]);
    }
    if let Some(strategy) = &step.dst_strategy {
        add(&["--dst-strategy", &text(&step.path(strategy))]);
    }
    match step.op.as_str() {
        "reshard" => {
            add(&["--prefix", step.arg("ckpt_prefix").unwrap_or("net")]);
            add(&["--format", step.arg("output_format").unwrap_or("ckpt")]);
            if step.case == "partial_strategy" {
                add(&["--unmatched", "copy"]);
            }
        }
        "unify" => {
            let size = if step.case == "unify_multipart" {
                "3KiB"
            } else {
                "3GiB"
            };
            add(&["--naming", "mindspore", "--max-shard-size", size]);
            if let Some(suffix) = step.arg("file_suffix") {
                add(&["--file-suffix", suffix]);
            }
            if step.arg("choice_func").is_some() {
                add(&["--filter-out-param-prefix", "adam_"]);
            }
        }
        "split" => {
            if ["split_names", "dtypes", "partial_strategy"].contains(&step.case.as_str()) {
                // MindSpore leaves out what the strategy doesn't know.
                add(&["--unmatched", "drop"]);
            }
            if let Some(format) = step.arg("output_format") {
                add(&["--format", format]);
            }
        }
        _ => {}
    }
    if let Some(map) = name_map(step)? {
        let file = room.join("names.json");
        std::fs::write(&file, map.to_string()).map_err(|error| error.to_string())?;
        add(&["--name-map", &text(&file)]);
    }
    Ok(args)
}

/// The recorded `name_map`, or the one that does what the recorded renaming function did.
fn name_map(step: &Step) -> Result<Option<Value>, String> {
    if step.arg("choice_func") == Some("rename") {
        let strategy = step.strategy(step.src_strategy.as_ref())?;
        let names = strategy.items.iter().map(|(_, name, _)| name);
        let names = names.filter(|name| name.starts_with("net.blocks."));
        let renamed = |name: &String| name.replace("net.blocks.", "model.layers.");
        let map = names.map(|name| (name.clone(), Value::String(renamed(name))));
        return Ok(Some(Value::Object(map.collect())));
    }
    // MindSpore passes over names that no file has; here they are refused (tests/names.rs).
    let mut map = step.args.get("name_map").cloned();
    if let Some(Value::Object(map)) = &mut map {
        map.remove("absent");
    }
    Ok(map)
}

fn converts_to_ckpt(step: &Step) -> bool {
    let input = step.path(step.input.as_deref().unwrap_or_default());
    let mut files = listing(&input);
    files.push(input);
    files
        .iter()
        .any(|file| file.extension().is_some_and(|e| e == "safetensors"))
}

/// Every recorded step has an expectation, also those that are skipped.
#[test]
fn every_step_has_an_expectation() {
    for step in steps() {
        if !["reshard", "unify", "split", "merge_strategy", "convert"].contains(&step.op.as_str()) {
            continue;
        }
        if let Err(error) = expectation(&step) {
            unreachable!("{step}: {error}");
        }
    }
}

/// The comparison itself: it takes MindSpore's own output, and not with one bit changed or one file missing.
#[test]
fn comparison_takes_recorded_outputs_and_nothing_else() {
    let run = Run {
        status: std::os::unix::process::ExitStatusExt::from_raw(0),
        stdout: String::new(),
        stderr: String::new(),
        elapsed: std::time::Duration::ZERO,
    };
    let mut compared = 0;
    for step in steps() {
        let plain = step.mindspore_output_is_wrong.is_none()
            && step.arg("choice_func").is_none()
            && step.case != "unify_multipart"
            && !step
                .expected
                .as_ref()
                .is_some_and(|e| e.contains("superset_ckpt") || e.contains('.'));
        let (Some(expected), true) = (&step.expected, plain) else {
            continue;
        };
        let expect = match step.op.as_str() {
            "split" | "reshard" | "unify" | "convert" => expectation(&step).expect("known"),
            _ => continue,
        };
        if let Expect::Skip(_) = expect {
            continue;
        }
        let outputs = tempfile::tempdir().expect("a temporary directory");
        let out = outputs.path().join("out");
        for file in listing(&step.path(expected)) {
            let bytes = std::fs::read(step.path(expected).join(&file)).expect("a file");
            tensors::write_bytes(&out.join(&file), &bytes);
        }
        let same = compare(&step, &expect, &run, &out);
        same.unwrap_or_else(|error| unreachable!("{step}: {error}"));
        compared += 1;

        let rank = step.args.get("rank_id").and_then(Value::as_u64);
        let rank = rank.map_or_else(PathBuf::new, |rank| PathBuf::from(format!("rank_{rank}")));
        let mut files = listing(&out).into_iter();
        let file =
            files.rfind(|f| f.starts_with(&rank) && f.extension().is_some_and(|e| e != "json"));
        let path = out.join(file.expect("a file of tensors"));
        let mut bytes = std::fs::read(&path).expect("a file");
        *bytes.last_mut().expect("not empty") ^= 1;
        std::fs::write(&path, bytes).expect("write");
        assert!(
            compare(&step, &expect, &run, &out).is_err(),
            "{step}: a changed bit"
        );
        std::fs::remove_file(&path).expect("remove");
        assert!(
            compare(&step, &expect, &run, &out).is_err(),
            "{step}: a missing file"
        );
    }
    println!("{compared} outputs");
    assert!(compared > 80, "only {compared} outputs were compared");
}
