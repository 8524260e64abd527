//! What the system gives: open files, threads, sizes of files; and what small files ask for.

use crate::support::{self, Run, command, fixtures, oracle, sample, tensors};
use command::{alone, error_line, nothing_written};
use oracle::{Strategy, to_protobuf};
use sample::{Sample, layout};
use std::path::Path;
use std::time::Duration;
use tensors::{Tensor, Tensors};

/// Longest that a refusal may take.
const SOON: Duration = Duration::from_secs(20);

/// Runs the program in a shell that has set `limit`.
fn under(limit: &str, processes: u32, args: &[String]) -> Run {
    let args: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let program = env!("CARGO_BIN_EXE_shardloom");
    let script = format!("{limit} && exec '{program}' {}", args.join(" "));
    let shell = Path::new("/bin/sh");
    match processes {
        1 => support::alone(shell, &["-c", &script], &[]),
        _ => support::mpirun(processes, shell, &["-c", &script], &[]),
    }
}

/// The run was an error with all of `words`, soon, and no signal.
#[track_caller]
fn refused(run: &Run, words: &[&str]) {
    assert!(
        run.status.code().is_some_and(|code| code == 1 || code == 2),
        "{run:#?}"
    );
    assert!(run.elapsed < SOON, "{run:#?}");
    error_line(run);
    for word in words {
        assert!(run.stderr.contains(word), "{word} is not said: {run:#?}");
    }
}

// proves P65
#[test]
fn many_ranks_need_few_open_files() {
    let ranks = 200;
    let whole = Tensors::from([("w".to_owned(), Tensor::counting("F32", &[ranks, 4], 1))]);
    let of = |ranks: usize| Strategy::of(&[("w", layout(&[ranks], &[0, -1]))]);
    let sample = Sample::of(whole, of(ranks), of(ranks / 2));
    for (limit, processes) in [
        ("ulimit -Sn 64", 1),
        ("ulimit -n 96", 1),
        ("ulimit -n 128", 2),
    ] {
        for line in [
            "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt --overwrite",
            "unify --src @src --src-strategy @four.ckpt --dst @all --max-shard-size 16 --overwrite",
            "verify @out",
            "diff @src @out --a-strategy @four.ckpt --b-strategy @two.ckpt",
            "checkpoints list @out",
            "convert @out --dst @converted --to ckpt --overwrite",
        ] {
            let run = under(limit, processes, &sample.args(line));
            assert!(run.status.success(), "{limit}: {line}: {run:#?}");
        }
        sample.check("out", &sample.two, &sample.whole);
    }
}

// proves P65, P66
#[test]
fn what_the_system_refuses_is_an_error() {
    let sample = Sample::new();
    let line = "unify --src @src --src-strategy @four.ckpt --dst @out";
    for processes in [1, 4] {
        let run = under(
            "true",
            processes,
            &sample.args(&format!("{line} --threads 100000")),
        );
        refused(&run, &["--threads 100000", "1024"]);
    }
    nothing_written(&sample);
    // Blocks of 512 bytes or of 1024, by shell: the tensors need more than either.
    let large = Tensors::from([("w".to_owned(), Tensor::counting("F32", &[64, 1024], 1))]);
    tensors::write(&sample.path("large/model.safetensors"), &large);
    let large_line = "unify --src @large --dst @out";
    let run = under("ulimit -f 64", 1, &sample.args(large_line));
    refused(&run, &["ulimit -f"]);
    // The MPI library has files of its own, which are longer.
    let run = under("ulimit -f 64", 4, &sample.args(large_line));
    assert!(
        !run.status.success() && !run.stderr.contains("signal 25"),
        "{run:#?}"
    );
    nothing_written(&sample);
    for line in [
        line,
        "verify @src",
        "checkpoints latest @src",
        "load --config @none.yaml",
    ] {
        let run = under("ulimit -n 20", 1, &sample.args(line));
        assert!(!run.status.success(), "{run:#?}");
        assert!(run.status.code().is_some(), "no signal: {run:#?}");
        let run = under("ulimit -n 50", 1, &sample.args(line));
        refused(&run, &["ulimit -n"]);
    }
    nothing_written(&sample);
}

// proves P69
#[test]
fn memory_that_is_refused_is_an_error() {
    let sample = Sample::new();
    // What is large is asked for: a header, in a file that is mostly a hole.
    let header = 99_000_000_u64;
    let long = sample.path("long.safetensors");
    tensors::write_bytes(&long, &header.to_le_bytes());
    let hole = std::fs::OpenOptions::new().write(true).open(&long);
    hole.and_then(|file| file.set_len(8 + header))
        .expect("a hole");
    let run = under(
        "ulimit -v 100000",
        1,
        &sample.args("inspect @long.safetensors --json"),
    );
    let refusal = "long.safetensors: the system refuses 99000000 more bytes";
    refused(&run, &[refusal, "ulimit -v"]);
    assert!(run.stdout.contains("\"kind\":\"memory\""), "{run:#?}");
    // Of what is small, whoever comes last gets none: threads, or a few bytes anywhere.
    let line = "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt \
                --exchange collective --overwrite";
    let mut ends = std::collections::BTreeSet::new();
    for (limit, threads) in [
        (140_000, 3),
        (170_000, 60),
        (220_000, 100),
        (3_000_000, 1000),
    ] {
        let args = sample.args(&format!("{line} --threads {threads}"));
        let run = under(&format!("ulimit -v {limit}"), 1, &args);
        if !run.status.success() {
            refused(&run, &["ulimit -v"]);
            assert_eq!(run.status.code(), Some(1), "{run:#?}");
        }
        ends.insert(run.status.success());
    }
    assert!(ends.contains(&false), "nothing was refused");
    // An MPI library would die of less.
    let run = under("ulimit -v 80000", 1, &sample.args(line));
    refused(&run, &["ulimit -v", "refuses 134217728"]);
}

/// A user that isn't root has a limit of threads: two processes that meet it end, and say why.
// proves P70
#[test]
fn threads_that_are_refused_are_an_error_on_every_process() {
    let sample = Sample::new();
    let room = sample.room.path().display().to_string();
    let shell = Path::new("/bin/sh");
    let root = support::alone(
        shell,
        &["-c", "test $(id -u) = 0 && setpriv --version"],
        &[],
    );
    if !root.status.success() {
        println!("skipped: only root can be another user");
        return;
    }
    let program = sample.path("shardloom");
    std::fs::copy(env!("CARGO_BIN_EXE_shardloom"), &program).expect("copied");
    let line = "unify --src @src --src-strategy @four.ckpt --dst @out/done --threads 8";
    let line = sample.args(line).join(" ");
    let launcher = std::env::var("MPIRUN").unwrap_or_else(|_| "mpirun".to_owned());
    let more = std::env::var("MPIRUN_ARGS").unwrap_or_else(|_| "--oversubscribe".to_owned());
    for limit in [14, 18] {
        let inner = format!("ulimit -u {limit}; exec {} {line}", program.display());
        let script = format!(
            "mkdir -p {room}/out && chmod -R a+rwX {room} && export HOME={room}/out TMPDIR={room}/out && \
             exec timeout -k 1 60 setpriv --reuid=65534 --regid=65534 --clear-groups \
             {launcher} {more} -n 2 bash -c '{inner}'"
        );
        let run = support::alone(shell, &["-c", &script], &[]);
        assert!(!run.status.success(), "{limit}: {run:#?}");
        assert_ne!(run.status.code(), Some(124), "{limit}: it hangs: {run:#?}");
        let told = "ulimit -u";
        assert!(run.stderr.contains(told), "{limit}: {run:#?}");
        assert!(!sample.path("out/done").exists(), "{limit}");
    }
}

// proves P67
#[test]
fn a_result_that_is_too_long_for_its_file_is_an_error() {
    let sample = Sample::new();
    let into = sample.path("result");
    let limit = format!("ulimit -f 0 && exec >'{}'", into.display());
    for line in ["inspect @full", "diff @full @full --json"] {
        let run = under(&limit, 1, &sample.args(line));
        // stderr, a file here, has no room either.
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
    }
}

// proves P68
#[test]
fn a_pipe_is_no_file() {
    let sample = Sample::new();
    let pipe = sample.path("pipe.safetensors");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    for name in [
        "src/rank_2/net.safetensors",
        "pipe.ckpt",
        "pipe.json",
        "pipe.yaml",
        "hf/config.json",
    ] {
        let path = sample.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        let _ = std::fs::remove_file(&path);
        std::fs::rename(&pipe, &path).expect("moved");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
    }
    for (line, file) in [
        (
            "unify --src @src --src-strategy @four.ckpt --dst @out",
            "net.safetensors",
        ),
        (
            "unify --src @pipe.safetensors --dst @out",
            "pipe.safetensors",
        ),
        (
            "split --src @full --dst @out --dst-strategy @pipe.ckpt",
            "pipe.ckpt",
        ),
        (
            "unify --src @full --dst @out --name-map @pipe.json",
            "pipe.json",
        ),
        (
            "unify --src @full --dst @out --name-map @pipe.yaml",
            "pipe.yaml",
        ),
        ("import --hf @hf --dst @out", "config.json"),
        (
            "convert @pipe.safetensors --dst @out --to ckpt",
            "pipe.safetensors",
        ),
        ("inspect @pipe.safetensors", "pipe.safetensors"),
    ] {
        let run = alone(&sample.args(line));
        refused(&run, &[file]);
        nothing_written(&sample);
    }
    let device = sample.path("device.safetensors");
    std::os::unix::fs::symlink("/dev/zero", device).expect("a link");
    refused(
        &alone(&sample.args("unify --src @device.safetensors --dst @out")),
        &["device"],
    );
}

// proves P71
#[test]
fn a_few_bytes_ask_for_no_more_than_a_refusal() {
    let sample = Sample::new();
    for mesh in [
        vec![1 << 28],
        vec![1 << 14, 1 << 14],
        vec![1 << 31, 1 << 31],
    ] {
        let map: Vec<i64> = vec![0, -1];
        let huge = Strategy::of(&[("w1", layout(&mesh, &map))]);
        tensors::write_bytes(&sample.path("huge.ckpt"), &to_protobuf(&huge));
        for line in [
            "split --src @full --dst @out --dst-strategy @huge.ckpt",
            "unify --src @src --src-strategy @huge.ckpt --dst @out",
            "strategy show @huge.ckpt",
        ] {
            let run = under("ulimit -v 4000000", 1, &sample.args(line));
            refused(&run, &["huge.ckpt", &mesh[0].to_string()]);
        }
    }
    let hf = fixtures::data().join("model/qwen3_moe/hf");
    let text = std::fs::read_to_string(hf.join("config.json")).expect("a config");
    for key in ["num_hidden_layers", "num_local_experts"] {
        let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(config[key].is_u64(), "{config}");
        config[key] = 1_000_000_000u64.into();
        tensors::write_bytes(
            &sample.path("hf/config.json"),
            config.to_string().as_bytes(),
        );
        for line in [
            "import --hf @hf --dst @out",
            "export --src @full --hf-config @hf --dst @out",
        ] {
            let run = alone(&sample.args(line));
            refused(&run, &["config.json", "1000000000"]);
        }
    }
    nothing_written(&sample);
}
