//! The schemas in docs/schema against what the program prints.

use crate::support::Run;
use crate::support::command::{RESHARD, alone, under_mpi};
use crate::support::fixtures;
use crate::support::sample::Sample;
use crate::support::schema::{fits, folder};
use serde_json::Value;
use std::collections::BTreeSet;

#[track_caller]
fn printed(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|_| unreachable!("no object: {run:#?}"))
}

// proves P13, P161
#[test]
fn what_is_printed_is_as_the_schemas_say() {
    let sample = Sample::in_memory();
    std::fs::create_dir_all(sample.path("empty")).expect("a directory");
    let mut seen = BTreeSet::new();
    for line in [
        RESHARD,
        "reshard --src @src --src-strategy @four.ckpt --dst @dry --dst-strategy @two.ckpt --dry-run",
        "unify --src @src --src-strategy @four.ckpt --dst @full2",
        "split --src @full --dst @cut --dst-strategy @two.ckpt",
        "convert @full --dst @converted --to ckpt",
        "diff @src @out --a-strategy @four.ckpt --b-strategy @two.ckpt",
        "verify @out",
        "inspect @src",
        "inspect @four.ckpt",
        "simulate --src-strategy @four.ckpt --dst-strategy @two.ckpt --shapes @full",
        "strategy show @four.ckpt",
        "strategy diff @four.ckpt @four.ckpt",
        "config",
        "formats",
        "families",
        "generate completions bash",
    ] {
        let run = alone(&sample.args(&format!("{line} --json"))).succeeds();
        let name = line.split(' ').next().expect("a command");
        fits(name, &printed(&run));
        seen.insert(name.to_owned());
    }
    let places = alone(&sample.args("inspect @src --places --json")).succeeds();
    let places = printed(&places);
    fits("inspect", &places);
    assert_eq!(
        places["files"][0]["tensors"][0]["places"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    // To the trainer's names and back.
    let model = fixtures::data()
        .join("model/qwen3/hf")
        .display()
        .to_string();
    for (name, line) in [
        ("inspect", format!("inspect {model} --names")),
        (
            "import",
            format!("import --hf {model} --dst @trained --names mcore"),
        ),
        (
            "export",
            format!("export --src @trained --hf-config {model} --dst @back"),
        ),
    ] {
        fits(
            name,
            &printed(&alone(&sample.args(&format!("{line} --json"))).succeeds()),
        );
        seen.insert(name.to_owned());
    }
    fits(
        "doctor",
        &printed(&alone(&sample.args("doctor @out --json"))),
    );
    let bench = "bench collectives --operation barrier --time 1ms --json";
    fits(
        "bench",
        &printed(&under_mpi(2, &sample.args(bench)).succeeds()),
    );
    let again = format!("{RESHARD} --json --progress json");
    let failed = alone(&sample.args(&again)).fails();
    fits("error", &printed(&failed));
    let wrong =
        alone(&sample.args("reshard --src @src --dst @x --json --machine @none.json")).fails();
    fits("error", &printed(&wrong));
    let told = failed.stderr.lines().filter(|line| line.starts_with('{'));
    let told: Vec<Value> = told
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(!told.is_empty(), "{failed:#?}");
    told.iter().for_each(|line| fits("progress", line));
    for rank in 0..4 {
        let folder = sample.path(&format!("run/rank_{rank}"));
        std::fs::create_dir_all(&folder).expect("a directory");
        let from = sample.path(&format!("src/rank_{rank}/net.safetensors"));
        std::fs::copy(from, folder.join(format!("m_rank_{rank}-1_20.safetensors")))
            .expect("copied");
    }
    let list = "checkpoints list @run --json";
    fits(
        "checkpoints",
        &printed(&alone(&sample.args(list)).succeeds()),
    );
    let batch = "batch --steps all --src @run --src-strategy @four.ckpt --dst @all --json";
    let lines = alone(&sample.args(batch)).succeeds().stdout;
    for line in lines.lines() {
        fits("batch", &serde_json::from_str(line).expect("JSON"));
    }
    seen.extend(
        [
            "doctor",
            "bench",
            "error",
            "progress",
            "checkpoints",
            "batch",
        ]
        .map(str::to_owned),
    );
    // What these print is checked where there is a model.
    seen.extend(["load", "to"].map(str::to_owned));
    let files = std::fs::read_dir(folder()).expect("schemas");
    let files = files.map(|file| {
        file.expect("a file")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    let names: BTreeSet<String> = files
        .map(|file| file.trim_end_matches(".schema.json").to_owned())
        .collect();
    assert_eq!(names, seen);
}
