//! The schemas in docs/schema against what the program prints.

use serde_json::Value;
use std::path::{Path, PathBuf};

pub(crate) fn folder() -> PathBuf {
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
            "$schema" | "$id" | "title" | "description" | "properties" | "items" => true,
            "type" => match said {
                Value::String(name) => is(name),
                names => names
                    .as_array()
                    .expect("types")
                    .iter()
                    .any(|name| is(name.as_str().expect("a type"))),
            },
            "anyOf" => said.as_array().expect("schemas").iter().any(|one| {
                let mut other = Vec::new();
                wrong(one, value, at, &mut other);
                other.is_empty()
            }),
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

/// `value` is as the schema of this name says.
#[track_caller]
pub(crate) fn fits(name: &str, value: &Value) {
    let mut found = Vec::new();
    wrong(&schema(name), value, name, &mut found);
    assert!(found.is_empty(), "{}\n{value}", found.join("\n"));
}

/// What of `value` the schema says nothing of.
fn unsaid(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let (Some(rules), Some(fields)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, field) in fields {
            match rules.get(name) {
                Some(rule) => unsaid(rule, field, &format!("{at}.{name}"), found),
                None => found.push(format!("{at}.{name}")),
            }
        }
    }
    if let (Some(rule), Some(items)) = (schema.get("items"), value.as_array()) {
        let at = format!("{at}[]");
        items.iter().for_each(|item| unsaid(rule, item, &at, found));
    }
}

/// `value` is as the schema of this name says, and has no field that it doesn't name.
#[track_caller]
pub(crate) fn described(name: &str, value: &Value) {
    fits(name, value);
    let mut found = Vec::new();
    unsaid(&schema(name), value, name, &mut found);
    found.dedup();
    assert!(found.is_empty(), "{found:?} are not in the schema\n{value}");
}
