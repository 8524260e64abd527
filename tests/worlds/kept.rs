//! What goes along from one checkpoint to another, or is said to stay behind.

use super::{copied, copy, expected, full, run, source};
use crate::support::command::object;
use crate::support::tensors::{compare, read};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What `inspect` shows of a source beside tensors.
fn shown_values(place: &str) -> Value {
    let shown = object(&run(1, &format!("inspect {place} --json")).succeeds());
    let files = shown["files"].as_array().expect("files");
    let values = files
        .iter()
        .flat_map(|file| file["metadata"].as_object().cloned());
    values.flatten().collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn values_go_along_byte_for_byte_or_are_said_to_stay() {
    let room = tempfile::tempdir().expect("a directory");
    let at = |name: &str| room.path().join(name).display().to_string();
    let src = source("dcp_values");
    for (processes, from, to) in [(1, src.as_str(), "one"), (3, &*at("one"), "two")] {
        let line = format!("unify --src {from} --dst {} --format dcp", at(to));
        let done = run(processes, &line).succeeds();
        assert!(!done.stdout.contains("behind"), "{done:#?}");
    }
    let due = shown_values(&src);
    assert!(due.as_object().expect("values").len() > 5, "{due}");
    assert_eq!(shown_values(&at("two")), due);
    // The archive of one value, as torch wrote it.
    let wrote = [PathBuf::from(&src), room.path().join("two")].map(|place| {
        let files = std::fs::read_dir(place).expect("a directory");
        let files = files.map(|entry| entry.expect("an entry").path());
        let files = files.filter(|path| path.extension().is_some_and(|end| end == "distcp"));
        files
            .flat_map(|path| std::fs::read(path).expect("a file"))
            .collect::<Vec<u8>>()
    });
    let text = "größer".as_bytes();
    let around = |bytes: &[u8]| {
        let found = bytes.windows(text.len()).position(|part| part == text);
        let found = found.expect("the value is there");
        bytes[found - 60..found + 700].to_vec()
    };
    assert_eq!(around(&wrote[0]), around(&wrote[1]));
    let left = run(1, &format!("unify --src {src} --dst {}", at("full"))).succeeds();
    assert!(
        left.stdout.contains("are no tensors and stay behind"),
        "{left:#?}"
    );
    let kept = run(
        1,
        &format!("unify --src {src} --dst {} --format dcp-hf", at("hf")),
    )
    .succeeds();
    assert!(kept.stdout.contains("stay behind"), "{kept:#?}");
    compare(&expected("dcp_values"), &full(&room.path().join("hf")))
        .unwrap_or_else(|why| unreachable!("{why}"));
}

#[test]
fn each_node_may_have_its_own_ranks_files_alone() {
    for (name, files) in [
        ("dcp_shard0", ["__0_0.distcp", "__1_0.distcp"]),
        (
            "hyper_parallel",
            ["_rank0_.safetensors", "_rank1_.safetensors"],
        ),
    ] {
        let room = tempfile::tempdir().expect("a directory");
        for node in 0..2 {
            let to = room.path().join(format!("node_{node}/src"));
            copy(Path::new(&source(name)), &to);
            std::fs::remove_file(to.join(files[1 - node])).expect("the other's");
            if node == 1 {
                std::fs::remove_file(to.join(".metadata")).expect("a pickle");
            }
        }
        let script = format!(
            "cd '{}'/node_${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}} && exec '{}' unify --src src --dst out",
            room.path().display(),
            env!("CARGO_BIN_EXE_shardloom")
        );
        let nodes = [("SHARDLOOM_NODES", "2")];
        crate::support::mpirun(2, Path::new("sh"), &["-c", &script], &nodes).succeeds();
        let found = full(&room.path().join("node_0/out"));
        compare(&expected(name), &found).unwrap_or_else(|why| unreachable!("{name}: {why}"));
    }
}

#[test]
fn a_dynamic_graphs_checkpoint_stays_one() {
    let room = tempfile::tempdir().expect("a directory");
    let at = |name: &str| room.path().join(name).display().to_string();
    let src = copied("dyn_dp2tp2", room.path());
    let adapter = br#"{"format": "mindformers_pynative_lora_adapter_v1", "base_load_path": "/w"}"#;
    for place in ["", "iteration_00000020/"] {
        let path = src.join(format!("{place}mindformers_adapter_config.json"));
        std::fs::write(path, adapter).expect("a small file");
    }
    run(
        1,
        &format!("unify --src {} --dst {}", src.display(), at("full")),
    )
    .succeeds();
    let rule = "--rule *linear_fc1.weight=tp,-";
    let weights = at("full");
    run(
        1,
        &format!(
            "strategy new --mesh tp=2 {rule} --weights {weights} --output {}",
            at("s.ckpt")
        ),
    )
    .succeeds();
    let line = format!(
        "reshard --src {} --dst-strategy {} --dst {} --format checkpoint2",
        src.display(),
        at("s.ckpt"),
        at("out")
    );
    run(4, &line).succeeds();
    let out = room.path().join("out");
    let text = |path: &str| std::fs::read(out.join(path)).expect("a small file");
    let json = |path: &str| serde_json::from_slice::<Value>(&text(path)).expect("JSON");
    assert_eq!(text("latest_checkpointed_iteration.txt"), b"20");
    assert_eq!(text("mindformers_adapter_config.json"), adapter);
    let counts = json("iteration_00000020/common.json");
    assert_eq!(
        (&counts["step_num"], &counts["consumed_samples"]),
        (&100.into(), &320.into())
    );
    let metadata = json("iteration_00000020/metadata.json");
    let step = &metadata["state_dict_metadata"]["global_step"];
    assert_eq!(
        (&step["properties"]["dtype"], &step["layout"]),
        (&"int64".into(), &Value::Null)
    );
    let file =
        |kind: &str| format!("iteration_00000020/checkpoint-{kind}-0000001-0000002.safetensors");
    let tensors = |kind: &str| read(&out.join(file(kind))).expect("a file").tensors;
    assert_eq!(tensors("opt")["global_step"].data, 20i64.to_le_bytes());
    assert!(!tensors("model").contains_key("global_step"));
    let found = run(1, &format!("diff {} {} --json", src.display(), at("out")));
    assert_eq!(object(&found)["equal"], true, "{found:#?}");
}
