"""Moves model weights between parallel layouts, and reads them from any layout.

    >>> import shardloom
    >>> shardloom.reshard("ckpt", "ckpt-4", src_strategy="old.ckpt", dst_strategy="dp=2,tp=2")
    >>> with shardloom.open("ckpt", strategy="old.ckpt") as weights:
    ...     rows = weights["model.embedding"][:128]

A job runs the ``shardloom`` program and gives its result as a dictionary; what goes wrong is a
:class:`ShardloomError` with the program's ``kind``. Jobs are those of the command line, and a flag
is a keyword: ``--file-suffix latest`` is ``file_suffix="latest"``, ``--overwrite`` is
``overwrite=True``, and a flag that may be repeated takes a list.
"""

from ._errors import ShardloomError
from ._jobs import diff, latest, reshard, run, split, unify, verify
from ._read import Tensor, Weights, open

__all__ = [
    "ShardloomError",
    "Tensor",
    "Weights",
    "diff",
    "latest",
    "open",
    "reshard",
    "run",
    "split",
    "unify",
    "verify",
]
