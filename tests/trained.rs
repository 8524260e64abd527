//! What a training job with PyTorch leaves: weights with Hugging Face's names and an optimizer's states, without the files
//! of a model beside them; or a model, and beside it the trainer's own checkpoint.

use crate::huggingface::{recorded, weights};
use crate::support::{Run, command, fixtures, tensors};
use command::{alone, error_line, under_mpi};
use std::path::PathBuf;
use tensors::{Tensor, Tensors};

struct Room(tempfile::TempDir);

impl Room {
    /// A small llama's directory `m`, and a job's checkpoint `d` of it.
    fn new() -> Room {
        let room = Room(tempfile::tempdir().unwrap());
        std::fs::create_dir(room.at("m")).unwrap();
        let config = recorded().join("config.json");
        std::fs::copy(config, room.at("m/config.json")).unwrap();
        tensors::write(&room.at("m/model.safetensors"), &weights());
        let mut trained = weights();
        for (name, tensor) in weights() {
            for state in ["exp_avg", "exp_avg_sq"] {
                trained.insert(format!("{state}.{name}"), tensor.clone());
            }
        }
        let step = Tensor::counting("F32", &[1], 0);
        trained.insert("optimizer.param_groups.0.lr".into(), step);
        room.job(&trained);
        room
    }

    /// The job's checkpoint with these tensors.
    fn job(&self, trained: &Tensors) {
        tensors::write(&self.at("t.safetensors"), trained);
        self.run(
            1,
            "unify --src @t.safetensors --dst @d --format dcp --overwrite",
        )
        .succeeds();
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn run(&self, processes: u32, line: &str) -> Run {
        let at = format!("{}/", self.0.path().display());
        let words = line.split_whitespace();
        let words: Vec<String> = words.map(|word| word.replace('@', &at)).collect();
        match processes {
            1 => alone(&words),
            processes => under_mpi(processes, &words),
        }
    }

    #[track_caller]
    fn equal(&self, a: &str, b: &str) {
        self.run(1, &format!("diff @{a} @{b}")).succeeds();
    }
}

#[test]
fn a_jobs_checkpoint_becomes_a_model() {
    let room = Room::new();
    for processes in [1, 4] {
        for line in [
            "to hf --src @d --model @m --dst @out",
            "export --src @d --hf-config @m --dst @out",
        ] {
            let line = format!("{line} --overwrite");
            let run = room.run(processes, &line).succeeds();
            assert!(
                run.stdout
                    .contains("tensors were left out (exp_avg.lm_head.weight …)"),
                "{run:#?}"
            );
            room.equal("out", "m");
            assert!(room.at("out/config.json").exists());
            let index = std::fs::read_to_string(room.at("out/model.safetensors.index.json"));
            assert!(!index.unwrap().contains("exp_avg"));
        }
    }
    let line = "to hf --src @d --model @m --dst @out --overwrite --dtype bf16";
    room.run(1, line).succeeds();
    let shown = room.run(1, "inspect @out").succeeds().stdout;
    assert!(shown.contains("BF16") && !shown.contains("F32"), "{shown}");
}

#[test]
fn a_jobs_checkpoint_is_imported_with_another_directorys_config() {
    let room = Room::new();
    let bare = room.run(1, "import --hf @d --dst @out");
    error_line(&bare);
    assert!(bare.stderr.contains("--model DIR says"), "{bare:#?}");
    room.run(1, "import --hf @m --dst @due").succeeds();
    // One file of a model is that of its directory.
    room.run(1, "import --hf @m/model.safetensors --dst @one")
        .succeeds();
    room.equal("one", "due");
    let layout = "--dst-strategy dp=1,tp=2";
    room.run(1, &format!("import --hf @m --dst @cut {layout}"))
        .succeeds();
    for processes in [1, 4] {
        let line = "import --hf @d --model @m --dst @out --overwrite";
        room.run(processes, line).succeeds();
        room.equal("out", "due");
        for line in [
            format!("import --hf @d --model @m/config.json {layout}"),
            "to dp=1,tp=2 --src @d --model @m".to_owned(),
        ] {
            room.run(processes, &format!("{line} --dst @ranks --overwrite"))
                .succeeds();
            room.equal("ranks", "cut");
        }
    }
}

#[test]
fn what_a_model_has_not_is_refused_and_what_it_has_must_be_there() {
    let room = Room::new();
    let to = "to hf --src @d --model @m --dst @out";
    let mut all = weights();
    let first = all.values().next().unwrap().clone();
    all.insert("model.layers.0.extra.weight".into(), first.clone());
    room.job(&all);
    let run = room.run(1, to);
    assert!(
        error_line(&run).contains("model.layers.0.extra.weight: family llama"),
        "{run:#?}"
    );
    let mut all = weights();
    all.remove("model.norm.weight").unwrap();
    room.job(&all);
    let run = room.run(4, to);
    let line = error_line(&run);
    assert!(line.contains("model.norm.weight: family llama"), "{run:#?}");
    let wrapped = weights().into_iter();
    let wrapped = wrapped.map(|(name, tensor)| (format!("module.{name}"), tensor));
    room.job(&wrapped.collect());
    let run = room.run(1, to);
    error_line(&run);
    assert!(run.stderr.contains("--strip-prefix module."), "{run:#?}");
    assert!(!room.at("out").exists());
    room.run(1, &format!("{to} --strip-prefix module."))
        .succeeds();
    room.equal("out", "m");
}

/// A trainer keeps its own checkpoint in the directory of the model that it has written: the model is what is meant where
/// one is asked for.
#[test]
fn beside_a_trainers_checkpoint_the_model_is_taken_for_one() {
    let room = Room::new();
    let mut others = weights();
    for tensor in others.values_mut() {
        tensor.data.iter_mut().for_each(|byte| *byte ^= 1);
    }
    tensors::write(&room.at("t.safetensors"), &others);
    let line = "unify --src @t.safetensors --dst @two --format checkpoint2 --step 10";
    room.run(1, line).succeeds();
    std::fs::rename(
        room.at("two/iteration_00000010"),
        room.at("m/iteration_00000010"),
    )
    .unwrap();
    let tracker = "latest_checkpointed_iteration.txt";
    std::fs::rename(room.at("two").join(tracker), room.at("m").join(tracker)).unwrap();
    std::fs::create_dir(room.at("alone")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(room.at("m").join(file), room.at("alone").join(file)).unwrap();
    }
    room.run(1, "import --hf @alone --dst @due").succeeds();
    for processes in [1, 4] {
        for line in ["import --hf @m", "to hf --src @m"] {
            let run = room.run(processes, &format!("{line} --dst @out --overwrite"));
            let run = run.succeeds();
            assert!(
                run.stdout
                    .contains("iteration_00000010/, a checkpoint 2.0, is left aside"),
                "{run:#?}"
            );
            let due = if line.starts_with("to") {
                "alone"
            } else {
                "due"
            };
            room.equal("out", due);
        }
    }
    // For who doesn't ask for a model it is the job's checkpoint, and the other is named.
    let run = room
        .run(1, "unify --src @m --dst @out --overwrite")
        .succeeds();
    assert!(
        run.stdout.contains("model.safetensors is left aside"),
        "{run:#?}"
    );
    let told = room.run(1, "diff @out @t.safetensors").stdout;
    let counts = ["epoch_num", "global_step", "step_num"];
    assert!(
        counts
            .iter()
            .all(|count| told.contains(&format!("{count}: only in A"))),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1 + counts.len(), "{told}");
}

/// A job saves what it has under names of its own.
#[test]
fn what_a_job_has_around_the_model_is_named_and_taken_off() {
    let room = Room::new();
    let rows = [
        ("model.", "optim.state.", "--strip-prefix model."),
        (
            "app.model.",
            "app.optim.state.",
            "--strip-prefix app.model.",
        ),
        (
            "model_state_dict.",
            "optimizer_state_dict.state.",
            "--strip-prefix model_state_dict.",
        ),
    ];
    for (number, (before, states, flags)) in rows.into_iter().enumerate() {
        let mut all = Tensors::new();
        for (name, tensor) in weights() {
            for state in ["exp_avg", "exp_avg_sq", "step"] {
                all.insert(format!("{states}{name}.{state}"), tensor.clone());
            }
            all.insert(format!("{before}{name}"), tensor);
        }
        room.job(&all);
        for line in [
            "export --src @d --hf-config @m",
            "to hf --src @d --model @m",
            "import --hf @d --model @m",
        ] {
            let line = format!("{line} --dst @out --overwrite");
            let processes = if number == 1 { 4 } else { 1 };
            let run = room.run(processes, &line);
            error_line(&run);
            let hint = format!("hint: {flags} reads them");
            assert!(run.stderr.contains(&hint), "{line}: {run:#?}");
            room.run(processes, &format!("{line} {flags}")).succeeds();
            if !line.starts_with("import") {
                room.equal("out", "m");
            }
        }
    }
}

/// PyTorch saves a head that is the embedding, too, for itself.
#[test]
fn a_head_that_is_the_embedding_is_left_out_or_made() {
    let room = Room::new();
    let path = room.at("m/config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["tie_word_embeddings"] = true.into();
    std::fs::write(&path, config.to_string()).unwrap();
    let mut tied = weights();
    let embedding = tied["model.embed_tokens.weight"].clone();
    tied.insert("lm_head.weight".into(), embedding);
    room.job(&tied);
    let line = "export --src @d --hf-config @m --dst @out --overwrite";
    let run = room.run(4, line).succeeds();
    assert!(run.stdout.contains("left out (lm_head.weight)"), "{run:#?}");
    let bare = |room: &Room| -> Tensors {
        let file = room.at("out/model-00001-of-00001.safetensors");
        tensors::read(&file).unwrap().tensors
    };
    let mut due = tied.clone();
    due.remove("lm_head.weight").unwrap();
    tensors::compare(&due, &bare(&room)).unwrap();
    room.run(1, &format!("{line} --untie")).succeeds();
    tensors::compare(&tied, &bare(&room)).unwrap();
    // Without a head it is made of the embedding.
    room.job(&due);
    room.run(1, &format!("{line} --untie")).succeeds();
    tensors::compare(&tied, &bare(&room)).unwrap();
    // One that differs is no copy.
    room.job(&weights());
    error_line(&room.run(1, line));
}

#[test]
fn experts_in_one_tensor_become_one_each_and_are_quantised() {
    let room = Room::new();
    let recorded = fixtures::data().join("model/qwen3_moe/hf");
    let apart = tensors::read(&recorded.join("model.safetensors")).unwrap();
    let mut fused = Tensors::new();
    for (name, tensor) in &apart.tensors {
        let Some((layer, rest)) = name.split_once("experts.") else {
            fused.insert(name.clone(), tensor.clone());
            continue;
        };
        if !rest.starts_with("0.gate_proj") {
            continue;
        }
        let of = |expert: usize, matrix: &str| {
            apart
                .tensors
                .get(&format!("{layer}experts.{expert}.{matrix}_proj.weight"))
        };
        let experts = (0..)
            .take_while(|expert| of(*expert, "up").is_some())
            .count();
        for (called, matrices) in [
            ("gate_up_proj", &["gate", "up"][..]),
            ("down_proj", &["down"]),
        ] {
            let all = (0..experts).flat_map(|expert| matrices.iter().map(move |m| (expert, m)));
            let data = all.flat_map(|(expert, matrix)| of(expert, matrix).unwrap().data.clone());
            let one = of(0, matrices[0]).unwrap();
            let shape = vec![experts, one.shape[0] * matrices.len(), one.shape[1]];
            let tensor = Tensor {
                dtype: one.dtype.clone(),
                shape,
                data: data.collect(),
            };
            fused.insert(format!("{layer}experts.{called}"), tensor);
        }
    }
    room.job(&fused);
    let model = recorded.display();
    for quantise in ["", "--quantise fp8-block"] {
        let export = format!("--hf-config {model} --overwrite {quantise}");
        room.run(1, &format!("export --src {model} --dst @due {export}"))
            .succeeds();
        room.run(4, &format!("export --src @d --dst @out {export}"))
            .succeeds();
        room.equal("out", "due");
    }
}

/// Weights of MindSpore's network are no model of Hugging Face's, whatever one name is.
#[test]
fn weights_of_the_other_side_are_called_that() {
    let room = Room::new();
    room.run(1, "import --hf @m --dst @ms").succeeds();
    let mut all = Tensors::new();
    let file = fixtures::listing(&room.at("ms")).into_iter();
    let mut file = file.filter(|file| file.extension().is_some_and(|end| end == "safetensors"));
    let read = tensors::read(&room.at("ms").join(file.next().unwrap())).unwrap();
    for (name, tensor) in read.tensors {
        all.insert(format!("adam_m.{name}"), tensor.clone());
        all.insert(name, tensor);
    }
    std::fs::create_dir(room.at("trained")).unwrap();
    tensors::write(&room.at("trained/model.safetensors"), &all);
    let run = room.run(1, "import --hf @trained --model @m --dst @out");
    let line = error_line(&run);
    assert!(
        line.contains("MindSpore's legacy network already"),
        "{run:#?}"
    );
}

/// A moving average is another copy of the model.
#[test]
fn one_of_two_copies_is_asked_for_or_taken() {
    let room = Room::new();
    let mut other = weights();
    for tensor in other.values_mut() {
        tensor.data.iter_mut().for_each(|byte| *byte ^= 1);
    }
    let both = |own: &str| -> Tensors {
        let named = |(name, tensor): (String, Tensor)| (format!("{own}{name}"), tensor);
        let copies = other.clone().into_iter();
        let copies = copies.map(|(name, tensor)| (format!("ema.{name}"), tensor));
        weights().into_iter().map(named).chain(copies).collect()
    };
    for (number, line) in [
        "export --src @d --hf-config @m --dst @out --overwrite",
        "import --hf @d --model @m --dst @out --overwrite",
    ]
    .into_iter()
    .enumerate()
    {
        let processes = if number == 0 { 4 } else { 1 };
        let is_export = line.starts_with("export");
        room.job(&both(""));
        let run = room.run(processes, line);
        error_line(&run);
        assert!(
            run.stderr.contains("is it another copy of lm_head.weight"),
            "{run:#?}"
        );
        room.run(processes, &format!("{line} --allow-extra"))
            .succeeds();
        if is_export {
            room.equal("out", "m");
        }
        room.job(&both("net."));
        let run = room.run(processes, line);
        error_line(&run);
        let hint = "--strip-prefix ema. --allow-extra takes the one and leaves out the rest, --strip-prefix net. --allow-extra";
        assert!(run.stderr.contains(hint), "{run:#?}");
        room.run(
            processes,
            &format!("{line} --strip-prefix net. --allow-extra"),
        )
        .succeeds();
        if is_export {
            room.equal("out", "m");
        }
    }
}

/// Ranks of another program have the model's own names; their manifest tells how they are cut.
#[test]
fn ranks_with_a_models_names_are_brought_to_a_jobs_layout() {
    let room = Room::new();
    let rules =
        "--rule *.q_proj.weight=tp,- --rule *.o_proj.weight=-,tp --rule *.embed_tokens.weight=tp,-";
    let made = format!("strategy new --mesh dp=1,tp=2 {rules} --weights @m --output @tp2.ckpt");
    room.run(1, &made).succeeds();
    room.run(
        2,
        "split --src @m/model.safetensors --dst @ranks --dst-strategy @tp2.ckpt",
    )
    .succeeds();
    room.run(1, "import --hf @m --dst @due --dst-strategy dp=2,tp=2")
        .succeeds();
    for processes in [1, 4] {
        let line = "to dp=2,tp=2 --src @ranks --model @m --dst @out --overwrite";
        room.run(processes, line).succeeds();
        room.equal("out", "due");
    }
    // A layout's source that isn't there is told so.
    let run = room.run(
        1,
        "reshard --src @nowhere --dst @new --dst-strategy dp=1,tp=2",
    );
    assert!(error_line(&run).contains("doesn't exist"), "{run:#?}");
}

/// A tensor of a pair, small enough that no sum is rounded.
fn of_pair(shape: &[usize], modulus: usize) -> Tensor {
    let values =
        (0..shape.iter().product::<usize>()).map(|n| f32::from(u8::try_from(n % modulus).unwrap()));
    Tensor {
        dtype: "F32".into(),
        shape: shape.to_vec(),
        data: values.flat_map(f32::to_le_bytes).collect(),
    }
}

#[test]
fn a_model_that_was_saved_with_its_adapter_is_merged() {
    let room = Room::new();
    let q = "model.layers.0.self_attn.q_proj";
    let mut due = weights();
    let shape = due[&format!("{q}.weight")].shape.clone();
    let (a, b) = (of_pair(&[2, shape[1]], 3), of_pair(&[shape[0], 2], 5));
    let head = Tensor::counting("F32", &due["lm_head.weight"].shape, 7);
    let mut saved = Tensors::new();
    for (name, tensor) in &due {
        let name = match name.as_str() {
            "lm_head.weight" => "lm_head.original_module.weight".to_owned(),
            name if name == format!("{q}.weight") => format!("{q}.base_layer.weight"),
            name => name.to_owned(),
        };
        saved.insert(format!("base_model.model.{name}"), tensor.clone());
    }
    for (end, tensor) in [("lora_A", &a), ("lora_B", &b)] {
        saved.insert(
            format!("base_model.model.{q}.{end}.default.weight"),
            tensor.clone(),
        );
    }
    let trained = "base_model.model.lm_head.modules_to_save.default.weight";
    saved.insert(trained.into(), head.clone());
    std::fs::create_dir(room.at("un")).unwrap();
    tensors::write(&room.at("un/model.safetensors"), &saved);
    room.job(
        &saved
            .iter()
            .map(|(name, tensor)| (format!("module.{name}"), tensor.clone()))
            .collect(),
    );

    // What the same adapter in a file of its own makes of the model.
    due.insert("lm_head.weight".into(), head);
    tensors::write(&room.at("due.safetensors"), &due);
    let pairs = [("lora_A", a), ("lora_B", b)];
    let pairs = pairs.map(|(end, tensor)| (format!("base_model.model.{q}.{end}.weight"), tensor));
    tensors::write(&room.at("pairs.safetensors"), &pairs.into());
    room.run(
        1,
        "unify --src @due.safetensors --lora @pairs.safetensors --lora-scaling 2 --dst @due",
    )
    .succeeds();

    for (processes, line) in [
        (1, "unify --src @un"),
        (4, "unify --src @un"),
        (1, "export --src @un --hf-config @m"),
        (4, "to hf --src @d --model @m --strip-prefix module."),
    ] {
        let run = room.run(
            processes,
            &format!("{line} --lora-scaling 2 --dst @out --overwrite"),
        );
        run.succeeds();
        room.equal("out", "due");
    }
    // Nothing is merged unasked, nor without the magnitudes that belong to the pairs.
    let run = room
        .run(1, "export --src @un --hf-config @m --dst @none")
        .fails();
    assert!(error_line(&run).contains("isn't merged"), "{run:#?}");
    let magnitudes = format!("base_model.model.{q}.lora_magnitude_vector.default.weight");
    saved.insert(magnitudes, of_pair(&[shape[0]], 3));
    tensors::write(&room.at("un/model.safetensors"), &saved);
    let run = room
        .run(1, "unify --src @un --lora-scaling 2 --dst @none")
        .fails();
    assert!(run.stderr.contains("DoRA"), "{run:#?}");
    assert!(!room.at("none").exists());
}
