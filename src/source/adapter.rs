//! An adapter's `adapter_config.json`: what its pairs mean, or that they mean something else.
//!
//! The rules are PEFT's (0.21): a module's alpha is that of the first key of `alpha_pattern`, in the order of
//! the file, that matches the module's name as a regular expression `(.*\.)?(KEY)$`, from its beginning.

use crate::fault::{Fault, Kind, Result};
use crate::plan::lora::{Factor, Meaning, Pattern, Patterns};
use crate::source::adapter_parts::{names, not_understood, told};
use crate::store::json;
use serde_json::{Map, Value};
use std::path::Path;

/// The file that describes an adapter.
pub const CONFIG: &str = "adapter_config.json";
/// PEFT's name for an adapter's weights.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// Largest adapter_config.json.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Keys that, if they say anything, make pairs mean something else.
const FOREIGN: [&str; 4] = [
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
    "trainable_token_indices",
];
/// Keys that look like such switches and aren't.
const PLAIN: [&str; 7] = [
    "use_rslora",
    "megatron_config",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "runtime_config",
];
/// The version of PEFT from which on A of several experts has the columns of their matrices, B the rows.
const STRAIGHT_SINCE: (u64, u64) = (0, 19);
/// Ways to begin a training that leave the base as it is.
const PLAIN_BEGINNINGS: [&str; 6] = ["gaussian", "eva", "orthogonal", "mica", "true", "false"];
/// Ways to begin a training that change it.
const CHANGED_BEGINNINGS: [&str; 5] = ["pissa", "olora", "loftq", "corda", "lora_ga"];

/// Reads the configuration at `path`; `fixed` takes the place of the factor that it says.
///
/// # Errors
/// [`Kind::Corrupt`] if it is none, [`Kind::Unsupported`] naming the key if the pairs are no plain
/// ones.
pub fn meaning(path: &Path, fixed: Option<f64>) -> Result<Meaning> {
    let what = "adapter's configuration";
    let config: Map<String, Value> = json::read(path, CONFIG_BYTES_MAX, what)?;
    of(&config, fixed).map_err(|fault| fault.file(path.display().to_string()))
}

fn of(config: &Map<String, Value>, fixed: Option<f64>) -> Result<Meaning> {
    refuse_foreign(config)?;
    refuse_beginning(config)?;
    let number = |key: &str| config.get(key).and_then(factor_of);
    let truth = |key: &str| config.get(key).is_some_and(says);
    let factor = match (fixed, number("lora_alpha")) {
        (Some(factor), _) => Factor::Fixed(factor),
        (None, Some(alpha)) => Factor::Alpha {
            alpha,
            patterns: patterns(config, "alpha_pattern", factor_of)?,
            by_root: truth("use_rslora"),
        },
        (None, None) => {
            let message = match config.get("lora_alpha") {
                None | Some(Value::Null) => {
                    "has no number lora_alpha, which B * A is multiplied by".to_owned()
                }
                Some(value) => {
                    format!("lora_alpha is {value}, no number of 32 bits to multiply by")
                }
            };
            return Err(Fault::new(Kind::Corrupt, message));
        }
    };
    Ok(Meaning {
        factor,
        rank: config.get("r").and_then(Value::as_u64),
        ranks: patterns(config, "rank_pattern", Value::as_u64)?,
        transposed: truth("fan_in_fan_out"),
        described: true,
        tied: truth("ensure_weight_tying"),
        parameters: names(config, "target_parameters")?,
        apart: Vec::new(),
        turned: turned(config),
        told: told(config)?,
    })
}

/// A number to multiply by, which 32 bits can hold.
fn factor_of(value: &Value) -> Option<f64> {
    let most = f64::from(f32::MAX);
    value.as_f64().filter(|number| number.abs() <= most)
}

/// Whether the version of PEFT that wrote it has A and B of experts the other way round than
/// [`STRAIGHT_SINCE`]; none if it isn't told.
fn turned(config: &Map<String, Value>) -> Option<bool> {
    let version = config.get("peft_version")?.as_str()?;
    let mut numbers = version.split('.').map(|part| part.parse::<u64>());
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(version < STRAIGHT_SINCE)
}

/// Whether a value says anything: not null, false, zero or empty.
fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn refuse(key: &str, value: &Value) -> Fault {
    let mut shown = value.to_string();
    if shown.chars().count() > 40 {
        shown = shown.chars().take(40).chain(['…']).collect();
    }
    let message = format!("{key} is {shown}: its pairs mean more than W + factor * (B * A)");
    Fault::new(Kind::Unsupported, message).hint("merge it with PEFT, and save the merged model")
}

fn refuse_foreign(config: &Map<String, Value>) -> Result<()> {
    if let Some(value) = config.get("peft_type")
        && value.as_str() != Some("LORA")
        && says(value)
    {
        return Err(refuse("peft_type", value));
    }
    let switch =
        |key: &str| (key.starts_with("use_") || key.ends_with("_config")) && !PLAIN.contains(&key);
    let mut told = config.iter().filter(|(_, value)| says(value));
    match told.find(|(key, _)| FOREIGN.contains(&key.as_str()) || switch(key)) {
        Some((key, value)) => Err(refuse(key, value)),
        None => Ok(()),
    }
}

/// Refuses a beginning after which the base isn't the published model any more.
fn refuse_beginning(config: &Map<String, Value>) -> Result<()> {
    let key = "init_lora_weights";
    let Some(Value::String(text)) = config.get(key) else {
        return Ok(());
    };
    let way = text.to_ascii_lowercase();
    if PLAIN_BEGINNINGS.contains(&&*way) {
        return Ok(());
    }
    let what = match CHANGED_BEGINNINGS
        .iter()
        .any(|begin| way.starts_with(begin))
    {
        true => {
            "the training began by changing the base, so the pairs don't fit the published weights"
        }
        false => "it isn't known whether the training began by changing the base",
    };
    let fault = Fault::new(Kind::Unsupported, format!("{key} is '{text}': {what}"));
    Err(fault.hint(
        "PEFT's save_pretrained(path_initial_model_for_weight_conversion=…) makes a plain adapter of it",
    ))
}

/// The patterns under `key`, in the order of the file.
fn patterns<T>(
    config: &Map<String, Value>,
    key: &str,
    number: impl Fn(&Value) -> Option<T>,
) -> Result<Patterns<T>> {
    let map = match config.get(key) {
        None | Some(Value::Null) => return Ok(Patterns::default()),
        Some(Value::Object(map)) => map,
        Some(_) => {
            let message = format!("{key} is no map of names to numbers");
            return Err(Fault::new(Kind::Corrupt, message));
        }
    };
    let pattern = |(name, value): (&String, &Value)| {
        let value = number(value).ok_or_else(|| {
            Fault::new(
                Kind::Corrupt,
                format!("{key} '{name}' is {value}, no number for it"),
            )
        })?;
        Pattern::new(name, value).map_err(|why| not_understood(key, name, why))
    };
    let all: Result<Vec<Pattern<T>>> = map.iter().map(pattern).collect();
    all.map(Patterns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(text: &str) -> Result<Meaning> {
        of(&serde_json::from_str(text).unwrap(), None)
    }

    #[test]
    fn patterns_match_as_in_peft() {
        let q = "model.layers.0.self_attn.q_proj";
        for (patterns, module, factor) in [
            (r#"{"q_proj": 16, "layers.0.self_attn.q_proj": 64}"#, q, 2.0),
            (r#"{"layers.0.self_attn.q_proj": 64, "q_proj": 16}"#, q, 8.0),
            (r#"{"proj": 64}"#, q, 1.0),
            (r#"{".*q_proj": 64}"#, q, 8.0),
            (r#"{"^model.layers.0.self_attn.q_proj": 64}"#, q, 8.0),
            (r#"{"^layers.0.self_attn.q_proj": 64}"#, q, 1.0),
            (r#"{"q_proj|v_proj": 64}"#, q, 8.0),
            (r#"{"layers\\.[0-3]\\.self_attn.q_proj": 64}"#, q, 8.0),
            (r#"{"q_proj$": 64}"#, q, 8.0),
            (r#"{"self_attn": 64}"#, q, 1.0),
        ] {
            let text = format!(r#"{{"lora_alpha": 8, "r": 8, "alpha_pattern": {patterns}}}"#);
            let found = meant(&text).unwrap().factor.of(module, 8);
            assert_eq!(found.to_bits(), f32::to_bits(factor), "{patterns}");
        }
        let text = r#"{"lora_alpha": 8, "alpha_pattern": {"(?=q)": 1}}"#;
        let fault = meant(text).unwrap_err();
        assert_eq!(fault.kind, Kind::Unsupported);
        assert!(fault.message.contains("alpha_pattern '(?=q)'"), "{fault:?}");
    }

    /// Against the real PEFT (`tests/with_transformers.py --write-patterns`).
    #[test]
    fn modules_have_the_rank_and_the_factor_that_peft_gives_them() {
        let golden: Vec<Map<String, Value>> =
            serde_json::from_str(include_str!("../../tests/data/model/patterns.json")).unwrap();
        assert!(golden.len() > 70);
        for case in golden {
            let meaning = of(case["config"].as_object().unwrap(), None).unwrap();
            for (module, due) in case["modules"].as_object().unwrap() {
                let (rank, factor) = (due[0].as_u64().unwrap(), due[1].as_f64().unwrap());
                assert_eq!(
                    meaning.ranks.of(module).or(meaning.rank),
                    Some(rank),
                    "{module}: {case:?}"
                );
                let found = f64::from(meaning.factor.of(module, rank));
                assert!(
                    (found - factor).abs() <= factor * 1e-7,
                    "{module}: {found} in {case:?}"
                );
            }
        }
    }

    #[test]
    fn tells_what_pairs_mean() {
        for plain in [
            r#""peft_type": "LORA", "use_dora": false, "layer_replication": null, "lora_dropout": 0.1"#,
            r#""init_lora_weights": "gaussian", "target_parameters": [], "task_type": "CAUSAL_LM""#,
            r#""init_lora_weights": true, "bias": "none", "modules_to_save": null"#,
            r#""megatron_config": {"a": 1}, "runtime_config": {"ephemeral_gpu_offload": false}"#,
        ] {
            let meaning = meant(&format!("{{\"lora_alpha\": 8, {plain}}}"));
            assert!(meaning.is_ok(), "{plain}: {meaning:?}");
        }
        for (key, value) in [
            ("peft_type", "\"LOHA\""),
            ("use_dora", "true"),
            ("use_something_new", "true"),
            ("something_new_config", "{\"a\": 1}"),
            ("kasa_config", "{\"a\": 1}"),
            ("init_lora_weights", "\"pissa_niter_4\""),
            ("init_lora_weights", "\"olora\""),
            ("init_lora_weights", "\"loftq\""),
            ("init_lora_weights", "\"corda\""),
            ("init_lora_weights", "\"other\""),
            ("layer_replication", "[[0, 1]]"),
            ("alora_invocation_tokens", "[1]"),
            ("trainable_token_indices", "[1]"),
            ("lora_bias", "true"),
        ] {
            for fixed in [None, Some(2.0)] {
                let text = format!("{{\"lora_alpha\": 8, \"{key}\": {value}}}");
                let fault = of(&serde_json::from_str(&text).unwrap(), fixed).unwrap_err();
                assert_eq!(fault.kind, Kind::Unsupported, "{key}");
                assert!(fault.message.contains(key), "{fault:?}");
            }
        }
    }
}
