//! Starts programs under the MPI launcher, with a timeout; beside it what nearly every test file uses.
//!
//! The launcher is `$MPIRUN` (else `mpirun`), with the extra arguments of `$MPIRUN_ARGS`.

pub(crate) mod ckpt;
pub(crate) mod command;
pub(crate) mod compare;
pub(crate) mod composed;
pub(crate) mod deepseek;
pub(crate) mod drawn;
pub(crate) mod expect;
pub(crate) mod fixtures;
pub(crate) mod float;
pub(crate) mod hosts;
pub(crate) mod oracle;
pub(crate) mod parsers;
pub(crate) mod pretend;
pub(crate) mod processes;
pub(crate) mod sample;
pub(crate) mod schema;
pub(crate) mod strategy;
pub(crate) mod tensors;
pub(crate) mod wire;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long a job may take before it is killed and its test fails.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A look at a program that is this late wasn't its fault.
const STANDS_STILL: Duration = Duration::from_millis(500);

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Run {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// All it wrote to its standard output.
    pub(crate) stdout: String,
    /// All it wrote to its standard error.
    pub(crate) stderr: String,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

impl Run {
    /// Fails the test, showing all output, unless the program ended with 0.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert!(self.status.success(), "failed: {self:#?}");
        self
    }

    /// Fails the test, showing all output, if the program ended with 0.
    #[track_caller]
    pub(crate) fn fails(self) -> Self {
        assert!(!self.status.success(), "should have failed: {self:#?}");
        self
    }
}

/// Runs `program` on `processes` MPI processes, with `envs` added to the environment.
///
/// Fails the test if it can't be started or takes longer than [`TIMEOUT`].
#[track_caller]
pub(crate) fn mpirun(processes: u32, program: &Path, args: &[&str], envs: &[(&str, &str)]) -> Run {
    let mut command = launcher(processes);
    command.arg(program).args(args).envs(envs.iter().copied());
    run(command)
}

/// Runs `program` by itself, without the launcher.
#[track_caller]
pub(crate) fn alone(program: &Path, args: &[&str], envs: &[(&str, &str)]) -> Run {
    let mut command = Command::new(program);
    command.args(args).envs(envs.iter().copied());
    run(command)
}

/// The example program `name` of this package, built as the tests are.
///
/// `cargo test` alone builds examples before tests, `cargo test --test all` does not.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("tests are in target/*/deps");
    let mut built = BUILT.lock().expect("no test has failed here");
    if !built.iter().any(|known| known == name) {
        build_example(name, profile);
        built.push(name.to_owned());
    }
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{} has not been built", path.display());
    path
}

fn build_example(name: &str, profile: &Path) {
    let (Some(cargo), Some(target)) = (std::env::var_os("CARGO"), profile.parent()) else {
        return; // not run by cargo
    };
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--offline",
        "--example",
        name,
        "--target-dir",
    ]);
    command.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let output = command.output().expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

/// The launcher with everything before the program.
pub(crate) fn launcher(processes: u32) -> Command {
    let name = launcher_name();
    let mut command = Command::new(&name);
    command.arg("-n").arg(processes.to_string());
    if is_open_mpi(&name) {
        command
            .args(["--oversubscribe", "--bind-to", "none"])
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .env("OMPI_MCA_mpi_yield_when_idle", "1")
            .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
            .env("PRTE_ALLOW_RUN_AS_ROOT", "1")
            .env("PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    if let Ok(extra) = std::env::var("MPIRUN_ARGS") {
        command.args(extra.split_whitespace());
    }
    command
}

fn launcher_name() -> String {
    std::env::var("MPIRUN").unwrap_or_else(|_| "mpirun".to_owned())
}

/// Whether the launcher notices that a host is gone; MPICH's waits for its answer for ever.
pub(crate) fn launcher_watches_hosts() -> bool {
    is_open_mpi(&launcher_name())
}

/// Whether the launcher called `name` is OpenMPI's; MPICH's knows no `--oversubscribe`.
fn is_open_mpi(name: &str) -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let output = Command::new(name)
            .arg("--version")
            .output()
            .unwrap_or_else(|error| panic!("can't start {name}: {error}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ["Open MPI", "OpenRTE", "PRRTE", "prte"]
            .iter()
            .any(|word| text.contains(word))
    })
}

/// Runs `command` to its end; its output goes through files, so no orphan can hold a pipe open.
#[track_caller]
pub(crate) fn run(command: Command) -> Run {
    run_within(command, TIMEOUT)
}

/// The same with another time that it may take.
#[track_caller]
pub(crate) fn run_within(mut command: Command, limit: Duration) -> Run {
    own_settings(&mut command);
    let mut stdout = tempfile::tempfile().expect("temporary file");
    let mut stderr = tempfile::tempfile().expect("temporary file");
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().expect("another handle"))
        .stderr(stderr.try_clone().expect("another handle"))
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
    let status = wait(&mut child, limit);
    let (elapsed, out, err) = (start.elapsed(), text(&mut stdout), text(&mut stderr));
    let Some(status) = status else {
        panic!("{command:?} hangs\nstdout:\n{out}\nstderr:\n{err}");
    };
    Run {
        status,
        stdout: out,
        stderr: err,
        elapsed,
    }
}

/// Keeps what is set on this machine from a test, unless the test names a file.
pub(crate) fn own_settings(command: &mut Command) {
    for (name, value) in [
        ("SHARDLOOM_CONFIG", Some("")),
        ("SHARDLOOM_MEMORY", None),
        ("SHARDLOOM_THREADS", None),
        ("SHARDLOOM_MACHINE", None),
    ] {
        if command.get_envs().any(|(known, _)| known == name) {
            continue;
        }
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// Waits so long for `child`, then ends it and everything it has started, and gives `None`.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    if let Some(status) = wait_for(child, limit) {
        return Some(status);
    }
    let group = Pid::from_child(child);
    ask_where(group);
    // The launcher ends its processes when it is asked to; a killed one could not.
    for signal in [Signal::TERM, Signal::KILL] {
        let _ = kill_process_group(group, signal);
        if wait_for(child, Duration::from_secs(3)).is_some() {
            break;
        }
    }
    None
}

/// Has the programs that this process has started, through others, say where they are.
fn ask_where(first: Pid) {
    let parents: BTreeMap<i32, (i32, String)> = std::fs::read_dir("/proc")
        .expect("a process table")
        .filter_map(|entry| {
            let number = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
            let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
            let parent = rest.split(' ').nth(1)?.parse().ok()?;
            Some((number, (parent, name.to_owned())))
        })
        .collect();
    let above = |number: &i32| parents.get(number).map(|(parent, _)| *parent);
    for (number, (_, name)) in &parents {
        let mut line = std::iter::successors(Some(*number), above);
        if name == "shardloom"
            && line.any(|number| number == first.as_raw_nonzero().get())
            && let Some(pid) = Pid::from_raw(*number)
        {
            let _ = kill_process(pid, Signal::USR1);
        }
    }
    std::thread::sleep(Duration::from_secs(1));
}

/// Waits so long for it; what a machine stood still in between, as virtual ones do, doesn't count.
fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let (mut waited, mut looked) = (Duration::ZERO, Instant::now());
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        waited += looked.elapsed().min(STANDS_STILL);
        looked = Instant::now();
        if waited >= limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}
