//! The examples that helps begin with, run as they are typed.

use crate::support;
use crate::support::command::alone;
use crate::support::sample::Sample;
use std::path::Path;
use std::process::Command;

/// What isn't there, takes long, or looks at the machine.
const ELSEWHERE: &[&str] = &[
    "Qwen3-8B",
    "Mine-7B",
    "train.yaml",
    "/scratch",
    "1_2000",
    "1_20,1_40",
    "first.ckpt",
    "jobs.txt",
    "--against",
    "--repair",
    "*.wq.weight",
    "bench",
    "doctor",
    "convert ckpt",
    "--ranks 8",
];

/// The places that examples name: a checkpoint of four ranks, strategies, full weights, and a result.
fn room() -> Sample {
    let sample = Sample::in_memory();
    let copy = |from: &str, to: &str| sample.copy(from, to);
    for rank in 0..4 {
        let from = format!("src/rank_{rank}/net.safetensors");
        copy(
            &from,
            &format!("ckpt/rank_{rank}/m_rank_{rank}-1_20.safetensors"),
        );
        for step in [20, 40, 60] {
            copy(
                &from,
                &format!("output/rank_{rank}/m_rank_{rank}-1_{step}.safetensors"),
            );
        }
    }
    for (from, to) in [
        ("four.ckpt", "strategy/strategy.ckpt"),
        ("two.ckpt", "new/strategy.ckpt"),
        ("two.ckpt", "merged.ckpt"),
        ("full/model.safetensors", "net.safetensors"),
        ("full/model.safetensors", "net.ckpt"),
    ] {
        copy(from, to);
    }
    let shapes = r#"{"b": {"dtype": "F32", "shape": [16]}, "w1": {"dtype": "BF16", "shape": [8, 16]}, "w2": {"dtype": "F32", "shape": [16, 8]}}"#;
    std::fs::write(sample.path("shapes.json"), shapes).expect("written");
    sample
}

fn examples(command: &[String]) -> Vec<String> {
    let mut line = command.to_vec();
    line.push("--help".to_owned());
    let help = alone(&line).succeeds().stdout;
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    lines.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn examples_run_as_they_are_typed() {
    let help = alone(&["--help"]).succeeds().stdout;
    let names = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = names.take_while(|line| !line.is_empty());
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut run = 0;
    let mut failed = Vec::new();
    for name in names.into_iter().filter(|name| *name != "help") {
        for line in examples(&[name.to_owned()]) {
            if ELSEWHERE.iter().any(|word| line.contains(word)) {
                continue;
            }
            let sample = room();
            let start = |line: &str, destination: &str| {
                let words = shell(line);
                let mut command = Command::new(env!("CARGO_BIN_EXE_shardloom"));
                command.args(&words).current_dir(sample.room.path());
                let ended = support::run(command);
                assert!(
                    destination.is_empty() || ended.status.success(),
                    "{ended:#?}"
                );
                ended
            };
            if line.contains(" --dst full") {
                std::fs::remove_dir_all(sample.path("full")).expect("removed");
            }
            if ["diff", "verify"].contains(&name) && line.contains(" out") {
                start(
                    "reshard --src ckpt --src-strategy strategy --dst out --dst-strategy new",
                    "out",
                );
            }
            if line.contains("merged.ckpt") && line.contains("--output") {
                std::fs::remove_file(sample.path("merged.ckpt")).expect("removed");
            }
            let line = line
                .split_once("shardloom ")
                .expect("the program")
                .1
                .to_owned();
            let ended = start(&line, "");
            run += 1;
            if ended.status.code() != Some(0) {
                failed.push(format!("{line}: {}", ended.stderr));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(run >= 20, "{run}");
    assert!(Path::new(env!("CARGO_BIN_EXE_shardloom")).exists());
}

fn shell(line: &str) -> Vec<String> {
    line.split_whitespace()
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}
