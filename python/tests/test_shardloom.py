"""The module as its users meet it. Needs the program: SHARDLOOM_PROGRAM, or the installed package."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes  # noqa: F401 - numpy learns of bfloat16
import numpy
import pytest
from safetensors.numpy import load_file, save_file

import shardloom

DATA = Path(__file__).resolve().parents[2] / "tests/data"
CASE = DATA / "reshard_8_to_4"
OLD, NEW = CASE / "strategy/src.ckpt", CASE / "strategy/dst.ckpt"


def recorded():
    """Checkpoints in all kinds of layouts, each with the full weights that it was cut from."""
    for manifest in sorted(DATA.glob("*/manifest.json")):
        case = manifest.parent
        sources = set()
        for step in json.loads(manifest.read_text())["steps"]:
            source, strategy = step.get("input"), step.get("src_strategy")
            right = step["expected"] and not step.get("mindspore_output_is_wrong")
            if step["op"] in ("unify", "reshard") and source and strategy and right:
                sources.add((source, strategy))
        for source, strategy in sorted(sources):
            full = case / "full/full.safetensors"
            if full.exists() and list((case / source).glob("rank_*/*.safetensors")):
                yield pytest.param(case / source, case / strategy, full, id=f"{case.name}/{source}")


@pytest.mark.parametrize("source,strategy,full", list(recorded()))
def test_reads_any_slice_of_any_layout(source, strategy, full):
    expected = load_file(full)
    draw = numpy.random.default_rng(7)
    with shardloom.open(source, strategy) as weights:
        shared = [name for name in expected if name in weights]
        assert shared, "nothing to compare"
        for name in shared:
            tensor, whole = weights[name], expected[name]
            assert tensor.shape == whole.shape
            assert tensor[...].tobytes() == whole.tobytes(), name
            for _ in range(8):
                asked = tuple(drawn(draw, size) for size in whole.shape[: draw.integers(0, whole.ndim + 1)])
                part, meant = tensor[asked], whole[asked]
                assert part.shape == meant.shape, (name, asked)
                assert part.tobytes() == meant.tobytes(), (name, asked)


def drawn(draw, size):
    if draw.integers(0, 3) == 0 and size:
        return int(draw.integers(-size, size))
    first, end = (int(number) for number in draw.integers(-size - 2, size + 3, 2))
    return slice(first, end, int(draw.choice([-3, -1, 1, 2, 5])))


def test_what_is_no_index_is_refused():
    with shardloom.open(CASE / "src", OLD) as weights:
        assert weights["w.col"].shape == (24, 48) and len(weights["w.col"]) == 24
        assert weights["norm"][..., 3:5].shape == (2,)
        assert numpy.asarray(weights["norm"]).shape == (12,)
        with pytest.raises(IndexError):
            weights["w.col"][24]
        with pytest.raises(IndexError):
            weights["w.col"][0, 0, 0]
        with pytest.raises(TypeError):
            weights["w.col"][None]
        with pytest.raises(KeyError):
            weights["w.none"]


def test_reads_full_weights_and_one_file():
    expected = load_file(CASE / "full/full.safetensors")
    for place in (CASE / "full", CASE / "full/full.safetensors"):
        with shardloom.open(place) as weights:
            assert set(weights) == set(expected)
            assert weights["w.row"][5, :7].tobytes() == expected["w.row"][5, :7].tobytes()


def test_reads_ckpt_files(tmp_path):
    shardloom.run("convert", CASE / "src", dst=tmp_path / "src", to="ckpt")
    assert list((tmp_path / "src").glob("rank_*/*.ckpt")) and not list((tmp_path / "src").glob("rank_*/*.safetensors"))
    expected = load_file(CASE / "full/full.safetensors")
    with shardloom.open(tmp_path / "src", OLD) as weights:
        for name, whole in expected.items():
            assert weights[name][...].tobytes() == whole.tobytes(), name
        assert weights["w.both"][3:17, ::-2].tobytes() == expected["w.both"][3:17, ::-2].tobytes()


def test_reads_files_of_pytorch():
    # A view of other strides lies in another order than its rows.
    view = DATA / "worlds/pt_views/src/model.pt"
    expected = load_file(DATA / "worlds/pt_views/expected.safetensors")
    read, refused = 0, 0
    with shardloom.open(view) as weights:
        assert set(weights) == set(expected)
        for name, whole in expected.items():
            try:
                assert weights[name][...].tobytes() == whole.tobytes(), name
                read += 1
            except shardloom.ShardloomError as error:
                assert (error.kind, error.tensor) == ("unsupported", name)
                refused += 1
    assert read and refused, (read, refused)


def test_a_file_that_has_changed_is_no_longer_read(tmp_path):
    shutil.copytree(CASE / "full", tmp_path / "full")
    file = tmp_path / "full/full.safetensors"
    with shardloom.open(tmp_path / "full") as weights:
        tensor = weights["w.row"]
        save_file({"w.row": load_file(file)["w.row"] * 0}, file, {"format": "ms"})
        with pytest.raises(shardloom.ShardloomError) as caught:
            tensor[0]
    assert caught.value.kind == "changed"
    with shardloom.open(tmp_path / "full") as weights:
        tensor = weights["w.row"]
        file.unlink()
        with pytest.raises(shardloom.ShardloomError) as caught:
            tensor[0]
    assert caught.value.kind == "missing_shard"


def test_torch_has_the_same_bytes():
    torch = pytest.importorskip("torch")
    with shardloom.open(CASE / "src", OLD) as arrays, shardloom.open(CASE / "src", OLD, framework="torch") as tensors:
        part = tensors["w.both"][3:17, ::2]
        assert part.dtype == torch.bfloat16 and tuple(part.shape) == (14, 24)
        assert part.contiguous().view(torch.int16).numpy().tobytes() == arrays["w.both"][3:17, ::2].tobytes()
        assert tensors["step_num"][...].item() == arrays["step_num"][...].item()


def test_a_shard_that_is_missing_is_named(tmp_path):
    shutil.copytree(CASE / "src", tmp_path / "src")
    for rank in (1, 5):
        file = next((tmp_path / f"src/rank_{rank}").glob("*.safetensors"))
        tensors = load_file(file)
        del tensors["w.col"]
        save_file(tensors, file, {"format": "ms"})
    with shardloom.open(tmp_path / "src", OLD) as weights:
        assert weights["w.row"][:, :12].shape == (48, 12)
        with pytest.raises(shardloom.ShardloomError) as caught:
            weights["w.col"]
        assert (caught.value.kind, caught.value.tensor) == ("missing_shard", "w.col")


def test_what_no_strategy_describes_has_to_be_equal(tmp_path):
    shutil.copytree(CASE / "src", tmp_path / "src")
    file = next((tmp_path / "src/rank_3").glob("*.safetensors"))
    tensors = load_file(file)
    tensors["step_num"] = numpy.asarray(tensors["step_num"] + 1)
    save_file(tensors, file, {"format": "ms"})
    with shardloom.open(tmp_path / "src", OLD) as weights, pytest.raises(shardloom.ShardloomError) as caught:
        weights["step_num"][...]
    assert caught.value.kind == "copies_differ"


def test_shards_want_a_strategy():
    with pytest.raises(shardloom.ShardloomError) as caught:
        shardloom.open(CASE / "src")
    assert caught.value.kind == "missing_strategy"


def test_a_strategy_for_fewer_ranks_is_refused():
    with pytest.raises(shardloom.ShardloomError) as caught:
        shardloom.open(CASE / "src", NEW)
    assert caught.value.kind == "strategy"


def test_jobs_give_results_and_errors_have_kinds(tmp_path):
    out, full, cut = tmp_path / "out", tmp_path / "full", tmp_path / "cut"
    result = shardloom.reshard(CASE / "src", out, src_strategy=OLD, dst_strategy=NEW)
    assert sum(file.endswith(".safetensors") for file in result["files"]) == 4 and result["bytes"]["written"] > 0
    assert shardloom.diff(CASE / "expected", out, a_strategy=NEW, b_strategy=NEW)["equal"] is True
    assert shardloom.unify(out, full, src_strategy=NEW)["ok"] is True
    with shardloom.open(out) as kept, shardloom.open(full) as whole:
        assert list(kept) == list(whole)
        assert all((kept[name][...] == whole[name][...]).all() for name in whole)
    assert shardloom.split(full, cut, dst_strategy=OLD)["ok"] is True
    assert shardloom.diff(CASE / "src", full, a_strategy=OLD)["equal"] is True
    assert shardloom.verify(full)["bad"] == []
    assert shardloom.latest(CASE / "src")["suffix"] == "1_1"
    damaged = next(full.glob("model*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x77")
    assert len(shardloom.verify(full)["bad"]) == 1

    for kind, call in {
        "exists": lambda: shardloom.reshard(CASE / "src", out, src_strategy=OLD, dst_strategy=NEW),
        "usage": lambda: shardloom.unify(out, tmp_path / "x", src_strategy=NEW, colour="red"),
    }.items():
        with pytest.raises(shardloom.ShardloomError) as caught:
            call()
        assert caught.value.kind == kind, caught.value
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.kind, str(again)) == (kind, str(caught.value))


def test_flags_are_keywords(tmp_path):
    shardloom.unify(
        CASE / "src",
        tmp_path / "full",
        src_strategy=OLD,
        filter_out_param_prefix=["w.", "norm", "l", "e", "global", "step"],
        dry_run=False,
        memory="64MiB",
    )
    assert set(shardloom.open(tmp_path / "full")) == {"bias"}


PROGRAM = """
import sys
from mpi4py import MPI
import shardloom
src, old, new, out = sys.argv[1:]
comm = MPI.COMM_WORLD
try:
    shardloom.latest(src)
except shardloom.ShardloomError as error:
    assert error.kind == "usage", error
else:
    raise AssertionError("several processes did one job")
job = dict(src_strategy=old, dst_strategy=new, comm=comm)
result = shardloom.reshard(src, out, **job)
assert len(comm.allgather(result["bytes"]["written"])) == comm.size
try:
    shardloom.reshard(src, out, **job)
except shardloom.ShardloomError as error:
    kinds = comm.allgather(error.kind)
assert set(kinds) == {"exists"}, kinds
assert shardloom.latest(src, comm=MPI.COMM_SELF)["suffix"] == "1_1"
with shardloom.open(out, new) as weights:
    rows = weights["w.row"][comm.rank :: comm.size]
assert sum(comm.allgather(len(rows))) == weights["w.row"].shape[0]
if comm.rank == 0:
    print("done by", comm.size)
"""


def test_inside_a_program_with_mpi(tmp_path):
    pytest.importorskip("mpi4py")
    mpirun = os.environ.get("MPIRUN") or shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("no mpirun")
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [mpirun, *os.environ.get("MPIRUN_ARGS", "").split(), "-n", "3", sys.executable, str(script)]
    command += [str(path) for path in (CASE / "src", OLD, NEW, tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "done by 3" in done.stdout, done.stdout + done.stderr


def test_the_page_tells_the_truth(tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs/python.md").read_text()
    shutil.copytree(DATA / "model/qwen3/hf", tmp_path / "Qwen3-8B")
    monkeypatch.chdir(tmp_path)
    sizes = {"parallel": "dp=2,tp=2", "model": "Qwen3-8B", "names": "mcore"}
    shardloom.run("strategy derive", **sizes, output="output/strategy")
    shardloom.run("import", hf="Qwen3-8B", dst="output/checkpoint", dst_strategy="output/strategy", names="mcore")
    for rank in range(4):
        place = tmp_path / f"output/checkpoint/rank_{rank}"
        (place / "net.safetensors").rename(place / f"net_rank_{rank}-1_20.safetensors")
    known = {}
    for block in page.split("```python\n")[1:]:
        code = block.split("```")[0]
        if "mpi4py" not in code:
            exec(code, known)
    assert known["result"]["ok"] and known["rows"].shape[1] == known["tensor"].shape[1]
