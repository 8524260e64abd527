//! Weights in 8 bits on their way out, against an oracle that rounds each element by itself, and against
//! what torch makes of the same numbers (`tests/with_transformers.py --write-golden`).

use super::adapters::{adapt, write_adapter};
use super::{cut, held, is_quantised, model, run, same};
use crate::support::command::{error_line, object};
use crate::support::float::{Matrix, noise};
use crate::support::tensors::{self, Tensor, Tensors};
use crate::support::{fixtures, mpirun};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tempfile::TempDir;

/// Rows and columns of a block.
const SIDE: usize = 128;

/// The matrices of a Llama of one layer, no side of which is whole blocks.
const MATRICES: [(&str, [usize; 2]); 9] = [
    ("lm_head.weight", [24, 136]),
    ("model.embed_tokens.weight", [24, 136]),
    ("model.layers.0.mlp.down_proj.weight", [136, 264]),
    ("model.layers.0.mlp.gate_proj.weight", [264, 136]),
    ("model.layers.0.mlp.up_proj.weight", [264, 136]),
    ("model.layers.0.self_attn.k_proj.weight", [68, 136]),
    ("model.layers.0.self_attn.o_proj.weight", [136, 136]),
    ("model.layers.0.self_attn.q_proj.weight", [136, 136]),
    ("model.layers.0.self_attn.v_proj.weight", [68, 136]),
];
const NORMS: [&str; 3] = [
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.post_attention_layernorm.weight",
    "model.norm.weight",
];

/// Numbers of many sizes that `BF16` has; one block of one matrix has none but zeros.
fn weights() -> Tensors {
    let mut all = Tensors::new();
    let mut seed = 5;
    for (name, shape) in MATRICES {
        let bytes: Vec<u8> = noise(&mut seed, 2 * shape[0] * shape[1]).collect();
        let number = |i: usize, j: usize| {
            let at = 2 * (i * shape[1] + j);
            let zero = name.contains("gate_proj") && (SIDE..2 * SIDE).contains(&i) && j < SIDE;
            let size = f32::from(bytes[at]) - 128.0;
            if zero {
                0.0
            } else {
                size * 2f32.powi(-i32::from(bytes[at + 1] % 16))
            }
        };
        all.insert(name.into(), Matrix::by(shape, number).to("BF16"));
    }
    for name in NORMS {
        all.insert(name.into(), Matrix::by([1, 136], |_, _| 1.0).to("BF16"));
    }
    all
}

fn write_llama(directory: &Path, tensors: &Tensors) {
    tensors::write(&directory.join("model.safetensors"), tensors);
    let config = std::fs::read(model("llama").join("hf/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    for (key, number) in [
        ("hidden_size", 136),
        ("intermediate_size", 264),
        ("head_dim", 34),
        ("num_hidden_layers", 1),
    ] {
        config[key] = number.into();
    }
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
}

/// The nearest of all 8-bit floats, of two the even one.
fn eight(value: f32, all: &[(f64, u8)]) -> u8 {
    let size = f64::from(value.abs());
    let place = all.partition_point(|(number, _)| *number < size);
    let above = all.get(place).copied().unwrap_or(all[all.len() - 1]);
    let below = all[place.saturating_sub(1)];
    let (up, down) = (above.0 - size, size - below.0);
    let even_above = above.1.is_multiple_of(2);
    let nearest = if up < down || (up.to_bits() == down.to_bits() && even_above) {
        above
    } else {
        below
    };
    nearest.1 | if value.is_sign_negative() { 0x80 } else { 0 }
}

/// A matrix in 8 bits, its scales, and what they stand for in `BF16`.
fn quantised(tensor: &Tensor) -> [Tensor; 3] {
    let codes = Tensor {
        dtype: "F8_E4M3".into(),
        shape: vec![1, 127],
        data: (0..127).collect(),
    };
    let numbers = Matrix::of(&codes);
    let all: Vec<(f64, u8)> = (0..127u8)
        .map(|code| (f64::from(numbers.at(0, usize::from(code))), code))
        .collect();
    let matrix = Matrix::of(tensor);
    let [rows, columns] = matrix.shape;
    let block = |number: usize, end: usize| number * SIDE..((number + 1) * SIDE).min(end);
    let scale = |i: usize, j: usize| {
        let places = block(i, rows).flat_map(|r| block(j, columns).map(move |c| (r, c)));
        let largest = places
            .map(|(r, c)| matrix.at(r, c).abs())
            .fold(0.0, f32::max);
        if largest > 0.0 { largest / 448.0 } else { 1.0 }
    };
    let scales = Matrix::by([rows.div_ceil(SIDE), columns.div_ceil(SIDE)], scale);
    let of = |i: usize, j: usize| scales.at(i / SIDE, j / SIDE);
    let places = (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
    let weight = Tensor {
        dtype: "F8_E4M3".into(),
        shape: vec![rows, columns],
        data: places
            .map(|(i, j)| eight(matrix.at(i, j) / of(i, j), &all))
            .collect(),
    };
    let wide = Matrix::of(&weight);
    let meant = Matrix::by([rows, columns], |i, j| wide.at(i, j) * of(i, j)).to("BF16");
    let mut stored = scales.to("F32");
    stored.shape = scales.shape.to_vec();
    [weight, stored, meant]
}

fn all_of(room: &TempDir, directory: &str) -> Tensors {
    let held = held(&room.path().join(directory));
    held.into_values().flatten().collect()
}

fn config(room: &TempDir, directory: &str) -> serde_json::Value {
    let text = std::fs::read(room.path().join(directory).join("config.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// FNV-1a of 64 bits.
fn hash(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

// proves P114
#[test]
fn quantises_as_torch_does() {
    let room = tempfile::tempdir().unwrap();
    let plain = weights();
    write_llama(&room.path().join("plain"), &plain);
    let flags = "--names mcore --qkv interleaved --ffn interleaved";
    run(&room, 1, &format!("import --hf @plain --dst @full {flags}")).succeeds();
    cut(&room, "full", "both.ckpt", [2, 2]);
    let line = format!("import --hf @plain --dst @cut --dst-strategy @both.ckpt {flags}");
    run(&room, 2, &line).succeeds();
    let out = "--hf-config @plain --quantise fp8-block --max-shard-size 40KB";
    let alone = format!("export --src @full --dst @one {out}");
    run(&room, 1, &alone).succeeds();
    let apart = format!("export --src @cut --src-strategy @both.ckpt --dst @four {out}");
    run(
        &room,
        4,
        &format!("{apart} --exchange collective --memory 1MiB"),
    )
    .succeeds();
    // Two nodes that write to one place, in blocks that end inside rows of scales' blocks.
    let nodes = [("SHARDLOOM_NODES", "2"), ("SHARDLOOM_BLOCK_BYTES", "4096")];
    let words = format!("export --src @full --dst @nodes {out}");
    let words = words.replace('@', &format!("{}/", room.path().display()));
    let words: Vec<&str> = words.split_whitespace().collect();
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    mpirun(4, program, &words, &nodes).succeeds();
    for file in fixtures::listing(&room.path().join("one")) {
        let read = |name: &str| std::fs::read(room.path().join(name).join(&file)).unwrap();
        let told = file.ends_with("shardloom.json");
        for other in ["four", "nodes"] {
            assert!(
                told || read("one") == read(other),
                "{other} {}",
                file.display()
            );
        }
    }
    let (mut due, mut meant) = (Tensors::new(), Tensors::new());
    let golden = std::fs::read(model("quantised.json")).unwrap();
    let golden: BTreeMap<String, [String; 2]> = serde_json::from_slice(&golden).unwrap();
    for (name, tensor) in &plain {
        if !name.contains("proj") {
            meant.insert(name.clone(), tensor.clone());
            due.insert(name.clone(), tensor.clone());
            continue;
        }
        let [weight, scales, made] = quantised(tensor);
        let torch = &golden[name];
        assert_eq!([hash(&weight.data), hash(&scales.data)], *torch, "{name}");
        meant.insert(name.clone(), made);
        due.insert(format!("{name}_scale_inv"), scales);
        due.insert(name.clone(), weight);
    }
    assert_eq!(golden.len(), due.len() - plain.len());
    tensors::compare(&due, &all_of(&room, "one")).unwrap();
    let found = config(&room, "one");
    assert_eq!(
        found["quantization_config"],
        serde_json::json!({
            "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [128, 128],
        })
    );
    assert_eq!(found["dtype"], "bfloat16");
    run(&room, 2, "verify @four").succeeds();
    // Read back, they are what they stand for.
    write_llama(&room.path().join("meant"), &meant);
    for name in ["meant", "four"] {
        let line = format!("import --hf @{name} --dst @{name}-back {flags}");
        run(&room, 2, &line).succeeds();
    }
    same(&room, "meant-back", "four-back");
}

#[test]
fn quantises_what_is_published_in_8_bits_and_keeps_what_is_to_be_kept() {
    let room = tempfile::tempdir().unwrap();
    let hf = model("deepseek_v3").join("hf").display().to_string();
    run(&room, 1, &format!("import --hf {hf} --dst @full")).succeeds();
    let out = format!("export --src @full --hf-config {hf} --dst");
    run(&room, 2, &format!("{out} @all --quantize fp8-block")).succeeds();
    let plain = tensors::read(&model("deepseek_v3").join("hf/model.safetensors")).unwrap();
    let scaled = |directory: &str| -> BTreeSet<String> {
        let all = all_of(&room, directory);
        let scaled = all.keys().filter_map(|n| n.strip_suffix("_scale_inv"));
        scaled.map(str::to_owned).collect()
    };
    let due = plain.tensors.iter();
    let due: BTreeSet<String> = due
        .filter(|(name, tensor)| is_quantised(name, tensor))
        .map(|(name, _)| name.clone())
        .collect();
    assert_eq!(scaled("all"), due);
    let keep = "--keep *.experts.1.* --keep model.layers.0.self_attn.o_proj.weight";
    run(
        &room,
        1,
        &format!("{out} @some --quantise fp8-block {keep}"),
    )
    .succeeds();
    let left: Vec<String> = due.difference(&scaled("some")).cloned().collect();
    assert!(
        left.iter()
            .any(|name| name.ends_with("layers.0.self_attn.o_proj.weight"))
    );
    assert!(
        left.iter()
            .all(|name| name.contains(".experts.1.") || name.contains(".o_proj."))
    );
    let to = format!("to hf --src @full --model {hf} --dst @to --quantise fp8-block {keep}");
    run(&room, 2, &to).succeeds();
    same(&room, "some", "to");
    let some = all_of(&room, "some");
    for name in &left {
        assert_eq!(some[name], plain.tensors[name], "{name}");
    }
    let modules = left.iter().filter_map(|name| name.strip_suffix(".weight"));
    let modules: Vec<&str> = modules.collect();
    let found = config(&room, "some");
    assert_eq!(
        found["quantization_config"]["modules_to_not_convert"],
        serde_json::json!(modules)
    );
    let wrong = run(
        &room,
        1,
        &format!("{out} @wrong --quantise fp8-block --keep q_proj"),
    );
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(error_line(&wrong).contains("--keep q_proj"));
    assert!(wrong.stderr.contains("names written"), "{wrong:?}");
    let alone = run(&room, 1, &format!("{out} @wrong --keep *"));
    assert_eq!(alone.status.code(), Some(2), "{alone:?}");
}

/// What an adapter changes is quantised as if it had been written first; done once more there is nothing to do.
#[test]
fn quantises_what_an_adapter_changes() {
    const CHANGED: &str = "model.layers.0.attention.wq.weight";
    let room = tempfile::tempdir().unwrap();
    write_llama(&room.path().join("plain"), &weights());
    let line = "import --hf @plain --dst @full --names legacy --dtype f32";
    run(&room, 1, line).succeeds();
    let (pairs, _) = adapt(&all_of(&room, "full"), &[CHANGED], 2.0);
    let adapter = room.path().join("ad");
    write_adapter(&adapter, &[CHANGED], &pairs, r#"{"lora_alpha": 6}"#);
    run(&room, 1, "unify --src @full --lora @ad --dst @merged").succeeds();
    let out = "export --hf-config @plain --quantise fp8-block";
    run(&room, 1, &format!("{out} --src @merged --dst @due")).succeeds();
    let line = format!("{out} --src @full --lora @ad --dst @got");
    run(&room, 2, &line).succeeds();
    same(&room, "due", "got");
    let again = object(&run(&room, 2, &format!("{line} --resume --json")).succeeds());
    assert_eq!(again["bytes"]["written"], 0, "{again:#?}");
}
