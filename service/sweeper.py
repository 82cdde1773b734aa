"""``python -m service.sweeper``: every few seconds, look for work that nobody was told of.

A process of its own, so that neither a long job nor a broker that is away keeps a batch from being
sealed or a deadline from being told. It ends on SIGTERM, after the sweep at hand.
"""

import argparse
import logging
import signal
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
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # they are waited for, between two sweeps
    clear_at = time.monotonic()
    while signal.sigtimedwait(_STOPS, settings.load().sweep_seconds) is None:
        _attempt(sweeping.sweep)
        if time.monotonic() >= clear_at:
            _attempt(leftovers.clear)
            clear_at = time.monotonic() + _CLEAR_SECONDS


def _attempt(work: Callable[[], object]) -> None:
    try:
        work()
    except (*queue.UNREACHABLE, exc.SQLAlchemyError) as error:
        _log.warning("the rest waits for the next sweep: %s", type(error).__name__)


if __name__ == "__main__":
    main()
