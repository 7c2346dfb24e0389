"""What pages refer to by a random name: so no address, and no log or history of addresses, has the words of a search.

Kept in memory only, so many and so long, and gone with the process.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Thing = TypeVar("Thing")

MOST: Final = 1000
SECONDS: Final = 4 * 3600.0
"""Since it was last asked for."""


@dataclass
class Kept(Generic[Thing]):
    """At most `most` things, each for `seconds` after it was last asked for; the longest unused makes room."""

    most: int = MOST
    seconds: float = SECONDS
    clock: Callable[[], float] = time.monotonic
    _things: "OrderedDict[str, tuple[float, Thing]]" = field(default_factory=OrderedDict)

    def put(self, thing: Thing) -> str:
        """Keep it; its name cannot be guessed."""
        name = secrets.token_urlsafe(16)
        self._things[name] = (self.clock(), thing)
        while len(self._things) > self.most:
            self._things.popitem(last=False)
        return name

    def get(self, name: str) -> Thing | None:
        """What was kept under this name; None if it is gone, or never was."""
        now = self.clock()
        while self._things and now - next(iter(self._things.values()))[0] > self.seconds:
            self._things.popitem(last=False)
        found = self._things.pop(name, None)
        if found is None:
            return None
        self._things[name] = (now, found[1])
        return found[1]

    def __len__(self) -> int:
        return len(self._things)
