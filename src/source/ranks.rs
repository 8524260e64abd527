//! Ranks in words: `0-7, 16-31`.

/// Most ranges that are spelled out.
const RANGES_MAX: usize = 12;

/// Ascending ranks as ranges: `0-7, 16-31`.
pub(crate) fn ranges(ranks: impl IntoIterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for rank in ranks {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(rank) => *last = rank,
            _ => runs.push((rank, rank)),
        }
    }
    let more = runs.len().saturating_sub(RANGES_MAX);
    let shown = runs.iter().take(RANGES_MAX).map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more ranges"));
    }
    text
}

/// Ascending ranks with their noun: `rank 3`, `ranks 0-7, 16-31`.
pub(crate) fn named(ranks: &[u32]) -> String {
    let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
    format!("{noun} {}", ranges(ranks.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_neighbours() {
        assert_eq!(ranges([0, 1, 2, 5, 8, 9]), "0-2, 5, 8-9");
        assert_eq!(ranges([]), "");
        assert_eq!(
            (named(&[3]), named(&[3, 4])),
            ("rank 3".into(), "ranks 3-4".into())
        );
        assert!(ranges((0..100).map(|n| 2 * n)).ends_with("22 and 88 more ranges"));
    }
}
