//! Files of ranks that lie in one directory: `net_rank_0-1_20.safetensors`, `net_rank_1-1_20.safetensors`; and the steps
//! of one device, which needs no directory of its rank: `net-1_10.safetensors`, `net-1_20.safetensors`.

use crate::source::around::leading_number;
use crate::source::contents::Contents;
use crate::source::meta::Name;
use crate::source::sets::Set;
use crate::store::rank_dir::rank_of;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What precedes a rank in the names of files.
pub(super) const RANK: &str = "rank_";

/// The patterns of the names of files, `net_rank_{rank}-1_20.safetensors`, that are all ranks', with what
/// `--file-suffix` calls their steps: those of the newest step first. None if one is called otherwise, or several steps by no
/// numbers of a trainer, or there is none of the first rank, as among adapters of ranks 8 and 16.
#[must_use]
pub(crate) fn patterns<'f>(names: impl Iterator<Item = &'f str>) -> Vec<(String, String)> {
    let pattern = |name: &str| {
        let (before, rest) = name.rsplit_once(RANK)?;
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        (after.len() < rest.len()).then(|| format!("{before}{RANK}{{rank}}{after}"))
    };
    let names: Vec<&str> = names.collect();
    let found: Option<BTreeSet<String>> = names.iter().map(|name| pattern(name)).collect();
    let found = found.unwrap_or_default();
    let is_first = |pattern: &String| {
        let first = pattern.replace("{rank}", "0");
        names.contains(&first.as_str())
    };
    if !found.iter().any(is_first) {
        return Vec::new();
    }
    let mut steps = BTreeSet::new();
    let with_step = found.iter().map(|pattern| {
        let name = Name::parse(&pattern.replace("{rank}", "0")).map(|(name, _)| name);
        let step = name.as_ref().map(|name| (name.epoch, name.step));
        steps.insert(step);
        let suffix = name.map(|name| name.suffix()).unwrap_or_default();
        (step, pattern.clone(), suffix)
    });
    let mut all: Vec<_> = with_step.collect();
    if steps.len() < all.len() {
        return Vec::new();
    }
    all.sort_by_key(|(step, ..)| Reverse(*step));
    all.into_iter()
        .map(|(_, pattern, suffix)| (pattern, suffix))
        .collect()
}

/// The pattern of the names of files that may be ranks', by a number in each that counts from 0 or 1 (`net{rank}.safetensors`,
/// `net-{rank}_8.safetensors`), with the last of them; none if other things differ, a number lacks, or they are a set's.
pub(super) fn numbered<'f>(names: &[&'f str]) -> Option<(&'f str, String)> {
    let first = names.first().filter(|name| Set::of(name).is_none())?;
    let bytes = first.bytes().enumerate();
    let digits = bytes.filter(|(_, byte)| byte.is_ascii_digit());
    let begins = digits.map(|(at, _)| at);
    let begins = begins.filter(|at| !first[..*at].ends_with(|c: char| c.is_ascii_digit()));
    let mut begins: Vec<usize> = begins.collect();
    begins.reverse();
    begins.into_iter().find_map(|at| {
        let (before, rest) = first.split_at(at);
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = |name: &&'f str| -> Option<(u64, &'f str)> {
            let number = name.strip_prefix(before)?.strip_suffix(after)?;
            let (number, rest) = leading_number(number)?;
            rest.is_empty().then_some((number.into(), *name))
        };
        let found: BTreeMap<u64, &'f str> = names.iter().map(number).collect::<Option<_>>()?;
        let from = *found.keys().next()?;
        let all = found.len() == names.len() && names.len() > 1 && from < 2;
        let whole = found.keys().copied().eq(from..from + names.len() as u64);
        let last = found.into_values().next_back()?;
        (all && whole).then(|| (last, format!("{before}{{rank}}{after}")))
    })
}

/// The newest of files that are all called as a trainer calls the steps of one job.
pub(super) fn newest<'f>(names: &[&'f str]) -> Option<&'f str> {
    let parsed = names.iter().map(|name| Some((Name::parse(name)?.0, *name)));
    let parsed: Vec<(Name, &str)> = parsed.collect::<Option<_>>()?;
    let (first, _) = parsed.first()?;
    let one = parsed.iter().all(|(name, _)| name.same_run(first));
    let newest = parsed.iter().filter(|_| one).max();
    newest.map(|(_, name)| *name)
}

/// The files of weights among `names`, of the directory `path`, if they are several steps of the first rank, as a trainer calls
/// them, or its directory; or, where a step `is_asked` for, of one device: `net-0_2` and `net-1_2` may be ranks. None where an
/// index says which files are meant, or a file of hyper parameters is of one of them. Local.
pub(super) fn steps(path: &Path, names: &[(String, bool)], is_asked: bool) -> Option<Vec<String>> {
    let contents = Contents::of(path, names);
    let parsed = contents.weights.iter().map(|name| Name::parse(name));
    let parsed: Vec<(Name, Option<u32>)> = parsed.collect::<Option<_>>()?;
    let [(first, rank), _, ..] = &parsed[..] else {
        return None;
    };
    let alike = parsed.iter().all(|(_, other)| other == rank);
    let room = path.file_name().and_then(|room| rank_of(room.to_str()?));
    let one_series = || parsed.iter().all(|(name, _)| name.prefix == first.prefix);
    let of_one = match rank.or(room) {
        Some(rank) => rank == 0,
        None => is_asked && one_series() && numbered(&contents.weights).is_none(),
    };
    let told = contents.map().is_some() || !contents.hyper.is_empty();
    let owned = contents.weights.iter().map(|name| (*name).to_owned());
    (alike && of_one && !told).then(|| owned.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ranks_are_patterns() {
        let of = |names: &[&str]| -> Vec<String> {
            let found = patterns(names.iter().copied()).into_iter();
            found.map(|(pattern, _)| pattern).collect()
        };
        let one = ["net_rank_0.ckpt", "net_rank_1.ckpt"];
        assert_eq!(of(&one), ["net_rank_{rank}.ckpt"]);
        let steps = [
            "m_rank_0-1_9.ckpt",
            "m_rank_0-1_10.ckpt",
            "m_rank_1-1_10.ckpt",
        ];
        assert_eq!(
            of(&steps),
            ["m_rank_{rank}-1_10.ckpt", "m_rank_{rank}-1_9.ckpt"]
        );
        assert!(of(&["a_rank_0.ckpt", "b_rank_0.ckpt"]).is_empty());
        assert!(of(&["net_rank_0.ckpt", "model.ckpt"]).is_empty());
        assert!(of(&["a_rank_8.ckpt", "a_rank_16.ckpt"]).is_empty());
        for (names, found) in [
            (
                vec!["net0.ckpt", "net1.ckpt"],
                Some(("net1.ckpt", "net{rank}.ckpt")),
            ),
            (
                vec!["m-0_2.ckpt", "m-1_2.ckpt"],
                Some(("m-1_2.ckpt", "m-{rank}_2.ckpt")),
            ),
            (vec!["m-1_10.ckpt", "m-1_20.ckpt"], None),
            (vec!["net2.ckpt", "net3.ckpt"], None),
            (vec!["net0.ckpt", "best1.ckpt"], None),
            (vec!["net0.ckpt"], None),
            (vec![], None),
        ] {
            let of = numbered(&names);
            let of = of.as_ref().map(|(last, pattern)| (*last, pattern.as_str()));
            assert_eq!(of, found, "{names:?}");
        }
    }
}
