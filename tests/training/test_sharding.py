import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.processes import torchrun

from einthoven.config import load_recipe
from einthoven.errors import EinthovenError
from einthoven.model_directory import load

SCRIPT = Path(__file__).with_name("sharded_run.py")


def test_two_processes_that_share_the_weights_train_what_one_does(tmp_path: Path) -> None:
    """Whole batches, batches in chunks, and a run that was killed; what is saved is whole."""
    runs = [("whole", 0, 0), ("chunks", 1, 0), ("killed", 0, 5), ("copies", 0, 5, "none")]
    torchrun(SCRIPT, str(tmp_path), json.dumps(runs))
    two = json.loads((tmp_path / "histories.json").read_text())

    specification = importlib.util.spec_from_file_location("sharded_run", SCRIPT)
    assert specification is not None and specification.loader is not None
    alone = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(alone)
    for name, chunk in (("whole", 0), ("chunks", 2)):  # two rows of one process are one of each of two
        one = alone.run(tmp_path / f"one {name}", chunk, 0)
        losses = [[entry["loss"] for entry in history] for history in (one, two[name])]
        assert np.allclose(*losses, rtol=0, atol=1e-4) and len(set(losses[0])) == 4
        expected, got = (load(tmp_path / place / "best").state_dict() for place in (f"one {name}", name))
        close = {key: torch.allclose(expected[key], got[key], atol=2e-3) for key in expected}
        assert all(close.values()), [key for key, near in close.items() if not near]
    assert two["killed"] == two["whole"]
    copies, whole = ([entry["loss"] for entry in two[name]] for name in ("copies", "whole"))
    assert np.allclose(copies, whole, rtol=0, atol=1e-4)  # taken up by processes with all weights each
    again, whole = (load(tmp_path / name / "best").state_dict() for name in ("killed", "whole"))
    assert all(torch.equal(again[key], whole[key]) for key in whole)


def test_an_unknown_sharding_is_refused() -> None:
    with pytest.raises(EinthovenError, match="sharding none or fsdp"):
        load_recipe(None, ["training.sharding=zero"])
