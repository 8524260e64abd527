//! Hugging Face models in and out, against recorded models of every family and what torch makes of them
//! (`tests/with_transformers.py --write-golden`), or the trainer's own converters (`tests/with_converters.py`).

use crate::support::{self, command, fixtures, oracle, sample, tensors};
use command::{alone, error_line, object, refuses, under_mpi};
use oracle::{Layout, Strategy, to_protobuf};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tensors::{Tensor, Tensors};

const FAMILIES: [&str; 14] = [
    "llama",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "deepseek_v3",
    "deepseek_v3_legacy",
    "glm4",
    "mixtral",
    "chatglm",
    "glm",
    "telechat",
    "telechat3",
    "telechat3_moe",
    "deepseek_v4",
];

fn recorded(family: &str) -> PathBuf {
    fixtures::data().join("model").join(family)
}

fn hf_of(family: &str) -> Tensors {
    let path = recorded(family).join("hf/model.safetensors");
    tensors::read(&path).unwrap().tensors
}

fn cases(family: &str) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read(recorded(family).join("cases.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn expected(family: &str, case: &str) -> Tensors {
    let path = recorded(family).join(format!("{case}.safetensors"));
    tensors::read(&path).unwrap().tensors
}

/// Words of a command line, `@` standing for `room` and `%` for the recorded model.
fn words(line: &str, room: &Path, family: &str, flags: &[String]) -> Vec<String> {
    let hf = recorded(family).join("hf").display().to_string();
    let word = |word: &str| {
        word.replace('@', &format!("{}/", room.display()))
            .replace('%', &hf)
    };
    line.split_whitespace()
        .map(word)
        .chain(flags.iter().cloned())
        .collect()
}

fn runs(processes: u32, words: &[String]) {
    if processes == 1 {
        alone(words).succeeds();
    } else {
        under_mpi(processes, words).succeeds();
    }
}

/// Everything in the safetensors files of a full directory.
fn full(directory: &Path) -> (Tensors, BTreeMap<String, String>) {
    let (mut all, mut metadata) = (Tensors::new(), BTreeMap::new());
    for file in fixtures::listing(directory) {
        if file
            .extension()
            .is_some_and(|ending| ending == "safetensors")
        {
            let read = tensors::read(&directory.join(file)).unwrap();
            all.extend(read.tensors);
            metadata.extend(read.metadata);
        }
    }
    (all, metadata)
}

/// Rows over `tp` ranks, columns of what multiplies from the other side, in `stages` stages.
fn strategy(whole: &Tensors, flags: &[String], tp: usize, stages: usize) -> Strategy {
    let given = |flag: &str| {
        let place = flags.iter().position(|word| word == flag);
        place.map_or("", |place| &flags[place + 1])
    };
    // Recorded models have two key-value groups; what is contiguous is for one size only.
    let fits = |name: &str| {
        let gate_up = ["linear_fc1", "dense_h_to_4h"];
        let (fused, groups) = if name.contains("qkv.") || name.contains("query_key_value.") {
            (given("--qkv"), 2)
        } else if gate_up.iter().any(|part| name.contains(part)) && !name.contains("local_experts")
        {
            (given("--ffn"), usize::MAX)
        } else {
            ("", usize::MAX)
        };
        match fused {
            "contiguous" => given("--tp") == tp.to_string(),
            _ => tp <= groups,
        }
    };
    let by_columns = [
        "linear_proj.weight",
        "fc2.weight",
        "wo.weight",
        "w2.weight",
        "dense.weight",
        "dense_4h_to_h.weight",
    ];
    let items = whole.iter().map(|(name, tensor)| {
        let first_columns = by_columns.iter().any(|end| name.ends_with(end));
        let cut = if first_columns && tensor.shape.len() == 2 {
            1
        } else {
            0
        };
        let mut map = vec![vec![-1]; tensor.shape.len()];
        if tensor.shape[cut] % tp == 0 && !name.contains("norm") && fits(name) {
            map[cut] = vec![0];
        }
        let layout = Layout {
            mesh: vec![tp],
            map,
            ..Layout::default()
        };
        let early = name.contains("layers.0.") || name.contains("embedding");
        let stage = if early { 0 } else { stages - 1 };
        (stage, name.clone(), layout)
    });
    Strategy {
        items: items.collect(),
    }
}

/// The strategy as a file; of several stages as a merged one, whose names begin with the stage.
fn protobuf(strategy: &Strategy, stages: usize) -> Vec<u8> {
    let mut named = strategy.clone();
    for (stage, name, _) in named.items.iter_mut().filter(|_| stages > 1) {
        *name = format!("{stage}-{name}");
    }
    to_protobuf(&named)
}

fn check_ranks(directory: &Path, strategy: &Strategy, whole: &Tensors) {
    for rank in 0..strategy.ranks() {
        let path = directory.join(format!("rank_{rank}/net.safetensors"));
        let found = tensors::read(&path).unwrap();
        let want = strategy.cut(whole, rank).unwrap();
        tensors::compare(&want, &found.tensors)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            found.metadata.contains_key("shardloom.qkv"),
            "{:?}",
            found.metadata
        );
    }
}

fn round_trips(family: &str) {
    let hf = hf_of(family);
    for (case, flags) in cases(family) {
        let room = tempfile::tempdir().unwrap();
        let run = |processes: u32, line: &str, flags: &[String]| {
            runs(processes, &words(line, room.path(), family, flags));
        };
        let whole = expected(family, &case);
        run(2, "import --hf % --dst @full", &flags);
        let (found, metadata) = full(&room.path().join("full"));
        tensors::compare(&whole, &found).unwrap_or_else(|e| panic!("{family} {case}: {e}"));
        assert_eq!(metadata["format"], "ms");
        let names = flags.iter().position(|flag| flag == "--names").unwrap();
        assert_eq!(metadata["shardloom.names"], flags[names + 1]);
        for (layout, tp, stages, processes) in
            [("tp2", 2, 1, 2), ("tp4", 4, 1, 4), ("pp2", 2, 2, 1)]
        {
            let strategy = strategy(&whole, &flags, tp, stages);
            let file = room.path().join(format!("{layout}.ckpt"));
            tensors::write_bytes(&file, &protobuf(&strategy, stages));
            let line = format!("import --hf % --dst @{layout} --dst-strategy @{layout}.ckpt");
            let size = flags.iter().position(|flag| flag == "--tp");
            // What isn't cut is in one part.
            if size.is_some_and(|at| ![tp.to_string(), "1".into()].contains(&flags[at + 1])) {
                let refused = alone(&words(&line, room.path(), family, &flags));
                refuses(&refused, "its rows are fused for a tensor-parallel size of");
                continue;
            }
            run(processes, &line, &flags);
            check_ranks(&room.path().join(layout), &strategy, &whole);
            let line = format!(
                "export --src @{layout} --src-strategy @{layout}.ckpt --hf-config % --dst @{layout}-hf"
            );
            run(processes, &line, &[]);
            let back = room.path().join(format!("{layout}-hf"));
            let (found, metadata) = full(&back);
            tensors::compare(&hf, &found)
                .unwrap_or_else(|e| panic!("{family} {case} {layout}: {e}"));
            assert_eq!(metadata, BTreeMap::from([("format".into(), "pt".into())]));
            let config = |directory: &Path| std::fs::read(directory.join("config.json")).unwrap();
            assert_eq!(config(&back), config(&recorded(family).join("hf")));
            assert!(back.join("model.safetensors.index.json").exists());
            assert!(!back.join("param_name_map.json").exists());
        }
    }
}

/// Fused, cut up and turned tensors are what they were, and what no strategy knows is the same everywhere.
// proves P30
#[test]
fn damage_is_found_on_the_way_through_a_view() {
    let (family, case) = ("qwen3", "mcore");
    let flags = &cases(family)[case];
    let whole = expected(family, case);
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name);
    let run = |processes: u32, line: &str, flags: &[String]| {
        let words = words(line, room.path(), family, flags);
        if processes == 1 {
            return alone(&words);
        }
        under_mpi(processes, &words)
    };
    let strategy = strategy(&whole, flags, 2, 1);
    tensors::write_bytes(&at("two.ckpt"), &protobuf(&strategy, 1));
    let import = "import --hf % --dst @two --dst-strategy @two.ckpt";
    run(1, import, flags).succeeds();
    let export = "export --src @two --src-strategy @two.ckpt --hf-config % --dst @hf";
    run(1, export, &[]).succeeds();
    let fused = whole.keys().find(|name| name.contains("qkv")).unwrap();
    // Out: the fused tensor is cut up. In: one of its parts is put into it.
    let rank = at("two/rank_1/net.safetensors");
    let sound = std::fs::read(&rank).unwrap();
    tensors::damage(&rank, fused);
    let model = fixtures::listing(&at("hf"));
    let model = model
        .iter()
        .find(|file| file.ends_with("model-00001-of-00001.safetensors"));
    let model = at("hf").join(model.unwrap());
    tensors::damage(&model, "model.layers.1.self_attn.k_proj.weight");
    let export = "export --src @two --src-strategy @two.ckpt --hf-config % --dst @out";
    let import = "import --hf @hf --dst @out --dst-strategy @two.ckpt";
    for processes in [1, 4] {
        for (line, flags, culprit) in [
            (export, &[][..], fused.as_str()),
            (import, flags, "model.layers.1.self_attn.k_proj.weight"),
        ] {
            let refused = run(processes, line, flags);
            refuses(&refused, culprit);
            assert!(
                error_line(&refused).contains("as they were"),
                "{refused:#?}"
            );
            assert!(!at("out").exists());
        }
    }
    run(1, &format!("{export} --verify none"), &[]).succeeds();
    // What the strategy doesn't know.
    std::fs::write(&rank, sound).unwrap();
    for (step, unlike) in [(7, false), (8, true)] {
        for (number, rank) in [
            (0, "two/rank_0/net.safetensors"),
            (1, "two/rank_1/net.safetensors"),
        ] {
            let mut contents = tensors::read(&at(rank)).unwrap();
            let start = if unlike { step + number } else { step };
            let extra = Tensor::counting("F32", &[8], start);
            contents.tensors.insert("extra.bias".into(), extra);
            tensors::write(&at(rank), &contents.tensors);
        }
        let line = format!("{export} --overwrite");
        if unlike {
            for processes in [1, 4] {
                refuses(&run(processes, &line, flags), "extra.bias");
            }
            run(1, &format!("{line} --unmatched drop"), flags).succeeds();
        } else {
            refuses(&run(1, &line, flags), "extra.bias");
            run(1, &format!("{line} --allow-extra"), flags).succeeds();
        }
    }
}

// proves P110
#[test]
fn llama_goes_in_and_out() {
    round_trips("llama");
}

#[test]
fn qwen2_goes_in_and_out() {
    round_trips("qwen2");
}

#[test]
fn qwen3_goes_in_and_out() {
    round_trips("qwen3");
}

#[test]
fn qwen3_with_experts_goes_in_and_out() {
    round_trips("qwen3_moe");
}

#[test]
fn deepseek_v3_goes_in_and_out() {
    round_trips("deepseek_v3");
}

#[test]
fn deepseek_v3_goes_in_and_out_by_its_legacy_names() {
    round_trips("deepseek_v3_legacy");
}

#[test]
fn tensors_below_each_other_and_stacked_as_they_are_go_in_and_out() {
    round_trips("glm4");
    round_trips("mixtral");
}

#[test]
fn query_key_and_value_in_one_on_both_sides_go_in_and_out() {
    round_trips("chatglm");
    round_trips("glm");
}

#[test]
fn telechat3_with_experts_goes_in_and_out() {
    round_trips("telechat3_moe");
}

#[test]
fn key_and_value_in_turns_of_heads_go_in_and_out() {
    round_trips("telechat");
    round_trips("telechat3");
}

/// Tensors side by side, parts of one, and tensors that only some layers have.
#[test]
fn kinds_of_layers_go_in_and_out() {
    round_trips("deepseek_v4");
}

/// The dynamic graph's shapes are what a family takes that has no other network; names that transformers saves by are
/// read; what config.json doesn't tell of its layers is named.
#[test]
fn layers_whose_kind_is_not_told_are_refused() {
    let room = room_with("deepseek_v4", |hf| {
        let own = std::mem::take(hf);
        hf.extend(own.into_iter().map(|(name, tensor)| {
            let name = match name.as_str() {
                "embed.weight" => "embed_tokens.weight".to_owned(),
                "hc_head_fn" => "hc_head.hc_fn".to_owned(),
                name => name.replace(".attn.kv_norm.", ".attn.norm."),
            };
            (name, tensor)
        }));
    });
    let run = |line: &str| alone(&words(line, room.path(), "deepseek_v4", &[]));
    run("import --hf @hf --dst @full").succeeds();
    let (found, _) = full(&room.path().join("full"));
    tensors::compare(&expected("deepseek_v4", "mcore"), &found).unwrap();
    let change = |key: &str, value: serde_json::Value| {
        let path = recorded("deepseek_v4").join("hf/config.json");
        let mut config: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        config.insert(key.to_owned(), value);
        let text = serde_json::to_vec(&config).unwrap();
        std::fs::write(room.path().join("hf/config.json"), text).unwrap();
        run("import --hf @hf --dst @none")
    };
    refuses(&change("compress_ratios", ().into()), "layer_types");
    let short = change("compress_ratios", vec![0, 4].into());
    refuses(&short, "has 2 entries");
    // Another kind than the files have tensors of.
    let other = change("compress_ratios", vec![0, 4, 4, 4, 0].into());
    refuses(&other, "layers.2.attn.compressor.ape");
    assert!(!room.path().join("none").exists());
}

/// Layouts that are typed cut the families' tensors as their networks do: ChatGLM's head by all ranks.
#[test]
fn typed_layouts_cut_as_the_networks_do() {
    let (chatglm, mcore) = ("transformer.output_layer.weight", "output_layer.weight");
    for (family, names, head, by_all) in [
        ("chatglm", "legacy", chatglm, true),
        ("glm", "legacy", chatglm, true),
        ("telechat", "mcore", mcore, false),
        ("telechat3", "mcore", mcore, false),
    ] {
        let vocabulary = "dp=2,tp=2,vocab_emb_dp=False";
        for (layout, pieces) in [("dp=1,tp=2", 2), ("dp=2,tp=2", 2), (vocabulary, 4)] {
            if pieces == 4 && !by_all {
                continue;
            }
            let room = tempfile::tempdir().unwrap();
            let run = |processes: u32, line: &str, flags: &[String]| {
                runs(processes, &words(line, room.path(), family, flags));
            };
            run(
                1,
                &format!("import --hf % --dst @whole --names {names}"),
                &[],
            );
            let whole = full(&room.path().join("whole")).0;
            let line =
                format!("import --hf % --dst @ranks --names {names} --dst-strategy {layout}");
            run(2, &line, &[]);
            let first = tensors::read(&room.path().join("ranks/rank_0/net.safetensors")).unwrap();
            assert_eq!(
                first.tensors[head].shape[0],
                24 / pieces,
                "{family} {layout}"
            );
            let rest = first.tensors.iter().filter(|(name, _)| *name != head);
            for (name, piece) in rest {
                let cut = [1, 2].contains(&(whole[name].data.len() / piece.data.len()));
                assert!(cut, "{family} {layout} {name}");
            }
            // The same without a word on names: they are those of the family's usual job.
            run(1, &format!("to {layout} --src % --dst @same --yes"), &[]);
            assert!(room.path().join("same/rank_1").is_dir());
            let line = format!("unify --src @ranks --src-strategy {layout} --model % --dst @full");
            run(1, &line, &[]);
            tensors::compare(&whole, &full(&room.path().join("full")).0).unwrap();
            let line =
                format!("export --src @ranks --src-strategy {layout} --hf-config % --dst @back");
            run(4, &line, &[]);
            tensors::compare(&hf_of(family), &full(&room.path().join("back")).0).unwrap();
            if by_all {
                let joined = "--names legacy --qkv contiguous --ffn contiguous --tp 2";
                let line = format!("import --hf % --dst @one --dst-strategy {layout} {joined}");
                run(4, &line, &[]);
                let line =
                    format!("export --src @one --src-strategy {layout} --hf-config % --dst @again");
                run(1, &line, &[]);
                tensors::compare(&hf_of(family), &full(&room.path().join("again")).0).unwrap();
            }
        }
    }
}

/// A room with `hf/`, a copy of a recorded model that a test may change.
fn room_with(family: &str, change: impl FnOnce(&mut Tensors)) -> TempDir {
    let room = tempfile::tempdir().unwrap();
    let mut hf = hf_of(family);
    change(&mut hf);
    tensors::write(&room.path().join("hf/model.safetensors"), &hf);
    let config = recorded(family).join("hf/config.json");
    std::fs::copy(config, room.path().join("hf/config.json")).unwrap();
    room
}

/// A setting that another job of the same sizes had: the vocabulary, or the experts, are cut where each rank has them whole.
#[test]
fn a_tensor_that_each_rank_has_whole_is_no_parts() {
    for (family, own, other) in [
        ("llama", "dp=1,tp=2", "dp=1,tp=2,vocab_emb_dp=false"),
        ("qwen3_moe", "dp=2,tp=2,ep=1", "dp=2,tp=2,ep=2"),
    ] {
        let names = if family == "llama" { "legacy" } else { "mcore" };
        let room = room_with(family, |_| {});
        let on =
            |processes: u32, line: &str| command::on(processes, &words(line, room.path(), "", &[]));
        for (name, layout) in [("own", own), ("other", other)] {
            let line = format!(
                "strategy derive --parallel {layout} --model @hf --names {names} --output @{name}"
            );
            on(1, &line).succeeds();
        }
        let line = format!("import --hf @hf --dst @ranks --dst-strategy @own --names {names}");
        on(2, &line).succeeds();
        std::fs::remove_file(room.path().join("ranks/shardloom.json")).unwrap();
        for (processes, line) in [
            (1, "unify --src @ranks --src-strategy @other --dst @out"),
            (4, "unify --src @ranks --src-strategy @other --dst @out"),
            (
                2,
                "reshard --src @ranks --src-strategy @other --dst @out --dst-strategy @other",
            ),
        ] {
            let run = on(processes, line);
            refuses(&run, "have the same bytes");
            assert!(run.stderr.contains("--verify none"), "{run:#?}");
            assert!(!room.path().join("out").exists());
        }
        on(2, "unify --src @ranks --src-strategy @own --dst @out").succeeds();
    }
}

/// Files of some formats have no place for how rows are fused: the manifest beside them has it.
#[test]
fn how_rows_are_fused_is_known_of_any_format() {
    let room = room_with("qwen3", |_| {});
    let on =
        |processes: u32, line: &str| command::on(processes, &words(line, room.path(), "", &[]));
    let fused = "--qkv contiguous --ffn contiguous --tp 2";
    let import = "import --hf @hf --dst";
    on(
        2,
        &format!("{import} @kept --dst-strategy dp=1,tp=2 {fused}"),
    )
    .succeeds();
    on(
        2,
        &format!("{import} @ckpt --dst-strategy dp=1,tp=2 {fused} --format ckpt"),
    )
    .succeeds();
    on(1, &format!("{import} @dcp {fused} --format dcp")).succeeds();
    on(1, "convert @kept --to ckpt --dst @converted").succeeds();
    on(1, "convert @converted --to safetensors --dst @again").succeeds();
    for source in ["kept", "ckpt", "dcp", "converted", "again"] {
        let line =
            format!("reshard --src @{source} --dst @out --dst-strategy dp=1,tp=1,pp=2 --model @hf");
        let line = match source {
            "dcp" => line.replace("reshard", "split"),
            _ => line,
        };
        for processes in [1, 2] {
            let run = on(processes, &line);
            refuses(&run, "fused for a tensor-parallel size of 2");
            assert!(!room.path().join("out").exists(), "{source}");
        }
    }
    let run = on(1, "unify --src @ckpt --dst @out --format megatron");
    refuses(&run, "rows are contiguous");
    // Full weights say it on: they come back as they were.
    on(1, "unify --src @ckpt --dst @full").succeeds();
    on(1, "export --src @full --hf-config @hf --dst @back").succeeds();
    tensors::compare(&hf_of("qwen3"), &full(&room.path().join("back")).0).unwrap();
}

/// A layout that is typed has experts in the layers where config.json has them, as import has.
#[test]
fn layers_without_experts_are_cut_as_such() {
    for (key, value) in [("mlp_only_layers", "[0]"), ("decoder_sparse_step", "2")] {
        let room = room_with("qwen3_moe", |_| {});
        let config = room.path().join("hf/config.json");
        let text = std::fs::read(&config).unwrap();
        let mut keys: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&text).unwrap();
        keys.insert("mlp_only_layers".into(), serde_json::json!([]));
        keys.insert(key.into(), serde_json::from_str(value).unwrap());
        std::fs::write(&config, serde_json::to_vec(&keys).unwrap()).unwrap();
        let run = |line: &str| alone(&words(line, room.path(), "", &[])).succeeds();
        let layout = "dp=2,tp=2,ep=2";
        run(&format!(
            "import --hf @hf --dst @ranks --dst-strategy {layout} --names mcore"
        ));
        run(&format!(
            "unify --src @ranks --src-strategy {layout} --model @hf --dst @out"
        ));
        run("import --hf @hf --dst @whole --names mcore");
        let (whole, out) = (
            full(&room.path().join("whole")).0,
            full(&room.path().join("out")).0,
        );
        assert!(whole.contains_key("decoder.layers.0.mlp.linear_fc1.weight"));
        tensors::compare(&whole, &out).unwrap();
        let told = run("strategy recognise @ranks --model @hf");
        assert!(told.stdout.contains(layout), "{key}: {told:#?}");
    }
}

/// Names of the other network than is asked for are named as that, and so is what has them.
#[test]
fn names_of_the_other_network_are_named_as_such() {
    let room = tempfile::tempdir().unwrap();
    let run = |line: &str, family: &str| alone(&words(line, room.path(), family, &[]));
    for family in ["llama", "mixtral"] {
        for (names, other) in [("legacy", "mcore"), ("mcore", "legacy")] {
            let line = format!("import --hf % --dst @in --names {names} --overwrite");
            run(&line, family).succeeds();
            let line = "export --src @in --hf-config % --dst @out --overwrite --names";
            let fails = run(&format!("{line} {other}"), family);
            refuses(&fails, &format!("is a name of the {names} network"));
            assert!(
                fails.stderr.contains(&format!("--names {names} reads")),
                "{fails:?}"
            );
            run(&format!("{line} {names}"), family).succeeds();
        }
    }
    // A query that isn't made of a low-rank one has no legacy name.
    let config = std::fs::read(recorded("deepseek_v3").join("hf/config.json")).unwrap();
    let mut keys: serde_json::Value = serde_json::from_slice(&config).unwrap();
    keys["q_lora_rank"] = serde_json::Value::Null;
    let own = |key: &str| usize::try_from(keys[key].as_u64().unwrap()).unwrap();
    let rows = own("num_attention_heads") * (own("qk_nope_head_dim") + own("qk_rope_head_dim"));
    let query = Tensor::counting("BF16", &[rows, own("hidden_size")], 0);
    let room = room_with("deepseek_v3", |hf| {
        hf.retain(|name, _| !name.starts_with("model.layers.2.") && !name.contains(".q_a_"));
        for name in hf.keys().cloned().collect::<Vec<_>>() {
            if name.contains(".q_b_proj.") {
                hf.remove(&name);
                hf.insert(name.replace(".q_b_proj.", ".q_proj."), query.clone());
            }
        }
    });
    std::fs::write(room.path().join("hf/config.json"), keys.to_string()).unwrap();
    let line = "import --hf @hf --dst @out --names";
    let fails = alone(&words(&format!("{line} legacy"), room.path(), "", &[]));
    refuses(
        &fails,
        "self_attn.q_proj.weight: family deepseek_v3 has no legacy name",
    );
    assert!(fails.stderr.contains("--names mcore has one"), "{fails:?}");
    alone(&words(&format!("{line} mcore"), room.path(), "", &[])).succeeds();
}

/// A further-token layer's own embedding that is another one has a hint of its own.
#[test]
fn a_further_layers_own_embedding_is_no_tied_head() {
    let name = "model.layers.2.embed_tokens.weight";
    let room = room_with("deepseek_v3", |hf| hf.get_mut(name).unwrap().data[0] ^= 1);
    let line = "import --hf @hf --dst @out --names mcore";
    let fails = alone(&words(line, room.path(), "", &[]));
    refuses(
        &fails,
        "its elements are unlike those of 'model.embed_tokens.weight'",
    );
    assert!(
        fails.stderr.contains("further-token layers") && !fails.stderr.contains("tie_word"),
        "{fails:?}"
    );
}

/// What was imported without layers for further tokens is recognised, and goes out again.
#[test]
fn a_model_without_its_further_layers_is_recognised() {
    let further = |name: &str| name.starts_with("model.layers.2.");
    let room = room_with("deepseek_v3", |hf| hf.retain(|name, _| !further(name)));
    let run = |line: &str| alone(&words(line, room.path(), "", &[])).succeeds();
    let layout = "dp=2,tp=2,ep=2";
    run(&format!(
        "import --hf @hf --dst @ranks --dst-strategy {layout} --names mcore"
    ));
    let told = run("strategy recognise @ranks --model @hf");
    assert!(told.stdout.contains(layout), "{told:#?}");
    run("to hf --src @ranks --model @hf --dst @out --yes");
    let (hf, _) = full(&room.path().join("hf"));
    tensors::compare(&hf, &full(&room.path().join("out")).0).unwrap();
}

/// The cache keeps files apart, under names that tell nothing; a snapshot links to them.
#[test]
fn reads_a_snapshot_in_the_cache() {
    let room = room_with("llama", |_| {});
    let model = room.path().join("hub/models--a--b");
    let snapshot = model.join("snapshots/0123abcd");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(model.join("blobs")).unwrap();
    for (file, blob) in [("model.safetensors", "9f8e"), ("config.json", "7d6c")] {
        std::fs::rename(
            room.path().join("hf").join(file),
            model.join("blobs").join(blob),
        )
        .unwrap();
        let link = Path::new("../../blobs").join(blob);
        std::os::unix::fs::symlink(link, snapshot.join(file)).unwrap();
    }
    let line = "import --hf @hub/models--a--b/snapshots/0123abcd --dst @out --names legacy";
    alone(&words(line, room.path(), "", &[])).succeeds();
    tensors::compare(
        &expected("llama", "legacy"),
        &full(&room.path().join("out")).0,
    )
    .unwrap();
    // Links of the user's own are followed, too.
    std::fs::rename(model.join("blobs/9f8e"), room.path().join("9f8e")).unwrap();
    let weights = snapshot.join("model.safetensors");
    std::fs::remove_file(&weights).unwrap();
    std::os::unix::fs::symlink(room.path().join("9f8e"), weights).unwrap();
    alone(&words(&format!("{line} --overwrite"), room.path(), "", &[])).succeeds();
    // As a download leaves it: shards and their index are links, and the blobs lie on another disk.
    let memory = Path::new("/dev/shm");
    let temporary = std::env::temp_dir();
    let away = tempfile::tempdir_in(if memory.is_dir() { memory } else { &temporary }).unwrap();
    std::fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    std::fs::create_dir_all(model.join("refs")).unwrap();
    std::fs::write(model.join("refs/main"), "0123abcd\n").unwrap();
    let mut map = serde_json::Map::new();
    for (number, blob) in [(0, "s1"), (1, "s2")] {
        let part = hf_of("llama").into_iter().enumerate();
        let part: Tensors = part
            .filter(|(at, _)| at % 2 == number)
            .map(|(_, pair)| pair)
            .collect();
        let file = format!("model-0000{}-of-00002.safetensors", number + 1);
        map.extend(part.keys().map(|name| (name.clone(), file.clone().into())));
        tensors::write(&away.path().join(blob), &part);
        std::os::unix::fs::symlink(Path::new("../../blobs").join(blob), snapshot.join(file))
            .unwrap();
    }
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    std::fs::write(away.path().join("i3"), index.to_string()).unwrap();
    let link = snapshot.join("model.safetensors.index.json");
    std::os::unix::fs::symlink("../../blobs/i3", link).unwrap();
    std::fs::copy(model.join("blobs/7d6c"), away.path().join("7d6c")).unwrap();
    std::fs::remove_dir_all(model.join("blobs")).unwrap();
    std::os::unix::fs::symlink(away.path(), model.join("blobs")).unwrap();
    for processes in [1, 4] {
        runs(
            processes,
            &words(&format!("{line} --overwrite"), room.path(), "", &[]),
        );
        tensors::compare(
            &expected("llama", "legacy"),
            &full(&room.path().join("out")).0,
        )
        .unwrap();
    }
    // What is above it is said to be that, whoever asks.
    for line in [
        "import --hf @hub/models--a--b --dst @o --names legacy",
        "unify --src @hub/models--a--b/snapshots --dst @o",
        "inspect @hub",
        "to tp=2 --src @hub/models--a--b --dst @o",
        "export --src @out --hf-config @hub/models--a--b --dst @o",
        "strategy derive --parallel tp=2 --model @hub/models--a--b --output @o",
        "import --hf @hub/models--a--b/snapshots/0123abcd --lora @hub/models--a--b --dst @o --names legacy",
    ] {
        let refused = alone(&words(line, room.path(), "", &[]));
        assert!(
            refused.stderr.contains("models--a--b/snapshots/0123abcd\n"),
            "{line}: {refused:#?}"
        );
        assert!(
            refused.stderr.contains("cache") && !room.path().join("o").exists(),
            "{line}"
        );
    }
}

#[test]
fn names_what_is_missing_or_unknown_with_its_neighbours() {
    let (right, wrong) = (
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.1.mlp.upp_proj.weight",
    );
    let room = room_with("llama", |hf| {
        let tensor = hf.remove(right).unwrap();
        hf.insert(wrong.to_owned(), tensor);
    });
    let run = |flags: &str| {
        alone(&words(
            &format!("import --hf @hf --dst @out {flags}"),
            room.path(),
            "",
            &[],
        ))
    };
    let unknown = run("");
    refuses(&unknown, wrong);
    assert!(
        unknown
            .stderr
            .contains(&format!("is it {right}, which the files lack?")),
        "{unknown:?}"
    );
    let missing = run("--allow-extra");
    refuses(&missing, right);
    let hint = missing
        .stderr
        .lines()
        .find(|line| line.contains("of the files?"));
    assert!(hint.is_some_and(|hint| hint.contains(wrong)), "{missing:?}");
    assert!(!room.path().join("out").exists());
    let made = run("--allow-extra --allow-missing").succeeds();
    let note = "1 tensor, model.layers.1.feed_forward.w3.weight";
    assert!(made.stdout.contains(note), "{made:?}");
    let (found, _) = full(&room.path().join("out"));
    assert!(!found.contains_key("model.layers.1.feed_forward.w3.weight"));
    assert!(found.contains_key("model.layers.1.feed_forward.w1.weight"));
}

#[test]
fn refuses_a_config_that_does_not_fit() {
    let room = room_with("qwen3", |_| {});
    let path = room.path().join("hf/config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 8"),
    )
    .unwrap();
    let run = alone(&words("import --hf @hf --dst @out", room.path(), "", &[]));
    refuses(
        &run,
        "self_attn.q_proj.weight: is [24, 16], config.json asks for [48, 16]",
    );
    std::fs::write(&path, text.replace("\"qwen3\"", "\"qwen9\"")).unwrap();
    let run = alone(&words("import --hf @hf --dst @out", room.path(), "", &[]));
    refuses(&run, "no family table is for model type 'qwen9'");
    let run = alone(&words(
        "import --hf @hf --dst @out --family qwen33",
        room.path(),
        "",
        &[],
    ));
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    assert!(run.stderr.contains("did you mean qwen3?"), "{run:?}");
    let run = alone(&words(
        "import --hf @hf --dst @out --family qwen3 --names legacy",
        room.path(),
        "",
        &[],
    ));
    refuses(&run, "family qwen3 has no legacy names");
}

#[test]
fn interrupted_import_and_export_are_taken_up() {
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    let room = tempfile::tempdir().unwrap();
    let line = |line: &str| words(line, room.path(), "deepseek_v3", &[]);
    let import = "import --hf % --dst @in --threads 1 --names mcore";
    let export = "export --src @whole --hf-config % --dst @out --threads 1";
    alone(&line("import --hf % --dst @whole --names mcore")).succeeds();
    for (command, into, other) in [
        (import, "in", "--qkv contiguous --ffn separate"),
        (export, "out", "--dtype f32"),
    ] {
        let (mut reused, mut round) = (0, 0);
        for fault in (15..).step_by(9) {
            let fault = format!("exit:{fault}");
            let envs = [
                ("SHARDLOOM_JOURNAL_SECONDS", "0"),
                ("SHARDLOOM_IO_FAULT", fault.as_str()),
            ];
            let arguments = line(command);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let killed = support::alone(program, &arguments, &envs);
            let partial = room.path().join(format!(".{into}.shardloom-partial"));
            if killed.status.success() || room.path().join(into).exists() {
                break;
            }
            // Before the job is noted there is nothing to take up.
            let job = std::fs::read_to_string(partial.join(".shardloom-journal/job"));
            if job.is_ok_and(|job| job.contains(' ')) {
                round += 1;
            } else {
                continue;
            }
            // Another view of the same source is another job.
            let another = alone(&line(&format!("{command} {other} --resume")));
            refuses(&another, "is left of another job");
            let processes = if round == 1 { 2 } else { 1 };
            let resume = line(&format!("{command} --resume --json"));
            let run = command::on(processes, &resume);
            let result = object(&run.succeeds());
            support::schema::fits(result["command"].as_str().expect("a command"), &result);
            reused += result["bytes"]["reused"].as_u64().unwrap();
            let found = full(&room.path().join(into)).0;
            let want = match into {
                "in" => full(&room.path().join("whole")).0,
                _ => hf_of("deepseek_v3"),
            };
            tensors::compare(&want, &found).unwrap();
            let again = object(&alone(&resume).succeeds());
            assert_eq!(again["bytes"]["written"], 0, "{again}");
            std::fs::remove_dir_all(room.path().join(into)).unwrap();
        }
        assert!(
            reused > 0 && round > 2,
            "{command}: {reused} bytes taken up in {round} rounds"
        );
    }
}

// proves P142
#[test]
fn asks_how_fused_tensors_are_laid_out_if_nothing_says() {
    let room = tempfile::tempdir().unwrap();
    let whole = expected("qwen3", "mcore");
    tensors::write(&room.path().join("full/model.safetensors"), &whole);
    let line = "export --src @full --hf-config % --dst @out";
    let run = |flags: &str| {
        alone(&words(
            &format!("{line} {flags}"),
            room.path(),
            "qwen3",
            &[],
        ))
    };
    let first = run("");
    refuses(&first, "don't say how their fused qkv tensors are laid out");
    assert!(
        first.stderr.contains("--qkv contiguous --tp N"),
        "{first:?}"
    );
    refuses(
        &run("--qkv contiguous --ffn interleaved"),
        "depend on the tensor-parallel size",
    );
    run("--qkv interleaved --ffn interleaved").succeeds();
    tensors::compare(&hf_of("qwen3"), &full(&room.path().join("out")).0).unwrap();
    let import = "import --hf % --dst @in --dst-strategy @none.ckpt --qkv contiguous";
    let run = alone(&words(import, room.path(), "qwen3", &[]));
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    assert!(error_line(&run).contains("tensor-parallel size"), "{run:?}");
}

#[test]
fn refuses_groups_that_tp_cannot_cut() {
    let room = tempfile::tempdir().unwrap();
    let line = "import --hf % --dst @out --qkv interleaved --tp 4";
    let run = alone(&words(line, room.path(), "qwen3", &[]));
    assert!(
        !run.status.success() && run.stderr.contains("--qkv contiguous repeats"),
        "{run:?}"
    );
}

// proves P111
#[test]
fn refuses_a_strategy_that_cuts_inside_a_group() {
    let room = tempfile::tempdir().unwrap();
    let name = "decoder.layers.0.self_attention.linear_qkv.weight";
    let layout = sample::layout(&[4], &[0, -1]);
    let strategy = Strategy::of(&[(name, layout)]);
    tensors::write_bytes(&room.path().join("four.ckpt"), &to_protobuf(&strategy));
    let line = "import --hf % --dst @out --dst-strategy @four.ckpt --allow-extra";
    let run = |flags: &str| {
        alone(&words(
            &format!("{line} {flags}"),
            room.path(),
            "qwen3",
            &[],
        ))
    };
    refuses(
        &run(""),
        "cuts its 48 rows in 4; it is fused in groups of 24 rows",
    );
    refuses(
        &run("--qkv contiguous --tp 2"),
        "fused in groups of 24 rows",
    );
    run("--qkv contiguous --tp 4").succeeds();
    let whole = tensors::read(&room.path().join("out/rank_3/net.safetensors")).unwrap();
    assert_eq!(whole.tensors[name].shape, [18, 16]);
}

#[test]
fn leaves_the_training_state_behind() {
    let room = tempfile::tempdir().unwrap();
    let mut whole = expected("llama", "legacy");
    for name in whole.keys().cloned().collect::<Vec<_>>() {
        for state in ["adam_m", "adam_v", "accu_grads"] {
            whole.insert(format!("{state}.{name}"), Tensor::counting("F32", &[2], 7));
        }
    }
    whole.insert("global_step".into(), Tensor::counting("I32", &[1], 7));
    tensors::write(&room.path().join("full/model.safetensors"), &whole);
    let run = alone(&words(
        "export --src @full --hf-config % --dst @out --json",
        room.path(),
        "llama",
        &[],
    ))
    .succeeds();
    assert_eq!(object(&run)["ok"], true);
    tensors::compare(&hf_of("llama"), &full(&room.path().join("out")).0).unwrap();
}

#[test]
fn casts_and_casts_back() {
    let room = tempfile::tempdir().unwrap();
    let run = |line: &str| runs(2, &words(line, room.path(), "deepseek_v3", &[]));
    run("import --hf % --dst @wide --dtype f32 --memory 1MiB");
    let (wide, _) = full(&room.path().join("wide"));
    for (name, narrow) in expected("deepseek_v3", "mcore") {
        let widened = |element: &[u8]| [0, 0, element[0], element[1]];
        let bytes: Vec<u8> = match narrow.dtype.as_str() {
            "BF16" => narrow.data.chunks(2).flat_map(widened).collect(),
            _ => narrow.data.clone(),
        };
        assert_eq!(
            (wide[&name].dtype.as_str(), &wide[&name].data),
            ("F32", &bytes),
            "{name}"
        );
    }
    run("export --src @wide --hf-config % --dst @back --dtype bf16");
    let (back, _) = full(&room.path().join("back"));
    for (name, original) in hf_of("deepseek_v3") {
        let found = &back[&name];
        if original.dtype == "BF16" {
            assert_eq!(found, &original, "{name}");
        } else {
            let kept = name.ends_with("correction_bias");
            assert_eq!(found.dtype, if kept { "F32" } else { "BF16" }, "{name}");
        }
    }
    let config = std::fs::read_to_string(room.path().join("back/config.json")).unwrap();
    assert!(config.contains("\"dtype\": \"bfloat16\""), "{config}");
}

/// The same values, as YAML has them: with keys that need no quotes, and texts that may.
fn to_yaml(value: &serde_json::Value, indent: usize, out: &mut String) {
    use std::fmt::Write;
    let pad = " ".repeat(indent);
    let plain = |value: &serde_json::Value| match value {
        serde_json::Value::Object(map) => map.is_empty(),
        serde_json::Value::Array(list) => list.is_empty(),
        _ => true,
    };
    let mut put = |head: String, value: &serde_json::Value| {
        if plain(value) {
            writeln!(out, "{pad}{head} {value}").unwrap();
        } else {
            writeln!(out, "{pad}{head}").unwrap();
            to_yaml(value, indent + 2, out);
        }
    };
    match value {
        serde_json::Value::Object(map) => {
            map.iter().for_each(|(k, v)| put(format!("{k}:"), v));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|v| put("-".into(), v)),
        _ => unreachable!("{value}"),
    }
}

#[test]
fn takes_a_table_of_the_users_own() {
    let room = tempfile::tempdir().unwrap();
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/families/qwen2.json");
    let text = std::fs::read_to_string(table)
        .unwrap()
        .replace("\".attention.wo.weight\"", "\".attention.out.weight\"");
    let mut yaml = String::from("# A table with a remark.\n");
    to_yaml(&serde_json::from_str(&text).unwrap(), 0, &mut yaml);
    std::fs::write(room.path().join("own.json"), text).unwrap();
    std::fs::write(room.path().join("own.yaml"), yaml).unwrap();
    for own in ["own.json", "own.yaml"] {
        let import = format!("import --hf % --dst @full --overwrite --name-map @{own}");
        alone(&words(&import, room.path(), "qwen2", &[])).succeeds();
        assert!(
            full(&room.path().join("full"))
                .0
                .contains_key("model.layers.0.attention.out.weight")
        );
        let line =
            format!("export --src @full --hf-config % --dst @out --overwrite --name-map @{own}");
        alone(&words(&line, room.path(), "qwen2", &[])).succeeds();
        tensors::compare(&hf_of("qwen2"), &full(&room.path().join("out")).0).unwrap();
    }
    std::fs::write(room.path().join("bad.yaml"), "family: [x\n").unwrap();
    let bad = "import --hf % --dst @bad --name-map @bad.yaml";
    let run = alone(&words(bad, room.path(), "qwen2", &[]));
    refuses(&run, "bad.yaml: is no family table");
}

#[test]
fn shows_the_names_of_both_sides() {
    for family in FAMILIES {
        let names = if ["chatglm", "glm"].contains(&family) {
            "legacy"
        } else {
            "mcore"
        };
        let line = format!("inspect % --names {names} --json");
        let run = alone(&words(&line, Path::new(""), family, &[])).succeeds();
        let shown = object(&run);
        let links = shown["names"].as_array().unwrap();
        let mut hf = Vec::new();
        for tensor in links.iter().flat_map(|link| link["hf"].as_array().unwrap()) {
            hf.push((
                tensor["name"].as_str().unwrap().to_owned(),
                tensor["shape"].clone(),
            ));
        }
        for (name, tensor) in hf_of(family) {
            let copy = name.contains("layers.2.embed_tokens") || name.contains("shared_head.head");
            let shape = serde_json::json!(tensor.shape);
            assert!(
                copy || hf.contains(&(name.clone(), shape)),
                "{family}: {name}"
            );
        }
    }
    let run = alone(&words(
        "inspect % --qkv separate",
        Path::new(""),
        "llama",
        &[],
    ));
    assert_eq!(run.status.code(), Some(2), "{run:?}");
}

/// All files below a directory, by their paths in it.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let inside = path.strip_prefix(root).unwrap().to_path_buf();
                files.insert(inside, std::fs::read(&path).unwrap());
            }
        }
    }
    assert!(!files.is_empty());
    files
}

/// A layout and a model tell each tensor's full shape, and what there is of a model.
#[test]
fn a_layout_of_another_size_or_model_is_refused() {
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name);
    let words = |line: &str| words(line, room.path(), "qwen3", &[]);
    runs(
        2,
        &words("import --hf % --dst @two --names mcore --dst-strategy tp=2"),
    );
    std::fs::remove_file(at("two/shardloom.json")).unwrap();
    std::fs::create_dir_all(at("lone/rank_0")).unwrap();
    let file = "rank_0/net.safetensors";
    std::fs::copy(at("two").join(file), at("lone").join(file)).unwrap();
    let config = std::fs::read_to_string(recorded("qwen3").join("hf/config.json")).unwrap();
    let wider = config.replace("\"intermediate_size\": 16", "\"intermediate_size\": 24");
    std::fs::write(at("wider.json"), wider).unwrap();
    for (line, name) in [
        (
            "unify --src @two --src-strategy dp=2 --model %",
            "linear_fc1",
        ),
        (
            "unify --src @two --src-strategy tp=2 --model @wider.json",
            "linear_fc1",
        ),
        (
            "unify --src @lone --src-strategy tp=1 --model %",
            "linear_fc1",
        ),
        (
            "reshard --src @lone --src-strategy tp=1 --model % --dst-strategy tp=2",
            "linear_fc1",
        ),
        (
            "split --src @lone/rank_0/net.safetensors --dst-strategy tp=2 --model %",
            "linear_fc1",
        ),
    ] {
        for processes in [1, 4] {
            let run = command::on(
                processes,
                &words(&format!("{line} --verify none --dst @out")),
            );
            refuses(&run, "by the strategy");
            assert!(
                run.stderr.contains(name) || run.stderr.contains("self_attention"),
                "{run:#?}"
            );
            assert!(run.stderr.contains("strategy recognise"), "{run:#?}");
            assert!(!at("out").exists(), "{run:#?}");
        }
    }
    runs(
        1,
        &words("unify --src @two --src-strategy tp=2 --model % --dst @full"),
    );
    let whole = full(&at("full")).0;
    for lost in [
        "decoder.layers.1.mlp.linear_fc2.weight",
        "decoder.final_layernorm.weight",
    ] {
        let mut rest = whole.clone();
        rest.remove(lost).unwrap();
        tensors::write(&at("less.safetensors"), &rest);
        for line in [
            "split --src @less.safetensors --dst-strategy tp=2 --model % --dst @out",
            "to tp=2 --src @less.safetensors --model % --dst @out --yes",
        ] {
            let run = command::on(4, &words(line));
            refuses(&run, lost);
            assert!(!at("out").exists(), "{run:#?}");
            runs(1, &words(&format!("{line} --unmatched drop")));
            std::fs::remove_dir_all(at("out")).unwrap();
        }
    }
}

/// Rows that are fused for one tensor-parallel size are not cut for another, whatever command would do it.
#[test]
fn rows_fused_for_other_ranks_are_refused() {
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name);
    let words = |line: &str| words(line, room.path(), "qwen3", &[]);
    let fused = "--qkv contiguous --ffn contiguous --tp";
    runs(
        2,
        &words(&format!(
            "import --hf % --dst @two --dst-strategy tp=2 {fused} 2"
        )),
    );
    runs(1, &words("unify --src @two --dst @full"));
    for line in [
        "reshard --src @two --dst @out --model % --dst-strategy tp=1",
        "to tp=1 --src @two --dst @out --model % --yes",
        "reshard --src @two --dst @out --model % --dst-strategy dp=2",
    ] {
        for processes in [1, 4] {
            let run = command::on(processes, &words(line));
            refuses(&run, "are fused for a tensor-parallel size of 2");
            assert!(run.stderr.contains("--tp 1"), "{run:#?}");
            assert!(!at("out").exists(), "{run:#?}");
        }
    }
    // For as many ranks they may be cut otherwise; and they are fused anew.
    runs(
        4,
        &words("split --src @full --dst @again --model % --dst-strategy dp=2,tp=2"),
    );
    runs(
        2,
        &words(&format!(
            "reshard --src @two --dst @one --model % --dst-strategy tp=1 {fused} 1"
        )),
    );
    runs(2, &words("export --src @one --hf-config % --dst @back"));
    tensors::compare(&hf_of("qwen3"), &full(&at("back")).0).unwrap();
}

/// A vocabulary may have been padded, and be cut or whole, as a layout says.
#[test]
fn a_vocabulary_that_lies_whole_is_not_cut() {
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name);
    let words = |line: &str| words(line, room.path(), "llama", &[]);
    runs(
        2,
        &words("import --hf % --dst @two --names legacy --dst-strategy tp=2"),
    );
    std::fs::remove_file(at("two/shardloom.json")).unwrap();
    let read = "unify --src @two --model % --verify none --dst @out --src-strategy";
    for processes in [1, 4] {
        let run = command::on(
            processes,
            &words(&format!("{read} tp=2,vocab_emb_dp=false")),
        );
        refuses(&run, "cut into 2 x 1 parts");
        assert!(run.stderr.contains("lm_head.weight"), "{run:#?}");
        assert!(!at("out").exists(), "{run:#?}");
    }
    let padded = "import --hf % --dst @padded --names legacy --dst-strategy tp=2,vocab_emb_dp=false --vocab-rows 128";
    runs(2, &words(padded));
    std::fs::remove_file(at("padded/shardloom.json")).unwrap();
    let read = "unify --src @padded --model % --dst @out --src-strategy tp=2,vocab_emb_dp=false";
    runs(4, &words(read));
    let embedding = "model.tok_embeddings.embedding_weight";
    assert_eq!(full(&at("out")).0[embedding].shape[0], 128);
    // A model's own odd number of words can't be cut; what is written can.
    let (model, odd) = (recorded("llama").join("hf"), at("odd"));
    std::fs::create_dir(&odd).unwrap();
    for file in std::fs::read_dir(&model).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), odd.join(file.file_name())).unwrap();
    }
    let text = std::fs::read_to_string(odd.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let words_there = config["vocab_size"].as_u64().unwrap();
    config["vocab_size"] = (words_there - 1).into();
    std::fs::write(odd.join("config.json"), config.to_string()).unwrap();
    for (rows, cut) in [
        (words_there, words_there / 2),
        (words_there - 1, words_there - 1),
    ] {
        let line = format!(
            "import --hf @odd --dst @cut --names legacy --overwrite --dst-strategy tp=2,vocab_emb_dp=false --vocab-rows {rows}"
        );
        runs(2, &words(&line));
        let file = tensors::read(&at("cut/rank_1/net.safetensors")).unwrap();
        assert_eq!(file.tensors[embedding].shape[0] as u64, cut, "{rows}");
    }
}

// proves P135
#[test]
fn a_layout_in_place_of_a_strategy_file_gives_the_same_bytes() {
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name).display().to_string();
    let model = recorded("qwen3").join("hf").display().to_string();
    let run = |processes: u32, line: &str| {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| match word.strip_prefix('@') {
                Some("model") => model.clone(),
                Some(name) => at(name),
                None => word.to_owned(),
            })
            .collect();
        let run = command::on(processes, &words);
        assert_eq!(run.status.code(), Some(0), "{line}: {}", run.stderr);
        run
    };
    const A: &str = "dp=2,tp=2,pp=2";
    const B: &str = "tp=2,dp=2,opt=-1";
    for (layout, name) in [
        ("--dp 2 --tp 2 --pp 2", "a"),
        ("--tp 2 --dp 2 --opt-shard -1", "b"),
    ] {
        let to = format!("--output @{name} --merged @{name}.ckpt");
        run(1, &format!("strategy derive {layout} --model @model {to}"));
    }
    // The files' side by one process, the layouts' by four: what is written is the same but for the word
    // of who wrote it.
    run(
        1,
        "import --hf @model --dst @f/ranks --dst-strategy @a.ckpt",
    );
    run(
        4,
        &format!("import --hf @model --dst @t/ranks --dst-strategy {A}"),
    );
    run(
        1,
        "unify --src @f/ranks --src-strategy @a.ckpt --dst @f/full",
    );
    run(
        4,
        &format!("unify --src @f/ranks --src-strategy {A} --model @model --dst @t/full"),
    );
    run(
        1,
        "split --src @f/full --dst-strategy @b.ckpt --dst @f/split",
    );
    run(
        4,
        &format!("split --src @f/full --dst-strategy {B} --model @model --dst @t/split"),
    );
    run(
        1,
        "reshard --src @f/ranks --src-strategy @a.ckpt --dst-strategy @b.ckpt --dst @f/moved",
    );
    run(
        4,
        &format!(
            "reshard --src @f/ranks --src-strategy {A} --dst-strategy {B} --dst @t/moved --model @model"
        ),
    );
    run(
        1,
        "export --src @f/split --src-strategy @b.ckpt --hf-config @model --dst @f/hf",
    );
    run(
        4,
        &format!("export --src @f/split --src-strategy {B} --hf-config @model --dst @t/hf"),
    );
    let (files, typed) = (tree(Path::new(&at("f"))), tree(Path::new(&at("t"))));
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        typed.keys().collect::<Vec<_>>()
    );
    for (path, bytes) in &files {
        assert!(typed[path] == *bytes, "{}", path.display());
    }
    run(
        4,
        &format!("diff @f/ranks @f/split --a-strategy {A} --b-strategy {B} --model @model"),
    );
    run(1, &format!("strategy diff {A} @a --model @model"));
    // A trainer's file says the same, and `load` needs nothing else.
    let yaml = format!(
        "use_parallel: True\nuse_legacy: False\nauto_trans_ckpt: True\nrun_mode: finetune\n\
         load_checkpoint: '{}'\noutput_dir: '{}'\npretrained_model_dir: '{model}'\n\
         parallel_config: {{data_parallel: 2, model_parallel: 2, use_seq_parallel: True}}\n",
        at("f/full"),
        at("out")
    );
    std::fs::write(at("train.yaml"), yaml).unwrap();
    run(
        1,
        "split --src @f/full --dst-strategy dp=2,tp=2 --model @model --dst @s",
    );
    run(4, "split --src @f/full --dst-strategy @train.yaml --dst @y");
    run(4, "load --config @train.yaml --dst @l");
    for (path, bytes) in tree(Path::new(&at("s"))) {
        for other in ["y", "l"].map(|other| Path::new(&at(other)).join(&path)) {
            let manifest = path.ends_with("shardloom.json");
            assert!(
                manifest || std::fs::read(&other).unwrap() == bytes,
                "{}",
                other.display()
            );
        }
    }
    // `to` finds out what is there, and does the same.
    run(4, "to @train.yaml --src @model --dst @to/y");
    run(
        1,
        "strategy derive --parallel dp=2,tp=2 --model @model --output @run/strategy",
    );
    run(
        1,
        "split --src @f/full --dst-strategy @run/strategy --dst @run/checkpoint",
    );
    run(1, "to dp=2,tp=2,pp=2 --src @run --dst @to/t --model @model");
    for (made, wanted) in [("to/y", "s"), ("to/t", "t/ranks")] {
        let (made, wanted) = (
            Path::new(&at(made)).to_path_buf(),
            tree(Path::new(&at(wanted))),
        );
        let weights = wanted
            .iter()
            .filter(|(path, _)| !path.ends_with("shardloom.json"));
        for (path, bytes) in weights {
            // Files of ranks are called as the command that writes them does.
            let directory = made.join(path.parent().unwrap());
            let file = std::fs::read_dir(directory)
                .unwrap()
                .next()
                .unwrap()
                .unwrap();
            assert!(
                std::fs::read(file.path()).unwrap() == *bytes,
                "{}",
                file.path().display()
            );
        }
    }
    // Its manifest would tell the layout.
    std::fs::remove_file(at("s/shardloom.json")).unwrap();
    let guessed = [
        "to",
        "hf",
        "--src",
        &at("s"),
        "--dst",
        &at("to/hf"),
        "--model",
        &model,
    ];
    refuses(&alone(&guessed), "by their shapes they are dp=2,tp=2");
    let line = "to hf --src @s --dst @to/hf --model @model --yes --json";
    let told = object(&run(4, line));
    support::schema::fits("to", &told);
    assert_eq!(
        (&told["command"], &told["recognised"]["kind"]),
        (&"to".into(), &"ranks".into())
    );
    assert_eq!(told["recognised"]["strategy"], "dp=2,tp=2");
    run(1, "diff @to/hf @model");
    // What a layout stands for is shown where a strategy's file would be.
    let shown = object(&run(1, "inspect dp=2,tp=2 --model @model --json"));
    let due = object(&run(1, "strategy show dp=2,tp=2 --model @model --json"));
    assert!(!due["parameters"].is_null() && shown["parameters"] == due["parameters"]);
    // What a change costs is told before anything is there.
    let line = "simulate --from dp=2,tp=2 --to dp=4,tp=1 --model @model --json";
    let simulated = object(&run(1, line));
    assert_eq!(
        (&simulated["processes"], &simulated["tensors"]),
        (&4.into(), &19.into())
    );
    // The optimizer's states are two numbers in float32 a weight.
    let stateful = object(&run(1, &format!("{line} --states")));
    let written = |simulated: &serde_json::Value| simulated["bytes"]["written"].as_u64().unwrap();
    assert_eq!(stateful["tensors"], 19 * 3);
    assert_eq!(written(&stateful), written(&simulated) * 5);
    let table = object(&run(1, "simulate --devices 4 --model @model --json"));
    let larger = object(&run(
        1,
        "simulate --devices 4 --model @model --states --json",
    ));
    let rows = table["layouts"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["parallel"] == "dp=2,tp=2")
        .unwrap();
    let large = larger["layouts"].as_array().unwrap().iter();
    let large = large.map(|row| row["largest_file_bytes"].as_u64().unwrap());
    let small = rows
        .iter()
        .map(|row| row["largest_file_bytes"].as_u64().unwrap() * 5);
    assert!(large.eq(small), "{larger:#}");
    // Two bytes an element, as the model's config.json says.
    let shards = tensors::read(&Path::new(&at("s")).join("rank_0/net.safetensors")).unwrap();
    let bytes: usize = shards
        .tensors
        .values()
        .map(|tensor| tensor.data.len())
        .sum();
    assert_eq!(row["largest_file_bytes"], bytes);
    // Sizes that are none are wrong usage; without a model nothing can be derived; files have no use for one.
    for (line, culprit) in [
        (
            "unify --src @f/ranks --src-strategy dp=2,xp=2 --dst @u",
            "'xp' is unknown",
        ),
        (
            "unify --src @f/ranks --src-strategy dp=2,tp=2,pp=2 --dst @u",
            "--model DIR",
        ),
        (
            "strategy derive --dp 2 --parallel tp=2 --model @model --output @u",
            "cannot be used with",
        ),
        (
            "strategy derive --dp 0 --model @model --output @u",
            "'dp=0': dp is '0'",
        ),
        (
            "unify --src @f/ranks --src-strategy @a --dst @u --model @model",
            "--model is for",
        ),
    ] {
        let words = line.replace("@model", &model).replace('@', &at(""));
        let words: Vec<&str> = words.split(' ').collect();
        let run = alone(&words);
        assert!(
            !run.status.success() && run.stderr.contains(culprit),
            "{run:#?}"
        );
        assert!(!room.path().join("u").exists());
    }
}

/// The YAML file of a network with query, key and value in one, from weights of every kind.
#[test]
fn what_is_wanted_says_names_and_fusing_too() {
    let room = tempfile::tempdir().unwrap();
    let at = |name: &str| room.path().join(name).display().to_string();
    let yaml = "use_legacy: True\nparallel_config: {data_parallel: 2, model_parallel: 2}\n\
                model: {arch: {type: LlamaForCausalLM}, model_config: {qkv_concat: True}}\n";
    std::fs::write(at("train.yaml"), yaml).unwrap();
    let run = |processes: u32, line: &str| {
        let words = words(line, room.path(), "llama", &[]);
        runs(processes, &words);
    };
    let same = |a: &str, b: &str| {
        let (ours, due) = (tree(&room.path().join(a)), tree(&room.path().join(b)));
        let tensors = |files: &BTreeMap<PathBuf, Vec<u8>>,
                       root: &str|
         -> BTreeMap<PathBuf, Tensors> {
            let weights = files
                .keys()
                .filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
            let read = |path: &PathBuf| tensors::read(&room.path().join(root).join(path)).unwrap();
            weights
                .map(|path| (path.parent().unwrap().to_path_buf(), read(path).tensors))
                .collect()
        };
        assert!(tensors(&ours, a) == tensors(&due, b), "{a} is not {b}");
    };
    let joined = "--names legacy --qkv interleaved --ffn interleaved";
    run(
        1,
        &format!("import --hf % --dst @due --dst-strategy @train.yaml --model % {joined}"),
    );
    run(4, "to @train.yaml --src % --dst @imported");
    same("imported", "due");
    run(
        1,
        "import --hf % --dst @old --dst-strategy dp=2,tp=2 --names legacy",
    );
    run(
        4,
        "to @train.yaml --src @old --src-strategy dp=2,tp=2 --dst @made --model %",
    );
    same("made", "due");
    run(1, "import --hf % --dst @full --names mcore");
    run(1, "to @train.yaml --src @full --dst @split --model %");
    same("split", "due");
    // A checkpoint that tells its own layout.
    let line = "reshard --src @old --src-strategy dp=2,tp=2 --dst @own --dst-strategy dp=1,tp=4 --model % --format checkpoint2";
    run(1, &line.replace("tp=4", "tp=2"));
    run(2, "to @train.yaml --src @own --dst @again --model %");
    same("again", "due");
    // What depends on more than the file says is asked for.
    std::fs::write(
        at("train.yaml"),
        yaml.replace("True\nparallel", "False\nparallel").replace(
            "qkv_concat",
            "model_type: qwen3, use_contiguous_weight_layout_attention",
        ),
    )
    .unwrap();
    let refused = alone(&words(
        "to @train.yaml --src % --dst @x",
        room.path(),
        "qwen3",
        &[],
    ));
    refuses(&refused, "use_contiguous_weight_layout_attention");
}

#[test]
fn a_table_is_printed_and_held_against_a_model() {
    let room = tempfile::tempdir().unwrap();
    let table = room.path().join("mine.json");
    let (model, path) = (recorded("qwen3").join("hf"), table.display().to_string());
    let model = model.display().to_string();
    let listed = object(&alone(&["families", "--json"]).succeeds());
    let families = listed["families"].as_array().unwrap();
    assert!(
        families
            .iter()
            .any(|family| family["model_types"][0] == "qwen3"),
        "{listed}"
    );
    let printed = alone(&["families", "--print", "qwen3"]).succeeds();
    std::fs::write(&table, &printed.stdout).unwrap();
    let check = ["families", "--check", &path, "--model", &model, "--json"];
    assert_eq!(object(&alone(&check).succeeds())["fits"], true);
    // Without a rule, and with a name that isn't there.
    let mut mine: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    let text = mine["tensors"].to_string();
    assert!(text.contains(".input_layernorm.weight"));
    mine["tensors"] = serde_json::from_str(&text.replace(
        ".input_layernorm.weight [hidden]",
        ".first_norm.weight [hidden]",
    ))
    .unwrap();
    std::fs::write(&table, mine.to_string()).unwrap();
    let run = alone(&check);
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let told = object(&run);
    assert_eq!(told["missing"][0], "model.layers.0.first_norm.weight");
    assert_eq!(told["unknown"][0], "model.layers.0.input_layernorm.weight");
    // Of two tensors with one name one would be lost.
    let twice = text.replace(".post_attention_layernorm.", ".input_layernorm.");
    mine["tensors"] = serde_json::from_str(&twice).unwrap();
    std::fs::write(&table, mine.to_string()).unwrap();
    refuses(&alone(&check), "two tensors of the table get this name");
    let formats = object(&alone(&["formats", "--json"]).succeeds());
    assert_eq!(formats["formats"][0]["name"], "safetensors");
    assert!(formats["recognised"].as_array().unwrap().len() > 10);
}

/// A checkpoint of a training in one form of names and fusing: weights, moments that are made as these
/// are, and what isn't of the model.
fn trained(room: &Path, family: &str, case: &str) -> Tensors {
    let mut whole = expected(family, case);
    let flags = &cases(family)[case];
    for (seed, state) in [(3, "adam_m"), (11, "adam_v"), (5, "main_param")] {
        let mut moments = hf_of(family);
        for (number, tensor) in moments.values_mut().enumerate() {
            *tensor = Tensor::counting("F32", &tensor.shape, seed * number + seed);
        }
        let hf = room.join(state);
        tensors::write(&hf.join("model.safetensors"), &moments);
        std::fs::copy(
            recorded(family).join("hf/config.json"),
            hf.join("config.json"),
        )
        .unwrap();
        let line = format!("import --hf @{state} --dst @{state}-{case}");
        runs(1, &words(&line, room, family, flags));
        let made = full(&room.join(format!("{state}-{case}"))).0.into_iter();
        whole.extend(made.map(|(name, tensor)| (format!("{state}.{name}"), tensor)));
    }
    whole.insert("global_step".into(), Tensor::counting("I32", &[1], 7));
    whole
}

#[test]
fn training_goes_on_under_other_names() {
    for (family, one, other, source) in [
        ("llama", "legacy", "mcore_tp4", ""),
        (
            "qwen3_moe",
            "mcore",
            "mcore_separate",
            "--src-qkv interleaved --src-ffn interleaved",
        ),
    ] {
        let room = tempfile::tempdir().unwrap();
        let room = room.path();
        let run = |processes: u32, line: &str| {
            runs(processes, &words(line, room, family, &[]));
        };
        let forms = [one, other].map(|case| {
            let whole = trained(room, family, case);
            let flags = &cases(family)[case];
            let tp = if flags.contains(&"--tp".to_owned()) {
                4
            } else {
                2
            };
            let mut cut = strategy(&whole, flags, tp, 1);
            cut.items.retain(|(_, name, _)| name != "global_step");
            tensors::write_bytes(&room.join(format!("{case}.ckpt")), &protobuf(&cut, 1));
            (case, whole, cut)
        });
        let [(_, old, cut), (_, new, _)] = &forms;
        for rank in 0..2 {
            let mut own = cut.cut(old, rank).unwrap();
            own.insert("global_step".into(), old["global_step"].clone());
            let path = room.join(format!("old/rank_{rank}/net{rank}.safetensors"));
            tensors::write(&path, &own);
        }
        let [there, back] = [other, one].map(|case| cases(family)[case].join(" "));
        let line = format!("reshard --model % --src @old --src-strategy @{one}.ckpt {source}");
        let line = format!("{line} --dst-strategy @{other}.ckpt {there}");
        run(4, &format!("{line} --dst @new --exchange collective"));
        run(1, &format!("{line} --dst @alone"));
        let line = format!("reshard --model % --src @new --src-strategy @{other}.ckpt {back}");
        run(2, &format!("{line} --dst @back --dst-strategy @{one}.ckpt"));
        for (directory, (case, whole, cut)) in [
            ("new", &forms[1]),
            ("alone", &forms[1]),
            ("back", &forms[0]),
        ] {
            for rank in 0..cut.ranks() {
                let path = room.join(format!("{directory}/rank_{rank}/net{rank}.safetensors"));
                let found = tensors::read(&path).unwrap();
                let mut due = cut.cut(whole, rank).unwrap();
                due.insert("global_step".into(), old["global_step"].clone());
                tensors::compare(&due, &found.tensors)
                    .unwrap_or_else(|e| panic!("{family} {directory} {rank}: {e}"));
                let names = found.metadata["shardloom.names"].clone();
                assert!(cases(family)[*case].contains(&names), "{names}");
            }
        }
        assert!(new.len() > 4 * expected(family, other).len());
        // Names that are there already ask for nothing; other fusing asks how it is.
        let line = format!("reshard --model % --src @old --src-strategy @{one}.ckpt");
        let line = format!("{line} --dst-strategy @{one}.ckpt");
        let names = if one == "legacy" { "legacy" } else { "mcore" };
        run(1, &format!("{line} --dst @kept --names {names}"));
        let kept = tensors::read(&room.join("kept/rank_1/net1.safetensors")).unwrap();
        let mut due = cut.cut(old, 1).unwrap();
        due.insert("global_step".into(), old["global_step"].clone());
        tensors::compare(&due, &kept.tensors).unwrap();
        if one == "mcore" {
            // A layout that is typed knows masters, where there are some.
            let line = "unify --src @old --src-strategy @mcore.ckpt --dst @whole";
            run(1, line);
            run(
                2,
                "split --model % --src @whole --dst @typed --dst-strategy dp=1,tp=2",
            );
            let typed = room.join("typed/rank_0");
            let file = fixtures::listing(&typed).into_iter().next().unwrap();
            let typed = tensors::read(&typed.join(file)).unwrap();
            let shape = |name: &str| typed.tensors[name].shape.clone();
            let weights = typed
                .tensors
                .keys()
                .filter(|name| name.starts_with("decoder."));
            for name in weights {
                assert_eq!(shape(&format!("main_param.{name}")), shape(name), "{name}");
            }
        }
        if one == "mcore" {
            let line = format!("{line} --dst @wrong --qkv separate");
            let refused = alone(&words(&line, room, family, &[]));
            refuses(&refused, "don't say how");
            assert!(refused.stderr.contains("--src-qkv"), "{refused:?}");
        }
        let lost = old
            .keys()
            .find(|name| name.starts_with("adam_v.") && name.contains("0.feed_forward.w1"));
        assert!(lost.is_some() || family != "llama");
        if let Some(lost) = lost {
            // A strategy that doesn't have the new names is told so by these.
            let line = format!("reshard --model % --src @old --src-strategy @{one}.ckpt {source}");
            let line = format!("{line} --dst-strategy @{one}.ckpt --dst @wrong {there}");
            let refused = alone(&words(&line, room, family, &[]));
            refuses(&refused, "the destination strategy doesn't know it");
            let named = new.keys().filter(|name| !old.contains_key(*name));
            assert!(
                named
                    .clone()
                    .any(|name| error_line(&refused).contains(name.as_str()))
            );
            let mut whole = old.clone();
            whole.remove(lost);
            tensors::write(&room.join("lost/model.safetensors"), &whole);
            let line = format!("reshard --model % --src @lost --dst @wrong {there}");
            refuses(&alone(&words(&line, room, family, &[])), lost);
        }
    }
}

/// DeepSeek-V3 as networks of dynamic graphs have it: latent projections in one, experts in three dimensions;
/// by a flag, by the trainer's configuration, back, and out of the other form with its training's state.
#[test]
fn deepseek_v3_of_dynamic_graphs_goes_in_and_out() {
    let (family, room) = ("deepseek_v3", tempfile::tempdir().unwrap());
    let at = |name: &str| room.path().join(name);
    let run = |processes: u32, line: &str| runs(processes, &words(line, room.path(), family, &[]));
    let (hf, mut due) = (hf_of(family), expected(family, "mcore"));
    let named = |name: &str, to: &str| {
        let layer = name.rsplit_once(".self_attention.").unwrap().0;
        format!("{layer}.self_attention.{to}.weight")
    };
    for (name, mut tensor) in std::mem::take(&mut due) {
        let name = if name.ends_with("linear_q_down_proj.weight") {
            let kv = expected(family, "mcore").remove(&named(&name, "linear_kv_down_proj"));
            let kv = kv.unwrap();
            tensor.shape[0] += kv.shape[0];
            tensor.data.extend(kv.data);
            named(&name, "linear_qkv")
        } else if name.ends_with("linear_kv_down_proj.weight") {
            continue;
        } else {
            name.replace("linear_q_up_proj", "linear_qb")
                .replace("linear_kv_up_proj", "linear_kvb")
                .replace("kv_layernorm", "k_layernorm")
        };
        due.insert(name, tensor);
    }
    run(2, "import --hf % --dst @joined --names mcore --mla joined");
    let (found, metadata) = full(&at("joined"));
    tensors::compare(&due, &found).unwrap();
    assert_eq!(metadata["shardloom.mla"], "joined");
    let experts = 4;
    for (name, tensor) in &mut due {
        if name.contains("mlp.experts.weight") {
            let rows = tensor.shape[0] / experts;
            tensor.shape = vec![experts, rows, tensor.shape[1]];
        }
    }
    let due: Tensors = due
        .into_iter()
        .map(|(name, tensor)| (name.replace("router.expert_bias", "expert_bias"), tensor))
        .collect();
    let three = "--names mcore --mla joined --experts stacked-3d";
    run(1, &format!("import --hf % --dst @three {three}"));
    tensors::compare(&due, &full(&at("three")).0).unwrap();
    let strategy = strategy(&due, &[], 2, 1);
    tensors::write_bytes(&at("two.ckpt"), &protobuf(&strategy, 1));
    run(
        4,
        &format!("import --hf % --dst @two --dst-strategy @two.ckpt {three}"),
    );
    check_ranks(&at("two"), &strategy, &due);
    // Out again, also where no file says how it was made.
    for rank in 0..2 {
        let path = at(&format!("two/rank_{rank}/net.safetensors"));
        let contents = tensors::read(&path).unwrap();
        tensors::write(&path, &contents.tensors);
    }
    std::fs::remove_file(at("two/shardloom.json")).unwrap();
    let form = "--qkv interleaved --ffn interleaved";
    run(
        2,
        &format!("export --src @two --src-strategy @two.ckpt --hf-config % --dst @back {form}"),
    );
    tensors::compare(&hf, &full(&at("back")).0).unwrap();
    // Another form of what is there, with the optimizer's state.
    run(1, "import --hf % --dst @usual --names mcore");
    let path = at("usual/model-00001-of-00001.safetensors");
    let (mut usual, _) = full(&at("usual"));
    let mut due = due;
    for all in [&mut usual, &mut due] {
        let moments = all
            .iter()
            .filter(|(name, _)| name.contains("self_attention"));
        let moments = moments.map(|(name, tensor)| (format!("adam_m.{name}"), tensor.clone()));
        all.extend(moments.collect::<Vec<_>>());
    }
    std::fs::remove_dir_all(at("usual")).unwrap();
    std::fs::create_dir(at("usual")).unwrap();
    tensors::write(&path, &usual);
    let src = "--src-qkv interleaved --src-ffn interleaved";
    run(
        2,
        &format!(
            "reshard --src @usual --dst @other --dst-strategy @two.ckpt --model % {src} {three} --unmatched copy"
        ),
    );
    let found = tensors::read(&at("other/rank_0/net0.safetensors")).unwrap();
    assert_eq!(found.tensors.len(), due.len());
    let moment = "adam_m.decoder.layers.1.self_attention.linear_qkv.weight";
    assert_eq!(found.tensors[moment], due[moment]);
    // Others have nothing of the kind.
    let line = words(
        "import --hf % --dst @none --mla joined",
        room.path(),
        "qwen3",
        &[],
    );
    let refused = alone(&line);
    assert!(
        refused.stderr.contains("--mla joined: family qwen3"),
        "{refused:#?}"
    );
}

/// How the rows of files lie is in what they say of themselves; a flag that says otherwise is refused.
#[test]
fn a_recorded_tensor_parallel_size_is_not_overridden() {
    let room = tempfile::tempdir().unwrap();
    let room = room.path();
    let flags = &cases("llama")["mcore_tp4"];
    runs(1, &words("import --hf % --dst @full", room, "llama", flags));
    for line in [
        "export --src @full --hf-config % --dst @hf --tp 1",
        "to hf --src @full --model % --dst @hf --tp 2",
    ] {
        let refused = alone(&words(line, room, "llama", &[]));
        refuses(&refused, "'shardloom.tp' says something else");
        assert!(!room.join("hf").exists());
    }
    let line = "export --src @full --hf-config % --dst @hf --tp 4";
    runs(1, &words(line, room, "llama", &[]));
}

/// A model may be of a family with shared experts and have none.
#[test]
fn a_model_without_shared_experts_goes_in_and_out() {
    for number in [serde_json::Value::Null, 0.into()] {
        let room = room_with("deepseek_v3", |hf| {
            hf.retain(|name, _| !name.contains("shared_experts"));
        });
        let path = room.path().join("hf/config.json");
        let text = std::fs::read(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&text).unwrap();
        config["n_shared_experts"] = number;
        std::fs::write(&path, config.to_string()).unwrap();
        let on =
            |processes: u32, line: &str| command::on(processes, &words(line, room.path(), "", &[]));
        on(2, "import --hf @hf --dst @ms --dst-strategy dp=1,tp=2").succeeds();
        on(1, "export --src @ms --hf-config @hf --dst @back").succeeds();
        on(1, "diff @hf @back").succeeds();
        // What config.json says is none isn't left out unasked.
        let whole = hf_of("deepseek_v3");
        tensors::write(&room.path().join("hf/model.safetensors"), &whole);
        let refused = on(1, "import --hf @hf --dst @more");
        refuses(&refused, "shared_experts");
    }
}
