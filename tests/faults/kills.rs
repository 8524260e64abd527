//! Processes that are killed at random, or stopped for a while.

use super::command::RESHARD;
use super::oracle::Strategy;
use super::processes;
use super::sample::{Sample, image, layout};
use super::support;
use super::tensors::{Tensor, Tensors};
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a job may take that nobody kills, on a busy machine.
const USUAL: Duration = Duration::from_secs(60);
/// How long a job may go on after one of its processes is killed.
const AFTER_KILL: Duration = Duration::from_secs(10);

const LINES: [&str; 3] = [
    RESHARD,
    "unify --src @src --src-strategy @four.ckpt --dst @out",
    "split --src @full --dst @out --dst-strategy @two.ckpt",
];

/// About 24 MB, cut by rows and to be cut by columns.
fn sample() -> Sample {
    let (mut whole, mut four, mut two) = (Tensors::new(), Vec::new(), Vec::new());
    for number in 0..12 {
        let name = format!("layers.{number}.weight");
        whole.insert(name.clone(), Tensor::counting("F32", &[512, 1024], number));
        four.push((0, name.clone(), layout(&[4], &[0, -1])));
        two.push((0, name, layout(&[2], &[-1, 0])));
    }
    Sample::of(whole, Strategy { items: four }, Strategy { items: two })
}

fn start(sample: &Sample, line: &str) -> Child {
    let mut command = support::launcher(4);
    command
        .arg(env!("CARGO_BIN_EXE_shardloom"))
        .args(sample.args(&format!("{line} --memory 2MiB")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().expect("the launcher starts")
}

/// Waits until the launcher and all its processes have ended; gives whether it went well.
fn wait(child: &mut Child, sample: &Sample, limit: Duration, what: &str) -> bool {
    let start = Instant::now();
    loop {
        let status = child.try_wait().expect("a child can be waited for");
        if let Some(status) = status
            && processes(sample.room.path()).is_empty()
        {
            return status.success();
        }
        if start.elapsed() >= limit {
            let left = processes(sample.room.path());
            let _ = child.kill();
            let _ = child.wait();
            // OpenMPI 4.1.4's launcher may lock itself out while it ends (PMIx_server_finalize).
            if left.is_empty() {
                println!("{what}: all processes have ended, the launcher stood still");
                return false;
            }
            let state = status.map_or("runs", |_| "has ended");
            unreachable!("{what}: after {limit:?} the launcher {state}, processes {left:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Numbers without a pattern.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

// proves P5
#[test]
fn jobs_killed_at_random_leave_things_whole() {
    let kills = std::env::var("SHARDLOOM_KILLS").ok();
    let kills: usize = kills.map_or(18, |text| text.parse().expect("SHARDLOOM_KILLS"));
    let seed = u64::from(std::process::id()) * 7919 + 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let sample = sample();
    let out = sample.path("out");
    let sources = || [image(&sample.path("src")), image(&sample.path("full"))];
    let before = sources();
    let mut whole = Vec::new();
    for line in LINES {
        let start_time = Instant::now();
        assert!(
            wait(&mut start(&sample, line), &sample, USUAL, line),
            "{line}"
        );
        whole.push((image(&out), start_time.elapsed()));
        std::fs::remove_dir_all(&out).expect("a destination");
    }
    let (mut ended, mut finished, mut slowest) = (0, 0, Duration::ZERO);
    for number in 0..kills {
        let (line, (image_due, usual)) = (LINES[number % 3], &whole[number % 3]);
        let mut child = start(&sample, line);
        let usual = u64::try_from(usual.as_micros()).expect("a short time");
        std::thread::sleep(Duration::from_micros(dice.next(usual + usual / 10)));
        let launcher = Pid::from_child(&child);
        let mut victims = processes(sample.room.path());
        victims.push(launcher);
        let victim = victims[usize::try_from(dice.next(victims.len() as u64)).expect("small")];
        let _ = kill_process(victim, Signal::KILL);
        let killed = Instant::now();
        let what = format!("kill {number}, {line}, {victim:?} of {victims:?}");
        let well = wait(&mut child, &sample, AFTER_KILL, &what);
        slowest = slowest.max(killed.elapsed());
        if out.exists() {
            assert!(image(&out) == *image_due, "{line}: half a destination");
            finished += 1;
        } else {
            assert!(!well, "{line}: success without a result");
            ended += 1;
        }
        let _ = std::fs::remove_dir_all(&out);
        if number % 8 == 0 {
            assert!(sources() == before, "{line}: the source has changed");
            assert!(
                wait(&mut start(&sample, line), &sample, USUAL, line),
                "next {line}"
            );
            assert!(image(&out) == *image_due, "next {line}");
            let left: Vec<PathBuf> = hidden(sample.room.path());
            assert!(left.is_empty(), "next {line}: {left:?} is left");
            std::fs::remove_dir_all(&out).expect("a destination");
        }
    }
    println!(
        "{kills} kills: {ended} ended jobs, {finished} came too late; all gone in {slowest:?}"
    );
}

/// What stands in `directory` under a name that begins with a dot.
pub(super) fn hidden(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_hidden = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'))
    };
    paths.filter(is_hidden).collect()
}

/// What an MPI launcher says to its processes in the environment.
fn told_by_the_launcher() -> Vec<(String, String)> {
    let output = support::launcher(1).arg("env").output().expect("env");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let told = lines.filter(|(name, _)| ["PMIX_", "OMPI_"].iter().any(|p| name.starts_with(p)));
    told.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn a_process_ends_whose_launcher_ends_while_mpi_starts() {
    let told = told_by_the_launcher();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let sample = sample();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardloom"));
    command.args(sample.args(RESHARD)).stderr(Stdio::piped());
    let mut servers = 0;
    for (name, value) in told {
        let address = name
            .starts_with("PMIX_SERVER_URI")
            .then(|| value.rsplit_once(':'))
            .flatten();
        let value = address.map_or(value.clone(), |(host, _)| format!("{host}:{port}"));
        servers += u32::from(address.is_some());
        command.env(name, value);
    }
    if servers == 0 {
        println!("skipped: the launcher doesn't say where it listens");
        return;
    }
    let mut child = command.spawn().expect("the program starts");
    // Connected, and never answered.
    let connection = listener.accept().expect("a process that asks");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().expect("a child").is_none(), "it waits");
    drop(listener);
    let ended = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        assert!(ended.elapsed() < AFTER_KILL, "it waits for ever");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(connection);
    let output = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("the launcher has ended"), "{said}");
}

#[test]
fn a_process_that_stands_still_only_costs_time() {
    let sample = sample();
    let mut child = start(&sample, RESHARD);
    let begun = Instant::now();
    while processes(sample.room.path()).len() < 4 && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let victim = processes(sample.room.path()).pop();
    let stopped = victim.is_some_and(|pid| kill_process(pid, Signal::STOP).is_ok());
    std::thread::sleep(Duration::from_secs(2));
    if let Some(pid) = victim {
        let _ = kill_process(pid, Signal::CONT);
    }
    assert!(stopped, "there was nobody to stop");
    assert!(wait(&mut child, &sample, USUAL, RESHARD), "the job failed");
    sample.check("out", &sample.two, &sample.whole);
}

/// Shrinks or removes source files while a job of one process stands still in the middle.
fn disturbed(io: &str, disturb: impl Fn(&Sample)) -> (Sample, std::process::Output) {
    for _ in 0..20 {
        let sample = super::large();
        let line = format!("{RESHARD} --memory 2MiB --threads 1 --sync none --io {io}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardloom"));
        command
            .args(sample.args(&line))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let partial = sample.path(".out.shardloom-partial");
        while child.try_wait().expect("a child").is_none() && !partial.exists() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(15));
        let pid = Pid::from_child(&child);
        let stopped =
            kill_process(pid, Signal::STOP).is_ok() && child.try_wait().expect("a child").is_none();
        let middle = stopped && !sample.path("out").exists();
        disturb(&sample);
        let _ = kill_process(pid, Signal::CONT);
        let output = child.wait_with_output().expect("it ends");
        if middle {
            return (sample, output);
        }
    }
    unreachable!("the job was never caught in the middle")
}

#[test]
fn a_source_that_shrinks_is_an_error() {
    let shrunk = |sample: &Sample| {
        for rank in 0..4 {
            let path = sample.path(&format!("src/rank_{rank}/net.safetensors"));
            let file = std::fs::OpenOptions::new().write(true).open(path);
            file.and_then(|file| file.set_len(4096))
                .expect("truncate it");
        }
    };
    for io in ["pread", "mmap"] {
        let (mut sample, mut output) = disturbed(io, shrunk);
        // A map that shrinks under the very copy ends the process by a signal, as is documented.
        for _ in 0..5 {
            if io == "mmap" && output.status.code().is_none() {
                assert!(!sample.path("out").exists(), "half a result");
                (sample, output) = disturbed(io, shrunk);
            }
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{io}: {output:?}");
        assert!(
            stderr.contains("shrunk") || stderr.contains("bytes now"),
            "{io}: {stderr}"
        );
        super::command::nothing_written(&sample);
    }
}

#[test]
fn a_source_that_vanishes_is_named_or_read_to_its_end() {
    for io in ["pread", "mmap"] {
        let (sample, output) = disturbed(io, |sample| {
            std::fs::remove_dir_all(sample.path("src")).expect("remove it");
        });
        if output.status.success() {
            sample.check("out", &sample.two, &sample.whole);
        } else {
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{io}: {output:?}");
            assert!(stderr.contains("rank_"), "{io}: {stderr}");
            super::command::nothing_written(&sample);
        }
    }
}
