//! The jobs of a batch: those of a file, or one for each step of a run.

use crate::cli::batch_places::{Places, REPORT};
use crate::cli::command::{Parse, Parsed};
use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::source::saved::Checkpoint;
use crate::store::io::ReadFile;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The flag that says where a result goes, and another's name for it.
const DESTINATIONS: &[&str] = &["--dst", "--output_dir"];
/// The flag that says how a run shows how far it is.
const PROGRESS: &str = "progress";
/// Most bytes of a file of jobs.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A job.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// What it is called in what is printed.
    pub(super) label: String,
    /// Its step.
    pub(super) suffix: Option<String>,
    /// Where its result goes, if it has one.
    pub(super) destination: Option<PathBuf>,
    /// What would be typed.
    pub(super) words: Vec<String>,
    /// Why it can't be done.
    pub(super) why: Option<String>,
}

/// A step that there is.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// What `--file-suffix` takes to mean it alone.
    pub(super) suffix: String,
    /// Its run, epoch and step.
    pub(super) place: (Option<u64>, (u64, u64)),
    /// Why it isn't complete; none, if it is.
    pub(super) why: Option<String>,
}

/// The steps of these checkpoints, each by what means no other job's, too.
pub(super) fn steps(checkpoints: &[Checkpoint]) -> Vec<Step> {
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for checkpoint in checkpoints {
        *times.entry(checkpoint.name.suffix()).or_default() += 1;
    }
    let step = |checkpoint: &Checkpoint| {
        let (name, suffix) = (&checkpoint.name, checkpoint.name.suffix());
        let shared = times.get(&suffix).is_some_and(|times| *times > 1);
        Step {
            suffix: if shared { name.prefixed() } else { suffix },
            place: name.place(),
            why: checkpoint.why.clone(),
        }
    };
    checkpoints.iter().map(step).collect()
}

/// A job for each step.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    /// Their suffixes; none: all.
    wanted: Option<Vec<String>>,
    /// Where they are.
    pub(super) source: PathBuf,
    /// Where the results go, each into a directory of its own.
    pub(super) destination: PathBuf,
    words: Vec<String>,
}

/// What is asked for.
pub(super) struct Asked {
    pub(super) jobs: Vec<Job>,
    pub(super) steps: Option<Steps>,
}

fn usage(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Usage, message)
}

fn understood(words: &[String], parse: Parse) -> Result<Parsed> {
    let job = parse(words)?;
    if !job.jobs.contains(&job.name) {
        let fault = usage(format!("'{}' is no job of a batch", job.name));
        return Err(fault.hint(format!("jobs are {}", job.jobs.join(", "))));
    }
    let shows = job.is_given(PROGRESS).then_some(PROGRESS);
    if let Some(flag) = job.of_all.or(shows) {
        let fault = usage(format!("--{flag} is of the whole batch, not of one job"));
        return Err(fault.hint(format!(
            "give it before the jobs: shardloom batch --{flag} …"
        )));
    }
    Ok(job)
}

/// The lines of a file with the number of each; one that ends with a backslash goes on, as a shell's.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (number, line) in (1..).zip(text.lines()) {
        let comment = !goes_on && line.trim_start().starts_with('#');
        let stem = line.strip_suffix('\\').filter(|_| !comment);
        // Two are one that is meant.
        let stem = stem.filter(|stem| (stem.len() - stem.trim_end_matches('\\').len()) % 2 == 0);
        let part = stem.unwrap_or(line);
        match lines.last_mut().filter(|_| goes_on) {
            Some((_, before)) => before.push_str(part),
            None => lines.push((number, part.to_owned())),
        }
        goes_on = stem.is_some();
    }
    lines
}

/// The jobs of a file. Local.
///
/// # Errors
/// [`Kind::Usage`] naming file and line, [`Kind::Io`].
pub(super) fn listed(words: &[String], parse: Parse) -> Result<Asked> {
    let [file] = words else {
        let message = format!(
            "'{}' doesn't belong here",
            words.get(1).map_or("", String::as_str)
        );
        return Err(
            usage(message).hint("flags stand before the file; a job for each step: --steps all")
        );
    };
    let bytes = ReadFile::open(Path::new(file)).and_then(|file| file.read_all(FILE_BYTES_MAX));
    let bytes = bytes
        .map_err(|fault| fault.hint("batch takes a file of jobs, or --steps all and a job"))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| usage("is not UTF-8").file(file))?;
    let mut jobs = Vec::new();
    let mut places = Places::default();
    for (number, line) in lines(text.trim_start_matches('\u{feff}')) {
        let at = |fault: Fault| Fault {
            message: format!("line {number}: {}", fault.message),
            kind: Kind::Usage,
            ..fault
        };
        let words = shlex::split(&line).ok_or_else(|| usage("a quotation mark is missing"));
        let words = words.map_err(|fault| at(fault).file(file))?;
        let program = |word: &String| word == "shardloom" || word.ends_with("/shardloom");
        let begin = words.iter().position(program).map_or(0, |at| at + 1);
        let words = words.get(begin..).unwrap_or_default().to_vec();
        if words.is_empty() {
            continue;
        }
        let job = understood(&words, parse).map_err(|fault| at(fault).file(file))?;
        let entered = places.enter(&job, number);
        entered.map_err(|fault| at(fault).file(file))?;
        jobs.push(Job {
            label: words.join(" "),
            suffix: None,
            destination: job.path("dst"),
            words,
            why: None,
        });
    }
    match jobs.is_empty() {
        true => Err(usage("has no job in it")
            .file(file)
            .hint("a line is a job as it would be typed")),
        false => Ok(Asked { jobs, steps: None }),
    }
}

/// A job for each of these steps. Local.
///
/// # Errors
/// [`Kind::Usage`].
pub(super) fn of_steps(steps: &[String], words: &[String], parse: Parse) -> Result<Asked> {
    let mut words = words.to_vec();
    if words.first().is_some_and(|word| word.starts_with('-')) {
        let cuts = words
            .iter()
            .any(|word| word == "--dst-strategy" || word.starts_with("--dst-strategy="));
        words.insert(0, if cuts { "reshard" } else { "unify" }.to_owned());
    }
    let job = understood(&words, parse)?;
    let (source, destination) = (job.path("src"), job.path("dst"));
    let (Some(source), Some(destination)) = (source, destination) else {
        return Err(usage(format!(
            "--steps wants a --src and a --dst of {}",
            job.name
        )));
    };
    if !job.has("--file-suffix") {
        let message = format!("--steps: {} has no steps to choose among", job.name);
        return Err(usage(message).hint("reshard, unify, export and to have them"));
    }
    if !job.takes("--file-suffix") {
        let message = format!(
            "--steps says which files are meant, and so does the --file-suffix of {}",
            job.name
        );
        return Err(usage(message).hint("leave out its --file-suffix"));
    }
    let all = steps.iter().any(|step| step == "all");
    if all && steps.len() > 1 {
        return Err(usage("--steps: all, or some"));
    }
    if job.is_given(REPORT) && (all || steps.len() > 1) {
        let fault = usage("--report: the page of each step would take the place of the one before");
        return Err(fault.hint("leave out --report, or give one step"));
    }
    Ok(Asked {
        jobs: Vec::new(),
        steps: Some(Steps {
            wanted: (!all).then(|| steps.to_vec()),
            source,
            destination,
            words,
        }),
    })
}

impl Steps {
    /// The jobs, of the steps that there are.
    ///
    /// # Errors
    /// [`Kind::MissingShard`] if there is none, or not one that is asked for.
    pub(super) fn jobs(&self, found: &[Step]) -> Result<Vec<Job>> {
        let missing = |message: String| {
            let fault = Fault::new(Kind::MissingShard, message);
            fault.file(self.source.display().to_string())
        };
        let there: Vec<&str> = found.iter().map(|step| step.suffix.as_str()).collect();
        if there.is_empty() {
            return Err(missing("has no checkpoint that a trainer has named".into()));
        }
        let known: BTreeSet<&str> = there.iter().copied().collect();
        for wanted in self.wanted.iter().flatten() {
            if !known.contains(wanted.as_str()) {
                let message = format!("has no step {wanted}");
                return Err(missing(message).hint(format!("it has {}", first(&there, 12))));
            }
        }
        let is_wanted = |step: &&Step| match &self.wanted {
            Some(wanted) => wanted.contains(&step.suffix),
            None => true,
        };
        Ok(found
            .iter()
            .filter(is_wanted)
            .map(|step| self.job(step))
            .collect())
    }

    fn job(&self, step: &Step) -> Job {
        let destination = self.destination.join(&step.suffix);
        let given = destination.to_string_lossy().into_owned();
        let mut words = Vec::with_capacity(self.words.len() + 2);
        let mut replaces = false;
        for word in &self.words {
            let (flag, value) = word
                .split_once('=')
                .map_or((word.as_str(), None), |(f, v)| (f, Some(v)));
            let is_destination = DESTINATIONS.contains(&flag);
            words.push(match (replaces, is_destination && value.is_some()) {
                (true, _) => given.clone(),
                (_, true) => format!("{flag}={given}"),
                _ => word.clone(),
            });
            replaces = is_destination && value.is_none() && !replaces;
        }
        words.extend(["--file-suffix".to_owned(), step.suffix.clone()]);
        Job {
            label: step.suffix.clone(),
            suffix: Some(step.suffix.clone()),
            destination: Some(destination),
            words,
            why: step.why.clone(),
        }
    }
}
