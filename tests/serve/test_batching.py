import asyncio
import threading
from collections.abc import Sequence

import pytest

from einthoven.serve.batching import BusyError, Lane


class Gate:
    """Work that waits until it is let go, and tells when it has begun."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.begun.set()
        assert self.go.wait(20)
        self.batches.append(list(jobs))
        return [10 * job for job in jobs]


def test_what_gathers_while_the_thread_is_busy_is_one_batch() -> None:
    gate, sizes = Gate(), []
    lane: Lane[int, int] = Lane("test", gate, limit=10, most=3, batches=sizes.append)

    async def run() -> list[int]:
        first = asyncio.create_task(lane.do(0))
        await asyncio.to_thread(gate.begun.wait, 20)
        others = [asyncio.create_task(lane.do(job)) for job in range(1, 6)]
        await asyncio.sleep(0)  # let them queue
        assert len(lane) == 5
        gate.go.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(run()) == [0, 10, 20, 30, 40, 50]
    assert gate.batches == [[0], [1, 2, 3], [4, 5]] and sizes == [1, 3, 2]
    lane.close()


def test_a_full_lane_refuses_and_goes_on() -> None:
    gate = Gate()
    lane: Lane[int, int] = Lane("test", gate, limit=2)

    async def run() -> None:
        first = asyncio.create_task(lane.do(0))
        await asyncio.to_thread(gate.begun.wait, 20)
        waiting = [asyncio.create_task(lane.do(job)) for job in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await lane.do(3)
        gate.go.set()
        assert await asyncio.gather(first, *waiting) == [0, 10, 20]
        assert await lane.do(4) == 40

    asyncio.run(run())
    lane.close()


def test_one_jobs_mistake_is_not_the_others() -> None:
    begun, go = threading.Event(), threading.Event()

    def work(jobs: Sequence[int]) -> list[float]:
        begun.set()
        assert go.wait(20)
        return [1 / job for job in jobs]

    lane: Lane[int, float] = Lane("test", work, limit=10, most=10)

    async def run() -> list[float | BaseException]:
        first = asyncio.create_task(lane.do(1))
        await asyncio.to_thread(begun.wait, 20)
        others = [asyncio.create_task(lane.do(job)) for job in (2, 0, 4)]
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    one, half, failed, quarter = asyncio.run(run())
    assert (one, half, quarter) == (1, 0.5, 0.25) and isinstance(failed, ZeroDivisionError)
    lane.close()


def test_closing_finishes_what_was_taken_and_takes_nothing_more() -> None:
    gate = Gate()
    lane: Lane[int, int] = Lane("test", gate, limit=5, threads=2)

    async def run() -> None:
        waiting = [asyncio.create_task(lane.do(job)) for job in range(5)]
        await asyncio.to_thread(gate.begun.wait, 20)
        closing = asyncio.create_task(asyncio.to_thread(lane.close))
        gate.go.set()
        await closing
        assert await asyncio.gather(*waiting) == [0, 10, 20, 30, 40]
        with pytest.raises(BusyError):
            await lane.do(5)

    asyncio.run(run())
