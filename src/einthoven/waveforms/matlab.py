"""MATLAB 5 files: plain matrices of numbers and of letters, read here and bounded.

SciPy's reader ends the whole process on some damaged files: an element type that it does not know (one byte) is a
segmentation fault. The format is that of MathWorks' "MAT-File Format", version 5. What the Challenges publish are
MATLAB 4 files, which WFDB reads as format 16 behind a preamble of 24 bytes; copies saved by today's MATLAB or SciPy are
MATLAB 5, often compressed.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MATLAB_5: Final = b"MATLAB 5.0"
MATLAB_MARGIN: Final = 1 << 20
"""Bytes a file may have besides its samples."""

_HEADER: Final = 128
_MATRIX: Final = 14  # types of elements
_COMPRESSED: Final = 15
_NUMBERS: Final = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS: Final = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_LETTERS: Final = 4  # classes of matrices
_NUMERIC: Final = range(6, 16)
_COMPLEX: Final = 0x800  # a flag beside the class


def read_val(data: bytes, leads: int, limit: int) -> npt.NDArray[np.int16]:
    """The matrix `val` of a file's content as [samples, leads]; ValueError (what is wrong) if there is none.

    `limit` is how many bytes the samples may take: no more than that, and a margin, is ever decompressed.
    """
    values = matrices(data, limit + MATLAB_MARGIN).get("val")
    if values is None or values.dtype.kind not in "iuf" or values.shape[0] != leads:
        raise ValueError(f"expected a matrix val of {leads} rows of numbers")
    with np.errstate(invalid="ignore"):
        stored = values.T.astype(np.int16)
    if not np.array_equal(stored, values.T):
        raise ValueError("expected whole numbers of 16 bits in val")
    return np.ascontiguousarray(stored)


def matrices(data: bytes, limit: int) -> dict[str, npt.NDArray[Any]]:
    """The matrices of a file by name: numbers as [rows, columns], letters as one text per row; all else is left out.

    ValueError if the file is damaged, or unpacks to more than `limit` bytes.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("no MATLAB file")
    found: dict[str, npt.NDArray[Any]] = {}
    for kind, content in _elements(_inflated(data, limit, order)[_HEADER:], order):
        if kind == _MATRIX:
            named = _matrix(content, order)
            if named is not None:
                found.setdefault(*named)
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of each element; ValueError where one is cut."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start = place + 8
        if kind >> 16:  # a small one: size, type and content in eight bytes
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        if start + size > len(data) or (start == place + 4 and size > 4):
            raise ValueError("an element of the MATLAB file is cut")
        yield kind, data[start : start + size]
        place = place + 8 if start == place + 4 else start + size + -size % 8


def _matrix(content: bytes, order: str) -> tuple[str, npt.NDArray[Any]] | None:
    """Name and values; None for cells, structures, objects, complex numbers and more than two dimensions."""
    parts = _elements(content, order)
    try:
        (_, flags), (_, shape), (_, name), (kind, values) = (next(parts) for _ in range(4))
    except (StopIteration, RuntimeError):
        return None
    described = int(np.frombuffer(flags, f"{order}u4", count=1)[0])
    size = tuple(np.frombuffer(shape, f"{order}i4").tolist())
    if len(size) != 2 or min(size) < 0 or described & _COMPLEX:
        return None
    if described & 0xFF == _LETTERS and kind in _TEXTS:
        endian = {"<": "-le", ">": "-be"}[order] if _TEXTS[kind] == "utf-16" else ""
        letters = np.array(list(values.decode(_TEXTS[kind] + endian, "replace")), dtype=object)
        rows = _shaped(letters, size)
        return name.decode("latin-1"), np.array(["".join(row) for row in rows.tolist()])
    if described & 0xFF in _NUMERIC and kind in _NUMBERS:
        return name.decode("latin-1"), _shaped(np.frombuffer(values, order + _NUMBERS[kind]), size)
    return None


def _shaped(values: npt.NDArray[Any], size: tuple[int, ...]) -> npt.NDArray[Any]:
    if len(values) != size[0] * size[1]:
        raise ValueError(f"a matrix of {size[0]} x {size[1]} holds {len(values)} values")
    return values.reshape(size, order="F")


def _inflated(data: bytes, limit: int, order: str) -> bytes:
    """The file with its compressed elements unpacked, at most `limit` bytes of them."""
    parts, place, left = [data[:_HEADER]], _HEADER, limit
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        element = data[place : place + 8 + size]
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            try:
                element = inflater.decompress(element[8:], left + 1)  # 0 would be no limit
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
