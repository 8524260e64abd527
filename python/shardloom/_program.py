"""Finds the program and runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ._errors import ShardloomError

# What launchers tell the processes that they start; a program started from one of these is none of them.
_LAUNCHERS = (
    "OMPI_",
    "PMIX_",
    "PMI_",
    "PRTE_",
    "HYDI_",
    "HYDRA_",
    "MPI_LOCAL",
    "MV2_COMM_",
    "PALS_",
    "FLUX_",
    "SLURM_STEP",
    "SLURM_PROCID",
)


def program() -> str:
    """The program: ``$SHARDLOOM_PROGRAM``, that of this package, or the one on PATH."""
    told = os.environ.get("SHARDLOOM_PROGRAM")
    if told:
        return told
    try:
        files = metadata.files("shardloom") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == ("bin", "shardloom"):
            place = Path(str(file.locate()))
            if place.exists():
                return str(place)
    beside = Path(sysconfig.get_path("scripts")) / "shardloom"
    if beside.exists():
        return str(beside)
    found = shutil.which("shardloom")
    if found is None:
        raise ShardloomError(
            "not_found",
            "the program isn't there",
            hint="install the package again, or let SHARDLOOM_PROGRAM name the program",
        )
    return found


def flags(options: Mapping[str, Any]) -> List[str]:
    """Keywords as the command line has them."""
    words: List[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, (list, tuple)):
            for one in value:
                words.append(f"{flag}={os.fspath(one) if isinstance(one, os.PathLike) else one}")
        else:
            # In one word: a value may begin with a hyphen.
            text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
            words.append(f"{flag}={text}")
    return words


def environment() -> Dict[str, str]:
    """This process's environment without what its launcher has set."""

    return {name: value for name, value in os.environ.items() if not name.startswith(_LAUNCHERS)}


def call(arguments: Sequence[str], launcher: Sequence[str] = (), verbose: bool = False) -> Dict[str, Any]:
    """Runs the program and gives its result.

    Args:
        arguments: the command and its flags.
        launcher: ``mpirun -n 4``, for instance; nothing runs one process.
        verbose: let the program's messages and progress through to stderr.

    Raises:
        ShardloomError: what the program says; of kind ``killed`` if it was.
    """
    words = [*launcher, program(), *arguments, "--json"]
    if not launcher:
        words += ["--alone", "--mpi=none"]
    if not verbose:
        words.append("--quiet")
    errors = None if verbose else subprocess.PIPE
    variables = None if launcher else environment()
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=variables
        )
    except OSError as error:
        raise ShardloomError("not_found", f"{words[0]}: {error.strerror}") from error
    said = (done.stderr or b"").decode(errors="replace").strip()
    result = _object(done.stdout)
    if result is not None and "error" not in result:
        return result
    if result is not None:
        raise ShardloomError(**{k: v for k, v in result["error"].items() if k in _KNOWN})
    lines = said.splitlines()
    errors_said = [line[len("error: ") :] for line in lines if line.startswith("error: ")]
    if done.returncode == 2:
        raise ShardloomError("usage", errors_said[0] if errors_said else "wrong usage")
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    kind = "killed" if done.returncode < 0 else "failed"
    last = (errors_said or lines or ["it said nothing"])[-1]
    raise ShardloomError(kind, f"the program ended with {how}: {last}")


_KNOWN = ("kind", "message", "hint", "file", "tensor", "rank", "process", "node")


def _object(text: bytes) -> Optional[Dict[str, Any]]:
    """The result, among what a launcher may have printed."""
    for line in reversed(text.decode(errors="replace").splitlines() or [""]):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            return found if isinstance(found, dict) else None
    return None


def main() -> int:
    """Becomes the program."""
    os.execv(program(), ["shardloom", *sys.argv[1:]])
