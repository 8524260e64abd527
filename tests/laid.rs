//! A result keeps its layout: whoever reads it needs no strategy.

use crate::support::{Run, command, fixtures, hosts, oracle, sample, schema, tensors};
use command::{RESHARD, alone, object, refuses};
use fixtures::data;
use hosts::{HOSTS, Hosts};
use oracle::Strategy;
use sample::{Sample, image, layout};
use serde_json::Value;
use std::path::Path;
use tensors::{Tensor, Tensors};

const MANIFEST: &str = "shardloom.json";
const SAID: &str = "its manifest tells its layout";

/// Runs `line` with one process, or so many.
fn run(processes: u32, sample: &Sample, line: &str) -> Run {
    command::on(processes, &sample.args(line))
}

/// A sample that was brought to `out`, two ranks.
fn brought() -> Sample {
    let sample = Sample::in_memory();
    alone(&sample.args(RESHARD)).succeeds();
    sample
}

/// What the manifest of `directory` says.
fn manifest(directory: &Path) -> Value {
    let bytes = std::fs::read(directory.join(MANIFEST)).expect("a manifest");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Writes the manifest of `directory` as a program without the field has it: without `strategy`.
fn as_before(directory: &Path) {
    let path = directory.join(MANIFEST);
    let read = shardloom::store::manifest::Manifest::read(directory);
    let mut read = read.expect("readable").expect("a manifest");
    read.strategy = None;
    std::fs::write(path, read.to_bytes().expect("bytes")).expect("written");
}

#[test]
fn a_result_is_read_by_the_layout_that_it_keeps() {
    let sample = brought();
    for processes in [1, 4] {
        let line = "reshard --json --src @out --dst @back --dst-strategy @four.ckpt --overwrite";
        let told = object(&run(processes, &sample, line).succeeds());
        assert!(told["notes"].to_string().contains(SAID), "{told}");
        assert!(told["notes"].to_string().contains("2 ranks"), "{told}");
        sample.check("back", &sample.four, &sample.whole);
        run(
            processes,
            &sample,
            "unify --src @out --dst @one --overwrite",
        )
        .succeeds();
        run(processes, &sample, "diff @one @full").succeeds();
        // Either side by its own.
        run(processes, &sample, "diff @out @back --verify").succeeds();
        run(processes, &sample, "diff @full @out").succeeds();
        let command = "convert @out --to ckpt --dst @other --overwrite";
        run(processes, &sample, command).succeeds();
        run(processes, &sample, "diff @other @full").succeeds();
        // A given strategy of the same layout is as good.
        run(processes, &sample, "diff @out @full --a-strategy @two.ckpt").succeeds();
        let given = "unify --src @out --src-strategy @two.ckpt --dst @one --overwrite";
        run(processes, &sample, given).succeeds();
    }
}

/// Every kind of layout that the recorded cases have, stages and optimizer shards among them.
#[test]
fn every_layout_is_kept() {
    let cases = [
        ("multi_axis", "multi_a.ckpt"),
        ("multi_axis", "multi_a.json"),
        ("multi_axis", "multi_a_opt.ckpt"),
        ("multi_axis", "multi_b.ckpt"),
        ("opt_shard", "src_size2.ckpt"),
        ("opt_shard", "dst_full_size.ckpt"),
        ("opt_shard_many_axes", "A.ckpt"),
        ("opt_shard_many_axes", "D.ckpt"),
        ("opt_shard_many_axes", "I.ckpt"),
        ("opt_shard_pipeline", ""),
        ("pipeline2", ""),
        ("expert3d", "moe.ckpt"),
        ("expert3d", "moe_opt.ckpt"),
    ];
    let room = tempfile::tempdir().expect("a directory");
    for (number, (case, file)) in cases.into_iter().enumerate() {
        let full = data().join(case).join("full").display().to_string();
        let strategy = data().join(case).join("strategy").join(file);
        let strategy = strategy.display().to_string();
        let out = room.path().join(number.to_string()).display().to_string();
        for redundancy in [&[][..], &["--remove-redundancy"]] {
            let line = ["split", "--src", &full, "--dst", &out, "--overwrite"];
            let cut = ["--dst-strategy", &strategy, "--unmatched", "copy"];
            alone(&[&line[..], &cut, redundancy].concat()).succeeds();
            assert!(manifest(Path::new(&out))["strategy"].is_object(), "{case}");
            alone(&["diff", &out, &full, "--verify"]).succeeds();
        }
    }
}

/// Parts of one element along a dimension that several axes cut have no form in a strategy file: that is said.
#[test]
fn a_layout_that_cannot_be_kept_is_told() {
    let whole = Tensors::from([
        ("experts".to_owned(), Tensor::counting("F32", &[8, 4, 6], 9)),
        ("w".to_owned(), Tensor::counting("F32", &[8, 8], 4)),
    ]);
    let sample = Sample::new();
    tensors::write(&sample.path("experts.safetensors"), &whole);
    let new = "strategy new --mesh dp=2,tp=4 --rule experts=dp+tp,-,- --rule w=tp,- \
               --weights @experts.safetensors --output @cut.ckpt";
    alone(&sample.args(new)).succeeds();
    let split = "split --src @experts.safetensors --dst @parts --dst-strategy @cut.ckpt";
    for processes in [1, 3] {
        let told = run(processes, &sample, &format!("{split} --overwrite")).succeeds();
        assert!(told.stdout.contains("keeps no layout"), "{told:#?}");
        assert!(manifest(&sample.path("parts"))["strategy"].is_null());
        alone(&sample.args("diff @parts @experts.safetensors --a-strategy @cut.ckpt")).succeeds();
    }
}

#[test]
fn a_result_may_be_moved_and_a_part_of_it_isnt_taken_for_more() {
    let sample = brought();
    std::fs::rename(sample.path("out"), sample.path("moved")).expect("moved");
    alone(&sample.args("diff @moved @full")).succeeds();
    // A rank's directory by itself is no full weights.
    let one = alone(&sample.args("unify --src @moved/rank_1 --dst @one"));
    refuses(&one, "this is a shard");
    // Without one of its ranks' directories it lacks parts.
    std::fs::rename(sample.path("moved/rank_1"), sample.path("away")).expect("moved");
    let lacking = alone(&sample.args("unify --src @moved --dst @one"));
    refuses(&lacking, "rank 1 of 2 is missing");
    std::fs::rename(sample.path("away"), sample.path("moved/rank_1")).expect("moved");
    // A file that came later isn't judged by it, and so the rest isn't either.
    sample.copy(
        "moved/rank_1/net1.safetensors",
        "moved/rank_2/net2.safetensors",
    );
    let more = alone(&sample.args("unify --src @moved --dst @one"));
    assert_eq!(more.status.code(), Some(1), "{more:#?}");
    assert!(
        more.stderr.contains("doesn't list rank_2/net2"),
        "{more:#?}"
    );
    assert!(!sample.path("one").exists());
}

// proves P168
#[test]
fn only_the_step_that_was_written_is_read_by_it() {
    let sample = Sample::in_memory();
    let name = |rank: usize, step: u32| format!("rank_{rank}/net_rank_{rank}-1_{step}.safetensors");
    for rank in 0..4 {
        let old = sample.path(&format!("src/rank_{rank}/net.safetensors"));
        std::fs::rename(old, sample.path("src").join(name(rank, 7))).expect("renamed");
    }
    let line = "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --in-place";
    alone(&sample.args(line)).succeeds();
    // The job that goes on saves another layout beside it.
    for rank in 0..2 {
        let shards = sample.four.cut(&sample.whole, rank).expect("cut");
        tensors::write(&sample.path("src").join(name(rank, 9)), &shards);
    }
    for processes in [1, 4] {
        let newest = run(processes, &sample, "unify --src @src --dst @one");
        assert_eq!(newest.status.code(), Some(1), "{newest:#?}");
        assert!(!sample.path("one").exists());
        let line = "unify --src @src --dst @two --file-suffix 1_7 --overwrite";
        let told = run(processes, &sample, line).succeeds();
        assert!(told.stdout.contains(SAID), "{told:#?}");
        alone(&sample.args("diff @two @full")).succeeds();
    }
}

#[test]
fn names_are_those_that_were_written_and_leftovers_stay_leftovers() {
    let sample = Sample::in_memory();
    std::fs::write(sample.path("names.json"), r#"{"w1": "v1"}"#).expect("written");
    let renamed = Strategy::of(&[
        ("v1", layout(&[2], &[0, -1])),
        ("w2", layout(&[2], &[-1, 0])),
        ("other", layout(&[2], &[0])),
    ]);
    tensors::write_bytes(&sample.path("new.ckpt"), &oracle::to_protobuf(&renamed));
    // `b` is the same on all ranks, and unknown to the new strategy.
    let line = "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @new.ckpt \
                --name-map @names.json --unmatched copy";
    run(4, &sample, line).succeeds();
    let kept = manifest(&sample.path("out"));
    let items = kept["strategy"]["parallel_layout_item"]
        .as_object()
        .expect("layouts");
    let names: Vec<&String> = items.keys().collect();
    assert_eq!(names, ["v1", "w2"]);
    let diff = "diff @src @out --a-strategy @four.ckpt --name-map @names.json";
    run(4, &sample, diff).succeeds();
    alone(&sample.args("convert @out --to ckpt --dst @back")).succeeds();
    alone(&sample.args("diff @src @back --a-strategy @four.ckpt --name-map @names.json"))
        .succeeds();
    // Of what is left out nothing is told.
    let line =
        "reshard --src @out --dst @less --dst-strategy @new.ckpt --filter-out-param-prefix w2";
    alone(&sample.args(line)).succeeds();
    let items = &manifest(&sample.path("less"))["strategy"]["parallel_layout_item"];
    assert!(items["w2"].is_null() && items["v1"].is_object(), "{items}");
    alone(&sample.args("diff @out @less --filter-out-param-prefix w2")).succeeds();
}

#[test]
fn in_place_needs_no_strategy_either() {
    for processes in [1, 4] {
        let sample = brought();
        let line = "reshard --src @out --dst-strategy @four.ckpt --in-place";
        run(processes, &sample, line).succeeds();
        sample.check("out", &sample.four, &sample.whole);
        // Asked for the same again there is nothing to do, and for another layout there is.
        let again = run(processes, &sample, line).succeeds();
        assert!(again.stderr.contains("nothing is moved"), "{again:#?}");
        run(
            processes,
            &sample,
            "reshard --src @out --dst-strategy @two.ckpt --in-place",
        )
        .succeeds();
        sample.check("out", &sample.two, &sample.whole);
    }
}

#[test]
fn a_strategy_that_gives_other_parts_is_refused() {
    let sample = brought();
    // The same shapes in the other order.
    let turned = Strategy::of(&[
        ("b", layout(&[2], &[0])),
        ("w1", layout(&[2], &[0, -1])),
        ("w2", layout(&[2], &[-1, 0])),
    ]);
    tensors::write_bytes(&sample.path("same.ckpt"), &oracle::to_protobuf(&turned));
    alone(&sample.args("unify --src @out --src-strategy @same.ckpt --dst @one")).succeeds();
    let line = "reshard --src @src --src-strategy @four.ckpt --dst @grid --dst-strategy @grid.ckpt";
    let grid = |map: &[i64]| {
        Strategy::of(&[
            ("b", layout(&[2, 2], &[-1])),
            ("w1", layout(&[2, 2], map)),
            ("w2", layout(&[2, 2], &[0, -1])),
        ])
    };
    let write = |name: &str, strategy: &Strategy| {
        tensors::write_bytes(&sample.path(name), &oracle::to_protobuf(strategy));
    };
    write("grid.ckpt", &grid(&[1, 0]));
    // 8 by 16 in four parts of 4 by 8: rows and columns may be dealt either way.
    write("turned.ckpt", &grid(&[0, 1]));
    alone(&sample.args(line)).succeeds();
    for processes in [1, 4] {
        let line = "unify --src @grid --src-strategy @turned.ckpt --dst @other";
        let wrong = run(processes, &sample, line);
        refuses(
            &wrong,
            "turned.ckpt gives ranks other parts of it than they were written",
        );
        refuses(&wrong, "w1");
        assert!(!sample.path("other").exists());
    }
    run(1, &sample, "unify --src @grid --dst @other").succeeds();
    alone(&sample.args("diff @other @full")).succeeds();
}

#[test]
fn a_manifest_that_tells_nothing_or_is_damaged_gives_no_layout() {
    let sample = brought();
    as_before(&sample.path("out"));
    alone(&sample.args("verify @out")).succeeds();
    let line = "unify --src @out --dst @one";
    for processes in [1, 4] {
        let without = run(processes, &sample, line);
        assert_eq!(without.status.code(), Some(1), "{without:#?}");
    }
    let given = "unify --src @out --src-strategy @two.ckpt --dst @one";
    alone(&sample.args(given)).succeeds();
    let shown = alone(&sample.args("strategy show @out"));
    refuses(&shown, "keeps no layout");
    let sample = brought();
    let path = sample.path("out").join(MANIFEST);
    let mut bytes = std::fs::read(&path).expect("a manifest");
    let place = bytes
        .windows(10)
        .position(|part| part == b"dev_matrix")
        .expect("a layout");
    bytes[place + 13] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    for processes in [1, 4] {
        refuses(&run(processes, &sample, line), "damaged");
        let unverified = run(
            processes,
            &sample,
            "unify --src @out --dst @one --verify none",
        );
        assert_eq!(unverified.status.code(), Some(1), "{unverified:#?}");
    }
    let image = image(&sample.path("out"));
    alone(&sample.args("inspect @out")).succeeds();
    assert_eq!(image, self::image(&sample.path("out")));
}

#[test]
fn a_result_stands_for_its_strategy() {
    let sample = brought();
    let line = "reshard --src @src --src-strategy @four.ckpt --dst @like --dst-strategy @out";
    for processes in [1, 4] {
        run(processes, &sample, &format!("{line} --overwrite")).succeeds();
        sample.check("like", &sample.two, &sample.whole);
    }
    let shown = alone(&sample.args("strategy show @out/shardloom.json --param w1")).succeeds();
    assert!(shown.stdout.contains("w1"), "{shown:#?}");
    let equal = alone(&sample.args("strategy diff @out @two.ckpt"));
    assert_eq!(equal.status.code(), Some(0), "{equal:#?}");
    alone(&sample.args("simulate --from @out --to @four.ckpt --shapes @full")).succeeds();
    let inspected = alone(&sample.args("inspect @out")).succeeds();
    assert!(
        inspected
            .stdout
            .contains("layout     2 ranks, device matrix [2]"),
        "{inspected:#?}"
    );
    let told = object(&alone(&sample.args("inspect @out --json")).succeeds());
    schema::fits("inspect", &told);
    assert_eq!(told["layout"]["ranks"], 2);
}

#[test]
fn to_says_how_it_knows_the_layout() {
    let sample = brought();
    for processes in [1, 4] {
        let line = "to @four.ckpt --src @out --dst @back --json --overwrite";
        let done = run(processes, &sample, line).succeeds();
        assert!(
            done.stderr
                .contains("shardloom.json (told by its manifest)"),
            "{done:#?}"
        );
        let told = object(&done);
        schema::fits("to", &told);
        assert_eq!(told["recognised"]["strategy_is"], "told by its manifest");
        sample.check("back", &sample.four, &sample.whole);
    }
    // The strategy beside it is that of an earlier job.
    std::fs::create_dir(sample.path("strategy")).expect("made");
    sample.copy("four.ckpt", "strategy/merged.ckpt");
    alone(&sample.args("to @four.ckpt --src @out --dst @again")).succeeds();
    sample.check("again", &sample.four, &sample.whole);
}

#[test]
fn load_takes_it_before_a_strategy_that_lies_beside() {
    let sample = brought();
    std::fs::create_dir_all(sample.path("run")).expect("made");
    std::fs::rename(sample.path("out"), sample.path("run/checkpoint")).expect("moved");
    let lines = [
        "run_mode: finetune".to_owned(),
        "load_ckpt_format: safetensors".to_owned(),
        "use_parallel: True".to_owned(),
        "auto_trans_ckpt: True".to_owned(),
        "parallel_config: {data_parallel: 1, model_parallel: 4}".to_owned(),
        format!("output_dir: '{}'", sample.path("new").display()),
        format!(
            "load_checkpoint: '{}'",
            sample.path("run/checkpoint").display()
        ),
    ];
    std::fs::write(sample.path("train.yaml"), lines.join("\n")).expect("written");
    let line =
        "load --config @train.yaml --dst @ready --dst-strategy @four.ckpt --json --overwrite";
    for processes in [1, 4] {
        let told = object(&run(processes, &sample, line).succeeds());
        assert_eq!(told["action"], "reshard");
        assert!(told["notes"].to_string().contains(SAID), "{told}");
        sample.check("ready", &sample.four, &sample.whole);
    }
    // That of an earlier job, which these weights don't have any more.
    sample.copy("four.ckpt", "run/strategy/merged.ckpt");
    let told = object(&run(1, &sample, line).succeeds());
    assert_eq!(told["action"], "reshard");
    sample.check("ready", &sample.four, &sample.whole);
}

/// A damaged file is made anew from another layout: both are known.
#[test]
fn a_repair_knows_both_layouts() {
    let sample = brought();
    let line = "reshard --src @src --src-strategy @four.ckpt --dst @four --dst-strategy @four.ckpt";
    alone(&sample.args(line)).succeeds();
    let path = sample.path("out/rank_1/net1.safetensors");
    let before = std::fs::read(&path).expect("a file");
    for processes in [1, 4] {
        let mut bytes = before.clone();
        let last = bytes.len() - 5;
        bytes[last] ^= 0x40;
        std::fs::write(&path, &bytes).expect("written");
        run(processes, &sample, "verify @out --repair --from @four").succeeds();
        assert_eq!(std::fs::read(&path).expect("a file"), before);
    }
}

/// Each host has a part of the result, and a manifest of it.
#[test]
fn hosts_with_disks_of_their_own_each_keep_it() {
    let sample = Sample::in_memory();
    let Some(hosts) = Hosts::new(sample.room.path()) else {
        return;
    };
    for host in 1..=HOSTS {
        hosts.give(host, &sample.path("src"), "src");
        hosts.give(host, &sample.path("full"), "full");
        hosts.give(host, &sample.path("two.ckpt"), "two.ckpt");
        hosts.give(host, &sample.path("four.ckpt"), "four.ckpt");
    }
    let line = "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @four.ckpt";
    hosts.run(2, line).succeeds();
    let seen = (1..=HOSTS).filter(|host| hosts.disk(*host).join("out/shardloom.json").exists());
    assert!(seen.count() > 1, "all of it is on one host");
    let told = hosts.run(
        2,
        "reshard --json --src @out --dst @back --dst-strategy @two.ckpt",
    );
    let told = object(&told.succeeds());
    assert!(told["notes"].to_string().contains(SAID), "{told}");
    hosts.run(2, "diff @back @full").succeeds();
    // One host's part has been written by another run: its layout is another one.
    let of = |host: usize| hosts.disk(host).join("out/shardloom.json");
    let other = (1..=HOSTS)
        .map(of)
        .find(|path| path.exists())
        .expect("a manifest");
    as_before(other.parent().expect("a directory"));
    let mixed = hosts.run(2, "unify --src @out --dst @one");
    assert_eq!(mixed.status.code(), Some(1), "{mixed:#?}");
}
