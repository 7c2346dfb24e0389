"""DICOM waveforms (PS3.3 C.10.9): 12-lead ECG, general ECG, ambulatory ECG, through pydicom.

pydicom parses the file and no more: its `multiplex_array` ignores the units of a channel, the padding and the order of
bytes, so the samples are scaled here. Only the elements a signal needs are parsed; of the patient's, the ID alone.
"""

import io
import logging
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from einthoven.schema import LEADS
from einthoven.waveforms.readers.protocol import MAX_VALUES, Channel, Found, Hints, lead_name, millivolts_per, needed
from einthoven.waveforms.wfdb_format import RecordingError

_TYPES: Final = {
    (8, "SB"): "i1",
    (8, "UB"): "u1",
    (16, "SS"): "i2",
    (16, "US"): "u2",
    (32, "SL"): "i4",
    (32, "UL"): "u4",
}
_TAGS: Final = [
    "SOPClassUID",
    "WaveformSequence",
    "PatientID",
    "AcquisitionDateTime",
    "AcquisitionDate",
    "AcquisitionTime",
]
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_AVERAGES: Final = ("MEDIAN", "REPRESENTATIVE", "AVERAGE")

# PS3.16 CID 3001: the last number of MDC "2:n" and SCPECG "5.6.3-9-n"
_LEADS: Final = dict(zip((1, 2, 61, 62, 63, 64, *range(3, 9)), LEADS, strict=True)) | {9: "V7", 66: "V8", 67: "V9"}


class Dicom:
    """Every multiplex group but median beats; groups that follow one another in time are put side by side."""

    name = "DICOM ECG"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        return head[128:132] == b"DICM"

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        pydicom = needed("pydicom", "pydicom")
        warnings.filterwarnings("ignore", module="pydicom")  # they quote values
        logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # and so does its log, which says them again
        if _DEFLATED in content:
            raise RecordingError("unreadable", "expected a transfer syntax that is not deflated")
        return _found(pydicom.dcmread(io.BytesIO(content), specific_tags=_TAGS))


def _found(data: Any) -> Found:
    groups = [group for group in data.get("WaveformSequence") or [] if not _is_average(group)]
    if not groups:
        raise RecordingError("no-signal", "expected a WaveformSequence with a rhythm group")
    order = ">" if data.file_meta.get("TransferSyntaxUID") == _BIG_ENDIAN else "<"
    channels = tuple(channel for group in groups for channel in _channels(group, order))
    subject = str(data.get("PatientID") or "").strip() or None
    return Found(channels, _time(data), subject, {"groups": len(data.WaveformSequence)})


def _is_average(group: Any) -> bool:
    return any(word in str(group.get("MultiplexGroupLabel", "")).upper() for word in _AVERAGES)


def _channels(group: Any, order: str) -> list[Channel]:
    count, samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    kind = (int(group.WaveformBitsAllocated), str(group.WaveformSampleInterpretation))
    if kind not in _TYPES:
        raise RecordingError("unreadable", "expected linear samples of 8, 16 or 32 bits")
    if min(count, samples) <= 0 or count * samples > MAX_VALUES:
        raise RecordingError("too-large", f"{count} channels of {samples} samples")
    dtype = np.dtype(order + _TYPES[kind])
    stored = np.frombuffer(
        group.WaveformData, dtype, count=min(count * samples, len(group.WaveformData) // dtype.itemsize)
    )
    if len(stored) < count * samples:
        raise RecordingError("truncated", f"{len(stored)} of {count * samples} samples")
    padding = group.get("WaveformPaddingValue")
    gap = (
        np.frombuffer(padding, dtype, count=1)[0]
        if isinstance(padding, bytes) and len(padding) >= dtype.itemsize
        else None
    )
    rate = float(group.SamplingFrequency)
    start = round(float(group.get("MultiplexGroupTimeOffset") or 0) * rate / 1000)
    table = stored.reshape(samples, count).T
    definitions = list(group.ChannelDefinitionSequence)[:count]
    found = [_channel(d, values, gap, rate, start) for d, values in zip(definitions, table, strict=True)]
    return [channel for channel in found if channel is not None]


def _channel(definition: Any, stored: npt.NDArray[Any], gap: Any, rate: float, start: int) -> Channel | None:
    """In millivolts: stored * sensitivity * correction + baseline, in units of the sensitivity. None: no voltage."""
    name = _name(definition)
    units = definition.get("ChannelSensitivityUnitsSequence")
    factor = millivolts_per(str(units[0].CodeValue)) if units else None
    if factor is None or "ChannelSensitivity" not in definition:
        if lead_name(name) in LEADS:
            raise RecordingError("no-unit", f"lead {lead_name(name)}: expected a sensitivity in mV, uV, nV or V")
        return None
    gain = float(definition.ChannelSensitivity) * float(definition.get("ChannelSensitivityCorrectionFactor") or 1.0)
    values = (stored * gain + float(definition.get("ChannelBaseline") or 0.0)) * factor
    if gap is not None:
        values[stored == gap] = np.nan
    return Channel(name, values, rate, start)


def _name(definition: Any) -> str:
    """By its code, else by its meaning ("Lead I (Einthoven)", "aVR, augmented"), else by its label."""
    source = definition.get("ChannelSourceSequence")
    if source:
        code, meaning = str(source[0].get("CodeValue", "")), str(source[0].get("CodeMeaning", ""))
        number = code.removeprefix("2:").removeprefix("5.6.3-9-")
        if number != code and number.isdigit() and int(number) in _LEADS:
            return _LEADS[int(number)]
        return meaning.split(",")[0].split("(")[0]
    return str(definition.get("ChannelLabel", ""))


def _time(data: Any) -> datetime | None:
    text = str(data.get("AcquisitionDateTime") or "")[:14]
    if not text:
        text = str(data.get("AcquisitionDate") or "") + str(data.get("AcquisitionTime") or "")[:6]
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S")  # noqa: DTZ007 - the recorder's own clock, as in RECORDINGS
    except ValueError:
        return None
