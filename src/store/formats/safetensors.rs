//! The safetensors format: headers found and designed.
//!
//! A file is an 8-byte little-endian header length, a JSON header, then the tensors' bytes without
//! gaps. The crate's own checks are used; it accepts duplicate names, so those are checked here.

mod refused;

use crate::catalog::{Entry, FileSchema};
use crate::fault::memory::zeroed;
use crate::fault::{Fault, Kind, Result};
use crate::store::formats::row::{FileFormat, Start};
use crate::store::formats::seal::{Seal, Sealed};
use crate::store::io::ReadFile;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use ::safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Longest header that is read, as in the reference implementation.
pub const HEADER_BYTES_MAX: u64 = 100_000_000;

/// The key of the header that is no tensor.
const METADATA: &str = "__metadata__";

/// The key of MindSpore's CRC of all names and tensors, in decimal.
const CRC: &str = "crc_num";

/// The safetensors format.
pub struct Safetensors;

impl FileFormat for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn about(&self) -> &'static str {
        "safetensors"
    }

    fn extension(&self) -> &'static str {
        "safetensors"
    }

    fn keeps_metadata(&self) -> bool {
        true
    }

    fn recognise(&self, start: &Start<'_>) -> bool {
        let Some((length, rest)) = start.bytes.split_first_chunk() else {
            return false;
        };
        u64::from_le_bytes(*length) <= HEADER_BYTES_MAX && rest.starts_with(b"{")
    }

    fn read(&self, file: &ReadFile) -> Result<FileSchema> {
        read(file)
    }

    fn header(&self, file: &ReadFile) -> Result<Option<Vec<u8>>> {
        header(file).map(Some)
    }

    fn design(
        &self,
        tensors: &[(Arc<str>, Dtype, Shape)],
        metadata: &BTreeMap<String, String>,
    ) -> Result<FileSchema> {
        design(tensors, metadata)
    }

    fn marks(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("format".to_owned(), "ms".to_owned())])
    }

    fn may_be_sealed(&self, metadata: &BTreeMap<String, String>) -> bool {
        metadata.contains_key(CRC)
    }

    fn seals(&self, file: &ReadFile) -> Result<Vec<Seal>> {
        read(file).map(|schema| seal(&schema).into_iter().collect())
    }
}

/// What MindSpore's CRC of a file, if it has one, is of: each name, in their order, and the bytes of its tensor.
fn seal(schema: &FileSchema) -> Option<Seal> {
    let crc = schema.metadata.get(CRC)?.parse().ok()?;
    let mut entries: Vec<&Entry> = schema.entries.iter().collect();
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let parts = entries.into_iter().flat_map(|entry| {
        let names = std::iter::once(entry.name.as_bytes()).chain(std::iter::repeat(&[][..]));
        let parts = names.zip(&entry.segments);
        parts.map(|(before, range)| Sealed {
            before: before.to_vec(),
            range: range.clone(),
        })
    });
    Some(Seal {
        parts: parts.collect(),
        crc,
        name: None,
    })
}

/// Reads and checks the header of an open file.
///
/// # Errors
/// [`Kind::Corrupt`] for a header that is truncated, too long, no JSON, has a name twice, an unknown
/// dtype, or byte ranges that overlap, leave gaps or don't end with the file.
pub fn read(file: &ReadFile) -> Result<FileSchema> {
    let at = |fault: Fault| fault.file(file.path().display().to_string());
    parse(&header(file)?, file.size()).map_err(at)
}

/// Reads the header's JSON: all that a file's structure follows from, beside its size.
///
/// # Errors
/// [`Kind::Corrupt`] for a header that is truncated or too long.
pub fn header(file: &ReadFile) -> Result<Vec<u8>> {
    let at = |fault: Fault| fault.file(file.path().display().to_string());
    let corrupt = |message: String| at(Fault::new(Kind::Corrupt, message));
    let mut length = [0; 8];
    if file.size() < 8 {
        return Err(corrupt(format!(
            "is no safetensors file: it has {} bytes",
            file.size()
        )));
    }
    file.read_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES_MAX || length > file.size() - 8 {
        return Err(corrupt(format!(
            "header claims {length} bytes, the file has {} (truncated, or no safetensors file)",
            file.size()
        )));
    }
    let mut header = zeroed(usize::try_from(length).unwrap_or(usize::MAX)).map_err(at)?;
    file.read_at(&mut header, 8)?;
    Ok(header)
}

/// Checks a header's JSON for a file of `size` bytes.
///
/// # Errors
/// As [`read`].
pub fn parse(header: &[u8], size: u64) -> Result<FileSchema> {
    let corrupt = |message: String| Fault::new(Kind::Corrupt, message);
    let mut reader = serde_json::Deserializer::from_slice(header);
    let Header { metadata, tensors } = reader
        .deserialize_map(HeaderVisitor)
        .and_then(|parsed| reader.end().map(|()| parsed))
        .map_err(|error| {
            let fault = corrupt(format!("header is wrong: {error}"));
            match fault.message.contains("__metadata__") {
                true => fault.hint(
                    "save it again with texts there: save_file(…, metadata={name: str(value)})",
                ),
                false => fault,
            }
        })?;
    let data = 8 + header.len() as u64;
    let checked =
        Metadata::new(None, tensors.clone()).map_err(|error| refused::refused(&tensors, &error))?;
    let end = data.checked_add(checked.data_len() as u64);
    if end != Some(size) {
        let fault = corrupt(match end {
            Some(end) if end < size => format!(
                "has {} bytes too many: its tensors end at byte {end}, the file at {size}",
                size - end
            ),
            Some(end) => {
                format!("header describes a file of {end} bytes, it has {size} (truncated?)")
            }
            None => "header describes a file that is larger than any".to_owned(),
        });
        return Err(match end.is_some_and(|end| end < size) {
            true => fault.hint(
                "was something appended, or a longer file written over? Copy, download or save it again",
            ),
            false => fault,
        });
    }
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, info) in tensors {
        let dtype = serde_json::to_value(info.dtype).ok();
        let dtype = dtype
            .as_ref()
            .and_then(|name| name.as_str())
            .unwrap_or_default();
        entries.push(Entry {
            dtype: Dtype::from_safetensors(dtype).map_err(|fault| fault.tensor(name.as_str()))?,
            name: name.into(),
            shape: Shape(info.shape.iter().map(|dim| *dim as u64).collect()),
            segments: std::iter::once(
                data + info.data_offsets.0 as u64..data + info.data_offsets.1 as u64,
            )
            .collect(),
        });
    }
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| (entry.segments[0].start, entry.segments[0].end);
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    FileSchema::new(entries, metadata, Vec::new(), size)
}

/// Lays out a file for `tensors`: by dtype, widest first, then by name, header padded with spaces to
/// a multiple of 8, as MindSpore's files are.
///
/// # Errors
/// [`Kind::Shape`] for a tensor that doesn't fill whole bytes.
pub fn design(
    tensors: &[(Arc<str>, Dtype, Shape)],
    metadata: &BTreeMap<String, String>,
) -> Result<FileSchema> {
    let mut order: Vec<&(Arc<str>, Dtype, Shape)> = tensors.iter().collect();
    order.sort_by(|a, b| {
        a.1.file_order()
            .cmp(&b.1.file_order())
            .then_with(|| a.0.cmp(&b.0))
    });
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.into(), serde_json::json!(metadata));
    }
    let mut entries = Vec::with_capacity(order.len());
    let mut end = 0u64;
    for (name, dtype, shape) in order {
        if &**name == METADATA {
            let message = "no tensor of a safetensors file can have this name";
            let fault = Fault::new(Kind::Unsupported, message).tensor(&**name);
            return Err(fault.hint("give it another one with --name-map"));
        }
        let bytes = shape.bytes(*dtype).map_err(|fault| fault.tensor(&**name))?;
        let begin = end;
        end = begin.checked_add(bytes).ok_or_else(|| {
            Fault::new(Kind::Shape, "the file would be too large").tensor(&**name)
        })?;
        let info = serde_json::json!({
            "dtype": dtype.safetensors_name(), "shape": shape, "data_offsets": [begin, end],
        });
        header.insert(name.to_string(), info);
        let entry = Entry {
            name: name.clone(),
            dtype: *dtype,
            shape: shape.clone(),
            segments: std::iter::once(begin..end).collect(),
        };
        entries.push(entry);
    }
    let mut text = serde_json::Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    if text.len() as u64 > HEADER_BYTES_MAX {
        return Err(Fault::new(
            Kind::Unsupported,
            "the header would be over 100 MB long",
        ));
    }
    let data = 8 + text.len() as u64;
    for segment in entries.iter_mut().flat_map(|entry| &mut entry.segments) {
        *segment = segment.start + data..segment.end + data;
    }
    let mut literal = (text.len() as u64).to_le_bytes().to_vec();
    literal.append(&mut text);
    FileSchema::new(entries, metadata.clone(), vec![(0, literal)], data + end)
}

struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, TensorInfo)>,
}

/// Reads the header's map, refusing a name that occurs twice.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let mut header = Header {
            metadata: BTreeMap::new(),
            tensors: Vec::new(),
        };
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(serde::de::Error::custom(format!(
                    "the name '{name}' occurs twice"
                )));
            }
            if name == METADATA {
                header.metadata = texts(map.next_value()?).map_err(serde::de::Error::custom)?;
            } else {
                let info = map.next_value().map_err(|error| {
                    serde::de::Error::custom(format!("tensor '{name}': {error}"))
                })?;
                header.tensors.push((name, info));
            }
        }
        Ok(header)
    }
}

/// The texts of `__metadata__`, which may be null.
fn texts(
    metadata: Option<HashMap<String, serde_json::Value>>,
) -> std::result::Result<BTreeMap<String, String>, String> {
    let texts = metadata.unwrap_or_default().into_iter();
    let text = |(key, value)| match value {
        serde_json::Value::String(text) => Ok((key, text)),
        other => Err(format!(
            "{METADATA}: the value of '{key}' is {other}, not a text"
        )),
    };
    texts.map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema_of(tensors: &[(&str, Dtype, &[u64])]) -> FileSchema {
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, dims)| (Arc::from(*name), *dtype, Shape::from(*dims)))
            .collect();
        let metadata = BTreeMap::from([("format".to_owned(), "ms".to_owned())]);
        design(&tensors, &metadata).unwrap()
    }

    #[test]
    fn reads_back_what_it_lays_out() {
        let designed = schema_of(&[
            ("b", Dtype::BF16, &[3, 2]),
            ("层.a", Dtype::F32, &[]),
            ("empty", Dtype::I64, &[0, 4]),
            ("c", Dtype::Bool, &[5]),
        ]);
        let names: Vec<&str> = designed.entries.iter().map(|e| &*e.name).collect();
        assert_eq!(names, ["empty", "层.a", "b", "c"]);
        let found = parse(&designed.literals[0].1[8..], designed.size).unwrap();
        assert_eq!(found.metadata, designed.metadata);
        assert_eq!(found.entries, designed.entries);
    }

    #[test]
    fn an_empty_file_is_a_bare_map() {
        let designed = design(&[], &BTreeMap::new()).unwrap();
        assert_eq!(&designed.literals[0].1[8..], b"{}      ");
    }

    #[test]
    fn says_what_is_odd_about_a_header() {
        let told = |header: &str, spare: u64| {
            let parsed = parse(header.as_bytes(), 8 + header.len() as u64 + spare);
            parsed.map_or_else(
                |fault| fault.message,
                |schema| format!("{:?}", schema.metadata),
            )
        };
        assert_eq!(told(r#"{"__metadata__":null}"#, 0), "{}");
        assert_eq!(told(r#"{"__metadata__":{}}"#, 0), "{}");
        let number = told(r#"{"__metadata__":{"step":7}}"#, 0);
        assert!(
            number.contains("the value of 'step' is 7, not a text"),
            "{number}"
        );
        let spare = told(
            r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
            7,
        );
        assert!(spare.contains("has 5 bytes too many"), "{spare}");
        let named = (Arc::from(METADATA), Dtype::U8, Shape::from([1].as_slice()));
        let refused = design(&[named], &BTreeMap::new());
        assert_eq!(refused.unwrap_err().kind, Kind::Unsupported);
    }

    // proves P107
    #[test]
    fn refuses_headers_that_lie() {
        let good = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
        assert!(parse(good.as_bytes(), 8 + good.len() as u64 + 2).is_ok());
        for bad in [
            r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}}"#,
            r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#,
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,2]}}"#,
            r#"{"a":{"dtype":"Q9","shape":[2],"data_offsets":[0,2]}}"#,
            r#"{"a":{"dtype":"U8","shape":[18446744073709551615,2],"data_offsets":[0,2]}}"#,
            r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,3]}}"#,
            r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
            r#"{"__metadata__":{"x":1}}"#,
            "[]",
            "{",
        ] {
            let size = 8 + bad.len() as u64 + 2;
            assert_eq!(
                parse(bad.as_bytes(), size).unwrap_err().kind,
                Kind::Corrupt,
                "{bad}"
            );
        }
    }
}
