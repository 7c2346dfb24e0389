"""The WFDB reader equals `wfdb`, and refuses what is damaged or points elsewhere."""

import os
from pathlib import Path

import numpy as np
import pytest
import wfdb
from scipy.io import savemat

from einthoven.schema import LEADS, MISSING_SAMPLE
from einthoven.waveforms.standardise import to_microvolts
from einthoven.waveforms.wfdb_format import MAX_HEADER_BYTES, RecordingError, read_header, read_record, samples_digest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = SHARED / "ptbxl-wfdb-sample-500hz"


def signal(samples: int = 50, leads: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, (leads, samples)).astype(np.int16)


def write(
    folder: Path, values: np.ndarray, scale: str = "1000.0(0)/mV", file: str = "a.dat", rate: str = "500"
) -> Path:
    """A format-16 record `a`; returns its path without suffix."""
    sums = values.astype(np.int64).sum(axis=1) & 0xFFFF
    lines = [f"a {len(values)} {rate} {values.shape[1]}", "# a comment"]
    for lead, total in enumerate(sums):
        lines.append(f"{file} 16 {scale} 16 0 {values[lead, 0]} {total} 0 {LEADS[lead % 12]}")
    (folder / "a.hea").write_text("\n".join(lines) + "\n")
    (folder / "a.dat").write_bytes(values.T.astype("<i2").tobytes())
    return folder / "a"


def reason(path: Path, folder: Path | None = None, checksums: bool = True) -> str:
    with pytest.raises(RecordingError) as caught:
        read_record(path, folder or path.parent, checksums)
    assert caught.value.detail and str(caught.value).startswith(caught.value.reason)
    return caught.value.reason


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not on this machine")
@pytest.mark.parametrize("pattern", ["records500/00000/*.hea", "records100/00000/*.hea"])
def test_equals_wfdb_on_real_records(pattern: str) -> None:
    records = [path.with_suffix("") for path in sorted(REAL.glob(pattern))][:30]
    assert records
    for path in records:
        found, expected = read_record(path, REAL), wfdb.rdrecord(str(path), physical=False)
        assert found.signal.dtype == np.int16 and np.array_equal(found.signal, expected.d_signal.T)
        assert list(found.names) == expected.sig_name and found.rate == expected.fs
        assert np.allclose(found.signal / 1000, wfdb.rdrecord(str(path)).p_signal.T)


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not on this machine")
def test_equals_wfdb_on_other_sources() -> None:
    headers = sorted((SHARED / "cinc2020-2021-mix").rglob("*.hea"))[:6]
    headers += sorted((SHARED / "brugada-huca-1.0.0").rglob("*.hea"))[:3]
    compared = 0
    for header in headers:
        path = header.with_suffix("")
        try:
            found = read_record(path, SHARED)
        except RecordingError as error:
            assert error.reason in ("missing-file", "checksum", "bad-header", "unreadable", "wrong-size"), str(error)
            continue
        expected = wfdb.rdrecord(str(path)).p_signal.T
        values = found.signal / 1000 if found.signal.dtype == np.int16 else found.signal
        assert np.allclose(values, expected, atol=1e-4, equal_nan=True)
        compared += 1
    assert compared >= 3


@pytest.mark.parametrize(
    "scale", ["200.0(0)/mV", "1000.0(12)/mV", "0.5(-3)/uV", "1e6/V", "100", "0", "1000.0(0)/mV", "4.88/µV"]
)
def test_gain_baseline_and_units_equal_wfdb(tmp_path: Path, scale: str) -> None:
    values = signal()
    values[2, 5] = MISSING_SAMPLE
    path = write(tmp_path, values, scale)
    found = read_record(path, tmp_path)
    expected = wfdb.rdrecord(str(path)).p_signal.T
    expected *= {"uV": 1e-3, "µV": 1e-3, "V": 1e3}.get(scale.partition("/")[2], 1)
    millivolts = np.where(found.signal == MISSING_SAMPLE, np.nan, found.signal / 1000.0)
    millivolts = millivolts if found.signal.dtype == np.int16 else found.signal
    assert np.allclose(millivolts, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert np.isnan(millivolts[2, 5])


@pytest.mark.parametrize(
    ("scale", "whole"), [("200.0(0)/mV", True), ("200.0(-7)/mV", True), ("0.2(3)/uV", True), ("300.0(0)/mV", False)]
)
def test_whole_microvolts_are_what_the_store_would_make_of_millivolts(tmp_path: Path, scale: str, whole: bool) -> None:
    values = np.random.default_rng(0).integers(-32768, 32768, (12, 777)).astype(np.int16)
    path = write(tmp_path, values, scale)
    found = read_record(path, tmp_path).signal
    assert (found.dtype == np.int16) == whole
    expected = wfdb.rdrecord(str(path)).p_signal.T * (1e-3 if scale.endswith("uV") else 1)
    stored = found if whole else to_microvolts(found)
    assert np.array_equal(stored, to_microvolts(expected))


@pytest.mark.parametrize("form", ["24", "32", "80", "212"])
def test_other_formats_through_wfdb(tmp_path: Path, form: str) -> None:
    values = np.sin(np.arange(200) / 9)[:, None] * np.linspace(0.1, 1, 3)
    wfdb.wrsamp(
        "b",
        fs=250,
        units=["mV"] * 3,
        sig_name=["I", "II", "V1"],
        p_signal=values,
        fmt=[form] * 3,
        write_dir=str(tmp_path),
    )
    found = read_record(tmp_path / "b", tmp_path)
    assert found.names == ("I", "II", "V1") and found.rate == 250 and found.signal.shape == (3, 200)
    assert np.allclose(found.signal, wfdb.rdrecord(str(tmp_path / "b")).p_signal.T, atol=1e-6)
    (tmp_path / "b.dat").write_bytes(b"1")
    assert reason(tmp_path / "b") in ("unreadable", "truncated")
    (tmp_path / "b.dat").unlink()
    assert reason(tmp_path / "b") == "missing-file"


def test_header_variants(tmp_path: Path) -> None:
    path = write(tmp_path, signal(), rate="500/1000(3)")
    assert read_header(path).rate == 500 and read_header(path).samples == 50
    (tmp_path / "a.hea").write_text("a 2 500\r\na.dat 16\r\na.dat 16 1000 16 0 0 0 0 long name, with (odd) text\r\n")
    header = read_header(path)
    assert header.samples is None and header.signals[0].gain == 200 and header.signals[0].checksum is None
    assert header.signals[1].name == "long name, with (odd) text"
    assert read_record(path, tmp_path, checksums=False).signal.shape == (2, 300)
    assert reason(path) == "checksum"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a twelve",
        "a 1 500 50",
        "a 2 500 50\na.dat 16",
        "a/3 1 500 50\na 50",
        "a 0 500 50",
        "a 9999 500 50",
        "a 1 0 50\na.dat 16",
        "a 1 nan 50\na.dat 16",
        "a 1 500 -5\na.dat 16",
        "a 1 500 99999999999\na.dat 16",
        "a 1 500 50\na.dat",
        "a 1 500 50\na.dat 16 inf",
        "a 1 500 50\na.dat 16 1000/mmHg",
        "a 1 500 50\na.dat 16 1000 16 0 0 x",
        "\x00\x01\x02",
    ],
)
def test_bad_headers(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, signal())
    (tmp_path / "a.hea").write_text(text)
    assert reason(path) == "bad-header"


def test_header_size_is_bounded(tmp_path: Path) -> None:
    path = write(tmp_path, signal())
    (tmp_path / "a.hea").write_bytes(b"#" * (MAX_HEADER_BYTES + 1))
    assert reason(path) == "bad-header"


def test_damaged_files(tmp_path: Path) -> None:
    path = write(tmp_path, signal())
    whole = (tmp_path / "a.dat").read_bytes()
    (tmp_path / "a.dat").write_bytes(whole[:-2])
    assert reason(path) == "truncated"
    (tmp_path / "a.dat").write_bytes(whole + b"12")
    assert reason(path) == "wrong-size"
    (tmp_path / "a.dat").write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert reason(path) == "checksum"
    assert read_record(path, tmp_path, checksums=False).signal.shape == (12, 50)
    (tmp_path / "a.dat").unlink()
    assert reason(path) == "missing-file"
    (tmp_path / "a.hea").unlink()
    assert reason(path) == "missing-file"


@pytest.mark.parametrize("file", ["../x.dat", "/etc/passwd", "sub/x.dat", "..", ".", "..\\x.dat", "x\0.dat"])
@pytest.mark.parametrize("form", ["16", "212"])
def test_signal_files_elsewhere_are_refused(tmp_path: Path, file: str, form: str) -> None:
    folder = tmp_path / "inner"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "x.dat", folder / "sub" / "x.dat"):
        place.write_bytes(signal().T.tobytes())
    path = write(folder, signal(), file=file)
    (folder / "a.hea").write_text((folder / "a.hea").read_text().replace(" 16 1000", f" {form} 1000"))
    assert reason(path) == "outside-folder"


def test_links_and_special_files(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    source.mkdir(), elsewhere.mkdir()
    path = write(source, signal())
    (source / "a.dat").rename(elsewhere / "a.dat")
    (source / "a.dat").symlink_to(elsewhere / "a.dat")
    assert reason(path) == "outside-folder"
    assert read_record(path, tmp_path).signal.shape == (12, 50)  # a link within the source is fine
    (source / "linked").symlink_to(elsewhere)
    write(elsewhere, signal())
    assert reason(source / "linked" / "a", source) == "outside-folder"
    (source / "a.dat").unlink()
    os.mkfifo(source / "a.dat")
    assert reason(path) == "unreadable"
    (source / "a.dat").unlink()
    (source / "a.dat").mkdir()
    assert reason(path) == "unreadable"


def test_a_preamble_is_passed_over_and_matlab_5_is_read(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(-900, 900, (12, 300)).astype(np.int16)
    savemat(tmp_path / "four.mat", {"val": values}, format="4")
    savemat(tmp_path / "five.mat", {"val": values.astype(float)}, do_compression=True)
    digests = set()
    for name, form in (("four", "16+24"), ("five", "16+24"), ("frames", "16x1:0+24")):
        file = "four" if name == "frames" else name
        sums = values.sum(axis=1) & 0xFFFF
        lines = [f"{file}.mat {form} 1000/mv 16 0 0 {sums[i]} 0 {LEADS[i]}" for i in range(12)]
        (tmp_path / f"{name}.hea").write_text("\n".join([f"{name}.mat 12 500 300", *lines, "#Age: 3", "# Dx: 1"]))
        header = read_header(tmp_path / name)
        assert header.comments == ("Age: 3", "Dx: 1") and header.signals[0].format == "16"
        assert np.array_equal(read_record(tmp_path / name, tmp_path).signal, values)
        digests.add(samples_digest(tmp_path / name, tmp_path, header))
    assert len(digests) == 1
    whole = (tmp_path / "four.mat").read_bytes()
    for content, reason in ((whole[:-1], "truncated"), (whole + b"0", "wrong-size"), (whole[:10], "truncated")):
        (tmp_path / "four.mat").write_bytes(content)
        with pytest.raises(RecordingError) as caught:
            read_record(tmp_path / "four", tmp_path)
        assert caught.value.reason == reason
    savemat(tmp_path / "five.mat", {"val": values[:, :-1]})
    with pytest.raises(RecordingError, match="truncated"):
        read_record(tmp_path / "five", tmp_path)
    (tmp_path / "five.mat").write_bytes(b"MATLAB 5.0 but no such file")
    with pytest.raises(RecordingError, match="unreadable"):
        read_record(tmp_path / "five", tmp_path)


def test_formats_that_are_not_plain_16_keep_their_notation(tmp_path: Path) -> None:
    (tmp_path / "a.hea").write_text("a 3 100 10\na.dat 16x2 200\na.dat 212+8 200\na.dat 16:5 200\n")
    assert [(s.format, s.offset) for s in read_header(tmp_path / "a").signals] == [
        ("16x2", 0),
        ("212", 8),
        ("16:5", 0),
    ]
