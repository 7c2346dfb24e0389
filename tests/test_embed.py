import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from einthoven import embed, pipeline
from einthoven.embed import matrix, table_of
from einthoven.study import data_kind, stage_manifest


class KilledError(Exception):
    pass


def test_a_killed_run_goes_on_and_ends_with_the_same_embeddings(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study, model = tmp_path / "study", place / "model"
    shutil.copytree(place / "study", study)
    table = table_of(model)
    whole = pipeline.embed(model, study).counts
    expected = pq.read_table(table.at(study))
    shutil.rmtree(study / "embeddings")
    monkeypatch.setattr(embed, "PART", 16)

    def kill(done: int, total: int, note: str) -> None:
        if done == 48:
            raise KilledError

    with pytest.raises(KilledError):
        pipeline.embed(model, study, kill)
    assert not table.at(study).exists()
    seen: list[int] = []
    assert pipeline.embed(model, study, lambda done, total, note: seen.append(done)).counts == whole
    assert seen[0] == 48  # the parts of the first 32 were there
    found = pq.read_table(table.at(study))
    assert found.schema.equals(table.columns)
    assert found.select(["recording_id", "subject_id", "split"]).equals(
        expected.select(["recording_id", "subject_id", "split"])
    )
    for name in ("embedding", "features", "fine"):
        assert np.allclose(matrix(found[name]), matrix(expected[name]), atol=1e-5)
    assert {path.name for path in table.at(study).parent.iterdir()} == {".lock", "manifest.json", "embeddings.parquet"}


def test_parts_of_an_earlier_ingest_are_not_taken(place: Path) -> None:
    study, table = place / "study", table_of(place / "model")
    before = embed.part_of(table, study, 0)
    manifest = stage_manifest(study, "ingest")
    manifest.write_text(manifest.read_text() + "\n")
    assert data_kind(study) == "simulated" and embed.part_of(table, study, 0).path != before.path
