//! Every system call of a small job fails once, or is the process's last.

use super::command::RESHARD;
use super::fixtures;
use super::kills::hidden;
use super::sample::{Sample, image};
use super::support::{self, Run};
use std::path::{Path, PathBuf};
use std::time::Duration;

type Image = Vec<(PathBuf, Vec<u8>)>;

/// A job, to be disturbed.
struct Job {
    sample: Sample,
    args: Vec<String>,
    /// What stands at the destination before.
    old: Option<Image>,
    /// What stands there when it has succeeded.
    new: Image,
    source: Image,
    /// Calls that the file system lacks.
    lacks: &'static str,
}

impl Job {
    fn new(line: &str, replaces: bool, lacks: &'static str) -> Job {
        let sample = Sample::in_memory();
        let args = sample.args(&format!("{line} --threads 1"));
        let mut job = Job {
            old: replaces.then(|| {
                let files = [
                    ("rank_0/a.safetensors", b"one"),
                    ("rank_1/a.safetensors", b"two"),
                ];
                let files = files.map(|(name, bytes)| (PathBuf::from(name), bytes.to_vec()));
                files.to_vec()
            }),
            new: Image::new(),
            source: Image::new(),
            lacks,
            args,
            sample,
        };
        job.source = job.sources();
        job.set_up();
        job.run(None).succeeds();
        job.new = job.visible().expect("a destination");
        job
    }

    fn sources(&self) -> Image {
        let mut all = image(&self.sample.path("src"));
        all.extend(image(&self.sample.path("full")));
        all
    }

    fn visible(&self) -> Option<Image> {
        let out = self.sample.path("out");
        out.exists().then(|| image(&out))
    }

    fn partial(&self) -> PathBuf {
        self.sample.path(".out.shardloom-partial")
    }

    /// Puts the destination back to what it was before.
    fn set_up(&self) {
        let out = self.sample.path("out");
        let _ = std::fs::remove_dir_all(&out);
        for (file, bytes) in self.old.iter().flatten() {
            super::tensors::write_bytes(&out.join(file), bytes);
        }
    }

    fn run(&self, fault: Option<&str>) -> Run {
        let mut args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        if fault.is_none() && !args.contains(&"--overwrite") {
            args.push("--overwrite");
        }
        let mut envs: Vec<_> = fault
            .map(|f| ("SHARDLOOM_IO_FAULT", f))
            .into_iter()
            .collect();
        envs.push(("SHARDLOOM_IO_LACKS", self.lacks));
        support::alone(Path::new(env!("CARGO_BIN_EXE_shardloom")), &args, &envs)
    }

    /// Runs the job with one fault, and once more without.
    fn disturb(&self, kind: &str, step: usize) -> Run {
        let fault = format!("{kind}:{step}");
        self.set_up();
        let run = self.run(Some(&fault));
        assert!(run.elapsed < Duration::from_secs(10), "{fault}: {run:#?}");
        let visible = self.visible();
        let complete = visible.as_ref() == Some(&self.new);
        if run.status.success() {
            assert!(complete, "{fault}: success without a result");
        } else {
            // Between two renames the old contents are aside.
            let aside = self.sample.path(".out.shardloom-old");
            let between = !self.lacks.is_empty() && visible.is_none() && aside.exists();
            let whole =
                complete || visible == self.old || (between && self.old == Some(image(&aside)));
            let names = visible.map(|files| files.into_iter().map(|(name, _)| name));
            let names = names.map(Vec::from_iter);
            assert!(whole, "{fault}: half a destination: {names:?}");
        }
        if kind == "eio" || kind == "enospc" {
            assert_eq!(run.status.code(), Some(1), "{fault}: {run:#?}");
            assert!(run.stderr.contains("error: "), "{fault}: {run:#?}");
            let left = fixtures::listing(&self.partial());
            assert!(
                complete || left.is_empty() || !self.partial().exists(),
                "{fault}: left: {left:?}"
            );
        }
        assert!(self.sources() == self.source, "{fault}: the source changed");
        let again = self.run(None);
        assert!(again.status.success(), "after {fault}: {again:#?}");
        assert!(self.visible().as_ref() == Some(&self.new), "after {fault}");
        let left = hidden(self.sample.room.path());
        assert!(left.is_empty(), "{fault}: {left:?} stay");
        run
    }
}

/// Disturbs every few steps, with `SHARDLOOM_FAULTS=full` each of them.
fn disturb_each_step(line: &str, replaces: bool) {
    disturb_each_step_without(line, replaces, "");
}

/// The same on a file system that lacks some calls.
fn disturb_each_step_without(line: &str, replaces: bool, lacks: &'static str) {
    let job = Job::new(line, replaces, lacks);
    let full = std::env::var("SHARDLOOM_FAULTS").is_ok_and(|text| text == "full");
    let (mut steps, mut runs) = (0, 0);
    // Every few, until that is beyond the last, which is then looked for.
    for stride in [if full { 1 } else { 24 }, 1] {
        while !job.disturb("exit", steps + stride).status.success() {
            steps += stride;
            runs += 1;
            assert!(steps < 1000, "the job doesn't end");
        }
    }
    assert!(steps > 10, "only {steps} steps");
    for (kind, usual) in [("eio", 43), ("enospc", 89), ("eintr", 79), ("short", 79)] {
        let stride = if full { 1 } else { usual };
        for step in (1..=steps).step_by(stride) {
            let run = job.disturb(kind, step);
            let recovers = kind == "eintr" || kind == "short";
            assert_eq!(run.status.success(), recovers, "{kind}:{step}: {run:#?}");
            runs += 1;
        }
    }
    println!("{line}: {steps} steps, {runs} disturbed runs");
}

// proves P4
#[test]
fn resharding_survives_every_fault() {
    disturb_each_step(RESHARD, false);
}

// proves P5, P130
#[test]
fn replacing_survives_every_fault() {
    disturb_each_step(&format!("{RESHARD} --overwrite"), true);
}

// proves P48
#[test]
fn replacing_without_a_swap_survives_every_fault() {
    disturb_each_step_without(&format!("{RESHARD} --overwrite"), true, "swap:EINVAL");
}

// proves P5
#[test]
fn unifying_survives_every_fault() {
    disturb_each_step(
        "unify --src @src --src-strategy @four.ckpt --dst @out",
        false,
    );
}

// proves P5
#[test]
fn splitting_survives_every_fault() {
    disturb_each_step(
        "split --src @full --dst @out --dst-strategy @two.ckpt",
        false,
    );
}

// proves P5
#[test]
fn converting_survives_every_fault() {
    disturb_each_step("convert @src --dst @out --to ckpt --crc", false);
}
