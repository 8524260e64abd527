"""Puts what launch/package has built into a wheel, an archive and a Debian package.

The same files give the same bytes: times are those of the last commit.

    launch/assemble.py --stage DIR --output DIR
"""

import argparse
import base64
import gzip
import hashlib
import io
import lzma
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILDS = ("alone", "openmpi", "mpich")
BYTES_MAX = 25_000_000
SUMMARY = "Move model weights between parallel layouts, one MPI process per device"
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}


def cargo(key):
    """A key of the package in Cargo.toml."""
    return re.search(rf'^{key} = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]


def commit_time():
    """When the sources were last changed, in seconds: what every file is dated."""
    if told := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(told)
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"], capture_output=True, text=True
    )
    return int(asked.stdout.strip() or 315532800)


def processor(program):
    """What a program is for, as its head says."""
    head = program[:20]
    names = {62: "x86_64", 183: "aarch64"}
    return names[int.from_bytes(head[18:20], "little")]


def glibc(programs):
    """The oldest C library that has all the programs want, as (2, 17)."""
    wanted = set()
    for program in programs:
        found = re.findall(rb"GLIBC_(\d+)\.(\d+)(?:\.\d+)?\0", program)
        wanted.update((int(major), int(minor)) for major, minor in found)
    return max(wanted, default=(2, 17))


def installed(stage):
    """What is installed below a prefix: path, bytes, whether it can be run."""
    files = [("bin/shardloom", (stage / "start").read_bytes(), True)]
    for build in BUILDS:
        files.append((f"lib/shardloom/{build}/shardloom", (stage / build / "shardloom").read_bytes(), True))
    stub = (stage / "libmpich/libmpi.so.12").read_bytes()
    files.append(("lib/shardloom/libmpich/libmpi.so.12", stub, False))
    completions = {
        "bash": "share/bash-completion/completions/shardloom",
        "zsh": "share/zsh/site-functions/_shardloom",
        "fish": "share/fish/vendor_completions.d/shardloom.fish",
    }
    for shell, path in completions.items():
        files.append((path, (stage / "completions" / shell).read_bytes(), False))
    for page in sorted((stage / "man").glob("*.1")):
        files.append((f"share/man/man1/{page.name}.gz", gzip.compress(page.read_bytes(), mtime=0), False))
    return files


def documents():
    """What a reader finds beside the program."""
    names = ["README.md", "CHANGELOG.md", "LICENSE"]
    return [(name, (ROOT / name).read_bytes()) for name in names]


def tarred(files, when):
    """A tar archive of (path, bytes, whether it can be run), with directories of their own."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        folders = set()
        for path, content, runs in files:
            parts = Path(path).parents
            for folder in reversed([str(part) for part in parts if str(part) != "."]):
                if folder not in folders:
                    folders.add(folder)
                    entry = tarfile.TarInfo(f"{folder}/")
                    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, when
                    archive.addfile(entry)
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), 0o755 if runs else 0o644, when
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def archive(output, version, machine, files, when):
    name = f"shardloom-{version}-linux-{machine}"
    inside = [(f"{name}/{path}", content, runs) for path, content, runs in files]
    inside += [(f"{name}/{path}", content, False) for path, content in documents()]
    path = output / f"{name}.tar.gz"
    path.write_bytes(gzip.compress(tarred(inside, when), mtime=when))
    return path


def debian(output, version, machine, files, when, needs):
    architecture = DEBIAN[machine]
    inside = [(f"./usr/{path}", content, runs) for path, content, runs in files]
    for name, content in documents():
        name = {"LICENSE": "copyright", "CHANGELOG.md": "changelog.gz"}.get(name, name)
        content = gzip.compress(content, mtime=0) if name.endswith(".gz") else content
        inside.append((f"./usr/share/doc/shardloom/{name}", content, False))
    kib = sum((len(content) + 1023) // 1024 for _, content, _ in inside)
    control = f"""Package: shardloom
Version: {version}
Architecture: {architecture}
Maintainer: shardloom <shardloom@localhost>
Installed-Size: {kib}
Depends: libc6 (>= {needs[0]}.{needs[1]})
Suggests: openmpi-bin | mpich
Section: science
Priority: optional
Description: move model weights between parallel layouts
 From any number of ranks to any other, to full weights and back, by one
 process or by many of an MPI program. It runs with Open MPI, with MPICH and
 its kin, and without any.
"""
    sums = "".join(f"{hashlib.md5(content).hexdigest()}  {path[2:]}\n" for path, content, _ in inside)
    about = [("./control", control.encode(), False), ("./md5sums", sums.encode(), False)]
    members = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", lzma.compress(tarred(about, when))),
        ("data.tar.xz", lzma.compress(tarred(inside, when))),
    ]
    made = b"!<arch>\n"
    for name, content in members:
        made += f"{name:<16}{when:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        made += content + b"\n" * (len(content) % 2)
    path = output / f"shardloom_{version}_{architecture}.deb"
    path.write_bytes(made)
    return path


def wheel(output, version, machine, files, when, needs):
    tag = f"py3-none-manylinux_{needs[0]}_{needs[1]}_{machine}"
    about, data = f"shardloom-{version}.dist-info", f"shardloom-{version}.data"
    metadata = f"""Metadata-Version: 2.1
Name: shardloom
Version: {version}
Summary: {SUMMARY}
License: Apache-2.0
Requires-Python: >=3.9
Provides-Extra: numpy
Requires-Dist: numpy; extra == 'numpy'
Description-Content-Type: text/markdown

{(ROOT / "README.md").read_text()}"""
    tags = f"Wheel-Version: 1.0\nGenerator: shardloom\nRoot-Is-Purelib: false\nTag: {tag}\n"
    inside = []
    for path, content, runs in files:
        place = path.replace("bin/", "scripts/", 1) if path.startswith("bin/") else f"data/{path}"
        inside.append((f"{data}/{place}", content, runs))
    module = ROOT / "python/shardloom"
    for path in sorted(module.glob("*")):
        if path.suffix == ".py" or path.name == "py.typed":
            inside.append((f"shardloom/{path.name}", path.read_bytes(), False))
    inside.append((f"{about}/METADATA", metadata.encode(), False))
    inside.append((f"{about}/WHEEL", tags.encode(), False))
    inside.append((f"{about}/licenses/LICENSE", (ROOT / "LICENSE").read_bytes(), False))
    record = f"{about}/RECORD"
    lines = []
    for path, content, _ in inside:
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}\n")
    inside.append((record, ("".join(lines) + f"{record},,\n").encode(), False))
    path = output / f"shardloom-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, content, runs in inside:
            entry = zipfile.ZipInfo(name, time.gmtime(when)[:6])
            entry.external_attr = (0o100755 if runs else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(entry, content)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    files = installed(asked.stage)
    programs = [content for _, content, runs in files if runs]
    together = sum(map(len, programs))
    if together > BYTES_MAX:
        print(f"launch/package: {together} bytes of programs, more than {BYTES_MAX}", file=sys.stderr)
    version, when = cargo("version"), commit_time()
    machine, needs = processor(programs[0]), glibc(programs)
    made = [
        wheel(asked.output, version, machine, files, when, needs),
        archive(asked.output, version, machine, files, when),
        debian(asked.output, version, machine, files, when, needs),
    ]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
    (asked.output / "SHA256SUMS").write_text("".join(lines))
    print(f"programs: {together} bytes together, for glibc {needs[0]}.{needs[1]} and newer")
    for path, line in zip(made, lines):
        print(f"{path.stat().st_size:>10} bytes  {line}", end="")


main()
