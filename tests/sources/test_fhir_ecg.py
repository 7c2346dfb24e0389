"""SampledData: the voltages FHIR defines, the leads its codes name, and why a signal cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.schema import LEADS
from einthoven.sources.fhir_ecg import Place, is_ecg, lead_of, read_ecg, signal_of
from einthoven.waveforms.wfdb_format import RecordingError

MDC = "urn:oid:2.16.840.1.113883.6.24"


def sampled(data: str = "1 2 3", lead: str = "I", **more: Any) -> dict[str, Any]:
    values = {"origin": {"value": 0, "unit": "mV"}, "period": 2, "factor": 1, "dimensions": 1, "data": data, **more}
    return {"code": {"text": f"Lead {lead}"}, "valueSampledData": values}


def observation(*components: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Observation", "component": list(components)}


def values(**more: Any) -> list[float]:
    return list(signal_of(observation(sampled(**more))).signal[0])


def coded(code: str, display: str | None = None) -> dict[str, Any]:
    return {"coding": [{"system": MDC, "code": code, "display": display}]}


def test_leads() -> None:
    potentials = [131329, 131330, 131389, 131390, 131391, 131392, 131331, 131332, 131333, 131334, 131335, 131336]
    assert [lead_of(coded(str(code))) for code in potentials] == list(LEADS)
    assert [lead_of(coded(str(code - 256))) for code in potentials] == list(LEADS)  # MDC_ECG_LEAD_*
    assert [lead_of(coded(f"2:{code - (2 << 16)}")) for code in potentials] == list(LEADS)
    for lead in LEADS:
        for name in (
            f"MDC_ECG_ELEC_POTL_{lead.upper()}",
            f"MDC_ECG_LEAD_{lead}",
            f"Lead {lead}",
            f"ecg lead {lead}",
            lead,
        ):
            assert lead_of(coded("x", name)) == lead_of({"text": name}) == lead
    for none in (coded("131328"), coded("131395", "MDC_ECG_ELEC_POTL_V"), {"text": "Lead V9"}, {"text": ""}, None, "I"):
        assert lead_of(none) is None


def test_the_voltage_is_data_times_factor_plus_origin() -> None:
    assert values(data="1 -2 3.5", factor=0.5, origin={"value": 10, "unit": "mV"}) == [10.5, 9.0, 11.75]
    assert values(data="1000 2000", origin={"value": 0, "code": "uV", "unit": "microvolt"}) == [1.0, 2.0]
    assert values(data="1 2", origin={"value": 0, "unit": "V"}) == [1000.0, 2000.0]
    assert values(data="1e1 1E1\n+2") == [10.0, 10.0, 2.0]
    del (one := sampled())["valueSampledData"]["factor"]
    assert list(signal_of(observation(one)).signal[0]) == [1.0, 2.0, 3.0]


def test_what_was_not_measured() -> None:
    low_high = {"lowerLimit": -3, "upperLimit": 4}
    found = values(data="E 1 L U", **low_high)
    assert np.isnan(found[0]) and found[1:] == [1, -3, 4]
    assert values(data="L 1 U", factor=-1, **low_high) == [-3, -1, 4]
    assert np.isnan(values(data="L 1 U")).tolist() == [True, False, True]


def test_hl7s_shape() -> None:
    """Three leads by MDC code, each in two parts, one part a component."""
    parts = [(code, part) for code in ("131329", "131330", "131389") for part in ("2041 2043", "2037 2047 2060")]
    components = [sampled(part, period=10, factor=1.612, origin={"value": 2048, "unit": "uV"}) for _, part in parts]
    for component, (code, _) in zip(components, parts, strict=True):
        component["code"] = coded(code)
    record = signal_of(observation(*components))
    assert (record.names, record.rate, record.signal.shape) == (("I", "II", "III"), 100.0, (3, 5))
    expected = (np.array([2041, 2043, 2037, 2047, 2060]) * 1.612 + 2048) / 1000
    assert record.signal.dtype == np.float32 and np.allclose(record.signal, expected)


@given(st.lists(st.integers(-(2**15), 2**15), min_size=1, max_size=50), st.sampled_from(["E", "L", "U", ""]))
def test_any_numbers(numbers: list[int], special: str) -> None:
    found = values(data=" ".join(map(str, numbers)) + f" {special}", lowerLimit=0, upperLimit=0)
    assert found[: len(numbers)] == [float(n) for n in numbers] and len(found) == len(numbers) + bool(special)


@pytest.mark.parametrize(
    ("component", "reason", "word"),
    [
        (sampled(lead="V9"), "wrong-leads", "component.code"),
        (sampled(period=None), "bad-header", "period"),
        (sampled(period=True), "bad-header", "period"),
        (sampled(period=0), "bad-header", "period"),
        (sampled(period=1e-9), "bad-header", "period"),
        (sampled(period=1e9), "bad-header", "period"),
        (sampled(period=3), "bad-header", "the same of all leads"),
        (sampled(origin={"value": 0}), "bad-header", "origin.unit"),
        (sampled(origin={"value": 0, "unit": "mmHg"}), "bad-header", "origin.unit"),
        (sampled(origin={"unit": "mV"}), "bad-header", "origin.value"),
        (sampled(factor="2"), "bad-header", "factor"),
        (sampled(factor=0), "bad-header", "factor"),
        (sampled(factor=float("nan")), "bad-header", "factor"),
        (sampled(factor=10**400), "bad-header", "factor"),
        (sampled(dimensions=12), "bad-header", "dimensions"),
        (sampled("1 2 x"), "bad-signal", "data"),
        (sampled("1 nan 2"), "bad-signal", "data"),
        (sampled("1 E inf"), "bad-signal", "data"),
        (sampled("1 1e999"), "bad-signal", "data"),
        (sampled("1 E 1_0"), "bad-signal", "data"),
        (sampled("١ ٢ ٣"), "bad-signal", "data"),
        (sampled("1.2.3"), "bad-signal", "data"),
        (sampled("1 2 3 4"), "truncated", "3 to 4 samples"),
        (sampled(""), "truncated", "0 to 3 samples"),
    ],
)
def test_signals_that_cannot_be_used(component: dict[str, Any], reason: str, word: str) -> None:
    both = [component] if reason == "wrong-leads" else [sampled(lead="II"), component]
    with pytest.raises(RecordingError) as error:
        signal_of(observation(*both))
    assert error.value.reason == reason and word in error.value.detail


def test_data_of_r5_is_told() -> None:
    component = sampled(interval=2)
    del component["valueSampledData"]["period"]
    with pytest.raises(RecordingError, match="R5"):
        signal_of(observation(component))


def test_what_is_an_ecg() -> None:
    assert is_ecg(observation(sampled()))
    assert is_ecg({"code": coded("131329"), "valueSampledData": {}}) and is_ecg(
        {"code": coded("11524-6"), "valueSampledData": {}}
    )
    pleth = {"code": coded("150452", "MDC_PULS_OXIM_PLETH"), "valueSampledData": {}}
    for none in (pleth, {"code": coded("11524-6"), "valueString": "normal"}, {"component": "x"}, observation({}), {}):
        assert not is_ecg(none)


def test_a_line_is_found_again(tmp_path: Path) -> None:
    file = tmp_path / "o.ndjson"
    line = json.dumps(observation(sampled("4 5 6")))
    file.write_text(f"first\n{line}\nlast")
    assert list(read_ecg(Place(file, 6, len(line) + 1)).signal[0]) == [4, 5, 6]
    for place in (Place(file, 0, 5), Place(tmp_path / "none", 0, 9), Place(file, 10**6, 9)):
        with pytest.raises(RecordingError, match="unreadable"):
            read_ecg(place)
