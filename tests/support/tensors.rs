//! Tensors in memory and in safetensors files, read by the `safetensors` crate alone.

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// One tensor: its dtype as safetensors spells it, its shape, its bytes in row-major order.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

impl Tensor {
    /// A tensor whose bytes count upwards from `start`, so that a misplaced slice is visible.
    pub(crate) fn counting(dtype: &str, shape: &[usize], start: usize) -> Tensor {
        let bytes = shape.iter().product::<usize>() * bits(dtype) / 8;
        // They come again after so many.
        let again = 251 * 256;
        let period: Vec<u8> = (0..bytes.min(again))
            .map(|i| (start + i + i / 251).to_le_bytes()[0])
            .collect();
        let times = bytes.div_ceil(again.min(bytes.max(1)));
        let mut data = period.repeat(times);
        data.truncate(bytes);
        Tensor {
            dtype: dtype.to_owned(),
            shape: shape.to_vec(),
            data,
        }
    }

    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of one element; 1 where there is none.
    pub(crate) fn element_bytes(&self) -> usize {
        (bits(&self.dtype) / 8).max(1)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = &self.data[..self.data.len().min(32)];
        write!(f, "{} {:?} {head:02x?}…", self.dtype, self.shape)
    }
}

/// Name to tensor.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// A safetensors file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) tensors: Tensors,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Reads the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Contents, String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    let complain = |error| format!("{name}: {error}");
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(complain)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let tensors = SafeTensors::deserialize(&bytes).map_err(complain)?;
    Ok(Contents {
        tensors: tensors
            .iter()
            .map(|(name, view)| {
                let tensor = Tensor {
                    dtype: view.dtype().to_string(),
                    shape: view.shape().to_vec(),
                    data: view.data().to_vec(),
                };
                (name.to_owned(), tensor)
            })
            .collect(),
        metadata: metadata.into_iter().collect(),
    })
}

/// Writes `tensors` to `path`, making its directory, with the metadata `format: ms`.
pub(crate) fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(dtype(&tensor.dtype), tensor.shape.clone(), &tensor.data);
        (name.as_str(), view.expect("bytes fit the shape"))
    });
    let metadata = HashMap::from([("format".to_owned(), "ms".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).expect("serializes");
    write_bytes(path, &bytes);
}

/// Writes `bytes` to `path`, making its directory.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("make a directory");
    std::fs::write(path, bytes).expect("write a file");
}

/// A safetensors file of this header, which may lie, and this data.
pub(crate) fn write_raw(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = u64::try_from(header.len())
        .expect("a small header")
        .to_le_bytes()
        .to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    write_bytes(path, &bytes);
}

/// Flips a bit of tensor `name` in the file at `path`.
pub(crate) fn damage(path: &Path, name: &str) {
    let mut contents = read(path).expect("a file");
    let tensor = contents.tensors.get_mut(name).expect("the tensor");
    let marked = tensor.data.clone();
    tensor.data[1] ^= 4;
    let mut bytes = std::fs::read(path).expect("a file");
    let at = bytes
        .windows(marked.len())
        .position(|part| part == marked)
        .expect("its bytes");
    bytes[at..at + marked.len()].copy_from_slice(&tensor.data);
    std::fs::write(path, bytes).expect("it is written");
}

/// What differs between `expected` and `found`, if anything.
pub(crate) fn compare(expected: &Tensors, found: &Tensors) -> Result<(), String> {
    let names = |tensors: &Tensors| tensors.keys().cloned().collect::<BTreeSet<_>>();
    let (want, have) = (names(expected), names(found));
    if want != have {
        return Err(format!(
            "missing tensors {:?}, tensors too many {:?}",
            want.difference(&have).collect::<Vec<_>>(),
            have.difference(&want).collect::<Vec<_>>()
        ));
    }
    for (name, tensor) in expected {
        if tensor != &found[name] {
            return Err(format!(
                "{name}: expected {tensor:?}, found {:?}",
                found[name]
            ));
        }
    }
    Ok(())
}

/// Bits of one element.
pub(crate) fn bits(name: &str) -> usize {
    dtype(name).bitsize()
}

fn dtype(name: &str) -> Dtype {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).expect("a known dtype")
}
