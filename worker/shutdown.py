"""Whether this worker is going away; shared by the parent and the child that it forks."""

import multiprocessing

_going_away = multiprocessing.get_context("fork").Event()


def announce() -> None:
    """The parent got SIGTERM."""
    _going_away.set()


def is_announced() -> bool:
    """Whether running work should stop at its next step."""
    return _going_away.is_set()
