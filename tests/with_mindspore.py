#!/usr/bin/env python3
"""shardloom and MindSpore 2.10 side by side: each reads what the other wrote, byte for byte, and a network that MindSpore
trains goes on after it was cut, resharded and merged.

Started by `launch/test --with-mindspore`, which makes the virtual environment; needs $MPIRUN, $MPIRUN_ARGS and
shardloom on PATH (`. launch/env`). Inputs are made here: weights of a two-layer model with every kind of cut, and
strategies written through MindSpore's own protobuf classes. Ends with `N passed, N failed`.
"""

import contextlib
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

os.environ.setdefault("GLOG_v", "3")

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import nn, ops  # noqa: E402
from mindspore.train import node_strategy_pb2 as straspb  # noqa: E402

BF16 = "BF16"
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1}

# name -> (dtype, shape). Names say which cut a strategy gives them.
TENSORS = {
    "embedding.weight": ("BF16", (96, 48)),
    "layers.0.wq.weight": ("BF16", (48, 48)),
    "layers.0.wo.weight": ("BF16", (48, 48)),
    "layers.0.w1.weight": ("F32", (96, 48)),
    "layers.0.w2.weight": ("F16", (48, 96)),
    "layers.0.norm.weight": ("F32", (48,)),
    "layers.1.wq.weight": ("BF16", (48, 48)),
    "layers.1.wo.weight": ("BF16", (48, 48)),
    "layers.1.w1.weight": ("F32", (96, 48)),
    "layers.1.w2.weight": ("F16", (48, 96)),
    "layers.1.norm.weight": ("F32", (48,)),
    "experts.weight": ("I32", (24, 48, 6)),
    "head.bias": ("F32", (96,)),
}
HYPER = {"global_step": ("I32", (1,)), "epoch_num": ("I32", (1,))}


# --- safetensors, without the libraries under test ---------------------------------------------------------------


def write_safetensors(path, tensors, metadata=None):
    """tensors: name -> (dtype, shape, bytes)."""
    header, offset = {"__metadata__": metadata or {"format": "ms"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def read_safetensors(path):
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length :]
    return {
        name: (entry["dtype"], tuple(entry["shape"]), body[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }


def read_full(folder):
    """All tensors of a directory of full weights, hyper parameters included."""
    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        found.update(read_safetensors(path))
    return found


def read_ranks(folder):
    """rank -> tensors."""
    ranks = {}
    for path in Path(folder).glob("rank_*"):
        files = list(path.glob("*.safetensors"))
        assert len(files) == 1, f"{path}: {len(files)} files"
        ranks[int(path.name[5:])] = read_safetensors(files[0])
    return ranks


# --- inputs ------------------------------------------------------------------------------------------------------


def full_weights():
    found, start = {}, 1
    for name, (dtype, shape) in {**TENSORS, **HYPER}.items():
        count = int(np.prod(shape))
        size = ITEM_BYTES[dtype]
        # Counting values, so that a misplaced slice shows; the low bits of any width are enough for that.
        values = (np.arange(start, start + count, dtype=np.uint64) & (2 ** (8 * size - 1) - 1)).astype(f"<u{size}")
        if dtype in ("F32", "F16"):
            values = np.arange(start, start + count).astype("<f4" if dtype == "F32" else "<f2")
            values = np.where(np.isfinite(values), values, values.dtype.type(1))
        elif dtype == BF16:
            values = (np.arange(start, start + count).astype("<f4").view("<u4") >> 16).astype("<u2")
        found[name] = (dtype, shape, values.tobytes())
        start += count
    return found


def layout_item(message, name, matrix, tensor_map, opt_step=0, opt_size=0):
    item = message.parallel_layout_item.add()
    item.param_name = name
    layout = item.parallel_layouts
    layout.dev_matrix.add().dim.extend(matrix)
    layout.tensor_map.add().dim.extend(tensor_map)
    layout.param_split_shape.add()
    layout.indices_offset.add()
    layout.field = 0
    layout.opt_weight_shard_step = opt_step
    layout.opt_weight_shard_size = opt_size


def cuts(name, dp, tp):
    """The usual tensor-parallel cut of a parameter, as (device matrix, tensor map)."""
    matrix = [dp, tp]
    last = name.split(".")[-2:]
    if last[0] in ("wq", "w1", "embedding"):
        return matrix, [0, -1]
    if last[0] in ("wo", "w2"):
        return matrix, [-1, 0]
    if last[0] == "experts":
        return matrix, [0, -1, -1]
    if last[0] == "head":
        return matrix, [0]
    return matrix, [-1] * len(TENSORS[name][1])


def write_strategy(path, dp, tp, names=None, stage=0, optimizer_shard=False):
    message = straspb.ParallelStrategyMap()
    message.current_stage = 2
    operator = message.parallel_strategy_item.add()
    operator.node_name = f"MatMul-op{stage}"
    operator.parallel_strategys.stage = stage
    operator.parallel_strategys.parallel_strategy.add().dim.extend([dp, tp])
    for name in names or TENSORS:
        matrix, tensor_map = cuts(name, dp, tp)
        shard = optimizer_shard and tensor_map[-1] == 0 and dp > 1
        layout_item(message, name, matrix, tensor_map, tp if shard else 0, dp if shard else 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(message.SerializeToString())
    return path


def write_pipeline(folder, dp, tp):
    """A two-stage strategy: a directory of one file a rank, and MindSpore's own merge of it."""
    first = [n for n in TENSORS if "embedding" in n or n.startswith("layers.0.")]
    second = [n for n in TENSORS if n not in first]
    for stage, names in enumerate((first, second)):
        for rank in range(stage * dp * tp, (stage + 1) * dp * tp):
            write_strategy(folder / f"ckpt_strategy_rank_{rank}.ckpt", dp, tp, names, stage)
    merged = folder.with_name(folder.name + ".merged.ckpt")
    ms.merge_pipeline_strategys(str(folder), str(merged))
    return folder, merged


# --- a network that MindSpore trains -------------------------------------------------------------------------------


class Network(nn.Cell):
    """Two layers: the first cut by rows where there is tensor parallelism, the second by columns."""

    def __init__(self):
        super().__init__()
        self.up = nn.Dense(16, 64)
        self.down = nn.Dense(64, 8)

    def construct(self, x):
        return self.down(ops.gelu(self.up(x)))


class Trainer:
    """The network with Adam, and batches that come from a seed and the step's number."""

    def __init__(self):
        self.network = Network()
        self.optimizer = nn.Adam(self.network.trainable_params(), learning_rate=0.01)
        loss = nn.MSELoss()
        forward = lambda x, y: loss(self.network(x), y)  # noqa: E731
        self.gradients = ms.value_and_grad(forward, None, self.optimizer.parameters)

    def train(self, steps):
        losses = []
        for step in steps:
            x = np.random.default_rng(step).standard_normal((32, 16)).astype(np.float32)
            y = np.tanh(x @ np.linspace(-0.5, 0.5, 128, dtype=np.float32).reshape(16, 8))
            value, gradients = self.gradients(ms.Tensor(x), ms.Tensor(y))
            self.optimizer(gradients)
            losses.append(float(value.asnumpy()))
        return losses

    def parameters(self):
        """Weights and the optimizer's state by name; a parameter that both have is there once."""
        return {p.name: p for p in [*self.network.get_parameters(), *self.optimizer.get_parameters()]}

    def save(self, folder, extension):
        """Full weights: what strategies know, and the scalars beside it as MindSpore's own merge leaves them."""
        folder.mkdir(parents=True, exist_ok=True)
        for stem, scalars in (("net", False), ("hyper_param", True)):
            entries = [{"name": name, "data": parameter} for name, parameter in self.parameters().items()
                       if (parameter.size == 1) == scalars]
            ms.save_checkpoint(entries, str(folder / f"{stem}.{extension}"), format=extension)

    def load(self, files, extension):
        found = {}
        for path in files:
            found.update(ms.load_checkpoint(str(path), format=extension))
        for cell in (self.network, self.optimizer):
            missing, _ = ms.load_param_into_net(cell, found, strict_load=True)
            assert not missing, f"not loaded: {missing}"
        return found

    def outputs(self):
        x = np.random.default_rng(99).standard_normal((4, 16)).astype(np.float32)
        return self.network(ms.Tensor(x)).asnumpy()

    @staticmethod
    def strategy(path, dp, tp, optimizer_shard=False):
        """How its weights and both moments are cut."""
        message = straspb.ParallelStrategyMap()
        message.current_stage = 2
        operator = message.parallel_strategy_item.add()
        operator.node_name = "MatMul-op0"
        operator.parallel_strategys.stage = 0
        operator.parallel_strategys.parallel_strategy.add().dim.extend([dp, tp])
        maps = {"up.weight": [0, -1], "up.bias": [0], "down.weight": [-1, 0], "down.bias": [-1]}
        for kind in ("", "moment1.", "moment2."):
            for name, tensor_map in maps.items():
                shard = optimizer_shard and name.endswith("weight")
                step, size = (tp, dp) if shard else (0, 0)
                layout_item(message, kind + name, [dp, tp], tensor_map, step, size)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(message.SerializeToString())
        return path


# --- running -----------------------------------------------------------------------------------------------------


def shardloom(processes, *arguments):
    launcher = [os.environ.get("MPIRUN", "mpirun"), *shlex.split(os.environ.get("MPIRUN_ARGS", ""))]
    command = [*launcher, "-n", str(processes), "shardloom", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{shlex.join(command)}\nexit {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def expect_tensors(ours, theirs, where, ignore=()):
    ours = {n: t for n, t in ours.items() if n not in ignore}
    theirs = {n: t for n, t in theirs.items() if n not in ignore}
    assert set(ours) == set(theirs), f"{where}: names differ: {sorted(set(ours) ^ set(theirs))}"
    for name, (dtype, shape, data) in theirs.items():
        got = ours[name]
        assert got[:2] == (dtype, shape), f"{where}: {name}: {got[:2]}, MindSpore has {(dtype, shape)}"
        assert got[2] == data, f"{where}: {name}: bytes differ"


def expect_ranks(ours, theirs, ignore=()):
    ours, theirs = read_ranks(ours), read_ranks(theirs)
    assert sorted(ours) == sorted(theirs), f"ranks {sorted(ours)}, MindSpore has {sorted(theirs)}"
    for rank, tensors in theirs.items():
        expect_tensors(ours[rank], tensors, f"rank {rank}", ignore)


def parameter_bytes(parameter):
    """The bytes of a loaded parameter as MindSpore sees them."""
    if parameter.dtype == ms.bfloat16:
        return (parameter.astype(ms.float32).asnumpy().view("<u4") >> 16).astype("<u2").tobytes()
    return parameter.asnumpy().tobytes()


class Suite:
    """The cases; each makes what it needs below a directory of its own."""

    def __init__(self, work):
        self.work = work
        self.full = full_weights()
        self.source = work / "full" / "model.safetensors"
        write_safetensors(self.source, {n: self.full[n] for n in TENSORS})
        self.hyper = work / "full" / "hyper_param.safetensors"
        write_safetensors(self.hyper, {n: self.full[n] for n in HYPER})
        names = {name: "model.safetensors" for name in TENSORS}
        (work / "full" / "param_name_map.json").write_text(json.dumps({"weight_map": names}))
        strategies = work / "strategies"
        self.tp4 = write_strategy(strategies / "dp2tp4.ckpt", 2, 4)
        self.tp2 = write_strategy(strategies / "dp2tp2.ckpt", 2, 2)
        self.tp8 = write_strategy(strategies / "tp8.ckpt", 1, 8)
        self.opt = write_strategy(strategies / "opt.ckpt", 2, 2, optimizer_shard=True)
        self.pipeline, self.pipeline_merged = write_pipeline(strategies / "pp2", 1, 2)

    def theirs_split(self, strategy, folder):
        if not folder.exists():
            ms.load_distributed_checkpoint(
                None, predict_strategy=str(strategy), unified_safetensors_dir=str(self.work / "full"),
                dst_safetensors_dir=str(folder), format="safetensors", max_process_num=1,
            )
        return folder

    def theirs_dp2tp4(self):
        return self.theirs_split(self.tp4, self.work / "theirs-dp2tp4")

    def ours_dp2tp4(self):
        folder = self.work / "ours-dp2tp4"
        if not folder.exists():
            shardloom(2, "split", "--src", self.work / "full", "--dst", folder, "--dst-strategy", self.tp4)
        return folder

    # shardloom's output against MindSpore's, from the same input

    def split_is_the_same(self, strategy, processes):
        folder = self.work / f"split-{strategy.stem}-{processes}"
        shardloom(processes, "split", "--src", self.work / "full", "--dst", folder, "--dst-strategy", strategy)
        expect_ranks(folder, self.theirs_split(strategy, self.work / f"theirs-{strategy.stem}"))

    def reshard_is_the_same(self, source, target, processes):
        theirs = self.work / f"t-{source.stem}-{target.stem}-{processes}"
        ours = self.work / f"o-{source.stem}-{target.stem}-{processes}"
        start = self.theirs_split(source, self.work / f"theirs-{source.stem}")
        ms.transform_checkpoints(str(start), str(theirs), "net", str(source), str(target), 1, "safetensors")
        shardloom(processes, "reshard", "--src", start, "--src-strategy", source,
                  "--dst", ours, "--dst-strategy", target)
        expect_ranks(ours, theirs)

    def unify_is_the_same(self, strategy, processes):
        start = self.theirs_split(strategy, self.work / f"theirs-{strategy.stem}")
        theirs = self.work / f"tu-{strategy.stem}-{processes}"
        ours = self.work / f"ou-{strategy.stem}-{processes}"
        ms.unified_safetensors(str(start), str(strategy), str(theirs), max_process_num=1)
        shardloom(processes, "unify", "--src", start, "--src-strategy", strategy, "--dst", ours,
                  "--naming", "mindspore")
        expect_tensors(read_full(ours), read_full(theirs), "full weights")
        maps = [json.loads((f / "param_name_map.json").read_text())["weight_map"] for f in (ours, theirs)]
        assert set(maps[0]) == set(maps[1]), "param_name_map.json names other parameters"

    def pipeline_directory_is_the_merged_file(self):
        a, b = self.work / "pp-directory", self.work / "pp-merged"
        for folder, strategy in ((a, self.pipeline), (b, self.pipeline_merged)):
            shardloom(2, "split", "--src", self.work / "full", "--dst", folder, "--dst-strategy", strategy)
        expect_ranks(a, b)
        expect_ranks(a, self.theirs_split(self.pipeline_merged, self.work / "theirs-pp"))

    def merged_strategy_is_the_same(self):
        ours = self.work / "merged.ckpt"
        done = subprocess.run(["shardloom", "strategy", "merge", str(self.pipeline), "--output", str(ours)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        maps = []
        for path in (ours, self.pipeline_merged):
            message = straspb.ParallelStrategyMap()
            message.ParseFromString(path.read_bytes())
            maps.append({i.param_name: i.parallel_layouts.SerializeToString() for i in message.parallel_layout_item})
        assert maps[0] == maps[1], "layouts of the merged file differ"

    # MindSpore on shardloom's output

    def load_checkpoint_reads_ours(self):
        theirs = self.theirs_dp2tp4()
        for rank, tensors in read_ranks(theirs).items():
            path = self.ours_dp2tp4() / f"rank_{rank}" / "net.safetensors"
            loaded = ms.load_checkpoint(str(path), format="safetensors")
            assert set(loaded) == set(tensors), f"rank {rank}: {sorted(set(loaded) ^ set(tensors))}"
            for name, (_, shape, data) in tensors.items():
                assert tuple(loaded[name].shape) == shape, f"rank {rank}: {name}: {loaded[name].shape}"
                assert parameter_bytes(loaded[name]) == data, f"rank {rank}: {name}: bytes differ"

    def unified_safetensors_reads_ours(self):
        out = self.work / "unified-from-ours"
        ms.unified_safetensors(str(self.ours_dp2tp4()), str(self.tp4), str(out), max_process_num=1)
        expect_tensors(read_full(out), self.full, "full weights")

    def transform_checkpoints_reads_ours(self):
        out, straight = self.work / "transformed-from-ours", self.work / "transformed-from-theirs"
        for source, target in ((self.ours_dp2tp4(), out), (self.theirs_dp2tp4(), straight)):
            ms.transform_checkpoints(str(source), str(target), "net", str(self.tp4), str(self.tp2), 1, "safetensors")
        expect_ranks(out, straight)

    def load_distributed_checkpoint_reads_ours(self):
        full = self.work / "unified-by-us"
        shardloom(2, "unify", "--src", self.theirs_dp2tp4(), "--src-strategy", self.tp4, "--dst", full,
                  "--naming", "mindspore")
        out = self.work / "split-by-them"
        ms.load_distributed_checkpoint(
            None, predict_strategy=str(self.tp2), unified_safetensors_dir=str(full),
            dst_safetensors_dir=str(out), format="safetensors", max_process_num=1,
        )
        expect_ranks(out, self.theirs_split(self.tp2, self.work / "theirs-dp2tp2"))

    def strategy_new_is_read_by_mindspore(self):
        strategy = self.work / "strategies" / "by-hand.ckpt"
        done = subprocess.run(
            ["shardloom", "strategy", "new", "--mesh", "dp=2,tp=4", "--rule", "*.wq.weight=tp,-",
             "--rule", "*.w1.weight=tp,-", "--rule", "*.wo.weight=-,tp", "--rule", "*.w2.weight=-,tp",
             "--rule", "embedding.weight=tp,-", "--rule", "experts.weight=tp,-,-", "--rule", "head.bias=tp",
             "--weights", str(self.source), "--output", str(strategy)],
            capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        expect_ranks(self.theirs_split(strategy, self.work / "theirs-by-hand"), self.theirs_dp2tp4())

    # formats

    def convert_is_the_same(self):
        ckpt_theirs, ckpt_ours = self.work / "theirs-ckpt", self.work / "ours-ckpt"
        rank = self.theirs_dp2tp4() / "rank_1" / "net.safetensors"
        ms.safetensors_to_ckpt(str(rank), str(ckpt_theirs))
        shardloom(1, "convert", rank, "--dst", ckpt_ours, "--to", "ckpt")
        theirs, ours = (next(Path(f).rglob("*.ckpt")) for f in (ckpt_theirs, ckpt_ours))
        assert theirs.read_bytes() == ours.read_bytes(), "the .ckpt files differ"
        loaded = ms.load_checkpoint(str(ours))
        for name, (_, _, data) in read_safetensors(rank).items():
            assert parameter_bytes(loaded[name]) == data, f"{name}: bytes differ"

    # a network that is trained, cut, resharded, merged, and trained on

    def training_goes_on(self, extension):
        room = self.work / f"trained-{extension}"
        before = Trainer.strategy(room / "dp2tp2.ckpt", 2, 2, optimizer_shard=True)
        after = Trainer.strategy(room / "tp4.ckpt", 1, 4)
        ms.set_seed(7)
        first = Trainer()
        losses = first.train(range(30))
        assert losses[-1] < losses[0] / 2, f"it doesn't learn: {losses}"
        first.save(room / "full", extension)
        shardloom(2, "split", "--src", room / "full", "--dst", room / "cut", "--dst-strategy", before)
        shardloom(3, "reshard", "--src", room / "cut", "--src-strategy", before,
                  "--dst", room / "again", "--dst-strategy", after)
        shardloom(2, "unify", "--src", room / "again", "--src-strategy", after, "--dst", room / "whole",
                  "--naming", "mindspore")
        assert len(list((room / "again").glob(f"rank_*/*.{extension}"))) == 4
        ms.set_seed(8)
        second = Trainer()
        assert not np.array_equal(first.outputs(), second.outputs()), "both began with the same weights"
        found = second.load(sorted((room / "whole").glob(f"*.{extension}")), extension)
        for name, parameter in first.parameters().items():
            assert name in found, f"{name} was lost"
            assert parameter_bytes(found[name]) == parameter_bytes(parameter), f"{name}: bytes differ"
        assert np.array_equal(first.outputs(), second.outputs()), "outputs differ"
        straight, resumed = first.train(range(30, 40)), second.train(range(30, 40))
        assert straight == resumed, f"losses differ: {straight} {resumed}"

    def cases(self):
        yield "split dp2 x tp4", lambda: self.split_is_the_same(self.tp4, 2)
        yield "split dp2 x tp2 with optimizer shards", lambda: self.split_is_the_same(self.opt, 3)
        yield "split into pipeline stages", self.pipeline_directory_is_the_merged_file
        yield "reshard 8 -> 4 ranks", lambda: self.reshard_is_the_same(self.tp4, self.tp2, 2)
        yield "reshard 4 -> 8 ranks", lambda: self.reshard_is_the_same(self.tp2, self.tp8, 4)
        yield "reshard 8 -> 8 ranks", lambda: self.reshard_is_the_same(self.tp4, self.tp8, 1)
        yield "reshard optimizer shards", lambda: self.reshard_is_the_same(self.opt, self.tp4, 2)
        yield "reshard out of pipeline stages", lambda: self.reshard_is_the_same(self.pipeline_merged, self.tp2, 2)
        yield "unify 8 ranks", lambda: self.unify_is_the_same(self.tp4, 2)
        yield "unify optimizer shards", lambda: self.unify_is_the_same(self.opt, 2)
        yield "unify pipeline stages", lambda: self.unify_is_the_same(self.pipeline_merged, 3)
        yield "merge strategies", self.merged_strategy_is_the_same
        yield "MindSpore loads our shards", self.load_checkpoint_reads_ours
        yield "MindSpore unifies our shards", self.unified_safetensors_reads_ours
        yield "MindSpore reshards our shards", self.transform_checkpoints_reads_ours
        yield "MindSpore splits our full weights", self.load_distributed_checkpoint_reads_ours
        yield "MindSpore reads a strategy made by `strategy new`", self.strategy_new_is_read_by_mindspore
        yield "convert to .ckpt", self.convert_is_the_same
        yield "a network trained by MindSpore goes on (safetensors)", lambda: self.training_goes_on("safetensors")
        yield "a network trained by MindSpore goes on (.ckpt)", lambda: self.training_goes_on("ckpt")


@contextlib.contextmanager
def quiet():
    """MindSpore's bars and warnings aside: whatever the block writes to the terminal is dropped."""
    sys.stdout.flush()
    saved = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, old in zip((1, 2), saved):
            os.dup2(old, target)
            os.close(old)


def main():
    if shutil.which("shardloom") is None:
        sys.exit("shardloom is not on PATH: source launch/env and build first")
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="shardloom-mindspore-") as work:
        with quiet():
            suite = Suite(Path(work))
        for title, case in suite.cases():
            try:
                with quiet():
                    case()
            except Exception as error:  # every case is to be seen, whatever went wrong in one
                failed += 1
                print(f"FAILED {title}: {error}")
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
            else:
                passed += 1
                print(f"ok     {title}")
            sys.stdout.flush()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
