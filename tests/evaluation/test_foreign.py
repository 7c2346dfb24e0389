import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from einthoven import cli, schema
from einthoven.config import Evaluation
from einthoven.errors import EinthovenError
from einthoven.evaluation import foreign
from einthoven.evaluation.foreign import evaluate_file, read_npz
from einthoven.evaluation.retrieval import retrieval
from einthoven.evaluation.split import numbers_of
from einthoven.evaluation.transfer import fit_probes, probe_metrics
from einthoven.evaluation.zeroshot import PROMPTS, zero_shot
from einthoven.study import stage_manifest, write_json, write_table

OPTIONS = Evaluation(resamples=20, label_fractions=(0.5, 1.0), subsets=2)
N = 120


def arrays(**changes):
    """A file that suits `study`, with changes; None leaves an array out."""
    random = np.random.default_rng(0)
    whole = {
        "recording_id": np.array([f"r{i}" for i in range(N)]),
        "features": random.normal(size=(N, 6)).astype(np.float32) + np.arange(N)[:, None] % 2,
        "ecg": random.normal(size=(N, 4)).astype(np.float32),
        "text": random.normal(size=(7, 4))[np.arange(N)[::-1] % 7],
        "text_recording_id": np.array([f"r{i}" for i in range(N)][::-1]),
        "prompt_NORM": random.normal(size=(3, 4)).astype(np.float16),
        "prompt_MI": random.normal(size=(1, 4)),
    }
    return {name: array for name, array in (whole | changes).items() if array is not None}


def saved(path: Path, **changes) -> Path:
    np.savez(path / "features.npz", **arrays(**changes))
    return path / "features.npz"


def rows(table, columns):
    return pa.table({f.name: pa.array(columns.get(f.name, [None] * N), f.type) for f in table.columns})


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Recordings r0, r1, …, of which the first half is for training; the odd ones show an infarct."""
    path = tmp_path_factory.mktemp("foreign") / "study"
    base = {
        "recording_id": [f"r{i}" for i in range(N)],
        "subject_id": [i // 2 for i in range(N)],
        "split": ["train"] * (N // 2) + ["test"] * (N // 2),
        "row": list(range(N)),
    }
    codes = ["SCP//IMI" if i % 2 else "SCP//NORM" for i in range(N)]
    write_table(schema.RECORDINGS, path, rows(schema.RECORDINGS, base))
    write_table(schema.EVENTS, path, rows(schema.EVENTS, base | {"code": codes}))
    texts = [None if i % 10 == 9 else f"report {i % 7}" for i in range(N)]
    write_table(schema.PAIRS, path, rows(schema.PAIRS, base | {"text": texts}))
    parents = pa.table(
        {
            "code": ["SCP//NORM", "SCP//IMI"],
            "description": ["", ""],
            "parent_codes": [["SCP_CLASS//NORM"], ["SCP_CLASS//MI"]],
        }
    )
    write_table(schema.CODES, path, parents)
    write_table(schema.EXCLUDED, path, schema.EXCLUDED.columns.empty_table())
    write_json(stage_manifest(path, "ingest"), {"counts": {"data_kind": "simulated"}})
    return path


def evaluated(path: Path, study: Path, options: Evaluation = OPTIONS, split: str = "test"):
    evaluate_file(path, study, split, path.parent / "out", options, "command", lambda i, n, note: None)
    return json.loads((path.parent / "out" / "metrics.json").read_text())


def test_all_that_the_arrays_allow_is_measured_by_the_functions_that_measure_our_models(study, tmp_path):
    metrics = evaluated(saved(tmp_path), study)
    assert metrics["data_kind"] == "simulated" and "random_init" not in metrics
    assert metrics["counts"]["recordings"] == 60 and metrics["counts"]["probes_fitted_on"] == 60
    assert set(metrics["model"]) == {"retrieval", "zeroshot", "precision", "probe", "calibration"}
    given, half = arrays(), N // 2
    labels, subjects = np.stack([np.arange(N) % 2 == 0, np.arange(N) % 2 == 1], axis=1), np.arange(N) // 2
    # the split is by recording_id, in the order of letters
    order = np.array(sorted(range(half, N), key=lambda i: f"r{i}"))
    told = np.array([i for i in order if i % 10 != 9])
    texts, findings = numbers_of((told % 7).tolist()), told % 2
    found = retrieval(
        given["ecg"][told], given["text"][::-1][told], texts, subjects[told], findings=findings, resamples=20
    )
    assert metrics["model"]["retrieval"] == json.loads(json.dumps(found))
    prompts = {name: given[f"prompt_{name}"] for name in ("NORM", "MI")}
    assert metrics["model"]["zeroshot"] == zero_shot(
        given["ecg"][order], prompts, labels[order], subjects[order], resamples=20
    )
    probes = fit_probes(
        given["features"][:half], labels[:half], subjects[:half], ("NORM", "MI"), fractions=(0.5, 1.0), subsets=2
    )
    probe = probe_metrics(
        probes, given["features"][order], labels[order], subjects[order], ("NORM", "MI"), resamples=20
    )
    assert metrics["model"]["probe"] == probe
    page = (tmp_path / "out" / "report.html").read_text()
    assert "One finding as text" in page and page.count("<svg") == 6


def test_the_lines_that_the_documentation_shows_write_a_file(study, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    given, random = arrays(), np.random.default_rng(1)
    prompts = {name: PROMPTS[name] for name in ("NORM", "MI")}  # the classes that this study has
    model = {"features": lambda ids: given["features"], "ecg": lambda ids: given["ecg"]}
    model["text"] = lambda texts: random.normal(size=(len(texts), 4))
    exec(lines.replace("STUDY", str(study)), {"np": np, "pq": pq, "PROMPTS": prompts, **model})
    metrics = evaluated(tmp_path / "FEATURES.npz", study)
    assert set(metrics["model"]) == {"retrieval", "zeroshot", "precision", "probe", "calibration"}


def test_features_alone_are_probed(study, tmp_path):
    lone = dict.fromkeys(("ecg", "text", "text_recording_id", "prompt_NORM", "prompt_MI"))
    assert set(evaluated(saved(tmp_path, **lone), study)["model"]) == {"probe", "calibration"}


def test_without_the_train_split_nothing_is_probed(study, tmp_path):
    half = {name: arrays()[name][N // 2 :] for name in ("recording_id", "features", "ecg")}
    metrics = evaluated(saved(tmp_path, **half), study)
    assert "probe" not in metrics["model"] and metrics["counts"]["probes_fitted_on"] == 0


ids = arrays()["recording_id"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": None}, "array features expected to be there"),
        ({"recording_id": np.arange(N)}, r"array recording_id holds int64; expected strings, by astype\(str\)"),
        ({"recording_id": ids.astype(object)}, "array recording_id holds Python objects, which are never read"),
        ({"recording_id": ids.astype(bytes)}, r"array recording_id holds \|S4; expected strings"),
        ({"recording_id": ids[:1].repeat(N)}, f"array recording_id names {N - 1} recordings again"),
        ({"recording_id": ids[:5]}, f"array features has {N} rows; expected 5, one for each of recording_id"),
        ({"features": np.zeros((N, 3), int)}, "array features holds int64; expected floats"),
        ({"features": np.zeros(N)}, "array features has 1 dimensions; expected 2"),
        ({"features": np.zeros((N, 0))}, "array features is empty"),
        ({"features": np.full((N, 2), np.nan)}, f"array features has {N} rows with NaN"),
        ({"features": np.full((N, 2), 1e300)}, f"array features has {N} rows with NaN or what float32 cannot hold"),
        ({"text": None}, "array text expected beside text_recording_id"),
        ({"ecg": None}, "array ecg expected exactly where there is text or prompt_<CLASS>"),
        ({"text": np.zeros((N, 5))}, "array text has 5 columns; expected 4, as ecg has"),
        ({"prompt_MI": np.zeros((1, 3))}, "array prompt_MI has 3 columns; expected 4"),
        ({"prompt_": np.zeros((1, 4))}, "array 'prompt_' is unknown; expected recording_id, features"),
        ({"texts": np.zeros((1, 4))}, "array 'texts' is unknown"),
        ({"concatenation": np.array("notes")}, "array concatenation expected report or entity"),
        ({"prompt_XYZ": np.zeros((1, 4))}, "array prompt_XYZ is of no class of the study; it has NORM, MI"),
        ({"recording_id": np.char.add("ecg-", ids)}, "recording_id lacks 60 of the 60 recordings of the test split"),
        ({"recording_id": np.r_[["x", "y"], ids[2:]]}, "lacks 2 of the 60 labelled recordings of the train split"),
        ({"text_recording_id": np.r_[ids[:-1], ["x"]]}, None),  # r119 has no text in the study
        ({"text_recording_id": np.r_[ids[:-2], ["x", "y"]]}, "lacks 1 of the 54 recordings of the test split that"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_is_expected(study, tmp_path, changes, message):
    path = saved(tmp_path, **changes)
    if message is None:
        assert "retrieval" in evaluated(path, study)["model"]
        return
    with pytest.raises(EinthovenError, match=message) as caught:
        evaluated(path, study)
    assert str(path) in str(caught.value) and not (tmp_path / "out" / "metrics.json").exists()


def test_a_file_that_is_none_or_damaged_is_told(tmp_path, monkeypatch):
    path = saved(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EinthovenError, match=r"is not a readable \.npz"):
        read_npz(path)
    place = whole.index(b"r\0\0\0005") + 1  # a letter of an id: the checksum tells
    path.write_bytes(whole[:place] + b"x" + whole[place + 1 :])
    with pytest.raises(EinthovenError, match=r"is not a readable \.npz"):
        read_npz(path)
    with pytest.raises(EinthovenError, match="no such file"):
        read_npz(tmp_path / "nowhere.npz")
    path.write_bytes(whole)
    monkeypatch.setattr(foreign, "MOST_BYTES", 1000)
    with pytest.raises(EinthovenError, match="at most 1,000 are read"):
        read_npz(path)


def test_a_header_that_promises_more_than_there_is_allocates_nothing(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 64)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("features.npy", header.getvalue() + bytes(64))
    with pytest.raises(EinthovenError, match=r"is not a readable \.npz"):
        read_npz(tmp_path / "bomb.npz")


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "trap.npz", recording_id=np.array([Trap()], object), features=np.zeros((1, 1)))
    with pytest.raises(EinthovenError, match="Python objects"):
        read_npz(tmp_path / "trap.npz")
    assert not (tmp_path / "sprung").exists()


def test_a_file_has_no_other_leads(study, tmp_path):
    with pytest.raises(EinthovenError, match="lead_subsets needs a model"):
        evaluated(saved(tmp_path), study, Evaluation(lead_subsets=True))


def test_the_command_line_refuses_a_file_that_is_not_there(study, tmp_path, monkeypatch):
    from einthoven.pipeline import measuring

    monkeypatch.setattr(measuring, "refuse_stale_pairs", lambda study: None)
    with pytest.raises(EinthovenError, match="no such file of embeddings"):
        cli.app(["evaluate", str(tmp_path / "no.npz"), str(study), "--out", str(tmp_path / "r")], standalone_mode=False)
