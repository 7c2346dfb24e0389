"""Lanes: work of many requests through few threads, in batches, bounded, and never on the event loop.

A lane takes what is waiting when its thread is free, so that a batch costs nobody a wait: one request alone goes at
once, and while it is worked on the next ones gather.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class BusyError(Exception):
    """A lane is full, or closing: try again later."""


@dataclass
class _Waiting(Generic[Job, Result]):
    job: Job
    future: "asyncio.Future[Result]"
    loop: asyncio.AbstractEventLoop


@dataclass
class Lane(Generic[Job, Result]):
    """`threads` threads that call `work` on up to `most` jobs at once; at most `limit` jobs wait."""

    name: str
    work: Callable[[Sequence[Job]], Sequence[Result | Exception]]  # one answer for each job, in their order
    limit: int
    most: int = 1
    threads: int = 1
    batches: Callable[[int], None] = lambda size: None  # told the size of each batch, in a thread of the lane
    _queue: "queue.Queue[_Waiting[Job, Result] | None]" = field(init=False)
    _closing: bool = False

    def __post_init__(self) -> None:
        self._queue = queue.Queue(self.limit + self.threads)  # room for the ends beside the jobs
        self._running = [
            threading.Thread(target=self._run, name=f"{self.name}-{i}", daemon=True) for i in range(self.threads)
        ]
        for thread in self._running:
            thread.start()

    def __len__(self) -> int:
        """Jobs that wait."""
        return self._queue.qsize()

    async def do(self, job: Job) -> Result:
        """What `work` makes of a job, or what it raises; BusyError if too many wait."""
        if self._closing or len(self) >= self.limit:
            raise BusyError(self.name)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._queue.put_nowait(_Waiting(job, future, loop))
        return await future

    def close(self, seconds: float = 10.0) -> None:
        """Take nothing more, finish what was taken, end. Waits no longer than `seconds` for each thread."""
        self._closing = True
        for _ in self._running:
            self._queue.put(None)
        for thread in self._running:
            thread.join(seconds)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            taken, ended = [first], False
            while len(taken) < self.most and not ended:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                else:
                    taken.append(following)
            self._answer(taken)
            if ended:
                return

    def _answer(self, taken: "list[_Waiting[Job, Result]]") -> None:
        wanted = [one for one in taken if not one.future.cancelled()]
        if not wanted:
            return
        self.batches(len(wanted))
        for one, result in zip(wanted, self._worked([one.job for one in wanted]), strict=True):
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                one.loop.call_soon_threadsafe(_settle, one.future, result)

    def _worked(self, jobs: Sequence[Job]) -> Sequence[Result | Exception]:
        """Every request must hear of what is raised, and the thread go on; of several jobs only who raised it."""
        try:
            return self.work(jobs)
        except Exception as error:
            return [error] if len(jobs) == 1 else [self._worked([job])[0] for job in jobs]


def _settle(future: "asyncio.Future[Result]", result: Result | Exception) -> None:
    if future.cancelled():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
