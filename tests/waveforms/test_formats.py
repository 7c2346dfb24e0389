"""One function for every format: the values written, bounds, errors that name the file, nothing of a patient."""

import gzip
import os
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from einthoven.errors import EinthovenError
from einthoven.schema import LEADS
from einthoven.waveforms.formats import FORMATS, MAX_BYTES, READERS, Ecg, read_ecg
from einthoven.waveforms.readers.protocol import lead_name, millivolts_per

STATING = [name for name in FORMATS if name not in ("WFDB", "npy")]


def rows(make: ModuleType, ecg: Ecg) -> np.ndarray:
    """What was written, in the order of the leads read."""
    return np.stack([make.MILLIVOLTS[LEADS.index(lead)] for lead in ecg.leads])


@pytest.mark.parametrize("name", STATING)
def test_every_format_gives_the_values_written(make: ModuleType, samples: dict[str, bytes], name: str) -> None:
    ecg = read_ecg(samples[name])
    assert (ecg.format, ecg.sampling_rate, ecg.signal.dtype) == (name, make.RATE, np.float32)
    assert len(ecg.leads) == 12 and set(ecg.leads) == set(LEADS)
    stored = len(LEADS) - len(ecg.derived)
    assert np.allclose(ecg.signal[:stored], rows(make, ecg)[:stored], rtol=0, atol=1e-6)
    assert ecg.derived == (("III", "aVR", "aVL", "aVF") if name == "GE MUSE XML" else ())


@pytest.mark.parametrize("name", STATING)
def test_who_it_is_is_only_told_when_asked(make: ModuleType, samples: dict[str, bytes], name: str) -> None:
    ecg = read_ecg(samples[name])
    assert ecg.recorded is None and ecg.subject is None
    assert make.SECRET not in repr(ecg) and "4711" not in repr(ecg)
    named = read_ecg(samples[name], identify=True)
    assert np.array_equal(named.signal, ecg.signal)
    if name not in ("CSV", "HDF5", "MATLAB"):
        assert named.subject == "4711" and make.SECRET not in repr(named)
    if name in ("DICOM ECG", "GE MUSE XML", "HL7 aECG", "ISHNE", "Philips Sierra XML"):
        assert str(named.recorded) == "2020-01-31 12:30:15"


def test_limb_leads_follow_exactly_from_i_and_ii(make: ModuleType) -> None:
    ecg = read_ecg(make.muse())
    one, two = (make.MILLIVOLTS[LEADS.index(lead)] for lead in ("I", "II"))
    for lead, values in {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}.items():
        assert np.allclose(ecg.signal[ecg.leads.index(lead)], values, rtol=0, atol=1e-6)
    part = read_ecg(make.muse(rows=[0, 6]))
    assert part.leads == ("I", "V1") and part.derived == ()
    gap = read_ecg(b"time,I (mV),II (mV)\n0,1,2\n0.5,,2\n")
    assert np.isnan(gap.signal[gap.leads.index("III"), 1]) and gap.signal[gap.leads.index("III"), 0] == 1


@pytest.mark.parametrize("form", ["16", "212", "80", "24", "32", "508", "516", "524"])
def test_wfdb_formats_against_wfdb(tmp_path: Path, form: str) -> None:
    values = np.round(np.random.default_rng(0).normal(0, 0.3, (600, 3)), 2)
    if form in ("508", "516", "524"):
        pytest.importorskip("soundfile")
    wfdb.wrsamp("r", 500, ["mV"] * 3, ["I", "II", "V1"], values, fmt=[form] * 3, adc_gain=[100.0] * 3,
                baseline=[0] * 3, write_dir=str(tmp_path))  # fmt: skip
    expected = wfdb.rdrecord(str(tmp_path / "r")).p_signal.T
    for name in ("r", "r.hea", "r.dat"):
        ecg = read_ecg(tmp_path / name)
        assert ecg.format == "WFDB" and ecg.leads[:3] == ("I", "II", "V1") and len(ecg.derived) == 4
        assert np.allclose(ecg.signal[:3], expected, rtol=0, atol=1e-6)
        assert np.allclose(expected, values.T, rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", STATING)
def test_a_path_is_read_as_its_content_gzipped_or_not(tmp_path: Path, samples: dict[str, bytes], name: str) -> None:
    expected = read_ecg(samples[name])
    (tmp_path / "plain.bin").write_bytes(samples[name])
    (tmp_path / "packed.gz").write_bytes(gzip.compress(samples[name]))
    (tmp_path / "link").symlink_to(tmp_path / "plain.bin")
    for file in ("plain.bin", "packed.gz", "link"):
        found = read_ecg(tmp_path / file)
        assert found.format == name and np.array_equal(found.signal, expected.signal, equal_nan=True)


@pytest.mark.parametrize(
    "content", [b"", b"%PDF-1.7", b"\x00" * 5000, b"<html>x</html>", b"a,b\n1,2\n", b"I am a text.\n"]
)
def test_an_unknown_file_lists_what_was_tried(content: bytes) -> None:
    with pytest.raises(EinthovenError) as told:
        read_ecg(content, "scan.pdf")
    assert str(told.value).startswith("scan.pdf: expected one of ") and all(name in str(told.value) for name in FORMATS)


def test_errors_name_the_file(tmp_path: Path, samples: dict[str, bytes]) -> None:
    for name in ("missing.xml", "nul\0", "."):
        with pytest.raises(EinthovenError):
            read_ecg(tmp_path / name)
    (tmp_path / "cut.dcm").write_bytes(samples["DICOM ECG"][:-3000])
    with pytest.raises(EinthovenError, match=r"^cut\.dcm: 10500 of 12000 samples"):
        read_ecg(tmp_path / "cut.dcm")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EinthovenError, match="pipe is not a regular file"):
        read_ecg(tmp_path / "pipe")


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path, samples: dict[str, bytes]) -> None:
    with (tmp_path / "large.edf").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(EinthovenError, match=r"large\.edf: .*too-large"):
        read_ecg(tmp_path / "large.edf")
    with pytest.raises(EinthovenError, match="too-large"):
        read_ecg(samples["EDF"], limit=1000)
    (tmp_path / "w.hea").write_text("w 1 500 40000000\nw.dat 16 1000/mV 16 0 0 0 0 II\n")
    with (tmp_path / "w.dat").open("wb") as file:
        file.truncate(80_000_000)
    with pytest.raises(EinthovenError, match="w: 80000000 bytes"):
        read_ecg(tmp_path / "w")


def test_a_gzip_bomb_is_not_unpacked(samples: dict[str, bytes]) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = packer.compress(samples["CSV"]) + packer.compress(b"0" * (1 << 23)) + packer.flush()
    assert len(bomb) < 1 << 16
    with pytest.raises(EinthovenError, match="too-large"):
        read_ecg(bomb, limit=1 << 20)
    with pytest.raises(EinthovenError, match="truncated"):
        read_ecg(gzip.compress(samples["CSV"])[:-20])
    with pytest.raises(EinthovenError, match="damaged gzip"):
        read_ecg(b"\x1f\x8b\x08" + b"\xff" * 40)


def test_names_and_units() -> None:
    named = {"MDC_ECG_LEAD_AVR": "aVR", "ECG v1": "V1", "Lead II": "II", "EKG aVl": "aVL", " iii ": "III", "V3r": "V3R"}
    assert {name: lead_name(name) for name in named} == named
    assert lead_name("Resp\x00\n of a thorax belt") == "Resp of a thorax"
    units = {"mV": 1.0, "uV": 1e-3, "µV": 1e-3, "V": 1e3, "nV": 1e-6, "MICROVOLTS": 1e-3, "millivolt": 1.0, "bpm": None}
    assert {unit: millivolts_per(unit) for unit in units} == units


def test_what_is_optional_is_asked_for(make: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pydicom", "ecgdatakit.parsing.parsers.scp_ecg"):
        monkeypatch.setitem(sys.modules, module, None)
    for content in (make.dicom(), make.scp()):
        with pytest.raises(EinthovenError, match=r"pip install einthoven\[formats\]"):
            read_ecg(content)


def test_readers_pull_in_neither_torch_nor_torchvision(tmp_path: Path, samples: dict[str, bytes]) -> None:
    for number, content in enumerate(samples.values()):
        (tmp_path / str(number)).write_bytes(content)
    program = (
        "import sys, pathlib; from einthoven.waveforms.formats import read_ecg\n"
        "for file in sorted(pathlib.Path(sys.argv[1]).iterdir()): read_ecg(file)\n"
        "print(sorted({'torch', 'torchvision', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program, str(tmp_path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


def bounded(content: bytes, secret: str) -> None:
    try:
        ecg = read_ecg(content, "x", sampling_rate=500, unit="mV", limit=1 << 20)
    except EinthovenError as error:
        assert str(error).startswith("x: ") and secret not in str(error)
        return
    assert ecg.signal.ndim == 2 and ecg.signal.size <= 1 << 26 and not np.isinf(ecg.signal).any()
    assert len(ecg.leads) == len(ecg.signal) and 0 < ecg.sampling_rate <= 1e5


_HEADS: Any = [b"", b"\0" * 128 + b"DICM", b"<RestingECG>", b"<AnnotatedECG ", b"<restingecgdata ", b"ISHNE1.0",
               b"0       ", b"\x93NUMPY\x01\x00", b"MATLAB 5.0", b"\x1f\x8b\x08", b"time,I\n"]  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(_HEADS), st.binary(max_size=600))
def test_any_bytes(head: bytes, rest: bytes) -> None:
    bounded(head + rest, "Mustermann")


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_samples(make: ModuleType, samples: dict[str, bytes], data: st.DataObject) -> None:
    """Bytes overwritten, most of them near the beginning, where headers are; cut; or with a piece out of the middle."""
    name = data.draw(st.sampled_from([*sorted(samples), "npy", "plain"]))
    content = bytearray(samples[name] if name in samples else make.npy() if name == "npy" else make.scp(False))
    last = len(content) - 1
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, min(last, 2000)) | st.integers(0, last))
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, last))
        del content[start : start + data.draw(st.integers(0, 64)) ** 2]
    bounded(bytes(content), make.SECRET)


def test_every_reader_has_a_name_of_its_own() -> None:
    assert len({reader.name for reader in READERS}) == len(READERS) == len(FORMATS) - 1
