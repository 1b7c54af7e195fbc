"""JSON and vectors as backends store them, and what none of them takes."""

import json
import math
import re
import struct
from collections.abc import Sequence
from typing import Any, Literal

from memory_client.errors import DimensionMismatch
from memory_client.types import Json, Vector

try:
    import numpy as np
except ImportError:  # without it vectors are packed one number at a time
    np = None  # type: ignore[assignment]

# How a number of a vector is stored: struct's letters for the order of its bytes and its kind (d: 8 bytes, f: 4, e: 2).
Format = Literal["<d", "<f", ">f", "<e", ">e"]
# A NUL character in a string: JSON writes it so, and an even number of backslashes before it are others' own.
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def to_json(value: Json) -> str:
    """Gives a value as JSON.

    Raises:
        TypeError: It is nothing that JSON knows.
        ValueError: It holds what a backend cannot store: NaN, infinity, the character NUL, half of a surrogate pair.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    text.encode()
    if "\\u0000" in text and NUL.search(text):
        msg = "a string holds the character NUL, which not every backend can store: take it out, or encode the string"
        raise ValueError(msg)
    return text


def to_bytes(vector: Vector, number: Format, *, dimension: int, metric: str | None) -> bytes:
    """Packs a vector.

    Args:
        vector: A numpy array of one dimension, or any sequence of numbers.
        number: How each is stored.
        dimension: How many there must be.
        metric: The Memory's; with cosine a vector needs a direction.

    Raises:
        DimensionMismatch: There are more or fewer.
        ValueError: One is no finite number, or too large for its format, or all are 0 and only direction counts.
    """
    packed = _packed_sequence(vector, number, dimension) if np is None else _packed_array(vector, number, dimension)
    # Zeros are bytes 0, negative ones with 0x80 among them: whatever else there is ends the strip at once.
    if metric == "cosine" and not packed.strip(b"\0\x80") and not any(from_bytes(packed, number)):
        msg = "the vector is all zeros: it has no direction, and so no cosine distance to anything"
        raise ValueError(msg)
    return packed


def all_to_bytes(vectors: Sequence[Vector], number: Format, *, dimension: int, metric: str | None) -> Sequence[bytes]:
    """Packs many vectors: as `to_bytes` each, and together where that is quicker."""
    if np is not None:
        packed = _packed_matrix(vectors, number, dimension, metric)
        if packed is not None:
            width = dimension * struct.calcsize(number)
            return [packed[at : at + width] for at in range(0, len(packed), width)]
    return [to_bytes(vector, number, dimension=dimension, metric=metric) for vector in vectors]


def _packed_matrix(vectors: Sequence[Vector], number: Format, dimension: int, metric: str | None) -> bytes | None:
    """None where something is wrong with one of them."""
    try:
        matrix = np.asarray(vectors)
    except ValueError:  # of different lengths
        return None
    if matrix.shape != (len(vectors), dimension) or matrix.dtype.kind not in "fiu":
        return None
    with np.errstate(over="ignore"):
        exact = matrix.astype(f"=f{struct.calcsize(number)}", copy=False)
    if not np.isfinite(exact).all() or (metric == "cosine" and not exact.any(axis=1).all()):
        return None
    return exact.astype(f"{number[0]}f{struct.calcsize(number)}", copy=False).tobytes()


def from_bytes(packed: bytes, number: Format) -> Sequence[float]:
    """Gives the numbers of a packed vector."""
    return struct.unpack(f"{number[0]}{len(packed) // struct.calcsize(number)}{number[1]}", packed)


def _packed_array(vector: Vector, number: Format, dimension: int) -> bytes:
    array = np.asarray(vector)
    if array.ndim != 1:
        msg = f"the vector is an array of {array.ndim} dimensions: give one row, or one number after the other"
        raise ValueError(msg)
    if array.shape[0] != dimension:
        raise DimensionMismatch(dimension, int(array.shape[0]))
    with np.errstate(over="ignore"):
        packed: Any = array.astype(f"{number[0]}f{struct.calcsize(number)}")
    if not np.isfinite(packed).all():
        _refuse_not_finite(number)
    return bytes(packed.tobytes())


def _packed_sequence(vector: Vector, number: Format, dimension: int) -> bytes:
    if len(vector) != dimension:
        raise DimensionMismatch(dimension, len(vector))
    try:
        packed = struct.pack(f"{number[0]}{dimension}{number[1]}", *vector)
    except OverflowError:
        _refuse_not_finite(number)
    except struct.error as error:
        msg = f"the vector holds what is no number: {error}"
        raise ValueError(msg) from None
    if not all(map(math.isfinite, from_bytes(packed, number))):
        _refuse_not_finite(number)
    return packed


def _refuse_not_finite(number: Format) -> None:
    limit = "65504, for this Memory stores 16 bits a number" if number[1] == "e" else "3.4e38"
    msg = f"the vector holds NaN, infinity, or a number above {limit}"
    raise ValueError(msg)
