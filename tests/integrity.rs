//! Digests, manifests, verify, resume and in-place: what keeps bytes as they were.

use crate::support::{self, Run, command, fixtures, oracle, sample, tensors};
use command::{RESHARD, alone, object, refuses, under_mpi};
use sample::{Sample, image, layout};
use serde_json::Value;
use shardloom::job::verify::find_bad;
use shardloom::store::manifest::Manifest;
use std::path::Path;
use tensors::{Tensor, Tensors};

const MANIFEST: &str = "shardloom.json";

fn manifest(directory: &Path) -> Manifest {
    let manifest = Manifest::read(directory).expect("readable");
    manifest.expect("a manifest")
}

/// A tensor's bytes digested whole, by another implementation than the engine's parts.
fn digest(tensor: &Tensor) -> u64 {
    crc_fast::crc64_nvme(&tensor.data)
}

/// Runs the program with `envs`, on `processes` or alone.
fn run(processes: Option<u32>, args: &[String], envs: &[(&str, &str)]) -> Run {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    match processes {
        Some(processes) => support::mpirun(processes, program, &args, envs),
        None => support::alone(program, &args, envs),
    }
}

// proves P129
#[test]
fn digests_are_those_of_the_whole_tensors_in_any_layout() {
    let commands = [
        RESHARD,
        "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt --remove-redundancy",
        "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt --placement identity",
        "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt --format ckpt",
        "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt --exchange collective",
        "unify --src @src --src-strategy @four.ckpt --dst @out",
        "split --src @full --dst @out --dst-strategy @four.ckpt",
    ];
    for line in commands {
        for processes in [None, Some(3)] {
            let sample = Sample::new();
            run(processes, &sample.args(line), &[]).succeeds();
            let manifest = manifest(&sample.path("out"));
            assert_eq!(manifest.tensors.len(), sample.whole.len(), "{line}");
            for (name, tensor) in &sample.whole {
                assert_eq!(
                    manifest.tensors[name].digest.0,
                    digest(tensor),
                    "{name}: {line}"
                );
            }
            for file in &manifest.files {
                let bytes = std::fs::read(sample.path("out").join(&file.path)).expect("a file");
                assert_eq!(file.bytes, bytes.len() as u64);
                assert_eq!(
                    file.crc64.0,
                    crc_fast::crc64_nvme(&bytes),
                    "{line}: {}",
                    file.path
                );
            }
            let verified = run(processes, &sample.args("verify @out --json"), &[]).succeeds();
            assert_eq!(object(&verified)["checked"], manifest.files.len());
        }
    }
}

// proves P129
#[test]
fn two_layouts_are_proved_equal_by_their_manifests() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    alone(&sample.args("unify --src @src --src-strategy @four.ckpt --dst @full2")).succeeds();
    let run = under_mpi(2, &sample.args("verify @out --against @full2 --json")).succeeds();
    assert_eq!(object(&run)["checked"], 3);

    let mut whole = sample.whole.clone();
    whole.get_mut("w2").expect("w2").data[17] ^= 4;
    whole.remove("b");
    tensors::write(&sample.path("other/model.safetensors"), &whole);
    alone(&sample.args("split --src @other --dst @out3 --dst-strategy @two.ckpt")).succeeds();
    let run = alone(&sample.args("verify @out --against @out3 --json"));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let result = object(&run);
    let bad = result["bad"].as_array().expect("bad");
    let names: Vec<&Value> = bad.iter().map(|b| &b["tensor"]).collect();
    assert_eq!(names, ["b", "w2"], "{result}");
}

// proves P126
#[test]
fn converted_files_have_manifests() {
    let sample = Sample::new();
    for line in [
        "convert @src --dst @ckpt --to ckpt --crc",
        "convert @ckpt --dst @out --to safetensors",
    ] {
        alone(&sample.args(line)).succeeds();
    }
    for line in ["verify @ckpt", "verify @out"] {
        under_mpi(2, &sample.args(line)).succeeds();
    }
    alone(&sample.args("convert @full/model.safetensors --dst @one --to ckpt")).succeeds();
    alone(&sample.args("unify --src @src --src-strategy @four.ckpt --dst @whole")).succeeds();
    alone(&sample.args("verify @one --against @whole")).succeeds();
}

/// The tensor that byte `at` of a safetensors file belongs to, by the test's own reading.
fn owner(bytes: &[u8], at: usize) -> Option<String> {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let entries = header.as_object().expect("an object");
    let within = |entry: &Value| {
        let offset = |i: usize| entry["data_offsets"][i].as_u64().expect("an offset") as usize;
        (8 + length + offset(0)..8 + length + offset(1)).contains(&at)
    };
    let mut found = entries.iter().filter(|(name, _)| *name != "__metadata__");
    found
        .find(|(_, entry)| within(entry))
        .map(|(name, _)| name.clone())
}

// proves P148
#[test]
fn every_flipped_bit_is_found_and_its_tensor_named() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    let directory = sample.path("out");
    let manifest = manifest(&directory);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for record in manifest
        .files
        .iter()
        .filter(|file| file.structure.is_some())
    {
        let path = directory.join(&record.path);
        let good = std::fs::read(&path).expect("a file");
        assert!(find_bad(&directory, &manifest, record).is_empty());
        for _ in 0..5000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let bit = (state >> 20) as usize % (good.len() * 8);
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).expect("write");
            let bad = find_bad(&directory, &manifest, record);
            assert!(!bad.is_empty(), "bit {bit}");
            if let Some(name) = owner(&good, bit / 8) {
                let named: Vec<_> = bad.iter().map(|b| b.tensor.as_deref()).collect();
                assert_eq!(named, [Some(&*name)], "bit {bit}");
            }
        }
        for length in 0..good.len() {
            std::fs::write(&path, &good[..length]).expect("write");
            let bad = find_bad(&directory, &manifest, record);
            assert!(!bad.is_empty(), "{length} bytes");
            if let Some(name) = owner(&good, length) {
                assert!(
                    bad.iter().any(|b| b.tensor.as_deref() == Some(&*name)),
                    "{length} bytes: {bad:?}"
                );
            }
        }
        std::fs::write(&path, &good).expect("write");
    }
}

// proves P148
#[test]
fn verify_names_what_is_damaged() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    let file = "out/rank_0/net0.safetensors";
    let path = sample.path(file);
    let good = std::fs::read(&path).expect("a file");
    let bad = |processes: u32| {
        let run = under_mpi(processes, &sample.args("verify @out --json"));
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        object(&run)["bad"].as_array().expect("bad").clone()
    };
    for at in [0, 9, good.len() / 2, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).expect("write");
        let bad = bad(3);
        assert_eq!(bad[0]["file"], "rank_0/net0.safetensors");
        let name = owner(&good, at).map_or(Value::Null, Value::from);
        assert!(bad.iter().any(|b| b["tensor"] == name), "{bad:?}");
    }
    std::fs::write(&path, &good[..good.len() - 3]).expect("write");
    assert!(bad(2).iter().any(|b| b["tensor"].is_string()));
    std::fs::remove_file(&path).expect("remove");
    assert_eq!(bad(1)[0]["file"], "rank_0/net0.safetensors");
    std::fs::write(&path, &good).expect("write");
    alone(&sample.args("verify @out")).succeeds();
    let mut text = std::fs::read(sample.path("out").join(MANIFEST)).expect("a manifest");
    text[20] ^= 1;
    std::fs::write(sample.path("out").join(MANIFEST), text).expect("write");
    assert_eq!(bad(2)[0]["file"], MANIFEST);
    refuses(&alone(&sample.args("verify @src")), MANIFEST);
}

/// Enough slabs that a run can be interrupted in the middle.
fn larger() -> Sample {
    let names: Vec<String> = (0..6).map(|i| format!("layer{i}.w")).collect();
    let whole: Tensors = names
        .iter()
        .zip(1..)
        .map(|(name, seed)| (name.clone(), Tensor::counting("F32", &[512, 512], seed)))
        .collect();
    let of = |ranks: usize, map: &[i64]| {
        let layouts = names
            .iter()
            .map(|name| (0, name.clone(), layout(&[ranks], map)));
        oracle::Strategy {
            items: layouts.collect(),
        }
    };
    Sample::of(whole, of(4, &[0, -1]), of(2, &[-1, 0]))
}

// proves P6, P133
#[test]
fn interrupted_run_is_taken_up() {
    let mut reused_at_all = 0;
    for (n, processes) in [
        (75, None),
        (110, None),
        (140, Some(3)),
        (165, None),
        (190, Some(2)),
        (215, None),
    ] {
        let sample = larger();
        let line = format!("{RESHARD} --threads 1");
        let exit = format!("exit:{n}");
        let envs = [
            ("SHARDLOOM_JOURNAL_SECONDS", "0"),
            ("SHARDLOOM_IO_FAULT", exit.as_str()),
        ];
        let killed = run(None, &sample.args(&line), &envs);
        if killed.status.success() {
            continue;
        }
        assert!(!sample.path("out").exists());
        let resumed = run(
            processes,
            &sample.args(&format!("{RESHARD} --resume --json")),
            &[],
        );
        let result = object(&resumed.succeeds());
        let reused = result["bytes"]["reused"].as_u64().expect("reused");
        let written = result["bytes"]["written"].as_u64().expect("written");
        let all: u64 = sample.whole.values().map(|t| t.data.len() as u64).sum();
        assert_eq!(reused + written, all, "{result}");
        reused_at_all += reused;
        sample.check("out", &sample.two, &sample.whole);
        alone(&sample.args("verify @out")).succeeds();
        let manifest = manifest(&sample.path("out"));
        for (name, tensor) in &sample.whole {
            assert_eq!(manifest.tensors[name].digest.0, digest(tensor), "{name}");
        }
        assert!(!sample.path(".out.shardloom-partial").exists());
        assert!(!sample.path("out/.shardloom-journal").exists());
    }
    assert!(reused_at_all > 0, "nothing was taken up");
}

// proves P6, P140
#[test]
fn leftovers_of_another_job_are_refused_or_discarded() {
    let sample = larger();
    let begun = |step: &usize| {
        let fault = format!("exit:{step}");
        let envs = [
            ("SHARDLOOM_JOURNAL_SECONDS", "0"),
            ("SHARDLOOM_IO_FAULT", &fault),
        ];
        let killed = run(None, &sample.args(&format!("{RESHARD} --threads 1")), &envs);
        assert!(!killed.status.success(), "{killed:#?}");
        sample.path(".out.shardloom-partial/rank_1").exists()
    };
    let step = (100..).step_by(8).find(begun);
    println!("killed at step {step:?}");
    let left = image(&sample.path(".out.shardloom-partial"));
    assert!(!left.is_empty());
    let other = "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @four.ckpt";
    let run = alone(&sample.args(&format!("{other} --resume")));
    refuses(&run, ".out.shardloom-partial");
    assert!(
        left == image(&sample.path(".out.shardloom-partial")),
        "they must stay"
    );
    alone(&sample.args(other)).succeeds();
    sample.check("out", &sample.four, &sample.whole);
    assert!(!sample.path(".out.shardloom-partial").exists());
}

// proves P43, P137, P138
#[test]
fn in_place_keeps_names_and_other_files() {
    for processes in [None, Some(3)] {
        let sample = Sample::new();
        for rank in 0..4 {
            let directory = sample.path(&format!("src/rank_{rank}"));
            let name = format!("net_rank_{rank}-3_100.safetensors");
            std::fs::rename(directory.join("net.safetensors"), directory.join(&name))
                .expect("rename");
            let meta =
                serde_json::json!({"last_epoch": 3, "last_step": 100, "last_ckpt_file": name});
            std::fs::write(directory.join("meta.json"), meta.to_string()).expect("write");
        }
        std::fs::write(sample.path("src/notes.txt"), "mine").expect("write");
        std::fs::write(sample.path("src/rank_3/log"), "three").expect("write");
        let line =
            "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --in-place";
        run(processes, &sample.args(line), &[]).succeeds();
        // The directory of rank 3 stays with its log, and is no rank's.
        let latest = run(processes, &sample.args("checkpoints latest @src"), &[]).succeeds();
        assert!(latest.stdout.contains("on 2 ranks, complete"), "{latest:?}");
        let unify = "unify --src @src --src-strategy @two.ckpt --dst @latest --file-suffix latest";
        run(processes, &sample.args(unify), &[]).succeeds();
        for rank in 0..2 {
            let name = format!("net_rank_{rank}-3_100.safetensors");
            let path = sample.path(&format!("src/rank_{rank}/{name}"));
            let found = tensors::read(&path).expect("a file");
            let expected = sample.two.cut(&sample.whole, rank).expect("it can be cut");
            tensors::compare(&expected, &found.tensors).expect("equal");
            let meta = std::fs::read(sample.path(&format!("src/rank_{rank}/meta.json")));
            let meta: Value = serde_json::from_slice(&meta.expect("a note")).expect("JSON");
            assert_eq!(meta["last_ckpt_file"], name);
            assert_eq!(
                (&meta["last_epoch"], &meta["last_step"]),
                (&3.into(), &100.into())
            );
        }
        let mut names: Vec<String> = fixtures::listing(&sample.path("src"))
            .iter()
            .map(|path| path.display().to_string())
            .filter(|path| path != MANIFEST)
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "notes.txt",
                "rank_0/meta.json",
                "rank_0/net_rank_0-3_100.safetensors",
                "rank_1/meta.json",
                "rank_1/net_rank_1-3_100.safetensors",
                "rank_3/log",
            ]
        );
        alone(&sample.args("verify @src")).succeeds();
        // What is done already isn't done again, although the trainer has written notes since.
        std::fs::write(sample.path("src/rank_0/meta.json"), "{}").expect("write");
        let before = image(&sample.path("src"));
        let again = run(processes, &sample.args(line), &[]).succeeds();
        assert!(again.stderr.contains("already"), "{again:#?}");
        assert!(before == image(&sample.path("src")));
        // Weights that were written later are the same if their bytes are; whatever their time says.
        let weights = sample.path("src/rank_0/net_rank_0-3_100.safetensors");
        let mut bytes = std::fs::read(&weights).expect("a file");
        let written = std::fs::metadata(&weights).and_then(|found| found.modified());
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&weights, &bytes).expect("write");
        let again = run(processes, &sample.args(line), &[]).succeeds();
        assert!(again.stderr.contains("already"), "{again:#?}");
        *bytes.last_mut().expect("bytes") ^= 1;
        std::fs::write(&weights, bytes).expect("write");
        let file = std::fs::File::options().append(true).open(&weights);
        let dated = file.and_then(|file| file.set_modified(written.expect("a time")));
        dated.expect("dated");
        run(processes, &sample.args(line), &[]).fails();
    }
}

// proves P12
#[test]
fn in_place_that_fails_leaves_the_source() {
    let sample = Sample::new();
    let before = image(&sample.path("src"));
    let line = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --in-place";
    for n in (1..120).step_by(7) {
        let fault = format!("eio:{n}");
        let run = run(None, &sample.args(line), &[("SHARDLOOM_IO_FAULT", &fault)]);
        if run.status.success() {
            return;
        }
        let now = image(&sample.path("src"));
        assert!(
            now == before || now.iter().any(|(p, _)| p.ends_with(MANIFEST)),
            "call {n}"
        );
        if now != before {
            return;
        }
    }
}

// proves P44
#[test]
fn several_steps_are_refused_in_place() {
    let sample = Sample::new();
    for rank in 0..4 {
        let directory = sample.path(&format!("src/rank_{rank}"));
        let name = |step: u32| directory.join(format!("net_rank_{rank}-1_{step}.safetensors"));
        std::fs::rename(directory.join("net.safetensors"), name(2)).expect("rename");
        std::fs::copy(name(2), name(4)).expect("copy");
    }
    let line = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @four.ckpt --in-place";
    let before = image(&sample.path("src"));
    for more in ["", " --file-suffix 1_2"] {
        let run = alone(&sample.args(&format!("{line}{more}")));
        refuses(&run, "rank_0");
        assert!(run.stderr.contains("--dst"), "{run:#?}");
        assert!(before == image(&sample.path("src")), "{more}");
    }
    for rank in 0..4 {
        let name = format!("src/rank_{rank}/net_rank_{rank}-1_4.safetensors");
        std::fs::remove_file(sample.path(&name)).expect("remove");
    }
    alone(&sample.args(line)).succeeds();
    // The other step isn't there: it is not "done".
    let run = alone(&sample.args(&format!("{line} --file-suffix 1_4"))).fails();
    assert!(!run.stderr.contains("already"), "{run:#?}");
}

/// What a job that goes on saves there meanwhile, or afterwards, isn't lost and isn't taken for done.
#[test]
fn what_comes_to_a_directory_that_is_replaced_stays() {
    let line = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --in-place";
    for processes in [None, Some(2)] {
        let sample = larger();
        let args = sample.args(&format!("{line} --threads 1"));
        let new = sample.path("src/rank_0/log.txt");
        let staging = sample.path(".src.shardloom-partial");
        let ended = std::thread::scope(|scope| {
            let job = scope.spawn(|| run(processes, &args, &[]));
            while !staging.exists() && !job.is_finished() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            std::fs::write(&new, "new").expect("written");
            job.join().expect("it ends")
        });
        let kept = std::fs::read_to_string(&new);
        assert_eq!(kept.expect("it stays"), "new", "{ended:#?}");
        if !ended.status.success() {
            assert!(
                ended.stderr.contains("rank_0/log.txt has come"),
                "{ended:#?}"
            );
        }
    }
    let sample = Sample::new();
    alone(&sample.args(line)).succeeds();
    sample.copy(
        "full/model.safetensors",
        "src/rank_0/net_rank_0-1_20.safetensors",
    );
    let again = alone(&sample.args(line)).fails();
    assert!(!again.stderr.contains("already"), "{again:#?}");
}

/// A second name is one of the very file, and what a strategy or a file's name says wrongly is found all the same.
#[test]
fn what_is_linked_is_what_the_manifest_tells_of() {
    let whole = Tensors::from([(
        "w".to_owned(),
        tensors::Tensor::counting("BF16", &[8, 16], 50),
    )]);
    let strategy = |axes: [i64; 2]| {
        let cut = oracle::Layout {
            mesh: vec![2, 2],
            map: vec![axes.to_vec(), vec![-1]],
            ..oracle::Layout::default()
        };
        oracle::Strategy::of(&[("w", cut)])
    };
    let sample = Sample::of(whole, strategy([1, 0]), strategy([0, 1]));
    let split = "split --src @full --dst @cut --dst-strategy @four.ckpt";
    alone(&sample.args(split)).succeeds();
    let line = |from: &str, to: &str| {
        format!("reshard --src @cut --src-strategy @{from} --dst @out --dst-strategy @{to} --link")
    };
    // Linked shards lead to files elsewhere, from where they lie.
    std::fs::rename(sample.path("cut/rank_0"), sample.path("store")).expect("moved");
    std::os::unix::fs::symlink("../store", sample.path("cut/rank_0")).expect("linked");
    alone(&sample.args(&line("four.ckpt", "four.ckpt"))).succeeds();
    for file in fixtures::listing(&sample.path("out")) {
        let found = std::fs::symlink_metadata(sample.path("out").join(&file));
        assert!(found.expect("it stands").is_file(), "{file:?}");
    }
    alone(&sample.args("verify @out")).succeeds();
    std::fs::remove_dir_all(sample.path("out")).expect("removed");
    std::fs::remove_file(sample.path("cut/rank_0")).expect("removed");
    std::fs::rename(sample.path("store"), sample.path("cut/rank_0")).expect("moved");
    // The other order of axes.
    let run = alone(&sample.args(&line("two.ckpt", "four.ckpt")));
    refuses(&run, "w");
    // Two ranks' directories have changed places.
    for (from, to) in [("rank_1", "rank"), ("rank_2", "rank_1"), ("rank", "rank_2")] {
        let path = |name: &str| sample.path(&format!("cut/{name}"));
        std::fs::rename(path(from), path(to)).expect("moved");
    }
    let run = alone(&sample.args(&line("four.ckpt", "four.ckpt")));
    refuses(&run, "w");
}

/// Files that stay as they are get a second name, with the same manifest; who says so twice gets no other.
#[test]
fn files_that_stay_are_linked() {
    use std::os::unix::fs::MetadataExt;
    let whole = Tensors::from([
        ("b".to_owned(), tensors::Tensor::counting("F32", &[16], 3)),
        (
            "w".to_owned(),
            tensors::Tensor::counting("BF16", &[8, 16], 50),
        ),
    ]);
    let strategy = |mesh: &[usize]| {
        let cuts = [("b", layout(mesh, &[-1])), ("w", layout(mesh, &[0, -1]))];
        oracle::Strategy::of(&cuts)
    };
    let sample = Sample::of(whole, strategy(&[2]), strategy(&[3, 2]));
    let names = |path: &str| {
        let file = std::fs::metadata(sample.path(path)).expect("it stands");
        file.nlink()
    };
    let line = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --json --dst";
    alone(&sample.args(&format!("{line} @plain"))).succeeds();
    let plain = manifest(&sample.path("plain"));
    // A source without a manifest is read for its digests.
    let read = object(&alone(&sample.args(&format!("{line} @read --link"))).succeeds());
    assert!(read["bytes"]["read"].as_u64() > Some(0), "{read}");
    // One with it isn't.
    let line = line.replace("@src", "@plain").replace("four", "two");
    for (processes, nodes) in [(None, "1"), (Some(4), "1"), (Some(4), "2")] {
        let args = sample.args(&format!("{line} @linked --link --overwrite"));
        let told = run(processes, &args, &[("SHARDLOOM_NODES", nodes)]).succeeds();
        let bytes = &object(&told)["bytes"];
        assert_eq!(
            (&bytes["read"], &bytes["written"]),
            (&0.into(), &0.into()),
            "{told:#?}"
        );
        for directory in ["read", "linked"] {
            let found = manifest(&sample.path(directory));
            assert_eq!(
                (&found.tensors, &found.files),
                (&plain.tensors, &plain.files)
            );
            assert!(image(&sample.path(directory)).len() == image(&sample.path("plain")).len());
        }
        alone(&sample.args("verify @linked")).succeeds();
        sample.check("linked", &sample.two, &sample.whole);
    }
    // What was written since the manifest was is read, though a file's time of writing says nothing of it.
    for keeps_time in [false, true] {
        let copy = format!("copy{keeps_time}");
        for (path, bytes) in image(&sample.path("plain")) {
            tensors::write_bytes(&sample.path(&copy).join(path), &bytes);
        }
        let told = sample.path(&copy).join("shardloom.json");
        std::fs::write(&told, std::fs::read(&told).expect("it is read")).expect("written");
        let line = line.replace("@plain", &format!("@{copy}"));
        let args = sample.args(&format!("{line} @kept{keeps_time} --link"));
        let unread = object(&alone(&args).succeeds());
        assert_eq!(unread["bytes"]["read"], 0, "{unread}");
        let file = sample.path(&copy).join("rank_2/net2.safetensors");
        // Without other names, as it was at first.
        let bytes = std::fs::read(&file).expect("it is read");
        std::fs::remove_file(&file).expect("removed");
        std::fs::write(&file, &bytes).expect("written");
        let time = std::fs::metadata(&told).expect("it stands").modified();
        tensors::damage(&file, "w");
        if keeps_time {
            let open = std::fs::File::options().write(true).open(&file);
            let set = open.expect("open").set_modified(time.expect("a time"));
            set.expect("set");
        }
        for (how, kind) in [("", "corrupt"), ("--verify all", "differs")] {
            let args = sample.args(&format!("{line} @never --link {how}"));
            let told = object(&alone(&args));
            assert_eq!(told["error"]["kind"], kind, "{told}");
            assert!(
                told["error"]["file"].to_string().contains("rank_2"),
                "{told}"
            );
        }
        assert!(!sample.path("never").exists());
    }
    let shares =
        names("linked/rank_3/net3.safetensors") > 1 || names("plain/rank_3/net3.safetensors") == 1;
    assert!(shares, "neither a second name nor bytes that are shared");
    // Others are written, and an old name never is.
    alone(&sample.args(&format!(
        "{} @other --link",
        line.replace("two.ckpt --json", "four.ckpt --json")
    )))
    .succeeds();
    sample.check("other", &sample.four, &sample.whole);
    let both =
        "reshard --src @plain --src-strategy @two.ckpt --dst-strategy @four.ckpt --in-place --link";
    assert_eq!(alone(&sample.args(both)).status.code(), Some(2));
}

/// What may be weights and wasn't written with the others is named, whatever it is called; a pipe goes nowhere.
#[test]
fn what_came_to_a_result_is_named_or_refused() {
    let sample = Sample::new();
    alone(&sample.args(RESHARD)).succeeds();
    for name in [
        "model.bin",
        "rank_0/more.pt",
        "more.pth",
        "__0_0.distcp",
        "more.safetensors",
    ] {
        let file = sample.path("out").join(name);
        std::fs::write(&file, b"?").unwrap();
        let found = alone(&sample.args("verify @out")).fails();
        assert!(found.stdout.contains(name), "{name}: {found:#?}");
        std::fs::remove_file(&file).unwrap();
    }
    alone(&sample.args("verify @out")).succeeds();
    let pipe = sample.path("out/rank_1/meta.json");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.is_ok_and(|status| status.success()));
    let line = "reshard --src @out --src-strategy @two.ckpt --dst-strategy @four.ckpt --in-place";
    for processes in [1, 4] {
        let refused = under_mpi(processes, &sample.args(line)).fails();
        assert!(
            refused.stderr.contains("meta.json: is a named pipe"),
            "{refused:#?}"
        );
        assert!(sample.path("out/rank_1").exists());
    }
}

/// Manifests of converted rank files tell of parts alone: nothing is called good that wasn't compared.
#[test]
fn what_cant_be_compared_isnt_good() {
    let sample = Sample::new();
    for name in ["one", "other"] {
        let line = format!("convert @src --dst @{name} --to ckpt");
        alone(&sample.args(&line)).succeeds();
    }
    for line in ["verify @one --against @other", "verify @one --against @one"] {
        let run = alone(&sample.args(line));
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        assert!(run.stdout.contains("`diff`"), "{run:#?}");
    }
    alone(&sample.args("verify @one")).succeeds();
}

/// Changes a name in the first of the files of weights below `directory` that has it.
fn rename(directory: &Path, name: &[u8], new: &[u8]) {
    let mut places = vec![directory.to_owned()];
    while let Some(place) = places.pop() {
        if place.is_dir() {
            let inside = std::fs::read_dir(&place).expect("a directory");
            places.extend(inside.map(|entry| entry.expect("an entry").path()));
            continue;
        }
        let bytes = std::fs::read(&place).expect("a file");
        let ending = place.extension().and_then(|ending| ending.to_str());
        let at = bytes.windows(name.len()).position(|part| part == name);
        if let (Some(at), Some("safetensors" | "ckpt")) = (at, ending) {
            let mut bytes = bytes;
            bytes[at..at + name.len()].copy_from_slice(new);
            std::fs::write(&place, bytes).expect("written");
            return;
        }
    }
    panic!("no file below {} has it", directory.display());
}

/// A name with a changed byte is that of another tensor, of which no digest is known: the manifest tells which there were.
#[test]
fn a_changed_name_is_corrupt() {
    const OTHER: &str = "the header has other tensors than were written";
    for (format, told) in [
        ("safetensors", OTHER),
        ("ckpt", OTHER),
        ("checkpoint2", OTHER),
        ("dcp-hf", "tells of a tensor that the file hasn't"),
    ] {
        let sample = Sample::new();
        let made = format!(
            "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --dst @in --format {format}"
        );
        alone(&sample.args(&made)).succeeds();
        rename(&sample.path("in"), b"w1", b"v1");
        for line in [
            "unify --src @in --dst @out",
            "unify --src @in --dst @out --verify all",
            "reshard --src @in --dst-strategy @four.ckpt --unmatched copy --dst @out",
        ] {
            for processes in [None, Some(3)] {
                let run = run(processes, &sample.args(line), &[]);
                refuses(&run, told);
                assert!(!sample.path("out").exists(), "{format}: {line}");
            }
        }
    }
}

/// A type that is another of as many bytes leaves all bytes as they were: the manifest tells which it was.
#[test]
fn a_changed_type_is_corrupt() {
    let sample = Sample::new();
    alone(&sample.args("unify --src @src --src-strategy @four.ckpt --dst @in")).succeeds();
    rename(&sample.path("in"), b"F32", b"I32");
    let retyped = "is I32 here, it was written as F32";
    for (line, told) in [
        ("unify --src @in --dst @out", retyped),
        ("unify --src @in --dst @out --verify all", retyped),
        (
            "split --src @in --dst-strategy @four.ckpt --dst @out",
            retyped,
        ),
    ] {
        for processes in [None, Some(3)] {
            refuses(&run(processes, &sample.args(line), &[]), told);
            assert!(!sample.path("out").exists(), "{line}");
        }
    }
    let verified = alone(&sample.args("verify @in"));
    assert_eq!(verified.status.code(), Some(1), "{verified:#?}");
    // One rank alone has it otherwise.
    let made = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --dst @ranks";
    alone(&sample.args(made)).succeeds();
    rename(&sample.path("ranks"), b"F32", b"I32");
    let unify = alone(&sample.args("unify --src @ranks --dst @out"));
    assert!(
        !unify.status.success() && !sample.path("out").exists(),
        "{unify:#?}"
    );
}

/// A checksum of some other part of a file says nothing of its tensors' bytes.
#[test]
fn what_has_no_checksums_of_its_tensors_is_not_verified_by_them() {
    let sample = Sample::new();
    let made = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --dst @in --format dcp";
    alone(&sample.args(made)).succeeds();
    std::fs::remove_file(sample.path("in").join(MANIFEST)).unwrap();
    let verified = alone(&sample.args("verify @in"));
    refuses(&verified, "has no manifest to verify it by");
}

/// What is a part of a checkpoint is verified with it.
#[test]
fn a_part_names_the_directory_whose_manifest_has_it() {
    let sample = Sample::new();
    let made = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --dst @in";
    alone(&sample.args(made)).succeeds();
    for part in ["rank_0", "rank_1/net1.safetensors"] {
        let run = under_mpi(2, &sample.args(&format!("verify @in/{part}")));
        refuses(&run, "has no manifest of its own");
        let give = format!(
            "give {}, whose manifest has it",
            sample.path("in").display()
        );
        assert!(run.stderr.contains(&give), "{run:#?}");
    }
    alone(&sample.args("unify --src @in --dst @full2")).succeeds();
    let file = fixtures::listing(&sample.path("full2"))
        .into_iter()
        .find(|file| file.extension().is_some_and(|end| end == "safetensors"));
    let file = sample.path("full2").join(file.expect("weights"));
    let args = ["verify".to_owned(), file.display().to_string()];
    refuses(&alone(&args), "has no manifest of its own");
}
