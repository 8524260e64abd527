"""Types of elements: those of the files, as numpy and torch have them."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from ._errors import ShardloomError

# As safetensors calls it: bytes, numpy's plain type that is as wide, ml_dtypes' name, torch's name.
_TYPES: Dict[str, Tuple[int, str, str, str]] = {
    "F64": (8, "float64", "", "float64"),
    "F32": (4, "float32", "", "float32"),
    "F16": (2, "float16", "", "float16"),
    "BF16": (2, "uint16", "bfloat16", "bfloat16"),
    "F8_E4M3": (1, "uint8", "float8_e4m3fn", "float8_e4m3fn"),
    "F8_E5M2": (1, "uint8", "float8_e5m2", "float8_e5m2"),
    "F8_E8M0": (1, "uint8", "float8_e8m0fnu", "float8_e8m0fnu"),
    "I64": (8, "int64", "", "int64"),
    "I32": (4, "int32", "", "int32"),
    "I16": (2, "int16", "", "int16"),
    "I8": (1, "int8", "", "int8"),
    "U64": (8, "uint64", "", "uint64"),
    "U32": (4, "uint32", "", "uint32"),
    "U16": (2, "uint16", "", "uint16"),
    "U8": (1, "uint8", "", "uint8"),
    "BOOL": (1, "bool", "", "bool"),
    "C64": (8, "complex64", "", "complex64"),
}


def known(dtype: str) -> Tuple[int, str]:
    """Bytes of an element, and numpy's type of that width in which it is moved."""
    if dtype not in _TYPES:
        raise ShardloomError(
            "unsupported",
            f"elements of type {dtype} can't be read here",
            hint="shardloom.unify moves them",
        )
    width, plain, _, _ = _TYPES[dtype]
    return width, plain


def as_numpy(dtype: str, array: Any) -> Any:
    """An array of plain elements, as what they are."""
    name = _TYPES[dtype][2]
    if not name:
        return array
    try:
        import ml_dtypes
    except ImportError:
        raise ShardloomError(
            "unsupported",
            f"numpy has no {dtype}",
            hint="pip install ml_dtypes, or open with framework='torch'",
        ) from None
    return array.view(getattr(ml_dtypes, name))


def as_torch(dtype: str, array: Any) -> Any:
    """The same as torch's tensor."""
    import torch  # type: ignore[import-not-found, unused-ignore]

    name = _TYPES[dtype][3]
    wanted = getattr(torch, name, None)
    if wanted is None:
        raise ShardloomError("unsupported", f"this torch has no {name}")
    if not array.size:
        return torch.empty(array.shape, dtype=wanted)
    # torch can't take all of numpy's types over, but bytes always.
    import numpy

    flat = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    return torch.from_numpy(flat.copy()).view(wanted).reshape(array.shape)
