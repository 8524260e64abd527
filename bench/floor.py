"""The floor of bench/compare's jobs: a C program that makes just their reads and writes (floor.c); and the cold
way of measuring: sources out of the page cache, results flushed.
"""

import os
import shlex
import subprocess
import time
from pathlib import Path

ENDINGS = (".safetensors", ".ckpt")


def build(folder):
    binary = folder / "floor"
    source = Path(__file__).with_name("floor.c")
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", binary, source], check=True)
    return binary


def weights(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in ENDINGS]


def contender(binary, jobs, processes):
    """Reads every file of weights of the source once, and writes files of the destination's sizes."""

    def run(place, job):
        source, target = (place.layout(layout) for layout in jobs[job])
        lines = [f"r {path.stat().st_size} {path}" for path in weights(source)]
        lines += [f"w {path.stat().st_size} {path.relative_to(target)}" for path in weights(target)]
        command = [str(binary), str(processes), str(place.out)]
        done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip()}")
        return float(done.stdout)

    return run


def drop(folder):
    """Takes the files of a directory out of the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached(folder):
    """The part of a directory's bytes that are in the page cache, as far as `fincore` tells; else none."""
    files = [str(path) for path in weights(folder)]
    try:
        told = subprocess.run(["fincore", "-nbo", "res,size", *files], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    pairs = [line.split() for line in told.stdout.splitlines()]
    return sum(int(res) for res, _ in pairs) / max(1, sum(int(size) for _, size in pairs))


def flushed(run):
    """A contender that doesn't flush by itself, and then `sync` of what it has written."""

    def both(place, job):
        seconds = run(place, job)
        if seconds is None:
            return None
        start = time.perf_counter()
        subprocess.run(["sync", "-f", str(place.out)], check=True)
        return seconds + time.perf_counter() - start

    return both


def rates(binary, place, layout):
    """The disk's own rates past the page cache in GB/s, at the best of several depths: {"read": .., "write": ..}."""
    best = {}
    source = weights(place.layout(layout))
    copies = []
    for number, path in enumerate(source):
        copy = place.folder / f"rate-{number}"
        with open(copy, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, path.stat().st_size))
        copies.append(copy)
    try:
        total = sum(path.stat().st_size for path in source)
        for kind, files in (("write", copies), ("read", source)):
            for depth in (1, 2, 4, 8, 16, 32):
                drop(place.layout(layout))
                command = [str(binary), "rate", kind, str(depth), *map(str, files)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode != 0:
                    return None
                rate = total / 1e9 / float(done.stdout)
                if rate > best.get(kind, (0, 0))[0]:
                    best[kind] = (rate, depth)
    finally:
        for copy in copies:
            copy.unlink()
    return best
