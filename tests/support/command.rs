//! Runs the program and looks at how it ended.

use super::sample::Sample;
use crate::support::{self, Run};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Reshards the sample from four ranks to two.
pub(crate) const RESHARD: &str =
    "reshard --src @src --src-strategy @four.ckpt --dst @out --dst-strategy @two.ckpt";

/// The program that is tested: that of these sources, or `$SHARDLOOM_PROGRAM`, as a package has it.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let packed = std::env::var_os("SHARDLOOM_PROGRAM").map(PathBuf::from);
        let program = packed.unwrap_or_else(|| env!("CARGO_BIN_EXE_shardloom").into());
        assert!(program.is_absolute(), "{}: a whole path", program.display());
        program
    })
}

pub(crate) fn alone<S: AsRef<str>>(args: &[S]) -> Run {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    support::alone(program(), &args, &[])
}

pub(crate) fn under_mpi<S: AsRef<str>>(processes: u32, args: &[S]) -> Run {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    support::mpirun(processes, program(), &args, &[])
}

/// With one process, or so many under MPI.
pub(crate) fn on<S: AsRef<str>>(processes: u32, args: &[S]) -> Run {
    match processes {
        1 => alone(args),
        _ => under_mpi(processes, args),
    }
}

/// The one line of `run` that starts with `error:`.
#[track_caller]
pub(crate) fn error_line(run: &Run) -> &str {
    let lines = run.stderr.lines();
    let lines: Vec<&str> = lines.filter(|line| line.starts_with("error:")).collect();
    assert_eq!(lines.len(), 1, "one error line is due: {run:#?}");
    lines[0]
}

/// `run` ended with 1 and named `culprit`.
#[track_caller]
pub(crate) fn refuses(run: &Run, culprit: &str) {
    assert_eq!(run.status.code(), Some(1), "{run:#?}");
    assert!(
        error_line(run).contains(culprit),
        "{culprit} is not named: {run:#?}"
    );
}

/// The one JSON object that `run` printed.
#[track_caller]
pub(crate) fn object(run: &Run) -> Value {
    let mut values = serde_json::Deserializer::from_str(&run.stdout).into_iter::<Value>();
    let first = values.next().and_then(Result::ok);
    let value = first.unwrap_or_else(|| unreachable!("no JSON: {run:#?}"));
    assert!(values.next().is_none(), "more than one object: {run:#?}");
    assert!(value.is_object(), "{value}");
    value
}

/// Nothing stands at `out` or was left beside it.
#[track_caller]
pub(crate) fn nothing_written(sample: &Sample) {
    for name in ["out", ".out.shardloom-partial"] {
        assert!(!sample.path(name).exists(), "{name} was left");
    }
}
