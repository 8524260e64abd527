//! Hostile and unusual checkpoints: refused by name before anything is written, or moved unharmed.

use crate::support::{command, fixtures, oracle, sample, tensors};
use command::{RESHARD, alone, error_line, nothing_written, object, refuses, under_mpi};
use fixtures::tensors_of;
use oracle::Strategy;
use sample::{Sample, layout};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use tensors::{Tensor, Tensors};

// proves P11
#[test]
fn hostile_source_files_are_refused_by_name() {
    let entry = |name: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let object = |items: &[String]| format!("{{{}}}", items.join(","));
    let zeros = [0u8; 64];
    let cases: [(&str, String, &[u8]); 12] = [
        (
            "data cut short",
            object(&[entry("b", "[16]", 0, 64)]),
            &zeros[..60],
        ),
        ("data to spare", object(&[entry("b", "[8]", 0, 32)]), &zeros),
        (
            "shape and bytes disagree",
            object(&[entry("b", "[15]", 0, 64)]),
            &zeros,
        ),
        (
            "offsets backwards",
            object(&[entry("b", "[16]", 64, 0)]),
            &zeros,
        ),
        (
            "offsets beyond the file",
            object(&[entry("b", "[16]", 4096, 4160)]),
            &zeros,
        ),
        (
            "duplicate names",
            object(&[entry("b", "[8]", 0, 32), entry("b", "[8]", 32, 64)]),
            &zeros,
        ),
        (
            "overlapping offsets",
            object(&[entry("b", "[10]", 0, 40), entry("w1", "[10]", 24, 64)]),
            &zeros,
        ),
        (
            "a hole",
            object(&[entry("b", "[4]", 0, 16), entry("w1", "[8]", 32, 64)]),
            &zeros,
        ),
        (
            "shape that overflows",
            object(&[entry("b", "[4294967296,4294967296,16]", 0, 64)]),
            &zeros,
        ),
        (
            "unknown dtype",
            r#"{"b":{"dtype":"F33","shape":[16],"data_offsets":[0,64]}}"#.to_owned(),
            &zeros,
        ),
        ("not JSON", "{\"b\":".to_owned(), &zeros),
        ("not an object", "[]".to_owned(), &zeros),
    ];
    for (what, header, data) in cases {
        let sample = Sample::new();
        tensors::write_raw(&sample.path("src/rank_1/net.safetensors"), &header, data);
        let run = alone(&sample.args(RESHARD));
        assert_eq!(run.status.code(), Some(1), "{what}: {run:#?}");
        assert!(
            error_line(&run).contains("rank_1/net.safetensors"),
            "{what}: {run:#?}"
        );
        nothing_written(&sample);
    }
}

#[test]
fn hostile_lengths_are_refused_before_memory_is_taken() {
    let huge = 100_000_000u64;
    for (length, rest) in [
        (huge, 16usize),
        (u64::MAX, 16),
        (u64::MAX - 7, 0),
        (0, 0),
        (3, 1),
    ] {
        let sample = Sample::new();
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(vec![b' '; rest]);
        tensors::write_bytes(&sample.path("src/rank_3/net.safetensors"), &bytes);
        refuses(&alone(&sample.args(RESHARD)), "rank_3/net.safetensors");
        nothing_written(&sample);
    }
    for length in [0usize, 7] {
        let sample = Sample::new();
        tensors::write_bytes(&sample.path("src/rank_3/net.safetensors"), &vec![0; length]);
        refuses(&alone(&sample.args(RESHARD)), "rank_3/net.safetensors");
        nothing_written(&sample);
    }
}

#[test]
fn truncated_shard_is_refused_on_every_process_count() {
    for processes in [1, 4] {
        let sample = Sample::new();
        let path = sample.path("src/rank_2/net.safetensors");
        let bytes = std::fs::read(&path).expect("a shard");
        std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("cut");
        let run = under_mpi(processes, &sample.args(RESHARD));
        refuses(&run, "rank_2/net.safetensors");
        nothing_written(&sample);
    }
}

// proves P15
#[test]
fn shard_of_another_shape_is_refused() {
    let sample = Sample::new();
    let mut shards = sample.four.cut(&sample.whole, 1).expect("it can be cut");
    shards.insert("w1".to_owned(), Tensor::counting("BF16", &[4, 16], 0));
    tensors::write(&sample.path("src/rank_1/net.safetensors"), &shards);
    let run = alone(&sample.args(RESHARD));
    refuses(&run, "w1");
    assert!(error_line(&run).contains("rank_1"), "{run:#?}");
    nothing_written(&sample);
}

// proves P15
#[test]
fn shard_of_another_dtype_is_refused() {
    let sample = Sample::new();
    let mut shards = sample.four.cut(&sample.whole, 1).expect("it can be cut");
    shards.insert("w1".to_owned(), Tensor::counting("F16", &[4, 8], 0));
    tensors::write(&sample.path("src/rank_1/net.safetensors"), &shards);
    refuses(&alone(&sample.args(RESHARD)), "w1");
    nothing_written(&sample);
}

#[test]
fn names_and_dtypes_of_every_kind_survive() {
    let dtypes = [
        "BOOL",
        "U8",
        "I8",
        "F8_E5M2",
        "F8_E4M3",
        "F8_E8M0",
        "F8_E4M3FNUZ",
        "F8_E5M2FNUZ",
        "I16",
        "U16",
        "F16",
        "BF16",
        "I32",
        "U32",
        "F32",
        "C64",
        "F64",
        "I64",
        "U64",
    ];
    let names = [
        "层.0.权重",
        "слой.вес",
        "طبقة",
        "レイヤー",
        "e\u{301}",
        "naïve \"quoted\" \\ name",
        "a b\tc",
        "🧵.loom",
        "..",
        "a/b/c",
    ];
    let mut whole = Tensors::new();
    let (mut four, mut two) = (Vec::new(), Vec::new());
    for (number, dtype) in dtypes.iter().enumerate() {
        let name = format!("dtype.{dtype}");
        whole.insert(name.clone(), Tensor::counting(dtype, &[4, 8], number * 7));
        four.push((name.clone(), layout(&[2, 2], &[-1, 0])));
        two.push((name, layout(&[2], &[0, -1])));
    }
    for (number, name) in names.iter().enumerate() {
        whole.insert(
            (*name).to_owned(),
            Tensor::counting("F32", &[4, 2, 2], number),
        );
        four.push(((*name).to_owned(), layout(&[4], &[0, -1, -1])));
        two.push(((*name).to_owned(), layout(&[2], &[-1, -1, 0])));
    }
    for (name, dtype, shape) in [
        ("scalar", "F64", &[][..]),
        ("one", "I32", &[1]),
        ("empty", "BF16", &[0]),
        ("empty.rows", "F32", &[4, 0, 3]),
        ("half.bytes", "F4", &[4, 4]),
        ("six.bits", "F6_E2M3", &[4, 4]),
    ] {
        whole.insert(name.to_owned(), Tensor::counting(dtype, shape, 5));
        let map = vec![-1; shape.len()];
        four.push((name.to_owned(), layout(&[4], &map)));
        two.push((name.to_owned(), layout(&[2], &map)));
    }
    let strategy = |items: &[(String, oracle::Layout)]| {
        let items: Vec<_> = items.iter().map(|(n, l)| (n.as_str(), l.clone())).collect();
        Strategy::of(&items)
    };
    let sample = Sample::of(whole, strategy(&four), strategy(&two));
    under_mpi(3, &sample.args(&format!("{RESHARD} --exchange collective"))).succeeds();
    sample.check("out", &sample.two, &sample.whole);
    let line = "unify --src @src --src-strategy @four.ckpt --dst @all --naming mindspore";
    alone(&sample.args(line)).succeeds();
    let found = tensors_of(&sample.path("all/part0.safetensors")).expect("readable");
    tensors::compare(&sample.whole, &found).expect("equal");
}

#[test]
fn ten_thousand_tensors_are_no_trouble() {
    let mut whole = Tensors::new();
    let (mut four, mut two) = (Vec::new(), Vec::new());
    for number in 0..10_000 {
        let name = format!("layers.{}.expert.{}.weight", number / 100, number % 100);
        whole.insert(name.clone(), Tensor::counting("BF16", &[4, 4], number));
        four.push((name.clone(), layout(&[4], &[0, -1])));
        two.push((name, layout(&[2], &[-1, 0])));
    }
    let strategy = |items: Vec<(String, oracle::Layout)>| Strategy {
        items: items
            .into_iter()
            .map(|(name, layout)| (0, name, layout))
            .collect(),
    };
    let sample = Sample::of(whole, strategy(four), strategy(two));
    let run = under_mpi(2, &sample.args(RESHARD)).succeeds();
    sample.check("out", &sample.two, &sample.whole);
    assert!(run.elapsed.as_secs() < 20, "{:?}", run.elapsed);
}

/// Writes a file with 5 GiB of holes for `big`, and `small` behind them.
fn sparse(path: &Path, small: &Tensor) {
    const BIG: u64 = 5 << 30;
    let end = BIG + u64::try_from(small.data.len()).expect("small");
    let header = format!(
        r#"{{"big":{{"dtype":"U8","shape":[640,{}],"data_offsets":[0,{BIG}]}},"small":{{"dtype":"F32","shape":[8,4],"data_offsets":[{BIG},{end}]}}}}"#,
        BIG / 640
    );
    tensors::write_raw(path, &header, &[]);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("open");
    let length = 8 + u64::try_from(header.len()).expect("small");
    file.seek(SeekFrom::Start(length + BIG)).expect("seek");
    file.write_all(&small.data).expect("write");
}

#[test]
fn a_tensor_that_does_not_fill_its_bytes_is_named() {
    for (dtype, shape, end, word) in [
        (
            "F32",
            "[3]",
            8,
            "has 12 bytes, its place is from byte 0 to 8",
        ),
        (
            "F32",
            "[4294967296,4294967296]",
            8,
            "is larger than any file",
        ),
        ("F4", "[3]", 8, "doesn't fill whole bytes"),
    ] {
        let sample = Sample::new();
        let header =
            format!(r#"{{"odd":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
        tensors::write_raw(&sample.path("bad/model.safetensors"), &header, &[0; 8]);
        let run = alone(&sample.args("unify --src @bad --dst @out"));
        command::refuses(&run, "odd");
        assert!(run.stderr.contains(word), "{run:?}");
    }
}

#[test]
fn offsets_beyond_four_gibibytes_are_right() {
    let sample = Sample::new();
    let small = Tensor::counting("F32", &[8, 4], 17);
    sparse(&sample.path("large/model.safetensors"), &small);
    let halves = Strategy::of(&[
        ("big", layout(&[2], &[0, -1])),
        ("small", layout(&[2], &[0, -1])),
    ]);
    tensors::write_bytes(&sample.path("halves.ckpt"), &oracle::to_protobuf(&halves));
    let line = "split --src @large --dst @out --dst-strategy @halves.ckpt --dry-run --json";
    let result = object(&alone(&sample.args(line)).succeeds());
    assert!(
        result["bytes"]["written"].as_u64() >= Some(5 << 30),
        "{result}"
    );
    assert!(
        result["bytes"]["written"].as_u64() < Some((5 << 30) + (1 << 20)),
        "{result}"
    );
    nothing_written(&sample);

    // Only what lies behind the first 5 GiB is moved for real.
    let one = Strategy::of(&[("small", layout(&[2], &[0, -1]))]);
    tensors::write_bytes(&sample.path("one.ckpt"), &oracle::to_protobuf(&one));
    let line =
        "reshard --src @large --dst @out --dst-strategy @one.ckpt --filter-out-param-prefix big";
    under_mpi(2, &sample.args(line)).succeeds();
    sample.check("out", &one, &Tensors::from([("small".to_owned(), small)]));
}
