//! Saving from a training loop, under the real launcher.

use crate::support::{Run, command, example, mpirun, oracle, sample, tensors};
use command::{alone, object};
use oracle::Strategy;
use sample::{Sample, layout};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tensors::{Tensor, Tensors};

/// State of a run on `ranks` ranks: cut by rows, and the same everywhere.
fn sample(ranks: usize) -> Sample {
    let whole = Tensors::from([
        ("adam_m.w".to_owned(), Tensor::counting("F32", &[8, 4], 40)),
        ("norm".to_owned(), Tensor::counting("BF16", &[6], 3)),
        ("scale".to_owned(), Tensor::counting("F32", &[3], 9)),
        ("w".to_owned(), Tensor::counting("F32", &[8, 4], 50)),
    ]);
    let strategy = Strategy::of(&[
        ("adam_m.w", layout(&[ranks], &[0, -1])),
        ("norm", layout(&[ranks], &[-1])),
        ("scale", layout(&[ranks], &[-1])),
        ("w", layout(&[ranks], &[0, -1])),
    ]);
    Sample::of(whole, strategy.clone(), strategy)
}

/// Runs the loop over `steps`.
fn train(sample: &Sample, config: &str, steps: (u32, u32), more: &[&str]) -> Run {
    let path = |name: &str| sample.path(name).display().to_string();
    let (first, last) = (steps.0.to_string(), steps.1.to_string());
    let fixed = [
        path("run"),
        path("src"),
        path("four.ckpt"),
        config.to_owned(),
        first,
        last,
    ];
    let mut args: Vec<&str> = fixed.iter().map(String::as_str).collect();
    args.extend(more);
    let ranks = u32::try_from(sample.four.ranks()).expect("few");
    mpirun(ranks, &example("monitor_check"), &args, &[])
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn latest(sample: &Sample) -> Value {
    object(&alone(&sample.args("checkpoints latest @run/checkpoint --json")).succeeds())
}

// proves P116, P120
#[test]
fn saves_every_rank_and_says_so_in_its_record() {
    for ranks in [1, 2, 4] {
        for mode in ["False", "True"] {
            let sample = sample(ranks);
            let config = format!(
                "{{prefix: m, save_checkpoint_steps: 2, keep_checkpoint_max: 2, async_save: {mode}, save_network_params: True, global_batch_size: 16}}"
            );
            train(&sample, &config, (1, 7), &[]).succeeds();
            for rank in 0..ranks {
                let room = sample.path(&format!("run/checkpoint/rank_{rank}"));
                let file = |step: u32| format!("m_rank_{rank}-1_{step}.safetensors");
                assert_eq!(names(&room), [file(6), file(7), "meta.json".to_owned()]);
                let meta: Value = serde_json::from_slice(
                    &std::fs::read(room.join("meta.json")).expect("a record"),
                )
                .expect("JSON");
                assert_eq!(
                    meta,
                    json!({ "last_epoch": 1, "last_step": 7, "last_ckpt_file": file(7) })
                );
                let saved = tensors::read(&room.join(file(7))).expect("a file");
                assert_eq!(saved.metadata["remove_redundancy"], "False");
                let mut expected = sample.four.cut(&sample.whole, rank).expect("cut");
                for name in [
                    "epoch_num",
                    "step_num",
                    "global_step",
                    "loss_scale",
                    "global_batch_size",
                ] {
                    expected.insert(name.to_owned(), saved.tensors[name].clone());
                }
                assert_eq!(saved.tensors["step_num"].data, 7i64.to_le_bytes());
                assert_eq!(saved.tensors["global_step"].shape, [1]);
                tensors::compare(&expected, &saved.tensors)
                    .unwrap_or_else(|error| unreachable!("{error}"));
                let room = sample.path(&format!("run/checkpoint_network/rank_{rank}"));
                assert_eq!(names(&room).len(), 2);
                let weights =
                    tensors::read(&room.join(format!("m_rank_{rank}-network-1_7.safetensors")))
                        .expect("a file");
                assert_eq!(
                    weights.tensors.keys().collect::<Vec<_>>(),
                    ["norm", "scale", "w"]
                );
            }
            assert_eq!(
                (&latest(&sample)["suffix"], &latest(&sample)["step"]),
                (&json!("1_7"), &json!(7))
            );
        }
    }
}

#[test]
fn a_later_run_keeps_its_files_apart() {
    let sample = sample(2);
    train(&sample, "{prefix: m}", (1, 1), &[]).succeeds();
    train(&sample, "{prefix: m}", (2, 3), &[]).succeeds();
    let found = names(&sample.path("run/checkpoint/rank_1"));
    let expected = [
        "m_rank_1-1_1.safetensors",
        "m_rank_1_1-1_2.safetensors",
        "m_rank_1_1-1_3.safetensors",
        "meta.json",
    ];
    assert_eq!(found, expected);
    assert_eq!(latest(&sample)["suffix"], "_1-1_3");
}

#[test]
fn keeps_one_copy_that_merges_to_the_whole() {
    for ranks in [2, 4] {
        let sample = sample(ranks);
        let config = "{remove_redundancy: True, integrated_save: True, keep_checkpoint_max: 1}";
        train(&sample, config, (1, 2), &[]).succeeds();
        let merged =
            sample.path("run/checkpoint_integrated/CKP-1_2/model-00001-of-00001.safetensors");
        let merged = tensors::read(&merged).expect("full weights");
        tensors::compare(&sample.whole, &merged.tensors)
            .unwrap_or_else(|error| unreachable!("{error}"));
        assert_eq!(
            names(&sample.path("run/checkpoint_integrated")),
            ["CKP-1_2"]
        );
        let holders = (0..ranks).filter(|rank| {
            let file = format!("run/checkpoint/rank_{rank}/CKP_rank_{rank}-1_2.safetensors");
            tensors::read(&sample.path(&file))
                .expect("a file")
                .tensors
                .contains_key("norm")
        });
        assert_eq!(holders.count(), 1);
    }
}

// proves P117
#[test]
fn a_rank_that_dies_leaves_a_checkpoint_that_all_have() {
    for mode in ["False", "True"] {
        let sample = sample(2);
        let config = format!("{{prefix: m, keep_checkpoint_max: 1, async_save: {mode}}}");
        train(&sample, &config, (1, 9), &["die=5"]).fails();
        let latest = latest(&sample);
        let step = latest["step"].as_u64().expect("a step");
        // Behind the training a record may be a save late: these steps take no time.
        let oldest = if mode == "True" { 2 } else { 3 };
        assert!((oldest..=4).contains(&step), "{latest}");
        for file in latest["files"].as_array().expect("files") {
            let path = sample
                .path("run/checkpoint")
                .join(file.as_str().expect("a text"));
            tensors::read(&path).expect("whole");
        }
    }
}

#[test]
fn what_is_written_behind_the_training_is_recorded_before_the_next_save() {
    let sample = sample(2);
    let config = "{prefix: m, save_checkpoint_steps: 4, keep_checkpoint_max: 1, async_save: True}";
    train(&sample, config, (1, 99), &["die=12", "pause=150"]).fails();
    assert_eq!(latest(&sample)["step"], 8);
    for rank in 0..2 {
        let expected = [format!("m_rank_{rank}-1_8.safetensors"), "meta.json".into()];
        let room = sample.path(&format!("run/checkpoint/rank_{rank}"));
        assert_eq!(names(&room), expected);
    }
}

/// Every I/O call of rank 1 fails or ends it once, and there is always a checkpoint to resume from.
// proves P118
#[test]
fn no_fault_of_one_rank_leaves_the_job_without_a_checkpoint() {
    for mode in ["False", "True"] {
        for fault in [
            "eio:24",
            "eio:31",
            "enospc:37",
            "eio:45",
            "exit:26",
            "exit:34",
            "exit:43",
            "exit:52",
        ] {
            let sample = sample(2);
            train(&sample, "{prefix: m}", (1, 1), &[]).succeeds();
            let path = |name: &str| sample.path(name).display().to_string();
            let script = format!(
                "[ \"${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}}\" = 1 ] && export SHARDLOOM_IO_FAULT={fault}; \
                 exec '{}' '{}' '{}' - '{{prefix: m, keep_checkpoint_max: 1, async_save: {mode}}}' 2 4",
                example("monitor_check").display(),
                path("run"),
                path("src"),
            );
            let run = mpirun(2, Path::new("/bin/sh"), &["-c", &script], &[]);
            let latest = latest(&sample);
            let step = latest["step"].as_u64().expect("a step");
            assert!((1..=4).contains(&step), "{fault}: {latest}");
            if run.status.success() {
                assert_eq!(step, 4, "{fault}: {latest}");
            }
        }
    }
}

#[test]
fn trained_weights_alone_have_a_place_of_their_own() {
    let whole = Tensors::from([
        ("adam_m.w".to_owned(), Tensor::counting("F32", &[8, 4], 40)),
        ("frozen.w".to_owned(), Tensor::counting("F32", &[8, 4], 3)),
        ("w".to_owned(), Tensor::counting("F32", &[8, 4], 50)),
    ]);
    let names = ["adam_m.w", "frozen.w", "w"];
    let strategy = Strategy::of(&names.map(|name| (name, layout(&[2], &[0, -1]))));
    for mode in ["False", "thread"] {
        let sample = Sample::of(whole.clone(), strategy.clone(), strategy.clone());
        let config = format!(
            "{{prefix: m, save_trainable_params: True, save_network_params: True, keep_checkpoint_max: 1, \
             async_save: {mode}, append_info: [epoch_num, {{step_num: 9, lr: 0.5, seed: 5000000000, warm: True}}]}}"
        );
        train(&sample, &config, (1, 3), &[]).succeeds();
        assert!(!sample.path("run/checkpoint_network").exists());
        for rank in 0..2 {
            let room = sample.path(&format!("run/checkpoint_trainable/rank_{rank}"));
            let file = format!("m_rank_{rank}-trainable_params-1_3.safetensors");
            assert_eq!(self::names(&room), std::slice::from_ref(&file));
            let saved = tensors::read(&room.join(file)).expect("a file").tensors;
            assert_eq!(saved.keys().collect::<Vec<_>>(), ["w"]);
            assert_eq!(
                saved["w"],
                sample.four.cut(&sample.whole, rank).expect("cut")["w"]
            );
            let file = format!("run/checkpoint/rank_{rank}/m_rank_{rank}-1_3.safetensors");
            let full = tensors::read(&sample.path(&file)).expect("a file").tensors;
            assert_eq!(full["step_num"].data, 3i64.to_le_bytes());
            assert_eq!(full["lr"].data, 0.5f32.to_le_bytes());
            assert_eq!(full["seed"].data, 5_000_000_000i64.to_le_bytes());
            assert_eq!(
                (&*full["warm"].dtype, &full["warm"].data[..]),
                ("BOOL", &[1u8][..])
            );
            assert!(full.contains_key("frozen.w"));
        }
    }
    let sample = Sample::of(whole, strategy.clone(), strategy);
    let run = train(&sample, "{append_info: [{w: 1}]}", (1, 1), &[]).fails();
    assert!(run.stdout.contains("append_info"), "{run:#?}");
}

// proves P121
#[test]
fn keeps_one_of_many_within_a_time_and_the_newest() {
    for mode in ["False", "True"] {
        let sample = sample(2);
        let config = format!(
            "{{prefix: m, keep_checkpoint_max: 0, keep_checkpoint_per_n_minutes: 30, async_save: {mode}}}"
        );
        train(&sample, &config, (1, 6), &[]).succeeds();
        for rank in 0..2 {
            let expected = [
                format!("m_rank_{rank}-1_1.safetensors"),
                format!("m_rank_{rank}-1_6.safetensors"),
                "meta.json".to_owned(),
            ];
            let room = sample.path(&format!("run/checkpoint/rank_{rank}"));
            assert_eq!(names(&room), expected);
        }
    }
}

#[test]
fn an_error_in_the_training_saves_its_last_step_if_asked_to() {
    for mode in ["False", "True"] {
        for (exception_save, step) in [("True", 6), ("False", 5)] {
            let sample = sample(2);
            let config = format!(
                "{{prefix: m, save_checkpoint_steps: 5, async_save: {mode}, exception_save: {exception_save}}}"
            );
            let run = train(&sample, &config, (1, 9), &["fail=7"]).fails();
            assert!(run.stderr.contains("the loss is no number"), "{run:#?}");
            let stands = exception_save == "True";
            assert!(
                run.stdout.contains(&format!("step 6 saved: {stands}")),
                "{run:#?}"
            );
            assert_eq!(latest(&sample)["step"], json!(step), "{config}");
        }
    }
}

/// The lock of another run on another machine that gives signs of life, as long as `work` goes on.
fn beside_another<T>(sample: &Sample, work: impl FnOnce() -> T) -> T {
    let lock = sample.path("run/.checkpoint.shardloom-lock");
    std::fs::create_dir_all(sample.path("run")).expect("a directory");
    let holder = json!({
        "token": "0123456789abcdef", "command": "reshard", "host": "elsewhere", "process": 77,
        "since": 1, "born": 1, "boot": "another", "numbers": "pid:[1]",
    });
    std::fs::write(&lock, holder.to_string()).expect("a lock");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let file = std::fs::File::options().write(true).open(&lock);
                let touched = file.and_then(|file| file.set_modified(SystemTime::now()));
                touched.expect("the other's lock stays");
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        worked
    })
}

#[test]
fn two_runs_never_save_into_one_directory_at_a_time() {
    let sample = sample(2);
    for mode in ["False", "True"] {
        let config = format!("{{prefix: m, save_checkpoint_steps: 1, async_save: {mode}}}");
        let run = beside_another(&sample, || train(&sample, &config, (1, 1), &[]).fails());
        for word in [
            "another run is writing here",
            "process 77 on elsewhere",
            "s old",
        ] {
            assert!(
                run.stdout.contains(word) && run.stderr.contains(word),
                "{run:#?}"
            );
        }
        assert!(!sample.path("run/checkpoint").exists());
        std::fs::remove_file(sample.path("run/.checkpoint.shardloom-lock")).expect("a lock");
        train(&sample, &config, (1, 2), &[]).succeeds();
        assert_eq!(names(&sample.path("run")), ["checkpoint"], "no lock stays");
        std::fs::remove_dir_all(sample.path("run")).expect("a directory");
    }
}

// proves P119
#[test]
fn says_what_it_can_not_do() {
    let sample = sample(2);
    for (config, culprit) in [
        ("{prefixx: m}", "prefixx"),
        ("{checkpoint_format: ckpt}", "checkpoint_format"),
        ("{use_legacy_format: False}", "use_legacy_format"),
    ] {
        let run = train(&sample, config, (1, 1), &[]).fails();
        assert!(run.stderr.contains(culprit), "{run:#?}");
    }
    assert!(!sample.path("run").exists());
}
