"""The jobs of bench/compare that take a Hugging Face model to MindSpore's names and back: what each layout holds,
computed with the standard library alone, and how shardloom and plain Python are asked for it."""

import fnmatch
import json
import os
import struct
import time

# layout -> (query, key and value, gate and up; element type): four ranks of a training job with legacy names.
LAYOUTS = {"tp4": ("separate", "BF16"), "tp4-fused": ("interleaved", "BF16"), "tp4-f32": ("separate", "F32")}
RANKS = 4
JOBS = {
    "import hf->tp4": ("hf", "tp4"),
    "import hf->tp4 fused": ("hf", "tp4-fused"),
    "import hf->tp4 f32": ("hf", "tp4-f32"),
    "export tp4->hf": ("tp4", "hf"),
}
# Only models of this element type: the third job widens it.
DTYPE = "BF16"
SIZES = {"BF16": 2, "F32": 4}

NAMES = {
    "model.embed_tokens.weight": "model.tok_embeddings.embedding_weight",
    "model.norm.weight": "model.norm_out.weight",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
RULES = {
    "*embedding_weight": "tp,-",
    "*.wq.weight": "tp,-", "*.wk.weight": "tp,-", "*.wv.weight": "tp,-", "*.w_qkv.weight": "tp,-",
    "*.wq.bias": "tp", "*.wk.bias": "tp", "*.wv.bias": "tp", "*.w_qkv.bias": "tp",
    "*.w1.weight": "tp,-", "*.w3.weight": "tp,-", "*.w_gate_hidden.weight": "tp,-",
    "*.wo.weight": "-,tp", "*.w2.weight": "-,tp",
}


def takes(full):
    return next(iter(full.values()))[0] == DTYPE


def config(full):
    """A config.json for the tensors of a Qwen2 model, with as many heads of keys and values as there are ranks."""
    rows = {name: shape for name, (_, shape, _) in full.items()}
    hidden = rows["model.norm.weight"][0]
    head = rows["model.layers.0.self_attn.k_proj.weight"][0] // RANKS
    return {
        "model_type": "qwen2" if any(name.endswith("bias") for name in rows) else "llama", "hidden_size": hidden, "num_attention_heads": hidden // head,
        "num_key_value_heads": RANKS, "head_dim": head, "vocab_size": rows["model.embed_tokens.weight"][0],
        "intermediate_size": rows["model.layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": sum(name.endswith("input_layernorm.weight") for name in rows),
        "tie_word_embeddings": "lm_head.weight" not in rows,
    }


def renamed(name):
    for old, new in NAMES.items():
        name = name.replace(old, new)
    return name


def take_turns(parts, groups):
    """Of each group in turn its share of each part."""
    sizes = [len(part) // groups for part in parts]
    return b"".join(part[g * s : (g + 1) * s] for g in range(groups) for part, s in zip(parts, sizes))


def widen(data):
    """bf16 as float32: two bytes of zeros below."""
    wide = bytearray(2 * len(data))
    wide[2::4], wide[3::4] = data[0::2], data[1::2]
    return memoryview(wide)


def whole(full, layout):
    """Yields (name, dtype, shape, bytes) of the full MindSpore tensors that a layout cuts."""
    fusion, dtype = LAYOUTS[layout]
    fused = {"self_attn.q_proj": ("self_attn.k_proj", "self_attn.v_proj"), "mlp.gate_proj": ("mlp.up_proj",)}
    taken = {other for others in fused.values() for other in others}
    for name, (own, shape, data) in full.items():
        target = renamed(name)
        if fusion == "interleaved":
            if any(part in name for part in taken):
                continue
            first = next((part for part in fused if part in name), None)
            if first:
                parts = [full[name.replace(first, part)] for part in (first, *fused[first])]
                groups = RANKS if "q_proj" in first else shape[0]
                data = memoryview(take_turns([part[2] for part in parts], groups))
                shape = (sum(part[1][0] for part in parts), *shape[1:])
                target = target.replace("attention.wq", "attention.w_qkv").replace("feed_forward.w1", "feed_forward.w_gate_hidden")
        if dtype != own:
            data = widen(data)
        yield target, dtype, shape, data


def cut_dimension(name):
    for pattern, axes in RULES.items():
        if fnmatch.fnmatchcase(name, pattern):
            return axes.split(",").index("tp")
    return None


def shards(full, layout, cut):
    """Of each rank: name -> (dtype, shape, pieces)."""
    ranks = [{} for _ in range(RANKS)]
    for name, dtype, shape, data in whole(full, layout):
        for rank, tensors in enumerate(ranks):
            own, pieces = cut(data, dtype, shape, cut_dimension(name), rank, RANKS)
            tensors[name] = (dtype, own, pieces)
    return ranks


def strategy(folder, full, layout, run):
    """The layout as a strategy file, made by shardloom from a file that has shapes and a hole for the bytes."""
    header, offset = {}, 0
    for name, dtype, shape, data in whole(full, layout):
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    shapes, path = folder / f"model-{layout}.safetensors", folder / f"model-{layout}.ckpt"
    shapes.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(shapes, 8 + len(text) + offset)
    met = [pattern for pattern in RULES if fnmatch.filter(header, pattern)]
    rules = [word for pattern in met for word in ("--rule", f"{pattern}={RULES[pattern]}")]
    run(["shardloom", "strategy", "new", "--mesh", f"tp={RANKS}", *rules, "--weights", shapes, "--output", path, "--overwrite", "-q"])
    shapes.unlink()
    return path


def command(place, job):
    source, target = JOBS[job]
    if target == "hf":
        words = ["export", "--src", place.layout(source), "--src-strategy", place.strategies[source]]
        return [*words, "--hf-config", place.layout("hf"), "--dst", place.out]
    fusion, dtype = LAYOUTS[target]
    words = ["import", "--hf", place.layout("hf"), "--dst", place.out, "--dst-strategy", place.strategies[target]]
    words += ["--names", "legacy", "--qkv", fusion, "--ffn", fusion]
    return words if dtype == DTYPE else [*words, "--dtype", dtype.lower()]


def plain_python(place, job, map_safetensors, write_safetensors, cut):
    """What one would write in an afternoon; one process."""
    source, target = JOBS[job]
    start = time.perf_counter()
    if source == "hf":
        full = map_safetensors(place.layout("hf") / "model.safetensors")
        for rank, tensors in enumerate(shards(full, target, cut)):
            write_safetensors(place.out / f"rank_{rank}" / "net.safetensors", tensors)
        return time.perf_counter() - start
    ranks = [map_safetensors(place.layout(source) / f"rank_{r}" / "net.safetensors") for r in range(RANKS)]
    full = {}
    for name in place.full:
        target_name = renamed(name)
        dtype, shape, data = ranks[0][target_name]
        dimension = cut_dimension(target_name)
        if dimension is None:
            full[name] = (dtype, shape, [data])
            continue
        row = SIZES[dtype]
        for extent in shape[dimension:]:
            row *= extent
        parts = [rank[target_name][2] for rank in ranks]
        joined = [part[i : i + row] for i in range(0, len(data), row) for part in parts]
        full[name] = (dtype, shape[:dimension] + (shape[dimension] * RANKS,) + shape[dimension + 1 :], joined)
    write_safetensors(place.out / "model.safetensors", full)
    return time.perf_counter() - start
