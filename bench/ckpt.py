"""MindSpore's .ckpt files for bench/compare: written and read here, with no library under test.

A file is a row of protobuf messages `Checkpoint { repeated Value value = 1 }` with
`Value { string tag = 1; TensorProto tensor = 2 }` and
`TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3 }`.
"""

RANKS = 8
LAYOUT = "ckpt8"
# job -> (source, destination)
JOBS = {"convert to ckpt": (RANKS, LAYOUT), "convert from ckpt": (LAYOUT, RANKS)}
TYPES = {"F32": "Float32", "BF16": "BFloat16"}
CALLS = {"convert to ckpt": "safetensors_to_ckpt", "convert from ckpt": "ckpt_to_safetensors"}


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, length):
    """Begins a field of `length` bytes."""
    return varint(number << 3 | 2) + varint(length)


def text(number, value):
    return field(number, len(value)) + value.encode()


def write(path, tensors):
    """tensors: name -> (dtype, shape, pieces)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb", buffering=1 << 20) as file:
        for name, (dtype, shape, pieces) in sorted(tensors.items()):
            size = sum(len(piece) for piece in pieces)
            tensor = b"".join(b"\x08" + varint(extent) for extent in shape) + text(2, TYPES[dtype]) + field(3, size)
            tag = text(1, name)
            inner = field(2, len(tensor) + size)
            file.write(field(1, len(tag) + len(inner) + len(tensor) + size) + tag + inner + tensor)
            file.writelines(pieces)


def fields(view):
    """The fields of a message: number -> values, in order; bytes for strings and messages."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = view[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(view):
        key = number()
        value = number()
        if key & 7 == 2:
            value, at = view[at : at + value], at + value
        elif key & 7 != 0:
            raise ValueError(f"a field of wire type {key & 7}")
        found.setdefault(key >> 3, []).append(value)
    return found


def read(view):
    """name -> (dtype, shape, bytes) of a file's memoryview. Large tensors are cut over several values."""
    names = {value: name for name, value in TYPES.items()}
    found = {}
    for value in fields(view)[1]:
        value = fields(value)
        tensor = fields(value[2][0])
        name, dtype = str(value[1][0], "utf-8"), names[str(tensor[2][0], "utf-8")]
        before = found.get(name, (None, None, b""))[2]
        content = tensor[3][0] if not before else bytes(before) + bytes(tensor[3][0])
        found[name] = (dtype, tuple(tensor.get(1, ())), content)
    return found


def command(place, job):
    """shardloom's."""
    source, target = JOBS[job]
    to = "ckpt" if target == LAYOUT else "safetensors"
    return ["convert", place.layout(source), "--dst", place.out, "--to", to]


def mindspore(place, job, processes):
    """MindSpore's call, its arguments and keywords."""
    return CALLS[job], [place.layout(JOBS[job][0]), place.out], {"processes_num": processes}
