//! Tensors whose values are others than those that are stored: refused by name, not read as if they weren't.

use super::gather::gather;
use crate::fault::{Fault, Kind};
use crate::store::formats::pickle;
use crate::tensor::shape::Shape;

/// What of a tensor's making differs from the usual.
#[derive(Clone, Copy, Default)]
struct Made {
    /// Opcodes behind its hooks, or behind its type where that is told.
    more: &'static [u8],
    /// Opcodes behind the call.
    after: &'static [u8],
    /// Its type is told apart from its storage.
    typed: bool,
}

/// A storage of 16 bytes.
fn storage(out: &mut Vec<u8>, typed: bool) {
    out.extend_from_slice(b"(X\x07\0\0\0storage");
    match typed {
        true => out.extend_from_slice(b"ctorch.storage\nUntypedStorage\n"),
        false => out.extend_from_slice(b"ctorch\nFloatStorage\n"),
    }
    out.extend_from_slice(b"X\x01\0\0\x000X\x03\0\0\0cpu");
    out.extend_from_slice(if typed { b"K\x10" } else { b"K\x04" });
    out.extend_from_slice(b"tQ");
}

/// The pickle of a mapping with the tensor `net.w`, of 4 elements.
fn pickled(made: Made) -> Vec<u8> {
    let mut out = b"\x80\x02}X\x03\0\0\0net}X\x01\0\0\0w".to_vec();
    let function = if made.typed { b'3' } else { b'2' };
    out.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v");
    out.extend_from_slice(&[function, b'\n', b'(']);
    storage(&mut out, made.typed);
    out.extend_from_slice(b"K\0K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)R");
    if made.typed {
        out.extend_from_slice(b"ctorch\nuint32\n");
    }
    out.extend_from_slice(made.more);
    out.extend_from_slice(b"tR");
    out.extend_from_slice(made.after);
    out.extend_from_slice(b"ss.");
    out
}

fn gathered(bytes: &[u8]) -> Result<usize, Fault> {
    let found = gather(&pickle::read(bytes)?)?;
    let shapes = found.tensors.values().map(|tensor| tensor.shape.clone());
    assert_eq!(shapes.collect::<Vec<_>>(), [Shape(vec![4])]);
    Ok(found.tensors.len())
}

const CONJUGATE: &[u8] = b"}X\x04\0\0\0conj\x88s";
const NEGATIVE: &[u8] = b"}(X\x04\0\0\0conj\x89X\x03\0\0\0neg\x88u";
const NEITHER: &[u8] = b"}(X\x04\0\0\0conj\x89X\x03\0\0\0neg\x89u";
const OF_DEVICE: &[u8] = b"}(X\x0e\0\0\0base_sizes_/4/\x88X\x0e\0\0\0npu_format_/ND\x88u";
const UNKNOWN: &[u8] = b"}X\x07\0\0\0inverse\x88s";

#[test]
fn what_is_stored_with_bits_that_change_it_is_refused_by_name() {
    for typed in [false, true] {
        let of = |more: &'static [u8], after: &'static [u8]| {
            gathered(&pickled(Made { more, after, typed }))
        };
        for plain in [&b""[..], b"N", b"}", NEITHER, OF_DEVICE] {
            assert_eq!(of(plain, b"").unwrap(), 1);
        }
        assert_eq!(of(b"", b"}b").unwrap(), 1);
        for (more, after, word) in [
            (CONJUGATE, &b""[..], "is the conjugate"),
            (NEGATIVE, b"", "is the negative"),
            (UNKNOWN, b"", "'inverse' in its metadata"),
            (b"K\x01", b"", "no mapping"),
            (b"NN", b"", "arguments"),
            (b"", b"(K\0K\x01tb", "is changed"),
            (b"", b"K\0K\x01s", "is changed"),
        ] {
            let fault = of(more, after).unwrap_err();
            assert_eq!(fault.kind, Kind::Unsupported, "{fault}");
            assert!(fault.message.contains(word), "{fault}, not {word}");
            assert_eq!(fault.tensor.as_deref(), Some("net.w"));
            assert!(fault.hint.unwrap().contains("resolve_conj"));
        }
    }
}

#[test]
fn sparse_and_quantised_tensors_are_refused_by_name() {
    for (function, word, hint) in [
        ("_rebuild_sparse_tensor", "is a sparse tensor", "to_dense"),
        (
            "_rebuild_sparse_csr_tensor",
            "is a sparse tensor",
            "to_dense",
        ),
        ("_rebuild_qtensor", "is quantised", "dequantize"),
    ] {
        let mut out = b"\x80\x02}X\x05\0\0\0net.w".to_vec();
        out.extend_from_slice(format!("ctorch._utils\n{function}\n(").as_bytes());
        storage(&mut out, false);
        out.extend_from_slice(b"K\0(ctorch\nper_tensor_affine\nK\x01K\0ttRs.");
        let fault = gathered(&out).unwrap_err();
        assert_eq!(fault.kind, Kind::Unsupported, "{fault}");
        assert!(fault.message.contains(word), "{fault}, not {word}");
        assert_eq!(fault.tensor.as_deref(), Some("net.w"));
        assert!(fault.hint.unwrap().contains(hint));
    }
}

#[test]
fn a_class_that_may_make_other_values_is_refused_and_wrappers_are_taken_off() {
    let wrapped = |class: &[u8]| {
        let inner = pickled(Made::default());
        let call = b"ctorch._utils\n_rebuild_tensor_v2\n";
        let at = inner.windows(call.len()).position(|part| part == call);
        let (begin, rest) = inner.split_at(at.unwrap());
        let mut out = begin.to_vec();
        out.extend_from_slice(b"ctorch._tensor\n_rebuild_from_type_v2\n(");
        out.extend_from_slice(call);
        out.extend_from_slice(class);
        // The arguments of the call are the third; its state is the fourth.
        let arguments = &rest[call.len()..rest.len() - b"Rss.".len()];
        out.extend_from_slice(arguments);
        out.extend_from_slice(b"}X\x04\0\0\0name\x88stRss.");
        gathered(&out)
    };
    assert_eq!(wrapped(b"ctorch\nTensor\n").unwrap(), 1);
    assert_eq!(wrapped(b"ctorch.nn.parameter\nParameter\n").unwrap(), 1);
    let fault = wrapped(b"cdeepspeed.linear\nQuantizedParameter\n").unwrap_err();
    assert_eq!(fault.kind, Kind::Unsupported);
    assert!(fault.message.contains("QuantizedParameter"), "{fault}");
    assert_eq!(fault.tensor.as_deref(), Some("net.w"));
}
