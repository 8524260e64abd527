//! Megatron-Core's checkpoints made of MindSpore's, and back; what Megatron wrote brought to MindSpore; and its
//! older form.

use crate::support::tensors::{Tensor, Tensors, compare, read, write};
use crate::support::{Run, command, fixtures};
use command::{error_line, object};
use serde_json::json;
use std::path::{Path, PathBuf};

fn run(processes: u32, line: &str) -> Run {
    let args: Vec<&str> = line.split(' ').collect();
    command::on(processes, &args)
}

fn at(room: &Path, name: &str) -> String {
    room.join(name).display().to_string()
}

/// All tensors of the safetensors files in a directory.
fn full(directory: &Path) -> Tensors {
    let mut all = Tensors::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|ending| ending == "safetensors")
        {
            all.extend(read(&path).expect("it is read").tensors);
        }
    }
    all
}

fn model(name: &str) -> PathBuf {
    fixtures::data().join("model").join(name)
}

/// Full weights of a network under its mcore names, with moments and where its job stands.
fn trained(name: &str, room: &Path) -> Tensors {
    let mut all = read(&model(name).join("mcore.safetensors"))
        .expect("weights")
        .tensors;
    for (number, (name, weight)) in all.clone().into_iter().enumerate() {
        for (state, start) in [("adam_m", 3 * number), ("adam_v", 7 * number)] {
            let moment = Tensor::counting("F32", &weight.shape, start);
            all.insert(format!("{state}.{name}"), moment);
        }
    }
    let number = |dtype: &str, shape: &[usize], data: &[u8]| Tensor {
        dtype: dtype.to_owned(),
        shape: shape.to_vec(),
        data: data.to_vec(),
    };
    let counts = Tensors::from([
        (
            "step_num".to_owned(),
            number("I64", &[], &7i64.to_le_bytes()),
        ),
        (
            "global_step".to_owned(),
            number("I32", &[1], &7i32.to_le_bytes()),
        ),
        (
            "learning_rate".to_owned(),
            number("F32", &[], &0.25f32.to_le_bytes()),
        ),
    ]);
    let folder = room.join("full");
    std::fs::create_dir(&folder).expect("a directory");
    write(&folder.join("model.safetensors"), &all);
    write(&folder.join("hyper_param.safetensors"), &counts);
    all
}

/// The rows of gates, then those of ups, of which one follows the other in `weight`.
fn gates_first(weight: &Tensor) -> Vec<u8> {
    let row = weight.data.len() / weight.shape[0];
    let rows: Vec<&[u8]> = weight.data.chunks(row).collect();
    let every = |first: usize| {
        rows.iter()
            .skip(first)
            .step_by(2)
            .copied()
            .collect::<Vec<_>>()
            .concat()
    };
    [every(0), every(1)].concat()
}

#[test]
fn mindspore_to_megatron_and_back_is_bit_equal() {
    for (name, processes) in [("qwen3", 1), ("qwen3_moe", 4)] {
        let room = tempfile::tempdir().expect("a directory");
        let room = room.path();
        let all = trained(name, room);
        let strategy = match name {
            "qwen3" => {
                let hf = model(name).join("hf");
                format!("dp=1,tp=2 --names mcore --model {}", hf.display())
            }
            _ => {
                let rule = "--rule *.mlp.experts.weight*=tp,- --rule *.linear_fc1.weight=tp,-";
                let strategy = at(room, "s.ckpt");
                let line = format!(
                    "strategy new --mesh tp=2 {rule} --weights {} --output {strategy}",
                    at(room, "full/model.safetensors")
                );
                run(1, &line).succeeds();
                strategy
            }
        };
        let (src, mg) = (at(room, "full"), at(room, "mg"));
        run(
            processes,
            &format!("unify --src {src} --dst {mg} --format megatron"),
        )
        .succeeds();
        let files = fixtures::listing(Path::new(&mg));
        assert!(
            files
                .iter()
                .any(|path| path.ends_with("iter_0000007/.metadata")),
            "{files:?}"
        );
        run(1, &format!("unify --src {mg} --dst {}", at(room, "flat"))).succeeds();
        let flat = full(&room.join("flat"));
        if name == "qwen3" {
            let stacked = &flat["decoder.layers.mlp.linear_fc1.weight"];
            let each = ["0", "1"]
                .map(|layer| &all[&format!("decoder.layers.{layer}.mlp.linear_fc1.weight")]);
            assert_eq!(stacked.shape[0], 2);
            assert_eq!(stacked.data, each.map(gates_first).concat());
            assert_eq!(
                flat["optimizer.state.exp_avg_sq.embedding.word_embeddings.weight"],
                all["adam_v.embedding.word_embeddings.weight"]
            );
            let master = &flat["optimizer.state.param.decoder.layers.mlp.linear_fc1.weight"];
            assert_eq!(
                (master.dtype.as_str(), &master.shape),
                ("F32", &stacked.shape)
            );
        } else {
            // A dense layer before one of experts: each has a name of its own.
            let experts = &flat["decoder.layers.1.mlp.experts.experts.linear_fc1.weight"];
            assert_eq!(experts.shape, [4, 16, 16]);
        }
        for (source, out) in [(&src, "cut"), (&mg, "back")] {
            let line = format!(
                "split --src {source} --dst {} --dst-strategy {strategy}",
                at(room, out)
            );
            run(processes, &line).succeeds();
        }
        for rank in 0..2 {
            let [cut, back] =
                ["cut", "back"].map(|out| full(&room.join(format!("{out}/rank_{rank}"))));
            assert!(
                cut.contains_key("global_step") && cut.len() > 40,
                "{}",
                cut.len()
            );
            compare(&cut, &back).unwrap_or_else(|why| unreachable!("{name}, rank {rank}: {why}"));
        }
        let line = format!(
            "reshard --src {} --src-strategy {strategy} --dst {} --format megatron",
            at(room, "cut"),
            at(room, "again")
        );
        run(processes, &line).succeeds();
        let found = object(&run(1, &format!("diff {mg} {} --json", at(room, "again"))));
        assert_eq!(found["equal"], true, "{name}: {found:#?}");
    }
}

#[test]
fn what_megatron_cannot_have_is_refused_and_nothing_is_written() {
    let room = tempfile::tempdir().expect("a directory");
    let room = room.path();
    trained("qwen3", room);
    let mg = at(room, "mg");
    run(
        1,
        &format!(
            "unify --src {} --dst {mg} --format megatron",
            at(room, "full")
        ),
    )
    .succeeds();
    let separate = model("qwen3").join("mcore_separate.safetensors");
    let named = fixtures::data().join("model/qwen3/hf");
    // As other networks of MindSpore's have them, and as their files say.
    let made = |name: &str, form: &str| {
        let hf = model(name).join("hf").display().to_string();
        let to = at(room, &format!("{name}-made"));
        let line = format!("import --hf {hf} --dst {to} --names mcore {form}");
        run(1, &line).succeeds();
        let direct = format!(
            "import --hf {hf} --dst {} {form} --format megatron",
            at(room, "no")
        );
        let refused = run(1, &direct);
        assert_eq!(refused.status.code(), Some(1), "{refused:#?}");
        assert!(!room.join("no").exists(), "{form}: something was written");
        PathBuf::from(to)
    };
    let contiguous = made("qwen3", "--qkv contiguous --tp 1");
    let joined = made("deepseek_v3", "--mla joined");
    for (src, word) in [
        (separate, "in one tensor with others"),
        (named, "decoder.layers"),
        (contiguous, "its rows are contiguous"),
        (joined, "latent rows are joined"),
    ] {
        let line = format!(
            "unify --src {} --dst {} --format megatron",
            src.display(),
            at(room, "no")
        );
        let refused = run(1, &line);
        assert_eq!(refused.status.code(), Some(1), "{refused:#?}");
        assert!(error_line(&refused).contains(word), "{refused:#?}");
    }
    let unify = |word: &str| {
        let refused = run(1, &format!("unify --src {mg} --dst {}", at(room, "no")));
        assert_eq!(refused.status.code(), Some(1), "{word}: {refused:#?}");
        assert!(error_line(&refused).contains(word), "{word}: {refused:#?}");
        assert!(!room.join("no").exists(), "{word}: something was written");
    };
    let (tracker, file) = (
        "latest_checkpointed_iteration.txt",
        "iter_0000007/__0_0.distcp",
    );
    std::fs::write(room.join("mg").join(tracker), "../7").expect("it is written");
    unify("no iteration's number");
    std::fs::write(room.join("mg").join(tracker), "8").expect("it is written");
    unify("no whole iter_0000008");
    std::fs::write(room.join("mg").join(tracker), "7").expect("it is written");
    std::fs::remove_file(room.join("mg").join(file)).expect("a file");
    unify("__0_0.distcp");
}

/// What `import` writes is what `unify` makes of full weights, and a model may lie in PyTorch's form.
#[test]
fn import_writes_and_reads_the_forms_of_other_frameworks() {
    let room = tempfile::tempdir().expect("a directory");
    let room = room.path();
    let equal = |a: &str, b: &str| {
        let line = format!("diff {} {} --json", at(room, a), at(room, b));
        let found = object(&run(1, &line));
        assert_eq!(found["equal"], true, "{a}, {b}: {found:#?}");
    };
    let import = |processes: u32, hf: &Path, rest: &str, to: &str| {
        let line = format!("import --hf {} --dst {} {rest}", hf.display(), at(room, to));
        run(processes, &line).succeeds();
    };
    let hf = model("qwen3").join("hf");
    import(1, &hf, "--names mcore", "full");
    let cut = "--names mcore --dst-strategy dp=1,tp=2 --tp 2 --format dcp";
    import(2, &hf, cut, "dcp");
    equal("full", "dcp");
    assert!(room.join("dcp/__1_0.distcp").exists());
    let theirs = room.join("theirs");
    let (from, to) = (hf.display(), theirs.display());
    run(1, &format!("unify --src {from} --dst {to} --format dcp")).succeeds();
    std::fs::copy(hf.join("config.json"), theirs.join("config.json")).expect("copied");
    import(1, &theirs, "--names mcore", "read");
    equal("full", "read");
    // The usual names of this family aren't Megatron's.
    let hf = model("qwen2").join("hf");
    import(1, &hf, "--format megatron", "mg");
    import(1, &hf, "--names mcore", "full2");
    let line = "unify --src @full2 --dst @again --format megatron";
    run(1, &line.replace('@', &format!("{}/", room.display()))).succeeds();
    equal("again", "mg");
    assert!(room.join("mg/release/.metadata").exists());
    let tracker = room.join("mg/latest_checkpointed_iteration.txt");
    let due = std::fs::read(&tracker).expect("a tracker");
    std::fs::remove_file(&tracker).expect("removed");
    run(2, &format!("verify {} --repair", at(room, "mg"))).succeeds();
    assert_eq!(std::fs::read(&tracker).expect("a tracker"), due);
}

/// Over how many files it is spread says nothing of its rows: groups of queries, keys and values may lie in several.
#[test]
fn megatrons_form_is_spread_over_any_number_of_files() {
    let room = tempfile::tempdir().expect("a directory");
    let room = room.path();
    let hf = model("qwen3_moe").join("hf");
    let (from, to, back) = (hf.display(), at(room, "mg"), at(room, "back"));
    for (layout, ranks) in [("dp=2,tp=2", 4), ("dp=8,tp=1", 8), ("dp=1,tp=1,pp=2", 2)] {
        let line = format!(
            "import --hf {from} --dst {to} --format megatron --dst-strategy {layout} --overwrite"
        );
        run(2, &line).succeeds();
        let last = format!("mg/release/__{}_0.distcp", ranks - 1);
        assert!(room.join(&last).exists(), "{layout}: {last}");
        run(
            2,
            &format!("to hf --src {to} --model {from} --dst {back} --overwrite"),
        )
        .succeeds();
        let found = object(&run(1, &format!("diff {from} {back} --json")));
        assert_eq!(found["equal"], true, "{layout}: {found:#?}");
    }
}

/// A configuration of the recorded network.
fn configuration(folder: &Path) {
    let config = json!({
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "num_hidden_layers": 2,
        "hidden_size": 16, "vocab_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 4, "intermediate_size": 24, "tie_word_embeddings": false, "attention_bias": false,
    });
    std::fs::create_dir(folder).expect("a directory");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("it is written");
}

#[test]
fn what_megatron_trained_goes_to_mindspore_and_back() {
    let room = tempfile::tempdir().expect("a directory");
    let room = room.path();
    configuration(&room.join("model"));
    let model = at(room, "model");
    let src = fixtures::data()
        .join("worlds/mg_trained/src")
        .display()
        .to_string();
    run(
        2,
        &format!(
            "to dp=1,tp=2 --src {src} --dst {} --model {model}",
            at(room, "ms")
        ),
    )
    .succeeds();
    let rank = full(&room.join("ms/rank_1"));
    assert_eq!(
        rank["decoder.layers.1.mlp.linear_fc1.weight"].shape,
        [24, 16]
    );
    assert_eq!(
        rank["adam_m.decoder.layers.0.self_attention.linear_qkv.weight"].shape,
        [16, 16]
    );
    assert_eq!(rank["global_step"].data, 12i32.to_le_bytes());
    let line = format!(
        "reshard --src {} --src-strategy dp=1,tp=2 --model {model} --names mcore --dst {} --format megatron",
        at(room, "ms"),
        at(room, "mg")
    );
    run(2, &line).succeeds();
    let found = object(&run(1, &format!("diff {src} {} --json", at(room, "mg"))));
    assert_eq!(found["equal"], true, "{found:#?}");
    run(
        1,
        &format!("to hf --src {src} --dst {} --model {model}", at(room, "hf")),
    )
    .succeeds();
    assert!(full(&room.join("hf")).contains_key("model.layers.1.mlp.gate_proj.weight"));
}

/// Before 0.16 Megatron-Core saved an optimizer's states in runs of blocks, of each of several optimizers under its number.
#[test]
fn states_in_runs_go_to_mindspore_and_to_megatron_as_it_is_now() {
    let room = tempfile::tempdir().expect("a directory");
    let room = room.path();
    let model = room.join("model");
    std::fs::create_dir(&model).expect("a directory");
    let config = json!({
        "model_type": "qwen3_moe", "num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 32,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 24,
        "num_experts": 4, "moe_intermediate_size": 12, "tie_word_embeddings": false,
        "attention_bias": false,
    });
    std::fs::write(model.join("config.json"), config.to_string()).expect("it is written");
    let case = fixtures::data().join("worlds/mg_runs");
    let (src, now) = (case.join("src").display().to_string(), at(room, "now"));
    run(
        1,
        &format!("unify --src {src} --dst {now} --format megatron"),
    )
    .succeeds();
    run(1, &format!("unify --src {now} --dst {}", at(room, "flat"))).succeeds();
    let due = read(&case.join("expected.safetensors"))
        .expect("what is due")
        .tensors;
    let called = |name: &str| {
        let own = name.split_once("optimizer.");
        let own = own.map_or(name.to_owned(), |(_, own)| format!("optimizer.{own}"));
        own.replace(".fp32_param.", ".param.")
    };
    let due: Tensors = due
        .into_iter()
        .map(|(name, tensor)| (called(&name), tensor))
        .collect();
    let mut found = full(&room.join("flat"));
    let step = found.remove("step_num").expect("a count");
    assert_eq!(step.data, 2i64.to_le_bytes());
    found.remove("global_step");
    compare(&due, &found).unwrap_or_else(|why| unreachable!("{why}"));
    let cut = |from: &str, to: &str| {
        let (model, to) = (model.display(), at(room, to));
        let line = format!("to dp=1,tp=2 --src {from} --dst {to} --model {model}");
        run(2, &line).succeeds();
    };
    cut(&src, "ms");
    cut(&now, "again");
    for rank in ["rank_0", "rank_1"] {
        let [ms, again] = ["ms", "again"].map(|out| full(&room.join(out).join(rank)));
        let moment = &ms["adam_v.decoder.layers.1.mlp.experts.weight1"];
        assert_eq!(moment.dtype, "F32");
        compare(&ms, &again).unwrap_or_else(|why| unreachable!("{rank}: {why}"));
    }
}

#[test]
fn the_older_form_is_read_bit_equal() {
    let room = tempfile::tempdir().expect("a directory");
    let case = fixtures::data().join("worlds/mg_ranks");
    let (src, out) = (case.join("src"), room.path().join("out"));
    run(
        1,
        &format!("unify --src {} --dst {}", src.display(), out.display()),
    )
    .succeeds();
    let due = read(&case.join("expected.safetensors"))
        .expect("what is due")
        .tensors;
    let mut found = full(&out);
    let counts = [
        "step_num",
        "global_step",
        "consumed_samples",
        "global_batch_size",
    ];
    assert!(
        counts.iter().all(|name| found.remove(*name).is_some()),
        "{found:?}"
    );
    compare(&due, &found).unwrap_or_else(|why| unreachable!("{why}"));
    let copy = room.path().join("copy");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(&src)
        .arg(&copy)
        .status();
    assert!(copied.expect("cp").success());
    std::fs::remove_dir_all(copy.join("iter_0000012/mp_rank_01_000")).expect("a rank");
    let refused = run(
        1,
        &format!(
            "unify --src {} --dst {}",
            copy.display(),
            at(room.path(), "no")
        ),
    );
    assert!(
        error_line(&refused).contains("mp_rank_01_000"),
        "{refused:#?}"
    );
}
