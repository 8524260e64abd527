//! Memory: of the machine, of the control group, and what processes share.

use super::finding::Finding;
use super::groups;
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
    let limit = limit(machine);
    let all = limit.map_or(machine.memory, |(limit, _)| limit.min(machine.memory));
    let each = all / seat.neighbours.max(1);
    let what = match limit {
        Some((limit, who)) if limit < machine.memory => {
            format!(
                "{} of the machine's {} ({who})",
                gib(limit),
                gib(machine.memory)
            )
        }
        _ => gib(machine.memory),
    };
    let line = format!("{what}, {} for each process of the node", gib(each));
    let memory = if each < DEFAULT_BYTES * 5 / 4 {
        let share = (each * 3 / 4) >> 20;
        Finding::odd(TOPIC, line, format!("--memory {share}MiB"))
    } else {
        Finding::right(TOPIC, line)
    };
    let mut found = vec![memory, shared(machine, seat)];
    let unlimited = limit.is_none_or(|(limit, _)| limit >= machine.memory);
    if unlimited && machine.has("KUBERNETES_SERVICE_HOST") {
        let advice =
            "resources.limits.memory: a pod without one is ended first where the node runs short";
        found.push(Finding::odd(
            TOPIC,
            "nothing limits the pod's memory",
            advice,
        ));
    }
    found
        .into_iter()
        .map(|finding| finding.on(&seat.node))
        .collect()
}

fn shared(machine: &Machine, seat: &Seat) -> Finding {
    let wanted = SHARED_BYTES * seat.neighbours;
    match machine.shared_memory {
        None if seat.neighbours == 1 => Finding::odd(
            TOPIC,
            "/dev/shm is not there",
            "processes of a node want it: mount a tmpfs there before more are started",
        ),
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

/// What the processes of a node may have together, in bytes, and who says so; none where nobody does. Local.
fn limit(machine: &Machine) -> Option<(u64, &'static str)> {
    let group =
        groups::memory_bytes(&*machine.text).map(|bytes| (bytes, "the control group's limit"));
    let slurm = slurm_bytes(machine).map(|bytes| (bytes, "what Slurm gives"));
    group.into_iter().chain(slurm).min()
}

/// What Slurm gives the job on a node; its numbers are MiB, 0 is all that there is.
fn slurm_bytes(machine: &Machine) -> Option<u64> {
    let mib = machine.number("SLURM_MEM_PER_NODE").or_else(|| {
        let each = machine.number("SLURM_MEM_PER_CPU")?;
        each.checked_mul(machine.number("SLURM_CPUS_ON_NODE")?)
    });
    mib.filter(|mib| *mib > 0)?.checked_mul(1 << 20)
}

/// Bytes of memory that the processes of this node may use together: the machine's, or its control group's. Local.
pub(in crate::measure) fn usable_bytes() -> u64 {
    let limit = groups::memory_bytes(&|path| io::read_text(path).ok());
    io::memory_bytes().min(limit.unwrap_or(u64::MAX))
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
    fn the_least_limit_holds() {
        let texts = |path: &str| match path {
            "/proc/self/cgroup" => Some("0::/pod\n".to_owned()),
            "/sys/fs/cgroup/pod/memory.max" => Some("1073741824\n".to_owned()),
            _ => None,
        };
        let told = |slurm: Option<&'static str>| {
            let variable = move |name: &str| {
                let it = (name == "SLURM_MEM_PER_NODE").then_some(slurm).flatten();
                it.map(str::to_owned)
            };
            let machine = Machine {
                text: Box::new(texts),
                variable: Box::new(variable),
                ..Machine::sound()
            };
            checks(&machine, &Seat::pair())[0].clone()
        };
        let by_group = told(None);
        assert_eq!(by_group.state, State::Odd);
        assert_eq!(by_group.advice.as_deref(), Some("--memory 384MiB"));
        assert!(by_group.found.contains("the control group's limit"));
        assert!(told(Some("512")).found.starts_with("0.5 GiB of"));
        assert!(told(Some("512")).found.contains("what Slurm gives"));
        assert_eq!(told(Some("0")), by_group);
    }

    #[test]
    fn a_pod_without_a_limit_is_odd() {
        let variable = |name: &str| (name == "KUBERNETES_SERVICE_HOST").then(String::new);
        let machine = Machine {
            variable: Box::new(variable),
            ..Machine::sound()
        };
        let found = checks(&machine, &Seat::pair());
        assert_eq!(found.last().unwrap().state, State::Odd);
        assert_eq!(
            found.len(),
            checks(&Machine::sound(), &Seat::pair()).len() + 1
        );
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
