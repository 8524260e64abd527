//! The one position that a job reads, the same on all ranks: prefix, run, epoch and step.
//!
//! A pure function of the names of all ranks' files. Where MindSpore's choice (docs/formats.md) is the same
//! position on all ranks it is this one; otherwise nothing is chosen and the error says who has what.

pub(crate) mod choose;
mod name;
#[cfg(test)]
mod tests;

use crate::fault::plain::counted;
use crate::source::meta::Name;
use crate::source::ranks::named;
use std::collections::BTreeMap;

/// The weight files of each rank's directory: paths that end with the file's name.
pub(crate) type Offered = BTreeMap<u32, Vec<String>>;

/// Whether the files `rank_R/{prefix}{R}` are read again as one checkpoint of their ranks: no name is hidden, and no
/// number at the prefix's end is taken for a rank's first digits, or for a step.
pub(crate) fn is_told_apart(prefix: &str) -> bool {
    let offered = [0, 1, 12].map(|rank| {
        let path = format!("rank_{rank}/{prefix}{rank}.safetensors");
        (rank, vec![path])
    });
    !prefix.starts_with('.') && choose::choose(&offered.into(), Asked::Newest).is_ok()
}

/// A file that a trainer has named.
pub(crate) struct Saved<'a> {
    /// Its name, the rank taken out.
    pub(crate) name: Name,
    /// The rank whose it is.
    pub(crate) rank: u32,
    /// Its path, as it was offered.
    pub(crate) path: &'a str,
    /// Whether its name says another rank.
    pub(crate) misplaced: bool,
}

/// What trainers have named of these files.
pub(crate) fn saved(offered: &Offered) -> impl Iterator<Item = Saved<'_>> {
    let files = name::classify(offered).into_iter();
    files.filter_map(|file| match file.position {
        name::Position::Saved(name) => Some(Saved {
            name,
            rank: file.rank,
            path: file.path,
            misplaced: file.misplaced.is_some(),
        }),
        _ => None,
    })
}

/// Which position is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    /// The newest, if it is every rank's newest.
    Newest,
    /// The one that the files with this ending are.
    Suffix(&'a str),
    /// That one.
    Saved(&'a Name),
}

/// A position with each rank's file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// What `--file-suffix` takes to mean it.
    pub(crate) suffix: String,
    /// Each rank's file: one of those offered.
    pub(crate) files: BTreeMap<u32, String>,
    /// The older positions that all ranks have, newest first.
    pub(crate) older: Vec<(String, BTreeMap<u32, String>)>,
    /// Files that no trainer has named, beside those that one has.
    pub(crate) aside: Vec<String>,
    /// Ranks beyond those of the strategy, which have other positions alone.
    pub(crate) beyond: Vec<u32>,
}

impl Chosen {
    /// What is to be said of what is left aside.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.beyond.is_empty() {
            notes.push(format!(
                "{} are left aside: they have no file of {}, and the strategy is of fewer ranks",
                named(&self.beyond),
                self.suffix
            ));
        }
        if let [first, others @ ..] = &self.aside[..] {
            let more = match others.len() {
                0 => String::new(),
                more => format!(" and {}", counted(more as u64, "other file")),
            };
            notes.push(format!(
                "{first}{more} left aside: a trainer has named the others"
            ));
        }
        notes
    }
}
