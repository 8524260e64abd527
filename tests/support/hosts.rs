//! Three hosts with disks of their own, on this machine (`hosts.sh`).

use crate::support::command::program;
use crate::support::{self, Run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How many there are.
pub(crate) const HOSTS: usize = 3;

/// The hosts of one test: their disks are directories of its room.
pub(crate) struct Hosts {
    room: PathBuf,
}

impl Hosts {
    /// None, with a word, where namespaces are refused.
    pub(crate) fn new(room: &Path) -> Option<Hosts> {
        let room = room.join("hosts");
        let mut command = script("probe");
        command.arg(&room);
        let output = command.output().expect("bash starts");
        if output.status.success() {
            return Some(Hosts { room });
        }
        let why = String::from_utf8_lossy(&output.stderr);
        println!("skipped: no namespaces here: {}", why.trim());
        None
    }

    /// The local disk of host `host` (1 to 3), as seen from outside.
    pub(crate) fn disk(&self, host: usize) -> PathBuf {
        self.room.join(format!("disk{host}"))
    }

    /// Where each host sees its own disk.
    pub(crate) fn local(&self, name: &str) -> String {
        self.room.join("local").join(name).display().to_string()
    }

    /// Copies a file or directory to a host's disk.
    pub(crate) fn give(&self, host: usize, from: &Path, name: &str) {
        let to = self.disk(host).join(name);
        std::fs::create_dir_all(to.parent().expect("a parent")).expect("make a directory");
        let mut copy = Command::new("cp");
        let copied = copy.arg("-r").args([from, &to]).status().expect("cp");
        assert!(copied.success());
    }

    /// Runs the program with so many processes a host; every `@name` of the line is on the local disk.
    pub(crate) fn run(&self, per_host: u32, line: &str) -> Run {
        self.run_with(per_host, line, &[])
    }

    /// The same on a slow network, which host 2 loses after so many seconds.
    pub(crate) fn run_and_cut(&self, per_host: u32, line: &str, seconds: u32) -> Run {
        self.run_with(per_host, line, &[("HOSTS_CUT", seconds.to_string())])
    }

    /// The same with these variables.
    pub(crate) fn run_with(
        &self,
        per_host: u32,
        line: &str,
        environment: &[(&str, String)],
    ) -> Run {
        let word = |word: &str| {
            let local = word.strip_prefix('@').map(|name| self.local(name));
            local.unwrap_or_else(|| word.to_owned())
        };
        let mut command = script("run");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.arg(&self.room).arg(per_host.to_string());
        command.arg(program());
        command.args(line.split_whitespace().map(word));
        support::run(command)
    }

    /// Bytes that the hosts received in the last run, by host.
    pub(crate) fn received(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.room.join("traffic")).expect("the counters");
        let first = |line: &str| line.split(' ').next().and_then(|n| n.parse().ok());
        text.lines()
            .map(|line| first(line).expect("a number"))
            .collect()
    }
}

fn script(mode: &str) -> Command {
    let mut command = Command::new("bash");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/hosts.sh");
    command.arg(path).arg(mode);
    command
}
