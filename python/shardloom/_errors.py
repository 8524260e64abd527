"""What goes wrong, as the program says it."""

from __future__ import annotations

from typing import Any, Dict, Optional


class ShardloomError(RuntimeError):
    """A job that failed, or something that can't be read.

    Attributes:
        kind: what kind of error it is, as in the program's JSON: ``missing_shard``, ``usage``, …
        message: what is wrong.
        hint: what to do about it, where that is known.
        file, tensor, rank, process, node: what it is about, where it is about one.
    """

    kind: str
    message: str
    hint: Optional[str]
    file: Optional[str]
    tensor: Optional[str]
    rank: Optional[int]
    process: Optional[int]
    node: Optional[str]

    def __init__(self, kind: str, message: str, **about: Any) -> None:
        self.kind = kind
        self.message = message
        for name in ("hint", "file", "tensor", "rank", "process", "node"):
            setattr(self, name, about.get(name))
        places = [str(place) for place in (self.file, self.tensor) if place is not None]
        text = ": ".join([*places, message])
        super().__init__(f"{text} (hint: {self.hint})" if self.hint else text)

    def __reduce__(self) -> Any:
        # Exceptions with other arguments than their text can't be sent to other processes otherwise.
        return (_again, (self._fields(),))

    def _fields(self) -> Dict[str, Any]:
        names = ("kind", "message", "hint", "file", "tensor", "rank", "process", "node")
        return {name: getattr(self, name) for name in names}


def _again(fields: Dict[str, Any]) -> ShardloomError:
    return ShardloomError(**fields)
