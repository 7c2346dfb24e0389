import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.errors import EinthovenError
from einthoven.pairing.splits import refuse_leakage, split_of
from einthoven.schema import SPLITS


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


def test_leakage_is_refused() -> None:
    refuse_leakage(pa.table({"subject_id": [1, 1, 2], "split": ["train", "train", "test"]}))
    with pytest.raises(EinthovenError, match="1 patients"):
        refuse_leakage(pa.table({"subject_id": [1, 1, 2], "split": ["train", "test", "test"]}))
