#!/usr/bin/env python3
"""The latent attention of DeepSeek-V3 as the trainer's own networks have it, in graph mode on CPU: both forms (projections by
themselves, and with their rows in one), filled with what `shardloom import --mla` makes of one model, must have the same
parameters, and make the same of the same input (up to what float32 rounds), with q_lora_rank and without.

    tests/with_networks.py WHEEL

WHEEL is the unpacked wheel of MindSpore Transformers 2.1.0. Needs what it needs, and MindSpore 2.10, and shardloom
(`. launch/env`). Ends with `N passed, N failed`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, sys.argv[-1])

import mindspore as ms
import numpy as np
from mindformers.parallel_core.training_graph.base_models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from mindformers.parallel_core.transformer_config import MLATransformerConfig
from mindformers.parallel_core.utils.spec_utils import build_module
from safetensors.numpy import load_file, save_file

HIDDEN, HEADS, LATENT, PLAIN, TURNED, VALUE, FFN, WORDS = 32, 4, 8, 6, 4, 6, 24, 16
INSIDE = "decoder.layers.0.self_attention."
# What the largest of some tens of sums of products may round away.
ROUNDED = 1e-5


def model(q_rank, random):
    """config.json and the tensors of a model of one dense layer, by the names of transformers."""
    config = {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": HIDDEN, "num_hidden_layers": 1,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "q_lora_rank": q_rank, "kv_lora_rank": LATENT,
        "qk_nope_head_dim": PLAIN, "qk_rope_head_dim": TURNED, "v_head_dim": VALUE, "intermediate_size": FFN,
        "moe_intermediate_size": 8, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
        "first_k_dense_replace": 1, "moe_layer_freq": 1, "vocab_size": WORDS, "num_nextn_predict_layers": 0,
        "tie_word_embeddings": False, "torch_dtype": "float32",
    }
    attention, layer, query = "model.layers.0.self_attn.", "model.layers.0.", HEADS * (PLAIN + TURNED)
    shapes = {f"{attention}q_proj.weight": (query, HIDDEN)}
    if q_rank:
        shapes = {f"{attention}q_a_proj.weight": (q_rank, HIDDEN), f"{attention}q_a_layernorm.weight": (q_rank,),
                  f"{attention}q_b_proj.weight": (query, q_rank)}
    shapes |= {
        f"{attention}kv_a_proj_with_mqa.weight": (LATENT + TURNED, HIDDEN), f"{attention}kv_a_layernorm.weight": (LATENT,),
        f"{attention}kv_b_proj.weight": (HEADS * (PLAIN + VALUE), LATENT), f"{attention}o_proj.weight": (HIDDEN, HEADS * VALUE),
        f"{layer}input_layernorm.weight": (HIDDEN,), f"{layer}post_attention_layernorm.weight": (HIDDEN,),
        f"{layer}mlp.gate_proj.weight": (FFN, HIDDEN), f"{layer}mlp.up_proj.weight": (FFN, HIDDEN),
        f"{layer}mlp.down_proj.weight": (HIDDEN, FFN), "model.embed_tokens.weight": (WORDS, HIDDEN),
        "model.norm.weight": (HIDDEN,), "lm_head.weight": (WORDS, HIDDEN),
    }
    return config, {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def attention(joined, q_rank):
    """The trainer's own."""
    config = MLATransformerConfig(
        num_layers=1, hidden_size=HIDDEN, num_attention_heads=HEADS, q_lora_rank=q_rank, kv_lora_rank=LATENT, qk_head_dim=PLAIN,
        qk_pos_emb_head_dim=TURNED, v_head_dim=VALUE, multi_latent_attention=True, qk_layernorm=True, use_flash_attention=False,
        seq_length=8, mla_qkv_concat=joined, compute_dtype="fp32", params_dtype="fp32", layernorm_compute_dtype="fp32",
        softmax_compute_dtype="fp32", rotary_dtype="fp32", add_bias_linear=False, normalization="RMSNorm", ffn_hidden_size=FFN)
    layer = get_gpt_layer_local_spec(qk_layernorm=True, multi_latent_attention=True, fused_norm=False, mla_qkv_concat=joined)
    return build_module(layer.submodules.self_attention, config=config, layer_number=1)


class Made(ms.nn.Cell):
    """Query, key and value."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def construct(self, states):
        return self.network.get_query_key_value_tensors(states)


def filled(form, q_rank, hf, room):
    """The network with what import makes."""
    subprocess.run(["shardloom", "import", "--hf", hf, "--dst", room / form, "--mla", form, "--quiet"], check=True)
    made = {name: tensor for file in (room / form).glob("*.safetensors") for name, tensor in load_file(file).items()}
    own = {name.removeprefix(INSIDE): tensor for name, tensor in made.items() if name.startswith(INSIDE)}
    network = attention(form == "joined", q_rank)
    parameters = dict(network.parameters_and_names())
    assert parameters.keys() == own.keys(), sorted(parameters.keys() ^ own.keys())
    for name, parameter in parameters.items():
        assert tuple(parameter.shape) == own[name].shape, f"{name}: {parameter.shape} there, {own[name].shape} here"
        parameter.set_data(ms.Tensor(own[name]).astype(parameter.dtype))
    return Made(network)


def trial(q_rank, seed, room):
    random = np.random.default_rng(seed)
    config, tensors = model(q_rank, random)
    (room / "hf").mkdir()
    (room / "hf/config.json").write_text(json.dumps(config))
    save_file(tensors, room / "hf/model.safetensors", {"format": "pt"})
    states = ms.Tensor(random.standard_normal((8, 2, HIDDEN)).astype(np.float32))
    separate, joined = ([part.asnumpy() for part in filled(form, q_rank, room / "hf", room)(states)[:3]]
                        for form in ("separate", "joined"))
    for name, one, other in zip(("query", "key", "value"), separate, joined):
        far = np.abs(one - other).max() / np.abs(one).max()
        assert far < ROUNDED, f"{name} differs by {far} of its largest"


def main():
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    passed, failed = 0, 0
    for q_rank in (12, None):
        for seed in range(3):
            with tempfile.TemporaryDirectory() as room:
                try:
                    trial(q_rank, seed, Path(room))
                    passed += 1
                except Exception as error:  # noqa: BLE001
                    failed += 1
                    print(f"FAILED  q_lora_rank {q_rank}, seed {seed}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
