//! What a file's name says of its position.

use super::Offered;
use crate::source::meta::Name;
use std::collections::HashMap;

/// What a file is a part of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Position {
    /// No number in its name says more than the rank; its name without that.
    Plain(String),
    /// Its name without the rank has numbers, but not a trainer's.
    Numbered(String),
    /// A trainer's.
    Saved(Name),
}

impl Position {
    /// What orders positions in time, as MindSpore does: the last two numbers.
    pub(super) fn age(&self) -> Vec<u128> {
        match self {
            Position::Plain(_) => Vec::new(),
            Position::Saved(name) => vec![name.epoch.into(), name.step.into()],
            Position::Numbered(text) => {
                let numbers = text.split(|c: char| !c.is_ascii_digit());
                let numbers = numbers.filter(|digits| !digits.is_empty());
                let numbers: Vec<u128> = numbers
                    .map(|digits| digits.parse().unwrap_or(u128::MAX))
                    .collect();
                numbers[numbers.len().saturating_sub(2)..].to_vec()
            }
        }
    }

    /// What two positions have in common of which one can be newer: all of the name but the last two numbers, and
    /// the number of the run.
    pub(super) fn series(&self) -> String {
        match self {
            Position::Plain(text) => text.clone(),
            Position::Saved(name) => format!("{}-", name.prefix),
            Position::Numbered(text) => {
                let digit = |c: char| c.is_ascii_digit();
                let (mut rest, mut after) = (text.as_str(), String::new());
                for _ in 0..2 {
                    let until = rest.trim_end_matches(|c| !digit(c));
                    after.insert_str(0, &rest[until.len()..]);
                    rest = until.trim_end_matches(digit);
                    if rest.len() < until.len() {
                        after.insert(0, '#');
                    }
                }
                format!("{rest}{after}")
            }
        }
    }

    pub(super) fn suffix(&self) -> String {
        match self {
            Position::Saved(name) => name.suffix(),
            Position::Plain(text) | Position::Numbered(text) => {
                let tail = text.rsplit('*').next().unwrap_or(text);
                if tail.is_empty() { text } else { tail }.to_owned()
            }
        }
    }

    /// Of several positions that an ending fits, those of the lowest class are meant.
    pub(super) fn class(&self) -> u8 {
        match self {
            Position::Saved(Name { repeat: None, .. }) => 0,
            Position::Saved(_) => 1,
            Position::Numbered(_) => 2,
            Position::Plain(_) => 3,
        }
    }
}

/// One file of a rank.
pub(super) struct File<'a> {
    pub(super) rank: u32,
    pub(super) path: &'a str,
    pub(super) position: Position,
    /// The rank that its name says, if that is another.
    pub(super) misplaced: Option<u32>,
}

pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn stem(path: &str) -> &str {
    let name = file_name(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Reads all names. A name that ends with its own rank's number, before a trainer's numbers or without any, says the
/// rank by that, unless another rank has a file of the same name.
pub(super) fn classify(offered: &Offered) -> Vec<File<'_>> {
    let mut times: HashMap<&str, u32> = HashMap::new();
    let paths = offered
        .iter()
        .flat_map(|(rank, paths)| paths.iter().map(move |path| (*rank, path)));
    // One rank alone shows nothing by it.
    let before_numbers = |path| if offered.len() > 1 { prefix(path) } else { "" };
    for (rank, path) in paths.clone() {
        if [stem(path), before_numbers(path)]
            .iter()
            .any(|text| own(text, rank).is_some())
        {
            times.insert(stem(path), 0);
        }
    }
    for (_, path) in paths.clone() {
        if let Some(times) = times.get_mut(stem(path)) {
            *times += 1;
        }
    }
    let file = |(rank, path)| {
        let (position, misplaced) = position(rank, path, &times);
        File {
            rank,
            path,
            position,
            misplaced,
        }
    };
    paths
        .map(|(rank, path)| file((rank, path.as_str())))
        .collect()
}

fn position(rank: u32, path: &str, times: &HashMap<&str, u32>) -> (Position, Option<u32>) {
    let other = |named: u32| (named != rank).then_some(named);
    let stem = stem(path);
    let alone = times.get(stem) == Some(&1);
    if let Some((mut name, named)) = Name::like(file_name(path)) {
        if let (Some(before), true, None) = (own(&name.prefix, rank), alone, named) {
            name.prefix = format!("{before}*");
        }
        return (Position::Saved(name), named.and_then(other));
    }
    let numbered = |text: String| {
        if text.contains(|c: char| c.is_ascii_digit()) {
            Position::Numbered(text)
        } else {
            Position::Plain(text)
        }
    };
    if let Some((before, named, after)) = rank_inside(stem) {
        return (numbered(format!("{before}_rank_*{after}")), other(named));
    }
    let text = match own(stem, rank) {
        Some(before) if alone => format!("{before}*"),
        _ => stem.to_owned(),
    };
    (numbered(text), None)
}

/// The text before and after the last `_rank_R`, and that R.
fn rank_inside(stem: &str) -> Option<(&str, u32, &str)> {
    let (before, rest) = stem.rsplit_once("_rank_")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((before, rest[..end].parse().ok()?, &rest[end..]))
}

/// The text before the rank's own number, if that is the end.
fn own(text: &str, rank: u32) -> Option<&str> {
    let before = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: u32 = text[before.len()..].parse().ok()?;
    (number == rank).then_some(before)
}

/// What stands before a trainer's numbers, and the last hyphen.
fn prefix(path: &str) -> &str {
    stem(path).rsplit_once('-').map_or("", |(prefix, _)| prefix)
}

/// Whether `--file-suffix suffix` can mean this file: `[_]run-epoch_step`, `[-]epoch_step`, `[_]step`,
/// all of them complete numbers, the end of its name, or its name with `*` in the rank's place.
pub(super) fn fits(suffix: &str, file: &File<'_>) -> bool {
    let stem = stem(file.path);
    let ends = || {
        let cut = |c: char| c.is_ascii_digit();
        stem.strip_suffix(suffix)
            .is_some_and(|before| !(suffix.starts_with(cut) && before.ends_with(cut)))
    };
    let name = match &file.position {
        Position::Saved(name) => name,
        Position::Plain(text) | Position::Numbered(text) => {
            return ends() || (text.contains('*') && text == suffix);
        }
    };
    let Some(numbers) = numbers(suffix) else {
        return ends() || suffix == name.prefixed();
    };
    match numbers[..] {
        [step] => name.step == step,
        [epoch, step] => (name.epoch, name.step) == (epoch, step),
        [run, epoch, step] => (name.repeat, name.epoch, name.step) == (Some(run), epoch, step),
        _ => false,
    }
}

/// The numbers of a suffix that is a trainer's; `None` for another.
fn numbers(suffix: &str) -> Option<Vec<u64>> {
    let rest = suffix.strip_prefix(['_', '-']).unwrap_or(suffix);
    let digits = |text: &str| {
        let ok = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        ok.then(|| text.parse().ok())?
    };
    let mut numbers = Vec::new();
    let tail = match rest.split_once('-') {
        Some(_) if suffix.starts_with('-') => return None,
        Some((run, tail)) => {
            numbers.push(digits(run)?);
            let (_, _) = tail.split_once('_')?;
            tail
        }
        None => rest,
    };
    match tail.split_once('_') {
        Some(_) if numbers.is_empty() && suffix.starts_with('_') => return None,
        Some((epoch, step)) => numbers.extend([digits(epoch)?, digits(step)?]),
        None if suffix.starts_with('-') => return None,
        None => numbers.push(digits(tail)?),
    }
    Some(numbers)
}
