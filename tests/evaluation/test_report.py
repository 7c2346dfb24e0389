import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from einthoven.evaluation.calibration import calibrated
from einthoven.evaluation.figures import OTHERS, POINTS, Example, ReportFigures, Scored, embedding_map
from einthoven.evaluation.precision import precision_at_k
from einthoven.evaluation.report import Row, by_finding, groups_table, table, write_report
from einthoven.evaluation.retrieval import all_ranked, retrieval
from einthoven.evaluation.scores import Scores
from einthoven.evaluation.subgroups import subgroups
from einthoven.evaluation.transfer import fit_probes, probe_metrics
from einthoven.evaluation.zeroshot import prompt_scores, zero_shot

HOSTILE = '<script>alert("x")</script> & co'


def results(noise: float):
    random = np.random.default_rng(0)
    labels, subjects = random.random((80, 3)) < [0.5, 0.3, 0.0], np.arange(80) // 2
    groups = random.integers(0, 30, 80)
    text = random.normal(size=(30, 6))[groups]
    ecg = text + noise * random.normal(size=text.shape)
    ecg[:, :3] += 2 * labels
    prompts = {name: np.eye(6)[[c]] for c, name in enumerate("ABC")}
    probes = fit_probes(ecg, labels, subjects, ("A", "B", "C"), fractions=(0.1, 1.0), subsets=2)
    probe = probe_metrics(probes, ecg, labels, subjects, ("A", "B", "C"), resamples=20)
    metrics = {
        "retrieval": retrieval(ecg, text, groups, subjects, findings=groups % 5, resamples=20),
        "zeroshot": zero_shot(ecg, prompts, labels, subjects, resamples=20),
        "precision": precision_at_k(ecg, prompts, labels, subjects, resamples=20),
        "probe": probe,
    }
    kept = Scores.of([str(i) for i in range(80)], subjects, tuple("ABC"), labels, np.ones(80, bool))
    everything = np.ones(80, bool)
    kept.add_ranks("retrieval", everything, all_ranked(ecg, text, groups), groups)
    kept.add_scores("probe/1/0", everything, tuple("ABC"), probes[-1].scores(ecg))
    metrics |= calibrated(kept, 20, 0)
    by_sex = subgroups(kept, {"sex": ["male"] * 60 + [HOSTILE] * 20}, resamples=20)
    metrics["outliers"] = {
        "detector": "neighbours",
        "false_alarm": 0.05,
        "flagged": {"value": 0.1, "low": 0, "high": 1},
    }
    figures = {
        "ranks": {way: kept.queries(f"retrieval/{way}/distinct")[1].best for way in ("ecg_to_text", "text_to_ecg")},
        "zero_shot": Scored(tuple("ABC"), labels, prompt_scores(ecg, prompts)),
        "probe": Scored(tuple("ABC"), labels, probes[-1].scores(ecg)),
        "map": embedding_map(ecg, labels, tuple("ABC")),
        "outlying": np.linalg.norm(ecg, axis=1) - 4,
    }
    return metrics, figures, by_sex


@pytest.fixture(scope="module")
def everything():
    (model, figures, by_sex), (control, of_control, _) = results(0.3), results(20.0)
    metrics = {
        "data_kind": "simulated",
        "trained_on": "real",
        "command": f"einthoven evaluate {HOSTILE}",
        "seed": 7,
        "split": "test",
        "counts": {"recordings": 80, "patients": 40},
        "model": model,
        "random_init": control,
        "subgroups": by_sex,
    }
    signal = np.sin(np.arange(1000) / 8) * np.ones((12, 1))
    figures = ReportFigures(
        **figures,
        control_ranks=of_control["ranks"],
        examples=(Example(HOSTILE, HOSTILE, signal, 100, (HOSTILE,)),),
        history=tuple({"epoch": e, "train_loss": 5 / e, "validation_loss": 6 / e, "rate": 1.0} for e in range(1, 5)),
    )
    return metrics, figures


class Elements(HTMLParser):
    """Collects what a browser would load or run, and whether every tag is closed."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_self_contained_and_escaped(tmp_path, everything):
    write_report(tmp_path, *everything)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = Elements()
    found.feed(page)
    assert found.open == [] and found.links == [] and "script" not in found.tags and "url(http" not in page
    assert page.count("<svg") == 9
    assert not re.search("#0a0[bc]0|#010203", page)
    assert page.count("Research use only, not a medical device") == 2
    assert "Evaluation on simulated data, test split" in page and "seed 7" in page
    assert "trained on real data" in page
    assert len(re.findall("imulated data, test split", page)) == 1 + 3 + 8 + 1  # title, tables, figures, example


def test_the_same_data_make_the_same_bytes(tmp_path, everything):
    for name in ("a", "b"):
        write_report(tmp_path / name, *everything)
    for file in ("report.html", "metrics.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_metrics_are_strict_json(tmp_path, everything):
    metrics, figures = everything
    metrics = {**metrics, "counts": {"recordings": np.int64(80)}, "extra": (float("nan"), np.float32(0.5))}
    write_report(tmp_path, metrics, figures)
    found = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert found["extra"] == [None, 0.5] and found["counts"] == {"recordings": 80}
    assert found["model"]["zeroshot"] == metrics["model"]["zeroshot"]


def test_table_shows_values_with_intervals_beside_the_control():
    value = {"value": 0.8, "low": 0.7, "high": 0.9}
    probe = {"fractions": {"0.01": {"macro": value}}}
    half = {"value": 0.5, "low": None, "high": None}
    areas = {"macro": value, "macro_frequent": None, "classes": {"MI": half}}
    zeroshot = {**areas, "auprc": areas, "few": ["MI"], "left_out": ["CD"]}
    metrics = {"model": {"probe": probe, "zeroshot": zeroshot}, "random_init": {"probe": probe}}
    assert table(metrics) == [
        Row("Zero-shot", "macro AUROC", "0.800 (0.700–0.900)", "–"),
        Row("Zero-shot", "macro AUROC of classes with 10 positives or more", "–", "–"),
        Row("Zero-shot", "macro AUPRC", "0.800 (0.700–0.900)", "–"),
        Row("Zero-shot", "macro AUPRC of classes with 10 positives or more", "–", "–"),
        Row("Zero-shot", "AUROC MI (under 10 positives)", "0.500", "–"),
        Row("Zero-shot", "AUPRC MI (under 10 positives)", "0.500", "–"),
        Row("Zero-shot", "AUROC CD", "left out: one-sided labels", "–"),
        Row("Linear probe", "macro AUROC, 1 % of training patients", "0.800 (0.700–0.900)", "0.800 (0.700–0.900)"),
    ]


def test_retrieval_rows_name_direction_gallery_and_size(everything):
    rows = [row for row in table(everything[0]) if row.task.startswith("Retrieval")]
    assert len(rows) == 30
    assert rows[0].task == "Retrieval ECG → text, distinct texts" and rows[0].measure == "recall@1, %"
    assert re.fullmatch(r"\d+\.\d \(\d+\.\d–\d+\.\d\)", rows[0].model)
    assert rows[4].measure == "mAP, %"
    assert rows[8].measure == "median rank of 80"
    assert rows[10].task == "Retrieval ECG → text, all recordings, equal findings"


def test_precision_is_one_row_and_its_findings_a_table_of_their_own(tmp_path, everything):
    metrics, figures = everything
    (row,) = (row for row in table(metrics) if row.task.startswith("One finding"))
    assert (row.task, row.measure) == ("One finding as text → ECG", "precision@10, mean of 2 findings, %")
    found = by_finding(metrics)
    assert [(asked, row.task) for asked, _, row in found] == [("text", "A"), ("text", "B")]
    assert found[0][1] == pytest.approx(100 * metrics["model"]["precision"]["findings"]["A"]["positives"] / 80)
    write_report(tmp_path, metrics, figures)
    assert "<h2>Findings</h2>" in (tmp_path / "report.html").read_text()


def test_metrics_of_an_earlier_version_have_rows_without_what_it_did_not_measure(everything):
    old = json.loads(json.dumps(everything[0]))
    for series in ("model", "random_init"):
        del old[series]["precision"]
        for galleries in old[series]["retrieval"].values():
            del galleries["findings"]
            for found in galleries.values():
                del found["map"]
    kept = [row for row in table(everything[0]) if row.measure != "mAP, %" and "finding" not in row.task]
    assert table(old) == kept


def test_a_report_without_anything_optional_is_written(tmp_path):
    metrics = {
        "data_kind": "real",
        "command": "c",
        "seed": 0,
        "split": "test",
        "counts": {},
        "model": {},
        "random_init": {},
    }
    write_report(tmp_path, metrics, ReportFigures())
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_groups_are_shown_with_what_their_second_mean_leaves_out():
    value = {"value": 0.8, "low": 0.7, "high": 0.9}
    group = {"attribute": "sex", "group": "male", "recordings": "hidden", "patients": 60, "recall@10": value}
    found = {"macro": value, "macro_frequent": None, "few": ["HYP"]}
    rows = groups_table({"subgroups": [{**group, "probe": found, "zeroshot": None}]})
    shown = "0.800 (0.700–0.900)"
    assert rows == [("sex", "male", "hidden", "60", "80.0 (70.0–90.0)", shown, "–", "–", "–", "HYP")]


def test_calibration_is_in_the_table(everything):
    rows = {row.measure: row for row in table(everything[0]) if row.task == "Calibration, probe of 100 %"}
    assert len(rows) == 3 and rows["Brier score"].model.startswith("0.")
    assert "if calibrated" in rows["expected calibration error, bins of equal widths"].control


def test_the_map_is_the_plane_of_most_variance_and_has_a_bounded_number_of_points():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(2 * POINTS, 5)) * [0.1, 3, 0.1, 1, 0.1]
    labels = random.random((2 * POINTS, 2)) < 0.5
    drawn = embedding_map(vectors, labels, ("A", "B"))
    assert len(drawn.points) == len(drawn.names) == POINTS and drawn.explained[0] == pytest.approx(9 / 10.03, abs=0.02)
    assert set(drawn.names) == {"A", "B", OTHERS}
    shown = np.unique(np.linspace(0, 2 * POINTS - 1, POINTS).astype(int))
    assert abs(np.corrcoef(drawn.points[:, 0], vectors[shown, 1])[0, 1]) > 0.99
    assert drawn.names == tuple("A" if a and not b else "B" if b and not a else OTHERS for a, b in labels[shown])
