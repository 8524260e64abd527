"""PyTorch's own consolidation and `shardloom unify` of the same distributed checkpoint in Hugging Face's form.

    python3 bench/consolidate.py --python VENV/bin/python [--program SHARDLOOM] [--ranks 8,32] [--rounds 5] [--place DIR]

Qwen2.5-0.5B's shapes, cut by tensor parallelism over the ranks, are written by PyTorch; both then make one file of full
weights of them in turn, and the results are compared, byte by byte. PyTorch's seconds are those of its function alone,
shardloom's those of the whole command, started by $MPIRUN with two processes, manifest and digests included.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import compare


def tensors(folder):
    """The tensors of the one file in `folder`: name -> (dtype, shape, bytes)."""
    files = [path for path in folder.glob("*.safetensors") if "hyper_param" not in path.name]
    assert len(files) == 1, files
    return compare.map_safetensors(files[0])


def equal(ours, theirs):
    ours, theirs = tensors(ours), tensors(theirs)
    return ours.keys() == theirs.keys() and all(tuple(ours[name][:2]) == tuple(theirs[name][:2]) and bytes(ours[name][2]) == bytes(theirs[name][2]) for name in ours)


def rounds(options, room, full, ranks):
    """Ratios of `options.rounds` rounds, PyTorch's seconds by ours."""
    dcp = compare.Dcp(options.python, compare.Place(options.place, room, "qwen2.5-0.5b", {}), full)
    checkpoint, theirs, ours = room / f"{ranks}-hf", room / "theirs", room / "ours"
    dcp.start(ranks, "save", checkpoint, theirs)
    os.sync()
    found = []
    for number in range(options.rounds + 1):
        for out in (theirs, ours):
            shutil.rmtree(out, ignore_errors=True)
        os.sync()
        seconds = json.loads(dcp.start(0, "consolidate", checkpoint, theirs).splitlines()[-1])["seconds"]
        begin = time.perf_counter()
        command = [*compare.launcher(), options.program, "unify", "--src", checkpoint, "--dst", ours, "--quiet"]
        subprocess.run(list(map(str, command)), check=True)
        own = time.perf_counter() - begin
        if number == 0:
            assert equal(ours, theirs)
            continue
        found.append(seconds / own)
        print(f"  {ranks} ranks: PyTorch {seconds:.2f} s, shardloom {own:.2f} s, {found[-1]:.1f}", flush=True)
    shutil.rmtree(checkpoint)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="of an environment with torch and safetensors")
    parser.add_argument("--program", default="shardloom")
    parser.add_argument("--ranks", default="8,32", help="that saved; as many processes are started once")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds; one more is compared")
    parser.add_argument("--place", default="/dev/shm", help="a directory on the file system that is measured")
    options = parser.parse_args()
    shapes = compare.MODELS["qwen2.5-0.5b"]()
    full = {
        name: (dtype, shape, memoryview(os.urandom(compare.count(shape) * compare.ITEM_BYTES[dtype])))
        for name, (dtype, shape) in shapes.items()
    }
    with tempfile.TemporaryDirectory(dir=options.place) as room:
        room = Path(room)
        compare.write_layout(full, "full", room / "layout-full")
        for ranks in map(int, options.ranks.split(",")):
            found = rounds(options, room, full, ranks)
            print(f"{ranks} ranks, {options.place}: {statistics.median(found):.1f} times as fast ({min(found):.1f} to {max(found):.1f})")


if __name__ == "__main__":
    main()
