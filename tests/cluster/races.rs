//! Two runs over the same three hosts, at about the same time; some process of one stands still for a while.
//!
//! `SHARDLOOM_RACES=100 cargo test --test all cluster::races -- --nocapture` races as often, from the race
//! `SHARDLOOM_FIRST` on: one that a busy machine has ended is taken up there.

use super::{PER_HOST, Sample, assert_tidy, dealt, due, found, home, large, rank_of, written};
use crate::support::Run;
use crate::support::command::{alone, program};
use crate::support::hosts::Hosts;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// After so many races it is told how far they are.
const TOLD: usize = 25;

/// Stops a process of the program that has these two words in its command line, for as long; whether there was one.
fn hold(words: [&str; 2], nth: usize, long: Duration) -> bool {
    let entries = std::fs::read_dir("/proc").expect("a process table");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_meant = |number: &i32| {
        let line = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let line: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let program = line
            .first()
            .is_some_and(|name| *name == program().as_os_str().as_bytes());
        program && words.iter().all(|word| line.contains(&word.as_bytes()))
    };
    let all: Vec<i32> = numbers.filter(is_meant).collect();
    let Some(pid) = all
        .get(nth % all.len().max(1))
        .and_then(|n| Pid::from_raw(*n))
    else {
        return false;
    };
    let stopped = kill_process(pid, Signal::STOP).is_ok();
    std::thread::sleep(long);
    if stopped {
        let _ = kill_process(pid, Signal::CONT);
    }
    stopped
}

/// Runs two lines, the second a little later; gives how both ended, and whether one stood still: when one of
/// them has begun to write in one of these places, a process of one of them is stopped for a while.
fn race(hosts: &Hosts, lines: [&str; 2], places: &[PathBuf], number: usize) -> ([Run; 2], bool) {
    // They differ in this, so that one of them can be found.
    let marks = ["2MiB", "3MiB"];
    let of = |run: usize| format!("{} --memory {}", lines[run], marks[run]);
    let part = |step: usize| Duration::from_millis((number * step) as u64 % 900);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let one = scope.spawn(|| hosts.run(PER_HOST, &of(0)));
        std::thread::sleep(part(331));
        let other = scope.spawn(|| hosts.run(PER_HOST, &of(1)));
        let writes = |place: &PathBuf| place.exists();
        while !places.iter().any(writes) && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let held = hold(["--memory", marks[number / 2 % 2]], number, 4 * part(577));
        ([one, other].map(|run| run.join().expect("it ends")), held)
    })
}

#[test]
fn runs_over_the_same_hosts_leave_what_one_of_them_makes() {
    let sample: Sample = large();
    let Some(hosts) = dealt(&sample, &[1, 1, 2, 2, 3, 3]) else {
        return;
    };
    let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    let count = number("SHARDLOOM_RACES").unwrap_or(2);
    let first = number("SHARDLOOM_FIRST").unwrap_or(0);
    let shared = sample.path("shared");
    let line = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --dst";
    alone(&sample.args(&format!("{line} @out"))).succeeds();
    let expected = written(&sample.path("out"));
    let own = due(&sample.path("out"), |file| home(rank_of(file), 6));
    let source = found(&hosts, "src");
    let (mut refused, mut held) = (0, 0);
    for number in first..first + count {
        let more = ["", " --overwrite", " --resume"][number / 2 % 3];
        let place = [shared.display().to_string(), "@out".to_owned()];
        let line = format!("{line} {}{more}", place[number % 2]);
        let partial = [
            sample.path(".shared.shardloom-partial"),
            hosts.disk(2).join(".out.shardloom-partial"),
        ];
        let (runs, stood) = race(&hosts, [&line, &line], &partial, number);
        held += usize::from(stood);
        let well = runs.iter().filter(|run| run.status.success()).count();
        let said = runs.each_ref().map(|run| &run.stderr);
        assert!(well > 0, "none has won race {number}: {said:#?}");
        for run in runs.iter().filter(|run| !run.status.success()) {
            let there = run.stderr.contains("another run is writing here: ");
            refused += usize::from(there);
            assert!(
                there || run.stderr.contains("exists and is not empty"),
                "{run:#?}"
            );
        }
        match number % 2 {
            0 => assert!(written(&shared) == expected, "{runs:#?}"),
            _ => assert!(found(&hosts, "out") == own, "{runs:#?}"),
        }
        assert_tidy(&hosts);
        assert!(found(&hosts, "src") == source, "the source has changed");
        let _ = std::fs::remove_dir_all(&shared);
        for host in 1..=super::HOSTS {
            let _ = std::fs::remove_dir_all(hosts.disk(host).join("out"));
        }
        if number % TOLD == TOLD - 1 {
            println!("up to race {number}: {held} stood still, {refused} runs refused");
        }
    }
    println!("{count} races: in {held} a process stood still, {refused} runs refused");
    assert!(
        count < TOLD || (held > 0 && refused > 0),
        "no two runs have met"
    );
}

/// Of two runs that begin together, each with the lock of another host, both would be refused.
#[test]
fn one_host_is_locked_before_the_others() {
    let sample: Sample = large();
    let Some(hosts) = dealt(&sample, &[1, 1, 2, 2, 3, 3]) else {
        return;
    };
    let record = sample.path("record");
    let envs = [("SHARDLOOM_IO_TRACE", record.display().to_string())];
    let line = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --dst @out";
    hosts.run_with(PER_HOST, line, &envs).succeeds();
    let name: String = ".out.shardloom-lock"
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let record = std::fs::read_to_string(record).expect("a record");
    // Names of a lock's own begin as its name does.
    let taken = |line: &&str| line.contains(&name) && !line.contains(" gone ");
    let lines: Vec<Vec<&str>> = record
        .lines()
        .filter(taken)
        .map(|line| line.split(' ').collect())
        .collect();
    let is_taken = |line: &Vec<&str>| line[1] == "link" && line[line.len() - 1] == name;
    let links: Vec<usize> = (0..lines.len()).filter(|n| is_taken(&lines[*n])).collect();
    assert_eq!(links.len(), 3, "{record}");
    let first = lines[0][0];
    let before: Vec<&str> = lines[..=links[0]].iter().map(|line| line[0]).collect();
    assert!(
        before.iter().all(|process| *process == first),
        "while the first lock was taken others were begun: {before:?}"
    );
}
