"""Comparing two works fairly: turn by turn, who starts alternates, processor time."""

import time
from collections.abc import Callable

Work = Callable[[], object]


def ratios(first: Work, second: Work, runs: int) -> list[float]:
    """Time of the first over that of the second, one of each turn; both run once before."""
    first()
    second()
    found = []
    for turn in range(runs):
        if turn % 2:
            below, above = seconds(second), seconds(first)
        else:
            above, below = seconds(first), seconds(second)
        found.append(above / below)
    return found


def seconds(work: Work) -> float:
    """Processor seconds of this process for the work."""
    started = time.process_time()
    work()
    return time.process_time() - started
