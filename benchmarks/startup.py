"""How long commands take to begin, beside a bare interpreter: `--help`, and the first answer of a search.

python benchmarks/startup.py [--out results/startup.json] [--model MODEL --study STUDY] [--rounds 5]

Without a model and a study a small one is simulated and trained first. `search` is a process that has nothing warm but
the page cache; beside it stands what no search by words can do without, importing PyTorch and a BERT of transformers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import facts

from einthoven.study import write_json

LIBRARIES = "import torch; from transformers import AutoTokenizer, BertModel"


def timed(*arguments: str) -> tuple[float, float]:
    """Wall and processor seconds of an interpreter with these arguments."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{arguments[:3]}: failed")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def trained(place: Path) -> tuple[Path, Path]:
    recipe = place / "recipe.toml"
    recipe.write_text(
        '[source]\nname = "simulated"\nsubjects = 60\n[ecg]\nwidth = 8\nblocks = [1, 1]\n'
        "[training]\nepochs = 1\n[evaluation]\nresamples = 50\n"
    )
    subprocess.run(
        [sys.executable, "-m", "einthoven", "run", str(recipe), "--study", str(place / "study")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return place / "study" / "model", place / "study"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model, study = (options.model, options.study) if options.model else trained(Path(scratch))
        asked = ("-m", "einthoven", "search", str(model), str(study), "--text", "atrial fibrillation")
        commands = {
            "bare": ("-c", "pass"),
            "help": ("-m", "einthoven", "--help"),
            "libraries": ("-c", LIBRARIES),
            "search": asked,
        }
        timed(*asked)  # embeds and indexes where that was not done
        times = {name: [timed(*arguments) for _ in range(options.rounds)] for name, arguments in commands.items()}
    found = {
        name: {
            "wall_s": round(statistics.median(wall for wall, _ in runs), 3),
            "processor_s": round(statistics.median(used for _, used in runs), 3),
        }
        for name, runs in times.items()
    }
    ratios = {
        "help_to_bare": found["help"]["processor_s"] / found["bare"]["processor_s"],
        "search_to_libraries": found["search"]["processor_s"] / found["libraries"]["processor_s"],
    }
    said = {name: round(ratio, 2) for name, ratio in ratios.items()}
    result = {"command": "make bench-startup", **facts("torch", "transformers", "typer"), **found, "ratios": said}
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
