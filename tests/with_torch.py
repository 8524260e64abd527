#!/usr/bin/env python3
"""shardloom and PyTorch side by side: what torch.save and torch.distributed.checkpoint write is read bit-equal, and what
shardloom writes as a distributed checkpoint is loaded by torch's own reader at other world sizes.

Started by `launch/test --with-torch`, which makes the virtual environment; needs $MPIRUN, $MPIRUN_ARGS and shardloom on PATH
(`. launch/env`). Ends with `N passed, N failed`.
"""

import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
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
    spawn(math.prod(shape), save, str(room / "dcp"), shape, placements)
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


def alone(room, name, tensor):
    """One tensor, without processes: saved by torch and read, written by us and loaded by torch."""
    dcp.save({"w": tensor}, checkpoint_id=room / "theirs", no_dist=True)
    due = {"w": tensor.detach().contiguous()}
    equal(unified(room, room / "theirs"), due)
    shardloom("unify", "--src", room / "theirs", "--dst", room / "ours", "--format", "dcp")
    state = {"w": torch.zeros(tensor.shape, dtype=tensor.dtype)}
    dcp.load(state, checkpoint_id=room / "ours", no_dist=True)
    equal(state, due)


def single_views():
    whole = torch.arange(9 * 14, dtype=torch.float32).reshape(9, 14)
    return {"transposed": whole.t(), "columns": whole[:, 2:5], "steps": whole[::2, ::3], "scalar": whole[4, 5],
            "expanded": torch.randn(4, 1).expand(4, 7), "windows": torch.arange(60).unfold(0, 6, 5),
            "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "permuted": torch.randn(3, 4, 5).permute(2, 0, 1), "no elements": torch.empty(3, 0, 2),
            "parameter": torch.nn.Parameter(torch.randn(3, 3))}


def nested_values():
    return {"model": {"a": torch.arange(12.0).reshape(3, 4), "b": torch.tensor(5)}, "step": 17, "lr": 2.5e-4, "name": "größer",
            "schedule": [{"base": 0.1, "steps": [1, 2, 3]}, {"base": 0.2, "steps": []}], "pair": (1, torch.ones(2)), "none": None,
            "flag": True, "blob": b"\x00\x01"}


def same(a, b):
    """Whether two nested states are equal."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def consolidated(room, source):
    """What torch makes of a distributed checkpoint, with its values, as one file."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
    out = room / f"{source.name}.pt"
    dcp_to_torch_save(source, out)
    return torch.load(out, weights_only=False)


def values(room, processes):
    """What is no tensor is kept as it is from one distributed checkpoint to another, and the nesting with it."""
    dcp.save(nested_values(), checkpoint_id=room / "theirs", no_dist=True)
    shardloom("unify", "--src", room / "theirs", "--dst", room / "ours", "--format", "dcp", processes=processes)
    theirs, ours = consolidated(room, room / "theirs"), consolidated(room, room / "ours")
    assert same(theirs, ours), (theirs, ours)
    assert ours["schedule"][0]["steps"] == [1, 2, 3] and ours["name"] == "größer", ours


def values_again(room):
    """The same over three of them, and cut over ranks in between."""
    values(room, 1)
    save_file({"model.a": torch.zeros(3, 4), "model.b": torch.tensor(5)}, room / "like.safetensors")
    shardloom("strategy", "new", "--mesh", "tp=3", "--rule", "model.a=tp,-", "--weights", room / "like.safetensors",
              "--output", room / "s.ckpt")
    shardloom("split", "--src", room / "ours", "--dst-strategy", room / "s.ckpt", "--dst", room / "cut", "--format", "dcp",
              processes=2)
    assert same(consolidated(room, room / "ours"), consolidated(room, room / "cut"))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Linear(10, 24)
        self.down = torch.nn.Linear(24, 7, bias=False)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


def trained(kind):
    """A model that is sharded, its optimizer, and steps of training; the same at any number of processes."""
    from torch.distributed.fsdp import fully_shard
    torch.manual_seed(11)
    net = Net()
    fully_shard(net, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    make = {"adamw": lambda p: torch.optim.AdamW(p, lr=0.01), "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
            "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
            "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5)}
    optimizer = make[kind](net.parameters())
    return net, optimizer


def train(net, optimizer, steps):
    for step in range(steps):
        torch.manual_seed(100 + step)
        net(torch.randn(6, 10)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def state_of(net, optimizer, flat):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optim = get_state_dict(net, optimizer, options=options)
    return {"model": model, "optim": optim}


def save_training(path, kind, flat):
    net, optimizer = trained(kind)
    train(net, optimizer, 3)
    dcp.save(state_of(net, optimizer, flat), checkpoint_id=path)


def full_of(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def resume_training(path, theirs, kind, flat):
    """A job of another size goes on from either checkpoint: all of its state is the same afterwards."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict
    ends = []
    for place in (path, theirs):
        net, optimizer = trained(kind)
        state = state_of(net, optimizer, flat)
        dcp.load(state, checkpoint_id=place)
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        set_state_dict(net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optim"], options=options)
        train(net, optimizer, 2)
        ends.append(state_of(net, optimizer, True))
    for side in ("model", "optim"):
        ours, due = ends[0][side], ends[1][side]
        assert ours.keys() == due.keys()
        for name in due:
            a, b = full_of(ours[name]), full_of(due[name])
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, name


def training(room, kind, flat, sizes):
    """A training state of `sizes[0]` processes becomes one of ours, from which `sizes[1]` go on."""
    spawn(sizes[0], save_training, str(room / "theirs"), kind, flat)
    shardloom("unify", "--src", room / "theirs", "--dst", room / "ours", "--format", "dcp", processes=2)
    spawn(sizes[1], resume_training, str(room / "ours"), str(room / "theirs"), kind, flat)


def plain(state):
    """What a file of safetensors and torch's writer of these can hold."""
    known = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
    return {name: tensor for name, tensor in state.items() if tensor.dtype in known and tensor.numel()}


def save_hf(path, shape, placements):
    from torch.distributed.checkpoint import HuggingFaceStorageWriter
    mesh = init_device_mesh("cpu", shape)
    writer = HuggingFaceStorageWriter(path=path, save_distributed=True)
    dcp.save(plain(placed(mesh, placements)), storage_writer=writer)


def load_hf(path, shape, placements):
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    mesh = init_device_mesh("cpu", shape)
    state = {name: torch.zeros_like(tensor) for name, tensor in plain(placed(mesh, placements)).items()}
    dcp.load(state, storage_reader=HuggingFaceStorageReader(path=path))
    equal({name: full_of(tensor) for name, tensor in state.items()}, plain(model()))


def hugging_face(room, name):
    shape, placements = MESHES[name]
    spawn(math.prod(shape), save_hf, str(room / "hf"), shape, placements)
    equal(unified(room, room / "hf", 2), plain(model()))


def written_hf(room, layout, size):
    """Our Hugging Face form is loaded by torch's own reader at another world size."""
    save_file({n: t.contiguous() for n, t in plain(model()).items()}, room / "model.safetensors")
    shardloom("strategy", "new", "--mesh", layout, "--rule", "layers.*=tp,-", "--weights", room / "model.safetensors",
              "--output", room / "s.ckpt")
    shardloom("split", "--dst-strategy", room / "s.ckpt", "--src", room / "model.safetensors", "--dst", room / "ours", "--format",
              "dcp-hf", processes=2)
    spawn(size, load_hf, str(room / "ours"), (size,), [Shard(0)])
    equal(unified(room, room / "ours"), plain(model()))


def save_in_files(path, threads, single):
    mesh = init_device_mesh("cpu", (2,))
    writer = dcp.FileSystemWriter(path, thread_count=threads, single_file_per_rank=single)
    dcp.save(placed(mesh, [Shard(0)]), storage_writer=writer)


def many_files(room, threads, single):
    spawn(2, save_in_files, str(room / "dcp"), threads, single)
    equal(unified(room, room / "dcp", 3), model())


def many_values(room):
    """Values that torch alone knows how to read are carried as they are."""
    state = {"w": torch.ones(4), "size": torch.Size([1, 2]), "set": {1, 2}, "when": __import__("datetime").date(2026, 1, 2),
             "dtype": torch.bfloat16, "huge": 1 << 200}
    dcp.save(state, checkpoint_id=room / "theirs", no_dist=True)
    shardloom("unify", "--src", room / "theirs", "--dst", room / "ours", "--format", "dcp")
    found = consolidated(room, room / "ours")
    assert same(consolidated(room, room / "theirs"), found) and found["huge"] == 1 << 200, found


def save_large(path, tensors):
    from torch.distributed.tensor import DTensor
    mesh = init_device_mesh("cpu", (2,))
    part = {f"layers.{n}.w": DTensor.from_local(torch.full((2048, 4096), float(n)), mesh, [Shard(0)]) for n in range(tensors)}
    dcp.save(part, checkpoint_id=path)


def speed(room):
    """$SHARDLOOM_TORCH_GB of weights merged by both in turn, three times: seconds, and the most memory of a process."""
    import json
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
    spawn(2, save_large, str(room / "large"), max(1, int(float(os.environ["SHARDLOOM_TORCH_GB"]) * 1e9 / (2 * 2048 * 4096 * 4))))
    job = ["shardloom", "unify", "--src", room / "large", "--dst", room / "full", "--memory", "256MiB", "--json"]
    ways = {"one process": job}
    if os.environ.get("MPIRUN"):
        ways["two"] = [os.environ["MPIRUN"], *os.environ.get("MPIRUN_ARGS", "").split(), "-n", "2", *job]
    for _ in range(int(os.environ.get("SHARDLOOM_TORCH_ROUNDS", "3"))):
        begin = time.time()
        dcp_to_torch_save(room / "large", room / "large.pt")
        theirs = time.time() - begin
        (room / "large.pt").unlink()
        print(f"dcp_to_torch_save {theirs:.2f} s")
        for way, line in ways.items():
            begin = time.time()
            done = subprocess.run(line, capture_output=True, text=True, check=True)
            ours = time.time() - begin
            peak = json.loads(done.stdout)["memory_peak_bytes_max"]
            shutil.rmtree(room / "full")
            print(f"  unify, {way}: {ours:.2f} s, {theirs / ours:.1f} times as fast; {peak / 1e6:.0f} MB a process", flush=True)
            assert peak <= 256 << 20, peak


CASES = {"views": views, "dtypes": dtypes, "wide transposed": wide_transposed, "nested": nested, "sharded with an index": sharded_index}
for mesh in MESHES:
    CASES[f"distributed, {mesh}"] = lambda room, mesh=mesh: distributed(room, mesh)
for layout, size in [(None, 1), (None, 2), ("tp=4", 1), ("tp=4", 2), ("tp=2,dp=2", 3)]:
    CASES[f"written as {layout}, loaded by {size}"] = lambda room, l=layout, s=size: written(room, l, s)
for dtype in DTYPES:
    CASES[f"alone, {dtype}"] = lambda room, d=dtype: alone(room, "w", filled(d, (5, 6)))
for view in single_views():
    CASES[f"alone, {view}"] = lambda room, v=view: alone(room, v, single_views()[v])
for processes in (1, 3):
    CASES[f"values, {processes}"] = lambda room, p=processes: values(room, p)
CASES["values, cut"] = values_again
CASES["values, of any kind"] = many_values
for kind, flat, sizes in [("adamw", False, (2, 3)), ("adamw", True, (3, 1)), ("sgd", False, (2, 2)), ("amsgrad", False, (3, 2)),
                          ("rmsprop", True, (2, 1))]:
    CASES[f"training, {kind}{', flat' * flat}, {sizes}"] = lambda room, k=kind, f=flat, s=sizes: training(room, k, f, s)
for mesh in ("rows", "rows3", "columns", "both"):
    CASES[f"Hugging Face's form, {mesh}"] = lambda room, mesh=mesh: hugging_face(room, mesh)
for layout, size in [("tp=4", 2), ("tp=2,dp=2", 3)]:
    CASES[f"Hugging Face's form written as {layout}, loaded by {size}"] = lambda room, l=layout, s=size: written_hf(room, l, s)
for threads, single in [(3, True), (1, False), (4, False)]:
    CASES[f"files by {threads} threads{', one each' * (not single)}"] = lambda room, t=threads, s=single: many_files(room, t, s)


if os.environ.get("SHARDLOOM_TORCH_GB"):
    CASES["speed"] = speed


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
