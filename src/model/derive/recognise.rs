//! Which layouts rank files have, by the shapes of their tensors alone.

use super::derived::{Derived, derive, part};
use super::mesh::Mesh;
use super::read::usual;
use super::seen::Seen;
use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::strategy::{Strategy, show};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// The tensors of a rank's files: names and shapes.
pub type Held = BTreeMap<String, Vec<u64>>;

/// A layout that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Candidate {
    /// As it is typed in place of a strategy.
    pub parallel: String,
    /// Whether every rank's tensors have the shapes that it gives them.
    pub fits: bool,
    /// A layout before it that gives every rank the same parts: it doesn't matter which is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// Whether ranks lack what others hold too: one copy of each part was kept.
    pub redundancy_removed: bool,
    /// What doesn't fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The layouts of the usual job of `model` that fit the files of `ranks`, then those that don't. Local.
///
/// # Errors
/// [`Kind::Config`] for a model that no table is for, [`Kind::MissingShard`] for no files.
pub fn recognise(ranks: &BTreeMap<u32, Held>, model: &Path) -> Result<Vec<Candidate>> {
    let Some(last) = ranks.keys().next_back() else {
        return Err(Fault::new(Kind::MissingShard, "there are no rank files"));
    };
    let names = ranks.values().flat_map(BTreeMap::keys);
    let files = Files::new(ranks, Seen::of(names.map(String::as_str)));
    let number = u64::from(*last) + 1;
    let whole = derive(&usual("dp=1", &files.seen, model)?)?;
    let full = whole.stages.iter().flatten();
    let full: BTreeSet<&str> = full.map(|entry| entry.name.as_str()).collect();
    let experts = full.iter().any(|name| name.contains(".experts."));
    let mut candidates = Vec::new();
    let mut fitting: Vec<(String, Strategy)> = Vec::new();
    for base in bases(number) {
        let tried = |parallel: &str| derive(&usual(parallel, &files.seen, model)?);
        let parallel = spelled(&base, None);
        // What may cut rows once more cuts no columns.
        let columns = tried(&parallel).and_then(|derived| files.fit(&derived, &full, true));
        if let Err(fault) = columns {
            candidates.push(refused(parallel, &fault));
            continue;
        }
        for (mesh, shard) in variants(&base, experts) {
            let parallel = spelled(&mesh, shard);
            let tried = tried(&parallel);
            let fit = tried.and_then(|derived| Ok((files.fit(&derived, &full, false)?, derived)));
            candidates.push(match fit {
                Err(fault) => refused(parallel, &fault),
                Ok((removed, derived)) => {
                    let strategy = derived.strategy()?;
                    let same = fitting.iter().find(|(_, known)| {
                        known.stages() == strategy.stages()
                            && show::diff(known, &strategy).is_empty()
                    });
                    let same_as = same.map(|(parallel, _)| parallel.clone());
                    if same_as.is_none() {
                        fitting.push((parallel.clone(), strategy));
                    }
                    Candidate {
                        parallel,
                        fits: true,
                        same_as,
                        redundancy_removed: removed,
                        why: None,
                    }
                }
            });
        }
    }
    settle(&mut candidates);
    Ok(candidates)
}

/// Where ranks hold all of a layout, one with redundancy removed is none; those that fit come first.
fn settle(candidates: &mut [Candidate]) {
    let complete = |candidate: &Candidate| candidate.fits && !candidate.redundancy_removed;
    if candidates.iter().any(complete) {
        for candidate in candidates.iter_mut().filter(|c| c.redundancy_removed) {
            candidate.fits = false;
            candidate.same_as = None;
            candidate.why =
                Some("ranks would lack tensors, and in another layout none is lacking".into());
        }
    }
    candidates.sort_by_key(|candidate| !candidate.fits);
}

fn refused(parallel: String, fault: &Fault) -> Candidate {
    Candidate {
        parallel,
        fits: false,
        same_as: None,
        redundancy_removed: false,
        why: Some(match &fault.tensor {
            Some(tensor) => format!("{tensor}: {}", fault.message),
            None => fault.message.clone(),
        }),
    }
}

fn divisors(number: u64) -> impl Iterator<Item = u64> {
    (1..=number).filter(move |n| number.is_multiple_of(*n))
}

/// The meshes of `ranks` by what cuts columns: stages and tensor parallel.
pub(super) fn bases(ranks: u64) -> Vec<Mesh> {
    let mut all = Vec::new();
    for stages in divisors(ranks) {
        for tensor in divisors(ranks / stages) {
            all.push(Mesh {
                data: ranks / stages / tensor,
                tensor,
                stages,
                context: 1,
                expert: 1,
            });
        }
    }
    all
}

/// The layouts of a mesh with context and expert parallel and with an optimizer shard, plain ones first.
fn variants(base: &Mesh, experts: bool) -> Vec<(Mesh, Option<i64>)> {
    let mut all = Vec::new();
    let per_stage = base.ranks_per_stage();
    for context in divisors(base.data) {
        let data = base.data / context;
        for expert in divisors(data * base.tensor) {
            if expert > 1 && !experts {
                continue;
            }
            let mesh = Mesh {
                data,
                context,
                expert,
                ..*base
            };
            all.push((mesh, None));
            if per_stage == 1 {
                continue;
            }
            all.push((mesh, Some(-1)));
            let sizes = divisors(per_stage).filter(|size| *size > 1);
            let sizes = sizes.filter_map(|size| i64::try_from(size).ok());
            all.extend(sizes.map(|size| (mesh, Some(size))));
        }
    }
    all.sort_by_key(|(_, shard)| shard.is_some());
    all
}

/// As it is typed.
pub(super) fn spelled(mesh: &Mesh, shard: Option<i64>) -> String {
    let mut text = format!("dp={},tp={}", mesh.data, mesh.tensor);
    for (name, size) in [
        ("pp", mesh.stages),
        ("cp", mesh.context),
        ("ep", mesh.expert),
    ] {
        if size > 1 {
            text.push_str(&format!(",{name}={size}"));
        }
    }
    if let Some(shard) = shard {
        text.push_str(&format!(",opt={shard}"));
    }
    text
}

/// What the ranks hold, equal ones once.
struct Files<'a> {
    seen: Seen,
    ranks: &'a BTreeMap<u32, Held>,
    /// The lowest rank that holds the same, by rank.
    like: BTreeMap<u32, u32>,
}

impl<'a> Files<'a> {
    fn new(ranks: &'a BTreeMap<u32, Held>, seen: Seen) -> Files<'a> {
        let mut first: HashMap<&Held, u32> = HashMap::new();
        let like = ranks.iter().map(|(rank, held)| {
            let like = *first.entry(held).or_insert(*rank);
            (*rank, like)
        });
        Files {
            like: like.collect(),
            seen,
            ranks,
        }
    }

    /// Whether all ranks hold what `derived` gives them; gives whether any lacks what others hold in its
    /// place. `columns`: all dimensions but the first alone. `full`: all names of the model.
    fn fit(&self, derived: &Derived, full: &BTreeSet<&str>, columns: bool) -> Result<bool> {
        let mut removed = false;
        let mut checked = BTreeSet::new();
        for (rank, held) in self.ranks {
            let stage = rank / derived.ranks_per_stage.max(1);
            let alike = checked.contains(&(stage, self.like[rank]));
            let entries = derived
                .stages
                .get(usize::try_from(stage).unwrap_or(usize::MAX));
            let entries = entries.map_or(&[][..], Vec::as_slice);
            if !alike {
                checked.insert((stage, self.like[rank]));
                let own: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
                let foreign = held.keys().map(String::as_str);
                let mut foreign = foreign.filter(|name| full.contains(name) && !own.contains(name));
                if let Some(name) = foreign.next() {
                    return Err(misfit(name, *rank, "is of another stage".into()));
                }
            }
            let weights = entries
                .iter()
                .filter(|entry| full.contains(entry.name.as_str()));
            for entry in weights {
                match held.get(&entry.name) {
                    None if columns || may_lack(&entry.name, full) => {}
                    None if self.held_elsewhere(
                        &entry.name,
                        &entry.layout,
                        stage,
                        *rank,
                        derived,
                    ) =>
                    {
                        removed = true;
                    }
                    None => return Err(misfit(&entry.name, *rank, "isn't there".into())),
                    Some(_) if alike => {}
                    Some(shape) => {
                        let given = part(&entry.shape, &entry.layout);
                        let skip = usize::from(columns);
                        if shape.get(skip..) != given.get(skip..) || shape.len() != given.len() {
                            let message = format!("is {shape:?}, the layout gives {given:?}");
                            return Err(misfit(&entry.name, *rank, message));
                        }
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Whether another rank holds the part of a tensor that `rank` would have.
    fn held_elsewhere(
        &self,
        name: &str,
        layout: &Layout,
        stage: u32,
        rank: u32,
        derived: &Derived,
    ) -> bool {
        let first = stage * derived.ranks_per_stage;
        let cell = layout.cell(rank - first);
        let mut holders = layout.holders(&cell);
        holders.any(|holder| {
            let held = self.ranks.get(&(first + holder));
            held.is_some_and(|held| held.contains_key(name))
        })
    }
}

/// Whether files may be without it: what the optimizer keeps, and what has no such states, as it isn't trained.
fn may_lack(name: &str, full: &BTreeSet<&str>) -> bool {
    !full.contains(&*format!("adam_m.{name}"))
}

fn misfit(name: &str, rank: u32, message: String) -> Fault {
    Fault::new(Kind::Shape, format!("rank {rank}: {message}")).tensor(name)
}
