//! Calls on names: what a job opens and lists, however many nodes share the storage. A file server has as many of them to
//! answer on one node as on thousands.

use crate::support::command::RESHARD;
use crate::support::oracle::Strategy;
use crate::support::sample::{Sample, layout};
use crate::support::tensors::{Tensor, Tensors};
use crate::support::{self, mpirun};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most times that anything is listed, and that a file is opened, until all is planned.
const MOST: u32 = 2;
/// Most times that a file is opened where samples of all copies are compared, too.
const MOST_COMPARED: u32 = 3;

/// 32 ranks, with each part four times, to 16, with each part twice.
fn sample() -> Sample {
    let names = (0..24).map(|layer| format!("layers.{layer}.weight"));
    let names: Vec<String> = names.collect();
    let tensor = |(number, name): (usize, &String)| {
        (name.clone(), Tensor::counting("F32", &[64, 8], number))
    };
    let whole: Tensors = names.iter().enumerate().map(tensor).collect();
    let all = |mesh: &[usize]| {
        let items = names.iter().map(|name| (&**name, layout(mesh, &[0, -1])));
        Strategy::of(&items.collect::<Vec<_>>())
    };
    Sample::of(whole, all(&[4, 8]), all(&[2, 8]))
}

/// Everything below `directory`, by device and inode as the record has them.
fn everything(directory: &Path, found: &mut BTreeMap<String, PathBuf>) {
    let metadata = std::fs::symlink_metadata(directory).expect("it stands");
    let key = format!("{}:{}", metadata.dev(), metadata.ino());
    found.insert(key, directory.to_path_buf());
    if metadata.is_dir() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            everything(&entry.expect("an entry").path(), found);
        }
    }
}

/// What the record says was listed more than [`MOST`] times, or opened more than `opens`, of what stands in `room` now.
fn too_often(room: &Path, record: &str, opens: u32) -> Vec<String> {
    let mut standing = BTreeMap::new();
    everything(room, &mut standing);
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in record.lines() {
        let mut words = line.split(' ').skip(1);
        let (what, of) = (
            words.next().expect("a word"),
            words.next().expect("what of"),
        );
        match what {
            // A number that another file had before.
            "create" => {
                counts.insert(("open", of), 1);
            }
            "open" | "list" => *counts.entry((what, of)).or_default() += 1,
            _ => {}
        }
    }
    let opened = counts
        .iter()
        .filter(|((what, _), _)| *what == "open")
        .count();
    assert!(
        opened >= 32,
        "the record isn't of all files: {opened} of 32"
    );
    let often = counts.iter().filter(|((what, _), count)| {
        let most = if *what == "open" { opens } else { MOST };
        **count > most
    });
    let named = often.filter_map(|((what, of), count)| {
        let path = standing.get(*of)?.strip_prefix(room).ok()?;
        Some(format!("{what} {}: {count} times", path.display()))
    });
    named.collect()
}

/// Runs `line` with so many processes, each on a node of its own.
fn run(sample: &Sample, nodes: u32, line: &str) -> String {
    let record = sample.path("record");
    let _ = std::fs::remove_file(&record);
    let args = sample.args(line);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (record_path, count) = (record.display().to_string(), nodes.to_string());
    let envs = [
        ("SHARDLOOM_IO_TRACE", record_path.as_str()),
        ("SHARDLOOM_NODES", count.as_str()),
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    match nodes {
        1 => support::alone(program, &args, &envs).succeeds(),
        _ => mpirun(nodes, program, &args, &envs).succeeds(),
    };
    std::fs::read_to_string(record).expect("a record")
}

// proves P163
#[test]
fn finding_opens_and_lists_everything_twice_at_most_on_any_number_of_nodes() {
    let sample = sample();
    let mut often = Vec::new();
    for nodes in [1, 4, 32] {
        for (more, opens) in [
            ("--dry-run --verify none", MOST),
            ("--dry-run", MOST_COMPARED),
            // Each process opens the files that it reads of, and the directory that it writes into.
            ("--sync none", nodes + MOST_COMPARED),
        ] {
            let line = format!("{RESHARD} {more}");
            let record = run(&sample, nodes, &line);
            let found = too_often(sample.room.path(), &record, opens);
            often.extend(
                found
                    .iter()
                    .map(|what| format!("{nodes} nodes, {line}: {what}")),
            );
            if !line.contains("--dry-run") {
                sample.check("out", &sample.two, &sample.whole);
                std::fs::remove_dir_all(sample.path("out")).expect("the result");
            }
        }
    }
    assert!(often.is_empty(), "{}", often.join("\n"));
}
