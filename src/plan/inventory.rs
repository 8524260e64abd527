//! The tensors of a source: its files' names and shapes joined with its strategy.

use crate::catalog::{Catalog, Entry, FileSchema, Place};
use crate::fault::plain::counted;
use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::plan::outside;
use crate::plan::patch::Patch;
use crate::plan::patched::{Patches, of_patches};
use crate::plan::source_tensor::SourceTensor;
use crate::plan::spread::Spread;
use crate::plan::strangers::strangers;
use crate::store::formats::COUNT_NAMES;
use crate::strategy::{StageLayout, Strategy};
use crate::tensor::region::Region;
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Name that MindSpore gives the file of what is in no strategy (step, epoch, learning rate …).
pub const HYPER_STEM: &str = "hyper_param";

/// Tensors of one element in which a trainer keeps its schedule: they are in no strategy, and every rank has them.
pub const JOB_SCALARS: [&str; 6] = [
    "learning_rate",
    "beta1_power",
    "beta2_power",
    "current_iterator_step",
    "last_overflow_iterator_step",
    "scale_sense",
];

/// What a source holds.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Tensors with a layout, by name.
    pub tensors: BTreeMap<Arc<str>, Arc<SourceTensor>>,
    /// Tensors in no strategy: every rank has its own.
    pub private: BTreeSet<Arc<str>>,
    /// Number of source ranks.
    pub ranks: u32,
    /// Names that the strategy has and the files don't.
    pub without_data: Vec<Arc<str>>,
    /// Tensors in no strategy that are left out, because ranks hold them differently.
    pub left_out: Vec<Arc<str>>,
}

impl Inventory {
    /// Joins what is in the files with what the strategy says; without a strategy the source is full
    /// weights: whole, at rank 0.
    ///
    /// # Errors
    /// [`Kind::Strategy`] if the strategy describes fewer ranks than there are, [`Kind::Shape`] and
    /// [`Kind::Dtype`] if shards don't fit it or each other.
    pub fn new(catalog: &Catalog, strategy: Option<&Strategy>) -> Result<Inventory> {
        match strategy {
            None => Inventory::whole(catalog),
            Some(strategy) => Inventory::distributed(catalog, strategy),
        }
    }

    fn whole(catalog: &Catalog) -> Result<Inventory> {
        if catalog.ranks.len() > 1 {
            let message = format!(
                "{} rank directories and no source strategy",
                catalog.ranks.len()
            );
            return Err(Fault::new(Kind::Strategy, message)
                .hint(
                    "give --src-strategy: the job's strategy files, its YAML file, or a layout, as dp=1,tp=4 with --model DIR; \
                     if all are lost, `shardloom strategy recognise` finds which fit",
                ));
        }
        Inventory::of_parts(catalog)
    }

    /// Full weights of which any rank's files may have parts: whose they are says only where they lie.
    ///
    /// # Errors
    /// [`Kind::Corrupt`], [`Kind::Shape`], [`Kind::MissingShard`] for tensors that their parts don't make.
    pub fn of_parts(catalog: &Catalog) -> Result<Inventory> {
        let mut inventory = Inventory {
            ranks: 1,
            ..Inventory::default()
        };
        let mut patches = Patches::default();
        let files = catalog.ranks.iter();
        let files = files.flat_map(|(rank, files)| (0u32..).zip(files).map(|file| (*rank, file)));
        for (rank, (number, file)) in files {
            let hyper = file_stem(&file.path) == HYPER_STEM;
            for (position, entry) in (0u32..).zip(&file.schema.entries) {
                if hyper {
                    inventory.private.insert(entry.name.clone());
                    continue;
                }
                let place = Place {
                    rank,
                    file: number,
                    entry: position,
                };
                if let Some(part) = file.schema.held.parts.get(&position) {
                    patches
                        .take(entry, part, place)
                        .map_err(|fault| fault.file(&*file.path).tensor(&*part.of))?;
                    continue;
                }
                let tensor = match rank {
                    0 => whole_tensor(entry, rank),
                    _ => whole_elsewhere(entry, place),
                };
                let tensor =
                    tensor.map_err(|fault| fault.file(&*file.path).tensor(&*entry.name))?;
                let name = entry.name.clone();
                if inventory.tensors.insert(name, Arc::new(tensor)).is_some() {
                    let mut all = catalog.ranks.values().flatten();
                    let other = all.find(|other| other.schema.get(&entry.name).is_some());
                    let other = other.map_or("another file", |other| other.path.as_str());
                    let message = format!("{other} has this tensor too");
                    let fault = Fault::new(Kind::Corrupt, message);
                    return Err(fault.file(&*file.path).tensor(&*entry.name).hint(
                        "are files of two saves together? --weights 'GLOB' says which ones are meant",
                    ));
                }
            }
        }
        for tensor in patches.into_tensors() {
            let tensor = tensor?;
            let name = tensor.name.clone();
            if inventory
                .tensors
                .insert(name.clone(), Arc::new(tensor))
                .is_some()
            {
                let fault = Fault::new(Kind::Corrupt, "is there both whole and in parts");
                return Err(fault.tensor(&*name));
            }
        }
        inventory.refuse_in_both(catalog)?;
        Ok(inventory)
    }

    /// Refuses full weights whose file of hyper-parameters has a tensor of theirs. A count in both is taken from that
    /// file, as MindSpore's split does it.
    fn refuse_in_both(&mut self, catalog: &Catalog) -> Result<()> {
        let Inventory {
            tensors, private, ..
        } = self;
        let both = private.iter().find(|name| {
            let known = tensors.get(*name);
            known.is_some_and(|known| !is_count(name, &known.shape))
        });
        if let Some(name) = both {
            return Err(in_both(catalog, name));
        }
        tensors.retain(|name, _| !private.contains(name));
        Ok(())
    }

    fn distributed(catalog: &Catalog, strategy: &Strategy) -> Result<Inventory> {
        if let Some(last) = catalog
            .ranks
            .keys()
            .next_back()
            .filter(|r| **r >= strategy.ranks())
        {
            let message = format!(
                "the source has files of rank {last}, its strategy describes {}",
                counted(strategy.ranks().into(), "rank")
            );
            return Err(Fault::new(Kind::Strategy, message)
                .rank(*last)
                .hint(
                    "is it the strategy of another job, or of one pipeline stage only? Where a job went on with fewer ranks, \
                     --file-suffix chooses a step of its own",
                ));
        }
        outside::check(catalog, strategy)?;
        let mut inventory = Inventory {
            ranks: strategy.ranks(),
            ..Inventory::default()
        };
        let mut found: BTreeMap<Arc<str>, Vec<(u32, &Entry)>> = BTreeMap::new();
        for (rank, schema) in catalog.distinct_schemas() {
            for entry in &schema.entries {
                found
                    .entry(entry.name.clone())
                    .or_default()
                    .push((rank, entry));
            }
        }
        refuse_twice(catalog)?;
        for (name, entries) in found {
            let layouts = strategy.layouts(&name);
            if layouts.is_empty() {
                inventory.private.insert(name);
                continue;
            }
            let tensor = join(
                &name,
                &entries,
                layouts,
                strategy.ranks_per_stage(),
                catalog,
            )?;
            if tensor.spreads.is_empty() {
                inventory.private.insert(name);
            } else {
                inventory.tensors.insert(name, Arc::new(tensor));
            }
        }
        inventory.without_data = strategy
            .names()
            .filter(|name| !inventory.tensors.contains_key(&***name))
            .cloned()
            .collect();
        if let Some(name) = inventory
            .private
            .first()
            .filter(|_| inventory.tensors.is_empty())
        {
            return Err(strangers(name, &inventory.private, strategy));
        }
        inventory.check_nothing_lost(catalog, strategy)?;
        Ok(inventory)
    }

    /// Whether `name` is a count or one of [`JOB_SCALARS`], which one card's checkpoint, or one that tells its own layout, has
    /// among its tensors.
    #[must_use]
    pub fn stands_for_job(&self, name: &str) -> bool {
        let tensor = self.tensors.get(name);
        let single = tensor.is_some_and(|tensor| tensor.shape.0.iter().all(|size| *size == 1));
        single && (COUNT_NAMES.contains(&name) || JOB_SCALARS.contains(&name))
    }

    /// MindSpore's removal of redundancy keeps no copy at all of a tensor whose optimizer shard is
    /// over all replicas (size -1), if their number isn't a multiple of ranks / step: its absence is
    /// a loss then (docs/wrong-results.md).
    fn check_nothing_lost(&self, catalog: &Catalog, strategy: &Strategy) -> Result<()> {
        let removed = |schema: &FileSchema| {
            schema
                .metadata
                .get("remove_redundancy")
                .is_some_and(|value| value == "True")
        };
        if !catalog
            .distinct_schemas()
            .any(|(_, schema)| removed(schema))
        {
            return Ok(());
        }
        let loses = |name: &str| {
            let mut stages = strategy.layouts(name).iter();
            stages.any(|stage| loses_all_copies(&stage.layout))
        };
        // One that is there shows that another has removed it, which keeps copies.
        let mut there = self.tensors.keys();
        let lost = self.without_data.iter().find(|name| loses(name));
        let Some(name) = lost.filter(|_| !there.any(|name| loses(name))) else {
            return Ok(());
        };
        let message = "no rank has it: the save that removed redundancy kept no copy";
        Err(Fault::new(Kind::MissingShard, message)
            .tensor(&**name)
            .hint(
                "MindSpore 2.10 does that with an optimizer shard over all replicas of this mesh",
            ))
    }
}

/// Whether it is what a job counts.
pub(crate) fn is_count(name: &str, shape: &Shape) -> bool {
    COUNT_NAMES.contains(&name) && matches!(shape.elements(), Ok(1))
}

/// The fault of full weights whose file of hyper-parameters has a tensor of theirs.
fn in_both(catalog: &Catalog, name: &str) -> Fault {
    let files = catalog.ranks.values().flatten();
    let mut having = files.filter(|file| file.schema.get(name).is_some());
    let [one, other] = [having.next(), having.next()].map(|file| file.map(|file| &*file.path));
    let message = format!("{} has this tensor too", one.unwrap_or(HYPER_STEM));
    Fault::new(Kind::Corrupt, message)
        .file(other.unwrap_or_default())
        .tensor(name)
        .hint("are files of two saves together? Move away the one that isn't of this save")
}

/// Refuses a rank of which two files have the same tensor.
fn refuse_twice(catalog: &Catalog) -> Result<()> {
    for (rank, files) in catalog.ranks.iter().filter(|(_, files)| files.len() > 1) {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for file in files {
            for entry in &file.schema.entries {
                let other = seen.insert(&entry.name, &file.path);
                // What a job counts may be in each; that it is the same has been looked at.
                if let Some(other) = other.filter(|_| !is_count(&entry.name, &entry.shape)) {
                    let message = format!("{other} has this tensor too");
                    let fault = Fault::new(Kind::Corrupt, message).rank(*rank);
                    return Err(fault.file(&*file.path).tensor(&*entry.name).hint(
                        "are files of two saves together? Of several files of a rank each has tensors of its own",
                    ));
                }
            }
        }
    }
    Ok(())
}

fn loses_all_copies(layout: &Layout) -> bool {
    let Some(shard) = layout.optimizer().filter(|shard| shard.size == -1) else {
        return false;
    };
    let groups = u64::try_from(shard.step).ok().filter(|step| *step > 0);
    let groups = groups
        .map_or(1, |step| u64::from(layout.ranks()) / step)
        .max(1);
    !(layout.replicas() * layout.optimizer_pieces()).is_multiple_of(groups)
}

/// Joins a tensor's shards with its layouts, one a stage.
fn join(
    name: &Arc<str>,
    entries: &[(u32, &Entry)],
    layouts: &[StageLayout],
    ranks_per_stage: u32,
    catalog: &Catalog,
) -> Result<SourceTensor> {
    let mut tensor = SourceTensor {
        name: name.clone(),
        dtype: entries[0].1.dtype,
        shape: Shape::default(),
        spreads: Vec::new(),
        patches: None,
        value: None,
    };
    for stage in layouts {
        let first_rank = stage.stage * ranks_per_stage;
        let ranks = first_rank..first_rank + ranks_per_stage;
        // A schema that several stages share is listed once, under its lowest rank.
        let shared = || {
            let place = ranks.clone().find_map(|rank| catalog.find(rank, name))?;
            Some((place.rank, catalog.entry(place)))
        };
        let mut here = entries
            .iter()
            .copied()
            .filter(|(rank, _)| ranks.contains(rank));
        let Some((rank, shard)) = here.clone().next().or_else(shared) else {
            continue;
        };
        let at = |rank: u32, fault: Fault| {
            let place = catalog.find(rank, name);
            let file = place.map_or(String::new(), |place| catalog.file(place).path.clone());
            fault.tensor(&**name).rank(rank).file(file)
        };
        if let Some((other, odd)) =
            here.find(|(_, e)| e.shape != shard.shape || e.dtype != tensor.dtype)
        {
            let message = format!(
                "shard is {}{}, rank {rank} has {}{}",
                odd.dtype, odd.shape, shard.dtype, shard.shape
            );
            return Err(at(other, Fault::new(Kind::Shape, message)));
        }
        let layout = stage
            .fit_shard(&shard.shape.0)
            .map_err(|fault| at(rank, fault))?;
        let full = full_shape(&shard.shape, &layout).map_err(|fault| at(rank, fault))?;
        if tensor.spreads.is_empty() {
            tensor.shape = full;
        } else if tensor.shape != full || tensor.dtype != shard.dtype {
            let message = format!(
                "full tensor is {}{full} in stage {}, {}{} in an earlier one",
                shard.dtype, stage.stage, tensor.dtype, tensor.shape
            );
            return Err(at(rank, Fault::new(Kind::Shape, message)));
        }
        let spread = Spread::new(first_rank, layout, &tensor.shape, tensor.dtype);
        tensor
            .spreads
            .push(spread.map_err(|fault| at(rank, fault))?);
    }
    Ok(tensor)
}

fn full_shape(shard: &Shape, layout: &Layout) -> Result<Shape> {
    let parts = layout.parts();
    if parts.len() != shard.0.len() {
        let message = format!(
            "shard has {} (shape {shard}), its strategy has {}",
            counted(shard.0.len() as u64, "dimension"),
            parts.len()
        );
        return Err(Fault::new(Kind::Shape, message)
            .hint("was the checkpoint saved by the job that wrote this strategy?"));
    }
    let dims = shard
        .0
        .iter()
        .zip(&parts)
        .map(|(size, parts)| size.checked_mul(*parts));
    let dims: Option<Vec<u64>> = dims.collect();
    dims.map(Shape)
        .ok_or_else(|| Fault::new(Kind::Shape, "the full tensor is too large"))
}

/// A tensor of full weights that lies whole in a file of another rank than 0.
fn whole_elsewhere(entry: &Entry, place: Place) -> Result<SourceTensor> {
    let width = u64::from(entry.dtype.bits() / 8);
    let strides = entry.shape.strides();
    let patch = Patch {
        region: Region::whole(&entry.shape),
        strides: strides.iter().map(|stride| stride * width).collect(),
        first: 0,
        place,
    };
    let patches = match entry.shape.0.contains(&0) {
        true => Vec::new(),
        false => vec![patch],
    };
    of_patches(&entry.name, entry.dtype, entry.shape.clone(), patches, 0)
}

/// A tensor that one rank has whole.
///
/// # Errors
/// [`Kind::Shape`] if it doesn't fill whole bytes.
pub fn whole_tensor(entry: &Entry, rank: u32) -> Result<SourceTensor> {
    let layout = Arc::new(Layout::whole(entry.shape.0.len()));
    Ok(SourceTensor {
        name: entry.name.clone(),
        dtype: entry.dtype,
        shape: entry.shape.clone(),
        spreads: vec![Spread::new(rank, layout, &entry.shape, entry.dtype)?],
        patches: None,
        value: None,
    })
}

/// The file's name without directories and extension.
#[must_use]
pub fn file_stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}
