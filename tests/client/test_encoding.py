"""What goes to backends: JSON and vectors, with numpy and without."""

import importlib
import math
import struct
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_client import DimensionMismatch, encoding
from memory_client.encoding import Format

FORMATS: tuple[Format, ...] = ("<d", "<f", ">f", "<e", ">e")


@pytest.fixture(params=[True, False], ids=["numpy", "without numpy"])
def numpy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(encoding, "np", None)
    return bool(request.param)


@given(vector=st.lists(st.floats(-60000, 60000, width=16), min_size=1, max_size=20), number=st.sampled_from(FORMATS))
def test_both_ways_give_the_same_bytes(vector: list[float], number: Format) -> None:
    packed = struct.pack(f"{number[0]}{len(vector)}{number[1]}", *vector)
    for array in (vector, tuple(vector), np.array(vector)):
        assert encoding.to_bytes(array, number, dimension=len(vector), metric="l2") == packed
        assert list(encoding.all_to_bytes([array] * 3, number, dimension=len(vector), metric="ip")) == [packed] * 3
    assert encoding._packed_sequence(vector, number, len(vector)) == packed
    assert list(encoding.from_bytes(packed, number)) == vector


@pytest.mark.usefixtures("numpy")
@pytest.mark.parametrize("number", FORMATS)
def test_what_is_no_vector_gets_a_sentence(number: Format) -> None:
    good = [1.0, 2.0]
    for bad, metric, said in (
        ([1.0, math.nan], "l2", "NaN, infinity"),
        ([1.0, -math.inf], None, "NaN, infinity"),
        ([0.0, -0.0], "cosine", "all zeros"),
        ([0, 0], "cosine", "all zeros"),
        (["a", "b"], "l2", "number|float"),
    ):
        vectors: list[Any] = [good, bad]
        with pytest.raises(ValueError, match=said):
            encoding.to_bytes(bad, number, dimension=2, metric=metric)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=said):
            encoding.all_to_bytes(vectors, number, dimension=2, metric=metric)
    for wrong in ([1.0], [1.0, 2.0, 3.0]):
        with pytest.raises(DimensionMismatch, match=f"the vector has {len(wrong)} dimensions and this Memory 2"):
            encoding.to_bytes(wrong, number, dimension=2, metric=None)
        with pytest.raises(DimensionMismatch):
            encoding.all_to_bytes([good, wrong], number, dimension=2, metric=None)
    assert encoding.to_bytes([0, 0], number, dimension=2, metric="l2") == bytes(2 * struct.calcsize(number))


@pytest.mark.usefixtures("numpy")
@pytest.mark.parametrize(("number", "most"), [("<e", "65504"), (">f", "3.4e38")])
def test_a_number_that_is_too_large_is_refused(number: Format, most: str) -> None:
    with pytest.raises(ValueError, match=f"a number above {most}"):
        encoding.to_bytes([1.0, 1e39], number, dimension=2, metric="cosine")


def test_numpy_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "numpy", None)
        importlib.reload(encoding)
        assert vars(encoding)["np"] is None
    importlib.reload(encoding)
    assert vars(encoding)["np"] is np


def test_a_matrix_is_no_vector() -> None:
    with pytest.raises(ValueError, match="an array of 2 dimensions"):
        encoding.to_bytes(np.ones((2, 2)), "<f", dimension=2, metric=None)


def test_what_only_looks_like_zeros_has_a_direction() -> None:
    tiny = struct.unpack(">f", b"\0\0\x80\0")[0]
    assert encoding.to_bytes([0.0, tiny], ">f", dimension=2, metric="cosine")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
        max_leaves=10,
    )
)
def test_nul_and_nothing_else_is_refused(value: Any) -> None:
    if "\0" in _texts(value):
        with pytest.raises(ValueError, match="NUL"):
            encoding.to_json(value)
    else:
        encoding.to_json(value)


def _texts(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(map(_texts, [*value, *value.values()]))
    return "".join(map(_texts, value)) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("value", ["\\\\u0000", "\\u0000", "\\\\\\u0000", "u0000"])
def test_a_backslash_is_no_nul(value: str) -> None:
    assert encoding.to_json(value)
    with pytest.raises(ValueError, match="NUL"):
        encoding.to_json(value + "\0")


def test_what_json_does_not_know_is_refused() -> None:
    for value in (math.nan, math.inf, "\ud800"):
        with pytest.raises(ValueError):  # noqa: PT011  the texts are Python's
            encoding.to_json(value)
    with pytest.raises(TypeError):
        encoding.to_json({1, 2})
