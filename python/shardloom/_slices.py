"""What is asked of a tensor in brackets, as ranges a dimension."""

from __future__ import annotations

import operator
from typing import Any, List, Sequence, Tuple

# First, end and step of what is taken of a dimension, step positive; whether it goes backwards; whether
# the dimension vanishes.
Part = Tuple[int, int, int, bool, bool]


def parts(asked: Any, shape: Sequence[int]) -> List[Part]:
    """One part a dimension: of whole numbers, slices and ``...``, as numpy understands them.

    Raises:
        IndexError: for more than there is, or a number outside.
        TypeError: for anything else.
    """
    words = list(asked) if isinstance(asked, tuple) else [asked]
    dots = [at for at, word in enumerate(words) if word is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can have one ellipsis ('...') only")
    given = len(words) - len(dots)
    if given > len(shape):
        raise IndexError(f"too many indices: the tensor has {len(shape)} dimensions, {given} were given")
    rest = [slice(None)] * (len(shape) - given)
    at = dots[0] if dots else len(words)
    words[at : at + len(dots)] = rest
    return [_part(word, size, number) for number, (word, size) in enumerate(zip(words, shape))]


def _part(word: Any, size: int, dimension: int) -> Part:
    if isinstance(word, slice):
        first, end, step = word.indices(size)
        count = len(range(first, end, step))
        if count == 0:
            return (0, 0, 1, False, False)
        last = first + (count - 1) * step
        low, high = min(first, last), max(first, last)
        return (low, high + 1, abs(step), step < 0, False)
    if isinstance(word, bool) or word is None:
        raise TypeError("a tensor is indexed by whole numbers, slices and ...")
    try:
        number = operator.index(word)
    except TypeError:
        raise TypeError("a tensor is indexed by whole numbers, slices and ...") from None
    if not -size <= number < size:
        raise IndexError(f"index {number} is outside of dimension {dimension} with {size} elements")
    number %= size
    return (number, number + 1, 1, False, True)


def meeting(part: Part, start: int, end: int) -> Tuple[slice, slice]:
    """Of the elements from ``start`` to ``end``: those that ``part`` takes, and where they go."""
    first, stop, step, _, _ = part
    begin = first if start <= first else first + -(-(start - first) // step) * step
    stop = min(stop, end)
    if begin >= stop:
        return (slice(0, 0), slice(0, 0))
    count = -(-(stop - begin) // step)
    to = (begin - first) // step
    return (slice(begin - start, begin - start + (count - 1) * step + 1, step), slice(to, to + count))
