"""MATLAB 5 files: the samples they hold, and nothing larger or stranger than announced."""

import io
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from einthoven.waveforms.matlab import MATLAB_MARGIN, matrices, read_val

VALUES = np.random.default_rng(0).integers(-32768, 32768, (12, 500)).astype(np.int16)


def content(variables: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    savemat(file, variables, **options)
    return file.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [np.int16, np.int32, np.float64])
def test_values(kind: type, packed: bool) -> None:
    data = content({"other": "text", "val": VALUES.astype(kind)}, do_compression=packed)
    found = read_val(data, 12, 8 * VALUES.size)
    assert found.dtype == np.int16 and np.array_equal(found, VALUES.T)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (VALUES[:11], "12 rows"),
        (VALUES + 0.5, "whole numbers"),
        (VALUES.astype(np.int32) * 2, "whole numbers"),
        ({"field": VALUES}, "12 rows"),
        ("text", "12 rows"),
    ],
)
def test_what_is_no_signal(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_val(content({"val": value}), 12, 8 * VALUES.size)
    with pytest.raises(ValueError, match="12 rows"):
        read_val(content({"value": VALUES}), 12, 8 * VALUES.size)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused() -> None:
    data = content({"val": np.zeros((12, 1 << 18), np.int16)}, do_compression=True)
    assert len(data) < 1 << 16
    with pytest.raises(ValueError, match="larger than its header says"):
        read_val(data, 12, 1000)
    bomb = zlib.compress(b"\0" * (MATLAB_MARGIN * 4))
    with pytest.raises(ValueError, match="larger"):
        read_val(data[:128] + (15).to_bytes(4, "little") + len(bomb).to_bytes(4, "little") + bomb, 12, 1000)


@settings(deadline=None)
@given(st.integers(0, 600), st.binary(max_size=64))
def test_damaged_files(place: int, noise: bytes) -> None:
    data = content({"val": VALUES[:, :8]}, do_compression=bool(place % 2))
    try:
        found = read_val(data[:place] + noise, 12, 8 * 96)
    except ValueError:
        return
    assert found.shape[1] == 12


def test_texts_and_numbers_as_scipy_reads_them() -> None:
    variables = {"a": VALUES, "b": VALUES.astype(np.float32) / 7, "rate": 500, "unit": "µV", "leads": ["I", "aVR"]}
    for packed in (False, True):
        data = content(
            variables | {"left": {"out": 1}, "cell": np.array(["x", 1], object), "z": 1j}, do_compression=packed
        )
        found = matrices(data, 1 << 20)
        expected = loadmat(io.BytesIO(data))
        assert set(found) == set(variables)
        assert all(np.array_equal(found[name], expected[name]) for name in ("a", "b", "rate", "unit"))
        assert [row.strip() for row in found["leads"]] == ["I", "aVR"]


def test_big_endian() -> None:
    data = content({"val": VALUES})
    plain = bytearray(data[:126] + b"MI")
    element = bytearray(data[128:])
    # All up to the samples are words of four bytes, but for the name and the flags of small elements.
    swapped = b"".join(element[at : at + 4][::-1] for at in range(0, 40, 4))
    name = (3 << 16 | 1).to_bytes(4, "big") + b"val\0"
    samples = (3).to_bytes(4, "big") + VALUES.nbytes.to_bytes(4, "big") + VALUES.T.astype(">i2").tobytes()
    assert np.array_equal(read_val(bytes(plain + swapped + name + samples), 12, 8 * VALUES.size), VALUES.T)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 300), st.integers(0, 255))
def test_a_byte_that_is_another(place: int, byte: int) -> None:
    """SciPy 1.17 ends the process at place 176: an element of unknown type."""
    data = bytearray(content({"val": VALUES[:, :8]}))
    data[place] = byte
    try:
        matrices(bytes(data), 1 << 16)
    except ValueError:
        return
