"""The whole line on small studies, through the command line."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import wfdb

import einthoven
from einthoven import cli, indexing, pipeline, schema
from einthoven.config import Entities, Recipe, Source, TextEncoder, load_recipe
from einthoven.errors import EinthovenError
from einthoven.search.archive import Hit, Query
from einthoven.search.filters import Filter, parse
from einthoven.study import data_kind, fingerprint, read_manifest, stage_manifest, write_manifest

RECIPE = f"""
extends = "{Path(__file__).with_name("tiny.toml")}"
[source]
subjects = 120
[training]
epochs = 3
[evaluation]
resamples = 20
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory, recipe: Path) -> Path:
    path = tmp_path_factory.mktemp("runs") / "study"
    run("run", str(recipe), "--study", str(path), "--split", "test")
    return path


def run(*arguments: str) -> None:
    cli.app(list(arguments), standalone_mode=False)


def test_run_leaves_everything_it_promises(study: Path, capsys) -> None:
    for table in {*pipeline.SOURCE_TABLES, schema.PAIRS} - {schema.SUPPLIED_ENTITIES}:
        assert pq.read_schema(table.at(study)).equals(table.columns)
    assert {p.name for p in (study / "model").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer", "probes.safetensors", "manifest.json", "README.md",
        "outliers.safetensors", "calibration.json",
    }  # fmt: skip
    assert not (study / "model.training").exists()
    metrics = json.loads((study / "report" / "metrics.json").read_text())
    assert metrics["data_kind"] == "simulated" and "leads" not in metrics
    for series in ("model", "random_init"):
        assert {"retrieval", "zeroshot", "probe"} <= set(metrics[series])
        assert set(metrics[series]["probe"]["fractions"]) == {"0.01", "0.1", "1"}
    assert pq.read_schema(study / "report" / "scores.parquet").equals(schema.SCORES.columns)
    assert {row["attribute"] for row in metrics["subgroups"]} >= {"sex", "age"}
    assert "Not evaluated yet" in (study / "model" / "README.md").read_text()
    page = (study / "report" / "report.html").read_text()
    assert "<h2>Groups</h2>" in page and "Reliability" in page and "Embeddings of ECGs" in page
    assert "simulated" in page and "not a medical device" in page.lower() and "<svg" in page
    assert metrics["tokens"]["entity"]["mean"] > 0 and "<h2>Texts</h2>" in page and ">354<" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_running_again_changes_nothing_and_says_so(study: Path, recipe: Path, capsys) -> None:
    before = {p: p.stat().st_mtime_ns for p in study.rglob("*") if p.is_file() and p.name != ".lock"}
    run("run", str(recipe), "--study", str(study), "--split", "test")
    said = capsys.readouterr().out
    for stage in ("ingest", "pair", "align", "evaluate"):
        assert f"{stage}: unchanged, nothing to do" in said
    assert before == {p: p.stat().st_mtime_ns for p in study.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize("stage", ["recordings", "epoch", "features", "train features"])
def test_a_run_killed_in_any_stage_ends_with_the_same_result(study: Path, recipe: Path, tmp_path: Path, stage) -> None:
    class KilledError(Exception):
        pass

    options, again = load_recipe(recipe), tmp_path / "study"

    def kill(done: int, total: int, note: str) -> None:
        if note.startswith(stage) and done > total / 2:
            raise KilledError

    with pytest.raises(KilledError):
        pipeline.ingest(options.source, None, again, kill)
        pipeline.pair(options, again)
        pipeline.align(options, again, again / "model", kill)
    pipeline.ingest(options.source, None, again)
    pipeline.pair(options, again)
    pipeline.align(options, again, again / "model")
    models = ("model/model.safetensors", "model/probes.safetensors", "model/outliers.safetensors")
    for name in ("recordings.parquet", "pairs.parquet", *models):
        assert (again / name).read_bytes() == (study / name).read_bytes(), name


def test_run_takes_settings(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="unknown key 'depth'"):
        run("run", str(recipe), "--study", str(tmp_path / "study"), "--set", "ecg.depth=50")


def asked(study: Path, text: str, top: int, where: Filter = ()) -> list[Hit]:
    return indexing.open_archive(study / "model", study).search(Query(text=text, top=top, where=where)).hits


def test_search_finds_and_explains(study: Path, capsys) -> None:
    run("search", str(study / "model"), str(study), "--text", "atrial fibrillation", "--top", "4", "--split", "train")
    hits = asked(study, "atrial fibrillation", 4, parse("split = train"))
    assert len(hits) == 4
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.split == "train" and hit.findings for hit in hits)
    assert hits[0].recording_id in capsys.readouterr().out


def test_search_agrees_with_the_model_in_python(study: Path) -> None:
    from einthoven.waveforms.store import Store
    from einthoven.waveforms.strips import millivolts

    (hit,) = asked(study, "left bundle branch block", 1)
    recordings = pq.read_table(schema.RECORDINGS.at(study)).to_pylist()
    row = next(r["row"] for r in recordings if r["recording_id"] == hit.recording_id)
    model = einthoven.load(study / "model")
    signal = millivolts(Store.open(study).read(np.array([row])))[0]
    cosine = model.encode_ecg(signal, 100) @ model.encode_text(["left bundle branch block"])[0]
    assert cosine == pytest.approx(hit.score, abs=1e-4)


def test_a_study_of_another_rate_without_a_train_split_evaluates_with_the_model(study: Path, tmp_path: Path) -> None:
    other, report = tmp_path / "other", tmp_path / "report"
    options = load_recipe_with(subjects=150, seed=5, sampling_rate=500)
    pipeline.ingest(options, None, other)
    recordings = pq.read_table(schema.RECORDINGS.at(other))
    only = recordings.set_column(3, recordings.schema.field("split"), [["test"] * len(recordings)])
    pq.write_table(only, schema.RECORDINGS.at(other))
    change_manifest(other, "outputs", **{schema.RECORDINGS.path: fingerprint(schema.RECORDINGS.at(other))})
    run("pair", str(other))
    run("evaluate", str(study / "model"), str(other), "--split", "test", "--out", str(report))
    metrics = json.loads((report / "metrics.json").read_text())
    assert {"retrieval", "zeroshot", "probe"} <= set(metrics["model"])
    with pytest.raises(EinthovenError, match="validation split has no recording"):
        run("evaluate", str(study / "model"), str(other), "--split", "validation", "--out", str(report))


def test_a_file_of_our_own_embeddings_is_measured_as_the_model_is(study: Path, recipe: Path, tmp_path: Path) -> None:
    model, file, report = study / "model", tmp_path / "ours.npz", tmp_path / "report"
    with pytest.raises(EinthovenError, match=r"ends in \.npz"):
        run("embed", str(model), str(study), "--npz", str(tmp_path / "ours.npy"))
    run("embed", str(model), str(study), "--npz", str(file))
    options = ["--split", "train", "--recipe", str(recipe), "--set", "evaluation.control=false"]  # large enough for all
    metrics = {}
    for name, of in (("file", file), ("model", model)):
        run("evaluate", str(of), str(study), "--out", str(report / name), *options)
        metrics[name] = json.loads((report / name / "metrics.json").read_text())
    found, ours = metrics["file"], metrics["model"]
    assert found["counts"].pop("probes_fitted_on") == found["counts"]["with_class"]
    for part in ("counts", "split", "concatenation", "data_kind"):
        assert found[part] == ours[part]
    assert {*found["model"], "outliers"} == set(ours["model"])
    for part, rounding in {"retrieval": 1e-6, "zeroshot": 1e-6, "precision": 1e-6, "probe": 5e-3}.items():
        pairs = zip(numbers(found["model"][part]), numbers(ours["model"][part]), strict=True)
        # the same vectors up to float32, since they were embedded in other batches
        assert all(one == pytest.approx(other, abs=rounding, nan_ok=True) for one, other in pairs), part
    run("compare", str(report / "model"), str(report / "file"), "--out", str(tmp_path / "compare"))
    measures = json.loads((tmp_path / "compare" / "compare.json").read_text())["measures"]
    retrieved = [row for row in measures if row["task"].startswith("Retrieval") and "recall" in row["measure"]]
    assert len(retrieved) == 12 and all(row["differences"][1]["value"] == pytest.approx(0) for row in retrieved)


def numbers(tree: object) -> list[float]:
    """Every number of a part of the metrics, in its order."""
    if isinstance(tree, dict):
        return [number for key in sorted(tree) for number in numbers(tree[key])]
    if isinstance(tree, list):
        return [number for item in tree for number in numbers(item)]
    return [float(tree)] if isinstance(tree, int | float) else []


def load_recipe_with(**changes):
    from dataclasses import replace

    from einthoven.config import Source

    return replace(Source(name="simulated"), **changes)


def change_manifest(study: Path, part: str, **values: str) -> None:
    """Let the ingest of a study have been another."""
    made = read_manifest(stage_manifest(study, "ingest"))
    assert made is not None
    write_manifest(stage_manifest(study, "ingest"), {**made, part: made[part] | values})


def test_rechart_makes_a_semi_synthetic_study_of_a_real_one(study: Path, tmp_path: Path) -> None:
    real, out = tmp_path / "real", tmp_path / "out"
    with pytest.raises(EinthovenError, match="simulated data"):
        run("rechart", str(study), str(out))
    shutil.copytree(study, real)
    change_manifest(real, "counts", data_kind="real")
    run("rechart", str(real), str(out))
    assert data_kind(out) == "semi-synthetic"
    assert read_manifest(stage_manifest(out, "ingest"))["counts"]["recordings"] > 0  # type: ignore[index]
    with pytest.raises(EinthovenError, match="study already"):
        run("rechart", str(real), str(real))


def test_pairs_older_than_the_recordings_are_refused(study: Path, recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "study"
    pipeline.ingest(load_recipe_with(subjects=30), None, other)
    with pytest.raises(EinthovenError, match="Run `einthoven pair"):
        run("align", str(other), "--recipe", str(recipe), "--out", str(tmp_path / "model"))
    run("pair", str(other))
    pipeline.ingest(load_recipe_with(subjects=40), None, other, replacing=True)
    for command in (
        ["align", str(other), "--out", str(tmp_path / "m")],
        ["evaluate", str(study / "model"), str(other), "--out", str(tmp_path / "r")],
    ):
        with pytest.raises(EinthovenError, match="Run `einthoven pair"):
            run(*command)


def test_another_model_in_the_same_report_directory_is_measured_anew(study: Path, recipe: Path, tmp_path: Path) -> None:
    report, bare = tmp_path / "report", tmp_path / "bare"
    model = einthoven.load(study / "model")
    values = []
    for seed in (1, 2):
        model.untrained(seed).save(bare)  # no manifest, no probes
        run("evaluate", str(bare), str(study), "--split", "test", "--out", str(report), "--recipe", str(recipe))
        metrics = json.loads((report / "metrics.json").read_text())
        assert "probe" not in metrics["model"]
        values.append(metrics["model"]["retrieval"])
    assert values[0] != values[1]


def test_align_replaces_nothing_but_a_model(study: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(EinthovenError, match="nothing was written"):
        run("align", str(study), "--out", str(tmp_path))
    with pytest.raises(EinthovenError, match="holds the study"):
        run("align", str(study), "--out", str(study))


def test_a_copied_study_has_nothing_to_do(study: Path, recipe: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(study, tmp_path / "copy", copy_function=shutil.copyfile)  # new modification times
    run("run", str(recipe), "--study", str(tmp_path / "copy"), "--split", "test")
    said = capsys.readouterr().out
    assert all(f"{stage}: unchanged, nothing to do" in said for stage in ("ingest", "pair", "align"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "ptbxl", "nowhere", "study"], "does not exist"),
        (["ingest", "ptbxl", "study"], "expected SRC STUDY"),
        (["ingest", "edf", "a", "b"], "unknown source 'edf'"),
        (["ingest", "simulted", "a"], "unknown source 'simulted'"),
        (["pair", "nowhere"], "not a complete study"),
        (["align", "nowhere", "--out", "model"], "not a complete study"),
        (["search", "nowhere", "nowhere", "--text", "x"], "not a complete study"),
        (["evaluate", "nowhere", "nowhere", "--split", "dev", "--out", "r"], "--split dev"),
        (["run", "nowhere.toml", "--study", "s"], "no such recipe"),
        (["align", "nowhere", "--out", "m", "--set", "ecg.depth=50"], "unknown key 'depth'"),
        (["evaluate", "nowhere", "nowhere", "--out", "r", "--set", "evaluation.lead_subsets=3"], "expected bool"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(tmp_path: Path, monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["einthoven", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and len(said.strip().splitlines()) == 1


LEXICON = "term\tpreferred\tlabel\tcode\tlanguage\tcase\nfluxkompensator\tflux compensator\tdisease\t\ten\t\n"


def small_study(path: Path) -> Path:
    pipeline.ingest(Source(name="simulated", subjects=20), None, path)
    return path


def test_pair_keeps_the_lexicon_that_the_entities_were_found_with(tmp_path: Path) -> None:
    study, lexicon = small_study(tmp_path / "study"), tmp_path / "own.tsv"
    lexicon.write_text(LEXICON)
    own = Entities(lexicon=str(lexicon), replace=True)
    pipeline.entities(own, study)
    assert pipeline.pair(Recipe(), study).counts["with_entity_text"] == 0
    assert not pipeline.entities(own, study).fresh
    assert not pipeline.pair(Recipe(), study).fresh
    other = Recipe(entities=Entities(use_supplied=False))  # says something of its own: read anew
    assert pipeline.pair(other, study).counts["with_entity_text"] > 0


def test_a_lexicon_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="no such lexicon"):
        pipeline.entities(Entities(lexicon="nowhere.tsv"), small_study(tmp_path / "study"))


def test_what_does_not_change_the_pairs_does_not_make_them_anew(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study")
    pipeline.pair(Recipe(), study)
    assert not pipeline.pair(Recipe(text=TextEncoder(dropout=0.2)), study).fresh
    assert pipeline.pair(Recipe(text=TextEncoder(vocabulary=100)), study).fresh


def test_tables_of_another_version_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(tmp_path / "study")
    assert not pipeline.ingest(Source(name="simulated", subjects=20), None, study).fresh
    monkeypatch.setattr(schema, "DIGEST", "another")
    assert pipeline.ingest(Source(name="simulated", subjects=20), None, study).fresh


def test_replaced_pairs_are_refused(tmp_path: Path) -> None:
    study = small_study(tmp_path / "study")
    pipeline.pair(Recipe(), study)
    pq.write_table(pq.read_table(schema.PAIRS.at(study)).slice(1), schema.PAIRS.at(study))
    with pytest.raises(EinthovenError, match=r"pairs\.parquet is not the one"):
        pipeline.refuse_stale_pairs(study)


def test_signals_that_are_added_to_an_archive_are_read(tmp_path: Path) -> None:
    (tmp_path / "meds" / "data").mkdir(parents=True)
    pq.write_table(pa.table({"subject_id": [1], "time": pa.array([None], pa.timestamp("us")), "code": ["X"]}),
                   tmp_path / "meds" / "data" / "0.parquet")  # fmt: skip
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "ecgs.csv").write_text("recording_id,subject_id,time,file\nr,1,2020-01-01 10:00:00,r.hea\n")
    config = Source(name="meds", recordings=str(archive / "ecgs.csv"), sampling_rate=100)
    pipeline.ingest(config, tmp_path / "meds", tmp_path / "study")
    assert not pipeline.ingest(config, tmp_path / "meds", tmp_path / "study").fresh
    signal = np.random.default_rng(0).integers(-500, 500, (1000, 12))
    wfdb.wrsamp("r", 100, ["mV"] * 12, list(schema.LEADS), d_signal=signal, fmt=["16"] * 12, adc_gain=[1000.0] * 12,
                baseline=[0] * 12, write_dir=str(archive))  # fmt: skip
    assert pipeline.ingest(config, tmp_path / "meds", tmp_path / "study").fresh
    assert pq.read_table(schema.RECORDINGS.at(tmp_path / "study"))["row"].to_pylist() == [0]


def test_what_is_no_study_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine" / "waveforms").mkdir(parents=True)
    (tmp_path / "mine" / "waveforms" / "precious.txt").write_text("x")
    with pytest.raises(EinthovenError, match="holds waveforms and is no study"):
        small_study(tmp_path / "mine")
    assert (tmp_path / "mine" / "waveforms" / "precious.txt").exists()
    study = small_study(tmp_path / "study")
    (tmp_path / "source").mkdir()
    with pytest.raises(EinthovenError, match="is a study of simulated"):
        pipeline.ingest(Source(name="challenge"), tmp_path / "source", study)
    stage_manifest(study, "ingest").unlink()  # as a killed ingest leaves it
    assert pipeline.ingest(Source(name="simulated", subjects=20), None, study).fresh


def test_a_file_in_place_of_the_source_is_told(tmp_path: Path) -> None:
    (tmp_path / "ptbxl_database.csv").touch()
    with pytest.raises(EinthovenError, match="is a file; give the directory"):
        pipeline.ingest(Source(name="ptbxl"), tmp_path / "ptbxl_database.csv", tmp_path / "study")


@pytest.mark.parametrize("source", ["host=db user=me password=geheim", "postgresql:me:geheim@db/x", "x://me:geheim@db"])
def test_what_may_hold_a_password_is_not_repeated(tmp_path: Path, source: str) -> None:
    with pytest.raises(EinthovenError) as caught:
        pipeline.ingest(Source(name="omop"), source, tmp_path / "study")
    assert "geheim" not in str(caught.value)


def test_an_evaluation_writes_the_card_of_its_model(study: Path, recipe: Path, tmp_path: Path, capsys) -> None:
    model = tmp_path / "model"
    shutil.copytree(study / "model", model)
    shutil.copy(study / "report" / "model_card.md", model / "README.md")
    assert "| zero-shot-classification |" in (model / "README.md").read_text()
    capsys.readouterr()
    run("align", str(study), "--recipe", str(recipe), "--out", str(model))
    assert "align: unchanged, nothing to do" in capsys.readouterr().out  # a card is not what makes a model another


def told_by_scores(report: Path) -> dict[str, float]:
    """The values of an evaluation, worked out from its scores."""
    from einthoven.evaluation.comparison import Evaluated, parts
    from einthoven.evaluation.scores import read_scores

    found = parts(Evaluated("", report, {}, read_scores(report)["model"]))
    return {
        f"{place}/{name}": float(values[0])
        for place, part in found.items()
        for name, values in part.statistics(np.ones((1, len(part.subjects)), np.float32)).items()
    }


def test_the_scores_of_an_evaluation_tell_its_values(study: Path) -> None:
    metrics = json.loads((study / "report" / "metrics.json").read_text())["model"]
    told = told_by_scores(study / "report")
    for direction, galleries in metrics["retrieval"].items():
        for gallery, found in galleries.items():
            for name in ("recall@1", "recall@10", "median_rank", "map") if gallery != "findings" else ():
                told_here = told[f"retrieval/{direction}/{gallery}/{name}"]
                assert told_here == pytest.approx(found[name]["value"], abs=1e-6)
    assert told["zeroshot/auroc macro"] == pytest.approx(metrics["zeroshot"]["macro"]["value"])
    assert told["zeroshot/auprc macro"] == pytest.approx(metrics["zeroshot"]["auprc"]["macro"]["value"])
    for fraction, found in metrics["probe"]["fractions"].items():
        assert told[f"probe/{fraction}/auroc macro"] == pytest.approx(found["macro"]["value"], abs=1e-6)


NAMED = {"classes", "fractions", "leads", "notes", "precision.findings", "precision_codes.findings"}
"""Where the keys below are names of the data."""
SETTINGS = {"recipe", "trained_from"}


def keys_of(tree: object, place: tuple[str, ...] = ()) -> set[str]:
    """Every key of metrics that is not a name of the data."""
    if isinstance(tree, list):
        return {key for item in tree for key in keys_of(item, place)}
    if not isinstance(tree, dict) or (place[-1:] and place[-1] in SETTINGS):
        return set()
    named = bool({".".join(place[-1:]), ".".join(place[-2:])} & NAMED)
    below = {key for name, item in tree.items() for key in keys_of(item, (*place, name))}
    return below if named else {*tree, *below}


def undocumented(metrics: dict) -> set[str]:
    """The keys of metrics that docs/evaluate.md does not name."""
    page = (Path(__file__).parents[1] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    said = {word for span in re.findall(r"`([^`\n]+)`", page) for word in re.split(r"[^\w@]+", span)}
    return keys_of(metrics) - said


def test_every_key_of_the_metrics_is_documented(study: Path) -> None:
    metrics = json.loads((study / "report" / "metrics.json").read_text())
    assert {"if_calibrated", "macro_frequent", "median_rank", "flagged", "p95"} <= keys_of(metrics)
    assert undocumented(metrics) == set()


@pytest.mark.parametrize("modalities", [["ecg", "codes"], ["ecg", "codes", "text"]], ids="-".join)
def test_models_with_codes_train_and_are_measured(
    study: Path, recipe: Path, tmp_path: Path, modalities, capsys
) -> None:
    settings = [f"space.modalities={json.dumps(modalities)}", "codes.hidden=32", "codes.layers=1", "codes.heads=2"]
    chosen = [part for setting in settings for part in ("--set", setting)]
    alone = ["--set", "evaluation.control=false"]
    run("align", str(study), "--recipe", str(recipe), "--out", str(tmp_path / "model"), *chosen, *alone)
    run("evaluate", str(tmp_path / "model"), str(study), "--split", "train", "--out", str(tmp_path / "report"), *alone)
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert "random_init" not in metrics
    assert {"retrieval_codes", "zeroshot_codes", "precision_codes", "probe"} <= set(metrics["model"])
    assert "SCP//SR" in metrics["model"]["precision_codes"]["findings"]
    assert undocumented(metrics) == set()
    told, by_codes = told_by_scores(tmp_path / "report"), metrics["model"]["retrieval_codes"]["text_to_ecg"]["distinct"]
    for name in ("recall@10", "map"):
        place = f"retrieval_codes/text_to_ecg/distinct/{name}"
        assert told[place] == pytest.approx(by_codes[name]["value"], abs=1e-6)
    assert told["zeroshot_codes/auroc macro"] == pytest.approx(metrics["model"]["zeroshot_codes"]["macro"]["value"])
    assert ("retrieval" in metrics["model"]) == ("text" in modalities)
    assert "Zero-shot by code" in (tmp_path / "report" / "report.html").read_text()
    model = einthoven.load(tmp_path / "model")
    codes = model.encode_codes([["SCP//AFIB"], ["DIAGNOSIS//ICD//10//I4891", "MEDICATION//warfarin"]], ages=[70, 80])
    signal = np.random.default_rng(0).normal(size=(12, 1000))
    assert codes.shape == (2, 256) and model.encode_ecg(signal, 100, space="fine").shape == (256,)
    if "text" in modalities:
        assert model.encode_codes([["SCP//AFIB"]], space="coarse") @ model.encode_text(["x"])[0]
        assert np.abs(model.encode_ecg(signal, 100) @ model.encode_text(["x"])[0]) <= 1.0
    with pytest.raises(EinthovenError, match="of no kind"):
        model.encode_codes([["LAB//1"]])


def test_a_second_model_finds_the_features_of_a_frozen_text_encoder(study: Path, tmp_path: Path) -> None:
    body = einthoven.load(study / "model").text.body  # type: ignore[union-attr]
    body.save_pretrained(tmp_path / "encoder")
    shutil.copytree(study / "model" / "tokenizer", tmp_path / "encoder", dirs_exist_ok=True)
    recipe = load_recipe(None, [f"text.pretrained={tmp_path / 'encoder'}", "text.frozen=true", "ecg.width=8"])
    seen: list[str] = []

    def stop_when_it_trains(done: int, total: int, note: str) -> None:
        seen.append(note)
        if note.startswith("epoch"):
            raise KeyboardInterrupt

    for name, encodes in (("first", True), ("second", False)):
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            pipeline.align(recipe, study, tmp_path / name, stop_when_it_trains)
        assert ("texts through the frozen encoder" in seen) == encodes
    assert len(list((study / "text_features").glob("*/*.parquet"))) == 2  # train, validation


def test_a_changed_table_of_medications_trains_anew(study: Path, recipe: Path, tmp_path: Path) -> None:
    table, model = tmp_path / "drugs.tsv", tmp_path / "model"
    table.write_text("name\tingredient\tclass\nwarfarin\twarfarin\tB01AA\n")
    sections = {"vocabulary.medications": str(table), "space.modalities": '["ecg", "codes"]', "training.epochs": "1"}
    options = load_recipe(recipe, [f"{name}={value}" for name, value in sections.items()])
    assert pipeline.align(options, study, model).fresh
    assert not pipeline.align(options, study, model).fresh
    table.write_text("name\tingredient\tclass\nwarfarin\tcoumarin\tB01AA\n")
    assert pipeline.align(options, study, model).fresh


def test_a_baseline_that_sees_ecgs_alone_is_a_model_like_any_other(study: Path, recipe: Path, tmp_path: Path) -> None:
    chosen = ["--set", 'space.modalities=["ecg"]', "--set", "training.objective=patient", "--set", "training.epochs=1"]
    model, report = tmp_path / "model", tmp_path / "report"
    run("align", str(study), "--recipe", str(recipe), "--out", str(model), *chosen)
    assert {p.name for p in model.iterdir()} == {
        "config.json", "model.safetensors", "probes.safetensors", "outliers.safetensors",
        "manifest.json", "calibration.json", "README.md",
    }  # fmt: skip
    assert "An encoder of ECGs, trained by itself" in (model / "README.md").read_text()
    counts = read_manifest(model / "manifest.json")["counts"]  # type: ignore[index]
    recordings = pq.read_table(schema.RECORDINGS.at(study)).to_pylist()
    assert counts["pairs"] == sum(r["split"] == "train" and r["row"] is not None for r in recordings)
    assert 0 < counts["history"][-1]["validation_mrr"] <= 1
    run("embed", str(model), str(study))
    run("evaluate", str(model), str(study), "--split", "test", "--out", str(report), "--recipe", str(recipe))
    metrics = json.loads((report / "metrics.json").read_text())
    for series in ("model", "random_init"):
        assert set(metrics[series]) - {"outliers"} == {"probe", "calibration"}
    page = (report / "report.html").read_text()
    assert "Linear probe" in page and "<svg" in page and "concatenation." not in page.split("<h2>Texts</h2>")[1][:600]
    with pytest.raises(EinthovenError, match="this model has no text encoder") as caught:
        run("search", str(model), str(study), "--text", "atrial fibrillation")
    assert len(str(caught.value).splitlines()) == 1
