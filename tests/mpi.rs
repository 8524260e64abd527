//! The exchange under the real launcher, on 1, 2, 4 and 8 processes.

use crate::support::{self, Run, alone, example, mpirun};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

// proves P8
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

// proves P8
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

/// A package whose builds say which one they are, what they were told of libraries, and their arguments.
fn packaged(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    for build in ["alone", "openmpi", "mpich"] {
        let place = folder.join("lib/shardloom").join(build);
        std::fs::create_dir_all(&place).expect("a directory");
        let program = place.join("shardloom");
        let script = format!("#!/bin/sh\necho \"{build} $* $LD_LIBRARY_PATH\"\n");
        std::fs::write(&program, script).expect("a script");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))
            .expect("it can be run");
    }
    std::fs::create_dir_all(folder.join("bin")).expect("a directory");
    let program = folder.join("bin/shardloom");
    std::fs::copy(env!("CARGO_BIN_EXE_shardloom-start"), &program).expect("a copy");
    program
}

#[test]
fn a_package_takes_the_build_for_its_launcher() {
    let folder = tempfile::tempdir().unwrap();
    let program = packaged(folder.path());
    let open = folder.path().join("open");
    let kin = folder.path().join("kin");
    for (place, library) in [(&open, "libmpi.so.40"), (&kin, "libmpich.so.12")] {
        std::fs::create_dir_all(place).unwrap();
        std::fs::write(place.join(library), "").unwrap();
    }
    let (open, kin) = (open.to_str().unwrap(), kin.to_str().unwrap());
    let started = |set: &[(&str, &str)]| {
        let known = [("SHARDLOOM_CONFIG", ""), ("SHARDLOOM_MPI", "")];
        let envs = [known.as_slice(), set].concat();
        support::alone(&program, &["inspect", "--json"], &envs)
    };
    let said = |set: &[(&str, &str)]| started(set).succeeds().stdout;

    assert!(said(&[]).starts_with("alone inspect --json"));
    let ours = [
        ("OMPI_COMM_WORLD_SIZE", "2"),
        ("OMPI_COMM_WORLD_RANK", "0"),
        ("LD_LIBRARY_PATH", open),
    ];
    assert!(said(&ours).starts_with("openmpi inspect --json"));
    let none = [ours.as_slice(), &[("SHARDLOOM_MPI", "none")]].concat();
    assert!(said(&none).starts_with("alone "));

    let hydra = [
        ("PMI_SIZE", "2"),
        ("PMI_RANK", "0"),
        ("MPI_LOCALNRANKS", "2"),
    ];
    let debian = said(&[hydra.as_slice(), &[("LD_LIBRARY_PATH", kin)]].concat());
    let reference = folder.path().canonicalize().unwrap();
    let reference = reference.join("lib/shardloom/libmpich");
    assert_eq!(
        debian,
        format!("mpich inspect --json {}:{kin}\n", reference.display())
    );

    // Unless this machine has MPICH's library, too.
    let pair = started(&[hydra.as_slice(), &[("LD_LIBRARY_PATH", open)]].concat());
    if !pair.stdout.starts_with("mpich ") {
        let pair = pair.fails();
        let object: serde_json::Value = serde_json::from_str(&pair.stdout).unwrap();
        assert_eq!(object["error"]["kind"], "mpi", "{pair:#?}");
        assert_eq!(object["command"], "inspect", "{pair:#?}");
        assert!(pair.stderr.contains("Open MPI's") && pair.stderr.contains("hint:"));
    }
    let unknown = started(&[("SHARDLOOM_MPI", "lam")]).fails();
    assert!(unknown.stderr.contains("'lam'"), "{unknown:#?}");

    let real = support::mpirun(2, &program, &["diff"], &[]).succeeds();
    let builds: Vec<&str> = real
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        builds == ["openmpi"; 2] || builds == ["mpich"; 2],
        "{real:#?}"
    );
}
