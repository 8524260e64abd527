//! What is measured between processes, how often, and where the result goes.

use crate::cli::flags::amount::{parse_percent, parse_size_or_nothing, parse_time};
use crate::cli::flags::moving::ProgressArgs;
use crate::cli::flags::report::ReportArgs;
use crate::cli::flags::size::parse_size;
use crate::cli::output::try_replacing;
use crate::exchange::{World, agree};
use crate::fault::{Fault, Kind, Result};
use crate::measure::baseline::Baseline;
use crate::measure::bench::{Measured, Repeat};
use crate::measure::collectives::{self, BYTES_MAX, Question};
use crate::report::{Report, save_picture};
use crate::store::io::{Standing, standing};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Iterations where nothing is said: of what takes long, and of what doesn't.
const ITERATIONS: (u32, u32) = (5, 1000);
/// How long a row may take where nothing is said, unless files are written.
const TIME: Duration = Duration::from_millis(100);
/// What is said where there is no directory.
const EXISTING: &str = "--dir takes a directory that exists, on every node: make it first";
/// No limit.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// Where it is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlaceArgs {
    /// Existing directory to write in, for what concerns files.
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

impl PlaceArgs {
    /// Whether there is such a directory, on all nodes. Collective.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(crate) fn check(&self, world: &World) -> Result<()> {
        let stands = standing(&self.dir).map_err(|fault| fault.hint(EXISTING));
        let message = match agree(world, stands)? {
            Standing::Nothing => Some("--dir doesn't exist"),
            Standing::File => Some("--dir is no directory"),
            _ => None,
        };
        let refused = message.map(|message| {
            let fault = Fault::new(Kind::Io, message);
            fault.file(self.dir.display().to_string()).hint(EXISTING)
        });
        agree(world, refused.map_or(Ok(()), Err))
    }
}

/// How often something is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct RepeatArgs {
    /// How often it is measured at most; it ends earlier once the spread is small [default: 1000, with
    /// files 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,
    /// How long one row is measured at most [default: 100ms, of an exchange 2s, with files no
    /// limit].
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time: Option<Duration>,
    /// How often it is done before that.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: u32,
}

impl RepeatArgs {
    /// Of what takes long.
    pub(crate) fn few(&self) -> Repeat {
        let time = self.time.unwrap_or(FOR_EVER);
        Repeat::new(self.iterations.unwrap_or(ITERATIONS.0), self.warmup, time)
    }

    /// Of what may take long or not.
    pub(crate) fn some(&self) -> Repeat {
        let time = self.time.unwrap_or(20 * TIME);
        Repeat::new(self.iterations.unwrap_or(ITERATIONS.1), self.warmup, time)
    }

    /// Of what doesn't.
    pub(crate) fn many(&self) -> Repeat {
        let time = self.time.unwrap_or(TIME);
        Repeat::new(self.iterations.unwrap_or(ITERATIONS.1), self.warmup, time)
    }
}

/// What is measured between processes.
#[derive(Clone, Debug, Args)]
pub(crate) struct MessageArgs {
    /// Smallest size; 0 asks for empty messages too, where there are such.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size_or_nothing)]
    min_size: u64,
    /// Largest size, at most 1GiB.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    max_size: u64,
    /// Each size is so many times the one before.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..))]
    factor: u64,
    /// Messages in flight, in one_way, both_ways and many_pairs.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    window: u32,
    /// Empty the caches before each time.
    #[arg(long)]
    off_cache: bool,
    /// The same over 2, 4, 8 … processes, too.
    #[arg(long)]
    scaling: bool,
    /// Every node with every other too, all at once in shifted rounds; of one node, its processes.
    #[arg(long)]
    pairs: bool,
    /// Only this operation (repeatable).
    #[arg(long, value_name = "NAME", value_parser = parse_operation)]
    operation: Vec<String>,
    /// Make a byte wrong that this operation brings.
    #[arg(long, value_name = "NAME", hide = true)]
    plant_wrong_byte: Option<String>,
}

impl MessageArgs {
    /// Whether there are sizes to measure. Local.
    pub(crate) fn check(&self) -> Result<()> {
        let usage = |message: String| Err(Fault::new(Kind::Usage, message));
        if self.max_size > BYTES_MAX {
            return usage(format!(
                "--max-size {}: a message has {BYTES_MAX} bytes at most",
                self.max_size
            ));
        }
        if self.min_size > self.max_size {
            let (min, max) = (self.min_size, self.max_size);
            return usage(format!("--min-size {min} is more than --max-size {max}"));
        }
        Ok(())
    }

    /// What is to be measured so often.
    pub(crate) fn question(&self, repeat: Repeat) -> Question {
        let mut question = Question::new(self.max_size, repeat);
        question.bytes_min = self.min_size;
        question.factor = self.factor;
        question.window = self.window;
        question.repeat.off_cache = self.off_cache;
        question.operations.clone_from(&self.operation);
        question.scaling = self.scaling;
        question.pairs = self.pairs;
        question.planted.clone_from(&self.plant_wrong_byte);
        question
    }
}

/// Where the result goes besides the screen, and what it is compared with.
#[derive(Clone, Debug, Args)]
pub(crate) struct OutputArgs {
    /// Draw the result.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the rows as a table of values separated by commas.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a page with tables and pictures.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
    #[command(flatten)]
    pub(crate) report: ReportArgs,
    /// Compare with an earlier result (--json); what is slower is named, and the exit code is 1.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How much slower something may be.
    #[arg(long, value_name = "PERCENT", default_value = "10%", requires = "baseline", value_parser = parse_percent)]
    tolerance: f64,
}

/// Files that can be written, and what was read.
pub(crate) struct Output {
    args: OutputArgs,
    baseline: Option<Baseline>,
}

impl OutputArgs {
    /// Reads the earlier result, and tries the files, on process 0. Collective.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for what is no result, [`Kind::Io`].
    pub(crate) fn open(&self, world: &World) -> Result<Output> {
        let opened = match world.process() {
            0 => self.open_alone(),
            _ => Ok(None),
        };
        Ok(Output {
            args: self.clone(),
            baseline: agree(world, opened)?,
        })
    }

    fn open_alone(&self) -> Result<Option<Baseline>> {
        for (file, begins) in [
            (&self.svg, "<svg"),
            (&self.csv, "operation,"),
            (&self.html, "<!doctype html>"),
        ] {
            let file = file.as_deref();
            file.map_or(Ok(()), |file| try_replacing(file, begins))?;
        }
        self.baseline.as_deref().map(Baseline::read).transpose()
    }
}

impl Output {
    /// Compares with the earlier result. Local, of use on process 0.
    pub(crate) fn compare(&self, measured: &mut Measured) {
        if let Some(baseline) = &self.baseline {
            baseline.judge(measured, self.args.tolerance);
        }
    }

    /// Writes the files. Local, on one process.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(crate) fn save(&self, measured: &Measured) -> Result<()> {
        if let Some(path) = &self.args.svg {
            save_picture(path, &Report::measured_picture(measured))?;
        }
        if let Some(path) = &self.args.csv {
            save_picture(path, &Report::measured_table(measured))?;
        }
        if let Some(path) = &self.args.html {
            save_picture(path, &Report::measured_page(measured))?;
        }
        Ok(())
    }
}

fn parse_operation(text: &str) -> std::result::Result<String, String> {
    let names = collectives::names();
    match names.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("there are {}", names.join(", "))),
    }
}
