//! The steps of a job that compares, and what is said of its two sides: how closely their copies were looked at,
//! and on which side they differ among themselves.

use crate::exchange::agree;
use crate::fault::{Fault, Kind, Result};
use crate::job::account::{Part, account};
use crate::job::alike;
use crate::job::clock::Clock;
use crate::job::compare::{self, Pairing};
use crate::job::copies;
use crate::job::differing::of_sealed;
use crate::job::nodes;
use crate::job::outcome::Outcome;
use crate::job::pairs::pairs;
use crate::job::spec::Comparing;
use crate::job::steps::Run;
use crate::job::tally;
use crate::plan::cell::check_parts;
use crate::plan::select::idle;
use crate::source::{Opened, Verify, uncompared};
use crate::tensor::number::Difference;
use crate::transport::Observer;
use std::collections::{BTreeMap, BTreeSet};

/// What differs, by names of the second side.
type Differences = BTreeMap<String, Difference>;

/// A fault of one side, of which `flag` gives the strategy.
pub(super) fn of_side(fault: Fault, flag: &str) -> Fault {
    let hint = fault.hint.map(|hint| hint.replace("--src-strategy", flag));
    Fault { hint, ..fault }
}

/// Tensors whose copies are looked at once more, at most.
const NAMES_MAX: usize = 16;

impl Run<'_> {
    /// The third step of a comparison: what is compared with what. Collective.
    pub(super) fn pair(&self, a: &Opened, b: &Opened, comparing: &Comparing) -> Result<Pairing> {
        let filter = &comparing.filter_out_prefixes;
        let pairs = pairs([a, b], filter, &comparing.names);
        let pairing = pairs.and_then(|pairs| compare::pair(a, b, &pairs));
        let pairing = agree(self.world, pairing)?;
        agree(self.world, self.all_there(b, &pairing))?;
        alike::check(self.world, self.topology, &pairing.plans, self.job.command)?;
        Ok(pairing)
    }

    /// Whether all parts of what is compared of the second side are there: a part that no rank has is compared with
    /// nothing. Each process looks at some of the tensors. Local.
    fn all_there(&self, b: &Opened, pairing: &Pairing) -> Result<()> {
        let (process, processes) = (self.world.process() as usize, self.world.size() as usize);
        let own = pairing.theirs.iter().skip(process).step_by(processes);
        let mut checked = own.map(|tensor| check_parts(tensor, &b.source.catalog));
        checked
            .try_for_each(|checked| checked)
            .map_err(|fault| b.source.place(fault))
    }

    /// The fourth: the differences, by the names of `b`. Collective.
    pub(super) fn compare(
        &self,
        [a, b]: [&Opened; 2],
        pairing: &Pairing,
        observer: &mut Observer<'_>,
    ) -> Result<Differences> {
        let moving = &self.job.moving;
        let plans = &pairing.plans;
        let verify = self.job.reading.verify;
        let (world, topology, seals) = (self.world, self.topology, verify == Verify::Sample);
        for side in [a, b] {
            nodes::check(world, topology, &side.source, verify, 0)?;
        }
        let mut found = of_sealed(world, topology, [a, b], plans, moving, seals, observer)?;
        // Every copy of B has been read, of A one of each shard.
        let suspected = match verify {
            Verify::None => false,
            Verify::Sample => {
                differing(copies::by_sample(world, a))? || !copies::strangers(world, a)?.is_empty()
            }
            Verify::All => true,
        };
        if suspected {
            for (name, copy) in compare::unequal_copies(world, topology, a, plans, moving)? {
                found.entry(pairing.theirs(&name)).or_insert(copy);
            }
        }
        compare::joined(world, found)
    }

    /// The last: both sides still stand, and what was found is told. Collective.
    pub(super) fn compared(
        &self,
        [a, b]: [&Opened; 2],
        (pairing, comparing): (Pairing, &Comparing),
        found: &Differences,
        clock: Clock,
    ) -> Result<Outcome> {
        let mut notes = notes(self, [a, b], found, &pairing)?;
        let names = [a, b].into_iter().flat_map(|side| {
            let names = side.inventory.tensors.keys().chain(&side.inventory.private);
            names.map(|name| &**name)
        });
        notes.extend(idle(&comparing.filter_out_prefixes, names));
        a.source.still.check(self.world)?;
        b.source.still.check(self.world)?;
        let part = Part {
            plans: &pairing.plans,
            ..Part::default()
        };
        let account = account(self.world, self.topology, &part)?;
        let rows = pairing.rows(found);
        let equal = rows.iter().all(|row| row.state == "equal");
        let mut outcome = Outcome {
            ok: equal,
            tensors: rows.len() as u64,
            equal: Some(equal),
            differences: rows,
            account,
            copies_compared: copies::word(self.job.reading.verify, a),
            notes,
            lines_max: comparing.lines_max,
            ..tally::outcome(self.world, self.topology, self.job.command)
        };
        outcome.seconds.total = clock.stop().total;
        outcome.within(comparing.tolerance);
        Ok(outcome)
    }
}

/// Whether a comparison found a difference, which is then no error. Local.
fn differing(compared: Result<()>) -> Result<bool> {
    match compared {
        Ok(()) => Ok(false),
        Err(fault) if fault.kind == Kind::Differs => Ok(true),
        Err(fault) => Err(fault),
    }
}

/// The notes of a comparison that has `found` these differences. Collective.
///
/// # Errors
/// As reading the copies.
fn notes(
    run: &Run<'_>,
    sides: [&Opened; 2],
    found: &Differences,
    pairing: &Pairing,
) -> Result<Vec<String>> {
    let [a, b] = sides;
    let mut notes = [a, b].map(|side| side.source.notes.clone()).concat();
    let values = [a, b].map(|side| side.source.values.clone()).concat();
    let values: BTreeSet<String> = values.into_iter().collect();
    notes.extend(uncompared(&values.into_iter().collect::<Vec<_>>()));
    let verify = run.job.reading.verify;
    if copies::word(verify, a).is_some() {
        let how = match verify {
            Verify::None => "one of each was",
            Verify::Sample => "one of each, and a sample of the others, were",
            Verify::All => "every one was",
        };
        let more = match verify {
            Verify::All => "",
            _ => "; --verify all reads all",
        };
        notes.push(format!(
            "of what the first side has several times {how} compared, of the second every one{more}"
        ));
    }
    let theirs: BTreeSet<&str> = found.keys().take(NAMES_MAX).map(String::as_str).collect();
    if theirs.is_empty() {
        return Ok(notes);
    }
    let ours = theirs.iter().map(|name| pairing.ours(name).unwrap_or(name));
    let both = [ours.collect(), theirs.clone()];
    for ((side, which), names) in sides.into_iter().zip(["first", "second"]).zip(both) {
        let named = |name: &str| names.contains(name);
        let moving = &run.job.moving;
        for (name, told) in compare::unlike_copies(run.world, run.topology, side, named, moving)? {
            notes.push(format!(
                "the {which} side's own copies of '{name}' differ: {told}. One is damaged, or its strategy is \
                 another"
            ));
        }
    }
    Ok(notes)
}
