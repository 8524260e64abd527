//! What a job may destroy: nothing that it reads, that the user stands on, or that isn't known to be
//! an earlier result.

use crate::support::{Run, command, sample, tensors};
use command::{RESHARD, alone, error_line, under_mpi};
use sample::{Sample, image};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const UNIFY: &str = "unify --src @src --src-strategy @four.ckpt --dst";
const IN_PLACE: &str =
    "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --in-place";

fn run(processes: u32, sample: &Sample, line: &str) -> Run {
    let args = sample.args(line);
    if processes == 1 {
        alone(&args)
    } else {
        under_mpi(processes, &args)
    }
}

/// `run` was refused, for a reason with `culprit` in it.
#[track_caller]
fn refused(run: &Run, culprit: &str, what: &str) {
    assert!(!run.status.success(), "{what}: {run:#?}");
    assert!(error_line(run).contains(culprit), "{what}: {run:#?}");
}

/// The sample with a `run` that holds its source and strategy, as a trainer leaves them.
fn trained() -> Sample {
    let sample = Sample::new();
    let path = |name: &str| sample.path(name);
    std::fs::create_dir_all(path("run/strategy")).expect("make a directory");
    std::fs::rename(path("src"), path("run/checkpoint")).expect("rename");
    std::fs::copy(path("four.ckpt"), path("run/strategy/four.ckpt")).expect("copy");
    std::fs::create_dir(path("model")).expect("make a directory");
    std::fs::write(path("model/names.json"), "{}").expect("write");
    sample
}

// proves P39
#[test]
fn what_is_read_is_never_written_over() {
    let unify = "unify --src @run/checkpoint --src-strategy @run/strategy/four.ckpt";
    let split = "split --src @full --dst-strategy @run/strategy/four.ckpt";
    let convert = "convert @run/checkpoint --to ckpt";
    let reshard = "reshard --src @run/checkpoint --src-strategy @four.ckpt --dst-strategy @two.ckpt \
                   --name-map @model/names.json";
    let sample = trained();
    symlink("run", sample.path("link")).expect("a link");
    let before = image(sample.room.path());
    let cases = [
        (unify, "@run", "source"),
        (unify, "@run/checkpoint", "source"),
        (unify, "@run/checkpoint/full", "source"),
        (unify, "@run/checkpoint/rank_0", "source"),
        (unify, "@run/strategy", "strategy"),
        (unify, "@link", "source"),
        (unify, "@link/checkpoint/../strategy", "strategy"),
        (unify, "@run/./checkpoint/", "source"),
        (split, "@run", "strategy"),
        (split, "@full", "source"),
        (convert, "@run", "source"),
        (convert, "@run/checkpoint/rank_1/new", "source"),
        (reshard, "@model", "configuration"),
        (reshard, "/", "root"),
    ];
    for (number, (line, destination, culprit)) in cases.into_iter().enumerate() {
        for more in ["", "--overwrite"] {
            let processes = if number % 4 == 0 { 4 } else { 1 };
            let line = format!("{line} --dst {destination} {more}");
            refused(&run(processes, &sample, &line), culprit, &line);
            assert!(before == image(sample.room.path()), "{line}");
        }
    }
}

/// Runs the program in `directory`.
fn within(sample: &Sample, directory: &str, home: &Path, line: &str, destination: &str) -> Run {
    let start = std::time::Instant::now();
    let mut args = sample.args(line);
    args.push(destination.to_owned());
    let output = Command::new(env!("CARGO_BIN_EXE_shardloom"))
        .args(args)
        .current_dir(sample.path(directory))
        .env("HOME", home)
        .env("SHARDLOOM_CONFIG", "")
        .output()
        .expect("it starts");
    Run {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        elapsed: start.elapsed(),
    }
}

#[test]
fn the_log_of_a_run_is_never_replaced() {
    let sample = Sample::new();
    run(1, &sample, &format!("{UNIFY} @out")).succeeds();
    for line in [
        format!("{UNIFY} @out --overwrite --log @out/log.txt"),
        format!("{IN_PLACE} --log @src/log.txt"),
    ] {
        for processes in [1, 4] {
            let run = run(processes, &sample, &line);
            refused(&run, "log of this run", &line);
            assert!(run.stderr.contains("--log"), "{run:#?}");
        }
    }
    std::fs::remove_file(sample.path("out/log.txt")).expect("removed");
    let line = format!("{UNIFY} @out --overwrite --log @log.txt");
    run(4, &sample, &line).succeeds();
}

#[test]
fn a_strategy_replaces_only_a_strategy() {
    let sample = Sample::new();
    std::fs::write(sample.path("notes.ckpt"), "what I have found out").expect("written");
    std::fs::write(sample.path("config.json"), "{\"layers\": 3}").expect("written");
    std::fs::write(sample.path("empty.ckpt"), "").expect("written");
    for line in [
        "merge @two.ckpt --output",
        "new --weights @full --mesh tp=2 --output",
    ] {
        for (name, replaced) in [
            ("notes.ckpt", false),
            ("config.json", false),
            ("src/rank_0/net.safetensors", false),
            ("empty.ckpt", true),
            ("four.ckpt", true),
        ] {
            let before = std::fs::read(sample.path(name)).expect("a file");
            let run = alone(&sample.args(&format!("strategy {line} @{name} --overwrite")));
            if replaced {
                run.succeeds();
            } else {
                refused(&run, "would be lost", name);
                assert!(std::fs::read(sample.path(name)).expect("a file") == before);
            }
        }
    }
}

#[test]
fn what_runs_leave_is_no_destination() {
    let sample = Sample::new();
    for name in [
        ".a.shardloom-partial",
        ".a.shardloom-old",
        ".a.shardloom-lock/x",
    ] {
        for processes in [1, 4] {
            let run = run(processes, &sample, &format!("{UNIFY} @{name}"));
            refused(&run, "kept for what runs leave", name);
            assert!(!sample.path(name).exists(), "{name}");
        }
    }
}

#[test]
fn a_finished_result_with_strange_weights_is_not_done() {
    let sample = Sample::new();
    let cut = "split --src @full --dst @cut --dst-strategy @two.ckpt";
    for (line, strange) in [
        (format!("{UNIFY} @out"), "out/model.safetensors"),
        (cut.to_owned(), "cut/rank_0/net_rank_0-1_1.safetensors"),
    ] {
        run(1, &sample, &line).succeeds();
        sample.copy("full/model.safetensors", strange);
        let again = format!("{line} --resume");
        for processes in [1, 4] {
            let run = run(processes, &sample, &again);
            let (_, name) = strange.split_once('/').expect("a directory");
            refused(&run, name, &line);
        }
        std::fs::remove_file(sample.path(strange)).expect("removed");
        run(4, &sample, &again).succeeds();
    }
}

// proves P40
#[test]
fn where_the_user_stands_is_never_replaced() {
    let sample = Sample::new();
    std::fs::create_dir_all(sample.path("work/deep")).expect("make a directory");
    std::fs::create_dir_all(sample.path("people/me")).expect("make a directory");
    let home = sample.path("people/me");
    let before = image(sample.room.path());
    for (destination, culprit) in [
        (".", "working directory"),
        ("..", "working directory"),
        ("", "--dst"),
        ("../../people", "home directory"),
        ("../../people/me", "home directory"),
    ] {
        let line = "unify --overwrite --src @src --src-strategy @four.ckpt --dst";
        let run = within(&sample, "work/deep", &home, line, destination);
        refused(&run, culprit, destination);
        assert!(sample.path("work/deep").is_dir() && home.is_dir());
        assert!(before == image(sample.room.path()), "{destination}");
    }
    let run = within(&sample, "src", &home, IN_PLACE, "--json");
    refused(&run, "working directory", "in place");
    for destination in ["out/", "./one/.", "two//in"] {
        let run = within(&sample, "work", &home, UNIFY, destination).succeeds();
        assert!(
            run.stderr.is_empty() || !run.stderr.contains("error"),
            "{run:#?}"
        );
        let made = sample.path("work").join(destination).join("shardloom.json");
        assert!(made.is_file(), "{destination}");
    }
}

// proves P41
#[test]
fn only_earlier_results_and_checkpoints_are_replaced() {
    // What stands at the destination, and which of it is named in the refusal.
    let cases: [(&[&str], &str); 11] = [
        (&["notes.txt"], "notes.txt"),
        (
            &["rank_0/a.safetensors", "rank_0/notes.txt"],
            "rank_0/notes.txt",
        ),
        (
            &["rank_0/a.safetensors", "strategy/s.ckpt"],
            "strategy/s.ckpt",
        ),
        (&["model.safetensors"], "model.safetensors"),
        (&["a", "b", "c", "d", "e"], "5 files"),
        (&[".git/config", "rank_0/a.ckpt"], ".git/config"),
        (&["rank_0/deep/a.ckpt"], "rank_0/deep/a.ckpt"),
        (&["rank_0/a.ckpt", "rank_0/meta.json", "rank_0/x.lock"], ""),
        (
            &[
                "iteration_00000020/metadata.json",
                "iteration_00000020/common.json",
                "iteration_00000020/model-0000000-0000001.safetensors",
                "latest_checkpointed_iteration.txt",
            ],
            "",
        ),
        (
            &[
                "iteration_00000020/metadata.json",
                "iteration_00000020/notes.txt",
            ],
            "iteration_00000020/notes.txt",
        ),
        (
            &[
                "rank_0/a-1_1.ckpt",
                "rank_1/a-1_2.ckpt",
                "transform_succeed_rank_1.txt",
            ],
            "",
        ),
    ];
    for (number, (files, culprit)) in cases.into_iter().enumerate() {
        for line in [
            "unify --src @src --src-strategy @four.ckpt",
            "split --src @full",
        ] {
            let strategy = if line.starts_with("split") {
                "--dst-strategy @two.ckpt"
            } else {
                ""
            };
            let line = format!("{line} {strategy} --dst @out --overwrite");
            let processes = if number % 4 == 0 { 4 } else { 1 };
            let sample = Sample::new();
            for file in files {
                tensors::write_bytes(&sample.path("out").join(file), b"old");
            }
            let before = image(&sample.path("out"));
            let run = run(processes, &sample, &line);
            if culprit.is_empty() {
                run.succeeds();
                assert!(!sample.path("out").join(files[0]).exists(), "{line}");
                continue;
            }
            refused(&run, culprit, &line);
            assert!(run.stderr.contains("move the files away"), "{run:#?}");
            assert!(before == image(&sample.path("out")), "{line}");
            assert!(!sample.path(".out.shardloom-partial").exists(), "{line}");
        }
    }
}

// proves P41
#[test]
fn a_result_that_somebody_has_added_to_is_kept() {
    let sample = Sample::new();
    let line = format!("{UNIFY} @out --overwrite");
    for processes in [1, 4] {
        run(processes, &sample, &line).succeeds();
        run(processes, &sample, &line).succeeds();
        let added = sample.path("out/adapter/mine.safetensors");
        tensors::write_bytes(&added, b"mine");
        refused(
            &run(processes, &sample, &line),
            "adapter/mine.safetensors",
            &line,
        );
        std::fs::remove_dir_all(sample.path("out/adapter")).expect("remove");
    }
    // Newer weights in the ranks' directories of a result are somebody's training.
    run(
        1,
        &sample,
        &format!("{RESHARD} --overwrite").replace("@out", "@ranks"),
    )
    .succeeds();
    tensors::write_bytes(&sample.path("ranks/rank_0/net-2_1.safetensors"), b"new");
    let line = format!("{RESHARD} --overwrite").replace("@out", "@ranks");
    refused(&run(4, &sample, &line), "rank_0/net-2_1.safetensors", &line);
}

/// A strategy's file takes the place of nothing that it is made of.
#[test]
fn a_strategy_is_never_written_over_what_it_is_made_of() {
    let sample = Sample::new();
    let before = image(sample.room.path());
    for (line, what) in [
        (
            "strategy merge @four.ckpt --output @four.ckpt",
            "is the strategy",
        ),
        (
            "strategy new --mesh dp=2 --weights @full --output @full/model.safetensors",
            "lies inside the weights",
        ),
        (
            "strategy new --mesh dp=2 --weights @full --output @full/s.json",
            "lies inside the weights",
        ),
    ] {
        let run = run(1, &sample, &format!("{line} --overwrite"));
        assert_eq!(run.status.code(), Some(2), "{run:#?}");
        assert!(run.stderr.contains(what), "{run:#?}");
    }
    assert!(before == image(sample.room.path()));
}

// proves P39
#[test]
fn a_source_that_is_reached_by_links_is_kept() {
    let sample = Sample::new();
    run(1, &sample, RESHARD).succeeds();
    std::fs::create_dir(sample.path("linked")).expect("make a directory");
    for rank in 0..2 {
        let from = sample.path(&format!("out/rank_{rank}"));
        symlink(from, sample.path(&format!("linked/rank_{rank}"))).expect("a link");
    }
    let before = image(&sample.path("out"));
    for processes in [1, 4] {
        let line = "unify --src @linked --src-strategy @two.ckpt --dst @out --overwrite";
        refused(&run(processes, &sample, line), "which is read", line);
        assert!(before == image(&sample.path("out")));
    }
    run(
        1,
        &sample,
        "unify --src @linked --src-strategy @two.ckpt --dst @new",
    )
    .succeeds();
}

#[test]
fn links_at_the_destination_are_kept_and_their_targets_made() {
    for kind in ["dangling", "empty", "full"] {
        let sample = Sample::new();
        symlink("run7", sample.path("latest")).expect("a link");
        match kind {
            "empty" => std::fs::create_dir(sample.path("run7")).expect("make a directory"),
            "full" => {
                run(1, &sample, &format!("{UNIFY} @run7")).succeeds();
                refused(
                    &run(1, &sample, &format!("{UNIFY} @latest")),
                    "exists",
                    kind,
                );
            }
            _ => {}
        }
        let processes = if kind == "empty" { 4 } else { 1 };
        run(processes, &sample, &format!("{UNIFY} @latest --overwrite")).succeeds();
        let target = std::fs::read_link(sample.path("latest")).expect("still a link");
        assert_eq!(target, Path::new("run7"));
        assert!(sample.path("run7/shardloom.json").is_file(), "{kind}");
    }
}

// proves P45
#[test]
fn in_place_behind_links_is_refused() {
    for linked in ["rank_2", "rank_1/net.safetensors"] {
        for processes in [1, 4] {
            let sample = Sample::new();
            let place = sample.path("src").join(linked);
            let away = sample.path("elsewhere");
            std::fs::rename(&place, &away).expect("rename");
            symlink(&away, &place).expect("a link");
            let before = image(&sample.path("src"));
            refused(&run(processes, &sample, IN_PLACE), "is a link", linked);
            assert!(before == image(&sample.path("src")), "{linked}");
            assert!(!sample.path(".src.shardloom-partial").exists(), "{linked}");
        }
    }
}

#[test]
fn a_file_where_a_directory_is_meant_is_kept() {
    let sample = Sample::new();
    tensors::write_bytes(&sample.path("out"), b"mine");
    symlink("out", sample.path("link")).expect("a link");
    for destination in ["@out", "@link", "@out/in"] {
        for more in ["", "--overwrite"] {
            let line = format!("{UNIFY} {destination} {more}");
            refused(&run(1, &sample, &line), "", &line);
            assert_eq!(std::fs::read(sample.path("out")).expect("a file"), b"mine");
        }
    }
}

/// Single files that commands write replace no weights, whatever may be overwritten.
// proves P42
#[test]
fn a_small_file_replaces_no_weights() {
    let sample = Sample::new();
    let path = sample.path("src/rank_0/net.safetensors");
    let before = std::fs::read(&path).expect("a file");
    for line in [
        "strategy merge @four.ckpt --output @src/rank_0/net.safetensors --overwrite",
        "strategy new --mesh tp=2 --rule w1=tp --weights @full --output @src/rank_0/net.safetensors --overwrite",
        "simulate --src-strategy @four.ckpt --dst-strategy @two.ckpt --shapes @full --svg @src/rank_0/net.safetensors",
        "generate man --output @src/rank_0/net.safetensors --overwrite",
    ] {
        let run = alone(&sample.args(line));
        assert!(!run.status.success(), "{line}: {run:#?}");
        assert!(std::fs::read(&path).expect("a file") == before, "{line}");
    }
}

#[test]
fn small_files_replace_only_their_own_kind() {
    let sample = Sample::new();
    let mine = sample.path("mine.txt");
    std::fs::write(&mine, "mine").expect("written");
    let strategy = std::fs::read(sample.path("four.ckpt")).expect("a strategy");
    let simulate = "simulate --src-strategy @four.ckpt --dst-strategy @two.ckpt --shapes @full";
    let bench = "bench storage --dir @ --bytes 1KiB --iterations 1";
    for (line, culprit) in [
        (format!("{simulate} --svg @four.ckpt"), "four.ckpt"),
        (format!("{simulate} --svg @mine.txt"), "mine.txt"),
        (format!("{bench} --svg @four.ckpt"), "four.ckpt"),
        (format!("{bench} --csv @mine.txt"), "mine.txt"),
        (format!("{bench} --html @mine.txt"), "mine.txt"),
    ] {
        refused(&run(1, &sample, &line), culprit, &line);
        assert_eq!(std::fs::read(&mine).expect("it stays"), b"mine", "{line}");
        let stands = std::fs::read(sample.path("four.ckpt")).expect("it stays");
        assert_eq!(stands, strategy, "{line}");
    }
    for file in ["plan.svg", "plan.svg"] {
        run(1, &sample, &format!("{simulate} --svg @{file}")).succeeds();
    }
}

/// A strategy is no weights, wherever it lies: it is carried along, and nothing takes its place.
#[test]
fn a_strategy_in_a_ranks_directory_stays() {
    let sample = Sample::new();
    let own = sample.path("src/rank_1/ckpt_strategy_rank_1.ckpt");
    std::fs::copy(sample.path("four.ckpt"), &own).expect("copied");
    run(1, &sample, &format!("{UNIFY} @whole")).succeeds();
    let line = "split --src @whole --dst @src --dst-strategy @two.ckpt --overwrite";
    refused(
        &run(1, &sample, line),
        "rank_1/ckpt_strategy_rank_1.ckpt",
        line,
    );
    run(2, &sample, IN_PLACE).succeeds();
    let kept = [own, sample.path("four.ckpt")].map(|path| std::fs::read(path).expect("kept"));
    assert_eq!(kept[0], kept[1]);
}
