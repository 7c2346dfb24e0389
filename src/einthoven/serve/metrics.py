"""What the service counts, in Prometheus' text format. Labels are routes as the code has them: no path, no query."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass
class Histogram:
    """Counts of values up to each bound, and their sum."""

    bounds: Sequence[float]
    counts: list[int] = field(init=False)  # the last: above all bounds
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str = "") -> Iterator[str]:
        """As Prometheus reads it: each bucket counts those before it, too."""
        below, comma = 0, "," if labels else ""
        for bound, count in zip((*(f"{bound:g}" for bound in self.bounds), "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{{labels}{comma}le="{bound}"}} {below}'
        braced = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{braced} {self.total:.6f}"
        yield f"{name}_count{braced} {below}"


@dataclass
class Metrics:
    """Requests and their times by route, batches of the model, jobs that wait in each lane."""

    _requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    _seconds: dict[str, Histogram] = field(default_factory=dict)
    _batches: Histogram = field(default_factory=lambda: Histogram(SIZES))
    _waiting: dict[str, Callable[[], int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One was answered."""
        with self._lock:
            self._requests[method, route, status] += 1
            self._seconds.setdefault(route, Histogram(SECONDS)).add(seconds)

    def batch(self, size: int) -> None:
        """So many requests share one call of the model."""
        with self._lock:
            self._batches.add(size)

    def watch(self, lane: str, waiting: Callable[[], int]) -> None:
        """Ask `waiting` how many jobs wait in a lane, whenever the metrics are read."""
        self._waiting[lane] = waiting

    def text(self) -> str:
        """All of it, in a fixed order."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield "# HELP einthoven_requests_total Requests answered."
        yield "# TYPE einthoven_requests_total counter"
        for (method, route, status), count in sorted(self._requests.items()):
            yield f'einthoven_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'
        yield "# HELP einthoven_request_seconds From the first byte of a request to the last of its answer."
        yield "# TYPE einthoven_request_seconds histogram"
        for route, seconds in sorted(self._seconds.items()):
            yield from seconds.lines("einthoven_request_seconds", f'route="{route}"')
        yield "# HELP einthoven_batch_size Requests that shared one call of the model."
        yield "# TYPE einthoven_batch_size histogram"
        yield from self._batches.lines("einthoven_batch_size")
        yield "# HELP einthoven_waiting Jobs that wait."
        yield "# TYPE einthoven_waiting gauge"
        for lane, waiting in sorted(self._waiting.items()):
            yield f'einthoven_waiting{{lane="{lane}"}} {waiting()}'
