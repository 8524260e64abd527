//! `shardloom simulate`: exact in bytes against real runs, and cheap for thousands of ranks.

use crate::support::deepseek;
use crate::support::{command, sample, tensors};
use command::{RESHARD, alone, object, under_mpi};
use deepseek::Parallel;
use sample::Sample;
use serde_json::Value;
use tempfile::TempDir;
use tensors::write_bytes;

const SIMULATE: &str = "simulate --src-strategy @four.ckpt --dst-strategy @two.ckpt --shapes @full/model.safetensors --json";

fn simulated(sample: &Sample, more: &str) -> Value {
    object(&alone(&sample.args(&format!("{SIMULATE} {more}"))).succeeds())
}

#[test]
fn foretells_the_bytes_of_a_real_run() {
    let sample = Sample::new();
    for (processes, mode) in [
        (1, "auto"),
        (2, "auto"),
        (2, "collective"),
        (3, "collective"),
    ] {
        let flags = format!("--exchange {mode}");
        let line = format!("{RESHARD} {flags} --overwrite --json");
        let real = object(&under_mpi(processes, &sample.args(&line)).succeeds());
        let line = format!("{RESHARD} {flags} --overwrite --dry-run --json");
        let dry = object(&under_mpi(processes, &sample.args(&line)).succeeds());
        let more = format!("{flags} --processes {processes} --ranks-per-node 8");
        let simulated = simulated(&sample, &more);
        for key in ["written", "sent", "read_unique", "sent_lower_bound"] {
            assert_eq!(
                simulated["bytes"][key], real["bytes"][key],
                "{key}, {processes} {mode}"
            );
        }
        // The dry run tells the same, on the same machine.
        assert_eq!(simulated["bytes"]["read"], dry["bytes"]["read"]);
        for key in ["transfers", "rounds", "seconds_estimated"] {
            let (ours, theirs) = (&simulated["plan"][key], &dry["plan"][key]);
            assert_eq!(ours, theirs, "{key}, {processes} {mode}");
        }
        assert!(dry["plan"]["seconds_estimated"].as_f64() > Some(0.0));
        let plans = simulated["per_process"].as_array().unwrap();
        let planned = dry["per_process"].as_array().unwrap();
        assert_eq!(plans.len(), planned.len());
        for (ours, theirs) in plans.iter().zip(planned) {
            for key in ["read", "received", "written"] {
                assert_eq!(ours[key], theirs[key], "{key}: {ours} {theirs}");
            }
        }
    }
}

#[test]
fn one_process_of_a_node_gets_what_it_gets_among_all() {
    let sample = Sample::new();
    let nodes = "--processes 2 --ranks-per-node 1";
    let all = simulated(&sample, nodes);
    let mut sent = 0;
    for process in 0..2usize {
        let one = simulated(&sample, &format!("{nodes} --process {process}"));
        for key in ["read", "received", "written", "partners", "transfers"] {
            assert_eq!(one["per_process"][0][key], all["per_process"][process][key]);
        }
        sent += one["bytes"]["sent"].as_u64().unwrap();
    }
    // Shards have one copy that the other node lacks, or a copy on both: the estimate is exact.
    assert_eq!(Value::from(sent), all["bytes"]["sent"]);
    assert_eq!(all["bytes"]["sent"], all["bytes"]["sent_lower_bound"]);
    assert_eq!(all["bytes"]["received_same_node"], 0);
    assert!(sent > 0);
    // What is sent is read first: nothing is written that isn't read from files.
    assert_eq!(all["bytes"]["read"], all["bytes"]["read_unique"]);
    let read = |process: usize| all["per_process"][process]["read"].as_u64().unwrap();
    assert_eq!(Value::from(read(0) + read(1)), all["bytes"]["read"]);

    // Reading and traveling take turns, and writing costs one round more.
    let machine = r#"{"disk_read_gbps": 0.002, "disk_write_gbps": 0.001, "network_gbps": 0.001, "latency_us": 0}"#;
    write_bytes(&sample.path("machine.json"), machine.as_bytes());
    let timed = simulated(&sample, &format!("{nodes} --machine @machine.json"));
    let of = |process: usize, key: &str| timed["per_process"][process][key].as_f64().unwrap();
    let rounds = timed["plan"]["rounds"].as_f64().unwrap();
    let expected = [(0, 1), (1, 0)].map(|(own, other)| {
        let read = of(own, "read") / 2e6;
        let traveled = of(own, "received").max(of(other, "received")) / 1e6;
        let (moved, written) = (read + traveled, of(own, "written") / 1e6);
        moved.max(written) + moved.min(written) / rounds
    });
    let seconds = timed["plan"]["seconds_estimated"].as_f64().unwrap();
    assert!(
        (seconds - expected[0].max(expected[1])).abs() < 1e-9,
        "{timed}"
    );

    let shared = simulated(&sample, &format!("{nodes} --storage shared"));
    assert_eq!(shared["bytes"]["sent"], 0);
}

#[test]
fn draws_and_refuses() {
    let sample = Sample::new();
    let machine =
        r#"{"disk_read_gbps": 1, "disk_write_gbps": 0.001, "network_gbps": 1, "latency_us": 0}"#;
    write_bytes(&sample.path("machine.json"), machine.as_bytes());
    let shown = simulated(&sample, "--svg @plan.svg --machine @machine.json");
    let seconds = shown["plan"]["seconds_estimated"].as_f64().unwrap();
    let written = shown["bytes"]["written"].as_f64().unwrap();
    assert!((seconds - written / 1e6).abs() < 1e-9, "{shown}");
    let picture = std::fs::read_to_string(sample.path("plan.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("written"));
    for words in [
        "4 to 2 ranks: bytes of 2 processes",
        " of a process<",
        "process, most bytes first",
    ] {
        assert!(picture.contains(words), "{words}: {picture}");
    }
    assert!(!picture.contains("from node"), "one node sends to no other");
    simulated(&sample, "--svg @nodes.svg --ranks-per-node 1");
    let picture = std::fs::read_to_string(sample.path("nodes.svg")).unwrap();
    for words in ["from node", "to node", "<title>1 to 0: "] {
        assert!(picture.contains(words), "{words}: {picture}");
    }
    let text = alone(&sample.args(&SIMULATE.replace("--json", ""))).succeeds();
    assert!(text.stdout.contains("4 to 2 ranks"), "{text:#?}");
    let run = alone(&sample.args(&format!("{SIMULATE} --process 2")));
    assert_eq!(run.status.code(), Some(2), "{run:#?}");
    write_bytes(&sample.path("zero.json"), br#"{"disk_read_gbps": 0}"#);
    let run = alone(&sample.args(&format!("{SIMULATE} --machine @zero.json")));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
}

/// DeepSeek-V3's shapes, and its strategies on some meshes.
struct DeepSeek {
    room: TempDir,
}

impl DeepSeek {
    /// A part of each dimension, the meshes' names, and their sizes: pp, dp, tp, ep.
    fn on(part: u64, meshes: &[(&str, u32, u64, u64, u64)]) -> DeepSeek {
        let room = tempfile::tempdir().unwrap();
        let shapes = deepseek::shapes_json(part);
        write_bytes(&room.path().join("shapes.json"), shapes.as_bytes());
        for (name, pp, dp, tp, ep) in meshes.iter().copied() {
            let strategy = deepseek::strategy(Parallel { pp, dp, tp, ep });
            if let Ok(ranks) = name.parse::<u32>() {
                assert_eq!(strategy.ranks(), ranks);
            }
            write_bytes(&room.path().join(name), &strategy.to_protobuf().unwrap());
        }
        DeepSeek { room }
    }

    /// Four worlds of thousands of ranks, called by their numbers.
    fn on_thousands(part: u64) -> DeepSeek {
        let meshes = [
            ("2048", 16, 16, 8, 64),
            ("1024", 8, 32, 4, 32),
            ("16384", 16, 128, 8, 256),
            ("8192", 8, 256, 4, 128),
        ];
        DeepSeek::on(part, &meshes)
    }

    /// A model whose dimensions are an eighth, from 32 ranks to 16.
    fn small() -> DeepSeek {
        DeepSeek::on(8, &[("source", 2, 8, 2, 8), ("destination", 1, 4, 4, 4)])
    }

    /// What is told of a reshard; no destination means full weights.
    fn simulated(&self, source: &str, destination: Option<&str>, more: &str) -> Value {
        let path = |name: &str| self.room.path().join(name).to_string_lossy().into_owned();
        let (source, shapes) = (path(source), path("shapes.json"));
        let destination = destination.map(path);
        let mut line = vec!["simulate", "--json", "--src-strategy", &source];
        line.extend(["--shapes", &shapes]);
        line.extend(destination.iter().flat_map(|path| ["--dst-strategy", path]));
        line.extend(more.split_whitespace());
        object(&alone(&line).succeeds())
    }
}

/// A process's own plan costs what its own slices cost: eight times the world, the same order of time
/// (far below a second where the program is optimised), and far below 256 MB.
#[test]
fn plans_for_one_of_thousands_of_ranks() {
    let model = DeepSeek::on_thousands(4);
    // Who builds a window of a destination that all share follows from who sees it: each process goes
    // through those of the whole checkpoint. What is read in turn comes from each node that has a copy.
    let worlds = [("2048", "1024", "700"), ("16384", "8192", "5000")];
    for (storage, worlds, seconds_most, partners_most) in [
        ("local", &worlds[..], 4.0, 64),
        ("shared-source", &worlds[..], 4.0, 127),
        ("shared-destination", &worlds[..1], 30.0, 127),
    ] {
        for (source, destination, process) in worlds {
            // The best of some runs: the machine may have other things to do.
            let more = format!("--storage {storage} --process {process}");
            let runs = (0..3).map(|_| model.simulated(source, Some(destination), &more));
            let seconds = |run: &Value| run["seconds"]["plan"].as_f64().unwrap();
            let simulated = runs
                .min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
                .unwrap();
            println!("{destination}, {storage}: {simulated:#}");
            assert!(seconds(&simulated) < seconds_most, "{simulated:#}");
            assert!(simulated["memory_peak_bytes_max"].as_u64().unwrap() < 256_000_000);
            let partners = simulated["partners_max"].as_u64().unwrap();
            assert!(partners <= partners_most, "{partners}");
        }
    }
}

/// What each process expects to send is an estimate; together they expect what is received.
#[test]
fn estimates_of_what_is_sent_add_up() {
    let model = DeepSeek::small();
    let run = |more: &str| {
        let more = format!("--ranks-per-node 2 {more}");
        model.simulated("source", Some("destination"), &more)
    };
    let all = run("");
    let mut sent = 0;
    for process in 0..16 {
        let one = run(&format!("--process {process}"));
        sent += one["bytes"]["sent"].as_u64().unwrap();
    }
    let received = all["bytes"]["received"].as_u64().unwrap();
    assert!(received > 0 && all["bytes"]["sent_lower_bound"].as_u64().unwrap() <= received);
    assert!(sent.abs_diff(received) < received / 10, "{sent} {received}");
}

/// What nodes have on disks of their own is built there, wherever it goes, and as evenly as they have it.
#[test]
fn a_shared_destination_is_built_where_its_sources_are() {
    let model = DeepSeek::small();
    let more = "--processes 16 --ranks-per-node 4 --storage shared-destination";
    for destination in [None, Some("destination")] {
        let simulated = model.simulated("source", destination, more);
        let bytes = |key: &str| simulated["bytes"][key].as_u64().unwrap();
        println!("{destination:?} {simulated:#}");
        // A block of a file that what several nodes have meets in is built by one of them.
        assert!(bytes("sent") >= bytes("sent_lower_bound"));
        assert!(bytes("sent") < bytes("read") / 100, "{simulated:#}");
        let balance = simulated["balance_max_over_mean"].as_f64().unwrap();
        assert!(balance < 1.05, "{simulated:#}");
    }
}

/// The plans of all processes fit together.
#[test]
fn plans_for_all_processes() {
    let model = DeepSeek::on(8, &[("64", 2, 8, 4, 8), ("32", 1, 8, 4, 8)]);
    let simulated = model.simulated("64", Some("32"), "");
    assert_eq!(simulated["processes_planned"], 32);
    assert_eq!(simulated["bytes"]["sent"], simulated["bytes"]["received"]);
}
