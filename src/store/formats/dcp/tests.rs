//! Metadata that lies, and what is written read back.

use super::emit::Emit;
use super::metadata::parse;
use super::states::{FILES, METADATA};
use super::write::design;
use crate::fault::{Fault, Kind};
use crate::store::formats::pickle;
use crate::store::formats::torch::{Saved, tensor};
use crate::store::io::ReadFile;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a chunk is said to lie: its offsets, its file, the first byte and how many.
type Stored<'a> = (&'a [u64], &'a str, u64, u64);

/// `.metadata` of one tensor of this shape, of these chunks (offsets and sizes), stored so.
fn crafted(shape: &[u64], chunks: &[(&[u64], &[u64])], stored: &[Stored<'_>]) -> Vec<u8> {
    let mut emit = Emit::new();
    let begun = |emit: &mut Emit, name: &str| {
        emit.text(name).unwrap();
    };
    emit.object(METADATA, "Metadata").raw(b"}(");
    begun(&mut emit, "state_dict_metadata");
    emit.raw(b"}(");
    begun(&mut emit, "w");
    emit.object(METADATA, "TensorStorageMetadata").raw(b"}(");
    begun(&mut emit, "properties");
    emit.object(METADATA, "TensorProperties");
    emit.raw(b"(").global("torch", "float32").raw(b"NNNNtb");
    begun(&mut emit, "size");
    emit.size(shape);
    begun(&mut emit, "chunks");
    emit.raw(b"](");
    for (offsets, sizes) in chunks {
        emit.object(METADATA, "ChunkStorageMetadata").raw(b"}(");
        begun(&mut emit, "offsets");
        emit.size(offsets);
        begun(&mut emit, "sizes");
        emit.size(sizes).raw(b"ub");
    }
    emit.raw(b"eubu");
    begun(&mut emit, "storage_data");
    emit.raw(b"}(");
    for (offsets, file, begin, length) in stored {
        emit.object(METADATA, "MetadataIndex").raw(b"}(");
        begun(&mut emit, "fqn");
        begun(&mut emit, "w");
        begun(&mut emit, "offset");
        emit.size(offsets).raw(b"ub");
        emit.object(FILES, "_StorageInfo").raw(b"}(");
        begun(&mut emit, "relative_path");
        begun(&mut emit, file);
        begun(&mut emit, "offset");
        emit.count(*begin);
        begun(&mut emit, "length");
        emit.count(*length).raw(b"ub");
    }
    emit.raw(b"uub");
    emit.finished()
}

fn refused(bytes: &[u8], kind: Kind, words: &str) {
    let fault: Fault = parse(bytes).unwrap_err();
    assert!(
        fault.kind == kind && fault.message.contains(words),
        "{words}: {fault:?}"
    );
}

/// Two chunks of a tensor of shape [4, 3], and where they lie.
const FIRST: (&[u64], &[u64]) = (&[0, 0], &[2, 3]);
const SECOND: (&[u64], &[u64]) = (&[2, 0], &[2, 3]);
const WHOLE: Stored<'_> = (&[0, 0], "a", 0, 9);
const LOW: Stored<'_> = (&[2, 0], "a", 9, 9);

// proves P104
#[test]
fn chunks_that_lie_are_refused_by_name() {
    let both = &[FIRST, SECOND][..];
    let stored = &[WHOLE, LOW][..];
    let (missing, corrupt) = (Kind::MissingShard, Kind::Corrupt);
    let told = parse(&crafted(&[4, 3], both, stored)).unwrap();
    assert_eq!(told.tensors["w"].chunks.len(), 2);
    let max = u64::MAX >> 1;
    let over: (&[u64], &[u64]) = (&[1, 0], &[3, 3]);
    let far: (&[u64], &[u64]) = (&[max, 0], &[max, 3]);
    let flat: (&[u64], &[u64]) = (&[0, 0], &[4]);
    refused(&crafted(&[5, 3], both, stored), missing, "12 of its 15");
    refused(&crafted(&[3, 3], both, stored), corrupt, "outside");
    let overlaid = [WHOLE, (&[1, 0][..], "a", 9, 9)];
    refused(
        &crafted(&[4, 3], &[FIRST, over], &overlaid),
        corrupt,
        "overlap",
    );
    refused(&crafted(&[4, 3], &[FIRST], stored), missing, "6 of its 12");
    refused(
        &crafted(&[4, 3], &[FIRST, FIRST], stored),
        missing,
        "listed twice",
    );
    refused(&crafted(&[4, 3], &[flat], stored), corrupt, "outside");
    refused(&crafted(&[4, 3], &[FIRST, far], stored), corrupt, "outside");
    refused(
        &crafted(&[max, max], both, stored),
        Kind::Shape,
        "too large",
    );
    refused(&crafted(&[1 << 40, 3], both, stored), missing, "12 of its");
}

#[test]
fn places_that_lie_are_refused_by_name() {
    let both = &[FIRST, SECOND][..];
    let corrupt = Kind::Corrupt;
    for (begin, length) in [(0, 9), (8, 9), (3, 2)] {
        let within = (&[2, 0][..], "a", begin, length);
        let words = format!("from byte {begin} of a on (w at");
        refused(&crafted(&[4, 3], both, &[WHOLE, within]), corrupt, &words);
    }
    let other_file = (&[2, 0][..], "b", 0, 9);
    parse(&crafted(&[4, 3], both, &[WHOLE, other_file])).unwrap();
    refused(
        &crafted(&[4, 3], both, &[WHOLE]),
        Kind::MissingShard,
        "[2, 0]",
    );
    refused(
        &crafted(&[4, 3], both, &[WHOLE, LOW, LOW]),
        corrupt,
        "two places",
    );
    for path in ["../a", "/etc/a", "a/../../b", ""] {
        let stored = [WHOLE, (&[2, 0][..], path, 0, 9)];
        refused(&crafted(&[4, 3], both, &stored), corrupt, "outside");
    }
    let good = crafted(&[4, 3], both, &[WHOLE, LOW]);
    for (old, new, kind) in [
        ("size", "seiz", corrupt),
        ("float32", "float99", Kind::Dtype),
    ] {
        let mut bytes = good.clone();
        let mut places = bytes.windows(old.len());
        let at = places.position(|part| part == old.as_bytes()).unwrap();
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
        refused(&bytes, kind, new);
    }
}

#[test]
fn what_is_packed_or_there_twice_is_refused() {
    let good = crafted(&[4, 3], &[FIRST, SECOND], &[WHOLE, LOW]);
    let swapped = |old: &[u8], new: &[u8]| {
        let at = good
            .windows(old.len())
            .position(|part| part == old)
            .unwrap();
        [&good[..at], new, &good[at + old.len()..]].concat()
    };
    // A list of transforms behind the first length.
    let mut length = vec![b'X', 6, 0, 0, 0];
    length.extend(b"lengthK\x09");
    let mut packed = length.clone();
    packed.extend(b"X\x15\0\0\0transform_descriptors](X\x0d\0\0\0stream.zstd/1e");
    refused(
        &swapped(&length, &packed),
        Kind::Unsupported,
        "stream.zstd/1",
    );
    let twice = [&length[..], &length[..]].concat();
    refused(&swapped(&length, &twice), Kind::Corrupt, "twice");
    // What is stored of a tensor that isn't told of.
    let mut more = crafted(
        &[4, 3],
        &[FIRST, SECOND],
        &[WHOLE, LOW, (&[0, 0], "z.distcp", 0, 4)],
    );
    let name = b"X\x03\0\0\0fqnX\x01\0\0\0w";
    let last = more.windows(name.len()).rposition(|part| part == name);
    more[last.unwrap() + name.len() - 1] = b'v';
    refused(&more, Kind::Corrupt, "is stored");
    // The tensors once more.
    let begin = good.windows(4).position(|part| part == b"}(X\x01").unwrap() + 2;
    let end = good.windows(5).position(|part| part == b"eubuX").unwrap() + 3;
    let again = [&good[..end], &good[begin..end], &good[end..]].concat();
    let fault = parse(&again).unwrap_err();
    let kinds = [Kind::Corrupt, Kind::MissingShard];
    assert!(
        kinds.contains(&fault.kind) && fault.message.contains("twice"),
        "{fault:?}"
    );
}

#[test]
fn places_beyond_two_gigabytes_are_read_back() {
    for begin in [1u64 << 31, 1 << 33, (1 << 62) + 5] {
        let bytes = crafted(&[2, 3], &[(&[0, 0], &[2, 3])], &[(&[0, 0], "a", begin, 9)]);
        let told = parse(&bytes).unwrap();
        assert_eq!(told.tensors["w"].chunks[0].1.bytes, begin..begin + 9);
    }
}

#[test]
fn archives_are_read_back() {
    let tensors: Vec<(Arc<str>, Dtype, Shape)> = [
        ("a", Dtype::BF16, &[3u64, 5][..]),
        ("b", Dtype::F8_E4M3, &[7]),
        ("c", Dtype::F32, &[]),
        ("d", Dtype::I64, &[0, 4]),
    ]
    .map(|(name, dtype, shape)| (name.into(), dtype, Shape::from(shape)))
    .to_vec();
    let schema = design(&tensors, &BTreeMap::new()).unwrap();
    let mut bytes = vec![0; usize::try_from(schema.size).unwrap()];
    for (offset, literal) in &schema.literals {
        let at = usize::try_from(*offset).unwrap();
        bytes[at..at + literal.len()].copy_from_slice(literal);
    }
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("__0_0.distcp");
    std::fs::write(&path, &bytes).unwrap();
    let file = ReadFile::open(&path).unwrap();
    for (number, entry) in schema.entries.iter().enumerate() {
        let (begin, _) = schema.literals[2 * number];
        let (after, literal) = &schema.literals[2 * number + 1];
        let saved = Saved::open(&file, begin..after + literal.len() as u64).unwrap();
        let pickle = pickle::read(&saved.pickle).unwrap();
        let found = tensor(&pickle, pickle.root()).unwrap().unwrap();
        assert_eq!((found.dtype, &found.shape), (entry.dtype, &entry.shape));
        assert_eq!(saved.window(&found).unwrap(), entry.segments[0]);
        assert_eq!((entry.segments[0].start - begin) % 64, 0);
    }
}
