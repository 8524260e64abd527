//! From what all ranks offer to one position, or to a fault that says who has what.

use super::name::{File, Position, classify, file_name, fits};
use super::{Asked, Chosen, Offered};
use crate::fault::plain::first;
use crate::fault::{Fault, Kind, Result};
use crate::source::meta::Name;
use crate::source::ranks::named;
use std::collections::{BTreeMap, BTreeSet};

/// What to do where several files of a rank could be meant.
const SAY_WHICH: &str =
    "say which with --file-suffix, for example --file-suffix 1_100 (epoch_step)";
/// Most positions that a message spells out.
const SHOWN_MAX: usize = 6;

/// The flag that chooses a position, as it is typed.
pub(in crate::source) fn flag(label: &str) -> String {
    // A shell would take the rank's place for names of files, and a space for the end.
    let odd = |c: char| !c.is_alphanumeric() && !"-_.".contains(c);
    let quote = if label.contains(odd) { "'" } else { "" };
    let between = if label.starts_with('-') { '=' } else { ' ' };
    format!("--file-suffix{between}{quote}{label}{quote}")
}

/// Chooses each rank's file: all of one position.
///
/// # Errors
/// [`Kind::Ambiguous`] if the ranks' newest are different ones, several files could be meant, or a file is
/// named for another rank; [`Kind::MissingShard`] if what is asked for isn't there, or not on all ranks.
pub(crate) fn choose(offered: &Offered, asked: Asked<'_>) -> Result<Chosen> {
    let files = classify(offered);
    let standing = Standing::new(offered, &files, asked);
    let meant = standing.meant();
    let stray = files
        .iter()
        .find(|file| file.misplaced.is_some() && meant.contains(&&file.position));
    if let Some(file) = stray {
        return Err(misplaced(file));
    }
    let position = match meant[..] {
        [one] => one,
        [] => return Err(standing.nothing()),
        _ => return Err(standing.several(&meant)),
    };
    let mut chosen = BTreeMap::new();
    for rank in &standing.ranks {
        match standing.of(position, *rank)[..] {
            [] => return Err(standing.uneven(position)),
            [one] => chosen.insert(*rank, one.to_owned()),
            ref more => return Err(ambiguous(*rank, more).hint(SAY_WHICH)),
        };
    }
    Ok(Chosen {
        suffix: standing.label(position),
        files: chosen,
        older: standing.older(position),
        aside: standing.aside(position),
        beyond: Vec::new(),
    })
}

/// The same of a job of so many `ranks`: what is asked for may be a position of that job, which went on where an
/// older one of more ranks had been.
///
/// # Errors
/// As [`choose`].
pub(crate) fn choose_of(offered: &Offered, asked: Asked<'_>, ranks: Option<u32>) -> Result<Chosen> {
    let fault = match choose(offered, asked) {
        Err(fault) if fault.kind == Kind::MissingShard => fault,
        chosen => return chosen,
    };
    let (Some(ranks), Asked::Suffix(_) | Asked::Saved(_)) = (ranks, asked) else {
        return Err(fault);
    };
    let mut own = offered.clone();
    let others = own.split_off(&ranks);
    let has_it = |(rank, files): (&u32, &Vec<String>)| {
        choose(&Offered::from([(*rank, files.clone())]), asked).is_ok()
    };
    match choose(&own, asked) {
        Ok(chosen) if !others.iter().any(has_it) => Ok(Chosen {
            beyond: others.into_keys().collect(),
            ..chosen
        }),
        _ => Err(fault),
    }
}

/// Who has which position, and what is asked for.
struct Standing<'a> {
    asked: Asked<'a>,
    ranks: Vec<u32>,
    /// The files of each position by rank, but for those named for another rank.
    positions: BTreeMap<&'a Position, BTreeMap<u32, Vec<&'a File<'a>>>>,
}

impl<'a> Standing<'a> {
    fn new(offered: &Offered, files: &'a [File<'a>], asked: Asked<'a>) -> Self {
        let mut positions: BTreeMap<_, BTreeMap<u32, Vec<_>>> = BTreeMap::new();
        for file in files {
            let ranks = positions.entry(&file.position).or_default();
            if file.misplaced.is_none() {
                ranks.entry(file.rank).or_default().push(file);
            }
        }
        Standing {
            asked,
            ranks: offered.keys().copied().collect(),
            positions,
        }
    }

    /// The positions that are as good as each other for what is asked.
    fn meant(&self) -> Vec<&'a Position> {
        let all = self.positions.keys().copied();
        match self.asked {
            Asked::Newest => self.newest(),
            Asked::Suffix(suffix) => {
                let fitting = |(position, ranks): (&&'a Position, &BTreeMap<_, Vec<&File<'_>>>)| {
                    let fits = ranks.values().flatten().any(|file| fits(suffix, file));
                    fits.then_some(*position)
                };
                let fitting: Vec<&Position> = self.positions.iter().filter_map(fitting).collect();
                let class = fitting.iter().map(|position| position.class()).min();
                let best = fitting.into_iter();
                best.filter(|position| Some(position.class()) == class)
                    .collect()
            }
            Asked::Saved(name) => all
                .filter(|position| matches!(position, Position::Saved(saved) if saved == name))
                .collect(),
        }
    }

    /// The newest of each series: which of two series is newer no number says. What has none is left beside a
    /// trainer's files.
    fn newest(&self) -> Vec<&'a Position> {
        let all: Vec<&Position> = self.positions.keys().copied().collect();
        let is_saved = |position: &&Position| matches!(position, Position::Saved(_));
        let any_saved = all.iter().any(is_saved);
        let counts = |position: &Position| !any_saved || !matches!(position, Position::Plain(_));
        let mut newest: BTreeMap<String, Vec<u128>> = BTreeMap::new();
        for position in &all {
            let age = newest.entry(position.series()).or_default();
            *age = position.age().max(std::mem::take(age));
        }
        let is_newest =
            |position: &Position| newest.get(&position.series()) == Some(&position.age());
        let all = all.into_iter();
        all.filter(|position| counts(position) && is_newest(position))
            .collect()
    }

    /// The files of `position` that `rank` has. An ending may tell apart what numbers don't.
    fn of(&self, position: &Position, rank: u32) -> Vec<&'a str> {
        let ranks = self.positions.get(position);
        let here = ranks
            .and_then(|ranks| ranks.get(&rank))
            .into_iter()
            .flatten();
        let (fitting, others): (Vec<&File<'_>>, Vec<&File<'_>>) =
            here.copied().partition(|file| match self.asked {
                Asked::Suffix(suffix) => fits(suffix, file),
                _ => true,
            });
        // One that has a rank's number in it means the same position of all.
        let here = if fitting.is_empty() { others } else { fitting };
        here.iter().map(|file| file.path).collect()
    }

    /// All positions, newest first.
    fn newest_first(&self) -> Vec<&'a Position> {
        let mut positions: Vec<&Position> = self.positions.keys().copied().collect();
        positions.sort_by_cached_key(|position| std::cmp::Reverse((position.age(), *position)));
        positions
    }

    /// Whether all ranks have one file of `position`.
    fn everywhere(&self, position: &Position) -> bool {
        self.positions.get(position).is_some_and(|ranks| {
            ranks.len() == self.ranks.len() && ranks.values().all(|files| files.len() == 1)
        })
    }

    fn older(&self, than: &Position) -> Vec<(String, BTreeMap<u32, String>)> {
        let (age, series) = (than.age(), than.series());
        let older = self.newest_first().into_iter().filter(|position| {
            *position != than
                && position.series() == series
                && position.age() <= age
                && self.everywhere(position)
        });
        let files = |position: &Position| {
            let ranks = self.positions.get(position).into_iter().flatten();
            ranks
                .filter_map(|(rank, files)| Some((*rank, files.first()?.path.to_owned())))
                .collect()
        };
        older
            .map(|position| (self.label(position), files(position)))
            .collect()
    }

    /// Files without a position beside a trainer's `position`.
    fn aside(&self, position: &Position) -> Vec<String> {
        let beside = self.positions.iter().filter(|(other, _)| {
            matches!(position, Position::Saved(_)) && matches!(other, Position::Plain(_))
        });
        let files = beside.flat_map(|(_, ranks)| ranks.values().flatten());
        files.map(|file| file.path.to_owned()).collect()
    }

    /// What `--file-suffix` takes to mean `position`, with its prefix where others have the same.
    fn label(&self, position: &Position) -> String {
        let suffix = position.suffix();
        let same = self
            .positions
            .keys()
            .filter(|other| other.suffix() == suffix);
        match position {
            Position::Saved(name) if same.count() > 1 => name.prefixed(),
            _ => suffix,
        }
    }

    /// `1_20 on ranks 0-1; 1_10 on ranks 0-3`: newest first, down to the newest that all ranks have.
    fn told(&self) -> String {
        let mut told = Vec::new();
        let all = self.newest_first();
        for position in &all {
            let ranks = self.positions.get(position).into_iter().flatten();
            let ranks: Vec<u32> = ranks.map(|(rank, _)| *rank).collect();
            if ranks.is_empty() {
                continue;
            }
            told.push(format!("{} on {}", self.label(position), named(&ranks)));
            if told.len() == SHOWN_MAX || self.everywhere(position) {
                break;
            }
        }
        let more = all.len() - told.len();
        if more > 0 {
            told.push(format!("{more} older"));
        }
        told.join("; ")
    }

    /// What to do: the newest position that all ranks have.
    fn advice(&self) -> String {
        let common = self.newest_first();
        let common = common
            .into_iter()
            .find(|position| self.everywhere(position));
        common.map_or_else(
            || {
                let nothing =
                    "there is no position that all ranks have; was every rank's file copied?";
                let pattern = self.pattern().map(|name| {
                    format!(" If names end in their rank: --src 'DIR/rank_{{rank}}/{name}'")
                });
                format!("{nothing}{}", pattern.unwrap_or_default())
            },
            |position| {
                let label = self.label(position);
                format!(
                    "the newest that all ranks have is {label}: {}",
                    flag(&label)
                )
            },
        )
    }

    /// The name that the ranks' files would have in common, if what they end in is their rank.
    fn pattern(&self) -> Option<String> {
        let mut files = self
            .positions
            .values()
            .flat_map(|ranks| ranks.values().flatten());
        let pattern = |file: &&File<'_>| {
            let (stem, extension) = file_name(file.path).rsplit_once('.')?;
            let before = stem.strip_suffix(&file.rank.to_string())?;
            Some(format!("{before}{{rank}}.{extension}"))
        };
        let first = pattern(files.next()?)?;
        files
            .all(|file| pattern(file).as_ref() == Some(&first))
            .then_some(first)
    }

    /// Not all ranks have `position`.
    fn uneven(&self, position: &Position) -> Fault {
        let has = |rank: &&u32| {
            let ranks = self.positions.get(position);
            ranks.is_some_and(|ranks| ranks.contains_key(*rank))
        };
        let lacking: Vec<u32> = self
            .ranks
            .iter()
            .filter(|rank| !has(rank))
            .copied()
            .collect();
        let label = self.label(position);
        let (kind, message) = match self.asked {
            Asked::Newest => {
                let message = format!(
                    "the ranks' newest files are of several steps: {}",
                    self.told()
                );
                (Kind::Ambiguous, message)
            }
            _ => {
                let message = format!("{} no file of {label}: {}", have(&lacking), self.told());
                (Kind::MissingShard, message)
            }
        };
        let fault = Fault::new(kind, message).hint(self.advice());
        lacking
            .first()
            .map_or(fault.clone(), |rank| fault.rank(*rank))
    }

    /// Several positions could be meant.
    fn several(&self, meant: &[&Position]) -> Fault {
        for rank in &self.ranks {
            let here: Vec<&str> = meant
                .iter()
                .flat_map(|position| self.of(position, *rank))
                .collect();
            if here.len() > 1 {
                // What some rank lacks is no choice, unless all are so.
                let common = meant.iter().filter(|one| self.everywhere(one));
                let common: Vec<&&Position> = common.collect();
                let all = meant.iter().collect();
                let offered = if common.is_empty() { all } else { common };
                let mut labels: Vec<String> = offered.iter().map(|one| self.label(one)).collect();
                labels.dedup();
                return match &labels[..] {
                    [one, .., last] => ambiguous(*rank, &here).hint(format!(
                        "{} chooses one, {} another",
                        flag(one),
                        flag(last)
                    )),
                    [one] if offered.len() < meant.len() => ambiguous(*rank, &here)
                        .hint(format!("{} is what all ranks have", flag(one))),
                    _ => ambiguous(*rank, &here).hint(SAY_WHICH),
                };
            }
        }
        let message = format!(
            "the ranks' files are of several checkpoints: {}",
            self.told()
        );
        Fault::new(Kind::Ambiguous, message).hint(self.advice())
    }

    /// Nobody has what is asked for.
    fn nothing(&self) -> Fault {
        let ending = match self.asked {
            Asked::Newest => String::new(),
            Asked::Suffix(suffix) => format!(" whose name ends with '{suffix}'"),
            Asked::Saved(name) => format!(" of {}", name.suffix()),
        };
        let positions = self.newest_first().into_iter();
        let there: Vec<String> = positions.map(|position| self.label(position)).collect();
        let list = first(&there, 4 * SHOWN_MAX);
        let message = format!("no rank has a weight file{ending}; there are: {list}");
        Fault::new(Kind::MissingShard, message).hint(self.advice())
    }
}

fn have(ranks: &[u32]) -> String {
    let verb = if ranks.len() == 1 { "has" } else { "have" };
    format!("{} {verb}", named(ranks))
}

fn misplaced(file: &File<'_>) -> Fault {
    let other = file.misplaced.unwrap_or_default();
    let message = format!(
        "is named for rank {other} and lies in the directory of rank {}",
        file.rank
    );
    Fault::new(Kind::Ambiguous, message)
        .file(file.path)
        .rank(file.rank)
        .hint("was it copied into the wrong directory? Move it, or give it its rank's name")
}

fn ambiguous(rank: u32, paths: &[&str]) -> Fault {
    let names: Vec<&str> = paths.iter().map(|path| file_name(path)).collect();
    let directory = paths[0]
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory);
    let message = format!("several files could be meant: {}", names.join(", "));
    let fault = Fault::new(Kind::Ambiguous, message);
    let fault = fault.file(directory).rank(rank);
    let steps: BTreeSet<_> = names.iter().map(|name| Name::parse(name)).collect();
    match steps.len() == 1 && !steps.contains(&None) {
        true => {
            fault.hint("a trainer takes their names for one step's: rename one, or move it away")
        }
        false => fault,
    }
}
