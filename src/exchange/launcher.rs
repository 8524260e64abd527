//! What the launcher says of this run, against what MPI says.

use super::world::World;
use crate::fault::{Fault, Kind, Result};
use std::env;

/// *Local.* Checks that the processes which were launched together have found each other. A launcher of
/// another MPI than the program's starts N worlds of one process each, which would all do the whole job,
/// at one place.
///
/// # Errors
/// [`Kind::Mpi`] on each of them.
pub fn launched_together(world: &World) -> Result<()> {
    match launched(|name| env::var(name).ok()) {
        Some((tasks, launcher)) if tasks > 1 && world.size() == 1 => {
            let message = format!(
                "{launcher} has started {tasks} processes, and to MPI ({}) each of them is alone",
                World::library()
            );
            Err(Fault::new(Kind::Mpi, message).hint(
                "start it with the mpirun of the MPI that shardloom was built with, or with srun \
                 --mpi=pmix or --mpi=pmi2; --alone says that one process is meant",
            ))
        }
        _ => Ok(()),
    }
}

/// How many processes the innermost launcher has started together, and its name.
fn launched(get: impl Fn(&str) -> Option<String>) -> Option<(u64, &'static str)> {
    let number = |name: &str| get(name)?.trim().parse::<u64>().ok();
    if let Some(tasks) = number("OMPI_COMM_WORLD_SIZE") {
        return Some((tasks, "Open MPI's mpirun"));
    }
    if let Some(tasks) = number("PMI_SIZE") {
        return Some((tasks, "the launcher"));
    }
    // In a batch script the number of tasks is set too, but nobody has launched them.
    let step = number("SLURM_STEP_ID").filter(|step| *step < 0xffff_fff0);
    step.and(number("SLURM_PROCID"))?;
    let tasks = number("SLURM_STEP_NUM_TASKS").or_else(|| number("SLURM_NTASKS"))?;
    Some((tasks, "srun"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(set: &[(&str, &str)]) -> Option<u64> {
        let get = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        launched(get).map(|(tasks, _)| tasks)
    }

    #[test]
    fn asks_the_innermost_launcher() {
        assert_eq!(tasks(&[]), None);
        let batch = [("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "7")];
        assert_eq!(tasks(&batch), None);
        let script = [batch.as_slice(), &[("SLURM_PROCID", "0")]].concat();
        assert_eq!(tasks(&script), None);
        let step = [script.as_slice(), &[("SLURM_STEP_ID", "0")]].concat();
        assert_eq!(tasks(&step), Some(4));
        let special = [script.as_slice(), &[("SLURM_STEP_ID", "4294967291")]].concat();
        assert_eq!(tasks(&special), None);
        let inside = [step.as_slice(), &[("OMPI_COMM_WORLD_SIZE", "1")]].concat();
        assert_eq!(tasks(&inside), Some(1));
        let one = [step.as_slice(), &[("SLURM_STEP_NUM_TASKS", "1")]].concat();
        assert_eq!(tasks(&one), Some(1));
        assert_eq!(tasks(&[("PMI_SIZE", "3")]), Some(3));
    }
}
