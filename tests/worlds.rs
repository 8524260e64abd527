//! Checkpoints of other frameworks, written by these themselves: read bit-equal by every command, and
//! refused by name where they lie.

#![allow(clippy::expect_used, unreachable_pub)]

mod support;

use command::{alone, object, under_mpi};
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::tensors::{Tensors, compare, read};
use support::{Run, command, fixtures};

fn case(name: &str) -> PathBuf {
    fixtures::data().join("worlds").join(name)
}

fn manifest(name: &str) -> Value {
    let text = std::fs::read(case(name).join("manifest.json")).expect("a manifest");
    serde_json::from_slice(&text).expect("JSON")
}

fn expected(name: &str) -> Tensors {
    read(&case(name).join("expected.safetensors"))
        .expect("what is due")
        .tensors
}

fn source(name: &str) -> String {
    let inside = manifest(name)["src"].as_str().expect("a path").to_owned();
    case(name).join(inside).display().to_string()
}

fn run(processes: u32, line: &str) -> Run {
    let args: Vec<&str> = line.split(' ').collect();
    match processes {
        1 => alone(&args),
        _ => under_mpi(processes, &args),
    }
}

/// All tensors of the safetensors files in a directory, but for those of hyper parameters.
fn full(directory: &Path) -> Tensors {
    let mut all = Tensors::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if name.ends_with(".safetensors") && !name.starts_with("hyper") {
            all.extend(read(&path).expect("it is read").tensors);
        }
    }
    all
}

const READ: [&str; 7] = [
    "dcp_plain",
    "dcp_shard0",
    "dcp_values",
    "mg_tp2",
    "pt_views",
    "pt_training",
    "dyn_dp2tp2",
];

#[test]
fn what_they_wrote_is_read_bit_equal() {
    let room = tempfile::tempdir().expect("a directory");
    for (number, name) in READ.into_iter().enumerate() {
        let out = room.path().join(name);
        let (src, dst) = (source(name), out.display());
        let processes = if number % 3 == 1 { 4 } else { 1 };
        run(processes, &format!("unify --src {src} --dst {dst}")).succeeds();
        let found = full(&out);
        compare(&expected(name), &found).unwrap_or_else(|why| unreachable!("{name}: {why}"));
        let found = run(1, &format!("diff {src} {dst} --json"));
        assert_eq!(object(&found)["equal"], true, "{name}: {found:#?}");
        let shown = object(&run(1, &format!("inspect {src} --json")).succeeds());
        if name == "dyn_dp2tp2" {
            continue;
        }
        let files = shown["files"].as_array().expect("files");
        let tensors = files
            .iter()
            .flat_map(|file| file["tensors"].as_array().expect("tensors"));
        let shapes: Vec<(&str, &Value)> = tensors
            .map(|tensor| (tensor["name"].as_str().expect("a name"), &tensor["shape"]))
            .collect();
        let due = manifest(name);
        let due = due["tensors"].as_object().expect("tensors");
        assert_eq!(shapes.len(), due.len(), "{name}: {shapes:?}");
        for (tensor, shape) in shapes {
            assert_eq!(&due[tensor]["shape"], shape, "{name}: {tensor}");
        }
    }
}

#[test]
fn values_are_shown_and_counts_are_written_once() {
    let shown = object(&run(1, &format!("inspect {} --json", source("dcp_values"))).succeeds());
    let files = shown["files"].as_array().expect("files");
    let told = |key: &str| {
        let found = files.iter().find_map(|file| file["metadata"][key].as_str());
        found.unwrap_or_default().to_owned()
    };
    let values = [
        told("config.heads"),
        told("lr"),
        told("name"),
        told("list"),
        told("flag"),
    ];
    let due = [
        "4",
        "0.00025",
        "\"a run – größer\"",
        "[1,\"two\",3.0]",
        "true",
    ];
    assert_eq!(values, due);
    let room = tempfile::tempdir().expect("a directory");
    let out = room.path().join("out");
    run(
        1,
        &format!(
            "unify --src {} --dst {}",
            source("dyn_dp2tp2"),
            out.display()
        ),
    )
    .succeeds();
    let hyper = read(&out.join("hyper_param.safetensors"))
        .expect("counts")
        .tensors;
    assert!(
        !hyper.contains_key("global_step"),
        "it is among the weights"
    );
    assert_eq!(hyper["consumed_samples"].data, 320i64.to_le_bytes());
}
