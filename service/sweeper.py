"""``python -m service.sweeper``: every few seconds, look for work that nobody was told of.

A process of its own, so that neither a long job nor a broker that is away keeps a batch from being
sealed or a deadline from being told. It ends on SIGTERM, after the sweep at hand.
"""

import argparse
import logging
import select
import signal
import socket
import time
from collections.abc import Callable

from sqlalchemy import exc

from service import leftovers, queue, settings, sweeping

_CLEAR_SECONDS = 3600.0
_STOPS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("salun.sweeper")


def main() -> None:
    """Sweep until somebody sends SIGTERM or SIGINT; with ``--once`` sweep and clear, and end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="sweep and clear once, and end")
    if parser.parse_args().once:
        leftovers.clear()
        sweeping.sweep()
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    told, waker = socket.socketpair()  # what says, between two sweeps, that a signal came
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno())
    for number in _STOPS:
        signal.signal(number, lambda *_: None)
    clear_at = time.monotonic()
    while not select.select([told], [], [], settings.load().sweep_seconds)[0]:
        _attempt(sweeping.sweep)
        if time.monotonic() >= clear_at:
            _attempt(leftovers.clear)
            clear_at = time.monotonic() + _CLEAR_SECONDS


def _attempt(work: Callable[[], object]) -> None:
    try:
        work()
    except (*queue.UNREACHABLE, exc.SQLAlchemyError) as error:
        _log.warning("the rest waits for the next sweep: %s", type(error).__name__)
    except Exception as error:  # noqa: BLE001 - one fault must not stop the clock of all requests
        _log.error("the rest waits for the next sweep", exc_info=error)


if __name__ == "__main__":
    main()
