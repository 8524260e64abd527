//! Sets of numbered files: `model-00001-of-00005.safetensors`, whose names say how many there are, and
//! `part0.safetensors`, as MindSpore's merge writes them, whose numbers begin at 0.
//!
//! A part of a set is no model: whoever takes files of one without an index has to take all of it.

use crate::fault::{Fault, Kind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is between a file's number and the count, in letters of either case.
const OF: &str = "of";
/// What may be on both sides of that.
const AROUND: [char; 4] = ['-', '_', '.', ' '];
/// What is before the number of a file that MindSpore's merge writes.
const PART: &str = "part";

/// A set: what comes before its files' numbers, how many files it has, if that is told, and what comes after the numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Set<'a> {
    pub(super) before: &'a str,
    pub(super) files: Option<u64>,
    pub(super) rest: &'a str,
    pub(super) extension: &'a str,
}

impl<'a> Set<'a> {
    /// The set that a file called `name` is of, and its number there.
    pub(super) fn of(name: &'a str) -> Option<(Set<'a>, u64)> {
        Set::of_a_merge(name).or_else(|| Set::counted(name))
    }

    fn of_a_merge(name: &'a str) -> Option<(Set<'a>, u64)> {
        let numbered = name.strip_prefix(PART)?;
        let (number, extension) = numbered.split_at(numbered.find('.')?);
        let set = Set {
            before: PART,
            files: None,
            rest: "",
            extension,
        };
        Some((set, number.parse().ok()?))
    }

    fn counted(name: &'a str) -> Option<(Set<'a>, u64)> {
        let lower = name.to_ascii_lowercase();
        let mut places = lower.rmatch_indices(OF);
        places.find_map(|(at, _)| Set::counted_at(name, at))
    }

    /// The same with the word between number and count at this byte.
    fn counted_at(name: &'a str, at: usize) -> Option<(Set<'a>, u64)> {
        let (beginning, rest) = (&name[..at], &name[at + OF.len()..]);
        // The same on both sides, or nothing.
        let mut around = AROUND.into_iter();
        let around = around.find(|c| beginning.ends_with(*c) && rest.starts_with(*c));
        let wide = around.map_or(0, char::len_utf8);
        let (beginning, rest) = (&beginning[..at - wide], &rest[wide..]);
        let end = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let before = beginning.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = beginning[before.len()..].parse().ok()?;
        let files = rest[..rest.len() - end.len()].parse().ok();
        let files = files.filter(|files| *files > 1 && number <= *files)?;
        let name_end = name.len() - end.len() + end.rfind('.').unwrap_or(end.len());
        let set = Set {
            before,
            files: Some(files),
            rest: &name[beginning.len()..name_end],
            extension: &name[name_end..],
        };
        (end.is_empty() || end.starts_with(['.', '-', '_', ')'])).then_some((set, number))
    }

    /// The glob that takes all its files.
    pub(super) fn glob(&self) -> String {
        format!("{}*{}{}", self.before, self.rest, self.extension)
    }
}

/// The globs of the sets among `names` that say how many files they have, and have all.
pub(super) fn whole<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut sets: BTreeMap<Set<'a>, BTreeSet<u64>> = BTreeMap::new();
    for (set, number) in names.filter_map(Set::of) {
        sets.entry(set).or_default().insert(number);
    }
    let whole = sets
        .iter()
        .filter(|(set, numbers)| set.files == Some(numbers.len() as u64));
    whole.map(|(set, _)| set.glob()).collect()
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

/// Of how many files these `numbers` are some; none if they are all. Where names don't tell, it is as many as the
/// largest number of those that are `there` tells.
fn lacking(set: &Set<'_>, numbers: &BTreeSet<u64>, there: &BTreeSet<u64>) -> Option<u64> {
    let of = set.files.or(Some(there.last()?.saturating_add(1)))?;
    (of > numbers.len() as u64).then_some(of)
}

/// Refuses files that are `taken` without an index, of `all` those at `path`, if they are a part of a set: of one that
/// isn't all there, or that is. What to do about the first the caller says.
///
/// # Errors
/// [`Kind::MissingShard`] naming the file.
pub(super) fn refuse_part<'a>(
    path: &Path,
    all: &[&'a str],
    taken: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let all = met(all.iter().copied());
    for (key, (set, name, taken)) in met(taken) {
        let Some((.., there)) = all.get(&key) else {
            continue;
        };
        if let Some(of) = lacking(&set, there, there) {
            return Err(part(path, name, of, there.len(), "there"));
        }
        if let Some(of) = lacking(&set, &taken, there) {
            let hint = format!(
                "--weights '{}' takes all of them; a file's own name takes that one alone",
                set.glob()
            );
            return Err(part(path, name, of, taken.len(), "taken").hint(hint));
        }
    }
    Ok(())
}

fn part(path: &Path, name: &str, of: u64, count: usize, what: &str) -> Fault {
    let are = if count == 1 { "is" } else { "are" };
    let message = format!("is one of {of} files, of which {count} {are} {what}");
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
            ("model-", "00001", "-OF-00005", 1, 5),
            ("w-", "1", "of5", 1, 5),
            ("model (", "1", " of 5)", 1, 5),
            ("w-", "2", "-of-5-soft", 2, 5),
        ] {
            let extension = ".safetensors";
            let set = Set {
                before,
                files: Some(files),
                rest,
                extension,
            };
            let name = format!("{before}{digits}{rest}{extension}");
            assert!(Set::of(&name) == Some((set, number)), "{name}");
        }
        let part = Set::of("part12.safetensors").map(|(set, number)| (set.glob(), number));
        assert_eq!(part, Some(("part*.safetensors".into(), 12)));
        for name in [
            "model.safetensors",
            "part.safetensors",
            "partly1.safetensors",
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
