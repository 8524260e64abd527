//! Derived strategies against those that MindSpore 2.10 compiled of the same jobs (tests/data/derive).

use serde_json::Value;
use shardloom::fault::{Fault, Kind};
use shardloom::model::derive::{Derived, Held, Seen, configured, derive, recognise, usual};
use shardloom::strategy::{Form, Strategy, StrategyFile, json, protobuf, show};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Jobs that MindSpore refuses on Ascend for their number of ranks alone: derived, with a word about it.
const ODD_COUNTS: [&str; 2] = ["qwen3_dp6_refused", "qwen3_pp3_refused"];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/derive")
}

fn of_case(case: &Path) -> Result<Derived, Fault> {
    derive(&configured(&case.join("train.yaml"), None)?)
}

/// Mesh, map, optimizer shard and full shape of each layout, by name.
type Table = BTreeMap<String, Value>;

/// Mesh, map, optimizer shard, full shape, states, and the names that have them.
type Row = (Value, Value, Value, Value, Vec<String>, Vec<String>);

/// `a.{0,1}.b` is `a.0.b` and `a.1.b`.
fn spread(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else {
        return vec![name.to_owned()];
    };
    let (numbers, after) = rest.split_once('}').unwrap();
    let numbers = numbers.split(',');
    numbers
        .map(|number| format!("{before}{number}{after}"))
        .collect()
}

fn expected(case: &Path) -> Option<Vec<Table>> {
    let text = std::fs::read_to_string(case.join("expected.json")).ok()?;
    let stages: Vec<Vec<Row>> = serde_json::from_str(&text).unwrap();
    let tables = stages.into_iter().map(|rows| {
        let mut table = Table::new();
        for (mesh, map, shard, shape, states, names) in rows {
            for name in names.iter().flat_map(|name| spread(name)) {
                let row = serde_json::json!([mesh, map, shard, shape]);
                for state in &states {
                    table.insert(format!("{state}.{name}"), row.clone());
                }
                table.insert(name, row);
            }
        }
        table
    });
    Some(tables.collect())
}

/// What was derived, from the bytes of both forms: shapes are in the JSON one.
fn derived_tables(derived: &Derived) -> Vec<Table> {
    let pairs = derived.files(Form::Protobuf).unwrap().into_iter();
    let pairs = pairs.zip(derived.files(Form::Json).unwrap());
    let tables = (0u32..).zip(pairs).map(|(stage, (message, document))| {
        let message = protobuf::decode(&message).unwrap();
        let operator = &message.parallel_strategy_item[0];
        assert_eq!(operator.parallel_strategys.stage, stage);
        let document = json::decode(&document).unwrap();
        let shapes: BTreeMap<_, _> = document.parallel_layout_item.0.into_iter().collect();
        let mut table = Table::new();
        for item in message.parallel_layout_item {
            let layouts = item.parallel_layouts;
            let map: Value = match &layouts.tensor_map[..] {
                [plain] => serde_json::json!(plain.dim),
                several => several.iter().map(|map| map.dim.clone()).collect(),
            };
            // A dimension that several axes cut stands there once an axis.
            let flat = shapes[&item.param_name].tensor_shape.clone().unwrap();
            let mut flat = flat.into_iter();
            let axes = layouts.tensor_map.len().max(1);
            let shape: Vec<i64> = match axes {
                1 => flat.collect(),
                _ => layouts
                    .tensor_map
                    .iter()
                    .map(|map| flat.by_ref().take(map.dim.len()).product())
                    .collect(),
            };
            let shard = [layouts.opt_weight_shard_step, layouts.opt_weight_shard_size];
            let row = serde_json::json!([layouts.dev_matrix[0].dim, map, shard, shape]);
            assert!(table.insert(item.param_name, row).is_none());
        }
        table
    });
    tables.collect()
}

fn differences(found: &Table, expected: &Table) -> Vec<String> {
    let names = found.keys().chain(expected.keys());
    let names: std::collections::BTreeSet<_> = names.collect();
    let all = names
        .into_iter()
        .filter(|n| found.get(*n) != expected.get(*n));
    all.map(|name| {
        let show = |table: &Table| table.get(name).map_or("-".into(), Value::to_string);
        format!("  {name}: {} in place of {}", show(found), show(expected))
    })
    .collect()
}

// proves P156
#[test]
fn jobs_get_the_layouts_that_they_compile() {
    let (mut wrong, mut compared, mut cases) = (Vec::new(), 0, 0);
    for entry in std::fs::read_dir(data()).unwrap() {
        let case = entry.unwrap().path();
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        cases += 1;
        let derived = of_case(&case);
        let Some(expected) = expected(&case) else {
            match derived {
                Ok(derived) if ODD_COUNTS.contains(&&*name) => {
                    assert_eq!(derived.doubts.len(), 1, "{name}");
                }
                Ok(_) => wrong.push(format!("{name}: isn't refused")),
                Err(fault) => {
                    assert_eq!(fault.kind, Kind::Config, "{name}: {fault}");
                    assert!(fault.file.unwrap().ends_with("train.yaml") && fault.hint.is_some());
                }
            }
            continue;
        };
        let derived = match derived {
            Ok(derived) => derived,
            Err(fault) => {
                wrong.push(format!("{name}: {fault}"));
                continue;
            }
        };
        let found = derived_tables(&derived);
        assert_eq!(found.len(), expected.len(), "{name}");
        for (stage, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let differ = differences(found, expected);
            if !differ.is_empty() {
                let first = differ[..differ.len().min(12)].join("\n");
                wrong.push(format!(
                    "{name}, stage {stage}: {} differ\n{first}",
                    differ.len()
                ));
            }
            compared += expected.len();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        cases >= 70 && compared > 6_000,
        "{cases} cases, {compared} layouts"
    );
}

#[test]
fn both_forms_are_the_compilers_own() {
    for case in ["qwen3_pp2_dp2tp2", "llama_3dtp_tp8"].map(|case| data().join(case)) {
        let derived = of_case(&case).unwrap();
        let own = derived.ranks_per_stage();
        for (stage, bytes) in (0..).zip(derived.files(Form::Protobuf).unwrap()) {
            let file = case.join(format!("strategy/ckpt_strategy_rank_{}.ckpt", stage * own));
            let sorted = |bytes: &[u8]| {
                let mut message = protobuf::decode(bytes).unwrap();
                message
                    .parallel_layout_item
                    .sort_by(|a, b| a.param_name.cmp(&b.param_name));
                (message.current_stage, message.parallel_layout_item)
            };
            assert_eq!(sorted(&bytes), sorted(&std::fs::read(file).unwrap()));
        }
        for (stage, bytes) in (0..).zip(derived.files(Form::Json).unwrap()) {
            let file = case.join(format!("json/ckpt_strategy_rank_{}.json", stage * own));
            let parsed = |bytes: &[u8]| json::decode(bytes).unwrap().parallel_layout_item;
            assert_eq!(parsed(&bytes), parsed(&std::fs::read(file).unwrap()));
        }
    }
}

/// Cases with a key changed: what is wrong is named, and what would fit.
#[test]
fn keys_that_do_not_fit_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let mut failed = Vec::new();
    for (case, from, to, message, hint) in [
        (
            "qwen3_pp2_dp2tp2",
            "offset: [1, 0]",
            "offset: 0",
            "doesn't divide the 5 layers, and offset is 0",
            "offset: [1, 0] fits",
        ),
        (
            "qwen3_pp2_dp2tp2",
            "pipeline_stage: 2",
            "pipeline_stage: 8",
            "8 is more than the 5 layers",
            "at most 5",
        ),
        (
            "qwen3_pp2_dp2tp2",
            "offset: [1, 0]",
            "offset: [1, 0, 0]",
            "3 numbers, pipeline_stage is 2",
            "give 2",
        ),
        (
            "qwen3_dp2tp2",
            "model_parallel: 2",
            "model_parallel: 3",
            "num_attention_heads 8 can't be cut",
            "one of 1, 2, 4",
        ),
        (
            "qwen3_dp2tp2",
            "data_parallel: 2",
            "data_parallel: 0",
            "data_parallel is 0",
            "from 1",
        ),
        (
            "qwen3_dp2tp2",
            "intermediate_size: 320",
            "intermediate_size: 321",
            "intermediate_size",
            "",
        ),
        (
            "qwen3_dp2tp2",
            "    num_hidden_layers: 2\n",
            "    num_layers: 3\n    num_hidden_layers: 2\n",
            "mean the same",
            "leave one",
        ),
        (
            "qwen3_dp2tp2",
            "    hidden_size: 64\n",
            "",
            "hidden_size",
            "model.model_config",
        ),
        (
            "qwen3_dp2tp2",
            "qwen3\n    vocab",
            "qwen9\n    vocab",
            "'qwen9'",
            "qwen3_moe",
        ),
        (
            "qwen3_dp2tp2",
            "use_legacy: false",
            "use_legacy: true",
            "legacy names",
            "use_legacy: False",
        ),
        (
            "qwen3_dp2tp2",
            "parallel_mode: 1",
            "parallel_mode: 2",
            "parallel_mode is 2",
            "",
        ),
        (
            "qwen3_dp2tp2",
            "use_parallel: true",
            "use_parallel: false",
            "use_parallel is False",
            "",
        ),
        (
            "qwen3_dp2tp2",
            "type: AdamW",
            "type: AdamV",
            "'AdamV'",
            "did you mean Adam",
        ),
        (
            "llama_dp2tp2",
            "qkv_has_bias: false",
            "pet_config: {pet_type: lora}",
            "pet_config",
            "",
        ),
        (
            "llama_dp2tp2",
            "arch: {type: Llama",
            "arch: {type: Other",
            "OtherForCausalLM",
            "LlamaForCausalLM",
        ),
        (
            "ds3_dp2tp2_ep2",
            "expert_parallel: 2",
            "expert_parallel: 3",
            "expert_parallel 3 doesn't divide",
            "1, 2, 4",
        ),
        (
            "ds3_dp2tp2_ep2",
            "moe_grouped_gemm: true, ",
            "",
            "moe_grouped_gemm is not given",
            "",
        ),
        (
            "qwen3_dp2tp2",
            "data_parallel: 2",
            "data_parallel: two",
            "parallel_config.data_parallel is \"two\"",
            "a whole number",
        ),
        (
            "ds3_dp2tp2_ep2",
            "moe_grouped_gemm: true",
            "moe_grouped_gemm: false",
            "moe_grouped_gemm is false",
            "",
        ),
        (
            "qwen3_zbv_pp2_dp2tp2",
            "pp_interleave_num: 2",
            "pp_interleave_num: 1",
            "zero_bubble_v",
            "",
        ),
    ] {
        let text = std::fs::read_to_string(data().join(case).join("train.yaml")).unwrap();
        assert!(text.contains(from), "{case}: {from}");
        let yaml = scratch.path().join("train.yaml");
        std::fs::write(&yaml, text.replacen(from, to, 1)).unwrap();
        let model = data().join(case).join("config.json");
        let own = text.contains("architectures") || case.starts_with("llama");
        let model = (!own).then_some(&*model);
        match configured(&yaml, model).and_then(|job| derive(&job)) {
            Ok(_) => failed.push(format!("{case}: {to}: isn't refused")),
            Err(fault) => {
                let told = fault.hint.clone().unwrap_or_default();
                let fits = fault.message.contains(message) && told.contains(hint);
                if !fits || fault.kind != Kind::Config {
                    failed.push(format!("{case}: {to}: {:?} {fault} ({told})", fault.kind));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Layers have experts where the model's configuration says so, in a typed layout; the trainer's network has them in
/// every layer, and that is told.
#[test]
fn layers_without_experts_are_those_of_the_model() {
    let scratch = tempfile::tempdir().unwrap();
    let model = scratch.path().join("config.json");
    let config = serde_json::json!({
        "model_type": "qwen2_moe", "hidden_size": 16, "intermediate_size": 32, "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_experts": 4, "vocab_size": 32, "decoder_sparse_step": 2, "mlp_only_layers": [3],
    });
    std::fs::write(&model, config.to_string()).unwrap();
    let job = usual("dp=2,tp=2,ep=2", &Seen::default(), &model).unwrap();
    let derived = derive(&job).unwrap();
    let held = derived.held(0);
    for layer in 0..4 {
        let has = |rest: &str| held.contains_key(&format!("decoder.layers.{layer}.mlp.{rest}"));
        assert_eq!(has("experts.weight1"), layer == 1, "{layer}");
        assert_eq!(has("linear_fc1.weight"), layer != 1, "{layer}");
    }
    assert!(derived.doubts.is_empty(), "{:?}", derived.doubts);
    let trained = of_case(&data().join("qwen3moe_mlponly_dp2tp2_ep2")).unwrap();
    let [doubt] = &trained.doubts[..] else {
        panic!("{:?}", trained.doubts);
    };
    assert!(
        doubt.contains("mlp_only_layers") && doubt.contains("layer 0"),
        "{doubt}"
    );
}

/// What a trainer's configuration can be for is not what layouts alone are known of.
#[test]
fn a_network_that_no_table_is_for_is_told_with_those_that_are_trained() {
    let case = data().join("qwen3_dp2tp2");
    let scratch = tempfile::tempdir().unwrap();
    let model = scratch.path().join("config.json");
    std::fs::write(&model, r#"{"model_type": "gpt2"}"#).unwrap();
    let text = std::fs::read_to_string(case.join("train.yaml")).unwrap();
    let yaml = scratch.path().join("train.yaml");
    let kept = text.lines().filter(|line| {
        let own = ["model_type", "architectures"];
        !own.iter().any(|key| line.trim_start().starts_with(key))
    });
    std::fs::write(&yaml, kept.collect::<Vec<_>>().join("\n")).unwrap();
    let configured = configured(&yaml, Some(&model)).unwrap_err();
    let usual = usual("dp=2", &Seen::default(), &model).unwrap_err();
    for (fault, layouts) in [(configured, false), (usual, true)] {
        assert!(fault.message.contains("gpt2"), "{fault}");
        let hint = fault.hint.unwrap();
        assert!(hint.contains("qwen3_moe"), "{hint}");
        assert_eq!(hint.contains("mixtral"), layouts, "{hint}");
    }
}

/// A case's files with words replaced, in a directory of their own.
fn rewritten(case: &Path, words: &[(&str, &str)]) -> tempfile::TempDir {
    let room = tempfile::tempdir().unwrap();
    for file in ["train.yaml", "config.json"] {
        let Ok(mut text) = std::fs::read_to_string(case.join(file)) else {
            continue;
        };
        for (old, new) in words {
            text = text.replace(old, new);
        }
        std::fs::write(room.path().join(file), text).unwrap();
    }
    room
}

/// TeleChat3's network with experts is DeepSeek-V3's, but that it takes two sizes of its own.
#[test]
fn telechat3_with_experts_is_cut_as_deepseek_v3() {
    let own = [
        ("DeepseekV3ForCausalLM", "TeleChat3MoeForCausalLM"),
        ("deepseek_v3", "telechat3_moe"),
    ];
    let sizes = [
        ("qk_nope_head_dim\": 16", "qk_nope_head_dim\": 128"),
        ("qk_nope_head_dim: 16", "qk_nope_head_dim: 128"),
        ("qk_rope_head_dim\": 16", "qk_rope_head_dim\": 64"),
        ("qk_rope_head_dim: 16", "qk_rope_head_dim: 64"),
    ];
    let cases = std::fs::read_dir(data()).unwrap();
    let cases = cases.map(|entry| entry.unwrap().path());
    let named = |case: &PathBuf| case.file_name().unwrap().to_string_lossy().into_owned();
    let cases = cases.filter(|case| named(case).starts_with("ds3_") && expected(case).is_some());
    let mut compared = 0;
    for case in cases {
        let tables = |words: &[(&str, &str)]| {
            let room = rewritten(&case, words);
            let derived = of_case(room.path()).unwrap_or_else(|f| panic!("{case:?}: {f}"));
            derived_tables(&derived)
        };
        assert_eq!(
            tables(&[own.to_vec(), sizes.to_vec()].concat()),
            tables(&sizes),
            "{case:?}"
        );
        compared += 1;
        let fault = of_case(rewritten(&case, &own).path()).unwrap_err();
        assert!(
            fault.message.contains("qk_nope_head_dim is 16") && fault.message.contains("128"),
            "{fault}"
        );
    }
    assert!(compared > 10, "{compared}");
}

/// Why a family's layouts aren't derived is said, whatever asks for them.
#[test]
fn families_whose_layouts_are_not_derived_say_why() {
    for (kind, why) in [
        ("deepseek_v4", "dynamic graph"),
        ("deepseek_v32", "indexer"),
    ] {
        let own = [("deepseek_v3", kind)];
        let room = rewritten(&data().join("ds3_dp2tp2_ep2"), &own);
        let typed = usual("dp=2", &Seen::default(), room.path()).unwrap_err();
        for fault in [of_case(room.path()).unwrap_err(), typed] {
            let message = &fault.message;
            assert!(message.contains(kind) && message.contains(why), "{fault}");
            assert!(fault.hint.unwrap().contains("shardloom strategy new"));
        }
    }
}

/// What is wrong with a typed layout is said in its words, and every size that is proposed does.
#[test]
fn a_typed_layout_is_refused_in_its_own_words() {
    let scratch = tempfile::tempdir().unwrap();
    let model = scratch.path().join("config.json");
    let config = serde_json::json!({
        "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 36, "num_hidden_layers": 2,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 4, "vocab_size": 120,
    });
    std::fs::write(&model, config.to_string()).unwrap();
    let fault = |sizes: &str| {
        let fault = usual(sizes, &Seen::default(), scratch.path())
            .and_then(|job| derive(&job))
            .unwrap_err();
        assert!(
            fault
                .file
                .as_deref()
                .is_some_and(|file| file.ends_with("config.json")),
            "{fault:?}"
        );
        (fault.message, fault.hint.unwrap())
    };
    for (sizes, message, hint) in [
        (
            "tp=8",
            "intermediate_size is 36 and can't be cut by tp in 8",
            "tp: one of 1, 2, 4",
        ),
        (
            "tp=16",
            "num_key_value_heads 8 can't be cut by tp 16",
            "tp: one of 1, 2, 4",
        ),
        ("pp=3", "pp 3 is more than the 2 layers", "at most 2 fit"),
        (
            "pp=2,offset=1:0:0",
            "[1, 0, 0] has 3 numbers, pp is 2",
            "give 2 numbers",
        ),
    ] {
        let (said, told) = fault(sizes);
        assert!(said.contains(message) && told == hint, "{said} ({told})");
    }
    for fits in [1, 2, 4] {
        let job = usual(&format!("tp={fits}"), &Seen::default(), &model).unwrap();
        derive(&job).unwrap();
    }
}

#[test]
fn sizes_alone_give_the_usual_job() {
    let case = data().join("ds3_dp2tp2_ep2");
    let job = usual("dp=2,tp=2,ep=2", &Seen::default(), &case).unwrap();
    let configured = of_case(&case).unwrap().strategy().unwrap();
    assert_eq!(derive(&job).unwrap().strategy().unwrap(), configured);
    for (case, sizes) in [
        (
            "qwen3_pp2_il2_dp2tp2",
            "dp=2,tp=2,pp=2,interleave=2,offset=1:0/0:1",
        ),
        ("qwen3_dp8_opt_th33", "dp=8,opt=-1,threshold=33"),
        ("llama_dp2tp2_vemb_false", "dp=2,tp=2,vocab_emb_dp=False"),
        (
            "ds3_pp2_mtp_tail0_dp2tp2",
            "dp=2,tp=2,pp=2,ep=2,offset=[2,-1]",
        ),
    ] {
        let case = data().join(case);
        let job = usual(sizes, &Seen::default(), &case).unwrap();
        let configured = of_case(&case).unwrap().strategy().unwrap();
        let made = derive(&job).unwrap().strategy().unwrap();
        let differences = show::diff(&made, &configured);
        assert!(differences.is_empty(), "{sizes}: {differences:?}");
    }
    let fault = usual("dp=2,xp=2", &Seen::default(), &case).unwrap_err();
    assert_eq!(fault.kind, Kind::Usage);
    // What an uneven division needs is said as it is typed.
    let uneven = data().join("ds3_pp2_mtp_tail0_dp2tp2");
    let job = usual("dp=2,tp=2,pp=2,ep=2", &Seen::default(), &uneven).unwrap();
    let fault = derive(&job).unwrap_err();
    assert!(fault.hint.unwrap().contains("offset=1:0"));
}

#[test]
fn empty_sections_and_base_files_are_read() {
    let scratch = tempfile::tempdir().unwrap();
    let case = data().join("ds3_dp2tp2_ep2");
    let text = std::fs::read_to_string(case.join("train.yaml")).unwrap();
    std::fs::write(scratch.path().join("base.yaml"), text).unwrap();
    let yaml = scratch.path().join("train.yaml");
    let above = "base_config: base.yaml\nparallel_config: {expert_parallel: 4}\nmoe_config:\nmodel: {arch: }\n";
    std::fs::write(&yaml, above).unwrap();
    let derived = derive(&configured(&yaml, Some(&case)).unwrap()).unwrap();
    let table = &derived_tables(&derived)[0];
    let experts = &table["decoder.layers.1.mlp.experts.weight1"];
    assert_eq!(experts[0], serde_json::json!([1, 4]));
    assert_eq!(derived.doubts, Vec::<String>::new());
}

#[test]
fn merged_files_read_as_the_strategy() {
    let derived = of_case(&data().join("qwen3_pp2_dp2tp2")).unwrap();
    let strategy = derived.strategy().unwrap();
    let bytes = Derived::merged(Form::Protobuf, &derived.files(Form::Protobuf).unwrap()).unwrap();
    let file = StrategyFile {
        name: "merged.ckpt",
        bytes: &bytes,
    };
    assert_eq!(Strategy::read(&[file]).unwrap(), strategy);
    assert_eq!((strategy.stages(), strategy.ranks()), (2, 8));
}

fn run(arguments: &[&str], scratch: &Path) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_shardloom"))
        .env("SHARDLOOM_CONFIG", "")
        .args(["--json", "strategy", "derive"])
        .args(arguments)
        .current_dir(scratch)
        .output()
        .unwrap();
    let told = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), told)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn every_rank_gets_a_file_and_nothing_else_is_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    let (case, out) = (
        data().join("qwen3_pp2_dp2tp2"),
        scratch.path().join("a/strategy"),
    );
    let yaml = case.join("train.yaml");
    let given = ["--config", yaml.to_str().unwrap(), "--output", "a/strategy"];
    let and = |more: &[&'static str]| -> Vec<&str> { [&given[..], more].concat() };

    let (code, told) = run(&and(&["--merged", "merged.ckpt"]), scratch.path());
    assert_eq!(
        (code, &told["ranks"], &told["stages"]),
        (Some(0), &8.into(), &2.into()),
        "{told}"
    );
    let ranks = (0..8).map(|rank| format!("ckpt_strategy_rank_{rank}.ckpt"));
    assert_eq!(names(&out), ranks.collect::<Vec<_>>());
    let bytes =
        |rank: u32| std::fs::read(out.join(format!("ckpt_strategy_rank_{rank}.ckpt"))).unwrap();
    assert!((0..8).all(|rank| bytes(rank) == bytes(rank / 4 * 4)) && bytes(0) != bytes(4));
    let merged = std::fs::read(scratch.path().join("merged.ckpt")).unwrap();
    let read = |name, bytes| Strategy::read(&[StrategyFile { name, bytes }]).unwrap();
    assert_eq!(
        read("merged.ckpt", &merged),
        of_case(&case).unwrap().strategy().unwrap()
    );

    let (code, told) = run(&given, scratch.path());
    assert_eq!(
        (code, &told["error"]["kind"]),
        (Some(1), &"exists".into()),
        "{told}"
    );
    let (code, told) = run(&and(&["--json-form", "--overwrite"]), scratch.path());
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(names(&out)[7], "ckpt_strategy_rank_7.json");
    assert_eq!(names(&out).len(), 8);
    std::fs::write(out.join("mine"), "").unwrap();
    assert_eq!(run(&and(&["--overwrite"]), scratch.path()).0, Some(1));
    assert_eq!(names(&out).len(), 9);
    let (code, _) = run(
        &and(&["--overwrite", "--json-form", "--merged", "m.ckpt"]),
        scratch.path(),
    );
    assert_eq!(code, Some(2));
    assert_eq!(names(scratch.path()), ["a", "merged.ckpt"]);
}

/// An old strategy on another mesh is what the job on that mesh compiles.
#[test]
fn another_mesh_is_cut_as_the_old_one() {
    use shardloom::strategy::derive::Mesh;
    use shardloom::strategy::like::like;
    let strategy = |case: &str| of_case(&data().join(case)).unwrap().strategy().unwrap();
    let on = |old: &str, mesh: &str| like(&strategy(old), &Mesh::parse(mesh).unwrap());
    for (old, mesh, new) in [
        ("qwen3_dp2tp2", "dp=1,cp=1,tp=4", "qwen3_tp4"),
        ("qwen3_dp4tp2_opt0", "dp=4,cp=1,tp=2", "qwen3_dp4tp2_opt0"),
        ("llama_pp2_dp2tp2", "dp=2,tp=2,pp=2", "llama_pp2_dp2tp2"),
        // Experts have a mesh of their own.
        ("ds3_dp2tp2", "dp=2,cp=1,tp=2,ep=2", "ds3_dp2tp2_ep2"),
        ("ds3_dp2tp2_ep2", "dp=2,tp=2,ep=1", "ds3_dp2tp2"),
        ("qwen3moe_dp2tp2_ep2", "dp=2,tp=2", "qwen3moe_dp2tp2_ep2"),
        (
            "ds3_dp4tp2_ep4_opt0",
            "dp=4,cp=1,tp=2,ep=4",
            "ds3_dp4tp2_ep4_opt0",
        ),
    ] {
        let (made, compiled) = (on(old, mesh).unwrap(), strategy(new));
        assert_eq!(
            (made.stages(), made.ranks()),
            (compiled.stages(), compiled.ranks())
        );
        for (name, held) in compiled.iter() {
            let found = made.layout_in(name, held.stage).unwrap();
            assert_eq!(found.layout.parts(), held.layout.parts(), "{new}: {name}");
            for rank in 0..held.layout.ranks() {
                assert_eq!(
                    found.layout.cell(rank),
                    held.layout.cell(rank),
                    "{new}: {name}"
                );
            }
        }
    }
    // Layers for further tokens stand behind the last one, whatever their number.
    let made = on("ds3_dp2tp2", "dp=1,cp=1,tp=2,pp=2").unwrap();
    let further: Vec<_> = made
        .iter()
        .filter(|(name, _)| name.starts_with("mtp."))
        .collect();
    assert!(!further.is_empty());
    assert!(
        further.iter().all(|(_, held)| held.stage == 1),
        "{further:?}"
    );
    // Axes are in the old mesh's order: names that say otherwise are refused.
    for (old, mesh) in [
        ("llama_dp2tp2", "tp=2,dp=2"),
        ("llama_tp4", "dp=4"),
        ("qwen3_tp4", "tp=1,cp=1,dp=4"),
    ] {
        let fault = on(old, mesh).unwrap_err();
        assert!(fault.message.contains("where the old mesh"), "{fault}");
    }
    // One axis alone doesn't say which of two it stands for.
    let fault = on("llama_dp2tp2", "tp=4").unwrap_err();
    assert!(
        fault.message.contains("the old mesh [2, 2] has 2"),
        "{fault}"
    );
    // Ranks that can't share the experts as they did.
    let fault = on("ds3_dp2tp2_ep2", "dp=3,cp=1,tp=1").unwrap_err();
    assert_eq!(fault.kind, Kind::Usage);
    assert!(
        fault.message.contains("ep=2 doesn't divide the 3 ranks"),
        "{fault}"
    );
}

#[test]
fn the_shapes_of_rank_files_tell_their_layout() {
    let of = |case: &str, kept: &[&str]| {
        let case = data().join(case);
        let derived = of_case(&case).unwrap();
        let mut ranks = BTreeMap::<u32, Held>::new();
        for rank in 0..derived.ranks() {
            let held = derived.held(rank / derived.ranks_per_stage());
            let saved = held.into_iter().filter(|(name, _)| {
                kept.is_empty() || kept.iter().any(|kept| name.starts_with(kept))
            });
            ranks.insert(rank, saved.collect());
        }
        let candidates = recognise(&ranks, &case.join("config.json")).unwrap();
        let all = candidates.len();
        if candidates.iter().all(|candidate| !candidate.fits) {
            panic!("{case:?}: {candidates:#?}");
        }
        let fitting = candidates.into_iter().filter(|candidate| candidate.fits);
        let apart = fitting.filter(|candidate| candidate.same_as.is_none());
        let apart: Vec<String> = apart.map(|candidate| candidate.parallel).collect();
        assert!(all > apart.len(), "{case:?}");
        apart
    };
    let weights = &["decoder.", "embedding.", "output_layer.", "mtp."][..];
    for (case, kept, layout) in [
        ("qwen3_dp2tp2", weights, "dp=2,tp=2"),
        ("qwen3_dp2tp2", &[], "dp=2,tp=2"),
        ("qwen3_tp4", weights, "dp=1,tp=4"),
        ("qwen3_dp4tp2_opt", &[], "dp=4,tp=2,opt=-1"),
        ("llama_dp2tp2", &[], "dp=2,tp=2"),
        ("ds3_dp2tp2_ep2", weights, "dp=2,tp=2,ep=2"),
        ("qwen3moe_dp2tp2_ep2", weights, "dp=2,tp=2,ep=2"),
        // What only the job's configuration says shows in the shapes, too.
        ("qwen3_dp4tp2_opt0", &[], "dp=4,tp=2,opt=-1,threshold=0"),
        (
            "llama_dp2tp2_vemb_false",
            &[],
            "dp=2,tp=2,vocab_emb_dp=false",
        ),
        (
            "qwen3_pp2_il2_dp2tp2",
            weights,
            "dp=2,tp=2,pp=2,interleave=2,offset=1:0/0:1",
        ),
        (
            "ds3_pp2_mtp_tail0_dp2tp2",
            weights,
            "dp=2,tp=2,pp=2,ep=2,offset=2:-1",
        ),
    ] {
        let apart = of(case, kept);
        assert!(apart.iter().any(|fits| fits == layout), "{case}: {apart:?}");
    }
}

/// Without a rank of its own the query is joined in full, uncut as the others: what the trainer's code says.
#[test]
fn joined_projections_need_no_rank_of_the_query() {
    let (case, room) = (
        data().join("ds3_noqlora_dp2tp2"),
        tempfile::tempdir().unwrap(),
    );
    let text = std::fs::read_to_string(case.join("train.yaml")).unwrap();
    let joined = text.replace("mla_qkv_concat: false", "mla_qkv_concat: true");
    assert_ne!(text, joined);
    std::fs::write(room.path().join("train.yaml"), joined).unwrap();
    std::fs::copy(case.join("config.json"), room.path().join("config.json")).unwrap();
    let tables = derived_tables(&of_case(room.path()).unwrap());
    let of = |name: &str| tables[0].get(&format!("decoder.layers.0.self_attention.{name}.weight"));
    let due = serde_json::json!([[2, 1, 2], [-1, -1], [0, 0], [304, 64]]);
    assert_eq!(of("linear_qkv"), Some(&due));
    assert!(of("linear_kvb").is_some() && of("linear_qb").is_none());
}
