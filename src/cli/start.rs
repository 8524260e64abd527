//! How a command that is ready runs: alone, or with MPI by all processes, and how it ends.

use crate::cli::command::{self, Prepared, Told};
use crate::cli::flags::report::ReportArgs;
use crate::cli::launcher::Launcher;
use crate::cli::reported::reported;
use crate::cli::said::said;
use crate::cli::{fitted, signals};
use crate::course;
use crate::exchange::{
    Operation, Threads, World, agree, all_reduce, broadcast_bytes, launched_together,
};
use crate::fault::{Fault, Kind, Result, memory};
use crate::report::{Progress, Report, Shows, Teller, log_process};
use crate::store::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Address space that an MPI library wants to start; without it some don't say so, but die.
const MPI_BYTES: usize = 128 << 20;
/// The whole command line, as it is described.
pub(super) type Line = fn() -> clap::Command;

/// How long a process has to say why all end.
const SPEAKING: Duration = Duration::from_millis(300);

/// Exit code for wrong usage.
pub(super) const USAGE: u8 = 2;

/// Runs it. Collective, if it is for all processes.
pub(super) fn start(
    prepared: Result<Prepared>,
    report: &Report,
    meant: Meant,
    line: Line,
) -> ExitCode {
    let first = launched_process() == 0;
    match prepared.and_then(admit) {
        // The others of a launch have nothing to do.
        Ok(Prepared::Alone(_) | Prepared::Described(_)) if !first => ExitCode::SUCCESS,
        Ok(Prepared::Alone(work)) => ended(report, work(report), line),
        Ok(Prepared::Described(work)) => ended(report, work(line(), report), line),
        Ok(Prepared::Together {
            shows,
            report: page,
            threads,
            work,
        }) => together(report, (meant, threads), shows, &page, work, line),
        Ok(Prepared::Many(_)) => {
            let fault = Fault::new(Kind::Internal, "jobs without a reader");
            fail(report, &fault, 0, line)
        }
        Err(fault) if first => fail(report, &fault, 0, line),
        Err(fault) => unsaid(ExitCode::from(code(&fault))),
    }
}

/// Ends a process that another speaks for, a moment later: a launcher that sees one fail ends the others, in the
/// middle of their words. Local.
pub(super) fn unsaid(exit: ExitCode) -> ExitCode {
    std::thread::sleep(SPEAKING);
    exit
}

/// Lets a launcher start the others first, before this process, which has `begun`, ends with an error: where Open MPI
/// 4 starts so many of a node by several threads, it waits for ever if one fails meanwhile. Local.
pub(super) fn outlast_launching(begun: Instant) {
    const BY_THREADS: u32 = 32;
    const EACH: Duration = Duration::from_millis(20);
    let here = std::env::var("OMPI_COMM_WORLD_LOCAL_SIZE");
    let here = here.ok().and_then(|number| number.parse().ok());
    if let Some(here) = here.filter(|here| *here >= BY_THREADS) {
        let least = Duration::from_secs(1) + EACH * here;
        std::thread::sleep(least.saturating_sub(begun.elapsed()));
    }
}

/// How a command of one process ends.
fn ended(report: &Report, result: Result<bool>, line: Line) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => fail(report, &fault, 0, line),
    }
}

/// Refuses what needs MPI where MPI could not start.
fn admit(prepared: Prepared) -> Result<Prepared> {
    match &prepared {
        Prepared::Alone(_) | Prepared::Described(_) | Prepared::Many(_) => Ok(prepared),
        Prepared::Together { .. } => memory::spare(MPI_BYTES).map(|()| prepared),
    }
}

/// A command of all processes.
fn together(
    report: &Report,
    (meant, threads): (Meant, Threads),
    shows: Shows,
    page: &ReportArgs,
    work: Box<command::Together>,
    line: Line,
) -> ExitCode {
    let fail = |fault: &Fault, others: u32| {
        fail(report, fault, others, line);
        code(fault)
    };
    let launcher = Launcher::of_this_process();
    let lives = move || launcher.as_ref().is_none_or(Launcher::lives);
    let world = match World::start_while(threads, lives) {
        Ok(world) => world,
        Err(fault) => return ExitCode::from(fail(&fault, 0)),
    };
    let first = world.process() == 0;
    if let Ok(id) = broadcast_bytes(&world, 0, course::run().into_bytes()) {
        course::run_is(&String::from_utf8_lossy(&id));
    }
    log_process(world.process());
    report.prepare(Some((world.process(), world.hostname())));
    if let Err(fault) = begin(&world, meant, report) {
        let speaks = launched_process() == 0;
        let fault = world.finish_with(code(&fault)).err().unwrap_or(fault);
        return if speaks {
            ExitCode::from(fail(&fault, 0))
        } else {
            unsaid(ExitCode::from(code(&fault)))
        };
    }
    let mut shows = shows.unless(report.quiet);
    if !first {
        shows.progress = Progress::Never;
    }
    let mut teller = Teller::start(report.command, shows);
    let mut observer = |done, total| {
        course::moved(done, total);
        teller.moved(done, total);
    };
    let result = reported(&world, report.command, page, work, &mut observer);
    teller.end(matches!(&result, Ok(Told { ok: true, .. })));
    if matches!(&result, Err(fault) if fault.kind == Kind::Mpi) {
        if let Err(fault) = &result {
            fail(fault, 0);
        }
        world.abort(1);
    }
    course::tells();
    let exit = match result {
        Ok(Told { ok, tell, .. }) => {
            let reported = if first { tell(report) } else { Ok(()) };
            match reported {
                Ok(()) => u8::from(!ok),
                Err(fault) => fail(&fault, 0),
            }
        }
        Err(fault) if first => fail(&fault, world.failed_count().saturating_sub(1)),
        Err(fault) => code(&fault),
    };
    let ended = world.finish_with(exit);
    ExitCode::from(ended.map_or_else(|fault| fail(&fault, 0), |()| exit))
}

/// What is meant of how processes were started.
pub(super) struct Meant {
    /// One process, whatever the launcher says.
    pub(super) alone: bool,
    /// One process, as no MPI is to join several.
    pub(super) without_mpi: bool,
    /// A mark of those settings that must be the same for all.
    pub(super) mark: u64,
    /// Whether the log could be opened.
    pub(super) logged: Result<()>,
}

/// Checks that the processes have found each other and are set alike, and begins to hear signals. Collective.
fn begin(world: &World, meant: Meant, report: &Report) -> Result<()> {
    if !meant.alone {
        launched_together(world)?;
    }
    if meant.without_mpi && world.size() > 1 {
        let message = format!(
            "mpi is to be none, and there are {} processes",
            world.size()
        );
        return Err(Fault::new(Kind::Usage, message).hint("leave out mpirun, or the setting"));
    }
    let ready = meant.logged.and_then(|()| io::check_open_files());
    agree(
        world,
        ready.and_then(|()| signals::hear(world.process(), *report)),
    )?;
    let mut marks = [meant.mark, !meant.mark];
    all_reduce(world, &mut marks, Operation::Max)?;
    if marks[0] == !marks[1] {
        return Ok(());
    }
    let message = "memory or machine is set in other ways for other processes";
    Err(Fault::new(Kind::Usage, message)
        .hint("each node has a shardloom.toml of its own, or another environment: make them equal, or give --memory and --machine"))
}

pub(super) fn code(fault: &Fault) -> u8 {
    if fault.kind == Kind::Usage { USAGE } else { 1 }
}

pub(super) fn fail(report: &Report, fault: &Fault, others: u32, line: Line) -> ExitCode {
    let shown = fitted::fitted(&line(), report.command, fault.clone());
    report.fault(&said(report.command, shown), others);
    ExitCode::from(code(fault))
}

/// This process's number as the launcher tells it, before MPI is started; 0 without a launcher.
pub(super) fn launched_process() -> u32 {
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
