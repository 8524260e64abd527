//! What is said in the situations that people get into: message and what to do, as they are printed.

use crate::support::{self, Run, command, fixtures, sample, tensors};
use command::{alone, object, refuses, under_mpi};
use sample::{Sample, own_lock};
use std::path::Path;
use std::process::Command;
use tensors::{Tensor, Tensors};

/// Each situation: what is typed, and all that is said; `@` is the directory of the sample.
const TABLE: &str = include_str!("data/messages.txt");

/// What is wrong in `room`, beside the sample.
fn mistakes(sample: &Sample) {
    let copy = |from: &str, to: &str| sample.copy(from, to);
    for rank in 0..4 {
        let from = format!("src/rank_{rank}/net.safetensors");
        copy(
            &from,
            &format!("output/checkpoint/rank_{rank}/net.safetensors"),
        );
        copy(&from, &format!("numbered/rank{rank}/net.safetensors"));
        copy(
            &from,
            &format!("steps/rank_{rank}/m_rank_{rank}-1_20.safetensors"),
        );
    }
    for rank in 0..2 {
        copy(
            &format!("src/rank_{rank}/net.safetensors"),
            &format!("mixed/rank_{rank}/m_rank_{rank}-1_20.safetensors"),
        );
    }
    copy(
        "src/rank_0/net.safetensors",
        "mixed/rank_0/m_rank_0-1_30.safetensors",
    );
    copy("four.ckpt", "strategies/ckpt_strategy_rank_0.ckpt");
    std::fs::create_dir_all(sample.path("empty")).expect("a directory");
    let strategy = std::fs::read(sample.path("four.ckpt")).expect("a file");
    tensors::write_bytes(&sample.path("cut.ckpt"), &strategy[..strategy.len() - 20]);
    for (name, bytes) in [
        (
            "torch/pytorch_model.bin",
            &b"PK\x03\x04\0\0\0\0archive/data.pkl"[..],
        ),
        (
            "old.pt",
            b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e",
        ),
        ("m.gguf", b"GGUF\x03\0\0\0"),
        ("dcp/__0_0.distcp", b"PK\x03\x04"),
        ("shapes.json", b"{\"w\": [4, 4]}"),
        ("other.yaml", b"llama: {input_path: x}\n"),
        (
            "placeholder.yaml",
            b"pretrained_model_dir: /path/to/Qwen3-32B\n",
        ),
    ] {
        tensors::write_bytes(&sample.path(name), bytes);
    }
    let full = sample.path("full").display().to_string();
    let text = format!(
        "load_checkpoint: {full}\nparallel_config: {{data_parallel: 2, model_parallel: 4}}\n"
    );
    tensors::write_bytes(&sample.path("parallel.yaml"), text.as_bytes());
    // Another run is writing at `taken`: this process, which lives.
    tensors::write_bytes(&sample.path(".taken.shardloom-lock"), own_lock().as_bytes());
    let recorded = fixtures::data().join("model");
    for (from, to) in [
        ("qwen3/hf/config.json", "qwen3/config.json"),
        ("qwen3/hf/model.safetensors", "qwen3/model.safetensors"),
        ("llama/legacy.safetensors", "legacy/model.safetensors"),
    ] {
        let to = sample.path(to);
        std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        std::fs::copy(recorded.join(from), to).expect("copied");
    }
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(sample.room.path(), closed).expect("a mode");
    let other = Tensors::from([
        ("b".to_owned(), Tensor::counting("BF16", &[16], 3)),
        ("w1".to_owned(), Tensor::counting("BF16", &[16, 8], 50)),
        ("w2".to_owned(), Tensor::counting("F32", &[16, 8], 91)),
    ]);
    tensors::write(&sample.path("full2/model.safetensors"), &other);
    let wrapped = other
        .into_iter()
        .map(|(name, tensor)| (format!("module.{name}"), tensor));
    tensors::write(&sample.path("wrapped/m.safetensors"), &wrapped.collect());
    let config = std::fs::read_to_string(sample.path("qwen3/config.json")).expect("a text");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["num_attention_heads"] = serde_json::Value::Null;
    let config = config.to_string().replace("null", "NaN");
    tensors::write_bytes(&sample.path("nan/config.json"), config.as_bytes());
    copy("qwen3/model.safetensors", "nan/model.safetensors");
}

/// A user without rights, or none where that isn't allowed.
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// The program's run of `line`, whose first words may be variables of its environment; `NOBODY=1` has it run by a
/// user without rights. None where that isn't allowed.
fn run(sample: &Sample, line: &str) -> Option<Run> {
    let set: Vec<(&str, &str)> = line
        .split(' ')
        .map_while(|word| word.split_once('='))
        .collect();
    let words = sample.args(line);
    let words = words[set.len()..]
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>();
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    if set.first() != Some(&("NOBODY", "1")) {
        return Some(support::alone(program, &words, &set));
    }
    let mut nobody = Command::new("setpriv");
    nobody.args(NOBODY).arg(program);
    let version = nobody.arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mut nobody = Command::new("setpriv");
    nobody.args(NOBODY).arg(program).args(&words);
    Some(support::run(nobody))
}

/// What `line` prints, without what differs from run to run; `otherwise` where it can't be run here.
fn said(sample: &Sample, line: &str, otherwise: &str) -> String {
    let Some(run) = run(sample, line) else {
        return otherwise.to_owned();
    };
    let room = format!("{}/", sample.room.path().display());
    let text = format!("{}{}", run.stdout, run.stderr)
        .replace(&room, "@")
        .replace(room.trim_end_matches('/'), "@");
    let lines = text.lines().map(|line| {
        let line = match (line.find("since "), line.find(" UTC")) {
            (Some(since), Some(end)) if since < end => {
                format!("{}since T{}", &line[..since], &line[end..])
            }
            _ => line.to_owned(),
        };
        let line = line.replace(&format!("process {} ", std::process::id()), "process P ");
        let line = match (line.find(" to MPI ("), line.find(") each of them")) {
            (Some(mpi), Some(end)) => format!("{} to MPI (M{}", &line[..mpi], &line[end..]),
            _ => line,
        };
        let line = match (line.find("sign of life is "), line.find(" s old")) {
            (Some(sign), Some(end)) => {
                format!("{}sign of life is T{}", &line[..sign], &line[end..])
            }
            _ => line,
        };
        let Some(rest) = line.strip_prefix("error: process 0 on ") else {
            return line;
        };
        let rest = rest.split_once(": ").map_or(rest, |(_, rest)| rest);
        format!("error: {rest}")
    });
    // The run's id is another each time.
    let lines = lines.filter(|line| !line.starts_with("  run: "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn each_mistake_is_told_with_what_to_do() {
    let sample = Sample::in_memory();
    mistakes(&sample);
    let mut found = String::new();
    for case in TABLE
        .split("\n$ ")
        .map(|case| case.trim_start_matches("$ "))
    {
        let line = case.lines().next().unwrap_or_default();
        let otherwise = case
            .split_once('\n')
            .map_or("", |(_, said)| said.trim_end());
        found.push_str(&format!("$ {line}\n{}\n\n", said(&sample, line, otherwise)));
    }
    let found = format!("{}\n", found.trim_end());
    if std::env::var_os("SHARDLOOM_WRITE_MESSAGES").is_some() {
        let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/messages.txt");
        std::fs::write(table, &found).expect("written");
    }
    assert_eq!(
        found, TABLE,
        "SHARDLOOM_WRITE_MESSAGES=1 writes tests/data/messages.txt anew"
    );
    for word in ["cell", "slab", "leftover", "no process finds"] {
        assert!(!TABLE.contains(word), "a word of the inside: {word}");
    }
}

/// On a terminal only wrong usage is coloured, unless NO_COLOR says no, and rows fit its width; in a pipe there is
/// neither, and a reader that has enough is no error.
#[test]
fn lines_fit_terminals_and_pipes() {
    let sample = Sample::in_memory();
    mistakes(&sample);
    let program = env!("CARGO_BIN_EXE_shardloom");
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        let line = line
            .replace("shardloom", program)
            .replace('@', &format!("{}/", sample.room.path().display()));
        support::run({
            command
                .args(["-c", &line])
                .env_remove("NO_COLOR")
                .env_remove("COLUMNS");
            command
        })
    };
    let long = "a.very.long.name.of.a.module.of.a.network.that.nobody.has.seen.weight";
    let tensor = Tensor::counting("F32", &[4, 4], 1);
    tensors::write(
        &sample.path("long/m.safetensors"),
        &Tensors::from([(long.to_owned(), tensor)]),
    );
    // Errors, hints, results, the log, tables.
    let lines = [
        "shardloom unify --src @nowhere --dst @o",
        "shardloom unify --src @full --dst @o --overwrite -vv",
        "shardloom load --config @placeholder.yaml",
        "shardloom inspect @src",
        "shardloom inspect @full --stats",
        "shardloom strategy show @four.ckpt --param 'w*'",
        "shardloom diff @full @full2",
        "shardloom formats",
        "shardloom unify --wrong",
        "shardloom --help",
    ];
    for line in lines {
        let run = shell(&format!("COLUMNS=30 {line}"));
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(
            !said.is_empty() && !said.contains('\u{1b}'),
            "{line}: {said}"
        );
    }
    assert!(
        shell("COLUMNS=30 shardloom inspect @long")
            .stdout
            .contains(long),
        "a pipe has no width"
    );
    let first = shell("shardloom inspect @src | head -n 1");
    assert!(
        first.stderr.is_empty() && first.stdout.lines().count() == 1,
        "{first:#?}"
    );
    if !shell("script -qec true /dev/null < /dev/null")
        .status
        .success()
    {
        println!("skipped: nothing makes a terminal here");
        return;
    }
    let terminal = |line: &str| shell(&format!("script -qec \"{line}\" /dev/null < /dev/null"));
    for line in lines {
        let wrong = line.contains("--wrong") || line.contains("--help");
        let run = terminal(line);
        assert_eq!(run.stdout.contains('\u{1b}'), wrong, "{line}: {run:#?}");
        let plain = terminal(&format!("NO_COLOR=1 {line}"));
        assert!(!plain.stdout.contains('\u{1b}'), "{line}: {plain:#?}");
    }
    for columns in [24, 40, 200] {
        let run = terminal(&format!("COLUMNS={columns} shardloom inspect @long"));
        let rows = run.stdout.lines().filter(|row| row.contains("a.very"));
        let widths: Vec<usize> = rows.map(|row| row.trim_end().chars().count()).collect();
        assert!(
            !widths.is_empty() && widths.iter().all(|width| *width <= columns),
            "{run:#?}"
        );
        assert_eq!(run.stdout.contains(long), columns == 200, "{run:#?}");
    }
}

#[test]
fn figures_of_tensors_are_those_of_their_elements() {
    let sample = Sample::in_memory();
    let values = [0.0f32, -3.0, 4.0, f32::NAN, f32::NEG_INFINITY];
    let data = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let tensor = Tensor {
        dtype: "F32".into(),
        shape: vec![5],
        data,
    };
    tensors::write(
        &sample.path("odd/m.safetensors"),
        &Tensors::from([("x.0.w".to_owned(), tensor)]),
    );
    let told = object(&alone(&sample.args("inspect @odd --stats --json")).succeeds());
    let figures = &told["files"][0]["tensors"][0]["figures"];
    let expected = serde_json::json!({
        "elements": 5, "nan": 1, "infinite": 1, "zeros": 1, "largest": 4.0, "norm": 5.0,
    });
    assert_eq!(figures, &expected);
    assert_eq!(told["overview"]["groups"][0]["name"], "x.*.w");
    refuses(
        &alone(&sample.args("inspect @src --param nobody*")),
        "nobody*",
    );
}

// proves P147
#[test]
fn a_difference_may_be_tolerated_and_names_left_out() {
    let sample = Sample::in_memory();
    let floats = |values: [f32; 2]| Tensor {
        dtype: "F32".into(),
        shape: vec![2],
        data: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    };
    for (place, value) in [("one", 2.0), ("other", 2.5)] {
        let tensors = [("a", floats([1.0, 1.0])), ("b", floats([1.0, value]))];
        let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor));
        tensors::write(
            &sample.path(&format!("{place}/model.safetensors")),
            &Tensors::from(tensors),
        );
    }
    let line = "diff @one @other";
    let row = |told: &serde_json::Value| {
        let rows = told["tensors"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["name"] == "b")
    };
    let run = alone(&sample.args(&format!("{line} --json")));
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let most = row(&object(&run))
        .and_then(|row| row["max_abs"].as_f64())
        .expect("a number");
    alone(&sample.args(&format!("{line} --max-abs {most}"))).succeeds();
    let less = alone(&sample.args(&format!("{line} --max-abs {}", most / 2.0)));
    assert_eq!(less.status.code(), Some(1), "{less:#?}");
    let told = object(
        &alone(&sample.args(&format!("{line} --json --filter-out-param-prefix b"))).succeeds(),
    );
    assert!(row(&told).is_none(), "{told}");
    let idle = format!("{line} --json --max-abs {most} --filter-out-param-prefix nothing");
    let notes = object(&alone(&sample.args(&idle)).succeeds())["notes"].to_string();
    assert!(notes.contains("nothing leaves nothing out"), "{notes}");
}

/// Two checkpoints whose names differ are compared by a map of names, in any layout.
#[test]
fn checkpoints_of_other_names_are_compared_by_a_map() {
    let sample = Sample::new();
    let mut other = sample.whole.clone();
    let w1 = other.remove("w1").expect("a tensor");
    other.insert("x.w1".into(), w1);
    tensors::write(&sample.path("other/model.safetensors"), &other);
    tensors::write_bytes(&sample.path("map.json"), br#"{"w1": "x.w1"}"#);
    tensors::write_bytes(&sample.path("wrong.yaml"), b"w9: x.w1\n");
    let line = "diff @src @other --a-strategy @four.ckpt --name-map @map.json";
    for processes in [1, 4] {
        let words = sample.args(line);
        let run = if processes == 1 {
            alone(&words)
        } else {
            under_mpi(processes, &words)
        };
        assert!(
            run.succeeds().stdout.contains("equal: 3 of 3"),
            "{processes}"
        );
    }
    tensors::write_bytes(&sample.path("back.json"), br#"{"x.w1": "w1"}"#);
    alone(&sample.args("diff @other @src --b-strategy @four.ckpt --name-map @back.json"))
        .succeeds();
    refuses(
        &alone(&sample.args(&line.replace("map.json", "wrong.yaml"))),
        "w9",
    );
    let plain = alone(&sample.args("diff @src @other --a-strategy @four.ckpt"));
    assert!(plain.stdout.contains("w1: only in A") && plain.stdout.contains("x.w1: only in B"));
    tensors::damage(&sample.path("other/model.safetensors"), "x.w1");
    let told = object(&alone(&sample.args(&format!("{line} --json"))));
    let rows = told["tensors"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["name"] == "w1").expect("a row");
    assert_eq!(
        (&row["state"], &row["name_in_b"]),
        (&"differs".into(), &"x.w1".into())
    );
}

#[test]
fn a_trainers_files_keep_their_names() {
    let sample = Sample::in_memory();
    mistakes(&sample);
    let line = "reshard --src @steps --src-strategy @four.ckpt --dst-strategy @two.ckpt";
    alone(&sample.args(&format!("{line} --dst @kept"))).succeeds();
    for rank in 0..2 {
        let room = sample.path(&format!("kept/rank_{rank}"));
        let meta = std::fs::read(room.join("meta.json")).expect("a file");
        let meta: serde_json::Value = serde_json::from_slice(&meta).expect("JSON");
        let name = format!("m_rank_{rank}-1_20.safetensors");
        assert_eq!(
            (&meta["last_ckpt_file"], &meta["last_step"]),
            (&name.clone().into(), &20.into())
        );
        let found = tensors::read(&room.join(name)).expect("readable");
        let expected = sample.two.cut(&sample.whole, rank).expect("cut");
        tensors::compare(&expected, &found.tensors).unwrap_or_else(|error| unreachable!("{error}"));
    }
    alone(&sample.args(&format!(
        "{line} --dst @named --prefix x --remove-redundancy"
    )))
    .succeeds();
    assert!(sample.path("named/rank_0/x0.safetensors").exists());
    assert!(!sample.path("named/rank_0/meta.json").exists());
    // Full weights have no such names: a step gives them.
    let line = "split --src @full --dst-strategy @two.ckpt --dst @step --step 2_7";
    alone(&sample.args(line)).succeeds();
    let meta = std::fs::read(sample.path("step/rank_1/meta.json")).expect("a file");
    let meta: serde_json::Value = serde_json::from_slice(&meta).expect("JSON");
    let name = "net_rank_1-2_7.safetensors";
    let right = serde_json::json!({"last_epoch": 2, "last_step": 7, "last_ckpt_file": name});
    assert_eq!(meta, right);
    let found = tensors::read(&sample.path(&format!("step/rank_1/{name}"))).expect("readable");
    let expected = sample.two.cut(&sample.whole, 1).expect("cut");
    tensors::compare(&expected, &found.tensors).unwrap_or_else(|error| unreachable!("{error}"));
    let latest = alone(&sample.args("checkpoints latest @step"));
    assert!(latest.stdout.starts_with("2_7: step 7"), "{latest:?}");
}
