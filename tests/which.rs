//! Which bytes are read: one position, the same on all ranks, and all ranks' parts.

use crate::support::{self, Run, command, fixtures, oracle, sample, tensors};
use command::{alone, error_line, nothing_written, object, refuses, under_mpi};
use oracle::Strategy;
use sample::{Sample, layout};
use serde_json::json;
use std::path::{Path, PathBuf};
use tensors::{Tensor, Tensors};

const RESHARD: &str =
    "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt";
const UNIFY: &str = "unify --src @src --src-strategy @four.ckpt --dst @out";
const DIFF: &str = "diff @src @full --a-strategy @four.ckpt";

/// A file of `rank` at a position, such as `1_10` or `_1-1_10`.
fn file(rank: u32, position: &str) -> String {
    let dash = if position.starts_with('_') { "" } else { "-" };
    format!("src/rank_{rank}/net_rank_{rank}{dash}{position}.safetensors")
}

/// Puts step `step` at `position` into the directories of `ranks`; every step has other bytes.
fn save(sample: &Sample, ranks: &[u32], position: &str, step: u8) {
    for rank in ranks {
        let mut shards = sample
            .four
            .cut(
                &at_step(&sample.whole, step),
                usize::try_from(*rank).expect("small"),
            )
            .expect("it can be cut");
        let data = i32::from(step).to_le_bytes().to_vec();
        let count = Tensor {
            dtype: "I32".into(),
            shape: vec![],
            data,
        };
        shards.insert("step_num".into(), count);
        tensors::write(&sample.path(&file(*rank, position)), &shards);
    }
}

fn at_step(whole: &Tensors, step: u8) -> Tensors {
    let mut whole = whole.clone();
    for tensor in whole.values_mut() {
        tensor
            .data
            .iter_mut()
            .for_each(|byte| *byte = byte.wrapping_add(step));
    }
    whole
}

/// A sample whose source has no files yet.
fn sample() -> Sample {
    let sample = Sample::in_memory();
    std::fs::remove_dir_all(sample.path("src")).expect("removed");
    sample
}

/// Runs a line on one process, on four, and on four that see themselves on two nodes; `check`s each run.
#[track_caller]
fn runs(sample: &Sample, line: &str, check: impl Fn(Run)) {
    let args = sample.args(line);
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    let nodes = [("SHARDLOOM_NODES", "2")];
    check(alone(&args));
    check(support::mpirun(4, program, &words, &nodes));
    if line.starts_with("unify") && !line.contains("--file-suffix") {
        check(under_mpi(4, &args));
    }
}

/// The line is refused however it is run, with all of `words` in its error and hint, and nothing is written.
#[track_caller]
fn refused(sample: &Sample, line: &str, words: &[&str]) {
    runs(sample, line, |run| {
        refuses(&run, words[0]);
        error_line(&run);
        for word in words {
            assert!(run.stderr.contains(word), "{word} is missing: {run:#?}");
        }
        nothing_written(sample);
    });
}

/// `line` gives the weights of `step`.
#[track_caller]
fn gives(sample: &Sample, line: &str, step: u8) {
    runs(sample, line, |run| {
        let out = sample.path("out");
        run.succeeds();
        let compared = tensors::compare(&at_step(&sample.whole, step), &weights(&out));
        compared.unwrap_or_else(|error| unreachable!("{line}: {error}"));
        std::fs::remove_dir_all(out).expect("removed");
    });
}

/// The full weights in a directory, without the counts.
fn weights(directory: &Path) -> Tensors {
    let files = fixtures::listing(directory).into_iter();
    let files: Vec<PathBuf> = files.map(|file| directory.join(file)).collect();
    let files = files.iter().filter(|file| {
        let name = file.to_string_lossy();
        name.ends_with(".safetensors") && !name.contains("hyper_param")
    });
    let read = files.flat_map(|file| tensors::read(file).expect("readable").tensors);
    read.filter(|(name, _)| name != "step_num").collect()
}

fn latest(sample: &Sample) -> serde_json::Value {
    object(&alone(&sample.args("checkpoints latest @src --json")).succeeds())
}

// proves P16
#[test]
fn a_save_that_was_killed_is_never_mixed_with_the_one_before() {
    let sample = sample();
    save(&sample, &[0, 1, 2, 3], "1_10", 10);
    save(&sample, &[0, 1], "1_20", 20);
    let words = ["1_20 on ranks 0-1; 1_10 on ranks 0-3", "--file-suffix 1_10"];
    for line in [RESHARD, UNIFY, DIFF, &format!("{RESHARD} --dry-run")] {
        refused(&sample, line, &words);
    }
    let inspected = alone(&sample.args("inspect @src"));
    refuses(&inspected, words[0]);
    assert!(inspected.stderr.contains(words[1]), "{inspected:#?}");
    for suffix in ["1_10", "latest"] {
        let inspected = alone(&sample.args(&format!("inspect @src --json --file-suffix {suffix}")));
        let files = object(&inspected.succeeds())["files"].clone();
        let is_tenth = |file: &serde_json::Value| file["path"].to_string().contains("-1_10.");
        let files = files.as_array().expect("files");
        assert!(files.len() == 4 && files.iter().all(is_tenth), "{files:?}");
    }
    // Each file for itself: nothing to mix.
    alone(&sample.args("convert @src --dst @out --to ckpt")).succeeds();
    assert_eq!(
        fixtures::listing(&sample.path("out"))
            .into_iter()
            .filter(|path| { path.to_string_lossy().ends_with(".ckpt") })
            .count(),
        6
    );
    std::fs::remove_dir_all(sample.path("out")).expect("removed");
    refused(
        &sample,
        &format!("{UNIFY} --file-suffix 1_20"),
        &["ranks 2-3 have no file of 1_20"],
    );
    refused(
        &sample,
        &format!("{UNIFY} --file-suffix 7_7"),
        &["'7_7'; there are: 1_20, 1_10"],
    );
    gives(&sample, &format!("{UNIFY} --file-suffix 1_10"), 10);
    assert_eq!(latest(&sample)["suffix"], json!("1_10"));
    gives(&sample, &format!("{UNIFY} --file-suffix latest"), 10);
}

// proves P17
#[test]
fn a_suffix_is_the_complete_number() {
    let sample = sample();
    save(&sample, &[0, 1, 2], "1_10", 10);
    save(&sample, &[0, 1, 2, 3], "11_10", 110);
    let line = format!("{UNIFY} --file-suffix 1_10");
    refused(&sample, &line, &["rank 3 has no file of 1_10"]);
    gives(&sample, UNIFY, 110);
    let in_place =
        "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --in-place";
    let run = alone(&sample.args(in_place));
    refuses(&run, "1_10");
    let hint = "reshard --file-suffix 11_10 --dst NEW, or --file-suffix 1_10,";
    assert!(run.stderr.contains(hint), "{run:#?}");
}

// proves P20
#[test]
fn names_the_file_that_was_cut_short() {
    for length in [0, 60] {
        let sample = sample();
        save(&sample, &[0, 1, 2, 3], "1_10", 10);
        save(&sample, &[0, 1, 2, 3], "1_20", 20);
        let path = sample.path(&file(2, "1_20"));
        let bytes = std::fs::read(&path).expect("a file");
        std::fs::write(&path, &bytes[..length]).expect("written");
        refused(&sample, UNIFY, &["net_rank_2-1_20", "--file-suffix 1_10"]);
        assert_eq!(latest(&sample)["suffix"], json!("1_10"));
    }
}

// proves P21
#[test]
fn what_files_say_of_their_step_is_the_same_on_all_ranks() {
    let sample = sample();
    save(&sample, &[0, 1, 2, 3], "1_10", 10);
    save(&sample, &[0, 1], "1_20", 20);
    save(&sample, &[2, 3], "1_20", 10);
    let words = ["step_num is 20 on ranks 0-1, 10 on ranks 2-3"];
    refused(&sample, RESHARD, &words);
    refused(&sample, DIFF, &words);
    assert_eq!(latest(&sample)["suffix"], json!("1_10"));
}

/// A name may say the rank before the step, in directories or not: it is one position, which goes along.
#[test]
fn a_rank_may_stand_before_the_step() {
    let sample = sample();
    for step in [10, 20] {
        save(&sample, &[0, 1, 2, 3], &format!("1_{step}"), step);
        for rank in 0..4 {
            let named = format!("src/rank_{rank}/net{rank}-1_{step}.safetensors");
            let saved = file(rank, &format!("1_{step}"));
            std::fs::rename(sample.path(&saved), sample.path(&named)).expect("renamed");
            let flat = sample.path(&format!("flat/net-{rank}-1_{step}.safetensors"));
            std::fs::create_dir_all(flat.parent().expect("a directory")).expect("made");
            std::fs::copy(sample.path(&named), flat).expect("copied");
        }
    }
    gives(&sample, UNIFY, 20);
    gives(&sample, &format!("{UNIFY} --file-suffix 1_10"), 10);
    gives(&sample, &format!("{UNIFY} --file-suffix latest"), 20);
    assert!(latest(&sample).to_string().contains("net3-1_20"));
    let told = alone(&sample.args("inspect @src")).succeeds().stdout;
    assert!(told.contains("1_20 on ranks 0-3"), "{told}");
    let flat = RESHARD.replace("@src", "@flat/net-{rank}-1_20.safetensors");
    for (line, name) in [(RESHARD, "net1-1_20"), (&flat, "net-1-1_20")] {
        runs(&sample, line, |run| {
            run.succeeds();
            let kept = sample.path(&format!("out/rank_1/{name}.safetensors"));
            assert!(kept.is_file(), "{line}");
            std::fs::remove_dir_all(sample.path("out")).expect("removed");
        });
    }
    // The step is the number of a checkpoint 2.0, too, where no file tells one.
    for rank in 0..4 {
        let path = sample.path(&format!("flat/net-{rank}-1_20.safetensors"));
        let mut shards = tensors::read(&path).expect("readable").tensors;
        shards.remove("step_num").expect("a count");
        tensors::write(&path, &shards);
    }
    alone(&sample.args(&format!("{flat} --format checkpoint2"))).succeeds();
    assert!(sample.path("out/iteration_00000020").is_dir());
}

/// Of several directories of ranks one alone has weights: the others' are missing.
#[test]
fn a_rank_is_no_full_weights_beside_ranks_without_any() {
    let sample = Sample::in_memory();
    for rank in 1..4 {
        for file in fixtures::listing(&sample.path(&format!("src/rank_{rank}"))) {
            let path = sample.path(&format!("src/rank_{rank}")).join(file);
            std::fs::remove_file(path).expect("removed");
        }
    }
    std::fs::write(sample.path("src/rank_1/net.safetensors.tmp"), b"cut").expect("written");
    std::fs::write(sample.path("src/rank_2/meta.json"), b"{}").expect("written");
    for line in [
        "unify --src @src --dst @out",
        "split --src @src --dst @out --dst-strategy @four.ckpt",
        "reshard --src @src --dst @out --dst-strategy @two.ckpt",
    ] {
        refused(&sample, line, &["rank_1", "has no weights"]);
    }
    for line in [
        "diff @src @full",
        "diff @full @src",
        "diff @src @src/rank_0",
    ] {
        refused(&sample, line, &["rank_1", "has no weights"]);
    }
    alone(&sample.args("diff @src/rank_0 @src/rank_0")).succeeds();
}

/// Files with other tensors each are parts, whose numbers tell no steps; a pattern reads them together.
#[test]
fn parts_of_a_rank_are_no_steps() {
    for [one, other] in [
        ["net_0", "net_1"],
        ["part1", "part0"],
        ["m-00001-of-00002", "m-00002-of-00002"],
    ] {
        let sample = Sample::in_memory();
        let step = Tensor {
            dtype: "I32".into(),
            shape: vec![],
            data: vec![7, 0, 0, 0],
        };
        for rank in 0..4 {
            let room = sample.path(&format!("src/rank_{rank}"));
            let file = fixtures::listing(&room).into_iter().next().expect("a file");
            let mut all = tensors::read(&room.join(&file)).expect("readable").tensors;
            std::fs::remove_file(room.join(file)).expect("removed");
            let mut first: Tensors = all.remove_entry("w1").into_iter().collect();
            for part in [&mut first, &mut all] {
                part.insert("step_num".into(), step.clone());
            }
            tensors::write(&room.join(format!("{one}.safetensors")), &first);
            tensors::write(&room.join(format!("{other}.safetensors")), &all);
        }
        let compare = "diff @full @src --b-strategy @four.ckpt";
        for line in [UNIFY, RESHARD, compare] {
            refused(
                &sample,
                line,
                &["are parts, and no steps", "{part}", "--file-suffix"],
            );
        }
        let name = one.replacen(['0', '1'], "{part}", 1);
        let name = if one.starts_with('m') {
            "m-{part}-of-00002".to_owned()
        } else {
            name
        };
        let pattern = format!("@src/rank_{{rank}}/{name}.safetensors");
        alone(&sample.args(&UNIFY.replace("@src", &pattern))).succeeds();
        assert_eq!(sample.weights_in("out").get("step_num"), Some(&step));
        let compared = tensors::compare(&sample.whole, &weights(&sample.path("out")));
        compared.unwrap_or_else(|error| unreachable!("{one}: {error}"));
    }
}

/// A prefix may end in a digit: a pattern says where the rank stands, as often as it does.
#[test]
fn a_pattern_may_say_the_rank_twice() {
    let sample = Sample::in_memory();
    for rank in 0..4 {
        let room = sample.path(&format!("src/rank_{rank}"));
        let file = fixtures::listing(&room).into_iter().next().expect("a file");
        let named = room.join(format!("qwen2{rank}.safetensors"));
        std::fs::rename(room.join(file), named).expect("renamed");
    }
    let hint = "rank_{rank}/qwen2{rank}.safetensors";
    refused(&sample, UNIFY, &["several steps", hint]);
    gives(&sample, &UNIFY.replace("@src", &format!("@src/{hint}")), 0);
}

// proves P19
#[test]
fn a_file_in_another_ranks_directory_is_named() {
    let sample = sample();
    save(&sample, &[0, 1, 2, 3], "1_10", 10);
    let wrong = sample.path("src/rank_1/net_rank_0-1_10.safetensors");
    std::fs::rename(sample.path(&file(1, "1_10")), wrong).expect("renamed");
    refused(
        &sample,
        UNIFY,
        &["rank_1/net_rank_0-1_10", "named for rank 0"],
    );
}

// proves P22
#[test]
fn a_rank_that_the_strategy_lacks_is_named() {
    let sample = sample();
    save(&sample, &[0, 1, 2, 3], "1_10", 10);
    let from = sample.path(&file(3, "1_10"));
    let to = sample.path(&file(9, "1_10"));
    std::fs::create_dir(to.parent().expect("a directory")).expect("made");
    std::fs::copy(from, to).expect("copied");
    refused(&sample, UNIFY, &["rank 9", "4 ranks"]);
}

/// Where a job went on with fewer ranks, the older one's directories are beside its own.
#[test]
fn a_job_of_fewer_ranks_is_read_by_its_step() {
    let sample = sample();
    save(&sample, &[0, 1, 2, 3], "1_100", 100);
    for rank in 0..2 {
        let shards = sample.two.cut(&at_step(&sample.whole, 20), rank as usize);
        let shards = shards.expect("it can be cut");
        tensors::write(&sample.path(&file(rank, "_1-1_20")), &shards);
    }
    let unify = UNIFY.replace("@four.ckpt", "@two.ckpt");
    refused(&sample, &unify, &["describes 2 ranks", "--file-suffix"]);
    gives(&sample, &format!("{unify} --file-suffix _1-1_20"), 20);
    gives(&sample, &format!("{UNIFY} --file-suffix 1_100"), 100);
    // Of the job of four a rank lacks its file: the strategy of two is another job's.
    save(&sample, &[2], "_1-1_20", 20);
    refused(
        &sample,
        &format!("{unify} --file-suffix _1-1_20"),
        &["rank 3 has no file"],
    );
}

#[test]
fn the_latest_goes_by_run_and_step_and_falls_back_to_an_older_run() {
    let sample = sample();
    save(&sample, &[0, 1, 2, 3], "_1-1_10", 30);
    save(&sample, &[0, 1, 2, 3], "1_20", 20);
    assert_eq!(
        latest(&sample)["suffix"],
        json!("_1-1_10"),
        "without meta.json"
    );
    gives(&sample, &format!("{UNIFY} --file-suffix latest"), 30);
    for rank in 0..4 {
        let name = format!("net_rank_{rank}_2-1_5.safetensors");
        let meta = json!({ "last_epoch": 1, "last_step": 5, "last_ckpt_file": name });
        let path = sample.path(&file(rank, "1_20")).with_file_name("meta.json");
        tensors::write_bytes(&path, meta.to_string().as_bytes());
    }
    let found = latest(&sample);
    assert_eq!(found["suffix"], json!("_1-1_10"));
    let note = found["note"].as_str().expect("a note");
    assert!(
        note.contains("older run") && note.contains("_2-1_5"),
        "{note}"
    );
}

/// Two parts in two copies, and an optimizer's state that may not have been saved.
fn replicas(saved_state: bool) -> Sample {
    let mut whole = Tensors::from([
        ("a".to_owned(), Tensor::counting("F32", &[8, 4], 3)),
        ("z".to_owned(), Tensor::counting("F32", &[8, 4], 90)),
    ]);
    let cut = || layout(&[2, 2], &[0, -1]);
    let four = Strategy::of(&[("a", cut()), ("z", cut()), ("adam_m.a", cut())]);
    let two = Strategy::of(&[("a", layout(&[2], &[0, -1])), ("z", layout(&[2], &[0, -1]))]);
    if saved_state {
        whole.insert("adam_m.a".into(), Tensor::counting("F32", &[8, 4], 7));
    }
    Sample::of(whole, four, two)
}

fn remove(sample: &Sample, ranks: &[u32]) {
    for rank in ranks {
        std::fs::remove_dir_all(sample.path(&format!("src/rank_{rank}"))).expect("removed");
    }
}

// proves P22
#[test]
fn replicas_stand_in_for_ranks_that_are_missing() {
    for saved_state in [false, true] {
        let sample = replicas(saved_state);
        remove(&sample, &[0, 3]);
        gives(&sample, UNIFY, 0);
        remove(&sample, &[1]);
        let words = ["ranks 0-1, 3 of 4 are missing"];
        for line in [RESHARD, UNIFY, DIFF] {
            refused(&sample, line, &words);
        }
    }
}

/// Four stages of two ranks each, and a tensor that the first and the last share.
// proves P23
#[test]
fn whole_stages_that_are_missing_are_named_once() {
    let cut = || layout(&[2], &[0, -1]);
    let names = ["shared", "l0", "l1", "l2", "l3"];
    let whole = |name: &&str| ((*name).to_owned(), Tensor::counting("F32", &[4, 4], 3));
    let whole: Tensors = names.iter().map(whole).collect();
    let stages = [
        (0, "shared"),
        (0, "l0"),
        (1, "l1"),
        (2, "l2"),
        (3, "l3"),
        (3, "shared"),
    ];
    let cuts = stages
        .iter()
        .map(|(stage, name)| (*stage, (*name).to_owned(), cut()));
    let four = Strategy {
        items: cuts.collect(),
    };
    let two = Strategy::of(&names.map(|name| (name, cut())));
    let sample = Sample::of(whole, four, two);
    let named = stages
        .iter()
        .map(|(stage, name)| (0, format!("{stage}-{name}"), cut()));
    let file = oracle::to_protobuf(&Strategy {
        items: named.collect(),
    });
    tensors::write_bytes(&sample.path("four.ckpt"), &file);
    gives(&sample, UNIFY, 0);
    remove(&sample, &[2, 3, 6, 7]);
    for line in [RESHARD, UNIFY, DIFF, &format!("{RESHARD} --dry-run")] {
        refused(
            &sample,
            line,
            &["ranks 2-3, 6-7 of 8 are missing", "parts of l1, l3"],
        );
    }
    let rest = "unify --src @src --src-strategy @four.ckpt --dst @out --filter-out-param-prefix l1 \
                --filter-out-param-prefix l3";
    runs(&sample, rest, |run| {
        run.succeeds();
        let found: Vec<String> = weights(&sample.path("out")).into_keys().collect();
        assert_eq!(found, ["l0", "l2", "shared"]);
        std::fs::remove_dir_all(sample.path("out")).expect("removed");
    });
}

// proves P24
#[test]
fn a_checkpoint_2_of_several_cards_without_its_metadata_is_refused() {
    let sample = Sample::in_memory();
    let write = "reshard --src @src --src-strategy @four.ckpt --dst @second --dst-strategy @four.ckpt --format checkpoint2";
    alone(&sample.args(write)).succeeds();
    let metadata = sample.path("second/iteration_00000000/metadata.json");
    std::fs::remove_file(metadata).expect("removed");
    refused(
        &sample,
        "unify --src @second --dst @out",
        &["metadata.json", "one of 4 files"],
    );
    refuses(&alone(&sample.args("inspect @second")), "metadata.json");
    refuses(
        &alone(&sample.args("checkpoints latest @second")),
        "metadata.json is missing",
    );
}

#[test]
fn one_of_several_files_is_no_model() {
    let sample = Sample::new();
    std::fs::create_dir(sample.path("part")).expect("a directory");
    let part = sample.path("part/model-00001-of-00005.safetensors");
    std::fs::copy(sample.path("full/model.safetensors"), part).expect("copied");
    for line in [
        "unify --src @part --dst @out",
        "split --src @part --dst @out --dst-strategy @four.ckpt",
    ] {
        for processes in [1, 4] {
            let args = sample.args(line);
            let run = command::on(processes, &args);
            refuses(&run, "is one of 5 files");
            nothing_written(&sample);
        }
    }
    let whole = sample.path("part/model-00001-of-00001.safetensors");
    std::fs::rename(sample.path("part/model-00001-of-00005.safetensors"), whole).expect("renamed");
    alone(&sample.args("unify --src @part --dst @out")).succeeds();
}

/// However a set's files are called: a part of it is no model, whoever takes it. A file's own name takes that one.
#[test]
fn a_part_of_a_set_of_files_is_no_model() {
    let sample = Sample::in_memory();
    type Spelled = (fn(u32) -> String, &'static str);
    let spelled: [Spelled; 5] = [
        (
            |n| format!("model-{n:05}-of-00012.safetensors"),
            "model-0000*",
        ),
        (
            |n| format!("model_{n:05}_of_00012.safetensors"),
            "model_0000*",
        ),
        (|n| format!("w.{n}-of-12.safetensors"), "w.1*"),
        (
            |n| format!("part-{:03}-of-012.fp32.safetensors", n - 1),
            "part-00*",
        ),
        (|n| format!("w{n}.of.12-int8.safetensors"), "w?.of*"),
    ];
    for (name, some) in spelled {
        let (room, out) = (sample.path("set"), sample.path("out"));
        for n in 1..=12 {
            let tensor = Tensor {
                dtype: "U8".into(),
                shape: vec![1],
                data: vec![u8::try_from(n).expect("small")],
            };
            let tensors = Tensors::from([(format!("w{n}"), tensor)]);
            tensors::write(&room.join(name(n)), &tensors);
        }
        let run = |line: &str| {
            let run = alone(&sample.args(line));
            let made = out.exists();
            if made {
                std::fs::remove_dir_all(&out).expect("removed");
            }
            (run, made)
        };
        let refused = |line: &str, why: &str| {
            let (run, made) = run(line);
            refuses(&run, why);
            assert!(!made, "{line}");
        };
        let all = format!("{}*", &some[..1]);
        run(&format!("unify --src @set --weights {all} --dst @out"))
            .0
            .succeeds();
        run(&format!(
            "unify --src @set --weights {} --dst @out",
            name(2)
        ))
        .0
        .succeeds();
        for job in [
            "unify --src @set --dst @out",
            "split --src @set --dst @out --dst-strategy @four.ckpt",
            "diff @set @full",
        ]
        .into_iter()
        .take(if some == "w.1*" { 3 } else { 1 })
        {
            refused(
                &format!("{job} --weights {some}"),
                "is one of 12 files, of which",
            );
        }
        std::fs::remove_file(room.join(name(7))).expect("removed");
        let lacks = "is one of 12 files, of which 11 are there";
        refused(
            &format!("unify --src @set --weights {all} --dst @out"),
            lacks,
        );
        refused("unify --src @set --dst @out", lacks);
        refused("convert @set --dst @out --to ckpt", lacks);
        let chosen = "convert @set --dst @out --to ckpt --file-name-contains of";
        run(chosen).0.succeeds();
        std::fs::remove_dir_all(&room).expect("removed");
    }
}

/// Files of ranks in one directory, of two steps: one is shown, and named as it is read.
#[test]
fn ranks_files_of_several_steps_in_one_directory_are_told_apart() {
    let sample = Sample::in_memory();
    for rank in 0..4 {
        for step in [9, 10] {
            let from = format!("src/rank_{rank}/net.safetensors");
            sample.copy(&from, &format!("flat/net_rank_{rank}-1_{step}.safetensors"));
        }
    }
    let newest = "net_rank_{rank}-1_10.safetensors";
    let pattern = "@src/rank_{rank}/net.safetensors";
    let line = RESHARD.replace("--dst @out", "--in-place");
    let run = alone(&sample.args(&line.replace("--src @src", &format!("--src {pattern}"))));
    assert_eq!(run.status.code(), Some(2), "{run:#?}");
    assert!(
        run.stderr.contains("--in-place is for directories"),
        "{run:#?}"
    );
    refused(
        &sample,
        &UNIFY.replace("@src", "@flat"),
        &["flat", newest, "--src-strategy"],
    );
    for (more, pattern, other) in [
        ("", newest, "1_9"),
        (
            "--file-suffix 1_9",
            "net_rank_{rank}-1_9.safetensors",
            "1_10",
        ),
    ] {
        let line = format!("inspect @flat {more} --json");
        let shown = object(&alone(&sample.args(&line)).succeeds());
        assert_eq!(shown["ranks"], 4, "{shown}");
        let notes = shown["notes"].to_string();
        assert!(notes.contains(pattern) && notes.contains(other), "{notes}");
        let line = UNIFY.replace("@src", &format!("@flat/{pattern}"));
        alone(&sample.args(&line)).succeeds();
        let compared = tensors::compare(&sample.whole, &weights(&sample.path("out")));
        compared.unwrap_or_else(|error| unreachable!("{pattern}: {error}"));
        std::fs::remove_dir_all(sample.path("out")).expect("removed");
    }
}

/// A newest step that lacks on all ranks what the step before has was broken off, or is of something else.
// proves P170
#[test]
fn a_newest_step_that_has_less_than_the_one_before_is_refused() {
    for without_strategy in [false, true] {
        let sample = sample();
        let ranks: &[u32] = if without_strategy {
            &[0]
        } else {
            &[0, 1, 2, 3]
        };
        for (position, step) in [("1_10", 10), ("1_20", 20), ("1_30", 30)] {
            save(&sample, ranks, position, step);
        }
        let kept = tensors::read(&sample.path(&file(0, "1_20"))).expect("readable");
        let mut names = kept.tensors.keys().filter(|name| *name != "step_num");
        let lost = names.next_back().expect("a tensor").clone();
        // Of two saves that were broken off one after the other.
        for (rank, position) in ranks
            .iter()
            .flat_map(|rank| [(rank, "1_20"), (rank, "1_30")])
        {
            let path = sample.path(&file(*rank, position));
            let mut shards = tensors::read(&path).expect("readable").tensors;
            shards.remove(&lost);
            tensors::write(&path, &shards);
        }
        let unify = match without_strategy {
            true => UNIFY.replace("--src-strategy @four.ckpt", "--verify none"),
            false => UNIFY.to_owned(),
        };
        let words = [
            "1_30, the newest step",
            &lost,
            "--file-suffix 1_10",
            "--file-suffix 1_30",
        ];
        refused(&sample, &unify, &words);
        let shown = alone(&sample.args("inspect @src"));
        assert!(
            shown.stderr.contains(words[0]) || shown.stdout.contains(words[0]),
            "{shown:?}"
        );
        if !without_strategy {
            refused(&sample, RESHARD, &words);
            let in_place = RESHARD.replace("--dst @out", "--in-place");
            refused(&sample, &in_place, &words);
            gives(&sample, &format!("{unify} --file-suffix 1_10"), 10);
            let leaves_out = format!("{unify} --filter-out-param-prefix {lost}");
            runs(&sample, &leaves_out, |run| {
                run.succeeds();
                std::fs::remove_dir_all(sample.path("out")).expect("removed");
            });
        }
        alone(&sample.args(&format!("{unify} --file-suffix 1_30 --unmatched drop"))).succeeds();
        std::fs::remove_dir_all(sample.path("out")).expect("removed");
    }
    // States alone are none of what weights were.
    let sample = sample();
    for rank in 0..4 {
        save(&sample, &[rank], "1_10", 10);
        let shards = tensors::read(&sample.path(&file(rank, "1_10"))).expect("readable");
        let states = shards.tensors.into_iter().flat_map(|(name, tensor)| {
            ["adam_m", "adam_v"].map(|state| (format!("{state}.{name}"), tensor.clone()))
        });
        tensors::write(&sample.path(&file(rank, "1_20")), &states.collect());
    }
    refused(&sample, UNIFY, &["1_20, the newest step", "1_10 has"]);
}

/// A rank's steps in a form that others may have, too, count beside those in a trainer's: none is passed over.
#[test]
fn steps_in_pytorchs_form_are_not_passed_over() {
    let torch = fixtures::data().join("worlds/pt_views/src/model.pt");
    for (own, other, both) in [
        ("net-1_10.safetensors", "net-1_20.pt", true),
        ("net.safetensors", "net.bin", true),
        ("net-1_10.safetensors", "optimizer.pt", false),
        ("net-1_10.safetensors", "rng_state_0.pth", false),
    ] {
        let sample = sample();
        save(&sample, &[0, 1, 2, 3], "1_10", 10);
        for rank in 0..4 {
            let saved = sample.path(&file(rank, "1_10"));
            let room = saved.parent().expect("a directory");
            std::fs::rename(&saved, room.join(own)).expect("renamed");
            std::fs::copy(&torch, room.join(other)).expect("copied");
        }
        let run = alone(&sample.args(UNIFY));
        match both {
            true => refuses(&run, other),
            false => drop(run.succeeds()),
        }
    }
}

/// One device's steps in one directory, its rank's or, where one is asked for, any, are chosen from as ranks' are.
// proves P171
#[test]
fn one_devices_steps_need_no_directory_of_its_rank() {
    let one = Strategy::of(&[("w", layout(&[1], &[0, -1]))]);
    let whole = Tensors::from([("w".to_owned(), Tensor::counting("F32", &[4, 4], 1))]);
    let sample = Sample::of(whole, one.clone(), one);
    std::fs::remove_dir_all(sample.path("src")).expect("removed");
    for step in [9, 10] {
        let shards = at_step(&sample.whole, step);
        for name in ["src/rank_0/net_rank_0", "flat/net"] {
            let path = sample.path(&format!("{name}-1_{step}.safetensors"));
            tensors::write(&path, &shards);
        }
    }
    for (place, strategy) in [
        ("@src", ""),
        ("@src/rank_0", "--src-strategy @four.ckpt"),
        ("@flat", ""),
    ] {
        let line = format!("unify --src {place} {strategy} --dst @out");
        match place {
            // They may be ranks: nothing says that they are steps.
            "@flat" => refused(&sample, &line, &["flat", "--weights net-1_10.safetensors"]),
            _ => gives(&sample, &line, 10),
        }
        gives(&sample, &format!("{line} --file-suffix 1_9"), 9);
        let run = alone(&sample.args(&format!("{line} --file-suffix 1_8")));
        refuses(&run, "1_10, 1_9");
    }
    let refused = |line: &str, words: &[&str]| {
        let run = alone(&sample.args(&format!("unify --dst @out {line}")));
        refuses(&run, words[0]);
        assert!(run.stderr.contains(words[1]), "{run:#?}");
        nothing_written(&sample);
    };

    // Of two series, of another rank, and of what may be ranks nobody knows which is meant.
    sample.copy("flat/net-1_9.safetensors", "flat/best-1_9.safetensors");
    refused("--src @flat --file-suffix 1_9", &["flat", "best"]);
    for (rank, names) in [(0, ["net-0_2", "net0-1_9"]), (1, ["net-1_2", "net1-1_9"])] {
        for (place, name) in ["of", "before"].iter().zip(names) {
            let path = sample.path(&format!("{place}/{name}.safetensors"));
            tensors::write(&path, &at_step(&sample.whole, rank));
        }
    }
    for (place, pattern) in [("of", "net-{rank}_2"), ("before", "net{rank}-1_9")] {
        for suffix in ["", "--file-suffix 1_2", "--file-suffix net1-1_9"] {
            let line = format!("--src @{place} {suffix}");
            refused(&line, &[place, &format!("{pattern}.safetensors'")]);
        }
    }
    let one = "--src @before/net0-1_9.safetensors";
    refused(one, &["before", "net{rank}-1_9.safetensors'"]);
    for step in [9, 10] {
        let name = format!("flat/net-1_{step}.safetensors");
        sample.copy(&name, &format!("three/net_rank_3-1_{step}.safetensors"));
    }
    refused("--src @three", &["three", "--weights"]);
}

/// The first pipeline stage's ranks and strategy alone: nothing tells of those that follow but what a model ends with.
// proves P169
#[test]
fn a_model_without_its_end_is_refused() {
    for [embedding, layer, norm] in [
        [
            "model.tok_embeddings.embedding_weight",
            "model.layers.0.attention.wq.weight",
            "model.norm_out.weight",
        ],
        [
            "embedding.word_embeddings.weight",
            "decoder.layers.0.mlp.linear_fc1.weight",
            "decoder.final_layernorm.weight",
        ],
    ] {
        let mut whole = Tensors::new();
        whole.insert(embedding.into(), Tensor::counting("F32", &[16, 8], 1));
        whole.insert(layer.into(), Tensor::counting("F32", &[16, 8], 2));
        let cuts = [embedding, layer].map(|name| (name, layout(&[2], &[0, -1])));
        let cut = Strategy::of(&cuts);
        let sample = Sample::of(whole.clone(), cut.clone(), cut.clone());
        let lines = [
            "unify --src @src --src-strategy @four.ckpt --dst @out",
            "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt",
        ];
        for line in lines {
            refused(&sample, line, &[norm, "pipeline stages"]);
            for more in [
                "--unmatched drop".to_owned(),
                format!("--filter-out-param-prefix {norm}"),
            ] {
                alone(&sample.args(&format!("{line} {more} --overwrite"))).succeeds();
            }
            std::fs::remove_dir_all(sample.path("out")).expect("removed");
        }
        // The same in one file under another name; some models call otherwise what stands behind their layers.
        let room = sample.path("one");
        tensors::write(&room.join("net0.safetensors"), &whole);
        let line = sample.args("unify --src @one --dst @out");
        refuses(&alone(&line), norm);
        let other = norm.replace("norm", "normalisation");
        let end = (other, Tensor::counting("F32", &[8], 3));
        tensors::write(
            &room.join("net0.safetensors"),
            &whole.clone().into_iter().chain([end]).collect(),
        );
        alone(&line).succeeds();
        std::fs::remove_dir_all(sample.path("out")).expect("removed");
        whole.insert(norm.into(), Tensor::counting("F32", &[8], 3));
        let cuts: Vec<_> = [(norm, layout(&[2], &[-1]))]
            .into_iter()
            .chain(cuts)
            .collect();
        let cut = Strategy::of(&cuts);
        let sample = Sample::of(whole.clone(), cut.clone(), cut);
        for line in lines {
            alone(&sample.args(&format!("{line} --overwrite"))).succeeds();
        }
        // Of the stage between nothing is there.
        let third = layer.replace(".0.", ".2.");
        whole.insert(third.clone(), Tensor::counting("F32", &[16, 8], 4));
        let more = [(third.as_str(), layout(&[2], &[0, -1]))];
        let cut = Strategy::of(&cuts.into_iter().chain(more).collect::<Vec<_>>());
        let sample = Sample::of(whole, cut.clone(), cut);
        for line in lines {
            refused(&sample, line, &["no layer 1", "pipeline stages"]);
            let filtered = third.replace(".2.", ".1.");
            let filtered = filtered.split(".1.").next().expect("a name");
            let line = format!("{line} --filter-out-param-prefix {filtered}.1.");
            alone(&sample.args(&line)).succeeds();
            std::fs::remove_dir_all(sample.path("out")).expect("removed");
        }
        // A last stage's file under another name.
        tensors::write(&sample.path("copied/net0.safetensors"), &sample.whole);
        let line = "unify --src @copied --dst @out";
        refused(&sample, line, &["no layer 1", "pipeline stages"]);
        for more in ["--unmatched drop", "--weights net0.safetensors"] {
            alone(&sample.args(&format!("{line} {more} --overwrite"))).succeeds();
        }
    }
}

/// Of two sides the suffix is that one's which has steps; where none has any it is refused, as with a pattern.
#[test]
fn a_suffix_is_of_the_side_that_has_steps() {
    let sample = sample();
    save(&sample, &[0, 1, 2, 3], "1_20", 20);
    save(&sample, &[0, 1, 2, 3], "1_10", 10);
    alone(&sample.args("unify --src @src --src-strategy @four.ckpt --dst @ten --file-suffix 1_10"))
        .succeeds();
    for line in [
        "diff @src @ten --a-strategy @four.ckpt --file-suffix 1_10",
        "diff @ten @src --b-strategy @four.ckpt --file-suffix 1_10",
    ] {
        runs(&sample, line, |run| {
            run.succeeds();
        });
    }
    let newest = "diff @ten @src --b-strategy @four.ckpt --file-suffix latest";
    let run = alone(&sample.args(newest));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let pattern = "unify --src @src/rank_{rank}/net_rank_{rank}-1_20.safetensors --src-strategy @four.ckpt --dst @out";
    for (line, what) in [
        ("diff @ten @ten --file-suffix 1_10", "has no number"),
        (&format!("{pattern} --file-suffix 1_10"), "a pattern"),
    ] {
        runs(&sample, line, |run| {
            assert_eq!(run.status.code(), Some(2), "{run:#?}");
            assert!(run.stderr.contains("--file-suffix 1_10") && run.stderr.contains(what));
            nothing_written(&sample);
        });
    }
}

/// A file of hyper-parameters beside one file of weights: of another save, if it has their tensors or another step.
#[test]
fn hyper_parameters_of_another_save_are_refused() {
    let count = |step: u8| Tensor {
        dtype: "I32".into(),
        shape: vec![],
        data: vec![step, 0, 0, 0],
    };
    for (name, tensor, word) in [
        (
            "w1",
            Tensor::counting("F32", &[16, 8], 9),
            "has this tensor too",
        ),
        ("step_num", count(9), "step_num is 9 and 7"),
        ("step_num", count(7), ""),
    ] {
        let sample = Sample::in_memory();
        let mut whole = sample.whole.clone();
        whole.insert("step_num".into(), count(7));
        tensors::write(&sample.path("full/model.safetensors"), &whole);
        let hyper = Tensors::from_iter([(name.to_owned(), tensor)]);
        tensors::write(&sample.path("full/hyper_param.safetensors"), &hyper);
        for line in [
            "unify --src @full --dst @out",
            "split --src @full --dst @out --dst-strategy @four.ckpt",
            "unify --src @full --weights model.safetensors --dst @out",
        ] {
            match word {
                "" => {
                    alone(&sample.args(line)).succeeds();
                    std::fs::remove_dir_all(sample.path("out")).expect("removed");
                }
                word => refused(&sample, line, &[word]),
            }
        }
    }
}
