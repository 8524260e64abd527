//! A job without its data: a source made up from a strategy and shapes, and what the processes of a
//! cluster that doesn't exist would have to do.

use crate::catalog::{Catalog, FileSchema, ShardFile};
use crate::fault::{Fault, Kind, Result};
use crate::layout::grid::Grid;
use crate::plan::arrange::{Ranks, arrange};
use crate::plan::arranged::Arranged;
use crate::plan::build::build;
use crate::plan::files::{Files, RankName};
use crate::plan::inventory::Inventory;
use crate::plan::machine::Machine;
use crate::plan::reach::{ExchangeMode, Reach, equal_share};
use crate::plan::select::{Leftovers, Select, Unmatched};
use crate::plan::site::Site;
use crate::plan::slab::Skip;
use crate::plan::source_tensor::SourceTensor;
use crate::plan::spread::Spread;
use crate::plan::survey::{Survey, survey_alike};
use crate::plan::tensor_plan::TensorPlan;
use crate::plan::turns::{Home, Sharing};
use crate::plan::work::{Division, Work};
use crate::store::Format;
use crate::strategy::Strategy;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Where files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Storage {
    /// On each node's own disks: shards lie where their ranks are.
    #[default]
    Local,
    /// On a file system that all nodes share.
    Shared,
    /// The source on a file system that all nodes share, the destination on each node's own disks.
    SharedSource,
    /// The source on each node's own disks, the destination on a file system that all nodes share.
    SharedDestination,
}

impl Storage {
    /// Whether all nodes see the whole source.
    #[must_use]
    pub fn shares_source(self) -> bool {
        matches!(self, Storage::Shared | Storage::SharedSource)
    }

    /// Whether all nodes write to one place.
    #[must_use]
    pub fn shares_destination(self) -> bool {
        matches!(self, Storage::Shared | Storage::SharedDestination)
    }
}

/// The processes and nodes to plan for.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// Number of processes.
    pub processes: u32,
    /// Processes of a node.
    pub per_node: u32,
    /// Where the source and the destination are.
    pub storage: Storage,
    /// How slices travel.
    pub mode: ExchangeMode,
}

/// Most windows of a cell that are counted where tensors stand for others: as many as processes share one, about.
const WINDOWS_COUNTED: u64 = 64;
/// Most tensors of a kind that stand for all of it, each of which other processes may read.
const ALIKE_COUNTED: u64 = 4;

/// Full tensors: name, element type, full shape.
pub type Shapes = Vec<(Arc<str>, Dtype, Shape)>;

/// Both sides of a job.
#[derive(Clone, Debug)]
pub struct Model {
    /// The source's files, made up.
    pub source: Catalog,
    /// The source's tensors.
    pub inventory: Inventory,
    /// The destination's strategy; none means full weights.
    pub destination: Option<Strategy>,
}

impl Model {
    /// Makes up the files that `strategy` gives tensors of these shapes (none: full weights, one
    /// rank). Ranks of a stage share one schema, as those that are read do.
    ///
    /// # Errors
    /// [`Kind::Shape`] if a tensor can't be cut as the strategy asks.
    pub fn new(
        shapes: &Shapes,
        strategy: Option<&Strategy>,
        destination: Option<Strategy>,
    ) -> Result<Model> {
        let mut source = Catalog::default();
        match strategy {
            None => {
                let schema = schema(shapes)?;
                source.ranks.insert(0, vec![made_up(0, &schema)]);
            }
            Some(strategy) => {
                for stage in 0..strategy.stages() {
                    let schema = schema(&cells(shapes, strategy, stage)?)?;
                    let first = stage * strategy.ranks_per_stage();
                    for rank in first..first + strategy.ranks_per_stage() {
                        source.ranks.insert(rank, vec![made_up(rank, &schema)]);
                    }
                }
            }
        }
        let inventory = Inventory::new(&source, strategy)?;
        Ok(Model {
            source,
            inventory,
            destination,
        })
    }

    /// Number of destination ranks.
    #[must_use]
    pub fn destination_ranks(&self) -> u32 {
        self.destination.as_ref().map_or(1, Strategy::ranks)
    }

    /// Lays out the files of a site's ranks.
    ///
    /// # Errors
    /// As a job's plan.
    pub fn arrange(&self, ranks: &[u32]) -> Result<Arranged> {
        let build = build(
            &self.inventory,
            &self.source,
            self.destination.as_ref(),
            &Select::default(),
            Leftovers::Reshard(Unmatched::Fail),
            ranks,
        )?;
        let files = Files::Ranks {
            name: RankName::new("net", true),
            remove_redundancy: false,
        };
        // As a job's files have it: who builds what depends on their sizes.
        let metadata = BTreeMap::from([("format".to_owned(), "ms".to_owned())]);
        arrange(
            build,
            &files,
            Format::SAFETENSORS,
            &metadata,
            Ranks::all(ranks),
        )
    }

    /// What a process, the one `reach` speaks of, has to do at `site`; of tensors each of which stands for so
    /// many, if `alike` says so, about.
    ///
    /// # Errors
    /// [`Kind::MissingShard`].
    pub fn survey(
        &self,
        arranged: &Arranged,
        alike: Option<&[u64]>,
        site: &Site,
        reach: &Reach,
        (homes, machine): (&[Home], &Machine),
    ) -> Result<Survey> {
        let skip = Skip::Nothing;
        let work = self.work(arranged, site, reach, (homes, machine, &skip));
        let windows_max = alike.map_or(work.windows_max, |_| WINDOWS_COUNTED);
        let work = Work {
            windows_max,
            ..work
        };
        survey_alike(&work, alike.unwrap_or_default())
    }

    /// The share of the process that `reach` speaks of; who builds what elsewhere, what a machine can do
    /// and what is done already may change it.
    #[must_use]
    pub fn work<'a>(
        &'a self,
        arranged: &'a Arranged,
        site: &'a Site,
        reach: &'a Reach,
        (homes, machine, skip): (&'a [Home], &'a Machine, &'a Skip),
    ) -> Work<'a> {
        Work {
            plans: &arranged.plans,
            source: &self.source,
            destination: &arranged.catalog,
            site,
            reach,
            skip,
            sharing: Some(Sharing {
                homes,
                kept: &arranged.kept,
                machine,
            }),
            windows_max: u64::MAX,
        }
    }

    /// About what a process has to send: for each shard that it reads for others, what the nodes that
    /// have no copy need of it, divided by the copies they can turn to.
    #[must_use]
    pub fn sent_bytes(&self, arranged: &Arranged, cluster: &Cluster, reach: &Reach) -> u64 {
        if cluster.storage.shares_source() || reach.nodes.len() < 2 {
            return 0;
        }
        let own: Vec<u32> = self
            .source
            .ranks
            .keys()
            .copied()
            .filter(|rank| reach.owner(*rank) == Some(reach.process))
            .collect();
        let mut sent = 0;
        for plan in &arranged.plans {
            for (_, tensor) in &plan.pieces {
                // Any stage's copies will do; a process turns to the first stage that has it.
                let Some(spread) = tensor.spreads.first() else {
                    continue;
                };
                let here = own.iter().filter(|rank| spread.ranks().contains(rank));
                let shards = here.map(|rank| self.shard_sent(plan, tensor, spread, *rank, reach));
                sent += shards.sum::<u64>();
            }
        }
        sent
    }

    fn shard_sent(
        &self,
        plan: &TensorPlan,
        tensor: &SourceTensor,
        spread: &Spread,
        rank: u32,
        reach: &Reach,
    ) -> u64 {
        let cell = spread.layout.cell(rank - spread.first_rank);
        let holders = spread.holders(&cell);
        let copies: Vec<u32> = holders
            .filter(|rank| self.source.find(*rank, &tensor.name).is_some())
            .flat_map(|rank| reach.homes(rank).iter().copied())
            .collect();
        let having: BTreeSet<u32> = copies.iter().copied().collect();
        let shard = spread.grid.region(&cell);
        let destination = &plan.destination;
        let mut asked = 0;
        destination.grid.for_each_meeting(&shard, |cell| {
            let needing: BTreeSet<u32> = destination
                .holders(cell)
                .map(|rank| reach.node_of[self.home(rank, reach) as usize])
                .filter(|node| !having.contains(node))
                .collect();
            let both = shard.intersect(&destination.grid.region(cell));
            let elements = both.map_or(0, |region| region.shape.0.iter().product::<u64>());
            asked += elements * plan.element_bytes * needing.len() as u64;
        });
        asked / (copies.len() as u64).max(1)
    }

    /// The process that destination rank `rank` belongs to.
    fn home(&self, rank: u32, reach: &Reach) -> u32 {
        let processes = u32::try_from(reach.node_of.len()).unwrap_or(u32::MAX);
        equal_share(rank, self.destination_ranks(), processes)
    }
}

impl Cluster {
    /// Who sees what: source rank r of N lies on the node of process floor(r * P / N), or everywhere.
    /// Process 0 is spoken of.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there is no process, or no process of a node.
    pub fn reach(&self, source: &Catalog) -> Result<Reach> {
        if self.processes == 0 || self.per_node == 0 {
            let message = "a cluster has at least one process, and at least one on each node";
            return Err(Fault::new(Kind::Usage, message));
        }
        let all: Vec<u32> = (0..self.processes).collect();
        let nodes: Vec<Vec<u32>> = all
            .chunks(self.per_node as usize)
            .map(<[u32]>::to_vec)
            .collect();
        let ranks = source.ranks.keys().next_back().map_or(1, |last| last + 1);
        if self.storage.shares_source() {
            let all: BTreeSet<u32> = source.ranks.keys().copied().collect();
            let shared = Arc::new(all.clone());
            let seen = vec![shared; nodes.len()];
            return Ok(Reach::new(0, nodes, seen, ranks, self.mode).with_common(all));
        }
        let mut seen = vec![BTreeSet::new(); nodes.len()];
        for rank in source.ranks.keys() {
            let process = equal_share(*rank, ranks, self.processes);
            seen[(process / self.per_node) as usize].insert(*rank);
        }
        let seen = seen.into_iter().map(Arc::new).collect();
        Ok(Reach::new(0, nodes, seen, ranks, self.mode))
    }

    /// Who builds each destination rank; empty if all processes build all.
    #[must_use]
    pub fn homes(&self, destination_ranks: u32) -> Vec<Home> {
        let home = |rank| {
            let node = equal_share(rank, destination_ranks, self.processes) / self.per_node;
            Home { site: node, node }
        };
        let apart = !self.storage.shares_destination();
        (0..destination_ranks).filter(|_| apart).map(home).collect()
    }

    /// Those that write the same files as `process`, and the ranks they write.
    #[must_use]
    pub fn site(&self, process: u32, destination_ranks: u32) -> Site {
        let first = process / self.per_node * self.per_node;
        let (first, processes) = if self.storage.shares_destination() {
            (0, self.processes)
        } else {
            (first, self.per_node.min(self.processes - first))
        };
        let members = first..first + processes;
        let home = |rank: u32| equal_share(rank, destination_ranks, self.processes);
        Site {
            ranks: (0..destination_ranks)
                .filter(|rank| members.contains(&home(*rank)))
                .collect(),
            processes,
            index: process - first,
            everybody: processes == self.processes,
            division: (self.storage.shares_destination() && self.processes > self.per_node)
                .then(Division::default),
        }
    }
}

/// Of tensors that are cut alike on both sides, as those of a model's layers are, keeps some, and tells how many
/// each stands for.
pub fn keep_some(plans: &mut Vec<TensorPlan>) -> Vec<u64> {
    let spread = |spread: &Spread| {
        (
            spread.first_rank,
            spread.layout.clone(),
            spread.grid.clone(),
        )
    };
    let kind = |plan: &TensorPlan| {
        let sources = plan.pieces.iter().flat_map(|(_, tensor)| &tensor.spreads);
        let sources: Vec<_> = sources.map(spread).collect();
        (spread(&plan.destination), plan.element_bytes, sources)
    };
    let kinds: Vec<_> = plans.iter().map(kind).collect();
    let mut counts: HashMap<_, u64> = HashMap::new();
    for kind in &kinds {
        *counts.entry(kind).or_default() += 1;
    }
    let mut kept: HashMap<_, u64> = HashMap::new();
    let mut alike = Vec::new();
    let mut each = kinds.iter();
    plans.retain(|_| {
        let Some(kind) = each.next() else {
            return true;
        };
        let count = counts.get(kind).copied().unwrap_or(1);
        let most = count.min(ALIKE_COUNTED);
        let number = kept.entry(kind).or_default();
        if *number == most {
            return false;
        }
        alike.push(count / most + u64::from(*number < count % most));
        *number += 1;
        true
    });
    alike
}

/// The shards of a stage's ranks.
fn cells(shapes: &Shapes, strategy: &Strategy, stage: u32) -> Result<Shapes> {
    let mut cells = Vec::new();
    for (name, dtype, shape) in shapes {
        let layouts = strategy.layouts(name);
        let here = layouts.iter().find(|layout| layout.stage == stage);
        let Some(layout) = here else {
            if layouts.is_empty() {
                cells.push((name.clone(), *dtype, shape.clone()));
            }
            continue;
        };
        let layout = layout
            .fit_full(&shape.0)
            .map_err(|fault| fault.tensor(&**name))?;
        let grid = Grid::new(shape, &layout.parts()).map_err(|fault| fault.tensor(&**name))?;
        cells.push((name.clone(), *dtype, grid.cell_shape().clone()));
    }
    Ok(cells)
}

fn schema(tensors: &Shapes) -> Result<Arc<FileSchema>> {
    let design = Format::SAFETENSORS.design(tensors, &BTreeMap::new())?;
    Ok(Arc::new(design))
}

fn made_up(rank: u32, schema: &Arc<FileSchema>) -> ShardFile {
    ShardFile {
        path: format!("rank_{rank}/net.safetensors"),
        schema: schema.clone(),
    }
}
