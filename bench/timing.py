"""Ways to time: one call, alternating with a reference, and many threads that start together."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.figures import Samples

BARRIER_S = 60.0


def milliseconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def repeat(count: int, call: Callable[[], object]) -> list[float]:
    """Milliseconds of each of ``count`` calls, one after another."""
    return [milliseconds(call) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Together:
    """What threads measured that started at one instant: seconds for all, and what each answered."""

    wall_s: float
    answers: list[list[float]]

    @property
    def samples(self) -> Samples:
        """All values of all threads."""
        return Samples.of([value for answer in self.answers for value in answer])


def together(works: Sequence[Callable[[], list[float]]]) -> Together:
    """Run each in a thread of its own, all released at the same time; the first failure is raised."""
    barrier = threading.Barrier(len(works) + 1)

    def wait_and_run(work: Callable[[], list[float]]) -> list[float]:
        barrier.wait(BARRIER_S)
        return work()

    with ThreadPoolExecutor(max_workers=len(works)) as threads:
        running = [threads.submit(wait_and_run, work) for work in works]
        barrier.wait(BARRIER_S)
        started = time.perf_counter()
        answers = [future.result() for future in running]
        return Together(time.perf_counter() - started, answers)
