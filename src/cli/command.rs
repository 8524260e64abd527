//! What a command is: arguments that become work, and work that tells what it came to.

use crate::cli::flags::moving::MoveArgs;
use crate::cli::flags::strategy::Deriving;
use crate::exchange::World;
use crate::fault::Result;
use crate::fault::plain::Text;
use crate::job::outcome::Outcome;
use crate::job::{Job, run};
use crate::report::{Progress, Report};
use crate::transport::Observer;
use clap::Args;
use serde_json::Value;

/// A command: its arguments, read by clap, whose help begins with examples.
pub(crate) trait Command: Args {
    /// Checks all that can be checked without other processes. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Usage`], and whatever the files say that the arguments name.
    fn prepare(self) -> Result<Prepared>;
}

type Alone = dyn FnOnce(&Report) -> Result<bool>;
pub(crate) type Together = dyn FnOnce(&World, &mut Observer<'_>) -> Result<Told>;
type Described = dyn FnOnce(clap::Command, &Report) -> Result<bool>;
type Tell = dyn FnOnce(&Report) -> Result<()>;

/// A command ready to run.
pub(crate) enum Prepared {
    /// By one process, without MPI; gives whether all is well.
    Alone(Box<Alone>),
    /// The same, told the whole command line.
    Described(Box<Described>),
    /// By all processes.
    Together {
        /// How progress is shown.
        progress: Progress,
        /// What they do. Collective.
        work: Box<Together>,
    },
}

impl Prepared {
    /// Work for one process, without MPI, that tells what it came to and gives whether all is well.
    pub(crate) fn alone(work: impl FnOnce(&Report) -> Result<bool> + 'static) -> Prepared {
        Prepared::Alone(Box::new(work))
    }

    /// Work for all processes that shows no progress.
    pub(crate) fn together(work: impl FnOnce(&World) -> Result<Told> + 'static) -> Prepared {
        Prepared::Together {
            progress: Progress::Never,
            work: Box::new(|world, _| work(world)),
        }
    }

    /// Work for all processes that shows its progress, if `moving` says so.
    pub(crate) fn shown(
        moving: &MoveArgs,
        work: impl FnOnce(&World, &mut Observer<'_>) -> Result<Told> + 'static,
    ) -> Prepared {
        Prepared::Together {
            progress: moving.progress,
            work: Box::new(work),
        }
    }

    /// A job.
    pub(crate) fn job(moving: &MoveArgs, job: Job) -> Prepared {
        Prepared::shown(moving, move |world, observer| {
            run(world, &job, observer).map(Told::outcome)
        })
    }

    /// A job whose strategies need not lie in files.
    ///
    /// # Errors
    /// As [`Deriving::check`].
    pub(crate) fn derived(moving: &MoveArgs, deriving: Deriving, job: Job) -> Result<Prepared> {
        deriving.check_job(&job)?;
        Ok(Prepared::shown(moving, move |world, observer| {
            let mut job = job;
            deriving.fill(world, &mut job)?;
            run(world, &job, observer).map(Told::outcome)
        }))
    }
}

/// What a command of all processes has come to.
pub(crate) struct Told {
    /// Whether all is well; for a comparison: whether nothing differs.
    pub(crate) ok: bool,
    /// Tells it. Local, on one process.
    pub(crate) tell: Box<Tell>,
}

impl Told {
    /// What is told by `tell`.
    pub(crate) fn new(ok: bool, tell: impl FnOnce(&Report) -> Result<()> + 'static) -> Told {
        Told {
            ok,
            tell: Box::new(tell),
        }
    }

    /// What a job did.
    pub(crate) fn outcome(outcome: Outcome) -> Told {
        Told::new(outcome.ok, move |report| report.outcome(&outcome))
    }

    /// Fields of the JSON object, and the same as text.
    pub(crate) fn data(fields: Value, text: Text) -> Told {
        Told::new(true, move |report| report.data(&fields, &text))
    }
}
