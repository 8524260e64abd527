//! Sets of files of which each one's name says how many there are: `model-00001-of-00005.safetensors`.
//!
//! A part of a set is no model: whoever takes files of one without an index has to take all of it.

use crate::fault::{Fault, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What stands around the count.
const OF: [&str; 3] = ["-of-", "_of_", ".of."];

/// A set: what comes before its files' numbers, how many files it has, and what comes after the numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Set<'a> {
    pub(super) before: &'a str,
    pub(super) files: u64,
    pub(super) rest: &'a str,
    pub(super) extension: &'a str,
}

impl<'a> Set<'a> {
    /// The set that a file called `name` is of, and its number there.
    pub(super) fn of(name: &'a str) -> Option<(Set<'a>, u64)> {
        let (at, of) = OF.iter().find_map(|of| Some((name.rfind(of)?, of)))?;
        let (beginning, rest) = (&name[..at], &name[at + of.len()..]);
        let end = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let before = beginning.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = beginning[before.len()..].parse().ok()?;
        let files = rest[..rest.len() - end.len()].parse().ok();
        let files = files.filter(|files| *files > 1 && number <= *files)?;
        let name_end = name.len() - end.len() + end.rfind('.').unwrap_or(end.len());
        let set = Set {
            before,
            files,
            rest: &name[at..name_end],
            extension: &name[name_end..],
        };
        (end.is_empty() || end.starts_with(['.', '-', '_'])).then_some((set, number))
    }

    /// The glob that takes all its files.
    pub(super) fn glob(&self) -> String {
        format!("{}*{}{}", self.before, self.rest, self.extension)
    }
}

/// The glob that takes all of `names`, if they are the files of one set.
pub(crate) fn one_set<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<String> {
    let (first, _) = Set::of(names.next()?)?;
    names
        .all(|name| Set::of(name).is_some_and(|(set, _)| set == first))
        .then(|| first.glob())
}

/// The numbers of files by their sets, whatever form the files have, with the first one's set and name.
type Met<'a> = BTreeMap<Set<'a>, (Set<'a>, &'a str, BTreeSet<u64>)>;

fn met<'a>(names: impl Iterator<Item = &'a str>) -> Met<'a> {
    let mut met = Met::new();
    for name in names {
        if let Some((set, number)) = Set::of(name) {
            let any = Set {
                extension: "",
                ..set
            };
            let (.., numbers) = met.entry(any).or_insert((set, name, BTreeSet::new()));
            numbers.insert(number);
        }
    }
    met
}

/// Refuses files that are `taken` without an index if not `all` of their sets are in the directory at `path`.
///
/// # Errors
/// [`Kind::MissingShard`] naming the file.
pub(super) fn refuse_lacking<'a>(
    path: &Path,
    all: &[&'a str],
    taken: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let there = met(all.iter().copied());
    let lacks = |set: &Set<'a>| {
        let there = there.get(set).map_or(0, |(.., numbers)| numbers.len());
        ((there as u64) < set.files).then_some(there)
    };
    let mut taken = met(taken).into_iter();
    let first = taken.find_map(|(set, (_, name, _))| Some((set, name, lacks(&set)?)));
    first.map_or(Ok(()), |(set, name, there)| {
        Err(part(path, &set, name, there, "there"))
    })
}

/// Refuses files that are `taken` and are a part of a set.
///
/// # Errors
/// [`Kind::MissingShard`] naming the file.
pub(super) fn refuse_part<'a>(path: &Path, taken: impl Iterator<Item = &'a str>) -> Result<()> {
    for (set, name, numbers) in met(taken).into_values() {
        if (numbers.len() as u64) < set.files {
            let hint = format!(
                "--weights '{}' takes all of them; a file's own name takes that one alone",
                set.glob()
            );
            return Err(part(path, &set, name, numbers.len(), "taken").hint(hint));
        }
    }
    Ok(())
}

fn part(path: &Path, set: &Set<'_>, name: &str, count: usize, what: &str) -> Fault {
    let are = if count == 1 { "is" } else { "are" };
    let message = format!(
        "is one of {} files, of which {count} {are} {what}",
        set.files
    );
    Fault::new(Kind::MissingShard, message).file(path.join(name).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_how_many_there_are() {
        for (before, digits, rest, number, files) in [
            ("model-", "00001", "-of-00005", 1, 5),
            ("model_", "00001", "_of_00005", 1, 5),
            ("w.", "1", "-of-5", 1, 5),
            ("w-", "00000", "-of-00002.fp32", 0, 2),
            ("w-", "00003", "-of-00003-int8", 3, 3),
            ("model", "00001", ".of.00002", 1, 2),
        ] {
            let extension = ".safetensors";
            let set = Set {
                before,
                files,
                rest,
                extension,
            };
            let name = format!("{before}{digits}{rest}{extension}");
            assert!(Set::of(&name) == Some((set, number)), "{name}");
        }
        for name in [
            "model.safetensors",
            "best-of-5.safetensors",
            "model-00001-of-00001.safetensors",
            "model-7-of-3.safetensors",
            "one-of-two.safetensors",
            "model-00001-of-00005b.safetensors",
            "a-99999999999999999999-of-2.safetensors",
        ] {
            assert!(Set::of(name).is_none(), "{name}");
        }
    }
}
