//! The layouts of a job, stage by stage, and the files that it writes.

use super::check::{check, even};
use super::job::{Job, as_config};
use super::network::{Parameter, Place};
use super::placement::{network, place};
use super::shard::shard;
use super::sizes::as_typed;
use super::stages::{Stages, deal};
use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::strategy::merge::merge;
use crate::strategy::rank_file::{self, Entry};
use crate::strategy::{Form, FullShape, Strategy, StrategyFile};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What the ranks of a job write: the same on all ranks of a stage.
#[derive(Clone, Debug)]
pub struct Derived {
    /// The layouts of each stage.
    pub(super) stages: Vec<Vec<Entry>>,
    pub(super) ranks_per_stage: u32,
    /// Full shapes of the weights that the model's configuration tells.
    shapes: BTreeMap<String, FullShape>,
    /// What a user should know: what MindSpore may not accept, what nobody said.
    pub doubts: Vec<String>,
}

/// Derives the strategy of `job`.
///
/// # Errors
/// [`Kind::Config`], naming file, key and value, for a job that the trainer refuses, and for what can't
/// be known without the cluster.
pub fn derive(job: &Job) -> Result<Derived> {
    layouts(job).map_err(|fault| {
        let fault = if job.as_model { as_typed(fault) } else { fault };
        match &*job.origin {
            "" => fault,
            origin => fault.file(origin),
        }
    })
}

fn layouts(job: &Job) -> Result<Derived> {
    let network = network(job);
    check(job, &network)?;
    let layers = job.numbers.value("layers").map_err(as_config)?;
    let stages = deal(job, layers)?;
    let mut derived = Derived {
        stages: vec![Vec::new(); usize::try_from(job.mesh.stages).unwrap_or(0)],
        ranks_per_stage: u32::try_from(job.mesh.ranks_per_stage()).unwrap_or(u32::MAX),
        shapes: BTreeMap::new(),
        doubts: doubts(job),
    };
    let mut known = HashMap::new();
    for parameter in network.parameters().map_err(as_config)? {
        if job.only_trained && !parameter.trained {
            continue;
        }
        let stage = stage_of(&stages, parameter.place);
        let layout = layout(job, &parameter, &mut known)?;
        let shape = FullShape {
            sizes: parameter.shape.clone(),
            padded: parameter.cut.is_of_vocabulary(),
            due: parameter.trained,
        };
        derived.shapes.insert(parameter.name.clone(), shape);
        if let Some(entries) = derived.stages.get_mut(usize::try_from(stage).unwrap_or(0)) {
            add(job, &parameter, &layout, entries);
        }
    }
    if let Some(stage) = derived.stages.iter().position(Vec::is_empty) {
        let message = format!("offset leaves nothing to stage {stage}");
        return Err(Fault::new(Kind::Config, message).hint("give each stage a layer"));
    }
    Ok(derived)
}

fn stage_of(stages: &Stages, place: Place) -> u32 {
    match place {
        Place::First => 0,
        Place::Last => stages.last,
        Place::Layer(layer) => {
            let layer = usize::try_from(layer).ok();
            let stage = layer.and_then(|layer| stages.layers.get(layer));
            stage.copied().unwrap_or(stages.last)
        }
    }
}

/// The layout of a parameter; equal ones are one.
fn layout(
    job: &Job,
    parameter: &Parameter,
    known: &mut HashMap<Layout, Arc<Layout>>,
) -> Result<Arc<Layout>> {
    let placement = place(job, parameter);
    even(job, parameter, &placement)?;
    let named = |fault: Fault| fault.tensor(&*parameter.name);
    let mut layout = Layout::new(&placement.mesh, &placement.map, None).map_err(named)?;
    if let Some(shard) = shard(job, parameter, &layout)? {
        layout = Layout::new(&placement.mesh, &placement.map, Some(shard)).map_err(named)?;
    }
    let known = known.entry(layout.clone());
    Ok(Arc::clone(known.or_insert_with(|| Arc::new(layout))))
}

/// Adds a parameter and all that goes with it.
fn add(job: &Job, parameter: &Parameter, layout: &Arc<Layout>, entries: &mut Vec<Entry>) {
    let mut push = |name: String| {
        entries.push(Entry {
            name,
            layout: Arc::clone(layout),
            shape: parameter.shape.clone(),
        });
    };
    push(parameter.name.clone());
    for state in job.optimizer.states(parameter) {
        push(format!("{state}.{}", parameter.name));
    }
    if job.accumulates && parameter.trained {
        push(format!("accu_grads.{}", parameter.name));
    }
}

/// What MindSpore refuses on some machines.
fn doubts(job: &Job) -> Vec<String> {
    let mut doubts = Vec::new();
    let ranks = job.ranks();
    if ![1, 2, 4].contains(&ranks) && !ranks.is_multiple_of(8) {
        doubts.push(format!(
            "MindSpore on Ascend refuses a job of {ranks} ranks: it takes 1, 2, 4, or a multiple of 8"
        ));
    }
    if let Some(key) = job.ignored.filter(|_| job.mesh.tensor > 1) {
        doubts.push(format!(
            "{key} is True: MindSpore Transformers from 1.8 on takes no notice of it in this network, 1.7 leaves the embedding whole"
        ));
    }
    doubts.extend(spared(job));
    if !job.assumed.is_empty() {
        doubts.push(format!(
            "the configuration leaves to the network's defaults: {}",
            job.assumed.join(", ")
        ));
    }
    doubts
}

/// What is said of layers without experts, by the model's configuration, that have some in the trainer's network.
fn spared(job: &Job) -> Option<String> {
    let experts = job.family.experts_in.as_ref()?;
    if job.as_model || !job.training.experts_everywhere {
        return None;
    }
    let layers = 0..job.numbers.value("layers").ok()?;
    let mut spared =
        layers.filter(|layer| job.family.has_experts(&job.numbers, *layer) == Ok(false));
    let layer = spared.next()?;
    let step = experts.every.split('|').next().unwrap_or_default().trim();
    Some(format!(
        "by {} or {step} of the model's configuration layer {layer} has no experts: the trainer's network takes no \
         notice of them and has experts in every layer",
        experts.except
    ))
}

impl Derived {
    /// Number of ranks.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        let stages = u32::try_from(self.stages.len()).unwrap_or(u32::MAX);
        self.ranks_per_stage.saturating_mul(stages)
    }

    /// Ranks of each stage.
    #[must_use]
    pub fn ranks_per_stage(&self) -> u32 {
        self.ranks_per_stage
    }

    /// Number of layouts of all stages.
    #[must_use]
    pub fn layouts(&self) -> usize {
        self.stages.iter().map(Vec::len).sum()
    }

    /// What each rank of a stage holds: names, and the shapes of its parts.
    #[must_use]
    pub fn held(&self, stage: u32) -> BTreeMap<String, Vec<u64>> {
        let stage = usize::try_from(stage).unwrap_or(usize::MAX);
        let entries = self.stages.get(stage).into_iter().flatten();
        entries
            .map(|entry| (entry.name.clone(), part(&entry.shape, &entry.layout)))
            .collect()
    }

    /// Full shapes of the weights, by name.
    #[must_use]
    pub fn shapes(self) -> BTreeMap<String, FullShape> {
        self.shapes
    }

    /// The contents of the files of each stage's ranks.
    ///
    /// # Errors
    /// [`Kind::Strategy`] if a number doesn't fit the form.
    pub fn files(&self, form: Form) -> Result<Vec<Vec<u8>>> {
        (0..)
            .zip(&self.stages)
            .map(|(stage, entries)| rank_file::encode(form, stage, entries))
            .collect()
    }

    /// What merging these files gives.
    ///
    /// # Errors
    /// As [`merge`].
    pub fn merged(form: Form, files: &[Vec<u8>]) -> Result<Vec<u8>> {
        let names: Vec<String> = (0..files.len())
            .map(|stage| rank_file_name(stage, form))
            .collect();
        let files = names.iter().zip(files);
        let files: Vec<StrategyFile<'_>> = files
            .map(|(name, bytes)| StrategyFile { name, bytes })
            .collect();
        Ok(merge(&files)?.bytes)
    }

    /// The strategy itself.
    ///
    /// # Errors
    /// As [`Strategy::from_layouts`].
    pub fn strategy(&self) -> Result<Strategy> {
        let stages = u32::try_from(self.stages.len()).unwrap_or(u32::MAX);
        let entries = (0u32..).zip(&self.stages);
        let layouts = entries
            .flat_map(|(stage, entries)| entries.iter().map(move |entry| entry.in_stage(stage)));
        Strategy::from_layouts(stages, self.ranks_per_stage, layouts)
    }
}

/// The shape of the part of a tensor that a layout gives each rank.
pub(super) fn part(full: &[u64], layout: &Layout) -> Vec<u64> {
    let parts = layout.parts();
    full.iter()
        .zip(parts)
        .map(|(size, parts)| size / parts.max(1))
        .collect()
}

/// The name that the trainer gives a rank's file.
#[must_use]
pub fn rank_file_name(rank: impl std::fmt::Display, form: Form) -> String {
    let ending = match form {
        Form::Protobuf => "ckpt",
        Form::Json => "json",
    };
    format!("ckpt_strategy_rank_{rank}.{ending}")
}
