//! From the pickle in HyperParallel's `.metadata` to the tensors in each file.

use super::content::Content;
use super::states::{due, fields};
use crate::catalog::{Entry, Part};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle::{self, Pickle, Value};
use crate::store::formats::torch::dtype_of;
use crate::store::full_dir::check_inside;
use crate::tensor::dtype::Dtype;
use crate::tensor::region::{Region, check_cover};
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// The module of the metadata's classes.
pub(super) const MODULE: &str = "hyper_parallel.core.distributed_checkpoint.metadata";
/// The module of what says where things are stored.
const STORAGE: &str = "hyper_parallel.core.distributed_checkpoint.storage";

/// Where something lies: a file, and the key there or the bytes.
struct Lies<'a> {
    file: &'a str,
    key: Option<&'a str>,
    bytes: Range<u64>,
}

/// Where all lies, by name and offset.
type Stored<'a> = HashMap<(&'a str, Vec<u64>), Lies<'a>>;

/// What lies where in the files: by file and key, the tensor.
type Taken<'a> = HashMap<(&'a str, &'a str), &'a str>;

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Corrupt, message)
}

/// Reads `.metadata`: what is in each file.
///
/// # Errors
/// [`Kind::Corrupt`] and [`Kind::Unsupported`], naming the tensor where it is one's; [`Kind::MissingShard`]
/// for a tensor of which some elements are in no file.
pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Content>> {
    let pickle = pickle::read(bytes)?;
    let known = [
        "state_dict_metadata",
        "planner_data",
        "storage_data",
        "version",
    ];
    let class = (MODULE, "Metadata");
    let [tensors, _, storage, _] = fields(&pickle, pickle.root(), class, known)?;
    let mut stored = stored(&pickle, due(storage, "storage_data")?)?;
    let tensors = tensors.and_then(|tensors| pickle.items(tensors));
    let tensors = due(tensors, "state_dict_metadata")?;
    let mut files: BTreeMap<String, Content> = BTreeMap::new();
    let mut names = HashSet::new();
    let (mut values, mut taken) = (Vec::new(), Taken::new());
    for pair in tensors.chunks_exact(2) {
        let name = due(pickle.text(pair[0]), "name")?;
        if !names.insert(name) {
            return Err(corrupt("is there twice").tensor(name));
        }
        let class = pickle.made(pair[1]).map(|(_, class, _)| class);
        if class == Some("BytesStorageMetadata") {
            let lies = stored.remove(&(name, Vec::new()));
            values.push((name.to_owned(), lies.map_or(0..0, |lies| lies.bytes)));
            continue;
        }
        let put = tensor(&pickle, name, pair[1], &mut stored, &mut files, &mut taken);
        put.map_err(|fault| fault.tensor(name))?;
    }
    if let Some(mut first) = files.first_entry() {
        first.get_mut().values = values;
    }
    Ok(files)
}

/// What is stored where.
fn stored<'a>(pickle: &Pickle<'a>, storage: Value) -> Result<Stored<'a>> {
    let items = due(pickle.items(storage), "storage_data")?;
    let mut stored = Stored::new();
    for pair in items.chunks_exact(2) {
        let class = (MODULE, "MetadataIndex");
        let [name, offset, _] = fields(pickle, pair[0], class, ["fqn", "offset", "index"])?;
        let name = due(name.and_then(|name| pickle.text(name)), "name")?;
        let at = |fault: Fault| fault.tensor(name);
        let offset = match offset {
            None => Vec::new(),
            Some(offset) => due(pickle.counts(offset), "offset").map_err(at)?,
        };
        let known = ["relative_path", "offset", "length", "tensor_key"];
        let class = (STORAGE, "StorageInfo");
        let [file, begin, length, key] = fields(pickle, pair[1], class, known).map_err(at)?;
        let file = due(file.and_then(|file| pickle.text(file)), "relative_path").map_err(at)?;
        check_inside(file).map_err(at)?;
        // A tensor's length is -1: its file tells it.
        let count = |field: Option<Value>| field.and_then(|value| pickle.count(value));
        let begin = count(begin).unwrap_or_default();
        let end = begin.checked_add(count(length).unwrap_or_default());
        let end = end.ok_or_else(|| at(corrupt("lies beyond the end of any file")))?;
        let lies = Lies {
            file,
            key: key.and_then(|key| pickle.text(key)),
            bytes: begin..end,
        };
        if stored.insert((name, offset), lies).is_some() {
            return Err(at(corrupt("has one part in two places")));
        }
    }
    Ok(stored)
}

/// Puts the parts of tensor `name` into the files that have them.
fn tensor<'a>(
    pickle: &Pickle<'a>,
    name: &'a str,
    value: Value,
    stored: &mut Stored<'a>,
    files: &mut BTreeMap<String, Content>,
    taken: &mut Taken<'a>,
) -> Result<()> {
    let known = ["properties", "size", "chunks"];
    let class = (MODULE, "TensorStorageMetadata");
    let [properties, size, chunks] = fields(pickle, value, class, known)?;
    let known = ["dtype", "requires_grad", "memory_format"];
    let class = (MODULE, "TensorProperties");
    let [dtype, ..] = fields(pickle, due(properties, "type")?, class, known)?;
    let dtype = typed(due(dtype.and_then(|dtype| pickle.text(dtype)), "type")?)?;
    let full = Shape(due(size.and_then(|size| pickle.counts(size)), "size")?);
    full.bytes(dtype)?;
    let chunks = chunks.and_then(|chunks| pickle.elements(chunks));
    let mut regions: Vec<Region> = Vec::new();
    for chunk in due(chunks, "list of parts")? {
        let class = (MODULE, "ChunkStorageMetadata");
        let [offsets, sizes] = fields(pickle, *chunk, class, ["offsets", "sizes"])?;
        let offset = due(
            offsets.and_then(|value| pickle.counts(value)),
            "part's offset",
        )?;
        let shape = due(sizes.and_then(|value| pickle.counts(value)), "part's size")?;
        let region = Region {
            offset,
            shape: Shape(shape),
        };
        check_inside_tensor(&full, &region)?;
        // The same part may be saved by several ranks; a rank may have none of its elements.
        let empty = region.shape.0.contains(&0);
        let again = regions.contains(&region);
        if again || empty && (!full.0.contains(&0) || !regions.is_empty()) {
            continue;
        }
        let missing = || {
            let message = format!("its part at {:?} is in no file", region.offset);
            Fault::new(Kind::MissingShard, message)
        };
        let key = (name, region.offset.clone());
        let lies = stored.remove(&key).ok_or_else(missing)?;
        let content = files.entry(lies.file.to_owned()).or_default();
        let key = (lies.file, lies.key.unwrap_or(name));
        if let Some(other) = taken.insert(key, name) {
            return Err(corrupt(format!(
                "lies under '{}' in {}, where {other} lies",
                key.1.escape_default(),
                lies.file
            )));
        }
        put(content, &lies, name, dtype, &full, &region);
        regions.push(region);
    }
    check_cover(&full, &regions.iter().collect::<Vec<_>>())
}

fn put(
    content: &mut Content,
    lies: &Lies<'_>,
    name: &str,
    dtype: Dtype,
    full: &Shape,
    region: &Region,
) {
    let number = u32::try_from(content.entries.len()).unwrap_or(u32::MAX);
    let mut own: Arc<str> = name.into();
    if region.shape != *full {
        let at: Vec<String> = region.offset.iter().map(u64::to_string).collect();
        own = format!("{name}\u{1f}{}", at.join(".")).into();
        let part = Part {
            of: name.into(),
            full: full.clone(),
            offset: region.offset.clone(),
            strides: Vec::new(),
        };
        content.parts.insert(number, part);
    }
    content.keys.push(lies.key.unwrap_or(name).to_owned());
    content.entries.push(Entry {
        name: own,
        dtype,
        shape: region.shape.clone(),
        segments: Vec::new(),
    });
}

fn check_inside_tensor(full: &Shape, region: &Region) -> Result<()> {
    let same = [&region.offset, &region.shape.0]
        .iter()
        .all(|list| list.len() == full.0.len());
    let mut dims = full.0.iter().zip(&region.offset).zip(&region.shape.0);
    let inside =
        dims.all(|((full, begin), size)| begin.checked_add(*size).is_some_and(|end| end <= *full));
    if same && inside {
        return Ok(());
    }
    Err(corrupt(format!(
        "its part of shape {} at {:?} is outside its shape {full}",
        region.shape, region.offset
    )))
}

/// The type that PyTorch (`torch.bfloat16`) or MindSpore (`BFloat16`) calls so.
fn typed(name: &str) -> Result<Dtype> {
    let own = name.strip_prefix("torch.").unwrap_or(name);
    dtype_of(&own.to_ascii_lowercase())
}
