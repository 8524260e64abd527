#!/usr/bin/env python3
"""shardloom and the converters of MindSpore Transformers side by side, for families that transformers has no network of, or
that only these converters take to MindSpore's names: models of random numbers, converted by the trainer's own code and
imported, must be equal, bit for bit, and come back, on one process and on four.

    tests/with_converters.py [--write-golden tests/data/model] WHEEL

WHEEL is the unpacked wheel of MindSpore Transformers 1.9.0, or, for what networks of a dynamic graph read, of 2.1.0. Needs what it needs, MindSpore
and torch, and shardloom and mpirun (`. launch/env`). Ends with `N passed, N failed`; --write-golden makes the recorded data of tests/model.rs anew.
"""

import json
import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load_file, save_file

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
SEPARATE = ["--qkv", "separate", "--ffn", "separate"]
JOINED = ["--qkv", "contiguous", "--ffn", "contiguous", "--tp", "1"]


def numbers(shapes, dtype):
    return {name: (torch.randn(shape) * 0.3 + 0.1).to(dtype) for name, shape in shapes.items()}


# --- models -----------------------------------------------------------------------------------------------------------


def chatglm(dtype, **more):
    """config.json and tensors, by the names of ChatGLM's own code."""
    config = {
        "architectures": ["ChatGLMForConditionalGeneration"], "model_type": "chatglm", "add_bias_linear": False,
        "add_qkv_bias": True, "ffn_hidden_size": 12, "hidden_size": 16, "kv_channels": 8, "multi_query_attention": True,
        "multi_query_group_num": 2, "num_attention_heads": 4, "num_layers": 2, "padded_vocab_size": 24,
        "post_layer_norm": True, "rmsnorm": True, "seq_length": 64, "tie_word_embeddings": False,
        "torch_dtype": str(dtype).removeprefix("torch."), "vocab_size": 24, **more,
    }
    hidden, ffn, words = (config[key] for key in ("hidden_size", "ffn_hidden_size", "padded_vocab_size"))
    query = config["num_attention_heads"] * config["kv_channels"]
    rows = query + 2 * config["multi_query_group_num"] * config["kv_channels"]
    shapes = {"transformer.embedding.word_embeddings.weight": (words, hidden), "transformer.output_layer.weight": (words, hidden),
              "transformer.encoder.final_layernorm.weight": (hidden,)}
    for layer in range(config["num_layers"]):
        root = f"transformer.encoder.layers.{layer}."
        shapes |= {
            f"{root}input_layernorm.weight": (hidden,), f"{root}post_attention_layernorm.weight": (hidden,),
            f"{root}self_attention.query_key_value.weight": (rows, hidden),
            f"{root}self_attention.dense.weight": (hidden, query), f"{root}mlp.dense_h_to_4h.weight": (2 * ffn, hidden),
            f"{root}mlp.dense_4h_to_h.weight": (hidden, ffn),
        }
        if config["add_qkv_bias"]:
            shapes[f"{root}self_attention.query_key_value.bias"] = (rows,)
    return config, numbers(shapes, dtype)


def glm(dtype, **more):
    """config.json and tensors, by the names of transformers."""
    config = {
        "architectures": ["GlmForCausalLM"], "model_type": "glm", "attention_bias": True, "dtype": str(dtype).removeprefix("torch."),
        "head_dim": 8, "hidden_size": 16, "intermediate_size": 12, "max_position_embeddings": 64, "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": 2, "tie_word_embeddings": False, "vocab_size": 24, **more,
    }
    hidden, ffn, words = (config[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
    rows = {"q": config["num_attention_heads"] * config["head_dim"]}
    rows["k"] = rows["v"] = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens.weight": (words, hidden), "lm_head.weight": (words, hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        root = f"model.layers.{layer}."
        shapes |= {
            f"{root}input_layernorm.weight": (hidden,), f"{root}post_attention_layernorm.weight": (hidden,),
            f"{root}self_attn.o_proj.weight": (hidden, rows["q"]), f"{root}mlp.gate_up_proj.weight": (2 * ffn, hidden),
            f"{root}mlp.down_proj.weight": (hidden, ffn),
        }
        for letter in "qkv":
            shapes[f"{root}self_attn.{letter}_proj.weight"] = (rows[letter], hidden)
            if config["attention_bias"]:
                shapes[f"{root}self_attn.{letter}_proj.bias"] = (rows[letter],)
    return config, numbers(shapes, dtype)


def telechat(dtype, **more):
    """config.json and tensors, by the names of TeleChat2's own code."""
    config = {
        "architectures": ["TelechatForCausalLM"], "model_type": "telechat", "dtype": str(dtype).removeprefix("torch."),
        "embed_layernorm": False, "ffn_hidden_size": 12, "hidden_size": 24, "n_head": 4, "n_layer": 2, "num_key_value_heads": 2,
        "pad_token_id": 3, "tie_word_embeddings": False, "vocab_size": 24, **more,
    }
    hidden, ffn, words = (config[key] for key in ("hidden_size", "ffn_hidden_size", "vocab_size"))
    rows = 2 * config["num_key_value_heads"] * hidden // config["n_head"]
    shapes = {"transformer.word_embeddings.weight": (words, hidden), "lm_head.weight": (words, hidden),
              "transformer.ln_f.weight": (hidden,)}
    for layer in range(config["n_layer"]):
        root = f"transformer.h.{layer}."
        shapes |= {
            f"{root}input_layernorm.weight": (hidden,), f"{root}post_attention_layernorm.weight": (hidden,),
            f"{root}self_attention.query.weight": (hidden, hidden), f"{root}self_attention.key_value.weight": (rows, hidden),
            f"{root}self_attention.dense.weight": (hidden, hidden), f"{root}self_attention.dense.bias": (hidden,),
            f"{root}mlp.gate_proj.weight": (ffn, hidden), f"{root}mlp.up_proj.weight": (ffn, hidden),
            f"{root}mlp.down_proj.weight": (hidden, ffn), f"{root}mlp.down_proj.bias": (hidden,),
        }
    return config, numbers(shapes, dtype)


def telechat3(dtype, **more):
    """config.json and tensors, by the names of Llama, as TeleChat3 has them."""
    config = {
        "architectures": ["TeleChat3ForCausalLM"], "model_type": "telechat3", "attention_bias": False,
        "dtype": str(dtype).removeprefix("torch."), "head_dim": 6, "hidden_size": 24, "intermediate_size": 12, "mlp_bias": False,
        "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "pad_token_id": 3,
        "tie_word_embeddings": False, "vocab_size": 24, **more,
    }
    hidden, ffn, words = (config[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
    rows = {"q": config["num_attention_heads"] * config["head_dim"]}
    rows["k"] = rows["v"] = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens.weight": (words, hidden), "lm_head.weight": (words, hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        root = f"model.layers.{layer}."
        shapes |= {
            f"{root}input_layernorm.weight": (hidden,), f"{root}post_attention_layernorm.weight": (hidden,),
            f"{root}self_attn.o_proj.weight": (hidden, rows["q"]), f"{root}mlp.gate_proj.weight": (ffn, hidden),
            f"{root}mlp.up_proj.weight": (ffn, hidden), f"{root}mlp.down_proj.weight": (hidden, ffn),
        }
        shapes |= {f"{root}self_attn.{letter}_proj.weight": (rows[letter], hidden) for letter in "qkv"}
    return config, numbers(shapes, dtype)


def telechat3_moe(dtype, **more):
    """config.json and tensors, by the names of DeepSeek-V3, as TeleChat3 with experts has them."""
    config = {
        "architectures": ["TeleChat3MoeForCausalLM"], "model_type": "telechat3_moe", "dtype": str(dtype).removeprefix("torch."),
        "first_k_dense_replace": 1, "hidden_size": 16, "intermediate_size": 20, "kv_lora_rank": 8, "moe_intermediate_size": 8,
        "n_routed_experts": 4, "n_shared_experts": 1, "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 3,
        "num_key_value_heads": 4, "num_nextn_predict_layers": 0, "q_lora_rank": 12, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2,
        "tie_word_embeddings": False, "v_head_dim": 6, "vocab_size": 24, **more,
    }
    hidden, words, heads, rank, experts = (
        config[key] for key in ("hidden_size", "vocab_size", "num_attention_heads", "kv_lora_rank", "n_routed_experts"))
    nope, rope, value, query = (config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "q_lora_rank"))
    shapes = {"model.embed_tokens.weight": (words, hidden), "lm_head.weight": (words, hidden), "model.norm.weight": (hidden,)}

    def feed_forward(root, inner):
        return {f"{root}gate_proj.weight": (inner, hidden), f"{root}up_proj.weight": (inner, hidden), f"{root}down_proj.weight": (hidden, inner)}

    for layer in range(config["num_hidden_layers"]):
        root = f"model.layers.{layer}."
        shapes |= {
            f"{root}input_layernorm.weight": (hidden,), f"{root}post_attention_layernorm.weight": (hidden,),
            f"{root}self_attn.q_a_proj.weight": (query, hidden), f"{root}self_attn.q_a_layernorm.weight": (query,),
            f"{root}self_attn.q_b_proj.weight": (heads * (nope + rope), query),
            f"{root}self_attn.kv_a_proj_with_mqa.weight": (rank + rope, hidden), f"{root}self_attn.kv_a_layernorm.weight": (rank,),
            f"{root}self_attn.kv_b_proj.weight": (heads * (nope + value), rank), f"{root}self_attn.o_proj.weight": (hidden, heads * value),
        }
        if layer < config["first_k_dense_replace"]:
            shapes |= feed_forward(f"{root}mlp.", config["intermediate_size"])
            continue
        shapes |= {f"{root}mlp.gate.weight": (experts, hidden), f"{root}mlp.gate.e_score_correction_bias": (experts,)}
        shapes |= feed_forward(f"{root}mlp.shared_experts.", config["moe_intermediate_size"] * config["n_shared_experts"])
        for expert in range(experts):
            shapes |= feed_forward(f"{root}mlp.experts.{expert}.", config["moe_intermediate_size"])
    made = numbers(shapes, dtype)
    return config, {name: tensor.float() if name.endswith("_bias") else tensor for name, tensor in made.items()}


def deepseek_v4(dtype, **more):
    """config.json and tensors, by the names of DeepSeek-V4's own code: of 4 layers each is another kind, and one predicts further."""
    config = {
        "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "compress_ratios": [0, 4, 128, 4, 0],
        "dtype": str(dtype).removeprefix("torch."), "hc_mult": 2, "head_dim": 8, "hidden_size": 16, "index_head_dim": 4,
        "index_n_heads": 2, "moe_intermediate_size": 8, "n_routed_experts": 4, "n_shared_experts": 1, "num_attention_heads": 4,
        "num_experts_per_tok": 2, "num_hash_layers": 1, "num_hidden_layers": 4, "num_nextn_predict_layers": 1, "o_groups": 2,
        "o_lora_rank": 6, "q_lora_rank": 12, "tie_word_embeddings": False, "vocab_size": 24, **more,
    }
    hidden, words, head, rank, ffn = (config[key] for key in ("hidden_size", "vocab_size", "head_dim", "q_lora_rank", "moe_intermediate_size"))
    query, streams = config["num_attention_heads"] * head, config["hc_mult"]
    groups, index = config["o_groups"], config["index_head_dim"]

    def head_of(root):
        return {f"{root}hc_head_fn": (streams, streams * hidden), f"{root}hc_head_base": (streams,), f"{root}hc_head_scale": (1,)}

    def compressor(root, size, ratio):
        wide = 2 * size if ratio == 4 else size
        return {f"{root}ape": (ratio, wide), f"{root}wkv.weight": (wide, hidden), f"{root}wgate.weight": (wide, hidden),
                f"{root}norm.weight": (size,)}

    def layer(root, number):
        ratio, joined = config["compress_ratios"][number], (2 + streams) * streams
        shapes = {
            f"{root}attn_norm.weight": (hidden,), f"{root}ffn_norm.weight": (hidden,), f"{root}attn.wq_a.weight": (rank, hidden),
            f"{root}attn.q_norm.weight": (rank,), f"{root}attn.wq_b.weight": (query, rank), f"{root}attn.wkv.weight": (head, hidden),
            f"{root}attn.kv_norm.weight": (head,), f"{root}attn.wo_a.weight": (groups * config["o_lora_rank"], query // groups),
            f"{root}attn.wo_b.weight": (hidden, groups * config["o_lora_rank"]), f"{root}attn.attn_sink": (config["num_attention_heads"],),
            f"{root}ffn.gate.weight": (config["n_routed_experts"], hidden),
        }
        for part in ("attn", "ffn"):
            shapes |= {f"{root}hc_{part}_fn": (joined, streams * hidden), f"{root}hc_{part}_base": (joined,), f"{root}hc_{part}_scale": (3,)}
        if ratio:
            shapes |= compressor(f"{root}attn.compressor.", head, ratio)
        if ratio == 4:
            shapes |= {f"{root}attn.indexer.wq_b.weight": (config["index_n_heads"] * index, rank),
                       f"{root}attn.indexer.weights_proj.weight": (config["index_n_heads"], hidden)}
            shapes |= compressor(f"{root}attn.indexer.compressor.", index, ratio)
        if number >= config["num_hash_layers"]:
            shapes[f"{root}ffn.gate.bias"] = (config["n_routed_experts"],)
        for block in [*(f"experts.{e}" for e in range(config["n_routed_experts"])), "shared_experts"]:
            shapes |= {f"{root}ffn.{block}.w{n}.weight": (hidden, ffn) if n == 2 else (ffn, hidden) for n in (1, 2, 3)}
        return shapes

    shapes = {"embed.weight": (words, hidden), "head.weight": (words, hidden), "norm.weight": (hidden,), **head_of("")}
    for number in range(config["num_hidden_layers"]):
        shapes |= layer(f"layers.{number}.", number)
    for number in range(config["num_nextn_predict_layers"]):
        root = f"mtp.{number}."
        shapes |= layer(root, config["num_hidden_layers"] + number) | head_of(root)
        shapes |= {f"{root}{name}.weight": (hidden,) for name in ("enorm", "hnorm", "norm")}
        shapes |= {f"{root}{name}.weight": (hidden, hidden) for name in ("e_proj", "h_proj")}
    made = numbers(shapes, dtype)
    # What the model keeps in float32, and the experts of each word.
    plain = ("norm.weight", "attn_sink", "gate.bias", "ape", "_fn", "_base", "_scale")
    made = {name: tensor.float() if name.endswith(plain) else tensor for name, tensor in made.items()}
    for number in range(config["num_hash_layers"]):
        experts = torch.randint(config["n_routed_experts"], (words, config["num_experts_per_tok"]), dtype=torch.int32)
        made[f"layers.{number}.ffn.gate.tid2eid"] = experts
    return config, made


def qwen3(dtype, **more):
    """config.json and tensors, by the names of transformers; with experts, if their number is given."""
    moe = "num_experts" in more
    config = {
        "architectures": ["Qwen3MoeForCausalLM" if moe else "Qwen3ForCausalLM"], "model_type": "qwen3_moe" if moe else "qwen3",
        "attention_bias": False, "dtype": str(dtype).removeprefix("torch."), "head_dim": 6, "hidden_size": 16, "intermediate_size": 12,
        "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "tie_word_embeddings": False, "vocab_size": 24,
        **({"decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 10, "num_experts_per_tok": 2} if moe else {}), **more,
    }
    hidden, words, head = (config[key] for key in ("hidden_size", "vocab_size", "head_dim"))
    rows = {"q": config["num_attention_heads"] * head, "k": config["num_key_value_heads"] * head}
    rows["v"] = rows["k"]
    shapes = {"model.embed_tokens.weight": (words, hidden), "lm_head.weight": (words, hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        root = f"model.layers.{layer}."
        shapes |= {f"{root}self_attn.{letter}_proj.weight": (rows[letter], hidden) for letter in "qkv"}
        shapes |= {
            f"{root}input_layernorm.weight": (hidden,), f"{root}post_attention_layernorm.weight": (hidden,),
            f"{root}self_attn.o_proj.weight": (hidden, rows["q"]), f"{root}self_attn.q_norm.weight": (head,),
            f"{root}self_attn.k_norm.weight": (head,),
        }
        places = [f"{root}mlp.experts.{number}." for number in range(config["num_experts"])] if moe else [f"{root}mlp."]
        ffn = config["moe_intermediate_size" if moe else "intermediate_size"]
        for place in places:
            shapes |= {f"{place}gate_proj.weight": (ffn, hidden), f"{place}up_proj.weight": (ffn, hidden),
                       f"{place}down_proj.weight": (hidden, ffn)}
        if moe:
            shapes[f"{root}mlp.gate.weight"] = (config["num_experts"], hidden)
    return config, numbers(shapes, dtype)


# --- the trainer's converters -------------------------------------------------------------------------------------------


def converted_chatglm(config, hf, joined, room):
    """glm2/convert_weight.py, which is given the model's tensors in the place of a model that it would load."""
    import mindspore
    from mindformers.models.glm2 import convert_weight

    keys = ["num_layers", "padded_vocab_size", "hidden_size", "ffn_hidden_size", "kv_channels", "num_attention_heads",
            "multi_query_group_num", "multi_query_attention", "add_qkv_bias", "add_bias_linear", "rmsnorm"]
    settings = {key: config[key] for key in keys} | {"qkv_concat": joined, "mlp_concat": joined}
    (room / "job.yaml").write_text(json.dumps({"model": {"model_config": settings}}))
    model = SimpleNamespace(from_pretrained=lambda _: SimpleNamespace(state_dict=lambda: dict(hf)))
    dtype = getattr(mindspore, config["torch_dtype"])
    with mock.patch.object(convert_weight, "AutoModel", model):
        convert_weight.convert_pt_to_ms(str(room), str(room / "net.ckpt"), str(room / "job.yaml"), dtype=dtype)
    made = mindspore.load_checkpoint(str(room / "net.ckpt"))
    bits = {name: torch.from_numpy(p.float().asnumpy() if dtype == mindspore.bfloat16 else p.asnumpy()) for name, p in made.items()}
    return {name: tensor.to(getattr(torch, config["torch_dtype"])) for name, tensor in bits.items()}


def converted_glm(config, hf, joined, _room):
    """The network's convert_weight_dict."""
    from mindformers.models.glm2.glm2 import ChatGLM2ForConditionalGeneration

    dtype = getattr(torch, config["dtype"])
    asked = SimpleNamespace(qkv_concat=joined, kv_channels=config["head_dim"], num_attention_heads=config["num_attention_heads"],
                            multi_query_group_num=config["num_key_value_heads"], ffn_hidden_size=config["intermediate_size"])
    more = {"qkv_dict": multiprocessing.Manager().dict(), "condition": multiprocessing.Condition()} if joined else {}
    # numpy has no bf16, and rows are moved whatever they hold.
    source = {name: (t.view(torch.int16) if dtype == torch.bfloat16 else t).numpy() for name, t in hf.items()}
    made = ChatGLM2ForConditionalGeneration.convert_weight_dict(source, model_config=asked, **more)
    arrays = {name: value.asnumpy() if hasattr(value, "asnumpy") else value for name, value in made.items()}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    return {name: tensor.view(dtype) for name, tensor in tensors.items()}


def converted_telechat(config, hf, _joined, room):
    """What the network that answers (there is none to train) reads of a model's files."""
    from mindformers.models.telechat2 import modeling_telechat2_infer as network

    dtype = getattr(torch, config["dtype"])
    # Rows are moved whatever they hold: numpy has no bf16.
    source = {name: t.view(torch.int16) if dtype == torch.bfloat16 else t for name, t in hf.items()}
    save_file(source, room / "source.safetensors")
    reader = network.InferenceTelechat2ForCausalLM
    asked = SimpleNamespace(config=SimpleNamespace(**config, quantization=None), quant_config=None)
    asked.convert_name = lambda name: network.Telechat2PreTrainedModel.convert_name(asked, name)
    asked.weight_mapping = reader.weight_mapping
    with mock.patch.object(network, "get_tensor_model_parallel_rank", lambda: 0), \
            mock.patch("mindformers.parallel_core.utils.model_mixin.is_legacy_model", lambda: False):
        made = {name: np.ascontiguousarray(value[:]) for name, value in
                reader._safetensors_weights_iterator(asked, [str(room / "source.safetensors")])}
    tensors = {name: torch.from_numpy(value) for name, value in made.items()}
    return {name: tensor.view(dtype) for name, tensor in tensors.items()}


def converted_telechat3(config, hf, joined, _room):
    """The names of the network, and what is in one as the class that it shares with the others puts it together."""
    from mindformers.models.telechat3 import modeling_telechat3_train as network

    dtype, own = getattr(torch, config["dtype"]), network.TrainingTeleChat3ForCausalLM
    with mock.patch("mindformers.parallel_core.utils.model_mixin.is_legacy_model", lambda: False):
        named = {own.convert_name(own, name): tensor for name, tensor in hf.items()}
    named = {name: (t.view(torch.int16) if dtype == torch.bfloat16 else t).numpy() for name, t in named.items()}
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    for name in [name for name in named if joined and ".linear_q." in name]:
        parts = [named.pop(name.replace("linear_q", f"linear_{letter}")) for letter in "qkv"]
        named |= own.concat_qkv_interleaved(own, *parts, name, config["head_dim"], groups, heads)
    for name in [name for name in named if joined and ".gating." in name]:
        parts = named.pop(name), named.pop(name.replace("gating", "hidden"))
        named |= own.concat_linear_fc1_interleaved(own, *parts, name, config["intermediate_size"])
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in named.items()}
    return {name: tensor.view(dtype) for name, tensor in tensors.items()}


def converted_telechat3_moe(config, hf, joined, _room):
    """The names of the network, and what is in one as its class puts it together."""
    from mindformers.models.telechat3_moe import modeling_telechat3_moe_train as network

    own = network.TrainingTeleChat3MoeForCausalLM
    with mock.patch("mindformers.parallel_core.utils.model_mixin.is_legacy_model", lambda: False):
        named = {own.convert_name(own, name): tensor for name, tensor in hf.items()}
    types = {name: tensor.dtype for name, tensor in named.items()}
    named = {name: (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy() for name, t in named.items()}
    for name in [name for name in named if ".gating." in name]:
        gate, up = name, name.replace("gating", "hidden")
        dtype = types[gate]
        if ".experts." in name:
            made = own.concat_linear_fc1_contiguous(own, named.pop(gate), named.pop(up), gate)
        elif joined:
            rows = named[gate].shape[0]
            made = own.concat_linear_fc1_interleaved(own, named.pop(gate), named.pop(up), gate, rows)
        else:
            continue
        named |= made
        types |= {name: dtype for name in made}
    experts = config["n_routed_experts"]
    network_of = SimpleNamespace(transformer_config=SimpleNamespace(
        hidden_size=config["hidden_size"], moe_ffn_hidden_size=config["moe_intermediate_size"]))
    downs = [name for name in named if ".experts." in name and ".linear_fc2." in name]
    own.concat_expert_weight(network_of, downs, {}, multiprocessing.Condition(), named, config["num_hidden_layers"], experts)
    dtype = getattr(torch, config["dtype"])
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in named.items()}
    return {name: tensor.view(types.get(name, dtype)) for name, tensor in tensors.items()}


def by_operations(pretrained, config, hf, standing, **more):
    """The operations that a dynamic graph's network reads a model with. It puts an expert's matrices together first."""
    from mindformers.checkpoint.converter.template import WeightTemplate

    template = WeightTemplate(pretrained.weight_converters)
    experts = config.get("n_routed_experts", config.get("num_experts"))
    for operation in template.weight_converters:
        if hasattr(operation, "set_model_config"):
            operation.set_model_config(SimpleNamespace(
                num_moe_experts=experts, hidden_size=config["hidden_size"], moe_ffn_hidden_size=config.get("moe_intermediate_size"),
                expert_model_parallel_size=1, tensor_model_parallel_size=1, use_interleaved_weight_layout_mlp=True, **more))
        operation.optimizer_parallel_size = 1
    made = {}

    def put(results, dtype):
        for name, value in results.items():
            tensor = torch.from_numpy(np.ascontiguousarray(value)).view(dtype)
            # The network has an axis for the experts.
            stacked = standing and ".experts.weight" in name
            made[name] = tensor.reshape(experts, -1, tensor.shape[1]) if stacked else tensor

    def rows(name):
        # Rows are moved whatever they hold: numpy has no bf16.
        return (hf[name].view(torch.int16) if hf[name].dtype == torch.bfloat16 else hf[name]).numpy()

    gates, downs = (".w1.", ".gate_proj."), (".w2.", ".down_proj.")
    for name, tensor in hf.items():
        if ".experts." not in name:
            put(template.add_hf_weight(name, rows(name)) or {}, tensor.dtype)
        elif ".experts.0." in name and any(part in name for part in gates + downs):
            up = name.replace(".w1.", ".w3.").replace(".gate_proj.", ".up_proj.")
            slots = [name, up] if up != name else [name]
            stacks = {slot: np.stack([rows(slot.replace("experts.0", f"experts.{e}")) for e in range(experts)]) for slot in slots}
            put(template.get_convert_op(name, template.hf_name_to_converter)(stacks), tensor.dtype)
    return made


def converted_deepseek_v4(config, hf, standing, _room):
    from mindformers.models.deepseek4.utils import DeepseekV4PreTrainedModel

    return by_operations(DeepseekV4PreTrainedModel, config, hf, standing)


def converted_qwen3(config, hf, standing, _room):
    from mindformers.models.qwen3.utils import Qwen3PreTrainedModel
    from mindformers.models.qwen3_moe.utils import Qwen3MoePreTrainedModel

    pretrained = Qwen3MoePreTrainedModel if "num_experts" in config else Qwen3PreTrainedModel
    return by_operations(pretrained, config, hf, standing, num_attention_heads=config["num_attention_heads"],
                         num_query_groups=config["num_key_value_heads"], kv_channels=config["head_dim"])


# Family: its models, its converter, other shapes, and for each case whether tensors are in one, and the flags. What was recorded
# keeps its numbers: what is new comes last.
NETWORK = {"legacy": (True, ["--names", "legacy", *JOINED]), "legacy_separate": (False, ["--names", "legacy", *SEPARATE])}
IN_ONE = ["--names", "mcore", "--qkv", "interleaved", "--ffn", "interleaved"]
FAMILIES = {
    "chatglm": (chatglm, converted_chatglm, NETWORK, [
        {}, dict(num_attention_heads=8, multi_query_group_num=4, kv_channels=4), dict(add_qkv_bias=False, num_layers=3)]),
    "glm": (glm, converted_glm, NETWORK, [
        {}, dict(num_attention_heads=8, num_key_value_heads=4, head_dim=4), dict(attention_bias=False, num_hidden_layers=3)]),
    "telechat": (telechat, converted_telechat, {"mcore_separate": (False, ["--names", "mcore", *SEPARATE])}, [
        {}, dict(n_head=6, num_key_value_heads=6, n_layer=3), dict(n_head=6, num_key_value_heads=1, ffn_hidden_size=40)]),
    "telechat3": (telechat3, converted_telechat3, {
        "mcore": (True, ["--names", "mcore", "--qkv", "interleaved", "--ffn", "interleaved"]),
        "mcore_separate": (False, ["--names", "mcore", *SEPARATE])}, [
        {}, dict(num_attention_heads=8, num_key_value_heads=4, head_dim=3), dict(num_key_value_heads=1, num_hidden_layers=3)]),
    "deepseek_v4": (deepseek_v4, converted_deepseek_v4, {
        "mcore": (True, ["--names", "mcore", "--ffn", "interleaved", "--experts", "stacked-3d"]),
        "mcore_stacked": (False, ["--names", "mcore", "--ffn", "interleaved", "--experts", "stacked"])}, [
        {}, dict(num_attention_heads=8, o_groups=4, n_routed_experts=6, hc_mult=4), dict(num_hash_layers=0, compress_ratios=[128, 4, 0, 0, 0]),
        dict(num_nextn_predict_layers=0, index_n_heads=4, num_hash_layers=3)]),
    "telechat3_moe": (telechat3_moe, converted_telechat3_moe, {
        "mcore": (True, ["--names", "mcore", "--ffn", "interleaved"]), "mcore_separate": (False, ["--names", "mcore", "--ffn", "separate"])}, [
        {}, dict(num_attention_heads=8, n_routed_experts=6, n_shared_experts=2, v_head_dim=4, moe_intermediate_size=6),
        dict(first_k_dense_replace=0, q_lora_rank=8, kv_lora_rank=12, num_hidden_layers=2)]),
    "qwen3_dynamic": (qwen3, converted_qwen3, {"mcore": (True, IN_ONE)}, [
        {}, dict(num_attention_heads=6, head_dim=4, num_hidden_layers=3), dict(num_key_value_heads=4, intermediate_size=20)]),
    "qwen3_moe_dynamic": (qwen3, converted_qwen3, {
        "mcore": (True, [*IN_ONE, "--experts", "stacked-3d"]), "mcore_stacked": (False, [*IN_ONE, "--experts", "stacked"])}, [
        dict(num_experts=4), dict(num_experts=6, num_attention_heads=6, head_dim=4), dict(num_experts=8, num_key_value_heads=1)]),
}
# Those that the dynamic graph's networks read.
DYNAMIC = ("deepseek_v4", "qwen3_dynamic", "qwen3_moe_dynamic")


def known(wheel):
    """The families that a wheel has converters of."""
    new = (Path(wheel) / "mindformers/models/deepseek4").is_dir()
    return {family: row for family, row in FAMILIES.items() if (family in DYNAMIC) == new}


def save(config, hf, directory):
    directory.mkdir(parents=True)
    save_file(hf, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_golden(root):
    """Recorded data: the Hugging Face model and, for each case, the flags and what the converter makes."""
    for seed, (family, (make, convert, cases, _)) in enumerate(FAMILIES.items()):
        if family not in known(sys.argv[-1]):
            continue
        shutil.rmtree(root / family, ignore_errors=True)
        torch.manual_seed(seed)
        config, hf = make(torch.bfloat16)
        save(config, hf, root / family / "hf")
        for case, (joined, _) in cases.items():
            with tempfile.TemporaryDirectory() as room:
                save_file(convert(config, hf, joined, Path(room)), root / family / f"{case}.safetensors", {"format": "ms"})
        words = {case: flags if "--experts" in flags else [*flags, "--experts", "stacked"] for case, (_, flags) in cases.items()}
        (root / family / "cases.json").write_text(json.dumps(words, indent=1) + "\n")


# --- side by side -------------------------------------------------------------------------------------------------------


def shardloom(processes, *words):
    launcher = [os.environ.get("MPIRUN", "mpirun"), "-n", str(processes), *shlex.split(os.environ.get("MPIRUN_ARGS", ""))]
    done = subprocess.run([*launcher, "shardloom", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"shardloom {words[0]} failed: {done.stderr}")


def load_all(directory):
    return {name: tensor for file in sorted(directory.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def equal(a, b):
    assert a.keys() == b.keys(), f"names differ: {sorted(a.keys() ^ b.keys())[:6]}"
    for name in a:
        same = a[name].dtype == b[name].dtype and a[name].shape == b[name].shape
        assert same and torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)), f"{name} differs"


def trial(family, joined, flags, dtype, shape, processes, room):
    """The converter's tensors are those of import, and export gives the model back."""
    make, convert, _, _ = FAMILIES[family]
    config, hf = make(dtype, **shape)
    save(config, hf, room / "hf")
    shardloom(processes, "import", "--hf", room / "hf", "--dst", room / "full", *flags)
    equal(load_all(room / "full"), convert(config, hf, joined, room))
    shardloom(processes, "export", "--src", room / "full", "--hf-config", room / "hf", "--dst", room / "back")
    equal(load_all(room / "back"), hf)


def main():
    passed, failed = 0, []
    for family, (_, _, cases, shapes) in known(sys.argv[-1]).items():
        for case, (joined, flags) in cases.items():
            for number, shape in enumerate(shapes, 1):
                for dtype in DTYPES:
                    for processes in (1, 4):
                        name = f"{family} {case} of shape {number} in {dtype} on {processes}"
                        with tempfile.TemporaryDirectory() as room:
                            try:
                                trial(family, joined, flags, dtype, shape, processes, Path(room))
                                passed += 1
                            except Exception as error:  # noqa: BLE001
                                failed.append(name)
                                print(f"FAILED  {name}: {error}", flush=True)
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[-1])
    if "--write-golden" in sys.argv:
        write_golden(Path(sys.argv[sys.argv.index("--write-golden") + 1]))
    else:
        sys.exit(main())
