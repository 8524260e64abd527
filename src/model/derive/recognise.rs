//! Which layouts rank files have, by the shapes of their tensors alone.

use super::dealt::dealt;
use super::derived::{Derived, derive, part};
use super::mesh::Mesh;
use super::read::Described;
use super::seen::Seen;
use super::sizes::Sizes;
use super::threshold::threshold_kb;
use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::model::choices::Scheme;
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
    let files = Files::new(ranks, Seen::of_all(names.map(String::as_str)));
    let described = Described::read(model)?;
    let job = described.job(&Sizes::from(Mesh::ONE), &files.seen)?;
    let whole = derive(&job)?;
    let full = whole.stages.iter().flatten();
    let full: BTreeSet<&str> = full.map(|entry| entry.name.as_str()).collect();
    let mut search = Search {
        files: &files,
        described: &described,
        layers: job.numbers.value("layers").unwrap_or(0),
        prefix: job.layers_prefix().unwrap_or_default(),
        experts: full.iter().any(|name| name.contains(".experts.")),
        legacy: job.scheme == Scheme::Legacy,
        element_bytes: job.element_bytes,
        full: &full,
        candidates: Vec::new(),
        fitting: Vec::new(),
    };
    for base in bases(u64::from(*last) + 1) {
        search.base(base)?;
    }
    settle(&mut search.candidates);
    Ok(search.candidates)
}

/// What is tried, and found.
struct Search<'a> {
    files: &'a Files<'a>,
    described: &'a Described,
    /// Number of layers, and how their tensors' names begin.
    layers: u64,
    prefix: String,
    experts: bool,
    legacy: bool,
    element_bytes: u64,
    /// All names of the model.
    full: &'a BTreeSet<&'a str>,
    candidates: Vec<Candidate>,
    fitting: Vec<(String, Strategy)>,
}

impl Search<'_> {
    fn derived(&self, sizes: &Sizes) -> Result<Derived> {
        derive(&self.described.job(sizes, &self.files.seen)?)
    }

    /// Tries the layouts of a mesh by what cuts columns.
    fn base(&mut self, base: Mesh) -> Result<()> {
        let mut sizes = Sizes::from(base);
        let stages = self
            .files
            .layers(base.ranks_per_stage(), base.stages, &self.prefix);
        if let Some((chunks, offset)) = dealt(&stages, self.layers) {
            (sizes.chunks, sizes.offset) = (chunks, offset);
        }
        // What may cut rows once more cuts no columns.
        let columns = self.derived(&sizes);
        let columns = columns.and_then(|derived| self.files.fit(&derived, self.full, true));
        if let Err(fault) = columns {
            self.candidates.push(refused(sizes.to_string(), &fault));
            return Ok(());
        }
        // Where the vocabulary may be cut in a legacy network it is a choice of the job's.
        let vocabularies: &[Option<bool>] = match self.legacy && base.stages == 1 {
            true => &[None, Some(false)],
            false => &[None],
        };
        for vocabulary in vocabularies {
            let sizes = Sizes {
                vocabulary_whole: *vocabulary,
                ..sizes.clone()
            };
            for tried in variants(&sizes, self.experts) {
                self.try_one(tried)?;
            }
        }
        Ok(())
    }

    fn try_one(&mut self, sizes: Sizes) -> Result<()> {
        let mut fit = self.fit(&sizes);
        let mut sizes = sizes;
        if fit.is_err()
            && let Some(kilobytes) = self.threshold(&sizes)
        {
            sizes.threshold_kb = Some(kilobytes);
            fit = self.fit(&sizes);
        }
        let parallel = sizes.to_string();
        self.candidates.push(match fit {
            Err(fault) => refused(parallel, &fault),
            Ok((removed, strategy)) => {
                let same = self.fitting.iter().find(|(_, known)| {
                    known.stages() == strategy.stages() && show::diff(known, &strategy).is_empty()
                });
                let same_as = same.map(|(parallel, _)| parallel.clone());
                if same_as.is_none() {
                    self.fitting.push((parallel.clone(), strategy));
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
        Ok(())
    }

    fn fit(&self, sizes: &Sizes) -> Result<(bool, Strategy)> {
        let derived = self.derived(sizes)?;
        let removed = self.files.fit(&derived, self.full, false)?;
        Ok((removed, derived.strategy()?))
    }

    /// The threshold of the optimizer shard that the files tell.
    fn threshold(&self, sizes: &Sizes) -> Option<u64> {
        sizes.shard?;
        let all = Sizes {
            threshold_kb: Some(0),
            ..sizes.clone()
        };
        let all = self.derived(&all).ok()?;
        let ranks_per_stage = all.ranks_per_stage.max(1);
        let held = |stage: u32, name: &str| {
            let first = stage.checked_mul(ranks_per_stage)?;
            let ranks = self
                .files
                .ranks
                .range(first..first.checked_add(ranks_per_stage)?);
            ranks.filter_map(|(_, held)| held.get(name)).next()
        };
        threshold_kb(&all, self.full, held, self.element_bytes)
    }
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

/// The sizes that divide `number`.
pub(super) fn divisors(number: u64) -> impl Iterator<Item = u64> {
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

/// Layouts with context and expert parallel and with an optimizer shard, plain ones first.
fn variants(base: &Sizes, experts: bool) -> Vec<Sizes> {
    let mut all = Vec::new();
    let per_stage = base.mesh.ranks_per_stage();
    for context in divisors(base.mesh.data) {
        let data = base.mesh.data / context;
        for expert in divisors(data * base.mesh.tensor) {
            if expert > 1 && !experts {
                continue;
            }
            let plain = Sizes {
                mesh: Mesh {
                    data,
                    context,
                    expert,
                    ..base.mesh
                },
                ..base.clone()
            };
            all.push(plain.clone());
            if per_stage == 1 {
                continue;
            }
            let sizes = divisors(per_stage).filter(|size| *size > 1);
            let sizes = sizes.filter_map(|size| i64::try_from(size).ok());
            all.extend(std::iter::once(-1).chain(sizes).map(|shard| Sizes {
                shard: Some(shard),
                ..plain.clone()
            }));
        }
    }
    all.sort_by_key(|sizes| sizes.shard.is_some());
    all
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

    /// The layers that the ranks of each stage hold.
    fn layers(&self, ranks_per_stage: u64, stages: u64, prefix: &str) -> Vec<BTreeSet<u64>> {
        let mut layers = vec![BTreeSet::new(); usize::try_from(stages).unwrap_or(0)];
        for (rank, held) in self
            .ranks
            .iter()
            .filter(|(rank, _)| self.like[rank] == **rank)
        {
            let stage = usize::try_from(u64::from(*rank) / ranks_per_stage.max(1)).ok();
            let Some(own) = stage.and_then(|stage| layers.get_mut(stage)) else {
                continue;
            };
            let numbers = held.keys().filter_map(|name| {
                let rest = name.strip_prefix(prefix)?;
                rest.split('.').next()?.parse::<u64>().ok()
            });
            own.extend(numbers);
        }
        layers
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
