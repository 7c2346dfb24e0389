"""ECG files of every format, as `read_ecg` takes them: as content, and WFDB as files of a folder."""

import binascii
import importlib.util
import io
import struct
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from einthoven.schema import LEADS
from einthoven.waveforms.formats import read_ecg
from einthoven.waveforms.loading import ecg_reader, load_records
from einthoven.waveforms.wfdb_format import RecordingError
from fuzz.mutations import Tree
from fuzz.target import Run, Target, written

EVERY: Final = 400
"""Inputs for each format."""


@cache
def files() -> ModuleType:
    """tests/ecg_files.py, which writes files of every format."""
    spec = importlib.util.spec_from_file_location("ecg_files", Path(__file__).parents[1] / "tests" / "ecg_files.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeds(folder: Path) -> dict[str, tuple[str, list[bytes]]]:
    """Of each format its suffix and valid files."""
    make = files()
    plain_muse = make.muse().replace(b"LeadDataCRC32", b"LeadOther")  # or a checksum refuses what is changed
    big = make.dicom(syntax="1.2.840.10008.1.2.2")
    implicit = make.dicom(syntax="1.2.840.10008.1.2")
    (folder / "edf").mkdir(parents=True, exist_ok=True)
    return {
        "dicom": (".dcm", [make.dicom(), big, implicit]),
        "muse": (".xml", [make.muse(), plain_muse]),
        "aecg": (".xml", [make.aecg()]),
        "philips": (".xml", [make.philips(), make.philips(compressed=False)]),
        "scp": (".scp", [make.scp(), make.scp(packed=False)]),
        "ishne": (".ecg", [make.ishne()]),
        "edf": (".edf", [make.edf(folder / "edf"), make.edf(folder / "edf", kind=0)]),
        "hdf5": (".h5", [make.hdf5()]),
        "matlab": (".mat", [make.matlab(), make.matlab(packed=False)]),
        "npy": (
            ".npy",
            [make.npy(), make.npy(make.STORED.astype(np.int16)), make.npy(np.asfortranarray(make.MILLIVOLTS))],
        ),
        "csv": (".csv", [make.table(), make.table(";"), make.table(time=False, comment="# sampling_rate: 500\n")]),
    }


def of_format(name: str) -> Target:
    def prepare(folder: Path) -> tuple[list[Tree], Run]:
        suffix, whole = seeds(folder)[name]

        def run(tree: Tree) -> None:
            content = repaired(name, next(iter(tree.values()), b""))
            read_ecg(content, sampling_rate=500, unit="mV", identify=True)

        return [{f"a{suffix}": content} for content in whole], run

    return Target(f"ecg-{name}", prepare, EVERY)


def repaired(name: str, content: bytes) -> bytes:
    """With the checksum that belongs to what was changed, for most: it would refuse all damage behind it."""
    if name == "scp" and len(content) > 6 and content[-1] % 4:
        return struct.pack("<H", binascii.crc_hqx(content[2:], 0xFFFF)) + content[2:]
    if name == "ishne" and len(content) > 522 and content[-1] % 4:
        return content[:8] + struct.pack("<H", binascii.crc_hqx(content[10:522], 0xFFFF)) + content[10:]
    return content


def wfdb_seeds(folder: Path) -> list[Tree]:
    """Records of formats 16 and 212, of MATLAB 4 files and of several signal files."""
    import wfdb
    from scipy.io import savemat

    stored = files().STORED.astype(np.int16)
    sums = stored.astype(np.int64).sum(axis=1) & 0xFFFF
    rest = [f"1000(0)/mV 16 0 0 {total} 0 {lead}" for total, lead in zip(sums, LEADS, strict=True)]

    def header(file: str, form: str) -> bytes:
        return "\n".join(["r 12 500 1000", *(f"{file} {form} {line}" for line in rest), "#Age: 56", "#Dx: 1"]).encode()

    matlab = io.BytesIO()
    savemat(matlab, {"val": stored}, format="4")
    modern = io.BytesIO()
    savemat(modern, {"val": stored}, do_compression=True)
    found = [
        {"r.hea": header("r.dat", "16"), "r.dat": stored.T.tobytes()},
        {"r.hea": header("r.mat", "16+24"), "r.mat": matlab.getvalue()},
        {"r.hea": header("r.mat", "16+24"), "r.mat": modern.getvalue()},
    ]
    for form in ("80", "24", "32"):
        folder.mkdir(parents=True, exist_ok=True)
        values = (stored[:2].T % 100 - 50) / 1000.0
        wfdb.wrsamp(
            "r",
            500,
            ["mV", "mV"],
            ["I", "II"],
            values,
            fmt=[form] * 2,
            adc_gain=[1000.0] * 2,
            baseline=[0] * 2,
            write_dir=str(folder),
        )
        found.append({name: (folder / name).read_bytes() for name in ("r.hea", "r.dat")})
    for form in ("212", "61", "160", "310"):  # which only are read there: any bytes are samples of theirs
        lines = ["r 2 500", *(f"r.dat {form} 200/mV 12 0 0 0 0 {lead}" for lead in ("I", "II"))]
        found.append({"r.hea": "\n".join(lines).encode(), "r.dat": stored[:2].T.tobytes()[:3000]})
    return found


def wfdb_records() -> Target:
    def prepare(folder: Path) -> tuple[list[Tree], Run]:
        def run(tree: Tree) -> None:
            read_ecg(written(tree, folder / "record") / "r")

        return wfdb_seeds(folder / "made"), run

    return Target("ecg-wfdb", prepare, 2 * EVERY)


def archive() -> Target:
    """As an ingest reads: standardised, judged and stored; a recording that cannot be used is one reason."""

    def prepare(folder: Path) -> tuple[list[Tree], Run]:
        named = {name: (suffix, whole[0]) for name, (suffix, whole) in seeds(folder).items()}
        trees: list[Tree] = [{f"{name}{suffix}": content} for name, (suffix, content) in named.items() if name != "npy"]

        def run(tree: Tree) -> None:
            place = written(tree, folder / "archive")
            for found in load_records(folder / "study", ecg_reader(place), sorted(tree), 500, threads=1):
                if isinstance(found, RecordingError):
                    assert len(found.detail) < 1000

        return trees + wfdb_seeds(folder / "made"), run

    return Target("ecg-archive", prepare, EVERY)


TARGETS: Final = (
    *map(of_format, ("dicom", "muse", "aecg", "philips", "scp", "ishne", "edf", "hdf5", "matlab", "npy", "csv")),
    wfdb_records(),
    archive(),
)
