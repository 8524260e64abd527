#!/usr/bin/env python3
"""shardloom and PyTorch side by side: what torch.save and torch.distributed.checkpoint write is read bit-equal, and what
shardloom writes as a distributed checkpoint is loaded by torch's own reader at other world sizes.

Started by `launch/test --with-torch`, which makes the virtual environment; needs $MPIRUN, $MPIRUN_ARGS and shardloom on PATH
(`. launch/env`). Ends with `N passed, N failed`.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8,
          torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64]


def shardloom(*args, processes=1):
    command = ["shardloom", *map(str, args)]
    if processes > 1:
        command = [os.environ.get("MPIRUN", "mpirun"), *shlex.split(os.environ.get("MPIRUN_ARGS", "")), "-n",
                   str(processes), *command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")


def filled(dtype, shape):
    count = int(torch.tensor(shape).prod()) if shape else 1
    values = torch.randint(0, 2 if dtype is torch.bool else 100, (count,))
    return values.to(torch.float32).to(dtype).reshape(shape)


def model():
    torch.manual_seed(3)
    tensors = {f"layers.{n}.w": filled(dtype, (8, 12)) for n, dtype in enumerate(DTYPES)}
    tensors.update({"scalar": torch.tensor(7.5), "row": filled(torch.float32, (5,)), "empty": torch.empty(0, 4),
                    "cube": filled(torch.bfloat16, (5, 3, 4))})
    return tensors


def equal(found, due):
    assert found.keys() == due.keys(), found.keys() ^ due.keys()
    for name, tensor in due.items():
        other = found[name]
        assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape), name
        assert other.contiguous().view(torch.uint8).equal(tensor.contiguous().view(torch.uint8)) if tensor.dim() \
            else other.reshape(1).view(torch.uint8).equal(tensor.reshape(1).view(torch.uint8)), name


def unified(room, source, processes=1):
    out = room / "unified"
    shutil.rmtree(out, ignore_errors=True)
    shardloom("unify", "--src", source, "--dst", out, processes=processes)
    tensors = {}
    for file in out.glob("model-*.safetensors"):
        tensors.update(load_file(file))
    return tensors


def views(room):
    whole = torch.randn(9, 14)
    tensors = {"whole": whole, "same": whole, "t": whole.t(), "cols": whole[:, 2:5], "steps": whole[::2, ::3],
               "one": whole[4, 5], "expand": torch.randn(4, 1).expand(4, 7), "window": torch.arange(60).unfold(0, 6, 5),
               "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
               "parameter": torch.nn.Parameter(torch.randn(3, 3))}
    torch.save(tensors, room / "views.pt")
    due = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    equal(unified(room, room / "views.pt"), due)
    equal(unified(room, room / "views.pt", 3), due)


def dtypes(room):
    torch.save(model(), room / "model.bin")
    equal(unified(room, room / "model.bin"), model())


def wide_transposed(room):
    """A transposed weight that is larger than any window."""
    tensor = torch.randn(1500, 2100).t()
    torch.save({"w": tensor}, room / "wide.pth")
    equal(unified(room, room / "wide.pth", 2), {"w": tensor.contiguous()})


def nested(room):
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6))
    adam = torch.optim.AdamW(net.parameters())
    net(torch.randn(5, 4)).sum().backward()
    adam.step()
    torch.save({"model": net.state_dict(), "optimizer": adam.state_dict(), "epoch": 3}, room / "train.pt")
    due = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    for number, state in adam.state_dict()["state"].items():
        due.update({f"optimizer.state.{number}.{name}": tensor for name, tensor in state.items()})
    equal(unified(room, room / "train.pt"), due)


def sharded_index(room):
    import json
    tensors, source = model(), room / "sharded"
    source.mkdir()
    names = sorted(tensors)
    halves = [names[::2], names[1::2]]
    files = [f"pytorch_model-{n + 1:05}-of-00002.bin" for n in range(2)]
    for file, half in zip(files, halves):
        torch.save({name: tensors[name] for name in half}, source / file)
    where = {name: file for file, half in zip(files, halves) for name in half}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    equal(unified(room, source), tensors)


def worker(rank, size, port, task, arguments):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    dist.init_process_group("gloo", rank=rank, world_size=size)
    try:
        task(*arguments)
    finally:
        dist.destroy_process_group()


PORT = [29700 + os.getpid() % 1000]


def spawn(size, task, *arguments):
    PORT[0] += 1
    mp.spawn(worker, args=(size, PORT[0], task, arguments), nprocs=size)


def placed(mesh, placements):
    return {name: distribute_tensor(tensor, mesh, placements) if tensor.dim() > 1 and tensor.numel() and tensor.dtype in DTYPES[:5] else tensor
            for name, tensor in model().items()}


def save(path, shape, placements):
    mesh = init_device_mesh("cpu", shape)
    dcp.save(placed(mesh, placements), checkpoint_id=path)


def load(path, shape, placements):
    """torch's own reader at this world size must find what was saved."""
    mesh = init_device_mesh("cpu", shape)
    state = {name: torch.zeros_like(tensor) for name, tensor in placed(mesh, placements).items()}
    dcp.load(state, checkpoint_id=path)
    full = {name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor for name, tensor in state.items()}
    equal(full, model())


MESHES = {"rows": ((2,), [Shard(0)]), "rows3": ((3,), [Shard(0)]), "columns": ((2,), [Shard(1)]),
          "replicated": ((2,), [Replicate()]), "both": ((2, 2), [Shard(0), Shard(1)]),
          "twice": ((2, 2), [Shard(0), Shard(0)]), "hsdp": ((2, 2), [Replicate(), Shard(0)])}


def distributed(room, name):
    shape, placements = MESHES[name]
    size = 1
    for part in shape:
        size *= part
    spawn(size, save, str(room / "dcp"), shape, placements)
    equal(unified(room, room / "dcp", 2), model())


def written(room, layout, size):
    """A distributed checkpoint of ours is loaded at another world size."""
    save_file({n: t.contiguous() for n, t in model().items()}, room / "model.safetensors")
    target = ["unify"] if layout is None else ["split", "--dst-strategy", room / "s.ckpt"]
    if layout is not None:
        shardloom("strategy", "new", "--mesh", layout, "--rule", "layers.*=tp,-", "--weights", room / "model.safetensors",
                  "--output", room / "s.ckpt")
    shardloom(*target, "--src", room / "model.safetensors", "--dst", room / "ours", "--format", "dcp", processes=2)
    spawn(size, load, str(room / "ours"), (size,), [Shard(0)])
    equal(unified(room, room / "ours"), model())


CASES = {"views": views, "dtypes": dtypes, "wide transposed": wide_transposed, "nested": nested, "sharded with an index": sharded_index}
for mesh in MESHES:
    CASES[f"distributed, {mesh}"] = lambda room, mesh=mesh: distributed(room, mesh)
for layout, size in [(None, 1), (None, 2), ("tp=4", 1), ("tp=4", 2), ("tp=2,dp=2", 3)]:
    CASES[f"written as {layout}, loaded by {size}"] = lambda room, l=layout, s=size: written(room, l, s)


def main():
    passed, failed = 0, 0
    for name, case in CASES.items():
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        with tempfile.TemporaryDirectory() as room:
            try:
                case(Path(room))
                passed += 1
                print(f"{name}: ok")
            except Exception:  # noqa: BLE001
                failed += 1
                print(f"{name}: FAILED")
                traceback.print_exc()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
