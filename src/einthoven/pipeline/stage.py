"""What every stage is made of: progress, places it may write to, what it refuses."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.processes import follows
from einthoven.progress import Progress as Progress
from einthoven.progress import silent as silent
from einthoven.study import (
    Outcome,
    completed,
    fingerprint,
    lock,
    read_manifest,
    recall,
    refuse_foreign,
    remove,
    run_stage,
    stage_manifest,
)

PAIRED_TABLES = (schema.RECORDINGS, schema.EVENTS, schema.NOTES, schema.ENTITIES)


def outside(study: Path, out: Path, mark: str) -> Path:
    """`out` as an absolute path; refused where it holds the study, or something without the file `mark`."""
    out = beside(study, out)
    refuse_foreign(out, mark)
    return out


def beside(study: Path, out: Path) -> Path:
    """`out` as an absolute path; refused where it holds the study."""
    out = out.absolute()
    if study.absolute().is_relative_to(out):
        raise EinthovenError(f"{out} holds the study itself; name another directory.")
    return out


def check_split(split: str) -> None:
    """Refuse a split that does not exist, before anything is done."""
    if split not in schema.SPLITS:
        raise EinthovenError(f"--split {split}: expected one of {', '.join(schema.SPLITS)}.")


def refuse_stale_pairs(study: Path) -> None:
    """Refuse pairs that are missing, replaced or older than what they were made of: their rows would point astray."""
    manifest = read_manifest(stage_manifest(study, "pair"))
    if manifest is None:
        raise EinthovenError(f"{study}: no pairs. Run `einthoven pair {study}`.")
    known = manifest["inputs"] | manifest["outputs"]
    recall(manifest, {table.path: table.at(study) for table in (*PAIRED_TABLES, schema.PAIRS)})
    for table in (*PAIRED_TABLES, schema.PAIRS):
        if not table.at(study).exists() or known.get(table.path) != fingerprint(table.at(study)):
            raise EinthovenError(
                f"{study}: {table.path} is not the one that the pairs were made with. Run `einthoven pair {study}`."
            )


def train_stage(
    out: Path,
    files: Sequence[str],
    config: Mapping[str, Any],
    inputs: Mapping[str, Path],
    work: Callable[[Path, str], dict[str, Any]],
) -> Outcome:
    """A stage that writes `files` into the directory `out`, beside which its unfinished state lies.

    `work` is given the directory of that state and what the run depends on: a state of anything else is refused.
    Of several processes the first keeps lock and manifest; the others, who follow, only work.
    """
    workshop = out.with_name(out.name + ".training")
    signature = json.dumps([config, {name: fingerprint(path) for name, path in inputs.items()}], sort_keys=True)

    def train() -> dict[str, Any]:
        return work(workshop, signature)

    stage: dict[str, Any] = {"config": config, "inputs": inputs, "outputs": {name: out / name for name in files}}
    if follows():
        done = completed(out / "manifest.json", **stage)
        return Outcome(done, fresh=False) if done is not None else Outcome(train(), fresh=True)
    with lock(workshop):
        outcome = run_stage(out / "manifest.json", **stage, work=train, inside=True)
        remove(workshop)
    return outcome
