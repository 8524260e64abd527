"""Reads any slice of any tensor from any layout, without merging."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from . import _dtypes, _slices
from ._errors import ShardloomError
from ._program import call, flags

Location = Union[str, "os.PathLike[str]"]
# Cells of parameters that are asked for at once; beyond it each tensor's are, when it is read.
_CELLS_MAX = 200_000
Cell = Tuple[int, ...]


class _Shard(NamedTuple):
    """Where the elements of a tensor lie that a rank holds."""

    file: str
    rank: int
    dtype: str
    shape: Tuple[int, ...]
    # Byte ranges of the file that hold them, row after row; none where they lie in another way.
    places: Optional[List[List[int]]]


class _File(NamedTuple):
    """A file as it was when it was opened."""

    bytes: int
    written: int


def open(
    directory: Location,
    strategy: Optional[Location] = None,
    *,
    framework: str = "numpy",
    file_suffix: Optional[str] = None,
    weights: Optional[str] = None,
    model: Optional[Location] = None,
    names: Optional[str] = None,
) -> "Weights":
    """Opens weights in any layout for reading.

    Args:
        directory: rank directories, a directory of full weights, or one file; of any format in which a tensor's
            elements lie row after row: safetensors, MindSpore's ``.ckpt``, PyTorch's ``.pt`` and ``.bin``.
        strategy: how they are cut: a strategy file, a directory of them, or a layout such as
            ``"dp=2,tp=4"``; left out for full weights, and for what shardloom has written,
            which keeps its layout.
        framework: ``"numpy"`` or ``"torch"``: what slices are. numpy has bfloat16 and 8-bit types by ml_dtypes.
        file_suffix: which of several files of each rank directory, as ``"1_20"``; left out, the newest that
            all ranks have.
        weights: which files of a directory of full weights, by name or glob.
        model, names: of a strategy that is given as a layout; see ``shardloom reshard --help``.

    Returns:
        A mapping of names to tensors. Nothing is read before a tensor is sliced.

    Raises:
        ShardloomError: for what can't be understood, or isn't there.
    """
    if framework not in ("numpy", "torch"):
        raise ShardloomError("usage", f"framework is '{framework}': expected 'numpy' or 'torch'")
    asked: Dict[str, Any] = {"file_suffix": file_suffix, "weights": weights, "places": True}
    found = call(["inspect", os.fspath(directory), *flags(asked)])
    if file_suffix is None and len(found.get("steps") or []) > 1:
        asked["file_suffix"] = "latest"
        found = call(["inspect", os.fspath(directory), *flags(asked)])
    layout = None
    if strategy is None and found.get("layout"):
        # What shardloom has written keeps its layout.
        strategy = directory
    if strategy is not None:
        layout = _Layout(strategy, {"model": model, "names": names})
    return Weights(directory, found, layout, framework)


class Tensor:
    """One tensor of a checkpoint; in brackets, any slice of it: ``weights["name"][2:4, ...]``."""

    def __init__(self, weights: "Weights", name: str) -> None:
        self._weights = weights
        self.name = name
        self._pieces = weights._pieces(name)
        #: As safetensors calls it: ``"BF16"``.
        self.dtype: str = self._pieces.one.dtype
        #: Of the whole tensor.
        self.shape: Tuple[int, ...] = self._pieces.shape()

    @property
    def ndim(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<shardloom.Tensor {self.name!r} {self.dtype} {list(self.shape)}>"

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        array = _dtypes.as_numpy(self.dtype, self._read(...))
        return array if dtype is None else array.astype(dtype)

    def __getitem__(self, asked: Any) -> Any:
        """A slice, by whole numbers, slices and ``...`` as numpy has them; only its bytes are read.

        Raises:
            IndexError: for an index outside of the tensor.
            ShardloomError: for a file that has changed, or copies that differ.
        """
        array = self._read(asked)
        if self._weights.framework == "torch":
            return _dtypes.as_torch(self.dtype, array)
        return _dtypes.as_numpy(self.dtype, array)

    def _read(self, asked: Any) -> Any:
        import numpy

        wanted = _slices.parts(asked, self.shape)
        _, plain = _dtypes.known(self.dtype)
        counts = [len(range(first, end, step)) for first, end, step, _, _ in wanted]
        array = numpy.empty(counts, dtype=plain)
        if 0 not in counts:
            for cell, shards in self._pieces.cells.items():
                self._fill(array, wanted, cell, shards)
        shown = tuple(
            0 if vanishes else slice(None, None, -1 if backwards else 1)
            for _, _, _, backwards, vanishes in wanted
        )
        return array[shown]

    def _fill(self, array: Any, wanted: Sequence[Any], cell: Cell, shards: List[_Shard]) -> None:
        """Copies what is asked of a cell."""
        sizes = self._pieces.one.shape
        pairs = [
            _slices.meeting(part, number * size, (number + 1) * size)
            for part, number, size in zip(wanted, cell, sizes)
        ]
        if any(take.stop == take.start for take, _ in pairs):
            return
        take = tuple(take for take, _ in pairs)
        to = tuple(to for _, to in pairs)
        found = self._weights._map(shards[0], self.name)[take]
        # What no strategy describes is the same on all ranks, or isn't one tensor.
        for other in shards[1:] if self._pieces.compared else []:
            if found.tobytes() != self._weights._map(other, self.name)[take].tobytes():
                raise ShardloomError(
                    "copies_differ",
                    f"rank {shards[0].rank}'s and rank {other.rank}'s differ, and no strategy tells how it is cut",
                    tensor=self.name,
                    rank=other.rank,
                )
        array[to] = found


class Weights:
    """Weights in any layout: a mapping of names to tensors.

    It is a context manager; files are closed at its end.
    """

    def __init__(self, directory: Location, found: Dict[str, Any], layout: Optional["_Layout"], framework: str) -> None:
        self.framework = framework
        place = Path(os.fspath(directory))
        self._root = place if place.is_dir() else place.parent
        self._layout = layout
        self._files: Dict[str, _File] = {}
        self._mapped: Dict[str, Any] = {}
        self._tensors: Dict[str, Tensor] = {}
        self._shards: Dict[str, List[_Shard]] = {}
        self._metadata: Dict[str, str] = {}
        ranks = int(found.get("ranks") or 1)
        if layout is not None and ranks > layout.ranks:
            raise ShardloomError(
                "strategy",
                f"there are {ranks} ranks, the strategy is for {layout.ranks}",
                file=os.fspath(directory),
            )
        if layout is None and ranks > 1:
            raise ShardloomError(
                "missing_strategy",
                f"these are the shards of {found['ranks']} ranks, and no strategy tells how they are cut",
                file=os.fspath(directory),
                hint="strategy= takes a strategy file, a directory of them, or a layout such as 'dp=2,tp=4'",
            )
        for file in found["files"]:
            path = file["path"]
            self._files[path] = _File(int(file["bytes"]), int(file["written"]))
            self._metadata.update(file.get("metadata") or {})
            for tensor in file["tensors"]:
                shard = _Shard(
                    path, int(file["rank"] or 0), tensor["dtype"], tuple(tensor["shape"]), tensor.get("places")
                )
                self._shards.setdefault(tensor["name"], []).append(shard)

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files; slices that were made stay."""
        self._mapped.clear()

    def keys(self) -> List[str]:
        """The tensors' names, in order."""
        return sorted(self._shards)

    def metadata(self) -> Dict[str, str]:
        """What the files say of themselves."""
        return dict(self._metadata)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self._shards)

    def __contains__(self, name: object) -> bool:
        return name in self._shards

    def __getitem__(self, name: str) -> Tensor:
        """A tensor, of which nothing is read yet.

        Raises:
            KeyError: if there is none of this name.
            ShardloomError: for a shard that isn't there, or doesn't fit the strategy.
        """
        if name not in self._shards:
            raise KeyError(name)
        if name not in self._tensors:
            self._tensors[name] = Tensor(self, name)
        return self._tensors[name]

    def get_slice(self, name: str) -> Tensor:
        """As ``weights[name]``, for who is used to safetensors."""
        return self[name]

    def get_tensor(self, name: str) -> Any:
        """The whole tensor."""
        return self[name][...]

    def _pieces(self, name: str) -> "_Pieces":
        shards = self._shards[name]
        scattered = next((shard for shard in shards if shard.places is None), None)
        if scattered is not None:
            raise ShardloomError(
                "unsupported",
                "lies in parts, or not row after row: it can't be read slice by slice",
                tensor=name,
                file=str(self._root / scattered.file),
                hint="shardloom.unify, or shardloom convert, makes safetensors of it",
            )
        described = self._layout.of(name) if self._layout else None
        if described is None:
            self._check_equal(name, shards)
            whole = (0,) * len(shards[0].shape)
            return _Pieces((1,) * len(whole), {whole: shards}, shards[0], len(shards) > 1)
        found: List[_Pieces] = []
        lacking: Optional[ShardloomError] = None
        # A parameter that several stages share is there as a whole in each of them.
        for parts, holders in described:
            ranks = {rank for holding in holders.values() for rank in holding}
            here = [shard for shard in shards if shard.rank in ranks]
            self._check_equal(name, here)
            if here and len(parts) != len(here[0].shape):
                raise ShardloomError(
                    "shape",
                    f"has {len(here[0].shape)} dimensions, in the strategy {len(parts)}",
                    tensor=name,
                )
            cells = {cell: [shard for shard in here if shard.rank in holding] for cell, holding in holders.items()}
            empty = [cell for cell, having in cells.items() if not having]
            if empty:
                holding = holders[empty[0]]
                lacking = lacking or ShardloomError(
                    "missing_shard",
                    f"part {list(empty[0])} is held by {_ranks(holding)}, and no file of theirs has it",
                    tensor=name,
                    rank=holding[0],
                )
            elif here:
                found.append(_Pieces(parts, cells, here[0], False))
        if not found:
            raise lacking or ShardloomError(
                "missing_shard", "is on ranks that don't have it by the strategy", tensor=name, rank=shards[0].rank
            )
        for other in found[1:]:
            if other.shape() != found[0].shape():
                raise ShardloomError(
                    "shape", f"is {list(found[0].shape())} in one stage, {list(other.shape())} in another", tensor=name
                )
        return found[0]

    def _check_equal(self, name: str, shards: List[_Shard]) -> None:
        for shard in shards[1:]:
            if (shard.dtype, shard.shape) != (shards[0].dtype, shards[0].shape):
                raise ShardloomError(
                    "shape",
                    f"rank {shards[0].rank} has {shards[0].dtype} {list(shards[0].shape)}, "
                    f"rank {shard.rank} {shard.dtype} {list(shard.shape)}",
                    tensor=name,
                    rank=shard.rank,
                    file=str(self._root / shard.file),
                )

    def _map(self, shard: _Shard, name: str) -> Any:
        """The elements of a shard, mapped."""
        import numpy

        _, plain = _dtypes.known(shard.dtype)
        file = self._file(shard.file, name)
        parts = [file[begin:end] for begin, end in shard.places or []]
        # One, but for large tensors of a .ckpt file.
        bytes_ = parts[0] if len(parts) == 1 else numpy.concatenate([file[:0], *parts])
        return bytes_.view(numpy.dtype(plain).newbyteorder("<")).reshape(shard.shape)

    def _file(self, file: str, name: str) -> Any:
        """The bytes of a file, mapped, if it is still the one that was opened."""
        if file in self._mapped:
            return self._mapped[file]
        import numpy

        path = self._root / file
        try:
            with io.open(path, "rb") as opened:
                stands = os.fstat(opened.fileno())
                mapped = numpy.memmap(opened, dtype=numpy.uint8, mode="r") if stands.st_size else numpy.empty(0, "u1")
        except FileNotFoundError:
            raise ShardloomError("missing_shard", "isn't there any more", tensor=name, file=str(path)) from None
        if _File(stands.st_size, stands.st_mtime_ns) != self._files[file]:
            raise ShardloomError("changed", "has changed since it was opened", tensor=name, file=str(path))
        self._mapped[file] = mapped
        return mapped


class _Pieces(NamedTuple):
    """A tensor's equal cells, and which shards have each."""

    parts: Tuple[int, ...]
    cells: Dict[Cell, List[_Shard]]
    one: _Shard
    compared: bool

    def shape(self) -> Tuple[int, ...]:
        """Of the whole tensor."""
        return tuple(size * count for size, count in zip(self.one.shape, self.parts))


def _ranks(numbers: Sequence[int]) -> str:
    words = ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
    return f"rank {words}" if len(numbers) == 1 else f"ranks {words}"


class _Layout:
    """What a strategy says of parameters, as the program tells it."""

    def __init__(self, strategy: Location, options: Dict[str, Any]) -> None:
        self._words = ["strategy", "show", os.fspath(strategy), *flags(options)]
        told = call(self._words)
        #: How many ranks the strategy is for.
        self.ranks = int(told["stages"]) * int(told["ranks_per_stage"])
        self._names = {row["name"] for row in told["parameters"]}
        self._known: Dict[str, List[Tuple[Tuple[int, ...], Dict[Cell, List[int]]]]] = {}
        if self._names and len(self._names) * int(told["ranks_per_stage"]) <= _CELLS_MAX:
            self._take(call([*self._words, "--param=*"]))

    def of(self, name: str) -> Optional[List[Tuple[Tuple[int, ...], Dict[Cell, List[int]]]]]:
        """For each stage that has it: into how many parts each dimension is cut, and which ranks hold each cell.

        None if it isn't described.
        """
        if name not in self._names:
            return None
        if name not in self._known:
            self._take(call([*self._words, f"--param={name}"]))
        return self._known[name]

    def _take(self, told: Dict[str, Any]) -> None:
        for row in told["parameters"]:
            holders: Dict[Cell, List[int]] = {}
            for rank in row["ranks"]:
                holders.setdefault(tuple(rank["cell"]), []).append(rank["rank"])
            self._known.setdefault(row["name"], []).append((tuple(row["parts"]), holders))
