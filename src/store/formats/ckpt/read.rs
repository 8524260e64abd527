//! Finds the tensors of a file.

use super::crc::find_trailer;
use super::window::{ReadAt, Window, corrupt, unknown};
use super::{
    DIMS_MAX, INT4, LENGTH, NAME_BYTES_MAX, TEXT, TEXT_BYTES_MAX, TEXT_PREFIX, VALUES_MAX, VARINT,
};
use crate::catalog::{Entry, FileSchema};
use crate::fault::{Fault, Kind, Result};
use crate::store::io::ReadFile;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::ops::Range;

/// Finds the tensors of an open file; of their bytes none is read.
///
/// # Errors
/// [`Kind::Corrupt`] with the byte offset for a file that is empty, truncated, no ckpt of weights,
/// or has a tensor whose bytes don't fit its dims; [`Kind::Dtype`] for a type that is unknown;
/// [`Kind::Unsupported`] for an encrypted file and for map tensors.
pub fn read(file: &ReadFile) -> Result<FileSchema> {
    let read_at = |buffer: &mut [u8], offset| file.read_at(buffer, offset);
    parse(file.size(), &read_at).map_err(|fault| fault.file(file.path().display().to_string()))
}

/// Finds the tensors of a file of `size` bytes, which `read_at` fills a buffer with from an offset
/// on.
///
/// # Errors
/// As [`read`].
pub fn parse(size: u64, read_at: &dyn Fn(&mut [u8], u64) -> Result<()>) -> Result<FileSchema> {
    refuse_encrypted(size, read_at)?;
    let (end, _) = find_trailer(size, read_at)?;
    if end == 0 {
        return Err(corrupt(0, "the file has no tensors, it ends"));
    }
    let mut window = Window::new(read_at, end);
    let mut found = Found::default();
    while window.at() < end {
        let at = window.at();
        let key = window.key(end)?;
        if key != (1, LENGTH) {
            return Err(unknown(at, "a checkpoint", key));
        }
        let range = window.range("a value", end)?;
        let value = read_value(&mut window, at, range.end)?;
        found.add(&mut window, value)?;
        window.skip_to(range.end);
    }
    found.finish(&mut window, size)
}

/// How a file that begins so is encrypted: those files are blocks that start with a number for the
/// mode.
#[must_use]
pub fn encryption(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xD8, 0x5E, 0x3A, 0x7F, ..] => Some("GCM"),
        [0xD9, 0x5E, 0x3A, 0x7F, ..] => Some("CBC"),
        _ => None,
    }
}

fn refuse_encrypted(size: u64, read_at: ReadAt<'_>) -> Result<()> {
    let mut magic = [0; 4];
    if size >= 4 {
        read_at(&mut magic, 0)?;
    }
    let Some(mode) = encryption(&magic) else {
        return Ok(());
    };
    let fault = Fault::new(Kind::Unsupported, format!("is encrypted ({mode})"));
    Err(fault.hint("load it with its key in MindSpore and save it without one"))
}

/// A tensor or a string, or a block of one.
struct Value {
    /// Offset of its first byte.
    at: u64,
    name: String,
    dims: Vec<u64>,
    tensor_type: String,
    /// Where its content is: one range, until blocks are put together.
    segments: Vec<Range<u64>>,
}

/// Puts `value` where there must be nothing yet.
fn put<T>(place: &mut Option<T>, value: T, at: u64, what: &str) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(corrupt(at, format!("{what} occurs twice in a value"))),
    }
}

fn read_value(window: &mut Window<'_>, at: u64, end: u64) -> Result<Value> {
    let mut name = None;
    let mut tensor = None;
    let mut map = false;
    while window.at() < end {
        let begin = window.at();
        match window.key(end)? {
            (1, LENGTH) => {
                let text = window.text("a name", NAME_BYTES_MAX, end)?;
                put(&mut name, text, begin, "the name")?;
            }
            (2, LENGTH) => {
                let range = window.range("a tensor", end)?;
                put(&mut tensor, range.clone(), begin, "the tensor")?;
                window.skip_to(range.end);
            }
            (3, LENGTH) => {
                let range = window.range("a map tensor", end)?;
                map = true;
                window.skip_to(range.end);
            }
            key => return Err(unknown(begin, "a value", key)),
        }
    }
    let Some(name) = name else {
        return Err(corrupt(at, "a value has no name"));
    };
    let (dims, tensor_type, content) = match tensor {
        _ if map => {
            let message = format!("map tensors are not supported, at byte {at}");
            return Err(Fault::new(Kind::Unsupported, message).tensor(name));
        }
        None => return Err(corrupt(at, "the value has no tensor").tensor(name)),
        Some(range) => read_tensor(window, range).map_err(|fault| fault.tensor(&*name))?,
    };
    Ok(Value {
        at,
        name,
        dims,
        tensor_type,
        segments: vec![content],
    })
}

fn read_tensor(
    window: &mut Window<'_>,
    range: Range<u64>,
) -> Result<(Vec<u64>, String, Range<u64>)> {
    let Range { start: at, end } = range;
    window.skip_to(at);
    let mut dims = Vec::new();
    let mut tensor_type = None;
    let mut content = None;
    while window.at() < end {
        let begin = window.at();
        match window.key(end)? {
            (1, VARINT) => read_dim(window, &mut dims, end)?,
            // Packed, as other writers of protobuf may have it.
            (1, LENGTH) => {
                let packed = window.range("the dims", end)?;
                while window.at() < packed.end {
                    read_dim(window, &mut dims, packed.end)?;
                }
            }
            (2, LENGTH) => {
                let text = window.text("a type", 64, end)?;
                put(&mut tensor_type, text, begin, "the type")?;
            }
            (3, LENGTH) => {
                let bytes = window.range("the content", end)?;
                window.skip_to(bytes.end);
                put(&mut content, bytes, begin, "the content")?;
            }
            key => return Err(unknown(begin, "a tensor", key)),
        }
    }
    match (tensor_type, content) {
        (Some(tensor_type), Some(content)) => Ok((dims, tensor_type, content)),
        (None, _) => Err(corrupt(at, "the tensor has no type")),
        (_, None) => Err(corrupt(at, "the tensor has no content")),
    }
}

fn read_dim(window: &mut Window<'_>, dims: &mut Vec<u64>, end: u64) -> Result<()> {
    let at = window.at();
    let dim = window.varint(end)?;
    if i64::try_from(dim).is_err() {
        return Err(corrupt(at, "a dimension is negative"));
    }
    if dims.len() == DIMS_MAX {
        return Err(corrupt(
            at,
            format!("there are more than {DIMS_MAX} dimensions"),
        ));
    }
    dims.push(dim);
    Ok(())
}

/// What was found so far.
#[derive(Default)]
struct Found {
    values: usize,
    /// The tensor or string whose blocks are being gathered.
    pending: Option<Value>,
    entries: Vec<Entry>,
    metadata: BTreeMap<String, String>,
    has_texts: bool,
}

impl Found {
    fn add(&mut self, window: &mut Window<'_>, value: Value) -> Result<()> {
        self.values += 1;
        if self.values > VALUES_MAX {
            let message = format!("there are more than {VALUES_MAX} values");
            return Err(corrupt(value.at, message));
        }
        match &mut self.pending {
            Some(pending) if pending.name == value.name => {
                if pending.dims != value.dims || pending.tensor_type != value.tensor_type {
                    let message = "another value of this name has other dims or another type";
                    return Err(corrupt(value.at, message).tensor(value.name));
                }
                let blocks = value.segments.into_iter();
                pending
                    .segments
                    .extend(blocks.filter(|block| !block.is_empty()));
                Ok(())
            }
            _ => {
                self.settle(window)?;
                self.pending = Some(value);
                Ok(())
            }
        }
    }

    /// Ends the pending tensor or string: all its blocks are there.
    fn settle(&mut self, window: &mut Window<'_>) -> Result<()> {
        let Some(value) = self.pending.take() else {
            return Ok(());
        };
        let (at, name) = (value.at, value.name.clone());
        let settled = if value.tensor_type == TEXT {
            self.settle_text(window, value)
        } else {
            self.settle_tensor(value)
        };
        settled.map_err(|fault| match fault.kind {
            Kind::Shape => corrupt(at, fault.message).tensor(name),
            _ => fault.tensor(name),
        })
    }

    fn settle_tensor(&mut self, value: Value) -> Result<()> {
        let dtype = match value.tensor_type.as_str() {
            INT4 => {
                self.metadata.insert(value.name.clone(), INT4.to_owned());
                Dtype::I8
            }
            name => Dtype::from_ckpt(name).ok_or_else(|| {
                let message = format!("type '{name}' is unknown, at byte {}", value.at);
                Fault::new(Kind::Dtype, message)
            })?,
        };
        let mut entry = Entry {
            name: value.name.into(),
            dtype,
            shape: Shape(value.dims),
            segments: value.segments,
        };
        let bytes = entry.bytes();
        if entry.shape.0 == [0] && bytes == Shape::default().bytes(dtype)? {
            entry.shape = Shape::default();
        }
        let expected = entry.shape.bytes(dtype)?;
        if bytes != expected {
            let message = format!("{dtype}{} has {bytes} bytes, not {expected}", entry.shape);
            return Err(corrupt(value.at, message));
        }
        self.entries.push(entry);
        Ok(())
    }

    fn settle_text(&mut self, window: &mut Window<'_>, value: Value) -> Result<()> {
        let mut bytes = Vec::new();
        for range in value.segments {
            let room = TEXT_BYTES_MAX - bytes.len() as u64;
            bytes.extend(window.bytes("the string", room, range)?);
        }
        let letters = bytes.chunks_exact(4);
        let whole = letters.remainder().is_empty();
        let text = letters.map(|c| char::from_u32(u32::from_le_bytes([c[0], c[1], c[2], c[3]])));
        let Some(text) = text.collect::<Option<String>>().filter(|_| whole) else {
            return Err(corrupt(value.at, "the string is no UTF-32"));
        };
        // An empty string is one zero; numpy, too, drops zeros at the end.
        let text = text.trim_end_matches('\0').to_owned();
        let key = format!("{TEXT_PREFIX}{}", value.name);
        self.has_texts = true;
        match self.metadata.insert(key, text) {
            None => Ok(()),
            Some(_) => Err(corrupt(value.at, "the file has two strings of this name")),
        }
    }

    fn finish(mut self, window: &mut Window<'_>, size: u64) -> Result<FileSchema> {
        self.settle(window)?;
        let clash = |entry: &&Entry| {
            self.metadata
                .contains_key(&format!("{TEXT_PREFIX}{}", entry.name))
                || (entry.name.starts_with(TEXT_PREFIX) && self.metadata.contains_key(&*entry.name))
        };
        if let Some(entry) = self
            .entries
            .iter()
            .find(|entry| self.has_texts && clash(entry))
        {
            let message = "the file has a string and a tensor of this name";
            let at = entry.segments.first().map_or(0, |segment| segment.start);
            return Err(corrupt(at, message).tensor(&*entry.name));
        }
        FileSchema::new(self.entries, self.metadata, Vec::new(), size)
    }
}
