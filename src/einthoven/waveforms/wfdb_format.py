"""WFDB records: format 16 read directly with NumPy, every other single-segment format through `wfdb`.

Signal files may begin with a preamble, as the MATLAB files of the Challenges do ("16+24"). A record may name only files
of its own folder. Nothing in a header is trusted before it is checked.
"""

import hashlib
import math
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from einthoven.schema import MISSING_SAMPLE
from einthoven.waveforms.matlab import MATLAB_5, MATLAB_MARGIN, read_val

MAX_HEADER_BYTES: Final = 1 << 16
MAX_SIGNALS: Final = 256
MAX_RATE: Final = 1e6
MIN_RATE: Final = 1.0  # hertz; resampling from below makes of every sample thousands
MAX_VALUES: Final = 1 << 28  # samples times signals: a day of 12 leads at 250 Hz

MILLIVOLTS: Final = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "nv": 1e-6}


class RecordingError(ValueError):
    """A recording that cannot be used: a short constant reason and what was found and expected."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Signal(NamedTuple):
    """One signal line of a header. A tuple: made twelve times a record, a frozen dataclass took a tenth of reading."""

    file: str
    format: str  # "16" for every notation of it: "16+24", "16x1"
    offset: int  # bytes before the first sample
    gain: float  # stored units per `units`
    baseline: float  # stored value of 0 `units`
    units: str
    checksum: int | None  # sum of the stored samples modulo 65536
    name: str


@dataclass(frozen=True)
class Header:
    """A single-segment header."""

    rate: float  # hertz
    samples: int | None  # per signal
    signals: tuple[Signal, ...]
    comments: tuple[str, ...] = ()  # without "#"


@dataclass(frozen=True)
class Record:
    """A recording as its files hold it."""

    signal: npt.NDArray[Any]  # [leads, samples]: int16 microvolts (MISSING_SAMPLE) or float32 millivolts (NaN)
    names: tuple[str, ...]
    rate: float  # hertz


@lru_cache(maxsize=4096)  # a source has few folders and many files
def _inside(folder: Path, root: Path) -> bool:
    return folder.resolve().is_relative_to(root.resolve())


def is_there(file: Path) -> bool:
    """Is there something of this name? Not where the system cannot say, as of a name that is too long."""
    try:
        return file.exists()
    except OSError:
        return False


def open_inside(file: Path, folder: Path) -> tuple[int, int]:
    """(descriptor, size) of a regular file whose real place is below `folder`; RecordingError for all else."""
    if not _inside(file.parent, folder):
        raise RecordingError("outside-folder", f"{file.name} lies outside {folder.name}")
    try:
        link = file.is_symlink()
        if link and not file.resolve().is_relative_to(folder.resolve()):
            raise RecordingError("outside-folder", f"{file.name} is a link out of {folder.name}")
        # O_NOFOLLOW: a file that becomes a link meanwhile is refused. O_NONBLOCK: a pipe must not block.
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if link else os.O_NOFOLLOW))
    except RecordingError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise RecordingError("missing-file", f"{file.name} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise RecordingError("unreadable", f"{file.name}: {type(error).__name__}") from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise RecordingError("unreadable", f"{file.name} is not a regular file")
    return handle, status.st_size


def read_all(handle: int, size: int) -> bytes:
    data = os.read(handle, size)
    while len(data) < size:  # a network file system may return less than asked for
        more = os.read(handle, size - len(data))
        if not more:
            break
        data += more
    return data


def read_header(path: Path, folder: Path | None = None) -> Header:
    """Parse `path` + ".hea"; RecordingError (missing-file, outside-folder, unreadable, bad-header) if impossible."""
    file = path.with_name(path.name + ".hea")
    handle, size = open_inside(file, path.parent if folder is None else folder)
    try:
        if size > MAX_HEADER_BYTES:
            raise RecordingError("bad-header", f"{file.name} has {size} bytes, at most {MAX_HEADER_BYTES} expected")
        text = read_all(handle, size).decode("utf-8", errors="replace")
    finally:
        os.close(handle)
    lines = [line for line in text.splitlines() if line.strip()]
    comments = tuple(line.lstrip("# ") for line in lines if line.startswith("#"))
    try:
        return replace(_parse_header([line for line in lines if not line.startswith("#")]), comments=comments)
    except RecordingError as error:
        raise RecordingError(error.reason, f"{file.name}: {error.detail}") from None
    except (ValueError, IndexError, OverflowError):
        raise RecordingError("bad-header", f"{file.name} does not follow the WFDB header format") from None


def _parse_header(lines: list[str]) -> Header:
    record = lines[0].split()
    if "/" in record[0]:
        raise RecordingError("bad-header", "records of several segments are not supported")
    count = int(record[1])
    rate = float(record[2].split("/")[0].split("(")[0]) if len(record) > 2 else 250.0  # WFDB's default
    samples = int(record[3]) if len(record) > 3 else 0
    if not 1 <= count <= MAX_SIGNALS or len(lines) != count + 1:
        raise RecordingError("bad-header", f"{count} signals announced, {len(lines) - 1} described")
    if not MIN_RATE <= rate <= MAX_RATE or samples < 0 or samples * count > MAX_VALUES:
        raise RecordingError("bad-header", f"{samples} samples at {rate} Hz")
    return Header(rate, samples or None, tuple(_parse_signal(line) for line in lines[1:]))


def _parse_signal(line: str) -> Signal:
    fields = line.split(maxsplit=8)
    if len(fields) < 2:
        raise RecordingError("bad-header", "a signal line needs a file and a format")
    fields += [""] * (9 - len(fields))
    gain, baseline, units = _parse_scale(fields[2], fields[4])
    checksum = int(fields[6]) & 0xFFFF if fields[6] else None
    return Signal(fields[0], *_parse_format(fields[1]), gain, baseline, units, checksum, fields[8].strip())


@lru_cache(maxsize=64)
def _parse_format(text: str) -> tuple[str, int]:
    """(format, offset) of "16x1+24"; several samples per frame and skew are left in the format, for `wfdb` to read."""
    plain = re.fullmatch(r"(\d{1,3})(?:x1)?(?::0)?(?:\+(\d{1,9}))?", text)
    return (text, 0) if plain is None else (plain[1], int(plain[2] or 0))


@lru_cache(maxsize=1024)  # nearly all signals of a source have the same
def _parse_scale(scale: str, zero: str) -> tuple[float, float, str]:
    """(gain, baseline, units) of "1000.0(0)/mV" and the ADC zero, with WFDB's defaults."""
    scale, _, units = scale.partition("/")
    gain, _, baseline = scale.partition("(")
    values = float(gain or 0) or 200.0, float(baseline.removesuffix(")") if baseline else zero or 0)
    if not all(map(math.isfinite, values)):
        raise RecordingError("bad-header", "gain and baseline must be finite")
    return *values, units or "mV"


def read_record(path: Path, folder: Path, checksums: bool = True) -> Record:
    """Read the record `path` (no suffix), every file of which must lie below `folder`.

    RecordingError: missing-file, outside-folder, unreadable, bad-header, truncated, wrong-size, checksum.
    """
    header = read_header(path, folder)
    _check_files(path, header)
    if any(signal.units.casefold() not in MILLIVOLTS for signal in header.signals):
        raise RecordingError("bad-header", f"{path.name}.hea: expected signals in mV, µV, nV or V")
    return _read_16(path, folder, header, checksums) if _is_16(header) else _read_other(path, folder, header)


def samples_digest(path: Path, folder: Path, header: Header) -> bytes:
    """SHA-256 of the stored samples of a record: equal for equal signals, whatever the headers and preambles say.

    RecordingError as `read_record`, where the files are not there or too short.
    """
    _check_files(path, header)
    if _is_16(header):
        return hashlib.sha256(_stored_16(path, folder, header).data).digest()
    digest = hashlib.sha256()
    for name in dict.fromkeys(signal.file for signal in header.signals):
        with os.fdopen(open_inside(path.with_name(name), folder)[0], "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.digest()


def _check_files(path: Path, header: Header) -> None:
    for name in {signal.file for signal in header.signals}:
        if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise RecordingError("outside-folder", f"{path.name}.hea names a signal file outside the record's folder")


def _is_16(header: Header) -> bool:
    first = header.signals[0]
    return all((s.format, s.file, s.offset) == ("16", first.file, first.offset) for s in header.signals)


def _read_16(path: Path, folder: Path, header: Header, checksums: bool) -> Record:
    stored = _stored_16(path, folder, header)
    if checksums:
        _check_sums(stored, header, path.with_name(header.signals[0].file))
    names = tuple(signal.name for signal in header.signals)
    if all(s.gain == 1000 and s.baseline == 0 and s.units.casefold() == "mv" for s in header.signals):
        return Record(stored.T, names, header.rate)  # a view: who stores it transposes it into its place
    stored = np.ascontiguousarray(stored.T)  # makes every later pass over a lead sequential
    scales = [1000 * MILLIVOLTS[s.units.casefold()] / s.gain for s in header.signals]
    if all(x.is_integer() and 1 <= x <= 1000 for x in scales) and all(_whole(s.baseline) for s in header.signals):
        return Record(_microvolts(stored, scales, [s.baseline for s in header.signals]), names, header.rate)
    return Record(_millivolts(stored, header), names, header.rate)


def _stored_16(path: Path, folder: Path, header: Header) -> npt.NDArray[np.int16]:
    """The samples of a format 16 record as its one file holds them, [samples, signals], contiguous."""
    file, count, offset = path.with_name(header.signals[0].file), len(header.signals), header.signals[0].offset
    handle, size = open_inside(file, folder)
    try:
        if offset and os.pread(handle, len(MATLAB_5), 0) == MATLAB_5:
            return _stored_val(file, handle, size, header)
        samples = header.samples if header.samples is not None else (size - offset) // (2 * count)
        expected = offset + samples * count * 2
        if size != expected or samples * count > MAX_VALUES:
            reason = "truncated" if size < expected else "wrong-size"
            raise RecordingError(reason, f"{file.name} has {size} bytes, {expected} expected")
        data = read_all(handle, size)
    finally:
        os.close(handle)
    if len(data) != expected or samples <= 0:
        raise RecordingError("truncated", f"{file.name}: {len(data)} bytes read, {expected} expected")
    return np.frombuffer(data, dtype="<i2", offset=offset).reshape(samples, count)


def _stored_val(file: Path, handle: int, size: int, header: Header) -> npt.NDArray[np.int16]:
    """Of a MATLAB 5 file, to which the offset of its header does not apply."""
    count = len(header.signals)
    limit = 8 * count * header.samples if header.samples is not None else 2 * MAX_VALUES
    if size > limit + MATLAB_MARGIN:
        raise RecordingError("wrong-size", f"{file.name} has {size} bytes, at most {limit} expected")
    try:
        found = read_val(read_all(handle, size), count, limit)
    except ValueError as error:
        raise RecordingError("unreadable", f"{file.name}: {error}") from None
    if header.samples not in (None, len(found)) or not len(found):
        reason = "truncated" if len(found) < (header.samples or 1) else "wrong-size"
        raise RecordingError(reason, f"{file.name} has {len(found)} samples, {header.samples} expected")
    return found


def _check_sums(stored: npt.NDArray[np.int16], header: Header, file: Path) -> None:
    for found, signal in zip(_sums(stored), header.signals, strict=True):
        if signal.checksum is not None and found != signal.checksum:
            detail = f"{file.name}: lead {signal.name} sums to {found}, the header says {signal.checksum}"
            raise RecordingError("checksum", detail)


def _sums(stored: npt.NDArray[np.int16]) -> npt.NDArray[np.uint16]:
    """Of each signal of [samples, signals], modulo 65536; first of fifty samples side by side: ten times as fast."""
    samples, count = stored.shape
    whole, values = samples // 50, np.ascontiguousarray(stored).view(np.uint16)
    sides = values[: 50 * whole].reshape(whole, 50 * count).sum(axis=0, dtype=np.uint16)
    rest = values[50 * whole :].sum(axis=0, dtype=np.uint16)
    result: npt.NDArray[np.uint16] = sides.reshape(50, count).sum(axis=0, dtype=np.uint16) + rest
    return result


def _whole(baseline: float) -> bool:
    return baseline.is_integer() and abs(baseline) < 1 << 20


def _microvolts(
    stored: npt.NDArray[np.int16], scales: Sequence[float], baselines: Sequence[float]
) -> npt.NDArray[np.int16]:
    """What `standardise.to_microvolts` makes of `_millivolts`, where a stored unit is a whole number of microvolts."""
    values = stored.astype(np.int32)
    values -= np.asarray(baselines, np.int32)[:, None]
    values *= np.asarray(scales, np.int32)[:, None]
    result = np.clip(values, -32767, 32767, out=values).astype(np.int16)
    result[stored == MISSING_SAMPLE] = MISSING_SAMPLE
    return result


def _millivolts(stored: npt.NDArray[np.int16], header: Header) -> npt.NDArray[np.float32]:
    signal = stored.astype(np.float32)
    signal[stored == MISSING_SAMPLE] = np.nan
    for lead, description in zip(signal, header.signals, strict=True):
        lead -= description.baseline
        lead *= MILLIVOLTS[description.units.casefold()] / description.gain
    return signal


def _read_other(path: Path, folder: Path, header: Header) -> Record:
    for name in {signal.file for signal in header.signals}:
        os.close(open_inside(path.with_name(name), folder)[0])
    import wfdb  # slow to import, and rarely needed

    try:
        found = wfdb.rdrecord(str(path.absolute()), physical=True)
    except Exception as error:  # a damaged file makes wfdb raise almost anything
        raise RecordingError("unreadable", f"{path.name}: wfdb raised {type(error).__name__}") from None
    if found.p_signal is None or len(found.p_signal) == 0:
        raise RecordingError("truncated", f"{path.name} has no samples")
    if header.samples is not None and len(found.p_signal) != header.samples:
        raise RecordingError("truncated", f"{path.name}: {len(found.p_signal)} of {header.samples} samples")
    signal = np.ascontiguousarray(found.p_signal.T, dtype=np.float32)
    for lead, description in zip(signal, header.signals, strict=True):
        lead *= MILLIVOLTS[description.units.casefold()]
    return Record(signal, tuple(s.name for s in header.signals), header.rate)
