//! `--report`: what was done, as a page.

use crate::cli::output::try_output;
use crate::course::pace;
use crate::destination::allowed;
use crate::exchange::{World, agree};
use crate::fault::{Fault, Kind, Result};
use crate::job::Job;
use crate::report::is_report;
use crate::store::io::{ReadFile, Standing, standing};
use crate::store::single::write_single;
use clap::Args;
use std::path::{Path, PathBuf};

/// Bytes by which a page is known.
const BEGINNING: u64 = 512;

/// What was done, as a page.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ReportArgs {
    /// Write a page of what was done, in place of an earlier one: layouts, who sent what to whom,
    /// when, differences; it needs nothing else to be read.
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// The tensor that it shows first.
    #[arg(skip)]
    tensor: Option<String>,
}

impl ReportArgs {
    /// A page that shows this tensor first.
    pub(crate) fn showing(&self, tensor: Option<&String>) -> ReportArgs {
        ReportArgs {
            tensor: tensor.cloned(),
            ..self.clone()
        }
    }

    /// Whether the page may lie there, beside what the job reads and writes. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Usage`].
    pub(crate) fn check(&self, job: &Job) -> Result<()> {
        let source = ("source", job.reading.path.as_path());
        let writing = job.goal.writing();
        let destination = writing.map(|writing| ("destination", writing.path.as_path()));
        self.check_paths(&[Some(source), destination])
    }

    /// The same beside these.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Usage`].
    pub(crate) fn check_paths(&self, paths: &[Option<(&'static str, &Path)>]) -> Result<()> {
        let Some(report) = &self.report else {
            return Ok(());
        };
        let paths: Vec<_> = paths.iter().copied().flatten().collect();
        allowed::check_file(report, &paths)
    }

    /// Tries the file on process 0, and begins to measure on all. Collective.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Exists`] if something stands there that is no report,
    /// [`crate::fault::Kind::Io`].
    pub(crate) fn begin(&self, world: &World) -> Result<()> {
        let tried = match world.process() {
            0 => self.try_file(),
            _ => Ok(()),
        };
        agree(world, tried)?;
        self.measure();
        Ok(())
    }

    /// Begins to measure, if a page is asked for. Local.
    pub(crate) fn measure(&self) {
        if self.report.is_some() {
            pace::start(self.tensor.as_deref());
        }
    }

    /// Whether the file can be written. Local.
    ///
    /// # Errors
    /// As [`ReportArgs::begin`].
    pub(crate) fn try_file(&self) -> Result<()> {
        let Some(report) = &self.report else {
            return Ok(());
        };
        let named = |fault: Fault| Fault {
            file: Some(report.display().to_string()),
            ..fault
        };
        let refused = |kind, message: &str| {
            let fault =
                Fault::new(kind, message).hint("--report takes a new file, or an earlier report");
            Err(named(fault))
        };
        if report.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return refused(Kind::Usage, "is no file name");
        }
        match standing(report)? {
            Standing::Nothing => {}
            Standing::File if is_ours(report) => {}
            Standing::File => return refused(Kind::Exists, "exists, and is no report"),
            _ => return refused(Kind::Exists, "is a directory"),
        }
        try_output(report).map_err(named)
    }

    /// Writes the page, if one is asked for. Local.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Io`].
    pub(crate) fn save(&self, page: &str) -> Result<()> {
        match &self.report {
            Some(report) => write_single(report, page.as_bytes()),
            None => Ok(()),
        }
    }
}

/// Whether an earlier report stands there.
fn is_ours(path: &Path) -> bool {
    if standing(path).ok() != Some(Standing::File) {
        return false;
    }
    let Ok(file) = ReadFile::open(path) else {
        return false;
    };
    let length = file.size().min(BEGINNING);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_at(&mut bytes, 0).is_ok() && is_report(&String::from_utf8_lossy(&bytes))
}
