//! What an optimizer keeps of a tensor, and what the network of the destination has, where strategies don't know it.

use crate::support::command::{alone, nothing_written, refuses, under_mpi};
use crate::support::fixtures;
use crate::support::oracle::{Strategy, to_protobuf};
use crate::support::sample::{Sample, layout};
use crate::support::tensors::{self, Tensor, Tensors};
use serde_json::Value;

/// A weight and its master, both cut by `four` and `two`; `bare.ckpt` and `one.ckpt` know the weight only.
fn sample() -> Sample {
    let names = ["layers.0.w.weight", "main_param.layers.0.w.weight"];
    let whole = names.iter().zip([3, 90]);
    let whole = whole.map(|(name, at)| ((*name).to_owned(), Tensor::counting("F32", &[8, 8], at)));
    let cut = |mesh: usize, names: &[&'static str]| {
        let layouts: Vec<_> = names
            .iter()
            .map(|n| (*n, layout(&[mesh], &[0, -1])))
            .collect();
        Strategy::of(&layouts)
    };
    let sample = Sample::of(whole.collect(), cut(4, &names), cut(2, &names));
    for (file, ranks) in [("bare.ckpt", 4), ("one.ckpt", 1)] {
        let strategy = to_protobuf(&cut(ranks, &names[..1]));
        tensors::write_bytes(&sample.path(file), &strategy);
    }
    sample
}

// proves P166
#[test]
fn shards_that_are_left_behind_where_they_are_copied_are_told() {
    let job = "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy";
    for processes in [1, 4] {
        let sample = sample();
        let go = |rest: &str| under_mpi(processes, &sample.args(&format!("{job} {rest}")));
        refuses(
            &go("@bare.ckpt --unmatched copy --format checkpoint2"),
            "main_param.layers.0.w.weight",
        );
        nothing_written(&sample);
        let told =
            "the result lacks parts, which no rank of it takes: main_param.layers.0.w.weight";
        let run = go("@one.ckpt --unmatched copy").succeeds();
        assert!(run.stdout.contains(told), "{run:#?}");
        std::fs::remove_dir_all(sample.path("out")).expect("removed");
        go("@one.ckpt --unmatched drop").succeeds();
        go("@bare.ckpt --unmatched copy --overwrite").succeeds();
        sample.check("out", &sample.four, &sample.whole);
    }
}

/// Whole on every rank, and in no strategy.
fn with_whole_states(sample: &Sample) {
    let split = "split --src @full --dst @whole --dst-strategy @bare.ckpt --unmatched copy";
    alone(&sample.args(split)).succeeds();
}

#[test]
fn a_state_that_no_strategy_knows_is_renamed_too() {
    let sample = sample();
    with_whole_states(&sample);
    std::fs::write(
        sample.path("map.json"),
        r#"{"layers.0.w.weight": "x.weight"}"#,
    )
    .expect("a map");
    let line = "unify --src @whole --src-strategy @bare.ckpt --dst @out --name-map @map.json";
    under_mpi(3, &sample.args(line)).succeeds();
    let found = all_in(&sample, "out");
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["main_param.x.weight", "x.weight"]);
}

// proves P167
#[test]
fn a_master_does_not_undo_an_adapter() {
    let sample = sample();
    with_whole_states(&sample);
    let module = "base_model.model.layers.0.w";
    let pair = [("A", [2, 8]), ("B", [8, 2])];
    let pair = pair.map(|(part, shape)| {
        (
            format!("{module}.lora_{part}.weight"),
            Tensor::counting("F32", &shape, 0),
        )
    });
    tensors::write(&sample.path("ad/adapter_model.safetensors"), &pair.into());
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["w"]}"#;
    tensors::write_bytes(&sample.path("ad/adapter_config.json"), config.as_bytes());
    for source in [
        "@full",
        "@whole --src-strategy @bare.ckpt",
        "@src --src-strategy @four.ckpt",
    ] {
        let line = format!("unify --src {source} --dst @out --lora @ad --overwrite");
        let run = alone(&sample.args(&line)).succeeds();
        assert!(
            run.stdout
                .contains("left out, as main_param.layers.0.w.weight"),
            "{run:#?}"
        );
        let found = all_in(&sample, "out");
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            ["layers.0.w.weight"],
            "{source}"
        );
    }
}

/// All tensors of the files in a directory.
fn all_in(sample: &Sample, directory: &str) -> Tensors {
    let mut found = Tensors::new();
    for file in fixtures::listing(&sample.path(directory)) {
        if file.extension().is_some_and(|end| end == "safetensors") {
            let path = sample.path(directory).join(file);
            found.extend(tensors::read(&path).expect("readable").tensors);
        }
    }
    found
}

/// A layout is of the network of `--model`: one of other heads, or with more layers than the weights have.
#[test]
fn another_network_than_the_weights_is_told() {
    let sample = sample();
    let hf = fixtures::data()
        .join("model/llama/hf")
        .display()
        .to_string();
    let text = std::fs::read_to_string(format!("{hf}/config.json")).expect("a config");
    let config: Value = serde_json::from_str(&text).expect("JSON");
    let number = |key: &str| config[key].as_u64().expect("a number");
    let heads = number("num_attention_heads");
    let size = config["head_dim"]
        .as_u64()
        .unwrap_or(number("hidden_size") / heads);
    let write = |place: &str, changes: &[(&str, u64)]| {
        let mut other = config.clone();
        for (key, value) in changes {
            other[*key] = (*value).into();
        }
        let path = sample.path(&format!("{place}/config.json"));
        tensors::write_bytes(&path, other.to_string().as_bytes());
    };
    let half = number("num_key_value_heads") / 2;
    let other = [
        ("num_attention_heads", heads / 2),
        ("num_key_value_heads", half),
        ("head_dim", size * 2),
    ];
    write("heads", &other);
    write(
        "more",
        &[("num_hidden_layers", number("num_hidden_layers") + 1)],
    );
    alone(&sample.args(&format!("import --hf {hf} --dst @ms"))).succeeds();
    let layout = "dp=1,tp=1";
    for line in [
        format!("import --hf {hf} --dst @out --dst-strategy {layout}"),
        format!("to {layout} --src {hf} --dst @out"),
        format!("split --src @ms --dst @out --dst-strategy {layout}"),
        format!("to {layout} --src @ms --dst @out"),
    ] {
        refuses(
            &alone(&sample.args(&format!("{line} --model @heads"))),
            "/heads",
        );
        nothing_written(&sample);
        let line = format!("{line} --model @more");
        refuses(&alone(&sample.args(&line)), "that the source lacks");
        nothing_written(&sample);
        let run = alone(&sample.args(&format!("{line} --unmatched drop"))).succeeds();
        let told = "of the destination's network aren't in the source, so the result lacks them";
        assert!(run.stdout.contains(told), "{run:#?}");
        std::fs::remove_dir_all(sample.path("out")).expect("removed");
    }
}

/// Where a job stands is told by whichever rank tells it, as where a strategy has placed it in the last stage alone.
#[test]
fn counts_of_one_stage_are_the_jobs() {
    let room = tempfile::tempdir().expect("a directory");
    let at = |name: &str| room.path().join(name);
    let count = |number: i32| Tensor {
        dtype: "I32".into(),
        shape: vec![],
        data: number.to_le_bytes().to_vec(),
    };
    let whole = Tensors::from([
        (
            "model.layers.0.w".to_owned(),
            Tensor::counting("F32", &[4, 4], 1),
        ),
        (
            "model.layers.1.w".to_owned(),
            Tensor::counting("F32", &[4, 4], 2),
        ),
        ("step_num".to_owned(), count(40)),
        ("epoch_num".to_owned(), count(1)),
    ]);
    tensors::write(&at("full/model.safetensors"), &whole);
    let run = |line: &str| {
        let words = line.split(' ').map(|word| match word.strip_prefix('@') {
            Some(name) => at(name).display().to_string(),
            None => word.to_owned(),
        });
        crate::support::command::on(2, &words.collect::<Vec<_>>()).succeeds()
    };
    run("strategy new --mesh tp=2,pp=2 --rule *.w=tp,- --weights @full --output @s.ckpt");
    run("split --src @full --dst @ranks --dst-strategy @s.ckpt");
    for rank in 0..4 {
        let file = at(&format!("ranks/rank_{rank}/net.safetensors"));
        let mut own = tensors::read(&file).expect("a file").tensors;
        assert!(own.contains_key("step_num"), "no strategy places it");
        if rank < 2 {
            own.retain(|name, _| !name.ends_with("_num"));
            tensors::write(&file, &own);
        }
    }
    run(
        "reshard --src @ranks --src-strategy @s.ckpt --dst @two --dst-strategy @s.ckpt --format checkpoint2 --verify none",
    );
    let told = std::fs::read_to_string(at("two/latest_checkpointed_iteration.txt"));
    assert_eq!(told.expect("a text").trim(), "40");
}

/// What no strategy knows, or the destination's alone doesn't, is taken of whichever rank has it.
#[test]
fn what_the_first_ranks_have_not_is_taken_of_others() {
    let sample = Sample::new();
    let run = |line: &str| alone(&sample.args(line));
    let file = |place: &str, rank: usize| {
        sample.path(&format!("{place}/rank_{rank}/net{rank}.safetensors"))
    };
    let own = |place: &str, rank: usize| tensors::read(&file(place, rank)).expect("a file").tensors;
    // In one of the last ranks alone, and on all whose files are there.
    let [alone_in, of_all] = [
        Tensor::counting("F32", &[3], 1),
        Tensor::counting("F32", &[5], 2),
    ];
    for rank in 0..4 {
        let mut tensors = sample.four.cut(&sample.whole, rank).expect("it can be cut");
        tensors.insert("frequencies".into(), of_all.clone());
        if rank == 2 {
            tensors.insert("score".into(), alone_in.clone());
        }
        tensors::write(&file("some", rank), &tensors);
    }
    for processes in [1, 4] {
        let line = format!(
            "reshard --src @some --src-strategy @four.ckpt --dst @two{processes} --dst-strategy @two.ckpt"
        );
        crate::support::command::on(processes, &sample.args(&line)).succeeds();
        for rank in 0..2 {
            let found = own(&format!("two{processes}"), rank);
            assert_eq!(found.get("score"), Some(&alone_in), "rank {rank}");
            assert_eq!(found.get("frequencies"), Some(&of_all), "rank {rank}");
        }
    }
    // As many ranks in the same stages keep what each has.
    run("reshard --src @some --src-strategy @four.ckpt --dst @same --dst-strategy @four.ckpt")
        .succeeds();
    let having = (0..4).filter(|rank| own("same", *rank).contains_key("score"));
    assert_eq!(having.collect::<Vec<usize>>(), [2]);
}

/// Parts that are copied as they are, where the ranks that would be asked have left them to others.
#[test]
fn parts_are_copied_of_whoever_has_kept_them() {
    let mut whole = Tensors::from([("w".to_owned(), Tensor::counting("F32", &[8, 8], 3))]);
    for number in 0..6 {
        whole.insert(
            format!("x{number}"),
            Tensor::counting("F32", &[8, 8], 100 * number),
        );
    }
    let cut = |mesh: &[usize], names: &mut dyn Iterator<Item = &String>| {
        let of = |name: &String| (name.clone().leak() as &str, layout(mesh, &[0, -1]));
        Strategy::of(&names.map(of).collect::<Vec<_>>())
    };
    let all = cut(&[2, 2], &mut whole.keys());
    let known = cut(&[2], &mut whole.keys().take(1));
    let sample = Sample::of(whole.clone(), all.clone(), known);
    let run = |line: &str| alone(&sample.args(line)).succeeds();
    run("split --src @full --dst @ranks --dst-strategy @four.ckpt --remove-redundancy");
    run(
        "reshard --src @ranks --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt --unmatched copy",
    );
    for rank in 0..2 {
        let path = sample.path(&format!("out/rank_{rank}/net{rank}.safetensors"));
        let found = tensors::read(&path).expect("a file").tensors;
        let due = all.cut(&whole, rank).expect("it can be cut");
        for name in whole.keys().filter(|name| name.starts_with('x')) {
            assert_eq!(found.get(name), due.get(name), "rank {rank}: {name}");
        }
    }
}

/// Full weights may have an optimizer's states as one rank had them: nobody's own part.
#[test]
fn what_one_rank_had_is_not_cut_for_all() {
    let sample = sample();
    let part = Tensor::counting("F32", &[2, 8], 90);
    let name = "main_param.layers.0.w.weight";
    let weights = Tensors::from([(
        "layers.0.w.weight".to_owned(),
        sample.whole["layers.0.w.weight"].clone(),
    )]);
    tensors::write(&sample.path("filtered/model.safetensors"), &weights);
    let hyper = Tensors::from([(name.to_owned(), part)]);
    tensors::write(&sample.path("filtered/hyper_param.safetensors"), &hyper);
    let line = "split --src @filtered --dst @out --dst-strategy @four.ckpt";
    let refused = alone(&sample.args(line));
    refuses(&refused, name);
    assert!(
        refused.stderr.contains("as one rank had it"),
        "{refused:#?}"
    );
    assert!(!sample.path("out").exists());
    let dropped = alone(&sample.args(&format!("{line} --unmatched drop"))).succeeds();
    assert!(dropped.stdout.contains(name), "{dropped:#?}");
}
