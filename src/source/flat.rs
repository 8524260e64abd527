//! Files of ranks that lie in one directory: `net_rank_0-1_20.safetensors`, `net_rank_1-1_20.safetensors`; and the steps
//! of one device, which needs no directory of its rank: `net-1_10.safetensors`, `net-1_20.safetensors`.

use crate::source::contents::Contents;
use crate::source::meta::Name;
use std::cmp::Reverse;
use std::collections::BTreeSet;
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

/// The pattern of the names of files that end in their ranks, counted from 0: `net{rank}.safetensors`; none if one of them is
/// called otherwise, or a rank lacks.
pub(super) fn counted<'f>(names: &[&'f str]) -> Option<String> {
    let parted = |name: &&'f str| {
        let (stem, extension) = name.rsplit_once('.')?;
        let before = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        let rank: usize = stem[before.len()..].parse().ok()?;
        Some(((before, extension), rank))
    };
    let parted: Option<Vec<_>> = names.iter().map(parted).collect();
    let (around, ranks): (BTreeSet<_>, BTreeSet<usize>) = parted?.into_iter().unzip();
    let (before, extension) = around.first()?;
    let all = around.len() == 1 && names.len() > 1 && ranks.into_iter().eq(0..names.len());
    all.then(|| format!("{before}{{rank}}.{extension}"))
}

/// The files of weights among `names`, of the directory `path`, if they are several steps of the first rank, or of one device, as
/// a trainer calls them; none where an index says which files are meant. Local.
pub(super) fn steps(path: &Path, names: &[(String, bool)]) -> Option<Vec<String>> {
    let contents = Contents::of(path, names);
    let parsed = contents.weights.iter().map(|name| Name::parse(name));
    let parsed: Vec<(Name, Option<u32>)> = parsed.collect::<Option<_>>()?;
    let [(_, rank), _, ..] = &parsed[..] else {
        return None;
    };
    let alike = parsed.iter().all(|(_, other)| other == rank);
    let first = rank.is_none_or(|rank| rank == 0) && contents.map().is_none();
    let owned = contents.weights.iter().map(|name| (*name).to_owned());
    (alike && first).then(|| owned.collect())
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
        for (names, pattern) in [
            (vec!["net0.ckpt", "net1.ckpt"], Some("net{rank}.ckpt")),
            (vec!["net1.ckpt", "net2.ckpt"], None),
            (vec!["net0.ckpt", "best1.ckpt"], None),
            (vec!["net0.ckpt"], None),
            (vec![], None),
        ] {
            assert_eq!(counted(&names).as_deref(), pattern, "{names:?}");
        }
    }
}
