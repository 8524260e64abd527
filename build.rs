//! Lets a release build know which commit it is of. A development build isn't told: every commit would build all of
//! it again.

#![allow(
    clippy::print_stdout,
    reason = "this is how cargo is told what was found"
)]

use std::path::Path;
use std::process::Command;

/// Digits of a commit that tell it from others.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    // Of a directory without its history nothing is known.
    let Some(commit) = git(&["rev-parse", "HEAD"]) else {
        return;
    };
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file]).unwrap_or_default();
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit: String = commit.chars().take(DIGITS).collect();
    println!("cargo::rustc-env=SHARDLOOM_COMMIT={commit}");
}

/// What git says of the repository that these sources lie in.
fn git(words: &[&str]) -> Option<String> {
    let sources = env!("CARGO_MANIFEST_DIR");
    // A repository further up is another's.
    let inside = Path::new(sources).join(".git").exists();
    let mut command = Command::new("git");
    let output = command.arg("-C").arg(sources).args(words).output().ok()?;
    let told = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (inside && output.status.success() && !told.is_empty()).then_some(told)
}
