"""The waveform store: int16 microvolts in npy shards, written once and read by memory map (see schema.WAVEFORMS).

Every row has a checksum, and a process gives out no row that did not have it when it was read first.
"""

import io
import json
import os
import sys
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.study import atomic

Samples = npt.NDArray[np.int16]
Checksums = npt.NDArray[np.uint32]

LEAD_COUNT = len(schema.LEADS)
SETTINGS = "store.json"
CHECKSUMS = "rows.crc32"
"""CRC-32 of each row's bytes, as uint32; the `checksum` of SETTINGS is of this file and the settings themselves."""
SAMPLE = np.dtype("<i2")
CHECKSUM = np.dtype("<u4")


def shard_name(shard: int) -> str:
    return f"{shard:05d}.npy"


def _checksum_of(settings: dict[str, int], checksums: Checksums) -> int:
    named = ("sampling_rate", "samples", "shard_rows", "rows")
    return zlib.crc32(checksums.tobytes(), zlib.crc32(repr([settings[name] for name in named]).encode()))


def header(rows: int, samples: int) -> bytes:
    """The npy header of a shard. NumPy pads it, so its length does not depend on the number of rows."""
    buffer = io.BytesIO()
    shape = (rows, LEAD_COUNT, samples)
    np.lib.format.write_array_header_1_0(buffer, {"descr": SAMPLE.str, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


class StoreWriter:
    """Writes a study's waveforms; the directory appears whole when the `with` block succeeds, or not at all.

    `rows` is an upper bound: call `truncate` before the end of the block when fewer came. Every row below the final
    count must have been written. `write` may be called from several threads.
    """

    def __init__(self, study: Path, sampling_rate: int, samples: int, rows: int, shard_rows: int = 4096) -> None:
        if sampling_rate < 1 or samples < 1 or rows < 0 or shard_rows < 1:
            raise ValueError(f"bad store size: {sampling_rate=} {samples=} {rows=} {shard_rows=}")
        self._path = study / schema.WAVEFORMS
        self._sampling_rate, self._samples, self._rows, self._shard_rows = sampling_rate, samples, rows, shard_rows
        self._stack = ExitStack()
        self._files: dict[int, int] = {}  # shard -> file descriptor
        self._written = np.zeros(rows, dtype=np.bool_)
        self._checksums = np.zeros(rows, dtype=CHECKSUM)

    def __enter__(self) -> Self:
        self._temporary = self._stack.enter_context(atomic(self._path))
        self._temporary.mkdir()
        # All shards are opened here, so that `write` needs no lock; holes cost no disk space.
        for shard in range(-(-self._rows // self._shard_rows)):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._files[shard] = os.open(self._temporary / shard_name(shard), flags, 0o644)
        return self

    def write(self, first_row: int, block: Samples) -> None:
        """Store int16 microvolts [n, 12, samples] as rows first_row, first_row + 1, …, in any order of calls."""
        if block.dtype != np.int16 or block.ndim != 3 or block.shape[1:] != (LEAD_COUNT, self._samples):
            raise ValueError(f"expected int16 [n, {LEAD_COUNT}, {self._samples}], not {block.dtype} {block.shape}")
        last = first_row + len(block)
        if first_row < 0 or last > self._rows:
            raise ValueError(f"rows {first_row} to {last} are outside a store of {self._rows} rows")
        block = np.ascontiguousarray(block, dtype=SAMPLE)
        start = first_row
        while start < last:
            shard, offset = divmod(start, self._shard_rows)
            stop = min(last, (shard + 1) * self._shard_rows)
            self._write_shard(shard, offset, block[start - first_row : stop - first_row])
            start = stop
        self._checksums[first_row:last] = [zlib.crc32(row) for row in block]
        self._written[first_row:last] = True

    def _write_shard(self, shard: int, offset: int, part: Samples) -> None:
        place = len(header(0, self._samples)) + offset * LEAD_COUNT * self._samples * SAMPLE.itemsize
        view = memoryview(part.data).cast("B")
        while view:  # a single call writes 2 GiB at most
            done = os.pwrite(self._files[shard], view, place)
            view, place = view[done:], place + done

    def truncate(self, rows: int) -> None:
        """Lower the number of rows to `rows`, dropping what was written beyond."""
        if not 0 <= rows <= self._rows:
            raise ValueError(f"cannot truncate a store of {self._rows} rows to {rows}")
        self._rows = rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException:
            self._close()
            self._stack.__exit__(*sys.exc_info())
            raise
        self._close()
        self._stack.__exit__(kind, error, trace)

    def _finish(self) -> None:
        holes = np.flatnonzero(~self._written[: self._rows])
        if len(holes):
            raise ValueError(f"{len(holes)} of {self._rows} rows were never written, first {holes[0]}")
        for shard, file in self._files.items():
            rows = min(self._rows - shard * self._shard_rows, self._shard_rows)
            if rows <= 0:
                (self._temporary / shard_name(shard)).unlink()
                continue
            start = header(rows, self._samples)
            os.pwrite(file, start, 0)
            os.ftruncate(file, len(start) + rows * LEAD_COUNT * self._samples * SAMPLE.itemsize)
        settings = {
            "sampling_rate": self._sampling_rate,
            "samples": self._samples,
            "shard_rows": self._shard_rows,
            "rows": self._rows,
        }
        checksums = self._checksums[: self._rows]
        (self._temporary / CHECKSUMS).write_bytes(checksums.tobytes())
        settings["checksum"] = _checksum_of(settings, checksums)
        (self._temporary / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()


@dataclass
class Store:
    """A study's waveforms. Cheap to pickle and safe to fork: memory maps are opened where rows are first read."""

    path: Path
    sampling_rate: int  # hertz
    samples: int  # per lead and row
    rows: int
    shard_rows: int
    _checksums: Checksums | None = field(default=None, repr=False, compare=False)  # None: written before there were any
    _sound: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_), repr=False, compare=False)
    _maps: dict[int, Samples] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, study: Path) -> "Store":
        """Open the store of a study; EinthovenError where it is missing, incomplete or not what store.json says.

        Where store.json names a `url`, the store lies there (remote.py).
        """
        path = study / schema.WAVEFORMS
        found = _read_settings(path / SETTINGS)
        if isinstance(found, dict) and "url" in found:
            from einthoven.waveforms.remote import Pointer, RemoteStore

            return RemoteStore.at(Pointer.of(found, path / SETTINGS))
        settings = checked_settings(found, path / SETTINGS)
        store = cls(
            path,
            sampling_rate=settings["sampling_rate"],
            samples=settings["samples"],
            rows=settings["rows"],
            shard_rows=settings["shard_rows"],
            _checksums=_read_checksums(path, settings),
        )
        for shard in range(-(-store.rows // store.shard_rows)):
            store._check_size(shard)
        return store

    def _shard_shape(self, shard: int) -> tuple[int, int, int]:
        return min(self.shard_rows, self.rows - shard * self.shard_rows), LEAD_COUNT, self.samples

    def _check_size(self, shard: int) -> None:
        file = self.path / shard_name(shard)
        rows, _, samples = self._shard_shape(shard)
        expected = len(header(rows, samples)) + rows * LEAD_COUNT * samples * SAMPLE.itemsize
        try:
            found = file.stat().st_size
        except OSError:
            raise EinthovenError(f"{file} is missing. {_again(self.path)}") from None
        if found != expected:
            raise EinthovenError(f"{file} has {found} bytes instead of {expected}. {_again(self.path)}")

    def _map(self, shard: int) -> Samples:
        if shard not in self._maps:
            file = self.path / shard_name(shard)
            try:
                found = np.load(file, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise EinthovenError(f"{file} is not a readable shard ({error}). {_again(self.path)}") from None
            if found.dtype != SAMPLE or found.shape != self._shard_shape(shard):
                expected = f"int16 {self._shard_shape(shard)}"
                found_there = f"{found.dtype} {found.shape}"
                raise EinthovenError(f"{file} holds {found_there} instead of {expected}. {_again(self.path)}")
            self._maps[shard] = found
        return self._maps[shard]

    def read(self, rows: npt.ArrayLike) -> Samples:
        """Rows of the store, in the order asked for and with repeats, as int16 microvolts [n, 12, samples]."""
        wanted = self.checked(rows)
        out = np.empty((len(wanted), LEAD_COUNT, self.samples), dtype=np.int16)
        if len(wanted) == 0:
            return out
        order = np.argsort(wanted, kind="stable")  # ascending places on disk
        shards = wanted[order] // self.shard_rows
        starts = np.flatnonzero(np.r_[True, shards[1:] != shards[:-1]])
        for places in np.split(order, starts[1:]):
            shard = int(wanted[places[0]]) // self.shard_rows
            held, held_rows = self._map(shard), wanted[places] - shard * self.shard_rows
            for place, row in zip(places.tolist(), held_rows.tolist(), strict=True):
                out[place] = held[row]  # copied once: all at a time would be gathered first, at four times the cost
        self._verify(wanted, out)
        return out

    def verify(self, rows: int = 1024) -> None:
        """Read everything once, so many rows at a time; EinthovenError where a row is not as it was written."""
        for first in range(0, self.rows, rows):
            self.read(np.arange(first, min(first + rows, self.rows)))

    def _verify(self, rows: npt.NDArray[np.int64], block: Samples) -> None:
        """Compare rows that this process reads for the first time with their checksums."""
        if self._checksums is None:
            return
        if not len(self._sound):
            self._sound = np.zeros(self.rows, np.bool_)
        new = np.flatnonzero(~self._sound[rows])
        found = np.fromiter((zlib.crc32(block[i].astype(SAMPLE, copy=False)) for i in new), CHECKSUM, len(new))
        changed = rows[new][found != self._checksums[rows[new]]]
        if len(changed):
            file = self.path / shard_name(int(changed[0]) // self.shard_rows)
            raise EinthovenError(f"{file}: row {changed[0]} of the store is not as it was written. {_again(self.path)}")
        self._sound[rows[new]] = True

    def checked(self, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Rows that the store has, int64 [n]; EinthovenError names others."""
        wanted = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self.rows):
            found = f"rows {wanted.min()} to {wanted.max()}"
            raise EinthovenError(f"{self.path} has {self.rows} rows, but {found} were asked for. {_again(self.path)}")
        return wanted

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a pickled memory map would carry the whole shard


def _again(path: Path) -> str:
    return f"The waveform store is damaged: delete {path}, then run `einthoven ingest` again."


def _read_settings(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EinthovenError(f"{file} is missing: this study has no waveforms. Run `einthoven ingest` first.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise EinthovenError(f"{file} is not readable JSON ({error}). {_again(file.parent)}") from None


def checked_settings(found: Any, file: Path) -> dict[str, int]:
    """The settings of a store, as its `store.json` has them."""
    least = {"sampling_rate": 1, "samples": 1, "shard_rows": 1, "rows": 0}
    if isinstance(found, dict) and "checksum" in found:
        least["checksum"] = 0
    if not isinstance(found, dict) or set(found) != set(least):
        raise EinthovenError(f"{file}: expected the keys {', '.join(least)}. {_again(file.parent)}")
    for name, minimum in least.items():
        if type(found[name]) is not int or found[name] < minimum:
            raise EinthovenError(f"{file}: {name} should be a whole number, at least {minimum}. {_again(file.parent)}")
    return found


def _read_checksums(path: Path, settings: dict[str, int]) -> Checksums | None:
    """Of each row; None for a store of an earlier version, which has none."""
    if "checksum" not in settings:
        return None
    try:
        return checked_checksums((path / CHECKSUMS).read_bytes(), path, settings)
    except OSError:
        raise EinthovenError(f"{path / CHECKSUMS} is missing. {_again(path)}") from None


def checked_checksums(content: bytes, path: Path, settings: dict[str, int]) -> Checksums:
    """The checksums of a store's rows, as the file CHECKSUMS has them."""
    found = np.frombuffer(content[: len(content) // 4 * 4], CHECKSUM)
    if len(found) != settings["rows"] or _checksum_of(settings, found) != settings["checksum"]:
        raise EinthovenError(f"{path}: {SETTINGS} and {CHECKSUMS} do not belong together. {_again(path)}")
    return found
