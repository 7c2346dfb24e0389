"""Pretraining of sEHR-BERT: timelines and windows of events, what is hidden, and the loop."""

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from einthoven import pipeline, schema
from einthoven.config import CodeEncoder, CodePretraining, Pairing, Recipe, Source
from einthoven.config import Vocabulary as Wanted
from einthoven.encoders.code_records import CodeSequence, code_batch
from einthoven.encoders.codes import MaskedCodes, create, load
from einthoven.errors import EinthovenError
from einthoven.pairing.splits import split_of
from einthoven.pairing.windows import STATIC as BEFORE_ALL
from einthoven.study import write_table
from einthoven.training.codes import epoch_questions, pretrain, tell_all
from einthoven.training.masking import ask_all, hide_at_random
from einthoven.training.timelines import Timelines, read_timelines
from einthoven.vocabulary.medications import Medications
from einthoven.vocabulary.rules import Rules
from einthoven.vocabulary.vocabulary import MASK, SPECIAL, UNK, Vocabulary, build

DAY = 86_400
KINDS = ("finding",)
RECIPE = Recipe(
    pairing=Pairing(code_kinds={"finding": ("DX//*",)}),
    vocabulary=Wanted(floor=1),
    codes=CodeEncoder(hidden=32, layers=1, heads=2, dropout=0.1),
    pretraining=CodePretraining(epochs=4, batch=4, learning_rate=3e-3, ema=0.9, precision="fp32", validate_every=2),
)


def vocabulary_of(tokens: int) -> Vocabulary:
    return build({f"DX//{number:03d}": [1] for number in range(tokens)}, 1, Rules(Medications({}, {})))


def timelines(*patients: list[tuple[float, int]]) -> Timelines:
    """Patients 0, 1, … as lists of day and token, born on day 0."""
    rows = [row for patient in patients for row in patient]
    return Timelines(
        subjects=np.arange(len(patients)),
        births=np.zeros(len(patients)),
        offsets=np.cumsum([0, *map(len, patients)]),
        tokens=np.array([token for _, token in rows], np.int32),
        kinds=np.full(len(rows), 2, np.int8),
        seconds=np.array([round(day * DAY) for day, _ in rows], np.int64),
    )


def eight() -> Timelines:
    """Eight records of four codes that only they have, so each code follows from the others."""
    return timelines(*[[(1000 + 10 * k, 5 + 4 * p + k) for k in range(4)] for p in range(8)])


def parts(recipe: Recipe) -> tuple[MaskedCodes, Vocabulary]:
    vocabulary = vocabulary_of(32)
    torch.manual_seed(0)
    return MaskedCodes(create(recipe.codes, vocabulary, KINDS)), vocabulary


def test_eight_records_are_learnt_by_heart(tmp_path: Path) -> None:
    options = replace(RECIPE.pretraining, epochs=300, batch=8, validate_every=300, learning_rate=5e-3)
    recipe = replace(RECIPE, pretraining=options, codes=replace(RECIPE.codes, dropout=0.0, time="buckets"))
    model, vocabulary = parts(recipe)
    history = pretrain(recipe, model, vocabulary, eight(), eight(), tmp_path)
    assert history[-1]["validation_top1"] == 1
    told = tell_all(load(tmp_path / "best")[0], eight().windows(730, 5), 256, 0.15, 0)
    assert (told.ranks == 1).all() and len(told.ranks) == 32


class KilledError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, stop: int) -> None:
    def kill(step: int, steps: int, note: str) -> None:
        if step == stop:
            raise KilledError

    whole = pretrain(RECIPE, *parts(RECIPE), eight(), eight(), tmp_path / "whole")
    with pytest.raises(KilledError):
        pretrain(RECIPE, *parts(RECIPE), eight(), eight(), tmp_path / "killed", progress=kill)
    again = pretrain(RECIPE, *parts(RECIPE), eight(), eight(), tmp_path / "killed")
    assert again == whole and len(whole) == 4
    expected, got = (load(tmp_path / name / "best")[0].state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    short = replace(RECIPE, pretraining=replace(RECIPE.pretraining, epochs=1))
    pretrain(short, *parts(short), eight(), eight(), tmp_path, signature="one")
    with pytest.raises(EinthovenError, match="unfinished run of another recipe"):
        pretrain(short, *parts(short), eight(), eight(), tmp_path, signature="two")


def test_without_validation_patients_the_last_epoch_is_kept_and_without_windows_nothing_is(tmp_path: Path) -> None:
    none = timelines()
    history = pretrain(RECIPE, *parts(RECIPE), eight(), none, tmp_path)
    assert load(tmp_path / "best")[2]["epoch"] == 4 and "validation_loss" not in history[-1]
    with pytest.raises(EinthovenError, match="nothing to learn"):
        pretrain(RECIPE, *parts(RECIPE), none, none, tmp_path / "other")


def test_codes_are_hidden_in_berts_proportions_and_special_tokens_never() -> None:
    generator = np.random.default_rng(0)
    tokens, kinds = generator.integers(5, 1005, 200), np.full(200, 2)
    tokens[:20] = UNK
    records = [CodeSequence(tokens, kinds, np.zeros(200, np.float32), 50.0)] * 200
    whole = code_batch(records, 256)
    question = hide_at_random(whole, np.arange(200), 0.15, 1005, generator)
    rows, columns = question.places
    assert (whole.tokens[rows, columns] == question.answers).all() and (question.answers >= len(SPECIAL)).all()
    assert len(rows) / (200 * 180) == pytest.approx(0.15, abs=0.01)
    shown = question.batch.tokens[rows, columns]
    assert (shown == MASK).float().mean() == pytest.approx(0.8, abs=0.02)
    assert (shown == question.answers).float().mean() == pytest.approx(0.1, abs=0.02)
    assert (shown >= len(SPECIAL)).sum() + (shown == MASK).sum() == len(shown)
    untouched = torch.ones_like(whole.mask)
    untouched[rows, columns] = False
    assert torch.equal(question.batch.tokens[untouched], whole.tokens[untouched])
    single = code_batch([CodeSequence(np.array([7]), np.array([2]), np.zeros(1, np.float32), 50.0)], 8)
    assert hide_at_random(single, np.arange(1), 0.01, 1005, generator).answers.tolist() == [7]
    empty = code_batch([CodeSequence(np.array([UNK]), np.array([2]), np.zeros(1, np.float32), 50.0)], 8)
    assert not len(hide_at_random(empty, np.arange(1), 0.9, 1005, generator).answers)


def test_every_code_is_asked_for_once_with_few_others() -> None:
    windows = timelines([(d, 5 + d) for d in range(21)], [(d, 5 + d) for d in range(3)]).windows(730, 0)
    asked: Counter[tuple[int, int]] = Counter()
    for question in ask_all(windows, 256, 0.15, 0):
        rows, columns = question.places
        assert (question.batch.tokens[rows, columns] == MASK).all()
        hidden = Counter(int(question.windows[row]) for row in rows)
        assert hidden[0] in (0, 3) and hidden[1] in (0, 1)
        asked.update((int(question.windows[r]), int(a)) for r, a in zip(rows, question.answers, strict=True))
    assert asked == Counter({(w, 5 + d): 1 for w, n in enumerate((21, 3)) for d in range(n)})


def test_windows_reach_half_their_days_and_come_as_often_as_they_fit() -> None:
    lines = timelines([(day, 5) for day in range(0, 1001, 100)], [(1, 6)])
    windows = lines.windows(400, 3)
    assert windows.patients.tolist() == [0, 0, 0]  # 1000 days are three windows; one code is none
    for window in range(3):
        found, moment = windows[window], windows.moments[window] / DAY
        assert moment in range(0, 1001, 100)
        expected = [day - moment for day in range(0, 1001, 100) if abs(day - moment) <= 200]
        assert found.days.tolist() == expected and found.age == pytest.approx(moment / 365.25)
    drawn = [tuple(lines.windows(400, 3, epoch).moments) for epoch in range(5)]
    assert len(set(drawn)) > 1 and drawn[0] == tuple(lines.windows(400, 3, 0).moments)
    assert len(windows.some(2, 0)) == 2 and len(windows.some(9, 0)) == 3


def test_static_codes_begin_every_window() -> None:
    lines = timelines([(0, 9), (0, 5), (900, 6), (901, 7)])
    lines.seconds[0], lines.kinds[0] = BEFORE_ALL, 1
    for moment in (0, 901):
        windows = replace(lines.windows(100, 0), patients=np.array([0]), moments=np.array([moment * DAY]))
        assert windows[0].tokens.tolist() == ([9, 5] if moment == 0 else [9, 6, 7])
        assert windows[0].days[0] == 0


def test_an_epochs_batches_are_a_function_of_the_seed() -> None:
    options = CodePretraining(batch=3)
    first, again, other = (
        [q.batch.tokens.tolist() for q in epoch_questions(eight(), options, 256, 37, e)] for e in (0, 0, 1)
    )
    assert first == again != other and sum(map(len, first)) == 8


def test_the_choice_of_time_changes_what_is_learnt_and_both_learn(tmp_path: Path) -> None:
    for time in ("sinusoidal", "buckets"):
        recipe = replace(RECIPE, codes=replace(RECIPE.codes, time=time))
        history = pretrain(recipe, *parts(recipe), eight(), eight(), tmp_path / time)
        assert history[-1]["loss"] < history[0]["loss"]


def subject_in(split: str) -> int:
    return next(number for number in range(1, 1000) if split_of(number) == split)


def write_study(study: Path) -> dict[str, int]:
    """Four patients of the train split and one of each other; only the one of the validation split has an ECG."""
    train = [number for number in range(1, 1000) if split_of(number) == "train"][:4]
    subjects = {"validation": train.pop(), "test": subject_in("test")}
    start, rows = datetime(2020, 1, 1, 8), []
    for subject in (*train, *subjects.values()):
        rows.append((subject, datetime(1970, 1, 1), "MEDS_BIRTH"))
        for day, code in ((0, "DX//A"), (0.1, "DX//A"), (400, "DX//B"), (401, "LAB//1"), (2000, f"DX//{subject}")):
            rows.append((subject, start + timedelta(days=day), code))
    rows.sort()
    events = [{"subject_id": s, "time": t, "code": c} for s, t, c in rows]
    write_table(schema.EVENTS, study, pa.Table.from_pylist(events, schema=schema.EVENTS.columns))
    codes = [{"code": code} for code in sorted({code for _, _, code in rows})]
    write_table(schema.CODES, study, pa.Table.from_pylist(codes, schema=schema.CODES.columns))
    ecg = {"recording_id": "r", "subject_id": subjects["validation"], "split": "validation", "time": start}
    write_table(schema.RECORDINGS, study, pa.Table.from_pylist([ecg], schema=schema.RECORDINGS.columns))
    return subjects


def test_timelines_are_the_events_of_all_patients_by_split(tmp_path: Path) -> None:
    subjects = write_study(tmp_path)
    lines, vocabulary = read_timelines(tmp_path, RECIPE.pairing, Wanted(floor=3), tmp_path / "scratch")
    assert [len(lines[split]) for split in schema.SPLITS] == [3, 1, 1]
    assert lines["validation"].subjects.tolist() == [subjects["validation"]]  # its recording's, not its hash's
    assert vocabulary.tokens == (*SPECIAL, "DX//A", "DX//B")
    one = lines["test"]
    assert one.tokens.tolist() == [5, 6, UNK] and one.kinds.tolist() == [2, 2, 2]  # once a day; no laboratory
    assert np.diff(one.seconds).tolist() == [400 * DAY, 1600 * DAY]
    assert one.windows(10, 0)[0].age == pytest.approx(50, abs=6)


def test_the_stage_writes_a_directory_that_loads_and_is_not_made_twice(tmp_path: Path) -> None:
    study, out = tmp_path / "study", tmp_path / "out"
    pipeline.ingest(Source(name="simulated", subjects=60), None, study)
    recipe = replace(
        RECIPE, pairing=Pairing(), pretraining=replace(RECIPE.pretraining, epochs=2, batch=32), vocabulary=Wanted()
    )
    outcome = pipeline.pretrain(recipe, study, out)
    assert outcome.fresh and outcome.counts["data_kind"] == "simulated" and outcome.counts["history"]
    assert not pipeline.pretrain(recipe, study, out).fresh
    assert not pipeline.pretrain(replace(recipe, pairing=Pairing(codes_before=3.0)), study, out).fresh
    assert not out.with_name("out.training").joinpath("state.pt").exists()
    model, vocabulary, card = load(out)
    assert card["tokens"] == len(vocabulary) == model.encoder.codes.num_embeddings
    onwards = replace(recipe, codes=CodeEncoder(pretrained=str(out)))
    again = pipeline.pretrain(onwards, study, tmp_path / "more")
    assert again.counts["history"][0]["loss"] < outcome.counts["history"][0]["loss"]
    with pytest.raises(EinthovenError, match="holds the study itself"):
        pipeline.pretrain(recipe, study, tmp_path)
