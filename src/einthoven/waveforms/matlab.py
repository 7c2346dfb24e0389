"""MATLAB 5 files of the Challenges' form: one matrix `val`, [leads, samples], of stored samples.

What the Challenges publish are MATLAB 4 files, which WFDB reads as format 16 behind a preamble of 24 bytes. Copies
saved by today's MATLAB or SciPy are MATLAB 5, often compressed.
"""

import io
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

MATLAB_5: Final = b"MATLAB 5.0"
MATLAB_MARGIN: Final = 1 << 20
"""Bytes a file may have besides its samples."""

_HEADER: Final = 128
_COMPRESSED: Final = 15  # element type miCOMPRESSED


def read_val(data: bytes, leads: int, limit: int) -> npt.NDArray[np.int16]:
    """The matrix `val` of a file's content as [samples, leads]; ValueError (what is wrong) if there is none.

    `limit` is how many bytes the samples may take: no more than that, and a margin, is ever decompressed.
    """
    from scipy.io import loadmat, whosmat  # slow to import, and rarely needed

    plain = inflated(data, limit + MATLAB_MARGIN)
    try:
        # Asked for first: only a plain matrix of numbers is then built, never a structure or an object.
        described = {name: (shape, kind) for name, shape, kind in whosmat(io.BytesIO(plain))}
        shape, kind = described.get("val", ((), "nothing"))
        if len(shape) != 2 or shape[0] != leads or not kind.startswith(("int", "uint", "single", "double")):
            raise ValueError(f"expected a matrix val of {leads} rows of numbers")
        values = loadmat(io.BytesIO(plain), variable_names=("val",))["val"]
        stored = values.T.astype(np.int16)
    except Exception as error:  # a damaged file makes scipy raise almost anything
        if type(error) is ValueError and str(error).startswith("expected a matrix"):
            raise
        raise ValueError(f"no MATLAB file ({type(error).__name__})") from None
    if stored.shape[1] != leads or not np.array_equal(stored, values.T):
        raise ValueError("expected whole numbers of 16 bits in val")
    return np.ascontiguousarray(stored)


def inflated(data: bytes, limit: int) -> bytes:
    """The file with its compressed elements unpacked, at most `limit` bytes of them."""
    order = "little" if data[126:128] == b"IM" else "big"
    parts, place, left = [data[:_HEADER]], _HEADER, limit
    while place + 8 <= len(data):
        kind, size = (int.from_bytes(data[at : at + 4], order) for at in (place, place + 4))  # type: ignore[arg-type]
        element = data[place : place + 8 + size]
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            try:
                element = inflater.decompress(element[8:], left)
            except zlib.error:
                raise ValueError("damaged compression") from None
            if not inflater.eof:
                raise ValueError("a compressed matrix is truncated or larger than its header says")
        left -= len(element)
        if left < 0:
            raise ValueError("larger than its header says")
        parts.append(element)
        place += 8 + size
    return b"".join(parts)
