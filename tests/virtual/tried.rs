//! One seed: a job is disturbed, judged, and run once more.

use super::Met;
use super::case::{Case, Doing};
use super::judge::{Ended, judge, judge_clean};
use super::room::{Nodes, go_to};
use crate::exchange::World;
use crate::host::bug::Bug;
use crate::host::cluster::ill::{Event, Ills};
use crate::host::cluster::{End, Run, Setting, run};
use crate::job::verify::{Verification, verify};
use crate::job::{self, Job};
use std::fmt::Write;

/// What came of a seed.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) case: Case,
    pub(super) events: Vec<Event>,
    pub(super) ends: Vec<String>,
    /// What is wrong.
    pub(super) bad: Vec<String>,
    pub(super) met: Met,
    pub(super) steps: u64,
    pub(super) trace: u64,
}

/// Whether something can be met in a phase: no file is looked for late where none is made by others.
pub(super) fn can_meet(ill: &str, phase: &str) -> bool {
    match ill {
        "rot" => phase == "moving",
        "seen late" => !["starting", "reading what is there", "planning"].contains(&phase),
        // Messages only.
        "EINTR" | "short" | "EIO" | "ENOSPC" => !["starting", "planning"].contains(&phase),
        _ => true,
    }
}

pub(super) fn on(case: &Case, nodes: &Nodes, job: &Job, setting: &Setting) -> Run<Ended> {
    debug_assert_eq!(setting.nodes.len(), case.processes as usize);
    run(
        setting,
        |node| go_to(nodes.root(node)),
        || {
            let world = World::start()?;
            let outcome = job::run(&world, job, &mut |_, _| {});
            world.finish()?;
            outcome.map(|_| ())
        },
    )
}

/// What the result's own manifest says against it.
fn verified(case: &Case, nodes: &Nodes, setting: &Setting) -> Vec<String> {
    let place = if case.doing == Doing::InPlace {
        "src"
    } else {
        "out"
    };
    let verification = Verification {
        directory: place.into(),
        against: None,
        subset: None,
    };
    let run = run(
        setting,
        |node| go_to(nodes.root(node)),
        || {
            let world = World::start()?;
            let outcome = verify(&world, &verification, &mut |_, _| {});
            world.finish()?;
            outcome.map(|outcome| outcome.ok)
        },
    );
    let mut bad = run.findings;
    let wrong = run
        .ends
        .iter()
        .find(|end| !matches!(end, End::Done(Ok(true))));
    bad.extend(wrong.map(|end| format!("the manifest says otherwise: {end:?}")));
    bad
}

/// Tries a seed: as drawn, or with these events alone (and, if said, in order).
pub(super) fn attempt(seed: u64, just: Option<(&[Event], bool)>, bug: Option<Bug>) -> Tried {
    let case = Case::of(seed);
    let mut nodes = Nodes::make(&case);
    let (ills, calm) = match just {
        None => (case.ills.clone(), false),
        Some((events, calm)) => (Ills::Listed(events.to_vec()), calm),
    };
    let setting = Setting {
        seed,
        nodes: case.node_of(),
        alone: None,
        ills,
        calm,
        bug,
        schedule: None,
    };
    let first = on(&case, &nodes, &case.job(false), &setting);
    let mut bad = judge(&case, &nodes, &first);
    let mut met = first.met;
    if case.rot.is_some() {
        let failed = first
            .ends
            .iter()
            .any(|end| format!("{end:?}").contains("Err("));
        met.insert(("rot".to_owned(), "moving"), u64::from(failed));
        nodes.mend();
    }
    if bad.is_empty() {
        let setting = Setting {
            seed: seed ^ 0x5eed,
            ills: Ills::Listed(Vec::new()),
            ..setting
        };
        let next = on(&case, &nodes, &case.job(true), &setting);
        bad = judge_clean(&case, &nodes, &next);
        if bad.is_empty() && (seed.is_multiple_of(4) || case.doing == Doing::Resume) {
            bad = verified(&case, &nodes, &setting);
        }
    }
    Tried {
        ends: first.ends.iter().map(|end| format!("{end:?}")).collect(),
        case,
        events: first.events,
        bad,
        met,
        steps: first.steps,
        trace: first.trace,
    }
}

/// What to print of a seed that failed: how to see it again, and the fewest events with which it still fails.
pub(super) fn told(seed: u64, tried: &Tried) -> String {
    let mut events = tried.events.clone();
    let fails = |events: &[Event], calm| !attempt(seed, Some((events, calm)), None).bad.is_empty();
    let again = fails(&events, false);
    let mut tries = 0;
    if again {
        let light = |event: &Event| event.ill.is_light();
        let heavy: Vec<Event> = events
            .iter()
            .filter(|event| !light(event))
            .copied()
            .collect();
        if fails(&heavy, false) {
            events = heavy;
        }
        let mut at = events.len();
        while at > 0 && tries < 60 {
            at -= 1;
            tries += 1;
            let mut fewer = events.clone();
            fewer.remove(at);
            if fails(&fewer, false) {
                events = fewer;
            }
        }
    }
    let calm = fails(&events, true);
    let mut text = format!(
        "SEED {seed}: SHARDLOOM_SEED={seed} cargo test --lib virtual_cluster::whatever -- --nocapture\n"
    );
    let Case {
        ills: _, ref doing, ..
    } = tried.case;
    let _ = writeln!(text, "  job: {doing:?}; {:?}", tried.case);
    let _ = writeln!(text, "  ends: {:?}", tried.ends);
    let heavy: Vec<&Event> = events
        .iter()
        .filter(|event| !event.ill.is_light() || events.len() < 9)
        .collect();
    let (all, few) = (tried.events.len(), events.len());
    let _ = writeln!(
        text,
        "  {all} events, {few} are enough{}:",
        if calm { ", in order" } else { "" }
    );
    for event in heavy {
        let _ = writeln!(text, "    {event}");
    }
    for line in &tried.bad {
        let _ = writeln!(text, "  BAD: {line}");
    }
    text
}
