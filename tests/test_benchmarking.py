"""`einthoven benchmark` through the command line: PTB-XL's own sets, and MERL's tables over real recordings."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from einthoven import cli, pipeline, schema
from einthoven.config import Source, load_recipe
from einthoven.embed import table_of
from einthoven.errors import EinthovenError
from einthoven.evaluation.label_sets import AS_FOUND, OWN, Place, file_key, recordings_by_file, scp_sets, worded
from einthoven.evaluation.zeroshot import prompt_scores
from einthoven.model_directory import load
from einthoven.study import read_table, write_table

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = [DATA / "ptbxl-wfdb-sample-500hz" / name for name in ("ptbxl_database.csv", "records100")]
REAL += [DATA / "ptbxl-1.0.3-100hz" / "scp_statements.csv"]
TINY = [
    "ecg.width=8", "ecg.blocks=[1]", "text.hidden=32", "text.layers=1", "training.epochs=1",
    "training.precision=fp32", "evaluation.subsets=1", "evaluation.resamples=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmark")
    recipe = load_recipe(None, TINY)
    pipeline.ingest(Source(name="simulated", subjects=80), None, path / "study")
    pipeline.pair(recipe, path / "study")
    pipeline.align(recipe, path / "study", path / "model")
    return path


def test_own_sets_are_measured_as_their_labels_and_prompts_say(place: Path, capsys) -> None:
    model, study, out = place / "model", place / "study", place / "own"
    asked = ["benchmark", str(model), str(study), "--split", "validation", "--out", str(out)]
    cli.app([*asked, "--set", "evaluation.resamples=5"], standalone_mode=False)
    (one,) = scp_sets(study, "validation")  # simulated statements have super-classes alone
    found = json.loads((out / "benchmark.json").read_text())["sets"]["PTB-XL super"]
    assert found["recordings"] == len(one.places) and found["in_a_train_split"] == 0
    pipeline.embed(model, study)
    embedded = read_table(table_of(model), study).to_pylist()
    vector = {row["recording_id"]: row["embedding"] for row in embedded}
    vectors = {name: load(model).encode_text(list(of)) for name, of in one.prompts[OWN].items()}
    scores = prompt_scores([vector[p.recording_id] for p in one.places], vectors, "contrast")
    labels = one.labels[AS_FOUND]
    for c, name in enumerate(one.classes):
        part = found["labels"][AS_FOUND][f"{OWN}, contrast"]["classes"][name]
        assert part["positives"] == labels[:, c].sum() and part["few"] == (labels[:, c].sum() < 10)
        assert part["auroc"]["value"] == pytest.approx(roc_auc_score(labels[:, c], scores[:, c]))
    said = capsys.readouterr().out
    assert "simulated data, validation split" in said and "PTB-XL super" in said
    cli.app([*asked, "--set", "evaluation.resamples=5"], standalone_mode=False)
    assert "nothing to do" in capsys.readouterr().out


def test_merls_tables_are_measured_by_both_rules_on_real_recordings(place: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "source").mkdir()
    for part in REAL:
        if not part.exists():
            pytest.skip(f"{part} is not on this machine")
        copy = shutil.copytree if part.is_dir() else shutil.copyfile
        copy(part, tmp_path / "source" / part.name)
    pipeline.ingest(Source(sampling_rate=100), tmp_path / "source", tmp_path / "ptbxl")
    ids = read_table(schema.RECORDINGS, tmp_path / "ptbxl", ["source_file"])["source_file"].to_pylist()[:40]
    merl = tmp_path / "merl"
    (merl / "chapman").mkdir(parents=True)
    with (merl / "chapman" / "chapman_test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ecg_path", "age", "diagnose", "ST", "AF"])
        for i, name in enumerate([*ids, "nowhere/JS00001.mat"]):
            listed = ("ST", "STE", "AF,SB", "AFIB")[i % 4]
            writer.writerow([name, 1, listed, int("ST" in listed), int("AF" in listed)])
    (merl / "CKEPE_prompt.json").write_text(json.dumps({"ST": "sinus tachycardia, fast", "AF": "flutter."}))
    asked = ["benchmark", str(place / "model"), str(tmp_path / "ptbxl"), "--merl", str(merl), "--out"]
    cli.app([*asked, str(tmp_path / "out"), "--set", "evaluation.resamples=5"], standalone_mode=False)
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    csn = found["sets"]["CSN"]
    assert (csn["recordings"], csn["listed"], csn["not_in_a_study"], csn["changed"]["labels"]) == (40, 41, 1, 20)
    assert set(csn["labels"]) == {"as published", "corrected"} and len(found["absent"]) == 5
    ways = {rule: part["MERL's prompt"]["classes"] for rule, part in csn["labels"].items()}
    assert [ways[rule]["ST"]["positives"] for rule in ways] == [20, 10]
    assert found["average"]["corrected"]["MERL's prompt"]["sets"] == 1
    assert "1 of 41 in no study; corrected labels: 20 (in the whole table 20)" in capsys.readouterr().out


def test_descriptions_become_prompts() -> None:
    assert worded("left atrial overload/enlargement") == ["left atrial overload", "left atrial enlargement"]
    assert worded("premature complex(es)") == ["premature complexes"]
    assert worded("bigeminal pattern (unknown origin, SV or Ventricular)") == ["bigeminal pattern"]
    assert worded("ischemic ST-T changes") == ["ischemic st-t changes"] and worded("") == []


def test_what_cannot_be_benchmarked_is_told(place: Path, tmp_path: Path) -> None:
    asked = ["benchmark", str(place / "model"), str(place / "study"), "--out", str(tmp_path / "out")]
    with pytest.raises(EinthovenError, match="named twice"):
        cli.app([*asked[:3], asked[2], *asked[3:]], standalone_mode=False)
    with pytest.raises(EinthovenError, match="expected one of train"):
        cli.app([*asked, "--split", "fold9"], standalone_mode=False)
    with pytest.raises(EinthovenError, match="no such directory"):
        cli.app([*asked, "--merl", str(tmp_path / "nowhere")], standalone_mode=False)
    with pytest.raises(EinthovenError, match="beside --merl"):
        cli.app([*asked, "--prompts", str(tmp_path / "nowhere")], standalone_mode=False)
    (tmp_path / "merl").mkdir()
    (tmp_path / "merl" / "CKEPE_prompt.json").write_text("{}")
    with pytest.raises(EinthovenError, match=r"nothing to classify: PTB-XL super: ptbxl/super_class/.*is not there"):
        cli.app([*asked, "--merl", str(tmp_path / "merl")], standalone_mode=False)


def test_a_file_name_in_two_studies_is_refused(place: Path, tmp_path: Path) -> None:
    assert file_key("/chapman/WFDBRecords/44/448/JS44279.mat") == file_key("JS44279.hea") == "JS44279"
    assert recordings_by_file([place / "study"]) == {}  # the simulated have no file
    rows = read_table(schema.RECORDINGS, place / "study")
    column = rows.schema.get_field_index("source_file")
    named = rows.set_column(column, rows.schema.field(column), [[f"x/{i}_hr.mat" for i in range(len(rows))]])
    for name in ("one", "other"):
        write_table(schema.RECORDINGS, tmp_path / name, named)
    assert recordings_by_file([tmp_path / "one"])["1_hr"] == Place(tmp_path / "one", rows["recording_id"][1].as_py())
    with pytest.raises(EinthovenError, match="both have a recording that was read from 0_hr"):
        recordings_by_file([tmp_path / "one", tmp_path / "other"])
