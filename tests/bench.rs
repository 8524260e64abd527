//! `bench`: what is measured, that its contents are looked at, and where the result goes.

mod files;
mod troubles;

use crate::support::{self, Run, command, sample, schema};
use command::{alone, object, refuses, under_mpi};
use sample::Sample;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The names that results have.
const OPERATIONS: [&str; 17] = [
    "latency",
    "one_way",
    "both_ways",
    "many_pairs",
    "broadcast",
    "scatter",
    "scatter_v",
    "gather",
    "gather_v",
    "all_gather",
    "all_gather_v",
    "all_reduce",
    "reduce_scatter",
    "all_to_all",
    "all_to_all_v",
    "barrier",
    "overlap",
];

/// The result of a bench, which is as its schema says.
#[track_caller]
fn result(run: &Run) -> Value {
    let measured = object(run);
    schema::described("bench", &measured);
    measured
}

fn rows(measured: &Value) -> &Vec<Value> {
    measured["rows"].as_array().unwrap()
}

fn names(measured: &Value) -> BTreeSet<&str> {
    let rows = rows(measured).iter();
    rows.map(|row| row["operation"].as_str().unwrap()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// A short run of the collectives.
fn collectives<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut line = vec!["bench", "collectives", "--json", "--iterations", "2"];
    line.extend(["--max-size", "4KiB", "--factor", "64", "--warmup", "1"]);
    line.extend(more);
    line
}

#[test]
fn every_operation_is_measured_and_brings_what_was_sent() {
    for processes in [1, 2, 4] {
        let measured = result(&under_mpi(processes, &collectives(&[])).succeeds());
        assert_eq!(measured["ok"], true);
        let found = names(&measured);
        for name in OPERATIONS {
            let left_out = |left: &Value| left["operation"] == name;
            let left_out = measured["unmeasured"]
                .as_array()
                .is_some_and(|all| all.iter().any(left_out));
            assert!(found.contains(name) || processes == 1 && left_out, "{name}");
        }
        for row in rows(&measured) {
            let seconds = ["min", "median", "p99", "max"].map(|name| number(&row["seconds"][name]));
            assert!(seconds.is_sorted() && seconds[0] > 0.0, "{row}");
            assert!(number(&row["seconds"]["mean"]) <= seconds[3], "{row}");
            assert_eq!(row["wrong_bytes"], 0, "{row}");
            let rate = number(&row["algorithm_gbps"]);
            let factor = match row["operation"].as_str().unwrap() {
                "all_reduce" => 2.0 * (1.0 - 1.0 / f64::from(processes)),
                "all_to_all" | "all_gather" => 1.0 - 1.0 / f64::from(processes),
                _ => continue,
            };
            assert_eq!(row["processes"], processes);
            if processes == 1 {
                assert!(row["bus_gbps"].is_null(), "{row}");
                continue;
            }
            let bus = number(&row["bus_gbps"]);
            assert!((bus - factor * rate).abs() <= 1e-9 * rate, "{row}");
            assert!(
                (rate * seconds[1] * 1e9 - number(&row["bytes"])).abs() <= 4.0,
                "{row}"
            );
        }
        let machine = &measured["machine"];
        assert_eq!(machine["ranks_per_node"], processes);
        // One process has none to send to, and small messages tell no rate.
        assert_eq!(
            machine["latency_us"].is_number(),
            processes > 1,
            "{machine}"
        );
        assert!(machine["network_gbps"].is_null(), "{machine}");
        let left_out = measured["unmeasured"].to_string();
        let told = left_out.contains("machine.network_gbps");
        assert_eq!(told, processes > 1, "{left_out}");
    }
}

#[test]
fn a_wrong_byte_is_found_and_its_way_is_named() {
    for (processes, operation, from) in [
        (
            2,
            "one_way",
            "process 1 has the first in what process 0 has sent",
        ),
        (
            4,
            "latency",
            "process 3 has the first in what process 0 has sent",
        ),
        (
            4,
            "all_to_all_v",
            "process 3 has the first in what process ",
        ),
        (2, "all_reduce", "process 1 has the first in sums"),
    ] {
        let line = collectives(&["--plant-wrong-byte", operation]);
        let only = ["--operation", operation, "--operation", "barrier"];
        let line = [&line[..], &only].concat();
        let run = under_mpi(processes, &line);
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        let measured = result(&run);
        assert_eq!(measured["ok"], false);
        let told = measured["verdict"][0].as_str().unwrap();
        assert!(told.contains(operation) && told.contains(from), "{told}");
        assert!(told.contains("bytes"), "{told}");
        for row in rows(&measured) {
            let wrong = row["wrong_bytes"] != 0;
            let planted = row["operation"] == operation && row["bytes"] != 0;
            assert_eq!(wrong, planted, "{row}");
        }
    }
}

#[test]
fn grows_with_the_processes_and_is_compared_with_an_earlier_result() {
    let room = tempfile::tempdir().unwrap();
    let file = |name: &str| room.path().join(name).to_string_lossy().into_owned();
    let (csv, html, old) = (file("rows.csv"), file("page.html"), file("old.json"));
    let only = ["--scaling", "--operation", "all_to_all"];
    let line = collectives(&[&only[..], &["--csv", &csv, "--html", &html]].concat());
    let run = under_mpi(4, &line).succeeds();
    let mut measured = result(&run);
    assert_eq!(names(&measured), BTreeSet::from(["all_to_all"]));
    let processes = rows(&measured).iter().map(|row| row["processes"].as_u64());
    assert_eq!(
        processes.collect::<BTreeSet<_>>(),
        [Some(2), Some(4)].into()
    );
    let table = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(table.lines().count(), 1 + rows(&measured).len());
    let columns = |line: &str| line.split(',').count();
    assert!(
        table
            .lines()
            .all(|line| columns(line) == columns(table.lines().next().unwrap()))
    );
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains(">By processes</h2>") && page.contains("all_to_all"));
    assert_eq!(measured["machine"]["ranks_per_node"], 4);
    // All of it took years once: nothing is slower now, however busy the machine is; and the other way round.
    for (factor, code) in [(1e15, 0), (1e-30, 1)] {
        for row in measured["rows"].as_array_mut().unwrap() {
            row["seconds"]["median"] = (number(&row["seconds"]["median"]) * factor).into();
        }
        std::fs::write(&old, measured.to_string()).unwrap();
        let compare = ["--baseline", &old, "--tolerance", "10%"];
        let run = under_mpi(
            4,
            &collectives(&[&only[..], &compare, &["--off-cache"]].concat()),
        );
        assert_eq!(run.status.code(), Some(code), "{run:#?}");
        let slower = result(&run)["slower"].as_array().map_or(0, Vec::len);
        assert_eq!(slower > 0, code == 1, "{run:#?}");
    }
    // Rows that have no partner are named; without any it isn't well.
    let others = ["--operation", "barrier", "--baseline", &old];
    let run = under_mpi(2, &collectives(&others));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let measured = result(&run);
    assert_eq!(
        (&measured["ok"], &measured["compared"]),
        (&false.into(), &0.into())
    );
    let left = measured["not_compared"].to_string();
    assert!(
        left.contains("all_to_all of 8 bytes, 4 processes"),
        "{left}"
    );
}

#[test]
fn sends_what_a_reshard_would_send() {
    let sample = Sample::new();
    let what = "--src-strategy @four.ckpt --dst-strategy @two.ckpt --shapes @full/model.safetensors --json";
    for (processes, flags) in [
        (1, "--exchange collective"),
        (2, "--ranks-per-node 1"),
        (4, "--exchange collective"),
        (4, "--ranks-per-node 2"),
    ] {
        let line = format!("bench exchange {what} {flags} --iterations 2");
        let measured = result(&under_mpi(processes, &sample.args(&line)).succeeds());
        let nodes = if flags.contains("per-node") {
            ""
        } else {
            "--ranks-per-node 8"
        };
        let line = format!("simulate {what} {flags} --processes {processes} {nodes}");
        let simulated = object(&alone(&sample.args(&line)).succeeds());
        let bytes = &measured["bytes"];
        for key in ["sent", "sent_lower_bound"] {
            assert_eq!(
                bytes[key], simulated["bytes"][key],
                "{processes} {flags} {key}"
            );
        }
        assert_eq!(
            bytes["rounds"].as_u64() > Some(0),
            processes > 1,
            "{measured}"
        );
        assert_eq!(bytes["partners_max"], simulated["partners_max"]);
        assert!(
            measured["machine"]["ranks_per_node"].is_number(),
            "{measured}"
        );
        assert_eq!(rows(&measured).is_empty(), processes == 1);
        for row in rows(&measured) {
            assert_eq!(
                (&row["operation"], &row["bytes"]),
                (&"exchange".into(), &bytes["sent"])
            );
            assert_eq!(row["wrong_bytes"], 0);
            assert!(number(&row["algorithm_gbps"]) > 0.0, "{row}");
        }
    }
    // Left to itself on one node, it tells why it sends anything.
    let line = format!("bench exchange {what} --iterations 1").replace("--json", "");
    let run = under_mpi(2, &sample.args(&line)).succeeds();
    assert!(run.stdout.contains("read everything directly"), "{run:#?}");
    let run = under_mpi(2, &sample.args(&line.replace("@full/", "@nowhere/")));
    refuses(&run, "nowhere");
}

#[test]
fn everything_is_measured_in_its_time_and_every_pair_of_nodes() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path().to_string_lossy().into_owned();
    let html = room.path().join("page.html").to_string_lossy().into_owned();
    let line = [
        "bench", "all", "--budget", "3s", "--dir", &dir, "--html", &html, "--json",
    ];
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_shardloom"));
    let run = support::mpirun(4, program, &line, &[("SHARDLOOM_NODES", "2")]).succeeds();
    let measured = result(&run);
    assert_eq!(
        (&measured["ok"], &measured["nodes"]),
        (&true.into(), &2.into())
    );
    // What there was no time for is told.
    let found = names(&measured);
    let left_out = measured["unmeasured"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for name in OPERATIONS
        .iter()
        .chain(&["write and flush", "reshard by rows"])
    {
        let told = left_out
            .iter()
            .any(|left| name.contains(left["operation"].as_str().unwrap()));
        let told = told || name.contains("write") && !left_out.is_empty();
        assert!(found.contains(name) || told, "{name}: {left_out:?}");
    }
    let pairs = &measured["pairs"];
    assert_eq!(pairs["names"].as_array().unwrap().len(), 2);
    assert!(pairs["gbps"][0][0].is_null() && pairs["gbps"][1][1].is_null());
    assert!(number(&pairs["gbps"][0][1]) > 0.0 && number(&pairs["gbps"][1][0]) > 0.0);
    let verdict = measured["verdict"].as_array().unwrap();
    assert!(
        verdict
            .iter()
            .any(|line| line == "every byte is what was sent"),
        "{verdict:?}"
    );
    let page = std::fs::read_to_string(&html).unwrap();
    for part in [">Verdict</h2>", ">Between nodes</h2>", "iB"] {
        assert!(page.contains(part), "{part}");
    }
    // On a machine that is busy there may be time for one size only, of which there is no curve.
    let mut sizes: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for row in rows(&measured).iter().filter(|row| row["bytes"] != 0) {
        let title = format!("{} {}", row["operation"], row["variant"]);
        let bytes = row["bytes"].as_u64();
        sizes.entry(title).or_default().extend(bytes);
    }
    let curves = sizes.values().any(|sizes| sizes.len() > 1);
    assert!(page.contains(">By size</h2>") || !curves, "{sizes:?}");
    // It loads nothing.
    for part in [
        "http:", "https:", "src=", "@import", "url(", "<script", "NaN",
    ] {
        assert!(!page.contains(part), "{part}");
    }
    assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 1);
    // What a bench has found out about a machine is what `simulate` asks for.
    let result = room.path().join("all.json");
    std::fs::write(&result, &run.stdout).unwrap();
    let sample = Sample::new();
    let line = "simulate --src-strategy @four.ckpt --dst-strategy @two.ckpt --shapes @full/model.safetensors --json";
    let mut line = sample.args(line);
    line.extend([
        "--machine".to_owned(),
        result.to_string_lossy().into_owned(),
    ]);
    let simulated = object(&alone(&line).succeeds());
    for (key, value) in measured["machine"].as_object().unwrap() {
        assert_eq!(simulated["machine"][key], *value, "{key}");
    }
    assert!(measured["machine"]["network_gbps"].is_number());
}

#[test]
fn a_row_takes_its_time_with_all_that_is_done_for_it() {
    let line = [
        "--operation",
        "barrier",
        "--off-cache",
        "--time",
        "50ms",
        "--json",
    ];
    let line = [&["bench", "collectives"], &line[..]].concat();
    let measured = result(&under_mpi(2, &line).succeeds());
    for row in rows(&measured) {
        // Emptying caches takes milliseconds each time.
        assert!(row["iterations"].as_u64() < Some(50), "{row}");
    }
}
