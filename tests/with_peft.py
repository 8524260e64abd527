#!/usr/bin/env python3
"""shardloom and Hugging Face's PEFT side by side: adapters of every kind that PEFT makes, on tiny models, merged by PEFT's
merge_and_unload and by `--lora`, must give the same weights, bit for bit; or `--lora` refuses them by name.

Started by `launch/test --with-transformers`, which makes the virtual environment; needs $MPIRUN, $MPIRUN_ARGS and
shardloom on PATH (`. launch/env`). Ends with `N passed, N failed`. Words after the program's name choose among the cases.
"""

import dataclasses
import json
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from with_transformers import MODELS, SEEDS, add_mtp, equal, load_all, make, shardloom  # noqa: E402

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers.utils import logging  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

logging.disable_progress_bar()
MODELS["gpt2"] = ("GPT2Config", dict(n_embd=16, n_head=4, n_layer=2, n_positions=64))
SEEDS.append("gpt2")
SEPARATE = dict(tie_word_embeddings=False)
ATTENTION = ["q_proj", "v_proj"]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def plain(family="llama", base=None, **config):
    """An adapter with these settings on a model of `family`."""
    return dict(family=family, base=base or {}, config=config)


# What `--lora` merges as PEFT does.
MERGED = {
    "plain": plain(r=3, lora_alpha=12, target_modules=LINEAR),
    "of all linear layers": plain(r=2, lora_alpha=4, target_modules="all-linear"),
    "by the root of the rank": plain(r=4, lora_alpha=6, use_rslora=True, target_modules=LINEAR),
    "by a regular expression": plain(r=2, lora_alpha=4, target_modules=r".*\.(q|up)_proj"),
    "with patterns": plain(r=4, lora_alpha=8, target_modules=LINEAR, rank_pattern={r"layers\.1\..*q_proj": 2, "q_proj": 8, "^model.layers.0.mlp.*": 1},
                           alpha_pattern={r"layers\.0\.self_attn\.(q|k)_proj": 32, "k_proj": 2, ".*down_proj$": 1}),
    "with patterns the other way round": plain(r=4, lora_alpha=8, target_modules=LINEAR, rank_pattern={"q_proj": 8, r"layers\.1\..*q_proj": 2},
                                               alpha_pattern={"k_proj": 2, r"layers\.0\.self_attn\.(q|k)_proj": 32}),
    "with patterns, by the root": plain(r=4, lora_alpha=8, use_rslora=True, target_modules=LINEAR, rank_pattern={"q_proj": 16}, alpha_pattern={"v_proj": 2}),
    "of one layer": plain(r=2, lora_alpha=4, target_modules=LINEAR, layers_to_transform=1),
    "of listed layers": plain(r=2, lora_alpha=4, target_modules=LINEAR, layers_to_transform=[0], layers_pattern="layers"),
    "without excluded modules": plain(r=2, lora_alpha=4, target_modules=LINEAR, exclude_modules=["k_proj", "model.layers.0.mlp.up_proj"]),
    "without what an expression excludes": plain(r=2, lora_alpha=4, target_modules=LINEAR, exclude_modules=r".*layers\.1\..*_proj"),
    "with a head trained in full": plain(r=2, lora_alpha=4, target_modules=ATTENTION, modules_to_save=["lm_head"]),
    "with head and embedding trained in full": plain(r=2, lora_alpha=4, target_modules=ATTENTION, modules_to_save=["lm_head", "embed_tokens"]),
    "with norms trained in full": plain(r=2, lora_alpha=4, target_modules=ATTENTION, modules_to_save=["input_layernorm", "norm"]),
    "with a whole part trained in full": plain(r=2, lora_alpha=4, target_modules=LINEAR, modules_to_save=["mlp"]),
    "with biases of its layers": plain("qwen2", SEPARATE, r=2, lora_alpha=4, target_modules=ATTENTION, bias="lora_only"),
    "with all biases": plain("qwen2", SEPARATE, r=2, lora_alpha=4, target_modules=["q_proj", "o_proj"], bias="all"),
    "of the embedding": plain(r=2, lora_alpha=4, target_modules=["q_proj", "embed_tokens"]),
    "of embedding and head": plain(r=2, lora_alpha=4, target_modules=["embed_tokens", "lm_head"]),
    "of the embedding of a tied model": plain("qwen2", r=2, lora_alpha=4, target_modules=["q_proj", "embed_tokens"]),
    "of Conv1D": plain("gpt2", r=2, lora_alpha=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True),
    "of Conv1D without being told": plain("gpt2", r=2, lora_alpha=4, target_modules=["c_attn"]),
    "with all biases of Conv1D": plain("gpt2", r=2, lora_alpha=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, bias="all"),
    "of linear layers told to be Conv1D": plain(r=2, lora_alpha=4, target_modules=LINEAR, fan_in_fan_out=True),
    "begun as Gaussian": plain(r=2, lora_alpha=4, target_modules=LINEAR, init_lora_weights="gaussian"),
    "begun orthogonal": plain(r=2, lora_alpha=4, target_modules=LINEAR, init_lora_weights="orthogonal"),
    "of linear layers where others have experts": plain("qwen3_moe", r=2, lora_alpha=4, target_modules=LINEAR),
    "of linear layers where all have experts": plain("qwen3_moe", dict(mlp_only_layers=[]), r=2, lora_alpha=4, target_modules=LINEAR),
    "of experts": plain("qwen3_moe", r=2, lora_alpha=4, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
    "of experts alone": plain("qwen3_moe", r=2, lora_alpha=8, target_modules=[], target_parameters=["experts.down_proj"]),
    "of experts of Mixtral": plain("mixtral", r=2, lora_alpha=4, target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj"]),
    "of experts with ranks of their own": plain("qwen3_moe", r=2, lora_alpha=4, target_modules=["q_proj"], rank_pattern={"experts.down_proj": 3},
                                                target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
}
# What `--lora` refuses, and the words for it.
REFUSED = {
    "with magnitudes": (plain(r=2, lora_alpha=4, target_modules=LINEAR, use_dora=True), "use_dora"),
    "with a bias of B": (plain("qwen2", SEPARATE, r=2, lora_alpha=4, target_modules=ATTENTION, lora_bias=True), "lora_bias"),
    "begun by PiSSA": (plain(r=2, lora_alpha=4, target_modules=LINEAR, init_lora_weights="pissa"), "init_lora_weights is 'pissa'"),
    "begun by OLoRA": (plain(r=2, lora_alpha=4, target_modules=LINEAR, init_lora_weights="olora"), "init_lora_weights is 'olora'"),
    "of new tokens": (plain(r=2, lora_alpha=4, target_modules=ATTENTION, trainable_token_indices=[3, 5]), "trainable_token_indices"),
    "of repeated layers": (plain(r=2, lora_alpha=4, target_modules=ATTENTION, layer_replication=[[0, 2], [1, 2]]), "layer_replication"),
    "that counts tokens": (plain(r=2, lora_alpha=4, target_modules=ATTENTION, alora_invocation_tokens=[3]), "alora_invocation_tokens"),
    "of square Conv1D": (plain("gpt2", r=2, lora_alpha=4, target_modules=["c_proj"], fan_in_fan_out=True), "fan_in_fan_out"),
    "with patterns that PEFT has put in another order": (
        plain(r=4, lora_alpha=8, target_modules=ATTENTION, rank_pattern={"q_proj": 8, r"layers\.1\..*q_proj": 2}), "is of rank 8"),
    "of a head that the model hasn't": (
        plain(r=2, lora_alpha=4, target_modules=ATTENTION, task_type="SEQ_CLS"), "score.weight"),
}
# What `import --lora` refuses of a model with one tensor for head and embedding.
TIED = {
    "of the head of a tied model": (plain("qwen2", r=2, lora_alpha=4, target_modules=["q_proj", "lm_head"]), "lm_head"),
    "with the embedding of a tied model in full": (plain("qwen2", r=2, lora_alpha=4, target_modules=ATTENTION, modules_to_save=["embed_tokens"]), "tie_word_embeddings"),
}
# What is taken out of an adapter's file, and stays as it is then.
GAPS = {
    "a layer's pair": (MERGED["plain"], "layers.1.self_attn.q_proj"),
    "a layer's pair, by an expression": (MERGED["by a regular expression"], "layers.0.mlp.up_proj"),
    "a listed layer's pair": (plain(r=2, lora_alpha=4, target_modules=LINEAR, layers_to_transform=[0, 1]), "layers.0.mlp.up_proj"),
}
# What is taken out of an adapter's file, and the words for what lacks then.
LACKING = {
    "all pairs of a kind": (MERGED["plain"], "down_proj", "'down_proj' in target_modules"),
    "the head": (MERGED["with a head trained in full"], "lm_head", "'lm_head' in modules_to_save"),
    "a norm": (MERGED["with norms trained in full"], "layers.1.input_layernorm", "'input_layernorm' in modules_to_save"),
    "a bias": (MERGED["with biases of its layers"], "layers.1.self_attn.q_proj.base_layer.bias", "no tensor for 'model.layers.1.self_attn.q_proj.bias'"),
    "all biases": (MERGED["with all biases"], ".bias", "bias that biases were trained"),
    "a parameter's pair": (MERGED["of experts"], "experts.base_layer", "in target_parameters"),
    "the embedding": (MERGED["of the embedding"], "embed_tokens", "'embed_tokens' in target_modules"),
}
# All that PEFT's configuration of such an adapter may say, as of 0.21: a key of a newer version is to be looked at.
KNOWN = """task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode r target_modules
exclude_modules lora_alpha lora_dropout fan_in_fan_out bias use_rslora modules_to_save init_lora_weights layers_to_transform
layers_pattern rank_pattern alpha_pattern megatron_config megatron_core trainable_token_indices loftq_config eva_config
corda_config lora_ga_config use_dora velora_config alora_invocation_tokens use_qalora qalora_group_size monteclora_config
layer_replication runtime_config lora_bias target_parameters use_bdlora arrow_config kasa_config ensure_weight_tying""".split()


def fresh(directory, dtype="auto"):
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)


def train(tuned, seed=7):
    """Gives all that would have been trained numbers in eighths: sums that are exact in float32, whatever the order."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in tuned.named_parameters():
            if tensor.requires_grad:
                tensor.copy_(torch.randint(-16, 17, tensor.shape) / 8)


def tune(base, config):
    """An adapter with these settings, after a training."""
    tuned = peft.get_peft_model(base, peft.LoraConfig(**{"task_type": "CAUSAL_LM", **config}))
    train(tuned)
    return tuned


def prepare(case, room):
    """A model in `hf`, and an adapter for it in `adapter`."""
    make(case["family"], room / "hf", **case["base"])
    of = transformers.AutoModelForSequenceClassification if case["config"].get("task_type") == "SEQ_CLS" else transformers.AutoModelForCausalLM
    tune(of.from_pretrained(room / "hf", dtype="auto"), case["config"]).save_pretrained(room / "adapter")


def in_order(case, room):
    """Puts patterns into the order they were given in: PEFT sorts them when it saves, and goes by the file's order when it loads."""
    path = room / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    config.update({key: case["config"][key] for key in ("rank_pattern", "alpha_pattern") if key in case["config"]})
    path.write_text(json.dumps(config))


def merge(room, dtype):
    """What PEFT merges, in a model of this type: names as in the model's files."""
    merged = peft.PeftModel.from_pretrained(fresh(room / "hf", dtype), room / "adapter").merge_and_unload()
    merged.save_pretrained(room / "merged")
    return load_all(room / "merged")


def merges(case, room):
    """`unify` of full weights, by one process and by three, is PEFT's merge in float32, rounded once; and PEFT's own in bf16, which
    rounds the products of embeddings and experts once more."""
    prepare(case, room)
    in_order(case, room)
    is_merge(room)


def is_merge(room):
    before = load_all(room / "hf")
    exact = {name: tensor.to(before[name].dtype) for name, tensor in merge(room, torch.float32).items()}
    for processes, how in [(1, []), (3, ["--exchange", "collective"])]:
        out = room / f"out{processes}"
        shardloom(processes, "unify", "--src", room / "hf", "--lora", room / "adapter", "--dst", out, *how)
        equal(load_all(out), exact)
    own = merge(room, "auto")
    twice = [name for name in own if "experts" in name or "embed_tokens" in name]
    equal({n: t for n, t in own.items() if n not in twice}, {n: t for n, t in exact.items() if n not in twice})
    for name in twice:
        product = (exact[name].float() - before[name].float()).abs().max().item()
        assert (own[name].float() - exact[name].float()).abs().max().item() <= 2**-7 * (product + exact[name].float().abs().max().item()), name
    assert any(not torch.equal(exact[name], before[name]) for name in exact), "nothing was merged"


def merges_apart(room):
    """A model with one tensor for head and embedding that each has a pair of its own, as `import --untie` merges it."""
    case = plain("qwen2", SEPARATE, r=2, lora_alpha=4, target_modules=["q_proj", "embed_tokens", "lm_head"])
    make("qwen2", room / "hf")
    model = fresh(room / "hf")
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    model.save_pretrained(room / "parted")
    tune(fresh(room / "parted"), case["config"]).save_pretrained(room / "adapter")
    shardloom(2, "import", "--hf", room / "hf", "--lora", room / "adapter", "--untie", "--dst", room / "ms")
    shardloom(2, "import", "--hf", room / "parted", "--lora", room / "adapter", "--dst", room / "due")
    equal(load_all(room / "ms"), load_all(room / "due"))
    merged = peft.PeftModel.from_pretrained(fresh(room / "parted", torch.float32), room / "adapter").merge_and_unload()
    merged.save_pretrained(room / "merged")
    shardloom(2, "export", "--src", room / "ms", "--hf-config", room / "parted", "--dst", room / "back")
    equal(load_all(room / "back"), {name: tensor.bfloat16() for name, tensor in load_all(room / "merged").items()})


def leaves(room):
    """A layer for further tokens, which transformers leaves out, stays as it was."""
    case = plain("deepseek_v3", r=2, lora_alpha=4, target_modules=["q_a_proj", "o_proj", "down_proj"], modules_to_save=["q_a_layernorm"])
    prepare(case, room)
    add_mtp(room / "hf")
    before, due = load_all(room / "hf"), merge(room, torch.float32)
    shardloom(2, "unify", "--src", room / "hf", "--lora", room / "adapter", "--dst", room / "out")
    further = {name: tensor for name, tensor in before.items() if name not in due}
    assert any("eh_proj" in name for name in further) and any("o_proj" in name for name in further), sorted(further)
    equal(load_all(room / "out"), {**further, **{name: tensor.to(before[name].dtype) for name, tensor in due.items()}})


def converts(beginning, room):
    """An adapter that began by changing the base, made plain by PEFT itself, is what it was trained to be."""
    make("llama", room / "hf")
    base = fresh(room / "hf", torch.float32)
    tuned = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=4, target_modules=LINEAR, init_lora_weights=beginning))
    # The name tells PEFT that the base is changed; what it began from is saved as it is.
    tuned.peft_config["default"].init_lora_weights = True
    tuned.save_pretrained(room / "beginning")
    tuned.peft_config["default"].init_lora_weights = beginning
    with torch.no_grad():
        for name, tensor in tuned.named_parameters():
            if "lora_" in name:
                tensor.add_(torch.randn(tensor.shape) / 8)
    tuned.save_pretrained(room / "adapter", path_initial_model_for_weight_conversion=room / "beginning")
    tuned.merge_and_unload().save_pretrained(room / "merged")
    fresh(room / "hf", torch.float32).save_pretrained(room / "wide")
    shardloom(2, "unify", "--src", room / "wide", "--lora", room / "adapter", "--dst", room / "out")
    ours, theirs = load_all(room / "out"), load_all(room / "merged")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name], tensor, rtol=1e-5, atol=1e-5), f"{name} differs"


def refuses(case, words, room, *command):
    """It is named why the adapter isn't merged, and nothing is left behind."""
    prepare(case, room)
    told = refusal(room, *command)
    assert words in told, f"'{words}' isn't in: {told}"


def refusal(room, *command):
    command = command or ("unify", "--src")
    try:
        shardloom(1, *command, room / "hf", "--lora", room / "adapter", "--dst", room / "out")
    except RuntimeError as error:
        assert not (room / "out").exists(), "something is left"
        return str(error)
    raise AssertionError("it is merged")


def lose(case, lost, room):
    """An adapter whose file lacks what has this in its name."""
    prepare(case, room)
    in_order(case, room)
    path = room / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    kept = {name: tensor for name, tensor in tensors.items() if lost not in name}
    assert 0 < len(kept) < len(tensors), sorted(tensors)
    save_file(kept, path)


def leaves_layers(case, lost, room):
    """A module without a pair in some layer is there what it was, as PEFT leaves it."""
    lose(case, lost, room)
    is_merge(room)


def misses(case, lost, words, room):
    """An adapter's file that lacks what its configuration says that it has is refused."""
    lose(case, lost, room)
    told = refusal(room)
    assert words in told and "adapter_model.safetensors" in told, f"'{words}' isn't in: {told}"


def knows(_):
    """Every key that PEFT's configuration has is known here."""
    new = {field.name for field in dataclasses.fields(peft.LoraConfig)} - set(KNOWN)
    assert not new, f"keys that weren't there before: {sorted(new)}"


def trials():
    """Name of each comparison, and what makes it in a directory of its own."""
    for name, case in MERGED.items():
        yield name, lambda room, c=case: merges(c, room)
    for name, (case, words) in REFUSED.items():
        yield name, lambda room, c=case, w=words: refuses(c, w, room)
    for name, (case, words) in TIED.items():
        yield name, lambda room, c=case, w=words: refuses(c, w, room, "import", "--hf")
    for name, (case, lost) in GAPS.items():
        yield f"without {name}", lambda room, c=case, t=lost: leaves_layers(c, t, room)
    for name, (case, lost, words) in LACKING.items():
        yield f"without {name}", lambda room, c=case, t=lost, w=words: misses(c, t, w, room)
    for beginning in ["pissa", "olora"]:
        yield f"begun by {beginning}, made plain", lambda room, b=beginning: converts(b, room)
    yield "of head and embedding of a tied model", merges_apart
    yield "beside a layer for further tokens", leaves
    yield "keys", knows


def main():
    warnings.simplefilter("ignore")
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
    sys.exit(main())
