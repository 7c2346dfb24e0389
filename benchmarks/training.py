"""Training: goodput of the loop, precision, compiling, layout, and memory. Ratios come from turns within one process.

    python benchmarks/training.py [--out results/training.json] [--rounds 6] [--steps 4] [--epochs 24] [--batch 4096]

goodput     pairs a second of the real loop over those of the bare step (forward, backward, optimiser) on the same
            batches, resident; for two recipes, at 100 and 500 Hz, on a simulated study
bf16        the bare step in bf16 against fp32; and of the ECG encoder alone compiled, and with the channels first
caching     peak memory of one step of so many pairs by gradient caching, in a process of its own
epochs      resident memory after each epoch of the real loop, in a process of its own, and its slope

Each ratio is given by the clock and by processor time, which other work on the machine disturbs less.
"""

import argparse
import copy
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.compute as pc
import torch
from machine import processor
from torch import nn

from einthoven import pipeline
from einthoven.batches import Batch, Pairs, epoch_batches
from einthoven.config import Recipe, load_recipe
from einthoven.encoders.ecg import Conv, ResNet1d
from einthoven.model import Model
from einthoven.progress import silent
from einthoven.study import write_json
from einthoven.training.align import align, prepared
from einthoven.training.loop import adamw
from einthoven.training.paired_columns import training_pairs
from einthoven.training.step import backward
from einthoven.waveforms.rates import at_rate

RECIPES = Path(__file__).parents[1] / "recipes"
GOODPUT = (("ecg-text.toml", 100), ("ecg-text.toml", 500), ("ptbxl.toml", 100), ("ptbxl.toml", 500))
SUBJECTS = 400

Clock = tuple[float, float]  # seconds by the clock, and of the processor


def now() -> Clock:
    return time.perf_counter(), time.process_time()


def since(began: Clock) -> Clock:
    return time.perf_counter() - began[0], time.process_time() - began[1]


def ratios(turns: Sequence[tuple[Clock, Clock]]) -> dict[str, Any]:
    """Of two times taken in turns: how many times the second is the first."""
    by_clock, by_processor = ([float(b[i] / a[i]) for a, b in turns] for i in range(2))
    return {
        "by_clock": round(float(np.median(by_clock)), 3),
        "by_clock_quartiles": [round(float(each), 3) for each in np.quantile(by_clock, (0.25, 0.75))],
        "by_processor": round(float(np.median(by_processor)), 3),
        "by_processor_quartiles": [round(float(each), 3) for each in np.quantile(by_processor, (0.25, 0.75))],
        "turns": len(turns),
    }


def material(recipe: Recipe, study: Path) -> tuple[Model, Pairs]:
    """What the training stage would make of a study."""
    store = at_rate(study, recipe.ecg.sampling_rate)
    train = training_pairs(study, recipe.training.concatenation, recipe.space.modalities)
    model, pairs, _ = prepared(recipe, study, train.filter(pc.equal(train["split"], "train")), store, silent)
    return model, pairs


def batches(recipe: Recipe, model: Model, pairs: Pairs) -> list[Batch]:
    made = epoch_batches(
        pairs, batch=recipe.training.batch, length=model.strip_samples, rate=recipe.ecg.sampling_rate,
        options=recipe.augmentation, seed=0, epoch=0,
    )  # fmt: skip
    return list(made)


def stepper(model: Model, recipe: Recipe, kind: str) -> Callable[[Batch], None]:
    optimizer = adamw(model, recipe.training.learning_rate, recipe.training.weight_decay)
    model.train()

    def step(batch: Batch) -> None:
        backward(model, model, batch, recipe.training, kind)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def timed(work: Callable[[Any], None], over: Sequence[Any]) -> Clock:
    began = now()
    for each in over:
        work(each)
    return since(began)


def goodput(recipe: Recipe, study: Path, rounds: int) -> dict[str, Any]:
    """After each step of the loop a bare one on another copy of the model; the first of an epoch follows its saving."""
    model, pairs = material(recipe, study)
    made, turns, began = batches(recipe, model, pairs), [], now()
    step = stepper(copy.deepcopy(model), recipe, "bf16")
    step(made[0])

    def mark(number: int, steps: int, note: str) -> None:
        nonlocal began
        place = (number - 1) % len(made)
        if place:
            turns.append((since(began), timed(step, [made[place]])))
        began = now()

    options = replace(recipe, training=replace(recipe.training, epochs=rounds, precision="bf16"))
    with tempfile.TemporaryDirectory() as workshop:
        align(options, model, pairs, None, Path(workshop), progress=mark)
    rate = len(made[0].strip) / np.median([whole[0] for whole, _ in turns])
    return {"pairs_per_s": round(float(rate), 1), "batch": len(made[0].strip), "goodput": ratios(turns)}


def precision(recipe: Recipe, study: Path, rounds: int, steps: int) -> dict[str, Any]:
    model, pairs = material(recipe, study)
    made = (batches(recipe, model, pairs) * steps)[:steps]
    single, half = (stepper(model, recipe, kind) for kind in ("fp32", "bf16"))
    single(made[0]), half(made[0])
    return ratios([(timed(half, made), timed(single, made)) for _ in range(rounds)])


def variants(recipe: Recipe, rounds: int, steps: int) -> dict[str, Any]:
    """Forward and backward of the ECG encoder in bf16: how many times as fast as written it is when changed."""
    torch.manual_seed(0)
    strips = torch.randn(recipe.training.batch, 12, recipe.ecg.strip_samples)
    plain = ResNet1d(recipe.ecg).train()

    def run(encode: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], None]:
        def step(_: Any) -> None:
            with torch.autocast("cpu", torch.bfloat16):
                features = encode(strips)
            features.sum().backward()

        return step

    candidates: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"channels_first": along_time(ResNet1d(recipe.ecg))}
    found: dict[str, Any] = {}
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        found["compile"] = "not tried: torch.compile needs a C++ compiler on a processor, and there is none"
    else:
        candidates["compile"] = torch.compile(ResNet1d(recipe.ecg).train())
    for name, candidate in candidates.items():
        began = now()
        run(candidate)(None), run(plain)(None)
        first = since(began)[0]
        turns = [(timed(run(candidate), range(steps)), timed(run(plain), range(steps))) for _ in range(rounds)]
        found[name] = {"first_step_s": round(first, 1), "speedup": ratios(turns)}
    return found


def along_time(encoder: Any) -> Any:
    """The same layers of [b, c, t], as they would be written without a thought of their layout in memory."""
    for name, child in list(encoder.named_modules()):
        twin: nn.Module | None = None
        if isinstance(child, Conv):
            k, s, p = child.kernel_size[0], child.stride[0], int(child.padding[0])
            twin = nn.Conv1d(child.in_channels, child.out_channels, k, s, p, bias=False)
        elif isinstance(child, nn.AvgPool2d):
            twin = nn.AvgPool1d(child.kernel_size[1], ceil_mode=True)
        if twin is not None:
            above, _, last = name.rpartition(".")
            setattr(encoder.get_submodule(above), last, twin)
    encoder.map = lambda scaled: encoder.body(encoder.stem(scaled))
    return encoder.train()


def caching(recipe: Recipe, study: Path, rows: int, chunk: int) -> dict[str, float]:
    """In a process of its own: the peak is that of the process."""
    model, pairs = material(recipe, study)
    made = batches(replace(recipe, training=replace(recipe.training, batch=len(pairs))), model, pairs)[0]
    batch = Batch(**{name: repeated(getattr(made, name), rows) for name in made.__dataclass_fields__})
    batch = replace(batch, subject=torch.arange(rows))
    options = replace(recipe, training=replace(recipe.training, chunk=chunk))
    before, began = peak_gb(), now()
    stepper(model, options, "bf16")(batch)
    seconds, worked = since(began)
    return {
        "batch": rows, "chunk": chunk, "seconds": round(seconds, 1), "processor_seconds": round(worked, 1),
        "peak_gb": round(peak_gb(), 2), "before_the_step_gb": round(before, 2),
    }  # fmt: skip


def repeated(part: Any, rows: int) -> Any:
    if part is None:
        return None
    if not isinstance(part, torch.Tensor):  # coded records
        return type(part)(*(repeated(getattr(part, name), rows) for name in part.__dataclass_fields__))
    return part[torch.arange(rows) % len(part)].clone()


def peak_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def epochs(recipe: Recipe, study: Path, count: int) -> dict[str, Any]:
    """In a process of its own. The slope is that of the later half: allocators settle in the first epochs."""
    model, pairs = material(recipe, study)
    recipe = replace(recipe, training=replace(recipe.training, epochs=count))
    resident: list[float] = []
    each = len(batches(recipe, model, pairs))

    def mark(step: int, steps: int, note: str) -> None:
        if step % each == 0:
            resident.append(psutil.Process().memory_info().rss / 1e6)

    with tempfile.TemporaryDirectory() as place:
        align(recipe, model, pairs, None, Path(place), progress=mark)
    late = resident[count // 2 :]
    slope = float(np.polyfit(np.arange(len(late)), late, 1)[0])
    return {"steps_per_epoch": each, "resident_mb": [round(each) for each in resident], "mb_per_epoch": round(slope, 2)}


def simulated(place: Path, subjects: int) -> Path:
    """A paired study of simulated patients at 500 Hz, below `place`."""
    source = ("source.name=simulated", f"source.subjects={subjects}", "source.sampling_rate=500")
    made = load_recipe(RECIPES / "ptbxl.toml", source)
    pipeline.ingest(made.source, None, place / "study")
    pipeline.pair(made, place / "study")
    return place / "study"


def apart(*words: str) -> Any:
    command = [sys.executable, __file__, *words]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def measured(options: argparse.Namespace) -> dict[str, Any]:
    small, results = load_recipe(RECIPES / "ecg-text.toml"), {}
    with tempfile.TemporaryDirectory() as place:
        study = simulated(Path(place), SUBJECTS)
        # first: Linux counts into the peak of a process what the one that started it had
        numbers = [f"--{name}={getattr(options, name)}" for name in ("batch", "chunk", "epochs")]
        results["gradient caching"] = apart("--child", "caching", str(study), *numbers)
        results["memory over epochs"] = apart("--child", "epochs", str(study), *numbers)
        for name, rate in GOODPUT:
            recipe = load_recipe(RECIPES / name, [f"ecg.sampling_rate={rate}"])
            results[f"{name}, {rate} Hz"] = goodput(recipe, study, options.rounds)
            print(name, rate, results[f"{name}, {rate} Hz"], file=sys.stderr, flush=True)
        results["fp32 over bf16"] = precision(small, study, options.rounds, options.steps)
        results["ECG encoder"] = variants(small, options.rounds, options.steps)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    for name, default in (("rounds", 6), ("steps", 4), ("epochs", 24), ("batch", 4096), ("chunk", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # caching or epochs, and the study
    options = parser.parse_args()
    if options.child:
        small, study = load_recipe(RECIPES / "ecg-text.toml"), Path(options.child[1])
        alone = options.child[0] == "caching"
        found = caching(small, study, options.batch, options.chunk) if alone else epochs(small, study, options.epochs)
        print(json.dumps(found))
        return
    results = measured(options)
    facts = {
        "processor": processor(), "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "data_kind": "simulated", "command": "make bench-training",
    }  # fmt: skip
    print(json.dumps(results))
    if options.out:
        write_json(options.out, facts | {"results": results})


if __name__ == "__main__":
    main()
