"""Text searches a second, and how long one takes, of a server with 20,000 ECGs on this machine.

    python benchmarks/serve.py [--rows 20000] [--requests 2000] [--seconds 60] [--out results/serve.json]

Simulated: a small simulated study gives the server its charts; the index has unit vectors of noise, and the model the
default sizes with random weights, which cost what trained ones do. The server is a process of its own, as
`einthoven serve` runs it, and so is each of two clients, who keep their connections and ask in four threads each. First
they ask as fast as they are answered, then 50 times a second at fixed moments, late ones counted from their moment on.
Every query is another text. Nothing leaves 127.0.0.1.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts

CLIENTS, THREADS = 2, 4
RATE = 50.0
BATCHES = ("einthoven_batch_size_sum", "einthoven_batch_size_count")
WORDS = (
    "sinus rhythm", "atrial fibrillation", "left bundle branch block", "old inferior infarct", "st depression",
    "normal ecg", "first degree block", "ventricular extrasystoles", "left axis deviation", "tachycardia",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=2000, help="of each measurement, at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement, at most")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--role", choices=("all", "server", "client"), default="all", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--client", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=0.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "server":
        serve(arguments.rows)
    elif arguments.role == "client":
        print(json.dumps(ask(arguments)))
    else:
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    load = os.getloadavg()[0]
    server = subprocess.Popen(
        [sys.executable, __file__, "--role", "server", "--rows", str(arguments.rows)], stdout=subprocess.PIPE, text=True
    )
    try:
        port = port_of(server)
        clients(arguments, port, 0.0, 100)  # warms up
        results = {}
        for name, rate in (("as_fast_as_answered", 0.0), (f"{RATE:g}_a_second", RATE)):
            busy = spent_by(server.pid)
            found = summary(*clients(arguments, port, rate, arguments.requests))
            spent = 1000 * (spent_by(server.pid) - busy) / found["requests"]
            results[name] = found | {"server_processor_ms": round(spent, 2)}
        metrics = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        metrics.request("GET", "/api/metrics")
        told = metrics.getresponse().read().decode().splitlines()
    finally:
        server.terminate()
        server.wait(60)
    batches = [float(line.split()[1]) for line in told if line.startswith(BATCHES)]
    report = {
        "data_kind": "simulated",
        "recordings": arguments.rows,
        "goal": {"searches_per_second": 50, "p95_ms": 60},
        "clients": {"processes": CLIENTS, "threads_each": THREADS},
        **results,
        "requests_per_batch": round(batches[0] / batches[1], 2),
        "machine": facts("torch", "fastapi", "uvicorn") | {"load_average_before": round(load, 2)},
    }
    print(json.dumps(report, indent=2))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def spent_by(process: int) -> float:
    """Seconds of a processor that a process has had; 0 where the system does not tell."""
    told = lines(f"/proc/{process}/stat")
    ticks = told[0].rpartition(")")[2].split()[11:13] if told else []
    return sum(int(tick) for tick in ticks) / os.sysconf("SC_CLK_TCK")


def lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def port_of(server: "subprocess.Popen[str]") -> int:
    assert server.stdout is not None
    for line in server.stdout:
        if "http://127.0.0.1:" in line:
            return int(line.split("http://127.0.0.1:")[1].split(",")[0])
    raise SystemExit("the server did not start")


def clients(arguments: argparse.Namespace, port: int, rate: float, requests: int) -> tuple[list[float], float]:
    """Seconds of every request, and seconds that all took."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--role", "client", "--port", str(port), "--rate", str(rate / CLIENTS)]
    command += ["--requests", str(requests // CLIENTS), "--seconds", str(arguments.seconds)]
    running = [
        subprocess.Popen([*command, "--client", str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(CLIENTS)
    ]
    told = [json.loads(client.communicate(timeout=arguments.seconds + 60)[0]) for client in running]
    assert not any(each["failed"] for each in told), told
    assert time.perf_counter() > began
    return [seconds for each in told for seconds in each["seconds"]], max(each["took"] for each in told)


def summary(seconds: list[float], took: float) -> dict[str, Any]:
    milliseconds = 1000 * np.asarray(seconds)
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    return {
        "requests": len(seconds),
        "searches_per_second": round(len(seconds) / took, 1),
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "p99_ms": round(float(p99), 1),
        "most_ms": round(float(milliseconds.max()), 1),
    }


def ask(arguments: argparse.Namespace) -> dict[str, Any]:
    """One client: its requests shared among its threads, at fixed moments if there is a rate."""
    numbers, seconds, failed = count(), [], []
    began, lock = time.perf_counter(), threading.Lock()

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", arguments.port, timeout=60)
        while True:
            with lock:
                number = next(numbers)
            due = began + number / arguments.rate if arguments.rate else time.perf_counter()
            if number >= arguments.requests or due - began > arguments.seconds:
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            if not arguments.rate:
                due = time.perf_counter()
            body = json.dumps({"text": text_of(arguments.client, number), "top": 10})
            connection.request("POST", "/api/search", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            hits = len(json.loads(answer.read()).get("hits", ()))
            seconds.append(time.perf_counter() - due)
            if answer.status != 200 or hits != 10:
                failed.append(answer.status)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": seconds, "took": time.perf_counter() - began, "failed": failed}


def text_of(client: int, number: int) -> str:
    random = np.random.default_rng([client, number])
    return f"{'. '.join(random.choice(WORDS, 3))} {number}"


def serve(rows: int) -> None:
    from einthoven.cli import quiet
    from einthoven.indexing import open_archive
    from einthoven.serve.app import create_app
    from einthoven.serve.command import bound, run
    from einthoven.serve.options import Options
    from einthoven.serve.service import Service

    quiet()
    options = Options(port=0, rate=1e6, burst=10**6)
    with tempfile.TemporaryDirectory() as folder, bound(options) as listener:
        archive = open_archive(*made(Path(folder)))
        archive.index = noise(rows, archive.model.space_config)
        run(create_app(Service.of(archive, options), options), options, listener)


def made(folder: Path) -> tuple[Path, Path]:
    """A model of the default sizes with random weights, and a small simulated study."""
    from einthoven import pipeline, schema
    from einthoven.config import EcgEncoder as Ecg
    from einthoven.config import Recipe, Source, Space, TextEncoder
    from einthoven.model import Model
    from einthoven.study import read_table

    recipe, study = Recipe(source=Source(name="simulated", subjects=200)), folder / "study"
    pipeline.ingest(recipe.source, None, study)
    pipeline.pair(recipe, study)
    texts = [text for text in read_table(schema.PAIRS, study, ["text"])["text"].to_pylist() if text]
    Model.create(Ecg(), TextEncoder(), Space(), texts).save(folder / "model")
    return folder / "model", study


def noise(rows: int, space: Any) -> Any:
    """An index of so many unit vectors of noise."""
    import pyarrow as pa

    from einthoven import schema
    from einthoven.embed import lists
    from einthoven.search.exact import ExactIndex

    random = np.random.default_rng(0)
    vectors = random.standard_normal((rows, space.coarse_dim or space.dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns: dict[str, Any] = {field.name: pa.nulls(rows, field.type) for field in schema.INDEX.columns}
    columns["recording_id"] = pa.array([f"noise-{i:06d}" for i in range(rows)])
    columns["subject_id"] = pa.array(np.arange(rows))
    columns["split"] = pa.array(["train"] * rows)
    columns["findings"] = pa.array([["SCP//NORM", "SCP//SR"]] * rows)
    columns["coarse"] = lists(vectors)
    return ExactIndex(table=pa.table(columns).cast(schema.INDEX.columns))


if __name__ == "__main__":
    main()
