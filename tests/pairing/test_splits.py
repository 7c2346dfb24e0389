from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven.errors import EinthovenError
from einthoven.pairing.splits import refuse_leakage, split_of
from einthoven.schema import SPLITS
from einthoven.sources.archive import Entry, store_recordings


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_split_depends_on_the_patient_alone(subject_id: int) -> None:
    assert split_of(subject_id) in SPLITS
    assert split_of(subject_id) == split_of(subject_id)


def test_shares_are_as_asked() -> None:
    found = [split_of(i, validation=0.2, test=0.3) for i in range(5000)]
    assert abs(found.count("validation") / 5000 - 0.2) < 0.02
    assert abs(found.count("test") / 5000 - 0.3) < 0.02


def test_growing_the_validation_share_moves_nobody_into_test() -> None:
    small = {i for i in range(2000) if split_of(i, validation=0.1) == "test"}
    assert small == {i for i in range(2000) if split_of(i, validation=0.4) == "test"}


@given(
    st.dictionaries(st.integers(0, 10**6), st.sampled_from((None, *SPLITS)), min_size=1), st.sets(st.integers(0, 99))
)
@settings(max_examples=25, deadline=None)
def test_a_growing_archive_moves_nobody_and_keeps_official_splits(patients, added) -> None:
    """Patients with the split their source states, or None; then patients are added and the archive is read again."""

    def splits(known: dict[int, str | None]) -> dict[int, str]:
        entries = [Entry(recording_id=f"r{p}", subject_id=p, time=None, split=split) for p, split in known.items()]
        rows, excluded = store_recordings(entries, lambda _: pytest.fail("no signal is asked for"), Path(), None)
        assert excluded == []
        return dict(zip(rows["subject_id"].to_pylist(), rows["split"].to_pylist(), strict=True))

    before, after = splits(patients), splits(dict.fromkeys(added) | patients)
    assert before.items() <= after.items()
    assert all(after[patient] == (split or split_of(patient)) for patient, split in patients.items())


def test_leakage_is_refused() -> None:
    refuse_leakage(pa.table({"subject_id": [1, 1, 2], "split": ["train", "train", "test"]}))
    with pytest.raises(EinthovenError, match="1 patients"):
        refuse_leakage(pa.table({"subject_id": [1, 1, 2], "split": ["train", "test", "test"]}))
