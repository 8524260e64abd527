"""Times shardloom against `cp` of the same output bytes, MindSpore, PyTorch, and a plain Python script.

Called by bench/compare, which sets up MPI and builds. Standard library only; MindSpore and PyTorch run in processes of their own
under .venv-mindspore and .venv-transformers. How it measures:

* In a round every contender does the job once, so that a noisy moment touches all of them; ratios are taken within a
  round. The first round is a warm-up for all and isn't counted; nothing else is dropped. MindSpore, PyTorch and plain Python
  take part in the warm-up and in `--slow-rounds` of the rounds.
* Sources are in the page cache. Outputs are removed and dirty pages written back before each run, not during it.
* MPI programs are timed from outside; the time of an empty MPI program (MPI_Init, MPI_Finalize, the same transports)
  started the same way in the same round is subtracted. MindSpore and PyTorch are timed inside their calls, so neither import nor start counts.
* `cp` copies a directory with exactly the bytes that the job has to write; `cp x2` divides its files over two cp.
* Nobody flushes: shardloom runs with `--sync none`, the others never do. With `--cold` all do: the others by `sync -f` afterwards,
  which counts; and sources are taken out of the page cache before each run.
* The floor is a C program that makes just the job's reads and writes, by as many processes (floor.c).
* Every contender's output is compared once, tensor by tensor, with what this script cuts out of the full weights.
"""

import argparse
import fnmatch
import hashlib
import json
import mmap
import os
import platform
import shlex
import shutil
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import ckpt
import floor
import models

ROOT = Path(__file__).resolve().parent.parent
ITEM_BYTES = {"F32": 4, "BF16": 2}
PROCESSES = 2

RULES = {
    "*embed_tokens.weight": "tp,-",
    "lm_head.weight": "tp,-",
    "*.q_proj.weight": "tp,-",
    "*.k_proj.weight": "tp,-",
    "*.v_proj.weight": "tp,-",
    "*.q_proj.bias": "tp",
    "*.k_proj.bias": "tp",
    "*.v_proj.bias": "tp",
    "*.o_proj.weight": "-,tp",
    "*.gate_proj.weight": "tp,-",
    "*.up_proj.weight": "tp,-",
    "*.down_proj.weight": "-,tp",
}


def llama(dtype, layers, hidden, key_value, inner, vocabulary, tied, bias):
    """The tensors of a Llama or Qwen2 model: name -> (dtype, shape)."""
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    for layer in range(layers):
        block = f"model.layers.{layer}."
        for name, rows in (("q", hidden), ("k", key_value), ("v", key_value)):
            shapes[f"{block}self_attn.{name}_proj.weight"] = (rows, hidden)
            if bias:
                shapes[f"{block}self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{block}self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[f"{block}mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{block}mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{block}mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{block}input_layernorm.weight"] = (hidden,)
        shapes[f"{block}post_attention_layernorm.weight"] = (hidden,)
    return {name: (dtype, shape) for name, shape in sorted(shapes.items())}


MODELS = {
    "qwen2.5-0.5b": lambda: llama("BF16", 24, 896, 128, 4864, 151936, True, True),
    "llama-3.2-1b": lambda: llama("BF16", 16, 2048, 512, 8192, 128256, True, False),
    "llama-160m": lambda: llama("F32", 8, 1024, 256, 2816, 32000, False, False),
    "tiny": lambda: llama("BF16", 2, 64, 16, 192, 512, False, False),
}

# job -> (source, destination); "full" is one file of full weights, a number that many ranks cut by tp.
JOBS = {"reshard 8->4": (8, 4), "reshard 4->8": (4, 8), "unify 8->full": (8, "full"), "split full->8": ("full", 8)}
JOBS |= models.JOBS | ckpt.JOBS


# --- the oracle: cuts, written without any library under test ------------------------------------------------------


def count(shape):
    total = 1
    for extent in shape:
        total *= extent
    return total


def cut_dimension(name):
    """The dimension that tp cuts, by the first rule that matches, or None."""
    for pattern, axes in RULES.items():
        if fnmatch.fnmatchcase(name, pattern):
            return axes.split(",").index("tp")
    return None


def cut(data, dtype, shape, dimension, rank, ranks):
    """One rank's shard of a row-major tensor: (shape, pieces in order)."""
    if dimension is None:
        return shape, [data]
    size = ITEM_BYTES[dtype]
    own = shape[:dimension] + (shape[dimension] // ranks,) + shape[dimension + 1 :]
    row = count(shape[dimension:]) * size
    length = row // ranks
    rows = count(shape[:dimension])
    return own, [data[i * row + rank * length : i * row + (rank + 1) * length] for i in range(rows)]


def write_safetensors(path, tensors):
    """tensors: name -> (dtype, shape, pieces)."""
    header, offset = {"__metadata__": {"format": "ms"}}, 0
    for name, (dtype, shape, _) in tensors.items():
        end = offset + count(shape) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, pieces in tensors.values():
            file.writelines(pieces)


def map_file(path):
    with open(path, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def map_safetensors(path):
    """name -> (dtype, shape, memoryview), backed by a map of the file."""
    view = map_file(path)
    (length,) = struct.unpack("<Q", view[:8])
    header = json.loads(bytes(view[8 : 8 + length]))
    header.pop("__metadata__", None)
    body = view[8 + length :]
    return {n: (e["dtype"], tuple(e["shape"]), body[slice(*e["data_offsets"])]) for n, e in header.items()}


def shards(full, rank, ranks):
    found = {}
    for name, (dtype, shape, data) in full.items():
        own, pieces = cut(data, dtype, shape, cut_dimension(name), rank, ranks)
        found[name] = (dtype, own, pieces)
    return found


def write_layout(full, layout, folder):
    if layout in models.LAYOUTS:
        for rank, tensors in enumerate(models.shards(full, layout, cut)):
            write_safetensors(folder / f"rank_{rank}" / "net.safetensors", tensors)
        return
    if layout == ckpt.LAYOUT:
        for rank in range(ckpt.RANKS):
            ckpt.write(folder / f"rank_{rank}" / "net.ckpt", shards(full, rank, ckpt.RANKS))
        return
    if layout in ("full", "hf"):
        tensors = {name: (dtype, shape, [data]) for name, (dtype, shape, data) in full.items()}
        write_safetensors(folder / "model.safetensors", tensors)
        if layout == "hf":
            (folder / "config.json").write_text(json.dumps(models.config(full)))
            return
        names = {"metadata": {}, "weight_map": {name: "model.safetensors" for name in tensors}}
        (folder / "param_name_map.json").write_text(json.dumps(names))
        return
    for rank in range(layout):
        write_safetensors(folder / f"rank_{rank}" / "net.safetensors", shards(full, rank, layout))


def ranks_of(layout):
    if layout in models.LAYOUTS:
        return models.RANKS
    return ckpt.RANKS if layout == ckpt.LAYOUT else layout


def digests(folder, layout):
    """(rank, tensor) -> dtype, shape and SHA-256 of what lies in an output directory."""
    found = {}
    ranks = ranks_of(layout)
    places = {0: folder} if layout in ("full", "hf") else {r: folder / f"rank_{r}" for r in range(ranks)}
    for rank, place in places.items():
        for path in sorted(place.glob("*.ckpt" if layout == ckpt.LAYOUT else "*.safetensors")):
            tensors = ckpt.read(map_file(path)) if layout == ckpt.LAYOUT else map_safetensors(path)
            for name, (dtype, shape, data) in tensors.items():
                found[rank, name] = (dtype, shape, hashlib.sha256(data).hexdigest())
    return found


def oracle_digests(full, layout):
    found = {}
    ranks = 1 if layout in ("full", "hf") else ranks_of(layout)
    held = models.shards(full, layout, cut) if layout in models.LAYOUTS else (shards(full, r, ranks) for r in range(ranks))
    for rank, tensors in enumerate(held):
        for name, (dtype, shape, pieces) in tensors.items():
            digest = hashlib.sha256()
            for piece in pieces:
                digest.update(piece)
            found[rank, name] = (dtype, shape, digest.hexdigest())
    return found


# --- contenders: each is called as (place, job, output) and returns seconds ---------------------------------------


def timed(*commands):
    """Wall seconds until the last of some commands, started together, has ended."""
    start = time.perf_counter()
    running = [
        subprocess.Popen(c, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for c in commands
    ]
    outputs = [process.communicate()[0] for process in running]
    seconds = time.perf_counter() - start
    for process, command, output in zip(running, commands, outputs):
        if process.returncode != 0:
            lines = [line for line in output.decode().splitlines() if line.strip()]
            telling = next((line for line in lines if "error" in line), lines[0] if lines else "no output")
            raise RuntimeError(f"exit {process.returncode}: {telling}\n    {shlex.join(map(str, command))}")
    return seconds


class Place:
    """A directory on one file system with a model in every layout the jobs need."""

    def __init__(self, name, folder, model, strategies):
        self.name, self.folder, self.model, self.strategies = name, folder, model, strategies
        self.out = folder / "out"

    def layout(self, layout):
        return self.folder / f"layout-{layout}"

    def prepare(self, full, layouts):
        for layout in layouts:
            write_layout(full, layout, self.layout(layout))
        os.sync()
        self.full = map_safetensors(self.layout("full") / "model.safetensors")

    def warm(self, layout):
        for path in self.layout(layout).rglob("*"):
            if path.is_file():
                with open(path, "rb", buffering=0) as file:
                    buffer = bytearray(1 << 20)
                    while file.readinto(buffer):
                        pass

    def clear(self):
        shutil.rmtree(self.out, ignore_errors=True)
        os.sync()


def launcher():
    return [os.environ.get("MPIRUN", "mpirun"), *shlex.split(os.environ.get("MPIRUN_ARGS", "")), "-n", str(PROCESSES)]


def copy(place, job):
    return timed(["cp", "-r", place.layout(JOBS[job][1]), place.out])


def copy_twice(place, job):
    source = place.layout(JOBS[job][1])
    files = sorted((p for p in source.rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size)
    halves, sizes = ([], []), [0, 0]
    for path in files:
        lighter = sizes.index(min(sizes))
        halves[lighter].append(path.relative_to(source))
        sizes[lighter] += path.stat().st_size
    if len(halves[1]) == 0 or sizes[1] < sizes[0] / 4:
        return None  # one big file can't be divided over two cp
    for path in files:
        (place.out / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
    scripts = ["; ".join(shlex.join(["cp", str(source / p), str(place.out / p)]) for p in half) for half in halves]
    return timed(*(["sh", "-ec", script] for script in scripts))


def shardloom(exchange, sync="none", program="shardloom"):
    def run(place, job):
        source, target = JOBS[job]
        command = [job.split()[0], "--src", place.layout(source), "--dst", place.out]
        if job in models.JOBS:
            command = models.command(place, job)
        elif job in ckpt.JOBS:
            command = ckpt.command(place, job)
        else:
            if source != "full":
                command += ["--src-strategy", place.strategies[source]]
            if target != "full":
                command += ["--dst-strategy", place.strategies[target]]
        command += ["--exchange", exchange, "--sync", sync, "--progress", "never", "--json"]
        return timed([*launcher(), program, *map(str, command)])

    return run


def beside(results):
    """Lines: shardloom's times by those of the build of `--before`, of the same round."""
    for result in results:
        for name in ("auto", "collective"):
            pair = [result["contenders"].get(f"{who} {name}", {}).get("seconds") for who in ("before", "shardloom")]
            if all(pair):
                ratios = [now / before for before, now in zip(*pair)]
                yield (f"{result['model']} on {result['place']}, {result['job']}, {name}: {statistics.median(ratios):.3f} of before "
                       f"({min(ratios):.2f} to {max(ratios):.2f})")


def plain_python(place, job):
    """What one would write in an afternoon: map the sources, cut or join, write; one process, no library."""
    if job in models.JOBS:
        return models.plain_python(place, job, map_safetensors, write_safetensors, cut)
    if job in ckpt.JOBS:
        return None
    source, target = JOBS[job]
    start = time.perf_counter()
    if source == "full":
        full = map_safetensors(place.layout("full") / "model.safetensors")
    else:
        ranks = [map_safetensors(place.layout(source) / f"rank_{r}" / "net.safetensors") for r in range(source)]
        full = {}
        for name, (dtype, shape, _) in ranks[0].items():
            parts, dimension = [rank[name][2] for rank in ranks], cut_dimension(name)
            if dimension is None:
                full[name] = (dtype, shape, parts[0])
                continue
            whole = shape[:dimension] + (shape[dimension] * source,) + shape[dimension + 1 :]
            run = count(shape[dimension:]) * ITEM_BYTES[dtype]
            rows = count(shape[:dimension])
            joined = b"".join(part[i * run : (i + 1) * run] for i in range(rows) for part in parts)
            full[name] = (dtype, whole, memoryview(joined))
    write_layout(full, target, place.out)
    return time.perf_counter() - start


MINDSPORE_WORKER = """
import json, os, sys, time
os.environ.setdefault("GLOG_v", "3")
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
if __name__ == "__main__":
    import mindspore as ms
    print(json.dumps({"version": ms.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        call, arguments, keywords = json.loads(line)
        start = time.perf_counter()
        try:
            getattr(ms, call)(*arguments, **keywords)
            answer = {"seconds": time.perf_counter() - start}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
"""


class MindSpore:
    """A MindSpore process that carries out one call after another; importing it is nobody's business."""

    def __init__(self, python, folder):
        script = folder / "mindspore_worker.py"
        script.write_text(MINDSPORE_WORKER)
        self.log = open(folder / "mindspore.log", "w")
        self.process = subprocess.Popen(
            [python, "-W", "ignore", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.version = self.answer()["version"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"MindSpore's process ended: see {self.log.name}")
        return json.loads(line)

    def run(self, processes):
        def call(place, job):
            if job in models.JOBS:
                return None  # it has no such function
            source, target = JOBS[job]
            if job in ckpt.JOBS:
                name, arguments, keywords = ckpt.mindspore(place, job, processes)
            elif target == "full":
                name, keywords = "unified_safetensors", {"max_process_num": processes}
                arguments = [place.layout(source), place.strategies[source], place.out]
            elif source == "full":
                name, arguments = "load_distributed_checkpoint", [None]
                keywords = {
                    "predict_strategy": str(place.strategies[target]),
                    "unified_safetensors_dir": str(place.layout("full")),
                    "dst_safetensors_dir": str(place.out),
                    "format": "safetensors",
                    "max_process_num": processes,
                }
            else:
                name, keywords = "transform_checkpoints", {"process_num": processes, "output_format": "safetensors"}
                arguments = [place.layout(source), place.out, "net", place.strategies[source], place.strategies[target]]
            arguments = [a if a is None else str(a) for a in arguments]
            print(json.dumps([name, arguments, keywords]), file=self.process.stdin, flush=True)
            answer = self.answer()
            if "error" in answer:
                raise RuntimeError(f"{name}: {answer['error']}")
            return answer["seconds"]

        return call

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Dcp:
    """PyTorch's distributed checkpoint, by bench/dcp.py; timed inside, so neither import nor start counts."""

    def __init__(self, python, place, full):
        self.python, self.place, self.prepared = python, place, set()
        self.rules = json.dumps({name: cut_dimension(name) for name in full})

    def start(self, processes, mode, checkpoint, out):
        source = self.place.layout("full") / "model.safetensors"
        command = [self.python, "-W", "ignore"]
        if processes > 0:
            command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command += [ROOT / "bench" / "dcp.py", mode, source, self.rules, checkpoint, out]
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        run = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
        if run.returncode != 0:
            raise RuntimeError(f"bench/dcp.py {mode}: {run.stderr.strip().splitlines()[-1:]}")
        return run.stdout

    def __call__(self, place, job):
        source, target = JOBS[job]
        if job in models.JOBS or job in ckpt.JOBS or source == "full":
            return None
        checkpoint = place.folder / ("dcp-hf" if target == "full" else f"dcp-{source}")
        if checkpoint not in self.prepared:
            self.start(source, "save", checkpoint, place.out)
            self.prepared.add(checkpoint)
            os.sync()
        mode, processes = ("consolidate", 0) if target == "full" else ("load", target)
        return json.loads(self.start(processes, mode, checkpoint, place.out).splitlines()[-1])["seconds"]


# --- measuring ----------------------------------------------------------------------------------------------------


def empty_program(folder):
    """An MPI program that starts and ends: what every MPI program pays before its first line."""
    source, binary = folder / "empty.c", folder / "empty"
    # shardloom spares Open MPI the search for networks on a single node; so does this, or too much would be subtracted.
    source.write_text("""
#include <mpi.h>
#include <stdlib.h>
int main(int count, char **values) {
    setenv("OMPI_MCA_pml", "ob1", 0);
    setenv("OMPI_MCA_btl", "vader,self", 0);
    MPI_Init(&count, &values);
    MPI_Finalize();
    return 0;
}
""")
    subprocess.run([os.environ.get("MPICC", "mpicc"), "-O2", "-o", binary, source], check=True)
    return lambda: timed([*launcher(), binary])


def measure(place, job, contenders, empty, options, full, notes):
    """One job in `options.rounds` counted rounds: contender -> its figures."""
    rounds = options.rounds
    source, target = JOBS[job]
    expected = oracle_digests(full, target)
    failed, samples = {}, {name: [] for name in contenders}
    starts = []
    place.warm(source)
    place.warm(target)
    for number in range(rounds + 1):
        start = empty()
        # What comes first has it easier, or harder: they take turns.
        for name, run in list(contenders.items())[:: -1 if number % 2 else 1]:
            slow = name.startswith(("MindSpore", "PyTorch", "plain"))
            if slow and options.slow_rounds == 0:
                failed[name] = "not applicable"
            if name in failed or (slow and number > options.slow_rounds):
                continue
            place.clear()
            if options.cold:
                floor.drop(place.layout(source))
                floor.drop(place.layout(target))
                left = floor.cached(place.layout(source))
                if left is not None and left > 0.01:
                    notes.append(f"{place.model}, {place.name}, {job}: {left:.0%} of the source stayed in the page cache")
            try:
                seconds = run(place, job)
                if seconds is None:
                    failed[name] = "not applicable"
                    continue
                # PyTorch's own format is compared by bench/dcp.py when it is loaded.
                if number == 0 and name != "floor" and not (name == "PyTorch" and target != "full"):
                    got = {k: v for k, v in digests(place.out, target).items() if k in expected}
                    wrong = [k for k in expected if got.get(k) != expected[k]]
                    if wrong:
                        failed[name] = f"WRONG BYTES in {len(wrong)} of {len(expected)} tensors, e.g. {wrong[0]}"
                        notes.append(f"{place.model}, {place.name}, {job}: {name}: {failed[name]}")
                        continue
            except (RuntimeError, OSError) as error:
                failed[name] = "failed"
                notes.append(f"{place.model}, {place.name}, {job}: {name} failed: {error}")
                continue
            if number > 0:
                samples[name].append(seconds - start if name.startswith(("shardloom", "before")) else seconds)
        if number > 0:
            starts.append(start)
        print(f"  {job}: round {number} of {rounds}" + (" (warm-up)" if number == 0 else ""), file=sys.stderr)
    place.clear()

    figures = {}
    for name in contenders:
        if name in failed:
            figures[name] = {"why": failed[name]}
            continue
        ratios = [own / reference for own, reference in zip(samples[name], samples["cp"])]
        figures[name] = {
            "seconds": samples[name],
            "median": statistics.median(samples[name]),
            "of_cp": {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)},
        }
    bytes_written = sum(p.stat().st_size for p in place.layout(target).rglob("*") if p.suffix in (".safetensors", ".ckpt"))
    return {
        "model": place.model, "place": place.name, "job": job, "bytes": bytes_written,
        "mpi_start_seconds": starts, "contenders": figures,
    }


def machine(folders):
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    version = subprocess.run([os.environ.get("MPIRUN", "mpirun"), "--version"], capture_output=True, text=True).stdout
    mpi = next((line.strip() for line in version.splitlines() if any(c.isdigit() for c in line)), "?")
    systems = {}
    for name, folder in folders.items():
        table = subprocess.run(["df", "-PT", folder], capture_output=True, text=True).stdout.splitlines()
        systems[name] = table[1].split()[1]
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "processor": processor, "cores": os.cpu_count(), "memory_gib": round(memory / 2**30), "mpi": mpi,
        "kernel": platform.release(), "python": platform.python_version(), "file_systems": systems,
        "commit": commit.stdout.strip(),
    }


def table(results, names):
    lines = []
    for place in dict.fromkeys(r["place"] for r in results):
        lines += ["", f"**{place}**: median seconds, and times `cp` as min / median / max of the rounds", ""]
        lines += ["| model, job (written) | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for result in (r for r in results if r["place"] == place):
            cells = []
            for name in names:
                figure = result["contenders"].get(name, {"why": "-"})
                if "why" in figure:
                    cells.append({"not applicable": "-"}.get(figure["why"], figure["why"].split(" in ")[0]))
                else:
                    ratio = figure["of_cp"]
                    text = f"{figure['median']:.2f} s"
                    if name != "cp":
                        text += f"<br>{ratio['min']:.2f} / **{ratio['median']:.2f}** / {ratio['max']:.2f}"
                    cells.append(text)
            size = result["bytes"] / 1e9
            lines.append(f"| {result['model']}, {result['job']} ({size:.2f} GB) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(prog="bench/compare", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default 5)")
    parser.add_argument("--slow-rounds", type=int, default=3, help="of these with MindSpore, PyTorch and plain Python (default 3; 0 leaves them out)")
    parser.add_argument("--models", default="qwen2.5-0.5b,llama-160m", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--jobs", default=",".join(JOBS), help=f"of {', '.join(JOBS)}")
    parser.add_argument("--places", default="tmpfs,disk", help="of tmpfs, disk")
    parser.add_argument("--tmpfs", default="/dev/shm", help="where tmpfs is mounted")
    parser.add_argument("--disk", default=str(ROOT / "target" / "compare"), help="a directory on a disk")
    parser.add_argument("--before", metavar="PROGRAM", help="a build of shardloom to compare this one with, round by round")
    parser.add_argument("--cold", action="store_true", help="sources are not in the page cache, and results are flushed; on disk")
    parser.add_argument("--no-mindspore", action="store_true", help="leave MindSpore out")
    parser.add_argument("--output", default=str(ROOT / "target" / "compare" / "results.json"), help="figures as JSON")
    options = parser.parse_args()
    for flag, given, known in (("--jobs", options.jobs, JOBS), ("--models", options.models, MODELS)):
        unknown = [word for word in given.split(",") if word not in known]
        if unknown:
            parser.error(f"{flag} has '{unknown[0]}', none of {', '.join(known)}")
    return options


def strategies(folder, full, names):
    """The layouts as strategy files, made by shardloom from the same rules as the oracle's."""
    found = {}
    for ranks in (4, 8):
        path = folder / f"tp{ranks}.ckpt"
        met = [pattern for pattern in RULES if fnmatch.filter(names, pattern)]
        rules = [word for pattern in met for word in ("--rule", f"{pattern}={RULES[pattern]}")]
        command = ["shardloom", "strategy", "new", "--mesh", f"tp={ranks}", *rules, "--weights", full, "--output", path]
        command += ["--overwrite", "--quiet"]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        found[ranks] = path
    return found


def carry_out(command):
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def main():
    options = arguments()
    notes, results = [], []
    folders = {}
    if options.cold:
        options.places, options.slow_rounds, options.no_mindspore = "disk", 0, True
    for place in options.places.split(","):
        parent = Path(options.tmpfs if place == "tmpfs" else options.disk)
        parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(parent).free
        if free < 8e9:
            notes.append(f"{place}: left out, {parent} has {free / 1e9:.1f} GB free and 8 are needed")
        else:
            folders[place] = parent / f"shardloom-compare-{os.getpid()}"
    if not folders:
        sys.exit("\n".join(notes))

    contenders = {
        "cp": copy, "cp x2": copy_twice,
        "shardloom auto": shardloom("auto"), "shardloom collective": shardloom("collective"),
    }
    server = None
    python = ROOT / ".venv-mindspore" / "bin" / "python"
    scratch = Path(options.disk) / f"scratch-{os.getpid()}"
    scratch.mkdir(parents=True)
    try:
        empty = empty_program(scratch)
        binary = floor.build(scratch)
        contenders["floor"] = floor.contender(binary, JOBS, PROCESSES)
        if options.cold:
            contenders = {name: floor.flushed(contenders[name]) for name in ("cp", "cp x2", "floor")}
            contenders["shardloom auto"] = shardloom("auto", "commit")
            if options.before:
                contenders["before auto"] = shardloom("auto", "commit", options.before)
        elif options.before:
            for exchange in ("auto", "collective"):
                contenders[f"before {exchange}"] = shardloom(exchange, program=options.before)
        if options.no_mindspore:
            notes.append("MindSpore: left out, as asked")
        elif not python.exists():
            notes.append("MindSpore: left out, there is no .venv-mindspore (launch/test --with-mindspore makes it)")
        else:
            server = MindSpore(python, scratch)
            contenders["MindSpore x1"] = server.run(1)
            contenders["MindSpore x2"] = server.run(2)
        torch = ROOT / ".venv-transformers" / "bin" / "python"
        if not torch.exists():
            notes.append("PyTorch: left out, there is no .venv-transformers (launch/test --with-transformers makes it)")
        contenders["PyTorch"] = None
        contenders["plain Python"] = plain_python
        about = machine({name: folder.parent for name, folder in folders.items()})
        about["mindspore"] = server.version if server else None
        about["loads_before"] = os.getloadavg()

        record = {
            "command": shlex.join(["bench/compare", *sys.argv[1:]]), "processes": PROCESSES, "rounds": options.rounds,
            "slow_rounds": options.slow_rounds, "machine": about, "notes": notes, "results": results,
        }
        output = Path(options.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        for model in options.models.split(","):
            shapes = MODELS[model]()
            full = {
                name: (dtype, shape, memoryview(os.urandom(count(shape) * ITEM_BYTES[dtype])))
                for name, (dtype, shape) in shapes.items()
            }
            for name, folder in folders.items():
                print(f"{model} on {name}", file=sys.stderr)
                try:
                    write_layout(full, "full", folder / "layout-full")
                    place = Place(name, folder, model, strategies(scratch, folder / "layout-full", list(full)))
                    place.prepare(full, ["full", 4, 8])
                    if options.cold:
                        rates = floor.rates(binary, place, 8)
                        told = rates and ", ".join(f"{kind} {rate:.2f} GB/s at depth {depth}" for kind, (rate, depth) in rates.items())
                        notes.append(f"{model}, {name}: the disk's own rates past the page cache: {told or 'it has no such calls'}")
                    contenders["PyTorch"] = Dcp(torch, place, full) if torch.exists() else lambda *_: None
                    for job in options.jobs.split(","):
                        # These are large, and of no use to the other jobs.
                        own = [layout for layout in JOBS[job] if isinstance(layout, str) and layout != "full"]
                        if job in models.JOBS and not models.takes(full):
                            continue
                        for layout in own:
                            write_layout(full, layout, place.layout(layout))
                            if layout in models.LAYOUTS:
                                place.strategies[layout] = models.strategy(scratch, full, layout, carry_out)
                        if own:
                            os.sync()
                        results.append(measure(place, job, contenders, empty, options, full, notes))
                        output.write_text(json.dumps(record, indent=1) + "\n")
                        for layout in own:
                            shutil.rmtree(place.layout(layout))
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
        if server:
            server.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

    starts = [s for r in results for s in r["mpi_start_seconds"]]
    print(f"`{record['command']}` at {about['commit']}: {about['processor']}, {about['cores']} cores, "
          f"{about['memory_gib']} GiB, Linux {about['kernel']}, {about['mpi']}, load {about['loads_before'][0]:.1f} before, "
          + ", ".join(f"{place}: {kind}" for place, kind in about["file_systems"].items())
          + f". MPI start-up of {statistics.median(starts):.2f} s (median) is subtracted from shardloom's times.")
    print(table(results, list(contenders)))
    for line in beside(results):
        print(f"\n{line}")
    for note in notes:
        print(f"\nNote: {note}")
    print(f"\nAll figures: {options.output}")
    wrong = any("why" in f and f["why"] != "not applicable" for r in results for f in r["contenders"].values())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
