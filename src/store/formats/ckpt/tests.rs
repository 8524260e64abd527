//! Against files that MindSpore wrote, and hostile ones.

use super::properties::oracle;
use super::*;
use crate::catalog::FileSchema;
use crate::fault::{Fault, Kind, Result};
use crate::store::io::ReadFile;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path)
}

pub(super) fn bytes_of(path: &str) -> Vec<u8> {
    std::fs::read(data(path)).unwrap()
}

pub(super) fn parse_bytes(bytes: &[u8]) -> Result<FileSchema> {
    let read_at = |buffer: &mut [u8], offset: u64| {
        let begin = usize::try_from(offset).unwrap();
        let part = bytes.get(begin..begin + buffer.len());
        buffer.copy_from_slice(part.ok_or_else(|| Fault::new(Kind::Internal, "beyond the end"))?);
        Ok(())
    };
    parse(bytes.len() as u64, &read_at)
}

pub(super) fn content(bytes: &[u8], schema: &FileSchema, name: &str) -> Vec<u8> {
    let segments = &schema.get(name).unwrap().segments;
    let part = |s: &std::ops::Range<u64>| {
        &bytes[usize::try_from(s.start).unwrap()..usize::try_from(s.end).unwrap()]
    };
    segments.iter().flat_map(part).copied().collect()
}

/// Tensors of a schema, as a new file is designed from.
fn tensors(schema: &FileSchema) -> Vec<(Arc<str>, Dtype, Shape)> {
    let tensor = |e: &crate::catalog::Entry| (e.name.clone(), e.dtype, e.shape.clone());
    schema.entries.iter().map(tensor).collect()
}

/// Writes a designed file into memory; each byte must be written exactly once.
pub(super) fn fill(designed: &FileSchema, tensor: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let mut pieces = designed.literals.clone();
    for entry in &designed.entries {
        let bytes = tensor(&entry.name);
        let mut taken = 0;
        let whole = 0..entry.bytes();
        let visit = |offset, range: std::ops::Range<u64>| {
            let length = usize::try_from(range.end - range.start).unwrap();
            pieces.push((offset, bytes[taken..taken + length].to_vec()));
            taken += length;
            Ok(())
        };
        entry.locate(whole, visit).unwrap();
        assert_eq!(taken, bytes.len());
    }
    pieces.sort();
    let mut file = Vec::new();
    for (offset, piece) in pieces {
        assert_eq!(offset, file.len() as u64);
        file.extend(piece);
    }
    assert_eq!(designed.size, file.len() as u64);
    file
}

fn rebuild(bytes: &[u8], block_bytes: u64) -> Vec<u8> {
    let found = parse_bytes(bytes).unwrap();
    let designed = design(&tensors(&found), &found.metadata, block_bytes).unwrap();
    fill(&designed, |name| content(bytes, &found, name))
}

// proves P125
#[test]
fn rebuilds_mindspores_files_bit_for_bit() {
    for (path, block_bytes) in [
        ("save_formats/out/plain.ckpt", BLOCK_BYTES_MAX),
        ("save_formats/out/append.ckpt", BLOCK_BYTES_MAX),
        ("save_formats/out/sliced.ckpt", 1024),
        ("save_formats/out/sliced_list.ckpt", 1000),
        ("convert/single.ckpt", BLOCK_BYTES_MAX),
        ("convert/ck_single/single.ckpt", BLOCK_BYTES_MAX),
        ("dtypes/to_ckpt/rank_0/net.ckpt", BLOCK_BYTES_MAX),
        ("dtypes/reshard_ckpt/rank_1/ckpt_1.ckpt", BLOCK_BYTES_MAX),
        (
            "reshard_2_to_6/expected_ckpt/rank_0/ckpt_0.ckpt",
            BLOCK_BYTES_MAX,
        ),
        ("split_names/split_ckpt/rank_0/net.ckpt", BLOCK_BYTES_MAX),
    ] {
        let bytes = bytes_of(path);
        assert!(rebuild(&bytes, block_bytes) == bytes, "{path}");
    }
}

#[test]
fn finds_what_mindspores_conversion_finds() {
    let bytes = bytes_of("convert/single.ckpt");
    let found = parse_bytes(&bytes).unwrap();
    let path = data("convert/st_single/single.safetensors");
    let expected = crate::store::safetensors::read(&ReadFile::open(&path).unwrap()).unwrap();
    let theirs = std::fs::read(path).unwrap();
    assert_eq!(found.entries.len(), expected.entries.len());
    for entry in &expected.entries {
        let ours = found.get(&entry.name).unwrap();
        assert_eq!(
            (ours.dtype, &ours.shape),
            (entry.dtype, &entry.shape),
            "{}",
            entry.name
        );
        assert!(
            content(&bytes, &found, &entry.name) == content(&theirs, &expected, &entry.name),
            "{}",
            entry.name
        );
    }
}

// proves P124
#[test]
fn joins_blocks_of_one_tensor() {
    for (path, first) in [("sliced", 1024), ("sliced_list", 1000)] {
        let bytes = bytes_of(&format!("save_formats/out/{path}.ckpt"));
        let found = parse_bytes(&bytes).unwrap();
        let big = found.get("big").unwrap();
        assert_eq!(big.shape, Shape(vec![1000]));
        assert_eq!(big.segments.len(), 4);
        assert_eq!(big.segments[0].end - big.segments[0].start, first);
        let expected: Vec<u8> = (0u16..1000)
            .flat_map(|i| f32::from(i).to_le_bytes())
            .collect();
        assert_eq!(content(&bytes, &found, "big"), expected);
    }
}

#[test]
fn keeps_strings_as_metadata() {
    let found = parse_bytes(&bytes_of("save_formats/out/append.ckpt")).unwrap();
    assert!(found.get("note").is_none());
    let expected = BTreeMap::from([("ckpt.str.note".to_owned(), "hello".to_owned())]);
    assert_eq!(found.metadata, expected);
    assert_eq!(found.get("lr").unwrap().shape, Shape::default());
}

#[test]
fn writes_strings_and_drops_other_metadata() {
    let metadata = [
        ("ckpt.str.a", ""),
        ("ckpt.str.层", "深\u{1f600}"),
        ("format", "ms"),
    ];
    let metadata = metadata
        .map(|(key, text)| (key.to_owned(), text.to_owned()))
        .into();
    let bytes = fill(&design(&[], &metadata, 8).unwrap(), |_| Vec::new());
    let mut expected = metadata;
    expected.remove("format");
    assert_eq!(parse_bytes(&bytes).unwrap().metadata, expected);
}

#[test]
fn dims_of_zero_are_a_scalar_only_with_one_elements_bytes() {
    let tensor = |dims: &[i64], content: &[u8]| oracle::file(&[("a", dims, "Float32", content)]);
    let shape = |bytes: &[u8]| parse_bytes(bytes).map(|found| found.entries[0].shape.0.clone());
    assert_eq!(shape(&tensor(&[0], &[0; 4])), Ok(vec![]));
    assert_eq!(shape(&tensor(&[], &[0; 4])), Ok(vec![]));
    assert_eq!(shape(&tensor(&[0], &[])), Ok(vec![0]));
    assert_eq!(shape(&tensor(&[0, 3], &[])), Ok(vec![0, 3]));
    assert_eq!(shape(&tensor(&[1], &[0; 4])), Ok(vec![1]));
    assert_eq!(
        shape(&tensor(&[0], &[0; 8])).unwrap_err().kind,
        Kind::Corrupt
    );
}

#[test]
fn marks_packed_integers_as_mindspore_does() {
    let bytes = oracle::file(&[("w", &[2, 3], "Int4", &[1, 2, 3, 4, 5, 6])]);
    let found = parse_bytes(&bytes).unwrap();
    assert_eq!(found.entries[0].dtype, Dtype::I8);
    assert_eq!(
        found.metadata,
        BTreeMap::from([("w".to_owned(), "Int4".to_owned())])
    );
    assert_eq!(rebuild(&bytes, BLOCK_BYTES_MAX), bytes);
    let tensors = [(Arc::from("w"), Dtype::U8, Shape(vec![2, 3]))];
    assert_eq!(
        design(&tensors, &found.metadata, 8).unwrap_err().kind,
        Kind::Dtype
    );
}

#[test]
fn accepts_fields_in_any_order_and_packed_dims() {
    let tensor = b"\x1a\x06\x01\x02\x03\x04\x05\x06\x12\x05UInt8\x0a\x02\x02\x03";
    let mut bytes = b"\x0a\x18\x12\x13".to_vec();
    bytes.extend(tensor);
    bytes.extend(b"\x0a\x01a");
    let found = parse_bytes(&bytes).unwrap();
    assert_eq!(found.entries[0].shape, Shape(vec![2, 3]));
    assert_eq!(content(&bytes, &found, "a"), [1, 2, 3, 4, 5, 6]);
}

// proves P125
#[test]
fn verifies_a_checksum_only_when_asked() {
    let open = |path: &str| ReadFile::open(&data(path)).unwrap();
    let with = open("save_formats/out/crc.ckpt");
    let without = open("save_formats/out/plain.ckpt");
    seal(&with).unwrap().unwrap().check(&with).unwrap();
    assert_eq!(seal(&without), Ok(None));
    assert_eq!(
        read(&with).unwrap().entries,
        read(&without).unwrap().entries
    );
    let trailer = crc_trailer(&without, without.size()).unwrap();
    assert_eq!(
        [bytes_of("save_formats/out/plain.ckpt"), trailer.to_vec()].concat(),
        bytes_of("save_formats/out/crc.ckpt")
    );

    let wrong = open("hostile/ckpt_crc_wrong.ckpt");
    assert_eq!(read(&wrong).unwrap().entries.len(), 1);
    let fault = seal(&wrong).unwrap().unwrap().check(&wrong).unwrap_err();
    assert_eq!(fault.kind, Kind::Corrupt);
    assert!(fault.file.unwrap().ends_with("ckpt_crc_wrong.ckpt"));
}

#[test]
fn refuses_files_of_others() {
    for (path, kind, part) in [
        (
            "save_formats/out/enc_gcm.ckpt",
            Kind::Unsupported,
            "is encrypted (GCM)",
        ),
        (
            "save_formats/out/enc_cbc.ckpt",
            Kind::Unsupported,
            "is encrypted (CBC)",
        ),
        ("split_names/strategy/tp4.ckpt", Kind::Corrupt, "at byte 0"),
        (
            "convert/st_single/single.safetensors",
            Kind::Corrupt,
            "at byte",
        ),
    ] {
        let fault = read(&ReadFile::open(&data(path)).unwrap()).unwrap_err();
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(part), "{fault}");
        assert!(fault.hint.is_some() && fault.file.is_some());
    }
    assert_eq!(parse_bytes(&[]).unwrap_err().kind, Kind::Corrupt);
    let nothing = design(&[], &BTreeMap::new(), BLOCK_BYTES_MAX).unwrap_err();
    assert_eq!(nothing.kind, Kind::Unsupported);
}

#[test]
fn refuses_hostile_files_by_name_and_place() {
    let mut seen = 0;
    for entry in std::fs::read_dir(data("hostile")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name
            .strip_prefix("ckpt_")
            .and_then(|n| n.strip_suffix(".ckpt"))
        else {
            continue;
        };
        seen += 1;
        let outcome = read(&ReadFile::open(&data(&format!("hostile/ckpt_{name}.ckpt"))).unwrap());
        let kind = match name {
            "crc_wrong" => {
                assert_eq!(outcome.unwrap().entries.len(), 1);
                continue;
            }
            "map_tensor" => Kind::Unsupported,
            "type_unknown" => Kind::Dtype,
            _ => Kind::Corrupt,
        };
        let fault = outcome.unwrap_err();
        assert_eq!(fault.kind, kind, "{name}: {fault}");
        let placed = fault.message.contains("at byte") || name == "name_twice";
        assert!(placed, "{name}: {fault}");
    }
    assert_eq!(seen, 31);
    let fault = parse_bytes(&bytes_of("hostile/ckpt_type_unknown.ckpt")).unwrap_err();
    assert_eq!(fault.to_string(), "a: type 'Float7' is unknown, at byte 0");
    let fault = parse_bytes(&bytes_of("hostile/ckpt_truncated.ckpt")).unwrap_err();
    let text = "a value claims 26 bytes, 23 are left (truncated?), at byte 1";
    assert_eq!(fault.to_string(), text);
}

#[test]
fn every_cut_inside_a_value_is_noticed() {
    let bytes = bytes_of("save_formats/out/append.ckpt");
    let mut whole = 0;
    for length in 1..bytes.len() {
        match parse_bytes(&bytes[..length]) {
            Ok(_) => whole += 1,
            Err(fault) => assert_eq!(fault.kind, Kind::Corrupt, "{fault}"),
        }
    }
    // Between two of the nine values.
    assert_eq!(whole, 8);
}

#[test]
fn tells_which_dtype_has_no_name() {
    let tensors = [(Arc::from("w"), Dtype::F8_E8M0, Shape(vec![2]))];
    let fault = design(&tensors, &BTreeMap::new(), 8).unwrap_err();
    assert_eq!(
        (fault.kind, fault.tensor.as_deref()),
        (Kind::Dtype, Some("w"))
    );
}

// proves P124
#[test]
fn content_of_just_the_limit_is_one_block() {
    let one = |elements, limit| {
        let tensors = [(Arc::from("w"), Dtype::F64, Shape(vec![elements]))];
        design(&tensors, &BTreeMap::new(), limit).unwrap().entries[0]
            .segments
            .len()
    };
    assert_eq!(
        [one(0, 64), one(8, 64), one(9, 64), one(16, 64)],
        [1, 1, 2, 2]
    );
    assert_eq!(one(1 << 26, BLOCK_BYTES_MAX), 1);
    assert_eq!(one((1 << 26) + 1, BLOCK_BYTES_MAX), 2);
}
