//! `.pt`, `.pth` and `.bin` as a row of the table.

use super::archive::Saved;
use super::gather::gather;
use super::zip::Archive;
use crate::catalog::{Entry, FileSchema, Held, Part};
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle;
use crate::store::formats::row::{FileFormat, Start};
use crate::store::formats::seal::Seal;
use crate::store::io::ReadFile;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What `torch.save` writes.
pub(in crate::store::formats) struct TorchFile;

impl FileFormat for TorchFile {
    fn name(&self) -> &'static str {
        "pt"
    }

    fn about(&self) -> &'static str {
        "PyTorch's .pt, .pth and .bin, as torch.save writes them"
    }

    fn extension(&self) -> &'static str {
        "pt"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["pt", "pth", "bin"]
    }

    fn recognise(&self, start: &Start<'_>) -> bool {
        let ending = start.name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let ours = self.extensions().contains(&ending) || start.has("/data.pkl");
        start.with(b"PK\x03\x04") && ours && ending != "distcp"
    }

    fn read(&self, file: &ReadFile) -> Result<FileSchema> {
        read(file).map_err(|fault| fault.file(file.path().display().to_string()))
    }

    fn is_written(&self) -> bool {
        false
    }

    fn may_be_sealed(&self, _: &BTreeMap<String, String>) -> bool {
        true
    }

    fn seals(&self, file: &ReadFile) -> Result<Vec<Seal>> {
        Archive::read(file, 0..file.size())?.seals(file)
    }

    fn design(
        &self,
        _: &[(Arc<str>, Dtype, Shape)],
        _: &BTreeMap<String, String>,
    ) -> Result<FileSchema> {
        let fault = Fault::new(Kind::Unsupported, "PyTorch's files are read, not written");
        Err(fault.hint("safetensors files are read by PyTorch, too"))
    }
}

fn read(file: &ReadFile) -> Result<FileSchema> {
    let saved = Saved::open(file, 0..file.size())?;
    let pickle = pickle::read(&saved.pickle)?;
    let gathered = gather(&pickle)?;
    let (mut entries, mut parts) = (Vec::new(), BTreeMap::new());
    for (name, tensor) in gathered.tensors {
        let window = saved
            .window(&tensor)
            .map_err(|fault| fault.tensor(name.as_str()))?;
        check_blown(&tensor.shape, tensor.dtype, file)
            .map_err(|fault| fault.tensor(name.as_str()))?;
        let name: Arc<str> = name.into();
        if let Some(strides) = tensor.strides {
            let number = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            parts.insert(
                number,
                Part::whole(name.clone(), tensor.shape.clone(), strides),
            );
        }
        entries.push(Entry {
            name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            segments: vec![window],
        });
    }
    saved.sound()?;
    let values = gathered.values.into_iter();
    let values = values.map(|(name, value)| (name, value.to_string()));
    let values = values.collect();
    let schema = FileSchema::new(entries, BTreeMap::new(), Vec::new(), file.size())?;
    schema.holding(Held {
        parts,
        values,
        ..Held::default()
    })
}

/// Most bytes that a tensor may come to, by the bytes of the file that it is in: strides of zero repeat them.
const REPEATED_MAX: u64 = 1 << 16;

/// Refuses a tensor whose elements are repeated beyond any use.
fn check_blown(shape: &Shape, dtype: Dtype, file: &ReadFile) -> Result<()> {
    let bytes = shape.bytes(dtype)?;
    if bytes <= file.size().saturating_mul(REPEATED_MAX) {
        return Ok(());
    }
    let message = format!(
        "{dtype}{shape} would be {bytes} bytes, of a file of {}",
        file.size()
    );
    Err(Fault::new(Kind::Corrupt, message))
}
