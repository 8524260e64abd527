//! All layouts of a checkpoint.

use super::beside;
use super::file::StrategyFile;
use super::input::FullShape;
use super::read;
use super::stage_layout::StageLayout;
use crate::fault::{Fault, Kind, Result};
use crate::layout::{Layout, RANKS_MAX};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// All layouts of a checkpoint. Equal layouts are stored once.
///
/// Global rank `r` is local rank `r % ranks_per_stage` of stage `r / ranks_per_stage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strategy {
    stages: u32,
    ranks_per_stage: u32,
    /// Layouts of each tensor, ascending by stage.
    tensors: BTreeMap<Arc<str>, Vec<StageLayout>>,
}

impl Strategy {
    /// Tells the full shapes of tensors whose layouts don't tell them, where each dimension is one of the layout's.
    pub fn tell_shapes(&mut self, shapes: &[(String, Vec<u64>)]) {
        for (name, shape) in shapes {
            for layout in self.tensors.get_mut(name.as_str()).into_iter().flatten() {
                if layout.expanded_shape.is_none() && layout.layout.dimensions() == shape.len() {
                    layout.expanded_shape = Some(shape.clone());
                }
            }
        }
    }

    /// Reads one file, merged or not, or all files of a directory, which are merged in memory.
    ///
    /// In one file, `<stage>-<parameter>` puts a parameter into a stage and any other name into
    /// stage 0. Of several files each must be of one stage: that of its first operator item.
    ///
    /// # Errors
    /// [`Kind::Strategy`], naming the file and the parameter, for files that can't be read, hold no
    /// layouts, disagree on the number of ranks, leave out a stage, or (several) are of both forms.
    pub fn read(files: &[StrategyFile]) -> Result<Self> {
        let (files, merged) = beside::apart(files);
        let items = match &files[..] {
            [file] => read::Document::decode(file)?.items(file.name, None)?,
            _ => {
                let mut items = Vec::new();
                for part in read::stages(&files)? {
                    items.extend(part.document.items(part.file, Some(part.stage))?);
                }
                items
            }
        };
        let mut strategy = Strategy::assemble(items)?;
        strategy.intern();
        if let Some(merged) = merged
            && Strategy::read(&[merged])? != strategy
        {
            return Err(beside::differs(merged));
        }
        Ok(strategy)
    }

    /// A strategy of the given layouts, by name; each name once a stage, in any order.
    ///
    /// # Errors
    /// [`Kind::Strategy`] if a layout has another number of ranks than `ranks_per_stage`, a stage
    /// is out of range or has no tensor, or a name has two layouts in one stage.
    pub fn from_layouts(
        stages: u32,
        ranks_per_stage: u32,
        tensors: impl IntoIterator<Item = (Arc<str>, StageLayout)>,
    ) -> Result<Self> {
        let items: Vec<read::Item> = tensors
            .into_iter()
            .map(|(name, layout)| read::Item {
                file: "",
                name,
                layout,
            })
            .collect();
        let mut strategy = Strategy::assemble(items)?;
        if strategy.stages != stages || strategy.ranks_per_stage != ranks_per_stage {
            let message = format!(
                "the layouts are for {} stages of {} ranks, not for {stages} of {ranks_per_stage}",
                strategy.stages, strategy.ranks_per_stage
            );
            return Err(Fault::new(Kind::Strategy, message));
        }
        strategy.intern();
        Ok(strategy)
    }

    /// A strategy of these layouts, each its own.
    ///
    /// # Errors
    /// As [`Strategy::from_layouts`]; a stage that is missing.
    pub(super) fn assemble(items: Vec<read::Item>) -> Result<Self> {
        let Some(first) = items.first() else {
            return Err(Fault::new(Kind::Strategy, "the strategy has no layouts"));
        };
        let (first_file, first_name) = (first.file, Arc::clone(&first.name));
        let ranks_per_stage = first.layout.layout.ranks();
        let mut tensors: BTreeMap<Arc<str>, Vec<StageLayout>> = BTreeMap::new();
        let mut present = HashSet::new();
        for item in items {
            let bad = |message: String| {
                let fault = Fault::new(Kind::Strategy, message).tensor(&*item.name);
                match item.file {
                    "" => fault,
                    file => fault.file(file),
                }
            };
            let ranks = item.layout.layout.ranks();
            if ranks != ranks_per_stage {
                let mesh = item.layout.layout.mesh();
                return Err(bad(format!(
                    "device matrix {mesh:?} is for {ranks} ranks a stage, that of '{first_name}' \
                     for {ranks_per_stage}"
                )));
            }
            present.insert(item.layout.stage);
            let layouts = tensors.entry(Arc::clone(&item.name)).or_default();
            match layouts.binary_search_by_key(&item.layout.stage, |layout| layout.stage) {
                Err(place) => layouts.insert(place, item.layout),
                Ok(place) if layouts[place] == item.layout => {}
                Ok(_) => {
                    let stage = item.layout.stage;
                    return Err(bad(format!("has two different layouts in stage {stage}")));
                }
            }
        }
        let stages = u32::try_from(present.len()).unwrap_or(u32::MAX);
        if let Some(missing) = (0..stages).find(|stage| !present.contains(stage)) {
            let last = present.iter().max().copied().unwrap_or(0);
            let message = format!("stage {missing} is missing, the last stage is {last}");
            let fault = Fault::new(Kind::Strategy, message)
                .hint("give the strategy files of all stages, or merge them first");
            return Err(match first_file {
                "" => fault,
                file => fault.file(file),
            });
        }
        let ranks = stages.checked_mul(ranks_per_stage);
        if ranks.is_none_or(|ranks| ranks > RANKS_MAX) {
            let message =
                format!("{stages} stages of {ranks_per_stage} ranks: more than {RANKS_MAX} in all");
            return Err(Fault::new(Kind::Strategy, message));
        }
        Ok(Strategy {
            stages,
            ranks_per_stage,
            tensors,
        })
    }

    /// Makes equal layouts share one allocation.
    fn intern(&mut self) {
        let mut known: HashSet<Arc<Layout>> = HashSet::new();
        for layout in self.tensors.values_mut().flatten() {
            match known.get(&layout.layout) {
                Some(same) => layout.layout = Arc::clone(same),
                None => {
                    known.insert(Arc::clone(&layout.layout));
                }
            }
        }
    }

    /// The same for weights of these full `shapes`, by name, and for their states: a tensor of another shape
    /// doesn't fit its layout any more. Layouts that stand for other dimensions stay as they are.
    #[must_use]
    pub fn of_shapes(mut self, shapes: &BTreeMap<String, FullShape>) -> Self {
        if shapes.is_empty() {
            return self;
        }
        for (name, layouts) in &mut self.tensors {
            let of_state = || shapes.get(name.split_once('.')?.1);
            let Some(shape) = shapes.get(&**name).or_else(of_state) else {
                continue;
            };
            let fitting = layouts.iter_mut().filter(|layout| {
                layout.expanded_shape.is_none() && layout.layout.dimensions() == shape.sizes.len()
            });
            fitting.for_each(|layout| {
                layout.expanded_shape = Some(shape.sizes.clone());
                layout.padded = shape.padded;
            });
        }
        self
    }

    /// The same for tensors that are called otherwise: each of `names` that is unknown has the layouts of what `known`
    /// makes of it.
    #[must_use]
    pub fn for_names<'a>(
        mut self,
        names: impl Iterator<Item = &'a Arc<str>>,
        known: impl Fn(&str) -> String,
    ) -> Self {
        for name in names {
            if !self.tensors.contains_key(name)
                && let Some(layouts) = self.tensors.remove(known(name).as_str())
            {
                self.tensors.insert(name.clone(), layouts);
            }
        }
        self
    }

    /// Number of pipeline stages.
    #[must_use]
    pub fn stages(&self) -> u32 {
        self.stages
    }

    /// Number of ranks of each stage.
    #[must_use]
    pub fn ranks_per_stage(&self) -> u32 {
        self.ranks_per_stage
    }

    /// Number of ranks of all stages.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        self.stages * self.ranks_per_stage
    }

    /// The layouts of tensor `name`, ascending by stage; none if it is unknown.
    #[must_use]
    pub fn layouts(&self, name: &str) -> &[StageLayout] {
        self.tensors.get(name).map_or(&[], Vec::as_slice)
    }

    /// The layout of tensor `name` in `stage`, if it is there.
    #[must_use]
    pub fn layout_in(&self, name: &str, stage: u32) -> Option<&StageLayout> {
        self.layouts(name)
            .iter()
            .find(|layout| layout.stage == stage)
    }

    /// The names of all tensors, ascending.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.tensors.keys()
    }

    /// All layouts, ascending by name and then stage.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &StageLayout)> {
        self.tensors
            .iter()
            .flat_map(|(name, layouts)| layouts.iter().map(move |layout| (name, layout)))
    }
}
