//! The command line: arguments become work, and what that came to becomes text and an exit code.
//!
//! A command is one file: its arguments, its help that begins with examples, what it prepares, and
//! how its result reads. It is entered in the table below.
//!
//! *Absent on purpose*: what a command does (rooms below do it), and a second place that lists
//! commands or repeats a flag that several of them take ([`flags`] has it once).

mod bench;
mod checkpoints;
mod command;
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
mod load;
mod log_line;
mod output;
mod recognised;
mod reshard;
mod signals;
mod simulate;
mod split;
mod strategy;
mod to;
mod unify;
mod verify;

use crate::course;
use crate::exchange::{World, agree, launched_together};
use crate::fault::{Fault, Kind, Result, memory, plain};
use crate::report::{Report, progress};
use crate::store::io;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use command::{Command, Prepared, Told};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Address space that an MPI library wants to start; without it some don't say so, but die.
const MPI_BYTES: usize = 128 << 20;
/// Exit code for wrong usage.
const USAGE: u8 = 2;

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
    inspect::Inspect,
    families::Families,
    formats::Formats,
    simulate::Simulate,
    bench::Bench,
    doctor::Doctor,
    generate::Generate,
}

/// Move model weights between parallel layouts.
///
/// Start it like any MPI program, one process per device: mpirun -n 8 shardloom reshard …
/// Without mpirun it is a world of one process.
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
}

/// Prints wrong usage, or help, in one write: what a launcher has to say doesn't come between.
fn print(error: &clap::Error) {
    let (rendered, to_stderr) = (error.render(), error.use_stderr());
    let terminal = if to_stderr {
        std::io::stderr().is_terminal()
    } else {
        std::io::stdout().is_terminal()
    };
    let bare = rendered.to_string();
    let safe = plain::lines(&bare);
    let coloured = terminal && std::env::var_os("NO_COLOR").is_none();
    // A file's name that acts on a terminal may have been typed by a pattern.
    let text = if coloured && safe == bare {
        rendered.ansi().to_string()
    } else {
        safe.into_owned()
    };
    // A pipe that nobody reads any more is no error.
    let _ = if to_stderr {
        std::io::stderr().write_all(text.as_bytes())
    } else {
        std::io::stdout().write_all(text.as_bytes())
    };
}

/// Whether an argument asks for more.
fn is_verbose(argument: String) -> bool {
    argument == "--verbose" || argument.starts_with("-v") || argument == "-Vv"
}

/// How the program was built, for `--version --verbose`.
fn built() {
    let profile = if cfg!(debug_assertions) {
        "development"
    } else {
        "release"
    };
    let system = format!("{} {}", std::env::consts::ARCH, std::env::consts::OS);
    let text = format!("build: {profile}, {system}\nmpi: {}\n", World::library());
    let _ = std::io::stdout().write_all(plain::lines(&text).as_bytes());
}

/// The whole program: parse, start MPI where it is needed, run, report.
#[must_use]
pub fn main() -> ExitCode {
    let first = launched_process() == 0;
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if first {
                print(&error);
                if error.kind() == ErrorKind::DisplayVersion && std::env::args().any(is_verbose) {
                    built();
                }
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    start_log(&cli);
    io::raise_open_files();
    signals::outlive_long_files();
    let alone = cli.alone;
    let report = Report {
        json: cli.json,
        quiet: cli.quiet,
        command: cli.command.name(),
    };
    if first {
        report.prepare(None);
    }
    match cli.command.prepare().and_then(admit) {
        // The others of a launch have nothing to do.
        Ok(Prepared::Alone(_) | Prepared::Described(_)) if !first => ExitCode::SUCCESS,
        Ok(Prepared::Alone(work)) => ended(&report, work(&report)),
        Ok(Prepared::Described(work)) => ended(&report, work(Cli::command(), &report)),
        Ok(Prepared::Together {
            progress: shows,
            work,
        }) => together(&report, alone, shows, work),
        Err(fault) if first => fail(&report, &fault, 0),
        Err(fault) => ExitCode::from(code(&fault)),
    }
}

/// How a command of one process ends.
fn ended(report: &Report, result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => fail(report, &fault, 0),
    }
}

/// Refuses what needs MPI where MPI could not start.
fn admit(prepared: Prepared) -> Result<Prepared> {
    match &prepared {
        Prepared::Alone(_) | Prepared::Described(_) => Ok(prepared),
        Prepared::Together { .. } => memory::spare(MPI_BYTES).map(|()| prepared),
    }
}

/// A command of all processes.
fn together(report: &Report, alone: bool, shows: bool, work: Box<command::Together>) -> ExitCode {
    let world = match World::start() {
        Ok(world) => world,
        Err(fault) => return fail(report, &fault, 0),
    };
    let first = world.process() == 0;
    report.prepare(Some((world.process(), world.hostname())));
    if let Err(fault) = begin(&world, alone) {
        let speaks = launched_process() == 0;
        let fault = world.finish().err().unwrap_or(fault);
        return if speaks {
            fail(report, &fault, 0)
        } else {
            ExitCode::from(code(&fault))
        };
    }
    let mut shown = progress(first && !report.quiet && shows);
    let result = work(&world, &mut |done, total| {
        course::moved(done, total);
        shown(done, total);
    });
    drop(shown);
    if matches!(&result, Err(fault) if fault.kind == Kind::Mpi) {
        if let Err(fault) = &result {
            fail(report, fault, 0);
        }
        world.abort(1);
    }
    let exit = match result {
        Ok(Told { ok, tell }) => {
            let reported = if first { tell(report) } else { Ok(()) };
            match reported {
                Ok(()) if ok => ExitCode::SUCCESS,
                Ok(()) => ExitCode::FAILURE,
                Err(fault) => fail(report, &fault, 0),
            }
        }
        Err(fault) if first => fail(report, &fault, world.failed_count().saturating_sub(1)),
        Err(fault) => ExitCode::from(code(&fault)),
    };
    match world.finish() {
        Ok(()) => exit,
        Err(fault) => fail(report, &fault, 0),
    }
}

/// Checks that the processes have found each other, and begins to hear signals.
fn begin(world: &World, alone: bool) -> Result<()> {
    if !alone {
        launched_together(world)?;
    }
    let ready = io::check_open_files().and_then(|()| signals::hear(world.process()));
    agree(world, ready)
}

fn code(fault: &Fault) -> u8 {
    if fault.kind == Kind::Usage { USAGE } else { 1 }
}

fn fail(report: &Report, fault: &Fault, others: u32) -> ExitCode {
    let shown = fitted::fitted(report.command, fault.clone());
    report.fault(&shown, others);
    ExitCode::from(code(fault))
}

/// This process's number as the launcher tells it, before MPI is started; 0 without a launcher.
fn launched_process() -> u32 {
    [
        "OMPI_COMM_WORLD_RANK",
        "PMIX_RANK",
        "PMI_RANK",
        "SLURM_PROCID",
    ]
    .iter()
    .find_map(|name| std::env::var(name).ok()?.parse().ok())
    .unwrap_or(0)
}

fn start_log(cli: &Cli) {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => tracing::Level::ERROR,
        (_, 0) => tracing::Level::WARN,
        (_, 1) => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(crate::report::log)
        .with_ansi(false)
        .event_format(log_line::LogLine)
        .try_init();
}

#[cfg(test)]
mod tests;
