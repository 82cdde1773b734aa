"""A claimed job while it runs: heartbeat, progress, and the reasons to stop."""

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sqlalchemy import exc

from salun_core import errors as core_errors
from service import errors, jobs, settings
from worker import shutdown

BEATS_A_LEASE = 4
PROGRESS_SECONDS = 0.5
_JOIN_SECONDS = 5.0


class Interrupted(Exception):
    """The job goes back to the queue, and the attempt does not count."""


class GoingAway(Interrupted):
    """This worker was told to stop."""


class MakingWay(Interrupted):
    """A more urgent job waits for this worker."""


class Lease:
    """Renews a claim in a thread of its own and raises in the working thread when it must stop.

    :meth:`progress` is the only way up from the computation: it carries the step count and is where
    a lost lease, a cancellation or a shutdown stops the work.
    """

    def __init__(self, claimed: jobs.Claim) -> None:
        self.claimed = claimed
        self._progress = jobs.Progress("loading")
        self._stage_began = time.monotonic()
        self._renewed = time.monotonic()
        self._patience = settings.load().lease_seconds / 2
        self._lost = threading.Event()
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        self._nudged = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._nudged.set()
        # One that hangs with its database is left behind: by its fence it writes nothing any more.
        self._thread.join(_JOIN_SECONDS)

    def enter(self, stage: str) -> Callable[[int, int], None]:
        """Begin a stage; returns its progress function."""
        self._stage_began = time.monotonic()
        self._progress = jobs.Progress(stage)
        self._nudged.set()
        self.check()
        return self._report

    def check(self) -> None:
        """Raise what stops the work: LeaseLost, CancelledError or GoingAway.

        A heartbeat that hangs with its database cannot say that the lease is lost.
        """
        if self._lost.is_set() or self._is_late():
            raise errors.LeaseLost
        if self._cancelled.is_set():
            raise core_errors.CancelledError
        if shutdown.is_announced():
            raise GoingAway

    def _report(self, step: int, total_steps: int) -> None:
        elapsed = time.monotonic() - self._stage_began
        eta = elapsed / step * (total_steps - step) if step else None
        self._progress = jobs.Progress(self._progress.stage, step, total_steps, eta)
        self.check()

    def _run(self) -> None:
        interval = min(settings.load().lease_seconds / BEATS_A_LEASE, PROGRESS_SECONDS)
        while not self._ended.is_set():
            self._nudged.wait(interval)
            self._nudged.clear()
            if self._ended.is_set():
                return
            with contextlib.suppress(exc.SQLAlchemyError):
                try:
                    if jobs.heartbeat(self.claimed, self._progress):
                        self._cancelled.set()
                    self._renewed = time.monotonic()
                except errors.LeaseLost:
                    self._lost.set()
                    return
            if self._is_late():
                self._lost.set()
                return

    def _is_late(self) -> bool:
        """Whether half the lease is over since it was renewed."""
        return time.monotonic() - self._renewed > self._patience
