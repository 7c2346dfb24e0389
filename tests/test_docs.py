"""The README tells the truth: its commands exist and run, its tree is the tree, its numbers are the committed ones."""

import csv
import importlib
import json
import re
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import typer
import wfdb

from einthoven import cli, config
from einthoven.schema import LEADS
from einthoven.simulation.heart import simulate
from einthoven.sources.ptbxl_rows import COLUMNS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("einthoven ")]


def test_every_file_has_its_line_in_the_tree() -> None:
    tree = README.split("## Files")[1]
    named = set(re.findall(r"^  (\S+) +\S", tree.split("recipes/ ")[0], re.MULTILINE))
    package = ROOT / "src" / "einthoven"
    kept = {".py", ".toml", ".j2"}
    there = {str(p.relative_to(package)) for p in package.rglob("*") if p.suffix in kept and p.name != "__init__.py"}
    assert named == there


def test_every_command_is_in_the_readme() -> None:
    group = typer.main.get_command(cli.app)
    missing = [name for name in group.commands if f"einthoven {name}" not in README]  # type: ignore[attr-defined]
    assert not missing


def test_every_setting_has_a_comment_or_is_named_in_a_docstring() -> None:
    files = sorted((ROOT / "src" / "einthoven" / "config").glob("*.py"))
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for part in vars(config).values():
        if isinstance(part, type) and is_dataclass(part):
            assert part.__doc__ and not part.__doc__.startswith(part.__name__ + "("), part.__name__
            assert all(f"    {field.name}:" in source for field in fields(part))


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One of results/, as its command loads it: beside the others."""
    monkeypatch.syspath_prepend(ROOT / "results")
    return importlib.import_module(name)


def test_results_are_the_committed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = json.loads((ROOT / "results" / "ptbxl.json").read_text(encoding="utf-8"))
    render = script("render", monkeypatch)
    assert render.with_results(README, metrics) == README
    page = render.PAGE.read_text(encoding="utf-8")
    assert render.with_results(page, metrics, main=False) == page


def test_ablations_are_the_committed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    ablations = script("ablations", monkeypatch)
    page = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    assert ablations.with_tables(page, json.loads(ablations.RESULTS.read_text(encoding="utf-8"))) == page


def test_a_supervised_encoder_has_its_row_among_the_baselines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    baselines = script("baselines", monkeypatch)
    monkeypatch.setattr(baselines, "RESULTS", tmp_path / "baselines.json")
    probe = {"probe": {"fractions": {"0.01": {"macro": {"value": 0.8, "low": 0.7, "high": 0.9}}}}}
    for name in (baselines.SUPERVISED, baselines.MAIN):
        baselines.keep(name, baselines.figures(probe), {"recordings": 12})
    page = baselines.with_table(baselines.PAGE.read_text(encoding="utf-8"), json.loads(baselines.RESULTS.read_text()))
    assert "(12 recordings)" in page and page.count("0.800 (0.700–0.900)") == 2
    assert page.index(f"| {baselines.MAIN}") < page.index(f"| {baselines.SUPERVISED}")


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_knows_the_two_commands(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"make {target}" in README


FINDINGS = {"NORM": "sinusrhythmus normales ekg", "AFIB": "vorhofflimmern", "IMI": "sinusrhythmus inferiorer infarkt"}
TINY = """
[ecg]
width = 8
blocks = [1, 1]
[text]
hidden = 32
layers = 1
[training]
epochs = 2
[evaluation]
resamples = 20
"""


def write_ptbxl(folder: Path, recordings: int = 60) -> None:
    """A tree in PTB-XL's published layout, of simulated ECGs."""
    codes = [list(FINDINGS)[i % 3] for i in range(recordings)]
    signals = simulate([frozenset({code}) for code in codes], np.random.default_rng(0), sampling_rate=100)
    where = folder / "records100" / "00000"
    where.mkdir(parents=True)
    for number, signal in enumerate(signals, start=1):
        wfdb.wrsamp(
            f"{number:05d}_lr",
            100,
            ["mV"] * 12,
            list(LEADS),
            d_signal=signal.T.astype(np.int64),
            fmt=["16"] * 12,
            adc_gain=[1000.0] * 12,
            baseline=[0] * 12,
            write_dir=str(where),
        )
    with (folder / "ptbxl_database.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for number, code in enumerate(codes, start=1):
            writer.writerow(
                {
                    "ecg_id": number,
                    "patient_id": number,
                    "age": 50,
                    "sex": 0,
                    "report": FINDINGS[code],
                    "recording_date": "1990-01-01 10:00:00",
                    "scp_codes": str({code: 100.0}),
                    "strat_fold": 1 + number % 10,
                    "filename_lr": f"records100/00000/{number:05d}_lr",
                    "filename_hr": f"records500/00000/{number:05d}_hr",
                }
            )
    (folder / "scp_statements.csv").write_text(
        ",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\n"
        "NORM,normal ECG,1.0,,,NORM,NORM\nIMI,inferior infarction,1.0,,,MI,IMI\nAFIB,atrial fibrillation,,,1.0,,\n"
    )


def test_the_readmes_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_ptbxl(tmp_path / "SRC")
    (tmp_path / "recipes").mkdir()
    for name in ("ecg-text.toml", "ptbxl.toml"):
        (tmp_path / "recipes" / name).write_text(TINY)
    found = commands()
    assert len(found) == 14
    for command in found:
        cli.app(command[1:], standalone_mode=False)
    said = capsys.readouterr().out
    assert "vorhofflimmern" in said and "real data" in said
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {"array": np.zeros((3, 5000))}
    exec(example, names)
    assert np.shape(names["similarity"]) == (2,)
    cli.app(["rechart", "STUDY", "OUT"], standalone_mode=False)
    assert (tmp_path / "OUT" / "events.parquet").exists()
