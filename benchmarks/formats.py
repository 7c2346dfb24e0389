"""Files of each format per second: 12 leads, 10 s, 500 Hz, as tests/ecg_files.py writes them, on one core.

OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/formats.py
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import wfdb

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import ecg_files as make
from einthoven.schema import LEADS
from einthoven.waveforms.formats import read_ecg

SAMPLES = 5000


def files(folder: Path) -> dict[str, Path]:
    noise = np.random.default_rng(0)
    stored = (0.6 * noise.normal(size=(12, SAMPLES)).cumsum(axis=1) + noise.normal(0, 2, (12, SAMPLES))).round()
    make.COUNT, make.STORED = SAMPLES, stored.astype(np.int64)
    millivolts = stored * make.GAIN / 1000
    described = {"sampling_rate": make.RATE, "unit": "mV"}
    contents = {
        "DICOM": make.dicom(make.group(make.STORED)),
        "MUSE": make.muse(),
        "aECG": make.aecg(),
        "Philips, XLI": make.philips(make.xli(make.STORED)),
        "Philips, base64": make.philips(make.STORED.astype("<i2").tobytes(), compressed=False),
        "SCP-ECG, Huffman": make.scp(),
        "SCP-ECG, plain": make.scp(packed=False),
        "ISHNE": make.ishne(make.STORED),
        "EDF": make.edf(folder, seconds=SAMPLES // make.RATE),
        "HDF5, gzip": make.hdf5(millivolts.T, leads=list(LEADS), **described),
        "MATLAB": make.matlab(packed=False, ecg=millivolts, **described),
        "MATLAB, compressed": make.matlab(ecg=millivolts, **described),
        "CSV": make.table(),
        "npy": make.npy(millivolts),
    }
    found = {name: folder / name.replace(", ", "_") for name in contents}
    for name, content in contents.items():
        found[name].write_bytes(content)
    for form in ("16", "212", "516"):
        wfdb.wrsamp(f"w{form}", make.RATE, ["mV"] * 12, list(LEADS), millivolts.T, fmt=[form] * 12,
                    adc_gain=[200.0] * 12, baseline=[0] * 12, write_dir=str(folder))  # fmt: skip
        found[f"WFDB {form}"] = folder / f"w{form}"
    return found


def rate(file: Path, seconds: float = 1.0) -> float:
    done, start = 0, time.perf_counter()
    while (past := time.perf_counter() - start) < seconds:
        ecg = read_ecg(file, sampling_rate=make.RATE, unit="mV")
        assert ecg.signal.shape == (12, SAMPLES)
        done += 1
    return done / past


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for name, file in files(Path(folder)).items():
            rate(file, 0.1)
            print(f"{name:20}{max(rate(file) for _ in range(3)):8.0f}/s")


if __name__ == "__main__":
    main()
