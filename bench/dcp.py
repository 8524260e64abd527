"""PyTorch's distributed checkpoint for bench/compare: one of the processes that torch.distributed.run starts.

    python -m torch.distributed.run --nproc-per-node N dcp.py save|load|consolidate FULL RULES CHECKPOINT OUT

save         not measured: every rank cuts its part of FULL (safetensors) and writes CHECKPOINT
load         loads CHECKPOINT placed on N ranks instead, checks what came, saves it to OUT; prints the seconds of loading and saving
consolidate  on one rank: makes full weights of CHECKPOINT, a sharded Hugging Face one, in OUT; prints its seconds

RULES is JSON: tensor name -> dimension that is cut, or null.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard


def parts(full, rules, mesh, fill):
    """This rank's part of every tensor, as DTensors: cut out of the full weights, or empty."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    found = {}
    with safe_open(full, "pt") as file:
        for name in file.keys():
            view = file.get_slice(name)
            shape, dimension = view.get_shape(), rules[name]
            part = [slice(None)] * len(shape)
            if dimension is not None:
                length = shape[dimension] // ranks
                part[dimension] = slice(rank * length, (rank + 1) * length)
            local = view[tuple(part)].contiguous()
            if not fill:
                local = torch.empty_like(local)
            placement = Replicate() if dimension is None else Shard(dimension)
            found[name] = DTensor.from_local(local, mesh, [placement], run_check=False)
    return found


def main():
    mode, full, rules, checkpoint, out = sys.argv[1:]
    if mode == "consolidate":
        start = time.perf_counter()
        Path(out).mkdir(parents=True, exist_ok=True)
        consolidate_safetensors_files(checkpoint, out, {name: 1 for name in json.loads(rules)}, num_threads=2)
        print(json.dumps({"seconds": time.perf_counter() - start}))
        return
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    rules = json.loads(rules)
    if mode == "save":
        hugging_face = checkpoint.endswith("-hf")
        writer = HuggingFaceStorageWriter(checkpoint, save_distributed=True) if hugging_face else None
        dcp.save(parts(full, rules, mesh, True), storage_writer=writer, checkpoint_id=checkpoint)
    else:
        state = parts(full, rules, mesh, False)
        dist.barrier()
        start = time.perf_counter()
        dcp.load(state, checkpoint_id=checkpoint)
        dcp.save(state, checkpoint_id=out)
        dist.barrier()
        seconds = time.perf_counter() - start
        # As bytes: the weights are random, and some are no numbers.
        loaded = {name: tensor.to_local().view(torch.uint8) for name, tensor in state.items()}
        due = parts(full, rules, mesh, True)
        right = all(torch.equal(loaded[name], t.to_local().view(torch.uint8)) for name, t in due.items())
        if not right:
            sys.exit("the weights that were loaded are wrong")
        if dist.get_rank() == 0:
            print(json.dumps({"seconds": seconds}))
    dist.destroy_process_group()


main()
