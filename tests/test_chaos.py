"""Faults on purpose: what damaged files, a full disk, other settings and a kill leave. All of it: `make chaos`."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import einthoven
from einthoven import cli, pipeline, schema
from einthoven.config import Recipe, Source
from einthoven.errors import EinthovenError, told
from einthoven.study import atomic, data_kind, fingerprint, read_manifest, read_table, stage_manifest, write_manifest
from einthoven.training.loop import BEST, State, adamw, keep, refuse_unsealed, resume, seal

ROOT = Path(__file__).parents[1]
SMALL = Source(name="simulated", subjects=20)


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study: Path = tmp_path_factory.mktemp("chaos") / "study"
    pipeline.ingest(SMALL, None, study)
    pipeline.pair(Recipe(), study)
    return study


@pytest.fixture
def study(paired: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(paired, tmp_path / "study"))


def flip(path: Path, place: float = 0.5) -> None:
    """Another bit at a place of the file, and its old times."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 8
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_few_kills_and_faults_lose_nothing(tmp_path: Path) -> None:
    stages = ["ingest simulated", "ingest challenge"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "chaos", "--kills", "3", "--stages", ",".join(stages),
         "--faults", "kills,full disk,two writers", "--out", tmp_path / "chaos.json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "chaos.json").read_text())["stages"]
    assert [row["stage"] for row in rows] == stages
    assert all(row["identical"] == row["runs"] == 3 and row["unfinished"] for row in rows)
    assert all(fault["tried"] or fault["skipped"] for row in rows for fault in row["faults"].values())


@pytest.mark.parametrize(
    ("table", "place"),
    [(schema.RECORDINGS, 0.01), (schema.EVENTS, 0.3), (schema.NOTES, 0.999), (schema.ENTITIES, 0.5)],
)
def test_a_table_with_another_bit_is_refused_and_made_again(study: Path, table: schema.Table, place: float) -> None:
    whole, pairs = table.at(study).read_bytes(), schema.PAIRS.at(study).read_bytes()
    flip(table.at(study), place)
    with pytest.raises(EinthovenError, match=table.path):
        read_table(table, study)
    if table is not schema.ENTITIES:  # which pairing itself makes anew
        with pytest.raises(EinthovenError, match=table.path):
            pipeline.pair(Recipe(), study)
    assert pipeline.ingest(SMALL, None, study).fresh == (table is not schema.ENTITIES)
    pipeline.pair(Recipe(), study)
    assert table.at(study).read_bytes() == whole and schema.PAIRS.at(study).read_bytes() == pairs


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"counts": []}', "flip", "cut"])
def test_a_damaged_manifest_is_a_stage_that_runs_again(study: Path, damage: str) -> None:
    manifest = stage_manifest(study, "ingest")
    whole = manifest.read_bytes()
    pairs = schema.PAIRS.at(study).read_bytes()
    if damage == "flip":
        flip(manifest, 0.2)
    else:
        manifest.write_bytes(whole[: len(whole) // 2] if damage == "cut" else damage.encode())
    with pytest.raises(EinthovenError, match="not a complete study"):
        data_kind(study)
    with pytest.raises(EinthovenError, match="not a complete study"):
        pipeline.pair(Recipe(), study)
    assert pipeline.ingest(SMALL, None, study).fresh
    assert manifest.read_bytes() == whole
    assert not pipeline.pair(Recipe(), study).fresh and schema.PAIRS.at(study).read_bytes() == pairs


def test_every_flipped_bit_of_a_manifest_is_noticed(study: Path) -> None:
    manifest = stage_manifest(study, "pair")
    whole = manifest.read_bytes()
    before = read_manifest(manifest)
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 7)
        manifest.write_bytes(changed)
        assert read_manifest(manifest) in (None, before)  # the latter: a blank became another
    manifest.write_bytes(whole)
    assert read_manifest(manifest) == before


def test_a_manifest_of_another_version_is_a_stage_that_runs_again(study: Path) -> None:
    manifest = stage_manifest(study, "ingest")
    whole, content = manifest.read_bytes(), read_manifest(manifest)
    assert content is not None
    write_manifest(manifest, {**content, "version": "0.0.1"})
    assert pipeline.ingest(SMALL, None, study).fresh and manifest.read_bytes() == whole
    manifest.write_text(json.dumps(content))  # of before there were digests
    assert not pipeline.ingest(SMALL, None, study).fresh


def test_a_study_of_other_settings_is_replaced_only_when_told(study: Path) -> None:
    other = Source(name="simulated", subjects=20, seed=3, sampling_rate=500)
    before = fingerprint(study)
    with pytest.raises(EinthovenError, match=r"sampling_rate is None, not 500; seed is 0, not 3\. .*--replace"):
        pipeline.ingest(other, None, study)
    assert fingerprint(study) == before
    assert pipeline.ingest(other, None, study, replacing=True).fresh
    assert not pipeline.ingest(other, None, study).fresh
    stage_manifest(study, "ingest").unlink()  # an ingest that was killed holds nothing to lose
    assert pipeline.ingest(SMALL, None, study).fresh


@pytest.mark.parametrize("command", ["ingest simulated {study} --set source.seed=3", "run {recipe} --study {study}",
                                     "demo --out {study} --recipe {recipe}"])  # fmt: skip
def test_the_way_out_is_the_same_for_all_commands(study: Path, tmp_path: Path, command: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[source]\nname = "simulated"\nsubjects = 21\n')
    arguments = [word.format(study=study, recipe=recipe) for word in command.split()]
    with pytest.raises(EinthovenError, match=r"made with other settings.*or pass --replace"):
        cli.app(arguments, standalone_mode=False)
    if arguments[0] == "ingest":
        cli.app([*arguments, "--set", "source.subjects=20", "--replace"], standalone_mode=False)
        assert read_manifest(stage_manifest(study, "ingest"))["config"]["seed"] == 3  # type: ignore[index]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "probes.safetensors", "vocabulary.json"])
def test_a_model_with_another_bit_is_not_loaded(place: Path, tmp_path: Path, name: str) -> None:
    model = Path(shutil.copytree(place / "model", tmp_path / "model"))
    einthoven.load(model)
    flip(model / name)
    with pytest.raises(EinthovenError, match=f"{name} is not as it was written"):
        einthoven.load(model)
    (model / "manifest.json").unlink()
    flip(model / name)  # back; and without a manifest, as from the Hub, nothing is compared
    einthoven.load(model)


def a_state(workshop: Path) -> State[nn.Linear]:
    torch.manual_seed(0)
    model = nn.Linear(40, 40)
    state = State(model, nn.Linear(40, 40), adamw(model, 1e-3, 0.1), 0.5, 2, 7, [{"loss": 1.0}])
    (workshop / BEST).mkdir(parents=True)
    (workshop / BEST / "model.safetensors").write_bytes(b"weights")
    seal(workshop, state)
    keep(workshop, state, "run")
    return state


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: c[:900] + b"x" + c[901:]])
def test_a_damaged_state_of_training_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    state, file = a_state(tmp_path), tmp_path / "state.pt"
    again = State(nn.Linear(40, 40), nn.Linear(40, 40), adamw(state.model, 1e-3, 0.1), 0.0, 0, 0, [])
    resume(tmp_path, again, "run", torch.device("cpu"))
    assert (again.epoch, again.history, again.sealed) == (2, [{"loss": 1.0}], state.sealed)
    assert torch.equal(again.model.weight, state.model.weight)
    middle = file.read_bytes().index(state.model.weight.detach().numpy().tobytes())
    content = file.read_bytes()
    file.write_bytes(damage(content) if len(damage(content)) != len(content) else flipped(content, middle))
    with pytest.raises(EinthovenError, match=r"state\.pt is damaged: delete .* and repeat"):
        resume(tmp_path, again, "run", torch.device("cpu"))


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_damaged_best_epoch_does_not_become_the_model(tmp_path: Path) -> None:
    state = a_state(tmp_path)
    refuse_unsealed(tmp_path, state)
    flip(tmp_path / BEST / "model.safetensors")
    with pytest.raises(EinthovenError, match="best is damaged: delete"):
        refuse_unsealed(tmp_path, state)


def test_a_full_disk_is_told_whoever_meets_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for words in ("Error while serializing: I/O error: No space left on device (os error 28)",
                  "[enforce fail at inline_container.cc:672] . unexpected pos 1566016 vs 1565904"):  # fmt: skip
        with pytest.raises(OSError) as caught, atomic(tmp_path / "file"):
            raise RuntimeError(words)
        assert caught.value.errno == errno.ENOSPC
        said = told(caught.value)
        assert said is not None and "No space left on device" in said and "file" in said and "repeat" in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


def test_too_little_memory_is_told_and_a_mistake_of_ours_is_not_hidden() -> None:
    torch_says = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
    for error in (MemoryError(), torch_says):
        assert "not enough memory" in str(told(error))
    assert told(RuntimeError("shapes do not match")) is None
    assert told(EinthovenError("out of memory or of disk space")) == "out of memory or of disk space"


def test_a_killed_stage_leaves_a_study_that_says_so(tmp_path: Path) -> None:
    """A real process, killed at its first table: no manifest, nothing half-written under its own name."""
    study = tmp_path / "study"
    code = (
        "import os, signal, sys\n"
        "from einthoven import cli, study\n"
        "replace = os.replace\n"
        "def killed(old, new):\n"
        "    if str(new).endswith('recordings.parquet'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    replace(old, new)\n"
        "os.replace = killed\n"
        "cli.app(['ingest', 'simulated', sys.argv[1], '--set', 'source.subjects=20'], standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, study], capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGKILL
    assert not schema.RECORDINGS.at(study).exists() and list(study.glob(".recordings.parquet.*.tmp"))
    with pytest.raises(EinthovenError, match="not a complete study"):
        pipeline.pair(Recipe(), study)
    pipeline.ingest(SMALL, None, study)
    assert not list(study.glob(".*.tmp"))
    pipeline.ingest(SMALL, None, tmp_path / "undisturbed")
    for path in (tmp_path / "undisturbed").rglob("*"):
        if path.is_file():
            assert (study / path.relative_to(tmp_path / "undisturbed")).read_bytes() == path.read_bytes()
