//! Files of ranks by a pattern of their names: `model-rank-{rank}-part-{part}.safetensors`.

use crate::fault::{Fault, Kind, Result};
use crate::source::listed::{Listed, Listing};
use crate::store::io::{self, Standing};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What stands for a rank, and for a part of its files.
const RANK: &str = "{rank}";
const PART: &str = "{part}";

/// Whether a path is such a pattern.
pub(crate) fn is_one(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains(RANK))
}

/// The directory that files named by `path`, a file or a pattern, are in.
pub(crate) fn base(path: &Path) -> PathBuf {
    if !is_one(path) {
        return path.parent().unwrap_or(Path::new("")).to_path_buf();
    }
    let fixed = path.components().take_while(|part| {
        let text = part.as_os_str().to_string_lossy();
        !text.contains(RANK) && !text.contains(PART)
    });
    fixed.collect()
}

/// The files that the pattern `path` means, by rank and part; none if it is no pattern. Local.
///
/// # Errors
/// [`Kind::Usage`] for a pattern with two parts, [`Kind::Ambiguous`] for two files of one place.
pub(super) fn list(path: &Path) -> Result<Option<Listing>> {
    if !is_one(path) || io::standing(path)? != Standing::Nothing {
        return Ok(None);
    }
    let base = base(path);
    let rest = path
        .strip_prefix(&base)
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned();
    if rest.matches(PART).count() > 1 {
        let fault = Fault::new(Kind::Usage, "{part} can stand once in a pattern");
        return Err(fault.file(path.display().to_string()));
    }
    let mut found: BTreeMap<(u32, u64), String> = BTreeMap::new();
    let steps: Vec<&str> = rest.split('/').collect();
    look(
        &base,
        "",
        &steps,
        (None, 0),
        &mut |place, name| match found.insert(place, name.clone()) {
            None => Ok(()),
            Some(other) => {
                let message = format!("{other} and {name} are the same rank's and part");
                Err(Fault::new(Kind::Ambiguous, message).file(path.display().to_string()))
            }
        },
    )?;
    let mut listing = Listing {
        single_file: true,
        ..Listing::default()
    };
    for ((rank, _), name) in found {
        let file = Listed::new(&base, name)?;
        listing.ranks.entry(rank).or_default().push(file);
    }
    if listing.ranks.is_empty() {
        let fault = Fault::new(Kind::MissingShard, "no file has such a name");
        let fault = fault.file(path.display().to_string());
        return Err(
            fault.hint("{rank} stands for a rank's number, {part} for that of one of its files")
        );
    }
    Ok(Some(listing))
}

/// Goes down the steps of a pattern.
fn look(
    base: &Path,
    inside: &str,
    steps: &[&str],
    known: (Option<u32>, u64),
    take: &mut impl FnMut((u32, u64), String) -> Result<()>,
) -> Result<()> {
    let Some((step, below)) = steps.split_first() else {
        return Ok(());
    };
    for (name, folder) in io::list(&base.join(inside))? {
        let Some((rank, part)) = fits(step, &name) else {
            continue;
        };
        if rank.is_some() && known.0.is_some() && rank != known.0 {
            continue;
        }
        let known = (rank.or(known.0), part.unwrap_or(known.1));
        let path = format!("{inside}{name}");
        match (folder, below, known.0) {
            (true, [_, ..], _) => look(base, &format!("{path}/"), below, known, take)?,
            (false, [], Some(rank)) => take((rank, known.1), path)?,
            _ => {}
        }
    }
    Ok(())
}

/// The rank and the part that `name` tells by `pattern`; none if it isn't such a name.
fn fits(pattern: &str, name: &str) -> Option<(Option<u32>, Option<u64>)> {
    let (mut pattern, mut name) = (pattern, name);
    let (mut rank, mut part) = (None, None);
    while let Some(at) = pattern.find('{') {
        let (fixed, rest) = pattern.split_at(at);
        name = name.strip_prefix(fixed)?;
        let is_rank = rest.starts_with(RANK);
        let Some(after) = rest.strip_prefix(RANK).or_else(|| rest.strip_prefix(PART)) else {
            name = name.strip_prefix('{')?;
            pattern = &rest[1..];
            continue;
        };
        let digits = name.bytes().take_while(u8::is_ascii_digit).count();
        let (number, left) = name.split_at(digits);
        match is_rank {
            true => {
                let number = number.parse().ok()?;
                if rank.replace(number).is_some_and(|other| other != number) {
                    return None;
                }
            }
            false => part = Some(number.parse().ok()?),
        }
        (pattern, name) = (after, left);
    }
    (pattern == name).then_some((rank, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_or_dont() {
        let pattern = "model-rank-{rank}-part-{part}.safetensors";
        assert_eq!(
            fits(pattern, "model-rank-3-part-12.safetensors"),
            Some((Some(3), Some(12)))
        );
        for other in [
            "model-rank--part-1.safetensors",
            "model-rank-1-part-1.safetensors.tmp",
            "rank-1-part-1.safetensors",
        ] {
            assert_eq!(fits(pattern, other), None, "{other}");
        }
        assert_eq!(
            fits("_rank{rank}_.safetensors", "_rank0010_.safetensors"),
            Some((Some(10), None))
        );
        assert_eq!(fits("a{b}", "a{b}"), Some((None, None)));
    }

    #[test]
    fn the_base_is_what_is_fixed() {
        assert_eq!(base(Path::new("a/b{rank}/c.pt")), Path::new("a"));
        assert_eq!(base(Path::new("x-{rank}.pt")), Path::new(""));
        assert_eq!(base(Path::new("a/x.pt")), Path::new("a"));
    }
}
