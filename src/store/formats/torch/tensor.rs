//! A tensor as a pickle tells it: which part of which storage, with which strides.

use crate::fault::{Fault, Kind, Result};
use crate::store::formats::pickle::{Made, Node, Pickle, Value};
use crate::tensor::dtype::Dtype;
use crate::tensor::shape::Shape;
use std::ops::Range;

/// Wrappers around a tensor that are taken off: parameters, and classes that hang attributes on it.
const WRAPPERS_MAX: usize = 8;
/// Most dimensions of a tensor.
const DIMENSIONS_MAX: usize = 64;

/// What torch calls an element type, what its storages are called, and the type.
const TYPES: [(&str, &str, Dtype); 18] = [
    ("float64", "DoubleStorage", Dtype::F64),
    ("float32", "FloatStorage", Dtype::F32),
    ("float16", "HalfStorage", Dtype::F16),
    ("bfloat16", "BFloat16Storage", Dtype::BF16),
    ("int64", "LongStorage", Dtype::I64),
    ("int32", "IntStorage", Dtype::I32),
    ("int16", "ShortStorage", Dtype::I16),
    ("int8", "CharStorage", Dtype::I8),
    ("uint8", "ByteStorage", Dtype::U8),
    ("bool", "BoolStorage", Dtype::Bool),
    ("complex64", "ComplexFloatStorage", Dtype::C64),
    ("uint16", "", Dtype::U16),
    ("uint32", "", Dtype::U32),
    ("uint64", "", Dtype::U64),
    ("float8_e4m3fn", "", Dtype::F8_E4M3),
    ("float8_e5m2", "", Dtype::F8_E5M2),
    ("float8_e4m3fnuz", "", Dtype::F8_E4M3FNUZ),
    ("float8_e5m2fnuz", "", Dtype::F8_E5M2FNUZ),
];

/// A tensor inside its storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store::formats) struct StoredTensor {
    /// Its element type.
    pub(in crate::store::formats) dtype: Dtype,
    /// Its shape, in elements.
    pub(in crate::store::formats) shape: Shape,
    /// The storage's key.
    pub(in crate::store::formats) key: String,
    /// Bytes that the storage has by what is said.
    pub(in crate::store::formats) storage_bytes: u64,
    /// The bytes of the storage that it lies in.
    pub(in crate::store::formats) window: Range<u64>,
    /// Bytes between neighbours along each dimension; none if it lies row after row.
    pub(in crate::store::formats) strides: Option<Vec<u64>>,
}

fn corrupt(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Corrupt, message)
}

/// The type that torch calls `torch.name`.
///
/// # Errors
/// [`Kind::Dtype`] for one that nothing here can hold.
pub(in crate::store::formats) fn dtype_of(name: &str) -> Result<Dtype> {
    let row = TYPES.iter().find(|row| row.0 == name);
    let unknown = || Fault::new(Kind::Dtype, format!("its type torch.{name} is not read"));
    row.map(|row| row.2).ok_or_else(unknown)
}

/// How torch calls `dtype`: the type itself and its storages (`""` if they have no name of their own).
pub(in crate::store::formats) fn names_of(dtype: Dtype) -> Option<(&'static str, &'static str)> {
    let row = TYPES.iter().find(|row| row.2 == dtype);
    row.map(|row| (row.0, row.1))
}

/// The tensor that `value` is, if it is one.
///
/// # Errors
/// [`Kind::Corrupt`] if it lies outside its storage or its numbers make no sense; [`Kind::Dtype`];
/// [`Kind::Unsupported`] if its values are others than those that are stored, as of a conjugate, or may be.
pub(in crate::store::formats) fn tensor(
    pickle: &Pickle<'_>,
    value: Value,
) -> Result<Option<StoredTensor>> {
    let Some((module, name, made)) = pickle.made(value) else {
        return Ok(None);
    };
    let mut call = (module, name, made.arguments);
    let mut changed = is_changed(pickle, made);
    for _ in 0..WRAPPERS_MAX {
        let Node::Tuple(arguments) = pickle.node(call.2) else {
            return Ok(None);
        };
        let known = call.0.starts_with("torch.") && call.1.starts_with("_rebuild_");
        if known && changed {
            let message = "is changed by its pickle after it is made, which is not read";
            return Err(Fault::new(Kind::Unsupported, message).hint(SAVE_ANEW));
        }
        match (call.0, call.1) {
            ("torch._utils", "_rebuild_tensor_v2") => {
                is_as_stored(pickle, arguments, 6)?;
                return rebuilt(pickle, arguments, None).map(Some);
            }
            ("torch._utils", "_rebuild_tensor_v3") => {
                is_as_stored(pickle, arguments, 7)?;
                let dtype = arguments.get(6).and_then(|dtype| pickle.names(*dtype));
                let dtype = dtype.filter(|(module, _)| *module == "torch");
                let (_, dtype) = dtype.ok_or_else(|| corrupt("a tensor has no type"))?;
                return rebuilt(pickle, arguments, Some(dtype_of(dtype)?)).map(Some);
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                let inner = arguments.first().and_then(|inner| pickle.made(*inner));
                let (module, name, made) =
                    inner.ok_or_else(|| corrupt("a parameter has no tensor"))?;
                changed = is_changed(pickle, made);
                call = (module, name, made.arguments);
            }
            ("torch._tensor", "_rebuild_from_type_v2") => {
                let function = arguments
                    .first()
                    .and_then(|function| pickle.names(*function));
                let (Some((module, name)), Some(inner)) = (function, arguments.get(2)) else {
                    return Err(corrupt("a tensor has no function that makes it"));
                };
                is_plain_class(pickle, arguments.get(1).copied())?;
                call = (module, name, *inner);
            }
            ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
                let fault = Fault::new(Kind::Unsupported, "is a sparse tensor, which is not read");
                return Err(fault.hint("save it anew in Python as a dense one: tensor.to_dense()"));
            }
            ("torch._utils", "_rebuild_qtensor") => {
                let message = "is quantised by PyTorch (a qtensor), which is not read";
                let fault = Fault::new(Kind::Unsupported, message);
                return Err(fault.hint("save it anew in Python as floats: tensor.dequantize()"));
            }
            _ => return Ok(None),
        }
    }
    Err(corrupt("a tensor is wrapped too often"))
}

/// What to do about a tensor whose values aren't those that are stored.
const SAVE_ANEW: &str =
    "save it anew in Python as a plain tensor: tensor.resolve_conj().resolve_neg().contiguous()";

/// What torch_npu says in a tensor's metadata: how it lay on the device, as `npu_format_/NCHW`. What is stored lies
/// as any tensor.
const OF_DEVICE: [&str; 5] = [
    "base_sizes_",
    "base_strides_",
    "storage_sizes_",
    "origin_format_",
    "npu_format_",
];

fn is_of_device(key: &str) -> bool {
    let said = key.split_once('/').map(|(said, _)| said);
    said.is_some_and(|said| OF_DEVICE.contains(&said))
}

/// Whether something is put into a tensor after it is made: a state, items or elements, of which each may be
/// other values. An empty state is none.
fn is_changed(pickle: &Pickle<'_>, made: &Made) -> bool {
    let empty = |state: Value| match pickle.node(state) {
        Node::None => true,
        Node::Dict(items) => items.is_empty(),
        _ => false,
    };
    let state = made.state.is_some_and(|state| !empty(state));
    state || !made.items.is_empty() || !made.elements.is_empty()
}

/// Refuses arguments that say that a tensor's values are others than those stored: the bits in its metadata,
/// which is argument `metadata` if there is one, and whatever isn't known.
///
/// # Errors
/// [`Kind::Unsupported`] naming what it is.
fn is_as_stored(pickle: &Pickle<'_>, arguments: &[Value], metadata: usize) -> Result<()> {
    let refused = |message: String| {
        let fault = Fault::new(Kind::Unsupported, message);
        Err(fault.hint(SAVE_ANEW))
    };
    if arguments.len() > metadata + 1 {
        return refused(format!(
            "is made with {} arguments, of which {} are known",
            arguments.len(),
            metadata + 1
        ));
    }
    let Some(told) = arguments.get(metadata).copied() else {
        return Ok(());
    };
    if *pickle.node(told) == Node::None {
        return Ok(());
    }
    let Some(items) = pickle.items(told) else {
        return refused("has metadata that is no mapping, which is not read".into());
    };
    for pair in items.chunks_exact(2) {
        let key = pickle.text(pair[0]).unwrap_or("something");
        if *pickle.node(pair[1]) == Node::Bool(false) || is_of_device(key) {
            continue;
        }
        let key: String = key.chars().take(40).collect();
        return refused(match &*key {
            "conj" => "is the conjugate of the values that are stored".into(),
            "neg" => "is the negative of the values that are stored".into(),
            _ => format!(
                "has '{}' in its metadata, which is not read",
                key.escape_default()
            ),
        });
    }
    Ok(())
}

/// Refuses a tensor of a class that may make other values of those that are stored, as one that quantises.
///
/// # Errors
/// [`Kind::Unsupported`] naming the class.
fn is_plain_class(pickle: &Pickle<'_>, class: Option<Value>) -> Result<()> {
    let class = class.and_then(|class| pickle.names(class));
    let (module, name) = class.ok_or_else(|| corrupt("a tensor has no class"))?;
    if (module, name) == ("torch", "Tensor") || module == "torch.nn.parameter" {
        return Ok(());
    }
    let message = format!("is a {module}.{name}, whose values may be others than those stored");
    Err(Fault::new(Kind::Unsupported, message).hint(SAVE_ANEW))
}

/// The tensor that these arguments make.
fn rebuilt(pickle: &Pickle<'_>, arguments: &[Value], dtype: Option<Dtype>) -> Result<StoredTensor> {
    let [storage, offset, size, stride, ..] = arguments else {
        return Err(corrupt("a tensor is made of too little"));
    };
    let odd = || corrupt("a tensor's offset, size or strides are no counts");
    let offset = pickle.count(*offset).ok_or_else(odd)?;
    let shape = Shape(pickle.counts(*size).ok_or_else(odd)?);
    let strides = pickle.counts(*stride).ok_or_else(odd)?;
    if strides.len() != shape.0.len() || shape.0.len() > DIMENSIONS_MAX {
        return Err(corrupt(format!(
            "a tensor of shape {shape} has {} strides",
            strides.len()
        )));
    }
    let (own, key, count) = stored(pickle, *storage)?;
    let dtype = match (own, dtype) {
        (Some(own), None) => own,
        (None, Some(dtype)) => dtype,
        _ => return Err(corrupt("a tensor's type isn't that of its storage")),
    };
    let width = u64::from(dtype.bits() / 8);
    let overflow = || corrupt("a tensor is larger than any storage");
    let per_element = if own.is_some() { width } else { 1 };
    let storage_bytes = count.checked_mul(per_element).ok_or_else(overflow)?;
    shape.bytes(dtype)?;
    let empty = shape.0.contains(&0);
    let steps = shape.0.iter().zip(&strides);
    let last = steps
        .filter(|_| !empty)
        .try_fold(offset, |at, (size, stride)| {
            at.checked_add((size - 1).checked_mul(*stride)?)
        });
    let begin = offset.checked_mul(width).ok_or_else(overflow)?;
    let end = match empty {
        true => Some(begin),
        false => last.and_then(|last| last.checked_add(1)?.checked_mul(width)),
    };
    let end = end.ok_or_else(overflow)?;
    if end > storage_bytes {
        return Err(corrupt(format!(
            "a tensor of shape {shape} reaches byte {end} of its storage {key}, which has {storage_bytes}"
        )));
    }
    let usual = shape.strides();
    let matters = shape.0.iter().zip(&strides).zip(&usual);
    let plain = empty
        || matters
            .into_iter()
            .all(|((size, own), usual)| *size == 1 || own == usual);
    let strides = strides.iter().map(|stride| stride * width).collect();
    Ok(StoredTensor {
        dtype,
        shape,
        key,
        storage_bytes,
        window: begin..end,
        strides: (!plain).then_some(strides),
    })
}

/// Type, key and count of elements (or of bytes, where there is no type) of a storage.
fn stored(pickle: &Pickle<'_>, storage: Value) -> Result<(Option<Dtype>, String, u64)> {
    let odd = || corrupt("a tensor's storage is none");
    let Node::Persistent(id) = pickle.node(storage) else {
        return Err(odd());
    };
    let Some([what, kind, key, _, count]) = pickle.elements(*id) else {
        return Err(odd());
    };
    if pickle.text(*what) != Some("storage") {
        return Err(odd());
    }
    let dtype = match pickle.names(*kind).ok_or_else(odd)? {
        ("torch.storage", "UntypedStorage") => None,
        ("torch", name) => {
            let row = TYPES.iter().find(|row| !row.1.is_empty() && row.1 == name);
            let unknown = || {
                Fault::new(
                    Kind::Unsupported,
                    format!("a tensor lies in a torch.{name}, which is not read"),
                )
            };
            Some(row.ok_or_else(unknown)?.2)
        }
        _ => return Err(odd()),
    };
    let key = pickle.text(*key).ok_or_else(odd)?;
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_digit()) {
        let shown: String = key.chars().take(40).collect();
        return Err(corrupt(format!(
            "a storage is called '{}', which is no number",
            shown.escape_default()
        )));
    }
    let count = pickle.count(*count).ok_or_else(odd)?;
    Ok((dtype, key.to_owned(), count))
}
