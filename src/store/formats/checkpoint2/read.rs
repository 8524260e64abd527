//! From the text of `metadata.json` to a strategy and the files of each rank.

use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::store::formats::checkpoint2::layout::{ordinal_of, read_layout};
use crate::store::formats::directory::Counted;
use crate::store::full_dir::check_inside;
use crate::strategy::{StageLayout, Strategy};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What `metadata.json` tells.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// The layouts.
    pub strategy: Strategy,
    /// The files of each rank.
    pub files: BTreeMap<u32, BTreeSet<String>>,
    /// The tensors that each file counts for.
    pub counted: Counted,
    /// Whether the trainer of dynamic graphs wrote it, which calls types otherwise.
    pub dynamic: bool,
}

#[derive(Deserialize)]
struct Document {
    state_dict_metadata: BTreeMap<String, Tensor>,
    storage_data: BTreeMap<String, Vec<Storage>>,
}

#[derive(Deserialize)]
struct Tensor {
    global_shape: Vec<u64>,
    #[serde(default)]
    layout: Option<Value>,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Properties {
    dtype: String,
}

#[derive(Deserialize)]
struct Storage {
    file_name: String,
    storage_rank: u32,
    #[serde(default)]
    rank_group: Vec<u32>,
}

/// Reads `metadata.json`; `None` if it is some other JSON of that name.
///
/// # Errors
/// [`Kind::Corrupt`], [`Kind::Strategy`], naming the tensor.
pub fn parse(bytes: &[u8]) -> Result<Option<Metadata>> {
    let corrupt = |message: String| Fault::new(Kind::Corrupt, message);
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| corrupt(format!("is no JSON: {error}")))?;
    if value.get("state_dict_metadata").is_none() {
        return Ok(None);
    }
    let document: Document = serde_json::from_value(value)
        .map_err(|error| corrupt(format!("is no metadata of a checkpoint 2.0: {error}")))?;
    let layouts = cut_layouts(&document)?;
    let stored = stored(&document, &layouts)?;
    let strategy = strategy(&document, &layouts, &stored)?;
    let Stored { files, counted, .. } = stored;
    let types = document.state_dict_metadata.values();
    let types = types.map(|tensor| &tensor.properties.dtype);
    let dynamic = types
        .clone()
        .any(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
    Ok(Some(Metadata {
        strategy,
        files,
        counted,
        dynamic,
    }))
}

/// A layout by its tensor, with the rank that its local rank 0 is.
type Layouts<'a> = BTreeMap<&'a str, (u32, Arc<Layout>)>;

/// The layouts of those tensors that have one.
fn cut_layouts(document: &Document) -> Result<Layouts<'_>> {
    let mut layouts: Layouts<'_> = BTreeMap::new();
    for (name, tensor) in &document.state_dict_metadata {
        if let Some(layout) = &tensor.layout
            && !layout.is_null()
        {
            let read = read_layout(layout, &tensor.global_shape);
            let (first, layout) = read.map_err(|fault| fault.tensor(name.as_str()))?;
            layouts.insert(name, (first, Arc::new(layout)));
        }
    }
    Ok(layouts)
}

/// What lies where.
struct Stored<'a> {
    /// The files of each rank.
    files: BTreeMap<u32, BTreeSet<String>>,
    /// The tensors that each file counts for.
    counted: Counted,
    /// How many ranks are named.
    ranks: u32,
    /// Tensor, number of its cell, and the rank that stores it.
    held: Vec<(&'a str, u64, u32)>,
}

/// What `document` says of where its tensors lie. Of one that lies with ranks, too, that its layout doesn't speak of,
/// what these have doesn't count, as the trainer never reads it.
fn stored<'a>(document: &'a Document, layouts: &Layouts<'_>) -> Result<Stored<'a>> {
    let corrupt = |message: String| Fault::new(Kind::Corrupt, message);
    let mut files: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let mut ranks = 0;
    let mut counted = Counted::new();
    let mut held: Vec<(&str, u64, u32)> = Vec::new();
    for (key, entries) in &document.storage_data {
        let (name, ordinal) = split_key(key).ok_or_else(|| {
            corrupt(format!(
                "storage_data: '{key}' is no pair of name and offset"
            ))
        })?;
        let (shared, layout): (Arc<str>, _) = (name.into(), layouts.get(name));
        for entry in entries {
            check_inside(&entry.file_name)?;
            let of_rank = files.entry(entry.storage_rank).or_default();
            of_rank.insert(entry.file_name.clone());
            let names = counted.entry(entry.file_name.clone()).or_default();
            let last = entry
                .rank_group
                .iter()
                .copied()
                .max()
                .unwrap_or(0)
                .max(entry.storage_rank);
            ranks = ranks.max(last.saturating_add(1));
            let local = |first: u32| entry.storage_rank.checked_sub(first);
            let speaks = |(first, layout): &(u32, Arc<Layout>)| {
                local(*first).is_some_and(|local| local < layout.ranks())
            };
            if layout.is_none_or(speaks) {
                names.insert(Arc::clone(&shared));
                held.push((name, ordinal, entry.storage_rank));
            }
        }
    }
    Ok(Stored {
        files,
        counted,
        ranks,
        held,
    })
}

/// All tensors' layouts, each checked against what the ranks store.
fn strategy(document: &Document, layouts: &Layouts<'_>, stored: &Stored<'_>) -> Result<Strategy> {
    let per_stage = layouts
        .values()
        .next()
        .map_or(stored.ranks.max(1), |(_, layout)| layout.ranks());
    let mut tensors: Vec<(Arc<str>, StageLayout)> = Vec::new();
    for (name, (first, layout)) in layouts {
        let stage = StageLayout {
            stage: first / per_stage.max(1),
            layout: Arc::clone(layout),
            expanded_shape: None,
            padded: false,
        };
        tensors.push(((*name).into(), stage));
    }
    // A tensor without a layout is whole wherever it is.
    let mut whole: BTreeSet<(&str, u32)> = BTreeSet::new();
    for (name, ordinal, rank) in stored.held.iter().copied() {
        match layouts.get(name) {
            Some((first, layout)) => check_place(layout, rank.wrapping_sub(*first), ordinal)
                .map_err(|fault| fault.tensor(name).rank(rank))?,
            None => {
                let shape = document.state_dict_metadata.get(name);
                let dimensions = shape.map_or(0, |tensor| tensor.global_shape.len());
                if whole.insert((name, rank / per_stage.max(1))) {
                    let everywhere = vec![vec![-1]; dimensions];
                    let layout = Layout::new(&[u64::from(per_stage)], &everywhere, None)?;
                    tensors.push((
                        name.into(),
                        StageLayout::new(rank / per_stage.max(1), layout),
                    ));
                }
            }
        }
    }
    let stages = tensors
        .iter()
        .map(|(_, layout)| layout.stage + 1)
        .max()
        .unwrap_or(1);
    Strategy::from_layouts(stages, per_stage, tensors)
}

/// Whether the shard that a rank stores is the one its layout gives it.
fn check_place(layout: &Layout, local: u32, ordinal: u64) -> Result<()> {
    if local < layout.ranks() && ordinal_of(layout, local) == ordinal {
        return Ok(());
    }
    let message = format!("its layout doesn't give the rank slice {ordinal}");
    Err(Fault::new(Kind::Corrupt, message))
}

/// `('name', (3,))` as name and 3.
fn split_key(key: &str) -> Option<(&str, u64)> {
    let inner = key.strip_prefix('(')?.strip_suffix(')')?;
    let (name, offset) = inner.rsplit_once(", (")?;
    let quote = name.chars().next().filter(|c| ['\'', '"'].contains(c))?;
    let name = name.strip_prefix(quote)?.strip_suffix(quote)?;
    let digits = offset.strip_suffix(')')?.trim_end_matches(',').trim();
    Some((name, digits.parse().ok()?))
}
