//! Layouts, shapes and worlds made at random, moved in memory and compared with an oracle that cuts
//! element by element (`support/oracle.rs`).
//!
//! `SHARDLOOM_CASES` sets how many cases each property is tried on.

use crate::support::composed;
use crate::support::drawn;
use crate::support::pretend;
use crate::support::{oracle, tensors};
use composed::{Composed, composed};
use drawn::{Case, Side, case};
use pretend::{Held, Pretended, Request};
use proptest::strategy::Strategy as Draw;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use shardloom::plan::arrange::{Files, Naming, RankName};
use shardloom::plan::build::{Leftovers, Unmatched};
use shardloom::store::Format;
use std::collections::BTreeMap;
use tensors::Tensors;

const CASES: u32 = 1_000;

/// Tries `property` on `SHARDLOOM_CASES` (else `usual`) values.
fn hold<T: std::fmt::Debug>(
    usual: u32,
    values: impl Draw<Value = T>,
    property: impl Fn(&T) -> Result<(), String>,
) {
    let cases = std::env::var("SHARDLOOM_CASES").ok();
    let cases = cases.map_or(usual, |text| text.parse().expect("SHARDLOOM_CASES"));
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&values, |value| {
        property(&value).map_err(TestCaseError::fail)
    });
    assert!(result.is_ok(), "{}", result.expect_err("it is one"));
}

fn reshard(remove_redundancy: bool, format: Format) -> Request {
    Request {
        leftovers: Leftovers::Reshard(Unmatched::Fail),
        files: Files::Ranks {
            name: RankName::new("net", false),
            remove_redundancy,
        },
        format,
    }
}

fn unify(format: Format) -> Request {
    Request {
        leftovers: Leftovers::Unify(Unmatched::Fail),
        files: Files::Full {
            naming: Naming::Hf,
            file_bytes_max: 700,
        },
        format,
    }
}

fn split(format: Format) -> Request {
    Request {
        leftovers: Leftovers::Split(Unmatched::Fail),
        ..reshard(false, format)
    }
}

/// The tensors of each rank in bytes, without those in no strategy.
fn by_rank(held: &Held) -> BTreeMap<u32, Tensors> {
    let mut ranks: BTreeMap<u32, Tensors> = BTreeMap::new();
    for ((rank, name), (dtype, shape, data)) in held.tensors() {
        let tensors = ranks.entry(rank).or_default();
        if name != drawn::PRIVATE {
            tensors.insert(name, drawn::in_bytes(dtype, &shape, data));
        }
    }
    ranks
}

/// A cell that one rank keeps: stage, name, region.
type Kept = (usize, String, oracle::Region);

/// Whether `held` is what `side` makes of the tensors; of a redundancy group one copy may stay.
fn check(case: &Case, held: &Held, side: &Side, single: bool) -> Result<(), String> {
    let whole = case.whole();
    let strategy = case.oracle(side);
    let found = by_rank(held);
    let empty = Tensors::new();
    let mut copies: BTreeMap<Kept, usize> = BTreeMap::new();
    for rank in 0..strategy.ranks() {
        let number = u32::try_from(rank).expect("a rank");
        let mut expected = strategy.cut(&whole, rank)?;
        let here = found.get(&number).unwrap_or(&empty);
        if single {
            for (stage, name, layout) in &strategy.items {
                if *stage != rank / strategy.stage_ranks() || whole[name].elements() == 0 {
                    continue;
                }
                let region = layout.region(&whole[name].shape, rank % strategy.stage_ranks())?;
                let count = copies.entry((*stage, name.clone(), region)).or_default();
                *count += usize::from(here.contains_key(name));
            }
            expected.retain(|name, _| here.contains_key(name));
        }
        tensors::compare(&expected, here).map_err(|error| format!("rank {rank}: {error}"))?;
    }
    match copies.iter().find(|(_, count)| **count != 1) {
        Some((cell, count)) => Err(format!("{cell:?} is kept {count} times")),
        None => Ok(()),
    }
}

/// Whether both hold the same, but for what is in no strategy.
fn same(what: &str, a: &Held, b: &Held) -> Result<(), String> {
    let (a, b) = (by_rank(a), by_rank(b));
    if a == b {
        return Ok(());
    }
    Err(format!("{what}: {a:?} is not {b:?}"))
}

/// Every rank has the private tensor that source rank (rank mod source ranks) had.
fn check_private(case: &Case, source: &Held, made: &Held) -> Result<(), String> {
    if !case.private {
        return Ok(());
    }
    let (source, made) = (source.tensors(), made.tensors());
    let ranks = case.a.ranks();
    for rank in 0..case.b.ranks() {
        let key = |rank| (rank, drawn::PRIVATE.to_owned());
        if made.get(&key(rank)) != source.get(&key(rank % ranks)) {
            return Err(format!("rank {rank} has another rank's private tensor"));
        }
    }
    Ok(())
}

fn resharded_is_what_the_layout_says(case: &Case) -> Result<(), String> {
    let a = case.source();
    let (from, to, third) = (
        case.strategy(&case.a),
        case.strategy(&case.b),
        case.strategy(&case.c),
    );
    let (from, to, third) = (Some(&from), Some(&to), Some(&third));
    let request = reshard(case.remove_redundancy, case.format);
    let plain = reshard(false, Format::SAFETENSORS);
    let world = &case.world;
    let b = world.run(&a, from, to, &request)?;
    check(case, &b, &case.b, case.remove_redundancy).map_err(|e| format!("A -> B: {e}"))?;
    check_private(case, &a, &b)?;
    let back = world.run(&b, to, from, &plain)?;
    same("A -> B -> A", &a, &back)?;
    let via = world.run(&b, to, third, &plain)?;
    let alone = Pretended::alone();
    let straight = alone.run(&a, from, third, &plain)?;
    same("A -> B -> C and A -> C", &via, &straight)?;
    check(case, &via, &case.c, false).map_err(|e| format!("A -> B -> C: {e}"))
}

fn unified_and_split_is_resharded(case: &Case) -> Result<(), String> {
    let b = case.source();
    let (from, to) = (case.strategy(&case.a), case.strategy(&case.b));
    let full = case.world.run(&b, Some(&from), None, &unify(case.format))?;
    let found = by_rank(&full);
    tensors::compare(&case.whole(), &found[&0]).map_err(|e| format!("unify: {e}"))?;
    let made = case
        .world
        .run(&full, None, Some(&to), &split(case.format))?;
    check(case, &made, &case.b, false).map_err(|e| format!("split: {e}"))
}

fn composed_is_what_its_pieces_say(case: &Composed) -> Result<(), String> {
    let source = case.source();
    let made = case.world.make(
        &source,
        vec![case.plan()],
        case.ranks_b(),
        Format::SAFETENSORS,
    )?;
    let expected = case.expected();
    for (rank, found) in by_rank(&made) {
        tensors::compare(&expected[&rank], &found).map_err(|e| format!("rank {rank}: {e}"))?;
    }
    let back = case.world.make(
        &made,
        case.inverse_plans(),
        case.ranks_a(),
        Format::SAFETENSORS,
    )?;
    same("a view and its inverse", &source, &back)
}

// proves P1
#[test]
fn resharding_keeps_every_byte() {
    hold(CASES, case(), resharded_is_what_the_layout_says);
}

// proves P1
#[test]
fn unifying_and_splitting_keep_every_byte() {
    hold(CASES / 2, case(), unified_and_split_is_resharded);
}

#[test]
fn views_and_their_inverses_keep_every_byte() {
    hold(CASES / 2, composed(), composed_is_what_its_pieces_say);
}
