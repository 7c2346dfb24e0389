"""MUSE, aECG, Philips: units, rates, a second reader; entities and bombs refused."""

import struct
import time
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from einthoven.errors import EinthovenError
from einthoven.schema import LEADS
from einthoven.waveforms.formats import read_ecg
from einthoven.waveforms.readers import xml_ecg


def test_philips_xli_against_sierraecg(make: ModuleType, tmp_path: Path) -> None:
    import sierraecg

    (tmp_path / "x.xml").write_bytes(make.philips())
    second = sierraecg.read_file(str(tmp_path / "x.xml")).leads
    ecg = read_ecg(tmp_path / "x.xml")
    assert tuple(lead.label for lead in second) == ecg.leads == LEADS
    assert np.allclose(ecg.signal, np.stack([lead.samples for lead in second]) * make.GAIN / 1000, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"compressed": False}, {"encoding": "utf-16"}])
def test_philips_without_compression_and_in_utf_16(make: ModuleType, options: dict[str, Any]) -> None:
    assert np.allclose(read_ecg(make.philips(**options)).signal, make.MILLIVOLTS, rtol=0, atol=1e-6)


@pytest.mark.parametrize("unit", ["MILLIVOLTS", "uV", "NANOVOLTS"])
def test_muse_units(make: ModuleType, unit: str) -> None:
    factor = {"MILLIVOLTS": 1000, "uV": 1, "NANOVOLTS": 1e-3}[unit]
    ecg = read_ecg(make.muse(unit=unit))
    assert np.allclose(ecg.signal[0], make.MILLIVOLTS[0] * factor, rtol=1e-6)


@pytest.mark.parametrize("unit", ["", "PIXELS"])
def test_muse_without_a_voltage_is_refused(make: ModuleType, unit: str) -> None:
    with pytest.raises(EinthovenError, match="lead I: expected a gain in mV"):
        read_ecg(make.muse(unit=unit))


def test_muse_whose_samples_changed_is_refused(make: ModuleType) -> None:
    with pytest.raises(EinthovenError, match="checksum"):
        read_ecg(make.muse(crc=1))


def test_muse_with_its_document_type(make: ModuleType) -> None:
    ecg = read_ecg(make.muse(prolog='<!DOCTYPE RestingECG SYSTEM "restecg.dtd">'))
    assert ecg.leads[:2] == ("I", "II")


def test_aecg_rate_unit_and_origin(make: ModuleType) -> None:
    """ecgdatakit rounds 1/0.00390625 s well, and 1/0.0078 s (128.205 Hz) to 128 Hz."""
    assert read_ecg(make.aecg(increment="0.0078")).sampling_rate == pytest.approx(1 / 0.0078)
    assert np.allclose(read_ecg(make.aecg(unit="mV")).signal, make.MILLIVOLTS, rtol=0, atol=1e-6)
    assert np.allclose(read_ecg(make.aecg(origin=100.0)).signal, make.MILLIVOLTS + 0.1, rtol=0, atol=1e-6)
    for increment in ("0", "-1", "", "nan"):
        with pytest.raises(EinthovenError):
            read_ecg(make.aecg(increment=increment))


LAUGHS = '<!DOCTYPE x [<!ENTITY a "lol">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize("prolog", [LAUGHS + "]>", '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'])
@pytest.mark.parametrize("kind", ["muse", "aecg", "philips"])
def test_entities_are_refused(make: ModuleType, kind: str, prolog: str) -> None:
    content = getattr(make, kind)()
    head, mark, rest = content.partition(b"?>")
    for used in (rest, rest.replace(b"Mustermann", b"&j;").replace(b"4711", b"&a;")):
        began = time.monotonic()
        with pytest.raises(EinthovenError, match="unreadable"):
            read_ecg(head + mark + prolog.encode() + used)
        assert time.monotonic() - began < 5


def test_a_tree_of_too_many_elements_is_refused(make: ModuleType) -> None:
    with pytest.raises(EinthovenError, match="too-large"):
        read_ecg(make.muse().replace(b"</RestingECG>", b"<a/>" * (xml_ecg.MAX_TAGS + 1) + b"</RestingECG>"))
    deep = b"<RestingECG>" + b"<a>" * 90_000 + b"</a>" * 90_000 + b"</RestingECG>"
    with pytest.raises(EinthovenError):
        read_ecg(deep)


def words(codes: list[int]) -> bytes:
    text = "".join(f"{code:010b}" for code in codes)
    return int(text + "0" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8), "big")


def test_an_lzw_bomb_is_refused_before_it_is_unpacked(make: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first code words is the string that it defines; the last of them is then 768 bytes long."""
    monkeypatch.setattr(xml_ecg, "MAX_VALUES", 1 << 20)
    packed = words([0, *range(256, 1023), *[1022] * 20_000])
    bomb = struct.pack("<ihh", len(packed), 0, 0) + packed
    assert len(packed) < 1 << 15
    content = make.philips(bomb)
    tracemalloc.start()
    with pytest.raises(EinthovenError, match="too-large"):
        read_ecg(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_what_lzw_unpacks_to_is_told_exactly(make: ModuleType) -> None:
    data = make.xli(make.STORED)
    place = total = 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "little")
        total += xml_ecg._unpacked(data[place + 8 : place + 8 + size], 1 << 30)
        place += 8 + size
    assert total == 2 * make.STORED.size
