//! Whether a strategy fits its files, what a manifest says is what is read, and the source stands still.

use crate::support::{self, Run, command, oracle, sample, tensors};
use command::{alone, error_line, nothing_written, object, refuses};
use oracle::{Strategy, to_protobuf};
use sample::{Sample, layout};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tensors::Tensor;

/// Processes and nodes of a run.
const WORLDS: [(u32, &str); 2] = [(1, "1"), (4, "2")];

fn on(sample: &Sample, (processes, nodes): (u32, &str), line: &str) -> Run {
    let args = sample.args(line);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    if processes == 1 {
        return support::alone(program, &args, &[]);
    }
    support::mpirun(processes, program, &args, &[("SHARDLOOM_NODES", nodes)])
}

const UNIFY: &str = "unify --src @src --src-strategy @four.ckpt --dst @out";
const RESHARD: &str =
    "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt";
const IN_PLACE: &str =
    "reshard --src @src --src-strategy @four.ckpt --in-place --dst-strategy @two.ckpt";

fn strategy(sample: &Sample, name: &str, items: &[(&str, oracle::Layout)]) {
    let bytes = to_protobuf(&Strategy::of(items));
    tensors::write_bytes(&sample.path(name), &bytes);
}

#[test]
fn whole_in_the_strategy_and_cut_in_the_files_is_noticed() {
    let sample = Sample::new();
    let whole = layout(&[4], &[-1, -1]);
    let items = [
        ("b", layout(&[4], &[-1])),
        ("w1", whole.clone()),
        ("w2", whole),
    ];
    strategy(&sample, "four.ckpt", &items);
    for world in WORLDS {
        for line in [UNIFY, RESHARD, IN_PLACE] {
            let run = on(&sample, world, line);
            refuses(&run, "w1");
            assert!(run.stderr.contains("four.ckpt"), "{run:#?}");
            assert!(run.stderr.contains("hold different bytes"), "{run:#?}");
            nothing_written(&sample);
        }
    }
    alone(&sample.args(&format!("{UNIFY} --verify none"))).succeeds();
}

/// A strategy in JSON tells the shape of each tensor: one of other shapes is of another model, or of files that
/// are cut otherwise.
#[test]
fn shapes_that_a_strategy_tells_are_those_of_the_files() {
    let sample = Sample::new();
    let json = |name: &str, rows: [u64; 2]| {
        let item = |map: &[i64], shape: &[u64]| {
            serde_json::json!({
                "dev_matrix": [4], "field": 0, "opt_weight_shard_size": 0, "opt_weight_shard_step": 0,
                "tensor_map": map, "tensor_shape": shape,
            })
        };
        let told = serde_json::json!({ "parallel_layout_item": {
            "b": item(&[-1], &[16]), "w1": item(&[0, -1], &rows), "w2": item(&[-1, 0], &[16, 8]),
        }});
        tensors::write_bytes(&sample.path(name), told.to_string().as_bytes());
    };
    json("right.json", [8, 16]);
    json("other.json", [16, 16]);
    for world in WORLDS {
        for line in [
            "unify --src @src --src-strategy @other.json --dst @out",
            "reshard --src @src --src-strategy @other.json --dst @out --dst-strategy @two.ckpt",
            "reshard --src @src --src-strategy @other.json --in-place --dst-strategy @two.ckpt",
            "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @other.json",
            "diff @src @src --a-strategy @other.json --b-strategy @four.ckpt",
        ] {
            let run = on(&sample, world, line);
            refuses(&run, "w1");
            assert!(run.stderr.contains("[16, 16]"), "{run:#?}");
            nothing_written(&sample);
        }
    }
    let line = "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @right.json";
    alone(&sample.args(line)).succeeds();
}

// proves P25
#[test]
fn a_copy_that_differs_is_noticed_and_what_was_compared_is_said() {
    let sample = Sample::new();
    tensors::damage(&sample.path("src/rank_3/net.safetensors"), "b");
    for world in WORLDS {
        for how in ["", "--verify all"] {
            let run = on(&sample, world, &format!("{UNIFY} {how} --json"));
            let result = object(&run);
            assert_eq!(result["error"]["kind"], "differs", "{how}: {result}");
            assert_eq!(result["error"]["tensor"], "b", "{how}: {result}");
            let message = result["error"]["message"].as_str().expect("a message");
            // Both places, where first, and what to do.
            for named in [
                "rank 3 (rank_3/net.safetensors)",
                "(rank_0/net.safetensors)",
                "first at [",
            ] {
                assert!(message.contains(named), "{how}: {message}");
            }
            let hint = result["error"]["hint"].as_str().expect("a hint");
            assert!(hint.contains("verify --repair"), "{hint}");
            nothing_written(&sample);
        }
    }
    let sample = Sample::new();
    for (how, said) in [
        ("", "sample"),
        ("--verify none", "none"),
        ("--verify", "all"),
    ] {
        let run = alone(&sample.args(&format!("{UNIFY} {how} --json --overwrite"))).succeeds();
        assert_eq!(object(&run)["copies_compared"], said);
    }
    let line = "reshard --src @full --dst @four --dst-strategy @four.ckpt";
    alone(&sample.args(line)).succeeds();
    let line = "unify --src @four --src-strategy @four.ckpt --dst @back --json";
    assert_eq!(
        object(&alone(&sample.args(line)))["copies_compared"],
        "manifest"
    );
}

// proves P26
#[test]
fn what_the_source_strategy_does_not_know_must_be_the_same_everywhere() {
    let sample = Sample::new();
    let items = [
        ("b", layout(&[2, 2], &[-1])),
        ("w1", layout(&[2, 2], &[1, 0])),
    ];
    strategy(&sample, "four.ckpt", &items);
    strategy(
        &sample,
        "two.ckpt",
        &[("b", layout(&[2], &[0])), ("w1", layout(&[2], &[0, -1]))],
    );
    for world in WORLDS {
        for line in [UNIFY, RESHARD] {
            let run = on(&sample, world, line);
            refuses(&run, "w2");
            for named in ["rank 0 (rank_0/", "rank 1 (rank_1/"] {
                assert!(error_line(&run).contains(named), "{run:#?}");
            }
            assert!(run.stderr.contains("four.ckpt"), "{run:#?}");
            nothing_written(&sample);
        }
    }
    let run = alone(&sample.args(&format!("{UNIFY} --unmatched drop --json"))).succeeds();
    assert_eq!(object(&run)["names_dropped"][0], "w2");
    let run = alone(&sample.args(&format!("{UNIFY} --unmatched copy --overwrite"))).succeeds();
    let told = "1 tensor was copied as one rank has it, though not all have the same: w2";
    assert!(run.stdout.contains(told), "{run:#?}");

    // What all have alike travels, as ever.
    let sample = Sample::new();
    for rank in 0..4 {
        let path = sample.path(&format!("src/rank_{rank}/net.safetensors"));
        let mut contents = tensors::read(&path).expect("a file");
        let step = Tensor::counting("I64", &[1], 7);
        contents.tensors.insert("step_num".to_owned(), step);
        tensors::write(&path, &contents.tensors);
    }
    for line in [UNIFY, RESHARD] {
        on(&sample, (4, "2"), &format!("{line} --overwrite")).succeeds();
    }
    assert!(sample.path("out/rank_0/net0.safetensors").exists());
}

// proves P27
#[test]
fn what_the_destination_strategy_does_not_know_is_an_error_everywhere() {
    let sample = Sample::new();
    strategy(
        &sample,
        "two.ckpt",
        &[("b", layout(&[2], &[0])), ("w1", layout(&[2], &[0, -1]))],
    );
    let split = "split --src @full --dst @out --dst-strategy @two.ckpt";
    for line in [split, RESHARD] {
        for world in WORLDS {
            let run = on(&sample, world, line);
            refuses(&run, "w2");
            assert!(run.stderr.contains("two.ckpt"), "{run:#?}");
            nothing_written(&sample);
        }
        let run = alone(&sample.args(&format!("{line} --unmatched drop --json"))).succeeds();
        assert_eq!(object(&run)["names_dropped"][0], "w2", "{line}");
        let run = alone(&sample.args(&format!("{line} --unmatched copy --overwrite"))).succeeds();
        let told = "1 tensor isn't in the destination strategy and was copied as it is: w2";
        assert!(run.stdout.contains(told), "{run:#?}");
        let file = sample.path("out/rank_1").read_dir().expect("files").next();
        let path = file.expect("a file").expect("an entry").path();
        let found = tensors::read(&path).expect("a file").tensors;
        assert!(found.contains_key("w2"), "{line}");
        std::fs::remove_dir_all(sample.path("out")).expect("removed");
    }
}

#[test]
fn names_of_another_kind_are_shown_with_what_differs() {
    let sample = Sample::new();
    let items = [
        ("network.b", layout(&[2, 2], &[-1])),
        ("network.w1", layout(&[2, 2], &[1, 0])),
    ];
    strategy(&sample, "four.ckpt", &items);
    let run = alone(&sample.args(UNIFY));
    refuses(&run, "network.w1");
    assert!(run.stderr.contains("begin with 'network.'"), "{run:#?}");
}

// proves P28
#[test]
fn a_shape_that_the_manifest_contradicts_is_noticed() {
    let sample = Sample::new();
    let line = "split --src @full --dst @cut --dst-strategy @four.ckpt";
    alone(&sample.args(line)).succeeds();
    // One rank of it is no full weights, as a directory or as a file.
    for (world, src) in WORLDS
        .iter()
        .zip(["rank_1", "rank_2/net.safetensors"].iter().cycle())
    {
        let line = format!("unify --src @cut/{src} --dst @out");
        let run = on(&sample, *world, &line);
        assert!(run.stderr.contains("was written as"), "{run:#?}");
        assert!(!run.status.success(), "{run:#?}");
        nothing_written(&sample);
    }
    let items = [
        ("b", layout(&[2, 2], &[-1])),
        ("w1", layout(&[2, 2], &[1, 0])),
        ("w2", layout(&[4], &[-1, -1])),
    ];
    strategy(&sample, "four.ckpt", &items);
    for world in WORLDS {
        let run = on(
            &sample,
            world,
            "unify --src @cut --src-strategy @four.ckpt --dst @out",
        );
        refuses(&run, "w2");
        nothing_written(&sample);
    }
}

// proves P30
#[test]
fn damaged_bytes_get_no_fresh_checksums() {
    let sample = Sample::new();
    let make = [
        "split --src @full --dst @cut --dst-strategy @four.ckpt",
        "unify --src @cut --src-strategy @four.ckpt --dst @whole",
    ];
    for line in make {
        alone(&sample.args(line)).succeeds();
    }
    tensors::damage(&sample.path("cut/rank_2/net.safetensors"), "w2");
    tensors::damage(&sample.path("whole/model-00001-of-00001.safetensors"), "w1");
    let lines = [
        (
            "unify --src @cut --src-strategy @four.ckpt --dst @out",
            "w2",
            "cut/rank_2/net.safetensors",
        ),
        (
            "reshard --src @cut --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt",
            "w2",
            "cut/rank_2/net.safetensors",
        ),
        (
            "convert @cut --dst @out --to ckpt",
            "w2",
            "cut/rank_2/net.safetensors",
        ),
        (
            "reshard --src @cut --src-strategy @four.ckpt --in-place --dst-strategy @two.ckpt",
            "w2",
            "cut/rank_2/net.safetensors",
        ),
        (
            "split --src @whole --dst @out --dst-strategy @two.ckpt",
            "w1",
            "model-00001-of-00001",
        ),
        (
            "convert @whole --dst @out --to ckpt",
            "w1",
            "model-00001-of-00001",
        ),
    ];
    for world in WORLDS {
        for (line, tensor, file) in lines {
            let run = on(&sample, world, &format!("{line} --json"));
            let result = object(&run);
            assert_eq!(result["error"]["kind"], "corrupt", "{line}: {run:#?}");
            assert_eq!(result["error"]["tensor"], tensor, "{line}: {result}");
            let named = result["error"]["file"].as_str().expect("a file");
            assert!(named.contains(file), "{line}: {result}");
            nothing_written(&sample);
            assert!(sample.path("cut/rank_3/net.safetensors").exists());
        }
    }
    let line = "unify --src @cut --src-strategy @four.ckpt --dst @out --verify none";
    alone(&sample.args(line)).succeeds();
}

// proves P29
#[test]
fn diff_finds_a_damaged_copy_on_either_side() {
    let sample = Sample::new();
    let line = "split --src @full --dst @cut --dst-strategy @four.ckpt";
    alone(&sample.args(line)).succeeds();
    tensors::damage(&sample.path("src/rank_3/net.safetensors"), "b");
    for world in WORLDS {
        for (sides, damaged, sound) in [
            (
                "@src @cut",
                "first side's own copies of 'b'",
                "second side's own",
            ),
            (
                "@cut @src",
                "second side's own copies of 'b'",
                "first side's own",
            ),
        ] {
            let line =
                format!("diff {sides} --a-strategy @four.ckpt --b-strategy @four.ckpt --json");
            let run = on(&sample, world, &line);
            assert_eq!(run.status.code(), Some(1), "{sides}: {run:#?}");
            let result = object(&run);
            assert_eq!(result["equal"], false, "{sides}: {result}");
            let notes = result["notes"].to_string();
            assert!(notes.contains(damaged), "{sides}: {notes}");
            for named in ["rank 0 (rank_0/", "rank 3 (rank_3/", "first at ["] {
                assert!(notes.contains(named), "{sides}: {notes}");
            }
            assert!(!notes.contains(sound), "{sides}: {notes}");
            assert!(notes.contains("a sample of the others"), "{sides}: {notes}");
        }
    }
    for (how, equal) in [("none", true), ("all", false)] {
        let line = format!(
            "diff @src @cut --a-strategy @four.ckpt --b-strategy @four.ckpt --json --verify {how}"
        );
        let result = object(&alone(&sample.args(&line)));
        assert_eq!(
            (&result["equal"], &result["copies_compared"]),
            (&equal.into(), &how.into()),
            "{result}"
        );
    }
}

/// A part of the second side's that no rank has is compared with nothing, and what a rank has of its own with all.
// proves P29
#[test]
fn diff_says_equal_only_of_what_is_there() {
    let sample = Sample::new();
    let line = "split --src @full --dst @cut --dst-strategy @four.ckpt";
    alone(&sample.args(line)).succeeds();
    let file = sample.path("cut/rank_2/net.safetensors");
    let mut own = tensors::read(&file).expect("readable").tensors;
    own.remove("w2").expect("a part");
    tensors::write(&file, &own);
    std::fs::remove_file(sample.path("cut/shardloom.json")).expect("a manifest");
    for (sides, verify) in [
        ("@full @cut --b-strategy @four.ckpt", "sample"),
        ("@full @cut --b-strategy @four.ckpt", "all"),
        ("@cut @full --a-strategy @four.ckpt", "sample"),
        (
            "@cut @cut --a-strategy @four.ckpt --b-strategy @four.ckpt",
            "none",
        ),
    ] {
        for world in WORLDS {
            let line = format!("diff {sides} --verify {verify} --json");
            let run = on(&sample, world, &line).fails();
            for word in ["missing_shard", "w2"] {
                assert!(run.stdout.contains(word), "{sides}: {run:#?}");
            }
        }
    }
    // A tensor that the strategy doesn't know, unlike on one rank.
    for rank in 0..4 {
        let file = sample.path(&format!("src/rank_{rank}/net.safetensors"));
        let mut own = tensors::read(&file).expect("readable").tensors;
        let from = if rank == 2 { 77 } else { 5 };
        own.insert("own".to_owned(), Tensor::counting("F32", &[8], from));
        tensors::write(&file, &own);
    }
    let mut whole = sample.whole.clone();
    whole.insert("own".to_owned(), Tensor::counting("F32", &[8], 5));
    tensors::write(&sample.path("more/model.safetensors"), &whole);
    let lines = ["@src @more --a-strategy", "@more @src --b-strategy"];
    for (sides, verify) in lines.into_iter().flat_map(|s| [(s, "sample"), (s, "all")]) {
        for world in WORLDS {
            let line = format!("diff {sides} @four.ckpt --verify {verify} --json");
            let result = object(&on(&sample, world, &line).fails());
            assert_eq!(result["equal"], false, "{sides} {verify}: {result}");
        }
    }
    // Of another shape there is nothing to compare.
    let file = sample.path("src/rank_2/net.safetensors");
    let mut own = tensors::read(&file).expect("readable").tensors;
    own.insert("own".to_owned(), Tensor::counting("F32", &[4], 5));
    tensors::write(&file, &own);
    for sides in lines {
        let run = alone(&sample.args(&format!("diff {sides} @four.ckpt --json"))).fails();
        assert!(
            run.stdout.contains("\"differs\"") && run.stdout.contains("own"),
            "{run:#?}"
        );
    }
}

/// How the source changes while it is read.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Another file takes its place.
    Renamed,
    /// Its bytes are written anew.
    Rewritten,
}

/// Runs the job until the source has changed between its first look and its last: a quick job may have
/// been done between two changes.
fn run_and_change(sample: &Sample, processes: u32, line: &str, change: Change) -> Run {
    run_and_change_file(
        sample,
        processes,
        line,
        change,
        "src/rank_1/net.safetensors",
    )
}

/// The same with this file.
fn run_and_change_file(
    sample: &Sample,
    processes: u32,
    line: &str,
    change: Change,
    file: &str,
) -> Run {
    let mut runs = (0..20).map(|_| {
        let _ = std::fs::remove_dir_all(sample.path("out"));
        run_once_and_change(sample, processes, line, change, file)
    });
    let noticed = runs.find(|run| !run.status.success());
    noticed.expect("a change that is noticed")
}

/// Changes a source file again and again until the job has ended, and gives how that did.
fn run_once_and_change(
    sample: &Sample,
    processes: u32,
    line: &str,
    change: Change,
    file: &str,
) -> Run {
    let path = sample.path(file);
    let other = sample.path("other.safetensors");
    let bytes = std::fs::read(&path).expect("a file");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match change {
                    Change::Renamed => {
                        std::fs::write(&other, &bytes).expect("written");
                        std::fs::rename(&other, &path).expect("renamed");
                    }
                    Change::Rewritten => {
                        let file = std::fs::OpenOptions::new().write(true).open(&path);
                        let file = file.expect("it can be opened");
                        file.write_all_at(&bytes, 0).expect("written");
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let run = on(sample, (processes, "1"), line);
        done.store(true, Ordering::Relaxed);
        run
    })
}

// proves P32
#[test]
fn a_source_that_changes_while_it_is_read_is_noticed() {
    let sample = Sample::new();
    for change in [Change::Renamed, Change::Rewritten] {
        for (processes, io) in [(1, "pread"), (1, "mmap"), (4, "auto")] {
            let line = format!("{RESHARD} --io {io}");
            let run = run_and_change(&sample, processes, &line, change);
            refuses(&run, "changed while it was read");
            assert!(
                error_line(&run).contains("rank_1/net.safetensors"),
                "{run:#?}"
            );
            nothing_written(&sample);
        }
    }
    let line = "diff @src @full --a-strategy @four.ckpt";
    refuses(
        &run_and_change(&sample, 1, line, Change::Renamed),
        "changed while it was read",
    );
}

// proves P32
#[test]
fn an_adapter_and_what_is_verified_must_stand_still() {
    let weight = Tensor::counting("F32", &[8, 16], 50);
    let cut = |ranks: usize| Strategy::of(&[("w1.weight", layout(&[ranks], &[0, -1]))]);
    let whole = tensors::Tensors::from([("w1.weight".to_owned(), weight)]);
    let sample = Sample::of(whole, cut(4), cut(2));
    let split = "split --src @full --dst @cut --dst-strategy @four.ckpt";
    alone(&sample.args(split)).succeeds();
    let pair = |module: &str, shape: [usize; 2]| {
        (
            format!("base_model.model.{module}.weight"),
            Tensor::counting("F32", &shape, 3),
        )
    };
    let pairs = [pair("w1.lora_A", [2, 16]), pair("w1.lora_B", [8, 2])];
    let adapter = "lora/adapter_model.safetensors";
    tensors::write(&sample.path(adapter), &pairs.into_iter().collect());
    let config = sample.path("lora/adapter_config.json");
    tensors::write_bytes(&config, br#"{"lora_alpha": 2, "r": 2}"#);
    let unify = format!("{UNIFY} --lora @lora");
    for (line, file) in [
        (unify.as_str(), adapter),
        ("verify @cut", "cut/rank_1/net.safetensors"),
    ] {
        for (processes, change) in [(1, Change::Renamed), (4, Change::Rewritten)] {
            let run = run_and_change_file(&sample, processes, line, change, file);
            refuses(&run, "changed while it was read");
            assert!(error_line(&run).contains(file), "{run:#?}");
            nothing_written(&sample);
        }
    }
}

/// What a step has counted is compared with the manifest as weights are.
#[test]
fn damaged_counts_get_no_fresh_checksums() {
    let sample = Sample::new();
    let line = "split --src @full --dst-strategy @two.ckpt --dst @cut --step 20";
    alone(&sample.args(line)).succeeds();
    let manifest = std::fs::read_to_string(sample.path("cut/shardloom.json")).expect("a manifest");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    for count in ["step_num", "epoch_num", "global_step"] {
        assert!(manifest["tensors"][count].is_object(), "{count}");
    }
    alone(
        &sample.args(
            "reshard --src @cut --src-strategy @two.ckpt --dst @good --dst-strategy @four.ckpt",
        ),
    )
    .succeeds();
    let against = alone(&sample.args("verify @cut --against @good"));
    assert!(against.status.success(), "{against:#?}");
    for rank in 0..2 {
        let file = format!("cut/rank_{rank}/net_rank_{rank}-1_20.safetensors");
        tensors::damage(&sample.path(&file), "step_num");
    }
    for world in WORLDS {
        for line in [
            "unify --src @cut --src-strategy @two.ckpt --dst @out",
            "reshard --src @cut --src-strategy @two.ckpt --dst @out --dst-strategy @four.ckpt",
        ] {
            let corrupt = on(&sample, world, line).fails();
            assert!(
                error_line(&corrupt).contains("step_num"),
                "{line}: {corrupt:#?}"
            );
            nothing_written(&sample);
        }
    }
}

/// Nothing that is compared is no equality, and a number that nothing has chooses nothing.
#[test]
fn what_chooses_nothing_is_wrong_usage() {
    let sample = Sample::new();
    for (line, culprit) in [
        (
            "diff @src @full --a-strategy @four.ckpt --filter-out-param-prefix",
            "no tensor is left to compare",
        ),
        (
            "unify --src @full --dst @out --file-suffix 1_99",
            "full weights, which has no number",
        ),
        ("inspect @full --file-suffix 1_99", "which has no number"),
        (
            "to @two.ckpt --src @full --dst @out --file-suffix 1_99",
            "which has no number",
        ),
    ] {
        let mut args = sample.args(line);
        if line.ends_with("prefix") {
            args.push(String::new());
        }
        let refused = alone(&args);
        assert_eq!(refused.status.code(), Some(2), "{line}: {refused:#?}");
        assert!(
            error_line(&refused).contains(culprit),
            "{line}: {refused:#?}"
        );
        nothing_written(&sample);
    }
}
