//! From two sides' strategies and a source's catalog to the tensors to make.

use crate::catalog::Catalog;
use crate::fault::{Fault, Kind, Result, nearest};
use crate::layout::Layout;
use crate::plan::inventory::{Inventory, whole_tensor};
use crate::plan::value::Value;
use crate::plan::{SourceTensor, Spread, TensorPlan};
use crate::store::checkpoint2::Count;
use crate::strategy::Strategy;
use crate::tensor::cast::is_castable;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use crate::view::{Cut, MadeOf, Piece, Table};
use clap::ValueEnum;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What to do with a tensor that the source strategy cuts and the destination strategy doesn't know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Unmatched {
    /// Refuse to go on.
    #[default]
    Fail,
    /// Copy the shard of source rank (destination rank mod source ranks), as MindSpore does.
    Copy,
    /// Leave it out, with a word.
    Drop,
}

/// Which names are read, and what they are called when written.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Names with one of these beginnings are left out everywhere.
    pub filter_out_prefixes: Vec<String>,
    /// Name read → name written.
    pub written: BTreeMap<String, String>,
    /// Name written → name read: the other way round, where one name read is written several times.
    pub read: BTreeMap<String, String>,
    /// What each tensor written is made of; none: of itself, under its name written.
    pub view: Option<Table>,
}

impl Select {
    /// Whether a tensor of this name is read at all.
    #[must_use]
    pub fn keeps(&self, name: &str) -> bool {
        !self
            .filter_out_prefixes
            .iter()
            .any(|prefix| name.starts_with(prefix.as_str()))
    }

    fn written_name(&self, name: &Arc<str>) -> Arc<str> {
        self.written
            .get(&**name)
            .map_or_else(|| name.clone(), |written| written.as_str().into())
    }
}

/// How tensors outside the destination's strategy travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// As reshard: private and uncut ones are copied, cut ones fall under the choice.
    Reshard(Unmatched),
    /// As split: only private ones (hyper parameters) are copied, the others left out.
    Split,
    /// As unify: private ones and gradient accumulators are kept as rank 0 has them.
    Unify,
    /// As import and export: only what the view makes is written.
    View {
        /// Leave out what the destination's strategy doesn't know, rather than fail.
        allow_extra: bool,
    },
}

/// A tensor to be written, and the source tensors that it is made of.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its full shape, in elements.
    shape: Shape,
    /// The element type of its sources.
    dtype: Dtype,
    /// The element type it is written in.
    written: Dtype,
    /// How dimension 0 may be cut.
    cut: Cut,
    /// Together they cover it exactly once.
    pieces: Vec<(Piece, Arc<SourceTensor>)>,
}

impl Made {
    /// A tensor made of one other, unchanged.
    ///
    /// # Errors
    /// [`Kind::Shape`] if rows of a packed type don't fill whole bytes.
    pub fn of(tensor: &Arc<SourceTensor>) -> Result<Made> {
        let (bytes, _) = tensor.shape.in_bytes(tensor.dtype)?;
        Ok(Made {
            shape: tensor.shape.clone(),
            dtype: tensor.dtype,
            written: tensor.value_dtype(),
            cut: Cut::Anywhere,
            pieces: vec![(Piece::identity(tensor.name.clone(), &bytes), tensor.clone())],
        })
    }

    /// Finds the sources of a view's tensor.
    ///
    /// # Errors
    /// [`Kind::UnknownTensor`] if there is no such source, [`Kind::Dtype`] if their types differ or
    /// can't be cast, [`Kind::Shape`] if a piece reaches outside its source.
    fn from_view(made: &MadeOf, inventory: &Inventory) -> Result<Made> {
        let mut pieces: Vec<(Piece, Arc<SourceTensor>)> = Vec::with_capacity(made.pieces.len());
        for piece in &made.pieces {
            let Some(tensor) = inventory.tensors.get(&piece.source) else {
                let message = format!("is made of '{}', which the source hasn't", piece.source);
                return Err(Fault::new(Kind::UnknownTensor, message));
            };
            if let Some((_, first)) = pieces.first()
                && (first.dtype, first.value_dtype()) != (tensor.dtype, tensor.value_dtype())
            {
                let message = format!(
                    "is made of '{}' in {} and '{}' in {}",
                    first.name, first.dtype, tensor.name, tensor.dtype
                );
                return Err(Fault::new(Kind::Dtype, message));
            }
            let whole = tensor.dtype.bits().is_multiple_of(8);
            if !whole || !reaches_inside(piece, &tensor.shape) {
                let message = format!(
                    "a part of '{}' is outside its {}",
                    tensor.name, tensor.shape
                );
                return Err(Fault::new(Kind::Shape, message));
            }
            pieces.push((piece.clone(), tensor.clone()));
        }
        let Some((_, first)) = pieces.first() else {
            return Err(Fault::new(Kind::Internal, "is made of nothing"));
        };
        let value = first.value_dtype();
        let (dtype, written) = (first.dtype, made.dtype.unwrap_or(value));
        if written != value && !(is_castable(value) && is_castable(written)) {
            let message = format!("{value} can't be cast to {written}");
            return Err(Fault::new(Kind::Dtype, message));
        }
        Ok(Made {
            shape: made.shape.clone(),
            dtype,
            written,
            cut: made.cut,
            pieces,
        })
    }
}

impl Made {
    /// Checks that a layout keeps together what must stay together.
    ///
    /// # Errors
    /// [`Kind::Shape`].
    fn check_cut(&self, layout: &Layout) -> Result<()> {
        let (Some(rows), Some(parts)) = (self.shape.0.first(), layout.parts().first().copied())
        else {
            return Ok(());
        };
        let parts = (parts / layout.optimizer_pieces().max(1)).max(1);
        let (fits, group) = match self.cut {
            Cut::Anywhere => return Ok(()),
            Cut::Groups(group) => ((rows / parts).is_multiple_of(group.max(1)), group),
            Cut::Exactly(group) => (rows / parts == group, group),
        };
        if parts == 1 || fits {
            return Ok(());
        }
        let message = format!(
            "the strategy cuts its {rows} rows in {parts}; it is fused in groups of {group} rows"
        );
        Err(Fault::new(Kind::Shape, message).hint(
            "a rank must have whole groups: --tp must be what the strategy cuts in, and key-value \
             heads too few for that need --qkv contiguous or separate",
        ))
    }

    /// The names of its sources.
    fn sources(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.pieces.iter().map(|(_, tensor)| tensor.name.clone())
    }
}

fn reaches_inside(piece: &Piece, shape: &Shape) -> bool {
    if piece.source_map.len() != shape.0.len() {
        return false;
    }
    if piece.domain.contains(&0) {
        return true;
    }
    let image = Piece::image(&piece.ranges(), &piece.source_map);
    let dims = image.offset.iter().zip(&image.shape.0).zip(&shape.0);
    dims.into_iter()
        .all(|((offset, extent), dim)| offset + extent <= *dim)
}

/// Everything to be made.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// The tensors of each stage, by stage. Shared by all ranks of the stage.
    pub stages: Vec<Vec<TensorPlan>>,
    /// Tensors that a single rank gets, by rank.
    pub private: BTreeMap<u32, Vec<TensorPlan>>,
    /// Tensors that every rank gets though no file of the source has them: a job's counts.
    pub counts: Vec<Count>,
    /// Ranks in a stage of the destination.
    pub ranks_per_stage: u32,
    /// Names in the destination's strategy that the source has no data for.
    pub without_data: Vec<Arc<str>>,
    /// Names left out though the source has them.
    pub dropped: Vec<Arc<str>>,
}

/// Finds the tensors to make for a destination strategy (none: whole, at rank 0). Private tensors are
/// made for the ranks in `ranks` only.
///
/// # Errors
/// [`Kind::UnknownTensor`] for a cut tensor that the destination doesn't know, [`Kind::Shape`] for
/// one that can't be cut as it asks.
pub fn build(
    inventory: &Inventory,
    catalog: &Catalog,
    destination: Option<&Strategy>,
    select: &Select,
    leftovers: Leftovers,
    ranks: &[u32],
) -> Result<Build> {
    let mut build = Build {
        ranks_per_stage: destination.map_or(1, Strategy::ranks_per_stage),
        ..Build::default()
    };
    let made = made(inventory, select, leftovers)?;
    let used = match destination {
        None => {
            let plans = made.iter().map(|(name, made)| {
                let layout = Arc::new(Layout::whole(made.shape.0.len()));
                plan_tensor(name, made, 0, layout)
            });
            build.stages = vec![plans.collect::<Result<_>>()?];
            made.values().flat_map(Made::sources).collect()
        }
        Some(strategy) => build.place(strategy, &made)?,
    };
    if let (Leftovers::View { allow_extra }, Some(strategy)) = (leftovers, destination) {
        let mut unknown = made.keys().filter(|name| strategy.layouts(name).is_empty());
        if allow_extra {
            build.dropped.extend(unknown.cloned());
        } else if let Some(first) = unknown.next() {
            return Err(not_in_strategy(first, unknown.count(), strategy));
        }
    }
    if used.is_empty() && !inventory.tensors.is_empty() {
        return Err(nothing_in_common(inventory, destination));
    }
    let copied = build.sort_leftovers(inventory, select, destination, leftovers, &used)?;
    let viewed = matches!(leftovers, Leftovers::View { .. });
    for rank in ranks.iter().filter(|_| !viewed) {
        let from = rank % inventory.ranks.max(1);
        let names = inventory
            .private
            .iter()
            .filter(|name| select.keeps(name))
            .chain(&copied);
        let mut plans = Vec::new();
        for name in names {
            let elsewhere = || {
                // One that isn't cut is the same on every rank that kept it.
                let whole = |tensor: &Arc<SourceTensor>| {
                    !tensor.spreads.iter().any(|spread| spread.layout.is_cut())
                };
                let wanted = matches!(leftovers, Leftovers::Reshard(_))
                    && inventory.tensors.get(name).is_some_and(whole)
                    || leftovers == Leftovers::Unify && inventory.private.contains(name);
                catalog
                    .ranks
                    .keys()
                    .filter(|_| wanted)
                    .find_map(|rank| catalog.find(*rank, name))
            };
            let Some(place) = catalog.find(from, name).or_else(elsewhere) else {
                continue;
            };
            let mut tensor = whole_tensor(catalog.entry(place), place.rank)?;
            tensor.value = value_of_copy(inventory, name)?;
            let tensor = Arc::new(tensor);
            let layout = Arc::new(Layout::whole(tensor.shape.0.len()));
            plans.push(plan_tensor(
                &select.written_name(name),
                &Made::of(&tensor)?,
                *rank,
                layout,
            )?);
        }
        build.private.insert(*rank, plans);
    }
    Ok(build)
}

impl Build {
    /// Lays the tensors out by the destination's strategy; gives the names read that were used.
    fn place(
        &mut self,
        strategy: &Strategy,
        made: &BTreeMap<Arc<str>, Made>,
    ) -> Result<BTreeSet<Arc<str>>> {
        self.stages = (0..strategy.stages()).map(|_| Vec::new()).collect();
        let mut used = BTreeSet::new();
        for name in strategy.names() {
            let Some(made) = made.get(name) else {
                self.without_data.push(name.clone());
                continue;
            };
            used.extend(made.sources());
            for stage in strategy.layouts(name) {
                let layout = stage
                    .fit_full(&made.shape.0)
                    .map_err(|fault| fault.tensor(&**name))?;
                made.check_cut(&layout)
                    .map_err(|fault| fault.tensor(&**name))?;
                let first_rank = stage.stage * self.ranks_per_stage;
                let plan = plan_tensor(name, made, first_rank, layout)?;
                if let Some(plans) = self.stages.get_mut(stage.stage as usize) {
                    plans.push(plan);
                }
            }
        }
        Ok(used)
    }

    /// What happens to the tensors that no stage gets: gives those that are copied as they are.
    fn sort_leftovers(
        &mut self,
        inventory: &Inventory,
        select: &Select,
        destination: Option<&Strategy>,
        leftovers: Leftovers,
        used: &BTreeSet<Arc<str>>,
    ) -> Result<Vec<Arc<str>>> {
        let mut copied = Vec::new();
        let mut unknown = Vec::new();
        for (name, tensor) in &inventory.tensors {
            if used.contains(name) || !select.keeps(name) {
                continue;
            }
            let cut = tensor.spreads.iter().any(|spread| spread.layout.is_cut());
            match leftovers {
                Leftovers::Split | Leftovers::View { .. } => self.dropped.push(name.clone()),
                Leftovers::Unify => copied.push(name.clone()),
                Leftovers::Reshard(_) if !cut => copied.push(name.clone()),
                Leftovers::Reshard(Unmatched::Copy) => copied.push(name.clone()),
                Leftovers::Reshard(Unmatched::Drop) => self.dropped.push(name.clone()),
                Leftovers::Reshard(Unmatched::Fail) => unknown.push(name),
            }
        }
        if let Some(first) = unknown.first() {
            let known = destination
                .map(|s| s.names().map(|n| &**n).collect())
                .unwrap_or_default();
            return Err(unknown_tensor(first, unknown.len(), known));
        }
        Ok(copied)
    }
}

/// What the elements of a tensor that is copied as it is are computed to.
fn value_of_copy(inventory: &Inventory, name: &Arc<str>) -> Result<Option<Arc<Value>>> {
    let Some(tensor) = inventory.tensors.get(name) else {
        return Ok(None);
    };
    let cut = tensor.spreads.iter().any(|spread| spread.layout.is_cut());
    if cut && tensor.value.is_some() {
        let message = "is to be computed, but its shards are copied as they are";
        return Err(Fault::new(Kind::Unsupported, message)
            .tensor(&**name)
            .hint("a destination strategy that describes it is needed"));
    }
    Ok(tensor.value.clone())
}

fn nothing_in_common(inventory: &Inventory, destination: Option<&Strategy>) -> Fault {
    let fault = Fault::new(
        Kind::UnknownTensor,
        "no tensor of the source is in the destination strategy (or all are filtered out)",
    );
    let Some(name) = inventory.tensors.keys().next() else {
        return fault;
    };
    let known = destination
        .into_iter()
        .flat_map(Strategy::names)
        .map(|name| &**name);
    let near = nearest(name, known);
    let fault = fault.tensor(&**name);
    if near.is_empty() {
        return fault.hint("--name-map tells which names mean the same");
    }
    fault.hint(format!(
        "nearest in the strategy: {}; --name-map tells which mean the same",
        near.join(", ")
    ))
}

fn unknown_tensor(name: &str, count: usize, known: Vec<&str>) -> Fault {
    let others = if count > 1 {
        format!(" (nor {} others)", count - 1)
    } else {
        String::new()
    };
    let near = nearest(name, known.into_iter());
    let near = if near.is_empty() {
        String::new()
    } else {
        format!("nearest: {}; ", near.join(", "))
    };
    Fault::new(
        Kind::UnknownTensor,
        format!("the source strategy cuts it, the destination strategy doesn't know it{others}"),
    )
    .tensor(name)
    .hint(format!(
        "{near}--unmatched copy keeps the shards as they are, --unmatched drop leaves them out"
    ))
}

/// The tensors to write by name: those of the view, or each of the source as itself.
fn made(
    inventory: &Inventory,
    select: &Select,
    leftovers: Leftovers,
) -> Result<BTreeMap<Arc<str>, Made>> {
    let mut all = BTreeMap::new();
    if let Some(view) = &select.view {
        for (name, parts) in view {
            let made = Made::from_view(parts, inventory).map_err(|fault| fault.tensor(&**name))?;
            all.insert(name.clone(), made);
        }
        return Ok(all);
    }
    let of =
        |tensor: &Arc<SourceTensor>| Made::of(tensor).map_err(|fault| fault.tensor(&*tensor.name));
    let kept = inventory.tensors.iter();
    for (name, tensor) in kept.filter(|(name, _)| select.keeps(name)) {
        // MindSpore's unify leaves these out of the merge (docs/formats.md).
        if leftovers == Leftovers::Unify && name.starts_with("accu_grads") {
            continue;
        }
        all.insert(select.written_name(name), of(tensor)?);
    }
    for (written, read) in &select.read {
        if let Some(tensor) = inventory.tensors.get(read.as_str()) {
            all.insert(written.as_str().into(), of(tensor)?);
        }
    }
    Ok(all)
}

fn not_in_strategy(name: &str, others: usize, strategy: &Strategy) -> Fault {
    let others = if others > 0 {
        format!(" (nor {others} others)")
    } else {
        String::new()
    };
    let message = format!("the destination strategy doesn't know it{others}");
    let near = nearest(name, strategy.names().map(|name| &**name)).join(", ");
    Fault::new(Kind::UnknownTensor, message)
        .tensor(name)
        .hint(format!(
            "nearest in the strategy: {near}; do --names, --qkv, --ffn and --experts fit the \
             training job? --allow-extra leaves it out"
        ))
}

/// A tensor made of others, by `layout` on the ranks from `first_rank` on.
///
/// # Errors
/// [`Kind::Shape`] if the layout doesn't fit.
pub fn plan_tensor(
    name: &Arc<str>,
    made: &Made,
    first_rank: u32,
    layout: Arc<Layout>,
) -> Result<TensorPlan> {
    let (_, element_bytes) = made
        .shape
        .in_bytes(made.dtype)
        .map_err(|fault| fault.tensor(&**name))?;
    let destination = Spread::new(first_rank, layout, &made.shape, made.dtype)
        .map_err(|fault| fault.tensor(&**name))?;
    Ok(TensorPlan {
        name: name.clone(),
        dtype: made.dtype,
        written: made.written,
        element_bytes,
        destination,
        pieces: made.pieces.clone(),
    })
}
