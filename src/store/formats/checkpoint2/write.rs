//! The text of `metadata.json`.

use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::store::formats::checkpoint2::layout::{ordinal_of, write_layout};
use crate::store::formats::checkpoint2::names::METADATA;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One tensor for [`metadata`].
#[derive(Clone, Debug)]
pub struct Described {
    /// Its name.
    pub name: Arc<str>,
    /// Its element type, as MindSpore spells it.
    pub dtype: String,
    /// Its full shape.
    pub shape: Vec<u64>,
    /// Its layout; `None` for one that every rank has for itself.
    pub layout: Option<Arc<Layout>>,
    /// The rank that local rank 0 of the layout is.
    pub first_rank: u32,
    /// Ranks that store it, each with its file.
    pub stored: Vec<(u32, String)>,
}

/// The text of `metadata.json`.
///
/// # Errors
/// [`Kind::Unsupported`] for an optimizer shard that no plain mesh can express.
pub fn metadata(tensors: &[Described]) -> Result<Vec<u8>> {
    let mut state = serde_json::Map::new();
    let mut storage: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for tensor in tensors {
        let cells = cells(tensor);
        let ordinals: Vec<u64> = cells.keys().copied().collect();
        let described = described(tensor, &ordinals)?;
        state.entry(tensor.name.to_string()).or_insert(described);
        for (ordinal, stored) in cells {
            let (key, entries) = placed(tensor, ordinal, &stored);
            storage.entry(key).or_default().extend(entries);
        }
    }
    let document = json!({ "state_dict_metadata": state, "storage_data": storage });
    serde_json::to_vec(&document)
        .map_err(|error| Fault::new(Kind::Internal, format!("{METADATA}: {error}")))
}

/// The ranks that store each cell of a tensor, with their files, by the cell's number.
fn cells(tensor: &Described) -> BTreeMap<u64, Vec<&(u32, String)>> {
    let ordinal = |rank: u32| match &tensor.layout {
        None => 0,
        Some(layout) => ordinal_of(layout, rank - tensor.first_rank),
    };
    let mut cells: BTreeMap<u64, Vec<&(u32, String)>> = BTreeMap::new();
    for stored in &tensor.stored {
        cells.entry(ordinal(stored.0)).or_default().push(stored);
    }
    cells
}

/// A tensor's entry in `state_dict_metadata`; `ordinals` are the numbers of the cells stored.
fn described(tensor: &Described, ordinals: &[u64]) -> Result<Value> {
    let whole = Arc::new(Layout::whole(tensor.shape.len()));
    let layout = tensor.layout.as_ref().unwrap_or(&whole);
    let parts = layout.parts();
    let local_shape: Vec<u64> = tensor
        .shape
        .iter()
        .zip(&parts)
        .map(|(size, parts)| size / parts)
        .collect();
    let shown = match &tensor.layout {
        None => Value::Null,
        Some(layout) => {
            write_layout(layout, tensor.first_rank).map_err(|fault| fault.tensor(&*tensor.name))?
        }
    };
    let replica: Value = match &tensor.layout {
        None => json!(0),
        Some(layout) => (0..layout.ranks())
            .map(|rank| {
                layout
                    .holders(&layout.cell(rank))
                    .position(|holder| holder == rank)
            })
            .collect(),
    };
    let chunks: Vec<Value> = ordinals
        .iter()
        .map(|ordinal| json!({ "global_offset": [ordinal], "local_shape": local_shape }))
        .collect();
    Ok(json!({
        "properties": { "dtype": tensor.dtype, "replica_id": replica,
            "allow_shape_mismatch": false, "allow_to_save": true },
        "global_shape": tensor.shape, "axis_fragmentations": parts,
        "layout": shown, "chunk": chunks,
    }))
}

/// A cell's key in `storage_data`, and an entry for each rank that stores it.
fn placed(tensor: &Described, ordinal: u64, stored: &[&(u32, String)]) -> (String, Vec<Value>) {
    let group: Vec<u32> = match &tensor.layout {
        None => stored.iter().map(|(rank, _)| *rank).collect(),
        Some(layout) => {
            let local = stored
                .first()
                .map_or(0, |(rank, _)| rank - tensor.first_rank);
            let holders = layout.holders(&layout.cell(local));
            holders.map(|rank| rank + tensor.first_rank).collect()
        }
    };
    let entries = stored.iter().map(
        |(rank, file)| json!({ "file_name": file, "storage_rank": rank, "rank_group": group }),
    );
    let quote = if tensor.name.contains('\'') {
        '"'
    } else {
        '\''
    };
    let key = format!("({quote}{}{quote}, ({ordinal},))", tensor.name);
    (key, entries.collect())
}
