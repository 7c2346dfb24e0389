"""A simulated study is a whole study, and a recharted one keeps what was real."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from einthoven import schema
from einthoven.config import Source
from einthoven.errors import EinthovenError
from einthoven.pairing.splits import split_of
from einthoven.sources.simulated import ingest, rechart
from einthoven.study import read_table, stage_manifest, write_json

CONFIG = Source(name="simulated", subjects=120, seed=3)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("simulated") / "study"
    counts = ingest(CONFIG, out)
    write_json(stage_manifest(out, "ingest"), {"counts": counts})
    return out


def samples(study: Path) -> np.ndarray:
    return np.load(study / schema.WAVEFORMS / "00000.npy")


def test_tables_and_waveforms_belong_together(study: Path) -> None:
    recordings = read_table(schema.RECORDINGS, study)
    counts = json.loads(stage_manifest(study, "ingest").read_text())["counts"]
    assert counts["data_kind"] == schema.SIMULATED
    assert counts["subjects"] == len(set(recordings["subject_id"].to_pylist())) == 120
    assert counts["recordings"] == recordings.num_rows > 120
    assert samples(study).shape == (recordings.num_rows, 12, 1000)
    assert recordings["row"].to_pylist() == list(range(recordings.num_rows))
    assert all(
        split == split_of(s)
        for s, split in zip(recordings["subject_id"].to_pylist(), recordings["split"].to_pylist(), strict=True)
    )
    assert recordings["recording_id"][0].as_py() == "sim-000000"
    per_subject = np.unique(recordings["subject_id"].to_numpy(), return_counts=True)[1]
    assert set(per_subject) == {1, 2, 3}
    assert read_table(schema.EXCLUDED, study).num_rows == 0
    assert set(recordings["leads"].to_pylist()) == {4095}
    assert np.mean([bool(flags) for flags in recordings["quality"].to_pylist()]) < 0.1


def test_statements_point_to_their_recording_and_class(study: Path) -> None:
    events, codes = read_table(schema.EVENTS, study), read_table(schema.CODES, study)
    rows = events.to_pylist()
    assert rows == sorted(rows, key=lambda row: (row["subject_id"], row["time"]))
    statements = [row for row in rows if row["code"].startswith("SCP//")]
    assert {row["recording_id"] for row in statements} == set(
        read_table(schema.RECORDINGS, study)["recording_id"].to_pylist()
    )
    assert {row["numeric_value"] for row in statements} == {100.0}
    known = {row["code"]: row for row in codes.to_pylist()}
    assert {row["code"] for row in rows} <= set(known)
    assert known["SCP//IMI"]["parent_codes"] == ["SCP_CLASS//MI"]
    assert known["SCP//SR"]["parent_codes"] == []
    assert all(row["description"] for row in known.values())


def test_the_same_seed_gives_the_same_study_in_another_process(study: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from einthoven.config import Source;"
        "from einthoven.sources.simulated import ingest;"
        "ingest(Source(name='simulated', subjects=120, seed=3), Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "again")], check=True)
    assert np.array_equal(samples(study), samples(tmp_path / "again"))
    for table in (schema.RECORDINGS, schema.EVENTS, schema.NOTES, schema.CODES):
        assert read_table(table, study).equals(read_table(table, tmp_path / "again"))
    ingest(Source(name="simulated", subjects=120, seed=4), tmp_path / "other")
    assert not read_table(schema.NOTES, study).equals(read_table(schema.NOTES, tmp_path / "other"))


def test_500_hertz_and_progress(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    counts = ingest(
        Source(name="simulated", subjects=5, sampling_rate=500),
        tmp_path / "s",
        lambda done, of: told.append((done, of)),
    )
    assert samples(tmp_path / "s").shape == (counts["recordings"], 12, 5000)
    assert told[-1] == (counts["recordings"], counts["recordings"])


@pytest.mark.parametrize("config", [Source(sampling_rate=37), Source(subjects=0)])
def test_impossible_settings_are_refused(config: Source, tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match=r"\[source\]"):
        ingest(config, tmp_path / "s")


def test_rechart_keeps_recordings_signals_and_statements(study: Path, tmp_path: Path) -> None:
    write_json(stage_manifest(tmp_path / "real", "ingest"), {"counts": {"data_kind": schema.REAL}})
    for each in study.iterdir():
        if each.name != schema.MANIFESTS:
            (tmp_path / "real" / each.name).symlink_to(each)
    counts = rechart(tmp_path / "real", tmp_path / "out", seed=8)
    out = tmp_path / "out"
    assert counts["data_kind"] == schema.SEMI_SYNTHETIC
    assert counts["unknown_statements"] == counts["recordings_without_time"] == 0
    assert read_table(schema.RECORDINGS, out).equals(read_table(schema.RECORDINGS, study))
    assert np.array_equal(samples(out), samples(study))

    def split(at: Path, of_statements: bool) -> list[dict[str, object]]:
        events = read_table(schema.EVENTS, at)
        chosen = pc.equal(pc.starts_with(events["code"], "SCP//"), of_statements)
        return events.filter(chosen).to_pylist()

    assert split(out, True) == split(study, True)
    assert split(out, False) != split(study, False)
    assert not read_table(schema.NOTES, out).equals(read_table(schema.NOTES, study))
    codes = read_table(schema.CODES, out)["code"].to_pylist()
    assert len(set(codes)) == len(codes)
    assert set(read_table(schema.EVENTS, out)["code"].to_pylist()) <= set(codes)
    with pytest.raises(EinthovenError, match="a study already"):
        rechart(study, study, seed=0)
    assert rechart(study, tmp_path / "still", seed=0)["data_kind"] == schema.SIMULATED
