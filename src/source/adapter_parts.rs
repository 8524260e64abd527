//! What an adapter's `adapter_config.json` says that its file has.

use crate::fault::{Fault, Kind, Result};
use crate::plan::lora::{Biases, Modules, Told};
use regex_lite::Regex;
use serde_json::{Map, Value};
use std::fmt::Display;

/// A training's word for every linear layer but the head.
const ALL_LINEAR: &str = "all-linear";

/// What `config` says that the adapter's file has. An expression that isn't understood says nothing.
///
/// # Errors
/// [`Kind::Corrupt`] naming the key.
pub(super) fn told(config: &Map<String, Value>) -> Result<Told> {
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    let targets = match text("target_modules") {
        Some(text) if text.eq_ignore_ascii_case(ALL_LINEAR) => Vec::new(),
        Some(text) => {
            let modules = Modules::fitting(text).ok();
            let named = modules.map(|modules| (text.to_owned(), modules));
            named.into_iter().collect()
        }
        None => {
            let names = names(config, "target_modules")?.into_iter();
            let ends = |name: String| (name.clone(), Modules::Ends(vec![name]));
            names.map(ends).collect()
        }
    };
    let excluded = match text("exclude_modules") {
        Some(text) => Modules::fitting(text).ok(),
        None => Some(Modules::Ends(names(config, "exclude_modules")?)),
    };
    // Without what it leaves out, nothing is known of what a target is for.
    let targets = if excluded.is_none() {
        Vec::new()
    } else {
        targets
    };
    Ok(Told {
        targets,
        excluded,
        kept: names(config, "modules_to_save")?,
        layers: layers(config)?,
        layer_names: layer_names(config)?,
        biases: match text("bias") {
            Some("all") => Biases::All,
            Some("lora_only") => Biases::OfPairs,
            _ => Biases::None,
        },
    })
}

/// The list of names under `key`; none if it says nothing.
///
/// # Errors
/// [`Kind::Corrupt`] naming the key.
pub(super) fn names(config: &Map<String, Value>, key: &str) -> Result<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    list(config, key, "names", text)
}

fn list<T>(
    config: &Map<String, Value>,
    key: &str,
    of: &str,
    each: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<T>> {
    let value = match config.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => value,
    };
    let list = value.as_array().map(|list| list.iter().map(each));
    let found: Option<Vec<T>> = list.and_then(Iterator::collect);
    found.ok_or_else(|| {
        let message = format!("{key} is {value}, no list of {of}");
        Fault::new(Kind::Corrupt, message)
    })
}

/// The layers that have pairs; none: all.
fn layers(config: &Map<String, Value>) -> Result<Option<Vec<u64>>> {
    let key = "layers_to_transform";
    if let Some(layer) = config.get(key).and_then(Value::as_u64) {
        return Ok(Some(vec![layer]));
    }
    let layers = list(config, key, "layers' numbers", Value::as_u64)?;
    Ok(Some(layers).filter(|layers| !layers.is_empty()))
}

/// What stands before a layer's number.
fn layer_names(config: &Map<String, Value>) -> Result<Vec<Regex>> {
    let key = "layers_pattern";
    let names = match config.get(key) {
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        _ => names(config, key)?,
    };
    let expression = |name: String| {
        let before = Regex::new(&format!(r"^(?:|.*?\.)(?:{name})\.(\d+)\."));
        before.map_err(|why| not_understood(key, &name, why))
    };
    names.into_iter().map(expression).collect()
}

/// That the regular expression `name` of `key` isn't read.
pub(super) fn not_understood(key: &str, name: &str, why: impl Display) -> Fault {
    let message = format!("{key} '{name}' is no regular expression that is understood: {why}");
    Fault::new(Kind::Unsupported, message).hint("merge it with PEFT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Told> {
        told(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn tells_what_a_file_has() {
        let told = of(
            r#"{"target_modules": ["q", "model.k"], "modules_to_save": ["head"], "bias": "all",
            "layers_to_transform": 3, "layers_pattern": "h"}"#,
        );
        let told = told.unwrap();
        let called: Vec<&str> = told.targets.iter().map(|(called, _)| &**called).collect();
        assert_eq!(called, ["q", "model.k"]);
        assert_eq!(
            (told.kept, told.layers),
            (vec!["head".to_owned()], Some(vec![3]))
        );
        assert_eq!((told.layer_names.len(), told.biases), (1, Biases::All));
        for (nothing, targets) in [
            ("{}", 0),
            (
                r#"{"target_modules": null, "layers_to_transform": [], "layers_pattern": ""}"#,
                0,
            ),
            (r#"{"target_modules": "All-Linear"}"#, 0),
            (r#"{"target_modules": ".*q(?!x)"}"#, 0),
            (
                r#"{"target_modules": ["q"], "exclude_modules": ".*q(?!x)"}"#,
                0,
            ),
            (r#"{"target_modules": ".*q"}"#, 1),
        ] {
            let told = of(nothing).unwrap();
            assert_eq!(
                (told.targets.len(), told.layers),
                (targets, None),
                "{nothing}"
            );
            assert!(
                told.layer_names.is_empty() && told.kept.is_empty(),
                "{nothing}"
            );
        }
        for (key, text) in [
            ("target_modules", r#"{"target_modules": 3}"#),
            ("modules_to_save", r#"{"modules_to_save": "head"}"#),
            ("layers_to_transform", r#"{"layers_to_transform": ["a"]}"#),
            ("layers_pattern", r#"{"layers_pattern": "(?=x)"}"#),
        ] {
            let fault = of(text).unwrap_err();
            assert!(fault.message.contains(key), "{fault:?}");
        }
    }
}
