//! An adapter's file has what its configuration says that it has, or is refused.

use super::adapters::small;
use super::command::{self, alone, error_line};
use super::room_words;
use super::tensors::{self, Tensor, Tensors};
use std::path::Path;
use tempfile::TempDir;

const Q: [&str; 2] = ["model.layers.0.attn.q", "model.layers.1.attn.q"];
const K: [&str; 2] = ["model.layers.0.attn.k", "model.layers.1.attn.k"];

/// Small numbers, of which products and sums are exact.
fn numbers(seed: &mut u32, shape: &[usize]) -> Tensor {
    let width = shape.iter().product();
    Tensor {
        shape: shape.to_vec(),
        ..small(seed, [1, width]).to("F32")
    }
}

/// Two layers, and one for further tokens, which no adapter is trained with.
fn base() -> Tensors {
    let (mut all, mut seed) = (Tensors::new(), 3);
    let mut add = |name: &str, shape: &[usize]| {
        all.insert(name.to_owned(), numbers(&mut seed, shape));
    };
    for layer in 0..3 {
        for module in ["attn.q", "attn.k", "mlp.experts.0.up", "mlp.experts.1.up"] {
            add(&format!("model.layers.{layer}.{module}.weight"), &[4, 6]);
        }
        add(&format!("model.layers.{layer}.attn.q.bias"), &[4]);
        add(&format!("model.layers.{layer}.norm.weight"), &[6]);
    }
    add("model.layers.2.eh_proj.weight", &[6, 12]);
    add("lm_head.weight", &[8, 6]);
    all
}

/// Writes an adapter with pairs for `modules`, and with `whole` tensors of the base anew.
fn write(directory: &Path, modules: &[&str], whole: &[&str], config: &str) {
    let base = base();
    let (mut all, mut seed) = (Tensors::new(), 8);
    for module in modules {
        let [rows, columns] = base[&format!("{module}.weight")].shape[..] else {
            unreachable!("a matrix")
        };
        for (part, shape) in [("A", [2, columns]), ("B", [rows, 2])] {
            let name = format!("base_model.model.{module}.lora_{part}.weight");
            all.insert(name, numbers(&mut seed, &shape));
        }
    }
    for name in whole {
        let tensor = numbers(&mut seed, &base[*name].shape);
        all.insert(format!("base_model.model.{name}"), tensor);
    }
    tensors::write(&directory.join("adapter_model.safetensors"), &all);
    let config = format!(r#"{{"r": 2, "lora_alpha": 4, {config}}}"#);
    tensors::write_bytes(&directory.join("adapter_config.json"), config.as_bytes());
}

fn room() -> TempDir {
    let room = tempfile::tempdir().unwrap();
    tensors::write(&room.path().join("base/model.safetensors"), &base());
    room
}

const UNIFY: &str = "unify --src @base --lora @lora --overwrite --dst @out";

// proves P165
#[test]
fn what_an_adapter_is_to_have_and_lacks_is_named() {
    let room = room();
    let all = [Q[0], Q[1], K[0], K[1]];
    for (modules, whole, config, named) in [
        (
            &Q[..],
            &[][..],
            r#""target_modules": ["attn.q", "k"]"#,
            &["'k' in target_modules", "'model.layers.0.attn.k'"][..],
        ),
        (
            &all[1..],
            &[],
            r#""target_modules": ["q", "k"], "exclude_modules": ["model.layers.1.attn.q"]"#,
            &["a pair for none of 'model.layers.0.attn.q'"],
        ),
        (
            &Q,
            &[],
            r#""target_modules": ".*attn\\.k""#,
            &["a pair for none of 'model.layers.0.attn.k'"],
        ),
        (
            &Q,
            &[],
            r#""target_modules": ["q"], "modules_to_save": ["lm_head"]"#,
            &["'lm_head' in modules_to_save", "'lm_head.weight'"],
        ),
        (
            &Q,
            &["model.layers.0.norm.weight"],
            r#""modules_to_save": ["norm"]"#,
            &["'norm' in modules_to_save", "'model.layers.1.norm.weight'"],
        ),
        (
            &Q,
            &["model.layers.0.attn.q.bias"],
            r#""bias": "lora_only""#,
            &["bias", "'model.layers.1.attn.q.bias'"],
        ),
        (
            &K,
            &[],
            r#""bias": "all""#,
            &[
                "bias",
                "'model.layers.0.attn.q.bias', 'model.layers.1.attn.q.bias'",
            ],
        ),
    ] {
        write(&room.path().join("lora"), modules, whole, config);
        for processes in [1, 3] {
            let words = room_words(&room, UNIFY);
            let run = command::on(processes, &words);
            for part in named
                .iter()
                .chain(&["lora/adapter_model.safetensors: the adapter's configuration"])
            {
                assert!(
                    error_line(&run).contains(part),
                    "{config}: {part}: {run:#?}"
                );
            }
            assert!(
                run.stderr
                    .contains("hint: is it this adapter's file, and whole?"),
                "{run:#?}"
            );
            assert!(!room.path().join("out").exists());
        }
    }
}

/// As PEFT leaves it, which loads such an adapter with a warning.
#[test]
fn a_module_without_a_pair_in_some_layer_stays_and_is_named() {
    let room = room();
    for (modules, config, told) in [
        (
            &[Q[0]][..],
            r#""target_modules": ["q"]"#,
            "none for 'model.layers.1.attn.q'",
        ),
        (
            &Q[1..],
            r#""target_modules": ".*attn\\.q""#,
            "none for 'model.layers.0.attn.q'",
        ),
        (
            &Q[1..],
            r#""target_modules": ["q"], "layers_to_transform": [0, 1]"#,
            "1 of the 2 'model.layers.*.attn.q'",
        ),
        (
            &["model.layers.0.mlp.experts.0.up"],
            r#""target_modules": ["up"]"#,
            "1 of the 4 'model.layers.*.mlp.experts.*.up'",
        ),
    ] {
        write(&room.path().join("lora"), modules, &[], config);
        for processes in [1, 3] {
            let run = command::on(processes, &room_words(&room, UNIFY)).succeeds();
            assert!(run.stdout.contains(told), "{run:#?}");
            let made = tensors::read(&room.path().join("out/model-00001-of-00001.safetensors"))
                .unwrap()
                .tensors;
            let changed = base()
                .into_iter()
                .filter(|(name, tensor)| made[name] != *tensor);
            let changed: Vec<String> = changed.map(|(name, _)| name).collect();
            assert_eq!(changed, [format!("{}.weight", modules[0])]);
        }
    }
}

#[test]
fn pairs_that_its_configuration_does_not_name_are_named() {
    let room = room();
    let all = [Q[0], Q[1], K[0], K[1]];
    for (modules, config, named) in [
        (
            &all[..],
            r#""target_modules": ["q"]"#,
            "'model.layers.0.attn.k', 'model.layers.1.attn.k', which",
        ),
        (
            &all,
            r#""target_modules": ["q", "k"], "exclude_modules": ["model.layers.1.attn.k"]"#,
            "'model.layers.1.attn.k', which",
        ),
        (
            &Q,
            r#""target_modules": ["q"], "layers_to_transform": [1]"#,
            "'model.layers.0.attn.q', which",
        ),
    ] {
        write(&room.path().join("lora"), modules, &[], config);
        for processes in [1, 3] {
            let words = room_words(&room, UNIFY);
            let run = command::on(processes, &words);
            let line = error_line(&run);
            assert!(
                line.contains(named) && line.contains("target_modules"),
                "{run:#?}"
            );
            assert!(!room.path().join("out").exists());
        }
    }
}

#[test]
fn an_adapter_need_not_have_more_than_its_configuration_says() {
    let room = room();
    let head = &["lm_head.weight"][..];
    let biases = ["model.layers.0.attn.q.bias", "model.layers.1.attn.q.bias"];
    for (modules, whole, config) in [
        (&Q[..], &[][..], r#""target_modules": ["q"]"#),
        // A library may have no module for each expert, and none of this name else.
        (&Q, &[], r#""target_modules": ["q", "up", "gate"]"#),
        (
            &Q[1..],
            &[],
            r#""target_modules": ["q"], "layers_to_transform": 1"#,
        ),
        (
            &Q[1..],
            &[],
            r#""target_modules": ["q"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]"#,
        ),
        (
            &Q[1..],
            &[],
            r#""target_modules": ["q"], "exclude_modules": "model.layers.0..*""#,
        ),
        (
            &Q[1..],
            &[],
            r#""target_modules": ["model.layers.1.attn.q"]"#,
        ),
        (&Q[1..], &[], r#""target_modules": ".*\\.1\\.attn\\.q""#),
        (&Q[1..], &[], r#""target_modules": "all-linear""#),
        (&Q[1..], &[], r#""target_modules": "(?=x)q""#),
        (
            &Q,
            head,
            r#""target_modules": ["q", "lm_head"], "modules_to_save": ["lm_head", "score"]"#,
        ),
        (&Q, &biases, r#""bias": "all""#),
    ] {
        write(&room.path().join("lora"), modules, whole, config);
        alone(&room_words(&room, UNIFY)).succeeds();
        let out = room.path().join("out/model-00001-of-00001.safetensors");
        let (found, base) = (tensors::read(&out).unwrap().tensors, base());
        let changed = |name: &&String| found[*name] != base[*name];
        let changed: Vec<&String> = base.keys().filter(changed).collect();
        assert_eq!(
            changed.len(),
            modules.len() + whole.len(),
            "{config}: {changed:?}"
        );
    }
}

#[test]
fn nothing_is_written_into_an_adapters_directory() {
    let room = room();
    write(
        &room.path().join("lora"),
        &Q,
        &[],
        r#""target_modules": ["q"]"#,
    );
    for (lora, dst, relation) in [
        ("@lora", "@lora/x", "lies inside the adapter"),
        ("@lora", "@lora", "is the adapter"),
        ("@lora", "@", "contains the source"),
        (
            "@lora/adapter_model.safetensors",
            "@lora",
            "contains the adapter",
        ),
    ] {
        let line = format!("unify --src @base --lora {lora} --overwrite --dst {dst}");
        let run = alone(&room_words(&room, &line));
        assert_eq!(run.status.code(), Some(2), "{run:#?}");
        assert!(error_line(&run).contains(relation), "{run:#?}");
    }
    let names = std::fs::read_dir(room.path().join("lora")).unwrap().count();
    assert_eq!(names, 2);
}
