//! Which launcher has started this process, from the variables that launchers set.

use crate::libraries::Build;
use std::path::PathBuf;

/// Variables that only one kind's launchers set.
const OWN: &[(&str, Build, &str)] = &[
    ("OMPI_COMM_WORLD_SIZE", Build::OpenMpi, "Open MPI's mpirun"),
    ("HYDI_CONTROL_FD", Build::Mpich, "MPICH's mpirun"),
    ("MPI_LOCALNRANKS", Build::Mpich, "MPICH's mpirun"),
    ("MPI_LOCALRANKID", Build::Mpich, "MPICH's mpirun"),
    ("MV2_COMM_WORLD_SIZE", Build::Mpich, "MVAPICH's launcher"),
    ("PALS_RANKID", Build::Mpich, "Cray's launcher"),
];
/// Programs that start the processes of one kind, as the system calls them.
const PROGRAMS: &[(&str, Option<Build>)] = &[
    ("orterun", Some(Build::OpenMpi)),
    ("orted", Some(Build::OpenMpi)),
    ("prterun", Some(Build::OpenMpi)),
    ("prted", Some(Build::OpenMpi)),
    ("prte", Some(Build::OpenMpi)),
    ("hydra_pmi_proxy", Some(Build::Mpich)),
    ("hydra_bstrap_proxy", Some(Build::Mpich)),
    ("pmi_proxy", Some(Build::Mpich)),
    ("mpispawn", Some(Build::Mpich)),
    ("slurmstepd", None),
    ("flux-shell", None),
];
/// How many processes were started together.
const TASKS: &[&str] = &[
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "PMIX_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "FLUX_JOB_SIZE",
];
/// Which of them this one is.
const RANKS: &[&str] = &[
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "PMIX_RANK",
    "MV2_COMM_WORLD_RANK",
    "PALS_RANKID",
    "FLUX_TASK_RANK",
    "SLURM_PROCID",
];

/// A process above this one: its program's name, and where it lies.
#[derive(Debug, Clone)]
pub(crate) struct Ancestor {
    pub(crate) name: String,
    pub(crate) program: Option<PathBuf>,
}

/// What has started this process, together with others.
#[derive(Debug, PartialEq)]
pub(crate) struct Launcher {
    /// As people call it.
    pub(crate) name: &'static str,
    /// The builds that can speak with it, the likelier first.
    pub(crate) speaks: Vec<Build>,
    /// How many processes it has started, where it says so.
    pub(crate) tasks: Option<u64>,
    /// Whether this is the process that speaks for all.
    pub(crate) first: bool,
    /// Where its program lies.
    pub(crate) program: Option<PathBuf>,
}

/// Who has started this process; none where nobody has started several.
pub(crate) fn launcher(
    get: &dyn Fn(&str) -> Option<String>,
    above: &[Ancestor],
) -> Option<Launcher> {
    let number = |name: &str| get(name)?.trim().parse::<u64>().ok();
    let nearest = above.iter().find_map(|ancestor| {
        let known = PROGRAMS.iter().find(|(name, _)| *name == ancestor.name)?;
        Some((known.1, ancestor.program.clone()))
    });
    let program = nearest.clone().and_then(|(_, program)| program);
    let first = RANKS.iter().find_map(|name| number(name)).unwrap_or(0) == 0;
    let step = number("SLURM_STEP_ID").filter(|step| *step < 0xffff_fff0);
    let in_step = step.is_some() && get("SLURM_PROCID").is_some();
    let made = |name, speaks, tasks| {
        Some(Launcher {
            name,
            speaks,
            tasks,
            first,
            program: program.clone(),
        })
    };
    let tasks = TASKS.iter().find_map(|name| number(name));
    // One inside another leaves both's variables: the nearest process tells.
    let near = nearest.and_then(|(build, _)| build);
    let set = |wanted: Option<Build>| {
        let mut own = OWN.iter().filter(|(name, ..)| get(name).is_some());
        own.find(|(_, build, _)| wanted.is_none_or(|wanted| wanted == *build))
    };
    let own = near.and_then(|near| set(Some(near))).or_else(|| set(None));
    if let Some((_, build, name)) = own {
        let size = match build {
            Build::OpenMpi => number("OMPI_COMM_WORLD_SIZE"),
            _ => number("PMI_SIZE").or_else(|| number("MV2_COMM_WORLD_SIZE")),
        };
        return made(*name, vec![*build], size);
    }
    let pmix = get("PMIX_RANK").is_some() || get("PMIX_NAMESPACE").is_some();
    let pmi = get("PMI_RANK").is_some() || get("PMI_FD").is_some() || get("PMI_PORT").is_some();
    if in_step {
        let all = number("SLURM_STEP_NUM_TASKS").or_else(|| number("SLURM_NTASKS"));
        let speaks = if pmi && !pmix {
            vec![Build::Mpich, Build::OpenMpi]
        } else {
            vec![Build::OpenMpi, Build::Mpich]
        };
        return made("srun", speaks, all);
    }
    if pmix {
        return made("the launcher", vec![Build::OpenMpi, Build::Mpich], tasks);
    }
    if get("FLUX_TASK_RANK").is_some() {
        return made("flux", vec![Build::Mpich, Build::OpenMpi], tasks);
    }
    if pmi {
        return made("MPICH's launcher", vec![Build::Mpich], tasks);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(set: &[(&str, &str)], above: &[&str]) -> Option<Launcher> {
        let get = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let above: Vec<Ancestor> = above
            .iter()
            .map(|path| Ancestor {
                name: path.rsplit('/').next().unwrap().to_owned(),
                program: Some(PathBuf::from(path)),
            })
            .collect();
        launcher(&get, &above)
    }

    #[test]
    fn knows_launchers_by_what_they_set() {
        assert_eq!(found(&[], &["/bin/bash"]), None);
        let open = [("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "2")];
        let it = found(&open, &["/bin/sh", "/opt/mpi/bin/prterun"]).unwrap();
        assert_eq!((it.speaks, it.tasks), (vec![Build::OpenMpi], Some(4)));
        assert_eq!(it.program, Some(PathBuf::from("/opt/mpi/bin/prterun")));
        assert!(!it.first);
        let hydra = [
            ("PMI_SIZE", "2"),
            ("PMI_RANK", "0"),
            ("MPI_LOCALNRANKS", "2"),
        ];
        let it = found(&hydra, &[]).unwrap();
        assert_eq!((it.speaks, it.first), (vec![Build::Mpich], true));
        let both = [open.as_slice(), &hydra].concat();
        let it = found(&both, &["/usr/bin/hydra_pmi_proxy", "/usr/bin/orterun"]).unwrap();
        assert_eq!((it.speaks, it.tasks), (vec![Build::Mpich], Some(2)));
        let it = found(&both, &["/usr/bin/orterun", "/usr/bin/hydra_pmi_proxy"]).unwrap();
        assert_eq!((it.speaks, it.tasks), (vec![Build::OpenMpi], Some(4)));
    }

    #[test]
    fn asks_slurm_for_steps_only() {
        let batch = [
            ("SLURM_NTASKS", "4"),
            ("SLURM_PROCID", "0"),
            ("SLURM_JOB_ID", "7"),
        ];
        assert_eq!(found(&batch, &["/usr/sbin/slurmstepd"]), None);
        let step = [
            batch.as_slice(),
            &[("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "3")],
        ]
        .concat();
        let it = found(&step, &[]).unwrap();
        assert_eq!(it.speaks, [Build::OpenMpi, Build::Mpich]);
        assert_eq!((it.name, it.tasks), ("srun", Some(3)));
        let old = [step.as_slice(), &[("PMI_RANK", "1"), ("PMI_FD", "3")]].concat();
        assert_eq!(found(&old, &[]).unwrap().speaks[0], Build::Mpich);
        let inside = [step.as_slice(), &[("OMPI_COMM_WORLD_SIZE", "2")]].concat();
        assert_eq!(found(&inside, &[]).unwrap().tasks, Some(2));
    }
}
