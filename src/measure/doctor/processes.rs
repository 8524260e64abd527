//! MPI, its ways between processes, versions and clocks.

use super::finding::Finding;
use super::system::{Machine, Seat};
use crate::exchange::{Topology, World, all_gather, barrier};
use crate::fault::Result;
use crate::fault::plain::counted;
use crate::host::build;
use std::time::SystemTime;

const TOPIC: &str = "mpi";
/// Difference of two nodes' clocks, in milliseconds, that the heartbeat of a lock or a file's time
/// doesn't suffer from.
const CLOCK_MILLIS: u64 = 1_000;
/// The same from which a live run may be taken for a dead one.
const CLOCK_WRONG_MILLIS: u64 = 30_000;
/// The capability with which one process may read another's memory.
const CAP_SYS_PTRACE: u32 = 19;

/// The library and the ways between processes. Local.
pub(super) fn checks(machine: &Machine, seat: &Seat) -> Vec<Finding> {
    let mut found = vec![library(seat)];
    if seat.neighbours > 1 {
        found.push(memory_of_others(machine));
    }
    if seat.nodes > 1 {
        found.push(network(machine));
    }
    found
        .into_iter()
        .map(|finding| finding.on(&seat.node))
        .collect()
}

fn library(seat: &Seat) -> Finding {
    if !cfg!(feature = "mpi") {
        let found = "this build knows no MPI: it is one process";
        return Finding::odd(
            TOPIC,
            found,
            "cargo build --release, with MPI's mpicc on PATH",
        );
    }
    let found = format!(
        "{}: {} on {}",
        seat.library,
        counted(seat.processes, "process"),
        counted(seat.nodes, "node")
    );
    if seat.processes == 1 {
        let advice =
            "one process only: start it with mpirun -n N to see how processes work together";
        return Finding::odd(TOPIC, found, advice);
    }
    Finding::right(TOPIC, found)
}

/// Whether processes of a node can read each other's memory, which saves a copy of long messages.
fn memory_of_others(machine: &Machine) -> Finding {
    let scope = (machine.text)("/proc/sys/kernel/yama/ptrace_scope");
    let scope = scope.and_then(|text| text.trim().parse::<u32>().ok());
    let status = (machine.text)("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let capable = field("CapEff:")
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .is_some_and(|mask| mask >> CAP_SYS_PTRACE & 1 == 1);
    let filtered = field("Seccomp:") == Some("2");
    let slow = "long messages within a node are copied twice";
    if scope.unwrap_or(0) > 0 && !capable {
        let found = format!("processes may not read each other's memory (yama): {slow}");
        return Finding::odd(TOPIC, found, "sysctl kernel.yama.ptrace_scope=0");
    }
    if filtered && !capable {
        let found = format!("the container may forbid reading another's memory: {slow}");
        return Finding::odd(TOPIC, found, "run it with --cap-add SYS_PTRACE");
    }
    Finding::right(
        TOPIC,
        "processes of a node can read each other's memory (CMA)",
    )
}

/// The networks between nodes.
fn network(machine: &Machine) -> Finding {
    let names = [
        "UCX_TLS",
        "UCX_NET_DEVICES",
        "OMPI_MCA_pml",
        "OMPI_MCA_btl",
        "FI_PROVIDER",
    ];
    let chosen: Vec<String> = names
        .iter()
        .filter_map(|name| Some(format!("{name}={}", (machine.variable)(name)?)))
        .collect();
    let routes = (machine.text)("/proc/net/dev").unwrap_or_default();
    let mut interfaces: Vec<&str> = routes
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
        .filter(|name| *name != "lo")
        .collect();
    interfaces.sort_unstable();
    let speeds: Vec<String> = interfaces
        .iter()
        .map(|name| {
            let speed = (machine.text)(&format!("/sys/class/net/{name}/speed"));
            match speed.and_then(|speed| speed.trim().parse::<u64>().ok()) {
                Some(speed) => format!("{name} ({speed} Mbit/s)"),
                None => (*name).to_owned(),
            }
        })
        .collect();
    let mut found = format!("interfaces: {}", speeds.join(", "));
    if !chosen.is_empty() {
        found.push_str(&format!("; set: {}", chosen.join(" ")));
    }
    if interfaces.is_empty() {
        return Finding::wrong(
            TOPIC,
            "no network interface",
            "nodes can't reach each other",
        );
    }
    if interfaces.len() > 2 && chosen.is_empty() {
        let advice = "if runs between nodes hang or are slow, say which network is meant: \
                      OMPI_MCA_btl_tcp_if_include=NAME, UCX_NET_DEVICES=NAME";
        return Finding::odd(TOPIC, found, advice);
    }
    Finding::right(TOPIC, found)
}

/// Whether all nodes run the same program with the same library. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn alike(world: &World, topology: &Topology) -> Result<Vec<Finding>> {
    let mine = format!("shardloom {}, {}", build::version(), World::library());
    let all = all_gather(world, &mine)?;
    let Some(first) = all.first() else {
        return Ok(Vec::new());
    };
    let other = all.iter().position(|other| other != first);
    Ok(match other {
        None => vec![Finding::right(TOPIC, format!("{first} everywhere"))],
        Some(process) => {
            let node = topology
                .node_of
                .get(process)
                .and_then(|node| topology.hostnames.get(*node as usize));
            let found = format!(
                "{first} here, {} on {}",
                all.get(process).map_or("", String::as_str),
                node.map_or("another node", String::as_str)
            );
            let advice = "install the same version on all nodes";
            vec![Finding::wrong(TOPIC, found, advice)]
        }
    })
}

/// How far the nodes' clocks are apart. Collective.
///
/// # Errors
/// [`crate::fault::Kind::Mpi`].
pub(super) fn clocks(world: &World, topology: &Topology) -> Result<Vec<Finding>> {
    // Once more, so that nobody has just waited for the others to start.
    barrier(world)?;
    barrier(world)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let all = all_gather(world, &millis)?;
    if topology.nodes.len() < 2 {
        return Ok(Vec::new());
    }
    Ok(vec![apart(&all, topology)])
}

fn apart(millis: &[u64], topology: &Topology) -> Finding {
    const CLOCKS: &str = "clocks";
    let node = |process: usize| {
        let node = topology.node_of.get(process);
        let name = node.and_then(|node| topology.hostnames.get(*node as usize));
        name.cloned().unwrap_or_default()
    };
    let processes = || millis.iter().enumerate();
    let (Some((early, least)), Some((late, most))) = (
        processes().min_by_key(|(_, time)| **time),
        processes().max_by_key(|(_, time)| **time),
    ) else {
        return Finding::right(CLOCKS, "none");
    };
    let difference = most - least;
    let found = format!(
        "at most {difference} ms apart ({} and {})",
        node(early),
        node(late)
    );
    let advice = "let chrony or ntpd set them: locks and the times of files depend on clocks";
    match difference {
        0..CLOCK_MILLIS => Finding::right(CLOCKS, "less than a second apart"),
        CLOCK_MILLIS..CLOCK_WRONG_MILLIS => Finding::odd(CLOCKS, found, advice),
        _ => Finding::wrong(CLOCKS, found, advice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn with(texts: &'static [(&str, &str)]) -> Machine {
        let text = |path: &str| {
            let found = texts.iter().find(|(known, _)| *known == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        Machine {
            text: Box::new(text),
            ..Machine::sound()
        }
    }

    #[test]
    fn forbidden_reading_is_odd() {
        let state = |machine: &Machine| memory_of_others(machine).state;
        assert_eq!(
            state(&with(&[("/proc/sys/kernel/yama/ptrace_scope", "1")])),
            State::Odd
        );
        assert_eq!(state(&with(&[])), State::Right);
        assert_eq!(
            state(&with(&[(
                "/proc/self/status",
                "CapEff:\t0000000000000000\nSeccomp:\t2\n"
            )])),
            State::Odd
        );
        assert_eq!(
            state(&with(&[(
                "/proc/self/status",
                "CapEff:\t0000000000080000\nSeccomp:\t2\n"
            )])),
            State::Right
        );
    }

    #[test]
    fn clocks_that_differ_are_named() {
        let topology = Topology {
            node_of: vec![0, 1],
            nodes: vec![vec![0], vec![1]],
            hostnames: vec!["a".to_owned(), "b".to_owned()],
        };
        assert_eq!(apart(&[5, 900], &topology).state, State::Right);
        let odd = apart(&[5, 3_000], &topology);
        assert_eq!(odd.state, State::Odd);
        assert!(
            odd.found.contains("2995 ms apart (a and b)"),
            "{}",
            odd.found
        );
        assert_eq!(apart(&[99_000, 5], &topology).state, State::Wrong);
    }

    #[test]
    fn several_networks_are_told() {
        let machine = with(&[(
            "/proc/net/dev",
            "Inter-|\n face |\n    lo: 1\n  eth0: 1\n   ib0: 2\n docker0: 1\n",
        )]);
        let found = network(&machine);
        assert_eq!(found.state, State::Odd);
        assert_eq!(found.found, "interfaces: docker0, eth0, ib0");
    }
}
