//! What is left when things go wrong in the middle of a run.

mod kills;
mod steps;

use crate::support::processes;
use crate::support::{self, Run, command, fixtures, oracle, sample, tensors};
use command::{RESHARD, alone, under_mpi};
use oracle::Strategy;
use rustix::process::{Pid, Signal, kill_process};
use sample::{Sample, image, layout};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tensors::{Tensor, Tensors};

/// About 200 MB: 24 tensors cut by rows, to be cut by columns.
fn large() -> Sample {
    let (mut whole, mut four, mut two) = (Tensors::new(), Vec::new(), Vec::new());
    for number in 0..24 {
        let name = format!("layers.{number}.weight");
        whole.insert(name.clone(), Tensor::counting("F32", &[2048, 1024], number));
        four.push((0, name.clone(), layout(&[4], &[0, -1])));
        two.push((0, name, layout(&[2], &[-1, 0])));
    }
    Sample::of(whole, Strategy { items: four }, Strategy { items: two })
}

/// The processes of the program itself whose command line names `room`.
fn processes(room: &Path) -> Vec<Pid> {
    processes::of(Path::new(env!("CARGO_BIN_EXE_shardloom")), room)
}

/// Runs the job on four processes and kills one of them as soon as its output begins to grow.
///
/// Gives the run and how long it went on after the kill; `None` if it was faster than that.
fn run_and_kill(sample: &Sample) -> Option<(Run, Duration)> {
    let args = sample.args(&format!("{RESHARD} --memory 2MiB"));
    let partial = sample.path(".out.shardloom-partial");
    let grown = || {
        let files = fixtures::listing(&partial);
        files.iter().any(|file| file.extension().is_some())
    };
    std::thread::scope(|scope| {
        let job = scope.spawn(|| under_mpi(4, &args));
        while !grown() && !job.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let killed = Instant::now();
        let victim = processes(sample.room.path()).pop();
        let hit = victim.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
        let run = job.join().expect("the job ends");
        let went_on = killed.elapsed();
        (hit && !run.status.success()).then_some((run, went_on))
    })
}

#[test]
fn killed_process_leaves_the_old_state() {
    let sample = large();
    let before = image(&sample.path("src"));
    let mut hit = false;
    for _ in 0..5 {
        let Some((run, went_on)) = run_and_kill(&sample) else {
            let _ = std::fs::remove_dir_all(sample.path("out"));
            continue;
        };
        hit = true;
        assert!(went_on < Duration::from_secs(10), "{went_on:?}: {run:#?}");
        assert!(
            !sample.path("out").exists(),
            "half a destination is visible"
        );
        assert!(
            processes(sample.room.path()).is_empty(),
            "processes were left"
        );
        break;
    }
    assert!(hit, "no attempt was slow enough to be killed");
    assert!(
        before == image(&sample.path("src")),
        "the source has changed"
    );
    under_mpi(4, &sample.args(RESHARD)).succeeds();
    sample.check("out", &sample.two, &sample.whole);
    assert!(!sample.path(".out.shardloom-partial").exists());
}

#[test]
fn destination_that_can_not_be_made_is_named() {
    let sample = Sample::new();
    tensors::write_bytes(&sample.path("file"), b"not a directory");
    let line = RESHARD.replace("@out", "@file/out");
    let run = under_mpi(4, &sample.args(&line)).fails();
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    assert!(run.stderr.contains("file/out"), "{run:#?}");
    assert_eq!(run.stderr.matches("error:").count(), 1, "{run:#?}");
}

#[test]
fn read_only_destination_is_named() {
    let sample = Sample::new();
    let Some(_mount) = Mount::new(&sample.path("mounted"), "size=1m,ro") else {
        println!("skipped: no right to mount");
        return;
    };
    let line = RESHARD.replace("@out", "@mounted/out");
    let run = under_mpi(4, &sample.args(&line)).fails();
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    assert!(run.stderr.contains("mounted/out"), "{run:#?}");
}

// proves P47
#[test]
fn full_disk_is_found_and_nothing_left_visible() {
    let sample = large();
    let Some(_mount) = Mount::new(&sample.path("mounted"), "size=64m") else {
        println!("skipped: no right to mount");
        return;
    };
    let line = RESHARD.replace("@out", "@mounted/out");
    let run = under_mpi(4, &sample.args(&line)).fails();
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    assert!(run.stderr.contains("mounted"), "{run:#?}");
    assert!(
        !sample.path("mounted/out").exists(),
        "half a destination is visible"
    );
}

// proves P12
#[test]
fn full_disk_is_survived_by_what_stands_there() {
    let sample = large();
    let Some(_mount) = Mount::new(&sample.path("mounted"), "size=64m") else {
        println!("skipped: no right to mount");
        return;
    };
    tensors::write_bytes(&sample.path("mounted/out/rank_0/kept.safetensors"), b"old");
    let line = RESHARD.replace("@out", "@mounted/out");
    let run = under_mpi(4, &sample.args(&format!("{line} --overwrite"))).fails();
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    let left = fixtures::listing(&sample.path("mounted"));
    assert_eq!(left, [Path::new("out/rank_0/kept.safetensors")]);
}

/// The program as a user without rights, or none where that isn't allowed.
fn as_nobody(sample: &Sample, line: &str) -> Option<std::process::Output> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(sample.room.path(), mode(0o755)).expect("open the room");
    let nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(env!("CARGO_BIN_EXE_shardloom"));
        command
    };
    let mut version = nobody();
    let allowed = version.arg("--version").output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("skipped: no right to be somebody else");
        return None;
    }
    Some(
        nobody()
            .args(sample.args(line))
            .output()
            .expect("it starts"),
    )
}

#[test]
fn what_may_not_be_read_or_written_is_named() {
    let sample = Sample::new();
    let Some(output) = as_nobody(&sample, RESHARD) else {
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stderr.contains("denied") && stderr.contains("out"),
        "{stderr}"
    );
    let secret = sample.path("src/rank_2/net.safetensors");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(secret, mode(0o600)).expect("close it");
    let output = as_nobody(&sample, RESHARD).expect("allowed a moment ago");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr.contains("rank_2/net.safetensors"), "{stderr}");
}

/// What another user has written, and this one may not remove, is found before anything is written.
#[test]
fn what_may_not_be_removed_is_not_replaced() {
    let sample = Sample::new();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    let rooms = sample.path("rooms");
    let line = RESHARD.replace("@out", "@rooms/out");
    alone(&sample.args(&line)).succeeds();
    let before = image(&rooms);
    for (open, closed) in [("rooms", "out"), ("rooms/out", "rank_0")] {
        std::fs::set_permissions(sample.path(open), mode(0o777)).expect("open it");
        let again = format!("{} --overwrite", RESHARD.replace("@out", "@rooms/out"));
        let in_place = "reshard --src @rooms/out --dst-strategy @four.ckpt --in-place";
        for line in [again.as_str(), in_place] {
            let Some(output) = as_nobody(&sample, line) else {
                return;
            };
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert!(
                stderr.contains("may not remove what lies in it"),
                "{stderr}"
            );
            assert!(
                stderr.contains(&format!("{closed}: is to be replaced")),
                "{stderr}"
            );
            assert_eq!(image(&rooms), before, "{line}");
        }
    }
}

#[test]
fn links_in_circles_are_named() {
    use std::os::unix::fs::symlink;
    for circle in ["src/rank_1/net.safetensors", "out", "two.ckpt"] {
        let sample = Sample::new();
        let path = sample.path(circle);
        let _ = std::fs::remove_file(&path);
        symlink(&path, &path).expect("a link to itself");
        let run = under_mpi(2, &sample.args(RESHARD)).fails();
        assert_eq!(run.status.code(), Some(1), "{run:#?}");
        assert!(command::error_line(&run).contains(circle), "{run:#?}");
    }
}

/// A small file system in memory, gone when this is dropped.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(path: &Path, options: &str) -> Option<Mount> {
        std::fs::create_dir_all(path).expect("make a directory");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Mount(path.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
