import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from einthoven import cli
from einthoven.errors import EinthovenError
from einthoven.evaluation.comparison import compare_reports, names, table, write_comparison
from einthoven.evaluation.intervals import weights
from einthoven.evaluation.retrieval import all_ranked, retrieval
from einthoven.evaluation.scores import Scores, read_scores, write_scores
from einthoven.evaluation.transfer import fit_probes, probe_metrics
from einthoven.evaluation.zeroshot import prompt_scores, zero_shot
from einthoven.study import write_json

N, CLASSES = 80, ("A", "B", "C")
LABELS = np.random.default_rng(0).random((N, 3)) < [0.5, 0.3, 0.0]
SUBJECTS, GROUPS = np.arange(N) // 2, np.random.default_rng(1).integers(0, 30, N)
KNOWN = np.ones(N, bool)


def evaluated(path: Path, noise: float, seed: int = 0, **changes) -> Path:
    """A report of a model that is worse with more noise, with its metrics."""
    random = np.random.default_rng([seed, 5])
    text = np.random.default_rng(2).normal(size=(30, 6))[GROUPS]
    ecg = text + noise * random.normal(size=text.shape)
    ecg[:, :3] += 2 * LABELS
    prompts = {name: np.eye(6)[[c]] for c, name in enumerate(CLASSES)}
    probes = fit_probes(ecg, LABELS, SUBJECTS, CLASSES, fractions=(0.5, 1.0), subsets=2)
    kept = Scores.of([f"r{i:03}" for i in range(N)], SUBJECTS, CLASSES, LABELS, KNOWN)
    kept.add_ranks("retrieval", KNOWN, all_ranked(ecg, text, GROUPS), GROUPS)
    kept.add_scores("zeroshot", KNOWN, CLASSES, prompt_scores(ecg, prompts))
    for probe in probes:
        kept.add_scores(f"probe/{probe.fraction:g}/{probe.subset}", KNOWN, CLASSES, probe.scores(ecg))
    metrics = {
        "data_kind": "simulated", "trained_on": "simulated", "split": "test", "seed": 4, "resamples": 40,
        "counts": {"recordings": N}, "concatenation": "report", "trained_from": {"pairs": "ours"},
        "recipe": {"noise": noise, "training": {"seed": seed, "epochs": 3}},
        "model": {
            "retrieval": retrieval(ecg, text, GROUPS, SUBJECTS, resamples=40, seed=4),
            "zeroshot": zero_shot(ecg, prompts, LABELS, SUBJECTS, resamples=40, seed=4),
            "probe": probe_metrics(probes, ecg, LABELS, SUBJECTS, CLASSES, resamples=40, seed=4),
        },
    }  # fmt: skip
    for name, value in changes.items():
        if name in metrics:
            metrics[name] = value
        else:
            kept = replace(kept, **{name: value})
    write_scores(path, {"model": kept})
    write_json(path / "metrics.json", metrics)
    write_json(path / "manifest.json", {})
    return path


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> list[Path]:
    place = tmp_path_factory.mktemp("runs")
    return [evaluated(place / "good" / "report", 0.5), evaluated(place / "bad" / "report", 3.0)]


def rows_of(comparison: dict) -> dict:
    return {(row["task"], row["measure"]): row for row in comparison["measures"]}


def test_values_and_intervals_are_those_of_the_evaluations(reports) -> None:
    comparison = compare_reports(reports, "c")
    rows = rows_of(comparison)
    assert [model["name"] for model in comparison["models"]] == ["good", "bad"]
    for i, report in enumerate(reports):
        found = json.loads((report / "metrics.json").read_text())["model"]
        galleries = found["retrieval"]["text_to_ecg"]
        for task, expected in (("distinct texts", galleries["distinct"]), ("all recordings", galleries["all"])):
            for measure, name in (("recall@10, %", "recall@10"), ("median rank", "median_rank"), ("mAP, %", "map")):
                row = rows["Retrieval Text → ECG, " + task, measure]
                assert row["values"][i] == pytest.approx(expected[name], abs=1e-6)
        for measure, expected in {
            ("Zero-shot", "macro AUROC"): found["zeroshot"]["macro"],
            ("Zero-shot", "AUROC B"): found["zeroshot"]["classes"]["B"],
            ("Zero-shot", "macro AUPRC"): found["zeroshot"]["auprc"]["macro"],
            ("Zero-shot", "AUPRC A"): found["zeroshot"]["auprc"]["classes"]["A"],
            ("Linear probe", "macro AUPRC, 50 % of training patients"): found["probe"]["fractions"]["0.5"]["auprc"][
                "macro"
            ],
            ("Linear probe", "macro AUROC, 50 % of training patients"): found["probe"]["fractions"]["0.5"]["macro"],
            ("Linear probe", "macro AUROC, 100 % of training patients"): found["probe"]["fractions"]["1"]["macro"],
        }.items():
            assert rows[measure]["values"][i] == pytest.approx(expected, abs=1e-6)
    assert ("Zero-shot", "AUROC C") not in rows  # nobody has it


def test_differences_are_paired_over_patients(reports) -> None:
    row = rows_of(compare_reports(reports, "c"))["Zero-shot", "AUROC A"]
    assert row["differences"][0] is None
    one, other = (read_scores(path)["model"].scores["zeroshot/A"] for path in reports)
    samples = [
        roc_auc_score(LABELS[:, 0], other, sample_weight=w) - roc_auc_score(LABELS[:, 0], one, sample_weight=w)
        for w in weights(SUBJECTS, 40, 4)
    ]
    found = row["differences"][1]
    assert found["value"] == pytest.approx(row["values"][1]["value"] - row["values"][0]["value"])
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])))
    apart = row["values"][1]["high"] - row["values"][0]["low"] - (row["values"][1]["low"] - row["values"][0]["high"])
    assert found["high"] - found["low"] < apart
    assert found["p"] == pytest.approx(2 * (1 + sum(sample >= 0 for sample in samples)) / 41)


def test_a_model_against_itself_is_no_difference(reports, tmp_path) -> None:
    again = evaluated(tmp_path / "again", 0.5, recipe=None)
    for row in compare_reports([reports[0], again], "c")["measures"]:
        assert row["differences"][1] == {"value": 0, "low": 0, "high": 0, "p": 1}


def test_runs_that_differ_by_seed_are_one_model(reports, tmp_path) -> None:
    other = evaluated(tmp_path / "good1", 0.5, seed=1)
    comparison = compare_reports([reports[0], reports[1], other], "c")
    assert [model["seeds"] for model in comparison["models"]] == [[0, 1], [0]]
    of_both = [json.loads((path / "metrics.json").read_text())["model"] for path in (reports[0], other)]
    both = [found["zeroshot"]["macro"]["value"] for found in of_both]
    row = rows_of(comparison)["Zero-shot", "macro AUROC"]
    assert row["values"][0]["value"] == pytest.approx(np.mean(both), abs=1e-6)
    assert row["values"][0]["runs"] == pytest.approx(both, abs=1e-6)
    assert "runs" not in row["values"][1]
    shown = next(cells for cells in table(comparison)[1] if cells[:2] == ["Zero-shot", "macro AUROC"])
    assert f"[{min(both):.3f}–{max(both):.3f}]" in shown[2] and "[" not in shown[3]
    assert row["differences"][1]["value"] == pytest.approx(row["values"][1]["value"] - np.mean(both), abs=1e-6)
    assert len(compare_reports([reports[0], reports[1], other], "c", separate=True)["models"]) == 3


def test_runs_on_other_data_are_not_seeds_of_one_model(reports, tmp_path) -> None:
    other = evaluated(tmp_path / "elsewhere", 0.5, seed=1, trained_from={"pairs": "others"})
    assert [model["seeds"] for model in compare_reports([reports[0], other], "c")["models"]] == [[0], [1]]


def test_texts_of_another_concatenation_are_other_queries(reports, tmp_path) -> None:
    rows = rows_of(compare_reports([reports[0], evaluated(tmp_path / "other", 1.0, concatenation="entity")], "c"))
    assert rows["Retrieval Text → ECG, distinct texts", "recall@1, %"]["differences"][1] is None


def test_classes_of_few_positives_are_marked_and_have_a_second_mean(tmp_path) -> None:
    few = np.where(np.arange(N) < 9, 1.0, 0.0)
    labels = {"A": LABELS[:, 0].astype(float), "B": few, "C": np.zeros(N)}
    paths = [evaluated(tmp_path / name, noise, labels=labels) for name, noise in (("one", 0.5), ("two", 1.0))]
    rows = rows_of(compare_reports(paths, "c"))
    assert ("Zero-shot", "AUPRC B (under 10 positives)") in rows and ("Zero-shot", "AUROC A") in rows
    second = rows["Zero-shot", "macro AUROC of classes with 10 positives or more"]
    assert second["values"] == rows["Zero-shot", "AUROC A"]["values"]
    assert second["differences"] == rows["Zero-shot", "AUROC A"]["differences"]


def test_other_queries_have_no_difference(reports, tmp_path) -> None:
    other = evaluated(tmp_path / "other", 1.0, texts=np.roll(GROUPS, 1))
    rows = rows_of(compare_reports([reports[0], other], "c"))
    row = rows["Retrieval ECG → text, distinct texts", "recall@1, %"]
    assert row["values"][1] is not None and row["differences"][1] is None
    assert rows["Zero-shot", "macro AUROC"]["differences"][1] is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_kind": "real"}, "is of real data, .* of simulated: they cannot be compared"),
        ({"split": "validation"}, "is of validation split"),
        ({"recording_ids": tuple(f"x{i}" for i in range(N))}, "different recordings: 0 in both, 160 in one only"),
        ({"labels": {name: np.zeros(N) for name in CLASSES}}, "other labels or patients"),
        ({"subjects": np.arange(N)}, "other labels or patients"),
    ],
)
def test_what_cannot_be_compared_is_refused(reports, tmp_path, changes, message) -> None:
    with pytest.raises(EinthovenError, match=message):
        compare_reports([reports[0], evaluated(tmp_path / "other", 1.0, **changes)], "c")


def test_what_is_no_report_is_told(reports, tmp_path) -> None:
    with pytest.raises(EinthovenError, match="two reports or more"):
        compare_reports(reports[:1], "c")
    with pytest.raises(EinthovenError, match="named twice"):
        compare_reports([reports[0], reports[0]], "c")
    with pytest.raises(EinthovenError, match="no finished evaluation"):
        compare_reports([reports[0], tmp_path], "c")
    old = evaluated(tmp_path / "old", 1.0)
    (old / "scores.parquet").unlink()
    with pytest.raises(EinthovenError, match="kept no scores"):
        compare_reports([reports[0], old], "c")


def test_names_are_what_tells_directories_apart() -> None:
    paths = [Path(p) for p in ("/x/runs/a/report", "/x/runs/b/report", "/x/runs/a/other/report")]
    assert names(paths[:2]) == ["a", "b"]
    assert names(paths) == ["a", "b", "a/other"]
    assert names([Path("/x/a"), Path("/x/a/b")]) == ["a", "a/b"]


def test_the_command_writes_a_page_and_a_table(reports, tmp_path, capsys) -> None:
    cli.app(["compare", *map(str, reports), "--out", str(tmp_path / "out")], standalone_mode=False)
    said = capsys.readouterr().out
    assert "simulated data, test split" in said and "Zero-shot" in said and "all recordings" not in said
    comparison = json.loads((tmp_path / "out" / "compare.json").read_text(), parse_constant=pytest.fail)
    page = (tmp_path / "out" / "compare.html").read_text()
    header, rows = table(comparison)
    assert header == ["task", "measure", "good", "bad", "bad − good"]
    assert all(len(row) == 5 for row in rows) and "Research use only" in page

    class Cells(HTMLParser):
        found = 0

        def handle_starttag(self, tag, attributes):
            self.found += tag == "td"
            assert tag not in ("script", "link", "img")

    cells = Cells()
    cells.feed(page)
    assert cells.found == 4 * len(rows)
    write_comparison(tmp_path / "again", comparison)
    assert (tmp_path / "again" / "compare.html").read_text() == page
