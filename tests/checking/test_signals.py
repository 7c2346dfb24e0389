"""Equal signals in real archives: Brugada-HUCA has four pairs of them, PTB-XL none."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from einthoven import pipeline, schema
from einthoven.checking.findings import Verdict
from einthoven.checking.signals import read_signals
from einthoven.config import Source
from einthoven.study import fingerprint, stage_manifest, write_json, write_table
from einthoven.waveforms.loading import Loaded, load_records, wfdb_reader
from einthoven.waveforms.store import StoreWriter

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
BRUGADA, PTBXL = SHARED / "brugada-huca-1.0.0", SHARED / "ptbxl-wfdb-sample-500hz"
EQUAL = {("1220716", "972330"), ("1228746", "1366050"), ("1303729", "1307673"), ("841869", "844915")}
"""By the data's own description."""

Judge = Callable[[Path], dict[str, Verdict]]


def write_recordings(study: Path, loaded: list[Loaded], splits: list[str]) -> None:
    rows = [
        {"recording_id": f"r{i}", "subject_id": i, "split": split, "row": one.row, "leads": one.leads, "quality": []}
        for i, (one, split) in enumerate(zip(loaded, splits, strict=True))
    ]
    write_table(schema.RECORDINGS, study, pa.Table.from_pylist(rows, schema=schema.RECORDINGS.columns))
    outputs = {schema.RECORDINGS.path: fingerprint(schema.RECORDINGS.at(study))}
    made = {"inputs": {}, "outputs": outputs, "counts": {"data_kind": schema.REAL}}
    write_json(stage_manifest(study, "ingest"), made)


@pytest.mark.skipif(not BRUGADA.is_dir(), reason="no Brugada-HUCA in ../shared")
def test_the_four_equal_pairs_of_brugada_huca_are_found(tmp_path: Path, judge: Judge) -> None:
    names = list(dict.fromkeys((BRUGADA / "RECORDS").read_text().split()))  # one of them is listed twice
    found: list[Any] = load_records(tmp_path, wfdb_reader(BRUGADA), names, 100)
    assert len(found) == 363 and all(isinstance(one, Loaded) for one in found)
    twins = {first for pair in EQUAL for first in pair[:1]}
    ids = [name.split("/")[-1] for name in names]
    write_recordings(tmp_path, found, ["test" if name in twins else "train" for name in ids])
    verdicts = judge(tmp_path)
    assert [name for name, verdict in verdicts.items() if verdict.findings] == ["signal-across-splits"]
    (finding,) = verdicts["signal-across-splits"].findings
    assert finding.count == 8 and "4 signals" in finding.expected
    known = sorted(1 + ids.index(name) for pair in EQUAL for name in pair)
    assert list(finding.rows) == known[:5]
    write_recordings(tmp_path, found, ["train"] * len(found))
    verdicts = judge(tmp_path)
    assert verdicts["signal-across-splits"].state == "held" and verdicts["signal-repeated"].state == "note"
    assert [f.count for f in verdicts["signal-repeated"].findings] == [8]


@pytest.mark.skipif(not PTBXL.is_dir(), reason="no PTB-XL sample in ../shared")
def test_the_sample_of_ptb_xl_breaks_no_rule(tmp_path: Path, judge: Judge) -> None:
    source, study = tmp_path / "source", tmp_path / "study"
    source.mkdir()
    shutil.copy(PTBXL / "ptbxl_database.csv", source)
    shutil.copytree(PTBXL / "records100", source / "records100")
    heading = ",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\n"
    (source / "scp_statements.csv").write_text(heading + "NORM,normal ECG,1.0,,,NORM,NORM\n")
    pipeline.ingest(Source(sampling_rate=100), source, study)
    verdicts = judge(study)
    assert not any(verdict.findings for verdict in verdicts.values())
    assert {verdicts[rule].state for rule in ("signal-across-splits", "signal-repeated", "store")} == {"held"}


def test_one_sample_of_one_lead_makes_another_signal(tmp_path: Path) -> None:
    block = np.zeros((4, 12, 50), np.int16)
    block[2, 11, 49] = 1
    block[3, 11] = schema.MISSING_SAMPLE
    with StoreWriter(tmp_path, 10, 50, 4, shard_rows=3) as store:
        store.write(0, block)
    told: list[tuple[int, int]] = []
    signals = read_signals(tmp_path, lambda done, of: told.append((done, of)))
    digests = [row.tobytes() for row in signals.digests]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    assert signals.leads.tolist() == [4095, 4095, 4095, 2047]
    assert told[-1] == (4, 4)
