"""The README tells the truth: its commands exist and run, its tree is the tree, its numbers are the committed ones."""

import importlib.util
import json
import re
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import typer

from einthoven import cli, config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("einthoven ")]


def test_every_file_has_its_line_in_the_tree() -> None:
    tree = README.split("## Files")[1]
    named = set(re.findall(r"^  (\S+)\s{2,}\S", tree.split("recipes/ ")[0], re.MULTILINE))
    package = ROOT / "src" / "einthoven"
    kept = {".py", ".toml", ".j2"}
    there = {str(p.relative_to(package)) for p in package.rglob("*") if p.suffix in kept and p.name != "__init__.py"}
    assert named == there


def test_every_command_is_in_the_readme() -> None:
    group = typer.main.get_command(cli.app)
    missing = [name for name in group.commands if f"einthoven {name}" not in README]  # type: ignore[attr-defined]
    assert missing == ["demo"] or not missing  # `make demo` runs it


def test_every_setting_has_a_comment_or_is_named_in_a_docstring() -> None:
    source = (ROOT / "src" / "einthoven" / "config.py").read_text(encoding="utf-8")
    for part in vars(config).values():
        if isinstance(part, type) and is_dataclass(part):
            assert part.__doc__ and not part.__doc__.startswith(part.__name__ + "("), part.__name__
            assert all(f"    {field.name}:" in source for field in fields(part))


def test_results_are_the_committed_ones() -> None:
    spec = importlib.util.spec_from_file_location("render", ROOT / "results" / "render.py")
    assert spec is not None and spec.loader is not None
    render = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(render)
    metrics = json.loads((ROOT / "results" / "ptbxl.json").read_text(encoding="utf-8"))
    assert render.with_results(README, metrics) == README


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_knows_the_two_commands(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"make {target}" in README
