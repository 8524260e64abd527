//! The archive that holds one chunk: what stands before and after its bytes.

use super::emit::Emit;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::torch::names_of;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;

/// Data begins at a multiple of this, counted from the archive's beginning.
const ALIGNMENT: usize = 64;
/// Sizes from which on a directory needs longer numbers.
const WIDE: u64 = 0xffff_ffff;

/// What stands around the bytes of a tensor.
#[derive(Clone, Debug)]
pub(super) struct Around {
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
}

/// An entry of the archive that is being made.
struct Entry<'a> {
    name: &'a str,
    at: u64,
    crc: u32,
    length: u64,
}

/// What stands around a tensor of this type and shape.
///
/// # Errors
/// [`Kind::Dtype`] for a type that torch doesn't know.
pub(super) fn around(dtype: Dtype, shape: &Shape) -> Result<Around> {
    let length = shape.bytes(dtype)?;
    let pickle = pickle(dtype, shape, length)?;
    let mut before = Vec::new();
    let mut entries = Vec::new();
    for (name, content) in [
        ("archive/data.pkl", &pickle[..]),
        ("archive/byteorder", b"little"),
    ] {
        let (at, crc, size) = (before.len() as u64, crc32(content), content.len() as u64);
        local(&mut before, name, crc, size, 0)?;
        before.extend_from_slice(content);
        entries.push(Entry {
            name,
            at,
            crc,
            length: size,
        });
    }
    let (name, at) = ("archive/data/0", before.len());
    // The extra field for lengths beyond 4 GB, and one that fills up to where data may begin.
    let wide = if length >= WIDE { 20 } else { 0 };
    let begin = at + 30 + name.len() + wide + 4;
    let fill = begin.next_multiple_of(ALIGNMENT) - begin;
    local(&mut before, name, 0, length, fill + 4)?;
    entries.push(Entry {
        name,
        at: at as u64,
        crc: 0,
        length,
    });
    let mut after = Vec::new();
    let end = (before.len() as u64).checked_add(length);
    let end = end.ok_or_else(|| Fault::new(Kind::Shape, "the tensor is too large"))?;
    let (name, content) = ("archive/version", b"3\n");
    entries.push(Entry {
        name,
        at: end,
        crc: crc32(content),
        length: 2,
    });
    local(&mut after, name, crc32(content), 2, 0)?;
    after.extend_from_slice(content);
    directory(&mut after, &entries, end)?;
    Ok(Around { before, after })
}

/// The archive of a value of which this is the pickle.
///
/// # Errors
/// [`Kind::Internal`] for one that is too long.
pub(in crate::store::formats) fn archive_of(pickle: &[u8]) -> Result<Vec<u8>> {
    let (mut out, mut entries) = (Vec::new(), Vec::new());
    for (name, content) in [
        ("archive/data.pkl", pickle),
        ("archive/byteorder", b"little"),
        ("archive/version", b"3\n"),
    ] {
        let (at, crc, length) = (out.len() as u64, crc32(content), content.len() as u64);
        local(&mut out, name, crc, length, 0)?;
        out.extend_from_slice(content);
        entries.push(Entry {
            name,
            at,
            crc,
            length,
        });
    }
    directory(&mut out, &entries, 0)?;
    Ok(out)
}

/// The pickle that makes the tensor.
fn pickle(dtype: Dtype, shape: &Shape, length: u64) -> Result<Vec<u8>> {
    let names = names_of(dtype);
    let unknown = || {
        Fault::new(
            Kind::Dtype,
            format!("PyTorch has no {dtype} that is written"),
        )
    };
    let (name, storage) = names.ok_or_else(unknown)?;
    let mut emit = Emit::new();
    let (function, module, storage, count) = match storage {
        "" => (
            "_rebuild_tensor_v3",
            "torch.storage",
            "UntypedStorage",
            length,
        ),
        storage => ("_rebuild_tensor_v2", "torch", storage, shape.elements()?),
    };
    emit.global("torch._utils", function)
        .raw(b"((")
        .text("storage")?;
    emit.global(module, storage).text("0")?.text("cpu")?;
    emit.count(count).raw(b"tQ").count(0);
    emit.counts(&shape.0).counts(&shape.strides()).raw(b"\x89");
    emit.global("collections", "OrderedDict").raw(b")R");
    if function == "_rebuild_tensor_v3" {
        emit.global("torch", name);
    }
    emit.raw(b"tR");
    Ok(emit.finished())
}

fn crc32(bytes: &[u8]) -> u32 {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes);
    u32::try_from(sum & WIDE).unwrap_or_default()
}

fn two(value: usize) -> Result<[u8; 2]> {
    let value = u16::try_from(value);
    let value =
        value.map_err(|_| Fault::new(Kind::Internal, "a field of an archive is too long"))?;
    Ok(value.to_le_bytes())
}

/// A number of four bytes, of which all are set where another place has it.
fn four(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

/// A local header, with an extra field of `fill` bytes in all, if there are any.
fn local(out: &mut Vec<u8>, name: &str, crc: u32, length: u64, fill: usize) -> Result<()> {
    let wide = length >= WIDE;
    let extra = fill + if wide { 20 } else { 0 };
    out.extend_from_slice(b"PK\x03\x04\x2d\0\0\x08\0\0\0\0\x21\0");
    out.extend_from_slice(&crc.to_le_bytes());
    for _ in 0..2 {
        out.extend_from_slice(&four(length));
    }
    out.extend_from_slice(&two(name.len())?);
    out.extend_from_slice(&two(extra)?);
    out.extend_from_slice(name.as_bytes());
    if wide {
        out.extend_from_slice(b"\x01\0\x10\0");
        for _ in 0..2 {
            out.extend_from_slice(&length.to_le_bytes());
        }
    }
    if let Some(padding) = fill.checked_sub(4) {
        out.extend_from_slice(b"FB");
        out.extend_from_slice(&two(padding)?);
        out.resize(out.len() + padding, b'Z');
    }
    Ok(())
}

/// The central directory, behind `end` and what is in `out`, and the records that end an archive.
fn directory(out: &mut Vec<u8>, entries: &[Entry<'_>], end: u64) -> Result<()> {
    let begin = end + out.len() as u64;
    let from = out.len();
    for entry in entries {
        let mut extra = Vec::new();
        for number in [entry.length, entry.length, entry.at] {
            if number >= WIDE {
                extra.extend_from_slice(&number.to_le_bytes());
            }
        }
        if !extra.is_empty() {
            let length = two(extra.len())?;
            extra.splice(0..0, [1, 0, length[0], length[1]]);
        }
        out.extend_from_slice(b"PK\x01\x02\x2d\0\x2d\0\0\x08\0\0\0\0\x21\0");
        out.extend_from_slice(&entry.crc.to_le_bytes());
        for _ in 0..2 {
            out.extend_from_slice(&four(entry.length));
        }
        out.extend_from_slice(&two(entry.name.len())?);
        out.extend_from_slice(&two(extra.len())?);
        out.extend_from_slice(&[0; 10]);
        out.extend_from_slice(&four(entry.at));
        out.extend_from_slice(entry.name.as_bytes());
        out.extend_from_slice(&extra);
    }
    let (size, count) = ((out.len() - from) as u64, entries.len() as u64);
    let record = end + out.len() as u64;
    out.extend_from_slice(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0\0\0\0\0\0\0\0\0");
    for number in [count, count, size, begin] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(b"PK\x06\x07\0\0\0\0");
    out.extend_from_slice(&record.to_le_bytes());
    out.extend_from_slice(b"\x01\0\0\0");
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        out.extend_from_slice(&two(entries.len())?);
    }
    out.extend_from_slice(&four(size));
    out.extend_from_slice(&four(begin));
    out.extend_from_slice(&[0; 2]);
    Ok(())
}
