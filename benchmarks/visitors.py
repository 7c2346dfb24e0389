"""Who visits the server of soak.py: what they ask, what they saw, and when they leave."""

import http.client
import io
import json
import socket
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np

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
        head = "/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=cut\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        return self._cut(head.encode() + body[: self.random.integers(len(body) + 1)])

    def _cut(self, sent: bytes) -> str:
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            connection.sendall(b"POST " + sent)
            time.sleep(float(self.random.choice([0, 0.005, 0.05])))
        return "left"


def multipart(content: bytes) -> bytes:
    head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return head + content + b"\r\n--cut--\r\n"


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
