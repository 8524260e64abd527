//! What a layout means, worked out element by element from the format's description alone.
//!
//! Nothing here is shared with the program: strategies are read with [`super::wire`], and every shard is
//! cut and pasted one element at a time.

use super::tensors::{Tensor, Tensors};
use super::wire;
use std::collections::BTreeMap;
use std::path::Path;

/// How one tensor lies on the devices of a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Layout {
    /// Sizes of the mesh axes; the last varies fastest with the rank.
    pub(crate) mesh: Vec<usize>,
    /// For each tensor dimension the axes that cut it, outermost first, counted from the right.
    pub(crate) map: Vec<Vec<i64>>,
    pub(crate) optimizer_step: i64,
    pub(crate) optimizer_size: i64,
}

/// The layouts of a checkpoint: stage, parameter, layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strategy {
    pub(crate) items: Vec<(usize, String, Layout)>,
}

/// Start and length in each dimension.
pub(crate) type Region = Vec<(usize, usize)>;

impl Layout {
    fn coordinates(&self, rank: usize) -> Vec<usize> {
        let mut rest = rank;
        let mut coordinates = vec![0; self.mesh.len()];
        for (coordinate, size) in coordinates.iter_mut().zip(&self.mesh).rev() {
            *coordinate = rest % size;
            rest /= size;
        }
        coordinates
    }

    /// Where in the mesh the axis `number` stands; `None` for -1.
    fn axis(&self, number: i64) -> Option<usize> {
        let number = usize::try_from(number).ok()?;
        Some(self.mesh.len() - 1 - number)
    }

    /// How many pieces each dimension is cut into by the model-parallel axes.
    fn model_pieces(&self) -> Vec<usize> {
        let pieces = |axes: &Vec<i64>| {
            axes.iter()
                .filter_map(|a| self.axis(*a))
                .map(|a| self.mesh[a])
                .product()
        };
        self.map.iter().map(pieces).collect()
    }

    /// How many further pieces dimension 0 is cut into, and the one `rank` has.
    fn optimizer_piece(&self, rank: usize) -> (usize, usize) {
        if self.optimizer_step == 0 || self.optimizer_size == 0 {
            return (1, 0);
        }
        let used: Vec<usize> = self
            .map
            .iter()
            .flatten()
            .filter_map(|a| self.axis(*a))
            .collect();
        let coordinates = self.coordinates(rank);
        let (mut replicas, mut replica) = (1, 0);
        for (axis, size) in self.mesh.iter().enumerate() {
            if !used.contains(&axis) {
                replica = replica * size + coordinates[axis];
                replicas *= size;
            }
        }
        let size = usize::try_from(self.optimizer_size).unwrap_or(replicas);
        (size, replica % size)
    }

    /// The whole tensor's shape, given a shard's.
    pub(crate) fn whole_shape(&self, shard: &[usize]) -> Vec<usize> {
        let mut shape: Vec<usize> = shard
            .iter()
            .zip(self.model_pieces())
            .map(|(size, pieces)| size * pieces)
            .collect();
        if let Some(first) = shape.first_mut() {
            *first *= self.optimizer_piece(0).0;
        }
        shape
    }

    /// What `rank` of the stage holds of a tensor of this whole shape.
    pub(crate) fn region(&self, shape: &[usize], rank: usize) -> Result<Region, String> {
        if shape.len() != self.map.len() {
            return Err(format!(
                "{} dimensions, {} in the map",
                shape.len(),
                self.map.len()
            ));
        }
        let coordinates = self.coordinates(rank);
        let mut region = Vec::new();
        for ((size, axes), pieces) in shape.iter().zip(&self.map).zip(self.model_pieces()) {
            let mut piece = 0;
            for axis in axes.iter().filter_map(|a| self.axis(*a)) {
                piece = piece * self.mesh[axis] + coordinates[axis];
            }
            if size % pieces != 0 {
                return Err(format!("{size} can't be cut into {pieces}"));
            }
            region.push((piece * (size / pieces), size / pieces));
        }
        let (pieces, piece) = self.optimizer_piece(rank);
        if let Some((start, length)) = region.first_mut() {
            if *length % pieces != 0 {
                return Err(format!("{length} can't be cut into {pieces}"));
            }
            *length /= pieces;
            *start += piece * *length;
        }
        Ok(region)
    }
}

impl Strategy {
    /// A strategy of one stage.
    pub(crate) fn of(items: &[(&str, Layout)]) -> Strategy {
        let items = items.iter();
        Strategy {
            items: items
                .map(|(n, l)| (0, (*n).to_owned(), l.clone()))
                .collect(),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Strategy, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let items = if path.extension().is_some_and(|e| e == "json") {
            from_json(&bytes)?
        } else {
            from_protobuf(&bytes)?
        };
        let staged = |(name, layout): (String, Layout)| {
            let prefix = name.split_once('-');
            let prefix = prefix.and_then(|(s, n)| Some((s.parse().ok()?, n.to_owned())));
            let (stage, name) = prefix.unwrap_or((0, name));
            (stage, name, layout)
        };
        Ok(Strategy {
            items: items.into_iter().map(staged).collect(),
        })
    }

    /// Devices of one stage.
    pub(crate) fn stage_ranks(&self) -> usize {
        self.items
            .first()
            .map_or(1, |(_, _, layout)| layout.mesh.iter().product())
    }

    /// Ranks of all stages.
    pub(crate) fn ranks(&self) -> usize {
        let stages = self.items.iter().map(|(stage, ..)| stage + 1).max();
        self.stage_ranks() * stages.unwrap_or(1)
    }

    /// Whether some stage has a layout for `name`.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.items.iter().any(|(_, known, _)| known == name)
    }

    /// The shards of `rank`: every parameter of its stage that `whole` has.
    pub(crate) fn cut(&self, whole: &Tensors, rank: usize) -> Result<Tensors, String> {
        let (stage, local) = (rank / self.stage_ranks(), rank % self.stage_ranks());
        let mut shards = Tensors::new();
        for (_, name, layout) in self.items.iter().filter(|item| item.0 == stage) {
            if let Some(tensor) = whole.get(name) {
                let region = layout.region(&tensor.shape, local);
                let region = region.map_err(|error| format!("{name}: {error}"))?;
                shards.insert(name.clone(), crop(tensor, &region));
            }
        }
        Ok(shards)
    }

    /// The whole tensors, from the files of all ranks; an element that no file has is an error.
    pub(crate) fn merge(&self, ranks: &BTreeMap<usize, Tensors>) -> Result<Tensors, String> {
        let mut whole: BTreeMap<String, (Tensor, Vec<bool>)> = BTreeMap::new();
        for (stage, name, layout) in &self.items {
            for local in 0..self.stage_ranks() {
                let rank = stage * self.stage_ranks() + local;
                let Some(shard) = ranks.get(&rank).and_then(|tensors| tensors.get(name)) else {
                    continue;
                };
                let shape = layout.whole_shape(&shard.shape);
                let region = layout.region(&shape, local)?;
                let (tensor, seen) = whole.entry(name.clone()).or_insert_with(|| {
                    let elements = shape.iter().product();
                    let tensor = Tensor {
                        dtype: shard.dtype.clone(),
                        shape: shape.clone(),
                        data: vec![0; elements * shard.element_bytes()],
                    };
                    (tensor, vec![false; elements])
                });
                if tensor.shape != shape {
                    return Err(format!("{name}: {:?} and {shape:?}", tensor.shape));
                }
                paste(tensor, seen, &region, shard);
            }
        }
        let complete = |(name, (tensor, seen)): (String, (Tensor, Vec<bool>))| {
            if seen.iter().all(|seen| *seen) {
                Ok((name, tensor))
            } else {
                Err(format!("{name}: elements are missing"))
            }
        };
        whole.into_iter().map(complete).collect()
    }
}

/// The part of `tensor` in `region`.
pub(crate) fn crop(tensor: &Tensor, region: &Region) -> Tensor {
    let all = region.iter().zip(&tensor.shape);
    if all.clone().all(|((_, length), size)| length == size) {
        return tensor.clone(); // also the way for elements smaller than a byte
    }
    let bytes = tensor.element_bytes();
    let mut data = Vec::new();
    for_each_row(&tensor.shape, region, |at, _, row| {
        data.extend_from_slice(&tensor.data[at * bytes..(at + row) * bytes]);
    });
    Tensor {
        dtype: tensor.dtype.clone(),
        shape: region.iter().map(|(_, length)| *length).collect(),
        data,
    }
}

fn paste(tensor: &mut Tensor, seen: &mut [bool], region: &Region, shard: &Tensor) {
    let bytes = tensor.element_bytes();
    let shape = tensor.shape.clone();
    for_each_row(&shape, region, |at, number, row| {
        let elements = &shard.data[number * bytes..(number + row) * bytes];
        tensor.data[at * bytes..(at + row) * bytes].copy_from_slice(elements);
        seen[at..at + row].fill(true);
    });
}

/// Calls `visit` with the place in the whole tensor and in the region of every row of `region`, and its length: the
/// elements that lie one after another along the last dimension.
fn for_each_row(shape: &[usize], region: &Region, mut visit: impl FnMut(usize, usize, usize)) {
    let count: usize = region.iter().map(|(_, length)| *length).product();
    let row = region.last().map_or(1, |(_, length)| *length);
    for number in (0..count).step_by(row.max(1)) {
        let (mut rest, mut at, mut stride) = (number, 0, 1);
        for ((start, length), size) in region.iter().zip(shape).rev() {
            at += (start + rest % length) * stride;
            rest /= length;
            stride *= size;
        }
        visit(at, number, row);
    }
}

fn from_protobuf(bytes: &[u8]) -> Result<Vec<(String, Layout)>, String> {
    let mut items = Vec::new();
    for (number, item) in wire::fields(bytes)? {
        if number != 3 {
            continue;
        }
        let (mut name, mut layout) = (String::new(), Layout::default());
        for (number, value) in wire::fields(item.bytes()?)? {
            match number {
                1 => name = value.text()?,
                _ => layout = layout_from_protobuf(value.bytes()?)?,
            }
        }
        items.push((name, layout));
    }
    Ok(items)
}

fn layout_from_protobuf(bytes: &[u8]) -> Result<Layout, String> {
    let mut layout = Layout::default();
    let mut maps: Vec<Vec<i64>> = Vec::new();
    for (number, value) in wire::fields(bytes)? {
        match number {
            1 => layout.mesh = sizes(&dims(value.bytes()?)?)?,
            2 => maps.push(dims(value.bytes()?)?),
            6 => layout.optimizer_step = value.numbers()?[0],
            7 => layout.optimizer_size = signed(value.numbers()?[0]),
            _ => {}
        }
    }
    layout.map = match maps.as_slice() {
        [only] => only.iter().map(|axis| vec![*axis]).collect(),
        _ => maps.into_iter().filter(|axes| !axes.is_empty()).collect(),
    };
    Ok(layout)
}

/// An int32 field may be written with five bytes or ten.
fn signed(number: i64) -> i64 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    i64::from(i32::from_le_bytes([a, b, c, d]))
}

fn dims(message: &[u8]) -> Result<Vec<i64>, String> {
    let mut dims = Vec::new();
    for (_, value) in wire::fields(message)? {
        dims.extend(value.numbers()?);
    }
    Ok(dims)
}

fn sizes(numbers: &[i64]) -> Result<Vec<usize>, String> {
    let size = |number: &i64| usize::try_from(*number).map_err(|error| error.to_string());
    numbers.iter().map(size).collect()
}

fn from_json(bytes: &[u8]) -> Result<Vec<(String, Layout)>, String> {
    let file: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let items = file["parallel_layout_item"].as_object();
    let numbers = |value: &serde_json::Value| -> Vec<i64> {
        let numbers = value.as_array().into_iter().flatten();
        numbers.filter_map(serde_json::Value::as_i64).collect()
    };
    let item = |(name, item): (&String, &serde_json::Value)| {
        let layout = Layout {
            mesh: sizes(&numbers(&item["dev_matrix"]))?,
            map: numbers(&item["tensor_map"])
                .into_iter()
                .map(|axis| vec![axis])
                .collect(),
            optimizer_step: item["opt_weight_shard_step"].as_i64().unwrap_or(0),
            optimizer_size: item["opt_weight_shard_size"].as_i64().unwrap_or(0),
        };
        Ok((name.clone(), layout))
    };
    items.into_iter().flatten().map(item).collect()
}

/// Encodes a strategy file, for tests that need layouts no fixture has.
pub(crate) fn to_protobuf(strategy: &Strategy) -> Vec<u8> {
    let mut file = Vec::new();
    field_number(&mut file, 1, 1);
    let (mut operator, mut stage) = (Vec::new(), Vec::new());
    field_number(&mut stage, 1, 0);
    field_bytes(&mut operator, 1, b"MatMul-op0");
    field_bytes(&mut operator, 2, &stage);
    field_bytes(&mut file, 2, &operator);
    for (_, name, layout) in &strategy.items {
        let mut layouts = Vec::new();
        let mesh: Vec<i64> = layout
            .mesh
            .iter()
            .map(|size| i64::try_from(*size).expect("a small mesh"))
            .collect();
        field_bytes(&mut layouts, 1, &dims_message(&mesh));
        if layout.map.iter().all(|axes| axes.len() == 1) {
            field_bytes(&mut layouts, 2, &dims_message(&layout.map.concat()));
        } else {
            for axes in &layout.map {
                field_bytes(&mut layouts, 2, &dims_message(axes));
            }
        }
        field_bytes(&mut layouts, 3, &[]);
        field_bytes(&mut layouts, 4, &[]);
        field_number(&mut layouts, 5, 0);
        field_number(&mut layouts, 6, layout.optimizer_step);
        field_number(&mut layouts, 7, layout.optimizer_size);
        let mut item = Vec::new();
        field_bytes(&mut item, 1, name.as_bytes());
        field_bytes(&mut item, 2, &layouts);
        field_bytes(&mut file, 3, &item);
    }
    file
}

fn dims_message(numbers: &[i64]) -> Vec<u8> {
    let mut message = Vec::new();
    for number in numbers {
        field_number(&mut message, 1, *number);
    }
    message
}

fn field_number(message: &mut Vec<u8>, field: u8, number: i64) {
    message.push(field << 3);
    push_varint(message, u64::from_le_bytes(number.to_le_bytes()));
}

fn field_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    push_varint(message, u64::try_from(bytes.len()).expect("a length"));
    message.extend_from_slice(bytes);
}

fn push_varint(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    message.push(number.to_le_bytes()[0]);
}
