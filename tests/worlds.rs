//! Checkpoints of other frameworks, written by these themselves: read bit-equal by every command, and
//! refused by name where they lie.

use crate::support::tensors::{Tensor, Tensors, compare, read};
use crate::support::{Run, command, fixtures, tensors};
use command::{error_line, object};
use serde_json::Value;
use shardloom::store::manifest::Manifest;
use std::path::{Path, PathBuf};

mod kept;
mod lies;
mod saves;
mod whole;

fn case(name: &str) -> PathBuf {
    fixtures::data().join("worlds").join(name)
}

fn manifest(name: &str) -> Value {
    let text = std::fs::read(case(name).join("manifest.json")).expect("a manifest");
    serde_json::from_slice(&text).expect("JSON")
}

fn expected(name: &str) -> Tensors {
    read(&case(name).join("expected.safetensors"))
        .expect("what is due")
        .tensors
}

fn source(name: &str) -> String {
    let inside = manifest(name)["src"].as_str().expect("a path").to_owned();
    case(name).join(inside).display().to_string()
}

fn run(processes: u32, line: &str) -> Run {
    let args: Vec<&str> = line.split(' ').collect();
    command::on(processes, &args)
}

/// All tensors of the safetensors files in a directory, but for those of hyper parameters.
fn full(directory: &Path) -> Tensors {
    let mut all = Tensors::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if name.ends_with(".safetensors") && !name.starts_with("hyper") {
            all.extend(read(&path).expect("it is read").tensors);
        }
    }
    all
}

const READ: [&str; 15] = [
    "dcp_plain",
    "dcp_shard0",
    "dcp_values",
    "dcp_hf_shards",
    "mg_tp2",
    "mg_runs",
    "pt_views",
    "pt_training",
    "dyn_dp2tp2",
    "ds_zero1",
    "ds_zero2",
    "ds_zero3",
    "ds_universal",
    "ds_universal3",
    "hyper_parallel",
];

#[test]
fn what_they_wrote_is_read_bit_equal() {
    let room = tempfile::tempdir().expect("a directory");
    for (number, name) in READ.into_iter().enumerate() {
        let out = room.path().join(name);
        let (src, dst) = (source(name), out.display());
        let processes = if number % 3 == 1 { 4 } else { 1 };
        run(processes, &format!("unify --src {src} --dst {dst}")).succeeds();
        let found = full(&out);
        compare(&expected(name), &found).unwrap_or_else(|why| unreachable!("{name}: {why}"));
        let found = run(1, &format!("diff {src} {dst} --json"));
        assert_eq!(object(&found)["equal"], true, "{name}: {found:#?}");
        let shown = object(&run(1, &format!("inspect {src} --json")).succeeds());
        if name == "dyn_dp2tp2" {
            continue;
        }
        let files = shown["files"].as_array().expect("files");
        let tensors = files
            .iter()
            .flat_map(|file| file["tensors"].as_array().expect("tensors"));
        let shapes: Vec<(&str, &Value)> = tensors
            .map(|tensor| (tensor["name"].as_str().expect("a name"), &tensor["shape"]))
            .collect();
        let due = manifest(name);
        let due = due["tensors"].as_object().expect("tensors");
        assert_eq!(shapes.len(), due.len(), "{name}: {shapes:?}");
        for (tensor, shape) in shapes {
            assert_eq!(&due[tensor]["shape"], shape, "{name}: {tensor}");
        }
    }
}

#[test]
fn values_are_shown_and_counts_are_written_once() {
    let shown = object(&run(1, &format!("inspect {} --json", source("dcp_values"))).succeeds());
    let files = shown["files"].as_array().expect("files");
    let told = |key: &str| {
        let found = files.iter().find_map(|file| file["metadata"][key].as_str());
        found.unwrap_or_default().to_owned()
    };
    let values = [
        told("config.heads"),
        told("lr"),
        told("name"),
        told("list"),
        told("flag"),
    ];
    let due = [
        "4",
        "0.00025",
        "\"a run – größer\"",
        "[1,\"two\",3.0]",
        "true",
    ];
    assert_eq!(values, due);
    let room = tempfile::tempdir().expect("a directory");
    let out = room.path().join("out");
    run(
        1,
        &format!(
            "unify --src {} --dst {}",
            source("dyn_dp2tp2"),
            out.display()
        ),
    )
    .succeeds();
    let hyper = read(&out.join("hyper_param.safetensors"))
        .expect("counts")
        .tensors;
    assert!(
        !hyper.contains_key("global_step"),
        "it is among the weights"
    );
    assert_eq!(hyper["consumed_samples"].data, 320i64.to_le_bytes());
}

#[test]
fn what_lies_in_parts_is_compared_from_either_side() {
    for (processes, name) in [
        (1, "pt_views"),
        (1, "mg_tp2"),
        (2, "dcp_shard0"),
        (1, "dcp_hf_shards"),
    ] {
        let room = tempfile::tempdir().expect("a directory");
        let (src, full) = (source(name), room.path().join("full"));
        let whole = full.display();
        run(1, &format!("unify --src {src} --dst {whole}")).succeeds();
        std::fs::remove_file(full.join("shardloom.json")).expect("a manifest");
        let sides = [
            format!("diff {whole} {src} --json"),
            format!("diff {src} {whole} --json"),
        ];
        let equal = |line: &String| {
            let told = object(&run(processes, line));
            let tensors = told["tensors"].as_array().expect("a list");
            let equal = tensors.iter().filter(|tensor| tensor["state"] == "equal");
            (equal.count(), tensors.len())
        };
        for line in &sides {
            let (equal, all) = equal(line);
            assert!(equal == all && all > 0, "{name}: {line}");
        }
        let path = full.join("model-00001-of-00001.safetensors");
        let mut tensors = read(&path).expect("a file").tensors;
        let empty = tensors.values().filter(|tensor| tensor.data.is_empty());
        let empty = empty.count();
        for tensor in tensors.values_mut() {
            // The last element of each.
            if let Some(byte) = tensor.data.last_mut() {
                *byte ^= 1;
            }
        }
        tensors::write(&path, &tensors);
        for line in &sides {
            assert_eq!(equal(line).0, empty, "{name}: {line}");
        }
    }
}

/// Copies what is in a directory into another.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &to),
            false => std::fs::write(&to, std::fs::read(&path).expect("a file")).expect("a copy"),
        }
    }
}

/// Copies the files of a source into a directory.
fn copied(name: &str, room: &Path) -> PathBuf {
    let to = room.join("src");
    copy(Path::new(&source(name)), &to);
    to
}

// proves P105
#[test]
fn a_distributed_checkpoint_is_written_and_read_back() {
    let room = tempfile::tempdir().expect("a directory");
    let at = |name: &str| room.path().join(name).display().to_string();
    let src = source("dcp_plain");
    run(1, &format!("unify --src {src} --dst {}", at("full"))).succeeds();
    let rules = "--rule layers.0.q.weight=tp,- --rule layers.0.k.weight=tp,-";
    let weights = at("full");
    run(
        1,
        &format!(
            "strategy new --mesh dp=2,tp=2 {rules} --weights {weights} --output {}",
            at("s.ckpt")
        ),
    )
    .succeeds();
    let cut = format!(
        "split --src {src} --dst-strategy {} --dst {} --format dcp",
        at("s.ckpt"),
        at("dcp")
    );
    run(4, &cut).succeeds();
    let files = fixtures::listing(&room.path().join("dcp"));
    assert!(
        files.iter().any(|path| path.ends_with("__1_0.distcp")),
        "{files:?}"
    );
    let found = run(1, &format!("diff {src} {} --json", at("dcp")));
    assert_eq!(object(&found)["equal"], true, "{found:#?}");
    run(1, &format!("verify {}", at("dcp"))).succeeds();
    repaired_from_full_weights(room.path());
    run(
        4,
        &format!("unify --src {} --dst {}", at("dcp"), at("again")),
    )
    .succeeds();
    let again = full(&room.path().join("again"));
    compare(&expected("dcp_plain"), &again).unwrap_or_else(|why| unreachable!("{why}"));
}

/// What is damaged is made anew of full weights: the checkpoint tells itself which parts are its own.
fn repaired_from_full_weights(room: &Path) {
    let file = room.join("dcp/__1_0.distcp");
    let good = std::fs::read(&file).expect("a file");
    let manifest = Manifest::read(&room.join("dcp"))
        .expect("read")
        .expect("there");
    let record = manifest
        .files
        .iter()
        .find(|file| file.path == "__1_0.distcp");
    let placed = manifest.placed(record.expect("a record"));
    let inside = usize::try_from(placed[0].1[0].0).expect("a place") + 1;
    for (processes, place) in [(1, inside), (4, inside), (1, 3)] {
        let mut bad = good.clone();
        bad[place] ^= 4;
        std::fs::write(&file, bad).expect("written");
        let line = format!("verify {} --repair --json", room.join("dcp").display());
        if processes == 1 && place == inside {
            let told = object(&run(1, &line));
            let notes = told["notes"].to_string();
            assert!(
                told["ok"] == false && notes.contains("--from DIR"),
                "{told:#?}"
            );
        }
        let from = room.join("full").display().to_string();
        run(processes, &format!("{line} --from {from}")).succeeds();
        assert!(std::fs::read(&file).expect("a file") == good, "{place}");
    }
}

/// Who asks for nothing gets safetensors of what is only read, and is told so.
#[test]
fn what_is_only_read_becomes_safetensors() {
    let room = tempfile::tempdir().expect("a directory");
    let at = |name: &str| room.path().join(name).display().to_string();
    let src = source("pt_views");
    let (full_weights, strategy) = (at("full"), at("s.json"));
    run(1, &format!("unify --src {src} --dst {full_weights}")).succeeds();
    let made = format!("strategy new --mesh dp=2 --weights {full_weights} --output {strategy}");
    run(1, &made).succeeds();
    for (number, line) in [
        format!("split --src {src} --dst-strategy {strategy}"),
        format!("reshard --src {src} --dst-strategy {strategy}"),
        format!("to {strategy} --src {src}"),
    ]
    .iter()
    .enumerate()
    {
        let out = at(&format!("out{number}"));
        let told = object(&run(1, &format!("{line} --dst {out} --json")).succeeds());
        let notes = told["notes"].to_string();
        assert!(notes.contains("safetensors files are written"), "{told:#?}");
        let diff = format!("diff {src} {out} --b-strategy {strategy} --json");
        assert_eq!(object(&run(1, &diff).succeeds())["equal"], true, "{line}");
    }
    let copies = room.path().join("copies");
    std::fs::create_dir(&copies).expect("a directory");
    for rank in 0..2 {
        let file = Path::new(&src).join("model.pt");
        std::fs::copy(file, copies.join(format!("x-{rank}.pt"))).expect("copied");
    }
    let pattern = copies.join("x-{rank}.pt").display().to_string();
    run(1, &format!("inspect {pattern}")).succeeds();
    run(
        1,
        &format!("convert {pattern} --to safetensors --dst {}", at("c")),
    )
    .succeeds();
    assert!(room.path().join("c/x-1.safetensors").exists());
    let verified = object(&run(1, &format!("verify {pattern} --json")).succeeds());
    assert_eq!(verified["checked"], 2, "{verified:#?}");
    let foreign = run(
        1,
        &format!("to {strategy} --src {src} --dst {} --dtype f32", at("n")),
    );
    assert!(
        foreign.stderr.contains("--dtype: `shardloom split`"),
        "{foreign:#?}"
    );
}

#[test]
fn files_of_ranks_are_named_by_a_pattern() {
    let room = tempfile::tempdir().expect("a directory");
    let at = |name: &str| room.path().join(name).display().to_string();
    let src = source("dcp_plain");
    run(1, &format!("unify --src {src} --dst {}", at("full"))).succeeds();
    let rules = "--rule layers.0.q.weight=tp,- --rule layers.0.k.weight=tp,-";
    run(
        1,
        &format!(
            "strategy new --mesh tp=2 {rules} --weights {} --output {}",
            at("full"),
            at("s.ckpt")
        ),
    )
    .succeeds();
    run(
        1,
        &format!(
            "split --src {} --dst-strategy {} --dst {}",
            at("full"),
            at("s.ckpt"),
            at("cut")
        ),
    )
    .succeeds();
    std::fs::create_dir(room.path().join("p")).expect("a directory");
    for rank in 0..2 {
        let mut tensors = read(&room.path().join(format!("cut/rank_{rank}/net.safetensors")))
            .expect("a shard")
            .tensors;
        let second = tensors.split_off("layers");
        for (part, tensors) in [(0, tensors), (1, second)] {
            let name = format!("p/model-rank-{rank}-part-{part}.safetensors");
            tensors::write(&room.path().join(name), &tensors);
        }
    }
    let pattern = at("p/model-rank-{rank}-part-{part}.safetensors");
    let line = format!(
        "unify --src {pattern} --src-strategy {} --dst {}",
        at("s.ckpt"),
        at("again")
    );
    run(4, &line).succeeds();
    compare(&expected("dcp_plain"), &full(&room.path().join("again")))
        .unwrap_or_else(|why| unreachable!("{why}"));
    let shown = object(&run(1, &format!("inspect {pattern} --json")).succeeds());
    assert_eq!(
        (&shown["ranks"], shown["files"].as_array().map(Vec::len)),
        (&Value::from(2), Some(4))
    );
    for line in [
        format!(
            "reshard --src {pattern} --src-strategy S --dst-strategy S --dst {}",
            at("r")
        ),
        format!(
            "reshard --src {pattern} --src-strategy S --dst-strategy S --dst {} --format dcp",
            at("d")
        ),
        format!("diff {pattern} {} --a-strategy S", at("full")),
        format!("diff {} {pattern} --b-strategy S", at("full")),
        format!("convert {pattern} --to ckpt --dst {}", at("c")),
    ] {
        run(1, &line.replace(" S", &format!(" {}", at("s.ckpt")))).succeeds();
    }
    assert!(room.path().join("c/model-rank-1-part-1.ckpt").exists());
    let verified = run(1, &format!("verify {pattern}"));
    assert!(
        error_line(&verified).contains("p/shardloom.json"),
        "{verified:#?}"
    );
    let none = run(
        1,
        &format!("unify --src {} --dst {}", at("p/x-{rank}.pt"), at("none")),
    );
    assert!(
        error_line(&none).contains("no file has such a name"),
        "{none:#?}"
    );
}

/// Flips a byte of the first storage called `name` in a file of torch's.
fn damage(file: &Path, name: &str) {
    let mut bytes = std::fs::read(file).expect("it is read");
    let mut names = bytes.windows(name.len());
    let at = names.position(|part| part == name.as_bytes());
    let at = at.expect("it is there");
    let extra = u16::from_le_bytes([bytes[at - 2], bytes[at - 1]]);
    bytes[at + name.len() + usize::from(extra)] ^= 1;
    std::fs::write(file, bytes).expect("written");
}

/// The CRC of each record of torch's zip archives counts, though there is no manifest.
#[test]
fn a_damaged_record_is_named() {
    for (name, file, record) in [
        ("pt_views", "model.pt", "model/data/0"),
        ("dcp_shard0", "__1_0.distcp", "archive/data/0"),
    ] {
        let room = tempfile::tempdir().expect("a directory");
        let src = copied(name, room.path());
        damage(&src.join(file), record);
        let (out, src) = (room.path().join("out"), src.display().to_string());
        let (dst, whole) = (out.display(), case(name).join("expected.safetensors"));
        let whole = whole.display();
        for (processes, line) in [
            (1, format!("unify --src {src} --dst {dst}")),
            (4, format!("unify --src {src} --dst {dst} --memory 64KiB")),
            (2, format!("unify --src {src} --dst {dst} --verify all")),
            (1, format!("diff {src} {whole}")),
            (1, format!("diff {whole} {src} --verify all")),
        ] {
            let run = run(processes, &format!("{line} --json"));
            let told = object(&run);
            assert_eq!(told["error"]["kind"], "corrupt", "{line}: {run:#?}");
            for (key, word) in [("file", file), ("message", record)] {
                let text = told["error"][key].as_str().unwrap_or_default();
                assert!(text.contains(word), "{line}: {told}");
            }
            assert!(told["error"]["tensor"].is_string(), "{line}: {told}");
            assert!(!out.exists());
        }
        let found = run(2, &format!("verify {src} --json"));
        let bad = &object(&found)["bad"];
        assert_eq!(found.status.code(), Some(1), "{found:#?}");
        assert!(
            bad.to_string().contains(record) && bad[0]["file"] == file,
            "{bad}"
        );
        run(1, &format!("verify {}", source(name))).succeeds();
        let line = format!("unify --src {src} --dst {dst} --verify none");
        run(1, &line).succeeds();
    }
}

/// A checkpoint that tells its own layout is read by no other: its parts are no tensors.
#[test]
fn no_strategy_is_read_with_parts() {
    let room = tempfile::tempdir().expect("a directory");
    let at = |name: &str| room.path().join(name).display().to_string();
    let src = source("dcp_plain");
    run(1, &format!("unify --src {src} --dst {}", at("full"))).succeeds();
    let rules = "--rule layers.0.q.weight=tp,-";
    let new = format!(
        "strategy new --mesh tp=2 {rules} --weights {} --output {}",
        at("full"),
        at("s.ckpt")
    );
    run(1, &new).succeeds();
    let strategy = at("s.ckpt");
    for line in [
        format!(
            "unify --src {src} --src-strategy {strategy} --dst {}",
            at("out")
        ),
        format!(
            "reshard --src {src} --src-strategy {strategy} --dst-strategy {strategy} --dst {}",
            at("out")
        ),
        format!("diff {src} {} --a-strategy {strategy}", at("full")),
    ] {
        for processes in [1, 4] {
            let refused = run(processes, &line).fails();
            assert!(
                refused.stderr.contains("tells its own layout"),
                "{line}: {refused:#?}"
            );
            assert!(!room.path().join("out").exists());
        }
    }
}

/// Tensors without elements are one piece, however they are cut.
#[test]
fn empty_tensors_that_are_cut_are_written_and_read() {
    let room = tempfile::tempdir().expect("a directory");
    let at = |name: &str| room.path().join(name).display().to_string();
    let mut weights = Tensors::new();
    weights.insert("columns".into(), Tensor::counting("F32", &[0, 4], 1));
    weights.insert("rows".into(), Tensor::counting("F32", &[4, 0], 1));
    weights.insert("w".into(), Tensor::counting("F32", &[4, 4], 1));
    tensors::write(&room.path().join("full/model.safetensors"), &weights);
    let rules = "--rule columns=-,tp --rule rows=tp,- --rule w=tp,-";
    let new = format!(
        "strategy new --mesh tp=2 {rules} --weights {} --output {}",
        at("full"),
        at("s.ckpt")
    );
    run(1, &new).succeeds();
    for processes in [1, 4] {
        let cut = format!(
            "split --src {} --dst-strategy {} --dst {} --format dcp --overwrite",
            at("full"),
            at("s.ckpt"),
            at("dcp")
        );
        run(processes, &cut).succeeds();
        run(
            processes,
            &format!(
                "unify --src {} --dst {} --overwrite",
                at("dcp"),
                at("again")
            ),
        )
        .succeeds();
        compare(&weights, &full(&room.path().join("again")))
            .unwrap_or_else(|why| unreachable!("{why}"));
    }
}
