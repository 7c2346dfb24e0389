"""Fine-tuning: the loss, the loop, the directory it writes, and the command from model and labels to a table."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

import einthoven
from einthoven import cli, pipeline, schema
from einthoven.classifier import Classifier, Head
from einthoven.config import Augmentation, EcgEncoder, FineTuning, Source, Space, TextEncoder
from einthoven.errors import EinthovenError
from einthoven.evaluation.labels import super_classes
from einthoven.evaluation.transfer import patient_subset
from einthoven.model import Model
from einthoven.study import read_table
from einthoven.training.finetune import closes, create, epochs_of, finetune, head_of, label_loss, unlearnt, validate
from einthoven.training.labelled import Labelled
from einthoven.waveforms.store import Store

ECG = EcgEncoder(width=8, blocks=(1, 1), dropout=0.0)
PLAIN = Augmentation(scale=0, noise_mv=0, wander_mv=0, lead_dropout=0)
OPTIONS = FineTuning(
    epochs=4, min_steps=1, batch=4, new_learning_rate=3e-3, ema=0.9, dropout=0.1, precision="fp32", validations=2
)


class Waves:
    """Eight recordings of sines of 1 to 8 Hz in the place of a study's store."""

    sampling_rate = 100

    def read(self, rows: np.ndarray) -> np.ndarray:
        t = np.arange(1000) / 100
        waves = [[np.sin(2 * np.pi * (1 + k) * t + lead) for lead in range(12)] for k in range(8)]
        return (1000 * np.array(waves)).astype(np.int16)[rows]


STORE: Store = Waves()  # type: ignore[assignment]


def labelled(values: np.ndarray) -> Labelled:
    return Labelled(tuple("abcdefgh"), np.arange(8), np.arange(8), values)


CLASSES = labelled(np.stack([np.arange(8) < 4, np.arange(8) > 5], axis=1).astype(np.float64))
NUMBERS = labelled(100 + 10 * np.arange(8.0)[:, None])


def new(train: Labelled, task: str, weights: dict | None = None, options: FineTuning = OPTIONS) -> Classifier:
    labels = tuple(f"label {c}" for c in range(train.values.shape[1]))
    return create(ECG, weights, head_of(task, labels, train.values), train, options)


@pytest.mark.parametrize("task", ["classes", "regression"])
def test_the_loss_is_the_naive_mean_over_the_known_cells(task: str) -> None:
    random = np.random.default_rng(0)
    logits, targets = random.normal(size=(6, 3)), (random.random((6, 3)) < 0.5).astype(np.float32)
    targets[random.random((6, 3)) < 0.4] = np.nan
    each = []
    for logit, target in zip(logits.ravel(), targets.ravel(), strict=True):
        if np.isnan(target):
            continue
        p = 1 / (1 + np.exp(-logit))
        each.append(-np.log(p if target else 1 - p) if task == "classes" else (logit - target) ** 2)
    x = torch.tensor(logits, requires_grad=True)
    loss = label_loss(x, torch.from_numpy(targets), task)
    assert float(loss.detach()) == pytest.approx(np.mean(each), rel=1e-5)
    loss.backward()
    assert x.grad is not None and torch.equal(x.grad == 0, torch.from_numpy(targets).isnan())
    assert float(label_loss(x.detach(), torch.full((6, 3), torch.nan), task)) == 0


def test_the_steps_of_a_run() -> None:
    options = FineTuning(epochs=20, min_steps=300, batch=64)
    assert [epochs_of(n, options) for n in (2, 64 * 10, 64 * 100)] == [300, 30, 20]
    assert [e for e in range(1, 11) if closes(e, 10, 4)] == [3, 5, 8, 10]
    assert all(closes(e, 3, 10) for e in (1, 2, 3)) and [e for e in range(1, 301) if closes(e, 300, 3)] == [
        100,
        200,
        300,
    ]


@pytest.mark.parametrize(("task", "train"), [("classes", CLASSES), ("regression", NUMBERS)])
def test_eight_recordings_are_learnt_by_heart(tmp_path: Path, task: str, train: Labelled) -> None:
    options = replace(OPTIONS, epochs=40, batch=8, dropout=0.0, validations=2, new_learning_rate=1e-2)
    history = finetune(new(train, task, options=options), train, train, STORE, options, PLAIN, tmp_path)
    found = einthoven.load_classifier(tmp_path / "best").predict(STORE.read(np.arange(8)) / 1000, 100)
    if task == "classes":
        assert np.array_equal(found > 0.5, train.values == 1) and history[-1]["validation"] == 1
    else:
        assert abs(found - train.values).max() < 10  # in the label's own unit; 70 lie between the first and the last
    assert history[-1]["loss"] < 0.5 * history[0]["loss"] and len(history) == 2


class KilledError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 5, 7])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, stop: int) -> None:
    def kill(step: int, steps: int, note: str) -> None:
        if step == stop:
            raise KilledError

    def run(name: str, **more) -> list[dict[str, float]]:
        given = STORE, OPTIONS, replace(PLAIN, noise_mv=0.01)
        return finetune(new(CLASSES, "classes"), CLASSES, CLASSES, *given, tmp_path / name, **more)

    whole = run("whole")
    with pytest.raises(KilledError):
        run("killed", progress=kill)
    assert run("killed") == whole and len(whole) == 2
    expected, got = (einthoven.load_classifier(tmp_path / name / "best").state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    with pytest.raises(EinthovenError, match="unfinished run of another"):
        run("whole", signature="another")


def test_a_run_begins_with_the_models_weights_or_random_ones_and_says_the_mean() -> None:
    torch.manual_seed(5)
    weights = Classifier(ECG, Head(task="classes", labels=("x",), mean=(0.0,), scale=(1.0,)), {}).ecg.state_dict()
    tuned, scratch, again = new(CLASSES, "classes", weights), new(CLASSES, "classes"), new(CLASSES, "classes")
    assert all(torch.equal(value, tuned.ecg.state_dict()[name]) for name, value in weights.items())
    first = next(iter(weights))
    assert not torch.equal(scratch.ecg.state_dict()[first], weights[first])
    assert torch.equal(scratch.ecg.state_dict()[first], again.ecg.state_dict()[first])
    said = tuned.predict_rows(STORE, np.arange(8))
    assert np.allclose(said, [4.5 / 9, 2.5 / 9])  # smoothed, so that a class without a positive is not impossible
    assert new(NUMBERS, "regression").predict_rows(STORE, np.arange(8)) == pytest.approx(135)


def test_what_no_label_teaches_is_said_alike_of_every_ecg(tmp_path: Path) -> None:
    train = labelled(np.stack([np.arange(8) % 2, np.zeros(8), np.full(8, np.nan)], axis=1).astype(np.float64))
    assert unlearnt(train.values).tolist() == [False, True, True]
    finetune(new(train, "classes"), train, train, STORE, OPTIONS, PLAIN, tmp_path)
    found = einthoven.load_classifier(tmp_path / "best").predict_rows(STORE, np.arange(8))
    assert np.ptp(found, axis=0).tolist()[1:] == [0, 0] and np.ptp(found[:, 0]) > 0
    assert found[0, 1:] == pytest.approx([0.5 / 9, 0.5])
    with pytest.raises(EinthovenError, match="'label 2' has no value"):
        new(train, "regression")


def test_without_a_split_that_can_tell_the_last_epoch_is_kept(tmp_path: Path) -> None:
    nothing = CLASSES.part(np.zeros(8, bool))
    history = finetune(new(CLASSES, "classes"), CLASSES, nothing, STORE, OPTIONS, PLAIN, tmp_path)
    assert einthoven.load_classifier(tmp_path / "best").card["epoch"] == 4 and "validation" not in history[-1]
    assert validate(new(CLASSES, "classes"), CLASSES.part(np.arange(8) == 0), STORE) is None


def test_a_saved_classifier_is_the_same_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    classifier = new(NUMBERS, "regression")
    torch.nn.init.normal_(classifier.linear.weight)
    classifier.save(tmp_path / "saved")
    back = einthoven.load_classifier(tmp_path / "saved", "cpu")
    signal = STORE.read(np.arange(8)) / 1000
    expected = classifier.predict(signal, 100)
    assert back.head == classifier.head and np.array_equal(back.predict(signal, 100), expected)
    assert np.allclose(back.predict_rows(STORE, np.arange(8)), expected, atol=1e-3)
    assert back.predict(signal[0, [1]], 100, ["ii"]).shape == (1,) and back.predict(signal[:0], 100).shape == (0, 1)
    with pytest.raises(EinthovenError, match="expected \\[leads, samples\\]"):
        back.predict(signal[0, 0], 100)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    for wrong, said in (
        ({**config, "more": 1}, "exactly the keys"),
        ({**config, "format": 9}, "format 9"),
        ({**config, "kind": "model"}, "holds no classifier"),
        ({**config, "head": {**config["head"], "task": "ranking"}}, "task classes or regression"),
        ({**config, "ecg": {**config["ecg"], "width": 16}}, "does not fit config.json"),
    ):
        (tmp_path / "saved" / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(EinthovenError, match=said):
            einthoven.load_classifier(tmp_path / "saved")
    with pytest.raises(EinthovenError, match="no classifier"):
        einthoven.load_classifier(tmp_path)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("finetune") / "study"
    pipeline.ingest(Source(name="simulated", subjects=40, sampling_rate=100), None, path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    text = TextEncoder(hidden=16, layers=1, heads=2, vocabulary=100)
    made = Model.create(ECG, text, Space(dim=8, hidden=16), ["normal ecg"]).eval()
    path = tmp_path_factory.mktemp("finetune") / "model"
    made.save(path)
    return path


SETTINGS = [
    f"--set={setting}"
    for setting in (
        "finetuning.epochs=1",
        "finetuning.min_steps=1",
        "finetuning.precision=fp32",
        "evaluation.resamples=9",
    )
]


def run(*arguments: object) -> None:
    cli.app(["finetune", *map(str, arguments), *SETTINGS], standalone_mode=False)


def test_one_command_makes_the_table_of_budgets(study: Path, model: Path, tmp_path: Path, capsys) -> None:
    command = (model, study, "--labels", "classes", "--fractions", "0.1,1", "--subsets", 2, "--out", tmp_path / "out")
    run(*command)
    said = capsys.readouterr().out
    assert "macro AUROC" in said and "simulated data" in said and "optimistic" in said
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["data_kind"] == "simulated" and metrics["split"] == "validation" and not metrics["random_init"]
    assert {name: len(part["subsets"]) for name, part in metrics["fractions"].items()} == {"0.1": 2, "1": 1}
    found = super_classes(study)
    rows = read_table(schema.RECORDINGS, study)
    rows = rows.filter(pc.and_(pc.is_in(rows["recording_id"], pa.array(found.recording_ids)), pc.is_valid(rows["row"])))
    subjects = rows.filter(pc.equal(rows["split"], "train"))["subject_id"].to_numpy()
    for subset in range(2):
        expected = int(patient_subset(subjects, 0.1, 0, subset).sum())  # those of the linear probes
        assert metrics["fractions"]["0.1"]["subsets"][subset]["recordings"] == expected
    single = json.loads((tmp_path / "out" / "0.1-1" / "metrics.json").read_text())
    assert single["fractions"]["0.1"]["subsets"] == metrics["fractions"]["0.1"]["subsets"][1:]
    assert {p.name for p in (tmp_path / "out" / "1-0").iterdir()} == {
        "config.json", "model.safetensors", "predictions.parquet", "metrics.json", "manifest.json",
    }  # fmt: skip
    assert not list((tmp_path / "out").glob("*.training"))
    run(*command)
    assert "unchanged, nothing to do" in capsys.readouterr().out
    run(*command[:5], "1", *command[6:])  # only the table is made again
    assert set(json.loads((tmp_path / "out" / "metrics.json").read_text())["fractions"]) == {"1"}


def test_numbers_of_a_file_are_predicted_in_their_unit(study: Path, model: Path, tmp_path: Path, capsys) -> None:
    rows = read_table(schema.RECORDINGS, study)
    file = tmp_path / "labels.csv"
    lines = [f"{name},{50 + 10 * (i % 3)}" for i, name in enumerate(rows["recording_id"].to_pylist())]
    file.write_text("recording_id,[/ef]\n" + "\n".join([*lines, "elsewhere,3"]) + "\n")
    run(model, study, "--labels", file, "--random-init", "--split", "test", "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "MAE [/ef]" in said and "random weights" in said and "optimistic" not in said
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["random_init"] and metrics["task"] == "regression" and "history" in metrics
    assert metrics["counts"]["labelled_without_signal"] == 1
    table = pq.read_table(tmp_path / "out" / "predictions.parquet")
    assert set(table["split"].to_pylist()) == {"test"}
    classifier = einthoven.load_classifier(tmp_path / "out", "cpu")
    places = dict(zip(rows["recording_id"].to_pylist(), rows["row"].to_pylist(), strict=True))
    signals = Store.open(study).read([places[name] for name in table["recording_id"].to_pylist()]) / 1000
    assert classifier.predict(signals, 100)[:, 0] == pytest.approx(table["[/ef]"].to_numpy(), abs=1e-2)
    file.write_text(file.read_text().replace("elsewhere,3", "elsewhere,4"))
    run(model, study, "--labels", file, "--random-init", "--split", "test", "--out", tmp_path / "out")
    assert "unchanged" not in capsys.readouterr().out  # the labels are an input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--labels", "classes", "--split", "train"], "expected validation or test"),
        (["--labels", "classes", "--fractions", "0.1,x"], "numbers with commas"),
        (["--labels", "classes", "--fractions", "0.1", "--fraction", "0.1"], "either --fractions"),
        (["--labels", "nowhere.csv"], "expected classes, age, or a file"),
        (["--labels", "LABELS"], "fewer than two patients of the train split"),
    ],
)
def test_what_cannot_be_done_is_told(study: Path, model: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("recording_id,AF\nelsewhere,1\n")
    given = [str(file) if word == "LABELS" else word for word in arguments]
    with pytest.raises(EinthovenError, match=said):
        run(model, study, *given, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_directories_that_must_not_be_written_are_refused(study: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="holds the study itself"):
        run(model, study, "--labels", "age", "--out", study.parent)
    with pytest.raises(EinthovenError, match="not a model directory"):
        run(tmp_path, study, "--labels", "age", "--out", tmp_path / "out")
    with pytest.raises(EinthovenError, match="single classifier"):
        run(model, study, "--labels", "age", "--fractions", "1", "--out", model)
