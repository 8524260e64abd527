#!/usr/bin/env python3
"""Compares `bench collectives` (the MPI library's own calls) with the plainest C program and mpi4py, in turn.

    bench/messages.py [--processes 2] [--runs 9] [--transport shared|tcp] [--program target/release/shardloom]

Prints medians over the runs, in microseconds, and the ratios to both. What MPI is meant is told by $MPIRUN (its
arguments by $MPIRUN_ARGS) and $MPICC. mpi4py takes part where --python has it, built for the same MPI.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SIZES = [8 * 8**power for power in range(7)]
OPERATIONS = ["latency", "one_way", "all_to_all"]
# How each library is told to send through memory, or through the network's layers though all are on one node.
TRANSPORTS = {
    ("open", "shared"): {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "vader,self"},
    ("open", "tcp"): {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "tcp,self"},
    ("mpich", "shared"): {},
    ("mpich", "tcp"): {"MPIR_CVAR_NOLOCAL": "1", "FI_PROVIDER": "tcp", "UCX_TLS": "tcp,self"},
}


def library(mpirun):
    told = subprocess.run([mpirun, "--version"], capture_output=True, text=True).stdout.lower()
    return "open" if any(word in told for word in ("open mpi", "open-mpi", "openrte", "prrte")) else "mpich"


def lines(command, environment):
    """The times that one of the plain programs prints, by operation and size."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    return {(name, int(size)): float(time) for name, size, time in map(str.split, done.stdout.splitlines())}


def ours(command, environment):
    """The library's rows of `bench collectives`, by operation and size."""
    command = [*command, "bench", "collectives", "--json", "--iterations", "200", "--time", "300ms"]
    command += ["--min-size", str(SIZES[0]), "--max-size", str(SIZES[-1]), "--factor", "8"]
    for name in OPERATIONS:
        command += ["--operation", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    rows = [row for row in json.loads(done.stdout)["rows"] if row["by"] == "library" and row["bytes"] in SIZES]
    return {(row["operation"], row["bytes"]): 1e6 * row["seconds"]["median"] for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--transport", choices=["shared", "tcp"], default="shared")
    parser.add_argument("--program", default=str(TARGET / "release/shardloom"))
    parser.add_argument("--python", default=sys.executable)
    args = parser.parse_args()
    mpirun = os.environ.get("MPIRUN", "mpirun")
    launcher = [mpirun, "-n", str(args.processes), *os.environ.get("MPIRUN_ARGS", "").split()]
    # Processes with a core of their own don't give it to others while they wait.
    gives = {"OMPI_MCA_mpi_yield_when_idle": str(int(args.processes > (os.cpu_count() or 1)))}
    environment = {**os.environ, **gives, **TRANSPORTS[library(mpirun), args.transport]}
    sizes = list(map(str, SIZES))
    with tempfile.TemporaryDirectory() as room:
        plain = f"{room}/messages"
        subprocess.run([os.environ.get("MPICC", "mpicc"), "-O2", "-o", plain, ROOT / "bench/messages.c"], check=True)
        programs = {"C": lambda: lines([*launcher, plain, *sizes], environment)}
        known = subprocess.run([args.python, "-c", "import mpi4py"], capture_output=True).returncode == 0
        if known:
            script = [args.python, str(ROOT / "bench/messages_python.py"), *sizes]
            programs["mpi4py"] = lambda: lines([*launcher, *script], environment)
        else:
            print(f"mpi4py takes no part: {args.python} doesn't have it", file=sys.stderr)
        programs["bench"] = lambda: ours([*launcher, args.program], environment)
        found = {name: {} for name in programs}
        for _ in range(args.runs):
            for name, run in programs.items():
                for key, time in run().items():
                    found[name].setdefault(key, []).append(time)
    print(f"{'operation':12} {'bytes':>8}", *(f"{name + ', us':>11}" for name in programs), "  ratios")
    for key in sorted(found["bench"]):
        middle = {name: statistics.median(times[key]) for name, times in found.items()}
        ratios = [f"{middle['bench'] / middle[name]:.2f} of {name}" for name in programs if name != "bench"]
        print(f"{key[0]:12} {key[1]:8}", *(f"{time:11.2f}" for time in middle.values()), " ", ", ".join(ratios))


if __name__ == "__main__":
    main()
