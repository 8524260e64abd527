//! The files of a directory that tells its own layout, as its format has them.

use crate::catalog::{FileSchema, ShardFile};
use crate::fault::{Fault, Kind, Result};
use crate::plan::arranged::Arranged;
use crate::plan::build::Build;
use crate::plan::listing::{Listing, element_shape, filled};
use crate::plan::tensor_plan::TensorPlan;
use crate::store::Directory;
use crate::store::Format;
use crate::store::formats::Count;
use crate::store::formats::laid::{DirectoryAsked, DirectoryFile, Laid, LaidTensor};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Lays out the files of all ranks.
///
/// # Errors
/// [`Kind::Unsupported`] if the ranks' files are not all written to one place, as one text tells of all
/// of them; [`Kind::Dtype`]; as the format.
pub(super) fn by_directory(
    build: &mut Build,
    format: Directory,
    asked: &DirectoryAsked,
    metadata: &BTreeMap<String, String>,
    ranks: &[u32],
) -> Result<Arranged> {
    let per_stage = build.ranks_per_stage.max(1);
    if ranks.len() != build.stages.len() * per_stage as usize {
        let text = format.texts().first().map_or("directory", |(name, _)| name);
        let message = format!(
            "{} has one {text} for all ranks: its directory must be shared",
            format.called()
        );
        return Err(Fault::new(Kind::Unsupported, message)
            .hint("write to storage that all nodes share; --gather-to-root writes on one; not --placement identity"));
    }
    for plans in build.private.values_mut() {
        plans.retain(|plan| !format.drops(asked, &plan.name));
    }
    let mut laid = laid(build, per_stage);
    let counts = match format.is_numbered() {
        true => Vec::new(),
        false => add_counts(&mut laid, &build.counts),
    };
    let mut arranged = Arranged::default();
    let mut designed = HashMap::new();
    let mut files = Vec::new();
    for file in format.design(asked, &laid)? {
        let listed = |tensor: &&LaidTensor| {
            (
                Arc::clone(&tensor.name),
                tensor.written,
                tensor.cell.clone(),
            )
        };
        let listing: Listing = file.tensors.iter().map(listed).collect();
        let mut says = metadata.clone();
        says.extend(file.metadata.clone());
        let mut schema = structure(&mut designed, format.files(), listing, says)?;
        let counted = counts
            .iter()
            .filter(|count| schema.get(count.name).is_some());
        let counted: Vec<&Count> = counted.copied().collect();
        if !counted.is_empty() {
            schema = Arc::new(filled(FileSchema::clone(&schema), counted));
        }
        let path = file.path.clone();
        let of_rank = arranged.catalog.ranks.entry(file.rank).or_default();
        of_rank.push(ShardFile {
            path,
            schema: Arc::clone(&schema),
        });
        files.push((file, schema));
    }
    arranged.kept.named = asked.remove_redundancy.then(|| holders(&files));
    arranged.extras = format.finish(asked, &files)?;
    Ok(arranged)
}

/// The ranks whose files have each tensor, in order: a format chooses by itself which copy is kept.
fn holders(files: &[(DirectoryFile<'_>, Arc<FileSchema>)]) -> HashMap<Arc<str>, Vec<u32>> {
    let mut holders: HashMap<Arc<str>, Vec<u32>> = HashMap::new();
    for (file, _) in files {
        for tensor in &file.tensors {
            let ranks = holders.entry(Arc::clone(&tensor.name)).or_default();
            ranks.push(file.rank);
        }
    }
    for ranks in holders.values_mut() {
        ranks.sort_unstable();
    }
    holders
}

/// What files of the same structure have in common.
type Alike = (Listing, BTreeMap<String, String>);

/// The structure of a file; files of several ranks have the same one.
fn structure(
    designed: &mut HashMap<Alike, Arc<FileSchema>>,
    format: Format,
    listing: Listing,
    metadata: BTreeMap<String, String>,
) -> Result<Arc<FileSchema>> {
    let alike = (listing, metadata);
    if let Some(schema) = designed.get(&alike) {
        return Ok(Arc::clone(schema));
    }
    let schema = Arc::new(format.design(&alike.0, &alike.1)?);
    designed.insert(alike, Arc::clone(&schema));
    Ok(schema)
}

/// What is to be made, as a format needs to know it.
fn laid(build: &Build, ranks_per_stage: u32) -> Laid {
    let of = |plans: &Vec<TensorPlan>, own: bool| plans.iter().map(|p| tensor(p, own)).collect();
    let private = build.private.iter();
    Laid {
        stages: build.stages.iter().map(|plans| of(plans, false)).collect(),
        private: private.map(|(rank, p)| (*rank, of(p, true))).collect(),
        ranks_per_stage,
    }
}

/// Adds to what rank 0 has for itself those of `counts` that aren't tensors anyway, and gives these.
fn add_counts<'a>(laid: &mut Laid, counts: &'a [Count]) -> Vec<&'a Count> {
    let there = |tensors: &[LaidTensor], name: &str| tensors.iter().any(|t| &*t.name == name);
    let added: Vec<&Count> = counts
        .iter()
        .filter(|count| {
            let mut all = laid.stages.iter().chain(laid.private.values());
            !all.any(|tensors| there(tensors, count.name))
        })
        .collect();
    let tensors = added.iter().map(|count| LaidTensor {
        name: count.name.into(),
        dtype: count.dtype,
        written: count.dtype,
        cell: count.shape.clone(),
        cell_bytes: count.bytes.len() as u64,
        layout: None,
        first_rank: 0,
    });
    let tensors: Vec<LaidTensor> = tensors.collect();
    if !tensors.is_empty() {
        laid.private.entry(0).or_default().extend(tensors);
    }
    added
}

fn tensor(plan: &TensorPlan, own: bool) -> LaidTensor {
    let spread = &plan.destination;
    LaidTensor {
        name: Arc::clone(&plan.name),
        dtype: plan.dtype,
        written: plan.written,
        cell: element_shape(spread.grid.cell_shape(), plan.written),
        cell_bytes: plan.cell_bytes(),
        layout: (!own).then(|| Arc::clone(&spread.layout)),
        first_rank: spread.first_rank,
    }
}
