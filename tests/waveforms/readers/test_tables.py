"""MATLAB, HDF5, npy, CSV: what they state, what must be said, and what is not followed."""

import io
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest

from einthoven.errors import EinthovenError
from einthoven.schema import LEADS
from einthoven.waveforms.formats import read_ecg

SAID: dict[str, Any] = {"sampling_rate": 500, "unit": "mV"}


def close(make: ModuleType, content: bytes, **hints: Any) -> bool:
    ecg = read_ecg(content, **hints)
    right = (ecg.leads, ecg.sampling_rate) == (LEADS, 500)
    return right and bool(np.allclose(ecg.signal, make.MILLIVOLTS, rtol=0, atol=1e-5))


@pytest.mark.parametrize("values", ["MILLIVOLTS", "columns", "float32", "fortran"])
def test_npy_either_way_round(make: ModuleType, values: str) -> None:
    millivolts = make.MILLIVOLTS
    array = {"columns": millivolts.T, "float32": millivolts.astype("f4"), "fortran": np.asfortranarray(millivolts)}
    assert close(make, make.npy(array.get(values, millivolts)), **SAID)
    assert close(make, make.npy((make.STORED * 5).astype(np.int16)), sampling_rate=500, unit="uV")


def test_what_is_not_stated_is_asked_for(make: ModuleType) -> None:
    with pytest.raises(EinthovenError, match="states no sampling rate: expected sampling_rate"):
        read_ecg(make.npy(), unit="mV")
    with pytest.raises(EinthovenError, match="states no unit: expected unit"):
        read_ecg(make.npy(), sampling_rate=500)
    with pytest.raises(EinthovenError, match="8 x 1000 numbers and 0 names"):
        read_ecg(make.npy(make.MILLIVOLTS[:8]), **SAID)
    eight = tuple(LEADS[place] for place in make.EIGHT)
    ecg = read_ecg(make.npy(make.MILLIVOLTS[make.EIGHT]), leads=eight, **SAID)
    assert ecg.leads[:8] == eight and len(ecg.derived) == 4
    assert read_ecg(make.npy(make.MILLIVOLTS[0]), leads=("II",), **SAID).leads == ("II",)


def test_pickled_arrays_are_refused() -> None:
    class Loaded:
        def __reduce__(self) -> Any:
            return pytest.fail, ("unpickled",)

    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (12, 9)})
    for content in (file.getvalue() + pickle.dumps(Loaded()), pickle.dumps(Loaded())):
        with pytest.raises(EinthovenError):
            read_ecg(content, **SAID)


def test_an_npy_that_announces_more_than_it_holds(make: ModuleType) -> None:
    content = make.npy().replace(b"(12, 1000)", b"(99, 9999)")
    with pytest.raises(EinthovenError, match="as many as the header says"):
        read_ecg(content, **SAID)


def test_matlab_variables(make: ModuleType) -> None:
    assert close(make, make.matlab(packed=False, signal=make.MILLIVOLTS.T, sampling_rate=500.0, unit="mV"))
    assert close(make, make.matlab(ecg=make.MILLIVOLTS, fs=500, unit="mV", leads=", ".join(LEADS), other={"a": 1}))
    assert close(make, make.matlab(val=make.STORED * 5), sampling_rate=500, unit="uV")
    for wrong in ({"x": make.STORED}, {"val": {"a": 1}}, {"val": "text"}, {"val": np.zeros((2, 2, 2))}):
        with pytest.raises(EinthovenError, match="expected a matrix of numbers called signal, ecg, val"):
            read_ecg(make.matlab(**wrong), **SAID)


def test_hdf5_attributes_datasets_and_matlab_7_3(make: ModuleType) -> None:
    assert close(make, make.hdf5(make.STORED * 5, fs=500, units="uV"))
    file = io.BytesIO()
    with h5py.File(file, "w", userblock_size=512) as out:
        out["signal"], out["fs"] = make.MILLIVOLTS.T, np.array([[500.0]])
        out["unit"] = np.array([[ord(letter)] for letter in "mV"], np.uint16)
    seven = b"MATLAB 7.3 MAT-file".ljust(512, b"\0") + file.getvalue()[512:]
    assert close(make, seven)


def test_hdf5_reads_nothing_outside_the_file(make: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "other.h5").write_bytes(make.hdf5())
    (tmp_path / "raw").write_bytes(make.MILLIVOLTS.tobytes())

    def linked(out: Any) -> None:
        out["ecg"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "ecg")

    def soft(out: Any) -> None:
        out["ecg"] = h5py.SoftLink("/elsewhere")

    def stored_elsewhere(out: Any) -> None:
        out.create_dataset("ecg", (12, 1000), "f8", external=[(str(tmp_path / "raw"), 0, 96_000)])

    def virtual(out: Any) -> None:
        layout = h5py.VirtualLayout((1000, 12), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "ecg", (1000, 12))
        out.create_virtual_dataset("ecg", layout)

    for make_it in (linked, soft, stored_elsewhere, virtual):
        file = io.BytesIO()
        with h5py.File(file, "w") as out:
            make_it(out)
        with pytest.raises(EinthovenError, match="expected"):
            read_ecg(file.getvalue(), **SAID)


def test_hdf5_that_would_fill_the_memory(make: ModuleType) -> None:
    file = io.BytesIO()
    with h5py.File(file, "w") as out:
        out.create_dataset("ecg", (12, 1 << 30), "f8", chunks=(12, 1 << 10), compression="gzip")
    with pytest.raises(EinthovenError, match="too-large"):
        read_ecg(file.getvalue(), **SAID)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"delimiter": ";"},
        {"delimiter": "\t", "comment": "\n# made by hand\n"},
        {"unit": "", "comment": "# unit: uV\n"},
        {"unit": " [uV]", "time": False, "comment": "# sampling_rate = 500 Hz\r\n"},
    ],
)
def test_csv_forms(make: ModuleType, options: dict[str, Any]) -> None:
    content = make.table(**options)
    assert (
        close(make, content) and close(make, b"\xef\xbb\xbf" + content) and close(make, content.replace(b"\n", b"\r\n"))
    )


def test_csv_times() -> None:
    assert read_ecg(b"time_ms,II (mV)\n0,1\n4,2\n8,3\n").sampling_rate == 250
    assert read_ecg(b"t;II (mV)\n0;1,5\n0,01;2,5\n").signal.tolist() == [[1.5, 2.5]]
    rounded = "".join(f"{place / 360:.3f},{place}\n" for place in range(3600))
    assert read_ecg(b"time,II (mV)\n" + rounded.encode()).sampling_rate == 360
    for times in ("0,0,0", "0,1,9", "2,1,0", "0,,2"):
        rows = "".join(f"{time},1\n" for time in times.split(","))
        with pytest.raises(EinthovenError, match="expected"):
            read_ecg(b"time,II (mV)\n" + rows.encode())


def test_csv_that_is_damaged(make: ModuleType) -> None:
    content = make.table()
    for wrong in (content + b"1,2\n", content + b",".join([b"Mustermann"] * 13) + b"\n"):
        with pytest.raises(EinthovenError, match="expected 13 numbers in each row") as told:
            read_ecg(wrong)
        assert "Mustermann" not in str(told.value)
    with pytest.raises(EinthovenError, match="states no unit"):
        read_ecg(make.table(unit=""))
    assert np.isnan(read_ecg(b"time,I (mV)\n0,1\n1,\n2,nan\n").signal[0, 1:]).all()
