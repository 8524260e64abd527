#!/usr/bin/env python3
"""Whether a slow host or path is named, and whether `simulate` says how long a reshard takes.

    bench/links.py [--times 20] [--rate 400mbit] [--program target/release/shardloom]

Three hosts in network namespaces (tests/support/hosts.sh), two processes each, their links held at a rate by tc.
So often: all alike (nothing may be named), one host at 0.4 of the rate (it alone must be named), one path at 0.4 (that
path alone). Then a reshard between the hosts' own disks, three times, beside what `simulate` says with the machine
file that `bench collectives` gave. Needs Open MPI, and namespaces.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARE = 0.4


def run(room, program, arguments, **environment):
    command = ["bash", ROOT / "tests/support/hosts.sh", "run", room, "2", program, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--rate", default="400mbit")
    parser.add_argument("--program", default=str(ROOT / "target/release/shardloom"))
    args = parser.parse_args()
    number, unit = re.fullmatch(r"(\d+)(\w+)", args.rate).groups()
    slow = f"{int(SHARE * int(number))}{unit}"
    alike = f"{args.rate} {args.rate} {args.rate}"
    cases = [
        ("all alike", {"HOSTS_RATES": alike}, r"$"),
        ("slow host", {"HOSTS_RATES": f"{args.rate} {slow} {args.rate}"}, r"node2 sends .*its link$"),
        ("slow path", {"HOSTS_RATES": alike, "HOSTS_PATH": f"1 3 {slow}"}, r"node1 to node3 .*that path$"),
    ]
    bench = ["bench", "collectives", "--json", "--pairs", "--operation", "barrier", "--max-size", "1MiB", "--time", "200ms"]
    with tempfile.TemporaryDirectory() as room:
        subprocess.run(["bash", ROOT / "tests/support/hosts.sh", "probe", room], check=True)
        for name, environment, expected in cases:
            right, others = 0, []
            for _ in range(args.times):
                told = run(room, args.program, bench, **environment)["pairs"]["outliers"]
                if re.match(expected, "; ".join(told)):
                    right += 1
                else:
                    others.append(told)
            print(f"{name}: {right} of {args.times}", *others, sep="\n    ", flush=True)
        predict(room, args.program, alike)


def predict(room, program, rates):
    """Six ranks cut by rows to six cut by columns, each host with the ranks of its processes, and its prediction."""
    room = Path(room)
    names = [f"layers.{number}.weight" for number in range(12)]
    rows, columns = 3072, 1536
    bytes_each = rows * columns * 4
    header = {
        name: {"dtype": "F32", "shape": [rows, columns], "data_offsets": [n * bytes_each, (n + 1) * bytes_each]}
        for n, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (room / "full").mkdir()
    with open(room / "full/model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in names:
            file.write(os.urandom(bytes_each))

    def alone(*arguments):
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{arguments}: {done.stderr[-2000:]}")
        return done.stdout

    for name, rule in [("rows", "*=tp,-"), ("columns", "*=-,tp")]:
        alone("strategy", "new", "--mesh", "tp=6", "--rule", rule, "--weights", room / "full", "--output", room / f"{name}.ckpt")
    alone("split", "--src", room / "full", "--dst", room / "cut", "--dst-strategy", room / "rows.ckpt")
    for host in 1, 2, 3:
        for rank in 2 * host - 2, 2 * host - 1:
            (room / f"disk{host}/src").mkdir(exist_ok=True)
            (room / f"cut/rank_{rank}").rename(room / f"disk{host}/src/rank_{rank}")
    found = run(room, program, ["bench", "all", "--json", "--budget", "90s", "--dir", room / "local"], HOSTS_RATES=rates)
    (room / "machine.json").write_text(json.dumps(found))
    strategies = ["--src-strategy", room / "rows.ckpt", "--dst-strategy", room / "columns.ckpt"]
    plan = ["--shapes", room / "full", "--processes", 6, "--ranks-per-node", 2, "--machine", room / "machine.json", "--json"]
    simulated = json.loads(alone("simulate", *strategies, *plan))
    expected = simulated["plan"]["seconds_estimated"]
    job = ["reshard", "--src", room / "local/src", "--dst", room / "local/dst", *strategies, "--overwrite", "--json"]
    job += ["--sync", "none", "--verify", "none"]
    taken = []
    for _ in range(3):
        seconds = run(room, program, list(map(str, job)), HOSTS_RATES=rates)["seconds"]
        taken.append(seconds["total"] - seconds["discover"] - seconds["plan"])
    middle = statistics.median(taken)
    print(f"reshard: {middle:.2f} s ({min(taken):.2f} to {max(taken):.2f}), simulated {expected:.2f} s: {expected / middle:.2f}")


if __name__ == "__main__":
    main()
