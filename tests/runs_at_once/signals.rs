//! Runs that are told to end, or asked where they are.

use super::{
    LOCK, PARTIAL, RESHARD, Sample, end, grows, nothing_hidden, sample, send, start,
    stop_in_the_middle, support, words,
};
use rustix::process::Signal;
use serde_json::Value;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(2);

// proves P63
#[test]
fn signals_end_a_run_at_once_and_say_what_is_left() {
    for (signal, code, resume) in [
        (Signal::INT, 130, ""),
        (Signal::TERM, 143, " --resume"),
        (Signal::HUP, 129, ""),
    ] {
        let (sample, begun, run) = interrupted(signal);
        let told = words(&run);
        assert!(begun < SOON, "{begun:?}");
        assert_eq!(run.status.code(), Some(code), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        let partial = sample.path(PARTIAL).display().to_string();
        assert!(
            told.contains(&partial) && told.contains("--resume"),
            "{told}"
        );
        let name = ["SIGINT", "SIGTERM", "SIGHUP"]
            [usize::from(code == 143) + 2 * usize::from(code == 129)];
        let right = format!(
            "shardloom: ended by {name}: nothing at {} changed; what was written so far is in {partial}: run again with \
             --resume to go on, or remove it",
            sample.path("out").display()
        );
        assert_eq!(told.trim_end(), right);
        let object: Value = serde_json::from_slice(&run.stdout).expect("an object");
        assert_eq!(
            (&object["ok"], &object["command"]),
            (&false.into(), &"reshard".into())
        );
        let error = &object["error"];
        assert_eq!(error["kind"], "ended");
        assert_eq!(
            format!("shardloom: {}", error["message"].as_str().expect("words")),
            right
        );
        assert!(sample.path(PARTIAL).exists() && !sample.path("out").exists());
        assert!(!sample.path(LOCK).exists());
        let next = end(start(&sample, &format!("{RESHARD}{resume}")));
        assert!(next.status.success(), "{}", words(&next));
        assert_eq!(words(&next), "", "nobody was there");
        sample.check("out", &sample.two, &sample.whole);
        nothing_hidden(sample.room.path());
    }
}

/// Nobody has use of what was measured with, and nothing goes on from there.
#[test]
fn signals_end_a_bench_and_its_files_go() {
    for (line, file) in [
        ("storage --bytes 64MiB", "shardloom-bench-0"),
        (
            "reshard --bytes 64MiB",
            "shardloom-bench-reshard/destination",
        ),
    ] {
        let sample = sample(1);
        let room = sample.path("room");
        std::fs::create_dir(&room).expect("a directory");
        let line = format!("bench {line} --iterations 1000 --dir @room");
        let mut run = start(&sample, &line);
        while !room.join(file).exists() {
            assert!(run.try_wait().expect("a child").is_none(), "{line}");
            std::thread::sleep(Duration::from_millis(1));
        }
        send(&run, Signal::TERM);
        let run = end(run);
        let told = words(&run);
        assert_eq!(run.status.code(), Some(143), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        let begins = "shardloom: ended by SIGTERM: nothing was measured to the end";
        assert!(
            told.starts_with(begins) && told.contains("shardloom-bench-"),
            "{told}"
        );
        assert!(!told.contains("--resume"), "{told}");
        let left = std::fs::read_dir(&room).expect("a directory");
        assert_eq!(left.count(), 0, "{told}");
    }
}

/// A run that was sent `signal` in its middle, and how long it took to end. One that has ended before it could
/// be told, on a busy machine, is followed by a longer one, and more than once.
fn interrupted(signal: Signal) -> (Sample, Duration, Output) {
    for tensors in [8, 24, 72, 72, 216, 216, 216, 216] {
        let sample = sample(tensors);
        let mut run = start(&sample, &format!("{RESHARD} --json"));
        stop_in_the_middle(&sample, &mut run);
        send(&run, signal);
        let begun = Instant::now();
        send(&run, Signal::CONT);
        let run = end(run);
        if !run.status.success() {
            return (sample, begun.elapsed(), run);
        }
        sample.check("out", &sample.two, &sample.whole);
    }
    unreachable!("no run was told in time")
}

// proves P64
#[test]
fn question_is_answered_and_the_run_goes_on() {
    let sample = sample(8);
    let mut run = start(&sample, RESHARD);
    stop_in_the_middle(&sample, &mut run);
    send(&run, Signal::USR1);
    send(&run, Signal::CONT);
    let run = end(run);
    let told = words(&run);
    assert!(run.status.success(), "{told}");
    assert!(
        told.contains("moving") || told.contains("making files"),
        "{told}"
    );
    sample.check("out", &sample.two, &sample.whole);
}

// proves P63
#[test]
fn signals_end_all_processes() {
    let sample = sample(24);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let _ = std::fs::remove_dir_all(sample.path(PARTIAL));
        let mut command = support::launcher(4);
        command
            .arg(env!("CARGO_BIN_EXE_shardloom"))
            .args(sample.args(RESHARD))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut run = command.spawn().expect("the launcher starts");
        while !grows(&sample) {
            assert!(run.try_wait().expect("a child").is_none(), "it was faster");
            std::thread::sleep(Duration::from_millis(1));
        }
        let begun = Instant::now();
        send(&run, signal);
        let run = end(run);
        let (took, told) = (begun.elapsed(), words(&run));
        assert!(!run.status.success(), "{signal:?}: {told}");
        assert!(took < SOON + Duration::from_secs(2), "{signal:?}: {took:?}");
        println!("{signal:?}: {took:?}, {:?}: {told}", run.status);
        if sample.path("out").exists() {
            // The signal came after the rename: then the words say so.
            assert!(!told.contains("nothing at "), "{signal:?}: {told}");
            sample.check("out", &sample.two, &sample.whole);
            std::fs::remove_dir_all(sample.path("out")).expect("a destination");
        }
        let said = told.matches("nothing at ").count();
        assert!(said <= 1, "{signal:?}: {told}");
    }
    let next = end(start(&sample, RESHARD));
    assert!(next.status.success(), "{}", words(&next));
    sample.check("out", &sample.two, &sample.whole);
    nothing_hidden(sample.room.path());
}
