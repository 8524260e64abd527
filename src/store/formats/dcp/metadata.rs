//! From the pickle in `.metadata` to tensors, their chunks, and where these lie.

use super::flat::{Lies, pieces, shapes};
use super::states::{FILES, METADATA, due, fields};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle::{self, Node, Pickle, Value};
use crate::store::formats::torch::dtype_of;
use crate::store::formats::values::PathPart;
use crate::store::full_dir::check_inside;
use crate::tensor::dtype::Dtype;
use crate::tensor::region::{Region, check_cover};
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, HashMap};

/// What Megatron-Core 0.15 calls its own kind of [`METADATA`], and in which module.
const MEGATRON: (&str, &str) = (
    "megatron.core.dist_checkpointing.strategies.torch",
    "MCoreMetadata",
);

/// A tensor, and the chunks of it that have elements (one, if it has none).
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    pub(super) chunks: Vec<(Region, Lies)>,
}

impl Tensor {
    /// The same, if it is cut twice of shape `whole`, with all of its elements.
    ///
    /// # Errors
    /// [`Kind::MissingShard`], [`Kind::Corrupt`], [`Kind::Shape`].
    fn of(mut self, whole: Option<&Shape>) -> Result<Tensor> {
        if let Some(whole) = whole {
            whole.bytes(self.dtype)?;
            self.chunks = pieces(whole, &self.shape, &self.chunks)?;
            self.shape = whole.clone();
        }
        let regions: Vec<&Region> = self.chunks.iter().map(|(region, _)| region).collect();
        check_cover(&self.shape, &regions)?;
        Ok(self)
    }
}

/// What `.metadata` tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// What is no tensor.
    pub(super) values: BTreeMap<String, Lies>,
    /// The paths that flat names were made of, but for names that are their own path.
    pub(super) paths: BTreeMap<String, Vec<PathPart>>,
}

/// What something that is stored is known by: its name, and its offsets if it is a tensor's.
type Key = (String, Option<Vec<u64>>);

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Corrupt, message)
}

/// Reads `.metadata`.
///
/// # Errors
/// [`Kind::Corrupt`] and [`Kind::Unsupported`], naming the tensor where it is one's; [`Kind::MissingShard`]
/// for a tensor of which some elements are in no chunk.
pub(super) fn parse(bytes: &[u8]) -> Result<Metadata> {
    let pickle = pickle::read(bytes)?;
    let known = [
        "state_dict_metadata",
        "planner_data",
        "storage_data",
        "storage_meta",
        "version",
        "all_local_plans",
        "mcore_data",
    ];
    let class = match pickle.made(pickle.root()) {
        Some((module, name, _)) if (module, name) == MEGATRON => MEGATRON,
        _ => (METADATA, "Metadata"),
    };
    let [tensors, planner, storage, .., megatron] = fields(&pickle, pickle.root(), class, known)?;
    let whole = shapes(&pickle, megatron)?;
    let mut stored = stored(&pickle, due(storage, "storage_data")?)?;
    check_apart(&stored)?;
    let tensors = due(
        tensors.and_then(|tensors| pickle.items(tensors)),
        "state_dict_metadata",
    )?;
    let mut metadata = Metadata {
        paths: paths(&pickle, planner),
        ..Metadata::default()
    };
    for pair in tensors.chunks_exact(2) {
        let name = due(pickle.text(pair[0]), "name")?;
        let twice = || corrupt("is there twice").tensor(name);
        let at = |fault: Fault| fault.tensor(name);
        let class = pickle.made(pair[1]).map(|(_, class, _)| class);
        if class == Some("BytesStorageMetadata") {
            fields(&pickle, pair[1], (METADATA, "BytesStorageMetadata"), []).map_err(at)?;
            let missing = || Fault::new(Kind::MissingShard, "is in no file").tensor(name);
            let lies = stored
                .remove(&(name.to_owned(), None))
                .ok_or_else(missing)?;
            if metadata.values.insert(name.to_owned(), lies).is_some() {
                return Err(twice());
            }
            continue;
        }
        let tensor = tensor(&pickle, name, pair[1], &mut stored);
        let tensor = tensor
            .and_then(|tensor| tensor.of(whole.get(name)))
            .map_err(at)?;
        if metadata.tensors.insert(name.to_owned(), tensor).is_some()
            || metadata.values.contains_key(name)
        {
            return Err(twice());
        }
    }
    let known =
        |name: &str| metadata.tensors.contains_key(name) || metadata.values.contains_key(name);
    let unknown = stored
        .keys()
        .map(|(name, _)| name)
        .filter(|name| !known(name));
    if let Some(name) = unknown.min() {
        let message = "is stored, and nothing says of which type and shape it is";
        return Err(corrupt(message)
            .tensor(name.as_str())
            .hint("take .metadata from the same save as the files"));
    }
    Ok(metadata)
}

/// The paths that flat names were made of, as far as they are such.
fn paths(pickle: &Pickle<'_>, planner: Option<Value>) -> BTreeMap<String, Vec<PathPart>> {
    let items = planner.and_then(|planner| pickle.items(planner));
    let pairs = items.unwrap_or_default().chunks_exact(2);
    let part = |value: &Value| match pickle.text(*value) {
        Some(text) => Some(PathPart::Key(text.to_owned())),
        None => pickle.count(*value).map(PathPart::Place),
    };
    let paths = pairs.filter_map(|pair| {
        let name = pickle.text(pair[0])?;
        let parts = pickle.elements(pair[1])?.iter();
        let path: Vec<PathPart> = parts.map(part).collect::<Option<_>>()?;
        let own = matches!(&path[..], [PathPart::Key(only)] if only == name);
        (!own && !path.is_empty()).then(|| (name.to_owned(), path))
    });
    paths.collect()
}

/// What is stored where.
fn stored(pickle: &Pickle<'_>, storage: Value) -> Result<HashMap<Key, Lies>> {
    let items = due(pickle.items(storage), "storage_data")?;
    let mut stored = HashMap::new();
    for pair in items.chunks_exact(2) {
        let index = fields(
            pickle,
            pair[0],
            (METADATA, "MetadataIndex"),
            ["fqn", "offset", "index"],
        )?;
        let name = due(index[0].and_then(|name| pickle.text(name)), "name")?;
        let at = |fault: Fault| fault.tensor(name);
        let offset = match index[1].map(|offset| (pickle.node(offset), offset)) {
            None | Some((Node::None, _)) => None,
            Some((_, offset)) => Some(due(pickle.counts(offset), "offset").map_err(at)?),
        };
        let known = ["relative_path", "offset", "length", "transform_descriptors"];
        let info = fields(pickle, pair[1], (FILES, "_StorageInfo"), known).map_err(at)?;
        let file = due(info[0].and_then(|path| pickle.text(path)), "relative_path").map_err(at)?;
        check_inside(file).map_err(at)?;
        let count = |field: Option<Value>, name: &str| {
            due(field.and_then(|value| pickle.count(value)), name).map_err(at)
        };
        let (begin, length) = (count(info[1], "offset")?, count(info[2], "length")?);
        let end = begin.checked_add(length);
        let end = end.ok_or_else(|| at(corrupt("lies beyond the end of any file")))?;
        if let Some(transforms) = info[3].and_then(|list| pickle.elements(list))
            && let Some(first) = transforms.first()
        {
            let called = pickle.text(*first).unwrap_or("something").escape_default();
            let message = format!("is packed by {called}, which is not read");
            let fault = Fault::new(Kind::Unsupported, message);
            return Err(at(fault.hint("save it again without transforms (zstd)")));
        }
        let lies = Lies {
            file: file.to_owned(),
            bytes: begin..end,
            run: None,
        };
        if stored.insert((name.to_owned(), offset), lies).is_some() {
            return Err(at(corrupt("has one chunk in two places")));
        }
    }
    Ok(stored)
}

/// Checks that each byte of a file is of one chunk or value.
///
/// # Errors
/// [`Kind::Corrupt`] naming the file and both.
fn check_apart(stored: &HashMap<Key, Lies>) -> Result<()> {
    let places = stored.iter().map(|(key, lies)| {
        let bytes = &lies.bytes;
        (lies.file.as_str(), bytes.start, bytes.end, key)
    });
    let mut places: Vec<_> = places.filter(|(_, begin, end, _)| begin < end).collect();
    places.sort_unstable();
    let shown = |(name, offset): &Key| match offset {
        Some(offset) => format!("{name} at {offset:?}"),
        None => name.clone(),
    };
    for pair in places.windows(2) {
        let [(file, _, end, first), (next, begin, _, second)] = pair else {
            continue;
        };
        if file == next && begin < end {
            let message = format!(
                "lies from byte {begin} of {file} on ({}), where {} lies up to byte {end}",
                shown(second),
                shown(first)
            );
            let fault = corrupt(message).tensor(second.0.as_str());
            return Err(
                fault.hint("one of them was overwritten: take .metadata and files of one save")
            );
        }
    }
    Ok(())
}

/// Type, shape and chunks of the tensor `name`.
fn tensor(
    pickle: &Pickle<'_>,
    name: &str,
    value: Value,
    stored: &mut HashMap<Key, Lies>,
) -> Result<Tensor> {
    let class = (METADATA, "TensorStorageMetadata");
    let [properties, size, chunks] =
        fields(pickle, value, class, ["properties", "size", "chunks"])?;
    let dtype = dtype(pickle, due(properties, "type")?)?;
    let shape = Shape(due(size.and_then(|size| pickle.counts(size)), "size")?);
    shape.bytes(dtype)?;
    let chunks = due(
        chunks.and_then(|chunks| pickle.elements(chunks)),
        "list of chunks",
    )?;
    let mut found: Vec<(Region, Lies)> = Vec::new();
    for chunk in chunks {
        let class = (METADATA, "ChunkStorageMetadata");
        let [offsets, sizes] = fields(pickle, *chunk, class, ["offsets", "sizes"])?;
        let offset = due(
            offsets.and_then(|value| pickle.counts(value)),
            "chunk's offset",
        )?;
        let sizes = Shape(due(
            sizes.and_then(|value| pickle.counts(value)),
            "chunk's size",
        )?);
        check_chunk(&shape, &offset, &sizes)?;
        // A rank that has no rows of it, though others have.
        let empty = sizes.0.contains(&0);
        if empty && (!shape.0.contains(&0) || !found.is_empty()) {
            continue;
        }
        let key = (name.to_owned(), Some(offset));
        let lies = stored.remove(&key);
        let (_, offset) = key;
        let offset = offset.unwrap_or_default();
        let missing = || {
            Fault::new(
                Kind::MissingShard,
                format!("its chunk at {offset:?} is in no file, or listed twice"),
            )
        };
        let lies = lies.ok_or_else(missing)?;
        let shape = if empty { shape.clone() } else { sizes };
        let offset = if empty {
            vec![0; shape.0.len()]
        } else {
            offset
        };
        found.push((Region { offset, shape }, lies));
    }
    Ok(Tensor {
        dtype,
        shape,
        chunks: found,
    })
}

fn check_chunk(shape: &Shape, offset: &[u64], sizes: &Shape) -> Result<()> {
    let same = offset.len() == shape.0.len() && sizes.0.len() == shape.0.len();
    let mut dims = shape.0.iter().zip(offset).zip(&sizes.0);
    let inside =
        dims.all(|((full, begin), size)| begin.checked_add(*size).is_some_and(|end| end <= *full));
    if same && inside {
        return Ok(());
    }
    Err(corrupt(format!(
        "its chunk of shape {sizes} at {offset:?} is outside its shape {shape}"
    )))
}

fn dtype(pickle: &Pickle<'_>, properties: Value) -> Result<Dtype> {
    let made = pickle
        .made(properties)
        .filter(|made| (made.0, made.1) == (METADATA, "TensorProperties"));
    let (_, _, made) = due(made, "type")?;
    let state = due(made.state, "type")?;
    let (dtype, layout) = match pickle.node(state) {
        Node::Tuple(state) => (state.first().copied(), state.get(1).copied()),
        Node::Dict(_) => (pickle.get(state, "dtype"), pickle.get(state, "layout")),
        _ => (None, None),
    };
    let layout = layout.and_then(|layout| pickle.made(layout));
    if let Some(("torch.serialization", "_get_layout", made)) = layout {
        let name = pickle
            .elements(made.arguments)
            .and_then(|names| pickle.text(*names.first()?));
        if name != Some("torch.strided") {
            let name = name.unwrap_or("something else").escape_default();
            return Err(Fault::new(
                Kind::Unsupported,
                format!("is laid out as {name}, which is not read"),
            ));
        }
    }
    match due(dtype.and_then(|dtype| pickle.names(dtype)), "type")? {
        ("torch", name) => dtype_of(name),
        _ => Err(corrupt("has a type that is none")),
    }
}
