//! `shardloom batch`: many jobs, killed, broken, and run again.

use super::start_with;
use crate::support::command::{alone, under_mpi};
use crate::support::sample::{self, Sample};
use crate::support::tensors::Tensor;
use crate::support::{self, Run};
use serde_json::Value;
use std::time::Duration;

/// Checkpoints of a run: rank files of as many steps, each with other bytes; gives the tensors of each.
fn run_of_steps(sample: &Sample, steps: u32) -> Vec<(String, support::tensors::Tensors)> {
    let mut all = Vec::new();
    for step in 1..=steps {
        let suffix = format!("1_{}", step * 20);
        let seed = usize::try_from(step).expect("small");
        let whole = support::tensors::Tensors::from([
            ("b".to_owned(), Tensor::counting("F32", &[16], seed)),
            (
                "w1".to_owned(),
                Tensor::counting("BF16", &[8, 16], seed + 7),
            ),
            (
                "w2".to_owned(),
                Tensor::counting("F32", &[16, 8], seed + 50),
            ),
        ]);
        for rank in 0..4 {
            let shards = sample.four.cut(&whole, rank).expect("it can be cut");
            let file = format!("run/rank_{rank}/m_rank_{rank}-{suffix}.safetensors");
            support::tensors::write(&sample.path(&file), &shards);
        }
        all.push((suffix, whole));
    }
    all
}

/// Whether `directory` has exactly what `strategy` makes of `whole`, and what a trainer resumes by.
fn holds(sample: &Sample, directory: &str, whole: &support::tensors::Tensors) {
    for rank in 0..sample.two.ranks() {
        let directory = sample.path(directory).join(format!("rank_{rank}"));
        let files = std::fs::read_dir(directory).expect("a rank's directory");
        let files = files.map(|file| file.expect("a file").path());
        let (weights, others): (Vec<_>, Vec<_>) = files.partition(|path| {
            path.extension()
                .is_some_and(|ending| ending == "safetensors")
        });
        assert!(
            weights.len() == 1 && others.len() == 1,
            "{weights:?} {others:?}"
        );
        let found = support::tensors::read(&weights[0]).expect("a safetensors file");
        let expected = sample.two.cut(whole, rank).expect("it can be cut");
        let compared = support::tensors::compare(&expected, &found.tensors);
        compared.unwrap_or_else(|error| unreachable!("rank {rank}: {error}"));
    }
}

const BATCH: &str = "batch --steps all --src @run --src-strategy @four.ckpt --dst @all --dst-strategy @two.ckpt --sync none";

/// The objects that a batch printed: one a job, and the last.
fn lines_of(run: &Run) -> (Vec<Value>, Value) {
    let lines = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let mut lines: Vec<Value> = lines.collect();
    let last = lines
        .pop()
        .unwrap_or_else(|| unreachable!("no line: {run:#?}"));
    (lines, last)
}

/// What has become of each job.
fn states(lines: &[Value]) -> Vec<&str> {
    let states = lines.iter().filter_map(|line| line["state"].as_str());
    states.collect()
}

/// `SHARDLOOM_BATCH=200,50` asks for as many checkpoints and kills.
#[test]
fn a_batch_that_is_killed_again_and_again_gives_what_jobs_one_by_one_give() {
    let asked = std::env::var("SHARDLOOM_BATCH").ok();
    let asked = asked.as_deref().and_then(|text| text.split_once(','));
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let (steps, kills) = asked.map_or((20, 10), |(steps, kills)| (number(steps), number(kills)));
    let sample = Sample::in_memory();
    let all = run_of_steps(&sample, steps);
    let mut seed = 12_345u64;
    for _ in 0..kills {
        let mut child = start_with(&sample, BATCH, &[]);
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(60 + (seed >> 33) % 300));
        child.kill().expect("killed");
        child.wait().expect("ended");
        for (suffix, whole) in &all {
            // What is there is whole at any time.
            if sample.path(&format!("all/{suffix}")).exists() {
                holds(&sample, &format!("all/{suffix}"), whole);
            }
        }
    }
    let done = alone(&sample.args(&format!("{BATCH} --json"))).succeeds();
    let (lines, last) = lines_of(&done);
    assert_eq!((lines.len(), &last["jobs"]), (all.len(), &steps.into()));
    assert_eq!(
        (&last["failed"], &last["latest"]),
        (&0.into(), &format!("1_{}", steps * 20).into())
    );
    for (suffix, whole) in &all {
        holds(&sample, &format!("all/{suffix}"), whole);
    }
    let one = all.last().expect("a step").0.clone();
    let line = "reshard --src @run --src-strategy @four.ckpt --dst @one --dst-strategy @two.ckpt --sync none";
    alone(&sample.args(&format!("{line} --file-suffix {one}"))).succeeds();
    let without_manifest = |directory: &str| {
        let mut files = sample::image(&sample.path(directory));
        files.retain(|(path, _)| !path.ends_with("shardloom.json"));
        files
    };
    assert_eq!(
        without_manifest("one"),
        without_manifest(&format!("all/{one}"))
    );
    assert_eq!(without_manifest("one"), without_manifest("all/latest"));
    let entries = std::fs::read_dir(sample.path("all")).expect("the results");
    assert_eq!(entries.count(), all.len() + 1, "nothing else is left");
}

#[test]
fn a_step_that_fails_does_not_stop_the_others_and_what_is_done_stays() {
    let sample = Sample::in_memory();
    let all = run_of_steps(&sample, 4);
    let broken = sample.path("run/rank_2/m_rank_2-1_40.safetensors");
    let bytes = std::fs::read(&broken).expect("a file");
    std::fs::write(&broken, &bytes[..bytes.len() - 9]).expect("cut");
    std::fs::remove_file(sample.path("run/rank_1/m_rank_1-1_80.safetensors")).expect("removed");
    let line = format!("{BATCH} --json");
    let run = under_mpi(2, &sample.args(&line));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let (lines, last) = lines_of(&run);
    assert_eq!(
        states(&lines),
        ["done", "failed", "done", "failed"],
        "{run:#?}"
    );
    assert_eq!(
        (&last["ok"], &last["latest"]),
        (&false.into(), &"1_60".into())
    );
    assert!(
        lines
            .iter()
            .all(|line| line["run"] == last["run"] && line["command"] == "batch")
    );
    assert!(
        lines[1]["error"]["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    // Mended, only that is done; a step that was saved anew is done anew.
    std::fs::write(&broken, &bytes).expect("mended");
    for rank in 0..4 {
        let whole = &all[0].1;
        let shards = sample.four.cut(whole, rank).expect("it can be cut");
        let path = format!("run/rank_{rank}/m_rank_{rank}-1_60.safetensors");
        support::tensors::write(&sample.path(&path), &shards);
    }
    let (lines, last) = lines_of(&alone(&sample.args(&line)));
    assert_eq!(states(&lines), ["unchanged", "done", "done", "failed"]);
    assert_eq!(last["unchanged"], 1);
    holds(&sample, "all/1_60", &all[0].1);
    // One step alone doesn't lead the newest back.
    let alone_20 = line.replace("--steps all", "--steps 1_20");
    let (lines, last) = lines_of(&alone(&sample.args(&alone_20)).succeeds());
    assert_eq!((lines.len(), &last["latest"]), (1, &"1_60".into()));
    let none = alone(&sample.args(&line.replace("--steps all", "--steps 1_30"))).fails();
    assert!(none.stderr.contains("has no step 1_30"), "{none:#?}");
    // What is only planned is neither done nor the newest.
    std::fs::remove_file(sample.path("all/latest")).expect("removed");
    let (lines, last) = lines_of(&alone(&sample.args(&format!("{line} --dry-run"))));
    assert_eq!(states(&lines), ["planned", "planned", "planned", "failed"]);
    let counts = (&last["planned"], &last["done"], &last["latest"]);
    assert_eq!(counts, (&3.into(), &0.into(), &Value::Null));
    assert!(!sample.path("all/latest").exists());
    let report = alone(&sample.args(&format!("{line} --report @page.html"))).fails();
    assert!(
        report.stderr.contains("of each step would take the place"),
        "{report:#?}"
    );
    // What is no result of ours stays.
    std::fs::create_dir_all(sample.path("mine/1_20")).expect("a directory");
    std::fs::write(sample.path("mine/1_20/notes.txt"), "mine").expect("written");
    std::fs::write(sample.path("mine/latest"), "mine").expect("written");
    let mine = line.replace("@all", "@mine");
    let (lines, last) = lines_of(&alone(&sample.args(&mine)).fails());
    assert_eq!(
        (&lines[0]["state"], &last["latest"]),
        (&"failed".into(), &Value::Null)
    );
    assert!(sample.path("mine/1_20/notes.txt").exists());
    assert_eq!(
        std::fs::read(sample.path("mine/latest")).expect("a file"),
        b"mine"
    );
}

#[test]
fn two_jobs_checkpoints_of_one_step_have_places_of_their_own() {
    let sample = Sample::in_memory();
    let all = run_of_steps(&sample, 2);
    for rank in 0..4 {
        let path = |prefix, step| {
            sample.path(&format!(
                "run/rank_{rank}/{prefix}_rank_{rank}-1_{step}.safetensors"
            ))
        };
        std::fs::copy(path("m", 20), path("n", 40)).expect("copied");
    }
    let line = format!("{BATCH} --json");
    let run = alone(&sample.args(&line)).fails();
    let (lines, last) = lines_of(&run);
    let names = lines.iter().filter_map(|line| line["name"].as_str());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    assert_eq!(names, ["1_20", "m-1_40", "n-1_40"]);
    assert_eq!((&last["done"], &last["latest"]), (&3.into(), &Value::Null));
    assert!(!sample.path("all/latest").exists(), "{run:#?}");
    holds(&sample, "all/m-1_40", &all[1].1);
    holds(&sample, "all/n-1_40", &all[0].1);
    let both = line.replace("--steps all", "--steps 1_40");
    let run = alone(&sample.args(&both)).fails();
    assert!(run.stdout.contains("m-1_40, n-1_40"), "{run:#?}");
    let one = line.replace("--steps all", "--steps m-1_40");
    let one = one.replace("@all", "@one");
    let (_, last) = lines_of(&alone(&sample.args(&one)).succeeds());
    assert_eq!(last["latest"], "m-1_40");
}

#[test]
fn jobs_of_a_file_are_all_understood_before_one_begins() {
    let sample = Sample::in_memory();
    let word = |name: &str| sample.path(name).display().to_string();
    let job = |out: &str| {
        let (src, four, two, out) = (word("src"), word("four.ckpt"), word("two.ckpt"), word(out));
        format!(
            "reshard --src {src} --src-strategy {four} --dst '{out}' --dst-strategy {two} --sync none"
        )
    };
    let write = |text: String| std::fs::write(sample.path("jobs"), text).expect("written");
    for (bad, named) in [
        ("inspect x".to_owned(), "no job of a batch"),
        ("reshard --sorc x".to_owned(), "line 2"),
        ("reshard 'x".to_owned(), "quotation mark"),
        (job("a"), "where line 1 writes"),
        (job("src/../a"), "where line 1 writes"),
        (job("a/inside"), "lies inside"),
        (job("src/inside"), "which line 1 reads"),
        (
            format!("{} --log log", job("b")),
            "--log is of the whole batch",
        ),
        (
            format!("{} -v", job("b")),
            "--verbose is of the whole batch",
        ),
        (
            format!("{} --progress json", job("b")),
            "--progress is of the whole batch",
        ),
        (
            format!(
                "split --src {} --dst {} --dst-strategy dp=2",
                word("a/rank_0"),
                word("src")
            ),
            "is what line 1 reads",
        ),
        (
            format!("{} --report p\n{} --report p", job("b"), job("c")),
            "is the page of line 2",
        ),
    ] {
        write(format!("{}\n{bad}\n", job("a")));
        let run = alone(&sample.args("batch @jobs")).fails();
        assert_eq!(run.status.code(), Some(2), "{run:#?}");
        assert!(
            run.stderr.contains(named) && run.stderr.contains("jobs: "),
            "{named}: {run:#?}"
        );
        assert!(!sample.path("a").exists());
    }
    write("\u{feff}# nothing\n\n".to_owned());
    assert_eq!(alone(&sample.args("batch @jobs")).status.code(), Some(2));
    write(format!(
        "\u{feff}# all of them \\\nmpirun -n 4 \\\n  shardloom {}\n\n{} # again\n{}\n",
        job("a").replace(" --dst ", " \\\r\n    --dst "),
        job("b c"),
        job("missing").replace("/src ", "/none ")
    ));
    let run = alone(&sample.args("batch @jobs --json"));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let (lines, last) = lines_of(&run);
    assert_eq!(states(&lines), ["done", "done", "failed"]);
    assert_eq!((&last["done"], &last["latest"]), (&2.into(), &Value::Null));
    sample.check("b c", &sample.two, &sample.whole);
}

/// `latest` is a link to a result beside it, and no other link is replaced.
#[test]
fn a_link_of_somebody_else_called_latest_stays() {
    let sample = Sample::new();
    run_of_steps(&sample, 2);
    std::fs::create_dir(sample.path("all")).expect("a directory");
    let link = sample.path("all/latest");
    std::os::unix::fs::symlink("/etc", &link).expect("a link");
    let told = alone(&sample.args(BATCH)).fails();
    assert!(
        told.stdout.contains("is a link that leads elsewhere"),
        "{told:#?}"
    );
    let target = std::fs::read_link(&link).expect("a link");
    assert_eq!(target, std::path::Path::new("/etc"));
    std::fs::remove_file(&link).expect("removed");
    alone(&sample.args(BATCH)).succeeds();
    let target = std::fs::read_link(&link).expect("a link");
    assert_eq!(target, std::path::Path::new("1_40"));
}

/// A result is replaced only of the same job, and while nobody has changed it.
#[test]
fn a_result_of_another_job_or_that_somebody_has_changed_is_not_replaced() {
    let sample = Sample::in_memory();
    let all = run_of_steps(&sample, 1);
    let line = format!("{BATCH} --json");
    let begun = |line: &str| lines_of(&alone(&sample.args(line))).0.remove(0);
    let refused = |line: &str, why: &str| {
        let before = sample::image(&sample.path("all/1_20"));
        let told = begun(line);
        let message = told["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(why), "{why}: {told}");
        assert_eq!(told["error"]["kind"], "exists", "{told}");
        assert!(before == sample::image(&sample.path("all/1_20")), "{why}");
    };
    assert_eq!(begun(&line)["state"], "done");
    // The same files from elsewhere, other options, another command.
    for rank in 0..4 {
        let file = format!("rank_{rank}/m_rank_{rank}-1_20.safetensors");
        sample.copy(&format!("run/{file}"), &format!("other/{file}"));
    }
    for other in [
        line.replace("@run", "@other"),
        format!("{line} --remove-redundancy"),
        line.replace("batch --steps all", "batch --steps all unify")
            .replace(" --dst-strategy @two.ckpt", ""),
    ] {
        refused(&other, "is the result of another job (reshard)");
    }
    // What a job by itself has made is not a batch's.
    let own = "reshard --src @run --src-strategy @four.ckpt --dst @own/1_20 --dst-strategy @two.ckpt --file-suffix 1_20";
    alone(&sample.args(own)).succeeds();
    let into_own = line.replace("@all", "@own");
    assert_eq!(begun(&into_own)["state"], "unchanged");
    // Somebody has gone on with a result.
    let file = sample.path("all/1_20/rank_0/m_rank_0-1_20.safetensors");
    let (kept, aside) = (std::fs::read(&file).expect("a file"), sample.path("aside"));
    let mut bytes = kept.clone();
    bytes[kept.len() - 1] ^= 1;
    std::fs::write(&file, bytes).expect("changed");
    refused(&line, "rank_0/m_rank_0-1_20.safetensors has changed since");
    std::fs::rename(&file, &aside).expect("moved");
    assert_eq!(begun(&line)["state"], "done");
    holds(&sample, "all/1_20", &all[0].1);
    // Its source has changed: the same job of other bytes.
    for rank in 0..4 {
        let path = sample.path(&format!("run/rank_{rank}/m_rank_{rank}-1_20.safetensors"));
        let mut bytes = std::fs::read(&path).expect("a file");
        *bytes.last_mut().expect("bytes") ^= 1;
        std::fs::write(&path, bytes).expect("changed");
    }
    let refused = begun(&into_own);
    assert_eq!(refused["error"]["kind"], "exists", "{refused}");
    assert_eq!(begun(&line)["state"], "done");
    let bytes = std::fs::read(&file).expect("a file");
    assert!(bytes != kept);
    // Whoever says so replaces what stands there.
    let anew = format!("{} --overwrite", line.replace("@run", "@other"));
    assert_eq!(begun(&anew)["state"], "done");
    assert!(std::fs::read(&file).expect("a file") == kept);
}
