//! Memory: of the machine, of the control group, and what processes share.

use super::finding::Finding;
use super::system::{Machine, Seat};
use crate::store::io;

const TOPIC: &str = "memory";
const GIB: u64 = 1 << 30;
/// What a process may use if `--memory` doesn't say otherwise, in bytes.
const DEFAULT_BYTES: u64 = GIB;
/// Shared memory that MPI libraries use for a process, in bytes.
const SHARED_BYTES: u64 = 16 << 20;

/// Memory, for all processes of a node. Local.
pub(super) fn checks(machine: &Machine, seat: &Seat) -> Vec<Finding> {
    let group = group_limit(&*machine.text);
    let all = group.map_or(machine.memory, |limit| limit.min(machine.memory));
    let each = all / seat.neighbours.max(1);
    let what = match group {
        Some(limit) if limit < machine.memory => format!(
            "{} of the machine's {} (the control group's limit)",
            gib(limit),
            gib(machine.memory)
        ),
        _ => gib(machine.memory),
    };
    let line = format!("{what}, {} for each process of the node", gib(each));
    let memory = if each < DEFAULT_BYTES * 5 / 4 {
        let share = (each * 3 / 4) >> 20;
        Finding::odd(TOPIC, line, format!("--memory {share}MiB"))
    } else {
        Finding::right(TOPIC, line)
    };
    let mut found = vec![memory];
    if seat.neighbours > 1 {
        found.push(shared(machine, seat));
    }
    found
        .into_iter()
        .map(|finding| finding.on(&seat.node))
        .collect()
}

fn shared(machine: &Machine, seat: &Seat) -> Finding {
    let wanted = SHARED_BYTES * seat.neighbours;
    match machine.shared_memory {
        None => Finding::wrong(
            TOPIC,
            "/dev/shm is not there",
            "mount a tmpfs there; in a container: --ipc=host or --shm-size=8g",
        ),
        Some(free) if free < wanted => Finding::wrong(
            TOPIC,
            format!("/dev/shm has room for {} MiB", free >> 20),
            format!(
                "processes of a node talk through it and want {} MiB; in a container: \
                 --shm-size=8g, in Kubernetes: an emptyDir with medium Memory at /dev/shm",
                wanted >> 20
            ),
        ),
        Some(free) => Finding::right(TOPIC, format!("/dev/shm has room for {}", gib(free))),
    }
}

/// Bytes of memory that the processes of this node may use together: the machine's, or its control group's. Local.
pub(in crate::measure) fn usable_bytes() -> u64 {
    let limit = group_limit(&|path| io::read_text(path).ok());
    io::memory_bytes().min(limit.unwrap_or(u64::MAX))
}

/// The limit of the control group that this process is in, in bytes. Local.
fn group_limit(text: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let groups = text("/proc/self/cgroup").unwrap_or_default();
    let second = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let first = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        names
            .split(',')
            .any(|name| name == "memory")
            .then_some(path)
    });
    let mut limits = Vec::new();
    if let Some(path) = second {
        // A group has at most what each group above it has.
        for path in above(path) {
            let file = format!("/sys/fs/cgroup{path}/memory.max");
            limits.extend(number(text, &file));
        }
    }
    if let Some(path) = first {
        for path in above(path) {
            let file = format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes");
            limits.extend(number(text, &file));
        }
    }
    limits.into_iter().min()
}

/// A group's path and those above it: `/a/b`, `/a`, ``.
fn above(path: &str) -> Vec<&str> {
    let path = path.trim_end_matches('/');
    let mut all = vec![path];
    let mut rest = path;
    while let Some((parent, _)) = rest.rsplit_once('/') {
        all.push(parent);
        rest = parent;
    }
    all
}

fn number(text: &dyn Fn(&str) -> Option<String>, path: &str) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

/// Bytes as people read them.
pub(super) fn gib(bytes: u64) -> String {
    let tenths = bytes / (GIB / 10);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn the_least_of_all_groups_holds() {
        let texts = |path: &str| match path {
            "/proc/self/cgroup" => Some("0::/pod/one\n".to_owned()),
            "/sys/fs/cgroup/pod/one/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/pod/memory.max" => Some("1073741824\n".to_owned()),
            _ => None,
        };
        let machine = Machine {
            text: Box::new(texts),
            ..Machine::sound()
        };
        assert_eq!(group_limit(&*machine.text), Some(GIB));
        let found = checks(&machine, &Seat::pair());
        assert_eq!(found[0].state, State::Odd);
        assert_eq!(found[0].advice.as_deref(), Some("--memory 384MiB"));
    }

    #[test]
    fn a_container_s_small_shared_memory_is_wrong() {
        let machine = Machine {
            shared_memory: Some(16 << 20),
            ..Machine::sound()
        };
        let found = checks(&machine, &Seat::pair());
        assert_eq!(found[1].state, State::Wrong);
        let sound = checks(&Machine::sound(), &Seat::pair());
        assert!(sound.iter().all(|finding| finding.state == State::Right));
    }
}
