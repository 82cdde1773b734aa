"""Celery tasks: ten lines each. The work is in ``worker.running``."""

import os
import socket

from service import leftovers, queue, sweeping
from worker.celery_app import app


@app.task(name=queue.RUN_JOB)
def run_job(job_id: str) -> None:
    """A hint came: do the most urgent claimable job of this worker's queue."""
    from worker import running

    running.run_one(job_id, owner=f"{socket.gethostname()}:{os.getpid()}")


@app.task(name="worker.tasks.sweep")
def sweep() -> None:
    """Beat's tick: seal, hint, send what was left lying."""
    sweeping.sweep()


@app.task(name="worker.tasks.clear")
def clear() -> None:
    """Beat's tick, every hour: what nobody refers to any more goes."""
    leftovers.clear()
