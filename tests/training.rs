//! A real training job that is killed, resharded and resumed: does it learn as if nothing had happened?

use crate::support::processes;
use crate::support::{Run, alone, example, launcher, mpirun};
use rustix::process::{Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Steps of the whole training, and the step that all resume from.
const STEPS: u64 = 40;
const SAVED: u64 = 20;
/// How far a loss may be off, relative to its size.
const TOLERANCE: f64 = 1e-6;

/// The model as its config.json has it.
const CONFIG: &str = r#"{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 256,
    "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 128}"#;
/// How long a job may take to come to the step at which it is killed, and to end then.
const LIMIT: Duration = Duration::from_secs(60);

/// Four processes each; the threads of the tensor library would only wait for cores.
const ONE_THREAD: (&str, &str) = ("RAYON_NUM_THREADS", "1");

/// Trains in `layout`, below `room`.
fn train(room: &Path, layout: &str, more: &[&str]) -> Run {
    let directory = room.display().to_string();
    let mut args: Vec<&str> = layout.split_whitespace().collect();
    args.extend(["--save-every", "20", "--dir", &directory]);
    args.extend(more);
    mpirun(4, &example("train_lm"), &args, &[ONE_THREAD]).succeeds()
}

/// The losses that a job has printed, by step.
fn losses(stdout: &str) -> BTreeMap<u64, f64> {
    let line = |line: &str| -> Option<(u64, f64)> {
        let (step, loss) = line.strip_prefix("step ")?.split_once(" loss ")?;
        Some((step.parse().ok()?, loss.parse().ok()?))
    };
    stdout.lines().filter_map(line).collect()
}

/// Starts a training that would go on for ever, and kills all its processes in the middle of the steps
/// after the checkpoint. Gives what it had printed.
fn train_and_kill(room: &Path, layout: &str) -> String {
    let output = tempfile::NamedTempFile::new().expect("a temporary file");
    let read = || std::fs::read_to_string(output.path()).expect("a text");
    let mut child = launcher(4)
        .arg(example("train_lm"))
        .args(layout.split_whitespace())
        .args(["--steps", "1000000", "--save-every", "20", "--dir"])
        .arg(room)
        .env(ONE_THREAD.0, ONE_THREAD.1)
        .stdin(Stdio::null())
        .stdout(File::create(output.path()).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the launcher starts");
    let start = Instant::now();
    while !losses(&read()).contains_key(&(SAVED + 3)) {
        assert!(start.elapsed() < LIMIT, "{}", read());
        assert!(child.try_wait().expect("a child").is_none(), "{}", read());
        std::thread::sleep(Duration::from_millis(1));
    }
    let running = || processes::of(&example("train_lm"), room);
    let victims = running();
    assert_eq!(victims.len(), 4, "{victims:?}");
    for victim in victims {
        kill_process(victim, Signal::KILL).expect("it was alive");
    }
    let killed = Instant::now();
    while !running().is_empty() {
        assert!(killed.elapsed() < LIMIT, "killed processes are still there");
        std::thread::sleep(Duration::from_millis(1));
    }
    // OpenMPI 4.1.4's launcher may stand still while it ends.
    while child.try_wait().expect("a child").is_none() {
        if killed.elapsed() > Duration::from_secs(10) {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!child.wait().expect("a child").success());
    read()
}

/// `shardloom` with the words of `line`, where `@name` is a path below `room`.
fn shardloom(room: &Path, line: &str) -> Run {
    let path = |name: &str| room.join(name).display().to_string();
    let words = line.split_whitespace();
    let words = words.map(|word| word.strip_prefix('@').map_or_else(|| word.to_owned(), path));
    let words: Vec<String> = words.collect();
    let args: Vec<&str> = words.iter().map(String::as_str).collect();
    alone(Path::new(env!("CARGO_BIN_EXE_shardloom")), &args, &[]).succeeds()
}

/// The resumed losses are those of `reference` from the checkpoint on, each within `tolerance`.
fn same(reference: &BTreeMap<u64, f64>, resumed: &BTreeMap<u64, f64>, tolerance: f64, what: &str) {
    assert!(
        resumed.keys().copied().eq(SAVED + 1..=STEPS),
        "{what}: {resumed:?}"
    );
    let mut worst = 0.0_f64;
    for (step, loss) in resumed {
        let off = (loss - reference[step]).abs() / reference[step];
        assert!(
            off <= tolerance,
            "{what}: step {step}: {loss}, not {}",
            reference[step]
        );
        worst = worst.max(off);
    }
    println!(
        "{what}: losses of {} steps, off by at most {worst:.1e}",
        resumed.len()
    );
}

// proves P154, P155
#[test]
fn a_killed_training_goes_on_in_other_layouts_as_if_nothing_had_happened() {
    let room = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| room.path().join(name);
    let before = "--dp 2 --tp 2";
    let reference = losses(&train(&path("whole"), before, &["--steps", "40"]).stdout);
    assert!(reference.keys().copied().eq(1..=STEPS), "{reference:?}");
    let (first, last) = (reference[&1], reference[&STEPS]);
    assert!(last < 0.6 * first, "it doesn't learn: {first} to {last}");

    let printed = losses(&train_and_kill(&path("killed"), before));
    let died = printed.keys().last().expect("steps");
    assert!(
        (SAVED + 3..2 * SAVED).contains(died),
        "it died after step {died}"
    );
    let saved = shardloom(room.path(), "checkpoints latest @killed/checkpoint");
    assert!(saved.stdout.contains("step 20"), "{saved:#?}");

    let resume = |layout: &str, from: &str, to: &str| {
        let from = path(from).display().to_string();
        losses(&train(&path(to), layout, &["--steps", "40", "--resume", &from]).stdout)
    };
    let again = resume(before, "killed/checkpoint", "again");
    same(&reference, &again, 0.0, "dp 2, tp 2 again");

    std::fs::create_dir(path("model")).expect("a directory");
    std::fs::write(path("model/config.json"), CONFIG).expect("a file");
    // The second has other names, and weights that lie in one.
    for (number, (layout, form)) in [
        ("--dp 1 --tp 4", ""),
        (
            "--dp 4 --tp 1 --optimizer-shard --form fused",
            "--model @model --names mcore --qkv interleaved --ffn interleaved",
        ),
    ]
    .iter()
    .enumerate()
    {
        let to = format!("run{number}");
        train(&path(&to), layout, &["--only-save-strategy"]);
        let line = format!(
            "reshard --src @killed/checkpoint --src-strategy @killed/strategy.ckpt --file-suffix 1_20 \
             --dst @cut{number} --dst-strategy @{to}/strategy.ckpt {form}"
        );
        shardloom(room.path(), &line);
        let resumed = resume(layout, &format!("cut{number}"), &to);
        same(&reference, &resumed, TOLERANCE, layout);
    }
    // And back from rows of the optimizer's shards.
    let line = "reshard --src @run1/checkpoint --src-strategy @run1/strategy.ckpt --file-suffix 1_40 \
                --dst @back --dst-strategy @whole/strategy.ckpt --model @model --names legacy \
                --src-qkv interleaved --src-ffn interleaved --qkv separate --ffn separate";
    shardloom(room.path(), line);
    let directories = ["back", "whole/checkpoint"];
    for rank in 0..4 {
        let [ours, theirs] = directories.map(|directory| {
            let rank_directory = path(directory).join(format!("rank_{rank}"));
            let file = rank_directory.join(format!("lm_rank_{rank}-1_40.safetensors"));
            std::fs::read(file).expect("a file")
        });
        close(&ours, &theirs);
    }
}

/// Both files have the same tensors, and nearly the same weights.
fn close(ours: &[u8], theirs: &[u8]) {
    let [ours, theirs] =
        [ours, theirs].map(|bytes| safetensors::SafeTensors::deserialize(bytes).expect("tensors"));
    assert_eq!(ours.len(), theirs.len());
    for (name, view) in ours.iter().filter(|(name, _)| name.ends_with("weight")) {
        let other = theirs.tensor(name).expect("the same names");
        assert_eq!(view.shape(), other.shape(), "{name}");
        let values = |bytes: &[u8]| -> Vec<f32> {
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().map(|word| f32::from_le_bytes(*word)).collect()
        };
        for (a, b) in values(view.data()).iter().zip(values(other.data())) {
            assert!((a - b).abs() < 1e-3, "{name}: {a} and {b}");
        }
    }
}
