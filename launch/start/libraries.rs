//! Which MPI libraries are here, and where.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// How the program was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// One process, without MPI.
    Alone,
    /// For Open MPI.
    OpenMpi,
    /// For MPICH and what shares its binary interface.
    Mpich,
}

impl Build {
    /// The directory that it lies in.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Build::Alone => "alone",
            Build::OpenMpi => "openmpi",
            Build::Mpich => "mpich",
        }
    }

    /// The library as people call it.
    pub(crate) fn called(self) -> &'static str {
        match self {
            Build::Alone => "no MPI",
            Build::OpenMpi => "Open MPI",
            Build::Mpich => "MPICH",
        }
    }

    /// The file that the loader looks for, and the name it may have instead.
    pub(crate) fn files(self) -> &'static [&'static str] {
        match self {
            Build::Alone => &[],
            Build::OpenMpi => &["libmpi.so.40"],
            // Debian calls MPICH's by another name.
            Build::Mpich => &["libmpi.so.12", "libmpich.so.12"],
        }
    }
}

/// Where the loader would find libraries anyway, or has to be told of them.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Beside the launcher's program.
    pub(crate) launcher: Vec<PathBuf>,
    /// What `LD_LIBRARY_PATH` has.
    pub(crate) told: Vec<PathBuf>,
    /// Where MPI libraries usually say that they are.
    pub(crate) named: Vec<PathBuf>,
    /// Where the system's loader looks.
    pub(crate) system: Vec<PathBuf>,
}

/// A library that was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Library {
    pub(crate) directory: PathBuf,
    pub(crate) file: &'static str,
    /// Whether the loader has to be told of the directory.
    pub(crate) hidden: bool,
}

impl Library {
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(self.file)
    }
}

impl Places {
    /// All that matters for a launcher whose program lies at `launcher`, and a program of ours in `own`.
    pub(crate) fn look(
        get: &dyn Fn(&str) -> Option<String>,
        launcher: Option<&Path>,
        own: &Path,
    ) -> Self {
        let mut named = Vec::new();
        for name in ["CRAY_LD_LIBRARY_PATH", "MPI_LIB"] {
            named.extend(listed(get(name)));
        }
        let roots = [
            "I_MPI_ROOT",
            "MPI_HOME",
            "MPI_ROOT",
            "MPICH_DIR",
            "CRAY_MPICH_DIR",
            "OPAL_PREFIX",
            "OMPI_HOME",
            "VIRTUAL_ENV",
        ];
        for root in roots.iter().filter_map(|name| get(name)) {
            named.extend(of_prefix(Path::new(&root)));
        }
        for folder in listed(get("PATH")) {
            for program in ["mpirun", "mpiexec"] {
                let program = folder.join(program);
                named.extend(of_program(&program));
                if let Ok(real) = fs::canonicalize(&program) {
                    named.extend(of_program(&real));
                }
            }
        }
        named.extend(own.parent().map(of_prefix).unwrap_or_default());
        Places {
            launcher: launcher.map(of_program).unwrap_or_default(),
            told: listed(get("LD_LIBRARY_PATH")),
            named,
            system: system(),
        }
    }

    /// The library that a build would be run with.
    pub(crate) fn find(&self, build: Build) -> Option<Library> {
        let here = |directories: &[PathBuf], hidden: bool| {
            build.files().iter().find_map(|file| {
                let mut all = directories.iter();
                let directory = all.find(|directory| directory.join(file).exists())?;
                Some(Library {
                    directory: directory.clone(),
                    file,
                    hidden,
                })
            })
        };
        // What the loader would take by itself.
        let open = here(&self.told, false).or_else(|| here(&self.system, false));
        let beside = here(&self.launcher, true);
        match (beside, open) {
            (Some(beside), Some(open)) if same(&beside.path(), &open.path()) => Some(open),
            (Some(beside), _) => Some(beside),
            (None, Some(open)) => Some(open),
            (None, None) => here(&self.named, true),
        }
    }
}

fn same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn listed(value: Option<String>) -> Vec<PathBuf> {
    let value = value.unwrap_or_default();
    let parts = value.split([':', ';']).filter(|part| !part.is_empty());
    parts.map(PathBuf::from).collect()
}

/// The library directories of what is installed at `prefix`.
fn of_prefix(prefix: &Path) -> Vec<PathBuf> {
    let inside = [
        "lib",
        "lib64",
        "lib/release",
        "intel64/lib/release",
        "lib/x86_64-linux-gnu",
        "lib/aarch64-linux-gnu",
    ];
    inside.iter().map(|inside| prefix.join(inside)).collect()
}

/// The library directories beside a program in `PREFIX/bin`.
fn of_program(program: &Path) -> Vec<PathBuf> {
    let folder = program.parent().filter(|_| program.exists());
    match folder.and_then(Path::parent) {
        Some(prefix) => of_prefix(prefix),
        None => Vec::new(),
    }
}

/// Where the system's loader looks: what its settings list, and where it looks always.
fn system() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/ld.so.conf")];
    if let Ok(entries) = fs::read_dir("/etc/ld.so.conf.d") {
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<PathBuf> = paths
            .filter(|path| path.extension() == Some(OsStr::new("conf")))
            .collect();
        paths.sort();
        files.extend(paths);
    }
    let mut directories = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or(""));
        let paths = lines.map(str::trim).filter(|line| line.starts_with('/'));
        directories.extend(paths.map(PathBuf::from));
    }
    let always = [
        "/lib/x86_64-linux-gnu",
        "/usr/lib/x86_64-linux-gnu",
        "/lib/aarch64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/lib64",
        "/usr/lib64",
        "/lib",
        "/usr/lib",
    ];
    directories.extend(always.iter().map(PathBuf::from));
    directories
}
