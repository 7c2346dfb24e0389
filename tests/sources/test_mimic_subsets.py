"""Any subset of MIMIC-IV: a plan of DuckDB once failed for some of them."""

import shutil
from itertools import combinations
from pathlib import Path

import pytest

from einthoven.config import Source
from einthoven.sources.mimic import ingest

DEMO = Path(__file__).resolve().parents[3] / "shared" / "data" / "mimic-iv-demo-2.2"
OPTIONAL = ("diagnoses_icd", "procedures_icd", "hcpcsevent", "prescriptions", "d_hcpcs")


@pytest.mark.skipif(not DEMO.exists(), reason=f"{DEMO} is not on this machine")
@pytest.mark.parametrize("left_out", [*combinations(OPTIONAL, 1), OPTIONAL], ids="-".join)
def test_a_subset_is_read(tmp_path: Path, left_out: tuple[str, ...]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(DEMO / "mimic_iv_ecg_demo_machine_measurements.csv", source)
    for name in {"patients", "admissions", *OPTIONAL} - set(left_out):
        shutil.copy(DEMO / "hosp" / f"{name}.csv.gz", source)
    counts = ingest(Source(name="mimic"), source, tmp_path / "study")
    assert sum(counts["recordings"].values()) == 659 and counts["excluded"] == {}
