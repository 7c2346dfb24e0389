"""Files of every format, written here: by another package where one writes it, else by hand from its specification.

All hold the same twelve leads: STORED, whole numbers of 5 µV, at 500 Hz.
"""

import base64
import binascii
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
import pyedflib
from pydicom.dataset import Dataset, FileMetaDataset
from scipy.io import savemat

from einthoven.schema import LEADS

RATE, COUNT, GAIN = 500, 1000, 5.0  # hertz, samples, microvolts
SECRET = "Mustermann"

_noise = np.random.default_rng(7)
STORED = np.cumsum(_noise.integers(-6, 7, (12, COUNT)), axis=1).astype(np.int64)
STORED[2] = STORED[1] - STORED[0]
MILLIVOLTS = STORED * GAIN / 1000
EIGHT = [LEADS.index(lead) for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]


def coded(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<i2").tobytes()).decode()


def muse(rows: Any = None, unit: str = "MICROVOLTS", crc: int = 0, prolog: str = "") -> bytes:
    """Eight leads, after a median beat, as MUSE writes them."""

    def wave(kind: str, values: np.ndarray) -> str:
        leads = "".join(
            f"<LeadData><LeadByteCountTotal>{2 * len(values[lead])}</LeadByteCountTotal>"
            f"<LeadSampleCountTotal>{len(values[lead])}</LeadSampleCountTotal>"
            f"<LeadAmplitudeUnitsPerBit>{GAIN}</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits>"
            f"<LeadID>{LEADS[lead]}</LeadID><LeadSampleSize>2</LeadSampleSize>"
            f"<LeadDataCRC32>{zlib.crc32(values[lead].astype('<i2').tobytes()) ^ crc}</LeadDataCRC32>"
            f"<WaveFormData>{coded(values[lead])}</WaveFormData></LeadData>"
            for lead in (EIGHT if rows is None else rows)
        )
        base = f"<SampleBase>{RATE}</SampleBase><SampleExponent>0</SampleExponent>"
        return f"<Waveform><WaveformType>{kind}</WaveformType>{base}{leads}</Waveform>"

    named = f"<PatientID>4711</PatientID><PatientLastName>{SECRET}</PatientLastName>"
    patient = f"<PatientDemographics>{named}</PatientDemographics>"
    test = (
        "<TestDemographics><AcquisitionDate>01-31-2020</AcquisitionDate>"
        "<AcquisitionTime>12:30:15</AcquisitionTime></TestDemographics>"
    )
    body = patient + test + wave("Median", STORED[:, ::-1]) + wave("Rhythm", STORED)
    return f'<?xml version="1.0" encoding="ISO-8859-1"?>{prolog}<RestingECG>{body}</RestingECG>'.encode()


def aecg(increment: str = "0.002", unit: str = "uV", origin: float = 0.0) -> bytes:
    time = (
        '<component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="20200131123015"/>'
        f'<increment value="{increment}" unit="s"/></value></sequence></component>'
    )
    leads = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}"/><value xsi:type="SLIST_PQ">'
        f'<origin value="{origin}" unit="uV"/><scale value="{GAIN if unit == "uV" else GAIN / 1000}" unit="{unit}"/>'
        f"<digits>{' '.join(map(str, row))}</digits></value></sequence></component>"
        for lead, row in zip(LEADS, STORED, strict=True)
    )
    series = (
        f'<component><series><code code="RHYTHM"/><component><sequenceSet>{time}{leads}</sequenceSet></component>'
        "</series></component>"
    )
    subject = (
        "<componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject>"
        f'<id extension="4711"/><subjectDemographicPerson><name>{SECRET}</name></subjectDemographicPerson>'
        "</trialSubject></subject></subjectAssignment></componentOf></timepointEvent></componentOf>"
    )
    spaces = 'xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    when = '<effectiveTime><low value="20200131123015"/></effectiveTime>'
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><AnnotatedECG {spaces}>{when}{subject}{series}</AnnotatedECG>'.encode()
    )


def lzw(data: bytes) -> bytes:
    """Code words of 10 bits, most significant bit first."""
    table = {bytes([byte]): byte for byte in range(256)}
    words, current = [], b""
    for byte in data:
        longer = current + bytes([byte])
        if longer in table:
            current = longer
            continue
        words.append(table[current])
        if len(table) <= 1022:
            table[longer] = len(table)
        current = bytes([byte])
    bits = "".join(f"{word:010b}" for word in [*words, table[current]])
    return int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")


def xli(stored: np.ndarray) -> bytes:
    """Philips' compression: residuals of the limb leads, second differences, high bytes before low bytes, LZW."""
    i, ii, iii = stored[:3]
    limb = [ii - i - iii, -stored[3] - (i + ii) // 2, (i - iii) // 2 - stored[4], (ii + iii) // 2 - stored[5]]
    out = b""
    for row in [i, ii, *limb, *stored[6:]]:
        second = 2 * row[1:-1] - row[:-2] - row[2:]
        deltas = np.concatenate([row[:2], second[1:] + 64, [64]]).astype(">i2").view(np.uint8)
        packed = lzw(deltas[::2].tobytes() + deltas[1::2].tobytes())
        out += struct.pack("<ihh", len(packed), 0, int(second[0])) + packed
    return out


def philips(data: bytes | None = None, compressed: bool = True, encoding: str = "utf-8") -> bytes:
    payload = data or (xli(STORED) if compressed else STORED.astype("<i2").tobytes())
    method = 'compression="XLI" compressmethod="XLI" compressflag="True"' if compressed else 'compressflag="False"'
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?><restingecgdata xmlns="http://www3.medical.philips.com">'
        "<documentinfo><documenttype>PhilipsECG</documenttype><documentversion>1.04</documentversion></documentinfo>"
        '<dataacquisition date="2020-01-31" time="12:30:15"><signalcharacteristics>'
        f"<samplingrate>{RATE}</samplingrate><resolution>{GAIN}</resolution><acquisitiontype>STD-12</acquisitiontype>"
        "<numberchannelsallocated>12</numberchannelsallocated></signalcharacteristics></dataacquisition>"
        f"<patient><generalpatientdata><patientid>4711</patientid><name><lastname>{SECRET}</lastname></name>"
        f'</generalpatientdata></patient><waveforms><parsedwaveforms dataencoding="Base64" {method} '
        f'durationperchannel="{COUNT * 1000 // RATE}" numberofleads="12" leadlabels="{" ".join(LEADS)}">'
        f"{base64.b64encode(payload).decode()}</parsedwaveforms></waveforms>"
        "<interpretations><interpretation/></interpretations></restingecgdata>"
    )
    return text.encode(encoding)


def huffman(values: np.ndarray) -> bytes:
    """SCP-ECG's default table."""
    bits = []
    for value in values.tolist():
        if value == 0:
            bits.append("0")
        elif abs(value) <= 8:
            bits.append("1" * abs(value) + "0" + ("1" if value < 0 else "0"))
        elif -128 <= value < 128:
            bits.append("1111111110" + f"{value & 0xFF:08b}")
        else:
            bits.append("1111111111" + f"{value & 0xFFFF:016b}")
    text = "".join(bits)
    return int(text + "0" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8), "big")


def scp(packed: bool = True, starts: Any = None, interval: int = 1_000_000 // RATE) -> bytes:
    """Sections 0, 1, 2 (if packed: default table, second differences), 3 and 6."""
    codes = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)
    first = starts or [1] * 12
    ranges = b"".join(struct.pack("<IIB", s, s + COUNT - 1, code) for s, code in zip(first, codes, strict=True))
    rows = []
    for row in STORED:
        second = np.concatenate([row[:2], row[2:] - 2 * row[1:-1] + row[:-2]])
        rows.append(huffman(second) if packed else row.astype("<i2").tobytes())
    rows = [row + b"\0" * (len(row) % 2) for row in rows]
    sizes = struct.pack("<12H", *map(len, rows))
    name = SECRET.encode() + b"\0"
    patient = b"\0" + struct.pack("<H", len(name)) + name + b"\x02" + struct.pack("<H", 5) + b"4711\0" + b"\xff\0\0"
    bodies = {
        1: patient,
        2: struct.pack("<H", 19999),
        3: bytes([12, 0x04 | (12 << 3) & 0xF8]) + ranges,
        6: struct.pack("<HHBB", int(GAIN * 1000), interval, 2 if packed else 0, 0) + sizes + b"".join(rows),
    }
    if not packed:
        del bodies[2]

    def section(number: int, body: bytes) -> bytes:
        body += b"\0" * (len(body) % 2)
        rest = struct.pack("<HIBB6s", number, len(body) + 16, 20, 20, b"SCPECG" if number == 0 else b"\0" * 6) + body
        return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest

    sections = {number: section(number, body) for number, body in bodies.items()}
    place = 7 + 16 + 10 * 12
    pointers = struct.pack("<HII", 0, 16 + 10 * 12, 7)
    for number in range(1, 12):
        size = len(sections.get(number, b""))
        pointers += struct.pack("<HII", number, size, place if size else 0)
        place += size
    whole = section(0, pointers) + b"".join(sections.values())
    rest = struct.pack("<I", len(whole) + 6) + whole
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def ishne(stored: np.ndarray | None = None, crc: int = 0) -> bytes:
    values = STORED if stored is None else stored
    head = bytearray(512)
    struct.pack_into("<iiiihh", head, 0, 0, values.shape[1], 522, 522, 1, 0)
    head[18 : 18 + len(SECRET)] = SECRET.encode()
    head[98:102] = b"4711"
    struct.pack_into("<9h", head, 122, 1, 1, 1950, 31, 1, 2020, 31, 1, 2020)
    struct.pack_into("<3h", head, 140, 12, 30, 15)
    struct.pack_into("<h", head, 146, len(values))
    struct.pack_into("<12h", head, 148, *range(5, 17))
    struct.pack_into("<12h", head, 196, *[int(GAIN * 1000)] * 12)
    struct.pack_into("<h", head, 262, RATE)
    checksum = struct.pack("<H", binascii.crc_hqx(bytes(head), 0xFFFF) ^ crc)
    return b"ISHNE1.0" + checksum + bytes(head) + values.T.astype("<i2").tobytes()


def edf(
    folder: Path, rates: Any = None, units: Any = None, kind: int = pyedflib.FILETYPE_EDFPLUS, seconds: int = 2
) -> bytes:
    file, rates, units = folder / "x.edf", rates or [RATE] * 12, units or ["uV"] * 12
    with pyedflib.EdfWriter(str(file), 12, kind) as writer:
        writer.setPatientName(SECRET)
        writer.setPatientCode("4711")
        for place, lead in enumerate(LEADS):
            header = {"label": f"ECG {lead}", "dimension": units[place], "sample_frequency": rates[place]}
            ends = {"physical_min": -163840, "physical_max": 163835, "digital_min": -32768, "digital_max": 32767}
            writer.setSignalHeader(place, header | ends)
        writer.writeSamples([row[: rates[p] * seconds].astype(np.int32) for p, row in enumerate(STORED)], digital=True)
    return file.read_bytes()


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def group(stored: np.ndarray, leads: Any = LEADS, unit: str = "uV", **elements: Any) -> Dataset:
    item = Dataset()
    item.WaveformOriginality = "ORIGINAL"
    item.NumberOfWaveformChannels, item.NumberOfWaveformSamples = stored.shape
    item.SamplingFrequency = RATE
    item.ChannelDefinitionSequence = []
    for lead in leads:
        channel = Dataset()
        channel.ChannelSourceSequence = [code("", "MDC", f"Lead {lead}" if lead[0] != "a" else f"{lead}, augmented")]
        channel.ChannelSensitivity = GAIN * {"uV": 1, "mV": 1e-3}.get(unit, 1)
        channel.ChannelSensitivityUnitsSequence = [code(unit, "UCUM", unit)]
        channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = 1, 0
        channel.WaveformBitsStored = 16
        item.ChannelDefinitionSequence.append(channel)
    item.WaveformBitsAllocated, item.WaveformSampleInterpretation = 16, "SS"
    item.WaveformData = stored.T.astype("<i2").tobytes()
    for name, value in elements.items():
        setattr(item, name, value)
    return item


def dicom(*groups: Dataset, syntax: str = pydicom.uid.ExplicitVRLittleEndian) -> bytes:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.TwelveLeadECGWaveformStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.PatientName, data.PatientID, data.Modality = SECRET, "4711", "ECG"
    data.AcquisitionDateTime = "20200131123015"
    data.WaveformSequence = list(groups or [group(STORED)])
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def matlab(packed: bool = True, **variables: Any) -> bytes:
    file = io.BytesIO()
    default = {"val": STORED * GAIN, "fs": RATE, "units": "uV", "leads": np.array(LEADS, dtype="U4")}
    savemat(file, variables or default, do_compression=packed)
    return file.getvalue()


def hdf5(values: Any = None, **attributes: Any) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as out:
        made = out.create_dataset("ecg", data=MILLIVOLTS.T if values is None else values, compression="gzip")
        made.attrs.update(attributes or {"sampling_rate": RATE, "unit": "mV", "leads": list(LEADS)})
    return file.getvalue()


def npy(values: Any = MILLIVOLTS) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def table(delimiter: str = ",", unit: str = " (uV)", comment: str = "", time: bool = True) -> bytes:
    heading = (["time"] if time else []) + [f"{lead}{unit}" for lead in LEADS]
    rows = [
        ([f"{place / RATE:.3f}"] if time else []) + [str(int(value * GAIN)) for value in column]
        for place, column in enumerate(STORED.T)
    ]
    return (comment + "\n".join(delimiter.join(row) for row in [heading, *rows]) + "\n").encode()


def every(folder: Path) -> dict[str, bytes]:
    """One file of every format that states all of its own."""
    return {
        "DICOM ECG": dicom(),
        "GE MUSE XML": muse(),
        "HL7 aECG": aecg(),
        "Philips Sierra XML": philips(),
        "SCP-ECG": scp(),
        "ISHNE": ishne(),
        "EDF": edf(folder),
        "HDF5": hdf5(),
        "MATLAB": matlab(),
        "CSV": table(),
    }
