//! The command line: arguments become work, and what that came to becomes text and an exit code.
//!
//! A command is one file: its arguments, its help that begins with examples, what it prepares, and
//! how its result reads. It is entered in the table below.
//!
//! *Absent on purpose*: what a command does (rooms below do it), and a second place that lists
//! commands or repeats a flag that several of them take ([`flags`] has it once).

mod batch;
mod batch_jobs;
mod batch_places;
mod bench;
mod checkpoints;
mod command;
mod config;
mod convert;
mod diff;
mod doctor;
mod export;
mod families;
mod fitted;
pub mod flags;
mod formats;

mod generate;
mod import;
mod inspect;
mod launcher;
mod load;
mod logging;
mod output;
mod recognised;
mod reported;
mod reshard;
mod said;
mod settings;
mod signals;
mod simulate;
mod split;
mod start;
mod strategy;
mod to;
mod unify;
mod verify;
mod wrong;

use crate::course;
use crate::exchange::World;
use crate::fault::{Fault, Kind, Result, plain};
use crate::host::build;
use crate::report::{Report, is_log_settled, log_process, note};
use crate::store::{io, token};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use command::{Command, Parsed, Prepared};
use settings::{MPIS, Settings};
use start::{Meant, code, fail, launched_process, unsaid};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;
use wrong::typed;

/// Digits of a run's id.
const RUN_DIGITS: usize = 16;

/// Makes the commands of a table of their modules and arguments; a command is called as its module.
macro_rules! commands {
    ($($module:ident::$args:ident,)*) => {
        /// The commands.
        #[derive(Debug, Subcommand)]
        enum Commands {
            $($args(Box<$module::$args>),)*
        }

        impl Commands {
            /// The command's name, as in the JSON result.
            fn name(&self) -> &'static str {
                match self {
                    $(Commands::$args(_) => stringify!($module),)*
                }
            }

            /// The command that is called so, by its own name or another.
            fn named(word: &str) -> Option<&'static str> {
                let line = Cli::command();
                match line.find_subcommand(word)?.get_name() {
                    $(stringify!($module) => Some(stringify!($module)),)*
                    _ => None,
                }
            }

            /// The line with this command alone: to make out all others, too, takes each process a millisecond.
            fn alone(word: &str) -> Option<clap::Command> {
                let command = match word {
                    $(stringify!($module) => {
                        $module::$args::augment_args(clap::Command::new(stringify!($module)))
                    })*
                    _ => return None,
                };
                Some(OfAll::augment_args(clap::Command::new("shardloom")).subcommand(command))
            }

            /// The commands that may be jobs of a batch.
            fn jobs() -> Vec<&'static str> {
                let all = [$(($module::$args::IS_JOB, stringify!($module)),)*];
                all.iter().filter(|(is_job, _)| *is_job).map(|(_, name)| *name).collect()
            }

            fn prepare(self) -> Result<Prepared> {
                match self {
                    $(Commands::$args(args) => args.prepare(),)*
                }
            }
        }
    };
}

// In the order of `shardloom --help`.
commands! {
    reshard::Reshard,
    unify::Unify,
    split::Split,
    import::Import,
    export::Export,
    to::To,
    strategy::Strategy,
    convert::Convert,
    load::Load,
    checkpoints::Checkpoints,
    diff::Diff,
    verify::Verify,
    batch::Batch,
    inspect::Inspect,
    families::Families,
    formats::Formats,
    simulate::Simulate,
    bench::Bench,
    doctor::Doctor,
    config::Config,
    generate::Generate,
}

/// Move model weights between parallel layouts.
///
/// Start it like any MPI program, one process per device: mpirun -n 8 shardloom reshard …
/// Without mpirun it is one process.
#[derive(Debug, Parser)]
#[command(
    name = "shardloom",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Commands,
    #[command(flatten)]
    of_all: OfAll,
}

/// The flags of a whole run.
#[derive(Debug, Args)]
struct OfAll {
    /// Print the result as one JSON object on stdout.
    #[arg(long, global = true)]
    json: bool,
    /// Say more (-v: what is done, -vv: everything).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Say nothing but errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Run as one process, though the launcher has started several that MPI doesn't join.
    #[arg(long, global = true)]
    alone: bool,
    /// Add the run's messages to this file, whatever is said here.
    #[arg(long, global = true, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The MPI that is meant: auto, openmpi, mpich or none [default: auto].
    #[arg(long, global = true, value_name = "MPI", value_parser = parse_mpi)]
    mpi: Option<String>,
}

/// Reads the name of an MPI.
fn parse_mpi(text: &str) -> std::result::Result<String, String> {
    match MPIS.contains(&settings::mpi(text)) {
        true => Ok(text.to_owned()),
        false => Err(format!("there are {}", MPIS.join(", "))),
    }
}

/// What was typed, by a line that may first be made another. Local.
fn understood(
    changed: impl Fn(clap::Command) -> clap::Command,
) -> std::result::Result<(Cli, ArgMatches), clap::Error> {
    let read = |line: clap::Command| {
        let typed = changed(line).try_get_matches()?;
        Ok((Cli::from_arg_matches(&typed)?, typed))
    };
    let alone = typed().next().and_then(|word| Commands::alone(&word));
    // Help, and what is wrong, are told as of all commands.
    let understood = alone.and_then(|line| read(line).ok());
    understood.map_or_else(|| read(Cli::command()), Ok)
}

/// What was typed, with what is set elsewhere.
enum Typed {
    /// What is to be done, and a mark of those settings that must be the same for all processes.
    Line(Box<Cli>, u64),
    /// Help, or wrong usage.
    Wrong(clap::Error),
    /// A setting that can't be one, for the command of this name.
    Unset(Fault, Report),
}

impl Typed {
    /// Reads the command line, and what holds where a flag isn't given. Local.
    fn read() -> Typed {
        let (mut cli, typed) = match understood(|line| line) {
            Ok(typed) => typed,
            Err(error) => return Typed::Wrong(error),
        };
        cli.hoist();
        if matches!(cli.command, Commands::Generate(_) | Commands::Config(_)) {
            return Typed::Line(Box::new(cli), 0);
        }
        let settings = match Settings::read() {
            Ok(settings) => settings.without(&typed),
            Err(fault) => return Typed::Unset(fault, cli.report()),
        };
        let report = cli.report();
        let cli = if settings.values.is_empty() {
            cli
        } else {
            match understood(|line| settings.given(line)) {
                Ok((mut cli, _)) => {
                    cli.hoist();
                    cli
                }
                Err(error) => return Typed::Wrong(error),
            }
        };
        match settings.check_mpi(cli.of_all.mpi.as_deref().unwrap_or("auto")) {
            Ok(()) => Typed::Line(Box::new(cli), settings.mark()),
            Err(fault) => Typed::Unset(fault, report),
        }
    }
}

/// The flags of [`OfAll`].
const OF_ALL: [&str; 6] = ["json", "verbose", "quiet", "alone", "log", "mpi"];

/// Does in a program that has begun already what these words of a command line ask for, and says nothing; gives
/// whether all is well. For the program's own tests. Collective.
///
/// # Errors
/// As the command's; more may be done then.
pub fn within(world: &World, words: &[String]) -> Result<bool> {
    match parse_job(words)?.prepare()? {
        Prepared::Together { work, .. } => work(world, &mut |_, _| {}).map(|told| told.ok),
        _ => Err(Fault::new(Kind::Usage, "is no command of all processes")),
    }
}

/// Understands a job that stands within another command's words, or in a file.
fn parse_job(words: &[String]) -> Result<Parsed> {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    let settings = match SETTINGS.get() {
        Some(settings) => settings,
        None => {
            let read = Settings::read()?;
            SETTINGS.get_or_init(|| read)
        }
    };
    let wrong = |error: clap::Error| {
        Fault {
            hint: None,
            ..wrong::fault(&error)
        }
        .hint("a job is a command as it would be typed")
    };
    let all = ["shardloom"]
        .into_iter()
        .chain(words.iter().map(String::as_str));
    let matches = settings.given(Cli::command()).try_get_matches_from(all);
    let matches = matches.map_err(wrong)?;
    let cli = Cli::from_arg_matches(&matches).map_err(wrong)?;
    let Some((name, typed)) = matches.subcommand() else {
        return Err(Fault::new(Kind::Usage, "has no command"));
    };
    let command = Cli::command();
    let command = command.find_subcommand(name);
    let flags = command.into_iter().flat_map(clap::Command::get_arguments);
    let typed_here = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let of_all = OF_ALL.into_iter().find(|id| typed_here(id));
    Ok(Parsed {
        name: cli.command.name(),
        jobs: Commands::jobs(),
        of_all,
        typed: typed.clone(),
        flags: flags
            .filter_map(clap::Arg::get_long)
            .map(str::to_owned)
            .collect(),
        line: Cli::command,
        ready: Box::new(move || cli.command.prepare()),
    })
}

impl Cli {
    /// Takes to itself what was typed behind a job and is meant of all.
    fn hoist(&mut self) {
        if let Commands::Batch(batch) = &mut self.command {
            let (json, quiet) = batch.hoist();
            self.of_all.json |= json;
            self.of_all.quiet |= quiet;
        }
    }

    /// How the command tells what it did.
    fn report(&self) -> Report {
        Report {
            json: self.of_all.json,
            quiet: self.of_all.quiet,
            command: self.command.name(),
        }
    }
}

/// Whether an argument asks for more.
fn is_verbose(argument: String) -> bool {
    argument == "--verbose" || argument.starts_with("-v") || argument == "-Vv"
}

/// How the program was built, for `--version --verbose`.
fn built() {
    let system = format!("{} {}", std::env::consts::ARCH, std::env::consts::OS);
    let features = match build::features() {
        [] => "none".to_owned(),
        features => features.join(", "),
    };
    let rows = [
        ("build", format!("{}, {system}", build::profile())),
        ("commit", build::commit().unwrap_or("not known").to_owned()),
        ("features", features),
        ("mpi", World::library()),
    ];
    let text: String = rows
        .map(|(name, what)| format!("{name}: {what}\n"))
        .concat();
    let _ = std::io::stdout().write_all(plain::lines(&text, &[]).as_bytes());
}

/// The whole program: parse, start MPI where it is needed, run, report.
#[must_use]
pub fn main() -> ExitCode {
    let begun = Instant::now();
    let exit = run();
    if exit != ExitCode::SUCCESS {
        start::outlast_launching(begun);
    }
    exit
}

fn run() -> ExitCode {
    let first = launched_process() == 0;
    course::run_is(&token()[..RUN_DIGITS]);
    let (cli, mark) = match Typed::read() {
        Typed::Line(cli, mark) => (*cli, mark),
        Typed::Unset(fault, report) if first => {
            return fail(&report, &fault, 0, Cli::command);
        }
        Typed::Unset(fault, _) => return unsaid(ExitCode::from(code(&fault))),
        Typed::Wrong(mut error) => {
            if !first {
                let exit = wrong::exit(&error);
                return if error.use_stderr() {
                    unsaid(exit)
                } else {
                    exit
                };
            }
            let exit = wrong::tell(&mut error, Commands::named);
            if error.kind() == ErrorKind::DisplayVersion && typed().any(is_verbose) {
                built();
            }
            return exit;
        }
    };
    let report = cli.report();
    let logged = logging::start(
        cli.of_all.quiet,
        cli.of_all.verbose,
        cli.of_all.log.as_deref(),
    );
    io::raise_open_files();
    signals::outlive_long_files();
    if first {
        report.prepare(None);
        let words: Vec<String> = typed().collect();
        note(&format!("begins: shardloom {}", words.join(" ")));
    }
    // What isn't the first process's is told when all can hear it.
    let (own, later) = if first {
        (logged, Ok(()))
    } else {
        (Ok(()), logged)
    };
    let meant = Meant {
        alone: cli.of_all.alone,
        without_mpi: cli.of_all.mpi.as_deref() == Some("none"),
        mark,
        logged: later,
    };
    let prepared = own.and_then(|()| cli.command.prepare());
    let prepared = prepared.and_then(|prepared| match prepared {
        Prepared::Many(make) => make(parse_job, report),
        other => Ok(other),
    });
    let exit = start::start(prepared, &report, meant, Cli::command);
    if first && !is_log_settled() {
        log_process(0);
    }
    if is_log_settled() {
        note(match exit {
            exit if exit == ExitCode::SUCCESS => "ends well",
            _ => "ends with an error, or a difference",
        });
    }
    exit
}

#[cfg(test)]
mod tests;
