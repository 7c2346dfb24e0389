"""A server under mixed load for half an hour: does it leak, does it fail, and how long do answers take?

    python benchmarks/soak.py [--minutes 30] [--rate 20] [--threads 6] [--seed 0] [--out results/soak.json]

Simulated: `einthoven serve` runs in a process of its own on 127.0.0.1, with a small model of a small simulated study.
Clients search by text, codes, recording and files, turn pages, send files that are none, too large or cut off, and
leave before they are answered. Every choice is a function of the seed. Every five seconds the server's memory, its open
files and its children are counted.

It fails, with status 1, on an answer above 499 other than 503, on an answer that does not come, on memory that after
the first third still grows by more than 1 MB a minute and by more than 30 MB in all, and on files or children that are
more at rest after the load than before it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from machine import facts
from visitors import MIX, Client, Told, files

Rest = tuple[float, int, int]
"""MB, open files, children."""

EVERY: Final = 5.0
GROWTH_PER_MINUTE: Final = 1.0  # MB
GROWTH: Final = 30.0  # MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second of all clients")
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, study, known = made(Path(folder))
        command = [sys.executable, "-m", "einthoven", "serve", str(model), str(study), "--port", "0"]
        command += ["--rate", "1000000", "--burst", "1000000", "--log", str(Path(folder) / "audit.jsonl")]
        with (Path(folder) / "errors").open("w") as errors:
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            report = soaked(server, known, arguments)
        finally:
            server.send_signal(signal.SIGTERM)
            ended = server.wait(90)
        report["failures"] += [f"the server ended with {ended}"] if ended not in (0, -signal.SIGTERM) else []
        said = (Path(folder) / "errors").read_text()
        report["failures"] += [f"the server said: {line}" for line in said.splitlines()[:5]]
    print(json.dumps(report, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if report["failures"] else 0)


def soaked(server: "subprocess.Popen[str]", known: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    port, told, end = port_of(server), Told(), threading.Event()
    warm = Client(port, known, told, np.random.default_rng(arguments.seed))
    for kind in MIX:  # everything once, so that what is made on first use is there
        warm.ask(kind)
    before = at_rest(server.pid)
    began = time.monotonic()
    clients = [
        threading.Thread(target=asking, args=(port, known, told, arguments, number, end))
        for number in range(arguments.threads)
    ]
    for client in clients:
        client.start()
    samples = []
    while (now := time.monotonic() - began) < 60 * arguments.minutes and server.poll() is None:
        time.sleep(min(EVERY, max(0.0, 60 * arguments.minutes - now)))
        samples.append((time.monotonic() - began, *resources(server.pid)))
    end.set()
    for client in clients:
        client.join(180)
    took, after = time.monotonic() - began, at_rest(server.pid)
    return judged(told, samples, before, after, took, arguments)


def asking(
    port: int, known: dict[str, Any], told: Told, arguments: argparse.Namespace, number: int, end: threading.Event
) -> None:
    """One client, at fixed moments; what is late is asked at once."""
    client = Client(port, known, told, np.random.default_rng([arguments.seed, number]))
    kinds, shares = list(MIX), np.array(list(MIX.values()), float)
    step, due = arguments.threads / arguments.rate, time.monotonic() + number / arguments.rate
    while not end.wait(max(0.0, due - time.monotonic())):
        client.ask(str(client.random.choice(kinds, p=shares / shares.sum())))
        due = max(due + step, time.monotonic() - 10 * step)


def judged(
    told: Told, samples: list[tuple[float, float, int, int]], before: Rest, after: Rest, took: float, arguments: Any
) -> dict[str, Any]:
    late = [(at / 60, memory) for at, memory, *_ in samples if at > took / 3]
    slope = float(np.polyfit(*np.array(late).T, 1)[0]) if len(late) > 2 else 0.0
    failures = sorted(set(told.failures))
    if slope > GROWTH_PER_MINUTE and late[-1][1] - late[0][1] > GROWTH:
        failures.append(f"memory grows by {slope:.1f} MB a minute after the first third")
    for name, place, room in (("open files", 1, 4), ("children", 2, 0)):
        if after[place] > before[place] + room:
            failures.append(f"{name}: {before[place]} before, {after[place]} after")
    everything = [second for of in told.seconds.values() for second in of]
    kinds = {kind: {**times(told.seconds[kind]), "answers": dict(sorted(told.statuses[kind].items()))} for kind in MIX}
    return {
        "data_kind": "simulated",
        "minutes": round(took / 60, 1),
        "asked_a_second": arguments.rate,
        "clients": arguments.threads,
        "seed": arguments.seed,
        "all": times(everything) | {"asked": sum(sum(of.values()) for of in told.statuses.values())},
        "kinds": kinds,
        "memory_mb": {
            "before": round(before[0]), "after": round(after[0]), "most": round(max(m for _, m, *_ in samples)),
            "slope_a_minute": round(slope, 2), "each_half_minute": [round(m) for _, m, *_ in samples[::6]],
        },
        "open_files": {"before": before[1], "after": after[1], "most": max(f for *_, f, _ in samples)},
        "children": {"before": before[2], "after": after[2]},
        "bounds": {"memory_mb_a_minute": GROWTH_PER_MINUTE, "memory_mb": GROWTH, "statuses": "below 500, or 503"},
        "failures": failures,
        "machine": facts("torch", "uvicorn") | {"load": round(os.getloadavg()[0], 1)},
    }  # fmt: skip


def times(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    p50, p95 = np.percentile(1000 * np.array(seconds), [50, 95])
    return {"p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1)}


def resources(process: int) -> Rest:
    """MB of a process and its children, its open files, its children: those that fork for a file come and go."""
    children = [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    memory = 0.0
    for one in (process, *children):
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
            memory += next((float(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0.0) / 1024
        except OSError:
            continue
    return memory, len(list(Path(f"/proc/{process}/fd").iterdir())), len(children)


def at_rest(process: int) -> Rest:
    """When nothing is asked: the least of ten seconds, in which connections close."""
    found = []
    for _ in range(10):
        time.sleep(1.0)
        found.append(resources(process))
    return found[-1][0], min(files for _, files, _ in found), min(children for *_, children in found)


def port_of(server: "subprocess.Popen[str]") -> int:
    assert server.stdout is not None
    for line in server.stdout:
        if "http://127.0.0.1:" in line:
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return int(line.split("http://127.0.0.1:")[1].split(",")[0])
    raise SystemExit("the server did not start")


def made(folder: Path) -> tuple[Path, Path, dict[str, Any]]:
    """A small model of a small simulated study, and what clients know of them."""
    from einthoven import pipeline, schema
    from einthoven.config import load_recipe
    from einthoven.study import read_table

    settings = (
        "source.subjects=200", 'space.modalities=["ecg","codes","text"]', "training.epochs=1", "ecg.width=8",
        "ecg.blocks=[1,1]", "text.hidden=32", "text.layers=1", "codes.hidden=32", "codes.layers=1", "codes.heads=4",
        "evaluation.control=false", "evaluation.label_fractions=[0.5,1.0]", "evaluation.subsets=2", "training.batch=64",
        'source.name="simulated"',
    )  # fmt: skip
    recipe, study, model = load_recipe(None, settings), folder / "study", folder / "model"
    pipeline.ingest(recipe.source, None, study)
    pipeline.pair(recipe, study)
    pipeline.align(recipe, study, model)
    codes = [
        code for code in read_table(schema.EVENTS, study, ["code"])["code"].unique().to_pylist() if "SCP//" in code
    ]
    ids = read_table(schema.RECORDINGS, study, ["recording_id"])["recording_id"].to_pylist()
    return model, study, {"ids": ids, "codes": codes, "good": files()}


if __name__ == "__main__":
    main()
