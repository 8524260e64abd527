//! Any tensors, against an independent encoder, and any damage.

use super::tests::{bytes_of, content, fill, parse_bytes};
use super::*;
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use ::proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The messages by prost, to compare with.
pub(super) mod oracle {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    struct Checkpoint {
        #[prost(message, repeated, tag = "1")]
        value: Vec<Value>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Value {
        #[prost(string, required, tag = "1")]
        tag: String,
        #[prost(message, optional, tag = "2")]
        tensor: Option<Tensor>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Tensor {
        #[prost(int64, repeated, packed = "false", tag = "1")]
        dims: Vec<i64>,
        #[prost(string, required, tag = "2")]
        tensor_type: String,
        #[prost(bytes = "vec", required, tag = "3")]
        tensor_content: Vec<u8>,
    }

    pub(in crate::store::formats::ckpt) fn file(values: &[(&str, &[i64], &str, &[u8])]) -> Vec<u8> {
        let value = |(tag, dims, tensor_type, content): &(&str, &[i64], &str, &[u8])| Value {
            tag: (*tag).to_owned(),
            tensor: Some(Tensor {
                dims: dims.to_vec(),
                tensor_type: (*tensor_type).to_owned(),
                tensor_content: content.to_vec(),
            }),
        };
        Checkpoint {
            value: values.iter().map(value).collect(),
        }
        .encode_to_vec()
    }
}

fn any_dtype() -> impl ::proptest::strategy::Strategy<Value = Dtype> {
    prop::sample::select(vec![
        Dtype::Bool,
        Dtype::U8,
        Dtype::I16,
        Dtype::BF16,
        Dtype::F32,
        Dtype::C64,
        Dtype::U64,
    ])
}

proptest! {
    #[test]
    fn round_trip_of_any_tensors(
        tensors in prop::collection::btree_map(
            "[a-z.层]{1,300}",
            (any_dtype(), prop::collection::vec(0u64..7, 0..4)),
            1..9,
        ),
        block_bytes in 1u64..200,
    ) {
        let tensors: Vec<(Arc<str>, Dtype, Shape)> = tensors
            .into_iter()
            .map(|(name, (dtype, dims))| (name.into(), dtype, Shape(dims)))
            .collect();
        let whole = |name: &str| {
            let tensor = tensors.iter().find(|t| &*t.0 == name).unwrap();
            let length = tensor.2.bytes(tensor.1).unwrap();
            (0..length).map(|i| i.to_le_bytes()[0] ^ name.as_bytes()[0]).collect::<Vec<u8>>()
        };
        let designed = design(&tensors, &BTreeMap::new(), block_bytes).unwrap();
        let bytes = fill(&designed, whole);
        let found = parse_bytes(&bytes).unwrap();
        prop_assert_eq!(&found.entries, &designed.entries);
        for (name, _, _) in &tensors {
            prop_assert_eq!(content(&bytes, &found, name), whole(name));
        }

        let one = design(&tensors, &BTreeMap::new(), BLOCK_BYTES_MAX).unwrap();
        let contents: Vec<Vec<u8>> = tensors.iter().map(|t| whole(&t.0)).collect();
        let dims: Vec<Vec<i64>> = tensors
            .iter()
            .map(|t| t.2.0.iter().map(|dim| i64::try_from(*dim).unwrap()).collect())
            .collect();
        let values: Vec<(&str, &[i64], &str, &[u8])> = (0..tensors.len())
            .map(|i| (&*tensors[i].0, &*dims[i], tensors[i].1.ckpt_name().unwrap(), &*contents[i]))
            .collect();
        prop_assert_eq!(fill(&one, whole), oracle::file(&values));
    }

    #[test]
    fn any_damage_is_survived(
        path in prop::sample::select(vec![
            "save_formats/out/append.ckpt", "save_formats/out/crc.ckpt",
            "convert/single.ckpt", "save_formats/out/sliced.ckpt",
        ]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = bytes_of(path);
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        if let Ok(found) = parse_bytes(&bytes) {
            for entry in &found.entries {
                prop_assert_eq!(entry.bytes(), entry.shape.bytes(entry.dtype).unwrap());
                prop_assert!(entry.segments.iter().all(|s| s.end <= found.size));
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        head in any::<bool>(),
    ) {
        if head && !bytes.is_empty() {
            bytes[0] = 0x0a;
        }
        let _ = parse_bytes(&bytes);
    }
}
