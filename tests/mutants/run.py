"""Tries mutants of the program, those of cargo-mutants, with the tests: one build has all of them, each behind a switch, and a mutant is tried with those tests alone that come past it, the quickest first.

    launch/mutants [--files GLOB ...] [--sample N] [--spend SECONDS] [--workers N]

What was found stays in target/mutants and is gone on with, as long as the sources are the same: list.json, met-*.json (which test meets which mutant), tried.json and survivors.txt.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PLACE = ROOT / "target" / "mutants"
TREE, BUILD = PLACE / "tree", PLACE / "build"
# What decides which bytes go where, and tells that they are the same.
FILES = ["src/plan/**", "src/layout/**", "src/source/**", "src/destination/**"] + [f"src/tensor/{name}.rs" for name in ("digest", "fold", "residue", "region", "strided", "window")]
# The longest that a test may take to be tried with every mutant that it meets, in seconds.
LONG = 60


def run(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, text=True, **more)


def written(path, value):
    path.with_suffix(".new").write_text(json.dumps(value))
    path.with_suffix(".new").replace(path)


def put(files):
    """The tree with all mutants behind switches that can be built: their list, and the numbers of those."""
    head = run("git", "-C", ROOT, "rev-parse", "HEAD", capture_output=True).stdout.strip()
    wanted = {"commit": head, "files": files}
    made = PLACE / "made.json"
    if made.exists() and json.loads(made.read_text())["of"] == wanted:
        return json.loads((PLACE / "list.json").read_text()), json.loads(made.read_text())["numbers"]
    shutil.rmtree(TREE, ignore_errors=True)
    for old in [made, *PLACE.glob("met-*.json"), PLACE / "tried.json"]:
        old.unlink(missing_ok=True)
    PLACE.mkdir(parents=True, exist_ok=True)
    run("git", "clone", "--quiet", ROOT, TREE)
    globs = [part for name in files for part in ("--file", name)]
    listed = run("cargo", "mutants", "--list", "--json", *globs, cwd=TREE, stdout=subprocess.PIPE).stdout
    (PLACE / "list.json").write_text(listed)
    switches = ["cargo", "build", "--quiet", "--release", "--manifest-path", ROOT / "tests/mutants/Cargo.toml", "--target-dir", PLACE / "switches"]
    run(*switches)
    left_out, failed = set(), True
    while failed:
        run("git", "-C", TREE, "checkout", "--quiet", ".")
        (PLACE / "left_out").write_text(" ".join(map(str, sorted(left_out))))
        lines = run(PLACE / "switches/release/switches", TREE, PLACE / "list.json", PLACE / "left_out", stdout=subprocess.PIPE).stdout
        there = [json.loads(line) for line in lines.splitlines()]
        shutil.copy(ROOT / "tests/mutants/mutant.rs", TREE / "src/mutant.rs")
        library, manifest = TREE / "src/lib.rs", TREE / "Cargo.toml"
        library.write_text(library.read_text().replace("\npub mod ", "\npub mod mutant;\npub mod ", 1))
        manifest.write_text(manifest.read_text().split("[lints.rust]")[0])
        failed = not_built(there)
        print(f"{len({put['number'] for put in there})} mutants, {len(failed)} of them can't be built", flush=True)
        left_out |= failed
    numbers = sorted({put["number"] for put in there})
    written(made, {"of": wanted, "numbers": numbers})
    return json.loads(listed), numbers


def not_built(there):
    """The numbers of mutants that the compiler refuses."""
    check = ["cargo", "check", "--quiet", "--lib", "--message-format", "json"]
    lines = subprocess.run(check, cwd=TREE, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    pieces = collections.defaultdict(list)
    for put in there:
        start, end = put["at"]["start"], put["at"]["end"]
        pieces[put["file"]].append(((start["line"], start["column"]), (end["line"], end["column"]), put["number"]))
    refused = set()
    for line in lines.splitlines():
        message = json.loads(line).get("message", {})
        if message.get("level") != "error":
            continue
        for span in message["spans"]:
            at = (span["line_start"], span["column_start"])
            inside = [(start, number) for start, end, number in pieces[span["file_name"]] if start <= at < end]
            if inside:
                refused.add(max(inside)[1])
        if not refused:
            sys.exit(f"the tree can't be built, and no mutant is why:\n{message['rendered']}")
    return refused


def environment(**more):
    build = BUILD / "debug"
    return dict(os.environ, CARGO_TARGET_DIR=str(BUILD), PATH=f"{build}:{os.environ['PATH']}", **more)


def programs():
    """The tests' programs: of the library, and of the whole program."""
    build = ["cargo", "test", "--quiet", "--no-run", "--lib", "--bins", "--examples", "--test", "all", "--message-format", "json"]
    lines = run(*build, cwd=TREE, env=environment(), stdout=subprocess.PIPE).stdout
    made = [json.loads(line) for line in lines.splitlines()]
    made = [one for one in made if one.get("executable") and one["profile"]["test"]]
    kinds = {one["target"]["kind"][0]: one["executable"] for one in made if one["target"]["name"] in ("shardloom", "all")}
    return {"library": kinds["lib"], "program": kinds["test"]}


def met(kind, program, numbers, workers):
    """For each mutant the tests that meet it: seconds and name."""
    kept = PLACE / f"met-{kind}.json"
    if not kept.exists():
        listed = run(program, "--list", stdout=subprocess.PIPE).stdout.splitlines()
        names = [line.removesuffix(": test") for line in listed if line.endswith(": test")]
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            of = pool.map(lambda name: meets(program, name, max(numbers) + 1), names)
            written(kept, [found for found in of if found])
    tests = collections.defaultdict(list)
    for seconds, name, mutants in json.loads(kept.read_text()):
        for mutant in mutants:
            tests[mutant].append((seconds, name))
    return tests


def meets(program, name, mutants):
    """Seconds, name and mutants of a test that is right without a mutant and not too long."""
    file = PLACE / ("met-" + name.replace(":", "_"))
    file.write_bytes(bytes(mutants))
    begun = time.monotonic()
    try:
        done = attempt(program, [name], LONG, SHARDLOOM_MUTANTS_MET=str(file))
        seconds, marks = time.monotonic() - begun, file.read_bytes()
    finally:
        file.unlink()
    return None if done else [round(seconds, 2), name, [number for number, mark in enumerate(marks) if mark]]


def attempt(program, names, seconds, **more):
    """What shows that a test fails, or nothing."""
    command = [program, "--exact", "--test-threads", "1", *names]
    tests = subprocess.Popen(command, cwd=TREE, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    late = threading.Event()

    def end():
        try:
            os.killpg(tests.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    timer = threading.Timer(seconds, lambda: (late.set(), end()))
    timer.start()
    failed = next((line.split()[1] for line in tests.stdout if line.startswith("test ") and "FAILED" in line), None)
    if failed:
        end()
    code = tests.wait()
    timer.cancel()
    end()
    return "takes too long" if late.is_set() else failed or (f"ends with {code}" if code else None)


def tried(number, programs, tests, spend, file):
    """What catches a mutant of `file`, and how many of the tests that meet it were tried: those called as the file first, then the quickest."""
    count, word = 0, pathlib.Path(file).stem.split("_")[0]
    for kind in ("library", "program"):
        spent, names = 0, []
        for seconds, name in sorted(tests[kind].get(number, []), key=lambda test: (word not in test[1], test)):
            spent += seconds
            if spent > spend:
                break
            names.append(name)
        count += len(names)
        caught = attempt(programs[kind], names, 60 + 3 * spend, SHARDLOOM_MUTANT=str(number)) if names else None
        if caught:
            return caught, count
    return None, count


def main():
    parse = argparse.ArgumentParser(prog="launch/mutants", description=__doc__.split("\n")[0])
    parse.add_argument("--files", nargs="+", default=FILES, metavar="GLOB", help="sources to change (default: plan, layout, source, destination and digests)")
    parse.add_argument("--sample", type=int, metavar="N", help="try N of the mutants, chosen by chance but always the same (default: all)")
    parse.add_argument("--spend", type=float, default=60, metavar="SECONDS", help="tests of so many seconds are tried with a mutant (default: 60)")
    parse.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="tests that run at a time (default: one a core)")
    given = parse.parse_args()
    listed, numbers = put(given.files)
    made = programs()
    tests = {kind: met(kind, program, numbers, given.workers) for kind, program in made.items()}
    chosen = random.Random(7).sample(numbers, len(numbers))[: given.sample]
    kept = PLACE / "tried.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    lock = threading.Lock()

    def one(number):
        meeting = sum(len(tests[kind].get(number, [])) for kind in made)
        caught, count = tried(number, made, tests, given.spend, listed[number]["file"])
        with lock:
            results[str(number)] = [caught, count, meeting]
            written(kept, results)

    left = [number for number in chosen if str(number) not in results]
    with concurrent.futures.ThreadPoolExecutor(given.workers) as pool:
        list(pool.map(one, left))
    survivors = [number for number in chosen if not results[str(number)][0]]
    lines = ["{} ({} of {} tests that meet it)".format(listed[number]["name"], *results[str(number)][1:]) for number in sorted(survivors)]
    (PLACE / "survivors.txt").write_text("".join(line + "\n" for line in lines))
    caught = len(chosen) - len(survivors)
    print(f"{len(listed)} mutants, {len(numbers)} can be built, {len(chosen)} tried: {caught} caught ({100 * caught / max(1, len(chosen)):.1f} %); the others: {PLACE / 'survivors.txt'}")


if __name__ == "__main__":
    main()
