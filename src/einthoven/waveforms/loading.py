"""Recordings of a source -> the waveform store of a study, several at a time, in the order given."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from einthoven.schema import LEADS
from einthoven.waveforms import quality
from einthoven.waveforms.formats import WFDB_FILE, file_content, read_content, wfdb_record
from einthoven.waveforms.standardise import Samples, recorded_leads, standardise
from einthoven.waveforms.store import StoreWriter
from einthoven.waveforms.wfdb_format import Record, RecordingError, is_there, read_record

Name = TypeVar("Name")
Reader = Callable[[Name], Record]
"""What names a recording in its source -> its signal; RecordingError if it cannot be used."""

CHUNK: Final = 64  # records; 8 MB at 500 Hz, small enough to stay in the cache between passes


@dataclass(frozen=True)
class Loaded:
    """A recording that is in the store."""

    row: int
    leads: int  # bit mask of schema.LEADS
    source_rate: float  # hertz
    quality: list[str]


def wfdb_reader(folder: Path) -> Reader[str]:
    """Reads the WFDB record of a name (no suffix) below `folder`."""
    return lambda name: read_record(below(folder, name), folder)


def ecg_reader(folder: Path) -> Reader[str]:
    """Reads the file of a name below `folder`: a WFDB record, with or without suffix, or any of `formats.FORMATS`."""

    def read(name: str) -> Record:
        path = below(folder, name)
        if wfdb_record(path) is None and is_there(path) and path.is_file():
            return read_content(file_content(path, folder), path)
        return read_record(path.with_name(WFDB_FILE.sub("", path.name)), folder)

    return read


def load_records(
    study: Path,
    read: Reader[Name],
    records: Sequence[Name],
    sampling_rate: int,
    seconds: float = 10.0,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> list[Loaded | RecordingError]:
    """Read `records` by `read`, from several threads, and write the store of `study`, at `sampling_rate` hertz.

    Every record gives a Loaded or the RecordingError that keeps it out: those of `read` (for WFDB, of
    `wfdb_format.read_record`), and wrong-leads, no-signal (no sample was recorded) and flat (every recorded lead is).
    Store rows follow the order of `records`. `progress` is told (done, all). Threads suffice: file reading and NumPy
    release the interpreter lock.
    """
    samples = round(seconds * sampling_rate)
    chunks = [records[start : start + CHUNK] for start in range(0, len(records), CHUNK)]
    load = partial(_load_chunk, read, sampling_rate=sampling_rate, samples=samples)
    results: list[Loaded | RecordingError] = []
    row = 0
    with StoreWriter(study, sampling_rate, samples, len(records)) as writer:
        for chunk in _ahead(load, chunks, threads or min(8, os.cpu_count() or 1)):
            writer.write(row, chunk.block)
            for found in chunk.found:
                if isinstance(found, RecordingError):
                    results.append(found)
                else:
                    results.append(Loaded(row, *found))
                    row += 1
            if progress is not None:
                progress(len(results), len(records))
        writer.truncate(row)
    return results


@dataclass(frozen=True)
class _Chunk:
    block: Samples  # of the kept ones
    found: list[tuple[int, float, list[str]] | RecordingError]  # of all


def _ahead(load: Callable[[Sequence[Any]], _Chunk], chunks: Sequence[Sequence[Any]], threads: int) -> Iterator[_Chunk]:
    """Results in order, computed a few chunks ahead and no more, so that memory stays bounded."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Chunk]] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(load, chunk))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _load_chunk(read: Reader[Name], chunk: Sequence[Name], sampling_rate: int, samples: int) -> _Chunk:
    block = np.empty((len(chunk), len(LEADS), samples), dtype=np.int16)
    found: list[float | RecordingError] = []
    kept = 0
    for name in chunk:
        try:
            record = read(name)
            standardise(record.signal, record.names, record.rate, sampling_rate, samples, out=block[kept])
        except RecordingError as error:
            found.append(error)
        else:
            found.append(record.rate)
            kept += 1
    return _judge(block[:kept], found, sampling_rate)


def below(folder: Path, name: str) -> Path:
    """`folder` / `name`, where that lies below `folder`; RecordingError("outside-folder") else."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.name:
        raise RecordingError("outside-folder", "the file name leads out of the source folder")
    return folder / path


def _judge(block: Samples, found: Sequence[float | RecordingError], sampling_rate: int) -> _Chunk:
    """Quality flags of the block, and those kept out because nothing was recorded or nothing moves."""
    masks = recorded_leads(block)
    flags = quality.flags(block, sampling_rate)
    usable = np.ones(len(block), dtype=np.bool_)
    judged: list[tuple[int, float, list[str]] | RecordingError] = []
    place = 0
    for result in found:
        if isinstance(result, RecordingError):
            judged.append(result)
            continue
        leads = int(masks[place])
        flat = sum(flag.startswith("flat:") for flag in flags[place])
        if leads == 0:
            judged.append(RecordingError("no-signal", "no sample was recorded in any standard lead"))
        elif flat == leads.bit_count():
            judged.append(RecordingError("flat", f"all {flat} recorded leads are flat"))
        else:
            judged.append((leads, result, flags[place]))
        usable[place] = isinstance(judged[-1], tuple)
        place += 1
    return _Chunk(block if usable.all() else block[usable], judged)
