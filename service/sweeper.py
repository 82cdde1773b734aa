"""``python -m service.sweeper``: every few seconds, look for work that nobody was told of.

A process of its own, so that neither a long job nor a broker that is away keeps a batch from being
sealed or a deadline from being told. It ends on SIGTERM, after the sweep at hand.
"""

import argparse
import logging
import signal
import threading
import time

from sqlalchemy import exc

from service import leftovers, queue, settings, sweeping

CLEAR_SECONDS = 3600.0
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
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    run(stopped)


def run(stopped: threading.Event) -> None:
    """Sweep every ``SALUN_SWEEP_SECONDS``, and clear what is unused every hour."""
    clear_at = time.monotonic()
    while not stopped.wait(settings.load().sweep_seconds):
        try:
            sweeping.sweep()
            if time.monotonic() >= clear_at:
                leftovers.clear()
                clear_at = time.monotonic() + CLEAR_SECONDS
        except (*queue.UNREACHABLE, exc.SQLAlchemyError) as error:
            _log.warning("the rest waits for the next sweep: %s", type(error).__name__)


if __name__ == "__main__":
    main()
