//! Weights that are computed on their way: 8-bit floats with scales, and low-rank adapters, against an
//! oracle that computes each element by itself.

mod adapters;
mod experts;
mod lacking;
mod quantised;

use crate::support::float;
use crate::support::{Run, command, fixtures, oracle, sample, tensors};
use adapters::{adapt, write_adapter};
use command::{alone, error_line, refuses, under_mpi};
use float::Matrix;
use oracle::{Strategy, to_protobuf};
use sample::layout;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tensors::{Tensor, Tensors};

/// Rows and columns of a block: no size of a tensor is a multiple of either.
const BLOCK: [usize; 2] = [5, 3];

fn model(family: &str) -> PathBuf {
    fixtures::data().join("model").join(family)
}

/// The words of a command line, `@` standing for `room/`.
fn room_words(room: &TempDir, line: &str) -> Vec<String> {
    let room = format!("{}/", room.path().display());
    let words = line.split_whitespace();
    words.map(|word| word.replace('@', &room)).collect()
}

/// Runs a command line, `@` standing for `room/`.
fn run(room: &TempDir, processes: u32, line: &str) -> Run {
    let words = room_words(room, line);
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

// proves P112
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
        run(&room, 1, "verify @found --against @want").succeeds();
    }
}

/// Scales of the other float types, and grids that their writer has filled up.
#[test]
fn dequantises_by_scales_of_two_bytes_and_by_grids_that_are_filled_up() {
    for dtype in ["BF16", "F16"] {
        let room = room_in_8_bits("BF16");
        let (mut stored, mut meant) = quantised("BF16");
        let weights: Vec<String> = stored
            .keys()
            .filter_map(|n| n.strip_suffix("_scale_inv").map(str::to_owned))
            .collect();
        for name in weights {
            let scales = format!("{name}_scale_inv");
            let narrow = Matrix::of(&stored[&scales]).to(dtype);
            let (grid, eight) = (Matrix::of(&narrow), Matrix::of(&stored[&name]));
            let size = [stored[&name].shape[0], stored[&name].shape[1]];
            let element = |i: usize, j: usize| eight.at(i, j) * grid.at(i / BLOCK[0], j / BLOCK[1]);
            meant.insert(name.clone(), Matrix::by(size, element).to("BF16"));
            let [rows, columns] = [narrow.shape[0], narrow.shape[1]];
            // To four of rows, with one column more.
            let filled = [rows.next_multiple_of(4), columns + 1];
            let element = |i: usize, j: usize| {
                if i < rows && j < columns {
                    grid.at(i, j)
                } else {
                    9.0
                }
            };
            stored.insert(scales, Matrix::by(filled, element).to(dtype));
        }
        tensors::write(&room.path().join("eight/model.safetensors"), &stored);
        tensors::write(&room.path().join("plain/model.safetensors"), &meant);
        run(&room, 1, "import --hf @plain --dst @want").succeeds();
        for processes in [1, 4] {
            let line = format!("import --hf @eight --dst @found{processes}");
            let told = run(&room, processes, &line).succeeds();
            assert!(
                told.stdout.contains("larger than the weights need"),
                "{told:#?}"
            );
            same(&room, "want", &format!("found{processes}"));
        }
    }
}

/// Weights in 8 bits with Hugging Face's names are exported as the numbers that they are.
#[test]
fn weights_in_8_bits_are_exported_as_import_reads_them() {
    let room = room_in_8_bits("BF16");
    run(
        &room,
        1,
        "export --src @plain --hf-config @plain --dst @want",
    )
    .succeeds();
    for processes in [1, 4] {
        let line = "export --src @eight --hf-config @eight --dst @found --overwrite";
        run(&room, processes, line).succeeds();
        same(&room, "want", "found");
        let config = std::fs::read_to_string(room.path().join("found/config.json")).unwrap();
        assert!(!config.contains("quantization_config"), "{config}");
    }
}

// proves P30
#[test]
fn what_is_computed_of_damaged_bytes_is_refused() {
    let room = room_in_8_bits("BF16");
    run(&room, 1, "unify --src @eight --dst @kept").succeeds();
    std::fs::copy(
        room.path().join("eight/config.json"),
        room.path().join("kept/config.json"),
    )
    .unwrap();
    let file = room.path().join("kept/model-00001-of-00001.safetensors");
    let sound = std::fs::read(&file).unwrap();
    let name = "model.layers.0.self_attn.o_proj.weight";
    let scales = format!("{name}_scale_inv");
    for (tensor, flags) in [
        (name, ""),
        (&*scales, ""),
        ("model.norm.weight", "--dtype f32"),
    ] {
        tensors::damage(&file, tensor);
        for processes in [1, 3] {
            let line = format!("import --hf @kept --dst @out --names legacy --allow-extra {flags}");
            let refused = run(&room, processes, &line);
            refuses(&refused, tensor);
            let words = "not as they were when the source was written\n";
            assert!(refused.stderr.contains(words), "{refused:?}");
            assert!(!room.path().join("out").exists());
        }
        std::fs::write(&file, &sound).unwrap();
    }
    let line = "import --hf @kept --dst @out --names legacy --allow-extra --dtype f32";
    run(&room, 3, line).succeeds();
}

// proves P113
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
    let scheme = r#""activation_scheme": "static""#;
    let static_scales = text.replace("\"weight_block_size\": [5, 3]", scheme);
    refuses(&tries(&static_scales), "a scale a tensor");
    for kind in ["compressed-tensors", "fbgemm_fp8", "modelopt"] {
        let text = text.replace("\"fp8\"", &format!("\"{kind}\""));
        refuses(&tries(&text), &format!("quantised by {kind}"));
    }
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
    // Scales of a kind that nothing in config.json tells of.
    let text = text.replace(&quantisation(), "");
    let (mut stored, _) = quantised("BF16");
    let scales: Vec<String> = stored
        .keys()
        .filter(|name| name.ends_with("_inv"))
        .cloned()
        .collect();
    for name in scales {
        let scale = Tensor::counting("F32", &[1], 0);
        stored.remove(&name);
        stored.insert(name.replace("_scale_inv", "_scale"), scale);
    }
    tensors::write(&room.path().join("eight/model.safetensors"), &stored);
    refuses(
        &tries(&text),
        "weight_scale': weights in 8 bits of a kind that isn't read",
    );
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
