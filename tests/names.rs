//! Names are data: none is lost, none is taken for something else, none acts on a terminal.

use crate::support::oracle::Strategy;
use crate::support::{Run, command, fixtures, sample, tensors};
use command::{alone, error_line, nothing_written, object, under_mpi};
use sample::{Sample, layout};
use std::path::Path;
use tensors::{Tensor, Tensors};

/// The commands that take a map of names, all of what the sample has.
const WITH_MAPS: [&str; 4] = [
    "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt --name-map @map.json",
    "unify --src @src --src-strategy @four.ckpt --dst @out --name-map @map.json",
    "split --src @full --dst @out --dst-strategy @four.ckpt --name-map @map.json",
    "convert @full --dst @out --to ckpt --name-map @map.json",
];

fn run(processes: u32, sample: &Sample, line: &str) -> Run {
    // Names may have line ends and spaces of their own.
    let path = |name: &str| sample.path(name).to_string_lossy().into_owned();
    let words = line.split(' ').filter(|word| !word.is_empty());
    let word = |word: &str| word.strip_prefix('@').map_or_else(|| word.to_owned(), path);
    let args: Vec<String> = words.map(word).collect();
    command::on(processes, &args)
}

/// The run says all of `words` in an error, and has written nothing.
#[track_caller]
fn refused(sample: &Sample, run: &Run, words: &[&str]) {
    assert_ne!(run.status.code(), Some(0), "{run:#?}");
    error_line(run);
    for word in words {
        assert!(run.stderr.contains(word), "{word} is not said: {run:#?}");
    }
    nothing_written(sample);
}

// proves P57
#[test]
fn two_tensors_of_one_name_are_refused() {
    for (line, processes) in WITH_MAPS.iter().zip([1, 4, 1, 4]) {
        let sample = Sample::new();
        // Of split the map says what a name of the strategy is called in the files; w2 is there, too.
        std::fs::write(sample.path("map.json"), r#"{"w2": "b"}"#).expect("a map");
        refused(
            &sample,
            &run(processes, &sample, line),
            &["name", "--name-map"],
        );
    }
}

#[test]
fn a_name_has_letters() {
    for line in WITH_MAPS {
        let sample = Sample::new();
        std::fs::write(sample.path("map.json"), r#"{"w1": ""}"#).expect("a map");
        refused(&sample, &run(1, &sample, line), &["map.json", "'w1'"]);
    }
}

#[test]
fn a_new_name_that_the_strategy_does_not_have_is_the_one_that_is_told() {
    let sample = Sample::new();
    std::fs::write(sample.path("map.json"), r#"{"w1": "w1.new"}"#).expect("a map");
    let words = ["w1.new: the destination strategy", "it is w1 in the source"];
    refused(&sample, &run(1, &sample, WITH_MAPS[0]), &words);
}

// proves P58
#[test]
fn names_may_change_places() {
    let sample = Sample::new();
    std::fs::write(sample.path("map.json"), r#"{"w2": "b", "b": "w2"}"#).expect("a map");
    alone(&sample.args(WITH_MAPS[1])).succeeds();
    let files = fixtures::listing(&sample.path("out")).into_iter();
    let mut files = files.filter(|file| file.extension().is_some_and(|e| e == "safetensors"));
    let file = sample.path("out").join(files.next().expect("weights"));
    let found = tensors::read(&file).expect("readable").tensors;
    assert_eq!(found["b"].data, sample.whole["w2"].data);
    assert_eq!(found["w2"].data, sample.whole["b"].data);
}

/// Two weights with a state each, cut alike.
fn with_states() -> Sample {
    let names = ["w1", "w2", "adam_m.w1", "adam_m.w2"];
    let tensor = |start| Tensor::counting("F32", &[8, 8], start);
    let whole = names.iter().zip([3, 50, 90, 170]);
    let whole = whole.map(|(name, start)| ((*name).to_owned(), tensor(start)));
    let cut =
        |mesh: usize, axis: [i64; 2]| Strategy::of(&names.map(|n| (n, layout(&[mesh], &axis))));
    Sample::of(whole.collect(), cut(4, [0, -1]), cut(2, [-1, 0]))
}

// proves P164
#[test]
fn states_go_where_their_tensor_goes() {
    for (line, processes) in WITH_MAPS.iter().zip([4, 1, 4, 1]) {
        let sample = with_states();
        std::fs::write(sample.path("map.json"), r#"{"w1": "w2", "w2": "w1"}"#).expect("a map");
        let swapped = sample.whole.keys().map(|name| {
            let other = match name.ends_with('1') {
                true => name.replace('1', "2"),
                false => name.replace('2', "1"),
            };
            (name.clone(), sample.whole[&other].clone())
        });
        let swapped: Tensors = swapped.collect();
        run(processes, &sample, line).succeeds();
        match *line {
            reshard if reshard.starts_with("reshard") => sample.check("out", &sample.two, &swapped),
            split if split.starts_with("split") => sample.check("out", &sample.four, &swapped),
            _ => {
                let back = "unify --src @out --dst @back";
                run(1, &sample, back).succeeds();
                let file = sample.path("back/model-00001-of-00001.safetensors");
                assert_eq!(
                    tensors::read(&file).expect("readable").tensors,
                    swapped,
                    "{line}"
                );
                run(1, &sample, "diff @full @back --name-map @map.json").succeeds();
            }
        }
    }
}

#[test]
fn no_tensor_becomes_a_count() {
    for (line, processes) in WITH_MAPS.iter().zip([4, 1, 4, 1]) {
        let sample = with_states();
        let map = match line.starts_with("split") {
            true => r#"{"step_num": "w1"}"#,
            false => r#"{"w1": "step_num"}"#,
        };
        std::fs::write(sample.path("map.json"), map).expect("a map");
        let words = match line.starts_with("split") {
            true => ["step_num", "--name-map has it"],
            false => ["step_num", "under which a trainer keeps a count"],
        };
        refused(&sample, &run(processes, &sample, line), &words);
    }
}

// proves P60
#[test]
fn a_name_that_fits_nothing_is_named_with_the_nearest() {
    for (line, processes) in WITH_MAPS.iter().zip([4, 1, 4, 1]) {
        let sample = Sample::new();
        let map = if line.starts_with("split") {
            r#"{"w1": "w11"}"#
        } else {
            r#"{"w11": "w"}"#
        };
        std::fs::write(sample.path("map.json"), map).expect("a map");
        refused(
            &sample,
            &run(processes, &sample, line),
            &["w11", "nearest there: w1"],
        );
    }
}

// proves P59
#[test]
fn a_name_that_stands_twice_in_a_map_is_refused() {
    let sample = Sample::new();
    std::fs::write(sample.path("map.json"), r#"{"w1": "x", "w1": "y"}"#).expect("a map");
    std::fs::write(sample.path("map.yaml"), "w1: x\nw1: y\n").expect("a map");
    for line in &WITH_MAPS[..2] {
        for map in ["map.json", "map.yaml"] {
            let words = [map, "'w1' stands in it twice"];
            refused(
                &sample,
                &run(1, &sample, &line.replace("map.json", map)),
                &words,
            );
        }
    }
    let index = r#"{"weight_map": {"w1": "other.safetensors", "w1": "model.safetensors"}}"#;
    std::fs::write(sample.path("full/model.safetensors.index.json"), index).expect("an index");
    let line = "unify --src @full --dst @out";
    refused(
        &sample,
        &run(4, &sample, line),
        &["index.json", "'w1' stands in it twice"],
    );
}

// proves P61
#[test]
fn metadata_is_no_tensor() {
    for line in [WITH_MAPS[1], WITH_MAPS[3]] {
        let sample = Sample::new();
        std::fs::write(sample.path("map.json"), r#"{"w2": "__metadata__"}"#).expect("a map");
        refused(&sample, &alone(&sample.args(line)), &["__metadata__"]);
    }
    let sample = Sample::new();
    std::fs::write(sample.path("map.json"), r#"{"w2": "xxmetadataxx"}"#).expect("a map");
    let line = "convert @full --dst @made --to ckpt --name-map @map.json";
    alone(&sample.args(line)).succeeds();
    let path = sample.path("made/model.ckpt");
    let mut bytes = std::fs::read(&path).expect("a file");
    let at = bytes.windows(12).position(|b| b == b"xxmetadataxx");
    let at = at.expect("the name");
    bytes[at..at + 12].copy_from_slice(b"__metadata__");
    std::fs::write(sample.path("named.ckpt"), bytes).expect("written");
    for line in [
        "convert @named.ckpt --dst @out --to safetensors",
        "unify --src @named.ckpt --dst @out",
    ] {
        refused(
            &sample,
            &alone(&sample.args(line)),
            &["__metadata__", "--name-map"],
        );
        let map = r#"{"__metadata__": "w2"}"#;
        std::fs::write(sample.path("back.json"), map).expect("a map");
        let line = format!("{line} --name-map @back.json");
        alone(&sample.args(&line)).succeeds();
        alone(&sample.args("diff @full @out")).succeeds();
        std::fs::remove_dir_all(sample.path("out")).expect("removed");
    }
    let seen = alone(&sample.args("inspect @named.ckpt")).succeeds();
    assert!(seen.stdout.contains("__metadata__"), "{seen:?}");
}

/// What no output may have: everything that acts, but the ends of lines.
fn acts(text: &str) -> bool {
    let turns = |c| ('\u{202a}'..='\u{202e}').contains(&c);
    text.chars()
        .any(|c| c != '\n' && (c.is_control() || turns(c)))
}

// proves P62
#[test]
fn nothing_in_a_name_acts_on_a_terminal() {
    let name = "w\u{1b}[2Jx\u{7}\u{202e}\u{9b}\u{7f}\nerror: all is lost";
    let sample = Sample::new();
    let strange = Tensors::from([(name.to_owned(), Tensor::counting("F32", &[4], 1))]);
    tensors::write(&sample.path("a/model.safetensors"), &strange);
    tensors::write(&sample.path("b/model.safetensors"), &sample.whole);
    // Of files and prefixes, too; the space would be a word's end here.
    let strange_file = "n\u{1b}[2J\nerror:\u{a0}all is lost-1_10.safetensors";
    let strange_file = &strange_file.replace(' ', "\u{a0}");
    for rank in 0..2 {
        let place = sample.path(&format!("jobs/rank_{rank}"));
        let name = strange_file.replace("-1_10", &format!("_rank_{rank}-1_10"));
        tensors::write(&place.join(name), &sample.whole);
    }
    let map = serde_json::json!({ "no\u{1b}[2J\nerror: all is lost": name }).to_string();
    std::fs::write(sample.path("map.json"), map).expect("a map");
    let jobs = sample.path("jobs");
    let config = format!("load_checkpoint: {}\nuse_parallel: True\n", jobs.display());
    std::fs::write(sample.path("train.yaml"), config).expect("a configuration");
    for (line, processes) in [
        ("diff @a @b", 1),
        ("diff @a @b", 4),
        ("inspect @a", 1),
        ("split --src @a --dst @out --dst-strategy @two.ckpt", 1),
        ("split --src @a --dst @out --dst-strategy @two.ckpt", 4),
        ("convert @a --dst @c --to ckpt -vv", 1),
        ("unify --src @a --dst @d", 1),
        ("import --hf @a --dst @e", 1),
        ("checkpoints list @jobs", 1),
        ("checkpoints list @jobs", 2),
        ("checkpoints latest @jobs", 1),
        ("checkpoints prune @jobs --keep 1 --dry-run", 1),
        ("load --config @train.yaml --dry-run", 1),
        ("inspect @jobs/*", 1),
        ("verify @jobs", 1),
        ("strategy merge @jobs/* --output @s.ckpt", 1),
        (
            "simulate --src-strategy @* --dst-strategy @two.ckpt --shapes @full",
            1,
        ),
        ("unify @*", 1),
        (
            "strategy new --mesh dp=2 --rule w*=dp --weights @a --output @strange.ckpt",
            1,
        ),
        ("strategy show @strange.ckpt", 1),
        ("strategy show @strange.ckpt --param w*", 1),
        ("strategy diff @strange.ckpt @two.ckpt", 1),
        ("split --src @a --dst @cut --dst-strategy @strange.ckpt", 4),
        (
            "reshard --src @cut --src-strategy @strange.ckpt --dst @x --dst-strategy @two.ckpt --dry-run",
            1,
        ),
        (
            "reshard --src @cut --src-strategy @strange.ckpt --dst @x --dst-strategy @two.ckpt --dry-run --unmatched copy",
            4,
        ),
        (
            "unify --src @cut --src-strategy @strange.ckpt --dst @x --name-map @map.json",
            1,
        ),
        (
            "unify --src @cut --src-strategy @strange.ckpt --dst @x --dry-run",
            4,
        ),
        ("inspect @strange.ckpt", 1),
        ("inspect @cut --tree", 1),
        ("inspect @cut --all", 1),
        ("verify @cut", 4),
        ("unify --src @cut --src-strategy @strange.ckpt --dst @x", 4),
    ] {
        if line == "verify @cut" {
            tensors::damage(&sample.path("cut/rank_1/net.safetensors"), name);
        }
        // A file that the shell has found.
        let line = &line.replace("@*", &format!("@{strange_file}"));
        let line = &line.replace("jobs/*", &format!("jobs/{strange_file}"));
        let run = run(processes, &sample, line);
        assert!(!acts(&run.stdout) && !acts(&run.stderr), "{line}: {run:#?}");
        let lines = run.stdout.lines().chain(run.stderr.lines());
        let fake = lines
            .filter(|l| l.replace('\u{a0}', " ").starts_with("error: all is lost"))
            .count();
        assert_eq!(fake, 0, "{line}: {run:#?}");
    }
    let run = alone(&sample.args("diff @a @b --json"));
    assert!(!acts(&run.stdout), "{run:#?}");
    let rows = object(&run)["tensors"].clone();
    let names = rows
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| &row["name"]);
    assert!(names.into_iter().any(|found| found == name), "{rows}");
    let odd = sample.path("odd\u{1b}[31m\nerror: all is lost");
    let odd = odd.to_string_lossy().into_owned();
    let run = alone(&["unify", "--src", &odd, "--dst", &format!("{odd}2")]);
    assert!(
        !acts(&run.stderr) && Path::new(&odd).parent().is_some(),
        "{run:#?}"
    );
    error_line(&run);
}

/// What a wrapper puts before the names of a source is taken away, whether its strategy has it or not.
#[test]
fn names_that_begin_otherwise_than_those_of_their_strategy_are_read() {
    let sample = Sample::in_memory();
    for rank in 0..4 {
        let path = sample.path(&format!("src/rank_{rank}/net.safetensors"));
        let own = tensors::read(&path).expect("a file").tensors.into_iter();
        let wrapped = own.map(|(name, tensor)| (format!("module.{name}"), tensor));
        tensors::write(&path, &wrapped.collect());
    }
    let reshard = WITH_MAPS[0].replace(" --name-map @map.json", "");
    let unify = WITH_MAPS[1].replace(" --name-map @map.json", "");
    for line in [&reshard, &unify] {
        let told = ["begin with 'module.'", "--strip-prefix module."];
        refused(&sample, &run(2, &sample, line), &told);
    }
    for processes in [1, 4] {
        run(
            processes,
            &sample,
            &format!("{reshard} --strip-prefix module."),
        )
        .succeeds();
        sample.check("out", &sample.two, &sample.whole);
        std::fs::remove_dir_all(sample.path("out")).expect("removed");
    }
    // Names are chosen as they are written.
    let line = format!("{unify} --strip-prefix module. --filter-out-param-prefix w");
    run(2, &sample, &line).succeeds();
    let found = sample.weights_in("out");
    assert_eq!(found.keys().collect::<Vec<_>>(), ["b"]);
    std::fs::remove_dir_all(sample.path("out")).expect("removed");
    // A beginning that no name has whole, and one that the destination's strategy hasn't.
    let wrong = format!("{unify} --strip-prefix modul");
    refused(
        &sample,
        &run(1, &sample, &wrong),
        &["no tensor of the source is in"],
    );
    run(2, &sample, &format!("{unify} --strip-prefix module.")).succeeds();
    let back = "split --src @out --dst @cut --dst-strategy @four.ckpt";
    run(2, &sample, back).succeeds();
    let line = format!("{} --add-prefix module.", back.replace("@cut", "@again"));
    let given = run(1, &sample, &line);
    assert_eq!(given.status.code(), Some(1), "{given:#?}");
    assert!(error_line(&given).contains("module."), "{given:#?}");
}

/// States go where their tensors go, and what is taken from names is part of what a job is asked.
#[test]
fn an_optimizers_states_follow_their_tensors_to_other_beginnings() {
    let sample = Sample::in_memory();
    let whole = |beginning: &str| {
        let named = |state: &str, name: &str, tensor: &Tensor| {
            (format!("{state}{beginning}{name}"), tensor.clone())
        };
        let all = sample.whole.iter().flat_map(|(name, tensor)| {
            ["", "adam_m.", "adam_v."].map(|state| named(state, name, tensor))
        });
        all.collect::<Tensors>()
    };
    tensors::write(&sample.path("bare/w.safetensors"), &whole(""));
    tensors::write(&sample.path("wrapped/w.safetensors"), &whole("module."));
    let strip = "unify --src @wrapped --dst @one --strip-prefix module.";
    run(2, &sample, strip).succeeds();
    tensors::compare(&whole(""), &sample.weights_in("one")).expect("stripped");
    run(
        2,
        &sample,
        "unify --src @bare --dst @two --add-prefix module",
    )
    .succeeds();
    tensors::compare(&whole("module."), &sample.weights_in("two")).expect("added");
    // A name map takes a state along, under the name that is left.
    std::fs::write(sample.path("map.json"), r#"{"w1": "w9"}"#).expect("a map");
    let line = strip.replace("@one", "@three --name-map @map.json");
    run(1, &sample, &line).succeeds();
    let found = sample.weights_in("three");
    assert!(found.contains_key("adam_m.w9") && !found.contains_key("adam_m.w1"));
    // What stands there is of another job.
    for other in [
        "unify --src @wrapped --dst @one --resume",
        "unify --src @wrapped --dst @one --strip-prefix module. --add-prefix x. --resume",
    ] {
        let run = run(2, &sample, other);
        assert!(
            error_line(&run).contains("exists and is not empty"),
            "{run:#?}"
        );
    }
    let again = run(2, &sample, &format!("{strip} --resume")).succeeds();
    assert!(again.stdout.contains("reused"), "{again:#?}");
    let note = run(
        1,
        &sample,
        "unify --src @bare --dst @four --strip-prefix module.",
    );
    let told = "--strip-prefix module. changes no name";
    assert!(note.succeeds().stdout.contains(told));
}

/// What a name says beside the rank stays; of one that says nothing else nothing does.
#[test]
fn names_that_say_a_step_are_kept() {
    for (before, after) in [
        ("net-1_100", "net-1_100"),
        ("qwen3_rank_{}-network-2_40", "qwen3_rank_{}-network-2_40"),
        ("iter_0000012", "iter_0000012"),
        ("net", "net{}"),
        ("x{}", "net{}"),
    ] {
        let sample = Sample::new();
        let named = |name: &str, rank: usize| {
            format!("{}.safetensors", name.replace("{}", &rank.to_string()))
        };
        for rank in 0..sample.four.ranks() {
            let room = sample.path(&format!("src/rank_{rank}"));
            std::fs::rename(room.join("net.safetensors"), room.join(named(before, rank)))
                .expect("renamed");
        }
        let line =
            "reshard --src @src --src-strategy @four.ckpt --dst-strategy @two.ckpt --dst @out";
        for (flags, after) in [("", after), ("--prefix p", "p{}")] {
            let args = sample.args(&format!("{line} {flags} --overwrite"));
            under_mpi(2, &args).succeeds();
            for rank in 0..sample.two.ranks() {
                let file = sample.path(&format!("out/rank_{rank}/{}", named(after, rank)));
                assert!(file.is_file(), "{before} {flags}: {}", file.display());
            }
        }
    }
}
