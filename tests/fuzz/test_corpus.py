"""The fuzzer's rule, held by what it once found, and by a fixed part of what it makes (`make fuzz` makes all)."""

import importlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven.errors import EinthovenError

ROOT = Path(__file__).parents[2]
DEEP = b"[" * 100_000
CORPUS: list[tuple[str, dict[str, bytes]]] = [  # target, files in the place of a valid input's
    ("recipe", {"a.toml": b"[ecg]\nwidth = " + b"9" * 5000}),
    ("recipe", {"a.toml": b"a = " + DEEP}),
    ("recipe", {"a.toml": b'extends = "."\n'}),
    ("recipe", {"a.toml": b'extends = "' + b"a" * 300 + b'"\n'}),
    ("set", {"a.set": b"ecg.width=0x" + b"f" * 5000}),
    ("set", {"a.set": b"training.learning_rate=0x" + b"f" * 5000}),
    ("set", {"a.set": b"ecg.width=" + b"9" * 5000}),
    ("set", {"a.set": b"ecg.width=" + DEEP}),
    ("manifests", {"study/manifests/ingest.json": b"{}"}),
    ("manifests", {"study/manifests/ingest.json": b'{"counts": [], "config": {}}'}),
    ("manifests", {"study/manifests/ingest.json": b'{"counts": {"data_kind": null}}'}),
    ("manifests", {"study/manifests/ingest.json": DEEP}),
    ("manifests", {"study/manifests/pair.json": b'{"inputs": 1, "outputs": null}'}),
    ("manifests", {"study/index/forgotten.json": b'{"salt": "a", "patients": [[]]}'}),
    ("manifests", {"study/index/forgotten.json": DEEP}),
    ("ecg-wfdb", {"r.hea": b"r 1 500 1000\n" + b"9" * 300 + b" 16 1000/mV 16 0 0 0 0 I\n"}),
    ("ecg-wfdb", {"r.hea": b"r 1 1e-320 1000\nr.dat 16 1000/mV 16 0 0 0 0 I\n"}),
    ("model", {"config.json": DEEP}),
    ("study", {"waveforms/store.json": DEEP}),
]


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A module of the fuzzer, which lies beside the package."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"fuzz.{name}")


@pytest.fixture(scope="module")
def prepared(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Valid inputs of a target and what runs one, made once; the model is that of all tests."""
    place = tmp_path_factory.mktemp("fuzz")
    (place / "trained").symlink_to(trained[0].parent)
    made: dict[str, Any] = {}

    def prepare(name: str) -> Any:
        if name not in made:
            sys.path.insert(0, str(ROOT))
            folder = place / name
            folder.mkdir()
            made[name] = importlib.import_module("fuzz.targets").TARGETS[name].prepare(folder)
            sys.path.remove(str(ROOT))
        return made[name]

    return prepare


@pytest.mark.parametrize(("target", "files"), CORPUS, ids=[f"{t}-{i}" for i, (t, _) in enumerate(CORPUS)])
def test_what_was_found_is_refused(target: str, files: dict[str, bytes], prepared: Any) -> None:
    seeds, run = prepared(target)
    with pytest.raises(EinthovenError) as told:
        run(seeds[0] | files)
    assert len(str(told.value)) < 1000


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [("ecg", "width", 2**40), ("ecg", "blocks", [2**40, 1]), ("space", "dim", 2**40)]
    + [(f"{of}.body", "hidden_size", value) for of in ("text", "codes") for value in (2**40, "", 0.5, 33, None)]
    + [(f"{of}.body", "num_hidden_layers", 2**31) for of in ("text", "codes")]
    + [("text.body", "hidden_act", "nothing"), ("text.body", "vocab_size", 2**33)],
)
def test_a_model_larger_than_its_weights_is_not_built(part: str, key: str, value: Any, prepared: Any) -> None:
    seeds, run = prepared("model-config")
    config = json.loads(seeds[0]["config.json"])
    at = config
    for name in part.split("."):
        at = at[name]
    assert key in at
    at[key] = value
    began = time.process_time()
    with pytest.raises(EinthovenError):
        run(seeds[0] | {"config.json": json.dumps(config).encode()})
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("target", "file", "old"),
    [
        ("source-ptbxl", "source/ptbxl_database.csv", b"00001_lr"),
        ("source-omop", "ecgs.csv", b"b.csv"),
    ],
)
def test_a_file_name_longer_than_any_is_a_file_that_is_not_there(
    target: str, file: str, old: bytes, prepared: Any
) -> None:
    seeds, run = prepared(target)
    run(seeds[0] | {file: seeds[0][file].replace(old, b"9" * 300)})


def test_no_rate_makes_seconds_of_samples_into_hours(prepared: Any) -> None:
    """0.00001 Hz was a division by zero, 499.9999 Hz a filter of 10**8 taps."""
    from einthoven.schema import LEADS
    from einthoven.waveforms.formats import read_ecg
    from einthoven.waveforms.strips import from_millivolts

    content = prepared("ecg-npy")[0][0]["a.npy"]
    signal = np.ones((1, 12, 5000), np.float32)
    for rate in (1e-5, 1e-320, 0.5, 1e7, float("nan")):
        with pytest.raises(EinthovenError, match="sampling rate"):
            read_ecg(content, sampling_rate=rate, unit="mV")
        with pytest.raises(EinthovenError, match="sampling rate"):
            from_millivolts(signal, rate, LEADS, 500, 2500, 3)
    began = time.process_time()
    for rate in (1.0, 1.0001, 499.9999, 99_999.9):
        assert from_millivolts(signal[..., : 500 if rate < 2 else None], rate, LEADS, 500, 2500, 3).shape[2:] == (
            12,
            2500,
        )
    assert time.process_time() - began < 5


@pytest.mark.parametrize("field", ["sampling_rate=0.00001", "sampling_rate=499.9999", "sampling_rate=1e-300"])
def test_nor_does_that_of_an_upload(field: str, prepared: Any) -> None:
    seeds, run = prepared("service")
    tree = next(
        tree
        for tree in seeds
        if b"/api/encode/ecg" in tree["request.json"] and b"sampling_rate" in tree["request.json"]
    )
    name, _, value = field.partition("=")
    said = json.loads(tree["request.json"])
    said["fields"][name] = value
    began = time.process_time()
    try:
        run(tree | {"request.json": json.dumps(said).encode()})
    except EinthovenError:
        assert value != "499.9999"
    assert time.process_time() - began < 5


@pytest.mark.parametrize("dtype", ["f8", "U5"])
def test_an_array_whose_header_ends_early_is_refused(dtype: str, prepared: Any, tmp_path: Path) -> None:
    _, run = prepared("npz")
    np.savez(tmp_path / "a.npz", recording_id=np.zeros(3, dtype))
    content = (tmp_path / "a.npz").read_bytes().replace(b"(3,)", b"(3,(")
    with pytest.raises(EinthovenError, match="not a readable"):
        run({"a.npz": content})


def test_damaged_tables_of_a_study_are_told(trained: tuple[Path, Path], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from einthoven import schema
    from einthoven.study import read_table

    study = shutil.copytree(trained[1], tmp_path / "study")
    rows = read_table(schema.EVENTS, study)
    shutil.rmtree(study / schema.MANIFESTS)  # which say that it was altered
    column = rows.schema.get_field_index("code")
    pq.write_table(rows.set_column(column, "code", pa.nulls(len(rows), pa.string())), schema.EVENTS.at(study))
    with pytest.raises(EinthovenError, match="'code' has empty cells"):
        read_table(schema.EVENTS, study)
    path = schema.NOTES.at(study)
    content = bytearray(path.read_bytes())
    content[4:2000] = bytes(1996)  # within the first pages: the end, which is read first, is whole
    path.write_bytes(content)
    with pytest.raises(EinthovenError, match="damaged"):
        read_table(schema.NOTES, study)


FEW = {
    "source-ptbxl": 6,
    "source-challenge": 6,
    "source-fhir": 2,
    "source-meds": 2,
    "source-mimic": 0,
    "source-omop": 0,
    "study": 1,
    "model": 5,
    "model-config": 5,
    "service": 25,
    "labels": 3,
}
"""Inputs of targets that take long."""


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("seed", [1])
def test_a_fixed_part_of_what_the_fuzzer_makes(seed: int, prepared: Any, fuzz: Any) -> None:
    child, found, inputs = fuzz("child"), {}, 0
    for name in fuzz("targets").TARGETS:
        seeds, run = prepared(name)
        for number in range(len(seeds), len(seeds) + FEW.get(name, 10)):
            told = child.judged(run, child.made(seeds, name, number, seed))
            inputs += 1
            if told["outcome"] == "finding":
                found[name, number] = told["what"]
    assert not found and inputs > 200


def test_the_same_seed_makes_the_same_inputs(fuzz: Any, prepared: Any) -> None:
    made, seeds = fuzz("child").made, prepared("ecg-csv")[0]
    assert made(seeds, "ecg-csv", 50, 3) == made(seeds, "ecg-csv", 50, 3) != made(seeds, "ecg-csv", 50, 4)


def test_a_finding_is_one(fuzz: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = fuzz("child").judged
    monkeypatch.setattr(fuzz("child"), "MEGABYTES", 40.0)

    def refuses(_: Any) -> None:
        raise EinthovenError("no")

    def raises(_: Any) -> None:
        raise KeyError("secret")

    def grows(_: Any) -> None:
        np.ones(50 << 17).sum()

    assert judged(lambda tree: None, {})["outcome"] == "accepted"
    assert judged(refuses, {})["outcome"] == "refused"
    assert judged(raises, {})["outcome"] == "finding" and "secret" not in judged(raises, {})["what"]
    assert "MB" in judged(grows, {})["what"]
