//! Several runs at one destination, and runs that are told to end.
//!
//! `SHARDLOOM_RACES=1000 cargo test --test all runs_at_once::races -- --nocapture` races as often.

mod batch;
mod races;
mod signals;

use crate::support::{self, fixtures, oracle, sample, tensors};
use oracle::Strategy;
use rustix::process::{Pid, Signal, kill_process};
use sample::{Sample, layout};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tensors::{Tensor, Tensors};

const RESHARD: &str = "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy \
                       @two.ckpt --memory 2MiB --threads 1";
const LOCK: &str = ".out.shardloom-lock";
const PARTIAL: &str = ".out.shardloom-partial";

/// Some MB, cut by rows and to be cut by columns, so that it takes a while.
fn sample(tensors: usize) -> Sample {
    let (mut whole, mut four, mut two) = (Tensors::new(), Vec::new(), Vec::new());
    for number in 0..tensors {
        let name = format!("layers.{number}.weight");
        whole.insert(name.clone(), Tensor::counting("F32", &[512, 1024], number));
        four.push((0, name.clone(), layout(&[4], &[0, -1])));
        two.push((0, name, layout(&[2], &[-1, 0])));
    }
    Sample::of(whole, Strategy { items: four }, Strategy { items: two })
}

fn start_with(sample: &Sample, line: &str, envs: &[(&str, &str)]) -> Child {
    // As a background job of a shell, or under nohup, these tests are started to ignore SIGINT or SIGHUP.
    let mut command = Command::new("env");
    command
        .arg("--default-signal=INT,HUP")
        .arg(env!("CARGO_BIN_EXE_shardloom"))
        .args(sample.args(line))
        .env("SHARDLOOM_CONFIG", "")
        .envs(envs.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

fn start(sample: &Sample, line: &str) -> Child {
    start_with(sample, line, &[])
}

fn send(child: &Child, signal: Signal) -> bool {
    kill_process(Pid::from_child(child), signal).is_ok()
}

fn end(child: Child) -> Output {
    child.wait_with_output().expect("it ends")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether files of some size lie in the staging directory.
fn grows(sample: &Sample) -> bool {
    let files = fixtures::listing(&sample.path(PARTIAL));
    files.iter().any(|file| file.extension().is_some())
}

/// Waits until the run writes, and lets it stand still there.
fn stop_in_the_middle(sample: &Sample, child: &mut Child) {
    let begun = Instant::now();
    while !grows(sample) {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "it ended too early: {ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(60), "it never began");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(send(child, Signal::STOP));
}

fn nothing_hidden(room: &Path) {
    for entry in std::fs::read_dir(room).expect("a directory") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        assert!(!name.starts_with('.'), "{name} is left");
    }
}

/// The lock of a run on another machine, as it would lie there.
fn foreign(sample: &Sample) -> String {
    let text = r#"{"token":"00ff","command":"reshard","host":"elsewhere","process":77,"since":1,"born":5,"boot":"b","numbers":"n"}"#;
    std::fs::write(sample.path(LOCK), text).expect("a lock");
    text.to_owned()
}

// proves P33
#[test]
fn second_run_is_refused_and_told_who_is_there() {
    let sample = sample(8);
    let mut first = start(&sample, RESHARD);
    stop_in_the_middle(&sample, &mut first);
    for line in [
        RESHARD.to_owned(),
        format!("{RESHARD} --resume"),
        format!("{RESHARD} --overwrite"),
        "unify --src @src --src-strategy @four.ckpt --dst @out".to_owned(),
        "convert @src --dst @out --to ckpt".to_owned(),
        "split --src @full --dst @out --dst-strategy @two.ckpt".to_owned(),
    ] {
        let second = end(start(&sample, &line));
        let told = words(&second);
        assert_eq!(second.status.code(), Some(1), "{line}: {told}");
        let who = format!(
            "another run is writing here: reshard, process {}",
            first.id()
        );
        assert!(told.contains(&who), "{line}: {told}");
        assert!(told.contains("UTC; its last sign of life is"), "{told}");
    }
    assert!(
        end(start(&sample, &format!("{RESHARD} --dry-run")))
            .status
            .success()
    );
    send(&first, Signal::CONT);
    let first = end(first);
    assert!(first.status.success(), "{}", words(&first));
    sample.check("out", &sample.two, &sample.whole);
    nothing_hidden(sample.room.path());
}

// proves P34
#[test]
fn dead_run_of_this_machine_is_taken_over_at_once() {
    for resume in ["", " --resume"] {
        let sample = sample(8);
        let mut first = start(&sample, RESHARD);
        stop_in_the_middle(&sample, &mut first);
        send(&first, Signal::KILL);
        end(first);
        assert!(sample.path(LOCK).exists());
        let second = end(start(&sample, &format!("{RESHARD}{resume}")));
        let told = words(&second);
        assert!(second.status.success(), "{told}");
        assert!(
            told.contains("takes over from a run that is dead"),
            "{told}"
        );
        sample.check("out", &sample.two, &sample.whole);
        nothing_hidden(sample.room.path());
    }
}

// proves P35
#[test]
fn run_elsewhere_is_watched_before_it_is_taken_for_dead() {
    let sample = sample(1);
    let text = foreign(&sample);
    let second = end(start_with(
        &sample,
        RESHARD,
        &[("SHARDLOOM_LOCK_SECONDS", "1")],
    ));
    let told = words(&second);
    assert!(second.status.success(), "{told}");
    assert!(told.contains("waits up to 1 s"), "{told}");
    assert!(told.contains("it gave no sign of life"), "{told}");
    sample.check("out", &sample.two, &sample.whole);

    foreign(&sample);
    let line = format!("{RESHARD} --overwrite");
    let mut second = start_with(&sample, &line, &[("SHARDLOOM_LOCK_SECONDS", "20")]);
    let begun = Instant::now();
    while second.try_wait().expect("a child").is_none() {
        let file = std::fs::File::options().write(true).open(sample.path(LOCK));
        let touched = file.and_then(|file| file.set_modified(std::time::SystemTime::now()));
        touched.expect("a lock");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() < Duration::from_secs(15));
    let second = end(second);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        words(&second).contains("process 77 on elsewhere"),
        "{}",
        words(&second)
    );
    let left = std::fs::read_to_string(sample.path(LOCK)).expect("a lock");
    assert_eq!(left, text);
}

// proves P36
#[test]
fn run_that_has_lost_its_place_puts_nothing_there() {
    let sample = sample(8);
    let mut first = start(&sample, RESHARD);
    stop_in_the_middle(&sample, &mut first);
    let partial = sample.path(PARTIAL);
    std::fs::rename(&partial, sample.path("aside")).expect("taken aside");
    foreign(&sample);
    let owner = partial.join(".shardloom-journal/owner");
    std::fs::create_dir_all(owner.parent().expect("a parent")).expect("a directory");
    std::fs::write(&owner, "00ff").expect("an owner");
    std::fs::write(partial.join("theirs"), "half").expect("a file");
    send(&first, Signal::CONT);
    let first = end(first);
    assert_eq!(first.status.code(), Some(1), "{}", words(&first));
    assert!(!sample.path("out").exists());
    assert!(partial.join("theirs").exists(), "{}", words(&first));
    assert!(sample.path(LOCK).exists());

    // With the lock its own, but the files another's.
    std::fs::remove_dir_all(&partial).expect("a directory");
    std::fs::remove_file(sample.path(LOCK)).expect("a lock");
    let mut first = start(&sample, RESHARD);
    stop_in_the_middle(&sample, &mut first);
    let owner = partial.join(".shardloom-journal/owner");
    std::fs::write(&owner, "00ff").expect("an owner");
    send(&first, Signal::CONT);
    let first = end(first);
    assert_eq!(first.status.code(), Some(1), "{}", words(&first));
    assert!(words(&first).contains("another run's"), "{}", words(&first));
    assert!(!sample.path("out").exists() && partial.exists());
}

// proves P37
#[test]
fn launcher_of_another_mpi_is_noticed() {
    let sample = sample(1);
    let of = |number: &'static str| {
        [
            ("PMI_SIZE", "4"),
            ("PMI_RANK", number),
            ("OMPI_MCA_ess_singleton_isolated", "1"),
        ]
    };
    let first = end(start_with(&sample, RESHARD, &of("0")));
    let told = words(&first);
    assert_eq!(first.status.code(), Some(1), "{told}");
    assert!(told.contains("has started 4 processes"), "{told}");
    assert!(told.contains("--alone"), "{told}");
    let other = end(start_with(&sample, RESHARD, &of("3")));
    assert_eq!(other.status.code(), Some(1));
    assert_eq!(words(&other), "");
    assert!(!sample.path("out").exists());
    let alone = end(start_with(&sample, &format!("{RESHARD} --alone"), &of("0")));
    assert!(alone.status.success(), "{}", words(&alone));
    let batch = [("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")];
    let line = format!("{RESHARD} --overwrite");
    let script = end(start_with(&sample, &line, &batch));
    assert!(script.status.success(), "{}", words(&script));
    let args = sample.args(&line);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_shardloom"));
    support::mpirun(1, program, &args, &[]).succeeds();
}

// proves P38
#[test]
fn programs_of_several_versions_are_noticed() {
    let sample = sample(1);
    let program = env!("CARGO_BIN_EXE_shardloom");
    let mut bytes = std::fs::read(program).expect("the program");
    let own = env!("CARGO_PKG_VERSION").as_bytes();
    let mut other = own.to_vec();
    other[0] = b'9';
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(own.len()).position(|part| part == own) {
        at += found + own.len();
        bytes[at - own.len()..at].copy_from_slice(&other);
    }
    let patched = sample.path("shardloom-9");
    std::fs::write(&patched, bytes).expect("written");
    std::fs::set_permissions(&patched, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let args = sample.args(RESHARD);
    let mut launcher = support::launcher(1);
    launcher.arg(program).args(&args).args([":", "-n", "1"]);
    let refused = support::run({
        launcher.arg(&patched).args(&args);
        launcher
    });
    assert!(!refused.status.success(), "{refused:#?}");
    let other = String::from_utf8_lossy(&other).into_owned();
    for version in [env!("CARGO_PKG_VERSION"), other.as_str()] {
        let told = format!("version {version}");
        assert!(refused.stderr.contains(&told), "{told}: {refused:#?}");
    }
    assert!(!sample.path("out").exists());
    nothing_hidden(sample.room.path());
}
