//! Low-rank adapters are merged into weights on their way.

use super::command::{alone, error_line, object, refuses, under_mpi};
use super::float::{self, Matrix};
use super::oracle::{Strategy, to_protobuf};
use super::sample::{Sample, layout};
use super::tensors::{self, Tensor, Tensors};
use super::{cut, held, model, quantised, room_in_8_bits, run, same, write_model};
use std::path::Path;

/// A matrix of small numbers that are exact in every type, and whose products are exact sums.
pub(super) fn small(seed: &mut u32, shape: [usize; 2]) -> Matrix {
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
pub(super) fn adapt(whole: &Tensors, names: &[&str], factor: f64) -> (Vec<[Matrix; 2]>, Tensors) {
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
pub(super) fn write_adapter(directory: &Path, names: &[&str], pairs: &[[Matrix; 2]], config: &str) {
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

// proves P115
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
            "unify --src @src --src-strategy @four.ckpt --lora @lora --overwrite --dst @whole";
        under_mpi(2, &sample.args(unify)).succeeds();
        let found: Tensors = held(&sample.path("whole"))
            .into_values()
            .flatten()
            .collect();
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
        let unify = "unify --src @src --src-strategy @four.ckpt --overwrite --dst @whole";
        under_mpi(2, &sample.args(unify)).succeeds();
        let found: Tensors = held(&sample.path("whole"))
            .into_values()
            .flatten()
            .collect();
        tensors::compare(&whole, &found).unwrap();
        let how = "--lora-scaling 0.25 --exchange collective";
        under_mpi(3, &sample.args(&format!("{unify} {how}"))).succeeds();
        let found: Tensors = held(&sample.path("whole"))
            .into_values()
            .flatten()
            .collect();
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
    let line =
        "reshard --src @full --dst-strategy @fewer.ckpt --lora @lora --unmatched copy --dst @out";
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
        "adapter_config.json: has no number lora_alpha",
    );
    let mut twice = tensors::read(&sample.path("lora/adapter_model.safetensors")).unwrap();
    let first = "base_model.model.layers.0.w.lora_A";
    let again = twice.tensors[&format!("{first}.weight")].clone();
    twice
        .tensors
        .insert(format!("{first}.default.weight"), again);
    tensors::write(&sample.path("twice/one.safetensors"), &twice.tensors);
    let run = alone(&sample.args(&format!("{unify} @twice --lora-scaling 1")));
    refuses(&run, "for the same");
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

/// PEFT saves an adapter that has a name in a directory of that name, a trainer those of its steps.
#[test]
fn points_at_adapters_in_the_directory_given() {
    let sample = sample();
    let (pairs, _) = adapt(&sample.whole, &ADAPTED, 1.0);
    let unify = "unify --src @src --src-strategy @four.ckpt --dst @out --lora @run";
    for (name, told) in [("one", "an adapter is in "), ("two", "adapters are in ")] {
        let below = sample.path(&format!("run/{name}"));
        write_adapter(&below, &ADAPTED, &pairs, r#"{"lora_alpha": 3}"#);
        let run = alone(&sample.args(unify));
        refuses(&run, "has no adapter_model.safetensors");
        assert!(run.stderr.contains(told), "{run:?}");
        assert!(run.stderr.contains(&below.display().to_string()), "{run:?}");
    }
    tensors::write_bytes(&sample.path("run/config.json"), b"{}");
    let run = alone(&sample.args(unify));
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    for part in ["it is a model", "adapters are in "] {
        assert!(run.stderr.contains(part), "{run:?}");
    }
}

fn turned(matrix: &Matrix) -> Matrix {
    let [rows, columns] = matrix.shape;
    Matrix::by([columns, rows], |i, j| matrix.at(j, i))
}

/// Tables of embeddings and weights that lie transposed take the product transposed; what was trained
/// in full takes the place of what there was, in the type of that.
#[test]
fn merges_what_lies_transposed_and_takes_what_was_trained_in_full() {
    let sample = sample();
    let (pairs, mut after) = adapt(&sample.whole, &ADAPTED, 2.0);
    let norm = Tensor::counting("F32", &[8], 77);
    after.insert("norm.weight".into(), norm.clone());
    let mut seed = 8;
    let v = small(&mut seed, [8, 8]);
    after.insert("layers.0.v.weight".into(), v.to("BF16"));
    for (ends, config) in [
        (["lora_A.weight", "lora_B.weight"], "true"),
        (["lora_embedding_A", "lora_embedding_B"], "false"),
    ] {
        let mut adapter = Tensors::from([
            ("base_model.model.norm.weight".into(), norm.clone()),
            (
                "base_model.model.layers.0.v.modules_to_save.default.weight".into(),
                v.to("F32"),
            ),
        ]);
        for (name, [a, b]) in ADAPTED.iter().zip(&pairs) {
            let module = format!("base_model.model.{}", name.strip_suffix("weight").unwrap());
            adapter.insert(format!("{module}{}", ends[0]), turned(b).to("F32"));
            adapter.insert(format!("{module}{}", ends[1]), turned(a).to("F32"));
        }
        tensors::write(&sample.path("lora/adapter_model.safetensors"), &adapter);
        let config = format!(r#"{{"r": 3, "lora_alpha": 6, "fan_in_fan_out": {config}}}"#);
        tensors::write_bytes(&sample.path("lora/adapter_config.json"), config.as_bytes());
        let reshard = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt \
                       --lora @lora --overwrite --dst @two";
        under_mpi(2, &sample.args(reshard)).succeeds();
        sample.check("two", &sample.two, &after);
    }
}

#[test]
fn an_adapter_means_what_its_configuration_says() {
    let sample = sample();
    let names = ["layers.0.v.weight"];
    let (pairs, after) = adapt(&sample.whole, &names, 2.0);
    let unify = "unify --src @src --src-strategy @four.ckpt --overwrite --dst @out --lora @lora";
    for scaling in ["", "--lora-scaling 2"] {
        for (key, value, named) in [
            ("fan_in_fan_out", "true", "fan_in_fan_out"),
            ("use_dora", "true", "use_dora"),
            ("peft_type", "\"LOHA\"", "peft_type"),
            (
                "init_lora_weights",
                "\"pissa_niter_4\"",
                "init_lora_weights is 'pissa_niter_4'",
            ),
            (
                "rank_pattern",
                "{\"v\": 4}",
                "is of rank 3, the adapter's configuration says 4",
            ),
        ] {
            let config = format!("\u{feff}{{\"r\": 3, \"lora_alpha\": NaN, \"{key}\": {value}}}");
            let config = config.replace("NaN", if scaling.is_empty() { "6" } else { "NaN" });
            write_adapter(&sample.path("lora"), &names, &pairs, &config);
            let run = alone(&sample.args(&format!("{unify} {scaling}")));
            refuses(&run, named);
            assert!(!sample.path("out").exists(), "{key}");
        }
    }
    let config = r#"{"r": 3, "lora_alpha": 60, "use_rslora": true, "alpha_pattern": {"v": 6}}"#;
    write_adapter(&sample.path("lora"), &names, &pairs, config);
    alone(&sample.args(&format!("{unify} --lora-scaling 2"))).succeeds();
    let found: Tensors = held(&sample.path("out")).into_values().flatten().collect();
    tensors::compare(&after, &found).unwrap();
    let nothing = Tensor::counting("F32", &[0], 0);
    let mut adapter = tensors::read(&sample.path("lora/adapter_model.safetensors")).unwrap();
    let first = adapter.tensors.values_mut().next().unwrap();
    *first = nothing;
    tensors::write(
        &sample.path("lora/adapter_model.safetensors"),
        &adapter.tensors,
    );
    let run = alone(&sample.args(&format!("{unify} --lora-scaling 2")));
    refuses(&run, "is [0]: it has no elements");
    assert!(run.stderr.contains("ZeRO-3"), "{run:?}");
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

/// An adapter that was written with a manifest has the bytes that it was written with.
// proves P31
#[test]
fn an_adapter_is_compared_with_its_manifest() {
    let sample = sample();
    let (pairs, _) = adapt(&sample.whole, &ADAPTED, 1.0);
    let config = r#"{"lora_alpha": 3}"#;
    write_adapter(&sample.path("plain"), &ADAPTED, &pairs, config);
    for line in [
        "convert @plain --dst @other --to ckpt",
        "convert @other --dst @lora --to safetensors",
    ] {
        alone(&sample.args(line)).succeeds();
    }
    tensors::write_bytes(&sample.path("lora/adapter_config.json"), config.as_bytes());
    let unify = "unify --src @src --src-strategy @four.ckpt --lora @lora --dst @out";
    alone(&sample.args(unify)).succeeds();
    let file = sample.path("lora/adapter_model.safetensors");
    let names = tensors::read(&file).unwrap().tensors;
    let name = names.keys().next().unwrap();
    tensors::damage(&file, name);
    for processes in [1, 4] {
        let line = sample.args(&format!("{unify} --overwrite"));
        let refused = if processes == 1 {
            alone(&line)
        } else {
            under_mpi(processes, &line)
        };
        refuses(&refused, name);
        assert!(
            error_line(&refused).contains("lora/adapter_model"),
            "{refused:#?}"
        );
    }
    alone(&sample.args("verify @out")).succeeds();
    alone(&sample.args(&format!("{unify} --overwrite --verify none"))).succeeds();
}
