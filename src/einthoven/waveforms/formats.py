"""An ECG in any format -> leads in millivolts. Content decides which format it is, not the name of the file.

Bounds hold before anything is parsed (the size of a file, also unpacked) or built (leads, samples). Parsing itself can
take seconds: who serves strangers does it in a process that can be ended.
"""

import os
import re
import zlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from einthoven.errors import EinthovenError
from einthoven.waveforms.readers.binary import Edf, Ishne, Scp
from einthoven.waveforms.readers.dicom import Dicom
from einthoven.waveforms.readers.protocol import Found, Hints, Reader, stacked
from einthoven.waveforms.readers.tables import Hdf5, Matlab, Npy
from einthoven.waveforms.readers.text import Csv
from einthoven.waveforms.readers.xml_ecg import AnnotatedEcg, Muse, Philips
from einthoven.waveforms.standardise import FRONTAL, to_millivolts
from einthoven.waveforms.wfdb_format import (
    Record,
    RecordingError,
    is_there,
    open_inside,
    read_all,
    read_header,
    read_record,
)

MAX_BYTES: Final = 64 << 20
"""Of a file, and of what a gzipped one unpacks to."""

WFDB: Final = "WFDB"
READERS: Final[tuple[Reader, ...]] = (
    Dicom(),
    Muse(),
    AnnotatedEcg(),
    Philips(),
    Scp(),
    Ishne(),
    Edf(),
    Hdf5(),
    Matlab(),
    Npy(),
    Csv(),
)
"""In the order they are asked. WFDB comes before all: it is several files, and named by its header."""

FORMATS: Final = (WFDB, *(reader.name for reader in READERS))

WFDB_FILE: Final = re.compile(r"\.(hea|dat|mat)$")
_HEAD: Final = 1 << 16  # bytes a reader sees to know its format
_GZIP: Final = b"\x1f\x8b\x08"


@dataclass(frozen=True)
class Ecg:
    """One recording."""

    signal: npt.NDArray[np.float32]  # [leads, samples], millivolts, NaN where missing
    sampling_rate: float  # hertz
    leads: tuple[str, ...]  # in the order found, then `derived`; spelt as in schema.LEADS where they are standard
    format: str
    derived: tuple[str, ...] = ()  # of III, aVR, aVL, aVF: computed from I and II because the file has not got them
    meta: dict[str, str | int | float] = field(default_factory=dict)  # nothing that tells who the patient is
    recorded: datetime | None = None  # only with identify
    subject: str | None = None  # only with identify


def read_ecg(
    source: Path | str | bytes,
    name: str | None = None,
    *,
    sampling_rate: float | None = None,
    unit: str | None = None,
    leads: tuple[str, ...] | None = None,
    identify: bool = False,
    limit: int = MAX_BYTES,
) -> Ecg:
    """The ECG in a file, or in its content, gzipped or not. `name` is what errors call it.

    `sampling_rate`, `unit` and `leads` serve files that do not state theirs (npy, CSV, MATLAB, HDF5). With `identify`
    the result also says when it was recorded and of whom. EinthovenError, naming the file and what was expected, for
    all that is not read: an unknown format (it lists those tried), damage, more than `limit` bytes, no standard lead.
    """
    path = None if isinstance(source, bytes) else Path(source)
    try:
        if path is not None and (record := wfdb_record(path)) is not None:
            _refuse_large(record, limit)
            found = read_record(record, record.parent)
            signal = to_millivolts(found.signal) if found.signal.dtype == np.int16 else found.signal
            return _complete(Ecg(signal, found.rate, found.names, WFDB))
        content = source if isinstance(source, bytes) else file_content(_real(Path(source)), None, limit)
        ecg, parts = _parsed(content, path, Hints(sampling_rate, unit, leads), limit)
    except RecordingError as error:
        called = name or ("the ECG" if path is None else path.name)
        raise EinthovenError(f"{called}: {error.detail} ({error.reason}).") from None
    return _complete(replace(ecg, recorded=parts.recorded, subject=parts.subject) if identify else ecg)


def read_content(content: bytes, path: Path | None = None) -> Record:
    """As `read_ecg`, but only the leads that are there, and RecordingError."""
    ecg, _ = _parsed(content, path, Hints(), MAX_BYTES)
    return Record(ecg.signal, ecg.leads, ecg.sampling_rate)


def wfdb_record(path: Path) -> Path | None:
    """The record, without suffix, that a path names, with or without one; None if there is no header."""
    if not path.name:
        return None
    record = path.with_name(WFDB_FILE.sub("", path.name))
    return record if is_there(record.with_name(record.name + ".hea")) else None


def file_content(path: Path, folder: Path | None, limit: int = MAX_BYTES) -> bytes:
    """What is in a regular file below `folder` (None: its own); RecordingError (too-large, and as `open_inside`)."""
    handle, size = open_inside(path, path.parent if folder is None else folder)
    try:
        if size > limit:
            raise RecordingError("too-large", f"{size} bytes, at most {limit} expected")
        return read_all(handle, size)
    finally:
        os.close(handle)


def _refuse_large(record: Path, limit: int) -> None:
    """RecordingError("too-large") if the signal files of a WFDB record are, together."""
    files = {record.parent / Path(signal.file).name for signal in read_header(record).signals}
    size = sum(file.stat().st_size for file in files if is_there(file) and file.is_file())
    if size > limit:
        raise RecordingError("too-large", f"{size} bytes, at most {limit} expected")


def _real(path: Path) -> Path:
    """Where a path leads: who names a link means what it points to."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        raise RecordingError("unreadable", "expected the path of a file") from None


def _parsed(content: bytes, path: Path | None, hints: Hints, limit: int) -> tuple[Ecg, Found]:
    if content.startswith(_GZIP):
        content = _unzipped(content, limit)
    if len(content) > limit:
        raise RecordingError("too-large", f"{len(content)} bytes, at most {limit} expected")
    head = content[:_HEAD]
    reader = next((reader for reader in READERS if reader.sniff(head, path)), None)
    if reader is None:
        raise RecordingError("unknown-format", f"expected one of {', '.join(FORMATS)} (a record of WFDB by its header)")
    try:
        found = reader.read(content, path, hints)
    except (RecordingError, EinthovenError):
        raise
    except Exception as error:  # a damaged file makes any library raise anything; what it says may quote the file
        raised = type(error).__name__
        raise RecordingError("unreadable", f"expected a sound file of {reader.name}, {raised} came up") from None
    signal, rate, names = stacked(found.channels)
    return Ecg(signal, rate, names, reader.name, meta=found.meta), found


def _unzipped(content: bytes, limit: int) -> bytes:
    """The first member of a gzip file, of which no more than `limit` bytes are ever unpacked."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        plain = inflater.decompress(content, limit + 1)
    except zlib.error:
        raise RecordingError("unreadable", "damaged gzip") from None
    if len(plain) <= limit and not inflater.eof:
        raise RecordingError("truncated", "the gzip file ends early")
    return plain


def _complete(ecg: Ecg) -> Ecg:
    """With the limb leads that follow from I and II."""
    if not {"I", "II"} <= set(ecg.leads):
        return ecg
    absent = [(lead, of_one, of_two) for lead, of_one, of_two in FRONTAL if lead not in ecg.leads]
    one, two = (ecg.signal[ecg.leads.index(lead)].astype(np.float64) for lead in ("I", "II"))
    rows = [(of_one * one + of_two * two).astype(np.float32) for _, of_one, of_two in absent]
    derived = tuple(lead for lead, _, _ in absent)
    return replace(ecg, signal=np.vstack([ecg.signal, *rows]), leads=ecg.leads + derived, derived=derived)
