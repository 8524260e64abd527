//! Bugs that are planted are found.

use super::tried::attempt;
use crate::host::bug::Bug;
use std::sync::atomic::{AtomicU64, Ordering};

/// All bugs.
const BUGS: [Bug; 20] = [
    Bug::AgreeAlone,
    Bug::AlarmsKept,
    Bug::AnswerOfOther,
    Bug::ByteLost,
    Bug::DigestUnasked,
    Bug::DoneForgotten,
    Bug::EarlyReturn,
    Bug::ErrorSwallowed,
    Bug::IntactUnasked,
    Bug::InterruptFatal,
    Bug::JournalFirst,
    Bug::LastWindowKept,
    Bug::LeaderAlone,
    Bug::LockForEver,
    Bug::NoPatience,
    Bug::OldFirst,
    Bug::OneTag,
    Bug::RoundsApart,
    Bug::ShortIsWhole,
    Bug::UnmetReturn,
];

/// The first seed that finds a bug.
fn found(bug: Bug, most: u64) -> Option<(u64, String)> {
    (1..=most).find_map(|seed| {
        let first = attempt(seed, None, Some(bug)).bad.into_iter().next()?;
        // Without it nothing is found.
        attempt(seed, None, None)
            .bad
            .is_empty()
            .then_some((seed, first))
    })
}

#[test]
fn planted_bugs_are_found() {
    let most = super::number("SHARDLOOM_BUG_SEEDS").unwrap_or(1500);
    let next = AtomicU64::new(0);
    let missed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(bug) = BUGS.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match found(*bug, most) {
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
