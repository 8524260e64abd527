//! The command line: arguments become jobs, outcomes become text.

pub mod args;
mod checkpoints;
mod convert;
mod inspect;
mod jobs;
mod load;
pub mod lora;
pub mod model;
mod name_map;
pub mod side_args;
mod simulate;
mod strategy;

use crate::exchange::World;
use crate::fault::{Fault, Kind, Result};
use crate::job::outcome::Outcome;
use crate::measure::bench::Measured;
use crate::report::{Report, progress};
use args::{Cli, Command};
use clap::Parser;
use serde_json::Value;
use std::process::ExitCode;

/// Exit code for wrong usage.
const USAGE: u8 = 2;

/// The whole program: parse, start MPI where it is needed, run, report.
#[must_use]
pub fn main() -> ExitCode {
    let first = launched_process() == 0;
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if first {
                let _ = error.print();
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    start_log(&cli);
    match &cli.command {
        Command::Strategy(command) => alone(&cli, first, |report| strategy::run(command, report)),
        Command::Inspect(args) => alone(&cli, first, |report| inspect::run(args, report)),
        Command::Simulate(args) => alone(&cli, first, |report| simulate::run(args, report)),
        _ => together(&cli),
    }
}

/// A command of one process: the others of a launch have nothing to do.
fn alone(cli: &Cli, first: bool, run: impl FnOnce(&Report) -> Result<bool>) -> ExitCode {
    if !first {
        return ExitCode::SUCCESS;
    }
    let report = Report {
        json: cli.json,
        quiet: cli.quiet,
        command: cli.command.name(),
    };
    match run(&report) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => fail(&report, &fault, 0),
    }
}

/// What a command of all processes has to tell.
enum Told {
    /// What a job did.
    Outcome(Box<Outcome>),
    /// Other results: fields of the JSON object, and the same as text.
    Data { fields: Value, text: String },
    /// Measurements.
    Measured(Measured),
}

impl Told {
    fn ok(&self) -> bool {
        match self {
            Told::Outcome(outcome) => outcome.ok,
            Told::Data { .. } => true,
            Told::Measured(measured) => measured.ok,
        }
    }
}

/// A command of all processes.
fn together(cli: &Cli) -> ExitCode {
    let report = Report {
        json: cli.json,
        quiet: cli.quiet,
        command: cli.command.name(),
    };
    let prepared = match jobs::Prepared::new(&cli.command) {
        Ok(prepared) => prepared,
        Err(fault) if launched_process() == 0 => return fail(&report, &fault, 0),
        Err(fault) => return ExitCode::from(code(&fault)),
    };
    let world = match World::start() {
        Ok(world) => world,
        Err(fault) => return fail(&report, &fault, 0),
    };
    let first = world.process() == 0;
    let mut shown = progress(first && !cli.quiet && prepared.shows_progress());
    let result = prepared.run(&world, &mut *shown);
    drop(shown);
    if matches!(&result, Err(fault) if fault.kind == Kind::Mpi) {
        if let Err(fault) = &result {
            fail(&report, fault, 0);
        }
        world.abort(1);
    }
    let exit = match result {
        Ok(done) => {
            let ok = done.ok();
            let reported = if first {
                prepared.tell(&done, &report)
            } else {
                Ok(())
            };
            match reported {
                Ok(()) if ok => ExitCode::SUCCESS,
                Ok(()) => ExitCode::FAILURE,
                Err(fault) => fail(&report, &fault, 0),
            }
        }
        Err(fault) if first => fail(&report, &fault, world.failed_count().saturating_sub(1)),
        Err(fault) => ExitCode::from(code(&fault)),
    };
    match world.finish() {
        Ok(()) => exit,
        Err(fault) => fail(&report, &fault, 0),
    }
}

fn code(fault: &Fault) -> u8 {
    if fault.kind == Kind::Usage { USAGE } else { 1 }
}

fn fail(report: &Report, fault: &Fault, others: u32) -> ExitCode {
    report.fault(fault, others);
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
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .try_init();
}

impl Command {
    /// The command's name, as in the JSON result.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Command::Reshard(_) => "reshard",
            Command::Unify(_) => "unify",
            Command::Split(_) => "split",
            Command::Import(_) => "import",
            Command::Export(_) => "export",
            Command::Strategy(_) => "strategy",
            Command::Convert(_) => "convert",
            Command::Checkpoints(_) => "checkpoints",
            Command::Load(_) => "load",
            Command::Diff(_) => "diff",
            Command::Verify(_) => "verify",
            Command::Inspect(_) => "inspect",
            Command::Simulate(_) => "simulate",
            Command::Bench(_) => "bench",
        }
    }
}
