//! Whose each file is, by its name: files of one rank lie on one node.

use crate::store::formats::directory::RankFiles;

/// A rank beyond this is none: a name can say anything.
const RANKS_MAX: u32 = 1 << 20;

/// The rank that a file's name tells, `__R_N.distcp`, `_rankR_.safetensors` or `shard-<R + 1>-model-….safetensors`; 0 for another name.
fn rank_of(name: &str) -> u32 {
    let name = name.rsplit('/').next().unwrap_or(name);
    let torch = || name.strip_prefix("__")?.split_once('_');
    let hugging_face = || name.strip_prefix("shard-")?.split_once('-');
    let hyper_parallel = || name.strip_prefix("_rank")?.split_once('_');
    let from_one = |(digits, _): (&str, &str)| digits.parse::<u32>().ok()?.checked_sub(1);
    let from_zero = |(digits, _): (&str, &str)| digits.parse::<u32>().ok();
    let rank = match torch().or_else(hyper_parallel) {
        Some(found) => from_zero(found),
        None => hugging_face().and_then(from_one),
    };
    rank.filter(|rank| *rank < RANKS_MAX).unwrap_or_default()
}

/// Files by their ranks.
pub(super) fn by_rank(names: impl Iterator<Item = String>) -> RankFiles {
    let mut files = RankFiles::new();
    for name in names {
        files.entry(rank_of(&name)).or_default().insert(name);
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_ranks_or_nothing() {
        for (name, rank) in [
            ("__0_0.distcp", 0),
            ("__12_3.distcp", 12),
            ("shard-00003-model-00001-of-00002.safetensors", 2),
            ("shard-00000-model-00001-of-00002.safetensors", 0),
            ("_rank7_.safetensors", 7),
            ("a.distcp", 0),
            ("__99999999_0.distcp", 0),
            ("__-1_0.distcp", 0),
            ("inside/__4_0.distcp", 4),
        ] {
            assert_eq!(rank_of(name), rank, "{name}");
        }
    }
}
