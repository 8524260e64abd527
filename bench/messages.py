#!/usr/bin/env python3
"""Compares `bench collectives` (the MPI library's own calls) with the plainest C program, in turn.

    bench/messages.py [--processes 2] [--runs 9] [--program target/release/shardloom]

Prints medians over the runs, in microseconds, and their ratio. What MPI is meant is told by $MPIRUN (its arguments
by $MPIRUN_ARGS) and $MPICC.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZES = [4096, 32768, 262144]
OPERATIONS = ["latency", "one_way", "all_to_all"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--program", default=str(ROOT / "target/release/shardloom"))
    args = parser.parse_args()
    launcher = [os.environ.get("MPIRUN", "mpirun"), "-n", str(args.processes), *os.environ.get("MPIRUN_ARGS", "").split()]
    found = {}
    with tempfile.TemporaryDirectory() as room:
        plain = f"{room}/messages"
        subprocess.run([os.environ.get("MPICC", "mpicc"), "-O2", "-o", plain, ROOT / "bench/messages.c"], check=True)
        for _ in range(args.runs):
            text = subprocess.run([*launcher, plain, *map(str, SIZES)], check=True, capture_output=True, text=True).stdout
            for name, size, time in map(str.split, text.splitlines()):
                found.setdefault((name, int(size)), ([], []))[0].append(float(time))
            command = [*launcher, args.program, "bench", "collectives", "--json", "--iterations", "200", "--time", "300ms"]
            command += ["--min-size", str(SIZES[0]), "--max-size", str(SIZES[-1]), "--factor", "8"]
            for name in OPERATIONS:
                command += ["--operation", name]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for row in result["rows"]:
                if row["by"] == "library" and row["bytes"] in SIZES:
                    key = (row["operation"], row["bytes"])
                    found.setdefault(key, ([], []))[1].append(1e6 * row["seconds"]["median"])
    print(f"{'operation':12} {'bytes':>8} {'C, us':>10} {'bench, us':>10} {'ratio':>6}")
    for (name, size), (plain, ours) in sorted(found.items()):
        plain, ours = statistics.median(plain), statistics.median(ours)
        print(f"{name:12} {size:8} {plain:10.2f} {ours:10.2f} {ours / plain:6.2f}")


if __name__ == "__main__":
    main()
