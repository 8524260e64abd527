//! `shardloom checkpoints`: what is complete, what is resumed from, what may go.

use crate::support::{self, command, oracle, sample, tensors};
use command::{alone, object, refuses};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tensors::{Tensor, Tensors};

/// A job's `checkpoint` directory of two ranks.
struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Room {
        Room(tempfile::tempdir().expect("a temporary directory"))
    }

    fn file(&self, rank: u32, position: &str) -> PathBuf {
        let name = format!("rank_{rank}/m_rank_{rank}-{position}.safetensors");
        self.0.path().join("checkpoint").join(name)
    }

    fn save(&self, ranks: std::ops::Range<u32>, position: &str, step: i32) {
        for rank in ranks {
            let scalar = Tensor {
                dtype: "I32".into(),
                shape: vec![],
                data: step.to_le_bytes().to_vec(),
            };
            let tensors = Tensors::from([
                ("step_num".to_owned(), scalar),
                ("w".to_owned(), Tensor::counting("F32", &[4], 1)),
            ]);
            tensors::write(&self.file(rank, position), &tensors);
        }
    }

    fn meta(&self, rank: u32, epoch: u32, step: u32) {
        let name = format!("m_rank_{rank}-{epoch}_{step}.safetensors");
        let text = json!({ "last_epoch": epoch, "last_step": step, "last_ckpt_file": name });
        let path = self.file(rank, "1_1").with_file_name("meta.json");
        tensors::write_bytes(&path, text.to_string().as_bytes());
    }

    fn truncate(&self, rank: u32, position: &str) {
        let path = self.file(rank, position);
        let bytes = std::fs::read(&path).expect("a file");
        std::fs::write(&path, &bytes[..bytes.len() - 3]).expect("written");
    }

    fn run(&self, words: &str) -> Value {
        object(&alone(&self.args(words)).succeeds())
    }

    fn args(&self, words: &str) -> Vec<String> {
        let mut args = vec!["checkpoints".to_owned()];
        args.extend(words.split_whitespace().map(str::to_owned));
        args.push(self.0.path().join("checkpoint").display().to_string());
        args.push("--json".to_owned());
        args
    }
}

fn suffixes(list: &Value) -> Vec<(&str, bool)> {
    let list = list.as_array().expect("a list");
    let row = |c: &'static str, value: &Value| value[c].as_bool().expect("a truth");
    list.iter()
        .map(|c| (c["suffix"].as_str().expect("a text"), row("complete", c)))
        .collect()
}

// proves P78
#[test]
fn lists_what_is_complete_across_ranks() {
    let room = Room::new();
    room.save(0..2, "9_2", 18);
    room.save(0..2, "10_2", 20);
    room.save(0..1, "11_2", 22);
    let list = room.run("list");
    let rows = suffixes(&list["checkpoints"]);
    assert_eq!(rows, [("9_2", true), ("10_2", true), ("11_2", false)]);
    let first = &list["checkpoints"][0];
    assert_eq!(
        (&first["step"], &first["epoch"], &first["ranks"]),
        (&json!(18), &json!(9), &json!(2))
    );
    assert!(first["bytes"].as_u64().expect("bytes") > 32);
    let why = list["checkpoints"][2]["why"].as_str().expect("a reason");
    assert!(why.contains("rank 1"), "{why}");
    let latest = room.run("latest");
    assert_eq!(
        (&latest["suffix"], &latest["step"]),
        (&json!("10_2"), &json!(20))
    );
    assert_eq!(
        latest["files"],
        json!([
            "rank_0/m_rank_0-10_2.safetensors",
            "rank_1/m_rank_1-10_2.safetensors"
        ])
    );
}

#[test]
fn resumes_from_the_oldest_position_that_the_ranks_agree_on() {
    let room = Room::new();
    for (position, step) in [("1_1", 1), ("1_2", 2), ("1_11", 11), ("1_12", 12)] {
        room.save(0..2, position, step);
    }
    room.meta(0, 1, 12);
    room.meta(1, 1, 11);
    assert_eq!(room.run("latest")["suffix"], "1_11");
    std::fs::remove_file(room.file(1, "1_11")).expect("removed");
    assert_eq!(
        room.run("latest")["suffix"],
        "1_2",
        "what rank 1 lost is no candidate"
    );
    tensors::write_bytes(&room.file(1, "1_1").with_file_name("meta.json"), b"{");
    assert_eq!(
        room.run("latest")["suffix"],
        "1_12",
        "a broken record has no vote"
    );
}

/// Two names of one step, as a copy by hand may have made.
#[test]
fn two_files_of_one_rank_and_step_are_no_checkpoint() {
    let room = Room::new();
    for position in ["1_20", "1_020"] {
        room.save(0..2, position, 20);
    }
    let why = "rank 0 has m_rank_0-1_020.safetensors and m_rank_0-1_20.safetensors of it";
    let list = room.run("list");
    assert_eq!(list["checkpoints"][0]["why"], why);
    refuses(&alone(&room.args("latest")), why);
    let [from, to] =
        ["checkpoint", "out"].map(|name| room.0.path().join(name).display().to_string());
    let read = alone(&[
        "unify",
        "--src",
        &from,
        "--dst",
        &to,
        "--file-suffix",
        "1_020",
    ]);
    refuses(&read, "several files could be meant");
    assert!(read.stderr.contains("rename one"), "{read:#?}");
}

/// Which of them a job is to read only its user knows, or the ranks' records.
#[test]
fn of_two_jobs_with_the_same_step_none_is_chosen() {
    let room = Room::new();
    room.save(0..2, "1_1", 1);
    room.save(0..2, "1_2", 2);
    for rank in 0..2 {
        let other = format!("ema_rank_{rank}-1_2.safetensors");
        std::fs::copy(
            room.file(rank, "1_2"),
            room.file(rank, "1_2").with_file_name(other),
        )
        .expect("copied");
    }
    let run = alone(&room.args("latest"));
    refuses(&run, "m-1_2");
    assert!(run.stderr.contains("ema-1_2"), "{run:#?}");
    assert_eq!(object(&run)["error"]["kind"], "ambiguous");
    let list = alone(
        &room
            .args("list")
            .into_iter()
            .filter(|word| word != "--json")
            .collect::<Vec<_>>(),
    );
    for line in ["  ema 1_2: step", "  m 1_2: step", "  m 1_1: step"] {
        assert!(list.stdout.contains(line), "{list:#?}");
    }
    let strategy = oracle::Strategy::of(&[("w", sample::layout(&[2], &[-1]))]);
    let at = |name: &str| room.0.path().join(name);
    tensors::write_bytes(&at("s.ckpt"), &oracle::to_protobuf(&strategy));
    let read = |suffix: &str| {
        let mut words = vec!["unify", "--dry-run", "--file-suffix", suffix];
        let paths = ["checkpoint", "s.ckpt", "out"].map(|name| at(name).display().to_string());
        for (flag, path) in ["--src", "--src-strategy", "--dst"].into_iter().zip(&paths) {
            words.extend([flag, path]);
        }
        alone(&words.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    for suffix in ["latest", "1_2"] {
        let run = read(suffix);
        refuses(&run, "ema");
        assert!(run.stderr.contains("--file-suffix"), "{run:#?}");
    }
    room.meta(0, 1, 2);
    room.meta(1, 1, 2);
    let latest = room.run("latest");
    assert_eq!(
        (&latest["suffix"], &latest["prefix"]),
        (&json!("1_2"), &json!("m"))
    );
}

// proves P144
#[test]
fn never_chooses_a_truncated_file() {
    let room = Room::new();
    room.save(0..2, "1_1", 1);
    room.save(0..2, "1_2", 2);
    room.meta(0, 1, 2);
    room.meta(1, 1, 2);
    room.truncate(1, "1_2");
    assert_eq!(room.run("latest")["suffix"], "1_1");
    assert_eq!(room.run("latest --names-only")["suffix"], "1_2");
    room.truncate(0, "1_1");
    let run = alone(&room.args("latest"));
    refuses(&run, "1_2");
    assert_eq!(object(&run)["error"]["kind"], "missing_shard");
}

#[test]
fn keeps_a_repeated_run_apart() {
    let room = Room::new();
    room.save(0..2, "7_1", 7);
    for rank in 0..2u32 {
        let again = room
            .file(rank, "8_1")
            .with_file_name(format!("m_rank_{rank}_1-2_1.safetensors"));
        std::fs::copy(room.file(rank, "7_1"), &again).expect("copied");
        let text = json!({ "last_epoch": 2, "last_step": 1,
            "last_ckpt_file": format!("m_rank_{rank}_1-2_1.safetensors") });
        let meta = again.with_file_name("meta.json");
        tensors::write_bytes(&meta, text.to_string().as_bytes());
    }
    let latest = room.run("latest");
    assert_eq!(latest["suffix"], "_1-2_1");
    assert_eq!(latest["files"][1], "rank_1/m_rank_1_1-2_1.safetensors");
}

// proves P77
#[test]
fn prune_keeps_what_is_asked_for_and_the_last_complete_one() {
    let room = Room::new();
    for step in 1..=4 {
        room.save(0..2, &format!("1_{step}"), step);
    }
    room.save(0..1, "1_5", 5);
    room.truncate(0, "1_4");
    let planned = room.run("prune --keep 1 --dry-run");
    assert_eq!(
        suffixes(&planned["removed"]),
        [("1_1", true), ("1_2", true)]
    );
    assert!(room.file(0, "1_1").exists());
    let pruned = room.run("prune --keep 1");
    assert_eq!(
        suffixes(&pruned["kept"]),
        [("1_3", true), ("1_4", false), ("1_5", false)]
    );
    let left = |rank: u32| -> Vec<String> {
        let directory = room.file(rank, "1_1");
        let directory = directory.parent().expect("a parent");
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .expect("a directory")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        left(1),
        ["m_rank_1-1_3.safetensors", "m_rank_1-1_4.safetensors"]
    );
    let again = room.run("prune --keep 1");
    assert!(suffixes(&again["removed"]).is_empty());
    let none = alone(&room.args("prune --keep 0"));
    assert_eq!(none.status.code(), Some(2), "{none:#?}");
}

#[test]
fn prune_leaves_other_jobs_and_looks_what_the_newest_holds() {
    let room = Room::new();
    for step in 1..=2 {
        room.save(0..2, &format!("1_{step}"), step);
    }
    let room_of = |rank: u32| {
        room.file(rank, "1_1")
            .parent()
            .expect("a parent")
            .to_path_buf()
    };
    for rank in 0..2 {
        let other = room_of(rank).join(format!("other_rank_{rank}-1_1.safetensors"));
        std::fs::copy(room.file(rank, "1_1"), other).expect("copied");
    }
    let best = room_of(0).join("best-1_1.safetensors");
    std::fs::copy(room.file(0, "1_1"), &best).expect("copied");
    // The newest has lost its weights on one rank: nothing may go for it.
    let whole = tensors::read(&room.file(1, "1_2"))
        .expect("readable")
        .tensors;
    let counts = whole
        .clone()
        .into_iter()
        .filter(|(name, _)| name.ends_with("_num"));
    tensors::write(&room.file(1, "1_2"), &counts.collect());
    let pruned = room.run("prune --keep 1");
    assert!(suffixes(&pruned["removed"]).is_empty(), "{pruned}");
    let why = pruned["kept"]
        .as_array()
        .expect("a list")
        .last()
        .expect("one")["why"]
        .to_string();
    assert!(
        why.contains("m_rank_1-1_2") && why.contains("m_rank_1-1_1"),
        "{pruned}"
    );
    tensors::write(&room.file(1, "1_2"), &whole);
    let pruned = room.run("prune --keep 1");
    assert_eq!(suffixes(&pruned["removed"]), [("1_1", true)]);
    assert!(best.exists() && room_of(1).join("other_rank_1-1_1.safetensors").exists());
    assert!(!room.file(0, "1_1").exists());
}

/// A step of all weights and no states, as trainers save beside the others, is complete; one that has lost weights isn't.
#[test]
fn weights_alone_are_a_step() {
    let room = Room::new();
    room.save(0..2, "1_1", 1);
    let alone = tensors::read(&room.file(0, "1_1"))
        .expect("readable")
        .tensors;
    let mut whole = alone.clone();
    for name in ["adam_m.w", "adam_v.w", "v"] {
        whole.insert(name.to_owned(), Tensor::counting("F32", &[4], 2));
    }
    let mut weights = alone.clone();
    weights.insert("v".to_owned(), Tensor::counting("F32", &[4], 2));
    for rank in 0..2 {
        tensors::write(&room.file(rank, "1_1"), &whole);
        tensors::write(&room.file(rank, "1_2"), &weights);
        tensors::write(&room.file(rank, "1_3"), &alone);
    }
    let listed = room.run("list");
    let due = [("1_1", true), ("1_2", true), ("1_3", false)];
    assert_eq!(suffixes(&listed["checkpoints"]), due, "{listed}");
    for rank in 0..2 {
        std::fs::remove_file(room.file(rank, "1_3")).expect("removed");
    }
    // Training goes on from the one, and not from the other.
    let pruned = room.run("prune --keep 1");
    assert!(suffixes(&pruned["removed"]).is_empty(), "{pruned}");
}

/// What `convert` makes is files of as many ranks as before, of however many steps.
#[test]
fn converted_steps_are_as_complete_as_they_were() {
    let room = Room::new();
    room.save(0..2, "1_10", 10);
    room.save(0..2, "1_20", 20);
    (0..2).for_each(|rank| room.meta(rank, 1, 10));
    let [from, to] = ["checkpoint", "made"].map(|name| room.0.path().join(name));
    for processes in [1, 3] {
        let line = ["--to", "ckpt", "--overwrite"].map(str::to_owned);
        let places = [&from, &to].map(|path| path.display().to_string());
        let convert = ["convert", &places[0], "--dst", &places[1]].map(str::to_owned);
        command::on(processes, &[convert.to_vec(), line.to_vec()].concat()).succeeds();
        let args = ["checkpoints", "list", &places[1], "--json"];
        let listed = object(&alone(&args).succeeds());
        let rows = suffixes(&listed["checkpoints"]);
        assert_eq!(rows, [("1_10", true), ("1_20", true)], "{listed}");
        assert_eq!(listed["latest"], "1_10", "its meta.json came along");
        alone(&["verify", &places[1]]).succeeds();
    }
}

#[test]
fn a_rank_that_is_a_link_to_nowhere_is_named_and_nothing_is_removed() {
    let room = Room::new();
    for step in 1..=2 {
        room.save(0..3, &format!("1_{step}"), step);
    }
    room.save(0..2, "1_3", 3);
    let (rank, away) = (
        room.0.path().join("checkpoint/rank_2"),
        room.0.path().join("disk"),
    );
    std::fs::rename(&rank, &away).expect("moved");
    std::os::unix::fs::symlink(&away, &rank).expect("linked");
    assert_eq!(room.run("latest")["suffix"], "1_2");
    std::fs::rename(&away, room.0.path().join("unmounted")).expect("moved");
    for question in ["list", "latest", "prune --keep 1"] {
        let run = alone(&room.args(question));
        refuses(&run, "where nothing is");
        assert!(run.stderr.contains("rank_2"), "{run:#?}");
    }
    assert!(room.file(0, "1_2").exists());
}

#[test]
fn prune_keeps_what_a_rank_resumes_from_after_a_job_of_more() {
    let room = Room::new();
    room.save(0..4, "1_100", 100);
    room.save(0..2, "1_20", 20);
    for rank in 0..4 {
        room.meta(rank, 1, if rank < 2 { 20 } else { 100 });
    }
    let pruned = room.run("prune --keep 1");
    assert!(suffixes(&pruned["removed"]).is_empty(), "{pruned}");
}

#[test]
fn what_is_complete_and_newer_than_any_record_is_told() {
    let room = Room::new();
    room.save(0..2, "1_2", 2);
    (0..2).for_each(|rank| room.meta(rank, 1, 1));
    let run = alone(&room.args("latest"));
    refuses(
        &run,
        "meta.json names 1_1, of which nothing is left; complete is 1_2, which is newer",
    );
    assert!(run.stderr.contains("--file-suffix 1_2"), "{run:#?}");
}

// proves P78
#[test]
fn ranks_whose_directories_are_gone_are_missed() {
    let room = Room::new();
    room.save(0..2, "1_1", 1);
    room.save(0..2, "1_2", 2);
    std::fs::remove_dir_all(room.0.path().join("checkpoint/rank_1")).expect("removed");
    std::fs::create_dir_all(room.0.path().join("checkpoint_network/rank_1")).expect("made");
    let listed = room.run("list");
    assert_eq!(
        suffixes(&listed["checkpoints"]),
        [("1_1", false), ("1_2", false)]
    );
    assert!(listed["latest"].is_null(), "{listed}");
    let none = alone(&room.args("latest"));
    assert_eq!(none.status.code(), Some(1), "{none:#?}");
    assert!(none.stderr.contains("--ranks"), "{none:#?}");
    assert_eq!(room.run("latest --ranks 1")["suffix"], "1_2");
    let pruned = room.run("prune --keep 1");
    assert!(suffixes(&pruned["removed"]).is_empty(), "{pruned}");
    assert_eq!(suffixes(&pruned["kept"]), [("1_1", false), ("1_2", false)]);
    let note = pruned["note"].as_str().expect("a note");
    assert!(
        note.contains("checkpoint_network tells of 2 ranks"),
        "{note}"
    );
    let pruned = room.run("prune --keep 1 --ranks 1");
    assert_eq!(suffixes(&pruned["removed"]), [("1_1", true)]);
}

#[test]
fn prune_takes_the_weights_of_what_goes_along() {
    let room = Room::new();
    for step in 1..=3 {
        room.save(0..2, &format!("1_{step}"), step);
        for (place, kind) in [
            ("checkpoint_network", "network"),
            ("checkpoint_trainable", "trainable_params"),
        ] {
            for rank in 0..2 {
                let file = format!("{place}/rank_{rank}/m_rank_{rank}-{kind}-1_{step}.safetensors");
                let weights = Tensors::from([("w".to_owned(), Tensor::counting("F32", &[4], 1))]);
                tensors::write(&room.0.path().join(file), &weights);
            }
        }
    }
    // Another run's, and one that is nobody's copy any more.
    let kept = [
        "checkpoint_network/rank_0/m_rank_0_1-network-1_1.safetensors",
        "checkpoint_network/rank_0/m_rank_0-network-1_0.safetensors",
    ];
    for file in kept {
        tensors::write_bytes(&room.0.path().join(file), b"x");
    }
    let old = "checkpoint_network/rank_1/m_rank_1-network-1_1.safetensors";
    let planned = room.run("prune --keep 1 --dry-run");
    assert!(room.0.path().join(old).exists());
    let pruned = room.run("prune --keep 1");
    assert_eq!(pruned["files"], planned["files"]);
    assert_eq!(pruned["files"].as_array().map(Vec::len), Some(2 * 2 * 3));
    assert_eq!(pruned["bytes"]["removed"], planned["bytes"]["removed"]);
    for (step, exists) in [(1, false), (2, false), (3, true)] {
        for (place, kind) in [
            ("checkpoint_network", "network"),
            ("checkpoint_trainable", "trainable_params"),
        ] {
            for rank in 0..2 {
                let file = format!("{place}/rank_{rank}/m_rank_{rank}-{kind}-1_{step}.safetensors");
                assert_eq!(room.0.path().join(&file).exists(), exists, "{file}");
            }
        }
    }
    for file in kept {
        assert!(room.0.path().join(file).exists(), "{file}");
    }
}

/// What a link leads to stays, for as long as the link does; and the last one that training can go on from.
#[test]
fn prune_keeps_what_links_lead_to_and_the_last_states() {
    use std::os::unix::fs::symlink;
    let room = Room::new();
    for step in 1..=5 {
        room.save(0..2, &format!("1_{step}"), 9);
    }
    let own = |rank: u32, name: &str| room.file(rank, "1_1").with_file_name(name);
    // By way of another link; out of a step that goes itself; and a step whose file is a link.
    symlink("best", own(0, "chosen")).expect("a link");
    symlink("m_rank_0-1_2.safetensors", own(0, "best")).expect("a link");
    std::fs::remove_file(room.file(1, "1_3")).expect("removed");
    symlink(room.file(1, "1_1"), room.file(1, "1_3")).expect("a link");
    std::fs::remove_file(room.file(1, "1_5")).expect("removed");
    symlink("m_rank_1-1_4.safetensors", room.file(1, "1_5")).expect("a link");
    let pruned = room.run("prune --keep 1");
    assert_eq!(
        suffixes(&pruned["removed"]),
        [("1_1", true), ("1_3", true)],
        "{pruned}"
    );
    let note = pruned["note"].as_str().expect("a note");
    for told in ["1_2 stays: rank_0/", "1_4 stays: rank_1/m_rank_1-1_5"] {
        assert!(note.contains(told), "{note}");
    }
    assert!(own(0, "chosen").exists() && room.file(1, "1_5").exists());
    // Weights alone are newer than what has an optimizer's states.
    let room = Room::new();
    for step in 1..=3 {
        room.save(0..2, &format!("1_{step}"), step);
    }
    for rank in 0..2 {
        let path = room.file(rank, "1_2");
        let mut file = tensors::read(&path).expect("a file").tensors;
        file.insert("adam_m.w".to_owned(), Tensor::counting("F32", &[4], 2));
        tensors::write(&path, &file);
    }
    let pruned = room.run("prune --keep 1");
    assert_eq!(suffixes(&pruned["removed"]), [("1_1", true)], "{pruned}");
}

/// A launch in which process R of two runs in directory `node_R`, as if each had a disk of its own.
fn on_own_disks(room: &Path, args: &str) -> support::Run {
    let script = format!(
        "cd '{}'/node_${{OMPI_COMM_WORLD_RANK:-$PMI_RANK}} && exec '{}' {args}",
        room.display(),
        env!("CARGO_BIN_EXE_shardloom")
    );
    let nodes = [("SHARDLOOM_NODES", "2")];
    support::mpirun(2, Path::new("/bin/sh"), &["-c", &script], &nodes)
}

#[test]
fn looks_over_the_nodes_own_disks() {
    let room = Room::new();
    room.save(0..2, "1_1", 1);
    room.save(0..2, "1_2", 2);
    room.save(0..1, "1_3", 3);
    for rank in 0..2 {
        let node = room.0.path().join(format!("node_{rank}/checkpoint"));
        std::fs::create_dir_all(&node).expect("a directory");
        let from = room.0.path().join(format!("checkpoint/rank_{rank}"));
        std::fs::rename(from, node.join(format!("rank_{rank}"))).expect("moved");
    }
    let latest =
        object(&on_own_disks(room.0.path(), "checkpoints latest checkpoint --json").succeeds());
    assert_eq!(
        (&latest["suffix"], &latest["ranks"]),
        (&json!("1_2"), &json!(2))
    );
    on_own_disks(room.0.path(), "checkpoints prune checkpoint --keep 1").succeeds();
    for rank in 0..2 {
        let old = format!("node_{rank}/checkpoint/rank_{rank}/m_rank_{rank}-1_1.safetensors");
        assert!(!room.0.path().join(old).exists());
    }
}

#[test]
fn an_empty_place_is_an_error() {
    let room = Room::new();
    let run = alone(&room.args("list"));
    refuses(&run, "checkpoint");
}
