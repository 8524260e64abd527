//! `shardloom load`: the situations of a trainer's configuration.

mod configurations;

use crate::support::{self, command, oracle, sample, tensors};
use command::{alone, object, refuses, under_mpi};
use sample::{Sample, layout};
use serde_json::{Value, json};
use std::path::Path;
use tensors::{Tensor, Tensors};

/// A job's output: `new/` for the job to start, with its strategy; `old/` of one that ran on four ranks.
struct Job {
    sample: Sample,
}

impl Job {
    fn new() -> Job {
        let sample = Sample::new();
        for (strategy, output) in [("four.ckpt", "old"), ("two.ckpt", "new")] {
            let place = sample.path(output).join("strategy");
            std::fs::create_dir_all(&place).expect("a directory");
            // A file alone in its directory needs no operators that tell its stage.
            let merged = sample.path(output).join("merged_strategy");
            std::fs::create_dir_all(&merged).expect("a directory");
            std::fs::remove_dir(&place).expect("removed");
            let copy = if output == "new" {
                merged.join("dst_strategy.ckpt")
            } else {
                sample.path("old/strategy")
            };
            std::fs::copy(sample.path(strategy), copy).expect("copied");
        }
        let job = Job { sample };
        for (epoch, step) in [(1, 10), (1, 20)] {
            job.checkpoint("old/checkpoint", epoch, step);
        }
        job
    }

    /// Saves the sample's weights as its four ranks would, with where they stand.
    fn checkpoint(&self, place: &str, epoch: u32, step: i32) {
        for rank in 0..4u32 {
            let index = usize::try_from(rank).expect("small");
            let mut shards = self
                .sample
                .four
                .cut(&self.sample.whole, index)
                .expect("cut");
            shards.extend(scalars(step));
            let room = self.sample.path(place).join(format!("rank_{rank}"));
            let name = format!("m_rank_{rank}-{epoch}_{step}.safetensors");
            tensors::write(&room.join(&name), &shards);
            let meta = json!({ "last_epoch": epoch, "last_step": step, "last_ckpt_file": name });
            tensors::write_bytes(&room.join("meta.json"), meta.to_string().as_bytes());
        }
    }

    fn path(&self, name: &str) -> String {
        self.sample.path(name).display().to_string()
    }

    fn config(&self, lines: &[(&str, &str)]) -> Vec<String> {
        let mut text = String::from("# a job\nrun_mode: finetune\nload_ckpt_format: safetensors\n");
        text.push_str(&format!("output_dir: '{}'\n", self.path("new")));
        for (key, value) in lines {
            let value = value
                .strip_prefix('@')
                .map_or_else(|| (*value).to_owned(), |name| self.path(name));
            text.push_str(&format!("{key}: {value}\n"));
        }
        let path = self.sample.path("train.yaml");
        std::fs::write(&path, text).expect("written");
        [
            "load",
            "--config",
            &path.display().to_string(),
            "--json",
            "--write-config",
            &self.path("out.yaml"),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn load(&self, lines: &[(&str, &str)]) -> Value {
        let told = object(&alone(&self.config(lines)).succeeds());
        support::schema::fits("load", &told);
        told
    }

    fn refuses(&self, lines: &[(&str, &str)], culprit: &str) {
        let run = alone(&self.config(lines));
        refuses(&run, culprit);
    }

    /// The new job's ranks have exactly these tensors, and those that tell where it stands.
    fn check(&self, directory: &str, extra: &Tensors) {
        for rank in 0..2 {
            let room = self.sample.path(directory).join(format!("rank_{rank}"));
            let files: Vec<_> = std::fs::read_dir(room)
                .expect("a directory")
                .map(|e| e.expect("entry").path())
                .collect();
            let file = files
                .iter()
                .find(|f| f.extension().is_some_and(|e| e == "safetensors"));
            let found = tensors::read(file.expect("a file")).expect("readable");
            let mut expected = self.sample.two.cut(&self.sample.whole, rank).expect("cut");
            expected.extend(extra.clone());
            tensors::compare(&expected, &found.tensors)
                .unwrap_or_else(|error| unreachable!("{error}"));
        }
    }
}

fn scalars(step: i32) -> Tensors {
    let scalar = |value: i32| Tensor {
        dtype: "I32".into(),
        shape: vec![],
        data: value.to_le_bytes().to_vec(),
    };
    Tensors::from([
        ("epoch_num".to_owned(), scalar(1)),
        ("step_num".to_owned(), scalar(step)),
        ("global_batch_size".to_owned(), scalar(16)),
    ])
}

const PARALLEL: [(&str, &str); 2] = [("use_parallel", "True"), ("auto_trans_ckpt", "True")];

#[test]
fn full_weights_on_one_device_need_nothing() {
    let job = Job::new();
    for source in ["@full", "@full/model.safetensors"] {
        let told = job.load(&[("load_checkpoint", source), ("use_parallel", "False")]);
        assert_eq!(
            (&told["action"], &told["ok"]),
            (&json!("none"), &json!(true))
        );
    }
    let told = job.load(&[("load_checkpoint", "''"), ("use_parallel", "True")]);
    assert_eq!(told["action"], "none");
}

/// A configuration beside them doesn't make them what the trainer reads.
#[test]
fn weights_of_another_form_are_none_for_the_trainer() {
    let job = Job::new();
    let write = "unify --src @full --dst @dcp --format dcp";
    alone(&job.sample.args(write)).succeeds();
    let asked = [("load_checkpoint", "@dcp"), PARALLEL[0], PARALLEL[1]];
    for described in [false, true] {
        if described {
            std::fs::write(job.sample.path("dcp/config.json"), "{}").expect("written");
        }
        let run = alone(&job.config(&asked));
        refuses(&run, "has no .safetensors weights");
        assert!(
            run.stderr.contains("it has weights of another form"),
            "{run:#?}"
        );
    }
}

/// A note names them, and the flag that takes them.
#[test]
fn full_weights_beside_ranks_are_taken_by_name() {
    let job = Job::new();
    std::fs::copy(
        job.sample.path("full/model.safetensors"),
        job.sample.path("old/checkpoint/model.safetensors"),
    )
    .expect("copied");
    let mut args = job.config(&[
        ("load_checkpoint", "@old/checkpoint"),
        PARALLEL[0],
        PARALLEL[1],
    ]);
    args.extend(["--weights".to_owned(), "model.safetensors".to_owned()]);
    for processes in [1, 4] {
        let told = object(&under_mpi(processes, &args).succeeds());
        assert_eq!(told["action"], "split");
        job.check("new/shardloom_checkpoint", &Tensors::new());
        std::fs::remove_dir_all(job.path("new/shardloom_checkpoint")).expect("removed");
    }
    args.pop();
    args.push("modl.safetensors".to_owned());
    let run = alone(&args);
    assert_eq!(run.status.code(), Some(2), "{run:#?}");
    assert!(
        run.stderr.contains("beside them lies model.safetensors"),
        "{run:#?}"
    );
}

#[test]
fn full_weights_on_several_devices_are_cut() {
    for processes in [None, Some(2)] {
        let job = Job::new();
        let args = job.config(&[("load_checkpoint", "@full"), PARALLEL[0], PARALLEL[1]]);
        let run = processes.map_or_else(|| alone(&args), |n| under_mpi(n, &args));
        let told = object(&run.succeeds());
        assert_eq!(told["action"], "split");
        assert_eq!(
            told["config"]["load_checkpoint"],
            job.path("new/shardloom_checkpoint")
        );
        job.check("new/shardloom_checkpoint", &Tensors::new());
        let written = std::fs::read_to_string(job.sample.path("out.yaml")).expect("written");
        assert!(
            written.starts_with("# a job\nrun_mode: finetune\n"),
            "{written}"
        );
        assert!(written.contains("auto_trans_ckpt: False\n"), "{written}");
        let again =
            object(&alone(&["load", "--config", &job.path("out.yaml"), "--json"]).succeeds());
        assert_eq!(
            again["action"], "none",
            "what was prepared is loaded as it is"
        );
    }
}

/// The next job's weights replace their directory, and would find a file in it that is none of theirs.
#[test]
fn a_configuration_is_not_written_among_the_weights() {
    let job = Job::new();
    let args = job.config(&[("load_checkpoint", "@full"), PARALLEL[0], PARALLEL[1]]);
    let among = job.path("new/shardloom_checkpoint/out.yaml");
    let args = args.into_iter().map(|arg| match arg.ends_with("out.yaml") {
        true => among.clone(),
        false => arg,
    });
    let run = alone(&args.collect::<Vec<_>>());
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    assert!(
        run.stderr
            .contains("out.yaml: lies inside the directory of the weights"),
        "{run:?}"
    );
    assert!(!job.sample.path("new/shardloom_checkpoint").exists());
}

/// Two files of full weights in one directory: the flag says which are meant.
#[test]
fn the_weights_that_are_named_are_cut() {
    let job = Job::new();
    let mut other = job.sample.whole.clone();
    other.values_mut().for_each(|tensor| tensor.data.fill(7));
    tensors::write(&job.sample.path("full/aside.safetensors"), &other);
    let mut args = job.config(&[("load_checkpoint", "@full"), PARALLEL[0], PARALLEL[1]]);
    args.extend(["--weights", "mod*"].map(str::to_owned));
    alone(&args).succeeds();
    job.check("new/shardloom_checkpoint", &Tensors::new());
    let last = args.len() - 1;
    args[last] = "as*".to_owned();
    args.push("--overwrite".to_owned());
    under_mpi(2, &args).succeeds();
    let found = job.path("new/shardloom_checkpoint/rank_0/net.safetensors");
    let found = tensors::read(found.as_ref()).expect("readable").tensors;
    assert!(
        found
            .values()
            .flat_map(|tensor| &tensor.data)
            .all(|byte| *byte == 7)
    );
    args[last] = "nothing*".to_owned();
    refuses(&alone(&args), "--weights 'nothing*'");
}

#[test]
fn the_same_layout_needs_nothing() {
    let job = Job::new();
    let plain = job.load(&[("load_checkpoint", "@old/checkpoint"), PARALLEL[0]]);
    assert_eq!(plain["action"], "none");
    std::fs::copy(
        job.path("four.ckpt"),
        job.path("new/merged_strategy/dst_strategy.ckpt"),
    )
    .expect("copied");
    let told = job.load(&[
        ("load_checkpoint", "@old/checkpoint"),
        PARALLEL[0],
        PARALLEL[1],
    ]);
    assert_eq!(
        (&told["action"], &told["config"]["auto_trans_ckpt"]),
        (&json!("none"), &json!(false))
    );
    assert!(
        told["notes"].to_string().contains("nothing to do"),
        "{told}"
    );
    assert!(!job.sample.path("new/shardloom_checkpoint").exists());
}

/// A manifest keeps the layout of what is there; the job's strategy may know of more.
#[test]
fn what_a_manifest_says_has_the_jobs_layout_needs_nothing() {
    let job = Job::new();
    let cut = |w1: &[i64]| {
        oracle::Strategy::of(&[
            ("b", layout(&[2], &[0])),
            ("w1", layout(&[2], w1)),
            ("w2", layout(&[2], &[-1, 0])),
            ("adam_m.w1", layout(&[2], &[0, -1])),
        ])
    };
    let (more, other) = (cut(&[0, -1]), cut(&[-1, 0]));
    for (strategy, action) in [
        (&job.sample.two, "none"),
        (&more, "none"),
        (&other, "reshard"),
    ] {
        let sample = &job.sample;
        let made = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --dst @mine/checkpoint --overwrite";
        alone(&sample.args(made)).succeeds();
        let bytes = oracle::to_protobuf(strategy);
        tensors::write_bytes(
            &sample.path("new/merged_strategy/dst_strategy.ckpt"),
            &bytes,
        );
        let told = job.load(&[
            ("load_checkpoint", "@mine/checkpoint"),
            PARALLEL[0],
            PARALLEL[1],
        ]);
        assert_eq!(told["action"], action, "{told}");
    }
}

#[test]
fn another_layout_is_resharded_and_resumed_from() {
    for processes in [None, Some(4)] {
        let job = Job::new();
        job.checkpoint("old/checkpoint", 1, 30);
        std::fs::remove_file(job.path("old/checkpoint/rank_3/m_rank_3-1_30.safetensors"))
            .expect("removed");
        let args = job.config(&[
            ("load_checkpoint", "@old/checkpoint"),
            ("resume_training", "True"),
            PARALLEL[0],
            PARALLEL[1],
            ("parallel_config", "{data_parallel: 1, model_parallel: 2}"),
            ("runner_config", "{batch_size: 32}"),
        ]);
        let run = processes.map_or_else(|| alone(&args), |n| under_mpi(n, &args));
        let told = object(&run.succeeds());
        assert_eq!(told["action"], "reshard");
        job.check("new/shardloom_checkpoint", &scalars(20));
        let resume = &told["resume"];
        assert_eq!(
            (&resume["step"], &resume["initial_step"]),
            (&json!(20), &json!(10))
        );
        assert_eq!(
            resume["global_batch_size"],
            json!({ "saved": 16, "new": 32 })
        );
        let latest = alone(&[
            "checkpoints",
            "latest",
            &job.path("new/shardloom_checkpoint"),
            "--json",
        ]);
        let latest = object(&latest.succeeds());
        assert_eq!(
            (&latest["suffix"], &latest["step"]),
            (&json!("1_20"), &json!(20))
        );
        assert_eq!(latest["files"][1], "rank_1/m_rank_1-1_20.safetensors");
    }
}

#[test]
fn steps_that_the_trainer_did_not_name_are_never_mixed() {
    let job = Job::new();
    let place = |rank: u32, name: &str| job.path(&format!("old/checkpoint/rank_{rank}/{name}"));
    for rank in 0..4 {
        for step in [10, 20] {
            let old = place(rank, &format!("m_rank_{rank}-1_{step}.safetensors"));
            let new = place(rank, &format!("net_{step}.safetensors"));
            std::fs::rename(old, new).expect("renamed");
        }
        std::fs::remove_file(place(rank, "meta.json")).expect("removed");
    }
    std::fs::remove_file(place(3, "net_20.safetensors")).expect("removed");
    let args = job.config(&[
        ("load_checkpoint", "@old/checkpoint"),
        PARALLEL[0],
        PARALLEL[1],
    ]);
    let run = alone(&args);
    refuses(&run, "net_20 on ranks 0-2; net_10 on ranks 0-3");
}

/// A trainer that doesn't resume takes of each rank what was written last, whatever step that is.
#[test]
fn ranks_that_would_load_several_steps_are_given_one() {
    let job = Job::new();
    let lost = "old/checkpoint/rank_3/m_rank_3-1_20.safetensors";
    std::fs::remove_file(job.path(lost)).expect("removed");
    let source = ("load_checkpoint", "@old/checkpoint");
    job.refuses(&[source, PARALLEL[0]], "1_20 on ranks 0-2; 1_10 on rank 3");
    let resumed = [source, PARALLEL[0], ("resume_training", "True")];
    assert_eq!(job.load(&resumed)["resume"]["step"], 10);
    // What can't be used it takes all the same, as all ranks have it by name.
    std::fs::write(job.path(lost), b"cut short").expect("written");
    for resumes in ["False", "True"] {
        let lines = [source, PARALLEL[0], ("resume_training", resumes)];
        job.refuses(
            &lines,
            "the trainer would take 1_20, which can't be used: rank 3",
        );
    }
    std::fs::remove_file(job.path(lost)).expect("removed");
    let same = [source, PARALLEL[0], PARALLEL[1]];
    std::fs::copy(
        job.path("four.ckpt"),
        job.path("new/merged_strategy/dst_strategy.ckpt"),
    )
    .expect("copied");
    let told = job.load(&same);
    assert_eq!(told["action"], "reshard", "{told}");
    let written = job.sample.path("new/shardloom_checkpoint/rank_3");
    let found = tensors::read(&written.join("m_rank_3-1_10.safetensors")).expect("readable");
    let step = found.tensors.get("step_num").expect("a step");
    assert_eq!(step.data, 10i32.to_le_bytes());
    // What all ranks wrote last is what each of them takes.
    let (left, right) = (job.path("old/checkpoint"), job.path("older/checkpoint"));
    std::fs::create_dir_all(&right).expect("a directory");
    for rank in 0..4 {
        let name = format!("rank_{rank}/m_rank_{rank}-1_10.safetensors");
        std::fs::create_dir_all(format!("{right}/rank_{rank}")).expect("a directory");
        std::fs::copy(format!("{left}/{name}"), format!("{right}/{name}")).expect("copied");
    }
    let told = job.load(&[("load_checkpoint", "@older/checkpoint"), PARALLEL[0]]);
    assert!(told["notes"].to_string().contains("its own file"), "{told}");
}

#[test]
fn resumes_from_the_file_that_is_named() {
    let job = Job::new();
    let named = ["m_rank_0-1_10", "m_rank_3-1_10.safetensors"];
    for name in named {
        let told = job.load(&[
            ("load_checkpoint", "@old/checkpoint"),
            ("resume_training", name),
            PARALLEL[0],
            PARALLEL[1],
        ]);
        assert_eq!(told["resume"]["step"], 10);
        job.check("new/shardloom_checkpoint", &scalars(10));
        std::fs::remove_dir_all(job.path("new/shardloom_checkpoint")).expect("removed");
    }
    let file = [
        (
            "load_checkpoint",
            "@old/checkpoint/rank_1/m_rank_1-1_10.safetensors",
        ),
        PARALLEL[0],
        PARALLEL[1],
    ];
    assert_eq!(job.load(&file)["action"], "reshard");
    job.check("new/shardloom_checkpoint", &scalars(10));
    job.refuses(
        &[
            ("load_checkpoint", "@old/checkpoint"),
            ("resume_training", "m_rank_0-7_7"),
            PARALLEL[0],
            PARALLEL[1],
        ],
        "7_7",
    );
}

#[test]
fn gathers_from_the_nodes_own_disks() {
    let job = Job::new();
    let args = job.config(&[
        ("load_checkpoint", "old/checkpoint"),
        ("resume_training", "True"),
        ("src_strategy_path_or_dir", "@four.ckpt"),
        PARALLEL[0],
        PARALLEL[1],
    ]);
    for rank in 0..4 {
        let room = job
            .sample
            .path(&format!("node_{}/old/checkpoint", rank / 2));
        std::fs::create_dir_all(&room).expect("a directory");
        std::fs::rename(
            job.path(&format!("old/checkpoint/rank_{rank}")),
            room.join(format!("rank_{rank}")),
        )
        .expect("moved");
    }
    let script = format!(
        "cd '{}'/node_${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}} && exec '{}' {} --dst out",
        job.sample.room.path().display(),
        env!("CARGO_BIN_EXE_shardloom"),
        args.join(" ")
    );
    let nodes = [("SHARDLOOM_NODES", "2")];
    let run = support::mpirun(2, Path::new("/bin/sh"), &["-c", &script], &nodes);
    let told = object(&run.succeeds());
    assert_eq!(
        (&told["action"], &told["nodes"]),
        (&json!("reshard"), &json!(2))
    );
    for rank in 0..2 {
        let room = job.sample.path(&format!("node_{rank}/out/rank_{rank}"));
        let found =
            tensors::read(&room.join(format!("m_rank_{rank}-1_20.safetensors"))).expect("a file");
        let mut expected = job.sample.two.cut(&job.sample.whole, rank).expect("cut");
        expected.extend(scalars(20));
        tensors::compare(&expected, &found.tensors).unwrap_or_else(|error| unreachable!("{error}"));
        assert!(room.join("meta.json").exists());
    }
}

#[test]
fn refuses_what_the_trainer_refuses_or_gets_wrong() {
    let job = Job::new();
    let cases: [(&[(&str, &str)], &str); 9] = [
        (
            &[("load_checkpoint", "@full/model.safetensors"), PARALLEL[0]],
            "one file",
        ),
        (
            &[("load_checkpoint", "@full"), PARALLEL[0]],
            "auto_trans_ckpt",
        ),
        (&[("load_checkpoint", "@old/checkpoint")], "use_parallel"),
        (
            &[
                (
                    "load_checkpoint",
                    "@old/checkpoint/rank_1/m_rank_1-1_10.safetensors",
                ),
                PARALLEL[0],
            ],
            "random",
        ),
        (&[("load_checkpoint", "@nowhere"), PARALLEL[0]], "nowhere"),
        (&[("resume_training", "True")], "load_checkpoint"),
        (
            &[("load_checkpoint", "@full"), ("use_parallel", "[1]")],
            "train.yaml",
        ),
        (
            &[
                ("load_checkpoint", "@full"),
                ("resume_training", "True"),
                PARALLEL[0],
                PARALLEL[1],
            ],
            "hyper_param",
        ),
        (
            &[
                ("load_checkpoint", "@full"),
                PARALLEL[0],
                PARALLEL[1],
                ("parallel_config", "{data_parallel: 8}"),
            ],
            "8",
        ),
    ];
    for (lines, culprit) in cases {
        job.refuses(lines, culprit);
        assert!(!job.sample.path("out.yaml").exists());
    }
    // A slip of the pen would leave the mesh as it is without the key.
    for slip in ["paralel_config", "parallel_configs"] {
        let line = [("load_checkpoint", "@full"), (slip, "{data_parallel: 8}")];
        job.refuses(&line, &format!("{slip} is no key that a trainer knows"));
    }
    let run = alone(&job.config(&[("load_checkpoint", "@full"), PARALLEL[0]]));
    assert_eq!(object(&run)["error"]["kind"], "config");
}

#[test]
fn a_configuration_takes_the_place_of_nothing_that_is_read() {
    let job = Job::new();
    let lines = [("load_checkpoint", "@full")];
    for place in ["train.yaml", "full/ready.yaml", "full"] {
        let mut args = job.config(&lines);
        let written = args.last_mut().expect("a place");
        *written = job.path(place);
        let before = std::fs::read(job.path("train.yaml")).expect("a file");
        let run = alone(&args);
        assert_eq!(run.status.code(), Some(2), "{place}: {run:#?}");
        assert!(run.stdout.contains("\"usage\""), "{place}: {run:#?}");
        assert_eq!(
            std::fs::read(job.path("train.yaml")).expect("a file"),
            before
        );
        assert!(!job.sample.path("full/ready.yaml").exists());
    }
}

// proves P158
#[test]
fn the_old_merge_script_is_replaced_by_changing_its_name() {
    let job = Job::new();
    let old = "unify --mindspore_ckpt_dir @old/checkpoint --src_strategy_dirs @four.ckpt --output_dir @out \
               --file_suffix 1_10 --has_redundancy True --filter_out_param_prefix b --max_process_num 64 \
               --format safetensors";
    alone(&job.sample.args(old)).succeeds();
    let merged =
        tensors::read(&job.sample.path("out/model-00001-of-00001.safetensors")).expect("a file");
    assert_eq!(merged.tensors.keys().collect::<Vec<_>>(), ["w1", "w2"]);
    let wrong = alone(
        &job.sample
            .args("unify --src a --dst b --has_redundancy perhaps"),
    );
    assert_eq!(wrong.status.code(), Some(2), "{wrong:#?}");
}
