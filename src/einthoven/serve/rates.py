"""How many requests a client may make: a bucket of tokens for each, filled steadily. Old clients are forgotten."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

CLIENTS: Final = 10_000
"""Clients that are remembered; the one not seen for longest makes room."""


@dataclass
class Rates:
    """Each client may make `burst` requests at once, and `rate` a second in the long run."""

    rate: float
    burst: int
    clock: Callable[[], float] = time.monotonic
    clients: int = CLIENTS
    _buckets: "OrderedDict[str, tuple[float, float]]" = field(default_factory=OrderedDict)  # tokens, at what time

    def wait(self, client: str) -> float:
        """Take one token of a client: 0, or the seconds until there will be one."""
        now = self.clock()
        tokens, then = self._buckets.pop(client, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - then) * self.rate)
        enough = tokens >= 1
        self._buckets[client] = (tokens - 1 if enough else tokens, now)
        if len(self._buckets) > self.clients:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (1 - tokens) / self.rate

    def __len__(self) -> int:
        return len(self._buckets)


def client_of(address: str) -> str:
    """Who is behind an address: of IPv6 its network of 64 bits, since a client has them all."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is None:
        return str(ipaddress.ip_network((known, 64), strict=False))
    return str(known)
