//! What single ranks have for themselves, such as a trainer's counts, and ranks that have nothing.

use crate::support::{Run, command, oracle, sample, tensors};
use command::{alone, error_line, object};
use oracle::{Layout, Strategy, to_protobuf};
use sample::{Sample, layout};
use shardloom::store::manifest::{Manifest, TensorRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tensors::{Tensor, Tensors};

const TO_FOUR: &str = "--dst @out --dst-strategy @four.ckpt --overwrite";

fn on(processes: u32, sample: &Sample, line: &str) -> Run {
    command::on(processes, &sample.args(line))
}

fn counts() -> Tensors {
    Tensors::from([
        ("step_num".to_owned(), Tensor::counting("I64", &[], 20)),
        // Before the weights, by name.
        (
            "a.learning_rate".to_owned(),
            Tensor::counting("F32", &[1], 7),
        ),
    ])
}

/// Four ranks as a trainer saves them, each with counts.
fn trained() -> Sample {
    let sample = Sample::new();
    for rank in 0..4 {
        let directory = sample.path(&format!("src/rank_{rank}"));
        let old = directory.join("net.safetensors");
        let mut own = tensors::read(&old).expect("a file").tensors;
        own.extend(counts());
        std::fs::remove_file(old).expect("removed");
        let name = format!("net_rank_{rank}-1_20.safetensors");
        tensors::write(&directory.join(name), &own);
    }
    sample
}

fn told(directory: &Path) -> BTreeMap<String, TensorRecord> {
    let manifest = Manifest::read(directory).expect("readable");
    manifest.expect("a manifest").tensors
}

/// Whoever builds which ranks: the record is the same, and each rank has its `meta.json`.
// proves P129
#[test]
fn counts_are_told_alike_wherever_ranks_are_built() {
    let sample = trained();
    let line = "reshard --src @src --src-strategy @four.ckpt";
    alone(&sample.args(&format!("{line} {TO_FOUR}"))).succeeds();
    let expected = told(&sample.path("out"));
    for (name, tensor) in counts().iter().chain(&sample.whole) {
        let digest = crc_fast::crc64_nvme(&tensor.data);
        assert_eq!(expected[name].digest.0, digest, "{name}");
    }
    // Three processes have one rank or two.
    for (processes, placement) in [
        (2, "identity"),
        (3, "identity"),
        (4, "identity"),
        (3, "auto"),
    ] {
        let placed = format!("{line} {TO_FOUR} --placement {placement}");
        let files = |run: &Run| {
            let outcome = object(run);
            let files = outcome["files"].as_array().expect("a list").iter();
            let files = files.map(|path| path.as_str().expect("a path").to_owned());
            files.collect::<BTreeSet<String>>()
        };
        let before = files(&on(
            processes,
            &sample,
            &format!("{placed} --dry-run --json"),
        ));
        let written = files(&on(processes, &sample, &format!("{placed} --json")));
        assert_eq!(before, written, "{processes} {placement}");
        let on_disk = Manifest::read(&sample.path("out")).expect("readable");
        let on_disk = on_disk.expect("a manifest").files.into_iter();
        let on_disk: BTreeSet<String> = on_disk.map(|file| file.path).collect();
        assert_eq!(written, on_disk, "{processes} {placement}");
        let told = told(&sample.path("out"));
        assert!(told == expected, "{processes} {placement}: {told:#?}");
        for rank in 0..4 {
            let meta = sample.path(&format!("out/rank_{rank}/meta.json"));
            assert!(meta.exists(), "{processes} {placement}: {rank}");
        }
        alone(&sample.args("verify @out")).succeeds();
        let back = "unify --src @out --src-strategy @four.ckpt --dst @back --overwrite";
        on(processes, &sample, back).succeeds();
    }
}

/// One that gets no tensor has a file without any.
#[test]
fn ranks_may_be_without_tensors() {
    let sample = Sample::new();
    let whole = layout(&[4], &[-1, -1]);
    let halves = || layout(&[2], &[0, -1]);
    let one = Strategy::of(&[("w1", whole)]);
    let staged = Strategy {
        items: vec![
            (0, "0-w1".to_owned(), halves()),
            (1, "1-w2".to_owned(), halves()),
        ],
    };
    tensors::write_bytes(&sample.path("one.ckpt"), &to_protobuf(&one));
    tensors::write_bytes(&sample.path("staged.ckpt"), &to_protobuf(&staged));
    let w1 = Tensors::from([("w1".to_owned(), sample.whole["w1"].clone())]);
    tensors::write(&sample.path("w1/model.safetensors"), &w1);
    for (line, strategy) in [
        (
            "split --src @w1 --dst @out --dst-strategy @one.ckpt --remove-redundancy",
            "one",
        ),
        (
            "split --src @w1 --dst @out --dst-strategy @staged.ckpt",
            "staged",
        ),
        (
            "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @staged.ckpt \
             --unmatched drop --filter-out-param-prefix w2",
            "staged",
        ),
    ] {
        for processes in [1, 3] {
            on(processes, &sample, &format!("{line} --overwrite")).succeeds();
            for rank in 0..4 {
                let number = if line.starts_with("split") {
                    String::new()
                } else {
                    rank.to_string()
                };
                let file = sample.path(&format!("out/rank_{rank}/net{number}.safetensors"));
                let read = tensors::read(&file);
                assert!(read.is_ok(), "{line}: {rank}: {:?}", read.err());
            }
            alone(&sample.args("verify @out")).succeeds();
            let back = format!("unify --src @out --src-strategy @{strategy}.ckpt --dst @back");
            on(processes, &sample, &format!("{back} --overwrite")).succeeds();
            let found = tensors::read(&sample.path("back/model-00001-of-00001.safetensors"));
            let found = found.expect("a file").tensors;
            assert!(found == w1, "{line}: {found:?}");
        }
    }
}

/// They travel whatever is done with what no strategy knows.
#[test]
fn counts_beside_full_weights_are_not_dropped() {
    let sample = Sample::new();
    let mut all = sample.whole.clone();
    all.insert("step_num".to_owned(), Tensor::counting("I64", &[], 20));
    all.insert("other".to_owned(), Tensor::counting("F32", &[8], 2));
    tensors::write(&sample.path("more/model.safetensors"), &all);
    for processes in [1, 2] {
        let line = format!("split --src @more {TO_FOUR} --unmatched drop --json");
        let run = on(processes, &sample, &line).succeeds();
        assert_eq!(object(&run)["names_dropped"], serde_json::json!(["other"]));
        for rank in 0..4 {
            let file = sample.path(&format!("out/rank_{rank}/net.safetensors"));
            let found = tensors::read(&file).expect("a file").tensors;
            assert!(found["step_num"] == all["step_num"] && !found.contains_key("other"));
        }
    }
}

/// A layout of which MindSpore's removal keeps no copy says nothing where another tensor of it is there.
#[test]
fn moments_that_were_left_out_are_no_loss() {
    let sample = Sample::new();
    let sharded = || Layout {
        optimizer_step: 1,
        optimizer_size: -1,
        ..layout(&[2, 2], &[1, -1])
    };
    let strategy = Strategy::of(&[("w1", sharded()), ("adam_m.w1", sharded())]);
    tensors::write_bytes(&sample.path("deep.ckpt"), &to_protobuf(&strategy));
    let w1 = sample.whole["w1"].clone();
    let all = Tensors::from([("w1".to_owned(), w1.clone()), ("adam_m.w1".to_owned(), w1)]);
    tensors::write(&sample.path("all/model.safetensors"), &all);
    let line = "reshard --src @all --dst @out --dst-strategy @deep.ckpt --remove-redundancy \
                --filter-out-param-prefix adam_ --overwrite";
    for processes in [1, 3] {
        on(processes, &sample, line).succeeds();
        let back = "unify --src @out --src-strategy @deep.ckpt --dst @back --overwrite";
        on(processes, &sample, back).succeeds();
        let found = tensors::read(&sample.path("back/model-00001-of-00001.safetensors"));
        assert!(found.expect("a file").tensors["w1"] == all["w1"]);
    }
}

/// A second name is given to files of the same format only.
#[test]
fn files_of_another_format_are_not_linked() {
    let sample = Sample::new();
    for format in ["ckpt", "dcp", "dcp-hf", "checkpoint2", "safetensors"] {
        let line = format!(
            "reshard --src @src --src-strategy @four.ckpt {TO_FOUR} --link --format {format}"
        );
        for processes in [1, 2] {
            on(processes, &sample, &line).succeeds();
            let strategy = match format {
                "ckpt" | "safetensors" => "--src-strategy @four.ckpt",
                _ => "",
            };
            let back =
                format!("unify --src @out {strategy} --format safetensors --dst @back --overwrite");
            on(processes, &sample, &back).succeeds();
            let found = tensors::read(&sample.path("back/model-00001-of-00001.safetensors"));
            assert!(found.expect("a file").tensors == sample.whole, "{format}");
            for rank in 0..4 {
                let file = sample.path(&format!("out/rank_{rank}/net{rank}.ckpt"));
                if format == "ckpt" {
                    let bytes = std::fs::read(&file).expect("a file");
                    assert_ne!(bytes.get(8), Some(&b'{'), "a safetensors file");
                }
            }
        }
    }
    let run = alone(&sample.args("reshard --src @src --src-strategy @four.ckpt --dst @out"));
    assert!(error_line(&run).contains("out"), "{run:#?}");
}
