//! Lays out a file.

use super::{
    DIMS_MAX, FRAMING_BYTES_MAX, INT4, LENGTH, NAME_BYTES_MAX, TEXT, TEXT_BYTES_MAX, TEXT_PREFIX,
    VALUES_MAX, VARINT,
};
use crate::catalog::{Entry, FileSchema};
use crate::fault::{Fault, Kind, Result};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// Content over this many bytes is cut into blocks, as MindSpore does.
pub const BLOCK_BYTES_MAX: u64 = 512 << 20;

/// Lays out a file of `tensors`, in their order, then of the strings among `metadata`. What else
/// is in the metadata has no place in the format and is dropped, as by MindSpore's conversion.
///
/// MindSpore's own order is, with `safetensors_to_ckpt`, ascending by name; with
/// `transform_checkpoints` first what both strategies and the source file have, then the rest, each
/// in the source file's order (ascending if it is a safetensors file); with
/// `load_distributed_checkpoint` the strategy's.
///
/// Content over `block_bytes_max` is cut into blocks of just as many bytes, and a last one of what
/// remains: 1024, 1024, 1024 and 928 for 4000 bytes by 1024. This is MindSpore's rule for tensors;
/// its other one, for arrays, cuts whole rows. A tensor without elements is one block without
/// bytes (MindSpore's rule for tensors loses it).
///
/// # Errors
/// [`Kind::Dtype`] for a dtype that the format doesn't have; [`Kind::Shape`] and
/// [`Kind::Unsupported`] for what the format, or `read`, has no room for, and for no
/// tensors at all;
/// [`Kind::Corrupt`] for a name that occurs twice.
pub fn design(
    tensors: &[(Arc<str>, Dtype, Shape)],
    metadata: &BTreeMap<String, String>,
    block_bytes_max: u64,
) -> Result<FileSchema> {
    // Elements aren't cut, and messages keep below protobuf's 2 GiB.
    let block_bytes = (block_bytes_max & !7).clamp(8, 1 << 30);
    let mut draft = Draft::default();
    for (name, dtype, shape) in tensors {
        let mark = metadata.get(&**name).map(String::as_str);
        let segments = draft
            .tensor(name, *dtype, shape, mark == Some(INT4), block_bytes)
            .map_err(|fault| fault.tensor(&**name))?;
        draft.entries.push(Entry {
            name: name.clone(),
            dtype: *dtype,
            shape: shape.clone(),
            segments,
        });
    }
    let names: HashSet<&str> = tensors.iter().map(|(name, _, _)| &**name).collect();
    let mut kept = BTreeMap::new();
    for (key, text) in metadata {
        let name = key.strip_prefix(TEXT_PREFIX);
        match name.filter(|_| !names.contains(key.as_str())) {
            Some(name) if names.contains(name) => {
                let message = "there is a string of this name too";
                return Err(Fault::new(Kind::Unsupported, message).tensor(name));
            }
            Some(name) => draft.text(name, text).map_err(|fault| fault.tensor(name))?,
            None if names.contains(key.as_str()) && text == INT4 => {}
            None => continue,
        }
        kept.insert(key.clone(), text.clone());
    }
    if draft.literals.is_empty() {
        let fault = Fault::new(Kind::Unsupported, "a ckpt file can't be without tensors");
        return Err(fault.hint("write safetensors"));
    }
    FileSchema::new(draft.entries, kept, draft.literals, draft.size)
}

/// The file as far as it is laid out.
#[derive(Default)]
struct Draft {
    entries: Vec<Entry>,
    literals: Vec<(u64, Vec<u8>)>,
    /// Bytes of all literals.
    framing_bytes: u64,
    size: u64,
}

impl Draft {
    /// Lays out a tensor's blocks: the ranges of its bytes.
    fn tensor(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &Shape,
        int4: bool,
        block_bytes: u64,
    ) -> Result<Vec<Range<u64>>> {
        let tensor_type = match dtype {
            Dtype::I8 if int4 => INT4,
            _ if int4 => {
                let message = format!("is marked as {INT4}, but is {dtype}, not I8");
                return Err(Fault::new(Kind::Dtype, message));
            }
            _ => dtype.ckpt_name().ok_or_else(|| {
                let message = format!("dtype {dtype} can't be in a ckpt file");
                Fault::new(Kind::Dtype, message).hint("write safetensors")
            })?,
        };
        let mut left = shape.bytes(dtype)?;
        let mut segments = Vec::new();
        loop {
            let length = left.min(block_bytes);
            segments.push(self.value(name, &shape.0, tensor_type, length)?);
            left -= length;
            if left == 0 {
                return Ok(segments);
            }
        }
    }

    /// Lays out a string, whose content is a literal.
    fn text(&mut self, name: &str, text: &str) -> Result<()> {
        // numpy has no empty string: it is one zero.
        let text = if text.is_empty() { "\0" } else { text };
        let bytes: Vec<u8> = text
            .chars()
            .flat_map(|c| u32::from(c).to_le_bytes())
            .collect();
        if bytes.len() as u64 > TEXT_BYTES_MAX {
            let message = format!("the string is longer than {} letters", TEXT_BYTES_MAX / 4);
            return Err(Fault::new(Kind::Unsupported, message));
        }
        self.value(name, &[0], TEXT, bytes.len() as u64)?;
        if let Some((_, literal)) = self.literals.last_mut() {
            self.framing_bytes += bytes.len() as u64;
            literal.extend(bytes);
        }
        Ok(())
    }

    /// Lays out one value of `length` bytes of content: where they are.
    fn value(
        &mut self,
        name: &str,
        dims: &[u64],
        tensor_type: &str,
        length: u64,
    ) -> Result<Range<u64>> {
        let refuse = |message: String| Err(Fault::new(Kind::Unsupported, message));
        if name.len() as u64 > NAME_BYTES_MAX {
            return refuse(format!("the name is longer than {NAME_BYTES_MAX} bytes"));
        }
        if dims.len() > DIMS_MAX || dims.iter().any(|dim| i64::try_from(*dim).is_err()) {
            return refuse(format!("dims {dims:?} don't fit a ckpt file"));
        }
        let mut tensor = Vec::new();
        for dim in dims {
            put_key(&mut tensor, 1, VARINT);
            put_varint(&mut tensor, *dim);
        }
        put_key(&mut tensor, 2, LENGTH);
        put_bytes(&mut tensor, tensor_type.as_bytes());
        put_key(&mut tensor, 3, LENGTH);
        put_varint(&mut tensor, length);
        let mut value = Vec::new();
        put_key(&mut value, 1, LENGTH);
        put_bytes(&mut value, name.as_bytes());
        put_key(&mut value, 2, LENGTH);
        put_varint(&mut value, tensor.len() as u64 + length);
        value.append(&mut tensor);
        let mut literal = Vec::new();
        put_key(&mut literal, 1, LENGTH);
        put_varint(&mut literal, value.len() as u64 + length);
        literal.append(&mut value);

        self.framing_bytes += literal.len() as u64;
        if self.literals.len() >= VALUES_MAX || self.framing_bytes > FRAMING_BYTES_MAX {
            return refuse("the file would have too many tensors and blocks".to_owned());
        }
        let begin = self.size.checked_add(literal.len() as u64);
        let range = begin.and_then(|begin| Some(begin..begin.checked_add(length)?));
        let Some(range) = range else {
            return Err(Fault::new(Kind::Shape, "the file would be too large"));
        };
        self.literals.push((self.size, literal));
        self.size = range.end;
        Ok(range)
    }
}

/// Appends a field's number and wire type.
fn put_key(out: &mut Vec<u8>, field: u8, wire: u8) {
    out.push(field << 3 | wire);
}

/// Appends a number, seven bits a byte, lowest first.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a length and as many bytes.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
