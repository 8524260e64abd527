//! How the processes were started, and where they may run.

use super::finding::Finding;
use super::system::{Machine, Seat};

const CORES: &str = "cores";
const LAUNCHER: &str = "launcher";

/// The cores that this process may use. Local.
pub(super) fn binding(machine: &Machine, seat: &Seat) -> Option<Finding> {
    let status = (machine.text)("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .map(|list| list.trim().to_owned());
    let list = list.unwrap_or_else(|| machine.cores.to_string());
    let online = (machine.text)("/sys/devices/system/cpu/online")
        .map_or(machine.cores, |online| counted_cores(online.trim()));
    let found = format!("a process may run on {} of {online} cores", machine.cores);
    let finding = if seat.neighbours > online {
        // Which cores is of no interest where all are used in turn.
        Finding::odd(
            CORES,
            format!("{} processes share {online} cores", seat.neighbours),
            "they take turns: one process a device, or fewer, is faster",
        )
    } else if machine.cores == 1 && online > seat.neighbours {
        Finding::odd(
            CORES,
            format!("{found}: its threads wait for each other"),
            "mpirun --bind-to none (Open MPI, for up to two processes), srun --cpus-per-task",
        )
    } else if machine.cores == online {
        Finding::right(
            CORES,
            format!("every process may run on all {online} cores"),
        )
    } else {
        Finding::right(CORES, format!("{found}: {list}"))
    };
    Some(finding.on(&seat.node))
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

fn slurm(machine: &Machine, seat: &Seat) -> Option<Finding> {
    let job = (machine.variable)("SLURM_JOB_ID")?;
    let tasks = machine
        .number("SLURM_STEP_NUM_TASKS")
        .or_else(|| machine.number("SLURM_NTASKS"));
    Some(match tasks {
        Some(tasks) if tasks != seat.processes => Finding::odd(
            LAUNCHER,
            format!(
                "Slurm's job {job} has {tasks} tasks, {} processes run",
                seat.processes
            ),
            "srun --mpi=pmix (or pmi2) starts as many as the job has; mpirun -n says another number",
        ),
        _ => Finding::right(LAUNCHER, format!("Slurm's job {job}")),
    })
}

fn kubernetes(machine: &Machine) -> Option<Finding> {
    machine.has("KUBERNETES_SERVICE_HOST").then(|| {
        let slots = machine
            .number("OMPI_MCA_orte_keep_fqdn_hostnames")
            .is_some()
            || machine.has("OMPI_MCA_orte_default_hostfile");
        let how = if slots { ", started by an MPIJob" } else { "" };
        Finding::right(LAUNCHER, format!("Kubernetes{how}"))
    })
}

fn container(machine: &Machine, seat: &Seat) -> Option<Finding> {
    let marks = ["/proc/1/cgroup", "/proc/self/cgroup"];
    let words = ["docker", "kubepods", "containerd", "libpod", "lxc"];
    let inside = machine.has("container")
        || machine.has("KUBERNETES_SERVICE_HOST")
        || marks.iter().any(|path| {
            let text = (machine.text)(path).unwrap_or_default();
            words.iter().any(|word| text.contains(word))
        });
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

    fn with(online: &'static str, cores: u64) -> Machine {
        let texts = move |path: &str| match path {
            "/sys/devices/system/cpu/online" => Some(online.to_owned()),
            "/proc/self/status" => Some("Cpus_allowed_list:\t0\n".to_owned()),
            _ => None,
        };
        Machine {
            text: Box::new(texts),
            cores,
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
        let state = |machine: &Machine| binding(machine, &Seat::pair()).unwrap().state;
        assert_eq!(state(&with("0-7", 1)), State::Odd);
        assert_eq!(state(&with("0-7", 8)), State::Right);
        assert_eq!(state(&with("0-7", 4)), State::Right);
        assert_eq!(state(&with("0", 1)), State::Odd);
    }

    #[test]
    fn the_batch_system_is_compared() {
        let variable = |name: &str| match name {
            "SLURM_JOB_ID" => Some("7".to_owned()),
            "SLURM_NTASKS" => Some("16".to_owned()),
            _ => None,
        };
        let machine = Machine {
            variable: Box::new(variable),
            ..Machine::sound()
        };
        let found = checks(&machine, &Seat::pair());
        assert_eq!(found[0].state, State::Odd);
        assert!(found[0].found.contains("16 tasks"));
    }
}
