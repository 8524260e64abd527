//! The examples that helps begin with, run as they are typed; under the launcher with two processes.

use crate::support::command::{alone, program};
use crate::support::fixtures::{data, tensors_of};
use crate::support::oracle::Strategy;
use crate::support::sample::{Sample, layout};
use crate::support::tensors::{self, Tensor, Tensors};
use crate::support::{self, Run, launcher};
use std::path::Path;
use std::process::Command;

/// What examples have that aren't run here, and where the same is run.
const ELSEWHERE: &[(&str, &str)] = &[
    // A trainer's configuration, with its job's output.
    ("train.yaml", "tests/load.rs"),
    // Strategies of the stages of a pipeline.
    ("first.ckpt", "tests/golden.rs"),
    // What takes minutes, or a disk.
    ("bench all", "tests/bench.rs"),
    ("bench collectives", "tests/bench.rs"),
    ("bench storage --dir /scratch", "tests/bench.rs"),
    ("--bytes 1GiB", "tests/bench.rs"),
];
/// What the model of the examples is called.
const MODEL: &str = "Qwen3-8B";

/// All commands: those of the program, and those in them.
fn commands() -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut next = 0;
    while let Some(words) = found.get(next).cloned() {
        let mut line = words.clone();
        line.push("--help".to_owned());
        let help = alone(&line).succeeds().stdout;
        let names = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let names = names.take_while(|line| !line.is_empty());
        let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        for name in names.filter_map(|line| line.split_whitespace().next()) {
            if name != "help" {
                found.push([words.clone(), vec![name.to_owned()]].concat());
            }
        }
        next += 1;
    }
    found.split_off(1)
}

fn examples(command: &[String]) -> Vec<String> {
    let mut line = command.to_vec();
    line.push("--help".to_owned());
    let help = alone(&line).succeeds().stdout;
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    lines.map(|line| line.trim().to_owned()).collect()
}

/// The words of a line, without the quotation marks that a shell takes away.
fn words(line: &str) -> Vec<String> {
    let words = line.split_whitespace();
    words
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

/// Runs the program in the sample's room: the words of a line behind its name.
fn done(sample: &Sample, line: &str) -> Run {
    let mut command = Command::new(program());
    command.args(words(line)).current_dir(sample.room.path());
    support::run(command).succeeds()
}

/// The places that examples name: a checkpoint of four ranks, one of several steps of eight, strategies, full
/// weights.
fn weights() -> Sample {
    let whole = Tensors::from([
        ("b".to_owned(), Tensor::counting("F32", &[16], 3)),
        ("w1".to_owned(), Tensor::counting("BF16", &[8, 16], 50)),
        (
            "layers.0.wq.weight".to_owned(),
            Tensor::counting("F32", &[16, 8], 90),
        ),
    ]);
    let four = Strategy::of(&[
        ("b", layout(&[2, 2], &[-1])),
        ("w1", layout(&[2, 2], &[1, 0])),
        ("layers.0.wq.weight", layout(&[2, 2], &[0, -1])),
    ]);
    let two = Strategy::of(&[
        ("b", layout(&[2], &[0])),
        ("w1", layout(&[2], &[0, -1])),
        ("layers.0.wq.weight", layout(&[2], &[-1, 0])),
    ]);
    let sample = Sample::of(whole, four, two);
    for rank in 0..8 {
        let from = format!("src/rank_{}/net.safetensors", rank % 4);
        if rank < 4 {
            let to = format!("ckpt/rank_{rank}/m_rank_{rank}-1_20.safetensors");
            sample.copy(&from, &to);
        }
        for step in [20, 40, 60] {
            let to = format!("output/rank_{rank}/m_rank_{rank}-1_{step}.safetensors");
            sample.copy(&from, &to);
        }
    }
    for (from, to) in [
        ("four.ckpt", "strategy/strategy.ckpt"),
        ("two.ckpt", "new/strategy.ckpt"),
        ("two.ckpt", "merged.ckpt"),
        ("full/model.safetensors", "net.safetensors"),
    ] {
        sample.copy(from, to);
    }
    let shapes = r#"{"b": {"dtype": "F32", "shape": [16]}, "w1": {"dtype": "BF16", "shape": [8, 16]}, "layers.0.wq.weight": {"dtype": "F32", "shape": [16, 8]}}"#;
    let job = "shardloom reshard --src ckpt --src-strategy strategy --dst out --dst-strategy new\n";
    for (name, text) in [
        ("shapes.json", shapes),
        ("s.json", shapes),
        ("jobs.txt", job),
    ] {
        std::fs::write(sample.path(name), text).expect("written");
    }
    sample
}

/// A Hugging Face model whose keys and values can be cut in four, the same trained by four ranks, and as full weights.
fn model() -> Sample {
    let sample = Sample::in_memory();
    for name in ["full", "src"] {
        std::fs::remove_dir_all(sample.path(name)).expect("removed");
    }
    let real = data().join("model/qwen3/hf");
    let mut weights = tensors_of(&real.join("model.safetensors")).expect("a model");
    for (name, tensor) in &mut weights {
        if name.ends_with("k_proj.weight") || name.ends_with("v_proj.weight") {
            let shape = [tensor.shape[0] * 2, tensor.shape[1]];
            *tensor = Tensor::counting(&tensor.dtype.clone(), &shape, 7);
        }
    }
    tensors::write(
        &sample.path(&format!("{MODEL}/model.safetensors")),
        &weights,
    );
    let text = std::fs::read_to_string(real.join("config.json")).expect("a model");
    let (two, four) = ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4");
    assert!(text.contains(two), "{text}");
    let config = sample.path(&format!("{MODEL}/config.json"));
    std::fs::write(config, text.replace(two, four)).expect("written");
    for line in [
        "strategy derive --parallel dp=1,tp=4 --model Qwen3-8B --names mcore --output strategy",
        "strategy derive --parallel dp=1,tp=4 --model Qwen3-8B --names mcore --output output/strategy",
        "import --hf Qwen3-8B --dst ckpt --dst-strategy strategy --names mcore",
        "import --hf Qwen3-8B --dst output/checkpoint --dst-strategy strategy --names mcore",
        "unify --src ckpt --src-strategy strategy --dst full",
    ] {
        done(&sample, line);
    }
    sample
}

/// What some examples want besides.
fn prepare(sample: &Sample, line: &str) {
    let more_steps = [("1_20,1_40", "1_40"), ("1_2000", "1_2000")];
    for (_, step) in more_steps.iter().filter(|(word, _)| line.contains(word)) {
        for rank in 0..4 {
            let named = |step: &str| format!("ckpt/rank_{rank}/m_rank_{rank}-{step}.safetensors");
            sample.copy(&named("1_20"), &named(step));
        }
    }
    if line.contains("diff net.ckpt") {
        done(sample, "convert net.safetensors --dst other --to ckpt");
        sample.copy("other/net.ckpt", "net.ckpt");
    }
    if line.contains("convert ckpt") {
        done(sample, "convert ckpt --dst other --to ckpt");
        std::fs::remove_dir_all(sample.path("ckpt")).expect("removed");
        std::fs::rename(sample.path("other"), sample.path("ckpt")).expect("moved");
    }
    let is = |name: &str| line.contains(&format!("shardloom {name} "));
    if is("verify") || (is("diff") && line.contains(" out ")) {
        done(
            sample,
            "reshard --src ckpt --src-strategy strategy --dst out --dst-strategy new",
        );
    }
    if is("verify") {
        std::fs::remove_dir_all(sample.path("full")).expect("removed");
        done(
            sample,
            "unify --src ckpt --src-strategy strategy --dst full",
        );
    }
    if line.contains("Mine-7B") {
        let table = done(sample, "families --print qwen3").stdout;
        std::fs::write(sample.path("mine.json"), table).expect("written");
        let named = (sample.path(MODEL), sample.path("Mine-7B"));
        std::fs::rename(named.0, named.1).expect("moved");
    }
    // A result's place is free.
    let words = words(line);
    let places = words
        .windows(2)
        .filter(|pair| ["--dst", "--output"].contains(&&*pair[0]));
    for place in places.map(|pair| sample.path(&pair[1])) {
        if place.is_dir() {
            std::fs::remove_dir_all(place).expect("removed");
        } else if place.exists() {
            std::fs::remove_file(place).expect("removed");
        }
    }
}

/// Runs a line as it is typed; gives what is wrong.
fn run(line: &str) -> Option<String> {
    let of_model = [MODEL, "Mine-7B"].iter().any(|name| line.contains(name));
    let sample = if of_model { model() } else { weights() };
    prepare(&sample, line);
    // Disks that this machine hasn't.
    let room = sample.room.path().display();
    let line = line
        .replace(" /scratch", &format!(" {room}/scratch"))
        .replace(" /shared", &format!(" {room}/shared"));
    let (before, typed) = line.split_once("shardloom ").expect("the program");
    let mut command = match before.trim() {
        "" => Command::new(program()),
        before => {
            assert!(before.starts_with("mpirun -n "), "{line}");
            let mut command = launcher(2);
            command.arg(program());
            command
        }
    };
    command.args(words(typed)).current_dir(sample.room.path());
    let ended = support::run(command);
    let code = ended.status.code();
    let well = match typed.split_whitespace().next() {
        // These tell of differences, or of this machine, by their code.
        Some("strategy") if typed.starts_with("strategy diff") => {
            code.is_some_and(|code| code <= 1)
        }
        Some("doctor") => code.is_some_and(|code| code <= 1),
        _ => code == Some(0),
    };
    (!well || ended.stderr.contains("error: ")).then(|| format!("{line}: {ended:#?}"))
}

#[test]
fn examples_run_as_they_are_typed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut lines: Vec<String> = commands().iter().flat_map(|name| examples(name)).collect();
    lines.sort();
    lines.dedup();
    for (word, file) in ELSEWHERE {
        assert!(lines.iter().any(|line| line.contains(word)), "{word}");
        assert!(root.join(file).exists(), "{file}");
    }
    let here = |line: &&String| !ELSEWHERE.iter().any(|(word, _)| line.contains(word));
    let here: Vec<&String> = lines.iter().filter(here).collect();
    let failed: Vec<String> = here.iter().filter_map(|line| run(line)).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(here.len() >= 55, "{}", here.len());
}
