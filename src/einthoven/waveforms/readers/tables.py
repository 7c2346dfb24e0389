"""Files that are a table of numbers: MATLAB, HDF5, npy and CSV. What they do not say, `Hints` must.

A matrix is named `signal`, `ecg` or `val`, and beside it stand `sampling_rate` or `fs`, `unit` or `units`, and `leads`:
as variables (MATLAB), as datasets or attributes (HDF5). No unit is
assumed: microvolts taken for millivolts look like an ECG, too.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from einthoven.schema import LEADS
from einthoven.waveforms.matlab import MATLAB_5, matrices
from einthoven.waveforms.readers.protocol import MAX_VALUES, Channel, Found, Hints, millivolts_per, needed
from einthoven.waveforms.wfdb_format import RecordingError

SIGNALS: Final = ("signal", "ecg", "val")
RATES: Final = ("sampling_rate", "fs", "sampling_frequency")
UNITS: Final = ("unit", "units")
NAMES: Final = ("leads", "lead_names", "sig_name")

_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_FILTERS: Final = {"gzip", "lzf", None}  # those of h5py itself: others would be loaded from wherever a plugin lies
_MATLAB_BYTES: Final = 128 << 20  # unpacked


class Matlab:
    """MATLAB 5 to 7.2: plain matrices; cells, structures and objects are left out."""

    name = "MATLAB"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        return head.startswith(MATLAB_5)

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        return _found(matrices(content, _MATLAB_BYTES), hints)


class Hdf5:
    """HDF5, and MATLAB 7.3, through h5py. Links, and data outside the file, are not followed."""

    name = "HDF5"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        return head.startswith(_HDF5) or (head.startswith(b"MATLAB 7.3") and head[512:520] == _HDF5)

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        h5py = needed("h5py", "h5py")
        with h5py.File(io.BytesIO(content), "r") as file:
            named = {name: _dataset(h5py, file, name) for name in (*SIGNALS, *RATES, *UNITS, *NAMES)}
            stated = {name: value for name, value in named.items() if value is not None}
            signal = next((file[name] for name in SIGNALS if name in stated), None)
            for holder in (file, signal) if signal is not None else (file,):
                stated |= {name: holder.attrs[name] for name in (*RATES, *UNITS, *NAMES) if name in holder.attrs}
        return _found(stated, hints)


class Npy:
    """NumPy's .npy, never with pickled objects. It states nothing but the numbers."""

    name = "npy"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        return head.startswith(b"\x93NUMPY")

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        file = io.BytesIO(content)
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, by_column, dtype = header(file)
        count = int(np.prod(shape, dtype=object)) if shape else 0
        if (
            dtype.kind not in "iuf"
            or dtype.hasobject
            or count * dtype.itemsize != len(content) - file.tell()
            or not count
        ):
            raise RecordingError("unreadable", "expected whole or floating numbers, as many as the header says")
        values = np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if by_column else "C")
        return _found({SIGNALS[0]: values}, hints)


def _dataset(h5py: Any, file: Any, name: str) -> npt.NDArray[Any] | None:
    """A dataset that lies in the file itself, as an array; None if there is none of that name."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        return None
    found = file[name]
    if found.is_virtual or found.external or found.compression not in _FILTERS or found.dtype.hasobject:
        if found.dtype.hasobject and h5py.check_string_dtype(found.dtype) and found.size <= len(NAMES) * 256:
            return np.atleast_1d(found.asstr()[()])
        raise RecordingError("unreadable", f"{name}: expected numbers in the file itself, gzip or lzf at most")
    if found.size > MAX_VALUES or (found.chunks and int(np.prod(found.chunks, dtype=object)) > MAX_VALUES):
        raise RecordingError("too-large", f"{name}: at most {MAX_VALUES} values expected")
    return np.asarray(found[()])


def _found(stated: Mapping[str, Any], hints: Hints) -> Found:
    """The recording that these variables are; RecordingError (no-signal, no-rate, no-unit, wrong-leads) else."""
    matrix = said(stated, SIGNALS)
    if matrix is None or np.ndim(matrix) not in (1, 2) or np.asarray(matrix).dtype.kind not in "iuf":
        raise RecordingError("no-signal", f"expected a matrix of numbers called {', '.join(SIGNALS)}")
    values = np.atleast_2d(np.asarray(matrix))
    names = hints.leads or _names(said(stated, NAMES, ()))
    if not names and len(LEADS) in values.shape:
        names = LEADS
    if len(names) not in values.shape:
        raise RecordingError(
            "wrong-leads", f"{values.shape[0]} x {values.shape[1]} numbers and {len(names)} names of leads"
        )
    if values.shape[0] != len(names):
        values = values.T
    rate = _number(said(stated, RATES, hints.sampling_rate))
    unit = _text(said(stated, UNITS, hints.unit or ""))
    return Found(channels(names, values, rate, unit))


def said(stated: Mapping[str, Any], names: Sequence[str], otherwise: Any = None) -> Any:
    """What is stated under the first of several names for one thing."""
    return next((stated[name] for name in names if name in stated), otherwise)


def channels(names: Sequence[str], values: Any, rate: float | None, unit: str) -> tuple[Channel, ...]:
    """Rows of numbers in one unit; RecordingError (no-rate, no-unit) with what to give where it is not known."""
    if rate is None:
        raise RecordingError(
            "no-rate", f"it states no sampling rate: expected {RATES[0]} beside the signal, or as argument"
        )
    factor = millivolts_per(unit)
    if factor is None:
        raise RecordingError(
            "no-unit", f"it states no unit: expected {UNITS[0]} (mV, uV, nV or V) beside the signal, or as argument"
        )
    return tuple(
        Channel(name, np.asarray(row, np.float64) * factor, rate) for name, row in zip(names, values, strict=True)
    )


def _number(stated: Any) -> float | None:
    try:
        return None if stated is None else float(np.asarray(stated).reshape(-1)[0])
    except (ValueError, TypeError, IndexError):
        raise RecordingError("no-rate", "expected one number as sampling rate") from None


def _text(stated: Any) -> str:
    """A unit as bytes, as text, as an array of one, or as MATLAB 7.3's array of character codes."""
    if isinstance(stated, np.ndarray) and stated.dtype.kind == "u":
        return "".join(map(chr, stated.reshape(-1)[:16].tolist()))
    first = stated.reshape(-1)[0] if isinstance(stated, np.ndarray) and stated.size else stated
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(first)


def _names(stated: Any) -> tuple[str, ...]:
    """Names as an array of texts, or one text with commas or blanks between."""
    array = np.asarray(stated).reshape(-1)
    texts = tuple(_text(name).strip() for name in array[:257])
    return tuple(texts[0].replace(",", " ").split()) if len(texts) == 1 else texts
