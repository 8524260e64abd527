//! "Done already" and "all there" are proved, never taken from what is absent.

use crate::support::{self, Run, command, fixtures, sample, tensors};
use command::{RESHARD, alone, object, refuses, under_mpi};
use sample::{Sample, image};
use serde_json::Value;
use shardloom::store::manifest::Manifest;
use std::path::Path;

/// The same with a second step.
fn two_steps() -> Sample {
    let sample = one_step();
    for rank in 0..4 {
        let name = |step: u32| {
            sample.path(&format!(
                "src/rank_{rank}/net_rank_{rank}-1_{step}.safetensors"
            ))
        };
        std::fs::copy(name(2), name(4)).expect("copy");
    }
    sample
}

/// The sample with one numbered step on each rank.
fn one_step() -> Sample {
    let sample = Sample::new();
    for rank in 0..4 {
        let directory = sample.path(&format!("src/rank_{rank}"));
        let name = directory.join(format!("net_rank_{rank}-1_2.safetensors"));
        std::fs::rename(directory.join("net.safetensors"), name).expect("rename");
    }
    sample
}

// proves P72, P152
#[test]
fn another_request_in_place_is_not_done_already() {
    let line = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @four.ckpt --in-place";
    for (processes, other) in [
        (1, "--file-suffix 1_4"),
        (4, "--file-suffix 1_2 --format ckpt"),
        (
            1,
            "--file-suffix 1_2 --filter-out-param-prefix w1 --unmatched drop",
        ),
        (4, "--file-suffix 1_2 --remove-redundancy"),
    ] {
        let sample = one_step();
        let run = |args: &str| {
            let args = sample.args(&format!("{line} {args}"));
            if processes == 1 {
                alone(&args)
            } else {
                under_mpi(processes, &args)
            }
        };
        run("--file-suffix 1_2").succeeds();
        let again = run("--file-suffix 1_2").succeeds();
        assert!(again.stderr.contains("already"), "{again:#?}");
        let another = run(other);
        assert!(!another.stderr.contains("already"), "{other}: {another:#?}");
        alone(&sample.args("verify @src")).succeeds();
    }
}

// proves P72
#[test]
fn a_changed_result_is_not_resumed_as_done() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    alone(&sample.args(&format!("{RESHARD} --resume"))).succeeds();
    let path = sample.path("out/rank_0/net0.safetensors");
    let mut bytes = std::fs::read(&path).expect("a file");
    *bytes.last_mut().expect("bytes") ^= 1;
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&path, bytes).expect("written");
    refuses(&alone(&sample.args(&format!("{RESHARD} --resume"))), "out");
}

#[test]
fn a_source_that_was_rewritten_under_its_old_time_is_no_longer_the_same() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    let path = sample.path("src/rank_0/net.safetensors");
    let mut bytes = std::fs::read(&path).expect("a file");
    let written = std::fs::metadata(&path).and_then(|of| of.modified());
    let before = bytes.clone();
    *bytes.last_mut().expect("bytes") ^= 1;
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&path, bytes).expect("written");
    let file = std::fs::File::options().write(true).open(&path);
    let dated = file.and_then(|file| file.set_modified(written.expect("a time")));
    dated.expect("dated");
    refuses(&alone(&sample.args(&format!("{RESHARD} --resume"))), "out");
    // A link that a job makes of the source is no change of it.
    std::fs::write(&path, before).expect("written");
    let link =
        "reshard --src @src --src-strategy @four.ckpt --dst @same --dst-strategy @four.ckpt --link";
    alone(&sample.args(link)).succeeds();
    alone(&sample.args(&format!("{link} --resume"))).succeeds();
}

// proves P75
#[test]
fn verify_names_files_that_nobody_listed() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    std::fs::write(sample.path("out/notes.txt"), "mine").expect("written");
    std::fs::write(sample.path("out/rank_0/.net.safetensors"), "hidden").expect("written");
    alone(&sample.args("verify @out")).succeeds();
    let from = sample.path("out/rank_0/net0.safetensors");
    std::fs::copy(from, sample.path("out/rank_1/net_2.safetensors")).expect("copied");
    for processes in [1, 4] {
        let run = under_mpi(processes, &sample.args("verify @out --json"));
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        assert_eq!(object(&run)["bad"][0]["file"], "rank_1/net_2.safetensors");
    }
}

/// Two processes, each on a node whose disk is the directory `node_R`.
fn on_own_disks(sample: &Sample, args: &str) -> Run {
    let script = format!(
        "cd '{}'/node_${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}} && exec '{}' {args}",
        sample.room.path().display(),
        env!("CARGO_BIN_EXE_shardloom")
    );
    let nodes = [("SHARDLOOM_NODES", "2")];
    support::mpirun(2, Path::new("/bin/sh"), &["-c", &script], &nodes)
}

fn bad(run: &Run) -> String {
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let bad: Value = object(run)["bad"].clone();
    bad.to_string()
}

// proves P73
#[test]
fn a_nodes_part_that_is_gone_is_missed() {
    let sample = Sample::new();
    for node in 0..2 {
        let copy = |from: &str, to: &str| {
            let to = sample.path(&format!("node_{node}/{to}"));
            std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
            std::fs::copy(sample.path(from), to).expect("copied");
        };
        copy("four.ckpt", "four.ckpt");
        copy("full/model.safetensors", "full/model.safetensors");
    }
    let split = "split --src full --dst out --dst-strategy four.ckpt";
    on_own_disks(&sample, split).succeeds();
    let part = sample.path("node_1/out");
    let manifest = Manifest::read(&part)
        .expect("readable")
        .expect("a manifest");
    let whole = manifest.whole.expect("the whole");
    assert_eq!(
        (whole.sites, whole.site),
        (vec![vec![(0, 2)], vec![(2, 4)]], 1)
    );
    on_own_disks(&sample, "verify out").succeeds();
    // Each node mends its own, of what it sees.
    for node in 0..2 {
        let room = sample.path(&format!("node_{node}"));
        for (path, bytes) in image(&room.join("out")) {
            tensors::write_bytes(&room.join("copy").join(path), &bytes);
        }
    }
    tensors::damage(&part.join("rank_3/net.safetensors"), "w2");
    std::fs::write(sample.path("node_0/out/shardloom.json"), b"{").expect("written");
    on_own_disks(&sample, "verify out --repair --from copy").succeeds();
    for node in 0..2 {
        let room = sample.path(&format!("node_{node}"));
        assert!(image(&room.join("out")) == image(&room.join("copy")));
    }
    std::fs::rename(&part, sample.path("away")).expect("moved");
    let found = bad(&on_own_disks(&sample, "verify out --json"));
    assert!(found.contains("ranks 2-3 are missing"), "{found}");
    let found = bad(&alone(&sample.args("verify @node_0/out --json")));
    assert!(found.contains("ranks 2-3 are missing"), "{found}");
    for sides in ["@node_0/out --against @away", "@away --against @node_0/out"] {
        let found = bad(&alone(&sample.args(&format!("verify {sides} --json"))));
        assert!(found.contains("ranks 2-3 are missing"), "{found}");
        assert!(found.contains("node_0/out"), "{found}");
    }
}

/// Full weights of which each node has a copy of its own, and one is another.
#[test]
fn nodes_that_read_different_bytes_write_nothing() {
    // With a manifest only what is read counts, and the first node reads the first rows of w1.
    for (damaged, verified, node) in [
        ("b", false, 1),
        ("w1", false, 1),
        ("b", true, 1),
        ("w1", true, 0),
    ] {
        let other = format!("node_{node}/full");
        let sample = Sample::new();
        let line = "unify --src @src --src-strategy @four.ckpt --dst @made";
        alone(&sample.args(line)).succeeds();
        for (path, bytes) in image(&sample.path("made")) {
            let told = path.ends_with("shardloom.json");
            for node in ["node_0", "node_1"] {
                if !told || verified {
                    tensors::write_bytes(&sample.path(&format!("{node}/full")).join(&path), &bytes);
                }
                std::fs::copy(
                    sample.path("four.ckpt"),
                    sample.path(&format!("{node}/four.ckpt")),
                )
                .expect("copied");
            }
        }
        let files = image(&sample.path(&other));
        let mut weights = files
            .iter()
            .map(|(path, _)| path)
            .filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
        let file = weights.next().expect("weights");
        tensors::damage(&sample.path(&other).join(file), damaged);
        let split = "split --src full --dst out --dst-strategy four.ckpt";
        let run = on_own_disks(&sample, &format!("{split} --json"));
        let fault = object(&run)["error"].clone();
        let kind = if verified { "corrupt" } else { "differs" };
        assert_eq!(fault["kind"], kind, "{damaged}, {verified}: {run:#?}");
        assert_eq!(fault["tensor"], damaged, "{run:#?}");
        for node in ["node_0", "node_1"] {
            assert!(!sample.path(&format!("{node}/out")).exists());
        }
    }
}

/// What a command names beside weights is another file on one of the nodes.
#[test]
fn nodes_that_would_do_different_things_write_nothing() {
    let sample = Sample::new();
    for node in 0..2u8 {
        let write = |file: &str, bytes: &[u8]| {
            tensors::write_bytes(&sample.path(&format!("node_{node}/{file}")), bytes);
        };
        let full = ["w1", "w2.weight"].map(|name| {
            (
                name.to_owned(),
                tensors::Tensor::counting("F32", &[16, 8], 1),
            )
        });
        let path = sample.path(&format!("node_{node}/full/model.safetensors"));
        tensors::write(&path, &full.into_iter().collect());
        let names = [["x", "y"], ["y", "x"]][usize::from(node)];
        let map = format!(r#"{{"w1": "{}", "w2.weight": "{}"}}"#, names[0], names[1]);
        write("map.json", map.as_bytes());
        let config = format!(r#"{{"lora_alpha": {}, "r": 2}}"#, 2 + node);
        write("other/adapter_config.json", config.as_bytes());
        write("lora/adapter_config.json", br#"{"lora_alpha": 2, "r": 2}"#);
        for (directory, salt) in [("other", 1), ("lora", 1 + usize::from(node))] {
            let pair = |side: &str, shape: [usize; 2]| {
                let name = format!("base_model.model.w2.lora_{side}.weight");
                (name, tensors::Tensor::counting("F32", &shape, salt))
            };
            let adapter = [pair("A", [2, 8]), pair("B", [16, 2])]
                .into_iter()
                .collect();
            let file = format!("node_{node}/{directory}/adapter_model.safetensors");
            tensors::write(&sample.path(&file), &adapter);
        }
    }
    for (line, said) in [
        (
            "unify --src full --dst out --name-map map.json",
            "different things",
        ),
        (
            "unify --src full --dst out --lora other",
            "different things",
        ),
        ("unify --src full --dst out --lora lora", "different bytes"),
    ] {
        let run = on_own_disks(&sample, &format!("{line} --json"));
        let fault = object(&run)["error"].clone();
        assert_eq!(fault["kind"], "differs", "{line}: {run:#?}");
        let message = fault["message"].as_str().expect("a message");
        assert!(message.contains(said), "{run:#?}");
        for node in ["node_0", "node_1"] {
            assert!(!sample.path(&format!("{node}/out")).exists());
        }
    }
}

// proves P74
#[test]
fn every_nodes_copy_is_verified() {
    let sample = Sample::new();
    alone(&sample.args("unify --src @src --src-strategy @four.ckpt --dst @node_0/out")).succeeds();
    for (path, bytes) in image(&sample.path("node_0/out")) {
        tensors::write_bytes(&sample.path("node_1/out").join(path), &bytes);
    }
    on_own_disks(&sample, "verify out").succeeds();
    for (path, bytes) in image(&sample.path("node_0/out")) {
        let Some(last) = bytes.len().checked_sub(1) else {
            continue;
        };
        if path
            .extension()
            .is_none_or(|ending| ending != "safetensors")
        {
            continue;
        }
        // At the beginning of the data and at its end: whichever half a process would have read.
        for at in [last, 8 + 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            tensors::write_bytes(&sample.path("node_1/out").join(&path), &damaged);
            let found = bad(&on_own_disks(&sample, "verify out --json"));
            assert!(found.contains("(on "), "{found}");
        }
        tensors::write_bytes(&sample.path("node_1/out").join(&path), &bytes);
    }
}

// proves P127, P160
#[test]
fn reads_a_manifest_of_the_first_version() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    let manifest = Manifest::read(&sample.path("out")).expect("readable");
    let old = Manifest {
        schema: 1,
        whole: None,
        ..manifest.expect("a manifest")
    };
    let bytes = old.to_bytes().expect("bytes");
    assert!(!String::from_utf8_lossy(&bytes).contains("whole"));
    std::fs::write(sample.path("out/shardloom.json"), bytes).expect("written");
    under_mpi(4, &sample.args("verify @out")).succeeds();
}

// proves P76
#[test]
fn prune_follows_no_link_and_looks_into_the_files() {
    let sample = two_steps();
    let elsewhere = sample.path("elsewhere");
    std::fs::rename(sample.path("src/rank_3"), &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, sample.path("src/rank_3")).expect("a link");
    let before = image(&sample.path("src"));
    let prune = "checkpoints prune @src --keep 1";
    for line in [prune.to_owned(), format!("{prune} --dry-run")] {
        refuses(&alone(&sample.args(&line)), "elsewhere");
        assert!(
            before == image(&sample.path("src")),
            "nothing may be removed"
        );
    }
    std::fs::remove_file(sample.path("src/rank_3")).expect("removed");
    std::fs::rename(&elsewhere, sample.path("src/rank_3")).expect("moved");
    // The newest is cut short: the one before must stay, even if only names are asked for.
    let newest = sample.path("src/rank_1/net_rank_1-1_4.safetensors");
    let bytes = std::fs::read(&newest).expect("a file");
    std::fs::write(&newest, &bytes[..bytes.len() - 3]).expect("written");
    alone(&sample.args(&format!("{prune} --names-only"))).succeeds();
    assert!(
        sample
            .path("src/rank_0/net_rank_0-1_2.safetensors")
            .exists()
    );
}

// proves P79
#[test]
fn export_compares_head_counts_with_what_import_recorded() {
    let sample = Sample::new();
    let hf = fixtures::data().join("model/llama/hf");
    let hf = hf.display();
    alone(&sample.args(&format!("import --hf {hf} --dst @ms"))).succeeds();
    let text = std::fs::read_to_string(format!("{hf}/config.json")).expect("a config");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    let number = |config: &Value, key: &str| config[key].as_u64().expect("a number");
    let (heads, groups) = (
        number(&config, "num_attention_heads"),
        number(&config, "num_key_value_heads"),
    );
    let size = config["head_dim"].as_u64();
    let size = size.unwrap_or(number(&config, "hidden_size") / heads);
    // Half the heads of twice the size: the same shapes.
    config["num_attention_heads"] = (heads / 2).into();
    config["num_key_value_heads"] = (groups / 2).into();
    config["head_dim"] = (size * 2).into();
    tensors::write_bytes(
        &sample.path("other/config.json"),
        config.to_string().as_bytes(),
    );
    for processes in [1, 4] {
        let args = sample.args("export --src @ms --hf-config @other --dst @out");
        let run = under_mpi(processes, &args);
        refuses(&run, "shardloom.heads");
        assert!(!sample.path("out").exists());
    }
    alone(&sample.args(&format!("export --src @ms --hf-config {hf} --dst @out"))).succeeds();
}
