//! `.ckpt` files: records of name, dims, type and bytes.

use super::tensors::{Tensor, Tensors};
use super::wire;
use std::path::Path;

/// One value of a `.ckpt`; the parts of a large one are joined.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) dims: Vec<i64>,
    pub(crate) kind: String,
    pub(crate) content: Vec<u8>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = &self.content[..self.content.len().min(32)];
        write!(
            f,
            "{}: {} {:?} {head:02x?}…",
            self.name, self.kind, self.dims
        )
    }
}

/// Reads the records of `path` in file order.
pub(crate) fn read(path: &Path) -> Result<Vec<Record>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    records(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn records(mut bytes: &[u8]) -> Result<Vec<Record>, String> {
    if let Some(at) = bytes.len().checked_sub(17)
        && bytes[at..].starts_with(b"crc_num")
    {
        bytes = &bytes[..at];
    }
    let mut records: Vec<Record> = Vec::new();
    for (number, value) in wire::fields(bytes)? {
        if number != 1 {
            return Err(format!("field {number} at the top"));
        }
        let record = record(value.bytes()?)?;
        match records.last_mut() {
            Some(last) if last.name == record.name => last.content.extend(record.content),
            _ => records.push(record),
        }
    }
    Ok(records)
}

fn record(value: &[u8]) -> Result<Record, String> {
    let mut record = Record {
        name: String::new(),
        dims: Vec::new(),
        kind: String::new(),
        content: Vec::new(),
    };
    for (number, value) in wire::fields(value)? {
        match number {
            1 => record.name = value.text()?,
            2 => {
                for (number, value) in wire::fields(value.bytes()?)? {
                    match number {
                        1 => record.dims.extend(value.numbers()?),
                        2 => record.kind = value.text()?,
                        3 => record.content = value.bytes()?.to_vec(),
                        other => return Err(format!("field {other} of a tensor")),
                    }
                }
            }
            other => return Err(format!("field {other} of a value")),
        }
    }
    Ok(record)
}

/// The records as tensors.
pub(crate) fn tensors(records: &[Record]) -> Result<Tensors, String> {
    let tensor = |record: &Record| {
        let shape = match record.dims.as_slice() {
            [0] => Vec::new(),
            dims => dims
                .iter()
                .map(|dim| usize::try_from(*dim).map_err(|error| error.to_string()))
                .collect::<Result<_, _>>()?,
        };
        let tensor = Tensor {
            dtype: dtype(&record.kind)?.to_owned(),
            shape,
            data: record.content.clone(),
        };
        Ok((record.name.clone(), tensor))
    };
    records.iter().map(tensor).collect()
}

/// Tensors as the records a `.ckpt` of them has.
pub(crate) fn from_tensors(tensors: &Tensors) -> Vec<Record> {
    let record = |(name, tensor): (&String, &Tensor)| Record {
        name: name.clone(),
        dims: tensor
            .shape
            .iter()
            .map(|dim| i64::try_from(*dim).expect("a small dimension"))
            .collect(),
        kind: kind(&tensor.dtype).to_owned(),
        content: tensor.data.clone(),
    };
    tensors.iter().map(record).collect()
}

const NAMES: [(&str, &str); 13] = [
    ("Int8", "I8"),
    ("UInt8", "U8"),
    ("Int16", "I16"),
    ("UInt16", "U16"),
    ("Int32", "I32"),
    ("UInt32", "U32"),
    ("Int64", "I64"),
    ("UInt64", "U64"),
    ("Bool", "BOOL"),
    ("Float16", "F16"),
    ("Float32", "F32"),
    ("Float64", "F64"),
    ("BFloat16", "BF16"),
];

fn dtype(kind: &str) -> Result<&'static str, String> {
    let found = NAMES.iter().find(|(ckpt, _)| *ckpt == kind);
    found
        .map(|(_, name)| *name)
        .ok_or_else(|| format!("type {kind:?}"))
}

fn kind(dtype: &str) -> &'static str {
    let found = NAMES.iter().find(|(_, name)| *name == dtype);
    found.expect("a dtype a .ckpt knows").0
}
