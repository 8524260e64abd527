//! Where the jobs of a batch read and write: no result may be in the way of another job.

use crate::cli::command::Parsed;
use crate::fault::{Fault, Kind, Result};
use crate::store::resolved::resolved;
use std::path::{Path, PathBuf};

/// The flag that says where the page of a job goes.
pub(super) const REPORT: &str = "report";
/// The arguments that say what a job reads.
const READ: [&str; 16] = [
    "src",
    "hf",
    "a",
    "b",
    "directory",
    "against",
    "from",
    "src_strategy",
    "dst_strategy",
    "a_strategy",
    "b_strategy",
    "lora",
    "hf_config",
    "model",
    "config",
    "name_map",
];

/// A place, and the line of the job that has it.
type At = (PathBuf, usize);

/// The places of the jobs so far.
#[derive(Default)]
pub(super) struct Places {
    written: Vec<At>,
    read: Vec<At>,
    pages: Vec<At>,
}

impl Places {
    /// Enters those of the job in line `number`. Local.
    ///
    /// # Errors
    /// [`Kind::Usage`] naming the place and the line of the other job.
    pub(super) fn enter(&mut self, job: &Parsed, number: usize) -> Result<()> {
        let read: Vec<PathBuf> = READ
            .iter()
            .filter_map(|id| job.path(id))
            .map(|path| real(&path))
            .collect::<Result<_>>()?;
        let shown = match job.is_given("in_place") {
            true => job.path("src"),
            false => job.path("dst"),
        };
        if let Some(shown) = shown {
            let place = real(&shown)?;
            for (other, line) in &self.written {
                if let Some(relation) = relation(&place, other) {
                    let what = match relation {
                        Relation::Is => format!("is where line {line} writes, too"),
                        Relation::Inside => {
                            format!("lies inside {}, where line {line} writes", other.display())
                        }
                        Relation::Around => {
                            format!("contains {}, where line {line} writes", other.display())
                        }
                    };
                    return Err(refused(&shown, &what));
                }
            }
            for (other, line) in &self.read {
                if let Some(relation) = relation(&place, other) {
                    let what = match relation {
                        Relation::Is => format!("is what line {line} reads"),
                        Relation::Inside => {
                            format!("lies inside {}, which line {line} reads", other.display())
                        }
                        Relation::Around => {
                            format!("contains {}, which line {line} reads", other.display())
                        }
                    };
                    return Err(refused(&shown, &what));
                }
            }
            self.written.push((place, number));
        }
        if let Some(shown) = job.path(REPORT) {
            let page = real(&shown)?;
            if let Some((_, line)) = self.pages.iter().find(|(other, _)| *other == page) {
                return Err(refused(&shown, &format!("is the page of line {line}, too")));
            }
            self.pages.push((page, number));
        }
        // What an earlier line has written may be read; what lies around it changes while it is.
        for place in &read {
            for (other, line) in self.written.iter().filter(|(_, line)| *line != number) {
                if matches!(relation(other, place), Some(Relation::Inside)) {
                    let what = format!("has in it {}, where line {line} writes", other.display());
                    return Err(refused(place, &what));
                }
            }
        }
        self.read
            .extend(read.into_iter().map(|place| (place, number)));
        Ok(())
    }
}

fn refused(place: &Path, what: &str) -> Fault {
    Fault::new(Kind::Usage, format!("{} {what}", place.display()))
        .hint("each job needs a place of its own, apart from what others read")
}

/// `path` with its links resolved.
///
/// # Errors
/// [`Kind::Usage`] for one that can't be told from others before its job runs, as `new/../new`; [`Kind::Io`].
fn real(path: &Path) -> Result<PathBuf> {
    resolved(path)
}

/// How a place lies to another one.
enum Relation {
    Is,
    Inside,
    Around,
}

fn relation(place: &Path, other: &Path) -> Option<Relation> {
    match (place.starts_with(other), other.starts_with(place)) {
        (true, true) => Some(Relation::Is),
        (true, false) => Some(Relation::Inside),
        (false, true) => Some(Relation::Around),
        (false, false) => None,
    }
}
