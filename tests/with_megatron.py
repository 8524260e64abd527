#!/usr/bin/env python3
"""shardloom and Megatron-Core 0.19 side by side, on CPU: what Megatron saves after some steps is brought to MindSpore's layout
and back, and Megatron goes on from that on other numbers of processes with the same logits, moments and masters.

Started by `launch/test --with-megatron`, which makes the virtual environment; needs $MPIRUN, $MPIRUN_ARGS and shardloom on PATH
(`. launch/env`). Ends with `N passed, N failed`.
"""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

HIDDEN, HEADS, GROUPS, HEAD, FFN, WORDS, EXPERT_FFN = 16, 4, 2, 4, 24, 32, 12
EXPERTS = {"experts", "spread experts", "latent experts"}
# Attention by latent projections, as DeepSeek-V3 has it.
LATENT = {"latent", "latent experts"}
Q_RANK, KV_RANK, NOPE, ROPE, VALUE = 12, 8, 4, 4, 6
HOW = {"distrib_optim_sharding_type": "fully_reshardable", "singleton_local_shards": False, "chained_optim_avoid_prefix": True}


def on_cpu(torch):
    """Megatron asks for a GPU where it needs none."""
    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.cuda.is_initialized = lambda: True
    for name in ("synchronize", "empty_cache", "current_stream"):
        setattr(torch.cuda, name, lambda *a, **k: None)
    for name in ("tensor", "zeros", "empty", "ones", "full"):
        def make(*a, made=getattr(torch, name), **k):
            if str(k.get("device")).startswith("cuda"):
                k["device"] = "cpu"
            return made(*a, **k)
        setattr(torch, name, make)
    kind = torch.Tensor.type
    torch.Tensor.type = lambda self, *a, **k: kind(self, *a, **k) if a or k else kind(self).replace("torch.", "torch.cuda.")
    torch.Tensor.cuda = lambda self, *a, **k: self


def of_two_sizes():
    """Megatron's own attention without a GPU's kernels knows one size of a head; latent attention has another one for values."""
    from megatron.core.transformer.dot_product_attention import DotProductAttention
    make = DotProductAttention.__init__

    def init(self, *args, k_channels=None, v_channels=None, **named):
        make(self, *args, **named)
        if v_channels:
            self.hidden_size_per_partition = self.num_attention_heads_per_partition * v_channels
    DotProductAttention.__init__ = init


class Job:
    """A process of a Megatron job: its model and optimizer."""

    def __init__(self, tensors, kind):
        import torch
        import torch.distributed as dist
        on_cpu(torch)
        from megatron.core import parallel_state
        from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
        from megatron.core.models.gpt import GPTModel
        from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
        from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
        from megatron.core.tensor_parallel import random
        from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig
        from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
        # torch's own Adam keeps its step as a tensor, which Megatron takes from the groups and then asks for once more.
        put = DistributedOptimizer._set_main_param_and_optimizer_states
        DistributedOptimizer._set_main_param_and_optimizer_states = lambda self, of, state: put(self, of, {"step": None, **state})
        random.CudaRNGStatesTracker.fork = lambda self, *a, **k: contextlib.nullcontext()
        dist.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]))
        # Experts that are dealt to ranks have an optimizer of their own.
        spread = min(2, dist.get_world_size()) if kind == "spread experts" else 1
        parallel_state.initialize_model_parallel(tensors, expert_model_parallel_size=spread)
        self.torch, self.dist = torch, dist
        torch.manual_seed(11)
        experts = 4 if kind in EXPERTS else None
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        latent = kind in LATENT
        if latent:
            of_two_sizes()
        attention = {"num_query_groups": GROUPS, "kv_channels": HEAD}
        if latent:
            attention = {"multi_latent_attention": True, "q_lora_rank": Q_RANK, "kv_lora_rank": KV_RANK, "qk_head_dim": NOPE,
                         "qk_pos_emb_head_dim": ROPE, "v_head_dim": VALUE, "rope_type": "rope"}
            if experts:
                attention.update(moe_shared_expert_intermediate_size=EXPERT_FFN, moe_layer_freq=[0, 1], moe_router_enable_expert_bias=True,
                                 moe_router_score_function="sigmoid", moe_router_dtype=None)
        config = (MLATransformerConfig if latent else TransformerConfig)(
            num_layers=2, hidden_size=HIDDEN, num_attention_heads=HEADS, **attention, ffn_hidden_size=FFN,
            use_cpu_initialization=True, gated_linear_unit=True, activation_func=torch.nn.functional.silu, add_bias_linear=False,
            normalization="RMSNorm", qk_layernorm=True, hidden_dropout=0.0, attention_dropout=0.0, tensor_model_parallel_size=tensors,
            expert_model_parallel_size=spread,
            params_dtype=dtype, bf16=dtype is torch.bfloat16, pipeline_dtype=dtype, num_moe_experts=experts,
            moe_ffn_hidden_size=EXPERT_FFN if experts else None, moe_token_dispatcher_type="allgather", bias_activation_fusion=False,
            masked_softmax_fusion=False, bias_dropout_fusion=False, gradient_accumulation_fusion=False,
            sequence_parallel=bool(experts) and tensors > 1)
        if latent and experts:
            from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
            spec = get_gpt_decoder_block_spec(config, use_transformer_engine=False, normalization="RMSNorm")
        else:
            spec = get_gpt_layer_local_spec(num_experts=experts, qk_layernorm=True, multi_latent_attention=latent, normalization="RMSNorm")
        self.model = GPTModel(config, spec, vocab_size=WORDS, max_sequence_length=16, share_embeddings_and_output_weights=False,
                              position_embedding_type="rope").to(dtype)
        self.parallel = DistributedDataParallel(config, DistributedDataParallelConfig(use_distributed_optimizer=True), self.model)
        self.optimizer = get_megatron_optimizer(
            OptimizerConfig(optimizer="adam", lr=0.01, min_lr=0.001, weight_decay=0.1, params_dtype=dtype,
                            bf16=dtype is torch.bfloat16, use_distributed_optimizer=True, clip_grad=1.0), [self.parallel])

    def batch(self, number):
        generator = self.torch.Generator().manual_seed(100 + number)
        tokens = self.torch.randint(0, WORDS, (2, 12), generator=generator)
        return tokens, self.torch.arange(12).expand(2, 12), self.torch.ones(1, 1, 12, 12).triu(1).bool()

    def step(self, number):
        from megatron.core.distributed import finalize_model_grads
        self.parallel.zero_grad_buffer()
        self.optimizer.zero_grad()
        tokens, places, mask = self.batch(number)
        loss = self.parallel(tokens, places, mask, labels=tokens).float().mean()
        loss.backward()
        # Norms of queries and keys are on every rank, and must stay alike.
        finalize_model_grads([self.parallel])
        self.optimizer.step()
        return loss.item()

    def logits(self):
        from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region
        with self.torch.no_grad():
            return gather_from_tensor_model_parallel_region(self.model(*self.batch(50))).float()

    def state(self, loading=False):
        model = self.model.sharded_state_dict(metadata=dict(HOW))
        return {"model": model, "optimizer": self.optimizer.sharded_state_dict(model, metadata=dict(HOW), is_loading=loading)}

    def save(self, place):
        from megatron.core import dist_checkpointing
        Path(place).mkdir(parents=True, exist_ok=True)
        dist_checkpointing.save({**self.state(), "iteration": 3, "checkpoint_version": 3.0}, place, content_metadata=dict(HOW))

    def load(self, place):
        from megatron.core import dist_checkpointing
        # Without Apex the optimizer has no state before its first step; all of it is replaced.
        self.step(99)
        loaded = dist_checkpointing.load(self.state(True), place)
        assert loaded["iteration"] == 3 and loaded["content_metadata"] == HOW, loaded.keys()
        self.model.load_state_dict(loaded["model"])
        # Rates and decay are the job's own; the number of steps is the file's.
        saved = loaded["optimizer"]
        told = {key: saved.pop(key) for key in ("optimizer", "param_state_sharding_type")}
        steps = told["optimizer"]["param_groups"][0]["step"]
        inner = self.optimizer.chained_optimizers
        for number, optimizer in enumerate(inner):
            groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            # What is of one optimizer has no number.
            own = saved if len(inner) == 1 else saved.setdefault(number, {})
            own.update(told, optimizer={"param_groups": [{**group, "step": float(steps)} for group in groups]})
        self.optimizer.load_state_dict(saved)
        # One tensor would count for all weights.
        for inner in self.optimizer.chained_optimizers:
            for state in inner.optimizer.state.values():
                state["step"] = self.torch.tensor(float(steps))


def worker(task, place, out, tensors, kind):
    job = Job(int(tensors), kind)
    if task == "train":
        for number in range(3):
            job.step(number)
        job.save(place)
    else:
        job.load(place)
    found = {"logits": job.logits(), "losses": [job.step(number) for number in range(3, 5)], "after": job.logits()}
    if job.dist.get_rank() == 0:
        job.torch.save(found, out)
    job.dist.barrier()


PORT = [21000 + os.getpid() % 5000]


def spawn(size, *arguments):
    PORT[0] += 1
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(PORT[0]), "WORLD_SIZE": str(size), "GLOO_SOCKET_IFNAME": "lo",
           "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-W", "ignore", __file__, "worker", *map(str, arguments)]
    running = [subprocess.Popen(command, env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True) for rank in range(size)]
    told = [process.communicate(timeout=600)[0] for process in running]
    for process, text in zip(running, told):
        if process.returncode:
            raise RuntimeError(text[-3000:])


def shardloom(*args, processes=1):
    command = ["shardloom", *map(str, args)]
    if processes > 1:
        command = [os.environ.get("MPIRUN", "mpirun"), *shlex.split(os.environ.get("MPIRUN_ARGS", "")), "-n", str(processes), *command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")


def same(one, other, exactly=True):
    import torch
    a, b = torch.load(one), torch.load(other)
    for key in ("logits", "after"):
        assert torch.equal(a[key], b[key]) if exactly else torch.allclose(a[key], b[key], atol=2e-5), (key, (a[key] - b[key]).abs().max())
    for x, y in zip(a["losses"], b["losses"]):
        assert x == y if exactly else abs(x - y) < 2e-5, (a["losses"], b["losses"])


def plain(place):
    """All tensors, by torch's own reader."""
    import torch
    import torch.distributed.checkpoint as dcp
    told = dcp.FileSystemReader(place).read_metadata().state_dict_metadata
    state = {name: torch.empty(of.size, dtype=of.properties.dtype) for name, of in told.items() if hasattr(of, "size")}
    dcp.load(state, checkpoint_id=place, no_dist=True)
    return state


def equal(found, due):
    assert found.keys() == due.keys(), found.keys() ^ due.keys()
    for name, tensor in due.items():
        assert tensor.dtype == found[name].dtype and tensor.equal(found[name]), name


def configuration(room, kind):
    family = "qwen3_moe" if kind in EXPERTS else "qwen3"
    told = {"model_type": family, "num_hidden_layers": 2, "hidden_size": HIDDEN, "vocab_size": WORDS,
            "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "head_dim": HEAD, "intermediate_size": FFN,
            "tie_word_embeddings": False, "attention_bias": False, "num_local_experts": 4, "moe_intermediate_size": EXPERT_FFN}
    if kind in LATENT:
        dense = 1 if kind in EXPERTS else 2
        told.update(model_type="deepseek_v3", q_lora_rank=Q_RANK, kv_lora_rank=KV_RANK, qk_nope_head_dim=NOPE, qk_rope_head_dim=ROPE,
                    v_head_dim=VALUE, n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=dense, num_nextn_predict_layers=0,
                    num_key_value_heads=HEADS)
    (room / "model").mkdir()
    (room / "model/config.json").write_text(json.dumps(told))
    return room / "model"


def there_and_back(room, kind, ranks, layout):
    from safetensors.torch import load_file
    saved, model = room / "saved", configuration(room, kind)
    # Without sequence parallelism, which needs a GPU's norms, experts aren't cut.
    tensors = lambda size: 1 if kind in EXPERTS else size  # noqa: E731
    spawn(ranks, "train", saved / "iter_0000003", room / "due.pt", tensors(ranks), kind)
    (saved / "latest_checkpointed_iteration.txt").write_text("3")
    due = plain(saved / "iter_0000003")
    shardloom("unify", "--src", saved, "--dst", room / "flat", processes=2)
    flat = {}
    for file in (room / "flat").glob("model-*.safetensors"):
        flat.update(load_file(file))
    equal(flat, due)
    shardloom("to", layout, "--src", saved, "--dst", room / "mindspore", "--model", model, processes=2)
    shardloom("reshard", "--src", room / "mindspore", "--src-strategy", layout, "--model", model, "--names", "mcore", "--dst",
              room / "back", "--format", "megatron", processes=2)
    back = plain(room / "back/iter_0000003")
    # Masters of weights in 16 bits have no place in this layout, and are made of these again.
    masters = "optimizer.state.param." if kind == "bf16" else None
    kept = {name: tensor for name, tensor in due.items() if not masters or not name.startswith(masters)}
    equal({name: tensor for name, tensor in back.items() if name in kept}, kept)
    for size in (1, 2):
        spawn(size, "resume", room / "back/iter_0000003", room / "found.pt", tensors(size), kind)
        if kind != "bf16":
            # As Megatron goes on from its own; which is as if it had never stopped, but for the order of sums on other sizes.
            # Of several optimizers each has its own part there, which is loaded otherwise.
            if kind != "spread experts":
                spawn(size, "resume", saved / "iter_0000003", room / "own.pt", tensors(size), kind)
                same(room / "found.pt", room / "own.pt")
            if kind not in LATENT or size == ranks:
                same(room / "found.pt", room / "due.pt", exactly=size == ranks)


CASES = {}
for kind, ranks, layout in [("dense", 2, "dp=1,tp=2"), ("bf16", 2, "dp=1,tp=2"), ("experts", 1, "dp=1,tp=2"),
                            ("spread experts", 2, "dp=1,tp=2"), ("latent", 1, "dp=1,tp=2"), ("latent", 2, "dp=1,tp=2"),
                            ("latent experts", 1, "dp=1,tp=2")]:
    CASES[f"{kind}, of {ranks}, by {layout}"] = lambda room, k=kind, r=ranks, l=layout: there_and_back(room, k, r, l)



def main():
    passed, failed = 0, 0
    for name, case in CASES.items():
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        with tempfile.TemporaryDirectory() as room:
            try:
                case(Path(room))
                passed += 1
                print(f"{name}: ok", flush=True)
            except Exception:  # noqa: BLE001
                failed += 1
                print(f"{name}: FAILED", flush=True)
                traceback.print_exc()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:])
        sys.exit(0)
    sys.exit(main())
