//! What can't be measured, and what goes wrong in the middle.

use super::{number, result, rows};
use crate::support::command::{error_line, under_mpi};
use crate::support::{self, processes};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

#[test]
fn what_cannot_be_measured_is_an_error_at_once() {
    for (code, more) in [
        (2, &["--min-size", "8KiB"][..]),
        (2, &["--max-size", "2GiB"]),
        (2, &["--operation", "gossip"]),
        (2, &["--time", "never"]),
        (1, &["--baseline", "/dev/null"]),
        (1, &["--csv", "/proc/nowhere/rows.csv"]),
    ] {
        let mut line = vec!["bench", "collectives"];
        if !more.contains(&"--max-size") {
            line.extend(["--max-size", "4KiB"]);
        }
        line.extend(more);
        let run = under_mpi(2, &line);
        assert_eq!(run.status.code(), Some(code), "{run:#?}");
        assert_eq!(run.stderr.matches("error:").count(), 1, "{run:#?}");
        assert!(run.elapsed < Duration::from_secs(10), "{run:#?}");
    }
}

#[test]
fn a_size_that_the_system_has_no_memory_for_is_an_error() {
    let program = env!("CARGO_BIN_EXE_shardloom");
    let script = format!(
        "ulimit -v 1048576 && exec '{program}' bench collectives --operation broadcast --min-size 1GiB --max-size 1GiB"
    );
    let run = support::mpirun(2, Path::new("/bin/sh"), &["-c", &script], &[]);
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let told = error_line(&run);
    assert!(told.contains("more bytes of memory"), "{run:#?}");
    assert!(run.elapsed < Duration::from_secs(20), "{run:#?}");
}

#[test]
fn a_process_that_is_stopped_makes_a_slow_row_and_nothing_hangs() {
    let (stop, rest) = (Duration::from_millis(400), Duration::from_millis(100));
    let room = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    let mut command = support::launcher(2);
    command
        .arg(program)
        .args(["bench", "collectives", "--json"]);
    command.args(["--operation", "all_to_all", "--time", "2s"]);
    command.args(["--min-size", "256KiB", "--max-size", "1MiB"]);
    command.arg("--csv").arg(room.path().join("rows.csv"));
    let mut stops = 0;
    let run = std::thread::scope(|scope| {
        let bench = scope.spawn(|| support::run(command));
        while !bench.is_finished() {
            let victim = processes::of(program, room.path()).pop();
            if let Some(victim) = victim.filter(|_| stops < 60) {
                stops += u32::from(kill_process(victim, Signal::STOP).is_ok());
                std::thread::sleep(stop);
                let _ = kill_process(victim, Signal::CONT);
            }
            std::thread::sleep(rest);
        }
        bench.join().unwrap()
    });
    let measured = result(&run.succeeds());
    assert_eq!(measured["ok"], true);
    let slow = |row: &&Value| number(&row["seconds"]["max"]) > 0.8 * stop.as_secs_f64();
    let slow = rows(&measured).iter().filter(slow).count();
    assert!(slow > 0, "{stops} stops: {measured}");
}
