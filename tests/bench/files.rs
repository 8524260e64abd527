//! What is measured with files: in memory or not, and where there is no room.

use super::{names, result, rows};
use crate::support::command::{alone, error_line, refuses, under_mpi};
use crate::support::{self, Run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

#[test]
fn files_and_a_reshard_are_measured_and_nothing_is_left() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path().to_string_lossy().into_owned();
    let svg = room.path().join("bench.svg").to_string_lossy().into_owned();
    let common = [
        "--json",
        "--iterations",
        "1",
        "--warmup",
        "0",
        "--svg",
        &svg,
    ];
    let cases: [(&[&str], &[&str]); 2] = [
        (
            &["storage", "--bytes", "300KiB", "--dir", &dir],
            &[
                "write",
                "write and flush",
                "read cached",
                "read cold",
                "create",
                "list",
            ],
        ),
        (
            &["reshard", "--bytes", "64KiB", "--dir", &dir],
            &["reshard by rows", "copy (rows)", "reshard by columns"],
        ),
    ];
    for (args, operations) in cases {
        for processes in [1, 3] {
            let line = [&["bench"], args, &common].concat();
            let measured = result(&under_mpi(processes, &line).succeeds());
            assert_eq!(measured["ok"], true);
            let found = names(&measured);
            assert!(
                operations.iter().all(|name| found.contains(name)),
                "{found:?}"
            );
            if args[0] == "storage" {
                // Not every file system reads so.
                let told = measured["unmeasured"].to_string().contains("read direct");
                assert_ne!(found.contains("read direct"), told, "{found:?}");
                assert!(measured["verdict"].to_string().contains("read cold"));
            }
            assert!(std::fs::read_to_string(&svg).unwrap().contains("bench"));
        }
    }
    // Of two nodes each alone, too, and as many small files as are asked for.
    let line = [
        "bench", "storage", "--bytes", "300KiB", "--dir", &dir, "--files", "3",
    ];
    let line = [&line[..], &common].concat();
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    let run = support::mpirun(4, program, &line, &[("SHARDLOOM_NODES", "2")]).succeeds();
    let measured = result(&run);
    let alone_rows = rows(&measured).iter().filter(|row| row["node"].is_string());
    let alone_rows: Vec<_> = alone_rows.collect();
    let nodes: BTreeSet<_> = alone_rows.iter().map(|row| row["node"].as_str()).collect();
    assert_eq!(nodes.len(), 2, "{alone_rows:#?}");
    for row in &alone_rows {
        assert_eq!(row["processes"], 2, "{row}");
    }
    let written = alone_rows.iter().filter(|row| row["operation"] == "write");
    assert_eq!(written.count(), 2);
    assert!(
        measured["verdict"]
            .to_string()
            .contains("of what a commit needs it can ")
    );
    // Nothing is left but the picture.
    assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 1);
    let missing = format!("{dir}/missing");
    let line = ["bench", "storage", "--dir", &missing, "--bytes", "1KiB"];
    refuses(&under_mpi(2, &line), "missing: --dir doesn't exist");
    refuses(
        &alone(&["bench", "all", "--dir", &svg]),
        "bench.svg: --dir is no directory",
    );
}

#[test]
fn a_reshard_says_whether_its_source_was_in_memory() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path().to_string_lossy().into_owned();
    let line = [
        "bench",
        "reshard",
        "--bytes",
        "256KiB",
        "--iterations",
        "1",
        "--json",
        "--dir",
    ];
    let verdict = |measured: &Value, of: &str| {
        let lines = measured["verdict"].as_array().unwrap().iter();
        let mut told = lines
            .filter_map(Value::as_str)
            .filter(|line| line.contains(of));
        told.next().map(str::to_owned)
    };
    for dir in [dir.as_str(), "/dev/shm"] {
        for (flag, of) in [
            (None, "was just written"),
            (Some("--off-cache"), "what reshard and copy read:"),
        ] {
            let line: Vec<&str> = line.into_iter().chain([dir]).chain(flag).collect();
            let measured = result(&under_mpi(2, &line).succeeds());
            let told = verdict(&measured, of);
            let told = told.unwrap_or_else(|| unreachable!("{dir}: {}", measured["verdict"]));
            // What lies in memory only can't be dropped from it.
            let dropped = told.contains("had dropped from memory");
            assert!(!dropped || dir != "/dev/shm", "{told}");
            for row in rows(&measured) {
                assert_eq!(row["variant"].as_str(), flag.map(|_| "off cache"), "{row}");
            }
        }
    }
    assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0);
}

/// Runs the program where the file system at `place` has so many bytes and loses its contents afterwards, and says what
/// was left there; none where nothing may be mounted.
fn in_little_room(place: &Path, size: &str, processes: u32, args: &[&str]) -> Option<Run> {
    let namespace = || {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.arg("--mount").args(["sh", "-c"]);
        command
    };
    let mount = format!("mount -t tmpfs -o size={size} tmpfs \"$0\"");
    let mut probe = namespace();
    probe.arg(&mount).arg(place);
    if !support::run(probe).status.success() {
        println!("skipped: nothing may be mounted here");
        return None;
    }
    let launcher = support::launcher(processes);
    let script = format!(
        "{mount} && {{ \"$@\"; code=$?; ls -A \"$0\" | sed 's/^/left: /' >&2; exit $code; }}"
    );
    let mut command = namespace();
    command.arg(script).arg(place);
    command
        .arg(launcher.get_program())
        .args(launcher.get_args());
    let envs = launcher.get_envs();
    command.envs(envs.filter_map(|(name, value)| Some((name, value?))));
    command.arg(env!("CARGO_BIN_EXE_shardloom")).args(args);
    Some(support::run(command))
}

#[test]
fn a_directory_without_room_is_named_and_nothing_is_left_there() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path().to_string_lossy().into_owned();
    for (processes, bench, said) in [
        (1, "storage --bytes 8MiB", "need 8388608 bytes, "),
        (
            2,
            "storage --bytes 3MiB",
            "files of 2 processes need 6291456 bytes, ",
        ),
        (2, "reshard --bytes 16MiB", ""),
    ] {
        let line: Vec<&str> = ["bench"]
            .into_iter()
            .chain(bench.split(' '))
            .chain(["--dir", &dir])
            .collect();
        let Some(run) = in_little_room(room.path(), "4m", processes, &line) else {
            return;
        };
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        let told = error_line(&run);
        assert!(told.contains(&dir) && told.contains(said), "{run:#?}");
        assert!(!run.stderr.contains("left: "), "{run:#?}");
    }
    // Of everything, what needs no files is measured.
    let line = ["bench", "all", "--budget", "3s", "--json", "--dir", &dir];
    let Some(run) = in_little_room(room.path(), "1m", 2, &line) else {
        return;
    };
    let measured = result(&run.succeeds());
    assert!(names(&measured).contains("all_to_all"));
    let left_out = measured["unmeasured"].to_string();
    assert!(left_out.contains("are free there"), "{left_out}");
}
