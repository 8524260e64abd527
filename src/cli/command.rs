//! What a command is: arguments that become work, and work that tells what it came to.

use crate::cli::flags::moving::{MoveArgs, ProgressArgs};
use crate::cli::flags::report::ReportArgs;
use crate::exchange::{Threads, World};
use crate::fault::Result;
use crate::fault::plain::Text;
use crate::front::Deriving;
use crate::job::outcome::Outcome;
use crate::job::{Job, run};
use crate::report::{Report, Shows, said_page};
use crate::transport::Observer;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use serde_json::Value;
use std::path::PathBuf;
use std::rc::Rc;

/// A command: its arguments, read by clap, whose help begins with examples.
pub(crate) trait Command: Args {
    /// Whether it may be a job of a batch.
    const IS_JOB: bool = false;

    /// Checks all that can be checked without other processes. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Usage`], and whatever the files say that the arguments name.
    fn prepare(self) -> Result<Prepared>;
}

type Alone = dyn FnOnce(&Report) -> Result<bool>;
pub(crate) type Together = dyn FnOnce(&World, &mut Observer<'_>) -> Result<Told>;
type Described = dyn FnOnce(clap::Command, &Report) -> Result<bool>;
type Many = dyn FnOnce(Parse, Report) -> Result<Prepared>;
type Tell = dyn FnOnce(&Report) -> Result<()>;

/// A command ready to run.
pub(crate) enum Prepared {
    /// By one process, without MPI; gives whether all is well.
    Alone(Box<Alone>),
    /// The same, told the whole command line.
    Described(Box<Described>),
    /// Several commands, which are understood by what is handed in.
    Many(Box<Many>),
    /// By all processes.
    Together {
        /// What is shown of its progress.
        shows: Shows,
        /// The page that is written of it.
        report: ReportArgs,
        /// Whose work it is in each process.
        threads: Threads,
        /// What they do. Collective.
        work: Box<Together>,
    },
}

impl Prepared {
    /// Work for one process, without MPI, that tells what it came to and gives whether all is well.
    pub(crate) fn alone(work: impl FnOnce(&Report) -> Result<bool> + 'static) -> Prepared {
        Prepared::Alone(Box::new(work))
    }

    /// Work for all processes that shows its progress, if `moving` says so.
    pub(crate) fn shown(
        moving: &MoveArgs,
        work: impl FnOnce(&World, &mut Observer<'_>) -> Result<Told> + 'static,
    ) -> Prepared {
        Prepared::Together {
            shows: moving.progress.shows(),
            report: moving.reporting(),
            threads: Threads::Several,
            work: Box::new(work),
        }
    }

    /// Work for all processes that shows its progress, with a page of it.
    pub(crate) fn told(
        progress: &ProgressArgs,
        report: ReportArgs,
        work: impl FnOnce(&World, &mut Observer<'_>) -> Result<Told> + 'static,
    ) -> Prepared {
        Prepared::Together {
            shows: progress.shows(),
            report,
            threads: Threads::Several,
            work: Box::new(work),
        }
    }

    /// The same, of which people hear no rates: it measures them.
    pub(crate) fn without_rates(mut self) -> Prepared {
        if let Prepared::Together { shows, .. } = &mut self {
            shows.rates = false;
        }
        self
    }

    /// The same, of which the thread that calls MPI does all.
    pub(crate) fn by_one_thread(mut self) -> Prepared {
        if let Prepared::Together { threads, .. } = &mut self {
            *threads = Threads::One;
        }
        self
    }

    /// A job.
    ///
    /// # Errors
    /// As [`ReportArgs::check`].
    pub(crate) fn job(moving: &MoveArgs, job: Job) -> Result<Prepared> {
        moving.report.check(&job)?;
        Ok(Prepared::shown(moving, move |world, observer| {
            run(world, &job, observer).map(Told::outcome)
        }))
    }

    /// A job whose strategies need not lie in files.
    ///
    /// # Errors
    /// As [`Deriving::check`].
    pub(crate) fn derived(moving: &MoveArgs, deriving: Deriving, job: Job) -> Result<Prepared> {
        deriving.check_job(&job)?;
        moving.report.check(&job)?;
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
    /// What a job did.
    pub(crate) outcome: Option<Rc<Outcome>>,
    /// The page of it, if it has one of its own.
    page: Option<String>,
    /// What it says, if that is all.
    said: String,
}

impl Told {
    /// What is told by `tell`.
    pub(crate) fn new(ok: bool, tell: impl FnOnce(&Report) -> Result<()> + 'static) -> Told {
        Told {
            ok,
            tell: Box::new(tell),
            outcome: None,
            page: None,
            said: String::new(),
        }
    }

    /// What a job did.
    pub(crate) fn outcome(outcome: Outcome) -> Told {
        let outcome = Rc::new(outcome);
        let told = outcome.clone();
        Told {
            outcome: Some(outcome),
            ..Told::new(told.ok, move |report| report.outcome(&told))
        }
    }

    /// The same with a page of its own.
    pub(crate) fn with_page(self, page: String) -> Told {
        Told {
            page: Some(page),
            ..self
        }
    }

    /// What it came to, as a page.
    pub(crate) fn page(&mut self, command: &str) -> String {
        let page = self.page.take();
        let of_job = || self.outcome.as_deref().map(Report::outcome_page);
        page.or_else(of_job)
            .unwrap_or_else(|| said_page(command, &self.said))
    }

    /// Fields of the JSON object, and the same as text.
    pub(crate) fn data(fields: Value, text: Text) -> Told {
        let said = text.as_str().to_owned();
        Told {
            said,
            ..Told::new(true, move |report| report.data(&fields, &text))
        }
    }
}

/// A job's words, understood.
pub(crate) struct Parsed {
    /// Its command.
    pub(crate) name: &'static str,
    /// The commands that may be jobs of a batch.
    pub(crate) jobs: Vec<&'static str>,
    /// A flag that was typed of it and is one of the whole run.
    pub(crate) of_all: Option<&'static str>,
    /// What was typed of the command's own flags.
    pub(crate) typed: ArgMatches,
    /// All flags that the command has.
    pub(crate) flags: Vec<String>,
    /// The whole command line, as it is described.
    pub(crate) line: fn() -> clap::Command,
    /// Gets it ready.
    pub(crate) ready: Box<dyn FnOnce() -> Result<Prepared>>,
}

/// Understands a job's words.
pub(crate) type Parse = fn(&[String]) -> Result<Parsed>;

impl Parsed {
    /// Gets it ready. Local.
    pub(crate) fn prepare(self) -> Result<Prepared> {
        (self.ready)()
    }

    /// Whether the command has this flag.
    pub(crate) fn has(&self, flag: &str) -> bool {
        let name = flag.trim_start_matches('-');
        self.flags.iter().any(|known| known == name)
    }

    /// Whether the command has this flag, and it wasn't typed.
    pub(crate) fn takes(&self, flag: &str) -> bool {
        let name = flag.trim_start_matches('-');
        let id = name.replace('-', "_");
        self.has(flag) && self.source(&id) != Some(ValueSource::CommandLine)
    }

    fn source(&self, id: &str) -> Option<ValueSource> {
        let known = self.typed.ids().any(|known| known == id);
        known.then(|| self.typed.value_source(id)).flatten()
    }

    /// Whether this flag was typed.
    pub(crate) fn is_given(&self, id: &str) -> bool {
        self.source(id) == Some(ValueSource::CommandLine)
    }

    /// The path given to this flag.
    pub(crate) fn path(&self, id: &str) -> Option<PathBuf> {
        self.source(id)?;
        let mut values = self.typed.get_raw(id)?;
        values.next().map(PathBuf::from)
    }
}
