from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from einthoven.search.archive import Hit
from einthoven.search.filters import parse, selected
from einthoven.serve.facets import MOST, Choice, facets, patients

HIT = Hit("r1", 1, 0.9, "train", ("SCP//AFIB",), ("atrial fibrillation",), False, datetime(2020, 1, 2), 64.0, "female",
          "MAC", ())  # fmt: skip


def test_a_choice_is_the_filter_that_says_the_same() -> None:
    form = {
        "finding": ["SCP//AFIB", "SCP//IMI"],
        "sex": ["female"],
        "outlier": ["no"],
        "youngest": ["40"],
        "oldest": ["60"],
    }
    said = 'finding in (SCP//AFIB, SCP//IMI) and sex in ("female") and outlier = no and age >= 40 and age <= 60'
    assert Choice.of(form).filter == parse(said)


def test_every_choice_is_a_filter_that_the_index_can_apply() -> None:
    from einthoven import schema

    row = dict.fromkeys(schema.INDEX.columns.names)
    row |= {"recording_id": "r", "subject_id": 1, "split": "test", "device": "a \"quoted\" 'name'", "findings": []}
    rows = pa.Table.from_pylist([row], schema.INDEX.columns)
    chosen = Choice.of({"device": ["a \"quoted\" 'name'"], "split": ["test"]})
    np.testing.assert_array_equal(selected(rows, chosen.filter), [True])
    np.testing.assert_array_equal(selected(rows, Choice.of({"device": ["other"]}).filter), [False])


def test_nonsense_is_not_chosen() -> None:
    choice = Choice.of({"sex": [""], "youngest": ["nan"], "oldest": ["-3"], "outlier": ["maybe"], "unknown": ["x"]})
    assert not choice.any and choice.filter == ()
    assert len(Choice.of({"sex": [str(i) for i in range(1000)]}).chosen("sex")) == MOST


def test_counts_are_of_the_nearest() -> None:
    hits = [HIT, replace(HIT, recording_id="r2", sex="male", codes=(), findings=()), replace(HIT, sex=None)]
    found = {facet.name: facet for facet in facets(hits, Choice())}
    assert [(o.value, o.label, o.count) for o in found["finding"].options] == [("SCP//AFIB", "atrial fibrillation", 2)]
    assert {o.value: o.count for o in found["sex"].options} == {"female": 1, "male": 1}
    assert "split" not in found and "device" not in found  # all agree


def test_what_was_chosen_stays_even_if_nothing_is_left() -> None:
    (facet,) = facets([], Choice.of({"finding": ["SCP//PACE"]}))
    assert facet.name == "finding" and facet.options[0].chosen and facet.options[0].count == 0


def test_recordings_of_a_patient_are_together_in_the_order_of_the_best() -> None:
    hits = [replace(HIT, recording_id=name, subject_id=subject) for name, subject in [("a", 2), ("b", 1), ("c", 2)]]
    assert [[hit.recording_id for hit in group] for group in patients(hits)] == [["a", "c"], ["b"]]
