//! How the processes were started, and where they may run.

use super::finding::Finding;
use super::groups;
use super::system::{Machine, Seat};
use crate::fault::plain::counted;

const CORES: &str = "cores";
const LAUNCHER: &str = "launcher";
/// Minutes in which a large job hardly ends.
const MINUTES_FEW: u64 = 10;

/// The cores that this process may use. Local.
pub(super) fn binding(machine: &Machine, seat: &Seat) -> Vec<Finding> {
    let status = (machine.text)("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .map(|list| list.trim().to_owned());
    let allowed = list.as_deref().map_or(machine.cores, counted_cores);
    let online = (machine.text)("/sys/devices/system/cpu/online")
        .map_or(allowed, |online| counted_cores(online.trim()));
    let found = format!("a process may run on {allowed} of {online} cores");
    let cores = if seat.neighbours > online {
        // Which cores is of no interest where all are used in turn.
        Finding::odd(
            CORES,
            format!("{} processes share {online} cores", seat.neighbours),
            "they take turns: one process a device, or fewer, is faster",
        )
    } else if allowed == 1 && online > seat.neighbours {
        Finding::odd(
            CORES,
            format!("{found}: its threads wait for each other"),
            "mpirun --bind-to none (Open MPI, for up to two processes), srun --cpus-per-task",
        )
    } else if allowed == online {
        Finding::right(
            CORES,
            format!("every process may run on all {online} cores"),
        )
    } else {
        let list = list.unwrap_or_default();
        Finding::right(CORES, format!("{found}: {list}"))
    };
    let time = time_of_cores(machine, seat, allowed);
    let all = std::iter::once(cores).chain(time);
    all.map(|finding| finding.on(&seat.node)).collect()
}

/// The time of cores that all processes of the node get together, where it is less than the cores have.
fn time_of_cores(machine: &Machine, seat: &Seat, allowed: u64) -> Option<Finding> {
    let hundredths =
        groups::core_hundredths(&*machine.text).filter(|given| *given < allowed * 100)?;
    let given = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let found = format!("the control group gives the time of {given} of {allowed} cores");
    if seat.neighbours * 100 <= hundredths {
        return Some(Finding::right(CORES, found));
    }
    let found = format!("{found} to {}", counted(seat.neighbours, "process"));
    let advice =
        "raise it (Kubernetes: resources.limits.cpu, docker: --cpus), or start fewer processes";
    Some(Finding::odd(CORES, found, advice))
}

/// How many cores a list like `0-3,8` has.
fn counted_cores(list: &str) -> u64 {
    let counts = list.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    });
    counts.sum::<u64>().max(1)
}

/// The launcher, the batch system and the container. Local.
pub(super) fn checks(machine: &Machine, seat: &Seat) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(slurm(machine, seat));
    found.extend(kubernetes(machine));
    found.extend(container(machine, seat));
    found
        .into_iter()
        .map(|finding| finding.on(&seat.node))
        .collect()
}

fn slurm(machine: &Machine, seat: &Seat) -> Vec<Finding> {
    let Some(job) = (machine.variable)("SLURM_JOB_ID") else {
        return Vec::new();
    };
    let of_step = |step: &str, job: &str| machine.number(step).or_else(|| machine.number(job));
    let (tasks, nodes) = (
        of_step("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
        of_step("SLURM_STEP_NUM_NODES", "SLURM_JOB_NUM_NODES"),
    );
    let how = (machine.variable)("SLURM_MPI_TYPE");
    let how = how.map_or_else(String::new, |how| format!(", --mpi={how}"));
    let started = if tasks.is_some_and(|tasks| tasks != seat.processes) {
        let tasks = tasks.unwrap_or_default();
        let found = format!(
            "Slurm's job {job} has {tasks} tasks{how}, {} run",
            counted(seat.processes, "process")
        );
        let advice = "srun --mpi=pmix (or pmi2) starts as many as the job has; mpirun -n says another number";
        Finding::odd(LAUNCHER, found, advice)
    } else if nodes.is_some_and(|nodes| nodes != seat.nodes) {
        let found = format!(
            "Slurm's job {job} has {}{how}, processes run on {}",
            counted(nodes.unwrap_or_default(), "node"),
            seat.nodes
        );
        let advice =
            "srun --ntasks-per-node=N puts some on each: more disks and networks work then";
        Finding::odd(LAUNCHER, found, advice)
    } else {
        Finding::right(LAUNCHER, format!("Slurm's job {job}{how}"))
    };
    let ends = machine.number("SLURM_JOB_END_TIME").map(|end| {
        let minutes = end.saturating_sub(machine.now) / 60;
        let found = format!("Slurm ends the job in {}", counted(minutes, "minute"));
        match minutes < MINUTES_FEW {
            true => {
                let advice = "scontrol update TimeLimit, or a new job; a run that is ended goes on with --resume";
                Finding::odd(LAUNCHER, found, advice)
            }
            false => Finding::right(LAUNCHER, found),
        }
    });
    std::iter::once(started).chain(ends).collect()
}

fn kubernetes(machine: &Machine) -> Option<Finding> {
    machine.has("KUBERNETES_SERVICE_HOST").then(|| {
        let by_job = machine.has("OMPI_MCA_orte_keep_fqdn_hostnames")
            || machine.has("OMPI_MCA_orte_default_hostfile")
            || (machine.text)("/etc/mpi/hostfile").is_some();
        let how = if by_job { ", started by an MPIJob" } else { "" };
        Finding::right(LAUNCHER, format!("Kubernetes{how}"))
    })
}

/// Whether this runs in a container. Local.
pub(super) fn in_container(machine: &Machine) -> bool {
    let variables = [
        "container",
        "KUBERNETES_SERVICE_HOST",
        "APPTAINER_CONTAINER",
        "SINGULARITY_CONTAINER",
    ];
    let marks = ["/.dockerenv", "/run/.containerenv"];
    let groups = ["/proc/1/cgroup", "/proc/self/cgroup"];
    let words = ["docker", "kubepods", "containerd", "libpod", "lxc"];
    variables.iter().any(|name| machine.has(name))
        || marks.iter().any(|path| (machine.text)(path).is_some())
        || groups.iter().any(|path| {
            let text = (machine.text)(path).unwrap_or_default();
            words.iter().any(|word| text.contains(word))
        })
}

fn container(machine: &Machine, seat: &Seat) -> Option<Finding> {
    let inside = in_container(machine);
    let open_mpi = seat.library.contains("Open MPI");
    let allowed = machine.has("OMPI_ALLOW_RUN_AS_ROOT") || machine.has("PRTE_ALLOW_RUN_AS_ROOT");
    match (machine.root, inside) {
        (true, _) if open_mpi && !allowed => Some(Finding::odd(
            LAUNCHER,
            "runs as root",
            "Open MPI's mpirun refuses that unless OMPI_ALLOW_RUN_AS_ROOT=1 and \
             OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 are set",
        )),
        (true, true) => Some(Finding::right(LAUNCHER, "runs as root in a container")),
        (true, false) => Some(Finding::right(LAUNCHER, "runs as root")),
        (false, true) => Some(Finding::right(LAUNCHER, "runs in a container")),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn with(online: &'static str, allowed: &'static str, time: &'static str) -> Machine {
        let texts = move |path: &str| match path {
            "/sys/devices/system/cpu/online" => Some(online.to_owned()),
            "/proc/self/status" => Some(format!("Cpus_allowed_list:\t{allowed}\n")),
            "/proc/self/cgroup" => Some("0::/\n".to_owned()),
            "/sys/fs/cgroup/cpu.max" => Some(time.to_owned()),
            _ => None,
        };
        Machine {
            text: Box::new(texts),
            ..Machine::sound()
        }
    }

    #[test]
    fn cores_are_counted() {
        assert_eq!(counted_cores("0-3,8"), 5);
        assert_eq!(counted_cores("nonsense"), 1);
    }

    #[test]
    fn a_process_bound_to_one_core_is_odd() {
        let states = |online, allowed| {
            let found = binding(&with(online, allowed, "max 100000"), &Seat::pair());
            found
                .into_iter()
                .map(|finding| finding.state)
                .collect::<Vec<_>>()
        };
        assert_eq!(states("0-7", "3"), [State::Odd]);
        assert_eq!(states("0-7", "0-7"), [State::Right]);
        assert_eq!(states("0-7", "0-3"), [State::Right]);
        assert_eq!(states("0", "0"), [State::Odd]);
    }

    #[test]
    fn the_time_of_cores_is_shared_out() {
        let found = |time| binding(&with("0-7", "0-7", time), &Seat::pair());
        let few = found("150000 100000");
        assert_eq!((few.len(), few[1].state), (2, State::Odd));
        assert!(few[1].found.contains("1.50 of 8 cores to 2 processes"));
        assert_eq!(found("400000 100000")[1].state, State::Right);
        assert_eq!(found("800000 100000").len(), 1);
    }

    fn in_slurm(set: &'static [(&str, &str)]) -> Vec<Finding> {
        let variable = move |name: &str| {
            let all = [("SLURM_JOB_ID", "7")];
            let mut all = all.iter().chain(set);
            let (_, value) = all.find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        };
        let machine = Machine {
            variable: Box::new(variable),
            ..Machine::sound()
        };
        checks(&machine, &Seat::pair())
    }

    #[test]
    fn the_batch_system_is_compared() {
        let tasks = in_slurm(&[("SLURM_NTASKS", "16"), ("SLURM_MPI_TYPE", "none")]);
        assert_eq!(tasks[0].state, State::Odd);
        assert!(
            tasks[0]
                .found
                .contains("16 tasks, --mpi=none, 2 processes run")
        );
        let nodes = in_slurm(&[("SLURM_NTASKS", "2"), ("SLURM_JOB_NUM_NODES", "2")]);
        assert!(nodes[0].found.contains("2 nodes, processes run on 1"));
        let right = in_slurm(&[("SLURM_NTASKS", "2"), ("SLURM_JOB_END_TIME", "1003600")]);
        assert!(right.iter().all(|finding| finding.state == State::Right));
        assert_eq!(right[1].found, "Slurm ends the job in 60 minutes");
        let late = in_slurm(&[("SLURM_NTASKS", "2"), ("SLURM_JOB_END_TIME", "1000060")]);
        assert_eq!(late[1].state, State::Odd);
    }

    #[test]
    fn containers_have_marks() {
        let marked = Machine {
            text: Box::new(|path| (path == "/run/.containerenv").then(String::new)),
            ..Machine::sound()
        };
        assert!(in_container(&marked) && !in_container(&Machine::sound()));
    }
}
