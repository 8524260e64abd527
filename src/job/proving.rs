//! Bytes for memory, proved on their way by the source's manifests.
//!
//! Digests are of whole tensors, so those count whose every cell some process takes.

use crate::catalog::{Catalog, Place};
use crate::exchange::{World, all_gather, exchange_values};
use crate::fault::Result;
use crate::job::origin::Origin;
use crate::job::pieces::referee;
use crate::plan::TensorPlan;
use crate::source::Source;
use crate::tensor::digest::{Joiner, Runs, finish};
use crate::transport::Sink;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a process has taken of a tensor: name, first rank of its stage, bytes, and their residue.
type Share = (Arc<str>, u32, u64, u64);

/// Where a cell that counts here lies, and what has come of it.
struct Taken {
    plan: usize,
    runs: Runs,
    bytes: Mutex<(u64, u64)>,
}

/// A sink that hands everything on, and makes digests of what the manifests tell of.
pub(super) struct ProvingSink<'a> {
    to: &'a dyn Sink,
    origin: &'a Origin,
    plans: &'a [TensorPlan],
    places: HashMap<Place, Taken>,
    joiners: Mutex<Vec<Joiner>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> ProvingSink<'a> {
    /// Hands on `to` what goes to this process's `rank` by `plans`. Collective.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Mpi`].
    pub(super) fn new(
        world: &World,
        to: &'a dyn Sink,
        origin: &'a Origin,
        plans: &'a [TensorPlan],
        catalog: &Catalog,
        rank: Option<u32>,
    ) -> Result<Self> {
        // Of each rank the first process counts.
        let ranks: Vec<Option<u32>> = all_gather(world, &rank)?;
        let mut taken: BTreeMap<u32, u32> = BTreeMap::new();
        for (rank, process) in ranks.iter().zip(0u32..) {
            if let Some(rank) = rank {
                taken.entry(*rank).or_insert(process);
            }
        }
        let mine = rank.filter(|rank| taken.get(rank) == Some(&world.process()));
        let mut places = HashMap::new();
        for (number, plan) in plans.iter().enumerate() {
            let spread = &plan.destination;
            let told = plan.only_source().filter(|_| !plan.is_changed());
            let told = told.is_some_and(|tensor| origin.of(&tensor.name).is_some());
            let rank = mine.filter(|rank| told && spread.ranks().contains(rank));
            let place = rank.and_then(|rank| Some((rank, catalog.find(rank, &plan.name)?)));
            let Some((rank, place)) = place else { continue };
            let cell = spread.layout.cell(rank - spread.first_rank);
            let first = spread.holders(&cell).find(|rank| taken.contains_key(rank));
            if first == Some(rank) {
                let full = spread.grid.full_shape();
                let runs = Runs::new(&full, plan.element_bytes, &spread.grid.region(&cell));
                let bytes = Mutex::default();
                let plan = number;
                places.insert(place, Taken { plan, runs, bytes });
            }
        }
        Ok(ProvingSink {
            to,
            origin,
            plans,
            places,
            joiners: Mutex::default(),
        })
    }

    /// Whether what was read is what the manifests say, of the tensors that came whole. Collective.
    ///
    /// # Errors
    /// [`crate::fault::Kind::Corrupt`] naming a tensor and a file.
    pub(super) fn prove(self, world: &World, source: &Source) -> Result<()> {
        let shares = self.places.values().map(|taken| {
            let plan = &self.plans[taken.plan];
            let (bytes, residue) = *lock(&taken.bytes);
            let first_rank = plan.destination.first_rank;
            let share: Share = (plan.name.clone(), first_rank, bytes, residue);
            (referee(world, &plan.name), share)
        });
        let shares = exchange_values(world, Ok(shares.collect()))?;
        let damaged = self.judge(shares);
        self.origin.settle(world, source, damaged)
    }

    /// The source's tensors, of those that fall to this process, that are not as they were. Local.
    fn judge(&self, shares: Vec<Share>) -> BTreeSet<Arc<str>> {
        let mut sums: HashMap<(Arc<str>, u32), (u64, u64)> = HashMap::new();
        for (name, first_rank, bytes, residue) in shares {
            let sum = sums.entry((name, first_rank)).or_default();
            *sum = (sum.0 + bytes, sum.1 ^ residue);
        }
        let mut damaged = BTreeSet::new();
        for plan in self.plans {
            let key = (plan.name.clone(), plan.destination.first_rank);
            let (Some((bytes, residue)), Some(tensor)) = (sums.get(&key), plan.only_source())
            else {
                continue;
            };
            let whole = plan.destination.grid.full_shape();
            let whole = whole.0.iter().product::<u64>() * plan.element_bytes;
            let old = self.origin.digest(tensor);
            if *bytes == whole && old.is_some_and(|old| old != finish(*residue, whole)) {
                damaged.insert(tensor.name.clone());
            }
        }
        damaged
    }
}

impl Sink for ProvingSink<'_> {
    fn put(&self, place: Place, offset: u64, bytes: &[u8]) -> Result<()> {
        if let Some(taken) = self.places.get(&place) {
            let mut joiner = lock(&self.joiners).pop().unwrap_or_default();
            let contribution = joiner.window(&taken.runs, offset, bytes);
            lock(&self.joiners).push(joiner);
            let mut sum = lock(&taken.bytes);
            *sum = (sum.0 + bytes.len() as u64, sum.1 ^ contribution.tensor);
        }
        self.to.put(place, offset, bytes)
    }

    fn flush(&self) -> Result<()> {
        self.to.flush()
    }

    fn finish(&self) -> Result<()> {
        self.to.finish()
    }
}
