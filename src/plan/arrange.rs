//! Which tensor goes into which destination file, and where in it.

use crate::catalog::{Catalog, FileSchema, ShardFile};
use crate::fault::Result;
use crate::layout::keep::Keep;
use crate::plan::TensorPlan;
use crate::plan::build::Build;
use crate::plan::inventory::HYPER_STEM;
use crate::plan::iteration::{Iteration, by_iteration};
use crate::store::Format;
use crate::store::checkpoint2::Count;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

/// How files of full weights are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Naming {
    /// `model-00001-of-00002.safetensors`, filled in name order.
    #[default]
    Hf,
    /// `part0.safetensors`, balanced by size as MindSpore does.
    Mindspore,
    /// As `Hf`, without the map that MindSpore looks for.
    HfOnly,
}

/// How a rank's file is called: `{before}.ext`, or `{before}R{after}.ext`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RankName {
    /// What precedes the rank.
    pub before: String,
    /// Whether the rank follows it.
    pub numbered: bool,
    /// What follows the rank.
    pub after: String,
}

impl RankName {
    /// A name that begins with `before`.
    #[must_use]
    pub fn new(before: &str, numbered: bool) -> Self {
        RankName {
            before: before.to_owned(),
            numbered,
            after: String::new(),
        }
    }
}

/// The arrangement of a destination's files.
#[derive(Clone, Debug)]
pub enum Files {
    /// A file a rank, in `rank_R`.
    Ranks {
        /// How it is called.
        name: RankName,
        /// Whether only one copy of each cell is kept.
        remove_redundancy: bool,
    },
    /// `rank_R/{prefix}_rank_R{ending}.ext` with a `meta.json` that names it: what a trainer resumes
    /// from.
    Resume {
        /// Beginning of the file's name.
        prefix: String,
        /// What follows the rank: `-{epoch}_{step}`.
        ending: String,
        /// Epoch and step within it, for `meta.json`.
        position: (u64, u64),
    },
    /// A checkpoint 2.0.
    Iteration(Iteration),
    /// Full weights, cut into files of at most `file_bytes_max` bytes of tensors.
    Full {
        /// How the files are called.
        naming: Naming,
        /// Most bytes of tensors in a file; a larger tensor has a file of its own.
        file_bytes_max: u64,
    },
}

/// A destination laid out: every file's structure before the first write.
#[derive(Clone, Debug, Default)]
pub struct Arranged {
    /// The files of the ranks asked for.
    pub catalog: Catalog,
    /// All tensors, in file order.
    pub plans: Vec<TensorPlan>,
    /// Small files beside them: path and contents.
    pub extras: Vec<(String, Vec<u8>)>,
    /// Who keeps what.
    pub kept: Kept,
}

/// Which of a cell's holders have it in their files.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// For each stage; none where all holders keep it.
    stages: Vec<Option<Keep>>,
    ranks_per_stage: u32,
}

impl Kept {
    /// The ranks that have `cell` of `plan` in their files.
    pub fn keepers<'p>(
        &self,
        plan: &'p TensorPlan,
        cell: &'p [u64],
    ) -> impl Iterator<Item = u32> + 'p {
        let one = self.only_keeper(plan, cell);
        let all = one.is_none().then(|| plan.destination.holders(cell));
        one.into_iter().chain(all.into_iter().flatten())
    }

    /// The one rank that stands for all that have `cell` of `plan` in their files.
    #[must_use]
    pub fn first(&self, plan: &TensorPlan, cell: &[u64]) -> Option<u32> {
        self.keepers(plan, cell).next()
    }

    /// The rank that has the only copy, where only one is kept.
    fn only_keeper(&self, plan: &TensorPlan, cell: &[u64]) -> Option<u32> {
        let begin = plan.destination.first_rank;
        let stage = usize::try_from(begin.checked_div(self.ranks_per_stage)?).ok()?;
        let keep = self.stages.get(stage)?.as_ref()?;
        if plan.destination.layout.ranks() != self.ranks_per_stage {
            return None;
        }
        let lowest = plan.destination.holders(cell).next()?;
        Some(begin + keep.keeper(&plan.name, lowest - begin))
    }
}

type Listing = Vec<(Arc<str>, Dtype, Shape)>;

/// Lays out the files of `ranks`.
///
/// # Errors
/// [`crate::fault::Kind::Dtype`] if the format doesn't know a tensor's type.
pub fn arrange(
    mut build: Build,
    files: &Files,
    format: Format,
    metadata: &BTreeMap<String, String>,
    ranks: &[u32],
) -> Result<Arranged> {
    let mut arranged = match files {
        Files::Ranks {
            name:
                RankName {
                    before,
                    numbered,
                    after,
                },
            remove_redundancy,
        } => {
            let mut metadata = metadata.clone();
            if *remove_redundancy {
                metadata.insert("remove_redundancy".into(), "True".into());
            }
            let name = |rank: u32| {
                let number = if *numbered {
                    rank.to_string()
                } else {
                    String::new()
                };
                format!("rank_{rank}/{before}{number}{after}.{}", format.extension())
            };
            by_rank(&build, *remove_redundancy, format, &metadata, ranks, name)?
        }
        Files::Iteration(iteration) => by_iteration(&mut build, iteration, metadata, ranks)?,
        Files::Resume {
            prefix,
            ending,
            position,
        } => {
            let file = |rank: u32| format!("{prefix}_rank_{rank}{ending}.{}", format.extension());
            let name = |rank: u32| format!("rank_{rank}/{}", file(rank));
            let mut arranged = by_rank(&build, false, format, metadata, ranks, name)?;
            let meta = |rank: &u32| {
                let meta = serde_json::json!({
                    "last_epoch": position.0, "last_step": position.1, "last_ckpt_file": file(*rank),
                });
                (
                    format!("rank_{rank}/meta.json"),
                    meta.to_string().into_bytes(),
                )
            };
            arranged.extras = ranks.iter().map(meta).collect();
            arranged
        }
        Files::Full {
            naming,
            file_bytes_max,
        } => full(&build, *naming, *file_bytes_max, format, metadata)?,
    };
    arranged.plans = build
        .stages
        .into_iter()
        .chain(build.private.into_values())
        .flatten()
        .collect();
    let position: HashMap<&str, usize> = match files {
        Files::Ranks { .. } | Files::Resume { .. } | Files::Iteration(_) => HashMap::new(),
        Files::Full { .. } => {
            let files = arranged.catalog.ranks.values().flatten().enumerate();
            files
                .flat_map(|(i, f)| f.schema.entries.iter().map(move |e| (&*e.name, i)))
                .collect()
        }
    };
    arranged.plans.sort_by(|a, b| {
        let key = |plan: &TensorPlan| {
            let file = position.get(&*plan.name).copied().unwrap_or_default();
            (file, plan.written.file_order())
        };
        let rank = |plan: &TensorPlan| plan.destination.first_rank;
        key(a)
            .cmp(&key(b))
            .then_with(|| a.name.cmp(&b.name))
            .then_with(|| rank(a).cmp(&rank(b)))
    });
    Ok(arranged)
}

fn by_rank(
    build: &Build,
    remove_redundancy: bool,
    format: Format,
    metadata: &BTreeMap<String, String>,
    ranks: &[u32],
    file_name: impl Fn(u32) -> String,
) -> Result<Arranged> {
    let keeps: Vec<Option<Keep>> = build
        .stages
        .iter()
        .map(|plans| {
            remove_redundancy.then(|| {
                Keep::new(
                    plans
                        .iter()
                        .map(|p| (p.name.clone(), p.destination.layout.clone())),
                )
            })
        })
        .collect();
    let mut arranged = Arranged::default();
    // Ranks of a stage with the same private tensors have files of the same structure.
    let mut designed: HashMap<(usize, Listing), Arc<FileSchema>> = HashMap::new();
    for &rank in ranks {
        let stage = (rank / build.ranks_per_stage.max(1)) as usize;
        let local = rank % build.ranks_per_stage.max(1);
        let private: Listing = build
            .private
            .get(&rank)
            .into_iter()
            .flatten()
            .map(listed)
            .collect::<Result<_>>()?;
        let keep = keeps.get(stage).and_then(Option::as_ref);
        let key = (stage, private);
        let schema = match designed.get(&key).filter(|_| keep.is_none()) {
            Some(schema) => schema.clone(),
            None => {
                let mut listing = key.1.clone();
                for plan in build.stages.get(stage).into_iter().flatten() {
                    if keep.is_none_or(|keep| keep.keeps(&plan.name, local)) {
                        listing.push(listed(plan)?);
                    }
                }
                let schema = with_counts(listing, &build.counts, format, metadata);
                let schema = Arc::new(schema.map_err(|fault| fault.rank(rank))?);
                designed.insert(key, schema.clone());
                schema
            }
        };
        arranged.catalog.ranks.insert(
            rank,
            vec![ShardFile {
                path: file_name(rank),
                schema,
            }],
        );
    }
    arranged.kept = Kept {
        stages: keeps,
        ranks_per_stage: build.ranks_per_stage,
    };
    Ok(arranged)
}

/// Lays out a file for the tensors of `listing` and those of `counts` that it hasn't. The bytes of these
/// are part of the layout.
fn with_counts(
    mut listing: Listing,
    counts: &[Count],
    format: Format,
    metadata: &BTreeMap<String, String>,
) -> Result<FileSchema> {
    let known = |listing: &Listing, count: &&Count| !listing.iter().any(|l| *l.0 == *count.name);
    let counts: Vec<&Count> = counts.iter().filter(|c| known(&listing, c)).collect();
    let added = counts
        .iter()
        .map(|c| (c.name.into(), c.dtype, c.shape.clone()));
    listing.extend(added);
    let mut schema = format.design(&listing, metadata)?;
    for count in counts {
        let begin = schema.get(count.name).and_then(|e| e.segments.first());
        if let Some(begin) = begin.map(|segment| segment.start) {
            schema.literals.push((begin, count.bytes.clone()));
        }
    }
    Ok(schema)
}

/// Name, dtype and cell shape (in elements) of a tensor to be written.
pub(super) fn listed(plan: &TensorPlan) -> Result<(Arc<str>, Dtype, Shape)> {
    Ok((
        plan.name.clone(),
        plan.written,
        element_shape(plan.destination.grid.cell_shape(), plan.written),
    ))
}

/// A shape of a plan in elements: packed types are counted in bytes inside.
#[must_use]
pub fn element_shape(shape: &Shape, dtype: Dtype) -> Shape {
    let mut shape = shape.clone();
    if !dtype.bits().is_multiple_of(8)
        && let Some(last) = shape.0.last_mut()
    {
        *last = *last * 8 / u64::from(dtype.bits());
    }
    shape
}

fn full(
    build: &Build,
    naming: Naming,
    file_bytes_max: u64,
    format: Format,
    metadata: &BTreeMap<String, String>,
) -> Result<Arranged> {
    let tensors: Listing = build
        .stages
        .iter()
        .flatten()
        .map(listed)
        .collect::<Result<_>>()?;
    let sizes: Vec<u64> = tensors
        .iter()
        .map(|(_, dtype, shape)| shape.bytes(*dtype))
        .collect::<Result<_>>()?;
    let groups = match naming {
        Naming::Hf | Naming::HfOnly => fill_in_order(&sizes, file_bytes_max),
        Naming::Mindspore => balance(&sizes, file_bytes_max),
    };
    let extension = format.extension();
    let name = |index: usize| match naming {
        Naming::Hf | Naming::HfOnly => {
            format!("model-{:05}-of-{:05}.{extension}", index + 1, groups.len())
        }
        Naming::Mindspore => format!("part{index}.{extension}"),
    };
    let mut files = Vec::new();
    let mut weight_map = serde_json::Map::new();
    for (index, group) in groups.iter().enumerate() {
        let listing: Listing = group.iter().map(|i| tensors[*i].clone()).collect();
        for (tensor, _, _) in &listing {
            weight_map.insert(tensor.to_string(), name(index).into());
        }
        let schema = Arc::new(format.design(&listing, metadata)?);
        files.push(ShardFile {
            path: name(index),
            schema,
        });
    }
    let hyper: Listing = build
        .private
        .values()
        .flatten()
        .map(listed)
        .collect::<Result<_>>()?;
    let names = tensors.iter().chain(&hyper).map(|(name, _, _)| &**name);
    Format::check_names(names)?;
    if !hyper.is_empty() || !build.counts.is_empty() {
        let metadata = BTreeMap::from([("format".to_owned(), "ms".to_owned())]);
        let schema = Arc::new(with_counts(hyper, &build.counts, format, &metadata)?);
        files.push(ShardFile {
            path: format!("{HYPER_STEM}.{extension}"),
            schema,
        });
    }
    let map = serde_json::json!({
        "metadata": { "total_size": sizes.iter().sum::<u64>() },
        "weight_map": weight_map,
    });
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
    serde::Serialize::serialize(&map, &mut writer).map_err(|error| {
        crate::fault::Fault::new(crate::fault::Kind::Internal, format!("index: {error}"))
    })?;
    let map = ("param_name_map.json".to_owned(), text.clone());
    let index = ("model.safetensors.index.json".to_owned(), text);
    let extras = match naming {
        Naming::Hf => vec![map, index],
        Naming::Mindspore => vec![map],
        Naming::HfOnly => vec![index],
    };
    let catalog = Catalog::of(BTreeMap::from([(0, files)]));
    Ok(Arranged {
        catalog,
        plans: Vec::new(),
        extras,
        kept: Kept::default(),
    })
}

/// Consecutive tensors to a file until it is full. At least one file.
fn fill_in_order(sizes: &[u64], file_bytes_max: u64) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = vec![Vec::new()];
    let mut filled = 0u64;
    for (index, size) in sizes.iter().enumerate() {
        if filled > 0 && filled + size > file_bytes_max {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += size;
        if let Some(group) = groups.last_mut() {
            group.push(index);
        }
    }
    groups
}

/// MindSpore's assignment: largest first, each to the file with the fewest bytes so far
/// (docs/formats.md). At least one file, none empty.
fn balance(sizes: &[u64], file_bytes_max: u64) -> Vec<Vec<usize>> {
    let total: u64 = sizes.iter().sum();
    let count = usize::try_from(total.div_ceil(file_bytes_max.max(1))).unwrap_or(usize::MAX);
    let count = count.min(sizes.len()).max(1);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|index| Reverse(sizes[*index]));
    let mut groups = vec![Vec::new(); count];
    // Fewest bytes first, of several the first file.
    let mut filled: BinaryHeap<Reverse<(u64, usize)>> =
        (0..count).map(|g| Reverse((0, g))).collect();
    for index in order {
        if let Some(mut least) = filled.peek_mut() {
            least.0.0 += sizes[index];
            groups[least.0.1].push(index);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balances_as_mindspore_does() {
        assert_eq!(balance(&[4, 9, 1, 5], 10), [vec![1, 2], vec![3, 0]]);
        assert_eq!(balance(&[], 10), [Vec::<usize>::new()]);
        assert_eq!(balance(&[0, 0], 10).len(), 1);
    }

    #[test]
    fn fills_files_in_order() {
        assert_eq!(
            fill_in_order(&[4, 9, 1, 5], 10),
            [vec![0], vec![1, 2], vec![3]]
        );
        assert_eq!(fill_in_order(&[], 10), [Vec::<usize>::new()]);
    }
}
