"""The index of a study through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import wfdb

from einthoven import cli, indexing, schema
from einthoven.errors import EinthovenError
from einthoven.search.archive import Query
from einthoven.search.filters import parse
from einthoven.study import read_table
from einthoven.waveforms.formats import Ecg
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import millivolts


def run(*arguments: str) -> None:
    cli.app(list(arguments), standalone_mode=False)


def test_every_kind_of_query(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = [str(place / "model"), str(place / "study")]
    run("index", *at)
    run("index", *at)
    assert "unchanged, nothing to do" in capsys.readouterr().out
    archive = indexing.open_archive(place / "model", place / "study")
    code = next(iter(archive.meanings))
    some = archive.search(Query(text="atrial fibrillation", top=1)).hits[0].recording_id
    for query in (["--text", "normal ecg"], ["--code", code], ["--recording", some]):
        run("search", *at, *query, "--top", "3", "--by-patient", "--json")
        answer = json.loads(capsys.readouterr().out)
        assert answer["data_kind"] == "simulated" and len(answer["hits"]) == 3
        assert len({hit["subject_id"] for hit in answer["hits"]}) == 3
    assert some not in [hit["recording_id"] for hit in answer["hits"]]
    run("search", *at, "--text", "normal ecg", "--where", "sex = female and age > 50", "--top", "5")
    assert "simulated data" in capsys.readouterr().out


def test_a_file_finds_the_recording_it_is_of(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = indexing.open_archive(place / "model", place / "study")
    hit = archive.search(Query(text="normal ecg", top=1)).hits[0]
    rows = read_table(schema.RECORDINGS, place / "study")
    row = dict(zip(rows["recording_id"].to_pylist(), rows["row"].to_pylist(), strict=True))[hit.recording_id]
    store = Store.open(place / "study")
    signal = millivolts(store.read(np.array([row])))[0]
    path = tmp_path / "ecg.hea"
    units, leads = ["mV"] * 12, list(schema.LEADS)
    samples = signal.T.astype(float)
    wfdb.wrsamp("ecg", store.sampling_rate, units, leads, samples, fmt=["16"] * 12, write_dir=str(tmp_path))
    run("search", str(place / "model"), str(place / "study"), "--ecg", str(path), "--top", "1", "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer["hits"][0]["recording_id"] == hit.recording_id
    assert answer["hits"][0]["score"] == pytest.approx(1, abs=1e-3)
    assert answer["outlier"] in (True, False)


def test_a_file_that_states_nothing_is_told_by_options(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "ecg.npy", np.random.default_rng(0).normal(0, 200, (2, 1000)).astype(np.float32))
    at = [str(place / "model"), str(place / "study"), "--ecg", str(tmp_path / "ecg.npy")]
    with pytest.raises(EinthovenError, match="0 names of leads"):
        run("search", *at)
    run("search", *at, "--rate", "100", "--unit", "uV", "--leads", "I, II", "--top", "2", "--json")
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 2
    run("search", *at[:2], "--text", "normal ecg", "--where", "age > 200")
    assert "no recording satisfies this" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "exactly one of"),
        (["--text", "a", "--code", "b"], "exactly one of"),
        (["--text", " "], "the query is empty"),
        (["--code", "NO//SUCH"], "no kind that this model knows|not in the model's vocabulary"),
        (["--recording", "nobody"], "no recording of this id"),
        (["--text", "a", "--where", "colour = red"], "expected one of sex, age"),
        (["--text", "a", "--space", "middle"], "coarse or fine"),
        (["--text", "a", "--space", "fine"], "in the coarse space alone"),
        (["--text", "a", "--top", "5000"], "1 to 1,000"),
    ],
)
def test_what_cannot_be_answered_is_told(place: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(EinthovenError, match=said):
        run("search", str(place / "model"), str(place / "study"), *arguments)


@pytest.mark.parametrize("backend", ["exact", "lance"])
def test_a_forgotten_patient_does_not_come_back(place: Path, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, study = place / "model", place / "study"
    indexing.index(model, study, backend)
    archive = indexing.open_archive(model, study)
    hit = archive.search(Query(text="normal ecg", top=1)).hits[0]
    run("forget", str(model), str(study), "--subject", str(hit.subject_id))
    assert "deleted" in capsys.readouterr().out
    assert not indexing.index(model, study).fresh  # it is as it should be
    for again in (None, "exact" if backend == "lance" else "lance", backend):
        indexing.index(model, study, again)
        found = indexing.open_archive(model, study).search(Query(text="normal ecg", top=1000)).hits
        assert found and hit.subject_id not in {other.subject_id for other in found}
    index, at = indexing.open_index(backend, indexing.place_of(model, study)), indexing.place_of(model, study)
    assert len(index) == len(found) and not len(index.rows([hit.recording_id]))
    if backend == "lance":  # its files hold ids as they are: a kept one is found, so the grep says something
        files = [path.read_bytes() for path in (at / "lance").rglob("*") if path.is_file()]
        assert any(found[0].recording_id.encode() in content for content in files)
        assert not any(hit.recording_id.encode() in content for content in files)
    else:
        rows = read_table(schema.INDEX, at)
        assert hit.recording_id not in rows["recording_id"].to_pylist()
        assert {path.name for path in at.iterdir()} == {".lock", "backend.json", "index.parquet", "manifest.json"}


def test_an_ecg_without_any_standard_lead_is_refused(place: Path) -> None:
    archive = indexing.open_archive(place / "model", place / "study")
    for signal, leads in ((np.ones((1, 1000), np.float32), ("X",)), (np.full((1, 1000), np.nan, np.float32), ("II",))):
        with pytest.raises(EinthovenError, match="none of the leads"):
            archive.search(Query(ecg=Ecg(signal, 100, leads, "test")))


def test_a_filter_holds_whatever_is_asked(place: Path) -> None:
    archive = indexing.open_archive(place / "model", place / "study")
    where = parse("sex = female and split in (train, validation)")
    for by_patient in (False, True):
        hits = archive.search(Query(text="infarct", top=1000, where=where, by_patient=by_patient)).hits
        assert hits and {hit.sex for hit in hits} == {"female"} and "test" not in {hit.split for hit in hits}
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.subject_id for hit in hits}) == len(hits)
