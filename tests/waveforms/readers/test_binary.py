"""SCP-ECG, ISHNE, EDF: a second reader where there is one; what ecgdatakit would only warn of is refused."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pyedflib
import pytest

from einthoven.errors import EinthovenError
from einthoven.schema import LEADS, MISSING_SAMPLE
from einthoven.waveforms.formats import read_ecg


def test_edf_against_pyedflib(make: ModuleType, tmp_path: Path) -> None:
    make.edf(tmp_path)
    with pyedflib.EdfReader(str(tmp_path / "x.edf")) as second:
        expected = np.stack([second.readSignal(place) for place in range(12)]) / 1000
        assert second.getSampleFrequency(0) == make.RATE
    assert np.allclose(read_ecg(tmp_path / "x.edf").signal, expected, rtol=0, atol=1e-6)


def test_edf_leaves_out_what_is_no_voltage_or_has_another_rate(make: ModuleType, tmp_path: Path) -> None:
    content = make.edf(tmp_path, rates=[500] * 10 + [250, 500])
    assert read_ecg(content).leads == (*LEADS[:10], "V6")
    units = ["mV"] * 11 + ["bpm"]
    with pytest.raises(EinthovenError, match="lead V6: expected a gain"):
        read_ecg(make.edf(tmp_path, units=units))
    renamed = make.edf(tmp_path, units=units).replace(b"ECG V6", b"Pulse ")
    assert read_ecg(renamed).leads == LEADS[:11]


def test_edf_that_was_cut_is_refused(make: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="1 of 2 data records"):
        read_ecg(make.edf(tmp_path)[:-100])


def test_edf_with_gaps_is_refused(make: ModuleType, tmp_path: Path) -> None:
    content = make.edf(tmp_path).replace(b"EDF+C", b"EDF+D")
    assert read_ecg(content).signal.shape == (12, 2 * make.RATE)
    place = content.rindex(b"+1\x14\x14")
    with pytest.raises(EinthovenError, match="without gaps"):
        read_ecg(content[:place] + b"+7" + content[place + 2 :])


def test_edf_of_a_fractional_rate(make: ModuleType, tmp_path: Path) -> None:
    content = bytearray(make.edf(tmp_path, kind=pyedflib.FILETYPE_EDF))
    content[244:252] = b"1.024   "  # seconds of a data record
    assert read_ecg(bytes(content)).sampling_rate == pytest.approx(500 / 1.024)


@pytest.mark.parametrize("packed", [False, True])
def test_scp_leads_that_start_later(make: ModuleType, packed: bool) -> None:
    starts = [1] * 6 + [1001] * 6
    ecg = read_ecg(make.scp(packed, starts))
    assert ecg.signal.shape == (12, 2 * make.COUNT)
    assert np.allclose(ecg.signal[:6, : make.COUNT], make.MILLIVOLTS[:6], rtol=0, atol=1e-6)
    assert np.allclose(ecg.signal[6:, make.COUNT :], make.MILLIVOLTS[6:], rtol=0, atol=1e-6)
    assert np.isnan(ecg.signal[:6, make.COUNT :]).all() and np.isnan(ecg.signal[6:, : make.COUNT]).all()


def test_scp_rate_checksum_and_bounds(make: ModuleType) -> None:
    assert read_ecg(make.scp(interval=1953)).sampling_rate == pytest.approx(1e6 / 1953)
    content = bytearray(make.scp(packed=False))
    content[-1] ^= 1
    with pytest.raises(EinthovenError, match="checksum"):
        read_ecg(bytes(content))
    with pytest.raises(EinthovenError, match="too-large"):
        read_ecg(make.scp() + b"\0" * (4 << 20))
    with pytest.raises(EinthovenError):
        read_ecg(make.scp(starts=[1] * 11 + [4_000_000_000]))


def test_ishne_lead_faults_checksum_and_frames(make: ModuleType) -> None:
    stored = make.STORED.copy()
    stored[3, 10:20] = MISSING_SAMPLE
    ecg = read_ecg(make.ishne(stored))
    assert np.isnan(ecg.signal[3, 10:20]).all() and np.isnan(ecg.signal).sum() == 10
    with pytest.raises(EinthovenError, match="checksum"):
        read_ecg(make.ishne(crc=1))
    with pytest.raises(EinthovenError, match="whole frames"):
        read_ecg(make.ishne()[:-2])
