"""The recordings of a tree of WFDB headers: where they lie, what they are called and whose they are.

A recording is named by its header file. Two headers of one name are one recording if their signals are equal, and else
are named by their paths. Recordings with equal signals belong to one subject, so that no signal is in two splits.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from einthoven.sources.cells import exclusion
from einthoven.sources.challenge_header import Comments, parse_comments
from einthoven.waveforms.loading import below
from einthoven.waveforms.wfdb_format import RecordingError, read_header, samples_digest

PREFIX: Final = "challenge-"
CHUNK: Final = 256  # headers per task


@dataclass(frozen=True)
class Found:
    """A recording whose header and signal file were read."""

    name: str  # below the source, without suffix
    comments: Comments
    rate: float  # hertz
    files: tuple[str, ...]  # names of its signal files
    digest: bytes  # of its samples

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).name


@dataclass(frozen=True)
class Tree:
    """What is in a source directory; all paths are relative to it."""

    headers: list[str]  # without suffix
    signals: list[str]  # .mat and .dat files
    tables: list[str]  # every metadata.csv that lies beside a RECORDS


def walk(source: Path) -> Tree:
    """Headers and signal files in any folder, in the order of their paths. Links to folders are not followed."""
    tree = Tree([], [], [])
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        place = Path(folder).relative_to(source).as_posix()
        for name in sorted(files):
            path = name if place == "." else f"{place}/{name}"
            if name.endswith(".hea"):
                tree.headers.append(path.removesuffix(".hea"))
            elif name.endswith((".mat", ".dat")):
                tree.signals.append(path)
            elif name == "metadata.csv" and "RECORDS" in files:
                tree.tables.append(path)
    return tree


def read_all(
    source: Path, tree: Tree, progress: Callable[[int], None] | None = None
) -> tuple[list[Found], list[dict[str, Any]]]:
    """Every recording of the tree in its order, and EXCLUDED rows for headers and signal files that are of no use.

    Reasons: those of `wfdb_format.read_record`, and no-header. A header line that cannot be understood is listed too
    (bad-comment), without its recording.
    """

    def read(names: Sequence[str]) -> list[Found | RecordingError]:
        return [_read(source, name) for name in names]

    found: list[Found] = []
    excluded: list[dict[str, Any]] = []
    done = 0
    named = {f"{name}{suffix}" for name in tree.headers for suffix in (".mat", ".dat")}
    chunks = [tree.headers[at : at + CHUNK] for at in range(0, len(tree.headers), CHUNK)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for chunk, results in zip(chunks, pool.map(read, chunks), strict=True):
            for name, result in zip(chunk, results, strict=True):
                if isinstance(result, RecordingError):
                    stem = PurePosixPath(name).name
                    excluded.append(exclusion(result.reason, result.detail, f"{name}.hea", recording_id=PREFIX + stem))
                    continue
                found.append(result)
                named.update(str(PurePosixPath(name).with_name(file)) for file in result.files)
                excluded += _unread(result)
            if progress is not None:
                done += len(chunk)
                progress(done)
    orphans = (file for file in tree.signals if file not in named)
    excluded += [exclusion("no-header", "no .hea file describes it", file) for file in orphans]
    return found, excluded


def _read(source: Path, name: str) -> Found | RecordingError:
    try:
        path = below(source, name)
        header = read_header(path, source)
        digest = samples_digest(path, source, header)
    except RecordingError as error:
        return error
    files = tuple(dict.fromkeys(signal.file for signal in header.signals))
    return Found(name, parse_comments(header.comments), header.rate, files, digest)


def _unread(found: Found) -> Iterator[dict[str, Any]]:
    expected = {"Dx": "SNOMED CT codes between commas", "Chagas label": "True or False"}
    for line in found.comments.unread:
        yield exclusion("bad-comment", f"line {line}: expected {expected[line]}", f"{found.name}.hea")


def identified(found: Sequence[Found]) -> tuple[dict[str, Found], list[dict[str, Any]]]:
    """Recordings by `recording_id`, and EXCLUDED rows (duplicate-id) for copies of one; the first is kept."""
    kept: list[Found] = []
    excluded: list[dict[str, Any]] = []
    first: dict[tuple[str, bytes], Found] = {}
    for one in found:
        before = first.setdefault((one.stem, one.digest), one)
        if before is one:
            kept.append(one)
        else:
            detail = f"the same name and samples as {before.name}"
            excluded.append(exclusion("duplicate-id", detail, f"{one.name}.hea", recording_id=PREFIX + one.stem))
    times = Counter(one.stem for one in kept)
    return {PREFIX + (one.stem if times[one.stem] == 1 else one.name): one for one in kept}, excluded


def subjects(recordings: Mapping[str, Found], stated: Mapping[str, int]) -> dict[str, int]:
    """The subject of each recording: the stated one, else its header's patient, else a hash of its samples.

    Subjects that share a signal are one, the smallest of their numbers. Adding recordings changes nobody's number
    unless it shows two subjects to be one.
    """
    own = {name: stated[name] if name in stated else _subject(one) for name, one in recordings.items()}
    root: dict[int, int] = {}

    def find(subject: int) -> int:
        while root.setdefault(subject, subject) != subject:
            subject = root[subject]
        return subject

    first: dict[bytes, int] = {}
    for name, one in recordings.items():
        mine, theirs = find(own[name]), find(first.setdefault(one.digest, own[name]))
        root[max(mine, theirs)] = min(mine, theirs)
    return {name: find(subject) for name, subject in own.items()}


def _subject(one: Found) -> int:
    """63 bits of a hash."""
    comments = one.comments
    digest = one.digest
    if comments.patient is not None:
        digest = hashlib.sha256(f"patient {comments.site or ''} {comments.patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
