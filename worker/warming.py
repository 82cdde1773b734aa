"""What a worker child loads before its first job, so that a job starts within a second."""

import torch

from service import database, settings
from worker import pipeline, validating


def load() -> None:
    """Import the computing part and open the first database connection."""
    threads = settings.load().torch_threads
    if threads:
        torch.set_num_threads(threads)
    database.engine().dispose(close=False)  # never share a connection with the parent
    database.engine().connect().close()


__all__ = ["load", "pipeline", "validating"]
