"""Splits are by patient: a hash of the id decides, so adding patients moves nobody."""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from einthoven.errors import EinthovenError


def split_of(subject_id: int, validation: float = 0.1, test: float = 0.1) -> str:
    """The split of a patient: uniform in the hash of the id, whatever other patients there are."""
    digest = hashlib.sha256(f"einthoven split {subject_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


def refuse_leakage(recordings: pa.Table) -> None:
    """Raise if a patient's recordings are in more than one split."""
    seen = recordings.group_by("subject_id").aggregate([("split", "count_distinct")])
    leaking = pc.sum(pc.greater(seen["split_count_distinct"], 1)).as_py() or 0
    if leaking:
        raise EinthovenError(
            f"{leaking} patients have recordings in more than one split; a patient belongs to one. "
            "Correct the source's split column."
        )
