"""Sends the outbox right after a commit, off the request's path."""

import logging
import threading

import fastapi
from sqlalchemy import exc

from service import queue

_log = logging.getLogger("salun.api")


class Relay:
    """One thread that sends what the outbox holds whenever it is nudged.

    If the broker is down the rows stay, and the next nudge or sweep sends them.
    """

    def __init__(self) -> None:
        self._nudged = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox-relay", daemon=True)

    def start(self) -> None:
        """Begin; what an earlier process left is sent first."""
        self._nudged.set()
        self._thread.start()

    def nudge(self) -> None:
        """Something was committed."""
        self._nudged.set()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped.set()
        self._nudged.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            self._nudged.wait()
            self._nudged.clear()
            if self._stopped.is_set():
                return
            try:
                while queue.relay():
                    pass
            except (*queue.UNREACHABLE, exc.SQLAlchemyError) as error:
                _log.warning("the outbox stays for the next sweep: %s", type(error).__name__)


def nudge(request: fastapi.Request) -> None:
    """Send the outbox soon: something was committed."""
    running: Relay = request.app.state.relay
    running.nudge()


async def after_commit(request: fastapi.Request, tasks: fastapi.BackgroundTasks) -> None:
    """Dependency: once the response was sent (so after the commit), send the outbox."""
    tasks.add_task(nudge, request)


AFTER_COMMIT = fastapi.Depends(after_commit)
