"""The one Celery task. The work is in ``worker.running``."""

import os
import socket

from service import queue
from worker.celery_app import app


@app.task(name=queue.RUN_JOB)
def run_job(job_id: str) -> None:
    """A hint came: do the most urgent claimable job of this worker's queue."""
    from worker import running

    running.run_one(job_id, owner=f"{socket.gethostname()}:{os.getpid()}")
