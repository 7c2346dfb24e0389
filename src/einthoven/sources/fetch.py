"""Public data sets of PhysioNet -> a directory: every file its SHA256SUMS.txt lists, checked, as published.

A killed or broken run goes on when it is repeated. What is complete is recorded in `.fetched.tsv` (SHA-256, size, time
of modification, path), so that a repeated run reads no file again. No file that was there before is ever replaced.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final
from urllib.parse import quote

from einthoven.errors import EinthovenError
from einthoven.sources.download import DownloadError, StoppedError, Transfer, download, is_allowed
from einthoven.study import lock, sha256

SITE: Final = "https://physionet.org"
SUMS: Final = "SHA256SUMS.txt"
RECORD: Final = ".fetched.tsv"
MAX_SUMS: Final = 1 << 29  # bytes; the largest listing, MIMIC-IV-ECG's, has some 200 MB
CONNECTIONS: Final = 4
SHOWN: Final = 3  # files named in an error


@dataclass(frozen=True)
class Dataset:
    """A data set of PhysioNet: its project there, and the version whose checksums are read."""

    project: str
    version: str
    source: str  # of `einthoven ingest`; empty: none
    about: str

    @property
    def page(self) -> str:
        return f"{SITE}/content/{self.project}/{self.version}/"


OPEN: Final = {
    "ptb-xl": Dataset("ptb-xl", "1.0.3", "ptbxl", "21,799 ECGs with reports, 3 GB"),
    "challenge-2020": Dataset("challenge-2020", "1.0.2", "challenge", "43,101 ECGs with diagnoses, 6 GB"),
    "challenge-2021": Dataset("challenge-2021", "1.0.3", "challenge", "88,253 ECGs with diagnoses, 11 GB"),
    "ecg-arrhythmia": Dataset("ecg-arrhythmia", "1.0.0", "challenge", "45,152 ECGs of Shaoxing and Ningbo, 5 GB"),
    "brugada-huca": Dataset("brugada-huca", "1.0.0", "challenge", "363 ECGs, Brugada or not, 25 MB"),
    "mimic-iv-ecg": Dataset("mimic-iv-ecg", "1.0", "mimic", "about 800,000 ECGs of the patients of MIMIC-IV, 90 GB"),
    "mimic-iv-ecg-demo": Dataset("mimic-iv-ecg-demo", "0.1", "mimic", "ECGs of the patients of mimic-iv-demo"),
    "mimic-iv-demo": Dataset("mimic-iv-demo", "2.2", "mimic", "the records of 100 patients, 16 MB"),
    "mimic-iv-demo-omop": Dataset("mimic-iv-demo-omop", "0.9", "omop", "the same patients in OMOP"),
    "mimic-iv-demo-meds": Dataset("mimic-iv-demo-meds", "0.0.1", "meds", "the same patients in MEDS"),
    "mimic-iv-fhir-demo": Dataset("mimic-iv-fhir-demo", "2.1.0", "fhir", "the same patients in FHIR"),
}
"""Sizes are approximate."""

CREDENTIALED: Final = {
    "mimic-iv": f"{SITE}/content/mimiciv/",
    "mimic-iv-note": f"{SITE}/content/mimic-iv-note/",
    "mimic-iv-ed": f"{SITE}/content/mimic-iv-ed/",
    "mimic-iv-echo": f"{SITE}/content/mimic-iv-echo/",
}
"""Data sets that ask for training and a signed agreement, and the page where that is done."""


@dataclass
class Fetched:
    """Counts of a run."""

    downloaded: int = 0  # files
    bytes: int = 0
    there: int = 0  # files that were complete before
    failed: dict[str, str] = field(default_factory=dict)  # path -> why


def fetch(
    name: str,
    folder: Path,
    *,
    base: str | None = None,
    only: Sequence[str] = (),
    connections: int = CONNECTIONS,
    verify: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    delay: float = 1.0,
) -> Fetched:
    """Download the data set `name` into `folder`; counts of what was done.

    `base` is another address of its files (a mirror), the folder that holds SHA256SUMS.txt. `only` keeps paths that
    fit one of the shell patterns, in which `*` also crosses folders. `verify` reads every file again. EinthovenError
    if the data set is unknown or needs credentials, if its listing is not to be trusted, or, after all others were
    tried, if a file cannot be had; `delay` is the wait before a second attempt, in seconds.
    """
    dataset = _known(name)
    base = (base or f"{SITE}/files/{dataset.project}/{dataset.version}").rstrip("/") + "/"
    if not is_allowed(base):
        raise EinthovenError(f"--base: expected an https address, since checksums come from the same place. See {base}")
    with lock(folder):
        run = _Run(base, folder, Transfer(delay=delay), verify)
        run.record.open_for(f"{name} {dataset.version}")
        files = _listing(run, name)
        wanted = {path: digest for path, digest in files.items() if _fits(path, only)}
        if not wanted:
            raise EinthovenError(f"--only: none of the {len(files)} files of {name} fits the pattern.")
        run.all(wanted, connections, progress)
    if run.done.failed:
        raise EinthovenError(_failures(run.done, len(wanted), dataset, folder))
    return run.done


def _known(name: str) -> Dataset:
    if name in CREDENTIALED:
        raise EinthovenError(f"{name} is not open: ask for access at {CREDENTIALED[name]} and download it from there.")
    if name not in OPEN:
        lines = "".join(f"\n  {known:<20}{dataset.about}" for known, dataset in OPEN.items())
        raise EinthovenError(f"unknown data set {name!r}. Known are:{lines}")
    return OPEN[name]


def _fits(path: str, only: Sequence[str]) -> bool:
    return not only or any(fnmatchcase(path, pattern) for pattern in only)


def _failures(done: Fetched, wanted: int, dataset: Dataset, folder: Path) -> str:
    named = "; ".join(f"{path}: {why}" for path, why in sorted(done.failed.items())[:SHOWN])
    more = len(done.failed) - SHOWN
    return (
        f"{len(done.failed)} of {wanted} files are not complete in {folder}: {named}"
        + (f"; and {more} more" if more > 0 else "")
        + f". The others are. Repeat the command to go on; {dataset.page} says what the data set asks for."
    )


_LINE: Final = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(\S.*)")


def _listing(run: "_Run", name: str) -> dict[str, str]:
    """SHA-256 by path, of the data set's own listing, which is fetched once and kept."""
    file = run.folder / SUMS
    if not file.exists():
        file.with_name(file.name + ".part").unlink(missing_ok=True)  # without a checksum a rest cannot be told apart
        try:
            download(run.base + SUMS, file, Transfer(delay=run.transfer.delay), limit=MAX_SUMS)
        except DownloadError as error:
            raise EinthovenError(f"{name}: {SUMS} at {run.base}: {error}.") from None
    try:
        lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except UnicodeDecodeError:
        lines = ["not text"]
    files: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line.rstrip())
        path, digest = (found[2].removeprefix("./"), found[1].lower()) if found else ("", "")
        if not is_inside(path) or files.setdefault(path, digest) != digest:
            expected = "expected a SHA-256 and a path below the folder, each path once"
            raise EinthovenError(f"{file}, line {number}: {expected}. Nothing was downloaded; delete the listing.")
    return files


def is_inside(path: str) -> bool:
    """Whether a listed path stays in its folder and away from this module's own files."""
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and not path.startswith(("/", "~")) and len(path) < 1024
    own = parts[0] in (RECORD, ".lock", SUMS) or parts[-1].endswith(".part")
    return plain and not own and all(part not in ("", ".", "..") for part in parts) and ":" not in parts[0]


class _Record:
    """`.fetched.tsv`: what is complete. The first line names the data set, each other one a file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / RECORD
        self._known: dict[str, tuple[str, int, int]] = {}

    def open_for(self, title: str) -> None:
        if not self.file.exists():
            self.file.write_text(f"# {title}\n", encoding="utf-8")
            return
        first, *lines = self.file.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        if first != f"# {title}":
            raise EinthovenError(f"{self.file.parent} holds another data set ({first[2:40]}); name another directory.")
        for line in lines:
            digest, _, rest = line.partition("\t")
            size, _, rest = rest.partition("\t")
            changed, tab, path = rest.partition("\t")
            if tab and size.isdecimal() and changed.isdecimal():  # a killed run may have left half a line
                self._known[path] = (digest, int(size), int(changed))

    def has(self, path: str, digest: str, file: Path) -> bool:
        """Whether the file was complete and has not changed since."""
        status = file.stat()
        return self._known.get(path) == (digest, status.st_size, status.st_mtime_ns)

    def add(self, path: str, digest: str, file: Path) -> None:
        status = file.stat()
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(f"{digest}\t{status.st_size}\t{status.st_mtime_ns}\t{path}\n")


class _Run:
    """One run: several threads that take files from one list."""

    def __init__(self, base: str, folder: Path, transfer: Transfer, verify: bool) -> None:
        self.base, self.folder, self.verify = base, folder, verify
        self.transfer = Transfer(self._arrived, Event(), transfer.delay)
        self.record = _Record(folder)
        self.done = Fetched()
        self._lock = Lock()

    def all(
        self, files: dict[str, str], connections: int, progress: Callable[[int, int, str], None] | None = None
    ) -> None:
        """Fetch all files; what cannot be had is in `done.failed`. Interrupted, it stops its threads first."""
        began, pending = time.monotonic(), iter(files.items())
        with ThreadPoolExecutor(max(1, connections)) as pool:
            threads = [pool.submit(self._work, pending) for _ in range(max(1, connections))]
            try:
                left: Any = threads
                while left:
                    finished, left = wait(left, timeout=0.2, return_when=FIRST_EXCEPTION)
                    for thread in finished:
                        thread.result()
                    if progress is not None:
                        progress(self._count(), len(files), f"files ({self._rate(time.monotonic() - began)})")
            finally:
                self.transfer.stop.set()

    def _work(self, pending: Iterator[tuple[str, str]]) -> None:
        while not self.transfer.stop.is_set():
            with self._lock:
                item = next(pending, None)
            if item is None:
                return
            try:
                self._one(*item)
            except StoppedError:
                return
            except DownloadError as error:
                with self._lock:
                    self.done.failed[item[0]] = str(error)

    def _one(self, path: str, digest: str) -> None:
        target = self.folder / path
        if not target.resolve().is_relative_to(self.folder.resolve()):
            raise DownloadError("a link leads out of the folder")
        if target.exists():
            if self.verify or not self.record.has(path, digest, target):
                if not target.is_file() or sha256(target) != digest:
                    raise DownloadError("what is there has another content; delete it")
                self._finished(path, digest, target)
            with self._lock:
                self.done.there += 1
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        download(self.base + quote(path), target, self.transfer, digest)
        self._finished(path, digest, target)
        with self._lock:
            self.done.downloaded += 1

    def _finished(self, path: str, digest: str, target: Path) -> None:
        with self._lock:
            self.record.add(path, digest, target)

    def _arrived(self, size: int) -> None:
        with self._lock:
            self.done.bytes += size

    def _count(self) -> int:
        return self.done.downloaded + self.done.there + len(self.done.failed)

    def _rate(self, seconds: float) -> str:
        size = self.done.bytes
        return f"{size / 1e6:,.1f} MB, {size / 1e6 / max(seconds, 1e-6):,.1f} MB/s"
