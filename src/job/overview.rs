//! A checkpoint at a glance: how it lies, what its ranks hold, its tensors by their names' pattern.

use crate::job::inspected::Inspected;
use crate::store::formats::COUNT_NAMES;
use crate::store::whole::{ranges, spelled};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A checkpoint at a glance.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Overview {
    /// How it lies: one file, full weights, rank directories.
    pub layout: &'static str,
    /// Tensors of different names.
    pub tensors: usize,
    /// Most bytes of tensors that a rank holds, and fewest.
    pub rank_bytes: [u64; 2],
    /// Tensors that differ in nothing but a number in their names.
    pub groups: Vec<Group>,
    /// What is not as usual.
    pub odd: Vec<String>,
}

/// Tensors that differ in nothing but a number in their names.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Group {
    /// Their names, with `*` for the number.
    pub name: String,
    /// The numbers, as ranges; empty if there are none.
    pub numbers: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Element type.
    pub dtype: &'static str,
    /// Shape in a file; where ranks hold other shapes, several.
    pub shapes: Vec<String>,
    /// The ranks that hold some of them, as ranges.
    pub ranks: String,
    /// Ranks that hold each of them, where that is the same for all.
    pub holders: Option<usize>,
    /// Bytes in all files.
    pub bytes: u64,
}

/// What is known of one name.
#[derive(Default)]
struct Known {
    dtypes: BTreeSet<&'static str>,
    shapes: BTreeSet<Vec<u64>>,
    ranks: BTreeSet<u32>,
    bytes: u64,
}

/// A name with `*` in place of its first number between dots, and that number.
fn pattern(name: &str) -> (String, Option<u32>) {
    let mut number = None;
    let parts = name.split('.').map(|part| match part.parse::<u32>() {
        Ok(value) if number.is_none() => {
            number = Some(value);
            "*"
        }
        _ => part,
    });
    let parts: Vec<&str> = parts.collect();
    (parts.join("."), number)
}

impl Overview {
    /// Of what was inspected.
    #[must_use]
    pub fn of(inspected: &Inspected) -> Overview {
        let mut names: BTreeMap<&str, Known> = BTreeMap::new();
        let mut held: BTreeMap<u32, u64> = BTreeMap::new();
        for file in &inspected.files {
            for tensor in &file.tensors {
                let known = names.entry(&tensor.name).or_default();
                known.dtypes.insert(tensor.dtype);
                known.shapes.insert(tensor.shape.0.clone());
                known.ranks.insert(file.rank);
                known.bytes += tensor.bytes;
                *held.entry(file.rank).or_default() += tensor.bytes;
            }
        }
        let distributed = inspected
            .files
            .iter()
            .any(|file| file.path.contains("rank_") && file.path.contains('/'));
        let lies = (distributed, inspected.ranks, inspected.files.len());
        let layout = match (inspected.contents.told, lies) {
            (Some(called), _) => called.trim_start_matches("a "),
            (_, (true, ..)) => "rank directories",
            (_, (_, 1, 1)) => "one file",
            (_, (_, 1, _)) => "full weights",
            _ => "the files of several ranks",
        };
        Overview {
            layout,
            tensors: names.len(),
            rank_bytes: [
                held.values().max().copied().unwrap_or_default(),
                held.values().min().copied().unwrap_or_default(),
            ],
            odd: match inspected.contents.narrowed {
                true => Vec::new(),
                false => odd(inspected, &names),
            },
            groups: groups(&names),
        }
    }
}

fn groups(names: &BTreeMap<&str, Known>) -> Vec<Group> {
    type Key<'a> = (String, &'static str, &'a BTreeSet<Vec<u64>>);
    let mut groups: BTreeMap<Key<'_>, Vec<(Option<u32>, &Known)>> = BTreeMap::new();
    for (name, known) in names {
        let (name, number) = pattern(name);
        let dtype = known.dtypes.first().copied().unwrap_or_default();
        let members = groups.entry((name, dtype, &known.shapes)).or_default();
        members.push((number, known));
    }
    let group = |((name, dtype, shapes), members): (Key<'_>, Vec<(Option<u32>, &Known)>)| {
        let numbers = members.iter().filter_map(|(number, _)| *number);
        let ranks = members
            .iter()
            .flat_map(|(_, known)| known.ranks.iter().copied());
        let ranks: BTreeSet<u32> = ranks.collect();
        let holders: BTreeSet<usize> = members.iter().map(|(_, known)| known.ranks.len()).collect();
        Group {
            name,
            numbers: spelled(&ranges(numbers.collect::<BTreeSet<u32>>())),
            tensors: members.len(),
            dtype,
            shapes: shapes.iter().map(|shape| format!("{shape:?}")).collect(),
            ranks: spelled(&ranges(ranks)),
            holders: holders.first().copied().filter(|_| holders.len() == 1),
            bytes: members.iter().map(|(_, known)| known.bytes).sum(),
        }
    };
    groups.into_iter().map(group).collect()
}

/// Names and ranks told of many.
const TOLD: usize = 4;

fn odd(inspected: &Inspected, names: &BTreeMap<&str, Known>) -> Vec<String> {
    let mut odd = Vec::new();
    let ranks: BTreeSet<u32> = inspected.files.iter().map(|file| file.rank).collect();
    let last = ranks.last().copied().unwrap_or_default();
    let absent: Vec<u32> = (0..last).filter(|rank| !ranks.contains(rank)).collect();
    if !absent.is_empty() {
        let absent = spelled(&ranges(absent));
        odd.push(format!("nothing of ranks {absent} is here, of 0-{last}"));
    }
    let mixed: Vec<&str> = names
        .iter()
        .filter(|(_, known)| known.dtypes.len() > 1)
        .map(|(name, _)| *name)
        .collect();
    if let Some(first) = mixed.first() {
        let count = mixed.len();
        odd.push(format!(
            "{first}{} not of the same type on all ranks",
            if count > 1 {
                format!(" and {} more are", count - 1)
            } else {
                " is".into()
            }
        ));
    }
    if inspected.contents.told.is_none() && !inspected.contents.indexed {
        odd.extend(twice(inspected));
    }
    let files = inspected.contents.catalog.ranks.values().flatten();
    let empty: Vec<&str> = files
        .filter(|file| file.schema.entries.is_empty() && file.schema.held.values.is_empty())
        .map(|file| file.path.as_str())
        .collect();
    if !empty.is_empty() {
        let told = empty[..empty.len().min(TOLD)].join(", ");
        odd.push(format!("no tensors are in {told}"));
    }
    odd
}

/// A tensor that two files of a rank have.
fn twice(inspected: &Inspected) -> Option<String> {
    inspected.contents.catalog.ranks.values().find_map(|files| {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        let mut named = files.iter().flat_map(|file| {
            let entries = file.schema.entries.iter();
            entries.map(|entry| (&*entry.name, &*file.path))
        });
        named.find_map(|(name, file)| {
            // Of counts, values are compared.
            let name = Some(name).filter(|name| !COUNT_NAMES.contains(name))?;
            let other = seen.insert(name, file)?;
            Some(format!(
                "{name} is in {other} and in {file}: no job reads it so"
            ))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_in_their_first_number() {
        assert_eq!(pattern("a.0.b.1.w"), ("a.*.b.1.w".into(), Some(0)));
        assert_eq!(pattern("a.w"), ("a.w".into(), None));
    }
}
