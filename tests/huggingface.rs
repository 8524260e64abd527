//! Hugging Face directories as they are: what is taken of them, what is left aside, what is refused.

use crate::support::{Run, command, fixtures, tensors};
use command::{alone, error_line, under_mpi};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tensors::{Tensor, Tensors};

const SHARDS: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];
const INDEX: &str = "model.safetensors.index.json";
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
/// What the embedding is called once it is imported.
const EMBEDDED: &str = "model.tok_embeddings.embedding_weight";

/// A room with a small llama's config.json and, if asked for, its weights in two files with an index.
struct Room(TempDir);

impl Room {
    fn new() -> Room {
        let room = Room(tempfile::tempdir().unwrap());
        let config = recorded().join("config.json");
        std::fs::create_dir(room.at("m")).unwrap();
        std::fs::copy(config, room.at("m/config.json")).unwrap();
        room
    }

    fn sharded() -> Room {
        let room = Room::new();
        let mut map = serde_json::Map::new();
        for (number, shard) in SHARDS.iter().enumerate() {
            let part: Tensors = part(number);
            map.extend(part.keys().map(|name| (name.clone(), (*shard).into())));
            room.put(&format!("m/{shard}"), &part);
        }
        room.index(map);
        room
    }

    fn single() -> Room {
        let room = Room::new();
        room.put("m/model.safetensors", &weights());
        room
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Changes a key of config.json.
    fn configure(&self, key: &str, value: serde_json::Value) {
        let path = self.at("m/config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(path, config.to_string()).unwrap();
    }

    fn put(&self, path: &str, tensors: &Tensors) {
        tensors::write(&self.at(path), tensors);
    }

    fn index(&self, map: serde_json::Map<String, serde_json::Value>) {
        let text = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
        std::fs::write(self.at("m").join(INDEX), text.to_string()).unwrap();
    }

    /// Changes the index.
    fn reindex(&self, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
        let text = std::fs::read(self.at("m").join(INDEX)).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let mut map = index["weight_map"].as_object().unwrap().clone();
        change(&mut map);
        self.index(map);
    }

    fn words(&self, line: &str) -> Vec<String> {
        let at = format!("{}/", self.0.path().display());
        let words = line.split_whitespace();
        words.map(|word| word.replace('@', &at)).collect()
    }

    fn run(&self, line: &str) -> Run {
        alone(&self.words(line))
    }

    fn out(&self) -> Tensors {
        full(&self.at("out"))
    }
}

pub(crate) fn recorded() -> PathBuf {
    fixtures::data().join("model/llama/hf")
}

pub(crate) fn weights() -> Tensors {
    tensors::read(&recorded().join("model.safetensors"))
        .unwrap()
        .tensors
}

/// Other weights of the same names.
fn others() -> Tensors {
    let mut all = weights();
    for tensor in all.values_mut() {
        tensor.data.iter_mut().for_each(|byte| *byte ^= 1);
    }
    all
}

fn part(number: usize) -> Tensors {
    let all = weights().into_iter().enumerate();
    let part = all.filter(|(at, _)| at % 2 == number);
    part.map(|(_, pair)| pair).collect()
}

/// Everything in the safetensors files of a directory.
fn full(directory: &Path) -> Tensors {
    let files = fixtures::listing(directory).into_iter();
    let files = files.filter(|file| file.extension().is_some_and(|end| end == "safetensors"));
    files
        .flat_map(|file| tensors::read(&directory.join(file)).unwrap().tensors)
        .collect()
}

#[track_caller]
fn says(run: &Run, texts: &[&str]) {
    let told = format!("{}{}", run.stdout, run.stderr);
    for text in texts {
        assert!(told.contains(text), "'{text}' is not said: {run:#?}");
    }
}

/// What is to come of a directory.
enum Right {
    /// These weights, and a note with this in it (none: no note at all).
    Taken(fn() -> Tensors, &'static str),
    /// One error with all of this in it.
    Refused(&'static [&'static str]),
}

use Right::{Refused, Taken};

/// A directory, what is done with it, and what is to come of it.
type Row = (&'static str, fn() -> Room, &'static str, Right);

fn check(rows: &[Row]) {
    for (what, room, flags, right) in rows {
        let room = room();
        let run = room.run(&format!("unify --src @m --dst @out {flags}"));
        match right {
            Taken(tensors, note) => {
                assert!(run.status.success(), "{what}: {run:#?}");
                tensors::compare(&tensors(), &room.out()).unwrap_or_else(|e| panic!("{what}: {e}"));
                let notes = run.stdout.lines().filter(|line| line.contains("  note "));
                let notes: Vec<&str> = notes.collect();
                assert_eq!(
                    notes.len(),
                    usize::from(!note.is_empty()),
                    "{what}: {run:#?}"
                );
                let told = notes.first().is_none_or(|told| told.contains(note));
                assert!(told, "{what}: {notes:?}");
            }
            Refused(texts) => {
                assert_eq!(run.status.code(), Some(1), "{what}: {run:#?}");
                error_line(&run);
                says(&run, texts);
                assert!(!room.at("out").exists(), "{what}");
            }
        }
    }
}

/// A directory with one file of weights and another one beside it.
fn beside(name: &str) -> Room {
    let room = Room::single();
    let tensor = Tensor::counting("F32", &[2], 0);
    room.put(&format!("m/{name}"), &Tensors::from([("x".into(), tensor)]));
    room
}

fn stale() -> Room {
    let room = Room::sharded();
    room.put("m/model.safetensors", &others());
    room
}

fn without_a_shard(beside: &str) -> Room {
    let room = Room::sharded();
    std::fs::remove_file(room.at("m").join(SHARDS[1])).unwrap();
    if !beside.is_empty() {
        std::fs::write(room.at("m").join(beside), "x").unwrap();
    }
    room
}

/// With a file that Hugging Face's downloader has begun.
fn begun(room: Room) -> Room {
    let place = room.at("m/.cache/huggingface/download");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("0a.incomplete"), "x").unwrap();
    room
}

/// One of two files, and nothing of the other.
fn first_alone() -> Room {
    let room = without_a_shard("");
    std::fs::remove_file(room.at("m").join(INDEX)).unwrap();
    room
}

/// A link at `from` in the model's directory.
fn link(room: &Room, to: &str, from: &str) {
    std::os::unix::fs::symlink(to, room.at("m").join(from)).unwrap();
}

#[test]
fn takes_the_files_that_are_meant() {
    let rows: &[Row] = &[
        ("index", Room::sharded, "", Taken(weights, "")),
        (
            "a newer single file",
            stale,
            "",
            Refused(&[INDEX, "model.safetensors", "--weights 'model-*'"]),
        ),
        (
            "the single file, asked for",
            stale,
            "--weights model.safetensors",
            Taken(others, "model-00002-of-00002.safetensors are left aside"),
        ),
        (
            "the shards, asked for",
            stale,
            "--weights model-*",
            Taken(weights, "model.safetensors is left aside, 2 files"),
        ),
        (
            "nothing asked for is there",
            stale,
            "--weights x*",
            Refused(&["--weights 'x*'", "it has model-00001"]),
        ),
        (
            "an index of an older save",
            || {
                let room = without_a_shard("");
                room.put("m/model.safetensors", &weights());
                room
            },
            "",
            Refused(&[SHARDS[1], "older save? --weights model.safetensors"]),
        ),
        (
            "another project's form",
            || beside("consolidated.safetensors"),
            "",
            Taken(
                weights,
                "consolidated.safetensors is left aside, model.safetensors is taken",
            ),
        ),
        (
            "an adapter",
            || beside("adapter_model.safetensors"),
            "",
            Taken(weights, "adapter_model.safetensors is left aside"),
        ),
        (
            "another model",
            || beside("model_1.safetensors"),
            "",
            Taken(weights, "model_1.safetensors is left aside"),
        ),
        (
            "hidden files",
            || beside("._model.safetensors"),
            "",
            Taken(weights, ""),
        ),
        (
            "shards without their index",
            || {
                let room = Room::sharded();
                std::fs::remove_file(room.at("m").join(INDEX)).unwrap();
                room
            },
            "",
            Refused(&["no index of them", "--weights '*.safetensors'"]),
        ),
        (
            "a shard without the others and their index",
            first_alone,
            "",
            Refused(&["is one of 2 files, of which 1 is there"]),
        ),
        (
            "the same, asked for with all that there are",
            first_alone,
            "--weights model-*",
            Refused(&["is one of 2 files, of which 1 is there"]),
        ),
        (
            "an index of nothing",
            || {
                let room = Room::sharded();
                std::fs::write(room.at("m").join(INDEX), r#"{"weight_map": {}}"#).unwrap();
                room
            },
            "",
            Refused(&[INDEX, "lists no tensor; beside it: model-00001"]),
        ),
        (
            "an adapter alone",
            || {
                let room = Room::new();
                room.put("m/adapter_model.safetensors", &weights());
                std::fs::write(room.at("m/adapter_config.json"), "{}").unwrap();
                room
            },
            "",
            Refused(&["is a low-rank adapter", "--lora"]),
        ),
        (
            "parts of torch's",
            || {
                let room = Room::new();
                room.put("m/shard-00001-model-00001-of-00001.safetensors", &weights());
                room
            },
            "",
            Refused(&["PyTorch distributed checkpoint in Hugging Face's form"]),
        ),
    ];
    check(rows);
}

#[test]
fn settles_what_an_index_and_its_files_disagree_about() {
    let rows: &[Row] = &[
        (
            "in another file",
            || {
                let room = Room::sharded();
                room.reindex(|map| {
                    let other = SHARDS.iter().find(|shard| map[EMBEDDING] != **shard);
                    map[EMBEDDING] = (*other.unwrap()).into();
                });
                room
            },
            "",
            Taken(
                weights,
                "1 tensor (model.embed_tokens.weight) is in another file",
            ),
        ),
        (
            "in no file",
            || {
                let room = Room::sharded();
                room.reindex(|map| {
                    map.insert("ghost".into(), SHARDS[0].into());
                });
                room
            },
            "",
            Refused(&["ghost", SHARDS[0]]),
        ),
        (
            "in two files",
            || {
                let room = Room::sharded();
                let overlay = Tensors::from([(EMBEDDING.to_owned(), weights()[EMBEDDING].clone())]);
                for shard in SHARDS {
                    let path = room.at("m").join(shard);
                    let mut part = tensors::read(&path).unwrap().tensors;
                    if let Some(old) = part.get_mut(EMBEDDING) {
                        *old = others()[EMBEDDING].clone();
                        tensors::write(&path, &part);
                    }
                }
                room.put("m/overlay.safetensors", &overlay);
                room.reindex(|map| map[EMBEDDING] = "overlay.safetensors".into());
                room
            },
            "",
            Taken(weights, "is in several files, and read from the one that"),
        ),
        (
            "not named",
            || {
                let room = Room::sharded();
                room.reindex(|map| {
                    map.remove(EMBEDDING);
                });
                room
            },
            "",
            Taken(
                weights,
                "is not in model.safetensors.index.json and taken all the same",
            ),
        ),
    ];
    check(rows);
}

#[test]
fn says_what_is_not_downloaded_yet() {
    let rows: &[Row] = &[
        (
            "a shard",
            || without_a_shard(""),
            "",
            Refused(&[INDEX, SHARDS[1], "tensors, which isn't there", "broken off"]),
        ),
        (
            "a shard half",
            || without_a_shard("model-00002-of-00002.safetensors.aria2"),
            "",
            Refused(&[INDEX, "aria2 is there: the download isn't finished"]),
        ),
        (
            "a shard whose size is right already",
            || {
                let room = Room::sharded();
                std::fs::write(room.at("m").join(format!("{}.aria2", SHARDS[1])), "x").unwrap();
                room
            },
            "",
            Refused(&[SHARDS[1], "isn't downloaded to its end"]),
        ),
        (
            "a shard of a cache",
            || {
                let room = without_a_shard("");
                link(&room, "../blobs/0a", SHARDS[1]);
                room
            },
            "",
            Refused(&[INDEX, "is a link to ../blobs/0a, where nothing is"]),
        ),
        (
            "the only file",
            || {
                let room = Room::new();
                link(&room, "../blobs/0a", "model.safetensors");
                room
            },
            "",
            Refused(&["is a link to ../blobs/0a, where nothing is"]),
        ),
        (
            "anything",
            || {
                let room = Room::new();
                std::fs::write(room.at("m/model.safetensors.incomplete"), "x").unwrap();
                room
            },
            "",
            Refused(&["model.safetensors.incomplete is an unfinished download"]),
        ),
        (
            "anything, in the downloader's own directory",
            || begun(Room::new()),
            "",
            Refused(&["has no weights yet: .cache/huggingface/download/0a.incomplete is"]),
        ),
        (
            "a shard, in the downloader's own directory",
            || begun(without_a_shard("")),
            "",
            Refused(&[INDEX, "download/0a.incomplete is there: the download isn't"]),
        ),
    ];
    check(rows);
    // The same on several processes.
    let room = without_a_shard("");
    let words = room.words("unify --src @m --dst @out");
    let (one, four) = (alone(&words), under_mpi(4, &words));
    assert_eq!(error_line(&one), error_line(&four));
}

#[test]
fn follows_links_to_wherever_they_lead() {
    let room = Room::sharded();
    std::fs::create_dir(room.at("disk")).unwrap();
    for shard in SHARDS {
        std::fs::rename(room.at("m").join(shard), room.at("disk").join(shard)).unwrap();
        link(&room, &format!("../disk/{shard}"), shard);
    }
    room.run("unify --src @m --dst @out").succeeds();
    tensors::compare(&weights(), &room.out()).unwrap();
    // Who loads files with such names asks for this.
    let file = fixtures::listing(&room.at("out")).into_iter();
    let mut file = file.filter(|file| file.extension().is_some_and(|end| end == "safetensors"));
    let file = tensors::read(&room.at("out").join(file.next().unwrap())).unwrap();
    assert_eq!(file.metadata["format"], "pt");
    // What an index says is no link of the user's own.
    room.reindex(|map| map[EMBEDDING] = "../disk/x.safetensors".into());
    let run = room.run("unify --src @m --dst @out2");
    says(
        &run,
        &["'../disk/x.safetensors', which is outside the directory"],
    );
}

fn renamed(change: impl Fn(&str) -> String) -> Room {
    let room = Room::new();
    let tensors = weights().into_iter();
    room.put(
        "m/model.safetensors",
        &tensors
            .map(|(name, tensor)| (change(&name), tensor))
            .collect(),
    );
    room
}

const IMPORT: &str = "import --hf @m --dst @out --names legacy --overwrite";

/// What an import of the plain model makes.
fn imported() -> Tensors {
    let room = Room::single();
    room.run(IMPORT).succeeds();
    room.out()
}

#[test]
fn reads_names_that_a_wrapper_has_changed() {
    let right = imported();
    let lacking = |name: &str| name.strip_prefix("model.").unwrap_or(name).to_owned();
    for (room, told, flags) in [
        (
            renamed(|n| format!("module.{n}")),
            "have 'module.' too much",
            "--strip-prefix module.",
        ),
        (
            renamed(|n| {
                n.replace(".mlp.", "._orig_mod.mlp.")
                    .replace(".self_attn.", "._orig_mod.self_attn.")
            }),
            "have '_orig_mod.' too much",
            "--strip-prefix _orig_mod.",
        ),
        (renamed(lacking), "lack 'model.'", "--add-prefix model."),
        (
            renamed(|n| format!("model.{n}")),
            "have 'model.' too much",
            "--strip-prefix model.",
        ),
        (
            renamed(|n| {
                let within = n.replace(".mlp.", "._fsdp_wrapped_module.mlp.");
                format!("_fsdp_wrapped_module.{within}")
            }),
            "have '_fsdp_wrapped_module.' too much",
            "--strip-prefix _fsdp_wrapped_module.",
        ),
        (
            renamed(|n| {
                let within = n.replace(".mlp.", "._orig_mod.mlp.");
                format!("module.{within}")
            }),
            "have '_orig_mod.' and 'module.' too much",
            "--strip-prefix _orig_mod. --strip-prefix module.",
        ),
        (
            renamed(|n| {
                let within = n.replace(".mlp.", "._checkpoint_wrapped_module.mlp.");
                format!("_fsdp_wrapped_module.{within}")
            }),
            "have '_checkpoint_wrapped_module.' and '_fsdp_wrapped_module.' too much",
            "--strip-prefix _checkpoint_wrapped_module. --strip-prefix _fsdp_wrapped_module.",
        ),
        (
            renamed(|n| n.replace("model.", "model.language_model.")),
            "have 'model.language_model.' too much and lack 'model.'",
            "--strip-prefix model.language_model. --add-prefix model.",
        ),
    ] {
        // What is said is the whole of it, whatever a part of it was given.
        for part in ["", "--strip-prefix module", "--strip-prefix _orig_mod"] {
            let given = room.run(&format!("{IMPORT} {part}"));
            // A part may be all that is needed.
            if !part.is_empty() && given.status.success() {
                continue;
            }
            error_line(&given);
            says(&given, &[told, &format!("{flags} reads them")]);
        }
        room.run(&format!("{IMPORT} {flags}")).succeeds();
        tensors::compare(&right, &room.out()).unwrap_or_else(|e| panic!("{told}: {e}"));
    }
    let run = Room::single().run(&format!("{IMPORT} --strip-prefix model."));
    says(&run, &["as they are in the files", "leave --strip-prefix"]);
}

/// PyTorch's own file beside the weights that are taken is told, and can be chosen.
#[test]
fn a_file_of_pytorch_beside_weights_is_told() {
    let room = Room::single();
    let torch = fixtures::data().join("worlds/pt_views/src/model.pt");
    std::fs::copy(torch, room.at("m/pytorch_model.bin")).unwrap();
    let run = room.run(IMPORT).succeeds();
    assert!(
        run.stdout.contains("pytorch_model.bin is left aside"),
        "{run:?}"
    );
    room.run("unify --src @m --weights pytorch_model.bin --dst @torch")
        .succeeds();
}

/// What lies beside a model isn't taken in its place, whatever its form; of two that may be the model none is.
#[test]
fn a_model_of_pytorch_is_not_passed_over() {
    let room = Room::single();
    let torch = fixtures::data().join("worlds/pt_views/src/model.pt");
    std::fs::copy(torch, room.at("m/pytorch_model.bin")).unwrap();
    let (own, beside) = (
        room.at("m/model.safetensors"),
        room.at("m/optimizer.safetensors"),
    );
    std::fs::rename(&own, &beside).unwrap();
    let run = room.run("unify --src @m --dst @one").succeeds();
    let told = "optimizer.safetensors is left aside, pytorch_model.bin is taken";
    assert!(run.stdout.contains(told), "{run:?}");
    std::fs::rename(&beside, room.at("m/mine.safetensors")).unwrap();
    let unify = "unify --src @m --dst @two";
    says(
        &room.run(unify),
        &[
            "which of them is the model",
            "--weights pytorch_model.bin",
            "--weights mine.safetensors",
        ],
    );
    room.run(&format!("{unify} --weights mine.safetensors"))
        .succeeds();
}

/// An optimizer's states are no weights by other names.
#[test]
fn states_alone_are_no_model() {
    let room = renamed(|name| format!("adam_m.{name}"));
    let refused = room.run(IMPORT);
    says(&refused, &["what an optimizer keeps, and no weights"]);
    assert!(!refused.stderr.contains("name-map"), "{refused:?}");
}

/// What is neither a beginning nor a wrapper's is told with the tensor that it may be: a table gives it that name.
#[test]
fn a_tensor_by_another_name_gets_its_own_by_a_table() {
    let right = imported();
    let room = renamed(|name| name.replace("self_attn.q_proj", "self_attn.module.q_proj"));
    let found = "model.layers.0.self_attn.module.q_proj.weight";
    let wanted = "model.layers.0.self_attn.q_proj.weight";
    let told = [
        found,
        &format!("is it {wanted}, which the files lack?"),
        "unify --name-map FILE",
    ];
    says(&room.run(IMPORT), &told);
    let run = room.run(&format!("{IMPORT} --allow-extra"));
    says(&run, &[wanted, found, "unify --name-map FILE"]);
    let tensors = weights().into_keys();
    let names = tensors.filter(|name| name.contains("q_proj"));
    let names: BTreeMap<String, String> = names
        .map(|name| (name.replace("q_proj", "module.q_proj"), name))
        .collect();
    let table = serde_json::to_string(&names).unwrap();
    std::fs::write(room.at("names.json"), table).unwrap();
    room.run("unify --src @m --dst @named --name-map @names.json")
        .succeeds();
    let config = room.at("m/config.json");
    std::fs::copy(config, room.at("named/config.json")).unwrap();
    room.run(&IMPORT.replace("@m", "@named")).succeeds();
    tensors::compare(&right, &room.out()).unwrap_or_else(|e| panic!("{e}"));
}

/// What no strategy knows, and went along as it is, isn't lost on the way out, from ranks and from full weights.
#[test]
fn what_went_along_outside_the_strategy_is_not_left_out_unasked() {
    let room = Room::single();
    room.run(IMPORT).succeeds();
    let mut all = room.out();
    let extra = Tensor {
        dtype: "F32".into(),
        shape: vec![2, 2],
        data: vec![1; 16],
    };
    all.insert("model.extra.weight".into(), extra.clone());
    all.insert(
        "learning_rate".into(),
        Tensor {
            shape: vec![],
            data: vec![1; 4],
            ..extra
        },
    );
    tensors::write(&room.at("more/model.safetensors"), &all);
    room.run("split --src @more --dst @ranks --dst-strategy tp=2 --model @m --unmatched copy")
        .succeeds();
    room.run("unify --src @ranks --dst @full").succeeds();
    for from in ["ranks", "full", "more"] {
        let line = format!("export --src @{from} --hf-config @m --dst @hf --overwrite");
        says(&room.run(&line), &["model.extra.weight", "--allow-extra"]);
        assert!(!room.at("hf").exists());
        room.run(&format!("{line} --allow-extra")).succeeds();
        std::fs::remove_dir_all(room.at("hf")).unwrap();
    }
}

/// A model with an adapter, saved before the two were merged, is none: what its names lack is no beginning alone.
#[test]
fn weights_below_an_adapters_pairs_are_no_model() {
    let room = renamed(|name| {
        let within = name.replace("q_proj.weight", "q_proj.base_layer.weight");
        format!("base_model.model.{within}")
    });
    let plain = "--strip-prefix base_model.model.";
    for flags in ["", "--allow-extra", plain] {
        let run = room.run(&format!("{IMPORT} {flags}"));
        says(&run, &["base_layer", "isn't merged", "merge_and_unload"]);
    }
}

/// Names of MindSpore's networks may be wrapped, too.
#[test]
fn names_that_begin_otherwise_are_exported_when_it_is_said_how() {
    let room = Room::single();
    let plain = "export --src @full --hf-config @m --dst @out";
    for line in [
        &IMPORT.replace("@out", "@full"),
        "unify --src @full --dst @wrapped --add-prefix module.",
        plain,
    ] {
        room.run(line).succeeds();
    }
    let right = room.out();
    std::fs::remove_dir_all(room.at("out")).unwrap();
    let line = plain.replace("@full", "@wrapped");
    let told = [
        "have 'module.' too much",
        "--strip-prefix module. reads them",
    ];
    says(&room.run(&line), &told);
    room.run(&format!("{line} --strip-prefix module."))
        .succeeds();
    tensors::compare(&right, &room.out()).unwrap();
}

/// What an index, or files' names, say of a model is looked at by all who take it.
#[test]
fn a_model_is_looked_at_before_it_is_brought_anywhere() {
    let room = first_alone();
    let lines = [
        "to dp=1,tp=2 --src @m --dst @out",
        "to dp=1,tp=2 --src @m --weights model-* --dst @out",
        "unify --src @m --weights model-* --dst @out",
        "load --config @job.yaml --dry-run",
    ];
    let yaml = format!("load_checkpoint: {}\n", room.at("m").display());
    std::fs::write(room.at("job.yaml"), yaml).unwrap();
    for line in lines {
        says(&room.run(line), &["is one of 2 files, of which 1 is there"]);
    }
    let room = stale();
    room.run("to dp=1,tp=2 --src @m --weights model.safetensors --dst @out")
        .succeeds();
    // Of what the trainer reads itself nothing can be chosen.
    let yaml = format!("load_checkpoint: {}\n", room.at("m").display());
    std::fs::write(room.at("job.yaml"), yaml).unwrap();
    let run = room.run("load --config @job.yaml --dry-run");
    says(
        &run,
        &["one of them is of another save", "move the files that"],
    );
    assert!(!run.stderr.contains("--weights"), "{run:#?}");
    // A tensor that no file has would be random.
    let room = Room::single();
    let mut some = weights();
    some.remove("model.norm.weight").unwrap();
    std::fs::write(
        room.at("job.yaml"),
        format!("load_checkpoint: {}\n", room.at("m").display()),
    )
    .unwrap();
    room.run("load --config @job.yaml --dry-run").succeeds();
    room.put("m/model.safetensors", &some);
    let run = room.run("load --config @job.yaml --dry-run");
    says(&run, &["model.norm.weight: family", "random values"]);
    let wrapped = weights().into_iter();
    let wrapped = wrapped.map(|(name, tensor)| (format!("module.{name}"), tensor));
    room.put("m/model.safetensors", &wrapped.collect());
    let run = room.run("load --config @job.yaml --dry-run");
    says(
        &run,
        &[
            "'module.' too much",
            "`shardloom import --strip-prefix module.`",
        ],
    );
}

#[test]
fn shards_without_their_index_are_shown_as_one_model() {
    let room = Room::sharded();
    std::fs::remove_file(room.at("m").join(INDEX)).unwrap();
    let shown = room.run("inspect @m").succeeds().stdout;
    assert!(shown.starts_with("full weights: 2 files"), "{shown}");
    let glob = "model-*-of-00002.safetensors";
    assert!(shown.contains(&format!("--weights '{glob}'")), "{shown}");
    room.run(&format!("unify --src @m --weights {glob} --dst @out"))
        .succeeds();
    tensors::compare(&weights(), &room.out()).unwrap();
}

#[test]
fn trainers_files_beside_a_model_are_left_aside() {
    let right = imported();
    let room = Room::single();
    std::fs::rename(
        room.at("m/model.safetensors"),
        room.at("m/weights.safetensors"),
    )
    .unwrap();
    for other in [
        "rng_state_0",
        "scaler",
        "non_lora_trainables",
        "training_args",
    ] {
        let path = format!("m/{other}.safetensors");
        room.put(
            &path,
            &Tensors::from([("x".into(), Tensor::counting("F32", &[2], 1))]),
        );
    }
    let run = room.run(IMPORT).succeeds();
    assert!(
        run.stdout.contains("weights.safetensors is taken"),
        "{run:#?}"
    );
    tensors::compare(&right, &room.out()).unwrap();
}

/// A tied model's room, with or without the head in its files, and an adapter in `ad` that has `tensors` beside a pair.
fn tied(head: bool, tensors: &[(&str, &Tensor)], config: &str) -> Room {
    let room = Room::new();
    room.configure("tie_word_embeddings", true.into());
    let mut weights = weights();
    weights.remove(HEAD);
    if head {
        weights.insert(HEAD.into(), weights[EMBEDDING].clone());
    }
    room.put("m/model.safetensors", &weights);
    let query = "model.layers.0.self_attn.q_proj";
    let [rows, columns] = weights[&format!("{query}.weight")].shape[..] else {
        unreachable!("a matrix")
    };
    let pair = [("A", [1, columns]), ("B", [rows, 1])].map(|(part, shape)| {
        let name = format!("base_model.model.{query}.lora_{part}.weight");
        (name, Tensor::counting("F32", &shape, 3))
    });
    let more = tensors.iter();
    let more = more.map(|(name, tensor)| (format!("base_model.model.{name}"), (*tensor).clone()));
    room.put(
        "ad/adapter_model.safetensors",
        &pair.into_iter().chain(more).collect(),
    );
    let text = format!(r#"{{"r": 1, "lora_alpha": 1{config}}}"#);
    tensors::write_bytes(&room.at("ad/adapter_config.json"), text.as_bytes());
    room
}

/// The embedding's bytes the other way round, in BF16, and as a tensor in F32.
fn trained() -> (Vec<u8>, Tensor) {
    let old = weights()[EMBEDDING].clone();
    let bytes: Vec<u8> = old.data.chunks(2).rev().flatten().copied().collect();
    let wide = bytes.chunks(2).flat_map(|two| [0, 0, two[0], two[1]]);
    let tensor = Tensor {
        dtype: "F32".into(),
        data: wide.collect(),
        ..old
    };
    (bytes, tensor)
}

/// A head that is written though config.json says that there is none is part of every layout of these weights.
#[test]
fn a_head_of_its_own_is_cut_and_found_again() {
    let room = tied(true, &[], "");
    let head = weights()[EMBEDDING].data.clone();
    for names in ["", "--names legacy"] {
        let line = format!(
            "import --hf @m --dst @cut --dst-strategy dp=1,tp=2 --untie {names} --overwrite"
        );
        room.run(&line).succeeds();
        let shard = tensors::read(&room.at("cut/rank_0/net.safetensors")).unwrap();
        assert!(head.starts_with(&shard.tensors[HEAD].data), "{names}");
        for line in [
            "unify --src @cut --src-strategy dp=1,tp=2 --model @m --dst @out --overwrite",
            "export --src @cut --src-strategy dp=1,tp=2 --model @m --hf-config @m --untie --dst @out --overwrite",
        ] {
            room.run(line).succeeds();
            let found = room.out();
            assert_eq!(found[HEAD].data, head, "{line}");
        }
    }
}

/// An embedding that PEFT saves whole is a copy, and the head that it was trained with is the old one, unless the
/// adapter says that they are one.
#[test]
fn a_trained_embedding_of_a_tied_model_leaves_the_head() {
    let line = format!("{IMPORT} --lora @ad");
    let (bytes, new) = trained();
    let old = weights()[EMBEDDING].data.clone();
    let one = r#", "ensure_weight_tying": true"#;
    let other = Tensor::counting("F32", &new.shape, 4);
    for head in [false, true] {
        let room = tied(head, &[(EMBEDDING, &new)], "");
        says(
            &room.run(&line),
            &[EMBEDDING, "tie_word_embeddings", "--untie writes that head"],
        );
        room.run(&format!("{line} --untie")).succeeds();
        assert_eq!(room.out()[EMBEDDED].data, bytes);
        assert_eq!(room.out()[HEAD].data, old);
        // What lies below a pair is the weight of both, and with the mark or an equal head the new one is.
        let below = "model.embed_tokens.base_layer.weight";
        for (config, tensors) in [
            (one, vec![(EMBEDDING, &new)]),
            (one, vec![(EMBEDDING, &new), (HEAD, &new)]),
            ("", vec![(below, &new)]),
        ] {
            let room = tied(head, &tensors, config);
            room.run(&line).succeeds();
            let found = room.out()[EMBEDDED].clone();
            assert_eq!(
                (&*found.dtype, found.data),
                ("BF16", bytes.clone()),
                "{tensors:?}"
            );
            assert!(!room.out().contains_key(HEAD));
        }
        let room = tied(head, &[(EMBEDDING, &new), (HEAD, &other)], one);
        says(
            &room.run(&line),
            &[
                "lm_head.weight: ",
                "unlike those of 'model.embed_tokens.weight'",
                "--untie keeps both",
            ],
        );
    }
}

/// What PEFT saves of a vocabulary that was extended first, or of a head that is the embedding, has no place there.
#[test]
fn a_vocabulary_of_its_own_is_told_with_what_to_do() {
    let (_, new) = trained();
    let grown = Tensor::counting("F32", &[new.shape[0] + 6, new.shape[1]], 5);
    let room = tied(false, &[(EMBEDDING, &grown)], "");
    let run = room.run("unify --src @m --lora @ad --dst @out");
    says(&run, &["is [", "resize_token_embeddings"]);
    let room = tied(false, &[(EMBEDDING, &new)], "");
    let run = room.run("unify --src @m --lora @ad --dst @out");
    says(
        &run,
        &[
            EMBEDDING,
            "the source has no head",
            "`shardloom import --untie`",
        ],
    );
    let room = tied(true, &[(EMBEDDING, &new)], "");
    room.run("unify --src @m --lora @ad --dst @out").succeeds();
    let room = tied(false, &[(HEAD, &new)], "");
    let run = room.run("unify --src @m --lora @ad --dst @out");
    says(&run, &[HEAD, "`shardloom import --untie`"]);
}

/// What an adapter has for a head that its source doesn't have is what it has for the embedding, or is refused.
#[test]
fn a_head_beside_the_same_embedding_is_one_with_it() {
    let (bytes, new) = trained();
    let other = Tensor::counting("F32", &new.shape, 4);
    let lines = [
        "unify --src @m --lora @ad --dst @out",
        "import --hf @m --names legacy --lora @ad --dst @out",
    ];
    for (line, embedding) in lines.into_iter().zip([EMBEDDING, EMBEDDED]) {
        let room = tied(false, &[(EMBEDDING, &new), (HEAD, &new)], "");
        room.run(line).succeeds();
        let found = room.out();
        assert_eq!(found[embedding].data, bytes, "{line}");
        assert!(!found.contains_key(HEAD), "{line}");
        let room = tied(false, &[(EMBEDDING, &new), (HEAD, &other)], "");
        says(&room.run(line), &[HEAD, "--untie"]);
        assert!(!room.at("out").exists(), "{line}");
    }
    let grown = Tensor::counting("F32", &[new.shape[0] + 6, new.shape[1]], 5);
    let room = tied(false, &[(EMBEDDING, &grown), (HEAD, &grown)], "");
    for line in lines {
        says(&room.run(line), &["resize_token_embeddings"]);
    }
}

/// Pairs for head and embedding are one where they are each other's, transposed; others need a head of its own.
#[test]
fn pairs_for_both_of_a_tied_model_are_one_or_need_two() {
    let line = format!("{IMPORT} --lora @ad");
    let [rows, columns] = weights()[EMBEDDING].shape[..] else {
        unreachable!("a matrix")
    };
    let of = |shape: &[usize], seed| Tensor::counting("F32", shape, seed);
    let turned = |tensor: &Tensor| {
        let [height, width] = tensor.shape[..] else {
            unreachable!("a matrix")
        };
        let at = |row: usize, column: usize| &tensor.data[4 * (row * width + column)..][..4];
        let all = (0..width).flat_map(|column| (0..height).map(move |row| (row, column)));
        Tensor {
            dtype: tensor.dtype.clone(),
            shape: vec![width, height],
            data: all
                .flat_map(|(row, column)| at(row, column))
                .copied()
                .collect(),
        }
    };
    let (a, b) = (of(&[3, rows], 5), of(&[columns, 3], 6));
    let embedding = [
        ("model.embed_tokens.lora_embedding_A", &a),
        ("model.embed_tokens.lora_embedding_B", &b),
    ];
    let ranks = r#", "rank_pattern": {"lm_head": 3, "embed_tokens": 3}"#;
    let room = tied(false, &embedding, ranks);
    let run = room.run(&line).succeeds();
    assert!(run.stdout.contains("changes the head, too"), "{run:#?}");
    let right = room.out();
    let head_of = |a: &Tensor, b: &Tensor| {
        [
            ("lm_head.lora_A.weight", turned(b)),
            ("lm_head.lora_B.weight", turned(a)),
        ]
    };
    for (head, same) in [
        (head_of(&a, &b), true),
        (head_of(&of(&[3, rows], 9), &b), false),
    ] {
        let head = head.each_ref().map(|(name, tensor)| (*name, tensor));
        let all = [&embedding[..], &head[..]].concat();
        for (in_files, processes) in [(false, None), (true, None), (false, Some(3))] {
            let room = tied(in_files, &all, ranks);
            let words = room.words(&line);
            let run = processes.map_or_else(|| alone(&words), |n| under_mpi(n, &words));
            if same {
                run.succeeds();
                assert_eq!(room.out(), right);
            } else {
                says(
                    &run,
                    &["lm_head.lora_A.weight: is for 'lm_head.weight'", "--untie"],
                );
                assert!(!room.at("out").exists());
            }
        }
        // Where no config.json says so, the adapter does.
        let ways = format!("{ranks}, \"ensure_weight_tying\": true");
        for processes in [1, 3] {
            let room = tied(false, &all, &ways);
            let run = under_mpi(
                processes,
                &room.words("unify --src @m --lora @ad --dst @out"),
            );
            if same {
                run.succeeds();
                let found = room.out();
                assert_eq!(found[EMBEDDING].data, right[EMBEDDED].data);
                assert!(!found.contains_key(HEAD));
            } else {
                says(&run, &["lm_head.lora_A.weight: is for 'lm_head.weight'"]);
            }
        }
        // As of a model whose head is its own, with the same weights in it.
        let room = tied(true, &all, ranks);
        room.configure("tie_word_embeddings", false.into());
        room.run(&line).succeeds();
        let due = room.out();
        let room = tied(false, &all, ranks);
        room.run(&format!("{line} --untie")).succeeds();
        assert_eq!(room.out(), due);
        assert_eq!(due[EMBEDDED], right[EMBEDDED]);
        assert_eq!(due[HEAD].data == right[EMBEDDED].data, same);
    }
    let room = tied(
        false,
        &head_of(&a, &b)
            .each_ref()
            .map(|(name, tensor)| (*name, tensor)),
        ranks,
    );
    says(&room.run(&line), &["lm_head.lora_A.weight", "--untie"]);
    let room = Room::single();
    says(
        &room.run(&format!("{IMPORT} --untie")),
        &["--untie: tie_word_embeddings"],
    );
}

/// Weights with a head of their own go out of a configuration that ties them as what they are, or not at all.
#[test]
fn a_head_of_its_own_goes_out_with_a_configuration_that_says_so() {
    let room = Room::single();
    let right = weights();
    assert_ne!(right[HEAD].data, right[EMBEDDING].data);
    room.run(IMPORT).succeeds();
    room.configure("tie_word_embeddings", true.into());
    for line in [
        "export --src @out --hf-config @m --dst @hf",
        "to hf --src @out --model @m --dst @hf",
    ] {
        let run = room.run(line);
        says(
            &run,
            &[HEAD, "should be a copy", "tok_embeddings", "--untie keeps"],
        );
        assert!(!room.at("hf").exists());
        room.run(&format!("{line} --untie")).succeeds();
        tensors::compare(&right, &full(&room.at("hf"))).unwrap();
        let config = std::fs::read(room.at("hf/config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["tie_word_embeddings"], false, "{line}");
        std::fs::remove_dir_all(room.at("hf")).unwrap();
    }
    room.configure("tie_word_embeddings", false.into());
    let run = room.run("export --src @out --hf-config @m --dst @hf --untie");
    says(
        &run,
        &["--untie: tie_word_embeddings of config.json isn't true"],
    );
    // One that equals the embedding is it.
    let mut same = weights();
    same.insert(HEAD.into(), same[EMBEDDING].clone());
    room.put("m/model.safetensors", &same);
    room.run(IMPORT).succeeds();
    room.configure("tie_word_embeddings", true.into());
    for processes in [1, 3] {
        let words = room.words("export --src @out --hf-config @m --dst @hf --overwrite");
        command::on(processes, &words).succeeds();
        let one = same.iter().filter(|(name, _)| *name != HEAD);
        let one: Tensors = one
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        tensors::compare(&one, &full(&room.at("hf"))).unwrap();
    }
}

/// Scales that are powers of two are named as such, wherever they lie.
#[test]
fn names_scales_that_are_powers_of_two() {
    let room = Room::new();
    let mut weights = weights();
    let name = "model.layers.0.mlp.up_proj.weight";
    let tensor = weights[name].clone();
    weights.insert(name.into(), Tensor::counting("F8_E4M3", &tensor.shape, 0));
    for (ending, config) in [
        (
            "_scale_inv",
            serde_json::json!({"quant_method": "fp8", "weight_block_size": [16, 16], "scale_fmt": "ue8m0"}),
        ),
        ("_scale", serde_json::Value::Null),
    ] {
        let mut all = weights.clone();
        let scales = Tensor::counting("F8_E8M0", &[1, 1], 127);
        all.insert(format!("{name}{ending}"), scales);
        room.put("m/model.safetensors", &all);
        room.configure("quantization_config", config);
        says(
            &room.run(IMPORT),
            &[
                &format!("{name}{ending}: is F8_E8M0"),
                "powers of two",
                "ue8m0",
            ],
        );
    }
}

/// A pair for the embedding of a tied model changes the head, too, and that is told.
#[test]
fn tells_that_a_pair_for_a_tied_embedding_changes_the_head() {
    let room = Room::new();
    room.configure("tie_word_embeddings", true.into());
    let mut weights = weights();
    weights.remove(HEAD);
    room.put("m/model.safetensors", &weights);
    let [rows, columns] = weights[EMBEDDING].shape[..] else {
        unreachable!("a matrix")
    };
    let name = |part: &str| format!("base_model.model.model.embed_tokens.lora_embedding_{part}");
    let adapter = Tensors::from([
        (name("A"), Tensor::counting("F32", &[1, rows], 3)),
        (name("B"), Tensor::counting("F32", &[columns, 1], 3)),
    ]);
    room.put("ad/adapter_model.safetensors", &adapter);
    tensors::write_bytes(
        &room.at("ad/adapter_config.json"),
        br#"{"r": 1, "lora_alpha": 1}"#,
    );
    let run = room.run(&format!("{IMPORT} --lora @ad")).succeeds();
    assert!(run.stdout.contains("changes the head, too"), "{run:#?}");
}

/// Where head and embedding are one and the files call it the head, that is the embedding.
#[test]
fn a_tied_head_stands_for_the_embedding() {
    let room = Room::new();
    let mut weights = weights();
    room.put("m/model.safetensors", &weights);
    room.run(IMPORT).succeeds();
    let right = room.out()[EMBEDDED].clone();
    let embedding = weights.remove(EMBEDDING).unwrap();
    weights.insert(HEAD.into(), embedding);
    room.put("m/model.safetensors", &weights);
    says(&room.run(IMPORT), &["model.embed_tokens.weight: "]);
    room.configure("tie_word_embeddings", true.into());
    let run = room.run(IMPORT).succeeds();
    assert!(
        run.stdout
            .contains("lm_head.weight is taken for the embedding"),
        "{run:#?}"
    );
    assert_eq!(room.out()[EMBEDDED], right);
}

/// Files that by name belong to those of an index, which doesn't list them, are not left aside.
#[test]
fn an_index_that_does_not_list_a_file_is_refused() {
    let room = Room::sharded();
    room.reindex(|map| map.retain(|_, file| file.as_str() == Some(SHARDS[0])));
    let told = format!("which lists 1 file and not {}", SHARDS[1]);
    let hint = "--weights 'model-*-of-00002.safetensors' takes all";
    for line in [IMPORT, "unify --src @m --dst @out"] {
        says(&room.run(line), &[INDEX, &told, hint]);
    }
    room.run(&format!("{IMPORT} --weights model-*-of-00002.safetensors"))
        .succeeds();
    // Those of another save have another number of files.
    let room = Room::sharded();
    room.put("m/model-00001-of-00003.safetensors", &part(0));
    let run = room.run(IMPORT).succeeds();
    assert!(run.stdout.contains("is left aside"), "{run:#?}");
}

/// An index of PyTorch's files beside other weights is told of.
#[test]
fn tells_of_an_index_that_is_left_aside() {
    let room = Room::single();
    let index = room.at("m/pytorch_model.bin.index.json");
    std::fs::write(index, r#"{"weight_map": {"w": "pytorch_model.bin"}}"#).unwrap();
    let run = room.run(IMPORT).succeeds();
    let told =
        "pytorch_model.bin.index.json and its files are left aside: model.safetensors is taken";
    assert!(run.stdout.contains(told), "{run:#?}");
}

/// A config.json that lacks what tells the family, or stands for another file.
#[test]
fn says_what_a_config_lacks() {
    let room = Room::single();
    let whole = std::fs::read(room.at("m/config.json")).unwrap();
    let mut keys: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&whole).unwrap();
    let mut run = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        change(&mut keys);
        let text = serde_json::to_vec(&keys).unwrap();
        std::fs::write(room.at("m/config.json"), text).unwrap();
        room.run(IMPORT)
    };
    run(&|keys| {
        keys.insert("hidden_size".into(), 16.0.into());
    })
    .succeeds();
    let off = serde_json::json!({"load_in_4bit": false, "load_in_8bit": false});
    run(&|keys| {
        keys.insert("quantization_config".into(), off.clone());
    })
    .succeeds();
    // The architecture tells the family, too.
    run(&|keys| drop(keys.remove("model_type"))).succeeds();
    tensors::compare(&imported(), &room.out()).unwrap();
    let fails = run(&|keys| drop(keys.remove("architectures")));
    says(
        &fails,
        &[
            "config.json: has no model_type",
            "--family takes one of llama",
        ],
    );
    std::fs::write(room.at("m/config.json"), "../../blobs/4a1c34b9").unwrap();
    says(
        &room.run(IMPORT),
        &[
            "config.json: is a link that a copy made a text: ../../blobs/4a1c34b9",
            "cp -rL",
        ],
    );
}

#[test]
fn reads_small_files_as_python_and_windows_write_them() {
    let right = imported();
    let room = Room::sharded();
    let text = std::fs::read_to_string(room.at("m/config.json")).unwrap();
    let odd = text.replacen('{', "\u{feff}{\"scale\": -Infinity, \"other\": [NaN],", 1);
    std::fs::write(room.at("m/config.json"), &odd).unwrap();
    let index = std::fs::read_to_string(room.at("m").join(INDEX)).unwrap();
    std::fs::write(room.at("m").join(INDEX), format!("\u{feff}{index}")).unwrap();
    room.run(IMPORT).succeeds();
    tensors::compare(&right, &room.out()).unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 1234\n";
    for (text, told) in [
        (
            pointer,
            "is a Git LFS pointer: a text that stands for 1234 bytes",
        ),
        (
            "{\"a\": 1,}",
            "config.json: is no JSON object: trailing comma at line 1",
        ),
    ] {
        std::fs::write(room.at("m/config.json"), text).unwrap();
        says(&room.run(IMPORT), &[told]);
    }
    std::fs::remove_file(room.at("m/config.json")).unwrap();
    says(&room.run(IMPORT), &["has no config.json"]);
    link(&room, "../blobs/0b", "config.json");
    says(
        &room.run(IMPORT),
        &["config.json: is a link to ../blobs/0b, where nothing is"],
    );
    says(
        &room.run("import --hf a/b --dst @x"),
        &["nothing is downloaded"],
    );
    let cached = room.at("hub/models--a--b/snapshots/12/x");
    std::fs::create_dir_all(cached).unwrap();
    says(
        &room.run("import --hf @hub/models--a--b --dst @x"),
        &["hub/models--a--b/snapshots/12"],
    );
}

#[test]
fn copies_what_belongs_to_a_model_and_says_what_does_not() {
    let room = Room::single();
    room.run(IMPORT).succeeds();
    let config = room.at("m/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let odd = text.replacen('{', "{\"scale\": NaN, \"torch_dtype\": \"float64\",", 1);
    std::fs::write(&config, odd).unwrap();
    std::fs::create_dir(room.at("m/additional_chat_templates")).unwrap();
    let along = [
        "tokenizer.json",
        "tokenizer.model.v3",
        "additional_chat_templates/tool.jinja",
    ];
    let left = [
        "adapter_config.json",
        "trainer_state.json",
        "hf_quant_config.json",
        "train.txt",
    ];
    // As in a hub's cache, where each is a link.
    std::fs::create_dir(room.at("blobs")).unwrap();
    let content = |name: &str| {
        format!("{{\"{name}\": 1}}").repeat(if name == along[0] { 1 << 18 } else { 1 })
    };
    for (number, name) in along.iter().chain(&left).enumerate() {
        let blob = room.at(&format!("blobs/{number}"));
        std::fs::write(&blob, content(name)).unwrap();
        std::os::unix::fs::symlink(blob, room.at("m").join(name)).unwrap();
    }
    let state = std::fs::OpenOptions::new()
        .write(true)
        .open(room.at("m/trainer_state.json"));
    state.unwrap().set_len(140 << 20).unwrap();
    let huge = std::fs::File::create(room.at("m/dataset.json")).unwrap();
    huge.set_len(200 << 20).unwrap();
    let export = "export --src @out --hf-config @m --overwrite --dst";
    let run = room.run(&format!("{export} @back"));
    says(
        &run,
        &["adapter_config.json, dataset.json, hf_quant_config.json and 2 more are not copied"],
    );
    tensors::compare(&weights(), &full(&room.at("back"))).unwrap();
    for name in along {
        let copy = room.at("back").join(name);
        assert!(!copy.is_symlink(), "{name}");
        assert!(
            std::fs::read(copy).unwrap() == content(name).into_bytes(),
            "{name}"
        );
    }
    for name in left {
        assert!(!room.at("back").join(name).exists(), "{name}");
    }
    // What is written, not what was once trained in.
    let told = |dtype: &str| {
        let config = std::fs::read_to_string(room.at("back/config.json")).unwrap();
        assert!(
            config.contains(&format!("\"torch_dtype\": \"{dtype}\"")),
            "{config}"
        );
        assert!(config.contains("\"scale\": NaN"), "{config}");
    };
    let written = &weights()[EMBEDDING].dtype;
    told(if written == "BF16" {
        "bfloat16"
    } else {
        "float32"
    });
    room.run(&format!("{export} @back --dtype f16")).succeeds();
    told("float16");
    std::fs::write(
        room.at("m/tokenizer.json"),
        "version https://git-lfs.github.com/spec/v1\nsize 7\n",
    )
    .unwrap();
    says(
        &room.run(&format!("{export} @back2")),
        &["tokenizer.json: is a Git LFS pointer"],
    );
}

#[test]
fn gives_a_vocabulary_the_rows_that_are_asked_for() {
    let room = Room::single();
    let rows = weights()[EMBEDDING].shape[0];
    room.run(IMPORT).succeeds();
    let plain = room.out();
    let (embedding, head) = ("model.tok_embeddings.embedding_weight", "lm_head.weight");
    let resized = |tensor: &Tensor, rows: usize| {
        let mut tensor = tensor.clone();
        let row = tensor.data.len() / tensor.shape[0];
        tensor.data.resize(rows * row, 0);
        tensor.shape[0] = rows;
        tensor
    };
    let told = format!("{embedding} from {rows} to {} rows", rows + 9);
    let words = room.words(&format!("{IMPORT} --vocab-rows {} --memory 1MiB", rows + 9));
    for run in [alone(&words), under_mpi(2, &words)] {
        says(&run, &["filled with zeros: ", &told]);
        let mut right = plain.clone();
        for name in [embedding, head] {
            right.insert(name.into(), resized(&plain[name], rows + 9));
        }
        tensors::compare(&right, &room.out()).unwrap();
    }
    let export = "export --src @out --hf-config @m --overwrite --dst @back";
    let refused = room.run(export);
    says(
        &refused,
        &[&format!(
            "it has {} rows, vocab_size of config.json is {rows}",
            rows + 9
        )],
    );
    says(
        &refused,
        &[
            "writes so many rows as config.json says",
            &format!("--vocab-rows {} as many as there are", rows + 9),
        ],
    );
    room.run(&format!("{export} --vocab-rows {rows}"))
        .succeeds();
    tensors::compare(&weights(), &full(&room.at("back"))).unwrap();
    room.run(&format!("{export} --vocab-rows {}", rows + 9))
        .succeeds();
    let config = std::fs::read_to_string(room.at("back/config.json")).unwrap();
    assert!(
        config.contains(&format!("\"vocab_size\": {}", rows + 9)),
        "{config}"
    );
    room.run(&format!("{IMPORT} --vocab-rows 5 --dtype f32"))
        .succeeds();
    assert_eq!(room.out()[head].shape[0], 5);
    // The way in: the weights have other rows than config.json says.
    let config = room.at("m/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let fewer = text.replace(
        &format!("\"vocab_size\": {rows}"),
        &format!("\"vocab_size\": {}", rows - 1),
    );
    assert_ne!(text, fewer);
    std::fs::write(&config, fewer).unwrap();
    let refused = room.run("import --hf @m --dst @out3 --names legacy");
    let told = format!(
        "it has {rows} rows, vocab_size of config.json is {}",
        rows - 1
    );
    says(
        &refused,
        &[
            "model.embed_tokens.weight",
            &told,
            "writes so many rows as config.json says",
        ],
    );
}

/// Full weights and those of ranks are told where a trainer's run stands.
#[test]
fn imported_weights_stand_where_the_step_says() {
    let room = Room::single();
    let meta = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(room.at(path)).unwrap()).unwrap()
    };
    for processes in [1, 4] {
        let line =
            "import --hf @m --dst @ranks --dst-strategy tp=2 --names legacy --step 2_7 --overwrite";
        let words = room.words(line);
        if processes == 1 {
            alone(&words)
        } else {
            under_mpi(processes, &words)
        }
        .succeeds();
        for rank in 0..2 {
            let file = format!("net_rank_{rank}-2_7.safetensors");
            let due = serde_json::json!({"last_epoch": 2, "last_step": 7, "last_ckpt_file": file});
            assert_eq!(meta(&format!("ranks/rank_{rank}/meta.json")), due);
            assert!(room.at(&format!("ranks/rank_{rank}/{file}")).exists());
        }
    }
    says(&room.run("checkpoints latest @ranks"), &["2_7: step 7"]);
    room.run("unify --src @ranks --src-strategy tp=2 --model @m --dst @out --step 9")
        .succeeds();
    let due = serde_json::json!({"last_epoch": 1, "last_step": 9, "last_ckpt_file": INDEX});
    assert_eq!(meta("out/meta.json"), due);
    room.run(&format!("{IMPORT} --step 3_4")).succeeds();
    assert_eq!(meta("out/meta.json")["last_epoch"], 3);
    room.run("verify @out").succeeds();
    for more in [
        "--format checkpoint2 --dst-strategy tp=2 --names legacy",
        "--format checkpoint2",
        "--format megatron",
    ] {
        let line = format!("import --hf @m --dst @out --step 9 --overwrite {more}");
        room.run(&line).succeeds();
        let tracker = room.at("out/latest_checkpointed_iteration.txt");
        assert_eq!(std::fs::read_to_string(tracker).unwrap().trim(), "9");
        let latest = room.run("checkpoints latest @out");
        says(&latest, &["9: step 9", "complete"]);
    }
}

/// Rows that are cut off are part of what a manifest tells: where they are few bytes they are read for that.
#[test]
fn finds_damage_in_a_vocabulary_of_which_rows_are_cut_off() {
    let rows = weights()[EMBEDDING].shape[0];
    for (more, row) in [(1, rows), (1, 0), (rows, rows)] {
        let room = Room::single();
        room.run(&format!("{IMPORT} --vocab-rows {}", rows + more))
            .succeeds();
        let file = std::fs::read_dir(room.at("out")).unwrap();
        let mut files = file.map(|entry| entry.unwrap().path());
        let file = files.find(|path| path.extension().is_some_and(|e| e == "safetensors"));
        let (file, head) = (file.unwrap(), "lm_head.weight");
        let tensor = &room.out()[head];
        let mut bytes = std::fs::read(&file).unwrap();
        let begin = bytes
            .windows(tensor.data.len())
            .position(|part| part == tensor.data);
        bytes[begin.unwrap() + row * (tensor.data.len() / tensor.shape[0])] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let export =
            format!("export --src @out --hf-config @m --vocab-rows {rows} --overwrite --dst @back");
        let words = room.words(&export);
        for run in [alone(&words), under_mpi(4, &words)] {
            says(&run, &["lm_head.weight", "not as they were"]);
        }
        room.run(&format!("{export} --verify none")).succeeds();
    }
}

/// The tensors of a model with those of its experts in one for all, as transformers 5 has them: the first matrix with
/// the second below it, and the third.
fn experts_together(apart: &Tensors, matrices: [&str; 3]) -> Tensors {
    let mut together = Tensors::new();
    for (name, tensor) in apart {
        let name = name.replace(".block_sparse_moe.", ".mlp.");
        let Some((room, rest)) = name.split_once(".experts.") else {
            together.insert(name, tensor.clone());
            continue;
        };
        let matrix = rest.split('.').nth(1).unwrap();
        if rest.split('.').next() != Some("0") || matrix == matrices[1] {
            continue;
        }
        let (whole, parts) = match matrix == matrices[2] {
            true => ("down_proj", &matrices[2..]),
            false => ("gate_up_proj", &matrices[..2]),
        };
        let of = |expert: usize, part: &str| {
            let ending = format!(".experts.{expert}.{part}.weight");
            let layer = room.rsplit_once('.').unwrap().0;
            let mut names = apart.iter();
            let own =
                |name: &str| name.starts_with(&format!("{layer}.")) && name.ends_with(&ending);
            names.find(|(name, _)| own(name)).map(|(_, tensor)| tensor)
        };
        let (mut data, mut experts) = (Vec::new(), 0);
        while of(experts, matrix).is_some() {
            for part in parts {
                data.extend(&of(experts, part).unwrap().data);
            }
            experts += 1;
        }
        let shape = vec![experts, parts.len() * tensor.shape[0], tensor.shape[1]];
        let dtype = tensor.dtype.clone();
        let fused = Tensor { dtype, shape, data };
        together.insert(format!("{room}.experts.{whole}"), fused);
    }
    together
}

/// Experts in one tensor are what they are each in their own.
#[test]
fn reads_experts_in_one_tensor() {
    for (family, matrices) in [
        ("qwen3_moe", ["gate_proj", "up_proj", "down_proj"]),
        ("mixtral", ["w1", "w3", "w2"]),
    ] {
        let recorded = fixtures::data().join("model").join(family).join("hf");
        let apart = tensors::read(&recorded.join("model.safetensors"))
            .unwrap()
            .tensors;
        let mut fused = experts_together(&apart, matrices);
        assert!(fused.len() < apart.len());
        let room = Room::new();
        std::fs::copy(recorded.join("config.json"), room.at("m/config.json")).unwrap();
        for flags in [
            "--names mcore --experts stacked",
            "--names mcore --experts separate",
        ] {
            let import = format!("import --hf @m --overwrite {flags} --dst");
            room.put("m/model.safetensors", &apart);
            room.run(&format!("{import} @apart")).succeeds();
            room.put("m/model.safetensors", &fused);
            room.run(&format!("{import} @out")).succeeds();
            tensors::compare(&full(&room.at("apart")), &room.out()).unwrap();
        }
        let turned = fused
            .iter_mut()
            .find(|(name, _)| name.ends_with("gate_up_proj"));
        let shape = &mut turned.unwrap().1.shape;
        (shape[1], shape[2]) = (shape[1] / 2, shape[2] * 2);
        room.put("m/model.safetensors", &fused);
        says(
            &room.run("import --hf @m --dst @x --names mcore"),
            &["experts in one tensor are read as [experts, rows, columns], gate before up"],
        );
    }
}

/// A head that config.json says is the embedding, and that is another one, is no copy to leave out.
// proves P141
#[test]
fn asks_about_a_head_that_is_no_copy() {
    let room = Room::single();
    let config = room.at("m/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace(
        "\"tie_word_embeddings\": false",
        "\"tie_word_embeddings\": true",
    );
    std::fs::write(&config, &text).unwrap();
    assert!(text.contains("\"tie_word_embeddings\": true"));
    let refused = room.run(IMPORT);
    says(
        &refused,
        &[
            "lm_head.weight: ",
            "its elements are unlike those of 'model.embed_tokens.weight'",
            "tie_word_embeddings",
        ],
    );
    assert!(!room.at("out").exists());
    room.run(&format!("{IMPORT} --allow-extra")).succeeds();
    let mut equal = weights();
    equal.insert("lm_head.weight".into(), equal[EMBEDDING].clone());
    room.put("m/model.safetensors", &equal);
    room.run(IMPORT).succeeds();
    assert!(!room.out().contains_key("lm_head.weight"));
}

/// Finite numbers that the type written has no room for are infinite there, and told of.
#[test]
fn tells_of_numbers_that_become_infinite() {
    let room = Room::new();
    let (mut all, name) = (weights(), "model.norm.weight");
    let norm = all.get_mut(name).unwrap();
    let count = norm.shape[0];
    let mut values = vec![1f32; count];
    values[..5].copy_from_slice(&[65519.0, 65520.0, -1e9, f32::INFINITY, f32::NAN]);
    let (dtype, data) = ("F32".into(), values.iter().flat_map(|v| v.to_le_bytes()));
    *norm = Tensor {
        dtype,
        data: data.collect(),
        ..norm.clone()
    };
    room.put("m/model.safetensors", &all);
    let import = "import --hf @m --names legacy --overwrite --dst @out --dtype";
    let told = "2 elements of 1 tensor (model.norm_out.weight) became infinite";
    let words = room.words(&format!("{import} f16"));
    let sent = [words.clone(), room.words("--exchange collective")].concat();
    for run in [alone(&words), under_mpi(2, &sent)] {
        assert!(run.status.success(), "{run:#?}");
        says(&run, &[told]);
        let written = &room.out()["model.norm_out.weight"];
        let bits = |at: usize| u16::from_le_bytes([written.data[2 * at], written.data[2 * at + 1]]);
        let halves = [bits(0), bits(1), bits(2), bits(3)];
        assert_eq!(halves, [0x7bff, 0x7c00, 0xfc00, 0x7c00]);
    }
    for dtype in ["bf16", "f32"] {
        let run = room.run(&format!("{import} {dtype}"));
        assert!(run.status.success(), "{run:#?}");
        assert!(!run.stdout.contains("infinite"), "{run:#?}");
    }
}

/// What a job would find out about an index is said by `inspect`, too.
#[test]
fn inspect_compares_an_index_with_its_files() {
    let room = Room::sharded();
    let quiet = room.run("inspect @m");
    assert!(!quiet.stdout.contains("  note "), "{quiet:#?}");
    room.reindex(|map| {
        map[EMBEDDING] = SHARDS[0].into();
        map.remove("model.norm.weight");
    });
    let run = room.run("inspect @m --param *norm*");
    assert!(run.status.success(), "{run:#?}");
    let run = room.run("inspect @m");
    says(
        &run,
        &[
            "note       1 tensor (model.embed_tokens.weight) is in another file",
            "note       1 tensor (model.norm.weight) is not in",
        ],
    );
    room.reindex(|map| {
        map.insert("ghost".into(), SHARDS[0].into());
    });
    says(&room.run("inspect @m"), &["ghost: says that it is in"]);
}

/// What a copy has made of links, and what a file can't be.
#[test]
fn says_what_is_wrong_with_a_file_in_the_place_of_weights() {
    let room = Room::new();
    std::fs::write(room.at("m/model.safetensors"), "../../blobs/00aa").unwrap();
    let run = room.run("unify --src @m --dst @out");
    says(&run, &["is a link that a copy made a text", "cp -rL"]);
    let header = concat!(
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"#,
        r#""b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes().chain([0; 4]));
    std::fs::write(room.at("m/model.safetensors"), bytes).unwrap();
    let run = room.run("unify --src @m --dst @out");
    says(&run, &["are of the same bytes", "save_model"]);
    std::fs::create_dir(room.at("ranks")).unwrap();
    std::fs::write(room.at("ranks/rank_0"), "../src/rank_0").unwrap();
    let run = room.run("unify --src @ranks --dst @out");
    says(&run, &["rank_0 is a file where a directory is meant"]);
}

/// `--weights` chooses among files, or is refused: never passed over.
#[test]
fn chooses_weights_only_where_there_is_a_choice() {
    let room = Room::single();
    room.run("unify --src @m/model.safetensors --weights model* --dst @one")
        .succeeds();
    let run = room.run("unify --src @m/model.safetensors --weights x* --dst @out");
    says(&run, &["--weights 'x*'", "one file of another name"]);
    room.put("ranks/rank_0/net.safetensors", &weights());
    let run = room.run("unify --src @ranks --weights net* --dst @out");
    says(&run, &["this is rank directories", "--file-suffix"]);
    assert!(!room.at("out").exists());
}

/// Files with names that transformers' loaders know are marked for these, whoever writes them.
#[test]
fn marks_files_for_those_who_know_their_names() {
    let room = Room::single();
    let format = |path: &str| {
        let file = tensors::read(&room.at(path)).unwrap();
        file.metadata["format"].clone()
    };
    room.run("split --src @m --dst @ranks").succeeds();
    assert_eq!(format("ranks/rank_0/net.safetensors"), "pt");
    room.run("convert @m/model.safetensors --to ckpt --dst @ck")
        .succeeds();
    room.run("convert @ck --to safetensors --dst @back")
        .succeeds();
    assert_eq!(format("back/model.safetensors"), "pt");
    // Full weights of .ckpt files are what such loaders read, too; those of ranks stay as they are.
    room.run("unify --src @ck --dst @full").succeeds();
    assert_eq!(format("full/model-00001-of-00001.safetensors"), "pt");
    room.run("split --src @ck --dst @cut").succeeds();
    assert!(room.at("cut/rank_0/net.ckpt").exists());
}

/// A model's directory may be made of links: what they lead to is read, and not replaced.
#[test]
fn what_a_model_of_links_leads_to_is_not_replaced() {
    let room = Room::single();
    let line = "export --src @ms --hf-config @m --dst @out";
    room.run("import --hf @m --dst @ms").succeeds();
    room.run(line).succeeds();
    std::fs::create_dir(room.at("farm")).unwrap();
    std::fs::copy(
        room.at("m/model.safetensors"),
        room.at("farm/model.safetensors"),
    )
    .unwrap();
    std::os::unix::fs::symlink("../out/config.json", room.at("farm/config.json")).unwrap();
    for line in [
        "import --hf @farm --dst @out --overwrite",
        "split --src @ms --dst @out --dst-strategy dp=1,tp=2 --model @farm --overwrite",
        "export --src @ms --hf-config @farm --dst @out --overwrite",
        "to hf --src @ms --model @farm --dst @out --overwrite",
    ] {
        let run = room.run(line);
        assert_eq!(run.status.code(), Some(2), "{run:#?}");
        says(
            &run,
            &["contains the file that", "farm/config.json leads to"],
        );
        assert!(room.at("farm/config.json").exists(), "{line}");
    }
    room.run(&format!("{line} --overwrite")).succeeds();
}

/// What PyTorch's writer of this form saves without parts is a model as any other; what tells how parts lie stays behind.
#[test]
fn a_model_that_pytorch_has_consolidated_is_whole() {
    let room = Room::new();
    let told = |begin: usize| {
        let places =
            r#"{\"a\": {\"saved_offsets\": [BEGIN, 0]}}"#.replace("BEGIN", &begin.to_string());
        format!(
            r#"{{"__metadata__":{{"DCP_SHARDING_INFO":"{places}","DCP_VERSION":"1.0"}},"a":{{"dtype":"U8","shape":[4,2],"data_offsets":[0,8]}}}}"#
        )
    };
    let data: Vec<u8> = (0..8).collect();
    let file = "model-00001-of-00001.safetensors";
    for (begin, name) in [(0, file), (4, file), (0, "rank0.safetensors")] {
        std::fs::remove_dir_all(room.at("m")).unwrap();
        tensors::write_raw(&room.at("m").join(name), &told(begin), &data);
        let run = room.run("unify --src @m --dst @out");
        if (begin, name) != (0, file) {
            says(&run, &["is a part of a PyTorch distributed checkpoint"]);
            continue;
        }
        run.succeeds();
        let made = tensors::read(&room.at("out").join(file)).unwrap();
        assert_eq!(made.tensors["a"].data, data);
        assert!(
            !made.metadata.contains_key("DCP_SHARDING_INFO"),
            "{:?}",
            made.metadata
        );
        std::fs::remove_dir_all(room.at("out")).unwrap();
    }
}
