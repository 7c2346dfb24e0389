"""What the readers that rest on ecgdatakit share. Its results are taken apart here, so that nothing of a patient leaks.

ecgdatakit reads files only, joins what has gaps, goes on after a wrong checksum with a warning, and rounds sampling
rates to whole hertz. So content is lent to it as a file in memory, its warnings (they quote the file) are silenced, and
each reader checks what it would only have warned of.
"""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.schema import LEADS
from einthoven.waveforms.readers.protocol import Channel, Found, lead_name, millivolts_per, needed
from einthoven.waveforms.wfdb_format import RecordingError


def parsed(module: str, parser: str, content: bytes) -> Any:
    """The ECGRecord that ecgdatakit's `parser` makes of `content`; RecordingError("checksum") if that is wrong."""
    reader = getattr(needed(f"ecgdatakit.parsing.parsers.{module}", "ecgdatakit"), parser)()
    warnings.filterwarnings("ignore", module=r"einthoven\.waveforms\.readers|ecgdatakit")
    with _lent(content) as path:
        record = reader.parse(path)
    if record.raw_metadata.get("checksum_valid") is False:
        raise RecordingError("checksum", "the samples do not have the checksum that the file states")
    return record


@contextmanager
def _lent(content: bytes) -> Iterator[Path]:
    """A file with this content, in memory where the system can: what patients' files hold must not stay on a disk."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with os.fdopen(os.memfd_create("ecg"), "wb") as file:
            file.write(content)
            file.flush()
            yield Path(f"/proc/self/fd/{file.fileno()}")
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield Path(file.name)


def found(record: Any, rate: float | None = None, missing: float | None = None) -> Found:
    """The rhythm leads of an ECGRecord, in millivolts; RecordingError("no-unit") if a standard lead has no voltage.

    `rate` replaces ecgdatakit's rounded one; stored samples that equal `missing` were not recorded.
    """
    channels = []
    for lead in record.leads:
        factor = millivolts_per(lead.resolution_unit or lead.units)
        if factor is None:
            if lead_name(lead.label) in LEADS:
                raise RecordingError("no-unit", f"lead {lead_name(lead.label)}: expected a gain in mV, µV, nV or V")
            continue
        stored = np.asarray(lead.samples, dtype=np.float64)
        values = (stored * lead.resolution + lead.offset) * factor
        if missing is not None:
            values[stored == missing] = np.nan
        start = int(lead.annotations.get("start_sample", 1)) - 1
        channels.append(Channel(lead.label, values, rate or float(lead.sampling_rate), start))
    recorded = record.recording.date if isinstance(record.recording.date, datetime) else None
    return Found(tuple(channels), recorded, record.patient.patient_id or None)
