"""DICOM waveforms: pydicom's own sample, units, groups, order of bytes, padding."""

import contextlib
from types import ModuleType

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.waveforms import multiplex_array

from einthoven.errors import EinthovenError
from einthoven.schema import LEADS
from einthoven.waveforms.formats import read_ecg


def test_the_sample_of_pydicom_against_pydicom() -> None:
    """A real 12-lead ECG at 1000 Hz; its second group, median beats, is left out."""
    file = get_testdata_file("waveform_ecg.dcm", download=False)
    expected = multiplex_array(pydicom.dcmread(file), 0, as_raw=False).T / 1000  # its units are microvolts
    ecg = read_ecg(file)
    assert (ecg.leads, ecg.sampling_rate, ecg.derived, ecg.meta) == (LEADS, 1000, (), {"groups": 2})
    assert ecg.signal.shape == (12, 10_000) and np.allclose(ecg.signal, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("unit", ["uV", "mV"])
def test_units_of_the_sensitivity(make: ModuleType, unit: str) -> None:
    """pydicom's multiplex_array gives the same numbers for both."""
    assert np.allclose(
        read_ecg(make.dicom(make.group(make.STORED, unit=unit))).signal, make.MILLIVOLTS, rtol=0, atol=1e-6
    )


def test_correction_and_baseline(make: ModuleType) -> None:
    group = make.group(make.STORED)
    for channel in group.ChannelDefinitionSequence:
        channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = 2, 100
    assert np.allclose(read_ecg(make.dicom(group)).signal, 2 * make.MILLIVOLTS + 0.1, rtol=0, atol=1e-6)


def test_without_a_voltage(make: ModuleType) -> None:
    with pytest.raises(EinthovenError, match="lead I: expected a sensitivity"):
        read_ecg(make.dicom(make.group(make.STORED, unit="mmHg")))
    group = make.group(make.STORED)
    del group.ChannelDefinitionSequence[0].ChannelSensitivity
    with pytest.raises(EinthovenError, match="lead I: expected a sensitivity"):
        read_ecg(make.dicom(group))


def test_codes_of_leads(make: ModuleType) -> None:
    group = make.group(make.STORED)
    numbers = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)
    for place, (channel, number) in enumerate(zip(group.ChannelDefinitionSequence, numbers, strict=True)):
        scheme = ("MDC", f"2:{number}") if place % 2 else ("SCPECG", f"5.6.3-9-{number}")
        channel.ChannelSourceSequence = [make.code(scheme[1], scheme[0], "whatever")]
    assert read_ecg(make.dicom(group)).leads == LEADS


def test_groups_one_after_another_and_a_rhythm_strip(make: ModuleType) -> None:
    """The 3x4 layout: three leads at a time, II throughout, which is the one kept."""
    quarter = make.COUNT // 4
    groups = [
        make.group(make.STORED[3 * k : 3 * k + 3, k * quarter : (k + 1) * quarter], LEADS[3 * k : 3 * k + 3],
                   MultiplexGroupTimeOffset=k * quarter * 1000 / make.RATE)
        for k in range(4)
    ]  # fmt: skip
    ecg = read_ecg(make.dicom(*groups, make.group(make.STORED[1:2], ("II",))))
    assert ecg.signal.shape == (12, make.COUNT) and ecg.leads == LEADS
    known = ~np.isnan(ecg.signal)
    assert known.sum(axis=1).tolist() == [make.COUNT if lead == "II" else quarter for lead in LEADS]
    assert np.allclose(ecg.signal[known], make.MILLIVOLTS[known], rtol=0, atol=1e-6)


def test_padding_is_missing(make: ModuleType) -> None:
    stored = make.STORED.copy()
    stored[:, -5:] = -32768
    ecg = read_ecg(make.dicom(make.group(stored, WaveformPaddingValue=b"\x00\x80")))
    assert np.isnan(ecg.signal[:, -5:]).all() and not np.isnan(ecg.signal[:, :-5]).any()


def test_big_endian(make: ModuleType) -> None:
    group = make.group(make.STORED, WaveformData=make.STORED.T.astype(">i2").tobytes())
    content = make.dicom(group, syntax=pydicom.uid.ExplicitVRBigEndian)
    assert np.allclose(read_ecg(content).signal, make.MILLIVOLTS, rtol=0, atol=1e-6)


def test_a_deflated_file_is_refused(make: ModuleType) -> None:
    with pytest.raises(EinthovenError, match="not deflated"):
        read_ecg(make.dicom(syntax=pydicom.uid.DeflatedExplicitVRLittleEndian))


def test_what_holds_no_ecg(make: ModuleType) -> None:
    with pytest.raises(EinthovenError, match="expected a WaveformSequence"):
        read_ecg(get_testdata_file("test-SR.dcm", download=False))
    with pytest.raises(EinthovenError, match="expected a WaveformSequence"):
        read_ecg(make.dicom(make.group(make.STORED, MultiplexGroupLabel="MEDIAN BEAT")))
    with pytest.raises(EinthovenError, match="none of 12 signals"):
        read_ecg(make.dicom(make.group(make.STORED, [f"Q{n}" for n in range(12)])))


def test_what_pydicom_says_of_a_value_is_not_logged(make: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    content = make.dicom().replace(b"1.2.840.10008.1.2.1\0", b"Mustermann.10008.1\0\0")
    with contextlib.suppress(EinthovenError):
        read_ecg(content)
    assert "Mustermann" in content.decode("latin-1") and caplog.text == ""
