//! Directories of distributed weights: `rank_<r>/<anything>.safetensors|.ckpt`.
//!
//! Which of several files in a rank's directory is meant follows MindSpore 2.10 (docs/formats.md),
//! but a tie is an error here, not chance.

use crate::fault::{Fault, Kind, Result};

/// The rank that a directory's name stands for: `rank_` and digits only.
#[must_use]
pub fn rank_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("rank_")?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Chooses one of `names` (files of rank `rank`'s directory, one extension, not empty).
///
/// # Errors
/// [`Kind::MissingShard`] if none ends as `suffix` asks, [`Kind::Ambiguous`] if several are equally
/// good.
pub fn choose<'a>(rank: u32, names: &[&'a str], suffix: Option<&str>) -> Result<&'a str> {
    match suffix {
        None => newest(rank, names),
        Some(suffix) => by_suffix(rank, names, suffix),
    }
}

/// Without a suffix: the file whose last two integers, in the whole path, are largest.
fn newest<'a>(rank: u32, names: &[&'a str]) -> Result<&'a str> {
    let key = |name: &str| {
        let path = format!("rank_{rank}/{name}");
        let numbers: Vec<u128> = path
            .split(|c: char| !c.is_ascii_digit())
            .filter(|digits| !digits.is_empty())
            .map(|digits| digits.parse().unwrap_or(u128::MAX))
            .collect();
        numbers[numbers.len().saturating_sub(2)..].to_vec()
    };
    let best = names.iter().map(|name| key(name)).max();
    let mut of_best = names.iter().filter(|name| Some(key(name)) == best);
    match (of_best.next(), of_best.next()) {
        (Some(one), None) => Ok(one),
        (Some(one), Some(other)) => Err(ambiguous(rank, &[one, other])),
        (None, _) => Err(nothing(rank, None)),
    }
}

fn by_suffix<'a>(rank: u32, names: &[&'a str], suffix: &str) -> Result<&'a str> {
    let stem = |name: &'a str| name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let ending: Vec<&str> = names
        .iter()
        .copied()
        .filter(|n| stem(n).ends_with(suffix))
        .collect();
    match ending[..] {
        [] => return Err(nothing(rank, Some(suffix))),
        [one] => return Ok(one),
        _ => {}
    }
    let Some(exact) = Ending::parse(suffix) else {
        return Err(ambiguous(rank, &ending));
    };
    let mut left: Vec<&str> = ending
        .into_iter()
        .filter(|name| exact.fits(stem(name)))
        .collect();
    left.sort_by_key(|name| name.len());
    match left[..] {
        [] => Err(nothing(rank, Some(suffix))),
        [one] => Ok(one),
        [one, other, ..] if one.len() < other.len() => Ok(one),
        _ => Err(ambiguous(rank, &left)),
    }
}

/// A suffix read as numbers: `[_task-]epoch_step`, `epoch_step` or `step`.
struct Ending {
    ending: String,
    not_ending: Option<String>,
}

impl Ending {
    fn parse(suffix: &str) -> Option<Ending> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let rest = suffix.strip_prefix(['_', '-']).unwrap_or(suffix);
        if let Some((task, tail)) = rest.split_once('-') {
            let (epoch, step) = tail.split_once('_')?;
            let ok = digits(task) && digits(epoch) && digits(step) && !suffix.starts_with('-');
            return ok.then(|| Ending {
                ending: format!("_{rest}"),
                not_ending: Some(format!("rank_{rest}")),
            });
        }
        if let Some((epoch, step)) = rest.split_once('_') {
            let ok = digits(epoch) && digits(step) && !suffix.starts_with('_');
            return ok.then(|| Ending {
                ending: format!("-{rest}"),
                not_ending: None,
            });
        }
        (digits(rest) && !suffix.starts_with('-')).then(|| Ending {
            ending: format!("_{rest}"),
            not_ending: None,
        })
    }

    fn fits(&self, stem: &str) -> bool {
        stem.ends_with(&self.ending)
            && self
                .not_ending
                .as_ref()
                .is_none_or(|not| !stem.ends_with(not.as_str()))
    }
}

fn nothing(rank: u32, suffix: Option<&str>) -> Fault {
    let ending = suffix.map_or(String::new(), |suffix| {
        format!(" whose name ends with '{suffix}'")
    });
    Fault::new(Kind::MissingShard, format!("has no weight file{ending}"))
        .file(format!("rank_{rank}"))
        .rank(rank)
}

fn ambiguous(rank: u32, names: &[&str]) -> Fault {
    Fault::new(
        Kind::Ambiguous,
        format!("several files could be meant: {}", names.join(", ")),
    )
    .file(format!("rank_{rank}"))
    .rank(rank)
    .hint("say which with --file-suffix, for example --file-suffix 1_100 (epoch_step)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = [
        "net_rank_0-1_1.safetensors",
        "net_rank_0-1_10.safetensors",
        "net_rank_0-1_2.safetensors",
        "net_rank_0_1-1_1.safetensors",
        "net_rank_0-11_1.safetensors",
        "net_rank_0-2_1.safetensors",
    ];

    #[test]
    fn ranks_are_digits_only() {
        assert_eq!(rank_of("rank_12"), Some(12));
        assert_eq!(
            (rank_of("rank_"), rank_of("rank_1a"), rank_of("xrank_1")),
            (None, None, None)
        );
    }

    #[test]
    fn takes_the_largest_numbers_or_what_the_suffix_says() {
        assert_eq!(choose(0, &NAMES, None), Ok(NAMES[4]));
        assert_eq!(choose(0, &NAMES, Some("1_1")), Ok(NAMES[0]));
        assert_eq!(choose(0, &NAMES, Some("_1-1_1")), Ok(NAMES[3]));
        assert_eq!(choose(0, &NAMES, Some("2_1")), Ok(NAMES[5]));
        assert_eq!(choose(0, &NAMES, Some("10")), Ok(NAMES[1]));
        assert_eq!(
            choose(0, &NAMES, Some("7_7")).unwrap_err().kind,
            Kind::MissingShard
        );
        let tie = ["a.safetensors", "b.safetensors"];
        assert_eq!(choose(0, &tie, None).unwrap_err().kind, Kind::Ambiguous);
    }
}
