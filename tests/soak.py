"""Everything at the same time, for long: a training saves and rotates, what it has saved is resharded over hosts and on this one, verified, gathered and read, while processes stop now and then, the network is slow and there is less memory than data.

    launch/test --soak                      30 minutes
    python3 tests/soak.py --seconds 300     so long, of programs that are built

Nothing may be lost, nothing wrong be read, and the training may not grow. Needs root: control groups, namespaces.
"""

import argparse
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEBIBYTE = 1 << 20
# Tensors of the model, each of so many rows of 1024 bytes.
TENSORS, ROWS = 48, 2048
# What may keep a job from what it is to read: the training has removed it, or another job has put a new one in its place.
PASSING = ("doesn't exist", "changed", "was removed while it was read", "can't open: No such file", "can't look at: No such file", "no rank has a weight file", "another run is writing here", "is gone")


class Group:
    """A control group that limits the memory of all that is started in it."""

    def __init__(self, limit):
        lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
        fields = [line.split(":", 2) for line in lines]
        old = [path for _, names, path in fields if names == "memory"]
        if old:
            self.path = pathlib.Path("/sys/fs/cgroup/memory" + old[0]) / f"soak-{os.getpid()}"
            self.limit, self.peak, self.failed = "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.failcnt"
        else:
            self.path = pathlib.Path("/sys/fs/cgroup") / f"soak-{os.getpid()}"
            self.limit, self.peak, self.failed = "memory.max", "memory.peak", "memory.events"
        self.path.mkdir()
        (self.path / self.limit).write_text(str(limit))

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def processes(self):
        return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]

    def told(self):
        return {"peak_bytes": int((self.path / self.peak).read_text()), "reclaims": (self.path / self.failed).read_text().strip()}

    def remove(self):
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        time.sleep(1)
        self.path.rmdir()


class Soak:
    def __init__(self, arguments, room):
        self.program, self.trainer = arguments.program, arguments.trainer
        self.room, self.random = room, random.Random(arguments.seed)
        self.end = time.monotonic() + arguments.seconds
        self.group = Group(arguments.memory * MEBIBYTE)
        self.counts, self.bad, self.refusals, self.lock = {}, [], {}, threading.Lock()
        self.mpirun = [os.environ["MPIRUN"], *os.environ.get("MPIRUN_ARGS", "").split()]

    def goes_on(self):
        return time.monotonic() < self.end and not self.bad

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def wrong(self, what):
        with self.lock:
            self.bad.append(what)
        print(f"WRONG: {what}", flush=True)

    def start(self, command, **more):
        return subprocess.Popen(command, preexec_fn=self.group.enter, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)

    def run(self, command, patience=600):
        process = self.start(command)
        try:
            text, _ = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            self.wrong(f"doesn't end in {patience} s: {' '.join(map(str, command))}")
            return None, ""
        return process.returncode, text

    def must(self, *words):
        code, text = self.run([self.program, *map(str, words)])
        if code != 0:
            raise SystemExit(f"{words}: {code}: {text}")
        return text

    def prepare(self):
        header, data = {}, 0
        for number in range(TENSORS):
            header[f"layers.{number}.w"] = {"dtype": "BF16", "shape": [ROWS, 512], "data_offsets": [data, data + ROWS * 1024]}
            data += ROWS * 1024
        text = json.dumps(header).encode()
        (self.room / "full").mkdir()
        with open(self.room / "full/model.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _ in range(TENSORS):
                file.write(self.random.randbytes(ROWS * 1024))
        for name, mesh, rule in [("two", "tp=2", "*=tp,-"), ("six", "dp=2,tp=3", "*=-,-"), ("four", "dp=2,tp=2", "*=-,tp")]:
            self.must("strategy", "new", "--mesh", mesh, "--rule", rule, "--weights", self.room / "full", "--output", self.room / f"{name}.ckpt")
        self.must("split", "--src", self.room / "full", "--dst-strategy", self.room / "two.ckpt", "--dst", self.room / "state")
        for rank in range(2):
            file, = (self.room / f"state/rank_{rank}").glob("*.safetensors")
            file.rename(file.parent / "net.safetensors")

        probe = ["bash", ROOT / "tests/support/hosts.sh", "probe", self.room / "hosts"]
        subprocess.run(probe, check=True, stdout=subprocess.DEVNULL)

    def newest(self):
        code, text = self.run([self.program, "checkpoints", "latest", self.room / "run/checkpoint", "--json"])
        if code != 0:
            return None
        return json.loads(text.splitlines()[-1])["suffix"]

    def is_same(self, directory, strategy=None):
        words = [self.program, "diff", self.room / "full", directory]
        for count in ("epoch_num", "global_step", "loss_scale", "step_num"):
            words += ["--filter-out-param-prefix", count]
        words += ["--b-strategy", strategy] if strategy else []
        code, text = self.run(words)
        if code != 0:
            self.wrong(f"{directory} differs: {text[-800:]}")

    def job(self, what, words, hosts=False, processes=2):
        """Whether a job has done its work; it may be that another has changed what it is to read."""
        if hosts:
            command = ["bash", ROOT / "tests/support/hosts.sh", "run", self.room / "hosts", "1", self.program, *words]
        else:
            command = [*self.mpirun, "-n", str(processes), self.program, *words]
        code, text = self.run(command)
        if code == 0:
            self.count(what)
            return True
        if code is not None and not any(word in text for word in PASSING):
            self.wrong(f"{what}: {code}: {text[-1500:]}")
        why = next((line for line in text.splitlines() if "error" in line), text[-200:])
        self.count(f"{what}: refused")
        self.refusals.setdefault(what, []).append(why[:400])
        return False

    def source(self):
        suffix = self.newest()
        return suffix and ["--src", self.room / "run/checkpoint", "--src-strategy", self.room / "two.ckpt", "--file-suffix", suffix]

    def over_hosts(self):
        while self.goes_on():
            place = self.room / "over-hosts"
            source = self.source()
            if source and self.job("reshard over three hosts", ["reshard", *source, "--dst-strategy", self.room / "six.ckpt", "--dst", place, "--overwrite"], hosts=True):
                self.is_same(place, self.room / "six.ckpt")

    def on_this_one(self):
        place = self.room / "here"
        while self.goes_on():
            source = self.source()
            if not source:
                continue
            if self.job("reshard", ["reshard", *source, "--dst-strategy", self.room / "four.ckpt", "--dst", place, "--overwrite"]):
                if self.job("verify", ["verify", place]):
                    self.is_same(place, self.room / "four.ckpt")
                for to in itertools.cycle(["two", "four"]):
                    if not self.goes_on() or not self.job("reshard in place", ["reshard", "--in-place", "--src", place, "--dst-strategy", self.room / f"{to}.ckpt"]):
                        break
                    self.is_same(place, self.room / f"{to}.ckpt")
                    if self.random.random() < 0.5:
                        break

    def gather(self):
        place = self.room / "whole"
        while self.goes_on():
            # What others are writing is read as well.
            source = self.random.choice([self.source(), ["--src", self.room / "over-hosts", "--src-strategy", self.room / "six.ckpt"]])
            if source and self.job("unify", ["unify", *source, "--dst", place, "--overwrite"]):
                self.is_same(place)
            else:
                time.sleep(1)

    def disturb(self):
        while self.goes_on():
            time.sleep(self.random.uniform(2, 6))
            names = {self.program.name, self.trainer.name}
            found = []
            for process in self.group.processes():
                try:
                    if os.path.basename(os.readlink(f"/proc/{process}/exe")) in names:
                        found.append(process)
                except OSError:
                    pass
            if not found:
                continue
            process = self.random.choice(found)
            try:
                os.kill(process, signal.SIGSTOP)
                time.sleep(self.random.uniform(0.2, 3))
                os.kill(process, signal.SIGCONT)
                self.count("a process stood still")
            except ProcessLookupError:
                pass

    def train(self):
        config = "{prefix: net, save_checkpoint_steps: 1, keep_checkpoint_max: 4, async_save: True, remove_redundancy: False}"
        command = [*self.mpirun, "-n", "2", self.trainer, self.room / "run", self.room / "state", self.room / "two.ckpt", config, "1", "100000000", "pause=1500"]
        return self.start(command)

    def sample(self, samples):
        """Memory and descriptors of the training's processes, each by itself."""
        for process in self.group.processes():
            try:
                if os.path.basename(os.readlink(f"/proc/{process}/exe")) != self.trainer.name:
                    continue
                status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines())
                memory = int(status["RssAnon"].split()[0]) * 1024
                samples.setdefault(process, []).append((memory, len(os.listdir(f"/proc/{process}/fd"))))
            except (OSError, KeyError):
                pass

    def grown(self, samples):
        for process, found in samples.items():
            fourth = max(1, len(found) // 4)
            for what, index, room in [("memory", 0, 8 * MEBIBYTE), ("descriptors", 1, 2)]:
                early = max(value[index] for value in found[fourth : 2 * fourth] or found)
                late = statistics.median(value[index] for value in found[-fourth:])
                print(f"process {process}: {what} at most {early} in the second quarter, median {late:.0f} in the last")
                if late > early + room:
                    self.wrong(f"{what} of the training has grown from {early} to {late}")

    def whole(self):
        self.prepare()
        training, samples = self.train(), {}
        work = [self.over_hosts, self.on_this_one, self.gather, self.disturb]
        threads = [threading.Thread(target=self.guarded, args=(act,)) for act in work]
        for thread in threads:
            thread.start()
        while self.goes_on():
            time.sleep(2)
            self.sample(samples)
            if training.poll() is not None:
                self.wrong(f"the training has ended: {training.communicate()[0][-1500:]}")
        for thread in threads:
            thread.join()
        kept = self.newest()
        for process in self.group.processes():
            os.kill(process, signal.SIGTERM)
        training.wait()
        self.grown(samples)
        if kept is None:
            self.wrong("the training has left nothing that is complete")
        if (self.room / "over-hosts").exists():
            self.is_same(self.room / "over-hosts", self.room / "six.ckpt")
        steps = len({path.name for path in (self.room / "run/checkpoint/rank_0").glob("*.safetensors")})
        data = sum(path.stat().st_size for path in self.room.rglob("*.safetensors"))
        print(json.dumps({"counts": self.counts, "newest": kept, "checkpoints_kept": steps, "data_bytes": data, "memory": self.group.told(), "bad": self.bad, "refusals": {what: said[-2:] for what, said in self.refusals.items()}}, indent=1))

    def guarded(self, act):
        try:
            act()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run has failed
            self.wrong(f"{act.__name__}: {error!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--memory", type=int, default=640, help="mebibytes for all processes and what they cache together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/shardloom")
    parser.add_argument("--trainer", type=pathlib.Path, default=ROOT / "target/release/examples/monitor_check")
    parser.add_argument("--rates", default="400mbit 400mbit 200mbit", help="of the three hosts' network")
    arguments = parser.parse_args()
    os.environ["HOSTS_RATES"] = arguments.rates
    room = pathlib.Path(tempfile.mkdtemp(prefix="soak"))
    soak = Soak(arguments, room)
    try:
        soak.whole()
    finally:
        soak.group.remove()
        shutil.rmtree(room, ignore_errors=True)
    sys.exit(1 if soak.bad else 0)


if __name__ == "__main__":
    main()
