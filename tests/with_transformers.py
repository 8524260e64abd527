#!/usr/bin/env python3
"""shardloom and Hugging Face transformers side by side: models of each family are imported, cut, resharded and
exported, and must come back with equal weights and logits, bit for bit. Then one in 8 bits, which transformers dequantises,
one that is written in 8 bits, and one with an adapter that PEFT has made and merges.

Started by `launch/test --with-transformers`, which makes the virtual environment; needs $MPIRUN, $MPIRUN_ARGS and
shardloom on PATH (`. launch/env`). Ends with `N passed, N failed`.

    tests/with_transformers.py --write-golden tests/data/model     makes the recorded data of tests/model.rs anew
    tests/with_transformers.py --write-patterns tests/data/model   ... and what PEFT makes of alpha_pattern and rank_pattern

What the MindSpore side must hold is computed here with torch alone, from the formulae in docs/formats.md.
"""

import fnmatch
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

COMMON = dict(vocab_size=24, hidden_size=16, num_hidden_layers=2, max_position_embeddings=64,
              bos_token_id=0, eos_token_id=1, pad_token_id=2)
MODELS = {
    "llama": ("LlamaConfig", dict(num_attention_heads=4, num_key_value_heads=2, intermediate_size=16)),
    "qwen2": ("Qwen2Config", dict(num_attention_heads=4, num_key_value_heads=2, intermediate_size=16,
                                  tie_word_embeddings=True)),
    "qwen3": ("Qwen3Config", dict(num_attention_heads=4, num_key_value_heads=2, head_dim=6, intermediate_size=16)),
    "qwen3_moe": ("Qwen3MoeConfig", dict(num_attention_heads=4, num_key_value_heads=2, head_dim=6,
                                         intermediate_size=16, moe_intermediate_size=8, num_experts=4,
                                         num_experts_per_tok=2, mlp_only_layers=[0])),
    "deepseek_v3": ("DeepseekV3Config", dict(num_attention_heads=4, num_key_value_heads=4, intermediate_size=16,
                                             moe_intermediate_size=8, n_routed_experts=4, n_shared_experts=1,
                                             num_experts_per_tok=2, n_group=2, topk_group=1, first_k_dense_replace=1,
                                             q_lora_rank=12, kv_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4,
                                             v_head_dim=6, num_nextn_predict_layers=1)),
    "qwen2_moe": ("Qwen2MoeConfig", dict(num_attention_heads=4, num_key_value_heads=2, intermediate_size=16,
                                         moe_intermediate_size=8, shared_expert_intermediate_size=12, num_experts=4,
                                         num_experts_per_tok=2, mlp_only_layers=[0])),
    "mixtral": ("MixtralConfig", dict(num_attention_heads=4, num_key_value_heads=2, intermediate_size=24,
                                      num_local_experts=4, num_experts_per_tok=2)),
    "glm4": ("Glm4Config", dict(num_attention_heads=4, num_key_value_heads=2, head_dim=6, intermediate_size=12,
                                attention_bias=True)),
    "glm": ("GlmConfig", dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8, intermediate_size=12,
                              attention_bias=True)),
    "glm4_moe": ("Glm4MoeConfig", dict(num_attention_heads=4, num_key_value_heads=2, head_dim=6, intermediate_size=16,
                                       moe_intermediate_size=8, n_routed_experts=4, n_shared_experts=2,
                                       num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1,
                                       use_qk_norm=True, attention_bias=True)),
    "deepseek_v32": ("DeepseekV32Config", dict(num_attention_heads=4, num_key_value_heads=4, intermediate_size=16,
                                               moe_intermediate_size=8, n_routed_experts=4, n_shared_experts=1,
                                               num_experts_per_tok=2, n_group=2, topk_group=1, first_k_dense_replace=1,
                                               q_lora_rank=12, kv_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4,
                                               v_head_dim=6, index_n_heads=2, index_head_dim=8, index_topk=4)),
}
# Other shapes of these: heads, key-value heads, experts.
SHAPES = {
    "qwen2_moe": [dict(num_attention_heads=8, num_key_value_heads=4, num_experts=6, moe_intermediate_size=24)],
    "mixtral": [dict(num_attention_heads=8, num_key_value_heads=8, num_local_experts=2), dict(num_key_value_heads=4)],
    "glm4": [dict(num_attention_heads=8, num_key_value_heads=4, head_dim=4, attention_bias=False)],
    "glm": [dict(num_attention_heads=8, num_key_value_heads=4, head_dim=4, attention_bias=False)],
    "glm4_moe": [dict(num_attention_heads=8, num_key_value_heads=4, head_dim=4, n_routed_experts=6, use_qk_norm=False),
                 dict(n_shared_experts=1, attention_bias=False, first_k_dense_replace=0)],
    "deepseek_v32": [dict(num_attention_heads=2, num_key_value_heads=2, n_routed_experts=8, index_n_heads=4)],
}


# What was recorded keeps its numbers: what is new comes last.
SEEDS = ["deepseek_v3", "llama", "qwen2", "qwen3", "qwen3_moe", "deepseek_v32", "glm4", "glm4_moe", "mixtral", "qwen2_moe", "glm"]


def make(family, directory, **more):
    """A model of random numbers (norms and biases too, so that nothing wrong goes unnoticed), saved."""
    config_class, settings = MODELS[family]
    torch.manual_seed(SEEDS.index(family))
    config = getattr(transformers, config_class)(**{**COMMON, **settings, **more})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        for tensor in [*model.parameters(), *(b for n, b in model.named_buffers() if "correction_bias" in n)]:
            tensor.copy_(torch.randn(tensor.shape) * 0.3 + 0.1)
    model.save_pretrained(directory)
    return model


def add_mtp(directory):
    """Gives a DeepSeek model the layer for predicting one further token that transformers leaves out."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    torch.manual_seed(99)
    layers, hidden = COMMON["num_hidden_layers"], COMMON["hidden_size"]
    last, extra = f"model.layers.{layers - 1}.", f"model.layers.{layers}."
    for name in [n for n in tensors if n.startswith(last)]:
        tensors[name.replace(last, extra)] = torch.randn_like(tensors[name].float()).to(tensors[name].dtype)
    for name, shape in [("enorm", [hidden]), ("hnorm", [hidden]), ("eh_proj", [hidden, 2 * hidden]),
                        ("shared_head.norm", [hidden])]:
        tensors[f"{extra}{name}.weight"] = torch.randn(shape).to(torch.bfloat16)
    tensors[f"{extra}embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors[f"{extra}shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    save_file(tensors, path, {"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["num_nextn_predict_layers"] = 1
    (directory / "config.json").write_text(json.dumps(config, indent=2))


# --- the MindSpore side, computed by itself -----------------------------------------------------------------------


def qkv_interleaved(q, k, v, groups):
    parts = [t.reshape(groups, t.shape[0] // groups, -1) for t in (q, k, v)]
    fused = torch.cat(parts, 1)
    return fused.reshape(-1) if q.dim() == 1 else fused.reshape(-1, q.shape[1])


def qkv_contiguous(q, k, v, tp, head_dim):
    def shard(t, rank):
        heads = t.shape[0] // head_dim
        if heads >= tp:
            return t.chunk(tp, 0)[rank]
        return t.chunk(heads, 0)[rank // (tp // heads)]

    return torch.cat([shard(t, rank) for rank in range(tp) for t in (q, k, v)])


def gate_up_interleaved(gate, up):
    return torch.stack([gate, up], 1).flatten(0, 1)


def gate_up_contiguous(gate, up, tp):
    return torch.cat([t for pair in zip(gate.chunk(tp), up.chunk(tp)) for t in pair])


def de_interleave(rope, rows_per_block):
    blocks = rope.reshape(-1, rows_per_block, rope.shape[-1])
    return torch.cat([blocks[:, 0::2], blocks[:, 1::2]], 1).reshape(rope.shape)


LEGACY = [("self_attn.q_proj.", "attention.wq."), ("self_attn.k_proj.", "attention.wk."),
          ("self_attn.v_proj.", "attention.wv."), ("self_attn.o_proj.", "attention.wo."),
          ("self_attn.q_a_proj.", "attention.q2l_proj."), ("self_attn.q_a_layernorm.", "attention.lq_norm."),
          ("self_attn.kv_a_layernorm.", "attention.lkv_norm."),
          ("input_layernorm.", "attention_norm."), ("post_attention_layernorm.", "ffn_norm."),
          ("mlp.shared_experts.", "feed_forward.shared_experts."),
          ("mlp.gate.e_score_correction_bias", "feed_forward.routed_experts.topk_bias"),
          ("mlp.gate.", "feed_forward.routed_experts.router_dense."), ("mlp.", "feed_forward."),
          ("gate_proj.", "w1."), ("up_proj.", "w3."), ("down_proj.", "w2.")]
MCORE = [("self_attn.q_proj.", "self_attention.linear_q."), ("self_attn.k_proj.", "self_attention.linear_k."),
         ("self_attn.v_proj.", "self_attention.linear_v."), ("self_attn.o_proj.", "self_attention.linear_proj."),
         ("self_attn.q_norm.", "self_attention.q_layernorm."), ("self_attn.k_norm.", "self_attention.k_layernorm."),
         ("self_attn.q_a_proj.", "self_attention.linear_q_down_proj."),
         ("self_attn.q_a_layernorm.", "self_attention.q_layernorm."),
         ("self_attn.q_b_proj.", "self_attention.linear_q_up_proj."),
         ("self_attn.kv_a_proj_with_mqa.", "self_attention.linear_kv_down_proj."),
         ("self_attn.kv_a_layernorm.", "self_attention.kv_layernorm."),
         ("self_attn.kv_b_proj.", "self_attention.linear_kv_up_proj."),
         ("self_attn.indexer.k_norm.weight", "self_attention.core_attention.indexer.k_norm.gamma"),
         ("self_attn.indexer.k_norm.bias", "self_attention.core_attention.indexer.k_norm.beta"),
         ("self_attn.indexer.w", "self_attention.core_attention.indexer.linear_w"),
         ("post_attention_layernorm.", "pre_mlp_layernorm."),
         ("mlp.gate.e_score_correction_bias", "mlp.router.expert_bias"), ("mlp.gate.weight", "mlp.router.weight"),
         ("gate_proj.", "gating."), ("up_proj.", "hidden."), ("down_proj.", "linear_fc2.")]
TOP = {"legacy": {"model.embed_tokens.weight": "model.tok_embeddings.embedding_weight",
                  "model.norm.weight": "model.norm_out.weight", "lm_head.weight": "lm_head.weight"},
       "mcore": {"model.embed_tokens.weight": "embedding.word_embeddings.weight",
                 "model.norm.weight": "decoder.final_layernorm.weight", "lm_head.weight": "output_layer.weight"},
       "glm": {"model.embed_tokens.weight": "transformer.embedding.embedding_weight",
               "model.norm.weight": "transformer.encoder.final_layernorm.weight",
               "lm_head.weight": "transformer.output_layer.weight"}}
GLM = [("self_attn.q_proj.", "self_attention.wq."), ("self_attn.k_proj.", "self_attention.wk."),
       ("self_attn.v_proj.", "self_attention.wv."), ("self_attn.o_proj.", "self_attention.dense."),
       ("gate_proj.", "dense_left."), ("up_proj.", "dense_right."), ("down_proj.", "dense_4h_to_h.")]
RENAMES = {"legacy": LEGACY, "mcore": MCORE, "glm": GLM}
FUSED = {"legacy": ("attention.w_qkv.", "w_gate_hidden."), "mcore": ("self_attention.linear_qkv.", "linear_fc1."),
         "glm": ("self_attention.query_key_value.", "dense_h_to_4h.")}
ROOTS = {"legacy": "model.layers.", "mcore": "decoder.layers.", "glm": "transformer.encoder.layers."}


def usual_names(hf):
    """The tensors by the names that most families have."""
    out = {}
    for name, tensor in hf.items():
        name = name.replace(".block_sparse_moe.", ".mlp.").replace(".shared_expert.", ".shared_experts.")
        name = name.replace(".shared_expert_gate.", ".shared_experts.shared_experts_gate.")
        if ".experts." in name:
            for old, new in (("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")):
                name = name.replace(f".{old}.", f".{new}.")
        if ".gate_up_proj." in name:
            gate, up = tensor.chunk(2)
            out[name.replace("gate_up", "gate")], out[name.replace("gate_up", "up")] = gate, up
        else:
            out[name] = tensor
    return out


def mindspore_side(hf, config, names, qkv, ffn, experts, tp=1):
    """What import must make of the tensors `hf`."""
    layers, out = config["num_hidden_layers"], {}
    heads, groups = config["num_attention_heads"], config.get("num_key_value_heads")
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    moved = usual_names(hf)
    mixtral = config["model_type"] == "mixtral"
    for name in [n for n in moved if n.endswith((f"layers.{layers}.embed_tokens.weight", "shared_head.head.weight"))]:
        del moved[name]
    form = "glm" if config["model_type"] == "glm" else names
    renames, fused = RENAMES[form], FUSED[form]

    def put(name, tensor):
        if name in TOP[form]:
            out[TOP[form][name]] = tensor
            return
        _, _, layer, rest = name.split(".", 3)
        in_mlp = rest.startswith("mlp.")
        for old, new in renames:
            if rest.startswith(old) or in_mlp and old in ("gate_proj.", "up_proj.", "down_proj."):
                rest = rest.replace(old, new)
        if int(layer) < layers:
            root = f"{ROOTS[form]}{layer}."
        else:
            root = f"mtp.layers.{int(layer) - layers}."
            rest = rest.replace("shared_head.norm", "final_layernorm")
            if rest.split(".")[0] not in ("enorm", "hnorm", "eh_proj", "final_layernorm"):
                root += "transformer_layer."
        out[root + rest] = tensor

    for name in list(moved):
        if name not in moved:
            continue
        if ".self_attn.q_proj." in name and qkv != "separate":
            parts = [moved.pop(name.replace("q_proj", f"{x}_proj")) for x in "qkv"]
            tensor = qkv_interleaved(*parts, groups) if qkv == "interleaved" else qkv_contiguous(*parts, tp, head_dim)
            key = name.replace("self_attn.q_proj.", fused[0])
            moved[key] = tensor
    numbers = sorted({int(n.split(".experts.")[1].split(".")[0]) for n in moved if ".mlp.experts." in n})
    for prefix in sorted({n.split("experts.")[0] for n in moved if ".mlp.experts." in n}):
        per = {p: [moved.pop(f"{prefix}experts.{e}.{p}_proj.weight") for e in numbers] for p in ("gate", "up", "down")}
        room = "feed_forward.ffn." if mixtral else "feed_forward.routed_experts.ffn."
        base = prefix.replace("mlp.", room) if names == "legacy" else prefix + "experts."
        if experts == "stacked" and not (mixtral and names == "legacy"):
            one = torch.stack([torch.cat([g.T, u.T], 1) for g, u in zip(per["gate"], per["up"])])
            two = torch.stack([d.T for d in per["down"]])
            if names == "legacy":
                moved[base + "w1"], moved[base + "w2"] = one, two
            else:
                moved[base + "weight1"], moved[base + "weight2"] = one.flatten(0, 1), two.flatten(0, 1)
        elif names == "legacy":
            for w, p in (("w1", "gate"), ("w3", "up"), ("w2", "down")):
                moved[f"{base}{w}.weight"] = torch.stack(per[p])
        else:
            for e in numbers:
                moved[f"{base}local_experts.{e}.linear_fc1.weight"] = torch.cat([per["gate"][e], per["up"][e]])
                moved[f"{base}local_experts.{e}.linear_fc2.weight"] = per["down"][e]
    for name in list(moved):
        if ".gate_proj." in name and ffn != "separate":
            gate, up = moved.pop(name), moved.pop(name.replace("gate_proj", "up_proj"))
            tensor = gate_up_interleaved(gate, up) if ffn == "interleaved" else gate_up_contiguous(gate, up, tp)
            moved[name.replace("gate_proj.", fused[1])] = tensor
    if names == "legacy" and "q_lora_rank" in config:
        nope, rope, value = (config[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
        rank = config["kv_lora_rank"]
        for name in list(moved):
            root = name.split("self_attn.")[0] + "attention."
            if ".q_b_proj." in name:
                blocks = moved.pop(name).reshape(heads, nope + rope, -1)
                moved[root + "l2q_nope_proj.weight"] = blocks[:, :nope].flatten(0, 1)
                moved[root + "l2q_pe_proj.weight"] = de_interleave(blocks[:, nope:].flatten(0, 1), rope)
            elif ".kv_a_proj_with_mqa." in name:
                whole = moved.pop(name)
                moved[root + "kv2l_latent_kv.weight"] = whole[:rank]
                moved[root + "kv2l_k_pe.weight"] = de_interleave(whole[rank:], rope)
            elif ".kv_b_proj." in name:
                blocks = moved.pop(name).reshape(heads, nope + value, -1)
                moved[root + "lkv2kv_k_nope.weight"] = blocks[:, :nope].flatten(0, 1)
                moved[root + "lkv2kv_v.weight"] = blocks[:, nope:].flatten(0, 1)
    for name, tensor in moved.items():
        put(name.replace("mlp.gate.", "feed_forward.router.dense.") if mixtral and names == "legacy" else name,
            tensor.contiguous())
    return out


# Per family: name of the case -> arguments of mindspore_side.
CASES = {
    "llama": {
        "legacy": dict(names="legacy", qkv="separate", ffn="separate", experts="stacked"),
        "legacy_fused": dict(names="legacy", qkv="interleaved", ffn="interleaved", experts="stacked"),
        "mcore_tp4": dict(names="mcore", qkv="contiguous", ffn="contiguous", experts="stacked", tp=4),
    },
    "qwen2": {
        "legacy_fused": dict(names="legacy", qkv="interleaved", ffn="interleaved", experts="stacked"),
        "mcore_tp2": dict(names="mcore", qkv="contiguous", ffn="contiguous", experts="stacked", tp=2),
    },
    "qwen3": {
        "mcore": dict(names="mcore", qkv="interleaved", ffn="interleaved", experts="stacked"),
        "mcore_separate": dict(names="mcore", qkv="separate", ffn="separate", experts="stacked"),
    },
    "qwen3_moe": {
        "mcore": dict(names="mcore", qkv="interleaved", ffn="interleaved", experts="stacked"),
        "mcore_separate": dict(names="mcore", qkv="contiguous", ffn="separate", experts="separate", tp=1),
    },
    "deepseek_v3": {
        "mcore": dict(names="mcore", qkv="interleaved", ffn="interleaved", experts="stacked"),
        "mcore_separate": dict(names="mcore", qkv="separate", ffn="contiguous", experts="separate", tp=2),
    },
    "qwen2_moe": {
        "mcore": dict(names="mcore", qkv="interleaved", ffn="interleaved", experts="stacked"),
        "mcore_separate": dict(names="mcore", qkv="separate", ffn="contiguous", experts="separate", tp=2),
    },
    "mixtral": {
        "mcore": dict(names="mcore", qkv="interleaved", ffn="interleaved", experts="stacked"),
        "legacy": dict(names="legacy", qkv="separate", ffn="separate", experts="stacked"),
    },
    "glm4": {
        "mcore": dict(names="mcore", qkv="interleaved", ffn="interleaved", experts="stacked"),
        "mcore_tp2": dict(names="mcore", qkv="contiguous", ffn="contiguous", experts="stacked", tp=2),
        "mcore_separate": dict(names="mcore", qkv="separate", ffn="separate", experts="stacked"),
    },
    "glm": {
        "legacy": dict(names="legacy", qkv="contiguous", ffn="contiguous", experts="stacked", tp=1),
        "legacy_separate": dict(names="legacy", qkv="separate", ffn="separate", experts="stacked"),
    },
    "glm4_moe": {
        "mcore": dict(names="mcore", qkv="interleaved", ffn="interleaved", experts="stacked"),
        "mcore_separate": dict(names="mcore", qkv="separate", ffn="separate", experts="separate"),
    },
    "deepseek_v32": {
        "mcore": dict(names="mcore", qkv="interleaved", ffn="interleaved", experts="stacked"),
    },
    "deepseek_v3_legacy": {
        "legacy": dict(names="legacy", qkv="separate", ffn="separate", experts="stacked"),
        "legacy_separate": dict(names="legacy", qkv="separate", ffn="separate", experts="separate"),
    },
}


def flags(case):
    return [word for key, value in case.items() for word in (f"--{key}", str(value))]


# Of families that are like recorded ones only what is new is recorded.
RECORDED = {"qwen2_moe": [], "mixtral": ["legacy"], "glm4": ["mcore"], "glm4_moe": [], "deepseek_v32": [],
            "glm": []}  # tests/with_converters.py records it.


def write_golden(root):
    """Recorded data: the Hugging Face model and, for each case, the flags and what import must make."""
    for family, all_cases in CASES.items():
        cases = {name: all_cases[name] for name in RECORDED.get(family, all_cases)}
        if not cases:
            continue
        directory = root / family
        shutil.rmtree(directory, ignore_errors=True)
        make(family.removesuffix("_legacy"), directory / "hf")
        if family == "deepseek_v3":
            add_mtp(directory / "hf")
        (directory / "hf" / "generation_config.json").unlink(missing_ok=True)
        config = json.loads((directory / "hf" / "config.json").read_text())
        hf = load_file(directory / "hf" / "model.safetensors")
        for name, case in cases.items():
            save_file(mindspore_side(hf, config, **case), directory / f"{name}.safetensors", {"format": "ms"})
        (directory / "cases.json").write_text(json.dumps({n: flags(c) for n, c in cases.items()}, indent=1) + "\n")
    write_quantised(root)


# --- side by side ---------------------------------------------------------------------------------------------------


def shardloom(processes, *words):
    launcher = [os.environ.get("MPIRUN", "mpirun"), "-n", str(processes), *shlex.split(os.environ.get("MPIRUN_ARGS", ""))]
    done = subprocess.run([*launcher, "shardloom", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"shardloom {words[0]} failed: {done.stderr}")


def load_all(directory):
    files = sorted(directory.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def equal(a, b):
    assert a.keys() == b.keys(), f"names differ: {sorted(a.keys() ^ b.keys())[:6]}"
    for name in a:
        same = a[name].dtype == b[name].dtype and a[name].shape == b[name].shape
        assert same and torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)), f"{name} differs"



def strategy(room, full, name, mesh):
    """A strategy file for the full weights in `full`: rows of what is fused or stacked, columns of what follows."""
    rules = ["*weight1=tp,-", "*weight2=tp,-", "*linear_qkv.weight=tp,-", "*linear_fc1.weight=tp,-", "*linear_proj.weight=-,tp",
             "*linear_fc2.weight=-,tp", "*embeddings.weight=tp,-", "*embedding_weight=tp,-", "*.w_qkv.weight=tp,-",
             "*.wq.weight=tp,-", "*.wo.weight=-,tp", "*.w_gate_hidden.weight=tp,-", "*feed_forward.w2.weight=-,tp", "*up_proj.weight=tp,-",
             "*.dense_left.weight=tp,-", "*.dense_4h_to_h.weight=-,tp", "*.self_attention.dense.weight=-,tp"]
    path = room / f"{name}.ckpt"
    names = [n for file in full.glob("*.safetensors") for n in safe_open(file, "pt").keys()]
    rules = [rule for rule in rules if fnmatch.filter(names, rule.split("=")[0])]
    words = [word for rule in rules for word in ("--rule", rule)]
    shardloom(1, "strategy", "new", "--mesh", mesh, *words, "--weights", full, "--output", path, "-q")
    return path


def round_trip(family, case, room, **shape):
    """HF -> full and two layouts -> reshard -> HF, then logits of both models."""
    original = make(family, room / "hf", **shape).eval()
    hf = load_all(room / "hf")
    config = json.loads((room / "hf" / "config.json").read_text())
    choice = flags(case)
    shardloom(2, "import", "--hf", room / "hf", "--dst", room / "full", *choice)
    equal(load_all(room / "full"), mindspore_side(hf, config, **case))
    # Contiguous tensors are for one tensor-parallel size, and the recorded models have two key-value groups.
    one = strategy(room, room / "full", "one", f"dp=2,tp={case.get('tp', 2)}")
    two = strategy(room, room / "full", "two", "tp=4,pp=2")
    shardloom(4, "import", "--hf", room / "hf", "--dst", room / "one", "--dst-strategy", one, *choice)
    shardloom(2, "reshard", "--src", room / "one", "--src-strategy", one, "--dst", room / "two", "--dst-strategy", two)
    shardloom(4, "export", "--src", room / "two", "--src-strategy", two, "--hf-config", room / "hf", "--dst", room / "back")
    equal(load_all(room / "back"), hf)
    back = transformers.AutoModelForCausalLM.from_pretrained(room / "back", dtype=torch.bfloat16).eval()
    saved = transformers.AutoModelForCausalLM.from_pretrained(room / "hf", dtype=torch.bfloat16).eval()
    for name, tensor in original.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), f"{name} differs once loaded"
    tokens = torch.arange(3, 19).reshape(2, 8)
    with torch.no_grad():
        assert torch.equal(back(tokens).logits, saved(tokens).logits), "logits differ"


# transformers takes only whole blocks; tests/computed.rs has others.
BLOCK = (4, 4)


def called_otherwise(model_type, room):
    """A model whose config.json has another word for a family's network goes in and comes back as it was."""
    if model_type == "mistral":
        MODELS["mistral"] = ("MistralConfig", {**MODELS["llama"][1], "num_key_value_heads": 2, "sliding_window": None})
        SEEDS.append("mistral")
        make("mistral", room / "hf")
    else:
        make("deepseek_v3", room / "hf", num_nextn_predict_layers=0)
        path = room / "hf" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": model_type}))
    shardloom(2, "import", "--hf", room / "hf", "--dst", room / "ms")
    shardloom(2, "export", "--src", room / "ms", "--hf-config", room / "hf", "--dst", room / "back")
    equal(load_all(room / "back"), load_all(room / "hf"))
    assert load_all(room / "ms").keys() != load_all(room / "hf").keys(), "nothing is renamed"


def quantise(hf):
    """The weights of linear layers in 8 bits with a scale a block; and, by torch, what they stand for."""
    stored, meant = {}, {}
    kept = ("embed_tokens", "norm", "lm_head", "mlp.gate.")
    for name, tensor in hf.items():
        if tensor.dim() != 2 or any(part in name for part in kept):
            stored[name] = meant[name] = tensor
            continue
        rows, columns = tensor.shape
        blocks = [range(0, size, step) for size, step in zip(tensor.shape, BLOCK)]
        scales = torch.stack([torch.stack([tensor[i:i + BLOCK[0], j:j + BLOCK[1]].abs().max().float() / 448 for j in blocks[1]])
                              for i in blocks[0]])
        wide = scales.repeat_interleave(BLOCK[0], 0)[:rows].repeat_interleave(BLOCK[1], 1)[:, :columns]
        weight = (tensor.float() / wide).to(torch.float8_e4m3fn)
        stored[name], stored[f"{name}_scale_inv"] = weight, scales
        meant[name] = (weight.float() * wide).to(torch.bfloat16)
    return stored, meant


def eight_bits(case, room):
    """A DeepSeek-V3 in 8 bits -> four ranks -> HF in bf16: torch's numbers, and the logits of a model that has them."""
    make("deepseek_v3", room / "hf")
    config = json.loads((room / "hf" / "config.json").read_text())
    stored, meant = quantise(load_all(room / "hf"))
    save_file(stored, room / "hf" / "model.safetensors", {"format": "pt"})
    quantised = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": BLOCK}
    (room / "hf" / "config.json").write_text(json.dumps({**config, "quantization_config": quantised}))
    choice = flags(case)
    shardloom(2, "import", "--hf", room / "hf", "--dst", room / "full", *choice)
    equal(load_all(room / "full"), mindspore_side(meant, config, **case))
    layout = strategy(room, room / "full", "one", "dp=2,tp=2")
    shardloom(4, "import", "--hf", room / "hf", "--dst", room / "one", "--dst-strategy", layout, "--exchange", "collective", *choice)
    shardloom(3, "export", "--src", room / "one", "--src-strategy", layout, "--hf-config", room / "hf", "--dst", room / "back")
    equal(load_all(room / "back"), meant)
    # transformers' own way to dequantise: the same weights, so the same logits.
    plain = transformers.FineGrainedFP8Config(weight_block_size=BLOCK, dequantize=True)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(room / "hf", quantization_config=plain, dtype=torch.bfloat16).eval()
    back = transformers.AutoModelForCausalLM.from_pretrained(room / "back", dtype=torch.bfloat16).eval()
    ours = back.state_dict()
    equal({name: ours[name].to(tensor.dtype) for name, tensor in theirs.state_dict().items()}, theirs.state_dict())
    tokens = torch.arange(3, 19).reshape(2, 8)
    with torch.no_grad():
        assert torch.equal(back(tokens).logits, theirs(tokens).logits), "logits differ"


def in_blocks(tensor, side=128):
    """A matrix in 8 bits, and a scale for each block of so many rows and columns."""
    rows, columns = tensor.shape
    parts = [[part.abs().max().float() / 448 for part in band.split(side, 1)] for band in tensor.split(side, 0)]
    scales = torch.stack([torch.stack(row) for row in parts])
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    wide = scales.repeat_interleave(side, 0)[:rows].repeat_interleave(side, 1)[:, :columns]
    return (tensor.float() / wide).clamp(-448, 448).to(torch.float8_e4m3fn), scales


def eight_bits_out(case, room):
    """Four ranks -> HF in 8 bits: torch's bytes, and transformers loads what import reads back."""
    # transformers takes only whole blocks.
    make("qwen3", room / "hf", hidden_size=256, head_dim=128, intermediate_size=384, num_attention_heads=2, num_key_value_heads=2)
    hf, choice = load_all(room / "hf"), flags(case)
    shardloom(1, "import", "--hf", room / "hf", "--dst", room / "plain", *choice)
    layout = strategy(room, room / "plain", "one", "dp=2,tp=2")
    shardloom(4, "import", "--hf", room / "hf", "--dst", room / "one", "--dst-strategy", layout, *choice)
    shardloom(4, "export", "--src", room / "one", "--src-strategy", layout, "--hf-config", room / "hf", "--dst", room / "eight",
              "--quantise", "fp8-block", "--exchange", "collective")
    due = dict(hf)
    for name, tensor in hf.items():
        if "_proj." in name:
            due[name], due[f"{name}_scale_inv"] = in_blocks(tensor)
    found = load_all(room / "eight")
    # torch can't compare floats of 8 bits; their bytes can be.
    raw = lambda all: {n: t.view(torch.uint8) if t.dtype == torch.float8_e4m3fn else t for n, t in all.items()}  # noqa: E731
    equal(raw(found), raw(due))
    config = json.loads((room / "eight" / "config.json").read_text())["quantization_config"]
    assert config == {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
    # transformers' own way to dequantise, and import's: the same weights, so the same logits.
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        room / "eight", quantization_config=transformers.FineGrainedFP8Config(dequantize=True), dtype=torch.bfloat16).eval()
    shardloom(2, "import", "--hf", room / "eight", "--dst", room / "again", *choice)
    shardloom(2, "export", "--src", room / "again", "--hf-config", room / "hf", "--dst", room / "back")
    back = transformers.AutoModelForCausalLM.from_pretrained(room / "back", dtype=torch.bfloat16).eval()
    ours = back.state_dict()
    equal({name: ours[name].to(tensor.dtype) for name, tensor in theirs.state_dict().items()}, theirs.state_dict())
    tokens = torch.arange(3, 19).reshape(2, 8)
    with torch.no_grad():
        assert torch.equal(back(tokens).logits, theirs(tokens).logits), "logits differ"


def noise(seed):
    """As tests/support/float.rs has it."""
    while True:
        seed ^= seed << 13 & 0xffffffff
        seed ^= seed >> 17
        seed ^= seed << 5 & 0xffffffff
        yield seed >> 8 & 0xff


def write_quantised(root):
    """Hashes of what torch makes of the numbers in tests/computed/quantised.rs: of each weight in 8 bits, and of its scales."""
    layer = "model.layers.0."
    shapes = {"lm_head": (24, 136), "model.embed_tokens": (24, 136), f"{layer}mlp.down_proj": (136, 264),
              f"{layer}mlp.gate_proj": (264, 136), f"{layer}mlp.up_proj": (264, 136), f"{layer}self_attn.k_proj": (68, 136),
              f"{layer}self_attn.o_proj": (136, 136), f"{layer}self_attn.q_proj": (136, 136), f"{layer}self_attn.v_proj": (68, 136)}
    numbers, golden = noise(5), {}

    def digest(tensor):
        value = 0xcbf29ce484222325
        for byte in tensor.contiguous().view(torch.uint8).flatten().tolist():
            value = (value ^ byte) * 0x100000001b3 & (1 << 64) - 1
        return f"{value:016x}"

    for name, (rows, columns) in shapes.items():
        drawn = [(next(numbers) - 128.0) * 2.0 ** -(next(numbers) % 16) for _ in range(rows * columns)]
        tensor = torch.tensor(drawn).to(torch.bfloat16).reshape(rows, columns)
        if "gate_proj" in name:
            tensor[128:256, :128] = 0
        if "proj" in name:
            golden[f"{name}.weight"] = [digest(part) for part in in_blocks(tensor)]
    (root / "quantised.json").write_text(json.dumps(golden, indent=1) + "\n")


def adapter(case, room):
    """PEFT's adapter on a Llama, merged by import into four ranks and exported: the weights that PEFT merges."""
    import peft

    make("llama", room / "hf")
    base = transformers.AutoModelForCausalLM.from_pretrained(room / "hf", dtype=torch.bfloat16)
    modules = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    wanted = peft.LoraConfig(r=3, lora_alpha=12, target_modules=modules, alpha_pattern={"up_proj": 1.5}, bias="none")
    tuned = peft.get_peft_model(base, wanted)
    with torch.no_grad():
        # Eighths: sums that are exact in float32, in whatever order a library adds.
        for name, tensor in tuned.named_parameters():
            if "lora_" in name:
                tensor.copy_(torch.randint(-16, 17, tensor.shape) / 8)
    tuned.save_pretrained(room / "adapter")
    merged = {name: tensor.clone() for name, tensor in tuned.merge_and_unload().state_dict().items()}
    hf, choice = load_all(room / "hf"), flags(case)
    shardloom(1, "import", "--hf", room / "hf", "--dst", room / "plain", *choice)
    layout = strategy(room, room / "plain", "one", "dp=2,tp=2")
    shardloom(4, "import", "--hf", room / "hf", "--dst", room / "one", "--dst-strategy", layout, "--lora", room / "adapter", *choice)
    shardloom(2, "export", "--src", room / "one", "--src-strategy", layout, "--hf-config", room / "hf", "--dst", room / "back")
    back = load_all(room / "back")
    equal(back, {name: merged[name].to(hf[name].dtype) for name in hf})
    assert any(not torch.equal(back[name], hf[name]) for name in hf), "nothing was merged"


PATTERNS = [
    {}, {"q_proj": 16, "layers.0.self_attn.q_proj": 64}, {"layers.0.self_attn.q_proj": 64, "q_proj": 16},
    {"^model.layers.0.self_attn.q_proj": 64}, {"^layers.0.self_attn.q_proj": 64}, {"model.layers.0.self_attn.q_proj": 64},
    {".*q_proj": 64}, {"q_proj|v_proj": 64}, {"(q|v)_proj": 64, "q_proj": 2}, {"proj": 64}, {"self_attn": 64},
    {"layers\\.[0-1]\\.self_attn.q_proj": 32}, {"q_proj$": 64}, {"lmlp.up_proj": 4}, {"mlp.up_proj": 4, "up_proj": 2},
    {"layers.1.": 8}, {"layers.1.*": 8}, {"[qv]_proj": 32, "layers.0.mlp.up_proj": 1}, {"Q_PROJ": 64}, {"model": 3},
]


def write_patterns(root):
    """What PEFT multiplies each module's product by, and its rank, for keys of alpha_pattern and rank_pattern."""
    import peft

    with tempfile.TemporaryDirectory() as room:
        make("llama", Path(room) / "hf")
        rows = []
        for alphas in PATTERNS:
            for ranks in [{}, {"layers.1.self_attn.q_proj": 2, "q_proj": 4}, {"mlp.*": 2}]:
                for by_root in [False] if ranks else [False, True]:
                    base = transformers.AutoModelForCausalLM.from_pretrained(Path(room) / "hf", dtype=torch.bfloat16)
                    config = dict(r=8, lora_alpha=12, alpha_pattern=alphas, rank_pattern=ranks, use_rslora=by_root)
                    tuned = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj", "v_proj", "up_proj"], **config))
                    modules = {n.removeprefix("base_model.model."): [m.r["default"], m.scaling["default"]]
                               for n, m in tuned.named_modules() if hasattr(m, "lora_A")}
                    rows.append({"config": config, "modules": modules})
    text = ",\n".join(json.dumps(row) for row in rows)
    (root / "patterns.json").write_text(f"[\n{text}\n]\n")


def trials():
    """Name of each comparison, and what makes it in a directory of its own."""
    for family, cases in CASES.items():
        for name, case in cases.items():
            yield f"{family} {name}", lambda room, f=family, c=case: round_trip(f.removesuffix("_legacy"), c, room)
    for family, shapes in SHAPES.items():
        for number, shape in enumerate(shapes, 2):
            case = next(case for name, case in CASES[family].items() if name in ("mcore", "legacy_separate"))
            yield f"{family} of shape {number}", lambda room, f=family, c=case, s=shape: round_trip(f, c, room, **s)
    for model_type in ["mistral", "kimi_k2"]:
        yield f"{model_type} by its name", lambda room, m=model_type: called_otherwise(m, room)
    yield "deepseek_v3 in 8 bits", lambda room: eight_bits(CASES["deepseek_v3"]["mcore"], room)
    yield "qwen3 out in 8 bits", lambda room: eight_bits_out(CASES["qwen3"]["mcore"], room)
    yield "llama with an adapter", lambda room: adapter(CASES["llama"]["legacy_fused"], room)


def main():
    passed, failed = 0, []
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    for name, trial in trials():
        if wanted and not any(word in name for word in wanted):
            continue
        with tempfile.TemporaryDirectory() as room:
            try:
                trial(Path(room))
                passed += 1
                print(f"ok      {name}", flush=True)
            except Exception as error:  # noqa: BLE001
                failed.append(name)
                print(f"FAILED  {name}: {error}", flush=True)
                if "-v" in sys.argv:
                    traceback.print_exc()
    print(f"{passed} passed, {len(failed)} failed", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    if "--write-golden" in sys.argv:
        write_golden(Path(sys.argv[sys.argv.index("--write-golden") + 1]))
    elif "--write-patterns" in sys.argv:
        write_patterns(Path(sys.argv[sys.argv.index("--write-patterns") + 1]))
    else:
        sys.exit(main())
