//! The power goes in the middle of a run: what is on the disk then, and what the next run makes of it.
//!
//! `SHARDLOOM_CUTS=10000` tries as many different states of each run, `SHARDLOOM_SEED` others than usual; a failure
//! names both. How states are made is in `tests/power/`, what is asked of them in `tests/programs/power.rs`.

use crate::support::{self, TIMEOUT, example, launcher, oracle, sample, tensors};
use oracle::{Strategy, to_protobuf};
use sample::{Sample, layout};
use std::path::Path;
use std::process::Command;
use tensors::{Tensor, Tensors, write, write_bytes};

/// States of each run, unless more are asked for.
const CUTS: usize = 12;
/// Longest that a state may take, beyond which a run is taken to hang.
const MILLISECONDS_EACH: u64 = 2000;

const RESHARD: &str =
    "reshard --src @in/src --src-strategy @in/four.ckpt --dst-strategy @in/two.ckpt";
const MONITOR: &str = "{prefix: m, save_checkpoint_steps: 1, save_network_params: True";

/// A room with `in/` and `work/`, as the program wants it.
fn room() -> Sample {
    let sample = Sample::in_memory();
    std::fs::create_dir_all(sample.path("in")).expect("a directory");
    for name in ["src", "full", "four.ckpt", "two.ckpt"] {
        std::fs::rename(sample.path(name), sample.path(&format!("in/{name}"))).expect("moved");
    }
    std::fs::create_dir_all(sample.path("work")).expect("a directory");
    sample
}

/// An older result at the destination.
fn older(sample: &Sample, place: &str) {
    for rank in 0..3 {
        let file = format!("work/{place}/rank_{rank}/net{rank}.safetensors");
        write_bytes(&sample.path(&file), format!("older {rank}").as_bytes());
    }
}

/// Checkpoints of `steps` of a run on `ranks` ranks.
fn saved(sample: &Sample, steps: std::ops::Range<u64>, ranks: usize) {
    for (step, rank) in steps.flat_map(|step| (0..ranks).map(move |rank| (step, rank))) {
        let name = format!("work/run/checkpoint/rank_{rank}");
        let file = sample.path(&format!("{name}/m_rank_{rank}-1_{step}.safetensors"));
        let tensor = Tensor::counting("F32", &[8], usize::try_from(step).expect("small"));
        write(&file, &Tensors::from([("w".to_owned(), tensor)]));
        let meta = format!(
            r#"{{"last_epoch": 1, "last_step": {step}, "last_ckpt_file": "m_rank_{rank}-1_{step}.safetensors"}}"#
        );
        write_bytes(&sample.path(&format!("{name}/meta.json")), meta.as_bytes());
    }
}

/// A state for each of `ranks` ranks to save.
fn state(sample: &Sample, ranks: usize) {
    let whole = Tensors::from([
        ("adam_m.w".to_owned(), Tensor::counting("F32", &[12, 4], 40)),
        ("w".to_owned(), Tensor::counting("F32", &[12, 4], 50)),
    ]);
    let cut = |name: &'static str| (name, layout(&[ranks], &[0, -1]));
    let strategy = Strategy::of(&[cut("adam_m.w"), cut("w")]);
    for rank in 0..ranks {
        let shards = strategy.cut(&whole, rank).expect("cut");
        write(
            &sample.path(&format!("in/state/rank_{rank}/net.safetensors")),
            &shards,
        );
    }
    write_bytes(&sample.path("in/state.ckpt"), &to_protobuf(&strategy));
}

/// How a run is cut.
struct Cut<'a> {
    kind: &'a str,
    /// What it writes, inside the disk.
    destination: &'a str,
    job: &'a str,
    program: &'a Path,
    nodes: u32,
    envs: &'a [(&'a str, &'a str)],
}

impl Cut<'_> {
    fn tries(&self, sample: &Sample) {
        let number = |name: &str, usual: usize| {
            let text = std::env::var(name).ok();
            text.map_or(usual, |text| text.parse().expect("a number"))
        };
        let (count, seed) = (number("SHARDLOOM_CUTS", CUTS), number("SHARDLOOM_SEED", 1));
        let mut command = Command::new(example("power_check"));
        command.arg(sample.room.path()).arg(self.kind);
        command.args([
            count.to_string(),
            seed.to_string(),
            self.destination.to_owned(),
        ]);
        let words = shlex::split(self.job).expect("words");
        command.args(words).arg("--");
        if self.nodes > 1 {
            let launcher = launcher(self.nodes);
            command
                .arg(launcher.get_program())
                .args(launcher.get_args());
            for (name, value) in launcher.get_envs() {
                command.env(name, value.unwrap_or_default());
            }
            command.env("SHARDLOOM_NODES", self.nodes.to_string());
        }
        command.arg(self.program).envs(self.envs.iter().copied());
        // Of a machine that has started anew nobody waits for a sign of life.
        command.env("SHARDLOOM_LOCK_SECONDS", "0");
        let longest = std::time::Duration::from_millis(MILLISECONDS_EACH * count as u64);
        let run = support::run_within(command, TIMEOUT + longest);
        println!("{}", run.stdout);
        run.succeeds();
    }
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_shardloom"))
}

/// A job on one node and on three.
fn cut(kind: &str, destination: &str, job: &str, set_up: impl Fn(&Sample), envs: &[(&str, &str)]) {
    for nodes in [1, 3] {
        let sample = room();
        set_up(&sample);
        let cut = Cut {
            kind,
            destination,
            job,
            program: program(),
            nodes,
            envs,
        };
        cut.tries(&sample);
    }
}

// proves P4, P6, P56, P89, P90, P91
#[test]
fn a_reshard_leaves_nothing_or_all() {
    let job = format!("{RESHARD} --dst @work/new/out");
    cut("job", "new/out", &job, |_| {}, &[]);
}

// proves P89
#[test]
fn a_unify_leaves_nothing_or_all() {
    let job = "unify --src @in/src --src-strategy @in/four.ckpt --dst @work/out";
    cut("job", "out", job, |_| {}, &[]);
}

// proves P89, P130
#[test]
fn what_is_replaced_is_there_until_the_new_is() {
    let job = format!("{RESHARD} --dst @work/out --overwrite");
    cut("job", "out", &job, |sample| older(sample, "out"), &[]);
}

// proves P48, P89
#[test]
fn what_can_not_be_swapped_is_put_back_or_in() {
    let job = format!("{RESHARD} --dst @work/out --overwrite");
    let lacks = [("SHARDLOOM_IO_LACKS", "swap:EINVAL,link:EPERM")];
    cut("job", "out", &job, |sample| older(sample, "out"), &lacks);
}

// proves P43, P89, P137, P138
#[test]
fn a_source_is_replaced_with_all_that_lies_in_it() {
    let job = "reshard --src @work/run --src-strategy @in/four.ckpt --dst-strategy @in/two.ckpt --in-place";
    let set_up = |sample: &Sample| {
        std::fs::rename(sample.path("in/src"), sample.path("work/run")).expect("moved");
        write_bytes(&sample.path("work/run/notes/of/all.txt"), b"kept");
        write_bytes(&sample.path("work/run/rank_3/log.txt"), b"kept, too");
    };
    cut("place", "run", job, set_up, &[]);
    let without = [("SHARDLOOM_IO_LACKS", "link:EPERM")];
    cut("place", "run", job, set_up, &without);
}

// proves P90, P131
#[test]
fn what_was_begun_is_taken_up_after_the_next_cut_too() {
    let job = format!("{RESHARD} --dst @work/out --memory 1KiB --threads 1");
    let set_up = |sample: &Sample| {
        let args = sample.args(&job);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        // It dies when some of its work is in the journal.
        for step in (40..400).step_by(7) {
            let fault = format!("exit:{step}");
            let envs = [
                ("SHARDLOOM_IO_FAULT", fault.as_str()),
                ("SHARDLOOM_JOURNAL_SECONDS", "0"),
            ];
            let _ = support::alone(program(), &args, &envs);
            let journals = sample.path("work/.out.shardloom-partial/.shardloom-journal");
            let found = std::fs::read_dir(&journals).map_or(0, Iterator::count);
            if found > 2 && step > 60 {
                return;
            }
        }
        unreachable!("nothing was begun");
    };
    let job = format!("{job} --resume");
    cut(
        "job",
        "out",
        &job,
        set_up,
        &[("SHARDLOOM_JOURNAL_SECONDS", "0")],
    );
}

// proves P93, P94
#[test]
fn what_is_not_flushed_may_be_lost_but_not_unnoticed() {
    let job = format!("{RESHARD} --dst @work/out --sync none");
    cut("loose", "out", &job, |_| {}, &[]);
    let job = format!("{job} --overwrite");
    cut("loose", "out", &job, |sample| older(sample, "out"), &[]);
}

// proves P92
#[test]
fn an_heir_that_is_gone_bars_nothing() {
    let sample = room();
    // The power went when a run was about to take over from another one, both before the machine's last start.
    let lock = sample::own_lock();
    let boot =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the system tells");
    let lock = lock.replace(boot.trim(), "the start before");
    write_bytes(&sample.path("work/.out.shardloom-lock"), lock.as_bytes());
    let heir = lock.replace("00ff", "00fe");
    write_bytes(
        &sample.path("work/.out.shardloom-lock-00ff-heir"),
        heir.as_bytes(),
    );
    let args = sample.args(&format!("{RESHARD} --dst @work/out"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    support::alone(program(), &args, &[("SHARDLOOM_LOCK_SECONDS", "0")]).succeeds();
    let left = std::fs::read_dir(sample.path("work"))
        .expect("a directory")
        .count();
    assert_eq!(left, 1, "the result alone");
}

// proves P77, P96
#[test]
fn pruning_loses_nothing_that_stays() {
    let job = "checkpoints prune @work/run/checkpoint --keep 2";
    cut(
        "prune",
        "run/checkpoint",
        job,
        |sample| saved(sample, 1..6, 3),
        &[],
    );
}

/// A training on one rank and on three.
fn train(config: &str) {
    for nodes in [1, 3] {
        let sample = room();
        state(&sample, nodes as usize);
        let program = example("monitor_check");
        let job = format!("@work/run @in/state - '{MONITOR}, {config}}}' 1 4");
        let destination = "run";
        let cut = Cut {
            kind: "save",
            destination,
            job: &job,
            program: &program,
            nodes,
            envs: &[],
        };
        cut.tries(&sample);
    }
}

// proves P95, P116, P117
#[test]
fn what_a_training_has_recorded_stays() {
    train("keep_checkpoint_max: 0, async_save: False");
    train("keep_checkpoint_max: 0, async_save: True");
}

// proves P95, P117
#[test]
fn what_a_training_rotates_goes_after_the_next_is_recorded() {
    train("keep_checkpoint_max: 1, async_save: False");
    train("keep_checkpoint_max: 1, async_save: True");
}
