"""MATLAB 5 files: the samples they hold, and nothing larger or stranger than announced."""

import io
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from einthoven.waveforms.matlab import MATLAB_MARGIN, read_val

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
