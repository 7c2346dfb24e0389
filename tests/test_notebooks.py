"""The notebooks of docs/: without outputs in the repository, and run from their first to their last cell."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

from einthoven import cli

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
RECIPE = f"""
extends = "{Path(__file__).with_name("tiny.toml")}"
[source]
subjects = 80
[training]
epochs = 2
[evaluation]
resamples = 20
label_fractions = [0.1, 1.0]
subsets = 1
"""


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `einthoven demo` has been run, on a small recipe."""
    place = tmp_path_factory.mktemp("notebooks")
    (place / "tiny.toml").write_text(RECIPE)
    cli.app(["demo", "--out", str(place / "demo"), "--recipe", str(place / "tiny.toml")], standalone_mode=False)
    return place


@pytest.fixture(scope="module")
def kernel(beside: Path) -> Iterator[KernelManager]:
    """One for all: half of the time of a notebook would be its imports. Names are cleared between notebooks."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(beside))
    yield manager
    manager.shutdown_kernel(now=True)


def test_there_are_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["finetune", "own-data", "rival", "search"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, kernel: KernelManager) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    NotebookClient(notebook, km=kernel, timeout=60).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs and not [output for output in outputs if output.output_type == "error"]
