"""A server under mixed load for half an hour: does it leak, does it fail, and how long do answers take?

    python benchmarks/soak.py [--minutes 30] [--rate 20] [--threads 6] [--seed 0] [--out results/soak.json]

Simulated: `einthoven serve` runs in a process of its own on 127.0.0.1, with a small model of a small simulated study.
Clients search by text, codes, recording and files, turn pages, send files that are none, too large or cut off, and leave
before they are answered. Every choice is a function of the seed. Every five seconds the server's memory, its open files
and its children are counted.

It fails, with status 1, on an answer above 499 other than 503, on an answer that does not come, on memory that after
the first third still grows by more than 1 MB a minute and by more than 30 MB in all, and on files or children that are
more at rest after the load than before it.
"""

import argparse
import http.client
import io
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

EVERY: Final = 5.0
GROWTH_PER_MINUTE: Final = 1.0  # MB
GROWTH: Final = 30.0  # MB
WORDS: Final = (
    "sinus rhythm", "atrial fibrillation", "left bundle branch block", "old inferior infarct", "st depression",
    "normal ecg", "first degree block", "ventricular extrasystoles", "left axis deviation", "tachycardia",
)  # fmt: skip
MIX: Final = {
    "text": 30, "codes": 8, "recording": 8, "where": 6, "page": 8, "recording page": 5, "drawing": 5, "findings": 4,
    "file": 7, "page upload": 4, "bad file": 4, "large file": 1, "bad request": 2, "left": 5, "left in a file": 3,
}  # fmt: skip
"""Shares of what is asked; "left": the client closes before it is answered."""


@dataclass
class Told:
    """What all clients saw."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, status: int | str, seconds: float | None) -> None:
        with self.lock:
            self.statuses[kind][str(status)] += 1
            if seconds is not None:
                self.seconds[kind].append(seconds)
            if (isinstance(status, int) and status >= 500 and status != 503) or (
                isinstance(status, str) and status != "left"
            ):
                self.failures.append(f"{kind}: {status}")


@dataclass
class Client:
    """Asks one thing after another, each on a connection of its own or on one that it keeps."""

    port: int
    known: dict[str, Any]  # ids, codes, and files good and bad
    told: Told
    random: np.random.Generator
    kept: http.client.HTTPConnection | None = None

    def ask(self, kind: str) -> None:
        began = time.perf_counter()
        try:
            status: int | str = getattr(self, "_" + kind.replace(" ", "_"))()
        except (OSError, http.client.HTTPException) as error:
            status, self.kept = type(error).__name__, None
        self.told.add(kind, status, None if status == "left" else time.perf_counter() - began)

    def _answer(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> http.client.HTTPResponse:
        if self.kept is None:
            self.kept = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        self.kept.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        answer = self.kept.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]
        if answer.will_close:
            self.kept = None
        return answer

    def _post(self, path: str, **body: Any) -> int:
        return self._answer("POST", path, json.dumps(body)).status

    def _form(self, path: str, **fields: str) -> http.client.HTTPResponse:
        from urllib.parse import urlencode

        return self._answer("POST", path, urlencode(fields), "application/x-www-form-urlencoded")

    def _words(self) -> str:
        return f"{'. '.join(self.random.choice(WORDS, 2))} {self.random.integers(10_000)}"

    def _id(self) -> str:
        return str(self.random.choice(self.known["ids"]))

    def _text(self) -> int:
        return self._post("/api/search", text=self._words(), top=10)

    def _codes(self) -> int:
        return self._post("/api/search", codes=list(map(str, self.random.choice(self.known["codes"], 2))), top=10)

    def _recording(self) -> int:
        return self._post("/api/search", recording_id=self._id())

    def _where(self) -> int:
        return self._post("/api/search", text=self._words(), where="sex = female and age >= 40", by_patient=True)

    def _findings(self) -> int:
        return self._post("/api/findings", recording_id=self._id())

    def _bad_request(self) -> int:
        return self._post("/api/search", text="a", where="nothing = 1")

    def _page(self) -> int:
        found = self._form("/search", q=self._words())
        return self._answer("GET", found.headers["Location"]).status if found.status == 303 else found.status

    def _recording_page(self) -> int:
        return self._answer("GET", f"/recording/{self._id()}").status

    def _drawing(self) -> int:
        return self._answer("GET", f"/api/recordings/{self._id()}.svg").status

    def _sent(self, path: str, content: bytes) -> http.client.HTTPResponse:
        return self._answer("POST", path, multipart(content), "multipart/form-data; boundary=cut")

    def _file(self) -> int:
        return self._sent(str(self.random.choice(["/api/search/ecg", "/api/findings/ecg"])), self._good()).status

    def _good(self) -> bytes:
        return bytes(self.known["good"][self.random.integers(len(self.known["good"]))])

    def _page_upload(self) -> int:
        found = self._sent("/upload", self._good())
        return self._answer("GET", found.headers["Location"]).status if found.status == 303 else found.status

    def _bad_file(self) -> int:
        content = bytearray(self._good())
        for place in self.random.integers(0, len(content), 50):
            content[place] = self.random.integers(256)
        return self._sent("/api/search/ecg", bytes(content[: self.random.integers(len(content))])).status

    def _large_file(self) -> int:
        """Its stated length is refused before it is sent, so the connection may be cut while it is."""
        try:
            return self._sent("/api/search/ecg", bytes(17 << 20)).status
        except (BrokenPipeError, ConnectionResetError):
            self.kept = None
            return 413

    def _left(self) -> str:
        body = json.dumps({"text": self._words()})
        return self._cut(f"/api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                         f"Content-Length: {len(body)}\r\n\r\n{body}".encode())  # fmt: skip

    def _left_in_a_file(self) -> str:
        body = multipart(self._good())
        head = f"/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=cut\r\nContent-Length: {len(body)}\r\n\r\n"
        return self._cut(head.encode() + body[: self.random.integers(len(body) + 1)])

    def _cut(self, sent: bytes) -> str:
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            connection.sendall(b"POST " + sent)
            time.sleep(float(self.random.choice([0, 0.005, 0.05])))
        return "left"


def multipart(content: bytes) -> bytes:
    head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return head + content + b"\r\n--cut--\r\n"


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
        report["failures"] += [f"the server ended with {ended}"] if ended else []
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
    told: Told, samples: list[tuple[float, float, int, int]], before: tuple[float, int, int], after: tuple[float, int, int],
    took: float, arguments: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    late = [(at / 60, memory) for at, memory, *_ in samples if at > took / 3]
    slope = float(np.polyfit(*np.array(late).T, 1)[0]) if len(late) > 2 else 0.0
    failures = sorted(set(told.failures))
    if slope > GROWTH_PER_MINUTE and late[-1][1] - late[0][1] > GROWTH:
        failures.append(f"memory grows by {slope:.1f} MB a minute after the first third")
    for name, place, room in (("open files", 1, 4), ("children", 2, 0)):
        if after[place] > before[place] + room:
            failures.append(f"{name}: {before[place]} before, {after[place]} after")
    everything = [second for of in told.seconds.values() for second in of]
    return {
        "data_kind": "simulated",
        "minutes": round(took / 60, 1),
        "asked_a_second": arguments.rate,
        "clients": arguments.threads,
        "seed": arguments.seed,
        "all": times(everything) | {"asked": sum(sum(of.values()) for of in told.statuses.values())},
        "kinds": {kind: {**times(told.seconds[kind]), "answers": dict(sorted(told.statuses[kind].items()))} for kind in MIX},
        "memory_mb": {
            "before": round(before[0]), "after": round(after[0]), "most": round(max(m for _, m, *_ in samples)),
            "slope_a_minute": round(slope, 2), "each_half_minute": [round(m) for _, m, *_ in samples[::6]],
        },
        "open_files": {"before": before[1], "after": after[1], "most": max(f for *_, f, _ in samples)},
        "children": {"before": before[2], "after": after[2]},
        "bounds": {"memory_mb_a_minute": GROWTH_PER_MINUTE, "memory_mb": GROWTH, "statuses": "below 500, or 503"},
        "failures": failures,
        "machine": machine(),
    }  # fmt: skip


def times(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    p50, p95 = np.percentile(1000 * np.array(seconds), [50, 95])
    return {"p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1)}


def resources(process: int) -> tuple[float, int, int]:
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


def at_rest(process: int) -> tuple[float, int, int]:
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


def machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": os.cpu_count(),
        "cores_used": cores,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


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


def files() -> list[bytes]:
    """ECGs as a CSV and as MATLAB, of ten seconds at 500 Hz."""
    from scipy.io import savemat

    leads = ["I", "II", "III", "aVR", "aVL", "aVF", *(f"V{i}" for i in range(1, 7))]
    values = np.cumsum(np.random.default_rng(0).integers(-9, 10, (5000, 12)), axis=0) * 5 % 2000
    rows = "\n".join(",".join(map(str, row)) for row in values.tolist())
    packed = io.BytesIO()
    savemat(
        packed, {"val": values.T.astype(float), "fs": 500, "units": "uV", "leads": np.array(leads)}, do_compression=True
    )
    return [f"# sampling_rate: 500\n# unit: uV\n{','.join(leads)}\n{rows}\n".encode(), packed.getvalue()]


if __name__ == "__main__":
    main()
