//! A part is never taken for the whole, and one rank's bytes never for another's.

use crate::support::{command, fixtures, oracle, sample, tensors};
use command::{alone, nothing_written, object, refuses, under_mpi};
use oracle::{Strategy, to_protobuf};
use sample::{Sample, layout};
use tensors::{Tensor, Tensors};

/// The line is refused by one process and by four, with all of `words`, and nothing is written.
#[track_caller]
fn refused(sample: &Sample, line: &str, words: &[&str]) {
    let args = sample.args(line);
    for run in [alone(&args), under_mpi(4, &args)] {
        refuses(&run, words[0]);
        for word in words {
            assert!(run.stderr.contains(word), "{line}: {word}: {run:#?}");
        }
        nothing_written(sample);
    }
}

/// The line succeeds, and `@out` is taken away again.
#[track_caller]
fn taken(sample: &Sample, line: &str) -> Tensors {
    alone(&sample.args(line)).succeeds();
    let read = sample.weights_in("out");
    std::fs::remove_dir_all(sample.path("out")).expect("removed");
    read
}

#[test]
fn one_of_several_is_no_full_weights() {
    let sample = Sample::in_memory();
    sample.copy("src/rank_1/net.safetensors", "only/rank_1/net.safetensors");
    for line in [
        "unify --src @full --dst @multi --max-shard-size 300",
        "reshard --src @src --src-strategy @four.ckpt --dst @second --dst-strategy @four.ckpt --format checkpoint2",
        "reshard --src @src --src-strategy @four.ckpt --dst @hf --dst-strategy @four.ckpt --format dcp-hf",
    ] {
        alone(&sample.args(line)).succeeds();
    }
    for result in ["second", "hf"] {
        let manifest = sample.path(result).join("shardloom.json");
        std::fs::remove_file(manifest).expect("removed");
    }
    let second = fixtures::listing(&sample.path("second")).into_iter();
    let second = second.map(|file| file.display().to_string());
    let second = second.filter(|file| file.ends_with("-0000004.safetensors"));
    let iteration = second.max().expect("a part");
    for (src, words) in [
        ("src/rank_1", ["is rank 1's", "rank 0 beside it"]),
        (
            "src/rank_0/net.safetensors",
            ["is rank 0's", "rank 1 beside it"],
        ),
        ("only", ["only rank 1 is here", "--src-strategy"]),
        (
            "multi/model-00001-of-00003.safetensors",
            ["one of 3 files", "--weights"],
        ),
        (
            &format!("second/{iteration}"),
            ["a part of a checkpoint 2.0", "directory"],
        ),
        (
            "hf/shard-00002-model-00001-of-00001.safetensors",
            ["is a part of", "directory"],
        ),
    ] {
        refused(&sample, &format!("unify --src @{src} --dst @out"), &words);
        let line = format!("split --src @{src} --dst @out --dst-strategy @two.ckpt");
        refuses(&alone(&sample.args(&line)), words[0]);
        nothing_written(&sample);
    }
    let mixed = "convert @src --to ckpt --dst @mixed";
    alone(&sample.args(mixed)).succeeds();
    std::fs::remove_dir_all(sample.path("mixed/rank_0")).expect("removed");
    sample.copy("src/rank_0/net.safetensors", "mixed/rank_0/net.safetensors");
    refused(
        &sample,
        "unify --src @mixed/rank_0 --dst @out",
        &["is rank 0's", "rank 1 beside it", "net.ckpt"],
    );
    // Who asks for it gets it; what each rank has alike is whole.
    taken(&sample, "unify --src @src/rank_1 --dst @out --verify none");
    let some = taken(
        &sample,
        "unify --src @multi --weights model-00001-of-00003.safetensors --dst @out",
    );
    assert!(!some.is_empty() && some.len() < sample.whole.len());
    for rank in 0..2 {
        let copy = format!("replicas/rank_{rank}/m_rank_{rank}-1_1.safetensors");
        sample.copy("full/model.safetensors", &copy);
    }
    assert_eq!(
        taken(&sample, "unify --src @replicas/rank_1 --dst @out"),
        sample.whole
    );
    assert_eq!(
        taken(&sample, "unify --src @multi --dst @out"),
        sample.whole
    );
}

/// One rank's file by itself, without the others' to compare it with.
#[test]
fn one_rank_alone_is_no_full_weights() {
    let sample = Sample::in_memory();
    let whole = "full/model.safetensors";
    for copy in [
        "only/rank_1/net.safetensors",
        "moved/net_rank_3-1_10.safetensors",
        "first/rank_0/net_rank_0-1_10.safetensors",
        "lora/lora_rank_16.safetensors",
    ] {
        sample.copy(whole, copy);
    }
    let nothing = "nothing here shows that it has all of the weights";
    for (src, rank) in [
        ("only/rank_1", "is rank 1's"),
        ("only/rank_1/net.safetensors", "is rank 1's"),
        ("moved", "is rank 3's"),
    ] {
        let line = format!("unify --src @{src} --dst @out");
        refused(&sample, &line, &[rank, nothing]);
        let all = taken(&sample, &format!("{line} --verify none"));
        assert_eq!(all, sample.whole);
        let line = format!("split --src @{src} --dst @out --dst-strategy @two.ckpt");
        refused(&sample, &line, &[rank, nothing]);
    }
    // Ranks' files in one directory, and a link to one of several.
    for [one, other] in [
        ["rank0", "rank1"],
        ["mp_rank_00", "mp_rank_01"],
        ["llama3-model-rank-0", "llama3-model-rank-1"],
        ["consolidated.00", "consolidated.01"],
    ] {
        for (name, rank) in [(one, 0), (other, 1)] {
            let to = format!("flat/{one}/{name}.safetensors");
            sample.copy(&format!("src/rank_{rank}/net.safetensors"), &to);
        }
        for (name, said) in [(one, "is rank 0's"), (other, "is rank 1's")] {
            let line = format!("unify --src @flat/{one}/{name}.safetensors --dst @out");
            refused(&sample, &line, &[said, "no full weights"]);
        }
    }
    std::fs::create_dir_all(sample.path("linked")).expect("made");
    let target = sample.path("src/rank_0/net.safetensors");
    std::os::unix::fs::symlink(target, sample.path("linked/model.safetensors")).expect("a link");
    for src in ["linked", "linked/model.safetensors"] {
        let line = format!("unify --src @{src} --dst @out");
        refused(&sample, &line, &["is rank 0's", "no full weights"]);
    }
    sample.copy("src/rank_0/net.safetensors", "lora/lora_rank_8.safetensors");
    for src in ["first/rank_0", "lora/lora_rank_16.safetensors"] {
        let line = format!("unify --src @{src} --dst @out");
        assert_eq!(taken(&sample, &line), sample.whole);
    }
    // The first stage of a pipeline by itself, as its layers show.
    let stage = Tensors::from([
        (
            "model.embed_tokens.weight".to_owned(),
            Tensor::counting("F32", &[8, 2], 0),
        ),
        (
            "model.layers.0.mlp.weight".to_owned(),
            Tensor::counting("F32", &[2, 2], 16),
        ),
    ]);
    let file = sample.path("stage/net_rank_0-1_10.safetensors");
    std::fs::create_dir_all(sample.path("stage")).expect("made");
    tensors::write(&file, &stage);
    let line = "unify --src @stage --dst @out";
    refused(&sample, line, &["nothing behind the last layer"]);
    assert_eq!(taken(&sample, &format!("{line} --unmatched drop")), stage);
}

#[test]
fn different_parts_are_not_the_same_bytes() {
    let sample = Sample::in_memory();
    // As many ranks, and each tensor cut once more than these files are.
    let finer = Strategy::of(&[
        ("b", layout(&[4], &[-1])),
        ("w1", layout(&[4], &[0, -1])),
        ("w2", layout(&[4], &[0, -1])),
    ]);
    tensors::write_bytes(&sample.path("finer.ckpt"), &to_protobuf(&finer));
    let halves = Strategy::of(&[
        ("b", layout(&[2, 2], &[-1])),
        ("w1", layout(&[2, 2], &[0, -1])),
        ("w2", layout(&[2, 2], &[0, -1])),
    ]);
    for rank in 0..4 {
        let shards = halves.cut(&sample.whole, rank).expect("it can be cut");
        tensors::write(
            &sample.path(&format!("halves/rank_{rank}/net.safetensors")),
            &shards,
        );
        let zeros = sample
            .four
            .cut(&sample.whole, rank)
            .expect("it can be cut")
            .into_iter();
        let zeros = zeros.map(|(name, tensor)| {
            let data = vec![0; tensor.data.len()];
            (name, Tensor { data, ..tensor })
        });
        let path = sample.path(&format!("zeros/rank_{rank}/net.safetensors"));
        tensors::write(&path, &zeros.collect());
    }
    // Copies of one are no parts; a pattern that repeats itself tells nothing.
    for rank in 0..4 {
        let copy = format!("copies/rank_{rank}/net.safetensors");
        sample.copy("full/model.safetensors", &copy);
        let pattern = |shape: &[usize]| {
            let bytes = 4 * shape.iter().product::<usize>();
            let data = (0..bytes).map(|at| (at % 256 * 7 + 1) as u8);
            Tensor {
                dtype: "F32".into(),
                shape: shape.to_vec(),
                data: data.collect(),
            }
        };
        let mut shards = Tensors::from([
            ("w1".to_owned(), pattern(&[64, 32])),
            ("w2".to_owned(), pattern(&[16, 64])),
        ]);
        if rank > 1 {
            shards = shards
                .into_iter()
                .map(|(name, mut tensor)| {
                    tensor.data.rotate_left(8);
                    (name, tensor)
                })
                .collect();
        }
        tensors::write(
            &sample.path(&format!("pattern/rank_{rank}/net.safetensors")),
            &shards,
        );
    }
    let pattern = "unify --src @pattern --src-strategy @four.ckpt --dst @out";
    taken(&sample, pattern);
    let copies = "unify --src @copies --src-strategy @four.ckpt --dst @out";
    refused(&sample, copies, &["the same bytes", "--verify none"]);
    let finer = "unify --src @halves --src-strategy @finer.ckpt --dst @out";
    refused(&sample, finer, &["the same bytes", "strategy"]);
    taken(
        &sample,
        "unify --src @zeros --src-strategy @four.ckpt --dst @out",
    );
    let line = "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt";
    taken(&sample, line);
    sample.copy("src/rank_2/net.safetensors", "src/rank_3/net.safetensors");
    for line in [
        line,
        "unify --src @src --src-strategy @four.ckpt --dst @out",
    ] {
        refused(
            &sample,
            line,
            &["ranks 2 and 3 have the same bytes", "--verify none"],
        );
        refused(
            &sample,
            &format!("{line} --verify all"),
            &["have the same bytes"],
        );
    }
    taken(&sample, &format!("{line} --verify none"));
}

#[test]
fn parts_with_ranks_of_another_stage_are_not_lost() {
    let sample = Sample::in_memory();
    let names =
        (0..4).flat_map(|layer| ["wq", "norm"].map(|name| format!("layers.{layer}.{name}")));
    let whole: Tensors = names
        .enumerate()
        .map(|(seed, name)| {
            let shape: &[usize] = if name.ends_with("wq") { &[8, 4] } else { &[16] };
            (name, Tensor::counting("F32", shape, seed * 64))
        })
        .collect();
    tensors::write(&sample.path("deep/model.safetensors"), &whole);
    let made = |line: &str| alone(&sample.args(line)).succeeds();
    for (name, mesh, rule) in [
        ("tp4", "tp=4", "--rule *wq=tp,-"),
        ("dp4", "dp=4", ""),
        ("pp2", "pp=2,tp=2", "--rule *wq=tp,-"),
        ("pp4", "pp=4", ""),
    ] {
        let line = "strategy new --weights @deep --mesh";
        made(&format!("{line} {mesh} {rule} --output @{name}.ckpt"));
    }
    for (name, also) in [("tp4", ""), ("dp4", "--remove-redundancy"), ("pp2", "")] {
        let line = format!("split --src @deep --dst @{name} --dst-strategy @{name}.ckpt {also}");
        made(&line);
        std::fs::remove_file(sample.path(name).join("shardloom.json")).expect("removed");
    }
    for (from, strategy) in [("tp4", "pp2"), ("dp4", "pp4"), ("pp2", "pp4")] {
        let source = format!("--src @{from} --src-strategy @{strategy}.ckpt");
        for line in [
            format!("unify {source} --dst @out"),
            format!("unify {source} --dst @out --verify none"),
            format!("reshard {source} --dst @out --dst-strategy @dp4.ckpt"),
            format!("reshard {source} --in-place --dst-strategy @dp4.ckpt"),
        ] {
            refused(&sample, &line, &["stage", "the strategy of the job"]);
        }
    }
    // All that is there is right.
    assert_eq!(
        taken(
            &sample,
            "unify --src @pp2 --src-strategy @pp2.ckpt --dst @out"
        ),
        whole
    );
}

#[test]
fn what_lies_beside_weights_is_none_after_its_rank_is_gone() {
    let sample = Sample::in_memory();
    for (number, name) in ["opt.bin", "rng_state.pth", "optimizer.pt"]
        .into_iter()
        .enumerate()
    {
        for rank in 0..4 {
            let from = format!("src/rank_{rank}/net.safetensors");
            sample.copy(&from, &format!("job{number}/rank_{rank}/net.safetensors"));
        }
        let beside = sample.path(&format!("job{number}/rank_3/{name}"));
        tensors::write_bytes(&beside, b"data");
        let line = format!(
            "reshard --in-place --src @job{number} --src-strategy @four.ckpt --dst-strategy @two.ckpt"
        );
        alone(&sample.args(&line)).succeeds();
        assert!(beside.exists(), "{name}");
        let line = format!("unify --src @job{number} --src-strategy @two.ckpt --dst @out");
        assert_eq!(taken(&sample, &line), sample.whole, "{name}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let sample = Sample::in_memory();
    let map = |file: &str| {
        let names = sample.whole.keys().map(|name| (name.clone(), file.into()));
        serde_json::Value::Object(names.collect())
    };
    let text = |name: &str, value: serde_json::Value| {
        tensors::write_bytes(&sample.path(name), value.to_string().as_bytes());
    };
    for file in ["a", "b"] {
        sample.copy(
            "full/model.safetensors",
            &format!("maps/{file}.safetensors"),
        );
    }
    text("maps/param_name_map.json", map("a.safetensors"));
    text(
        "maps/model.safetensors.index.json",
        serde_json::json!({ "weight_map": map("./b.safetensors") }),
    );
    let unify = "unify --src @maps --dst @out";
    refused(
        &sample,
        unify,
        &["param_name_map.json", "b.safetensors", "--weights"],
    );
    taken(&sample, &format!("{unify} --weights b*"));
    text(
        "maps/model.safetensors.index.json",
        serde_json::json!({ "weight_map": map("./a.safetensors") }),
    );
    assert_eq!(taken(&sample, unify), sample.whole);
    // Two saves, told apart by their names alone.
    for rank in 0..4 {
        let name = if rank < 2 { "before" } else { "after" };
        let from = format!("src/rank_{rank}/net.safetensors");
        sample.copy(&from, &format!("named/rank_{rank}/{name}.safetensors"));
    }
    let named = "unify --src @named --src-strategy @four.ckpt --dst @out";
    refused(
        &sample,
        named,
        &["before on ranks 0-1", "after on ranks 2-3"],
    );
    tensors::write_raw(&sample.path("empty/model.safetensors"), "{}", &[]);
    for line in ["unify --src @empty --dst @out", "diff @empty @full"] {
        refused(&sample, line, &["model.safetensors", "no tensors"]);
    }
}

#[test]
fn one_cards_checkpoint_keeps_its_counts() {
    let sample = Sample::in_memory();
    let count = |dtype: &str, shape: Vec<usize>| Tensor {
        dtype: dtype.into(),
        shape,
        data: vec![7, 0, 0, 0],
    };
    let mut one = sample.whole.clone();
    one.insert("step_num".into(), count("I32", vec![1]));
    one.insert("learning_rate".into(), count("F32", vec![]));
    tensors::write(&sample.path("one/rank_0/m_rank_0-1_7.safetensors"), &one);
    let line = "reshard --src @one --dst @two --dst-strategy @two.ckpt";
    alone(&sample.args(line)).succeeds();
    for file in fixtures::listing(&sample.path("two")) {
        if file.extension().is_some_and(|end| end == "safetensors") {
            let read = tensors::read(&sample.path("two").join(&file))
                .expect("readable")
                .tensors;
            assert_eq!(read.get("step_num"), one.get("step_num"), "{file:?}");
            assert_eq!(
                read.get("learning_rate"),
                one.get("learning_rate"),
                "{file:?}"
            );
        }
    }
    // A step that isn't that of the counts would be believed by one reader and not by another.
    let split = "split --src @one --dst @out --dst-strategy @two.ckpt --step";
    for processes in [1, 4] {
        let run = under_mpi(processes, &sample.args(&format!("{split} 8")));
        assert_eq!(run.status.code(), Some(2), "{run:#?}");
        assert!(run.stderr.contains("give --step 7"), "{run:#?}");
        nothing_written(&sample);
    }
    taken(&sample, &format!("{split} 7"));
    // Nor can an epoch be another, or have had fewer steps than are said of it.
    let refused_as = |step: &str, named: &[&str]| {
        let run = alone(&sample.args(&format!("{split} {step}"))).fails();
        assert_eq!(run.status.code(), Some(2), "{run:#?}");
        assert!(
            named.iter().all(|named| run.stderr.contains(named)),
            "{run:#?}"
        );
    };
    refused_as("2_4", &["step_num in it is 7", "8 or more", "--step 7"]);
    taken(&sample, &format!("{split} 2_3"));
    one.insert("epoch_num".into(), count("I32", vec![1]));
    tensors::write(&sample.path("one/rank_0/m_rank_0-1_7.safetensors"), &one);
    refused_as("2_3", &["epoch_num in it is 7", "--step 7_3"]);
    taken(&sample, &format!("{split} 7_1"));
    one.remove("epoch_num");
    // Another tensor that the strategy doesn't know is still asked for.
    one.insert("w9".into(), count("F32", vec![1]));
    tensors::write(&sample.path("one/rank_0/m_rank_0-1_7.safetensors"), &one);
    let line = "reshard --src @one --dst @out --dst-strategy @two.ckpt";
    refused(&sample, line, &["w9", "--unmatched"]);
}

#[test]
fn what_a_manifest_lists_is_converted_or_named() {
    let sample = Sample::in_memory();
    let line = "split --src @full --dst @ranks --dst-strategy @four.ckpt";
    alone(&sample.args(line)).succeeds();
    std::fs::remove_dir_all(sample.path("ranks/rank_2")).expect("removed");
    let convert = "convert @ranks --to ckpt --dst @out";
    let words = ["rank_2/", "which isn't there", "--file-name-contains"];
    refused(&sample, convert, &words);
    alone(&sample.args(&format!("{convert} --file-name-contains net"))).succeeds();
    std::fs::remove_dir_all(sample.path("out")).expect("removed");
    std::fs::remove_file(sample.path("ranks/shardloom.json")).expect("removed");
    std::fs::create_dir_all(sample.path("ranks/rank_2/net.safetensors")).expect("made");
    refused(
        &sample,
        convert,
        &["rank_2/net.safetensors", "is a directory"],
    );
}

#[test]
fn rank_directories_between_others_are_asked_for() {
    let sample = Sample::in_memory();
    std::fs::remove_dir_all(sample.path("src/rank_2")).expect("removed");
    let convert = "convert @src --to ckpt --dst @out";
    let place = sample.path("src").display().to_string();
    let message = "lacks rank directories between others: 2";
    refused(&sample, convert, &[message, &place]);
    alone(&sample.args(&format!("{convert} --file-name-contains net"))).succeeds();
    std::fs::remove_dir_all(sample.path("out")).expect("removed");
    // Those of one node are whole by themselves.
    std::fs::remove_dir_all(sample.path("src/rank_0")).expect("removed");
    std::fs::remove_dir_all(sample.path("src/rank_1")).expect("removed");
    alone(&sample.args(convert)).succeeds();
}

#[test]
fn shapes_are_those_of_all_not_of_a_part() {
    let sample = Sample::in_memory();
    let line = "unify --src @full --dst @multi --max-shard-size 300";
    alone(&sample.args(line)).succeeds();
    let part = "@multi/model-00001-of-00003.safetensors";
    let made = "--output @out.json";
    for line in [
        format!("strategy new --mesh dp=2 --weights {part} {made}"),
        format!("simulate --dst-strategy @two.ckpt --shapes {part}"),
        format!("bench exchange --dst-strategy @two.ckpt --shapes {part}"),
    ] {
        let run = alone(&sample.args(&line));
        refuses(&run, "is one of 3 files");
        assert!(!sample.path("out.json").exists(), "{line}");
    }
    std::fs::remove_dir_all(sample.path("src/rank_3")).expect("removed");
    let line = format!("strategy new --mesh dp=2 --weights @src --strategy @four.ckpt {made}");
    let run = alone(&sample.args(&line));
    refuses(&run, "rank 3 of 4 is missing");
    assert!(!sample.path("out.json").exists());
}

#[test]
fn what_is_converted_has_its_index() {
    let sample = Sample::in_memory();
    for line in [
        "unify --src @full --dst @multi --max-shard-size 300",
        "convert @multi --to ckpt --dst @ckpt",
        "convert @ckpt --to safetensors --dst @back",
    ] {
        alone(&sample.args(line)).succeeds();
    }
    for other in ["ckpt", "back"] {
        alone(&sample.args(&format!("diff @{other} @full"))).succeeds();
        assert!(sample.path(other).join("param_name_map.json").exists());
    }
    let first = sample.path("multi/model-00001-of-00003.safetensors");
    std::fs::remove_file(sample.path("multi/shardloom.json")).expect("removed");
    std::fs::remove_file(first).expect("removed");
    // What the index lists and isn't there would be lost.
    refused(
        &sample,
        "convert @multi --to ckpt --dst @out",
        &["model-00001-of-00003.safetensors", "which isn't there"],
    );
    for index in ["param_name_map.json", "model.safetensors.index.json"] {
        std::fs::remove_file(sample.path("multi").join(index)).expect("removed");
    }
    sample.copy(
        "ckpt/model-00001-of-00003.ckpt",
        "multi/model-00001-of-00003.ckpt",
    );
    let line = "convert @multi --to safetensors --dst @out --json";
    let told = object(&alone(&sample.args(line)).succeeds());
    assert!(
        told["notes"]
            .to_string()
            .contains("2 files that are safetensors already"),
        "{told}"
    );
}

/// What MindSpore's merge writes is numbered from 0: a gap is a file that isn't there.
#[test]
fn a_gap_among_the_parts_of_a_merge_is_told() {
    let sample = Sample::in_memory();
    let room = sample.path("parts");
    for n in 0..12u8 {
        let tensor = Tensor {
            dtype: "U8".into(),
            shape: vec![1],
            data: vec![n],
        };
        let tensors = Tensors::from([(format!("w{n}"), tensor)]);
        tensors::write(&room.join(format!("part{n}.safetensors")), &tensors);
    }
    let all = "unify --src @parts --weights part* --dst @out";
    taken(&sample, all);
    taken(&sample, &all.replace("part*", "part3.safetensors"));
    let some = all.replace("part*", "part1*");
    refused(
        &sample,
        &some,
        &["is one of 12 files, of which 3 are taken"],
    );
    std::fs::remove_file(room.join("part1.safetensors")).expect("removed");
    std::fs::remove_file(room.join("part0.safetensors")).expect("removed");
    let lacks = "is one of 12 files, of which 10 are there";
    for line in [
        all,
        "unify --src @parts --dst @out",
        "convert @parts --to ckpt --dst @out",
    ] {
        refused(&sample, line, &[lacks]);
    }
}

/// Directories of ranks that are called otherwise are no models, and neither is one of them.
#[test]
fn ranks_by_other_names_are_ranks() {
    for called in ["Rank_{}", "{}", "tp_rank_{}", "rank_{}_of_4", "card{}"] {
        let sample = Sample::new();
        for rank in 0..sample.four.ranks() {
            let from = sample.path(&format!("src/rank_{rank}"));
            let to = sample.path(&format!("src/{}", called.replace("{}", &rank.to_string())));
            std::fs::rename(
                from.join("net.safetensors"),
                from.join(format!("net_rank_{rank}.safetensors")),
            )
            .expect("renamed");
            std::fs::rename(from, to).expect("renamed");
        }
        refused(
            &sample,
            "unify --src @src --dst @out",
            &["which look like ranks", "rank_0, rank_1"],
        );
        // By the names of files, or by its own.
        for bare in [false, called.contains("rank") || called.contains("card")] {
            for rank in (0..sample.four.ranks()).filter(|_| bare) {
                let room = sample.path(&format!("src/{}", called.replace("{}", &rank.to_string())));
                std::fs::rename(
                    room.join(format!("net_rank_{rank}.safetensors")),
                    room.join("net.safetensors"),
                )
                .expect("renamed");
            }
            let one = format!("unify --src @src/{} --dst @out", called.replace("{}", "0"));
            refused(&sample, &one, &["is rank 0's", "no full weights"]);
        }
        let one = format!("unify --src @src/{} --dst @out", called.replace("{}", "0"));
        refused(&sample, &one, &["is rank 0's", "no full weights"]);
    }
    let sample = Sample::new();
    for step in [10, 20] {
        let room = sample.path(&format!("run/checkpoint-{step}"));
        std::fs::create_dir_all(&room).expect("made");
        std::fs::copy(
            sample.path("full/model.safetensors"),
            room.join("model.safetensors"),
        )
        .expect("copied");
    }
    let told = ["checkpoint-10, checkpoint-20 in it have"];
    refused(&sample, "unify --src @run --dst @out", &told);
}
