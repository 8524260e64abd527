//! How layers were dealt to stages, from the layers that each stage is seen to have.

use super::offset::Offset;
use std::collections::BTreeSet;

/// The number of chunks a stage, and the offsets, that give each stage these of `count` layers; none: no
/// number of chunks does.
///
/// Example: of 3 layers `{0, 1}` and `{2}` are one chunk a stage, with one more in the first.
pub(super) fn dealt(stages: &[BTreeSet<u64>], count: u64) -> Option<(u64, Offset)> {
    let runs: Vec<Vec<(u64, u64)>> = stages.iter().map(runs).collect();
    let chunks = runs.iter().map(Vec::len).max()?.max(1);
    let mut rows = Vec::new();
    let mut next = 0u64;
    for chunk in 0..chunks {
        let mut row = Vec::new();
        for (stage, own) in runs.iter().enumerate() {
            // The first part and the last one may have none.
            let lacks_first = stage == 0 && own.len() + 1 == chunks;
            let place = match lacks_first {
                true => chunk.checked_sub(1),
                false => Some(chunk),
            };
            let run = place.and_then(|place| own.get(place));
            let (from, length) = run.copied().unwrap_or((next, 0));
            if from != next {
                return None;
            }
            next = from + length;
            row.push(length);
        }
        rows.push(row);
    }
    if next != count {
        return None;
    }
    let slots = u64::try_from(chunks * stages.len()).ok()?;
    let even = i64::try_from(count / slots).ok()?;
    let offset = |row: &Vec<u64>| -> Option<Vec<i64>> {
        let own = row.iter().map(|own| Some(i64::try_from(*own).ok()? - even));
        own.collect()
    };
    let rows: Vec<Vec<i64>> = rows.iter().map(offset).collect::<Option<_>>()?;
    let offset = match &rows[..] {
        rows if rows.iter().flatten().all(|offset| *offset == 0) => Offset::All(0),
        [one] => Offset::Stages(one.clone()),
        rows => Offset::Chunks(rows.to_vec()),
    };
    Some((u64::try_from(chunks).ok()?, offset))
}

/// Layers that follow each other: the first, and how many.
fn runs(layers: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for layer in layers {
        match runs.last_mut() {
            Some((from, length)) if *from + *length == *layer => *length += 1,
            _ => runs.push((*layer, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_tell_how_they_were_dealt() {
        let of = |stages: &[&[u64]], count: u64| {
            let stages: Vec<BTreeSet<u64>> = stages
                .iter()
                .map(|own| own.iter().copied().collect())
                .collect();
            dealt(&stages, count).map(|(chunks, offset)| (chunks, offset.to_string()))
        };
        let told = |chunks: u64, offset: &str| Some((chunks, offset.to_owned()));
        assert_eq!(of(&[&[0, 1], &[2, 3]], 4), told(1, "0"));
        assert_eq!(of(&[&[0, 1], &[2]], 3), told(1, "1:0"));
        assert_eq!(of(&[&[], &[0, 1, 2]], 3), told(1, "-1:2"));
        assert_eq!(of(&[&[0, 2], &[1, 3]], 4), told(2, "0"));
        assert_eq!(of(&[&[0, 1, 3], &[2, 4]], 5), told(2, "1:0/0:0"));
        assert_eq!(of(&[&[0, 3], &[1, 2]], 4), told(2, "0:1/0:-1"));
        assert_eq!(of(&[&[0], &[2]], 3), None);
        assert_eq!(of(&[&[0, 1], &[1, 2]], 3), None);
    }
}
