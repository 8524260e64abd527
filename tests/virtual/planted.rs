//! Bugs that are planted are found.

use super::tried::attempt;
use crate::host::bug::Bug;
use std::sync::atomic::{AtomicU64, Ordering};

/// All bugs, each with the first seed that found it when all seeds from 1 on were tried.
const BUGS: [(Bug, u64); 20] = [
    (Bug::AgreeAlone, 1),
    (Bug::AlarmsKept, 7),
    (Bug::AnswerOfOther, 3),
    (Bug::ByteLost, 1),
    (Bug::DigestUnasked, 18),
    (Bug::DoneForgotten, 40),
    (Bug::EarlyReturn, 17),
    (Bug::ErrorSwallowed, 721),
    (Bug::IntactUnasked, 121),
    (Bug::InterruptFatal, 2),
    (Bug::JournalFirst, 143),
    (Bug::LastWindowKept, 1),
    (Bug::LeaderAlone, 295),
    (Bug::LockForEver, 8),
    (Bug::NoPatience, 10),
    (Bug::OldFirst, 1),
    (Bug::OneTag, 1),
    (Bug::RoundsApart, 3),
    (Bug::ShortIsWhole, 7),
    (Bug::UnmetReturn, 1),
];

/// The first seed that finds a bug: the one that did before, or any.
fn found(bug: Bug, known: u64, most: u64) -> Option<(u64, String)> {
    let known = Some(known).filter(|_| super::number("SHARDLOOM_BUG_SEEDS").is_none());
    known.into_iter().chain(1..=most).find_map(|seed| {
        let first = attempt(seed, None, Some(bug)).bad.into_iter().next()?;
        // Without it nothing is found.
        let clean = attempt(seed, None, None).bad.is_empty();
        clean.then_some((seed, first.chars().take(160).collect()))
    })
}

#[test]
fn planted_bugs_are_found() {
    let most = super::number("SHARDLOOM_BUG_SEEDS").unwrap_or(500);
    let next = AtomicU64::new(0);
    let missed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((bug, known)) =
                    BUGS.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    match found(*bug, *known, most) {
                        Some((seed, first)) => println!("{bug:?}: by seed {seed}: {first}"),
                        None => missed.lock().unwrap().push(*bug),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(
        missed.is_empty(),
        "not found within {most} seeds: {missed:?}"
    );
}
