"""SCP-ECG, ISHNE and EDF, through ecgdatakit; what it only warns of is refused here."""

from pathlib import Path
from typing import Final

import numpy as np

from einthoven.schema import MISSING_SAMPLE
from einthoven.waveforms.readers.kit import found, parsed
from einthoven.waveforms.readers.protocol import Found, Hints
from einthoven.waveforms.wfdb_format import RecordingError

MAX_SCP_BYTES: Final = 4 << 20
"""Huffman decoding is a loop over bits: a file of this size takes a minute, an ECG of ten seconds has 30 kB."""

_ISHNE_HEADER: Final = 522  # bytes before the variable block


class Scp:
    """SCP-ECG (EN 1064): the rhythm of section 6, Huffman, differences and reference beats undone."""

    name = "SCP-ECG"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        # Section 0 comes first and its first pointer is to itself, at byte 7.
        return len(head) >= 32 and _number(head, 8, 2) == 0 and _number(head, 22, 2) == 0 and _number(head, 28, 4) == 7

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        if len(content) > MAX_SCP_BYTES:
            raise RecordingError("too-large", f"{len(content)} bytes, at most {MAX_SCP_BYTES} expected of SCP-ECG")
        record = parsed("scp_ecg", "SCPECGParser", content)
        return found(record, 1e6 / record.raw_metadata["rhythm_sample_interval_us"])


class Ishne:
    """ISHNE Holter 1.0. Samples of a lead fault (-32768) are missing."""

    name = "ISHNE"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        return head.startswith(b"ISHNE1.0")

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        record = parsed("ishne_holter", "ISHNEHolterParser", content)
        data = len(content) - _ISHNE_HEADER - record.raw_metadata["var_block_size"]
        if data % (2 * len(record.leads)):
            raise RecordingError("truncated", f"{data} bytes of samples do not make whole frames")
        return found(record, missing=float(MISSING_SAMPLE))


class Edf:
    """EDF and EDF+ without gaps. Signals that are no voltage, and annotations, are left out."""

    name = "EDF"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        return head.startswith(b"0       ") and len(head) >= 256 and head[252:256].strip().isdigit()

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        record = parsed("edf", "EDFParser", content)
        meta = record.raw_metadata
        announced = content[236:244].strip()
        if announced != b"-1" and int(announced) != meta["num_records"]:
            raise RecordingError("truncated", f"{meta['num_records']} of {int(announced)} data records")
        onsets = np.asarray(meta.get("record_onsets", []))
        if len(onsets) > 1 and not np.allclose(np.diff(onsets), meta["record_duration"], rtol=0, atol=1e-4):
            raise RecordingError("unreadable", "expected data records without gaps (EDF+D joins what was apart)")
        for lead in record.leads:  # ecgdatakit rounds to whole hertz
            lead.sampling_rate = meta.get("exact_sampling_rates", {}).get(lead.label, lead.sampling_rate)
        return found(record)


def _number(head: bytes, place: int, size: int) -> int:
    return int.from_bytes(head[place : place + size], "little")
