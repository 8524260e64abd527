//! A sink that compares: two checkpoints in any layouts, or the replicas of one.

use crate::catalog::{Catalog, Entry, Place};
use crate::engine::discover::{Source, allgather, discover};
use crate::engine::fill::{Filler, Readers};
use crate::engine::job::{Options, threads};
use crate::engine::mover::{Mover, Observer};
use crate::engine::outcome::{Outcome, TensorDifference};
use crate::engine::rounds::Exchange;
use crate::engine::sink::Sink;
use crate::engine::strategy_files::read_strategy;
use crate::engine::tally;
use crate::exchange::{Topology, World, agree};
use crate::fault::{Fault, Kind, Result};
use crate::plan::inventory::{Inventory, whole_tensor};
use crate::plan::work::{Site, Skip, Work};
use crate::plan::{SourceTensor, Spread, TensorPlan};
use crate::store::checkpoint2::COMMON_NAMES;
use crate::strategy::Strategy;
use crate::tensor::number::{Difference, compare};
use crate::tensor::strided::StridedCopy;
use crate::view::Piece;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Two checkpoints to compare.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The first.
    pub a: PathBuf,
    /// Its strategy; none means full weights.
    pub a_strategy: Option<PathBuf>,
    /// The second.
    pub b: PathBuf,
    /// Its strategy; none means full weights.
    pub b_strategy: Option<PathBuf>,
    /// Which of several files in a rank directory, on both sides.
    pub file_suffix: Option<String>,
    /// How it is run.
    pub options: Options,
}

/// What was found different, and where first.
#[derive(Clone, Debug)]
struct Found {
    difference: Difference,
    first: Place,
}

/// Reads what the other side has at the same place and compares.
struct CompareSink<'a> {
    readers: &'a Readers<'a>,
    catalog: &'a Catalog,
    found: Mutex<BTreeMap<Arc<str>, Found>>,
}

impl<'a> CompareSink<'a> {
    fn new(readers: &'a Readers<'a>, catalog: &'a Catalog) -> Self {
        CompareSink {
            readers,
            catalog,
            found: Mutex::new(BTreeMap::new()),
        }
    }
}

impl Sink for CompareSink<'_> {
    fn put(&self, place: Place, offset: u64, bytes: &[u8]) -> Result<()> {
        let entry = self.catalog.entry(place);
        let mut other = vec![0; bytes.len()];
        let copy = StridedCopy::new(offset, 0, bytes.len() as u64, Vec::new());
        Filler::new(self.readers).fill(&copy, place, &mut other, 1)?;
        if other == bytes {
            return Ok(());
        }
        let difference = compare(entry.dtype, bytes, &other);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Found {
            difference,
            first: place,
        };
        found
            .entry(entry.name.clone())
            .and_modify(|old| old.difference.add(&difference))
            .or_insert(new);
        Ok(())
    }
}

/// Compares two checkpoints tensor by tensor. Collective.
///
/// # Errors
/// The same on every process; a difference is no error.
pub fn diff(
    world: &World,
    comparison: &Comparison,
    observer: &mut Observer<'_>,
) -> Result<Outcome> {
    let start = std::time::Instant::now();
    let topology = Topology::discover(world)?;
    let options = &comparison.options;
    let suffix = comparison.file_suffix.as_deref();
    let (a_strategy, _) = read_strategy(world, &topology, comparison.a_strategy.as_deref())?;
    let (b_strategy, _) = read_strategy(world, &topology, comparison.b_strategy.as_deref())?;
    let a = discover(world, &topology, &comparison.a, suffix, options.exchange)?;
    let b = discover(world, &topology, &comparison.b, suffix, options.exchange)?;
    let a_strategy = agree(world, a.strategy(a_strategy))?;
    let b_strategy = agree(world, b.strategy(b_strategy))?;
    let both = agree(
        world,
        pair(&a, a_strategy.as_ref(), &b, b_strategy.as_ref()),
    )?;
    let found = run_compare(world, &topology, &a, &b, &both.plans, options, observer)?;
    let mut rows = both.rows;
    for row in &mut rows {
        if let Some(difference) = found.get(row.name.as_str()) {
            row.state = "differs";
            row.elements_differing = difference.elements;
            row.max_abs = difference.max_abs;
            row.max_rel = difference.max_rel;
        }
    }
    let equal = rows.iter().all(|row| row.state == "equal");
    let mut outcome = Outcome {
        ok: equal,
        tensors: rows.len() as u64,
        equal: Some(equal),
        differences: rows,
        ..tally::outcome(world, &topology, "diff")
    };
    outcome.seconds.total = start.elapsed().as_secs_f64();
    Ok(outcome)
}

/// Compares all replicas of a source with the one that would be read. Collective.
///
/// # Errors
/// [`Kind::Differs`] naming tensor and file.
pub fn verify_replicas(
    world: &World,
    source: &Source,
    strategy: Option<&Strategy>,
    options: &Options,
) -> Result<()> {
    let topology = Topology::discover(world)?;
    let inventory = agree(world, Inventory::new(&source.catalog, strategy))?;
    let plans = agree(
        world,
        inventory
            .tensors
            .values()
            .map(|t| against(t, t))
            .collect::<Result<Vec<_>>>(),
    )?;
    let plans: Vec<TensorPlan> = plans.into_iter().flatten().collect();
    let readers = Readers::new(&source.base, &source.catalog, options.io);
    let sink = CompareSink::new(&readers, &source.catalog);
    let moved = move_against(
        world,
        &topology,
        source,
        source,
        &plans,
        &sink,
        options,
        &mut |_, _| {},
    );
    moved?;
    let found = sink
        .found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let fault = found.into_iter().next().map(|(name, found)| {
        let message = format!(
            "{} elements differ from another replica's",
            found.difference.elements
        );
        Fault::new(Kind::Differs, message)
            .tensor(&*name)
            .rank(found.first.rank)
            .file(
                source
                    .base
                    .join(&source.catalog.file(found.first).path)
                    .display()
                    .to_string(),
            )
    });
    agree(world, fault.map_or(Ok(()), Err))
}

/// What two sides have in common, and a row for every tensor of either.
struct Pairing {
    plans: Vec<TensorPlan>,
    rows: Vec<TensorDifference>,
}

fn pair(
    a: &Source,
    a_strategy: Option<&Strategy>,
    b: &Source,
    b_strategy: Option<&Strategy>,
) -> Result<Pairing> {
    let left = Inventory::new(&a.catalog, a_strategy).map_err(|fault| a.place(fault))?;
    let right = Inventory::new(&b.catalog, b_strategy).map_err(|fault| b.place(fault))?;
    // The counts of a checkpoint 2.0 are no tensors, so there is nothing to compare those of a 1.0 with.
    let beside = a.iteration.is_some() || b.iteration.is_some();
    let names: BTreeSet<&Arc<str>> = [&left, &right]
        .into_iter()
        .flat_map(|side| side.tensors.keys().chain(&side.private))
        .filter(|name| !(beside && COMMON_NAMES.contains(&&***name)))
        .collect();
    let mut pairing = Pairing {
        plans: Vec::new(),
        rows: Vec::new(),
    };
    for name in names {
        let ours = side(&left, &a.catalog, name)?;
        let theirs = side(&right, &b.catalog, name)?;
        let state = match (&ours, &theirs) {
            (Some(_), None) => "only_in_a",
            (None, _) => "only_in_b",
            (Some(ours), Some(theirs)) if ours.dtype != theirs.dtype => "dtype",
            (Some(ours), Some(theirs)) if ours.shape != theirs.shape => "shape",
            (Some(ours), Some(theirs)) => {
                pairing.plans.extend(against(ours, theirs)?);
                "equal"
            }
        };
        pairing.rows.push(TensorDifference {
            name: name.to_string(),
            state,
            elements_differing: 0,
            max_abs: 0.0,
            max_rel: 0.0,
        });
    }
    Ok(pairing)
}

/// A tensor of one side; a private one is taken as whole on each rank that has it.
fn side(
    inventory: &Inventory,
    catalog: &Catalog,
    name: &Arc<str>,
) -> Result<Option<Arc<SourceTensor>>> {
    if let Some(tensor) = inventory.tensors.get(name) {
        return Ok(Some(tensor.clone()));
    }
    let mut joined: Option<SourceTensor> = None;
    for place in catalog
        .ranks
        .keys()
        .filter_map(|rank| catalog.find(*rank, name))
    {
        let entry: &Entry = catalog.entry(place);
        let tensor = whole_tensor(entry, place.rank)?;
        match &mut joined {
            Some(joined) if joined.shape == tensor.shape => joined.spreads.extend(tensor.spreads),
            Some(_) => {}
            None => joined = Some(tensor),
        }
    }
    Ok(joined.map(Arc::new))
}

/// Plans that build `theirs`, in every stage it is in, from `ours`.
fn against(ours: &Arc<SourceTensor>, theirs: &Arc<SourceTensor>) -> Result<Vec<TensorPlan>> {
    let (bytes, element_bytes) = ours.shape.in_bytes(ours.dtype)?;
    let plan = |spread: &Spread| TensorPlan {
        name: theirs.name.clone(),
        dtype: ours.dtype,
        written: ours.dtype,
        element_bytes,
        destination: spread.clone(),
        pieces: vec![(Piece::identity(ours.name.clone(), &bytes), ours.clone())],
    };
    Ok(theirs.spreads.iter().map(plan).collect())
}

fn run_compare(
    world: &World,
    topology: &Topology,
    a: &Source,
    b: &Source,
    plans: &[TensorPlan],
    options: &Options,
    observer: &mut Observer<'_>,
) -> Result<BTreeMap<String, Difference>> {
    let readers = Readers::new(&b.base, &b.catalog, options.io);
    let sink = CompareSink::new(&readers, &b.catalog);
    move_against(world, topology, a, b, plans, &sink, options, observer)?;
    let found = sink
        .found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let mine: Vec<(String, Difference)> = found
        .into_iter()
        .map(|(name, found)| (name.to_string(), found.difference))
        .collect();
    let mut all: BTreeMap<String, Difference> = BTreeMap::new();
    for (name, difference) in allgather(world, &mine)?.into_iter().flatten() {
        all.entry(name)
            .and_modify(|old| old.add(&difference))
            .or_insert(difference);
    }
    Ok(all)
}

/// Moves A's tensors against B's files. Collective.
#[allow(clippy::too_many_arguments)]
fn move_against(
    world: &World,
    topology: &Topology,
    a: &Source,
    b: &Source,
    plans: &[TensorPlan],
    sink: &CompareSink<'_>,
    options: &Options,
    observer: &mut Observer<'_>,
) -> Result<()> {
    let readers = Readers::new(&a.base, &a.catalog, options.io);
    let site = site_of(topology, b);
    let mut mover = Mover {
        world,
        work: Work {
            plans,
            source: &a.catalog,
            destination: &b.catalog,
            site: &site,
            skip: &Skip::Nothing,
            reach: &a.reach,
            sharing: None,
        },
        readers: &readers,
        sink,
        ledger: None,
        threads: threads(options, topology, world),
        memory_bytes: options.memory_bytes,
        total_bytes: 0,
    };
    let survey = agree(world, mover.survey().map_err(|fault| a.place(fault)))?;
    mover.total_bytes = tally::sum(world, survey.written_bytes)?;
    let exchange = Exchange::choose(world, &survey, options.memory_bytes)?;
    mover.run(exchange, observer)?;
    Ok(())
}

/// Who compares what: all share B's ranks if all see them, else each node those it is first to see.
fn site_of(topology: &Topology, b: &Source) -> Site {
    let reach = &b.reach;
    let narrow = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    if reach.all_see_all() {
        return Site {
            ranks: b.catalog.ranks.keys().copied().collect(),
            processes: narrow(reach.node_of.len()),
            index: reach.process,
            everybody: true,
        };
    }
    let node = reach.node() as usize;
    let members = &topology.nodes[node];
    let first = |rank: &u32| reach.homes(*rank).first() == Some(&reach.node());
    Site {
        ranks: b.catalog.ranks.keys().copied().filter(first).collect(),
        processes: narrow(members.len()),
        index: narrow(
            members
                .iter()
                .position(|m| *m == reach.process)
                .unwrap_or_default(),
        ),
        everybody: false,
    }
}
