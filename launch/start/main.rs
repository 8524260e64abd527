//! `shardloom` as it is packed: finds out which MPI has started it, and becomes the build for it.
//!
//! The builds lie in `lib/shardloom` beside `bin`, a directory each: for Open MPI, for MPICH and what
//! shares its binary interface, and for one process without MPI. It needs nothing but the standard
//! library, and takes a few milliseconds.

use launcher::{Ancestor, Launcher, launcher};
use libraries::{Build, Library, Places};
use settings::asked;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, fs};

mod launcher;
mod libraries;
mod settings;

/// How far up it is looked for a launcher's program.
const ANCESTORS_MAX: usize = 16;
/// Launchers end all processes when the first has failed: the others let the one that speaks come first.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A build, and the library that it needs.
#[derive(Debug, PartialEq)]
struct Choice {
    build: Build,
    library: Option<Library>,
}

/// Why there is no choice, and what to do.
#[derive(Debug, PartialEq)]
struct Wrong {
    message: String,
    hint: String,
}

fn main() -> ExitCode {
    let get = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let program = launcher(&get, &ancestors());
    let first = program.as_ref().is_none_or(|launcher| launcher.first);
    let Some(home) = home() else {
        let wrong = Wrong {
            message: "its builds don't lie in lib/shardloom beside its bin directory".to_owned(),
            hint: "install it again; of the archive, keep bin and lib together".to_owned(),
        };
        return fail(&wrong, &args, first);
    };
    let started = program
        .as_ref()
        .and_then(|launcher| launcher.program.as_deref());
    let places = Places::look(&get, started, &home);
    let alone = args.iter().any(|arg| arg == "--alone");
    let chosen = match asked(&args, &get) {
        Ok(Some(build)) => demanded(build, program.as_ref().filter(|_| !alone), &places),
        Ok(None) if alone => Ok(one_process()),
        Ok(None) => choose(program.as_ref(), &places),
        Err(wrong) => Err(wrong),
    };
    let wrong = match chosen {
        Ok(choice) => become_it(&home, &choice, &args),
        Err(wrong) => wrong,
    };
    fail(&wrong, &args, first)
}

fn one_process() -> Choice {
    Choice {
        build: Build::Alone,
        library: None,
    }
}

/// The build that is asked for, if its library is here and the launcher speaks with it.
fn demanded(build: Build, launcher: Option<&Launcher>, places: &Places) -> Result<Choice, Wrong> {
    let library = places.find(build);
    if build != Build::Alone && library.is_none() {
        return Err(Wrong {
            message: format!(
                "mpi is to be {}, and its library ({}) isn't here",
                build.called(),
                build.files().join(" or ")
            ),
            hint: remedy(build),
        });
    }
    let foreign = |launcher: &&Launcher| {
        build != Build::Alone && launcher.tasks != Some(1) && !launcher.speaks.contains(&build)
    };
    if let Some(launcher) = launcher.filter(foreign) {
        return Err(Wrong {
            message: format!(
                "{} has started this, and mpi is to be {}, which can't speak with it",
                launcher.name,
                build.called()
            ),
            hint: format!(
                "start it with {}'s mpirun; or leave --mpi, SHARDLOOM_MPI and mpi in shardloom.toml away: the right one is found",
                build.called()
            ),
        });
    }
    Ok(Choice { build, library })
}

/// The build for a launcher, with a library that speaks with it.
fn choose(launcher: Option<&Launcher>, places: &Places) -> Result<Choice, Wrong> {
    let Some(launcher) = launcher else {
        return Ok(one_process());
    };
    let mut able = launcher.speaks.iter();
    let found = able.find_map(|build| Some((*build, places.find(*build)?)));
    if let Some((build, library)) = found {
        return Ok(Choice {
            build,
            library: Some(library),
        });
    }
    if launcher.tasks == Some(1) {
        return Ok(one_process());
    }
    let wanted: Vec<&str> = launcher
        .speaks
        .iter()
        .flat_map(|build| build.files())
        .copied()
        .collect();
    let others = [Build::OpenMpi, Build::Mpich];
    let other = others
        .into_iter()
        .filter(|build| !launcher.speaks.contains(build))
        .find_map(|build| Some((build, places.find(build)?)));
    let build = launcher.speaks.first().copied().unwrap_or(Build::OpenMpi);
    let name = launcher.name;
    Err(match other {
        Some((other, library)) => Wrong {
            message: format!(
                "{name} has started this, but the MPI library here is {}'s ({})",
                other.called(),
                library.path().display()
            ),
            hint: format!(
                "start it with {}'s mpirun; or {}",
                other.called(),
                remedy(build)
            ),
        },
        None => Wrong {
            message: format!(
                "{name} has started this, and no MPI library is here ({})",
                wanted.join(" or ")
            ),
            hint: remedy(build),
        },
    })
}

fn remedy(build: Build) -> String {
    format!(
        "load the module of {}, install it on every node, or let LD_LIBRARY_PATH name the directory of its {}",
        build.called(),
        build.files().first().unwrap_or(&"library")
    )
}

/// The directory of the builds: from where this program really lies.
fn home() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    let program = fs::canonicalize(&program).unwrap_or(program);
    let home = program.parent()?.parent()?.join("lib/shardloom");
    home.is_dir().then_some(home)
}

/// The processes above this one, the nearest first.
fn ancestors() -> Vec<Ancestor> {
    let mut found = Vec::new();
    let mut process = std::os::unix::process::parent_id();
    while process > 1 && found.len() < ANCESTORS_MAX {
        let program = fs::read_link(format!("/proc/{process}/exe")).ok();
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name, in parentheses, may have some itself.
        let Some((before, after)) = stat.rsplit_once(')') else {
            break;
        };
        let short = before.split_once('(').map_or("", |(_, name)| name);
        let long = program.as_deref().and_then(Path::file_name);
        let name = long.map(|name| name.to_string_lossy().into_owned());
        found.push(Ancestor {
            name: name.unwrap_or_else(|| short.to_owned()),
            program,
        });
        let mut fields = after.split_whitespace();
        process = match fields.nth(1).and_then(|field| field.parse().ok()) {
            Some(parent) => parent,
            None => break,
        };
    }
    found
}

/// Becomes the build; comes back only if it can't.
fn become_it(home: &Path, choice: &Choice, args: &[OsString]) -> Wrong {
    let program = home.join(choice.build.directory()).join("shardloom");
    let mut command = Command::new(&program);
    command.arg0("shardloom").args(args);
    let mut directories = Vec::new();
    if let Some(library) = &choice.library {
        if choice.build.files().first() != Some(&library.file) {
            directories.push(home.join("libmpich"));
        }
        if library.hidden {
            directories.push(library.directory.clone());
        }
    }
    if !directories.is_empty() {
        let mut paths: Vec<OsString> = directories.into_iter().map(PathBuf::into).collect();
        paths.extend(env::var_os("LD_LIBRARY_PATH").filter(|paths| !paths.is_empty()));
        command.env("LD_LIBRARY_PATH", paths.join(":".as_ref()));
    }
    let error = command.exec();
    Wrong {
        message: format!("{}: {error}", program.display()),
        hint: "install it again: a part of it is missing or damaged".to_owned(),
    }
}

/// Says what is wrong, once for all processes.
fn fail(wrong: &Wrong, args: &[OsString], first: bool) -> ExitCode {
    if !first {
        std::thread::sleep(LAST_WORDS);
        return ExitCode::FAILURE;
    }
    let text = format!("error: {}\n  hint: {}\n", wrong.message, wrong.hint);
    // Nobody is left to be told that nobody can be told.
    let _ = std::io::stderr().write_all(text.as_bytes());
    if args.iter().any(|arg| arg == "--json") {
        let mut command = args.iter().filter_map(|arg| arg.to_str());
        let command = command.find(|arg| !arg.starts_with('-'));
        let object = format!(
            "{{\"schema\": 1, \"command\": {}, \"run\": \"\", \"ok\": false, \"error\": {{\"kind\": \"mpi\", \"message\": {}, \"hint\": {}}}}}\n",
            quoted(command.unwrap_or_default()),
            quoted(&wrong.message),
            quoted(&wrong.hint)
        );
        let _ = std::io::stdout().write_all(object.as_bytes());
    }
    ExitCode::FAILURE
}

/// Text as JSON has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if control < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_build_that_the_launcher_does_not_speak_with() {
        let launcher = |tasks| Launcher {
            name: "Open MPI's mpirun",
            speaks: vec![Build::OpenMpi],
            tasks,
            first: true,
            program: None,
        };
        let room = std::env::temp_dir().join(format!("shardloom-start-{}", std::process::id()));
        fs::create_dir_all(&room).unwrap();
        for file in ["libmpi.so.40", "libmpi.so.12"] {
            fs::write(room.join(file), "").unwrap();
        }
        let places = Places {
            told: vec![room.clone()],
            ..Places::default()
        };
        let several = launcher(Some(4));
        let wrong = demanded(Build::Mpich, Some(&several), &places).unwrap_err();
        assert!(wrong.message.starts_with("Open MPI's mpirun has started"));
        assert!(wrong.hint.starts_with("start it with MPICH's mpirun"));
        for (build, launcher) in [
            (Build::OpenMpi, Some(&several)),
            (Build::Alone, Some(&several)),
            (Build::Mpich, Some(&launcher(Some(1)))),
            (Build::Mpich, None),
        ] {
            assert_eq!(demanded(build, launcher, &places).unwrap().build, build);
        }
        fs::remove_dir_all(room).unwrap();
    }
}
