//! The schemas in docs/schema against what the program prints.

use crate::command::{RESHARD, alone, under_mpi};
use crate::sample::Sample;
use crate::support::Run;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema")
}

fn schema(name: &str) -> Value {
    let path = folder().join(format!("{name}.schema.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| unreachable!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// What of `value` isn't as `schema` says, for the words that our schemas use.
fn wrong(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let rules = schema.as_object().expect("a schema is an object");
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => unreachable!("{other} is no type"),
    };
    for (rule, said) in rules {
        let ok = match rule.as_str() {
            "$schema" | "$id" | "title" | "properties" | "items" => true,
            "type" => match said {
                Value::String(name) => is(name),
                names => names
                    .as_array()
                    .expect("types")
                    .iter()
                    .any(|name| is(name.as_str().expect("a type"))),
            },
            "const" => value == said,
            "enum" => said.as_array().expect("values").contains(value),
            "minimum" => value
                .as_f64()
                .is_none_or(|value| Some(value) >= said.as_f64()),
            "pattern" => {
                let text = value.as_str().unwrap_or_default();
                text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
            }
            "required" => said.as_array().expect("names").iter().all(|name| {
                let there = value.get(name.as_str().expect("a name")).is_some();
                if !there {
                    found.push(format!("{at}: no {name}"));
                }
                there
            }),
            other => unreachable!("{other} is not checked here"),
        };
        if !ok {
            found.push(format!("{at}: {value} against {rule} {said}"));
        }
    }
    if let (Some(rules), Some(fields)) = (rules.get("properties"), value.as_object()) {
        for (name, field) in fields {
            if let Some(rule) = rules.get(name) {
                wrong(rule, field, &format!("{at}.{name}"), found);
            }
        }
    }
    if let (Some(rule), Some(items)) = (rules.get("items"), value.as_array()) {
        items
            .iter()
            .for_each(|item| wrong(rule, item, &format!("{at}[]"), found));
    }
}

#[track_caller]
fn fits(name: &str, value: &Value) {
    let mut found = Vec::new();
    wrong(&schema(name), value, name, &mut found);
    assert!(found.is_empty(), "{}\n{value}", found.join("\n"));
}

#[track_caller]
fn printed(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|_| unreachable!("no object: {run:#?}"))
}

#[test]
fn what_is_printed_is_as_the_schemas_say() {
    let sample = Sample::in_memory();
    std::fs::create_dir_all(sample.path("empty")).expect("a directory");
    let mut seen = BTreeSet::new();
    for line in [
        RESHARD,
        "reshard --src @src --src-strategy @four.ckpt --dst @dry --dst-strategy @two.ckpt --dry-run",
        "unify --src @src --src-strategy @four.ckpt --dst @full2",
        "split --src @full --dst @cut --dst-strategy @two.ckpt",
        "convert @full --dst @converted --to ckpt",
        "diff @src @out --a-strategy @four.ckpt --b-strategy @two.ckpt",
        "verify @out",
        "inspect @src",
        "simulate --src-strategy @four.ckpt --dst-strategy @two.ckpt --shapes @full",
        "strategy show @four.ckpt",
        "strategy diff @four.ckpt @four.ckpt",
        "config",
        "formats",
        "families",
        "generate completions bash",
    ] {
        let run = alone(&sample.args(&format!("{line} --json"))).succeeds();
        let name = line.split(' ').next().expect("a command");
        fits(name, &printed(&run));
        seen.insert(name.to_owned());
    }
    fits(
        "doctor",
        &printed(&alone(&sample.args("doctor @out --json"))),
    );
    let bench = "bench collectives --operation barrier --time 1ms --json";
    fits(
        "bench",
        &printed(&under_mpi(2, &sample.args(bench)).succeeds()),
    );
    let again = format!("{RESHARD} --json --progress json");
    let failed = alone(&sample.args(&again)).fails();
    fits("error", &printed(&failed));
    let wrong =
        alone(&sample.args("reshard --src @src --dst @x --json --machine @none.json")).fails();
    fits("error", &printed(&wrong));
    let told = failed.stderr.lines().filter(|line| line.starts_with('{'));
    let told: Vec<Value> = told
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(!told.is_empty(), "{failed:#?}");
    told.iter().for_each(|line| fits("progress", line));
    seen.extend(["doctor", "bench", "error", "progress"].map(str::to_owned));
    // Those of what other tests print; a new schema is to be tried here or there.
    seen.extend(["batch", "checkpoints", "export", "import", "load", "to"].map(str::to_owned));
    let files = std::fs::read_dir(folder()).expect("schemas");
    let files = files.map(|file| {
        file.expect("a file")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    let names: BTreeSet<String> = files
        .map(|file| file.trim_end_matches(".schema.json").to_owned())
        .collect();
    assert_eq!(names, seen);
}
