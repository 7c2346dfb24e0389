"""A waveform store in object storage: rows are read by range through fsspec, and kept in a local file of bounded size.

`STUDY/waveforms/` then holds nothing but a `store.json` with the keys of `Pointer`; at `url` lies what an ingest wrote.

An epoch reads every row once, in random order. Against that no rule of replacement beats none: rows are kept until the
room is full, and the others are fetched each time. The kept rows lie in one sparse file, each with a checksum that is
written after it: what a killed process left half written is fetched again, as is what a disk has spoiled.
"""

import hashlib
import json
import os
import zlib
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from einthoven.errors import EinthovenError
from einthoven.study import write_json
from einthoven.waveforms.store import (
    CHECKSUMS,
    LEAD_COUNT,
    SAMPLE,
    SETTINGS,
    Samples,
    Store,
    checked_checksums,
    checked_settings,
    header,
    shard_name,
)

CACHE: Final = Path("~/.cache/einthoven/waveforms")
ROWS, SUMS, SOURCE = "rows.bin", "sums.npy", "source.json"
KEPT: Final = np.uint64(1 << 32)
"""Added to the checksum of a row that is kept, so that 0 means that it is not."""


@dataclass(frozen=True)
class Pointer:
    """What the `store.json` of a study says whose waveforms lie elsewhere."""

    url: str  # as fsspec reads it: s3://bucket/waveforms, gs://…, az://…, https://…, file://…
    cache: str = str(CACHE)  # directory in which rows are kept
    cache_gb: float = 50.0  # 10^9 bytes of rows at most; 0: none is kept

    @classmethod
    def of(cls, values: Any, file: Path) -> Self:
        kinds: dict[str, Any] = {"url": str, "cache": str, "cache_gb": (int, float)}
        known = isinstance(values, dict) and set(values) <= set(kinds) and "url" in values
        if not known or not all(isinstance(value, kinds[name]) for name, value in values.items()):
            names = ", ".join(part.name for part in fields(cls))
            raise EinthovenError(f"{file}: expected the keys {names} (docs/scale.md), of which only url is needed.")
        if "://" not in values["url"] or "@" in values["url"].partition("://")[2].partition("/")[0]:
            raise EinthovenError(
                f"{file}: url should name a scheme, as s3://bucket/waveforms, and no user or password."
            )
        return cls(**values)


@dataclass
class RemoteStore(Store):
    """Waveforms at a URL. Cheap to pickle; safe in threads, and in processes that share one cache."""

    pointer: Pointer = field(default_factory=lambda: Pointer("memory://"))
    mark: str = ""  # of this version of the store: what is kept of another is not read

    @classmethod
    def at(cls, pointer: Pointer) -> Self:
        """EinthovenError where the URL cannot be reached or is no store."""
        system, place = _reached(pointer.url)
        file = f"{place}/{SETTINGS}"
        try:
            text, version = system.cat_file(file), system.ukey(file)
        except FileNotFoundError:
            raise EinthovenError(
                f"{pointer.url}/{SETTINGS} does not exist: copy STUDY/waveforms there whole."
            ) from None
        except Exception as error:  # each kind of storage has errors of its own
            raise EinthovenError(_unread(pointer.url, error)) from None
        try:
            settings = checked_settings(json.loads(text), Path(SETTINGS))
        except (ValueError, RecursionError):
            raise EinthovenError(f"{pointer.url}/{SETTINGS} is not JSON: copy STUDY/waveforms there again.") from None
        sums = None
        if "checksum" in settings:
            try:
                sums = checked_checksums(system.cat_file(f"{place}/{CHECKSUMS}"), Path(place), settings)
            except FileNotFoundError:
                told = f"{pointer.url}/{CHECKSUMS} does not exist: copy STUDY/waveforms there whole."
                raise EinthovenError(told) from None
        mark = hashlib.sha256(f"{pointer.url}\n{version}\n{sorted(settings.items())}".encode()).hexdigest()[:32]
        return cls(
            Path(place),
            sampling_rate=settings["sampling_rate"],
            samples=settings["samples"],
            rows=settings["rows"],
            shard_rows=settings["shard_rows"],
            _checksums=sums,
            pointer=pointer,
            mark=mark,
        )

    @cached_property
    def _system(self) -> Any:
        return _reached(self.pointer.url)[0]

    @cached_property
    def _kept(self) -> "_Kept | None":
        size = int(self.pointer.cache_gb * 1e9) // self._row_bytes
        folder = Path(self.pointer.cache).expanduser() / self.mark
        return _Kept.at(folder, self.pointer.url, self.rows, self._row_bytes, size) if size else None

    @property
    def _row_bytes(self) -> int:
        return LEAD_COUNT * self.samples * SAMPLE.itemsize

    def read(self, rows: npt.ArrayLike) -> Samples:
        wanted = self.checked(rows)
        found: dict[int, bytes] = {}
        if self._kept is not None:
            found = self._kept.read(wanted.tolist())
        missing = sorted(set(wanted.tolist()) - set(found))
        if missing:
            fetched = self._fetch(missing)
            if self._kept is not None:
                self._kept.keep(fetched)
            found |= fetched
        out = np.empty((len(wanted), LEAD_COUNT, self.samples), np.int16)
        for place, row in enumerate(wanted.tolist()):
            out[place] = np.frombuffer(found[row], SAMPLE).reshape(LEAD_COUNT, self.samples)
        self._verify(wanted, out)
        return out

    def _fetch(self, rows: list[int]) -> dict[int, bytes]:
        first, size = len(header(0, self.samples)), self._row_bytes
        files = [f"{self.path}/{shard_name(row // self.shard_rows)}" for row in rows]
        starts = [first + row % self.shard_rows * size for row in rows]
        try:
            parts = self._system.cat_ranges(files, starts, [start + size for start in starts], on_error="raise")
        except Exception as error:
            raise EinthovenError(_unread(self.pointer.url, error)) from None
        if any(len(part) != size for part in parts):
            raise EinthovenError(f"{self.pointer.url}: a shard is too short: copy STUDY/waveforms there again.")
        return dict(zip(rows, parts, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in ("_system", "_kept")}


def _reached(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    try:
        system, place = url_to_fs(url)
    except (ImportError, ValueError) as error:  # a scheme whose package is not installed, or that nobody knows
        raise EinthovenError(f"{url}: {str(error).splitlines()[0]}") from None
    return system, place.rstrip("/")


def _unread(url: str, error: Exception) -> str:
    return (
        f"{url} could not be read ({type(error).__name__}): check the address, the network and the credentials of this "
        "machine, then repeat the command; what was fetched is kept."
    )


class _Kept:
    """Rows in a local file."""

    def __init__(self, file: int, sums: npt.NDArray[np.uint64], size: int, most: int) -> None:
        self.file, self.sums, self.size = file, sums, size
        self.room = most - int(np.count_nonzero(sums))

    @classmethod
    def at(cls, folder: Path, url: str, rows: int, size: int, most: int) -> "_Kept":
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / SOURCE).exists():
            write_json(folder / SOURCE, {"url": url, "rows": rows})
        file = os.open(folder / ROWS, os.O_RDWR | os.O_CREAT, 0o600)
        with (folder / SUMS).open("ab") as marks:  # zeros that are there stay
            marks.truncate(8 * rows)
        return cls(file, np.memmap(folder / SUMS, np.uint64, "r+", shape=(rows,)), size, most)

    def read(self, rows: list[int]) -> dict[int, bytes]:
        """Those of the rows that are kept and sound."""
        found = {}
        for row in set(rows):
            if self.sums[row]:
                part = os.pread(self.file, self.size, row * self.size)
                if len(part) == self.size and KEPT + np.uint64(zlib.crc32(part)) == self.sums[row]:
                    found[row] = part
        return found

    def keep(self, rows: dict[int, bytes]) -> None:
        for row, part in rows.items():
            if not self.sums[row]:
                if self.room <= 0:
                    continue
                self.room -= 1
            os.pwrite(self.file, part, row * self.size)
            self.sums[row] = KEPT + np.uint64(zlib.crc32(part))
