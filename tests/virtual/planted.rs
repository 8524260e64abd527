//! Bugs that are planted are found.

use super::tried::attempt;
use crate::host::bug::Bug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seeds tried for a bug that its own seed doesn't find, and for how long.
const SEEDS: u64 = 300;
const TIME: Duration = Duration::from_secs(8);

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
fn found(bug: Bug, known: u64, asked: Option<u64>) -> Option<(u64, String)> {
    let known = Some(known).filter(|_| asked.is_none());
    let begun = Instant::now();
    let more =
        (1..=asked.unwrap_or(SEEDS)).take_while(|_| asked.is_some() || begun.elapsed() < TIME);
    known.into_iter().chain(more).find_map(|seed| {
        let first = attempt(seed, None, Some(bug)).bad.into_iter().next()?;
        // Without it nothing is found.
        let clean = attempt(seed, None, None).bad.is_empty();
        clean.then_some((seed, first.chars().take(160).collect()))
    })
}

#[test]
fn planted_bugs_are_found() {
    let asked = super::number("SHARDLOOM_BUG_SEEDS");
    let next = AtomicU64::new(0);
    let missed = std::sync::Mutex::new(Vec::new());
    super::on_all_processors(|| {
        while let Some((bug, known)) = BUGS.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            match found(*bug, *known, asked) {
                Some((seed, first)) => println!("{bug:?}: by seed {seed}: {first}"),
                None => missed.lock().unwrap().push(*bug),
            }
        }
    });
    let missed = missed.into_inner().unwrap();
    println!("not found: {missed:?}");
    // Another program draws otherwise: an ordinary run may miss some that are rare.
    let most = if asked.is_some() { 0 } else { BUGS.len() / 4 };
    assert!(
        missed.len() <= most,
        "not found: {missed:?}; SHARDLOOM_BUG_SEEDS=5000 tells which seeds find them now, to be noted here"
    );
}
