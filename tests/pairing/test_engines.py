"""The same pairs from DuckDB, from Spark in one process and from a Spark cluster, to the byte."""

import datetime as dt
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from einthoven import schema
from einthoven.config import Entities, Pairing, TextEncoder
from einthoven.errors import EinthovenError
from einthoven.pairing.engines import connected
from einthoven.pairing.pairs import pair
from einthoven.study import write_table

from .test_windows import MENTION, rows

spark = pytest.mark.skipif(
    find_spec("pyspark") is None or shutil.which("java") is None, reason="Spark needs the extra [spark] and Java 17"
)
CONFIG = Pairing(
    skew_minutes=30.0, max_codes=12, static_codes=("GENDER//*",), keywords=("herz",), relevant_entities=True
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 patients with what is awkward: missing times, times before 1970 and between seconds, ties, umlauts."""
    study = tmp_path_factory.mktemp("pairing") / "study"
    dice = np.random.default_rng(0)
    start = dt.datetime(1969, 7, 1)

    def some_time() -> dt.datetime | None:
        if dice.random() < 0.05:
            return None
        whole = start + dt.timedelta(hours=int(dice.integers(0, 8766)))
        return whole + dt.timedelta(microseconds=int(dice.integers(0, 10**6))) if dice.random() < 0.5 else whole

    recordings = [
        {"recording_id": f"r{i:03d}", "subject_id": int(dice.integers(40)), "time": some_time(), "split": "train"}
        for i in range(120)
    ]
    codes = [f"{kind}//{letter}" for kind in ("DIAGNOSIS", "PROCEDURE", "SCP", "LAB") for letter in "aBüz"]
    events = [
        {"subject_id": int(dice.integers(40)), "time": some_time(), "code": codes[int(dice.integers(len(codes)))]}
        for _ in range(1500)
    ]
    events += [  # what was read from an ECG, of an undated one without a time
        {name: recording[name] for name in ("subject_id", "time", "recording_id")} | {"code": code}
        for recording in recordings
        for code in ("SCP//a", "GENDER//X")
    ]
    events += [{"subject_id": i, "time": None, "code": f"GENDER//{'FM'[i % 2]}"} for i in range(40)]
    events = sorted(events, key=lambda e: (e["subject_id"], str(e["time"] or ""), e["code"]))
    notes = [
        {
            "subject_id": int(dice.integers(40)),
            "time": some_time(),
            "note_id": f"n{i}",
            "kind": schema.NOTE_KINDS[i % 6],
        }
        | {"text": f"{'Großes Herz' if i % 3 else 'Lunge'}, {i}", "recording_id": f"r{i:03d}" if i < 50 else None}
        for i in range(300)
    ]
    mentions = [
        {
            "note_id": f"n{i}",
            "subject_id": notes[i]["subject_id"],
            "start": start,
            "term": ("Vorhofflimmern", "øvrig", "angina")[int(dice.integers(3))],
        }
        | {**MENTION, "label": "disease", "end": 99, "negated": dice.random() < 0.2, "uncertain": dice.random() < 0.2}
        for i in range(0, 300, 2)
        for start in (0, 7)
    ]
    for table, values in (
        (schema.RECORDINGS, recordings), (schema.EVENTS, events), (schema.NOTES, notes), (schema.ENTITIES, mentions)
    ):  # fmt: skip
        write_table(table, study, rows(table, values))
    return study


def paired_by(engine: str, study: Path, copy: Path, config: Pairing = CONFIG) -> tuple[bytes, dict]:
    for table in (schema.RECORDINGS, schema.EVENTS, schema.NOTES, schema.ENTITIES):
        copy.mkdir(exist_ok=True)
        shutil.copy(table.at(study), copy)
    counts = pair(config, Entities(), TextEncoder(vocabulary=80), copy, engine)
    return schema.PAIRS.at(copy).read_bytes(), counts


@spark
@pytest.mark.parametrize("own", [True, False])
def test_spark_in_this_process_gives_the_same_bytes(study: Path, tmp_path: Path, own: bool) -> None:
    config = replace(CONFIG, own_codes=own)
    expected = paired_by("duckdb", study, tmp_path / "duckdb", config)
    assert expected[1]["with_text"] > 60 and expected[1]["with_entity_text"] > 60
    assert paired_by("local[2]", study, tmp_path / "spark", config) == expected
    other = paired_by("duckdb", study, tmp_path / "other", replace(CONFIG, own_codes=not own))
    assert (other[1]["codes_per_pair"] < expected[1]["codes_per_pair"]) == own


@pytest.fixture(scope="module", autouse=True)
def few_partitions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """As a cluster's owner would set it: 200 partitions, Spark's default, are too many for 120 recordings."""
    settings = tmp_path_factory.mktemp("conf")
    (settings / "spark-defaults.conf").write_text("spark.sql.shuffle.partitions 2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_CONF_DIR", str(settings))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Spark master with two workers, on loopback."""
    import pyspark

    home, work = Path(pyspark.__file__).parent, tmp_path_factory.mktemp("spark")
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
    }
    running: list[subprocess.Popen[str]] = []

    def start(role: str, *arguments: str) -> str:
        """Start a daemon and read its log until it says where it is."""
        command = [
            str(home / "bin" / "spark-class"),
            f"org.apache.spark.deploy.{role.lower()}.{role}",
            "--host",
            "127.0.0.1",
        ]
        process = subprocess.Popen(
            [*command, "--port", "0", "--webui-port", "0", *arguments],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip
        running.append(process)
        assert process.stderr is not None
        said = r"Starting Spark master at (spark://\S+)" if role == "Master" else r"Successfully registered with (\S+)"
        for line in process.stderr:
            if found := re.search(said, line):
                # what it goes on to say must be read, or a full pipe would hold it up
                threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
                return found[1]
        raise AssertionError(f"{role} ended with {process.wait()}")

    try:
        master = start("Master")
        for i in range(2):
            start("Worker", "--cores", "1", "--memory", "1g", "--work-dir", str(work / str(i)), master)
        yield master
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


@spark
def test_a_cluster_of_two_workers_gives_the_same_bytes(study: Path, tmp_path: Path, cluster: str) -> None:
    expected = paired_by("duckdb", study, tmp_path / "duckdb")
    assert paired_by(cluster, study, tmp_path / "spark") == expected


@spark
def test_spark_tells_of_damage_in_one_line(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "study")
    schema.EVENTS.at(tmp_path / "study").write_bytes(damaged(schema.EVENTS.at(study)))
    with pytest.raises(EinthovenError, match="einthoven check") as caught:
        pair(CONFIG, Entities(), TextEncoder(), tmp_path / "study", "local[1]")
    assert "Java" not in str(caught.value).replace("Py4JJavaError", "") and len(str(caught.value)) < 300


@pytest.mark.parametrize("memory", [None, "1GB"])
def test_duckdb_tells_of_damage_and_quotes_nothing(study: Path, tmp_path: Path, memory: str | None) -> None:
    shutil.copytree(study, tmp_path / "study")
    schema.NOTES.at(tmp_path / "study").write_bytes(damaged(schema.NOTES.at(study)))
    with pytest.raises(EinthovenError, match="einthoven check") as caught:
        pair(CONFIG, Entities(), TextEncoder(), tmp_path / "study", memory=memory)
    assert "Herz" not in str(caught.value) and caught.value.__cause__ is None
    assert not schema.PAIRS.at(tmp_path / "study").exists() and not (tmp_path / "study" / ".scratch").exists()


def damaged(file: Path) -> bytes:
    """A Parquet file whose footer is whole and whose pages are not."""
    content = file.read_bytes()
    return content[:4] + b"\xff" * 200 + content[204:]


def test_an_encoder_whose_tokenizer_cannot_be_read_costs_only_the_statistic(study: Path, tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "vocab.json").write_text("{}")
    shutil.copytree(study, tmp_path / "study")
    counts = pair(CONFIG, Entities(), TextEncoder(pretrained=str(tmp_path / "encoder")), tmp_path / "study")
    assert "could not be read" in counts["tokens"]["tokenizer"]


def test_little_memory_spills_and_gives_the_same_bytes(study: Path, tmp_path: Path) -> None:
    expected = paired_by("duckdb", study, tmp_path / "all")
    copy = tmp_path / "little"
    shutil.copytree(study, copy)
    counts = pair(CONFIG, Entities(), TextEncoder(vocabulary=80), copy, "duckdb", "60MB")
    assert (schema.PAIRS.at(copy).read_bytes(), counts) == expected
    assert not (copy / ".scratch").exists()


@pytest.mark.parametrize(
    ("engine", "memory", "said"),
    [("dask", None, "expected duckdb, spark"), ("duckdb", "much", "such as 4GB"), ("local[2]", "0GB", "such as 4GB")],
)
def test_unknown_engines_and_sizes_are_refused(engine: str, memory: str | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match=said), connected(engine, tmp_path / "scratch", memory):
        pass
