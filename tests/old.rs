//! What earlier versions wrote, kept as data (`tests/data/old`), is read by this one.

use crate::support::command::{RESHARD, alone};
use crate::support::fixtures::data;
use crate::support::sample::Sample;
use serde_json::Value;
use shardloom::store::manifest::{self, Manifest};

/// A new version of the manifest, or of what `--json` prints, needs what the one before wrote as data here, and
/// its own.
// proves P127, P160
#[test]
fn every_schema_that_was_ever_written_is_read() {
    let old = data().join("old");
    for schema in 1..=manifest::SCHEMA {
        let directory = old.join(format!("result-{schema}"));
        let text = std::fs::read_to_string(directory.join(manifest::NAME));
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let raw: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(raw["schema"], schema);
        let manifest = Manifest::read(&directory).expect("readable");
        assert_eq!(manifest.expect("a manifest").files.len(), 2);
        alone(&["verify", &directory.display().to_string()]).succeeds();
    }
    let printed: Value =
        serde_json::from_str(&alone(&["formats", "--json"]).succeeds().stdout).expect("JSON");
    let newest = printed["schema"].as_u64().expect("a number");
    for schema in 1..=newest {
        let file = old
            .join(format!("bench-{schema}.json"))
            .display()
            .to_string();
        let line =
            "bench collectives --operation barrier --time 1ms --tolerance 1000% --json --baseline";
        let args: Vec<&str> = line.split(' ').chain([file.as_str()]).collect();
        let run = alone(&args);
        assert!(run.status.code().is_some_and(|code| code < 2), "{run:#?}");
        let compared: Value = serde_json::from_str(&run.stdout).expect("JSON");
        assert_eq!(compared["ok"], run.status.success(), "{run:#?}");
        assert!(compared.get("error").is_none(), "{run:#?}");
    }
}

#[test]
fn an_earlier_record_of_moves_brings_the_old_back() {
    let sample = Sample::in_memory();
    sample.copy(
        "src/rank_0/net.safetensors",
        ".out.shardloom-old/rank_0/net.safetensors",
    );
    let record = data().join("old/moves-1.json");
    std::fs::copy(record, sample.path(".out.shardloom-moves")).expect("copied");
    // Without --overwrite what was brought back is refused, and stays.
    alone(&sample.args(RESHARD)).fails();
    assert!(sample.path("out/rank_0/net.safetensors").exists());
    for name in [".out.shardloom-old", ".out.shardloom-moves"] {
        assert!(!sample.path(name).exists(), "{name}");
    }
}
