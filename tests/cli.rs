//! The command line as its users meet it: exit codes, messages, results, and what is left on disk.

mod examples;
mod report;
mod schemas;

mod pages;

use crate::support::{self, ckpt, command, fixtures, oracle, sample, schema, tensors};
use command::{RESHARD, alone, error_line, nothing_written, object, refuses, under_mpi};
use fixtures::{listing, tensors_of};
use oracle::Strategy;
use sample::{Sample, image, layout};
use schema::fits;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tensors::Tensors;

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn every_command_explains_itself() {
    let commands = [
        "", "reshard", "unify", "merge", "split", "strategy", "convert", "diff", "verify",
        "inspect",
    ];
    for command in commands {
        let mut args = words(command);
        args.push("--help");
        let run = alone(&args).succeeds();
        assert!(
            run.stdout.contains("Usage:") && run.stderr.is_empty(),
            "{run:#?}"
        );
    }
    for command in ["merge", "show"] {
        alone(&["strategy", command, "--help"]).succeeds();
    }
    let version = alone(&["--version"]).succeeds().stdout;
    assert_eq!(
        version.trim(),
        format!("shardloom {}", env!("CARGO_PKG_VERSION"))
    );
    let more = alone(&["--version", "--verbose"]).succeeds().stdout;
    let told = |name: &str| {
        let line = more.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| unreachable!("no {name} in {more}"))
            .to_owned()
    };
    assert!(told("build: ").contains(std::env::consts::ARCH), "{more}");
    assert!(
        ["mpi", "none"].contains(&told("features: ").as_str()),
        "{more}"
    );
    assert!(
        !told("commit: ").is_empty() && !told("mpi: ").is_empty(),
        "{more}"
    );
}

/// The quickstart's blocks for a checkpoint and for a training, as they stand; those before them set a machine up.
#[test]
fn the_quickstart_runs_as_it_stands() {
    let room = tempfile::tempdir().expect("a directory");
    let at = |name: &str| room.path().join(name);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let hf = |family: &str| fixtures::data().join("model").join(family).join("hf");
    let put = |from: &Path, to: &str| {
        std::fs::create_dir_all(at(to).parent().expect("a parent")).expect("a directory");
        std::fs::copy(from, at(to)).expect("copied");
    };
    put(
        &hf("llama").join("model.safetensors"),
        "full/model.safetensors",
    );
    for name in ["model.safetensors", "config.json"] {
        put(&hf("qwen3").join(name), &format!("Qwen3-8B/{name}"));
    }
    // The training is one that is done at once; the scripts are those of the repository.
    let script = |name: &str, text: &str| {
        tensors::write_bytes(&at(name), format!("#!/bin/sh\n{text}\n").as_bytes());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(at(name), mode).expect("a mode");
    };
    script("bin/python", "echo trained");
    for name in ["mpirun", "reshard-then"] {
        let own = root.join("launch").join(name);
        script(
            &format!("launch/{name}"),
            &format!("exec '{}' \"$@\"", own.display()),
        );
    }
    let text = std::fs::read_to_string(root.join("docs/quickstart.md")).expect("the page");
    let (_, text) = text.split_once("\n## 3. ").expect("the part");
    let blocks = text
        .split("```sh\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap_or(""));
    let (training, mut blocks): (Vec<&str>, Vec<&str>) =
        blocks.partition(|block| block.contains("reshard-then"));
    assert_eq!((training.len(), blocks.len()), (1, 3));
    blocks.push("mkdir output old new; cp -r dp2-tp4 output/checkpoint; cp dp2-tp4.ckpt old/strategy; cp tp4.ckpt new/strategy\n");
    blocks.extend(training);
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"))
        .parent()
        .expect("a directory");
    let paths = [at("bin"), program.to_path_buf()].map(|path| path.display().to_string());
    let path = format!(
        "{}:{}",
        paths.join(":"),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &format!("set -e\n{}", blocks.concat())]);
    shell.current_dir(room.path()).env("PATH", path);
    let run = support::run(shell).succeeds();
    assert!(
        run.stdout.contains("equal: 21 of 21") && run.stdout.ends_with("trained\n"),
        "{run:#?}"
    );
    assert!(at("output/checkpoint/rank_3").exists() && !at("output/checkpoint/rank_4").exists());
    let read = |path: &str| tensors_of(&at(path)).expect("weights");
    let tuned = read("Qwen3-8B-tuned/model-00001-of-00001.safetensors");
    tensors::compare(&read("Qwen3-8B/model.safetensors"), &tuned).expect("the same");
}

/// A job that is started again doesn't train on what was made of a source that has changed since.
#[test]
fn training_does_not_start_on_what_is_outdated() {
    let sample = Sample::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    let bin = program.parent().expect("a directory").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let start = |more: &str| {
        let mut shell = std::process::Command::new(root.join("launch/reshard-then"));
        let flags = RESHARD.trim_start_matches("reshard ");
        shell.args(sample.args(&format!("-n 2 {flags} {more} -- echo trained")));
        shell.env("PATH", format!("{bin}:{path}"));
        support::run(shell)
    };
    for _ in 0..2 {
        assert!(start("").succeeds().stdout.ends_with("trained\n"));
    }
    let file = sample.path("src/rank_3/net.safetensors");
    tensors::damage(&file, "w2");
    let refused = start("").fails();
    assert!(!refused.stdout.contains("trained"), "{refused:#?}");
    assert!(refused.stderr.contains("--overwrite"), "{refused:#?}");
    sample.check("out", &sample.two, &sample.whole);
    let anew = start("--overwrite").succeeds();
    assert!(anew.stdout.ends_with("trained\n"), "{anew:#?}");
    assert!(
        start("--overwrite")
            .succeeds()
            .stdout
            .contains("written    0 B")
    );
    let line = "diff @src @out --a-strategy @four.ckpt --b-strategy @two.ckpt";
    alone(&sample.args(line)).succeeds();
}

// proves P10, P132
#[test]
fn wrong_usage_ends_with_2() {
    let lines = [
        "",
        "weave",
        "reshard",
        "reshard --src a --src-strategy b",
        "reshard --src a --dst b --colour red",
        "reshard --src a --dst b --exchange pigeon",
        "reshard --src a --dst b --unmatched maybe",
        "reshard --src a --dst b --memory lots",
        "reshard --src a --dst b --max-shard-size 5GB",
        "unify --src a --src-strategy s --dst b --in-place",
        "unify --src a --src-strategy s --dst b --dst-strategy t",
        "split --src a --dst b --gather-to-root",
        "split --src a --dst b --src-strategy s",
        "convert a --dst b --to parquet",
        "strategy merge a",
        "inspect a --overwrite",
    ];
    for line in lines {
        let run = alone(&words(line));
        assert_eq!(run.status.code(), Some(2), "{line}: {run:#?}");
        assert!(
            run.stdout.is_empty() && !run.stderr.is_empty(),
            "{line}: {run:#?}"
        );
        // Wherever an object is asked for, it is one as of any other error.
        let lines = [format!("{line} --json"), format!("--json {line}")];
        for line in lines {
            let run = alone(&words(&line));
            assert_eq!(run.status.code(), Some(2), "{line}: {run:#?}");
            assert_eq!(run.stdout.lines().count(), 1, "{line}: {run:#?}");
            let told = object(&run);
            fits("error", &told);
            assert_eq!(
                (&told["ok"], &told["error"]["kind"]),
                (&false.into(), &"usage".into())
            );
            let command = line.split(' ').find(|word| !word.starts_with("--"));
            let known = command.filter(|word| !["", "weave"].contains(word));
            assert_eq!(told["command"], known.unwrap_or("shardloom"), "{line}");
        }
    }
    let run = alone(&words("reshard --json"));
    let message = object(&run)["error"]["message"].to_string();
    assert!(
        message.contains("--src") && message.contains("--dst"),
        "{message}"
    );
}

// proves P10
#[test]
fn wrong_usage_is_printed_once_by_four_processes() {
    let run = under_mpi(4, &words("reshard --src a --dst b --colour red --json"));
    assert_eq!(run.status.code(), Some(2), "{run:#?}");
    assert_eq!(object(&run)["error"]["kind"], "usage");
    assert!(error_line(&run).contains("--colour"), "{run:#?}");
}

// proves P10
#[test]
fn an_error_ends_the_launcher_of_many_processes() {
    for (line, code) in [("weave", 2), ("strategy show nowhere.ckpt", 1)] {
        let run = under_mpi(40, &words(line));
        assert_eq!(run.status.code(), Some(code), "{line}: {run:#?}");
        assert!(run.elapsed < Duration::from_secs(20), "{line}: {run:#?}");
    }
}

// proves P3
#[test]
fn reshards_on_any_number_of_processes() {
    for processes in [None, Some(1), Some(3), Some(4)] {
        let sample = Sample::new();
        let before = image(&sample.path("src"));
        let args = sample.args(RESHARD);
        let run = processes.map_or_else(|| alone(&args), |n| under_mpi(n, &args));
        run.succeeds();
        sample.check("out", &sample.two, &sample.whole);
        assert_eq!(
            before,
            image(&sample.path("src")),
            "the source must stay as it was"
        );
        assert!(sample.path("out/rank_0/net0.safetensors").exists());
        assert!(sample.path("out/shardloom.json").exists());
    }
}

#[test]
fn result_is_one_object() {
    for processes in [None, Some(4)] {
        let sample = Sample::new();
        let args = sample.args(&format!("{RESHARD} --json"));
        let run = processes.map_or_else(|| alone(&args), |n| under_mpi(n, &args));
        let result = object(&run.succeeds());
        assert_eq!(result["schema"], 1);
        assert_eq!(result["command"], "reshard");
        assert_eq!(result["ok"], true);
        assert_eq!(result["processes"], processes.unwrap_or(1));
        assert_eq!(result["nodes"], 1);
        assert_eq!(result["tensors"], 3);
        let files = result["files"].as_array().expect("files");
        for file in ["rank_0/net0.safetensors", "rank_1/net1.safetensors"] {
            assert!(files.contains(&Value::from(file)), "{files:?}");
        }
        for count in [
            "read",
            "read_unique",
            "sent",
            "sent_lower_bound",
            "written",
            "reused",
        ] {
            assert!(
                result["bytes"][count].is_u64(),
                "bytes.{count}: {}",
                result["bytes"]
            );
        }
        for seconds in ["total", "discover", "plan", "exchange", "write", "commit"] {
            assert!(
                result["seconds"][seconds].is_number(),
                "seconds.{seconds}: {result}"
            );
        }
        assert!(result["memory_peak_bytes_max"].is_u64(), "{result}");
        assert!(result["balance_max_over_mean"].is_number(), "{result}");
        let data = sample.whole.values().map(|tensor| tensor.data.len());
        let data = u64::try_from(data.sum::<usize>()).expect("small");
        assert!(
            result["bytes"]["read"].as_u64() >= Some(data),
            "every byte is needed: {result}"
        );
        assert!(
            result["bytes"]["written"].as_u64() >= Some(data),
            "none is replicated: {result}"
        );
    }
}

// proves P8, P13
#[test]
fn error_is_one_object_and_one_line() {
    for processes in [None, Some(4)] {
        let sample = Sample::new();
        std::fs::remove_dir_all(sample.path("src/rank_2")).expect("remove");
        let args = sample.args(&format!("{RESHARD} --json"));
        let run = processes.map_or_else(|| alone(&args), |n| under_mpi(n, &args));
        refuses(&run, "rank_2");
        let result = object(&run);
        assert_eq!(result["command"], "reshard");
        assert_eq!(result["ok"], false);
        let error = &result["error"];
        assert_eq!(error["kind"], "missing_shard", "{result}");
        assert_eq!(error["rank"], 2, "{result}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{result}"
        );
        nothing_written(&sample);
    }
}

// proves P7
#[test]
fn existing_destination_is_kept_unless_told_otherwise() {
    let sample = Sample::new();
    tensors::write_bytes(&sample.path("out/precious.txt"), b"mine");
    let run = under_mpi(2, &sample.args(RESHARD));
    refuses(&run, "out");
    assert!(
        run.stderr.contains("--overwrite"),
        "the way out is named: {run:#?}"
    );
    let kept = image(&sample.path("out"));
    assert_eq!(kept, [("precious.txt".into(), b"mine".to_vec())]);

    refuses(
        &under_mpi(2, &sample.args(&format!("{RESHARD} --overwrite"))),
        "precious.txt",
    );
    let old = sample.path("out/rank_7/old.safetensors");
    tensors::write_bytes(&old, b"old");
    std::fs::remove_file(sample.path("out/precious.txt")).expect("remove");
    under_mpi(2, &sample.args(&format!("{RESHARD} --overwrite"))).succeeds();
    sample.check("out", &sample.two, &sample.whole);
    assert!(!old.exists(), "old and new must not be mixed");
}

#[test]
fn empty_destination_is_accepted() {
    let sample = Sample::new();
    std::fs::create_dir(sample.path("out")).expect("make a directory");
    alone(&sample.args(RESHARD)).succeeds();
    sample.check("out", &sample.two, &sample.whole);
}

// proves P139
#[test]
fn complete_result_is_resumed_without_writing() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    let before = image(&sample.path("out"));
    let run = alone(&sample.args(&format!("{RESHARD} --resume --json"))).succeeds();
    assert_eq!(object(&run)["bytes"]["written"], 0);
    assert_eq!(before, image(&sample.path("out")));
}

// proves P134
#[test]
fn dry_run_tells_the_plan_and_writes_nothing() {
    let sample = Sample::new();
    let run = under_mpi(2, &sample.args(&format!("{RESHARD} --dry-run --json"))).succeeds();
    let result = object(&run);
    nothing_written(&sample);
    let data = sample.whole.values().map(|tensor| tensor.data.len());
    let data = u64::try_from(data.sum::<usize>()).expect("small");
    assert!(
        result["bytes"]["written"].as_u64() >= Some(data),
        "{result}"
    );
    assert!(result["bytes"]["read"].as_u64() >= Some(data), "{result}");
    assert!(result["plan"]["transfers"].is_u64(), "{result}");
    assert!(result["plan"]["rounds"].is_u64(), "{result}");
    assert_eq!(
        result["per_process"].as_array().map(Vec::len),
        Some(2),
        "{result}"
    );
    let text = alone(&sample.args(&format!("{RESHARD} --dry-run"))).succeeds();
    assert!(!text.stdout.is_empty(), "the plan is the result: {text:#?}");
    nothing_written(&sample);
}

#[test]
fn unify_writes_hugging_face_names_by_default() {
    let sample = Sample::new();
    let line = "unify --src @src --src-strategy @four.ckpt --dst @out";
    under_mpi(2, &sample.args(line)).succeeds();
    let mut files = listing(&sample.path("out"));
    files.retain(|file| !file.ends_with("shardloom.json"));
    let file = "model-00001-of-00001.safetensors";
    let expected = [file, "model.safetensors.index.json", "param_name_map.json"];
    assert_eq!(files, expected.map(std::path::PathBuf::from));
    let found = tensors_of(&sample.path("out").join(file)).expect("readable");
    assert_eq!(found, sample.whole);
    for map in &expected[1..] {
        let text = std::fs::read_to_string(sample.path("out").join(map)).expect("a map");
        let map: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(map["weight_map"]["w1"], file);
        let data: usize = sample.whole.values().map(|tensor| tensor.data.len()).sum();
        assert_eq!(map["metadata"]["total_size"], data);
    }
}

#[test]
fn unify_cuts_at_the_shard_size() {
    let sample = Sample::new();
    let line = "merge --src @src --src-strategy @four.ckpt --dst @out --max-shard-size 512";
    alone(&sample.args(line)).succeeds();
    let files = listing(&sample.path("out"));
    let parts = files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "safetensors"));
    let mut found = Tensors::new();
    let mut count = 0;
    for part in parts {
        let part = tensors_of(&sample.path("out").join(part)).expect("readable");
        let size: usize = part.values().map(|tensor| tensor.data.len()).sum();
        assert!(size <= 512 || part.len() == 1, "{size} bytes in one file");
        found.extend(part);
        count += 1;
    }
    assert_eq!(found, sample.whole);
    assert!(count >= 2, "{files:?}");
    // … and a split reads what unify wrote.
    let line = "split --src @out --dst @again --dst-strategy @four.ckpt";
    alone(&sample.args(line)).succeeds();
    sample.check("again", &sample.four, &sample.whole);
}

// proves P11
#[test]
fn strategy_for_other_ranks_is_refused() {
    let sample = Sample::new();
    let fewer = "unify --src @src --src-strategy @two.ckpt --dst @out";
    assert_eq!(alone(&sample.args(fewer)).status.code(), Some(1));
    nothing_written(&sample);
    let none = "unify --src @src --dst @out";
    assert!(matches!(
        alone(&sample.args(none)).status.code(),
        Some(1 | 2)
    ));
    nothing_written(&sample);
    let absent = "unify --src @src --src-strategy @absent.ckpt --dst @out";
    let run = alone(&sample.args(absent));
    assert!(matches!(run.status.code(), Some(1 | 2)), "{run:#?}");
    assert!(error_line(&run).contains("absent.ckpt"), "{run:#?}");
    nothing_written(&sample);
}

#[test]
fn source_that_is_not_there_is_named() {
    let sample = Sample::new();
    let line = "split --src @nowhere --dst @out --dst-strategy @two.ckpt";
    let run = under_mpi(2, &sample.args(line));
    assert!(error_line(&run).contains("nowhere"), "{run:#?}");
    nothing_written(&sample);
}

#[test]
fn indivisible_dimension_is_named() {
    let sample = Sample::new();
    let odd = Strategy::of(&[("w1", layout(&[3], &[0, -1]))]);
    tensors::write_bytes(&sample.path("odd.ckpt"), &oracle::to_protobuf(&odd));
    let line = "split --src @full --dst @out --dst-strategy @odd.ckpt";
    refuses(&alone(&sample.args(line)), "w1");
    nothing_written(&sample);
}

// proves P27
#[test]
fn unmatched_parameters_fail_are_copied_or_dropped() {
    let sample = Sample::new();
    let fewer: Vec<_> = sample
        .two
        .items
        .iter()
        .filter(|item| item.1 != "w2")
        .cloned()
        .collect();
    let fewer = Strategy { items: fewer };
    tensors::write_bytes(&sample.path("fewer.ckpt"), &oracle::to_protobuf(&fewer));
    let line = "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @fewer.ckpt";

    for default in ["", "--unmatched fail"] {
        refuses(&alone(&sample.args(&format!("{line} {default}"))), "w2");
        nothing_written(&sample);
    }

    alone(&sample.args(&format!("{line} --unmatched drop"))).succeeds();
    sample.check("out", &fewer, &sample.whole);

    let line = line.replace("@out", "@copied");
    alone(&sample.args(&format!("{line} --unmatched copy"))).succeeds();
    for rank in 0..2 {
        let mut expected = fewer.cut(&sample.whole, rank).expect("it can be cut");
        let source = sample.four.cut(&sample.whole, rank).expect("it can be cut");
        expected.insert("w2".to_owned(), source["w2"].clone());
        let file = format!("copied/rank_{rank}/net{rank}.safetensors");
        let found = tensors_of(&sample.path(&file)).expect("readable");
        tensors::compare(&expected, &found).expect("the source's cut is kept");
    }
}

#[test]
fn whole_parameters_unknown_to_the_destination_are_copied_if_asked() {
    let sample = Sample::new();
    let without = |strategy: &Strategy, name: &str| Strategy {
        items: strategy
            .items
            .iter()
            .filter(|item| item.1 != name)
            .cloned()
            .collect(),
    };
    let fewer = without(&sample.two, "b");
    tensors::write_bytes(&sample.path("fewer.ckpt"), &oracle::to_protobuf(&fewer));
    let line = "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @fewer.ckpt";
    refuses(&alone(&sample.args(line)), "b");
    alone(&sample.args(&format!("{line} --unmatched copy"))).succeeds();
    for rank in 0..2 {
        let file = format!("out/rank_{rank}/net{rank}.safetensors");
        let found = tensors_of(&sample.path(&file)).expect("readable");
        assert_eq!(found.get("b"), Some(&sample.whole["b"]));
    }
}

#[test]
fn inspect_reads_files_directories_and_strategies() {
    let sample = Sample::new();
    for path in ["@src/rank_0/net.safetensors", "@src", "@full", "@four.ckpt"] {
        let text = alone(&sample.args(&format!("inspect {path}"))).succeeds();
        assert!(text.stdout.contains("w1"), "{path}: {text:#?}");
        let run = alone(&sample.args(&format!("inspect {path} --json"))).succeeds();
        let result = object(&run);
        assert_eq!(result["command"], "inspect", "{result}");
        assert_eq!(result["ok"], true, "{result}");
    }
    let run = alone(&sample.args("inspect @nothing-there"));
    assert!(error_line(&run).contains("nothing-there"), "{run:#?}");
}

#[test]
fn strategy_show_tells_what_a_rank_holds() {
    let sample = Sample::new();
    let run = alone(&sample.args("strategy show @four.ckpt")).succeeds();
    for name in ["b", "w1", "w2"] {
        assert!(run.stdout.contains(name), "{run:#?}");
    }
    let run = alone(&sample.args("strategy show @four.ckpt --param w1 --rank 3")).succeeds();
    assert!(
        run.stdout.contains("w1") && !run.stdout.contains("w2"),
        "{run:#?}"
    );
    let run = alone(&sample.args("strategy show @four.ckpt --param w3"));
    refuses(&run, "w3");
}

// proves P14, P147
#[test]
fn diff_compares_across_layouts() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    let line = "diff @src @out --a-strategy @four.ckpt --b-strategy @two.ckpt --json";
    let result = object(&under_mpi(2, &sample.args(line)).succeeds());
    assert_eq!(result["equal"], true, "{result}");

    let path = sample.path("out/rank_1/net1.safetensors");
    let mut bytes = std::fs::read(&path).expect("a shard");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&path, bytes).expect("write");
    let run = alone(&sample.args(line));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let result = object(&run);
    assert_eq!(result["equal"], false, "{result}");
    let tensors = result["tensors"].as_array().expect("tensors");
    let differing: Vec<&Value> = tensors.iter().filter(|t| t["state"] == "differs").collect();
    assert_eq!(differing.len(), 1, "{result}");
    assert_eq!(differing[0]["elements_differing"], 1, "{result}");
}

// proves P148
#[test]
fn verify_finds_a_flipped_bit() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    let result = object(&alone(&sample.args("verify @out --json")).succeeds());
    assert!(result["checked"].as_u64() > Some(0), "{result}");
    let path = sample.path("out/rank_1/net1.safetensors");
    let mut bytes = std::fs::read(&path).expect("a shard");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&path, bytes).expect("write");
    let run = alone(&sample.args("verify @out --json"));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let result = object(&run);
    assert_eq!(
        result["bad"][0]["file"], "rank_1/net1.safetensors",
        "{result}"
    );
}

#[test]
fn ckpt_output_holds_the_same_tensors() {
    let sample = Sample::new();
    alone(&sample.args(&format!("{RESHARD} --format ckpt --prefix step_"))).succeeds();
    for rank in 0..2 {
        let path = sample.path(&format!("out/rank_{rank}/step_{rank}.ckpt"));
        let found = tensors_of(&path).expect("readable");
        let expected = sample.two.cut(&sample.whole, rank).expect("it can be cut");
        tensors::compare(&expected, &found).expect("equal");
    }
}

#[test]
fn converts_texts_there_and_back() {
    let place = tempfile::tempdir().expect("a directory");
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/save_formats/out");
    let path = |name: &str| place.path().join(name).display().to_string();
    let source = data.join("append.ckpt").display().to_string();
    alone(&[
        "convert",
        &source,
        "--dst",
        &path("st"),
        "--to",
        "safetensors",
    ])
    .succeeds();
    let middle = path("st/append.safetensors");
    alone(&["convert", &middle, "--dst", &path("ck"), "--to", "ckpt"]).succeeds();
    let records = |path: &std::path::Path| {
        let mut records = ckpt::read(path).expect("records");
        records.sort_by(|a, b| a.name.cmp(&b.name));
        records
    };
    let back = records(&place.path().join("ck/append.ckpt"));
    assert_eq!(back, records(&data.join("append.ckpt")));
    assert!(back.iter().any(|record| record.name == "note"));
}

/// Whatever shapes are told by, the same strategy comes out.
#[test]
fn strategy_new_takes_shapes_from_weights_of_any_kind() {
    let sample = Sample::new();
    let shapes = sample.whole.iter().map(|(name, tensor)| {
        let described = serde_json::json!({ "dtype": tensor.dtype, "shape": tensor.shape });
        (name.clone(), described)
    });
    let shapes: serde_json::Map<String, Value> = shapes.collect();
    let text = Value::Object(shapes).to_string();
    std::fs::write(sample.path("shapes.json"), text).expect("write");
    let made = |name: &str, of: &str| {
        let line = format!("strategy new --mesh dp=2,tp=2 --rule w*=tp,- {of} --output @{name}");
        alone(&sample.args(&line)).succeeds();
        std::fs::read(sample.path(name)).expect("a strategy")
    };
    let full = made("a.json", "--weights @full");
    assert!(full.starts_with(b"{"));
    // With these another layout's shards are refused.
    assert!(String::from_utf8_lossy(&full).contains("tensor_shape"));
    assert_eq!(full, made("b.json", "--weights @shapes.json"));
    assert_eq!(full, made("c.json", "--weights @src --strategy @four.ckpt"));
    let line = "strategy new --mesh tp=2 --rule w*=tp,- --weights @src --output @d.json";
    let run = alone(&sample.args(line));
    assert_eq!(run.status.code(), Some(2), "{run:#?}");
    assert!(error_line(&run).contains("is distributed"), "{run:#?}");
    assert!(run.stderr.contains("--strategy S"), "{run:#?}");
}

/// A flag goes before the environment, that before the file, the file before what the program has.
#[test]
fn settings_come_from_flag_environment_and_file() {
    let sample = Sample::in_memory();
    let file = sample.path("s.toml").display().to_string();
    let told = |args: &str, envs: &[(&str, &str)]| {
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_shardloom"));
        support::alone(
            program,
            &sample
                .args(args)
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
            envs,
        )
    };
    let text = "memory = \"2GiB\"\nthreads = 1\nmachine = { network_gbps = 10.0 }\n";
    std::fs::write(sample.path("s.toml"), text).expect("written");
    let run = told(
        "config --json --mpi auto",
        &[("SHARDLOOM_CONFIG", &file), ("SHARDLOOM_THREADS", "2")],
    );
    let settings = &object(&run.succeeds())["settings"];
    let own = object(&told("config --json", &[]).succeeds());
    assert_eq!(own["settings"]["mpi"]["from"], "default");
    for (name, value, from) in [
        ("memory", "2GiB", "file"),
        ("threads", "2", "environment"),
        ("mpi", "auto", "flag"),
    ] {
        let setting = &settings[name];
        assert_eq!(
            (&setting["value"], &setting["from"]),
            (&value.into(), &from.into())
        );
    }
    assert_eq!(settings["memory"]["where"], file);
    told(
        &format!("{RESHARD} --sync none"),
        &[("SHARDLOOM_CONFIG", &file)],
    )
    .succeeds();
    for (text, named) in [
        ("memmory = 4", "memory is meant"),
        ("threads = -1", "threads: "),
        ("memory = \"1 bushel\"", "memory: "),
        ("memory = ", "line 1"),
    ] {
        std::fs::write(sample.path("s.toml"), text).expect("written");
        for line in [RESHARD, "config", "inspect @src"] {
            let run = told(line, &[("SHARDLOOM_CONFIG", &file)]);
            assert_eq!(run.status.code(), Some(2), "{run:#?}");
            assert!(
                error_line(&run).contains(&file) && run.stderr.contains(named),
                "{run:#?}"
            );
        }
        // What needs no setting minds none.
        told("--help", &[("SHARDLOOM_CONFIG", &file)]).succeeds();
        told("generate completions bash", &[("SHARDLOOM_CONFIG", &file)]).succeeds();
    }
    let missing = sample.path("missing.toml").display().to_string();
    let folder = sample.room.path().display().to_string();
    for place in [&missing, &folder] {
        let run = told("formats", &[("SHARDLOOM_CONFIG", place)]).fails();
        assert!(error_line(&run).contains(place.as_str()), "{run:#?}");
    }
    let run = told(
        &format!("{RESHARD} --overwrite"),
        &[("SHARDLOOM_MEMORY", "much")],
    );
    assert!(error_line(&run).contains("SHARDLOOM_MEMORY"), "{run:#?}");
    let mpi = told("inspect @src --mpi none", &[]).succeeds();
    assert!(mpi.stderr.is_empty(), "{mpi:#?}");
}

/// Results, errors, progress and the log have the run's id, the same from all processes.
// proves P162
#[test]
fn a_run_has_one_id_in_all_it_says() {
    let sample = Sample::in_memory();
    let line = format!("{RESHARD} --json --progress json --log @run.log");
    let run = under_mpi(4, &sample.args(&line)).succeeds();
    let result = object(&run);
    let id = result["run"].as_str().expect("an id");
    let lines: Vec<Value> = run
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let last = lines.last().expect("a last line");
    assert_eq!((&last["last"], &last["ok"]), (&true.into(), &true.into()));
    // It is of all that was moved, though what came last moved nothing.
    assert_eq!(last["total_bytes"], result["bytes"]["written"]);
    assert_eq!(last["done_bytes"], last["total_bytes"]);
    for progress in &lines {
        assert_eq!(
            (&progress["run"], &progress["schema"]),
            (&id.into(), &1.into())
        );
        assert_eq!(progress["command"], "reshard");
    }
    let read = || std::fs::read_to_string(sample.path("run.log")).expect("the log");
    let log = read();
    assert!(log.lines().all(|line| line.contains(id)), "{log}");
    assert_eq!(log.matches("begins: ").count(), 1, "{log}");
    for process in 0..4 {
        let of_it = format!(" run {id} process {process}: ");
        assert!(
            log.lines().any(|line| line.contains(&of_it)),
            "{process}: {log}"
        );
    }
    let written = &last["total_bytes"];
    let bench = "bench collectives --operation all_to_all --max-size 64 --time 1ms";
    for (line, total) in [
        (&*format!("{RESHARD} --resume"), Some(written)),
        (&*format!("{RESHARD} --overwrite --dry-run"), Some(written)),
        (bench, None),
        ("checkpoints list @out --names-only", Some(&0.into())),
        ("doctor @", Some(&0.into())),
    ] {
        let run = alone(&sample.args(&format!("{line} --progress json")));
        let last = run.stderr.lines().last().expect("a last line");
        let last: Value = serde_json::from_str(last).expect("an object");
        assert_eq!(last["last"], true, "{line}: {last}");
        assert_eq!(last["done_bytes"], last["total_bytes"], "{line}: {last}");
        match total {
            Some(total) => assert_eq!(&last["total_bytes"], total, "{line}: {last}"),
            None => assert!(last["total_bytes"].as_u64() > Some(0), "{line}: {last}"),
        }
    }
    let checked = under_mpi(2, &sample.args("verify @out --json --progress json")).succeeds();
    let last = checked.stderr.lines().last().expect("a last line");
    let last: Value = serde_json::from_str(last).expect("an object");
    assert_eq!(
        (&last["command"], &last["ok"]),
        (&"verify".into(), &true.into())
    );
    let bytes = &object(&checked)["bytes"]["read"];
    assert_eq!((&last["done_bytes"], &last["total_bytes"]), (bytes, bytes));
    let failed = alone(&sample.args(&line)).fails();
    let error = object(&failed);
    let other = error["run"].as_str().expect("an id");
    assert_ne!(id, other);
    assert!(failed.stderr.contains("\"ok\":false"), "{failed:#?}");
    assert!(
        failed.stderr.contains(&format!("\n  run: {other}\n")),
        "{failed:#?}"
    );
    let grown = read();
    let added = grown.strip_prefix(log.as_str()).expect("lines are added");
    let told = added.lines().find(|line| line.contains("error: "));
    assert!(told.is_some_and(|line| line.contains(other)), "{added}");
    for (place, named) in [
        ("@four.ckpt", "four.ckpt"),
        ("@src", "src"),
        ("@none/run.log", "none/run.log"),
    ] {
        let before = image(&sample.path("src"));
        let args = sample.args(&format!("{RESHARD} --overwrite --log {place}"));
        refuses(&alone(&args), named);
        assert_eq!(before, image(&sample.path("src")));
    }
}
