"""The documentation: it builds, its links lead somewhere, its commands, settings and code are those of the package."""

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
import typer

from einthoven import cli, config
from einthoven.classifier import Classifier, Head
from einthoven.config import EcgEncoder, Space, TextEncoder
from einthoven.model import Model
from einthoven.onnx_export import export_onnx
from einthoven.simulation.heart import simulate

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NAMES = [page.relative_to(ROOT).as_posix() for page in (*PAGES, ROOT / "README.md")]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(name: str, language: str) -> list[str]:
    return [code for found, code in FENCE.findall((ROOT / name).read_text(encoding="utf-8")) if found == language]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, elsewhere."""
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, place / "docs")
    shutil.copy(ROOT / "zensical.toml", place)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "site"


def html_of(site: Path, page: Path) -> Path:
    below = page.relative_to(DOCS).with_suffix("")
    return site / (below.parent if below.name == "index" else below) / "index.html"


def test_every_page_is_built_and_takes_nothing_from_elsewhere(site: Path) -> None:
    for page in PAGES:
        built = html_of(site, page).read_text(encoding="utf-8")
        assert "</article>" in built, page
        loaded = re.findall(r"""<(?:script|img|iframe)[^>]*src=["']?([^"' >]+)""", built)
        loaded += re.findall(r"""<link[^>]*rel=["']?(?:stylesheet|preload|icon)[^>]*href=["']?([^"' >]+)""", built)
        assert loaded and not [source for source in loaded if source.startswith(("http", "//"))], page
    assert (site / "figures" / "flow.svg").exists() and not list(site.rglob("*.py"))


def test_every_page_is_in_the_navigation() -> None:
    def listed(part: Any) -> Iterator[str]:
        for value in part if isinstance(part, list) else part.values():
            yield from [value] if isinstance(value, str) else listed(value)

    found = list(listed(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]))
    assert sorted(found) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str, site: Path) -> None:
    page = ROOT / name
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", text)):
        if "://" in link:
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name}: {link}"
        if anchor:
            assert f'id="{anchor}"' in html_of(site, target).read_text(encoding="utf-8"), f"{name}: {link}"


def test_the_reference_is_that_of_the_sources() -> None:
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == script("reference").page(), "run `make docs`"


def test_the_reference_has_all_that_is_public() -> None:
    import einthoven

    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    for name in einthoven.__all__:
        assert f"### `einthoven.{name}`" in text
    for name in typer.main.get_command(cli.app).commands:  # type: ignore[attr-defined]
        assert f"### `einthoven {name}" in text
    for section in config.to_dict(config.Recipe()):
        assert f"### `[{section}]`" in text


def test_the_figures_are_as_drawn() -> None:
    drawn = script("figures").all_figures()
    assert {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "figures").iterdir()} == drawn


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_options_exist(name: str) -> None:
    known = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    shown = [code for language in ("sh", "") for code in blocks(name, language)]
    lines = "\n".join(shown).replace("\\\n", " ").splitlines()
    for line in (line for line in lines if line.startswith("einthoven ")):
        words = shlex.split(line, comments=True)
        assert words[1] in known, f"{name}: {line}"
        options = {option for parameter in known[words[1]].params for option in parameter.opts}
        unknown = [word for word in words[2:] if word.startswith("--") and word.split("=")[0] not in options]
        assert not unknown, f"{name}: {line}"


@pytest.mark.parametrize("name", NAMES)
def test_python_is_python_and_imports_what_is_there(name: str) -> None:
    for code in blocks(name, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("einthoven"):
                for alias in node.names:
                    try:
                        importlib.import_module(f"{node.module}.{alias.name}")
                    except ModuleNotFoundError:
                        assert hasattr(importlib.import_module(node.module), alias.name), f"{name}: {alias.name}"


@pytest.mark.parametrize("name", NAMES)
def test_recipes_are_recipes(name: str, tmp_path: Path) -> None:
    for code in blocks(name, "toml"):
        (tmp_path / "recipe.toml").write_text(code, encoding="utf-8")
        assert isinstance(config.load_recipe(tmp_path / "recipe.toml"), config.Recipe)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: dict[str, bytes]) -> Path:
    """What the examples name: a model, a classifier, an ONNX file, an ECG."""
    torch.manual_seed(0)
    ecg, text = EcgEncoder(width=8, blocks=(1, 1)), TextEncoder(hidden=16, layers=1, heads=2, vocabulary=200)
    Model.create(ecg, text, Space(dim=8, hidden=16), ["sinus rhythm"]).save(tmp_path / "MODEL")
    head = Head(task="classes", labels=("AF", "MI"), mean=(0.0, 0.0), scale=(1.0, 1.0))
    Classifier(ecg, head, {}).save(tmp_path / "OUT")
    export_onnx(tmp_path / "MODEL", tmp_path / "FILE.onnx")
    (tmp_path / "ecg.xml").write_bytes(samples["HL7 aECG"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["docs/library.md", "docs/formats.md", "docs/finetune.md"])
def test_examples_run(name: str, place: Path) -> None:
    labels = np.arange(20) % 2
    signals = simulate([frozenset({"AFIB" if one else "NORM"}) for one in labels], np.random.default_rng(0)) / 1000
    names: dict[str, Any] = {
        "array": signals[0, :3],
        "recordings": [signal[[0, 1, 6], : 3000 + 50 * i] for i, signal in enumerate(signals)],
        "labels": labels,
        "strips": np.zeros((2, 12, 500), np.float32),
    }
    ran = [code for code in blocks(name, "python") if "owner/name" not in code]  # those ask the Hub (test_hub.py)
    assert ran
    for code in ran:
        exec(code, names)
    if name == "docs/library.md":
        assert names["search"].predict(names["recordings"]).shape == (20,)
        assert names["features"].shape == (2, 16) and names["said"]["sampling_rate_hz"] == "100"
    if name == "docs/formats.md":
        assert names["ecg"].signal.shape[0] == len(names["ecg"].leads)
    if name == "docs/finetune.md":
        assert names["classifier"].head.labels == ("AF", "MI")
