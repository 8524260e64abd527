"""The jobs: thin around the commands of the same names."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Dict, List, Optional, Union

from ._errors import ShardloomError
from ._program import call, flags

Path = Union[str, "os.PathLike[str]"]
Result = Dict[str, Any]

# How long a process that waits for another's job sleeps at a time, in seconds.
_PAUSE = 0.01


def run(
    command: str,
    *arguments: Path,
    comm: Any = None,
    processes: Optional[int] = None,
    mpirun: Union[str, List[str]] = "mpirun",
    verbose: bool = False,
    **options: Any,
) -> Result:
    """Runs any command of the program that has a JSON result.

    Args:
        command: its name: ``"reshard"``, ``"checkpoints list"``.
        arguments: what it takes without a flag.
        comm: in a program that runs under MPI, an mpi4py communicator whose processes all call this:
            its first process does the job, the others wait for the result. What the job reads and
            writes is what that process can see.
        processes: start so many processes by ``mpirun`` in place of one.
        mpirun: the launcher, or a list of it and its arguments.
        verbose: let messages and progress through to stderr.
        options: flags, with underscores for hyphens.

    Returns:
        The result as the command's ``--json`` has it.

    Raises:
        ShardloomError: on every process of ``comm``.
    """
    words = [*command.split(), *(os.fspath(argument) for argument in arguments), *flags(options)]
    launcher: List[str] = []
    if processes is not None:
        launcher = [mpirun] if isinstance(mpirun, str) else list(mpirun)
        launcher += ["-n", str(processes)]
    if comm is None:
        _refuse_unjoined()
        return call(words, launcher, verbose)
    if processes is not None:
        raise ShardloomError("usage", "processes and comm exclude each other")
    return _by_first(comm, words, verbose)


def _refuse_unjoined() -> None:
    """Several processes that each did the whole job would do it at one place."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return
    if mpi.COMM_WORLD.Get_size() > 1:
        raise ShardloomError(
            "usage",
            f"this is one of {mpi.COMM_WORLD.Get_size()} MPI processes, and comm isn't given",
            hint="comm=MPI.COMM_WORLD where all of them call it, comm=MPI.COMM_SELF where only this one does",
        )


def _by_first(comm: Any, words: List[str], verbose: bool) -> Result:
    result: Any = None
    if comm.Get_rank() == 0:
        try:
            result = call(words, (), verbose)
        except ShardloomError as error:
            result = error
        except BaseException as error:
            result = ShardloomError("failed", f"{type(error).__name__}: {error}")
    # A process that waits inside MPI would take a core away from the one that works.
    done = comm.Ibarrier()
    while not done.Test():
        time.sleep(_PAUSE)
    result = comm.bcast(result, root=0)
    if isinstance(result, ShardloomError):
        raise result
    return dict(result)


def reshard(src: Path, dst: Optional[Path] = None, *, dst_strategy: Path, src_strategy: Optional[Path] = None, **options: Any) -> Result:
    """Rank directories of one layout to those of another.

    Args:
        src: rank directories, a full directory, or one file.
        dst: where the new rank directories are written; left out with ``in_place=True``.
        src_strategy, dst_strategy: strategy files or directories, or layouts as ``"dp=2,tp=4"``;
            without ``src_strategy`` the source is full weights, or tells its layout itself.
        options: other flags of ``shardloom reshard``, and what :func:`run` takes.
    """
    return run("reshard", src=src, dst=dst, src_strategy=src_strategy, dst_strategy=dst_strategy, **options)


def unify(src: Path, dst: Path, *, src_strategy: Optional[Path] = None, **options: Any) -> Result:
    """Full weights out of rank directories; ``options`` as of ``shardloom unify`` and :func:`run`."""
    return run("unify", src=src, dst=dst, src_strategy=src_strategy, **options)


def split(src: Path, dst: Path, *, dst_strategy: Path, **options: Any) -> Result:
    """Full weights cut for a layout; ``options`` as of ``shardloom split`` and :func:`run`."""
    return run("split", src=src, dst=dst, dst_strategy=dst_strategy, **options)


def diff(a: Path, b: Path, *, a_strategy: Optional[Path] = None, b_strategy: Optional[Path] = None, **options: Any) -> Result:
    """Compares two checkpoints tensor by tensor, whatever their layouts.

    Returns:
        The result; ``result["equal"]`` says whether they are equal, and ``result["tensors"]`` has a row a tensor.
    """
    return run("diff", a, b, a_strategy=a_strategy, b_strategy=b_strategy, **options)


def verify(directory: Path, *, against: Optional[Path] = None, **options: Any) -> Result:
    """Compares files with what was written down of them when they were written.

    Returns:
        The result; ``result["bad"]`` lists what is damaged, and is empty where nothing is.
    """
    return run("verify", directory, against=against, **options)


def latest(directory: Path, **options: Any) -> Result:
    """The checkpoint of a training job that can be resumed: the newest one that all ranks have.

    Returns:
        The result, with ``step``, ``epoch``, ``suffix`` (for ``file_suffix``) and ``files``.
    """
    return run("checkpoints latest", directory, **options)
