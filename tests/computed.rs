//! Weights that are computed on their way: 8-bit floats with scales, and low-rank adapters, against an
//! oracle that computes each element by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure here is a failed test"
)]

#[path = "support/ckpt.rs"]
mod ckpt;
#[path = "support/command.rs"]
mod command;
#[path = "support/fixtures.rs"]
mod fixtures;
#[path = "support/float.rs"]
mod float;
#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/sample.rs"]
mod sample;
mod support;
#[path = "support/tensors.rs"]
mod tensors;
#[path = "support/wire.rs"]
mod wire;

use command::{alone, error_line, object, refuses, under_mpi};
use float::Matrix;
use oracle::{Strategy, to_protobuf};
use sample::{Sample, layout};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::Run;
use tempfile::TempDir;
use tensors::{Tensor, Tensors};

/// Rows and columns of a block: no size of a tensor is a multiple of either.
const BLOCK: [usize; 2] = [5, 3];

fn model(family: &str) -> PathBuf {
    fixtures::data().join("model").join(family)
}

/// Runs a command line, `@` standing for `room/`.
fn run(room: &TempDir, processes: u32, line: &str) -> Run {
    let room = format!("{}/", room.path().display());
    let words: Vec<String> = line
        .split_whitespace()
        .map(|word| word.replace('@', &room))
        .collect();
    if processes == 1 {
        alone(&words)
    } else {
        under_mpi(processes, &words)
    }
}

/// Every safetensors file below `directory`, by its path and what it holds.
fn held(directory: &Path) -> BTreeMap<PathBuf, Tensors> {
    let files = fixtures::listing(directory).into_iter();
    files
        .filter(|file| file.extension().is_some_and(|end| end == "safetensors"))
        .map(|file| {
            let read = tensors::read(&directory.join(&file)).unwrap();
            (file, read.tensors)
        })
        .collect()
}

fn same(room: &TempDir, expected: &str, found: &str) {
    let [expected, found] = [expected, found].map(|name| held(&room.path().join(name)));
    assert!(!expected.is_empty());
    let names = |held: &BTreeMap<PathBuf, Tensors>| held.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&found));
    for (file, tensors) in expected {
        tensors::compare(&tensors, &found[&file]).unwrap_or_else(|e| panic!("{file:?}: {e}"));
    }
}

/// Writes a model: its tensors, and a changed copy of the configuration of `family`.
fn write_model(directory: &Path, family: &str, tensors: &Tensors, extra: &str) {
    tensors::write(&directory.join("model.safetensors"), tensors);
    let config = std::fs::read_to_string(model(family).join("hf/config.json")).unwrap();
    let config = config.replacen('{', &format!("{{{extra}"), 1);
    std::fs::write(directory.join("config.json"), config).unwrap();
}

/// Which weights of a model are stored in 8 bits when it is.
fn is_quantised(name: &str, tensor: &Tensor) -> bool {
    let kept = [
        "embed_tokens",
        "norm",
        "lm_head",
        "head.head",
        "mlp.gate.",
        "eh_proj",
    ];
    tensor.shape.len() == 2 && !kept.iter().any(|part| name.contains(part))
}

/// A recorded DeepSeek-V3 in 8 bits, and what it stands for, in `dtype`.
fn quantised(dtype: &str) -> (Tensors, Tensors) {
    let file = model("deepseek_v3").join("hf/model.safetensors");
    let (mut stored, mut meant) = (Tensors::new(), Tensors::new());
    let mut seed = 7;
    for (name, tensor) in tensors::read(&file).unwrap().tensors {
        if !is_quantised(&name, &tensor) {
            // Without --dtype the others stay as they are; the bias always does.
            let kept = dtype == "BF16" || name.ends_with("correction_bias");
            let cast = if kept {
                tensor.clone()
            } else {
                Matrix::of(&tensor).to(dtype)
            };
            meant.insert(name.clone(), cast);
            stored.insert(name, tensor);
            continue;
        }
        let [rows, columns] = [tensor.shape[0], tensor.shape[1]];
        let weight = Tensor {
            dtype: "F8_E4M3".into(),
            shape: vec![rows, columns],
            // Every pattern but the two that are no numbers.
            data: float::noise(&mut seed, rows * columns)
                .map(|bits| if bits & 0x7f == 0x7f { 0x42 } else { bits })
                .collect(),
        };
        let blocks = [rows.div_ceil(BLOCK[0]), columns.div_ceil(BLOCK[1])];
        let noise = float::noise(&mut seed, blocks[0] * blocks[1]);
        let scales = noise.map(|bits| (f32::from(bits) + 0.7) / 23_456.0);
        let scales = Matrix::new(blocks, scales.collect());
        let eight = Matrix::of(&weight);
        let element = |i: usize, j: usize| eight.at(i, j) * scales.at(i / BLOCK[0], j / BLOCK[1]);
        meant.insert(name.clone(), Matrix::by([rows, columns], element).to(dtype));
        stored.insert(format!("{name}_scale_inv"), scales.to("F32"));
        stored.insert(name, weight);
    }
    (stored, meant)
}

fn quantisation() -> String {
    format!(
        r#""quantization_config": {{"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [{}, {}]}},"#,
        BLOCK[0], BLOCK[1]
    )
}

/// `eight/`, a model in 8 bits, and `plain/`, what it stands for in `dtype`.
fn room_in_8_bits(dtype: &str) -> TempDir {
    let room = tempfile::tempdir().unwrap();
    let (stored, meant) = quantised(dtype);
    assert!(stored.len() > meant.len() + 20);
    write_model(
        &room.path().join("eight"),
        "deepseek_v3",
        &stored,
        &quantisation(),
    );
    write_model(&room.path().join("plain"), "deepseek_v3", &meant, "");
    room
}

/// A strategy for full weights: rows cut, and columns too, so that cells end inside blocks.
fn cut(room: &TempDir, full: &str, name: &str, mesh: [usize; 2]) {
    let held = held(&room.path().join(full));
    let tensors: Vec<(&String, &Tensor)> = held.values().flatten().collect();
    let items = tensors.into_iter().map(|(name, tensor)| {
        let by = |dimension: usize, parts: usize, axis: i64| {
            let size = tensor.shape.get(dimension).copied().unwrap_or(1);
            if size % parts == 0 && size > 1 && !name.contains("qkv") {
                axis
            } else {
                -1
            }
        };
        let mut map = vec![by(0, mesh[0], 1)];
        if tensor.shape.len() > 1 {
            map.extend([by(1, mesh[1], 0)]);
            map.extend(tensor.shape[2..].iter().map(|_| -1));
        }
        (0, name.clone(), layout(&mesh, &map))
    });
    let strategy = Strategy {
        items: items.collect(),
    };
    tensors::write_bytes(&room.path().join(name), &to_protobuf(&strategy));
}

/// Whether importing `@{one}` gives what importing `@{two}` gives, in several layouts.
fn imports_alike(room: &TempDir, one: &str, two: &str, flags: &str) {
    run(
        room,
        1,
        &format!("import --hf @{two} --dst @{two}-full {flags}"),
    )
    .succeeds();
    run(
        room,
        3,
        &format!("import --hf @{one} --dst @{one}-full {flags}"),
    )
    .succeeds();
    same(room, &format!("{two}-full"), &format!("{one}-full"));
    for (layout, mesh, processes, how) in [
        ("rows", [4, 1], 4, "--exchange collective --memory 1MiB"),
        ("both", [2, 2], 1, "--threads 2"),
        ("columns", [1, 2], 3, "--exchange collective"),
    ] {
        cut(
            room,
            &format!("{two}-full"),
            &format!("{layout}.ckpt"),
            mesh,
        );
        let line = |from: &str| {
            format!(
                "import --hf @{from} --dst @{from}-{layout} --dst-strategy @{layout}.ckpt {flags}"
            )
        };
        run(room, 1, &line(two)).succeeds();
        run(room, processes, &format!("{} {how}", line(one))).succeeds();
        same(room, &format!("{two}-{layout}"), &format!("{one}-{layout}"));
    }
}

#[test]
fn dequantises_into_stacked_and_fused_tensors() {
    let room = room_in_8_bits("BF16");
    let flags = "--names mcore --ffn interleaved --experts stacked";
    imports_alike(&room, "eight", "plain", flags);
    let line = "export --src @eight-rows --src-strategy @rows.ckpt --hf-config @eight --dst @back";
    run(&room, 2, line).succeeds();
    let back = held(&room.path().join("back"));
    let found: Tensors = back.into_values().flatten().collect();
    tensors::compare(&quantised("BF16").1, &found).unwrap();
    // What comes back is not in 8 bits, and doesn't say so.
    let config = std::fs::read_to_string(room.path().join("back/config.json")).unwrap();
    assert!(!config.contains("quantization_config") && config.contains("deepseek_v3"));
}

#[test]
fn dequantises_into_other_names_and_types() {
    let legacy = "--names legacy --experts separate --allow-extra";
    imports_alike(&room_in_8_bits("BF16"), "eight", "plain", legacy);
    for (dtype, flag) in [("F32", "f32"), ("F16", "f16")] {
        let room = room_in_8_bits(dtype);
        run(&room, 1, "import --hf @plain --dst @want").succeeds();
        let line = format!("import --hf @eight --dst @found --dtype {flag}");
        run(&room, 2, &line).succeeds();
        same(&room, "want", "found");
    }
}

#[test]
fn refuses_scales_that_do_not_fit() {
    let room = room_in_8_bits("BF16");
    let config = room.path().join("eight/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let tries = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let run = run(&room, 1, "import --hf @eight --dst @out");
        assert!(!room.path().join("out").exists());
        run
    };
    let wrong = tries(&text.replace("[5, 3]", "[5, 4]"));
    refuses(&wrong, "weight_scale_inv: is F32");
    assert!(
        error_line(&wrong).contains("in blocks of 5 by 4"),
        "{wrong:?}"
    );
    refuses(&tries(&text.replace("[5, 3]", "[5]")), "no pair of numbers");
    refuses(
        &tries(&text.replace("\"fp8\"", "\"awq\"")),
        "quantised by awq",
    );
    refuses(
        &tries(&text.replace(&quantisation(), "")),
        "weights in 8 bits need scales",
    );
    let change = |change: &dyn Fn(&mut Tensors)| {
        let (mut stored, _) = quantised("BF16");
        change(&mut stored);
        tensors::write(&room.path().join("eight/model.safetensors"), &stored);
        tries(&text)
    };
    let name = "model.layers.0.self_attn.o_proj.weight";
    let lost = change(&|stored| drop(stored.remove(&format!("{name}_scale_inv"))));
    refuses(&lost, name);
    let orphan = change(&|stored| drop(stored.remove(name)));
    refuses(&orphan, &format!("{name}_scale_inv"));
}

/// A matrix of small numbers that are exact in every type, and whose products are exact sums.
fn small(seed: &mut u32, shape: [usize; 2]) -> Matrix {
    let noise = float::noise(seed, shape[0] * shape[1]);
    Matrix::new(
        shape,
        noise.map(|bits| (f32::from(bits) - 128.0) / 8.0).collect(),
    )
}

/// `weight + factor * b * a`, each element by itself, in numbers that lose nothing.
fn merged(weight: &Tensor, a: &Matrix, b: &Matrix, factor: f64) -> Tensor {
    let base = Matrix::of(weight);
    let element = |i: usize, j: usize| {
        let ranks = 0..a.shape[0];
        let sum: f64 = ranks
            .map(|k| f64::from(b.at(i, k)) * f64::from(a.at(k, j)))
            .sum();
        float::nearest(f64::from(base.at(i, j)) + factor * sum)
    };
    Matrix::by(base.shape, element).to(&weight.dtype)
}

/// Pairs of rank 3 for these weights: A and B of each, and what the weights become.
fn adapt(whole: &Tensors, names: &[&str], factor: f64) -> (Vec<[Matrix; 2]>, Tensors) {
    let mut after = whole.clone();
    let mut seed = 5;
    let pairs = names.iter().map(|name| {
        let [rows, columns] = Matrix::of(&whole[*name]).shape;
        let (a, b) = (small(&mut seed, [3, columns]), small(&mut seed, [rows, 3]));
        after.insert((*name).to_owned(), merged(&whole[*name], &a, &b, factor));
        [a, b]
    });
    let pairs: Vec<[Matrix; 2]> = pairs.collect();
    for name in names {
        assert_ne!(after[*name], whole[*name], "nothing changes");
    }
    (pairs, after)
}

/// Writes an adapter as PEFT does.
fn write_adapter(directory: &Path, names: &[&str], pairs: &[[Matrix; 2]], config: &str) {
    let mut tensors = Tensors::new();
    for (name, [a, b]) in names.iter().zip(pairs) {
        let module = format!("base_model.model.{}", name.strip_suffix(".weight").unwrap());
        tensors.insert(format!("{module}.lora_A.weight"), a.to("F32"));
        tensors.insert(format!("{module}.lora_B.weight"), b.to("BF16"));
    }
    tensors::write(&directory.join("adapter_model.safetensors"), &tensors);
    tensors::write_bytes(&directory.join("adapter_config.json"), config.as_bytes());
}

const ADAPTED: [&str; 2] = ["layers.0.w.weight", "layers.1.w.weight"];

/// Two weights that an adapter is for, one of each type, and two others.
fn sample() -> Sample {
    let mut seed = 3;
    let mut random = |dtype: &str, shape| small(&mut seed, shape).to(dtype);
    let whole = Tensors::from([
        (ADAPTED[0].to_owned(), random("BF16", [16, 24])),
        (ADAPTED[1].to_owned(), random("F32", [24, 8])),
        ("layers.0.v.weight".to_owned(), random("BF16", [8, 8])),
        ("norm.weight".to_owned(), Tensor::counting("F32", &[8], 9)),
    ]);
    let of = |maps: [&[i64]; 4], mesh: &[usize]| {
        let names = [ADAPTED[0], ADAPTED[1], "layers.0.v.weight", "norm.weight"];
        let layouts = maps.map(|map| layout(mesh, map));
        Strategy::of(&names.into_iter().zip(layouts).collect::<Vec<_>>())
    };
    let four = of([&[1, 0], &[0, -1], &[-1, 0], &[-1]], &[2, 2]);
    let two = of([&[-1, 0], &[0, -1], &[0, -1], &[0]], &[2]);
    Sample::of(whole, four, two)
}

#[test]
fn merges_an_adapter_into_distributed_weights() {
    let sample = sample();
    for (config, factor) in [
        (
            r#"{"peft_type": "LORA", "r": 3, "lora_alpha": 6, "bias": "none"}"#,
            2.0,
        ),
        (
            r#"{"r": 3, "lora_alpha": 6, "alpha_pattern": {"w": 1.5}}"#,
            0.5,
        ),
    ] {
        let (pairs, after) = adapt(&sample.whole, &ADAPTED, factor);
        write_adapter(&sample.path("lora"), &ADAPTED, &pairs, config);
        let reshard = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt \
                       --lora @lora --overwrite --dst @two";
        for (processes, how) in [
            (1, ""),
            (3, "--exchange collective"),
            (4, "--exchange auto"),
        ] {
            let words = sample.args(&format!("{reshard} {how}"));
            let run = if processes == 1 {
                alone(&words)
            } else {
                under_mpi(processes, &words)
            };
            run.succeeds();
            sample.check("two", &sample.two, &after);
        }
        let unify =
            "unify --src @src --src-strategy @four.ckpt --lora @lora --overwrite --dst @full";
        under_mpi(2, &sample.args(unify)).succeeds();
        let found: Tensors = held(&sample.path("full")).into_values().flatten().collect();
        tensors::compare(&after, &found).unwrap();
    }
}

#[test]
fn follows_the_root_of_the_rank() {
    let sample = sample();
    let (pairs, after) = adapt(&sample.whole, &ADAPTED, 1.5 / 3f64.sqrt());
    let config = r#"{"r": 3, "lora_alpha": 1.5, "use_rslora": true}"#;
    write_adapter(&sample.path("lora"), &ADAPTED, &pairs, config);
    let unify = "unify --src @src --src-strategy @four.ckpt --lora @lora --dst @merged";
    alone(&sample.args(unify)).succeeds();
    let found: Tensors = held(&sample.path("merged"))
        .into_values()
        .flatten()
        .collect();
    // The factor is no short number, so f32 may differ from the oracle in its last place.
    for name in ADAPTED {
        let (found, after) = (Matrix::of(&found[name]), Matrix::of(&after[name]));
        for i in 0..found.shape[0] {
            for j in 0..found.shape[1] {
                let (found, after) = (found.at(i, j), after.at(i, j));
                let least = if name == ADAPTED[0] { 8e-3 } else { 1e-5 };
                assert!(
                    (found - after).abs() <= least * after.abs().max(1.0),
                    "{name} {i} {j}"
                );
            }
        }
    }
}

#[test]
fn merges_pairs_that_lie_in_the_shards() {
    let plain = sample();
    for (a_end, b_end) in [
        ("mindpet_delta_lora_a", "mindpet_delta_lora_b"),
        ("lora_a", "lora_b"),
    ] {
        let (pairs, after) = adapt(&plain.whole, &ADAPTED, 0.25);
        let (mut whole, mut four) = (plain.whole.clone(), plain.four.clone());
        let maps: [[&[i64]; 2]; 2] = [[&[-1, 0], &[1, -1]], [&[-1, -1], &[0, -1]]];
        for (index, (name, pair)) in ADAPTED.iter().zip(&pairs).enumerate() {
            let module = name.strip_suffix("weight").unwrap();
            for (part, end) in [a_end, b_end].into_iter().enumerate() {
                let name = format!("{module}{end}");
                let how = layout(&[2, 2], maps[index][part]);
                for (prefix, dtype) in [("", "BF16"), ("adam_m.", "F32")] {
                    let tensor = pair[part].to(dtype);
                    whole.insert(format!("{prefix}{name}"), tensor);
                    four.items.push((0, format!("{prefix}{name}"), how.clone()));
                }
            }
        }
        let sample = Sample::of(whole.clone(), four, plain.two.clone());
        let unify = "unify --src @src --src-strategy @four.ckpt --overwrite --dst @full";
        under_mpi(2, &sample.args(unify)).succeeds();
        let found: Tensors = held(&sample.path("full")).into_values().flatten().collect();
        tensors::compare(&whole, &found).unwrap();
        let how = "--lora-scaling 0.25 --exchange collective";
        under_mpi(3, &sample.args(&format!("{unify} {how}"))).succeeds();
        let found: Tensors = held(&sample.path("full")).into_values().flatten().collect();
        tensors::compare(&after, &found).unwrap();
        let reshard = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt \
                       --lora-scaling 0.25 --dst @two";
        under_mpi(2, &sample.args(reshard)).succeeds();
        sample.check("two", &sample.two, &after);
    }
}

#[test]
fn merges_what_the_destination_does_not_describe() {
    let sample = sample();
    let (pairs, after) = adapt(&sample.whole, &ADAPTED, 2.0);
    write_adapter(
        &sample.path("lora"),
        &ADAPTED,
        &pairs,
        r#"{"lora_alpha": 6}"#,
    );
    // Full weights are cut nowhere, so what the strategy doesn't know is copied as it is.
    let fewer = Strategy::of(&[("layers.0.v.weight", layout(&[2], &[0, -1]))]);
    tensors::write_bytes(&sample.path("fewer.ckpt"), &to_protobuf(&fewer));
    let line = "reshard --src @full --dst-strategy @fewer.ckpt --lora @lora --dst @out";
    alone(&sample.args(line)).succeeds();
    let found = tensors::read(&sample.path("out/rank_0/net0.safetensors")).unwrap();
    for name in ADAPTED {
        assert_eq!(found.tensors[name], after[name], "{name}");
    }
    let line = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @fewer.ckpt \
                --lora @lora --unmatched copy --dst @cut";
    refuses(&alone(&sample.args(line)), "shards are copied as they are");
}

#[test]
fn names_what_an_adapter_does_not_fit() {
    let sample = sample();
    let (pairs, _) = adapt(&sample.whole, &ADAPTED, 1.0);
    let unify = "unify --src @src --src-strategy @four.ckpt --dst @out --lora";
    let tries = |names: &[&str], config: &str| {
        write_adapter(&sample.path("lora"), names, &pairs, config);
        let run = under_mpi(2, &sample.args(&format!("{unify} @lora")));
        assert!(!sample.path("out").exists());
        run
    };
    let config = r#"{"lora_alpha": 3}"#;
    let unknown = tries(&["layers.2.w.weight"], config);
    refuses(
        &unknown,
        "is for 'layers.2.w.weight', which the source hasn't",
    );
    assert!(
        unknown
            .stderr
            .contains(&format!("nearest in the source: {}", ADAPTED[0]))
    );
    let turned = tries(&[ADAPTED[1]], config);
    for part in ["[16, 3]", "[3, 24]", "[24, 8]", ADAPTED[1]] {
        assert!(error_line(&turned).contains(part), "{part}: {turned:?}");
    }
    refuses(
        &tries(&ADAPTED, r#"{"lora_alpha": 3, "use_dora": true}"#),
        "use_dora",
    );
    refuses(
        &tries(&ADAPTED, "{}"),
        "adapter_config.json: is no adapter's configuration",
    );
    let mut half = tensors::read(&sample.path("lora/adapter_model.safetensors")).unwrap();
    let lost = "base_model.model.layers.0.w.lora_B.weight";
    half.tensors.remove(lost).unwrap();
    tensors::write(&sample.path("half/one.safetensors"), &half.tensors);
    let alone_of = |flags: &str| alone(&sample.args(&format!("{unify} @half {flags}")));
    let unsaid = alone_of("");
    assert_eq!(unsaid.status.code(), Some(2), "{unsaid:?}");
    refuses(&alone_of("--lora-scaling 1"), "there is A and no B");
    half.tensors.insert(
        "base_model.model.norm.weight".into(),
        Tensor::counting("F32", &[8], 1),
    );
    tensors::write(&sample.path("half/one.safetensors"), &half.tensors);
    refuses(&alone_of("--lora-scaling 1"), "neither A nor B");
    let own = "unify --src @src --src-strategy @four.ckpt --dst @out --lora-scaling 1";
    refuses(&alone(&sample.args(own)), "there is no low-rank pair");
}

/// Merging on the way in is importing what is merged, whatever a weight becomes a part of.
#[test]
fn merges_into_fused_and_stacked_tensors() {
    for (family, flags, names) in [
        (
            "llama",
            "--names legacy --qkv interleaved --ffn interleaved",
            vec![
                "model.layers.0.self_attn.q_proj.weight",
                "model.layers.1.self_attn.v_proj.weight",
                "model.layers.1.mlp.up_proj.weight",
                "model.layers.0.mlp.down_proj.weight",
            ],
        ),
        (
            "qwen3_moe",
            "--names mcore --experts stacked",
            vec![
                "model.layers.1.mlp.experts.2.gate_proj.weight",
                "model.layers.1.mlp.experts.3.down_proj.weight",
                "model.layers.1.self_attn.o_proj.weight",
            ],
        ),
    ] {
        let room = tempfile::tempdir().unwrap();
        let hf = tensors::read(&model(family).join("hf/model.safetensors")).unwrap();
        let (pairs, after) = adapt(&hf.tensors, &names, 0.5);
        write_adapter(
            &room.path().join("lora"),
            &names,
            &pairs,
            r#"{"r": 3, "lora_alpha": 1.5}"#,
        );
        write_model(&room.path().join("base"), family, &hf.tensors, "");
        write_model(&room.path().join("after"), family, &after, "");
        let lora = format!("{flags} --lora @lora");
        run(&room, 1, &format!("import --hf @after --dst @want {flags}")).succeeds();
        for processes in [1, 3] {
            let line = format!("import --hf @base --dst @found --overwrite {lora}");
            run(&room, processes, &format!("{line} --exchange collective")).succeeds();
            same(&room, "want", "found");
        }
        cut(&room, "want", "two.ckpt", [2, 1]);
        for (from, flags) in [("after", flags), ("base", lora.as_str())] {
            let line =
                format!("import --hf @{from} --dst @{from}-two --dst-strategy @two.ckpt {flags}");
            run(&room, 2, &line).succeeds();
        }
        same(&room, "after-two", "base-two");
    }
}

/// On the way out an adapter has MindSpore's names.
#[test]
fn merges_on_the_way_out() {
    let room = tempfile::tempdir().unwrap();
    let whole = tensors::read(&model("llama").join("legacy.safetensors")).unwrap();
    let names = [
        "model.layers.1.attention.wk.weight",
        "model.layers.0.feed_forward.w2.weight",
    ];
    let (pairs, after) = adapt(&whole.tensors, &names, 0.5);
    tensors::write(&room.path().join("base/model.safetensors"), &whole.tensors);
    tensors::write(&room.path().join("after/model.safetensors"), &after);
    write_adapter(
        &room.path().join("lora"),
        &names,
        &pairs,
        "{\"lora_alpha\": 1.5}",
    );
    let hf = model("llama").join("hf").display().to_string();
    let line = |from: &str| format!("export --src @{from} --hf-config {hf} --dst @{from}-hf");
    run(&room, 1, &line("after")).succeeds();
    run(&room, 2, &format!("{} --lora @lora", line("base"))).succeeds();
    same(&room, "after-hf", "base-hf");
}

/// An adapter on weights in 8 bits is merged before anything is rounded.
#[test]
fn merges_into_weights_in_8_bits() {
    let room = room_in_8_bits("BF16");
    let (_, exact) = quantised("F32");
    let names = [
        "model.layers.1.mlp.experts.0.up_proj.weight",
        "model.layers.0.self_attn.q_b_proj.weight",
    ];
    let (pairs, _) = adapt(&exact, &names, 2.0);
    write_adapter(
        &room.path().join("lora"),
        &names,
        &pairs,
        r#"{"lora_alpha": 6}"#,
    );
    let (_, mut after) = quantised("BF16");
    for (name, [a, b]) in names.iter().zip(&pairs) {
        let wide = merged(&exact[*name], a, b, 2.0);
        after.insert((*name).to_owned(), Matrix::of(&wide).to("BF16"));
    }
    write_model(&room.path().join("after"), "deepseek_v3", &after, "");
    run(&room, 1, "import --hf @after --dst @want").succeeds();
    run(
        &room,
        2,
        "import --hf @eight --dst @found --lora @lora --exchange collective",
    )
    .succeeds();
    same(&room, "want", "found");
}

/// A family of one tensor, by a table of its own.
const WIDE: &str = "\
family: wide
model_types: [wide]
usual_names: legacy
numbers: {}
blocks: []
tensors:
  - {hf: 'wide.weight [rows, columns]', legacy: wide.weight}
";

/// Rows longer than what is built at once: windows begin and end inside them, and inside blocks.
#[test]
fn computes_windows_that_end_inside_rows() {
    let (rows, columns) = (3, 1_300_007);
    let room = tempfile::tempdir().unwrap();
    let mut seed = 11;
    let bits = float::noise(&mut seed, rows * columns).map(|bits| bits & 0x77);
    let weight = Tensor {
        dtype: "F8_E4M3".into(),
        shape: vec![rows, columns],
        data: bits.collect(),
    };
    let blocks = [2, columns.div_ceil(1000)];
    let scales = float::noise(&mut seed, blocks[0] * blocks[1]).map(|bits| f32::from(bits) / 97.0);
    let scales = Matrix::new(blocks, scales.collect());
    let eight = Matrix::of(&weight);
    let element = |i: usize, j: usize| eight.at(i, j) * scales.at(i / 2, j / 1000);
    let wide = Matrix::by([rows, columns], element);
    let name = "wide.weight".to_owned();
    let stored = Tensors::from([
        (name.clone(), weight),
        (format!("{name}_scale_inv"), scales.to("F32")),
    ]);
    let config = format!(
        r#"{{"model_type": "wide", "rows": {rows}, "columns": {columns},
            "quantization_config": {{"quant_method": "fp8", "weight_block_size": [2, 1000]}}}}"#
    );
    tensors::write(&room.path().join("hf/model.safetensors"), &stored);
    std::fs::write(room.path().join("hf/config.json"), config).unwrap();
    std::fs::write(room.path().join("wide.yml"), WIDE).unwrap();
    let import = "import --hf @hf --dst @full --name-map @wide.yml --exchange collective";
    run(&room, 2, import).succeeds();
    let bf16 = Tensors::from([(name.clone(), wide.to("BF16"))]);
    let found: Tensors = held(&room.path().join("full"))
        .into_values()
        .flatten()
        .collect();
    tensors::compare(&bf16, &found).unwrap();
    let (pairs, after) = adapt(&bf16, &["wide.weight"], 2.0);
    write_adapter(
        &room.path().join("lora"),
        &["wide.weight"],
        &pairs,
        r#"{"lora_alpha": 6}"#,
    );
    run(
        &room,
        2,
        "unify --src @full --lora @lora --dst @merged --exchange collective",
    )
    .succeeds();
    let found: Tensors = held(&room.path().join("merged"))
        .into_values()
        .flatten()
        .collect();
    tensors::compare(&after, &found).unwrap();
}

#[test]
fn an_adapter_and_the_bytes_it_costs_are_told() {
    let sample = sample();
    let (pairs, _) = adapt(&sample.whole, &ADAPTED, 1.0);
    write_adapter(
        &sample.path("lora"),
        &ADAPTED,
        &pairs,
        r#"{"lora_alpha": 3}"#,
    );
    let unify = "unify --src @src --src-strategy @four.ckpt --dst @out --dry-run --json";
    let read = |line: &str| {
        let told = object(&alone(&sample.args(line)).succeeds());
        (
            told["bytes"]["read_unique"].as_u64().unwrap(),
            told["source_files"].to_string(),
        )
    };
    let (plain, merging) = (read(unify), read(&format!("{unify} --lora @lora")));
    let operands = pairs
        .iter()
        .map(|[a, b]| a.shape[1] * 3 * 4 + b.shape[0] * 3 * 2);
    assert_eq!(merging.0 - plain.0, operands.sum::<usize>() as u64);
    assert!(
        merging.1.contains("adapter_model.safetensors"),
        "{}",
        merging.1
    );
}
