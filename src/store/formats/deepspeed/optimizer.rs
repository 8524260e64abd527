//! What the states of an optimizer hold: for each group a flat part of all its weights, and of their moments.

use super::entries::{Entries, Meant};
use super::model::{Model, Shapes, some};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle::{Node, Pickle, Value};
use crate::store::formats::torch::{Saved, StoredTensor, tensor};
use std::ops::Range;

/// What counts the steps of a group.
const STEP: &str = "step";
/// What the weights of float32 are called beside those of the model's own type.
const MASTER: &str = "fp32.";

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Corrupt, message)
}

/// A flat part: what stands before the names of its tensors, its tensor, and where that begins in the file.
struct Flat {
    before: String,
    tensor: StoredTensor,
    begin: u64,
}

impl Flat {
    fn elements(&self) -> u64 {
        self.tensor.shape.0.first().copied().unwrap_or_default()
    }

    /// The bytes before element `number`.
    fn at(&self, number: u64) -> u64 {
        self.begin + number * u64::from(self.tensor.dtype.bits() / 8)
    }
}

/// The states of an optimizer that are read.
pub(super) struct Optimizer<'a> {
    pickle: &'a Pickle<'a>,
    saved: &'a Saved<'a>,
    states: Value,
    /// Ranks over which each weight is cut.
    ranks: Vec<u64>,
    rank: u64,
}

impl<'a> Optimizer<'a> {
    /// Those of `rank`.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if they are none.
    pub(super) fn of(pickle: &'a Pickle<'a>, saved: &'a Saved<'a>, rank: u32) -> Result<Self> {
        let states = some(pickle, pickle.root(), "optimizer_state_dict");
        let states = states.ok_or_else(|| corrupt("has no optimizer_state_dict"))?;
        let count = some(pickle, states, "partition_count");
        let ranks = count.and_then(|count| match pickle.count(count) {
            Some(one) => Some(vec![one]),
            None => pickle.counts(count),
        });
        let ranks = ranks.filter(|ranks| !ranks.is_empty() && !ranks.contains(&0));
        let ranks = ranks.ok_or_else(|| corrupt("doesn't say over how many ranks it is cut"))?;
        let rank = u64::from(rank);
        if ranks.iter().all(|ranks| rank >= *ranks) {
            let message = format!("is of rank {rank}, of {} by what it says", ranks[0]);
            return Err(corrupt(message));
        }
        Ok(Optimizer {
            pickle,
            saved,
            states,
            ranks,
            rank,
        })
    }

    /// The ranks over which the weights are cut, of the group that has most.
    pub(super) fn most_ranks(&self) -> u64 {
        self.ranks.iter().copied().max().unwrap_or_default()
    }

    /// Gives `entries` all that is in the file.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] for parts that can't be those of `model`; [`Kind::Unsupported`].
    pub(super) fn take(&self, model: &Model, entries: &mut Entries) -> Result<()> {
        if let Some(groups) = some(self.pickle, self.states, "fp32_flat_groups") {
            return self.by_weight(groups, model, entries);
        }
        let groups = some(self.pickle, self.states, "single_partition_of_fp32_groups");
        let groups = groups.and_then(|groups| self.pickle.elements(groups));
        let Some(groups) = groups else {
            let message = "has no flat weights: its kind of ZeRO isn't known";
            return Err(Fault::new(Kind::Unsupported, message));
        };
        if groups.len() != model.groups.len() {
            let message = format!(
                "has {} flat groups, the model's states have {}",
                groups.len(),
                model.groups.len()
            );
            return Err(corrupt(message));
        }
        for (number, (flat, shapes)) in groups.iter().zip(&model.groups).enumerate() {
            self.by_group(number, *flat, shapes, entries)?;
        }
        Ok(())
    }

    /// ZeRO 1 and 2: all weights of a group are one flat tensor, which is cut over the ranks.
    fn by_group(
        &self,
        number: usize,
        flat: Value,
        shapes: &Shapes,
        entries: &mut Entries,
    ) -> Result<()> {
        let master = self.flat(flat, MASTER.to_owned())?;
        let told = |key: &str| {
            let all = some(self.pickle, self.states, key)?;
            self.pickle.elements(all)?.get(number).copied()
        };
        let padding = told("group_paddings").and_then(|padding| self.pickle.count(padding));
        let between = told("param_alignment_paddings").and_then(|all| self.pickle.counts(all));
        let ranks = self.ranks.get(number).unwrap_or(&self.ranks[0]);
        let (places, due) = places(shapes, &between.unwrap_or_default())?;
        let part = self.part(master.elements(), padding.unwrap_or_default(), *ranks, due)?;
        let begin = part.checked_mul(self.rank);
        let begin = begin.ok_or_else(|| corrupt("has more elements than can be counted"))?;
        let states = some(self.pickle, self.states, "base_optimizer_state");
        let mut flats = vec![master];
        if let Some(states) = states {
            flats.extend(self.moments(states, number, part, entries)?);
        }
        for flat in &flats {
            let held = begin..begin.saturating_add(flat.elements());
            for ((name, shape), whole) in shapes.iter().zip(&places) {
                let meant = Meant {
                    name: format!("{}{name}", flat.before),
                    dtype: flat.tensor.dtype,
                    shape: shape.clone(),
                };
                let here = held.start.max(whole.start)..held.end.min(whole.end);
                let empty = whole.is_empty() && self.rank == 0;
                if here.start < here.end || empty {
                    let here = if empty { whole.clone() } else { here };
                    let run = here.start - whole.start..here.end - whole.start;
                    let from = here.start.saturating_sub(held.start);
                    entries.run(&meant, run, flat.at(from))?;
                }
            }
        }
        Ok(())
    }

    /// How many elements of a group each rank has, where this one has `own` without `padding`, or with it.
    fn part(&self, own: u64, padding: u64, ranks: u64, due: u64) -> Result<u64> {
        let fits = |part: &u64| {
            let all = part.checked_mul(ranks);
            all.is_some_and(|all| match self.rank + 1 == ranks {
                true => all.checked_sub(padding) == Some(due),
                false => all >= due,
            })
        };
        let mut both = [Some(own), own.checked_add(padding)].into_iter().flatten();
        both.find(fits).ok_or_else(|| {
            corrupt(format!(
                "has {own} elements of a group that has {due} over {ranks} ranks"
            ))
        })
    }

    /// ZeRO 3: every weight is cut by itself, and each rank's parts of all are one flat tensor.
    fn by_weight(&self, groups: Value, model: &Model, entries: &mut Entries) -> Result<()> {
        let groups = self.pickle.elements(groups);
        let groups = groups
            .ok_or_else(|| corrupt("its flat groups are none"))?
            .to_vec();
        let states = some(self.pickle, self.states, "optimizer_state_dict");
        let states = states.or_else(|| some(self.pickle, self.states, "base_optimizer_state"));
        let mut begin = 0u64;
        let ranks = self.ranks[0];
        for (number, flat) in groups.iter().enumerate() {
            let flat = self.flat(*flat, String::new())?;
            let held = begin..begin.saturating_add(flat.elements());
            begin = held.end;
            let mut flats = vec![flat];
            if let Some(states) = states {
                let own = held.end - held.start;
                flats.extend(self.moments(states, number, own, entries)?);
            }
            for flat in &flats {
                let end = held.end.min(held.start.saturating_add(flat.elements()));
                self.cut(flat, &(held.start..end), ranks, model, entries)?;
            }
        }
        let mut due = 0u64;
        for (_, shape) in model.groups.iter().flatten() {
            due = due.saturating_add(shape.elements()?.div_ceil(ranks));
        }
        if due > begin {
            let message = format!("has {begin} elements, {due} are due by the model's states");
            return Err(corrupt(message));
        }
        Ok(())
    }

    /// The parts of weights in elements `held` of what this rank has of all.
    fn cut(
        &self,
        flat: &Flat,
        held: &Range<u64>,
        ranks: u64,
        model: &Model,
        entries: &mut Entries,
    ) -> Result<()> {
        let mut at = 0u64;
        for (name, shape) in model.groups.iter().flatten() {
            let all = shape.elements()?;
            let part = all.div_ceil(ranks);
            // What this rank has of the weight, and where that is in what it has of all.
            let own = part.saturating_mul(self.rank).min(all)
                ..part.saturating_mul(self.rank + 1).min(all);
            let place = at..at.saturating_add(own.end - own.start);
            at = at.saturating_add(part);
            let here = held.start.max(place.start)..held.end.min(place.end);
            let empty = all == 0 && self.rank == 0 && held.start == 0;
            if here.start >= here.end && !empty {
                continue;
            }
            let first = own.start + (here.start.saturating_sub(place.start));
            let run = match empty {
                true => 0..0,
                false => first..first + (here.end - here.start),
            };
            let from = flat.at(here.start.saturating_sub(held.start));
            for called in model.names(name).take(if flat.before.is_empty() {
                usize::MAX
            } else {
                1
            }) {
                let meant = Meant {
                    name: format!("{}{called}", flat.before),
                    dtype: flat.tensor.dtype,
                    shape: shape.clone(),
                };
                entries.run(&meant, run.clone(), from)?;
            }
        }
        Ok(())
    }

    /// The moments of a group, in which this rank has `part` elements. What is of one element, as the step, goes
    /// to `entries` from rank 0.
    fn moments(
        &self,
        states: Value,
        number: usize,
        part: u64,
        entries: &mut Entries,
    ) -> Result<Vec<Flat>> {
        let pickle = self.pickle;
        let of_group = match pickle.node(states) {
            Node::List(groups) | Node::Tuple(groups) => groups.get(number).copied(),
            _ => {
                let items = some(pickle, states, "state").and_then(|state| pickle.items(state));
                let wanted = number as u64;
                let mut pairs = items.unwrap_or_default().chunks_exact(2);
                let pair = pairs.find(|pair| pickle.count(pair[0]) == Some(wanted));
                pair.map(|pair| pair[1])
            }
        };
        let items = of_group
            .and_then(|group| pickle.items(group))
            .unwrap_or_default();
        let mut flats = Vec::new();
        for pair in items.chunks_exact(2) {
            let Some(kind) = pickle.text(pair[0]) else {
                continue;
            };
            let Some(found) = tensor(pickle, pair[1])? else {
                if let Some(count) = pickle.count(pair[1]).filter(|_| kind == STEP) {
                    entries.agree(format!("{kind}.{number}"), count.to_string());
                }
                continue;
            };
            if found.shape.elements()? == 1 && (part != 1 || kind == STEP) {
                let window = self.saved.window(&found)?;
                let says = self.saved.spelled(&found, &window)?;
                if kind == STEP {
                    entries.agree(format!("{kind}.{number}"), says);
                }
                if self.rank == 0 {
                    entries.whole(&format!("{kind}.{number}"), found, window);
                }
                continue;
            }
            flats.push(self.flat(pair[1], format!("{kind}."))?);
        }
        Ok(flats)
    }

    /// A flat tensor.
    fn flat(&self, value: Value, before: String) -> Result<Flat> {
        let found = tensor(self.pickle, value)?;
        let found = found.filter(|found| found.shape.0.len() == 1 && found.strides.is_none());
        let found = found.ok_or_else(|| corrupt("has a flat group that is no flat tensor"))?;
        let begin = self.saved.window(&found)?.start;
        Ok(Flat {
            before,
            tensor: found,
            begin,
        })
    }
}

/// Where each of the weights is among the elements of all, with so many of nothing behind each; and how many there are.
fn places(shapes: &Shapes, between: &[u64]) -> Result<(Vec<Range<u64>>, u64)> {
    let large = || corrupt("its shapes have more elements than can be counted");
    if !between.is_empty() && between.len() != shapes.len() {
        return Err(corrupt(
            "doesn't say what lies between the weights of a group",
        ));
    }
    let (mut places, mut at) = (Vec::new(), 0u64);
    let gaps = between.iter().copied().chain(std::iter::repeat(0));
    for ((_, shape), gap) in shapes.iter().zip(gaps) {
        let end = at.checked_add(shape.elements()?).ok_or_else(large)?;
        places.push(at..end);
        at = end.checked_add(gap).ok_or_else(large)?;
    }
    Ok((places, at))
}
