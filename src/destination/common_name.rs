//! The name that the files of all ranks have, but for the rank.

use crate::catalog::{Catalog, ShardFile};
use crate::plan::arrange::RankName;
use std::collections::BTreeSet;

/// What the names of the ranks' files have in common, the rank taken out; none if they have nothing.
pub(crate) fn common_name(catalog: &Catalog) -> Option<RankName> {
    let mut common: Option<BTreeSet<RankName>> = None;
    for (rank, files) in &catalog.ranks {
        let names = names(stem(files)?, *rank);
        common = Some(match common {
            None => names.into_iter().collect(),
            Some(before) => names.into_iter().filter(|n| before.contains(n)).collect(),
        });
    }
    // The rank after `rank_` is meant before a number elsewhere, and any number before none.
    let order = |name: &RankName| (name.before.ends_with("rank_"), name.numbered);
    common.into_iter().flatten().max_by_key(order)
}

/// The name of a rank's first file, without its extension.
fn stem(files: &[ShardFile]) -> Option<&str> {
    let name = files.first()?.path.rsplit('/').next()?;
    Some(name.rsplit_once('.').map_or(name, |(stem, _)| stem))
}

/// The ways in which `stem` may come from a rank's number.
fn names(stem: &str, rank: u32) -> Vec<RankName> {
    let number = rank.to_string();
    let mut names = vec![RankName {
        before: stem.to_owned(),
        numbered: false,
        after: String::new(),
    }];
    for (at, _) in stem.match_indices(&number) {
        let (before, after) = (&stem[..at], &stem[at + number.len()..]);
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let whole = !digit(before.chars().next_back()) && !digit(after.chars().next());
        let named = before.ends_with("rank_") || after.is_empty() || is_position(after);
        if whole && named {
            names.push(RankName {
                before: before.to_owned(),
                numbered: true,
                after: after.to_owned(),
            });
        }
    }
    names
}

/// Whether that is what a trainer writes behind the rank: `-{epoch}_{step}`.
fn is_position(after: &str) -> bool {
    let numbers = after
        .strip_prefix('-')
        .and_then(|rest| rest.split_once('_'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(epoch, step)| is_number(epoch) && is_number(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_rank_in_a_name() {
        let numbered = |stem: &str, rank| -> Vec<String> {
            let names = names(stem, rank).into_iter().filter(|n| n.numbered);
            names.map(|n| format!("{}#{}", n.before, n.after)).collect()
        };
        assert_eq!(
            numbered("net_rank_1-1_1", 1),
            ["net_rank_#-1_1", "net_rank_1-1_#"]
        );
        assert_eq!(numbered("net_rank_11-1_2", 1), Vec::<String>::new());
        assert_eq!(numbered("net7", 7), ["net#"]);
        assert_eq!(numbered("net7-7_100", 7), ["net#-7_100"]);
        assert_eq!(numbered("net7-new_100", 7), Vec::<String>::new());
        assert_eq!(numbered("net", 7), Vec::<String>::new());
    }
}
