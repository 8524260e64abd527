//! verify --repair: damaged files become what they were, from copies beside them or elsewhere.

use crate::support::{self, Run, command, fixtures, oracle, sample, tensors};
use command::{RESHARD, alone, object, refuses, under_mpi};
use oracle::Strategy;
use sample::{Sample, image, layout};
use serde_json::Value;
use shardloom::store::manifest::Manifest;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tensors::{Tensor, Tensors};

/// Bytes of a shard of `w1`, the last tensor of each file; those of `w2` precede it.
const W1_BYTES: usize = 128;

/// The files of a checkpoint with their bytes, by path inside it.
type Files = BTreeMap<String, Vec<u8>>;

/// A linear congruential generator: its seed alone says what a test did.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// A sample whose `out` is written by the program: four ranks, in which `b` has four copies, `w1`
/// two, and `w2` two or, if `alone`, one.
fn checkpoint(alone_too: bool) -> Sample {
    let whole = Tensors::from([
        ("b".to_owned(), Tensor::counting("F32", &[16], 3)),
        ("w1".to_owned(), Tensor::counting("BF16", &[8, 16], 50)),
        ("w2".to_owned(), Tensor::counting("F32", &[16, 8], 90)),
    ]);
    let two = Strategy::of(&[
        ("b", layout(&[2], &[0])),
        ("w1", layout(&[2], &[0, -1])),
        ("w2", layout(&[2], &[-1, 0])),
    ]);
    let w2 = if alone_too {
        layout(&[4], &[0, -1])
    } else {
        layout(&[2, 2], &[0, -1])
    };
    let four = Strategy::of(&[
        ("b", layout(&[4], &[-1])),
        ("w1", layout(&[2, 2], &[-1, 1])),
        ("w2", w2),
    ]);
    let sample = Sample::of(whole, two, four);
    alone(&sample.args(RESHARD)).succeeds();
    sample
}

/// All files of a directory.
fn files(directory: &Path) -> Files {
    let files = image(directory).into_iter();
    files
        .map(|(path, bytes)| (path.to_string_lossy().into_owned(), bytes))
        .collect()
}

/// The files of weights.
fn weights(directory: &Path) -> Files {
    let mut files = files(directory);
    files.retain(|path, _| path.starts_with("rank_"));
    files
}

/// Damages one of `files`, or lets two change places.
fn damage(directory: &Path, names: &[String], dice: &mut Dice) -> String {
    let name = &names[dice.roll(names.len())];
    let path = directory.join(name);
    let kind = dice.roll(4);
    let Ok(mut bytes) = std::fs::read(&path) else {
        return format!("{name} is gone already");
    };
    if bytes.is_empty() {
        return format!("{name} is empty already");
    }
    match kind {
        0 => {
            let bit = dice.roll(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).expect("write");
            format!("bit {bit} of {name}")
        }
        1 => {
            let length = dice.roll(bytes.len());
            std::fs::write(&path, &bytes[..length]).expect("write");
            format!("{name} cut to {length} bytes")
        }
        2 => {
            std::fs::remove_file(&path).expect("remove");
            format!("{name} deleted")
        }
        _ => {
            let other = &names[dice.roll(names.len())];
            let second = std::fs::read(directory.join(other));
            let Ok(second) = second else {
                return format!("{other} is gone already");
            };
            std::fs::write(&path, second).expect("write");
            std::fs::write(directory.join(other), bytes).expect("write");
            format!("{name} and {other} swapped")
        }
    }
}

/// Whether every byte of `file` can be had from some file of `found`, by the test's own reading: its
/// tensors and what lies around them are sought one by one, where they were, in all files.
fn mendable(manifest: &Manifest, good: &Files, found: &Files, file: &str) -> bool {
    let record = manifest.files.iter().find(|record| record.path == file);
    let record = record.expect("a record");
    let bytes = &good[file];
    let mut ranges: Vec<Vec<(usize, usize)>> = Vec::new();
    for (_, own) in manifest.placed(record) {
        ranges.push(
            own.iter()
                .map(|(a, b)| (*a as usize, *b as usize))
                .collect(),
        );
    }
    ranges.iter().all(|ranges| {
        found.values().any(|other| {
            ranges.iter().all(|(begin, end)| {
                other
                    .get(*begin..*end)
                    .is_some_and(|part| part == &bytes[*begin..*end])
            })
        })
    })
}

fn verify(processes: Option<u32>, sample: &Sample, line: &str) -> Run {
    let args = sample.args(line);
    match processes {
        Some(processes) => under_mpi(processes, &args),
        None => alone(&args),
    }
}

fn named<'a>(result: &'a Value, key: &str) -> BTreeSet<&'a str> {
    let rows = result[key].as_array().expect("an array");
    rows.iter().filter_map(|row| row["file"].as_str()).collect()
}

// proves P80, P81, P82
#[test]
fn whatever_has_a_good_copy_is_mended_and_nothing_else_changes() {
    let rounds = std::env::var("SHARDLOOM_DAMAGES").ok();
    let rounds: u64 = rounds.map_or(30, |rounds| rounds.parse().expect("a number"));
    let seed = std::env::var("SHARDLOOM_SEED").ok();
    let seed: u64 = seed.map_or(2026, |seed| seed.parse().expect("a number"));
    let (pairs, single) = (checkpoint(false), checkpoint(true));
    for sample in [&pairs, &single] {
        alone(&sample.args("convert @out --dst @ckpt --to ckpt --crc")).succeeds();
    }
    let cases = [
        (&pairs, "out"),
        (&single, "out"),
        (&pairs, "ckpt"),
        (&single, "ckpt"),
    ];
    let (mut mended, mut left) = (0, 0);
    for round in 0..rounds {
        let (sample, name) = cases[round as usize % cases.len()];
        let processes = (round % 15 == 7).then_some(4);
        let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let (yes, no) = mend_one(
            sample,
            name,
            processes,
            &mut dice,
            &format!("seed {seed}, round {round}"),
        );
        mended += yes;
        left += no;
    }
    println!("seed {seed}: {rounds} rounds, {mended} files mended, {left} without a good copy");
    assert!(mended > rounds / 3, "too few damages: {mended}");
    assert!(left > 0 || rounds < 20, "too many copies");
}

/// Damages a checkpoint, repairs it and looks at every file; gives how many were mended, and how many
/// couldn't be. The checkpoint is what it was afterwards.
fn mend_one(
    sample: &Sample,
    name: &str,
    processes: Option<u32>,
    dice: &mut Dice,
    which: &str,
) -> (u64, u64) {
    let directory = sample.path(name);
    let manifest = Manifest::read(&directory)
        .expect("readable")
        .expect("a manifest");
    let good = weights(&directory);
    let names: Vec<String> = good.keys().cloned().collect();
    let times = 1 + dice.roll(3);
    let told: Vec<String> = (0..times)
        .map(|_| damage(&directory, &names, dice))
        .collect();
    let which = format!("{which}: {}", told.join(", "));
    let found = weights(&directory);
    let inode = |file: &str| {
        std::fs::metadata(directory.join(file))
            .map(|m| m.ino())
            .ok()
    };
    let before: BTreeMap<&String, Option<u64>> =
        names.iter().map(|file| (file, inode(file))).collect();
    let run = verify(
        processes,
        sample,
        &format!("verify @{name} --repair --json"),
    );
    let result = object(&run);
    let after = weights(&directory);
    let (repaired, bad) = (named(&result, "repaired"), named(&result, "bad"));
    let (mut mended, mut left) = (0, 0);
    for file in &names {
        if found.get(file) == good.get(file) {
            assert_eq!(inode(file), before[file], "{file} was touched; {which}");
            assert!(
                !repaired.contains(file.as_str()) && !bad.contains(file.as_str()),
                "{which}"
            );
        } else if mendable(&manifest, &good, &found, file) {
            assert!(
                after.get(file) == good.get(file),
                "{file} isn't mended; {which}: {run:#?}"
            );
            assert!(
                repaired.contains(file.as_str()) && !bad.contains(file.as_str()),
                "{which}"
            );
            mended += 1;
        } else {
            assert!(
                after.get(file) == found.get(file),
                "{file} was changed; {which}"
            );
            assert!(
                bad.contains(file.as_str()) && !repaired.contains(file.as_str()),
                "{which}"
            );
            left += 1;
        }
    }
    let code = i32::from(left > 0);
    assert_eq!(run.status.code(), Some(code), "{which}: {run:#?}");
    // What alone holds parts of a file that stays bad is kept.
    let (kept, others): (Vec<_>, Vec<_>) = after
        .keys()
        .filter(|file| !good.contains_key(*file))
        .partition(|file| file.contains(".shardloom-damaged"));
    assert!(others.is_empty(), "left over: {others:?}; {which}");
    assert!(kept.is_empty() || left > 0, "kept: {kept:?}; {which}");
    for file in kept {
        std::fs::remove_file(directory.join(file)).expect("remove");
    }
    for (file, bytes) in &good {
        std::fs::write(directory.join(file), bytes).expect("write");
    }
    (mended, left)
}

/// Damages of every rank that leave no copy of `w2`, and of two files none of anything.
fn ruin(directory: &Path) {
    let names: Vec<PathBuf> = weights(directory)
        .keys()
        .map(|name| directory.join(name))
        .collect();
    for (number, path) in names.iter().enumerate() {
        let mut bytes = std::fs::read(path).expect("a file");
        match number {
            0 | 1 => std::fs::remove_file(path).expect("remove"),
            2 => std::fs::write(path, &bytes[..100]).expect("write"),
            _ => {
                let last = bytes.len() - 1;
                for at in [9, last - W1_BYTES, last] {
                    bytes[at] ^= 1;
                }
                std::fs::write(path, bytes).expect("write");
            }
        }
    }
}

// proves P84
#[test]
fn another_layout_gives_what_is_nowhere_else() {
    let sample = checkpoint(true);
    alone(&sample.args("unify --src @src --src-strategy @four.ckpt --dst @whole")).succeeds();
    let good = files(&sample.path("out"));
    let lines = [
        (
            None,
            "--from @src --from-strategy @four.ckpt --strategy @two.ckpt",
        ),
        (
            Some(4),
            "--from @src --from-strategy @four.ckpt --strategy @two.ckpt",
        ),
        (None, "--from @whole --strategy @two.ckpt"),
    ];
    for (processes, from) in lines {
        ruin(&sample.path("out"));
        let ruined = files(&sample.path("out"));
        let run = verify(None, &sample, "verify @out --repair --json");
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        assert!(files(&sample.path("out")) == ruined, "they must stay");
        let other = (files(&sample.path("src")), files(&sample.path("whole")));
        let run = verify(
            processes,
            &sample,
            &format!("verify @out --repair {from} --json"),
        );
        let result = object(&run.succeeds());
        assert!(files(&sample.path("out")) == good, "{from}: {result}");
        assert!((files(&sample.path("src")), files(&sample.path("whole"))) == other);
        assert_eq!(result["bad"], Value::Array(Vec::new()));
        let rows = result["repaired"].as_array().expect("rows");
        let w2 = rows.iter().filter(|row| row["tensor"] == "w2");
        assert_eq!(w2.count(), 4, "{result}");
        assert!(!sample.path(".out.shardloom-repair").exists());
    }
}

#[test]
fn a_plain_copy_serves_with_its_manifest_and_without() {
    let sample = checkpoint(true);
    let good = files(&sample.path("out"));
    for manifest in [true, false] {
        for (name, bytes) in &good {
            if manifest || name != "shardloom.json" {
                tensors::write_bytes(&sample.path("copy").join(name), bytes);
            } else {
                std::fs::remove_file(sample.path("copy").join(name)).expect("remove");
            }
        }
        let kept = files(&sample.path("copy"));
        ruin(&sample.path("out"));
        let run = alone(&sample.args("verify @out --repair --from @copy")).succeeds();
        assert!(run.stdout.contains("w2: repaired from"), "{run:#?}");
        assert!(files(&sample.path("out")) == good);
        assert!(files(&sample.path("copy")) == kept);
    }
    let run = alone(&sample.args("verify @out --repair --from @out"));
    assert_eq!(run.status.code(), Some(2), "{run:#?}");
    refuses(
        &alone(&sample.args("verify @out --repair --from @nowhere")),
        "nowhere",
    );
}

/// A checkpoint 2.0: its files, and the small ones that tell its layout.
#[test]
fn a_checkpoint_that_tells_its_own_layout_is_mended() {
    let sample = checkpoint(false);
    let made = "reshard --src @src --src-strategy @four.ckpt --dst @own --dst-strategy @two.ckpt --format checkpoint2";
    alone(&sample.args(made)).succeeds();
    let good = files(&sample.path("own"));
    for (name, bytes) in &good {
        tensors::write_bytes(&sample.path("copy").join(name), bytes);
    }
    let (mut weights, mut notes) = (0, 0);
    for (name, bytes) in &good {
        let path = sample.path("own").join(name);
        let mut damaged = bytes.clone();
        let at = damaged.len().saturating_sub(2);
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).expect("written");
        // Of weights there are copies in it; of what tells of them only elsewhere.
        let from = if name.ends_with(".safetensors") {
            weights += 1;
            ""
        } else {
            notes += 1;
            "--from @copy"
        };
        alone(&sample.args(&format!("verify @own --repair {from}"))).succeeds();
        assert!(files(&sample.path("own")) == good, "{name}");
    }
    assert!(weights == 4 && notes > 2, "{weights} {notes}");
}

/// What a trainer looks for beside each rank's file: its names tell it, whether one is lost or all are.
#[test]
fn the_records_of_a_step_are_made_anew_of_the_files_names() {
    let sample = checkpoint(false);
    let made = "split --src @full --dst @stepped --dst-strategy @two.ckpt --step 2_30";
    alone(&sample.args(made)).succeeds();
    let good = files(&sample.path("stepped"));
    let meta = |rank: u32| sample.path(&format!("stepped/rank_{rank}/meta.json"));
    for processes in [1, 2] {
        std::fs::remove_file(meta(1)).expect("removed");
        under_mpi(processes, &sample.args("verify @stepped --repair")).succeeds();
        assert!(files(&sample.path("stepped")) == good);
        for rank in 0..2 {
            std::fs::write(meta(rank), b"{}").expect("written");
        }
        under_mpi(processes, &sample.args("verify @stepped --repair")).succeeds();
        assert!(files(&sample.path("stepped")) == good);
        // One that names another step is a trainer's, which has gone on.
        let newer = "{\"last_epoch\":2,\"last_step\":40,\"last_ckpt_file\":\"net_rank_1-2_40.safetensors\"}";
        std::fs::write(meta(1), newer).expect("written");
        let run = under_mpi(processes, &sample.args("verify @stepped --repair"));
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        assert_eq!(std::fs::read_to_string(meta(1)).expect("a file"), newer);
        std::fs::remove_file(meta(1)).expect("removed");
        under_mpi(processes, &sample.args("verify @stepped --repair")).succeeds();
    }
}

// proves P88
#[test]
fn a_manifest_is_taken_from_a_copy_that_proves_equal() {
    let sample = checkpoint(false);
    let good = files(&sample.path("out"));
    for (name, bytes) in &good {
        tensors::write_bytes(&sample.path("copy").join(name), bytes);
    }
    // The same names and shapes, of other values.
    let other = checkpoint(false);
    let mut whole = other.whole.clone();
    whole.get_mut("w1").expect("w1").data[3] ^= 1;
    tensors::write(&sample.path("whole/model.safetensors"), &whole);
    let split = "reshard --src @whole --dst @other --dst-strategy @two.ckpt";
    alone(&sample.args(split)).succeeds();
    let told = sample.path("out/shardloom.json");
    let manifest = good["shardloom.json"].clone();
    let middle = manifest.len() / 2;
    let flipped = |at: usize| {
        let mut bytes = manifest.clone();
        bytes[at] ^= 1;
        bytes
    };
    let weights = sample
        .path("out")
        .join(weights(&sample.path("out")).keys().next().expect("a file"));
    let harm = |manifest: &Option<Vec<u8>>, weights_too: bool| {
        match manifest {
            Some(bytes) => std::fs::write(&told, bytes).expect("written"),
            None => std::fs::remove_file(&told).expect("removed"),
        }
        if weights_too {
            let mut bytes = std::fs::read(&weights).expect("a file");
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(&weights, bytes).expect("written");
        }
    };
    let late = flipped(manifest.len() - 30);
    for (manifest, weights_too, processes) in [
        (Some(flipped(middle)), false, None),
        (Some(manifest[..middle].to_vec()), false, Some(4)),
        (None, false, None),
        (Some(late.clone()), true, Some(4)),
    ] {
        harm(&manifest, weights_too);
        let run = verify(
            processes,
            &sample,
            "verify @out --repair --from @copy --json",
        )
        .succeeds();
        let result = object(&run);
        assert!(
            named(&result, "repaired").contains("shardloom.json"),
            "{result}"
        );
        assert!(files(&sample.path("out")) == good, "{result}");
    }
    // What can't be told to be of these files isn't taken.
    for (manifest, weights_too, from) in [
        (None, true, "copy"),
        (Some(late.clone()), false, "other"),
        (None, false, "other"),
        (Some(late), false, "whole"),
    ] {
        harm(&manifest, weights_too);
        let before = files(&sample.path("out"));
        let run = alone(&sample.args(&format!("verify @out --repair --from @{from} --json")));
        assert_ne!(run.status.code(), Some(0), "{run:#?}");
        assert!(run.stdout.contains("shardloom.json"), "{run:#?}");
        assert!(files(&sample.path("out")) == before, "{from}");
        for (name, bytes) in &good {
            tensors::write_bytes(&sample.path("out").join(name), bytes);
        }
    }
    harm(&Some(flipped(middle)), false);
    let run = alone(&sample.args("verify @out --repair"));
    assert!(run.stdout.contains("--from COPY"), "{run:#?}");
}

// proves P86
#[test]
fn a_copy_that_is_damaged_itself_is_not_believed() {
    let sample = checkpoint(true);
    let good = files(&sample.path("out"));
    for (name, bytes) in &good {
        let mut bytes = bytes.clone();
        if name.starts_with("rank_0") {
            let last = bytes.len() - 1;
            bytes[last - W1_BYTES] ^= 1;
        }
        tensors::write_bytes(&sample.path("copy").join(name), &bytes);
    }
    ruin(&sample.path("out"));
    let run = alone(&sample.args("verify @out --repair --from @copy --json"));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let result = object(&run);
    assert_eq!(named(&result, "bad").len(), 1, "{result}");
    assert_eq!(named(&result, "repaired").len(), 3, "{result}");
    let now = files(&sample.path("out"));
    for (name, bytes) in &good {
        assert!(
            now.get(name) == (!name.starts_with("rank_0")).then_some(bytes),
            "{name}"
        );
    }
}

// proves P87
#[test]
fn the_last_copy_of_what_cannot_be_mended_stays() {
    let sample = checkpoint(true);
    let path = |rank| sample.path(&format!("out/rank_{rank}/net{rank}.safetensors"));
    let good = [0, 2].map(|rank| std::fs::read(path(rank)).expect("a file"));
    // They have changed places, the others are gone, and what is rank 2's has lost a bit besides.
    for rank in [1, 3] {
        std::fs::remove_file(path(rank)).expect("remove");
    }
    let mut broken = good[1].clone();
    let last = broken.len() - 1;
    broken[last - W1_BYTES] ^= 1;
    std::fs::write(path(0), &broken).expect("write");
    std::fs::write(path(2), &good[0]).expect("write");
    let run = alone(&sample.args("verify @out --repair --json"));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    assert!(
        std::fs::read(path(0)).expect("a file") == good[0],
        "{run:#?}"
    );
    let kept = path(0).with_file_name(".net0.safetensors.shardloom-damaged");
    assert!(std::fs::read(&kept).expect("a file") == broken, "{run:#?}");
    assert!(run.stderr.contains("shardloom-damaged"), "{run:#?}");
    std::fs::rename(&kept, path(2)).expect("rename");
    let result = object(&alone(&sample.args("verify @out --json")));
    let rows = result["bad"].as_array().expect("rows").iter();
    let own: Vec<_> = rows
        .filter(|row| row["file"] == "rank_2/net2.safetensors")
        .collect();
    assert_eq!(own.len(), 1, "{result}");
    assert_eq!(own[0]["tensor"], "w2", "{result}");
}

#[test]
fn weights_that_are_newer_than_their_manifest_are_not_lost() {
    let sample = checkpoint(true);
    for (name, bytes) in &files(&sample.path("out")) {
        tensors::write_bytes(&sample.path("copy").join(name), bytes);
    }
    let old = weights(&sample.path("out"));
    // All files, or those of one rank alone, as a trainer may save that writes on the first.
    for ranks in ["rank_", "rank_0"] {
        let mut newer = Files::new();
        for (name, bytes) in old.iter().filter(|(name, _)| name.starts_with(ranks)) {
            let mut bytes = bytes.clone();
            let data = bytes.len() - 2 * W1_BYTES;
            bytes[data..].iter_mut().for_each(|byte| *byte ^= 1);
            std::fs::write(sample.path("out").join(name), &bytes).expect("write");
            newer.insert(name.clone(), bytes);
        }
        assert!(!newer.is_empty());
        for processes in [None, Some(4)] {
            let run = verify(processes, &sample, "verify @out --repair --from @copy");
            let run = run.succeeds();
            assert!(run.stderr.contains("shardloom-damaged"), "{run:#?}");
            for (name, bytes) in &newer {
                let path = sample.path("out").join(name);
                let file = path.file_name().expect("a name").to_string_lossy();
                let kept = path.with_file_name(format!(".{file}.shardloom-damaged"));
                assert!(std::fs::read(&path).expect("a file") == old[name], "{name}");
                assert!(std::fs::read(&kept).expect("kept") == *bytes, "{name}");
                std::fs::rename(&kept, &path).expect("rename");
            }
        }
        for (name, bytes) in &old {
            std::fs::write(sample.path("out").join(name), bytes).expect("write");
        }
    }
}

/// The one file of full weights in a directory.
fn weights_of(directory: &Path) -> PathBuf {
    let files = fixtures::listing(directory);
    let mut files = files.iter();
    let file = files.find(|path| path.to_string_lossy().ends_with(".safetensors"));
    directory.join(file.expect("weights"))
}

#[test]
fn a_check_is_spread_over_several_runs() {
    let sample = checkpoint(true);
    let before = files(&sample.path("out"));
    let names: Vec<&String> = before
        .keys()
        .filter(|name| name.starts_with("rank_3"))
        .collect();
    let name = names.first().expect("a file");
    tensors::damage(&sample.path("out").join(name), "w1");
    for processes in [None, Some(4)] {
        let (mut checked, mut bad) = (0, 0);
        for part in 1..=3 {
            let line = format!("verify @out --subset {part}/3 --json");
            let result = object(&verify(processes, &sample, &line));
            assert_eq!(result["subset"], format!("{part}/3"), "{result}");
            checked += result["checked"].as_u64().expect("a number");
            bad += named(&result, "bad").len();
        }
        assert_eq!(
            (checked, bad),
            (before.len() as u64 - 1, 1),
            "{processes:?}"
        );
    }
    // Of a part that is whole nothing is made anew.
    let line = "verify @out --repair --json --subset";
    alone(&sample.args(&format!("{line} 1/3"))).succeeds();
    let mended = object(&alone(&sample.args(&format!("{line} 3/3"))));
    assert_eq!(named(&mended, "repaired").len(), 1, "{mended}");
    assert!(files(&sample.path("out")) == before);
    let wrong = alone(&sample.args("verify @out --subset 4/3"));
    assert_eq!(wrong.status.code(), Some(2), "{wrong:#?}");
    // A damaged manifest is named, with what to do.
    std::fs::write(sample.path("out/shardloom.json"), "{").expect("written");
    for line in ["verify @out --json", "verify @out --repair --json"] {
        let result = object(&alone(&sample.args(line)));
        let reason = result["bad"][0]["reason"].as_str().expect("a reason");
        assert!(reason.contains("take it from a copy"), "{result}");
    }
}

// proves P83
#[test]
fn a_header_is_laid_out_anew_where_no_file_has_it() {
    let sample = checkpoint(true);
    alone(&sample.args("unify --src @src --src-strategy @four.ckpt --dst @whole")).succeeds();
    let path = weights_of(&sample.path("whole"));
    let good = std::fs::read(&path).expect("a file");
    let mut bytes = good.clone();
    bytes[0..40].fill(0xff);
    std::fs::write(&path, bytes).expect("write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("mode");
    let run = alone(&sample.args("verify @whole --repair --json")).succeeds();
    assert!(std::fs::read(&path).expect("a file") == good);
    assert_eq!(object(&run)["repaired"][0]["tensor"], Value::Null);
    let mode = std::fs::metadata(&path)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
}

// proves P85
#[test]
fn a_repair_that_dies_leaves_old_or_new_files_and_is_taken_up() {
    let sample = checkpoint(false);
    let directory = sample.path("out");
    let good = files(&directory);
    let names: Vec<&String> = good
        .keys()
        .filter(|name| name.starts_with("rank_"))
        .collect();
    let (mut died, mut call) = (0, 20);
    loop {
        for (name, bytes) in &good {
            std::fs::write(directory.join(name), bytes).expect("write");
        }
        // Two have changed places, of a third a tensor is damaged.
        std::fs::write(directory.join(names[0]), &good[names[3]]).expect("write");
        std::fs::write(directory.join(names[3]), &good[names[0]]).expect("write");
        let mut bytes = good[names[1]].clone();
        bytes[good[names[1]].len() - 1] ^= 2;
        std::fs::write(directory.join(names[1]), &bytes).expect("write");
        let old = files(&directory);
        let exit = format!("exit:{call}");
        let args = sample.args("verify @out --repair");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
        let run = support::alone(program, &args, &[("SHARDLOOM_IO_FAULT", &exit)]);
        let now = files(&directory);
        for name in &names {
            let bytes = now.get(*name);
            assert!(
                bytes == old.get(*name) || bytes == good.get(*name),
                "{exit}: {name}"
            );
        }
        if !run.status.success() {
            died += 1;
            alone(&sample.args("verify @out --repair")).succeeds();
        }
        assert!(files(&directory) == good, "{exit}");
        if run.status.success() {
            break;
        }
        call += 7;
    }
    assert!(died > 5, "it died {died} times only");
}

#[test]
fn what_is_damaged_in_the_other_layout_is_left_out() {
    let sample = checkpoint(true);
    alone(&sample.args("unify --src @src --src-strategy @four.ckpt --dst @whole")).succeeds();
    let whole = weights_of(&sample.path("whole"));
    let mut bytes = std::fs::read(&whole).expect("a file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1; // of `w1`, which the directory itself has
    std::fs::write(&whole, bytes).expect("write");
    ruin(&sample.path("out"));
    let line = "verify @out --repair --from @whole --strategy @two.ckpt --json";
    let run = alone(&sample.args(line));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let result = object(&run);
    let lacks = |row: &&Value| {
        row["reason"]
            .as_str()
            .is_some_and(|why| why.contains("no good copy"))
    };
    let rows = result["bad"].as_array().expect("rows");
    let lacking: BTreeSet<_> = rows
        .iter()
        .filter(lacks)
        .map(|row| row["file"].as_str())
        .collect();
    assert_eq!(lacking.len(), 4, "{result}");
    assert!(
        rows.iter().all(|row| row["tensor"] != "w2" || !lacks(&row)),
        "{result}"
    );
}

#[test]
fn a_checksum_at_the_end_of_a_file_is_made_anew() {
    let sample = checkpoint(true);
    alone(&sample.args("convert @out --dst @ckpt --to ckpt --crc")).succeeds();
    let path = sample.path("ckpt/rank_2/net2.ckpt");
    let good = std::fs::read(&path).expect("a file");
    let mut bytes = good.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).expect("write");
    let run = alone(&sample.args("verify @ckpt --repair --json")).succeeds();
    assert!(std::fs::read(&path).expect("a file") == good);
    assert_eq!(named(&object(&run), "repaired").len(), 1, "{run:#?}");
}

/// A manifest that is damaged or gone is made anew of the same weights in another layout; what differs from them is
/// mended and kept beside, and another checkpoint is none.
#[test]
fn a_manifest_is_made_anew_of_another_layout() {
    let sample = checkpoint(true);
    for line in [
        "unify --src @src --src-strategy @four.ckpt --dst @whole",
        "convert @out --dst @ckpt --to ckpt --crc",
    ] {
        alone(&sample.args(line)).succeeds();
    }
    let whole = weights_of(&sample.path("whole"));
    let other = sample.path("other/model.safetensors");
    let mut changed = sample.whole.clone();
    for tensor in changed.values_mut() {
        tensor.data.iter_mut().for_each(|byte| *byte ^= 1);
    }
    tensors::write(&other, &changed);
    // Of which files the bytes of weights are flipped, which are gone, and whose header is.
    type Names = &'static [&'static str];
    type Case = (&'static str, Names, Names, Names, Option<u32>, &'static str);
    let cases: [Case; 5] = [
        (
            "out",
            &[],
            &[],
            &[],
            None,
            "--from @whole --strategy @two.ckpt",
        ),
        (
            "out",
            &["rank_1/net1.safetensors"],
            &["rank_2/net2.safetensors"],
            &["rank_3/net3.safetensors"],
            Some(4),
            "--from @src --from-strategy @four.ckpt --strategy @two.ckpt",
        ),
        (
            "ckpt",
            &["rank_1/net1.ckpt"],
            &[],
            &[],
            None,
            "--from @whole --strategy @two.ckpt",
        ),
        (
            "whole",
            &[],
            &[],
            &[],
            None,
            "--from @src --from-strategy @four.ckpt",
        ),
        (
            "whole",
            &["model-00001-of-00001.safetensors"],
            &[],
            &[],
            Some(2),
            "--from @out --from-strategy @two.ckpt",
        ),
    ];
    for (number, (name, flipped, gone, headless, processes, from)) in cases.into_iter().enumerate()
    {
        let directory = sample.path(name);
        let good = files(&directory);
        let told = directory.join("shardloom.json");
        // Half a manifest says of which weights it is, none doesn't.
        match number % 2 {
            0 => std::fs::remove_file(&told).expect("removed"),
            _ => std::fs::write(
                &told,
                &good["shardloom.json"][..good["shardloom.json"].len() / 2],
            )
            .expect("written"),
        }
        for file in flipped {
            let mut bytes = good[*file].clone();
            let middle = bytes.len() - 40;
            bytes[middle] ^= 4;
            std::fs::write(directory.join(file), bytes).expect("written");
        }
        for file in gone {
            std::fs::remove_file(directory.join(file)).expect("removed");
        }
        for file in headless {
            let mut bytes = good[*file].clone();
            bytes[0..30].fill(0xff);
            std::fs::write(directory.join(file), bytes).expect("written");
        }
        let line = format!("verify @{name} --repair {from} --json");
        let run = verify(processes, &sample, &line);
        let result = object(&run.succeeds());
        let due = ["shardloom.json"]
            .iter()
            .chain(flipped)
            .chain(gone)
            .chain(headless);
        assert_eq!(
            named(&result, "repaired"),
            due.copied().collect(),
            "{number}: {result}"
        );
        let mut now = files(&directory);
        let kept: Vec<String> = now
            .keys()
            .filter(|name| name.contains(".shardloom-damaged"))
            .cloned()
            .collect();
        assert_eq!(
            kept.len(),
            flipped.len() + headless.len(),
            "{number}: {kept:?}"
        );
        for file in kept {
            now.remove(&file);
            std::fs::remove_file(directory.join(file)).expect("removed");
        }
        for (file, bytes) in &good {
            assert!(
                file == "shardloom.json" || now.get(file) == Some(bytes),
                "{number}: {file}"
            );
        }
        assert!(!sample.path(&format!(".{name}.shardloom-repair")).exists());
        alone(&sample.args(&format!("verify @{name}"))).succeeds();
        std::fs::write(&told, &good["shardloom.json"]).expect("written");
    }
    let good = files(&sample.path("out"));
    std::fs::remove_file(sample.path("out/shardloom.json")).expect("removed");
    let before = files(&sample.path("out"));
    let line = "verify @out --repair --from @other --strategy @two.ckpt --json";
    let run = alone(&sample.args(line));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    assert!(
        run.stdout
            .contains("is another checkpoint: 12 of 12 shards"),
        "{run:#?}"
    );
    assert!(files(&sample.path("out")) == before);
    assert!(good.len() == before.len() + 1 && whole.exists());
}

/// What a job counts, and the other checkpoint doesn't, is as it stands.
#[test]
fn a_manifest_is_made_anew_of_files_that_count_steps() {
    let sample = checkpoint(true);
    for line in [
        "unify --src @src --src-strategy @four.ckpt --dst @whole",
        "split --src @whole --dst-strategy @two.ckpt --dst @step --step 20",
    ] {
        alone(&sample.args(line)).succeeds();
    }
    let good = files(&sample.path("step"));
    let (name, bytes) = good
        .iter()
        .find(|(name, _)| name.starts_with("rank_1/net"))
        .expect("weights");
    let mut bytes = bytes.clone();
    let last = bytes.len() - 8;
    bytes[last] ^= 1;
    std::fs::write(sample.path("step").join(name), bytes).expect("written");
    std::fs::remove_file(sample.path("step/shardloom.json")).expect("removed");
    let line = "verify @step --repair --from @whole --strategy @two.ckpt --json";
    let result = object(&alone(&sample.args(line)).succeeds());
    let repaired = named(&result, "repaired");
    assert!(repaired.contains(name.as_str()), "{result}");
    alone(&sample.args("verify @step")).succeeds();
    for (name, bytes) in good.iter().filter(|(name, _)| *name != "shardloom.json") {
        let now = std::fs::read(sample.path("step").join(name)).expect("a file");
        assert!(now == *bytes, "{name}");
    }
}
