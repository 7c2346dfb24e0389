"""What a command imports before it works: the time of the first answer."""

import os
import subprocess
import sys
from typing import Any

SLOW = ("numpy", "pyarrow", "torch", "duckdb", "rich.markdown")


def imported(code: str) -> set[str]:
    """The modules that a new interpreter has after `code`."""
    told = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True).stdout.split())


def processor_seconds(*arguments: str) -> float:
    """The least processor time of three runs of an interpreter with these arguments."""
    times = []
    for _ in range(3):
        child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        assert status == 0
        times.append(used.ru_utime + used.ru_stime)
    return min(times)


def test_the_command_line_imports_no_arrays_tables_or_tensors() -> None:
    assert not imported("import einthoven.cli") & set(SLOW)


def test_help_costs_few_bare_interpreters() -> None:
    # 16 measured; 28 with the tables and arrays that it used to import
    assert processor_seconds("-m", "einthoven", "--help") < 24 * processor_seconds("-c", "pass") + 0.05


def test_a_search_by_words_imports_no_fitting_filtering_or_pairing() -> None:
    found = imported("import einthoven.search.archive, einthoven.indexing, einthoven.search.exact")
    assert "torch" in found
    assert not found & {"sklearn", "scipy.signal", "scipy.stats", "ibis", "duckdb", "pandas", "matplotlib", "lancedb"}


def test_every_name_of_the_pipeline_is_found_when_asked_for() -> None:
    from einthoven import pipeline

    found: dict[str, Any] = {name: getattr(pipeline, name) for name in pipeline.__all__}
    assert callable(found["ingest"]) and "simulated" in found["SOURCES"]
    assert not hasattr(pipeline, "no_such_stage")
