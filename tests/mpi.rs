//! The exchange under the real launcher, on 1, 2, 4 and 8 processes.

mod support;

use std::time::Duration;
use support::{Run, alone, example, mpirun};

/// A job that can't go on must be over by then.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

fn check(processes: u32, name: &str) -> Run {
    mpirun(processes, &example("exchange_check"), &[name], &[])
}

fn check_all(name: &str) {
    for processes in [1, 2, 4, 8] {
        check(processes, name).succeeds();
    }
}

#[test]
fn starts_and_ends() {
    check_all("nothing");
}

#[test]
fn starts_and_ends_without_the_launcher() {
    let program = example("exchange_check");
    for name in [
        "nothing", "messages", "rounds", "agree", "alarm", "progress",
    ] {
        alone(&program, &[name], &[]).succeeds();
    }
}

#[test]
fn brings_every_message_in_order() {
    check_all("messages");
}

#[test]
fn broadcasts_in_pieces() {
    check_all("broadcast");
}

#[test]
fn gathers_in_pieces() {
    check_all("gather");
}

#[test]
fn reduces_in_pieces() {
    check_all("reduce");
}

#[test]
fn carries_rounds_dense_and_sparse_two_at_a_time() {
    check_all("rounds");
}

#[test]
fn refuses_rounds_that_mpi_cannot_count() {
    check(2, "round_limits").succeeds();
}

#[test]
fn sees_one_node_or_as_many_as_pretended() {
    check_all("topology");
    for (processes, nodes) in [(1, "2"), (2, "2"), (4, "2"), (4, "3"), (8, "2"), (8, "8")] {
        let nodes = [("SHARDLOOM_NODES", nodes)];
        mpirun(processes, &example("exchange_check"), &["topology"], &nodes).succeeds();
    }
}

#[test]
fn agrees_on_the_lowest_fault() {
    check_all("agree");
}

#[test]
fn an_alarm_calls_everybody_each_time() {
    check_all("alarm");
}

#[test]
fn sums_progress_without_waiting() {
    check_all("progress");
}

#[test]
fn ends_together_on_an_agreed_fault() {
    for processes in [1, 2, 4, 8] {
        let run = check(processes, "fail").fails();
        let lowest = processes.saturating_sub(2);
        let failed = processes.min(2);
        assert_eq!(run.stderr.matches("error: ").count(), 1, "{run:#?}");
        assert!(
            run.stderr.contains(&format!("process {lowest} on ")),
            "{run:#?}"
        );
        let rest = format!(": rank_9/net.safetensors: no shard ({failed} failed)");
        assert!(run.stderr.contains(&rest), "{run:#?}");
        assert_eq!(run.status.code(), Some(3), "{run:#?}");
    }
}

#[test]
fn ends_together_though_rounds_were_abandoned() {
    for processes in [2, 4, 8] {
        let run = check(processes, "abandon").fails();
        assert!(
            run.stderr.contains("the disk is full (1 failed)"),
            "{run:#?}"
        );
        assert!(run.elapsed < ENDS_WITHIN, "{run:#?}");
    }
}

#[test]
fn a_process_that_dies_ends_the_job() {
    let promise = "internal error: a promise was broken";
    for (name, message) in [
        ("panic", promise),
        ("panic_in_thread", promise),
        ("abort", ""),
        ("kill", ""),
        ("leave", "left without an agreement of all"),
        ("mpi_fault", "the network is gone"),
    ] {
        for processes in [1, 2, 4] {
            let run = check(processes, name).fails();
            assert!(run.elapsed < ENDS_WITHIN, "{run:#?}");
            let last = processes - 1;
            if !message.is_empty() {
                let line = format!("shardloom: process {last}: {message}");
                assert!(run.stderr.contains(&line), "{run:#?}");
            }
        }
    }
}
