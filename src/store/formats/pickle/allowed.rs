//! Whom a pickle may name.

/// Those that tensors and their metadata are made by: module, and names in it.
const MEANT: &[(&str, &[&str])] = &[
    ("collections", &["OrderedDict"]),
    (
        "torch",
        &[
            "Size",
            "device",
            "Tensor",
            "per_tensor_affine",
            "per_channel_affine",
            "per_channel_affine_float_qparams",
        ],
    ),
    (
        "torch._utils",
        &[
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
            "_rebuild_sparse_tensor",
            "_rebuild_sparse_csr_tensor",
            "_rebuild_qtensor",
        ],
    ),
    ("torch._tensor", &["_rebuild_from_type_v2"]),
    ("torch.nn.parameter", &["Parameter"]),
    ("torch.serialization", &["_get_layout"]),
    ("torch.storage", &["UntypedStorage", "TypedStorage"]),
    (
        "torch.distributed.checkpoint.metadata",
        &[
            "Metadata",
            "TensorStorageMetadata",
            "TensorProperties",
            "ChunkStorageMetadata",
            "BytesStorageMetadata",
            "MetadataIndex",
            "StorageMeta",
            "_MEM_FORMAT_ENCODING",
        ],
    ),
    (
        "hyper_parallel.core.distributed_checkpoint.metadata",
        &[
            "Metadata",
            "TensorStorageMetadata",
            "TensorProperties",
            "ChunkStorageMetadata",
            "BytesStorageMetadata",
            "MetadataIndex",
        ],
    ),
    (
        "hyper_parallel.core.distributed_checkpoint.storage",
        &["StorageInfo"],
    ),
    (
        "torch.distributed.checkpoint.filesystem",
        &["_StorageInfo", "_StoragePrefix"],
    ),
    (
        "torch.distributed.checkpoint.planner",
        &[
            "SavePlan",
            "WriteItem",
            "WriteItemType",
            "TensorWriteData",
            "BytesIOWriteData",
        ],
    ),
    (
        "pathlib",
        &["PosixPath", "Path", "PurePosixPath", "WindowsPath"],
    ),
    (
        "pathlib._local",
        &["PosixPath", "Path", "PurePosixPath", "WindowsPath"],
    ),
];

/// Those that carry values and no weights, exactly.
const CARRIED: &[(&str, &[&str])] = &[
    ("argparse", &["Namespace"]),
    ("_codecs", &["encode"]),
    ("_io", &["BytesIO"]),
    (
        "collections",
        &["defaultdict", "Counter", "deque", "ChainMap"],
    ),
    (
        "builtins",
        &[
            "set",
            "frozenset",
            "bytearray",
            "complex",
            "slice",
            "range",
            "dict",
            "list",
            "tuple",
            "int",
            "float",
            "str",
            "bool",
            "bytes",
        ],
    ),
    (
        "datetime",
        &["datetime", "date", "time", "timedelta", "timezone"],
    ),
    ("decimal", &["Decimal"]),
    ("uuid", &["UUID"]),
    ("numpy", &["dtype", "ndarray", "bool_"]),
    ("numpy.core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy.core.numeric", &["_frombuffer"]),
    ("numpy._core.numeric", &["_frombuffer"]),
    ("torch", &["Generator"]),
];

/// Packages whose plain classes are carried: settings and enumerations beside weights.
const PACKAGES: &[&str] = &["megatron", "mindspeed", "deepspeed"];

/// Whether a name is what Python calls a name, with dots between parts.
fn is_plain(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    text.split('.').all(part)
}

fn has(table: &[(&str, &[&str])], module: &str, name: &str) -> bool {
    table
        .iter()
        .any(|(known, names)| *known == module && names.contains(&name))
}

/// Whether `name` of `torch` is an element type or a storage: these name themselves.
fn is_type(name: &str) -> bool {
    const TYPES: [&str; 3] = ["bool", "half", "double"];
    let numbered = |begin: &str| {
        name.strip_prefix(begin)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let begins = ["float", "bfloat", "int", "uint", "complex", "qint", "quint"];
    let storage = name.strip_suffix("Storage").is_some_and(|kind| {
        !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    TYPES.contains(&name)
        || name == "float"
        || name == "int"
        || storage
        || begins.into_iter().any(numbered)
}

/// Whether a pickle may name `name` of `module`.
pub(super) fn is_allowed(module: &str, name: &str) -> bool {
    if !(is_plain(module) && is_plain(name)) || name.contains('.') {
        return false;
    }
    // As protocol 2 spells it.
    let module = match module {
        "__builtin__" => "builtins",
        module => module,
    };
    let package = module.split('.').next().unwrap_or_default();
    let class = name.starts_with(|c: char| c.is_ascii_uppercase());
    has(MEANT, module, name)
        || has(CARRIED, module, name)
        || (module == "torch" && is_type(name))
        || (module.starts_with("numpy.dtypes") && name.ends_with("DType"))
        || (PACKAGES.contains(&package) && (class || name == "fragment_address"))
}
