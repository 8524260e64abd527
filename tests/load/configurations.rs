//! What configurations of all kinds ask for: flags, bases, checkpoint 2.0, and what is said of a wrong one.

use super::command::{alone, object, refuses};
use super::{Job, PARALLEL};
use serde_json::json;

#[test]
fn reads_the_launchers_flags_and_the_base() {
    let job = Job::new();
    let base = "use_parallel: True\nparallel_config: {data_parallel: 2, model_parallel: 2}\n";
    std::fs::write(job.path("base.yaml"), base).expect("written");
    let lines = [
        ("load_checkpoint", "@old/checkpoint"),
        ("base_config", "base.yaml"),
        ("parallel_config", "{model_parallel: 1}"),
    ];
    // Four ranks' weights for a job of two, each of which would load another one's file.
    let args = job.config(&lines);
    refuses(
        &alone(&args),
        "weights of 4 ranks, parallel_config asks for 2",
    );
    // By the launcher's flags it is a reshard, for which the strategy is another mesh's.
    let flags = ["--auto_trans_ckpt", "True", "--resume-training", "True"];
    let args: Vec<&str> = args.iter().map(String::as_str).chain(flags).collect();
    refuses(&alone(&args), "parallel_config has model_parallel 1");
    job.config(&[
        lines[0],
        lines[1],
        ("parallel_config", "{data_parallel: 1}"),
    ]);
    let told = object(&alone(&args).succeeds());
    assert_eq!(
        (&told["action"], &told["resume"]["step"]),
        (&json!("reshard"), &json!(20))
    );
    assert!(
        told["notes"].to_string().contains("leave these flags out"),
        "{told}"
    );
    // What the launcher was given is in the configuration then, also where it is no resumption.
    let plain = &args[..args.len() - flags.len()];
    let others = ["--resume-training", "False", "--run-mode", "finetune"];
    let anew = [plain, &flags[..2], &others[..], &["--overwrite"]].concat();
    let told = object(&alone(&anew).succeeds());
    let config = &told["config"];
    assert_eq!(
        (&config["resume_training"], &config["run_mode"]),
        (&json!(false), &json!("finetune"))
    );
    for format in ["dcp", "megatron", "checkpoint2"] {
        let other = [&args[..], &["--format", format, "--overwrite"]].concat();
        refuses(&alone(&other), "its trainer doesn't read");
    }
    let dry = [&args[..], &["--dry-run", "--overwrite"]].concat();
    let dry: Vec<&str> = dry.into_iter().filter(|arg| *arg != "--json").collect();
    assert!(alone(&dry).succeeds().stdout.contains("  would write "));

    // Nothing is done for a configuration that can't be written.
    std::fs::remove_dir_all(job.path("new/shardloom_checkpoint")).expect("removed");
    let blocked = job.path("blocked");
    std::fs::create_dir(&blocked).expect("made");
    let args: Vec<&str> = args
        .iter()
        .map(|arg| {
            if arg.ends_with("out.yaml") {
                &*blocked
            } else {
                arg
            }
        })
        .collect();
    refuses(&alone(&args), "is a directory");
    assert!(!job.sample.path("new/shardloom_checkpoint").exists());
}

#[test]
fn reads_configurations_of_checkpoint_2() {
    let job = Job::new();
    let section = |path: &str, rest: &str| format!("{{load_path: '{}'{rest}}}", job.path(path));
    let told = job.load(&[("checkpoint", &section("full", ""))]);
    assert_eq!(told["action"], "none");
    assert!(
        told["notes"].to_string().contains("cuts them itself"),
        "{told}"
    );
    let cases = [
        (section("old/checkpoint", ""), "--format checkpoint2"),
        (section("full", ", no_load_optim: False"), "no_load_optim"),
        (section("nowhere", ""), "checkpoint.load_path doesn't exist"),
    ];
    for (section, culprit) in &cases {
        let run = alone(&job.config(&[("checkpoint", section)]));
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        assert!(run.stderr.contains(culprit), "{culprit}: {run:#?}");
    }
    let both = [
        ("checkpoint", "{load_path: ''}"),
        ("load_checkpoint", "@full"),
    ];
    job.refuses(&both, "wins over load_checkpoint");
}

#[test]
fn says_which_key_is_wrong_and_how() {
    let job = Job::new();
    let four = ("parallel_config", "{data_parallel: 2, model_parallel: 2}");
    let cases: [(&[(&str, &str)], &str); 4] = [
        (
            &[("load_checkpoint", "@full"), four],
            "use_parallel isn't set",
        ),
        (&[("pretrained_model_dir", "/path/to/Qwen3")], "placeholder"),
        (
            &[("pretrained_model_dir", "@gone")],
            "pretrained_model_dir doesn't exist",
        ),
        (
            &[
                ("run_mode_", "x"),
                ("load_checkpoint", "@full/model.safetensors"),
                PARALLEL[0],
            ],
            "one file",
        ),
    ];
    for (lines, culprit) in cases {
        let run = alone(&job.config(lines));
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        assert!(run.stderr.contains(culprit), "{culprit}: {run:#?}");
    }
    std::fs::write(job.path("other.yaml"), "llama: {input_path: x}\n").expect("written");
    let run = alone(&["load", "--config", &job.path("other.yaml")]);
    refuses(&run, "none of the keys");
}

#[test]
fn a_merged_strategy_beside_its_files_must_agree() {
    let job = Job::new();
    let beside = |merged: &str| {
        let directory = job.sample.path("both");
        std::fs::create_dir_all(&directory).expect("a directory");
        for (from, to) in [
            ("four.ckpt", "ckpt_strategy_rank_0.ckpt"),
            (merged, "merged_ckpt_strategy.ckpt"),
        ] {
            std::fs::copy(job.path(from), directory.join(to)).expect("copied");
        }
        let line = "unify --src @src --src-strategy @both --dst @out --overwrite";
        alone(&job.sample.args(line))
    };
    beside("four.ckpt").succeeds();
    refuses(&beside("two.ckpt"), "merged_ckpt_strategy.ckpt");
}
