//! Checkpoint 2.0 as source and destination of every job.

use crate::support::{command, fixtures, oracle, sample, tensors};
use command::{alone, object, refuses, under_mpi};
use oracle::Strategy;
use sample::{Sample, layout};
use serde_json::{Value, json};
use tensors::{Tensor, Tensors};

/// Weights with an optimizer's state and where the job stands, on four ranks; some with an optimizer shard.
fn sample() -> Sample {
    let whole = Tensors::from([
        ("b".to_owned(), Tensor::counting("F32", &[16], 3)),
        ("w1".to_owned(), Tensor::counting("BF16", &[8, 16], 50)),
        (
            "adam_m.w1".to_owned(),
            Tensor::counting("F32", &[8, 16], 70),
        ),
        ("w2".to_owned(), Tensor::counting("F32", &[16, 8], 90)),
    ]);
    let mut sharded = layout(&[2, 2], &[0, -1]);
    (sharded.optimizer_step, sharded.optimizer_size) = (2, -1);
    let four = Strategy::of(&[
        ("b", layout(&[2, 2], &[-1])),
        ("w1", layout(&[2, 2], &[1, 0])),
        ("adam_m.w1", layout(&[2, 2], &[1, 0])),
        ("w2", sharded),
    ]);
    let two = Strategy::of(&[
        ("b", layout(&[2], &[0])),
        ("w1", layout(&[2], &[0, -1])),
        ("adam_m.w1", layout(&[2], &[0, -1])),
        ("w2", layout(&[2], &[-1, 0])),
    ]);
    let sample = Sample::of(whole, four, two);
    for rank in 0..4 {
        let path = sample.path(&format!("src/rank_{rank}/net.safetensors"));
        let mut tensors = tensors::read(&path).expect("readable").tensors;
        for (name, value) in [("step_num", 40i32), ("epoch_num", 2)] {
            let data = value.to_le_bytes().to_vec();
            tensors.insert(
                name.into(),
                Tensor {
                    dtype: "I32".into(),
                    shape: vec![],
                    data,
                },
            );
        }
        tensors::write(&path, &tensors);
    }
    sample
}

const WRITE: &str = "reshard --src @src --src-strategy @four.ckpt --dst @second --dst-strategy @four.ckpt --format checkpoint2";
const READ: &str = "reshard --src @second --dst @out --dst-strategy @two.ckpt";

fn metadata(sample: &Sample) -> Value {
    let path = sample.path("second/iteration_00000040/metadata.json");
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

// proves P123
#[test]
fn is_written_as_the_trainer_would() {
    for processes in [1, 4] {
        let sample = sample();
        under_mpi(processes, &sample.args(WRITE)).succeeds();
        let read = |name: &str| std::fs::read_to_string(sample.path(name)).expect("a file");
        assert_eq!(read("second/latest_checkpointed_iteration.txt"), "40");
        let common: Value =
            serde_json::from_str(&read("second/iteration_00000040/common.json")).expect("JSON");
        assert_eq!(
            (
                &common["step_num"],
                &common["epoch_num"],
                &common["loss_scale"]
            ),
            (&json!(40), &json!(2), &Value::Null)
        );
        let metadata = metadata(&sample);
        let w2 = &metadata["state_dict_metadata"]["w2"];
        assert_eq!(
            (&w2["global_shape"], &w2["axis_fragmentations"]),
            (&json!([16, 8]), &json!([4, 1]))
        );
        assert_eq!(
            w2["layout"]["tensor_map"],
            json!([[0, 1], -1]),
            "the optimizer shard is folded in"
        );
        let stored = &metadata["storage_data"]["('w1', (3,))"];
        assert_eq!(stored[0]["file_name"], "model-0000003-0000004.safetensors");
        let opt = sample.path("second/iteration_00000040/opt-0000001-0000004.safetensors");
        let opt = tensors::read(&opt).expect("a file").tensors;
        assert_eq!(opt.keys().collect::<Vec<_>>(), ["adam_m.w1"]);
    }
}

/// Beside the counts, `directory` has exactly what the strategy for two ranks makes of the whole.
fn check_beside_counts(sample: &Sample, directory: &str) {
    for rank in 0..sample.two.ranks() {
        let file = std::fs::read_dir(sample.path(&format!("{directory}/rank_{rank}")))
            .expect("a directory");
        let file = file.last().expect("a file").expect("an entry").path();
        let mut found = tensors::read(&file).expect("a file").tensors;
        assert!(found.remove("step_num").is_some() && found.remove("epoch_num").is_some());
        let expected = sample.two.cut(&sample.whole, rank).expect("it can be cut");
        let compared = tensors::compare(&expected, &found);
        compared.unwrap_or_else(|error| unreachable!("rank {rank}: {error}"));
    }
}

#[test]
fn is_read_without_a_strategy() {
    for (processes, extra) in [
        (None, ""),
        (Some(4), ""),
        (Some(3), " --remove-redundancy --prefix m"),
    ] {
        let sample = sample();
        alone(&sample.args(&format!("{WRITE}{extra}"))).succeeds();
        let args = sample.args(READ);
        let run = processes.map_or_else(|| alone(&args), |n| under_mpi(n, &args));
        run.succeeds();
        check_beside_counts(&sample, "out");
        alone(&sample.args("diff @second @out --b-strategy @two.ckpt")).succeeds();
        alone(&sample.args("unify --src @second --dst @whole")).succeeds();
        alone(&sample.args("diff @second @whole")).succeeds();
        let shown = object(&alone(&sample.args("inspect @second --json")).succeeds());
        assert_eq!(shown["ranks"], 4);
        alone(
            &sample.args(
                "split --src @whole --dst @again --dst-strategy @two.ckpt --format checkpoint2",
            ),
        )
        .succeeds();
        alone(&sample.args("diff @again @second")).succeeds();
    }
}

/// Without `common.json` nobody knows where the job stands, so neither do its results.
#[test]
fn where_it_stands_is_not_made_up() {
    for (processes, line) in [
        (1, READ),
        (4, READ),
        (2, "unify --src @second --dst @out"),
        (1, "diff @second @src --b-strategy @four.ckpt"),
        (1, "checkpoints latest @second"),
    ] {
        for with_manifest in [true, false] {
            let sample = sample();
            alone(&sample.args(WRITE)).succeeds();
            let remove = |name: &str| std::fs::remove_file(sample.path(name)).expect("removed");
            remove("second/iteration_00000040/common.json");
            if !with_manifest {
                remove("second/shardloom.json");
            }
            refuses(&under_mpi(processes, &sample.args(line)), "common.json");
            assert!(!sample.path("out").exists(), "{line}");
            let shown = alone(&sample.args("inspect @second")).succeeds();
            assert!(shown.stdout.contains("common.json is missing"), "{shown:?}");
        }
    }
}

/// `common.json` says where the job stands; in rank directories, every rank's file does.
#[test]
fn counts_come_along_to_rank_directories() {
    for (processes, more) in [(1, ""), (3, ""), (2, " --format ckpt")] {
        let sample = sample();
        alone(&sample.args(WRITE)).succeeds();
        let path = sample.path("second/iteration_00000040/common.json");
        let mut common: Value =
            serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
        common["loss_scale"] = json!(1024.5);
        common["global_step"] = json!(38);
        std::fs::write(&path, common.to_string()).expect("written");
        under_mpi(processes, &sample.args(&format!("{READ}{more}"))).succeeds();
        alone(&sample.args("verify @out")).succeeds();
        if more.is_empty() {
            for rank in 0..2 {
                let file = sample.path(&format!("out/rank_{rank}/net{rank}.safetensors"));
                let found = tensors::read(&file).expect("a file").tensors;
                let tensor = |name: &str| {
                    let tensor = &found[name];
                    (&*tensor.dtype, &tensor.shape[..], &tensor.data[..])
                };
                assert_eq!(
                    tensor("step_num"),
                    ("I64", &[][..], &[40, 0, 0, 0, 0, 0, 0, 0][..])
                );
                assert_eq!(
                    tensor("epoch_num"),
                    ("I64", &[][..], &[2, 0, 0, 0, 0, 0, 0, 0][..])
                );
                assert_eq!(tensor("global_step"), ("I32", &[1][..], &[38, 0, 0, 0][..]));
                let scale = 1024.5f32.to_le_bytes();
                assert_eq!(tensor("loss_scale"), ("F32", &[][..], &scale[..]));
                assert!(!found.contains_key("global_batch_size"), "nobody knows it");
            }
        }
        // Another step has the same scale of the loss.
        let line = "unify --src @second --dst @complete";
        alone(&sample.args(line)).succeeds();
        let line = "split --src @complete --dst @stepped --dst-strategy @two.ckpt --step 50 --format checkpoint2";
        let run = under_mpi(processes, &sample.args(line)).succeeds();
        let note = "step_num 40 of the source is written as 50";
        assert!(run.stdout.contains(note), "{run:#?}");
        let path = sample.path("stepped/iteration_00000050/common.json");
        let stepped: Value =
            serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
        assert_eq!(
            (&stepped["step_num"], &stepped["loss_scale"]),
            (&json!(50), &json!(1024.5))
        );
        // And back: the counts are what they were.
        let back = "reshard --src @out --src-strategy @two.ckpt --dst @back --dst-strategy @four.ckpt --format checkpoint2";
        alone(&sample.args(back)).succeeds();
        let again = sample.path("back/iteration_00000040/common.json");
        let again: Value =
            serde_json::from_slice(&std::fs::read(again).expect("a file")).expect("JSON");
        assert_eq!(again, common);
        under_mpi(processes, &sample.args("unify --src @second --dst @whole")).succeeds();
        alone(&sample.args("verify @whole")).succeeds();
        let hyper = sample.path("whole/hyper_param.safetensors");
        let hyper = tensors::read(&hyper).expect("a file").tensors;
        assert_eq!(hyper["step_num"].data, 40i64.to_le_bytes());
    }
}

/// Files may have tensors that `metadata.json` doesn't give them, as those of other stages' layers that a network keeps
/// on all ranks: the trainer never reads these.
#[test]
fn what_the_metadata_does_not_give_a_file_is_left_aside() {
    for processes in [None, Some(3)] {
        let sample = sample();
        alone(&sample.args(WRITE)).succeeds();
        let place = sample.path("second/iteration_00000040");
        let mut told = metadata(&sample);
        let stored = told["storage_data"]["('b', (0,))"]
            .as_array_mut()
            .expect("a list");
        stored.retain(|entry| entry["storage_rank"] != 3);
        tensors::write_bytes(&place.join("metadata.json"), told.to_string().as_bytes());
        let file = place.join("model-0000003-0000004.safetensors");
        let mut all = tensors::read(&file).expect("readable").tensors;
        all.get_mut("b").expect("a tensor").data.fill(7);
        tensors::write(&file, &all);
        let args = sample.args(&format!("{READ} --verify all"));
        let run = processes.map_or_else(|| alone(&args), |n| under_mpi(n, &args));
        let run = run.succeeds();
        let note = "b lies in files of rank 3, too, where it doesn't count by metadata.json";
        assert!(run.stdout.contains(note), "{run:#?}");
        check_beside_counts(&sample, "out");
    }
}

/// One layout is told of a tensor: one that stages cut otherwise can't be written.
#[test]
fn a_tensor_that_stages_cut_otherwise_is_refused() {
    let sample = sample();
    for (second, refused) in [(layout(&[2], &[0]), true), (layout(&[2], &[-1]), false)] {
        let staged = Strategy {
            items: vec![
                (0, "0-b".to_owned(), layout(&[2], &[-1])),
                (1, "1-b".to_owned(), second),
            ],
        };
        tensors::write_bytes(&sample.path("staged.ckpt"), &oracle::to_protobuf(&staged));
        let b = Tensors::from([("b".to_owned(), sample.whole["b"].clone())]);
        tensors::write(&sample.path("b/model.safetensors"), &b);
        let line = "split --src @b --dst @staged --dst-strategy @staged.ckpt --format checkpoint2";
        for processes in [1, 3] {
            let run = command::on(processes, &sample.args(&format!("{line} --overwrite")));
            assert_eq!(run.status.success(), !refused, "{run:#?}");
            if refused {
                assert!(
                    run.stderr.contains("otherwise in another stage"),
                    "{run:#?}"
                );
                assert!(!sample.path("staged").exists());
            }
        }
    }
}

#[test]
fn removes_redundancy_by_bytes() {
    let sample = sample();
    alone(&sample.args(&format!("{WRITE} --remove-redundancy"))).succeeds();
    let metadata = metadata(&sample);
    let storage = metadata["storage_data"].as_object().expect("a map");
    assert!(
        storage
            .values()
            .all(|entries| entries.as_array().is_some_and(|e| e.len() == 1))
    );
    let group = &storage["('b', (0,))"][0]["rank_group"];
    assert_eq!(group, &json!([0, 1, 2, 3]));
    // Its digests are of the copies that were kept, whoever keeps them.
    let line = "unify --src @second --dst @whole --verify all";
    alone(&sample.args(line)).succeeds();
}

// proves P122
#[test]
fn a_strategy_that_disagrees_and_a_file_that_is_gone_are_refused() {
    let sample = sample();
    alone(&sample.args(WRITE)).succeeds();
    alone(&sample.args(&format!("{READ} --src-strategy @four.ckpt --dry-run"))).succeeds();
    refuses(
        &alone(&sample.args(&format!("{READ} --src-strategy @two.ckpt"))),
        "metadata.json",
    );
    let lost = sample.path("second/iteration_00000040/model-0000002-0000004.safetensors");
    std::fs::remove_file(lost).expect("removed");
    refuses(
        &under_mpi(2, &sample.args(READ)),
        "model-0000002-0000004.safetensors",
    );
    std::fs::remove_file(sample.path("second/latest_checkpointed_iteration.txt")).expect("removed");
    refuses(
        &alone(&sample.args(READ)),
        "latest_checkpointed_iteration.txt",
    );
    assert!(!sample.path("out").exists());
}

#[test]
fn iterations_are_listed_and_pruned() {
    let sample = sample();
    alone(&sample.args(WRITE)).succeeds();
    let room = sample.path("second");
    for (number, lost) in [
        (20, "nothing"),
        (30, "model-0000002-0000004.safetensors"),
        (50, "nothing"),
    ] {
        let copy = room.join(format!("iteration_{number:08}"));
        std::fs::create_dir(&copy).expect("a directory");
        for file in std::fs::read_dir(room.join("iteration_00000040")).expect("a directory") {
            let file = file.expect("an entry");
            if file.file_name().to_string_lossy() != lost {
                std::fs::copy(file.path(), copy.join(file.file_name())).expect("copied");
            }
        }
    }
    let list = object(&alone(&sample.args("checkpoints list @second --json")).succeeds());
    let rows = list["checkpoints"].as_array().expect("a list");
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (&row["step"], &row["complete"]))
        .collect();
    let (yes, no) = (json!(true), json!(false));
    let steps = [20, 30, 40, 50].map(|step| json!(step));
    let expected = steps.iter().zip([&yes, &no, &yes, &no]).collect::<Vec<_>>();
    assert_eq!(
        rows, expected,
        "what the tracker doesn't name yet isn't complete"
    );
    let latest = object(&alone(&sample.args("checkpoints latest @second --json")).succeeds());
    assert_eq!(
        (&latest["suffix"], &latest["epoch"], &latest["ranks"]),
        (&json!("40"), &json!(2), &json!(4))
    );
    alone(&sample.args("unify --src @second --file-suffix 20 --dst @twenty")).succeeds();
    alone(&sample.args("checkpoints prune @second --keep 1")).succeeds();
    let left = |number: u32| room.join(format!("iteration_{number:08}")).exists();
    assert_eq!([20, 30, 40, 50].map(left), [false, false, true, true]);
}

#[test]
fn a_training_configuration_may_name_one() {
    let sample = sample();
    alone(&sample.args(WRITE)).succeeds();
    let path = |name: &str| sample.path(name).display().to_string();
    let text = format!(
        "load_checkpoint: {}\nuse_parallel: True\nauto_trans_ckpt: True\noutput_dir: {}\n",
        path("second"),
        path("run")
    );
    std::fs::write(sample.path("train.yaml"), &text).expect("written");
    let line = "load --config @train.yaml --dst-strategy @two.ckpt --json";
    let told = object(&under_mpi(2, &sample.args(line)).succeeds());
    assert_eq!(told["action"], "reshard");
    check_beside_counts(&sample, "run/shardloom_checkpoint");
    std::fs::write(sample.path("train.yaml"), text + "resume_training: True\n").expect("written");
    refuses(&alone(&sample.args(line)), "checkpoint 2.0");
}

/// One file of a rank's, of several, that was copied over another rank's.
#[test]
fn a_file_of_another_rank_is_noticed() {
    let mut whole = Tensors::new();
    let mut cuts = Vec::new();
    for (number, name) in ["w1", "w2", "adam_m.w1", "adam_m.w2"]
        .into_iter()
        .enumerate()
    {
        let tensor = Tensor::counting("F32", &[16, 8], number * 100);
        whole.insert(name.to_owned(), tensor);
        cuts.push((name, layout(&[2], &[0, -1])));
    }
    let sample = Sample::of(whole, Strategy::of(&cuts), Strategy::of(&cuts));
    let cut = "split --src @full --dst @second --dst-strategy @two.ckpt --format checkpoint2";
    alone(&sample.args(cut)).succeeds();
    std::fs::remove_file(sample.path("second/shardloom.json")).expect("removed");
    alone(&sample.args("unify --src @second --dst @whole")).succeeds();
    let directory = sample.path("second/iteration_00000000");
    let file = |rank: u32| directory.join(format!("model-000000{rank}-0000002.safetensors"));
    std::fs::copy(file(0), file(1)).expect("copied");
    for line in [
        "unify --src @second --dst @out",
        "reshard --src @second --dst @out --dst-strategy @four.ckpt",
    ] {
        let run = alone(&sample.args(line));
        refuses(&run, "have the same bytes");
    }
}

/// What it counts beside its tensors goes along where PyTorch's distributed checkpoints are written, and comes back.
#[test]
fn its_counts_go_into_distributed_checkpoints() {
    let sample = sample();
    alone(&sample.args(WRITE)).succeeds();
    for (processes, format) in [(1, "dcp"), (4, "dcp"), (2, "dcp-hf")] {
        let away = format!(
            "reshard --src @second --dst @{format}-{processes} --dst-strategy @two.ckpt --format {format}"
        );
        let run = under_mpi(processes, &sample.args(&away));
        let run = run.succeeds();
        assert!(!run.stdout.contains("note"), "{}", run.stdout);
        let at = format!("@{format}-{processes}");
        alone(&sample.args(&format!("verify {at}"))).succeeds();
        let shown = alone(&sample.args(&format!("inspect {at}")))
            .succeeds()
            .stdout
            .clone();
        assert!(!shown.contains("odd"), "{shown}");
        let whole = format!("unify --src {at} --dst {at}-full");
        under_mpi(processes, &sample.args(&whole)).succeeds();
        let back = format!(
            "reshard --src {at} --dst {at}-back --dst-strategy @four.ckpt --format checkpoint2"
        );
        under_mpi(processes, &sample.args(&back)).succeeds();
        alone(&sample.args(&format!("diff @second {at}-back"))).succeeds();
        let common = |directory: &str| {
            let path = format!("{directory}/iteration_00000040/common.json");
            std::fs::read_to_string(sample.path(&path)).expect("a file")
        };
        assert_eq!(
            common("second"),
            common(&format!("{format}-{processes}-back"))
        );
    }
}

/// Full weights beside what tells its own layout and beside rank directories: what is taken is said, or asked for.
#[test]
fn full_weights_beside_it_are_told_or_asked_for() {
    let sample = sample();
    alone(&sample.args(WRITE)).succeeds();
    alone(&sample.args("unify --src @second --dst @whole")).succeeds();
    let away = "reshard --src @second --dst @dcp --dst-strategy @two.ckpt --format dcp";
    alone(&sample.args(away)).succeeds();
    let weights = std::fs::read_dir(sample.path("whole")).expect("a directory");
    let names = weights.map(|file| file.expect("an entry").file_name().into_string());
    let mut names = names.map(|name| name.expect("a name"));
    let name = names
        .find(|name| name.starts_with("model-"))
        .expect("weights");
    for directory in ["second", "dcp", "src"] {
        let manifest = sample.path(&format!("{directory}/shardloom.json"));
        if manifest.exists() {
            std::fs::remove_file(manifest).expect("removed");
        }
        sample.copy(&format!("whole/{name}"), &format!("{directory}/{name}"));
    }
    let said = format!("{name} is left aside");
    for (source, processes) in [
        ("@second", 1),
        ("@second", 4),
        ("@src --src-strategy @four.ckpt", 1),
        ("@src --src-strategy @four.ckpt", 3),
    ] {
        for line in [
            "unify --dst @out",
            "reshard --dst @out --dst-strategy @two.ckpt",
        ] {
            let run = under_mpi(
                processes,
                &sample.args(&format!("{line} --src {source} --overwrite")),
            );
            let said_there = run.succeeds().stdout.contains(&said);
            assert!(said_there, "{line} {source}");
        }
        let chosen = source.split(' ').next().expect("a directory");
        let chosen = format!("unify --src {chosen} --weights {name} --dst @out --overwrite");
        under_mpi(processes, &sample.args(&chosen)).succeeds();
        alone(&sample.args("diff @out @whole --filter-out-param-prefix step_num --filter-out-param-prefix epoch_num")).succeeds();
    }
    for line in [
        "unify --src @dcp --dst @none",
        "reshard --src @dcp --dst @none --dst-strategy @two.ckpt",
        "split --src @dcp --dst @none --dst-strategy @two.ckpt",
        "diff @dcp @whole",
        "inspect @dcp",
    ] {
        for processes in [1, 4] {
            let run = under_mpi(processes, &sample.args(line));
            refuses(&run, "full weights beside it");
            assert!(!sample.path("none").exists(), "{line}");
        }
    }
    let chosen = format!("split --src @dcp --weights {name} --dst @cut --dst-strategy @two.ckpt");
    under_mpi(2, &sample.args(&chosen)).succeeds();
}

/// What lies in an iteration and isn't its own is neither pruned with it nor replaced; nor is a second kind of checkpoint.
#[test]
fn only_its_own_files_are_removed() {
    let sample = sample();
    alone(&sample.args(WRITE)).succeeds();
    alone(&sample.args("unify --src @second --dst @whole")).succeeds();
    let older = sample.path("second/iteration_00000030");
    std::fs::create_dir(&older).expect("made");
    for file in fixtures::listing(&sample.path("second/iteration_00000040")) {
        let from = sample.path("second/iteration_00000040").join(&file);
        std::fs::copy(from, older.join(&file)).expect("copied");
    }
    let common = older.join("common.json");
    let text = std::fs::read_to_string(&common).expect("a file");
    std::fs::write(
        &common,
        text.replace("\"step_num\": 40", "\"step_num\": 30"),
    )
    .expect("written");
    std::fs::remove_file(sample.path("second/shardloom.json")).expect("removed");
    let mine = older.join("mine.safetensors");
    std::fs::copy(sample.path("whole/hyper_param.safetensors"), &mine).expect("copied");
    for processes in [1, 4] {
        for line in [
            "checkpoints prune @second --keep 1",
            "split --src @full --dst @second --dst-strategy @two.ckpt --overwrite",
        ] {
            refuses(
                &under_mpi(processes, &sample.args(line)),
                "mine.safetensors",
            );
            assert!(mine.exists() && common.exists(), "{line}");
        }
    }
    std::fs::remove_file(&mine).expect("removed");
    alone(&sample.args("checkpoints prune @second --keep 1")).succeeds();
    assert!(!older.exists());
    // Two that tell their own layouts.
    let away = "reshard --src @second --dst @dcp --dst-strategy @two.ckpt --format dcp";
    alone(&sample.args(away)).succeeds();
    for file in fixtures::listing(&sample.path("dcp")) {
        if !file.ends_with("shardloom.json") {
            std::fs::copy(
                sample.path("dcp").join(&file),
                sample.path("second").join(&file),
            )
            .expect("copied");
        }
    }
    for line in [
        "unify --src @second --dst @out",
        READ,
        "inspect @second",
        "diff @second @whole",
    ] {
        let run = alone(&sample.args(line));
        refuses(
            &run,
            "has a checkpoint 2.0 (iteration_00000040) and a PyTorch distributed checkpoint",
        );
    }
    let line = "split --src @full --dst @second --dst-strategy @two.ckpt --overwrite";
    refuses(&alone(&sample.args(line)), "no earlier run has written");
}

/// Files of it are parts of tensors: no other format of files says so.
#[test]
fn its_files_are_not_converted() {
    let sample = sample();
    alone(&sample.args(WRITE)).succeeds();
    let away = "reshard --src @second --dst @dcp --dst-strategy @two.ckpt --format dcp-hf";
    alone(&sample.args(away)).succeeds();
    sample.copy("full/model.safetensors", "dcp/model.safetensors");
    let shard = "shard-00001-model-00001-of-00001.safetensors";
    for line in [
        "convert @second/iteration_00000040/model-0000000-0000004.safetensors --to ckpt --dst @out"
            .to_owned(),
        format!("convert @dcp/{shard} --to ckpt --dst @out"),
        "convert @dcp --to ckpt --dst @out".to_owned(),
    ] {
        for processes in [1, 4] {
            refuses(&under_mpi(processes, &sample.args(&line)), "part");
            assert!(!sample.path("out").exists(), "{line}");
        }
    }
}

/// What tells its own layout isn't replaced in place: what its format writes would be carried along over the new.
#[test]
fn it_is_not_replaced_in_place() {
    let sample = sample();
    alone(&sample.args(WRITE)).succeeds();
    let away = "reshard --src @second --dst @dcp --dst-strategy @two.ckpt --format dcp";
    alone(&sample.args(away)).succeeds();
    for (source, format) in [
        ("second", "checkpoint2 --dst-strategy @two.ckpt"),
        ("second", "dcp --dst-strategy @two.ckpt"),
        ("dcp", "dcp --dst-strategy @four.ckpt"),
        ("dcp", "dcp-hf --dst-strategy @two.ckpt"),
    ] {
        let kept = fixtures::listing(&sample.path(source));
        let line = format!("reshard --src @{source} --in-place --format {format}");
        for processes in [1, 4] {
            let run = under_mpi(processes, &sample.args(&line));
            assert_eq!(run.status.code(), Some(2), "{run:#?}");
            assert!(
                run.stderr.contains("--in-place is for directories rank_0"),
                "{run:#?}"
            );
            assert_eq!(fixtures::listing(&sample.path(source)), kept, "{line}");
        }
        alone(&sample.args(&format!("verify @{source}"))).succeeds();
    }
    // Somebody's tracker beside ranks isn't taken for the new one.
    let tracker = sample.path("src/latest_checkpointed_iteration.txt");
    std::fs::write(&tracker, "5").expect("written");
    let line = "reshard --src @src --src-strategy @four.ckpt --in-place --dst-strategy @two.ckpt --format checkpoint2";
    refuses(
        &alone(&sample.args(line)),
        "isn't read and would be replaced",
    );
    std::fs::remove_file(&tracker).expect("removed");
    alone(&sample.args(line)).succeeds();
    alone(&sample.args("unify --src @src --dst @again")).succeeds();
    alone(&sample.args("diff @src @second")).succeeds();
}

/// Rank directories beside a checkpoint 2.0, as a job that has changed its format leaves them: nobody knows which is meant.
#[test]
fn ranks_beside_it_are_asked_for() {
    let sample = sample();
    alone(&sample.args(WRITE)).succeeds();
    std::fs::remove_file(sample.path("second/shardloom.json")).expect("removed");
    for rank in 0..4 {
        let from = format!("src/rank_{rank}");
        let file = std::fs::read_dir(sample.path(&from)).expect("a directory");
        let name = file.last().expect("a file").expect("an entry").file_name();
        let name = name.to_string_lossy().into_owned();
        let to = format!("second/rank_{rank}/net_rank_{rank}-1_50.safetensors");
        sample.copy(&format!("{from}/{name}"), &to);
    }
    for line in [
        "unify --src @second --dst @out",
        "unify --src @second --src-strategy @four.ckpt --dst @out",
        READ,
        "inspect @second",
        "diff @second @second",
        "checkpoints list @second",
        "checkpoints latest @second",
        "checkpoints prune @second --keep 1",
    ] {
        for run in [alone(&sample.args(line)), under_mpi(4, &sample.args(line))] {
            refuses(&run, "files of ranks beside");
            assert!(!sample.path("out").exists(), "{line}");
        }
    }
    let one = "unify --src @second/iteration_00000040 --dst @one";
    alone(&sample.args(one)).succeeds();
    let pattern = "@second/rank_{rank}/net_rank_{rank}-1_50.safetensors";
    let other = format!("unify --src {pattern} --src-strategy @four.ckpt --dst @other");
    alone(&sample.args(&other)).succeeds();
}

/// What a trainer keeps beside weights goes along from a checkpoint 2.0, too.
#[test]
fn scalars_of_a_job_go_along() {
    let sample = sample();
    let rate = Tensor {
        dtype: "F32".into(),
        shape: vec![],
        data: 0.5f32.to_le_bytes().to_vec(),
    };
    for rank in 0..4 {
        let room = sample.path(&format!("src/rank_{rank}"));
        for file in fixtures::listing(&room) {
            if file.extension().is_some_and(|end| end == "safetensors") {
                let mut all = tensors::read(&room.join(&file)).expect("readable").tensors;
                all.insert("learning_rate".into(), rate.clone());
                tensors::write(&room.join(&file), &all);
            }
        }
    }
    for processes in [1, 3] {
        under_mpi(processes, &sample.args(WRITE)).succeeds();
        under_mpi(processes, &sample.args(READ)).succeeds();
        for rank in 0..2 {
            let path = sample.path(&format!("out/rank_{rank}/net{rank}.safetensors"));
            let found = tensors::read(&path).expect("a file").tensors;
            assert_eq!(found.get("learning_rate"), Some(&rate));
        }
        for made in ["out", "second"] {
            std::fs::remove_dir_all(sample.path(made)).expect("removed");
        }
    }
}

/// Python writes a number that was a tensor's as a list, and one that was divided as a fraction.
#[test]
fn counts_are_read_as_python_may_write_them() {
    let sample = sample();
    alone(&sample.args(WRITE)).succeeds();
    let path = sample.path("second/iteration_00000040/common.json");
    let text = std::fs::read_to_string(&path).expect("a file");
    let common: Value = serde_json::from_str(&text).expect("JSON");
    let read = "unify --src @second --dst @out --overwrite";
    alone(&sample.args(read)).succeeds();
    let due = sample.weights_in("out");
    let rows = [
        ("step_num", "40.0", ""),
        ("step_num", "[40]", ""),
        ("epoch_num", "[2.0]", ""),
        (
            "step_num",
            "40.5",
            "'step_num' is 40.5, and has to be a whole number or null",
        ),
        ("step_num", "-40", "'step_num' is -40"),
        ("epoch_num", "[1, 2]", "'epoch_num' is [1,2]"),
        (
            "loss_scale",
            "\"big\"",
            "'loss_scale' is \"big\", and has to be a number or null",
        ),
        ("loss_scale", "Infinity", "has NaN or Infinity"),
        ("ckpt_status", "\"ok\"", "'ckpt_status' is \"ok\""),
    ];
    for (number, (key, value, fault)) in rows.into_iter().enumerate() {
        let mut changed = common.clone();
        changed[key] = json!("@");
        let text = changed.to_string().replace("\"@\"", value);
        std::fs::write(&path, format!("\u{feff}{text}")).expect("written");
        let run = under_mpi(if number % 2 == 0 { 1 } else { 3 }, &sample.args(read));
        match fault {
            "" => assert_eq!(
                {
                    run.succeeds();
                    sample.weights_in("out")
                },
                due,
                "{key} {value}"
            ),
            fault => {
                refuses(&run, "common.json");
                assert!(run.stderr.contains(fault), "{run:#?}");
            }
        }
    }
}
