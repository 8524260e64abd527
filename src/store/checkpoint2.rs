//! Checkpoint 2.0: one directory an iteration, all ranks' files side by side, and a `metadata.json` that
//! tells the layout (docs/formats.md).

use crate::fault::{Fault, Kind, Result};
use crate::layout::Layout;
use crate::strategy::{StageLayout, Strategy};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The file that tells the layout.
pub const METADATA: &str = "metadata.json";
/// The file that tells where the job stands.
pub const COMMON: &str = "common.json";
/// The file beside the iterations that names the last complete one.
pub const TRACKER: &str = "latest_checkpointed_iteration.txt";
/// Longest `metadata.json` that is read, in bytes.
pub const METADATA_BYTES_MAX: u64 = 1 << 30;

/// Names that a checkpoint 1.0 keeps as tensors and 2.0 keeps in `common.json`.
pub const COMMON_NAMES: [&str; 5] = [
    "epoch_num",
    "step_num",
    "global_step",
    "loss_scale",
    "global_batch_size",
];

/// Where a job stands: `common.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Common {
    /// Epoch, or sink.
    pub epoch_num: Option<u64>,
    /// Total steps: the iteration's number.
    pub step_num: Option<u64>,
    /// The optimizer's own count.
    pub global_step: Option<u64>,
    /// Loss scale.
    pub loss_scale: Option<f64>,
    /// Samples of a step.
    pub global_batch_size: Option<u64>,
    /// Samples seen, where the job counts them.
    pub consumed_samples: Option<u64>,
    /// 0 if the checkpoint was found healthy, 1 if not.
    pub ckpt_status: Option<u64>,
}

/// A count as a checkpoint 1.0 has it: a tensor of one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// One of [`COMMON_NAMES`].
    pub name: &'static str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Shape,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Common {
    /// What a checkpoint 1.0 has of it, in each rank's file; what isn't known is left out.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a count beyond 32 bits.
    pub fn counts(&self) -> Result<Vec<Count>> {
        let scalar = || Shape(Vec::new());
        let whole = |name: &'static str, shape: Shape, value: Option<u64>| {
            value.map(|value| match i32::try_from(value) {
                Ok(value) => Ok(Count {
                    name,
                    dtype: Dtype::I32,
                    shape,
                    bytes: value.to_le_bytes().to_vec(),
                }),
                Err(_) => {
                    let message = format!("{COMMON}: {value} is too large a count");
                    Err(Fault::new(Kind::Unsupported, message).tensor(name))
                }
            })
        };
        let counts = [
            whole("epoch_num", scalar(), self.epoch_num),
            whole("step_num", scalar(), self.step_num),
            whole("global_step", Shape(vec![1]), self.global_step),
            whole("global_batch_size", scalar(), self.global_batch_size),
        ];
        let mut counts: Vec<Count> = counts.into_iter().flatten().collect::<Result<_>>()?;
        if let Some(scale) = self.loss_scale {
            // Nearest, as the trainer keeps it; a text carries any float.
            let scale: f32 = scale.to_string().parse().unwrap_or(f32::NAN);
            counts.push(Count {
                name: "loss_scale",
                dtype: Dtype::F32,
                shape: scalar(),
                bytes: scale.to_le_bytes().to_vec(),
            });
        }
        Ok(counts)
    }

    /// Its JSON, as the trainer indents it.
    ///
    /// # Errors
    /// [`Kind::Internal`].
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
        let written = self.serialize(&mut writer);
        written.map_err(|error| Fault::new(Kind::Internal, format!("{COMMON}: {error}")))?;
        Ok(text)
    }
}

/// Directory of iteration `number`.
#[must_use]
pub fn directory(number: u64) -> String {
    format!("iteration_{number:08}")
}

/// The iteration that a directory's name or the tracker's text stands for.
#[must_use]
pub fn iteration(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("iteration_").unwrap_or(text).trim();
    let ok = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    ok.then(|| digits.parse().ok())?
}

/// What `metadata.json` tells.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// The layouts.
    pub strategy: Strategy,
    /// The files of each rank.
    pub files: BTreeMap<u32, BTreeSet<String>>,
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
    let mut layouts: BTreeMap<&str, (u32, Arc<Layout>)> = BTreeMap::new();
    for (name, tensor) in &document.state_dict_metadata {
        if let Some(layout) = &tensor.layout
            && !layout.is_null()
        {
            let read = read_layout(layout, &tensor.global_shape);
            let (first, layout) = read.map_err(|fault| fault.tensor(name.as_str()))?;
            layouts.insert(name, (first, Arc::new(layout)));
        }
    }
    let mut files: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let mut ranks = 0;
    let mut held: Vec<(&str, u64, u32)> = Vec::new();
    for (key, entries) in &document.storage_data {
        let (name, ordinal) = split_key(key).ok_or_else(|| {
            corrupt(format!(
                "storage_data: '{key}' is no pair of name and offset"
            ))
        })?;
        for entry in entries {
            crate::store::full_dir::check_inside(&entry.file_name)?;
            files
                .entry(entry.storage_rank)
                .or_default()
                .insert(entry.file_name.clone());
            let last = entry
                .rank_group
                .iter()
                .copied()
                .max()
                .unwrap_or(0)
                .max(entry.storage_rank);
            ranks = ranks.max(last.saturating_add(1));
            held.push((name, ordinal, entry.storage_rank));
        }
    }
    let per_stage = layouts
        .values()
        .next()
        .map_or(ranks.max(1), |(_, layout)| layout.ranks());
    let mut tensors: Vec<(Arc<str>, StageLayout)> = Vec::new();
    for (name, (first, layout)) in &layouts {
        let stage = StageLayout {
            stage: first / per_stage.max(1),
            layout: Arc::clone(layout),
            expanded_shape: None,
        };
        tensors.push(((*name).into(), stage));
    }
    // A tensor without a layout is whole wherever it is.
    let mut whole: BTreeSet<(&str, u32)> = BTreeSet::new();
    for (name, ordinal, rank) in held {
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
    let strategy = Strategy::from_layouts(stages, per_stage, tensors)?;
    Ok(Some(Metadata { strategy, files }))
}

/// Whether the shard that a rank stores is the one its layout gives it.
fn check_place(layout: &Layout, local: u32, ordinal: u64) -> Result<()> {
    if local < layout.ranks() && ordinal_of(layout, local) == ordinal {
        return Ok(());
    }
    let message = format!("its layout doesn't give the rank slice {ordinal}");
    Err(Fault::new(Kind::Corrupt, message))
}

/// Number of the cell that local rank `rank` holds, cells counted row by row.
#[must_use]
pub fn ordinal_of(layout: &Layout, rank: u32) -> u64 {
    let cells = layout.cell(rank).into_iter().zip(layout.parts());
    cells.fold(0, |ordinal, (cell, parts)| ordinal * parts + cell)
}

/// Reads a layout by position: device matrix, tensor map, (interleaved), (names), rank list.
fn read_layout(value: &Value, shape: &[u64]) -> Result<(u32, Layout)> {
    let bad = |what: &str| {
        Fault::new(
            Kind::Strategy,
            format!("{what} of its layout can't be read"),
        )
    };
    let fields: Vec<&Value> = match value {
        Value::Object(map) => map.values().collect(),
        Value::Array(list) => list.iter().collect(),
        _ => return Err(bad("the form")),
    };
    let numbers = |value: &Value| -> Option<Vec<i64>> {
        value.as_array()?.iter().map(Value::as_i64).collect()
    };
    let mesh = fields.first().and_then(|mesh| numbers(mesh));
    let mesh: Option<Vec<u64>> =
        mesh.and_then(|mesh| mesh.into_iter().map(|n| u64::try_from(n).ok()).collect());
    let mesh = mesh.ok_or_else(|| bad("the device matrix"))?;
    let entry = |value: &Value| match value {
        Value::Array(_) => numbers(value),
        _ => Some(vec![value.as_i64()?]),
    };
    let map = fields.get(1).and_then(|map| map.as_array());
    let map: Option<Vec<Vec<i64>>> = map.and_then(|map| map.iter().map(entry).collect());
    let mut map = map.ok_or_else(|| bad("the tensor map"))?;
    if map.is_empty() && !shape.is_empty() {
        map = vec![vec![-1]; shape.len()];
    }
    if fields.get(2).and_then(|value| value.as_bool()) == Some(true) {
        return Err(Fault::new(Kind::Unsupported, "its layout is interleaved"));
    }
    let ranks = fields
        .get(4)
        .and_then(|ranks| numbers(ranks))
        .unwrap_or_default();
    let first = ranks.first().copied().unwrap_or(0);
    let contiguous = (first..)
        .zip(&ranks)
        .all(|(expected, rank)| expected == *rank);
    let first = u32::try_from(first).ok().filter(|_| contiguous);
    let first = first.ok_or_else(|| bad("the rank list (not one run of ranks)"))?;
    Ok((first, Layout::new(&mesh, &map, None)?))
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

/// One tensor for [`metadata`].
#[derive(Clone, Debug)]
pub struct Described {
    /// Its name.
    pub name: Arc<str>,
    /// Its element type, as MindSpore spells it.
    pub dtype: &'static str,
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
            Some(layout) => write_layout(layout, tensor.first_rank)
                .map_err(|fault| fault.tensor(&*tensor.name))?,
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
        let ordinal = |rank: u32| match &tensor.layout {
            None => 0,
            Some(layout) => ordinal_of(layout, rank - tensor.first_rank),
        };
        let mut cells: BTreeMap<u64, Vec<&(u32, String)>> = BTreeMap::new();
        for stored in &tensor.stored {
            cells.entry(ordinal(stored.0)).or_default().push(stored);
        }
        let chunks: Vec<Value> = cells
            .keys()
            .map(|ordinal| json!({ "global_offset": [ordinal], "local_shape": local_shape }))
            .collect();
        let known = state.contains_key(&*tensor.name);
        if !known {
            let entry = json!({
                "properties": { "dtype": tensor.dtype, "replica_id": replica,
                    "allow_shape_mismatch": false, "allow_to_save": true },
                "global_shape": tensor.shape, "axis_fragmentations": parts,
                "layout": shown, "chunk": chunks,
            });
            state.insert(tensor.name.to_string(), entry);
        }
        for (ordinal, stored) in cells {
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
            let entries = stored.iter().map(|(rank, file)| {
                json!({ "file_name": file, "storage_rank": rank, "rank_group": group })
            });
            let quote = if tensor.name.contains('\'') {
                '"'
            } else {
                '\''
            };
            let key = format!("({quote}{}{quote}, ({ordinal},))", tensor.name);
            storage.entry(key).or_default().extend(entries);
        }
    }
    let document = json!({ "state_dict_metadata": state, "storage_data": storage });
    serde_json::to_vec(&document)
        .map_err(|error| Fault::new(Kind::Internal, format!("{METADATA}: {error}")))
}

fn write_layout(layout: &Layout, first_rank: u32) -> Result<Value> {
    let (mesh, map) = fold(layout)?;
    let map: Vec<Value> = map
        .iter()
        .map(|axes| match axes[..] {
            [] => json!(-1),
            [axis] => json!(axis),
            _ => json!(axes),
        })
        .collect();
    let names: Vec<String> = ('a'..='z').take(mesh.len()).map(String::from).collect();
    let ranks: Vec<u32> = (first_rank..first_rank + layout.ranks()).collect();
    Ok(json!({
        "device_matrix": mesh, "tensor_map": map, "interleaved_parallel": false,
        "alias_name": names, "rank_list": ranks,
    }))
}

/// A mesh and a tensor map, axes numbered from the right.
type Plain = (Vec<u64>, Vec<Vec<usize>>);

/// The same layout without an optimizer shard: its pieces become a further cut of dimension 0, by the
/// innermost mesh axes that cut nothing. An axis of which only a part is needed becomes two.
///
/// # Errors
/// [`Kind::Unsupported`] if an axis can't be cut so.
pub fn fold(layout: &Layout) -> Result<Plain> {
    let mut mesh: Vec<u64> = layout.mesh().to_vec();
    let mut map: Vec<Vec<usize>> = layout.map().to_vec();
    if layout.optimizer_pieces() > 1 {
        let mut left = layout.replicas();
        let mut added = Vec::new();
        let mut axis = 0;
        while axis < mesh.len() {
            if map.iter().flatten().any(|used| *used == axis) || mesh[axis] == 1 {
            } else if left.is_multiple_of(mesh[axis]) {
                left /= mesh[axis];
            } else if left == 1 {
                added.push(axis);
            } else if mesh[axis].is_multiple_of(left) {
                // Outer part: replicas. Inner part: pieces.
                let inner = mesh[axis] / left;
                mesh[axis] = left;
                mesh.insert(axis + 1, inner);
                for used in map.iter_mut().flatten().chain(&mut added) {
                    *used += usize::from(*used > axis);
                }
                left = 1;
            } else {
                let message = "the optimizer shard cuts a mesh axis unevenly, which a checkpoint 2.0 can't say";
                return Err(Fault::new(Kind::Unsupported, message));
            }
            axis += 1;
        }
        if let Some(first) = map.first_mut() {
            first.extend(added);
        }
    }
    let last = mesh.len() - 1;
    let numbers = map
        .iter()
        .map(|axes| axes.iter().map(|axis| last - axis).collect());
    Ok((mesh, numbers.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::OptimizerShard;

    fn layout(mesh: &[u64], map: &[i64], optimizer: Option<(i64, i64)>) -> Layout {
        let map: Vec<Vec<i64>> = map.iter().map(|axis| vec![*axis]).collect();
        let optimizer = optimizer.map(|(step, size)| OptimizerShard { step, size });
        Layout::new(mesh, &map, optimizer).unwrap()
    }

    #[test]
    fn folds_optimizer_shards_as_mindspore_does() {
        let folded =
            |mesh: &[u64], map: &[i64], shard| fold(&layout(mesh, map, Some(shard))).unwrap();
        assert_eq!(
            folded(&[4, 2], &[0, -1], (2, -1)),
            (vec![4, 2], vec![vec![0, 1], vec![]])
        );
        assert_eq!(
            folded(&[4, 2], &[0, -1], (2, 4)),
            (vec![4, 2], vec![vec![0, 1], vec![]])
        );
        assert_eq!(
            folded(&[4, 2], &[0, -1], (2, 2)),
            (vec![2, 2, 2], vec![vec![0, 1], vec![]])
        );
        assert_eq!(
            folded(&[2, 2, 2], &[-1, 0], (2, 2)),
            (vec![2, 2, 2], vec![vec![1], vec![0]])
        );
        assert_eq!(
            folded(&[8], &[-1, -1], (1, 2)),
            (vec![4, 2], vec![vec![0], vec![]])
        );
    }

    #[test]
    fn a_folded_layout_gives_every_rank_the_same_cell() {
        for original in [
            layout(&[4, 2], &[0, -1], Some((2, 2))),
            layout(&[4, 2], &[-1, 0], Some((2, -1))),
            layout(&[2, 2, 2], &[-1, 1], Some((1, 2))),
            layout(&[8], &[-1], Some((1, 4))),
            layout(&[2, 4], &[0], None),
        ] {
            let (mesh, map) = fold(&original).unwrap();
            let map: Vec<Vec<i64>> = map
                .iter()
                .map(|axes| {
                    axes.iter()
                        .map(|axis| i64::try_from(*axis).unwrap())
                        .collect()
                })
                .collect();
            let plain = Layout::new(&mesh, &map, None).unwrap();
            for rank in 0..original.ranks() {
                assert_eq!(plain.cell(rank), original.cell(rank), "{original:?} {rank}");
            }
        }
    }

    #[test]
    fn reads_back_what_it_writes() {
        let cut = Arc::new(layout(&[2, 2], &[1, 0], None));
        let tensors = [
            Described {
                name: "a'w".into(),
                dtype: "Float32",
                shape: vec![4, 6],
                layout: Some(Arc::clone(&cut)),
                first_rank: 0,
                stored: (0..4)
                    .map(|rank| (rank, format!("f{rank}.safetensors")))
                    .collect(),
            },
            Described {
                name: "lr".into(),
                dtype: "Float32",
                shape: vec![],
                layout: None,
                first_rank: 0,
                stored: vec![(2, "f2.safetensors".into())],
            },
        ];
        let bytes = metadata(&tensors).unwrap();
        let read = parse(&bytes).unwrap().unwrap();
        assert_eq!((read.strategy.ranks(), read.files.len()), (4, 4));
        assert_eq!(read.strategy.layouts("a'w")[0].layout, cut);
        assert_eq!(
            read.strategy.layouts("lr")[0].layout.parts(),
            Vec::<u64>::new()
        );
        assert!(parse(br#"{"other": 1}"#).unwrap().is_none());
        let wrong = String::from_utf8(bytes).unwrap().replace("(3,)", "(1,)");
        assert!(parse(wrong.as_bytes()).is_err());
    }

    #[test]
    fn tells_iterations_by_their_names() {
        assert_eq!(
            (iteration("iteration_00000012"), iteration("12\n")),
            (Some(12), Some(12))
        );
        assert_eq!((iteration("iteration_"), iteration("-1")), (None, None));
        assert_eq!(directory(12), "iteration_00000012");
    }
}
