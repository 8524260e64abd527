//! Every recorded MindSpore call, done by `shardloom` and compared byte for byte.
//!
//! Each step runs by itself, on 4 processes, and on 2 and 8 with the collective exchange.
//! `SHARDLOOM_GOLDEN=full` runs it on 1, 2, 4 and 8 processes with both exchanges;
//! `SHARDLOOM_GOLDEN_CASE=NAME` keeps the steps whose description contains NAME.

#![allow(clippy::expect_used, clippy::print_stdout, unreachable_pub)]

#[path = "support/ckpt.rs"]
mod ckpt;
#[path = "support/fixtures.rs"]
mod fixtures;
#[path = "support/oracle.rs"]
mod oracle;
mod support;
#[path = "support/tensors.rs"]
mod tensors;
#[path = "support/wire.rs"]
mod wire;

use fixtures::{Step, listing, ranks, steps};
use oracle::Strategy;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::Run;
use tensors::{Contents, Tensors};

/// What a step must give.
#[derive(Clone)]
enum Expect {
    /// These files and no others.
    Files(BTreeMap<PathBuf, File>),
    /// Full weights: which of several equally large tensors lies in which part is free.
    Full {
        files: BTreeMap<PathBuf, File>,
        size_scale: u64,
    },
    /// A merged strategy with the same items as this file.
    Strategy(PathBuf),
    /// An error that mentions one of these.
    Error(Vec<String>),
    /// Not run, for this reason.
    Skip(&'static str),
}

/// What a written file must hold.
#[derive(Clone, Debug, PartialEq)]
enum File {
    Safetensors(Contents),
    Ckpt(Vec<ckpt::Record>),
    Json(Value),
}

/// How a step is launched.
#[derive(Clone, Copy)]
struct Launch {
    /// `None`: without the launcher.
    processes: Option<u32>,
    exchange: &'static str,
}

#[test]
fn reshard_unify_split_and_merge_equal_mindspore() {
    let quick = [
        (None, "auto"),
        (Some(4), "auto"),
        (Some(2), "collective"),
        (Some(8), "collective"),
    ];
    let processes = [None, Some(1), Some(2), Some(4), Some(8)];
    let full = processes.map(|processes| [(processes, "auto"), (processes, "collective")]);
    let launches = if std::env::var("SHARDLOOM_GOLDEN").is_ok_and(|value| value == "full") {
        full.concat()
    } else {
        quick.to_vec()
    };
    run_all(&["reshard", "unify", "split"], &launches);
    run_all(&["merge_strategy"], &[(None, "")]);
}

#[test]
fn convert_equals_mindspore() {
    run_all(&["convert"], &[(None, ""), (Some(2), "")]);
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

/// Runs every step of these kinds under every launch, two at a time, and fails with all that went wrong.
fn run_all(operations: &[&str], launches: &[(Option<u32>, &'static str)]) {
    let narrow = std::env::var("SHARDLOOM_GOLDEN_CASE").unwrap_or_default();
    let wanted =
        |step: &Step| operations.contains(&step.op.as_str()) && step.to_string().contains(&narrow);
    let steps: Vec<Step> = steps().into_iter().filter(wanted).collect();
    let mut jobs = Vec::new();
    for step in &steps {
        match expectation(step) {
            Ok(Expect::Skip(reason)) => println!("skipped: {step}: {reason}"),
            Ok(expect) => {
                for (processes, exchange) in launches {
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
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match processes {
        Some(processes) => support::mpirun(processes, program, &args, &[]),
        None => support::alone(program, &args, &[]),
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
    Ok(step.args.get("name_map").cloned())
}

fn converts_to_ckpt(step: &Step) -> bool {
    let input = step.path(step.input.as_deref().unwrap_or_default());
    let mut files = listing(&input);
    files.push(input);
    files
        .iter()
        .any(|file| file.extension().is_some_and(|e| e == "safetensors"))
}

/// What `step` must give: what MindSpore wrote, but where MindSpore is wrong or refuses what makes sense.
fn expectation(step: &Step) -> Result<Expect, String> {
    let key = (
        step.case.as_str(),
        step.op.as_str(),
        step.input.as_deref().unwrap_or_default(),
        step.src_strategy.as_deref().unwrap_or_default(),
        step.dst_strategy.as_deref().unwrap_or_default(),
    );
    let process_number = step.args.get("process_num").and_then(Value::as_u64);
    if process_number == Some(2) {
        return Ok(Expect::Skip("the same call with two MindSpore processes"));
    }
    if step.args.contains_key("split_dst_file") {
        return Ok(Expect::Skip("sub-tasks: MPI processes share the work here"));
    }
    if step.args.contains_key("file_name_regex") {
        return Ok(Expect::Skip("convert takes no pattern"));
    }
    if step.arg("choice_func") == Some("bad_choice") {
        return Ok(Expect::Skip("a Python callback"));
    }
    Ok(match key {
        // MindSpore is wrong.
        ("bad_inputs", "unify", _, "strategy/dev2.ckpt", _) => {
            // It merges the first two of four directories only.
            error(&["dev2.ckpt", "rank_2", "rank_3", "src", "w"])
        }
        ("known_bad_dedup", "unify", "dedup_multi_axis", ..) => error(&["net.blocks.0.w1"]),
        ("known_bad_dedup", "unify", "dedup_rep_opt", ..) => {
            error(&["net.blocks.0.w1", "net.blocks.0.w2"])
        }
        ("known_bad_dedup" | "opt_shard_odd_axis_order", "unify", ..)
            if step.mindspore_output_is_wrong.is_some() =>
        {
            unified_by_the_oracle(step)?
        }
        ("opt_shard_odd_axis_order", "split", _, _, "strategy/opt_map01.ckpt") => {
            cut_by_the_oracle(step)?
        }
        ("tp_dp_remove_redundancy", "reshard", ..) => cut_by_the_oracle(step)?,
        // MindSpore refuses, or fails, where the meaning is clear.
        ("reshard_8_to_6", "reshard", ..)
        | ("bad_inputs", "reshard", _, _, "strategy/dev6.ckpt") => cut_by_the_oracle(step)?,
        ("multi_axis", "split", _, _, "strategy/multi_a.json") => files(step, "split_a")?,
        ("multi_axis", "unify", _, "strategy/multi_a.json", _) => full(step, "unified_a")?,
        ("tp_column_row", "reshard", "full", "", _) => files(step, "full_rank0_to_tp4")?,
        ("convert", "convert", "src/rank_0", ..) => files(step, "st_dir/rank_0")?,
        ("convert", "convert", "st_single/single.safetensors", ..) => files(step, "ck_single")?,
        // MindSpore makes something of nothing.
        ("merge_strategies", "merge_strategy", "empty", ..) => error(&["empty"]),
        // A file name that depends on which of MindSpore's internal paths was taken.
        ("partial_strategy", "reshard", "src_ckpt", _, "strategy/superset.ckpt") => {
            let Expect::Files(files) = files(step, "to_superset_ckpt")? else {
                return Err("not files".to_owned());
            };
            let plain = |path: PathBuf| path.to_string_lossy().replace("_part0", "").into();
            Expect::Files(files.into_iter().map(|(p, f)| (plain(p), f)).collect())
        }
        // MindSpore is right.
        _ => match (&step.expected, step.op.as_str()) {
            (None, _) => error(culprits(step)?),
            (Some(expected), "merge_strategy") => Expect::Strategy(merged_path(step, expected)),
            (Some(expected), "unify") => full(step, expected)?,
            (Some(expected), _) => files(step, expected)?,
        },
    })
}

/// What the message of a step that must fail has to mention one of.
fn culprits(step: &Step) -> Result<&'static [&'static str], String> {
    let strategy = step
        .dst_strategy
        .as_deref()
        .or(step.src_strategy.as_deref());
    let input = step.input.as_deref().unwrap_or_default();
    Ok(
        match (
            step.case.as_str(),
            input,
            strategy.unwrap_or_default().trim_start_matches("strategy/"),
        ) {
            ("bad_inputs", "full", "wrong_rank.ckpt" | "axis_oob.ckpt" | "opt_no_rep.ckpt") => {
                &["w"]
            }
            ("bad_inputs", "full", "opt_bad_step.ckpt" | "opt_toobig.ckpt") => &["w"],
            ("bad_inputs", "full", "absent.ckpt") => &["strategy/absent.ckpt"],
            ("bad_inputs", "full", "empty.ckpt") => &["strategy/empty.ckpt"],
            ("bad_inputs", "full", "garbage.ckpt") => &["strategy/garbage.ckpt"],
            ("bad_inputs", "full", "no_layout.ckpt") => &["strategy/no_layout.ckpt"],
            ("bad_inputs", "full", "no_layout.json") => &["strategy/no_layout.json"],
            ("bad_inputs", "full", "bad.json") => &["strategy/bad.json"],
            ("bad_inputs", "full", "dash.ckpt") => &["my-w", "strategy/dash.ckpt"],
            ("bad_inputs", "full", "dash2.ckpt") => &["0-my-w", "my-w", "strategy/dash2.ckpt"],
            ("bad_inputs", "src", "dev8.ckpt") => &["rank_4", "rank_5", "rank_6", "rank_7"],
            ("bad_inputs", "src", "other.ckpt") => &["w"],
            ("bad_inputs", "nothing", _) => &["nothing", "rank_0", "rank_1", "rank_2", "rank_3"],
            ("bad_inputs", "trunc", _) => &["trunc/rank_0/net.safetensors"],
            ("file_choice", "gap", _) => &["gap/rank_1", "rank_1"],
            ("file_choice", "both", _) => &["both"],
            ("merge_strategies", "mixed", _) => &["mixed"],
            ("merge_strategies", "nodir", _) => &["nodir"],
            ("merge_strategies", "nolayout", _) => &["nolayout/s.ckpt"],
            ("merge_strategies", "garbage", _) => &["garbage/s.ckpt"],
            ("merge_strategies", "full", _) => &["merged/stage1_only.ckpt"],
            ("split_names", "two_files_no_map", _) => &["param_name_map.json", "two_files_no_map"],
            ("split_names", "indivisible", _) => {
                &["net.blocks.0.w1", "net.blocks.0.w2", "net.blocks.0.b"]
            }
            ("save_formats", "out/append.ckpt", _) => &["note"],
            ("save_formats", "out/enc_gcm.ckpt", _) => &["out/enc_gcm.ckpt"],
            ("save_formats", "out/append_str.safetensors", _) => &["out/append_str.safetensors"],
            _ => return Err("no expectation for this error".to_owned()),
        },
    )
}

fn error(mentions: &[&str]) -> Expect {
    Expect::Error(mentions.iter().map(|text| (*text).to_owned()).collect())
}

/// A recorded merge's output, which may be its directory.
fn merged_path(step: &Step, expected: &str) -> PathBuf {
    let path = step.path(expected);
    match listing(&path).as_slice() {
        [file] if path.is_dir() => path.join(file),
        _ => path,
    }
}

/// The files of a recorded output.
fn files(step: &Step, expected: &str) -> Result<Expect, String> {
    let root = step.path(expected);
    let only = step.args.get("rank_id").and_then(Value::as_u64);
    let only = only.map(|rank| format!("rank_{rank}"));
    let mut files = BTreeMap::new();
    if root.is_file() {
        let name = root.file_name().expect("a file's name");
        files.insert(PathBuf::from(name), read(&root)?);
        return Ok(Expect::Files(files));
    }
    for file in listing(&root) {
        if only.as_ref().is_none_or(|rank| file.starts_with(rank)) {
            files.insert(file.clone(), read(&root.join(&file))?);
        }
    }
    Ok(Expect::Files(files))
}

/// The full weights of a recorded output; filtered names must appear nowhere, so not beside them either.
fn full(step: &Step, expected: &str) -> Result<Expect, String> {
    let Expect::Files(mut files) = files(step, expected)? else {
        return Err("not files".to_owned());
    };
    if step.arg("choice_func").is_some() {
        let hyper = PathBuf::from("hyper_param.safetensors");
        if let Some(File::Safetensors(contents)) = files.get_mut(&hyper) {
            contents
                .tensors
                .retain(|name, _| !name.starts_with("adam_"));
        }
    }
    let size_scale = if step.case == "unify_multipart" {
        1 << 20
    } else {
        1
    };
    Ok(Expect::Full { files, size_scale })
}

/// What a split or reshard must write, cut by the oracle: MindSpore's output is wrong or missing.
fn cut_by_the_oracle(step: &Step) -> Result<Expect, String> {
    let mut source = ranks(&step.path(step.input.as_deref().unwrap_or_default()))?;
    let destination = step.strategy(step.dst_strategy.as_ref())?;
    let (whole, source_strategy) = match &step.src_strategy {
        Some(name) => {
            let strategy = Strategy::read(&step.path(name))?;
            (strategy.merge(&source)?, Some(strategy))
        }
        None => (source.remove(&0).ok_or("no input")?, None),
    };
    let mut files = BTreeMap::new();
    for rank in 0..destination.ranks() {
        let mut shards = destination.cut(&whole, rank)?;
        if let Some(strategy) = &source_strategy {
            let private = source
                .get(&(rank % strategy.stage_ranks()))
                .ok_or("no rank")?;
            let outside = |name: &&String| !strategy.knows(name) && !destination.knows(name);
            for name in private.keys().filter(outside) {
                shards.insert(name.clone(), private[name].clone());
            }
        }
        let name = step
            .arg("ckpt_prefix")
            .map_or("net".to_owned(), |prefix| format!("{prefix}{rank}"));
        let format = step.arg("output_format").unwrap_or("safetensors");
        let file = match format {
            "ckpt" => File::Ckpt(ckpt::from_tensors(&shards)),
            _ => File::Safetensors(Contents {
                tensors: shards,
                metadata: BTreeMap::from([("format".to_owned(), "ms".to_owned())]),
            }),
        };
        files.insert(PathBuf::from(format!("rank_{rank}/{name}.{format}")), file);
    }
    Ok(Expect::Files(files))
}

/// MindSpore's full weights with the values replaced by the oracle's.
fn unified_by_the_oracle(step: &Step) -> Result<Expect, String> {
    let source = ranks(&step.path(step.input.as_deref().unwrap_or_default()))?;
    let whole = step.strategy(step.src_strategy.as_ref())?.merge(&source)?;
    let expected = full(step, step.expected.as_deref().ok_or("no output")?)?;
    let Expect::Full {
        mut files,
        size_scale,
    } = expected
    else {
        return Err("not full weights".to_owned());
    };
    let part = files.get_mut(Path::new("part0.safetensors"));
    let Some(File::Safetensors(contents)) = part else {
        return Err("no part".to_owned());
    };
    contents.tensors = whole;
    Ok(Expect::Full { files, size_scale })
}

fn read(path: &Path) -> Result<File, String> {
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => File::Safetensors(tensors::read(path)?),
        Some("ckpt") => File::Ckpt(ckpt::read(path)?),
        Some("json") => {
            let text = std::fs::read(path).map_err(|error| error.to_string())?;
            File::Json(serde_json::from_slice(&text).map_err(|error| error.to_string())?)
        }
        _ => return Err(format!("{}: a file of no known kind", path.display())),
    })
}

/// Compares how a run ended and what it wrote with what was expected.
fn compare(step: &Step, expect: &Expect, run: &Run, destination: &Path) -> Result<(), String> {
    let parent = destination.parent().ok_or("no parent")?;
    if let Expect::Error(mentions) = expect {
        return compare_error(mentions, run, parent);
    }
    if !run.status.success() {
        return Err(format!("it ended with {}", run.status));
    }
    let entries = std::fs::read_dir(parent).map_err(|error| error.to_string())?;
    if entries.count() != 1 {
        return Err("something was left beside the destination".to_owned());
    }
    match expect {
        Expect::Files(files) => compare_files(step, files, destination),
        Expect::Full { files, size_scale } => compare_full(files, *size_scale, destination),
        Expect::Strategy(path) => compare_strategies(path, destination),
        Expect::Error(_) | Expect::Skip(_) => Ok(()),
    }
}

fn compare_error(mentions: &[String], run: &Run, parent: &Path) -> Result<(), String> {
    if !matches!(run.status.code(), Some(1 | 2)) {
        return Err(format!("should end with 1 or 2, not {}", run.status));
    }
    let written = listing(parent);
    if !written.is_empty() || std::fs::read_dir(parent).is_ok_and(|mut e| e.next().is_some()) {
        return Err(format!("an error left something behind: {written:?}"));
    }
    let lines: Vec<&str> = run
        .stderr
        .lines()
        .filter(|l| l.starts_with("error:"))
        .collect();
    let [line] = lines.as_slice() else {
        return Err(format!("{} lines start with \"error:\"", lines.len()));
    };
    if !mentions.iter().any(|word| mentioned(line, word)) {
        return Err(format!("the error names none of {mentions:?}"));
    }
    Ok(())
}

/// Whether `word` is in `text` as a word of its own.
fn mentioned(text: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(inside) && !text[at + word.len()..].starts_with(inside)
    })
}

/// The files written, but those that are ours alone.
fn written(destination: &Path) -> BTreeSet<PathBuf> {
    let ours = ["shardloom.json", "model.safetensors.index.json"];
    let files = listing(destination).into_iter();
    files
        .filter(|file| !ours.iter().any(|name| file.ends_with(name)))
        .collect()
}

fn same_names(expected: &BTreeSet<PathBuf>, found: &BTreeSet<PathBuf>) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    Err(format!(
        "missing files {:?}, files too many {:?}",
        expected.difference(found).collect::<Vec<_>>(),
        found.difference(expected).collect::<Vec<_>>()
    ))
}

fn compare_files(
    step: &Step,
    files: &BTreeMap<PathBuf, File>,
    destination: &Path,
) -> Result<(), String> {
    let mut found = written(destination);
    if let Some(rank) = step.args.get("rank_id").and_then(Value::as_u64) {
        found.retain(|file| file.starts_with(format!("rank_{rank}")));
    }
    same_names(&files.keys().cloned().collect(), &found)?;
    for (name, expected) in files {
        let found = read(&destination.join(name))?;
        let ordered = step.op == "convert";
        compare_file(expected, &found, ordered)
            .map_err(|error| format!("{}: {error}", name.display()))?;
    }
    Ok(())
}

/// Compares one file; the records of a `.ckpt` have an order only where `ordered`.
fn compare_file(expected: &File, found: &File, ordered: bool) -> Result<(), String> {
    match (expected, found) {
        (File::Safetensors(expected), File::Safetensors(found)) => {
            tensors::compare(&expected.tensors, &found.tensors)?;
            let (want, have) = (&expected.metadata, &found.metadata);
            if want != have {
                return Err(format!("metadata {have:?}, expected {want:?}"));
            }
        }
        (File::Ckpt(expected), File::Ckpt(found)) => {
            let names = |records: &[ckpt::Record]| -> Vec<String> {
                records.iter().map(|record| record.name.clone()).collect()
            };
            let (mut want, mut have) = (expected.clone(), found.clone());
            if !ordered {
                want.sort_by(|a, b| a.name.cmp(&b.name));
                have.sort_by(|a, b| a.name.cmp(&b.name));
            }
            if names(&want) != names(&have) {
                let (want, have) = (names(&want), names(&have));
                return Err(format!("records {have:?}, expected {want:?}"));
            }
            if let Some((want, have)) = want.iter().zip(&have).find(|(want, have)| want != have) {
                return Err(format!("{have:?}, expected {want:?}"));
            }
        }
        (expected, found) if expected == found => {}
        (_, found) => return Err(format!("unexpectedly {found:?}")),
    }
    Ok(())
}

fn compare_full(
    files: &BTreeMap<PathBuf, File>,
    size_scale: u64,
    destination: &Path,
) -> Result<(), String> {
    same_names(&files.keys().cloned().collect(), &written(destination))?;
    let is_part = |name: &&PathBuf| name.to_string_lossy().starts_with("part");
    let (mut want, mut have) = (Tensors::new(), Tensors::new());
    let mut places = BTreeMap::new();
    for name in files.keys().filter(is_part) {
        let path = destination.join(name);
        let (File::Safetensors(expected), found) = (&files[name], tensors::read(&path)?) else {
            return Err(format!("{}: not a part", name.display()));
        };
        if expected.metadata != found.metadata {
            let (want, have) = (&expected.metadata, &found.metadata);
            return Err(format!(
                "{}: metadata {have:?}, expected {want:?}",
                name.display()
            ));
        }
        let sizes = |tensors: &Tensors| {
            let mut sizes: Vec<usize> = tensors.values().map(|t| t.data.len()).collect();
            sizes.sort_unstable();
            sizes
        };
        let (want_sizes, have_sizes) = (sizes(&expected.tensors), sizes(&found.tensors));
        if want_sizes != have_sizes {
            return Err(format!(
                "{}: sizes {have_sizes:?}, expected {want_sizes:?}",
                name.display()
            ));
        }
        for tensor in found.tensors.keys() {
            let file = name.to_string_lossy().into_owned();
            if places.insert(tensor.clone(), Value::String(file)).is_some() {
                return Err(format!("{tensor} is in two parts"));
            }
        }
        want.extend(expected.tensors.clone());
        have.extend(found.tensors);
    }
    tensors::compare(&want, &have)?;
    for name in files.keys().filter(|name| !is_part(name)) {
        let (expected, found) = (&files[name], read(&destination.join(name))?);
        if let (File::Json(expected), File::Json(found)) = (expected, &found) {
            let total = |map: &Value| map["metadata"]["total_size"].as_u64();
            let (want, have) = (total(expected).map(|n| n / size_scale), total(found));
            if want != have || want.is_none() {
                return Err(format!("total_size {have:?}, expected {want:?}"));
            }
            let map = found["weight_map"].as_object().ok_or("no weight_map")?;
            let map: BTreeMap<_, _> = map.clone().into_iter().collect();
            if map != places {
                return Err(format!("weight_map {map:?}, the parts have {places:?}"));
            }
        } else {
            compare_file(expected, &found, false)
                .map_err(|error| format!("{}: {error}", name.display()))?;
        }
    }
    Ok(())
}

/// Compares merged strategies: the same stages, parameters and layouts, and the same operators.
fn compare_strategies(expected: &Path, found: &Path) -> Result<(), String> {
    let items = |path: &Path| -> Result<_, String> {
        let mut items = Strategy::read(path)?.items;
        items.sort();
        Ok(items)
    };
    if expected.ends_with("pb_named.json") {
        // MindSpore writes protobuf into a file it can then not read; the name's promise is kept here.
        let same = Path::new("pb.ckpt");
        let (want, have) = (items(&expected.with_file_name(same))?, items(found)?);
        return (want == have)
            .then_some(())
            .ok_or(format!("{have:?}, expected {want:?}"));
    }
    let (want, have) = (items(expected)?, items(found)?);
    if want != have {
        return Err(format!("{have:?}, expected {want:?}"));
    }
    let bytes = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
    let (want, have) = (bytes(expected)?, bytes(found)?);
    if expected.extension().is_some_and(|e| e == "json") {
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes);
        let (want, have) = (parse(&want), parse(&have));
        return match (want, have) {
            (Ok(want), Ok(have)) if want == have => Ok(()),
            _ => Err("the JSON objects differ".to_owned()),
        };
    }
    let operators = |bytes: &[u8]| -> Result<Vec<Vec<u8>>, String> {
        let fields = wire::fields(bytes)?.into_iter();
        let operators = fields.filter(|(number, _)| *number == 2);
        let mut operators: Vec<_> = operators
            .map(|(_, value)| value.bytes().map(<[u8]>::to_vec))
            .collect::<Result<_, _>>()?;
        operators.sort();
        Ok(operators)
    };
    if operators(&want)? != operators(&have)? {
        return Err("the operators differ".to_owned());
    }
    Ok(())
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
